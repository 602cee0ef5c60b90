//! Why a message could not be read.
//!
//! Nothing here reaches a client: the bridge counts these and logs them at debug level.

use crate::msgpack;

/// A message that cannot be put on the wire. Each is a fault of whoever built it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its arguments cannot be written as MessagePack.
    #[error(transparent)]
    MessagePack(#[from] msgpack::EncodeError),
    /// The event has no name: nothing, or neither text nor a finite number.
    #[error("event has no name")]
    EventName,
    /// An event for servers with a name that means something else to them: another server would take it for its own
    /// `connection`, or end, as a Node server does at an `error` for which nobody listens.
    #[error("event name is reserved")]
    ReservedName,
    /// The sharded adapter has no such message.
    #[error("no such message in the sharded adapter")]
    NotSharded,
}

/// Bytes that are no message of ours to take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no sound MessagePack, or their arguments are none that we take.
    #[error(transparent)]
    MessagePack(#[from] msgpack::DecodeError),
    /// The message is not an array of three.
    #[error("message is not an array of 3")]
    Arity,
    /// The sender's name is not text, or that of a request is longer than [`super::MAX_ID_BYTES`].
    #[error("uid is not text, or too long")]
    Uid,
    /// The packet is not a map, or one of its known keys is of the wrong type or missing.
    #[error("packet has no valid {key:?}")]
    Packet {
        /// Which key; empty if the packet itself is no map.
        key: &'static str,
    },
    /// The options are not a map, or one of their known keys is of the wrong type.
    #[error("options have no valid {key:?}")]
    Options {
        /// Which key; empty if the options themselves are no map.
        key: &'static str,
    },
    /// The packet is no EVENT.
    #[error("packet type {number} is not 2")]
    PacketType {
        /// Its type.
        number: u64,
    },
    /// The event name is neither text nor a finite number, or there is none.
    #[error("event has no name")]
    EventName,
    /// The message is no object.
    #[error("message is no object")]
    Object,
    /// A member that this type of message needs is missing or of the wrong type.
    #[error("message has no valid {key:?}")]
    Member {
        /// Which.
        key: &'static str,
    },
    /// The message is about another namespace than its channel, or says about none.
    #[error("message is about another namespace")]
    Namespace,
    /// A type of message that is not known here.
    #[error("unknown message type {number}")]
    Type {
        /// Which.
        number: u64,
    },
    /// A longer list of sockets or rooms in a response than is taken.
    #[error("more than {max} sockets or rooms in a response")]
    Listed {
        /// The limit.
        max: usize,
    },
    /// More rooms than [`super::message::MAX_ROOMS`].
    #[error("more than {max} rooms")]
    Rooms {
        /// The limit.
        max: usize,
    },
}
