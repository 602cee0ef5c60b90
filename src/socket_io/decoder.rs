//! Puts Socket.IO packets together from Engine.IO messages.
//!
//! Pure. One decoder per client, shared by its namespaces, because a header and its attachments must be contiguous. An
//! incomplete packet is a value, not an error.
//!
//! ```text
//! packet = type [attachments "-"] [namespace ","] [ack id] [json]
//! ```
//! That is the JSON form; the other, in which each packet is one message, is `msgpack_packet`'s.
//!
//! Limits: [`MAX_ATTACHMENTS`] in a packet, `max_payload` bytes in all of them, [`super::json::MAX_DEPTH`] levels of
//! nesting. Every error ends the connection. Source: Socket.IO protocol v5, "Packet encoding"; wire.md 2.1, 2.2.

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::{
    args::Args,
    ids::Namespace,
    json::{self, JsonError},
    msgpack_packet,
    parser::Parser,
    reserved::RESERVED_EVENTS,
};
use crate::{detached::detached_text, engine_io::packet::Message, msgpack};

/// Most attachments in one packet, as in Node's parser since 4.2.6.
pub const MAX_ATTACHMENTS: usize = 10;

/// Number that ties an ack to its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AckId(pub u64);

/// A whole packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Wants to join a namespace. `auth` is a JSON object text, if there is one.
    Connect {
        /// Which namespace.
        namespace: Namespace,
        /// What the client brings to be admitted.
        auth: Option<ByteString>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// Which namespace.
        namespace: Namespace,
    },
    /// An event.
    Event {
        /// In which namespace.
        namespace: Namespace,
        /// Present if the client wants an ack.
        ack: Option<AckId>,
        /// Name of the event; of a number, its text.
        name: ByteString,
        /// Name and arguments.
        args: Args,
    },
    /// The answer to an event of ours.
    Ack {
        /// In which namespace.
        namespace: Namespace,
        /// Which event.
        id: AckId,
        /// The arguments.
        args: Args,
    },
}

/// How a client broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No type digit, or one that no client may send.
    #[error("unknown packet type")]
    UnknownType,
    /// The count of attachments is missing, zero, no number, or over the limit.
    #[error("attachment count is not 1 to {MAX_ATTACHMENTS}")]
    AttachmentCount,
    /// The attachments of a packet are larger than a message may be.
    #[error("attachments exceed the limit of {limit} bytes")]
    AttachmentsTooLarge {
        /// The limit.
        limit: usize,
    },
    /// An ack id is longer than any that we gave out.
    #[error("ack id is out of range")]
    AckId,
    /// The payload is not what this type of packet carries.
    #[error("payload does not fit the packet type")]
    Payload(#[source] JsonError),
    /// A payload where none may be.
    #[error("unexpected payload")]
    UnexpectedPayload,
    /// The first element of an event is neither text nor a finite number.
    #[error("event name is neither text nor number")]
    EventName,
    /// The name is the protocol's own.
    #[error("event name is reserved")]
    ReservedEvent,
    /// A placeholder has no attachment, or is malformed.
    #[error("placeholder names no attachment")]
    Placeholder,
    /// A text message where an attachment is due.
    #[error("text while attachments are due")]
    AttachmentDue,
    /// A binary message where none is due.
    #[error("binary message while no attachment is due")]
    NoAttachmentDue,
    /// A text message, while MessagePack is spoken: the client has another parser.
    #[error("text message where MessagePack is due")]
    TextMessage,
    /// Not MessagePack, or none that we take.
    #[error("bad MessagePack")]
    MessagePack(#[source] msgpack::DecodeError),
    /// A packet in MessagePack is no map, or one of its keys is missing or of the wrong type.
    #[error("packet has no valid {key:?}")]
    Field {
        /// Which key; empty if the packet itself is no map.
        key: &'static str,
    },
}

/// A binary packet whose attachments are still arriving.
#[derive(Debug)]
struct Pending {
    /// The message that began it.
    header: ByteString,
    packet: Packet,
    missing: usize,
    attachments: Vec<Bytes>,
    len_bytes: usize,
}

/// Decodes one client's messages.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    max_payload: usize,
    pending: Option<Box<Pending>>,
}

