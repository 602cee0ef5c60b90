//! How what was sent to the sockets of one arbiter reaches them.
//!
//! An arbiter's `Depot` hands out what has come by its [`inbox`](super::inbox), lot by lot, and when each socket of a lot has all that
//! is for it, each has its say once: it writes, in one go, without a turn of its task. A message that is a lot by itself does not even
//! wake the sockets that lent their lane: it is written past them, to many by one system call.
//!
//! Only hands out; what a message means is the socket's. The next lot is handed out when all of the last one have had their say.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    give_way::give_way,
    inbox::{InboxRef, Many, Parcel, Place, Queue, Receiver, Shared},
    lane::{Lane, LaneRef},
    messages::ForSocket,
};
use crate::{
    engine_io::encoded::Encoded,
    websocket::many_writes::{MAX_WRITES, ManyWrites},
};

/// Parcels whose room an idle depot keeps.
const SPARE_PARCELS: usize = 256;

// What a turn of the depot may do; then other tasks of the arbiter, and what has arrived meanwhile, get theirs.

/// How long it writes, by and large: what a write takes depends on its length and on the kernel.
const MAX_TURN: Duration = Duration::from_millis(1);

/// Sockets that it writes for, however soon that is done.
const MAX_SAYS: usize = 256;

/// Messages that it hands to sockets.
const MAX_PUTS: usize = 4096;

/// Sockets that have their say before the clock is looked at.
const FEW: usize = 16;

/// Sockets that are written past before the clock is looked at, if what they get is short: their lanes are touched before the first of
/// them is used, so that the processor fetches them from memory side by side, and are written to by one system call.
const MAX_TOGETHER: usize = MAX_WRITES;

/// Bytes that are written before the clock is looked at, or one message, if that is longer.
const MAX_BYTES: usize = 256 * 1024;

/// Messages that are handed out, in as many turns as that takes, before those who got them have their say.
const MAX_LOT: usize = 64 * 1024;

/// What a depot is at, turn by turn.
#[derive(Debug, Default)]
enum Stage {
    /// It begins with what comes next.
    #[default]
    Fetch,
    /// A message that is a lot by itself goes out.
    Alone(Many),
    /// A lot goes out, so many messages of it by now.
    Lot(usize),
    /// Those who got the lot have their say.
    Say,
}

/// A socket, as its depot sees it.
pub(super) trait Receive {
    /// Takes a message. [`Self::say`] follows when the lot is handed out.
    fn receive(&self, message: ForSocket);

    /// Takes a message of which `len` bytes have been written by the socket's lane, and no more can be. [`Self::say`] follows.
    fn receive_rest(&self, message: &Arc<Encoded>, len: usize);

    /// Does what is to be done about all that was received.
    fn say(&self);
}

/// A place in the depot.
#[derive(Debug)]
struct Slot {
    serial: u32,
    /// Whether it is to have its say.
    is_due: bool,
    lane: Option<Lane>,
    socket: Weak<dyn Receive>,
}

/// Returns what stands in a place, if that has not become another socket's.
fn slot_of(slots: &Slab<Slot>, place: Place) -> Option<&Slot> {
    let slot = slots.get(place.index as usize);
    slot.filter(|slot| slot.serial == place.serial)
}

/// How much of a message was written past a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// All.
    All,
    /// So many bytes. None, if its lane does not serve it, its client needs a form of its own or takes nothing, or it has just been written
    /// past.
    Part(usize),
}

/// A turn of the depot's task.
#[derive(Clone, Copy, Debug)]
struct Turn(Instant);

impl Turn {
    fn begin() -> Self {
        Self(Instant::now())
    }

    /// Returns whether no more should be begun in it.
    fn is_over(self) -> bool {
        self.0.elapsed() >= MAX_TURN
    }
}

/// The sockets of one arbiter.
#[derive(Debug)]
struct Depot {
    queue: Arc<Queue>,
    slots: RefCell<Slab<Slot>>,
    next_serial: Cell<u32>,
    /// Who is to have its say.
    due: RefCell<Vec<usize>>,
    /// Parcels that have been handed out.
    num_distributed: Cell<u64>,
    /// Those that come next, taken from the queue already.
    next: RefCell<VecDeque<Parcel>>,
    stage: RefCell<Stage>,
    spare: RefCell<Vec<Parcel>>,
    writes: RefCell<ManyWrites>,
}

