//! Which namespaces are listened to: those of the start, always; others while they have sockets here.
//!
//! A table that the actor changes and the link follows. Knows no connection. A link that begins looks at everything, so that nothing is
//! missed however often it reconnects; from then on it is told what has changed since it looked last, or, if that is too
//! much to note, to look at everything again. Clients may invent names: what one costs must not grow with how many there are.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::wire::Channels;
use crate::{
    adapter::{channel, kind::AdapterKind, uid::Uid},
    changes::{Changes, Named},
    engine_io::sid::InstanceId,
    peers::Peers,
    socket_io::ids::Namespace,
};

impl Named for Namespace {
    fn len_bytes(&self) -> usize {
        self.as_str().len()
    }
}

/// What whoever follows the table is told.
#[derive(Debug)]
pub(super) enum News {
    /// These were opened, or closed, since it looked last.
    Some(Vec<(Namespace, Option<Arc<Channels>>)>),
    /// These are all that are to be listened to.
    All(HashMap<Namespace, Arc<Channels>>),
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Namespace, Arc<Channels>>,
    /// Which were opened or closed.
    changes: Changes<Namespace>,
}

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
    state: Mutex<State>,
    changed: Notify,
    /// What the link listens to, as the bus has confirmed, without what is about to go: it comes behind the table.
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
            state: Mutex::default(),
            changed: Notify::new(),
            in_force: watch::Sender::default(),
        };
        for namespace in fixed {
            table.open(namespace);
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics in there; if it did, the table would still be one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut state = self.lock();
        if let Entry::Vacant(place) = state.open.entry(namespace.clone()) {
            place.insert(self.make(namespace.clone()));
            state.changes.note(&namespace);
            self.changed.notify_one();
        }
    }

    /// Removes a namespace, unless it is one of the start.
    pub(super) fn close(&self, namespace: &Namespace) {
        if self.is_fixed(namespace) {
            return;
        }
        let mut state = self.lock();
        if state.open.remove(namespace).is_some() {
            state.changes.note(namespace);
            self.changed.notify_one();
        }
    }

    /// Returns whether a namespace is one of the start.
    pub(super) fn is_fixed(&self, namespace: &Namespace) -> bool {
        self.fixed.contains(namespace)
    }

    /// Returns whether a namespace is listened to, or will be at once.
    pub(super) fn is_open(&self, namespace: &Namespace) -> bool {
        self.lock().open.contains_key(namespace)
    }

    /// Notes that nothing is listened to any more. From the link.
    pub(super) fn forget_in_force(&self) {
        self.in_force.send_replace(HashSet::new());
    }

    /// Notes what is listened to from now on: the bus has confirmed it. From the link.
    pub(super) fn note_in_force(&self, come: Vec<Namespace>) {
        if !come.is_empty() {
            self.in_force.send_modify(|in_force| in_force.extend(come));
        }
    }

    /// Notes what is about to be listened to no more. Before the bus hears of it: one that is opened again meanwhile is listened to only once
    /// the bus has confirmed that, too. From the link.
    pub(super) fn note_gone(&self, gone: &[Namespace]) {
        if !gone.is_empty() {
            self.in_force.send_modify(|in_force| {
                for namespace in gone {
                    in_force.remove(namespace);
                }
            });
        }
    }

    /// Waits until a namespace that is open is listened to, and one that is not is about to be so no more; returns whether it is listened to.
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
        let open = self.lock().open.get(namespace).cloned();
        open.unwrap_or_else(|| self.make(namespace.clone()))
    }

    /// Returns the names of all that are to be listened to.
    pub(super) fn names(&self) -> Vec<Namespace> {
        self.lock().open.keys().cloned().collect()
    }

    /// Returns all that are to be listened to, and notes from now on what changes.
    pub(super) fn all(&self) -> News {
        let mut state = self.lock();
        state.changes.begin();
        News::All(state.open.clone())
    }

    /// Returns what has changed since the last call of this or of [`Self::all`].
    pub(super) fn news(&self) -> News {
        let mut state = self.lock();
        let Some(changed) = state.changes.take() else {
            drop(state);
            return self.all();
        };
        let told = changed.into_iter().map(|namespace| {
            let channels = state.open.get(&namespace).cloned();
            (namespace, channels)
        });
        News::Some(told.collect())
    }

    /// Returns a channel that is listened to here and by nobody else, if any is.
    pub(super) fn own_channel(&self) -> Option<String> {
        let state = self.lock();
        let channels = state
            .open
            .values()
            .min_by(|a, b| a.namespace().as_str().cmp(b.namespace().as_str()))?;
        Some(channels.own().to_owned())
    }

    /// Waits until something has changed since the last call. For one waiter; may be dropped while it waits.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(fixed: &[&str]) -> Namespaces {
        let uid = Uid::parse("abcdef").unwrap();
        let peers = Peers::new(InstanceId::parse("Ab3dE6gH").unwrap(), uid);
        let fixed = fixed.iter().map(|name| (*name).into()).collect();
        Namespaces::new(AdapterKind::Classic, "p", &peers, fixed)
    }

    /// Returns what is told, with whether all is; sorted.
    fn told(news: News) -> (bool, Vec<(String, bool)>) {
        let (is_all, mut told): (_, Vec<_>) = match news {
            News::Some(some) => (
                false,
                some.into_iter()
                    .map(|(name, channels)| (name.to_string(), channels.is_some()))
                    .collect(),
            ),
            News::All(all) => (
                true,
                all.into_keys()
                    .map(|name| (name.to_string(), true))
                    .collect(),
            ),
        };
        told.sort();
        (is_all, told)
    }

    #[test]
    fn who_follows_is_told_what_was_opened_or_closed_and_not_what_stayed() {
        let table = table(&["/a"]);
        let name = |name: &str| (name.to_owned(), true);
        assert_eq!(
            told(table.news()),
            (true, vec![name("/a")]),
            "nobody looked before"
        );
        assert_eq!(told(table.news()), (false, vec![]));
        for at in 0..3 {
            table.open(format!("/{at}").as_str().into());
        }
        table.open("/a".into());
        table.close(&"/a".into());
        table.close(&"/1".into());
        table.close(&"/never".into());
        let news = vec![name("/0"), ("/1".to_owned(), false), name("/2")];
        assert_eq!(told(table.news()), (false, news));
        table.close(&"/0".into());
        assert_eq!(told(table.all()), (true, vec![name("/2"), name("/a")]));
        assert_eq!(told(table.news()), (false, vec![]), "all was told");
    }

    #[tokio::test]
    async fn what_is_in_force_follows_what_was_confirmed() {
        let table = table(&["/a"]);
        let (a, b) = (Namespace::from("/a"), Namespace::from("/b"));
        assert!(!table.is_in_force(&a));
        table.note_in_force(vec![a.clone(), b.clone()]);
        assert!(table.is_in_force(&a) && table.settled(&a).await);
        assert!(!table.is_in_force(&b), "it is not open");
        table.open(b.clone());
        assert!(table.is_in_force(&b));
        table.note_gone(std::slice::from_ref(&b));
        assert!(!table.is_in_force(&b) && table.is_in_force(&a));
        table.forget_in_force();
        assert!(!table.is_in_force(&a));
    }
}
