//! What waits to be published: a queue bounded in bytes and in age that drops its oldest.
//!
//! A plain struct: no lock, no clock (whoever calls it says what time it is), no I/O.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::bus::Outbound;

/// What a queue may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of all waiting messages, [`OVERHEAD`] each included.
    pub(super) bytes: usize,
    /// Time a message may wait. Older ones would surprise their receivers more than a gap does.
    pub(super) age: Duration,
    /// Bytes of one batch, unless its first message alone is longer. This much can be under way, of unknown fate, when
    /// a connection breaks.
    pub(super) batch_bytes: usize,
}

/// The limits in use.
pub(super) const LIMITS: Limits = Limits {
    bytes: 16 << 20,
    age: Duration::from_secs(10),
    batch_bytes: 1 << 20,
};

/// What a message costs beside its own bytes: its place in the queue and two allocations.
const OVERHEAD: usize = 128;

/// The queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    limits: Limits,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Since when each message of the batch had waited that is under way.
    under_way: Vec<Instant>,
    num_dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    message: Outbound,
}

impl Waiting {
    fn bytes(&self) -> usize {
        cost(&self.message)
    }
}

fn cost(message: &Outbound) -> usize {
    OVERHEAD + message.channel.len() + message.payload.len()
}

impl Outgoing {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            under_way: Vec::new(),
            num_dropped: 0,
        }
    }

    /// Takes a message; drops what is too old, and the oldest of the others if there is no room.
    pub(super) fn push(&mut self, now: Instant, message: Outbound) {
        self.drop_stale(now);
        let waiting = Waiting {
            since: now,
            message,
        };
        // One that would not even fit into an empty queue must not empty it.
        if waiting.bytes() > self.limits.bytes {
            self.num_dropped += 1;
            return;
        }
        while self.bytes + waiting.bytes() > self.limits.bytes && self.drop_oldest() {}
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }

    /// Hands out the next messages in their order; they are under way until [`Self::settle`] or [`Self::abandon`]. One batch
    /// at a time.
    pub(super) fn take_batch(&mut self, now: Instant) -> Vec<Outbound> {
        self.drop_stale(now);
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let after = bytes + next.bytes();
            if !batch.is_empty() && after > self.limits.batch_bytes {
                break;
            }
            bytes = after;
            if let Some(next) = self.waiting.pop_front() {
                self.under_way.push(next.since);
                batch.push(next.message);
            }
        }
        self.bytes -= bytes;
        batch
    }

    /// The bus has answered for the batch; `num_dropped` of it are lost, and its end, `kept`, waits again, as long as before.
    pub(super) fn settle(&mut self, num_dropped: usize, kept: Vec<Outbound>) {
        self.num_dropped += num_dropped as u64;
        let since = self.under_way.drain(..).rev();
        for (since, message) in since.zip(kept.into_iter().rev()) {
            let waiting = Waiting { since, message };
            self.bytes += waiting.bytes();
            self.waiting.push_front(waiting);
        }
        while self.bytes > self.limits.bytes && self.drop_oldest() {}
    }

    /// The connection broke: what was under way may have arrived or not, and counts as dropped.
    pub(super) fn abandon(&mut self) {
        self.num_dropped += self.under_way.len() as u64;
        self.under_way.clear();
    }

    /// Counts a message that never came in here.
    pub(super) fn count_dropped(&mut self) {
        self.num_dropped += 1;
    }

    /// Returns how many messages have been dropped since the beginning.
    pub(super) fn num_dropped(&self) -> u64 {
        self.num_dropped
    }

    /// Returns whether messages wait.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether nothing waits and nothing is under way.
    pub(super) fn is_drained(&self) -> bool {
        self.is_empty() && self.under_way.is_empty()
    }

    /// Drops what has waited too long.
    pub(super) fn drop_stale(&mut self, now: Instant) {
        let age = self.limits.age;
        let is_stale = |next: &Waiting| now.saturating_duration_since(next.since) > age;
        while self.waiting.front().is_some_and(is_stale) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.waiting.pop_front() else {
            return false;
        };
        self.bytes -= oldest.bytes();
        self.num_dropped += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(number: u8, len: usize) -> Outbound {
        Outbound {
            channel: String::new(),
            payload: Bytes::from(vec![number; len]),
        }
    }

    fn numbers(batch: &[Outbound]) -> Vec<u8> {
        batch.iter().map(|message| message.payload[0]).collect()
    }

    fn limits(bytes: usize, batch_bytes: usize) -> Limits {
        Limits {
            bytes,
            age: Duration::from_secs(10),
            batch_bytes,
        }
    }

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(3 * (OVERHEAD + 100), usize::MAX));
        for number in 1..=5 {
            queue.push(now, message(number, 100));
        }
        assert_eq!(queue.num_dropped(), 2);
        queue.push(now, message(6, 150));
        assert_eq!(
            queue.num_dropped(),
            4,
            "a longer one takes the place of two"
        );
        assert_eq!(numbers(&queue.take_batch(now)), [5, 6]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn empty_messages_are_bounded_too() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(10 * OVERHEAD, usize::MAX));
        for _ in 0..1000 {
            queue.push(now, message(0, 0));
        }
        assert_eq!(queue.waiting.len(), 10);
        assert_eq!(queue.num_dropped(), 990);
    }

    #[test]
    fn a_message_that_never_fits_drives_nobody_out() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1000, usize::MAX));
        queue.push(now, message(1, 100));
        queue.push(now, message(2, 1000));
        assert_eq!(queue.num_dropped(), 1);
        assert_eq!(numbers(&queue.take_batch(now)), [1]);
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let start = Instant::now();
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        for number in 0..=20 {
            queue.push(
                start + Duration::from_secs(number),
                message(number as u8, 1),
            );
        }
        let batch = queue.take_batch(start + Duration::from_secs(20));
        assert_eq!(numbers(&batch), (10..=20).collect::<Vec<_>>());
        assert_eq!(queue.num_dropped(), 10);
    }

    #[test]
    fn batches_keep_the_order_and_their_size() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1 << 20, 2 * (OVERHEAD + 10)));
        for (number, len) in [(1, 10), (2, 10), (3, 10), (4, 5000), (5, 10)] {
            queue.push(now, message(number, len));
        }
        let batches: Vec<Vec<u8>> = (0..5).map(|_| numbers(&queue.take_batch(now))).collect();
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4], vec![5], vec![]]);
    }

    #[test]
    fn what_was_refused_waits_again_in_its_place_and_not_for_ever() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Outgoing::new(limits(5 * (OVERHEAD + 10), 4 * (OVERHEAD + 10)));
        for number in 1..=4 {
            queue.push(later(u64::from(number)), message(number, 10));
        }
        let mut batch = queue.take_batch(later(4));
        assert_eq!(numbers(&batch), [1, 2, 3, 4]);
        for number in 5..=7 {
            queue.push(later(5), message(number, 10));
        }
        // The first was taken, the second lost.
        queue.settle(1, batch.split_off(2));
        assert_eq!(queue.num_dropped(), 1);
        queue.push(later(6), message(8, 10));
        assert_eq!(queue.num_dropped(), 2, "the oldest had to make room");
        let batch = queue.take_batch(later(14) + Duration::from_millis(1));
        assert_eq!(
            numbers(&batch),
            [5, 6, 7, 8],
            "the 4 had waited since second 4"
        );
        assert_eq!(queue.num_dropped(), 3);
        queue.settle(0, vec![]);
        assert!(queue.is_drained());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_is_under_way_when_the_connection_breaks_counts_as_dropped() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        queue.push(now, message(1, 1));
        queue.push(now, message(2, 1));
        assert_eq!(queue.take_batch(now).len(), 2);
        queue.push(now, message(3, 1));
        assert!(!queue.is_drained());
        queue.abandon();
        assert_eq!(queue.num_dropped(), 2);
        assert_eq!(numbers(&queue.take_batch(now)), [3]);
        assert!(queue.is_empty() && !queue.is_drained());
        queue.settle(1, vec![]);
        assert!(queue.is_drained());
        assert_eq!(queue.num_dropped(), 3);
    }
}
