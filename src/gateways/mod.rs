//! Gateways: what an application does, per namespace and event.
//!
//! Handlers belong to the namespace, not to a socket; what one wants to remember about a socket is its serialisable
//! `data`. A gateway sees events and rooms, never frames. [`events`] is the built-in one.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sockhop::gateways::{Arg, Gateway};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Line { text: String }
//!
//! let chat = Gateway::new("/chat").on("say", |socket, Arg(line): Arg<Line>| async move {
//!     socket.broadcast().emit("said", &line).await
//! });
//! ```
//!
//! Reading order: this file (a namespace and its handlers), `names` (namespaces by pattern), `connect` (who may join), `stateful`
//! (handlers that share a state), `event` (what a handler receives), `reply` (what it answers), `binary` (bytes among typed
//! arguments), `socket_ref` (one client), `broadcaster` (many), `calls` (hearing out what many answer), `remote_socket` (a client
//! of any instance), `server_side` (events between servers).
//!
//! Handlers run on the arbiter of the client's socket: they may await, and must not block. The events of one client in
//! one namespace are handled one after the other, in the order sent, unless the gateway is [`Gateway::concurrent`]; a slow
//! handler delays only them. A handler that panics ends nothing but that call.

mod binary;
mod broadcaster;
mod calls;
mod connect;
mod event;
pub mod events;
pub(crate) mod guard;
pub(crate) mod mail;
mod names;
mod remote_socket;
mod reply;
pub mod server_side;
mod socket_ref;
mod stateful;

use std::{collections::HashMap, fmt, future::Future, num::NonZeroUsize, sync::Arc};

use bytestring::ByteString;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;

use self::names::Names;
pub(crate) use self::names::Pattern;
pub use self::{
    binary::Binary,
    broadcaster::{ANSWER_TIMEOUT, Broadcaster, NamespaceRef},
    calls::AskError,
    connect::{AtOnce, BadAuth, ConnectRequest, IntoVerdict, Later, Refusal},
    event::{AllArgs, Arg, Event, FromEvent},
    names::MAX_NAMESPACE_BYTES,
    remote_socket::RemoteSocket,
    reply::{Ack, HandlerError, IntoArgs, IntoOutcome, IntoReply, Reply},
    socket_ref::{AckError, Gone, SocketRef, VolatileSocket},
    stateful::StatefulGateway,
};
use crate::{socket::disconnect::DisconnectReason, socket_io::ids::Namespace, telemetry::About};

type Authorize =
    Arc<dyn Fn(ConnectRequest) -> LocalBoxFuture<'static, Result<Value, Refusal>> + Send + Sync>;
type OnConnect =
    Arc<dyn Fn(SocketRef) -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync>;
type OnDisconnect = Arc<
    dyn Fn(SocketRef, DisconnectReason) -> LocalBoxFuture<'static, Result<(), String>>
        + Send
        + Sync,
>;
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

type SameIdentity = Arc<dyn Fn(&Value, &Value) -> bool + Send + Sync>;

/// A handler, and in whose name it speaks to the log.
#[derive(Clone)]
pub(crate) struct Named<F> {
    pub(crate) about: About,
    call: F,
}

/// One namespace, or all those of a pattern: who may connect, and what its events do.
#[derive(Clone)]
#[must_use = "a gateway does nothing before it is added to an App"]
pub struct Gateway {
    names: Names,
    /// In whose name its handlers speak to the log.
    about: About,
    authorize: Vec<Authorize>,
    on_connect: Option<OnConnect>,
    on_move: Option<OnConnect>,
    on_disconnect: Option<OnDisconnect>,
    on: HashMap<ByteString, Named<OnEvent>>,
    on_other: Option<Named<OnEvent>>,
    on_server: HashMap<ByteString, Named<OnServer>>,
    middleware: Vec<Middleware>,
    concurrency: NonZeroUsize,
    same_identity: Option<SameIdentity>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("namespace", &self.names)
            .field("events", &self.on.keys())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Returns a gateway for a namespace that admits everyone and ignores every event. A missing leading slash is added, so
    /// that `""` is `/`, the main namespace: the one that clients join if they name none. Every character stands for itself; for
    /// patterns there is [`Self::matching`].
    pub fn new(namespace: &str) -> Self {
        Self::of(Names::one(namespace))
    }

