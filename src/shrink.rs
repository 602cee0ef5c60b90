//! A queue that was long for a moment gives its memory back, whether or not it is ever empty.

use std::collections::VecDeque;

/// Places that a queue may keep without need.
const FREE: usize = 32;

/// Gives back what a queue has more than four times of what is in it. It costs nothing worth mentioning beside what was taken out before.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > FREE && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(2 * queue.len());
    }
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
}
