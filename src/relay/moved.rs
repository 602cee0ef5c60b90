//! Which of this instance's sessions live at another one now: so that a request that still comes here is told that its session is on a
//! WebSocket, and not that it is unknown.
//!
//! Pure: a table, bounded by [`MAX_MOVED`]. An entry stays until the other instance says that the session has ended, or cannot be
//! heard. What is not noted, or not any more, is unknown here; its client, which has a WebSocket there, notices nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use super::host::Key;
use crate::{
    engine_io::{
        dialect::Revision,
        sid::{InstanceId, Sid},
    },
    shrink::shrink,
};

/// Sessions that are known to live elsewhere at a time; one beyond it is unknown here from its move on.
pub(super) const MAX_MOVED: usize = 65_536;

/// One that lives elsewhere. Dropped, it has ended, as far as is known here.
#[derive(Debug)]
struct There {
    /// Where, and what it is called there.
    key: Key,
    revision: Revision,
    /// Set then, for whoever still holds a socket of it.
    has_ended: Arc<AtomicBool>,
}

impl Drop for There {
    fn drop(&mut self) {
        self.has_ended.store(true, Relaxed);
    }
}

/// All that live elsewhere.
#[derive(Debug, Default)]
pub(super) struct Moved {
    by_sid: HashMap<Sid, There>,
    /// By instance and number: since when their moves were under way.
    by_key: HashMap<InstanceId, HashMap<u64, (Sid, Instant)>>,
}

impl Moved {
    /// Notes a session that lives at another instance from now on; its move has `begun` before. `has_ended` is set when it is forgotten.
    /// Returns whether there was room.
    pub(super) fn note(
        &mut self,
        sid: Sid,
        revision: Revision,
        key: Key,
        begun: Instant,
        has_ended: &Arc<AtomicBool>,
    ) -> bool {
        if let Some(before) = self.by_sid.get(&sid).map(|there| there.key) {
            self.end(before);
        }
        if self.by_sid.len() >= MAX_MOVED {
            return false;
        }
        // A number is given once, so nobody else's entry is overwritten.
        let (at, number) = key;
        self.by_key
            .entry(at)
            .or_default()
            .insert(number, (sid, begun));
        let has_ended = Arc::clone(has_ended);
        let there = There {
            key,
            revision,
            has_ended,
        };
        self.by_sid.insert(sid, there);
        true
    }

    /// Returns the revision of a session that lives elsewhere, on a WebSocket.
    pub(super) fn get(&self, sid: &Sid) -> Option<Revision> {
        self.by_sid.get(sid).map(|there| there.revision)
    }

    /// Forgets a session: it has ended.
    pub(super) fn end(&mut self, (at, number): Key) {
        let Some(numbers) = self.by_key.get_mut(&at) else {
            return;
        };
        if let Some((sid, _)) = numbers.remove(&number) {
            self.by_sid.remove(&sid);
        }
        shrink(numbers);
        if numbers.is_empty() {
            self.by_key.remove(&at);
        }
        shrink(&mut self.by_sid);
        shrink(&mut self.by_key);
    }

    /// Returns where they live.
    pub(super) fn peers(&self) -> HashSet<InstanceId> {
        self.by_key.keys().copied().collect()
    }

