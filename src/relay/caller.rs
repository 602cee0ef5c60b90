//! The instance that got a request for a session of another: sends it there and awaits the answer.
//!
//! A table of what is under way, bounded by [`MAX_CALLS`]. A call that is dropped, because its client went away, is aborted at the
//! host.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    Crowded, Relay,
    host::Host,
    wire::{self, Body, Message, Request},
};
use crate::{
    engine_io::{
        dialect::Revision,
        handshake::HandshakeError,
        sid::{InstanceId, Sid},
    },
    hub::arrivals::ArrivalId,
    shrink::shrink,
    socket::backlogs::{Backlogs, Held},
};

/// Requests that may be under way to other instances at a time: most of them parked polls.
pub(super) const MAX_CALLS: usize = 16_384;

/// Bytes of what may have been said about one session that moves here and not been looked at: it does not as long as it is arriving. One
/// thing alone may be longer.
const MAX_SAID_BYTES: usize = 8 << 20;

/// What each of these takes beside its text.
const SAID_BYTES: usize = 256;

/// What the client is answered.
pub type Answer = wire::Answer;

#[derive(Debug)]
struct Waiting {
    to: InstanceId,
    begun: Instant,
    reply: Reply,
}

/// Who waits.
#[derive(Debug)]
enum Reply {
    /// For one answer.
    Once(oneshot::Sender<Answer>),
    /// For all that is said about a session that moves here.
    All(Ear),
}

/// Something that was said about a session that moves here, counted until it is looked at.
#[derive(Debug)]
struct Said {
    answer: Answer,
    _of_session: Held,
    _of_all: Held,
}

/// Where that goes. Cheap to clone.
#[derive(Clone, Debug)]
struct Ear {
    said: mpsc::UnboundedSender<Said>,
    /// What waits there.
    waiting: Arc<Backlogs>,
}

impl Ear {
    /// Takes something. Returns whether it could: not if too much waits, for this session or for all clients, or nobody listens.
    fn hear(&self, host: &Host, answer: Answer) -> bool {
        let len = SAID_BYTES + len_bytes(&answer);
        let is_session = matches!(answer, Answer::State(_));
        // The session has its own limit, and comes before all else. What follows it may wait beside it.
        let own_len = if is_session { SAID_BYTES } else { len };
        let of_session = Held::bytes(&self.waiting, own_len);
        let waiting = self.waiting.taken();
        if waiting > own_len && (is_session || waiting > MAX_SAID_BYTES) {
            return false;
        }
        if !is_session && host.is_too_much(waiting) {
            host.count_refused();
            return false;
        }
        let said = Said {
            answer,
            _of_session: of_session,
            _of_all: host.held(len),
        };
        self.said.send(said).is_ok()
    }
}

/// Returns how many bytes something takes that is said.
fn len_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::State(bytes)
        | Answer::Done { args: bytes, .. }
        | Answer::More { packet: bytes, .. }
        | Answer::Data { json: bytes, .. }
        | Answer::Payload(Body { bytes, .. }) => bytes.len(),
        Answer::Ready { namespaces, .. } | Answer::Again { namespaces } => {
            namespaces.iter().map(|name| name.as_str().len()).sum()
        }
        Answer::Ok
        | Answer::Refused
        | Answer::Crowded
        | Answer::Error { .. }
        | Answer::End
        | Answer::Over
        | Answer::Lost => 0,
    }
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<u64, Waiting>,
    num_begun: u64,
    is_closed: bool,
}

impl State {
    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let call = self.calls.remove(&id);
        shrink(&mut self.calls);
        call
    }
}

