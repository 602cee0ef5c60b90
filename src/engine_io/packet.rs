//! One Engine.IO packet, in its text form.
//!
//! Pure. Packets that the server only ever sends have no decoder, and the other way round.
//!
//! ```text
//! packet = type [data]        type = "0" open / "1" close / "2" ping / "3" pong / "4" message / "5" upgrade / "6" noop
//!        / "b" base64         a binary message, polling only
//! ```
//! Source: Engine.IO protocol v4, "Packet encoding".

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
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
            'b' => {
                let bytes = LENIENT_BASE64
                    .decode(data().as_bytes())
                    .or(Err(PacketError::Base64))?;
                Self::Message(Message::Binary(bytes.into()))
            }
            other => return Err(PacketError::UnknownType(other)),
        })
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
    fn what_is_no_packet_is_refused() {
        assert_eq!(decode(""), Err(PacketError::Empty));
        assert_eq!(decode("abc"), Err(PacketError::UnknownType('a')));
        assert_eq!(decode("7"), Err(PacketError::UnknownType('7')));
        assert_eq!(decode("€"), Err(PacketError::UnknownType('€')));
        assert_eq!(decode("b!!"), Err(PacketError::Base64));
    }
}
