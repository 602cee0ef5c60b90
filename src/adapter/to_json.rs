//! Arguments in MessagePack → JSON text with attachments, without a tree between them.
//!
//! Pure; linear in the bytes. The text is what `JSON.stringify` would print for what notepack's decoder returns:
//! ```text
//! bin, ext 0             {"_placeholder":true,"num":N}, numbered in the order in which they stand
//! ext -1, d7 00          a date: "2023-11-14T22:13:20.123Z", or null if JavaScript has no such date
//! d4 00                  undefined: null in an array, and the whole pair is left out of a map
//! NaN, infinities        null
//! other ext              [type, bytes]
//! numbers                as JavaScript prints them (5, 1e+21), but integers exact beyond 2^53
//! text not in UTF-8      U+FFFD for what is wrong with it
//! keys that are no text  their text: 1, null, true; arrays, maps and dates are refused
//! ```
//! Source: notepack.io 3.0.1 `lib/decode.js`; ECMA-262 `JSON.stringify`, `Number::toString`; wire.md 3.2.

use std::ops::Range;

use bytes::Bytes;

use super::{
    DecodeError, MAX_DEPTH, iso_date,
    message::MAX_ATTACHMENTS,
    reader::{Reader, Token},
};
use crate::socket_io::args::Args;

/// What marks an attachment's place in the text.
const PLACEHOLDER_KEY: &str = "_placeholder";
/// How an attachment stands in the text, up to its number and a brace.
pub(super) const PLACEHOLDER: &str = "{\"_placeholder\":true,\"num\":";
/// MessagePack's own extension type for instants.
const EXT_TIMESTAMP: i8 = -1;
/// notepack's extension type for `undefined`, dates and byte arrays, before its version 3.
const EXT_NOTEPACK: i8 = 0;

/// Reads one array whose first element is an event's name.
///
/// # Errors
/// It is not one, nests too deep, or ends too soon.
pub(super) fn read_event(reader: &mut Reader<'_>) -> Result<Args, DecodeError> {
    let Token::Array(len) = reader.token()? else {
        return Err(DecodeError::Packet { key: "data" });
    };
    let mut name = *reader;
    match len.checked_sub(1).map(|_| name.token()).transpose()? {
        Some(Token::Str(_) | Token::Uint(_) | Token::Int(_)) => {}
        Some(Token::Float(number)) if number.is_finite() => {}
        _ => return Err(DecodeError::EventName),
    }
    let mut write = Write {
        reader,
        json: String::new(),
        attachments: Vec::new(),
        has_false_placeholder: false,
    };
    write.array(len, MAX_DEPTH)?;
    if write.has_false_placeholder && !write.attachments.is_empty() {
        return Err(DecodeError::FalsePlaceholder);
    }
    Ok(Args::from_parts(write.json.into(), write.attachments))
}

/// Reads one value, nested at most `max_depth` levels; returns its text and its attachments. `undefined` is null.
///
/// # Errors
/// It nests too deep, or ends too soon.
pub(super) fn read_value(
    reader: &mut Reader<'_>,
    max_depth: usize,
) -> Result<(String, Vec<Bytes>), DecodeError> {
    let mut write = Write {
        reader,
        json: String::new(),
        attachments: Vec::new(),
        has_false_placeholder: false,
    };
    let token = write.reader.token()?;
    if write.value(token, max_depth)? == Wrote::Undefined {
        write.json.push_str("null");
    }
    if write.has_false_placeholder && !write.attachments.is_empty() {
        return Err(DecodeError::FalsePlaceholder);
    }
    Ok((write.json, write.attachments))
}

/// Returns a number as JavaScript prints it; `None` if JSON has no word for it.
pub(super) fn number_text(number: f64, buffer: &mut ryu_js::Buffer) -> Option<&str> {
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
    json: String,
    attachments: Vec<Bytes>,
    /// A map with `_placeholder: true` has come by. Harmless as long as there are no attachments.
    has_false_placeholder: bool,
}

impl Write<'_, '_> {
    fn array(&mut self, len: usize, depth_left: usize) -> Result<(), DecodeError> {
        let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
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
        let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
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
            Token::Bool(value) => self.json.push_str(&format!("\"{value}\"")),
            Token::Uint(number) => self.json.push_str(&format!("\"{number}\"")),
            Token::Int(number) => self.json.push_str(&format!("\"{number}\"")),
            // `format` knows NaN and the infinities, too.
            Token::Float(number) => {
                self.json.push('"');
                self.json.push_str(buffer.format(number));
                self.json.push('"');
            }
            Token::Ext(..) | Token::Array(_) | Token::Map(_) => {
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
            Token::Bin(range) => self.attachment(range)?,
            Token::Ext(kind, range) => return self.ext(kind, range),
            Token::Array(len) => self.array(len, depth_left)?,
            Token::Map(len) => self.map(len, depth_left)?,
        }
        Ok(Wrote::Value)
    }

