//! What has changed in a table since whoever follows it looked last: which places, not what is there.
//!
//! Memory is bounded however things come and go while nobody looks: if it is too much to note, all of the table is to be looked at.

use std::{collections::HashSet, hash::Hash, mem};

/// Changed places that are noted one by one.
pub(crate) const MAX_CHANGES: usize = 65_536;

/// Bytes of their names: 4 MiB.
const MAX_BYTES: usize = 4 << 20;

/// What a place in a table is called.
pub(crate) trait Named {
    /// Returns how many bytes that takes.
    fn len_bytes(&self) -> usize;
}

/// The changed places.
#[derive(Debug)]
pub(crate) struct Changes<K> {
    /// Nothing if it was too much, or nobody follows yet.
    places: Option<HashSet<K>>,
    /// Of the names of those.
    num_bytes: usize,
}

impl<K> Default for Changes<K> {
    /// Of a table that nobody follows yet.
    fn default() -> Self {
        Self {
            places: None,
            num_bytes: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + Named> Changes<K> {
    /// Notes that a place has changed.
    pub(crate) fn note(&mut self, place: &K) {
        if let Some(places) = &mut self.places
            && places.insert(place.clone())
        {
            self.num_bytes += place.len_bytes();
            if places.len() > MAX_CHANGES || self.num_bytes > MAX_BYTES {
                self.places = None;
            }
        }
    }

    /// Forgets what was noted, and notes from now on: all of the table is being looked at.
    pub(crate) fn begin(&mut self) {
        self.places = Some(HashSet::new());
        self.num_bytes = 0;
    }

    /// Takes the places that have changed since the last call of this or of [`Self::begin`]; `None` if all of the table must be looked at.
    pub(crate) fn take(&mut self) -> Option<HashSet<K>> {
        self.num_bytes = 0;
        self.places.as_mut().map(mem::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for usize {
        fn len_bytes(&self) -> usize {
            8
        }
    }

    impl Named for String {
        fn len_bytes(&self) -> usize {
            self.len()
        }
    }

    /// A bug: they were bounded in number alone, and a name may be as long as a client's packet.
    #[test]
    fn long_names_are_not_noted_without_end() {
        let mut changes = Changes::default();
        changes.begin();
        let long = |n: usize| format!("{n}{}", "x".repeat(1_000_000));
        for n in 0..4 {
            changes.note(&long(n));
            changes.note(&long(n));
        }
        assert_eq!(changes.take().map(|places| places.len()), Some(4));
        for n in 0..4 {
            changes.note(&long(n));
        }
        assert!(
            changes.places.is_some(),
            "those that were taken do not count"
        );
        changes.note(&long(4));
        assert_eq!(changes.take(), None);
    }

    #[test]
    fn each_changed_place_is_told_once_and_too_many_not_at_all() {
        let mut changes = Changes::default();
        changes.note(&1);
        assert_eq!(changes.take(), None, "nobody followed");
        changes.begin();
        for place in [2, 3, 2] {
            changes.note(&place);
        }
        assert_eq!(changes.take(), Some(HashSet::from([2, 3])));
        assert_eq!(changes.take(), Some(HashSet::new()));
        for place in 0..=MAX_CHANGES {
            changes.note(&place);
        }
        assert_eq!(changes.take(), None);
        changes.note(&4);
        assert_eq!(changes.take(), None, "until all is looked at");
        changes.begin();
        assert_eq!(changes.take(), Some(HashSet::new()));
    }
}
