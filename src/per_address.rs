//! A limit of each address, as settings say it.
//!
//! Pure policy: knows addresses, not what is limited. Where nobody says how much, only addresses of the open internet are limited: one of
//! a private network is as a rule a balancer's, and all clients behind it would be one.

use std::net::IpAddr;

/// What each address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PerAddress<T> {
    /// `None` limits nobody.
    limit: Option<T>,
    spares_private: bool,
}

impl<T: Copy> PerAddress<T> {
    /// Returns a limit, or none for anybody. It is not of private addresses unless it `is_set`.
    pub(crate) fn new(limit: Option<T>, is_set: bool) -> Self {
        Self {
            limit,
            spares_private: !is_set,
        }
    }

    /// Returns whether anybody is limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Returns what an address may have; `None` is no limit.
    pub(crate) fn of(&self, address: IpAddr) -> Option<T> {
        let is_spared = self.spares_private && is_private(address);
        self.limit.filter(|_| !is_spared)
    }
}

/// Returns whether an address is of no use outside of its own network: as a rule a balancer's, or somebody's of the house.
fn is_private(address: IpAddr) -> bool {
    match address {
        // 100.64.0.0/10 is between carriers and their customers (RFC 6598), and where some clusters have their pods.
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0b1100_0000 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}
