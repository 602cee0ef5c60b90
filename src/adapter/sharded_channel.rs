//! Names of the Redis channels on which the sharded adapter's messages travel (SSUBSCRIBE, SPUBLISH).
//!
//! Pure text. There are no patterns: each channel is subscribed to by its name, and all instances of a cluster must
//! agree on the mode, which says which rooms have channels of their own.
//!
//! ```text
//! <prefix>#<namespace>#              everything else, and the count    socket.io#/chat#
//! <prefix>#<namespace>#<uid>#        responses to one instance         socket.io#/chat#0123456789abcdef#
//! <prefix>#<namespace>#<room>#       broadcasts to exactly one room    socket.io#/chat#room1#
//! ```
//! A room can have the name of an instance. Node tells the two apart in no better way: what comes on an instance's own
//! channel is a response to it.
//!
//! Source: @socket.io/redis-adapter 8.3 (`createShardedAdapter`), wire.md 4.1, 4.2.

use std::borrow::Cow;

use super::uid::Uid;
use crate::{
    hub::broadcast::Target,
    socket_io::ids::{Namespace, Room},
};

/// Length of what looks like a socket's id to Node, in UTF-16 units as JavaScript counts.
const SOCKET_ID_UNITS: usize = 20;

/// Which rooms have channels of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// None: two channels for each namespace, and everyone reads everything.
    Static,
    /// Public rooms, that is all but those that are named by a socket's id. Broadcasts to a room whose name is as long
    /// as an id go to the main channel all the same.
    #[default]
    Dynamic,
    /// All rooms.
    DynamicPrivate,
}

/// The channels of one namespace, as one instance sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardedChannels {
    namespace: Namespace,
    mode: SubscriptionMode,
    main: String,
    own_response: String,
}

/// Which channel a message came on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardedChannel {
    /// That of all instances.
    Main,
    /// This instance's own, for responses.
    OwnResponse,
    /// A room's.
    Room(Room),
}

