//! The Socket actor: one client session, from its handshake to its one end.
//!
//! Everything that concerns the client passes here: packets in, messages out, deadlines, handlers. One future, `Drive`,
//! is polled after the mailbox was drained, so all that is due at one moment leaves in one write; what others send comes by the
//! inbox, and most of it needs no turn of the task.
//!
//! ```text
//! mailbox (Poll, Post, Upgrade, …), inbox (Deliver, Disconnect, …) ──▶ outbox
//! Drive: flush ▸ admissions ▸ handlers ▸ input ▸ probe ▸ flush ▸ deadlines     until nothing moves
//! ```
//! `Socket::end` is the only way to end a session; how one comes from another instance and goes to one stands in `moves`.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future as _,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{Arc, atomic::AtomicBool},
    task::{Context as TaskContext, Poll as Ready, Waker},
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext as _, ActorFuture, Addr, AsyncContext as _, Context, Handler};
use bytes::Bytes;
use tokio::{sync::watch, time::Sleep};

mod moves;
#[cfg(test)]
mod tests;

use self::moves::Moving;
pub use self::moves::Newcomer;
use super::{
    acks::{AckIds, Acked, Awaiter},
    backlogs::{Backlogs, Held, HeldBody, Share},
    clock::{Clock, Due},
    depot::{Inbox, Receive},
    disconnect::{CloseReason, DisconnectReason},
    dynamic::{DynamicNamespaces, Entered, Full},
    endpoint::{Endpoint, Layer},
    give_way::give_way,
    handshake::Handshake,
    lane::LaneRef,
    membership::{self, Admission, Admitted, Done, Membership, WindingDown},
    messages::{
        Abandon, DeliverWithAck, Emit, EmitWithAck, ForSocket, Poll, PollAnswer, Post, PostAnswer,
        Stop, Upgrade, What,
    },
    outbox::{Outbox, Overflow},
    polling::{FromPost, Polling},
    rate::{Rate, Verdict},
    record::{JoinId, Record, Recoverable},
    recovery::{self, Attempt, Back, Recovery, Restored, Standing},
    sessions::{Session, Sessions},
    websocket_transport::{FromWebSocket, NOOP_INTERVAL, Probe, ProbeEvent, WebSocketTransport},
    work::WorkCount,
};
use crate::{
    config::{EngineConfig, Limits},
    counters::{Counters, Limit},
    engine_io::{
        dialect::{Dialect, Revision},
        encoded::{self, Encoded, PollingBody},
        handshake::TransportName,
        open,
        packet::{Message, Packet},
        sid::{InstanceId, Sid},
    },
    gateways::{
        ConnectRequest, Event, Gateway, Gateways, HandlerError, Refusal, SocketRef, mail::Sent,
    },
    hub::{
        ahead::Ticket,
        hub_ref::HubRef,
        interest::Interest,
        messages::Register,
        recovery::{EmitToOne, Note, Resume},
    },
    relay::Relay,
    slots::{Slot, Slots},
    socket_io::{
        args::Args,
        decoder::{Decoder, Packet as SioPacket},
        encode,
        ids::{Namespace, SocketId},
        legacy,
        parser::Parser,
        recovery::Claim,
    },
    telemetry::with_causes,
    websocket::{close::CloseFrame, connection::Connection},
};

/// Namespaces that one client may be in at a time, or be waiting to join: patterns let clients invent names.
pub const MAX_NAMESPACES: usize = 100;

/// Namespaces that one client may be waiting to join at a time before it is not read from.
const MAX_ADMISSIONS: usize = 16;

/// Memberships of one client that may have ended and still have handlers running before it is not read from: leaving must not be
/// a way around waiting for them.
const MAX_WINDING_DOWN: usize = 16;

/// How long at most a polling client that was ended has to fetch the close packet.
const CLOSE_FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a polling client that sent the close packet may still fetch the noop that releases its GET. The two travel on
/// different connections, so the GET may be the slower one.
const LATE_GET_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is tried whether a message may be read on for which too little was left.
const HELD_UP_INTERVAL: Duration = Duration::from_millis(100);

/// Rounds of [`Socket::drive`] before other tasks of the arbiter get their turn.
const MAX_ROUNDS: usize = 16;

/// Packets taken from one client in one round, so that its answers leave in between.
const MAX_PACKETS_PER_ROUND: usize = 64;

/// What every session of an instance shares.
#[derive(Debug)]
pub struct Services {
    /// This instance.
    pub instance: InstanceId,
    /// Time-outs and limits.
    pub config: EngineConfig,
    /// What clients may take of the instance.
    pub limits: Limits,
    /// The sessions that each address has.
    pub by_address: Arc<Slots>,
    /// The namespaces that clients have named.
    pub dynamic_namespaces: Arc<DynamicNamespaces>,
    /// How often each limit was met.
    pub counters: Arc<Counters>,
    /// What waits for all clients together.
    pub backlogs: Arc<Backlogs>,
    /// The form of Socket.IO packets.
    pub parser: Parser,
    /// The application.
    pub gateways: Gateways,
    /// Membership and broadcasts.
    pub hub: HubRef,
    /// The hub's membership, as the bridge sees it.
    pub interest: Interest,
    /// Numbers for acks, shared with the hub.
    pub ack_ids: Arc<AckIds>,
    /// Every session.
    pub sessions: Sessions,
    /// Passes requests on to the instances that have their sessions; none, if this one is alone.
    pub relay: Option<Arc<Relay>>,
    /// The paths that speak Engine.IO.
    pub endpoints: Vec<Endpoint>,
    /// What goes on after clients have left.
    pub work: WorkCount,
    /// Present if clients may come back to what they had.
    pub recovery: Option<Recovery>,
    /// Set when the instance begins to stop: no session is opened any more.
    pub is_stopping: AtomicBool,
}

/// A namespace in which a session of another instance may be here.
#[derive(Debug)]
pub(crate) struct Admittance {
    gateway: Arc<Gateway>,
    entered: Entered,
}

impl Admittance {
    /// Returns which.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.entered.namespace
    }
}

/// Why it may not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// The instances are of different applications.
    #[error("one of its namespaces has no gateway here")]
    NoGateway,
    /// There are as many dynamic ones as there may be.
    #[error(transparent)]
    Full(#[from] Full),
}

impl Services {
    /// Returns the empty outbox of a client, with both its limits.
    fn outbox(&self) -> Outbox {
        Outbox::new(self.config.backlog_bytes()).among(&self.backlogs)
    }

    /// Lets a session that comes from another instance into one of its namespaces.
    ///
    /// # Errors
    /// It cannot be in that here.
    pub(crate) fn admit(&self, namespace: &Namespace) -> Result<Admittance, NotAdmitted> {
        let gateway = self.gateways.get(namespace).ok_or(NotAdmitted::NoGateway)?;
        Ok(Admittance {
            entered: self.dynamic_namespaces.enter(gateway, namespace)?,
            gateway: Arc::clone(gateway),
        })
    }
}

#[derive(Debug)]
enum Transport {
    Polling(Polling),
    WebSocket(WebSocketTransport),
}

/// How far the session's end has come.
#[derive(Debug)]
enum Phase {
    Open,
    /// Ended, but a polling client has yet to fetch these payloads, one with each GET.
    Closing(VecDeque<HeldBody>),
    /// Packed up and sent to another instance, which has not said yet that it has it.
    Leaving,
    /// At another instance. What cannot move comes to its end here.
    Left,
    Closed,
}

/// What handlers of this client have sent and may not be in its inbox yet.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Nothing,
    /// On its way to the hub.
    Hub(Ticket),
    /// Sent, and not yet in an inbox.
    Inbox(u64),
}

