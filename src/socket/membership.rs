//! One namespace that a client joined: its events wait here and are handled one after the other.
//!
//! Runs handlers, but sends nothing: outcomes go back to the actor. The queue is bounded by [`MAX_QUEUED_EVENTS`] and
//! [`MAX_QUEUED_BYTES`]: a client whose handlers are behind is not read from until they caught up.

use std::{
    any::Any,
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;

use super::disconnect::DisconnectReason;
use crate::{
    gateways::{ConnectRequest, Event, Gateway, HandlerError, Refusal, Reply, SocketRef},
    hub::messages::JoinId,
    socket_io::{args::Args, decoder::AckId, ids::Namespace},
};

/// Events of one client that may wait in one namespace before no more are read.
const MAX_QUEUED_EVENTS: usize = 64;

/// Bytes of arguments that may wait in one namespace before no more events are read; the last event may exceed it.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// A client whose wish to join is being judged.
pub(super) struct Admission {
    pub(super) gateway: Arc<Gateway>,
    judging: LocalBoxFuture<'static, Result<Value, Refusal>>,
}

impl Admission {
    /// Asks the gateway.
    pub(super) fn begin(gateway: Arc<Gateway>, request: ConnectRequest) -> Self {
        let judged = {
            let gateway = Arc::clone(&gateway);
            AssertUnwindSafe(async move { gateway.call_authorize(request).await }).catch_unwind()
        };
        let namespace = gateway.namespace().clone();
        let judging = async move {
            judged.await.unwrap_or_else(|panic| {
                log_panic("authorize", &namespace, &*panic);
                Err(Refusal {
                    message: "Internal server error".to_owned(),
                    data: Some(serde_json::json!({ "code": "internal" })),
                })
            })
        }
        .boxed_local();
        Self { gateway, judging }
    }

    /// Returns the verdict.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Value, Refusal>> {
        self.judging.as_mut().poll(cx)
    }
}

/// What waits for its turn.
#[derive(Debug)]
enum Job {
    Connected,
    Event { event: Event, ack: Option<AckId> },
}

impl Job {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Connected => 0,
            Self::Event { event, .. } => event.args.len_bytes(),
        }
    }
}

type Running = LocalBoxFuture<'static, Result<Reply, HandlerError>>;

/// An ack that is due.
#[derive(Debug)]
pub(super) struct DueAck {
    pub(super) id: AckId,
    pub(super) args: Args,
}

/// A joined namespace.
pub(super) struct Membership {
    pub(super) join: JoinId,
    pub(super) socket: SocketRef,
    gateway: Arc<Gateway>,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    running: Option<(Running, Option<AckId>)>,
}

impl Membership {
    /// Begins with the gateway's `on_connect`.
    pub(super) fn new(join: JoinId, socket: SocketRef, gateway: Arc<Gateway>) -> Self {
        Self {
            join,
            socket,
            gateway,
            queue: VecDeque::from([Job::Connected]),
            queued_bytes: 0,
            running: None,
        }
    }

    /// Returns the namespace.
    pub(super) fn namespace(&self) -> &Namespace {
        self.socket.namespace()
    }

    /// Queues an event.
    pub(super) fn push(&mut self, event: Event, ack: Option<AckId>) {
        let job = Job::Event { event, ack };
        self.queued_bytes += job.len_bytes();
        self.queue.push_back(job);
    }

    /// Returns whether no more events should be read from the client.
    pub(super) fn is_saturated(&self) -> bool {
        self.queue.len() >= MAX_QUEUED_EVENTS || self.queued_bytes >= MAX_QUEUED_BYTES
    }

