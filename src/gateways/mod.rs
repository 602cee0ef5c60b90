//! Gateways: what an application does, per namespace and event.
//!
//! Handlers belong to the namespace, not to a socket; what one wants to remember about a socket is its serialisable
//! `data`. A gateway sees events and rooms, never frames. [`events`] is the built-in one.
//!
//! ```
//! use sockhop::gateways::{Gateway, Reply};
//!
//! let chat = Gateway::new("/chat")
//!     .on("shout", |socket, event| async move {
//!         socket.broadcast("shout", &["hear, hear"]).await?;
//!         Ok(Reply::Args(event.payload()))
//!     });
//! ```
//!
//! Handlers run on the arbiter of the client's socket: they may await, and must not block. The events of one client in
//! one namespace are handled one after the other, in the order sent; a slow handler delays only them. A handler that
//! panics ends nothing but that call.

pub mod events;
mod socket_ref;

use std::{collections::HashMap, fmt, future::Future, sync::Arc};

use bytestring::ByteString;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;

pub(crate) use self::socket_ref::SocketParts;
pub use self::socket_ref::{Gone, SocketRef};
use crate::{
    socket::{disconnect::DisconnectReason, handshake::Handshake},
    socket_io::{args::Args, ids::Namespace},
};

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
}

/// What a handler answers. It becomes the ack if the client asked for one, and is dropped otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// An ack without arguments.
    Empty,
    /// An ack with one JSON argument.
    Value(Value),
    /// An ack with these arguments, attachments included.
    Args(Args),
}

/// Why a handler could not do what the event asked for. The client's ack is
/// `{"error":{"code":…,"message":…}}`.
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

    /// What a client is told of a handler that panicked.
    pub(crate) fn internal() -> Self {
        Self::new("internal", "The server failed to handle this event.")
    }
}

impl From<Gone> for HandlerError {
    fn from(_: Gone) -> Self {
        Self::new("unavailable", "The server is shutting down.")
    }
}

impl From<serde_json::Error> for HandlerError {
    fn from(_: serde_json::Error) -> Self {
        Self::internal()
    }
}

/// Why a client may not join a namespace. Becomes a CONNECT_ERROR; nothing else is closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// `message` of the error at the client.
    pub message: String,
    /// `data` of the error at the client; absent if `None`.
    pub data: Option<Value>,
}

/// A client that asks to join a namespace.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Which one.
    pub namespace: Namespace,
    /// What the client brought: the text of a JSON object.
    pub auth: Option<ByteString>,
    /// The Engine.IO handshake of its session.
    pub handshake: Arc<Handshake>,
}

type Authorize =
    Arc<dyn Fn(ConnectRequest) -> LocalBoxFuture<'static, Result<Value, Refusal>> + Send + Sync>;
type OnConnect = Arc<dyn Fn(SocketRef) -> LocalBoxFuture<'static, ()> + Send + Sync>;
type OnDisconnect =
    Arc<dyn Fn(SocketRef, DisconnectReason) -> LocalBoxFuture<'static, ()> + Send + Sync>;
type OnEvent = Arc<
    dyn Fn(SocketRef, Event) -> LocalBoxFuture<'static, Result<Reply, HandlerError>> + Send + Sync,
>;

/// One namespace: who may connect, and what its events do.
#[derive(Clone)]
pub struct Gateway {
    namespace: Namespace,
    authorize: Option<Authorize>,
    on_connect: Option<OnConnect>,
    on_disconnect: Option<OnDisconnect>,
    on: HashMap<ByteString, OnEvent>,
    on_other: Option<OnEvent>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("namespace", &self.namespace)
            .field("events", &self.on.keys())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Returns a gateway for a namespace that admits everyone and ignores every event. A missing leading slash is added.
    pub fn new(namespace: &str) -> Self {
        let namespace = if namespace.starts_with('/') {
            Namespace::from(namespace)
        } else {
            Namespace::from(format!("/{namespace}"))
        };
        Self {
            namespace,
            authorize: None,
            on_connect: None,
            on_disconnect: None,
            on: HashMap::new(),
            on_other: None,
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Decides who may connect. What it returns becomes the socket's `data`.
    pub fn authorize<F, Fut>(mut self, decide: F) -> Self
    where
        F: Fn(ConnectRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Refusal>> + 'static,
    {
        self.authorize = Some(Arc::new(move |request| decide(request).boxed_local()));
        self
    }

    /// Runs for each socket right after it was admitted, before its first event.
    pub fn on_connect<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.on_connect = Some(Arc::new(move |socket| call(socket).boxed_local()));
        self
    }

    /// Runs for each socket after it left, behind its last event.
    pub fn on_disconnect<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef, DisconnectReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.on_disconnect = Some(Arc::new(move |socket, reason| {
            call(socket, reason).boxed_local()
        }));
        self
    }

    /// Handles the event `name`. A second handler of the same name replaces the first.
    pub fn on<F, Fut>(mut self, name: &str, handle: F) -> Self
    where
        F: Fn(SocketRef, Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, HandlerError>> + 'static,
    {
        self.on.insert(
            ByteString::from(name),
            Arc::new(move |socket, event| handle(socket, event).boxed_local()),
        );
        self
    }

    /// Handles every event that has no handler of its own. Without it such an event is ignored, as in Node, and an ack
    /// that it asked for never comes.
    pub fn on_other<F, Fut>(mut self, handle: F) -> Self
    where
        F: Fn(SocketRef, Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, HandlerError>> + 'static,
    {
        self.on_other = Some(Arc::new(move |socket, event| {
            handle(socket, event).boxed_local()
        }));
        self
    }

    pub(crate) fn call_authorize(
        &self,
        request: ConnectRequest,
    ) -> LocalBoxFuture<'static, Result<Value, Refusal>> {
        match &self.authorize {
            Some(authorize) => authorize(request),
            None => std::future::ready(Ok(Value::Object(serde_json::Map::new()))).boxed_local(),
        }
    }

    pub(crate) fn call_on_connect(&self, socket: SocketRef) -> Option<LocalBoxFuture<'static, ()>> {
        self.on_connect.as_ref().map(|call| call(socket))
    }

    pub(crate) fn call_on_disconnect(
        &self,
        socket: SocketRef,
        reason: DisconnectReason,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        self.on_disconnect.as_ref().map(|call| call(socket, reason))
    }

    pub(crate) fn call_on_event(
        &self,
        socket: SocketRef,
        event: Event,
    ) -> Option<LocalBoxFuture<'static, Result<Reply, HandlerError>>> {
        let handle = self.on.get(&event.name).or(self.on_other.as_ref())?;
        Some(handle(socket, event))
    }
}

/// Every gateway of an application, by namespace.
#[derive(Clone, Debug, Default)]
pub struct Gateways {
    by_namespace: HashMap<Namespace, Arc<Gateway>>,
}

impl Gateways {
    /// Adds a gateway. A second one of the same namespace replaces the first.
    pub fn add(&mut self, gateway: Gateway) {
        self.by_namespace
            .insert(gateway.namespace.clone(), Arc::new(gateway));
    }

    /// Returns the gateway of a namespace.
    pub fn get(&self, namespace: &Namespace) -> Option<&Arc<Gateway>> {
        self.by_namespace.get(namespace)
    }

    /// Returns every namespace.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.by_namespace.keys().cloned().collect()
    }
}
