//! What clients 2.x, which come by Engine.IO revision 3, say and hear differently.
//!
//! Pure. They speak the protocol's revision before the current one; all that is not here is the same in both.
//!
//! | | current clients | clients 2.x |
//! | --- | --- | --- |
//! | joins `/` | by `40` | unasked; the server sends `40` |
//! | joins another | `40/chat,{auth}` | `40/chat?query,`: the query is what it brings |
//! | is admitted | `40/chat,{"sid":…}` | `40/chat,`: it computes its id, see [`socket_id`] |
//! | is refused | `44/chat,{"message":…,"data":…}` | `44/chat,` and the data, or else the message |
//!
//! Source: Socket.IO protocol v4 (that is its number for 2.x); wire.md 1.10, 2.1.

use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::{
    decoder::Packet,
    ids::{Namespace, SocketId},
};
use crate::engine_io::{encoded::Encoded, handshake::MAX_QUERY_PAIRS, sid::Sid};

/// Returns the id that the client computes for itself: the session's in `/`, `<namespace>#<sid>` elsewhere.
pub fn socket_id(sid: &Sid, namespace: &Namespace) -> SocketId {
    if namespace.is_main() {
        SocketId::from(sid.as_str())
    } else {
        SocketId::from(format!("{namespace}#{}", sid.as_str()))
    }
}

/// Reads a packet as a client 2.x means it: a namespace ends at its `?`, and what follows in a CONNECT is its auth, an object
/// of strings. Of a repeated key the last value counts, of many pairs the first [`MAX_QUERY_PAIRS`]. A payload is no auth.
pub fn read(mut packet: Packet) -> Packet {
    match &mut packet {
        Packet::Connect { namespace, auth } => *auth = take_query(namespace),
        Packet::Disconnect { namespace }
        | Packet::Event { namespace, .. }
        | Packet::Ack { namespace, .. } => {
            take_query(namespace);
        }
    }
    packet
}

fn take_query(namespace: &mut Namespace) -> Option<ByteString> {
    let whole = namespace.clone();
    let (name, query) = whole.as_str().split_once('?')?;
    *namespace = Namespace::from(name);
    let pairs: Map<String, Value> = form_urlencoded::parse(query.as_bytes())
        .take(MAX_QUERY_PAIRS)
        .map(|(key, value)| (key.into_owned(), value.into_owned().into()))
        .collect();
    Some(Value::Object(pairs).to_string().into())
}

/// Encodes the admission to a namespace.
pub fn connect(namespace: &Namespace) -> Arc<Encoded> {
    Encoded::new(&head('0', namespace), &[])
}

/// Encodes the refusal of a namespace. The data goes before the message, as in Node; but data that is neither an object, an
/// array nor a text would be no packet to the client, so then it is the message, too.
pub fn connect_error(namespace: &Namespace, message: &str, data: Option<&Value>) -> Arc<Encoded> {
    let json = match data {
        Some(data @ (Value::Object(_) | Value::Array(_))) => data.to_string(),
        Some(data @ Value::String(text)) if !text.is_empty() => data.to_string(),
        _ => Value::from(message).to_string(),
    };
    Encoded::new(&(head('4', namespace) + &json), &[])
}

/// Writes Engine.IO's message type, the packet's type and the namespace.
fn head(kind: char, namespace: &Namespace) -> String {
    if namespace.is_main() {
        format!("4{kind}")
    } else {
        format!("4{kind}{namespace},")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine_io::{dialect::Dialect, sid::InstanceId},
        socket_io::{args::Args, decoder::Packet},
    };
    use serde_json::json;

    fn text(encoded: &Encoded) -> String {
        String::from_utf8(encoded.polling_in(Dialect::V4).bytes.to_vec()).unwrap()
    }

    fn connect_packet(namespace: &str, auth: Option<&str>) -> Packet {
        Packet::Connect {
            namespace: namespace.into(),
            auth: auth.map(Into::into),
        }
    }

    #[test]
    fn the_id_is_the_one_that_the_client_computes() {
        let sid = Sid::random(InstanceId::random().unwrap()).unwrap();
        let id = |namespace: &str| socket_id(&sid, &namespace.into()).to_string();
        assert_eq!(id("/"), sid.as_str());
        assert_eq!(id("/chat"), format!("/chat#{}", sid.as_str()));
    }

    #[test]
    fn a_query_behind_the_namespace_is_the_auth() {
        for (from, to, auth) in [
            ("/chat", "/chat", None),
            ("/chat?", "/chat", Some("{}")),
            ("/?a=b", "/", Some(r#"{"a":"b"}"#)),
            (
                "/chat?token=a%20b+c&x",
                "/chat",
                Some(r#"{"token":"a b c","x":""}"#),
            ),
            ("/chat?a=1&a=2", "/chat", Some(r#"{"a":"2"}"#)),
            ("/chat?a=%22%00", "/chat", Some(r#"{"a":"\"\u0000"}"#)),
            ("/chat?a=?b", "/chat", Some(r#"{"a":"?b"}"#)),
        ] {
            let packet = read(connect_packet(from, None));
            assert_eq!(packet, connect_packet(to, auth), "{from}");
        }
        let packet = read(connect_packet("/chat", Some(r#"{"token":"x"}"#)));
        assert_eq!(packet, connect_packet("/chat", None), "a payload is none");
        let many = format!("/chat?{}&last=1", "a&".repeat(MAX_QUERY_PAIRS));
        assert_eq!(
            read(connect_packet(&many, None)),
            connect_packet("/chat", Some(r#"{"a":""}"#))
        );
    }

    #[test]
    fn other_packets_lose_the_query_of_their_namespace() {
        let event = |namespace: &str| Packet::Event {
            namespace: namespace.into(),
            ack: None,
            name: "x".into(),
            args: Args::from_parts(r#"["x"]"#.into(), Vec::new()),
        };
        assert_eq!(read(event("/chat?a=b")), event("/chat"));
    }

    #[test]
    fn replies_carry_no_id_and_refusals_the_data_or_the_message() {
        let (main, chat) = (Namespace::main(), Namespace::from("/chat"));
        assert_eq!(text(&connect(&main)), "40");
        assert_eq!(text(&connect(&chat)), "40/chat,");
        for (data, expected) in [
            (None, r#""no \"x\"""#),
            (Some(json!({ "code": 7 })), r#"{"code":7}"#),
            (Some(json!([1])), "[1]"),
            (Some(json!("why")), r#""why""#),
            (Some(json!("")), r#""no \"x\"""#),
            (Some(json!(null)), r#""no \"x\"""#),
            (Some(json!(7)), r#""no \"x\"""#),
        ] {
            let main = connect_error(&main, "no \"x\"", data.as_ref());
            assert_eq!(text(&main), format!("44{expected}"));
            let chat = connect_error(&chat, "no \"x\"", data.as_ref());
            assert_eq!(text(&chat), format!("44/chat,{expected}"));
        }
    }
}