/// Requests that are under way.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<State>);

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics in there; if it did, the table would still be one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call; `None` if too many are under way, or this instance is stopping.
    fn begin(&self, to: InstanceId, reply: Reply) -> Option<u64> {
        let mut state = self.lock();
        if state.is_closed || state.calls.len() >= MAX_CALLS {
            return None;
        }
        let id = state.num_begun;
        state.num_begun += 1;
        let begun = Instant::now();
        state.calls.insert(id, Waiting { to, begun, reply });
        Some(id)
    }

    /// Forgets a call; returns whether it was still under way.
    fn end(&self, id: u64) -> bool {
        self.lock().remove(id).is_some()
    }

    /// Hands an answer to whoever waits for it. One from an instance that was not asked is none.
    pub(super) fn answer(&self, host: &Host, from: InstanceId, id: u64, answer: Answer) {
        let mut state = self.lock();
        let Some(call) = state.calls.get(&id).filter(|call| call.to == from) else {
            return;
        };
        if let Reply::All(ear) = &call.reply {
            // Who does not keep up loses the rest, and knows it by the end.
            if !ear.hear(host, answer) {
                state.remove(id);
            }
            return;
        }
        if let Some(Reply::Once(reply)) = state.remove(id).map(|call| call.reply) {
            // The client may have gone away just now; the host learns of it by the call's abort.
            _ = reply.send(answer);
        }
    }

    /// Returns where all that an instance says about a session that moves here goes.
    fn listener(&self, from: InstanceId, id: u64) -> Option<Ear> {
        match self.lock().calls.get(&id) {
            Some(Waiting {
                to,
                reply: Reply::All(ear),
                ..
            }) if *to == from => Some(ear.clone()),
            _ => None,
        }
    }

    /// Returns who is waited for.
    pub(super) fn peers(&self) -> HashSet<InstanceId> {
        self.lock().calls.values().map(|call| call.to).collect()
    }

    /// Fails all calls, and every later one.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.calls = HashMap::new();
    }

    /// Fails some calls: to whom, and begun when.
    pub(super) fn lose(&self, is_lost: impl Fn(InstanceId, Instant) -> bool) {
        let calls = &mut self.lock().calls;
        calls.retain(|_, call| !is_lost(call.to, call.begun));
        shrink(calls);
    }
}

/// The way to a session that moves here, or has, for one thing that is said about it where it comes from.
#[derive(Debug)]
pub struct Listener {
    relay: Arc<Relay>,
    id: u64,
    to: Ear,
}

impl Listener {
    /// Says it. If it cannot be taken the call ends: a session that waits for what got lost must know that it does not come.
    pub fn hand(self, answer: Answer) {
        if !self.to.hear(&self.relay.host, answer) {
            self.relay.calls.end(self.id);
        }
    }
}

/// A request that is under way. Dropped before it is answered, it is aborted.
#[derive(Debug)]
pub struct Call {
    relay: Arc<Relay>,
    to: InstanceId,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    /// Whether what was said was heard, as far as that was not looked at yet, in that order.
    heard: VecDeque<oneshot::Receiver<usize>>,
    /// Of a GET, the session that loses what is answered if nobody is there to take it.
    polled: Option<Sid>,
    /// Whether the host needs to hear no more of it.
    is_over: bool,
}

impl Call {
    fn begin(
        relay: &Arc<Relay>,
        to: InstanceId,
        request: Request,
        polled: Option<Sid>,
    ) -> Option<Self> {
        let (reply, answer) = oneshot::channel();
        let id = relay.calls.begin(to, Reply::Once(reply))?;
        let heard = relay.send(to, id, &Message::Request(request));
        Some(Self {
            relay: Arc::clone(relay),
            to,
            id,
            answer,
            heard: [heard].into(),
            polled,
            is_over: false,
        })
    }

    /// Awaits the answer. Of a host that is not there, or cannot be reached, or has not heard all that was said to it, it is that the
    /// session is unknown. May be dropped and called again.
    pub async fn answer(&mut self) -> Answer {
        let answer = self.hear().await;
        self.is_over |= answer.is_some();
        answer.unwrap_or(Answer::Error {
            code: HandshakeError::SessionIdUnknown.code(),
        })
    }

    async fn hear(&mut self) -> Option<Answer> {
        while let Some(heard) = self.heard.front_mut() {
            let num_heard = heard.await;
            self.heard.pop_front();
            if !matches!(num_heard, Ok(1..)) {
                // There is no host, or nobody knows.
                self.is_over = num_heard == Ok(0);
                return None;
            }
        }
        (&mut self.answer).await.ok()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Answered between the last look and now counts as aborted, too: nobody got that answer.
        self.relay.calls.end(self.id);
        if !self.is_over {
            let sid = self.polled.map(|sid| sid.as_str().to_owned());
            let abort = Message::Request(Request::Abort { sid });
            self.relay.send(self.to, self.id, &abort);
        }
    }
}

