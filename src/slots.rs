//! How much of something each address holds, and no more than it may; twice as much, together with what winds down: whoever comes back
//! need not wait until what it left is done, and who leaves much behind gets no more until that is.
//!
//! Plain struct: no actor, no clock, no requests. An address is known only while it holds anything, so nothing is kept of
//! those that have left. Shared by the workers; the lock is held for one look-up,
//! and seldom for the table to give its room back.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{config::DEFAULT_MAX_CONNECTIONS_PER_ADDRESS, per_address::PerAddress, shrink::shrink};

/// The address holds as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address holds {limit} already")]
pub struct Full {
    /// How many it may hold.
    pub limit: usize,
}

/// How many one address holds.
#[derive(Debug, Default)]
struct Num {
    live: usize,
    winding_down: usize,
}

/// Returns whether there is none left of `limit`, or of twice that for all, those included that wind down.
pub(crate) fn are_all_held(live: usize, winding_down: usize, limit: usize) -> bool {
    live >= limit || live + winding_down >= limit.saturating_mul(2)
}

/// Who holds how many.
#[derive(Debug)]
pub struct Slots {
    limit: PerAddress<usize>,
    held: Mutex<HashMap<IpAddr, Num>>,
}

impl Slots {
    /// Returns slots for at most `times` what `MAX_CONNECTIONS_PER_ADDRESS` says, of each address; 0 is no limit. If it says nothing,
    /// it is the default, and private addresses have none.
    pub fn new(setting: Option<usize>, times: usize) -> Arc<Self> {
        let limit = setting.unwrap_or(DEFAULT_MAX_CONNECTIONS_PER_ADDRESS);
        Self::of_each(limit.saturating_mul(times), setting)
    }

    /// Returns slots for at most `limit` of each address that is counted, which is for `MAX_CONNECTIONS_PER_ADDRESS` to say: none if
    /// it is 0, only those that are not private if it says nothing.
    pub fn of_each(limit: usize, setting: Option<usize>) -> Arc<Self> {
        let limit = (setting != Some(0)).then_some(limit);
        Arc::new(Self {
            limit: PerAddress::new(limit, setting.is_some()),
            held: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Num>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether anything is counted at all.
    pub fn is_limited(&self) -> bool {
        self.limit.is_limited()
    }

    /// Takes a slot of this address, which is free again when it is dropped.
    ///
    /// # Errors
    /// There is none left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Full> {
        let Some(limit) = self.limit.of(address) else {
            return Ok(Slot::default());
        };
        let mut held = self.lock();
        let num = held.entry(address).or_default();
        if are_all_held(num.live, num.winding_down, limit) {
            return Err(Full { limit });
        }
        num.live += 1;
        drop(held);
        Ok(Slot {
            of: Some((Arc::clone(self), address)),
            is_winding_down: AtomicBool::new(false),
        })
    }
}

/// What one holds. The default is nothing that is counted.
#[derive(Debug, Default)]
pub struct Slot {
    of: Option<(Arc<Slots>, IpAddr)>,
    is_winding_down: AtomicBool,
}

impl Slot {
    /// Counts what holds it among what winds down, from now on.
    pub(crate) fn wind_down(&self) {
        if self.is_winding_down.swap(true, Relaxed) {
            return;
        }
        if let Some((slots, address)) = &self.of
            && let Some(num) = slots.lock().get_mut(address)
        {
            num.live -= 1;
            num.winding_down += 1;
        }
    }

    /// Returns whether what holds it winds down.
    pub(crate) fn is_winding_down(&self) -> bool {
        self.is_winding_down.load(Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((slots, address)) = self.of.take() else {
            return;
        };
        let mut held = slots.lock();
        if let Entry::Occupied(mut entry) = held.entry(address) {
            let num = entry.get_mut();
            match self.is_winding_down() {
                true => num.winding_down -= 1,
                false => num.live -= 1,
            }
            if num.live + num.winding_down == 0 {
                entry.remove();
            }
        }
        shrink(&mut *held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_back_what_it_lets_go_and_nothing_is_kept_of_it() {
        let slots = Slots::new(Some(2), 1);
        let [one, other] = [IpAddr::from([1, 2, 3, 4]), IpAddr::from([5, 6, 7, 8])];
        let first = slots.take(one).unwrap();
        let _second = slots.take(one).unwrap();
        assert_eq!(slots.take(one).unwrap_err(), Full { limit: 2 });
        let others = slots.take(other).unwrap();
        drop(first);
        let _third = slots.take(one).unwrap();
        drop(others);
        assert_eq!(slots.lock().len(), 1);
    }

    /// A bug: what an address had let go counted nowhere while its handlers still ran.
    #[test]
    fn who_comes_back_need_not_wait_for_what_winds_down_unless_that_is_much() {
        let slots = Slots::new(Some(2), 1);
        let [one, other] = [IpAddr::from([1, 2, 3, 4]), IpAddr::from([5, 6, 7, 8])];
        let take = || slots.take(one);
        let mut left = Vec::new();
        for _ in 0..4 {
            let slot = take().unwrap();
            slot.wind_down();
            slot.wind_down();
            left.push(slot);
        }
        assert_eq!(take().unwrap_err(), Full { limit: 2 });
        drop(slots.take(other).unwrap());
        left.pop();
        let live = take().unwrap();
        assert_eq!(take().unwrap_err(), Full { limit: 2 });
        left.clear();
        let second = take().unwrap();
        assert_eq!(take().unwrap_err(), Full { limit: 2 });
        drop((live, second));
        assert!(slots.lock().is_empty());
    }

    /// A bug: it kept what it had at its largest as long as anybody was there.
    #[test]
    fn many_addresses_take_no_room_once_they_have_gone() {
        let slots = Slots::new(Some(2), 1);
        let take = |n: u32| slots.take(IpAddr::from(n.to_be_bytes())).unwrap();
        let _last = take(0);
        drop((1..10_000).map(take).collect::<Vec<_>>());
        let capacity = slots.lock().capacity();
        assert!(capacity < 100, "{capacity}");
    }

    #[test]
    fn where_nobody_says_how_many_private_addresses_have_no_limit() {
        let slots = Slots::new(None, 2);
        let most = 2 * DEFAULT_MAX_CONNECTIONS_PER_ADDRESS;
        let take_all = |address: &str| {
            let address = address.parse().unwrap();
            let held = (0..most).map(|_| slots.take(address).unwrap());
            let held: Vec<_> = held.collect();
            let full = slots.take(address).err();
            drop(held);
            full
        };
        for open in [
            "9.9.9.9",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2001:db8::",
        ] {
            assert_eq!(take_all(open), Some(Full { limit: most }), "{open}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fd00::",
            "fe80::",
        ] {
            assert_eq!(take_all(private), None, "{private}");
        }
        let all = Slots::new(Some(1), 1);
        let _held = all.take([10, 0, 0, 1].into()).unwrap();
        assert!(all.take([10, 0, 0, 1].into()).is_err(), "as it was set");
    }

    #[test]
    fn no_limit_counts_nothing() {
        let slots = Slots::new(Some(0), 1);
        let _held: Vec<_> = (0..100)
            .map(|_| slots.take(IpAddr::from([1, 2, 3, 4])).unwrap())
            .collect();
        assert!(slots.lock().is_empty());
    }
}