impl Decoder {
    /// Returns a decoder of one form of packets that takes at most `max_payload` bytes of attachments in a packet.
    pub fn new(parser: Parser, max_payload: usize) -> Self {
        Self {
            parser,
            max_payload,
            pending: None,
        }
    }

    /// Returns whether attachments are due before anything else may come.
    pub fn awaits_attachments(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns how many bytes of a packet that is not whole yet are held.
    pub fn unfinished_bytes(&self) -> usize {
        self.pending
            .as_ref()
            .map_or(0, |pending| pending.header.len() + pending.len_bytes)
    }

    /// Returns the messages of a packet that is not whole yet: another decoder that is given them goes on from there.
    pub fn unfinished(&self) -> Vec<Message> {
        let Some(pending) = &self.pending else {
            return Vec::new();
        };
        let attachments = pending.attachments.iter().cloned().map(Message::Binary);
        std::iter::once(Message::Text(pending.header.clone()))
            .chain(attachments)
            .collect()
    }

    /// Takes the next message. `None`: the packet is not whole yet, or says nothing.
    ///
    /// # Errors
    /// The client broke the protocol.
    pub fn decode(&mut self, message: Message) -> Result<Option<Packet>, DecodeError> {
        match self.parser {
            Parser::Json => self.decode_json(message),
            // Attachments are parts of the message, and so within its limit.
            Parser::MessagePack => match message {
                Message::Binary(bytes) => msgpack_packet::decode(&bytes),
                Message::Text(_) => Err(DecodeError::TextMessage),
            },
        }
    }

    fn decode_json(&mut self, message: Message) -> Result<Option<Packet>, DecodeError> {
        match (message, self.pending.take()) {
            (Message::Text(text), None) => self.header(&text),
            (Message::Text(_), Some(_)) => Err(DecodeError::AttachmentDue),
            (Message::Binary(_), None) => Err(DecodeError::NoAttachmentDue),
            (Message::Binary(bytes), Some(mut pending)) => {
                pending.len_bytes += bytes.len();
                if pending.len_bytes > self.max_payload {
                    return Err(DecodeError::AttachmentsTooLarge {
                        limit: self.max_payload,
                    });
                }
                pending.attachments.push(bytes);
                pending.missing -= 1;
                if pending.missing > 0 {
                    self.pending = Some(pending);
                    return Ok(None);
                }
                let Pending {
                    mut packet,
                    attachments,
                    ..
                } = *pending;
                if let Packet::Event { args, .. } | Packet::Ack { args, .. } = &mut packet {
                    check_placeholders(args.json(), attachments.len())?;
                    args.attach(attachments);
                }
                Ok(Some(packet))
            }
        }
    }

    fn header(&mut self, text: &ByteString) -> Result<Option<Packet>, DecodeError> {
        let mut rest: &str = text;
        let kind = take_char(&mut rest).ok_or(DecodeError::UnknownType)?;
        let num_attachments = match kind {
            '5' | '6' => take_attachment_count(&mut rest)?,
            _ => 0,
        };
        let namespace = take_namespace(&mut rest, text);
        let id = take_ack_id(&mut rest)?;
        // Before it there may stand a million zeros.
        let json = |rest: &str| detached_text(rest, text, text.len());
        let packet = match kind {
            '0' => {
                if id.is_some() {
                    return Err(DecodeError::UnexpectedPayload);
                }
                let auth = match rest {
                    "" => None,
                    object => {
                        json::check_object(object).map_err(DecodeError::Payload)?;
                        Some(json(object))
                    }
                };
                Packet::Connect { namespace, auth }
            }
            '1' => {
                if !rest.is_empty() || id.is_some() {
                    return Err(DecodeError::UnexpectedPayload);
                }
                Packet::Disconnect { namespace }
            }
            // Node dispatches nothing for an event without a payload, and neither do we.
            '2' if rest.is_empty() => return Ok(None),
            '2' | '5' => {
                let first = json::check_array(rest).map_err(DecodeError::Payload)?.first;
                let name = event_name(first.ok_or(DecodeError::EventName)?)?;
                Packet::Event {
                    namespace,
                    ack: id,
                    name,
                    args: Args::from_parts(json(rest), Vec::new()),
                }
            }
            '3' | '6' => {
                json::check_array(rest).map_err(DecodeError::Payload)?;
                // Node ignores an ack without an id, since it knows none such.
                let Some(id) = id else { return Ok(None) };
                Packet::Ack {
                    namespace,
                    id,
                    args: Args::from_parts(json(rest), Vec::new()),
                }
            }
            _ => return Err(DecodeError::UnknownType),
        };
        if num_attachments == 0 {
            return Ok(Some(packet));
        }
        self.pending = Some(Box::new(Pending {
            header: text.clone(),
            packet,
            missing: num_attachments,
            attachments: Vec::with_capacity(num_attachments),
            len_bytes: 0,
        }));
        Ok(None)
    }
}

fn take_char(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let first = chars.next()?;
    *rest = chars.as_str();
    Some(first)
}

fn take_digits<'a>(rest: &mut &'a str) -> &'a str {
    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, tail) = rest.split_at(len);
    *rest = tail;
    digits
}

