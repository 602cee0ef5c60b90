//! Sockhop.
pub mod auth;
pub mod config;
pub mod http;
pub mod hub;
pub mod socket_io;
