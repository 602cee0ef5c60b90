//! What passes here while sessions of other instances are moving here: so that each gets what is its own, once.
//!
//! Plain struct: no actor, no clock. A log of what goes to sockets, kept only while somebody is expected, bounded by
//! [`MAX_LOG_BYTES`]; and for each session that is expected, which part of the log is for it. All that is kept for one is behind the place
//! at which it began to be expected, so what nobody needs any more is always at the front.
//!
//! # Why nothing is lost, doubled or reordered
//!
//! Session S moves from A to B. One Redis gives all that is published one order, in which every subscriber gets it; and what one
//! instance publishes keeps its own order in that. Two markers divide the work:
//!
//! ```text
//! order of Redis ────── b₁ ── a₁ ── n₁ ──[ADOPT]── n₂ ── a₂ ── b₂ ── n₃ ──[END]── a₃ ── n₄ ──▶
//! for S it is            A     A     A              B     A     B     B            B     B
//! ```
//! ADOPT is published by B, in line with all that B publishes; END by A, in line with all that A publishes.
//! - Of others (n): A's hub takes ADOPT in line with what it hears, and in that very turn S is no member of it any more. So A has
//!   delivered what comes before ADOPT, and nothing behind it. B logs what it hears behind its own ADOPT.
//! - Of B itself (b): what B's clients send is delivered at B before Redis has it. B's hub begins to log it in the very turn in
//!   which it publishes ADOPT: what was sent before that comes before ADOPT, and so is A's; all else is in the log.
//! - Of A itself (a): what A's clients send is delivered to S at A until the turn in which S leaves A's hub, which publishes END.
//!   So A has delivered all of its own that comes before END: B skips it, and takes what comes behind.
//!
//! Each publisher's messages come from the log in the order in which they came in, behind what S brings along, and before
//! what is delivered to S as a member of B. No counting is needed, so what gets lost on the way (an outage drops what waits) moves nothing.
//!
//! This needs the one order. A Redis Cluster has none, and the sharded adapter would need channels of rooms that only A knows: sessions
//! do not move there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    command::Command,
    freight,
    interest::Registering,
    question::{Answers, Question},
};
use crate::{
    adapter::uid::Uid,
    engine_io::{encoded::Encoded, sid::InstanceId},
    shrink::shrink,
    socket_io::ids::Namespace,
};

/// Bytes of what may be logged, and of questions that wait: beyond it whoever has been expected longest is given up.
pub const MAX_LOG_BYTES: usize = 16 * 1024 * 1024;

/// What an entry, or a question that waits, takes beside what is in it, about.
const ENTRY_BYTES: usize = 256;

/// Sessions that may be expected at a time. One more is given up at once: what is done for each must not take the hub's time for all.
pub const MAX_EXPECTED: usize = 4096;

/// Questions that may wait until those who are expected have come.
const MAX_WAITING_QUESTIONS: usize = 1024;

/// Names a session that is expected: from whom, and the number of the call about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrivalId {
    /// Where it comes from.
    pub from: InstanceId,
    /// Which one.
    pub number: u64,
}

/// Something that went to sockets.
#[derive(Debug)]
pub(super) struct Entry<E> {
    /// What.
    pub(super) what: E,
    origin: Origin,
    bytes: usize,
}

/// Where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This instance.
    Own,
    /// Another server, which may have said its name.
    Other(Option<String>),
}

impl Origin {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Own => 0,
            Self::Other(uid) => uid.as_ref().map_or(0, String::len),
        }
    }
}

/// What is written into the log. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A command, for this instance's sockets among others.
    Command(Arc<Noted>),
    /// An event that receivers are to acknowledge.
    Asked {
        /// In which namespace.
        namespace: Namespace,
        /// Which question waits for it.
        question: u64,
    },
}

impl What {
    /// Returns the namespace that it is about.
    pub(super) fn namespace(&self) -> &Namespace {
        match self {
            Self::Command(noted) => noted.command.namespace(),
            Self::Asked { namespace, .. } => namespace,
        }
    }

    /// Returns how many bytes an encoded form takes that is kept with it.
    fn kept_bytes(&self) -> usize {
        match self {
            Self::Command(noted) => noted.message().map_or(0, |message| message.held_bytes()),
            Self::Asked { .. } => 0,
        }
    }
}

