//! Writes Socket.IO packets, ready for either transport.
//!
//! Pure. In the JSON form (the other is `msgpack_packet`'s) the leading `4` is Engine.IO's message type. Writers always put a comma behind a namespace and never write `/`.
//!
//! Source: Socket.IO protocol v5, "Packet encoding"; wire.md 2.1, 2.3.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{
    args::Args,
    decoder::AckId,
    ids::{Namespace, Pid, SocketId},
    msgpack_packet,
    parser::Parser,
};
use crate::engine_io::encoded::Encoded;
pub use crate::msgpack::EncodeError;

/// Room for what stands before the JSON text beside the namespace: type, attachment count and ack id.
const MAX_NUMBERS_LEN: usize = 32;

/// Writes type, attachment count and namespace: what stands before the ack id.
fn head(plain: char, binary: char, namespace: &Namespace, args: Option<&Args>) -> String {
    let mut text = String::with_capacity(MAX_NUMBERS_LEN + namespace.as_str().len());
    text.push('4');
    match args.map_or(0, |args| args.attachments().len()) {
        0 => text.push(plain),
        // Writing to a string cannot fail.
        num => _ = write!(text, "{binary}{num}-"),
    }
    if !namespace.is_main() {
        text.push_str(namespace.as_str());
        text.push(',');
    }
    text
}

fn put_ack_id(head: &mut String, AckId(id): AckId) {
    head.push_str(itoa::Buffer::new().format(id));
}

/// Puts a message of one packet together that cannot fail: all its texts came in messages or from an application.
fn sure(packet: Result<Bytes, EncodeError>) -> Arc<Encoded> {
    Encoded::binary(&packet.expect("no name in it is longer than 4 GiB"))
}

/// Encodes an event.
///
/// # Errors
/// Only in MessagePack: the arguments are not what [`Args`] promises, or nest deeper than can be written.
pub fn event(
    parser: Parser,
    namespace: &Namespace,
    ack: Option<AckId>,
    args: &Args,
) -> Result<Arc<Encoded>, EncodeError> {
    if parser == Parser::MessagePack {
        let packet = msgpack_packet::event(namespace, ack, args)?;
        return Ok(Encoded::binary(&packet));
    }
    let mut head = head('2', '5', namespace, Some(args));
    if let Some(id) = ack {
        put_ack_id(&mut head, id);
    }
    Ok(Encoded::of_parts(&[&head, args.json()], args.attachments()))
}

/// Encodes an event without ack id, with an offset behind its arguments; see [`super::recovery`].
///
/// # Errors
/// As those of [`event`].
pub fn event_with_offset(
    parser: Parser,
    namespace: &Namespace,
    args: &Args,
    offset: &str,
) -> Result<Arc<Encoded>, EncodeError> {
    if parser == Parser::MessagePack {
        return event(parser, namespace, None, &args.with_last(offset));
    }
    let head = head('2', '5', namespace, Some(args));
    let [open, before, offset, end] = args.parts_with_last(offset);
    let text = [&head, open, before, offset, end];
    Ok(Encoded::of_parts(&text, args.attachments()))
}

/// Encodes the answer to a client's event.
///
/// # Errors
/// As those of [`event`].
pub fn ack(
    parser: Parser,
    namespace: &Namespace,
    id: AckId,
    args: &Args,
) -> Result<Arc<Encoded>, EncodeError> {
    if parser == Parser::MessagePack {
        let packet = msgpack_packet::ack(namespace, id, args)?;
        return Ok(Encoded::binary(&packet));
    }
    let mut head = head('3', '6', namespace, Some(args));
    put_ack_id(&mut head, id);
    Ok(Encoded::of_parts(&[&head, args.json()], args.attachments()))
}

