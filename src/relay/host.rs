//! The instance that has the session: does what the caller's client asked for, and sends back what comes of it.
//!
//! A table of what is under way, bounded by [`MAX_HOSTED`]. To the Socket actor a relayed request is like any other; that its
//! client went away is the end of a channel, here as there. Of a session that has moved away, it still answers that it is on a
//! WebSocket.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use actix::Addr;
use tokio::sync::oneshot;

use super::{
    Relay,
    moved::{MAX_MOVED, Moved},
    wire::{Answer, Body, Envelope, Message, Request},
};
use crate::{
    counters::Limit,
    engine_io::{
        dialect::Revision,
        handshake::{Facts, HandshakeError, SessionFact, TransportName, verify},
        sid::{InstanceId, Sid},
    },
    hub::messages::Depart,
    shrink::shrink,
    socket::{
        actor::{Services, SocketActor},
        backlogs::{Held, HeldBody, Share},
        departure::Departure,
        messages::{
            self, Abandon, FromNext, Gone, Poll, PollAnswer, Post, PostAnswer, ProbeElsewhere,
        },
        sessions::Session,
    },
    socket_io::ids::Namespace,
};

/// Requests of others that may be under way at a time; one beyond it is told that its session is unknown.
pub(super) const MAX_HOSTED: usize = 65_536;

/// Of which request: whose, and the number that it has there.
pub(super) type Key = (InstanceId, u64);

/// A request that is under way. Dropped, it is aborted.
#[derive(Debug)]
struct Hosted {
    begun: Instant,
    /// Ends the task that waits for the answer, sent or dropped. Of a session that is to move to the caller: says what has become of it
    /// there; dropped, that nobody knows.
    abort: oneshot::Sender<Gone>,
    /// Where a POST's body is waited for.
    body: Option<oneshot::Sender<messages::Body>>,
    /// Of a session that is to move to the caller.
    leaving: Option<Leaving>,
}

/// A session that is to move, or has.
#[derive(Clone, Debug)]
struct Leaving {
    session: Arc<Session>,
    departure: Arc<Departure>,
    /// Namespaces that the caller was told of, and listens to.
    told: HashSet<Namespace>,
}

/// Requests that are under way, and sessions that are not here any more.
#[derive(Debug, Default)]
pub(super) struct Host {
    services: OnceLock<Weak<Services>>,
    under_way: Mutex<HashMap<Key, Hosted>>,
    /// Locked after `under_way`, if both are.
    moved: Mutex<Moved>,
    has_refused: AtomicBool,
    has_not_noted: AtomicBool,
}

impl Host {
    pub(super) fn connect(&self, services: &Arc<Services>) {
        // Only ever called once.
        _ = self.services.set(Arc::downgrade(services));
    }

    pub(super) fn services(&self) -> Option<Arc<Services>> {
        self.services.get().and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Hosted>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, key: Key) -> Option<Hosted> {
        let mut under_way = self.lock();
        let hosted = under_way.remove(&key);
        shrink(&mut *under_way);
        hosted
    }

    fn moved(&self) -> MutexGuard<'_, Moved> {
        // Nothing panics in there; if it did, the table would still be one.
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns who waits for something, or has a session of ours.
    pub(super) fn peers(&self) -> HashSet<InstanceId> {
        let mut peers = self.moved().peers();
        peers.extend(self.lock().keys().map(|(from, _)| *from));
        peers
    }

    /// Aborts some requests: whose, and begun when. What has moved there by such a one is unknown from now on.
    pub(super) fn lose(&self, is_lost: impl Fn(InstanceId, Instant) -> bool) {
        let mut under_way = self.lock();
        under_way.retain(|(from, _), hosted| !is_lost(*from, hosted.begun));
        shrink(&mut *under_way);
        drop(under_way);
        // Behind them: only what is under way is noted.
        self.moved().lose(is_lost);
    }

