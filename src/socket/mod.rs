//! Sockets: one actor per client session.
//!
//! Reading order: `messages` (the door), `inbox` (the way to it from hub and gateways), `actor` (the session's life), `polling` and `websocket_transport` (the two
//! transports), `membership` (the namespaces it joined and the handlers that run), `acks` (those
//! that it owes), `clock` (heartbeat and deadlines),
//! `outbox` (what waits to be written), `disconnect` (every way to end), `sessions` (who is here), `handshake` (what is
//! kept of the first request), `record` (one socket of one namespace), `snapshot` (a socket as
//! other servers see it), `portable` and `departure` (a session that moves to another instance), `endpoint` (the paths that speak Engine.IO), `work`
//! (what goes on after a client left).
//!
//! A Socket owns its transport, heartbeat, memberships and outbox; nobody else writes to the client, and sockets never
//! address each other. Membership in rooms is the hub's.

pub mod acks;
pub mod actor;
pub mod clock;
pub mod departure;
pub mod disconnect;
pub mod endpoint;
pub mod handshake;
pub mod inbox;
mod membership;
pub mod messages;
pub mod outbox;
mod polling;
pub mod portable;
pub mod record;
pub mod sessions;
pub mod snapshot;
pub(crate) mod websocket_transport;
pub mod work;
