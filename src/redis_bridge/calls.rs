//! Questions that this instance has put to others and whose answers may still come.
//!
//! A table, without connection or clock: whoever calls it says what time it is. What others say is bounded for each question
//! by [`MAX_ANSWERS_BYTES`]; an answer that nobody waits for (any more) is for nobody. Whoever asked decides when it has
//! heard enough, by dropping its end.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    adapter::{request::RequestId, uid::Uid},
    engine_io::sid::InstanceId,
    hub::question::{Answer, Answers, Question},
    socket::snapshot::{HandshakeSnapshot, SocketSnapshot},
    socket_io::ids::Namespace,
};

/// Bytes that all answers to one question may take; what comes behind them is dropped, and will be missed.
pub(super) const MAX_ANSWERS_BYTES: usize = 64 << 20;
/// What an answer, an id, a room, a header takes in memory besides its bytes: on the wire, an empty one has three.
const OVERHEAD: usize = 64;
/// Questions that may be open at a time.
const MAX_CALLS: usize = 65_536;
/// How often it is looked for room if there are that many.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long an entry is kept behind the time that its asker waits: it is swept away some time after.
const GRACE: Duration = Duration::from_secs(1);
/// How long an entry is kept at most: an application may wait for longer than the clock can hold, and nobody hears so long.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What whoever asks wants of sockets that others tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// All of it.
    Sockets,
    /// Their ids.
    Ids,
    /// Their rooms, each once.
    Rooms,
}

impl Wants {
    /// Returns what a question wants.
    pub(super) fn of(question: &Question) -> Self {
        match question {
            Question::SocketIds { .. } => Self::Ids,
            Question::Rooms => Self::Rooms,
            Question::Sockets { .. }
            | Question::Broadcast { .. }
            | Question::ServerEvent { .. } => Self::Sockets,
        }
    }

    fn part_of(self, answer: Answer) -> Answer {
        match (self, answer) {
            (Self::Ids, Answer::Sockets(sockets)) => {
                Answer::SocketIds(sockets.into_iter().map(|socket| socket.id).collect())
            }
            (Self::Rooms, Answer::Sockets(sockets)) => {
                let rooms: HashSet<_> = sockets
                    .into_iter()
                    .flat_map(|socket| socket.rooms)
                    .collect();
                Answer::Rooms(rooms.into_iter().collect())
            }
            (_, answer) => answer,
        }
    }
}

/// Returns about how many bytes an answer takes besides those that it has on the wire.
fn overhead_bytes(answer: &Answer) -> usize {
    let of_socket = |socket: &SocketSnapshot| {
        let HandshakeSnapshot { headers, query, .. } = &socket.handshake;
        let num_texts = headers.iter().count() + query.iter().count() + socket.rooms.len();
        size_of::<SocketSnapshot>() + num_texts * OVERHEAD
    };
    let of_parts = match answer {
        Answer::SocketIds(ids) => ids.len() * OVERHEAD,
        Answer::Rooms(rooms) => rooms.len() * OVERHEAD,
        Answer::Sockets(sockets) => sockets.iter().map(of_socket).sum(),
        // The first three are no answers of others; the others are kept as they came, or not at all.
        Answer::Asked { .. }
        | Answer::Unreachable { .. }
        | Answer::OfOther { .. }
        | Answer::Found(_)
        | Answer::NumClients(_)
        | Answer::OneMore
        | Answer::Ack(_)
        | Answer::Unkept
        | Answer::ServerReply(_) => 0,
    };
    OVERHEAD + of_parts
}

#[derive(Debug)]
struct Call {
    namespace: Namespace,
    wants: Wants,
    answers: Answers,
    deadline: Instant,
    bytes_left: usize,
}

