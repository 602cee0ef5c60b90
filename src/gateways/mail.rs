//! What the handlers that run on this thread have sent.
//!
//! It reaches their client by way of its inbox, a broadcast perhaps by way of the hub's mailbox, and an ack must not overtake it. Whatever
//! sends notes it here; the Socket actor takes the note after each turn of a handler.

use std::cell::Cell;

/// What has been sent: the greater of several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    /// Nothing.
    #[default]
    Nothing,
    /// Broadcasts at most: the ack comes behind them, but they change nothing for the next handler.
    Broadcast,
    /// What may change something for the next handler of the client: that it is thrown out, for one.
    Told,
}

thread_local! {
    static SENT: Cell<Sent> = const { Cell::new(Sent::Nothing) };
}

/// Notes that something was sent, once it is on its way. Where an answer is awaited: behind that, since it may have come before
/// the handler's first wait.
pub(super) fn note(sent: Sent) {
    SENT.set(SENT.get().max(sent));
}

/// Returns what was noted since the last call.
pub(crate) fn take() -> Sent {
    SENT.take()
}
