//! Requests between instances: what one asks all others to do or to tell.
//!
//! Pure. The values are the same for both adapters; the bytes here are the classic adapter's, `super::sharded` has the
//! other's. Written byte for byte as Node writes them; read as hostile, with the tolerance that senders in use need: no
//! `uid` or `emitter` for one, no `flags`, numbers for rooms, repeated and unknown keys.
//!
//! ```text
//! 0  {uid,requestId,type,rooms}            SocketIds        older servers
//! 1  {uid,requestId,type}                  AllRooms
//! 2  {uid,type,opts,rooms}                 Join             {uid,requestId,type,sid,room}   JoinOne, older servers
//! 3  the same                              Leave            the same                        LeaveOne
//! 4  {uid,type,opts,close}                 Disconnect       {uid,requestId,type,sid,close}  DisconnectOne
//! 5  {uid,requestId,type,opts}             Fetch
//! 6  {uid,[requestId],type,data}           ServerSideEmit
//! 7  {uid,requestId,type,packet,opts}      Broadcast        always MessagePack
//! ```
//! Source: @socket.io/redis-adapter 8.3 (`onrequest`), @socket.io/redis-emitter 5.1; wire.md 3.3, 3.7, 5.

use std::{fmt, time::Duration};

use bytes::Bytes;
use rmp::encode::ByteBuf;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    DecodeError, EncodeError,
    message::{AckFlags, write_options, write_packet},
    opened::{Opened, check_event, json_alone},
    parts::{
        Opts, raw, read_close, read_flags, read_id, read_packet, read_room, read_rooms,
        read_target, read_text, read_uid, read_uint,
    },
    uid::Uid,
};
use crate::{
    hub::broadcast::{Broadcast, Target},
    msgpack::to_msgpack::{write_map_len, write_str, write_uint},
    socket_io::{
        args::Args,
        ids::{Namespace, Room, SocketId},
        object,
        reserved::RESERVED_SERVER_EVENTS,
    },
};

/// Random bytes of a request's id: 16 characters of lower-case hex, as the sharded adapter has them.
const REQUEST_ID_BYTES: usize = 8;

/// What the ids begin with that instances of Sockhop choose.
const OURS: &str = "sockhop-";

/// What a request's responses refer to. Others choose theirs freely, so it is any text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Returns a fresh one with 64 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; REQUEST_ID_BYTES];
        getrandom::fill(&mut bytes)?;
        let number = u64::from_be_bytes(bytes);
        Ok(Self(format!("{number:016x}")))
    }

    /// Returns the `number`-th of the instance `uid`. Whoever answers an instance of Sockhop sees by it that it does.
    pub fn of_ours(uid: &Uid, number: u64) -> Self {
        Self(format!("{OURS}{uid}-{number}"))
    }

    /// Returns whether an instance of Sockhop asks, as far as it can be told.
    pub fn is_of_ours(&self) -> bool {
        self.0.starts_with(OURS)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RequestId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for RequestId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({:?})", self.0)
    }
}

/// What one instance asks the others. Which namespace is meant says the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which sockets are in any of these rooms? (All, if there are none.) Asked by older servers.
    SocketIds {
        /// What the response refers to.
        id: RequestId,
        /// Union of rooms.
        rooms: Vec<Room>,
    },
    /// Which rooms are there?
    AllRooms {
        /// What the response refers to.
        id: RequestId,
    },
    /// Let these sockets join rooms. No response.
    Join {
        /// Which sockets.
        target: Target,
        /// Which rooms.
        rooms: Vec<Room>,
    },
    /// Let these sockets leave rooms. No response.
    Leave {
        /// Which sockets.
        target: Target,
        /// Which rooms.
        rooms: Vec<Room>,
    },
    /// Disconnect these sockets. No response.
    Disconnect {
        /// Which sockets.
        target: Target,
        /// Whether the whole session ends, or the namespace is left only.
        close: bool,
    },
    /// Whoever has this socket lets it join a room. Asked by older servers.
    JoinOne {
        /// What the response refers to; none is expected without it.
        id: Option<RequestId>,
        /// The socket.
        socket_id: SocketId,
        /// The room.
        room: Room,
    },
    /// Whoever has this socket lets it leave a room. Asked by older servers.
    LeaveOne {
        /// What the response refers to; none is expected without it.
        id: Option<RequestId>,
        /// The socket.
        socket_id: SocketId,
        /// The room.
        room: Room,
    },
    /// Whoever has this socket disconnects it. Asked by older servers.
    DisconnectOne {
        /// What the response refers to; none is expected without it.
        id: Option<RequestId>,
        /// The socket.
        socket_id: SocketId,
        /// Whether the whole session ends, or the namespace is left only.
        close: bool,
    },
    /// Tell of these sockets.
    Fetch {
        /// What the response refers to.
        id: RequestId,
        /// Which sockets.
        target: Target,
    },
    /// An event for the servers themselves.
    ServerSideEmit {
        /// What the response refers to; none is expected without it.
        id: Option<RequestId>,
        /// Event name and arguments.
        args: Args,
    },
    /// A broadcast whose recipients acknowledge it.
    Broadcast {
        /// What the responses refer to.
        id: RequestId,
        /// What goes to whom.
        broadcast: Broadcast,
        /// How long the requester waits for acks, at most [`super::MAX_TIMEOUT`] when read.
        timeout: Option<Duration>,
        /// Whether the requester expects one client and one ack.
        expect_single_response: bool,
    },
}

