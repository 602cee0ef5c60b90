//! A WebSocket that asks for a session of another instance, and takes it along.
//!
//! From the request to the moment at which the session is all here; then it is a Socket actor like any other. The exchange stands in
//! [`super`].

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{Answer, MOVE_TIMEOUT, MoveCall, Relay, Request};
use crate::{
    adapter::uid::Uid,
    counters::Limit,
    engine_io::{dialect::Dialect, handshake::HandshakeError, sid::Sid},
    hub::messages::{Expect, GiveUp},
    slots::Slot,
    socket::{
        actor::{Admittance, Newcomer, NotAdmitted, Services, Socket},
        disconnect::CloseReason,
        endpoint::Layer,
        portable::Portable,
        websocket_transport::{Probe, ProbeEvent},
    },
    socket_io::ids::Namespace,
    websocket::{close::CloseFrame, connection::Connection},
};

/// How often a session may turn out to be in a namespace more before it is given up.
const MAX_ATTEMPTS: usize = 3;

/// A session that may be taken along.
#[derive(Debug)]
pub struct Ready {
    call: MoveCall,
    former: Uid,
    places: Places,
}

/// Where the sockets of a session are that may come here. They are in use from before they are listened to until the session is
/// here or does not come.
#[derive(Debug, Default)]
struct Places(Vec<Admittance>);

impl Places {
    /// Adds those that a session is in.
    ///
    /// # Errors
    /// It cannot be in one of them here.
    fn add(&mut self, services: &Services, namespaces: &[Namespace]) -> Result<(), NotAdmitted> {
        for namespace in namespaces {
            let place = services.admit(namespace).inspect_err(|err| {
                if let NotAdmitted::Full(_) = err {
                    services.counters.count(Limit::Namespaces);
                }
                log::debug!("a session cannot move here: {err}");
            })?;
            self.0.push(place);
        }
        Ok(())
    }

    fn names(&self) -> Vec<Namespace> {
        let names = self.0.iter().map(Admittance::namespace);
        names.cloned().collect()
    }
}

/// Why it may not.
#[derive(Debug)]
pub enum Unready {
    /// As if the session had been here.
    Error(HandshakeError),
    /// Another WebSocket is before this one, or the session has one already.
    Taken,
    /// There is no room for it here, or no gateway: it stays where it is.
    NoRoom,
}

impl Relay {
    /// Returns whether a session of another instance can move here.
    pub fn can_move(&self) -> bool {
        self.can_move
    }

    /// Asks for a session, for a WebSocket that is to be its transport. Its owner judges as it judges its own.
    ///
    /// # Errors
    /// See [`Unready`]. Of an owner that is not there, or cannot be heard, it is that the session is unknown.
    pub async fn ask_for(
        self: &Arc<Self>,
        services: &Services,
        sid: &Sid,
        dialect: Dialect,
    ) -> Result<Ready, Unready> {
        let unknown = || Unready::Error(HandshakeError::SessionIdUnknown);
        let (mut call, heard) = self.move_here(sid, dialect.revision).ok_or_else(unknown)?;
        let asked = async {
            if !matches!(heard.await, Ok(1..)) {
                return None;
            }
            call.next().await
        };
        let answer = tokio::time::timeout(services.config.upgrade_timeout, asked).await;
        match answer.ok().flatten() {
            Some(Answer::Ready { uid, namespaces }) => {
                let former = Uid::parse(&uid).ok_or_else(unknown)?;
                let mut places = Places::default();
                places.add(services, &namespaces).or(Err(Unready::NoRoom))?;
                Ok(Ready {
                    call,
                    former,
                    places,
                })
            }
            Some(Answer::Refused) => Err(Unready::Taken),
            Some(Answer::Error { code }) => {
                Err(HandshakeError::from_code(code).map_or_else(unknown, Unready::Error))
            }
            _ => Err(unknown()),
        }
    }
}

