//! MessagePack: one token at a time, and whole values from and to JSON text with attachments.
//!
//! Pure: no actor, no I/O, no clock; knows neither Redis nor packets. Bytes from outside are hostile: reading them never
//! panics, costs time linear in their length, and allocates nothing for a length that is only claimed.
//!
//! ```text
//! reader      ── one token: marker, length, scalar
//! to_json     ── one value: MessagePack  →  JSON text + attachments
//! to_msgpack  ── one value: JSON text + attachments  →  MessagePack
//! ```
//! Two rooms use it: `adapter` (instances speak notepack.io 3) and `socket_io` (socket.io-msgpack-parser speaks
//! notepack.io 2). What is written is the same for both, because JSON text holds neither dates nor `undefined`; what is
//! read differs by [`Dialect`]. Source: MessagePack specification; wire.md 2.7, 3.2.

mod error;
mod iso_date;

pub mod reader;
pub mod to_json;
pub mod to_msgpack;

pub use error::{DecodeError, EncodeError};

/// How deep arrays and objects of a value may nest to be written, and the most that a reader of ours allows.
///
/// Writing and reading are recursive, here as in Node, where a subscriber that fails over one message stays deaf for ever.
pub const MAX_DEPTH: usize = 128;

/// Which decoder the sender writes for. Both read `d4 00` as `undefined`, `d7 00` as a date, and ext 8 to 32 of type 0 as a
/// byte array; they differ in the standard's own date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// notepack.io 2.2: an extension of type -1 is like any other, a pair of type and bytes.
    Notepack2,
    /// notepack.io 3: an extension of type -1 is a date, if it has one of the three standard forms.
    Notepack3,
}

/// How a value is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Who wrote it.
    pub dialect: Dialect,
    /// How deep arrays and maps may nest: [`MAX_DEPTH`], or the few levels more that a message has around it.
    pub max_depth: usize,
    /// How many binary values there may be.
    pub max_attachments: usize,
}
