//! What instances of Sockhop say to one another, and Node never hears: bytes whose meaning the bridge does not know.
//!
//! Whoever listens to it hears both what was said to this instance and what was said to all. The way out here is that of messages
//! with a receipt alone: apart from the outgoing queue, which outlives an outage, these fail at once without a connection, and
//! whoever sends them learns whether they were heard. What waits is bounded by [`MAX_WAITING`] messages, and from the moment at which it
//! is handed over by [`MAX_WAITING_BYTES`]; whoever sends asks [`Capacity`] first.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::bus::Outbound;

/// Messages that may wait for the connection.
const MAX_WAITING: usize = 16_384;
/// Bytes of them.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Messages of one batch.
const MAX_BATCH: usize = 256;
/// Bytes of one batch, unless its last message alone is longer.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Whom something was said to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This instance alone.
    One,
    /// All instances of Sockhop.
    All,
}

/// What [`Listener`] does with what is said.
type Take = dyn Fn(Audience, &Bytes) + Send + Sync;

/// Who takes what instances of Sockhop say: others to this one alone, and each, this one included, to all.
#[derive(Clone)]
pub struct Listener {
    take: Arc<Take>,
    lose_all: Arc<dyn Fn() + Send + Sync>,
}

impl Listener {
    /// Puts a listener together: `take` is called with each message, in its place among all that comes over the same
    /// connection: what was handed to the hub before it was published before it. `lose_all` is called when others cannot be heard
    /// any more. Both on the bridge's arbiter, and neither may block.
    pub fn new(
        take: impl Fn(Audience, &Bytes) + Send + Sync + 'static,
        lose_all: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            take: Arc::new(take),
            lose_all: Arc::new(lose_all),
        }
    }

    pub(super) fn take(&self, audience: Audience, payload: &Bytes) {
        (self.take)(audience, payload);
    }

    pub(super) fn lose_all(&self) {
        (self.lose_all)();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// How many bytes may wait, and do. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Capacity(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    bytes: AtomicUsize,
    has_refused: AtomicBool,
}

impl Capacity {
    /// Takes room for a message of so many bytes; `None` if there is not so much.
    pub fn take(&self, bytes: usize) -> Option<Weight> {
        self.take_of(bytes, |left| left)
    }

    /// Takes room for a message that a client has made as long as it is: at most half of what is left, so that the rest is for what
    /// instances have to say themselves, which is short.
    pub fn take_for_client(&self, bytes: usize) -> Option<Weight> {
        self.take_of(bytes, |left| left / 2)
    }

    fn take_of(&self, bytes: usize, most: impl Fn(usize) -> usize) -> Option<Weight> {
        let Taken {
            bytes: taken,
            has_refused,
        } = &*self.0;
        let took = taken.fetch_update(Relaxed, Relaxed, |taken| {
            let left = MAX_WAITING_BYTES.saturating_sub(taken);
            (bytes <= most(left)).then_some(taken + bytes)
        });
        // Once: each would be a line.
        if took.is_err() && !has_refused.swap(true, Relaxed) {
            log::warn!("too much waits to be sent to other instances: a message is dropped");
        }
        took.ok().map(|_| Weight {
            bytes,
            of: self.clone(),
        })
    }
}

/// Bytes of what waits, counted until dropped.
#[derive(Debug)]
pub struct Weight {
    bytes: usize,
    of: Capacity,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.of.0.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// What waits for the connection.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A message.
    Letter(Letter),
    /// The question how many listen to a channel.
    Look(Look),
}

/// A message.
#[derive(Debug)]
pub(super) struct Letter {
    message: Outbound,
    receipt: oneshot::Sender<usize>,
    weight: Weight,
}

/// The question how many listen to a channel.
#[derive(Debug)]
pub(super) struct Look {
    channel: String,
    reply: oneshot::Sender<usize>,
}

/// The way in.
#[derive(Debug)]
pub(super) struct Sender {
    waiting: mpsc::Sender<Waiting>,
    has_dropped: AtomicBool,
}

/// The way out.
#[derive(Debug)]
pub(super) struct Receiver {
    waiting: mpsc::Receiver<Waiting>,
    /// Taken out already, and of another kind than what stood before it.
    next: Option<Waiting>,
}

