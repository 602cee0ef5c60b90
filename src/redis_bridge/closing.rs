//! Until when each namespace is listened to whether it has sockets here or not, and which have some.
//!
//! Plain struct, without a clock of its own: one timer, for whichever is due first, does for thousands. Clients may invent names.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use crate::socket_io::ids::Namespace;

/// When a namespace is due, and a number that tells it from others of that moment.
type Due = (Instant, u64);

/// What keeps namespaces open. Those of the start, which are never closed, are none of its business.
#[derive(Debug, Default)]
pub(super) struct Closing {
    by_due: BTreeMap<Due, Namespace>,
    by_name: HashMap<Namespace, Due>,
    num_added: u64,
    /// Which have sockets here.
    occupied: HashSet<Namespace>,
    /// How many are kept that have none.
    num_idle: usize,
}

impl Closing {
    /// Notes that a namespace has sockets here.
    pub(super) fn enter(&mut self, namespace: Namespace) {
        let is_kept = self.by_name.contains_key(&namespace);
        if self.occupied.insert(namespace) && is_kept {
            self.num_idle -= 1;
        }
    }

    /// Notes that it has none any more, and is left at that time, unless it was to be kept for longer.
    pub(super) fn leave(&mut self, namespace: Namespace, at: Instant) {
        if self.occupied.remove(&namespace) && self.by_name.contains_key(&namespace) {
            self.num_idle += 1;
        }
        self.keep(namespace, at);
    }

    /// Keeps a namespace no longer.
    pub(super) fn forget(&mut self, namespace: &Namespace) {
        if let Some(due) = self.by_name.remove(namespace) {
            self.by_due.remove(&due);
            self.num_idle -= usize::from(!self.occupied.contains(namespace));
        }
    }

    /// Returns how many namespaces are kept that have no sockets here.
    pub(super) fn num_idle(&self) -> usize {
        self.num_idle
    }

    /// Keeps a namespace, whether it has sockets or not, until that time, unless it was to be kept for longer.
    pub(super) fn keep(&mut self, namespace: Namespace, until: Instant) {
        let before = self.by_name.get(&namespace);
        if before.is_some_and(|(at, _)| *at >= until) {
            return;
        }
        self.num_added += 1;
        let due = (until, self.num_added);
        match self.by_name.insert(namespace.clone(), due) {
            Some(before) => _ = self.by_due.remove(&before),
            None => self.num_idle += usize::from(!self.occupied.contains(&namespace)),
        }
        self.by_due.insert(due, namespace);
    }

    /// Returns when the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due and has no sockets: it is to be closed. One that has some is closed after they have left.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Namespace> {
        while let Some(first) = self.by_due.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                return None;
            }
            let namespace = first.remove();
            self.by_name.remove(&namespace);
            if !self.occupied.contains(&namespace) {
                self.num_idle -= 1;
                return Some(namespace);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn closed(closing: &mut Closing, now: Instant) -> Vec<Namespace> {
        std::iter::from_fn(|| closing.take_due(now)).collect()
    }

    #[test]
    fn each_is_closed_when_it_is_due_and_has_no_sockets() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut closing = Closing::default();
        assert_eq!((closing.next(), closing.take_due(at(9))), (None, None));
        for (name, seconds) in [("/a", 2), ("/b", 5), ("/c", 3), ("/d", 4)] {
            closing.leave(name.into(), at(seconds));
        }
        // Somebody has come back.
        closing.enter("/d".into());
        assert_eq!(
            (closing.next(), closing.take_due(at(1))),
            (Some(at(2)), None)
        );
        assert_eq!(closed(&mut closing, at(4)), ["/a".into(), "/c".into()]);
        assert_eq!(closing.next(), Some(at(5)));
        assert_eq!(closed(&mut closing, at(5)), ["/b".into()]);
        closing.leave("/d".into(), at(7));
        assert_eq!(closed(&mut closing, at(7)), ["/d".into()]);
        assert!(closing.by_due.is_empty() && closing.by_name.is_empty());
        assert!(closing.occupied.is_empty());
    }

    #[test]
    fn those_that_are_kept_without_sockets_are_counted_once_each() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut closing = Closing::default();
        closing.keep("/asked".into(), at(9));
        closing.keep("/asked".into(), at(10));
        closing.enter("/a".into());
        closing.enter("/a".into());
        assert_eq!(closing.num_idle(), 1, "one that has sockets is not kept");
        closing.keep("/a".into(), at(8));
        assert_eq!(closing.num_idle(), 1, "nor is it idle if it is kept");
        closing.leave("/a".into(), at(5));
        closing.leave("/never".into(), at(5));
        assert_eq!(closing.num_idle(), 3);
        closing.enter("/asked".into());
        assert_eq!(closing.num_idle(), 2);
        closing.leave("/asked".into(), at(5));
        closing.forget(&"/asked".into());
        closing.forget(&"/asked".into());
        assert_eq!(closing.num_idle(), 2);
        closing.enter("/never".into());
        closing.forget(&"/never".into());
        assert_eq!(closing.num_idle(), 1);
        assert_eq!(closed(&mut closing, at(10)), ["/a".into()]);
        assert_eq!(closing.num_idle(), 0);
    }

    /// A bug: a later, shorter time took the place of a longer one, and what was still to be answered was not heard.
    #[test]
    fn the_longest_time_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut closing = Closing::default();
        closing.keep("/a".into(), at(65));
        closing.keep("/a".into(), at(6));
        assert_eq!(closed(&mut closing, at(64)), []);
        closing.keep("/a".into(), at(70));
        assert_eq!(closed(&mut closing, at(69)), []);
        assert_eq!(closed(&mut closing, at(70)), ["/a".into()]);
    }

    /// A bug: nothing was noted of a question in a namespace that had sockets; its answers were lost after the last of them.
    #[test]
    fn what_is_asked_where_sockets_are_is_heard_after_they_have_left() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut closing = Closing::default();
        closing.enter("/a".into());
        closing.keep("/a".into(), at(65));
        closing.leave("/a".into(), at(5));
        assert_eq!(closed(&mut closing, at(64)), []);
        assert_eq!(closed(&mut closing, at(65)), ["/a".into()]);
        // While they stay, nothing is kept of what is over.
        closing.enter("/a".into());
        closing.keep("/a".into(), at(70));
        assert_eq!(closed(&mut closing, at(70)), []);
        assert!(closing.by_due.is_empty() && closing.by_name.is_empty());
    }
}
