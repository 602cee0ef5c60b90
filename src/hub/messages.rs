//! The hub's door: every message that it takes, who sends it, and what comes back.

use actix::Message;

use super::broadcast::Broadcast;

/// Delivers an event that another instance (or an emitter) published. From the RedisBridge; never published again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reinject(pub Broadcast);
