//! Sockhop: the Socket.IO server that you run, not write; and, below `main.rs`, a library to build one with.
//!
//! ```text
//! client ──▶ http / websocket ──▶ engine_io ──▶ socket_io ──▶ socket ──▶ gateways ──▶ hub ──▶ socket … ──▶ clients
//!                                                                                     │ ▲
//!                                                                                     ▼ │
//!                                                                               redis_bridge ◀═ adapter ═▶ Redis
//! ```
//!
//! The rooms, in reading order:
//!
//! | room | what it is |
//! | --- | --- |
//! | [`config`] | settings: the only reader of the environment |
//! | [`app`] | starts an instance and stops it |
//! | [`counters`] | how often each limit was met |
//! | [`http`] | routes, origins, polling requests, upgrades, accounts, page |
//! | [`websocket`] | RFC 6455; the only place that reads and writes an open WebSocket |
//! | [`engine_io`] | packets, payloads, handshake rules: pure |
//! | [`socket_io`] | packets, arguments, ids: pure |
//! | [`socket`] | one actor per client session |
//! | [`gateways`] | what an application does per namespace and event |
//! | [`hub`] | one actor per instance: rooms and broadcasts |
//! | [`msgpack`] | values in MessagePack from and to JSON text: pure |
//! | [`adapter`] | the wire between instances: pure |
//! | [`redis_bridge`] | one actor per instance: Redis |
//! | [`redis_endpoint`] | where Redis is: addresses, TLS |
//! | [`peers`] | the other instances, as they tell of themselves |
//! | [`relay`] | requests for sessions of other instances, and how a session moves |
//! | [`auth`] | accounts, passwords, tokens |
//! | [`slots`] | how much of something each address holds |
//! | [`open_files`] | how many connections the system allows |
//! | [`telemetry`] | the log: where it goes, how a line looks |
//! | [`healthcheck`] | what the program asks a running instance, for images that hold no other client |
//! | [`emit`] | what the program publishes from a shell, without being an instance |
//!
//! Invariants, written as absences:
//! - nothing but `http`, `websocket`'s handshake and `app`, which puts them together, knows actix-http or actix-web;
//! - nothing but `redis_bridge::redis_bus`, `redis_bridge::sharded` (both with `redis_bridge::hello`), `auth::store::redis` and
//!   `redis_endpoint` knows the Redis client;
//! - nothing but `adapter` makes channel names or reads rooms from them (`redis_bridge` shortens them for its log), and nothing but
//!   `adapter` and `socket_io` uses `msgpack`;
//! - nothing but `hub` knows who is in which room, and sockets never address each other;
//! - gateways see events and rooms, never frames;
//! - nothing blocks an arbiter, and every queue has a bound with a name, but for the actors' mailboxes and inboxes: those
//!   have a turn whenever the others have had theirs, and who fills them awaits an answer, needs a permit or is read from no more.
//!
//! Protocols: [Engine.IO 4](https://socket.io/docs/v4/engine-io-protocol/),
//! [Socket.IO 5](https://socket.io/docs/v4/socket-io-protocol/), [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455). `wire.md`, cited
//! by section, is `docs/wire.md`: what Node's packages really send and do, byte for byte.

pub mod adapter;
pub mod app;
pub mod auth;
mod bucket;
mod changes;
pub mod config;
pub mod counters;
mod detached;
pub mod emit;
pub mod engine_io;
pub mod gateways;
pub mod healthcheck;
pub mod http;
pub mod hub;
pub mod msgpack;
pub mod open_files;
pub mod peers;
mod per_address;
pub mod redis_bridge;
pub mod redis_endpoint;
pub mod relay;
mod shrink;
pub mod slots;
pub mod socket;
pub mod socket_io;
pub mod telemetry;
pub mod websocket;

/// The web server below, for [`App::routes`](app::App::routes).
pub use actix_web;

// A real Redis for the tests of several rooms, the same that the integration tests use.
#[cfg(test)]
#[path = "../test/integration/support/redis_server.rs"]
mod redis_server;

/// The guide's Rust must compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/from-node.md")]
struct FromNode;
