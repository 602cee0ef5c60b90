//! What waits for all clients together, in both directions, bounded in bytes.
//!
//! A message to clients counts once, however many it waits for, and only if somebody did not take it at once. What came from a client
//! counts while it is not whole, waits for handlers or is handled, or is an ack while others are waited for. Nobody has a part of his
//! own: a client may have as much waiting as is still free. A few that are slow get all that they may have; the more there are, the
//! less each gets; and whoever has little waiting is not touched by those who have much. What is free never runs out by that.
//!
//! Shared by all threads. Knows no client: what becomes of one that has too much, whoever holds it decides.
//!
//! Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998, with α = 1.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::engine_io::encoded::{Encoded, PollingBody};

/// Bytes that each client may have waiting, however little is left for all: whoever reads has no more than that between two turns, and
/// shall not pay for those who do not.
pub(super) const ALWAYS: usize = 4096;

/// The bytes that may wait, and those that do.
#[derive(Debug)]
pub struct Backlogs {
    limit_bytes: usize,
    taken: AtomicUsize,
}

impl Backlogs {
    /// Returns room for so many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            taken: AtomicUsize::new(0),
        }
    }

    /// Returns how many bytes wait.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Returns how many more there is room for.
    pub(super) fn free(&self) -> usize {
        self.limit_bytes.saturating_sub(self.taken())
    }

    /// Returns how many bytes one client may have waiting.
    pub(super) fn limit_of_one(&self) -> usize {
        self.free().max(ALWAYS)
    }

    /// Counts bytes that nobody shares.
    pub(super) fn take(&self, len: usize) {
        self.taken.fetch_add(len, Relaxed);
    }

    /// Counts them no more.
    pub(super) fn give_back(&self, len: usize) {
        self.taken.fetch_sub(len, Relaxed);
    }

    /// Counts a message, unless it is counted for another client.
    pub(super) fn take_message(&self, message: &Encoded) {
        if message.begin_waiting() {
            self.take(message.held_bytes());
        }
    }

    /// Counts a message no more, unless it waits for another client.
    pub(super) fn give_message_back(&self, message: &Encoded) {
        if message.end_waiting() {
            self.give_back(message.held_bytes());
        }
    }
}

/// The body of a polling answer, counted until this is dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// The body.
    pub body: PollingBody,
    /// Whatever keeps it counted.
    pub held: Held,
}

impl From<PollingBody> for HeldBody {
    /// Of a body that is too small to count.
    fn from(body: PollingBody) -> Self {
        Self {
            body,
            held: Held::default(),
        }
    }
}

/// In what steps the bytes of one client are counted: each step is seen by all threads. Less is not counted at all.
const STEP: usize = 1024;

/// Bytes of one client alone, counted until this is dropped.
#[derive(Debug)]
pub struct Share {
    backlogs: Arc<Backlogs>,
    len: usize,
}

impl Share {
    /// Returns the share of a client of which nothing waits.
    pub fn new(backlogs: &Arc<Backlogs>) -> Self {
        Self {
            backlogs: Arc::clone(backlogs),
            len: 0,
        }
    }

    /// Returns what it is counted with.
    pub(super) fn backlogs(&self) -> &Arc<Backlogs> {
        &self.backlogs
    }

    /// Counts so many bytes from now on, in whole steps.
    pub fn set(&mut self, len: usize) {
        let len = len - len % STEP;
        if len > self.len {
            self.backlogs.take(len - self.len);
        } else if len < self.len {
            self.backlogs.give_back(self.len - len);
        }
        self.len = len;
    }

    /// Returns how many bytes that come from the client may be held beside so many: half of what is left, so that the other half is
    /// for what waits for it, and in any case a step.
    pub(super) fn room(&self, held: usize) -> usize {
        let half = self.backlogs.free() / 2;
        half.saturating_sub(held).max(STEP)
    }

