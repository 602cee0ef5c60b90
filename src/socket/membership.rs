//! One namespace that a client joined: its events wait here and are handled one after the other, or several at a time if the gateway
//! says so.
//!
//! Runs handlers, but sends nothing: outcomes go back to the actor. The queue is bounded by [`MAX_QUEUED_EVENTS`] and
//! [`MAX_QUEUED_BYTES`]: a client whose handlers are behind is not read from until they caught up.

use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytestring::ByteString;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    acks::{Acked, Awaited, Awaiter},
    disconnect::{CloseKind, DisconnectReason},
    dynamic::{Entered, InUse},
    portable::{PortableAdmission, PortableCall, PortableEvent, PortableMembership},
    record::JoinId,
    recovery::{Attempt, Restored, Standing},
    running::{Ended, MAX_RUNNING, Runners, Running},
};
use crate::{
    gateways::{
        ConnectRequest, Event, Gateway, HandlerError, Refusal, Reply, SocketRef,
        guard::guard,
        mail::{self, Sent},
    },
    socket_io::{
        args::Args,
        decoder::AckId,
        ids::{Namespace, Room},
    },
    telemetry,
};

/// Events of one client that may wait in one namespace before no more are read.
pub(super) const MAX_QUEUED_EVENTS: usize = 64;

/// Bytes of arguments, and of what a client brings to be let in, that may wait, or be handled beside another event, in all namespaces of
/// it before no more is read; the last may exceed it.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// What an event takes beside its name and arguments.
const EVENT_BYTES: usize = 256;

/// How many times as much may wait while a handler awaits an ack of this client: the ack stands behind events that cannot be
/// handled before it came, so the client is read from for longer.
pub(super) const BEHIND_AN_ACK: usize = 16;

/// What a membership that ended has still to do. Its events are counted by that itself, since it may outlive the session.
pub(super) struct WindingDown {
    pub(super) namespace: Namespace,
    pub(super) rest: JoinHandle<()>,
    /// Of its events that waited, or were handled beside another.
    pub(super) queued_bytes: usize,
}

/// A client whose wish to join is being judged.
pub(super) struct Admission {
    pub(super) entered: Entered,
    pub(super) gateway: Arc<Gateway>,
    /// What the client brings, for another instance to judge if the session moves meanwhile.
    auth: Option<ByteString>,
    /// Of the events of an earlier membership that come first.
    pub(super) bytes_before: usize,
    judging: LocalBoxFuture<'static, Result<Admitted, Refusal>>,
}

/// A client that may join.
pub(super) struct Admitted {
    /// What `authorize` returned.
    pub(super) authorized: Value,
    /// What the client had before, if it gets that back.
    pub(super) restored: Option<Box<Restored>>,
}

impl Admission {
    /// Asks the gateway, once `before` is over: what an earlier membership still has to do, see [`Membership::wind_down`]. If the
    /// gateway lets the client in, `attempt` is made to get its state back.
    pub(super) fn begin(
        entered: Entered,
        gateway: Arc<Gateway>,
        request: ConnectRequest,
        auth: Option<ByteString>,
        before: Option<WindingDown>,
        attempt: Option<Attempt>,
    ) -> Self {
        let bytes_before = before.as_ref().map_or(0, |before| before.queued_bytes);
        let judged = {
            let gateway = Arc::clone(&gateway);
            AssertUnwindSafe(async move { gateway.call_authorize(request).await }).catch_unwind()
        };
        let judging = {
            let namespace = entered.namespace.clone();
            let gateway = Arc::clone(&gateway);
            let about = gateway.about("authorize");
            about
                .scope(async move {
                    if let Some(before) = before {
                        // However it ended, it is over.
                        _ = before.rest.await;
                    }
                    let authorized = judged.await.unwrap_or_else(|panic| {
                        log_panic("authorize", &namespace, telemetry::panic_text(&*panic));
                        Err(Refusal::internal())
                    })?;
                    let restored = match attempt {
                        Some(attempt) => attempt.restore(&gateway, &authorized).await,
                        None => None,
                    };
                    Ok(Admitted {
                        authorized,
                        restored: restored.map(Box::new),
                    })
                })
                .boxed_local()
        };
        Self {
            entered,
            gateway,
            auth,
            bytes_before,
            judging,
        }
    }

    /// Returns the namespace.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.entered.namespace
    }

    /// Returns how many bytes the client brings.
    pub(super) fn queued_bytes(&self) -> usize {
        self.auth.as_deref().map_or(0, str::len)
    }

    /// Returns what another instance must know to judge it.
    pub(super) fn pack(&self) -> PortableAdmission {
        PortableAdmission {
            namespace: self.namespace().clone(),
            auth: self.auth.as_deref().map(str::to_owned),
        }
    }

    /// Has no verdict here any more.
    pub(super) fn put_off(mut self) -> Self {
        self.judging = std::future::pending().boxed_local();
        self
    }

    /// Returns the verdict.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Admitted, Refusal>> {
        self.judging.as_mut().poll(cx)
    }
}

