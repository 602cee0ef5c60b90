//! The hub: who is in which room, and what goes to whom. One actor per instance.
//!
//! `rooms` is the membership, a plain struct without actix, `members` its list of sockets; `broadcast`, `command` and `question` say
//! what goes to whom, what is done and what is asked on all instances, `work` how much of it at a time, `freight` how much of it may
//! be on its way to the bridge; `interest` and `room_table` are what the bridge sees of membership; `arrivals` is what passes while sessions of other instances are moving here; `replay` and `parked` are what
//! was sent lately and who may come back for it, `postings` whom it is for, plain structs as well; `state`, and `recovery` for
//! `replay` and `parked`, only translate messages into calls; `actor` takes the messages, one at a time; `hub_ref` is what everyone
//! else holds of the hub, `counted` and `ahead` count what they sent. Nothing outside this folder knows who is in which room.

pub mod actor;
pub mod ahead;
pub mod arrivals;
pub mod broadcast;
pub mod command;
pub mod counted;
pub mod freight;
pub mod hub_ref;
pub mod interest;
mod members;
pub mod messages;
pub mod parked;
pub mod postings;
pub mod question;
pub mod recovery;
pub mod replay;
pub mod room_table;
pub mod rooms;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod work;
