//! MessagePack, one token at a time: markers, lengths, scalars.
//!
//! Pure, without recursion: whoever follows arrays and maps into their elements limits the depth. No length that the
//! bytes only claim is trusted: a token that cannot be whole is [`DecodeError::Truncated`] before anything is made
//! of it.
//!
//! Source: MessagePack specification, "Formats".

use std::ops::Range;

use bytes::Bytes;
use rmp::Marker;

use super::DecodeError;

/// One MessagePack token. Of an array or a map only the header: the elements follow.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    /// Negative integers, and positive ones in a signed format.
    Int(i64),
    Float(f64),
    /// As it arrived: not necessarily UTF-8.
    Str(&'a [u8]),
    /// Where the bytes are.
    Bin(Range<usize>),
    /// An extension.
    Ext(Ext),
    /// Number of elements.
    Array(usize),
    /// Number of pairs.
    Map(usize),
}

/// An extension's type and bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ext {
    pub(crate) kind: i8,
    /// Whether the length is the marker's own (fixext 1 to 16). notepack's `undefined` and date are, and its byte arrays are
    /// not, so that one of 1 or 8 bytes can be told from them.
    pub(crate) is_fixed: bool,
    /// Where the bytes are.
    pub(crate) range: Range<usize>,
}

impl Token<'_> {
    /// Returns whether it is what notepack 2 makes of `undefined`.
    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Ext(Ext { kind: 0, is_fixed: true, range }) if range.len() == 1)
    }
}

