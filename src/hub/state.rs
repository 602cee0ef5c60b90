//! What the hub knows, and what it does with each message: translates it into calls of [`Rooms`], and forwards to the bridge what
//! concerns others.
//!
//! Does not know Redis: `bridge` is a recipient that may be absent. Who takes a turn, and on which thread, is nothing to it. What it
//! does when sessions move to and from other instances stands in `moves`.

use std::{
    cell::Cell,
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicU64},
};

use actix::Recipient;

mod moves;

use self::moves::{Gone, Newcomers};
use super::{
    actor::Turn,
    ahead::Permit,
    arrivals::{Arrivals, Origin},
    broadcast::{Broadcast, Target},
    command::Command,
    freight::{self, Freight},
    interest::Interest,
    messages::{
        Answering, Ask, ConnectBridge, Emit, Forward, Join, Leave, Originate, Register, Reinject,
        RoomsOf, Settle, Unregister,
    },
    question::{Answer, Answers, Found, Question},
    recovery::Recovery,
    room_table::RoomTable,
    rooms::{Member, Rooms, TooManyRooms},
    work::{self, TooMuchWork},
};
use crate::{
    counters::{Counters, Limit},
    gateways::server_side::{Door, ServerEvent, TooMuch},
    redis_bridge::messages::{AskOthers, ForBridge},
    socket::{
        acks::AckIds,
        inbox::{FanOut, InboxRef, Shared},
        messages::{DeliverWithAck, ForSocket, What},
        record::{JoinId, Record},
    },
    socket_io::{
        args::Args,
        encode,
        ids::{Namespace, Room},
        parser::Parser,
    },
};

/// Sockets that a short broadcast looks at, as often as it looks whether one is left out: a tenth of a millisecond.
pub(super) const MAX_SHORT_STEPS: usize = 1024;

/// Bytes of its arguments.
const MAX_SHORT_BYTES: usize = 64 * 1024;

/// A socket, and what reaches it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) record: Arc<Record>,
    /// As in the record, which lies elsewhere in memory.
    pub(super) join: JoinId,
    pub(super) recipient: InboxRef,
    /// Serial of the last event for it that can be sent again; used if clients may recover.
    pub(super) told: AtomicU64,
}

impl Handle {
    pub(super) fn new(record: Arc<Record>, recipient: InboxRef) -> Self {
        let join = record.join;
        Self {
            record,
            join,
            recipient,
            told: AtomicU64::new(0),
        }
    }

    pub(super) fn tell(&self, what: What) {
        self.recipient.do_send(ForSocket {
            join: self.join,
            what,
        });
    }
}

/// What the hub knows.
#[derive(Debug)]
pub struct State {
    /// Changed here alone; the lock is there for [`Interest`], which looks things up.
    rooms: Arc<RwLock<Rooms<Handle>>>,
    pub(super) parser: Parser,
    /// Present if clients may recover.
    pub(super) recovery: Option<Box<Recovery>>,
    ack_ids: Arc<AckIds>,
    server_side: Door,
    bridge: Option<Recipient<ForBridge>>,
    counters: Arc<Counters>,
    /// What is on its way to the bridge.
    freight: Freight,
    /// Whether the log has been told that too much was.
    has_told_behind: Cell<bool>,
    /// Sessions of other instances that are on their way here.
    arrivals: Arrivals<Newcomers>,
    /// Sockets that have left for another instance.
    gone: Gone,
}

impl State {
    /// Returns that of a hub without sockets, and a view of its membership. All clients speak `parser`; events for servers go to
    /// `server_side`; `ack_ids` are shared with the sockets.
    pub fn new(
        parser: Parser,
        ack_ids: Arc<AckIds>,
        server_side: Recipient<ServerEvent>,
    ) -> (Self, Interest) {
        let rooms: Arc<RwLock<Rooms<Handle>>> = Arc::default();
        let view = Arc::clone(&rooms);
        let interest = Interest::new(move |namespace, room| {
            let rooms = view.read().unwrap_or_else(PoisonError::into_inner);
            rooms.has_members(namespace, room)
        });
        let state = Self {
            rooms,
            parser,
            recovery: None,
            ack_ids,
            server_side: Door::new(server_side),
            bridge: None,
            counters: Arc::default(),
            freight: Freight::new(freight::MAX_BYTES, usize::MAX),
            has_told_behind: Cell::default(),
            arrivals: Arrivals::default(),
            gone: Gone::default(),
        };
        (state, interest)
    }

