//! What was long for a moment gives its memory back, whether or not it is ever empty.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash},
};

/// Places that may be kept without need.
const FREE: usize = 32;

/// What grows by doubling and does not shrink by itself.
pub(crate) trait Shrink {
    /// Returns how much is in it.
    fn len(&self) -> usize;
    /// Returns how much it has room for; of a table, about, since not each place that was taken is free at once.
    fn capacity(&self) -> usize;
    /// Gives back room that is for more than `min_capacity`, about.
    fn shrink_to(&mut self, min_capacity: usize);
}

macro_rules! shrink_by_itself {
    ($([$($generics:tt)*] $collection:ty),+ $(,)?) => {
        $(impl<$($generics)*> Shrink for $collection {
            fn len(&self) -> usize {
                self.len()
            }

            fn capacity(&self) -> usize {
                self.capacity()
            }

            fn shrink_to(&mut self, min_capacity: usize) {
                self.shrink_to(min_capacity);
            }
        })+
    };
}

shrink_by_itself!(
    [T] Vec<T>,
    [T] VecDeque<T>,
    [T: Eq + Hash, S: BuildHasher] HashSet<T, S>,
    [K: Eq + Hash, V, S: BuildHasher] HashMap<K, V, S>,
);

/// Gives back what a collection has more than four times of what is in it; to be called when something was taken out. It costs nothing
/// worth mentioning beside what was taken out before. Returns whether there was something to give back.
pub(crate) fn shrink(collection: &mut impl Shrink) -> bool {
    let (len, capacity) = (collection.len(), collection.capacity());
    let is_sparse = capacity > FREE && len < capacity / 4;
    if is_sparse {
        collection.shrink_to(2 * len);
    }
    is_sparse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_queue_has_is_never_much_more_than_what_is_in_it() {
        let mut queue: VecDeque<u64> = (0..100_000).collect();
        let mut num_shrunk = 0;
        while queue.pop_front().is_some() {
            let before = queue.capacity();
            shrink(&mut queue);
            num_shrunk += usize::from(queue.capacity() < before);
            assert!(queue.capacity() <= FREE.max(4 * queue.len() + 4));
        }
        assert!(num_shrunk < 20, "{num_shrunk}");
    }

    /// A bug: only queues gave anything back.
    #[test]
    fn what_a_table_has_is_never_much_more_than_what_is_in_it() {
        let mut table: HashMap<u64, u64> = (0..100_000).map(|n| (n, n)).collect();
        let mut num_shrunk = 0;
        for n in 0..100_000 {
            table.remove(&n);
            let before = table.capacity();
            num_shrunk += usize::from(shrink(&mut table) && table.capacity() < before);
            assert!(table.capacity() <= FREE.max(4 * table.len() + 4));
        }
        assert!(table.is_empty() && num_shrunk < 20, "{num_shrunk}");
    }
}