/// What was sent to a session before its end, as far as it may have to be kept.
#[derive(Clone, Copy, Debug)]
enum LastCall {
    Open,
    Called,
    Answered,
}

/// Who a client is in a namespace that it joins.
struct Ids {
    socket_id: SocketId,
    standing: Option<Box<Standing>>,
    /// What it gets back, if it is one that was there before.
    back: Option<Back>,
}

/// What sessions begin with, each its own. All else is the same for all.
struct Beginning {
    sid: Sid,
    layer: Layer,
    handshake: Arc<Handshake>,
    transport: Transport,
    outbox: Outbox,
    decoder: Decoder,
    clock: Clock,
    slot: Slot,
}

/// One client session.
pub struct Socket {
    sid: Sid,
    services: Arc<Services>,
    layer: Layer,
    handshake: Arc<Handshake>,
    /// What the HTTP layer sees of this session.
    session: Arc<Session>,
    /// The way by which hub and gateways reach it.
    inbox: Inbox,
    /// Of its actor's task, once that has run.
    waker: Option<Waker>,
    /// Whether something has come by the inbox that its task has to look after.
    needs_turn: bool,
    has_panicked: bool,
    phase: Phase,
    transport: Transport,
    probe: Option<Probe>,
    outbox: Outbox,
    decoder: Decoder,
    /// What the transport and the decoder hold, and what waits for handlers or is handled.
    inbound: Share,
    /// Whether a message is not read on, because too little is left for all. Nobody is held up for longer than a heartbeat: the pong
    /// would have to come behind the message.
    is_held_up: bool,
    rate: Rate,
    admissions: Vec<Admission>,
    memberships: Vec<Membership>,
    /// Memberships that ended and whose handlers still run.
    winding_down: Vec<WindingDown>,
    next_join: u32,
    clock: Clock,
    timer: Pin<Box<Sleep>>,
    /// What handlers have sent and no ack may overtake.
    behind: Behind,
    /// Whether handlers have to wait until that is there.
    are_handlers_held: bool,
    /// Whether a handler came to its end since the last pong was due.
    have_handlers_moved: bool,
    /// Whether the client is not read from because too much waits for it.
    is_congested: bool,
    /// What stood in its outbox when its heartbeat was last awaited anew.
    awaited_behind: u64,
    /// Whether what was sent to it before its end is being waited for.
    last_call: LastCall,
    /// Of a session that is moving to another instance, or has come from one.
    moving: Option<Box<Moving>>,
}

