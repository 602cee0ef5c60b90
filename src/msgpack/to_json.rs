//! One value in MessagePack → JSON text with attachments, without a tree between them.
//!
//! Pure; linear in the bytes: placeholders aside, a byte becomes at most eight of text. The text is what `JSON.stringify` would print for what
//! notepack's decoder returns:
//! ```text
//! bin, ext 8-32 of type 0  {"_placeholder":true,"num":N}, numbered in the order in which they stand
//! d7 00, ext -1            a date: "2023-11-14T22:13:20.123Z", or null if JavaScript has no such date; ext -1 only in
//!                          Dialect::Notepack3
//! d4 00                    undefined: null in an array, and the whole pair is left out of a map
//! NaN, infinities          null
//! other ext                [type, bytes]
//! numbers                  as JavaScript prints them (5, 1e+21), but integers exact beyond 2^53
//! text not in UTF-8        U+FFFD for what is wrong with it
//! keys that are no text    their text: 1, null, true; arrays, maps and dates are refused
//! ```
//! Source: notepack.io 2.2.0 and 3.0.1 `lib/decode.js`; ECMA-262 `JSON.stringify`, `Number::toString`; wire.md 2.7, 3.2.

use std::{fmt::Write as _, ops::Range};

use bytes::Bytes;

use super::{
    DecodeError, Dialect, Rules, iso_date,
    reader::{Ext, Reader, Token},
};
use crate::detached::{detached, fitted_text};

/// What marks an attachment's place in the text.
const PLACEHOLDER_KEY: &str = "_placeholder";
/// How an attachment stands in the text, up to its number and a brace.
pub(crate) const PLACEHOLDER: &str = "{\"_placeholder\":true,\"num\":";
/// MessagePack's own extension type for instants.
const EXT_TIMESTAMP: i8 = -1;
/// notepack's extension type for `undefined`, dates and byte arrays, before its version 3.
const EXT_NOTEPACK: i8 = 0;

/// Reads one value: JSON text, and what its placeholders name. `undefined` becomes null.
///
/// # Errors
/// It nests too deep, has too many attachments, or ends too soon; see [`DecodeError`].
pub(crate) fn read_value(
    reader: &mut Reader<'_>,
    rules: Rules,
) -> Result<(String, Vec<Bytes>), DecodeError> {
    let mut write = Write {
        reader,
        rules,
        json: String::new(),
        attachments: Vec::new(),
        has_false_placeholder: false,
    };
    let token = write.reader.token()?;
    if write.value(token, rules.max_depth)? == Wrote::Undefined {
        write.json.push_str("null");
    }
    if write.has_false_placeholder && !write.attachments.is_empty() {
        return Err(DecodeError::FalsePlaceholder);
    }
    Ok((fitted_text(write.json), write.attachments))
}

/// Returns a number as JavaScript prints it; `None` if JSON has no word for it.
pub(crate) fn number_text(number: f64, buffer: &mut ryu_js::Buffer) -> Option<&str> {
    number.is_finite().then(|| buffer.format_finite(number))
}

/// Whether something was written.
#[derive(PartialEq)]
enum Wrote {
    Value,
    /// Nothing: JSON has no word for `undefined`, and what stands for it depends on the place.
    Undefined,
}

struct Write<'r, 'a> {
    reader: &'r mut Reader<'a>,
    rules: Rules,
    json: String,
    attachments: Vec<Bytes>,
    /// A map with `_placeholder: true` has come by. Harmless as long as there are no attachments.
    has_false_placeholder: bool,
}

impl Write<'_, '_> {
    fn deeper(&self, depth_left: usize) -> Result<usize, DecodeError> {
        let max = self.rules.max_depth;
        depth_left
            .checked_sub(1)
            .ok_or(DecodeError::TooDeep { max })
    }

    fn array(&mut self, len: usize, depth_left: usize) -> Result<(), DecodeError> {
        let depth_left = self.deeper(depth_left)?;
        self.json.push('[');
        for index in 0..len {
            if index > 0 {
                self.json.push(',');
            }
            let token = self.reader.token()?;
            if self.value(token, depth_left)? == Wrote::Undefined {
                self.json.push_str("null");
            }
        }
        self.json.push(']');
        Ok(())
    }

