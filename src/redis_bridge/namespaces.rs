//! Which namespaces are listened to: those of the start, always; others while they have sockets here.
//!
//! A table that the actor changes and the link follows. Knows no connection. The link is told that something changed, not
//! what: it compares, so that nothing is missed however often it reconnects.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::wire::Channels;
use crate::{
    adapter::{channel, kind::AdapterKind, uid::Uid},
    engine_io::sid::InstanceId,
    peers::Peers,
    socket_io::ids::Namespace,
};

/// The table.
#[derive(Debug)]
pub(super) struct Namespaces {
    adapter: AdapterKind,
    prefix: String,
    uid: Uid,
    /// Where this instance hears what is said to it alone.
    private: String,
    /// Where all instances of Sockhop hear what is said to all of them.
    shared: String,
    fixed: HashSet<Namespace>,
    open: Mutex<HashMap<Namespace, Arc<Channels>>>,
    changed: Notify,
    /// What the link listens to, as the bus has confirmed: it comes behind the table.
    in_force: watch::Sender<HashSet<Namespace>>,
}

impl Namespaces {
    /// Returns a table of `fixed`, which are never closed. `prefix` begins the names of all channels; `peers` says who
    /// listens.
    pub(super) fn new(
        adapter: AdapterKind,
        prefix: &str,
        peers: &Peers,
        fixed: Vec<Namespace>,
    ) -> Self {
        let table = Self {
            adapter,
            prefix: prefix.to_owned(),
            uid: peers.uid().clone(),
            private: channel::private(prefix, peers.instance()),
            shared: channel::shared(prefix),
            fixed: fixed.iter().cloned().collect(),
            open: Mutex::default(),
            changed: Notify::new(),
            in_force: watch::Sender::default(),
        };
        for namespace in fixed {
            table.open(namespace);
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Arc<Channels>>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, namespace: Namespace) -> Arc<Channels> {
        let channels = Channels::new(self.adapter, &self.prefix, namespace, &self.uid);
        Arc::new(channels)
    }

    /// Returns the channel on which this instance hears what is said to it alone.
    pub(super) fn own_private(&self) -> &str {
        &self.private
    }

    /// Returns the channel on which all instances of Sockhop hear what is said to all of them.
    pub(super) fn shared(&self) -> &str {
        &self.shared
    }

    /// Returns the channel on which another instance hears what is said to it alone.
    pub(super) fn private_of(&self, instance: InstanceId) -> String {
        channel::private(&self.prefix, instance)
    }

    /// Adds a namespace.
    pub(super) fn open(&self, namespace: Namespace) {
        self.lock()
            .entry(namespace.clone())
            .or_insert_with(|| self.make(namespace));
        self.changed.notify_one();
    }

    /// Removes a namespace, unless it is one of the start.
    pub(super) fn close(&self, namespace: &Namespace) {
        if !self.is_fixed(namespace) {
            self.lock().remove(namespace);
            self.changed.notify_one();
        }
    }

    /// Returns whether a namespace is one of the start.
    pub(super) fn is_fixed(&self, namespace: &Namespace) -> bool {
        self.fixed.contains(namespace)
    }

    /// Returns whether a namespace is listened to, or will be at once.
    pub(super) fn is_open(&self, namespace: &Namespace) -> bool {
        self.lock().contains_key(namespace)
    }

    /// Notes what is listened to. From the link.
    pub(super) fn note_in_force(&self, in_force: HashSet<Namespace>) {
        self.in_force.send_replace(in_force);
    }

    /// Waits until a namespace that is open is listened to, and one that is not is not; returns whether it is.
    pub(super) async fn settled(&self, namespace: &Namespace) -> bool {
        let mut in_force = self.in_force.subscribe();
        let settled =
            in_force.wait_for(|names| names.contains(namespace) == self.is_open(namespace));
        // The sender is our own.
        settled.await.is_ok_and(|names| names.contains(namespace))
    }

    /// Returns whether a namespace is listened to now, and the bus has confirmed it.
    pub(super) fn is_in_force(&self, namespace: &Namespace) -> bool {
        self.is_open(namespace) && self.in_force.borrow().contains(namespace)
    }

    /// Returns the channels of a namespace, whether it is listened to or not: one can send where one has no sockets.
    pub(super) fn channels(&self, namespace: &Namespace) -> Arc<Channels> {
        let open = self.lock().get(namespace).cloned();
        open.unwrap_or_else(|| self.make(namespace.clone()))
    }

    /// Returns all that are to be listened to.
    pub(super) fn all(&self) -> HashMap<Namespace, Arc<Channels>> {
        self.lock().clone()
    }

    /// Returns a channel that is listened to here and by nobody else, if any is.
    pub(super) fn own_channel(&self) -> Option<String> {
        let open = self.lock();
        let channels = open
            .values()
            .min_by(|a, b| a.namespace().as_str().cmp(b.namespace().as_str()))?;
        Some(channels.own().to_owned())
    }

    /// Waits until something has changed since the last call. For one waiter; may be dropped while it waits.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
