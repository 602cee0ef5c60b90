//! Acks that clients owe: the numbers that tie them to events, and who waits for them.
//!
//! Numbers are unique on an instance, whatever the client: one broadcast then has one number for all of its receivers, and is
//! encoded once. Source: wire.md 2.5.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::oneshot;

use crate::{
    hub::question::{Answer, Answers},
    socket_io::{args::Args, decoder::AckId},
};

/// Gives out numbers of acks, from 0.
#[derive(Debug, Default)]
pub struct AckIds(AtomicU64);

impl AckIds {
    /// Returns one that was not given out before.
    pub fn next(&self) -> AckId {
        AckId(self.0.fetch_add(1, Relaxed))
    }
}

/// Who waits for an ack. Dropping it tells them that none will come.
#[derive(Debug)]
pub(super) enum Awaiter {
    /// Whoever sent the event to this client alone.
    One(oneshot::Sender<Args>),
    /// Whoever sent it to many.
    Many(Answers),
}

impl Awaiter {
    /// Hands over the ack. Whoever waited may have given up.
    pub(super) fn acknowledge(self, args: Args) {
        match self {
            Self::One(reply) => _ = reply.send(args),
            Self::Many(answers) => _ = answers.send(Answer::Ack(args)),
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