    /// Returns a gateway for every namespace whose whole name a pattern matches: `io.of(/regex/)` of Node. They are as separate
    /// as any others; each is there from its first client to its last. A missing leading slash is added.
    ///
    /// The syntax is that of actix-web's routes: `{id}` is one segment, `{id:[0-9]+}` one that matches a regex, `{tail}*` all
    /// that follows. [`ConnectRequest::param`] and [`SocketRef::param`] return the parts.
    ///
    /// A gateway of exactly a client's name comes before all patterns, and these come in the order in which they were added.
    /// Such names are the client's choice: one of more than [`MAX_NAMESPACE_BYTES`], or with a control character, matches
    /// nothing, and a client may be in 100 namespaces at a time. What else may be asked for, let [`Self::authorize`] decide.
    ///
    /// ```
    /// # use sockhop::gateways::Gateway;
    /// let orders = Gateway::matching("/orders/{id:[0-9]+}")
    ///     .authorize(|request| match request.param("id") {
    ///         Some("0") | None => Err("There is no such order"),
    ///         Some(_) => Ok(()),
    ///     })
    ///     .on("which", |socket, (): ()| async move { socket.param("id").map(str::to_owned) });
    /// ```
    ///
    /// # Panics
    /// The pattern is broken, or has more than 16 parts: a fault of the program, met at its start.
    pub fn matching(pattern: &str) -> Self {
        Self::of(Names::pattern(pattern))
    }

