//! Events between servers: runs the handlers that gateways have for what other servers of the cluster emit.
//!
//! One actor per instance. Handlers run on its arbiter, which no client and no hub uses; they may await, and must not block.
//! Up to [`MAX_UNDER_WAY`] events are on their way to a handler or in one at a time, with up to [`MAX_BYTES_UNDER_WAY`] of arguments; one
//! beyond that is dropped by its sender, the hub, and counted: nobody can be held back, since it came from Redis, and a mailbox has no bound.
//! Source: Socket.IO server API (`serverSideEmit`); wire.md 3.3 (type 6).

use actix::{Actor, Context, Handler, Message, Recipient};

use super::{Event, Gateways, HandlerError, NamespaceRef, Reply, guard::guard};
use crate::{
    hub::{
        freight::{Freight, Load},
        hub_ref::HubRef,
        question::{Answer, Answers},
    },
    socket_io::{args::Args, decoder, ids::Namespace},
};

/// Events that may be on their way, or in handlers, at a time.
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
    /// What it counts for until its handler has ended.
    load: Load,
}

/// The event is too much beside those that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// The hub's way to a [`ServerSide`].
#[derive(Debug)]
pub struct Door {
    actor: Recipient<ServerEvent>,
    under_way: Freight,
}

impl Door {
    /// Returns a way that nobody has gone yet.
    pub fn new(actor: Recipient<ServerEvent>) -> Self {
        Self {
            actor,
            under_way: Freight::new(MAX_BYTES_UNDER_WAY, MAX_UNDER_WAY),
        }
    }

    /// Has an event handled; what its handler returns goes to `answers`.
    ///
    /// # Errors
    /// Too many are under way, or with too much: this one is dropped.
    pub fn send(
        &self,
        namespace: Namespace,
        args: Args,
        answers: Option<Answers>,
    ) -> Result<(), TooMuch> {
        let load = self.under_way.load(args.len_bytes()).ok_or(TooMuch)?;
        self.actor.do_send(ServerEvent {
            namespace,
            args,
            answers,
            load,
        });
        Ok(())
    }
}

/// Runs server-side handlers.
#[derive(Debug)]
pub struct ServerSide {
    gateways: Gateways,
    hub: HubRef,
}

impl ServerSide {
    /// Returns an actor for the handlers of `gateways`, which send to clients by `hub`.
    pub fn new(gateways: Gateways, hub: HubRef) -> Self {
        Self { gateways, hub }
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
            load,
        } = message;
        let name = match decoder::event_name(args.first().unwrap_or_default()) {
            Ok(name) => name,
            Err(err) => return log::debug!("an event of another server for {namespace}: {err}"),
        };
        let Some(gateway) = self.gateways.get(&namespace) else {
            return;
        };
        let Some(handler) = gateway.server_handler(&name) else {
            return;
        };
        let event = Event {
            name: name.clone(),
            args,
        };
        let own = NamespaceRef {
            namespace: namespace.clone(),
            hub: self.hub.clone(),
        };
        let handled = guard(
            handler.about,
            || Some(handler.call(own, event)),
            move |text| {
                log::error!("server-side handler of {name:?} in {namespace} panicked: {text}");
            },
            move |outcome| {
                if let Some(outcome) = outcome {
                    reply(outcome, answers);
                }
                drop(load);
            },
        );
        if let Some(handled) = handled {
            actix_rt::spawn(handled);
        }
    }
}

