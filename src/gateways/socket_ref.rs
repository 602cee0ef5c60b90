//! What a handler holds of a client: one socket of one namespace.
//!
//! A handle, not the socket: it stays valid after the client left, and says so then. It reaches the Socket actor and the
//! Hub by their messages alone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix::{Addr, Recipient};
use serde::Serialize;
use serde_json::Value;

use super::HandlerError;
use crate::{
    engine_io::sid::InstanceId,
    hub::{
        actor::Hub,
        broadcast::Broadcast,
        messages::{Deliver, Join, JoinId, Leave, Originate},
    },
    socket::{handshake::Handshake, messages::Disconnect},
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
    pub(crate) disconnect: Recipient<Disconnect>,
}

#[derive(Debug)]
struct Inner {
    parts: SocketParts,
    /// Whether a handler sent anything since the last time the Socket actor looked; see [`SocketRef::take_has_sent`].
    has_sent: AtomicBool,
}

/// One client in one namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SocketRef {
    inner: Arc<Inner>,
}

impl SocketRef {
    pub(crate) fn new(parts: SocketParts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                has_sent: AtomicBool::new(false),
            }),
        }
    }

    /// Returns the id: 20 characters, known to clients, different in each namespace.
    pub fn id(&self) -> &SocketId {
        &self.inner.parts.id
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.parts.namespace
    }

    /// Returns the instance that this client is connected to.
    pub fn instance(&self) -> InstanceId {
        self.inner.parts.instance
    }

    /// Returns the Engine.IO handshake of the client's session.
    pub fn handshake(&self) -> &Handshake {
        &self.inner.parts.handshake
    }

    /// Returns what the gateway's `authorize` returned.
    pub fn data(&self) -> &Value {
        &self.inner.parts.data
    }

    /// Sends an event to this client alone. A client that left gets nothing, and that is no error.
    ///
    /// # Errors
    /// A value does not serialise to JSON.
    pub fn emit(&self, name: &str, values: &[impl Serialize]) -> Result<(), serde_json::Error> {
        self.emit_args(&Args::event(name, values)?);
        Ok(())
    }

    /// Sends an event that is put together already; its first argument is its name.
    pub fn emit_args(&self, args: &Args) {
        self.note_sending();
        self.inner.parts.deliver.do_send(Deliver {
            join: self.inner.parts.join,
            message: encode::event(&self.inner.parts.namespace, None, args),
            volatile: false,
        });
    }

    /// Sends an event to every client of the namespace, on all instances, this one included.
    ///
    /// # Errors
    /// A value does not serialise to JSON, or the instance is stopping.
    pub async fn broadcast(
        &self,
        name: &str,
        values: &[impl Serialize],
    ) -> Result<(), HandlerError> {
        let args = Args::event(name, values)?;
        self.originate(Broadcast::to_all(self.inner.parts.namespace.clone(), args))
            .await?;
        Ok(())
    }

    /// Sends a broadcast that is put together already.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn originate(&self, broadcast: Broadcast) -> Result<(), Gone> {
        let delivered = self.inner.parts.hub.send(Originate(broadcast)).await;
        // Noted behind the hub's answer: by then the sender's own copy is in its mailbox, perhaps not yet taken out.
        self.note_sending();
        delivered.or(Err(Gone))
    }

    /// Puts this socket into a room.
    ///
    /// # Errors
    /// It is in too many rooms, or the instance is stopping.
    pub async fn join(&self, room: impl Into<Room>) -> Result<(), HandlerError> {
        let message = Join {
            namespace: self.inner.parts.namespace.clone(),
            socket_id: self.inner.parts.id.clone(),
            room: room.into(),
        };
        self.inner
            .parts
            .hub
            .send(message)
            .await
            .or(Err(Gone))?
            .map_err(|err| HandlerError::new("too_many_rooms", err.to_string()))
    }

    /// Takes this socket out of a room.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn leave(&self, room: impl Into<Room>) -> Result<(), HandlerError> {
        let message = Leave {
            namespace: self.inner.parts.namespace.clone(),
            socket_id: self.inner.parts.id.clone(),
            room: room.into(),
        };
        self.inner.parts.hub.send(message).await.or(Err(Gone))?;
        Ok(())
    }

    /// Ends this membership, or the client's whole connection, with all of its namespaces.
    pub fn disconnect(&self, whole_connection: bool) {
        self.note_sending();
        self.inner.parts.disconnect.do_send(Disconnect {
            join: self.inner.parts.join,
            whole_connection,
        });
    }

    /// What is sent here arrives by way of a mailbox; an ack must not overtake it.
    fn note_sending(&self) {
        self.inner.has_sent.store(true, Ordering::Relaxed);
    }

    /// Returns whether anything was sent since the last call.
    pub(crate) fn take_has_sent(&self) -> bool {
        self.inner.has_sent.swap(false, Ordering::Relaxed)
    }
}
