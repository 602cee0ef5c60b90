//! Connection state recovery at the hub: logs what is sent, keeps the places of who is away, and gives them back.
//!
//! Messages into calls of [`Replay`] and [`Parked`], as `state` does for membership. An instance whose clients cannot recover
//! has none of it.
//!
//! ```text
//! Socket            Hub                    parked, replay
//!   │── Park ────────▶│ place kept ──────────▶│            the client went away; its rooms stay of interest
//!   │                 │── every event ───────▶│ logged
//!   │── Claim ───────▶│ found, and held ◀─────│            it came back, and was authorised anew
//!   ◀── Claimed ──────│                                    who it was: it is looked at whether it is the same
//!   │── Collect ─────▶│ looked up ◀───────────│            the last handlers of its former connection are done
//!   ◀── Collected ────│                                    what it missed; then its CONNECT reply is written
//!   │── Resume ──────▶│ member again                       from now on it is told everything, what came meanwhile first
//! ```
//! A claim that is not pursued to its end is free again by itself: [`Pursuit`].
//!
//! Source: wire.md 2.6.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use actix::Message;
use tokio::sync::watch;

use super::{
    actor::Turn,
    ahead::Permit,
    broadcast::Broadcast,
    messages::Register,
    parked::{self, Lost, Parked, Purged, Pursuit, Session},
    replay::{Audience, Limits, Logged, Replay},
    state::{Handle, State},
};
use crate::{
    config::RecoveryConfig,
    redis_bridge::messages::ForBridge,
    socket::{
        dynamic::InUse,
        inbox::{FanOut, Shared},
        messages::{Emit, What},
        record::Record,
    },
    socket_io::{
        args::Args,
        encode,
        ids::{Namespace, Pid, SocketId},
        recovery::{Claim as Shown, Epoch, Position},
    },
};

/// How often what is too old, or has become too much, is forgotten if nothing else happens. Nobody gets what is too old meanwhile.
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

/// What goes along with a session that is away. While it does, its `data` counts among what is kept.
#[derive(Debug)]
struct Kept {
    record: Arc<Record>,
    settled: watch::Receiver<()>,
    _in_use: Option<Arc<InUse>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.record.count_no_more();
    }
}

/// The hub's part of recovery.
#[derive(Debug)]
pub struct Recovery {
    epoch: Epoch,
    head: Arc<AtomicU64>,
    replay: Replay,
    parked: Parked<Kept>,
    /// Bytes of `data` of all that are away. Whoever has a handle of one of them may change it.
    data_bytes: Arc<AtomicUsize>,
}

impl Recovery {
    /// Returns one that knows of nothing yet. `longest_silence` is how long a connection may be dead before anybody knows: what
    /// was sent into it is kept for so much longer. `head` is told the serial of each event.
    pub fn new(
        epoch: Epoch,
        head: Arc<AtomicU64>,
        config: &RecoveryConfig,
        longest_silence: Duration,
    ) -> Self {
        let limits = Limits {
            max_age: config.max_disconnection.saturating_add(longest_silence),
            max_bytes: config.max_log_bytes,
            max_events: config.max_log_events,
        };
        let data_bytes = Arc::<AtomicUsize>::default();
        let of_sessions = parked::Limits {
            max_age: config.max_disconnection,
            max_sessions: config.max_sessions,
            max_bytes: config.max_session_bytes,
        };
        Self {
            epoch,
            head,
            replay: Replay::new(limits),
            parked: Parked::new(of_sessions, Arc::clone(&data_bytes)),
            data_bytes,
        }
    }

    fn next(&self) -> Position {
        Position::of(self.replay.head() + 1)
    }

    fn append(&mut self, namespace: Namespace, audience: Audience, logged: Arc<Logged>) {
        self.replay
            .append(namespace, audience, logged, Instant::now());
        self.head.store(self.replay.head(), Relaxed);
    }
}

/// Takes a socket out of its namespace and keeps its place, because it may come back. From the Socket actor, once, in the place
/// of `Unregister`; nothing comes back.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Park {
    /// Who it is.
    pub record: Arc<Record>,
    /// Of a dynamic namespace: it is in use as long as the client may come back.
    pub in_use: Option<Arc<InUse>>,
    /// What its client must show.
    pub pid: Pid,
    /// What `authorize` had returned for it: JSON text.
    pub authorized: Box<str>,
    /// Where its events begin.
    pub since: Position,
    /// The last one that was written to it.
    pub last: Position,
    /// The last offset of the instance that its session came from, if it came from one.
    pub before: Option<Box<str>>,
    /// Closed when its last handlers are done.
    pub settled: watch::Receiver<()>,
}

