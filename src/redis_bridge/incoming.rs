//! What others publish: judged, and handed to whom it concerns.
//!
//! ```text
//! broadcast ─────────────▶ hub: obey           request to do something ──▶ hub: obey
//! response ──▶ calls: whoever asked            request for an answer ────▶ hub: answer ──▶ queue: responses
//! ```
//! Nothing that comes in ends anything: what cannot be read, is our own, or is for nobody here is skipped and counted.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    bus::Inbound,
    calls::Calls,
    private::{Audience, Listener},
    queue::Queue,
    status::BridgeStats,
    wire::{Channels, Kind, Unfit},
};
use crate::{
    adapter::{
        incoming::{Body, Incoming},
        request::{Request, RequestId},
        response::Response,
    },
    counters::Counters,
    engine_io::sid::InstanceId,
    hub::{
        broadcast::Target,
        command::Command,
        counted::HubRecipient,
        hub_ref::HubRef,
        interest::Interest,
        messages::{Answering, Reinject, Settle},
        question::{Answer, Found, Question},
        room_table::RoomTable,
    },
    peers::{self, Peers},
    socket::{acks::Acked, backlogs::Backlogs},
    socket_io::ids::{Namespace, SocketId},
};

/// Messages handed to the hub without waiting for it to have taken them.
const MAX_UNCONFIRMED: usize = 64;
/// Bytes of them.
const MAX_UNCONFIRMED_BYTES: usize = 256 << 10;
/// Questions of others that the hub or a handler of servers' events may be answering at a time; more are not answered.
pub(super) const MAX_ANSWERING: usize = 1024;
/// Events of others whose acks may be being waited for at a time, each until all clients have acknowledged it or its time is over.
/// They are counted apart: clients that acknowledge nothing must not keep the hub from answering. More are delivered, and their acks
/// are dropped.
pub(super) const MAX_AWAITING_ACKS: usize = 16_384;
/// How long what clients and handlers answer is passed on at most, whatever the asking instance says.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(10 * 60);
/// How long the hub's own answers may take: they wait for sessions that are on their way here.
const HUB_ANSWER_TIME: Duration = Duration::from_secs(3);
/// How long a handler of servers' events has, since the asking instance does not say; twice Node's time-out.
const SERVER_EVENT_TIME: Duration = Duration::from_secs(10);

/// The hub, as far as the bridge knows it.
#[derive(Clone, Debug)]
pub struct HubDoor {
    pub(super) reinject: HubRecipient<Reinject>,
    pub(super) answering: HubRecipient<Answering>,
    pub(super) settle: HubRecipient<Settle>,
    pub(super) interest: Interest,
    pub(super) rooms: Option<Arc<RoomTable>>,
    pub(super) backlogs: Arc<Backlogs>,
    pub(super) counters: Arc<Counters>,
}

impl HubDoor {
    /// Returns the door of `hub`, whose membership `interest` shows. `rooms` is the table that it keeps, if the adapter wants
    /// one; see [`room_table`](super::room_table). What clients of other instances acknowledge counts among `backlogs`, and what
    /// is too much of it in `counters`.
    pub fn new(
        hub: &HubRef,
        interest: Interest,
        rooms: Option<Arc<RoomTable>>,
        backlogs: Arc<Backlogs>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            reinject: hub.recipient(),
            answering: hub.recipient(),
            settle: hub.recipient(),
            interest,
            rooms,
            backlogs,
            counters,
        }
    }
}

/// There is nobody left to listen for.
#[derive(Debug)]
pub(super) struct HubGone;

/// What is taken in over one connection. What is being answered outlives it, and is counted over all connections.
pub(super) struct Intake {
    peers: Arc<Peers>,
    hub: HubDoor,
    listener: Listener,
    queue: Arc<Queue>,
    calls: Arc<Calls>,
    stats: Arc<BridgeStats>,
    num_unconfirmed: usize,
    unconfirmed_bytes: usize,
    places: Places,
}

impl Intake {
    pub(super) fn new(
        peers: Arc<Peers>,
        hub: HubDoor,
        listener: Listener,
        queue: Arc<Queue>,
        calls: Arc<Calls>,
        stats: Arc<BridgeStats>,
        places: Places,
    ) -> Self {
        Self {
            peers,
            hub,
            listener,
            queue,
            calls,
            stats,
            num_unconfirmed: 0,
            unconfirmed_bytes: 0,
            places,
        }
    }