/// Reads tokens from the front of a message. A copy is a bookmark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the offset of the next token.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Returns how long the whole message is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of `range` without copying them.
    pub(crate) fn share(&self, range: Range<usize>) -> Bytes {
        self.bytes
            .get(range)
            .map_or_else(Bytes::new, |slice| self.bytes.slice_ref(slice))
    }

    /// Returns the bytes of `range`.
    pub(crate) fn slice(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Refuses bytes behind the last token.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { len }),
        }
    }

    /// Reads one token.
    pub(crate) fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let start = self.at;
        let [marker] = self.array::<1>()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(number) => Token::Uint(number.into()),
            Marker::FixNeg(number) => Token::Int(number.into()),
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::U8 => Token::Uint(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Token::Uint(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Uint(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Token::Uint(u64::from_be_bytes(self.array()?)),
            Marker::I8 => Token::Int(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Token::Int(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Token::Int(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Token::Int(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => self.str(len.into())?,
            Marker::Str8 => {
                let len = self.len8()?;
                self.str(len)?
            }
            Marker::Str16 => {
                let len = self.len16()?;
                self.str(len)?
            }
            Marker::Str32 => {
                let len = self.len32()?;
                self.str(len)?
            }
            Marker::Bin8 => {
                let len = self.len8()?;
                Token::Bin(self.take(len)?)
            }
            Marker::Bin16 => {
                let len = self.len16()?;
                Token::Bin(self.take(len)?)
            }
            Marker::Bin32 => {
                let len = self.len32()?;
                Token::Bin(self.take(len)?)
            }
            Marker::FixExt1 => self.ext(1, true)?,
            Marker::FixExt2 => self.ext(2, true)?,
            Marker::FixExt4 => self.ext(4, true)?,
            Marker::FixExt8 => self.ext(8, true)?,
            Marker::FixExt16 => self.ext(16, true)?,
            Marker::Ext8 => {
                let len = self.len8()?;
                self.ext(len, false)?
            }
            Marker::Ext16 => {
                let len = self.len16()?;
                self.ext(len, false)?
            }
            Marker::Ext32 => {
                let len = self.len32()?;
                self.ext(len, false)?
            }
            Marker::FixArray(len) => Token::Array(self.elements(start, len.into(), 1)?),
            Marker::Array16 => {
                let len = self.len16()?;
                Token::Array(self.elements(start, len, 1)?)
            }
            Marker::Array32 => {
                let len = self.len32()?;
                Token::Array(self.elements(start, len, 1)?)
            }
            Marker::FixMap(len) => Token::Map(self.elements(start, len.into(), 2)?),
            Marker::Map16 => {
                let len = self.len16()?;
                Token::Map(self.elements(start, len, 2)?)
            }
            Marker::Map32 => {
                let len = self.len32()?;
                Token::Map(self.elements(start, len, 2)?)
            }
            Marker::Reserved => return Err(DecodeError::Marker { at: start }),
        })
    }

    /// Reads one token and stays before it.
    pub(crate) fn peek(&self) -> Result<Token<'a>, DecodeError> {
        let mut ahead = *self;
        ahead.token()
    }

    /// Reads a map; `read` takes the value that belongs to each key. Keys that are no text cannot be known ones, and are
    /// skipped with their values.
    pub(crate) fn for_each_key<E: From<DecodeError>>(
        &mut self,
        no_map: E,
        mut read: impl FnMut(&[u8], &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let Token::Map(len) = self.token()? else {
            return Err(no_map);
        };
        for _ in 0..len {
            let mut behind = *self;
            if let Token::Str(key) = behind.token()? {
                *self = behind;
                read(key, self)?;
            } else {
                self.skip()?;
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Reads one value, however deep, and forgets it.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        // Counts what is still to come instead of recursing: any depth is fine, and every token is at least a byte.
        let mut num_left: u64 = 1;
        while num_left > 0 {
            num_left -= 1;
            num_left += match self.token()? {
                Token::Array(len) => len as u64,
                Token::Map(len) => 2 * len as u64,
                Token::Nil
                | Token::Bool(_)
                | Token::Uint(_)
                | Token::Int(_)
                | Token::Float(_)
                | Token::Str(_)
                | Token::Bin(_)
                | Token::Ext(_) => 0,
            };
        }
        Ok(())
    }

    fn str(&mut self, len: usize) -> Result<Token<'a>, DecodeError> {
        let range = self.take(len)?;
        Ok(Token::Str(self.slice(range)))
    }

    fn ext(&mut self, len: usize, is_fixed: bool) -> Result<Token<'a>, DecodeError> {
        let kind = i8::from_be_bytes(self.array()?);
        let range = self.take(len)?;
        Ok(Token::Ext(Ext {
            kind,
            is_fixed,
            range,
        }))
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        let at = self.at;
        // Fails only where addresses have 16 bits; the bytes could not be there.
        usize::try_from(u32::from_be_bytes(self.array()?))
            .map_err(|_too_long| DecodeError::Truncated { at })
    }

    /// Lets a claimed number of elements pass if each can still have a byte.
    fn elements(&self, start: usize, len: usize, bytes: usize) -> Result<usize, DecodeError> {
        if len.saturating_mul(bytes) > self.bytes.len() - self.at {
            return Err(DecodeError::Truncated { at: start });
        }
        Ok(len)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        let range = self.take(N)?;
        <[u8; N]>::try_from(self.slice(range)).map_err(|_short| DecodeError::Truncated { at })
    }

    fn take(&mut self, len: usize) -> Result<Range<usize>, DecodeError> {
        if len > self.bytes.len() - self.at {
            return Err(DecodeError::Truncated { at: self.at });
        }
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_is_refused_before_anything_is_made_of_it() {
        for (bytes, at) in [
            (&b"\xdd\xff\xff\xff\xff\x00"[..], 0),    // array of 4 Gi
            (b"\xdf\x00\x00\x00\x02\x01\x02\x03", 0), // two pairs in three bytes
            (b"\xdb\x20\x00\x00\x00abc", 5),          // 512 MiB of text
            (b"\xc6\x20\x00\x00\x00abc", 5),
            (b"\xc9\x20\x00\x00\x00\x05abc", 6),
            (b"\xcf\x00", 1),
            (b"", 0),
        ] {
            let bytes = Bytes::copy_from_slice(bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(
                reader.token(),
                Err(DecodeError::Truncated { at }),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn skipping_goes_to_any_depth() {
        let mut bytes = vec![0x91; 1_000_000];
        bytes.push(0xc0);
        let bytes = Bytes::from(bytes);
        let mut reader = Reader::new(&bytes);
        reader.skip().unwrap();
        reader.end().unwrap();
    }

    #[test]
    fn the_reserved_marker_is_refused() {
        let bytes = Bytes::from_static(b"\xc1");
        assert_eq!(
            Reader::new(&bytes).token(),
            Err(DecodeError::Marker { at: 0 })
        );
    }
}
