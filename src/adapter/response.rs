//! Responses between instances: what one tells another that asked.
//!
//! Pure. The values are the same for both adapters; the bytes here are the classic adapter's, `super::sharded` has the
//! other's. Written byte for byte as Node writes them, read as hostile.
//!
//! ```text
//! {requestId,sockets:["…"]}          SocketIds         no type: only who asked knows what an answer is to
//! {requestId,sockets:[{…}]}          Fetched           an empty list may be either, and is read as this one
//! {requestId,rooms}                  AllRooms
//! {requestId}                        Done
//! {type:6,requestId,[data]}          ServerSideReply
//! {type:8,requestId,clientCount}     ClientCount
//! {type:9,requestId,[packet]}        Ack               always MessagePack
//! ```
//! Node's responses do not say who gives them. One of Sockhop to another does, by a last key `uid`, but for acks, of which there
//! may be several; Node passes over keys that it does not know.
//!
//! Source: @socket.io/redis-adapter 8.3 (`onrequest`, `onresponse`); wire.md 3.3, 3.6.

use bytes::Bytes;
use rmp::encode::ByteBuf;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    DecodeError, EncodeError,
    opened::{Opened, first_only, only_value, write_only},
    parts::{Sockets, read_listed_rooms, read_sockets, read_text, read_uint},
    request::RequestId,
    uid::Uid,
};
use crate::{
    msgpack::to_msgpack::{write_map_len, write_str, write_uint},
    socket::snapshot::SocketSnapshot,
    socket_io::{
        args::Args,
        ids::{Room, SocketId},
        object,
    },
};

/// What one instance answers another.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To `SocketIds`.
    SocketIds {
        /// Whose response this is.
        id: RequestId,
        /// The sockets of this instance that were asked for.
        sockets: Vec<SocketId>,
    },
    /// To `AllRooms`.
    AllRooms {
        /// Whose response this is.
        id: RequestId,
        /// The rooms of this instance, those that are named by a socket's id included.
        rooms: Vec<Room>,
    },
    /// To `Fetch`. An empty list may be the answer to `SocketIds`, too.
    Fetched {
        /// Whose response this is.
        id: RequestId,
        /// The sockets of this instance that were asked for.
        sockets: Vec<SocketSnapshot>,
    },
    /// To `JoinOne`, `LeaveOne` and `DisconnectOne`.
    Done {
        /// Whose response this is.
        id: RequestId,
    },
    /// To `ServerSideEmit`.
    ServerSideReply {
        /// Whose response this is.
        id: RequestId,
        /// One value, or none where JavaScript has `undefined`. Elements behind the first are not written.
        value: Args,
    },
    /// To `Broadcast`, once: how many clients were sent it.
    ClientCount {
        /// Whose response this is.
        id: RequestId,
        /// May be zero.
        num_clients: u64,
    },
    /// To `Broadcast`, once for each client's ack.
    Ack {
        /// Whose response this is.
        id: RequestId,
        /// What the client acknowledged with; only the first argument travels, if there is one.
        args: Args,
    },
}

impl Response {
    /// Returns whose response this is.
    pub fn id(&self) -> &RequestId {
        match self {
            Self::SocketIds { id, .. }
            | Self::AllRooms { id, .. }
            | Self::Fetched { id, .. }
            | Self::Done { id }
            | Self::ServerSideReply { id, .. }
            | Self::ClientCount { id, .. }
            | Self::Ack { id, .. } => id,
        }
    }
}

/// The `type` of those responses that have one.
mod kind {
    pub(super) const SERVER_SIDE_EMIT: u64 = 6;
    pub(super) const BROADCAST_CLIENT_COUNT: u64 = 8;
    pub(super) const BROADCAST_ACK: u64 = 9;
}

