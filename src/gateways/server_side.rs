//! Events between servers: runs the handlers that gateways have for what other servers of the cluster emit.
//!
//! One actor per instance. Handlers run on its arbiter, which no client and no hub uses; they may await, and must not block.
//! Up to [`MAX_UNDER_WAY`] run at a time, with up to [`MAX_BYTES_UNDER_WAY`] of arguments; an event beyond that is dropped and counted,
//! since nobody can be held back: it came from Redis. Source: Socket.IO server API (`serverSideEmit`); wire.md 3.3 (type 6).

use std::{any::Any, cell::Cell, panic::AssertUnwindSafe, rc::Rc, sync::Arc};

use actix::{Actor, Context, Handler, Message};
use futures_util::future::FutureExt as _;

use super::{Event, Gateways, HandlerError, NamespaceRef, Reply};
use crate::{
    counters::{Counters, Limit},
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

/// Bytes of their arguments: 64 MiB. One event alone may exceed it.
pub const MAX_BYTES_UNDER_WAY: usize = 64 * 1024 * 1024;

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
    counters: Arc<Counters>,
    under_way: WorkCount,
    bytes_under_way: Rc<Cell<usize>>,
}

impl ServerSide {
    /// Returns an actor for the handlers of `gateways`, which send to clients by `hub`; what is dropped is counted in `counters`.
    pub fn new(gateways: Gateways, hub: HubRef, counters: Arc<Counters>) -> Self {
        Self {
            gateways,
            hub,
            counters,
            under_way: WorkCount::default(),
            bytes_under_way: Rc::default(),
        }
    }

    /// Returns whether an event must not be handled beside those that are.
    fn is_too_much(&self, args: &Args) -> bool {
        let num_bytes = self.bytes_under_way.get();
        *self.under_way.watch().borrow() >= MAX_UNDER_WAY
            || (num_bytes > 0 && num_bytes + args.len_bytes() > MAX_BYTES_UNDER_WAY)
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
        if self.is_too_much(&args) {
            self.counters.count(Limit::ServerEvents);
            // Without its name, which whoever floods us has chosen.
            return log::warn!(
                "too many handlers of server events run, or with too much: one of {namespace} is dropped"
            );
        }
        let num_bytes = args.len_bytes();
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
        let bytes_under_way = Rc::clone(&self.bytes_under_way);
        bytes_under_way.set(bytes_under_way.get() + num_bytes);
        actix_rt::spawn(async move {
            match AssertUnwindSafe(call).catch_unwind().await {
                Ok(outcome) => reply(outcome, answers),
                Err(panic) => log_panic(&name, &namespace, &*panic),
            }
            bytes_under_way.set(bytes_under_way.get() - num_bytes);
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

#[cfg(test)]
mod tests {
    use actix::Arbiter;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        gateways::{Ack, Gateway},
        hub::{state::State, testing::probe},
        socket_io::parser::Parser,
    };

    /// A bug: what handlers hold was bounded in number alone.
    #[actix::test]
    async fn events_beyond_what_handlers_may_hold_are_dropped_and_counted() {
        let arbiter = Arbiter::new();
        let (server_side, _) = probe();
        let (state, _) = State::new(Parser::Json, Arc::default(), server_side);
        let hub = HubRef::start(state, &arbiter.handle());
        let release = Arc::new(tokio::sync::Semaphore::new(0));
        let gateway = Gateway::new("/a").on_server("wait", {
            let release = Arc::clone(&release);
            move |_, _: Event| {
                let release = Arc::clone(&release);
                async move {
                    release.acquire().await.unwrap().forget();
                    Ack(1)
                }
            }
        });
        let mut gateways = Gateways::default();
        gateways.add(gateway);
        let counters = Arc::new(Counters::default());
        let actor = ServerSide::new(gateways, hub, Arc::clone(&counters)).start();
        let (answers, mut replies) = mpsc::unbounded_channel();
        let send = async |num_bytes: usize| {
            let json = format!(r#"["wait","{}"]"#, "x".repeat(num_bytes));
            let event = ServerEvent {
                namespace: "/a".into(),
                args: Args::from_parts(json.into(), Vec::new()),
                answers: Some(answers.clone()),
            };
            actor.send(event).await.unwrap();
            counters.get(Limit::ServerEvents)
        };
        assert_eq!(send(MAX_BYTES_UNDER_WAY + 1).await, 0, "alone it may");
        assert_eq!(send(1).await, 1);
        release.add_permits(1);
        replies.recv().await.unwrap();
        for num_dropped in [0, 0, 1] {
            assert_eq!(send(MAX_BYTES_UNDER_WAY * 2 / 5).await, 1 + num_dropped);
        }
        release.add_permits(2);
        replies.recv().await.unwrap();
        replies.recv().await.unwrap();
        assert_eq!(send(MAX_BYTES_UNDER_WAY).await, 2);
        arbiter.stop();
    }
}
