//! One value as JSON text with attachments → MessagePack, without a tree between them.
//!
//! Pure; linear in the text. MessagePack says how long an array is before its elements, JSON does not: so a first pass
//! checks the text and notes the length of each container in the order in which they open, a second one writes.
//!
//! The bytes are those of notepack.io 3.0.1, and of 2.2.0, which both write plain JSON alike, as if the text had gone through `JSON.parse`:
//! ```text
//! 5  5.0  5e0  -0        the shortest integer format: 05 05 05 00
//! 9007199254740993       exact, as uint 64, although JavaScript would round it
//! 1.5  1e20  1e400       float 64 (the last one: infinity), never float 32
//! "\ud800"               a lone surrogate becomes U+FFFD
//! {"_placeholder":true,"num":0}   the attachment as bin, if there are attachments at all
//! ```
//! Source: notepack.io 2.2.0 and 3.0.1 `lib/encode.js`; RFC 8259; socket.io-parser 4.2 `binary.js` (placeholders); wire.md 2.7, 3.2.

use std::{borrow::Cow, convert::Infallible};

use bytes::Bytes;
use rmp::encode::{self, ByteBuf, ValueWriteError};

use super::{EncodeError, MAX_DEPTH};

/// Appends arguments: one JSON array.
///
/// # Errors
/// The text is no JSON array, nests too deep, names an attachment that is not there, or has 4 GiB. `out` is then unusable.
pub(crate) fn write_array(
    out: &mut ByteBuf,
    json: &str,
    attachments: &[Bytes],
) -> Result<(), EncodeError> {
    let mut text = Cursor::new(json);
    text.space();
    if text.peek() != Some(b'[') {
        return Err(text.fault());
    }
    write_value(out, json, attachments)
}

/// Appends one JSON value of any kind.
///
/// # Errors
/// As those of [`write_array`].
pub(crate) fn write_value(
    out: &mut ByteBuf,
    json: &str,
    attachments: &[Bytes],
) -> Result<(), EncodeError> {
    // Then whatever is counted in it fits into a `Shape`. By default no client's message comes near a hundredth of that.
    len32(json.len())?;
    let mut scan = Scan {
        text: Cursor::new(json),
        num_attachments: attachments.len(),
        shapes: Vec::new(),
    };
    scan.text.space();
    scan.value(MAX_DEPTH)?;
    scan.text.space();
    if scan.text.peek().is_some() {
        return Err(scan.text.fault());
    }
    let mut write = Write {
        text: Cursor::new(json),
        shapes: &scan.shapes,
        next_shape: 0,
        attachments,
        out,
    };
    write.text.space();
    write.value()
}

