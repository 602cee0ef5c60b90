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

    /// Takes a whole body. Invalid UTF-8 becomes U+FFFD and is no error, as in Node, but not before its packet is looked at: it takes three
    /// times as much then.
    pub fn new(body: Bytes) -> Self {
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
        // Split at an ASCII character, so that what is invalid in the parts is what is invalid in the whole.
        let text = lossy_text(detached(packet, self.body_len));
        let result = Packet::decode(&text);
        if result.is_err() {
            self.rest = None;
        }
        Some(result)
    }
}

/// Returns bytes as text, with U+FFFD for what is none.
pub(super) fn lossy_text(bytes: Bytes) -> ByteString {
    ByteString::try_from(bytes.clone()).unwrap_or_else(|_| {
        // In a box, or it would keep the memory that it has grown into.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ByteString::from(text.into_boxed_str())
    })
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

    /// A bug: all of a body was at once, and so took three times what it was counted with.
    #[test]
    fn invalid_utf8_is_replaced_in_each_packet_when_it_is_looked_at() {
        assert_eq!(decode(b"4a\xffb"), [text("a\u{fffd}b")]);
        // What is cut short by a separator is not a part of the next packet.
        let cut = b"4\xe2\x82\x1e4\xac\xf0\x9f\x1e4c";
        let whole = String::from_utf8_lossy(cut).into_owned();
        let expected = whole.split('\u{1e}').map(|packet| text(&packet[1..]));
        assert_eq!(decode(cut), expected.collect::<Vec<_>>());
        let body = Bytes::from([b"6\x1e4".as_slice(), &[0xff; 1000]].concat());
        let mut payload = Payload::new(body.clone());
        assert_eq!(payload.next(), Some(Ok(Packet::Noop)));
        assert_eq!(payload.held_bytes(), body.len());
    }
}
