//! Socket.IO packets with their attachments, and the round trip: what `encode` writes is decoded as the same packet.
#![no_main]

use bytes::Bytes;
use bytestring::ByteString;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use sockhop::{
    engine_io::{dialect::Dialect, encoded::Encoded, packet, payload::Payload},
    socket_io::{
        args::Args,
        decoder::{Decoder, MAX_ATTACHMENTS, Packet},
        encode, json,
        parser::Parser,
    },
};

#[derive(Arbitrary, Debug)]
enum Message {
    Text(String),
    Binary(Vec<u8>),
    /// Mostly valid, so that the fuzzer gets deep.
    Event {
        attachments: Vec<Vec<u8>>,
        namespace: Option<String>,
        ack: Option<u64>,
        tail: String,
    },
}

fn check_args(args: &Args) {
    json::check_array(args.json()).expect("a decoder's arguments are one array");
    assert!(args.attachments().len() <= MAX_ATTACHMENTS);
    json::check_array(args.without_name().json()).expect("and so is what stands behind the first");
}

/// Decodes what was encoded for the other side: both directions have one grammar for events and acks.
fn again(encoded: &Encoded) -> Packet {
    let mut decoder = Decoder::new(Parser::Json, usize::MAX);
    let mut whole = None;
    let body = encoded.polling_in(Dialect::V4).bytes;
    for packet in Payload::new(body) {
        let packet::Packet::Message(message) = packet.expect("encode writes packets") else {
            panic!("encode writes messages");
        };
        assert_eq!(whole, None, "nothing may come behind a whole packet");
        whole = decoder
            .decode(message)
            .expect("encode writes what is legal");
    }
    whole.expect("encode writes whole packets")
}

fuzz_target!(|messages: Vec<Message>| {
    let mut decoder = Decoder::new(Parser::Json, 1000);
    let mut queue = Vec::new();
    for message in messages {
        match message {
            Message::Text(text) => queue.push(packet::Message::Text(text.into())),
            Message::Binary(bytes) => queue.push(packet::Message::Binary(bytes.into())),
            Message::Event {
                attachments,
                namespace,
                ack,
                tail,
            } => {
                let mut text = match attachments.len() {
                    0 => "2".to_owned(),
                    num => format!("5{num}-"),
                };
                if let Some(namespace) = namespace {
                    text.push_str(&format!("/{namespace},"));
                }
                if let Some(ack) = ack {
                    text.push_str(&ack.to_string());
                }
                text.push_str("[\"x\"");
                for num in 0..attachments.len() {
                    text.push_str(&format!(",{{\"_placeholder\":true,\"num\":{num}}}"));
                }
                text.push_str(&tail);
                text.push(']');
                queue.push(packet::Message::Text(text.into()));
                let attachments = attachments.into_iter().map(Bytes::from);
                queue.extend(attachments.map(packet::Message::Binary));
            }
        }
    }
    for message in queue {
        let Ok(packet) = decoder.decode(message) else {
            return;
        };
        match packet {
            Some(packet @ Packet::Event { .. }) => {
                let Packet::Event {
                    namespace,
                    ack,
                    name,
                    args,
                } = &packet
                else {
                    return;
                };
                check_args(args);
                assert!(!["connect", "disconnect", "disconnecting"].contains(&&**name));
                // The separator cannot stand in JSON, but it can in a namespace: then polling must not be used to compare.
                if !namespace.as_str().contains('\u{1e}') {
                    let event = encode::event(Parser::Json, namespace, *ack, args);
                    let event = event.expect("JSON can always be written");
                    assert_eq!(again(&event), packet);
                }
            }
            Some(packet @ Packet::Ack { .. }) => {
                let Packet::Ack {
                    namespace,
                    id,
                    args,
                } = &packet
                else {
                    return;
                };
                check_args(args);
                if !namespace.as_str().contains('\u{1e}') {
                    let ack = encode::ack(Parser::Json, namespace, *id, args);
                    let ack = ack.expect("JSON can always be written");
                    assert_eq!(again(&ack), packet);
                }
            }
            Some(Packet::Connect {
                auth: Some(auth), ..
            }) => {
                json::check_object(&auth).expect("auth is one object");
            }
            Some(Packet::Disconnect { namespace }) => {
                let mut again = Decoder::new(Parser::Json, 0);
                let text = ByteString::from(format!("1{namespace},"));
                assert_eq!(
                    again.decode(packet::Message::Text(text)),
                    Ok(Some(Packet::Disconnect { namespace }))
                );
            }
            Some(Packet::Connect { auth: None, .. }) | None => {}
        }
    }
});
