//! How a session goes to another instance, and how one comes from there: what the actor does about it.
//!
//! The exchange stands in [`crate::relay`], what crosses in [`super::super::portable`].
//!
//! ```text
//! here   Open ──ProbeElsewhere──▶ Open ──Departed, PackUp──▶ Leaving ──Taken──▶ Left ──Stays──▶ Closed      `Out`
//!                                                                    not taken, or not known to stay ──▶ Closed, and the application is told
//! there                                        arriving ──members, and Taken heard──▶ Open                  `In`
//!                                                      no more is heard from there ──▶ Open                  `Came`
//! ```
//! While it is arriving, a session neither reads nor writes nor runs anything.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll as Ready, Waker},
    time::{Duration, Instant},
};

use actix::{Actor as _, AsyncContext as _, Context};
use bytestring::ByteString;
use futures_util::{
    future::{FutureExt as _, LocalBoxFuture},
    stream::{FuturesUnordered, Stream as _},
};
use tokio::sync::oneshot;

use super::{
    super::{
        acks::Acked,
        clock::Clock,
        departure::Departure,
        disconnect::{CloseReason, DisconnectReason},
        endpoint::Layer,
        handshake::Handshake,
        inbox::InboxRef,
        membership::Membership,
        messages::{Departed, ForSocket, FromNext, Gone, LeftSocket, ProbeElsewhere, What},
        outbox::{Outbox, Overflow},
        portable::{Portable, PortableMembership, Undelivered},
        record::{JoinId, Record, Recoverable},
        recovery::Standing,
        websocket_transport::{NOOP_INTERVAL, Probe},
        work::Work,
    },
    Admittance, Beginning, Behind, Phase, Services, Socket, SocketActor, Take, Transport,
};
use crate::{
    engine_io::encoded::Encoded,
    gateways::SocketRef,
    hub::messages::{Bring, Forget, GiveUp, Unregister},
    relay::{
        ARRIVE_TIMEOUT, Answer, MoveCall, Request, TAKEN_TIMEOUT, Teller,
        adopt::not_moved,
        leave::Leave,
        wire::{pack, unpack},
    },
    slots::Slot,
    socket_io::{
        args::Args,
        decoder::{AckId, Decoder},
        ids::{Namespace, Room, SocketId},
    },
};

/// How often it is looked whether a session that has left still has anything here: acks that it owes to somebody, for one.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A session that moves.
pub(super) enum Moving {
    /// To another instance.
    Out(Out),
    /// From another instance.
    In(In),
    /// From another instance, of which nothing more is heard: acks that it may await, and the end, are to be told there.
    Came(Came),
}

/// A WebSocket elsewhere wants the session, or has it.
pub(super) struct Out {
    way: Leave,
    departure: Arc<Departure>,
    /// See [`Gone`].
    gone: Option<oneshot::Receiver<Gone>>,
    /// Until it is told that its WebSocket may probe.
    reply: Option<oneshot::Sender<Option<Arc<Departure>>>>,
    /// When it is given up here; there, its time is over before that. Once it has left: until when it may yet be given up there, if nothing
    /// more is heard.
    deadline: Instant,
    /// When a parked GET is released next; `None` before the WebSocket has probed.
    noop_at: Option<Instant>,
    /// While handlers run that have stayed.
    work: Option<Work>,
    /// When those are cut off: once the session has ended where it went, or nobody knows of it any more.
    over_by: Option<Instant>,
    /// Whether it will not be given up there any more. Before that, it may be that nobody tells the application of its end there.
    stays: bool,
}

impl Out {
    /// Returns when there is something to do next.
    pub(super) fn next(&self) -> Instant {
        self.noop_at.unwrap_or(self.deadline).min(self.deadline)
    }

    /// Returns whether nobody wants it any more, once.
    fn gone(&mut self, cx: &mut TaskContext<'_>) -> Option<Gone> {
        let Ready::Ready(told) = Pin::new(self.gone.as_mut()?).poll(cx) else {
            return None;
        };
        self.gone = None;
        Some(told.unwrap_or(Gone::Lost))
    }
}

/// A session that has come.
pub(super) struct In {
    call: MoveCall,
    /// Until its sockets are members here and the former instance has heard of it: whether both came true.
    arriving: Option<LocalBoxFuture<'static, bool>>,
    /// Memberships in the order in which they are counted there.
    joins: Vec<JoinId>,
    /// Handlers that still run there.
    calls: HashMap<(u32, u32), oneshot::Sender<Args>>,
    /// Acks that are awaited there.
    acks: OwedAcks,
    stays: Stays,
    /// What the client wants to join.
    admissions: Vec<(Namespace, Option<ByteString>)>,
    /// Whether no more is said there.
    has_heard_all: bool,
}