    /// Takes a message of one namespace. `kind` is what its channel makes of it.
    pub(super) async fn take(
        &mut self,
        inbound: &Inbound,
        channels: &Arc<Channels>,
        kind: &Kind,
    ) -> Result<(), HubGone> {
        // Our own question whether Redis lets us publish.
        if inbound.payload.is_empty() && kind.is_of_responses() {
            return Ok(());
        }
        let payload = &inbound.payload;
        let taken = match channels.read(kind, payload, &self.hub.interest, &self.calls) {
            Err(unfit) => Err(unfit),
            Ok(Incoming { uid, body }) => match body {
                Body::Broadcast(broadcast) => {
                    let command = Command::Broadcast(broadcast);
                    Ok(self.reinject(command, uid, payload.len()).await?)
                }
                Body::Request(request) => {
                    self.take_request(channels, uid, request, payload.len())
                        .await?
                }
                Body::Response(response) => {
                    let by = uid.as_deref().and_then(|uid| self.peers.named(uid));
                    self.take_response(channels.namespace(), by, response, payload.len())
                }
            },
        };
        if let Err(unfit) = taken {
            self.skip(inbound, unfit);
        }
        Ok(())
    }

    /// Takes what an instance of Sockhop says. At once, so that it keeps its place among what is handed to the hub; and no faster than
    /// the hub takes what comes of it.
    pub(super) async fn take_said(
        &mut self,
        audience: Audience,
        inbound: &Inbound,
    ) -> Result<(), HubGone> {
        let payload = &inbound.payload;
        if audience == Audience::All && peers::wire::is_said(payload) {
            self.peers.take(payload);
            return Ok(());
        }
        self.listener.take(audience, payload);
        if self.is_enough(payload.len()) {
            self.hub.settle.send(Settle).await.or(Err(HubGone))?;
        }
        Ok(())
    }

    /// Skips a message whose channel is none that is listened to.
    pub(super) fn skip_misplaced(&self, inbound: &Inbound) {
        self.skip_strange(inbound, "channel is none of ours");
    }

    /// Hands a command to the hub, no faster than the hub takes it.
    async fn reinject(
        &mut self,
        command: Command,
        from: Option<String>,
        len_bytes: usize,
    ) -> Result<(), HubGone> {
        self.stats.num_reinjected.fetch_add(1, Relaxed);
        let reinject = Reinject { command, from };
        let is_enough = self.is_enough(len_bytes);
        // Who joins a room is in it before the next message is judged by who is there.
        let must_be_done = matches!(reinject.command, Command::Join { .. });
        if must_be_done || is_enough {
            self.hub.reinject.send(reinject).await.or(Err(HubGone))
        } else if self.hub.reinject.connected() {
            self.hub.reinject.do_send(reinject);
            Ok(())
        } else {
            Err(HubGone)
        }
    }

    /// Counts a message on its way to the hub; returns whether the hub is to be waited for now.
    ///
    /// Waiting for every message would cost a turn of both threads each. The mailbox keeps the order, so an answer says that the hub
    /// has taken all that was sent before; until then nothing more is read.
    fn is_enough(&mut self, len_bytes: usize) -> bool {
        self.num_unconfirmed += 1;
        self.unconfirmed_bytes += len_bytes;
        let is_enough = self.num_unconfirmed >= MAX_UNCONFIRMED
            || self.unconfirmed_bytes >= MAX_UNCONFIRMED_BYTES;
        if is_enough {
            (self.num_unconfirmed, self.unconfirmed_bytes) = (0, 0);
        }
        is_enough
    }

    // ---- requests ----

    async fn take_request(
        &mut self,
        channels: &Arc<Channels>,
        uid: Option<String>,
        request: Request,
        len_bytes: usize,
    ) -> Result<Result<(), Unfit>, HubGone> {
        // What is ours was done, and asked of ourselves, before it was published.
        if uid.as_deref() == Some(self.peers.uid().as_str()) {
            return Ok(Err(Unfit::OwnEcho));
        }
        match Wanted::of(channels.namespace(), request) {
            Ok(Wanted::Command(command)) => self.reinject(command, uid, len_bytes).await.map(Ok),
            Ok(Wanted::CommandForOne {
                id,
                socket_id,
                command,
            }) => {
                self.obey_for_one(channels, uid, id, &socket_id, command)
                    .await
            }
            Ok(Wanted::Answer { id, question }) => self.answer(channels, uid, id, question).await,
            Err(unfit) => Ok(Err(unfit)),
        }
    }

