//! Tests of the responses: the recorded vectors, each refusal, and what must hold for any input.

use proptest::prelude::*;

use super::*;
use crate::adapter::{
    MAX_DEPTH, MAX_SOCKETS,
    parts::MAX_LISTED,
    request::tests::{any_args, vectors},
};
use crate::msgpack;

fn read(bytes: impl Into<Bytes>) -> Result<Response, DecodeError> {
    decode(&bytes.into()).map(|received| received.response)
}

fn value(json: &str) -> Args {
    Args::from_parts(json.to_owned().into(), vec![])
}

/// What a recorded response means, save for sockets, whose snapshots have tests of their own.
fn meaning(name: &str) -> Option<Response> {
    let id = |text: &str| RequestId::from(text);
    let count = |text: &str, num_clients| Response::ClientCount {
        id: id(text),
        num_clients,
    };
    let ack = |text: &str, json: &str| Response::Ack {
        id: id(text),
        args: value(json),
    };
    let rooms = |rooms: &[&str]| rooms.iter().map(|room| Room::from(*room)).collect();
    let sockets = || vec![SocketId::from("mIUXCUiXbIvoMktfAAAA")];
    Some(match name.trim_start_matches("classic/") {
        "broadcast-with-ack/response-count" => count("9AQXPA", 1),
        "broadcast-with-ack/response-ack" => ack("9AQXPA", r#"["pong-x"]"#),
        "broadcast-with-ack-binary-response/response-count" => count("cmgo55", 1),
        "broadcast-with-ack-binary-response/response-ack" => Response::Ack {
            id: id("cmgo55"),
            args: Args::from_parts(
                r#"[{"_placeholder":true,"num":0}]"#.into(),
                vec![Bytes::from_static(b"\xca\xfe")],
            ),
        },
        "broadcast-with-ack-room-no-client-on-b/response-count" => count("cEEuh_", 0),
        "fetchsockets-remote-emitwithack/response-count" => count("47Y3Yh", 1),
        "fetchsockets-remote-emitwithack/response-ack" => ack("47Y3Yh", r#"["pong-y"]"#),
        "allrooms/response" => Response::AllRooms {
            id: id("vsDOId"),
            rooms: rooms(&["MbQ25khvHO8bs0X8AAAB", "room1", "room2"]),
        },
        "serversideemitwithack/response" => Response::ServerSideReply {
            id: id("5ZiH5A"),
            value: value(r#"["srv-ack"]"#),
        },
        "specific-fetchsockets/response" => Response::Fetched {
            id: id("Tf-pXL"),
            sockets: vec![],
        },
        "specific-serversideemitwithack/response" => Response::ServerSideReply {
            id: id("SBlQPL"),
            value: value(r#"["ok"]"#),
        },
        "specific-broadcast-with-ack/response-count" => count("IfVeVT", 0),
        "legacy-sockets/response" => Response::SocketIds {
            id: id("req000"),
            sockets: sockets(),
        },
        "legacy-sockets-all/response" => Response::SocketIds {
            id: id("req001"),
            sockets: sockets(),
        },
        "legacy-all-rooms/response" => Response::AllRooms {
            id: id("req002"),
            rooms: rooms(&["mIUXCUiXbIvoMktfAAAA", "room1"]),
        },
        "legacy-remote-join-sid/response" => Response::Done { id: id("req003") },
        "legacy-remote-leave-sid/response" => Response::Done { id: id("req004") },
        "legacy-remote-disconnect-sid/response" => Response::Done { id: id("req006") },
        "fetchsockets/response" | "fetchsockets-remote-emitwithack/response" => return None,
        other => panic!("{other} has no meaning here"),
    })
}

#[test]
fn every_recorded_response_is_read_and_written_byte_for_byte() {
    let vectors = vectors("-response#");
    assert_eq!(vectors.len(), 20);
    for (name, bytes, decoded) in vectors {
        let response = read(bytes.clone()).unwrap_or_else(|err| panic!("{name}: {err}"));
        match meaning(&name) {
            Some(expected) => assert_eq!(response, expected, "{name}"),
            None => {
                let Response::Fetched { id, sockets } = &response else {
                    panic!("{name}: {response:?}");
                };
                assert_eq!(id.as_str(), decoded["requestId"], "{name}");
                let [socket] = sockets.as_slice() else {
                    panic!("{name}: {sockets:?}");
                };
                assert_eq!(serde_json::to_value(socket).unwrap(), decoded["sockets"][0]);
            }
        }
        assert_eq!(encode(&response, None).unwrap(), bytes, "{name}");
    }
}

#[test]
fn one_of_us_says_who_it_is_and_whoever_does_not_need_not() {
    let uid = Uid::parse("a1B2c3").unwrap();
    let count = Response::ClientCount {
        id: RequestId::from("r"),
        num_clients: 2,
    };
    let bytes = encode(&count, Some(&uid)).unwrap();
    let text = r#"{"type":8,"requestId":"r","clientCount":2,"uid":"a1B2c3"}"#;
    assert_eq!(bytes, text);
    for (uid, expected) in [
        (r#""a1B2c3""#, Some("a1B2c3")),
        ("7", None),
        ("null", None),
        (r#"{"uid":"a1B2c3"}"#, None),
    ] {
        let text = text.replace(r#""a1B2c3""#, uid);
        let received = decode(&Bytes::from(text)).unwrap();
        assert_eq!(received.uid.as_deref(), expected, "{uid}");
        assert_eq!(received.response, count);
    }
}

#[test]
fn nothing_and_null_are_two_answers() {
    let id = || RequestId::from("r");
    for (json, in_json, in_msgpack) in [
        (
            "[]",
            r#"{"type":6,"requestId":"r"}"#,
            &b"\x82\xa4type\x09\xa9requestId\xa1r"[..],
        ),
        (
            "[null]",
            r#"{"type":6,"requestId":"r","data":null}"#,
            b"\x83\xa4type\x09\xa9requestId\xa1r\xa6packet\xc0",
        ),
    ] {
        let reply = Response::ServerSideReply {
            id: id(),
            value: value(json),
        };
        let ack = Response::Ack {
            id: id(),
            args: value(json),
        };
        for (response, expected) in [(reply, in_json.as_bytes()), (ack, in_msgpack)] {
            let bytes = encode(&response, None).unwrap();
            assert_eq!(bytes, expected, "{json}");
            assert_eq!(read(bytes).unwrap(), response, "{json}");
        }
    }
    // notepack before version 3 had bytes for it.
    let undefined = b"\x83\xa4type\x09\xa9requestId\xa1r\xa6packet\xd4\0\0";
    let nothing = Response::Ack {
        id: id(),
        args: value("[]"),
    };
    assert_eq!(read(&undefined[..]).unwrap(), nothing);
}

#[test]
fn only_the_first_argument_of_an_ack_travels() {
    let placeholder = |num| format!(r#"{{"_placeholder":true,"num":{num}}}"#);
    let attachments = vec![Bytes::from_static(b"0"), Bytes::from_static(b"1")];
    let json = format!("[ {} , {}, 2]", placeholder(1), placeholder(0));
    let ack = Response::Ack {
        id: RequestId::from("r"),
        args: Args::from_parts(json.into(), attachments),
    };
    let expected = b"\x83\xa4type\x09\xa9requestId\xa1r\xa6packet\xc4\x011";
    assert_eq!(encode(&ack, None).unwrap(), &expected[..]);
    let reply = Response::ServerSideReply {
        id: RequestId::from("r"),
        value: value(r#"[{"a":5.0},1]"#),
    };
    let expected = r#"{"type":6,"requestId":"r","data":{"a":5.0}}"#;
    assert_eq!(encode(&reply, None).unwrap(), expected);
}

#[test]
fn binary_in_json_becomes_what_node_makes_of_its_buffers() {
    let reply = Response::ServerSideReply {
        id: RequestId::from("r"),
        value: Args::from_parts(
            r#"[{"b":{"_placeholder":true,"num":0}}]"#.into(),
            vec![Bytes::from_static(b"\x01")],
        ),
    };
    let expected = r#"{"type":6,"requestId":"r","data":{"b":{"type":"Buffer","data":[1]}}}"#;
    assert_eq!(encode(&reply, None).unwrap(), expected);
    // And the other way round: a socket's data has no place for attachments.
    let fetched =
        b"\x82\xa9requestId\xa1r\xa7sockets\x91\x82\xa2id\xa1s\xa4data\x81\xa1b\xc4\x02\x07\xff";
    let Response::Fetched { sockets, .. } = read(&fetched[..]).unwrap() else {
        panic!("another response");
    };
    assert_eq!(
        sockets[0].data.get(),
        r#"{"b":{"type":"Buffer","data":[7,255]}}"#
    );
}

#[test]
fn each_fault_is_refused_by_name() {
    let member = |key| DecodeError::Member { key };
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let list = |num: usize, element: &str| {
        let mut list = vec![element; num].join(",");
        list.insert(0, '[');
        list.push(']');
        list
    };
    for (text, expected) in [
        ("{".to_owned(), DecodeError::Object),
        ("{}".to_owned(), member("requestId")),
        (r#"{"requestId":7}"#.to_owned(), member("requestId")),
        (
            r#"{"requestId":"r","sockets":{}}"#.to_owned(),
            member("sockets"),
        ),
        (
            r#"{"requestId":"r","sockets":["a",1]}"#.to_owned(),
            member("sockets"),
        ),
        (
            r#"{"requestId":"r","sockets":[{"id":"a"},"b"]}"#.to_owned(),
            member("sockets"),
        ),
        (
            r#"{"requestId":"r","sockets":[null]}"#.to_owned(),
            member("sockets"),
        ),
        (
            r#"{"requestId":"r","rooms":"a"}"#.to_owned(),
            member("rooms"),
        ),
        (
            r#"{"requestId":"r","rooms":[[]]}"#.to_owned(),
            member("rooms"),
        ),
        (
            format!(
                r#"{{"requestId":"r","sockets":{}}}"#,
                list(MAX_SOCKETS + 1, "{}")
            ),
            DecodeError::Listed { max: MAX_SOCKETS },
        ),
        (
            format!(
                r#"{{"requestId":"r","rooms":{}}}"#,
                list(MAX_LISTED + 1, "1")
            ),
            DecodeError::Listed { max: MAX_LISTED },
        ),
        (r#"{"requestId":"r","type":[]}"#.to_owned(), member("type")),
        (
            r#"{"requestId":"r","type":7}"#.to_owned(),
            DecodeError::Type { number: 7 },
        ),
        (
            r#"{"requestId":"r","type":8}"#.to_owned(),
            member("clientCount"),
        ),
        (
            r#"{"requestId":"r","type":8,"clientCount":-1}"#.to_owned(),
            member("clientCount"),
        ),
        (
            r#"{"requestId":"r","type":8,"clientCount":1e300}"#.to_owned(),
            member("clientCount"),
        ),
        (
            format!(r#"{{"requestId":"r","type":9,"packet":{deep}}}"#),
            DecodeError::MessagePack(msgpack::DecodeError::TooDeep { max: MAX_DEPTH }),
        ),
        (
            format!(r#"{{"requestId":"r","type":6,"data":{deep}}}"#),
            DecodeError::MessagePack(msgpack::DecodeError::TooDeep { max: MAX_DEPTH }),
        ),
    ] {
        let start: String = text.chars().take(80).collect();
        assert_eq!(read(text), Err(expected), "{start}");
    }
    assert_eq!(read(&b"\xc0"[..]), Err(DecodeError::Object));
}

#[test]
fn what_is_no_json_is_not_written() {
    for json in ["", "{}", "[1", "[1],\"x\":[1]"] {
        let id = || RequestId::from("r");
        let reply = Response::ServerSideReply {
            id: id(),
            value: value(json),
        };
        let ack = Response::Ack {
            id: id(),
            args: value(json),
        };
        for response in [reply, ack] {
            assert_eq!(
                encode(&response, None),
                Err(EncodeError::MessagePack(msgpack::EncodeError::Json {
                    at: 0
                })),
                "{json}"
            );
        }
    }
}

#[test]
fn no_part_of_a_response_is_taken_for_the_whole() {
    for (name, bytes, _) in vectors("-response#") {
        for len in 0..bytes.len() {
            assert!(
                read(bytes.slice(..len)).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
}

/// Ends with no more than one element, and in the form that decoding gives it.
fn any_value() -> impl Strategy<Value = Args> {
    prop_oneof![
        Just(value("[]")),
        Just(value("[null]")),
        any_args().prop_map(|args| {
            Args::from_parts(
                format!("[{}]", args.json()).into(),
                args.attachments().to_vec(),
            )
        }),
    ]
}

fn any_snapshot() -> impl Strategy<Value = SocketSnapshot> {
    let texts = proptest::collection::hash_map(any::<String>(), any::<String>(), 0..4);
    (any::<String>(), texts, any::<u32>(), any::<bool>()).prop_map(|(text, texts, number, flag)| {
        let map = serde_json::json!(texts);
        let snapshot = serde_json::json!({
            "id": text,
            "handshake": {"headers": map, "time": text, "xdomain": flag, "issued": number, "query": map, "auth": map},
            "rooms": [text, number],
            "data": {"k": [map]},
        });
        SocketSnapshot::from_json(&snapshot.to_string()).unwrap()
    })
}

/// Responses; those to older servers only if `with_old`.
pub(in crate::adapter) fn any_response(with_old: bool) -> impl Strategy<Value = Response> {
    let id = || any::<String>().prop_map(RequestId::from);
    let rooms = proptest::collection::vec(any::<String>().prop_map(Room::from), 0..4);
    let ids = proptest::collection::vec(any::<String>().prop_map(SocketId::from), 1..4);
    let snapshots = proptest::collection::vec(any_snapshot(), 0..3);
    let both = prop_oneof![
        (id(), snapshots).prop_map(|(id, sockets)| Response::Fetched { id, sockets }),
        (id(), any_value()).prop_map(|(id, value)| Response::ServerSideReply { id, value }),
        (id(), any::<u32>()).prop_map(|(id, num_clients)| Response::ClientCount {
            id,
            num_clients: num_clients.into()
        }),
        (id(), any_value()).prop_map(|(id, args)| Response::Ack { id, args }),
    ];
    let old = prop_oneof![
        (id(), ids).prop_map(|(id, sockets)| Response::SocketIds { id, sockets }),
        (id(), rooms).prop_map(|(id, rooms)| Response::AllRooms { id, rooms }),
        id().prop_map(|id| Response::Done { id }),
    ];
    prop_oneof![3 => both, u32::from(with_old) * 2 => old]
}

proptest! {
    #[test]
    fn what_was_written_is_read_as_the_same(response in any_response(true)) {
        let bytes = encode(&response, None).unwrap();
        let again = read(bytes.clone()).unwrap();
        // JSON has no binary: there it does not come back as it was.
        let degrades = matches!(&response, Response::ServerSideReply { value, .. } if !value.attachments().is_empty());
        if !degrades {
            prop_assert_eq!(&again, &response);
        }
        prop_assert_eq!(encode(&again, None).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(bytes.clone());
        let _ = read([b"{\"requestId\":\"r\",\"sockets\":[", &*bytes, b"]}"].concat());
        let _ = read([b"\x83\xa4type\x09\xa9requestId\xa1r\xa6packet", &*bytes].concat());
    }

    #[test]
    fn any_damage_to_a_response_is_answered_without_a_panic(
        which in 0..20_usize, damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = vectors("-response#")[which].1.to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(response) = read(bytes) {
            prop_assert!(encode(&response, None).is_ok());
        }
    }
}
