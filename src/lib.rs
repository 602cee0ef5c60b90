//! Sockhop.
<<<<<<< HEAD
pub mod auth;
=======
pub mod adapter;
>>>>>>> bridge
pub mod config;
pub mod engine_io;
pub mod gateways;
pub mod http;
pub mod hub;
pub mod redis_bridge;
<<<<<<< HEAD
pub mod socket;
=======
>>>>>>> bridge
pub mod socket_io;
pub mod websocket;
