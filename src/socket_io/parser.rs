//! In which form packets travel: the protocol's own, or MessagePack.
//!
//! Plain data. There is no negotiation: an instance speaks one form, and its clients must be made for it. Source: Socket.IO,
//! "Custom parser"; wire.md 2.7.

use std::str::FromStr;

/// The form of every packet of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parser {
    /// Text with JSON, each attachment in a message of its own: what every client speaks unless told otherwise.
    #[default]
    Json,
    /// One binary message for each packet: `socket.io-msgpack-parser` 3.
    MessagePack,
}

/// The name of no parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither json nor msgpack")]
pub struct UnknownParser;

impl Parser {
    /// Returns its name, as it stands in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "msgpack",
        }
    }
}

impl FromStr for Parser {
    type Err = UnknownParser;

    fn from_str(text: &str) -> Result<Self, UnknownParser> {
        [Self::Json, Self::MessagePack]
            .into_iter()
            .find(|parser| parser.as_str() == text)
            .ok_or(UnknownParser)
    }
}