thread_local! {
    static DEPOT: RefCell<Option<Rc<Depot>>> = const { RefCell::new(None) };
}

impl Depot {
    /// Returns the depot of this arbiter, which begins with its first socket.
    fn current(io_uring: bool) -> Rc<Self> {
        DEPOT.with_borrow_mut(|current| {
            let depot = current.get_or_insert_with(|| {
                let depot = Rc::new(Self {
                    queue: Arc::default(),
                    slots: RefCell::default(),
                    next_serial: Cell::new(0),
                    due: RefCell::default(),
                    num_distributed: Cell::new(0),
                    next: RefCell::default(),
                    stage: RefCell::default(),
                    spare: RefCell::default(),
                    writes: RefCell::new(ManyWrites::open(io_uring)),
                });
                actix_rt::spawn(Distribute(Rc::clone(&depot)));
                depot
            });
            Rc::clone(depot)
        })
    }

    fn put(&self, place: Place, message: ForSocket) {
        let index = place.index as usize;
        let socket = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots.get_mut(index);
            let Some(slot) = slot.filter(|slot| slot.serial == place.serial) else {
                drop(slots);
                return message.give_back();
            };
            if !std::mem::replace(&mut slot.is_due, true) {
                self.due.borrow_mut().push(index);
            }
            slot.socket.upgrade()
        };
        if let Some(socket) = socket {
            socket.receive(message);
        }
    }

    /// Takes what waits in the queue. Returns whether there is anything to hand out; if not, the task is woken when there is.
    fn fetch(&self, cx: &Context<'_>) -> bool {
        let mut next = self.next.borrow_mut();
        if !next.is_empty() {
            return true;
        }
        let mut parcels = self.spare.take();
        self.queue.take(&mut parcels, cx);
        next.extend(parcels.drain(..));
        if parcels.capacity() <= SPARE_PARCELS {
            self.spare.replace(parcels);
        }
        if next.is_empty() && next.capacity() > SPARE_PARCELS {
            *next = VecDeque::new();
        }
        !next.is_empty()
    }

    /// Returns how the next lot goes out: past the sockets, if it is one message for many that allows it.
    fn begin(&self) -> Stage {
        let mut next = self.next.borrow_mut();
        match next.pop_front() {
            Some(Parcel::Many(many)) if next.is_empty() && many.message.may_pass() => {
                Stage::Alone(many)
            }
            Some(parcel) => {
                next.push_front(parcel);
                Stage::Lot(0)
            }
            None => Stage::Fetch,
        }
    }

    /// Hands a message that is a lot by itself to some of its receivers.
    fn hand_out_alone(&self, mut alone: Many, turn: Turn) -> Stage {
        let mut num = 0;
        let message = alone.message.message();
        let at_once = (MAX_BYTES / message.len_bytes().max(1)).clamp(1, MAX_TOGETHER);
        for some in alone.receivers.as_slice().chunks(at_once) {
            self.warm(some);
            for (receiver, written) in some.iter().zip(self.write(some, message)) {
                if let Written::Part(len) = written {
                    self.put_rest(*receiver, &alone.message, len);
                }
            }
            num += some.len();
            if num >= MAX_SAYS || turn.is_over() {
                break;
            }
        }
        if num < alone.receivers.len() {
            alone.receivers.nth(num - 1);
            return Stage::Alone(alone);
        }
        self.count_parcel();
        Stage::Fetch
    }

    /// Touches the lanes of some sockets.
    fn warm(&self, some: &[Receiver]) {
        let slots = self.slots.borrow();
        for receiver in some {
            let slot = slots.get(receiver.place.index as usize);
            if let Some(lane) = slot.and_then(|slot| slot.lane.as_ref()) {
                lane.warm();
            }
        }
    }

    /// Writes a message past those of some sockets whose lanes serve it. Returns how much of it each of them got by that.
    ///
    /// Receivers stand in the order of their places. One that stands there twice is written past once: what comes behind a part would
    /// tear it.
    fn write(&self, some: &[Receiver], message: &Encoded) -> [Written; MAX_TOGETHER] {
        let slots = self.slots.borrow();
        let mut places = Vec::with_capacity(some.len());
        let mut writes = Vec::with_capacity(some.len());
        let mut last = None;
        for (at, Receiver { place, join }) in some.iter().enumerate() {
            if last.replace(place.index) == Some(place.index) {
                continue;
            }
            let lane = slot_of(&slots, *place).and_then(|slot| slot.lane.as_ref());
            if let Some(write) = lane.and_then(|lane| lane.write(*join, message)) {
                places.push(at);
                writes.push(write);
            }
        }
        let mut taken = vec![0; writes.len()];
        self.writes.borrow_mut().write_each(&writes, &mut taken);
        let mut written = [Written::Part(0); MAX_TOGETHER];
        for ((at, write), len) in places.into_iter().zip(&writes).zip(taken) {
            if let Some(written) = written.get_mut(at) {
                *written = match len == write.frames.len() {
                    true => Written::All,
                    false => Written::Part(len),
                };
            }
        }
        written
    }

    /// Gives a socket a message of which `written` bytes have been written past it, and lets it have its say.
    fn put_rest(&self, Receiver { place, join }: Receiver, shared: &Shared, written: usize) {
        let socket = slot_of(&self.slots.borrow(), place).and_then(|slot| slot.socket.upgrade());
        let Some(socket) = socket else { return };
        if written > 0 {
            socket.receive_rest(shared.message(), written);
        } else {
            let what = shared.what();
            socket.receive(ForSocket { join, what });
        }
        socket.say();
    }

    /// Hands out some of a lot, of which `num` messages have gone before.
    fn distribute(&self, num: usize) -> Stage {
        let end = MAX_LOT.min(num + MAX_PUTS);
        let mut num = num;
        while num < end {
            let Some(parcel) = self.next.borrow_mut().pop_front() else {
                return Stage::Say;
            };
            match parcel {
                Parcel::One { place, message } => {
                    num += 1;
                    self.put(place, message);
                }
                Parcel::Many(mut many) => {
                    for Receiver { place, join } in many.receivers.by_ref().take(end - num) {
                        num += 1;
                        let what = many.message.what();
                        self.put(place, ForSocket { join, what });
                    }
                    if many.receivers.len() > 0 {
                        self.next.borrow_mut().push_front(Parcel::Many(many));
                        break;
                    }
                }
            }
            self.count_parcel();
        }
        match num < MAX_LOT {
            true => Stage::Lot(num),
            false => Stage::Say,
        }
    }

    /// Counts one that has been handed out.
    fn count_parcel(&self) {
        self.num_distributed.set(self.num_distributed.get() + 1);
    }

    /// Lets some of those that are due have their say.
    fn let_say(&self, turn: Turn) -> Stage {
        for num in 0..MAX_SAYS {
            if num % FEW == 0 && num > 0 && turn.is_over() {
                break;
            }
            let Some(index) = self.due.borrow_mut().pop() else {
                break;
            };
            let socket = {
                let mut slots = self.slots.borrow_mut();
                // The place may have become another's: it has nothing to say then, and no harm is done.
                slots.get_mut(index).and_then(|slot| {
                    slot.is_due = false;
                    slot.socket.upgrade()
                })
            };
            if let Some(socket) = socket {
                socket.say();
            }
        }
        match self.due.borrow().is_empty() {
            true => Stage::Fetch,
            false => Stage::Say,
        }
    }
}

