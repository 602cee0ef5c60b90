//! The token key in force.
//!
//! A configured `JWT_SECRET` is in force from the start and for good. Else the store's is: this instance offers one of
//! its own making, which counts if the store has none. Until the store has been reached once, no key is known.
//!
//! ```text
//! start ── offer random key ──▶ store has none: ours is in force, and kept
//!                               store has one:  that one is in force
//!                               unreachable:    none; asked again by register, login, the bridge
//! Redis came back ── offer the key in force ──▶ restarted empty: it has the key again, tokens stay valid
//!                                               has another one: adopted, tokens of the old one end
//! ```

use std::{
    fmt::Write as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    store::{AccountStore, StoreError},
    token::TokenKey,
};
use crate::config::Secret;

/// Random bytes in a generated key: the output size of HS256 (RFC 7518, 3.2). Kept as twice as many hex digits.
const KEY_BYTES: usize = 32;

/// Returns a fresh key in hex.
///
/// # Errors
/// The system's random source failed.
pub(super) fn generate() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)?;
    let mut hex = String::with_capacity(2 * KEY_BYTES);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(Secret::new(hex))
}

/// Holds the key in force. Read on every handshake, written hardly ever.
pub(super) enum KeyRing {
    /// `JWT_SECRET`: never changes.
    Configured(Arc<TokenKey>),
    /// The store's.
    Shared(SharedKey),
}

/// The key that a store keeps.
pub(super) struct SharedKey {
    /// What is offered while no key is known.
    candidate: Secret,
    /// A std lock, held for the copy of a pointer and never across an await.
    known: RwLock<Known>,
    /// Numbers the questions to the store, so that a late answer does not undo a newer one.
    num_asked: AtomicU64,
}

#[derive(Default)]
struct Known {
    key: Option<Arc<TokenKey>>,
    /// Which question it answers.
    question: u64,
}

impl KeyRing {
    /// Returns a ring whose key never changes.
    pub(super) fn configured(secret: Secret) -> Self {
        Self::Configured(Arc::new(TokenKey::new(secret)))
    }

    /// Returns a ring without a key, which will offer `candidate`.
    pub(super) fn offering(candidate: Secret) -> Self {
        Self::Shared(SharedKey {
            candidate,
            known: RwLock::default(),
            num_asked: AtomicU64::default(),
        })
    }

    /// Returns the key in force, if it is known.
    pub(super) fn current(&self) -> Option<Arc<TokenKey>> {
        match self {
            Self::Configured(key) => Some(Arc::clone(key)),
            Self::Shared(shared) => shared.current(),
        }
    }

    /// Agrees with `store` on the key and returns it. Without the store's answer, what is in force stays.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn refresh(
        &self,
        store: &dyn AccountStore,
    ) -> Result<Arc<TokenKey>, StoreError> {
        match self {
            Self::Configured(key) => Ok(Arc::clone(key)),
            Self::Shared(shared) => {
                let (offer, question) = shared.ask();
                Ok(shared.adopt(store.shared_secret(offer).await?, question))
            }
        }
    }

    /// Agrees with a store that answers at once, at start.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn refresh_blocking(
        &self,
        shared_secret: impl FnOnce(&Secret) -> Result<Secret, StoreError>,
    ) -> Result<(), StoreError> {
        if let Self::Shared(shared) = self {
            let (offer, question) = shared.ask();
            shared.adopt(shared_secret(&offer)?, question);
        }
        Ok(())
    }
}

impl SharedKey {
    fn current(&self) -> Option<Arc<TokenKey>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .key
            .clone()
    }

    /// Returns what to offer to the store, and the number of this question.
    fn ask(&self) -> (Secret, u64) {
        let question = self.num_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let offer = match self.current() {
            Some(key) => key.secret().clone(),
            None => self.candidate.clone(),
        };
        (offer, question)
    }

    /// Puts the store's answer in force, unless a later question was answered before. Returns the key in force.
    fn adopt(&self, secret: Secret, question: u64) -> Arc<TokenKey> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &known.key
            && (known.question > question || *key.secret() == secret)
        {
            let key = Arc::clone(key);
            known.question = known.question.max(question);
            return key;
        }
        let key = Arc::new(TokenKey::new(secret));
        let replaced = known.key.replace(Arc::clone(&key));
        known.question = question;
        drop(known);
        if replaced.is_some() {
            log::warn!(
                "[Auth] the store holds another token key than before, which is in force now: tokens signed with the old one are no longer accepted"
            );
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> SharedKey {
        match KeyRing::offering(Secret::new("a".repeat(64))) {
            KeyRing::Shared(shared) => shared,
            KeyRing::Configured(_) => unreachable!(),
        }
    }

    #[test]
    fn generated_keys_are_64_hex_digits_and_differ() {
        let key = generate().unwrap();
        assert!(key.expose().len() == 64 && key.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(key, generate().unwrap());
    }

    #[test]
    fn what_is_in_force_is_what_is_offered() {
        let shared = shared();
        let (offer, question) = shared.ask();
        assert_eq!(offer, Secret::new("a".repeat(64)));
        shared.adopt(Secret::new("b".repeat(64)), question);
        assert_eq!(shared.ask().0, Secret::new("b".repeat(64)));
    }

    #[test]
    fn a_late_answer_does_not_undo_a_newer_one() {
        let shared = shared();
        let (_, first) = shared.ask();
        let (_, second) = shared.ask();
        shared.adopt(Secret::new("new".repeat(20)), second);
        let key = shared.adopt(Secret::new("old".repeat(20)), first);
        assert_eq!(key.secret().expose(), "new".repeat(20));
        assert_eq!(
            shared.current().unwrap().secret().expose(),
            "new".repeat(20)
        );
    }
}
