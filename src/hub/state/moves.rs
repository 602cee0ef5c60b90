//! What the hub does when a session moves: lets its sockets go to another instance, and takes those of another in.
//!
//! Why nothing is lost, doubled or reordered stands in [`super::super::arrivals`]; the whole exchange, in [`crate::relay`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Handle, State};
use crate::{
    engine_io::encoded::Encoded,
    hub::{
        actor::Turn,
        ahead::Permit,
        arrivals::{Arrived, MAX_EXPECTED, Noted, Origin, Owed, Waiting, What as Logged},
        broadcast::{Broadcast, Target},
        command::Command,
        freight::Load,
        messages::{Ask, Bring, Depart, Expect, Finish, Forget, GiveUp, Hand, Mark, PassOn},
        question::{Answer, Answers, Question},
    },
    redis_bridge::messages::ForBridge,
    socket::{
        messages::{DeliverWithAck, Departed, ForSocket, LeftSocket, What},
        record::Record,
    },
    socket_io::{
        encode,
        ids::{Namespace, Room, SocketId},
    },
};

/// How long what a handler says about a socket that has gone is sent after it from here: longer than its handle can take to know
/// the way itself.
const SENT_AFTER: Duration = Duration::from_secs(60);

/// A socket of a namespace.
type Socket = (Namespace, SocketId);

/// Sockets that have gone to another instance and may still be acted upon here, with the rooms that they took along. Forgotten when
/// their actor says so, and after [`SENT_AFTER`] even if that has ended and says nothing. Trees, since they give memory back.
#[derive(Debug, Default)]
pub(super) struct Gone {
    sockets: BTreeMap<Socket, Left>,
    /// In the order in which they left.
    since: BTreeMap<u64, (Instant, Socket)>,
    num_left: u64,
}

/// A socket that has gone.
#[derive(Debug)]
struct Left {
    /// Its place in `since`.
    turn: u64,
    rooms: HashSet<Room>,
}

impl Gone {
    fn insert(&mut self, now: Instant, socket: Socket, rooms: HashSet<Room>) {
        self.sweep(now);
        self.remove(&socket);
        let turn = self.num_left;
        self.num_left += 1;
        self.since.insert(turn, (now, socket.clone()));
        self.sockets.insert(socket, Left { turn, rooms });
    }

    fn remove(&mut self, socket: &Socket) {
        if let Some(Left { turn, .. }) = self.sockets.remove(socket) {
            self.since.remove(&turn);
        }
    }

    /// Forgets those whose time is over.
    fn sweep(&mut self, now: Instant) {
        while let Some(oldest) = self.since.first_entry()
            && now.saturating_duration_since(oldest.get().0) > SENT_AFTER
        {
            let (_, socket) = oldest.remove();
            self.sockets.remove(&socket);
        }
    }
}

/// What a session that comes becomes a member with.
#[derive(Debug)]
pub(super) struct Newcomers {
    pub(super) handles: Vec<(Handle, HashSet<Room>)>,
    pub(super) installed: tokio::sync::oneshot::Sender<()>,
}

impl State {
    /// Returns the rooms of a socket that has left for another instance.
    pub(super) fn gone_rooms(
        &mut self,
        namespace: &Namespace,
        id: &SocketId,
    ) -> Option<&mut HashSet<Room>> {
        if self.gone.sockets.is_empty() {
            return None;
        }
        let socket = (namespace.clone(), id.clone());
        let left = self.gone.sockets.get_mut(&socket)?;
        Some(&mut left.rooms)
    }

    /// Lets a socket that has left join or leave a room where it is now: a handler that began here still holds it.
    pub(super) fn send_after(&self, namespace: &Namespace, id: &SocketId, room: Room, joins: bool) {
        let (namespace, rooms) = (namespace.clone(), vec![room]);
        let target = Target::one(id);
        let command = if joins {
            Command::Join {
                namespace,
                target,
                rooms,
            }
        } else {
            Command::Leave {
                namespace,
                target,
                rooms,
            }
        };
        self.tell_bridge(|| ForBridge::Publish(Arc::new(command), Load::default()));
    }

