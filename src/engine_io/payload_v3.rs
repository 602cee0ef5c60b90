//! Engine.IO polling payload of revision 3, in its two forms, both ways.
//!
//! Pure: knows nothing of HTTP or actors. Only for clients that the settings let in; revision 4 has `payload`.
//!
//! ```text
//! text   = *( length ":" packet )             length: UTF-16 code units of the packet, in decimal digits
//!          packet = type [data] / "b4" base64
//! binary = *( %x00 digits %xFF packet         digits: one byte of 0 to 9 each; length in bytes of UTF-8
//!           / %x01 digits %xFF %x04 data )    a binary message; the length counts the 0x04
//! ```
//! A whole payload has the binary form as soon as one of its packets is binary, unless the client asked for base64.
//! Source: Engine.IO protocol v3, "Payload"; wire.md 1.10. The caller has bounded the body by `max_payload`. A length is
//! only ever compared with what is there, so a claim allocates nothing, and every byte is looked at a fixed number of times.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes};
use bytestring::ByteString;

use super::{
    packet::{Packet, PacketError},
    payload::lossy_text,
};
use crate::detached::detached;

/// Ends the length of a packet in a binary payload.
const END_OF_LENGTH: u8 = 0xff;

/// Why a body is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Nothing at all.
    #[error("empty payload")]
    Empty,
    /// In the place of a length stands something else, or a number beyond any payload.
    #[error("no length before a packet")]
    Length,
    /// A packet is shorter than its length says.
    #[error("a packet is cut short")]
    Truncated,
    /// A length ends between the two halves of a character outside of the Basic Multilingual Plane.
    #[error("a length splits a character")]
    SplitCharacter,
    /// A packet of a binary payload is neither text nor binary.
    #[error("unknown kind of packet {0:#04x}")]
    UnknownKind(u8),
    /// The text of a packet in a binary payload is not UTF-8.
    #[error("a packet is not UTF-8")]
    Utf8,
    /// One of the packets is none.
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// The packets of one body that have not been looked at yet.
#[derive(Debug)]
pub struct Payload {
    rest: Rest,
    body_len: usize,
}

#[derive(Debug)]
enum Rest {
    Untouched(Form),
    Begun(Form),
    Done,
}

#[derive(Debug)]
enum Form {
    Text(Bytes),
    Binary(Bytes),
}

impl Form {
    fn is_empty(&self) -> bool {
        let (Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes.is_empty()
    }

    /// Takes the next packet off the front.
    fn take_packet(&mut self, body_len: usize) -> Result<Packet, PayloadError> {
        match self {
            Self::Text(bytes) => take_text(bytes, body_len),
            Self::Binary(bytes) => take_binary(bytes, body_len),
        }
    }
}

impl Payload {
    /// Returns how many bytes are held: the whole body, as long as it was not taken to its end.
    pub fn held_bytes(&self) -> usize {
        match &self.rest {
            Rest::Untouched(_) | Rest::Begun(_) => self.body_len,
            Rest::Done => 0,
        }
    }

    /// Takes a whole body of text. Invalid UTF-8 becomes U+FFFD and is no error, as in Node, but not before its packet is looked at: it
    /// takes three times as much then.
    pub fn text(body: Bytes) -> Self {
        Self {
            body_len: body.len(),
            rest: Rest::Untouched(Form::Text(body)),
        }
    }

    /// Takes a whole body of type `application/octet-stream`.
    pub fn binary(body: Bytes) -> Self {
        Self {
            body_len: body.len(),
            rest: Rest::Untouched(Form::Binary(body)),
        }
    }
}

impl Iterator for Payload {
    type Item = Result<Packet, PayloadError>;

    /// Decodes the next packet. After an error the rest is dropped.
    fn next(&mut self) -> Option<Self::Item> {
        let mut form = match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Untouched(form) if form.is_empty() => return Some(Err(PayloadError::Empty)),
            Rest::Untouched(form) | Rest::Begun(form) => form,
            Rest::Done => return None,
        };
        if form.is_empty() {
            return None;
        }
        let packet = form.take_packet(self.body_len);
        if packet.is_ok() {
            self.rest = Rest::Begun(form);
        }
        Some(packet)
    }
}

fn take_text(rest: &mut Bytes, body_len: usize) -> Result<Packet, PayloadError> {
    let end = rest.iter().position(|byte| *byte == b':');
    let head = rest.split_to(end.ok_or(PayloadError::Length)?);
    rest.advance(1);
    let len = decimal(head.iter().map(|byte| byte.wrapping_sub(b'0')))?;
    if len == 0 {
        // It says nothing, and counts as one: a body may be full of them.
        return Ok(Packet::Noop);
    }
    let cut = utf16_prefix(rest, len)?;
    let packet = lossy_text(detached(rest.split_to(cut), body_len));
    Ok(Packet::decode_v3(&packet)?)
}

