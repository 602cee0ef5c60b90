//! A request or a response, opened: one JSON object, whichever of two encodings it came in.
//!
//! Pure; linear in the bytes. MessagePack is written as JSON first, so that there is one way to read what can come
//! either way, and texts of arguments can be passed on as they stand. Also the way back for what JSON cannot say.
//!
//! ```text
//! 7b …      JSON; what is no UTF-8 is mended
//! else      MessagePack: one map, and nothing behind it
//! ```
//! Source: @socket.io/redis-adapter 8.3 (`onrequest`, `onresponse`, `onRawMessage`); wire.md 3.3, 4.3.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use rmp::encode::ByteBuf;
use serde_json::value::RawValue;

use super::{DecodeError, EncodeError, MAX_DEPTH, message::RULES};
use crate::{
    msgpack::{
        self, Rules,
        reader::Reader,
        to_json::{PLACEHOLDER, read_value},
        to_msgpack::write_array,
    },
    socket_io::{args::Args, json, object},
};

/// How many levels of a message can lie above the arguments in it: message, data, packet, sockets, socket.
const MAX_LEVELS_ABOVE: usize = 6;

/// MessagePack's header of an array of one element.
const ONE_ELEMENT: u8 = 0x91;

/// A message's text and its binary values.
pub(super) struct Opened {
    text: ByteString,
    /// Those of MessagePack. Their placeholders stand in the text exactly as [`PLACEHOLDER`] says.
    attachments: Vec<Bytes>,
}

impl Opened {
    /// Reads the encoding, and no more of the content than it needs for that.
    pub(super) fn new(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.first() == Some(&b'{') {
            let text = ByteString::try_from(bytes.clone())
                .unwrap_or_else(|_faulty| String::from_utf8_lossy(bytes).into_owned().into());
            return Ok(Self {
                text,
                attachments: Vec::new(),
            });
        }
        let mut reader = Reader::new(bytes);
        let rules = Rules {
            max_depth: MAX_DEPTH + MAX_LEVELS_ABOVE,
            ..RULES
        };
        let (text, attachments) = read_value(&mut reader, rules)?;
        reader.end()?;
        if !text.starts_with('{') {
            return Err(DecodeError::Object);
        }
        Ok(Self {
            text: text.into(),
            attachments,
        })
    }

    /// Returns the text of the object.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Reads `text`, a part of this message, as an event's name and arguments.
    pub(super) fn event(&self, text: &str) -> Result<Args, DecodeError> {
        let elements = object::elements(text, 1).ok_or(DecodeError::Packet { key: "data" })?;
        if !elements.texts.first().is_some_and(|name| is_name(name)) {
            return Err(DecodeError::EventName);
        }
        self.args(Cow::Borrowed(text))
    }

    /// Reads `text`, a part of this message, as one value; `None` is JavaScript's `undefined`, and no element.
    pub(super) fn value(&self, text: Option<&str>) -> Result<Args, DecodeError> {
        self.args(Cow::Owned(format!("[{}]", text.unwrap_or_default())))
    }

    /// Returns `text`, a part of this message, with its binary values as `JSON.stringify` writes Node's buffers.
    pub(super) fn with_buffers<'t>(&self, text: &'t str) -> Cow<'t, str> {
        with_buffers(text, &self.attachments)
    }

    fn args(&self, text: Cow<'_, str>) -> Result<Args, DecodeError> {
        if json::is_deeper(&text, MAX_DEPTH) {
            return Err(msgpack::DecodeError::TooDeep { max: MAX_DEPTH }.into());
        }
        if self.attachments.is_empty() {
            return Ok(Args::from_parts(text.as_ref().into(), Vec::new()));
        }
        let mut attachments = Vec::new();
        let text = replace_placeholders(&text, |text, num| {
            if let Some(attachment) = self.attachments.get(num) {
                text.push_str(PLACEHOLDER);
                text.push_str(itoa::Buffer::new().format(attachments.len()));
                text.push('}');
                attachments.push(attachment.clone());
            }
        });
        Ok(Args::from_parts(text.into(), attachments))
    }
}

/// Whether the JSON `text` can be an event's name: a text or a finite number.
fn is_name(text: &str) -> bool {
    text.starts_with('"') || object::string_or_number(text).is_some()
}