/// Distributes what comes for an arbiter, as long as it runs.
struct Distribute(Rc<Depot>);

impl Future for Distribute {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let depot = &self.0;
        let turn = Turn::begin();
        let mut stage = depot.stage.take();
        if let Stage::Fetch = stage {
            if !depot.fetch(cx) {
                return Poll::Pending;
            }
            stage = depot.begin();
        }
        stage = match stage {
            Stage::Alone(alone) => depot.hand_out_alone(alone, turn),
            Stage::Lot(num) => depot.distribute(num),
            stage => stage,
        };
        if let Stage::Say = stage {
            stage = depot.let_say(turn);
        }
        if matches!(stage, Stage::Fetch) && !depot.fetch(cx) {
            return Poll::Pending;
        }
        depot.stage.replace(stage);
        give_way(cx);
        Poll::Pending
    }
}

impl Drop for Distribute {
    fn drop(&mut self) {
        self.0.queue.close();
        drop(self.0.next.take());
        drop(self.0.stage.take());
        // A thread may get another arbiter after this one; or it is at its end, and so is its storage.
        _ = DEPOT.try_with(|current| current.take());
    }
}

/// One socket's place in the depot of its arbiter, where it stays; given up when dropped.
#[derive(Debug)]
pub(super) struct Inbox {
    depot: Rc<Depot>,
    index: usize,
    serial: u32,
}

