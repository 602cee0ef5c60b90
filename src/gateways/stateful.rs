//! A gateway whose handlers share a state of the application's own.

use std::{fmt, future::Future, num::NonZeroUsize};

use serde_json::Value;

use super::{
    ConnectRequest, Event, FromEvent, Gateway, HandlerError, IntoOutcome, IntoReply, IntoVerdict,
    NamespaceRef, SocketRef,
};
use crate::socket::disconnect::DisconnectReason;

/// A [`Gateway`] whose every call gets a clone of one state first: made by [`Gateway::with_state`].
///
/// The methods are those of `Gateway`, with the state as one more parameter in front; [`Self::same_identity`] alone does without. Handlers run on several threads, so
/// what the state shares it guards itself: an `Arc<Mutex<…>>`, a pool, a channel.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use sockhop::{app::App, config::Config, gateways::{Ack, Gateway}};
///
/// let counter = Gateway::new("/counter")
///     .with_state(Arc::new(AtomicU64::new(0)))
///     .on("next", |count, _, (): ()| async move { count.fetch_add(1, Ordering::Relaxed) });
/// let app = App::new(Config::default()).gateway(counter);
/// ```
#[must_use = "a gateway does nothing before it is added to an App"]
pub struct StatefulGateway<S> {
    gateway: Gateway,
    state: S,
}

impl<S> fmt::Debug for StatefulGateway<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gateway.fmt(f)
    }
}

impl<S> From<StatefulGateway<S>> for Gateway {
    fn from(StatefulGateway { gateway, .. }: StatefulGateway<S>) -> Self {
        gateway
    }
}

impl<S: Clone + Send + Sync + 'static> StatefulGateway<S> {
    pub(super) fn new(gateway: Gateway, state: S) -> Self {
        Self { gateway, state }
    }

    fn change(self, change: impl FnOnce(Gateway, S) -> Gateway) -> Self {
        let Self { gateway, state } = self;
        Self {
            gateway: change(gateway, state.clone()),
            state,
        }
    }

    /// See [`Gateway::authorize`].
    pub fn authorize<F, V, M>(self, decide: F) -> Self
    where
        F: Fn(S, ConnectRequest) -> V + Send + Sync + 'static,
        V: IntoVerdict<M>,
    {
        self.change(|gateway, state| {
            gateway.authorize(move |request| decide(state.clone(), request))
        })
    }

    /// See [`Gateway::on_connect`].
    pub fn on_connect<F, Fut>(self, call: F) -> Self
    where
        F: Fn(S, SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.change(|gateway, state| gateway.on_connect(move |socket| call(state.clone(), socket)))
    }

    /// See [`Gateway::on_move`].
    pub fn on_move<F, Fut>(self, call: F) -> Self
    where
        F: Fn(S, SocketRef) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.change(|gateway, state| gateway.on_move(move |socket| call(state.clone(), socket)))
    }

    /// See [`Gateway::on_disconnect`].
    pub fn on_disconnect<F, Fut>(self, call: F) -> Self
    where
        F: Fn(S, SocketRef, DisconnectReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + 'static,
    {
        self.change(|gateway, state| {
            gateway.on_disconnect(move |socket, reason| call(state.clone(), socket, reason))
        })
    }

    /// See [`Gateway::on`].
    pub fn on<T, F, Fut>(self, name: &str, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(S, SocketRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        self.change(|gateway, state| {
            gateway.on(name, move |socket, payload| {
                handle(state.clone(), socket, payload)
            })
        })
    }

    /// See [`Gateway::on_other`].
    pub fn on_other<T, F, Fut>(self, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(S, SocketRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        self.change(|gateway, state| {
            gateway.on_other(move |socket, payload| handle(state.clone(), socket, payload))
        })
    }

    /// See [`Gateway::on_server`].
    pub fn on_server<T, F, Fut>(self, name: &str, handle: F) -> Self
    where
        T: FromEvent,
        F: Fn(S, NamespaceRef, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + 'static,
    {
        self.change(|gateway, state| {
            gateway.on_server(name, move |namespace, payload| {
                handle(state.clone(), namespace, payload)
            })
        })
    }

    /// See [`Gateway::middleware`].
    pub fn middleware<F, Fut>(self, check: F) -> Self
    where
        F: Fn(S, SocketRef, Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, HandlerError>> + 'static,
    {
        self.change(|gateway, state| {
            gateway.middleware(move |socket, event| check(state.clone(), socket, event))
        })
    }

    /// See [`Gateway::same_identity`], which tells from two answers of `authorize` alone.
    pub fn same_identity(
        self,
        is_same: impl Fn(&Value, &Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.change(|gateway, _| gateway.same_identity(is_same))
    }

    /// See [`Gateway::concurrent`].
    pub fn concurrent(self, at_a_time: NonZeroUsize) -> Self {
        self.change(|gateway, _| gateway.concurrent(at_a_time))
    }
}