fn take_binary(rest: &mut Bytes, body_len: usize) -> Result<Packet, PayloadError> {
    let end = rest
        .iter()
        .position(|byte| *byte == END_OF_LENGTH)
        .ok_or(PayloadError::Length)?;
    let mut head = rest.split_to(end);
    rest.advance(1);
    if head.is_empty() {
        return Err(PayloadError::Length);
    }
    let kind = head.get_u8();
    let len = decimal(head.iter().copied())?;
    if len > rest.len() {
        return Err(PayloadError::Truncated);
    }
    let packet = detached(rest.split_to(len), body_len);
    match kind {
        0 => {
            let text = ByteString::try_from(packet).or(Err(PayloadError::Utf8))?;
            Ok(Packet::decode_v3(&text)?)
        }
        1 => Ok(Packet::decode_v3_binary(packet)?),
        other => Err(PayloadError::UnknownKind(other)),
    }
}

/// Reads a number off its decimal digits, of which there must be one at least.
fn decimal(digits: impl ExactSizeIterator<Item = u8>) -> Result<usize, PayloadError> {
    if digits.len() == 0 {
        return Err(PayloadError::Length);
    }
    digits
        .map(|digit| (digit <= 9).then_some(usize::from(digit)))
        .try_fold(0_usize, |number, digit| {
            number.checked_mul(10)?.checked_add(digit?)
        })
        .ok_or(PayloadError::Length)
}

/// Returns how many bytes of `text` make up its first `len` code units of UTF-16. What is no UTF-8 in it counts as the U+FFFD that it
/// becomes.
fn utf16_prefix(text: &[u8], len: usize) -> Result<usize, PayloadError> {
    if text.get(..len).is_some_and(<[u8]>::is_ascii) {
        return Ok(len);
    }
    // No unit has more than three bytes, and no character more than four; so a text is not looked at to its end for each of its packets.
    let most = len.saturating_mul(3).saturating_add(4);
    let mut units = 0;
    let mut end = 0;
    for chunk in text.get(..most).unwrap_or(text).utf8_chunks() {
        let chars = chunk.valid().chars();
        let chars = chars.map(|char| (char.len_utf8(), char.len_utf16()));
        let invalid = Some((chunk.invalid().len(), 1)).filter(|(len, _)| *len > 0);
        for (num_bytes, num_units) in chars.chain(invalid) {
            if units >= len {
                break;
            }
            end += num_bytes;
            units += num_units;
        }
    }
    match units.cmp(&len) {
        std::cmp::Ordering::Equal => Ok(end),
        std::cmp::Ordering::Less => Err(PayloadError::Truncated),
        std::cmp::Ordering::Greater => Err(PayloadError::SplitCharacter),
    }
}

/// Counts the code units of UTF-16 in a text that is given as its UTF-8.
pub fn utf16_len(utf8: &[u8]) -> usize {
    // Each byte that begins a character counts one; those that begin four bytes stand for two halves.
    let units = |byte: &u8| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0);
    utf8.iter().map(units).sum()
}

/// Writes a text packet, its type digit included, into a text payload. `packet` is UTF-8.
pub fn put_text(payload: &mut Vec<u8>, packet: &[u8]) {
    payload.extend_from_slice(utf16_len(packet).to_string().as_bytes());
    payload.push(b':');
    payload.extend_from_slice(packet);
}

/// Writes a binary message into a text payload, as base64.
pub fn put_base64(payload: &mut Vec<u8>, data: &[u8]) {
    let base64 = STANDARD.encode(data);
    payload.extend_from_slice((base64.len() + 2).to_string().as_bytes());
    payload.extend_from_slice(b":b4");
    payload.extend_from_slice(base64.as_bytes());
}

/// Writes a text packet, its type digit included, into a binary payload. `packet` is UTF-8.
pub fn put_text_as_binary(payload: &mut Vec<u8>, packet: &[u8]) {
    put_binary_head(payload, 0, packet.len());
    payload.extend_from_slice(packet);
}

/// Writes a binary message into a binary payload.
pub fn put_binary(payload: &mut Vec<u8>, data: &[u8]) {
    put_binary_head(payload, 1, data.len() + 1);
    payload.push(super::packet::BINARY_MESSAGE_V3);
    payload.extend_from_slice(data);
}