    /// Takes what a caller says.
    pub(super) fn take(&self, relay: &Arc<Relay>, envelope: Envelope, request: Request) {
        let key = (envelope.from, envelope.id);
        let body = match request {
            Request::Poll { sid, revision } => {
                return match self.judge(&sid, revision, false) {
                    Ok(session) => self.poll(relay, key, session),
                    Err(error) => answer(relay, key, &error),
                };
            }
            Request::Post { sid, revision } => {
                return match self.judge(&sid, revision, false) {
                    Ok(session) => self.post(relay, key, session),
                    Err(error) => answer(relay, key, &error),
                };
            }
            // Its task ends, and with it all that waits for the client.
            Request::Abort { sid } => {
                let hosted = self.remove(key);
                self.moved().end(key);
                match (&hosted, sid) {
                    (None, Some(sid)) => self.lose_answer(&sid),
                    // The client counts on the move, so it polls no more.
                    (Some(hosted), Some(_)) => {
                        if let Some(leaving) = &hosted.leaving {
                            leaving.session.addr.do_send(Abandon);
                        }
                    }
                    (_, None) => {}
                }
                if let Some(hosted) = hosted {
                    // Whoever waits for it may be gone.
                    _ = hosted.abort.send(Gone::GivenUp);
                }
                return;
            }
            Request::Upgrade { sid, revision } => {
                return match self.judge(&sid, revision, true) {
                    Ok(session) => self.let_probe(relay, key, sid, session),
                    Err(error) => answer(relay, key, &error),
                };
            }
            Request::Probed => return self.tell(key, FromNext::Probed),
            Request::Taken => return self.tell(key, FromNext::Taken),
            Request::Stays => return self.tell(key, FromNext::Stays),
            Request::Acked { at, id, args } => {
                return self.tell(key, FromNext::Acked { at, id, args });
            }
            Request::Ended => {
                self.tell(key, FromNext::Ended);
                if let Some(hosted) = self.remove(key) {
                    // Its actor may be gone.
                    _ = hosted.abort.send(Gone::Ended);
                }
                // Behind it: only what is under way is noted.
                self.moved().end(key);
                return;
            }
            // The caller's limit may be another.
            Request::Body(Body { bytes, .. }) if bytes.len() > self.max_payload() => {
                messages::Body::TooLarge
            }
            Request::Body(Body { bytes, .. }) if self.is_too_much(bytes.len()) => {
                return self.refuse_body(relay, key);
            }
            Request::Body(Body { is_binary, bytes }) => {
                let held = self.held(bytes.len());
                match is_binary {
                    true => messages::Body::WholeBinary(bytes, held),
                    false => messages::Body::Whole(bytes, held),
                }
            }
            Request::TooLarge => messages::Body::TooLarge,
            Request::WrongType => messages::Body::Binary,
        };
        let mut under_way = self.lock();
        if let Some(waiting) = under_way
            .get_mut(&key)
            .and_then(|hosted| hosted.body.take())
        {
            // The session may have ended meanwhile; then its answer is on the way.
            _ = waiting.send(body);
        }
    }

    /// Counts so many bytes.
    pub(super) fn held(&self, len: usize) -> Held {
        let services = self.services();
        services.map_or_else(Held::default, |services| {
            Held::bytes(&services.backlogs, len)
        })
    }

    /// Returns whether so many bytes are more than a client may bring by now, as of one whose request came here.
    pub(super) fn is_too_much(&self, len: usize) -> bool {
        let services = self.services();
        services.is_some_and(|services| Share::new(&services.backlogs).is_too_much(len))
    }

    /// Ends a POST whose body is too much. Its session ends by that, as when a body comes here.
    fn refuse_body(&self, relay: &Relay, key: Key) {
        let mut under_way = self.lock();
        if under_way
            .get(&key)
            .is_none_or(|hosted| hosted.body.is_none())
        {
            return;
        }
        under_way.remove(&key);
        shrink(&mut *under_way);
        drop(under_way);
        self.count_refused();
        answer(relay, key, &Answer::Crowded);
    }

