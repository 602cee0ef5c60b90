//! Why a message could not be read.
//!
//! Nothing here reaches a client: the bridge counts these and logs them at debug level.

use crate::msgpack;

/// Bytes that are no broadcast of ours to deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no sound MessagePack, or their arguments are none that we take.
    #[error(transparent)]
    MessagePack(#[from] msgpack::DecodeError),
    /// The message is not an array of three.
    #[error("message is not an array of 3")]
    Arity,
    /// The first element is not text.
    #[error("uid is not text")]
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
    /// More rooms than [`super::message::MAX_ROOMS`].
    #[error("more than {max} rooms")]
    Rooms {
        /// The limit.
        max: usize,
    },
}
