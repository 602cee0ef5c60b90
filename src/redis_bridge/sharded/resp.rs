//! What Redis sends to a subscribed connection in RESP2, as far as sharded pub/sub needs it.
//!
//! Pure. The Redis client understands no sharded messages in RESP2, and in RESP3 takes the end of a subscription that nobody
//! asked for (a slot has moved) for the answer to another command. So this is read by ourselves.
//!
//! ```text
//! frame = "*" n CRLF *item / "+" text CRLF / "-" text CRLF / ":" number CRLF
//! item  = "$" length CRLF bytes CRLF / "$-1" CRLF / ":" number CRLF
//! ```
//! Limits: [`MAX_LINE_BYTES`], [`MAX_ITEMS`], and what the caller allows in one item. A length that is only claimed
//! allocates nothing.
//!
//! Source: Redis serialization protocol specification, RESP2; Redis "Pub/Sub", "Sharded Pub/Sub".

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest line, that is an error's text.
const MAX_LINE_BYTES: usize = 16 << 10;
/// Most items of an array. Pub/sub has three, or four.
const MAX_ITEMS: usize = 8;

/// Something that Redis said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message or the answer to a subscription: its texts. Numbers and nothing are `None`.
    Array(Vec<Option<Bytes>>),
    /// Any other answer.
    Simple(Bytes),
    /// An error, its code first.
    Error(String),
}

/// It does not speak RESP2, or too much at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RespFault {
    /// Not what the grammar says.
    #[error("not RESP2")]
    Grammar,
    /// An item is longer than the caller allows.
    #[error("too long")]
    TooLong,
}

/// Takes the next frame off the front of `input`; `None` if it is not whole yet.
pub(super) fn take(
    input: &mut BytesMut,
    max_item_bytes: usize,
) -> Result<Option<Frame>, RespFault> {
    let mut at = 0;
    let Some((kind, line)) = line(input, &mut at)? else {
        return Ok(None);
    };
    let frame = match kind {
        b'+' | b':' => Frame::Simple(Bytes::copy_from_slice(line)),
        b'-' => Frame::Error(String::from_utf8_lossy(line).into_owned()),
        b'*' => {
            let num_items = usize::try_from(number(line)?).or(Err(RespFault::Grammar))?;
            if num_items > MAX_ITEMS {
                return Err(RespFault::Grammar);
            }
            let mut items = Vec::with_capacity(num_items);
            for _ in 0..num_items {
                match item(input, &mut at, max_item_bytes)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            // Copied only now that all of it is here.
            let copied = items
                .into_iter()
                .map(|item| item.map(Bytes::copy_from_slice));
            Frame::Array(copied.collect())
        }
        _ => return Err(RespFault::Grammar),
    };
    input.advance(at);
    Ok(Some(frame))
}

/// Reads a line from `at` on; returns its first byte and the rest.
fn line<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<(u8, &'a [u8])>, RespFault> {
    let rest = input.get(*at..).unwrap_or_default();
    let window = rest.get(..MAX_LINE_BYTES).unwrap_or(rest);
    let Some(len) = window.windows(2).position(|two| two == b"\r\n") else {
        return if rest.len() >= MAX_LINE_BYTES {
            Err(RespFault::Grammar)
        } else {
            Ok(None)
        };
    };
    *at += len + 2;
    let (kind, text) = window
        .get(..len)
        .and_then(<[u8]>::split_first)
        .ok_or(RespFault::Grammar)?;
    Ok(Some((*kind, text)))
}

/// Reads an item from `at` on; the outer `None` if it is not whole yet.
fn item<'a>(
    input: &'a [u8],
    at: &mut usize,
    max_bytes: usize,
) -> Result<Option<Option<&'a [u8]>>, RespFault> {
    let Some((kind, text)) = line(input, at)? else {
        return Ok(None);
    };
    let len = match (kind, number(text)?) {
        (b':', _) | (b'$', -1) => return Ok(Some(None)),
        (b'$', len) => usize::try_from(len).or(Err(RespFault::Grammar))?,
        _ => return Err(RespFault::Grammar),
    };
    if len > max_bytes {
        return Err(RespFault::TooLong);
    }
    let Some(bytes) = input.get(*at..*at + len + 2) else {
        return Ok(None);
    };
    *at += len + 2;
    match bytes.strip_suffix(b"\r\n") {
        Some(bytes) => Ok(Some(Some(bytes))),
        None => Err(RespFault::Grammar),
    }
}

fn number(text: &[u8]) -> Result<i64, RespFault> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(RespFault::Grammar)
}

/// Appends a command.
pub(super) fn write(output: &mut BytesMut, command: &[&str]) {
    output.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for arg in command {
        output.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        output.extend_from_slice(arg.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    fn array(items: &[&'static str]) -> Frame {
        Frame::Array(
            items
                .iter()
                .map(|item| Some(Bytes::from_static(item.as_bytes())))
                .collect(),
        )
    }

    #[test]
    fn frames_are_taken_whole_wherever_the_stream_is_cut() {
        let stream = b"*3\r\n$8\r\nsmessage\r\n$2\r\nc\xff\r\n$4\r\n\r\n\r\n\r\n\
                       *3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n\
                       -MOVED 1 h:2\r\n+PONG\r\n\
                       *3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n:7\r\n";
        let mut message = array(&["smessage", "c", "\r\n\r\n"]);
        if let Frame::Array(items) = &mut message {
            items[1] = Some(Bytes::from_static(b"c\xff"));
        }
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let expected = [
            message,
            Frame::Array(vec![text("ssubscribe"), text("c"), None]),
            Frame::Error("MOVED 1 h:2".into()),
            Frame::Simple("PONG".into()),
            Frame::Array(vec![text("sunsubscribe"), None, None]),
            Frame::Simple("7".into()),
        ];
        for cut in 0..stream.len() {
            let mut input = BytesMut::new();
            let mut frames = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                input.extend_from_slice(part);
                while let Some(frame) = take(&mut input, MAX).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, expected, "cut at {cut}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_no_resp_or_too_long_is_refused_at_once() {
        let long_line = [b"-".as_slice(), &[b'x'; MAX_LINE_BYTES]].concat();
        for (bytes, fault) in [
            (&b"hello\r\n"[..], RespFault::Grammar),
            (b"\r\n", RespFault::Grammar),
            (b"*9\r\n", RespFault::Grammar),
            (b"*-1\r\n", RespFault::Grammar),
            (b"*x\r\n", RespFault::Grammar),
            (b"*99999999999999999999\r\n", RespFault::Grammar),
            (b"*1\r\n*1\r\n", RespFault::Grammar),
            (b"*1\r\n$-2\r\n", RespFault::Grammar),
            (b"*1\r\n$1\r\nabc\r\n", RespFault::Grammar),
            (b"*1\r\n$101\r\n", RespFault::TooLong),
            (b"*1\r\n$9223372036854775807\r\n", RespFault::TooLong),
            (&long_line, RespFault::Grammar),
        ] {
            let mut input = BytesMut::from(bytes);
            assert_eq!(take(&mut input, MAX), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn a_command_is_an_array_of_texts() {
        let mut output = BytesMut::new();
        write(&mut output, &["SSUBSCRIBE", "é"]);
        assert_eq!(output, "*2\r\n$10\r\nSSUBSCRIBE\r\n$2\r\né\r\n".as_bytes());
    }
}
