//! What was sent to the sockets of one arbiter and has not reached it yet.
//!
//! A message for many sockets crosses to their arbiter once, whatever their number: that is one wake-up of its thread and one
//! allocation, where a mailbox for each would be a thousand. There it waits for the arbiter's `depot`, which hands it out. All that is
//! sent to one socket goes this way, so it keeps its order.
//!
//! Only carries; what a message means is the socket's. What waits is bounded by who sends it, see `hub::ahead`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Waker},
    vec,
};

use super::{
    messages::{DeliverWithAck, ForSocket, What},
    record::JoinId,
};
use crate::{
    engine_io::encoded::Encoded,
    hub::{ahead::Permit, replay::Logged},
};

/// One socket's place in its depot. No two sockets of an arbiter have had the same, but for four thousand million between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) serial: u32,
}

/// One of many receivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    pub(super) place: Place,
    pub(super) join: JoinId,
}

/// A message that many have in common.
#[derive(Clone, Debug)]
pub enum Shared {
    /// See [`What::Deliver`].
    Plain {
        /// The message.
        message: Arc<Encoded>,
        /// Whether a client that cannot take it at once goes without it.
        volatile: bool,
    },
    /// See [`What::DeliverLogged`].
    Logged(Arc<Logged>),
    /// See [`What::DeliverWithAck`].
    WithAck(Arc<DeliverWithAck>),
}

impl Shared {
    pub(super) fn message(&self) -> &Arc<Encoded> {
        match self {
            Self::Plain { message, .. } => message,
            Self::Logged(logged) => &logged.message,
            Self::WithAck(deliver) => &deliver.message,
        }
    }

    /// Returns whether a socket may be written past, because it need not know of the message. Of one to be acknowledged it does.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Plain { .. } | Self::Logged(_) => true,
            Self::WithAck(_) => false,
        }
    }

    pub(super) fn what(&self) -> What {
        match self {
            Self::Plain { message, volatile } => What::Deliver {
                message: Arc::clone(message),
                volatile: *volatile,
            },
            Self::Logged(logged) => What::DeliverLogged(Arc::clone(logged)),
            Self::WithAck(deliver) => What::DeliverWithAck(Arc::clone(deliver)),
        }
    }
}

/// What one sender sent at once.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A message for one socket.
    One { place: Place, message: ForSocket },
    /// One for many.
    Many(Many),
}

/// A message and all of an arbiter's sockets that have yet to get it.
#[derive(Debug)]
pub(super) struct Many {
    /// In the order of their places. One may stand there several times, with several memberships.
    pub(super) receivers: vec::IntoIter<Receiver>,
    pub(super) message: Shared,
    /// Given back when all have it.
    _permit: Option<Arc<Permit>>,
}

/// What waits for one arbiter. The one part that other threads see.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    num_pushed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: Vec<Parcel>,
    /// Of the depot, while it sleeps.
    waker: Option<Waker>,
    /// The arbiter is gone.
    is_closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics with the lock held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to the arbiter. What is sent to one that has ended is dropped.
    fn push(&self, parcel: Parcel) {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return;
        }
        waiting.parcels.push(parcel);
        self.num_pushed.fetch_add(1, SeqCst);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that waits into `parcels`, which is empty. If that is nothing, the task is woken when there is something.
    pub(super) fn take(&self, parcels: &mut Vec<Parcel>, cx: &Context<'_>) {
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.parcels, parcels);
        if parcels.is_empty() {
            waiting.waker = Some(cx.waker().clone());
        }
    }

    /// Returns how many have been sent, those included that were taken.
    pub(super) fn num_pushed(&self) -> u64 {
        self.num_pushed.load(SeqCst)
    }

    /// The arbiter is gone, and takes what waits with it.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let rest = std::mem::take(&mut waiting.parcels);
        drop(waiting);
        drop(rest);
    }
}

/// Sends to one socket, from any thread. What is sent to one that has ended is dropped.
#[derive(Clone, Debug)]
pub struct InboxRef {
    pub(super) queue: Arc<Queue>,
    pub(super) place: Place,
}

impl InboxRef {
    /// Sends a message. Never waits.
    pub fn do_send(&self, message: ForSocket) {
        let place = self.place;
        self.queue.push(Parcel::One { place, message });
    }
}

/// Collects the receivers of one message, by arbiter.
#[derive(Debug, Default)]
pub struct FanOut {
    groups: Vec<(Arc<Queue>, Vec<Receiver>)>,
}

impl FanOut {
    /// Adds a membership of a socket.
    pub fn add(&mut self, inbox: &InboxRef, join: JoinId) {
        let place = inbox.place;
        let receiver = Receiver { place, join };
        // As many as there are workers, so it is found at once.
        let known = self
            .groups
            .iter_mut()
            .find(|(queue, _)| Arc::ptr_eq(queue, &inbox.queue));
        match known {
            Some((_, receivers)) => receivers.push(receiver),
            None => self.groups.push((Arc::clone(&inbox.queue), vec![receiver])),
        }
    }

    /// Returns whether nobody was added.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns how many were added.
    pub fn len(&self) -> usize {
        self.groups
            .iter()
            .map(|(_, receivers)| receivers.len())
            .sum()
    }

    /// Sends the message to all that were added. `permit` is given back when all of them have it.
    ///
    /// In the order in which they came to their arbiters: that is how they lie in memory, the kernel's part of them too.
    pub fn send(self, message: &Shared, permit: Option<Permit>) {
        let permit = permit.map(Arc::new);
        for (queue, mut receivers) in self.groups {
            receivers.sort_unstable_by_key(|receiver| receiver.place.index);
            queue.push(Parcel::Many(Many {
                receivers: receivers.into_iter(),
                message: message.clone(),
                _permit: permit.clone(),
            }));
        }
    }
}
