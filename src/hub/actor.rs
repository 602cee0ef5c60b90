//! The Hub actor: translates messages into calls of [`Rooms`], and forwards what originates here to the bridge.
//!
//! Does not know Redis: `bridge` is a recipient that may be absent. Runs on an arbiter of its own, so that no client's
//! work delays a broadcast.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Recipient};

use super::{
    broadcast::Broadcast,
    messages::{Deliver, Join, JoinId, Leave, Originate, Register, Reinject, Unregister},
    rooms::{Rooms, TooManyRooms},
};
use crate::{
    redis_bridge::messages::Publish,
    socket_io::{encode, parser::Parser},
};

/// Messages that may wait before a sender that awaits its answer is held back.
const MAILBOX_CAPACITY: usize = 1024;

/// What reaches a socket.
#[derive(Debug)]
struct Handle {
    join: JoinId,
    recipient: Recipient<Deliver>,
}

/// One per instance.
#[derive(Debug, Default)]
pub struct Hub {
    rooms: Rooms<Handle>,
    bridge: Option<Recipient<Publish>>,
    parser: Parser,
}

impl Hub {
    /// Returns a hub whose clients all speak one form of packets.
    pub fn new(parser: Parser) -> Self {
        Self {
            parser,
            ..Self::default()
        }
    }

    /// Encodes once and hands the same bytes to every selected socket.
    fn deliver(&self, broadcast: &Broadcast) {
        let mut message = None;
        self.rooms
            .select(&broadcast.namespace, &broadcast.target, |handle| {
                let message = message.get_or_insert_with(|| {
                    encode::event(self.parser, &broadcast.namespace, None, &broadcast.args)
                        .inspect_err(|err| log::error!("a broadcast cannot be encoded: {err}"))
                });
                let Ok(message) = message else { return };
                handle.recipient.do_send(Deliver {
                    join: handle.join,
                    message: Arc::clone(message),
                    volatile: broadcast.flags.volatile,
                });
            });
    }
}

impl Actor for Hub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
    }
}

/// Connects the hub to the bridge. From the start of the application, before the first client.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub struct ConnectBridge(pub Recipient<Publish>);

impl Handler<ConnectBridge> for Hub {
    type Result = ();

    fn handle(&mut self, ConnectBridge(bridge): ConnectBridge, _: &mut Self::Context) {
        self.bridge = Some(bridge);
    }
}

impl Handler<Register> for Hub {
    type Result = ();

    fn handle(&mut self, message: Register, _: &mut Self::Context) {
        let Register {
            namespace,
            socket_id,
            join,
            recipient,
        } = message;
        self.rooms
            .insert(&namespace, socket_id, Handle { join, recipient });
    }
}

impl Handler<Unregister> for Hub {
    type Result = ();

    fn handle(&mut self, message: Unregister, _: &mut Self::Context) {
        self.rooms.remove(&message.namespace, &message.socket_id);
    }
}

impl Handler<Join> for Hub {
    type Result = Result<(), TooManyRooms>;

    fn handle(&mut self, message: Join, _: &mut Self::Context) -> Self::Result {
        self.rooms
            .join(&message.namespace, &message.socket_id, message.room)
    }
}

impl Handler<Leave> for Hub {
    type Result = ();

    fn handle(&mut self, message: Leave, _: &mut Self::Context) {
        self.rooms
            .leave(&message.namespace, &message.socket_id, &message.room);
    }
}

impl Handler<Originate> for Hub {
    type Result = ();

    /// Local sockets first: not one local event waits for Redis.
    fn handle(&mut self, Originate(broadcast): Originate, _: &mut Self::Context) {
        self.deliver(&broadcast);
        if let Some(bridge) = self.bridge.as_ref().filter(|_| !broadcast.flags.local) {
            bridge.do_send(Publish(Arc::new(broadcast)));
        }
    }
}

impl Handler<Reinject> for Hub {
    type Result = ();

    fn handle(&mut self, Reinject(broadcast): Reinject, _: &mut Self::Context) {
        self.deliver(&broadcast);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::broadcast::{Flags, Target},
        socket_io::{
            args::Args,
            ids::{Room, SocketId},
        },
    };
    use tokio::sync::mpsc;

    /// Stands in the place of a socket and of the bridge, and passes on what it gets.
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

