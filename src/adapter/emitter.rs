//! What an emitter publishes: a sender that is no server, hears nothing and is never answered.
//!
//! Pure. Byte for byte what Node's emitter writes, which differs from what its servers write: the name is always `emitter`,
//! the options have their keys in another order, and orders to sockets have no name at all. So every server that hears one
//! obeys it, and none is asked anything.
//!
//! ```text
//! Broadcast             on the broadcast channels   ["emitter", {type,data,nsp}, {rooms,flags,except}]   MessagePack
//! Join, Leave           on the request channel      {type,opts,rooms}                                    JSON
//! Disconnect            on the request channel      {type,opts,close}                                    JSON
//! ServerEvent           on the request channel      {uid:"emitter",type,data}                            JSON
//! ```
//! Source: @socket.io/redis-emitter 5.1; wire.md 5.

use bytes::Bytes;
use rmp::encode::ByteBuf;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    EncodeError,
    channel::{BroadcastChannels, request_channel},
    message::{AckFlags, write_flags, write_packet, write_rooms},
    opened::{check_event, json_alone},
    parts::{Opts, raw},
    request::{check_server_side, kind},
};
use crate::{
    hub::{broadcast::Broadcast, command::Command},
    msgpack::to_msgpack::{write_array_len, write_map_len, write_str},
    socket_io::{ids::Room, object, reserved::RESERVED_EVENTS},
};

/// What every emitter calls itself.
const UID: &str = "emitter";

/// A request in JSON, its keys in the order of Node's emitter.
#[derive(Serialize)]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    r#type: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<Opts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a [Room]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// Returns the channel, whose name begins with `prefix` (see `REDIS_PREFIX`), and the bytes to publish there.
///
/// # Errors
/// The arguments of an event are not what [`Args`](crate::socket_io::args::Args) promises or not fit for the wire, or its name
/// is reserved.
pub fn encode(prefix: &str, command: &Command) -> Result<(String, Bytes), EncodeError> {
    let blank = Wire {
        uid: None,
        r#type: 0,
        opts: None,
        rooms: None,
        close: None,
        data: None,
    };
    let data;
    let wire = match command {
        Command::Broadcast(broadcast) => return encode_broadcast(prefix, broadcast),
        Command::Join { target, rooms, .. } => Wire {
            r#type: kind::REMOTE_JOIN,
            opts: Some(Opts::new(target, None)),
            rooms: Some(rooms),
            ..blank
        },
        Command::Leave { target, rooms, .. } => Wire {
            r#type: kind::REMOTE_LEAVE,
            opts: Some(Opts::new(target, None)),
            rooms: Some(rooms),
            ..blank
        },
        Command::Disconnect {
            target,
            whole_connection,
            ..
        } => Wire {
            r#type: kind::REMOTE_DISCONNECT,
            opts: Some(Opts::new(target, None)),
            close: Some(*whole_connection),
            ..blank
        },
        Command::ServerEvent { args, .. } => {
            check_server_side(args)?;
            data = json_alone(args)?;
            Wire {
                uid: Some(UID),
                r#type: kind::SERVER_SIDE_EMIT,
                data: Some(raw(&data)),
                ..blank
            }
        }
    };
    let text = serde_json::to_vec(&wire).expect("texts, numbers and JSON have a JSON form");
    let channel = request_channel(prefix, command.namespace());
    Ok((channel, Bytes::from(text)))
}