/// Asks for a client that has come back, and holds its place for it. From the Socket actor, once the gateway has authorised it.
#[derive(Message)]
#[rtype(result = "Result<Claimed, Lost>")]
pub struct Claim {
    /// Which namespace it asks for.
    pub namespace: Namespace,
    /// What it showed.
    pub pid: Pid,
    /// Lives as long as it is wanted.
    pub pursuit: Pursuit,
}

/// A session that is held for one client.
pub struct Claimed {
    /// What `authorize` had returned for it when it left: JSON text.
    pub authorized: Box<str>,
    /// Closed when its last handlers are done.
    pub settled: watch::Receiver<()>,
}

/// Asks for the state of a client whose place is held. From the Socket actor, once it is known to be the same.
#[derive(Message)]
#[rtype(result = "Result<Collected, Lost>")]
pub struct Collect {
    /// Which namespace it asks for.
    pub namespace: Namespace,
    /// What it showed.
    pub shown: Shown,
    /// How much may be sent to it at a time, bytes; what events take beside their own included.
    pub max_bytes: usize,
    /// By which its place is held.
    pub pursuit: Pursuit,
}

/// The state of a client that is let in again.
pub struct Collected {
    /// Who it was.
    pub record: Arc<Record>,
    /// What it missed, in order.
    pub missed: Vec<Arc<Logged>>,
    /// Where its events begin.
    pub since: Position,
    /// The last event that it will have got when it has got what it missed.
    pub last: Position,
    /// See [`Park::before`].
    pub before: Option<Box<str>>,
    /// Serial of the last event that was looked at.
    pub head: u64,
}

impl fmt::Debug for Park {
    /// Without what `authorize` returned, which may hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Park")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed").finish_non_exhaustive()
    }
}

impl fmt::Debug for Collect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").finish_non_exhaustive()
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected")
            .field("num_missed", &self.missed.len())
            .finish_non_exhaustive()
    }
}

/// Puts a client that was let in again into its old place. From the Socket actor, in the place of `Register`, behind what it
/// missed and the CONNECT reply in its outbox; what came since it was claimed goes to it first. Nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Resume {
    /// Who it is, of the same id as before.
    pub register: Register,
    /// Whose place it takes.
    pub pid: Pid,
    /// What [`Collected::last`] was.
    pub last: Position,
    /// What [`Collected::head`] was.
    pub head: u64,
    /// Holds the session until now.
    pub pursuit: Pursuit,
}

/// Logs an event that a client alone was sent. From its Socket actor; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Note {
    /// The client's record.
    pub record: Arc<Record>,
    /// The event.
    pub logged: Arc<Logged>,
}

/// Sends an event to one socket whose connection has ended: to whoever has its place by now, or into the log. From gateways and
/// from Socket actors; nothing comes back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EmitToOne {
    /// Whom it was for.
    pub record: Arc<Record>,
    /// The event.
    pub args: Args,
}

impl State {
    /// Returns how often [`Self::purge`] is to be called; never, if nobody can recover.
    pub(super) fn purge_interval(&self) -> Option<Duration> {
        self.recovery.is_some().then_some(PURGE_INTERVAL)
    }

    /// Forgets what is too old or too much, as far as can be done at a time. Returns whether another turn is to go on with it.
    pub(super) fn purge(&mut self) -> bool {
        let Some(recovery) = &mut self.recovery else {
            return false;
        };
        let now = Instant::now();
        let are_events_left = recovery.replay.purge(now);
        let Purged {
            sessions,
            is_more_left,
        } = recovery.parked.purge(now);
        for session in sessions {
            self.give_up(&session);
        }
        is_more_left || are_events_left
    }

    fn give_up(&self, session: &Session) {
        let Session {
            namespace,
            id,
            rooms,
            ..
        } = session;
        if self.rooms_mut().give_up(namespace, id, rooms) {
            self.tell_bridge(|| ForBridge::Close(namespace.clone()));
        }
    }