impl Socket {
    /// Opens a session on polling. The caller writes the open packet, which it gets back with the `sid`'s actor running.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn open_polling(
        services: &Arc<Services>,
        layer: Layer,
        handshake: Handshake,
        dialect: Dialect,
        slot: Slot,
    ) -> Result<PollingBody, getrandom::Error> {
        let sid = Sid::random(services.instance)?;
        let transport = Transport::Polling(Polling::new(dialect.revision));
        let outbox = services.outbox().in_dialect(dialect);
        Self::begin(services, sid, layer, handshake, transport, outbox, slot);
        let open = Encoded::new(&open::encode(&sid, &services.config, true), &[]);
        Ok(open.polling_in(dialect))
    }

    /// Opens a session on a WebSocket. `answer` is the 101, which leaves in one write with the open packet.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn open_websocket(
        services: &Arc<Services>,
        layer: Layer,
        handshake: Handshake,
        dialect: Dialect,
        connection: Connection,
        answer: Bytes,
        slot: Slot,
    ) -> Result<(), getrandom::Error> {
        let sid = Sid::random(services.instance)?;
        let mut outbox = Outbox::with_answer(services.config.backlog_bytes(), answer)
            .among(&services.backlogs)
            .in_dialect(dialect);
        let open = Encoded::new(&open::encode(&sid, &services.config, false), &[]);
        // Far below the limit.
        _ = outbox.push(open);
        let websocket = WebSocketTransport::new(connection, dialect.revision);
        let transport = Transport::WebSocket(websocket);
        Self::begin(services, sid, layer, handshake, transport, outbox, slot);
        Ok(())
    }

    /// Starts the actor. The session can be found when this returns: the client's next request may come to another
    /// worker before the actor's first turn.
    fn begin(
        services: &Arc<Services>,
        sid: Sid,
        layer: Layer,
        handshake: Handshake,
        transport: Transport,
        outbox: Outbox,
        slot: Slot,
    ) {
        let revision = outbox.dialect().revision;
        let mut clock = Clock::new(Instant::now(), &services.config, revision);
        if let Layer::Bare(_) = layer {
            // There is no namespace that could be joined.
            clock.joined();
        }
        let beginning = Beginning {
            sid,
            layer,
            handshake: Arc::new(handshake),
            transport,
            outbox,
            decoder: Decoder::new(services.parser, services.config.max_payload),
            clock,
            slot,
        };
        SocketActor::create(|ctx| {
            SocketActor::of(services, |inbox| {
                Self::new(services, ctx.address(), inbox, beginning)
            })
        });
    }

    /// Returns a session that is in no namespace, and lets it be found.
    fn new(
        services: &Arc<Services>,
        actor: Addr<SocketActor>,
        inbox: Inbox,
        beginning: Beginning,
    ) -> Self {
        let Beginning {
            sid,
            layer,
            handshake,
            transport,
            outbox,
            decoder,
            clock,
            slot,
        } = beginning;
        let name = match &transport {
            Transport::Polling(_) => TransportName::Polling,
            Transport::WebSocket(_) => TransportName::WebSocket,
        };
        let revision = outbox.dialect().revision;
        let own = inbox.address();
        Self {
            sid,
            services: Arc::clone(services),
            layer,
            handshake,
            session: services
                .sessions
                .insert(sid, actor, own, name, revision, slot),
            inbox,
            waker: None,
            needs_turn: false,
            has_panicked: false,
            phase: Phase::Open,
            transport,
            probe: None,
            outbox,
            decoder,
            rate: Rate::new(Instant::now()),
            admissions: Vec::new(),
            memberships: Vec::new(),
            winding_down: Vec::new(),
            next_join: 0,
            clock,
            timer: Box::pin(tokio::time::sleep_until(clock.next().into())),
            behind: Behind::Nothing,
            inbound: Share::new(&services.backlogs),
            is_held_up: false,
            are_handlers_held: false,
            have_handlers_moved: false,
            is_congested: false,
            awaited_behind: 0,
            last_call: LastCall::Open,
            moving: None,
        }
    }

    /// Does all that can be done now, and counts what is left of what the client sent. Ready once the session is over.
    fn drive(&mut self, cx: &mut TaskContext<'_>) -> Ready<()> {
        let driven = self.drive_on(cx);
        let held = self.memberships.iter().map(Membership::held_bytes);
        let handled = held.sum::<usize>() + self.joining_bytes();
        let len = self.unfinished_bytes() + self.unseen_bytes() + handled;
        self.inbound.set(len);
        driven
    }

    fn drive_on(&mut self, cx: &mut TaskContext<'_>) -> Ready<()> {
        if self.has_panicked {
            return Ready::Ready(());
        }
        let waker = cx.waker();
        if !self.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        for _ in 0..MAX_ROUNDS {
            match self.phase {
                Phase::Open => {}
                Phase::Closing(_) => return self.timer.as_mut().poll(cx),
                Phase::Leaving | Phase::Left => return self.poll_left(cx),
                Phase::Closed => return Ready::Ready(()),
            }
            if self.poll_arriving(cx).is_pending() {
                return Ready::Pending;
            }
            // First, so that the answer to a handshake leaves before anything of the client is judged.
            let mut moved = self.flush(cx);
            moved |= self.poll_admissions(cx);
            moved |= self.poll_memberships(cx);
            moved |= self.poll_winding_down(cx);
            moved |= self.poll_input(cx);
            moved |= self.poll_probe(cx);
            moved |= self.poll_moving(cx);
            moved |= self.flush(cx);
            // Last: what has arrived counts before the time is up, however late this thread gets to read it.
            moved |= self.poll_timer(cx);
            if !moved {
                return Ready::Pending;
            }
        }
        give_way(cx);
        Ready::Pending
    }

    // ---- deadlines ----

    fn poll_timer(&mut self, cx: &mut TaskContext<'_>) -> bool {
        if !matches!(self.phase, Phase::Open) {
            // The timer serves the end now.
            return true;
        }
        let mut next = self.clock.next();
        if let Some(probe) = &self.probe {
            next = next
                .min(probe.deadline)
                .min(probe.noop_at.unwrap_or(probe.deadline));
        }
        if let Some(Moving::Out(out)) = self.moving.as_deref() {
            next = next.min(out.next());
        }
        if self.is_held_up {
            // Nobody wakes it when others have let go of something.
            next = next.min(Instant::now() + HELD_UP_INTERVAL);
        }
        if self.timer.deadline() != next.into() {
            self.timer.as_mut().reset(next.into());
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = Instant::now();
        self.do_what_is_due(now);
        if let Some(probe) = &mut self.probe {
            if probe.deadline <= now {
                self.drop_probe(&CloseFrame::BARE);
            } else if probe.noop_at.is_some_and(|at| at <= now) {
                probe.noop_at = Some(now + NOOP_INTERVAL);
                self.release_poll();
            }
        }
        self.do_what_is_due_elsewhere(now);
        true
    }

    fn do_what_is_due(&mut self, now: Instant) {
        // A handle of its own: what follows changes the socket.
        let services = Arc::clone(&self.services);
        let config = &services.config;
        match self.clock.due(now, config) {
            Some(Due::PingTimeout) if self.may_pong_lie_unread() => {
                self.clock.await_anew(now, config);
                self.note_awaited();
            }
            Some(Due::Ping) => {
                self.push(encoded::ping());
                self.note_awaited();
            }
            Some(Due::PingTimeout) => self.end(CloseReason::PingTimeout),
            Some(Due::ConnectTimeout) => {
                if self.is_main_missing() {
                    let main = Namespace::main();
                    self.refuse_unasked(&main, "Invalid namespace");
                }
                self.end(CloseReason::ConnectTimeout);
            }
            Some(Due::WriteTimeout) => {
                let heartbeat = config.ping_interval + config.ping_timeout;
                let limit = services.limits.write_timeout.max(heartbeat);
                self.end(CloseReason::WriteTimeout { limit });
            }
            // They may lie unread, too.
            Some(Due::AttachmentTimeout) if self.is_saturated() => {
                self.clock.await_attachments(now, config);
            }
            Some(Due::AttachmentTimeout) => {
                let limit = config.body_timeout;
                self.end(CloseReason::AttachmentTimeout { limit });
            }
            None => {}
        }
    }

    /// Returns whether the pong that is due may lie unread because we did not read, and the client seems to be there all the same: handlers
    /// have come to an end, or it took all that stood before the ping. Otherwise nobody could tell a client that waits from one that
    /// is gone.
    fn may_pong_lie_unread(&mut self) -> bool {
        let is_behind = self.are_handlers_behind() && std::mem::take(&mut self.have_handlers_moved);
        is_behind || (self.is_congested && self.outbox.has_passed(self.awaited_behind))
    }

    /// Notes what stands before what is awaited of the client from now on.
    fn note_awaited(&mut self) {
        self.awaited_behind = self.outbox.mark();
    }

    // ---- what it is told ----

    /// Returns whether all that was sent to a session before its end has come. Handlers may have sent something in this very turn, and
    /// the client may come back for it.
    fn has_called_last(&mut self) -> bool {
        if self.services.recovery.is_none() {
            return true;
        }
        if let LastCall::Open = self.last_call {
            self.last_call = LastCall::Called;
            // By way of the hub, which has been told before that the client is away.
            let message = ForSocket::for_session(What::LastCall);
            self.services.hub.forward(&self.inbox.address(), message);
        }
        matches!(self.last_call, LastCall::Answered)
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Lends the depot the way past this socket, or takes it back. After all that may have changed whether anything waits for the client.
    fn lend(&self) {
        self.inbox.lend(self.lane());
    }

    fn lane(&self) -> Option<LaneRef<'_>> {
        let (Phase::Open, Transport::WebSocket(websocket)) = (&self.phase, &self.transport) else {
            return None;
        };
        if !self.outbox.is_empty() || self.is_arriving() || self.has_panicked {
            return None;
        }
        // What can be sent again is noted for each client.
        let memberships = self.memberships.iter();
        let joins = memberships.filter(|membership| membership.standing.is_none());
        Some(LaneRef {
            stream: websocket.stream(),
            dialect: self.outbox.dialect(),
            joins: joins.map(|membership| membership.join).collect(),
        })
    }

    /// Writes what came, and lets the task do the rest if there is more to do.
    fn say(&mut self) {
        let waker = self.waker.take();
        let waker_or_none = waker.as_ref().unwrap_or(Waker::noop());
        let has_more_to_do = self.flush(&mut TaskContext::from_waker(waker_or_none));
        self.waker = waker;
        self.needs_turn |= has_more_to_do || !matches!(self.phase, Phase::Open);
        if std::mem::take(&mut self.needs_turn) {
            self.wake();
        }
    }

    fn on_told(&mut self, ForSocket { join, what }: ForSocket) {
        let what = match what {
            What::Mark => return self.are_handlers_held = false,
            What::Departed(departed) => return self.on_departed(*departed),
            What::PackUp(left) => return self.pack_up(left),
            What::FromFormer(answer) => return self.on_former(answer.map(|answer| *answer)),
            What::LastCall => return self.last_call = LastCall::Answered,
            what => what,
        };
        if matches!(self.phase, Phase::Leaving | Phase::Left) {
            return self.pass_on(join, what);
        }
        let Some(at) = self
            .memberships
            .iter()
            .position(|membership| membership.join == join)
        else {
            if let What::Emit(emit) = what {
                let Emit { record, args, .. } = *emit;
                self.services.hub.do_send(EmitToOne { record, args });
            }
            return;
        };
        match what {
            What::Deliver { message, volatile } => {
                if !volatile || self.is_writable() {
                    self.push(message);
                } else {
                    self.services.counters.count(Limit::VolatileDropped);
                }
            }
            What::DeliverLogged(logged) => {
                if let Some(standing) = self
                    .memberships
                    .get_mut(at)
                    .and_then(|membership| membership.standing.as_mut())
                {
                    standing.last = logged.position;
                }
                self.push(Arc::clone(&logged.message));
            }
            What::Emit(emit) => self.emit(at, *emit),
            What::EmitWithAck(emit) => self.emit_with_ack(at, *emit),
            What::DeliverWithAck(deliver) => self.deliver_with_ack(at, &deliver),
            What::Mark
            | What::Departed(_)
            | What::PackUp(_)
            | What::FromFormer(_)
            | What::LastCall => {}
            What::Disconnect { whole_connection } => self.disconnect(at, whole_connection),
        }
    }

    // ---- admissions and handlers ----

    fn poll_admissions(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let mut moved = false;
        let mut at = 0;
        while let Some(admission) = self.admissions.get_mut(at) {
            let Ready::Ready(verdict) = admission.poll(cx) else {
                at += 1;
                continue;
            };
            moved = true;
            let admission = self.admissions.swap_remove(at);
            match verdict {
                Ok(admitted) => self.join(admission, admitted),
                Err(refusal) => {
                    let Refusal { message, data } = refusal;
                    self.refuse(admission.namespace(), &message, data.as_ref());
                }
            }
        }
        self.have_handlers_moved |= moved;
        moved
    }

    /// Tells the client why it may not join a namespace.
    fn refuse(&mut self, namespace: &Namespace, message: &str, data: Option<&serde_json::Value>) {
        let packet = match self.session.revision {
            Revision::V4 => encode::connect_error(self.services.parser, namespace, message, data),
            Revision::V3 => legacy::connect_error(namespace, message, data),
        };
        self.push(packet);
    }

    /// Tells the client that it may not join, without having asked any gateway; the same for clients of every age, as in Node.
    fn refuse_unasked(&mut self, namespace: &Namespace, message: &str) {
        self.push(encode::connect_error(
            self.services.parser,
            namespace,
            message,
            None,
        ));
    }

    /// The client becomes a member, perhaps the one that it was. Its CONNECT reply is queued before the hub can deliver anything,
    /// behind what it has missed.
    fn join(&mut self, admission: Admission, admitted: Admitted) {
        let namespace = admission.namespace().clone();
        let Admitted {
            authorized,
            restored,
        } = admitted;
        let Ok(ids) = self.ids(&namespace, &authorized, restored) else {
            log::error!("the system's random source failed; closing a client");
            return self.end(CloseReason::Gateway);
        };
        let Ids {
            socket_id,
            standing,
            back,
        } = ids;
        let departure = self.departure();
        if let Some(departure) = &departure
            && !departure.add(&namespace, &socket_id)
        {
            // It would be a member nowhere: its session has left the hub, and is judged and joins where that goes.
            return self.admissions.push(admission.put_off());
        }
        let Admission {
            entered, gateway, ..
        } = admission;
        let reply = match self.session.revision {
            Revision::V4 => {
                let pid = standing.as_ref().map(|standing| &standing.pid);
                encode::connect(self.services.parser, &namespace, &socket_id, pid)
            }
            Revision::V3 => legacy::connect(&namespace),
        };
        let join = JoinId(self.next_join);
        self.next_join = self.next_join.wrapping_add(1);
        let record = Record::new(
            socket_id,
            namespace,
            join,
            self.services.instance,
            Arc::clone(&self.handshake),
            back.as_ref().map_or(&authorized, |back| &back.data),
        );
        let record = Arc::new(record.with_recoverable(match (&standing, &back) {
            (None, _) => Recoverable::No,
            (Some(_), None) => Recoverable::Yes,
            (Some(_), Some(_)) => Recoverable::Recovered,
        }));
        let hub = self.services.hub.clone();
        let own = self.inbox.address();
        let pattern = gateway.pattern().cloned();
        let socket = SocketRef::new(self.services.parser, Arc::clone(&record), hub, own, pattern);
        // Before the client learns of it: what others send it from then on is not for nobody.
        let registering = self.services.interest.register();
        for logged in back.iter().flat_map(|back| &back.missed) {
            self.push(Arc::clone(&logged.message));
        }
        self.push(reply);
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let register = Register {
            record,
            recipient: self.inbox.address(),
            registering,
            departure,
        };
        match (&standing, back) {
            (Some(standing), Some(back)) => self.services.hub.do_send(Resume {
                register,
                pid: standing.pid.clone(),
                last: standing.last,
                head: back.head,
                pursuit: back.pursuit,
            }),
            _ => self.services.hub.do_send(register),
        }
        let mut membership = Membership::new(join, socket, entered.in_use, gateway);
        membership.standing = standing;
        self.memberships.push(membership);
        self.clock.joined();
    }

    /// Returns who a client is from now on.
    fn ids(
        &self,
        namespace: &Namespace,
        authorized: &serde_json::Value,
        restored: Option<Box<Restored>>,
    ) -> Result<Ids, getrandom::Error> {
        if let Some(restored) = restored {
            let Restored { id, standing, back } = *restored;
            return Ok(Ids {
                socket_id: id,
                standing: Some(Box::new(standing)),
                back: Some(back),
            });
        }
        let (socket_id, standing) = match (self.session.revision, &self.services.recovery) {
            (Revision::V3, _) => (legacy::socket_id(&self.sid, namespace), None),
            (Revision::V4, None) => (SocketId::random()?, None),
            (Revision::V4, Some(recovery)) => {
                let standing = Standing::begin(recovery, authorized)?;
                (SocketId::random()?, Some(Box::new(standing)))
            }
        };
        Ok(Ids {
            socket_id,
            standing,
            back: None,
        })
    }

    /// Lets handlers run, until one has sent something that holds for the next one (that the client is to be thrown out, for
    /// one): it comes back by way of the inbox, and a mark behind it.
    fn poll_memberships(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let mut moved = false;
        let mut at = 0;
        while !self.are_handlers_held
            && let Some(membership) = self.memberships.get_mut(at)
        {
            let Ready::Ready(Done { ack, sent }) = membership.poll_next(cx) else {
                at += 1;
                continue;
            };
            moved = true;
            self.have_handlers_moved = true;
            let join = membership.join;
            let parser = self.services.parser;
            let ack = ack.and_then(|(id, args)| {
                encode::ack(parser, membership.namespace(), id, &args)
                    .inspect_err(|err| log::error!("an ack cannot be encoded: {err}"))
                    .ok()
            });
            if sent != Sent::Nothing {
                self.behind = Behind::Hub(self.services.hub.ticket());
            }
            if let Some(message) = ack {
                let volatile = false;
                let what = What::Deliver { message, volatile };
                self.push_behind(ForSocket { join, what });
            }
            if sent == Sent::Told {
                self.are_handlers_held = true;
                self.push_behind(ForSocket::for_session(What::Mark));
            }
        }
        moved
    }

    /// Pushes a message, or tells it to this socket if what handlers have sent could come after it otherwise.
    fn push_behind(&mut self, message: ForSocket) {
        if let Behind::Hub(ticket) = self.behind
            && self.services.hub.is_done(ticket)
        {
            self.behind = Behind::Inbox(self.inbox.mark());
        }
        if let Behind::Inbox(mark) = self.behind
            && self.inbox.has_reached(mark)
        {
            self.behind = Behind::Nothing;
        }
        match self.behind {
            Behind::Hub(_) => {
                let hub = &self.services.hub;
                hub.forward(&self.inbox.address(), message);
                self.behind = Behind::Hub(hub.ticket());
            }
            Behind::Inbox(_) => {
                self.inbox.address().do_send(message);
                self.behind = Behind::Inbox(self.inbox.mark());
            }
            Behind::Nothing => self.on_told(message),
        }
    }

    /// Takes a membership out of the hub; if its client may come back to it, its place is kept there. Then whoever wants to know when
    /// its last handlers are done is told by the end of what is returned.
    fn park_or_unregister(
        &self,
        membership: &mut Membership,
        reason: DisconnectReason,
    ) -> Option<watch::Sender<()>> {
        let in_use = membership.in_use.take();
        let standing = membership.standing.take();
        let standing = standing.filter(|_| recovery::may_come_back(reason));
        let departure = self.departure();
        if let Some(departure) = &departure {
            departure.remove(membership.socket.id());
        }
        // The hub has no place of one that it has let go.
        let has_departed = departure.is_some_and(|departure| departure.is_closed());
        let Some(standing) = standing.filter(|_| !has_departed) else {
            // Before the bridge hears of it, which looks whether the namespace is in use.
            drop(in_use);
            self.unregister(membership);
            return None;
        };
        let (settling, settled) = watch::channel(());
        let record = Arc::clone(membership.socket.record());
        let park = standing.park(record, in_use, settled);
        self.services.hub.do_send(park);
        Some(settling)
    }

    fn leave(&mut self, at: usize, reason: DisconnectReason) {
        let mut membership = self.memberships.swap_remove(at);
        let namespace = membership.namespace().clone();
        let settling = self.park_or_unregister(&mut membership, reason);
        let queued_bytes = membership.queued_bytes();
        let held = Held::bytes(&self.services.backlogs, membership.held_bytes());
        let work = (
            self.services.work.begin(),
            settling,
            held,
            self.session.stay(),
        );
        let timeout = self.services.limits.wind_down_timeout;
        if let Some(rest) = membership.wind_down(reason, timeout, work) {
            self.winding_down.push(WindingDown {
                namespace,
                rest,
                queued_bytes,
            });
        }
    }

    /// Dropping `reply` tells whoever awaits it that no ack will come.
    fn emit_with_ack(&mut self, at: usize, EmitWithAck { args, reply }: EmitWithAck) {
        let Some(membership) = self.memberships.get_mut(at) else {
            return;
        };
        let id = self.services.ack_ids.next();
        match encode::event(
            self.services.parser,
            membership.namespace(),
            Some(id),
            &args,
        ) {
            Ok(message) if membership.await_ack(id, Awaiter::One(reply)) => self.push(message),
            Ok(_) => {}
            Err(err) => log::error!("an event cannot be encoded: {err}"),
        }
    }

    /// Hands an ack to whoever awaits it, or that none will come.
    fn acknowledge(&self, awaiter: Awaiter, args: Args) {
        let Services {
            backlogs, counters, ..
        } = &*self.services;
        awaiter.acknowledge(Acked::new(backlogs, counters, args));
    }

    /// Whoever awaits the acks hears that none will come when nobody holds `answers` any more.
    fn deliver_with_ack(&mut self, at: usize, deliver: &DeliverWithAck) {
        let DeliverWithAck {
            id,
            message,
            volatile,
            answers,
        } = deliver;
        if *volatile && !self.is_writable() {
            self.services.counters.count(Limit::VolatileDropped);
            return;
        }
        let Some(membership) = self.memberships.get_mut(at) else {
            return;
        };
        if membership.await_ack(*id, Awaiter::Many(answers.clone())) {
            self.push(Arc::clone(message));
        }
    }

    /// Sends the client an event that can be sent again.
    fn emit(&mut self, at: usize, Emit { record, args, .. }: Emit) {
        let Services {
            parser, recovery, ..
        } = &*self.services;
        let Some(membership) = self.memberships.get_mut(at) else {
            return;
        };
        let logged = match (&mut membership.standing, recovery) {
            (Some(standing), Some(recovery)) => standing
                .log(recovery.epoch, *parser, &record.namespace, &args)
                .map(|logged| {
                    let message = Arc::clone(&logged.message);
                    self.services.hub.do_send(Note { record, logged });
                    message
                }),
            // Thrown out, and on its way.
            _ => encode::event(*parser, &record.namespace, None, &args),
        };
        match logged {
            Ok(message) => self.push(message),
            Err(err) => log::error!("an event cannot be encoded: {err}"),
        }
    }

    /// Ends a membership, or all of them and the connection, because a gateway wants it.
    fn disconnect(&mut self, at: usize, whole_connection: bool) {
        if whole_connection {
            // It is told that it was thrown out of each: none of them is to be had again.
            for membership in &mut self.memberships {
                membership.standing = None;
            }
            let goodbyes: Vec<_> = self
                .memberships
                .iter()
                .map(|membership| encode::disconnect(self.services.parser, membership.namespace()))
                .collect();
            for goodbye in goodbyes {
                self.push(goodbye);
            }
            return self.end(CloseReason::Gateway);
        }
        if let Some(membership) = self.memberships.get(at) {
            let goodbye = encode::disconnect(self.services.parser, membership.namespace());
            self.leave(at, DisconnectReason::ServerNamespaceDisconnect);
            self.push(goodbye);
        }
    }

    fn membership_of(&self, namespace: &Namespace) -> Option<usize> {
        self.memberships
            .iter()
            .position(|membership| membership.namespace() == namespace)
    }

    // ---- input ----

    /// Returns whether the client should not be read from until handlers or its own reading caught up.
    fn is_saturated(&mut self) -> bool {
        self.outbox.is_congested() || self.are_handlers_behind()
    }

    fn are_handlers_behind(&mut self) -> bool {
        let queued_bytes = self.queued_bytes();
        self.admissions.len() >= MAX_ADMISSIONS
            || self.winding_down.len() >= MAX_WINDING_DOWN
            || membership::are_behind(&mut self.memberships, queued_bytes)
            || self.inbound.is_too_much(queued_bytes)
    }

    /// Returns how many bytes wait for handlers, or are handled beside others, those of namespaces that the client has left included.
    fn queued_bytes(&self) -> usize {
        let before = self.admissions.iter().map(|joining| joining.bytes_before);
        let left = self.winding_down.iter().map(|left| left.queued_bytes);
        let joined = self.memberships.iter().map(Membership::queued_bytes);
        self.joining_bytes() + joined.chain(before).chain(left).sum::<usize>()
    }

    /// Returns how many bytes the client brings to be let in.
    fn joining_bytes(&self) -> usize {
        self.admissions.iter().map(Admission::queued_bytes).sum()
    }

    /// Returns how many bytes the client has sent of a message or packet that is not whole yet.
    fn unfinished_bytes(&self) -> usize {
        let of_message = match &self.transport {
            Transport::Polling(_) => 0,
            Transport::WebSocket(websocket) => websocket.unfinished_bytes(),
        };
        of_message + self.decoder.unfinished_bytes()
    }

    /// Returns how many bytes of whole messages have not been looked at.
    fn unseen_bytes(&self) -> usize {
        match &self.transport {
            Transport::Polling(polling) => polling.unseen_bytes(),
            Transport::WebSocket(websocket) => websocket.unseen_bytes(),
        }
    }

    /// Forgets the memberships that have nothing to do any more. Returns whether there were any.
    fn poll_winding_down(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let before = self.winding_down.len();
        self.winding_down
            .retain_mut(|left| Pin::new(&mut left.rest).poll(cx).is_pending());
        let moved = self.winding_down.len() < before;
        self.have_handlers_moved |= moved;
        moved
    }

    fn poll_input(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let mut moved = false;
        if let Transport::Polling(polling) = &mut self.transport
            && polling.poll_abort(cx)
        {
            self.end(CloseReason::Aborted);
            return true;
        }
        self.is_held_up = false;
        let mut are_handlers_behind = self.are_handlers_behind();
        for _ in 0..MAX_PACKETS_PER_ROUND {
            self.is_congested = self.outbox.is_congested();
            if !matches!(self.phase, Phase::Open) || are_handlers_behind || self.is_congested {
                break;
            }
            let mut arrived = None;
            match &mut self.transport {
                Transport::Polling(polling) => match polling.poll_post(cx) {
                    Ready::Pending => break,
                    Ready::Ready(FromPost::Packet(packet)) => arrived = Some(packet),
                    Ready::Ready(FromPost::BadPacket) => self.end(CloseReason::BadPacket),
                    Ready::Ready(FromPost::TooLarge) => {}
                    Ready::Ready(FromPost::Binary) => self.end(CloseReason::BinaryBody),
                    Ready::Ready(FromPost::Aborted) => self.end(CloseReason::Aborted),
                },
                Transport::WebSocket(websocket) => {
                    match websocket
                        .poll_next(cx, self.inbound.room(self.decoder.unfinished_bytes()))
                    {
                        Ready::Pending => break,
                        Ready::Ready(FromWebSocket::Packet(packet)) => arrived = Some(packet),
                        Ready::Ready(FromWebSocket::Pong(frame)) => {
                            let pushed = self.outbox.push_raw(frame);
                            self.end_if_behind(pushed);
                        }
                        Ready::Ready(FromWebSocket::Nothing) => {}
                        Ready::Ready(FromWebSocket::End(reason)) => self.end(reason),
                        Ready::Ready(FromWebSocket::HeldUp) => {
                            self.is_held_up = true;
                            break;
                        }
                    }
                }
            }
            moved = true;
            if let Some(packet) = arrived {
                let is_message = matches!(packet, Packet::Message(_));
                self.on_packet(packet);
                // Of all that a client may send, a body of half a million noops for example, only messages are for handlers.
                if is_message {
                    are_handlers_behind = self.are_handlers_behind();
                }
            }
        }
        moved
    }

    fn on_packet(&mut self, packet: Packet) {
        let now = Instant::now();
        match (packet, self.session.revision) {
            (Packet::Message(message), _) => {
                self.clock.packet(now, &self.services.config);
                self.on_message(message);
            }
            (Packet::Pong(_), Revision::V4) => self.clock.pong(now, &self.services.config),
            (Packet::Ping(_), Revision::V4) => self.end(CloseReason::ClientPing),
            (Packet::Ping(data), Revision::V3) => {
                self.clock.client_ping(now, &self.services.config);
                self.note_awaited();
                self.push(match &*data {
                    "" => encoded::pong(),
                    data => Encoded::new(&format!("3{data}"), &[]),
                });
            }
            (Packet::Pong(_), Revision::V3) => self.end(CloseReason::ClientPong),
            (Packet::Close, _) => self.end(CloseReason::ClosePacket),
            // Only servers send these, or only a probing WebSocket: ignored, as in Node.
            (Packet::Open | Packet::Upgrade | Packet::Noop, _) => {}
        }
    }

    fn on_message(&mut self, message: Message) {
        if let Layer::Bare(answer) = &self.layer {
            match answer(message) {
                Some(Message::Text(text)) => self.push(Encoded::new(&format!("4{text}"), &[])),
                Some(Message::Binary(bytes)) => self.push(Encoded::binary(&bytes)),
                None => {}
            }
            return;
        }
        let decoded = self.decoder.decode(message);
        match (
            self.decoder.awaits_attachments(),
            self.clock.awaits_attachments(),
        ) {
            (true, false) => {
                let config = &self.services.config;
                self.clock.await_attachments(Instant::now(), config);
            }
            (false, true) => self.clock.attached(),
            (true, true) | (false, false) => {}
        }
        match decoded {
            Ok(Some(packet)) => self.on_socket_io(match self.session.revision {
                Revision::V4 => packet,
                Revision::V3 => legacy::read(packet),
            }),
            Ok(None) => {}
            Err(error) => self.end(CloseReason::SocketIo(error)),
        }
    }

    /// Returns whether a packet is within its client's rate. If not, whoever waits for an answer to it is told.
    fn is_in_rate(&mut self, packet: &SioPacket) -> bool {
        let (SioPacket::Event { namespace, .. } | SioPacket::Connect { namespace, .. }) = packet
        else {
            return true;
        };
        let limit = self.services.config.max_event_rate;
        let verdict = self.rate.judge(Instant::now(), limit);
        if verdict == Verdict::Take {
            return true;
        }
        self.services.counters.count(Limit::EventRate);
        let refused = HandlerError::rate_limited(limit);
        match packet {
            SioPacket::Event { ack: Some(id), .. } => {
                let args = refused.into_ack();
                match encode::ack(self.services.parser, namespace, *id, &args) {
                    Ok(message) => self.push(message),
                    Err(err) => log::error!("an ack cannot be encoded: {err}"),
                }
            }
            SioPacket::Connect { .. } => {
                let data = serde_json::json!({ "code": refused.code });
                self.refuse(namespace, &refused.message, Some(&data));
            }
            SioPacket::Event { ack: None, .. }
            | SioPacket::Disconnect { .. }
            | SioPacket::Ack { .. } => {}
        }
        if verdict == Verdict::Disconnect {
            self.end(CloseReason::RateLimited { limit });
        }
        false
    }

    fn on_socket_io(&mut self, packet: SioPacket) {
        if !self.is_in_rate(&packet) {
            return;
        }
        match packet {
            SioPacket::Connect { namespace, auth } => self.on_connect(namespace, auth),
            SioPacket::Disconnect { namespace } => match self.membership_of(&namespace) {
                Some(at) => self.leave(at, DisconnectReason::ClientNamespaceDisconnect),
                None => self.end(CloseReason::OutOfTurn),
            },
            SioPacket::Event {
                namespace,
                ack,
                name,
                args,
            } => {
                let at = self.membership_of(&namespace);
                match at.and_then(|at| self.memberships.get_mut(at)) {
                    Some(membership) => membership.push(Event { name, args }, ack),
                    None => self.end(CloseReason::OutOfTurn),
                }
            }
            SioPacket::Ack {
                namespace,
                id,
                args,
            } => {
                let at = self.membership_of(&namespace);
                match at.and_then(|at| self.memberships.get_mut(at)) {
                    Some(membership) => {
                        if let Some(awaiter) = membership.take_awaiter(id) {
                            self.acknowledge(awaiter, args);
                        }
                    }
                    None => self.end(CloseReason::OutOfTurn),
                }
            }
        }
    }

    fn on_connect(&mut self, namespace: Namespace, auth: Option<bytestring::ByteString>) {
        let is_joining = self
            .admissions
            .iter()
            .any(|admission| *admission.namespace() == namespace);
        let joined = self.membership_of(&namespace);
        let joined = joined.and_then(|at| self.memberships.get(at));
        if is_joining || joined.is_some_and(|membership| !membership.has_heard_client()) {
            // The official client asks twice if a program calls `connect` on a socket that an open manager made.
            return;
        }
        if joined.is_some() {
            return self.end(CloseReason::OutOfTurn);
        }
        let Some(gateway) = self.services.gateways.get(&namespace) else {
            return self.refuse_unasked(&namespace, "Invalid namespace");
        };
        if self.memberships.len() + self.admissions.len() >= MAX_NAMESPACES {
            return self.refuse_unasked(&namespace, "Too many namespaces");
        }
        let entered = match self.services.dynamic_namespaces.enter(gateway, &namespace) {
            Ok(entered) => entered,
            Err(full) => {
                self.services.counters.count(Limit::Namespaces);
                let refusal = Refusal::too_many_namespaces(full.limit);
                return self.refuse(&namespace, &refusal.message, refusal.data.as_ref());
            }
        };
        // A client of revision 3 comes back under the same id, and one id must not be two members at a time.
        let must_wait = self.session.revision == Revision::V3;
        let before = self
            .winding_down
            .iter()
            .position(|left| must_wait && left.namespace == namespace)
            .map(|at| self.winding_down.swap_remove(at));
        let gateway = Arc::clone(gateway);
        let attempt = self.attempt(&entered.namespace, auth.as_deref());
        let namespace = entered.namespace.clone();
        let request = ConnectRequest::new(namespace, auth.clone(), Arc::clone(&self.handshake));
        self.admissions.push(Admission::begin(
            entered, gateway, request, auth, before, attempt,
        ));
    }

    /// Returns how to get the client's state back, if it shows what that takes.
    fn attempt(&self, namespace: &Namespace, auth: Option<&str>) -> Option<Attempt> {
        let recovery = self.services.recovery.as_ref()?;
        if self.session.revision == Revision::V3 {
            return None;
        }
        Some(Attempt {
            hub: self.services.hub.clone(),
            namespace: namespace.clone(),
            shown: Claim::read(auth?)?,
            max_bytes: recovery.max_missed_bytes,
        })
    }

    /// Joins a client of revision 3 to `/`, which it never asks for: in its protocol every client is there.
    ///
    /// If there is no gateway for `/`, it is told nothing yet. A refusal would go to all of its namespaces, since clients
    /// 2.x hand an error of `/` to every one of their sockets, and it may be about to join another.
    fn join_main_unasked(&mut self) {
        let is_old = self.session.revision == Revision::V3;
        let main = Namespace::main();
        if is_old
            && matches!(self.layer, Layer::SocketIo)
            && self.services.gateways.get(&main).is_some()
        {
            self.on_connect(main, None);
        }
    }

    /// Returns whether the client counts on being in `/` and there is none: if it joins nothing else, it waits for that.
    fn is_main_missing(&self) -> bool {
        self.session.revision == Revision::V3
            && self.admissions.is_empty()
            && self.services.gateways.get(&Namespace::main()).is_none()
    }

    // ---- the upgrade ----

    /// Follows the probing WebSocket.
    ///
    /// ```text
    /// client                      probing WebSocket     polling
    ///   ── 2probe ────────────────────▶│
    ///   ◀── 3probe ────────────────────│
    ///   ◀── 6 (answers the parked GET, now and every 100 ms) ──│
    ///   ── 5 ─────────────────────────▶│ becomes the transport; what waits is flushed to it
    /// ```
    fn poll_probe(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        match probe.poll(cx) {
            Ready::Pending => return false,
            Ready::Ready(ProbeEvent::Probed) => {
                probe.noop_at = Some(Instant::now() + NOOP_INTERVAL);
                if let Err(frame) = probe.answer() {
                    self.drop_probe(&frame);
                }
                self.release_poll();
            }
            Ready::Ready(ProbeEvent::Finished) => self.finish_upgrade(),
            Ready::Ready(ProbeEvent::Over(frame)) => self.drop_probe(&frame),
        }
        true
    }

    /// Answers a parked GET with a noop, so that the client can stop polling. One that was given up ends the session.
    fn release_poll(&mut self) {
        if let Transport::Polling(polling) = &mut self.transport
            && polling.is_parked()
            && self.outbox.is_empty()
        {
            let noop = encoded::noop().polling_in(self.outbox.dialect());
            if polling.answer(noop).is_err() {
                self.end(CloseReason::Aborted);
            }
        }
    }

    /// Returns whether a WebSocket may probe now, here or elsewhere.
    fn may_probe(&self) -> bool {
        let is_polling = matches!(
            (&self.phase, &self.transport),
            (Phase::Open, Transport::Polling(_))
        );
        is_polling && self.probe.is_none() && self.moving.is_none()
    }

    fn drop_probe(&mut self, frame: &CloseFrame) {
        if let Some(probe) = self.probe.take() {
            probe.farewell(frame);
        }
    }

    fn finish_upgrade(&mut self) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        self.end_of_polling();
        let waiting = std::mem::replace(&mut self.outbox, Outbox::new(0));
        let (transport, outbox) = probe.into_transport(waiting);
        self.outbox = outbox;
        self.transport = Transport::WebSocket(transport);
        self.clock.await_anew(Instant::now(), &self.services.config);
        self.note_awaited();
        self.session.set_websocket();
    }

    /// Answers what is under way on polling, which ends: of a client that obeys the protocol, nothing.
    fn end_of_polling(&mut self) {
        if let Transport::Polling(polling) = &mut self.transport {
            _ = polling.answer(encoded::close().polling_in(self.outbox.dialect()));
            polling.refuse_post();
        }
    }

    // ---- output ----

    fn push(&mut self, message: Arc<Encoded>) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let pushed = self.outbox.push(message);
        self.end_if_behind(pushed);
    }

    /// Ends the session if it is over a limit even after all was written that can be. A burst within one turn is not the client's fault,
    /// nor is that nothing is left for others: it is slow only if the kernel takes no more.
    fn end_if_behind(&mut self, pushed: Result<(), Overflow>) {
        if pushed.is_err() {
            self.flush(&mut TaskContext::from_waker(Waker::noop()));
            if let Some(overflow) = self.outbox.overflow() {
                self.end(CloseReason::SlowReader(overflow));
            }
        }
    }

    /// Returns whether a volatile message could leave at once. What came before it in the same turn is written for that.
    fn is_writable(&mut self) -> bool {
        // Whoever asks says afterwards what is left, by the task's own waker.
        let has_more_to_do = self.flush(&mut TaskContext::from_waker(Waker::noop()));
        self.needs_turn |= has_more_to_do;
        self.outbox.is_empty()
            && match &self.transport {
                Transport::Polling(polling) => polling.is_parked(),
                Transport::WebSocket(_) => true,
            }
    }

    /// Writes what it can. Returns whether there is more to do: a saturated client is readable again, or the session has ended.
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> bool {
        if self.outbox.is_empty() {
            return false;
        }
        if !matches!(self.phase, Phase::Open) || self.is_arriving() {
            self.outbox.wait();
            return false;
        }
        let was_congested = self.outbox.is_congested();
        let before = self.outbox.position();
        match &mut self.transport {
            Transport::WebSocket(websocket) => {
                if !websocket.flush(cx, &mut self.outbox) {
                    self.end(CloseReason::Aborted);
                    return true;
                }
            }
            Transport::Polling(polling) if polling.is_parked() => {
                // The client has given it up, and that was not looked at yet: what was in the answer is lost.
                if polling.answer(self.outbox.take_payload()).is_err() {
                    self.end(CloseReason::Aborted);
                    return true;
                }
            }
            Transport::Polling(_) => {}
        }
        if self.clock.is_stalled() && self.outbox.position() != before {
            self.clock.taken();
        }
        if !self.clock.is_stalled() && !self.outbox.is_empty() {
            let limit = self.services.limits.write_timeout;
            self.clock
                .stalled(Instant::now(), limit, &self.services.config);
        }
        self.outbox.wait();
        was_congested && !self.outbox.is_congested()
    }

    // ---- the one end ----

    /// Ends the session. Calling it again does nothing.
    fn end(&mut self, reason: CloseReason) {
        if !matches!(self.phase, Phase::Open | Phase::Leaving) {
            return;
        }
        if let Some(limit) = reason.limit() {
            self.services.counters.count(limit);
        }
        if self.is_arriving() {
            return self.give_arrival_up();
        }
        let kind = reason.kind();
        log::debug!(
            "session {:?} ended: {} ({})",
            self.sid,
            kind.as_str(),
            with_causes(&reason)
        );
        self.phase = Phase::Closed;
        self.admissions.clear();
        while !self.memberships.is_empty() {
            self.leave(self.memberships.len() - 1, DisconnectReason::Closed(kind));
        }
        self.drop_probe(&CloseFrame::BARE);
        let transport =
            std::mem::replace(&mut self.transport, Transport::Polling(Polling::default()));
        match transport {
            Transport::WebSocket(websocket) => {
                let mut outbox = std::mem::replace(&mut self.outbox, Outbox::new(0));
                if !reason.drains() {
                    outbox.clear();
                }
                websocket.farewell(outbox, &reason.close_frame());
            }
            Transport::Polling(polling) => self.end_polling(polling, &reason),
        }
        if matches!(self.phase, Phase::Closed) {
            self.services.sessions.remove(&self.sid);
        }
        self.end_moving();
    }

    /// Tells a polling client: in its parked GET, or, if either side wanted the end, in its next one.
    fn end_polling(&mut self, mut polling: Polling, reason: &CloseReason) {
        match reason {
            CloseReason::Overlap | CloseReason::Aborted => polling.refuse_post(),
            _ => polling.finish_post(),
        }
        let last = match reason {
            CloseReason::ClosePacket => encoded::noop(),
            _ => encoded::close(),
        };
        if !reason.drains() {
            let payload = last.polling_in(self.outbox.dialect());
            if let Err(payload) = polling.answer(payload)
                && matches!(reason, CloseReason::ClosePacket)
            {
                self.await_last_polls([payload].into(), LATE_GET_TIMEOUT);
            }
            return;
        }
        // What waits has a payload of its own. Clients of today act on a close before they act on the packets beside it: they
        // would report "transport close", and never learn that the server threw them out.
        let mut is_parked = polling.is_parked();
        let mut payloads = VecDeque::new();
        if !self.outbox.is_empty() {
            if let Err(payload) = polling.answer(self.outbox.take_payload()) {
                payloads.push_back(payload);
            }
            is_parked = false;
        }
        if !is_parked {
            // As in Node: a noop stands before the close in a poll that came late.
            _ = self.outbox.push(encoded::noop());
        }
        _ = self.outbox.push(last);
        if let Err(payload) = polling.answer(self.outbox.take_payload()) {
            payloads.push_back(payload);
            let config = &self.services.config;
            // Who has not polled by the time of a heartbeat is not there any more.
            let heartbeat = config.ping_interval + config.ping_timeout;
            self.await_last_polls(payloads, CLOSE_FETCH_TIMEOUT.min(heartbeat));
        }
    }

    /// Keeps the session's last payloads for the next GETs.
    fn await_last_polls(&mut self, payloads: VecDeque<HeldBody>, timeout: Duration) {
        self.phase = Phase::Closing(payloads);
        self.timer.as_mut().reset((Instant::now() + timeout).into());
    }

    /// Is over, whether the last payload was fetched or not.
    fn forget(&mut self, ctx: &mut Context<SocketActor>) {
        self.phase = Phase::Closed;
        self.services.sessions.remove(&self.sid);
        ctx.stop();
    }
}

