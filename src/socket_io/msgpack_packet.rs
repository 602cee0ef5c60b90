//! Packets as `socket.io-msgpack-parser` has them: one map in one binary message, binary values in their places.
//!
//! Pure. Packets are the same values as those of the JSON form, so that nobody else need know which one is spoken.
//!
//! ```text
//! {type: 0 to 4, nsp: "/…", data?: …, id?: integer}      keys in any order, unknown ones ignored
//!
//! type               data
//! 0 CONNECT          a map, or nothing; binary values have no place in it
//! 1 DISCONNECT       nothing
//! 2 EVENT, 3 ACK     an array
//! 4 CONNECT_ERROR    from servers only
//! ```
//! "Nothing" is an absent key or `undefined` (`d4 00 00`), never nil: the JavaScript decoder refuses nil, so it is neither
//! written nor taken. What Node leaves to the application holds here as in the JSON form: names of events, their
//! [`super::json::MAX_DEPTH`], and [`MAX_ATTACHMENTS`] binary values.
//!
//! Source: socket.io-msgpack-parser 3.0.2 `index.js`; wire.md 2.7, 10.11.

use bytes::Bytes;
use rmp::encode::ByteBuf;

use super::{
    args::Args,
    decoder::{AckId, DecodeError, MAX_ATTACHMENTS, Packet},
    ids::Namespace,
    json::MAX_DEPTH,
    reserved::RESERVED_EVENTS,
};
use crate::detached::fitted_text;
use crate::msgpack::{
    self, Dialect, EncodeError, Rules,
    reader::{Reader, Token},
    to_json::{number_text, read_value},
    to_msgpack::{write_array, write_map_len, write_str, write_uint, write_value},
};

const CONNECT: u64 = 0;
const DISCONNECT: u64 = 1;
const EVENT: u64 = 2;
const ACK: u64 = 3;
const CONNECT_ERROR: u64 = 4;

const RULES: Rules = Rules {
    dialect: Dialect::Notepack2,
    max_depth: MAX_DEPTH,
    max_attachments: MAX_ATTACHMENTS,
};

/// The first integer beyond those of which a double knows each.
const MAX_SAFE: f64 = 9_007_199_254_740_992.0;

/// What a packet carries in `data`.
enum Data<'a> {
    Nothing,
    Args(&'a Args),
    /// JSON text of an object.
    Object(&'a str),
}

/// Writes an event.
pub(super) fn event(
    namespace: &Namespace,
    ack: Option<AckId>,
    args: &Args,
) -> Result<Bytes, EncodeError> {
    write(EVENT, ack, &Data::Args(args), namespace)
}

/// Writes the answer to a client's event.
pub(super) fn ack(namespace: &Namespace, id: AckId, args: &Args) -> Result<Bytes, EncodeError> {
    write(ACK, Some(id), &Data::Args(args), namespace)
}

/// Writes the admission to a namespace; `ids` is JSON text of an object.
pub(super) fn connect(namespace: &Namespace, ids: &str) -> Result<Bytes, EncodeError> {
    write(CONNECT, None, &Data::Object(ids), namespace)
}

/// Writes the refusal of a namespace; `error` is JSON text of an object.
pub(super) fn connect_error(namespace: &Namespace, error: &str) -> Result<Bytes, EncodeError> {
    write(CONNECT_ERROR, None, &Data::Object(error), namespace)
}

/// Writes a disconnect by the server.
pub(super) fn disconnect(namespace: &Namespace) -> Result<Bytes, EncodeError> {
    write(DISCONNECT, None, &Data::Nothing, namespace)
}

fn write(
    kind: u64,
    id: Option<AckId>,
    data: &Data<'_>,
    namespace: &Namespace,
) -> Result<Bytes, EncodeError> {
    let data_len = match data {
        Data::Nothing => 0,
        Data::Args(args) => args.len_bytes(),
        Data::Object(json) => json.len(),
    };
    let mut buf = ByteBuf::with_capacity(data_len + namespace.as_str().len() + 32);
    let out = &mut buf;
    let num_optional = usize::from(id.is_some()) + usize::from(!matches!(data, Data::Nothing));
    write_map_len(out, 2 + num_optional)?;
    write_str(out, "type")?;
    write_uint(out, kind);
    if let Some(AckId(id)) = id {
        write_str(out, "id")?;
        write_uint(out, id);
    }
    match data {
        Data::Nothing => {}
        Data::Args(args) => {
            write_str(out, "data")?;
            write_array(out, args.json(), args.attachments())?;
        }
        Data::Object(json) => {
            write_str(out, "data")?;
            write_value(out, json, &[])?;
        }
    }
    write_str(out, "nsp")?;
    write_str(out, namespace.as_str())?;
    Ok(Bytes::from(buf.into_vec()))
}

impl From<msgpack::DecodeError> for DecodeError {
    fn from(error: msgpack::DecodeError) -> Self {
        Self::MessagePack(error)
    }
}

/// What stands in the map, the last of several equal keys each, as in JavaScript.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<u64>,
    namespace: Option<Namespace>,
    id: Option<AckId>,
    /// A bookmark: what it must be depends on the type, which may come later.
    data: Option<Reader<'a>>,
}

