//! How a task that could go on gives way: to the other tasks of its arbiter, and to what has arrived meanwhile.
//!
//! A task that wakes itself is polled again before the arbiter asks the system what has arrived, up to 61 times in a row. Turns of a
//! millisecond each would thus keep a client that sends something waiting for a twentieth of a second.

use std::{future::Future as _, pin::pin, task::Context};

use tokio::task::yield_now;

/// Has the task polled again once the others that are ready have been, and the system was asked what has arrived. The caller returns
/// `Pending`.
pub(super) fn give_way(cx: &mut Context<'_>) {
    // Its first poll is what arranges that.
    _ = pin!(yield_now()).poll(cx);
}
