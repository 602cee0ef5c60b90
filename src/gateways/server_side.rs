//! Events between servers: runs the handlers that gateways have for what other servers of the cluster emit.
//!
//! One actor per instance. Handlers run on its arbiter, which no client and no hub uses; they may await, and must not block.
//! Up to [`MAX_UNDER_WAY`] run at a time; an event beyond that is dropped, since nobody can be held back: it came
//! from Redis. Source: Socket.IO server API (`serverSideEmit`); wire.md 3.3 (type 6).

use std::{any::Any, panic::AssertUnwindSafe};

use actix::{Actor, Context, Handler, Message};
use futures_util::future::FutureExt as _;

use super::{Event, Gateways, HandlerError, NamespaceRef, Reply};
use crate::{
    hub::{
        hub_ref::HubRef,
        question::{Answer, Answers},
    },
    socket::work::WorkCount,
    socket_io::{args::Args, decoder, ids::Namespace},
    telemetry,
};

/// Handlers that may run at a time.
pub const MAX_UNDER_WAY: usize = 1024;

/// An event of another server. From the hub.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ServerEvent {
    /// The namespace whose gateway has the handler.
    pub namespace: Namespace,
    /// Event name and arguments.
    pub args: Args,
    /// Where the reply goes, if the other server wants one.
    pub answers: Option<Answers>,
}

/// Runs server-side handlers.
#[derive(Debug)]
pub struct ServerSide {
    gateways: Gateways,
    hub: HubRef,
    under_way: WorkCount,
    has_dropped: bool,
}

impl ServerSide {
    /// Returns an actor for the handlers of `gateways`, which send to clients by `hub`.
    pub fn new(gateways: Gateways, hub: HubRef) -> Self {
        Self {
            gateways,
            hub,
            under_way: WorkCount::default(),
            has_dropped: false,
        }
    }
}

impl Actor for ServerSide {
    type Context = Context<Self>;
}

impl Handler<ServerEvent> for ServerSide {
    type Result = ();

    fn handle(&mut self, message: ServerEvent, _: &mut Self::Context) {
        let ServerEvent {
            namespace,
            args,
            answers,
        } = message;
        let name = match decoder::event_name(args.first().unwrap_or_default()) {
            Ok(name) => name,
            Err(err) => return log::debug!("an event of another server for {namespace}: {err}"),
        };
        let Some(gateway) = self.gateways.get(&namespace) else {
            return;
        };
        if *self.under_way.watch().borrow() >= MAX_UNDER_WAY {
            // Once, and without its name: whoever floods us must not flood the log.
            if !std::mem::replace(&mut self.has_dropped, true) {
                log::warn!(
                    "{MAX_UNDER_WAY} handlers of server events run: one of {namespace} is dropped"
                );
            }
            return;
        }
        let event = Event {
            name: name.clone(),
            args,
        };
        let own = NamespaceRef {
            namespace: namespace.clone(),
            hub: self.hub.clone(),
        };
        let call = AssertUnwindSafe(|| gateway.call_on_server(own, event));
        let call = std::panic::catch_unwind(call);
        let call = match call {
            Ok(Some(call)) => call,
            Ok(None) => return,
            Err(panic) => return log_panic(&name, &namespace, &*panic),
        };
        let work = self.under_way.begin();
        actix_rt::spawn(async move {
            match AssertUnwindSafe(call).catch_unwind().await {
                Ok(outcome) => reply(outcome, answers),
                Err(panic) => log_panic(&name, &namespace, &*panic),
            }
            drop(work);
        });
    }
}

/// Tells what a handler returned. A server that wants a reply gets one from an error, too: it would wait for its time-out.
fn reply(outcome: Result<Reply, HandlerError>, answers: Option<Answers>) {
    let Some(answers) = answers else { return };
    let args = outcome.map_or_else(HandlerError::into_ack, |Reply(args)| args);
    _ = answers.send(Answer::ServerReply(args));
}

fn log_panic(name: &str, namespace: &Namespace, panic: &(dyn Any + Send)) {
    let text = telemetry::panic_text(panic);
    log::error!("server-side handler of {name:?} in {namespace} panicked: {text}");
}