/// A request and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The requester: another instance, `emitter`, or unknown. Not checked to be a [`Uid`].
    pub uid: Option<String>,
    /// What it asks.
    pub request: Request,
}

/// The `type` of each request; 8 and 9 are responses.
pub(super) mod kind {
    pub(in crate::adapter) const SOCKETS: u64 = 0;
    pub(in crate::adapter) const ALL_ROOMS: u64 = 1;
    pub(in crate::adapter) const REMOTE_JOIN: u64 = 2;
    pub(in crate::adapter) const REMOTE_LEAVE: u64 = 3;
    pub(in crate::adapter) const REMOTE_DISCONNECT: u64 = 4;
    pub(in crate::adapter) const REMOTE_FETCH: u64 = 5;
    pub(in crate::adapter) const SERVER_SIDE_EMIT: u64 = 6;
    pub(in crate::adapter) const BROADCAST: u64 = 7;
}

/// Checks the arguments of an event for servers; returns nothing but that they may be sent.
pub(super) fn check_server_side(args: &Args) -> Result<(), EncodeError> {
    let name = object::string(check_event(args)?);
    match name.is_some_and(|name| RESERVED_SERVER_EVENTS.contains(&&*name)) {
        true => Err(EncodeError::ReservedName),
        false => Ok(()),
    }
}

/// A request in JSON, its keys in Node's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RequestId>,
    r#type: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<Opts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a [Room]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// Writes `request` about `namespace` as the instance `uid` publishes it with the classic adapter.
///
/// # Errors
/// The arguments of an event are not what [`Args`] promises, or not fit for the wire; see [`EncodeError`].
pub fn encode(uid: &Uid, namespace: &Namespace, request: &Request) -> Result<Bytes, EncodeError> {
    let data;
    let blank = Wire {
        uid: uid.as_str(),
        request_id: None,
        r#type: 0,
        opts: None,
        sid: None,
        room: None,
        rooms: None,
        close: None,
        data: None,
    };
    let wire = match request {
        Request::SocketIds { id, rooms } => Wire {
            request_id: Some(id),
            r#type: kind::SOCKETS,
            rooms: Some(rooms),
            ..blank
        },
        Request::AllRooms { id } => Wire {
            request_id: Some(id),
            r#type: kind::ALL_ROOMS,
            ..blank
        },
        Request::Join { target, rooms } => Wire {
            r#type: kind::REMOTE_JOIN,
            opts: Some(Opts::new(target, None)),
            rooms: Some(rooms),
            ..blank
        },
        Request::Leave { target, rooms } => Wire {
            r#type: kind::REMOTE_LEAVE,
            opts: Some(Opts::new(target, None)),
            rooms: Some(rooms),
            ..blank
        },
        Request::Disconnect { target, close } => Wire {
            r#type: kind::REMOTE_DISCONNECT,
            opts: Some(Opts::new(target, None)),
            close: Some(*close),
            ..blank
        },
        Request::JoinOne {
            id,
            socket_id,
            room,
        } => Wire {
            request_id: id.as_ref(),
            r#type: kind::REMOTE_JOIN,
            sid: Some(socket_id),
            room: Some(room),
            ..blank
        },
        Request::LeaveOne {
            id,
            socket_id,
            room,
        } => Wire {
            request_id: id.as_ref(),
            r#type: kind::REMOTE_LEAVE,
            sid: Some(socket_id),
            room: Some(room),
            ..blank
        },
        Request::DisconnectOne {
            id,
            socket_id,
            close,
        } => Wire {
            request_id: id.as_ref(),
            r#type: kind::REMOTE_DISCONNECT,
            sid: Some(socket_id),
            close: Some(*close),
            ..blank
        },
        Request::Fetch { id, target } => Wire {
            request_id: Some(id),
            r#type: kind::REMOTE_FETCH,
            opts: Some(Opts::new(target, None)),
            ..blank
        },
        Request::ServerSideEmit { id, args } => {
            check_server_side(args)?;
            data = json_alone(args)?;
            Wire {
                request_id: id.as_ref(),
                r#type: kind::SERVER_SIDE_EMIT,
                data: Some(raw(&data)),
                ..blank
            }
        }
        Request::Broadcast {
            id,
            broadcast,
            timeout,
            expect_single_response,
        } => {
            let ack_flags = AckFlags {
                timeout: *timeout,
                expect_single_response: *expect_single_response,
            };
            return encode_broadcast(uid, namespace, id, broadcast, ack_flags);
        }
    };
    let text = serde_json::to_vec(&wire).expect("texts, numbers and JSON have a JSON form");
    Ok(Bytes::from(text))
}

