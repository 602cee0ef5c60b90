//! One Engine.IO packet, in its text form.
//!
//! Pure. Packets that the server only ever sends have no decoder, and the other way round.
//!
//! ```text
//! packet = type [data]        type = "0" open / "1" close / "2" ping / "3" pong / "4" message / "5" upgrade / "6" noop
//!        / "b" base64         a binary message where only text can travel; in revision 3 "b4" base64
//! ```
//! Source: Engine.IO protocol v3 and v4, "Packet encoding"; wire.md 1.3, 1.10.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Buf as _, Bytes};
use bytestring::ByteString;

/// Accepts padding or its absence and stray trailing bits; Node's decoder is lenient too.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Data of the ping and the pong that probe a WebSocket before an upgrade.
pub const PROBE: &str = "probe";

/// Stands before the bytes of a binary message in revision 3: the type, as a number.
pub const BINARY_MESSAGE_V3: u8 = 4;

/// A message of the layer above: Socket.IO's packets are text, its attachments are binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message, without the `4`.
    Text(ByteString),
    /// A binary message.
    Binary(Bytes),
}

/// A packet as a client may send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0`: only servers send it.
    Open,
    /// `1`: the client ends the session.
    Close,
    /// `2` with its data, empty or `probe`.
    Ping(ByteString),
    /// `3` with its data.
    Pong(ByteString),
    /// `4` or `b`, or a binary WebSocket frame.
    Message(Message),
    /// `5`: the probing WebSocket becomes the transport.
    Upgrade,
    /// `6`: nothing.
    Noop,
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not even a type.
    #[error("empty packet")]
    Empty,
    /// The first character is none of `0` to `6` and `b`.
    #[error("unknown packet type {0:?}")]
    UnknownType(char),
    /// Not base64, even by a lenient reading.
    #[error("binary message is not base64")]
    Base64,
}

impl Packet {
    /// Decodes a text frame, or one packet of a payload.
    ///
    /// # Errors
    /// The text is empty, has an unknown type, or is no base64 behind a `b`.
    pub fn decode(text: &ByteString) -> Result<Self, PacketError> {
        let kind = text.chars().next().ok_or(PacketError::Empty)?;
        // Every known type is one byte long, so the rest starts at 1.
        let data = || text.slice_ref(text.get(1..).unwrap_or_default());
        Ok(match kind {
            '0' => Self::Open,
            '1' => Self::Close,
            '2' => Self::Ping(data()),
            '3' => Self::Pong(data()),
            '4' => Self::Message(Message::Text(data())),
            '5' => Self::Upgrade,
            '6' => Self::Noop,
            'b' => Self::from_base64(&data())?,
            other => return Err(PacketError::UnknownType(other)),
        })
    }

    /// Decodes a text frame, or one text packet of a payload, of revision 3. It differs in the type behind a `b`.
    ///
    /// # Errors
    /// As [`Self::decode`], and for a `b` with another type than `4` behind it: only messages carry binary.
    pub fn decode_v3(text: &ByteString) -> Result<Self, PacketError> {
        let Some(rest) = text.strip_prefix('b') else {
            return Self::decode(text);
        };
        match rest.strip_prefix('4') {
            Some(base64) => Self::from_base64(base64),
            None => Err(rest
                .chars()
                .next()
                .map_or(PacketError::Empty, PacketError::UnknownType)),
        }
    }

    /// Decodes a binary frame, or one binary packet of a payload, of revision 3: the type as a number, then the message.
    ///
    /// # Errors
    /// It is empty, or no message.
    pub fn decode_v3_binary(mut bytes: Bytes) -> Result<Self, PacketError> {
        match bytes.split_first() {
            None => Err(PacketError::Empty),
            Some((&BINARY_MESSAGE_V3, _)) => {
                bytes.advance(1);
                Ok(Self::Message(Message::Binary(bytes)))
            }
            Some((&other, _)) => Err(PacketError::UnknownType(other.into())),
        }
    }

    fn from_base64(text: &str) -> Result<Self, PacketError> {
        let bytes = LENIENT_BASE64.decode(text).or(Err(PacketError::Base64))?;
        Ok(Self::Message(Message::Binary(bytes.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Packet, PacketError> {
        Packet::decode(&ByteString::from(text))
    }

    #[test]
    fn every_type_is_decoded() {
        for (text, packet) in [
            ("0{}", Packet::Open),
            ("1", Packet::Close),
            ("2", Packet::Ping("".into())),
            ("2probe", Packet::Ping("probe".into())),
            ("3", Packet::Pong("".into())),
            ("4hello €", Packet::Message(Message::Text("hello €".into()))),
            ("4", Packet::Message(Message::Text("".into()))),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            (
                "bAQIDBA==",
                Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3, 4]))),
            ),
            (
                "bAQIDBA",
                Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3, 4]))),
            ),
        ] {
            assert_eq!(decode(text), Ok(packet), "{text:?}");
        }
    }

    #[test]
    fn revision_3_tells_the_type_of_a_binary_packet() {
        let message = Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3, 4])));
        for (text, packet) in [
            ("b4AQIDBA==", Ok(message.clone())),
            ("4text", decode("4text")),
            ("2probe", decode("2probe")),
            ("bAQIDBA==", Err(PacketError::UnknownType('A'))),
            ("b", Err(PacketError::Empty)),
            ("", Err(PacketError::Empty)),
        ] {
            assert_eq!(Packet::decode_v3(&text.into()), packet, "{text:?}");
        }
        for (bytes, packet) in [
            (&[4, 1, 2, 3, 4][..], Ok(message)),
            (&[], Err(PacketError::Empty)),
            (b"4text", Err(PacketError::UnknownType('4'))),
        ] {
            let decoded = Packet::decode_v3_binary(Bytes::from_static(bytes));
            assert_eq!(decoded, packet, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert_eq!(decode(""), Err(PacketError::Empty));
        assert_eq!(decode("abc"), Err(PacketError::UnknownType('a')));
        assert_eq!(decode("7"), Err(PacketError::UnknownType('7')));
        assert_eq!(decode("€"), Err(PacketError::UnknownType('€')));
        assert_eq!(decode("b!!"), Err(PacketError::Base64));
    }
}
