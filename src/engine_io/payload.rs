//! Engine.IO polling payload: many packets in one HTTP body.
//!
//! Pure: knows nothing of HTTP or actors. The session decides what a packet means.
//!
//! ```text
//! payload = packet *( %x1E packet )        packet = type [data] / "b" base64
//! ```
//! Source: Engine.IO protocol v4, "HTTP long-polling". The caller has bounded the body by `max_payload`; packets are
//! split one at a time, so a body of separators costs no list and ends at its first empty packet.

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use super::packet::{Packet, PacketError};
use crate::detached::detached;

/// Stands between two packets of a payload.
pub const SEPARATOR: u8 = 0x1e;

/// The packets of one body that have not been looked at yet.
#[derive(Debug)]
pub struct Payload {
    rest: Option<Bytes>,
    body_len: usize,
}

impl Payload {
    /// Returns how many bytes are held: the whole body, as long as a packet is left.
    pub fn held_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |_| self.body_len)
    }

    /// Takes a whole body. Invalid UTF-8 becomes U+FFFD and is no error, as in Node.
    pub fn new(body: Bytes) -> Self {
        let body = match simdutf8::basic::from_utf8(&body) {
            Ok(_) => body,
            Err(_) => Bytes::from(String::from_utf8_lossy(&body).into_owned()),
        };
        let body_len = body.len();
        let rest = Some(body);
        Self { rest, body_len }
    }
}

impl Iterator for Payload {
    type Item = Result<Packet, PacketError>;

    /// Decodes the next packet. After an error the rest is dropped.
    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take()?;
        let packet = match rest.iter().position(|byte| *byte == SEPARATOR) {
            Some(at) => {
                let packet = rest.split_to(at);
                rest.advance(1);
                self.rest = Some(rest);
                packet
            }
            None => rest,
        };
        let packet = detached(packet, self.body_len);
        // Valid as a whole and split at an ASCII character, so each part is valid too.
        let text = ByteString::try_from(packet).unwrap_or_default();
        let result = Packet::decode(&text);
        if result.is_err() {
            self.rest = None;
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::packet::Message;

    fn decode(body: &[u8]) -> Vec<Result<Packet, PacketError>> {
        Payload::new(Bytes::copy_from_slice(body)).collect()
    }

    fn text(text: &str) -> Result<Packet, PacketError> {
        Ok(Packet::Message(Message::Text(text.into())))
    }

    #[test]
    fn packets_are_split_at_the_separator() {
        assert_eq!(
            decode(b"4test1\x1e4test2\x1ebAQIDBA=="),
            [
                text("test1"),
                text("test2"),
                Ok(Packet::Message(Message::Binary(Bytes::from_static(&[
                    1, 2, 3, 4
                ]))))
            ]
        );
    }

    #[test]
    fn packets_before_a_bad_one_are_kept_and_the_rest_is_dropped() {
        assert_eq!(
            decode(b"4a\x1eabc\x1e4b"),
            [text("a"), Err(PacketError::UnknownType('a'))]
        );
    }

    #[test]
    fn an_empty_body_and_a_lone_separator_hold_an_empty_packet() {
        assert_eq!(decode(b""), [Err(PacketError::Empty)]);
        assert_eq!(decode(b"\x1e"), [Err(PacketError::Empty)]);
        assert_eq!(decode(b"4a\x1e"), [text("a"), Err(PacketError::Empty)]);
        assert_eq!(decode(&vec![SEPARATOR; 1_000_000]).len(), 1);
    }

    #[test]
    fn a_small_packet_does_not_keep_a_large_body() {
        let body = Bytes::from(format!("4{}\x1e4small", "x".repeat(1000)));
        let addresses = body.as_ptr_range();
        let mut payload = Payload::new(body.clone());
        let is_kept = std::iter::from_fn(|| {
            let held = payload.held_bytes();
            let Packet::Message(Message::Text(text)) = payload.next()?.unwrap() else {
                panic!("no text");
            };
            Some((held, addresses.contains(&text.as_ptr())))
        });
        assert_eq!(
            is_kept.collect::<Vec<_>>(),
            [(body.len(), true), (body.len(), false)]
        );
        assert_eq!(payload.held_bytes(), 0);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(decode(b"4a\xffb"), [text("a\u{fffd}b")]);
    }
}
