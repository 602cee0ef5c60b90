//! Sockets: one actor per client session.
//!
//! Reading order: `messages` (the door), `inbox` (the way to its arbiter from hub and gateways), `depot` (from there to it) and
//! `lane` (the way past it), `actor` (the session's life), `polling` and `websocket_transport` (the two transports),
//! `membership` (the namespaces it joined), `running` (the handlers that run), `acks` (those that it owes), `clock` (heartbeat and
//! deadlines), `rate` (how many events it may send), `outbox` (what waits to be written), `backlogs` (what waits for all together),
//! `disconnect` (every way to end), `sessions` (who is here), `handshake` (what is kept of the first request), `record` (one
//! socket of one namespace), `snapshot` (a socket as other servers see it), `portable` and `departure` (a session that moves to
//! another instance), `recovery` (how a client comes back to its sockets), `endpoint` (the paths that speak Engine.IO), `work`
//! (what goes on after a client left), `give_way` (how a task that could go on lets others).
//!
//! A Socket owns its transport, heartbeat, memberships and outbox; nobody else writes to the client, save for the depot of its arbiter
//! by the lane that it lends, and sockets never address each other. Membership in rooms is the hub's.

pub mod acks;
pub mod actor;
pub mod backlogs;
pub mod clock;
pub mod departure;
pub(crate) mod depot;
pub mod disconnect;
pub mod dynamic;
pub mod endpoint;
mod give_way;
pub mod handshake;
pub mod inbox;
mod lane;
mod membership;
pub mod messages;
pub mod outbox;
mod polling;
pub mod portable;
mod rate;
pub mod record;
pub mod recovery;
mod running;
pub mod sessions;
pub mod snapshot;
pub(crate) mod websocket_transport;
pub mod work;
