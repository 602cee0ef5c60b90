//! Who may connect: what a gateway is asked, what it may answer.

use std::{fmt, sync::Arc};

use bytestring::ByteString;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    names::Pattern,
    reply::{HandlerError, short_text},
};
use crate::{socket::handshake::Handshake, socket_io::ids::Namespace};

/// Why a client may not join a namespace. Becomes a CONNECT_ERROR; nothing else is closed.
///
/// A text is one, too: `Err("Not for you")?`. What the library itself refuses:
///
/// | message | data | what happened |
/// | --- | --- | --- |
/// | `Invalid namespace` | | no gateway is for it |
/// | `Too many namespaces` | | the client is in 100 already |
/// | `Too many dynamic namespaces: …` | `{"code":"too_many_namespaces"}` | it would be one more than `MAX_DYNAMIC_NAMESPACES` |
/// | `No more than … events per second: …` | `{"code":"rate_limited"}` | the client sends more events and wishes to join than `MAX_EVENT_RATE` |
/// | `Internal server error` | `{"code":"internal"}` | `authorize` panicked, or its data does not serialise |
/// | `Bad auth: …` | `{"code":"bad_auth"}` | [`ConnectRequest::auth_as`] failed, and `authorize` passed that on with `?` |
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// `message` of the error at the client, for people. Nothing is added to it: what it says, the client sees.
    pub message: String,
    /// `data` of the error at the client, for programs; absent if `None`.
    pub data: Option<Value>,
}

impl Refusal {
    /// Refuses with a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            data: None,
        }
    }

    /// Adds what a program at the client can go by.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// What a client is told that names a namespace when there are as many as there may be.
    pub(crate) fn too_many_namespaces(limit: usize) -> Self {
        Self::new(format!(
            "Too many dynamic namespaces: {limit} are in use. Join one of them, or try again later"
        ))
        .with_data(json!({ "code": "too_many_namespaces" }))
    }

    /// What a client is told of an `authorize` that failed by itself.
    pub(crate) fn internal() -> Self {
        Self::new("Internal server error").with_data(json!({ "code": "internal" }))
    }
}

impl From<&str> for Refusal {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<HandlerError> for Refusal {
    fn from(HandlerError { code, message }: HandlerError) -> Self {
        Self::new(message).with_data(json!({ "code": code }))
    }
}

/// What the client brought is not of the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("Bad auth: {}", short_text(.0))]
pub struct BadAuth(serde_json::Error);

impl From<BadAuth> for Refusal {
    /// The text says where, for the client; it quotes at most the begin of a value of the wrong type that this client sent.
    fn from(err: BadAuth) -> Self {
        Self::new(err.to_string()).with_data(json!({ "code": "bad_auth" }))
    }
}

/// A client that asks to join a namespace.
#[derive(Clone)]
pub struct ConnectRequest {
    /// Which one.
    pub namespace: Namespace,
    /// What the client brought (`auth` of its options): the text of a JSON object, which nobody has checked further. `None` if
    /// it brought nothing. [`Self::auth_as`] reads it.
    pub auth: Option<ByteString>,
    /// The Engine.IO handshake of its session.
    pub handshake: Arc<Handshake>,
    pub(super) pattern: Option<Pattern>,
    data: Value,
}

impl fmt::Debug for ConnectRequest {
    /// Without `auth` and `data`: there may be tokens in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl ConnectRequest {
    pub(crate) fn new(
        namespace: Namespace,
        auth: Option<ByteString>,
        handshake: Arc<Handshake>,
    ) -> Self {
        Self {
            namespace,
            auth,
            handshake,
            pattern: None,
            data: Value::Object(Map::new()),
        }
    }

    /// Reads what the client brought as a type of the application's own; nothing counts as `{}`.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn auth_as<T: DeserializeOwned>(&self) -> Result<T, BadAuth> {
        serde_json::from_str(self.auth.as_deref().unwrap_or("{}")).map_err(BadAuth)
    }

