//! Tests of the sharded adapter's messages: the recorded vectors, each refusal, and what must hold for any input.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::adapter::{
    MAX_ID_BYTES,
    request::tests::{any_args, any_flags, any_request, any_target, unhex},
    response::tests::any_response,
    sharded_channel::{ShardedChannel, ShardedChannels, SubscriptionMode},
};
use crate::msgpack;

const VECTORS: &str = include_str!("../../test/vectors/sharded.json");
const UID: &str = "0123456789abcdef";

struct Vector {
    name: String,
    channel: String,
    bytes: Bytes,
    decoded: Value,
}

fn vectors() -> Vec<Vector> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap().iter();
    vectors
        .map(|vector| Vector {
            name: vector["name"].as_str().unwrap().to_owned(),
            channel: vector["channel"].as_str().unwrap().to_owned(),
            bytes: unhex(vector["hex"].as_str().unwrap()),
            decoded: vector["decoded"].clone(),
        })
        .collect()
}

fn uid() -> Uid {
    Uid::parse_hex(UID).unwrap()
}

fn read(bytes: impl Into<Bytes>) -> Result<Incoming, DecodeError> {
    let envelope = Envelope::open(&bytes.into())?;
    let incoming = envelope.decode(&Namespace::main(), |_| true)?;
    Ok(incoming.expect("all is asked"))
}

fn write(uid: &Uid, namespace: &Namespace, body: &Body) -> Result<Bytes, EncodeError> {
    match body {
        Body::Broadcast(broadcast) => encode_broadcast(uid, broadcast),
        Body::Request(request) => encode_request(uid, namespace, request),
        Body::Response(response) => encode_response(uid, namespace, response),
    }
}

/// The arguments as the vectors have them: `{"$bin": hex}` for what is binary.
fn shown(args: &Args) -> Value {
    fn with_bin(value: Value, attachments: &[Bytes]) -> Value {
        match value {
            Value::Object(map) if map.get("_placeholder") == Some(&Value::Bool(true)) => {
                let bytes = &attachments[map["num"].as_u64().unwrap() as usize];
                json!({"$bin": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()})
            }
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (key, with_bin(value, attachments)))
                .collect(),
            Value::Array(list) => list
                .into_iter()
                .map(|value| with_bin(value, attachments))
                .collect(),
            other => other,
        }
    }
    with_bin(
        serde_json::from_str(args.json()).unwrap(),
        args.attachments(),
    )
}

/// Tells a message as the vectors do: a second way to its meaning, beside the encoder.
fn told(body: &Body) -> (u64, Value) {
    let opts = |target: &Target, flags: Value| json!({"rooms": target.rooms, "except": target.except, "flags": flags});
    let plain = |target: &Target| opts(target, json!({}));
    let flags_of = |broadcast: &Broadcast| match broadcast.flags.volatile {
        true => json!({"volatile": true}),
        false => json!({}),
    };
    let packet = |broadcast: &Broadcast| json!({"type": 2, "data": shown(&broadcast.args)});
    match body {
        Body::Broadcast(broadcast) => {
            let opts = opts(&broadcast.target, flags_of(broadcast));
            (3, json!({"packet": packet(broadcast), "opts": opts}))
        }
        Body::Request(Request::Broadcast {
            id,
            broadcast,
            timeout,
            ..
        }) => {
            let flags = json!({"timeout": timeout.unwrap().as_millis() as u64});
            let opts = opts(&broadcast.target, flags);
            (
                3,
                json!({"packet": packet(broadcast), "requestId": id, "opts": opts}),
            )
        }
        Body::Request(Request::Join { target, rooms }) => {
            (4, json!({"opts": plain(target), "rooms": rooms}))
        }
        Body::Request(Request::Leave { target, rooms }) => {
            (5, json!({"opts": plain(target), "rooms": rooms}))
        }
        Body::Request(Request::Disconnect { target, close }) => {
            (6, json!({"opts": plain(target), "close": close}))
        }
        Body::Request(Request::Fetch { id, target }) => {
            (7, json!({"opts": plain(target), "requestId": id}))
        }
        Body::Response(Response::Fetched { id, sockets }) => {
            (8, json!({"requestId": id, "sockets": sockets}))
        }
        Body::Request(Request::ServerSideEmit { id: None, args }) => {
            (9, json!({"packet": shown(args)}))
        }
        Body::Request(Request::ServerSideEmit { id: Some(id), args }) => {
            (9, json!({"requestId": id, "packet": shown(args)}))
        }
        Body::Response(Response::ServerSideReply { id, value }) => {
            (10, json!({"requestId": id, "packet": shown(value)[0]}))
        }
        Body::Response(Response::ClientCount { id, num_clients }) => {
            (11, json!({"requestId": id, "clientCount": num_clients}))
        }
        Body::Response(Response::Ack { id, args }) => {
            (12, json!({"requestId": id, "packet": shown(args)[0]}))
        }
        other => panic!("{other:?} is not of this adapter"),
    }
}