    /// Runs handlers until one must wait or nothing is left. Returns each call that ended, with the ack that it owes.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<DueAck>> {
        loop {
            if let Some((running, ack)) = &mut self.running {
                let ack = *ack;
                let Poll::Ready(outcome) = running.as_mut().poll(cx) else {
                    return Poll::Pending;
                };
                self.running = None;
                return Poll::Ready(ack.map(|id| DueAck {
                    id,
                    args: ack_args(outcome),
                }));
            }
            let Some(job) = self.queue.pop_front() else {
                if self.queue.capacity() > MAX_QUEUED_EVENTS / 4 {
                    self.queue = VecDeque::new();
                }
                return Poll::Pending;
            };
            self.queued_bytes -= job.len_bytes();
            self.running = start(&self.gateway, &self.socket, job);
        }
    }

    /// Ends the membership: what runs and what waits is finished in the background, then the gateway is told.
    ///
    /// The client sent those events before it left, and a handler cut off half-way could leave an application's data
    /// half-written.
    pub(super) fn wind_down(self, reason: DisconnectReason) {
        let Self {
            socket,
            gateway,
            queue,
            running,
            ..
        } = self;
        let on_disconnect = {
            let gateway = Arc::clone(&gateway);
            let socket = socket.clone();
            guard("disconnect", &socket.clone(), move || {
                gateway.call_on_disconnect(socket, reason)
            })
        };
        if running.is_none() && queue.is_empty() && on_disconnect.is_none() {
            return;
        }
        actix_rt::spawn(async move {
            if let Some((running, _)) = running {
                _ = running.await;
            }
            for job in queue {
                if let Some((running, _)) = start(&gateway, &socket, job) {
                    _ = running.await;
                }
            }
            if let Some(on_disconnect) = on_disconnect {
                on_disconnect.await;
            }
        });
    }
}

/// Calls the handler of a job. `None` if there is none.
fn start(gateway: &Arc<Gateway>, socket: &SocketRef, job: Job) -> Option<(Running, Option<AckId>)> {
    match job {
        Job::Connected => {
            let gateway = Arc::clone(gateway);
            let own = socket.clone();
            let connected = guard("connect", socket, move || gateway.call_on_connect(own))?;
            Some((connected.map(|_| Ok(Reply::Empty)).boxed_local(), None))
        }
        Job::Event { event, ack } => {
            let name = event.name.clone();
            let own = socket.clone();
            let gateway = Arc::clone(gateway);
            let handled = guard(&name, socket, move || gateway.call_on_event(own, event))?;
            let handled =
                handled.map(|outcome| outcome.unwrap_or_else(|| Err(HandlerError::internal())));
            Some((handled.boxed_local(), ack))
        }
    }
}

/// Makes a call whose panic, in the closure or in its future, ends nothing but the call: it becomes `None`.
fn guard<T: 'static>(
    what: &str,
    socket: &SocketRef,
    call: impl FnOnce() -> Option<LocalBoxFuture<'static, T>>,
) -> Option<LocalBoxFuture<'static, Option<T>>> {
    let what = what.to_owned();
    let namespace = socket.namespace().clone();
    let future = match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(future) => future?,
        Err(panic) => {
            log_panic(&what, &namespace, &*panic);
            return Some(std::future::ready(None).boxed_local());
        }
    };
    Some(
        AssertUnwindSafe(future)
            .catch_unwind()
            .map(move |outcome| {
                outcome
                    .map_err(|panic| log_panic(&what, &namespace, &*panic))
                    .ok()
            })
            .boxed_local(),
    )
}

fn log_panic(what: &str, namespace: &Namespace, panic: &(dyn Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    log::error!("handler of {what:?} in {namespace} panicked: {text}");
}

fn ack_args(outcome: Result<Reply, HandlerError>) -> Args {
    let value = match outcome {
        Ok(Reply::Args(args)) => return args,
        Ok(Reply::Empty) => return Args::from_parts("[]".into(), Vec::new()),
        Ok(Reply::Value(value)) => value,
        Err(err) => serde_json::json!({ "error": { "code": err.code, "message": err.message } }),
    };
    Args::ack(&[value]).unwrap_or_else(|err| {
        // A `Value` always serialises; an empty ack is still an answer.
        log::error!("ack does not serialise: {err}");
        Args::from_parts("[]".into(), Vec::new())
    })
}
