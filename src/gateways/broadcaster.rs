//! Sending to many: the words of the Socket.IO server API in Rust's manner.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use sockhop::gateways::{SocketRef, HandlerError};
//! # async fn example(socket: SocketRef) -> Result<(), HandlerError> {
//! let namespace = socket.namespace_ref();
//! namespace.emit("news", &"for all").await?;                           // io.of("/…").emit(…)
//! socket.to("blue").except("red").emit("news", &"for some").await?;    // socket.to("blue").except("red").emit(…)
//! socket.broadcast().volatile().emit("cursor", (3, 4)).await?;         // socket.volatile.broadcast.emit(…)
//!
//! namespace.to("blue").sockets_join(["red"]).await?;                   // io.of("/…").in("blue").socketsJoin("red")
//! namespace.to("blue").disconnect_sockets(false).await?;               // io.of("/…").in("blue").disconnectSockets()
//! for other in namespace.to("blue").fetch_sockets().await? {           // await io.of("/…").in("blue").fetchSockets()
//!     other.emit("hello", ()).await?;
//! }
//! let names: Vec<String> = namespace                                   // await io.of("/…").timeout(1000)
//!     .all()
//!     .emit_with_ack("name?", (), Duration::from_secs(1))              //     .emitWithAck("name?")
//!     .await?;
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    calls::{self, AskError, Asked},
    mail::{self, Sent},
    remote_socket::RemoteSocket,
    reply::{HandlerError, IntoArgs},
    socket_ref::Gone,
};
use crate::{
    hub::{
        ahead::Permit,
        broadcast::{Broadcast, Flags, Target},
        command::Command,
        hub_ref::HubRef,
        messages::{Ask, Originate},
        question::Question,
        work::{self, TooMuchWork},
    },
    socket::acks::Acked,
    socket_io::{
        args::Args,
        ids::{Namespace, Room, SocketId},
        reserved::RESERVED_SERVER_EVENTS,
    },
};

/// How long other instances have to answer, unless it is said otherwise; as in Node (`requestsTimeout`).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A namespace, to send to all of its sockets or to some. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct NamespaceRef {
    pub(crate) namespace: Namespace,
    pub(crate) hub: HubRef,
}

impl NamespaceRef {
    /// Returns the namespace.
    pub fn name(&self) -> &Namespace {
        &self.namespace
    }

    /// Selects everyone.
    pub fn all(&self) -> Broadcaster {
        Broadcaster {
            hub: self.hub.clone(),
            namespace: self.namespace.clone(),
            target: Target::default(),
            flags: Flags::default(),
            is_local: false,
        }
    }

    /// Selects a room; more can be added.
    pub fn to(&self, room: impl Into<Room>) -> Broadcaster {
        self.all().to(room)
    }

    /// Selects everyone who is not in a room.
    pub fn except(&self, room: impl Into<Room>) -> Broadcaster {
        self.all().except(room)
    }

    /// Selects everyone on this instance.
    pub fn local(&self) -> Broadcaster {
        self.all().local()
    }

    /// Sends an event to everyone, on all instances.
    ///
    /// # Errors
    /// A value does not serialise to JSON, or the instance is stopping.
    pub async fn emit(&self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.all().emit(name, args).await
    }

    /// Returns every socket of the namespace; see [`Broadcaster::fetch_sockets`].
    ///
    /// # Errors
    /// See there.
    pub async fn fetch_sockets(&self) -> Result<Vec<RemoteSocket>, AskError<Vec<RemoteSocket>>> {
        self.all().fetch_sockets().await
    }

