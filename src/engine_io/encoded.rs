//! A message that is ready to be written, once for all of its receivers.
//!
//! Pure, but for counting: it notes how many clients it waits for, and tells whoever has a form made what that takes.
//! Server-to-client WebSocket frames carry no mask, so the very bytes of a frame can be shared by every
//! receiver, and those of a text are its polling form, too. All other forms (attachments for polling, and what only old or base64
//! clients need) are made from them at the first such receiver's demand, and shared as well, in a box of their own: whoever has no
//! such clients pays one empty cell for them. See [`Kept`].
//! A Socket.IO packet with attachments is one value, so nothing can come between the packet and its attachments.
//!
//! Source: Engine.IO protocol v3 and v4, "Packet encoding"; RFC 6455, 5.2; wire.md 1.3, 1.10.

use std::{
    fmt,
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
use crate::{
    detached::fitted,
    websocket::frame::{self, Opcode},
};

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
    attachments: Box<[Range<usize>]>,
    /// What only some clients need.
    rare: OnceLock<Box<RareForms>>,
}

/// The forms that are copies, each made at its first receiver's demand.
#[derive(Debug, Default)]
struct RareForms {
    frames_base64_v4: OnceLock<Form>,
    frames_base64_v3: OnceLock<Form>,
    frames_v3: OnceLock<Form>,
    polling_v4: OnceLock<Form>,
    polling_v3: OnceLock<Form>,
    polling_binary_v3: OnceLock<Form>,
}

/// What whoever has a form made wants to be dropped with it: it counts how much there is.
pub type Kept = Box<dyn Send + Sync>;

