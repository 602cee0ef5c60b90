//! Tests of the broadcast message: the recorded vectors, each refusal, and what must hold for any input.
//!
//! Nothing here talks to Node; that the encoder agrees with notepack itself is tested where Node runs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::msgpack;

const VECTORS: &str = include_str!("../../test/vectors/classic-broadcast.json");

struct Vector {
    name: String,
    from_adapter: bool,
    channel: String,
    bytes: Bytes,
    decoded: Value,
}

fn vectors() -> Vec<Vector> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    vectors
        .iter()
        .map(|vector| Vector {
            name: vector["name"].as_str().unwrap().to_owned(),
            from_adapter: vector["package"]
                .as_str()
                .unwrap()
                .contains("redis-adapter"),
            channel: vector["channel"].as_str().unwrap().to_owned(),
            bytes: unhex(vector["hex"].as_str().unwrap()),
            decoded: vector["decoded"].clone(),
        })
        .collect()
}

fn unhex(text: &str) -> Bytes {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Puts attachments back as `{"$bin": hex}`.
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

/// Replaces `{"$date": iso}` by the text that a client sees, and rooms by their text.
fn as_client_sees(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$date") => map["$date"].clone(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (k.clone(), as_client_sees(v)))
            .collect(),
        Value::Array(list) => list.iter().map(as_client_sees).collect(),
        other => other.clone(),
    }
}

fn rooms_of(value: &Value) -> Vec<Room> {
    let text = |room: &Value| {
        room.as_str()
            .map_or_else(|| room.to_string(), str::to_owned)
    };
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|room| Room::from(text(room)))
        .collect()
}

fn decode(bytes: &Bytes) -> Result<Broadcast, DecodeError> {
    Envelope::open(bytes)?.decode()
}

#[test]
fn every_recorded_broadcast_decodes_to_what_was_sent() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 21);
    for Vector {
        name,
        channel,
        bytes,
        decoded,
        ..
    } in vectors
    {
        let envelope = Envelope::open(&bytes).unwrap();
        assert_eq!(envelope.uid(), decoded[0], "{name}");
        let broadcast = envelope
            .decode()
            .unwrap_or_else(|err| panic!("{name}: {err}"));
        let args: Value = serde_json::from_str(broadcast.args.json()).unwrap();
        let args = with_bin(args, broadcast.args.attachments());
        assert_eq!(args, as_client_sees(&decoded[1]["data"]), "{name}");
        assert_eq!(broadcast.namespace.as_str(), decoded[1]["nsp"], "{name}");
        assert_eq!(
            broadcast.target.rooms,
            rooms_of(&decoded[2]["rooms"]),
            "{name}"
        );
        assert_eq!(
            broadcast.target.except,
            rooms_of(&decoded[2]["except"]),
            "{name}"
        );
        let flags = &decoded[2]["flags"];
        assert_eq!(
            broadcast.flags.volatile,
            flags["volatile"] == true,
            "{name}"
        );
        assert_eq!(
            broadcast.flags.compress,
            flags["compress"].as_bool(),
            "{name}"
        );

        let channels =
            crate::adapter::channel::BroadcastChannels::new("socket.io", broadcast.namespace);
        assert_eq!(channels.publish_to(&broadcast.target), channel, "{name}");
    }
}

#[test]
fn what_the_adapter_published_is_written_again_byte_for_byte() {
    let mut num_exact = 0;
    for Vector {
        name,
        bytes,
        decoded,
        ..
    } in vectors().into_iter().filter(|v| v.from_adapter)
    {
        let broadcast = decode(&bytes).unwrap();
        let uid = Uid::parse(decoded[0].as_str().unwrap()).unwrap();
        let again = encode(&uid, &broadcast).unwrap();
        // JSON has neither dates nor rooms named by numbers; and the recorded integers end in one beyond 2^64, which
        // notepack mangles to a zero of nine bytes. These three cannot come back as they were.
        if ["date", "numeric-room", "integers"]
            .iter()
            .any(|part| name.contains(part))
        {
            assert_eq!(decode(&again).unwrap(), broadcast, "{name}");
        } else {
            assert_eq!(again, bytes, "{name}");
            num_exact += 1;
        }
    }
    assert_eq!(num_exact, 13);
}