/// Replaces each placeholder of `text`, which must be as [`msgpack::to_json`] writes it: there, nothing else looks like it.
fn replace_placeholders(text: &str, mut replace: impl FnMut(&mut String, usize)) -> String {
    let mut pieces = text.split(PLACEHOLDER);
    let mut replaced = String::with_capacity(text.len());
    replaced.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (num, tail) = piece.split_once('}').unwrap_or((piece, ""));
        replace(&mut replaced, num.parse().unwrap_or(usize::MAX));
        replaced.push_str(tail);
    }
    replaced
}

fn with_buffers<'t>(text: &'t str, attachments: &[Bytes]) -> Cow<'t, str> {
    if attachments.is_empty() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(replace_placeholders(text, |text, num| {
        let bytes = attachments.get(num).map_or(&[][..], |bytes| bytes);
        text.push_str("{\"type\":\"Buffer\",\"data\":[");
        for (index, byte) in bytes.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(itoa::Buffer::new().format(*byte));
        }
        text.push_str("]}");
    }))
}

/// Returns `args` as JSON alone; binary values become what `JSON.stringify` makes of Node's buffers.
///
/// # Errors
/// The arguments are not what [`Args`] promises, or too deep.
pub(super) fn json_alone(args: &Args) -> Result<Cow<'_, str>, EncodeError> {
    if args.attachments().is_empty() {
        check(args)?;
        return Ok(Cow::Borrowed(args.json()));
    }
    // Through MessagePack and back: then placeholders have one form only.
    let mut out = ByteBuf::new();
    write_array(&mut out, args.json(), args.attachments())?;
    let bytes = Bytes::from(out.into_vec());
    let (text, attachments) = read_value(&mut Reader::new(&bytes), RULES)
        .map_err(|_false_placeholder| msgpack::EncodeError::Json { at: 0 })?;
    Ok(Cow::Owned(with_buffers(&text, &attachments).into_owned()))
}

/// Appends the only element of what [`first_only`] returned in MessagePack; returns whether there is one.
pub(super) fn write_only(out: &mut ByteBuf, args: &Args) -> Result<bool, EncodeError> {
    let mut array = ByteBuf::with_capacity(args.len_bytes() + 16);
    write_array(&mut array, args.json(), args.attachments())?;
    let Some((&ONE_ELEMENT, element)) = array.as_slice().split_first() else {
        return Ok(false);
    };
    out.as_mut_vec().extend_from_slice(element);
    Ok(true)
}

/// Returns `args` with no more than their first element.
///
/// # Errors
/// The arguments are not what [`Args`] promises, or too deep.
pub(super) fn first_only(args: &Args) -> Result<Args, EncodeError> {
    let elements = check(args)?;
    match elements.texts.as_slice() {
        [] => Ok(Args::from_parts("[]".into(), Vec::new())),
        _ if !elements.has_more => Ok(args.clone()),
        [first, ..] => {
            let attachments = args.attachments().to_vec();
            Ok(Args::from_parts(format!("[{first}]").into(), attachments))
        }
    }
}

/// Returns the only element of what [`first_only`] returned, as JSON alone; `None` if there is none.
pub(super) fn only_value(args: &Args) -> Result<Option<Box<RawValue>>, EncodeError> {
    let text = json_alone(args)?;
    let elements = object::elements(&text, 1).unwrap_or_default();
    Ok(elements
        .texts
        .first()
        .and_then(|text| RawValue::from_string((*text).to_owned()).ok()))
}

/// Checks what an event's arguments promise; returns the text of the first, its name.
pub(super) fn check_event(args: &Args) -> Result<&str, EncodeError> {
    match check(args)?.texts.first() {
        Some(name) if is_name(name) => Ok(name),
        _ => Err(EncodeError::EventName),
    }
}

fn check(args: &Args) -> Result<object::Elements<'_>, EncodeError> {
    if json::is_deeper(args.json(), MAX_DEPTH) {
        return Err(msgpack::EncodeError::TooDeep.into());
    }
    object::elements(args.json(), 1).ok_or(EncodeError::MessagePack(msgpack::EncodeError::Json {
        at: 0,
    }))
}
