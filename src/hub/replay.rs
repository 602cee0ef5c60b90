//! What was sent lately, to be sent again to clients that come back.
//!
//! Plain struct: no actor, no clock of its own. One log for the whole instance, bounded in age, bytes and number; the oldest
//! event goes first, and whoever would need it cannot recover. An event is encoded once, offset and all: those who get it and
//! this log share the bytes, and nothing else: what is made of a message for some clients is not kept here.
//!
//! ```text
//! serial   … 14 │ 15   16   17   18 = head      15 to 18 are here, 14 and all before it are forgotten
//! ```
//! Source: wire.md 2.6.

use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    ops::RangeInclusive,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{broadcast::Target, postings::Postings};
use crate::{
    engine_io::encoded::{Encoded, MESSAGE_BYTES},
    shrink::shrink,
    socket::outbox::ITEM_BYTES,
    socket_io::{
        ids::{Namespace, Room, SocketId},
        recovery::Position,
    },
};

/// Events, and rooms that they were for, that are forgotten at a time because they are too old, about: some milliseconds. The last event
/// may exceed it.
const MAX_STEPS: usize = 10_000;

/// What an event takes beside its bytes, about: its place in a queue that grows by doubling, the message, and what is left of those
/// that were made of it.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + MESSAGE_BYTES + 64;

/// An event that can be sent again.
#[derive(Debug)]
pub struct Logged {
    /// Its place in the order of whoever gets it.
    pub position: Position,
    /// The event, its offset included.
    pub message: Arc<Encoded>,
}

/// For whom an event was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// For those whom a broadcast selected.
    Selected(Target),
    /// For one socket, whoever else may be in the room that its id names.
    One(SocketId),
}

impl Audience {
    /// Returns whether an event is for a socket of this id, which is in `rooms` besides the one that its id names.
    pub fn includes(&self, id: &SocketId, rooms: &HashSet<Room>) -> bool {
        let is_in = |room: &Room| room.as_str() == id.as_str() || rooms.contains(room);
        match self {
            Self::One(one) => one == id,
            Self::Selected(target) => {
                (target.rooms.is_empty() || target.rooms.iter().any(is_in))
                    && !target.except.iter().any(is_in)
            }
        }
    }

    fn num_rooms(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Selected(target) => target.rooms.len(),
        }
    }

    fn len_bytes(&self) -> usize {
        match self {
            Self::One(id) => id.as_str().len(),
            Self::Selected(Target { rooms, except }) => rooms
                .iter()
                .chain(except)
                .map(|room| size_of::<Room>() + room.as_str().len())
                .sum(),
        }
    }
}

/// An event in the log.
#[derive(Debug)]
pub struct Entry {
    /// The namespace.
    pub namespace: Namespace,
    /// For whom it was.
    pub audience: Audience,
    /// Its place in the order of whoever gets it.
    pub position: Position,
    /// What was sent; of this no form is ever made.
    message: Arc<Encoded>,
    /// What those have who get it now: they share what is made of it.
    shared: RefCell<Weak<Logged>>,
    at: Instant,
}

impl Entry {
    fn len_bytes(&self) -> usize {
        ENTRY_BYTES + self.audience.len_bytes() + self.message.len_bytes()
    }

    /// Returns how much memory it takes to send it to a client again. That is more than it takes in the client's backlog.
    pub fn sent_bytes(&self) -> usize {
        ITEM_BYTES + self.message.held_bytes()
    }

    /// Returns it, to be sent.
    pub fn logged(&self) -> Arc<Logged> {
        let mut shared = self.shared.borrow_mut();
        shared.upgrade().unwrap_or_else(|| {
            let logged = Arc::new(Logged {
                position: self.position,
                message: self.message.bare(),
            });
            *shared = Arc::downgrade(&logged);
            logged
        })
    }
}

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Age of the oldest event.
    pub max_age: Duration,
    /// Bytes of all, what they take beside themselves included.
    pub max_bytes: usize,
    /// Number of all.
    pub max_events: usize,
}

/// The log.
#[derive(Debug)]
pub struct Replay {
    entries: VecDeque<Entry>,
    postings: Postings,
    /// Serial of the last entry that was appended, or 0.
    head: u64,
    /// Bytes of the entries.
    len_bytes: usize,
    limits: Limits,
}

