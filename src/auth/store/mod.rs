//! Where accounts and the token key are kept.
//!
//! A store keeps and finds; it judges no username and knows no password. [`redb`] is a file of one instance,
//! [`redis`] is shared by all.

use std::{error::Error as StdError, fmt};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::rules::UsernameKey;
use crate::config::{MIN_JWT_SECRET_BYTES, Secret};

pub mod redb;
pub mod redis;

/// What is kept of a user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Stable id: 20 characters of base64url.
    pub id: String,
    /// The name as it was registered.
    pub username: String,
    /// PHC string.
    pub password_hash: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Account {
    fn to_json(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|err| StoreError::Corrupt {
            what: Item::Account,
            source: err.into(),
        })
    }

    /// Reads what was found under `key`: anyone may have written it.
    fn from_json(json: &[u8], key: &UsernameKey) -> Result<Self, StoreError> {
        let corrupt = |source: BoxError| StoreError::Corrupt {
            what: Item::Account,
            source,
        };
        let account: Self = serde_json::from_slice(json).map_err(|err| {
            // The error's text may quote the hash; its place and kind are enough.
            corrupt(format!("{:?} fault at byte {}", err.classify(), err.column()).into())
        })?;
        match UsernameKey::new(&account.username) {
            Ok(own) if own == *key => Ok(account),
            _ => Err(corrupt("it is of another user".into())),
        }
    }
}

/// Takes a stored key as one to sign with.
fn checked_secret(text: &str) -> Result<Secret, StoreError> {
    if text.len() < MIN_JWT_SECRET_BYTES {
        return Err(StoreError::Corrupt {
            what: Item::Key,
            source: format!(
                "it has {} of at least {MIN_JWT_SECRET_BYTES} bytes",
                text.len()
            )
            .into(),
        });
    }
    Ok(Secret::new(text))
}

/// The cause of a store's error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Which store it is, for those who read a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A file in `DATA_DIR`.
    File,
    /// The Redis of all instances.
    Redis,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "accounts file",
            Self::Redis => "Redis",
        })
    }
}

/// What a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// An account.
    Account,
    /// The token key.
    Key,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Key => "token key",
        })
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is an account under this key.
    #[error("username is taken")]
    Taken,
    /// It cannot be asked now. Whether a `create` has happened is open.
    #[error("{store} is unavailable")]
    Unavailable {
        /// Which store.
        store: StoreKind,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// What stands there is not what we wrote.
    #[error("stored {what} cannot be read")]
    Corrupt {
        /// What it should have been.
        what: Item,
        /// What is wrong with it, without its content.
        #[source]
        source: BoxError,
    },
}

/// Keeps accounts and the token key, for one instance or for many.
///
/// All calls may come at once, from any thread with a tokio runtime, and none blocks it.
pub trait AccountStore: Send + Sync {
    /// Keeps `account` under `key`, durably, unless there is one. Of many at once exactly one succeeds.
    ///
    /// # Errors
    /// `Taken`, `Unavailable`.
    fn create<'a>(
        &'a self,
        key: &'a UsernameKey,
        account: Account,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Returns the account under `key`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    fn find<'a>(
        &'a self,
        key: &'a UsernameKey,
    ) -> BoxFuture<'a, Result<Option<Account>, StoreError>>;

    /// Keeps `candidate` as the token key unless there is one, and returns the one in force.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    fn shared_secret(&self, candidate: Secret) -> BoxFuture<'_, Result<Secret, StoreError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_shows_no_hash() {
        let account = Account {
            id: "1".into(),
            username: "bob".into(),
            password_hash: "$argon2id$x".into(),
        };
        assert!(!format!("{account:?}").contains("argon2"));
    }

    #[test]
    fn what_is_not_the_users_account_is_corrupt_and_not_quoted() {
        let key = UsernameKey::new("bob").unwrap();
        for json in [
            "",
            "null",
            r#"{"id":"1","username":"bob"}"#,
            r#"{"id":"1","username":"bob","password_hash":["hunter2"]}"#,
            r#"{"id":"1","username":"bob","password_hash":{"hunter2":1}}"#,
            r#"{"id":"1","username":"admin","password_hash":"hunter2"}"#,
            r#"{"id":"1","username":"b:ob","password_hash":"hunter2"}"#,
        ] {
            let err = Account::from_json(json.as_bytes(), &key).unwrap_err();
            let StoreError::Corrupt {
                what: Item::Account,
                source,
            } = err
            else {
                panic!("{json}: {err:?}")
            };
            assert!(
                !format!("{source} {source:?}").contains("hunter2"),
                "{source:?}"
            );
        }
        let json = r#"{"id":"1","username":"Bob","password_hash":"x","later":"field"}"#;
        assert_eq!(
            Account::from_json(json.as_bytes(), &key).unwrap().username,
            "Bob"
        );
    }

    #[test]
    fn a_short_key_is_never_in_force() {
        for text in ["", "x", &"x".repeat(31)] {
            assert!(matches!(
                checked_secret(text),
                Err(StoreError::Corrupt {
                    what: Item::Key,
                    ..
                })
            ));
        }
        assert!(checked_secret(&"x".repeat(32)).is_ok());
    }
}
