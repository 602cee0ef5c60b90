//! JSON text that passes through: checked, cut into elements, but not rebuilt.
//!
//! Pure. What a client sends is validated by `serde_json` without building a tree, so numbers keep their form, keys
//! their order, and lone surrogates (which JavaScript allows) their escapes. Only nesting is limited more strictly than
//! in Node, because whoever must rebuild the value (the bridge, a typed handler) would need a stack as deep.

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deepest accepted nesting of arrays and objects in one packet.
pub const MAX_DEPTH: usize = 100;

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not the kind of value that must stand here.
    #[error("not valid JSON")]
    Invalid,
    /// Nested too deep.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Returns whether arrays and objects nest deeper than `max` in valid JSON text.
pub fn is_deeper(text: &str, max: usize) -> bool {
    // Few brackets cannot nest deep, wherever they stand, and most texts have few.
    let mut opening = memchr::memchr2_iter(b'[', b'{', text.as_bytes());
    opening.nth(max).is_some() && depth(text) > max
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn check_depth(text: &str) -> Result<(), JsonError> {
    if is_deeper(text, MAX_DEPTH) {
        Err(JsonError::TooDeep)
    } else {
        Ok(())
    }
}

/// Checks that `text` is one JSON object.
///
/// # Errors
/// It is not, or nests too deep.
pub fn check_object(text: &str) -> Result<(), JsonError> {
    if !text.starts_with('{') {
        return Err(JsonError::Invalid);
    }
    serde_json::from_str::<&RawValue>(text).or(Err(JsonError::Invalid))?;
    check_depth(text)
}

/// A valid JSON array and where its first element stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    /// Text of the first element, or `None` if the array is empty.
    pub first: Option<&'a str>,
}

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;

        impl<'de> Visitor<'de> for First {
            type Value = Array<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Array<'de>, A::Error> {
                let first = seq.next_element::<&'de RawValue>()?.map(RawValue::get);
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Array { first })
            }
        }

        deserializer.deserialize_seq(First)
    }
}

/// Checks that `text` is one JSON array and finds its first element.
///
/// # Errors
/// It is not, or nests too deep.
pub fn check_array(text: &str) -> Result<Array<'_>, JsonError> {
    let array = serde_json::from_str(text).or(Err(JsonError::Invalid))?;
    check_depth(text)?;
    Ok(array)
}

/// Returns the text of the first element of a valid JSON array, or `None` if it is empty. What stands behind it is not looked at.
pub fn first_element(array: &str) -> Option<&str> {
    let elements = array.trim_start().strip_prefix('[')?;
    let mut elements = serde_json::Deserializer::from_str(elements).into_iter::<&RawValue>();
    Some(elements.next()?.ok()?.get())
}

/// One object of the form `{"_placeholder":true,"num":…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// Text of `num`, if it is a scalar.
    pub num: Option<&'a str>,
}

/// An array or object that has been entered.
#[derive(Default)]
struct Entered<'a> {
    is_object: bool,
    /// Name of the member whose value comes next.
    key: Option<Key>,
    is_placeholder: bool,
    num: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Placeholder,
    Num,
    Other,
}

/// Finds the placeholders of valid JSON text, without building a tree: what a text event may hold, a binary one may hold
/// too. Of a repeated member the last counts, as in JavaScript.
pub fn placeholders(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut entered: Vec<Entered<'_>> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let (token, tail) = rest.split_at(token_len(rest));
        rest = tail;
        match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => {}
            b'[' | b'{' => {
                if let Some(outer) = entered.last_mut() {
                    outer.take_value(None);
                }
                entered.push(Entered {
                    is_object: first == b'{',
                    ..Entered::default()
                });
            }
            b']' | b'}' => {
                if let Some(Entered {
                    is_placeholder: true,
                    num,
                    ..
                }) = entered.pop()
                {
                    found.push(Placeholder { num });
                }
            }
            _ => match entered.last_mut() {
                Some(object) if object.is_object && object.key.is_none() => {
                    object.key = Some(Key::read(token));
                }
                Some(outer) => outer.take_value(Some(token)),
                None => {}
            },
        }
    }
    found
}

impl<'a> Entered<'a> {
    /// Takes the value of the member whose name came last; `None` for an array or object.
    fn take_value(&mut self, scalar: Option<&'a str>) {
        match self.key.take() {
            Some(Key::Placeholder) => self.is_placeholder = scalar == Some("true"),
            Some(Key::Num) => self.num = scalar,
            Some(Key::Other) | None => {}
        }
    }
}

