//! Socket.IO v5: packets, arguments, ids; `legacy` has what clients 2.x want otherwise. All pure: text and bytes in, value or
//! error out.
//!
//! Knows neither transport nor actor. Packets travel as text with JSON or, if the instance was told so, as MessagePack: who
//! reads and writes them here passes the [`parser::Parser`] along and sees the same packets.
//!
//! Source: Socket.IO protocol, revision 5; wire.md 2.

pub mod args;
pub mod decoder;
pub mod encode;
pub mod ids;
pub mod json;
pub mod legacy;
pub mod object;
pub mod parser;
pub mod recovery;
pub(crate) mod reserved;

mod msgpack_packet;
