//! What a handler receives: the event as it arrived, or its arguments as a type of the application's own.

use bytestring::ByteString;
use serde::de::DeserializeOwned;

use super::{
    binary,
    reply::{HandlerError, short_text},
};
use crate::socket_io::args::Args;

/// An event on its way to its handler.
#[derive(Clone, Debug)]
pub struct Event {
    pub(crate) name: ByteString,
    pub(crate) args: Args,
}

impl Event {
    /// Returns the name; of a number, its text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns name and arguments as they arrived.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Returns the arguments without the name, as an ack carries them.
    pub fn payload(&self) -> Args {
        self.args.without_name()
    }

    /// Reads the arguments: a tuple takes them one by one.
    ///
    /// # Errors
    /// They are not of this type; the text says where, for the client.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        let payload = self.payload();
        binary::read(payload.json(), payload.attachments())
            .map_err(|err| HandlerError::new("bad_arguments", short_text(&err)))
    }
}

/// What a handler's second parameter can be.
pub trait FromEvent: Sized {
    /// Makes it of an event.
    ///
    /// # Errors
    /// The arguments are not of this type. The handler is not called; an ack that was asked for tells why.
    fn from_event(event: Event) -> Result<Self, HandlerError>;
}

impl FromEvent for Event {
    fn from_event(event: Event) -> Result<Self, HandlerError> {
        Ok(event)
    }
}

/// Whatever the arguments are, the handler has no use for them.
impl FromEvent for () {
    fn from_event(_: Event) -> Result<Self, HandlerError> {
        Ok(())
    }
}

/// The event's one argument. More are an error, as is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg<T>(pub T);

impl<T: DeserializeOwned> FromEvent for Arg<T> {
    fn from_event(event: Event) -> Result<Self, HandlerError> {
        event.parse::<(T,)>().map(|(arg,)| Self(arg))
    }
}

/// All of the event's arguments: a tuple takes them one by one, a `Vec` any number of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllArgs<T>(pub T);

impl<T: DeserializeOwned> FromEvent for AllArgs<T> {
    fn from_event(event: Event) -> Result<Self, HandlerError> {
        event.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::Binary;
    use bytes::Bytes;
    use serde::Deserialize;

    fn event(json: &str, attachments: &[&'static [u8]]) -> Event {
        let attachments = attachments
            .iter()
            .map(|bytes| Bytes::from_static(bytes))
            .collect();
        Event {
            name: "x".into(),
            args: Args::from_parts(json.into(), attachments),
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Upload {
        name: String,
        parts: Vec<Binary>,
    }

    #[test]
    fn arguments_become_the_handlers_own_types() {
        assert_eq!(Arg::<u8>::from_event(event(r#"["x",7]"#, &[])), Ok(Arg(7)));
        assert_eq!(
            AllArgs::<(String, Option<bool>)>::from_event(event(r#"["x","a",null]"#, &[])),
            Ok(AllArgs(("a".to_owned(), None)))
        );
        assert_eq!(
            AllArgs::<Vec<u8>>::from_event(event(r#"["x"]"#, &[])),
            Ok(AllArgs(vec![]))
        );
    }

    #[test]
    fn attachments_are_found_wherever_they_stand() {
        let json = r#"["x",{"parts":[{"_placeholder":true,"num":1},{"num":0,"_placeholder":true}],"name":"n"}]"#;
        assert_eq!(
            Arg::<Upload>::from_event(event(json, &[&[1], &[2, 3]])),
            Ok(Arg(Upload {
                name: "n".to_owned(),
                parts: vec![
                    Binary(Bytes::from_static(&[2, 3])),
                    Binary(Bytes::from_static(&[1]))
                ],
            }))
        );
    }

    #[test]
    fn what_does_not_fit_is_told_to_the_client() {
        for json in [
            r#"["x"]"#,
            r#"["x",1,2]"#,
            r#"["x","text"]"#,
            r#"["x",300]"#,
        ] {
            let err = Arg::<u8>::from_event(event(json, &[])).unwrap_err();
            assert_eq!(err.code, "bad_arguments", "{json}");
            assert!(!err.message.is_empty());
        }
        // As much of it as helps: quoted, what is not printable takes several times as much.
        let long = format!(r#"["x","{}"]"#, "\u{80}".repeat(500_000));
        let err = Arg::<u8>::from_event(event(&long, &[])).unwrap_err();
        assert!(
            err.message.starts_with("invalid type: string"),
            "{}",
            err.message
        );
        assert!(err.message.len() < 250, "{}", err.message.len());
        let literal = r#"["x",{"_placeholder":true,"num":0}]"#;
        assert!(
            Arg::<Binary>::from_event(event(literal, &[])).is_err(),
            "no such attachment"
        );
    }
}
