//! A question: what instances are asked, and what they answer.
//!
//! Plain data, no actor. Whoever asks holds the other end of an [`Answers`] channel and decides when it has heard enough;
//! every instance, the own one included, answers into it, and the bridge carries both across.
//!
//! ```text
//! gateway ──Ask──▶ Hub ──▶ answers of this instance ──────────────▶ Answers ──▶ gateway
//!                   └──Ask──▶ RedisBridge ══▶ others ══▶ RedisBridge ──▶ Answers
//! ```
//! Source: Socket.IO server API (`fetchSockets`, `allRooms`, broadcast with acks, `serverSideEmit` with ack); wire.md 3.3, 3.4.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::broadcast::{Broadcast, Target};
use crate::{
    engine_io::sid::InstanceId,
    socket::{acks::Acked, record::Record, snapshot::SocketSnapshot},
    socket_io::{
        args::Args,
        ids::{Room, SocketId},
    },
};

/// What instances are asked about one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The ids of the selected sockets. Older Node servers ask it.
    SocketIds {
        /// Which sockets.
        target: Target,
    },
    /// All rooms that have members, those that socket ids name included.
    Rooms,
    /// Everything about the selected sockets.
    Sockets {
        /// Which sockets.
        target: Target,
    },
    /// To send an event to the selected sockets, and what each of their clients answers.
    Broadcast {
        /// The event; its namespace is the question's.
        broadcast: Broadcast,
        /// How long clients have.
        timeout: Duration,
        /// Whether whoever asks is content with one answer.
        expects_one: bool,
    },
    /// To call the servers' own handlers of an event, and what they return. Not for the instance that asks.
    ServerEvent {
        /// Event name and arguments.
        args: Args,
    },
}

impl Question {
    /// Returns the selection that it is about, if it is not about all.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::SocketIds { target } | Self::Sockets { target } => Some(target),
            Self::Broadcast { broadcast, .. } => Some(&broadcast.target),
            Self::Rooms | Self::ServerEvent { .. } => None,
        }
    }
}

/// What comes back, in any order.
#[derive(Clone, Debug)]
pub enum Answer {
    /// How many other instances were asked. Once, from whoever asks them; until then nobody knows when it has heard all.
    Asked {
        /// How many answers of other instances can be expected: several [`Answer::Ack`]s, one of anything else.
        num_instances: usize,
        /// Those of them whose names are known. There may be others, and some of these may not have been asked.
        peers: Vec<InstanceId>,
    },
    /// Others cannot be asked, or not be heard any more. Nothing more of them will come.
    Unreachable {
        /// Why, for people.
        reason: String,
    },
    /// What another instance answers; all else comes from this one.
    OfOther {
        /// Who, if that is known.
        by: Option<InstanceId>,
        /// What.
        answer: Box<Answer>,
    },
    /// Ids of an instance's sockets.
    SocketIds(Vec<SocketId>),
    /// Rooms of an instance.
    Rooms(Vec<Room>),
    /// Sockets of this instance.
    Found(Vec<Found>),
    /// Sockets of another instance.
    Sockets(Vec<SocketSnapshot>),
    /// How many clients of an instance the event goes to.
    NumClients(u64),
    /// The event has gone to a client more: one of a session that moved to this instance meanwhile.
    OneMore,
    /// What a client acknowledged.
    Ack(Acked),
    /// A client has acknowledged, and too little is left to keep it: no ack of it will come.
    Unkept,
    /// What another server's handler returned.
    ServerReply(Args),
}

/// A socket of this instance, and where it is at the moment.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who it is.
    pub record: Arc<Record>,
    /// Its rooms, the one that its id names included.
    pub rooms: Vec<Room>,
}

impl Found {
    /// Returns what others are told of it.
    pub fn snapshot(&self) -> SocketSnapshot {
        self.record.snapshot(self.rooms.clone())
    }
}

/// Where answers go. Not bounded, because everything that fills it is: acks by what may wait for all clients, all else by the sockets of
/// this instance, and what others say by the bridge's limits.
pub type Answers = mpsc::UnboundedSender<Answer>;
