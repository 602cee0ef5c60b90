//! Sockhop.
pub mod auth;
pub mod config;
pub mod engine_io;
pub mod gateways;
pub mod http;
pub mod hub;
pub mod redis_bridge;
pub mod socket;
pub mod socket_io;
pub mod websocket;