    /// Returns all rooms that have members, on all instances, each once. The room that a socket's id names is among them.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn all_rooms(&self) -> Result<Vec<Room>, AskError<Vec<Room>>> {
        calls::all_rooms(self.all().ask(Question::Rooms, ANSWER_TIMEOUT).await?).await
    }

    /// Sends an event to the other servers of the cluster: their gateways' [`on_server`](super::Gateway::on_server) handlers
    /// run, and Node's listeners of `io.on(…)`. Neither clients nor this instance get it. Arguments are JSON: bytes cannot
    /// travel here. It is no error if there are no other servers, or if none can be reached.
    ///
    /// # Errors
    /// A value does not serialise to JSON or holds bytes, the name is one that Node keeps for itself, or the instance is
    /// stopping.
    pub async fn server_side_emit(
        &self,
        name: &str,
        args: impl IntoArgs,
    ) -> Result<(), HandlerError> {
        let args = server_args(name, args)?;
        let namespace = self.namespace.clone();
        let command = Command::ServerEvent { namespace, args };
        let is_local = false;
        let originate = Originate {
            command,
            is_local,
            permit: None,
        };
        // No socket is looked at, so it cannot be too much.
        _ = self.hub.send(originate).await.or(Err(Gone))?;
        Ok(())
    }

    /// Sends an event to the other servers of the cluster and returns what each one's handler replied, in any order. A server
    /// without a handler for it never answers.
    ///
    /// # Errors
    /// As [`Self::server_side_emit`], and see [`AskError`].
    pub async fn server_side_emit_with_ack<T: DeserializeOwned>(
        &self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
    ) -> Result<Vec<T>, AskError<Vec<T>>> {
        let args = server_args(name, args).map_err(AskError::Refused)?;
        let question = Question::ServerEvent { args };
        calls::server_replies(self.all().ask(question, timeout).await?).await
    }
}

fn server_args(name: &str, args: impl IntoArgs) -> Result<Args, HandlerError> {
    let args = args.into_args(Some(name))?;
    if RESERVED_SERVER_EVENTS.contains(&name) {
        let text = format!("servers keep the event {name:?} for themselves");
        return Err(HandlerError::new("reserved_event", text));
    }
    if !args.attachments().is_empty() {
        let text = "events between servers carry no bytes";
        return Err(HandlerError::new("no_binary", text));
    }
    Ok(args)
}

/// A selection of sockets on all instances, and how to send to them. Cheap to clone.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before emit"]
pub struct Broadcaster {
    hub: HubRef,
    namespace: Namespace,
    target: Target,
    flags: Flags,
    is_local: bool,
}

impl Broadcaster {
    /// Adds a room to the selection: whoever is in any of the rooms gets the event once. Without rooms, everyone does. A socket
    /// id is the room of its socket.
    pub fn to(mut self, room: impl Into<Room>) -> Self {
        self.target.rooms.push(room.into());
        self
    }

    /// Leaves out whoever is in a room.
    pub fn except(mut self, room: impl Into<Room>) -> Self {
        self.target.except.push(room.into());
        self
    }

    /// Selects sockets of this instance alone: nobody else is told or asked.
    pub fn local(mut self) -> Self {
        self.is_local = true;
        self
    }

    /// Lets a client that cannot take the event at once go without it: one over WebSocket for which something waits to be
    /// written, one on polling without a pending GET.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Sends an event. Returns when its place among others is certain: what is sent, joined or left from then on comes after it.
    /// Nobody is waited for unless too much is on its way to clients of this instance already; an outage of Redis is no
    /// error, and a selection of nobody is none either.
    ///
    /// # Errors
    /// A value does not serialise to JSON, the instance is stopping (`unavailable`), or the selection is too much work for one
    /// command (`too_much_work`).
    pub async fn emit(self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        let args = args.into_args(Some(name))?;
        self.emit_args(args).await
    }

    /// Sends an event that is put together already; its first argument is its name.
    ///
    /// # Errors
    /// As [`Self::emit`].
    pub async fn emit_args(self, args: Args) -> Result<(), HandlerError> {
        let (hub, is_local) = (self.hub.clone(), self.is_local);
        let broadcast = self.broadcast(args);
        if work::may_be_too_much(&broadcast.target) {
            let permit = hub.permit(&broadcast.args).await;
            let command = Command::Broadcast(broadcast);
            return originate(&hub, command, is_local, Some(permit)).await;
        }
        let emitted = hub.emit(broadcast, is_local).await;
        mail::note(Sent::Broadcast);
        Ok(emitted.or(Err(Gone))?)
    }

    /// Sends an event without waiting for the hub: what one socket may send, and no more.
    pub(super) fn originate(mut self, args: Args, volatile: bool) {
        self.flags.volatile = volatile;
        let (hub, is_local) = (self.hub.clone(), self.is_local);
        hub.emit_to_one(self.broadcast(args), is_local);
        mail::note(Sent::Told);
    }

