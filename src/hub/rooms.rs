//! Membership: namespace → room → sockets.
//!
//! Plain struct: no actor, no clock, no bytes. `H` is whatever reaches a socket. Joining, leaving and removing cost the
//! same however many rooms and sockets there are or were; a selection costs what it selects.
//!
//! A socket is alone in the room that its id names. That room is not stored: it is the id itself.
//!
//! Places may be kept for sockets that are away and may come back: nothing selects those, but their rooms are there for
//! whoever asks whether an event is of interest.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    broadcast::Target,
    members::Members,
    room_table::{Listed, RoomTable},
};
use crate::{
    config::DEFAULT_MAX_ROOMS_PER_SOCKET,
    shrink::shrink,
    socket_io::ids::{Namespace, Room, SocketId},
};

/// The socket is in too many rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("socket is in {limit} rooms already")]
pub struct TooManyRooms {
    /// How many it may be in, its own not counted.
    pub limit: usize,
}

/// Bytes of a name for which a room counts once. A longer name counts as several rooms, or whoever chooses the names could fill
/// the memory with few of them.
const NAME_BYTES: usize = 256;

/// Returns as how many rooms one counts.
fn weight(room: &Room) -> usize {
    1 + room.as_str().len() / NAME_BYTES
}

/// A socket in its namespace.
#[derive(Debug)]
pub struct Member<H> {
    id: SocketId,
    rooms: HashSet<Room>,
    /// Of all its rooms together.
    weight: usize,
    handle: H,
}

impl<H> Member<H> {
    /// Returns its id.
    pub fn id(&self) -> &SocketId {
        &self.id
    }

    /// Returns what reaches it.
    pub fn handle(&self) -> &H {
        &self.handle
    }

    /// Returns its rooms, first the one that its id names.
    pub fn rooms(&self) -> impl Iterator<Item = Room> {
        std::iter::once(self.id.room()).chain(self.rooms.iter().cloned())
    }
}

#[derive(Debug)]
struct NamespaceRooms<H> {
    members: Members<Member<H>>,
    by_id: HashMap<SocketId, usize>,
    rooms: HashMap<Room, HashSet<usize>>,
    kept: KeptPlaces,
}

/// Of sockets that are away.
#[derive(Debug, Default)]
struct KeptPlaces {
    ids: HashSet<SocketId>,
    /// How many of them were in each room, the rooms that their ids name not counted.
    rooms: HashMap<Room, usize>,
}

impl KeptPlaces {
    fn is_in(&self, room: &Room) -> bool {
        self.rooms.contains_key(room) || self.ids.contains(room.as_str())
    }

    fn forget(&mut self, id: &SocketId, rooms: &HashSet<Room>) {
        self.ids.remove(id);
        shrink(&mut self.ids);
        for room in rooms {
            if let Some(num) = self.rooms.get_mut(room) {
                *num -= 1;
                if *num == 0 {
                    self.rooms.remove(room);
                    shrink(&mut self.rooms);
                }
            }
        }
    }
}

impl<H> Default for NamespaceRooms<H> {
    fn default() -> Self {
        Self {
            members: Members::default(),
            by_id: HashMap::new(),
            rooms: HashMap::new(),
            kept: KeptPlaces::default(),
        }
    }
}

/// Everyone who is connected to this instance.
#[derive(Debug)]
pub struct Rooms<H> {
    namespaces: HashMap<Namespace, NamespaceRooms<H>>,
    max_rooms_per_socket: usize,
    /// Told of rooms whose first member came or whose last one left, if anybody wants to know.
    table: Option<Arc<RoomTable>>,
}

impl<H> Default for Rooms<H> {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
            max_rooms_per_socket: DEFAULT_MAX_ROOMS_PER_SOCKET,
            table: None,
        }
    }
}

impl<H> Rooms<H> {
    /// Keeps `table` up to date from now on. Before the first socket.
    pub fn list_in(&mut self, table: Arc<RoomTable>) {
        self.table = Some(table);
    }

    /// Lets a socket be in at most `max_rooms_per_socket` rooms, its own not counted. Before the first socket.
    pub fn limit_rooms(&mut self, max_rooms_per_socket: usize) {
        self.max_rooms_per_socket = max_rooms_per_socket;
    }