impl Drop for Socket {
    /// A panic in this actor must not leave its session behind.
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Closed | Phase::Left) {
            return;
        }
        self.vanish();
        self.end_moving();
    }
}

/// The actor: one [`Socket`], which its arbiter's depot reaches as well, see `depot`.
pub struct SocketActor(Rc<RefCell<Socket>>);

impl SocketActor {
    fn of(services: &Services, make: impl FnOnce(Inbox) -> Socket) -> Self {
        let io_uring = services.config.io_uring;
        Self(Rc::new_cyclic(|own: &Weak<RefCell<Socket>>| {
            let own: Weak<RefCell<Socket>> = own.clone();
            RefCell::new(make(Inbox::open(own, io_uring)))
        }))
    }
}

/// Polls [`Socket::drive`] within the actor's own task.
struct Drive;

impl ActorFuture<SocketActor> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        SocketActor(socket): &mut SocketActor,
        ctx: &mut Context<SocketActor>,
        task: &mut TaskContext<'_>,
    ) -> Ready<()> {
        let mut socket = socket.borrow_mut();
        let over = socket.drive(task);
        socket.lend();
        if over.is_ready() && !socket.has_called_last() {
            return Ready::Pending;
        }
        if over.is_ready() {
            ctx.stop();
        }
        over
    }
}

