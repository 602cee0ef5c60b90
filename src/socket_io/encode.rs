//! Writes Socket.IO packets, ready for either transport.
//!
//! Pure. The leading `4` is Engine.IO's message type. Writers always put a comma behind a namespace and never write `/`.
//!
//! Source: Socket.IO protocol v5, "Packet encoding"; wire.md 2.1, 2.3.

use std::{fmt::Write as _, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{
    args::Args,
    decoder::AckId,
    ids::{Namespace, SocketId},
};
use crate::engine_io::encoded::Encoded;

/// Writes type, attachment count and namespace: what stands before the ack id.
fn head(plain: char, binary: char, namespace: &Namespace, args: Option<&Args>) -> String {
    let json_len = args.map_or(0, |args| args.json().len());
    let mut text = String::with_capacity(32 + namespace.as_str().len() + json_len);
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

/// Encodes an event.
pub fn event(namespace: &Namespace, ack: Option<AckId>, args: &Args) -> Arc<Encoded> {
    let mut text = head('2', '5', namespace, Some(args));
    if let Some(AckId(id)) = ack {
        _ = write!(text, "{id}");
    }
    text.push_str(args.json());
    Encoded::new(&text, args.attachments())
}

/// Encodes the answer to a client's event.
pub fn ack(namespace: &Namespace, AckId(id): AckId, args: &Args) -> Arc<Encoded> {
    let mut text = head('3', '6', namespace, Some(args));
    _ = write!(text, "{id}");
    text.push_str(args.json());
    Encoded::new(&text, args.attachments())
}

/// Encodes the admission to a namespace.
pub fn connect(namespace: &Namespace, socket_id: &SocketId) -> Arc<Encoded> {
    let mut text = head('0', '0', namespace, None);
    // The alphabet of socket ids needs no escapes.
    _ = write!(text, r#"{{"sid":"{socket_id}"}}"#);
    Encoded::new(&text, &[])
}

#[derive(Serialize)]
struct ConnectError<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// Encodes the refusal of a namespace.
pub fn connect_error(namespace: &Namespace, message: &str, data: Option<&Value>) -> Arc<Encoded> {
    let mut text = head('4', '4', namespace, None);
    let json = serde_json::to_string(&ConnectError { message, data })
        .expect("a text and a JSON value always serialise");
    text.push_str(&json);
    Encoded::new(&text, &[])
}

/// Encodes a disconnect by the server.
pub fn disconnect(namespace: &Namespace) -> Arc<Encoded> {
    Encoded::new(&head('1', '1', namespace, None), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn text(encoded: &Encoded) -> &str {
        std::str::from_utf8(encoded.polling()).unwrap()
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
            (connect(&main, &id), r#"40{"sid":"abcdefghijklmnopqrst"}"#),
            (
                connect(&events, &id),
                r#"40/events,{"sid":"abcdefghijklmnopqrst"}"#,
            ),
            (
                connect_error(&"/random".into(), "Invalid namespace", None),
                r#"44/random,{"message":"Invalid namespace"}"#,
            ),
            (
                connect_error(
                    &main,
                    "Unauthorized",
                    Some(&serde_json::json!({"code": "x"})),
                ),
                r#"44{"message":"Unauthorized","data":{"code":"x"}}"#,
            ),
            (disconnect(&main), "41"),
            (disconnect(&events), "41/events,"),
            (event(&main, None, &args(r#"["a",1]"#, &[])), r#"42["a",1]"#),
            (
                event(&events, Some(AckId(7)), &args(r#"["a"]"#, &[])),
                r#"42/events,7["a"]"#,
            ),
            (ack(&main, AckId(456), &args("[1]", &[])), "43456[1]"),
            (
                event(&events, Some(AckId(7)), &args("[]", &[&[1], &[2]])),
                "452-/events,7[]\u{1e}bAQ==\u{1e}bAg==",
            ),
            (
                ack(&main, AckId(789), &args("[]", &[&[1, 2, 3]])),
                "461-789[]\u{1e}bAQID",
            ),
        ] {
            assert_eq!(text(&encoded), expected);
        }
    }
}