    /// Returns whether a socket may be in all of these rooms.
    pub fn may_be_in(&self, rooms: &HashSet<Room>) -> bool {
        rooms.iter().map(weight).sum::<usize>() <= self.max_rooms_per_socket
    }

    /// Brings the table up to date about one room.
    fn tell(&self, namespace: &Namespace, room: &Room) {
        let Some(table) = &self.table else { return };
        let is_listed = self.namespaces.get(namespace).is_some_and(|rooms| {
            let kept = &rooms.kept;
            let is_private =
                rooms.by_id.contains_key(room.as_str()) || kept.ids.contains(room.as_str());
            let is_public = rooms.rooms.contains_key(room) || kept.rooms.contains_key(room);
            match table.listed() {
                Listed::Public => is_public && !is_private,
                Listed::All => is_public || is_private,
            }
        });
        table.set(namespace, room, is_listed);
    }

    /// Brings the table up to date about the room that an id names, whose socket came or went.
    fn tell_of_private(&self, namespace: &Namespace, id: &SocketId) {
        let is_affected = self.table.as_ref().is_some_and(|table| {
            table.listed() == Listed::All
                || self.namespaces.get(namespace).is_some_and(|rooms| {
                    rooms.rooms.contains_key(id.as_str())
                        || rooms.kept.rooms.contains_key(id.as_str())
                })
        });
        if is_affected {
            self.tell(namespace, &id.room());
        }
    }

    /// Adds a socket. If the id is there already, its handle is replaced and its rooms are kept. Returns whether it is the
    /// namespace's only one, those that are away counted.
    pub fn insert(&mut self, namespace: &Namespace, id: SocketId, handle: H) -> bool {
        let rooms = self.namespaces.entry(namespace.clone()).or_default();
        match rooms
            .by_id
            .get(&id)
            .and_then(|key| rooms.members.get_mut(*key))
        {
            Some(member) => member.handle = handle,
            None => {
                let member = Member {
                    id: id.clone(),
                    rooms: HashSet::new(),
                    weight: 0,
                    handle,
                };
                let key = rooms.members.insert(member);
                rooms.by_id.insert(id.clone(), key);
            }
        }
        let is_first = rooms.members.len() == 1 && rooms.kept.ids.is_empty();
        self.tell_of_private(namespace, &id);
        is_first
    }

    /// Removes a socket from its namespace and all of its rooms. Returns whether it was the namespace's last one, those that
    /// are away counted.
    pub fn remove(&mut self, namespace: &Namespace, id: &SocketId) -> bool {
        let Some(rooms) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let Some(key) = rooms.by_id.remove(id) else {
            return false;
        };
        let Some(Member {
            rooms: mut left, ..
        }) = rooms.members.remove(key)
        else {
            return false;
        };
        shrink(&mut rooms.by_id);
        left.retain(|room| rooms.forget(room, key));
        let was_last = rooms.is_empty();
        if was_last {
            self.close(namespace);
        }
        for room in &left {
            self.tell(namespace, room);
        }
        self.tell_of_private(namespace, id);
        was_last
    }

    /// Takes a socket out, and keeps its place. Returns what reached it, and its rooms, the one that its id names not among
    /// them. Its place is kept until [`Self::come_back`] or [`Self::give_up`] is called with the same rooms.
    pub fn go_away(&mut self, namespace: &Namespace, id: &SocketId) -> Option<(H, HashSet<Room>)> {
        let rooms = self.namespaces.get_mut(namespace)?;
        let key = rooms.by_id.remove(id)?;
        let Member {
            rooms: of_it,
            handle,
            ..
        } = rooms.members.remove(key)?;
        shrink(&mut rooms.by_id);
        rooms.kept.ids.insert(id.clone());
        for room in &of_it {
            rooms.forget(room, key);
            *rooms.kept.rooms.entry(room.clone()).or_default() += 1;
        }
        Some((handle, of_it))
    }

