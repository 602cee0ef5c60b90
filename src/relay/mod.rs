//! The relay: a polling request that lands on one instance and is for a session of another is answered from there; and a WebSocket
//! that lands there takes the session along.
//!
//! A `sid` names its owner, so nobody has to be asked where a session is. What crosses is versioned and bounded; local requests
//! never come here, and an instance without Redis has no relay at all.
//!
//! ```text
//! client ──GET──▶ B: caller ══ poll ══▶ A: host ──Poll──▶ Socket actor
//!                                                   ◀─────── payload, when there is one
//! client ◀─200─── B          ◀══ payload ══ A
//! client gone ──▶ B          ══ abort ════▶ A: the poll's answer is dropped, as if the client had been there
//!
//! client ─POST──▶ B          ══ post ═════▶ A ──Post──▶ Socket actor        at its head, so that two are two
//!          body ▶ B          ══ body ═════▶ A
//! client ◀─ ok ── B          ◀══ ok ═══════ A
//! ```
//! Whoever waits for an instance that is gone is told within seconds: every message says how many have heard it, and who is
//! waited for is looked for every [`LOOK_INTERVAL`], at Redis if it has missed a beat. One that is known to be gone is not asked
//! at all. If Redis goes away, all that is under way fails at once: the client is told "Session ID unknown" and connects anew,
//! and its session ends as if the client had gone away. Never is a payload sent twice, or one lost without the end of its
//! session, at once or by its heartbeat.
//!
//! | file | |
//! | --- | --- |
//! | `wire` | what crosses: pure |
//! | `caller` | the instance that got the request |
//! | `host` | the instance that has the session |
//! | `adopt` | a WebSocket that takes a session along |
//! | `leave` | what the session's actor says to the instance that it moves to |
//! | `moved` | which sessions of this instance live at another one now: pure |
//!
//! # How a session moves
//!
//! ```text
//! client ──GET upgrade──▶ B ══ upgrade ════════▶ A ──ProbeElsewhere──▶ Socket actor      judged by the same rules as at home
//! client ◀─────101─────── B ◀════ ready, namespaces ══ A
//!        ── 2probe ─────▶ B ══ probed ═════════▶ A: answers the parked GET with a noop, now and every 100 ms
//!        ◀─ 3probe ────── B                                                             once B listens to the namespaces
//!        ── 5 ──────────▶ B ──Expect──▶ Hub of B: notes what passes
//!                         B ══ ADOPT ══▶ all instances
//!                           Hub of B ◀─Mark─ B    A ──Depart──▶ Hub of A: lets the sockets go
//!                         B ◀════ END ══ Hub of A ──Departed──▶ Socket actor of A
//!                         B ◀════ state ═══════════════════════ packed up; nothing of it goes on here
//!        Socket actor of B ──Bring──▶ Hub of B: members, and what passed
//!                         B ══ taken ══════════▶ A: the session is gone from here
//!                         B ══ stays ══════════▶ A: what still knows of it here may go, too
//! ```
//! Why no event is lost, doubled or reordered by that is told in [`crate::hub::arrivals`].
//!
//! One owner: until `taken` has been heard by A, B delivers nothing and reads nothing; A, once it has packed up, neither. If B does not
//! get so far within [`MOVE_TIMEOUT`] of the client's `5`, or A is gone, which B sees within a second, or A does not hear of it, both end
//! the session, with a reason: A tells the application, B the client, who connects anew. B may not know that A has heard `taken`, and gives the
//! session up: so until A has heard `stays`, it keeps what waits for handlers, and tells the application if B cannot be heard any more. And if
//! B does not know that A has heard `stays`, it ends the session, and tells the application, too. So it is told always, and twice if `stays`
//! gets lost with the connection; what waits for handlers is then handled twice. If Redis loses `taken` or `stays` after it said that A has heard it, A
//! believes in an end of which B knows nothing: then the application is told of it twice as well, and the client notices nothing.
//!
//! A request that comes to A afterwards, or by way of it, is judged as one of a session on a WebSocket. A knows that until B says `ended`, or
//! cannot be heard any more. What it has forgotten by that, or never noted because of the bound of `moved`, is unknown at A, and its client goes
//! on at B all the same.
//!
//! From `ready` on the session's namespaces are in use at B as well. If B has no gateway for one of them, or no room, it gives the call up
//! instead, and the session stays at A on polling.
//!
//! What cannot move stays and is reached from there: handlers that run go on at A, and B lets no later event of the same client
//! overtake them; what they send goes by way of A's hub, their acks behind it. Acks that A awaits are sent there. Whoever keeps a
//! [`SocketRef`](crate::gateways::SocketRef) at A reaches the client by it, by the room that its id names.

pub mod adopt;
mod caller;
mod host;
pub mod leave;
mod moved;
pub mod wire;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use actix::Recipient;
use bytes::Bytes;
use tokio::sync::oneshot;

