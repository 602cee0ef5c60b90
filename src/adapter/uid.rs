//! `Uid`: an instance's name on the bus, by which it knows its own echoes.
//!
//! Not a secret, and not the instance id inside an Engine.IO `sid`.
//!
//! Source: wire.md 3.1 (6 characters of `[A-Za-z0-9_-]`, as `uid2(6)` makes them).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Length of a `Uid` in characters.
pub const UID_CHARS: usize = 6;
/// Enough random bytes for [`UID_CHARS`] characters of 6 bits each.
const RANDOM_BYTES: usize = 5;

/// An instance's name on the bus: 6 characters of `[A-Za-z0-9_-]`.
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
    fn other_texts_are_no_uid() {
        for text in ["", "emitter", "abcde", "abcdefg", "abc#ef", "abc éf"] {
            assert_eq!(Uid::parse(text), None, "{text:?}");
        }
    }
}
