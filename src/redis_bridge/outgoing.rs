//! What waits to be published: a queue bounded in bytes and in age that drops its oldest.
//!
//! A plain struct: no lock, no clock (whoever calls it says what time it is), no I/O.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{bus::Outbound, loss::Loss, ticket::Ticket};

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
    /// Since when each message of the batch had waited that is under way, and what goes with it.
    under_way: Vec<(Instant, With)>,
    num_dropped: u64,
}

/// What goes with a message. It is dropped with it.
#[derive(Debug)]
pub(super) enum With {
    /// Nothing.
    Nothing,
    /// The ticket of a question.
    Ticket(Ticket),
    /// What is done if it is dropped while it waits, or refused.
    Loss(Loss),
}

impl With {
    fn is_given_up(&self) -> bool {
        matches!(self, Self::Ticket(ticket) if ticket.is_given_up())
    }

    /// Whoever must know of the message's fate does, or is told by others.
    fn settle(self) {
        if let Some(ticket) = self.sent() {
            ticket.settle();
        }
    }

    /// The message will not go out. Returns its ticket; what else is to be done about it is.
    fn refused(self) -> Option<Ticket> {
        match self {
            Self::Ticket(ticket) => Some(ticket),
            Self::Nothing | Self::Loss(_) => None,
        }
    }

    /// The message went out, or nobody knows. Returns its ticket.
    fn sent(self) -> Option<Ticket> {
        match self {
            Self::Nothing => None,
            Self::Ticket(ticket) => Some(ticket),
            Self::Loss(loss) => {
                loss.settle();
                None
            }
        }
    }
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    message: Outbound,
    with: With,
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

    /// Takes a message, and what goes with it; drops what is too old, and the oldest of the others if there is no room.
    pub(super) fn push(&mut self, now: Instant, message: Outbound, with: With) {
        self.drop_stale(now);
        let waiting = Waiting {
            since: now,
            message,
            with,
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
    /// at a time. A question that nobody waits for any more is passed over: who asked has been told that it failed.
    pub(super) fn take_batch(&mut self, now: Instant) -> Vec<Outbound> {
        self.drop_stale(now);
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            if next.with.is_given_up() {
                self.bytes -= next.bytes();
                self.waiting.pop_front();
                continue;
            }
            let after = bytes + next.bytes();
            if !batch.is_empty() && after > self.limits.batch_bytes {
                break;
            }
            bytes = after;
            if let Some(next) = self.waiting.pop_front() {
                self.under_way.push((next.since, next.with));
                batch.push(next.message);
            }
        }
        self.bytes -= bytes;
        batch
    }

    /// The bus has answered for the batch; those at the places `refused`, in order, are lost, and its end, `kept`, waits again, as long
    /// as before. Returns the tickets of those that do not, and their places in the batch.
    pub(super) fn settle(
        &mut self,
        refused: &[usize],
        kept: Vec<Outbound>,
    ) -> Vec<(usize, Ticket)> {
        self.num_dropped += refused.len() as u64;
        let keep_from = self.under_way.len().saturating_sub(kept.len());
        let kept = self.under_way.drain(keep_from..).zip(kept);
        for ((since, with), message) in kept.rev() {
            let waiting = Waiting {
                since,
                message,
                with,
            };
            self.bytes += waiting.bytes();
            self.waiting.push_front(waiting);
        }
        while self.bytes > self.limits.bytes && self.drop_oldest() {}
        let done = self.under_way.drain(..).enumerate();
        done.filter_map(|(place, (_, with))| {
            let ticket = match refused.binary_search(&place) {
                Ok(_) => with.refused(),
                Err(_) => with.sent(),
            };
            Some((place, ticket?))
        })
        .collect()
    }

    /// Removes the questions that wait: who asked has been told that others cannot be reached, and what is known to have failed
    /// must not be done later.
    pub(super) fn withdraw_questions(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            let bytes = waiting.bytes();
            match waiting.with {
                With::Ticket(ticket) => {
                    self.bytes -= bytes;
                    ticket.settle();
                }
                With::Nothing | With::Loss(_) => self.waiting.push_back(waiting),
            }
        }
    }

