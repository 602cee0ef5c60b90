//! Whose request it is: the address of a client, also behind balancers that we trust to tell it.
//!
//! Pure policy: knows addresses and the text of a header, not requests. For counting alone; what a gateway reads as the address of
//! a handshake stays that of the peer, as in Node.
//!
//! Rules: the peer's address, unless the peer is a trusted proxy. Then the entries of `X-Forwarded-For` from the last to the first,
//! until one is no trusted proxy: that is the client, whatever stands before it, since anybody can write that. An entry that is no
//! address ends the walk at the proxy that sent it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Why an entry of `TRUSTED_PROXIES` cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{entry:?} is no address and no network; write it like 10.0.0.7 or 172.16.0.0/12")]
pub struct ProxyFault {
    /// What stood there.
    pub entry: String,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: u128,
    prefix_bits: u32,
}

/// Returns an address as a number; IPv4 in its place within IPv6.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, before) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        let bits = bits.map_or(Some(width), |bits| bits.parse::<u32>().ok())?;
        (bits <= width).then(|| Self {
            first: number(address),
            prefix_bits: before + bits,
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differing = self.first ^ number(address);
        differing.leading_zeros() >= self.prefix_bits
    }
}

/// The balancers of `TRUSTED_PROXIES`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl FromStr for TrustedProxies {
    type Err = ProxyFault;

    /// Reads a comma-separated list of addresses and networks.
    fn from_str(text: &str) -> Result<Self, ProxyFault> {
        let entries = text.split(',').map(str::trim);
        entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                Network::parse(entry).ok_or_else(|| ProxyFault {
                    entry: entry.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedProxies {
    /// Returns whether the address is a proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the client of a request that came from `peer` with these values of `X-Forwarded-For`, in their order.
    pub fn client<'v>(
        &self,
        peer: SocketAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'v str>,
    ) -> IpAddr {
        let mut client = peer.ip().to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for entry in forwarded_for.rev().flat_map(|value| value.rsplit(',')) {
            let Some(address) = address(entry.trim()) else {
                break;
            };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// Reads an entry of the header: an address, some proxies add a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// Returns what counts as one client's address: of IPv6 the first 64 bits, since whoever has one address there has all of them.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded_for: &[&str]) -> String {
        let trusted: TrustedProxies = trusted.parse().unwrap();
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        let values = forwarded_for.iter().copied();
        trusted.client(peer, values).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_client() {
        let cases: &[(&str, &str, &[&str], &str)] = &[
            ("", "9.9.9.9", &["1.2.3.4"], "9.9.9.9"),
            ("10.0.0.0/8", "9.9.9.9", &["1.2.3.4"], "9.9.9.9"),
            ("10.0.0.0/8", "10.1.2.3", &["1.2.3.4"], "1.2.3.4"),
            ("10.0.0.0/8", "10.1.2.3", &[], "10.1.2.3"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", &["1.2.3.4"], "1.2.3.4"),
            // What a client writes itself stands before what the proxy adds.
            ("10.0.0.0/8", "10.1.2.3", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.0/8", "10.1.2.3", &["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            ("10.0.0.0/8", "10.1.2.3", &["1.2.3.4, 10.0.0.9"], "1.2.3.4"),
            ("10.0.0.0/8", "10.1.2.3", &["6.6.6.6, nonsense"], "10.1.2.3"),
            ("10.0.0.0/8", "10.1.2.3", &["1.2.3.4:5678"], "1.2.3.4"),
            (
                "10.0.0.0/8",
                "10.1.2.3",
                &["[2001:db8::1]:5678"],
                "2001:db8::1",
            ),
            ("10.0.0.0/8", "10.1.2.3", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.1.2.3, fd00::/8", "fd00::7", &["1.2.3.4"], "1.2.3.4"),
            ("0.0.0.0/0", "7.7.7.7", &["1.2.3.4"], "1.2.3.4"),
        ];
        for (trusted, peer, forwarded_for, expected) in cases {
            let got = client(trusted, peer, forwarded_for);
            assert_eq!(got, *expected, "{trusted} {peer} {forwarded_for:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_its_name() {
        for entry in [
            "10.0.0.0/33",
            "::/129",
            "traefik",
            "10.0.0/8",
            "10.0.0.0/",
            "/8",
        ] {
            let fault = entry.parse::<TrustedProxies>().unwrap_err();
            assert!(fault.to_string().contains(entry), "{fault}");
        }
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let counted = |text: &str| super::counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("::ffff:1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
    }
}