    /// Notes a command for those who are expected.
    pub(super) fn note(&mut self, command: &Command, origin: Origin) {
        if !self.arrivals.is_empty() {
            let given_up = self.arrivals.note(command, origin);
            self.after_giving_up(given_up.len());
        }
    }

    fn after_giving_up(&mut self, num: usize) {
        if num > 0 {
            log::warn!(
                "{num} sessions that were to move here are given up: too much has passed meanwhile"
            );
            self.settle();
        }
    }

    /// Does what waited for those who are expected no more.
    fn settle(&mut self) {
        for waiting in self.arrivals.settle() {
            let Waiting {
                owed,
                namespace,
                question,
                answers,
                num_clients,
                ..
            } = waiting;
            match owed {
                Owed::Nothing => {}
                Owed::Answer => self.answer_now(&namespace, question, &answers, num_clients),
                Owed::All { timeout, is_local } => self.put(Ask {
                    namespace,
                    question,
                    timeout,
                    is_local,
                    answers,
                    permit: None,
                }),
            }
        }
    }

    /// Lets a question of this instance wait for those who are expected: they are members nowhere now, and would be forgotten.
    /// One that need not, or cannot, wait is handed back.
    pub(super) fn postpone(&mut self, ask: Ask) -> Option<Ask> {
        let may_wait = matches!(ask.question, Question::Rooms | Question::Sockets { .. });
        if self.arrivals.is_empty() || !may_wait || !self.arrivals.has_room() {
            return Some(ask);
        }
        let Ask {
            namespace,
            question,
            timeout,
            is_local,
            answers,
            // Nothing that may wait sends an event.
            permit: _,
        } = ask;
        let owed = Owed::All { timeout, is_local };
        let asked = self
            .arrivals
            .ask(&namespace, question, answers, 0, Origin::Own, owed);
        self.after_giving_up(asked.len());
        None
    }

    /// Answers a question, as far as this instance goes; one of another instance, when those who are expected have come, see
    /// [`Self::postpone`]. Whoever asked may have given up. `permit` is of an event that it asks to send.
    pub(super) fn answer(
        &mut self,
        namespace: &Namespace,
        question: Question,
        answers: &Answers,
        origin: Origin,
        permit: Option<Permit>,
    ) {
        let (num_clients, may_wait) = match &question {
            Question::Broadcast { broadcast, .. } => {
                (self.deliver_with_acks(broadcast, answers, permit), true)
            }
            Question::Rooms | Question::Sockets { .. } => (0, origin != Origin::Own),
            // Who asks for ids alone cannot wait: it is the bridge itself, or a server of old that nobody runs beside us.
            Question::SocketIds { .. } | Question::ServerEvent { .. } => (0, false),
        };
        if self.arrivals.is_empty() || !may_wait || !self.arrivals.has_room() {
            return self.answer_now(namespace, question, answers, num_clients);
        }
        let owed = if origin == Origin::Own {
            _ = answers.send(Answer::NumClients(num_clients));
            Owed::Nothing
        } else {
            Owed::Answer
        };
        let answers = answers.clone();
        let asked = self
            .arrivals
            .ask(namespace, question, answers, num_clients, origin, owed);
        self.after_giving_up(asked.len());
    }

    /// Makes members of a session that has come, and hands it what passed meanwhile.
    fn install(&mut self, arrived: Arrived<Newcomers>) {
        let handles = arrived.members.handles.iter();
        let mut logged: HashMap<Namespace, Vec<Logged>> = handles
            .map(|(handle, _)| (handle.record.namespace.clone(), Vec::new()))
            .collect();
        for what in self.arrivals.log_for(&arrived) {
            if let Some(logged) = logged.get_mut(what.namespace()) {
                logged.push(what.clone());
            }
        }
        let Newcomers { handles, installed } = arrived.members;
        for (handle, rooms) in handles {
            let record = Arc::clone(&handle.record);
            let (namespace, id) = (&record.namespace, &record.id);
            let is_first = self.rooms_mut().insert(namespace, id.clone(), handle);
            for room in rooms {
                // Whether it may was asked when it came.
                _ = self.rooms_mut().join(namespace, id, room);
            }
            if is_first {
                self.tell_bridge(|| ForBridge::Open(namespace.clone()));
            }
            for what in logged.get(namespace).into_iter().flatten() {
                self.replay(&record, what);
            }
        }
        // Whoever waits for it may be gone; then it unregisters.
        _ = installed.send(());
        self.settle();
    }