    /// Returns a gateway for every namespace whose name, slash included, `matches` accepts: `io.of(fn)` of Node. See
    /// [`Self::matching`] for their order and limits.
    ///
    /// It is asked for each CONNECT to a name that no gateway spells out, and must not block. A panic counts as a no.
    ///
    /// ```
    /// # use sockhop::gateways::Gateway;
    /// let rooms = ["/red", "/blue"];
    /// let gateway = Gateway::matching_fn(move |name| rooms.contains(&name));
    /// ```
    pub fn matching_fn(matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Names::Predicate(Arc::new(matches)))
    }

    fn of(names: Names) -> Self {
        Self {
            about: About::default().and(&format!("{names:?}")),
            names,
            authorize: Vec::new(),
            on_connect: None,
            on_move: None,
            on_disconnect: None,
            on: HashMap::new(),
            on_other: None,
            on_server: HashMap::new(),
            middleware: Vec::new(),
            concurrency: NonZeroUsize::MIN,
            same_identity: None,
        }
    }

    /// Returns the namespace; `None` if the gateway is for all those of a pattern.
    pub fn namespace(&self) -> Option<&Namespace> {
        match &self.names {
            Names::One(name) => Some(name),
            Names::Pattern(_) | Names::Predicate(_) => None,
        }
    }

    /// Adds a state of the application's own: every call that is added behind this gets a clone of it as its first parameter.
    /// What the calls are to share goes into an `Arc`. See [`StatefulGateway`].
    pub fn with_state<S: Clone + Send + Sync + 'static>(self, state: S) -> StatefulGateway<S> {
        StatefulGateway::new(self, state)
    }

    /// Decides who may connect: `namespace.use` of Node. Without it everyone may.
    ///
    /// What it returns becomes the socket's [`data`](SocketRef::data). Several are called in the order in which they were added,
    /// until one refuses; each may read in [`ConnectRequest::data`] what those before it returned. Their objects are merged, the
    /// later one's members replacing those of the same name; `()` adds nothing. Nothing at all makes `{}`.
    ///
    /// It returns its `Result` at once or by a future. It may take its time, but the client's `connect_timeout` (45 s) runs on
    /// until it has joined some namespace. A panic refuses the client.
    ///
    /// ```
    /// # use sockhop::gateways::{ConnectRequest, Gateway, Refusal};
    /// # use serde_json::json;
    /// # async fn find_user(token: &str) -> Option<String> { None }
    /// #[derive(serde::Deserialize)]
    /// struct Auth { token: String }
    ///
    /// async fn authenticate(request: ConnectRequest) -> Result<serde_json::Value, Refusal> {
    ///     let Auth { token } = request.auth_as()?;
    ///     let user = find_user(&token).await.ok_or("Who are you?")?;
    ///     Ok(json!({ "user": user }))
    /// }
    ///
    /// let admin = Gateway::new("/admin").authorize(authenticate).authorize(|request| {
    ///     match request.handshake.header("x-role") {
    ///         Some("admin") => Ok(()),
    ///         _ => Err(Refusal::new("Not for you").with_data(json!({ "code": 403 }))),
    ///     }
    /// });
    /// ```
    pub fn authorize<F, V, M>(mut self, decide: F) -> Self
    where
        F: Fn(ConnectRequest) -> V + Send + Sync + 'static,
        V: IntoVerdict<M>,
    {
        self.authorize
            .push(Arc::new(move |request| decide(request).into_verdict()));
        self
    }

    /// Runs for each socket right after its CONNECT reply, and is over before its first event is handled. What others broadcast
    /// may reach the client meanwhile. A second one replaces the first.
    ///
    /// It returns nothing, or a `Result` of nothing. An error is logged, and the socket is disconnected from the namespace, as it
    /// is if this panics: its events would meet a socket that is set up by half.
    pub fn on_connect<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.on_connect = Some(Arc::new(move |socket| {
            call(socket).map(IntoOutcome::into_outcome).boxed_local()
        }));
        self
    }

    /// Runs for each socket that has come from another instance, when its WebSocket landed at this one: before its next event is
    /// handled, and behind what still ran for it there. It is the same socket as before, with its id, rooms and `data`; neither
    /// [`on_disconnect`](Self::on_disconnect) nor [`on_connect`](Self::on_connect) was called. Few need to know. A second one
    /// replaces the first.
    ///
    /// It returns nothing, or a `Result` of nothing; an error is logged.
    pub fn on_move<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.on_move = Some(Arc::new(move |socket| {
            call(socket).map(IntoOutcome::into_outcome).boxed_local()
        }));
        self
    }

    /// Runs once for each socket after it left, for whatever reason, behind its last event. It is in no room any more, and what
    /// is sent to it goes nowhere; [`SocketRef::to`] still reaches the others. A second one replaces the first.
    ///
    /// It has 30 seconds, as those events have before it; a stop of the instance waits for it, though not as long. It returns
    /// nothing, or a `Result` of nothing; an error is logged.
    pub fn on_disconnect<F, Fut>(mut self, call: F) -> Self
    where
        F: Fn(SocketRef, DisconnectReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.on_disconnect = Some(Arc::new(move |socket, reason| {
            call(socket, reason)
                .map(IntoOutcome::into_outcome)
                .boxed_local()
        }));
        self
    }

    /// Handles the event `name`, which is text, or a number as text: `"7"`. What it receives is chosen by the type of the second
    /// parameter ([`FromEvent`]), what the ack carries by the type that it returns ([`IntoReply`]). A second handler of the same
    /// name replaces the first.
    pub fn on<T, F, Fut>(mut self, name: &str, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(SocketRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        let handler = Named {
            about: self.about("event").and(name),
            call: handler(handle),
        };
        self.on.insert(ByteString::from(name), handler);
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
        self.on_other = Some(Named {
            about: self.about("other"),
            call: handler(handle),
        });
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
        let handler = Named {
            about: self.about("server").and(name),
            call: handle,
        };
        self.on_server.insert(ByteString::from(name), handler);
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

    /// Decides whether a client that comes back ([connection state recovery](crate::config::RecoveryConfig)) is still the same.
    ///
    /// [`Self::authorize`] is asked again when it comes back, and its refusal stands. If it lets the client in, `is_same` gets what
    /// it had returned when the client connected first, and what it returns now; unless they mean the same identity, the client
    /// gets a new socket with a new id, and what the other had stays where it is. Without this they must be equal, so set it if
    /// there is something in there that changes from one connection to the next, such as a time.
    ///
    /// It must not block. A panic counts as a no.
    ///
    /// ```
    /// # use sockhop::gateways::Gateway;
    /// # use serde_json::{Value, json};
    /// let gateway = Gateway::new("/chat")
    ///     .authorize(|request| Ok::<_, &str>(json!({ "user": "ada", "since": request.handshake.issued })))
    ///     .same_identity(|before, now| before["user"] == now["user"]);
    /// ```
    pub fn same_identity(
        mut self,
        is_same: impl Fn(&Value, &Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.same_identity = Some(Arc::new(is_same));
        self
    }

    pub(crate) fn is_same_identity(&self, before: &Value, now: &Value) -> bool {
        self.same_identity
            .as_ref()
            .map_or_else(|| before == now, |is_same| is_same(before, now))
    }

    /// Gives up the order of one client's events: up to `at_a_time` of them are handled at a time, and never more
    /// than 1,024. All but one of them count as events that wait: with 1 MiB of those the client is not read from. The default is 1.
    pub fn concurrent(mut self, at_a_time: NonZeroUsize) -> Self {
        self.concurrency = at_a_time;
        self
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.get()
    }

    /// Returns the pattern, if there are parts of names to be had of it.
    pub(crate) fn pattern(&self) -> Option<&Pattern> {
        match &self.names {
            Names::Pattern(pattern) => Some(pattern),
            Names::One(_) | Names::Predicate(_) => None,
        }
    }

    /// Returns in whose name the log is told of what `what` names: `authorize`, `connect`, `move` or `disconnect`.
    pub(crate) fn about(&self, what: &str) -> About {
        self.about.and(what)
    }

    /// Asks every `authorize` in turn. Returns the socket's data.
    pub(crate) async fn call_authorize(
        &self,
        mut request: ConnectRequest,
    ) -> Result<Value, Refusal> {
        request.pattern = self.pattern().cloned();
        for authorize in &self.authorize {
            let data = authorize(request.clone()).await?;
            request.remember(data);
        }
        Ok(request.into_data())
    }

    pub(crate) fn call_on_connect(
        &self,
        socket: SocketRef,
    ) -> Option<LocalBoxFuture<'static, Result<(), String>>> {
        self.on_connect.as_ref().map(|call| call(socket))
    }

    pub(crate) fn call_on_move(
        &self,
        socket: SocketRef,
    ) -> Option<LocalBoxFuture<'static, Result<(), String>>> {
        self.on_move.as_ref().map(|call| call(socket))
    }

    pub(crate) fn call_on_disconnect(
        &self,
        socket: SocketRef,
        reason: DisconnectReason,
    ) -> Option<LocalBoxFuture<'static, Result<(), String>>> {
        self.on_disconnect.as_ref().map(|call| call(socket, reason))
    }

    /// Returns the handler of an event, if there is one.
    pub(crate) fn handler(&self, event: &str) -> Option<&Named<OnEvent>> {
        self.on.get(event).or(self.on_other.as_ref())
    }

    /// Calls the handler of an event, middleware first.
    pub(crate) fn call_on_event(
        &self,
        handler: &Named<OnEvent>,
        socket: SocketRef,
        event: Event,
    ) -> LocalBoxFuture<'static, Result<Reply, HandlerError>> {
        if self.middleware.is_empty() {
            return (handler.call)(socket, event);
        }
        let (middleware, handle) = (self.middleware.clone(), Arc::clone(&handler.call));
        async move {
            let mut event = event;
            for check in middleware {
                event = check(socket.clone(), event).await?;
            }
            handle(socket, event).await
        }
        .boxed_local()
    }

    /// Returns the handler of an event that another server sent, if there is one.
    pub(crate) fn server_handler(&self, event: &str) -> Option<&Named<OnServer>> {
        self.on_server.get(event)
    }
}