    /// Keeps `table` up to date about which rooms have members here. Before the hub starts.
    pub fn list_rooms_in(&self, table: Arc<RoomTable>) {
        self.rooms_mut().list_in(table);
    }

    /// Lets clients recover. Before the hub starts.
    pub fn recover(&mut self, recovery: Recovery) {
        self.recovery = Some(Box::new(recovery));
    }

    /// Lets a socket be in at most `max_rooms_per_socket` rooms, and counts in `counters` what is refused. Before the hub starts.
    pub fn limit(&mut self, max_rooms_per_socket: usize, counters: Arc<Counters>) {
        self.rooms_mut().limit_rooms(max_rooms_per_socket);
        self.counters = counters;
    }

    pub(super) fn rooms(&self) -> RwLockReadGuard<'_, Rooms<Handle>> {
        // Nothing panics with the lock held; if it did, the rooms would still be rooms.
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rooms_mut(&self) -> RwLockWriteGuard<'_, Rooms<Handle>> {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell_bridge(&self, message: impl FnOnce() -> ForBridge) {
        if let Some(bridge) = &self.bridge {
            bridge.do_send(message());
        }
    }

    /// Local sockets first: not one local event waits for Redis.
    fn originate(
        &mut self,
        command: Command,
        is_local: bool,
        permit: Option<Permit>,
    ) -> Result<(), TooMuchWork> {
        // Servers do not send events to themselves, as in Node.
        if !matches!(command, Command::ServerEvent { .. }) {
            self.judge_command(&command)?;
            self.note(&command, Origin::Own);
            self.obey(&command, permit);
        }
        if !is_local {
            self.publish(command);
        }
        Ok(())
    }

    /// Has others told, unless too much is on its way to them already: then they go without, as in an outage.
    fn publish(&self, command: Command) {
        if self.bridge.is_none() {
            return;
        }
        match self.freight.load(freight::freight_bytes(&command)) {
            Some(load) => self.tell_bridge(|| ForBridge::Publish(Arc::new(command), load)),
            None => {
                self.counters.count(Limit::BridgeBehind);
                if !self.has_told_behind.replace(true) {
                    log::warn!(
                        "events come faster than they can be published; some do not reach other instances, and are counted in /readyz"
                    );
                }
            }
        }
    }

    /// Returns whether a broadcast is little work and leaves nothing behind that takes memory.
    pub(super) fn is_short(&self, emit: &Emit) -> bool {
        let Broadcast {
            namespace,
            target,
            flags,
            args,
        } = &emit.broadcast;
        let is_kept = !self.arrivals.is_empty() || (self.recovery.is_some() && !flags.volatile);
        let num_steps = || {
            self.rooms()
                .reach(namespace, target)
                .saturating_mul(1 + target.except.len())
        };
        !is_kept && args.len_bytes() <= MAX_SHORT_BYTES && num_steps() <= MAX_SHORT_STEPS
    }

    /// Judges whether a selection, and that many moves of each of its sockets, is more than the hub may do at a time.
    ///
    /// # Errors
    /// It is.
    fn judge(
        &self,
        namespace: &Namespace,
        target: &Target,
        num_moves: usize,
    ) -> Result<(), TooMuchWork> {
        let count_sockets = || self.rooms().reach(namespace, target);
        work::judge(count_sockets, target, num_moves).inspect_err(|err| {
            // Whoever sends one sends many.
            if self.counters.count(Limit::HubWork) == 0 {
                log::warn!("refused: {err}; further ones are only counted, in /readyz");
            }
        })
    }

    /// Judges whether a command is more than the hub may do at a time.
    ///
    /// # Errors
    /// It is: nothing of it is to be done.
    fn judge_command(&self, command: &Command) -> Result<(), TooMuchWork> {
        let num_moves = match command {
            Command::Join { rooms, .. } | Command::Leave { rooms, .. } => rooms.len(),
            Command::Broadcast(_) | Command::Disconnect { .. } | Command::ServerEvent { .. } => 0,
        };
        command.target().map_or(Ok(()), |target| {
            self.judge(command.namespace(), target, num_moves)
        })
    }

    /// Judges whether to answer a question is more than the hub may do at a time.
    ///
    /// # Errors
    /// It is: nothing of it is to be answered.
    fn judge_question(
        &self,
        namespace: &Namespace,
        question: &Question,
    ) -> Result<(), TooMuchWork> {
        let target = question.target();
        target.map_or(Ok(()), |target| self.judge(namespace, target, 0))
    }

    /// Does what a command says, as far as this instance goes. `permit` is of a broadcast.
    fn obey(&mut self, command: &Command, permit: Option<Permit>) {
        match command {
            Command::Broadcast(broadcast)
                if self.recovery.is_some() && !broadcast.flags.volatile =>
            {
                self.deliver_logged(broadcast, permit);
            }
            Command::Broadcast(broadcast) => self.deliver(broadcast, permit),
            Command::Join {
                namespace,
                target,
                rooms,
            } => self.join_all(namespace, target, rooms),
            Command::Leave {
                namespace,
                target,
                rooms,
            } => {
                let sockets = self.find(namespace, target, Member::id);
                let mut all = self.rooms_mut();
                for socket in sockets {
                    for room in rooms {
                        all.leave(namespace, &socket, room);
                    }
                }
            }
            Command::Disconnect {
                namespace,
                target,
                whole_connection,
            } => {
                let whole_connection = *whole_connection;
                self.rooms().select(namespace, target, |member| {
                    member.handle().tell(What::Disconnect { whole_connection });
                });
            }
            Command::ServerEvent { namespace, args } => {
                self.tell_server_side(namespace, args.clone(), None);
            }
        }
    }

    /// Has an event of another server handled. One that is too much is dropped: whoever awaits a reply hears none.
    fn tell_server_side(&self, namespace: &Namespace, args: Args, answers: Option<Answers>) {
        let sent = self.server_side.send(namespace.clone(), args, answers);
        if sent == Err(TooMuch) {
            self.counters.count(Limit::ServerEvents);
            // Without its name, which whoever floods us has chosen.
            log::warn!(
                "too many events of other servers wait for handlers or are in them, or with too much: one of {namespace} is dropped"
            );
        }
    }

    /// Encodes once and hands the same bytes to every selected socket. `permit` is given back when they all have them.
    fn deliver(&self, broadcast: &Broadcast, permit: Option<Permit>) {
        let receivers = self.receivers(broadcast);
        if receivers.is_empty() {
            return;
        }
        match encode::event(self.parser, &broadcast.namespace, None, &broadcast.args) {
            Ok(message) => receivers.send(
                &Shared::Plain {
                    message,
                    volatile: broadcast.flags.volatile,
                },
                permit,
            ),
            Err(err) => log::error!("a broadcast cannot be encoded: {err}"),
        }
    }

    /// Returns the sockets that a broadcast is for.
    fn receivers(&self, broadcast: &Broadcast) -> FanOut {
        let mut receivers = FanOut::default();
        self.rooms()
            .select(&broadcast.namespace, &broadcast.target, |member| {
                let Handle {
                    join, recipient, ..
                } = member.handle();
                receivers.add(recipient, *join);
            });
        receivers
    }

    fn join_all(&mut self, namespace: &Namespace, target: &Target, rooms: &[Room]) {
        let sockets = self.find(namespace, target, Member::id);
        let (mut num_full, mut full) = (0, None);
        let mut all = self.rooms_mut();
        for socket in sockets {
            let joined = rooms
                .iter()
                .try_for_each(|room| all.join(namespace, &socket, room.clone()));
            num_full += u64::from(joined.is_err());
            full = joined.err().or(full);
        }
        drop(all);
        if let Some(err) = full {
            // Without their ids, which are a secret of clients of revision 3; and one line for all.
            log::warn!("{num_full} sockets of {namespace} cannot join a room: {err}");
            self.counters.add(Limit::Rooms, num_full);
        }
    }

    /// Returns something of each selected socket.
    fn find<T: Clone>(
        &self,
        namespace: &Namespace,
        target: &Target,
        of: impl Fn(&Member<Handle>) -> &T,
    ) -> Vec<T> {
        let mut found = Vec::new();
        self.rooms()
            .select(namespace, target, |member| found.push(of(member).clone()));
        found
    }

    /// Asks this instance, and then the others.
    fn put(&mut self, ask: Ask) {
        let Ask {
            namespace,
            question,
            timeout,
            is_local,
            answers,
            permit,
        } = ask;
        // Before anybody says how many others are asked, see `gateways::calls`. Servers do not ask themselves, as in Node.
        if !matches!(question, Question::ServerEvent { .. }) {
            self.answer(&namespace, question.clone(), &answers, Origin::Own, permit);
        }
        match &self.bridge {
            Some(bridge) if !is_local => bridge.do_send(ForBridge::Ask(Box::new(AskOthers {
                namespace,
                question,
                timeout,
                answers,
            }))),
            // Whoever asked may have given up.
            _ => {
                let (num_instances, peers) = (0, Vec::new());
                _ = answers.send(Answer::Asked {
                    num_instances,
                    peers,
                });
            }
        }
    }

    /// Answers a question by what is known now; `num_clients` is of those whom an event that it asks to send went to. Whoever asked
    /// may have given up.
    fn answer_now(
        &self,
        namespace: &Namespace,
        question: Question,
        answers: &Answers,
        num_clients: u64,
    ) {
        let answer = match question {
            Question::SocketIds { target } => {
                Answer::SocketIds(self.find(namespace, &target, Member::id))
            }
            Question::Rooms => Answer::Rooms(self.rooms().rooms(namespace)),
            Question::Sockets { target } => {
                let mut found = Vec::new();
                self.rooms().select(namespace, &target, |member| {
                    found.push(Found {
                        record: Arc::clone(&member.handle().record),
                        rooms: member.rooms().collect(),
                    });
                });
                Answer::Found(found)
            }
            Question::Broadcast { .. } => Answer::NumClients(num_clients),
            Question::ServerEvent { args } => {
                return self.tell_server_side(namespace, args, Some(answers.clone()));
            }
        };
        _ = answers.send(answer);
    }

    /// Sends an event that every receiver is to acknowledge. One ack id serves all, so it is encoded once, too. Returns how
    /// many receivers there are. `permit` is given back when they all have it, whether they acknowledge it or not.
    fn deliver_with_acks(
        &self,
        broadcast: &Broadcast,
        answers: &Answers,
        permit: Option<Permit>,
    ) -> u64 {
        let receivers = self.receivers(broadcast);
        if receivers.is_empty() {
            return 0;
        }
        let id = self.ack_ids.next();
        let message =
            match encode::event(self.parser, &broadcast.namespace, Some(id), &broadcast.args) {
                Ok(message) => message,
                Err(err) => {
                    log::error!("a broadcast cannot be encoded: {err}");
                    return 0;
                }
            };
        let num_clients = u64::try_from(receivers.len()).unwrap_or(u64::MAX);
        let deliver = DeliverWithAck {
            id,
            message,
            volatile: broadcast.flags.volatile,
            answers: answers.clone(),
        };
        receivers.send(&Shared::WithAck(Arc::new(deliver)), permit);
        num_clients
    }
}

