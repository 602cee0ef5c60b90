//! The bytes that the clients write and read: WebSocket frames, HTTP messages, Socket.IO packets. Pure.
//!
//! Written by hand and for this purpose alone: it trusts its server more than a client should.

use std::ops::Range;

/// The key of every WebSocket handshake, and the accept that it must bring (RFC 6455, 1.3).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;

/// Appends a text frame of a client. Its mask is all zeros, so that masking costs nothing here; the server cannot know.
pub(crate) fn put_frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x80 | TEXT);
    match len {
        0..126 => out.push(0x80 | len as u8),
        126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// A whole frame of a server: its opcode, where its payload is, and where the next one begins.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Range<usize>,
}

/// Returns the frame that begins at `at`, or nothing if it is not whole yet.
#[inline]
pub(crate) fn frame(bytes: &[u8], at: usize) -> Option<Frame> {
    let head = bytes.get(at..at + 2)?;
    let (start, len) = match head[1] & 0x7f {
        126 => {
            let len = bytes.get(at + 2..at + 4)?;
            (at + 4, usize::from(u16::from_be_bytes([len[0], len[1]])))
        }
        127 => {
            let len: [u8; 8] = bytes.get(at + 2..at + 10)?.try_into().ok()?;
            (at + 10, u64::from_be_bytes(len) as usize)
        }
        len => (at + 2, usize::from(len)),
    };
    (bytes.len() >= start + len).then(|| Frame {
        opcode: head[0] & 0x0f,
        payload: start..start + len,
    })
}

/// Returns how long a server's frame with so many bytes is.
pub(crate) fn frame_len(len: usize) -> usize {
    let head = match len {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    };
    head + len
}

/// A whole HTTP response.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Range<usize>,
    pub(crate) body: Range<usize>,
}

/// Returns the response that begins at `at`, or nothing if it is not whole yet. A body has a `Content-Length`; the one exception is
/// an upgrade, which has none.
pub(crate) fn response(bytes: &[u8], at: usize) -> Result<Option<Response>, String> {
    let rest = &bytes[at.min(bytes.len())..];
    let Some(head_len) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&rest[..head_len]).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or("no status")?;
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map(|len| len.trim().parse::<usize>());
    let len = match len {
        Some(len) => len.map_err(|err| err.to_string())?,
        None if status == 101 => 0,
        None => return Err("a response without Content-Length".to_owned()),
    };
    let start = at + head_len + 4;
    Ok((bytes.len() >= start + len).then(|| Response {
        status,
        head: at..start,
        body: start..start + len,
    }))
}

/// Digits of the sequence number and of the time that open the text of each payload.
const SEQ_DIGITS: usize = 10;
const TIME_DIGITS: usize = 12;
const OPEN: &[u8] = b"{\"d\":\"";
const END: &[u8] = b"\"}";

/// Length of the shortest payload.
pub(crate) const MIN_PAYLOAD: usize = OPEN.len() + SEQ_DIGITS + TIME_DIGITS + END.len();

/// Appends `len` bytes of JSON that hold a sequence number and a time.
pub(crate) fn put_payload(out: &mut Vec<u8>, len: usize, seq: u32, micros: u64) {
    let begin = out.len();
    out.extend_from_slice(OPEN);
    put_digits(out, u64::from(seq), SEQ_DIGITS);
    put_digits(out, micros, TIME_DIGITS);
    out.resize(begin + len - END.len(), b'x');
    out.extend_from_slice(END);
}

/// Reads what [`put_payload`] wrote, or nothing if it is anything else. The filler is looked at by its length alone.
#[inline]
pub(crate) fn read_payload(bytes: &[u8], len: usize) -> Option<(u32, u64)> {
    if bytes.len() != len || !bytes.starts_with(OPEN) || !bytes.ends_with(END) {
        return None;
    }
    let seq = digits(bytes.get(OPEN.len()..OPEN.len() + SEQ_DIGITS)?)?;
    let time = &bytes[OPEN.len() + SEQ_DIGITS..][..TIME_DIGITS];
    Some((seq as u32, digits(time)?))
}

fn put_digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let begin = out.len();
    out.resize(begin + width, b'0');
    for digit in out[begin..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |value: u64, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        for len in [0, 1, 125, 126, 65535, 65536] {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, &[&vec![b'a'; len]]);
            // As a server writes it: no mask.
            let header = bytes.len() - len - 4;
            bytes.drain(header..header + 4);
            bytes[1] &= 0x7f;
            let whole = frame(&bytes, 0).unwrap();
            assert_eq!((whole.opcode, whole.payload), (TEXT, header..header + len));
            assert_eq!(frame_len(len), bytes.len());
            assert!(frame(&bytes[..bytes.len() - 1], 0).is_none());
        }
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        for len in [MIN_PAYLOAD, 128, 16384] {
            let mut bytes = Vec::new();
            put_payload(&mut bytes, len, 4_000_000_000, 123_456_789_012);
            assert_eq!(bytes.len(), len);
            assert_eq!(
                read_payload(&bytes, len),
                Some((4_000_000_000, 123_456_789_012))
            );
            assert_eq!(read_payload(&bytes[1..], len), None);
            assert_eq!(read_payload(&bytes, len + 1), None);
        }
    }

    #[test]
    fn a_response_is_taken_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 101";
        let first = response(bytes, 0).unwrap().unwrap();
        assert_eq!(
            (first.status, &bytes[first.body.clone()]),
            (200, &b"ok"[..])
        );
        assert!(response(bytes, first.body.end).unwrap().is_none());
        assert!(response(b"HTTP/1.1 200 OK\r\n\r\n", 0).is_err());
    }
}