    /// Encodes once, hands the same bytes to every selected socket, and logs them if anybody got them or may come back for them.
    /// `permit` is given back when they all have them.
    pub(super) fn deliver_logged(&mut self, broadcast: &Broadcast, permit: Option<Permit>) {
        let Some(recovery) = &self.recovery else {
            return;
        };
        let Broadcast {
            namespace,
            target,
            args,
            ..
        } = broadcast;
        let position = recovery.next();
        let encoded = || {
            let offset = recovery.epoch.offset(position);
            encode::event_with_offset(self.parser, namespace, args, &offset)
                .map(|message| Arc::new(Logged { position, message }))
                .inspect_err(|err| log::error!("a broadcast cannot be encoded: {err}"))
        };
        let mut logged = None;
        let mut receivers = FanOut::default();
        let rooms = self.rooms();
        rooms.select(namespace, target, |member| {
            if logged.get_or_insert_with(encoded).is_err() {
                return;
            }
            let handle = member.handle();
            handle.told.store(position.serial, Relaxed);
            receivers.add(&handle.recipient, handle.join);
        });
        if let Some(Ok(logged)) = &logged {
            receivers.send(&Shared::Logged(Arc::clone(logged)), permit);
        }
        if logged.is_none() && rooms.may_be_missed(namespace, target) {
            logged = Some(encoded());
        }
        drop(rooms);
        if let (Some(Ok(logged)), Some(recovery)) = (logged, &mut self.recovery) {
            let audience = Audience::Selected(target.clone());
            recovery.append(namespace.clone(), audience, logged);
        }
    }

    fn claim(&mut self, claim: &Claim) -> Result<Claimed, Lost> {
        let recovery = self.recovery.as_mut().ok_or(Lost::Unknown)?;
        let Claim {
            namespace,
            pid,
            pursuit,
        } = claim;
        let now = Instant::now();
        let (session, kept) = recovery.parked.claim(pid, namespace, pursuit, now)?;
        Ok(Claimed {
            authorized: session.authorized.clone(),
            settled: kept.settled.clone(),
        })
    }

    fn collect(&mut self, collect: &Collect) -> Result<Collected, Lost> {
        let recovery = self.recovery.as_mut().ok_or(Lost::Unknown)?;
        let Collect {
            namespace,
            shown,
            max_bytes,
            pursuit,
        } = collect;
        let now = Instant::now();
        let parked = &mut recovery.parked;
        let (session, kept) = parked.claim(&shown.pid, namespace, pursuit, now)?;
        let offset = match &shown.offset {
            // It saw all that it was sent elsewhere, and nothing yet of what it was sent here.
            Some(offset) if session.before.as_deref() == Some(offset) => None,
            Some(offset) => Some(recovery.epoch.read(offset).ok_or(Lost::Offset)?),
            None if session.before.is_some() => return Err(Lost::Offset),
            None => None,
        };
        let missed = session.missed(&recovery.replay, offset, *max_bytes)?;
        let last = missed.last().map_or(session.last, |logged| logged.position);
        Ok(Collected {
            record: Arc::clone(&kept.record),
            since: session.since,
            before: session.before.clone(),
            last: last.max(session.last),
            missed,
            head: recovery.replay.head(),
        })
    }

    /// Sends an event to one socket: to whoever has its place by now, or into the log if it is away.
    pub(super) fn emit_to_one(&mut self, record: &Record, args: Args) {
        let (namespace, id): (&Namespace, &SocketId) = (&record.namespace, &record.id);
        if let Some(handle) = self.rooms().get(namespace, id) {
            let record = Arc::clone(&handle.record);
            return handle.tell(What::Emit(Box::new(Emit {
                record,
                args,
                // Its place is kept behind this, and it ends behind that.
                hub: None,
            })));
        }
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        if !recovery.parked.is_away(namespace, id) {
            return;
        }
        let position = recovery.next();
        let offset = recovery.epoch.offset(position);
        match encode::event_with_offset(self.parser, namespace, &args, &offset) {
            Ok(message) => {
                let logged = Arc::new(Logged { position, message });
                recovery.append(namespace.clone(), Audience::One(id.clone()), logged);
            }
            Err(err) => log::error!("an event cannot be encoded: {err}"),
        }
    }
}

impl Turn<Park> for State {
    fn turn(&mut self, park: Park) {
        let Park {
            record,
            in_use,
            pid,
            authorized,
            since,
            last,
            before,
            settled,
        } = park;
        let away = self.rooms_mut().go_away(&record.namespace, &record.id);
        let (Some((handle, rooms)), Some(recovery)) = (away, &mut self.recovery) else {
            return;
        };
        let session = Session {
            pid,
            id: record.id.clone(),
            namespace: record.namespace.clone(),
            rooms,
            authorized,
            epoch: recovery.epoch,
            since,
            last,
            before,
            told: handle.told.load(Relaxed),
            left: recovery.replay.head(),
        };
        record.count_in(&recovery.data_bytes);
        let len_bytes = record.handshake.len_bytes();
        let kept = Kept {
            record,
            settled,
            _in_use: in_use,
        };
        let now = Instant::now();
        recovery.parked.park(session, kept, len_bytes, now);
        // If that is not all, the next who leaves goes on with it, or the clock.
        self.purge();
    }
}