/// A POST that is under way.
#[derive(Debug)]
pub struct PostCall(Call);

impl PostCall {
    /// Sends the body, which is in the binary form of revision 3 or is not.
    ///
    /// # Errors
    /// Too much waits to be sent already.
    pub fn send_body(&mut self, bytes: Bytes, is_binary: bool) -> Result<(), Crowded> {
        let Call { relay, to, id, .. } = &self.0;
        let body = Message::Request(Request::Body(Body { is_binary, bytes }));
        let heard = relay.send_for_client(*to, *id, &body)?;
        self.0.heard.push_back(heard);
        Ok(())
    }

    /// Says that the body was of a type that the revision does not know.
    pub fn send_wrong_type(&mut self) {
        let heard = self.send(Request::WrongType);
        self.0.heard.push_back(heard);
    }

    /// Says that the body was over the limit. The session survives, so this POST is over, and not aborted.
    pub fn send_too_large(mut self) {
        // Nobody waits for more.
        _ = self.send(Request::TooLarge);
        self.0.is_over = true;
    }

    fn send(&self, request: Request) -> oneshot::Receiver<usize> {
        let Call { relay, to, id, .. } = &self.0;
        relay.send(*to, *id, &Message::Request(request))
    }

    /// Awaits the answer; see [`Call::answer`].
    pub async fn answer(&mut self) -> Answer {
        self.0.answer().await
    }
}

/// A session that moves here, or has: the way to the instance that it comes from. Dropped before that instance has heard that it has
/// come, or that it has ended, it is aborted.
#[derive(Debug)]
pub struct MoveCall {
    relay: Arc<Relay>,
    sid: Sid,
    to: InstanceId,
    id: u64,
    answers: mpsc::UnboundedReceiver<Said>,
    /// Whether the client counts on the move: then the session ends with it.
    is_final: bool,
    /// Whether the host needs to hear no more of it.
    is_over: bool,
}

/// How to tell the instance that a session came from something about it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Teller {
    relay: Arc<Relay>,
    to: InstanceId,
    id: u64,
}

impl Teller {
    /// Says something. Returns how many hear it, which fails if nobody knows. Whoever it is said to may be gone.
    pub fn tell(&self, request: Request) -> oneshot::Receiver<usize> {
        self.relay
            .send(self.to, self.id, &Message::Request(request))
    }

    /// Says something, and returns whether it was heard.
    pub async fn tell_surely(&self, request: Request) -> bool {
        matches!(self.tell(request).await, Ok(1..))
    }
}

impl MoveCall {
    /// Returns by which the hub knows the session while it is on its way.
    pub fn arrival(&self) -> ArrivalId {
        ArrivalId {
            from: self.to,
            number: self.id,
        }
    }

    /// Returns the session's id.
    pub fn sid(&self) -> &Sid {
        &self.sid
    }

    /// Returns the marker ADOPT.
    pub fn marker(&self) -> Bytes {
        self.relay.encode(self.id, &Message::Adopt { to: self.to })
    }

    /// Returns how to say something.
    pub fn teller(&self) -> Teller {
        Teller {
            relay: Arc::clone(&self.relay),
            to: self.to,
            id: self.id,
        }
    }

    /// Notes that the client counts on the move from now on.
    pub fn is_wanted(&mut self) {
        self.is_final = true;
    }

    /// Returns what the host says next; `None` if it says no more: it is gone, or cannot be heard.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await.map(|said| said.answer)
    }

    /// Polls for what the host says next; see [`Self::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let said = self.answers.poll_recv(cx);
        said.map(|said| said.map(|said| said.answer))
    }

    /// Tells the host that the session, which has come, has ended.
    pub fn end(self) {
        self.listen_no_more().tell(Request::Ended);
    }

    /// Listens to no more that the host says about the session, which has come. Returns how to say that it has ended, which is owed to the
    /// host yet: it judges by it who still asks there.
    pub fn listen_no_more(mut self) -> Teller {
        self.is_over = true;
        self.teller()
    }
}

