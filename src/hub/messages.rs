//! The hub's door: every message that it takes, who sends it, and what comes back.

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    ahead::Permit,
    arrivals::ArrivalId,
    broadcast::Broadcast,
    command::Command,
    interest::Registering,
    question::{Answers, Question},
    rooms::TooManyRooms,
    work::TooMuchWork,
};
use crate::{
    adapter::uid::Uid,
    engine_io::sid::InstanceId,
    redis_bridge::{Loss, messages::ForBridge},
    relay,
    socket::{departure::Departure, inbox::InboxRef, messages::ForSocket, record::Record},
    socket_io::ids::{Namespace, Room, SocketId},
};

/// Connects the hub to the bridge. From the start of the application, before the first client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ConnectBridge(pub Recipient<ForBridge>);

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
    /// Of a session that is about to move to another instance: then the socket may be a member there only.
    pub departure: Option<Arc<Departure>>,
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
    /// Given back when every receiver of this instance has it. None of what one socket may send and no more.
    pub permit: Option<Permit>,
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
}

/// Comes back when everything before it was done. From the application, when it stops; and from the RedisBridge, which reads on only
/// then if it has handed over enough.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Obeys a command that originates at this instance, and hands it to the others unless it is local. From gateways, who
/// await the answer: what they do next may count on it. Refused if it would keep the hub busy for too long; then nobody is told.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TooMuchWork>")]
pub struct Originate {
    /// What to do.
    pub command: Command,
    /// Whether it is for this instance alone.
    pub is_local: bool,
    /// Of a broadcast: as in [`Emit`].
    pub permit: Option<Permit>,
}

/// Obeys a command that came from another instance (or an emitter). From the RedisBridge; never published again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reinject {
    /// What to do.
    pub command: Command,
    /// What the sender calls itself on the bus. May be left out while no session moves here.
    pub from: Option<String>,
}

/// Asks this instance and, unless it is local, all others. From gateways; comes back when the local answers are given, save
/// for those of clients. Refused if it would keep the hub busy for too long; then nobody is asked.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TooMuchWork>")]
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
    /// Of an event that it asks to send: given back when every receiver of this instance has it, which no ack is waited for.
    pub permit: Option<Permit>,
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
    /// What the asking instance calls itself on the bus.
    pub from: Option<String>,
}

// ---- sessions that move; see `crate::relay` ----

/// Lets a session's sockets go to another instance, in line with what others sent: by the relay, in the place of the marker ADOPT. Its
/// Socket actor is told [`Departed`](crate::socket::messages::Departed), and the other instance `end`, in line with what this one publishes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Depart {
    /// Which sockets.
    pub departure: Arc<Departure>,
    /// Namespaces that the other instance listens to. If one is missing nothing happens, but that the actor is told so.
    pub namespaces: HashSet<Namespace>,
    /// Where they go.
    pub to: InstanceId,
    /// The marker END.
    pub end: Bytes,
    /// The session's actor.
    pub socket: InboxRef,
}

/// Nobody acts upon these sockets, which have left for another instance, by way of this one any more. From their Socket actor, at its
/// end; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Forget(pub Vec<(Namespace, SocketId)>);

/// Sends bytes to another instance, behind what this one has published. From the Socket actor of a session that has moved there.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PassOn {
    /// Whom to.
    pub to: InstanceId,
    /// What.
    pub payload: Bytes,
    /// What is done if it is dropped on its way.
    pub loss: Loss,
}

/// Hands on what the former instance of a session says, behind what it has published. From the relay.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Hand {
    /// Whom to. If it takes no more, it is told so by the end.
    pub to: relay::Listener,
    /// What.
    pub answer: relay::Answer,
}

/// Expects a session of another instance: what goes to sockets is noted for it from now on, and the marker ADOPT is published in this
/// very place. From whoever brings it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Expect {
    /// Which session.
    pub id: ArrivalId,
    /// What the other instance calls itself on the bus.
    pub former: Uid,
    /// The marker ADOPT.
    pub marker: Bytes,
    /// Lets the bridge read everything meanwhile.
    pub registering: Registering,
}

/// The marker ADOPT has come back. From the relay, in its place among what others sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Mark(pub ArrivalId);

/// The marker END has come. From the relay, in its place among what others sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Finish(pub ArrivalId);

/// Makes members of the sockets of a session that has come, once END has come, too; what passed meanwhile is delivered to them first.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Bring {
    /// Which session.
    pub id: ArrivalId,
    /// Its sockets, and their rooms without those that their ids name.
    pub members: Vec<(Arc<Record>, InboxRef, HashSet<Room>)>,
    /// Told when they are members. Dropped if the session was given up.
    pub installed: oneshot::Sender<()>,
}

/// Expects a session no longer. From whoever wanted to bring it; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GiveUp(pub ArrivalId);