    /// Lets one member see what passed in its namespace while it was on its way.
    fn replay(&mut self, record: &Record, what: &Logged) {
        let (namespace, id) = (&record.namespace, &record.id);
        let noted = match what {
            Logged::Command(noted) => noted,
            Logged::Asked { question, .. } => return self.replay_question(record, *question),
        };
        let target = noted.command.target();
        if !target.is_some_and(|target| self.rooms().selects(namespace, target, id)) {
            return;
        }
        match &noted.command {
            Command::Broadcast(broadcast)
                if self.recovery.is_some() && !broadcast.flags.volatile =>
            {
                self.emit_to_one(record, broadcast.args.clone());
            }
            Command::Broadcast(broadcast) => {
                if let Some(message) = self.logged_message(noted, broadcast) {
                    let volatile = broadcast.flags.volatile;
                    self.tell_member(record, What::Deliver { message, volatile });
                }
            }
            Command::Join { rooms, .. } => {
                for room in rooms {
                    // Said once, when it was said to all.
                    _ = self.rooms_mut().join(namespace, id, room.clone());
                }
            }
            Command::Leave { rooms, .. } => {
                for room in rooms {
                    self.rooms_mut().leave(namespace, id, room);
                }
            }
            Command::Disconnect {
                whole_connection, ..
            } => {
                let whole_connection = *whole_connection;
                self.tell_member(record, What::Disconnect { whole_connection });
            }
            Command::ServerEvent { .. } => {}
        }
    }

    /// Returns an event of the log as it is sent. All who come share the bytes, as all who are here do.
    fn logged_message(&mut self, noted: &Noted, broadcast: &Broadcast) -> Option<Arc<Encoded>> {
        if let Some(message) = noted.message() {
            return Some(Arc::clone(message));
        }
        let message = encode::event(self.parser, &broadcast.namespace, None, &broadcast.args)
            .inspect_err(|err| log::error!("a broadcast cannot be encoded: {err}"))
            .ok()?;
        self.arrivals.keep(noted, &message);
        Some(message)
    }

    fn replay_question(&mut self, record: &Record, number: u64) {
        let (namespace, id) = (&record.namespace, &record.id);
        let ack_id = self.ack_ids.next();
        let rooms = Arc::clone(&self.rooms);
        let parser = self.parser;
        let Some(waiting) = self.arrivals.question(number) else {
            return;
        };
        let Question::Broadcast { broadcast, .. } = &waiting.question else {
            return;
        };
        let is_selected = broadcast.namespace == *namespace
            && rooms
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .selects(namespace, &broadcast.target, id);
        if !is_selected {
            return;
        }
        let Ok(message) = encode::event(parser, namespace, Some(ack_id), &broadcast.args) else {
            return;
        };
        let deliver = DeliverWithAck {
            id: ack_id,
            message,
            volatile: broadcast.flags.volatile,
            answers: waiting.answers.clone(),
        };
        waiting.num_clients += 1;
        if waiting.owed == Owed::Nothing {
            // Whoever asked may have given up.
            _ = waiting.answers.send(Answer::OneMore);
        }
        self.tell_member(record, What::DeliverWithAck(Arc::new(deliver)));
    }

    fn tell_member(&self, record: &Record, what: What) {
        self.rooms()
            .with_member(&record.namespace, &record.id, |member| {
                member.handle().tell(what);
            });
    }
}

