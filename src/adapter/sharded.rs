//! The sharded adapter's messages: `{type, data, uid, nsp}`, JSON unless there is something binary in it.
//!
//! Pure. The values are those of the classic adapter ([`super::request`], [`super::response`]), so that who answers them
//! need not know which adapter is spoken. Written byte for byte as Node writes them; read as hostile.
//!
//! ```text
//!  3  {packet:{type:2,data},[requestId],opts}    Broadcast, and the request of that name if it has an id
//!  4  {opts,rooms}                               Join
//!  5  {opts,rooms}                               Leave
//!  6  {opts,close}                               Disconnect
//!  7  {opts,requestId}                           Fetch
//!  8  {requestId,sockets}                        Fetched
//!  9  {[requestId],packet:[name,…]}              ServerSideEmit
//! 10  {requestId,[packet]}                       ServerSideReply
//! 11  {requestId,clientCount}                    ClientCount
//! 12  {requestId,[packet]}                       Ack
//! ```
//! Sockets' data never hold anything binary here: [`SocketSnapshot`] is JSON. 1, 2 and 13 belong to other adapters.
//!
//! Source: @socket.io/redis-adapter 8.3 (`createShardedAdapter`), socket.io-adapter 2.5 (`ClusterAdapter`); wire.md 4.3.

use bytes::Bytes;
use rmp::encode::ByteBuf;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    DecodeError, EncodeError,
    incoming::{Body, Incoming},
    message::{AckFlags, EVENT, write_options},
    opened::{Opened, check_event, first_only, json_alone, only_value, write_only},
    parts::{
        Opts, Sockets, WireFlags, raw, read_close, read_flags, read_id, read_packet, read_rooms,
        read_sockets, read_target, read_uid, read_uint,
    },
    request::{Request, RequestId, check_server_side},
    response::Response,
    uid::Uid,
};
use crate::{
    hub::broadcast::{Broadcast, Target},
    msgpack::to_msgpack::{write_array, write_map_len, write_str, write_uint},
    socket::snapshot::SocketSnapshot,
    socket_io::{
        args::Args,
        ids::{Namespace, Room},
        object,
    },
};

mod kind {
    pub(super) const BROADCAST: u64 = 3;
    pub(super) const SOCKETS_JOIN: u64 = 4;
    pub(super) const SOCKETS_LEAVE: u64 = 5;
    pub(super) const DISCONNECT_SOCKETS: u64 = 6;
    pub(super) const FETCH_SOCKETS: u64 = 7;
    pub(super) const FETCH_SOCKETS_RESPONSE: u64 = 8;
    pub(super) const SERVER_SIDE_EMIT: u64 = 9;
    pub(super) const SERVER_SIDE_EMIT_RESPONSE: u64 = 10;
    pub(super) const BROADCAST_CLIENT_COUNT: u64 = 11;
    pub(super) const BROADCAST_ACK: u64 = 12;

    pub(super) fn is_response(kind: u64) -> bool {
        matches!(
            kind,
            FETCH_SOCKETS_RESPONSE
                | SERVER_SIDE_EMIT_RESPONSE
                | BROADCAST_CLIENT_COUNT
                | BROADCAST_ACK
        )
    }
}

/// A message in JSON, its keys in Node's order.
#[derive(Serialize)]
struct Wire<'a> {
    r#type: u64,
    data: Data<'a>,
    uid: &'a str,
    nsp: &'a Namespace,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Data<'a> {
    Broadcast {
        packet: Packet<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a RequestId>,
        opts: Opts<'a>,
    },
    Rooms {
        opts: Opts<'a>,
        rooms: &'a [Room],
    },
    Disconnect {
        opts: Opts<'a>,
        close: bool,
    },
    Fetch {
        opts: Opts<'a>,
        request_id: &'a RequestId,
    },
    Fetched {
        request_id: &'a RequestId,
        sockets: &'a [SocketSnapshot],
    },
    Event {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a RequestId>,
        packet: &'a RawValue,
    },
    Value {
        request_id: &'a RequestId,
        #[serde(skip_serializing_if = "Option::is_none")]
        packet: Option<Box<RawValue>>,
    },
    ClientCount {
        request_id: &'a RequestId,
        client_count: u64,
    },
}

#[derive(Serialize)]
struct Packet<'a> {
    r#type: u64,
    data: &'a RawValue,
}