/// A session that came, and how to tell where from.
pub(super) struct Came {
    teller: Teller,
    /// Acks that may be awaited there.
    acks: OwedAcks,
    stays: Stays,
}

/// How many have heard that the session stays here, until that is known.
#[derive(Default)]
struct Stays(Option<oneshot::Receiver<usize>>);

impl Stays {
    /// Returns whether it turns out that perhaps nobody has. Then the application may be told of an end where it comes from.
    fn is_unheard(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let heard = self.0.as_mut().map(|heard| Pin::new(heard).poll(cx));
        let Some(Ready::Ready(heard)) = heard else {
            return false;
        };
        self.0 = None;
        !matches!(heard, Ok(1..))
    }
}

/// Acks of the client that are awaited where it comes from.
pub(super) type OwedAcks = FuturesUnordered<OwedAck>;

/// One of them: what is to be told when it comes, or when it is known that none will.
pub(super) struct OwedAck {
    at: u32,
    id: AckId,
    acked: oneshot::Receiver<Acked>,
}

impl Future for OwedAck {
    type Output = Request;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Ready<Request> {
        let Self { at, id, .. } = *self;
        Pin::new(&mut self.acked).poll(cx).map(|acked| {
            let acked = acked.ok();
            let args =
                acked.map(|Acked { args, .. }| pack(args.json().as_bytes(), args.attachments()));
            Request::Acked { at, id, args }
        })
    }
}

/// Tells where the session comes from which acks have come. Returns whether any has.
fn tell_acks(acks: &mut OwedAcks, teller: &Teller, cx: &mut TaskContext<'_>) -> bool {
    let mut have_come = false;
    while let Ready::Ready(Some(acked)) = Pin::new(&mut *acks).poll_next(cx) {
        teller.tell(acked);
        have_come = true;
    }
    have_come
}

/// Tells which acks have come before the session's end. That of all others none will is said by that.
fn tell_last_acks(acks: &mut OwedAcks, teller: &Teller) {
    let mut cx = TaskContext::from_waker(Waker::noop());
    while let Ready::Ready(Some(acked)) = Pin::new(&mut *acks).poll_next(&mut cx) {
        if matches!(acked, Request::Acked { args: Some(_), .. }) {
            teller.tell(acked);
        }
    }
}

/// A session that is to come to life here.
pub struct Newcomer {
    /// What stands above Engine.IO.
    pub layer: Layer,
    /// What is known of it.
    pub portable: Portable,
    /// Its WebSocket.
    pub(crate) probe: Probe,
    /// The way to where it comes from.
    pub call: MoveCall,
    /// Its place among those of its address.
    pub slot: Slot,
}

impl Socket {
    /// Lets a session of another instance come to life here. If it cannot, it ends: its client is told, and so is that instance.
    pub fn arrive(services: &Arc<Services>, newcomer: Newcomer) {
        let Newcomer {
            layer,
            portable,
            probe,
            call,
            slot,
        } = newcomer;
        let unpacked = match Unpacked::of(services, portable, probe.dialect()) {
            Ok(unpacked) => unpacked,
            Err(why) => {
                log::warn!("a session cannot come here: {why}");
                services.hub.do_send(GiveUp(call.arrival()));
                return probe.farewell(&not_moved());
            }
        };
        SocketActor::create(|ctx| {
            SocketActor::of(services, |inbox| {
                let Unpacked {
                    mut portable,
                    outbox,
                    decoder,
                    places,
                } = unpacked;
                let mut settling = Settling {
                    services,
                    own: inbox.address(),
                    handshake: Arc::new(portable.handshake),
                    calls: HashMap::new(),
                    acks: OwedAcks::new(),
                };
                let packed = std::mem::take(&mut portable.memberships);
                let (members, memberships): (Vec<_>, Vec<_>) = packed
                    .into_iter()
                    .zip(places)
                    .zip(0..)
                    .map(|((packed, place), number)| settling.settle(JoinId(number), place, packed))
                    .unzip();
                let Settling {
                    handshake,
                    calls,
                    acks,
                    ..
                } = settling;
                let (installed, is_installed) = oneshot::channel();
                services.hub.do_send(Bring {
                    id: call.arrival(),
                    members,
                    installed,
                });
                let admissions = portable.admissions.into_iter().map(|admission| {
                    let auth = admission.auth.map(ByteString::from);
                    (admission.namespace, auth)
                });
                let moving = Moving::In(In {
                    joins: memberships.iter().map(|member| member.join).collect(),
                    admissions: admissions.collect(),
                    arriving: Some(arriving(is_installed, call.teller()).boxed_local()),
                    calls,
                    acks,
                    stays: Stays::default(),
                    call,
                    has_heard_all: false,
                });
                let now = Instant::now();
                let mut clock = Clock::resume(
                    now,
                    &services.config,
                    portable.revision,
                    portable.heartbeat,
                    portable.connect_within,
                );
                clock.await_anew(now, &services.config);
                if decoder.awaits_attachments() {
                    clock.await_attachments(now, &services.config);
                }
                let (transport, outbox) = probe.into_transport(outbox);
                let beginning = Beginning {
                    sid: portable.sid,
                    layer,
                    handshake,
                    transport: Transport::WebSocket(transport),
                    outbox,
                    decoder,
                    clock,
                    slot,
                };
                let mut socket = Self::new(services, ctx.address(), inbox, beginning);
                socket.next_join = u32::try_from(memberships.len()).unwrap_or(u32::MAX);
                socket.memberships = memberships;
                socket.moving = Some(Box::new(moving));
                socket
            })
        });
    }