/// What waits for its turn.
#[derive(Debug)]
enum Job {
    Connected,
    /// The session has come from another instance.
    Moved,
    Event {
        event: Event,
        ack: Option<AckId>,
    },
}

impl Job {
    /// Returns how many bytes it takes.
    fn held_bytes(&self) -> usize {
        match self {
            Self::Connected | Self::Moved => 0,
            Self::Event { event, .. } => EVENT_BYTES + event.name.len() + event.args.len_bytes(),
        }
    }
}

/// A handler that came to its end.
#[derive(Debug)]
pub(super) struct Done {
    /// The ack that it owes.
    pub(super) ack: Option<(AckId, Args)>,
    /// What it sent, as far as that may not have come back yet.
    pub(super) sent: Sent,
}

/// Returns whether a client should not be read from until the handlers of its namespaces caught up. `queued_bytes` wait for them, or
/// are handled beside others.
pub(super) fn are_behind(memberships: &mut [Membership], queued_bytes: usize) -> bool {
    let awaits_ack = memberships.iter_mut().any(Membership::awaits_acks);
    let factor = if awaits_ack { BEHIND_AN_ACK } else { 1 };
    queued_bytes >= MAX_QUEUED_BYTES * factor
        || memberships
            .iter()
            .any(|membership| membership.queue.len() >= MAX_QUEUED_EVENTS * factor)
}

/// A joined namespace.
pub(super) struct Membership {
    pub(super) join: JoinId,
    pub(super) socket: SocketRef,
    /// Until it has left, or is kept for it.
    pub(super) in_use: Option<Arc<InUse>>,
    gateway: Arc<Gateway>,
    queue: VecDeque<Job>,
    queued_bytes: usize,
    running: Runners,
    /// While `on_connect` runs, which comes before every event, whatever order the gateway gave up.
    is_connecting: bool,
    /// Events of ours that the client has yet to acknowledge.
    awaited: Awaited,
    has_heard_client: bool,
    /// Present as long as the client may come back.
    pub(super) standing: Option<Box<Standing>>,
}

impl Membership {
    /// Begins with the gateway's `on_connect`.
    pub(super) fn new(
        join: JoinId,
        socket: SocketRef,
        in_use: Option<Arc<InUse>>,
        gateway: Arc<Gateway>,
    ) -> Self {
        Self {
            join,
            socket,
            in_use,
            gateway,
            queue: VecDeque::from([Job::Connected]),
            queued_bytes: 0,
            running: Runners::default(),
            is_connecting: false,
            awaited: Awaited::default(),
            has_heard_client: false,
            standing: None,
        }
    }

