//! HTTP.
pub mod auth;
pub mod error;
pub mod origin;
