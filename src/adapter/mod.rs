//! The wire between instances: what the Node servers' classic Redis adapter speaks, byte for byte.
//!
//! Pure: no actor, no Redis client, no clock. Bytes and values in, values and bytes out; `redis_bridge` moves them.
//! Nobody else knows channel names. Incoming bytes are hostile: reading them never panics, costs time linear in their
//! length, and allocates nothing for a length that is only claimed; `msgpack` sees to that.
//!
//! ```text
//! channel  ── who subscribes to what, which channel a broadcast goes to
//! message  ── [uid, {type, data, nsp}, {rooms, except, flags}]  ⇄  Uid, Broadcast
//! ```
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`), notepack.io 3.0.1; wire.md 3.1, 3.2, 3.7.

mod error;

pub mod channel;
pub mod message;
pub mod uid;

pub use error::DecodeError;

pub use crate::msgpack::{EncodeError, MAX_DEPTH};
