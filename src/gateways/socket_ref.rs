//! What a handler holds of a client: one socket of one namespace.
//!
//! A handle, not the socket: it stays valid after the client left, and says so then. It reaches the Socket actor and the
//! Hub by their messages alone.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    Pattern, binary,
    broadcaster::{Broadcaster, NamespaceRef},
    calls::AskError,
    mail::{self, Sent},
    reply::{HandlerError, IntoArgs},
};
use crate::{
    engine_io::sid::InstanceId,
    hub::{
        hub_ref::HubRef,
        messages::{Join, Leave as LeaveRoom, RoomsOf},
        recovery::EmitToOne,
    },
    relay::{Answer, leave::Leave},
    socket::{
        acks::Acked,
        handshake::Handshake,
        inbox::InboxRef,
        messages::{Emit, EmitWithAck, ForSocket, What},
        record::{Record, Recoverable},
    },
    socket_io::{
        args::Args,
        encode,
        ids::{Namespace, Room, SocketId},
        parser::Parser,
    },
};

/// The instance is stopping and takes no more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Gone;

/// Why a client's ack did not come.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// Not in time.
    #[error("the client did not acknowledge within {0:?}")]
    Timeout(Duration),
    /// The client left, owes too many acks already, or sent one for which too little was left of `MAX_TOTAL_BACKLOG`.
    #[error("the client is gone, owes too many acknowledgements, or sent one that is too much")]
    Disconnected,
    /// A value does not serialise to JSON.
    #[error("the arguments do not serialise")]
    Encode(#[source] serde_json::Error),
    /// The ack is not of the type that was asked for.
    #[error("the acknowledgement is not of the expected type")]
    Decode(#[source] serde_json::Error),
}

struct Inner {
    parser: Parser,
    record: Arc<Record>,
    hub: HubRef,
    socket: InboxRef,
    /// Reads the parts of the namespace's name, when asked.
    pattern: Option<Pattern>,
    /// Set when the client's session has moved to another instance.
    moved: OnceLock<Box<Moved>>,
}

/// Where the session has moved to.
struct Moved {
    way: Leave,
    /// Which of its namespaces this is, there; known once the session is on its way.
    at: OnceLock<u32>,
}

/// One client in one namespace. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct SocketRef {
    inner: Arc<Inner>,
}

impl fmt::Debug for SocketRef {
    /// Its namespace alone, as of a record. The rest leads to messages that wait for this and other clients.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketRef")
            .field("namespace", &self.inner.record.namespace)
            .finish_non_exhaustive()
    }
}

