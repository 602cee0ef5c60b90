//! The Socket actor's door: what the HTTP layer, the hub and gateways tell it.
//!
//! Answers travel by oneshot channels: a receiver that was dropped tells the actor that the client is gone, and a sender
//! that was dropped tells the request that the session is.

use std::{collections::HashSet, sync::Arc};

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    acks::Acked,
    backlogs::{Held, HeldBody},
    departure::Departure,
    record::{JoinId, Record},
};
use crate::{
    engine_io::{dialect::Dialect, encoded::Encoded, sid::InstanceId},
    hub::{hub_ref::HubRef, question::Answers, recovery::EmitToOne, replay::Logged},
    relay,
    socket_io::{
        args::Args,
        decoder::AckId,
        ids::{Namespace, Room, SocketId},
    },
    websocket::connection::Handover,
};

/// A polling GET. From the HTTP layer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Poll {
    /// Where the answer goes. Dropping its receiver aborts the poll, which ends the session.
    pub reply: oneshot::Sender<PollAnswer>,
}

/// What a GET is answered.
#[derive(Debug)]
pub enum PollAnswer {
    /// 200 with this payload.
    Payload(HeldBody),
    /// 400 with nothing: another GET was pending.
    Refused,
}

/// A polling POST, sent when its head has arrived. From the HTTP layer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Post {
    /// Where its body will come from. Dropping the sender aborts the POST, which ends the session.
    pub body: oneshot::Receiver<Body>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<PostAnswer>,
}

/// The body of a POST. What it holds is counted, since its session may not look at it for long.
#[derive(Debug)]
pub enum Body {
    /// All of it, text.
    Whole(Bytes, Held),
    /// All of it, of a binary content type: for revision 3 only.
    WholeBinary(Bytes, Held),
    /// Over the limit. The HTTP layer has answered 413; the session survives.
    TooLarge,
    /// Of a binary content type, which revision 4 does not know.
    Binary,
}

/// What a POST is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum PostAnswer {
    /// 200 `ok`: its packets were dispatched.
    Ok,
    /// 400 with nothing.
    Refused,
}

/// A WebSocket that asks to become the transport of this session. From the HTTP layer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Upgrade {
    /// The stream, detached from the worker that accepted it.
    pub handover: Handover,
    /// How it speaks: in the session's revision.
    pub dialect: Dialect,
    /// The bytes of the 101, not written yet.
    pub answer: Bytes,
}

/// What is meant for one membership of a client. It comes by way of the socket's [`inbox`](super::inbox), so that what one
/// sender tells a socket keeps its order. Dropped if that membership has ended.
#[derive(Debug)]
pub struct ForSocket {
    /// Which membership.
    pub join: JoinId,
    /// What for.
    pub what: What,
}

impl ForSocket {
    /// The socket has ended, so the message goes where it can still be of use, if anywhere.
    pub(super) fn give_back(self) {
        if let What::Emit(emit) = self.what {
            let Emit { record, args, hub } = *emit;
            if let Some(hub) = hub {
                hub.do_send(EmitToOne { record, args });
            }
        }
    }

    /// Returns what is meant for a whole session, and not for one membership.
    pub fn for_session(what: What) -> Self {
        let join = JoinId(u32::MAX);
        Self { join, what }
    }
}

/// See [`ForSocket`].
#[derive(Debug)]
pub enum What {
    /// A message to write. From the hub and from gateways.
    Deliver {
        /// The message, shared by all receivers.
        message: Arc<Encoded>,
        /// Whether a client that cannot take it at once goes without it.
        volatile: bool,
    },
    /// A message that can be sent again to a client that has missed it. From the hub.
    DeliverLogged(Arc<Logged>),
    /// An event for this client alone that can be sent again. From gateways, if their clients may recover.
    Emit(Box<Emit>),
    /// An event that the client is to acknowledge. From gateways.
    EmitWithAck(Box<EmitWithAck>),
    /// An event for many clients, each of which is to acknowledge it. From the hub.
    DeliverWithAck(Arc<DeliverWithAck>),
    /// Nothing; says that what was sent before it is there. From the socket itself.
    Mark,
    /// For the session: see [`Departed`].
    Departed(Box<Departed>),
    /// For the session: packs it up. From the socket itself, behind what its own handlers have sent by then.
    PackUp(Vec<LeftSocket>),
    /// For the session: what the instance from which it has come says, or that no more of it is heard. From the socket itself, behind what
    /// came by way of the hub before.
    FromFormer(Option<Box<relay::Answer>>),
    /// For the session, which is over: its actor stops, behind all that was sent to it before. From the socket itself.
    LastCall,
    /// The end of the membership. From gateways and from the hub.
    Disconnect {
        /// Whether all of the client's memberships end, and its connection with them.
        whole_connection: bool,
    },
}

/// An event for one client that can be sent again.
#[derive(Debug)]
pub struct Emit {
    /// The client's record: if its membership has ended, the hub knows whether it may come back.
    pub record: Arc<Record>,
    /// Name and arguments of the event.
    pub args: Args,
    /// Who takes it if the socket has ended before it comes.
    pub hub: Option<HubRef>,
}

/// An event that the client is to acknowledge.
#[derive(Debug)]
pub struct EmitWithAck {
    /// Name and arguments of the event.
    pub args: Args,
    /// Where the ack goes. Its sender is dropped if none can come any more.
    pub reply: oneshot::Sender<Acked>,
}

/// An event for many clients, each of which is to acknowledge it. All receivers share it.
#[derive(Debug)]
pub struct DeliverWithAck {
    /// The ack id, which is in the message.
    pub id: AckId,
    /// The message.
    pub message: Arc<Encoded>,
    /// Whether a client that cannot take it at once goes without it.
    pub volatile: bool,
    /// Where acks go. Dropped if none can come any more.
    pub answers: Answers,
}

/// A WebSocket at another instance asks to become the transport of this session, which then moves there. From the relay.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ProbeElsewhere {
    /// Which instance.
    pub to: InstanceId,
    /// What the session is called there.
    pub number: u64,
    /// Told when nobody there wants it, or has it, any more; ends untold when nobody knows of it any more.
    pub gone: oneshot::Receiver<Gone>,
    /// Told when the WebSocket may probe; `None`, if another is before it, or the session has one already.
    pub reply: oneshot::Sender<Option<Arc<Departure>>>,
}

/// Why nobody at another instance wants a session, or has it, any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It did not come to life there, and will not.
    GivenUp,
    /// It has lived and ended there.
    Ended,
    /// Nobody knows.
    Lost,
}

/// A socket that the hub has let go.
#[derive(Debug)]
pub struct LeftSocket {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id there.
    pub id: SocketId,
    /// The rooms that it was in beside its own.
    pub rooms: HashSet<Room>,
}

/// The hub has let this session's sockets go; or has not, because of namespaces that nobody listens to where it goes. From the hub,
/// behind all that it had for them.
pub type Departed = Result<Vec<LeftSocket>, Vec<Namespace>>;

/// What the instance to which this session moves, or has moved, says. From the relay.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum FromNext {
    /// The WebSocket has probed.
    Probed,
    /// The session has come.
    Taken,
    /// It is not given up there any more.
    Stays,
    /// The client has acknowledged an event that it was sent from here; or, without arguments, can no more.
    Acked {
        /// Which of the session's namespaces.
        at: u32,
        /// Which event.
        id: AckId,
        /// The arguments, packed.
        args: Option<Bytes>,
    },
    /// The session has ended.
    Ended,
}

/// Ends the session because what was written for its client got lost on the way. From the relay.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Abandon;

/// Ends the session because the instance is stopping. From the application.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;
