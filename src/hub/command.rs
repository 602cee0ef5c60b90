//! A command: what instances are to do, and none answers.
//!
//! Plain data, no actor. The hub obeys it here and hands it to the bridge, which carries it to the others.
//!
//! Source: Socket.IO server API (`emit`, `socketsJoin`, `socketsLeave`, `disconnectSockets`, `serverSideEmit`); wire.md 3.2, 3.3.

use super::broadcast::{Broadcast, Target};
use crate::socket_io::{
    args::Args,
    ids::{Namespace, Room},
};

/// What instances are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send an event to the selected sockets.
    Broadcast(Broadcast),
    /// Put the selected sockets into rooms.
    Join {
        /// Of which namespace.
        namespace: Namespace,
        /// Which of its sockets.
        target: Target,
        /// The rooms.
        rooms: Vec<Room>,
    },
    /// Take the selected sockets out of rooms.
    Leave {
        /// Of which namespace.
        namespace: Namespace,
        /// Which of its sockets.
        target: Target,
        /// The rooms.
        rooms: Vec<Room>,
    },
    /// Take the selected sockets out of the namespace.
    Disconnect {
        /// Of which namespace.
        namespace: Namespace,
        /// Which of its sockets.
        target: Target,
        /// Whether their clients' whole connections end.
        whole_connection: bool,
    },
    /// Call the servers' own handlers of an event. Not for clients, and not for the instance that says it.
    ServerEvent {
        /// The namespace whose gateway has the handlers.
        namespace: Namespace,
        /// Event name and arguments.
        args: Args,
    },
}

impl Command {
    /// Returns the namespace that it is about.
    pub fn namespace(&self) -> &Namespace {
        match self {
            Self::Broadcast(broadcast) => &broadcast.namespace,
            Self::Join { namespace, .. }
            | Self::Leave { namespace, .. }
            | Self::Disconnect { namespace, .. }
            | Self::ServerEvent { namespace, .. } => namespace,
        }
    }

    /// Returns which sockets of it; none if it is about no sockets.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Broadcast(broadcast) => Some(&broadcast.target),
            Self::Join { target, .. }
            | Self::Leave { target, .. }
            | Self::Disconnect { target, .. } => Some(target),
            Self::ServerEvent { .. } => None,
        }
    }
}
