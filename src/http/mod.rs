//! HTTP: the only folder that knows a web server, but for the handshake of [`crate::websocket`].
//!
//! Reading order: `server`, `connection` with `head_end`, `body_end` and `body_deadline` (how a connection becomes requests, and how long
//! they may take), `proxies` (whose it is), `routes` (which request goes where), `origin` (which pages
//! may use the hub: pure policy), `cors` and `upgrade` (where it is applied, for HTTP and for WebSockets), `whose` (for whose
//! session), `engine_io` (polling), `held_body` (its answers, and files, in portions), `auth` (accounts), `health`, `page` and `client_bundle` (files),
//! `error` (how an error looks).

pub mod auth;
pub mod body_deadline;
pub mod body_end;
pub mod client_bundle;
pub mod connection;
pub mod cors;
pub mod engine_io;
pub mod error;
pub mod head_end;
pub mod health;
mod held_body;
mod held_head;
pub mod origin;
pub mod page;
pub mod proxies;
pub mod routes;
pub mod server;
pub mod upgrade;
mod whose;
