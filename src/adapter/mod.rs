//! The wire between instances: what the Node servers' classic Redis adapter speaks, byte for byte.
//!
//! Pure: no actor, no Redis client, no clock. Bytes and values in, values and bytes out; `redis_bridge` moves them.
//! Nobody else knows channel names or MessagePack. Incoming bytes are hostile: reading them never panics, costs time
//! linear in their length, and allocates nothing for a length that is only claimed.
//!
//! ```text
//! channel  ── who subscribes to what, which channel a message goes to
//! message  ── [uid, {type, data, nsp}, {rooms, except, flags}]  ⇄  Uid, Broadcast
//! request  ── what one instance asks of all others
//! response ── what each of them answers
//! emitter  ── what is published by who is no instance
//!   opened     ── requests and responses: JSON or MessagePack → JSON text + attachments
//!   parts      ── rooms, targets, flags, packets, sockets of requests and responses
//!   to_msgpack ── data: JSON text + attachments  →  MessagePack
//!   to_json    ── data: MessagePack  →  JSON text + attachments
//! ```
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`), notepack.io 3.0.1; wire.md 3.

mod error;
mod iso_date;
mod opened;
mod parts;
mod reader;
mod to_json;
mod to_msgpack;

pub mod channel;
pub mod emitter;
pub mod message;
pub mod request;
pub mod response;
pub mod uid;

pub use error::{DecodeError, EncodeError};
pub use parts::{MAX_LISTED, MAX_SOCKETS, MAX_TIMEOUT};

/// How deep arrays and objects of one event's arguments may nest, the argument array included.
///
/// Node's decoder is recursive and a subscriber in which it fails stays deaf for ever, so this guards others, too.
pub const MAX_DEPTH: usize = 128;
