//! Acks that clients owe: the numbers that tie them to events, who waits for them, and what counts those that have come.
//!
//! Numbers are unique on an instance, whatever the client: one broadcast then has one number for all of its receivers, and is
//! encoded once. Source: wire.md 2.5.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

use super::backlogs::{Backlogs, Held};
use crate::{
    counters::{Counters, Limit},
    hub::question::{Answer, Answers},
    shrink::shrink,
    socket_io::{args::Args, decoder::AckId},
};

/// Gives out numbers of acks, from 0.
#[derive(Debug, Default)]
pub struct AckIds(AtomicU64);

/// How many numbers an instance of several has for itself, as a power of two.
const OWN_BITS: u32 = 32;

impl AckIds {
    /// Gives out numbers from some place at random, of which few other instances give out any: a session that moves may owe acks to two.
    /// All are whole numbers in JavaScript, too.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn apart() -> Result<Self, getrandom::Error> {
        const PLACES: u32 = 1 << (52 - OWN_BITS);
        let place = getrandom::u32()? % PLACES;
        Ok(Self(AtomicU64::new(u64::from(place) << OWN_BITS)))
    }

    /// Returns one that was not given out before.
    pub fn next(&self) -> AckId {
        AckId(self.0.fetch_add(1, Relaxed))
    }
}

/// What an ack takes beside its arguments, about.
const ACK_BYTES: usize = 128;

/// What a client acknowledged, counted until it is dropped: whoever asked many keeps what the first have answered until the last has.
#[derive(Clone, Debug)]
pub struct Acked {
    /// What was acknowledged.
    pub args: Args,
    /// What keeps it counted.
    _held: Held,
}

impl Acked {
    /// Counts an ack, of this instance's client or another's; `None`, and counted as that, if it is more than a client may have waiting
    /// by now.
    pub(crate) fn new(backlogs: &Arc<Backlogs>, counters: &Counters, args: Args) -> Option<Self> {
        let _held = Held::bytes(backlogs, ACK_BYTES + args.len_bytes());
        if _held.is_too_much() {
            counters.count(Limit::TotalBacklog);
            return None;
        }
        Some(Self { args, _held })
    }
}

/// Who waits for an ack. Dropping it tells them that none will come.
#[derive(Debug)]
pub(super) enum Awaiter {
    /// Whoever sent the event to this client alone.
    One(oneshot::Sender<Acked>),
    /// Whoever sent it to many.
    Many(Answers),
}

impl Awaiter {
    /// Hands over the ack; `None` if it could not be kept, and none will come. Whoever waited may have given up.
    pub(super) fn acknowledge(self, acked: Option<Acked>) {
        match self {
            // Dropping it says so.
            Self::One(reply) => _ = acked.map(|acked| reply.send(acked)),
            Self::Many(answers) => _ = answers.send(acked.map_or(Answer::Unkept, Answer::Ack)),
        }
    }

    /// Returns whether nobody waits any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::One(reply) => reply.is_closed(),
            Self::Many(answers) => answers.is_closed(),
        }
    }
}

/// Acks that one client may owe in one namespace.
pub(super) const MAX_AWAITED: usize = 1024;

/// How many entries are looked at for each event, to find those whose ack nobody awaits any more; two, so that more are found than come.
const LOOKS: usize = 2;

/// How many if there is no room: then it may be that of one whose time is over.
const LOOKS_IF_FULL: usize = 16;

/// The acks that one client owes in one namespace, and who awaits them. Whose time is over leaves its entry behind and says nothing; it
/// is found bit by bit, so that nothing takes longer the more acks a client owes.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    by_id: HashMap<AckId, Awaiter>,
    /// In the order in which they are looked at. Some may have been acknowledged.
    ids: VecDeque<AckId>,
}

impl Awaited {
    /// Notes that the client is to acknowledge `id`. Returns whether it may: not if it owes too many already.
    pub(super) fn insert(&mut self, id: AckId, awaiter: Awaiter) -> bool {
        self.look_at_some();
        let may = self.by_id.len() < MAX_AWAITED;
        if may {
            self.put(id, awaiter);
        }
        may
    }

    fn put(&mut self, id: AckId, awaiter: Awaiter) {
        self.by_id.insert(id, awaiter);
        self.ids.push_back(id);
    }