    fn ext(&mut self, kind: i8, range: Range<usize>) -> Result<Wrote, DecodeError> {
        let payload = self.reader.slice(range.clone());
        match (kind, payload) {
            (EXT_NOTEPACK, [_]) => return Ok(Wrote::Undefined),
            (EXT_NOTEPACK, &[a, b, c, d, e, f, g, h]) => {
                self.date(i64::from_be_bytes([a, b, c, d, e, f, g, h]) as f64);
            }
            (EXT_NOTEPACK, _) => self.attachment(range)?,
            (EXT_TIMESTAMP, &[a, b, c, d]) => {
                self.date(f64::from(u32::from_be_bytes([a, b, c, d])) * 1e3);
            }
            (EXT_TIMESTAMP, &[a, b, c, d, e, f, g, h]) => {
                let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                let (nanos, seconds) = (both >> 34, both & 0x3_ffff_ffff);
                self.date(seconds as f64 * 1e3 + nanos as f64 / 1e6);
            }
            (EXT_TIMESTAMP, &[a, b, c, d, e, f, g, h, i, j, k, l]) => {
                let nanos = u32::from_be_bytes([a, b, c, d]);
                let seconds = i64::from_be_bytes([e, f, g, h, i, j, k, l]);
                self.date(seconds as f64 * 1e3 + f64::from(nanos) / 1e6);
            }
            _ => {
                self.json.push('[');
                self.json.push_str(itoa::Buffer::new().format(kind));
                self.json.push(',');
                self.attachment(range)?;
                self.json.push(']');
            }
        }
        Ok(Wrote::Value)
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

    fn attachment(&mut self, range: Range<usize>) -> Result<(), DecodeError> {
        if self.attachments.len() >= MAX_ATTACHMENTS {
            return Err(DecodeError::Attachments {
                max: MAX_ATTACHMENTS,
            });
        }
        self.json.push_str(PLACEHOLDER);
        self.json
            .push_str(itoa::Buffer::new().format(self.attachments.len()));
        self.json.push('}');
        self.attachments.push(self.reader.share(range));
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
                _ => self.json.push_str(&format!("\\u{:04x}", u32::from(c))),
            }
            text = rest.split_at(c.len_utf8()).1;
        }
        self.json.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `["x", <bytes>]`; returns the text of the second element.
    fn decode(value: &[u8]) -> Result<(String, Vec<Bytes>), DecodeError> {
        let bytes = Bytes::from([b"\x92\xa1x", value].concat());
        let mut reader = Reader::new(&bytes);
        let args = read_event(&mut reader)?;
        reader.end()?;
        let text = args
            .json()
            .strip_prefix("[\"x\",")
            .unwrap()
            .strip_suffix(']')
            .unwrap();
        Ok((text.to_owned(), args.attachments().to_vec()))
    }

    fn text(value: &[u8]) -> String {
        decode(value).unwrap().0
    }

    fn float(number: f64) -> Vec<u8> {
        [&[0xcb][..], &number.to_be_bytes()].concat()
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
    fn an_event_has_a_name() {
        for data in [
            &b"\x90"[..],
            b"\x91\xc0",
            b"\x91\x90",
            b"\x91\xc4\x01a",
            b"\x91\xd4\0\0",
        ] {
            let bytes = Bytes::copy_from_slice(data);
            assert_eq!(
                read_event(&mut Reader::new(&bytes)),
                Err(DecodeError::EventName)
            );
        }
        let bytes = Bytes::from_static(b"\x81\x01\x01");
        let refused = Err(DecodeError::Packet { key: "data" });
        assert_eq!(read_event(&mut Reader::new(&bytes)), refused);
        for (data, json) in [(&b"\x91\x05"[..], "[5]"), (b"\x91\xff", "[-1]")] {
            let bytes = Bytes::copy_from_slice(data);
            assert_eq!(read_event(&mut Reader::new(&bytes)).unwrap().json(), json);
        }
    }

    #[test]
    fn depth_and_number_of_attachments_have_limits() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(decode(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(decode(&nested(MAX_DEPTH)), Err(DecodeError::TooDeep));
        assert_eq!(decode(&nested(1_000_000)), Err(DecodeError::TooDeep));
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
