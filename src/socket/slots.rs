//! How much of something each address holds, and no more than it may.
//!
//! Plain struct: no actor, no clock, no requests. An address is known only while it holds anything, so nothing is kept of
//! those that have left. Shared by the workers; the lock is held for one look-up.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The address holds as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address holds {limit} already")]
pub struct Full {
    /// How many it may hold.
    pub limit: usize,
}

/// Who holds how many.
#[derive(Debug)]
pub struct Slots {
    /// `None` counts nothing.
    limit: Option<usize>,
    held: Mutex<HashMap<IpAddr, usize>>,
}

impl Slots {
    /// Returns slots for at most `limit` of each address; 0 is no limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: (limit > 0).then_some(limit),
            held: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether anything is counted at all.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Takes a slot of this address, which is free again when it is dropped.
    ///
    /// # Errors
    /// There is none left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Full> {
        let Some(limit) = self.limit else {
            return Ok(Slot(None));
        };
        let mut held = self.lock();
        let num = held.entry(address).or_default();
        if *num >= limit {
            return Err(Full { limit });
        }
        *num += 1;
        drop(held);
        Ok(Slot(Some((Arc::clone(self), address))))
    }
}

/// What one holds. The default is nothing that is counted.
#[derive(Debug, Default)]
pub struct Slot(Option<(Arc<Slots>, IpAddr)>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((slots, address)) = self.0.take() else {
            return;
        };
        let mut held = slots.lock();
        if let Entry::Occupied(mut entry) = held.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if held.is_empty() && held.capacity() > 1024 {
            *held = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_back_what_it_lets_go_and_nothing_is_kept_of_it() {
        let slots = Slots::new(2);
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

    #[test]
    fn no_limit_counts_nothing() {
        let slots = Slots::new(0);
        let _held: Vec<_> = (0..100)
            .map(|_| slots.take(IpAddr::from([1, 2, 3, 4])).unwrap())
            .collect();
        assert!(slots.lock().is_empty());
    }
}
