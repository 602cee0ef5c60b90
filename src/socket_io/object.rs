//! Members of JSON objects and elements of JSON arrays, as the raw texts that they are, read as JavaScript reads them.
//!
//! Pure, for messages of other servers, of which a few members matter and the rest passes through or is skipped:
//! ```text
//! repeated key       the last one counts
//! null               as if the member were not there, unless asked for
//! lone surrogates    become U+FFFD, in keys and texts, as on any way through UTF-8
//! unknown members    skipped, however deep
//! ```
//! Source: ECMA-262 `JSON.parse`; RFC 8259.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Largest integer up to which every one is exact in JavaScript.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Returns the texts of the members `keys` of the object `text`, those that are null left out; `None` if it is none.
pub fn members<'a, const N: usize>(text: &'a str, keys: [&str; N]) -> Option<[Option<&'a str>; N]> {
    Some(members_and_nulls(text, keys)?.map(not_null))
}

/// Returns `text` unless it is `null`.
pub fn not_null(text: Option<&str>) -> Option<&str> {
    text.filter(|text| *text != "null")
}

/// As [`members`], but those that are null are `null`.
pub fn members_and_nulls<'a, const N: usize>(
    text: &'a str,
    keys: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut values = [None; N];
    let visit = Members {
        keys: &keys,
        values: &mut values,
    };
    whole(text, |json| json.deserialize_map(visit))?;
    Some(values)
}

/// Hands every member of the object `text` to `each`, key and text of the value; returns whether it is an object.
pub fn each_member<'a>(text: &'a str, each: impl FnMut(String, &'a str)) -> bool {
    whole(text, |json| json.deserialize_map(Each(each))).is_some()
}

/// The elements of a JSON array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements<'a> {
    /// Texts of the first ones, as many as were asked for.
    pub texts: Vec<&'a str>,
    /// Whether there are more.
    pub has_more: bool,
}

/// Returns the texts of at most `max` elements of the array `text`; `None` if it is none.
pub fn elements(text: &str, max: usize) -> Option<Elements<'_>> {
    whole(text, |json| json.deserialize_seq(Most(max)))
}

/// Returns the content of the JSON string `text`; `None` if it is none.
pub fn string(text: &str) -> Option<String> {
    whole(text, |json| {
        json.deserialize_bytes(Content(|text: &str| text.to_owned()))
    })
}

/// Returns the JSON number `text`, infinite beyond the range of a double; `None` if it is none.
pub fn number(text: &str) -> Option<f64> {
    // Rust reads `inf` and `nan`, too.
    let is_plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Returns the JSON number `text` if it is whole, not negative and exact in JavaScript.
pub fn uint(text: &str) -> Option<u64> {
    let number = number(text)?;
    let is_uint = number.trunc() == number && (0.0..=MAX_SAFE_INTEGER).contains(&number);
    is_uint.then_some(number as u64)
}

/// Returns the content of the JSON string `text`, or the finite JSON number `text` as JavaScript prints it: rooms and
/// event names may be numbers there. `None` if it is neither.
pub fn string_or_number(text: &str) -> Option<String> {
    if let Some(number) = number(text) {
        // Whole numbers as they are written, beyond what a double can hold.
        if let Ok(exact) = text.parse::<u64>() {
            return Some(exact.to_string());
        }
        let number = Some(number).filter(|number| number.is_finite())?;
        return Some(ryu_js::Buffer::new().format_finite(number).to_owned());
    }
    string(text)
}

/// Reads all of `text`.
fn whole<'a, T>(
    text: &'a str,
    read: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
    ) -> serde_json::Result<T>,
) -> Option<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = read(&mut json).ok()?;
    json.end().ok()?;
    Some(value)
}

struct Members<'k, 'v, 'a> {
    keys: &'k [&'k str],
    values: &'v mut [Option<&'a str>],
}

impl<'de> Visitor<'de> for Members<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let index_of = |key: &str| self.keys.iter().position(|known| *known == key);
        while let Some(index) = map.next_key_seed(Content(index_of))? {
            match index.and_then(|index| self.values.get_mut(index)) {
                Some(value) => {
                    *value = Some(map.next_value::<&RawValue>()?.get());
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Each<F>(F);

impl<'de, F: FnMut(String, &'de str)> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Content(str::to_owned))? {
            let text = map.next_value::<&RawValue>()?.get();
            (self.0)(key, text);
        }
        Ok(())
    }
}

/// How many elements are wanted.
struct Most(usize);