/// Tells what a handler returned. A server that wants a reply gets one from an error, too: it would wait for its time-out.
fn reply(outcome: Result<Reply, HandlerError>, answers: Option<Answers>) {
    let Some(answers) = answers else { return };
    let args = outcome.map_or_else(HandlerError::into_ack, |Reply(args)| args);
    _ = answers.send(Answer::ServerReply(args));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix::{Arbiter, AsyncContext as _};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::{
        counters::{Counters, Limit},
        gateways::{Ack, Gateway},
        hub::{
            command::Command,
            messages::{Answering, Reinject},
            question::Question,
            state::State,
            testing::probe,
        },
        socket_io::parser::Parser,
    };

    /// Starts a hub whose server-side handlers are those of `/a`.
    fn start(arbiter: &Arbiter, gateway: Gateway) -> (HubRef, Arc<Counters>) {
        let mut gateways = Gateways::default();
        gateways.add(gateway);
        let counters = Arc::new(Counters::default());
        let mut started = None;
        ServerSide::create(|ctx| {
            let server_side = ctx.address().recipient();
            let (mut state, _) = State::new(Parser::Json, Arc::default(), server_side);
            state.limit(1, Arc::clone(&counters));
            let hub = HubRef::start(state, &arbiter.handle());
            started = Some(hub.clone());
            ServerSide::new(gateways, hub)
        });
        (started.unwrap(), counters)
    }

    fn event(name: &str, num_bytes: usize) -> Args {
        let json = format!(r#"["{name}","{}"]"#, "x".repeat(num_bytes));
        Args::from_parts(json.into(), Vec::new())
    }

    /// A bug: what handlers hold was bounded in number alone.
    #[actix::test]
    async fn events_beyond_what_handlers_may_hold_are_dropped_and_counted() {
        let arbiter = Arbiter::new();
        let release = Arc::new(Semaphore::new(0));
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
        let (hub, counters) = start(&arbiter, gateway);
        let (answers, mut replies) = mpsc::unbounded_channel();
        let send = async |num_bytes: usize| {
            let question = Question::ServerEvent {
                args: event("wait", num_bytes),
            };
            let asked = Answering {
                namespace: "/a".into(),
                question,
                answers: answers.clone(),
                from: None,
            };
            hub.send(asked).await.unwrap();
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

    /// A bug: whatever came while handlers kept their thread waited before all bounds.
    #[actix::test]
    async fn events_that_wait_for_the_actor_count_like_those_in_handlers() {
        let arbiter = Arbiter::new();
        let counters = Arc::new(Counters::default());
        let (server_side, mut waiting) = probe();
        let (mut state, _) = State::new(Parser::Json, Arc::default(), server_side);
        state.limit(1, Arc::clone(&counters));
        let hub = HubRef::start(state, &arbiter.handle());
        let send = async || {
            let command = Command::ServerEvent {
                namespace: "/a".into(),
                args: event("any", 1),
            };
            hub.send(Reinject {
                command,
                from: None,
            })
            .await
            .unwrap();
            counters.get(Limit::ServerEvents)
        };
        for _ in 0..MAX_UNDER_WAY {
            assert_eq!(send().await, 0);
        }
        assert_eq!(send().await, 1);
        assert_eq!(send().await, 2);
        drop(waiting.recv().await.unwrap());
        assert_eq!(send().await, 2);
        assert_eq!(send().await, 3);
        arbiter.stop();
    }

    fn fail() {
        panic!("a test wants this");
    }

    #[actix::test]
    async fn whoever_panics_or_is_nobodys_counts_no_more() {
        let arbiter = Arbiter::new();
        let (unused, _) = probe();
        let (state, _) = State::new(Parser::Json, Arc::default(), unused);
        let hub = HubRef::start(state, &arbiter.handle());
        let mut gateways = Gateways::default();
        gateways.add(
            Gateway::new("/a")
                .on_server("panic", |_, _: Event| async { fail() })
                .on_server("panic-at-once", |_, _: Event| -> std::future::Ready<()> {
                    panic!("a test wants this")
                })
                .on_server("last", |_, _: Event| async { Ack(1) }),
        );
        let door = Door::new(ServerSide::new(gateways, hub).start().recipient());
        let (answers, mut replies) = mpsc::unbounded_channel();
        for name in ["panic", "panic-at-once", "of-nobody"] {
            let last = Some(answers.clone());
            door.send("/a".into(), event(name, 100), None).unwrap();
            door.send("/a".into(), event("last", 100), last).unwrap();
            assert_eq!(door.under_way.num(), 2);
            replies.recv().await.unwrap();
            assert_eq!(door.under_way.num(), 0, "{name}");
            assert_eq!(door.under_way.bytes(), 0);
        }
        arbiter.stop();
    }
}
