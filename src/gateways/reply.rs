//! What goes out of a gateway: the arguments of an event, the reply that becomes an ack, the error that becomes one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    Binary, binary,
    socket_ref::{AckError, Gone},
};
use crate::{
    socket_io::{
        args::Args,
        ids::{Namespace, Room, SocketId},
    },
    telemetry,
};

/// The arguments of an event or an ack.
///
/// A reference is one argument, a tuple several (up to six), `()` none. So is a value of a common type: text, a number, a bool,
/// a [`Value`], a [`Binary`], a `Vec`, an `Option`, a map. A type of the application's own is lent: `&line`.
/// (It cannot be taken by value, too: then a tuple, which serialises as an array, would be one argument and several.)
///
/// [`Binary`] may stand anywhere within; clients take at most 10 in one event. A `Vec<u8>` is an array of numbers.
///
/// ```
/// use sockhop::gateways::IntoArgs;
///
/// assert_eq!("one".into_args(Some("e")).unwrap().json(), r#"["e","one"]"#);
/// assert_eq!(vec![1, 2].into_args(Some("e")).unwrap().json(), r#"["e",[1,2]]"#);
/// assert_eq!((1, "two").into_args(Some("e")).unwrap().json(), r#"["e",1,"two"]"#);
/// assert_eq!(().into_args(Some("e")).unwrap().json(), r#"["e"]"#);
/// ```
pub trait IntoArgs {
    /// Writes them behind an event's name, or alone for an ack.
    ///
    /// # Errors
    /// A value does not serialise to JSON.
    fn into_args(self, name: Option<&str>) -> Result<Args, serde_json::Error>;
}

/// Writes an array of the name, if there is one, and of what `write` appends, each with a comma before it.
fn array(
    name: Option<&str>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
) -> Result<Args, serde_json::Error> {
    let (json, attachments) = binary::write(|| {
        let mut json = vec![b'['];
        if let Some(name) = name {
            serde_json::to_writer(&mut json, name)?;
        }
        let start = json.len();
        write(&mut json)?;
        if name.is_none() && json.len() > start {
            json.remove(start);
        }
        json.push(b']');
        String::from_utf8(json).map_err(serde::ser::Error::custom)
    });
    Ok(Args::from_parts(json?.into(), attachments))
}

fn append(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), serde_json::Error> {
    json.push(b',');
    serde_json::to_writer(json, value)
}

impl<T: Serialize + ?Sized> IntoArgs for &T {
    fn into_args(self, name: Option<&str>) -> Result<Args, serde_json::Error> {
        array(name, |json| append(json, self))
    }
}

impl IntoArgs for () {
    fn into_args(self, name: Option<&str>) -> Result<Args, serde_json::Error> {
        array(name, |_| Ok(()))
    }
}

macro_rules! tuple_into_args {
    ($($item:ident $at:tt),+) => {
        impl<$($item: Serialize),+> IntoArgs for ($($item,)+) {
            fn into_args(self, name: Option<&str>) -> Result<Args, serde_json::Error> {
                array(name, |json| {
                    $(append(json, &self.$at)?;)+
                    Ok(())
                })
            }
        }
    };
}

tuple_into_args!(A 0);
tuple_into_args!(A 0, B 1);
tuple_into_args!(A 0, B 1, C 2);
tuple_into_args!(A 0, B 1, C 2, D 3);
tuple_into_args!(A 0, B 1, C 2, D 3, E 4);
tuple_into_args!(A 0, B 1, C 2, D 3, E 4, F 5);

/// One argument each, of an event as of an ack.
macro_rules! owned {
    ($($({$($generics:tt)+})? $owned:ty),+ $(,)?) => {
        $(
            impl$(<$($generics)+>)? IntoArgs for $owned {
                fn into_args(self, name: Option<&str>) -> Result<Args, serde_json::Error> {
                    (&self).into_args(name)
                }
            }

            impl$(<$($generics)+>)? IntoReply for $owned {
                fn into_reply(self) -> Result<Reply, HandlerError> {
                    Reply::with(&self)
                }
            }
        )+
    };
}

