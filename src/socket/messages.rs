//! The Socket actor's door, beside the hub's [`Deliver`](crate::hub::messages::Deliver).
//!
//! Answers travel by oneshot channels: a receiver that was dropped tells the actor that the client is gone, and a sender
//! that was dropped tells the request that the session is.

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    engine_io::{dialect::Dialect, encoded::PollingBody},
    hub::messages::JoinId,
    socket_io::args::Args,
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
#[derive(Debug, PartialEq, Eq)]
pub enum PollAnswer {
    /// 200 with this payload.
    Payload(PollingBody),
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

/// The body of a POST.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// All of it, text.
    Whole(Bytes),
    /// All of it, of a binary content type: for revision 3 only.
    WholeBinary(Bytes),
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

/// Sends the client an event that it is to acknowledge. From gateways.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EmitWithAck {
    /// For which membership.
    pub join: JoinId,
    /// Name and arguments of the event.
    pub args: Args,
    /// Where the arguments of the ack go. Its sender is dropped if none can come any more.
    pub reply: oneshot::Sender<Args>,
}

/// Ends a membership, or the whole connection. From gateways.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Disconnect {
    /// Which membership asked.
    pub join: JoinId,
    /// Whether all of the client's memberships end with it.
    pub whole_connection: bool,
}

/// Ends the session because the instance is stopping. From the application.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;
