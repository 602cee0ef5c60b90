//! Socket.IO.
pub mod args;
pub mod ids;