/// Encodes the admission to a namespace; `pid`, if the client may come back to its state.
pub fn connect(
    parser: Parser,
    namespace: &Namespace,
    socket_id: &SocketId,
    pid: Option<&Pid>,
) -> Arc<Encoded> {
    // The alphabet of both ids needs no escapes.
    let ids = match pid {
        Some(pid) => format!(r#"{{"sid":"{socket_id}","pid":"{}"}}"#, pid.expose()),
        None => format!(r#"{{"sid":"{socket_id}"}}"#),
    };
    if parser == Parser::MessagePack {
        return sure(msgpack_packet::connect(namespace, &ids));
    }
    let mut text = head('0', '0', namespace, None);
    text.push_str(&ids);
    Encoded::new(&text, &[])
}

#[derive(Serialize)]
struct ConnectError<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// Encodes the refusal of a namespace. In MessagePack, `data` that nests deeper than can be written is left out: the client
/// must get an answer.
pub fn connect_error(
    parser: Parser,
    namespace: &Namespace,
    message: &str,
    data: Option<&Value>,
) -> Arc<Encoded> {
    let json = |data| {
        serde_json::to_string(&ConnectError { message, data })
            .expect("a text and a JSON value always serialise")
    };
    if parser == Parser::MessagePack {
        let packet = msgpack_packet::connect_error(namespace, &json(data))
            .or_else(|_| msgpack_packet::connect_error(namespace, &json(None)));
        return sure(packet);
    }
    let mut text = head('4', '4', namespace, None);
    text.push_str(&json(data));
    Encoded::new(&text, &[])
}

/// Encodes a disconnect by the server.
pub fn disconnect(parser: Parser, namespace: &Namespace) -> Arc<Encoded> {
    if parser == Parser::MessagePack {
        return sure(msgpack_packet::disconnect(namespace));
    }
    Encoded::new(&head('1', '1', namespace, None), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::dialect::Dialect;

    const JSON: Parser = Parser::Json;

    fn text(encoded: &Encoded) -> String {
        String::from_utf8(encoded.polling_in(Dialect::V4).bytes.to_vec()).unwrap()
    }

    fn args(json: &str, attachments: &[&'static [u8]]) -> Args {
        Args::from_parts(
            json.into(),
            attachments
                .iter()
                .map(|bytes| Bytes::from_static(bytes))
                .collect(),
        )
    }

    #[test]
    fn packets_are_written_as_node_writes_them() {
        let main = Namespace::main();
        let events = Namespace::from("/events");
        let id = SocketId::from("abcdefghijklmnopqrst");
        for (encoded, expected) in [
            (
                connect(JSON, &main, &id, None),
                r#"40{"sid":"abcdefghijklmnopqrst"}"#,
            ),
            (
                connect(JSON, &events, &id, None),
                r#"40/events,{"sid":"abcdefghijklmnopqrst"}"#,
            ),
            (
                connect(
                    JSON,
                    &events,
                    &id,
                    Pid::parse("ABCDEFGHIJKLMNOPQRST").as_ref(),
                ),
                r#"40/events,{"sid":"abcdefghijklmnopqrst","pid":"ABCDEFGHIJKLMNOPQRST"}"#,
            ),
            (
                event_with_offset(JSON, &events, &args(r#"["a",{}]"#, &[&[1]]), "o7").unwrap(),
                "451-/events,[\"a\",{},\"o7\"]\u{1e}bAQ==",
            ),
            (
                connect_error(JSON, &"/random".into(), "Invalid namespace", None),
                r#"44/random,{"message":"Invalid namespace"}"#,
            ),
            (
                connect_error(
                    JSON,
                    &main,
                    "Unauthorized",
                    Some(&serde_json::json!({"code": "x"})),
                ),
                r#"44{"message":"Unauthorized","data":{"code":"x"}}"#,
            ),
            (disconnect(JSON, &main), "41"),
            (disconnect(JSON, &events), "41/events,"),
            (
                event(JSON, &main, None, &args(r#"["a",1]"#, &[])).unwrap(),
                r#"42["a",1]"#,
            ),
            (
                event(JSON, &events, Some(AckId(7)), &args(r#"["a"]"#, &[])).unwrap(),
                r#"42/events,7["a"]"#,
            ),
            (
                ack(JSON, &main, AckId(456), &args("[1]", &[])).unwrap(),
                "43456[1]",
            ),
            (
                event(JSON, &events, Some(AckId(7)), &args("[]", &[&[1], &[2]])).unwrap(),
                "452-/events,7[]\u{1e}bAQ==\u{1e}bAg==",
            ),
            (
                ack(JSON, &main, AckId(789), &args("[]", &[&[1, 2, 3]])).unwrap(),
                "461-789[]\u{1e}bAQID",
            ),
        ] {
            assert_eq!(text(&encoded), expected);
        }
    }
}