impl Turn<ConnectBridge> for State {
    fn turn(&mut self, ConnectBridge(bridge): ConnectBridge) {
        self.bridge = Some(bridge);
    }
}

impl Turn<Register> for State {
    fn turn(&mut self, message: Register) {
        let Register {
            record,
            recipient,
            registering,
            departure,
        } = message;
        if departure.is_some_and(|departure| departure.is_closed()) {
            // It is a member where its session goes.
            return;
        }
        let namespace = record.namespace.clone();
        let id = record.id.clone();
        let handle = Handle::new(record, recipient);
        let is_first = self.rooms_mut().insert(&namespace, id, handle);
        drop(registering);
        if is_first {
            self.tell_bridge(|| ForBridge::Open(namespace));
        }
    }
}

impl Turn<Unregister> for State {
    fn turn(&mut self, message: Unregister) {
        let Unregister {
            namespace,
            socket_id,
        } = message;
        if self.rooms_mut().remove(&namespace, &socket_id) {
            self.tell_bridge(|| ForBridge::Close(namespace));
        }
    }
}

impl Turn<Join> for State {
    fn turn(&mut self, message: Join) -> Result<(), TooManyRooms> {
        if let Some(rooms) = self.gone_rooms(&message.namespace, &message.socket_id) {
            rooms.insert(message.room.clone());
            self.send_after(&message.namespace, &message.socket_id, message.room, true);
            return Ok(());
        }
        self.rooms_mut()
            .join(&message.namespace, &message.socket_id, message.room)
            .inspect_err(|_| _ = self.counters.count(Limit::Rooms))
    }
}

