//! What one connection listens to, and what is meant by a name under which a message arrives.
//!
//! A plain struct, without connection. It follows the table of namespaces and, with an adapter that gives rooms channels,
//! that of rooms; each time it says what to add and to remove, and which namespaces go by that; it keeps which come until the bus has
//! confirmed it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use super::{
    bus::{Inbound, Names},
    namespaces::{self, Namespaces},
    private::Audience,
    wire::{Channels, Kind},
};
use crate::{
    hub::room_table::News,
    socket_io::ids::{Namespace, Room},
};

/// What to listen to besides, and what no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) add: Names,
    pub(super) remove: Names,
    /// Which namespaces cannot be counted on any more.
    pub(super) gone: Vec<Namespace>,
}

impl Change {
    /// Returns whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Adds what another says.
    pub(super) fn merge(&mut self, other: Self) {
        for (all, more) in [(&mut self.add, other.add), (&mut self.remove, other.remove)] {
            all.patterns.extend(more.patterns);
            all.channels.extend(more.channels);
        }
        self.gone.extend(other.gone);
    }
}

/// What is listened to.
#[derive(Debug, Default)]
pub(super) struct Listening {
    by_namespace: HashMap<Namespace, Arc<Channels>>,
    rooms: HashSet<(Namespace, Room)>,
    by_pattern: HashMap<String, Arc<Channels>>,
    /// To whom a channel belongs. There may be several: `/a` has a room whose channel is that of `/a#room`.
    by_channel: HashMap<String, Vec<Arc<Channels>>>,
    /// Where instances of Sockhop are heard, and whom they speak to there, once that is listened to.
    said: Vec<(String, Audience)>,
    /// Which namespaces came since [`Listening::confirm`].
    unconfirmed: Vec<Namespace>,
}

impl Listening {
    /// Becomes what the table of namespaces says. The names are those of `table`.
    pub(super) fn follow(&mut self, news: namespaces::News, table: &Namespaces) -> Change {
        let mut change = Change::default();
        if self.said.is_empty() {
            self.said = vec![
                (table.own_private().to_owned(), Audience::One),
                (table.shared().to_owned(), Audience::All),
            ];
            let names = self.said.iter().map(|(name, _)| name.clone());
            change.add.channels.extend(names);
        }
        let news = match news {
            namespaces::News::Some(news) => news,
            namespaces::News::All(all) => {
                let known = self.by_namespace.keys();
                let gone = known.filter(|namespace| !all.contains_key(*namespace));
                let gone: Vec<_> = gone.map(|namespace| (namespace.clone(), None)).collect();
                let come = all.into_iter();
                let come = come.map(|(namespace, channels)| (namespace, Some(channels)));
                gone.into_iter().chain(come).collect()
            }
        };
        for (namespace, channels) in news {
            match channels {
                Some(channels) => self.begin(namespace, channels, &mut change),
                None => self.end(namespace, &mut change),
            }
        }
        change
    }

    fn begin(&mut self, namespace: Namespace, channels: Arc<Channels>, change: &mut Change) {
        let Entry::Vacant(place) = self.by_namespace.entry(namespace.clone()) else {
            return;
        };
        place.insert(Arc::clone(&channels));
        let Names {
            patterns,
            channels: names,
        } = channels.listen_to();
        for pattern in patterns {
            change.add.patterns.push(pattern.clone());
            self.by_pattern.insert(pattern, Arc::clone(&channels));
        }
        for name in names {
            self.enter(name, Arc::clone(&channels), change);
        }
        self.unconfirmed.push(namespace);
    }

    fn end(&mut self, namespace: Namespace, change: &mut Change) {
        let Some(channels) = self.by_namespace.remove(&namespace) else {
            return;
        };
        let Names {
            patterns,
            channels: names,
        } = channels.listen_to();
        for pattern in patterns {
            self.by_pattern.remove(&pattern);
            change.remove.patterns.push(pattern);
        }
        for name in names {
            self.leave(name, &channels, change);
        }
        change.gone.push(namespace);
    }

    /// Takes which namespaces came: the bus has confirmed all that was said to be added or removed.
    pub(super) fn confirm(&mut self) -> Vec<Namespace> {
        std::mem::take(&mut self.unconfirmed)
    }

