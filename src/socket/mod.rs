//! sockets
pub mod outbox;
