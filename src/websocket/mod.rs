//! WebSocket: the frames of RFC 6455, and the one place that reads and writes an open one.
//!
//! The rest of the crate sees whole messages and shared frames; it could sit on another WebSocket library without
//! noticing. `frame`, `decoder` and `close` are pure; `handshake` judges a request; `connection` reads and
//! writes the stream, which others hold and hand on; `many_writes` writes many at once.
//!
//! No extension is negotiated (Socket.IO's default): reserved bits are an error.

pub mod close;
pub mod connection;
pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod many_writes;
#[cfg(test)]
pub(crate) mod testing;