impl Actor for SocketActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.borrow_mut().join_main_unasked();
        ctx.spawn(Drive);
    }
}

/// What the socket does about a message of its actor's mailbox.
trait Take<M> {
    fn take(&mut self, message: M, ctx: &mut Context<SocketActor>);
}

impl<M: actix::Message<Result = ()>> Handler<M> for SocketActor
where
    Socket: Take<M>,
{
    type Result = ();

    fn handle(&mut self, message: M, ctx: &mut Self::Context) {
        let mut socket = self.0.borrow_mut();
        socket.take(message, ctx);
        socket.lend();
    }
}

impl Receive for RefCell<Socket> {
    fn receive(&self, message: ForSocket) {
        guard(self, |socket| {
            // Whatever else it is, something may follow from it.
            socket.needs_turn |=
                !matches!(message.what, What::Deliver { .. } | What::DeliverLogged(_));
            socket.on_told(message);
        });
    }

    fn receive_rest(&self, message: &Arc<Encoded>, len: usize) {
        guard(self, |socket| {
            // The first in its outbox, which is too much only if nothing is left for anybody.
            let pushed = socket.outbox.push(Arc::clone(message));
            socket.outbox.written(len);
            socket.end_if_behind(pushed);
        });
    }

    fn say(&self) {
        guard(self, Socket::say);
        self.borrow().lend();
    }
}