fn encode_broadcast(prefix: &str, broadcast: &Broadcast) -> Result<(String, Bytes), EncodeError> {
    let Broadcast {
        namespace,
        target,
        flags,
        args,
    } = broadcast;
    let name = object::string(check_event(args)?);
    if name.is_some_and(|name| RESERVED_EVENTS.contains(&&*name)) {
        return Err(EncodeError::ReservedName);
    }
    let mut buf = ByteBuf::with_capacity(args.len_bytes() + 96);
    let out = &mut buf;
    write_array_len(out, 3)?;
    write_str(out, UID)?;
    write_packet(out, namespace, args)?;
    write_map_len(out, 3)?;
    write_rooms(out, "rooms", &target.rooms)?;
    write_flags(out, *flags, AckFlags::default())?;
    write_rooms(out, "except", &target.except)?;
    let channels = BroadcastChannels::new(prefix, namespace.clone());
    let channel = channels.publish_to(target).into_owned();
    Ok((channel, Bytes::from(buf.into_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::{
            channel::Addressed,
            message::Envelope,
            request::{self, Request},
        },
        hub::broadcast::{Flags, Target},
        socket_io::{args::Args, ids::Namespace},
    };
    use serde_json::Value;

    const BROADCASTS: &str = include_str!("../../test/vectors/classic-broadcast.json");
    const REQUESTS: &str = include_str!("../../test/vectors/classic-requests.json");

    fn unhex(text: &str) -> Bytes {
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        text.as_bytes().chunks(2).map(byte).collect()
    }

    fn vector(file: &str, name: &str) -> (String, Bytes) {
        let file: Value = serde_json::from_str(file).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        let vector = vectors.iter().find(|vector| vector["name"] == name);
        let vector = vector.unwrap_or_else(|| panic!("no vector {name}"));
        assert!(
            vector["package"]
                .as_str()
                .unwrap()
                .contains("redis-emitter")
        );
        let channel = vector["channel"].as_str().unwrap().to_owned();
        (channel, unhex(vector["hex"].as_str().unwrap()))
    }

    fn target(rooms: &[&str], except: &[&str]) -> Target {
        let rooms_of = |names: &[&str]| names.iter().map(|name| Room::from(*name)).collect();
        Target {
            rooms: rooms_of(rooms),
            except: rooms_of(except),
        }
    }

    fn broadcast(namespace: &str, target: Target, flags: Flags, json: &str) -> Command {
        let attachments = match json.contains("_placeholder") {
            true => vec![Bytes::from_static(&[9])],
            false => vec![],
        };
        Command::Broadcast(Broadcast {
            namespace: namespace.into(),
            target,
            flags,
            args: Args::from_parts(json.into(), attachments),
        })
    }

    fn server_event(json: &str) -> Command {
        Command::ServerEvent {
            namespace: "/".into(),
            args: Args::from_parts(json.into(), vec![]),
        }
    }

    #[test]
    fn broadcasts_are_those_of_nodes_emitter_byte_for_byte() {
        let volatile = Flags {
            volatile: true,
            ..Flags::default()
        };
        let uncompressed = Flags {
            compress: Some(false),
            ..Flags::default()
        };
        let none = Flags::default();
        let binary = r#"["hello",{"_placeholder":true,"num":0}]"#;
        let hello = r#"["hello"]"#;
        let several = target(&["room1", "room2"], &["room3"]);
        for (name, command) in [
            (
                "emit",
                broadcast("/", target(&[], &[]), none, r#"["hello",1]"#),
            ),
            (
                "to-room",
                broadcast("/", target(&["room1"], &[]), none, binary),
            ),
            (
                "rooms-except-volatile",
                broadcast("/", several, volatile, hello),
            ),
            (
                "compress",
                broadcast("/", target(&[], &[]), uncompressed, hello),
            ),
            (
                "of-chat",
                broadcast("/chat", target(&["r"], &[]), none, hello),
            ),
        ] {
            let recorded = vector(BROADCASTS, &format!("classic/emitter-{name}/message"));
            assert_eq!(encode("socket.io", &command), Ok(recorded), "{name}");
        }
    }

    #[test]
    fn requests_are_those_of_nodes_emitter_byte_for_byte() {
        let namespace = Namespace::main();
        let room1 = target(&["room1"], &[]);
        let rooms = |names: &[&str]| names.iter().map(|name| Room::from(*name)).collect();
        for (name, command) in [
            (
                "socketsjoin",
                Command::Join {
                    namespace: namespace.clone(),
                    target: room1.clone(),
                    rooms: rooms(&["room9"]),
                },
            ),
            (
                "socketsleave",
                Command::Leave {
                    namespace: namespace.clone(),
                    target: room1,
                    rooms: rooms(&["room9", "room8"]),
                },
            ),
            (
                "disconnectsockets",
                Command::Disconnect {
                    namespace,
                    target: target(&["room-none"], &[]),
                    whole_connection: true,
                },
            ),
            ("serversideemit", server_event(r#"["hello-srv","z"]"#)),
        ] {
            let recorded = vector(REQUESTS, &format!("classic/emitter-{name}/request"));
            assert_eq!(encode("socket.io", &command), Ok(recorded), "{name}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_under_any_prefix() {
        let command = broadcast(
            "/a#b",
            target(&["é"], &["x"]),
            Flags::default(),
            r#"["e",[]]"#,
        );
        let (channel, payload) = encode("my:app", &command).unwrap();
        let channels = BroadcastChannels::new("my:app", "/a#b".into());
        let addressed = channels.addressed(channel.as_bytes());
        assert_eq!(addressed, Some(Addressed::Room("é".into())));
        let read = Envelope::open(&payload).unwrap().decode().unwrap();
        assert_eq!(Command::Broadcast(read), command);

        let (channel, payload) = encode("my:app", &server_event(r#"["e",1]"#)).unwrap();
        assert_eq!(channel, "my:app-request#/#");
        let read = request::decode(&"/".into(), &payload).unwrap();
        assert!(matches!(
            read.request,
            Request::ServerSideEmit { id: None, .. }
        ));
    }

    #[test]
    fn reserved_names_and_what_is_no_event_are_refused() {
        for name in RESERVED_EVENTS {
            let json = format!(r#"["{name}"]"#);
            let command = broadcast("/", target(&[], &[]), Flags::default(), &json);
            assert_eq!(encode("p", &command), Err(EncodeError::ReservedName));
        }
        for name in ["error", "connection", "new_namespace"] {
            let command = server_event(&format!(r#"["{name}"]"#));
            assert_eq!(encode("p", &command), Err(EncodeError::ReservedName));
        }
        for json in ["[]", "[null]", "[{}]"] {
            let command = broadcast("/", target(&[], &[]), Flags::default(), json);
            assert_eq!(encode("p", &command), Err(EncodeError::EventName), "{json}");
        }
    }
}
