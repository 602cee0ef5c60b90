//! The Hub actor: takes one message after the other, each in a turn of its own.
//!
//! What is done in a turn stands in `state`. Runs on an arbiter of its own, so that no client's work delays a broadcast. While nothing
//! waits for a turn, others may take a short one on their own thread, see `Turns`: to wake this one costs more than most turns.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{
    Actor, Addr, ArbiterHandle, AsyncContext as _, Context, Handler, Message, MessageResult,
};

use super::state::State;

/// Messages that may wait before a sender that awaits its answer is held back.
const MAILBOX_CAPACITY: usize = 1024;

/// What others have for themselves between two turns of a purge.
const PURGE_PAUSE: Duration = Duration::from_millis(1);

/// What the hub does with a message, in one turn.
pub trait Turn<M: Message> {
    /// Takes it. Nothing of the hub happens meanwhile.
    fn turn(&mut self, message: M) -> M::Result;
}

/// The state, which whoever has a turn has for itself.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The actor waits for a turn: who has not begun one by then takes none, or many could keep it waiting together.
    is_wanted: AtomicBool,
}

/// One per instance.
#[derive(Debug)]
pub struct Hub(Arc<Shared>);

impl From<State> for Hub {
    fn from(state: State) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            is_wanted: AtomicBool::new(false),
        }))
    }
}

impl Hub {
    /// Starts it on an arbiter.
    pub(super) fn start_on(self, arbiter: &ArbiterHandle) -> (Addr<Self>, Turns) {
        let turns = Turns(Arc::downgrade(&self.0));
        (Self::start_in_arbiter(arbiter, |_| self), turns)
    }

    /// Waits for a turn, while another thread has a short one.
    fn state(&self) -> MutexGuard<'_, State> {
        let Shared { state, is_wanted } = &*self.0;
        is_wanted.store(true, SeqCst);
        // Nothing panics in a turn; if it did, one message would be half done, and the others still better done than not.
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        is_wanted.store(false, SeqCst);
        state
    }

    /// Forgets what is too old or too much, in as many turns as it takes.
    pub(super) fn purge(&mut self, ctx: &mut Context<Self>) {
        if self.state().purge() {
            ctx.run_later(PURGE_PAUSE, Self::purge);
        }
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        if let Some(interval) = self.state().purge_interval() {
            ctx.run_interval(interval, Self::purge);
        }
    }
}

impl<M> Handler<M> for Hub
where
    M: Message + 'static,
    State: Turn<M>,
{
    type Result = MessageResult<M>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state().turn(message))
    }
}

/// Turns of the hub that are taken by others, from any thread.
#[derive(Debug)]
pub(super) struct Turns(Weak<Shared>);

impl Turns {
    /// Takes a turn for a message, if `is_short` says so. Nothing may wait in the hub's mailbox that it must not overtake.
    ///
    /// # Errors
    /// It would be long, somebody else has a turn, or the hub is gone: the message is handed back.
    pub(super) fn try_take<M: Message>(
        &self,
        message: M,
        is_short: impl FnOnce(&State, &M) -> bool,
    ) -> Result<M::Result, M>
    where
        State: Turn<M>,
    {
        let Some(shared) = self.0.upgrade() else {
            return Err(message);
        };
        if shared.is_wanted.load(SeqCst) {
            return Err(message);
        }
        // Nor after a turn that went wrong; that is the actor's to live with.
        let Ok(mut state) = shared.state.try_lock() else {
            return Err(message);
        };
        match is_short(&state, &message) {
            true => Ok(state.turn(message)),
            false => Err(message),
        }
    }
}
