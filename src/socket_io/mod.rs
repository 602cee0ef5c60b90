//! Socket.IO v5: packets, arguments, ids; `legacy` has what clients 2.x want otherwise. All pure: text and bytes in, value or
//! error out.
//!
//! Knows neither transport nor actor. Source: Socket.IO protocol, revision 5.

pub mod args;
pub mod decoder;
pub mod encode;
pub mod ids;
pub mod json;
pub mod legacy;
