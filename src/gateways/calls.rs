//! Hearing out what instances answer: when all has been heard, and what to say if it never is.
//!
//! Knows no Redis: answers come from wherever they come, those of this instance first, then the word how many others are asked.
//! A call ends when all has arrived, when nobody is left who could answer, or when its time is over.

use std::{collections::HashSet, hash::Hash, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    task::{consume_budget, yield_now},
    time::{Instant, timeout_at},
};

use super::{binary, broadcaster::NamespaceRef, remote_socket::RemoteSocket, reply::HandlerError};
use crate::{
    engine_io::sid::InstanceId,
    hub::question::{Answer, Found},
    socket::acks::Acked,
    socket_io::{
        args::Args,
        ids::{Room, SocketId},
    },
};

/// Bytes of an ack that take a moment to be read.
const MANY_BYTES: usize = 16 * 1024;

/// Why a question was not answered by all. `A` is what had arrived by then.
#[derive(Debug, thiserror::Error)]
pub enum AskError<A> {
    /// The question cannot be put: a value does not serialise, for one.
    #[error("the question cannot be put")]
    Refused(#[source] HandlerError),
    /// This instance is stopping.
    #[error("the server is shutting down")]
    Stopping,
    /// The one socket that was asked is not there any more.
    #[error("the socket is gone")]
    Gone,
    /// Redis is away, so other instances cannot be asked or not be heard.
    #[error("other instances cannot be reached: {reason}")]
    Unreachable {
        /// Why, for people.
        reason: String,
        /// What had arrived: at least what this instance answers.
        arrived: A,
    },
    /// Not all answers came in time, or some can come no more.
    #[error(
        "{num_silent_instances} of {num_instances} other instances{} and {num_silent_clients} clients did not answer within {within:?}",
        in_brackets(silent_instances)
    )]
    Incomplete {
        /// What had arrived.
        arrived: A,
        /// How many other instances were asked.
        num_instances: usize,
        /// How many of them did not answer.
        num_silent_instances: usize,
        /// Those of them that are instances of Sockhop, and any that died within the last seconds before they could be asked. Servers
        /// of Node have no names to be called by.
        silent_instances: Vec<InstanceId>,
        /// How many clients did not acknowledge, or not with what was expected.
        num_silent_clients: u64,
        /// How long they had.
        within: Duration,
    },
}

fn in_brackets(names: &[InstanceId]) -> String {
    let names: Vec<_> = names.iter().map(InstanceId::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!(" ({})", names.join(", ")),
    }
}

impl<A> AskError<A> {
    /// Returns what had arrived, if anything could.
    pub fn into_arrived(self) -> Option<A> {
        match self {
            Self::Refused(_) | Self::Stopping | Self::Gone => None,
            Self::Unreachable { arrived, .. } | Self::Incomplete { arrived, .. } => Some(arrived),
        }
    }
}

impl<A> From<AskError<A>> for HandlerError {
    /// So that a handler can pass on with `?` what went wrong with a question.
    fn from(err: AskError<A>) -> Self {
        let code = match &err {
            AskError::Refused(refused) => return refused.clone(),
            AskError::Stopping => "unavailable",
            AskError::Gone => "gone",
            // Why is for the log of whoever runs the instance, not for clients.
            AskError::Unreachable { reason, .. } => {
                log::warn!("other instances cannot be asked: {reason}");
                return Self::new("unreachable", "Other servers cannot be reached.");
            }
            AskError::Incomplete { .. } => "incomplete",
        };
        let text = err.to_string();
        Self::new(code, text)
    }
}

/// A question that has been put.
#[derive(Debug)]
pub(super) struct Asked {
    answers: mpsc::UnboundedReceiver<Answer>,
    within: Duration,
    deadline: Instant,
}

/// What has been heard so far.
#[derive(Debug, Default)]
struct Tally {
    /// How many other instances were asked; unknown at first.
    num_instances: Option<usize>,
    /// Those of them whose names are known.
    peers: Vec<InstanceId>,
    /// How many of them have answered.
    num_answers: usize,
    /// Those of them whose names are known.
    heard: HashSet<InstanceId>,
    /// Who gave the answer that is being taken; nothing if that is this instance.
    speaker: Option<Speaker>,
    /// How many clients the event went to, as far as instances have said.
    num_clients: u64,
    num_acks: u64,
    /// Those that could not be read, or not be kept.
    num_unreadable: u64,
    unreachable: Option<String>,
}