    /// Returns whether so many bytes that came from the client are more than may be held.
    pub fn is_too_much(&self, len: usize) -> bool {
        len > STEP && len > self.room(0)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Bytes that are held outside of outboxes, on their way to a client or from it, counted until this and all clones are dropped.
#[derive(Clone, Debug, Default)]
pub struct Held(Option<Arc<Counted>>);

/// Tells whether something is still held.
#[derive(Debug, Default)]
pub(super) struct Watch(Weak<Counted>);

#[derive(Debug)]
struct Counted {
    backlogs: Arc<Backlogs>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A message that others may share.
    Message(Arc<Encoded>),
    /// Bytes of this client alone.
    Bytes(usize),
}

impl Held {
    /// Counts a message.
    pub(super) fn message(backlogs: &Arc<Backlogs>, message: &Arc<Encoded>) -> Self {
        backlogs.take_message(message);
        Self::new(backlogs, What::Message(Arc::clone(message)))
    }

    /// Counts bytes of one client alone, if there are any.
    pub fn bytes(backlogs: &Arc<Backlogs>, len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        backlogs.take(len);
        Self::new(backlogs, What::Bytes(len))
    }

    fn new(backlogs: &Arc<Backlogs>, what: What) -> Self {
        let backlogs = Arc::clone(backlogs);
        Self(Some(Arc::new(Counted { backlogs, what })))
    }

    /// Returns what tells how long it is held.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.0.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Returns whether it is more than one client may have waiting by now.
    pub fn is_too_much(&self) -> bool {
        self.0.as_ref().is_some_and(|counted| {
            let len = match &counted.what {
                What::Message(message) => message.held_bytes(),
                What::Bytes(len) => *len,
            };
            len > counted.backlogs.limit_of_one()
        })
    }
}

impl Watch {
    pub(super) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        match &self.what {
            What::Message(message) => self.backlogs.give_message_back(message),
            What::Bytes(len) => self.backlogs.give_back(*len),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_message_counts_once_however_many_it_waits_for() {
        let backlogs = Arc::new(Backlogs::new(1000));
        let message = Encoded::new("4abc", &[]);
        let len = message.held_bytes();
        let first = Held::message(&backlogs, &message);
        let second = Held::message(&backlogs, &message);
        assert_eq!((backlogs.taken(), backlogs.free()), (len, 1000 - len));
        drop(first);
        assert_eq!(backlogs.taken(), len);
        drop(second);
        assert_eq!(backlogs.taken(), 0);
        let again = Held::message(&backlogs, &message);
        assert_eq!(backlogs.taken(), len);
        drop(again);
        drop(Held::default());
        assert_eq!(backlogs.taken(), 0);
    }

    #[test]
    fn what_is_over_the_limit_leaves_nothing_free() {
        let backlogs = Arc::new(Backlogs::new(100));
        let held = Held::bytes(&backlogs, 170);
        assert_eq!((backlogs.taken(), backlogs.free()), (170, 0));
        drop(held);
        assert_eq!(backlogs.free(), 100);
    }

    #[test]
    fn what_is_held_is_too_much_if_less_is_left_but_never_a_little() {
        let backlogs = Arc::new(Backlogs::new(21_000));
        let held = Held::bytes(&backlogs, 8000);
        let little = Held::bytes(&backlogs, ALWAYS);
        assert!(!held.is_too_much() && !little.is_too_much());
        let others = Held::bytes(&backlogs, 1000);
        assert!(held.is_too_much() && !little.is_too_much());
        drop(others);
        assert!(!held.is_too_much());
        let watch = held.watch();
        assert!(watch.is_held());
        drop(held);
        assert!(!watch.is_held() && !Held::default().watch().is_held());
    }

    #[test]
    fn threads_at_once_leave_nothing_behind() {
        let backlogs = Arc::new(Backlogs::new(1000));
        let message = Encoded::new("4abc", &[]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        drop(Held::message(&backlogs, &message));
                    }
                });
            }
        });
        assert_eq!(backlogs.taken(), 0);
    }
    #[test]
    fn the_bytes_of_one_client_are_counted_in_steps() {
        let backlogs = Arc::new(Backlogs::new(10 * STEP));
        let mut share = Share::new(&backlogs);
        for (len, counted) in [
            (STEP - 1, 0),
            (STEP, STEP),
            (5 * STEP + 7, 5 * STEP),
            (2 * STEP, 2 * STEP),
            (1, 0),
            (3 * STEP, 3 * STEP),
        ] {
            share.set(len);
            assert_eq!(backlogs.taken(), counted);
        }
        let half = 7 * STEP / 2;
        assert!(!share.is_too_much(half) && share.is_too_much(half + 1));
        assert_eq!((share.room(0), share.room(STEP)), (half, half - STEP));
        assert_eq!(share.room(3 * STEP), STEP);
        backlogs.take(20 * STEP);
        assert!(!share.is_too_much(STEP));
        assert_eq!(share.room(0), STEP);
        drop(share);
        assert_eq!(backlogs.taken(), 20 * STEP);
    }
}