owned!(
    bool, char, String, Value, Binary, SocketId, Room, Namespace,
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    serde_json::Map<String, Value>,
    {T: Serialize} Vec<T>,
    {T: Serialize} Option<T>,
    {K: Serialize, V: Serialize, S} HashMap<K, V, S>,
    {K: Serialize, V: Serialize} BTreeMap<K, V>,
);

/// What a handler answers. It becomes the ack if the client asked for one, and is dropped otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub(crate) Args);

impl Reply {
    /// An ack without arguments.
    pub fn empty() -> Self {
        Self(Args::from_parts("[]".into(), Vec::new()))
    }

    /// An ack with arguments that are put together already, attachments included.
    pub fn args(args: Args) -> Self {
        Self(args)
    }

    /// An ack with these arguments: a reference is one, a tuple several.
    ///
    /// # Errors
    /// A value does not serialise to JSON; the client is told of an internal error then.
    pub fn with(args: impl IntoArgs) -> Result<Self, HandlerError> {
        Ok(Self(args.into_args(None)?))
    }
}

/// Why a handler could not do what the event asked for. The client's ack is
/// `{"error":{"code":…,"message":…}}`; a client that asked for no ack learns nothing.
///
/// Whatever the methods of a [`SocketRef`](super::SocketRef) return becomes one by `?`; so does an error of the application's own
/// for which it says `impl From<…> for HandlerError`. For any other there is [`Self::internal`], which hides it from the client.
///
/// Codes of the library's own:
///
/// | code | what happened |
/// | --- | --- |
/// | `bad_arguments` | the event's arguments are not of the handler's type; the handler was not called |
/// | `internal` | the handler panicked, a value did not fit JSON, or the handler said so; the log says which |
/// | `too_many_rooms` | [`SocketRef::join`](super::SocketRef::join) over its limit |
/// | `too_much_work` | many sockets are to be put into, or many rooms to be left out of a selection of, many rooms at once: more than a million steps for one command |
/// | `rate_limited` | the client sends more events than `MAX_EVENT_RATE`; the handler was not called |
/// | `unavailable` | the instance is stopping |
/// | `gone` | the one socket that was asked is not there any more: [`AskError`](super::AskError) |
/// | `unreachable` | other instances cannot be asked, since Redis is away; the log says why |
/// | `incomplete` | not all other instances and clients that were asked answered in time |
/// | `reserved_event`, `no_binary` | an event for other servers has a name that servers keep for themselves, or holds bytes |
/// | `ack_timeout`, `ack_disconnected`, `bad_ack` | an ack that the handler awaited of a client: [`AckError`] |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct HandlerError {
    /// For programs: a short, constant word.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl HandlerError {
    /// Puts an error together.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Logs an error that is nobody's business outside, and tells the client of an internal one.
    ///
    /// ```
    /// # use sockhop::gateways::HandlerError;
    /// # fn read() -> Result<String, HandlerError> {
    /// let greeting = std::fs::read_to_string("greeting.txt").map_err(HandlerError::internal)?;
    /// # Ok(greeting)
    /// # }
    /// ```
    pub fn internal(err: impl fmt::Display) -> Self {
        log::error!("a handler failed: {err}");
        Self::failed()
    }

    /// What a client is told of a handler that failed by itself.
    pub(crate) fn failed() -> Self {
        Self::new("internal", "The server failed to handle this event.")
    }

    /// What a client is told that sends more than `limit` events in a second.
    pub(crate) fn rate_limited(limit: u32) -> Self {
        let text =
            format!("No more than {limit} events per second: slow down, or be disconnected.");
        Self::new("rate_limited", text)
    }

    /// What an ack says of it.
    pub(crate) fn into_ack(self) -> Args {
        let error = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        Args::from_parts(format!("[{error}]").into(), Vec::new())
    }
}

impl From<Gone> for HandlerError {
    fn from(_: Gone) -> Self {
        Self::new("unavailable", "The server is shutting down.")
    }
}

/// Bytes of an error's text that are told: it quotes the value that is wrong, which may be as long as an event.
const MAX_ERROR_BYTES: usize = 200;

/// Returns what is told of values that do not fit JSON, or JSON that does not fit a type.
pub(super) fn short_text(err: &serde_json::Error) -> String {
    telemetry::short(err, MAX_ERROR_BYTES)
}

