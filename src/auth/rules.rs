//! What a username and a password must look like.
//!
//! Pure: text in, verdict out. Does not know whether a name is taken, and hashes nothing.
//!
//! Rules: a username has 3 to 32 of `A-Z a-z 0-9 . _ -`. Being ASCII, no two names look alike but for their case,
//! and names that differ in case alone are one: [`UsernameKey`] is what a store looks up. A password has 8 to 128
//! characters and at most 512 bytes; nothing else is asked of it (NIST SP 800-63B, 5.1.1.2: length, no composition rules).

use std::fmt;

use serde::{Serialize, Serializer};

/// Fewest characters of a username.
pub const MIN_USERNAME_CHARS: usize = 3;
/// Most characters of a username; being ASCII, as many bytes.
pub const MAX_USERNAME_CHARS: usize = 32;
/// Fewest characters (Unicode scalar values) of a password.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Most characters (Unicode scalar values) of a password.
pub const MAX_PASSWORD_CHARS: usize = 128;
/// Most bytes of a password in UTF-8.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// Why a field cannot be used. The texts go to the client: each says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// The field is absent or empty.
    #[error("is missing")]
    Missing,
    /// The field is no JSON string.
    #[error("must be a string")]
    NotAString,
    /// Too few characters.
    #[error("must have at least {min} characters and has {chars}")]
    TooShort {
        /// Fewest accepted.
        min: usize,
        /// How many there are.
        chars: usize,
    },
    /// Too many characters.
    #[error("must have at most {max} characters")]
    TooLong {
        /// Most accepted.
        max: usize,
    },
    /// Too many bytes.
    #[error("must have at most {max} bytes in UTF-8")]
    TooManyBytes {
        /// Most accepted.
        max: usize,
    },
    /// A character that no username may have; the first one.
    #[error("must not have {character:?}; use A-Z a-z 0-9 . _ - only")]
    Forbidden {
        /// The first such character.
        character: char,
    },
}

impl Serialize for FieldFault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with each field. Serialises to `{"username": "…", "password": "…"}` without the sound ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FieldErrors {
    /// What is wrong with the username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<FieldFault>,
    /// What is wrong with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<FieldFault>,
}