impl Call {
    fn is_over(&self, now: Instant) -> bool {
        self.answers.is_closed() || now > self.deadline
    }
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<RequestId, Call>,
    num_begun: u64,
    /// How many may be there before the next sweep.
    sweep_at: usize,
    /// When there was one last.
    swept: Option<Instant>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Calls {
    uid: Uid,
    state: Mutex<State>,
}

impl Calls {
    /// Returns an empty table of the instance `uid`, whose name is part of every id: others hear them all.
    pub(super) fn new(uid: Uid) -> Self {
        Self {
            uid,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics in there; if it did, the table would still be one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a question and returns its id; `None` if too many are open.
    pub(super) fn begin(
        &self,
        now: Instant,
        namespace: Namespace,
        wants: Wants,
        answers: Answers,
        timeout: Duration,
    ) -> Option<RequestId> {
        let mut state = self.lock();
        let is_full = state.calls.len() >= MAX_CALLS;
        let is_swept = state
            .swept
            .is_some_and(|swept| now < swept + SWEEP_INTERVAL);
        if state.calls.len() >= state.sweep_at || (is_full && !is_swept) {
            state.calls.retain(|_, call| !call.is_over(now));
            // So each entry is looked at a bounded number of times, and all of them not too often if they are many and stay.
            state.sweep_at = 64 + 2 * state.calls.len();
            state.swept = Some(now);
        }
        if state.calls.len() >= MAX_CALLS {
            return None;
        }
        let id = RequestId::of_ours(&self.uid, state.num_begun);
        state.num_begun += 1;
        let call = Call {
            namespace,
            wants,
            answers,
            deadline: now + timeout.min(MAX_TIME) + GRACE,
            bytes_left: MAX_ANSWERS_BYTES,
        };
        state.calls.insert(id.clone(), call);
        Some(id)
    }

    /// Returns whether anybody waits for answers to a question that was put in a namespace.
    pub(super) fn is_asked(&self, namespace: &Namespace, id: &RequestId) -> bool {
        let state = self.lock();
        let call = state.calls.get(id);
        call.is_some_and(|call| call.namespace == *namespace)
    }

    /// Hands an answer of `len_bytes` on the wire, of the instance `by` if it is one of ours, to whoever asked. Returns whether anybody
    /// did, and it was not too much.
    pub(super) fn answer(
        &self,
        namespace: &Namespace,
        id: &RequestId,
        by: Option<InstanceId>,
        answer: Answer,
        len_bytes: usize,
    ) -> bool {
        let mut state = self.lock();
        let Some(call) = state
            .calls
            .get_mut(id)
            .filter(|call| call.namespace == *namespace)
        else {
            return false;
        };
        let cost = len_bytes + overhead_bytes(&answer);
        let Some(bytes_left) = call.bytes_left.checked_sub(cost) else {
            return false;
        };
        call.bytes_left = bytes_left;
        let answer = Answer::OfOther {
            by,
            answer: Box::new(call.wants.part_of(answer)),
        };
        if call.answers.send(answer).is_err() {
            state.calls.remove(id);
        }
        true
    }

    /// Forgets a question: all is heard, or nothing will be.
    pub(super) fn end(&self, id: &RequestId) {
        self.lock().calls.remove(id);
    }

    /// Tells all who wait that others cannot be heard any more.
    pub(super) fn fail_all(&self, reason: &str) {
        let mut state = self.lock();
        for (_, call) in state.calls.drain() {
            // Whoever asked may have given up.
            _ = call.answers.send(Answer::Unreachable {
                reason: reason.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn calls() -> Calls {
        Calls::new(Uid::parse("abcdef").unwrap())
    }

    fn begin(calls: &Calls, now: Instant) -> (RequestId, mpsc::UnboundedReceiver<Answer>) {
        let (answers, received) = mpsc::unbounded_channel();
        let timeout = Duration::from_secs(5);
        (
            calls
                .begin(now, "/a".into(), Wants::Sockets, answers, timeout)
                .unwrap(),
            received,
        )
    }

    /// Returns what another instance has answered.
    fn said(got: &mut mpsc::UnboundedReceiver<Answer>) -> Option<Answer> {
        match got.try_recv() {
            Ok(Answer::OfOther { answer, .. }) => Some(*answer),
            _ => None,
        }
    }

    #[test]
    fn answers_reach_who_asked_and_nobody_else() {
        let calls = calls();
        let now = Instant::now();
        let (first, mut first_got) = begin(&calls, now);
        let (second, mut second_got) = begin(&calls, now);
        assert_ne!(first, second);
        assert!(calls.answer(&"/a".into(), &second, None, Answer::NumClients(7), 10));
        assert!(matches!(said(&mut second_got), Some(Answer::NumClients(7))));
        assert!(first_got.try_recv().is_err());
        let unknown = RequestId::from("unknown");
        for (namespace, id) in [("/a", &unknown), ("/b", &first)] {
            assert!(!calls.answer(&namespace.into(), id, None, Answer::NumClients(1), 1));
        }
        assert!(first_got.try_recv().is_err());
    }

    #[test]
    fn a_question_cannot_be_answered_without_end() {
        let calls = calls();
        let (id, mut got) = begin(&calls, Instant::now());
        let namespace = "/a".into();
        let half = MAX_ANSWERS_BYTES / 2 - OVERHEAD;
        assert!(calls.answer(&namespace, &id, None, Answer::NumClients(1), half));
        assert!(!calls.answer(&namespace, &id, None, Answer::NumClients(2), half + 1));
        assert!(calls.answer(&namespace, &id, None, Answer::NumClients(3), half));
        assert!(!calls.answer(&namespace, &id, None, Answer::NumClients(4), 1));
        assert!(matches!(said(&mut got), Some(Answer::NumClients(1))));
        assert!(matches!(said(&mut got), Some(Answer::NumClients(3))));
        assert!(got.try_recv().is_err());
    }

    /// A bug: an answer counted by its bytes on the wire, where an empty id takes three, and some ten times as many in memory.
    #[test]
    fn an_answer_counts_by_what_it_takes_in_memory() {
        let calls = calls();
        let namespace = "/a".into();
        let (id, _got) = begin(&calls, Instant::now());
        let ids = |num| Answer::SocketIds(vec!["".into(); num]);
        let rooms = |num| Answer::Rooms(vec!["".into(); num]);
        let num = MAX_ANSWERS_BYTES / OVERHEAD / 2;
        assert!(!calls.answer(&namespace, &id, None, ids(2 * num), 2 * num * 3));
        assert!(calls.answer(&namespace, &id, None, ids(num), 3));
        assert!(!calls.answer(&namespace, &id, None, rooms(num), 3));
        let socket = SocketSnapshot::from_json(r#"{"id":"a"}"#).unwrap();
        let sockets = |num| Answer::Sockets(vec![socket.clone(); num]);
        let num = MAX_ANSWERS_BYTES / 2 / size_of::<SocketSnapshot>();
        assert!(!calls.answer(&namespace, &id, None, sockets(num), 3));
        assert!(calls.answer(&namespace, &id, None, sockets(num / 2), 3));
    }

    #[test]
    fn who_gave_up_or_asked_long_ago_leaves_no_trace() {
        let calls = calls();
        let now = Instant::now();
        let (id, got) = begin(&calls, now);
        drop(got);
        assert!(calls.answer(&"/a".into(), &id, None, Answer::NumClients(1), 1));
        assert!(!calls.answer(&"/a".into(), &id, None, Answer::NumClients(1), 1));
        let kept: Vec<_> = (0..1000).map(|_| begin(&calls, now)).collect();
        let later = now + Duration::from_secs(60);
        for _ in 0..2000 {
            begin(&calls, later);
        }
        assert!(calls.lock().calls.len() < 1000, "all who asked are over");
        drop(kept);
    }

    /// A bug: once that many were open, whose askers gave up only then, no question was put any more.
    #[test]
    fn there_is_room_again_when_many_have_given_up() {
        let calls = calls();
        let now = Instant::now();
        let mut waiting: Vec<_> = (0..MAX_CALLS).map(|_| begin(&calls, now)).collect();
        let one_more = |now| {
            let (answers, _) = mpsc::unbounded_channel();
            let minute = Duration::from_secs(60);
            calls.begin(now, "/a".into(), Wants::Sockets, answers, minute)
        };
        assert!(one_more(now).is_none());
        waiting.truncate(10);
        assert!(one_more(now).is_none(), "it was looked for just before");
        assert!(one_more(now + SWEEP_INTERVAL).is_some());
        assert!(calls.lock().calls.len() <= 11);
    }

    #[test]
    fn who_waits_for_ever_is_no_more_than_the_clock_can_hold() {
        let calls = calls();
        let (answers, _received) = mpsc::unbounded_channel();
        let now = Instant::now();
        let id = calls.begin(now, "/a".into(), Wants::Sockets, answers, Duration::MAX);
        assert!(calls.answer(&"/a".into(), &id.unwrap(), None, Answer::NumClients(1), 1));
    }

    #[test]
    fn all_who_wait_are_told_when_nobody_can_be_heard() {
        let calls = calls();
        let (id, mut got) = begin(&calls, Instant::now());
        calls.fail_all("gone");
        assert!(matches!(got.try_recv(), Ok(Answer::Unreachable { reason }) if reason == "gone"));
        assert!(got.blocking_recv().is_none(), "nothing more can come");
        assert!(!calls.answer(&"/a".into(), &id, None, Answer::NumClients(1), 1));
    }
}
