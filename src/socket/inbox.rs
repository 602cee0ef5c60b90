//! What was sent to the sockets of one arbiter and has not reached them yet.
//!
//! A message for many sockets crosses to their arbiter once, whatever their number: that is one wake-up of its thread and one
//! allocation, where a mailbox for each would be a thousand. There the arbiter's `Depot` puts it into the inbox of each, which
//! wakes the Socket actor, and nobody else reads it. All that is sent to one socket goes this way, so it keeps its order.
//!
//! Only carries; what a message means is the actor's. An inbox holds what came since its socket's last turn: the next lot is put
//! in when those that got something of the last one have had theirs. What waits before that is bounded by who sends it, see
//! `hub::ahead`.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::{
    messages::{ForSocket, What},
    record::JoinId,
};
use crate::{engine_io::encoded::Encoded, hub::ahead::Permit};

/// Parcels whose room an idle depot keeps.
const SPARE_PARCELS: usize = 256;

/// One socket's place in its depot. No two sockets of an arbiter have had the same, but for four thousand million between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u32,
    serial: u32,
}

/// One of many receivers.
#[derive(Clone, Copy, Debug)]
struct Receiver {
    place: Place,
    join: JoinId,
}

#[derive(Debug)]
enum Parcel {
    One {
        place: Place,
        message: ForSocket,
    },
    Many {
        receivers: Vec<Receiver>,
        message: Arc<Encoded>,
        volatile: bool,
        /// Given back when it is in all inboxes.
        permit: Option<Arc<Permit>>,
    },
}

/// What waits for one arbiter. The one part that other threads see.
#[derive(Debug, Default)]
struct Queue {
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

    fn close(&self) {
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
    queue: Arc<Queue>,
    place: Place,
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

    /// Sends the message to all that were added. `permit` is given back when all of them have it.
    pub fn send(self, message: &Arc<Encoded>, volatile: bool, permit: Option<Permit>) {
        let permit = permit.map(Arc::new);
        for (queue, receivers) in self.groups {
            queue.push(Parcel::Many {
                receivers,
                message: Arc::clone(message),
                volatile,
                permit: permit.clone(),
            });
        }
    }
}

/// What one socket has been sent and has not seen.
#[derive(Debug)]
struct Slot {
    serial: u32,
    messages: RefCell<Vec<ForSocket>>,
    waker: RefCell<Option<Waker>>,
}

/// The inboxes of one arbiter.
#[derive(Debug)]
struct Depot {
    queue: Arc<Queue>,
    slots: RefCell<Slab<Rc<Slot>>>,
    next_serial: Cell<u32>,
    /// Inboxes with something in them.
    num_filled: Cell<usize>,
    /// Parcels that have been put into inboxes.
    num_distributed: Cell<u64>,
    spare: RefCell<Vec<Parcel>>,
}

thread_local! {
    static DEPOT: RefCell<Option<Rc<Depot>>> = const { RefCell::new(None) };
}

impl Depot {
    /// Returns the depot of this arbiter, which begins with its first socket.
    fn current() -> Rc<Self> {
        DEPOT.with_borrow_mut(|current| {
            let depot = current.get_or_insert_with(|| {
                let depot = Rc::new(Self {
                    queue: Arc::default(),
                    slots: RefCell::default(),
                    next_serial: Cell::new(0),
                    num_filled: Cell::new(0),
                    num_distributed: Cell::new(0),
                    spare: RefCell::default(),
                });
                actix_rt::spawn(Distribute {
                    depot: Rc::clone(&depot),
                    has_yielded: false,
                });
                depot
            });
            Rc::clone(depot)
        })
    }

    fn put(&self, place: Place, message: ForSocket) {
        let slots = self.slots.borrow();
        let slot = slots.get(place.index as usize);
        let Some(slot) = slot.filter(|slot| slot.serial == place.serial) else {
            return;
        };
        let mut messages = slot.messages.borrow_mut();
        if messages.is_empty() {
            self.num_filled.set(self.num_filled.get() + 1);
            if let Some(waker) = &*slot.waker.borrow() {
                waker.wake_by_ref();
            }
        }
        messages.push(message);
    }

