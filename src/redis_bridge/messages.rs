//! stub until merged
use actix::Message;
use std::sync::Arc;
use crate::hub::broadcast::Broadcast;
/// Publishes.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Arc<Broadcast>);