    /// Returns whether the session has yet to come to life here.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(
            self.moving.as_deref(),
            Some(Moving::In(In {
                arriving: Some(_),
                ..
            }))
        )
    }

    /// Waits for the session to come to life. Ready if it has.
    pub(super) fn poll_arriving(&mut self, cx: &mut TaskContext<'_>) -> Ready<()> {
        let Some(Moving::In(inward)) = self.moving.as_deref_mut() else {
            return Ready::Ready(());
        };
        let Some(arriving) = &mut inward.arriving else {
            return Ready::Ready(());
        };
        let Ready::Ready(is_there) = arriving.as_mut().poll(cx) else {
            return Ready::Pending;
        };
        if !is_there {
            self.give_arrival_up();
            return Ready::Ready(());
        }
        inward.arriving = None;
        inward.stays = Stays(Some(inward.call.teller().tell(Request::Stays)));
        for (namespace, auth) in std::mem::take(&mut inward.admissions) {
            self.on_connect(namespace, auth);
        }
        Ready::Ready(())
    }

    /// The session does not come to life here: its client is told. The application is told of its end where it comes from.
    pub(super) fn give_arrival_up(&mut self) {
        log::debug!("session {:?} did not move here", self.sid);
        self.phase = Phase::Closed;
        self.vanish();
        let transport =
            std::mem::replace(&mut self.transport, Transport::Polling(Default::default()));
        let mut outbox = std::mem::replace(&mut self.outbox, Outbox::new(0));
        outbox.clear();
        if let Transport::WebSocket(websocket) = transport {
            websocket.farewell(outbox, &not_moved());
        }
    }

    /// Takes the session out of all that knows it here, and tells nobody else but where it comes from, if it is arriving: that it has
    /// not come.
    pub(super) fn vanish(&mut self) {
        if self.is_arriving()
            && let Some(Moving::In(inward)) = self.moving.take().map(|moving| *moving)
        {
            // First: if the rest came in between, the hub would make members of sockets that nobody takes out any more.
            self.services.hub.do_send(GiveUp(inward.call.arrival()));
            // Its call is dropped before its end, which is told there.
        }
        self.services.sessions.remove(&self.sid);
        for membership in self.memberships.drain(..) {
            membership.socket.note_left();
            self.services.hub.do_send(Unregister {
                namespace: membership.namespace().clone(),
                socket_id: membership.socket.id().clone(),
            });
        }
    }

    /// Follows what is said about the session where it goes or comes from. Returns whether anything was.
    pub(super) fn poll_moving(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let are_all_judged = self.admissions.is_empty();
        if let Some(Moving::In(In { stays, .. }) | Moving::Came(Came { stays, .. })) =
            self.moving.as_deref_mut()
            && stays.is_unheard(cx)
        {
            self.end(CloseReason::NotMoved);
            return true;
        }
        match self.moving.as_deref_mut() {
            None => false,
            Some(Moving::Out(out)) => {
                if out.gone(cx).is_some() {
                    self.moving = None;
                    return true;
                }
                // A wish that is being judged would have to be judged anew elsewhere.
                if are_all_judged && let Some(reply) = out.reply.take() {
                    // Whoever asked may be gone; then the session stays.
                    _ = reply.send(Some(Arc::clone(&out.departure)));
                }
                false
            }
            Some(Moving::Came(Came { teller, acks, .. })) => tell_acks(acks, teller, cx),
            Some(Moving::In(inward)) => {
                let have_come = !inward.acks.is_empty()
                    && tell_acks(&mut inward.acks, &inward.call.teller(), cx);
                if inward.has_heard_all {
                    return have_come;
                }
                let Ready::Ready(answer) = inward.call.poll_next(cx) else {
                    return have_come;
                };
                inward.has_heard_all = answer.is_none();
                let what = What::FromFormer(answer.map(Box::new));
                self.inbox.address().do_send(ForSocket::for_session(what));
                true
            }
        }
    }

    /// Something that comes from where the session was got lost, and nothing more is heard of that.
    fn lose_former(&mut self) {
        for membership in &mut self.memberships {
            // It may have been an event, which is in no log.
            membership.standing = None;
        }
        self.forget_former(false);
    }

    /// Nothing more comes from where the session was: handlers that still ran there have failed, as far as is known here. Acks may still be
    /// awaited there, unless it said that all `is_over`.
    fn forget_former(&mut self, is_over: bool) {
        if let Some(Moving::In(inward)) = self.moving.take().map(|moving| *moving) {
            let came = Came {
                teller: inward.call.listen_no_more(),
                acks: if is_over {
                    OwedAcks::new()
                } else {
                    inward.acks
                },
                stays: inward.stays,
            };
            self.moving = Some(Box::new(Moving::Came(came)));
        }
    }

    /// Does what the time demands while a WebSocket elsewhere probes.
    pub(super) fn do_what_is_due_elsewhere(&mut self, now: Instant) {
        let Some(Moving::Out(out)) = self.moving.as_deref_mut() else {
            return;
        };
        if out.deadline <= now {
            out.way.forget();
            self.moving = None;
        } else if out.noop_at.is_some_and(|at| at <= now) {
            out.noop_at = Some(now + NOOP_INTERVAL);
            self.release_poll();
        }
    }

    /// Returns what the hub and the relay know of a session that may be about to leave.
    pub(super) fn departure(&self) -> Option<Arc<Departure>> {
        match self.moving.as_deref() {
            Some(Moving::Out(out)) => Some(Arc::clone(&out.departure)),
            Some(Moving::In(_) | Moving::Came(..)) | None => None,
        }
    }

    /// Takes a membership out of the hub, wherever it is by now.
    pub(super) fn unregister(&self, membership: &Membership) {
        let namespace = membership.namespace().clone();
        let socket_id = membership.socket.id().clone();
        if let Some(departure) = self.departure() {
            departure.remove(&socket_id);
            if departure.is_closed() {
                let left = vec![(namespace.clone(), socket_id.clone())];
                self.services.hub.do_send(Forget(left));
            }
        }
        self.services.hub.do_send(Unregister {
            namespace,
            socket_id,
        });
    }

    /// The session is over, here: tells whoever it was moving to, or came from.
    pub(super) fn end_moving(&mut self) {
        match self.moving.take().map(|moving| *moving) {
            Some(Moving::Out(out)) => out.way.refuse(),
            Some(Moving::In(mut inward)) => {
                tell_last_acks(&mut inward.acks, &inward.call.teller());
                inward.call.end();
            }
            Some(Moving::Came(Came {
                teller, mut acks, ..
            })) => {
                tell_last_acks(&mut acks, &teller);
                teller.tell(Request::Ended);
            }
            None => {}
        }
    }

    /// The hub has let the sockets go. From now on what handlers send goes by way of the hub; what they have sent is on its way to the
    /// inbox.
    fn departed(&mut self, left: Vec<LeftSocket>) {
        let way = match self.moving.as_deref() {
            Some(Moving::Out(out)) if out.departure.is_closed() => out.way.clone(),
            _ => {
                // Whoever wanted it is gone since: its sockets are nowhere any more, and its client polls no more.
                let left = left.into_iter().map(|left| (left.namespace, left.id));
                self.services.hub.do_send(Forget(left.collect()));
                return self.end(CloseReason::NotMoved);
            }
        };
        for membership in &self.memberships {
            membership.socket.note_moved(way.clone());
        }
        self.end_of_polling();
        // Handlers that run have sent more than is known of them.
        self.behind = Behind::Hub(self.services.hub.ticket());
        self.push_behind(ForSocket::for_session(What::PackUp(left)));
    }

    /// Sends the session to where it goes. Nothing of it goes on here unless it cannot move.
    pub(super) fn pack_up(&mut self, left: Vec<LeftSocket>) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let Some(Moving::Out(out)) = self.moving.as_deref_mut() else {
            // Nobody wants it any more, and its client polls no more.
            return self.end(CloseReason::NotMoved);
        };
        let way = out.way.clone();
        out.noop_at = None;
        out.deadline = Instant::now() + TAKEN_TIMEOUT;
        let deadline = out.deadline;
        let mut rooms: HashMap<SocketId, HashSet<Room>> =
            left.into_iter().map(|left| (left.id, left.rooms)).collect();
        let (heartbeat, connect_within) = self.clock.remaining(Instant::now());
        let recovery = self.services.recovery.as_ref();
        let memberships = self.memberships.iter_mut();
        let portable = Portable {
            sid: self.sid,
            revision: self.session.revision,
            is_bare: matches!(self.layer, Layer::Bare(_)),
            handshake: (*self.handshake).clone(),
            heartbeat,
            connect_within,
            unfinished: self.decoder.unfinished(),
            undelivered: self.outbox.messages().map(undelivered).collect(),
            admissions: self.admissions.iter().map(|wish| wish.pack()).collect(),
            memberships: memberships
                .map(|membership| {
                    let rooms = rooms.remove(membership.socket.id()).unwrap_or_default();
                    let mut packed = membership.pack(rooms);
                    packed.standing = recovery.and_then(|recovery| {
                        let recovered = membership.socket.recovered();
                        Some(membership.standing.take()?.pack(recovery, recovered))
                    });
                    packed
                })
                .collect(),
        };
        let state = match portable.encode() {
            Ok(state) => state,
            Err(err) => {
                log::warn!("a session cannot move: {err}");
                return self.end(CloseReason::NotMoved);
            }
        };
        // Before the client can hear anything from there: it is on its WebSocket, and who polls is told so.
        self.session.set_websocket();
        self.end_of_polling();
        way.state(state);
        // In the order of what was sent, and behind it: what is said of a session that is not there yet is not understood.
        let sent = self.memberships.iter().zip(&portable.memberships);
        for ((membership, packed), at) in sent.zip(0..) {
            membership.socket.note_sent(at, &packed.data);
        }
        self.phase = Phase::Leaving;
        // What is being judged is judged there.
        self.admissions.clear();
        self.timer.as_mut().reset(deadline.into());
    }

    /// The session lives elsewhere now.
    fn has_left(&mut self) {
        if !matches!(self.phase, Phase::Leaving) {
            return;
        }
        self.phase = Phase::Left;
        if let Some(Moving::Out(out)) = self.moving.as_deref() {
            // First, or it would be unknown for a moment.
            out.way.note_moved(self.sid, self.session.revision);
        }
        self.services.sessions.remove(&self.sid);
        self.outbox.clear();
        let is_running = self.memberships.iter().any(Membership::is_running);
        if let Some(Moving::Out(out)) = self.moving.as_deref_mut() {
            out.work = is_running.then(|| self.services.work.begin());
            out.deadline = Instant::now() + TAKEN_TIMEOUT;
        }
        log::debug!("session {:?} has moved to another instance", self.sid);
        let at = Instant::now() + LOOK_INTERVAL;
        self.timer.as_mut().reset(at.into());
    }

    /// Runs what cannot move: handlers, until they end, and those who await acks. Ready once there is nothing left.
    pub(super) fn poll_left(&mut self, cx: &mut TaskContext<'_>) -> Ready<()> {
        let Some(Moving::Out(out)) = self.moving.as_deref_mut() else {
            return Ready::Ready(());
        };
        let gone = out.gone(cx);
        let is_gone = gone.is_some();
        let way = out.way.clone();
        let is_nowhere = match gone {
            Some(Gone::GivenUp) => true,
            // As far as is known here it was given up there. If not, it ends there when it is not heard that it stays.
            Some(Gone::Lost) => !out.stays,
            Some(Gone::Ended) | None => false,
        };
        if matches!(self.phase, Phase::Left) {
            if is_nowhere {
                self.come_to_nothing();
                return Ready::Ready(());
            }
            // If nothing is heard for long, it lives.
            if !out.stays && (is_gone || out.deadline <= Instant::now()) {
                self.note_stays();
            }
        }
        let Some(Moving::Out(out)) = self.moving.as_deref_mut() else {
            return Ready::Ready(());
        };
        if is_gone {
            way.note_unknown(&self.sid);
            // Nobody is there any more who could pass acks on, or who could have taken the session.
            self.memberships
                .iter_mut()
                .for_each(Membership::forget_acks);
            let over_by = Instant::now() + self.services.limits.wind_down_timeout;
            out.over_by = Some(over_by);
            if self.timer.deadline() > over_by.into() {
                self.timer.as_mut().reset(over_by.into());
            }
        }
        let over_by = out.over_by;
        for (membership, at) in self.memberships.iter_mut().zip(0..) {
            while let Ready::Ready((call, args)) = membership.poll_left(cx) {
                let args = pack(args.json().as_bytes(), args.attachments());
                way.say_behind(Answer::Done { at, call, args });
            }
        }
        let is_time = self.timer.as_mut().poll(cx).is_ready();
        if matches!(self.phase, Phase::Leaving) {
            if is_gone || is_time {
                self.end(CloseReason::NotMoved);
                return Ready::Ready(());
            }
            return Ready::Pending;
        }
        let now = Instant::now();
        let is_over = over_by.is_some_and(|at| at <= now);
        let (mut is_running, mut are_acks_awaited) = (false, false);
        for membership in &mut self.memberships {
            if is_over {
                membership.cut_off();
            }
            is_running |= membership.is_running();
            are_acks_awaited |= membership.awaits_acks();
        }
        if !is_running {
            out.work = None;
        }
        // Whoever is given up there has to be told so here.
        if out.stays && !is_running && !are_acks_awaited {
            self.be_gone();
            return Ready::Ready(());
        }
        if is_time {
            let at = now + LOOK_INTERVAL;
            let at = over_by.map_or(at, |over_by| at.min(over_by));
            self.timer.as_mut().reset(at.into());
            _ = self.timer.as_mut().poll(cx);
        }
        Ready::Pending
    }

    /// The session will not be given up where it went: what waits for handlers is handled there.
    fn note_stays(&mut self) {
        if let Some(Moving::Out(out)) = self.moving.as_deref_mut() {
            out.stays = true;
        }
        for membership in &mut self.memberships {
            membership.note_moved();
        }
    }

    /// Something that was written for the client got lost. If the session is on its way, or has left, it ends where it goes, unless it does
    /// not get there: either way the application is told by one of both. Returns whether it is.
    pub(super) fn withdraw(&self) -> bool {
        match (&self.phase, self.moving.as_deref()) {
            (Phase::Leaving | Phase::Left, Some(Moving::Out(out))) => {
                out.way.withdraw();
                true
            }
            _ => false,
        }
    }

    /// The session has left and did not come to life where it went, so that nobody tells the application of its end there.
    fn come_to_nothing(&mut self) {
        log::debug!("session {:?} has left and did not arrive", self.sid);
        let reason = DisconnectReason::Closed(CloseReason::NotMoved.kind());
        while !self.memberships.is_empty() {
            self.leave(self.memberships.len() - 1, reason);
        }
        self.be_gone();
    }

    /// Nothing of a session that has left is here any more.
    fn be_gone(&mut self) {
        self.phase = Phase::Closed;
        let sockets = self.memberships.drain(..);
        let sockets = sockets.map(|membership| {
            (
                membership.namespace().clone(),
                membership.socket.id().clone(),
            )
        });
        self.services.hub.do_send(Forget(sockets.collect()));
        if let Some(Moving::Out(out)) = self.moving.take().map(|moving| *moving) {
            out.way.be_over(&self.sid);
        }
    }

    /// Sends on what somebody told this actor who did not know yet that the session has left.
    pub(super) fn pass_on(&mut self, join: JoinId, what: What) {
        let mut members = self.memberships.iter().zip(0..);
        let member = members.find(|(membership, _)| membership.join == join);
        let Some((membership, at)) = member else {
            return;
        };
        let what = match what {
            What::DeliverLogged(logged) => What::Deliver {
                message: Arc::clone(&logged.message),
                volatile: false,
            },
            what => what,
        };
        match what {
            What::DeliverLogged(_) => {}
            // Never by the own inbox, from which it has come.
            What::Emit(emit) => membership.socket.emit_there(&emit.args, false),
            What::Deliver { message, .. } => {
                if let Some(Moving::Out(out)) = self.moving.as_deref() {
                    let (text, attachments) = message.parts();
                    let packet = pack(&text.unwrap_or_default(), &attachments);
                    out.way.say_behind(Answer::More { at, packet });
                }
            }
            What::Disconnect { whole_connection } => {
                membership.socket.disconnect_there(whole_connection);
            }
            // Dropped, which says that no ack will come.
            What::EmitWithAck(_) | What::DeliverWithAck(_) => {}
            // For the session, and taken before.
            What::Mark
            | What::Departed(_)
            | What::PackUp(_)
            | What::FromFormer(_)
            | What::LastCall => {}
        }
    }
}