impl Receiver {
    /// Waits for what stands first; `None` if nothing can come any more. May be dropped while it waits.
    pub(super) async fn recv(&mut self) -> Option<Waiting> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.waiting.recv().await,
        }
    }

    /// Returns what stands first, if anything does.
    pub(super) fn try_recv(&mut self) -> Option<Waiting> {
        self.next.take().or_else(|| self.waiting.try_recv().ok())
    }
}

/// Returns both ends.
pub(super) fn channel() -> (Sender, Receiver) {
    let (waiting, receiver) = mpsc::channel(MAX_WAITING);
    let sender = Sender {
        waiting,
        has_dropped: AtomicBool::new(false),
    };
    let receiver = Receiver {
        waiting: receiver,
        next: None,
    };
    (sender, receiver)
}

impl Sender {
    /// Lets a message wait. If too many do, its receipt is dropped.
    pub(super) fn send(&self, message: Outbound, weight: Weight, receipt: oneshot::Sender<usize>) {
        let letter = Letter {
            message,
            receipt,
            weight,
        };
        let is_dropped = self.waiting.try_send(Waiting::Letter(letter)).is_err();
        // Once: each would be a line.
        if is_dropped && !self.has_dropped.swap(true, Relaxed) {
            log::warn!("too many messages wait to be sent to other instances: one is dropped");
        }
    }

    /// Lets a look wait. Without room for it its reply is dropped.
    pub(super) fn look(&self, channel: String, reply: oneshot::Sender<usize>) {
        _ = self
            .waiting
            .try_send(Waiting::Look(Look { channel, reply }));
    }
}

/// Messages that go out together, and where to say how many have heard each.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Outbound>,
    receipts: Vec<(oneshot::Sender<usize>, Weight)>,
}

impl Batch {
    /// Returns a batch of `first` and of the messages that wait right behind it.
    pub(super) fn gather(first: Letter, receiver: &mut Receiver) -> Self {
        let mut batch = Self::default();
        let mut bytes = 0;
        let mut next = first;
        loop {
            bytes += next.message.payload.len();
            batch.messages.push(next.message);
            batch.receipts.push((next.receipt, next.weight));
            if batch.messages.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES {
                return batch;
            }
            next = match receiver.try_recv() {
                Some(Waiting::Letter(letter)) => letter,
                other => {
                    receiver.next = other;
                    return batch;
                }
            };
        }
    }

    /// Tells each sender how many have heard its message.
    pub(super) fn settle(self, num_listeners: &[usize]) {
        for ((receipt, _), num) in self.receipts.into_iter().zip(num_listeners) {
            // The sender may have given up.
            _ = receipt.send(*num);
        }
    }
}

/// Looks that are answered together, each channel by one number.
#[derive(Debug, Default)]
pub(super) struct Looks {
    by_channel: BTreeMap<String, Vec<oneshot::Sender<usize>>>,
}

impl Looks {
    /// Returns `first` and the looks that wait right behind it.
    pub(super) fn gather(first: Look, receiver: &mut Receiver) -> Self {
        let mut looks = Self::default();
        let mut next = first;
        for _ in 1..MAX_BATCH {
            looks.add(next);
            next = match receiver.try_recv() {
                Some(Waiting::Look(look)) => look,
                other => {
                    receiver.next = other;
                    return looks;
                }
            };
        }
        looks.add(next);
        looks
    }

    fn add(&mut self, Look { channel, reply }: Look) {
        self.by_channel.entry(channel).or_default().push(reply);
    }

    /// Returns the channels, each once.
    pub(super) fn channels(&self) -> Vec<String> {
        self.by_channel.keys().cloned().collect()
    }