/// Another instance, and its name, if it is known.
type Speaker = Option<InstanceId>;

impl Tally {
    /// Notes that an instance answered.
    fn instance(&mut self) {
        if let Some(speaker) = self.speaker {
            self.num_answers += 1;
            self.heard.extend(speaker);
        }
    }

    fn all_instances_answered(&self) -> bool {
        self.num_instances
            .is_some_and(|num_instances| self.num_answers >= num_instances)
    }

    fn all_clients_answered(&self) -> bool {
        self.all_instances_answered() && self.num_acks + self.num_unreadable >= self.num_clients
    }
}

impl Asked {
    pub(super) fn new(answers: mpsc::UnboundedReceiver<Answer>, within: Duration) -> Self {
        // Far more than anyone waits, and far less than the clock can hold.
        let within = within.min(Duration::from_secs(24 * 60 * 60));
        let deadline = Instant::now() + within;
        Self {
            answers,
            within,
            deadline,
        }
    }

    /// Hears answers until `is_over`, or until no more can come, or until the time is over; `take` keeps what they say.
    async fn hear(
        &mut self,
        mut take: impl FnMut(Answer, &mut Tally),
        is_over: impl Fn(&Tally) -> bool,
    ) -> Tally {
        let mut tally = Tally::default();
        while !is_over(&tally) {
            match timeout_at(self.deadline, self.answers.recv()).await {
                Ok(Some(Answer::Asked {
                    num_instances,
                    peers,
                })) => {
                    tally.num_instances = Some(num_instances);
                    tally.peers = peers;
                }
                // The channel closes when nobody can say anything any more. The first reason is the true one.
                Ok(Some(Answer::Unreachable { reason })) => {
                    tally.unreachable.get_or_insert(reason);
                }
                Ok(Some(Answer::OfOther { by, answer })) => {
                    tally.speaker = Some(by);
                    take(*answer, &mut tally);
                }
                Ok(Some(answer)) => {
                    tally.speaker = None;
                    take(answer, &mut tally);
                }
                Ok(None) | Err(_) => break,
            }
        }
        tally
    }

    /// Returns what arrived, as an error if it is not all.
    fn conclude<A>(self, arrived: A, tally: Tally) -> Result<A, AskError<A>> {
        if let Some(reason) = tally.unreachable {
            return Err(AskError::Unreachable { reason, arrived });
        }
        if tally.all_clients_answered() && tally.num_unreadable == 0 {
            return Ok(arrived);
        }
        let num_instances = tally.num_instances.unwrap_or(0);
        let num_silent_instances = num_instances.saturating_sub(tally.num_answers);
        let silent_instances = match num_silent_instances {
            0 => Vec::new(),
            _ => {
                let is_silent = |peer: &InstanceId| !tally.heard.contains(peer);
                tally.peers.into_iter().filter(is_silent).collect()
            }
        };
        Err(AskError::Incomplete {
            arrived,
            num_instances,
            num_silent_instances,
            silent_instances,
            num_silent_clients: tally.num_clients.saturating_sub(tally.num_acks),
            within: self.within,
        })
    }
}

/// Collects lists of sockets.
pub(super) async fn sockets(
    mut asked: Asked,
    namespace: &NamespaceRef,
) -> Result<Vec<RemoteSocket>, AskError<Vec<RemoteSocket>>> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let take = |answer, tally: &mut Tally| match answer {
        Answer::Found(found) => {
            tally.instance();
            own.extend(found);
        }
        Answer::Sockets(sockets) => {
            tally.instance();
            others.extend(sockets);
        }
        _ => {}
    };
    let tally = asked.hear(take, Tally::all_instances_answered).await;
    let mut arrived = Vec::new();
    let mut ids = HashSet::new();
    let own = own.into_iter().map(|found: Found| found.snapshot());
    for snapshot in own.chain(others) {
        // There may be a hundred thousand, and others on this thread have clients, too.
        consume_budget().await;
        // A socket that moves while all are asked may be at two of them.
        if ids.insert(snapshot.id.clone()) {
            arrived.push(RemoteSocket::new(snapshot, namespace.clone()));
        }
    }
    asked.conclude(arrived, tally)
}

