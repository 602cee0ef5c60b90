//! What a handler holds of a client: one socket of one namespace.
//!
//! A handle, not the socket: it stays valid after the client left, and says so then. It reaches the Socket actor and the
//! Hub by their messages alone.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Addr, Recipient};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    binary,
    broadcaster::{Broadcaster, NamespaceRef},
    mail,
    reply::{HandlerError, IntoArgs},
};
use crate::{
    engine_io::sid::InstanceId,
    hub::{
        actor::Hub,
        messages::{Deliver, Join, JoinId, Leave},
    },
    socket::{
        handshake::Handshake,
        messages::{Disconnect, EmitWithAck},
    },
    socket_io::{
        args::Args,
        encode,
        ids::{Namespace, Room, SocketId},
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
    /// The client left, or owes too many acks already.
    #[error("the client is gone, or owes too many acknowledgements")]
    Disconnected,
    /// A value does not serialise to JSON.
    #[error("the arguments do not serialise")]
    Encode(#[source] serde_json::Error),
    /// The ack is not of the type that was asked for.
    #[error("the acknowledgement is not of the expected type")]
    Decode(#[source] serde_json::Error),
}

impl From<AckError> for HandlerError {
    /// So that a handler can pass on with `?` what went wrong with an ack that it awaited.
    fn from(err: AckError) -> Self {
        let code = match &err {
            AckError::Timeout(_) => "ack_timeout",
            AckError::Disconnected => "ack_disconnected",
            AckError::Encode(err) => {
                log::error!("a value does not serialise to JSON: {err}");
                return Self::internal();
            }
            AckError::Decode(_) => "bad_ack",
        };
        Self::new(code, err.to_string())
    }
}

/// Everything a [`SocketRef`] is made of.
#[derive(Debug)]
pub(crate) struct SocketParts {
    pub(crate) id: SocketId,
    pub(crate) namespace: Namespace,
    pub(crate) join: JoinId,
    pub(crate) instance: InstanceId,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) data: Value,
    pub(crate) hub: Addr<Hub>,
    pub(crate) deliver: Recipient<Deliver>,
    pub(crate) emit_with_ack: Recipient<EmitWithAck>,
    pub(crate) disconnect: Recipient<Disconnect>,
}

#[derive(Debug)]
struct Inner {
    id: SocketId,
    namespace: Namespace,
    join: JoinId,
    instance: InstanceId,
    handshake: Arc<Handshake>,
    /// JSON text: a tree of it would take several times as much, in every socket.
    data: Mutex<Box<str>>,
    hub: Addr<Hub>,
    deliver: Recipient<Deliver>,
    emit_with_ack: Recipient<EmitWithAck>,
    disconnect: Recipient<Disconnect>,
}

/// One client in one namespace. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct SocketRef {
    inner: Arc<Inner>,
}

impl SocketRef {
    pub(crate) fn new(parts: SocketParts) -> Self {
        let SocketParts {
            id,
            namespace,
            join,
            instance,
            handshake,
            data,
            hub,
            deliver,
            emit_with_ack,
            disconnect,
        } = parts;
        Self {
            inner: Arc::new(Inner {
                id,
                namespace,
                join,
                instance,
                handshake,
                data: Mutex::new(data.to_string().into()),
                hub,
                deliver,
                emit_with_ack,
                disconnect,
            }),
        }
    }

    /// Returns the id: 20 characters, known to clients, different in each namespace. Only of a client 2.x it is made of the
    /// session id, and so is a secret: see [`allow_eio3`](crate::config::EngineConfig::allow_eio3).
    pub fn id(&self) -> &SocketId {
        &self.inner.id
    }

    /// Returns the namespace's name.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// Returns the instance that this client is connected to.
    pub fn instance(&self) -> InstanceId {
        self.inner.instance
    }

    /// Returns the Engine.IO handshake of the client's session.
    pub fn handshake(&self) -> &Handshake {
        &self.inner.handshake
    }

    /// Returns what the application remembers of this socket: at first what `authorize` returned.
    pub fn data(&self) -> Value {
        parse_data(&self.lock_data())
    }

    /// Reads `data` as a type of the application's own.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.lock_data())
    }

    /// Changes what the application remembers of this socket. It is plain JSON, because it is what goes along when a
    /// session moves to another instance.
    pub fn with_data<T>(&self, change: impl FnOnce(&mut Value) -> T) -> T {
        let mut text = self.lock_data();
        let mut data = parse_data(&text);
        let result = change(&mut data);
        *text = data.to_string().into();
        result
    }

    fn lock_data(&self) -> MutexGuard<'_, Box<str>> {
        // Replaced as a whole, so a panic elsewhere does not spoil it.
        self.inner
            .data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event to this client alone. A client that left gets nothing, and that is no error.
    ///
    /// # Errors
    /// A value does not serialise to JSON.
    pub fn emit(&self, name: &str, args: impl IntoArgs) -> Result<(), serde_json::Error> {
        self.emit_args(&args.into_args(Some(name))?);
        Ok(())
    }

    /// Sends an event that is put together already; its first argument is its name.
    pub fn emit_args(&self, args: &Args) {
        self.deliver(args, false);
    }

    /// Sends an event to this client alone, or not at all if it cannot take it at once: see
    /// [`Broadcaster::volatile`].
    ///
    /// # Errors
    /// A value does not serialise to JSON.
    pub fn emit_volatile(&self, name: &str, args: impl IntoArgs) -> Result<(), serde_json::Error> {
        self.deliver(&args.into_args(Some(name))?, true);
        Ok(())
    }

    fn deliver(&self, args: &Args, volatile: bool) {
        mail::note();
        self.inner.deliver.do_send(Deliver {
            join: self.inner.join,
            message: encode::event(&self.inner.namespace, None, args),
            volatile,
        });
    }

    /// Sends an event and awaits the client's ack, whose arguments are read as `T`: a tuple takes them one by one.
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
        let (reply, answer) = oneshot::channel();
        mail::note();
        self.inner.emit_with_ack.do_send(EmitWithAck {
            join: self.inner.join,
            args,
            reply,
        });
        let args = tokio::time::timeout(timeout, answer)
            .await
            .or(Err(AckError::Timeout(timeout)))?
            .or(Err(AckError::Disconnected))?;
        binary::read(args.json(), args.attachments()).map_err(AckError::Decode)
    }

    /// Returns the namespace, to send to all of it or to its rooms, this client included.
    pub fn namespace_ref(&self) -> NamespaceRef {
        NamespaceRef {
            namespace: self.inner.namespace.clone(),
            hub: self.inner.hub.clone(),
        }
    }

    /// Selects everyone in the namespace but this client.
    pub fn broadcast(&self) -> Broadcaster {
        self.namespace_ref().all().except(self.inner.id.room())
    }

    /// Selects a room, without this client; more rooms can be added.
    pub fn to(&self, room: impl Into<Room>) -> Broadcaster {
        self.broadcast().to(room)
    }

    /// Puts this socket into a room of its namespace; being there already is no error. When this returns, what is sent to the
    /// room reaches it.
    ///
    /// Each socket is in the room that its id names from the start: let no client choose the whole name of a room.
    ///
    /// # Errors
    /// It is in 10,000 rooms already (`too_many_rooms`), or the instance is stopping (`unavailable`).
    pub async fn join(&self, room: impl Into<Room>) -> Result<(), HandlerError> {
        let message = Join {
            namespace: self.inner.namespace.clone(),
            socket_id: self.inner.id.clone(),
            room: room.into(),
        };
        let joined = self.inner.hub.send(message).await.or(Err(Gone))?;
        joined.map_err(|err| HandlerError::new("too_many_rooms", err.to_string()))
    }

    /// Takes this socket out of a room; not being there is no error. On a disconnect it leaves all of them by itself.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn leave(&self, room: impl Into<Room>) -> Result<(), Gone> {
        let message = Leave {
            namespace: self.inner.namespace.clone(),
            socket_id: self.inner.id.clone(),
            room: room.into(),
        };
        self.inner.hub.send(message).await.or(Err(Gone))
    }

    /// Ends this membership (reason `server namespace disconnect`), or the client's whole connection, with all of its namespaces
    /// (`forced server close`). The official client reconnects by itself after neither.
    pub fn disconnect(&self, whole_connection: bool) {
        mail::note();
        self.inner.disconnect.do_send(Disconnect {
            join: self.inner.join,
            whole_connection,
        });
    }
}

fn parse_data(text: &str) -> Value {
    serde_json::from_str(text).expect("it was written from a value")
}
