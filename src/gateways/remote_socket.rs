//! A socket of any instance, as it was when it was asked for.
//!
//! Not a [`SocketRef`](super::SocketRef): it may be connected elsewhere, so all that is done to it goes by the room that its id
//! names. Source: Socket.IO server API (`RemoteSocket`); wire.md 3.6.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{
    broadcaster::{Broadcaster, NamespaceRef},
    calls::AskError,
    reply::{HandlerError, IntoArgs},
};
use crate::{
    socket::snapshot::{HandshakeSnapshot, SocketSnapshot},
    socket_io::ids::{Room, SocketId},
};

/// A socket of any instance. Cheap to act upon, not kept up to date.
#[derive(Clone, Debug)]
pub struct RemoteSocket {
    snapshot: SocketSnapshot,
    namespace: NamespaceRef,
}

impl RemoteSocket {
    pub(super) fn new(snapshot: SocketSnapshot, namespace: NamespaceRef) -> Self {
        Self {
            snapshot,
            namespace,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> &SocketId {
        &self.snapshot.id
    }

    /// Returns the rooms that it was in, the one that its id names included.
    pub fn rooms(&self) -> &[Room] {
        &self.snapshot.rooms
    }

    /// Returns the request that opened its client's session.
    pub fn handshake(&self) -> &HandshakeSnapshot {
        &self.snapshot.handshake
    }

    /// Reads what the application remembers of it.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.snapshot.data.get())
    }

    fn itself(&self) -> Broadcaster {
        self.namespace.to(self.snapshot.id.room())
    }

    /// Sends an event to it; see [`Broadcaster::emit`].
    ///
    /// # Errors
    /// See there.
    pub async fn emit(&self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.itself().emit(name, args).await
    }

    /// Sends an event to it and awaits its ack, whose first argument is read as `T`.
    ///
    /// # Errors
    /// See [`AskError`]: it may have left.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        name: &str,
        args: impl IntoArgs,
        timeout: Duration,
    ) -> Result<T, AskError<()>> {
        self.itself().emit_to_one(name, args, timeout).await
    }

    /// Puts it into rooms.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn join(
        &self,
        rooms: impl IntoIterator<Item = impl Into<Room>>,
    ) -> Result<(), HandlerError> {
        self.itself().sockets_join(rooms).await
    }

    /// Takes it out of rooms.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn leave(
        &self,
        rooms: impl IntoIterator<Item = impl Into<Room>>,
    ) -> Result<(), HandlerError> {
        self.itself().sockets_leave(rooms).await
    }

    /// Ends its membership, or its client's whole connection; see [`Broadcaster::disconnect_sockets`].
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn disconnect(&self, whole_connection: bool) -> Result<(), HandlerError> {
        self.itself().disconnect_sockets(whole_connection).await
    }
}