use self::{
    caller::Calls,
    host::Host,
    wire::{DecodeError, Envelope, Message},
};
pub use self::{
    caller::{Answer, Call, Listener, MoveCall, PostCall, Teller},
    wire::Request,
};
use crate::{
    adapter::kind::AdapterKind,
    engine_io::{handshake::HandshakeError, sid::InstanceId},
    hub::{
        actor::Turn,
        arrivals::ArrivalId,
        messages::{Finish, Hand, Mark},
        state::State,
    },
    peers::Peers,
    redis_bridge::{Capacity, Weight, messages::ForBridge},
    socket::actor::Services,
    socket_io::ids::Namespace,
};

/// How often the instances that are waited for are looked for. Redis is asked of those alone that have missed a beat.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a session may be on its way from the client's `5` on, if its owner lives. Then it ends, and its client connects anew: a
/// machine that is too busy for a move must not be made busier by clients that connect anew.
pub const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked meanwhile whether the owner lives.
const OWNER_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a session that is all here may take to become a member and to be known as such where it comes from.
pub const ARRIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the instance to which a session was sent has to say that it has it: longer than it gives itself, or both would be right.
pub const TAKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The relay of one instance.
#[derive(Debug)]
pub struct Relay {
    own: InstanceId,
    peers: Arc<Peers>,
    /// Whether the bus has the one order without which sessions cannot move.
    can_move: bool,
    calls: Calls,
    host: Host,
    bridge: OnceLock<Recipient<ForBridge>>,
    /// What may wait for it.
    capacity: Capacity,
}

/// The body of a request is more than may wait to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be sent to other instances")]
pub struct Crowded;

impl Relay {
    /// Returns a relay that does nothing yet, of the instance that `peers` names.
    pub fn new(peers: Arc<Peers>, adapter: AdapterKind) -> Self {
        Self {
            own: peers.instance(),
            peers,
            can_move: matches!(adapter, AdapterKind::Classic),
            calls: Calls::default(),
            host: Host::default(),
            bridge: OnceLock::new(),
            capacity: Capacity::default(),
        }
    }

    /// Returns what is known of the other instances.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Connects it to the bridge and to the sessions of `services`, and begins to look for those who are waited for. Called
    /// once, within an actix system, before the first request.
    pub fn connect(self: &Arc<Self>, services: &Arc<Services>, bridge: Recipient<ForBridge>) {
        self.host.connect(services);
        if self.bridge.set(bridge).is_ok() {
            let relay = Arc::downgrade(self);
            actix_rt::spawn(async move {
                let mut seen = HashMap::new();
                loop {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    let Some(relay) = relay.upgrade() else { return };
                    relay.look(&mut seen).await;
                }
            });
        }
    }

    /// Takes what another instance sent. From the bridge, on its arbiter.
    pub fn take(self: &Arc<Self>, payload: &Bytes) {
        match wire::decode(payload) {
            Ok((envelope, Message::Answer(answer))) => self.take_answer(envelope, answer),
            Ok((envelope, Message::Request(request))) => self.host.take(self, envelope, request),
            // It is said to all, or it has no place among what they hear.
            Ok((_, Message::Adopt { .. })) => log::debug!("skipped a misplaced marker"),
            Err(DecodeError::Version {
                envelope: Some(envelope),
                is_error,
                ..
            }) => self.misunderstand(envelope, is_error),
            // Its sender waits for its time-out at the latest, and its client connects anew.
            Err(err) => log::debug!(
                "skipped a relayed message of {} bytes: {err}",
                payload.len()
            ),
        }
    }

    fn take_answer(self: &Arc<Self>, Envelope { id, from }: Envelope, answer: Answer) {
        let arrival = ArrivalId { from, number: id };
        match answer {
            Answer::End => self.tell_hub(Finish(arrival)),
            // Behind what the same instance has published, which is on its way through the hub.
            Answer::Done { .. }
            | Answer::More { .. }
            | Answer::Data { .. }
            | Answer::Over
            | Answer::Lost => {
                if let Some(to) = self.listener(from, id) {
                    self.tell_hub(Hand { to, answer });
                }
            }
            answer => self.calls.answer(&self.host, from, id, answer),
        }
    }

    /// Takes what an instance, perhaps this one, said to all. From the bridge, on its arbiter.
    pub fn take_shared(self: &Arc<Self>, payload: &Bytes) {
        let Ok((Envelope { id, from }, Message::Adopt { to })) = wire::decode(payload) else {
            return log::debug!("skipped a marker of {} bytes", payload.len());
        };
        if from == self.own {
            self.tell_hub(Mark(ArrivalId {
                from: to,
                number: id,
            }));
        }
        if to == self.own {
            self.host.depart(self, (from, id));
        }
    }

