//! Reads a client's frames and puts messages together.
//!
//! Pure: takes bytes in any portions, gives whole messages. It holds at most the message under way, which grows with
//! the bytes that really arrived, never with a length that was only claimed.
//!
//! Limits, each a [`ProtocolError`]: `max_payload` bytes in a message, fragments summed; [`MAX_FRAGMENTS`] fragments
//! in a message; 125 bytes in a control frame. Source: RFC 6455, 5.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::{
    close::may_be_received,
    frame::{MAX_CONTROL_PAYLOAD_BYTES, Opcode},
};
use crate::detached::fitted;

/// Most frames in one message. A message of the default 1 MB in fragments of 1 KiB stays well below it; a stream of
/// one-byte fragments, whose cost is in their number, does not.
pub const MAX_FRAGMENTS: usize = 4096;

/// Most bytes in a client's header: two, a 64-bit length, a mask.
const MAX_HEADER_BYTES: usize = 14;

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(ByteString),
    /// A binary message.
    Binary(Bytes),
    /// A ping, to be answered with a pong of the same payload.
    Ping(Bytes),
    /// A pong; nothing follows from it.
    Pong,
    /// The peer closes.
    Close,
}

/// How a client broke RFC 6455 or a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set although no extension was negotiated.
    #[error("reserved bits are set")]
    ReservedBits,
    /// 3 to 7 or 11 to 15.
    #[error("reserved opcode {0}")]
    ReservedOpcode(u8),
    /// A client must mask.
    #[error("frame is not masked")]
    Unmasked,
    /// A control frame in fragments.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A control frame with more than 125 bytes.
    #[error("control frame is too long")]
    LongControl,
    /// A continuation of nothing.
    #[error("continuation without a message")]
    LoneContinuation,
    /// A message inside another.
    #[error("new message inside a fragmented one")]
    Interleaved,
    /// A length that is not in its shortest form, or has its highest bit set.
    #[error("payload length is malformed")]
    BadLength,
    /// A close frame with one byte, or a code that must not be sent.
    #[error("close frame is malformed")]
    BadClose,
    /// A text message or close reason that is not UTF-8.
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// A message over the limit.
    #[error("message of at least {at_least} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// How long it is at least: the claimed length of the frame, and what came before.
        at_least: u64,
        /// The limit.
        limit: usize,
    },
    /// A message in too many pieces.
    #[error("message has more than {MAX_FRAGMENTS} fragments")]
    TooManyFragments,
}

/// A frame's header, once it is whole.
#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    opcode: Opcode,
    len: usize,
    mask: [u8; 4],
}

/// The data message under way.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    bytes: BytesMut,
    num_fragments: usize,
}

/// The frame under way, after its header.
#[derive(Debug)]
struct Frame {
    header: Header,
    num_read: usize,
}

/// Decodes one connection's input.
#[derive(Debug)]
pub struct Decoder {
    max_payload: usize,
    head: [u8; MAX_HEADER_BYTES],
    head_len: usize,
    frame: Option<Frame>,
    message: Option<Partial>,
    control: BytesMut,
}

impl Incoming {
    /// Returns how many bytes it takes: its own, and what is spent on however small a one.
    pub fn held_bytes(&self) -> usize {
        let len = match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) => bytes.len(),
            Self::Pong | Self::Close => 0,
        };
        size_of::<Self>() + len
    }
}