impl Turn<Leave> for State {
    fn turn(&mut self, message: Leave) {
        if let Some(rooms) = self.gone_rooms(&message.namespace, &message.socket_id) {
            rooms.remove(&message.room);
            return self.send_after(&message.namespace, &message.socket_id, message.room, false);
        }
        self.rooms_mut()
            .leave(&message.namespace, &message.socket_id, &message.room);
    }
}

impl Turn<RoomsOf> for State {
    fn turn(&mut self, message: RoomsOf) -> HashSet<Room> {
        if let Some(rooms) = self.gone_rooms(&message.namespace, &message.socket_id) {
            let mut rooms = rooms.clone();
            rooms.insert(message.socket_id.room());
            return rooms;
        }
        self.rooms()
            .rooms_of(&message.namespace, &message.socket_id)
    }
}

impl Turn<Originate> for State {
    fn turn(&mut self, message: Originate) -> Result<(), TooMuchWork> {
        let Originate {
            command,
            is_local,
            permit,
        } = message;
        self.originate(command, is_local, permit)
    }
}

impl Turn<Emit> for State {
    fn turn(&mut self, message: Emit) {
        let Emit {
            broadcast,
            is_local,
            permit,
        } = message;
        // Who sends one that may be refused awaits what becomes of it, as an `Originate`.
        _ = self.originate(Command::Broadcast(broadcast), is_local, permit);
    }
}