impl Drop for MoveCall {
    fn drop(&mut self) {
        self.relay.calls.end(self.id);
        if !self.is_over {
            let sid = self.is_final.then(|| self.sid.as_str().to_owned());
            self.teller().tell(Request::Abort { sid });
        }
    }
}

impl Relay {
    /// Asks for a session that is to move here; `None` if too much is under way.
    pub(super) fn move_here(
        self: &Arc<Self>,
        sid: &Sid,
        revision: Revision,
    ) -> Option<(MoveCall, oneshot::Receiver<usize>)> {
        let (said, answers) = mpsc::unbounded_channel();
        let waiting = Arc::new(Backlogs::new(MAX_SAID_BYTES));
        let to = sid.owner();
        let id = self.calls.begin(to, Reply::All(Ear { said, waiting }))?;
        let request = Request::Upgrade {
            sid: sid.as_str().to_owned(),
            revision,
        };
        let heard = self.send(to, id, &Message::Request(request));
        let call = MoveCall {
            relay: Arc::clone(self),
            sid: *sid,
            to,
            id,
            answers,
            is_final: false,
            is_over: false,
        };
        Some((call, heard))
    }

    /// Returns the way to whoever hears all that an instance says about a session that moves here.
    pub(super) fn listener(self: &Arc<Self>, from: InstanceId, id: u64) -> Option<Listener> {
        let relay = Arc::clone(self);
        let to = self.calls.listener(from, id)?;
        Some(Listener { relay, id, to })
    }

    /// Returns the revision of a session of this instance that lives at another one now, on its WebSocket.
    pub fn revision_of_moved(&self, sid: &Sid) -> Option<Revision> {
        self.host.revision_of_moved(sid)
    }

    /// Returns whether a session of this id could live at another instance.
    pub fn is_elsewhere(&self, sid: &Sid) -> bool {
        sid.owner() != self.own
    }

    /// Passes a GET on; `None` if too much is under way.
    pub fn poll(self: &Arc<Self>, sid: &Sid, revision: Revision) -> Option<Call> {
        let request = Request::Poll {
            sid: sid.as_str().to_owned(),
            revision,
        };
        Call::begin(self, sid.owner(), request, Some(*sid))
    }

