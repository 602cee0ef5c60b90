//! What one connection listens to, and what is meant by a name under which a message arrives.
//!
//! A plain struct, without connection. It follows the table of namespaces; each time it says what to add and to remove.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    bus::{Inbound, Names},
    namespaces::{Channels, Namespaces},
};
use crate::{
    adapter::channel::{Addressed, Carries},
    socket_io::ids::Namespace,
};

/// What a message is, by its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A broadcast, and whom it promises to reach.
    Broadcast(Addressed),
    /// A request, or a response.
    Call(Carries),
}

/// Where a message belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To a namespace.
    Namespace(Arc<Channels>, Kind),
    /// To this instance alone.
    Private,
}

/// What is listened to.
#[derive(Debug, Default)]
pub(super) struct Listening {
    by_namespace: HashMap<Namespace, Arc<Channels>>,
    by_pattern: HashMap<String, Arc<Channels>>,
    by_channel: HashMap<String, Arc<Channels>>,
    /// Where this instance hears what is said to it alone, once that is listened to.
    private: Option<String>,
}

impl Listening {
    /// Becomes what the table says; returns what to listen to besides, and what no more.
    pub(super) fn follow(&mut self, table: &Namespaces) -> (Names, Names) {
        let wanted = table.all();
        let (mut add, mut remove) = (Names::default(), Names::default());
        if self.private.is_none() {
            let private = table.own_private().to_owned();
            add.channels.push(private.clone());
            self.private = Some(private);
        }
        let gone: Vec<_> = self
            .by_namespace
            .extract_if(|namespace, _| !wanted.contains_key(namespace))
            .collect();
        for (_, channels) in gone {
            let pattern = channels.broadcasts.pattern();
            self.by_pattern.remove(pattern);
            remove.patterns.push(pattern.to_owned());
            for name in channels.requests.subscribe_to() {
                self.by_channel.remove(name);
                remove.channels.push(name.to_owned());
            }
        }
        for (namespace, channels) in wanted {
            if self.by_namespace.contains_key(&namespace) {
                continue;
            }
            let pattern = channels.broadcasts.pattern().to_owned();
            add.patterns.push(pattern.clone());
            self.by_pattern.insert(pattern, Arc::clone(&channels));
            for name in channels.requests.subscribe_to() {
                add.channels.push(name.to_owned());
                self.by_channel
                    .insert(name.to_owned(), Arc::clone(&channels));
            }
            self.by_namespace.insert(namespace, channels);
        }
        (add, remove)
    }

    /// Returns the namespaces.
    pub(super) fn namespaces(&self) -> HashSet<Namespace> {
        self.by_namespace.keys().cloned().collect()
    }

    /// Returns where a message belongs; `None` if its name is none that is listened to.
    pub(super) fn place(&self, inbound: &Inbound) -> Option<Place> {
        let channel = &inbound.channel;
        if inbound.pattern.is_none() && self.private.as_ref().is_some_and(|own| own == channel) {
            return Some(Place::Private);
        }
        let (channels, kind) = match &inbound.pattern {
            Some(pattern) => {
                let channels = self.by_pattern.get(pattern)?;
                let addressed = channels.broadcasts.addressed(channel)?;
                (channels, Kind::Broadcast(addressed))
            }
            None => {
                let channels = self.by_channel.get(std::str::from_utf8(channel).ok()?)?;
                (channels, Kind::Call(channels.requests.carries(channel)?))
            }
        };
        Some(Place::Namespace(Arc::clone(channels), kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::uid::Uid, engine_io::sid::InstanceId};

    fn table(uid: &Uid) -> Namespaces {
        let instance = InstanceId::parse("Ab3dE6gH").unwrap();
        Namespaces::new("p", uid, instance, vec!["/a".into()])
    }

    fn inbound(pattern: Option<&str>, channel: &'static str) -> Inbound {
        Inbound {
            pattern: pattern.map(str::to_owned),
            channel: channel.into(),
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn it_adds_what_is_new_and_removes_what_is_gone() {
        let uid = Uid::parse("abcdef").unwrap();
        let table = table(&uid);
        let mut listening = Listening::default();
        let (add, remove) = listening.follow(&table);
        assert_eq!(add.patterns, ["p#/a#*"]);
        assert_eq!(
            add.channels,
            [
                "p-sockhop#Ab3dE6gH#",
                "p-request#/a#",
                "p-response#/a#",
                "p-response#/a#abcdef#"
            ]
        );
        assert!(remove.is_empty());

        table.open("/b".into());
        table.close(&"/a".into());
        let (add, remove) = listening.follow(&table);
        assert_eq!(
            add.patterns,
            ["p#/b#*"],
            "what is there from the start stays"
        );
        assert!(remove.is_empty());
        assert_eq!(listening.follow(&table), Default::default());

        table.close(&"/b".into());
        let (add, remove) = listening.follow(&table);
        assert!(add.is_empty());
        assert_eq!(remove.patterns, ["p#/b#*"]);
        assert_eq!(remove.channels.len(), 3);
        assert_eq!(listening.place(&inbound(None, "p-request#/b#")), None);
    }

    #[test]
    fn a_name_tells_what_a_message_is() {
        let uid = Uid::parse("abcdef").unwrap();
        let table = table(&uid);
        let mut listening = Listening::default();
        listening.follow(&table);
        let kind = |pattern, channel| match listening.place(&inbound(pattern, channel)) {
            Some(Place::Namespace(_, kind)) => Some(kind),
            Some(Place::Private) => panic!("{channel} is private"),
            None => None,
        };
        let own = inbound(None, "p-sockhop#Ab3dE6gH#");
        assert_eq!(listening.place(&own), Some(Place::Private));
        assert_eq!(kind(None, "p-sockhop#Ab3dE6gX#"), None);
        assert_eq!(kind(Some("p#/a#*"), "p-sockhop#Ab3dE6gH#"), None);
        assert_eq!(
            kind(None, "p-request#/a#"),
            Some(Kind::Call(Carries::Requests))
        );
        assert_eq!(
            kind(None, "p-response#/a#"),
            Some(Kind::Call(Carries::Responses))
        );
        assert_eq!(
            kind(None, "p-response#/a#abcdef#"),
            Some(Kind::Call(Carries::Responses))
        );
        assert_eq!(kind(None, "p-response#/a#ghijkl#"), None);
        let to_all = Some(Kind::Broadcast(Addressed::Namespace));
        assert_eq!(kind(Some("p#/a#*"), "p#/a#"), to_all);
        assert_eq!(kind(None, "p#/a#"), None);
        assert_eq!(kind(Some("p#/b#*"), "p#/b#"), None);
    }
}
