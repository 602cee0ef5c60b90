//! Where the head of a request ends, found in its bytes as they come.
//!
//! Knows lines and nothing of what stands in them: that is for whoever parses the head. Source: RFC 9112, 2.1 and 2.2; a line may end
//! with a bare LF, and empty lines before a head are passed over, as actix-http does both.

/// What the bytes so far are the begin of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadEnd {
    /// Nothing yet, or empty lines.
    #[default]
    Before,
    /// A line.
    InLine,
    /// The end of a line.
    AfterLine,
    /// The end of a line, and the CR of what may be the empty one.
    AfterReturn,
}

impl HeadEnd {
    /// Looks at the bytes that come next. If the head ends in them, returns where, and what is behind that begins anew.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::Before, b'\r' | b'\n') => Self::Before,
                (Self::AfterLine | Self::AfterReturn, b'\n') => {
                    *self = Self::Before;
                    return Some(at + 1);
                }
                (Self::AfterLine, b'\r') => Self::AfterReturn,
                (_, b'\n') => Self::AfterLine,
                _ => Self::InLine,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use actix_codec::Decoder as _;
    use actix_http::h1::Codec;
    use bytes::BytesMut;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Returns whether actix-http takes these bytes for a request, if it can tell and does not refuse them, and how many it leaves.
    fn taken_by_actix(bytes: &[u8]) -> (Option<bool>, usize) {
        // It brings a clock along, which wants to run somewhere.
        let mut codec = actix_rt::System::new().block_on(async { Codec::default() });
        let mut left = BytesMut::from(bytes);
        let head = codec.decode(&mut left).map(|head| head.is_some());
        (head.ok(), left.len())
    }

    /// Returns the heads, and what is left, however the bytes are cut into pieces.
    fn heads(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut end, mut heads, mut head) = (HeadEnd::default(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(piece) {
            while let Some(at) = end.find(piece) {
                head.extend(&piece[..at]);
                heads.push(std::mem::take(&mut head));
                piece = &piece[at..];
            }
            head.extend(piece);
        }
        (heads, head)
    }

    #[test]
    fn heads_are_told_apart_however_they_come() {
        let first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
        let second = b"\r\n\n\r\nGET / HTTP/1.0\n\n".as_slice();
        let third = b"POST / HTTP/1.1\nHost: a\n\r\n".as_slice();
        let rest = b"\r\nGET / HTTP/1.1\r\nHost: \r".as_slice();
        let all = [first, second, third, rest].concat();
        for piece in 1..all.len() {
            let expected = [first, second, third].map(<[u8]>::to_vec).to_vec();
            assert_eq!(heads(&all, piece), (expected, rest.to_vec()), "{piece}");
        }
    }

    #[test]
    fn empty_lines_alone_are_no_head() {
        assert_eq!(heads(&[b'\n'; 1000], 7).0.len(), 0);
        assert_eq!(heads(&b"\r\n".repeat(1000), 7).0.len(), 0);
    }

    proptest! {
        #[test]
        fn a_head_ends_where_actix_http_says(
            parts in vec(
                select(vec![
                    "GET / HTTP/1.1", "\r\n", "\r\n", "\r\n", "\n", "\n", "\r", "Host: a", "Accept:", " ", "x: y\r\n",
                    "POST /a HTTP/1.0\r\n", "\r\n\r\n", "\n\n", "\n\r\n", "\u{7f}", "é",
                ]),
                0..12,
            ),
        ) {
            let all = parts.concat();
            let all = all.as_bytes();
            let end = HeadEnd::default().find(all);
            let before_its_end = end.map_or(all, |end| &all[..end - 1]);
            prop_assert_ne!(taken_by_actix(before_its_end).0, Some(true));
            if let Some(end) = end {
                // A request, of which this is all, or refused.
                let (taken, num_left) = taken_by_actix(&all[..end]);
                prop_assert!(taken != Some(false) && (taken.is_none() || num_left == 0), "{:?}", taken);
            }
        }
    }
}