/// A command that was noted.
#[derive(Debug)]
pub(super) struct Noted {
    /// What is to be done.
    pub(super) command: Command,
    message: OnceLock<Arc<Encoded>>,
}

impl Noted {
    /// Returns the event as it is sent, if that is kept; see [`Arrivals::keep`].
    pub(super) fn message(&self) -> Option<&Arc<Encoded>> {
        self.message.get()
    }
}

/// A session that is expected. `M` is what it becomes a member with.
#[derive(Debug)]
struct Arrival<M> {
    former: Uid,
    /// Its place in the order in which they began to be expected.
    turn: u64,
    /// Where the log was when ADOPT was published: what is ours and behind it is for it.
    begun: u64,
    /// The number of the first question that waits for it.
    first_asked: u64,
    /// Where the log was when ADOPT was heard: what is others' and behind it is for it.
    marked: Option<u64>,
    /// Where the log was when END was heard: what is of `former` and before it is not.
    ended: Option<u64>,
    members: Option<M>,
    _registering: Registering,
}

/// A session that has come.
#[derive(Debug)]
pub(super) struct Arrived<M> {
    former: Uid,
    begun: u64,
    marked: u64,
    ended: u64,
    /// What it becomes a member with.
    pub(super) members: M,
    // Until it is one.
    _registering: Registering,
}

/// What is still to be done about a question, when those who are expected have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// The answer of this instance, to another.
    Answer,
    /// Nothing: whoever asked, at this instance, has heard of each client.
    Nothing,
    /// All: it was asked at this instance, and has not been put yet.
    All {
        /// How long others have.
        timeout: Duration,
        /// Whether nobody else is asked.
        is_local: bool,
    },
}

/// A question that waits for those who are expected.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What is to be done then.
    pub(super) owed: Owed,
    /// About which namespace.
    pub(super) namespace: Namespace,
    /// What.
    pub(super) question: Question,
    /// Where the answer goes.
    pub(super) answers: Answers,
    /// How many clients an event that it asks to send went to already.
    pub(super) num_clients: u64,
    bytes: usize,
}

/// Everything about those who are expected.
#[derive(Debug)]
pub(super) struct Arrivals<M> {
    log: VecDeque<Entry<What>>,
    /// The place of the log's front.
    first: u64,
    bytes: usize,
    limit_bytes: usize,
    expected: HashMap<ArrivalId, Arrival<M>>,
    /// Who is expected, by their turns.
    in_order: BTreeMap<u64, ArrivalId>,
    num_turns: u64,
    /// Each waits for all who were expected when it came.
    questions: VecDeque<Waiting>,
    /// The number of the front one.
    first_question: u64,
    /// Those that wait for nobody any more.
    ready: Vec<Waiting>,
}

impl<M> Default for Arrivals<M> {
    fn default() -> Self {
        Self {
            log: VecDeque::new(),
            first: 0,
            bytes: 0,
            limit_bytes: MAX_LOG_BYTES,
            expected: HashMap::new(),
            in_order: BTreeMap::new(),
            num_turns: 0,
            questions: VecDeque::new(),
            first_question: 0,
            ready: Vec::new(),
        }
    }
}

impl<M> Arrivals<M> {
    /// Returns whether nobody is expected: then nothing needs to be noted.
    pub(super) fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    fn next_question(&self) -> u64 {
        self.first_question + self.questions.len() as u64
    }

    fn oldest(&self) -> Option<ArrivalId> {
        self.in_order.first_key_value().map(|(_, id)| *id)
    }

    fn remove(&mut self, id: ArrivalId) -> Option<Arrival<M>> {
        let arrival = self.expected.remove(&id)?;
        shrink(&mut self.expected);
        self.in_order.remove(&arrival.turn);
        Some(arrival)
    }

    /// Expects a session of the instance that is called `former` on the bus. In the turn in which ADOPT is published. Returns whether there
    /// is room for it: if not, it is as one that was given up.
    pub(super) fn expect(&mut self, id: ArrivalId, former: Uid, registering: Registering) -> bool {
        self.remove(id);
        if self.expected.len() >= MAX_EXPECTED {
            return false;
        }
        let turn = self.num_turns;
        self.num_turns += 1;
        self.in_order.insert(turn, id);
        let arrival = Arrival {
            former,
            turn,
            begun: self.end(),
            first_asked: self.next_question(),
            marked: None,
            ended: None,
            members: None,
            _registering: registering,
        };
        self.expected.insert(id, arrival);
        true
    }

