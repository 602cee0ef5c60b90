//! How the bridge is: for `/readyz`, for the log, for tests.
//!
//! Counts only; it decides nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Whether other instances can be reached. JSON: `{"state":"down","reason":"…","advice":"…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum BusStatus {
    /// The first attempt has not ended yet.
    #[default]
    Connecting,
    /// Both connections stand and every subscription is in force.
    Up,
    /// Other instances cannot be reached; it is tried again and again.
    Down {
        /// Why, without address or password.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
}

/// What the bridge has done since it began. Shared, cheap, never reset.
#[derive(Debug, Default)]
pub struct BridgeStats {
    pub(super) num_published: AtomicU64,
    pub(super) num_dropped: AtomicU64,
    pub(super) num_reinjected: AtomicU64,
    pub(super) num_own_echoes: AtomicU64,
    pub(super) num_foreign: AtomicU64,
    pub(super) num_malformed: AtomicU64,
    pub(super) num_for_nobody: AtomicU64,
    pub(super) num_unasked: AtomicU64,
    pub(super) num_unanswered: AtomicU64,
    pub(super) num_links: AtomicU64,
}

/// [`BridgeStats`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatsSnapshot {
    /// Messages that Redis has taken.
    pub num_published: u64,
    /// Messages that were lost on their way out: overflow, age, refused, or under way when a connection broke.
    pub num_dropped: u64,
    /// Broadcasts and other commands, handed to the hub.
    pub num_reinjected: u64,
    /// Our own messages, come back.
    pub num_own_echoes: u64,
    /// Messages for a namespace that is not the one subscribed to.
    pub num_foreign: u64,
    /// Messages that could not be read.
    pub num_malformed: u64,
    /// Broadcasts that nobody here could have received, and that were not read.
    pub num_for_nobody: u64,
    /// Answers that nobody here waited for.
    pub num_unasked: u64,
    /// Questions of others that were not answered, because too many were being answered; events among them reached their clients.
    pub num_unanswered: u64,
    /// How often a connection has been established.
    pub num_links: u64,
}

impl BridgeStats {
    /// Returns the counts as they are now.
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            num_published: self.num_published.load(Relaxed),
            num_dropped: self.num_dropped.load(Relaxed),
            num_reinjected: self.num_reinjected.load(Relaxed),
            num_own_echoes: self.num_own_echoes.load(Relaxed),
            num_foreign: self.num_foreign.load(Relaxed),
            num_malformed: self.num_malformed.load(Relaxed),
            num_for_nobody: self.num_for_nobody.load(Relaxed),
            num_unasked: self.num_unasked.load(Relaxed),
            num_unanswered: self.num_unanswered.load(Relaxed),
            num_links: self.num_links.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_reads_well_as_json() {
        for (status, json) in [
            (BusStatus::Connecting, r#"{"state":"connecting"}"#),
            (BusStatus::Up, r#"{"state":"up"}"#),
            (
                BusStatus::Down {
                    reason: "why".into(),
                    advice: "wait",
                },
                r#"{"state":"down","reason":"why","advice":"wait"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&status).unwrap(), json);
        }
    }
}