impl Turn<Depart> for State {
    /// In line with what others sent: what came before is delivered, and what comes behind is for the other instance.
    fn turn(&mut self, message: Depart) {
        let Depart {
            departure,
            namespaces,
            to,
            end,
            socket,
        } = message;
        let tell = |departed: Departed| {
            let what = What::Departed(Box::new(departed));
            socket.do_send(ForSocket::for_session(what));
        };
        let members = match departure.close(|namespace| namespaces.contains(namespace)) {
            Ok(members) => members,
            Err(missing) => return tell(Err(missing)),
        };
        let mut left = Vec::with_capacity(members.len());
        for (namespace, id) in members {
            let mut of_socket = self.rooms().rooms_of(&namespace, &id);
            of_socket.remove(id.as_str());
            if self.rooms_mut().remove(&namespace, &id) {
                self.tell_bridge(|| ForBridge::Close(namespace.clone()));
            }
            let socket = (namespace.clone(), id.clone());
            self.gone.insert(Instant::now(), socket, of_socket.clone());
            left.push(LeftSocket {
                namespace,
                id,
                rooms: of_socket,
            });
        }
        // In this very turn: see `arrivals`.
        self.tell_bridge(|| ForBridge::Behind {
            to,
            payload: end,
            // It arrives in time, or the session does not.
            loss: None,
        });
        tell(Ok(left));
    }
}

impl Turn<Forget> for State {
    fn turn(&mut self, Forget(sockets): Forget) {
        for socket in &sockets {
            self.gone.remove(socket);
        }
        self.gone.sweep(Instant::now());
    }
}

impl Turn<PassOn> for State {
    fn turn(&mut self, PassOn { to, payload, loss }: PassOn) {
        let loss = Some(loss);
        self.tell_bridge(|| ForBridge::Behind { to, payload, loss });
    }
}

impl Turn<Hand> for State {
    fn turn(&mut self, Hand { to, answer }: Hand) {
        to.hand(answer);
    }
}

impl Turn<Expect> for State {
    fn turn(&mut self, message: Expect) {
        let Expect {
            id,
            former,
            marker,
            registering,
        } = message;
        // In this very turn: see `arrivals`.
        if !self.arrivals.expect(id, former, registering) {
            // The marker is sent all the same: so it ends soon, and not by a time-out.
            log::warn!(
                "a session that was to move here is given up: {MAX_EXPECTED} others are on their way"
            );
        }
        self.tell_bridge(|| ForBridge::Tell { payload: marker });
    }
}

impl Turn<Mark> for State {
    fn turn(&mut self, Mark(id): Mark) {
        // It may have been given up.
        _ = self.arrivals.mark(id);
    }
}

impl Turn<Finish> for State {
    fn turn(&mut self, Finish(id): Finish) {
        if let Some(arrived) = self.arrivals.finish(id) {
            self.install(arrived);
        }
    }
}

impl Turn<Bring> for State {
    fn turn(&mut self, message: Bring) {
        let Bring {
            id,
            members,
            installed,
        } = message;
        let may_be_in = |rooms| self.rooms().may_be_in(rooms);
        if !members.iter().all(|(_, _, rooms)| may_be_in(rooms)) {
            log::warn!("a session that was to move here is given up: it is in too many rooms");
            self.arrivals.give_up(id);
            // `installed` is dropped, which says so.
            return self.settle();
        }
        let handles = members
            .into_iter()
            .map(|(record, recipient, rooms)| (Handle::new(record, recipient), rooms));
        let newcomers = Newcomers {
            handles: handles.collect(),
            installed,
        };
        // Of one that was given up before, too.
        if let Ok(Some(arrived)) = self.arrivals.bring(id, newcomers) {
            self.install(arrived);
        }
    }
}

impl Turn<GiveUp> for State {
    fn turn(&mut self, GiveUp(id): GiveUp) {
        self.arrivals.give_up(id);
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::uid::Uid,
        engine_io::sid::InstanceId,
        hub::{
            arrivals::ArrivalId,
            broadcast::Flags,
            interest::Interest,
            messages::{Originate, Register},
            testing::{broadcast, delivered, probe, register},
        },
        socket::depot::Probe as SocketProbe,
        socket_io::parser::Parser,
    };
    use tokio::sync::oneshot;

    fn arrival(number: u64) -> ArrivalId {
        let from = InstanceId::parse("AAAAAAAA").unwrap();
        ArrivalId { from, number }
    }

    fn hub() -> State {
        let (server_side, _) = probe();
        State::new(Parser::Json, Arc::default(), server_side).0
    }