impl Turn<Claim> for State {
    fn turn(&mut self, claim: Claim) -> Result<Claimed, Lost> {
        self.claim(&claim)
    }
}

impl Turn<Collect> for State {
    fn turn(&mut self, collect: Collect) -> Result<Collected, Lost> {
        let collected = self.collect(&collect);
        if let Err(lost @ (Lost::Forgotten | Lost::TooMuch)) = collected {
            let Collect {
                namespace, shown, ..
            } = &collect;
            log::debug!("a client of {namespace} comes back in vain: {lost}");
            let parked = self.recovery.as_mut().map(|recovery| &mut recovery.parked);
            if let Some((session, _)) = parked.and_then(|parked| parked.take(&shown.pid)) {
                self.give_up(&session);
            }
        }
        collected
    }
}

impl Turn<Resume> for State {
    fn turn(&mut self, resume: Resume) {
        let Resume {
            register,
            pid,
            last,
            head,
            pursuit,
        } = resume;
        let Register {
            record,
            recipient,
            registering,
            departure,
        } = register;
        let recovery = self.recovery.as_mut();
        // It is there: it was claimed, and `pursuit` holds it.
        let Some((session, _)) = recovery.and_then(|recovery| recovery.parked.take(&pid)) else {
            return debug_assert!(false, "a session that is pursued must not be forgotten");
        };
        drop(pursuit);
        let handle = Handle::new(record, recipient);
        let told = last.serial.max(session.told);
        handle.told.store(told, Relaxed);
        if departure.is_some_and(|departure| departure.is_closed()) {
            // It goes on where its session goes, and its rooms do not: it would miss their events and not know it.
            handle.tell(What::Disconnect {
                whole_connection: true,
            });
            return self.give_up(&session);
        }
        if let Some(recovery) = &self.recovery {
            match session.missed_since(&recovery.replay, head) {
                Some(missed) => {
                    for logged in missed {
                        handle.told.store(logged.position.serial, Relaxed);
                        handle.tell(What::DeliverLogged(logged));
                    }
                }
                // It would miss something and not know it.
                None => handle.tell(What::Disconnect {
                    whole_connection: true,
                }),
            }
        }
        let Session {
            namespace,
            id,
            rooms,
            ..
        } = session;
        self.rooms_mut().come_back(&namespace, id, rooms, handle);
        drop(registering);
    }
}

impl Turn<Note> for State {
    fn turn(&mut self, Note { record, logged }: Note) {
        if let Some(recovery) = &mut self.recovery {
            let audience = Audience::One(record.id.clone());
            recovery.append(record.namespace.clone(), audience, logged);
        }
    }
}