/// Writes `broadcast` as the instance `uid` publishes it.
///
/// # Errors
/// The arguments are not what [`Args`] promises, or not fit for the wire; see [`EncodeError`].
pub fn encode_broadcast(uid: &Uid, broadcast: &Broadcast) -> Result<Bytes, EncodeError> {
    let namespace = &broadcast.namespace;
    write_broadcast(uid, namespace, None, broadcast, AckFlags::default())
}

/// Writes `request` about `namespace` as the instance `uid` publishes it.
///
/// # Errors
/// The arguments of an event are not what [`Args`] promises, or not fit for the wire, or this adapter has no such
/// request; see [`EncodeError`].
pub fn encode_request(
    uid: &Uid,
    namespace: &Namespace,
    request: &Request,
) -> Result<Bytes, EncodeError> {
    // Node writes them even where they say nothing.
    let opts = |target| Opts::new(target, Some(WireFlags::default()));
    let (kind, data) = match request {
        Request::Join { target, rooms } => (
            kind::SOCKETS_JOIN,
            Data::Rooms {
                opts: opts(target),
                rooms,
            },
        ),
        Request::Leave { target, rooms } => (
            kind::SOCKETS_LEAVE,
            Data::Rooms {
                opts: opts(target),
                rooms,
            },
        ),
        Request::Disconnect { target, close } => (
            kind::DISCONNECT_SOCKETS,
            Data::Disconnect {
                opts: opts(target),
                close: *close,
            },
        ),
        Request::Fetch { id, target } => (
            kind::FETCH_SOCKETS,
            Data::Fetch {
                opts: opts(target),
                request_id: id,
            },
        ),
        Request::ServerSideEmit { id, args } => {
            check_server_side(args)?;
            if !args.attachments().is_empty() {
                let mut packet = ByteBuf::new();
                write_array(&mut packet, args.json(), args.attachments())?;
                let packet = Some(packet.as_slice());
                let request_id = id.as_ref();
                return msgpack(kind::SERVER_SIDE_EMIT, uid, namespace, request_id, packet);
            }
            let text = json_alone(args)?;
            let data = Data::Event {
                request_id: id.as_ref(),
                packet: raw(&text),
            };
            return Ok(json(kind::SERVER_SIDE_EMIT, uid, namespace, data));
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
            return write_broadcast(uid, namespace, Some(id), broadcast, ack_flags);
        }
        Request::SocketIds { .. }
        | Request::AllRooms { .. }
        | Request::JoinOne { .. }
        | Request::LeaveOne { .. }
        | Request::DisconnectOne { .. } => return Err(EncodeError::NotSharded),
    };
    Ok(json(kind, uid, namespace, data))
}

/// Writes `response` about `namespace` as the instance `uid` publishes it.
///
/// # Errors
/// The value of a reply or an ack is not what [`Args`] promises, or not fit for the wire, or this adapter has no such
/// response; see [`EncodeError`].
pub fn encode_response(
    uid: &Uid,
    namespace: &Namespace,
    response: &Response,
) -> Result<Bytes, EncodeError> {
    match response {
        Response::Fetched { id, sockets } => {
            let data = Data::Fetched {
                request_id: id,
                sockets,
            };
            Ok(json(kind::FETCH_SOCKETS_RESPONSE, uid, namespace, data))
        }
        Response::ServerSideReply { id, value } => {
            write_value(kind::SERVER_SIDE_EMIT_RESPONSE, uid, namespace, id, value)
        }
        Response::ClientCount { id, num_clients } => {
            let data = Data::ClientCount {
                request_id: id,
                client_count: *num_clients,
            };
            Ok(json(kind::BROADCAST_CLIENT_COUNT, uid, namespace, data))
        }
        Response::Ack { id, args } => write_value(kind::BROADCAST_ACK, uid, namespace, id, args),
        Response::SocketIds { .. } | Response::AllRooms { .. } | Response::Done { .. } => {
            Err(EncodeError::NotSharded)
        }
    }
}