impl Decoder {
    /// Returns a decoder for messages of at most `max_payload` bytes.
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            head: [0; MAX_HEADER_BYTES],
            head_len: 0,
            frame: None,
            message: None,
            control: BytesMut::new(),
        }
    }

    /// Returns how many bytes of a message that is not whole yet are held.
    pub fn unfinished_bytes(&self) -> usize {
        self.message
            .as_ref()
            .map_or(0, |message| message.bytes.len())
    }

    /// Takes bytes off the front of `input` until a message is whole or the input is used up.
    ///
    /// The input is unmasked in place. After an error the connection must be ended; nothing more may be decoded.
    ///
    /// # Errors
    /// The first breach of the protocol or of a limit.
    pub fn decode(&mut self, input: &mut &mut [u8]) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(header) => Frame {
                        header,
                        num_read: 0,
                    },
                    None => return Ok(None),
                },
            };
            let header = frame.header;
            let wanted = header.len - frame.num_read;
            let chunk = take(input, wanted);
            unmask(chunk, header.mask, frame.num_read);
            let is_whole = chunk.len() == wanted;
            if is_whole && frame.num_read == 0 && header.fin && self.message.is_none() {
                // The common case: a whole message in one frame in one portion.
                if let Some(message) = whole(header.opcode, chunk)? {
                    return Ok(Some(message));
                }
                continue;
            }
            frame.num_read += chunk.len();
            if header.opcode.is_control() {
                self.control.extend_from_slice(chunk);
            } else {
                self.message
                    .get_or_insert_with(|| Partial {
                        is_text: header.opcode == Opcode::Text,
                        bytes: BytesMut::new(),
                        num_fragments: 1,
                    })
                    .bytes
                    .extend_from_slice(chunk);
            }
            if !is_whole {
                self.frame = Some(frame);
                return Ok(None);
            }
            if header.opcode.is_control() {
                let payload = self.control.split();
                if let Some(message) = whole(header.opcode, &payload)? {
                    return Ok(Some(message));
                }
            } else if header.fin
                && let Some(partial) = self.message.take()
            {
                let bytes = fitted(partial.bytes);
                return Ok(Some(if partial.is_text {
                    Incoming::Text(text(bytes)?)
                } else {
                    Incoming::Binary(bytes)
                }));
            }
        }
    }

    /// Reads a header, or as much of one as there is.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, ProtocolError> {
        loop {
            let known = self.head.get(..self.head_len).unwrap_or_default();
            let needed = header_len(known);
            let missing = needed.saturating_sub(self.head_len);
            if missing == 0 {
                let header = self.parse_header()?;
                self.head_len = 0;
                return Ok(Some(header));
            }
            let chunk = take(input, missing);
            if chunk.is_empty() {
                return Ok(None);
            }
            for (to, from) in self.head.iter_mut().skip(self.head_len).zip(&*chunk) {
                *to = *from;
            }
            self.head_len += chunk.len();
            // Two bytes are enough to refuse most of what must be refused.
            if self.head_len >= 2 {
                self.check_first_two()?;
            }
        }
    }

    fn check_first_two(&self) -> Result<(bool, Opcode), ProtocolError> {
        let [first, second, ..] = self.head;
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::ReservedOpcode(bits))?;
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                if !fin {
                    return Err(ProtocolError::FragmentedControl);
                }
                if usize::from(second & 0x7f) > MAX_CONTROL_PAYLOAD_BYTES {
                    return Err(ProtocolError::LongControl);
                }
            }
            Opcode::Continuation if self.message.is_none() => {
                return Err(ProtocolError::LoneContinuation);
            }
            Opcode::Text | Opcode::Binary if self.message.is_some() => {
                return Err(ProtocolError::Interleaved);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        Ok((fin, opcode))
    }

    fn parse_header(&mut self) -> Result<Header, ProtocolError> {
        let (fin, opcode) = self.check_first_two()?;
        let h = &self.head;
        let (len, mask): (u64, [u8; 4]) = match h[1] & 0x7f {
            126 => {
                let len = u64::from(u16::from_be_bytes([h[2], h[3]]));
                if len < 126 {
                    return Err(ProtocolError::BadLength);
                }
                (len, [h[4], h[5], h[6], h[7]])
            }
            127 => {
                let len = u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]);
                if len <= 0xffff || len > i64::MAX as u64 {
                    return Err(ProtocolError::BadLength);
                }
                (len, [h[10], h[11], h[12], h[13]])
            }
            len => (u64::from(len), [h[2], h[3], h[4], h[5]]),
        };
        if !opcode.is_control() {
            let before = self
                .message
                .as_ref()
                .map_or(0, |message| message.bytes.len());
            let at_least = len.saturating_add(before as u64);
            if at_least > self.max_payload as u64 {
                return Err(ProtocolError::TooLarge {
                    at_least,
                    limit: self.max_payload,
                });
            }
            if let Some(message) = &mut self.message {
                message.num_fragments += 1;
                if message.num_fragments > MAX_FRAGMENTS {
                    return Err(ProtocolError::TooManyFragments);
                }
            }
        }
        // Bounded by max_payload or 125 above, so it fits.
        Ok(Header {
            fin,
            opcode,
            len: len as usize,
            mask,
        })
    }
}