    fn map(&mut self, len: usize, depth_left: usize) -> Result<(), DecodeError> {
        let depth_left = self.deeper(depth_left)?;
        self.json.push('{');
        let start = self.json.len();
        for _ in 0..len {
            let before = self.json.len();
            if before > start {
                self.json.push(',');
            }
            let is_placeholder_key = self.key()?;
            self.json.push(':');
            let token = self.reader.token()?;
            self.has_false_placeholder |= is_placeholder_key && token == Token::Bool(true);
            if self.value(token, depth_left)? == Wrote::Undefined {
                self.json.truncate(before);
            }
        }
        self.json.push('}');
        Ok(())
    }

    /// Writes a key as text; returns whether it is [`PLACEHOLDER_KEY`].
    fn key(&mut self) -> Result<bool, DecodeError> {
        let at = self.reader.at();
        let mut buffer = ryu_js::Buffer::new();
        match self.reader.token()? {
            Token::Str(text) => {
                self.string(text);
                return Ok(text == PLACEHOLDER_KEY.as_bytes());
            }
            Token::Bin(range) => {
                let text = self.reader.slice(range);
                self.string(text);
                return Ok(text == PLACEHOLDER_KEY.as_bytes());
            }
            Token::Nil => self.json.push_str("\"null\""),
            Token::Bool(value) => _ = write!(self.json, "\"{value}\""),
            Token::Uint(number) => _ = write!(self.json, "\"{number}\""),
            Token::Int(number) => _ = write!(self.json, "\"{number}\""),
            // `format` knows NaN and the infinities, too.
            Token::Float(number) => {
                self.json.push('"');
                self.json.push_str(buffer.format(number));
                self.json.push('"');
            }
            Token::Ext(_) | Token::Array(_) | Token::Map(_) => {
                return Err(DecodeError::Key { at });
            }
        }
        Ok(false)
    }

    fn value(&mut self, token: Token<'_>, depth_left: usize) -> Result<Wrote, DecodeError> {
        match token {
            Token::Nil => self.json.push_str("null"),
            Token::Bool(value) => self.json.push_str(if value { "true" } else { "false" }),
            Token::Uint(number) => self.json.push_str(itoa::Buffer::new().format(number)),
            Token::Int(number) => self.json.push_str(itoa::Buffer::new().format(number)),
            Token::Float(number) => {
                let mut buffer = ryu_js::Buffer::new();
                self.json
                    .push_str(number_text(number, &mut buffer).unwrap_or("null"));
            }
            Token::Str(text) => self.string(text),
            Token::Bin(range) => self.attachment(range, depth_left)?,
            Token::Ext(ext) => return self.ext(ext, depth_left),
            Token::Array(len) => self.array(len, depth_left)?,
            Token::Map(len) => self.map(len, depth_left)?,
        }
        Ok(Wrote::Value)
    }

    fn ext(&mut self, ext: Ext, depth_left: usize) -> Result<Wrote, DecodeError> {
        let Ext {
            kind,
            is_fixed,
            range,
        } = ext;
        let payload = self.reader.slice(range.clone());
        match (kind, is_fixed, payload) {
            (EXT_NOTEPACK, true, [_]) => return Ok(Wrote::Undefined),
            (EXT_NOTEPACK, true, &[a, b, c, d, e, f, g, h]) => {
                self.date(i64::from_be_bytes([a, b, c, d, e, f, g, h]) as f64);
            }
            (EXT_NOTEPACK, false, _) => self.attachment(range, depth_left)?,
            (EXT_TIMESTAMP, _, payload) if self.rules.dialect == Dialect::Notepack3 => {
                match timestamp(is_fixed, payload) {
                    Some(millis) => self.date(millis),
                    None => self.pair(kind, range, depth_left)?,
                }
            }
            _ => self.pair(kind, range, depth_left)?,
        }
        Ok(Wrote::Value)
    }

    /// Writes an extension that has no meaning here.
    fn pair(
        &mut self,
        kind: i8,
        range: Range<usize>,
        depth_left: usize,
    ) -> Result<(), DecodeError> {
        let depth_left = self.deeper(depth_left)?;
        self.json.push('[');
        self.json.push_str(itoa::Buffer::new().format(kind));
        self.json.push(',');
        self.attachment(range, depth_left)?;
        self.json.push(']');
        Ok(())
    }

    fn date(&mut self, millis: f64) {
        match iso_date::from_millis(millis) {
            Some(text) => {
                self.json.push('"');
                self.json.push_str(&text);
                self.json.push('"');
            }
            None => self.json.push_str("null"),
        }
    }