    /// Returns whom a message speaks to that is from an instance of Sockhop to others of its kind; nothing of any other.
    pub(super) fn audience(&self, inbound: &Inbound) -> Option<Audience> {
        if inbound.pattern.is_some() {
            return None;
        }
        let mut said = self.said.iter();
        let (_, audience) = said.find(|(name, _)| *name == inbound.channel)?;
        Some(*audience)
    }

    /// Becomes what the table of rooms says. The names are those of `table`.
    pub(super) fn follow_rooms(&mut self, news: News, table: &Namespaces) -> Change {
        let news = match news {
            News::Some(news) => news,
            News::All(all) => {
                let gone = self.rooms.difference(&all);
                let come = all.difference(&self.rooms);
                let tell = |(namespace, room): &(Namespace, Room), is_there| {
                    (namespace.clone(), room.clone(), is_there)
                };
                gone.map(|room| tell(room, false))
                    .chain(come.map(|room| tell(room, true)))
                    .collect()
            }
        };
        let mut change = Change::default();
        for (namespace, room, is_there) in news {
            let channels = table.channels(&namespace);
            let Some(name) = channels.of_room(&room) else {
                continue;
            };
            if is_there {
                if self.rooms.insert((namespace, room)) {
                    self.enter(name, channels, &mut change);
                }
            } else if self.rooms.remove(&(namespace, room)) {
                self.leave(name, &channels, &mut change);
            }
        }
        change
    }

    fn enter(&mut self, name: String, channels: Arc<Channels>, change: &mut Change) {
        let owners = self.by_channel.entry(name.clone()).or_default();
        if owners.is_empty() {
            change.add.channels.push(name);
        }
        owners.push(channels);
    }

    fn leave(&mut self, name: String, channels: &Channels, change: &mut Change) {
        let Some(owners) = self.by_channel.get_mut(&name) else {
            return;
        };
        owners.retain(|owner| owner.namespace() != channels.namespace());
        if owners.is_empty() {
            self.by_channel.remove(&name);
            change.remove.channels.push(name);
        }
    }