/// Appends a text.
pub(crate) fn write_str(out: &mut ByteBuf, text: &str) -> Result<(), EncodeError> {
    sure(encode::write_str_len(out, len32(text.len())?));
    out.as_mut_vec().extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends the header of an array.
pub(crate) fn write_array_len(out: &mut ByteBuf, len: usize) -> Result<(), EncodeError> {
    sure(encode::write_array_len(out, len32(len)?));
    Ok(())
}

/// Appends the header of a map.
pub(crate) fn write_map_len(out: &mut ByteBuf, len: usize) -> Result<(), EncodeError> {
    sure(encode::write_map_len(out, len32(len)?));
    Ok(())
}

/// Appends an integer in its shortest format.
pub(crate) fn write_uint(out: &mut ByteBuf, number: u64) {
    sure(encode::write_uint(out, number));
}

/// Appends true or false.
pub(crate) fn write_bool(out: &mut ByteBuf, value: bool) {
    match encode::write_bool(out, value) {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// A buffer in memory takes whatever is written to it.
fn sure<T>(result: Result<T, ValueWriteError<Infallible>>) -> T {
    match result {
        Ok(value) => value,
        Err(
            ValueWriteError::InvalidMarkerWrite(never) | ValueWriteError::InvalidDataWrite(never),
        ) => match never {},
    }
}

fn len32(len: usize) -> Result<u32, EncodeError> {
    u32::try_from(len).map_err(|_too_long| EncodeError::TooLong { len })
}

/// What the first pass learns about a container. Small: a text may be little else than containers, of two bytes each.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Number of elements or members.
    len: u32,
    /// Where its text ends.
    end: u32,
    /// How many shapes have been noted when it closes: which one comes next if this container is skipped.
    next_shape: u32,
    /// It is the placeholder of this attachment, or [`NO_ATTACHMENT`].
    attachment: u32,
}

/// No attachment has this number, see [`index_of`].
const NO_ATTACHMENT: u32 = u32::MAX;

/// The first pass.
struct Scan<'a> {
    text: Cursor<'a>,
    num_attachments: usize,
    shapes: Vec<Shape>,
}

impl Scan<'_> {
    fn value(&mut self, depth_left: usize) -> Result<(), EncodeError> {
        match self.text.peek() {
            Some(b'[') => self.array(depth_left),
            Some(b'{') => self.object(depth_left),
            Some(b'"') => self.text.string().map(drop),
            Some(b't') => self.text.literal("true"),
            Some(b'f') => self.text.literal("false"),
            Some(b'n') => self.text.literal("null"),
            _ => self.text.number().map(drop),
        }
    }

    fn array(&mut self, depth_left: usize) -> Result<(), EncodeError> {
        let depth_left = depth_left.checked_sub(1).ok_or(EncodeError::TooDeep)?;
        let index = self.open();
        let mut len = 0;
        self.text.bump();
        self.text.space();
        if self.text.peek() == Some(b']') {
            self.text.bump();
        } else {
            loop {
                self.text.space();
                self.value(depth_left)?;
                len += 1;
                self.text.space();
                match self.text.bump() {
                    Some(b',') => {}
                    Some(b']') => break,
                    _ => return Err(self.text.fault_before()),
                }
            }
        }
        self.close(index, len, NO_ATTACHMENT)
    }

    fn object(&mut self, depth_left: usize) -> Result<(), EncodeError> {
        let depth_left = depth_left.checked_sub(1).ok_or(EncodeError::TooDeep)?;
        let start = self.text.at;
        let index = self.open();
        let mut len = 0;
        // As in JSON.parse, the last of several equal keys counts.
        let mut is_placeholder = false;
        let mut num = None;
        self.text.bump();
        self.text.space();
        if self.text.peek() == Some(b'}') {
            self.text.bump();
        } else {
            loop {
                self.text.space();
                let key = self.text.string()?;
                self.text.space();
                if self.text.bump() != Some(b':') {
                    return Err(self.text.fault_before());
                }
                self.text.space();
                let value_start = self.text.at;
                self.value(depth_left)?;
                if self.num_attachments > 0 {
                    let value = self.text.slice(value_start);
                    match &*key.decoded() {
                        b"_placeholder" => is_placeholder = value == b"true",
                        b"num" => num = index_of(value),
                        _ => {}
                    }
                }
                len += 1;
                self.text.space();
                match self.text.bump() {
                    Some(b',') => {}
                    Some(b'}') => break,
                    _ => return Err(self.text.fault_before()),
                }
            }
        }
        let attachment = if is_placeholder {
            let num_attachments = self.num_attachments;
            let known = num.filter(|num| (*num as usize) < num_attachments);
            known.ok_or(EncodeError::Placeholder {
                at: start,
                num_attachments,
            })?
        } else {
            NO_ATTACHMENT
        };
        self.close(index, len, attachment)
    }

    fn open(&mut self) -> usize {
        self.shapes.push(Shape {
            len: 0,
            end: 0,
            next_shape: 0,
            attachment: NO_ATTACHMENT,
        });
        self.shapes.len() - 1
    }

    fn close(&mut self, index: usize, len: usize, attachment: u32) -> Result<(), EncodeError> {
        let closed = Shape {
            len: len32(len)?,
            end: len32(self.text.at)?,
            next_shape: len32(self.shapes.len())?,
            attachment,
        };
        if let Some(shape) = self.shapes.get_mut(index) {
            *shape = closed;
        }
        Ok(())
    }
}

/// Reads a placeholder's `num`: a whole number that is not negative, however it is written, and less than [`NO_ATTACHMENT`].
fn index_of(value: &[u8]) -> Option<u32> {
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    let whole = number.trunc() == number && (0.0..f64::from(NO_ATTACHMENT)).contains(&number);
    whole.then_some(number as u32)
}

/// The second pass. The text is known to be sound, but nothing here would panic if it were not.
struct Write<'a, 'out> {
    text: Cursor<'a>,
    shapes: &'a [Shape],
    next_shape: usize,
    attachments: &'a [Bytes],
    out: &'out mut ByteBuf,
}