    /// Writes a placeholder, which is an object and counts as one: whoever reads the text must find it within the limit.
    fn attachment(&mut self, range: Range<usize>, depth_left: usize) -> Result<(), DecodeError> {
        self.deeper(depth_left)?;
        let max = self.rules.max_attachments;
        if self.attachments.len() >= max {
            return Err(DecodeError::Attachments { max });
        }
        self.json.push_str(PLACEHOLDER);
        self.json
            .push_str(itoa::Buffer::new().format(self.attachments.len()));
        self.json.push('}');
        let attachment = self.reader.share(range);
        // What stands beside it, and may be much, is not kept with it.
        let attachment = detached(attachment, self.reader.len());
        self.attachments.push(attachment);
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.json.push('"');
        for chunk in text.utf8_chunks() {
            self.escaped(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.json.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.json.push('"');
    }

    fn escaped(&mut self, mut text: &str) {
        let must_escape = |c: char| c < ' ' || c == '"' || c == '\\';
        while let Some((position, c)) = text.char_indices().find(|(_, c)| must_escape(*c)) {
            let (plain, rest) = text.split_at(position);
            self.json.push_str(plain);
            match c {
                '"' => self.json.push_str("\\\""),
                '\\' => self.json.push_str("\\\\"),
                '\u{8}' => self.json.push_str("\\b"),
                '\u{c}' => self.json.push_str("\\f"),
                '\n' => self.json.push_str("\\n"),
                '\r' => self.json.push_str("\\r"),
                '\t' => self.json.push_str("\\t"),
                // Without an allocation for each: there may be a million.
                _ => _ = write!(self.json, "\\u{:04x}", u32::from(c)),
            }
            text = rest.split_at(c.len_utf8()).1;
        }
        self.json.push_str(text);
    }
}

/// Returns the milliseconds of one of the three standard forms.
fn timestamp(is_fixed: bool, payload: &[u8]) -> Option<f64> {
    match (is_fixed, payload) {
        (true, &[a, b, c, d]) => Some(f64::from(u32::from_be_bytes([a, b, c, d])) * 1e3),
        (true, &[a, b, c, d, e, f, g, h]) => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let (nanos, seconds) = (both >> 34, both & 0x3_ffff_ffff);
            Some(seconds as f64 * 1e3 + nanos as f64 / 1e6)
        }
        (false, &[a, b, c, d, e, f, g, h, i, j, k, l]) => {
            let nanos = u32::from_be_bytes([a, b, c, d]);
            let seconds = i64::from_be_bytes([e, f, g, h, i, j, k, l]);
            Some(seconds as f64 * 1e3 + f64::from(nanos) / 1e6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_DEPTH: usize = 128;
    const MAX_ATTACHMENTS: usize = 1000;

    /// Decodes `["x", <bytes>]`; returns the text of the second element.
    fn decode_as(dialect: Dialect, value: &[u8]) -> Result<(String, Vec<Bytes>), DecodeError> {
        let bytes = Bytes::from([b"\x92\xa1x", value].concat());
        let mut reader = Reader::new(&bytes);
        let rules = Rules {
            dialect,
            max_depth: MAX_DEPTH,
            max_attachments: MAX_ATTACHMENTS,
        };
        let (json, attachments) = read_value(&mut reader, rules)?;
        reader.end()?;
        let text = json
            .strip_prefix("[\"x\",")
            .unwrap()
            .strip_suffix(']')
            .unwrap();
        Ok((text.to_owned(), attachments))
    }

    fn decode(value: &[u8]) -> Result<(String, Vec<Bytes>), DecodeError> {
        decode_as(Dialect::Notepack3, value)
    }

    fn text(value: &[u8]) -> String {
        decode(value).unwrap().0
    }

    fn float(number: f64) -> Vec<u8> {
        [&[0xcb][..], &number.to_be_bytes()].concat()
    }

    /// A bug: of a client's events up to twice as much was kept as was counted.
    #[test]
    fn a_text_takes_hardly_more_than_its_length() {
        for len in [10, 1000, 1300, 2100, 4090] {
            let text = [&[0xda, (len / 256) as u8, len as u8], &*vec![b'x'; len]].concat();
            let bytes = Bytes::from([b"\x92", &*text, &*text].concat());
            let rules = Rules {
                dialect: Dialect::Notepack3,
                max_depth: MAX_DEPTH,
                max_attachments: MAX_ATTACHMENTS,
            };
            let (json, _) = read_value(&mut Reader::new(&bytes), rules).unwrap();
            let most = json.len() + 64.max(json.len() / 4);
            assert!(json.capacity() <= most, "{} of {len}", json.capacity());
        }
    }

    #[test]
    fn numbers_are_printed_as_javascript_prints_them() {
        for (number, expected) in [
            (5.0, "5"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (0.000_001, "0.000001"),
            (1e-7, "1e-7"),
            (123_456_789.123, "123456789.123"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
            (f64::NEG_INFINITY, "null"),
        ] {
            assert_eq!(text(&float(number)), expected);
        }
        assert_eq!(
            text(b"\xca\x3d\xcc\xcc\xcd"),
            "0.10000000149011612",
            "float 32"
        );
        assert_eq!(
            text(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
            "18446744073709551615"
        );
        assert_eq!(text(b"\xd3\x80\0\0\0\0\0\0\0"), "-9223372036854775808");
        assert_eq!(text(b"\xd0\x05"), "5");
    }

    #[test]
    fn dates_of_every_format_become_iso_texts() {
        for (bytes, expected) in [
            (
                &b"\xd6\xff\x65\x53\xf1\x00"[..],
                "\"2023-11-14T22:13:20.000Z\"",
            ),
            (
                b"\xd7\xff\x1d\x53\x53\x00\x65\x53\xf1\x00",
                "\"2023-11-14T22:13:20.123Z\"",
            ),
            // 500 ms before 1970: second -1 and half of it
            (
                b"\xc7\x0c\xff\x1d\xcd\x65\x00\xff\xff\xff\xff\xff\xff\xff\xff",
                "\"1969-12-31T23:59:59.500Z\"",
            ),
            (
                b"\xd7\x00\x00\x00\x01\x8b\xcf\xe5\x68\x7b",
                "\"2023-11-14T22:13:20.123Z\"",
            ),
            (
                b"\xd7\x00\xff\xff\xff\xff\xff\xff\xff\xff",
                "\"1969-12-31T23:59:59.999Z\"",
            ),
            (
                b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                "null",
            ),
        ] {
            assert_eq!(text(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn undefined_is_null_in_arrays_and_absent_from_maps() {
        assert_eq!(text(b"\x93\x01\xd4\0\0\x02"), "[1,null,2]");
        assert_eq!(
            text(b"\x83\xa1a\xd4\0\0\xa1b\x01\xa1c\xd4\0\0"),
            "{\"b\":1}"
        );
        assert_eq!(text(b"\xd4\0\0"), "null");
    }

    #[test]
    fn bytes_become_attachments_in_the_order_in_which_they_stand() {
        let (text, attachments) = decode(b"\x93\xc4\x01a\x81\xa1k\xc7\x02\0bc\xd5\x05de").unwrap();
        assert_eq!(
            text,
            "[{\"_placeholder\":true,\"num\":0},{\"k\":{\"_placeholder\":true,\"num\":1}},\
             [5,{\"_placeholder\":true,\"num\":2}]]"
        );
        assert_eq!(attachments, [&b"a"[..], b"bc", b"de"]);
    }

    /// A bug: a byte of a large message kept all of it in memory, and counted as a byte.
    #[test]
    fn an_attachment_that_is_a_small_part_of_its_message_does_not_keep_the_rest() {
        for (num_beside, is_kept) in [(3000, false), (300, true)] {
            let beside = vec![b'x'; num_beside];
            let len = (num_beside as u16).to_be_bytes();
            let attachment = [&b"\xc5\x02\x00"[..], &[7; 512]].concat();
            let value = [&b"\x92\xda"[..], &len, &beside, &attachment].concat();
            let bytes = Bytes::from(value);
            let rules = Rules {
                dialect: Dialect::Notepack3,
                max_depth: MAX_DEPTH,
                max_attachments: MAX_ATTACHMENTS,
            };
            let (_, attachments) = read_value(&mut Reader::new(&bytes), rules).unwrap();
            assert_eq!(attachments, [&[7; 512][..]]);
            let is_part = bytes.as_ptr_range().contains(&attachments[0].as_ptr());
            assert_eq!(is_part, is_kept, "{num_beside}");
        }
    }

    #[test]
    fn text_is_escaped_as_json_demands_and_mended_where_it_is_no_utf8() {
        assert_eq!(
            text(b"\xa9a\"\\\n\0\x1f\x7f/\x08"),
            "\"a\\\"\\\\\\n\\u0000\\u001f\u{7f}/\\b\""
        );
        assert_eq!(text(b"\xa4a\xff\xe2b"), "\"a\u{fffd}\u{fffd}b\"");
        assert_eq!(
            text("\u{a3}\u{2028}".as_bytes().get(1..).unwrap()),
            "\"\u{2028}\""
        );
    }

    #[test]
    fn keys_become_text_as_in_javascript() {
        let map = [
            b"\x86\x05\x01\xff\x01\xc0\x01\xc3\x01\xc4\x01k\x01",
            &*float(1e21),
            b"\x01",
        ];
        let expected = "{\"5\":1,\"-1\":1,\"null\":1,\"true\":1,\"k\":1,\"1e+21\":1}";
        assert_eq!(text(&map.concat()), expected);
        for key in [&b"\x90"[..], b"\x80", b"\xd6\xff\0\0\0\0"] {
            assert_eq!(
                decode(&[b"\x81", key, b"\x01"].concat()),
                Err(DecodeError::Key { at: 4 })
            );
        }
    }

    #[test]
    fn data_may_look_like_a_placeholder_only_without_attachments() {
        let false_placeholder = b"\x82\xac_placeholder\xc3\xa3num\x07";
        assert_eq!(text(false_placeholder), "{\"_placeholder\":true,\"num\":7}");
        let beside_bin = [&b"\x92\xc4\x01a"[..], false_placeholder].concat();
        assert_eq!(decode(&beside_bin), Err(DecodeError::FalsePlaceholder));
    }

    #[test]
    fn a_standard_timestamp_is_a_pair_to_notepack_2_and_its_own_date_a_date() {
        let pair = "[-1,{\"_placeholder\":true,\"num\":0}]";
        for bytes in [
            &b"\xd6\xff\x65\x53\xf1\x00"[..],
            b"\xd7\xff\x1d\x53\x53\x00\x65\x53\xf1\x00",
            b"\xc7\x0c\xff\x1d\xcd\x65\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let (text, attachments) = decode_as(Dialect::Notepack2, bytes).unwrap();
            assert_eq!((&*text, attachments.len()), (pair, 1), "{bytes:02x?}");
        }
        let date = b"\xd7\x00\x00\x00\x01\x8b\xcf\xe5\x68\x7b";
        for dialect in [Dialect::Notepack2, Dialect::Notepack3] {
            assert_eq!(
                decode_as(dialect, date).unwrap().0,
                "\"2023-11-14T22:13:20.123Z\""
            );
        }
        // No standard form: as in notepack 3, no date.
        assert_eq!(text(b"\xd5\xff\0\0"), pair);
    }

    #[test]
    fn a_byte_array_as_long_as_undefined_or_a_date_stays_a_byte_array() {
        for dialect in [Dialect::Notepack2, Dialect::Notepack3] {
            for (bytes, expected) in [
                (&b"\xc7\x01\x00a"[..], &b"a"[..]),
                (b"\xc7\x08\x00abcdefgh", b"abcdefgh"),
                (b"\xc8\x00\x01\x00a", b"a"),
                (b"\xc9\x00\x00\x00\x08\x00abcdefgh", b"abcdefgh"),
            ] {
                let (text, attachments) = decode_as(dialect, bytes).unwrap();
                assert_eq!(text, "{\"_placeholder\":true,\"num\":0}");
                assert_eq!(attachments, [expected], "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn depth_and_number_of_attachments_have_limits() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(decode(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(
            decode(&nested(MAX_DEPTH)),
            Err(DecodeError::TooDeep { max: MAX_DEPTH })
        );
        assert_eq!(
            decode(&nested(1_000_000)),
            Err(DecodeError::TooDeep { max: MAX_DEPTH })
        );
        // What stands in the text for bytes nests as well.
        let too_deep = Err(DecodeError::TooDeep { max: MAX_DEPTH });
        for (bytes, levels) in [
            (&b"\xc4\x01a"[..], 1),
            (b"\xc7\x01\0a", 1),
            (b"\xd4\x05a", 2),
        ] {
            let nested = |depth: usize| [&*vec![0x91; depth], bytes].concat();
            assert!(decode(&nested(MAX_DEPTH - 1 - levels)).is_ok());
            assert_eq!(decode(&nested(MAX_DEPTH - levels)), too_deep);
        }
        let many = |num: usize| [&b"\xdc\x03\xe9"[..], &b"\xc4\0".repeat(num), &[0xc0; 2]].concat();
        assert!(decode(&many(MAX_ATTACHMENTS)[..3 + 2 * MAX_ATTACHMENTS + 1]).is_ok());
        assert_eq!(
            decode(&many(MAX_ATTACHMENTS + 1)),
            Err(DecodeError::Attachments {
                max: MAX_ATTACHMENTS
            })
        );
    }
}
