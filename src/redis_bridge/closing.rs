//! Namespaces that are closed after a while, unless they are opened meanwhile.
//!
//! Plain struct, without a clock of its own: one timer, for whichever is due first, does for thousands. Clients may invent names.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use crate::socket_io::ids::Namespace;

/// When a namespace is due, and a number that tells it from others of that moment.
type Due = (Instant, u64);

/// Those that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    by_due: BTreeMap<Due, Namespace>,
    by_name: HashMap<Namespace, Due>,
    num_added: u64,
}

impl Closing {
    /// Returns whether a namespace is to be closed.
    pub(super) fn contains(&self, namespace: &Namespace) -> bool {
        self.by_name.contains_key(namespace)
    }

    /// Closes a namespace at some time, whatever was said of it before.
    pub(super) fn put(&mut self, namespace: Namespace, at: Instant) {
        self.num_added += 1;
        let due = (at, self.num_added);
        if let Some(before) = self.by_name.insert(namespace.clone(), due) {
            self.by_due.remove(&before);
        }
        self.by_due.insert(due, namespace);
    }

    /// Leaves a namespace open. Returns whether it was to be closed.
    pub(super) fn take(&mut self, namespace: &Namespace) -> bool {
        let due = self.by_name.remove(namespace);
        due.is_some_and(|due| self.by_due.remove(&due).is_some())
    }

    /// Returns when the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Namespace> {
        let first = self.by_due.first_entry()?;
        let (at, _) = *first.key();
        if at > now {
            return None;
        }
        let namespace = first.remove();
        self.by_name.remove(&namespace);
        Some(namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_closed_when_it_was_last_said_to_be_and_not_at_all_if_it_was_taken_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut closing = Closing::default();
        assert_eq!((closing.next(), closing.take_due(at(9))), (None, None));
        for (name, seconds) in [("/a", 5), ("/b", 5), ("/c", 3), ("/d", 4), ("/a", 2)] {
            closing.put(name.into(), at(seconds));
        }
        assert!(closing.contains(&"/d".into()) && closing.take(&"/d".into()));
        assert!(!closing.contains(&"/d".into()) && !closing.take(&"/d".into()));
        assert_eq!(
            (closing.next(), closing.take_due(at(1))),
            (Some(at(2)), None)
        );
        let due: Vec<_> = std::iter::from_fn(|| closing.take_due(at(4))).collect();
        assert_eq!(due, ["/a".into(), "/c".into()]);
        assert_eq!(
            (closing.next(), closing.take_due(at(4))),
            (Some(at(5)), None)
        );
        assert_eq!(closing.take_due(at(5)), Some("/b".into()));
        assert!(closing.by_due.is_empty() && closing.by_name.is_empty());
    }
}