    /// As [`Self::disconnect_sockets`], without waiting for the hub.
    pub(super) fn originate_disconnect(self, whole_connection: bool) {
        let command = Command::Disconnect {
            namespace: self.namespace,
            target: self.target,
            whole_connection,
        };
        let is_local = self.is_local;
        self.hub.do_send(Originate {
            command,
            is_local,
            permit: None,
        });
    }

    fn broadcast(self, args: Args) -> Broadcast {
        Broadcast {
            namespace: self.namespace,
            target: self.target,
            flags: self.flags,
            args,
        }
    }

    /// Sends an event and returns what each selected client acknowledged, in any order: the first argument of its ack, as `T`
    /// (`null` if it has none). Alone, or [`local`](Self::local), it returns early once nobody is left
    /// who could answer; of clients of other instances nobody knows that, so then it waits for its time. That begins when
    /// the event is on its way, which it may have to wait for as in [`Self::emit`].
    ///
    /// # Errors
    /// See [`AskError`]. What had arrived by then is in it: a client may have left, be too slow, or answer something else
    /// than a `T`, or more than is left of `MAX_TOTAL_BACKLOG`.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
    ) -> Result<Vec<T>, AskError<Vec<T>>> {
        let asked = self.ask_clients(name, args, timeout, false).await;
        calls::acks(asked?).await
    }

    /// Sends an event to what is one client at most, and awaits its ack.
    pub(super) async fn emit_to_one<T: DeserializeOwned>(
        self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
    ) -> Result<T, AskError<()>> {
        let asked = self.ask_clients(name, args, timeout, true).await;
        calls::one_ack(asked?).await
    }

    /// Sends an event that is put together already to what is one client at most, and awaits its ack as it comes.
    pub(super) async fn emit_args_to_one(
        self,
        args: Args,
        timeout: Duration,
    ) -> Result<Acked, AskError<()>> {
        let asked = self.ask_with(args, timeout, true).await;
        calls::one_acked(asked?).await
    }

    async fn ask_clients<A>(
        self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
        expects_one: bool,
    ) -> Result<Asked, AskError<A>> {
        let args = args
            .into_args(Some(name))
            .map_err(|err| AskError::Refused(err.into()))?;
        self.ask_with(args, timeout, expects_one).await
    }

    async fn ask_with<A>(
        self,
        args: Args,
        timeout: Duration,
        expects_one: bool,
    ) -> Result<Asked, AskError<A>> {
        let question = Question::Broadcast {
            broadcast: self.clone().broadcast(args),
            timeout,
            expects_one,
        };
        let asked = self.ask(question, timeout).await;
        mail::note(Sent::Told);
        asked
    }

    /// Puts the selected sockets of all instances into rooms. Returns when it is done on this one.
    ///
    /// # Errors
    /// The instance is stopping (`unavailable`), or it is too much work for one command (`too_much_work`).
    pub async fn sockets_join(
        self,
        rooms: impl IntoIterator<Item = impl Into<Room>>,
    ) -> Result<(), HandlerError> {
        let Self {
            hub,
            namespace,
            target,
            is_local,
            ..
        } = self;
        let rooms = rooms.into_iter().map(Into::into).collect();
        let command = Command::Join {
            namespace,
            target,
            rooms,
        };
        originate(&hub, command, is_local, None).await
    }

    /// Takes the selected sockets of all instances out of rooms. Returns when it is done on this one.
    ///
    /// # Errors
    /// The instance is stopping (`unavailable`), or it is too much work for one command (`too_much_work`).
    pub async fn sockets_leave(
        self,
        rooms: impl IntoIterator<Item = impl Into<Room>>,
    ) -> Result<(), HandlerError> {
        let Self {
            hub,
            namespace,
            target,
            is_local,
            ..
        } = self;
        let rooms = rooms.into_iter().map(Into::into).collect();
        let command = Command::Leave {
            namespace,
            target,
            rooms,
        };
        originate(&hub, command, is_local, None).await
    }

    /// Ends the selected sockets' memberships on all instances (reason `server namespace disconnect`), or their clients' whole
    /// connections (`forced server close`).
    ///
    /// # Errors
    /// The instance is stopping (`unavailable`), or it is too much work for one command (`too_much_work`).
    pub async fn disconnect_sockets(self, whole_connection: bool) -> Result<(), HandlerError> {
        let Self {
            hub,
            namespace,
            target,
            is_local,
            ..
        } = self;
        let command = Command::Disconnect {
            namespace,
            target,
            whole_connection,
        };
        originate(&hub, command, is_local, None).await
    }

    /// Returns the selected sockets of all instances, in any order: who they are, their rooms and their data, as they were a
    /// moment ago. Others have [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// See [`AskError`]: what had arrived by then is in it, at least the sockets of this instance.
    pub async fn fetch_sockets(self) -> Result<Vec<RemoteSocket>, AskError<Vec<RemoteSocket>>> {
        let namespace = NamespaceRef {
            namespace: self.namespace.clone(),
            hub: self.hub.clone(),
        };
        let question = Question::Sockets {
            target: self.target.clone(),
        };
        calls::sockets(self.ask(question, ANSWER_TIMEOUT).await?, &namespace).await
    }

    /// Returns the ids of the selected sockets of all instances, in any order.
    ///
    /// Node's servers of version 8 of the adapter answer this for a selection by rooms; `except` reaches Sockhop alone, so
    /// sockets of Node's are not left out.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn socket_ids(self) -> Result<Vec<SocketId>, AskError<Vec<SocketId>>> {
        let question = Question::SocketIds {
            target: self.target.clone(),
        };
        calls::socket_ids(self.ask(question, ANSWER_TIMEOUT).await?).await
    }

    async fn ask<A>(self, question: Question, timeout: Duration) -> Result<Asked, AskError<A>> {
        let permit = match &question {
            // As for any broadcast: it comes to as many sockets.
            Question::Broadcast { broadcast, .. } => Some(self.hub.permit(&broadcast.args).await),
            _ => None,
        };
        let (answers, received) = mpsc::unbounded_channel();
        let ask = Ask {
            namespace: self.namespace,
            question,
            timeout,
            is_local: self.is_local,
            answers,
            permit,
        };
        let put = self.hub.send(ask).await.or(Err(AskError::Stopping))?;
        put.map_err(|err| AskError::Refused(too_much_work(&err)))?;
        Ok(Asked::new(received, timeout))
    }
}

