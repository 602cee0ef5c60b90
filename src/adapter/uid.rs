//! `Uid`: an instance's name on the bus, by which it knows its own echoes.
//!
//! Not a secret, and not the instance id inside an Engine.IO `sid`.
//!
//! Source: wire.md 3.1 (classic adapter: 6 characters of `[A-Za-z0-9_-]`, as `uid2(6)` makes them), 4.1 (sharded
//! adapter: 16 characters of lower-case hex).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Length of a classic `Uid` in characters.
pub const UID_CHARS: usize = 6;
/// Length of a sharded adapter's `Uid` in characters.
pub const HEX_UID_CHARS: usize = 16;
/// Enough random bytes for [`UID_CHARS`] characters of 6 bits each.
const RANDOM_BYTES: usize = 5;

/// An instance's name on the bus: 6 characters of `[A-Za-z0-9_-]`, or 16 of lower-case hex with the sharded adapter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uid(String);

impl Uid {
    /// Returns a fresh one with 36 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let mut text = URL_SAFE_NO_PAD.encode(bytes);
        text.truncate(UID_CHARS);
        Ok(Self(text))
    }

    /// Returns `text` as a `Uid` if it could be one.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = text.len() == UID_CHARS
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        sound.then(|| Self(text.to_owned()))
    }

    /// Returns a fresh one for the sharded adapter, with 64 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random_hex() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; HEX_UID_CHARS / 2];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{:016x}", u64::from_be_bytes(bytes))))
    }

    /// Returns `text` as a `Uid` if it could be one of the sharded adapter.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let sound = text.len() == HEX_UID_CHARS
            && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        sound.then(|| Self(text.to_owned()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_uid_is_one_that_node_could_have_made() {
        let uid = Uid::random().unwrap();
        assert_eq!(Uid::parse(uid.as_str()), Some(uid.clone()), "{uid}");
        assert_ne!(uid, Uid::random().unwrap());
    }

    #[test]
    fn the_sharded_adapters_uid_is_hex() {
        let uid = Uid::random_hex().unwrap();
        assert_eq!(Uid::parse_hex(uid.as_str()), Some(uid.clone()), "{uid}");
        assert_ne!(uid, Uid::random_hex().unwrap());
        for text in [
            "",
            "abcdef",
            "0123456789ABCDEF",
            "0123456789abcdef0",
            "0123456789abcde\u{e9}",
        ] {
            assert_eq!(Uid::parse_hex(text), None, "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_no_uid() {
        for text in ["", "emitter", "abcde", "abcdefg", "abc#ef", "abc éf"] {
            assert_eq!(Uid::parse(text), None, "{text:?}");
        }
    }
}