/// Collects lists of socket ids.
pub(super) async fn socket_ids(mut asked: Asked) -> Result<Vec<SocketId>, AskError<Vec<SocketId>>> {
    let mut ids = Vec::new();
    let take = |answer, tally: &mut Tally| match answer {
        Answer::SocketIds(more) => {
            tally.instance();
            ids.push(more);
        }
        // An empty list does not show what it is a list of.
        Answer::Sockets(none) if none.is_empty() => tally.instance(),
        _ => {}
    };
    let tally = asked.hear(take, Tally::all_instances_answered).await;
    asked.conclude(distinct(ids).await, tally)
}

/// Collects lists of rooms.
pub(super) async fn all_rooms(mut asked: Asked) -> Result<Vec<Room>, AskError<Vec<Room>>> {
    let mut rooms = Vec::new();
    let take = |answer, tally: &mut Tally| {
        if let Answer::Rooms(more) = answer {
            tally.instance();
            rooms.push(more);
        }
    };
    let tally = asked.hear(take, Tally::all_instances_answered).await;
    asked.conclude(distinct(rooms).await, tally)
}

/// Returns what is in any of these lists, once each.
async fn distinct<T: Clone + Eq + Hash>(lists: Vec<Vec<T>>) -> Vec<T> {
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for one in lists.into_iter().flatten() {
        // As in `sockets`.
        consume_budget().await;
        if known.insert(one.clone()) {
            all.push(one);
        }
    }
    all
}

/// Collects what other servers' handlers returned.
pub(super) async fn server_replies<T: DeserializeOwned>(
    mut asked: Asked,
) -> Result<Vec<T>, AskError<Vec<T>>> {
    let mut replies = Vec::new();
    let take = |answer, tally: &mut Tally| {
        if let Answer::ServerReply(args) = answer {
            tally.instance();
            if !read(&args, &mut replies) {
                tally.num_unreadable += 1;
            }
        }
    };
    let tally = asked.hear(take, Tally::all_instances_answered).await;
    asked.conclude(replies, tally)
}

/// Collects what clients acknowledge.
pub(super) async fn acks<T: DeserializeOwned>(
    mut asked: Asked,
) -> Result<Vec<T>, AskError<Vec<T>>> {
    let mut acked = Vec::new();
    let take = |answer, tally: &mut Tally| take_ack(answer, &mut acked, tally);
    let mut tally = asked.hear(take, Tally::all_clients_answered).await;
    asked.conclude(read_acks(acked, &mut tally).await, tally)
}

/// Awaits what one client acknowledges, wherever it is.
pub(super) async fn one_ack<T: DeserializeOwned>(mut asked: Asked) -> Result<T, AskError<()>> {
    let (acked, mut tally) = hear_one(&mut asked).await;
    match read_acks(acked, &mut tally).await.pop() {
        Some(ack) => Ok(ack),
        None if tally.all_clients_answered() && tally.num_clients == 0 => Err(AskError::Gone),
        None => Err(asked.conclude((), tally).err().unwrap_or(AskError::Gone)),
    }
}

/// Awaits what one client acknowledges, wherever it is, and returns that as it came.
pub(super) async fn one_acked(mut asked: Asked) -> Result<Acked, AskError<()>> {
    let (mut acked, tally) = hear_one(&mut asked).await;
    match acked.pop() {
        Some(ack) => Ok(ack),
        None if tally.all_clients_answered() => Err(AskError::Gone),
        None => Err(asked.conclude((), tally).err().unwrap_or(AskError::Gone)),
    }
}

/// Hears answers until a client has acknowledged, or none can.
async fn hear_one(asked: &mut Asked) -> (Vec<Acked>, Tally) {
    let mut acked = Vec::new();
    let take = |answer, tally: &mut Tally| take_ack(answer, &mut acked, tally);
    let is_over = |tally: &Tally| tally.num_acks > 0 || tally.all_clients_answered();
    let tally = asked.hear(take, is_over).await;
    (acked, tally)
}

