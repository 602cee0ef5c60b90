//! The broadcast message: `[uid, {type, data, nsp}, {rooms, except, flags}]`.
//!
//! Pure. Written strictly, byte for byte as the Node adapter does, because a Node server that cannot read one message
//! hears no other any more. Read with the tolerance that senders in use need (no `nsp`, no or nil `rooms`, `except`
//! and `flags`, numbers for rooms and event names, unknown keys), and nothing beyond it.
//!
//! Source: @socket.io/redis-adapter 8.3 (`RedisAdapter.broadcast`, `onmessage`), @socket.io/redis-emitter 5.1;
//! wire.md 3.2, 3.7, 5, 10.15.

use std::time::Duration;

use bytes::Bytes;
use rmp::encode::ByteBuf;

use super::{DecodeError, EncodeError, uid::Uid};
use crate::{
    hub::broadcast::{Broadcast, Flags, Target},
    msgpack::{
        Dialect, MAX_DEPTH, Rules,
        reader::{Reader, Token},
        to_json::{number_text, read_value},
        to_msgpack::{
            write_array, write_array_len, write_bool, write_map_len, write_str, write_uint,
        },
    },
    socket_io::{
        args::Args,
        ids::{Namespace, Room},
    },
};

/// The packet type of every broadcast, binary or not: EVENT. Type 5 breaks Node's encoder.
pub(super) const EVENT: u64 = 2;
/// Most binary values in one event; clients refuse more than 10.
pub const MAX_ATTACHMENTS: usize = 1000;
/// Most rooms in `rooms`, and in `except`. A room costs the sender one byte and us a hundred.
pub const MAX_ROOMS: usize = 65_536;

/// How arguments are read. Node's adapter writes notepack 3; the emitters of old, which wrote notepack 2, lack its dates alone.
pub(super) const RULES: Rules = Rules {
    dialect: Dialect::Notepack3,
    max_depth: MAX_DEPTH,
    max_attachments: MAX_ATTACHMENTS,
};

/// Writes `broadcast` as the instance `uid` publishes it.
///
/// # Errors
/// The arguments are not what [`Args`] promises, or too deep or too long for the wire.
pub fn encode(uid: &Uid, broadcast: &Broadcast) -> Result<Bytes, EncodeError> {
    let mut buf = ByteBuf::with_capacity(broadcast.args.len_bytes() + 96);
    let out = &mut buf;
    write_array_len(out, 3)?;
    write_str(out, uid.as_str())?;

    write_packet(out, &broadcast.namespace, &broadcast.args)?;
    write_options(out, &broadcast.target, broadcast.flags, AckFlags::default())?;
    Ok(Bytes::from(buf.into_vec()))
}

/// Writes `{type, data, nsp}`.
pub(super) fn write_packet(
    out: &mut ByteBuf,
    namespace: &Namespace,
    args: &Args,
) -> Result<(), EncodeError> {
    write_map_len(out, 3)?;
    write_str(out, "type")?;
    write_uint(out, EVENT);
    write_str(out, "data")?;
    write_array(out, args.json(), args.attachments())?;
    write_str(out, "nsp")?;
    Ok(write_str(out, namespace.as_str())?)
}

/// The flags of a broadcast whose sender waits for acks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AckFlags {
    /// One client is asked, and its sender expects one answer.
    pub(super) expect_single_response: bool,
    /// How long the sender waits.
    pub(super) timeout: Option<Duration>,
}

impl AckFlags {
    /// Returns the timeout in whole milliseconds.
    pub(super) fn timeout_millis(self) -> Option<u64> {
        self.timeout
            .map(|timeout| timeout.as_millis().try_into().unwrap_or(u64::MAX))
    }
}

/// Writes `{rooms, except, flags}`.
pub(super) fn write_options(
    out: &mut ByteBuf,
    target: &Target,
    flags: Flags,
    ack_flags: AckFlags,
) -> Result<(), EncodeError> {
    write_map_len(out, 3)?;
    write_rooms(out, "rooms", &target.rooms)?;
    write_rooms(out, "except", &target.except)?;
    write_flags(out, flags, ack_flags)
}

/// Writes a list of rooms behind its key.
pub(super) fn write_rooms(out: &mut ByteBuf, key: &str, rooms: &[Room]) -> Result<(), EncodeError> {
    write_str(out, key)?;
    write_array_len(out, rooms.len())?;
    for room in rooms {
        write_str(out, room.as_str())?;
    }
    Ok(())
}

/// Writes the flags behind their key.
pub(super) fn write_flags(
    out: &mut ByteBuf,
    flags: Flags,
    ack_flags: AckFlags,
) -> Result<(), EncodeError> {
    write_str(out, "flags")?;
    // `local` is not here: what is local is not published.
    let Flags { volatile, compress } = flags;
    let bools = [
        ("volatile", volatile.then_some(true)),
        ("compress", compress),
        (
            "expectSingleResponse",
            ack_flags.expect_single_response.then_some(true),
        ),
    ];
    let timeout = ack_flags.timeout_millis();
    let num_bools = bools.iter().filter(|(_, value)| value.is_some()).count();
    write_map_len(out, num_bools + usize::from(timeout.is_some()))?;
    for (key, value) in bools {
        if let Some(value) = value {
            write_str(out, key)?;
            write_bool(out, value);
        }
    }
    if let Some(millis) = timeout {
        write_str(out, "timeout")?;
        write_uint(out, millis);
    }
    Ok(())
}

/// A message of which only the sender has been read, which is all that one's own echo needs.
#[derive(Debug)]
pub struct Envelope<'a> {
    uid: &'a [u8],
    rest: Reader<'a>,
}