fn take_attachment_count(rest: &mut &str) -> Result<usize, DecodeError> {
    let digits = take_digits(rest);
    *rest = rest.strip_prefix('-').ok_or(DecodeError::AttachmentCount)?;
    digits
        .parse()
        .ok()
        .filter(|count| (1..=MAX_ATTACHMENTS).contains(count))
        .ok_or(DecodeError::AttachmentCount)
}

/// A namespace is present if the next character is a slash, and runs to the first comma or the end.
fn take_namespace(rest: &mut &str, text: &ByteString) -> Namespace {
    if !rest.starts_with('/') {
        return Namespace::main();
    }
    let (name, tail) = rest.split_once(',').unwrap_or((rest, ""));
    *rest = tail;
    Namespace::new(text.slice_ref(name))
}

fn take_ack_id(rest: &mut &str) -> Result<Option<AckId>, DecodeError> {
    match take_digits(rest) {
        "" => Ok(None),
        digits => digits
            .parse()
            .map(|id| Some(AckId(id)))
            .or(Err(DecodeError::AckId)),
    }
}

/// Returns the name of the event whose first element has this JSON text.
///
/// # Errors
/// It can be no name, or is one that the protocol keeps for itself.
pub fn event_name(first: &str) -> Result<ByteString, DecodeError> {
    match first.bytes().next() {
        Some(b'"') => {
            // A name with a lone surrogate has no UTF-8; no handler can be registered for it, so its text will do.
            let name = serde_json::from_str::<String>(first).unwrap_or_else(|_| first.to_owned());
            if RESERVED_EVENTS.contains(&name.as_str()) {
                return Err(DecodeError::ReservedEvent);
            }
            Ok(name.into())
        }
        // JavaScript reads `1e999` as infinity, which has no text in JSON: other instances could not deliver it.
        Some(b'-' | b'0'..=b'9') if first.parse::<f64>().is_ok_and(f64::is_finite) => {
            Ok(first.into())
        }
        _ => Err(DecodeError::EventName),
    }
}

