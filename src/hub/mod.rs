//! One per instance.
pub mod broadcast;
pub mod messages;