fn undelivered(message: &Arc<Encoded>) -> Undelivered {
    let (text, attachments) = message.parts();
    Undelivered { text, attachments }
}

/// What a session is made of that is to come to life here, as far as it can fail.
struct Unpacked {
    portable: Portable,
    outbox: Outbox,
    decoder: Decoder,
    /// Of its memberships.
    places: Vec<Admittance>,
}

impl Unpacked {
    fn of(
        services: &Services,
        mut portable: Portable,
        dialect: crate::engine_io::dialect::Dialect,
    ) -> Result<Self, Cow<'static, str>> {
        if portable.memberships.len() + portable.admissions.len() > super::MAX_NAMESPACES {
            return Err("it is in too many namespaces".into());
        }
        let memberships = portable.memberships.iter();
        let places = memberships.map(|membership| services.admit(&membership.namespace));
        let places = places
            .collect::<Result<_, _>>()
            .map_err(|err| err.to_string())?;
        let mut decoder = Decoder::new(services.parser, services.config.max_payload);
        for message in std::mem::take(&mut portable.unfinished) {
            if !matches!(decoder.decode(message), Ok(None)) {
                return Err("its client's last packet is malformed".into());
            }
        }
        let mut outbox = services.outbox().in_dialect(dialect);
        for Undelivered { text, attachments } in std::mem::take(&mut portable.undelivered) {
            let message = match (text, attachments.as_slice()) {
                (Some(text), _) => {
                    let text = std::str::from_utf8(&text).or(Err("a packet is no text"))?;
                    Encoded::new(text, &attachments)
                }
                (None, [bytes]) => Encoded::binary(bytes),
                (None, _) => return Err("a packet is none".into()),
            };
            // What is left for all clients may be less here than where it comes from, which it was within. That is judged as always.
            if let Err(Overflow::Own { .. }) = outbox.push(message) {
                return Err("more waits for its client than may".into());
            }
        }
        Ok(Self {
            portable,
            outbox,
            decoder,
            places,
        })
    }
}