    fn distribute(&self, parcels: &mut Vec<Parcel>) {
        let num = parcels.len() as u64;
        for parcel in parcels.drain(..) {
            match parcel {
                Parcel::One { place, message } => self.put(place, message),
                Parcel::Many {
                    receivers,
                    message,
                    volatile,
                    permit,
                } => {
                    for Receiver { place, join } in receivers {
                        let message = Arc::clone(&message);
                        let what = What::Deliver { message, volatile };
                        self.put(place, ForSocket { join, what });
                    }
                    drop(permit);
                }
            }
        }
        self.num_distributed.set(self.num_distributed.get() + num);
    }
}

/// Distributes what comes for an arbiter, as long as it runs.
struct Distribute {
    depot: Rc<Depot>,
    has_yielded: bool,
}

impl Future for Distribute {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Woken by another thread, it may come before sockets that were woken earlier.
        if self.depot.num_filled.get() > 0 && !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_yielded = false;
        let depot = &self.depot;
        let mut parcels = depot.spare.take();
        {
            let mut waiting = depot.queue.lock();
            std::mem::swap(&mut waiting.parcels, &mut parcels);
            if parcels.is_empty() {
                waiting.waker = Some(cx.waker().clone());
            }
        }
        if !parcels.is_empty() {
            depot.distribute(&mut parcels);
            // Behind those that it has woken now.
            cx.waker().wake_by_ref();
        }
        if parcels.capacity() <= SPARE_PARCELS {
            depot.spare.replace(parcels);
        }
        Poll::Pending
    }
}

impl Drop for Distribute {
    fn drop(&mut self) {
        self.depot.queue.close();
        // A thread may get another arbiter after this one; or it is at its end, and so is its storage.
        _ = DEPOT.try_with(|current| current.take());
    }
}

/// The inbox of one socket; closed when dropped. Stays on its arbiter.
#[derive(Debug)]
pub struct Inbox {
    depot: Rc<Depot>,
    slot: Rc<Slot>,
    index: usize,
}

impl Inbox {
    /// Opens an inbox on this arbiter.
    pub fn open() -> Self {
        let depot = Depot::current();
        let serial = depot.next_serial.get();
        depot.next_serial.set(serial.wrapping_add(1));
        let slot = Rc::new(Slot {
            serial,
            messages: RefCell::default(),
            waker: RefCell::default(),
        });
        let index = depot.slots.borrow_mut().insert(Rc::clone(&slot));
        Self { depot, slot, index }
    }

    /// Returns what reaches it.
    pub fn address(&self) -> InboxRef {
        InboxRef {
            queue: Arc::clone(&self.depot.queue),
            place: Place {
                index: u32::try_from(self.index).expect("there are not so many file descriptors"),
                serial: self.slot.serial,
            },
        }
    }

    /// Takes all that has come, in order. Wakes the task when more comes.
    pub fn take(&self, cx: &Context<'_>) -> Vec<ForSocket> {
        let mut waker = self.slot.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        let messages = self.slot.messages.take();
        if !messages.is_empty() {
            self.depot.num_filled.set(self.depot.num_filled.get() - 1);
        }
        messages
    }

    /// Returns a mark of all that has been sent to sockets of this arbiter by now.
    pub fn mark(&self) -> u64 {
        self.depot.queue.num_pushed.load(SeqCst)
    }

    /// Returns whether all that was sent before a mark is in its inbox.
    pub fn has_reached(&self, mark: u64) -> bool {
        self.depot.num_distributed.get() >= mark
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.depot.slots.borrow_mut().remove(self.index);
        if !self.slot.messages.borrow().is_empty() {
            self.depot.num_filled.set(self.depot.num_filled.get() - 1);
        }
    }
}

#[cfg(test)]
impl Inbox {
    /// Returns what came next, for tests in which an inbox stands in the place of a socket.
    pub(crate) async fn next(&self) -> ForSocket {
        std::future::poll_fn(|cx| {
            let mut messages = self.take(cx);
            if messages.is_empty() {
                return Poll::Pending;
            }
            let first = messages.remove(0);
            if !messages.is_empty() {
                self.depot.num_filled.set(self.depot.num_filled.get() + 1);
                self.slot.messages.replace(messages);
            }
            Poll::Ready(first)
        })
        .await
    }

    /// Returns whether nothing has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.slot.messages.borrow().is_empty()
    }
}