/// Makes a call whose panic ends the socket and nobody else.
fn guard(socket: &RefCell<Socket>, call: impl FnOnce(&mut Socket)) {
    let mut socket = socket.borrow_mut();
    if std::panic::catch_unwind(AssertUnwindSafe(|| call(&mut socket))).is_err() {
        socket.has_panicked = true;
        socket.wake();
    }
}

impl Take<Poll> for Socket {
    fn take(&mut self, Poll { reply }: Poll, ctx: &mut Context<SocketActor>) {
        if matches!(self.phase, Phase::Open) {
            // The timer may be late, and a session whose time is over takes no more polls.
            self.do_what_is_due(Instant::now());
        }
        if let Phase::Closing(payloads) = &mut self.phase {
            if let Some(payload) = payloads.pop_front() {
                // The client may be gone; then nobody needs the answer.
                _ = reply.send(PollAnswer::Payload(payload));
            }
            if payloads.is_empty() {
                self.forget(ctx);
            }
            return;
        }
        // A poll that crossed an upgrade finds no session on polling: dropping the reply says so.
        let Transport::Polling(polling) = &mut self.transport else {
            return;
        };
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if let Err(second) = polling.park(reply) {
            _ = second.send(PollAnswer::Refused);
            self.end(CloseReason::Overlap);
        }
    }
}