    /// The old form of a request, about one socket: only the instance that has it acts and answers.
    async fn obey_for_one(
        &mut self,
        channels: &Channels,
        uid: Option<String>,
        id: Option<RequestId>,
        socket_id: &SocketId,
        command: Command,
    ) -> Result<Result<(), Unfit>, HubGone> {
        let (answers, mut received) = mpsc::unbounded_channel();
        let is_here = Answering {
            namespace: channels.namespace().clone(),
            question: Question::SocketIds {
                target: Target::one(socket_id),
            },
            answers,
            from: uid.clone(),
        };
        self.hub.answering.send(is_here).await.or(Err(HubGone))?;
        match received.try_recv() {
            // The room that an id names may have other members, too.
            Ok(Answer::SocketIds(ids)) if ids.contains(socket_id) => {}
            _ => return Ok(Ok(())),
        }
        self.reinject(command, uid.clone(), 0).await?;
        if let Some(id) = id {
            self.respond(channels, uid.as_deref(), &Response::Done { id });
        }
        Ok(Ok(()))
    }

    /// Asks the hub for another instance, and passes on what it says.
    async fn answer(
        &mut self,
        channels: &Arc<Channels>,
        uid: Option<String>,
        id: RequestId,
        question: Question,
    ) -> Result<Result<(), Unfit>, HubGone> {
        let place = self.places.take(&question);
        let is_event = matches!(question, Question::Broadcast { .. });
        if place.is_none() && !is_event {
            return Ok(Err(Unfit::Overload));
        }
        let time = match &question {
            Question::Broadcast { timeout, .. } => (*timeout).min(MAX_ANSWER_TIME),
            Question::ServerEvent { .. } => SERVER_EVENT_TIME,
            Question::SocketIds { .. } | Question::Rooms | Question::Sockets { .. } => {
                HUB_ANSWER_TIME
            }
        };
        let (answers, received) = mpsc::unbounded_channel();
        // An event without a place is for its clients all the same. Nobody waits for their acks from the beginning.
        let answered = place.map(|place| (place, received));
        let answering = Answering {
            namespace: channels.namespace().clone(),
            question,
            answers,
            from: uid.clone(),
        };
        self.hub.answering.send(answering).await.or(Err(HubGone))?;
        let Some((place, received)) = answered else {
            return Ok(Err(Unfit::Overload));
        };
        let answers_out = AnswersOut {
            queue: Arc::clone(&self.queue),
            channels: Arc::clone(channels),
            uid,
            id,
            _place: place,
        };
        actix_rt::spawn(answers_out.run(received, Instant::now() + time));
        Ok(Ok(()))
    }

    fn respond(&self, channels: &Channels, uid: Option<&str>, response: &Response) {
        respond(&self.queue, channels, uid, response);
    }

    // ---- responses ----

    fn take_response(
        &self,
        namespace: &Namespace,
        by: Option<InstanceId>,
        response: Response,
        len_bytes: usize,
    ) -> Result<(), Unfit> {
        let id = response.id().clone();
        let mut len_bytes = len_bytes;
        let answer = match response {
            Response::SocketIds { sockets, .. } => Answer::SocketIds(sockets),
            Response::AllRooms { rooms, .. } => Answer::Rooms(rooms),
            Response::Fetched { sockets, .. } => Answer::Sockets(sockets),
            Response::ServerSideReply { value, .. } => Answer::ServerReply(value),
            Response::ClientCount { num_clients, .. } => Answer::NumClients(num_clients),
            Response::Ack { args, .. } => {
                let HubDoor {
                    backlogs, counters, ..
                } = &self.hub;
                match Acked::new(backlogs, counters, args) {
                    Some(acked) => Answer::Ack(acked),
                    None => {
                        len_bytes = 0;
                        Answer::Unkept
                    }
                }
            }
            // We never ask in the old form.
            Response::Done { .. } => return Err(Unfit::Unasked),
        };
        if self.calls.answer(namespace, &id, by, answer, len_bytes) {
            Ok(())
        } else {
            Err(Unfit::Unasked)
        }
    }