    fn tell_hub<M>(&self, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        State: Turn<M>,
    {
        if let Some(services) = self.host.services() {
            services.hub.do_send(message);
        }
    }

    /// Listens to namespaces for as long as they are in use; returns whether they are heard.
    async fn hear(&self, namespaces: Vec<Namespace>) -> bool {
        let (reply, heard) = oneshot::channel();
        self.tell_bridge(ForBridge::Hear { namespaces, reply });
        heard.await.is_ok()
    }

    fn encode(&self, id: u64, message: &Message) -> Bytes {
        wire::encode(&Envelope { id, from: self.own }, message)
    }

    /// Tells an instance of another release that it is not understood, so that its client need not wait. Nor can be what it may
    /// have answered to us: that call fails. An error is answered by nobody, or the two would never come to an end.
    fn misunderstand(&self, Envelope { id, from }: Envelope, is_error: bool) {
        let code = HandshakeError::SessionIdUnknown.code();
        let unknown = Answer::Error { code };
        self.calls.answer(&self.host, from, id, unknown.clone());
        if !is_error {
            self.send(from, id, &Message::Answer(unknown));
        }
    }

    /// Fails all that is under way: others cannot be heard any more. From the bridge.
    pub fn lose_all(&self) {
        self.lose(|_, _| true);
    }

    /// Fails the requests of this instance's clients: it is stopping, and they connect anew elsewhere. What others ask goes on.
    pub fn let_go(&self) {
        self.calls.close();
    }

    /// Fails what is under way with instances that are not there any more, or were away for a moment. `seen` is which of each one's
    /// hellos need not be looked at again: all that is under way is gone through for one.
    async fn look(&self, seen: &mut HashMap<InstanceId, Instant>) {
        let mut peers: HashSet<InstanceId> = self.calls.peers();
        peers.extend(self.host.peers());
        seen.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            if self.peers.is_gone(peer) {
                self.lose_peer(peer);
                continue;
            }
            // Whoever loses Redis forgets what was under way; and of what was sent to it just then, Redis says that it was heard.
            if let Some(hailed) = self.peers.hailed_at(peer)
                && seen.get(&peer) != Some(&hailed)
            {
                // What was begun just before it is noted by then.
                if hailed.elapsed() >= LOOK_INTERVAL {
                    seen.insert(peer, hailed);
                }
                self.lose(|of, begun| of == peer && begun < hailed);
            }
            // Redis need not be asked; and it may know nobody of that name for a moment, while the slot of its channel moves.
            if self.peers.is_fresh(peer) {
                continue;
            }
            let (reply, counted) = oneshot::channel();
            self.tell_bridge(ForBridge::Look {
                instance: peer,
                reply,
            });
            // Without an answer nobody knows: if Redis is away, all fails by itself.
            if let Ok(0) = counted.await {
                self.lose_peer(peer);
            }
        }
    }

    /// Waits until an instance is gone. May be dropped.
    async fn gone(&self, instance: InstanceId) {
        loop {
            tokio::time::sleep(OWNER_LOOK_INTERVAL).await;
            let (reply, counted) = oneshot::channel();
            self.tell_bridge(ForBridge::Look { instance, reply });
            // Without an answer nobody knows: if Redis is away, all fails by itself.
            if self.peers.is_gone(instance) || matches!(counted.await, Ok(0)) {
                return;
            }
        }
    }

    /// Fails what is under way with an instance.
    fn lose_peer(&self, peer: InstanceId) {
        log::debug!("instance {peer} is gone");
        self.lose(|of, _| of == peer);
    }

    /// Fails some of what is under way: with whom, and begun when.
    fn lose(&self, is_lost: impl Fn(InstanceId, Instant) -> bool) {
        self.calls.lose(&is_lost);
        self.host.lose(&is_lost);
    }

    fn tell_bridge(&self, message: ForBridge) {
        if let Some(bridge) = self.bridge.get() {
            bridge.do_send(message);
        }
    }

    /// Sends a message; the receipt says how many instances have heard it, and fails if nobody knows.
    fn send(&self, to: InstanceId, id: u64, message: &Message) -> oneshot::Receiver<usize> {
        let sent = self.try_send(to, id, message, Capacity::take);
        // Of one for which there is no room nobody knows.
        sent.unwrap_or_else(|Crowded| oneshot::channel().1)
    }

    /// Sends a message as [`Self::send`] does, if there is room for one that is as long as a client wanted it.
    fn send_for_client(
        &self,
        to: InstanceId,
        id: u64,
        message: &Message,
    ) -> Result<oneshot::Receiver<usize>, Crowded> {
        self.try_send(to, id, message, Capacity::take_for_client)
    }

    fn try_send(
        &self,
        to: InstanceId,
        id: u64,
        message: &Message,
        take: impl FnOnce(&Capacity, usize) -> Option<Weight>,
    ) -> Result<oneshot::Receiver<usize>, Crowded> {
        let (receipt, heard) = oneshot::channel();
        // Redis may hold its connection for long yet, if its machine is lost or it does not move any more.
        if self.peers.is_gone(to) {
            _ = receipt.send(0);
            return Ok(heard);
        }
        let payload = self.encode(id, message);
        let weight = take(&self.capacity, payload.len()).ok_or(Crowded)?;
        self.tell_bridge(ForBridge::Send {
            to,
            payload,
            weight,
            receipt,
        });
        Ok(heard)
    }
}