/// Waits until the sockets of a session are members here and the former instance has heard of it. Returns whether both came true.
async fn arriving(is_installed: oneshot::Receiver<()>, teller: Teller) -> bool {
    let arrive = async { is_installed.await.is_ok() && teller.tell_surely(Request::Taken).await };
    tokio::time::timeout(ARRIVE_TIMEOUT, arrive)
        .await
        .unwrap_or(false)
}

/// What the hub is told of one socket that comes: who it is, its inbox, and its rooms.
type Member = (Arc<Record>, InboxRef, HashSet<Room>);

/// Puts the memberships of a session together again.
struct Settling<'a> {
    services: &'a Services,
    own: InboxRef,
    handshake: Arc<Handshake>,
    /// Of handlers that still run where it comes from.
    calls: HashMap<(u32, u32), oneshot::Sender<Args>>,
    /// That are awaited where it comes from.
    acks: OwedAcks,
}

impl Settling<'_> {
    fn settle(
        &mut self,
        join: JoinId,
        Admittance { gateway, entered }: Admittance,
        mut packed: PortableMembership,
    ) -> (Member, Membership) {
        let services = self.services;
        let standing = packed.standing.take().zip(services.recovery.as_ref());
        let standing = standing.map(|(packed, recovery)| {
            let is_recovered = packed.is_recovered;
            (Standing::unpack(recovery, packed), is_recovered)
        });
        let record = Record::new(
            packed.id.clone(),
            entered.namespace,
            join,
            services.instance,
            Arc::clone(&self.handshake),
            &serde_json::Value::Null,
        );
        record.set_data_text(&packed.data);
        let record = Arc::new(record.with_recoverable(match &standing {
            None => Recoverable::No,
            Some((_, false)) => Recoverable::Yes,
            Some((_, true)) => Recoverable::Recovered,
        }));
        let rooms = packed.rooms.clone();
        let member = (Arc::clone(&record), self.own.clone(), rooms);
        let socket = SocketRef::new(
            services.parser,
            record,
            services.hub.clone(),
            self.own.clone(),
            gateway.pattern().cloned(),
        );
        let at = join.0;
        let acks = |id, acked| self.acks.push(OwedAck { at, id, acked });
        let calls = |number, done| _ = self.calls.insert((at, number), done);
        let mut membership =
            Membership::unpack(join, socket, entered.in_use, gateway, packed, calls, acks);
        membership.standing = standing.map(|(standing, _)| Box::new(standing));
        (member, membership)
    }
}

