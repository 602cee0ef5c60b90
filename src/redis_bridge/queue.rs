//! The door between the actor, which fills the outgoing queue, and the link, which empties it.
//!
//! Both run on one arbiter, so the lock is never waited for; it is there because the actor is built on another one.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    bus::Outbound,
    loss::Loss,
    outgoing::{Outgoing, With},
    status::BridgeStats,
    ticket::Ticket,
};

/// The outgoing queue with its two bells.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    stats: Arc<BridgeStats>,
    /// Rings when something has come in.
    filled: Notify,
    /// Rings when the last message has been answered for.
    drained: Notify,
}

#[derive(Debug)]
struct State {
    outgoing: Outgoing,
    is_closed: bool,
}

impl Queue {
    /// Returns a door to `outgoing`; what it drops is counted in `stats`.
    pub(super) fn new(outgoing: Outgoing, stats: Arc<BridgeStats>) -> Self {
        Self {
            state: Mutex::new(State {
                outgoing,
                is_closed: false,
            }),
            stats,
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Takes a message, if the queue is not closed.
    pub(super) fn push(&self, message: Outbound) {
        self.push_with(message, With::Nothing);
    }

    /// Takes a question in its place behind all that came before it, if the queue is not closed.
    pub(super) fn push_question(&self, message: Outbound, ticket: Ticket) {
        self.push_with(message, With::Ticket(ticket));
    }

    /// Takes a message, and does what `loss` says if it is dropped while it waits.
    pub(super) fn push_or(&self, message: Outbound, loss: Loss) {
        self.push_with(message, With::Loss(loss));
    }

    fn push_with(&self, message: Outbound, with: With) {
        self.with(|state| {
            if state.is_closed {
                state.outgoing.count_dropped();
            } else {
                state.outgoing.push(Instant::now(), message, with);
            }
        });
        self.filled.notify_one();
    }

    /// Removes the questions that wait.
    pub(super) fn withdraw_questions(&self) {
        self.with(|state| state.outgoing.withdraw_questions());
    }

    /// Counts a message that could not be written.
    pub(super) fn count_dropped(&self) {
        self.with(|state| state.outgoing.count_dropped());
    }

    /// Waits until something is there, and takes as much of it as one batch holds. May be dropped while it waits.
    pub(super) async fn next_batch(&self) -> Vec<Outbound> {
        loop {
            let batch = self.with(|state| state.outgoing.take_batch(Instant::now()));
            if !batch.is_empty() {
                return batch;
            }
            // A ring between the look and the wait is kept: there is one waiter.
            self.filled.notified().await;
        }
    }

    /// Returns whether something waits that is not too old.
    pub(super) fn has_waiting(&self) -> bool {
        self.with(|state| {
            state.outgoing.drop_stale(Instant::now());
            !state.outgoing.is_empty()
        })
    }

    /// The bus has answered for the batch: those at the places `refused`, in order, are lost, and its end waits again. Returns the
    /// tickets of the questions that do not, and their places in the batch.
    pub(super) fn settle(&self, refused: &[usize], kept: Vec<Outbound>) -> Vec<(usize, Ticket)> {
        self.with(|state| state.outgoing.settle(refused, kept))
    }

    /// The connection broke, perhaps with a batch under way.
    pub(super) fn abandon(&self) {
        self.with(|state| state.outgoing.abandon());
    }

    /// Takes nothing in any more.
    pub(super) fn close(&self) {
        self.with(|state| state.is_closed = true);
    }

    /// Waits until nothing waits and nothing is under way. For one waiter.
    pub(super) async fn drained(&self) {
        while !self.with(|state| state.outgoing.is_drained()) {
            self.drained.notified().await;
        }
    }

    /// Returns how many messages have been dropped since the beginning.
    pub(super) fn num_dropped(&self) -> u64 {
        self.with(|state| state.outgoing.num_dropped())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing panics in there; if it did, the queue would still be one.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        self.stats
            .num_dropped
            .store(state.outgoing.num_dropped(), Relaxed);
        if state.outgoing.is_drained() {
            self.drained.notify_one();
        }
        result
    }
}