fn write_broadcast(
    uid: &Uid,
    namespace: &Namespace,
    id: Option<&RequestId>,
    broadcast: &Broadcast,
    ack_flags: AckFlags,
) -> Result<Bytes, EncodeError> {
    let Broadcast {
        namespace: _,
        target,
        flags,
        args,
    } = broadcast;
    check_event(args)?;
    if args.attachments().is_empty() {
        let text = json_alone(args)?;
        let data = Data::Broadcast {
            packet: Packet {
                r#type: EVENT,
                data: raw(&text),
            },
            request_id: id,
            opts: Opts::new(target, Some(WireFlags::new(*flags, ack_flags))),
        };
        return Ok(json(kind::BROADCAST, uid, namespace, data));
    }
    let mut buf = ByteBuf::with_capacity(args.len_bytes() + 160);
    let out = &mut buf;
    write_head(out, kind::BROADCAST)?;
    write_map_len(out, 2 + usize::from(id.is_some()))?;
    write_str(out, "packet")?;
    write_map_len(out, 2)?;
    write_str(out, "type")?;
    write_uint(out, EVENT);
    write_str(out, "data")?;
    write_array(out, args.json(), args.attachments())?;
    if let Some(id) = id {
        write_str(out, "requestId")?;
        write_str(out, id.as_str())?;
    }
    write_str(out, "opts")?;
    write_options(out, target, *flags, ack_flags)?;
    write_tail(out, uid, namespace)?;
    Ok(Bytes::from(buf.into_vec()))
}

/// Writes a response that carries one value, or none.
fn write_value(
    kind: u64,
    uid: &Uid,
    namespace: &Namespace,
    id: &RequestId,
    value: &Args,
) -> Result<Bytes, EncodeError> {
    let value = first_only(value)?;
    if value.attachments().is_empty() {
        let data = Data::Value {
            request_id: id,
            packet: only_value(&value)?,
        };
        return Ok(json(kind, uid, namespace, data));
    }
    let mut packet = ByteBuf::new();
    let has_value = write_only(&mut packet, &value)?;
    let packet = has_value.then_some(packet.as_slice());
    msgpack(kind, uid, namespace, Some(id), packet)
}

fn json(kind: u64, uid: &Uid, namespace: &Namespace, data: Data<'_>) -> Bytes {
    let wire = Wire {
        r#type: kind,
        data,
        uid: uid.as_str(),
        nsp: namespace,
    };
    let text = serde_json::to_vec(&wire).expect("texts, numbers and JSON have a JSON form");
    Bytes::from(text)
}

/// Writes a message whose data are an id and a packet that has been written already.
fn msgpack(
    kind: u64,
    uid: &Uid,
    namespace: &Namespace,
    id: Option<&RequestId>,
    packet: Option<&[u8]>,
) -> Result<Bytes, EncodeError> {
    let mut buf = ByteBuf::with_capacity(packet.map_or(0, <[u8]>::len) + 128);
    let out = &mut buf;
    write_head(out, kind)?;
    write_map_len(
        out,
        usize::from(id.is_some()) + usize::from(packet.is_some()),
    )?;
    if let Some(id) = id {
        write_str(out, "requestId")?;
        write_str(out, id.as_str())?;
    }
    if let Some(packet) = packet {
        write_str(out, "packet")?;
        out.as_mut_vec().extend_from_slice(packet);
    }
    write_tail(out, uid, namespace)?;
    Ok(Bytes::from(buf.into_vec()))
}

/// Writes what comes before the data.
fn write_head(out: &mut ByteBuf, kind: u64) -> Result<(), EncodeError> {
    write_map_len(out, 4)?;
    write_str(out, "type")?;
    write_uint(out, kind);
    Ok(write_str(out, "data")?)
}

/// Writes what comes behind the data.
fn write_tail(out: &mut ByteBuf, uid: &Uid, namespace: &Namespace) -> Result<(), EncodeError> {
    write_str(out, "uid")?;
    write_str(out, uid.as_str())?;
    write_str(out, "nsp")?;
    Ok(write_str(out, namespace.as_str())?)
}

/// A message of which no more than its four members has been read, which is all that one's own echo needs.
pub struct Envelope {
    opened: Opened,
    uid: String,
}

impl Envelope {
    /// Reads who sent `message`.
    ///
    /// # Errors
    /// It is no object in either encoding, or does not say who sent it.
    pub fn open(message: &Bytes) -> Result<Self, DecodeError> {
        let opened = Opened::new(message)?;
        let [uid] = object::members(opened.text(), ["uid"]).ok_or(DecodeError::Object)?;
        let uid = read_uid(uid)?.ok_or(DecodeError::Uid)?;
        Ok(Self { opened, uid })
    }

    /// Returns whether the instance `uid` sent it.
    pub fn is_from(&self, uid: &Uid) -> bool {
        self.uid == uid.as_str()
    }

