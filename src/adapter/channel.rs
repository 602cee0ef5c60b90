//! Names of the Redis channels on which the classic adapter's messages travel.
//!
//! Pure text.
//!
//! ```text
//! <prefix>#<namespace>#                    to several rooms, or to all       socket.io#/chat#
//! <prefix>#<namespace>#<room>#             to exactly one room               socket.io#/chat#room1#
//! <prefix>#<namespace>#*                   the pattern that hears both
//! <prefix>-request#<namespace>#            requests to all                   socket.io-request#/chat#
//! <prefix>-response#<namespace>#           responses                         socket.io-response#/chat#
//! <prefix>-response#<namespace>#<uid>#     responses to one requester        socket.io-response#/chat#a1B2c3#
//! ```
//! Node subscribes to the pattern as it stands, so that glob characters of a namespace act as such there; here they
//! are escaped. Rooms may hold anything, `#` included, and a namespace may, too: the same channel can then mean a room
//! to one subscription and a namespace to another. So each message is judged by the pattern through which it came,
//! and its packet's `nsp` has the last word.
//!
//! A namespace's requests are heard by exact names, and counted by their subscribers: so each instance subscribes to each
//! request channel once.
//!
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`), wire.md 3.1, 3.4, 3.5.

use std::borrow::Cow;

use super::{response::Response, uid::Uid};
use crate::{
    engine_io::sid::InstanceId,
    hub::broadcast::Target,
    socket_io::ids::{Namespace, Room},
};

/// What Redis takes for a glob, and the character that takes that meaning away.
const GLOB: &str = r"*?[]\";

/// The broadcast channels of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastChannels {
    namespace: Namespace,
    base: String,
    pattern: String,
}

/// Whom a channel's name promises to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// The base channel: several rooms, or the whole namespace. The message says which.
    Namespace,
    /// A room's own channel. Nobody outside that room has to decode the message.
    Room(Room),
}

impl BroadcastChannels {
    /// Returns the channels of `namespace` under `prefix` (see `REDIS_PREFIX`).
    pub fn new(prefix: &str, namespace: Namespace) -> Self {
        let base = format!("{prefix}#{namespace}#");
        let mut pattern = escape_glob(&base);
        pattern.push('*');
        Self {
            namespace,
            base,
            pattern,
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the pattern for PSUBSCRIBE.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Returns the channel on which a broadcast to `target` is published.
    pub fn publish_to(&self, target: &Target) -> Cow<'_, str> {
        match target.rooms.as_slice() {
            [room] => Cow::Owned(format!("{}{room}#", self.base)),
            _ => Cow::Borrowed(&self.base),
        }
    }

    /// Returns whom `channel`, heard through [`Self::pattern`], addresses; `None` if it is no channel of ours.
    pub fn addressed(&self, channel: &[u8]) -> Option<Addressed> {
        let rest = channel.strip_prefix(self.base.as_bytes())?;
        if rest.is_empty() {
            return Some(Addressed::Namespace);
        }
        // An empty room is one, too: `to("")` publishes on `socket.io#/##`, which Node reads as "no room".
        match std::str::from_utf8(rest.strip_suffix(b"#")?).ok()? {
            "" => Some(Addressed::Namespace),
            room => Some(Addressed::Room(Room::from(room))),
        }
    }
}

/// The channels on which one namespace's requests and responses travel, as one instance sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestChannels {
    namespace: Namespace,
    request: String,
    response: String,
    own_response: String,
}

/// What comes on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Requests.
    Requests,
    /// Responses, to this instance or to any other.
    Responses,
}