impl Take<Post> for Socket {
    fn take(&mut self, Post { body, reply }: Post, _: &mut Context<SocketActor>) {
        let Transport::Polling(polling) = &mut self.transport else {
            return;
        };
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if let Err(second) = polling.begin_post(body, reply) {
            _ = second.send(PostAnswer::Refused);
            self.end(CloseReason::Overlap);
        }
    }
}

impl Take<Upgrade> for Socket {
    fn take(&mut self, message: Upgrade, _: &mut Context<SocketActor>) {
        let Upgrade {
            handover,
            dialect,
            answer,
        } = message;
        let config = &self.services.config;
        let connection = match Connection::take_over(handover, config.max_payload) {
            Ok(connection) => connection,
            Err(err) => return log::warn!("a stream could not change its arbiter: {err}"),
        };
        debug_assert_eq!(dialect.revision, self.session.revision, "verified before");
        let deadline = Instant::now() + config.upgrade_timeout;
        let probe = Probe::new(connection, dialect, answer, deadline);
        if !self.may_probe() {
            return probe.farewell(&CloseFrame::BARE);
        }
        self.probe = Some(probe);
    }
}

impl Take<Abandon> for Socket {
    fn take(&mut self, _: Abandon, _: &mut Context<SocketActor>) {
        if !self.withdraw() {
            self.end(CloseReason::Aborted);
        }
    }
}

impl Take<Stop> for Socket {
    fn take(&mut self, _: Stop, ctx: &mut Context<SocketActor>) {
        match self.phase {
            Phase::Closing(_) => self.forget(ctx),
            // It is told there whether it still lives; that takes no longer than a stop may.
            Phase::Leaving | Phase::Left => {}
            Phase::Open | Phase::Closed => self.end(CloseReason::Shutdown),
        }
    }
}