impl Turn<EmitToOne> for State {
    fn turn(&mut self, EmitToOne { record, args }: EmitToOne) {
        self.emit_to_one(&record, args);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use actix::Actor as _;

    use super::*;
    use crate::{
        hub::{
            actor::Hub,
            broadcast::{Flags, Target},
            testing::{broadcast, probe, register},
        },
        socket::depot::Probe as SocketProbe,
        socket_io::{ids::Room, parser::Parser},
    };

    /// A bug: the whole log was looked at for each claim, before anybody knew whether it was the same client.
    #[actix::test]
    async fn nothing_is_looked_up_for_a_claim_before_the_client_is_known_to_be_the_same() {
        let config = RecoveryConfig {
            max_log_events: 1,
            ..RecoveryConfig::default()
        };
        let epoch = Epoch::random().unwrap();
        let (mut state, _) = State::new(Parser::Json, Arc::default(), probe().0);
        let recovery = Recovery::new(epoch, Arc::default(), &config, Duration::ZERO);
        state.recovery = Some(Box::new(recovery));
        let socket = SocketProbe::open();
        let registered = register("a", &socket);
        let (record, pid) = (Arc::clone(&registered.record), Pid::random().unwrap());
        state.turn(registered);
        let (_settled, settled) = watch::channel(());
        let event = broadcast(Target::default(), Flags::default());
        state.deliver_logged(&event, None);
        state.turn(Park {
            record,
            in_use: None,
            pid: pid.clone(),
            authorized: "null".into(),
            since: Position::default(),
            last: Position::default(),
            before: None,
            settled,
        });
        state.deliver_logged(&event, None);
        let pursuit = Pursuit::default();
        let claim = || Claim {
            namespace: "/events".into(),
            pid: pid.clone(),
            pursuit: Arc::clone(&pursuit),
        };
        // Of what it missed, the first is forgotten.
        for _ in 0..2 {
            assert_eq!(&*state.turn(claim()).unwrap().authorized, "null");
        }
        let shown = Shown {
            pid: pid.clone(),
            offset: None,
        };
        let collect = Collect {
            namespace: "/events".into(),
            shown,
            max_bytes: usize::MAX,
            pursuit: Arc::clone(&pursuit),
        };
        assert_eq!(state.turn(collect).unwrap_err(), Lost::Forgotten);
        assert_eq!(state.turn(claim()).unwrap_err(), Lost::Unknown);
    }

    /// A bug: `data` counted as it was when its client left, and who kept a handle could let it become anything.
    #[actix::test]
    async fn data_that_becomes_larger_while_its_client_is_away_counts() {
        const MAX_BYTES: usize = 100_000;
        let config = RecoveryConfig {
            max_session_bytes: MAX_BYTES,
            ..RecoveryConfig::default()
        };
        let epoch = Epoch::random().unwrap();
        let (mut state, _) = State::new(Parser::Json, Arc::default(), probe().0);
        let recovery = Recovery::new(epoch, Arc::default(), &config, Duration::ZERO);
        let data_bytes = Arc::clone(&recovery.data_bytes);
        state.recovery = Some(Box::new(recovery));
        let socket = SocketProbe::open();
        let (_settling, settled) = watch::channel(());
        let records = ["first", "second"].map(|id| {
            let registered = register(id, &socket);
            let record = Arc::clone(&registered.record);
            state.turn(registered);
            state.turn(Park {
                record: Arc::clone(&record),
                in_use: None,
                pid: Pid::random().unwrap(),
                authorized: "null".into(),
                since: Position::default(),
                last: Position::default(),
                before: None,
                settled: settled.clone(),
            });
            record
        });
        let are_away = |state: &State| {
            let parked = &state.recovery.as_ref().unwrap().parked;
            records
                .each_ref()
                .map(|record| parked.is_away(&record.namespace, &record.id))
        };
        // Within the bound for one, with what it takes beside, and not for two.
        let [_, second] = &records;
        let large = "x".repeat(MAX_BYTES - 3000);
        second.set_data(&large).unwrap();
        assert!(!state.purge());
        assert_eq!(are_away(&state), [false, true], "who left first goes first");
        second.with_data(|data| *data = "y".repeat(MAX_BYTES).into());
        assert!(!state.purge());
        assert_eq!(are_away(&state), [false, false]);
        assert_eq!(data_bytes.load(Relaxed), 0);
        second.set_data(&large).unwrap();
        assert_eq!(data_bytes.load(Relaxed), 0, "it is nobody's here any more");
    }

    /// A bug: all who were away too long were given up in one turn.
    #[actix::test]
    async fn what_is_not_given_up_in_one_turn_is_in_the_next() {
        let config = RecoveryConfig {
            max_disconnection: Duration::ZERO,
            ..RecoveryConfig::default()
        };
        let epoch = Epoch::random().unwrap();
        let (mut state, _) = State::new(Parser::Json, Arc::default(), probe().0);
        let mut recovery = Recovery::new(epoch, Arc::default(), &config, Duration::ZERO);
        let socket = SocketProbe::open();
        let rooms: HashSet<Room> = (0..1000).map(|n| n.to_string().into()).collect();
        let mut records = Vec::new();
        for n in 0..25 {
            let Register { record, .. } = register(&n.to_string(), &socket);
            let session = Session {
                pid: Pid::random().unwrap(),
                id: record.id.clone(),
                namespace: record.namespace.clone(),
                rooms: rooms.clone(),
                authorized: "null".into(),
                epoch,
                since: Position::default(),
                last: Position::default(),
                before: None,
                told: 0,
                left: 0,
            };
            records.push(Arc::downgrade(&record));
            let (_, settled) = watch::channel(());
            let kept = Kept {
                record,
                settled,
                _in_use: None,
            };
            recovery.parked.park(session, kept, 0, Instant::now());
        }
        state.recover(recovery);
        let num_kept = || records.iter().filter(|one| one.strong_count() > 0).count();
        let mut after_first = 0;
        let _hub = Hub::create(|ctx| {
            let mut hub = Hub::from(state);
            hub.purge(ctx);
            after_first = num_kept();
            hub
        });
        assert_eq!(after_first, 15);
        let all_gone = async {
            while num_kept() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, all_gone).await.unwrap();
    }
}