impl RequestChannels {
    /// Returns the channels of `namespace` under `prefix` for the instance `uid`.
    pub fn new(prefix: &str, namespace: Namespace, uid: &Uid) -> Self {
        let response = format!("{prefix}-response#{namespace}#");
        Self {
            request: request_channel(prefix, &namespace),
            own_response: format!("{response}{uid}#"),
            response,
            namespace,
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the channel on which requests are published, and whose subscribers are counted.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Returns the three channels for SUBSCRIBE.
    pub fn subscribe_to(&self) -> [&str; 3] {
        [&self.request, &self.response, &self.own_response]
    }

    /// Returns the channel on which a response to the instance `requester` is published.
    ///
    /// The requester's own, so that nobody else has to read it; but the shared one if the request did not say who sent
    /// it, for replies to events between servers, which Node sends there, too, and for what only older servers ask,
    /// which may not listen on a channel of their own.
    pub fn respond_on(&self, requester: Option<&str>, response: &Response) -> Cow<'_, str> {
        let requester = match response {
            Response::AllRooms { .. }
            | Response::Fetched { .. }
            | Response::ClientCount { .. }
            | Response::Ack { .. } => requester.and_then(Uid::parse),
            Response::SocketIds { .. }
            | Response::Done { .. }
            | Response::ServerSideReply { .. } => None,
        };
        match requester {
            Some(uid) => Cow::Owned(format!("{}{uid}#", self.response)),
            None => Cow::Borrowed(&self.response),
        }
    }

    /// Returns what `channel` carries; `None` if it is none of the three.
    pub fn carries(&self, channel: &[u8]) -> Option<Carries> {
        let is = |name: &str| name.as_bytes() == channel;
        if is(&self.request) {
            Some(Carries::Requests)
        } else if is(&self.response) || is(&self.own_response) {
            Some(Carries::Responses)
        } else {
            None
        }
    }
}

/// Returns the channel on which one instance hears what other instances of Sockhop say to it alone. Node never listens there.
pub fn private(prefix: &str, instance: InstanceId) -> String {
    format!("{prefix}-sockhop#{instance}#")
}

/// Returns the channel on which every instance of Sockhop hears what is said to all of them, its own words included. Node never
/// listens there.
pub fn shared(prefix: &str) -> String {
    format!("{prefix}-sockhop#")
}

/// Returns the `n`th channel on which the instance `uid` may wait for its own mark in a Redis Cluster. Nobody else listens there.
pub fn mark(prefix: &str, uid: &Uid, n: u32) -> String {
    format!("{prefix}-sockhop#mark-{uid}-{n}#")
}

/// Returns the channel on which requests about `namespace` are published under `prefix`.
pub(super) fn request_channel(prefix: &str, namespace: &Namespace) -> String {
    format!("{prefix}-request#{namespace}#")
}

/// Returns `text` with every glob character made literal.
fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if GLOB.contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::request::RequestId, socket_io::args::Args};

    fn channels(namespace: &str) -> BroadcastChannels {
        BroadcastChannels::new("socket.io", Namespace::from(namespace))
    }

    fn to(rooms: &[&str]) -> Target {
        Target {
            rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
            except: vec![],
        }
    }

    #[test]
    fn exactly_one_room_has_a_channel_of_its_own() {
        let chat = channels("/chat");
        assert_eq!(chat.publish_to(&to(&[])), "socket.io#/chat#");
        assert_eq!(chat.publish_to(&to(&["room1"])), "socket.io#/chat#room1#");
        assert_eq!(chat.publish_to(&to(&["a", "b"])), "socket.io#/chat#");
        assert_eq!(channels("/").publish_to(&to(&["42"])), "socket.io#/#42#");
    }

    #[test]
    fn a_namespace_cannot_act_as_a_pattern() {
        assert_eq!(channels("/").pattern(), "socket.io#/#*");
        assert_eq!(
            channels("/a*b?[c]\\").pattern(),
            r"socket.io#/a\*b\?\[c\]\\#*"
        );
    }

    #[test]
    fn a_channel_tells_its_room_through_the_pattern_that_heard_it() {
        let main = channels("/");
        let room = |text: &str| Some(Addressed::Room(Room::from(text)));
        assert_eq!(main.addressed(b"socket.io#/#"), Some(Addressed::Namespace));
        assert_eq!(main.addressed(b"socket.io#/#room1#"), room("room1"));
        assert_eq!(main.addressed(b"socket.io#/#a#b c#"), room("a#b c"));
        assert_eq!(main.addressed(b"socket.io#/##"), Some(Addressed::Namespace));
        assert_eq!(
            channels("/#a").addressed(b"socket.io#/#a#"),
            Some(Addressed::Namespace)
        );
    }

    #[test]
    fn channels_of_others_are_refused() {
        let main = channels("/");
        for channel in [
            &b"socket.io#/chat#"[..],
            b"socket.io#/#room1",
            b"",
            b"socket.io#/#\xff#",
            b"other#/#",
        ] {
            assert_eq!(
                main.addressed(channel),
                None,
                "{}",
                String::from_utf8_lossy(channel)
            );
        }
    }

    fn request_channels(namespace: &str) -> RequestChannels {
        let uid = Uid::parse("a1B2c3").unwrap();
        RequestChannels::new("socket.io", Namespace::from(namespace), &uid)
    }

    #[test]
    fn requests_and_responses_have_channels_of_their_own() {
        let chat = request_channels("/chat");
        assert_eq!(chat.request(), "socket.io-request#/chat#");
        assert_eq!(
            chat.subscribe_to(),
            [
                "socket.io-request#/chat#",
                "socket.io-response#/chat#",
                "socket.io-response#/chat#a1B2c3#"
            ]
        );
    }

    #[test]
    fn what_sockhop_says_among_itself_no_namespace_hears() {
        let instance = InstanceId::parse("Ab3dE6gH").unwrap();
        let own = [
            shared("socket.io"),
            private("socket.io", instance),
            mark("socket.io", &Uid::parse("a1B2c3").unwrap(), 7),
        ];
        assert_eq!(
            own,
            [
                "socket.io-sockhop#",
                "socket.io-sockhop#Ab3dE6gH#",
                "socket.io-sockhop#mark-a1B2c3-7#"
            ]
        );
        for name in &own {
            for namespace in ["/", "/chat"] {
                assert_eq!(channels(namespace).addressed(name.as_bytes()), None);
                assert_eq!(request_channels(namespace).carries(name.as_bytes()), None);
            }
        }
    }

    #[test]
    fn a_channel_tells_what_it_carries() {
        let main = request_channels("/");
        for (channel, expected) in [
            (&b"socket.io-request#/#"[..], Some(Carries::Requests)),
            (b"socket.io-response#/#", Some(Carries::Responses)),
            (b"socket.io-response#/#a1B2c3#", Some(Carries::Responses)),
            (b"socket.io-response#/#zzzzzz#", None),
            (b"socket.io-request#/chat#", None),
            (b"socket.io-request#/#x#", None),
            (b"socket.io#/#", None),
            (b"", None),
        ] {
            assert_eq!(main.carries(channel), expected);
        }
        // The broadcasts' pattern hears neither.
        for channel in main.subscribe_to() {
            assert_eq!(channels("/").addressed(channel.as_bytes()), None);
        }
    }

    #[test]
    fn a_response_goes_to_the_requester_alone_where_that_is_sure_to_be_heard() {
        let main = request_channels("/");
        let id = RequestId::from("r");
        let value = Args::from_parts("[1]".into(), vec![]);
        let own = [
            Response::AllRooms {
                id: id.clone(),
                rooms: vec![],
            },
            Response::Fetched {
                id: id.clone(),
                sockets: vec![],
            },
            Response::ClientCount {
                id: id.clone(),
                num_clients: 1,
            },
            Response::Ack {
                id: id.clone(),
                args: value.clone(),
            },
        ];
        let shared = [
            Response::SocketIds {
                id: id.clone(),
                sockets: vec![],
            },
            Response::Done { id: id.clone() },
            Response::ServerSideReply { id, value },
        ];
        for response in &own {
            let channel = main.respond_on(Some("zzzzzz"), response);
            assert_eq!(channel, "socket.io-response#/#zzzzzz#", "{response:?}");
            // Nobody may choose a channel for us by what it calls itself.
            for requester in [
                None,
                Some("emitter"),
                Some(""),
                Some("#chat#"),
                Some("a#/b#c"),
            ] {
                assert_eq!(
                    main.respond_on(requester, response),
                    "socket.io-response#/#"
                );
            }
        }
        for response in &shared {
            let channel = main.respond_on(Some("zzzzzz"), response);
            assert_eq!(channel, "socket.io-response#/#", "{response:?}");
        }
    }
}
