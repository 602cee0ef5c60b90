//! The other instances: who is there, since when, and how loaded, as they tell one another by beats.
//!
//! A beat goes out every [`BEAT_INTERVAL`] on the channel that all instances hear and Node never does; `redis_bridge` carries it.
//! Whoever is not heard any more is gone in less than 10 s, and whoever stops in order at once. A newcomer says hello, and all
//! others answer within [`ANSWER_DELAY`], once for all newcomers of that time.
//!
//! What it is for: the names of those that do not answer a question, the certainty that all who heard it are ours, polling
//! requests for sessions of instances that are gone or were away, and people (`/readyz`). Anyone who may publish may say that
//! somebody lives, or does not, so it decides nothing else.
//!
//! | file | |
//! | --- | --- |
//! | `wire` | what crosses: pure |
//! | `table` | who is there, and for how long without a word |

mod table;
pub mod wire;

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

pub use self::table::{BEAT_INTERVAL, LIFETIME, MAX_PEERS};
use self::{
    table::{Peer, Table, Taken},
    wire::{Beat, Said},
};
use crate::{adapter::uid::Uid, engine_io::sid::InstanceId, socket_io::ids::Namespace};

/// How long a hello waits for its answer, so that one answers all that come meanwhile.
pub const ANSWER_DELAY: Duration = Duration::from_millis(250);
/// Others that [`Peers::list`] tells of one by one.
pub const MAX_LISTED: usize = 64;

/// Returns the sessions of this instance.
type CountSessions = dyn Fn() -> usize + Send + Sync;

/// What one instance is called, and what it knows of others. Shared: the bridge fills it, everyone may ask.
pub struct Peers {
    uid: Uid,
    instance: InstanceId,
    began: Instant,
    table: Mutex<Table>,
    count_sessions: OnceLock<Box<CountSessions>>,
    /// Rings when somebody said hello.
    hailed: Notify,
    has_left: AtomicBool,
    has_refused: AtomicBool,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// The other instances, for people. JSON: `{"num":1,"list":[{…}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerList {
    /// How many live.
    pub num: usize,
    /// The first [`MAX_LISTED`] of them, by name.
    pub list: Vec<PeerInfo>,
}

/// What is known of another instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerInfo {
    /// Who it is.
    pub instance: String,
    /// The version of its program.
    pub release: String,
    /// How long it has run, in whole seconds.
    pub uptime_s: u64,
    /// How long ago it was last heard, in milliseconds.
    pub heard_ms_ago: u64,
    /// Its load: clients' sessions.
    pub sessions: u64,
}

impl Peers {
    /// Returns what an instance knows at its start, which is nobody. All servers call it `uid`, those of Sockhop `instance`.
    pub fn new(instance: InstanceId, uid: Uid) -> Self {
        let began = Instant::now();
        Self {
            uid,
            instance,
            began,
            table: Mutex::new(Table::new(instance, began)),
            count_sessions: OnceLock::new(),
            hailed: Notify::new(),
            has_left: AtomicBool::new(false),
            has_refused: AtomicBool::new(false),
        }
    }

    /// Returns what all servers, Node's included, call this instance.
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// Returns what instances of Sockhop call this one.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Says where the load is to be looked up that others are told. Only the first call counts.
    pub fn count_sessions(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        _ = self.count_sessions.set(Box::new(count));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics in there; if it did, the table would still be one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for the bridge ----

    /// Returns a sign of life, in which this instance hears requests of `namespaces`; nothing once it has said good-bye.
    pub(crate) fn beat(&self, namespaces: Vec<Namespace>, is_hello: bool) -> Option<Bytes> {
        if self.has_left.load(Relaxed) {
            return None;
        }
        let num_sessions = self.count_sessions.get().map_or(0, |count| count());
        Some(wire::encode(&Said::Beat(Beat {
            instance: self.instance,
            uid: self.uid.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.began.elapsed(),
            num_sessions: num_sessions as u64,
            is_hello,
            namespaces: Some(namespaces),
        })))
    }

    /// Returns the last word of this instance.
    pub(crate) fn bye(&self) -> Bytes {
        self.has_left.store(true, Relaxed);
        wire::encode(&Said::Bye(self.instance))
    }

    /// Takes what an instance, perhaps this one, said of itself.
    pub(crate) fn take(&self, payload: &Bytes) {
        let said = match wire::decode(payload) {
            Ok(said) => said,
            // An instance of another release, or nobody: without it we ask Redis, as where Node is.
            Err(err) => {
                log::debug!(
                    "skipped a word of {} bytes of an instance: {err}",
                    payload.len()
                );
                return;
            }
        };
        match self.lock().take(Instant::now(), said) {
            Taken::Hails => self.hailed.notify_one(),
            // Once: whoever floods us must not flood the log.
            Taken::TooMany if !self.has_refused.swap(true, Relaxed) => {
                log::warn!("{MAX_PEERS} other instances are known: one more is not taken in");
            }
            Taken::Own | Taken::Lives | Taken::Left | Taken::TooMany => {}
        }
    }

    /// Waits until somebody says hello. For one waiter; may be dropped while it waits.
    pub(crate) async fn hailed(&self) {
        self.hailed.notified().await;
    }

    /// Forgets all that live: nobody can be heard.
    pub(crate) fn lose_all(&self) {
        self.lock().lose_all();
    }

    /// Returns who it is that all servers call `uid`, if it is an instance of Sockhop that lives.
    pub(crate) fn named(&self, uid: &str) -> Option<InstanceId> {
        self.lock().named(uid)
    }

    /// Returns who should hear a request of `namespace`, by what they last said.
    pub(crate) fn hearing(&self, namespace: &Namespace) -> Vec<InstanceId> {
        self.lock().hearing(namespace)
    }

    // ---- for all ----

    /// Returns whether an instance lives and has not missed a beat yet.
    pub fn is_fresh(&self, instance: InstanceId) -> bool {
        let heard = self.lock().heard(instance);
        heard.is_some_and(|heard| heard.elapsed() <= BEAT_INTERVAL + ANSWER_DELAY)
    }

    /// Returns when an instance that lives last said hello, if that was heard: it began to listen shortly before, and need not have
    /// heard what it was sent earlier.
    pub fn hailed_at(&self, instance: InstanceId) -> Option<Instant> {
        self.lock().hailed(instance)
    }

    /// Returns whether an instance was here and is gone. Of one that nobody has heard of, this says nothing.
    pub fn is_gone(&self, instance: InstanceId) -> bool {
        self.lock().is_gone(instance)
    }

    /// Returns the others that live, for people.
    pub fn list(&self) -> PeerList {
        let now = Instant::now();
        let info = |peer: &Peer| {
            let ago = now.saturating_duration_since(peer.heard);
            PeerInfo {
                instance: peer.beat.instance.as_str().to_owned(),
                release: peer.beat.release.clone(),
                uptime_s: peer.beat.uptime.saturating_add(ago).as_secs(),
                heard_ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
                sessions: peer.beat.num_sessions,
            }
        };
        let mut list: Vec<_> = self.lock().alive().map(info).collect();
        let num = list.len();
        list.sort_unstable_by(|one, other| one.instance.cmp(&other.instance));
        list.truncate(MAX_LISTED);
        PeerList { num, list }
    }
}
