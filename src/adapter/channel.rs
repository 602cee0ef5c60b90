//! Names of the Redis channels on which broadcasts travel.
//!
//! Pure text. Requests and responses have channels of their own (`<prefix>-request#<nsp>#`), which are not here yet.
//!
//! ```text
//! <prefix>#<namespace>#              to several rooms, or to all       socket.io#/chat#
//! <prefix>#<namespace>#<room>#       to exactly one room               socket.io#/chat#room1#
//! <prefix>#<namespace>#*             the pattern that hears both
//! ```
//! Node subscribes to the pattern as it stands, so that glob characters of a namespace act as such there; here they
//! are escaped. Rooms may hold anything, `#` included, and a namespace may, too: the same channel can then mean a room
//! to one subscription and a namespace to another. So each message is judged by the pattern through which it came,
//! and its packet's `nsp` has the last word.
//!
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`), wire.md 3.1.

use std::borrow::Cow;

use crate::{
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
}
