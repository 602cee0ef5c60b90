//! The bridge's door: every message that it takes, who sends it, and what comes back.

use std::sync::Arc;

use actix::Message;

use crate::hub::broadcast::Broadcast;

/// Publishes a broadcast to the other instances. From the Hub, by `do_send`; nothing comes back.
///
/// Taken at once: it waits in the bridge's own queue, which is bounded in bytes and age and drops its oldest.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Arc<Broadcast>);

/// Ends the bridge. From whoever stops the instance; comes back when what waited has been published, or after
/// [`super::FLUSH_TIMEOUT`]. What is handed over later is dropped.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;