    /// Counts that something was too much.
    pub(super) fn count_refused(&self) {
        if let Some(services) = self.services() {
            services.counters.count(Limit::TotalBacklog);
        }
    }

    fn max_payload(&self) -> usize {
        self.services()
            .map_or(0, |services| services.config.max_payload)
    }

    /// A client went away while the answer to its poll was on the way to it: what was in it is lost.
    fn lose_answer(&self, sid: &str) {
        let session = self
            .services()
            .zip(Sid::parse(sid))
            .and_then(|(services, sid)| services.sessions.get(&sid));
        if let Some(session) = session
            && session.transport() == TransportName::Polling
        {
            session.addr.do_send(Abandon);
        }
    }

    /// Returns the revision of a session that has moved away and lives, as far as is known here.
    pub(super) fn revision_of_moved(&self, sid: &Sid) -> Option<Revision> {
        self.moved().get(sid)
    }

    /// Finds the session, if the protocol's rules allow such a request; the caller has checked all but these.
    fn judge(
        &self,
        sid: &str,
        revision: Revision,
        is_upgrade: bool,
    ) -> Result<Arc<Session>, Answer> {
        let services = self.services();
        let unknown = HandshakeError::SessionIdUnknown;
        let error = |error: HandshakeError| Answer::Error { code: error.code() };
        let services = services.ok_or_else(|| error(unknown))?;
        let sid = Sid::parse(sid).ok_or_else(|| error(unknown))?;
        let session = services.sessions.get(&sid);
        let fact = match &session {
            Some(session) => session.fact(),
            None => match self.revision_of_moved(&sid) {
                Some(revision) => SessionFact::On(TransportName::WebSocket, revision),
                None => SessionFact::Unknown,
            },
        };
        let facts = Facts {
            transport: Some(if is_upgrade {
                TransportName::WebSocket
            } else {
                TransportName::Polling
            }),
            origin_is_legal: true,
            session: fact,
            is_upgrade,
            is_get: true,
            revision,
            allow_eio3: services.config.allow_eio3,
        };
        verify(&facts).map_err(error)?;
        // One that has moved has its WebSocket, and wants no second one.
        let session = session.ok_or(Answer::Refused)?;
        if self.lock().len() >= MAX_HOSTED {
            if !self.has_refused.swap(true, Relaxed) {
                // Once: whoever floods us must not flood the log.
                log::warn!(
                    "{MAX_HOSTED} requests of other instances are under way: one is refused"
                );
            }
            return Err(error(unknown));
        }
        Ok(session)
    }

    fn begin(
        &self,
        key: Key,
        body: Option<oneshot::Sender<messages::Body>>,
    ) -> oneshot::Receiver<Gone> {
        let (abort, aborted) = oneshot::channel();
        let hosted = Hosted {
            begun: Instant::now(),
            abort,
            body,
            leaving: None,
        };
        self.lock().insert(key, hosted);
        aborted
    }

    // ---- sessions that move ----

    /// Lets a WebSocket of the caller probe; answers when it may.
    fn let_probe(&self, relay: &Arc<Relay>, key: Key, sid: String, session: Arc<Session>) {
        let gone = self.begin(key, None);
        let (reply, receiver) = oneshot::channel();
        let (to, number) = key;
        session.addr.do_send(ProbeElsewhere {
            to,
            number,
            gone,
            reply,
        });
        let relay = Arc::clone(relay);
        actix_rt::spawn(async move {
            let (to, id) = key;
            let answer = match receiver.await {
                Ok(Some(departure)) => {
                    let namespaces = departure.namespaces();
                    let mut under_way = relay.host.lock();
                    let Some(hosted) = under_way.get_mut(&key) else {
                        return;
                    };
                    hosted.leaving = Some(Leaving {
                        session,
                        departure,
                        told: namespaces.iter().cloned().collect(),
                    });
                    let uid = relay.peers.uid().as_str().to_owned();
                    Answer::Ready { uid, namespaces }
                }
                refused => {
                    relay.host.remove(key);
                    match refused {
                        Ok(_) => Answer::Refused,
                        // Its actor has gone since it was found: if it lives elsewhere, it has its WebSocket there.
                        Err(_) => Sid::parse(&sid)
                            .and_then(|sid| relay.revision_of_moved(&sid))
                            .map_or_else(unknown, |_| Answer::Refused),
                    }
                }
            };
            relay.send(to, id, &Message::Answer(answer));
        });
    }

