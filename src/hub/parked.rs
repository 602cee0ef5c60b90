//! Sockets that are away and may come back: what is kept of each, and what each has missed.
//!
//! Plain struct: no actor, no clock of its own; `E` is what goes along and is of no concern here. Bounded in age and number:
//! whoever left first is forgotten first. A session is had once, and by one client at a time.
//!
//! What a session has missed follows from four places in the order of events:
//!
//! ```text
//!        offset        last told            left                       now
//!  ────────┼───────────────┼──────────────────┼──────────────────────────┼──▶ serials
//!   it saw │ what was for  │ nothing of this  │ what was for its rooms   │
//!   these  │ its rooms     │ was for it       │                          │
//! ```
//! A client that saw all that it was told needs nothing of the log before it left, so a quiet one can come back however old its
//! offset is. Source: wire.md 2.6.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::replay::{Entry, Logged, Replay};
use crate::socket_io::{
    ids::{Namespace, Pid, Room, SocketId},
    recovery::{Epoch, Position},
};

/// What a socket had when it left. Plain values, so that it could be kept elsewhere or travel. Its `data` is not among them:
/// its last handlers may still change that, so it is read when it comes back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The private id that its client must show.
    pub pid: Pid,
    /// Its public id.
    pub id: SocketId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its rooms, without the one that its id names.
    pub rooms: HashSet<Room>,
    /// What `authorize` had returned for it: JSON text.
    pub authorized: Box<str>,
    /// Whose order of events its places are in.
    pub epoch: Epoch,
    /// Where its events begin.
    pub since: Position,
    /// The last event that was written to its client, as far as its connection got.
    pub last: Position,
    /// The last offset that its client was given by the instance that its session came from, if it came from one.
    pub before: Option<Box<str>>,
    /// Serial of the last event of the hub for it, whether it was written or not.
    pub told: u64,
    /// Serial of the last event before it left.
    pub left: u64,
}

impl fmt::Debug for Session {
    /// Without what `authorize` returned: there may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("namespace", &self.namespace)
            .field("last", &self.last)
            .field("told", &self.told)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Why a session cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nobody of this `pid` is away, or not in this namespace, or the session was had already.
    #[error("no such session")]
    Unknown,
    /// The offset is none that its client was given.
    #[error("an offset that was not given out")]
    Offset,
    /// Something that it has missed was forgotten.
    #[error("what it missed is no longer there")]
    Forgotten,
    /// It has missed more than can be sent at a time.
    #[error("it missed too much")]
    TooMuch,
}

/// Proves that a claim is still pursued: a session that was claimed is free again when its last one is dropped.
pub type Pursuit = Arc<()>;

impl Session {
    /// Returns what its client has missed that saw everything up to `offset` and nothing behind it, in order; without an offset
    /// it saw nothing at all.
    ///
    /// # Errors
    /// The offset is not this client's, something was forgotten, or it is more than `max_bytes`, what events take beside their own
    /// bytes included.
    pub fn missed(
        &self,
        replay: &Replay,
        offset: Option<Position>,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Logged>>, Lost> {
        let seen = offset.unwrap_or(self.since);
        if seen > self.last {
            return Err(Lost::Offset);
        }
        // Clients keep the offset of an earlier session until an event brings another.
        let seen = seen.max(self.since);
        let saw_all_of_hub = seen.serial >= self.told.max(self.last.serial);
        let needed = if saw_all_of_hub {
            self.left
        } else {
            seen.serial
        };
        if replay.forgotten() > needed {
            return Err(Lost::Forgotten);
        }
        let mut missed = Vec::new();
        let (mut num_bytes, mut num_own) = (0, 0);
        for entry in self.of(replay, seen.serial) {
            if entry.position <= seen {
                continue;
            }
            num_bytes += entry.sent_bytes();
            if num_bytes > max_bytes {
                return Err(Lost::TooMuch);
            }
            if entry.position.serial == seen.serial {
                num_own += 1;
            }
            missed.push(entry.logged());
        }
        // Of events for this client alone the log may have forgotten some although it knows all that the hub sent.
        if saw_all_of_hub && num_own < self.last.own.saturating_sub(seen.own) {
            return Err(Lost::Forgotten);
        }
        // Those for this client alone were logged later than they were sent.
        missed.sort_by_key(|logged| logged.position);
        Ok(missed)
    }

    /// Returns what of the log behind a serial is for it: what came while its client was being let in again. `None`: some of
    /// that was forgotten already.
    pub fn missed_since<'a>(
        &'a self,
        replay: &'a Replay,
        serial: u64,
    ) -> Option<impl Iterator<Item = Arc<Logged>>> {
        (replay.forgotten() <= serial).then(|| self.of(replay, serial).map(Entry::logged))
    }

