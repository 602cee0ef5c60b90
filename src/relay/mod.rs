//! The relay: a polling request that lands on one instance and is for a session of another is answered from there.
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
//! Whoever waits for an instance that is gone is told within seconds: every message says how many have heard it, and who is waited
//! for is looked for every [`LOOK_INTERVAL`], at Redis if it has missed a beat. One that is known to be gone is not asked at all. If Redis goes away, all that is under way fails at once: the client is
//! told "Session ID unknown" and connects anew, and its session ends as if the client had gone away. Never is a payload sent
//! twice, or one lost without the end of its session, at once or by its heartbeat.
//!
//! | file | |
//! | --- | --- |
//! | `wire` | what crosses: pure |
//! | `caller` | the instance that got the request |
//! | `host` | the instance that has the session |
//!
//! Not here: the upgrade. A WebSocket that lands elsewhere is refused, and its client stays on polling.

mod caller;
mod host;
pub mod wire;

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix::Recipient;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use self::caller::{Answer, Call, PostCall};
use self::{
    caller::Calls,
    host::Host,
    wire::{DecodeError, Envelope, Message},
};
use crate::{
    engine_io::{handshake::HandshakeError, sid::InstanceId},
    peers::Peers,
    redis_bridge::messages::ForBridge,
    socket::actor::Services,
};

/// How often the instances that are waited for are looked for. Redis is asked of those alone that have missed a beat.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The relay of one instance.
#[derive(Debug)]
pub struct Relay {
    own: InstanceId,
    peers: Arc<Peers>,
    calls: Calls,
    host: Host,
    bridge: OnceLock<Recipient<ForBridge>>,
}

impl Relay {
    /// Returns a relay that does nothing yet, of the instance that `peers` names.
    pub fn new(peers: Arc<Peers>) -> Self {
        Self {
            own: peers.instance(),
            peers,
            calls: Calls::default(),
            host: Host::default(),
            bridge: OnceLock::new(),
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
                loop {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    let Some(relay) = relay.upgrade() else { return };
                    relay.look().await;
                }
            });
        }
    }

    /// Takes what another instance sent. From the bridge, on its arbiter.
    pub fn take(self: &Arc<Self>, payload: &Bytes) {
        match wire::decode(payload) {
            Ok((envelope, Message::Answer(answer))) => {
                self.calls.answer(envelope.from, envelope.id, answer);
            }
            Ok((envelope, Message::Request(request))) => self.host.take(self, envelope, request),
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

    /// Tells an instance of another release that it is not understood, so that its client need not wait. Nor can be what it may
    /// have answered to us: that call fails. An error is answered by nobody, or the two would never come to an end.
    fn misunderstand(&self, Envelope { id, from }: Envelope, is_error: bool) {
        let code = HandshakeError::SessionIdUnknown.code();
        let unknown = Answer::Error { code };
        self.calls.answer(from, id, unknown.clone());
        if !is_error {
            self.send(from, id, &Message::Answer(unknown));
        }
    }

    /// Fails all that is under way: others cannot be heard any more. From the bridge.
    pub fn lose_all(&self) {
        self.calls.lose(|_| true);
        self.host.lose(|_| true);
    }

    /// Fails the requests of this instance's clients: it is stopping, and they connect anew elsewhere. What others ask goes on.
    pub fn let_go(&self) {
        self.calls.close();
    }

    /// Fails what is under way with instances that are not there any more.
    async fn look(&self) {
        let mut peers: HashSet<InstanceId> = self.calls.peers();
        peers.extend(self.host.peers());
        for peer in peers {
            if self.peers.is_gone(peer) {
                self.lose(peer);
                continue;
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
                self.lose(peer);
            }
        }
    }

    /// Fails what is under way with an instance.
    fn lose(&self, peer: InstanceId) {
        log::debug!("instance {peer} is gone");
        self.calls.lose(|of| of == peer);
        self.host.lose(|of| of == peer);
    }

    fn tell_bridge(&self, message: ForBridge) {
        if let Some(bridge) = self.bridge.get() {
            bridge.do_send(message);
        }
    }

    /// Sends a message; the receipt says how many instances have heard it, and fails if nobody knows.
    fn send(&self, to: InstanceId, id: u64, message: &Message) -> oneshot::Receiver<usize> {
        let (receipt, heard) = oneshot::channel();
        // Redis may hold its connection for long yet, if its machine is lost or it does not move any more.
        if self.peers.is_gone(to) {
            _ = receipt.send(0);
            return heard;
        }
        let envelope = Envelope { id, from: self.own };
        self.tell_bridge(ForBridge::Send {
            to,
            payload: wire::encode(&envelope, message),
            receipt,
        });
        heard
    }
}
