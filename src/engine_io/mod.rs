//! Engine.IO, revisions 4 and 3: packets, payloads, handshake rules. All pure: bytes in, value or error out.
//!
//! Revision 3 is for old clients, where the settings let them in: `dialect` tells the two apart, `payload_v3` is its payload.
//!
//! Knows no HTTP server, no actor and no clock. The transports live in [`crate::socket`], the WebSocket framing in
//! [`crate::websocket`].
//!
//! Source: Engine.IO protocol, revisions 3 and 4.

pub mod dialect;
pub mod encoded;
pub mod handshake;
pub mod open;
pub mod packet;
pub mod pairs;
pub mod payload;
pub mod payload_v3;
pub mod sid;
