//! The wire between instances: what the Node servers' classic and sharded Redis adapters speak, byte for byte.
//!
//! Pure: no actor, no Redis client, no clock. Bytes and values in, values and bytes out; `redis_bridge` moves them.
//! Nobody else knows channel names. Incoming bytes are hostile: reading them never panics, costs time linear in their
//! length, and allocates nothing for a length that is only claimed; `msgpack` sees to that.
//!
//! ```text
//! channel  ── who subscribes to what, which channel a message goes to
//! message  ── [uid, {type, data, nsp}, {rooms, except, flags}]  ⇄  Uid, Broadcast
//! request  ── what one instance asks of all others
//! response ── what each of them answers
//! sharded, sharded_channel ── the same with the sharded adapter's messages and channels
//! kind     ── which of the two adapters is spoken
//! incoming ── what came, whichever adapter brought it
//! emitter  ── what is published by who is no instance
//!   opened     ── requests and responses: JSON or MessagePack → JSON text + attachments
//!   parts      ── rooms, targets, flags, packets, sockets of requests and responses
//! ```
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`, `createShardedAdapter`), notepack.io 3.0.1; wire.md 3, 4.

mod error;
mod opened;
mod parts;

pub mod channel;
pub mod emitter;
pub mod incoming;
pub mod kind;
pub mod message;
pub mod request;
pub mod response;
pub mod sharded;
pub mod sharded_channel;
pub mod uid;

pub use error::{DecodeError, EncodeError};
pub use parts::{MAX_ID_BYTES, MAX_LISTED, MAX_SOCKETS, MAX_TIMEOUT};

pub use crate::msgpack::MAX_DEPTH;