fn encode_broadcast(
    uid: &Uid,
    namespace: &Namespace,
    id: &RequestId,
    broadcast: &Broadcast,
    ack_flags: AckFlags,
) -> Result<Bytes, EncodeError> {
    check_event(&broadcast.args)?;
    let mut buf = ByteBuf::with_capacity(broadcast.args.len_bytes() + 160);
    let out = &mut buf;
    write_map_len(out, 5)?;
    write_str(out, "uid")?;
    write_str(out, uid.as_str())?;
    write_str(out, "requestId")?;
    write_str(out, id.as_str())?;
    write_str(out, "type")?;
    write_uint(out, kind::BROADCAST);
    write_str(out, "packet")?;
    write_packet(out, namespace, &broadcast.args)?;
    write_str(out, "opts")?;
    write_options(out, &broadcast.target, broadcast.flags, ack_flags)?;
    Ok(Bytes::from(buf.into_vec()))
}

/// Reads a request that came on the request channel of `namespace`.
///
/// # Errors
/// Anything that no sender in use writes; see [`DecodeError`].
pub fn decode(namespace: &Namespace, bytes: &Bytes) -> Result<Received, DecodeError> {
    let opened = Opened::new(bytes)?;
    let [uid, id, kind, opts, sid, room, rooms, close, data, packet] = object::members(
        opened.text(),
        [
            "uid",
            "requestId",
            "type",
            "opts",
            "sid",
            "room",
            "rooms",
            "close",
            "data",
            "packet",
        ],
    )
    .ok_or(DecodeError::Object)?;
    let id = match id {
        None => None,
        Some(id) => Some(read_id(Some(id))?),
    };
    let needed_id = |id: Option<RequestId>| id.ok_or(DecodeError::Member { key: "requestId" });
    let no_rooms = DecodeError::Member { key: "rooms" };
    let needed_opts = || opts.ok_or(DecodeError::Options { key: "" });
    let socket_id = || read_text(sid, "sid").map(SocketId::from);
    let room = || {
        let room = room.and_then(read_room);
        room.ok_or(DecodeError::Member { key: "room" })
    };
    let request = match read_uint(kind, "type")? {
        kind::SOCKETS => Request::SocketIds {
            id: needed_id(id)?,
            rooms: read_rooms(rooms, no_rooms)?,
        },
        kind::ALL_ROOMS => Request::AllRooms { id: needed_id(id)? },
        kind::REMOTE_JOIN => match opts {
            Some(opts) => Request::Join {
                target: read_target(opts)?,
                rooms: read_rooms(rooms, no_rooms)?,
            },
            None => Request::JoinOne {
                id,
                socket_id: socket_id()?,
                room: room()?,
            },
        },
        kind::REMOTE_LEAVE => match opts {
            Some(opts) => Request::Leave {
                target: read_target(opts)?,
                rooms: read_rooms(rooms, no_rooms)?,
            },
            None => Request::LeaveOne {
                id,
                socket_id: socket_id()?,
                room: room()?,
            },
        },
        kind::REMOTE_DISCONNECT => match opts {
            Some(opts) => Request::Disconnect {
                target: read_target(opts)?,
                close: read_close(close)?,
            },
            None => Request::DisconnectOne {
                id,
                socket_id: socket_id()?,
                close: read_close(close)?,
            },
        },
        kind::REMOTE_FETCH => Request::Fetch {
            id: needed_id(id)?,
            target: read_target(needed_opts()?)?,
        },
        kind::SERVER_SIDE_EMIT => Request::ServerSideEmit {
            id,
            args: opened.event(data.ok_or(DecodeError::Member { key: "data" })?)?,
        },
        kind::BROADCAST => {
            let opts = needed_opts()?;
            let (flags, ack_flags) = read_flags(opts)?;
            let packet = packet.ok_or(DecodeError::Packet { key: "" })?;
            Request::Broadcast {
                id: needed_id(id)?,
                broadcast: Broadcast {
                    // The packet's own `nsp` says nothing: Node puts the channel's there.
                    namespace: namespace.clone(),
                    target: read_target(opts)?,
                    flags,
                    args: read_packet(&opened, packet)?,
                },
                timeout: ack_flags.timeout,
                expect_single_response: ack_flags.expect_single_response,
            }
        }
        number => return Err(DecodeError::Type { number }),
    };
    Ok(Received {
        uid: read_uid(uid)?,
        request,
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
pub(in crate::adapter) mod tests;