impl Write<'_, '_> {
    fn value(&mut self) -> Result<(), EncodeError> {
        match self.text.peek() {
            Some(b'[') => {
                let shape = self.shape()?;
                sure(encode::write_array_len(self.out, shape.len));
                self.members(shape.len, false)?;
            }
            Some(b'{') => {
                let shape = self.shape()?;
                let attachment = self.attachments.get(shape.attachment as usize);
                if let Some(attachment) = attachment {
                    sure(encode::write_bin_len(self.out, len32(attachment.len())?));
                    self.out.as_mut_vec().extend_from_slice(attachment);
                    self.text.at = shape.end as usize;
                    self.next_shape = shape.next_shape as usize;
                } else {
                    sure(encode::write_map_len(self.out, shape.len));
                    self.members(shape.len, true)?;
                }
            }
            Some(b'"') => self.string()?,
            Some(b't') => {
                self.text.literal("true")?;
                write_bool(self.out, true);
            }
            Some(b'f') => {
                self.text.literal("false")?;
                write_bool(self.out, false);
            }
            Some(b'n') => {
                self.text.literal("null")?;
                match encode::write_nil(self.out) {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
            _ => {
                let number = self.text.number()?;
                write_number(self.out, number);
            }
        }
        Ok(())
    }

    /// Writes the inside of a container, its brackets left out.
    fn members(&mut self, len: u32, with_keys: bool) -> Result<(), EncodeError> {
        self.text.bump();
        for _ in 0..len {
            self.text.space();
            if with_keys {
                self.string()?;
                self.text.space();
                self.text.bump();
                self.text.space();
            }
            self.value()?;
            self.text.space();
            self.text.bump();
        }
        if len == 0 {
            self.text.space();
            self.text.bump();
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), EncodeError> {
        let text = self.text.string()?;
        let text = text.decoded();
        sure(encode::write_str_len(self.out, len32(text.len())?));
        self.out.as_mut_vec().extend_from_slice(&text);
        Ok(())
    }

    fn shape(&mut self) -> Result<Shape, EncodeError> {
        let shape = self
            .shapes
            .get(self.next_shape)
            .copied()
            .ok_or_else(|| self.text.fault())?;
        self.next_shape += 1;
        Ok(shape)
    }
}

/// Writes a JSON number as notepack would write what `JSON.parse` makes of it.
fn write_number(out: &mut ByteBuf, text: &str) {
    // Whole numbers as they are written, beyond what a double can hold.
    if let Ok(number) = text.parse::<u64>() {
        return write_uint(out, number);
    }
    if let Ok(number) = text.parse::<i64>() {
        sure(encode::write_sint(out, number));
        return;
    }
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    // Both bounds are powers of two, hence exact, and the upper one is the first that does not fit.
    if number.trunc() == number
        && (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&number)
    {
        if number < 0.0 {
            sure(encode::write_sint(out, number as i64));
        } else {
            write_uint(out, number as u64);
        }
    } else {
        sure(encode::write_f64(out, number));
    }
}

/// The content of a JSON string, between its quotes.
#[derive(Clone, Copy, Debug)]
struct Quoted<'a> {
    raw: &'a [u8],
    has_escapes: bool,
}

impl<'a> Quoted<'a> {
    /// Returns the text in UTF-8, escapes resolved.
    fn decoded(self) -> Cow<'a, [u8]> {
        if !self.has_escapes {
            return Cow::Borrowed(self.raw);
        }
        let mut text = Vec::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(position) = rest.iter().position(|b| *b == b'\\') {
            let (plain, escape) = rest.split_at(position);
            text.extend_from_slice(plain);
            let (decoded, len) = unescape(escape);
            text.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
            rest = escape.get(len..).unwrap_or_default();
        }
        text.extend_from_slice(rest);
        Cow::Owned(text)
    }
}

/// Resolves the escape at the front of `text`; returns the character and how many bytes it took.
fn unescape(text: &[u8]) -> (char, usize) {
    let simple = match text.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = hex_unit(text, 0).unwrap_or(0xfffd);
            if (0xd800..0xdc00).contains(&unit)
                && let Some(low @ 0xdc00..=0xdfff) = hex_unit(text, 6)
            {
                let code = 0x1_0000 + ((u32::from(unit) - 0xd800) << 10) + u32::from(low) - 0xdc00;
                return (
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                    12,
                );
            }
            // Half a pair has no UTF-8.
            return (
                char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER),
                6,
            );
        }
        Some(other) => char::from(*other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

/// Reads the `\uXXXX` that begins `offset` bytes into `text`.
fn hex_unit(text: &[u8], offset: usize) -> Option<u16> {
    let digits = text.get(offset..offset + 6)?.strip_prefix(br"\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads JSON tokens from a text.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Returns what has been read since `start`.
    fn slice(&self, start: usize) -> &'a [u8] {
        self.text.as_bytes().get(start..self.at).unwrap_or_default()
    }

    fn fault(&self) -> EncodeError {
        EncodeError::Json { at: self.at }
    }

    /// The fault is the byte that was read last.
    fn fault_before(&self) -> EncodeError {
        EncodeError::Json {
            at: self.at.saturating_sub(1),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), EncodeError> {
        let start = self.at;
        self.at += word.len();
        if self.slice(start) == word.as_bytes() {
            return Ok(());
        }
        self.at = start;
        Err(self.fault())
    }

    fn string(&mut self) -> Result<Quoted<'a>, EncodeError> {
        if self.bump() != Some(b'"') {
            return Err(self.fault_before());
        }
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.bump() {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    match self.bump() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'u') => {
                            for _ in 0..4 {
                                if !self.bump().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return Err(self.fault_before());
                                }
                            }
                        }
                        _ => return Err(self.fault_before()),
                    }
                }
                Some(0..0x20) | None => return Err(self.fault_before()),
                Some(_) => {}
            }
        }
        let raw = self
            .text
            .as_bytes()
            .get(start..self.at - 1)
            .unwrap_or_default();
        Ok(Quoted { raw, has_escapes })
    }

    fn number(&mut self) -> Result<&'a str, EncodeError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.text.get(start..self.at).ok_or_else(|| self.fault())
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Result<(), EncodeError> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.fault());
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(json: &str, attachments: &[&[u8]]) -> Result<Vec<u8>, EncodeError> {
        let attachments: Vec<_> = attachments
            .iter()
            .map(|bytes| Bytes::copy_from_slice(bytes))
            .collect();
        let mut out = ByteBuf::new();
        write_array(&mut out, json, &attachments)?;
        Ok(out.into_vec())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn numbers_are_what_notepack_makes_of_javascripts() {
        for (json, expected) in [
            ("0", "00"),
            ("-0", "00"),
            ("-0.0", "00"),
            ("5.0", "05"),
            ("5e0", "05"),
            ("0.5E1", "05"),
            ("127", "7f"),
            ("128", "cc80"),
            ("255", "ccff"),
            ("256", "cd0100"),
            ("65536", "ce00010000"),
            ("4294967296", "cf0000000100000000"),
            ("9007199254740993", "cf0020000000000001"),
            ("18446744073709551615", "cfffffffffffffffff"),
            ("18446744073709551616", "cb43f0000000000000"),
            ("1e19", "cf8ac7230489e80000"),
            ("-1", "ff"),
            ("-32", "e0"),
            ("-33", "d0df"),
            ("-129", "d1ff7f"),
            ("-32769", "d2ffff7fff"),
            ("-2147483649", "d3ffffffff7fffffff"),
            ("-9223372036854775808", "d38000000000000000"),
            ("-9223372036854775809", "d38000000000000000"),
            ("-1e300", "cbfe37e43c8800759c"),
            ("0.5", "cb3fe0000000000000"),
            ("1e400", "cb7ff0000000000000"),
            ("-1e400", "cbfff0000000000000"),
            ("1e-400", "00"),
        ] {
            let encoded = encode(&format!("[{json}]"), &[]).unwrap();
            assert_eq!(hex(&encoded), format!("91{expected}"), "{json}");
        }
    }

    #[test]
    fn escapes_are_resolved_and_lone_surrogates_replaced() {
        for (json, expected) in [
            (r#"["a\"\\\/\b\f\n\r\t"]"#, "a\"\\/\u{8}\u{c}\n\r\t"),
            (r#"["\u00e9\u20AC\ud83d\ude00"]"#, "é€😀"),
            (r#"["\ud83d"]"#, "\u{fffd}"),
            (r#"["\ude00\ud83d!"]"#, "\u{fffd}\u{fffd}!"),
            (r#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}😀"),
            (r#"["\ud83d\u0041"]"#, "\u{fffd}A"),
        ] {
            let encoded = encode(json, &[]).unwrap();
            assert_eq!(std::str::from_utf8(&encoded[2..]), Ok(expected), "{json}");
        }
    }

    #[test]
    fn placeholders_become_bin_only_beside_attachments() {
        let json = r#"["b",{"_placeholder":true,"num":1},{"num":0,"\u005fplaceholder":true}]"#;
        assert_eq!(
            hex(&encode(json, &[b"\x01", b"\x02\x03"]).unwrap()),
            "93a162c4020203c40101"
        );
        assert!(
            encode(json, &[])
                .unwrap()
                .starts_with(b"\x93\xa1b\x82\xac_placeholder\xc3")
        );
        // Not placeholders: false, a text, nothing; and what stands inside one is skipped.
        for json in [
            r#"[{"_placeholder":false,"num":7}]"#,
            r#"[{"_placeholder":"true","num":0}]"#,
        ] {
            assert_eq!(encode(json, &[b"x"]).unwrap()[1], 0x82, "{json}");
        }
        let nested = r#"[{"x":[[1],{}],"_placeholder":true,"num":0.0},[2]]"#;
        assert_eq!(hex(&encode(nested, &[b"x"]).unwrap()), "92c401789102");
    }

    #[test]
    fn a_placeholder_must_name_an_attachment() {
        for num in ["2", "-1", "0.5", "\"0\"", "null", "1e99"] {
            let json = format!(r#"["b", {{"_placeholder":true,"num":{num}}}]"#);
            assert_eq!(
                encode(&json, &[b"x", b"y"]),
                Err(EncodeError::Placeholder {
                    at: 6,
                    num_attachments: 2
                }),
                "{num}"
            );
        }
    }

    #[test]
    fn text_that_is_no_json_array_is_refused_where_it_goes_wrong() {
        for (json, at) in [
            ("", 0),
            ("{}", 0),
            ("[", 1),
            ("[1", 2),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[01]", 2),
            ("[-]", 2),
            ("[1.]", 3),
            ("[.5]", 1),
            ("[1e]", 3),
            ("[+1]", 1),
            ("[NaN]", 1),
            ("[tru]", 1),
            ("[\"a]", 4),
            ("[\"\n\"]", 2),
            (r#"["\x"]"#, 3),
            (r#"["\u12g4"]"#, 6),
            ("[{1:2}]", 2),
            (r#"[{"a"}]"#, 5),
            (r#"[{"a":1,}]"#, 8),
            ("[] []", 3),
        ] {
            assert_eq!(encode(json, &[]), Err(EncodeError::Json { at }), "{json}");
        }
    }

    /// A bug: 40 bytes were noted for each container, 42 MB for an event of 1 MB of empty ones.
    #[test]
    fn what_is_noted_of_a_container_is_little_beside_its_text() {
        assert_eq!(size_of::<Shape>(), 16);
        let json = format!("[{}[]]", "[],".repeat(99_999));
        let encoded = encode(&json, &[]).unwrap();
        assert_eq!(hex(&encoded[..5]), "dd000186a0");
        assert!(encoded.len() == 100_005 && encoded[5..].iter().all(|byte| *byte == 0x90));
        for num in ["4294967295", "4294967294"] {
            let json = format!(r#"[{{"_placeholder":true,"num":{num}}}]"#);
            let refused = encode(&json, &[b"x"]).unwrap_err();
            assert!(matches!(refused, EncodeError::Placeholder { .. }), "{num}");
        }
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(encode(&nested(MAX_DEPTH), &[]).unwrap().len(), MAX_DEPTH);
        assert_eq!(
            encode(&nested(MAX_DEPTH + 1), &[]),
            Err(EncodeError::TooDeep)
        );
        assert_eq!(
            encode(&"[{\"a\":".repeat(100_000), &[]),
            Err(EncodeError::TooDeep)
        );
    }

    #[test]
    fn white_space_changes_nothing() {
        let json = " [ \"a\" ,\r\n\t{ \"k\" : [ ] , \"l\" : { } } ] ";
        assert_eq!(hex(&encode(json, &[]).unwrap()), "92a16182a16b90a16c80");
    }
}