    /// Passes the head of a POST on; `None` if too much is under way.
    pub fn post(self: &Arc<Self>, sid: &Sid, revision: Revision) -> Option<PostCall> {
        let request = Request::Post {
            sid: sid.as_str().to_owned(),
            revision,
        };
        Call::begin(self, sid.owner(), request, None).map(PostCall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::{kind::AdapterKind, uid::Uid},
        hub::testing::probe,
        peers::Peers,
        redis_bridge::messages::ForBridge,
    };
    use std::time::Duration;

    fn relay() -> Arc<Relay> {
        let own = InstanceId::parse("Zy9xW7vU").unwrap();
        let peers = Peers::new(own, Uid::parse("aaaaaa").unwrap());
        Arc::new(Relay::new(Arc::new(peers), AdapterKind::Classic))
    }

    fn sid() -> Sid {
        Sid::parse(&format!("Ab3dE6gH{:022}", 0)).unwrap()
    }

    fn data(at: u32, len: usize) -> Answer {
        let json = Bytes::from(vec![b' '; len]);
        Answer::Data { at, json }
    }

    async fn at_of_next(call: &mut MoveCall) -> Option<u32> {
        match call.next().await? {
            Answer::Data { at, .. } => Some(at),
            answer => panic!("{answer:?}"),
        }
    }

    /// A bug: nobody looked whether it was, and the client waited for the owner's answer until its session was over.
    #[actix_rt::test]
    async fn a_post_whose_body_is_not_heard_is_answered_at_once() {
        let relay = relay();
        let (bridge, mut to_bridge) = probe();
        relay.bridge.set(bridge).unwrap();
        let mut call = relay.post(&sid(), Revision::V4).unwrap();
        let mut receipt = async || match to_bridge.recv().await {
            Some(ForBridge::Send { receipt, .. }) => receipt,
            other => panic!("{other:?}"),
        };
        receipt().await.send(1).unwrap();
        call.send_body(Bytes::from_static(b"40"), false).unwrap();
        drop(receipt().await);
        let answered = tokio::time::timeout(Duration::from_secs(10), call.answer()).await;
        assert!(
            matches!(answered, Ok(Answer::Error { code: 1 })),
            "{answered:?}"
        );
        // Who has its head is told that no body comes.
        drop(call);
        drop(receipt().await);
    }

    /// A bug: what it could not take was gone without a trace, and it waited for the end of a handler for good.
    #[actix_rt::test]
    async fn a_session_that_could_not_take_all_that_is_said_about_it_hears_the_end() {
        const MEBIBYTE: usize = 1 << 20;
        let relay = relay();
        let (mut call, _heard) = relay.move_here(&sid(), Revision::V4).unwrap();
        let (from, id) = (sid().owner(), call.id);
        let listener = || relay.listener(from, id);
        assert!(
            relay.listener(relay.own, id).is_none(),
            "another says nothing"
        );
        for at in 0..8 {
            listener().unwrap().hand(data(at, MEBIBYTE - SAID_BYTES));
        }
        assert_eq!(at_of_next(&mut call).await, Some(0));
        // What was looked at makes room for others.
        listener().unwrap().hand(data(8, MEBIBYTE - SAID_BYTES));
        listener().unwrap().hand(data(9, 0));
        for expected in 1..9 {
            assert_eq!(at_of_next(&mut call).await, Some(expected));
        }
        assert!(call.next().await.is_none());
        assert!(listener().is_none());
    }

    /// A bug: a thousand small things were more than it could take.
    #[actix_rt::test]
    async fn what_is_said_about_a_session_is_bounded_by_its_bytes() {
        let relay = relay();
        let (mut call, _heard) = relay.move_here(&sid(), Revision::V4).unwrap();
        let num = u32::try_from(MAX_SAID_BYTES / SAID_BYTES).unwrap();
        let answer = |answer| {
            relay
                .calls
                .answer(&relay.host, sid().owner(), call.id, answer)
        };
        for at in 0..=num {
            answer(data(at, 0));
        }
        for expected in 0..num {
            assert_eq!(at_of_next(&mut call).await, Some(expected));
        }
        assert!(call.next().await.is_none());
    }

    #[actix_rt::test]
    async fn a_session_may_be_longer_and_so_may_one_thing_that_is_said_about_it() {
        let relay = relay();
        let (mut call, _heard) = relay.move_here(&sid(), Revision::V4).unwrap();
        let (from, id) = (sid().owner(), call.id);
        let answer = |answer| relay.calls.answer(&relay.host, from, id, answer);
        let state = || Answer::State(Bytes::from(vec![0; 3 * MAX_SAID_BYTES]));
        answer(state());
        answer(data(0, MAX_SAID_BYTES - 2 * SAID_BYTES));
        assert_eq!(call.next().await, Some(state()));
        assert_eq!(at_of_next(&mut call).await, Some(0));
        answer(data(1, 3 * MAX_SAID_BYTES));
        assert_eq!(at_of_next(&mut call).await, Some(1));
        // But it comes first, and once.
        answer(state());
        answer(state());
        assert_eq!(call.next().await, Some(state()));
        assert!(call.next().await.is_none());
    }

    /// A bug: the table kept what it had at its largest.
    #[test]
    fn nothing_is_kept_of_calls_that_have_ended() {
        let calls = Calls::default();
        let begin = || calls.begin(sid().owner(), Reply::Once(oneshot::channel().0));
        let capacity = || calls.lock().calls.capacity();
        let ids: Vec<_> = (0..MAX_CALLS).map(|_| begin().unwrap()).collect();
        for id in ids {
            calls.end(id);
        }
        assert!(capacity() <= 64, "{}", capacity());
        while begin().is_some() {}
        calls.lose(|_, _| true);
        assert!(capacity() <= 64, "{}", capacity());
    }
}