/// Returns how long the header will be, as far as its first bytes tell.
fn header_len(known: &[u8]) -> usize {
    match known.get(1).map(|second| second & 0x7f) {
        None => 2,
        Some(126) => 8,
        Some(127) => 14,
        Some(_) => 6,
    }
}

/// Takes up to `wanted` bytes off the front.
fn take<'a>(input: &mut &'a mut [u8], wanted: usize) -> &'a mut [u8] {
    let all = std::mem::take(input);
    let at = wanted.min(all.len());
    let (chunk, rest) = all.split_at_mut(at);
    *input = rest;
    chunk
}

/// Undoes the mask. `offset` is how many bytes of the frame came before.
fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn text(bytes: Bytes) -> Result<ByteString, ProtocolError> {
    ByteString::try_from(bytes).or(Err(ProtocolError::InvalidUtf8))
}

/// Makes a message of a whole payload. `None` for a continuation, which never stands alone.
fn whole(opcode: Opcode, payload: &[u8]) -> Result<Option<Incoming>, ProtocolError> {
    Ok(Some(match opcode {
        Opcode::Text => {
            let text = simdutf8::basic::from_utf8(payload).or(Err(ProtocolError::InvalidUtf8))?;
            Incoming::Text(ByteString::from(text))
        }
        Opcode::Binary => Incoming::Binary(Bytes::copy_from_slice(payload)),
        Opcode::Ping => Incoming::Ping(Bytes::copy_from_slice(payload)),
        Opcode::Pong => Incoming::Pong,
        Opcode::Close => {
            match payload {
                [] => {}
                [high, low, reason @ ..] => {
                    if !may_be_received(u16::from_be_bytes([*high, *low])) {
                        return Err(ProtocolError::BadClose);
                    }
                    simdutf8::basic::from_utf8(reason).or(Err(ProtocolError::InvalidUtf8))?;
                }
                [_] => return Err(ProtocolError::BadClose),
            }
            Incoming::Close
        }
        Opcode::Continuation => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 70_000;

    /// A client's frame, masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    /// Feeds the input in portions of `portion` bytes.
    fn decode(input: &[u8], portion: usize) -> Result<Vec<Incoming>, ProtocolError> {
        let mut decoder = Decoder::new(LIMIT);
        let mut messages = Vec::new();
        for chunk in input.chunks(portion) {
            let mut chunk = chunk.to_vec();
            let mut rest = chunk.as_mut_slice();
            while let Some(message) = decoder.decode(&mut rest)? {
                messages.push(message);
            }
            assert!(
                rest.is_empty(),
                "the decoder left input although no message was whole"
            );
        }
        Ok(messages)
    }

    fn text(text: &str) -> Incoming {
        Incoming::Text(text.into())
    }

    #[test]
    fn messages_are_the_same_in_whatever_portions_they_arrive() {
        let long = "x".repeat(300);
        let longer = vec![7; 66_000];
        let input = [
            frame(0x81, "hello €".as_bytes()),
            frame(0x82, &[1, 2, 3, 4]),
            frame(0x81, b""),
            frame(0x01, "a€".as_bytes().get(..2).unwrap()),
            frame(0x89, b"between"),
            frame(0x00, "a€".as_bytes().get(2..).unwrap()),
            frame(0x8a, b"x"),
            frame(0x80, b"!"),
            frame(0x81, long.as_bytes()),
            frame(0x82, &longer),
            frame(0x88, &[0x03, 0xe8, b'b']),
        ]
        .concat();
        let expected = [
            text("hello €"),
            Incoming::Binary(Bytes::from_static(&[1, 2, 3, 4])),
            text(""),
            Incoming::Ping(Bytes::from_static(b"between")),
            Incoming::Pong,
            text("a€!"),
            text(&long),
            Incoming::Binary(longer.into()),
            Incoming::Close,
        ];
        for portion in [1, 2, 3, 7, 64, 1000, input.len()] {
            assert_eq!(
                decode(&input, portion).unwrap(),
                expected,
                "portions of {portion}"
            );
        }
    }

    #[test]
    fn breaches_of_the_protocol_are_refused() {
        let unmasked = vec![0x81, 2, b'h', b'i'];
        for (input, error) in [
            (frame(0xc1, b"x"), ProtocolError::ReservedBits),
            (frame(0xa1, b"x"), ProtocolError::ReservedBits),
            (frame(0x91, b"x"), ProtocolError::ReservedBits),
            (frame(0x83, b"x"), ProtocolError::ReservedOpcode(3)),
            (frame(0x8b, b"x"), ProtocolError::ReservedOpcode(11)),
            (unmasked, ProtocolError::Unmasked),
            (frame(0x09, b"x"), ProtocolError::FragmentedControl),
            (frame(0x89, &[0; 126]), ProtocolError::LongControl),
            (frame(0x80, b"x"), ProtocolError::LoneContinuation),
            (
                [frame(0x01, b"x"), frame(0x81, b"y")].concat(),
                ProtocolError::Interleaved,
            ),
            (frame(0x88, b"x"), ProtocolError::BadClose),
            (
                frame(0x88, &1005_u16.to_be_bytes()),
                ProtocolError::BadClose,
            ),
            (frame(0x88, &999_u16.to_be_bytes()), ProtocolError::BadClose),
            (frame(0x88, &[0x03, 0xe8, 0xff]), ProtocolError::InvalidUtf8),
            (frame(0x81, &[0xff]), ProtocolError::InvalidUtf8),
            (
                [frame(0x01, &[0xe2, 0x82]), frame(0x80, b"x")].concat(),
                ProtocolError::InvalidUtf8,
            ),
            (
                vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
                ProtocolError::BadLength,
            ),
            (
                vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4],
                ProtocolError::BadLength,
            ),
            (vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4], ProtocolError::BadLength),
        ] {
            for portion in [1, input.len()] {
                assert_eq!(decode(&input, portion), Err(error.clone()), "{input:x?}");
            }
        }
    }

    #[test]
    fn a_claimed_length_over_the_limit_is_refused_before_a_byte_of_it_arrives() {
        let mut head = vec![0x82, 0xff];
        head.extend_from_slice(&(LIMIT as u64 + 1).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        assert_eq!(
            decode(&head, head.len()),
            Err(ProtocolError::TooLarge {
                at_least: LIMIT as u64 + 1,
                limit: LIMIT
            })
        );
        assert!(decode(&frame(0x82, &vec![0; LIMIT]), LIMIT).is_ok());
    }

    #[test]
    fn a_claimed_length_reserves_no_memory() {
        let mut head = vec![0x82, 0xff];
        head.extend_from_slice(&(LIMIT as u64).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        let mut decoder = Decoder::new(LIMIT);
        assert_eq!(decoder.decode(&mut head.as_mut_slice()), Ok(None));
        assert!(
            decoder
                .message
                .as_ref()
                .is_none_or(|message| message.bytes.capacity() < 1024)
        );
    }

    #[test]
    fn fragments_are_limited_in_sum_and_in_number() {
        let half = vec![0; LIMIT / 2 + 1];
        let input = [frame(0x02, &half), frame(0x80, &half)].concat();
        assert_eq!(
            decode(&input, input.len()),
            Err(ProtocolError::TooLarge {
                at_least: LIMIT as u64 + 2,
                limit: LIMIT
            })
        );
        let mut input = frame(0x02, b"x");
        for _ in 0..MAX_FRAGMENTS {
            input.extend(frame(0x00, b"x"));
        }
        assert_eq!(
            decode(&input, input.len()),
            Err(ProtocolError::TooManyFragments)
        );
        let mut input = frame(0x02, b"");
        for _ in 0..MAX_FRAGMENTS {
            input.extend(frame(0x00, b""));
        }
        assert_eq!(
            decode(&input, 1000),
            Err(ProtocolError::TooManyFragments),
            "empty ones count too"
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>, portion in 1_usize..64) {
            let _ = decode(&input, portion);
        }
    }
}
