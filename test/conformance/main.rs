//! What depends on the clock, from outside: the official suites' cases and the heartbeat, with the suites' times of 300 and 200 ms.
//!
//! A binary of its own, so that no other test takes the processor while a pong is due.
//!
//! | room | what it checks |
//! | --- | --- |
//! | `suites` | every case of the protocols' official conformance suites |
//! | `heartbeat` | pings, pongs, and their absence |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

mod heartbeat;
mod suites;
#[path = "../integration/support/mod.rs"]
mod support;