    /// Returns how many bytes of events wait, or are handled beside another.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes + self.running.others_bytes()
    }

    /// Returns how many bytes of events wait or are handled. Of what is handled, one event is nothing that the client should wait for.
    pub(super) fn held_bytes(&self) -> usize {
        self.queued_bytes + self.running.held_bytes()
    }

    /// Returns whether the client has sent anything in the namespace since it joined.
    pub(super) fn has_heard_client(&self) -> bool {
        self.has_heard_client
    }

    /// Returns the namespace.
    pub(super) fn namespace(&self) -> &Namespace {
        self.socket.namespace()
    }

    /// Queues an event.
    pub(super) fn push(&mut self, event: Event, ack: Option<AckId>) {
        self.has_heard_client = true;
        let job = Job::Event { event, ack };
        self.queued_bytes += job.held_bytes();
        self.queue.push_back(job);
    }

    /// Notes that the client is to acknowledge `id`. Returns whether it may: not if it owes too many already.
    pub(super) fn await_ack(&mut self, id: AckId, awaiter: Awaiter) -> bool {
        self.awaited.insert(id, awaiter)
    }

    /// Notes an ack of the client. Returns who awaits it; an ack that nobody awaits is ignored, as in Node.
    pub(super) fn take_awaiter(&mut self, id: AckId) -> Option<Awaiter> {
        self.has_heard_client = true;
        self.awaited.take(id)
    }

    /// Runs handlers until all must wait or nothing is left. Returns each one that ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        loop {
            if let Poll::Ready(ended) = self.running.poll_next(cx) {
                let Ended {
                    ack,
                    has_waited,
                    outcome,
                    ..
                } = ended;
                self.is_connecting = false;
                let noted = mail::take();
                let sent = if has_waited { Sent::Told } else { noted };
                return Poll::Ready(Done {
                    ack: ack.map(|id| (id, ack_args(outcome))),
                    sent,
                });
            }
            let limit = if self.is_connecting {
                1
            } else {
                self.gateway.concurrency().min(MAX_RUNNING)
            };
            if self.running.len() >= limit {
                return Poll::Pending;
            }
            let Some(job) = self.queue.pop_front() else {
                if self.queue.capacity() > MAX_QUEUED_EVENTS / 4 {
                    self.queue = VecDeque::new();
                }
                return Poll::Pending;
            };
            self.queued_bytes -= job.held_bytes();
            self.is_connecting = matches!(job, Job::Connected);
            if let Some(running) = start(&self.gateway, &self.socket, job) {
                self.running.push(running);
            }
        }
    }

    /// Begins with what another instance knew of it. Of each handler that still runs there, `calls` is given the place in which its
    /// end is to be told; of each ack that is awaited there, `acks` is given the ack when it comes.
    pub(super) fn unpack(
        join: JoinId,
        socket: SocketRef,
        in_use: Option<Arc<InUse>>,
        gateway: Arc<Gateway>,
        packed: PortableMembership,
        mut calls: impl FnMut(u32, oneshot::Sender<Args>),
        mut acks: impl FnMut(AckId, oneshot::Receiver<Acked>),
    ) -> Self {
        let running = packed.running.iter().map(|packed| {
            let (done, outcome) = oneshot::channel();
            calls(packed.number, done);
            let call = async move {
                outcome
                    .await
                    .map_or(Err(HandlerError::failed()), |args| Ok(Reply(args)))
            };
            Running {
                number: 0,
                call: call.boxed_local(),
                ack: packed.ack,
                held_bytes: 0,
                has_waited: true,
            }
        });
        let awaited = packed.awaited.iter().map(|id| {
            let (reply, answer) = oneshot::channel();
            acks(*id, answer);
            (*id, Awaiter::One(reply))
        });
        let mut membership = Self {
            is_connecting: packed.running.iter().any(|call| call.is_connecting),
            running: running.collect(),
            awaited: awaited.collect(),
            has_heard_client: packed.has_heard_client,
            queue: VecDeque::new(),
            queued_bytes: 0,
            join,
            socket,
            in_use,
            gateway,
            standing: None,
        };
        membership.queue.push_back(if packed.is_new {
            Job::Connected
        } else {
            Job::Moved
        });
        for PortableEvent { name, args, ack } in packed.queue {
            let name = name.into();
            let job = Job::Event {
                event: Event { name, args },
                ack,
            };
            membership.queued_bytes += job.held_bytes();
            membership.queue.push_back(job);
        }
        membership
    }

    /// Returns what another instance must know to go on. Handlers that run stay, see [`Self::poll_left`].
    pub(super) fn pack(&mut self, rooms: HashSet<Room>) -> PortableMembership {
        let is_connecting = self.is_connecting;
        PortableMembership {
            namespace: self.namespace().clone(),
            id: self.socket.id().clone(),
            data: self.socket.data_text(),
            rooms,
            has_heard_client: self.has_heard_client,
            is_new: matches!(self.queue.front(), Some(Job::Connected)),
            running: self
                .running
                .iter_mut()
                .zip(0..)
                .map(|(running, number)| {
                    running.number = number;
                    PortableCall {
                        number,
                        ack: running.ack,
                        is_connecting,
                    }
                })
                .collect(),
            queue: self
                .queue
                .iter()
                .filter_map(|job| match job {
                    Job::Connected | Job::Moved => None,
                    Job::Event { event, ack } => Some(PortableEvent {
                        name: event.name.to_string(),
                        args: event.args.clone(),
                        ack: *ack,
                    }),
                })
                .collect(),
            awaited: self
                .awaited
                .iter()
                .filter(|(_, awaiter)| !awaiter.is_closed())
                .map(|(id, _)| *id)
                .collect(),
            standing: None,
        }
    }

    /// Forgets what has moved to another instance.
    pub(super) fn note_moved(&mut self) {
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
    }

    /// Runs what stayed when the rest moved to another instance. Returns each handler that ended: its number, and what it acknowledges.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<(u32, Args)> {
        let ended = self.running.poll_next(cx);
        ended.map(|ended| (ended.number, ack_args(ended.outcome)))
    }

    /// Cuts off what still runs of what stayed.
    pub(super) fn cut_off(&mut self) {
        if self.is_running() {
            self.running = Runners::default();
            log_cut_off(self.namespace());
        }
    }

    /// Returns whether handlers run.
    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Returns whether anybody awaits an ack of the client.
    pub(super) fn awaits_acks(&mut self) -> bool {
        self.awaited.is_anything_awaited()
    }

    /// Tells all who await acks that none will come.
    pub(super) fn forget_acks(&mut self) {
        self.awaited = Awaited::default();
    }

    /// Ends the membership: what runs and what waits is finished in the background, then the gateway is told.
    ///
    /// The client sent those events before it left, and a handler cut off half-way could leave an application's data
    /// half-written. Not so if a gateway ended it: then what waits is dropped, as in Node. Acks that are awaited can come
    /// no more, and those who await them are told at once. After `timeout` what still runs is cut off, and so is then what the gateway
    /// does. `work` is dropped when it is done. Returns what goes on, if anything does; nobody needs to await it.
    pub(super) fn wind_down(
        self,
        reason: DisconnectReason,
        timeout: Duration,
        work: impl Sized + 'static,
    ) -> Option<JoinHandle<()>> {
        let Self {
            socket,
            gateway,
            mut queue,
            running,
            awaited,
            ..
        } = self;
        drop(awaited);
        socket.note_left();
        match reason {
            DisconnectReason::ServerNamespaceDisconnect
            | DisconnectReason::Closed(CloseKind::ForcedServerClose) => queue.clear(),
            DisconnectReason::ClientNamespaceDisconnect | DisconnectReason::Closed(_) => {}
        }
        let call = |socket| gateway.call_on_disconnect(socket, reason);
        let on_disconnect = on("disconnect", &gateway, &socket, call, drop);
        if running.is_empty() && queue.is_empty() && on_disconnect.is_none() {
            return None;
        }
        Some(actix_rt::spawn(async move {
            let rest = async {
                futures_util::future::join_all(running.into_calls()).await;
                for job in queue {
                    if let Some(running) = start(&gateway, &socket, job) {
                        _ = running.call.await;
                    }
                }
            };
            if tokio::time::timeout(timeout, rest).await.is_err() {
                log_cut_off(socket.namespace());
            }
            if let Some(on_disconnect) = on_disconnect
                && tokio::time::timeout(timeout, on_disconnect).await.is_err()
            {
                let namespace = socket.namespace();
                log::warn!("the disconnect handler of {namespace} was cut off");
            }
            drop(work);
        }))
    }
}