#[test]
fn flags_are_written_as_node_names_them() {
    let args = Args::from_parts("[\"e\"]".into(), vec![]);
    let mut broadcast = Broadcast::to_all(Namespace::main(), args);
    let uid = Uid::parse("abcdef").unwrap();
    for (flags, expected) in [
        (Flags::default(), &b"\x80"[..]),
        (
            Flags {
                volatile: true,
                compress: None,
            },
            b"\x81\xa8volatile\xc3",
        ),
        (
            Flags {
                compress: Some(false),
                ..Flags::default()
            },
            b"\x81\xa8compress\xc2",
        ),
    ] {
        broadcast.flags = flags;
        let bytes = encode(&uid, &broadcast).unwrap();
        assert!(
            bytes.ends_with(&[b"\xa5flags", expected].concat()),
            "{flags:?}: {bytes:?}"
        );
    }
}

#[test]
fn ones_own_echo_is_known_before_the_rest_is_read() {
    let bytes = Bytes::from_static(b"\x93\xa6abcdef\xc1 garbage");
    let envelope = Envelope::open(&bytes).unwrap();
    assert!(envelope.is_from(&Uid::parse("abcdef").unwrap()));
    assert!(!envelope.is_from(&Uid::parse("abcdeg").unwrap()));
    assert_eq!(
        envelope.decode(),
        Err(DecodeError::MessagePack(msgpack::DecodeError::Marker {
            at: 8
        }))
    );
}

/// Returns a message with this packet and these options.
fn message(packet: &[u8], options: &[u8]) -> Bytes {
    [b"\x93\xa7emitter", packet, options].concat().into()
}

const PACKET: &[u8] = b"\x83\xa4type\x02\xa4data\x91\xa1e\xa3nsp\xa1/";

#[test]
fn what_senders_in_use_leave_out_is_filled_in() {
    let minimal = b"\x82\xa4type\x02\xa4data\x91\xa1e";
    let nil = b"\x83\xa5rooms\xc0\xa6except\xc0\xa5flags\xc0";
    let nil_nsp = b"\x83\xa4type\x02\xa4data\x91\xa1e\xa3nsp\xc0";
    for (packet, options) in [
        (PACKET, &b"\x80"[..]),
        (minimal, b"\x80"),
        (minimal, nil),
        (nil_nsp, nil),
    ] {
        let broadcast = decode(&message(packet, options)).unwrap();
        let args = Args::from_parts("[\"e\"]".into(), vec![]);
        assert_eq!(broadcast, Broadcast::to_all(Namespace::main(), args));
    }
}

#[test]
fn unknown_keys_are_passed_over_whatever_they_hold() {
    let packet = [
        &b"\x86\xa2id\xc0\xa4data\x91\x2a"[..],
        b"\xa7options\x81\xa8compress\xc3",
        b"\x05\x92\x91\xc0\xc4\x01a",
        b"\xa4type\x02\xa3nsp\xa2/x",
    ]
    .concat();
    let options =
        b"\x82\xa5flags\x83\xa7timeout\xcd\x03\x20\xa5local\xc3\xa8volatile\xc3\xa5rooms\x92\x2a\xff";
    let broadcast = decode(&message(&packet, options)).unwrap();
    assert_eq!(broadcast.args.json(), "[42]");
    assert_eq!(broadcast.namespace.as_str(), "/x");
    assert_eq!(broadcast.target.rooms, [Room::from("42"), Room::from("-1")]);
    assert_eq!(
        broadcast.flags,
        Flags {
            volatile: true,
            compress: None
        }
    );
}