/// Keeps an ack as it came: what is read of it may take many times as much, and the last may be waited for long.
fn take_ack(answer: Answer, acked: &mut Vec<Acked>, tally: &mut Tally) {
    match answer {
        Answer::NumClients(num_clients) => {
            tally.instance();
            tally.num_clients = tally.num_clients.saturating_add(num_clients);
        }
        Answer::OneMore => tally.num_clients = tally.num_clients.saturating_add(1),
        Answer::Ack(ack) => {
            acked.push(ack);
            tally.num_acks += 1;
        }
        Answer::Unkept => tally.num_unreadable += 1,
        _ => {}
    }
}

/// Reads what was acknowledged, and counts what cannot be read as that.
async fn read_acks<T: DeserializeOwned>(acked: Vec<Acked>, tally: &mut Tally) -> Vec<T> {
    let mut acks = Vec::new();
    for Acked { args, .. } in acked {
        // As in `sockets`; and each may be as large as a client may send.
        match args.len_bytes() {
            0..MANY_BYTES => consume_budget().await,
            _ => yield_now().await,
        }
        if !read(&args, &mut acks) {
            tally.num_acks -= 1;
            tally.num_unreadable += 1;
        }
    }
    acks
}

/// Reads the first argument; none counts as `null`. Returns whether it could be read.
fn read<T: DeserializeOwned>(args: &Args, values: &mut Vec<T>) -> bool {
    let first = args.first().unwrap_or("null");
    match binary::read(first, args.attachments()) {
        Ok(value) => {
            values.push(value);
            true
        }
        Err(err) => {
            log::debug!("an answer is not of the type that was asked for: {err}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix::Arbiter;

    use super::*;
    use crate::{
        counters::Counters,
        hub::{
            hub_ref::HubRef,
            state::State,
            testing::{probe, register},
        },
        socket::{backlogs::Backlogs, depot::Probe as SocketProbe},
        socket_io::parser::Parser,
    };

    /// A bug: acks of many were read in one go, when the last had come.
    #[actix::test]
    async fn others_get_their_turn_while_many_acks_are_read() {
        const NUM: usize = 10_000;

        let (backlogs, counters) = (Arc::new(Backlogs::new(1 << 30)), Counters::default());
        let args = Args::from_parts("[7]".into(), Vec::new());
        let ack = Acked::new(&backlogs, &counters, args).unwrap();
        let acked = vec![ack; NUM];
        let reading = actix_rt::spawn(async move {
            let acks: Vec<u8> = read_acks(acked, &mut Tally::default()).await;
            acks.len()
        });
        actix_rt::spawn(async {}).await.unwrap();
        assert!(!reading.is_finished());
        assert_eq!(reading.await.unwrap(), NUM);
    }

    /// A bug: whoever asked for all sockets kept everybody of its thread waiting until it had them.
    #[actix::test]
    async fn others_get_their_turn_while_many_sockets_are_collected() {
        const NUM: usize = 10_000;

        let arbiter = Arbiter::new();
        let (server_side, _) = probe();
        let (state, _) = State::new(Parser::Json, Arc::default(), server_side);
        let namespace = NamespaceRef {
            namespace: "/events".into(),
            hub: HubRef::start(state, &arbiter.handle()),
        };
        let record = register("a", &SocketProbe::open()).record;
        let found = Found {
            record,
            rooms: Vec::new(),
        };
        let (answers, received) = mpsc::unbounded_channel();
        let asked = Asked::new(received, Duration::from_secs(3600));
        answers.send(Answer::Found(vec![found; NUM])).unwrap();
        let nobody = Answer::Asked {
            num_instances: 0,
            peers: Vec::new(),
        };
        answers.send(nobody).unwrap();
        let all = actix_rt::spawn(async move { sockets(asked, &namespace).await });
        actix_rt::spawn(async {}).await.unwrap();
        assert!(!all.is_finished());
        let all = all.await.unwrap().unwrap();
        assert_eq!(all.len(), 1, "it is one and the same");
        arbiter.stop();
    }
}
