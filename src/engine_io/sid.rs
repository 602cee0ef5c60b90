//! The Engine.IO session id, which carries the instance that owns the session.
//!
//! Pure. A request for any session can land on any instance; the first characters of its `sid` tell whose it is,
//! without a look-up and without a broadcast.
//!
//! ```text
//! sid = instance random        instance = 8 characters (48 bits)        random = 22 characters (128 bits)
//! ```
//! All of the base64url alphabet. Source: Engine.IO protocol v4, "Handshake" (a `sid` is any string).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

const INSTANCE_BYTES: usize = 6;
const INSTANCE_CHARS: usize = 8;
const RANDOM_BYTES: usize = 16;
const SID_CHARS: usize = 30;

/// Names one running instance; made at its start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId([u8; INSTANCE_CHARS]);

/// A session id. Whoever knows it can speak for the client, so `Debug` shows its instance only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; SID_CHARS]);

fn is_id_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Fills `target` with the base64url text of fresh random bytes.
fn random_text<const BYTES: usize>(target: &mut [u8]) -> Result<(), getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, target);
    debug_assert_eq!(written.ok(), Some(target.len()));
    Ok(())
}

impl InstanceId {
    /// Returns a fresh id.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut text = [0; INSTANCE_CHARS];
        random_text::<INSTANCE_BYTES>(&mut text)?;
        Ok(Self(text))
    }

    /// Reads an id as another instance wrote it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; INSTANCE_CHARS] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(|byte| is_id_char(*byte))
            .then_some(Self(bytes))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

impl Sid {
    /// Returns a fresh id of a session that `owner` owns.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random(owner: InstanceId) -> Result<Self, getrandom::Error> {
        let mut text = [0; SID_CHARS];
        let (head, tail) = text.split_at_mut(INSTANCE_CHARS);
        head.copy_from_slice(&owner.0);
        random_text::<RANDOM_BYTES>(tail)?;
        Ok(Self(text))
    }

    /// Reads an id from a query. `None` if it cannot be one of ours: the session is unknown then.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; SID_CHARS] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(|byte| is_id_char(*byte))
            .then_some(Self(bytes))
    }

    /// Returns the instance that made, and so far owns, the session.
    pub fn owner(&self) -> InstanceId {
        let mut text = [0; INSTANCE_CHARS];
        for (to, from) in text.iter_mut().zip(self.0) {
            *to = from;
        }
        InstanceId(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({}…)", self.owner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_names_its_owner_and_survives_the_query() {
        let owner = InstanceId::random().unwrap();
        let sid = Sid::random(owner).unwrap();
        assert_eq!(sid.owner(), owner);
        assert_eq!(Sid::parse(sid.as_str()), Some(sid));
        assert_ne!(Sid::random(owner).unwrap(), sid);
        assert!(!format!("{sid:?}").contains(sid.as_str()));
    }

    #[test]
    fn texts_of_another_length_or_alphabet_are_no_sids() {
        for text in [
            "",
            "abc",
            &"a".repeat(29),
            &"a".repeat(31),
            &"é".repeat(15),
            &"*".repeat(30),
        ] {
            assert_eq!(Sid::parse(text), None, "{text:?}");
        }
    }
}
