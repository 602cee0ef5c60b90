//! For whom the events of the log are: so that a client that comes back finds its own without a look at all others.
//!
//! Plain struct: serials by namespace and room, each list in its order, as a search engine keeps them. Tells what may be for a socket;
//! whether it is, `replay` knows.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque, binary_heap::PeekMut},
    hash::Hash,
    ops::RangeInclusive,
};

use super::replay::Audience;
use crate::{
    shrink::shrink,
    socket_io::ids::{Namespace, Room, SocketId},
};

/// What a list takes beside its serials, about: its place in a table, and an allocation.
const LIST_BYTES: usize = 192;

/// What a serial takes, at most: a list has room for four times as many, see [`shrink`].
const SERIAL_BYTES: usize = 4 * size_of::<u64>();

/// Serials, in their order.
type List = VecDeque<u64>;

#[derive(Debug, Default)]
struct OfNamespace {
    /// For all.
    all: List,
    by_room: HashMap<Room, List>,
    by_socket: HashMap<SocketId, List>,
}

/// Serials of events, by whom they are for.
#[derive(Debug, Default)]
pub struct Postings {
    by_namespace: HashMap<Namespace, OfNamespace>,
    num_lists: usize,
    num_serials: usize,
}

impl Postings {
    /// Returns how much memory it takes, about.
    pub fn len_bytes(&self) -> usize {
        self.num_lists * LIST_BYTES + self.num_serials * SERIAL_BYTES
    }

    /// Adds an event, which comes behind all others.
    pub fn add(&mut self, serial: u64, namespace: &Namespace, audience: &Audience) {
        let of = self.by_namespace.entry(namespace.clone()).or_default();
        let mut add = |list: &mut List| {
            // A room that is named twice is one.
            if list.back() != Some(&serial) {
                self.num_lists += usize::from(list.is_empty());
                self.num_serials += 1;
                list.push_back(serial);
            }
        };
        match audience {
            Audience::One(id) => add(of.by_socket.entry(id.clone()).or_default()),
            Audience::Selected(target) if target.rooms.is_empty() => add(&mut of.all),
            Audience::Selected(target) => {
                for room in &target.rooms {
                    add(of.by_room.entry(room.clone()).or_default());
                }
            }
        }
    }

    /// Takes an event out, which comes before all others.
    pub fn forget(&mut self, serial: u64, namespace: &Namespace, audience: &Audience) {
        let Some(of) = self.by_namespace.get_mut(namespace) else {
            return;
        };
        let mut forget = |list: &mut List| {
            if list.front() == Some(&serial) {
                list.pop_front();
                shrink(list);
                self.num_serials -= 1;
                self.num_lists -= usize::from(list.is_empty());
            }
            list.is_empty()
        };
        match audience {
            Audience::One(id) => forget_in(&mut of.by_socket, id, forget),
            Audience::Selected(target) if target.rooms.is_empty() => {
                if forget(&mut of.all) {
                    of.all = List::new();
                }
            }
            Audience::Selected(target) => {
                for room in &target.rooms {
                    forget_in(&mut of.by_room, room, &mut forget);
                }
            }
        }
        if of.all.is_empty() && of.by_room.is_empty() && of.by_socket.is_empty() {
            self.by_namespace.remove(namespace);
            shrink(&mut self.by_namespace);
        }
    }

    /// Returns the serials behind `behind` of what may be for a socket of this id, which is in `rooms` besides the one that its id
    /// names; each once, in their order. Those in `gap` only if they are for it alone. It costs a look-up for each room, and for each
    /// serial that it returns, and each repetition of one, the logarithm of the number of rooms.
    pub fn of<'a>(
        &'a self,
        namespace: &Namespace,
        id: &SocketId,
        rooms: &HashSet<Room>,
        behind: u64,
        gap: RangeInclusive<u64>,
    ) -> impl Iterator<Item = u64> + use<'a> {
        let of = self.by_namespace.get(namespace);
        let selected = of.into_iter().flat_map(|of| {
            let own = of.by_room.get(id.as_str());
            let by_room = rooms.iter().filter_map(|room| of.by_room.get(room));
            std::iter::once(&of.all).chain(own).chain(by_room)
        });
        let alone = of.and_then(|of| of.by_socket.get(id));
        let mut lists: Vec<_> = selected
            .map(|list| beyond(list, behind, &gap))
            .chain(alone.map(|list| beyond(list, behind, &NO_GAP)))
            .collect();
        let mut heads: BinaryHeap<_> = lists
            .iter_mut()
            .zip(0..)
            .filter_map(|(list, at)| Some(Reverse((list.next()?, at))))
            .collect();
        let mut last = None;
        std::iter::from_fn(move || {
            loop {
                let mut head = heads.peek_mut()?;
                let Reverse((serial, at)) = *head;
                match lists.get_mut(at).and_then(Iterator::next) {
                    Some(next) => *head = Reverse((next, at)),
                    None => _ = PeekMut::pop(head),
                }
                if last.replace(serial) != Some(serial) {
                    return Some(serial);
                }
            }
        })
    }
}

/// Holds no serial.
#[expect(clippy::reversed_empty_ranges, reason = "it is meant to be empty")]
const NO_GAP: RangeInclusive<u64> = 1..=0;

