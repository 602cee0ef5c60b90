//! Members of a namespace: each is found by a key that stays the same, and all of them lie one behind the other.
//!
//! Plain struct; `M` is of no concern here. A slab alone would keep the place of whoever left, and whoever looks at all would look at
//! each of those, too: after a spike, for as long as anybody is left.

use slab::Slab;

use crate::shrink::shrink;

/// Members by key.
#[derive(Debug)]
pub(super) struct Members<M> {
    /// Without a gap, each with its key: whoever leaves is replaced by the last.
    dense: Vec<(usize, M)>,
    /// Where in `dense` the member of a key is.
    places: Slab<usize>,
}

impl<M> Default for Members<M> {
    fn default() -> Self {
        Self {
            dense: Vec::new(),
            places: Slab::new(),
        }
    }
}

impl<M> Members<M> {
    pub(super) fn len(&self) -> usize {
        self.dense.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dense.is_empty()
    }

    /// Adds a member. Returns its key, which nobody else has while it is there.
    pub(super) fn insert(&mut self, member: M) -> usize {
        let key = self.places.insert(self.dense.len());
        self.dense.push((key, member));
        key
    }

    /// Takes a member out. Costs the same however many there are.
    pub(super) fn remove(&mut self, key: usize) -> Option<M> {
        let place = self.places.try_remove(key)?;
        let (_, member) = self.dense.swap_remove(place);
        if let Some((moved, _)) = self.dense.get(place)
            && let Some(place_of_moved) = self.places.get_mut(*moved)
        {
            *place_of_moved = place;
        }
        if shrink(&mut self.dense) {
            // Down to the last key that somebody has: 16 bytes for each below that are all that may be left of a spike.
            self.places.shrink_to_fit();
        }
        Some(member)
    }

    pub(super) fn get(&self, key: usize) -> Option<&M> {
        let (_, member) = self.dense.get(*self.places.get(key)?)?;
        Some(member)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut M> {
        let (_, member) = self.dense.get_mut(*self.places.get(key)?)?;
        Some(member)
    }

    /// Returns all, with their keys; as fast as memory is read.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &M)> {
        self.dense.iter().map(|(key, member)| (*key, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_while_others_come_and_go() {
        let mut members = Members::default();
        let keys = ['a', 'b', 'c', 'd'].map(|name| members.insert(name));
        assert_eq!(members.remove(keys[1]), Some('b'));
        assert_eq!(members.remove(keys[1]), None);
        assert_eq!((members.get(keys[1]), members.len()), (None, 3));
        for (key, name) in [(0, 'a'), (2, 'c'), (3, 'd')] {
            assert_eq!(members.get(keys[key]), Some(&name));
        }
        // The last one takes nobody's place.
        assert_eq!(members.remove(keys[3]), Some('d'));
        let key = members.insert('e');
        *members.get_mut(keys[2]).unwrap() = 'C';
        let mut all: Vec<_> = members.iter().map(|(key, name)| (*name, key)).collect();
        all.sort_unstable();
        assert_eq!(all, [('C', keys[2]), ('a', keys[0]), ('e', key)]);
        for key in [key, keys[0], keys[2]] {
            assert!(!members.is_empty() && members.remove(key).is_some());
        }
        assert!(members.is_empty() && members.iter().next().is_none());
    }

    /// A bug: each broadcast to a whole namespace looked at all places that it ever had, and these kept their memory.
    #[test]
    fn nothing_is_left_of_a_spike_that_anybody_looks_at() {
        let mut members = Members::default();
        let keys: Vec<_> = (0..100_000).map(|n| members.insert([n; 16])).collect();
        let (few, gone) = keys.split_at(10);
        for key in gone.iter().rev() {
            members.remove(*key);
        }
        assert_eq!(members.iter().count(), 10);
        assert!(
            members.dense.capacity() <= 40,
            "{}",
            members.dense.capacity()
        );
        assert!(
            members.places.capacity() < 1000,
            "{}",
            members.places.capacity()
        );
        for (key, n) in few.iter().zip(0..) {
            assert_eq!(members.get(*key), Some(&[n; 16]));
        }
    }
}
