//! Whether anybody here could receive a message: what the bridge may know of membership, so that it reads no message in vain.
//!
//! A view, not an owner: the hub alone changes membership. A "nobody" is only said when it is true for every message that
//! was published after a client learned of its socket: a socket whose registration is still on its way to the hub counts as
//! being everywhere.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::socket_io::ids::{Namespace, Room};

type HasMembers = dyn Fn(&Namespace, Option<&Room>) -> bool + Send + Sync;

/// A view of one hub's membership. Cheap to clone.
#[derive(Clone)]
pub struct Interest {
    has_members: Arc<HasMembers>,
    num_registering: Arc<AtomicUsize>,
}

/// A socket on its way to the hub; there when dropped.
#[derive(Debug)]
pub struct Registering(Arc<AtomicUsize>);

impl Interest {
    /// Returns a view by a function that says whether a namespace, or a room of it, has members.
    pub(super) fn new(
        has_members: impl Fn(&Namespace, Option<&Room>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            has_members: Arc::new(has_members),
            num_registering: Arc::default(),
        }
    }

    /// Returns a view of somewhere that everything is of interest.
    #[cfg(test)]
    pub(crate) fn in_everything() -> Self {
        Self::new(|_, _| true)
    }

    /// Returns a view of somewhere that one room alone has members.
    #[cfg(test)]
    pub(crate) fn in_room(name: &'static str) -> Self {
        Self::new(move |_, room| room.is_some_and(|room| room.as_str() == name))
    }

    /// Returns whether a message for `room`, or for the namespace, could reach anybody.
    pub fn is_there(&self, namespace: &Namespace, room: Option<&Room>) -> bool {
        // In this order: the hub adds the socket first, and counts it down then.
        self.is_anybody_registering() || (self.has_members)(namespace, room)
    }

    /// Returns whether sockets are on their way to the hub, from clients or from other instances.
    pub fn is_anybody_registering(&self) -> bool {
        self.num_registering.load(SeqCst) > 0
    }

    /// Notes a socket that is about to be registered. From the Socket actor, before its client learns of it; or from whoever takes
    /// a session over, for as long as it is on its way.
    pub fn register(&self) -> Registering {
        self.num_registering.fetch_add(1, SeqCst);
        Registering(Arc::clone(&self.num_registering))
    }
}

impl Drop for Registering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest")
            .field("num_registering", &self.num_registering)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_on_its_way_is_everywhere() {
        let interest = Interest::in_room("red");
        let is_there = |room: &str| interest.is_there(&"/".into(), Some(&room.into()));
        assert!(is_there("red") && !is_there("blue"));
        let (one, two) = (interest.register(), interest.register());
        assert!(is_there("blue"));
        drop(one);
        assert!(is_there("blue"));
        drop(two);
        assert!(!is_there("blue"));
    }
}