    fn look_at_some(&mut self) {
        let looks = match self.by_id.len() < MAX_AWAITED {
            true => LOOKS,
            false => LOOKS_IF_FULL,
        };
        for _ in 0..looks {
            let Some(id) = self.ids.pop_front() else {
                break;
            };
            if self.is_awaited(id) {
                self.ids.push_back(id);
            }
        }
        shrink(&mut self.ids);
    }

    /// Returns whether anybody awaits this ack, and forgets it if not.
    fn is_awaited(&mut self, id: AckId) -> bool {
        match self.by_id.get(&id) {
            Some(awaiter) if awaiter.is_closed() => {
                self.by_id.remove(&id);
                false
            }
            awaiter => awaiter.is_some(),
        }
    }

    /// Returns who awaits an ack that has come, if it was owed.
    pub(super) fn take(&mut self, id: AckId) -> Option<Awaiter> {
        self.by_id.remove(&id)
    }

    /// Returns whether anybody awaits an ack. It looks at those that nobody awaits once, and at one more.
    pub(super) fn is_anything_awaited(&mut self) -> bool {
        while let Some(id) = self.ids.front() {
            let id = *id;
            if self.is_awaited(id) {
                return true;
            }
            self.ids.pop_front();
        }
        false
    }

    /// Returns all, those included that nobody awaits any more.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AckId, &Awaiter)> {
        self.by_id.iter()
    }
}

impl FromIterator<(AckId, Awaiter)> for Awaited {
    fn from_iter<I: IntoIterator<Item = (AckId, Awaiter)>>(all: I) -> Self {
        let mut awaited = Self::default();
        for (id, awaiter) in all {
            awaited.put(id, awaiter);
        }
        awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> (oneshot::Receiver<Acked>, Awaiter) {
        let (reply, answer) = oneshot::channel();
        (answer, Awaiter::One(reply))
    }

    /// Returns a client that owes all that it may, and who waits.
    fn full() -> (Awaited, Vec<oneshot::Receiver<Acked>>) {
        let mut awaited = Awaited::default();
        let waiting = (0..1024).map(|n| {
            let (answer, awaiter) = one();
            assert!(awaited.insert(AckId(n), awaiter));
            answer
        });
        let waiting = waiting.collect();
        assert!(!awaited.insert(AckId(5000), one().1));
        (awaited, waiting)
    }

    /// A bug: for each event beyond those that a client may owe acks for, all of them were looked at.
    #[test]
    fn room_is_looked_for_bit_by_bit_and_found() {
        let (mut awaited, mut waiting) = full();
        waiting.remove(600);
        let mut num = 0;
        while !awaited.insert(AckId(6000), one().1) {
            num += 1;
        }
        assert!((1..1024 / LOOKS_IF_FULL).contains(&num), "{num}");
        awaited.take(AckId(7)).unwrap();
        assert!(awaited.insert(AckId(6001), one().1), "of an ack that came");
        drop(waiting);
        assert!(awaited.insert(AckId(6002), one().1));
    }

    /// A bug: a client that once had owed an ack that nobody awaits any more might have sixteen times as much waiting for good.
    #[test]
    fn an_ack_whose_time_is_over_is_not_awaited() {
        let mut awaited = Awaited::default();
        assert!(!awaited.is_anything_awaited());
        let (first, second, third) = (one(), one(), one());
        awaited.insert(AckId(1), first.1);
        awaited.insert(AckId(2), second.1);
        awaited.insert(AckId(3), third.1);
        drop(first.0);
        assert!(awaited.is_anything_awaited());
        assert!(awaited.take(AckId(1)).is_none(), "it is forgotten");
        assert!(awaited.take(AckId(2)).is_some());
        assert!(awaited.is_anything_awaited());
        drop(third.0);
        assert!(!awaited.is_anything_awaited());
        assert_eq!(awaited.iter().count(), 0);
    }

    #[test]
    fn nothing_is_left_of_acks_that_came_however_long_one_is_awaited() {
        let mut awaited = Awaited::default();
        let (_long, awaiter) = one();
        awaited.insert(AckId(0), awaiter);
        for n in 1..100_000 {
            let (_answer, awaiter) = one();
            assert!(awaited.insert(AckId(n), awaiter));
            assert!(awaited.take(AckId(n)).is_some());
            assert!(awaited.ids.len() < 8 && awaited.ids.capacity() < 64);
        }
        assert!(awaited.is_anything_awaited());
    }
}