    /// Adds a socket in the place that was kept for it.
    pub fn come_back(
        &mut self,
        namespace: &Namespace,
        id: SocketId,
        rooms: HashSet<Room>,
        handle: H,
    ) {
        let all = self.namespaces.entry(namespace.clone()).or_default();
        all.kept.forget(&id, &rooms);
        let key = all.members.insert(Member {
            id: id.clone(),
            rooms: HashSet::new(),
            weight: rooms.iter().map(weight).sum(),
            handle,
        });
        all.by_id.insert(id, key);
        for room in &rooms {
            all.rooms.entry(room.clone()).or_default().insert(key);
        }
        if let Some(member) = all.members.get_mut(key) {
            member.rooms = rooms;
        }
    }

    /// Gives up the place of a socket that does not come back. Returns whether it was the namespace's last one.
    pub fn give_up(&mut self, namespace: &Namespace, id: &SocketId, rooms: &HashSet<Room>) -> bool {
        let Some(all) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        all.kept.forget(id, rooms);
        let was_last = all.is_empty();
        if was_last {
            self.close(namespace);
        }
        for room in rooms {
            self.tell(namespace, room);
        }
        self.tell_of_private(namespace, id);
        was_last
    }

    fn close(&mut self, namespace: &Namespace) {
        self.namespaces.remove(namespace);
        shrink(&mut self.namespaces);
    }

    /// Returns whether `target` might select a socket that is away, were it here; exceptions are not looked at.
    pub fn may_be_missed(&self, namespace: &Namespace, target: &Target) -> bool {
        self.namespaces.get(namespace).is_some_and(|rooms| {
            let kept = &rooms.kept;
            !kept.ids.is_empty()
                && (target.rooms.is_empty() || target.rooms.iter().any(|room| kept.is_in(room)))
        })
    }

    /// Returns what reaches a socket.
    pub fn get(&self, namespace: &Namespace, id: &SocketId) -> Option<&H> {
        let rooms = self.namespaces.get(namespace)?;
        let member = rooms.members.get(*rooms.by_id.get(id)?)?;
        Some(&member.handle)
    }

    /// Puts a socket into a room. A socket that is gone is no error: it left meanwhile.
    ///
    /// # Errors
    /// The socket is in as many rooms as it may be.
    pub fn join(
        &mut self,
        namespace: &Namespace,
        id: &SocketId,
        room: Room,
    ) -> Result<(), TooManyRooms> {
        let limit = self.max_rooms_per_socket;
        let Some((rooms, key)) = self.find(namespace, id) else {
            return Ok(());
        };
        let Some(member) = rooms.members.get_mut(key) else {
            return Ok(());
        };
        if room.as_str() == id.as_str() || member.rooms.contains(&room) {
            return Ok(());
        }
        let weight = member.weight + weight(&room);
        if weight > limit {
            return Err(TooManyRooms { limit });
        }
        member.weight = weight;
        member.rooms.insert(room.clone());
        let members = rooms.rooms.entry(room.clone()).or_default();
        members.insert(key);
        if members.len() == 1 {
            self.tell(namespace, &room);
        }
        Ok(())
    }

    /// Takes a socket out of a room.
    pub fn leave(&mut self, namespace: &Namespace, id: &SocketId, room: &Room) {
        let Some((rooms, key)) = self.find(namespace, id) else {
            return;
        };
        let was_in = rooms.members.get_mut(key).is_some_and(|member| {
            let was_in = member.rooms.remove(room);
            shrink(&mut member.rooms);
            member.weight -= if was_in { weight(room) } else { 0 };
            was_in
        });
        if was_in && rooms.forget(room, key) {
            self.tell(namespace, room);
        }
    }

    /// Returns the rooms of a socket, the one that its id names included; none if it is gone.
    pub fn rooms_of(&self, namespace: &Namespace, id: &SocketId) -> HashSet<Room> {
        let member = self.namespaces.get(namespace).and_then(|rooms| {
            let key = rooms.by_id.get(id)?;
            rooms.members.get(*key)
        });
        member.map_or_else(HashSet::new, |member| {
            let mut rooms = member.rooms.clone();
            rooms.insert(id.room());
            rooms
        })
    }

    fn find(
        &mut self,
        namespace: &Namespace,
        id: &SocketId,
    ) -> Option<(&mut NamespaceRooms<H>, usize)> {
        let rooms = self.namespaces.get_mut(namespace)?;
        let key = *rooms.by_id.get(id)?;
        Some((rooms, key))
    }