impl<'de> Visitor<'de> for Most {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Elements<'de>, A::Error> {
        let mut texts = Vec::new();
        while texts.len() < self.0 {
            match seq.next_element::<&RawValue>()? {
                Some(element) => texts.push(element.get()),
                None => {
                    return Ok(Elements {
                        texts,
                        has_more: false,
                    });
                }
            }
        }
        let mut has_more = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            has_more = true;
        }
        Ok(Elements { texts, has_more })
    }
}

/// Reads a text, a key or a value, and makes something of it.
///
/// As bytes, because as text serde_json refuses what has no UTF-8. (It then takes bare control characters, too, which
/// harm nobody here.)
struct Content<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Content<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Content<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<T, E> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Ok((self.0)(text));
        }
        // The only fault there can be is a lone surrogate: three bytes, as many as U+FFFD has.
        let mut bytes = bytes.to_vec();
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..) {
            if let [first @ 0xed, second @ 0xa0..=0xbf, third, ..] = rest {
                (*first, *second, *third) = (0xef, 0xbf, 0xbd);
            }
            at += 1;
        }
        Ok((self.0)(&String::from_utf8_lossy(&bytes)))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repeated_member_the_last_counts_and_null_is_none() {
        let text = r#" {"a":1,"x":{"a":[ ]},"\u0061": [2, 3] ,"b":null,"c":"\ud800"} "#;
        assert_eq!(
            members(text, ["a", "b", "c", "d"]),
            Some([Some("[2, 3]"), None, Some(r#""\ud800""#), None])
        );
        assert_eq!(members(r#"{"a":1,"a":null}"#, ["a"]), Some([None]));
        let nulls = members_and_nulls(r#"{"a":1,"a": null }"#, ["a", "b"]);
        assert_eq!(nulls, Some([Some("null"), None]));
        let mut all = Vec::new();
        assert!(each_member(text, |key, text| all.push((key, text.len()))));
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn what_is_no_object_or_array_is_refused() {
        for text in [
            "",
            "null",
            "1",
            "\"a\"",
            "{",
            "{}{}",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
        ] {
            assert_eq!(members(text, ["a"]), None, "{text}");
            assert!(!each_member(text, |_, _| {}), "{text}");
            assert_eq!(elements(text, 1), None, "{text}");
        }
        assert_eq!(members("[]", ["a"]), None);
        assert_eq!(elements("{}", 1), None);
        assert_eq!(elements("[1", 1), None);
        assert_eq!(elements("[1,2 3]", 1), None);
    }

    #[test]
    fn only_as_many_elements_are_kept_as_were_asked_for() {
        let of = |text, max| {
            let elements = elements(text, max).unwrap();
            (elements.texts.join(";"), elements.has_more)
        };
        assert_eq!(
            of(r#"[ "a" ,[1, 2],{}]"#, 3),
            (r#""a";[1, 2];{}"#.to_owned(), false)
        );
        assert_eq!(of("[1,2,3]", 2), ("1;2".to_owned(), true));
        assert_eq!(of("[1]", 0), (String::new(), true));
        assert_eq!(of("[]", 0), (String::new(), false));
    }

    #[test]
    fn lone_surrogates_are_mended_and_pairs_are_not() {
        for (text, expected) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ude00퟿\ud83d""#, "😀\u{d7ff}\u{fffd}"),
            (r#""\"\\\n""#, "\"\\\n"),
        ] {
            assert_eq!(string(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "a", "1", "[\"a\"]", "\"a", "[1]"] {
            assert_eq!(string(text), None, "{text}");
        }
        assert_eq!(
            members(r#"{"\ud800":1,"\ufffd":2}"#, ["\u{fffd}"]),
            Some([Some("2")])
        );
    }

    #[test]
    fn numbers_are_javascripts() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("7.0", Some(7)),
            ("1e3", Some(1000)),
            ("9007199254740991", Some(9_007_199_254_740_991)),
            ("9007199254740992", None),
            ("-1", None),
            ("0.5", None),
            ("1e400", None),
            ("\"1\"", None),
            ("true", None),
            ("-inf", None),
        ] {
            assert_eq!(uint(text), expected, "{text}");
        }
        assert_eq!(number("1e400"), Some(f64::INFINITY));
        assert_eq!(number("-2.5"), Some(-2.5));
    }

    #[test]
    fn a_name_may_be_a_number() {
        for (text, expected) in [
            ("42", Some("42")),
            ("42.0", Some("42")),
            ("-0", Some("0")),
            ("-7", Some("-7")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("1e21", Some("1e+21")),
            ("1e400", None),
            (r#""4\u0032""#, Some("42")),
            ("null", None),
            ("true", None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(string_or_number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn any_depth_is_passed_over() {
        let text = format!(
            "{{\"x\":{}{},\"a\":1}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(members(&text, ["a"]), Some([Some("1")]));
    }
}