    /// The marker ADOPT has come: lets the session go, in line with what else has come.
    pub(super) fn depart(&self, relay: &Relay, key: Key) {
        let leaving = self
            .lock()
            .get(&key)
            .and_then(|hosted| hosted.leaving.clone());
        let (
            Some(Leaving {
                session,
                departure,
                told,
            }),
            Some(services),
        ) = (leaving, self.services())
        else {
            return answer(relay, key, &unknown());
        };
        let (to, id) = key;
        services.hub.do_send(Depart {
            departure,
            namespaces: told,
            to,
            end: relay.encode(id, &Message::Answer(Answer::End)),
            socket: session.inbox.clone(),
        });
    }

    /// Tells the caller that the session is in namespaces that it does not know.
    pub(super) fn tell_again(&self, relay: &Relay, key: Key) {
        let namespaces = {
            let mut under_way = self.lock();
            let Some(leaving) = under_way.get_mut(&key).and_then(|h| h.leaving.as_mut()) else {
                return;
            };
            let namespaces = leaving.departure.namespaces();
            leaving.told.extend(namespaces.iter().cloned());
            namespaces
        };
        answer(relay, key, &Answer::Again { namespaces });
    }

    /// Notes that a session lives where it was to go, unless what was to go on there has ended meanwhile. `has_ended` is set when it has.
    pub(super) fn note_moved(
        &self,
        key: Key,
        sid: Sid,
        revision: Revision,
        has_ended: &Arc<AtomicBool>,
    ) {
        let under_way = self.lock();
        let Some(hosted) = under_way.get(&key) else {
            return has_ended.store(true, Relaxed);
        };
        if !self
            .moved()
            .note(sid, revision, key, hosted.begun, has_ended)
            && !self.has_not_noted.swap(true, Relaxed)
        {
            // Once: it is no fault, and whoever still asks for such a session has it elsewhere.
            log::warn!(
                "{MAX_MOVED} sessions of this instance live elsewhere: requests for further ones are told that they are unknown"
            );
        }
    }

    /// Says no more to a session, and hears no more of it: it has moved, or did not.
    pub(super) fn forget(&self, key: Key) {
        self.remove(key);
    }

    fn tell(&self, key: Key, what: FromNext) {
        let under_way = self.lock();
        if let Some(leaving) = under_way
            .get(&key)
            .and_then(|hosted| hosted.leaving.as_ref())
        {
            leaving.session.addr.do_send(what);
        }
    }

    fn poll(&self, relay: &Arc<Relay>, key: Key, session: Arc<Session>) {
        let (reply, receiver) = oneshot::channel();
        session.addr.do_send(Poll { reply });
        let received = async {
            match receiver.await {
                Ok(PollAnswer::Payload(HeldBody { body, held: _ })) => Answer::Payload(Body {
                    is_binary: body.is_binary,
                    bytes: body.bytes,
                }),
                Ok(PollAnswer::Refused) => Answer::Refused,
                Err(_) => unknown(),
            }
        };
        self.await_answer(relay, key, &session.addr, None, received);
    }

    fn post(&self, relay: &Arc<Relay>, key: Key, session: Arc<Session>) {
        let (body_sender, body) = oneshot::channel();
        let (reply, receiver) = oneshot::channel();
        session.addr.do_send(Post { body, reply });
        let received = async {
            match receiver.await {
                Ok(PostAnswer::Ok) => Answer::Ok,
                Ok(PostAnswer::Refused) => Answer::Refused,
                Err(_) => unknown(),
            }
        };
        self.await_answer(relay, key, &session.addr, Some(body_sender), received);
    }