    /// Returns how many sockets are connected, over all namespaces.
    pub fn num_sockets(&self) -> usize {
        self.namespaces
            .values()
            .map(|rooms| rooms.members.len())
            .sum()
    }

    /// Returns whether a room, or else the namespace, has members, those that are away counted.
    pub fn has_members(&self, namespace: &Namespace, room: Option<&Room>) -> bool {
        let Some(rooms) = self.namespaces.get(namespace) else {
            return false;
        };
        room.is_none_or(|room| {
            rooms.rooms.contains_key(room)
                || rooms.by_id.contains_key(room.as_str())
                || rooms.kept.is_in(room)
        })
    }

    /// Returns every room of a namespace, those that socket ids name included; each once, unless a socket is in the room of
    /// another.
    pub fn rooms(&self, namespace: &Namespace) -> Vec<Room> {
        let Some(rooms) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let own = rooms.by_id.keys().map(SocketId::room);
        own.chain(rooms.rooms.keys().cloned()).collect()
    }

    /// Returns how many sockets a selection looks at, those in several of its rooms as often, and those that it leaves out, too.
    pub fn reach(&self, namespace: &Namespace, target: &Target) -> usize {
        let Some(rooms) = self.namespaces.get(namespace) else {
            return 0;
        };
        let num_in = |room: &Room| rooms.rooms.get(room).map_or(0, HashSet::len);
        match target.rooms.as_slice() {
            [] => rooms.members.len(),
            // One more for the socket that a room's name may be the id of.
            some => some.iter().map(|room| 1 + num_in(room)).sum(),
        }
    }

    /// Returns whether `target` selects one socket.
    pub fn selects(&self, namespace: &Namespace, target: &Target, id: &SocketId) -> bool {
        let Some(rooms) = self.namespaces.get(namespace) else {
            return false;
        };
        let member = rooms.by_id.get(id).and_then(|key| rooms.members.get(*key));
        let Some(member) = member else { return false };
        let is_in = |room: &Room| room.as_str() == id.as_str() || member.rooms.contains(room);
        (target.rooms.is_empty() || target.rooms.iter().any(is_in))
            && !target.except.iter().any(is_in)
    }

    /// Calls `call` with one socket, if it is there.
    pub fn with_member(&self, namespace: &Namespace, id: &SocketId, call: impl FnOnce(&Member<H>)) {
        let rooms = self.namespaces.get(namespace);
        let member = rooms.and_then(|rooms| rooms.members.get(*rooms.by_id.get(id)?));
        if let Some(member) = member {
            call(member);
        }
    }

    /// Calls `call` once for each socket that `target` selects.
    pub fn select(&self, namespace: &Namespace, target: &Target, mut call: impl FnMut(&Member<H>)) {
        let Some(rooms) = self.namespaces.get(namespace) else {
            return;
        };
        // Looked up once, and not for each member; nor for none.
        let excepted = LazyCell::new(|| {
            let of_room = |room: &Room| {
                let own = rooms.by_id.get(room.as_str()).copied();
                (own, rooms.rooms.get(room))
            };
            target.except.iter().map(of_room).collect::<Vec<_>>()
        });
        let is_excepted = |key: usize| {
            excepted.iter().any(|(own, others)| {
                *own == Some(key) || others.is_some_and(|members| members.contains(&key))
            })
        };
        let mut call_for = |key: usize, member: &Member<H>| {
            if target.except.is_empty() || !is_excepted(key) {
                call(member);
            }
        };
        match target.rooms.as_slice() {
            [] => rooms
                .members
                .iter()
                .for_each(|(key, member)| call_for(key, member)),
            [room] => rooms.for_each_in(room, call_for),
            several => {
                let mut seen = HashSet::new();
                for room in several {
                    rooms.for_each_in(room, |key, member| {
                        if seen.insert(key) {
                            call_for(key, member);
                        }
                    });
                }
            }
        }
    }
}

