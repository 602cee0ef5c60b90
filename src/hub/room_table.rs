//! Rooms that have members here, for an adapter that gives rooms channels of their own.
//!
//! A table that the hub changes and the bridge follows; it exists only if the adapter wants it. Who follows takes what has
//! changed since it looked last; if that is too much to note, or nobody looked yet, it is told to look at everything. So
//! memory is bounded by the rooms there are and the changes noted, however rooms come and go while Redis is away.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    changes::{Changes, Named},
    shrink::shrink,
    socket_io::ids::{Namespace, Room},
};

/// Which rooms are in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those that no socket of this instance is named by.
    Public,
    /// All, those that sockets are named by included.
    All,
}

/// The table.
#[derive(Debug)]
pub struct RoomTable {
    listed: Listed,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<Namespace, HashSet<Room>>,
    /// Which rooms came or went.
    changes: Changes<(Namespace, Room)>,
}

impl State {
    fn has(&self, namespace: &Namespace, room: &Room) -> bool {
        self.rooms
            .get(namespace)
            .is_some_and(|rooms| rooms.contains(room))
    }
}

impl Named for (Namespace, Room) {
    fn len_bytes(&self) -> usize {
        self.0.as_str().len() + self.1.as_str().len()
    }
}

/// What whoever follows the table is told.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These rooms came (true) or went (false) since it looked last.
    Some(Vec<(Namespace, Room, bool)>),
    /// These are all rooms that there are.
    All(HashSet<(Namespace, Room)>),
}

impl RoomTable {
    /// Returns an empty table.
    pub fn new(listed: Listed) -> Self {
        Self {
            listed,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Returns which rooms are in it.
    pub fn listed(&self) -> Listed {
        self.listed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics in there; if it did, the table would still be one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a room in, or takes it out. From the hub.
    pub(crate) fn set(&self, namespace: &Namespace, room: &Room, is_there: bool) {
        let mut state = self.lock();
        if state.has(namespace, room) == is_there {
            return;
        }
        if is_there {
            let rooms = state.rooms.entry(namespace.clone()).or_default();
            rooms.insert(room.clone());
        } else if let Some(rooms) = state.rooms.get_mut(namespace) {
            rooms.remove(room);
            shrink(rooms);
            if rooms.is_empty() {
                state.rooms.remove(namespace);
                shrink(&mut state.rooms);
            }
        }
        state.changes.note(&(namespace.clone(), room.clone()));
        drop(state);
        self.changed.notify_one();
    }

    /// Returns all rooms, and notes from now on what changes.
    pub fn all(&self) -> HashSet<(Namespace, Room)> {
        let mut state = self.lock();
        state.changes.begin();
        let rooms = state.rooms.iter();
        rooms
            .flat_map(|(namespace, rooms)| {
                rooms.iter().map(|room| (namespace.clone(), room.clone()))
            })
            .collect()
    }

    /// Returns what has changed since the last call of this or of [`Self::all`].
    pub fn news(&self) -> News {
        let mut state = self.lock();
        let Some(changed) = state.changes.take() else {
            drop(state);
            return News::All(self.all());
        };
        let told = changed.into_iter().map(|(namespace, room)| {
            let is_there = state.has(&namespace, &room);
            (namespace, room, is_there)
        });
        News::Some(told.collect())
    }

    /// Waits until something has changed since the last call. For one waiter; may be dropped while it waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::MAX_CHANGES;

    /// A bug: it kept what it had at its largest.
    #[test]
    fn it_gives_its_room_back_while_something_is_left_in_it() {
        let table = RoomTable::new(Listed::All);
        let set = |n: u32, is_there| {
            let room = Room::from(n.to_string());
            table.set(&"/chat".into(), &room, is_there);
            table.set(&format!("/{n}").into(), &room, is_there);
        };
        (0..10_000).for_each(|n| set(n, true));
        (1..10_000).for_each(|n| set(n, false));
        let state = table.lock();
        let room = [
            state.rooms.capacity(),
            state.rooms[&Namespace::from("/chat")].capacity(),
        ];
        assert!(room.iter().all(|capacity| *capacity < 100), "{room:?}");
    }

    #[test]
    fn who_follows_is_told_what_came_and_went() {
        let table = RoomTable::new(Listed::All);
        let chat = Namespace::from("/chat");
        let room = |name: &str| Room::from(name);
        table.set(&chat, &room("red"), true);
        let all = HashSet::from([(chat.clone(), room("red"))]);
        assert_eq!(table.news(), News::All(all), "nobody looked before");
        assert_eq!(table.news(), News::Some(vec![]));
        table.set(&chat, &room("blue"), true);
        table.set(&chat, &room("blue"), true);
        assert_eq!(
            table.news(),
            News::Some(vec![(chat.clone(), room("blue"), true)])
        );
        table.set(&chat, &room("red"), false);
        table.set(&chat, &room("red"), true);
        table.set(&chat, &room("red"), false);
        assert_eq!(
            table.news(),
            News::Some(vec![(chat.clone(), room("red"), false)]),
            "once, as it is now"
        );
        table.set(&chat, &room("blue"), false);
        assert!(table.all().is_empty());
        assert!(table.lock().rooms.is_empty());
    }

    #[test]
    fn rooms_that_come_and_go_unheard_do_not_fill_the_memory() {
        let table = RoomTable::new(Listed::Public);
        let chat = Namespace::from("/chat");
        table.all();
        for n in 0..=MAX_CHANGES {
            let room = Room::from(n.to_string());
            table.set(&chat, &room, true);
            table.set(&chat, &room, false);
        }
        assert_eq!(table.news(), News::All(HashSet::new()));
    }
}