    /// Reads the rest of a message that came on a channel of `namespace`; nothing of an answer to what was not asked.
    ///
    /// # Errors
    /// It is for another namespace, or anything that no sender in use writes; see [`DecodeError`].
    pub fn decode(
        self,
        namespace: &Namespace,
        is_asked: impl FnOnce(&RequestId) -> bool,
    ) -> Result<Option<Incoming>, DecodeError> {
        let opened = &self.opened;
        let [kind, data, nsp] =
            object::members(opened.text(), ["type", "data", "nsp"]).ok_or(DecodeError::Object)?;
        if nsp.and_then(object::string).as_deref() != Some(namespace.as_str()) {
            return Err(DecodeError::Namespace);
        }
        let kind = read_uint(kind, "type")?;
        if !(kind::BROADCAST..=kind::BROADCAST_ACK).contains(&kind) {
            return Err(DecodeError::Type { number: kind });
        }
        let faulty = DecodeError::Member { key: "data" };
        let data = data.ok_or(faulty.clone())?;
        if kind::is_response(kind) {
            let [id] = object::members(data, ["requestId"]).ok_or(faulty)?;
            if !is_asked(&read_id(id)?) {
                return Ok(None);
            }
        }
        Ok(Some(Incoming {
            body: read_body(opened, namespace, kind, data)?,
            uid: Some(self.uid),
        }))
    }
}

fn read_body(
    opened: &Opened,
    namespace: &Namespace,
    kind: u64,
    data: &str,
) -> Result<Body, DecodeError> {
    let [id, opts, rooms, close, sockets, client_count, packet] = object::members_and_nulls(
        data,
        [
            "requestId",
            "opts",
            "rooms",
            "close",
            "sockets",
            "clientCount",
            "packet",
        ],
    )
    .ok_or(DecodeError::Member { key: "data" })?;
    // In a value, null is one.
    let [id, opts, rooms, close, sockets, client_count] =
        [id, opts, rooms, close, sockets, client_count].map(object::not_null);
    let optional_id = || id.map(|id| read_id(Some(id))).transpose();
    let id = || read_id(id);
    let opts = || opts.ok_or(DecodeError::Options { key: "" });
    let target = || -> Result<Target, DecodeError> { read_target(opts()?) };
    let rooms = || read_rooms(rooms, DecodeError::Member { key: "rooms" });
    let needed_packet = || object::not_null(packet).ok_or(DecodeError::Packet { key: "" });
    Ok(match kind {
        kind::BROADCAST => {
            let (flags, ack_flags) = read_flags(opts()?)?;
            let broadcast = Broadcast {
                namespace: namespace.clone(),
                target: target()?,
                flags,
                args: read_packet(opened, needed_packet()?)?,
            };
            match optional_id()? {
                None => Body::Broadcast(broadcast),
                Some(id) => Body::Request(Request::Broadcast {
                    id,
                    broadcast,
                    timeout: ack_flags.timeout,
                    expect_single_response: ack_flags.expect_single_response,
                }),
            }
        }
        kind::SOCKETS_JOIN => Body::Request(Request::Join {
            target: target()?,
            rooms: rooms()?,
        }),
        kind::SOCKETS_LEAVE => Body::Request(Request::Leave {
            target: target()?,
            rooms: rooms()?,
        }),
        kind::DISCONNECT_SOCKETS => Body::Request(Request::Disconnect {
            target: target()?,
            close: read_close(close)?,
        }),
        kind::FETCH_SOCKETS => Body::Request(Request::Fetch {
            id: id()?,
            target: target()?,
        }),
        kind::FETCH_SOCKETS_RESPONSE => {
            let faulty = DecodeError::Member { key: "sockets" };
            let id = id()?;
            match read_sockets(opened, sockets.ok_or_else(|| faulty.clone())?)? {
                Sockets::Snapshots(sockets) => Body::Response(Response::Fetched { id, sockets }),
                Sockets::Ids(_) => return Err(faulty),
            }
        }
        kind::SERVER_SIDE_EMIT => Body::Request(Request::ServerSideEmit {
            id: optional_id()?,
            args: opened.event(needed_packet()?)?,
        }),
        kind::SERVER_SIDE_EMIT_RESPONSE => Body::Response(Response::ServerSideReply {
            id: id()?,
            value: opened.value(packet)?,
        }),
        kind::BROADCAST_CLIENT_COUNT => Body::Response(Response::ClientCount {
            id: id()?,
            num_clients: read_uint(client_count, "clientCount")?,
        }),
        kind::BROADCAST_ACK => Body::Response(Response::Ack {
            id: id()?,
            args: opened.value(packet)?,
        }),
        number => return Err(DecodeError::Type { number }),
    })
}

#[cfg(test)]
#[path = "sharded_tests.rs"]
mod tests;