    /// Notes what goes to sockets, if anybody is expected. Returns who can be waited for no longer, because the log is full.
    pub(super) fn note(&mut self, command: &Command, origin: Origin) -> Vec<ArrivalId> {
        if self.is_empty() {
            return Vec::new();
        }
        if matches!(command, Command::ServerEvent { .. }) {
            return Vec::new();
        }
        let bytes = freight::len_bytes(command);
        let noted = Noted {
            command: command.clone(),
            message: OnceLock::new(),
        };
        self.push(What::Command(Arc::new(noted)), origin, bytes);
        self.make_room()
    }

    fn push(&mut self, what: What, origin: Origin, bytes: usize) {
        let bytes = ENTRY_BYTES + origin.len_bytes() + bytes;
        self.bytes += bytes;
        self.log.push_back(Entry {
            what,
            origin,
            bytes,
        });
    }

    /// Keeps the event of a command in the log as it is sent, for those who come later; not if somebody would have to be given up for it.
    /// Before [`Self::settle`].
    pub(super) fn keep(&mut self, noted: &Noted, message: &Arc<Encoded>) {
        let bytes = message.held_bytes();
        if self.bytes + bytes <= self.limit_bytes && noted.message.set(Arc::clone(message)).is_ok()
        {
            self.bytes += bytes;
        }
    }

    /// Gives up as many as it takes for the rest to be within the limit.
    fn make_room(&mut self) -> Vec<ArrivalId> {
        let mut given_up = Vec::new();
        while self.bytes > self.limit_bytes
            && let Some(id) = self.oldest()
        {
            self.remove(id);
            given_up.push(id);
            self.trim();
        }
        given_up
    }

    /// ADOPT was heard. Returns whether anybody waits for it.
    pub(super) fn mark(&mut self, id: ArrivalId) -> bool {
        let end = self.end();
        let arrival = self.expected.get_mut(&id);
        arrival.is_some_and(|arrival| {
            arrival.marked = Some(end);
            true
        })
    }

    /// END was heard. Returns the session if it is all there.
    pub(super) fn finish(&mut self, id: ArrivalId) -> Option<Arrived<M>> {
        let end = self.end();
        self.expected.get_mut(&id)?.ended = Some(end);
        self.take_whole(id)
    }

    /// The session has come. Returns it if it is all there; it is not before END.
    ///
    /// # Errors
    /// It is expected no longer; it is handed back.
    pub(super) fn bring(&mut self, id: ArrivalId, members: M) -> Result<Option<Arrived<M>>, M> {
        let Some(arrival) = self.expected.get_mut(&id) else {
            return Err(members);
        };
        arrival.members = Some(members);
        Ok(self.take_whole(id))
    }

    fn take_whole(&mut self, id: ArrivalId) -> Option<Arrived<M>> {
        let arrival = self.expected.get(&id)?;
        let (marked, ended) = (arrival.marked?, arrival.ended?);
        arrival.members.as_ref()?;
        let Arrival {
            former,
            begun,
            members,
            _registering,
            ..
        } = self.remove(id)?;
        Some(Arrived {
            former,
            begun,
            marked,
            ended,
            members: members?,
            _registering,
        })
    }

    /// Returns what is in the log for a session that has come, in its order. Before [`Self::settle`].
    pub(super) fn log_for(&self, arrived: &Arrived<M>) -> impl Iterator<Item = &What> {
        let skip = usize::try_from(arrived.begun - self.first).unwrap_or(usize::MAX);
        let (begun, marked, ended) = (arrived.begun, arrived.marked, arrived.ended);
        let former = arrived.former.as_str().to_owned();
        self.log
            .iter()
            .skip(skip)
            .zip(begun..)
            .filter(move |(entry, at)| match &entry.origin {
                Origin::Own => true,
                Origin::Other(uid) => {
                    *at >= marked && (*at >= ended || uid.as_deref() != Some(&*former))
                }
            })
            .map(|(entry, _)| &entry.what)
    }

    /// Gives somebody up. Returns whether it was expected.
    pub(super) fn give_up(&mut self, id: ArrivalId) -> bool {
        self.remove(id).is_some()
    }

    /// Drops what nobody who is expected needs, and returns the questions that wait for nobody any more.
    pub(super) fn settle(&mut self) -> Vec<Waiting> {
        self.trim();
        std::mem::take(&mut self.ready)
    }