    /// Returns which namespaces a message may be for, and what it is there; nothing if its name is none that is listened to.
    pub(super) fn places<'a>(
        &'a self,
        inbound: &'a Inbound,
    ) -> impl Iterator<Item = (&'a Arc<Channels>, Kind)> {
        let (by_pattern, by_channel) = match &inbound.pattern {
            Some(pattern) => (self.by_pattern.get(pattern), None),
            None => {
                let name = std::str::from_utf8(&inbound.channel).ok();
                (None, name.and_then(|name| self.by_channel.get(name)))
            }
        };
        by_pattern
            .into_iter()
            .chain(by_channel.into_iter().flatten())
            .filter_map(|channels| Some((channels, channels.kind_of(inbound)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::{
            channel::{Addressed, Carries},
            kind::AdapterKind,
            sharded_channel::{ShardedChannel, SubscriptionMode},
            uid::Uid,
        },
        engine_io::sid::InstanceId,
        hub::room_table::{Listed, RoomTable},
        peers::Peers,
    };

    fn table(adapter: AdapterKind, uid: &Uid, fixed: &[&str]) -> Namespaces {
        let instance = InstanceId::parse("Ab3dE6gH").unwrap();
        let fixed = fixed.iter().map(|name| (*name).into()).collect();
        Namespaces::new(adapter, "p", &Peers::new(instance, uid.clone()), fixed)
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
        let table = table(AdapterKind::Classic, &uid, &["/a"]);
        let mut listening = Listening::default();
        let Change { add, remove, .. } = listening.follow(table.news(), &table);
        assert_eq!(add.patterns, ["p#/a#*"]);
        assert_eq!(
            add.channels,
            [
                "p-sockhop#Ab3dE6gH#",
                "p-sockhop#",
                "p-request#/a#",
                "p-response#/a#",
                "p-response#/a#abcdef#"
            ]
        );
        assert!(remove.is_empty());

        table.open("/b".into());
        table.close(&"/a".into());
        let Change { add, remove, gone } = listening.follow(table.news(), &table);
        assert_eq!(
            add.patterns,
            ["p#/b#*"],
            "what is there from the start stays"
        );
        assert!(remove.is_empty() && gone.is_empty());
        assert_eq!(listening.confirm(), ["/a".into(), "/b".into()]);
        assert_eq!(listening.follow(table.news(), &table), Default::default());

        table.close(&"/b".into());
        let Change { add, remove, gone } = listening.follow(table.news(), &table);
        assert!(add.is_empty());
        assert_eq!(remove.patterns, ["p#/b#*"]);
        assert_eq!(remove.channels.len(), 3);
        assert_eq!(gone, ["/b".into()]);
        assert!(listening.confirm().is_empty());
        assert_eq!(listening.places(&inbound(None, "p-request#/b#")).count(), 0);
    }

    #[test]
    fn a_name_tells_what_a_message_is() {
        let uid = Uid::parse("abcdef").unwrap();
        let table = table(AdapterKind::Classic, &uid, &["/a"]);
        let mut listening = Listening::default();
        let own = inbound(None, "p-sockhop#Ab3dE6gH#");
        let to_all = inbound(None, "p-sockhop#");
        for name in [&own, &to_all] {
            assert_eq!(listening.audience(name), None, "it is not listened to yet");
        }
        listening.follow(table.news(), &table);
        let kind = |pattern, channel| {
            let inbound = inbound(pattern, channel);
            assert_eq!(listening.audience(&inbound), None, "{channel}");
            let mut kinds = listening.places(&inbound).map(|(_, kind)| kind);
            kinds.next()
        };
        for (name, audience) in [(&own, Audience::One), (&to_all, Audience::All)] {
            assert_eq!(listening.audience(name), Some(audience));
            assert_eq!(listening.places(name).count(), 0);
        }
        assert_eq!(kind(None, "p-sockhop#Ab3dE6gX#"), None);
        assert_eq!(kind(Some("p#/a#*"), "p-sockhop#Ab3dE6gH#"), None);
        assert_eq!(kind(Some("p#/a#*"), "p-sockhop#"), None);
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

    #[test]
    fn rooms_are_listened_to_while_they_have_members() {
        let uid = Uid::parse_hex("0123456789abcdef").unwrap();
        let adapter = AdapterKind::Sharded(SubscriptionMode::Dynamic);
        let table = table(adapter, &uid, &["/a"]);
        let rooms = RoomTable::new(Listed::Public);
        let mut listening = Listening::default();
        let main = listening.follow(table.news(), &table);
        assert_eq!(
            main.add.channels,
            [
                "p-sockhop#Ab3dE6gH#",
                "p-sockhop#",
                "p#/a#",
                "p#/a#0123456789abcdef#"
            ]
        );
        rooms.set(&"/a".into(), &"red".into(), true);
        let all = listening.follow_rooms(News::All(rooms.all()), &table);
        assert_eq!(all.add.channels, ["p#/a#red#"]);
        rooms.set(&"/a".into(), &"blue".into(), true);
        rooms.set(&"/a".into(), &"red".into(), false);
        let both = listening.follow_rooms(rooms.news(), &table);
        assert_eq!(both.add.channels, ["p#/a#blue#"]);
        assert_eq!(both.remove.channels, ["p#/a#red#"]);
        assert!(listening.follow_rooms(rooms.news(), &table).is_empty());
        let again = listening.follow_rooms(News::All(rooms.all()), &table);
        assert!(again.is_empty());
        let none = listening.follow_rooms(News::All(HashSet::new()), &table);
        assert_eq!(none.remove.channels, ["p#/a#blue#"]);
    }

    #[test]
    fn a_name_that_two_namespaces_share_is_for_both() {
        let uid = Uid::parse_hex("0123456789abcdef").unwrap();
        let adapter = AdapterKind::Sharded(SubscriptionMode::Dynamic);
        let table = table(adapter, &uid, &["/a", "/a#b"]);
        let rooms = RoomTable::new(Listed::Public);
        let mut listening = Listening::default();
        listening.follow(table.news(), &table);
        rooms.set(&"/a".into(), &"b".into(), true);
        let news = News::All(rooms.all());
        assert!(listening.follow_rooms(news, &table).is_empty());
        let message = inbound(None, "p#/a#b#");
        let mut kinds: Vec<_> = listening
            .places(&message)
            .map(|(channels, kind)| (channels.namespace().to_string(), kind))
            .collect();
        kinds.sort_by(|one, other| one.0.cmp(&other.0));
        let of_room = Kind::Sharded(ShardedChannel::Room("b".into()));
        let main = Kind::Sharded(ShardedChannel::Main);
        assert_eq!(
            kinds,
            [("/a".to_owned(), of_room), ("/a#b".to_owned(), main)]
        );
        rooms.set(&"/a".into(), &"b".into(), false);
        assert!(listening.follow_rooms(rooms.news(), &table).is_empty());
        assert_eq!(listening.places(&message).count(), 1);
    }
}