#[test]
fn each_fault_is_refused_by_name() {
    let packet = |bytes: &[u8]| message(bytes, b"\x80");
    let options = |bytes: &[u8]| message(PACKET, bytes);
    let many_rooms = [
        b"\x81\xa5rooms\xdd\x00\x01\x00\x01".to_vec(),
        vec![1; 65_537],
    ]
    .concat();
    for (bytes, expected) in [
        (
            Bytes::new(),
            DecodeError::MessagePack(msgpack::DecodeError::Truncated { at: 0 }),
        ),
        (Bytes::from_static(b"{\"type\":2}"), DecodeError::Arity),
        (Bytes::from_static(b"\x92\xa1a\x80"), DecodeError::Arity),
        (
            Bytes::from_static(b"\x94\xa1a\x80\x80\x80"),
            DecodeError::Arity,
        ),
        (
            Bytes::from_static(b"\x83\xa1a\x80\xa1a\x80\xa1a\x80"),
            DecodeError::Arity,
        ),
        (Bytes::from_static(b"\x93\x01\x80\x80"), DecodeError::Uid),
        (packet(b"\x90"), DecodeError::Packet { key: "" }),
        (packet(b"\x80"), DecodeError::Packet { key: "type" }),
        (
            packet(b"\x81\xa4type\x02"),
            DecodeError::Packet { key: "data" },
        ),
        (
            packet(b"\x81\xa4type\xa12"),
            DecodeError::Packet { key: "type" },
        ),
        (
            packet(b"\x81\xa4type\x05"),
            DecodeError::PacketType { number: 5 },
        ),
        (
            packet(b"\x81\xa4data\xa1e"),
            DecodeError::Packet { key: "data" },
        ),
        (packet(b"\x81\xa4data\x90"), DecodeError::EventName),
        (
            packet(b"\x81\xa3nsp\x01"),
            DecodeError::Packet { key: "nsp" },
        ),
        (options(b"\xc0"), DecodeError::Options { key: "" }),
        (
            options(b"\x81\xa5rooms\xa1a"),
            DecodeError::Options { key: "rooms" },
        ),
        (
            options(b"\x81\xa5rooms\x91\xc0"),
            DecodeError::Options { key: "rooms" },
        ),
        (
            options(b"\x81\xa6except\x91\x90"),
            DecodeError::Options { key: "except" },
        ),
        (
            options(b"\x81\xa5flags\x90"),
            DecodeError::Options { key: "flags" },
        ),
        (
            options(b"\x81\xa5flags\x81\xa8volatile\x01"),
            DecodeError::Options { key: "volatile" },
        ),
        (options(&many_rooms), DecodeError::Rooms { max: MAX_ROOMS }),
        (
            options(b"\x80\xc0"),
            DecodeError::MessagePack(msgpack::DecodeError::Trailing { len: 1 }),
        ),
        (
            message(PACKET, b""),
            DecodeError::MessagePack(msgpack::DecodeError::Truncated { at: 30 }),
        ),
    ] {
        assert_eq!(decode(&bytes), Err(expected), "{bytes:?}");
    }
}

#[test]
fn no_part_of_a_message_is_taken_for_the_whole() {
    for Vector { name, bytes, .. } in vectors() {
        for len in 0..bytes.len() {
            assert!(
                decode(&bytes.slice(..len)).is_err(),
                "{name} cut to {len} bytes"
            );
        }
    }
}

/// JSON values as an application may send them.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (prop::num::f64::NORMAL | prop::num::f64::ZERO)
            .prop_filter_map("JSON has finite numbers only", |number| {
                serde_json::Number::from_f64(number).map(Value::Number)
            }),
        any::<String>().prop_map(Value::from),
        "[\u{0}-\u{7f}]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 120, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..20)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Compares as JavaScript would: `5` is `5.0`. serde_json may be a few units off in a double's last place; that the
