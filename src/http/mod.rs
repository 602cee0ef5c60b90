//! HTTP: the only folder, beside the raw stream of [`crate::websocket`], that knows a web server.
//!
//! Reading order: `server` and `head_deadline` (how a connection becomes a request), `routes` (which request goes where), `origin` (which pages
//! may use the hub: pure policy), `cors` and `upgrade` (where it is applied, for HTTP and for WebSockets), `engine_io`
//! (polling), `auth` (accounts), `health`, `page` and `client_bundle` (files), `error` (how an error looks).

pub mod auth;
pub mod client_bundle;
pub mod cors;
pub mod engine_io;
pub mod error;
pub mod head_deadline;
pub mod health;
pub mod origin;
pub mod page;
pub mod routes;
pub mod server;
pub mod upgrade;