impl Take<ProbeElsewhere> for Socket {
    fn take(&mut self, message: ProbeElsewhere, _: &mut Context<SocketActor>) {
        let ProbeElsewhere {
            to,
            number,
            gone,
            reply,
        } = message;
        let Some(relay) = self.services.relay.clone().filter(|_| self.may_probe()) else {
            _ = reply.send(None);
            return;
        };
        let members = self.memberships.iter().map(|membership| {
            (
                membership.namespace().clone(),
                membership.socket.id().clone(),
            )
        });
        let out = Out {
            way: Leave::new(relay, self.services.hub.clone(), to, number),
            departure: Arc::new(Departure::of(members.collect())),
            gone: Some(gone),
            reply: Some(reply),
            deadline: Instant::now() + self.services.config.upgrade_timeout + TAKEN_TIMEOUT,
            noop_at: None,
            work: None,
            over_by: None,
            stays: false,
        };
        self.moving = Some(Box::new(Moving::Out(out)));
    }
}

impl Take<FromNext> for Socket {
    fn take(&mut self, message: FromNext, _: &mut Context<SocketActor>) {
        match message {
            FromNext::Probed => {
                if let (Phase::Open, Some(Moving::Out(out))) =
                    (&self.phase, self.moving.as_deref_mut())
                {
                    out.noop_at = Some(Instant::now() + NOOP_INTERVAL);
                    self.release_poll();
                }
            }
            FromNext::Taken => self.has_left(),
            FromNext::Stays if matches!(self.phase, Phase::Left) => self.note_stays(),
            FromNext::Stays => {}
            FromNext::Acked { at, id, args } => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                if matches!(self.phase, Phase::Left)
                    && let Some(membership) = self.memberships.get_mut(at)
                {
                    // Without arguments none will come: whoever awaits it is told by the drop.
                    let awaiter = membership.take_awaiter(id);
                    let args = args.and_then(unpack);
                    let args = args.map(|(json, attachments)| Args::from_parts(json, attachments));
                    if let Some((awaiter, args)) = awaiter.zip(args) {
                        self.acknowledge(awaiter, args);
                    }
                }
            }
            FromNext::Ended => self
                .memberships
                .iter_mut()
                .for_each(Membership::forget_acks),
        }
    }
}