impl SocketRef {
    pub(crate) fn new(
        parser: Parser,
        record: Arc<Record>,
        hub: HubRef,
        socket: InboxRef,
        pattern: Option<Pattern>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                parser,
                record,
                hub,
                socket,
                pattern,
                moved: OnceLock::new(),
            }),
        }
    }

    /// Notes that the client's session moves: `way` leads there.
    pub(crate) fn note_moved(&self, way: Leave) {
        let at = OnceLock::new();
        // Only ever called once.
        _ = self.inner.moved.set(Box::new(Moved { way, at }));
    }

    /// Notes that the session has been sent on its way, with this as its namespace number `at` and with what was remembered here:
    /// `data`, JSON text.
    pub(crate) fn note_sent(&self, at: u32, data: &str) {
        if let Some(moved) = self.inner.moved.get() {
            // Only ever called once.
            _ = moved.at.set(at);
            // Whoever changed it just before could not say it yet.
            if self.data_text() != data {
                self.pass_data_on();
            }
        }
    }

    fn has_moved(&self) -> bool {
        self.inner.moved.get().is_some()
    }

    /// Selects this client wherever it is: by the room that its id names.
    fn itself(&self) -> Broadcaster {
        self.namespace_ref().to(self.inner.record.id.room())
    }

    pub(crate) fn data_text(&self) -> String {
        self.inner.record.data_text()
    }

    /// Tells the instance that the session has moved to what has been remembered here, unless that goes along with it.
    fn pass_data_on(&self) {
        if let Some(moved) = self.inner.moved.get()
            && let Some(at) = moved.at.get().copied()
        {
            moved.way.say_behind(Answer::Data {
                at,
                json: self.data_text().into(),
            });
        }
    }

    /// Takes over what was remembered where the session has come from.
    pub(crate) fn set_data_text(&self, text: &str) {
        self.inner.record.set_data_text(text);
    }

    /// Returns the id: 20 characters, known to clients, different in each namespace. Only of a client 2.x it is made of the
    /// session id, and so is a secret: see [`allow_eio3`](crate::config::EngineConfig::allow_eio3).
    pub fn id(&self) -> &SocketId {
        &self.inner.record.id
    }

    /// Returns the namespace's name.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.record.namespace
    }

    /// Returns the part of the namespace's name that a gateway [`matching`](super::Gateway::matching) it names so: `"7"` is the
    /// `id` of `/orders/7` at `/orders/{id}`. It is as the client wrote it, with nothing decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        let pattern = self.inner.pattern.as_ref()?;
        pattern.param(&self.inner.record.namespace, name)
    }

    /// Returns whether the client is in the namespace still, as far as is known by now. If its session has moved to another instance
    /// since this handle was made, it is known when all of it ends, or cannot be heard of any more; not that it leaves this namespace alone.
    pub fn is_connected(&self) -> bool {
        let moved = self.inner.moved.get();
        !self.inner.record.has_left() && moved.is_none_or(|moved| !moved.way.has_ended())
    }

    /// Returns whether the client has come back to this socket after a disconnection: its id, its rooms and its data are those that
    /// it had, and it was sent what it missed. Always false unless the instance keeps state for its clients
    /// ([`RecoveryConfig`](crate::config::RecoveryConfig)).
    pub fn recovered(&self) -> bool {
        self.inner.record.recoverable == Recoverable::Recovered
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.inner.record
    }

    pub(crate) fn note_left(&self) {
        self.inner.record.note_left();
    }

    /// Returns the instance that this client was connected to when this handle was made. Its session may move to another, and the
    /// handle goes on to reach it.
    pub fn instance(&self) -> InstanceId {
        self.inner.record.instance
    }

    /// Returns the Engine.IO handshake of the client's session.
    pub fn handshake(&self) -> &Handshake {
        &self.inner.record.handshake
    }

    /// Returns what the application remembers of this socket: at first what `authorize` returned.
    pub fn data(&self) -> Value {
        self.inner.record.data()
    }

    /// Reads `data` as a type of the application's own.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.inner.record.data_as()
    }

    /// Replaces what the application remembers of this socket.
    ///
    /// # Errors
    /// It does not serialise to JSON that can be read again; nothing is changed. A client's text that is kept as it came may be such.
    pub fn set_data(&self, data: &(impl Serialize + ?Sized)) -> Result<(), serde_json::Error> {
        self.inner.record.set_data(data)?;
        self.pass_data_on();
        Ok(())
    }

    /// Changes what the application remembers of this socket. It is plain JSON, because it is what goes along when a
    /// session moves to another instance. No other change comes between; do not use the socket's data within.
    ///
    /// A handler that still runs while the session moves goes on with what it knows, and what it changes is told to the other
    /// instance: the last to change it is right.
    pub fn with_data<T>(&self, change: impl FnOnce(&mut Value) -> T) -> T {
        let result = self.inner.record.with_data(change);
        self.pass_data_on();
        result
    }

    /// Changes what the application remembers of this socket, as a type of its own. No other change comes between; do not use
    /// the socket's data within.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use sockhop::gateways::{HandlerError, SocketRef};
    /// #[derive(Deserialize, Serialize)]
    /// struct Visitor { visits: u32 }
    ///
    /// fn count(socket: &SocketRef) -> Result<u32, HandlerError> {
    ///     Ok(socket.with_data_as(|visitor: &mut Visitor| {
    ///         visitor.visits += 1;
    ///         visitor.visits
    ///     })?)
    /// }
    /// ```
    ///
    /// # Errors
    /// What is remembered is not of this type, and `change` is not called; or what it left does not serialise to JSON that can be
    /// read again. Nothing is changed then.
    pub fn with_data_as<D, T>(
        &self,
        change: impl FnOnce(&mut D) -> T,
    ) -> Result<T, serde_json::Error>
    where
        D: DeserializeOwned + Serialize,
    {
        let result = self.inner.record.with_data_as(change)?;
        self.pass_data_on();
        Ok(result)
    }

    /// Sends an event to this client alone. A client that left gets nothing, and that is no error; one that may come back
    /// ([`RecoveryConfig`](crate::config::RecoveryConfig)) gets it then.
    ///
    /// # Errors
    /// A value does not serialise to JSON (`internal`).
    pub fn emit(&self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.emit_args(&args.into_args(Some(name))?);
        Ok(())
    }

    /// Sends an event that is put together already; its first argument is its name.
    pub fn emit_args(&self, args: &Args) {
        if self.inner.record.recoverable == Recoverable::No || self.has_moved() {
            self.deliver(args, false);
        } else {
            self.emit_recoverable(args.clone());
        }
    }

    /// Sends an event that is kept for the client if it is away.
    fn emit_recoverable(&self, args: Args) {
        mail::note(Sent::Told);
        let Inner {
            record,
            socket,
            hub,
            ..
        } = &*self.inner;
        let record = Arc::clone(record);
        if record.has_left() {
            return hub.do_send(EmitToOne { record, args });
        }
        let message = ForSocket {
            join: record.join,
            what: What::Emit(Box::new(Emit {
                record,
                args,
                // It may end before this comes.
                hub: Some(hub.clone()),
            })),
        };
        hub.tell(socket, message);
    }

    /// Sends an event to this client alone, or not at all if it cannot take it at once: see
    /// [`Broadcaster::volatile`].
    ///
    /// # Errors
    /// A value does not serialise to JSON (`internal`).
    pub fn emit_volatile(&self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.deliver(&args.into_args(Some(name))?, true);
        Ok(())
    }

    /// Lets whoever cannot take what is sent next at once go without it: `socket.volatile` of Node.
    pub fn volatile(&self) -> VolatileSocket<'_> {
        VolatileSocket { socket: self }
    }

    /// Sends an event to where the session has moved.
    pub(crate) fn emit_there(&self, args: &Args, volatile: bool) {
        self.itself().originate(args.clone(), volatile);
    }

    fn deliver(&self, args: &Args, volatile: bool) {
        if self.has_moved() {
            return self.emit_there(args, volatile);
        }
        let namespace = &self.inner.record.namespace;
        let message = match encode::event(self.inner.parser, namespace, None, args) {
            Ok(message) => message,
            Err(err) => return log::error!("an event cannot be encoded: {err}"),
        };
        self.tell(What::Deliver { message, volatile });
    }

    fn tell(&self, what: What) {
        mail::note(Sent::Told);
        let join = self.inner.record.join;
        let message = ForSocket { join, what };
        self.inner.hub.tell(&self.inner.socket, message);
    }

    /// Sends an event and awaits the client's ack, whose arguments are read as `T`: a tuple takes them one by one.
    ///
    /// Of a client whose session has moved to another instance since this handle was made, the first argument of the ack alone comes back.
    ///
    /// A handler that awaits an ack holds back the events that the same client sent behind the one it handles, but not
    /// the ack itself.
    ///
    /// # Errors
    /// See [`AckError`]. A client may owe 1024 acks in a namespace at a time.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
    ) -> Result<T, AckError> {
        let args = args.into_args(Some(name)).map_err(AckError::Encode)?;
        let acked = if self.has_moved() {
            self.ask_there(args, timeout).await
        } else {
            self.ask_here(args, timeout).await
        };
        let Acked { args, .. } = acked?;
        binary::read(args.json(), args.attachments()).map_err(AckError::Decode)
    }

    async fn ask_here(&self, args: Args, timeout: Duration) -> Result<Acked, AckError> {
        let (reply, answer) = oneshot::channel();
        self.tell(What::EmitWithAck(Box::new(EmitWithAck { args, reply })));
        tokio::time::timeout(timeout, answer)
            .await
            .or(Err(AckError::Timeout(timeout)))?
            .or(Err(AckError::Disconnected))
    }

    async fn ask_there(&self, args: Args, timeout: Duration) -> Result<Acked, AckError> {
        let acked = self.itself().emit_args_to_one(args, timeout).await;
        acked.map_err(|err| match err {
            AskError::Incomplete { within, .. } => AckError::Timeout(within),
            AskError::Refused(_)
            | AskError::Stopping
            | AskError::Gone
            | AskError::Unreachable { .. } => AckError::Disconnected,
        })
    }

    /// Returns the namespace, to send to all of it or to its rooms, this client included.
    pub fn namespace_ref(&self) -> NamespaceRef {
        NamespaceRef {
            namespace: self.inner.record.namespace.clone(),
            hub: self.inner.hub.clone(),
        }
    }

    /// Selects everyone in the namespace but this client.
    pub fn broadcast(&self) -> Broadcaster {
        self.namespace_ref()
            .all()
            .except(self.inner.record.id.room())
    }

    /// Selects a room, without this client; more rooms can be added.
    pub fn to(&self, room: impl Into<Room>) -> Broadcaster {
        self.broadcast().to(room)
    }

    /// Selects everyone in the namespace but this client and whoever is in a room.
    pub fn except(&self, room: impl Into<Room>) -> Broadcaster {
        self.broadcast().except(room)
    }

    /// Selects everyone of this instance in the namespace, but this client.
    pub fn local(&self) -> Broadcaster {
        self.broadcast().local()
    }

    /// Puts this socket into a room of its namespace; being there already is no error. When this returns, what is sent to the
    /// room reaches it.
    ///
    /// Each socket is in the room that its id names from the start: let no client choose the whole name of a room.
    ///
    /// # Errors
    /// It is in as many rooms as it may be (`too_many_rooms`; `MAX_ROOMS_PER_SOCKET`, default 10,000), or the instance is stopping (`unavailable`).
    pub async fn join(&self, room: impl Into<Room>) -> Result<(), HandlerError> {
        if self.has_moved() {
            return self.itself().sockets_join([room]).await;
        }
        let message = Join {
            namespace: self.inner.record.namespace.clone(),
            socket_id: self.inner.record.id.clone(),
            room: room.into(),
        };
        let joined = self.inner.hub.send(message).await.or(Err(Gone))?;
        joined.map_err(|err| HandlerError::new("too_many_rooms", err.to_string()))
    }

    /// Takes this socket out of a room; not being there is no error. On a disconnect it leaves all of them by itself.
    ///
    /// # Errors
    /// The instance is stopping (`unavailable`).
    pub async fn leave(&self, room: impl Into<Room>) -> Result<(), HandlerError> {
        if self.has_moved() {
            return self.itself().sockets_leave([room]).await;
        }
        let message = LeaveRoom {
            namespace: self.inner.record.namespace.clone(),
            socket_id: self.inner.record.id.clone(),
            room: room.into(),
        };
        Ok(self.inner.hub.send(message).await.or(Err(Gone))?)
    }

    /// Returns the rooms that this socket is in, the one that its id names included; none once it left the namespace.
    ///
    /// # Errors
    /// The instance is stopping (`unavailable`).
    pub async fn rooms(&self) -> Result<HashSet<Room>, HandlerError> {
        if self.has_moved() {
            let found = self.itself().fetch_sockets().await?;
            let itself = found.iter().find(|socket| socket.id() == self.id());
            return Ok(itself.map_or_else(HashSet::new, |socket| {
                socket.rooms().iter().cloned().collect()
            }));
        }
        let message = RoomsOf {
            namespace: self.inner.record.namespace.clone(),
            socket_id: self.inner.record.id.clone(),
        };
        Ok(self.inner.hub.send(message).await.or(Err(Gone))?)
    }

    /// Ends this membership (reason `server namespace disconnect`), or the client's whole connection, with all of its namespaces
    /// (`forced server close`). The official client reconnects by itself after neither.
    pub fn disconnect(&self, whole_connection: bool) {
        if self.has_moved() {
            return self.disconnect_there(whole_connection);
        }
        self.tell(What::Disconnect { whole_connection });
    }

    /// As [`Self::disconnect`], where the session has moved.
    pub(crate) fn disconnect_there(&self, whole_connection: bool) {
        self.itself().originate_disconnect(whole_connection);
    }
}

/// A socket whose next event may be lost: see [`SocketRef::volatile`].
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is sent before emit"]
pub struct VolatileSocket<'a> {
    socket: &'a SocketRef,
}

impl VolatileSocket<'_> {
    /// See [`SocketRef::emit_volatile`].
    ///
    /// # Errors
    /// A value does not serialise to JSON (`internal`).
    pub fn emit(self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.socket.emit_volatile(name, args)
    }

    /// Selects everyone in the namespace but this client.
    pub fn broadcast(self) -> Broadcaster {
        self.socket.broadcast().volatile()
    }

    /// Selects a room, without this client; more rooms can be added.
    pub fn to(self, room: impl Into<Room>) -> Broadcaster {
        self.broadcast().to(room)
    }

    /// Selects everyone in the namespace but this client and whoever is in a room.
    pub fn except(self, room: impl Into<Room>) -> Broadcaster {
        self.broadcast().except(room)
    }

    /// Selects everyone of this instance in the namespace, but this client.
    pub fn local(self) -> Broadcaster {
        self.broadcast().local()
    }
}