    /// Returns the part of the namespace's name that a gateway [`matching`](super::Gateway::matching) it names so: `"7"` is the
    /// `id` of `/orders/7` at `/orders/{id}`. It is as the client wrote it, with nothing decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.pattern.as_ref()?.param(&self.namespace, name)
    }

    /// Returns what the calls of `authorize` before this one want to remember of the socket: `{}` before the first.
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// Adds what one `authorize` returned: the members of an object replace those of the same name, `null` adds nothing, and
    /// anything else takes the place of all.
    pub(super) fn remember(&mut self, data: Value) {
        match (&mut self.data, data) {
            (_, Value::Null) => {}
            (Value::Object(data), Value::Object(more)) => data.extend(more),
            (data, other) => *data = other,
        }
    }

    pub(super) fn into_data(self) -> Value {
        self.data
    }
}

/// What `authorize` may return: `Result<D, E>`, at once or by a future, where `D` serialises and `E` is a [`Refusal`] or
/// becomes one.
///
/// `M` tells the two apart and is always inferred.
pub trait IntoVerdict<M> {
    /// Makes it a future.
    fn into_verdict(self) -> LocalBoxFuture<'static, Result<Value, Refusal>>;
}

/// See [`IntoVerdict`]: it came at once.
#[derive(Debug)]
pub enum AtOnce {}

/// See [`IntoVerdict`]: it came by a future.
#[derive(Debug)]
pub enum Later {}

fn verdict<D: Serialize, E: Into<Refusal>>(result: Result<D, E>) -> Result<Value, Refusal> {
    serde_json::to_value(result.map_err(Into::into)?).map_err(|err| {
        log::error!("what authorize returned does not serialise to JSON: {err}");
        Refusal::internal()
    })
}

impl<D: Serialize, E: Into<Refusal>> IntoVerdict<AtOnce> for Result<D, E> {
    fn into_verdict(self) -> LocalBoxFuture<'static, Result<Value, Refusal>> {
        std::future::ready(verdict(self)).boxed_local()
    }
}

impl<F, D, E> IntoVerdict<Later> for F
where
    F: Future<Output = Result<D, E>> + 'static,
    D: Serialize + 'static,
    E: Into<Refusal> + 'static,
{
    fn into_verdict(self) -> LocalBoxFuture<'static, Result<Value, Refusal>> {
        self.map(verdict).boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(auth: &str) -> ConnectRequest {
        let handshake = Handshake::new(
            String::new(),
            String::new(),
            std::iter::empty(),
            Default::default(),
        );
        ConnectRequest::new("/a".into(), Some(auth.into()), Arc::new(handshake))
    }

    #[test]
    fn what_is_remembered_is_added_up() {
        let mut request = request("{}");
        for (data, sum) in [
            (json!(null), json!({})),
            (json!({ "a": 1, "b": 2 }), json!({ "a": 1, "b": 2 })),
            (json!({ "b": 3 }), json!({ "a": 1, "b": 3 })),
            (json!(null), json!({ "a": 1, "b": 3 })),
            (json!(7), json!(7)),
            (json!({ "c": 1 }), json!({ "c": 1 })),
        ] {
            request.remember(data);
            assert_eq!(*request.data(), sum);
        }
    }

    #[test]
    fn bad_auth_tells_the_client_what_is_wrong() {
        let err = request(r#"{"x":1}"#).auth_as::<Vec<u8>>().unwrap_err();
        let refusal = Refusal::from(err);
        assert!(
            refusal.message.starts_with("Bad auth: invalid type"),
            "{refusal:?}"
        );
        assert_eq!(refusal.data, Some(json!({ "code": "bad_auth" })));
    }

    #[test]
    fn what_the_client_brought_is_in_no_log() {
        let request = request(r#"{"token":"hush"}"#);
        assert!(!format!("{request:?}").contains("hush"));
    }

    #[test]
    fn data_that_does_not_serialise_refuses_and_hides_why() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("inner detail"))
            }
        }
        assert_eq!(verdict(Ok::<_, Refusal>(Broken)), Err(Refusal::internal()));
    }
}
