//! What requests and responses of both adapters are made of: rooms, targets, flags, packets, sockets.
//!
//! Pure. Read from texts that [`super::opened`] has opened, and written by serde in the order of Node's keys.
//!
//! Source: @socket.io/redis-adapter 8.3, socket.io-adapter 2.5 (`BroadcastOptions`); wire.md 3.2, 3.3, 4.3, 10.15.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    DecodeError,
    message::{AckFlags, EVENT, MAX_ROOMS},
    opened::Opened,
    request::RequestId,
};
use crate::{
    hub::broadcast::{Flags, Target},
    socket::snapshot::SocketSnapshot,
    socket_io::{
        args::Args,
        ids::{Room, SocketId},
        object,
    },
};

/// Longest timeout of a broadcast with acks that is believed: what JavaScript's timers can wait, 2³¹ − 1 ms.
pub const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);
/// Most ids or rooms in one response: a server tells all that it has.
pub const MAX_LISTED: usize = 1 << 20;
/// Longest id of a request, and longest name of who puts it, that is taken: both are kept while it is answered. Those in use have some dozen
/// bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Most sockets in one response with their handshakes.
pub const MAX_SOCKETS: usize = 1 << 18;

/// `{rooms, except}`, and `flags` where the adapter has them.
#[derive(Serialize)]
pub(super) struct Opts<'a> {
    rooms: &'a [Room],
    except: &'a [Room],
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<WireFlags>,
}

/// Flags as they travel.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireFlags {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    volatile: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expect_single_response: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
}

impl<'a> Opts<'a> {
    pub(super) fn new(target: &'a Target, flags: Option<WireFlags>) -> Self {
        Self {
            rooms: &target.rooms,
            except: &target.except,
            flags,
        }
    }
}

impl WireFlags {
    pub(super) fn new(flags: Flags, ack_flags: AckFlags) -> Self {
        // `local` is not here: what is local is not published.
        let Flags { volatile, compress } = flags;
        Self {
            volatile,
            compress,
            expect_single_response: ack_flags.expect_single_response,
            timeout: ack_flags.timeout_millis(),
        }
    }
}

/// Returns the text as JSON that passes through. The caller has checked that it is.
pub(super) fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

/// Reads `{rooms, except}`; what is missing is empty.
pub(super) fn read_target(opts: &str) -> Result<Target, DecodeError> {
    let [rooms, except] =
        object::members(opts, ["rooms", "except"]).ok_or(DecodeError::Options { key: "" })?;
    Ok(Target {
        rooms: read_rooms(rooms, DecodeError::Options { key: "rooms" })?,
        except: read_rooms(except, DecodeError::Options { key: "except" })?,
    })
}

/// Reads a list of rooms, at most [`MAX_ROOMS`]; no list is an empty one.
pub(super) fn read_rooms(
    list: Option<&str>,
    no_list: DecodeError,
) -> Result<Vec<Room>, DecodeError> {
    let rooms = read_list(
        list,
        MAX_ROOMS,
        DecodeError::Rooms { max: MAX_ROOMS },
        &no_list,
    )?;
    rooms
        .into_iter()
        .map(|text| read_room(text).ok_or_else(|| no_list.clone()))
        .collect()
}

/// Reads a room: a text, or a number, which JavaScript allows; they are compared as text.
pub(super) fn read_room(text: &str) -> Option<Room> {
    object::string_or_number(text).map(Room::from)
}

fn read_list<'a>(
    list: Option<&'a str>,
    max: usize,
    too_many: DecodeError,
    no_list: &DecodeError,
) -> Result<Vec<&'a str>, DecodeError> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let elements = object::elements(list, max).ok_or_else(|| no_list.clone())?;
    if elements.has_more {
        return Err(too_many);
    }
    Ok(elements.texts)
}