    /// The connection broke: what was under way may have arrived or not, and counts as dropped. Who asked a question of it is told
    /// by whoever calls this.
    pub(super) fn abandon(&mut self) {
        self.num_dropped += self.under_way.len() as u64;
        self.under_way.drain(..).for_each(|(_, with)| with.settle());
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
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        adapter::uid::Uid,
        hub::question::Answer,
        redis_bridge::{
            calls::{Calls, Wants},
            ticket::Census,
        },
    };

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
            queue.push(now, message(number, 100), With::Nothing);
        }
        assert_eq!(queue.num_dropped(), 2);
        queue.push(now, message(6, 150), With::Nothing);
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
            queue.push(now, message(0, 0), With::Nothing);
        }
        assert_eq!(queue.waiting.len(), 10);
        assert_eq!(queue.num_dropped(), 990);
    }

    #[test]
    fn a_message_that_never_fits_drives_nobody_out() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1000, usize::MAX));
        queue.push(now, message(1, 100), With::Nothing);
        queue.push(now, message(2, 1000), With::Nothing);
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
                With::Nothing,
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
            queue.push(now, message(number, len), With::Nothing);
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
            queue.push(later(u64::from(number)), message(number, 10), With::Nothing);
        }
        let mut batch = queue.take_batch(later(4));
        assert_eq!(numbers(&batch), [1, 2, 3, 4]);
        for number in 5..=7 {
            queue.push(later(5), message(number, 10), With::Nothing);
        }
        // The first was taken, the second lost.
        assert!(queue.settle(&[1], batch.split_off(2)).is_empty());
        assert_eq!(queue.num_dropped(), 1);
        queue.push(later(6), message(8, 10), With::Nothing);
        assert_eq!(queue.num_dropped(), 2, "the oldest had to make room");
        let batch = queue.take_batch(later(14) + Duration::from_millis(1));
        assert_eq!(
            numbers(&batch),
            [5, 6, 7, 8],
            "the 4 had waited since second 4"
        );
        assert_eq!(queue.num_dropped(), 3);
        queue.settle(&[], vec![]);
        assert!(queue.is_drained());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_is_under_way_when_the_connection_breaks_counts_as_dropped() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        queue.push(now, message(1, 1), With::Nothing);
        queue.push(now, message(2, 1), With::Nothing);
        assert_eq!(queue.take_batch(now).len(), 2);
        queue.push(now, message(3, 1), With::Nothing);
        assert!(!queue.is_drained());
        queue.abandon();
        assert_eq!(queue.num_dropped(), 2);
        assert_eq!(numbers(&queue.take_batch(now)), [3]);
        assert!(queue.is_empty() && !queue.is_drained());
        queue.settle(&[0], vec![]);
        assert!(queue.is_drained());
        assert_eq!(queue.num_dropped(), 3);
    }

    fn question(
        calls: &Arc<Calls>,
        number: u8,
    ) -> (Outbound, Ticket, mpsc::UnboundedReceiver<Answer>) {
        let (answers, received) = mpsc::unbounded_channel();
        let (now, timeout) = (Instant::now(), Duration::from_secs(5));
        let id = calls.begin(now, "/".into(), Wants::Rooms, answers.clone(), timeout);
        let census = Census {
            channel: "p-request#/#".to_owned(),
            are_we_among: true,
            peers: Vec::new(),
        };
        let ticket = Ticket::new(Arc::clone(calls), id.unwrap(), answers, census);
        (message(number, 10), ticket, received)
    }

    fn calls() -> Arc<Calls> {
        Arc::new(Calls::new(Uid::parse("abcdef").unwrap()))
    }

    #[test]
    fn a_question_that_nobody_waits_for_does_not_go_out() {
        let (now, calls) = (Instant::now(), calls());
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        let (given_up, ticket, received) = question(&calls, 1);
        queue.push(now, given_up, With::Ticket(ticket));
        drop(received);
        let (waited_for, ticket, mut received) = question(&calls, 2);
        queue.push(now, waited_for, With::Ticket(ticket));
        queue.push(now, message(3, 10), With::Nothing);
        assert_eq!(numbers(&queue.take_batch(now)), [2, 3]);
        let done = queue.settle(&[], vec![]);
        assert_eq!(
            done.iter().map(|(place, _)| *place).collect::<Vec<_>>(),
            [0]
        );
        done.into_iter().for_each(|(_, ticket)| ticket.settle());
        assert!(received.try_recv().is_err(), "nothing is said of it");
        assert_eq!((queue.num_dropped(), queue.bytes), (0, 0));
    }

    #[test]
    fn who_asked_what_is_dropped_is_told_and_the_channel_ends() {
        let (now, calls) = (Instant::now(), calls());
        let mut queue = Outgoing::new(limits(2 * (OVERHEAD + 10), usize::MAX));
        let (dropped, ticket, mut received) = question(&calls, 1);
        queue.push(now, dropped, With::Ticket(ticket));
        queue.push(now, message(2, 10), With::Nothing);
        queue.push(now, message(3, 10), With::Nothing);
        assert!(matches!(
            received.try_recv(),
            Ok(Answer::Unreachable { .. })
        ));
        assert!(received.blocking_recv().is_none());
    }

    /// A bug: what was said of a session that had moved was dropped, and nobody there knew that it would not come.
    #[test]
    fn what_is_dropped_while_it_waits_says_so_and_what_went_out_does_not() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(2 * (OVERHEAD + 10), 1));
        let (tell, told) = std::sync::mpsc::channel();
        for number in 1..=4 {
            let tell = tell.clone();
            let loss = Loss::new(move || tell.send(number).unwrap());
            queue.push(now, message(number, 10), With::Loss(loss));
        }
        drop(tell);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(numbers(&queue.take_batch(now)), [3]);
        assert!(queue.settle(&[], vec![]).is_empty());
        assert_eq!(numbers(&queue.take_batch(now)), [4]);
        queue.abandon();
        assert_eq!(told.iter().count(), 0, "of that others tell");
    }

    /// A bug: of what the bus refused alone, behind or before what it took, nobody was told.
    #[test]
    fn what_is_refused_alone_says_so_and_what_waits_again_does_not() {
        let now = Instant::now();
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        let (tell, told) = std::sync::mpsc::channel();
        for number in 0..4 {
            let tell = tell.clone();
            let loss = Loss::new(move || _ = tell.send(number));
            queue.push(now, message(number, 10), With::Loss(loss));
        }
        drop(tell);
        let mut batch = queue.take_batch(now);
        assert!(queue.settle(&[0, 2], batch.split_off(3)).is_empty());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(numbers(&queue.take_batch(now)), [3]);
        queue.settle(&[], vec![]);
        assert_eq!(told.iter().count(), 0, "the others went out");
    }

    #[test]
    fn withdrawn_questions_leave_the_rest_in_order() {
        let (now, calls) = (Instant::now(), calls());
        let mut queue = Outgoing::new(limits(1 << 20, usize::MAX));
        let mut kept = Vec::new();
        for number in 1..=6 {
            if number % 2 == 0 {
                let (question, ticket, received) = question(&calls, number);
                queue.push(now, question, With::Ticket(ticket));
                kept.push(received);
            } else {
                queue.push(now, message(number, 10), With::Nothing);
            }
        }
        // One that Redis refused keeps its ticket.
        let mut batch = queue.take_batch(now);
        assert!(queue.settle(&[], batch.split_off(1)).is_empty());
        queue.withdraw_questions();
        assert_eq!(numbers(&queue.take_batch(now)), [3, 5]);
        assert_eq!((queue.num_dropped(), queue.bytes), (0, 0));
        // It was said otherwise, by whoever withdrew them.
        assert!(kept.iter_mut().all(|received| received.try_recv().is_err()));
    }
}