    fn expect(hub: &mut State, number: u64) {
        hub.turn(Expect {
            id: arrival(number),
            former: Uid::parse("aaaaaa").unwrap(),
            marker: Default::default(),
            registering: Interest::in_everything().register(),
        });
        hub.turn(Mark(arrival(number)));
    }

    /// Brings one socket of `/events`. Returns what says that it is installed.
    fn bring(
        hub: &mut State,
        number: u64,
        socket: &SocketProbe,
        rooms: &[&str],
    ) -> oneshot::Receiver<()> {
        let (installed, is_installed) = oneshot::channel();
        let Register {
            record, recipient, ..
        } = register(&number.to_string(), socket);
        let rooms = rooms.iter().map(|room| Room::from(*room)).collect();
        hub.turn(Finish(arrival(number)));
        hub.turn(Bring {
            id: arrival(number),
            members: vec![(record, recipient, rooms)],
            installed,
        });
        is_installed
    }

    /// A bug: what passed was encoded anew for each who came, and looked through for each of their namespaces.
    #[actix::test]
    async fn those_who_come_share_what_passed_in_their_namespace() {
        let mut hub = hub();
        let sockets = [SocketProbe::open(), SocketProbe::open()];
        for number in [0, 1] {
            expect(&mut hub, number);
        }
        let event = || broadcast(Target::default(), Flags::default());
        let elsewhere = Broadcast {
            namespace: "/elsewhere".into(),
            ..event()
        };
        for broadcast in [event(), elsewhere] {
            let originate = Originate {
                command: Command::Broadcast(broadcast),
                is_local: false,
                permit: None,
            };
            hub.turn(originate).unwrap();
        }
        let mut messages = Vec::new();
        for (number, socket) in (0..).zip(&sockets) {
            let mut is_installed = bring(&mut hub, number, socket, &[]);
            is_installed.try_recv().unwrap();
            messages.push(delivered(socket.next().await).0);
            assert!(socket.is_empty(), "what passed elsewhere is for nobody");
        }
        assert!(Arc::ptr_eq(&messages[0], &messages[1]));
    }

    /// A bug: what was more than a socket may be in here was left out, and nobody knew it.
    #[actix::test]
    async fn who_is_in_more_rooms_than_a_socket_may_be_in_does_not_come() {
        let mut hub = hub();
        hub.limit(2, Arc::default());
        let socket = SocketProbe::open();
        for (number, rooms, may) in [(1, &["a", "b", "c"][..], false), (2, &["a", "b"], true)] {
            expect(&mut hub, number);
            let mut is_installed = bring(&mut hub, number, &socket, rooms);
            assert_eq!(is_installed.try_recv().is_ok(), may);
            assert!(hub.arrivals.is_empty());
        }
        let rooms = |id: &str| hub.rooms().rooms_of(&"/events".into(), &id.into());
        assert_eq!((rooms("1").len(), rooms("2").len()), (0, 3));
    }

    #[test]
    fn who_has_gone_is_forgotten_even_if_nobody_says_so() {
        let mut gone = Gone::default();
        let start = Instant::now();
        let socket = |n: u64| ("/".into(), SocketId::from(n.to_string()));
        for n in 0..300 {
            let now = start + Duration::from_secs(n);
            gone.insert(now, socket(n), HashSet::new());
        }
        assert_eq!(gone.sockets.len(), 61);
        assert_eq!(gone.since.len(), 61);
        assert!(gone.sockets.contains_key(&socket(239)));
        gone.sweep(start + Duration::from_secs(359));
        assert_eq!((gone.sockets.len(), gone.since.len()), (1, 1));
    }

    /// A bug: who was forgotten stayed in the other list until somebody else left, and the list's memory for good.
    #[test]
    fn nothing_is_kept_of_who_is_forgotten() {
        let mut gone = Gone::default();
        let start = Instant::now();
        let socket = |n: u64| ("/".into(), SocketId::from(n.to_string()));
        for n in [1, 2, 1] {
            gone.insert(start, socket(n), HashSet::new());
        }
        assert_eq!((gone.sockets.len(), gone.since.len()), (2, 2));
        for n in [1, 1, 2] {
            gone.remove(&socket(n));
            assert_eq!(gone.sockets.len(), gone.since.len());
        }
        assert!(gone.since.is_empty());
    }
}