impl ShardedChannels {
    /// Returns the channels of `namespace` under `prefix` for the instance `uid`.
    pub fn new(prefix: &str, namespace: Namespace, uid: &Uid, mode: SubscriptionMode) -> Self {
        let main = format!("{prefix}#{namespace}#");
        Self {
            own_response: format!("{main}{uid}#"),
            namespace,
            mode,
            main,
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the channel of requests, whose subscribers are counted.
    pub fn main(&self) -> &str {
        &self.main
    }

    /// Returns the two channels to which one subscribes in any mode, in a command each.
    pub fn subscribe_to(&self) -> [&str; 2] {
        [&self.main, &self.own_response]
    }

    /// Returns the channel to subscribe to while `room` has members here, if the mode has one.
    ///
    /// `is_private` says whether the room is named by the id of a socket of this instance.
    pub fn subscribe_to_room(&self, room: &Room, is_private: bool) -> Option<String> {
        let has_channel = match self.mode {
            SubscriptionMode::Static => false,
            SubscriptionMode::Dynamic => !is_private,
            SubscriptionMode::DynamicPrivate => true,
        };
        has_channel.then(|| self.room(room))
    }

    /// Returns the channel on which a broadcast to `target` is published. One that waits for acks goes to
    /// [`Self::main`], because there the instances are counted.
    pub fn publish_to(&self, target: &Target) -> Cow<'_, str> {
        match (self.mode, target.rooms.as_slice()) {
            (SubscriptionMode::Dynamic, [room]) if !looks_like_a_socket_id(room) => {
                Cow::Owned(self.room(room))
            }
            (SubscriptionMode::DynamicPrivate, [room]) => Cow::Owned(self.room(room)),
            _ => Cow::Borrowed(&self.main),
        }
    }

    /// Returns the channel on which a response to the instance `requester` is published; `None` if no instance is called
    /// so, and the response would go who knows where.
    pub fn respond_on(&self, requester: &str) -> Option<String> {
        let uid = Uid::parse_hex(requester)?;
        Some(format!("{}{uid}#", self.main))
    }

    /// Returns which of this namespace's channels `channel` is; `None` if it is none.
    pub fn judge(&self, channel: &[u8]) -> Option<ShardedChannel> {
        let rest = channel.strip_prefix(self.main.as_bytes())?;
        if rest.is_empty() {
            return Some(ShardedChannel::Main);
        }
        if channel == self.own_response.as_bytes() {
            return Some(ShardedChannel::OwnResponse);
        }
        let room = std::str::from_utf8(rest.strip_suffix(b"#")?).ok()?;
        Some(ShardedChannel::Room(Room::from(room)))
    }

    fn room(&self, room: &Room) -> String {
        format!("{}{room}#", self.main)
    }
}

fn looks_like_a_socket_id(room: &Room) -> bool {
    room.as_str().encode_utf16().count() == SOCKET_ID_UNITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use SubscriptionMode::{Dynamic, DynamicPrivate, Static};

    const UID: &str = "0123456789abcdef";

    fn channels(mode: SubscriptionMode) -> ShardedChannels {
        let uid = Uid::parse_hex(UID).unwrap();
        ShardedChannels::new("socket.io", Namespace::from("/chat"), &uid, mode)
    }

    fn to(rooms: &[&str]) -> Target {
        Target {
            rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
            except: vec![],
        }
    }

    #[test]
    fn the_mode_says_which_rooms_have_channels_of_their_own() {
        let id = "dEbYiC1iiCgTKhzqAAAB";
        // Twenty units, though neither twenty characters nor bytes.
        let emoji = "😀".repeat(10);
        let main = "socket.io#/chat#";
        for (mode, room, expected) in [
            (Static, "room1", main.to_owned()),
            (Static, id, main.to_owned()),
            (Dynamic, "room1", format!("{main}room1#")),
            (Dynamic, id, main.to_owned()),
            (Dynamic, emoji.as_str(), main.to_owned()),
            (
                Dynamic,
                "nineteen-characters",
                format!("{main}nineteen-characters#"),
            ),
            (DynamicPrivate, "room1", format!("{main}room1#")),
            (DynamicPrivate, id, format!("{main}{id}#")),
        ] {
            let channels = channels(mode);
            assert_eq!(
                channels.publish_to(&to(&[room])),
                expected,
                "{mode:?} {room}"
            );
            assert_eq!(channels.publish_to(&to(&[])), main);
            assert_eq!(channels.publish_to(&to(&["a", "b"])), main);
        }
    }

    #[test]
    fn rooms_are_subscribed_to_as_the_mode_demands() {
        let room = Room::from("dEbYiC1iiCgTKhzqAAAB");
        let channel = Some("socket.io#/chat#dEbYiC1iiCgTKhzqAAAB#".to_owned());
        for (mode, is_private, expected) in [
            (Static, false, None),
            (Static, true, None),
            // Public, whatever it looks like to those who publish.
            (Dynamic, false, channel.clone()),
            (Dynamic, true, None),
            (DynamicPrivate, false, channel.clone()),
            (DynamicPrivate, true, channel),
        ] {
            let subscribed = channels(mode).subscribe_to_room(&room, is_private);
            assert_eq!(subscribed, expected, "{mode:?} {is_private}");
        }
    }

    #[test]
    fn responses_go_to_instances_only() {
        let channels = channels(Dynamic);
        let expected = "socket.io#/chat#fedcba9876543210#";
        assert_eq!(
            channels.respond_on("fedcba9876543210").as_deref(),
            Some(expected)
        );
        for requester in ["", "emitter", "a#/x", "FEDCBA9876543210", "abcdef"] {
            assert_eq!(channels.respond_on(requester), None, "{requester}");
        }
    }

    #[test]
    fn a_channel_tells_what_it_is() {
        let channels = channels(Dynamic);
        let room = |text: &str| Some(ShardedChannel::Room(Room::from(text)));
        for (channel, expected) in [
            (&b"socket.io#/chat#"[..], Some(ShardedChannel::Main)),
            (
                b"socket.io#/chat#0123456789abcdef#",
                Some(ShardedChannel::OwnResponse),
            ),
            (b"socket.io#/chat#room1#", room("room1")),
            (b"socket.io#/chat#a#b c#", room("a#b c")),
            (b"socket.io#/chat##", room("")),
            (b"socket.io#/#", None),
            (b"socket.io#/chat#room1", None),
            (b"socket.io#/chat#\xff#", None),
            (b"", None),
        ] {
            assert_eq!(channels.judge(channel), expected);
        }
        assert_eq!(
            channels.subscribe_to(),
            ["socket.io#/chat#", "socket.io#/chat#0123456789abcdef#"]
        );
    }
}
