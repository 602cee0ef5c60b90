//! Gateways: what an application does, per namespace and event.
//!
//! Handlers belong to the namespace, not to a socket; what one wants to remember about a socket is its serialisable
//! `data`. A gateway sees events and rooms, never frames. [`events`] is the built-in one.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sockhop::gateways::{Arg, Gateway, SocketRef};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Line { text: String }
//!
//! let chat = Gateway::new("/chat").on("say", |socket: SocketRef, Arg(line): Arg<Line>| async move {
//!     socket.broadcast().emit("said", &line).await
//! });
//! ```
//!
//! Reading order: this file (a namespace and its handlers), `event` (what a handler receives), `reply` (what it answers),
//! `binary` (bytes among typed arguments), `socket_ref` (one client), `broadcaster` (many), `calls` (hearing out what many
//! answer), `remote_socket` (a client of any instance), `server_side` (events between servers).
//!
//! Handlers run on the arbiter of the client's socket: they may await, and must not block. The events of one client in
//! one namespace are handled one after the other, in the order sent, unless the gateway is [`Gateway::concurrent`]; a slow
//! handler delays only them. A handler that panics ends nothing but that call.

mod binary;
mod broadcaster;
mod calls;
mod event;
pub mod events;
pub(crate) mod mail;
mod remote_socket;
mod reply;
pub mod server_side;
mod socket_ref;

use std::{collections::HashMap, fmt, future::Future, num::NonZeroUsize, sync::Arc};

use bytestring::ByteString;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;

pub use self::{
    binary::Binary,
    broadcaster::{ANSWER_TIMEOUT, Broadcaster, NamespaceRef},
    calls::AskError,
    event::{AllArgs, Arg, Event, FromEvent},
    remote_socket::RemoteSocket,
    reply::{Ack, HandlerError, IntoArgs, IntoReply, Reply},
    socket_ref::{AckError, Gone, SocketRef},
};
use crate::{
    socket::{disconnect::DisconnectReason, handshake::Handshake},
    socket_io::ids::Namespace,
};

/// Why a client may not join a namespace. Becomes a CONNECT_ERROR; nothing else is closed.
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
}

/// A client that asks to join a namespace.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Which one.
    pub namespace: Namespace,
    /// What the client brought (`auth` of its options): the text of a JSON object, which nobody has checked further. `None` if
    /// it brought nothing. [`Self::auth_as`] reads it.
    pub auth: Option<ByteString>,
    /// The Engine.IO handshake of its session.
    pub handshake: Arc<Handshake>,
}

impl ConnectRequest {
    /// Reads what the client brought as a type of the application's own; nothing counts as `{}`.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn auth_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.auth.as_deref().unwrap_or("{}"))
    }
}

type Authorize =
    Arc<dyn Fn(ConnectRequest) -> LocalBoxFuture<'static, Result<Value, Refusal>> + Send + Sync>;
type OnConnect = Arc<dyn Fn(SocketRef) -> LocalBoxFuture<'static, ()> + Send + Sync>;
type OnDisconnect =
    Arc<dyn Fn(SocketRef, DisconnectReason) -> LocalBoxFuture<'static, ()> + Send + Sync>;
type OnEvent = Arc<
    dyn Fn(SocketRef, Event) -> LocalBoxFuture<'static, Result<Reply, HandlerError>> + Send + Sync,
>;
type OnServer = Arc<
    dyn Fn(NamespaceRef, Event) -> LocalBoxFuture<'static, Result<Reply, HandlerError>>
        + Send
        + Sync,
