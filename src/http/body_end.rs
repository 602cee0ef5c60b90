//! Where the body of a request ends, found in its bytes as they come.
//!
//! Knows how a body is framed and nothing of what it says. It finds the end where actix-http 3.20 does (`h1/chunked.rs`), whose rules for
//! chunks it repeats: a bare LF ends no line here. Where that refuses a byte the body ends, and so does its connection.
//! Source: RFC 9112, 6.3 and 7.1.

/// What is yet to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// So many bytes; 0 if it has come to its end, or there is none.
    After(u64),
    /// Chunks, from this place in one.
    InChunks(Place),
}

/// What comes next of a body in chunks. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first digit of a size.
    Size,
    /// More of a size, which is this so far.
    SizeRest(u64),
    /// White space behind a size.
    SizeSpace(u64),
    /// An extension.
    Extension(u64),
    /// The LF of a line with a size.
    SizeLf(u64),
    /// So much of a chunk.
    Data(u64),
    /// The CR behind a chunk.
    DataCr,
    /// The LF behind a chunk.
    DataLf,
    /// More of a line of trailers.
    Trailer,
    /// The LF of such a line.
    TrailerLf,
    /// A line of trailers, or the CR of the empty line at the end.
    EndCr,
    /// The LF of the empty line at the end.
    EndLf,
}

impl BodyEnd {
    /// There is nothing to come.
    pub const OVER: Self = Self::After(0);

    /// Returns the begin of a body that is so many bytes long, or in chunks if that is not said.
    pub fn begin(len: Option<u64>) -> Self {
        len.map_or(Self::InChunks(Place::Size), Self::After)
    }

    /// Returns how many bytes may be to come, at most.
    pub fn at_most(self) -> u64 {
        match self {
            Self::After(len) => len,
            Self::InChunks(_) => u64::MAX,
        }
    }

    /// Looks at the bytes that come next. Returns how many of them are the body's.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let mut len = 1;
            *self = match *self {
                Self::OVER => break,
                Self::After(left) => {
                    len = up_to(left, rest);
                    Self::After(left - len as u64)
                }
                Self::InChunks(Place::Data(left)) => {
                    len = up_to(left, rest);
                    Self::InChunks(match left - len as u64 {
                        0 => Place::DataCr,
                        left => Place::Data(left),
                    })
                }
                Self::InChunks(place) => place.behind(byte).map_or(Self::OVER, Self::InChunks),
            };
            rest = rest.get(len..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }
}

/// Returns how many of these bytes there are, if no more than so many count.
fn up_to(len: u64, bytes: &[u8]) -> usize {
    usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()))
}