impl Key {
    /// Reads a member's name, quotes included.
    fn read(token: &str) -> Self {
        let name = match token.contains('\\') {
            true => serde_json::from_str::<String>(token).unwrap_or_default(),
            false => token.trim_matches('"').to_owned(),
        };
        match name.as_str() {
            "_placeholder" => Self::Placeholder,
            "num" => Self::Num,
            _ => Self::Other,
        }
    }
}

/// Returns how long the token at the front of valid JSON is; one for white space and punctuation.
fn token_len(rest: &str) -> usize {
    let mut bytes = rest.bytes().enumerate();
    match bytes.next() {
        Some((_, b'"')) => {
            let mut escaped = false;
            for (at, byte) in bytes {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => return at + 1,
                    _ => {}
                }
            }
            rest.len()
        }
        Some((_, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'[' | b']' | b'{' | b'}')) => 1,
        _ => bytes
            .find(|(_, byte)| b" \t\n\r,:[]{}".contains(byte))
            .map_or(rest.len(), |(at, _)| at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_javascript_takes_are_taken_as_they_are() {
        for text in [
            r#"["a",1e400,-0,5.0,123456789012345678901234567890]"#,
            r#"["\ud800 lone"]"#,
            r#"[{"a":1,"a":2}]"#,
            " [ ] ",
            r#"[ "a" , 1 ]"#,
        ] {
            assert!(check_array(text).is_ok(), "{text}");
        }
        assert_eq!(check_array(r#"[ "a" , 1 ]"#).unwrap().first, Some(r#""a""#));
        assert_eq!(check_array("[]").unwrap().first, None);
    }

    #[test]
    fn the_first_element_is_found_without_the_others() {
        for (array, first) in [
            (" [ ] ", None),
            (r#" [ "a,\"]" , 1 ] "#, Some(r#""a,\"]""#)),
            ("[5.0,6]", Some("5.0")),
            ("[-1e400]", Some("-1e400")),
            ("[null ,1]", Some("null")),
            (r#"[[1,{"a":[]}],2]"#, Some(r#"[1,{"a":[]}]"#)),
            (r#"[{"a":[2]}]"#, Some(r#"{"a":[2]}"#)),
        ] {
            assert_eq!(first_element(array), first, "{array}");
            assert_eq!(check_array(array).unwrap().first, first, "{array}");
        }
    }

    #[test]
    fn texts_that_are_no_array_are_refused() {
        for text in [
            "", "{}", "1", "[", "[1", "[1,]", "[01]", "[1] x", "[NaN]", "['a']", "[\"\t\"]",
        ] {
            assert_eq!(check_array(text), Err(JsonError::Invalid), "{text}");
        }
    }

    #[test]
    fn nesting_is_limited_and_brackets_in_strings_do_not_count() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_array(&nest(MAX_DEPTH)).is_ok());
        assert_eq!(check_array(&nest(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
        assert_eq!(check_array(&nest(100_000)), Err(JsonError::TooDeep));
        assert!(check_array(&format!("[\"\\\"{}\"]", "[".repeat(1000))).is_ok());
    }

    #[test]
    fn only_objects_are_objects() {
        assert!(check_object(r#"{"token":"x"}"#).is_ok());
        for text in ["", "[]", "null", "\"x\"", "{", "{}x"] {
            assert_eq!(check_object(text), Err(JsonError::Invalid), "{text}");
        }
    }

    #[test]
    fn placeholders_are_found_wherever_they_stand() {
        let nums = |text| -> Vec<Option<&str>> {
            placeholders(text)
                .into_iter()
                .map(|placeholder| placeholder.num)
                .collect()
        };
        for (text, expected) in [
            (r#"["x",{"_placeholder":true,"num":0}]"#, vec![Some("0")]),
            (
                r#"["x",{ "num" : 12 , "_placeholder" : true }]"#,
                vec![Some("12")],
            ),
            (
                r#"["x",{"a":[{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":0}]"#,
                vec![Some("1"), Some("0")],
            ),
            (r#"["_placeholder",true,"num",0]"#, vec![]),
            (
                r#"["{\"_placeholder\":true}",{"_placeholder":false,"num":0},{"_placeholder":1}]"#,
                vec![],
            ),
            (r#"[{"_placeholder":true,"num":{"num":3}}]"#, vec![None]),
            (r#"[{"_placeholder":true}]"#, vec![None]),
            (
                r#"[{"_placeholder":true,"num":0,"num":"1","x":"\ud800"},1e400]"#,
                vec![Some("\"1\"")],
            ),
            (r#"[{"\u005fplaceholder":true,"num":0}]"#, vec![Some("0")]),
            (r#"[{"a":"_placeholder","b":true,"num":0}]"#, vec![]),
        ] {
            assert_eq!(nums(text), expected, "{text}");
        }
    }
}
