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

/// Returns how deep arrays and objects nest in valid JSON text.
pub fn depth(text: &str) -> usize {
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
    if depth(text) > MAX_DEPTH {
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
}
