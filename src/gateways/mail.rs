//! Whether the handler that runs on this thread has sent anything.
//!
//! What a handler sends reaches its client by way of the Socket actor's mailbox, a broadcast even by way of the hub, and an
//! ack must not overtake it. Whatever sends notes it here; the Socket actor takes the note after each turn of a handler.

use std::cell::Cell;

thread_local! {
    static HAS_SENT: Cell<bool> = const { Cell::new(false) };
}

/// Notes that something was sent. For a broadcast: behind the hub's answer, since by then the sender's own copy is in its
/// mailbox, and the answer may have come before the handler's first wait.
pub(super) fn note() {
    HAS_SENT.set(true);
}

/// Returns whether anything was noted since the last call.
pub(crate) fn take() -> bool {
    HAS_SENT.replace(false)
}