impl Replay {
    /// Returns an empty log.
    pub fn new(limits: Limits) -> Self {
        Self {
            entries: VecDeque::new(),
            postings: Postings::default(),
            head: 0,
            len_bytes: 0,
            limits,
        }
    }

    /// Returns the serial of the last event.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Returns the last serial that is not here any more; 0, if nothing was forgotten.
    pub fn forgotten(&self) -> u64 {
        self.head - self.entries.len() as u64
    }

    /// Appends an event, and forgets what has no place beside it. Its serial is one more than [`Self::head`] was.
    pub fn append(
        &mut self,
        namespace: Namespace,
        audience: Audience,
        logged: Arc<Logged>,
        now: Instant,
    ) {
        let entry = Entry {
            namespace,
            audience,
            position: logged.position,
            message: logged.message.bare(),
            shared: RefCell::new(Arc::downgrade(&logged)),
            at: now,
        };
        self.head += 1;
        self.postings
            .add(self.head, &entry.namespace, &entry.audience);
        self.len_bytes += entry.len_bytes();
        self.entries.push_back(entry);
        self.purge(now);
    }

    /// Forgets what is too much, and as much of what is too old as can be forgotten at a time. Returns whether there is more of that:
    /// another call goes on.
    pub fn purge(&mut self, now: Instant) -> bool {
        let (mut num_steps, mut is_more_left) = (0, false);
        while let Some(oldest) = self.entries.front() {
            let is_too_much = self.len_bytes + self.postings.len_bytes() > self.limits.max_bytes
                || self.entries.len() > self.limits.max_events;
            let is_too_old = now.saturating_duration_since(oldest.at) > self.limits.max_age;
            is_more_left = is_too_old && !is_too_much && num_steps >= MAX_STEPS;
            if is_more_left || !(is_too_much || is_too_old) {
                break;
            }
            num_steps += 1 + oldest.audience.num_rooms();
            self.len_bytes -= oldest.len_bytes();
            let serial = self.head - self.entries.len() as u64 + 1;
            self.postings
                .forget(serial, &oldest.namespace, &oldest.audience);
            self.entries.pop_front();
        }
        shrink(&mut self.entries);
        is_more_left
    }