impl<H> NamespaceRooms<H> {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.kept.ids.is_empty()
    }

    /// Takes a key out of a room's set, and the set away with its last key. Returns whether it was the last.
    fn forget(&mut self, room: &Room, key: usize) -> bool {
        let Some(members) = self.rooms.get_mut(room) else {
            return false;
        };
        members.remove(&key);
        let was_last = members.is_empty();
        if was_last {
            self.rooms.remove(room);
            shrink(&mut self.rooms);
        } else {
            shrink(members);
        }
        was_last
    }

    fn for_each_in(&self, room: &Room, mut call: impl FnMut(usize, &Member<H>)) {
        let own = self.by_id.get(room.as_str()).copied();
        let others = self.rooms.get(room).into_iter().flatten().copied();
        for key in own.into_iter().chain(others) {
            if let Some(member) = self.members.get(key) {
                call(key, member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> Namespace {
        "/chat".into()
    }

    /// a and b in red, b and c in blue, d in none.
    fn rooms() -> Rooms<char> {
        let mut rooms = Rooms::default();
        for name in ['a', 'b', 'c', 'd'] {
            rooms.insert(&chat(), id(name), name);
        }
        for (name, room) in [('a', "red"), ('b', "red"), ('b', "blue"), ('c', "blue")] {
            rooms.join(&chat(), &id(name), room.into()).unwrap();
        }
        rooms
    }

    fn id(name: char) -> SocketId {
        SocketId::from(format!("{name}-socket"))
    }

    /// Returns who is selected, by whichever way of asking.
    fn select(rooms: &Rooms<char>, to: &[&str], except: &[&str]) -> String {
        let target = Target {
            rooms: to.iter().map(|room| Room::from(*room)).collect(),
            except: except.iter().map(|room| Room::from(*room)).collect(),
        };
        let mut selected = Vec::new();
        rooms.select(&chat(), &target, |member| selected.push(*member.handle()));
        selected.sort_unstable();
        let one_by_one = ['a', 'b', 'c', 'd'].into_iter();
        let one_by_one = one_by_one.filter(|name| rooms.selects(&chat(), &target, &id(*name)));
        assert!(one_by_one.eq(selected.iter().copied()));
        selected.into_iter().collect()
    }

    #[test]
    fn no_room_selects_all_and_several_select_their_union_once() {
        let rooms = rooms();
        assert_eq!(select(&rooms, &[], &[]), "abcd");
        assert_eq!(select(&rooms, &["red"], &[]), "ab");
        assert_eq!(select(&rooms, &["red", "blue"], &[]), "abc");
        assert_eq!(select(&rooms, &["green"], &[]), "");
    }

    #[test]
    fn excepted_rooms_are_left_out() {
        let rooms = rooms();
        assert_eq!(select(&rooms, &[], &["red"]), "cd");
        assert_eq!(select(&rooms, &["red", "blue"], &["blue"]), "a");
        assert_eq!(select(&rooms, &["red"], &["a-socket"]), "b");
    }

    #[test]
    fn each_socket_is_in_the_room_that_its_id_names() {
        let mut rooms = rooms();
        assert_eq!(select(&rooms, &["d-socket"], &[]), "d");
        rooms.join(&chat(), &id('d'), "d-socket".into()).unwrap();
        assert_eq!(select(&rooms, &["d-socket"], &[]), "d");
        rooms.join(&chat(), &id('a'), "d-socket".into()).unwrap();
        assert_eq!(select(&rooms, &["d-socket"], &[]), "ad");
        assert_eq!(select(&rooms, &[], &["d-socket"]), "bc");
    }

    #[test]
    fn the_rooms_of_a_namespace_and_of_a_socket_begin_with_what_ids_name() {
        let rooms = rooms();
        let mut all = rooms.rooms(&chat());
        all.sort_unstable();
        let expected = [
            "a-socket", "b-socket", "blue", "c-socket", "d-socket", "red",
        ];
        assert_eq!(all, expected.map(Room::from));
        assert!(rooms.rooms(&"/other".into()).is_empty());
        for room in ["red", "a-socket"] {
            assert!(rooms.has_members(&chat(), Some(&room.into())), "{room}");
            assert!(!rooms.has_members(&"/other".into(), Some(&room.into())));
        }
        assert!(!rooms.has_members(&chat(), Some(&"green".into())));
        assert!(rooms.has_members(&chat(), None) && !rooms.has_members(&"/other".into(), None));
        let mut of_a = Vec::new();
        let target = Target {
            rooms: vec!["a-socket".into()],
            except: Vec::new(),
        };
        rooms.select(&chat(), &target, |member| of_a.extend(member.rooms()));
        assert_eq!(of_a, ["a-socket", "red"].map(Room::from));
    }

    #[test]
    fn a_sockets_rooms_are_its_own_and_those_it_joined() {
        let mut rooms = rooms();
        let of_b = ["b-socket", "blue", "red"].map(Room::from);
        assert_eq!(rooms.rooms_of(&chat(), &id('b')), HashSet::from(of_b));
        rooms.remove(&chat(), &id('b'));
        assert_eq!(rooms.rooms_of(&chat(), &id('b')), HashSet::new());
        assert_eq!(rooms.rooms_of(&"/x".into(), &id('a')), HashSet::new());
    }

    #[test]
    fn namespaces_do_not_see_each_other() {
        let mut rooms = rooms();
        assert!(rooms.insert(&"/other".into(), id('x'), 'x'));
        assert!(!rooms.insert(&"/other".into(), id('y'), 'y'));
        rooms.remove(&"/other".into(), &id('y'));
        rooms
            .join(&"/other".into(), &id('x'), "red".into())
            .unwrap();
        assert_eq!(select(&rooms, &["red"], &[]), "ab");
        assert_eq!(rooms.num_sockets(), 5);
    }

    #[test]
    fn nothing_stays_behind_when_everyone_left() {
        let mut rooms = rooms();
        rooms.leave(&chat(), &id('a'), &"red".into());
        assert_eq!(select(&rooms, &["red"], &[]), "b");
        assert!(!rooms.remove(&chat(), &id('b')));
        assert!(!rooms.remove(&chat(), &id('b')));
        assert_eq!(select(&rooms, &["red", "blue"], &[]), "c");
        for (name, is_last) in [('a', false), ('c', false), ('d', true), ('d', false)] {
            assert_eq!(rooms.remove(&chat(), &id(name)), is_last, "{name}");
        }
        assert!(rooms.namespaces.is_empty());
    }

    #[test]
    fn a_socket_cannot_fill_the_memory_with_rooms() {
        let mut rooms = rooms();
        rooms.limit_rooms(100);
        for n in 0..100 {
            rooms
                .join(&chat(), &id('d'), format!("room {n}").into())
                .unwrap();
        }
        assert_eq!(
            rooms.join(&chat(), &id('d'), "one more".into()),
            Err(TooManyRooms { limit: 100 })
        );
        assert_eq!(rooms.join(&chat(), &id('d'), "room 0".into()), Ok(()));
        let all: HashSet<Room> = rooms.rooms_of(&chat(), &id('d'));
        assert_eq!((all.len(), rooms.may_be_in(&all)), (101, false));
        let joined = all
            .into_iter()
            .filter(|room| room.as_str() != id('d').as_str());
        assert!(rooms.may_be_in(&joined.collect()));
        rooms.leave(&chat(), &id('d'), &"room 0".into());
        rooms.leave(&chat(), &id('d'), &"room 0".into());
        assert_eq!(rooms.join(&chat(), &id('d'), "one more".into()), Ok(()));
        // Nor with few that have long names.
        let long = |n: usize| Room::from(format!("{n}").repeat(NAME_BYTES * 50));
        rooms.join(&chat(), &id('a'), long(1)).unwrap();
        assert_eq!(
            rooms.join(&chat(), &id('a'), long(2)),
            Err(TooManyRooms { limit: 100 })
        );
        rooms.leave(&chat(), &id('a'), &long(1));
        assert_eq!(rooms.join(&chat(), &id('a'), long(2)), Ok(()));
    }

    /// A bug: tables kept the memory that they once had, and whoever went through one went through all of that.
    #[test]
    fn what_was_left_gives_its_memory_back() {
        const MANY: usize = 2_000;
        /// What a table of a few has.
        const FEW: usize = 40;
        let mut rooms = rooms();
        let room = |n: usize| Room::from(format!("room {n}"));
        for n in 0..MANY {
            let one = SocketId::from(format!("{n}"));
            rooms.insert(&chat(), one.clone(), 'x');
            rooms.join(&chat(), &one, "red".into()).unwrap();
            rooms.join(&chat(), &id('d'), room(n)).unwrap();
        }
        for n in 0..MANY {
            rooms.remove(&chat(), &SocketId::from(format!("{n}")));
            rooms.leave(&chat(), &id('d'), &room(n));
        }
        let all = &rooms.namespaces[&chat()];
        let of_d = all.members.get(all.by_id["d-socket"]).unwrap();
        assert!(of_d.rooms.capacity() <= FEW);
        assert!(all.rooms["red"].capacity() <= FEW);
        assert!(all.rooms.capacity() <= FEW && all.by_id.capacity() <= FEW);
        // The same of those who are away.
        let mut away = Vec::new();
        for n in 0..MANY {
            let one = SocketId::from(format!("{n}"));
            rooms.insert(&chat(), one.clone(), 'x');
            rooms.join(&chat(), &one, room(n)).unwrap();
            let (_, of_it) = rooms.go_away(&chat(), &one).unwrap();
            away.push((one, of_it));
        }
        assert!(rooms.namespaces[&chat()].by_id.capacity() <= FEW);
        assert!(rooms.namespaces[&chat()].rooms.capacity() <= FEW);
        for (one, of_it) in away {
            rooms.give_up(&chat(), &one, &of_it);
        }
        let kept = &rooms.namespaces[&chat()].kept;
        assert!(kept.ids.capacity() <= FEW && kept.rooms.capacity() <= FEW);
        for n in 0..MANY {
            rooms.insert(&format!("/{n}").into(), id('a'), 'a');
        }
        for n in 0..MANY {
            rooms.remove(&format!("/{n}").into(), &id('a'));
        }
        assert!(rooms.namespaces.capacity() <= FEW);
    }

    /// What the table says of `/chat` after each step.
    fn listed(table: &RoomTable) -> Vec<String> {
        let mut rooms: Vec<_> = table
            .all()
            .into_iter()
            .map(|(namespace, room)| format!("{namespace} {room}"))
            .collect();
        rooms.sort_unstable();
        rooms
    }

    #[test]
    fn the_table_has_public_rooms_while_they_have_members() {
        let table = Arc::new(RoomTable::new(Listed::Public));
        let mut rooms = Rooms::default();
        rooms.list_in(Arc::clone(&table));
        rooms.insert(&chat(), id('a'), 'a');
        rooms.insert(&chat(), id('b'), 'b');
        assert!(listed(&table).is_empty());
        rooms.join(&chat(), &id('a'), "red".into()).unwrap();
        rooms.join(&chat(), &id('b'), "red".into()).unwrap();
        rooms.join(&chat(), &id('b'), "blue".into()).unwrap();
        assert_eq!(listed(&table), ["/chat blue", "/chat red"]);
        rooms.leave(&chat(), &id('a'), &"red".into());
        assert_eq!(listed(&table), ["/chat blue", "/chat red"]);
        rooms.leave(&chat(), &id('b'), &"red".into());
        assert_eq!(listed(&table), ["/chat blue"]);
        rooms.remove(&chat(), &id('b'));
        assert!(listed(&table).is_empty());
        // A room that a socket is named by becomes public when that socket has left.
        rooms.insert(&chat(), id('c'), 'c');
        rooms.join(&chat(), &id('a'), "c-socket".into()).unwrap();
        assert!(listed(&table).is_empty());
        rooms.remove(&chat(), &id('c'));
        assert_eq!(listed(&table), ["/chat c-socket"]);
        rooms.insert(&chat(), id('c'), 'c');
        assert!(listed(&table).is_empty());
    }

    #[test]
    fn the_table_may_have_private_rooms_too() {
        let table = Arc::new(RoomTable::new(Listed::All));
        let mut rooms = Rooms::default();
        rooms.list_in(Arc::clone(&table));
        rooms.insert(&chat(), id('a'), 'a');
        rooms.insert(&chat(), id('b'), 'b');
        rooms.join(&chat(), &id('b'), "a-socket".into()).unwrap();
        rooms.join(&chat(), &id('b'), "red".into()).unwrap();
        let all = ["/chat a-socket", "/chat b-socket", "/chat red"];
        assert_eq!(listed(&table), all);
        rooms.remove(&chat(), &id('a'));
        assert_eq!(listed(&table), all, "b is still in the room");
        rooms.remove(&chat(), &id('b'));
        assert!(listed(&table).is_empty());
    }

    #[test]
    fn a_place_that_is_kept_is_of_interest_and_nothing_more() {
        let table = Arc::new(RoomTable::new(Listed::Public));
        let mut rooms = Rooms::default();
        rooms.list_in(Arc::clone(&table));
        assert!(rooms.insert(&chat(), id('a'), 'a'));
        for room in ["red", "blue"] {
            rooms.join(&chat(), &id('a'), room.into()).unwrap();
        }
        let (handle, of_a) = rooms.go_away(&chat(), &id('a')).unwrap();
        assert_eq!(handle, 'a');
        assert_eq!(of_a, HashSet::from(["red", "blue"].map(Room::from)));
        assert!(rooms.go_away(&chat(), &id('a')).is_none());

        assert_eq!(select(&rooms, &[], &[]), "");
        assert_eq!(select(&rooms, &["red", "a-socket"], &[]), "");
        assert!(rooms.rooms(&chat()).is_empty() && rooms.num_sockets() == 0);
        assert_eq!(rooms.join(&chat(), &id('a'), "green".into()), Ok(()));

        let may_be_missed = |rooms: &Rooms<char>, room: &str| {
            let target = Target {
                rooms: vec![room.into()],
                except: Vec::new(),
            };
            rooms.may_be_missed(&chat(), &target)
        };
        for room in ["red", "blue", "a-socket"] {
            assert!(rooms.has_members(&chat(), Some(&room.into())), "{room}");
            assert!(may_be_missed(&rooms, room), "{room}");
        }
        assert!(!rooms.has_members(&chat(), Some(&"green".into())));
        assert!(!may_be_missed(&rooms, "green"));
        assert!(rooms.may_be_missed(&chat(), &Target::default()));
        assert!(!rooms.may_be_missed(&"/other".into(), &Target::default()));
        assert_eq!(listed(&table), ["/chat blue", "/chat red"]);

        assert!(
            !rooms.insert(&chat(), id('b'), 'b'),
            "the namespace is open"
        );
        assert!(!rooms.remove(&chat(), &id('b')), "and stays it");
        rooms.come_back(&chat(), id('a'), of_a, 'a');
        assert_eq!(select(&rooms, &["red"], &[]), "a");
        assert_eq!(rooms.rooms_of(&chat(), &id('a')).len(), 3);
        assert!(!rooms.may_be_missed(&chat(), &Target::default()));
        assert_eq!(listed(&table), ["/chat blue", "/chat red"]);

        let (_, of_a) = rooms.go_away(&chat(), &id('a')).unwrap();
        assert!(rooms.give_up(&chat(), &id('a'), &of_a));
        assert!(listed(&table).is_empty() && rooms.namespaces.is_empty());
        assert!(rooms.insert(&chat(), id('a'), 'a'), "opens it anew");
    }

    #[test]
    fn the_room_of_a_socket_that_is_away_is_as_private_as_before() {
        for (kind, expected) in [
            (Listed::Public, vec![]),
            (Listed::All, vec!["/chat a-socket"]),
        ] {
            let table = Arc::new(RoomTable::new(kind));
            let mut rooms = Rooms::default();
            rooms.list_in(Arc::clone(&table));
            rooms.insert(&chat(), id('a'), 'a');
            let (_, of_a) = rooms.go_away(&chat(), &id('a')).unwrap();
            assert_eq!(listed(&table), expected);
            rooms.give_up(&chat(), &id('a'), &of_a);
            assert!(listed(&table).is_empty());
        }
    }

    #[test]
    fn joining_after_the_end_is_no_error_and_leaves_no_trace() {
        let mut rooms = rooms();
        rooms.remove(&chat(), &id('a'));
        assert_eq!(rooms.join(&chat(), &id('a'), "red".into()), Ok(()));
        assert_eq!(select(&rooms, &["red"], &[]), "b");
    }
}
