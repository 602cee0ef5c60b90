//! The hub's door: every message that it takes, who sends it, and what comes back.

use std::{collections::HashSet, sync::Arc};

use actix::{Message, Recipient};

use super::{broadcast::Broadcast, rooms::TooManyRooms};
use crate::{
    socket::{messages::ForSocket, record::Record},
    socket_io::ids::{Namespace, Room, SocketId},
};

/// Adds a socket to its namespace. From the Socket actor, behind the CONNECT reply in its outbox and before that is
/// written, so whatever is delivered comes after the reply; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Register {
    /// Who it is.
    pub record: Arc<Record>,
    /// Where its deliveries go.
    pub recipient: Recipient<ForSocket>,
}

/// Removes a socket from its namespace and its rooms. From the Socket actor, once; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Unregister {
    /// Which namespace it left.
    pub namespace: Namespace,
    /// Its id there.
    pub socket_id: SocketId,
}

/// Puts a socket into a room. From gateways.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TooManyRooms>")]
pub struct Join {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id there.
    pub socket_id: SocketId,
    /// The room.
    pub room: Room,
}

/// Takes a socket out of a room. From gateways; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id there.
    pub socket_id: SocketId,
    /// The room.
    pub room: Room,
}

/// Asks for the rooms of a socket, its own included; none if it is gone. From gateways.
#[derive(Debug, Message)]
#[rtype(result = "HashSet<Room>")]
pub struct RoomsOf {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id there.
    pub socket_id: SocketId,
}

/// Delivers an event that originates at this instance, and publishes it unless it is local. From gateways, who await
/// the answer, so that a flood waits at its source and not in the mailbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Originate(pub Broadcast);

/// Delivers an event that another instance (or an emitter) published. From the RedisBridge; never published again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reinject(pub Broadcast);