async fn originate(
    hub: &HubRef,
    command: Command,
    is_local: bool,
    permit: Option<Permit>,
) -> Result<(), HandlerError> {
    let originate = Originate {
        command,
        is_local,
        permit,
    };
    let done = hub.send(originate).await;
    mail::note(Sent::Told);
    let obeyed = done.or(Err(Gone))?;
    obeyed.map_err(|err| too_much_work(&err))
}

fn too_much_work(err: &TooMuchWork) -> HandlerError {
    HandlerError::new("too_much_work", err.to_string())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use actix::Arbiter;
    use futures_util::{FutureExt as _, future::join_all};
    use serde_json::Value;
    use tokio::task::unconstrained;

    use super::*;
    use crate::{
        hub::{
            state::State,
            testing::{probe, register},
        },
        socket::{depot::Probe as SocketProbe, messages::What},
        socket_io::parser::Parser,
    };

    /// Far more than may be on their way at a time.
    const NUM_ASKS: usize = 300;

    /// Returns a hub on an arbiter of its own.
    fn events(arbiter: &Arbiter) -> NamespaceRef {
        let (server_side, _) = probe();
        let (state, _) = State::new(Parser::Json, Arc::default(), server_side);
        NamespaceRef {
            namespace: "/events".into(),
            hub: HubRef::start(state, &arbiter.handle()),
        }
    }

    fn ask(
        events: &NamespaceRef,
    ) -> impl Future<Output = Result<Vec<Value>, AskError<Vec<Value>>>> + use<> {
        let all = events.all().local();
        all.emit_with_ack("x", (), Duration::from_secs(3600))
    }

    /// A bug: what clients were to acknowledge was passed on to sockets without bound.
    #[actix::test]
    async fn questions_to_clients_wait_until_their_receivers_have_what_came_before() {
        let arbiter = Arbiter::new();
        let events = events(&arbiter);
        let (first, second) = (SocketProbe::open(), SocketProbe::open());
        for (id, socket) in [("a", &first), ("b", &second)] {
            events.hub.send(register(id, socket)).await.unwrap();
        }
        // Nothing else runs on this thread meanwhile: the hub can pass everything on, and nothing comes into an inbox.
        let mut asked: Vec<_> = (0..NUM_ASKS).map(|_| Box::pin(ask(&events))).collect();
        for one in &mut asked {
            assert!(one.now_or_never().is_none());
        }
        let mut settled = Box::pin(events.hub.settle());
        while (&mut settled).now_or_never().is_none() {
            thread::yield_now();
        }
        assert!(
            events.emit("y", ()).now_or_never().is_none(),
            "they were passed on, not received"
        );
        // None of them is ever acknowledged: they give way as soon as they are there.
        let receive = async |socket: &SocketProbe| {
            for _ in 0..NUM_ASKS {
                let what = socket.next().await.what;
                assert!(matches!(what, What::DeliverWithAck(_)), "{what:?}");
            }
        };
        tokio::join!(receive(&first), receive(&second), async {
            // Nobody who could acknowledge holds on to the answers, so they all come to their end.
            for outcome in join_all(asked).await {
                assert!(matches!(
                    outcome,
                    Err(AskError::Incomplete {
                        num_silent_clients: 2,
                        ..
                    })
                ));
            }
        });
        events.emit("y", ()).await.unwrap();
        arbiter.stop();
    }

    /// A bug: what named more rooms than the hub takes unjudged was passed on to sockets without bound.
    #[actix::test]
    async fn events_for_many_rooms_wait_until_their_receivers_have_what_came_before() {
        let arbiter = Arbiter::new();
        let events = events(&arbiter);
        let socket = SocketProbe::open();
        events.hub.send(register("a", &socket)).await.unwrap();
        // The room that its id names, and some that nobody is in.
        let selection = || ('a'..='z').fold(events.all(), |all, room| all.to(String::from(room)));
        let mut waiting = Vec::new();
        for _ in 0..NUM_ASKS {
            let mut sending = Box::pin(unconstrained(selection().emit("x", ())));
            if (&mut sending).now_or_never().is_some() {
                continue;
            }
            let mut settled = Box::pin(unconstrained(events.hub.settle()));
            while (&mut settled).now_or_never().is_none() {
                thread::yield_now();
            }
            if (&mut sending).now_or_never().is_none() {
                waiting.push(sending);
            }
        }
        assert!(!waiting.is_empty(), "they were passed on, not received");
        tokio::join!(join_all(waiting), async {
            for _ in 0..NUM_ASKS {
                socket.next().await;
            }
        });
        arbiter.stop();
    }

    #[actix::test]
    async fn a_question_that_is_too_much_work_is_refused_and_says_so() {
        let arbiter = Arbiter::new();
        let events = events(&arbiter);
        let sockets: Vec<_> = (0..100).map(|_| SocketProbe::open()).collect();
        for (id, socket) in sockets.iter().enumerate() {
            let register = register(&format!("{id}"), socket);
            events.hub.send(register).await.unwrap();
        }
        let selection = || (0..20_000).fold(events.all(), |all, n| all.except(format!("r{n}")));
        let code = |err: HandlerError| err.code;
        let ids = selection().socket_ids().await.unwrap_err();
        assert_eq!(code(ids.into()), "too_much_work");
        let sockets = selection().fetch_sockets().await.unwrap_err();
        assert_eq!(code(sockets.into()), "too_much_work");
        let acks = selection().emit_with_ack::<Value>("x", (), Duration::from_secs(3600));
        assert_eq!(code(acks.await.unwrap_err().into()), "too_much_work");
        arbiter.stop();
    }

    #[actix::test]
    async fn questions_to_nobody_hold_nobody_back() {
        let arbiter = Arbiter::new();
        let events = events(&arbiter);
        for _ in 0..NUM_ASKS {
            assert_eq!(ask(&events).await.unwrap(), Vec::<Value>::new());
        }
        arbiter.stop();
    }
}
