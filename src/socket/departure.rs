//! The sockets of a session that is about to move to another instance: what its Socket actor, the hub and the relay know of them in
//! common.
//!
//! Exists while a WebSocket elsewhere probes, and is closed by the hub when it lets the sockets go: whatever joins from then on joins
//! there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::socket_io::ids::{Namespace, SocketId};

/// See the module.
#[derive(Debug, Default)]
pub struct Departure(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    members: Vec<(Namespace, SocketId)>,
    is_closed: bool,
}

impl Departure {
    /// Returns one of these sockets.
    pub(super) fn of(members: Vec<(Namespace, SocketId)>) -> Self {
        let is_closed = false;
        Self(Mutex::new(State { members, is_closed }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics in there; if it did, the list would still be one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a socket, before it is registered, and returns whether it may be: not if the others have left already. From its actor.
    #[must_use]
    pub(super) fn add(&self, namespace: &Namespace, id: &SocketId) -> bool {
        let mut state = self.lock();
        if !state.is_closed {
            state.members.push((namespace.clone(), id.clone()));
        }
        !state.is_closed
    }

    /// Removes a socket, before it is unregistered. From its actor.
    pub(super) fn remove(&self, id: &SocketId) {
        self.lock().members.retain(|(_, member)| member != id);
    }

    /// Returns the namespaces.
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let state = self.lock();
        let members = state.members.iter();
        members.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Returns whether the sockets have left. A socket that registers later does so elsewhere.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Lets the sockets go, if each one's namespace is listened to where they go. From the hub.
    ///
    /// # Errors
    /// Those that are not.
    pub(crate) fn close(
        &self,
        is_listened_to: impl Fn(&Namespace) -> bool,
    ) -> Result<Vec<(Namespace, SocketId)>, Vec<Namespace>> {
        let mut state = self.lock();
        let namespaces = state.members.iter().map(|(namespace, _)| namespace);
        let missing: Vec<_> = namespaces
            .filter(|namespace| !is_listened_to(namespace))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        state.is_closed = true;
        Ok(std::mem::take(&mut state.members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_together_or_not_at_all() {
        let departure = Departure::of(vec![("/a".into(), "1".into())]);
        assert!(departure.add(&"/b".into(), &"2".into()));
        assert!(departure.add(&"/c".into(), &"3".into()));
        departure.remove(&"3".into());
        let is_a = |namespace: &Namespace| namespace.as_str() == "/a";
        assert_eq!(departure.close(is_a), Err(vec!["/b".into()]));
        assert!(!departure.is_closed());
        assert_eq!(departure.close(|_| true).unwrap().len(), 2);
        assert!(departure.is_closed() && departure.namespaces().is_empty());
        assert!(!departure.add(&"/d".into(), &"4".into()), "it stays behind");
        assert!(departure.namespaces().is_empty());
    }
}