/// Checks that every placeholder names an attachment, and every attachment is named once.
pub(crate) fn check_placeholders(json: &str, num_attachments: usize) -> Result<(), DecodeError> {
    let mut seen = vec![false; num_attachments];
    for placeholder in json::placeholders(json) {
        let slot = placeholder
            .num
            .and_then(|num| num.parse::<usize>().ok())
            .and_then(|num| seen.get_mut(num))
            .ok_or(DecodeError::Placeholder)?;
        if std::mem::replace(slot, true) {
            return Err(DecodeError::Placeholder);
        }
    }
    if seen.contains(&false) {
        Err(DecodeError::Placeholder)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    fn text(text: &str) -> Message {
        Message::Text(text.into())
    }

    fn decode(packet: &str) -> Result<Option<Packet>, DecodeError> {
        Decoder::new(Parser::Json, LIMIT).decode(text(packet))
    }

    fn event(namespace: &str, ack: Option<u64>, name: &str, json: &str) -> Packet {
        Packet::Event {
            namespace: namespace.into(),
            ack: ack.map(AckId),
            name: name.into(),
            args: Args::from_parts(json.into(), Vec::new()),
        }
    }

    #[test]
    fn an_event_does_not_keep_what_stands_before_it() {
        for before in [
            format!("2{}7", "0".repeat(1000)),
            format!("2/{},", "n".repeat(1000)),
        ] {
            let message = ByteString::from(format!("{before}[\"x\"]"));
            let addresses = message.as_bytes().as_ptr_range();
            let decoded = Decoder::new(Parser::Json, LIMIT).decode(Message::Text(message.clone()));
            let Ok(Some(Packet::Event { args, .. })) = decoded else {
                panic!("{decoded:?}");
            };
            assert_eq!(args.json(), "[\"x\"]");
            assert!(!addresses.contains(&args.json().as_ptr()));
        }
    }

    #[test]
    fn whole_packets_are_decoded() {
        let connect = |namespace: &str, auth: Option<&str>| Packet::Connect {
            namespace: namespace.into(),
            auth: auth.map(Into::into),
        };
        for (input, packet) in [
            ("0", connect("/", None)),
            ("0{}", connect("/", Some("{}"))),
            ("0/custom,", connect("/custom", None)),
            ("0/custom", connect("/custom", None)),
            (
                r#"0/custom,{"token":"abc"}"#,
                connect("/custom", Some(r#"{"token":"abc"}"#)),
            ),
            ("0/a?b=c,", connect("/a?b=c", None)),
            (
                "1",
                Packet::Disconnect {
                    namespace: "/".into(),
                },
            ),
            (
                "1/custom",
                Packet::Disconnect {
                    namespace: "/custom".into(),
                },
            ),
            (
                "1/custom,",
                Packet::Disconnect {
                    namespace: "/custom".into(),
                },
            ),
            (
                r#"2["message",1,"2",{"3":[true]}]"#,
                event("/", None, "message", r#"["message",1,"2",{"3":[true]}]"#),
            ),
            (r#"2/x,456["m"]"#, event("/x", Some(456), "m", r#"["m"]"#)),
            (r#"2007["m"]"#, event("/", Some(7), "m", r#"["m"]"#)),
            (r#"2[1,2]"#, event("/", None, "1", "[1,2]")),
            (r#"2["error"]"#, event("/", None, "error", r#"["error"]"#)),
            (
                "312[]",
                Packet::Ack {
                    namespace: "/".into(),
                    id: AckId(12),
                    args: Args::from_parts("[]".into(), vec![]),
                },
            ),
        ] {
            assert_eq!(decode(input), Ok(Some(packet)), "{input}");
        }
    }

    #[test]
    fn an_event_without_payload_and_an_ack_without_id_say_nothing() {
        assert_eq!(decode("2"), Ok(None));
        assert_eq!(decode("2/x,"), Ok(None));
        assert_eq!(decode("3[]"), Ok(None));
    }

    #[test]
    fn breaches_of_the_protocol_are_refused() {
        use DecodeError as E;
        for (input, error) in [
            ("", E::UnknownType),
            ("abc", E::UnknownType),
            ("9", E::UnknownType),
            (r#"4{"message":"x"}"#, E::UnknownType),
            ("0[]", E::Payload(JsonError::Invalid)),
            ("0null", E::Payload(JsonError::Invalid)),
            ("0\"x\"", E::Payload(JsonError::Invalid)),
            ("1{}", E::UnexpectedPayload),
            ("1[]", E::UnexpectedPayload),
            ("2{}", E::Payload(JsonError::Invalid)),
            ("2[", E::Payload(JsonError::Invalid)),
            ("2[]", E::EventName),
            ("2[{}]", E::EventName),
            (r#"2[{"toString":1}]"#, E::EventName),
            ("2[null]", E::EventName),
            ("2[true]", E::EventName),
            ("2[1e999]", E::EventName),
            ("2[-1e999,{}]", E::EventName),
            (r#"2abc["x"]"#, E::Payload(JsonError::Invalid)),
            (r#"2-1["x"]"#, E::Payload(JsonError::Invalid)),
            (r#"2["connect"]"#, E::ReservedEvent),
            (r#"2["disconnecting"]"#, E::ReservedEvent),
            ("2[\"\\u0063onnect\"]", E::ReservedEvent),
            (r#"218446744073709551616["x"]"#, E::AckId),
            ("3{}", E::Payload(JsonError::Invalid)),
            ("31", E::Payload(JsonError::Invalid)),
            (r#"5["x"]"#, E::AttachmentCount),
            (r#"5-["x"]"#, E::AttachmentCount),
            (r#"50-["x"]"#, E::AttachmentCount),
            (r#"511-["x"]"#, E::AttachmentCount),
            (r#"51.5-["x"]"#, E::AttachmentCount),
            (r#"5999999999999999999999-["x"]"#, E::AttachmentCount),
        ] {
            assert_eq!(decode(input), Err(error), "{input}");
        }
        let deep = format!("2[\"x\",{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(decode(&deep), Err(E::Payload(JsonError::TooDeep)));
    }

    fn decode_all(messages: Vec<Message>) -> Result<Option<Packet>, DecodeError> {
        let mut decoder = Decoder::new(Parser::Json, LIMIT);
        let mut last = None;
        for message in messages {
            assert_eq!(last, None, "a packet came before its last message");
            last = decoder.decode(message)?;
        }
        Ok(last)
    }

    fn binary(bytes: &'static [u8]) -> Message {
        Message::Binary(Bytes::from_static(bytes))
    }

    #[test]
    fn a_binary_event_is_whole_with_its_last_attachment() {
        let json = r#"["m",{"_placeholder":true,"num":0},{"a":{"_placeholder":true,"num":1}}]"#;
        assert_eq!(
            decode_all(vec![
                text(&format!("52-/x,7{json}")),
                binary(&[1]),
                binary(&[2])
            ]),
            Ok(Some(Packet::Event {
                namespace: "/x".into(),
                ack: Some(AckId(7)),
                name: "m".into(),
                args: Args::from_parts(
                    json.into(),
                    vec![Bytes::from_static(&[1]), Bytes::from_static(&[2])]
                ),
            }))
        );
    }

    #[test]
    fn attachments_must_follow_their_header_at_once() {
        let header = r#"51-["m",{"_placeholder":true,"num":0}]"#;
        assert_eq!(
            decode_all(vec![text(header), text("1")]),
            Err(DecodeError::AttachmentDue)
        );
        assert_eq!(
            decode_all(vec![binary(&[1])]),
            Err(DecodeError::NoAttachmentDue)
        );
    }

    #[test]
    fn placeholders_must_name_each_attachment_once() {
        for num in ["-1", "1.5", "\"0\"", "1", "null", "1e99"] {
            let header = format!(r#"51-["m",{{"_placeholder":true,"num":{num}}}]"#);
            assert_eq!(
                decode_all(vec![text(&header), binary(&[1])]),
                Err(DecodeError::Placeholder),
                "{num}"
            );
        }
        let twice = r#"51-["m",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#;
        assert_eq!(
            decode_all(vec![text(twice), binary(&[1])]),
            Err(DecodeError::Placeholder)
        );
        assert_eq!(
            decode_all(vec![text(r#"51-["m"]"#), binary(&[1])]),
            Err(DecodeError::Placeholder)
        );
    }

    #[test]
    fn attachments_are_limited_in_sum() {
        let header = r#"52-["m",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        assert_eq!(
            decode_all(vec![text(header), binary(&[0; 600]), binary(&[0; 600])]),
            Err(DecodeError::AttachmentsTooLarge { limit: LIMIT })
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(input: String) {
            let _ = decode(&input);
        }

        #[test]
        fn almost_packets_never_panic(input in r#"[0-9][0-9]{0,2}-?(/[a-z],?)?[0-9]{0,3}[\[{"a-z0-9,:}\]]{0,20}"#) {
            let _ = decode(&input);
        }
    }
}