/// What `data` with something binary in it turns into where there is only JSON.
fn with_buffers(value: Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$bin") => {
            let bytes = unhex(map["$bin"].as_str().unwrap());
            json!({"type": "Buffer", "data": bytes.to_vec()})
        }
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, with_buffers(v))).collect(),
        Value::Array(list) => list.into_iter().map(with_buffers).collect(),
        other => other,
    }
}

#[test]
fn every_recorded_message_is_read_and_written_byte_for_byte() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 30);
    let mut num_exact = 0;
    for Vector {
        name,
        channel,
        bytes,
        decoded,
    } in vectors
    {
        let incoming = read(bytes.clone()).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(incoming.uid.as_deref(), decoded["uid"].as_str(), "{name}");
        let (kind, mut data) = (decoded["type"].as_u64().unwrap(), decoded["data"].clone());
        let degrades = name.contains("fetchsockets-binary-data/fetch-sockets-response");
        if degrades {
            data = with_buffers(data);
        }
        assert_eq!(told(&incoming.body), (kind, data), "{name}");

        let uid = Uid::parse_hex(decoded["uid"].as_str().unwrap()).unwrap();
        let again = write(&uid, &Namespace::main(), &incoming.body).unwrap();
        if degrades {
            assert_eq!(read(again).unwrap(), incoming, "{name}");
        } else {
            assert_eq!(again, bytes, "{name}");
            num_exact += 1;
        }

        let mode = match &name {
            name if name.starts_with("sharded-static/") => SubscriptionMode::Static,
            name if name.starts_with("sharded-dynamic-private/") => {
                SubscriptionMode::DynamicPrivate
            }
            _ => SubscriptionMode::Dynamic,
        };
        let channels = ShardedChannels::new("socket.io", Namespace::main(), &uid, mode);
        match &incoming.body {
            Body::Broadcast(broadcast) => {
                assert_eq!(channels.publish_to(&broadcast.target), channel, "{name}");
            }
            Body::Request(_) => assert_eq!(channels.main(), channel, "{name}"),
            Body::Response(_) => {
                let Some(ShardedChannel::Room(requester)) = channels.judge(channel.as_bytes())
                else {
                    panic!("{name} came on {channel}");
                };
                let respond_on = channels.respond_on(requester.as_str());
                assert_eq!(respond_on.as_deref(), Some(&*channel), "{name}");
            }
        }
    }
    assert_eq!(num_exact, 29);
}

#[test]
fn the_order_of_keys_and_the_encoding_make_no_difference() {
    let text = r#"{"nsp":"/","x":[],"data":{"opts":{},"requestId":null,"packet":{"data":["e"],"type":2}},"uid":"u","type":3}"#;
    let mut msgpack = b"\x84\xa3nsp\xa1/\xa4data\x82\xa4opts\x80\xa6packet\x82".to_vec();
    msgpack.extend_from_slice(b"\xa4data\x91\xa1e\xa4type\x02\xa3uid\xa1u\xa4type\x03");
    let args = Args::from_parts("[\"e\"]".into(), vec![]);
    let expected = Incoming {
        uid: Some("u".to_owned()),
        body: Body::Broadcast(Broadcast::to_all(Namespace::main(), args)),
    };
    assert_eq!(read(text).unwrap(), expected);
    assert_eq!(read(msgpack).unwrap(), expected);
}

