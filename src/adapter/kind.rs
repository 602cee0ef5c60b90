//! Which of Node's two Redis adapters is spoken.
//!
//! Pure. All instances and Node servers of a cluster must speak the same one, in the same mode: the two do not hear each
//! other (Redis keeps plain and sharded channels apart).
//!
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`, `createShardedAdapter`); wire.md 4.1.

use super::{sharded_channel::SubscriptionMode, uid::Uid};

/// An adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdapterKind {
    /// `createAdapter`: PUBLISH and PSUBSCRIBE.
    #[default]
    Classic,
    /// `createShardedAdapter`: SPUBLISH and SSUBSCRIBE, from Redis 7 on, and the only one for a Redis Cluster.
    Sharded(SubscriptionMode),
}

impl AdapterKind {
    /// Returns a fresh name for an instance, as this adapter makes them.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random_uid(self) -> Result<Uid, getrandom::Error> {
        match self {
            Self::Classic => Uid::random(),
            Self::Sharded(_) => Uid::random_hex(),
        }
    }
}