    /// Returns what is here of the events behind a serial that may be for a socket; see [`Postings::of`].
    pub fn behind(
        &self,
        serial: u64,
        namespace: &Namespace,
        (id, rooms): (&SocketId, &HashSet<Room>),
        gap: RangeInclusive<u64>,
    ) -> impl Iterator<Item = &Entry> {
        let forgotten = self.forgotten();
        let serials = self.postings.of(namespace, id, rooms, serial, gap);
        serials.filter_map(move |serial| {
            let at = usize::try_from(serial.checked_sub(forgotten + 1)?).ok()?;
            self.entries.get(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay() -> Replay {
        Replay::new(Limits {
            max_age: Duration::from_secs(10),
            max_bytes: 10 * ENTRY_BYTES,
            max_events: 4,
        })
    }

    fn append(replay: &mut Replay, text: &str, now: Instant) {
        let logged = Arc::new(Logged {
            position: Position::of(replay.head() + 1),
            message: Encoded::new(text, &[]),
        });
        replay.append(
            "/a".into(),
            Audience::Selected(Target::default()),
            logged,
            now,
        );
    }

    fn serials(replay: &Replay, behind: u64) -> Vec<u64> {
        let (me, rooms) = (SocketId::from("me"), HashSet::new());
        replay
            .behind(behind, &"/a".into(), (&me, &rooms), u64::MAX..=u64::MAX)
            .map(|entry| {
                assert_eq!(entry.logged().position, entry.position);
                entry.position.serial
            })
            .collect()
    }

    #[test]
    fn what_came_behind_a_serial_is_found_by_it() {
        let now = Instant::now();
        let mut replay = replay();
        assert_eq!((replay.head(), replay.forgotten()), (0, 0));
        assert!(serials(&replay, 0).is_empty());
        for _ in 0..3 {
            append(&mut replay, "4", now);
        }
        assert_eq!(serials(&replay, 0), [1, 2, 3]);
        assert_eq!(serials(&replay, 2), [3]);
        assert!(serials(&replay, 3).is_empty() && serials(&replay, u64::MAX).is_empty());
    }

    #[test]
    fn the_oldest_goes_first_by_number_bytes_and_age() {
        let now = Instant::now();
        let mut replay = replay();
        for _ in 0..6 {
            append(&mut replay, "4", now);
        }
        assert_eq!((replay.head(), replay.forgotten()), (6, 2));
        assert_eq!(serials(&replay, 0), [3, 4, 5, 6]);
        let large = "4".repeat(8 * ENTRY_BYTES);
        append(&mut replay, &large, now + Duration::from_secs(5));
        assert_eq!(
            serials(&replay, 0),
            [7],
            "two of the small ones are too many beside it"
        );
        append(&mut replay, "4", now + Duration::from_secs(6));
        assert!(serials(&replay, 0).len() <= 2 && replay.len_bytes <= 10 * ENTRY_BYTES);
        replay.purge(now + Duration::from_secs(20));
        assert_eq!((replay.forgotten(), replay.len_bytes), (8, 0));
        assert_eq!(replay.postings.len_bytes(), 0);
        append(&mut replay, &"4".repeat(20 * ENTRY_BYTES), now);
        assert_eq!(
            serials(&replay, 0),
            [0; 0],
            "one that is over the limit alone is not kept"
        );
        assert_eq!((replay.head(), replay.len_bytes), (9, 0));
    }

    /// A bug: what came in a burst was forgotten in one turn of the hub, when its time was over.
    #[test]
    fn of_what_is_too_old_only_so_much_is_forgotten_at_a_time() {
        let (start, num) = (Instant::now(), MAX_STEPS as u64);
        let mut replay = Replay::new(Limits {
            max_age: Duration::from_secs(10),
            max_bytes: usize::MAX,
            max_events: 3 * MAX_STEPS,
        });
        for _ in 0..2 * num + 5 {
            append(&mut replay, "4", start);
        }
        assert!(!replay.purge(start));
        let late = start + Duration::from_secs(11);
        for (forgotten, is_more_left) in [(num, true), (2 * num, true), (2 * num + 5, false)] {
            assert_eq!(replay.purge(late), is_more_left);
            assert_eq!(replay.forgotten(), forgotten);
        }
        assert!(replay.entries.capacity() < 100, "it keeps no memory");
        // What is too much goes at once.
        for _ in 0..2 * num {
            append(&mut replay, "4", start);
        }
        replay.limits.max_events = 5;
        append(&mut replay, "4", start);
        assert_eq!(replay.entries.len(), 5);
    }

    #[test]
    fn who_gets_an_event_at_a_time_shares_what_is_made_of_it_and_the_log_keeps_nothing_of_that() {
        let mut replay = replay();
        append(&mut replay, "4", Instant::now());
        let entry = &replay.entries[0];
        let (one, other) = (entry.logged(), entry.logged());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one.message, &entry.message));
        let frames = one.message.frames().as_ptr();
        drop((one, other));
        assert_eq!(entry.shared.borrow().strong_count(), 0);
        assert_eq!(entry.logged().message.frames().as_ptr(), frames);
    }

    #[test]
    fn an_event_is_for_whoever_would_have_been_selected() {
        let of = |rooms: &[&str], except: &[&str]| {
            Audience::Selected(Target {
                rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
                except: except.iter().map(|room| Room::from(*room)).collect(),
            })
        };
        let (id, rooms) = (SocketId::from("me"), HashSet::from([Room::from("red")]));
        for (audience, expected) in [
            (of(&[], &[]), true),
            (of(&["red"], &[]), true),
            (of(&["blue", "red"], &[]), true),
            (of(&["me"], &[]), true),
            (of(&["blue"], &[]), false),
            (of(&[], &["red"]), false),
            (of(&["red"], &["me"]), false),
            (of(&["red"], &["blue"]), true),
            (Audience::One(SocketId::from("me")), true),
            (Audience::One(SocketId::from("red")), false),
        ] {
            assert_eq!(audience.includes(&id, &rooms), expected, "{audience:?}");
        }
    }
}