/// Reads the flags of `opts`.
pub(super) fn read_flags(opts: &str) -> Result<(Flags, AckFlags), DecodeError> {
    let no_flags = DecodeError::Options { key: "flags" };
    let [flags] = object::members(opts, ["flags"]).ok_or(DecodeError::Options { key: "" })?;
    let keys = ["volatile", "compress", "expectSingleResponse", "timeout"];
    let [volatile, compress, expect_single_response, timeout] =
        object::members(flags.unwrap_or("{}"), keys).ok_or(no_flags)?;
    let flag = |text, key| match text {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(DecodeError::Options { key }),
    };
    let timeout = match timeout {
        None => None,
        Some(text) => {
            let millis = object::number(text).ok_or(DecodeError::Options { key: "timeout" })?;
            // Fails for what is negative or immense: no time at all, and the longest.
            let timeout = Duration::try_from_secs_f64(millis / 1000.0);
            let fallback = if millis > 0.0 {
                MAX_TIMEOUT
            } else {
                Duration::ZERO
            };
            let timeout = timeout.unwrap_or(fallback).min(MAX_TIMEOUT);
            Some(Duration::from_millis(timeout.as_millis() as u64))
        }
    };
    let flags = Flags {
        volatile: flag(volatile, "volatile")?.unwrap_or(false),
        compress: flag(compress, "compress")?,
    };
    let ack_flags = AckFlags {
        expect_single_response: flag(expect_single_response, "expectSingleResponse")?
            .unwrap_or(false),
        timeout,
    };
    Ok((flags, ack_flags))
}

/// Reads `{type, data}`. `nsp` is not looked at: receivers put their own there.
pub(super) fn read_packet(opened: &Opened, packet: &str) -> Result<Args, DecodeError> {
    let [kind, data] =
        object::members(packet, ["type", "data"]).ok_or(DecodeError::Packet { key: "" })?;
    let kind = kind.and_then(object::uint);
    match kind.ok_or(DecodeError::Packet { key: "type" })? {
        EVENT => opened.event(data.ok_or(DecodeError::Packet { key: "data" })?),
        number => Err(DecodeError::PacketType { number }),
    }
}

/// The `sockets` of a response.
pub(super) enum Sockets {
    /// A list of ids that is not empty.
    Ids(Vec<SocketId>),
    /// A list of sockets, or nothing.
    Snapshots(Vec<SocketSnapshot>),
}

/// Reads the `sockets` of a response.
pub(super) fn read_sockets(opened: &Opened, sockets: &str) -> Result<Sockets, DecodeError> {
    let faulty = DecodeError::Member { key: "sockets" };
    let too_many = DecodeError::Listed { max: MAX_LISTED };
    let list = read_list(Some(sockets), MAX_LISTED, too_many, &faulty)?;
    if list.first().is_some_and(|first| first.starts_with('"')) {
        let ids = list.into_iter().map(object::string);
        let ids = ids.map(|id| id.map(SocketId::from)).collect::<Option<_>>();
        return ids.map(Sockets::Ids).ok_or(faulty);
    }
    if list.len() > MAX_SOCKETS {
        return Err(DecodeError::Listed { max: MAX_SOCKETS });
    }
    let snapshots = list
        .into_iter()
        .map(|text| SocketSnapshot::from_json(&opened.with_buffers(text)))
        .collect::<Option<_>>();
    snapshots.map(Sockets::Snapshots).ok_or(faulty)
}

/// Reads the `rooms` of a response.
pub(super) fn read_listed_rooms(rooms: &str) -> Result<Vec<Room>, DecodeError> {
    let faulty = DecodeError::Member { key: "rooms" };
    let too_many = DecodeError::Listed { max: MAX_LISTED };
    let list = read_list(Some(rooms), MAX_LISTED, too_many, &faulty)?;
    let rooms = list.into_iter().map(read_room).collect::<Option<_>>();
    rooms.ok_or(faulty)
}

/// Reads a text member.
pub(super) fn read_text(text: Option<&str>, key: &'static str) -> Result<String, DecodeError> {
    let text = text.and_then(object::string);
    text.ok_or(DecodeError::Member { key })
}

/// Reads the id of a request.
pub(super) fn read_id(text: Option<&str>) -> Result<RequestId, DecodeError> {
    let id = text.and_then(object::string).filter(|id| is_short(id));
    let faulty = DecodeError::Member { key: "requestId" };
    id.map(RequestId::from).ok_or(faulty)
}

/// Reads who sent a message; nothing if it is no text.
///
/// # Errors
/// [`DecodeError::Uid`]: it is too long.
pub(super) fn read_uid(text: Option<&str>) -> Result<Option<String>, DecodeError> {
    match text.and_then(object::string) {
        Some(uid) if !is_short(&uid) => Err(DecodeError::Uid),
        uid => Ok(uid),
    }
}

fn is_short(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
}

/// Reads a whole number.
pub(super) fn read_uint(text: Option<&str>, key: &'static str) -> Result<u64, DecodeError> {
    let number = text.and_then(object::uint);
    number.ok_or(DecodeError::Member { key })
}

/// Reads `close`: missing is false, as in JavaScript.
pub(super) fn read_close(text: Option<&str>) -> Result<bool, DecodeError> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(DecodeError::Member { key: "close" }),
    }
}
