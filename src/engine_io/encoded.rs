//! A message that is ready to be written, once for all of its receivers.
//!
//! Pure. Server-to-client WebSocket frames carry no mask, so the very bytes of a frame can be shared by every
//! receiver; the polling form is made from them at the first polling receiver's demand, and shared as well.
//! A Socket.IO packet with attachments is one value, so nothing can come between the packet and its attachments.
//!
//! Source: Engine.IO protocol v4, "Packet encoding"; RFC 6455, 5.2.

use std::{
    ops::Range,
    sync::{Arc, LazyLock, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};

use super::payload::SEPARATOR;
use crate::websocket::frame::{self, Opcode};

/// Shared bytes of one or more packets, in the form of either transport.
#[derive(Debug)]
pub struct Encoded {
    frames: Bytes,
    /// Where the text packet, its type digit included, stands in `frames`; none, if it is a binary message alone.
    text: Option<Range<usize>>,
    /// Where each binary message stands in `frames`.
    attachments: Vec<Range<usize>>,
    polling: OnceLock<Bytes>,
}

impl Encoded {
    /// Encodes a text packet (its type digit included) and the binary messages that follow it.
    pub fn new(text: &str, attachments: &[Bytes]) -> Arc<Self> {
        Self::build(Some(text), attachments)
    }

    /// Encodes a binary message that stands alone.
    pub fn binary(bytes: &Bytes) -> Arc<Self> {
        Self::build(None, std::slice::from_ref(bytes))
    }

    fn build(text: Option<&str>, attachments: &[Bytes]) -> Arc<Self> {
        let capacity = frame::MAX_SERVER_HEADER_BYTES
            + text.map_or(0, str::len)
            + attachments
                .iter()
                .map(|a| frame::MAX_SERVER_HEADER_BYTES + a.len())
                .sum::<usize>();
        let mut frames = BytesMut::with_capacity(capacity);
        let mut put = |opcode, payload: &[u8]| {
            frame::put_header(&mut frames, opcode, payload.len());
            let start = frames.len();
            frames.put_slice(payload);
            start..frames.len()
        };
        let text = text.map(|text| put(Opcode::Text, text.as_bytes()));
        let attachments = attachments.iter().map(|a| put(Opcode::Binary, a)).collect();
        Arc::new(Self {
            frames: frames.freeze(),
            text,
            attachments,
            polling: OnceLock::new(),
        })
    }

    /// Returns the WebSocket frames.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Returns the packets as a polling payload.
    pub fn polling(&self) -> &Bytes {
        self.polling.get_or_init(|| {
            let text = self
                .text
                .clone()
                .map(|range| self.frames.slice(range))
                .unwrap_or_default();
            if self.attachments.is_empty() {
                return text;
            }
            let mut payload = text.to_vec();
            for range in &self.attachments {
                if !payload.is_empty() {
                    payload.push(SEPARATOR);
                }
                payload.push(b'b');
                let attachment = self.frames.get(range.clone()).unwrap_or_default();
                payload.extend_from_slice(STANDARD.encode(attachment).as_bytes());
            }
            payload.into()
        })
    }

    /// Returns how many bytes it takes in a backlog.
    pub fn len_bytes(&self) -> usize {
        self.frames.len()
    }
}

macro_rules! constant_packet {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        pub fn $name() -> Arc<Encoded> {
            static PACKET: LazyLock<Arc<Encoded>> = LazyLock::new(|| Encoded::new($text, &[]));
            Arc::clone(&PACKET)
        }
    };
}

constant_packet! {
    /// Returns the close packet, `1`.
    close, "1"
}
constant_packet! {
    /// Returns the ping packet, `2`.
    ping, "2"
}
constant_packet! {
    /// Returns the answer to a probe, `3probe`.
    pong_probe, "3probe"
}
constant_packet! {
    /// Returns the noop packet, `6`.
    noop, "6"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_payload_say_the_same() {
        let encoded = Encoded::new(
            "451-[\"x\",{\"_placeholder\":true,\"num\":0}]",
            &[Bytes::from_static(&[1, 2, 3, 4])],
        );
        let text = b"451-[\"x\",{\"_placeholder\":true,\"num\":0}]";
        let mut frames = vec![0x81, text.len() as u8];
        frames.extend_from_slice(text);
        frames.extend_from_slice(&[0x82, 4, 1, 2, 3, 4]);
        assert_eq!(encoded.frames(), &frames);
        let mut payload = text.to_vec();
        payload.extend_from_slice(b"\x1ebAQIDBA==");
        assert_eq!(encoded.polling(), &payload);
    }

    #[test]
    fn a_binary_message_may_stand_alone() {
        let encoded = Encoded::binary(&Bytes::from_static(&[1, 2, 3, 4]));
        assert_eq!(encoded.frames(), [0x82, 4, 1, 2, 3, 4].as_slice());
        assert_eq!(encoded.polling(), "bAQIDBA==");
    }

    #[test]
    fn the_polling_form_of_plain_text_is_no_copy() {
        let encoded = Encoded::new("42[\"x\"]", &[]);
        let inside = encoded.frames().as_ptr_range();
        assert!(inside.contains(&encoded.polling().as_ptr()));
    }
}