impl Ready {
    /// Lets the WebSocket probe, and takes the session over at its `5`. `answer` is the 101, not written yet.
    pub async fn adopt(
        self,
        services: Arc<Services>,
        layer: Layer,
        dialect: Dialect,
        connection: Connection,
        answer: Bytes,
        slot: Slot,
    ) {
        let Self {
            mut call,
            former,
            mut places,
        } = self;
        let deadline = Instant::now() + services.config.upgrade_timeout;
        let mut probe = Probe::new(connection, dialect, answer, deadline);
        if let Err(frame) = let_probe(&services, &mut call, &mut probe, places.names()).await {
            return probe.farewell(&frame);
        }
        call.is_wanted();
        let owner = call.arrival().from;
        let session = async {
            let relay = services.relay.as_ref()?;
            tokio::select! {
                session = take(&services, relay, &mut call, &former, &mut places) => session,
                () = relay.gone(owner) => None,
            }
        };
        let portable = match tokio::time::timeout(MOVE_TIMEOUT, session).await {
            Ok(Some(portable)) if fits(&portable, &call, &layer, dialect) => portable,
            _ => {
                services.hub.do_send(GiveUp(call.arrival()));
                log::debug!("session {:?} did not move here", call.sid());
                return probe.farewell(&not_moved());
            }
        };
        Socket::arrive(
            &services,
            Newcomer {
                layer,
                portable,
                probe,
                call,
                slot,
            },
        );
        // It has places of its own.
        drop(places);
    }
}

/// Returns what a client is told whose session did not move.
pub fn not_moved() -> CloseFrame {
    CloseReason::NotMoved.close_frame()
}

/// Returns whether it is the session that was asked for.
fn fits(portable: &Portable, call: &MoveCall, layer: &Layer, dialect: Dialect) -> bool {
    portable.sid == *call.sid()
        && portable.revision == dialect.revision
        && portable.is_bare == matches!(layer, Layer::Bare(_))
}

/// Answers the WebSocket's probe, until its `5`.
async fn let_probe(
    services: &Arc<Services>,
    call: &mut MoveCall,
    probe: &mut Probe,
    namespaces: Vec<Namespace>,
) -> Result<(), CloseFrame> {
    let relay = services.relay.as_ref().ok_or(CloseFrame::BARE)?;
    let mut hear = Some(namespaces);
    loop {
        let event = tokio::select! {
            event = probe.next() => event,
            // Nothing good comes now: the session has ended, or its owner is gone.
            _ = call.next() => return Err(CloseFrame::BARE),
        };
        match event {
            ProbeEvent::Probed => {
                // Only once: a client may probe as often as it likes.
                if let Some(namespaces) = hear.take() {
                    call.teller().tell(Request::Probed);
                    let heard = relay.hear(namespaces);
                    let left = probe.time_left();
                    if !tokio::time::timeout(left, heard).await.unwrap_or(false) {
                        return Err(CloseFrame::BARE);
                    }
                }
                probe.answer()?;
            }
            ProbeEvent::Finished => {
                // A client may do without the probe, as in Node.
                if let Some(namespaces) = hear.take()
                    && !tokio::time::timeout(MOVE_TIMEOUT, relay.hear(namespaces))
                        .await
                        .unwrap_or(false)
                {
                    return Err(not_moved());
                }
                return Ok(());
            }
            ProbeEvent::Over(frame) => return Err(frame),
        }
    }
}

/// Publishes the marker and awaits the session. May be dropped.
async fn take(
    services: &Services,
    relay: &Relay,
    call: &mut MoveCall,
    former: &Uid,
    places: &mut Places,
) -> Option<Portable> {
    for _ in 0..MAX_ATTEMPTS {
        services.hub.do_send(Expect {
            id: call.arrival(),
            former: former.clone(),
            marker: call.marker(),
            registering: services.interest.register(),
        });
        match call.next().await? {
            Answer::State(state) => {
                return Portable::decode(state)
                    .inspect_err(|err| log::warn!("a session cannot move here: {err}"))
                    .ok();
            }
            Answer::Again { namespaces } => {
                services.hub.do_send(GiveUp(call.arrival()));
                places.add(services, &namespaces).ok()?;
                if !relay.hear(places.names()).await {
                    return None;
                }
            }
            _ => return None,
        }
    }
    None
}