    // ---- what is skipped ----

    fn skip(&self, inbound: &Inbound, unfit: Unfit) {
        let count = match unfit {
            Unfit::OwnEcho => &self.stats.num_own_echoes,
            Unfit::Foreign => &self.stats.num_foreign,
            Unfit::NobodyHere => &self.stats.num_for_nobody,
            Unfit::Unasked => &self.stats.num_unasked,
            Unfit::Overload => {
                if self.stats.num_unanswered.load(Relaxed) == 0 {
                    // Once: whoever floods us must not flood the log.
                    log::warn!(
                        "{MAX_ANSWERING} questions of others are being answered, or {MAX_AWAITING_ACKS} of their events \
                         acknowledged: one is not"
                    );
                }
                &self.stats.num_unanswered
            }
            Unfit::Malformed(err) => return self.skip_strange(inbound, &err.to_string()),
        };
        count.fetch_add(1, Relaxed);
    }

    fn skip_strange(&self, inbound: &Inbound, why: &str) {
        // The first one tells that somebody speaks another language here; more of them would drown the log.
        let is_first = self.stats.num_malformed.fetch_add(1, Relaxed) == 0;
        let level = if is_first {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        log::log!(
            level,
            "Skipped a message of {} bytes on {:?}: {why}",
            inbound.payload.len(),
            origin(inbound),
        );
    }
}

/// Returns what the log may say of a message's origin. Not the whole channel of a room: the room may be one that an id names, and
/// a client of revision 3 proves with its id whose session it is.
fn origin(inbound: &Inbound) -> Cow<'_, str> {
    match &inbound.pattern {
        Some(pattern) => Cow::Borrowed(pattern),
        None => {
            // Prefix and namespace; what comes behind may be a room of its own, too.
            let mut parts = inbound.channel.splitn(3, |byte| *byte == b'#');
            let (prefix, namespace) = (parts.next(), parts.next());
            let of = |part: Option<&[u8]>| {
                String::from_utf8_lossy(part.unwrap_or_default()).into_owned()
            };
            Cow::Owned(format!("{}#{}#", of(prefix), of(namespace)))
        }
    }
}

/// What another server wants of this one.
enum Wanted {
    /// That it is done.
    Command(Command),
    /// That it is done and answered, if the socket is here.
    CommandForOne {
        id: Option<RequestId>,
        socket_id: SocketId,
        command: Command,
    },
    /// To know something.
    Answer { id: RequestId, question: Question },
}

impl Wanted {
    /// Reads a request that came for a namespace.
    fn of(namespace: &Namespace, request: Request) -> Result<Self, Unfit> {
        let namespace = namespace.clone();
        let for_one = |id, socket_id, command| Self::CommandForOne {
            id,
            socket_id,
            command,
        };
        let answer = |id, question| Self::Answer { id, question };
        Ok(match request {
            Request::Join { target, rooms } => Self::Command(Command::Join {
                namespace,
                target,
                rooms,
            }),
            Request::Leave { target, rooms } => Self::Command(Command::Leave {
                namespace,
                target,
                rooms,
            }),
            Request::Disconnect { target, close } => Self::Command(Command::Disconnect {
                namespace,
                target,
                whole_connection: close,
            }),
            Request::ServerSideEmit { id: None, args } => {
                Self::Command(Command::ServerEvent { namespace, args })
            }
            Request::JoinOne {
                id,
                socket_id,
                room,
            } => {
                let (target, rooms) = (Target::one(&socket_id), vec![room]);
                let command = Command::Join {
                    namespace,
                    target,
                    rooms,
                };
                for_one(id, socket_id, command)
            }
            Request::LeaveOne {
                id,
                socket_id,
                room,
            } => {
                let (target, rooms) = (Target::one(&socket_id), vec![room]);
                let command = Command::Leave {
                    namespace,
                    target,
                    rooms,
                };
                for_one(id, socket_id, command)
            }
            Request::DisconnectOne {
                id,
                socket_id,
                close,
            } => {
                let command = Command::Disconnect {
                    namespace,
                    target: Target::one(&socket_id),
                    whole_connection: close,
                };
                for_one(id, socket_id, command)
            }
            Request::SocketIds { id, rooms } => {
                let target = Target {
                    rooms,
                    except: Vec::new(),
                };
                answer(id, Question::SocketIds { target })
            }
            Request::AllRooms { id } => answer(id, Question::Rooms),
            Request::Fetch { id, target } => answer(id, Question::Sockets { target }),
            Request::ServerSideEmit { id: Some(id), args } => {
                answer(id, Question::ServerEvent { args })
            }
            Request::Broadcast { broadcast, .. } if broadcast.namespace != namespace => {
                return Err(Unfit::Foreign);
            }
            Request::Broadcast {
                id,
                broadcast,
                timeout,
                expect_single_response,
            } => {
                let question = Question::Broadcast {
                    broadcast,
                    timeout: timeout.unwrap_or(MAX_ANSWER_TIME),
                    expects_one: expect_single_response,
                };
                answer(id, question)
            }
        })
    }
}

