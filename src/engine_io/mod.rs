//! Engine.IO v4: packets, payloads, handshake rules. All pure: bytes in, value or error out.
//!
//! Knows no HTTP server, no actor and no clock. The transports live in [`crate::socket`], the WebSocket framing in
//! [`crate::websocket`].
//!
//! Source: Engine.IO protocol, revision 4.

pub mod encoded;
pub mod handshake;
pub mod open;
pub mod packet;
pub mod payload;
pub mod sid;