/// bits are right shows when the message is written again.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(l), Value::Number(r)) => {
            let (l, r) = (l.as_f64().unwrap(), r.as_f64().unwrap());
            l == r || ((l - r) / r).abs() < 1e-14
        }
        (Value::Array(l), Value::Array(r)) => {
            l.len() == r.len() && l.iter().zip(r).all(|(l, r)| same(l, r))
        }
        (Value::Object(l), Value::Object(r)) => {
            l.len() == r.len()
                && l.iter()
                    .all(|(key, l)| r.get(key).is_some_and(|r| same(l, r)))
        }
        _ => left == right,
    }
}

/// Writes `value` with every character of its texts as an escape.
fn escaped_text(value: &Value) -> String {
    let quoted = |text: &str| {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
        format!("\"{}\"", units.collect::<String>())
    };
    match value {
        Value::String(text) => quoted(text),
        Value::Array(list) => {
            format!(
                "[ {} ]",
                list.iter()
                    .map(escaped_text)
                    .collect::<Vec<_>>()
                    .join(" ,\n")
            )
        }
        Value::Object(map) => {
            let member = |(key, value): (&String, &Value)| {
                format!("{} :\t{}", quoted(key), escaped_text(value))
            };
            format!(
                "{{ {} }}",
                map.iter().map(member).collect::<Vec<_>>().join(",")
            )
        }
        other => other.to_string(),
    }
}

#[test]
fn an_event_has_a_name() {
    for data in [
        &b"\x90"[..],
        b"\x91\xc0",
        b"\x91\x90",
        b"\x91\xc4\x01a",
        b"\x91\xd4\0\0",
    ] {
        let bytes = Bytes::copy_from_slice(data);
        assert_eq!(
            read_event(&mut Reader::new(&bytes)),
            Err(DecodeError::EventName)
        );
    }
    let bytes = Bytes::from_static(b"\x81\x01\x01");
    let refused = Err(DecodeError::Packet { key: "data" });
    assert_eq!(read_event(&mut Reader::new(&bytes)), refused);
    for (data, json) in [(&b"\x91\x05"[..], "[5]"), (b"\x91\xff", "[-1]")] {
        let bytes = Bytes::copy_from_slice(data);
        assert_eq!(read_event(&mut Reader::new(&bytes)).unwrap().json(), json);
    }
}

proptest! {
    #[test]
    fn json_survives_the_wire(payload in any_json(), escape in any::<bool>()) {
        let value = json!(["e", payload]);
        let text = if escape { escaped_text(&value) } else { value.to_string() };
        let args = Args::from_parts(text.into(), vec![]);
        let bytes = encode(&Uid::parse("abcdef").unwrap(), &Broadcast::to_all(Namespace::main(), args)).unwrap();
        let broadcast = decode(&bytes).unwrap();
        let again: Value = serde_json::from_str(broadcast.args.json()).unwrap();
        prop_assert!(same(&again, &value), "{again} is not {value}");
        // What came off the wire goes onto it unchanged.
        let uid = Uid::parse("abcdef").unwrap();
        prop_assert_eq!(encode(&uid, &broadcast).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes.clone().into());
        let _ = decode(&message(&bytes, b"\x80"));
        let _ = decode(&message(&[b"\x82\xa4type\x02\xa4data\x92\xa1e", &*bytes].concat(), b"\x80"));
    }

    #[test]
    fn any_damage_to_a_message_is_answered_without_a_panic(
        which in 0..21_usize, damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = vectors()[which].bytes.to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(broadcast) = decode(&bytes.into()) {
            // What is accepted is sound: its text is JSON and can be published in turn.
            prop_assert!(serde_json::from_str::<Value>(broadcast.args.json()).is_ok());
            prop_assert!(encode(&Uid::parse("abcdef").unwrap(), &broadcast).is_ok());
        }
    }

    #[test]
    fn any_text_is_answered_without_a_panic(text in any::<String>()) {
        for text in [text.clone(), format!("[{text}"), format!("[{text}]")] {
            let args = Args::from_parts(text.into(), vec![Bytes::from_static(b"x")]);
            let _ = encode(&Uid::parse("abcdef").unwrap(), &Broadcast::to_all(Namespace::main(), args));
        }
    }
}