/// A response in JSON, its keys in Node's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<u64>,
    request_id: &'a RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a [Room]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<WireSockets<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireSockets<'a> {
    Ids(&'a [SocketId]),
    Snapshots(&'a [SocketSnapshot]),
}

/// A response and who gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Who, if the response says so. Not checked to be a [`Uid`].
    pub uid: Option<String>,
    /// What.
    pub response: Response,
}

/// Writes `response` as the classic adapter publishes it; it says that it is of `uid`, if there is one.
///
/// # Errors
/// The value of a reply or an ack is not what [`Args`] promises, or not fit for the wire; see [`EncodeError`].
pub fn encode(response: &Response, uid: Option<&Uid>) -> Result<Bytes, EncodeError> {
    let blank = Wire {
        r#type: None,
        request_id: response.id(),
        rooms: None,
        data: None,
        client_count: None,
        sockets: None,
        uid: uid.map(Uid::as_str),
    };
    let wire = match response {
        Response::SocketIds { id: _, sockets } => Wire {
            sockets: Some(WireSockets::Ids(sockets)),
            ..blank
        },
        Response::AllRooms { id: _, rooms } => Wire {
            rooms: Some(rooms),
            ..blank
        },
        Response::Fetched { id: _, sockets } => Wire {
            sockets: Some(WireSockets::Snapshots(sockets)),
            ..blank
        },
        Response::Done { id: _ } => blank,
        Response::ServerSideReply { id: _, value } => Wire {
            r#type: Some(kind::SERVER_SIDE_EMIT),
            data: only_value(&first_only(value)?)?,
            ..blank
        },
        Response::ClientCount { id: _, num_clients } => Wire {
            r#type: Some(kind::BROADCAST_CLIENT_COUNT),
            client_count: Some(*num_clients),
            ..blank
        },
        Response::Ack { id, args } => return encode_ack(id, args),
    };
    let text = serde_json::to_vec(&wire).expect("texts, numbers and JSON have a JSON form");
    Ok(Bytes::from(text))
}

fn encode_ack(id: &RequestId, args: &Args) -> Result<Bytes, EncodeError> {
    let mut value = ByteBuf::new();
    let has_value = write_only(&mut value, &first_only(args)?)?;
    let mut buf = ByteBuf::with_capacity(value.as_slice().len() + 64);
    let out = &mut buf;
    write_map_len(out, 2 + usize::from(has_value))?;
    write_str(out, "type")?;
    write_uint(out, kind::BROADCAST_ACK);
    write_str(out, "requestId")?;
    write_str(out, id.as_str())?;
    if has_value {
        write_str(out, "packet")?;
        out.as_mut_vec().extend_from_slice(value.as_slice());
    }
    Ok(Bytes::from(buf.into_vec()))
}

/// A response of which no more has been read than whose it is.
pub struct Envelope {
    opened: Opened,
    id: RequestId,
}

impl Envelope {
    /// Opens a response.
    ///
    /// # Errors
    /// It is none, or does not say whose it is; see [`DecodeError`].
    pub fn open(bytes: &Bytes) -> Result<Self, DecodeError> {
        let opened = Opened::new(bytes)?;
        let [id] = object::members(opened.text(), ["requestId"]).ok_or(DecodeError::Object)?;
        let id = RequestId::from(read_text(id, "requestId")?);
        Ok(Self { opened, id })
    }

    /// Returns whose response this is.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Reads the rest.
    ///
    /// # Errors
    /// Anything that no sender in use writes; see [`DecodeError`].
    pub fn decode(self) -> Result<Received, DecodeError> {
        let Self { opened, id } = self;
        read(&opened, id)
    }
}

/// Reads a response.
///
/// # Errors
/// Anything that no sender in use writes; see [`DecodeError`].
pub fn decode(bytes: &Bytes) -> Result<Received, DecodeError> {
    Envelope::open(bytes)?.decode()
}

fn read(opened: &Opened, id: RequestId) -> Result<Received, DecodeError> {
    let [kind, sockets, rooms, client_count, data, packet, uid] = object::members_and_nulls(
        opened.text(),
        [
            "type",
            "sockets",
            "rooms",
            "clientCount",
            "data",
            "packet",
            "uid",
        ],
    )
    .ok_or(DecodeError::Object)?;
    // In a value, null is one.
    let [kind, sockets, rooms, client_count] =
        [kind, sockets, rooms, client_count].map(object::not_null);
    // What is no text is of no use, and no reason to lose the answer.
    let uid = uid.and_then(|uid| read_text(Some(uid), "uid").ok());
    let received = |response| Received { uid, response };
    let Some(kind) = kind else {
        return Ok(received(match (sockets, rooms) {
            (Some(sockets), _) => match read_sockets(opened, sockets)? {
                Sockets::Ids(sockets) => Response::SocketIds { id, sockets },
                Sockets::Snapshots(sockets) => Response::Fetched { id, sockets },
            },
            (None, Some(rooms)) => Response::AllRooms {
                id,
                rooms: read_listed_rooms(rooms)?,
            },
            (None, None) => Response::Done { id },
        }));
    };
    Ok(received(match read_uint(Some(kind), "type")? {
        kind::SERVER_SIDE_EMIT => Response::ServerSideReply {
            id,
            value: opened.value(data)?,
        },
        kind::BROADCAST_CLIENT_COUNT => Response::ClientCount {
            id,
            num_clients: read_uint(client_count, "clientCount")?,
        },
        kind::BROADCAST_ACK => Response::Ack {
            id,
            args: opened.value(packet)?,
        },
        number => return Err(DecodeError::Type { number }),
    }))
}

#[cfg(test)]
#[path = "response_tests.rs"]
pub(in crate::adapter) mod tests;
