//! The bridge: carries commands, questions and answers between this instance's hub and the other instances, over Redis.
//!
//! It decides nothing about who receives what (the hub does) and knows no byte of the messages (`adapter` does). The
//! hub hands a broadcast over and never waits; while Redis is away, local clients notice nothing.
//!
//! ```text
//! Hub ──Publish──▶ RedisBridge ──▶ queue ──▶ publish ──▶ PUBLISH … PUBLISH   one connection, one batch at a time
//!     ──Ask──────▶ (actor.rs)  ──▶ asks ───▶ queue ──▶ PUBLISH a request, and see who heard it
//!                                  link.rs: connects, subscribes, publishes, listens, waits, again
//! Hub ◀─Reinject── incoming ◀── broadcasts, requests ◀── PSUBSCRIBE <prefix>#<nsp>#*      another connection
//!     ◀─Answering─                                       SUBSCRIBE <prefix>-request#<nsp>#
//!     ──Send, Look──▶ private ──▶ PUBLISH, NUMSUB
//!     ──Tell, Behind─▶ queue, in one order with what is published
//! relay ◀──────────── incoming ◀── whatever another instance said to this one ◀── SUBSCRIBE <prefix>-sockhop#<instance>#
//!       ◀──────────── incoming ◀── whatever any instance said to all ◀─────────── SUBSCRIBE <prefix>-sockhop#
//! peers ◀────────────    "     ◀── beats of all instances ◀──────────────────────       "
//! whoever asked ◀── calls ◀──── responses ◀───────────── SUBSCRIBE <prefix>-response#<nsp>#, …<uid>#
//! ```
//! With the sharded adapter there are SPUBLISH and SSUBSCRIBE in the place of these, and other names; see `wire`.
//!
//! What is promised: messages of one instance arrive in the order in which it published them, each at most once. What
//! is published while Redis is away waits, bounded in bytes and age; what was under way when a connection broke may
//! or may not have arrived and is not sent again; what Redis refused waits again, in its place. All that is lost is counted ([`BridgeStats`]) and logged.
//!
//! | file | |
//! | --- | --- |
//! | `messages` | what the bridge can be told |
//! | `actor` | the actor: encodes, queues, stops |
//! | `link` | the life of the connections |
//! | `namespaces`, `listening` | what is to be listened to, and what is |
//! | `incoming` | judges what others publish, and hands it on |
//! | `private` | what instances of Sockhop say to one another |
//! | `calls` | questions whose answers may still come |
//! | `closing` | until when namespaces are kept open |
//! | `outgoing`, `queue` | what waits to be published, and the door to it |
//! | `ticket` | what goes with a question there: who asked, and whom |
//! | `status` | what `/readyz` and the log say about it |
//! | `wire` | which adapter is spoken: what is published where, and what comes |
//! | `bus` | what a bus can do; `memory_bus` is for tests |
//! | `any_bus` | the bus that the settings ask for, one of these |
//! | `redis_bus` | plain channels of one Redis |
//! | `sharded/` | sharded channels of a Redis or a Redis Cluster |
//! | `hello` | what a Redis says of itself |
//! | `read_gate` | keeps the client from reading faster than we listen |
//! | `backoff` | how long to wait before the next attempt |
//!
//! Source: @socket.io/redis-adapter 8.3 (`createAdapter`, `createShardedAdapter`); wire.md 3, 4, 10.5, 10.19.

mod actor;
mod any_bus;
mod backoff;
mod calls;
mod closing;
mod hello;
mod incoming;
mod link;
mod listening;
mod loss;
#[cfg(test)]
mod memory_bus;
mod namespaces;
mod outgoing;
mod private;
mod queue;
mod read_gate;
mod redis_bus;
mod sharded;
mod status;
#[cfg(test)]
mod tests;
mod ticket;
mod wire;

pub mod bus;
pub mod messages;

pub use actor::{FLUSH_TIMEOUT, RedisBridge};
pub use any_bus::AnyBus;
pub use incoming::HubDoor;
pub use loss::Loss;
pub use private::{Audience, Capacity, Listener, Weight};
pub use redis_bus::RedisBus;
pub use sharded::ShardedBus;
pub use status::{BridgeStats, BusStatus, StatsSnapshot};

/// Returns the table of rooms that the hub must keep for an adapter, if it wants one.
pub fn room_table(
    adapter: crate::adapter::kind::AdapterKind,
) -> Option<std::sync::Arc<crate::hub::room_table::RoomTable>> {
    let listed = wire::listed_rooms(adapter)?;
    let table = crate::hub::room_table::RoomTable::new(listed);
    Some(std::sync::Arc::new(table))
}
