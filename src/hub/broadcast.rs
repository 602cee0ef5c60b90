//! A broadcast: what goes to whom.
//!
//! Plain data, no actor: the hub resolves it against its rooms, the bridge carries it between instances.
//!
//! Source: Socket.IO server API (`to`, `in`, `except`, `volatile`); wire.md 2.5 (room selection), 3.2.

use crate::socket_io::{
    args::Args,
    ids::{Namespace, Room, SocketId},
};

/// One event for the sockets that `target` selects in `namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The namespace; nothing crosses from one to another.
    pub namespace: Namespace,
    /// Which of its sockets.
    pub target: Target,
    /// How to deliver.
    pub flags: Flags,
    /// Event name and arguments.
    pub args: Args,
}

/// Which sockets of a namespace: those in any of `rooms` (all, if it is empty) that are in none of `except`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Union of rooms; empty selects the whole namespace.
    pub rooms: Vec<Room>,
    /// Rooms whose members are left out. A sender excludes itself by the room that its id names.
    pub except: Vec<Room>,
}

impl Target {
    /// Returns the one that is a single socket.
    pub fn one(socket_id: &SocketId) -> Self {
        Self {
            rooms: vec![socket_id.room()],
            except: Vec::new(),
        }
    }
}

/// How a broadcast is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A client that cannot take it at once goes without it.
    pub volatile: bool,
    /// The sender's wish about WebSocket compression (`compress: false`). We compress nothing, but other
    /// instances may, so the wish travels along.
    pub compress: Option<bool>,
}

impl Broadcast {
    /// Returns a broadcast to every socket of `namespace`.
    pub fn to_all(namespace: Namespace, args: Args) -> Self {
        Self {
            namespace,
            target: Target::default(),
            flags: Flags::default(),
            args,
        }
    }
}