>;
type Middleware = Arc<
    dyn Fn(SocketRef, Event) -> LocalBoxFuture<'static, Result<Event, HandlerError>> + Send + Sync,
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
    on_server: HashMap<ByteString, OnServer>,
    middleware: Vec<Middleware>,
    concurrency: NonZeroUsize,
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
    /// Returns a gateway for a namespace that admits everyone and ignores every event. A missing leading slash is added, so
    /// that `""` is `/`, the main namespace: the one that clients join if they name none.
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
            on_server: HashMap::new(),
            middleware: Vec::new(),
            concurrency: NonZeroUsize::MIN,
        }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Decides who may connect. What it returns becomes the socket's [`data`](SocketRef::data); without it everyone may, with
    /// `{}`. A second one replaces the first.
    ///
    /// It may take its time, but the client's `connect_timeout` (45 s) runs on until it has joined some namespace. A panic
    /// refuses the client.
    ///
    /// ```
    /// # use sockhop::gateways::{Gateway, Refusal};
    /// # use serde_json::json;
    /// Gateway::new("/admin").authorize(|request| async move {
    ///     match request.handshake.header("x-role") {
    ///         Some("admin") => Ok(json!({ "role": "admin" })),
    ///         _ => Err(Refusal { message: "Not for you".to_owned(), data: None }),
    ///     }
    /// });
    /// ```
    pub fn authorize<F, Fut>(mut self, decide: F) -> Self
    where
        F: Fn(ConnectRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, Refusal>> + 'static,
    {
        self.authorize = Some(Arc::new(move |request| decide(request).boxed_local()));
        self
    }

    /// Runs for each socket right after its CONNECT reply, and is over before its first event is handled. What others broadcast
    /// may reach the client meanwhile. A second one replaces the first.
    pub fn on_connect<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.on_connect = Some(Arc::new(move |socket| call(socket).boxed_local()));
        self
    }

    /// Runs once for each socket after it left, for whatever reason, behind its last event. It is in no room any more, and what
    /// is sent to it goes nowhere; [`SocketRef::to`] still reaches the others. A second one replaces the first.
    ///
    /// It has 30 seconds, as those events have before it; a stop of the instance waits for it, though not as long.
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

    /// Handles the event `name`, which is text, or a number as text: `"7"`. What it receives is chosen by the type of the second parameter ([`FromEvent`]), what the
    /// ack carries by the type that it returns ([`IntoReply`]). A second handler of the same name replaces the first.
    pub fn on<T, F, Fut>(mut self, name: &str, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(SocketRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        self.on.insert(ByteString::from(name), handler(handle));
        self
    }

    /// Handles every event that has no handler of its own. Without it such an event is ignored, as in Node, and an ack
    /// that it asked for never comes.
    pub fn on_other<T, F, Fut>(mut self, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(SocketRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        self.on_other = Some(handler(handle));
        self
    }

    /// Handles the event `name` that another server of the cluster sent to servers:
    /// [`server_side_emit`](NamespaceRef::server_side_emit), or Node's `io.serverSideEmit`. What it returns becomes the reply, of
    /// which the first argument travels. A second handler of the same name replaces the first.
    ///
    /// ```
    /// # use sockhop::gateways::{Ack, Arg, Gateway, NamespaceRef};
    /// Gateway::new("/chat").on_server("count", |chat: NamespaceRef, ()| async move {
    ///     chat.local().fetch_sockets().await.map(|sockets| Ack(sockets.len()))
    /// });
    /// ```
    ///
    /// It runs on the thread that started the application, apart from all clients; it may await, and must not block.
    pub fn on_server<T, F, Fut>(mut self, name: &str, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(NamespaceRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        let handle: OnServer = Arc::new(move |namespace, event| match T::from_event(event) {
            Ok(payload) => handle(namespace, payload)
                .map(IntoReply::into_reply)
                .boxed_local(),
            Err(err) => std::future::ready(Err(err)).boxed_local(),
        });
        self.on_server.insert(ByteString::from(name), handle);
        self
    }

    /// Sees every event before its handler, and may change it or refuse it: the error becomes the ack. Several are called
    /// in the order in which they were added. Events that have no handler are not shown to it.
    pub fn middleware<F, Fut>(mut self, check: F) -> Self
    where
        F: Fn(SocketRef, Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, HandlerError>> + 'static,
    {
        self.middleware.push(Arc::new(move |socket, event| {
            check(socket, event).boxed_local()
        }));
        self
    }

    /// Gives up the order of one client's events: up to `at_a_time` of them are handled at a time. The default is 1.
    pub fn concurrent(mut self, at_a_time: NonZeroUsize) -> Self {
        self.concurrency = at_a_time;
        self
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.get()
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
        if self.middleware.is_empty() {
            return Some(handle(socket, event));
        }
        let (middleware, handle) = (self.middleware.clone(), Arc::clone(handle));
        Some(
            async move {
                let mut event = event;
                for check in middleware {
                    event = check(socket.clone(), event).await?;
                }
                handle(socket, event).await
            }
            .boxed_local(),
        )
    }
}

impl Gateway {
    pub(crate) fn call_on_server(
        &self,
        namespace: NamespaceRef,
        event: Event,
    ) -> Option<LocalBoxFuture<'static, Result<Reply, HandlerError>>> {
        let handle = self.on_server.get(&event.name)?;
        Some(handle(namespace, event))
    }
}

/// Wraps a handler of any types into one that takes the event and gives the ack.
fn handler<T, F, Fut>(handle: F) -> OnEvent
where
    T: FromEvent,
    F: Fn(SocketRef, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoReply> + 'static,
{
    Arc::new(move |socket, event| match T::from_event(event) {
        Ok(payload) => handle(socket, payload)
            .map(IntoReply::into_reply)
            .boxed_local(),
        Err(err) => std::future::ready(Err(err)).boxed_local(),
    })
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
