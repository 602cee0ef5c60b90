//! Acks that clients owe: the numbers that tie them to events, who waits for them, and what counts those that have come.
//!
//! Numbers are unique on an instance, whatever the client: one broadcast then has one number for all of its receivers, and is
//! encoded once. Source: wire.md 2.5.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::oneshot;

use super::backlogs::{Backlogs, Held};
use crate::{
    counters::{Counters, Limit},
    hub::question::{Answer, Answers},
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
    /// Hands over the ack. Whoever waited may have given up.
    pub(super) fn acknowledge(self, acked: Acked) {
        match self {
            Self::One(reply) => _ = reply.send(acked),
            Self::Many(answers) => _ = answers.send(Answer::Ack(acked)),
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