/// The questions of others that are being answered, whichever connection they came over.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    num_answering: Arc<AtomicUsize>,
    num_awaiting_acks: Arc<AtomicUsize>,
}

impl Places {
    /// Takes a place for a question, if there is one left for its kind.
    fn take(&self, question: &Question) -> Option<Place> {
        let (count, max) = match question {
            Question::Broadcast { .. } => (&self.num_awaiting_acks, MAX_AWAITING_ACKS),
            Question::SocketIds { .. }
            | Question::Rooms
            | Question::Sockets { .. }
            | Question::ServerEvent { .. } => (&self.num_answering, MAX_ANSWERING),
        };
        // Taken on one arbiter alone.
        if count.load(Relaxed) >= max {
            return None;
        }
        count.fetch_add(1, Relaxed);
        Some(Place(Arc::clone(count)))
    }
}

/// The place of one of them, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Passes the answers to one question on to the instance that asked it.
struct AnswersOut {
    queue: Arc<Queue>,
    channels: Arc<Channels>,
    /// Who asked.
    uid: Option<String>,
    id: RequestId,
    _place: Place,
}

impl AnswersOut {
    /// Runs until no more can come, or until the time is over.
    async fn run(self, mut answers: mpsc::UnboundedReceiver<Answer>, deadline: Instant) {
        while let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await {
            if let Some(response) = self.response(answer) {
                let uid = self.uid.as_deref();
                respond(&self.queue, &self.channels, uid, &response);
            }
        }
    }

    fn response(&self, answer: Answer) -> Option<Response> {
        let id = self.id.clone();
        Some(match answer {
            Answer::SocketIds(sockets) => Response::SocketIds { id, sockets },
            Answer::Rooms(rooms) => Response::AllRooms { id, rooms },
            Answer::Found(found) => Response::Fetched {
                id,
                sockets: found.iter().map(Found::snapshot).collect(),
            },
            Answer::NumClients(num_clients) => Response::ClientCount { id, num_clients },
            Answer::Ack(Acked { args, .. }) => Response::Ack { id, args },
            Answer::ServerReply(value) => Response::ServerSideReply { id, value },
            // There is no such response: who asked hears by its time-out that one is missing.
            Answer::Unkept => return None,
            // The hub says none of these about itself.
            Answer::Sockets(_)
            | Answer::OfOther { .. }
            | Answer::OneMore
            | Answer::Asked { .. }
            | Answer::Unreachable { .. } => return None,
        })
    }
}

fn respond(queue: &Queue, channels: &Channels, uid: Option<&str>, response: &Response) {
    match channels.response(uid, response) {
        Ok(Some(outbound)) => queue.push(outbound),
        // Nobody who could be answered has asked.
        Ok(None) => {}
        Err(err) => {
            queue.count_dropped();
            log::warn!(
                "An answer of {} cannot be published: {err}",
                channels.namespace()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_log_does_not_learn_for_which_room_a_message_was() {
        let inbound = |pattern: Option<&str>, channel: &'static str| Inbound {
            pattern: pattern.map(str::to_owned),
            channel: channel.into(),
            payload: Bytes::new(),
        };
        let to_a_room = inbound(Some("p#/a#*"), "p#/a#/a#secret-of-a-session#");
        assert_eq!(origin(&to_a_room), "p#/a#*");
        assert_eq!(origin(&inbound(None, "p-request#/a#")), "p-request#/a#");
        assert_eq!(origin(&inbound(None, "p#/a#secret-of-a-session#")), "p#/a#");
    }
}
