//! Tests of the requests: the recorded vectors, each refusal, and what must hold for any input.

use bytestring::ByteString;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::msgpack;
use crate::{
    adapter::{MAX_DEPTH, MAX_ID_BYTES, MAX_TIMEOUT, message::MAX_ROOMS},
    hub::broadcast::Flags,
};

const VECTORS: &str = include_str!("../../test/vectors/classic-requests.json");

/// The recorded payloads on channels that contain `part`: name, bytes, JSON form.
pub(in crate::adapter) fn vectors(part: &str) -> Vec<(String, Bytes, Value)> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap().iter();
    vectors
        .filter(|vector| vector["channel"].as_str().unwrap().contains(part))
        .map(|vector| {
            let name = vector["name"].as_str().unwrap().to_owned();
            let bytes = unhex(vector["hex"].as_str().unwrap());
            (name, bytes, vector["decoded"].clone())
        })
        .collect()
}

pub(in crate::adapter) fn unhex(text: &str) -> Bytes {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

fn main_decode(bytes: impl Into<Bytes>) -> Result<Received, DecodeError> {
    decode(&Namespace::main(), &bytes.into())
}

fn request(text: &str) -> Request {
    main_decode(text.to_owned()).unwrap().request
}

fn args(json: &str) -> Args {
    Args::from_parts(json.into(), vec![])
}

fn target(rooms: &[&str], except: &[&str]) -> Target {
    let rooms_of = |rooms: &[&str]| rooms.iter().map(|room| Room::from(*room)).collect();
    Target {
        rooms: rooms_of(rooms),
        except: rooms_of(except),
    }
}

fn broadcast(id: &str, json: &str, rooms: &[&str], timeout: u64, single: bool) -> Request {
    Request::Broadcast {
        id: RequestId::from(id),
        broadcast: Broadcast {
            target: target(rooms, &[]),
            ..Broadcast::to_all(Namespace::main(), args(json))
        },
        timeout: Some(Duration::from_millis(timeout)),
        expect_single_response: single,
    }
}

/// Every recorded request: the sender and what it means.
fn meaning(name: &str) -> (Option<&'static str>, Request) {
    let id = |text: &str| RequestId::from(text);
    let fetch = |text: &str, rooms: &[&str]| Request::Fetch {
        id: id(text),
        target: target(rooms, &[]),
    };
    let emit = |text: Option<&str>, json| Request::ServerSideEmit {
        id: text.map(id),
        args: args(json),
    };
    let rooms = |names: &[&str]| target(names, &[]).rooms;
    let request = match name.trim_start_matches("classic/") {
        "broadcast-with-ack/request" => broadcast("9AQXPA", r#"["q","x"]"#, &[], 800, false),
        "broadcast-with-ack-binary-response/request" => {
            broadcast("cmgo55", r#"["qb"]"#, &[], 800, false)
        }
        "broadcast-with-ack-room-no-client-on-b/request" => {
            broadcast("cEEuh_", r#"["q","x"]"#, &["nobody"], 800, false)
        }
        "fetchsockets/request" => fetch("esxRNG", &["room1"]),
        "fetchsockets-remote-emitwithack/request" => fetch("0UWljT", &["room2"]),
        "fetchsockets-remote-emitwithack/request-2" => broadcast(
            "47Y3Yh",
            r#"["q","y"]"#,
            &["MbQ25khvHO8bs0X8AAAB"],
            700,
            true,
        ),
        "allrooms/request" => Request::AllRooms { id: id("vsDOId") },
        "socketsjoin/request" => Request::Join {
            target: target(&["room1"], &[]),
            rooms: rooms(&["room4", "room5"]),
        },
        "socketsleave/request" => Request::Leave {
            target: target(&["room1"], &["x"]),
            rooms: rooms(&["room5"]),
        },
        "serversideemit/request" => emit(None, r#"["hello-srv","w"]"#),
        "serversideemitwithack/request" => emit(Some("5ZiH5A"), r#"["hello-srv","w"]"#),
        "emitter-socketsjoin/request" => Request::Join {
            target: target(&["room1"], &[]),
            rooms: rooms(&["room9"]),
        },
        "emitter-socketsleave/request" => Request::Leave {
            target: target(&["room1"], &[]),
            rooms: rooms(&["room9", "room8"]),
        },
        "emitter-serversideemit/request" => emit(None, r#"["hello-srv","z"]"#),
        "emitter-disconnectsockets/request" => Request::Disconnect {
            target: target(&["room-none"], &[]),
            close: true,
        },
        "disconnectsockets/request" => Request::Disconnect {
            target: target(&["room2"], &[]),
            close: true,
        },
        "specific-fetchsockets/request" => fetch("Tf-pXL", &[]),
        "specific-serversideemitwithack/request" => emit(Some("SBlQPL"), r#"["hello-srv","w"]"#),
        "specific-broadcast-with-ack/request" => {
            broadcast("IfVeVT", r#"["q","x"]"#, &[], 300, false)
        }
        other => panic!("{other} has no meaning here"),
    };
    let uid = match name {
        "classic/emitter-serversideemit/request" => Some("emitter"),
        name if name.contains("emitter") => None,
        name if name.contains("specific") => Some("W_dkQp"),
        _ => Some("qoqbjI"),
    };
    (uid, request)
}

#[test]
fn every_recorded_request_is_read_and_nodes_are_written_byte_for_byte() {
    let vectors = vectors("-request#");
    assert_eq!(vectors.len(), 19);
    let mut num_exact = 0;
    for (name, bytes, _) in vectors {
        let received = main_decode(bytes.clone()).unwrap_or_else(|err| panic!("{name}: {err}"));
        let (uid, request) = meaning(&name);
        assert_eq!(
            (received.uid.as_deref(), &received.request),
            (uid, &request),
            "{name}"
        );
        if let Some(uid) = uid.and_then(Uid::parse) {
            let again = encode(&uid, &Namespace::main(), &request).unwrap();
            assert_eq!(again, bytes, "{name}");
            num_exact += 1;
        }
    }
    assert_eq!(num_exact, 15);
}

#[test]
fn requests_of_older_servers_have_their_keys_in_their_order() {
    let uid = Uid::parse("abcdef").unwrap();
    let id = || Some(RequestId::from("r"));
    let socket_id = || SocketId::from("s");
    for (request, expected) in [
        (
            Request::SocketIds {
                id: RequestId::from("r"),
                rooms: target(&["a"], &[]).rooms,
            },
            r#"{"uid":"abcdef","requestId":"r","type":0,"rooms":["a"]}"#,
        ),
        (
            Request::JoinOne {
                id: id(),
                socket_id: socket_id(),
                room: Room::from("a"),
            },
            r#"{"uid":"abcdef","requestId":"r","type":2,"sid":"s","room":"a"}"#,
        ),
        (
            Request::LeaveOne {
                id: None,
                socket_id: socket_id(),
                room: Room::from("a"),
            },
            r#"{"uid":"abcdef","type":3,"sid":"s","room":"a"}"#,
        ),
        (
            Request::DisconnectOne {
                id: id(),
                socket_id: socket_id(),
                close: false,
            },
            r#"{"uid":"abcdef","requestId":"r","type":4,"sid":"s","close":false}"#,
        ),
    ] {
        let bytes = encode(&uid, &Namespace::main(), &request).unwrap();
        assert_eq!(bytes, expected);
        let received = main_decode(bytes).unwrap();
        assert_eq!(received.uid.as_deref(), Some("abcdef"));
        assert_eq!(received.request, request);
    }
}

#[test]
fn json_is_read_as_javascript_reads_it() {
    // White space, escapes, repeated and unknown keys, numbers for rooms, null for nothing, half a surrogate pair.
    let text = r#"{ "type" : 9, "x":{"type":0,"opts":[[[]]]}, "uid":null, "opts":{"rooms":[1,"\u0061",2.0,"\ud800"],
        "except":null,"flags":{"timeout":{}}}, "rooms":[-3,"r"], "requestId":null, "t\u0079pe":2e0 }"#;
    let received = main_decode(text).unwrap();
    assert_eq!(received.uid, None);
    let expected = Request::Join {
        target: target(&["1", "a", "2", "\u{fffd}"], &[]),
        rooms: target(&["-3", "r"], &[]).rooms,
    };
    assert_eq!(received.request, expected);
    // `uid` of a wrong type is as good as none.
    assert_eq!(
        main_decode(r#"{"uid":{},"type":1,"requestId":"r"}"#)
            .unwrap()
            .uid,
        None
    );
    let faulty = Bytes::from_static(b"{\"type\":1,\"requestId\":\"a\xffb\"}");
    let id = RequestId::from("a\u{fffd}b");
    assert_eq!(
        main_decode(faulty).unwrap().request,
        Request::AllRooms { id }
    );
}

#[test]
fn a_broadcast_may_come_in_json_with_next_to_nothing() {
    let text = r#"{"type":7,"requestId":"r","packet":{"type":2,"data":["e", 5.0]},"opts":{}}"#;
    let received = decode(&Namespace::from("/x"), &Bytes::from(text)).unwrap();
    let expected = Request::Broadcast {
        id: RequestId::from("r"),
        broadcast: Broadcast::to_all(Namespace::from("/x"), args(r#"["e", 5.0]"#)),
        timeout: None,
        expect_single_response: false,
    };
    assert_eq!(received.request, expected);
}

#[test]
fn flags_of_a_broadcast_are_read_and_written() {
    let text = |flags: &str| {
        format!(
            r#"{{"type":7,"requestId":"r","packet":{{"type":2,"data":["e"],"nsp":"/other"}},"opts":{{"flags":{flags}}}}}"#
        )
    };
    let flags_of = |flags: &str| match request(&text(flags)) {
        Request::Broadcast {
            broadcast, timeout, ..
        } => (broadcast.flags, timeout),
        other => panic!("{other:?}"),
    };
    let volatile = Flags {
        volatile: true,
        compress: Some(false),
    };
    let millis = |millis| Some(Duration::from_millis(millis));
    for (flags, expected) in [
        ("null", (Flags::default(), None)),
        (
            r#"{"volatile":true,"compress":false,"local":true,"timeout":1.5}"#,
            (volatile, millis(1)),
        ),
        (r#"{"timeout":-1}"#, (Flags::default(), millis(0))),
        (
            r#"{"timeout":1e400}"#,
            (Flags::default(), Some(MAX_TIMEOUT)),
        ),
        (r#"{"timeout":1e12}"#, (Flags::default(), Some(MAX_TIMEOUT))),
        (r#"{"timeout":null}"#, (Flags::default(), None)),
    ] {
        assert_eq!(flags_of(flags), expected, "{flags}");
    }
    let request = request(&text(r#"{"volatile":true,"compress":false,"timeout":300}"#));
    let bytes = encode(&Uid::parse("abcdef").unwrap(), &Namespace::main(), &request).unwrap();
    let flags = b"\xa5flags\x83\xa8volatile\xc3\xa8compress\xc2\xa7timeout\xcd\x01\x2c";
    assert!(bytes.ends_with(flags), "{bytes:?}");
    assert_eq!(main_decode(bytes).unwrap().request, request);
}

#[test]
fn binary_of_a_broadcast_comes_with_it() {
    let placeholder = |num| format!(r#"{{"_placeholder":true,"num":{num}}}"#);
    let json = format!(r#"["b",{},[{}]]"#, placeholder(1), placeholder(0));
    let sent = Request::Broadcast {
        id: RequestId::from("r"),
        broadcast: Broadcast::to_all(
            Namespace::main(),
            Args::from_parts(json.into(), vec!["0".into(), "11".into()]),
        ),
        timeout: None,
        expect_single_response: false,
    };
    let bytes = encode(&Uid::parse("abcdef").unwrap(), &Namespace::main(), &sent).unwrap();
    // Something binary in front of the packet does not shift what is in it.
    let bytes = [b"\x86\x01\xc4\x01x".as_slice(), &bytes[1..]].concat();
    let Request::Broadcast { broadcast, .. } = main_decode(bytes).unwrap().request else {
        panic!("another request");
    };
    let json = format!(r#"["b",{},[{}]]"#, placeholder(0), placeholder(1));
    let expected = Args::from_parts(json.into(), vec!["11".into(), "0".into()]);
    assert_eq!(broadcast.args, expected);
}

#[test]
fn binary_in_json_becomes_what_node_makes_of_its_buffers() {
    let json = r#"["e",{"num":0,"_placeholder":true},"{\"_placeholder\":true,\"num\":0}"]"#;
    let request = Request::ServerSideEmit {
        id: None,
        args: Args::from_parts(json.into(), vec![Bytes::from_static(b"\x00\xff")]),
    };
    let bytes = encode(&Uid::parse("abcdef").unwrap(), &Namespace::main(), &request).unwrap();
    let data = r#"["e",{"type":"Buffer","data":[0,255]},"{\"_placeholder\":true,\"num\":0}"]"#;
    assert_eq!(
        bytes,
        format!(r#"{{"uid":"abcdef","type":6,"data":{data}}}"#)
    );
}

#[test]
fn each_fault_is_refused_by_name() {
    let many = format!("[{}1]", "1,".repeat(MAX_ROOMS));
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let member = |key| DecodeError::Member { key };
    let options = |key| DecodeError::Options { key };
    let packet = |key| DecodeError::Packet { key };
    let broadcast = |packet: &str, opts: &str| {
        format!(r#"{{"type":7,"requestId":"r","packet":{packet},"opts":{opts}}}"#)
    };
    let good = r#"{"type":2,"data":["e"]}"#;
    for (text, expected) in [
        ("{".to_owned(), DecodeError::Object),
        ("{}x".to_owned(), DecodeError::Object),
        ("{}".to_owned(), member("type")),
        (r#"{"type":"1"}"#.to_owned(), member("type")),
        (r#"{"type":1.5}"#.to_owned(), member("type")),
        (r#"{"type":8}"#.to_owned(), DecodeError::Type { number: 8 }),
        (
            r#"{"type":10}"#.to_owned(),
            DecodeError::Type { number: 10 },
        ),
        (r#"{"type":0}"#.to_owned(), member("requestId")),
        (
            r#"{"type":1,"requestId":5}"#.to_owned(),
            member("requestId"),
        ),
        (
            r#"{"type":0,"requestId":"r","rooms":"a"}"#.to_owned(),
            member("rooms"),
        ),
        (
            r#"{"type":0,"requestId":"r","rooms":[null]}"#.to_owned(),
            member("rooms"),
        ),
        (
            r#"{"type":0,"requestId":"r","rooms":[1e400]}"#.to_owned(),
            member("rooms"),
        ),
        (
            format!(r#"{{"type":0,"requestId":"r","rooms":{many}}}"#),
            DecodeError::Rooms { max: MAX_ROOMS },
        ),
        (r#"{"type":2}"#.to_owned(), member("sid")),
        (r#"{"type":2,"sid":"s"}"#.to_owned(), member("room")),
        (
            r#"{"type":3,"sid":"s","room":{}}"#.to_owned(),
            member("room"),
        ),
        (r#"{"type":2,"opts":[]}"#.to_owned(), options("")),
        (
            r#"{"type":3,"opts":{"rooms":7}}"#.to_owned(),
            options("rooms"),
        ),
        (
            r#"{"type":3,"opts":{"except":[{}]}}"#.to_owned(),
            options("except"),
        ),
        (
            r#"{"type":4,"opts":{},"close":1}"#.to_owned(),
            member("close"),
        ),
        (
            r#"{"type":4,"sid":"s","close":"x"}"#.to_owned(),
            member("close"),
        ),
        (r#"{"type":5,"requestId":"r"}"#.to_owned(), options("")),
        (r#"{"type":5,"opts":{}}"#.to_owned(), member("requestId")),
        (r#"{"type":6}"#.to_owned(), member("data")),
        (r#"{"type":6,"data":{}}"#.to_owned(), packet("data")),
        (r#"{"type":6,"data":[]}"#.to_owned(), DecodeError::EventName),
        (
            r#"{"type":6,"data":[null]}"#.to_owned(),
            DecodeError::EventName,
        ),
        (
            r#"{"type":6,"data":[1e400]}"#.to_owned(),
            DecodeError::EventName,
        ),
        (
            format!(r#"{{"type":6,"data":["e",{deep}]}}"#),
            DecodeError::MessagePack(msgpack::DecodeError::TooDeep { max: MAX_DEPTH }),
        ),
        (broadcast("null", "{}"), packet("")),
        (broadcast("[]", "{}"), packet("")),
        (broadcast("{}", "{}"), packet("type")),
        (
            broadcast(r#"{"type":5}"#, "{}"),
            DecodeError::PacketType { number: 5 },
        ),
        (broadcast(r#"{"type":2}"#, "{}"), packet("data")),
        (broadcast(good, "null"), options("")),
        (broadcast(good, "7"), options("")),
        (broadcast(good, r#"{"flags":1}"#), options("flags")),
        (
            broadcast(good, r#"{"flags":{"volatile":1}}"#),
            options("volatile"),
        ),
        (
            broadcast(good, r#"{"flags":{"timeout":"1"}}"#),
            options("timeout"),
        ),
    ] {
        let start: String = text.chars().take(80).collect();
        assert_eq!(main_decode(text), Err(expected), "{start}");
    }
    for (bytes, expected) in [
        (
            &b""[..],
            DecodeError::MessagePack(msgpack::DecodeError::Truncated { at: 0 }),
        ),
        (b"\xc0", DecodeError::Object),
        (b"\x90", DecodeError::Object),
        (b"\xa2{}", DecodeError::Object),
        (b"\xd4\0\0", DecodeError::Object),
        (
            b"\x80\xc0",
            DecodeError::MessagePack(msgpack::DecodeError::Trailing { len: 1 }),
        ),
        (
            b" {}",
            DecodeError::MessagePack(msgpack::DecodeError::Trailing { len: 2 }),
        ),
        (
            b"\xdf\xff\xff\xff\xff",
            DecodeError::MessagePack(msgpack::DecodeError::Truncated { at: 0 }),
        ),
        (
            b"\x81\xc1",
            DecodeError::MessagePack(msgpack::DecodeError::Truncated { at: 0 }),
        ),
        (
            b"\x81\xc1\xc0",
            DecodeError::MessagePack(msgpack::DecodeError::Marker { at: 1 }),
        ),
    ] {
        assert_eq!(main_decode(bytes), Err(expected), "{bytes:02x?}");
    }
    let deep = [vec![0x81; 1_000_000], vec![0xc0; 1_000_000]].concat();
    let nested = |depth: usize| [vec![0x81, 0xa1, b'x'], vec![0x91; depth], vec![0xc0]].concat();
    assert!(main_decode(deep).is_err());
    // Some levels more than arguments may have, for what stands around them.
    assert!(matches!(
        main_decode(nested(1_000_000)),
        Err(DecodeError::MessagePack(msgpack::DecodeError::TooDeep { max })) if max > MAX_DEPTH
    ));
}

/// A bug: both are kept while a question is answered, and could be as long as Redis carries them.
#[test]
fn who_asks_and_the_id_of_what_is_asked_are_short() {
    let asked = |uid: &str, id: &str| {
        main_decode(format!(r#"{{"uid":"{uid}","requestId":"{id}","type":1}}"#))
    };
    let (longest, long) = ("x".repeat(MAX_ID_BYTES), "x".repeat(MAX_ID_BYTES + 1));
    assert!(asked(&longest, &longest).is_ok());
    let key = "requestId";
    assert_eq!(asked("u", &long), Err(DecodeError::Member { key }));
    assert_eq!(asked(&long, "r"), Err(DecodeError::Uid));
}

#[test]
fn what_would_harm_others_is_not_written() {
    let uid = Uid::parse("abcdef").unwrap();
    let deep = format!("[\"e\",{}{}]", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    for (json, expected) in [
        (
            "",
            EncodeError::MessagePack(msgpack::EncodeError::Json { at: 0 }),
        ),
        (
            "{}",
            EncodeError::MessagePack(msgpack::EncodeError::Json { at: 0 }),
        ),
        (
            "[\"e\"],\"x\":[1]",
            EncodeError::MessagePack(msgpack::EncodeError::Json { at: 0 }),
        ),
        ("[]", EncodeError::EventName),
        ("[null]", EncodeError::EventName),
        ("[{}]", EncodeError::EventName),
        (
            deep.as_str(),
            EncodeError::MessagePack(msgpack::EncodeError::TooDeep),
        ),
    ] {
        let broadcast = broadcast("r", json, &[], 1, false);
        let emit = Request::ServerSideEmit {
            id: None,
            args: args(json),
        };
        for request in [&broadcast, &emit] {
            assert_eq!(
                encode(&uid, &Namespace::main(), request),
                Err(expected.clone()),
                "{json}"
            );
        }
    }
    for name in [
        "connect",
        "connection",
        "new_namespace",
        "error",
        "err\\u006fr",
    ] {
        let request = Request::ServerSideEmit {
            id: None,
            args: args(&format!("[\"{name}\"]")),
        };
        let refused = Err(EncodeError::ReservedName);
        assert_eq!(
            encode(&uid, &Namespace::main(), &request),
            refused,
            "{name}"
        );
    }
}

#[test]
fn no_part_of_a_request_is_taken_for_the_whole() {
    for (name, bytes, _) in vectors("-request#") {
        for len in 0..bytes.len() {
            assert!(
                main_decode(bytes.slice(..len)).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
}

#[test]
fn a_random_id_is_one_of_the_sharded_adapter() {
    let id = RequestId::random().unwrap();
    assert_eq!(id.as_str().len(), 16);
    assert!(
        id.as_str()
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert_ne!(id, RequestId::random().unwrap());
}

pub(in crate::adapter) fn any_target() -> impl Strategy<Value = Target> {
    let rooms = || proptest::collection::vec(any::<String>().prop_map(Room::from), 0..4);
    (rooms(), rooms()).prop_map(|(rooms, except)| Target { rooms, except })
}

/// Arguments in the form that decoding gives them: compact, placeholders in order.
pub(in crate::adapter) fn any_args() -> impl Strategy<Value = Args> {
    let element = prop_oneof![
        Just(None),
        any::<String>().prop_map(|text| Some(Value::from(text).to_string())),
        any::<i32>().prop_map(|number| Some(number.to_string())),
        any::<bool>().prop_map(|value| Some(format!("{{\"k\":[{value},null]}}"))),
    ];
    let elements = proptest::collection::vec(element, 0..5);
    ("[a-z]{1,8}x", elements).prop_map(|(name, elements)| {
        let mut json = format!("[\"{name}\"");
        let mut attachments = vec![];
        for element in elements {
            json.push(',');
            json.push_str(&element.unwrap_or_else(|| {
                attachments.push(Bytes::from(vec![attachments.len() as u8; 3]));
                format!(
                    "{{\"_placeholder\":true,\"num\":{}}}",
                    attachments.len() - 1
                )
            }));
        }
        json.push(']');
        Args::from_parts(ByteString::from(json), attachments)
    })
}

pub(in crate::adapter) fn any_flags() -> impl Strategy<Value = Flags> {
    (any::<bool>(), any::<Option<bool>>())
        .prop_map(|(volatile, compress)| Flags { volatile, compress })
}

/// Requests to the namespace `/n`; those of older servers only if `with_old`.
pub(in crate::adapter) fn any_request(with_old: bool) -> impl Strategy<Value = Request> {
    let id = || any::<String>().prop_map(RequestId::from);
    let optional_id = || proptest::option::of(any::<String>().prop_map(RequestId::from));
    let rooms = || any_target().prop_map(|target| target.rooms);
    let socket_id = || any::<String>().prop_map(SocketId::from);
    let room = || any::<String>().prop_map(Room::from);
    let both = prop_oneof![
        (any_target(), rooms()).prop_map(|(target, rooms)| Request::Join { target, rooms }),
        (any_target(), rooms()).prop_map(|(target, rooms)| Request::Leave { target, rooms }),
        (any_target(), any::<bool>())
            .prop_map(|(target, close)| Request::Disconnect { target, close }),
        (id(), any_target()).prop_map(|(id, target)| Request::Fetch { id, target }),
        (optional_id(), any_args()).prop_map(|(id, args)| Request::ServerSideEmit { id, args }),
        (
            id(),
            any_target(),
            any_flags(),
            any_args(),
            any::<Option<u16>>(),
            any::<bool>()
        )
            .prop_map(
                |(id, target, flags, args, timeout, expect_single_response)| Request::Broadcast {
                    id,
                    broadcast: Broadcast {
                        namespace: Namespace::from("/n"),
                        target,
                        flags,
                        args,
                    },
                    timeout: timeout.map(|millis| Duration::from_millis(millis.into())),
                    expect_single_response,
                }
            ),
    ];
    let old = prop_oneof![
        (id(), rooms()).prop_map(|(id, rooms)| Request::SocketIds { id, rooms }),
        id().prop_map(|id| Request::AllRooms { id }),
        (optional_id(), socket_id(), room()).prop_map(|(id, socket_id, room)| Request::JoinOne {
            id,
            socket_id,
            room
        }),
        (optional_id(), socket_id(), room()).prop_map(|(id, socket_id, room)| Request::LeaveOne {
            id,
            socket_id,
            room
        }),
        (optional_id(), socket_id(), any::<bool>()).prop_map(|(id, socket_id, close)| {
            Request::DisconnectOne {
                id,
                socket_id,
                close,
            }
        }),
    ];
    prop_oneof![3 => both, u32::from(with_old) * 2 => old]
}

proptest! {
    #[test]
    fn what_was_written_is_read_as_the_same(request in any_request(true)) {
        let namespace = Namespace::from("/n");
        let uid = Uid::parse("abcdef").unwrap();
        let bytes = encode(&uid, &namespace, &request).unwrap();
        let received = decode(&namespace, &bytes).unwrap();
        prop_assert_eq!(received.uid.as_deref(), Some("abcdef"));
        // JSON has no binary: there it does not come back as it was.
        let degrades = matches!(&request, Request::ServerSideEmit { args, .. } if !args.attachments().is_empty());
        if !degrades {
            prop_assert_eq!(&received.request, &request);
        }
        prop_assert_eq!(encode(&uid, &namespace, &received.request).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = main_decode(bytes.clone());
        let _ = main_decode([b"{\"type\":2,\"opts\":{\"rooms\":[", &*bytes, b"]}}"].concat());
        let _ = main_decode([b"\x84\xa4type\x07\xa4opts\x80\xa6packet", &*bytes].concat());
    }

    #[test]
    fn any_damage_to_a_request_is_answered_without_a_panic(
        which in 0..19_usize, damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = vectors("-request#")[which].1.to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(received) = main_decode(bytes) {
            // What is accepted is sound: it can be asked in turn, unless its name is reserved.
            let again = encode(&Uid::parse("abcdef").unwrap(), &Namespace::main(), &received.request);
            prop_assert!(matches!(again, Ok(_) | Err(EncodeError::ReservedName)));
        }
    }
}