/// Reads a client's packet. `None`: an ack without an id, which Node ignores, too.
///
/// # Errors
/// The client broke the protocol.
pub(super) fn decode(message: &Bytes) -> Result<Option<Packet>, DecodeError> {
    let mut reader = Reader::new(message);
    let mut fields = Fields::default();
    reader.for_each_key(DecodeError::Field { key: "" }, |key, reader| {
        match key {
            b"type" => fields.kind = Some(read_kind(reader)?),
            b"nsp" => match reader.token()? {
                Token::Str(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    fields.namespace = Some(Namespace::from(fitted_text(text)));
                }
                _ => return Err(DecodeError::Field { key: "nsp" }),
            },
            b"id" => fields.id = read_id(reader)?,
            b"data" => {
                fields.data = (!reader.peek()?.is_undefined()).then_some(*reader);
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
        Ok::<_, DecodeError>(())
    })?;
    reader.end()?;
    let Fields {
        kind,
        namespace,
        id,
        data,
    } = fields;
    let kind = kind.ok_or(DecodeError::UnknownType)?;
    let namespace = namespace.ok_or(DecodeError::Field { key: "nsp" })?;
    Ok(match kind {
        CONNECT => {
            let auth = data.map(read_auth).transpose()?.map(Into::into);
            Some(Packet::Connect { namespace, auth })
        }
        DISCONNECT if data.is_some() => return Err(DecodeError::UnexpectedPayload),
        DISCONNECT => Some(Packet::Disconnect { namespace }),
        EVENT => {
            let data = data.ok_or(DecodeError::Field { key: "data" })?;
            let name = read_name(data)?;
            Some(Packet::Event {
                namespace,
                ack: id,
                name: name.into(),
                args: read_args(data)?,
            })
        }
        ACK => {
            let data = data.ok_or(DecodeError::Field { key: "data" })?;
            let args = read_args(data)?;
            id.map(|id| Packet::Ack {
                namespace,
                id,
                args,
            })
        }
        _ => return Err(DecodeError::UnknownType),
    })
}

fn read_kind(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    whole_number(&reader.token()?).ok_or(DecodeError::UnknownType)
}

fn read_id(reader: &mut Reader<'_>) -> Result<Option<AckId>, DecodeError> {
    match reader.token()? {
        token if token.is_undefined() => Ok(None),
        token => whole_number(&token)
            .map(|id| Some(AckId(id)))
            .ok_or(DecodeError::AckId),
    }
}

/// Returns a whole number that is not negative. JavaScript knows but one type of number, and other encoders may write any
/// of them as a float.
fn whole_number(token: &Token<'_>) -> Option<u64> {
    match token {
        Token::Uint(number) => Some(*number),
        Token::Int(number) => u64::try_from(*number).ok(),
        Token::Float(number) if number.trunc() == *number && (0.0..MAX_SAFE).contains(number) => {
            Some(*number as u64)
        }
        _ => None,
    }
}

fn read_auth(mut data: Reader<'_>) -> Result<String, DecodeError> {
    let Token::Map(_) = data.peek()? else {
        return Err(DecodeError::Field { key: "data" });
    };
    let rules = Rules {
        max_attachments: 0,
        ..RULES
    };
    Ok(read_value(&mut data, rules)?.0)
}

fn read_args(mut data: Reader<'_>) -> Result<Args, DecodeError> {
    let Token::Array(_) = data.peek()? else {
        return Err(DecodeError::Field { key: "data" });
    };
    let (json, attachments) = read_value(&mut data, RULES)?;
    Ok(Args::from_parts(json.into(), attachments))
}

/// Reads an event's name; of a number, the text that it has in JSON.
fn read_name(mut data: Reader<'_>) -> Result<String, DecodeError> {
    let Token::Array(len) = data.token()? else {
        return Err(DecodeError::Field { key: "data" });
    };
    if len == 0 {
        return Err(DecodeError::EventName);
    }
    match data.token()? {
        Token::Str(text) => {
            let name = fitted_text(String::from_utf8_lossy(text).into_owned());
            if RESERVED_EVENTS.contains(&name.as_str()) {
                return Err(DecodeError::ReservedEvent);
            }
            Ok(name)
        }
        Token::Uint(number) => Ok(number.to_string()),
        Token::Int(number) => Ok(number.to_string()),
        Token::Float(number) => number_text(number, &mut ryu_js::Buffer::new())
            .map(ToOwned::to_owned)
            .ok_or(DecodeError::EventName),
        Token::Nil
        | Token::Bool(_)
        | Token::Bin(_)
        | Token::Ext(_)
        | Token::Array(_)
        | Token::Map(_) => Err(DecodeError::EventName),
    }
}

#[cfg(test)]
#[path = "msgpack_packet_tests.rs"]
mod tests;