/// A form that is a copy.
struct Form {
    bytes: Bytes,
    _kept: Kept,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// What a message takes beside its bytes, about: its fields, and what the allocator adds. Measured: 188 to 192 for texts up to 1 KiB.
pub const MESSAGE_BYTES: usize = 192;

/// What a form takes beside its bytes, about: all the others' cells, and what counts it.
const FORM_BYTES: usize = size_of::<RareForms>() + 128;

/// Counts nothing, for forms that are small or short-lived.
fn uncounted(_: usize) -> Kept {
    Box::new(())
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
            rare: OnceLock::new(),
        })
    }

    /// Returns the WebSocket frames of revision 4 without base64.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Returns the WebSocket frames of a dialect, if they are those of revision 4 without base64: without binary messages they
    /// are in all.
    pub fn frames_as_is(&self, dialect: Dialect) -> Option<&Bytes> {
        (self.attachments.is_empty() || dialect == Dialect::V4).then_some(&self.frames)
    }

    /// Returns the WebSocket frames of a dialect. If they have to be made, `keep` is told how much they take.
    pub fn frames_in(&self, dialect: Dialect, keep: &dyn Fn(usize) -> Kept) -> &Bytes {
        if let Some(frames) = self.frames_as_is(dialect) {
            return frames;
        }
        let rare = self.rare();
        match (dialect.revision, dialect.base64) {
            (Revision::V4, _) => made(&rare.frames_base64_v4, keep, || self.base64_frames("b")),
            (Revision::V3, true) => made(&rare.frames_base64_v3, keep, || self.base64_frames("b4")),
            (Revision::V3, false) => made(&rare.frames_v3, keep, || self.binary_frames_v3()),
        }
    }

    /// Returns the packets as a polling payload of a revision, in its binary form or not, unless that is the very text.
    fn polling_copy(
        &self,
        revision: Revision,
        is_binary: bool,
        keep: &dyn Fn(usize) -> Kept,
    ) -> Option<&Bytes> {
        let rare = || self.rare();
        Some(match revision {
            Revision::V4 if self.attachments.is_empty() => return None,
            Revision::V4 => made(&rare().polling_v4, keep, || self.payload_v4()),
            Revision::V3 if is_binary => {
                made(&rare().polling_binary_v3, keep, || self.payload_binary_v3())
            }
            Revision::V3 => made(&rare().polling_v3, keep, || self.payload_v3()),
        })
    }

    /// Returns all of `messages` as one polling payload. Of a single message its shared form is returned as it is. If forms have to
    /// be made, `keep` is told how much they take.
    pub fn payload<'a>(
        mut messages: impl Iterator<Item = &'a Self> + Clone,
        dialect: Dialect,
        keep: &dyn Fn(usize) -> Kept,
    ) -> PollingBody {
        // One binary packet makes the whole payload binary, if the client takes that.
        let is_binary = matches!(dialect.revision, Revision::V3)
            && !dialect.base64
            && messages
                .clone()
                .any(|message| !message.attachments.is_empty());
        let copy = |message: &'a Self| message.polling_copy(dialect.revision, is_binary, keep);
        let form = |message: &'a Self| match copy(message) {
            Some(copy) => copy,
            None => message.text().unwrap_or_default(),
        };
        let Some(first) = messages.next() else {
            return PollingBody::default();
        };
        let bytes = match messages.next() {
            None => copy(first).cloned().unwrap_or_else(|| {
                let text = first.text.clone().unwrap_or_default();
                first.frames.slice(text)
            }),
            Some(second) => {
                let others = std::iter::once(second).chain(messages);
                let len = |message| 1 + form(message).len();
                let all_others: usize = others.clone().map(len).sum();
                let mut payload = BytesMut::with_capacity(form(first).len() + all_others);
                payload.extend_from_slice(form(first));
                for message in others {
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

    /// Returns this message as a polling payload by itself, counted by nobody: for the small ones of the protocol.
    pub fn polling_in(&self, dialect: Dialect) -> PollingBody {
        Self::payload(std::iter::once(self), dialect, &uncounted)
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
        fitted(frames)
    }

    fn binary_frames_v3(&self) -> Bytes {
        let mut frames = self.text_frame();
        for attachment in self.attachments() {
            frame::put_header(&mut frames, Opcode::Binary, 1 + attachment.len());
            frames.put_u8(BINARY_MESSAGE_V3);
            frames.put_slice(attachment);
        }
        fitted(frames)
    }

    fn payload_v4(&self) -> Bytes {
        let mut payload = self.text().unwrap_or_default().to_vec();
        for attachment in self.attachments() {
            if !payload.is_empty() {
                payload.push(SEPARATOR);
            }
            payload.push(b'b');
            payload.extend_from_slice(STANDARD.encode(attachment).as_bytes());
        }
        payload.into()
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

    /// Returns a message of the same bytes that has none of the forms which were made of this one, nor gets those that will be.
    pub fn bare(&self) -> Arc<Self> {
        Arc::new(Self {
            num_waiting: AtomicUsize::new(0),
            frames: self.frames.clone(),
            text: self.text.clone(),
            attachments: self.attachments.clone(),
            rare: OnceLock::new(),
        })
    }

    /// Returns how many bytes it takes in the backlog of a client, the same in every dialect: those of its frames in revision 4.
    pub fn len_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Returns how much memory it takes, but for the forms that were made of it: those are counted by whoever had them made.
    pub fn held_bytes(&self) -> usize {
        MESSAGE_BYTES + self.frames.len()
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

/// Makes a form, if there is none yet.
fn made<'a>(
    form: &'a OnceLock<Form>,
    keep: &dyn Fn(usize) -> Kept,
    make: impl FnOnce() -> Bytes,
) -> &'a Bytes {
    let form = form.get_or_init(|| {
        let bytes = make();
        let _kept = keep(FORM_BYTES + bytes.len());
        Form { bytes, _kept }
    });
    &form.bytes
}

/// Returns a packet that is never dropped: none of its forms may be counted, so each is made here, and by nobody else.
fn constant(text: &str) -> Arc<Encoded> {
    let packet = Encoded::new(text, &[]);
    for is_binary in [false, true] {
        packet.polling_copy(Revision::V3, is_binary, &uncounted);
    }
    packet
}

macro_rules! constant_packet {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        pub fn $name() -> Arc<Encoded> {
            static PACKET: LazyLock<Arc<Encoded>> = LazyLock::new(|| constant($text));
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
        assert_eq!(encoded.polling_in(Dialect::V4).bytes, payload);
    }

    #[test]
    fn a_binary_message_may_stand_alone() {
        let encoded = Encoded::binary(&Bytes::from_static(&[1, 2, 3, 4]));
        assert_eq!(encoded.frames(), [0x82, 4, 1, 2, 3, 4].as_slice());
        assert_eq!(encoded.polling_in(Dialect::V4).bytes, "bAQIDBA==");
    }

    #[test]
    fn the_polling_form_of_plain_text_is_no_copy() {
        let encoded = Encoded::new("42[\"x\"]", &[]);
        let inside = encoded.frames().as_ptr_range();
        let body = encoded.polling_in(Dialect::V4);
        assert!(inside.contains(&body.bytes.as_ptr()));
    }

    fn refs(messages: &[Arc<Encoded>]) -> impl Iterator<Item = &Encoded> + Clone {
        messages.iter().map(|message| &**message)
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
            assert_eq!(
                encoded.frames_in(dialect, &uncounted),
                &frames,
                "{dialect:?}"
            );
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
        let body = Encoded::payload(refs(&messages), dialect(Revision::V3, false), &uncounted);
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
        let body = Encoded::payload(refs(&messages), dialect(Revision::V3, true), &uncounted);
        assert_eq!(body.bytes, "7:42[\"é\"]6:b4Bw==");
        assert!(!body.is_binary);
        let body = Encoded::payload(
            refs(&messages[..1]),
            dialect(Revision::V3, false),
            &uncounted,
        );
        assert_eq!(
            (&body.bytes[..], body.is_binary),
            ("7:42[\"é\"]".as_bytes(), false)
        );
        assert_eq!(
            Encoded::payload([].iter(), dialect(Revision::V3, false), &uncounted),
            PollingBody::default()
        );
    }

    #[test]
    fn every_receiver_of_a_dialect_shares_the_same_bytes() {
        let encoded = Encoded::new("451-[]", &[Bytes::from_static(&[1])]);
        for dialect in all_dialects() {
            let frames = encoded.frames_in(dialect, &uncounted).as_ptr();
            assert_eq!(encoded.frames_in(dialect, &uncounted).as_ptr(), frames);
            let body = encoded.polling_in(dialect).bytes.as_ptr();
            assert_eq!(encoded.polling_in(dialect).bytes.as_ptr(), body);
        }
    }

    #[test]
    fn current_clients_never_make_a_copy_but_of_attachments_for_polling() {
        let never = |_| panic!("a copy is made");
        let encoded = Encoded::new("451-[]", &[Bytes::from_static(&[1])]);
        encoded.frames_in(Dialect::V4, &never);
        let text = Encoded::new("42[]", &[]);
        for dialect in all_dialects() {
            text.frames_in(dialect, &never);
        }
        Encoded::payload([&*text, &*text].into_iter(), Dialect::V4, &never);
        assert!(encoded.rare.get().is_none() && text.rare.get().is_none());
    }

    #[test]
    fn nothing_that_is_made_of_a_constant_packet_is_counted() {
        let never = |_: usize| -> Kept { panic!("it would count for ever") };
        for packet in [close(), ping(), pong(), pong_probe(), noop()] {
            for dialect in all_dialects() {
                packet.frames_in(dialect, &never);
                Encoded::payload(std::iter::once(&*packet), dialect, &never);
                let binary = Encoded::binary(&Bytes::from_static(&[1]));
                let is_v3 = matches!(dialect.revision, Revision::V3);
                if is_v3 && !dialect.base64 {
                    binary.polling_copy(dialect.revision, true, &uncounted);
                    let both = [&*binary, &*packet];
                    Encoded::payload(both.into_iter(), dialect, &never);
                }
            }
        }
    }

    #[test]
    fn each_copy_is_counted_as_long_as_it_is_there() {
        let counted = Arc::new(std::sync::Mutex::new(Vec::new()));
        let held = Arc::new(());
        let keep = |len: usize| -> Kept {
            counted.lock().unwrap().push(len - FORM_BYTES);
            Box::new(Arc::clone(&held))
        };
        let encoded = Encoded::new("451-[]", &[Bytes::from(vec![0; 300])]);
        for dialect in all_dialects() {
            for _ in 0..2 {
                encoded.frames_in(dialect, &keep);
                Encoded::payload(std::iter::once(&*encoded), dialect, &keep);
            }
        }
        let counted = counted.lock().unwrap().clone();
        assert_eq!(counted.len(), 6, "{counted:?}");
        assert!(
            counted.iter().all(|len| (300..420).contains(len)),
            "{counted:?}"
        );
        let bare = encoded.bare();
        assert_eq!(bare.frames().as_ptr(), encoded.frames().as_ptr());
        assert_eq!(bare.parts(), encoded.parts());
        assert_eq!(Arc::strong_count(&held), 7);
        drop(encoded);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(bare.rare.get().is_none());
    }
}