    /// Sends the answer when it comes, unless the request is aborted first.
    fn await_answer(
        &self,
        relay: &Arc<Relay>,
        key: Key,
        session: &Addr<SocketActor>,
        body: Option<oneshot::Sender<messages::Body>>,
        answer: impl Future<Output = Answer> + 'static,
    ) {
        let aborted = self.begin(key, body);
        let relay = Arc::clone(relay);
        let session = session.clone();
        // A stop of the instance waits for it: what ends the session is yet to be told to its client.
        let work = self.services().map(|services| services.work.begin());
        actix_rt::spawn(async move {
            let answer = tokio::select! {
                answer = answer => answer,
                // Sent or dropped, it is the same.
                _ = aborted => return,
            };
            relay.host.remove(key);
            let (to, id) = key;
            let heard = relay.send(to, id, &Message::Answer(answer)).await;
            if !matches!(heard, Ok(1..)) {
                // What was in it is lost, and a client must not have a gap that it knows nothing of.
                session.do_send(Abandon);
            }
            drop(work);
        });
    }
}

fn unknown() -> Answer {
    Answer::Error {
        code: HandshakeError::SessionIdUnknown.code(),
    }
}

/// Answers at once.
fn answer(relay: &Relay, (to, id): Key, answer: &Answer) {
    relay.send(to, id, &Message::Answer(answer.clone()));
}

#[cfg(test)]
mod tests {
    use actix::Arbiter;

    use super::*;
    use crate::{
        adapter::{kind::AdapterKind, uid::Uid},
        hub::{hub_ref::HubRef, state::State, testing::probe},
        peers::Peers,
        relay::leave::Leave,
        socket_io::parser::Parser,
    };

    /// A bug: of one beyond the bound nobody ever said that it had ended, and whoever held a socket of it took it for connected for ever.
    #[actix_rt::test]
    async fn who_is_not_noted_has_ended_as_soon_as_nothing_is_heard_of_it() {
        let own = InstanceId::parse("Ab3dE6gH").unwrap();
        let to = InstanceId::parse("Zy9xW7vU").unwrap();
        let peers = Arc::new(Peers::new(own, Uid::parse("aaaaaa").unwrap()));
        let relay = Arc::new(Relay::new(peers, AdapterKind::Classic));
        let state = State::new(Parser::Json, Arc::default(), probe().0).0;
        let hub = HubRef::start(state, &Arbiter::current());
        let host = &relay.host;
        let sid = |n: u64| Sid::parse(&format!("Ab3dE6gH{n:022}")).unwrap();
        let full = MAX_MOVED as u64;
        let move_there = |n: u64| {
            // Nobody waits for an answer.
            _ = host.begin((to, n), None);
            let way = Leave::new(Arc::clone(&relay), hub.clone(), to, n);
            way.note_moved(sid(n), Revision::V4);
            way
        };
        let mut noted: Vec<_> = (1..=full).map(move_there).collect();
        let unnoted = move_there(full + 1);
        assert_eq!(host.revision_of_moved(&sid(full + 1)), None);
        assert!(!unnoted.has_ended(), "it lives");
        unnoted.be_over(&sid(full + 1));
        assert!(unnoted.has_ended());
        let noted = noted.pop().unwrap();
        noted.be_over(&sid(full));
        assert!(!noted.has_ended(), "its end will be heard");
        host.moved().end((to, full));
        assert!(noted.has_ended());
    }

    /// A bug: the table kept what it had at its largest.
    #[test]
    fn nothing_is_kept_of_requests_that_are_over() {
        let host = Host::default();
        let from = InstanceId::parse("Zy9xW7vU").unwrap();
        let fill = || (0..10_000).for_each(|n| drop(host.begin((from, n), None)));
        let capacity = || host.lock().capacity();
        fill();
        for n in 0..10_000 {
            host.forget((from, n));
        }
        assert!(capacity() <= 64, "{}", capacity());
        fill();
        host.lose(|_, _| true);
        assert!(capacity() <= 64, "{}", capacity());
    }
}
