//! Socket.IO packets in MessagePack: what is decoded can be encoded in either form and decodes as the same packet.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::{
    engine_io::{dialect::Dialect, encoded::Encoded, packet, payload::Payload},
    socket_io::{
        args::Args,
        decoder::{Decoder, MAX_ATTACHMENTS, Packet},
        encode, json,
        parser::Parser,
    },
};

fn check_args(args: &Args) {
    json::check_array(args.json()).expect("a decoder's arguments are one array");
    assert!(args.attachments().len() <= MAX_ATTACHMENTS);
    json::check_array(args.without_name().json()).expect("and so is what stands behind the first");
}

/// Decodes what was encoded for the other side: both directions have one grammar for events and acks.
fn again(parser: Parser, encoded: &Encoded) -> Packet {
    let mut decoder = Decoder::new(parser, usize::MAX);
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

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new(Parser::MessagePack, 1000);
    let message = packet::Message::Binary(Bytes::copy_from_slice(bytes));
    let Ok(Some(packet)) = decoder.decode(message) else {
        return;
    };
    for parser in [Parser::MessagePack, Parser::Json] {
        let (namespace, encoded) = match &packet {
            Packet::Event {
                namespace,
                ack,
                args,
                ..
            } => {
                check_args(args);
                (namespace, encode::event(parser, namespace, *ack, args))
            }
            Packet::Ack {
                namespace,
                id,
                args,
            } => {
                check_args(args);
                (namespace, encode::ack(parser, namespace, *id, args))
            }
            Packet::Connect { auth, .. } => {
                if let Some(auth) = auth {
                    json::check_object(auth).expect("auth is one object");
                }
                return;
            }
            Packet::Disconnect { namespace } => {
                if parser == Parser::MessagePack {
                    assert_eq!(
                        again(parser, &encode::disconnect(parser, namespace)),
                        packet
                    );
                }
                return;
            }
        };
        let encoded = encoded.expect("whatever a client may send can be sent on");
        // Text cannot hold every name of a namespace: it ends at a comma, and begins with a slash.
        let name = namespace.as_str();
        if parser == Parser::MessagePack
            || (name.starts_with('/') && !name.contains([',', '\u{1e}']))
        {
            assert_eq!(again(parser, &encoded), packet);
        }
    }
});