    fn trim(&mut self) {
        let oldest = self.oldest().and_then(|id| self.expected.get(&id));
        let needed = oldest.map(|arrival| (arrival.begun, arrival.first_asked));
        let (begun, first_asked) = needed.unwrap_or_else(|| (self.end(), self.next_question()));
        while self.first < begun
            && let Some(entry) = self.log.pop_front()
        {
            self.bytes -= entry.bytes + entry.what.kept_bytes();
            self.first += 1;
        }
        while self.first_question < first_asked
            && let Some(waiting) = self.questions.pop_front()
        {
            self.bytes -= waiting.bytes;
            self.first_question += 1;
            self.ready.push(waiting);
        }
        // What one busy moment needed is not kept.
        shrink(&mut self.log);
        shrink(&mut self.questions);
    }

    /// Lets a question wait for those who are expected, since they are members nowhere at the moment: if it were answered now, they
    /// would be forgotten. An event that it asks to send has gone to `num_clients`, and is noted for those to come.
    /// Returns who can be waited for no longer. Only if [`Self::has_room`].
    pub(super) fn ask(
        &mut self,
        namespace: &Namespace,
        question: Question,
        answers: Answers,
        num_clients: u64,
        origin: Origin,
        owed: Owed,
    ) -> Vec<ArrivalId> {
        if matches!(question, Question::Broadcast { .. }) {
            let question = self.next_question();
            let namespace = namespace.clone();
            let asked = What::Asked {
                namespace,
                question,
            };
            self.push(asked, origin, 0);
        }
        let bytes = ENTRY_BYTES + namespace.as_str().len() + freight::question_bytes(&question);
        self.bytes += bytes;
        self.questions.push_back(Waiting {
            owed,
            namespace: namespace.clone(),
            question,
            answers,
            num_clients,
            bytes,
        });
        self.make_room()
    }

