//! What the tests stand on: an instance, raw clients, a Redis.
//!
//! Everything awaits events; a single patience bounds each wait, so that a fault fails a test instead of hanging it.

#![allow(
    dead_code,
    reason = "two test binaries share it, and neither needs all of it"
)]

#[path = "../../../examples/chat.rs"]
pub(crate) mod chat;
#[path = "../../../examples/conformance.rs"]
pub(crate) mod conformance;
pub(crate) mod cut_line;
pub(crate) mod http;
pub(crate) mod line;
pub(crate) mod open_files;
pub(crate) mod program;
pub(crate) mod redis_cluster;
pub(crate) mod redis_server;
pub(crate) mod server;
pub(crate) mod slow_line;
pub(crate) mod websocket;

use std::{
    future::Future,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// How long any single wait may take. Generous: machines are slow under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits `future`, or fails saying what did not happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits for what another thread sends, or fails saying what did not happen. `None` if the thread has ended without. Blocks this thread.
pub(crate) fn received<T>(what: &str, from: &Receiver<T>) -> Option<T> {
    received_by(Instant::now() + PATIENCE, what, from)
}

/// The same for several that must all have come by then.
pub(crate) fn received_by<T>(deadline: Instant, what: &str, from: &Receiver<T>) -> Option<T> {
    match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(got) => Some(got),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