impl FieldErrors {
    /// Returns whether both fields are sound.
    pub fn is_empty(&self) -> bool {
        self.username.is_none() && self.password.is_none()
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("username", &self.username), ("password", &self.password)];
        let mut separator = "";
        for (name, fault) in named {
            if let Some(fault) = fault {
                write!(f, "{separator}{name} {fault}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// The form of a username under which it is unique: sound by the rules, in lower case.
///
/// Holds nothing but `a-z 0-9 . _ -`, so that it can stand in any store's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UsernameKey(String);

impl UsernameKey {
    /// Returns the key of `username`.
    ///
    /// # Errors
    /// The username breaks a rule.
    pub fn new(username: &str) -> Result<Self, FieldFault> {
        judge_username(username)?;
        Ok(Self(username.to_ascii_lowercase()))
    }

    /// Returns a key under which there is never an account: too long for a username. A look-up of it takes the time of
    /// one that could succeed.
    pub(super) fn of_nobody() -> Self {
        Self("-".repeat(MAX_USERNAME_CHARS + 1))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn judge_username(username: &str) -> Result<(), FieldFault> {
    if username.is_empty() {
        return Err(FieldFault::Missing);
    }
    // The character first: "must not have '@'" helps whoever typed an address more than its length does.
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(character) = username.chars().find(|c| !allowed(*c)) {
        return Err(FieldFault::Forbidden { character });
    }
    match username.len() {
        chars if chars < MIN_USERNAME_CHARS => Err(FieldFault::TooShort {
            min: MIN_USERNAME_CHARS,
            chars,
        }),
        chars if chars > MAX_USERNAME_CHARS => Err(FieldFault::TooLong {
            max: MAX_USERNAME_CHARS,
        }),
        _ => Ok(()),
    }
}

fn judge_password(password: &str) -> Result<(), FieldFault> {
    if password.is_empty() {
        return Err(FieldFault::Missing);
    }
    match password.chars().count() {
        chars if chars < MIN_PASSWORD_CHARS => Err(FieldFault::TooShort {
            min: MIN_PASSWORD_CHARS,
            chars,
        }),
        chars if chars > MAX_PASSWORD_CHARS => Err(FieldFault::TooLong {
            max: MAX_PASSWORD_CHARS,
        }),
        _ if password.len() > MAX_PASSWORD_BYTES => Err(FieldFault::TooManyBytes {
            max: MAX_PASSWORD_BYTES,
        }),
        _ => Ok(()),
    }
}

/// Judges what someone wants to register, and returns the key of the username.
///
/// # Errors
/// What is wrong with each field.
pub(super) fn judge_registration(
    username: &str,
    password: &str,
) -> Result<UsernameKey, FieldErrors> {
    let password = judge_password(password).err();
    match (UsernameKey::new(username), password) {
        (Ok(key), None) => Ok(key),
        (key, password) => Err(FieldErrors {
            username: key.err(),
            password,
        }),
    }
}

/// Judges what someone logs in with: only what is absent, or larger than any account's, is refused.
///
/// All else is a guess at an account, right or wrong: accounts outlive the rules under which they were made. `None`
/// stands for a username that no account can have.
///
/// # Errors
/// What is wrong with each field. It says nothing about which accounts exist.
pub(super) fn judge_login(
    username: &str,
    password: &str,
) -> Result<Option<UsernameKey>, FieldErrors> {
    let username_fault = match username.len() {
        0 => Some(FieldFault::Missing),
        bytes if bytes > MAX_USERNAME_CHARS => Some(FieldFault::TooLong {
            max: MAX_USERNAME_CHARS,
        }),
        _ => None,
    };
    let password_fault = judge_password(password)
        .err()
        .filter(|fault| !matches!(fault, FieldFault::TooShort { .. }));
    let faults = FieldErrors {
        username: username_fault,
        password: password_fault,
    };
    if faults.is_empty() {
        Ok(UsernameKey::new(username).ok())
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_have_3_to_32_ascii_letters_digits_dots_dashes_underscores() {
        for name in ["bob", "B.o_b-9", "---", &"a".repeat(32)] {
            assert!(UsernameKey::new(name).is_ok(), "{name}");
        }
        assert_eq!(UsernameKey::new(""), Err(FieldFault::Missing));
        assert_eq!(
            UsernameKey::new("bo"),
            Err(FieldFault::TooShort { min: 3, chars: 2 })
        );
        assert_eq!(
            UsernameKey::new(&"a".repeat(33)),
            Err(FieldFault::TooLong { max: 32 })
        );
    }

    #[test]
    fn a_username_cannot_look_like_another_one() {
        // Cyrillic а, full-width ａ, zero-width space, right-to-left mark, combining accent, white space, controls.
        for name in [
            "p\u{430}ul",
            "\u{ff41}bc",
            "bob\u{200b}",
            "bob\u{200f}",
            "bo\u{301}b",
            "bob ",
            "b\0b",
        ] {
            assert!(
                matches!(UsernameKey::new(name), Err(FieldFault::Forbidden { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_username_cannot_leave_its_place_in_a_key() {
        for name in ["a:b:c", "a*b", "../etc", "a b c", "a\r\nb", "a/b"] {
            assert!(UsernameKey::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn usernames_are_one_whatever_their_case() {
        assert_eq!(UsernameKey::new("Alice"), UsernameKey::new("aLICE"));
        assert_eq!(UsernameKey::new("Alice").unwrap().as_str(), "alice");
    }

    #[test]
    fn passwords_are_counted_in_characters_and_in_bytes() {
        assert_eq!(judge_password(""), Err(FieldFault::Missing));
        assert_eq!(
            judge_password("1234567"),
            Err(FieldFault::TooShort { min: 8, chars: 7 })
        );
        assert_eq!(judge_password("12345678"), Ok(()));
        assert_eq!(judge_password("éééééééé"), Ok(()));
        assert_eq!(judge_password(&"x".repeat(128)), Ok(()));
        assert_eq!(
            judge_password(&"🦀".repeat(128)),
            Ok(()),
            "128 characters of 4 bytes are 512"
        );
        assert_eq!(
            judge_password(&"x".repeat(129)),
            Err(FieldFault::TooLong { max: 128 })
        );
    }

    #[test]
    fn every_faulty_field_is_named_with_its_reason() {
        let faults = judge_registration("a@b.example", "short").unwrap_err();
        assert_eq!(
            serde_json::to_value(&faults).unwrap(),
            serde_json::json!({
                "username": "must not have '@'; use A-Z a-z 0-9 . _ - only",
                "password": "must have at least 8 characters and has 5",
            })
        );
        let faults = judge_registration("bob", "short").unwrap_err();
        assert_eq!(
            serde_json::to_value(&faults).unwrap(),
            serde_json::json!({"password": "must have at least 8 characters and has 5"})
        );
    }

    #[test]
    fn a_login_is_refused_as_a_form_only_for_what_no_account_can_have_by_its_size() {
        assert_eq!(
            judge_login("Bob", "x"),
            Ok(Some(UsernameKey::new("bob").unwrap()))
        );
        assert_eq!(
            judge_login("bob@x.example", "x"),
            Ok(None),
            "an unknown user, not a fault"
        );
        assert_eq!(judge_login("bo", "x"), Ok(None));
        assert!(judge_login("", "x").unwrap_err().username.is_some());
        assert!(judge_login("bob", "").unwrap_err().password.is_some());
        let faults = judge_login(&"b".repeat(33), &"x".repeat(600)).unwrap_err();
        assert!(faults.username.is_some() && faults.password.is_some());
    }
}
