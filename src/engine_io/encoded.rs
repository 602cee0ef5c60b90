//! A message that is ready to be written, once for all of its receivers.
//!
//! Pure. Server-to-client WebSocket frames carry no mask, so the very bytes of a frame can be shared by every
//! receiver; the polling form is made from them at the first polling receiver's demand, and shared as well. So are the forms
//! that only old or base64 clients need, in a box of their own: whoever has no such clients pays one empty cell for them.
//! A Socket.IO packet with attachments is one value, so nothing can come between the packet and its attachments.
//!
//! Source: Engine.IO protocol v3 and v4, "Packet encoding"; RFC 6455, 5.2; wire.md 1.3, 1.10.

use std::{
    ops::Range,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    dialect::{Dialect, Revision},
    packet::BINARY_MESSAGE_V3,
    payload::SEPARATOR,
    payload_v3,
};
use crate::websocket::frame::{self, Opcode};

/// Shared bytes of one or more packets, in the form of either transport and of every dialect.
///
/// In this order: what every receiver touches stands beside the count of those who hold it.
#[derive(Debug)]
#[repr(C)]
pub struct Encoded {
    /// For how many clients it is kept, because they did not take it at once.
    num_waiting: AtomicUsize,
    frames: Bytes,
    /// Where the text packet, its type digit included, stands in `frames`; none, if it is a binary message alone.
    text: Option<Range<usize>>,
    /// Where each binary message stands in `frames`.
    attachments: Vec<Range<usize>>,
    polling: OnceLock<Bytes>,
    /// What only some clients need.
    rare: OnceLock<Box<RareForms>>,
}

/// The forms beside revision 4 without base64, each made at its first receiver's demand.
#[derive(Debug, Default)]
struct RareForms {
    frames_base64_v4: OnceLock<Bytes>,
    frames_base64_v3: OnceLock<Bytes>,
    frames_v3: OnceLock<Bytes>,
    polling_v3: OnceLock<Bytes>,
    polling_binary_v3: OnceLock<Bytes>,
}

/// The body of a polling answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollingBody {
    /// The payload.
    pub bytes: Bytes,
    /// Whether it is `application/octet-stream` and not text: in revision 3 alone.
    pub is_binary: bool,
}

impl Encoded {
    /// Encodes a text packet (its type digit included) and the binary messages that follow it.
    pub fn new(text: &str, attachments: &[Bytes]) -> Arc<Self> {
        Self::of_parts(&[text], attachments)
    }

    /// Encodes a binary message that stands alone.
    pub fn binary(bytes: &Bytes) -> Arc<Self> {
        Self::of_parts(&[], std::slice::from_ref(bytes))
    }

    /// As [`Self::new`], of a text in several parts, so that a long one need not be copied to put something before it. Without any
    /// part there is no text packet.
    pub fn of_parts(text: &[&str], attachments: &[Bytes]) -> Arc<Self> {
        let text_len = text.iter().map(|part| part.len()).sum::<usize>();
        let attachments_len = attachments.iter().map(Bytes::len).sum::<usize>();
        let num_headers = 1 + attachments.len();
        let mut frames = BytesMut::with_capacity(
            num_headers * frame::MAX_SERVER_HEADER_BYTES + text_len + attachments_len,
        );
        let mut put = |opcode, len, parts: &mut dyn Iterator<Item = &[u8]>| {
            frame::put_header(&mut frames, opcode, len);
            let start = frames.len();
            parts.for_each(|part| frames.put_slice(part));
            start..frames.len()
        };
        let text = (!text.is_empty()).then(|| {
            let mut parts = text.iter().map(|part| part.as_bytes());
            put(Opcode::Text, text_len, &mut parts)
        });
        let attachments = attachments
            .iter()
            .map(|bytes| {
                put(
                    Opcode::Binary,
                    bytes.len(),
                    &mut std::iter::once(&bytes[..]),
                )
            })
            .collect();
        Arc::new(Self {
            num_waiting: AtomicUsize::new(0),
            frames: frames.freeze(),
            text,
            attachments,
            polling: OnceLock::new(),
            rare: OnceLock::new(),
        })
    }

    /// Returns the WebSocket frames of revision 4 without base64.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Returns the WebSocket frames of a dialect. Without binary messages they are the same in all.
    pub fn frames_in(&self, dialect: Dialect) -> &Bytes {
        if self.attachments.is_empty() {
            return &self.frames;
        }
        match (dialect.revision, dialect.base64) {
            (Revision::V4, false) => &self.frames,
            (Revision::V4, true) => self
                .rare()
                .frames_base64_v4
                .get_or_init(|| self.base64_frames("b")),
            (Revision::V3, true) => self
                .rare()
                .frames_base64_v3
                .get_or_init(|| self.base64_frames("b4")),
            (Revision::V3, false) => self
                .rare()
                .frames_v3
                .get_or_init(|| self.binary_frames_v3()),
        }
    }

