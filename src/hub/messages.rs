//! The hub's door: every message that it takes, who sends it, and what comes back.

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::Message;

use super::{
    ahead::{Begun, Permit},
    broadcast::Broadcast,
    command::Command,
    interest::Registering,
    question::{Answers, Question},
    rooms::TooManyRooms,
};
use crate::{
    socket::{inbox::InboxRef, messages::ForSocket, record::Record},
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
    pub recipient: InboxRef,
    /// Says that it is on its way; dropped when it has arrived.
    pub registering: Registering,
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

/// Broadcasts what originates at this instance, and hands it to the others unless it is local. From [`HubRef::emit`]; nothing
/// comes back, and the permit is why a flood waits at its source and not in the mailbox.
///
/// [`HubRef::emit`]: super::hub_ref::HubRef::emit
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Emit {
    /// What goes to whom.
    pub broadcast: Broadcast,
    /// Whether it is for this instance alone.
    pub is_local: bool,
    /// Given back when every receiver of this instance has it in its inbox.
    pub permit: Permit,
    /// Dropped when it was passed on.
    pub begun: Begun,
}

/// Passes on what must not overtake an earlier [`Emit`] of the same sender. From [`HubRef::tell`] and from sockets; nothing
/// comes back.
///
/// [`HubRef::tell`]: super::hub_ref::HubRef::tell
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Forward {
    /// Which socket it is for.
    pub socket: InboxRef,
    /// What it is told.
    pub message: ForSocket,
    /// Dropped when it was passed on.
    pub begun: Begun,
}

/// Comes back when everything before it was done. From the application, when it stops.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Obeys a command that originates at this instance, and hands it to the others unless it is local. From gateways, who
/// await the answer: what they do next may count on it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Originate {
    /// What to do.
    pub command: Command,
    /// Whether it is for this instance alone.
    pub is_local: bool,
}

/// Obeys a command that came from another instance (or an emitter). From the RedisBridge; never published again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reinject(pub Command);

/// Asks this instance and, unless it is local, all others. From gateways; comes back when the local answers are given, save
/// for those of clients.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ask {
    /// About which namespace.
    pub namespace: Namespace,
    /// What.
    pub question: Question,
    /// How long others have.
    pub timeout: Duration,
    /// Whether nobody else is asked.
    pub is_local: bool,
    /// Where answers go.
    pub answers: Answers,
}

/// Asks this instance alone, for another. From the RedisBridge; comes back when the answers are given, save for those of
/// clients and of server-side handlers.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Answering {
    /// About which namespace.
    pub namespace: Namespace,
    /// What.
    pub question: Question,
    /// Where answers go.
    pub answers: Answers,
}
