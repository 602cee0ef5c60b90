//! What can go wrong with accounts and tokens.
//!
//! Only names the cases: `http::auth` says which status and which sentence each becomes, a gateway says which
//! CONNECT_ERROR. Causes are for the log; the peer never sees them.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use super::{
    rules::FieldErrors,
    store::{StoreError, StoreKind},
};
use crate::config::env;

/// Why there is no [`Grant`](super::Grant).
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A field breaks a rule.
    #[error("{0}")]
    Fields(FieldErrors),
    /// Someone has the username, in this or another case.
    #[error("username is taken")]
    Taken,
    /// There is no such user, or the password is wrong: one answer for both, so that nobody learns who has an account.
    #[error("username or password is wrong")]
    InvalidCredentials,
    /// Too many passwords are waiting to be hashed, or too many callers for the store.
    #[error("too many are registering or logging in")]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The address has made as many accounts as it may in an hour.
    #[error(
        "{address} has registered {limit} accounts, and may make no more within the hour: if it is your balancer, name it in \
         {proxies}; if not, {name} says how many may come from one address",
        proxies = env::TRUSTED_PROXIES,
        name = env::MAX_REGISTRATIONS_PER_ADDRESS
    )]
    TooManyRegistrations {
        /// What counts as its address.
        address: IpAddr,
        /// How many it may make in an hour.
        limit: u32,
        /// When it may make one more.
        retry_after: Duration,
    },
    /// The store cannot be asked now.
    #[error("{store} cannot be asked")]
    Unavailable {
        /// Which store.
        store: StoreKind,
        /// When to ask again.
        retry_after: Duration,
        /// What it said.
        #[source]
        source: StoreError,
    },
    /// What stands in the store is not what we wrote.
    #[error("store holds what cannot be read")]
    Corrupt(#[source] StoreError),
    /// A password could not be hashed: our fault.
    #[error("password cannot be hashed")]
    Hash(#[source] HashFault),
    /// A token could not be signed: our fault.
    #[error("token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The system's random source failed.
    #[error("random source failed")]
    Random(#[source] getrandom::Error),
}

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum HashFault {
    /// argon2 refused.
    #[error("argon2 refused")]
    Argon2(#[source] argon2::password_hash::Error),
    /// The stored hash is no argon2id hash, or asks for more work than `auth::password` allows.
    #[error("stored hash is not an argon2id hash of a bearable cost")]
    StoredHash,
    /// The random source failed to give a salt.
    #[error("no salt")]
    Salt(#[source] getrandom::Error),
    /// The blocking thread ended early, by a panic or by the runtime's end.
    #[error("hashing was cut short")]
    CutShort,
}

/// Why a token admits nobody. The texts are all that a peer may learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not ours, or not meant for us, or no token at all.
    #[error("token is invalid")]
    Invalid,
    /// Ours, and past its time.
    #[error("token has expired")]
    Expired,
    /// The key is not known yet: it lives in a Redis that this instance has never reached.
    #[error("key is not known yet")]
    KeyUnavailable,
}

/// Why the accounts cannot be opened at start. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory does not exist and cannot be made.
    #[error(
        "{name}={path:?} cannot be created: {source}; create it for this user or set {name} elsewhere",
        name = env::DATA_DIR
    )]
    CreateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory, or the file in it, cannot be read and written.
    #[error(
        "{name}={path:?} cannot be written: {source}; make it writable for this user or set {name} elsewhere",
        name = env::DATA_DIR
    )]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error(
        "another instance uses {name}={path:?}: stop it, give this one its own {name}, or set {redis} to share accounts",
        name = env::DATA_DIR,
        redis = env::REDIS_URL
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no database of ours, or was damaged.
    #[error(
        "{path:?} cannot be read as Sockhop's accounts: {reason}; restore it from a backup, or move it away to start without accounts"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The Redis client does not understand the address.
    #[error("{name} cannot be used: {reason}", name = env::REDIS_URL)]
    RedisUrl {
        /// What the client said, without the address, which may hold a password.
        reason: String,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(#[source] getrandom::Error),
}