/// Returns the serials of a list behind one, without those of the gap.
fn beyond<'a>(
    list: &'a List,
    behind: u64,
    gap: &RangeInclusive<u64>,
) -> impl Iterator<Item = u64> + use<'a> {
    let up_to = |serial: u64| list.partition_point(|one| *one <= serial);
    let start = up_to(behind);
    let gap_start = list.partition_point(|one| one < gap.start()).max(start);
    // Of a gap that ends before it begins, nothing.
    let gap_end = up_to(*gap.end()).max(gap_start);
    list.range(start..gap_start)
        .chain(list.range(gap_end..))
        .copied()
}

/// Takes a serial out of the list of a key, and the list, if it was the last.
fn forget_in<K: Hash + Eq>(
    lists: &mut HashMap<K, List>,
    key: &K,
    forget: impl FnOnce(&mut List) -> bool,
) {
    if lists.get_mut(key).is_some_and(forget) {
        lists.remove(key);
        shrink(lists);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hub::broadcast::Target;

    /// An audience of rooms named by small numbers, or of the one socket that is named like the only one.
    fn audience(rooms: &[u8], is_one: bool) -> Audience {
        let room = |n: &u8| Room::from(n.to_string());
        match rooms {
            [one] if is_one => Audience::One(SocketId::from(one.to_string())),
            rooms => Audience::Selected(Target {
                rooms: rooms.iter().map(room).collect(),
                except: Vec::new(),
            }),
        }
    }

    fn of(
        postings: &Postings,
        (id, rooms): (&str, &[u8]),
        behind: u64,
        gap: RangeInclusive<u64>,
    ) -> Vec<u64> {
        let rooms = rooms.iter().map(|n| Room::from(n.to_string())).collect();
        let serials = postings.of(&"/a".into(), &id.into(), &rooms, behind, gap);
        serials.collect()
    }

    #[test]
    fn nobody_looks_at_what_is_for_others() {
        let mut postings = Postings::default();
        for serial in 1..=1000 {
            let room = u8::try_from(serial % 100).unwrap();
            postings.add(serial, &"/a".into(), &audience(&[room], false));
        }
        assert_eq!(of(&postings, ("7", &[]), 800, NO_GAP), [807, 907]);
        assert_eq!(
            of(&postings, ("x", &[8, 7]), 700, 708..=807),
            [707, 808, 907, 908]
        );
        assert!(of(&postings, ("x", &[]), 0, NO_GAP).is_empty());
        let elsewhere = postings.of(&"/b".into(), &"7".into(), &HashSet::new(), 0, NO_GAP);
        assert_eq!(elsewhere.count(), 0);
    }

    /// A bug: the tables kept what they had at their largest.
    #[test]
    fn tables_give_their_room_back_while_something_is_left_in_them() {
        const NUM: u64 = 10_000;
        let event = |n: u64| {
            let one = Audience::One(SocketId::from(n.to_string()));
            let rooms = vec![Room::from(n.to_string())];
            let except = Vec::new();
            let some = Audience::Selected(Target { rooms, except });
            (Namespace::from(format!("/{}", n % 5000)), [one, some])
        };
        let mut postings = Postings::default();
        for n in 0..NUM {
            let (of_many, audiences) = event(n);
            for audience in &audiences {
                postings.add(n, &of_many, audience);
                postings.add(n, &"/one".into(), audience);
            }
        }
        for n in 0..NUM - 1 {
            let (of_many, audiences) = event(n);
            for audience in &audiences {
                postings.forget(n, &of_many, audience);
                postings.forget(n, &"/one".into(), audience);
            }
        }
        let one = &postings.by_namespace[&Namespace::from("/one")];
        let room = [
            one.by_room.capacity(),
            one.by_socket.capacity(),
            postings.by_namespace.capacity(),
        ];
        assert!(room.iter().all(|capacity| *capacity < 100), "{room:?}");
    }

    proptest! {
        /// Nothing that is for a socket is missed, whatever was forgotten, and nothing is kept of what was.
        #[test]
        fn all_that_may_be_for_a_socket_is_found_and_nothing_is_left(
            events in prop::collection::vec((prop::collection::vec(0..5u8, 0..4), any::<bool>()), 0..40),
            num_forgotten in 0..40usize,
            rooms in prop::collection::vec(0..5u8, 0..4),
            behind in 0..45u64,
            gap in (0..45u64, 0..45u64),
        ) {
            let namespace = Namespace::from("/a");
            let events: Vec<_> = events.iter().map(|(rooms, is_one)| audience(rooms, *is_one)).collect();
            let mut postings = Postings::default();
            for (event, serial) in events.iter().zip(1..) {
                postings.add(serial, &namespace, event);
            }
            let num_forgotten = num_forgotten.min(events.len());
            for (event, serial) in events.iter().zip(1..).take(num_forgotten) {
                postings.forget(serial, &namespace, event);
            }
            let id = SocketId::from("4");
            let named: HashSet<_> = rooms.iter().map(|n| Room::from(n.to_string())).collect();
            let gap = gap.0..=gap.1;
            let expected: Vec<u64> = events
                .iter()
                .zip(1..)
                .skip(num_forgotten)
                .filter(|(event, serial)| {
                    let is_one = matches!(event, Audience::One(_));
                    *serial > behind && event.includes(&id, &named) && (is_one || !gap.contains(serial))
                })
                .map(|(_, serial)| serial)
                .collect();
            prop_assert_eq!(of(&postings, ("4", &rooms), behind, gap), expected);
            for (event, serial) in events.iter().zip(1..).skip(num_forgotten) {
                postings.forget(serial, &namespace, event);
            }
            prop_assert_eq!(postings.len_bytes(), 0);
            prop_assert!(postings.by_namespace.is_empty());
        }
    }
}