/// Calls the handler of a job. `None` if there is none.
fn start(gateway: &Gateway, socket: &SocketRef, job: Job) -> Option<Running> {
    let own = socket.clone();
    let held_bytes = job.held_bytes();
    let (call, ack) = match job {
        Job::Connected => {
            let call = |socket| gateway.call_on_connect(socket);
            let connected = on("connect", gateway, socket, call, move |is_done| {
                if !is_done {
                    own.disconnect(false);
                }
                Ok(Reply::empty())
            });
            (connected?, None)
        }
        Job::Moved => {
            let call = |socket| gateway.call_on_move(socket);
            let moved = on("move", gateway, socket, call, |_| Ok(Reply::empty()));
            (moved?, None)
        }
        Job::Event { event, ack } => {
            let handler = gateway.handler(&event.name)?;
            let panicked = on_panic(event.name.clone(), socket);
            let handled = guard(
                handler.about,
                || Some(gateway.call_on_event(handler, own, event)),
                panicked,
                |outcome| outcome.unwrap_or_else(|| Err(HandlerError::failed())),
            );
            (handled?, ack)
        }
    };
    Some(Running {
        number: 0,
        call,
        ack,
        held_bytes,
        has_waited: false,
    })
}

/// Calls what the gateway has for something that happens to a socket: `what` is `connect`, `move` or `disconnect`. The log is told if it
/// failed; `end` is told whether it did not.
fn on<T: 'static>(
    what: &'static str,
    gateway: &Gateway,
    socket: &SocketRef,
    call: impl FnOnce(SocketRef) -> Option<LocalBoxFuture<'static, Result<(), String>>>,
    end: impl FnOnce(bool) -> T + 'static,
) -> Option<LocalBoxFuture<'static, T>> {
    let namespace = socket.namespace().clone();
    guard(
        gateway.about(what),
        || call(socket.clone()),
        on_panic(ByteString::from_static(what), socket),
        move |outcome| {
            // Of a panic the log knows already.
            if let Some(Err(err)) = &outcome {
                log::error!("on_{what} of {namespace} failed: {err}");
            }
            end(matches!(outcome, Some(Ok(()))))
        },
    )
}

/// Returns what is done about the panic of a handler.
fn on_panic(what: ByteString, socket: &SocketRef) -> impl FnOnce(&str) + 'static {
    let namespace = socket.namespace().clone();
    move |text| log_panic(&what, &namespace, text)
}

fn log_cut_off(namespace: &Namespace) {
    log::warn!("handlers of a client that left {namespace} were cut off");
}

fn log_panic(what: &str, namespace: &Namespace, text: &str) {
    log::error!("handler of {what:?} in {namespace} panicked: {text}");
}

fn ack_args(outcome: Result<Reply, HandlerError>) -> Args {
    outcome.map_or_else(HandlerError::into_ack, |Reply(args)| args)
}
