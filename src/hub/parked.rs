//! Sockets that are away and may come back: what is kept of each, and what each has missed.
//!
//! Plain struct: no actor, no clock of its own; `E` is what goes along and is of no concern here. Bounded in age, number and bytes:
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
    ops::Bound,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::replay::{Entry, Logged, Replay};
use crate::{
    shrink::shrink,
    socket_io::{
        ids::{Namespace, Pid, Room, SocketId},
        recovery::{Epoch, Position},
    },
};

/// What a session takes beside its texts, about: its place in several tables, and its socket's record.
const SESSION_BYTES: usize = 1536;

/// What a room of it takes beside its name, about: its places in the session and among the rooms that are of interest.
const ROOM_BYTES: usize = 256;

/// Rooms that are given up at a time, about: two milliseconds. The last session may exceed it.
const MAX_STEPS: usize = 10_000;

/// Rooms that are as much work as a session is beside its own.
const SESSION_STEPS: usize = 8;

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
    /// Returns how much memory it takes, about.
    fn len_bytes(&self) -> usize {
        let rooms = self.rooms.iter();
        let rooms: usize = rooms.map(|room| ROOM_BYTES + room.as_str().len()).sum();
        let before = self.before.as_deref().map_or(0, str::len);
        SESSION_BYTES + self.authorized.len() + before + rooms
    }

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
    /// Of all that is here and does not change.
    len_bytes: usize,
    order: Order,
    pursuit: Weak<()>,
}

impl<E> Stored<E> {
    /// Returns whether no client is being let in to it.
    fn is_free(&self) -> bool {
        self.pursuit.strong_count() == 0
    }
}

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long each is kept.
    pub max_age: Duration,
    /// Number of all.
    pub max_sessions: usize,
    /// Bytes of all, what they take beside themselves included.
    pub max_bytes: usize,
}

/// Who is forgotten.
#[derive(Debug)]
pub struct Purged {
    /// These are.
    pub sessions: Vec<Session>,
    /// More are to be forgotten than can be at a time: another call goes on.
    pub is_more_left: bool,
}

/// Everyone who is away.
#[derive(Debug)]
pub struct Parked<E> {
    by_pid: HashMap<Pid, Stored<E>>,
    by_id: HashMap<SocketId, Pid>,
    by_age: BTreeMap<Order, Pid>,
    num_parked: u64,
    /// Bytes of all, without `growing`.
    len_bytes: usize,
    /// Bytes of what goes along that change by themselves.
    growing: Arc<AtomicUsize>,
    limits: Limits,
}

impl<E> Parked<E> {
    /// Returns an empty place. `growing` says how many bytes there are of what goes along with sessions and changes by itself; whoever puts
    /// it there takes it out when the session goes.
    pub fn new(limits: Limits, growing: Arc<AtomicUsize>) -> Self {
        Self {
            by_pid: HashMap::new(),
            by_id: HashMap::new(),
            by_age: BTreeMap::new(),
            num_parked: 0,
            len_bytes: 0,
            growing,
            limits,
        }
    }

    /// Keeps a session, and what goes along, which takes `extra_bytes` beside what changes.
    pub fn park(&mut self, session: Session, extra: E, extra_bytes: usize, now: Instant) {
        self.num_parked += 1;
        let order = (now, self.num_parked);
        let pid = session.pid.clone();
        self.by_age.insert(order, pid.clone());
        self.by_id.insert(session.id.clone(), pid.clone());
        let len_bytes = session.len_bytes() + extra_bytes;
        self.len_bytes += len_bytes;
        let stored = Stored {
            session,
            extra,
            len_bytes,
            order,
            pursuit: Weak::new(),
        };
        self.by_pid.insert(pid, stored);
    }

    /// Forgets who is away for too long, and whoever is too many or takes too much, as far as can be done at a time. One whose client
    /// is being let in is spared.
    pub fn purge(&mut self, now: Instant) -> Purged {
        let Limits {
            max_age,
            max_sessions,
            max_bytes,
        } = self.limits;
        let (mut sessions, mut num_steps) = (Vec::new(), 0);
        let mut is_more_left = false;
        let mut looked_at = Bound::Unbounded;
        while let Some((order, pid)) = self.by_age.range((looked_at, Bound::Unbounded)).next() {
            let (since, _) = *order;
            // Looked at anew each time: with a session goes what went along with it.
            let is_over = self.by_pid.len() > max_sessions
                || self.len_bytes() > max_bytes
                || now.saturating_duration_since(since) > max_age;
            is_more_left = is_over && num_steps >= MAX_STEPS;
            if !is_over || is_more_left {
                break;
            }
            looked_at = Bound::Excluded(*order);
            if self.by_pid.get(pid).is_some_and(Stored::is_free)
                && let Some((session, _)) = self.take(&pid.clone())
            {
                num_steps += SESSION_STEPS + session.rooms.len();
                sessions.push(session);
            }
        }
        Purged {
            sessions,
            is_more_left,
        }
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes + self.growing.load(Relaxed)
    }

    /// Begins to let a client in, or goes on with it. The session is nobody else's as long as the pursuit lives.
    ///
    /// # Errors
    /// There is none of this `pid` in the namespace, it is too old, or another client is being let in.
    pub fn claim(
        &mut self,
        pid: &Pid,
        namespace: &Namespace,
        pursuit: &Pursuit,
        now: Instant,
    ) -> Result<(&Session, &E), Lost> {
        let stored = self.by_pid.get_mut(pid).ok_or(Lost::Unknown)?;
        let own = Arc::downgrade(pursuit);
        let (since, _) = stored.order;
        let is_too_old = now.saturating_duration_since(since) > self.limits.max_age;
        let is_had = stored.pursuit.ptr_eq(&own) || (stored.is_free() && !is_too_old);
        if stored.session.namespace != *namespace || !is_had {
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
        self.len_bytes -= stored.len_bytes;
        shrink(&mut self.by_pid);
        shrink(&mut self.by_id);
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