fn put_binary_head(payload: &mut Vec<u8>, kind: u8, len: usize) {
    payload.push(kind);
    payload.extend(len.to_string().bytes().map(|digit| digit - b'0'));
    payload.push(END_OF_LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::packet::Message;

    type Decoded = Vec<Result<Packet, PayloadError>>;

    fn decode(body: &[u8]) -> Decoded {
        Payload::text(Bytes::copy_from_slice(body)).collect()
    }

    fn decode_binary(body: &[u8]) -> Decoded {
        Payload::binary(Bytes::copy_from_slice(body)).collect()
    }

    fn text(text: &str) -> Result<Packet, PayloadError> {
        Ok(Packet::Message(Message::Text(text.into())))
    }

    fn binary(bytes: &'static [u8]) -> Result<Packet, PayloadError> {
        Ok(Packet::Message(Message::Binary(Bytes::from_static(bytes))))
    }

    #[test]
    fn a_small_packet_does_not_keep_a_large_body() {
        let long = "x".repeat(1000);
        let of_text = Bytes::from(format!("1001:4{long}6:4small"));
        let of_both = [
            b"\x00\x01\x00\x00\x01\xff4",
            long.as_bytes(),
            b"\x01\x06\xff\x04small",
        ];
        let of_both = Bytes::from(of_both.concat());
        let payloads = [
            (of_text.clone(), Payload::text(of_text)),
            (of_both.clone(), Payload::binary(of_both)),
        ];
        for (body, mut payload) in payloads {
            let addresses = body.as_ptr_range();
            for is_kept in [true, false] {
                assert_eq!(payload.held_bytes(), body.len());
                let Some(Ok(Packet::Message(message))) = payload.next() else {
                    panic!("no message");
                };
                let address = match message {
                    Message::Text(text) => text.as_ptr(),
                    Message::Binary(bytes) => bytes.as_ptr(),
                };
                assert_eq!(addresses.contains(&address), is_kept);
            }
            assert!(payload.next().is_none());
            assert_eq!(payload.held_bytes(), 0);
        }
    }

    #[test]
    fn texts_are_measured_in_utf16_both_ways() {
        for (packet, length) in [
            ("4", 1),
            ("4hello", 6),
            ("4a:b\u{1e}", 5),
            ("4é€漢", 4),
            ("4🙂", 3),
            ("4🙂🏽x", 6),
        ] {
            let payload = format!("{length}:{packet}");
            let mut written = Vec::new();
            put_text(&mut written, packet.as_bytes());
            assert_eq!(written, payload.as_bytes());
            assert_eq!(decode(payload.as_bytes()), [text(&packet[1..])]);
            let twice = payload.repeat(2);
            assert_eq!(
                decode(twice.as_bytes()),
                [text(&packet[1..]), text(&packet[1..])]
            );
        }
    }

    #[test]
    fn a_text_payload_holds_every_kind_of_packet() {
        assert_eq!(
            decode(b"6:2probe1:31:510:b4AQIDBA==0:1:1"),
            [
                Ok(Packet::Ping("probe".into())),
                Ok(Packet::Pong("".into())),
                Ok(Packet::Upgrade),
                binary(&[1, 2, 3, 4]),
                Ok(Packet::Noop),
                Ok(Packet::Close),
            ]
        );
        let mut written = Vec::new();
        put_base64(&mut written, &[1, 2, 3, 4]);
        assert_eq!(written, b"10:b4AQIDBA==");
        assert_eq!(decode(b"0:"), [Ok(Packet::Noop)], "it says nothing");
    }

    #[test]
    fn a_binary_payload_holds_texts_and_binary_messages_both_ways() {
        let mut written = Vec::new();
        put_text_as_binary(&mut written, "4h€llo wörld".as_bytes());
        put_binary(&mut written, &[1, 2, 0xff]);
        put_text_as_binary(&mut written, b"2");
        let mut expected = vec![0, 1, 5, 0xff];
        expected.extend_from_slice("4h€llo wörld".as_bytes());
        expected.extend_from_slice(&[1, 4, 0xff, 4, 1, 2, 0xff, 0, 1, 0xff, b'2']);
        assert_eq!(written, expected);
        assert_eq!(
            decode_binary(&expected),
            [
                text("h€llo wörld"),
                binary(&[1, 2, 0xff]),
                Ok(Packet::Ping("".into()))
            ]
        );
        assert_eq!(decode_binary(&[1, 1, 0xff, 4]), [binary(&[])]);
        assert_eq!(
            decode_binary(b"\x00\x06\xffb4AQID"),
            [binary(&[1, 2, 3])],
            "base64 within"
        );
    }

    #[test]
    fn malformed_texts_are_refused() {
        use PayloadError as E;
        for (body, error) in [
            ("", E::Empty),
            (":4a", E::Length),
            ("4", E::Length),
            ("4hello", E::Length),
            ("x:4", E::Length),
            ("-1:4", E::Length),
            ("1.5:4a", E::Length),
            ("+1:4", E::Length),
            (" 1:4", E::Length),
            ("1e1:4aaaaaaaaa", E::Length),
            ("99999999999999999999999999:4", E::Length),
            ("18446744073709551615:4", E::Truncated),
            ("2:4", E::Truncated),
            ("2:4🙂", E::SplitCharacter),
            ("2:🙂", E::Packet(PacketError::UnknownType('🙂'))),
            ("1:🙂", E::SplitCharacter),
            ("1:7", E::Packet(PacketError::UnknownType('7'))),
            ("1:b", E::Packet(PacketError::Empty)),
            ("2:b2", E::Packet(PacketError::UnknownType('2'))),
            ("4:b4!!", E::Packet(PacketError::Base64)),
        ] {
            assert_eq!(decode(body.as_bytes()), [Err(error)], "{body}");
        }
        assert_eq!(decode(b"2:4a3:4"), [text("a"), Err(E::Truncated)]);
        assert_eq!(decode(b"2:4a2:xy2:4b").len(), 2, "the rest is dropped");
    }

    #[test]
    fn malformed_binary_payloads_are_refused() {
        use PayloadError as E;
        for (body, error) in [
            (&b""[..], E::Empty),
            (b"\xff", E::Length),
            (b"\x00\xff", E::Length),
            (b"\x00\x01", E::Length),
            (b"\x001\xff4", E::Length),
            (b"\x00\x0a\xff4", E::Length),
            (b"\x00\x02\xff4", E::Truncated),
            (b"\x02\x01\xff4", E::UnknownKind(2)),
            (b"\x00\x02\xff4\xff", E::Utf8),
            (b"\x00\x00\xff", E::Packet(PacketError::Empty)),
            (b"\x01\x00\xff", E::Packet(PacketError::Empty)),
            (
                b"\x01\x01\xff\x02",
                E::Packet(PacketError::UnknownType('\u{2}')),
            ),
        ] {
            assert_eq!(decode_binary(body), [Err(error)], "{body:x?}");
        }
        let mut endless = vec![9; 1000];
        endless.insert(0, 0);
        endless.push(0xff);
        assert_eq!(decode_binary(&endless), [Err(E::Length)]);
    }

    #[test]
    fn invalid_utf8_is_replaced_before_it_is_measured() {
        assert_eq!(decode(b"4:4a\xffb"), [text("a\u{fffd}b")]);
        // However much of a character is there, and whether it is cut short by the next packet or by the end.
        let cut = b"3:4\xe2\x82\xf0\x9f\x981:64:4\xf0\x9f\x98\x80\xac3:4\xe2\x82\xc3";
        let expected = [
            "\u{fffd}\u{fffd}",
            "",
            "\u{1f600}\u{fffd}",
            "\u{fffd}\u{fffd}",
        ];
        let expected = expected.map(|said| match said {
            "" => Ok(Packet::Noop),
            said => text(said),
        });
        assert_eq!(decode(cut), expected);
    }

    #[test]
    fn a_body_of_nothing_but_lengths_is_looked_at_one_by_one() {
        let nothing = decode(&b"0:".repeat(500_000));
        assert_eq!(nothing.len(), 500_000);
        assert!(nothing.iter().all(|packet| *packet == Ok(Packet::Noop)));
        let digits = vec![b'1'; 1_000_000];
        assert_eq!(decode(&digits), [Err(PayloadError::Length)]);
        let packets = decode(&"3:4🙂".as_bytes().repeat(100_000));
        assert_eq!(packets.len(), 100_000);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(messages: Vec<(bool, String)>) {
            proptest::prop_assume!(!messages.is_empty());
            let mut texts = Vec::new();
            let mut mixed = Vec::new();
            let mut expected: Decoded = Vec::new();
            for (is_binary, data) in messages {
                let packet = format!("4{data}");
                if is_binary {
                    put_base64(&mut texts, data.as_bytes());
                    put_binary(&mut mixed, data.as_bytes());
                    expected.push(Ok(Packet::Message(Message::Binary(data.into()))));
                } else {
                    put_text(&mut texts, packet.as_bytes());
                    put_text_as_binary(&mut mixed, packet.as_bytes());
                    expected.push(Ok(Packet::Message(Message::Text(data.into()))));
                }
            }
            proptest::prop_assert_eq!(decode(&texts), expected.clone());
            proptest::prop_assert_eq!(decode_binary(&mixed), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            decode(&body);
            decode_binary(&body);
        }
    }
}
