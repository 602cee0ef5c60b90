//! Tests of `msgpack_packet`: recorded bytes both ways, each refusal, and that both forms say the same.
//!
//! Bytes are those of wire.md 2.7, or were printed by notepack.io 2.2.0, the encoder of the official parser.

use bytestring::ByteString;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    engine_io::packet::Message,
    socket_io::{
        decoder::Decoder,
        encode,
        parser::Parser::{self, Json, MessagePack},
    },
};

fn unhex(text: &str) -> Bytes {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn args(json: &str, attachments: &[&'static [u8]]) -> Args {
    let attachments = attachments.iter().map(|a| Bytes::from_static(a));
    Args::from_parts(json.into(), attachments.collect())
}

fn an_event(namespace: &str, ack: Option<u64>, name: &str, args: Args) -> Packet {
    Packet::Event {
        namespace: namespace.into(),
        ack: ack.map(AckId),
        name: name.into(),
        args,
    }
}

fn a_connect(namespace: &str, auth: Option<&str>) -> Packet {
    Packet::Connect {
        namespace: namespace.into(),
        auth: auth.map(ByteString::from),
    }
}

fn whole(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    Decoder::new(MessagePack, 0).decode(Message::Binary(Bytes::copy_from_slice(bytes)))
}

/// A packet of these pairs, each in MessagePack.
fn map(pairs: &[&[u8]]) -> Vec<u8> {
    [
        &[0x80 | u8::try_from(pairs.len()).unwrap()],
        &*pairs.concat(),
    ]
    .concat()
}

const TYPE_0: &[u8] = b"\xa4type\x00";
const TYPE_1: &[u8] = b"\xa4type\x01";
const TYPE_2: &[u8] = b"\xa4type\x02";
const TYPE_3: &[u8] = b"\xa4type\x03";
const NSP: &[u8] = b"\xa3nsp\xa1/";
const DATA_X: &[u8] = b"\xa4data\x91\xa1x";

fn data(value: &[u8]) -> Vec<u8> {
    [b"\xa4data", value].concat()
}

#[test]
fn the_references_bytes_are_written() {
    let main = Namespace::main();
    let hello = args(
        r#"["hello",1,{"_placeholder":true,"num":0}]"#,
        &[&[1, 2, 3]],
    );
    for (bytes, expected) in [
        (
            event(&main, None, &hello),
            "83a47479706502a46461746193a568656c6c6f01c403010203a36e7370a12f",
        ),
        (
            ack(&main, AckId(7), &args(r#"["ok"]"#, &[])),
            "84a47479706503a2696407a46461746191a26f6ba36e7370a12f",
        ),
        (disconnect(&main), "82a47479706501a36e7370a12f"),
        (
            disconnect(&"/custom".into()),
            "82a47479706501a36e7370a72f637573746f6d",
        ),
        (
            connect(&main, r#"{"sid":"abc"}"#),
            "83a47479706500a46461746181a3736964a3616263a36e7370a12f",
        ),
        (
            connect_error(&main, r#"{"message":"no","data":{"code":7}}"#),
            "83a47479706504a46461746182a76d657373616765a26e6fa46461746181a4636f646507a36e7370a12f",
        ),
        (
            event(&main, Some(AckId(0)), &args(r#"["x"]"#, &[])),
            "84a47479706502a2696400a46461746191a178a36e7370a12f",
        ),
    ] {
        assert_eq!(hex(&bytes.unwrap()), expected);
    }
}

#[test]
fn what_the_official_client_writes_is_read() {
    let placeholders = r#"["b",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]"#;
    for (bytes, packet) in [
        (
            "83a47479706500a464617461d40000a36e7370a12f",
            a_connect("/", None),
        ),
        (
            "84a47479706500a464617461d40000a36e7370a12fa76f7074696f6e7381a8636f6d7072657373c3",
            a_connect("/", None),
        ),
        (
            "83a47479706500a46461746183a5746f6b656ea3616263a16ed40000a26174d7000000018bcfe5687ba36e7370a72f637573746f6d",
            a_connect(
                "/custom",
                Some(r#"{"token":"abc","at":"2023-11-14T22:13:20.123Z"}"#),
            ),
        ),
        (
            "85a47479706502a46461746195a568656c6c6fcb3ff8000000000000c0d4000082a161d40000a162c3a76f7074696f6e7381a8636f6d7072657373c3a2696407a36e7370a12f",
            an_event(
                "/",
                Some(7),
                "hello",
                args(r#"["hello",1.5,null,null,{"b":true}]"#, &[]),
            ),
        ),
        (
            "83a47479706502a46461746194a162c70300010203c7010000c40109a36e7370a12f",
            an_event(
                "/",
                None,
                "b",
                args(placeholders, &[&[1, 2, 3], &[0], &[9]]),
            ),
        ),
        (
            "83a47479706502a46461746192a164d7000000018bcfe5687ba36e7370a12f",
            an_event(
                "/",
                None,
                "d",
                args(r#"["d","2023-11-14T22:13:20.123Z"]"#, &[]),
            ),
        ),
        (
            "84a2696407a47479706503a46461746191a26f6ba36e7370a12f",
            Packet::Ack {
                namespace: "/".into(),
                id: AckId(7),
                args: args(r#"["ok"]"#, &[]),
            },
        ),
        (
            "83a47479706501a464617461d40000a36e7370a12f",
            Packet::Disconnect {
                namespace: "/".into(),
            },
        ),
        (
            "83a47479706502a46461746193a568656c6c6f01c403010203a36e7370a12f",
            an_event(
                "/",
                None,
                "hello",
                args(
                    r#"["hello",1,{"_placeholder":true,"num":0}]"#,
                    &[&[1, 2, 3]],
                ),
            ),
        ),
    ] {
        assert_eq!(whole(&unhex(bytes)), Ok(Some(packet)), "{bytes}");
    }
}

#[test]
fn keys_stand_in_any_order_and_unknown_ones_are_passed_over() {
    let expected = Ok(Some(an_event("/", Some(3), "x", args(r#"["x"]"#, &[]))));
    let id: &[u8] = b"\xa2id\x03";
    let deep = [b"\xa7options".to_vec(), vec![0x91; 500], vec![0xc0]].concat();
    for pairs in [
        &[TYPE_2, NSP, DATA_X, id][..],
        &[id, DATA_X, NSP, TYPE_2],
        &[DATA_X, id, &deep, TYPE_2, NSP],
        &[b"\xc0\xc0", b"\x05\x91\x80", DATA_X, id, TYPE_2, NSP],
        // The last of equal keys counts.
        &[TYPE_3, &data(b"\xc0"), id, DATA_X, TYPE_2, NSP],
    ] {
        assert_eq!(whole(&map(pairs)), expected, "{pairs:02x?}");
    }
}

#[test]
fn an_integer_may_come_in_any_format() {
    for two in [
        &b"\xcc\x02"[..],
        b"\xcd\0\x02",
        b"\xd3\0\0\0\0\0\0\0\x02",
        b"\xcb\x40\0\0\0\0\0\0\0",
        b"\xca\x40\0\0\0",
    ] {
        let kind = [b"\xa4type", two].concat();
        let id = [b"\xa2id", two].concat();
        assert_eq!(
            whole(&map(&[&kind, &id, DATA_X, NSP])),
            Ok(Some(an_event("/", Some(2), "x", args(r#"["x"]"#, &[])))),
            "{two:02x?}"
        );
    }
    let id = b"\xa2id\xd4\0\0";
    assert_eq!(
        whole(&map(&[TYPE_2, DATA_X, id, NSP])),
        Ok(Some(an_event("/", None, "x", args(r#"["x"]"#, &[])))),
        "an undefined id is none"
    );
}

#[test]
fn an_event_may_be_named_by_a_number() {
    for (value, name, json) in [
        (&b"\x92\x01\x02"[..], "1", "[1,2]"),
        (b"\x91\xff", "-1", "[-1]"),
        (b"\x91\xcb\x3f\xf8\0\0\0\0\0\0", "1.5", "[1.5]"),
    ] {
        let packet = whole(&map(&[TYPE_2, &data(value), NSP]));
        assert_eq!(packet, Ok(Some(an_event("/", None, name, args(json, &[])))));
    }
}

#[test]
fn an_ack_without_id_says_nothing() {
    assert_eq!(whole(&map(&[TYPE_3, DATA_X, NSP])), Ok(None));
    let undefined = b"\xa2id\xd4\0\0";
    assert_eq!(whole(&map(&[TYPE_3, DATA_X, undefined, NSP])), Ok(None));
}

#[test]
fn breaches_of_the_protocol_are_refused() {
    use DecodeError as E;
    const ID: &[u8] = b"\xa2id";
    let field = |key| E::Field { key };
    let nan = b"\x91\xcb\x7f\xf8\0\0\0\0\0\0";
    for (packet, error) in [
        (vec![0x90], field("")),
        (vec![0xc0], field("")),
        (b"\xa12".to_vec(), field("")),
        (map(&[NSP, DATA_X]), E::UnknownType),
        (map(&[b"\xa4type\x04", NSP, &data(b"\x80")]), E::UnknownType),
        (map(&[b"\xa4type\x05", NSP, DATA_X]), E::UnknownType),
        (map(&[b"\xa4type\xff", NSP, DATA_X]), E::UnknownType),
        (map(&[b"\xa4type\xa12", NSP, DATA_X]), E::UnknownType),
        (map(&[b"\xa4type\xc0", NSP, DATA_X]), E::UnknownType),
        (
            map(&[b"\xa4type\xca\x3f\0\0\0", NSP, DATA_X]),
            E::UnknownType,
        ),
        (map(&[TYPE_2, DATA_X]), field("nsp")),
        (map(&[TYPE_2, DATA_X, b"\xa3nsp\xc0"]), field("nsp")),
        (map(&[TYPE_2, DATA_X, b"\xa3nsp\x01"]), field("nsp")),
        (map(&[TYPE_2, DATA_X, b"\xa3nsp\xc4\x01/"]), field("nsp")),
        (map(&[TYPE_0, NSP, &data(b"\xc0")]), field("data")),
        (map(&[TYPE_0, NSP, &data(b"\x90")]), field("data")),
        (map(&[TYPE_0, NSP, &data(b"\xa1x")]), field("data")),
        (map(&[TYPE_1, NSP, &data(b"\xc0")]), E::UnexpectedPayload),
        (map(&[TYPE_1, NSP, &data(b"\x80")]), E::UnexpectedPayload),
        (map(&[TYPE_2, NSP]), field("data")),
        (map(&[TYPE_2, NSP, &data(b"\xd4\0\0")]), field("data")),
        (map(&[TYPE_2, NSP, &data(b"\xc0")]), field("data")),
        (map(&[TYPE_2, NSP, &data(b"\x80")]), field("data")),
        (map(&[TYPE_2, NSP, &data(b"\x90")]), E::EventName),
        (map(&[TYPE_2, NSP, &data(b"\x91\xc0")]), E::EventName),
        (map(&[TYPE_2, NSP, &data(b"\x91\x80")]), E::EventName),
        (map(&[TYPE_2, NSP, &data(b"\x91\xc4\x01x")]), E::EventName),
        (
            map(&[TYPE_2, NSP, &data(b"\x91\xd7\0\0\0\0\0\0\0\0\0")]),
            E::EventName,
        ),
        (map(&[TYPE_2, NSP, &data(nan)]), E::EventName),
        (
            map(&[TYPE_2, NSP, &data(b"\x91\xa7connect")]),
            E::ReservedEvent,
        ),
        (map(&[TYPE_3, NSP, &[ID, b"\x01"].concat()]), field("data")),
        (
            map(&[TYPE_3, NSP, &[ID, b"\x01"].concat(), &data(b"\x80")]),
            field("data"),
        ),
        (
            map(&[TYPE_2, NSP, DATA_X, &[ID, b"\xc0"].concat()]),
            E::AckId,
        ),
        (
            map(&[TYPE_2, NSP, DATA_X, &[ID, b"\xff"].concat()]),
            E::AckId,
        ),
        (
            map(&[TYPE_2, NSP, DATA_X, &[ID, b"\xa17"].concat()]),
            E::AckId,
        ),
        (
            map(&[TYPE_2, NSP, DATA_X, &[ID, b"\xca\x3f\0\0\0"].concat()]),
            E::AckId,
        ),
        (
            map(&[TYPE_2, NSP, DATA_X, &[ID, b"\xca\x7f\x80\0\0"].concat()]),
            E::AckId,
        ),
    ] {
        assert_eq!(whole(&packet), Err(error), "{packet:02x?}");
    }
    let text = Decoder::new(MessagePack, 1000).decode(Message::Text("0".into()));
    assert_eq!(text, Err(E::TextMessage));
}

#[test]
fn hostile_bytes_meet_limits() {
    let refused = |error| Err(DecodeError::MessagePack(error));
    let good = map(&[TYPE_2, NSP, DATA_X]);
    for len in 0..good.len() {
        assert!(whole(&good[..len]).is_err(), "{len} bytes of a packet");
    }
    assert_eq!(
        whole(&[&*good, b"\xc0"].concat()),
        refused(msgpack::DecodeError::Trailing { len: 1 })
    );
    for claimed in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\0",
    ] {
        let packet = map(&[TYPE_2, NSP, &data(claimed)]);
        let refusal = whole(&packet);
        assert!(
            matches!(
                refusal,
                Err(DecodeError::MessagePack(
                    msgpack::DecodeError::Truncated { .. }
                ))
            ),
            "{refusal:?} for {claimed:02x?}"
        );
    }
    let deep = |depth: usize| {
        let inner = [vec![0x91; depth - 1], vec![0xc0]].concat();
        whole(&map(&[
            TYPE_2,
            NSP,
            &data(&[b"\x92\xa1x", &*inner].concat()),
        ]))
    };
    assert!(deep(MAX_DEPTH).is_ok());
    let too_deep = refused(msgpack::DecodeError::TooDeep { max: MAX_DEPTH });
    assert_eq!(deep(MAX_DEPTH + 1), too_deep);
    assert_eq!(deep(500_000), too_deep);
    let many = |num: usize| {
        let value = [
            &[0x90 | (num as u8 + 1), 0xa1, b'x'],
            &*b"\xc4\0".repeat(num),
        ]
        .concat();
        whole(&map(&[TYPE_2, NSP, &data(&value)]))
    };
    assert!(many(MAX_ATTACHMENTS).is_ok());
    let max = MAX_ATTACHMENTS;
    assert_eq!(
        many(max + 1),
        refused(msgpack::DecodeError::Attachments { max })
    );
    let binary_auth = map(&[TYPE_0, NSP, &data(b"\x81\xa1a\xc4\0")]);
    assert_eq!(
        whole(&binary_auth),
        refused(msgpack::DecodeError::Attachments { max: 0 })
    );
}

#[test]
fn arguments_that_cannot_be_written_are_an_error_and_a_refusal_still_arrives() {
    let deep = format!("[{}{}]", "[".repeat(200), "]".repeat(200));
    for args in [args(&deep, &[]), args("[", &[]), args("{}", &[])] {
        assert!(encode::event(MessagePack, &Namespace::main(), None, &args).is_err());
        assert!(encode::ack(MessagePack, &Namespace::main(), AckId(0), &args).is_err());
    }
    let data: Value = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let refusal = encode::connect_error(MessagePack, &Namespace::main(), "no", Some(&data));
    let expected = connect_error(&Namespace::main(), r#"{"message":"no"}"#).unwrap();
    assert!(refusal.frames().ends_with(&expected));
}

/// Values whose JSON text is the same from serde_json and from JavaScript.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i16>().prop_map(|eighths| match eighths % 8 {
            0 => Value::from(eighths / 8),
            _ => Value::from(f64::from(eighths) / 8.0),
        }),
        any::<String>().prop_map(Value::from),
        "[\u{0}-\u{7f}]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 10, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..10).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..10)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Arguments behind a name, some of them binary.
fn any_args() -> impl Strategy<Value = Args> {
    let parts =
        proptest::collection::vec((any_value(), any::<Option<Vec<u8>>>()), 0..MAX_ATTACHMENTS);
    ("[a-z]{1,10}!", parts).prop_map(|(name, parts)| {
        let mut attachments = Vec::new();
        let mut list = vec![Value::from(name)];
        for (value, bytes) in parts {
            let Some(bytes) = bytes else {
                list.push(value);
                continue;
            };
            list.push(json!([value, { "_placeholder": true, "num": attachments.len() }]));
            attachments.push(Bytes::from(bytes));
        }
        Args::from_parts(Value::from(list).to_string().into(), attachments)
    })
}

/// Decodes the messages of one packet, as they travel on polling.
fn through(parser: Parser, encoded: &crate::engine_io::encoded::Encoded) -> Packet {
    let body = encoded.polling_in(crate::engine_io::dialect::Dialect::V4);
    let mut decoder = Decoder::new(parser, usize::MAX);
    let mut packet = None;
    for message in crate::engine_io::payload::Payload::new(body.bytes) {
        let crate::engine_io::packet::Packet::Message(message) = message.unwrap() else {
            panic!("only messages are encoded");
        };
        assert_eq!(packet, None);
        packet = decoder.decode(message).unwrap();
    }
    packet.unwrap()
}

proptest! {
    #[test]
    fn both_forms_say_the_same(args in any_args(), namespace in "/[a-z]{0,9}", id: Option<u64>) {
        let namespace = Namespace::from(namespace);
        let id = id.map(AckId);
        let [json, msgpack] = [Json, MessagePack].map(|parser| {
            through(parser, &encode::event(parser, &namespace, id, &args).unwrap())
        });
        prop_assert_eq!(json, msgpack);
        let id = id.unwrap_or(AckId(0));
        let [json, msgpack] = [Json, MessagePack].map(|parser| {
            through(parser, &encode::ack(parser, &namespace, id, &args).unwrap())
        });
        prop_assert_eq!(json, msgpack);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = whole(&bytes);
        let _ = whole(&map(&[TYPE_2, NSP, &data(&bytes)]));
    }

    #[test]
    fn any_damage_to_a_packet_is_answered_without_a_panic(
        args in any_args(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = event(&Namespace::main(), Some(AckId(1)), &args).unwrap().to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(Some(Packet::Event { args, .. })) = whole(&bytes) {
            // What is accepted is sound: one array, and whatever form it goes on in.
            prop_assert!(serde_json::from_str::<Vec<Value>>(args.json()).is_ok());
            prop_assert!(event(&Namespace::main(), None, &args).is_ok());
        }
    }
}