    /// Forgets some: where they live, and when their moves were begun.
    pub(super) fn lose(&mut self, is_lost: impl Fn(InstanceId, Instant) -> bool) {
        let Self { by_sid, by_key } = self;
        by_key.retain(|at, numbers| {
            numbers.retain(|_, (sid, begun)| {
                let is_lost = is_lost(*at, *begun);
                if is_lost {
                    by_sid.remove(sid);
                }
                !is_lost
            });
            shrink(numbers);
            !numbers.is_empty()
        });
        shrink(by_sid);
        shrink(by_key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn instance(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn sid(n: usize) -> Sid {
        Sid::parse(&format!("Ab3dE6gH{n:022}")).unwrap()
    }

    #[test]
    fn a_session_is_known_until_it_ends_by_the_name_that_it_has_there() {
        let (one, two) = (instance("Zy9xW7vU"), instance("Zy9xW7vV"));
        let now = Instant::now();
        let mut moved = Moved::default();
        assert!(moved.note(sid(1), Revision::V4, (one, 7), now, &Arc::default()));
        assert!(moved.note(sid(2), Revision::V3, (two, 7), now, &Arc::default()));
        assert_eq!(moved.get(&sid(1)), Some(Revision::V4));
        assert_eq!(moved.get(&sid(2)), Some(Revision::V3));
        assert_eq!(moved.peers(), HashSet::from([one, two]));
        moved.end((one, 8));
        assert_eq!(moved.get(&sid(1)), Some(Revision::V4));
        moved.end((one, 7));
        assert_eq!(moved.get(&sid(1)), None);
        assert_eq!(moved.get(&sid(2)), Some(Revision::V3));
        assert_eq!(moved.peers(), HashSet::from([two]));
        // Twice is once.
        moved.end((one, 7));
        // Said of another move, it is that one which counts.
        assert!(moved.note(sid(2), Revision::V3, (one, 9), now, &Arc::default()));
        moved.end((two, 7));
        assert_eq!(moved.get(&sid(2)), Some(Revision::V3));
        assert_eq!(moved.peers(), HashSet::from([one]));
    }

    #[test]
    fn who_cannot_be_heard_takes_along_what_began_before() {
        let (one, two) = (instance("Zy9xW7vU"), instance("Zy9xW7vV"));
        let begun = Instant::now();
        let later = begun + Duration::from_secs(1);
        let mut moved = Moved::default();
        moved.note(sid(1), Revision::V4, (one, 1), begun, &Arc::default());
        moved.note(sid(2), Revision::V4, (one, 2), later, &Arc::default());
        moved.note(sid(3), Revision::V4, (two, 1), begun, &Arc::default());
        moved.lose(|of, begun| of == one && begun < later);
        let known = |moved: &Moved| [1, 2, 3].map(|n| moved.get(&sid(n)).is_some());
        assert_eq!(known(&moved), [false, true, true]);
        moved.lose(|of, _| of == two);
        assert_eq!(known(&moved), [false, true, false]);
        assert_eq!(moved.peers(), HashSet::from([one]));
        moved.lose(|_, _| true);
        assert_eq!(known(&moved), [false; 3]);
        assert!(moved.peers().is_empty());
    }

    /// A bug: of a socket that a task still held, nobody ever said that its client had left.
    #[test]
    fn who_holds_a_socket_learns_of_the_end_of_its_session() {
        let one = instance("Zy9xW7vU");
        let now = Instant::now();
        let mut moved = Moved::default();
        let ends: [Arc<AtomicBool>; 3] = Default::default();
        for (end, n) in ends.iter().zip(0..) {
            assert!(moved.note(sid(n), Revision::V4, (one, n as u64), now, end));
        }
        let known = || ends.each_ref().map(|end| end.load(Relaxed));
        assert_eq!(known(), [false; 3]);
        moved.end((one, 1));
        assert_eq!(known(), [false, true, false]);
        moved.note(sid(0), Revision::V4, (one, 7), now, &Arc::default());
        assert_eq!(
            known(),
            [true, true, false],
            "it has come back, and moved anew"
        );
        moved.lose(|_, _| true);
        assert_eq!(known(), [true; 3]);
    }

    #[test]
    fn one_more_than_there_is_room_for_is_not_noted_until_another_has_ended() {
        let one = instance("Zy9xW7vU");
        let now = Instant::now();
        let mut moved = Moved::default();
        for n in 0..MAX_MOVED {
            assert!(moved.note(sid(n), Revision::V4, (one, n as u64), now, &Arc::default()));
        }
        let (more, key) = (sid(MAX_MOVED), (one, MAX_MOVED as u64));
        assert!(!moved.note(more, Revision::V4, key, now, &Arc::default()));
        assert_eq!(moved.get(&more), None);
        assert!(moved.get(&sid(0)).is_some(), "nobody is driven out");
        moved.end(key);
        moved.end((one, 0));
        assert!(moved.note(more, Revision::V4, key, now, &Arc::default()));
        assert!(moved.get(&more).is_some());
    }

    /// A bug: the tables kept what they had at their largest.
    #[test]
    fn nothing_is_kept_of_those_that_have_ended() {
        let (one, two) = (instance("Zy9xW7vU"), instance("Zy9xW7vV"));
        let now = Instant::now();
        let mut moved = Moved::default();
        for n in 0..10_000 {
            let key = (if n == 0 { two } else { one }, n as u64);
            moved.note(sid(n), Revision::V4, key, now, &Arc::default());
        }
        for n in 2..10_000 {
            moved.end((one, n));
        }
        let room = |moved: &Moved| {
            let of_instances = moved.by_key.values().map(HashMap::capacity);
            moved.by_sid.capacity() + of_instances.sum::<usize>()
        };
        assert!(room(&moved) <= 200, "{}", room(&moved));
        for n in 2..10_000 {
            moved.note(sid(n), Revision::V4, (one, n as u64), now, &Arc::default());
        }
        moved.lose(|of, _| of == one);
        assert!(room(&moved) <= 200, "{}", room(&moved));
    }
}
