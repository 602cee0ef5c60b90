//! The hub: who is in which room, and what goes to whom. One actor per instance.
//!
//! `rooms` is the membership, a plain struct without actix; `broadcast`, `command` and `question` say what goes to whom, what
//! is done and what is asked on all instances; `interest` and `room_table` are what the bridge sees of membership; `arrivals` is
//! what passes while sessions of other instances are moving here; `hub_ref` is what everyone else holds of the hub, and `ahead`
//! counts what they sent and do not await; `actor` only translates messages into calls. Nothing outside this folder knows who is
//! in which room.

pub mod actor;
pub mod ahead;
pub mod arrivals;
pub mod broadcast;
pub mod command;
pub mod hub_ref;
pub mod interest;
pub mod messages;
pub mod question;
pub mod room_table;
pub mod rooms;