impl Inbox {
    /// Opens an inbox on this arbiter. Whether its sockets are written to with `io_uring` is for the first of them to say.
    pub(super) fn open(socket: Weak<dyn Receive>, io_uring: bool) -> Self {
        let depot = Depot::current(io_uring);
        let serial = depot.next_serial.get();
        depot.next_serial.set(serial.wrapping_add(1));
        let index = depot.slots.borrow_mut().insert(Slot {
            serial,
            is_due: false,
            lane: None,
            socket,
        });
        Self {
            depot,
            index,
            serial,
        }
    }

    /// Returns what reaches it.
    pub(super) fn address(&self) -> InboxRef {
        InboxRef {
            queue: Arc::clone(&self.depot.queue),
            place: Place {
                index: u32::try_from(self.index).expect("there are not so many file descriptors"),
                serial: self.serial,
            },
        }
    }

    /// Lends the depot the socket's lane, as long as nothing waits for its client; or takes it back.
    pub(super) fn lend(&self, lane: Option<LaneRef<'_>>) {
        let mut slots = self.depot.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(self.index) {
            match (&slot.lane, lane) {
                (Some(lent), Some(lane)) if lane.is(lent) => {}
                (_, lane) => slot.lane = lane.map(LaneRef::lend),
            }
        }
    }

    /// Returns a mark of all that has been sent to sockets of this arbiter by now.
    pub(super) fn mark(&self) -> u64 {
        self.depot.queue.num_pushed()
    }

    /// Returns whether all that was sent before a mark has been received.
    pub(super) fn has_reached(&self, mark: u64) -> bool {
        self.depot.num_distributed.get() >= mark
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.depot.slots.borrow_mut().remove(self.index);
    }
}

/// Stands in the place of a socket.
#[cfg(test)]
pub(crate) struct Probe {
    inbox: Inbox,
    received: Rc<Received>,
}

#[cfg(test)]
#[derive(Default)]
struct Received {
    messages: RefCell<VecDeque<ForSocket>>,
    /// How much had been written past it, of each message that it got the rest of.
    rests: RefCell<Vec<usize>>,
    num_says: Cell<usize>,
    some: tokio::sync::Notify,
    /// What it does when it has its say.
    next_say: RefCell<Option<Box<dyn FnOnce()>>>,
}

#[cfg(test)]
impl Receive for Received {
    fn receive(&self, message: ForSocket) {
        self.messages.borrow_mut().push_back(message);
    }

    fn receive_rest(&self, _: &Arc<Encoded>, len: usize) {
        self.rests.borrow_mut().push(len);
    }

    fn say(&self) {
        self.num_says.set(self.num_says.get() + 1);
        self.some.notify_one();
        if let Some(act) = self.next_say.take() {
            act();
        }
    }
}

#[cfg(test)]
impl Probe {
    pub(crate) fn open() -> Self {
        Self::open_with(true)
    }

    fn open_with(io_uring: bool) -> Self {
        let received = Rc::new(Received::default());
        let socket: Weak<Received> = Rc::downgrade(&received);
        Self {
            inbox: Inbox::open(socket, io_uring),
            received,
        }
    }

    pub(crate) fn address(&self) -> InboxRef {
        self.inbox.address()
    }

    /// Returns what came next.
    pub(crate) async fn next(&self) -> ForSocket {
        loop {
            let next = self.received.messages.borrow_mut().pop_front();
            match next {
                Some(message) => return message,
                None => self.received.some.notified().await,
            }
        }
    }

    /// Returns whether nothing has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.received.messages.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests;
