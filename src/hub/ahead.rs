//! What has been sent by way of the hub: counted, so that a flood waits at its source, and so that nothing overtakes it.
//!
//! There are three questions. A *permit* is given back when a broadcast is in the inbox of every receiver: who finds none left waits,
//! so what is on its way is bounded whatever the hub and the workers can do. What is *on its way* has been sent and the hub is not done
//! with it: somebody could overtake it now. A *ticket* says that the hub is done with what its holder left in the mailbox for sockets:
//! what is sent to one then cannot arrive before it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of arguments that may be on their way; a lone event may be larger.
const MAX_BYTES: u32 = 1024 * 1024;

/// What an event counts at least: a 128th, for the lists of its receivers.
const MIN_EVENT_BYTES: u32 = MAX_BYTES / 128;

/// The counts of one instance.
#[derive(Debug)]
pub struct Ahead {
    room: Arc<Semaphore>,
    num_on_their_way: AtomicUsize,
    num_for_sockets: AtomicUsize,
    num_left: AtomicU64,
    num_done: AtomicU64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(MAX_BYTES as usize)),
            num_on_their_way: AtomicUsize::new(0),
            num_for_sockets: AtomicUsize::new(0),
            num_left: AtomicU64::new(0),
            num_done: AtomicU64::new(0),
        }
    }
}

/// One event's share of what may be on its way; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _share: OwnedSemaphorePermit,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes on to sockets, whose other messages must not overtake it.
    ForSockets,
    /// Anything else.
    Other,
}

/// One message on its way to the hub, which is done with it when this is dropped.
#[derive(Debug)]
pub struct OnItsWay {
    of: Arc<Ahead>,
    kind: Kind,
}

/// One message for sockets that was left in the hub's mailbox, which is done with it when this is dropped.
#[derive(Debug)]
pub struct Left(Arc<Ahead>);

/// All that had been left in the mailbox at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ahead {
    /// Waits until an event of this size may be on its way.
    pub async fn permit(&self, len_bytes: usize) -> Permit {
        let len = u32::try_from(len_bytes).unwrap_or(u32::MAX);
        let share = len.clamp(MIN_EVENT_BYTES, MAX_BYTES);
        let room = Arc::clone(&self.room);
        let _share = match Arc::clone(&room).try_acquire_many_owned(share) {
            Ok(share) => share,
            Err(_) => room
                .acquire_many_owned(share)
                .await
                .expect("the semaphore is never closed"),
        };
        Permit { _share }
    }

    /// Counts a message that is about to be sent to the hub, in whichever way.
    pub fn set_out(self: &Arc<Self>, kind: Kind) -> OnItsWay {
        self.num_on_their_way.fetch_add(1, SeqCst);
        if kind == Kind::ForSockets {
            self.num_for_sockets.fetch_add(1, SeqCst);
        }
        let of = Arc::clone(self);
        OnItsWay { of, kind }
    }

    /// Returns whether nothing is on its way to the hub that could have been sent before now.
    pub fn is_idle(&self) -> bool {
        self.num_on_their_way.load(SeqCst) == 0
    }

    /// Returns whether nothing is on its way by the hub to sockets that could have been sent before now.
    pub fn is_clear(&self) -> bool {
        self.num_for_sockets.load(SeqCst) == 0
    }

    /// Counts a message for sockets that is about to be put into the mailbox, where it stays until the hub takes it.
    pub fn leave(self: &Arc<Self>) -> Left {
        self.num_left.fetch_add(1, SeqCst);
        Left(Arc::clone(self))
    }

    /// Returns a ticket for all that has been left, whoever did. After the caller's own message was put in, it covers that and
    /// whatever stands before it in the hub's mailbox: of those, every one had been counted before it was put in.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.num_left.load(SeqCst))
    }

    /// Returns whether the hub is done with the caller's own message.
    ///
    /// As many as the ticket counts are done. If the caller's were not among them, they would all stand before it; but the
    /// ticket counts no more than those and the caller's.
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.num_done.load(SeqCst) >= ticket.0
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if self.kind == Kind::ForSockets {
            self.of.num_for_sockets.fetch_sub(1, SeqCst);
        }
        self.of.num_on_their_way.fetch_sub(1, SeqCst);
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.0.num_done.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_ticket_is_done_when_as_many_are_as_had_been_left() {
        let ahead = Arc::new(Ahead::default());
        let first = ahead.leave();
        let ticket = ahead.ticket();
        let second = ahead.leave();
        assert!(!ahead.is_done(ticket));
        drop(first);
        assert!(ahead.is_done(ticket) && !ahead.is_done(ahead.ticket()));
        drop(second);
        assert!(ahead.is_done(ahead.ticket()));
    }

    #[test]
    fn what_never_waited_in_the_mailbox_makes_no_ticket_done() {
        let ahead = Arc::new(Ahead::default());
        assert!(ahead.is_idle());
        let waits = (ahead.set_out(Kind::ForSockets), ahead.leave());
        let ticket = ahead.ticket();
        drop(ahead.set_out(Kind::ForSockets));
        assert!(!ahead.is_done(ticket) && !ahead.is_idle());
        drop(waits);
        assert!(ahead.is_done(ticket) && ahead.is_idle());
    }

    #[test]
    fn what_is_not_for_sockets_is_in_no_sockets_way() {
        let ahead = Arc::new(Ahead::default());
        let other = ahead.set_out(Kind::Other);
        assert!(!ahead.is_idle() && ahead.is_clear());
        let event = ahead.set_out(Kind::ForSockets);
        drop(other);
        assert!(!ahead.is_idle() && !ahead.is_clear());
        drop(event);
        assert!(ahead.is_idle() && ahead.is_clear());
    }

    #[test]
    fn what_is_on_its_way_is_bounded_in_number_and_in_bytes() {
        let ahead = Ahead::default();
        let all: Vec<_> = std::iter::from_fn(|| ahead.permit(1).now_or_never()).collect();
        assert_eq!(all.len(), 128);
        drop(all);
        let all: Vec<_> = std::iter::from_fn(|| ahead.permit(300_000).now_or_never()).collect();
        assert_eq!(all.len(), 3);
        drop(all);
        let huge = ahead.permit(usize::MAX).now_or_never();
        assert!(huge.is_some() && ahead.permit(1).now_or_never().is_none());
    }

    #[test]
    fn who_waits_gets_the_room_that_is_given_back() {
        let ahead = Ahead::default();
        let huge = ahead.permit(usize::MAX).now_or_never();
        let mut waits = Box::pin(ahead.permit(1));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(huge);
        assert!(waits.now_or_never().is_some());
    }
}