    /// Returns the packets as a polling payload of revision 4.
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
            for attachment in self.attachments() {
                if !payload.is_empty() {
                    payload.push(SEPARATOR);
                }
                payload.push(b'b');
                payload.extend_from_slice(STANDARD.encode(attachment).as_bytes());
            }
            payload.into()
        })
    }

    /// Returns all of `messages` as one polling payload. Of a single message its shared form is returned as it is.
    pub fn payload<'a>(
        mut messages: impl Iterator<Item = &'a Arc<Self>> + Clone,
        dialect: Dialect,
    ) -> PollingBody {
        // One binary packet makes the whole payload binary, if the client takes that.
        let is_binary = matches!(dialect.revision, Revision::V3)
            && !dialect.base64
            && messages
                .clone()
                .any(|message| !message.attachments.is_empty());
        let form = |message: &'a Arc<Self>| match dialect.revision {
            Revision::V4 => message.polling(),
            Revision::V3 if is_binary => message
                .rare()
                .polling_binary_v3
                .get_or_init(|| message.payload_binary_v3()),
            Revision::V3 => message
                .rare()
                .polling_v3
                .get_or_init(|| message.payload_v3()),
        };
        let Some(first) = messages.next() else {
            return PollingBody::default();
        };
        let bytes = match messages.next() {
            None => form(first).clone(),
            Some(second) => {
                let mut payload = BytesMut::from(&form(first)[..]);
                for message in std::iter::once(second).chain(messages) {
                    if matches!(dialect.revision, Revision::V4) {
                        payload.put_u8(SEPARATOR);
                    }
                    payload.extend_from_slice(form(message));
                }
                payload.freeze()
            }
        };
        PollingBody { bytes, is_binary }
    }

    /// Returns this message as a polling payload by itself.
    pub fn polling_in(self: &Arc<Self>, dialect: Dialect) -> PollingBody {
        Self::payload(std::iter::once(self), dialect)
    }

    fn rare(&self) -> &RareForms {
        self.rare.get_or_init(Box::default)
    }

    /// Returns what it was made of: the text packet, its type digit included, and the binary messages that follow it.
    pub fn parts(&self) -> (Option<Bytes>, Vec<Bytes>) {
        let slice = |range: &Range<usize>| self.frames.slice(range.clone());
        let attachments = self.attachments.iter().map(slice).collect();
        (self.text.as_ref().map(slice), attachments)
    }

    /// Returns the bytes of the text packet.
    fn text(&self) -> Option<&[u8]> {
        self.frames.get(self.text.clone()?)
    }

    /// Returns the bytes of each binary message.
    fn attachments(&self) -> impl Iterator<Item = &[u8]> {
        self.attachments
            .iter()
            .map(|range| self.frames.get(range.clone()).unwrap_or_default())
    }

    /// Copies the frame of the text packet, header and all, for other frames to follow.
    fn text_frame(&self) -> BytesMut {
        let end = self.text.as_ref().map_or(0, |range| range.end);
        BytesMut::from(self.frames.get(..end).unwrap_or_default())
    }

    fn base64_frames(&self, prefix: &str) -> Bytes {
        let mut frames = self.text_frame();
        for attachment in self.attachments() {
            let base64 = STANDARD.encode(attachment);
            frame::put_header(&mut frames, Opcode::Text, prefix.len() + base64.len());
            frames.put_slice(prefix.as_bytes());
            frames.put_slice(base64.as_bytes());
        }
        frames.freeze()
    }

    fn binary_frames_v3(&self) -> Bytes {
        let mut frames = self.text_frame();
        for attachment in self.attachments() {
            frame::put_header(&mut frames, Opcode::Binary, 1 + attachment.len());
            frames.put_u8(BINARY_MESSAGE_V3);
            frames.put_slice(attachment);
        }
        frames.freeze()
    }

    fn payload_v3(&self) -> Bytes {
        let mut payload = Vec::new();
        if let Some(text) = self.text() {
            payload_v3::put_text(&mut payload, text);
        }
        for attachment in self.attachments() {
            payload_v3::put_base64(&mut payload, attachment);
        }
        payload.into()
    }

    fn payload_binary_v3(&self) -> Bytes {
        let mut payload = Vec::new();
        if let Some(text) = self.text() {
            payload_v3::put_text_as_binary(&mut payload, text);
        }
        for attachment in self.attachments() {
            payload_v3::put_binary(&mut payload, attachment);
        }
        payload.into()
    }

    /// Returns how many bytes it takes in a backlog, the same in every dialect: those of its frames in revision 4.
    pub fn len_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Notes that it waits for one client more. Returns whether it waited for none.
    pub fn begin_waiting(&self) -> bool {
        self.num_waiting.fetch_add(1, AcqRel) == 0
    }

    /// Notes that it waits for one client less. Returns whether it waits for none now.
    pub fn end_waiting(&self) -> bool {
        self.num_waiting.fetch_sub(1, AcqRel) == 1
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
    /// Returns the answer to a ping of revision 3 without data, `3`.
    pong, "3"
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

    fn dialect(revision: Revision, base64: bool) -> Dialect {
        Dialect { revision, base64 }
    }

    fn all_dialects() -> [Dialect; 4] {
        use Revision::{V3, V4};
        [(V3, false), (V3, true), (V4, false), (V4, true)].map(|(r, b)| dialect(r, b))
    }

    #[test]
    fn each_dialect_has_its_frames_and_its_payload() {
        let encoded = Encoded::new("451-[]", &[Bytes::from_static(&[1, 2, 3, 4])]);
        let text_frame = b"\x81\x06451-[]";
        for (dialect, frame, payload, is_binary) in [
            (
                dialect(Revision::V4, false),
                &b"\x82\x04\x01\x02\x03\x04"[..],
                &b"451-[]\x1ebAQIDBA=="[..],
                false,
            ),
            (
                dialect(Revision::V4, true),
                b"\x81\x09bAQIDBA==",
                b"451-[]\x1ebAQIDBA==",
                false,
            ),
            (
                dialect(Revision::V3, false),
                b"\x82\x05\x04\x01\x02\x03\x04",
                b"\x00\x06\xff451-[]\x01\x05\xff\x04\x01\x02\x03\x04",
                true,
            ),
            (
                dialect(Revision::V3, true),
                b"\x81\x0ab4AQIDBA==",
                b"6:451-[]10:b4AQIDBA==",
                false,
            ),
        ] {
            let frames = [text_frame, frame].concat();
            assert_eq!(encoded.frames_in(dialect), &frames, "{dialect:?}");
            let body = encoded.polling_in(dialect);
            assert_eq!((&body.bytes[..], body.is_binary), (payload, is_binary));
        }
    }

    #[test]
    fn one_binary_message_makes_a_whole_payload_of_revision_3_binary() {
        let messages = [
            Encoded::new("42[\"é\"]", &[]),
            Encoded::binary(&Bytes::from_static(&[7])),
        ];
        let body = Encoded::payload(messages.iter(), dialect(Revision::V3, false));
        assert!(body.is_binary);
        assert_eq!(
            body.bytes,
            [
                b"\x00\x08\xff",
                "42[\"é\"]".as_bytes(),
                b"\x01\x02\xff\x04\x07"
            ]
            .concat()
        );
        let body = Encoded::payload(messages.iter(), dialect(Revision::V3, true));
        assert_eq!(body.bytes, "7:42[\"é\"]6:b4Bw==");
        assert!(!body.is_binary);
        let body = Encoded::payload(messages[..1].iter(), dialect(Revision::V3, false));
        assert_eq!(
            (&body.bytes[..], body.is_binary),
            ("7:42[\"é\"]".as_bytes(), false)
        );
        assert_eq!(
            Encoded::payload([].iter(), dialect(Revision::V3, false)),
            PollingBody::default()
        );
    }

    #[test]
    fn every_receiver_of_a_dialect_shares_the_same_bytes() {
        let encoded = Encoded::new("451-[]", &[Bytes::from_static(&[1])]);
        for dialect in all_dialects() {
            let frames = encoded.frames_in(dialect).as_ptr();
            assert_eq!(encoded.frames_in(dialect).as_ptr(), frames);
            let body = encoded.polling_in(dialect).bytes.as_ptr();
            assert_eq!(encoded.polling_in(dialect).bytes.as_ptr(), body);
        }
    }

    #[test]
    fn current_clients_never_make_the_rare_forms() {
        let encoded = Encoded::new("451-[]", &[Bytes::from_static(&[1])]);
        encoded.frames_in(Dialect::V4);
        encoded.polling_in(Dialect::V4);
        let text = Encoded::new("42[]", &[]);
        for dialect in all_dialects() {
            text.frames_in(dialect);
        }
        assert!(encoded.rare.get().is_none() && text.rare.get().is_none());
    }
}
