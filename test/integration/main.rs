//! From outside: a real instance on a real port, spoken to in raw bytes.
//!
//! | room | what it checks |
//! | --- | --- |
//! | `handshake` | the checks of every Engine.IO request, in their order |
//! | `polling` | GET, POST, and every way in which they go wrong |
//! | `websocket` | frames, and how a WebSocket ends |
//! | `upgrade` | from polling to WebSocket, with its races |
//! | `eio3` | clients of Engine.IO revision 3, and base64 in the place of binary |
//! | `hostile` | what strangers send to do harm: answers, and memory that stays bounded |
//! | `namespaces` | who may join what, and what ends a connection |
//! | `events` | events, acks, binary, order, slow and broken handlers |
//! | `handlers` | what a client meets when handlers are slow, busy, or done with it |
//! | `chat` | the example of that name |
//! | `origins` | which pages may use the hub, over HTTP and WebSocket |
//! | `accounts` | registering and logging in over HTTP, under load too |
//! | `pages` | the test page, the client bundle, health, and addresses where nothing is |
//! | `program` | the binary: settings, faults at start, SIGTERM, `kill -9` |
//! | `cluster` | two instances on one Redis that may fail |
//! | `tidy` | the house rules that a machine can check |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

mod accounts;
mod chat;
mod cluster;
mod eio3;
mod events;
mod handlers;
mod handshake;
mod hostile;
mod namespaces;
mod origins;
mod pages;
mod polling;
mod program;
mod support;
mod tidy;
mod upgrade;
mod websocket;
