//! Sending to many: the words of the Socket.IO server API in Rust's manner.
//!
//! ```no_run
//! # use sockhop::gateways::{SocketRef, Gone};
//! # async fn example(socket: SocketRef) -> Result<(), sockhop::gateways::HandlerError> {
//! socket.namespace_ref().emit("news", &"for all").await?;              // io.of("/…").emit(…)
//! socket.to("blue").except("red").emit("news", &"for some").await?;    // socket.to("blue").except("red").emit(…)
//! socket.broadcast().volatile().emit("cursor", (3, 4)).await?;         // socket.volatile.broadcast.emit(…)
//! # Ok(())
//! # }
//! ```

use actix::Addr;

use super::{
    mail,
    reply::{HandlerError, IntoArgs},
    socket_ref::Gone,
};
use crate::{
    hub::{
        actor::Hub,
        broadcast::{Broadcast, Flags, Target},
        messages::Originate,
    },
    socket_io::{
        args::Args,
        ids::{Namespace, Room},
    },
};

/// A namespace, to send to all of its sockets or to some. Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct NamespaceRef {
    pub(crate) namespace: Namespace,
    pub(crate) hub: Addr<Hub>,
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

    /// Sends an event to everyone, on all instances.
    ///
    /// # Errors
    /// A value does not serialise to JSON, or the instance is stopping.
    pub async fn emit(&self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        self.all().emit(name, args).await
    }
}

/// A selection of sockets on all instances, and how to send to them. Cheap to clone.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before emit"]
pub struct Broadcaster {
    hub: Addr<Hub>,
    namespace: Namespace,
    target: Target,
    flags: Flags,
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

    /// Selects sockets of this instance alone: nothing is published.
    pub fn local(mut self) -> Self {
        self.flags.local = true;
        self
    }

    /// Lets a client that cannot take the event at once go without it: one over WebSocket for which something waits to be
    /// written, one on polling without a pending GET.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Sends an event. Returns when it was handed to every selected socket of this instance; other instances are not waited
    /// for, and an outage of Redis is no error. A selection of nobody is none either.
    ///
    /// # Errors
    /// A value does not serialise to JSON, or the instance is stopping.
    pub async fn emit(self, name: &str, args: impl IntoArgs) -> Result<(), HandlerError> {
        let args = args.into_args(Some(name))?;
        Ok(self.emit_args(args).await?)
    }

    /// Sends an event that is put together already; its first argument is its name.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn emit_args(self, args: Args) -> Result<(), Gone> {
        let Self {
            hub,
            namespace,
            target,
            flags,
        } = self;
        let broadcast = Broadcast {
            namespace,
            target,
            flags,
            args,
        };
        let delivered = hub.send(Originate(broadcast)).await;
        mail::note();
        delivered.or(Err(Gone))
    }
}
