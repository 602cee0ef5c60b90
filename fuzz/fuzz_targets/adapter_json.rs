//! JSON to MessagePack and back: equal as JSON values, as far as JavaScript's numbers and texts can tell.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sockhop::{
    adapter::{
        message::{Envelope, encode},
        uid::Uid,
    },
    engine_io::packet::Message,
    hub::broadcast::Broadcast,
    socket_io::{
        decoder::{Decoder, Packet},
        parser::Parser,
    },
};

/// Numbers are compared as JavaScript sees them: `5.0` is `5`, `-0` is `0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let exact = (a.as_u64(), a.as_i64()) == (b.as_u64(), b.as_i64());
            (exact && (a.is_u64() || a.is_i64())) || close(a.as_f64(), b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// serde_json reads long fractions to the last bit but one, so the text it gets back may differ in the last.
fn close(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b)
        .is_some_and(|(a, b)| a == b || (a - b).abs() <= a.abs() * 4.0 * f64::EPSILON)
}

fuzz_target!(|input: (&str, Vec<Vec<u8>>)| {
    let (json, attachments) = input;
    // Through the client's decoder, as everything that is published comes.
    let mut decoder = Decoder::new(Parser::Json, 1000);
    let text = match attachments.len() {
        0 => format!("2{json}"),
        num => format!("5{num}-{json}"),
    };
    let mut packet = decoder.decode(Message::Text(text.into()));
    for attachment in &attachments {
        if packet != Ok(None) {
            return;
        }
        packet = decoder.decode(Message::Binary(Bytes::copy_from_slice(attachment)));
    }
    let Ok(Some(Packet::Event {
        args, namespace, ..
    })) = packet
    else {
        return;
    };
    let broadcast = Broadcast::to_all(namespace, args);
    let uid = Uid::parse("abcdef").expect("a uid");
    let bytes = encode(&uid, &broadcast).expect("whatever a client may send can be published");
    let envelope = Envelope::open(&bytes).expect("our own message");
    let back = envelope.decode().expect("our own message");
    assert_eq!(back.namespace, broadcast.namespace);
    assert_eq!(
        back.args.attachments().len(),
        broadcast.args.attachments().len()
    );
    let again: serde_json::Result<Box<serde_json::value::RawValue>> =
        serde_json::from_str(back.args.json());
    again.expect("arguments are JSON");
    if !attachments.is_empty() {
        // Placeholders are numbered anew, in the order in which they stand.
        return;
    }
    // Lone surrogates and numbers beyond float 64 have no tree to compare.
    if let Ok(sent) = serde_json::from_str::<Value>(broadcast.args.json()) {
        let got: Value = serde_json::from_str(back.args.json()).expect("arguments are JSON");
        assert!(same(&sent, &got), "{sent} is not {got}");
    }
});
