//! The hub: who is in which room, and what goes to whom. One actor per instance.
//!
//! `rooms` is the membership, a plain struct without actix; `broadcast` says what goes to whom; `actor` only translates
//! messages into calls. Nothing outside this folder knows who is in which room.

pub mod actor;
pub mod broadcast;
pub mod messages;
pub mod rooms;