#[test]
fn ones_own_echo_is_known_before_the_rest_is_read() {
    let bytes = Bytes::from(format!(r#"{{"uid":"{UID}","type":[]}}"#));
    let envelope = Envelope::open(&bytes).unwrap();
    assert!(envelope.is_from(&uid()));
    assert!(!envelope.is_from(&Uid::parse_hex("fedcba9876543210").unwrap()));
}

#[test]
fn each_fault_is_refused_by_name() {
    let member = |key| DecodeError::Member { key };
    let options = |key| DecodeError::Options { key };
    let message =
        |kind: &str, data: &str| format!(r#"{{"type":{kind},"data":{data},"uid":"u","nsp":"/"}}"#);
    for (text, expected) in [
        ("{".to_owned(), DecodeError::Object),
        (r#"{"type":3}"#.to_owned(), DecodeError::Uid),
        (r#"{"type":3,"uid":7}"#.to_owned(), DecodeError::Uid),
        (r#"{"type":3,"uid":"u"}"#.to_owned(), DecodeError::Namespace),
        (
            r#"{"type":3,"uid":"u","nsp":"/x"}"#.to_owned(),
            DecodeError::Namespace,
        ),
        (message("\"3\"", "{}"), member("type")),
        (message("1", "null"), DecodeError::Type { number: 1 }),
        (message("2", "null"), DecodeError::Type { number: 2 }),
        (message("13", "null"), DecodeError::Type { number: 13 }),
        (message("3", "null"), member("data")),
        (message("3", "[]"), member("data")),
        (message("3", "{}"), options("")),
        (
            message("3", r#"{"opts":{}}"#),
            DecodeError::Packet { key: "" },
        ),
        (
            message(
                "3",
                r#"{"opts":{},"packet":{"type":2,"data":["e"]},"requestId":1}"#,
            ),
            member("requestId"),
        ),
        (
            message("3", r#"{"opts":{},"packet":{"type":3,"data":[]}}"#),
            DecodeError::PacketType { number: 3 },
        ),
        (message("4", r#"{"rooms":["a"]}"#), options("")),
        (message("5", r#"{"opts":{},"rooms":"a"}"#), member("rooms")),
        (message("6", r#"{"opts":{},"close":0}"#), member("close")),
        (message("7", r#"{"opts":{}}"#), member("requestId")),
        (message("7", r#"{"requestId":"r"}"#), options("")),
        (message("8", r#"{"requestId":"r"}"#), member("sockets")),
        (
            message("8", r#"{"requestId":"r","sockets":["id"]}"#),
            member("sockets"),
        ),
        (message("9", "{}"), DecodeError::Packet { key: "" }),
        (message("9", r#"{"packet":[]}"#), DecodeError::EventName),
        (message("10", r#"{"packet":1}"#), member("requestId")),
        (message("11", r#"{"requestId":"r"}"#), member("clientCount")),
        (message("12", r#"{"packet":1}"#), member("requestId")),
    ] {
        assert_eq!(read(text.clone()), Err(expected), "{text}");
    }
}

/// A bug: all of an answer that nobody waits for was read, which may be a quarter of a million sockets.
#[test]
fn an_answer_to_what_was_not_asked_is_not_read() {
    for kind in [8, 10, 11, 12] {
        let data = r#"{"requestId":"r","sockets":7,"clientCount":"x","packet":{}}"#;
        let bytes = format!(r#"{{"type":{kind},"data":{data},"uid":"u","nsp":"/"}}"#);
        let decode = |is_asked| {
            let envelope = Envelope::open(&bytes.clone().into()).unwrap();
            envelope.decode(&Namespace::main(), |id| {
                assert_eq!(id.as_str(), "r");
                is_asked
            })
        };
        assert_eq!(decode(false), Ok(None), "{kind}");
        if kind == 8 {
            assert!(decode(true).is_err(), "its sockets are none");
        }
    }
}

/// A bug: both are kept while a question is answered, and could be as long as Redis carries them.
#[test]
fn who_asks_and_the_id_of_what_is_asked_are_short() {
    let asked = |uid: &str, id: &str| {
        let data = format!(r#"{{"opts":{{}},"requestId":"{id}"}}"#);
        read(format!(
            r#"{{"type":7,"data":{data},"uid":"{uid}","nsp":"/"}}"#
        ))
    };
    let (longest, long) = ("x".repeat(MAX_ID_BYTES), "x".repeat(MAX_ID_BYTES + 1));
    assert!(asked(&longest, &longest).is_ok());
    let key = "requestId";
    assert_eq!(asked("u", &long), Err(DecodeError::Member { key }));
    assert_eq!(asked(&long, "r"), Err(DecodeError::Uid));
}

#[test]
fn what_this_adapter_does_not_have_is_not_written() {
    let id = || RequestId::from("r");
    for request in [
        Request::AllRooms { id: id() },
        Request::SocketIds {
            id: id(),
            rooms: vec![],
        },
    ] {
        let refused = Err(EncodeError::NotSharded);
        assert_eq!(
            encode_request(&uid(), &Namespace::main(), &request),
            refused
        );
    }
    for response in [
        Response::Done { id: id() },
        Response::SocketIds {
            id: id(),
            sockets: vec![],
        },
    ] {
        let refused = Err(EncodeError::NotSharded);
        assert_eq!(
            encode_response(&uid(), &Namespace::main(), &response),
            refused
        );
    }
    let args = |json: &str| Args::from_parts(json.to_owned().into(), vec![]);
    let broadcast = Broadcast::to_all(Namespace::main(), args("[],[]"));
    let refused = Err(EncodeError::MessagePack(msgpack::EncodeError::Json {
        at: 0,
    }));
    assert_eq!(encode_broadcast(&uid(), &broadcast), refused);
    let emit = Request::ServerSideEmit {
        id: None,
        args: args("[\"connection\"]"),
    };
    let refused = Err(EncodeError::ReservedName);
    assert_eq!(encode_request(&uid(), &Namespace::main(), &emit), refused);
}

#[test]
fn no_part_of_a_message_is_taken_for_the_whole() {
    for Vector { name, bytes, .. } in vectors() {
        for len in 0..bytes.len() {
            assert!(
                read(bytes.slice(..len)).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
}

fn any_body() -> impl Strategy<Value = Body> {
    let broadcast = (any_target(), any_flags(), any_args()).prop_map(|(target, flags, args)| {
        Body::Broadcast(Broadcast {
            namespace: Namespace::from("/n"),
            target,
            flags,
            args,
        })
    });
    prop_oneof![
        broadcast,
        any_request(false).prop_map(Body::Request),
        any_response(false).prop_map(Body::Response),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read_as_the_same(body in any_body()) {
        let namespace = Namespace::from("/n");
        let bytes = write(&uid(), &namespace, &body).unwrap();
        let incoming = Envelope::open(&bytes).unwrap().decode(&namespace, |_| true).unwrap().unwrap();
        prop_assert_eq!(incoming.uid.as_deref(), Some(UID));
        prop_assert_eq!(incoming.body, body);
    }

    #[test]
    fn any_damage_to_a_message_is_answered_without_a_panic(
        which in 0..30_usize, damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = vectors()[which].bytes.to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(incoming) = read(bytes) {
            let again = write(&uid(), &Namespace::main(), &incoming.body);
            prop_assert!(matches!(again, Ok(_) | Err(EncodeError::ReservedName)));
        }
    }
}