impl Named<OnServer> {
    /// Calls the handler of an event that another server sent.
    pub(crate) fn call(
        &self,
        namespace: NamespaceRef,
        event: Event,
    ) -> LocalBoxFuture<'static, Result<Reply, HandlerError>> {
        (self.call)(namespace, event)
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

/// Every gateway of an application.
#[derive(Clone, Debug, Default)]
pub struct Gateways {
    by_namespace: HashMap<Namespace, Arc<Gateway>>,
    /// In the order in which they are asked.
    patterns: Vec<Arc<Gateway>>,
}

impl Gateways {
    /// Adds a gateway. A second one of the same namespace, or of the same pattern, replaces the first.
    pub fn add(&mut self, gateway: Gateway) {
        let gateway = Arc::new(gateway);
        if let Some(namespace) = gateway.namespace() {
            self.by_namespace.insert(namespace.clone(), gateway);
            return;
        }
        let mut patterns = self.patterns.iter_mut();
        match patterns.find(|other| other.names.is_same(&gateway.names)) {
            Some(other) => *other = gateway,
            None => self.patterns.push(gateway),
        }
    }

    /// Returns the gateway of a namespace, whose name may be of a client's choice: the one of exactly this name, else the first
    /// whose pattern matches.
    pub fn get(&self, namespace: &Namespace) -> Option<&Arc<Gateway>> {
        self.by_namespace.get(namespace).or_else(|| {
            let mut patterns = self.patterns.iter();
            patterns.find(|gateway| names::is_valid(namespace) && gateway.names.matches(namespace))
        })
    }

