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
//! | `limits` | what each limit does to whoever meets it, and how it is told |
//! | `total_backlog` | what waits for all clients together, in both directions |
//! | `bounded` | memory, whatever many clients do at once, and that nothing of them stays |
//! | `soak` | clients that come and go in every way, for as long as one likes |
//! | `namespaces` | who may join what, and what ends a connection |
//! | `events` | events, acks, binary, order, slow and broken handlers |
//! | `gateways` | what the library offers an application: state, data, rooms, selections, failures |
//! | `handlers` | what a client meets when handlers are slow, busy, or done with it |
//! | `chat` | the example of that name |
//! | `msgpack` | packets in MessagePack: both transports, both directions, breaches |
//! | `origins` | which pages may use the hub, over HTTP and WebSocket |
//! | `accounts` | registering and logging in over HTTP, under load too |
//! | `pages` | the test page, pages and routes of an application, the client bundle, health |
//! | `program` | the binary: settings, faults at start, SIGTERM, `kill -9` |
//! | `cluster` | two instances on one Redis that may fail |
//! | `redis_fails` | everything that Redis can do to two instances under a steady stream of events |
//! | `redis_ways` | TLS, Unix sockets, ACL users |
//! | `recovery` | clients that come back to what they had |
//! | `relay` | polling without sticky sessions |
//! | `moves` | sessions that move to another instance |
//! | `departures` | the moment in which they leave, and what is known of them where they were |
//! | `server_api` | what a gateway may do to sockets of all instances, and ask them |
//! | `sharded` | the sharded adapter: on one Redis in all modes, and on a Redis Cluster that moves slots and loses a master |
//! | `tidy` | the house rules that a machine can check |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

mod accounts;
mod bounded;
mod chat;
mod cluster;
mod departures;
mod eio3;
mod events;
mod gateways;
mod handlers;
mod handshake;
mod hostile;
mod limits;
mod moves;
mod msgpack;
mod namespaces;
#[path = "../support/ops_gateway.rs"]
mod ops_gateway;
mod origins;
mod pages;
mod polling;
mod program;
mod recovery;
#[path = "../support/recovery_gateway.rs"]
mod recovery_gateway;
mod redis_fails;
mod redis_ways;
mod relay;
mod server_api;
mod sharded;
mod soak;
mod support;
mod tidy;
mod total_backlog;
mod upgrade;
mod websocket;
