//! Names and ids of Socket.IO: namespace, room, socket id, `pid`.
//!
//! Pure. Newtypes, so that a room never stands where a namespace is meant. All are cheap to clone.
//!
//! Source: Socket.IO protocol v5; wire.md 1.2 (id alphabet and length), 4.2 (why a socket id has 20 characters).

use std::{borrow::Borrow, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Random bytes in a socket id, and in a `pid`; 15 of them are 20 characters of base64url.
const SOCKET_ID_BYTES: usize = 15;

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(ByteString);

        impl $name {
            /// Wraps `text`.
            pub fn new(text: impl Into<ByteString>) -> Self {
                Self(text.into())
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(ByteString::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(ByteString::from(text))
            }
        }
    };
}

text_newtype! {
    /// A namespace, with its leading slash: `/`, `/events`.
    Namespace
}

text_newtype! {
    /// A room of a namespace. Each socket is alone in the room that its id names.
    Room
}

text_newtype! {
    /// The public id of a client in one namespace: 20 characters of `[A-Za-z0-9_-]`, never the Engine.IO `sid`; only with
    /// clients 2.x it is made of that, see [`super::legacy::socket_id`].
    SocketId
}

impl Namespace {
    /// Returns the main namespace, `/`.
    pub fn main() -> Self {
        Self(ByteString::from_static("/"))
    }

    /// Returns whether this is `/`, which is never written on the wire.
    pub fn is_main(&self) -> bool {
        self.as_str() == "/"
    }
}

impl From<&SocketId> for Room {
    /// The room in which the socket is alone.
    fn from(id: &SocketId) -> Self {
        id.room()
    }
}

impl SocketId {
    /// Returns a fresh id with 120 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        random_text().map(Self)
    }

    /// Returns the room in which this socket is alone.
    pub fn room(&self) -> Room {
        Room(self.0.clone())
    }
}

/// The private id of a client in one namespace: 20 characters of `[A-Za-z0-9_-]`, told to that client alone. Whoever shows it
/// gets the client's state after a disconnection, so no text of it is ever printed. Source: wire.md 2.6.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pid(ByteString);

impl Pid {
    /// Returns a fresh one with 120 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        random_text().map(Self)
    }

    /// Returns what a client shows, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == SOCKET_ID_BYTES * 4 / 3
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_one.then(|| Self(text.into()))
    }

    /// Returns the text, for its client alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pid(…)")
    }
}

impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("no pid"))
    }
}

fn random_text() -> Result<ByteString, getrandom::Error> {
    let mut bytes = [0; SOCKET_ID_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(ByteString::from(URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_text_in_json() {
        let id = SocketId::from("abc");
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""abc""#);
        assert_eq!(serde_json::from_str::<SocketId>(r#""abc""#).unwrap(), id);
        assert_eq!(Room::from(&id), Room::from("abc"));
    }

    #[test]
    fn socket_ids_have_twenty_characters_of_the_nodes_alphabet() {
        let id = SocketId::random().unwrap();
        assert_eq!(id.as_str().len(), 20);
        assert!(
            id.as_str()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_ne!(id, SocketId::random().unwrap());
    }

    #[test]
    fn a_pid_is_as_random_has_one_form_and_is_never_printed() {
        let pid = Pid::random().unwrap();
        assert_eq!(Pid::parse(pid.expose()), Some(pid.clone()));
        assert_ne!(pid, Pid::random().unwrap());
        assert_eq!(format!("{pid:?}"), "Pid(…)");
        for text in [
            "",
            "abcdefghijklmnopqrs",
            "abcdefghijklmnopqrstu",
            "abcdefghijklmnopqrs+",
            "äbcdefghijklmnopqrs",
        ] {
            assert_eq!(Pid::parse(text), None, "{text}");
        }
        let json = serde_json::to_string(&pid).unwrap();
        assert_eq!(serde_json::from_str::<Pid>(&json).unwrap(), pid);
        assert!(serde_json::from_str::<Pid>(r#""x""#).is_err());
    }
}