    /// Returns every namespace that a gateway spells out.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.by_namespace.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(gateways: &'a Gateways, name: &str) -> Option<&'a Names> {
        gateways.get(&name.into()).map(|gateway| &gateway.names)
    }

    #[test]
    fn exact_names_come_before_patterns_and_these_in_their_order() {
        let mut gateways = Gateways::default();
        gateways.add(Gateway::matching_fn(|name| {
            name == "/a/panic" && panic!("asked")
        }));
        gateways.add(Gateway::matching("/a/{first:[0-9]+}"));
        gateways.add(Gateway::matching("/a/{second}"));
        gateways.add(Gateway::matching_fn(|name| name.starts_with("/b")));
        gateways.add(Gateway::new("/a/1"));
        for (name, expected) in [
            ("/a/1", Some("/a/1")),
            ("/a/2", Some("/a/{first:[0-9]+}")),
            ("/a/x", Some("/a/{second}")),
            ("/a/panic", Some("/a/{second}")),
            ("/bee", Some("predicate")),
            ("/", None),
            ("/b\n", None),
        ] {
            let names = found(&gateways, name).map(|names| format!("{names:?}"));
            assert_eq!(names.as_deref(), expected, "{name:?}");
        }
        assert_eq!(gateways.namespaces(), ["/a/1".into()]);
        assert!(found(&gateways, &format!("/b{}", "x".repeat(MAX_NAMESPACE_BYTES))).is_none());
    }

    #[test]
    fn a_second_gateway_of_the_same_pattern_replaces_the_first_in_its_place() {
        let mut gateways = Gateways::default();
        gateways.add(Gateway::matching("/{a}"));
        gateways.add(Gateway::matching("/{b}"));
        gateways.add(Gateway::matching("/{a}").concurrent(NonZeroUsize::MAX));
        let gateway = gateways.get(&"/x".into()).unwrap();
        assert_eq!(gateway.concurrency(), usize::MAX);
        assert_eq!(gateways.patterns.len(), 2);
    }
}