    /// Returns whether a question more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.questions.len() < MAX_WAITING_QUESTIONS
    }

    /// Returns a question that waits.
    pub(super) fn question(&mut self, number: u64) -> Option<&mut Waiting> {
        let at = number.checked_sub(self.first_question)?;
        self.questions.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{
            broadcast::{Broadcast, Target},
            interest::Interest,
        },
        socket_io::{args::Args, ids::Room},
    };
    use tokio::sync::mpsc;

    fn id(number: u64) -> ArrivalId {
        let from = InstanceId::parse("AAAAAAAA").unwrap();
        ArrivalId { from, number }
    }

    fn former() -> Uid {
        Uid::parse("aaaaaa").unwrap()
    }

    fn arrivals(ids: &[u64]) -> Arrivals<&'static str> {
        let mut arrivals = Arrivals::default();
        for number in ids {
            arrivals.expect(id(*number), former(), Interest::in_everything().register());
        }
        arrivals
    }

    fn event(name: &str) -> Command {
        let args = Args::from_parts(format!("[\"{name}\"]").into(), vec![]);
        Command::Broadcast(Broadcast::to_all("/".into(), args))
    }

    fn others() -> Origin {
        Origin::Other(Some("nnnnnn".to_owned()))
    }

    fn formers() -> Origin {
        Origin::Other(Some(former().as_str().to_owned()))
    }

    /// The names of the events that a session gets.
    fn got(arrivals: &Arrivals<&'static str>, arrived: &Arrived<&'static str>) -> String {
        let names = arrivals.log_for(arrived).map(|what| match what {
            What::Command(noted) => match &noted.command {
                Command::Broadcast(broadcast) => broadcast.args.json().replace(['[', ']', '"'], ""),
                other => panic!("no event: {other:?}"),
            },
            What::Asked { .. } => panic!("no event: {what:?}"),
        });
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_publisher_is_divided_at_its_own_marker() {
        let mut arrivals = arrivals(&[]);
        assert!(arrivals.note(&event("b0"), Origin::Own).is_empty());
        arrivals.expect(id(1), former(), Interest::in_everything().register());
        for (name, origin) in [
            ("b1", Origin::Own),
            ("n1", others()),
            ("a1", formers()),
            ("e1", Origin::Other(None)),
        ] {
            arrivals.note(&event(name), origin);
        }
        assert!(arrivals.mark(id(1)));
        for (name, origin) in [
            ("n2", others()),
            ("a2", formers()),
            ("b2", Origin::Own),
            ("e2", Origin::Other(None)),
        ] {
            arrivals.note(&event(name), origin);
        }
        assert!(arrivals.bring(id(1), "S").unwrap().is_none(), "before END");
        arrivals.note(&event("a3"), formers());
        let arrived = arrivals.finish(id(1));
        let arrived = arrived.expect("it is all there");
        assert_eq!(arrived.members, "S");
        assert_eq!(got(&arrivals, &arrived), "b1 n2 b2 e2");
        arrivals.settle();
        assert!(arrivals.log.is_empty() && arrivals.bytes == 0);
    }

    #[test]
    fn what_comes_behind_the_end_and_before_the_session_is_for_it_whoever_sent_it() {
        let mut arrivals = arrivals(&[1]);
        arrivals.mark(id(1));
        arrivals.note(&event("a1"), formers());
        assert!(arrivals.finish(id(1)).is_none());
        arrivals.note(&event("a2"), formers());
        arrivals.note(&event("n1"), others());
        let arrived = arrivals.bring(id(1), "S").unwrap().unwrap();
        assert_eq!(got(&arrivals, &arrived), "a2 n1");
    }

    #[test]
    fn several_sessions_share_the_log_and_it_is_kept_for_the_last() {
        let mut arrivals = arrivals(&[1]);
        arrivals.mark(id(1));
        arrivals.note(&event("n1"), others());
        arrivals.expect(id(2), former(), Interest::in_everything().register());
        arrivals.note(&event("n2"), others());
        arrivals.mark(id(2));
        arrivals.note(&event("n3"), others());
        arrivals.finish(id(1));
        let one = arrivals.bring(id(1), "S").unwrap().unwrap();
        assert_eq!(got(&arrivals, &one), "n1 n2 n3");
        arrivals.settle();
        assert_eq!(arrivals.log.len(), 2);
        arrivals.finish(id(2));
        let two = arrivals.bring(id(2), "T").unwrap().unwrap();
        assert_eq!(got(&arrivals, &two), "n3");
        arrivals.settle();
        assert!(arrivals.is_empty() && arrivals.log.is_empty());
    }

    #[test]
    fn who_is_expected_too_long_is_given_up_before_the_memory_is_full() {
        let mut arrivals = arrivals(&[1]);
        arrivals.limit_bytes = 10 * (ENTRY_BYTES + 6);
        let first: Vec<_> = (0..6)
            .flat_map(|_| arrivals.note(&event("n1"), others()))
            .collect();
        assert!(first.is_empty());
        arrivals.expect(id(2), former(), Interest::in_everything().register());
        let given_up: Vec<_> = (0..6)
            .flat_map(|_| arrivals.note(&event("n2"), others()))
            .collect();
        assert_eq!(given_up, [id(1)]);
        assert!(arrivals.bring(id(1), "S").is_err());
        assert!(arrivals.give_up(id(2)) && !arrivals.give_up(id(2)));
        arrivals.settle();
        assert_eq!((arrivals.log.len(), arrivals.bytes), (0, 0));
    }

    /// A bug: names of rooms in a target, and questions, took nothing of the log's bytes.
    #[test]
    fn all_that_is_kept_for_those_who_are_expected_counts() {
        let rooms = || vec![Room::from("r"); 1000];
        let into = |rooms: Vec<Room>, except: Vec<Room>| Target { rooms, except };
        let to = |target: Target| {
            let mut broadcast =
                Broadcast::to_all("/".into(), Args::from_parts("[1]".into(), vec![]));
            broadcast.target = target;
            broadcast
        };
        let long: Namespace = "/".repeat(64_000).into();
        let namespace = || Namespace::from("/");
        let (target, none) = (|| into(rooms(), vec![]), || into(vec![], vec![]));
        for command in [
            Command::Broadcast(to(target())),
            Command::Broadcast(to(into(vec![], rooms()))),
            Command::Join {
                namespace: namespace(),
                target: none(),
                rooms: rooms(),
            },
            Command::Leave {
                namespace: namespace(),
                target: none(),
                rooms: rooms(),
            },
            Command::Disconnect {
                namespace: namespace(),
                target: target(),
                whole_connection: false,
            },
            Command::Disconnect {
                namespace: long.clone(),
                target: none(),
                whole_connection: false,
            },
        ] {
            let mut arrivals = arrivals(&[1]);
            arrivals.limit_bytes = 64_000;
            assert_eq!(arrivals.note(&command, others()), [id(1)], "{command:?}");
        }
        let name = Origin::Other(Some("n".repeat(64_000)));
        let mut arrivals = arrivals(&[1]);
        arrivals.limit_bytes = 64_000;
        assert_eq!(arrivals.note(&event("e"), name), [id(1)], "its sender");
        for (namespace, question) in [
            (namespace(), Question::Sockets { target: target() }),
            (
                namespace(),
                Question::Broadcast {
                    broadcast: to(target()),
                    timeout: Duration::ZERO,
                    expects_one: false,
                },
            ),
            (long, Question::Rooms),
        ] {
            arrivals.expect(id(1), former(), Interest::in_everything().register());
            let (answers, _received) = mpsc::unbounded_channel();
            let text = format!("{question:?}");
            let given_up = arrivals.ask(&namespace, question, answers, 0, others(), Owed::Answer);
            assert_eq!(given_up, [id(1)], "{text}");
            assert_eq!(arrivals.settle().len(), 1);
            assert_eq!((arrivals.bytes, arrivals.log.len()), (0, 0));
        }
    }

    #[test]
    fn no_more_are_expected_than_may_be_at_a_time() {
        let mut arrivals = arrivals(&[]);
        let expect = |arrivals: &mut Arrivals<_>, number: usize| {
            let registering = Interest::in_everything().register();
            arrivals.expect(id(number as u64), former(), registering)
        };
        for number in 0..MAX_EXPECTED {
            assert!(expect(&mut arrivals, number));
        }
        assert!(expect(&mut arrivals, 0), "the same is not one more");
        assert!(!expect(&mut arrivals, MAX_EXPECTED));
        assert!(arrivals.bring(id(MAX_EXPECTED as u64), "S").is_err());
        arrivals.give_up(id(7));
        assert!(expect(&mut arrivals, MAX_EXPECTED));
        for number in 0..=MAX_EXPECTED {
            arrivals.give_up(id(number as u64));
        }
        let capacity = arrivals.expected.capacity();
        assert!(capacity <= 64, "nothing is kept of them: {capacity}");
    }

    #[test]
    fn what_is_kept_encoded_counts_and_drives_nobody_out() {
        let mut arrivals = arrivals(&[1]);
        arrivals.note(&event("n1"), others());
        let before = arrivals.bytes;
        let What::Command(noted) = arrivals.log[0].what.clone() else {
            panic!("a command");
        };
        let message = Encoded::new("42[\"n1\"]", &[]);
        arrivals.limit_bytes = before;
        arrivals.keep(&noted, &message);
        assert!(noted.message().is_none() && arrivals.bytes == before);
        arrivals.limit_bytes = before + message.held_bytes();
        for _ in 0..2 {
            arrivals.keep(&noted, &message);
            assert!(noted.message().is_some());
            assert_eq!(arrivals.bytes, arrivals.limit_bytes);
        }
        arrivals.give_up(id(1));
        arrivals.settle();
        assert_eq!(arrivals.bytes, 0);
    }

    #[test]
    fn who_is_expected_anew_is_not_who_was_expected_before() {
        let mut arrivals = arrivals(&[1, 2]);
        arrivals.note(&event("n1"), others());
        arrivals.expect(id(1), former(), Interest::in_everything().register());
        arrivals.settle();
        assert_eq!(arrivals.log.len(), 1, "for the second");
        arrivals.give_up(id(2));
        arrivals.settle();
        assert!(arrivals.log.is_empty());
        assert!(arrivals.give_up(id(1)) && arrivals.in_order.is_empty());
    }

    #[test]
    fn a_question_waits_for_those_who_were_expected_when_it_came() {
        let mut arrivals = arrivals(&[1, 2]);
        let (answers, _received) = mpsc::unbounded_channel();
        let asked = arrivals.ask(
            &"/".into(),
            Question::Rooms,
            answers,
            0,
            others(),
            Owed::Answer,
        );
        assert_eq!(asked, []);
        arrivals.expect(id(3), former(), Interest::in_everything().register());
        arrivals.give_up(id(1));
        assert!(arrivals.settle().is_empty());
        arrivals.give_up(id(2));
        assert_eq!(arrivals.settle().len(), 1, "the third came later");
    }
}
