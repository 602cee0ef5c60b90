//! HTTP.
pub mod origin;