impl<'a> Envelope<'a> {
    /// Reads who sent `message`.
    ///
    /// # Errors
    /// It is no array of three that begins with a text.
    pub fn open(message: &'a Bytes) -> Result<Self, DecodeError> {
        let mut rest = Reader::new(message);
        if rest.token()? != Token::Array(3) {
            return Err(DecodeError::Arity);
        }
        match rest.token()? {
            Token::Str(uid) => Ok(Self { uid, rest }),
            _ => Err(DecodeError::Uid),
        }
    }

    /// Returns whether the instance `uid` sent it.
    pub fn is_from(&self, uid: &Uid) -> bool {
        self.uid == uid.as_str().as_bytes()
    }

    /// Returns the sender, mended if it is no UTF-8. An emitter calls itself `emitter`.
    pub fn uid(&self) -> String {
        String::from_utf8_lossy(self.uid).into_owned()
    }

    /// Reads the rest.
    ///
    /// # Errors
    /// Anything that no sender in use writes; see [`DecodeError`].
    pub fn decode(self) -> Result<Broadcast, DecodeError> {
        let mut reader = self.rest;
        let (namespace, args) = read_packet(&mut reader)?;
        let (target, flags) = read_options(&mut reader)?;
        reader.end()?;
        Ok(Broadcast {
            namespace,
            target,
            flags,
            args,
        })
    }
}

/// Reads `{type, data, nsp}`.
fn read_packet(reader: &mut Reader<'_>) -> Result<(Namespace, Args), DecodeError> {
    let mut is_event = false;
    let mut args = None;
    let mut namespace = Namespace::main();
    reader.for_each_key(DecodeError::Packet { key: "" }, |key, reader| {
        match key {
            b"type" => match reader.token()? {
                Token::Uint(EVENT) => is_event = true,
                Token::Uint(number) => return Err(DecodeError::PacketType { number }),
                _ => return Err(DecodeError::Packet { key: "type" }),
            },
            b"data" => args = Some(read_event(reader)?),
            b"nsp" => match reader.token()? {
                Token::Str(text) => namespace = Namespace::from(text_of(text)),
                Token::Nil => {}
                _ => return Err(DecodeError::Packet { key: "nsp" }),
            },
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if !is_event {
        return Err(DecodeError::Packet { key: "type" });
    }
    Ok((namespace, args.ok_or(DecodeError::Packet { key: "data" })?))
}

/// Reads one array whose first element is an event's name.
fn read_event(reader: &mut Reader<'_>) -> Result<Args, DecodeError> {
    let mut name = *reader;
    let Token::Array(len) = name.token()? else {
        return Err(DecodeError::Packet { key: "data" });
    };
    match len.checked_sub(1).map(|_| name.token()).transpose()? {
        Some(Token::Str(_) | Token::Uint(_) | Token::Int(_)) => {}
        Some(Token::Float(number)) if number.is_finite() => {}
        _ => return Err(DecodeError::EventName),
    }
    let (json, attachments) = read_value(reader, RULES)?;
    Ok(Args::from_parts(json.into(), attachments))
}

/// Reads `{rooms, except, flags}`.
fn read_options(reader: &mut Reader<'_>) -> Result<(Target, Flags), DecodeError> {
    let mut target = Target::default();
    let mut flags = Flags::default();
    reader.for_each_key(DecodeError::Options { key: "" }, |key, reader| {
        match key {
            b"rooms" => target.rooms = read_rooms(reader, "rooms")?,
            b"except" => target.except = read_rooms(reader, "except")?,
            b"flags" => flags = read_flags(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok((target, flags))
}

fn read_rooms(reader: &mut Reader<'_>, key: &'static str) -> Result<Vec<Room>, DecodeError> {
    let len = match reader.token()? {
        Token::Array(len) => len,
        Token::Nil => return Ok(Vec::new()),
        _ => return Err(DecodeError::Options { key }),
    };
    if len > MAX_ROOMS {
        return Err(DecodeError::Rooms { max: MAX_ROOMS });
    }
    let mut rooms = Vec::new();
    for _ in 0..len {
        // JavaScript has rooms named by numbers; they are compared as text.
        rooms.push(match reader.token()? {
            Token::Str(text) => Room::from(text_of(text)),
            Token::Uint(number) => Room::from(number.to_string()),
            Token::Int(number) => Room::from(number.to_string()),
            Token::Float(number) => match number_text(number, &mut ryu_js::Buffer::new()) {
                Some(text) => Room::from(text),
                None => return Err(DecodeError::Options { key }),
            },
            _ => return Err(DecodeError::Options { key }),
        });
    }
    Ok(rooms)
}

fn read_flags(reader: &mut Reader<'_>) -> Result<Flags, DecodeError> {
    let mut flags = Flags::default();
    if reader.peek()? == Token::Nil {
        reader.skip()?;
        return Ok(flags);
    }
    reader.for_each_key(DecodeError::Options { key: "flags" }, |key, reader| {
        match key {
            b"volatile" => flags.volatile = read_flag(reader, "volatile")?.unwrap_or(false),
            b"compress" => flags.compress = read_flag(reader, "compress")?,
            // `timeout` and `expectSingleResponse` belong to requests; `local` never travels.
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(flags)
}

fn read_flag(reader: &mut Reader<'_>, key: &'static str) -> Result<Option<bool>, DecodeError> {
    match reader.token()? {
        Token::Bool(value) => Ok(Some(value)),
        Token::Nil => Ok(None),
        _ => Err(DecodeError::Options { key }),
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