impl Place {
    /// Returns the place behind a byte that is not of a chunk's data. There is none if it is the last one, or one that is refused.
    fn behind(self, byte: u8) -> Option<Self> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        Some(match (self, byte) {
            (Self::Size, _) => Self::SizeRest(digit?),
            (Self::SizeRest(size), b'\t' | b' ') | (Self::SizeSpace(size), b'\t' | b' ') => {
                Self::SizeSpace(size)
            }
            (Self::SizeRest(size) | Self::SizeSpace(size), b';') => Self::Extension(size),
            (Self::SizeRest(size) | Self::SizeSpace(size) | Self::Extension(size), b'\r') => {
                Self::SizeLf(size)
            }
            (Self::SizeRest(size), _) => Self::SizeRest(size.checked_mul(16)? + digit?),
            (Self::Extension(_), 0x00..=0x08 | 0x0a..=0x1f | 0x7f) => return None,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeLf(0), b'\n') | (Self::TrailerLf, b'\n') => Self::EndCr,
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size,
            (Self::Trailer, b'\r') => Self::TrailerLf,
            (Self::EndCr, b'\r') => Self::EndLf,
            (Self::Trailer | Self::EndCr, _) => Self::Trailer,
            (
                Self::SizeSpace(_)
                | Self::SizeLf(_)
                | Self::Data(_)
                | Self::DataCr
                | Self::DataLf
                | Self::TrailerLf
                | Self::EndLf,
                _,
            ) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use actix_codec::Decoder as _;
    use actix_http::h1::{Codec, Message};
    use bytes::BytesMut;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Returns how many bytes are of a body in chunks that comes in such pieces, and whether it has come to an end.
    fn passed(bytes: &[u8], piece: usize) -> (usize, bool) {
        let (mut end, mut len) = (BodyEnd::begin(None), 0);
        for piece in bytes.chunks(piece) {
            let passed = end.pass(piece);
            len += passed;
            if passed < piece.len() {
                break;
            }
        }
        (len, end == BodyEnd::OVER)
    }

    /// Returns the same as actix-http sees it.
    fn passed_by_actix(bytes: &[u8]) -> (usize, bool) {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        // It brings a clock along, which wants to run somewhere.
        let mut codec = actix_rt::System::new().block_on(async { Codec::default() });
        let mut left = BytesMut::from(&head[..]);
        codec.decode(&mut left).unwrap().unwrap();
        left.extend_from_slice(bytes);
        let is_over = loop {
            match codec.decode(&mut left) {
                Ok(Some(Message::Chunk(Some(_)))) => {}
                Ok(Some(_)) | Err(_) => break true,
                Ok(None) => break false,
            }
        };
        (bytes.len() - left.len(), is_over)
    }

    #[test]
    fn a_body_ends_after_its_length() {
        let mut end = BodyEnd::begin(Some(5));
        assert_eq!((end.at_most(), end.pass(b"abc")), (5, 3));
        assert_eq!((end.at_most(), end.pass(b"defgh")), (2, 2));
        assert_eq!((end.at_most(), end.pass(b"i")), (0, 0));
        assert_eq!(end, BodyEnd::OVER);
    }

    #[test]
    fn a_body_in_chunks_ends_with_its_last_line() {
        for body in [
            "0\r\n\r\n",
            "1\r\na\r\n0\r\n\r\n",
            "000A ;x=y\r\n0123456789\r\n00\t\r\n\r\n",
            "a;\"0\r\n0\r\n\r\n45678\r\n0;z\r\nTrailer: \n\r\nb\r\n\r\n",
        ] {
            let all = format!("{body}GET / HTTP/1.1\r\n\r\n");
            for piece in 1..=all.len() {
                let passed = passed(all.as_bytes(), piece);
                assert_eq!(passed, (body.len(), true), "{body:?} in {piece}s");
            }
        }
    }

    #[test]
    fn a_body_in_chunks_ends_where_it_is_refused() {
        for (refused, rest) in [
            ("\r", "\n0\r\n\r\n"),
            ("1\n", "a\n0\n\n"),
            ("1 2", "\r\n"),
            ("1\r\nab", "\r\n"),
            ("10000000000000000", "\r\n"),
            ("0\r\n\r\r", "\n"),
            ("0\r\na\r\r", "\n"),
            ("1;\n", "\r\n"),
        ] {
            let all = format!("{refused}{rest}");
            assert_eq!(passed(all.as_bytes(), 1), (refused.len(), true), "{all:?}");
        }
    }

    proptest! {
        #[test]
        fn a_body_in_chunks_ends_where_actix_http_says(
            parts in vec(
                select(vec![
                    "0", "1", "2", "A", "f", "10", "00000000000000000", "\r\n", "\r\n", "\r\n", "\r", "\n",
                    " ", "\t", ";", ";a=b", "x", "xy", "0\r\n\r\n", "1\r\nx\r\n", "2;y\r\nxy\r\n",
                    "0\r\nx: y\r\n", "\u{7f}", "GET / HTTP/1.1\r\n\r\n",
                ]),
                0..12,
            ),
            piece in 1_usize..40,
        ) {
            let all = parts.concat();
            prop_assert_eq!(passed(all.as_bytes(), piece), passed_by_actix(all.as_bytes()));
        }
    }
}