impl From<serde_json::Error> for HandlerError {
    fn from(err: serde_json::Error) -> Self {
        let err = short_text(&err);
        log::error!("a value does not fit JSON, or JSON a type: {err}");
        Self::failed()
    }
}

impl From<AckError> for HandlerError {
    fn from(err: AckError) -> Self {
        let code = match err {
            AckError::Timeout(_) => "ack_timeout",
            AckError::Disconnected => "ack_disconnected",
            AckError::Decode(_) => "bad_ack",
            AckError::Encode(err) => return err.into(),
        };
        Self::new(code, err.to_string())
    }
}

/// What a handler may return: `()` for an ack without arguments, a value of a common type (those of [`IntoArgs`]) or an [`Ack`] of
/// any type for one argument, a [`Reply`] for several, or a `Result` of one of these.
pub trait IntoReply {
    /// Turns it into an ack.
    ///
    /// # Errors
    /// The handler failed; the ack says why.
    fn into_reply(self) -> Result<Reply, HandlerError>;
}

/// One argument of an ack, of any type that serialises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<T>(pub T);

impl IntoReply for () {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::empty())
    }
}

impl IntoReply for Reply {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(self)
    }
}

impl<T: Serialize> IntoReply for Ack<T> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Reply::with(&self.0)
    }
}

impl<R: IntoReply, E: Into<HandlerError>> IntoReply for Result<R, E> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_err(Into::into)?.into_reply()
    }
}

/// What `on_connect`, `on_move` and `on_disconnect` may return: nothing, or a `Result` of nothing, whose error is logged.
pub trait IntoOutcome {
    /// Returns what the log is to say, if it failed.
    ///
    /// # Errors
    /// It failed.
    fn into_outcome(self) -> Result<(), String>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Display> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), String> {
        self.map_err(|err| err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn references_are_one_argument_and_tuples_several() {
        let json = |args: Result<Args, serde_json::Error>| args.unwrap().json().to_owned();
        assert_eq!(json("a\"b".into_args(Some("e"))), r#"["e","a\"b"]"#);
        assert_eq!(json((&[1, 2]).into_args(Some("e"))), r#"["e",[1,2]]"#);
        assert_eq!(
            json((1, "x", None::<u8>).into_args(Some("e"))),
            r#"["e",1,"x",null]"#
        );
        assert_eq!(json((1, 2).into_args(None)), "[1,2]");
        assert_eq!(json("owned".to_owned().into_args(None)), r#"["owned"]"#);
        assert_eq!(json(vec![1, 2].into_args(None)), "[[1,2]]");
        assert_eq!(json(None::<u8>.into_args(None)), "[null]");
        assert_eq!(json(Value::Null.into_args(None)), "[null]");
        assert_eq!(json(Room::from("r").into_args(None)), r#"["r"]"#);
        assert_eq!(json(().into_args(None)), "[]");
    }

    #[test]
    fn binary_becomes_an_attachment_wherever_it_stands() {
        let bytes = |byte| Binary(Bytes::from(vec![byte]));
        let args = (bytes(1), vec![bytes(2)]).into_args(Some("e")).unwrap();
        assert_eq!(
            args.json(),
            r#"["e",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#
        );
        assert_eq!(
            args.attachments(),
            [Bytes::from(vec![1]), Bytes::from(vec![2])]
        );
        assert!(
            serde_json::to_string(&bytes(1)).is_err(),
            "there is nowhere for it to go"
        );
    }

    #[test]
    fn an_error_becomes_an_ack_that_says_why() {
        let err = HandlerError::new("teapot", "I am \"one\".").into_ack();
        assert_eq!(
            err.json(),
            r#"[{"error":{"code":"teapot","message":"I am \"one\"."}}]"#
        );
        let failed: Result<(), HandlerError> = Err(HandlerError::new("a", "b"));
        assert_eq!(failed.into_reply(), Err(HandlerError::new("a", "b")));
        assert_eq!(Ack(7).into_reply().unwrap().0.json(), "[7]");
        assert_eq!(7.into_reply().unwrap().0.json(), "[7]");
        assert_eq!(HandlerError::internal("a secret"), HandlerError::failed());
    }
}
