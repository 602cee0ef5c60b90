//! What tests of the hub stand on: sockets and a bridge that note what they get, and messages.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Recipient};
use tokio::sync::mpsc;

use super::{
    broadcast::{Broadcast, Flags, Target},
    interest::Interest,
    messages::Register,
};
use crate::{
    engine_io::{encoded::Encoded, sid::InstanceId},
    socket::{
        depot::Probe as SocketProbe,
        handshake::Handshake,
        messages::{ForSocket, What},
        record::{JoinId, Record},
    },
    socket_io::{args::Args, ids::SocketId},
};

/// Stands in the place of the bridge, and passes on what it gets.
struct Probe<M>(mpsc::UnboundedSender<M>);

impl<M: Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: actix::Message<Result = ()> + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        self.0.send(message).unwrap();
    }
}

/// Returns a recipient and what it gets.
pub(crate) fn probe<M>() -> (Recipient<M>, mpsc::UnboundedReceiver<M>)
where
    M: actix::Message<Result = ()> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    (Probe(sender).start().recipient(), receiver)
}

/// Returns the registration of a socket of `/events`.
pub(crate) fn register(id: &str, socket: &SocketProbe) -> Register {
    let handshake = Handshake::new(
        String::new(),
        String::new(),
        std::iter::empty(),
        Default::default(),
    );
    let record = Record::new(
        SocketId::from(id),
        "/events".into(),
        JoinId(1),
        InstanceId::random().unwrap(),
        Arc::new(handshake),
        &serde_json::Value::Null,
    );
    Register {
        record: Arc::new(record),
        recipient: socket.address(),
        registering: Interest::in_everything().register(),
        departure: None,
    }
}

/// Returns what is delivered, and whether it is volatile.
pub(super) fn delivered(message: ForSocket) -> (Arc<Encoded>, bool) {
    match message.what {
        What::Deliver { message, volatile } => (message, volatile),
        other => panic!("no delivery: {other:?}"),
    }
}

/// Returns an event `x` in `/events`.
pub(super) fn broadcast(target: Target, flags: Flags) -> Broadcast {
    Broadcast {
        namespace: "/events".into(),
        target,
        flags,
        args: Args::from_parts(r#"["x"]"#.into(), Vec::new()),
    }
}