impl Socket {
    pub(super) fn on_departed(&mut self, departed: Departed) {
        match departed {
            Ok(left) => self.departed(left),
            Err(_) => {
                if let Some(Moving::Out(out)) = self.moving.as_deref() {
                    out.way.again();
                }
            }
        }
    }

    /// Takes what is said where the session comes from; `None`: no more is heard.
    pub(super) fn on_former(&mut self, answer: Option<Answer>) {
        let Some(Moving::In(inward)) = self.moving.as_deref_mut() else {
            return;
        };
        let Some(answer) = answer else {
            return self.lose_former();
        };
        let membership = |joins: &[JoinId], at: u32| {
            let join = joins.get(usize::try_from(at).ok()?)?;
            self.memberships.iter().find(|member| member.join == *join)
        };
        match answer {
            Answer::Done { at, call, args } => {
                if let (Some(done), Some((json, attachments))) =
                    (inward.calls.remove(&(at, call)), unpack(args))
                {
                    // The client may have left meanwhile.
                    _ = done.send(Args::from_parts(json, attachments));
                }
            }
            Answer::Data { at, json } => {
                if let (Some(membership), Ok(json)) =
                    (membership(&inward.joins, at), std::str::from_utf8(&json))
                {
                    membership.socket.set_data_text(json);
                }
            }
            Answer::More { at, packet } => {
                let join = membership(&inward.joins, at).map(|member| member.join);
                if let (Some(join), Some((text, attachments))) = (join, unpack(packet)) {
                    let mut members = self.memberships.iter_mut();
                    if let Some(member) = members.find(|member| member.join == join) {
                        // It is in no log: if it got lost on its way, the client would miss it and not know it.
                        member.standing = None;
                    }
                    self.push(Encoded::new(&text, &attachments));
                }
            }
            Answer::Over => self.forget_former(true),
            Answer::Lost => self.lose_former(),
            // It has ended there meanwhile, or must not go on.
            Answer::Refused => self.end(CloseReason::NotMoved),
            // It says nothing else once the session is here.
            _ => {}
        }
    }
}