    fn probe<M>() -> (Recipient<M>, mpsc::UnboundedReceiver<M>)
    where
        M: actix::Message<Result = ()> + Send + Unpin + 'static,
    {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Probe(sender).start().recipient(), receiver)
    }

    fn register(id: &str, recipient: &Recipient<Deliver>) -> Register {
        Register {
            namespace: "/events".into(),
            socket_id: SocketId::from(id),
            join: JoinId(1),
            recipient: recipient.clone(),
        }
    }

    fn broadcast(target: Target, flags: Flags) -> Broadcast {
        Broadcast {
            namespace: "/events".into(),
            target,
            flags,
            args: Args::from_parts(r#"["x"]"#.into(), Vec::new()),
        }
    }

    #[actix::test]
    async fn a_broadcast_is_encoded_once_and_published_once() {
        let hub = Hub::default().start();
        let (first, mut first_got) = probe();
        let (second, mut second_got) = probe();
        let (bridge, mut published) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        hub.send(register("a", &first)).await.unwrap();
        hub.send(register("b", &second)).await.unwrap();
        let event = broadcast(Target::default(), Flags::default());
        hub.send(Originate(event.clone())).await.unwrap();
        let one = first_got.recv().await.unwrap();
        let other = second_got.recv().await.unwrap();
        assert!(
            Arc::ptr_eq(&one.message, &other.message),
            "receivers must share the bytes"
        );
        assert_eq!(*published.recv().await.unwrap().0, event);
    }

    #[actix::test]
    async fn what_came_from_the_bridge_and_what_is_local_is_not_published() {
        let hub = Hub::default().start();
        let (socket, mut got) = probe();
        let (bridge, mut published) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        hub.send(register("a", &socket)).await.unwrap();
        let local = Flags {
            local: true,
            ..Flags::default()
        };
        hub.send(Originate(broadcast(Target::default(), local)))
            .await
            .unwrap();
        hub.send(Reinject(broadcast(Target::default(), Flags::default())))
            .await
            .unwrap();
        got.recv().await.unwrap();
        got.recv().await.unwrap();
        // The marker is the first to be published, so nothing was before it.
        let marker = broadcast(
            Target {
                rooms: vec![Room::from("marker")],
                except: vec![],
            },
            Flags::default(),
        );
        hub.send(Originate(marker.clone())).await.unwrap();
        assert_eq!(*published.recv().await.unwrap().0, marker);
    }

    #[actix::test]
    async fn rooms_are_joined_and_left_by_message() {
        let hub = Hub::default().start();
        let (socket, mut got) = probe();
        hub.send(register("a", &socket)).await.unwrap();
        let to_red = || {
            broadcast(
                Target {
                    rooms: vec![Room::from("red")],
                    except: vec![],
                },
                Flags::default(),
            )
        };
        let membership = ("/events", "a", "red");
        let (namespace, socket_id, room) = (
            membership.0.into(),
            SocketId::from(membership.1),
            Room::from(membership.2),
        );
        hub.send(Join {
            namespace,
            socket_id,
            room,
        })
        .await
        .unwrap()
        .unwrap();
        hub.send(Originate(to_red())).await.unwrap();
        got.recv().await.unwrap();
        let (namespace, socket_id, room) = (
            membership.0.into(),
            SocketId::from(membership.1),
            Room::from(membership.2),
        );
        hub.send(Leave {
            namespace,
            socket_id,
            room,
        })
        .await
        .unwrap();
        hub.send(Originate(to_red())).await.unwrap();
        let volatile = Flags {
            volatile: true,
            ..Flags::default()
        };
        hub.send(Originate(broadcast(Target::default(), volatile)))
            .await
            .unwrap();
        assert!(
            got.recv().await.unwrap().volatile,
            "nothing must come between"
        );
        hub.send(Unregister {
            namespace: "/events".into(),
            socket_id: SocketId::from("a"),
        })
        .await
        .unwrap();
        let (other, mut other_got) = probe();
        hub.send(register("b", &other)).await.unwrap();
        hub.send(Originate(broadcast(Target::default(), Flags::default())))
            .await
            .unwrap();
        other_got.recv().await.unwrap();
        assert!(got.try_recv().is_err(), "who left gets nothing more");
    }
}