    /// Tells everybody who looks how many listen: `counted` is of [`Self::channels`].
    pub(super) fn settle(self, counted: &[usize]) {
        for (replies, num) in self.by_channel.into_values().zip(counted) {
            for reply in replies {
                // Whoever looks may have given up.
                _ = reply.send(*num);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: impl Into<Bytes>) -> Outbound {
        Outbound {
            channel: "c".to_owned(),
            payload: payload.into(),
        }
    }

    #[test]
    fn messages_go_together_and_each_sender_hears_of_its_own() {
        let (sender, mut receiver) = channel();
        let capacity = Capacity::default();
        let mut receipts = Vec::new();
        for text in ["a", "b"] {
            let (receipt, heard) = oneshot::channel();
            let weight = capacity.take(text.len()).unwrap();
            sender.send(letter(text), weight, receipt);
            receipts.push(heard);
        }
        sender.look("d".to_owned(), oneshot::channel().0);
        let Some(Waiting::Letter(first)) = receiver.try_recv() else {
            panic!("the first is a letter")
        };
        let batch = Batch::gather(first, &mut receiver);
        assert_eq!(batch.messages, [letter("a"), letter("b")]);
        assert!(matches!(receiver.try_recv(), Some(Waiting::Look(_))));
        batch.settle(&[1, 0]);
        let heard: Vec<_> = receipts.iter_mut().map(|r| r.try_recv().unwrap()).collect();
        assert_eq!(heard, [1, 0]);
        assert_eq!(capacity.0.bytes.load(Relaxed), 0);
    }

    #[test]
    fn looks_go_together_up_to_the_next_letter() {
        let (sender, mut receiver) = channel();
        let capacity = Capacity::default();
        let look = |name: &str| {
            let (reply, counted) = oneshot::channel();
            sender.look(name.to_owned(), reply);
            counted
        };
        let mut early = [look("b"), look("a"), look("b")];
        let weight = capacity.take(1).unwrap();
        sender.send(letter("x"), weight, oneshot::channel().0);
        let mut late: Vec<_> = (0..=MAX_BATCH).map(|_| look("c")).collect();
        let mut gather = || match receiver.try_recv() {
            Some(Waiting::Look(first)) => Some(Looks::gather(first, &mut receiver)),
            Some(Waiting::Letter(_)) => None,
            None => panic!("something waits"),
        };
        let looks = gather().unwrap();
        assert_eq!(looks.channels(), ["a", "b"]);
        looks.settle(&[1, 2]);
        let counted = early.each_mut().map(|counted| counted.try_recv().unwrap());
        assert_eq!(counted, [2, 1, 2]);
        assert!(gather().is_none(), "then the letter");
        for (num, so_many) in [(5, MAX_BATCH), (6, 1)] {
            gather().unwrap().settle(&[num]);
            for mut counted in late.drain(..so_many) {
                assert_eq!(counted.try_recv(), Ok(num));
            }
        }
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let capacity = Capacity::default();
        let half = MAX_WAITING_BYTES / 2;
        let held = (capacity.take(half).unwrap(), capacity.take(half).unwrap());
        assert!(capacity.take(1).is_none());
        drop(held);
        assert!(capacity.take(MAX_WAITING_BYTES + 1).is_none());
        assert!(capacity.take(MAX_WAITING_BYTES).is_some());
    }

    #[test]
    fn what_waits_is_bounded_in_messages() {
        let (sender, _receiver) = channel();
        let capacity = Capacity::default();
        let many = (0..=MAX_WAITING).map(|_| {
            let (receipt, heard) = oneshot::channel();
            let weight = capacity.take(1).unwrap();
            sender.send(letter("x"), weight, receipt);
            heard
        });
        let many: Vec<_> = many.collect();
        let is_lost = |mut heard: oneshot::Receiver<usize>| {
            heard.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert_eq!(many.into_iter().map(is_lost).filter(|is| *is).count(), 1);
        assert_eq!(capacity.0.bytes.load(Relaxed), MAX_WAITING);
    }

    /// A bug: bodies of clients took all of it, and nothing else could be said to other instances.
    #[test]
    fn clients_leave_room_for_what_instances_say() {
        let capacity = Capacity::default();
        let take = |bytes| capacity.take_for_client(bytes);
        let large: Vec<_> = std::iter::from_fn(|| take(1 << 20)).collect();
        assert_eq!(large.len(), 31, "two are left, and of these half");
        assert!(capacity.take(1 << 19).is_some());
        let little: Vec<_> = std::iter::from_fn(|| take(1 << 10)).collect();
        assert_eq!(little.len(), 1023);
        assert!(capacity.take(1 << 10).is_some());
        drop(large);
        assert!(take(1 << 20).is_some());
    }
}