impl Turn<Forward> for State {
    fn turn(&mut self, Forward { socket, message }: Forward) {
        socket.do_send(message);
    }
}

impl Turn<Settle> for State {
    fn turn(&mut self, _: Settle) {}
}

impl Turn<Reinject> for State {
    fn turn(&mut self, Reinject { command, from }: Reinject) {
        // Counted; others do not wait to hear how it went.
        if self.judge_command(&command).is_ok() {
            self.note(&command, Origin::Other(from));
            self.obey(&command, None);
        }
    }
}

impl Turn<Ask> for State {
    fn turn(&mut self, ask: Ask) -> Result<(), TooMuchWork> {
        self.judge_question(&ask.namespace, &ask.question)?;
        if let Some(ask) = self.postpone(ask) {
            self.put(ask);
        }
        Ok(())
    }
}

impl Turn<Answering> for State {
    fn turn(&mut self, message: Answering) {
        let Answering {
            namespace,
            question,
            answers,
            from,
        } = message;
        if self.judge_question(&namespace, &question).is_err() {
            // Whoever asks is told nothing and hears in the end that this instance was silent.
            return;
        }
        self.answer(&namespace, question, &answers, Origin::Other(from), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{
            actor::Hub,
            broadcast::{Flags, Target},
            hub_ref::HubRef,
            testing::{broadcast, delivered, probe, register},
        },
        socket::depot::Probe as SocketProbe,
        socket_io::{
            args::Args,
            ids::{Room, SocketId},
        },
    };
    use actix::{Actor, Addr, Arbiter};
    use futures_util::FutureExt as _;
    use tokio::sync::mpsc;

    fn hub() -> Addr<Hub> {
        let (server_side, _) = probe();
        Hub::from(State::new(Parser::Json, Arc::default(), server_side).0).start()
    }

    fn originate(broadcast: Broadcast) -> Originate {
        obey(Command::Broadcast(broadcast))
    }

    fn obey(command: Command) -> Originate {
        Originate {
            command,
            is_local: false,
            permit: None,
        }
    }

    /// Returns the next thing that is published, without what says which namespaces have sockets.
    async fn published(bridge: &mut mpsc::UnboundedReceiver<ForBridge>) -> Broadcast {
        loop {
            match bridge.recv().await.unwrap() {
                ForBridge::Publish(command, _) => match &*command {
                    Command::Broadcast(broadcast) => return broadcast.clone(),
                    other => panic!("no broadcast: {other:?}"),
                },
                ForBridge::Open(_) | ForBridge::Close(_) => {}
                other => panic!("nobody asks or sends: {other:?}"),
            }
        }
    }

    #[actix::test]
    async fn a_broadcast_is_encoded_once_and_published_once() {
        let hub = hub();
        let (first, second) = (SocketProbe::open(), SocketProbe::open());
        let (bridge, mut to_bridge) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        hub.send(register("a", &first)).await.unwrap();
        hub.send(register("b", &second)).await.unwrap();
        let event = broadcast(Target::default(), Flags::default());
        hub.send(originate(event.clone())).await.unwrap().unwrap();
        let (one, _) = delivered(first.next().await);
        let (other, _) = delivered(second.next().await);
        assert!(Arc::ptr_eq(&one, &other), "receivers must share the bytes");
        assert_eq!(published(&mut to_bridge).await, event);
    }

    #[actix::test]
    async fn what_came_from_the_bridge_and_what_is_local_is_not_published() {
        let hub = hub();
        let socket = SocketProbe::open();
        let (bridge, mut to_bridge) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        hub.send(register("a", &socket)).await.unwrap();
        let to_all = broadcast(Target::default(), Flags::default());
        let local = Originate {
            permit: None,
            command: Command::Broadcast(to_all.clone()),
            is_local: true,
        };
        hub.send(local).await.unwrap().unwrap();
        let command = Command::Broadcast(to_all);
        hub.send(Reinject {
            command,
            from: None,
        })
        .await
        .unwrap();
        socket.next().await;
        socket.next().await;
        // The marker is the first to be published, so nothing was before it.
        let marker = broadcast(
            Target {
                rooms: vec![Room::from("marker")],
                except: vec![],
            },
            Flags::default(),
        );
        hub.send(originate(marker.clone())).await.unwrap().unwrap();
        assert_eq!(published(&mut to_bridge).await, marker);
    }

    #[actix::test]
    async fn rooms_are_joined_and_left_by_message() {
        let hub = hub();
        let socket = SocketProbe::open();
        hub.send(register("a", &socket)).await.unwrap();
        let to_red = || {
            broadcast(
                Target {
                    rooms: vec![Room::from("red")],
                    except: vec![],
                },
                Flags::default(),
            )
        };
        let membership = || ("/events".into(), SocketId::from("a"), Room::from("red"));
        let (namespace, socket_id, room) = membership();
        hub.send(Join {
            namespace,
            socket_id,
            room,
        })
        .await
        .unwrap()
        .unwrap();
        hub.send(originate(to_red())).await.unwrap().unwrap();
        socket.next().await;
        let (namespace, socket_id, room) = membership();
        hub.send(Leave {
            namespace,
            socket_id,
            room,
        })
        .await
        .unwrap();
        hub.send(originate(to_red())).await.unwrap().unwrap();
        let volatile = Flags {
            volatile: true,
            ..Flags::default()
        };
        hub.send(originate(broadcast(Target::default(), volatile)))
            .await
            .unwrap()
            .unwrap();
        let (_, is_volatile) = delivered(socket.next().await);
        assert!(is_volatile, "nothing must come between");
        hub.send(Unregister {
            namespace: "/events".into(),
            socket_id: SocketId::from("a"),
        })
        .await
        .unwrap();
        let other = SocketProbe::open();
        hub.send(register("b", &other)).await.unwrap();
        hub.send(originate(broadcast(Target::default(), Flags::default())))
            .await
            .unwrap()
            .unwrap();
        other.next().await;
        assert!(socket.is_empty(), "who left gets nothing more");
    }

    #[actix::test]
    async fn a_flood_waits_until_its_receivers_have_what_came_before() {
        let (server_side, _) = probe();
        let (hub, _) = State::new(Parser::Json, Arc::default(), server_side);
        let arbiter = Arbiter::new();
        let hub = HubRef::start(hub, &arbiter.handle());
        let socket = SocketProbe::open();
        hub.send(register("a", &socket)).await.unwrap();
        let event = || hub.emit(broadcast(Target::default(), Flags::default()), true);
        let mut num = 0;
        // Nothing else runs on this thread meanwhile: the hub can pass everything on, and nothing comes into the inbox.
        while event().now_or_never().is_some() {
            num += 1;
            assert!(num < 10_000, "nobody holds it back");
        }
        while !hub.is_done(hub.ticket()) {
            std::thread::yield_now();
        }
        assert!(
            event().now_or_never().is_none(),
            "it was passed on, not received"
        );
        let (late, _) = tokio::join!(event(), async {
            for _ in 0..num {
                socket.next().await;
            }
        });
        late.unwrap();
        socket.next().await;
        arbiter.stop();
    }

    /// A bug: a single message of Redis that named many rooms for many sockets kept everybody waiting.
    #[actix::test]
    async fn a_command_that_is_too_much_is_refused_whole_and_counted() {
        let counters = Arc::new(Counters::default());
        let (server_side, _) = probe();
        let (mut hub, _) = State::new(Parser::Json, Arc::default(), server_side);
        hub.limit(10, Arc::clone(&counters));
        let hub = Hub::from(hub).start();
        let (bridge, mut to_bridge) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        let socket = SocketProbe::open();
        for n in 0..100 {
            hub.send(register(&format!("{n}"), &socket)).await.unwrap();
        }
        let rooms: Vec<Room> = (0..20_000).map(|n| format!("room {n}").into()).collect();
        let namespace: Namespace = "/events".into();
        let except = Target {
            except: rooms.clone(),
            ..Target::default()
        };
        let all = Target::default;
        let commands = [
            Command::Join {
                namespace: namespace.clone(),
                target: all(),
                rooms: rooms.clone(),
            },
            Command::Leave {
                namespace: namespace.clone(),
                target: all(),
                rooms,
            },
            Command::Broadcast(broadcast(except, Flags::default())),
        ];
        for command in &commands {
            let (command, from) = (command.clone(), None);
            hub.send(Reinject { command, from }).await.unwrap();
        }
        for command in commands {
            let refused = hub.send(obey(command)).await.unwrap();
            assert_eq!(refused.unwrap_err().num_sockets, 100);
        }
        assert_eq!(counters.get(Limit::HubWork), 6);
        let rooms_of = RoomsOf {
            namespace: namespace.clone(),
            socket_id: SocketId::from("7"),
        };
        assert_eq!(hub.send(rooms_of).await.unwrap().len(), 1, "its own alone");
        // What each socket may is told for all of them at once, and what fits is done.
        let command = Command::Join {
            namespace,
            target: all(),
            rooms: (0..11).map(|n| format!("room {n}").into()).collect(),
        };
        let done = hub.send(obey(command)).await.unwrap();
        assert_eq!(done, Ok(()));
        assert_eq!(counters.get(Limit::Rooms), 100);
        let event = broadcast(Target::default(), Flags::default());
        hub.send(originate(event)).await.unwrap().unwrap();
        socket.next().await;
        let mut published = Vec::new();
        while let Ok(message) = to_bridge.try_recv() {
            published.push(message);
        }
        let num_published = published
            .iter()
            .filter(|message| matches!(message, ForBridge::Publish(..)))
            .count();
        assert_eq!(
            num_published, 2,
            "nobody else is asked to do what is too much"
        );
    }

    /// A bug: a flood filled the memory with what the bridge had not taken yet.
    #[actix::test]
    async fn what_is_on_its_way_to_the_bridge_is_bounded_and_the_rest_counted() {
        let counters = Arc::new(Counters::default());
        let (server_side, _) = probe();
        let (mut hub, _) = State::new(Parser::Json, Arc::default(), server_side);
        hub.limit(10, Arc::clone(&counters));
        let hub = Hub::from(hub).start();
        // What it has not taken, it holds.
        let (bridge, mut to_bridge) = probe();
        hub.send(ConnectBridge(bridge)).await.unwrap();
        let socket = SocketProbe::open();
        hub.send(register("a", &socket)).await.unwrap();
        let json = format!("[\"{}\"]", "x".repeat(1 << 20));
        let event = Broadcast {
            args: Args::from_parts(json.into(), Vec::new()),
            ..broadcast(Target::default(), Flags::default())
        };
        for _ in 0..20 {
            hub.send(originate(event.clone())).await.unwrap().unwrap();
            delivered(socket.next().await);
        }
        assert_eq!(
            counters.get(Limit::BridgeBehind),
            5,
            "local sockets get all"
        );
        for _ in 0..15 {
            assert_eq!(published(&mut to_bridge).await, event);
        }
        hub.send(originate(event.clone())).await.unwrap().unwrap();
        assert_eq!(published(&mut to_bridge).await, event);
        assert_eq!(counters.get(Limit::BridgeBehind), 5);
    }
}