    /// Returns what of the log behind a serial it has missed, unless its client saw it.
    fn of<'a>(&'a self, replay: &'a Replay, serial: u64) -> impl Iterator<Item = &'a Entry> {
        // Rooms that it joined later do not make it miss what they were sent before.
        let gap = self.told.saturating_add(1)..=self.left;
        let rooms = (&self.id, &self.rooms);
        let of = replay.behind(serial, &self.namespace, rooms, gap);
        of.filter(|entry| entry.audience.includes(&self.id, &self.rooms))
    }
}

/// When it left, and a number that tells it from others of that moment.
type Order = (Instant, u64);

#[derive(Debug)]
struct Stored<E> {
    session: Session,
    extra: E,
    order: Order,
    pursuit: Weak<()>,
}

/// Everyone who is away.
#[derive(Debug)]
pub struct Parked<E> {
    by_pid: HashMap<Pid, Stored<E>>,
    by_id: HashMap<SocketId, Pid>,
    by_age: BTreeMap<Order, Pid>,
    num_parked: u64,
    max_age: Duration,
    max_sessions: usize,
}

impl<E> Parked<E> {
    /// Returns an empty place for at most `max_sessions`, each for at most `max_age`.
    pub fn new(max_age: Duration, max_sessions: usize) -> Self {
        Self {
            by_pid: HashMap::new(),
            by_id: HashMap::new(),
            by_age: BTreeMap::new(),
            num_parked: 0,
            max_age,
            max_sessions,
        }
    }

    /// Keeps a session.
    pub fn park(&mut self, session: Session, extra: E, now: Instant) {
        self.num_parked += 1;
        let order = (now, self.num_parked);
        let pid = session.pid.clone();
        self.by_age.insert(order, pid.clone());
        self.by_id.insert(session.id.clone(), pid.clone());
        let stored = Stored {
            session,
            extra,
            order,
            pursuit: Weak::new(),
        };
        self.by_pid.insert(pid, stored);
    }

    /// Forgets who is away for too long, and whoever is too many. Returns them. One whose client is being let in is spared.
    pub fn purge(&mut self, now: Instant) -> Vec<Session> {
        let mut excess = self.by_pid.len().saturating_sub(self.max_sessions);
        let mut gone = Vec::new();
        for ((since, _), pid) in &self.by_age {
            if excess == 0 && now.saturating_duration_since(*since) <= self.max_age {
                break;
            }
            let is_free = self
                .by_pid
                .get(pid)
                .is_some_and(|stored| stored.pursuit.strong_count() == 0);
            if is_free {
                excess = excess.saturating_sub(1);
                gone.push(pid.clone());
            }
        }
        gone.iter()
            .filter_map(|pid| self.take(pid))
            .map(|(session, _)| session)
            .collect()
    }

    /// Begins to let a client in, or goes on with it. The session is nobody else's as long as the pursuit lives.
    ///
    /// # Errors
    /// There is none of this `pid` in the namespace, or another client is being let in.
    pub fn claim(
        &mut self,
        pid: &Pid,
        namespace: &Namespace,
        pursuit: &Pursuit,
    ) -> Result<(&Session, &E), Lost> {
        let stored = self.by_pid.get_mut(pid).ok_or(Lost::Unknown)?;
        let own = Arc::downgrade(pursuit);
        let is_free = stored.pursuit.strong_count() == 0 || stored.pursuit.ptr_eq(&own);
        if stored.session.namespace != *namespace || !is_free {
            return Err(Lost::Unknown);
        }
        stored.pursuit = own;
        Ok((&stored.session, &stored.extra))
    }

    /// Takes a session out.
    pub fn take(&mut self, pid: &Pid) -> Option<(Session, E)> {
        let stored = self.by_pid.remove(pid)?;
        self.by_age.remove(&stored.order);
        self.by_id.remove(&stored.session.id);
        Some((stored.session, stored.extra))
    }

    /// Returns whether a socket of this id is away.
    pub fn is_away(&self, namespace: &Namespace, id: &SocketId) -> bool {
        let stored = self.by_id.get(id).and_then(|pid| self.by_pid.get(pid));
        stored.is_some_and(|stored| stored.session.namespace == *namespace)
    }
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
