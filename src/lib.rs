//! Sockhop.
pub mod adapter;
pub mod config;
pub mod http;
pub mod hub;
pub mod redis_bridge;
pub mod socket_io;
