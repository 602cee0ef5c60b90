//! Tests of the bridge: the real actor over a bus in memory, then over a real `redis-server`.
//!
//! A probe stands in the hub's place. Nothing sleeps for an event: each is awaited, with a limit that only a failure
//! reaches.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AnyBus, Audience, BridgeStats, BusStatus, Capacity, FLUSH_TIMEOUT, Listener, Loss, RedisBridge,
    ShardedBus, StatsSnapshot,
    actor::MIN_MAX_IDLE,
    bus::Bus,
    incoming::{HubDoor, MAX_ANSWERING, MAX_AWAITING_ACKS},
    link::Patience,
    listening::Listening,
    memory_bus::{Deed, MemoryBus},
    messages::{AskOthers, ForBridge, Stop},
    namespaces::Namespaces,
    redis_bus::{MAX_MESSAGE_BYTES, RedisBus},
};
use crate::{
    adapter::{
        kind::AdapterKind,
        message,
        request::{self, Request, RequestId},
        response::{self, Response},
        sharded_channel::SubscriptionMode,
        uid::Uid,
    },
    config::{DEFAULT_REDIS_PREFIX, RedisConfig, RedisTls, Secret},
    engine_io::sid::InstanceId,
    gateways::Gateway,
    hub::{
        broadcast::{Broadcast, Flags, Target},
        command::Command,
        counted::{Counted, HubRecipient},
        freight::Load,
        interest::Interest,
        messages::{Answering, Reinject, Settle},
        question::{Answer, Answers, Question},
    },
    peers::Peers,
    redis_endpoint::fault::{ACL_RULE, Fault, SHARDED_ACL_RULE},
    redis_server::RedisServer,
    socket::{
        backlogs::Backlogs,
        dynamic::{DynamicNamespaces, Entered},
    },
    socket_io::{
        args::Args,
        ids::{Namespace, Room, SocketId},
    },
};

/// What no event takes, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Dynamic namespaces that may be in use.
const MAX_DYNAMIC: usize = 100;

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    let event = tokio::time::timeout(PATIENCE, event);
    event
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Stands in the hub's place.
struct Probe {
    heard: mpsc::UnboundedSender<Broadcast>,
    said: mpsc::UnboundedSender<Said>,
    num_heard: usize,
    /// Takes no message while this is false.
    is_open: watch::Receiver<bool>,
    num_waiting: Arc<AtomicUsize>,
    /// Where more answers could come from.
    silent: Vec<Answers>,
}

impl Actor for Probe {
    type Context = Context<Self>;
}

impl Handler<Counted<Reinject>> for Probe {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, reinject: Counted<Reinject>, _ctx: &mut Self::Context) -> Self::Result {
        let Reinject { command, .. } = reinject.into_message();
        let Command::Broadcast(broadcast) = command else {
            panic!("no broadcast: {command:?}");
        };
        let _ = self.heard.send(broadcast);
        self.num_heard += 1;
        self.opened()
    }
}

impl Handler<Counted<Settle>> for Probe {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Counted<Settle>, _ctx: &mut Self::Context) -> Self::Result {
        self.opened()
    }
}

impl Probe {
    /// Waits until messages are taken.
    fn opened(&self) -> ResponseFuture<()> {
        self.num_waiting.fetch_add(1, SeqCst);
        let mut is_open = self.is_open.clone();
        Box::pin(async move {
            let _ = is_open.wait_for(|is_open| *is_open).await;
        })
    }
}

/// What an instance of Sockhop said.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    audience: Audience,
    payload: Bytes,
    /// Broadcasts that the hub was given before it.
    num_before: usize,
}

/// What the bridge's listener passes on to the probe.
#[derive(Message)]
#[rtype(result = "()")]
struct Say(Audience, Bytes);

impl Handler<Say> for Probe {
    type Result = ();

    fn handle(&mut self, Say(audience, payload): Say, _ctx: &mut Self::Context) {
        let num_before = self.num_heard;
        let _ = self.said.send(Said {
            audience,
            payload,
            num_before,
        });
    }
}

impl Handler<Counted<Answering>> for Probe {
    type Result = ();

    /// Has one client, which never acknowledges anything.
    fn handle(&mut self, message: Counted<Answering>, _ctx: &mut Self::Context) {
        let Answering {
            question, answers, ..
        } = message.into_message();
        let answer = match question {
            Question::SocketIds { .. } => Answer::SocketIds(vec![SocketId::from("client")]),
            Question::Rooms => Answer::Rooms(vec![Room::from("client")]),
            Question::Sockets { .. } => Answer::Found(Vec::new()),
            Question::Broadcast { broadcast, .. } => {
                let _ = self.heard.send(broadcast);
                self.num_heard += 1;
                Answer::NumClients(1)
            }
            Question::ServerEvent { args } => Answer::ServerReply(args),
        };
        // Nobody hears it of an event that is too much.
        _ = answers.send(answer);
        self.silent.push(answers);
    }
}

fn door(probe: Addr<Probe>) -> HubDoor {
    door_with(probe, Interest::in_everything())
}

fn door_with(probe: Addr<Probe>, interest: Interest) -> HubDoor {
    let ahead = || Arc::default();
    HubDoor {
        interest,
        rooms: None,
        backlogs: Arc::new(Backlogs::new(1 << 20)),
        counters: Arc::default(),
        reinject: HubRecipient::new(probe.clone().recipient(), ahead()),
        answering: HubRecipient::new(probe.clone().recipient(), ahead()),
        settle: HubRecipient::new(probe.recipient(), ahead()),
    }
}

fn peers(adapter: AdapterKind) -> Arc<Peers> {
    let uid = adapter.random_uid().unwrap();
    Arc::new(Peers::new(InstanceId::random().unwrap(), uid))
}

/// Nobody speaks to these instances alone.
fn deaf() -> Listener {
    Listener::new(
        |audience, payload| panic!("{audience:?} {payload:?}"),
        || {},
    )
}

fn passing_on(probe: Addr<Probe>) -> Listener {
    let take = move |audience, payload: &Bytes| probe.do_send(Say(audience, payload.clone()));
    Listener::new(take, || {})
}

fn publish(broadcast: Broadcast) -> ForBridge {
    ForBridge::Publish(Arc::new(Command::Broadcast(broadcast)), Load::default())
}

/// An instance without a hub: a bridge and its probe.
struct Instance<B: Bus> {
    peers: Arc<Peers>,
    bridge: Addr<RedisBridge<B>>,
    dynamic: Arc<DynamicNamespaces>,
    heard: mpsc::UnboundedReceiver<Broadcast>,
    said: mpsc::UnboundedReceiver<Said>,
    hub: watch::Sender<bool>,
    num_waiting: Arc<AtomicUsize>,
    status: watch::Receiver<BusStatus>,
    stats: Arc<BridgeStats>,
    num_connected: Arc<AtomicUsize>,
}

const NAMESPACES: [&str; 2] = ["/", "/events"];

impl<B: Bus> Instance<B> {
    fn over(bus: B) -> Self {
        Self::interested(bus, Interest::in_everything())
    }

    fn interested(bus: B, interest: Interest) -> Self {
        Self::speaking(AdapterKind::Classic, bus, interest)
    }

    /// One that says nothing of itself, so that what it does is done when it is told.
    fn speaking(adapter: AdapterKind, bus: B, interest: Interest) -> Self {
        let peers = peers(adapter);
        peers.bye();
        Self::with(adapter, bus, interest, peers)
    }

    /// One that tells the others of itself.
    fn beating(adapter: AdapterKind, bus: B) -> Self {
        let interest = Interest::in_everything();
        Self::with(adapter, bus, interest, peers(adapter))
    }

    /// One that says nothing of itself, and waits for less than it does where it is in use.
    fn patient(bus: B, patience: Patience) -> Self {
        let adapter = AdapterKind::Classic;
        let peers = peers(adapter);
        peers.bye();
        let interest = Interest::in_everything();
        Self::with_patience(adapter, bus, interest, peers, patience)
    }

    fn with(adapter: AdapterKind, bus: B, interest: Interest, peers: Arc<Peers>) -> Self {
        Self::with_patience(adapter, bus, interest, peers, Patience::default())
    }

    fn with_patience(
        adapter: AdapterKind,
        bus: B,
        interest: Interest,
        peers: Arc<Peers>,
        patience: Patience,
    ) -> Self {
        let (saying, said) = mpsc::unbounded_channel();
        let (sender, heard) = mpsc::unbounded_channel();
        let (hub, is_open) = watch::channel(true);
        let num_waiting = Arc::new(AtomicUsize::new(0));
        let probe = Probe {
            heard: sender,
            said: saying,
            num_heard: 0,
            is_open,
            num_waiting: num_waiting.clone(),
            silent: Vec::new(),
        }
        .start();
        let num_connected = Arc::new(AtomicUsize::new(0));
        let count = num_connected.clone();
        let fixed = NAMESPACES.map(Namespace::from).to_vec();
        let namespaces = Namespaces::new(adapter, "socket.io", &peers, fixed);
        let dynamic = DynamicNamespaces::new(MAX_DYNAMIC);
        let bridge = RedisBridge::over(
            bus,
            Arc::clone(&peers),
            namespaces,
            Arc::clone(&dynamic),
            door_with(probe.clone(), interest),
            passing_on(probe),
            Arc::new(move || {
                count.fetch_add(1, SeqCst);
            }),
        )
        .with_patience(patience);
        let (status, stats) = (bridge.status(), bridge.stats());
        let bridge = bridge.start();
        Self {
            peers,
            bridge,
            dynamic,
            heard,
            said,
            hub,
            num_waiting,
            status,
            stats,
            num_connected,
        }
    }

    async fn up(mut self) -> Self {
        self.until(|status| *status == BusStatus::Up).await;
        self
    }

    async fn until(&mut self, is: impl Fn(&BusStatus) -> bool) {
        soon("the status", self.status.wait_for(is)).await.unwrap();
    }

    async fn until_down(&mut self) {
        self.until(|status| matches!(status, BusStatus::Down { .. }))
            .await;
    }

    /// Counts make no sound, so this looks at every turn of the arbiter.
    async fn until_stats(&self, are: impl Fn(&StatsSnapshot) -> bool) {
        let counted = async {
            while !are(&self.stats.snapshot()) {
                tokio::task::yield_now().await;
            }
        };
        soon("the count", counted).await;
    }

    fn publish(&self, broadcast: &Broadcast) {
        self.bridge.do_send(publish(broadcast.clone()));
    }

    fn tell(&self, payload: impl Into<Bytes>) {
        let payload = payload.into();
        self.bridge.do_send(ForBridge::Tell { payload });
    }

    async fn is_told(&mut self) -> Said {
        soon("a word", self.said.recv()).await.unwrap()
    }

    async fn hears(&mut self) -> Broadcast {
        soon("an event", self.heard.recv()).await.unwrap()
    }

    /// Makes sure that nothing is on its way to the probe: what others publish now comes next.
    async fn hears_next(&mut self, from: &Self, broadcast: &Broadcast) {
        from.publish(broadcast);
        assert_eq!(self.hears().await, *broadcast);
    }
}

/// Returns what another instance answers.
fn of_other(answer: &Answer) -> Option<&Answer> {
    match answer {
        Answer::OfOther { answer, .. } => Some(answer),
        _ => None,
    }
}

fn event(name: &str) -> Broadcast {
    let args = Args::from_parts(format!("[\"{name}\"]").into(), vec![]);
    Broadcast::to_all(Namespace::from("/events"), args)
}

fn full_of_everything() -> Broadcast {
    let json =
        r#"["b",{"_placeholder":true,"num":0},5,"é",{"k":[null,{"_placeholder":true,"num":1}]}]"#;
    let attachments = vec![Bytes::from_static(&[0, 255, 1]), Bytes::new()];
    Broadcast {
        namespace: Namespace::main(),
        target: Target {
            rooms: vec![Room::from("a#*b")],
            except: vec![Room::from("x")],
        },
        flags: Flags {
            volatile: true,
            compress: Some(false),
        },
        args: Args::from_parts(json.into(), attachments),
    }
}

fn config(server: &RedisServer) -> RedisBus {
    redis_at(&server.url())
}

fn redis_at(url: &str) -> RedisBus {
    RedisBus::new(&redis_config(url, AdapterKind::Classic)).unwrap()
}

fn redis_config(url: &str, adapter: AdapterKind) -> RedisConfig {
    RedisConfig {
        url: Secret::new(url),
        prefix: DEFAULT_REDIS_PREFIX.to_owned(),
        adapter,
        tls: RedisTls::default(),
    }
}

#[actix::test]
async fn broadcasts_cross_and_own_echoes_do_not() {
    let bus = MemoryBus::new();
    let a = Instance::over(bus.clone()).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    let nowhere = Broadcast {
        namespace: Namespace::from("/other"),
        ..event("nowhere")
    };
    for broadcast in [&nowhere, &event("one"), &full_of_everything()] {
        a.publish(broadcast);
    }
    assert_eq!(b.hears().await, event("one"));
    assert_eq!(b.hears().await, full_of_everything());
    let mut a = a;
    a.hears_next(&b, &event("two")).await;
    assert_eq!(a.stats.snapshot().num_own_echoes, 2);
    assert_eq!(a.num_connected.load(SeqCst), 1);
}

#[actix::test]
async fn what_gathers_while_redis_answers_goes_out_as_one_batch_in_order() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let mut listener = Instance::over(bus.clone()).up().await;
    bus.set_answering(false);
    instance.publish(&event("0"));
    assert_eq!(listener.hears().await, event("0"));
    for number in 1..=200 {
        instance.publish(&event(&number.to_string()));
    }
    // Its turn in the mailbox comes after theirs.
    let late = instance.bridge.send(publish(event("201")));
    soon("the mailbox", late).await.unwrap();
    bus.set_answering(true);
    for number in 1..=201 {
        assert_eq!(listener.hears().await, event(&number.to_string()));
    }
    let batches: Vec<usize> = bus
        .journal()
        .into_iter()
        .filter_map(|deed| match deed {
            Deed::Published(batch) => Some(batch.len()),
            Deed::Subscribed(_) | Deed::Unsubscribed(_) | Deed::Counted(_) => None,
        })
        .collect();
    assert_eq!(batches, [1, 201]);
    instance.until(|status| *status == BusStatus::Up).await;
}

#[actix::test]
async fn after_an_outage_it_subscribes_before_it_publishes_what_waited() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    bus.set_up(false);
    instance.until_down().await;
    instance.publish(&event("waits"));
    soon("the mailbox", instance.bridge.send(publish(event("too"))))
        .await
        .unwrap();
    let num_deeds = bus.journal().len();
    bus.set_up(true);
    instance.until(|status| *status == BusStatus::Up).await;
    soon("the end", instance.bridge.send(Stop)).await.unwrap();
    let mut since = bus.journal().split_off(num_deeds);
    let Deed::Subscribed(names) = &mut since[0] else {
        panic!("{since:?}")
    };
    names.patterns.sort_unstable();
    assert_eq!(names.patterns, ["socket.io#/#*", "socket.io#/events#*"]);
    assert_eq!(
        names.channels.len(),
        8,
        "three for each namespace, its own, and that of all"
    );
    let published = since[1..].iter().flat_map(|deed| match deed {
        Deed::Published(batch) => batch.clone(),
        other => panic!("{other:?}"),
    });
    let published: Vec<_> = published.collect();
    assert_eq!(published.len(), 3);
    assert_eq!(published[2].payload, instance.peers.bye(), "the last word");
    assert_eq!(instance.num_connected.load(SeqCst), 2);
}

fn said(audience: Audience, payload: &'static str, num_before: usize) -> Said {
    Said {
        audience,
        payload: Bytes::from(payload),
        num_before,
    }
}

#[actix::test]
async fn what_is_told_to_all_keeps_its_place_among_what_is_published_and_comes_back() {
    let bus = MemoryBus::new();
    let mut a = Instance::over(bus.clone()).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    // So that all of it waits in the queue first.
    bus.set_answering(false);
    a.publish(&event("0"));
    assert_eq!(b.hears().await, event("0"));
    a.publish(&event("1"));
    a.tell("marker");
    a.publish(&event("2"));
    let behind = ForBridge::Behind {
        to: b.peers.instance(),
        payload: "for b".into(),
        loss: None,
    };
    a.bridge.do_send(behind);
    a.publish(&event("3"));
    bus.set_answering(true);
    for name in ["1", "2", "3"] {
        assert_eq!(b.hears().await, event(name));
    }
    assert_eq!(b.is_told().await, said(Audience::All, "marker", 2));
    assert_eq!(b.is_told().await, said(Audience::One, "for b", 3));
    assert_eq!(a.is_told().await, said(Audience::All, "marker", 0));
    a.until_stats(|stats| stats.num_own_echoes == 4).await;
    // Nothing else has come to either.
    a.tell("end");
    assert_eq!(a.is_told().await, said(Audience::All, "end", 0));
    assert_eq!(b.is_told().await, said(Audience::All, "end", 4));
}

#[actix::test]
async fn what_is_no_broadcast_for_us_is_skipped_and_counted() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let uid = Uid::random().unwrap();
    let good = message::encode(&uid, &event("good")).unwrap();
    let foreign = Broadcast {
        namespace: Namespace::from("/other"),
        ..event("foreign")
    };
    bus.publish("socket.io#/events#", "");
    bus.publish("socket.io#/events#", "garbage");
    bus.publish("socket.io#/events#", &b"\x93\xa1a\xdf\xff\xff\xff\xff"[..]);
    bus.publish("socket.io#/events#", [&good[..], b"\xc0"].concat());
    bus.publish("socket.io#/events#room-without-end", good.clone());
    bus.publish(
        "socket.io#/events#",
        message::encode(&uid, &foreign).unwrap(),
    );
    bus.publish("socket.io#/events#", good);
    assert_eq!(instance.hears().await, event("good"));
    let stats = instance.stats.snapshot();
    assert_eq!(
        (stats.num_malformed, stats.num_foreign, stats.num_reinjected),
        (5, 1, 1)
    );
}

#[actix::test]
async fn what_can_reach_nobody_here_is_not_read() {
    let bus = MemoryBus::new();
    let mut instance = Instance::interested(bus.clone(), Interest::in_room("red"))
        .up()
        .await;
    let uid = Uid::random().unwrap();
    let to = |room: &str| Broadcast {
        target: Target {
            rooms: vec![room.into()],
            except: vec![],
        },
        ..event(room)
    };
    let [red, blue] = ["red", "blue"].map(|room| message::encode(&uid, &to(room)).unwrap());
    bus.publish("socket.io#/events#blue#", blue.clone());
    // Reading it would show that it is none.
    bus.publish("socket.io#/events#blue#", blue.slice(..blue.len() - 1));
    bus.publish("socket.io#/events#", blue);
    bus.publish("socket.io#/events#red#", red);
    assert_eq!(instance.hears().await, to("red"));
    let stats = instance.stats.snapshot();
    assert_eq!((stats.num_for_nobody, stats.num_malformed), (3, 0));
}

const REQUESTS: &str = "socket.io-request#/events#";
const RESPONSES: &str = "socket.io-response#/events#";

/// A stranger's request, as it is published.
fn asked(uid: &Uid, request: &Request) -> Bytes {
    request::encode(uid, &"/events".into(), request).unwrap()
}

/// Reads a response that does not say who it is from: only one to another instance of Sockhop does.
fn from_a_stranger(response: &Bytes) -> Response {
    let response::Received { uid, response } = response::decode(response).unwrap();
    assert_eq!(uid, None);
    response
}

#[actix::test]
async fn questions_of_others_are_answered_on_their_own_channel() {
    let bus = MemoryBus::new();
    let _instance = Instance::over(bus.clone()).up().await;
    let uid = Uid::parse("friend").unwrap();
    let id = |text: &str| RequestId::from(text);
    let mut got = bus.listen("socket.io-response#/events#friend#");
    let mut shared = bus.listen(RESPONSES);
    bus.publish(REQUESTS, asked(&uid, &Request::AllRooms { id: id("1") }));
    let rooms = vec![Room::from("client")];
    let answer = soon("the answer", got.recv()).await.unwrap();
    assert_eq!(
        from_a_stranger(&answer),
        Response::AllRooms { id: id("1"), rooms }
    );
    let question = Request::Broadcast {
        id: id("2"),
        broadcast: event("q"),
        timeout: Some(Duration::from_secs(5)),
        expect_single_response: false,
    };
    bus.publish(REQUESTS, asked(&uid, &question));
    let answer = soon("the count", got.recv()).await.unwrap();
    let count = Response::ClientCount {
        id: id("2"),
        num_clients: 1,
    };
    assert_eq!(from_a_stranger(&answer), count);
    // The old form, for one socket: whoever has it does as told, and says so.
    bus.publish(
        REQUESTS,
        &br#"{"requestId":"3","type":2,"sid":"stranger","room":"r"}"#[..],
    );
    bus.publish(REQUESTS, &br#"{"requestId":"4","type":0,"rooms":[]}"#[..]);
    let answer = soon("the answer", shared.recv()).await.unwrap();
    let sockets = vec![SocketId::from("client")];
    assert_eq!(
        from_a_stranger(&answer),
        Response::SocketIds {
            id: id("4"),
            sockets
        }
    );
}

#[actix::test]
async fn what_is_no_question_or_no_answer_for_us_is_skipped_and_counted() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let deep = "[".repeat(1_000_000);
    for channel in [REQUESTS, RESPONSES] {
        for garbage in [
            &b""[..],
            b"{",
            b"{}",
            b"null",
            b"\xc1",
            b"\xdf\xff\xff\xff\xff",
            b"\x93\xa1a\x80\x80",
            br#"{"type":99,"requestId":"x"}"#,
            br#"{"type":5}"#,
            br#"{"requestId":7,"sockets":[{}]}"#,
            &[
                b"{\"requestId\":\"x\",\"type\":6,\"data\":",
                deep.as_bytes(),
            ]
            .concat(),
        ] {
            bus.publish(channel, garbage.to_vec());
        }
    }
    let stranger = Uid::random().unwrap();
    bus.publish(
        "socket.io#/events#",
        message::encode(&stranger, &event("good")).unwrap(),
    );
    assert_eq!(instance.hears().await, event("good"));
    let stats = instance.stats.snapshot();
    // An empty response is what an instance sends itself, to see whether it may publish. Of the one with an unknown type nobody
    // reads more than that nobody waits for it.
    assert_eq!(
        (stats.num_malformed, stats.num_unasked, stats.num_reinjected),
        (20, 1, 1),
        "{stats:?}"
    );

    for answer in [
        &br#"{"requestId":"never asked","sockets":[]}"#[..],
        br#"{"requestId":"never asked","rooms":["a"]}"#,
        br#"{"type":8,"requestId":"never asked","clientCount":99999999999}"#,
        br#"{"type":6,"requestId":"never asked","data":1}"#,
        br#"{"requestId":"never asked"}"#,
    ] {
        bus.publish(RESPONSES, answer.to_vec());
    }
    instance
        .until_stats(|stats| stats.num_unasked == 1 + 5)
        .await;
}

#[actix::test]
async fn an_echo_of_ones_own_request_is_not_obeyed_twice() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let join = Command::Join {
        namespace: "/events".into(),
        target: Target::default(),
        rooms: vec!["r".into()],
    };
    // The probe fails on any command that is no broadcast.
    instance
        .bridge
        .do_send(ForBridge::Publish(Arc::new(join), Load::default()));
    instance
        .until_stats(|stats| stats.num_own_echoes == 1)
        .await;
    assert_eq!(instance.stats.snapshot().num_reinjected, 0);
}

/// A question whose answers are waited for as long as anybody may.
fn long_question(n: usize) -> Request {
    Request::Broadcast {
        id: RequestId::from(n.to_string()),
        broadcast: event("q"),
        timeout: Some(Duration::from_secs(3600)),
        expect_single_response: false,
    }
}

#[actix::test]
async fn a_flood_of_questions_is_answered_up_to_a_limit() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let stranger = Uid::random().unwrap();
    for n in 0..MAX_ANSWERING + 10 {
        // The probe's handler goes on for longer than it takes to ask.
        let question = Request::ServerSideEmit {
            id: Some(RequestId::from(n.to_string())),
            args: event("q").args,
        };
        bus.publish(REQUESTS, asked(&stranger, &question));
    }
    instance
        .until_stats(|stats| stats.num_unanswered == 10)
        .await;
}

/// A bug: events whose acks were being waited for took the places of all other questions, and one silent client all of them.
#[actix::test]
async fn clients_that_acknowledge_nothing_keep_no_question_from_being_answered() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let uid = Uid::parse("friend").unwrap();
    for n in 0..MAX_ANSWERING {
        bus.publish(REQUESTS, asked(&uid, &long_question(n)));
        assert_eq!(instance.hears().await, event("q"));
    }
    let mut got = bus.listen("socket.io-response#/events#friend#");
    let id = RequestId::from("rooms");
    bus.publish(REQUESTS, asked(&uid, &Request::AllRooms { id: id.clone() }));
    let is_answer = |answer: &Bytes| *from_a_stranger(answer).id() == id;
    let answered = async { while !is_answer(&got.recv().await.unwrap()) {} };
    soon("the answer", answered).await;
    assert_eq!(instance.stats.snapshot().num_unanswered, 0);
}

/// Two bugs: an event beyond the bound reached no client here; and each new connection began to count anew, while what had come over
/// the one before was still being answered.
#[actix::test]
async fn an_event_reaches_its_clients_however_many_acks_are_being_waited_for() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let stranger = Uid::random().unwrap();
    for n in 0..MAX_AWAITING_ACKS {
        bus.publish(REQUESTS, asked(&stranger, &long_question(n)));
    }
    for _ in 0..MAX_AWAITING_ACKS {
        assert_eq!(instance.hears().await, event("q"));
    }
    instance
        .until_stats(|stats| stats.num_published >= MAX_AWAITING_ACKS as u64)
        .await;
    assert_eq!(instance.stats.snapshot().num_unanswered, 0);
    bus.set_up(false);
    instance.until_down().await;
    bus.set_up(true);
    instance.until(|status| *status == BusStatus::Up).await;
    let num_published = instance.stats.snapshot().num_published;
    for n in 0..10 {
        bus.publish(
            REQUESTS,
            asked(&stranger, &long_question(MAX_AWAITING_ACKS + n)),
        );
        assert_eq!(instance.hears().await, event("q"));
    }
    instance
        .until_stats(|stats| stats.num_unanswered == 10)
        .await;
    // What is published now comes behind whatever those were answered.
    instance.publish(&event("last"));
    instance
        .until_stats(|stats| stats.num_published > num_published)
        .await;
    assert_eq!(instance.stats.snapshot().num_published, num_published + 1);
}

#[actix::test]
async fn whoever_asks_hears_how_many_were_asked_and_what_they_say() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let ask = |namespace: &str| {
        let (answers, received) = mpsc::unbounded_channel();
        let ask = AskOthers {
            namespace: namespace.into(),
            question: Question::Rooms,
            timeout: Duration::from_secs(5),
            answers,
        };
        instance.bridge.do_send(ForBridge::Ask(Box::new(ask)));
        received
    };
    let mut alone = ask("/events");
    let first = soon("the count", alone.recv()).await;
    assert!(
        matches!(
            first,
            Some(Answer::Asked {
                num_instances: 0,
                ..
            })
        ),
        "{first:?}"
    );
    assert!(
        soon("the end", alone.recv()).await.is_none(),
        "nobody could say more"
    );

    let _other = Instance::over(bus.clone()).up().await;
    // Somebody is counted and never answers.
    let _mute = bus.listen(REQUESTS);
    let mut answered = ask("/events");
    let first = soon("the count", answered.recv()).await;
    assert!(
        matches!(
            first,
            Some(Answer::Asked {
                num_instances: 2,
                ..
            })
        ),
        "{first:?}"
    );
    let second = soon("the answer", answered.recv()).await;
    assert!(
        matches!(second.as_ref().and_then(of_other), Some(Answer::Rooms(rooms)) if rooms.len() == 1),
        "{second:?}"
    );
    // Where we have no sockets, we listen for as long as answers may come, and are not counted ourselves.
    let _elsewhere = bus.listen("socket.io-request#/elsewhere#");
    let mut foreign = ask("/elsewhere");
    let first = soon("the count", foreign.recv()).await;
    assert!(
        matches!(
            first,
            Some(Answer::Asked {
                num_instances: 1,
                ..
            })
        ),
        "{first:?}"
    );

    bus.set_up(false);
    let last = soon("the failure", answered.recv()).await;
    assert!(matches!(last, Some(Answer::Unreachable { .. })), "{last:?}");
}

impl<B: Bus> Instance<B> {
    fn ask(&self, question: Question) -> mpsc::UnboundedReceiver<Answer> {
        let (answers, received) = mpsc::unbounded_channel();
        let ask = AskOthers {
            namespace: "/events".into(),
            question,
            timeout: Duration::from_secs(5),
            answers,
        };
        self.bridge.do_send(ForBridge::Ask(Box::new(ask)));
        received
    }

    /// Waits until exactly these others are known.
    async fn knows(&self, others: &[&Self]) {
        let mut names: Vec<_> = others.iter().map(|other| other.name()).collect();
        names.sort_unstable();
        let known = async {
            // What is known makes no sound.
            while self.known() != names {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the acquaintance", known).await;
    }

    fn known(&self) -> Vec<String> {
        let list = self.peers.list().list;
        list.into_iter().map(|peer| peer.instance).collect()
    }

    fn name(&self) -> String {
        self.peers.instance().as_str().to_owned()
    }
}

/// Instances that know one another.
async fn acquainted<B: Bus>(adapter: AdapterKind, bus: impl Fn() -> B) -> [Instance<B>; 3] {
    let start = || Instance::beating(adapter, bus()).up();
    let [a, b, c] = [start().await, start().await, start().await];
    a.knows(&[&b, &c]).await;
    b.knows(&[&a, &c]).await;
    c.knows(&[&a, &b]).await;
    [a, b, c]
}

#[actix::test]
async fn instances_know_one_another_and_miss_at_once_who_stops() {
    let bus = MemoryBus::new();
    let [a, b, c] = acquainted(AdapterKind::Classic, || bus.clone()).await;
    a.peers.count_sessions(|| 7);
    soon("the end", b.bridge.send(Stop)).await.unwrap();
    a.knows(&[&c]).await;
    assert!(a.peers.is_gone(b.peers.instance()));
    assert!(!a.peers.is_gone(c.peers.instance()));
    // Who cannot be heard is not known, and is again when it can.
    let num_links = a.stats.snapshot().num_links;
    bus.set_up(false);
    a.knows(&[]).await;
    bus.set_up(true);
    a.until_stats(|stats| stats.num_links > num_links).await;
    a.knows(&[&c]).await;
    c.knows(&[&a]).await;
    let load = async {
        while c.peers.list().list[0].sessions != 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the load", load).await;
    // Anything may come there.
    let garbage = [
        &b"{\"peer\":1}"[..],
        b"{\"peer\":2,\"instance\":\"Ab3dE6gH\"}",
        b"{\"peer\":",
    ];
    for bytes in garbage {
        bus.publish("socket.io-sockhop#", bytes);
    }
    a.tell("end");
    let mut c = c;
    assert_eq!(c.is_told().await, said(Audience::All, "end", 0));
    assert_eq!(c.known(), [a.name()]);
}

fn num_counted(bus: &MemoryBus) -> usize {
    let journal = bus.journal();
    let counted = journal
        .iter()
        .filter(|deed| matches!(deed, Deed::Counted(_)));
    counted.count()
}

/// Hears what comes until `num` others have answered; returns how many are to answer, of which names, and who did.
async fn heard_out(
    received: &mut mpsc::UnboundedReceiver<Answer>,
    num: usize,
) -> (usize, Vec<String>, Vec<Option<String>>) {
    let (mut asked, mut answered) = (None, Vec::new());
    while asked.is_none() || answered.len() < num {
        match soon("an answer", received.recv()).await {
            Some(Answer::Asked {
                num_instances,
                peers,
            }) => {
                let mut names: Vec<_> = peers.iter().map(|name| name.as_str().to_owned()).collect();
                names.sort_unstable();
                asked = Some((num_instances, names));
            }
            Some(Answer::OfOther { by, answer }) => {
                assert!(matches!(*answer, Answer::Rooms(_)), "{answer:?}");
                answered.push(by.map(|name| name.as_str().to_owned()));
            }
            other => panic!("{other:?}"),
        }
    }
    let (num_instances, names) = asked.unwrap();
    answered.sort_unstable();
    (num_instances, names, answered)
}

#[actix::test]
async fn where_all_who_hear_are_ours_redis_need_not_count_them() {
    let bus = MemoryBus::new();
    let [a, b, c] = acquainted(AdapterKind::Classic, || bus.clone()).await;
    let mut others = [b.name(), c.name()];
    others.sort_unstable();
    let all_answered: Vec<_> = others.iter().cloned().map(Some).collect();
    let num_counted_before = num_counted(&bus);
    let mut received = a.ask(Question::Rooms);
    let (num, names, answered) = heard_out(&mut received, 2).await;
    assert_eq!(
        (num, &names[..], &answered),
        (2, &others[..], &all_answered)
    );
    assert_eq!(num_counted(&bus), num_counted_before);

    // A server of Node, which has no name, is counted by Redis; and one that listens by a pattern is not.
    let mut node = bus.listen(REQUESTS);
    let _monitor = bus.listen_by("socket.io-*");
    let mut received = a.ask(Question::Rooms);
    let (num, names, answered) = heard_out(&mut received, 2).await;
    assert_eq!(
        (num, &names[..], &answered),
        (3, &others[..], &all_answered)
    );
    assert_eq!(num_counted(&bus), num_counted_before + 1);
    soon("the question", node.recv()).await.unwrap();
}

/// A bug: Redis was asked for each question anew, one after the other, and all that was to be published waited for that.
#[actix::test]
async fn however_many_ask_redis_is_asked_once_and_once_for_each_channel() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let names = ["/", "/events"].map(|name| format!("socket.io-request#{name}#"));
    let _others = names.each_ref().map(|name| bus.listen(name));
    bus.set_answering(false);
    instance.publish(&event("holds up what comes"));
    let mut mine: Vec<_> = (0..5).map(|_| instance.ask(Question::Rooms)).collect();
    let (answers, received) = mpsc::unbounded_channel();
    let ask = AskOthers {
        namespace: "/".into(),
        question: Question::Rooms,
        timeout: Duration::from_secs(5),
        answers,
    };
    mine.push(received);
    let asked = instance.bridge.send(ForBridge::Ask(Box::new(ask)));
    soon("the mailbox", asked).await.unwrap();
    bus.set_answering(true);
    for received in &mut mine {
        assert_eq!(heard_out(received, 0).await.0, 1);
    }
    let counted = bus.journal().into_iter().filter_map(|deed| match deed {
        Deed::Counted(channels) => Some(channels),
        Deed::Subscribed(_) | Deed::Unsubscribed(_) | Deed::Published(_) => None,
    });
    assert_eq!(counted.collect::<Vec<_>>(), [names]);
}

#[actix::test]
async fn a_question_that_failed_is_not_put_later() {
    let bus = MemoryBus::new();
    let [a, mut b, _c] = acquainted(AdapterKind::Classic, || bus.clone()).await;
    let mut requests = bus.listen(REQUESTS);
    bus.refuse(Some(("request", "OOM")));
    let question = Question::Broadcast {
        broadcast: event("question"),
        timeout: Duration::from_secs(5),
        expects_one: false,
    };
    let mut received = a.ask(question);
    let failed = soon("the failure", received.recv()).await;
    assert!(
        matches!(&failed, Some(Answer::Unreachable { reason }) if reason.contains("no access")),
        "{failed:?}"
    );
    assert!(soon("the end", received.recv()).await.is_none());
    a.publish(&event("waits"));
    bus.refuse(None);
    assert_eq!(b.hears().await, event("waits"));
    // What comes next is what is asked next.
    let mut received = a.ask(Question::Rooms);
    heard_out(&mut received, 2).await;
    let first = soon("a request", requests.recv()).await.unwrap();
    let first = request::decode(&"/events".into(), &first).unwrap().request;
    assert!(matches!(first, Request::AllRooms { .. }), "{first:?}");
}

#[actix::test]
async fn a_question_on_a_forbidden_channel_fails_at_once() {
    let bus = MemoryBus::new();
    let [a, ..] = acquainted(AdapterKind::Classic, || bus.clone()).await;
    bus.refuse(Some(("request", "NOPERM")));
    let mut received = a.ask(Question::Rooms);
    let failed = soon("the failure", received.recv()).await;
    assert!(
        matches!(failed, Some(Answer::Unreachable { .. })),
        "{failed:?}"
    );
    assert!(soon("the end", received.recv()).await.is_none());
}

#[actix::test]
async fn a_namespace_is_heard_while_it_has_sockets_here() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    let stranger = Uid::random().unwrap();
    let to = |name: &str| Broadcast {
        namespace: "/made/7".into(),
        ..event(name)
    };
    let publish = |name: &str| {
        bus.publish(
            "socket.io#/made/7#",
            message::encode(&stranger, &to(name)).unwrap(),
        );
    };
    publish("nobody listens");
    instance.bridge.do_send(ForBridge::Open("/made/7".into()));
    let name = "socket.io-request#/made/7#";
    soon("the subscription", bus.subscribed(name)).await;
    publish("heard");
    assert_eq!(instance.hears().await, to("heard"));
    instance.bridge.do_send(ForBridge::Close("/made/7".into()));
    // One that comes and goes costs nothing.
    instance.bridge.do_send(ForBridge::Open("/made/7".into()));
    instance.bridge.do_send(ForBridge::Close("/made/7".into()));
    soon("the end of it", bus.unsubscribed(name)).await;
    let changes = bus.journal();
    let changes = changes
        .iter()
        .filter(|deed| matches!(deed, Deed::Unsubscribed(_)));
    assert_eq!(changes.count(), 1);
    let first = event("first of what is always heard");
    bus.publish(
        "socket.io#/events#",
        message::encode(&stranger, &first).unwrap(),
    );
    assert_eq!(instance.hears().await, first);
}

#[actix::test]
async fn whoever_asks_while_the_own_subscription_is_under_way_counts_right() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let name = "socket.io-request#/made/7#";
    let _other = bus.listen(name);
    bus.hold_changes();
    let ask = |namespace: &str| {
        let (answers, received) = mpsc::unbounded_channel();
        let ask = AskOthers {
            namespace: namespace.into(),
            question: Question::Rooms,
            timeout: Duration::from_secs(5),
            answers,
        };
        instance.bridge.do_send(ForBridge::Ask(Box::new(ask)));
        received
    };
    let mut known = ask("/events");
    instance.bridge.do_send(ForBridge::Open("/made/7".into()));
    let mut made = ask("/made/7");
    assert!(soon("the count", known.recv()).await.is_some());
    // The bus has not heard of us yet: counted now, the other would be taken for us.
    assert_eq!(bus.make_changes(), 1);
    let first = soon("the count", made.recv()).await;
    assert!(
        matches!(
            first,
            Some(Answer::Asked {
                num_instances: 1,
                ..
            })
        ),
        "{first:?}"
    );
}

/// A bug: a namespace counted as listened to until the bus had confirmed that it was not any more. One that was opened again before that
/// was taken for one that others see us in, and one of them for us.
#[actix::test]
async fn who_opens_again_what_is_just_being_closed_is_not_counted_before_it_is_heard() {
    let uid = Uid::parse("abcdef").unwrap();
    let peers = Peers::new(InstanceId::parse("Ab3dE6gH").unwrap(), uid);
    let table = Namespaces::new(AdapterKind::Classic, "p", &peers, Vec::new());
    let mut listening = Listening::default();
    let name = Namespace::from("/made/7");
    // As the link does it.
    let follow = |listening: &mut Listening| {
        let change = listening.follow(table.news(), &table);
        table.note_gone(&change.gone);
        change
    };
    let confirm = |listening: &mut Listening| table.note_in_force(listening.confirm());
    table.open(name.clone());
    assert!(!follow(&mut listening).is_empty());
    confirm(&mut listening);
    assert!(table.is_in_force(&name));
    table.close(&name);
    table.open(name.clone());
    assert!(follow(&mut listening).is_empty());
    assert!(table.is_in_force(&name), "the bus never heard of it");
    table.close(&name);
    assert!(!follow(&mut listening).is_empty());
    table.open(name.clone());
    assert!(!table.is_in_force(&name), "it is being closed");
    confirm(&mut listening);
    assert!(!table.is_in_force(&name), "the bus has closed it");
    assert!(!follow(&mut listening).is_empty());
    confirm(&mut listening);
    assert!(table.is_in_force(&name));
}

/// A bug: while one waited for its own subscription before it asked, nothing at all was published.
#[actix::test]
async fn who_cannot_ask_yet_holds_up_nothing_that_is_published() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let mut other = Instance::over(bus.clone()).up().await;
    let mut questions = ["/made/7", "/made/8"].map(|namespace| {
        let questions = bus.listen(&format!("socket.io-request#{namespace}#"));
        (namespace, questions)
    });
    bus.hold_changes();
    let ask = |namespace: &str| {
        let (answers, received) = mpsc::unbounded_channel();
        let ask = AskOthers {
            namespace: namespace.into(),
            question: Question::Rooms,
            timeout: PATIENCE,
            answers,
        };
        instance.bridge.do_send(ForBridge::Ask(Box::new(ask)));
        received
    };
    // Who gave up holds up nobody either.
    drop(ask("/made/6"));
    let _asking = questions.each_ref().map(|(namespace, _)| ask(namespace));
    // The question has reached the link when it has heard what was said behind it.
    for number in 0..100 {
        instance.publish(&event(&number.to_string()));
        assert_eq!(other.hears().await, event(&number.to_string()));
    }
    for (_, questions) in &mut questions {
        assert!(questions.try_recv().is_err(), "asked before it could hear");
    }
    bus.make_changes();
    for (namespace, questions) in &mut questions {
        let asked = soon("the question", questions.recv()).await.unwrap();
        let asked = request::decode(&(*namespace).into(), &asked).unwrap();
        assert!(matches!(asked.request, Request::AllRooms { .. }));
    }
}

#[actix::test]
async fn a_flood_of_new_namespaces_is_one_change_at_a_time() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    bus.hold_changes();
    for n in 0..100 {
        instance
            .bridge
            .do_send(ForBridge::Open(format!("/made/{n}").into()));
        // Each has reached the link before the next one is made.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(bus.make_changes(), 1);
    soon("all", bus.subscribed("socket.io-request#/made/99#")).await;
    let subscribed = |deed: &&Deed| matches!(deed, Deed::Subscribed(_));
    assert_eq!(bus.journal().iter().filter(subscribed).count(), 3);
}

/// The one that clients name in these tests.
fn made(number: impl std::fmt::Display) -> Namespace {
    format!("/made/{number}").as_str().into()
}

/// The channel by which it is seen whether that is listened to.
fn requests_of(namespace: &Namespace) -> String {
    format!("socket.io-request#{namespace}#")
}

/// Returns which of those are listened to.
fn made_and_heard(bus: &MemoryBus) -> HashSet<String> {
    let mut heard = HashSet::new();
    for deed in bus.journal() {
        match deed {
            Deed::Subscribed(names) => heard.extend(names.channels),
            Deed::Unsubscribed(names) => {
                heard.retain(|name| !names.channels.contains(name));
            }
            Deed::Published(_) | Deed::Counted(_) => {}
        }
    }
    heard.retain(|name| name.starts_with("socket.io-request#/made/"));
    heard
}

impl<B: Bus> Instance<B> {
    /// Listens to a namespace that is in use by what is returned.
    async fn listens_to(&self, namespace: &Namespace) -> Entered {
        let gateway = Gateway::matching("/made/{number}");
        let entered = self.dynamic.enter(&gateway, namespace).unwrap();
        let (reply, heard) = oneshot::channel();
        self.bridge.do_send(ForBridge::Hear {
            namespaces: vec![namespace.clone()],
            reply,
        });
        soon("the word that it is heard", heard).await.unwrap();
        entered
    }
}

/// A bug: nothing bounded how many were listened to for a while after the last client had left.
#[actix::test]
async fn namespaces_that_come_and_go_leave_few_behind() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    for n in 0..MAX_DYNAMIC {
        instance.bridge.do_send(ForBridge::Open(made(n)));
        instance.bridge.do_send(ForBridge::Close(made(n)));
    }
    // A session comes there, and must miss nothing when the last that was there before leaves.
    let coming = made("coming");
    let _coming = instance.listens_to(&coming).await;
    instance.bridge.do_send(ForBridge::Open(coming.clone()));
    instance.bridge.do_send(ForBridge::Close(coming.clone()));
    let last = made("last");
    instance.bridge.do_send(ForBridge::Open(last.clone()));
    soon("the last", bus.subscribed(&requests_of(&last))).await;
    let heard = made_and_heard(&bus);
    assert!(heard.len() <= MAX_DYNAMIC / 2 + 2, "{} are", heard.len());
    assert!(heard.contains(&requests_of(&coming)));
}

/// A bug: questions in ever new namespaces, which clients may name, were limited by nothing.
#[actix::test]
async fn questions_are_put_in_so_many_namespaces_without_sockets_at_a_time() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let ask = |namespace: Namespace| {
        let (answers, received) = mpsc::unbounded_channel();
        let ask = AskOthers {
            namespace,
            question: Question::Rooms,
            timeout: PATIENCE,
            answers,
        };
        instance.bridge.do_send(ForBridge::Ask(Box::new(ask)));
        received
    };
    let _asking: Vec<_> = (0..MIN_MAX_IDLE).map(|n| ask(made(n))).collect();
    let is_refused = |answer: &Option<Answer>| matches!(answer, Some(Answer::Unreachable { reason }) if reason.contains("without sockets"));
    let answer = soon("the refusal", ask(made("one more")).recv()).await;
    assert!(is_refused(&answer), "{answer:?}");
    let occupied = made("occupied");
    instance.bridge.do_send(ForBridge::Open(occupied.clone()));
    soon("a subscription", bus.subscribed(&requests_of(&occupied))).await;
    for namespace in [occupied, "/events".into()] {
        let answer = soon("the count", ask(namespace).recv()).await;
        assert!(matches!(answer, Some(Answer::Asked { .. })), "{answer:?}");
    }
}

/// A bug: where a session was to come, it was listened for as long as it might have taken, whether it still was to come or not; one client
/// could let that be any number of namespaces.
#[actix::test]
async fn where_a_session_is_to_come_it_is_listened_as_long_as_that_is_so() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let (long, short) = (made("long"), made("short"));
    let coming = instance.listens_to(&long).await;
    drop(instance.listens_to(&short).await);
    soon("the end of one", bus.unsubscribed(&requests_of(&short))).await;
    assert_eq!(made_and_heard(&bus), [requests_of(&long)].into());
    drop(coming);
    soon("the end of all", bus.unsubscribed(&requests_of(&long))).await;
}

#[actix::test]
async fn a_slow_hub_stops_the_listening() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    instance.hub.send_replace(false);
    let message = message::encode(&Uid::random().unwrap(), &event("e")).unwrap();
    for _ in 0..1000 {
        bus.publish("socket.io#/events#", message.clone());
    }
    for _ in 0..64 {
        assert_eq!(instance.hears().await, event("e"));
    }
    // The bridge waits for the hub's answer to the 64th. It still publishes and takes messages meanwhile.
    let mut other = Instance::over(bus.clone()).up().await;
    other.hears_next(&instance, &event("still")).await;
    assert_eq!(instance.num_waiting.load(SeqCst), 64);
    assert_eq!(instance.stats.snapshot().num_reinjected, 64);
    instance.hub.send_replace(true);
    for _ in 64..1000 {
        assert_eq!(instance.hears().await, event("e"));
    }
}

/// A bug: what instances say to one another was handed to the hub without end, however much it had yet to take.
#[actix::test]
async fn a_slow_hub_stops_what_instances_say_too() {
    let bus = MemoryBus::new();
    let mut instance = Instance::over(bus.clone()).up().await;
    instance.hub.send_replace(false);
    let own = format!("socket.io-sockhop#{}#", instance.name());
    for _ in 0..1000 {
        bus.publish(&own, "word");
    }
    for _ in 0..64 {
        assert_eq!(instance.is_told().await, said(Audience::One, "word", 0));
    }
    // The bridge waits for the hub now, and still publishes meanwhile.
    let mut other = Instance::over(bus.clone()).up().await;
    other.hears_next(&instance, &event("still")).await;
    assert_eq!(instance.num_waiting.load(SeqCst), 1);
    assert!(instance.said.try_recv().is_err(), "it was told more");
    instance.hub.send_replace(true);
    for _ in 64..1000 {
        assert_eq!(instance.is_told().await, said(Audience::One, "word", 0));
    }
    // By bytes, too.
    instance.hub.send_replace(false);
    let half = vec![b'x'; 128 << 10];
    for channel in [&own, "socket.io-sockhop#"] {
        bus.publish(channel, half.clone());
    }
    bus.publish(&own, "behind");
    for audience in [Audience::One, Audience::All] {
        assert_eq!(instance.is_told().await.audience, audience);
    }
    other.hears_next(&instance, &event("again")).await;
    assert!(instance.said.try_recv().is_err(), "it was told more");
    instance.hub.send_replace(true);
    assert_eq!(instance.is_told().await, said(Audience::One, "behind", 0));
}

#[actix::test]
async fn the_end_waits_for_the_last_events_but_not_for_ever() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    bus.set_answering(false);
    instance.publish(&event("last"));
    let start = Instant::now();
    soon("the end", instance.bridge.send(Stop)).await.unwrap();
    assert!(start.elapsed() >= FLUSH_TIMEOUT, "{:?}", start.elapsed());
    let Some(Deed::Published(batch)) = bus.journal().pop() else {
        panic!("nothing was published")
    };
    assert_eq!(batch[0].channel, "socket.io#/events#");

    // Without a connection there is nothing to wait for.
    bus.set_up(false);
    let mut instance = Instance::over(bus.clone());
    instance.until_down().await;
    instance.publish(&event("never"));
    let start = Instant::now();
    soon("the end", instance.bridge.send(Stop)).await.unwrap();
    assert!(start.elapsed() < FLUSH_TIMEOUT, "{:?}", start.elapsed());
}

#[actix::test]
async fn it_ends_when_the_hub_is_gone() {
    let bus = MemoryBus::new();
    let (sender, heard) = mpsc::unbounded_channel();
    let (_hub, is_open) = watch::channel(true);
    let probe = Probe {
        heard: sender,
        said: mpsc::unbounded_channel().0,
        num_heard: 0,
        is_open,
        num_waiting: Arc::default(),
        silent: Vec::new(),
    };
    // An address whose actor has never lived on: the arbiter that would run it is gone.
    let arbiter = actix::Arbiter::new();
    let probe = Probe::start_in_arbiter(&arbiter.handle(), move |_| probe);
    arbiter.stop();
    arbiter.join().unwrap();
    drop(heard);
    let peers = peers(AdapterKind::Classic);
    let fixed = vec![Namespace::main()];
    let namespaces = Namespaces::new(AdapterKind::Classic, "socket.io", &peers, fixed);
    let bridge = RedisBridge::over(
        bus.clone(),
        peers,
        namespaces,
        DynamicNamespaces::new(MAX_DYNAMIC),
        door(probe),
        deaf(),
        Arc::new(|| {}),
    );
    let mut status = bridge.status();
    let bridge = bridge.start();
    soon(
        "the link",
        status.wait_for(|status| *status == BusStatus::Up),
    )
    .await
    .unwrap();
    let uid = Uid::random().unwrap();
    let broadcast = Broadcast {
        namespace: Namespace::main(),
        ..event("e")
    };
    bus.publish("socket.io#/#", message::encode(&uid, &broadcast).unwrap());
    // The link, and the status with it, is dropped with the actor.
    soon("the end", async { while status.changed().await.is_ok() {} }).await;
    assert!(bridge.send(Stop).await.is_err());
}

#[actix::test]
async fn two_instances_hear_each_other_over_redis() {
    let server = RedisServer::start();
    let mut a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    b.hears_next(&a, &event("to b")).await;
    b.hears_next(&a, &full_of_everything()).await;
    a.hears_next(&b, &event("to a")).await;
    // Each event once: what a published came back to it and was not heard again.
    assert_eq!(a.stats.snapshot().num_own_echoes, 2);
    for number in 0..5000 {
        a.publish(&event(&number.to_string()));
    }
    for number in 0..5000 {
        assert_eq!(b.hears().await, event(&number.to_string()));
    }
    assert_eq!(a.stats.snapshot().num_dropped, 0);
}

/// Two speak at once, and two listen.
async fn is_one_order<B: Bus>(adapter: AdapterKind, bus: impl Fn() -> B) {
    const NUM: usize = 500;
    let start = || Instance::speaking(adapter, bus(), Interest::in_everything()).up();
    let (mut a, mut b) = (start().await, start().await);
    let (mut c, mut d) = (start().await, start().await);
    for number in 0..NUM {
        for (instance, who) in [(&a, "a"), (&b, "b")] {
            instance.publish(&event(&format!("{who}{number}")));
            instance.tell(format!("{who}{number}"));
        }
    }
    let mut orders = Vec::new();
    for listener in [&mut c, &mut d] {
        let mut order = Vec::new();
        let mut events = Vec::new();
        for _ in 0..2 * NUM {
            events.push(listener.hears().await);
            let Said {
                audience,
                payload,
                num_before,
            } = listener.is_told().await;
            assert_eq!(audience, Audience::All);
            order.push((payload, num_before));
        }
        for (payload, num_before) in &order {
            let name = std::str::from_utf8(payload).unwrap();
            let own = events.iter().position(|heard| *heard == event(name));
            let number: usize = name[1..].parse().unwrap();
            let next = event(&format!("{}{}", &name[..1], number + 1));
            let next = events.iter().position(|heard| *heard == next);
            assert!(own.is_some_and(|own| own < *num_before), "{name}");
            assert!(next.is_none_or(|next| *num_before <= next), "{name}");
        }
        orders.push((order, events));
    }
    let [one, other] = orders.try_into().unwrap();
    assert_eq!(one, other);
    // Each hears its own words among those of others, in the same order.
    for speaker in [&mut a, &mut b] {
        for (payload, _) in &one.0 {
            assert_eq!(speaker.is_told().await.payload, *payload);
        }
    }
}

#[actix::test]
async fn all_hear_what_is_told_and_what_is_published_in_one_order() {
    let server = RedisServer::start();
    is_one_order(AdapterKind::Classic, || config(&server)).await;
    let sharded = AdapterKind::Sharded(SubscriptionMode::default());
    let config = redis_config(&server.url(), sharded);
    is_one_order(sharded, || ShardedBus::new(&config).unwrap()).await;
}

#[actix::test]
async fn instances_know_one_another_and_answer_by_name_over_redis() {
    for adapter in [
        AdapterKind::Classic,
        AdapterKind::Sharded(SubscriptionMode::default()),
    ] {
        let server = RedisServer::start();
        let config = redis_config(&server.url(), adapter);
        let [a, b, c] = acquainted(adapter, || AnyBus::new(&config).unwrap()).await;
        let mut others = [b.name(), c.name()];
        others.sort_unstable();
        let answered: Vec<_> = others.iter().cloned().map(Some).collect();
        let mut received = a.ask(Question::Rooms);
        let heard = heard_out(&mut received, 2).await;
        assert_eq!(heard, (2, others.to_vec(), answered));
        let counted = server.command(&[b"INFO", b"commandstats"]);
        let counted = String::from_utf8_lossy(&counted).into_owned();
        assert!(!counted.contains("numsub"), "{counted}");
        soon("the end", b.bridge.send(Stop)).await.unwrap();
        a.knows(&[&c]).await;
    }
}

#[actix::test]
async fn a_message_longer_than_what_is_read_ahead_crosses() {
    let server = RedisServer::start();
    let a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    let json = "[\"big\",{\"_placeholder\":true,\"num\":0}]";
    let attachment = Bytes::from(vec![42; 3_000_000]);
    let big = Broadcast {
        args: Args::from_parts(json.into(), vec![attachment]),
        ..event("")
    };
    for _ in 0..3 {
        b.hears_next(&a, &big).await;
    }
    b.hears_next(&a, &event("small")).await;
}

#[actix::test]
async fn a_slow_hub_lets_redis_wait_and_is_not_taken_for_a_dead_redis() {
    let server = RedisServer::start();
    let a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    b.hub.send_replace(false);
    let json = format!("[\"{}\"]", "x".repeat(10_000));
    let fat = Broadcast {
        args: Args::from_parts(json.into(), vec![]),
        ..event("")
    };
    // 24 MB, which no socket buffer holds, in portions that the outgoing queue does.
    for portion in 1..=6 {
        for _ in 0..400 {
            a.publish(&fat);
        }
        a.until_stats(|stats| stats.num_published == portion * 400)
            .await;
    }
    for _ in 0..20 {
        b.hears().await;
    }
    // Longer than it takes to give up on a silent Redis. This is the duration itself, not an event awaited by guess.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        b.num_waiting.load(SeqCst) < 100,
        "the hub was handed more than it took"
    );
    let clients = server.command(&[b"CLIENT", b"LIST", b"TYPE", b"pubsub"]);
    let clients = String::from_utf8(clients).unwrap();
    let held_back = clients
        .split_whitespace()
        .filter_map(|field| field.strip_prefix("omem="));
    let held_back: u64 = held_back
        .map(|bytes| bytes.parse::<u64>().unwrap())
        .max()
        .unwrap();
    assert!(
        held_back > 5_000_000,
        "Redis holds {held_back} bytes back: the rest has been read"
    );
    b.hub.send_replace(true);
    for _ in 20..2400 {
        assert_eq!(b.hears().await, fat);
    }
    assert_eq!(b.stats.snapshot().num_links, 1);
}

#[actix::test]
async fn a_message_that_is_too_long_costs_the_link_not_the_instance() {
    let unlimited = ["--client-output-buffer-limit", "pubsub", "0", "0", "0"];
    let server = RedisServer::start_with(&unlimited);
    let mut a = Instance::over(config(&server)).up().await;
    // The limit is looked at between reads, and one read takes what the socket's buffer holds: megabytes.
    let payload = vec![0xc0; MAX_MESSAGE_BYTES + (32 << 20)];
    assert_eq!(
        server.command(&[b"PUBLISH", b"socket.io#/#", &payload]),
        b":1\r\n"
    );
    let too_long = Fault::TooLong.advice();
    a.until(|status| matches!(status, BusStatus::Down { advice, .. } if *advice == too_long))
        .await;
    a.until(|status| *status == BusStatus::Up).await;
    let b = Instance::over(config(&server)).up().await;
    a.hears_next(&b, &event("after")).await;
}

#[actix::test]
async fn events_cross_again_after_redis_was_killed() {
    let mut server = RedisServer::start();
    let mut a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    b.hears_next(&a, &event("before")).await;

    server.kill();
    a.until_down().await;
    b.until_down().await;
    a.publish(&event("meanwhile 1"));
    a.publish(&event("meanwhile 2"));

    server.restart_on_same_port();
    // Who comes back first publishes first: only what both hear is certain.
    a.until(|status| *status == BusStatus::Up).await;
    b.until(|status| *status == BusStatus::Up).await;
    a.publish(&event("after"));
    let mut heard = vec![b.hears().await];
    while *heard.last().unwrap() != event("after") {
        heard.push(b.hears().await);
    }
    assert!(
        [
            &[event("meanwhile 1"), event("meanwhile 2"), event("after")][..],
            &[event("after")]
        ]
        .contains(&&heard[..]),
        "{heard:?}"
    );
    a.hears_next(&b, &event("back")).await;
    assert_eq!(
        (a.num_connected.load(SeqCst), b.num_connected.load(SeqCst)),
        (2, 2)
    );
    assert_eq!(a.stats.snapshot().num_dropped, 0);
}

#[actix::test]
async fn what_waited_reaches_whoever_listens_when_redis_is_back() {
    let mut server = RedisServer::start();
    let mut a = Instance::over(config(&server)).up().await;
    server.kill();
    a.until_down().await;
    for number in 0..100 {
        a.publish(&event(&number.to_string()));
    }
    soon("the mailbox", a.bridge.send(publish(event("100"))))
        .await
        .unwrap();
    // Held here until the listener stands: a cannot connect before the server runs on its port.
    server.restart_on_same_port();
    let mut b = Instance::over(config(&server));
    b.until(|status| *status == BusStatus::Up).await;
    a.until(|status| *status == BusStatus::Up).await;
    a.until_stats(|stats| stats.num_published == 101).await;
    assert_eq!(a.stats.snapshot().num_dropped, 0);
    // Whether b stood first is chance; that the order holds and the newest arrives is not.
    a.publish(&event("101"));
    let mut last = None;
    while last != Some(101) {
        let heard = b.hears().await;
        let text = heard.args.json().trim_matches(['[', ']', '"']).to_owned();
        let number: i32 = text.parse().unwrap();
        assert!(
            last.is_none_or(|last| number == last + 1),
            "{number} after {last:?}"
        );
        last = Some(number);
    }
}

#[actix::test]
async fn redis_may_be_down_at_the_start() {
    let mut server = RedisServer::reserve();
    let mut a = Instance::over(config(&server));
    a.until_down().await;
    let BusStatus::Down { reason, .. } = a.status.borrow().clone() else {
        panic!("it is not down")
    };
    assert!(reason.starts_with("cannot connect"), "{reason}");
    assert_eq!(a.num_connected.load(SeqCst), 0);
    server.restart_on_same_port();
    a.until(|status| *status == BusStatus::Up).await;
    let mut b = Instance::over(config(&server)).up().await;
    b.hears_next(&a, &event("first")).await;
}

#[actix::test]
async fn a_redis_that_became_a_black_hole_is_noticed_within_five_seconds() {
    let server = RedisServer::start();
    let mut a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    b.hears_next(&a, &event("before")).await;
    server.freeze();
    let start = Instant::now();
    a.until_down().await;
    b.until_down().await;
    let took = start.elapsed();
    server.thaw();
    assert!(took < Duration::from_secs(5), "{took:?}");
    a.until(|status| *status == BusStatus::Up).await;
    b.until(|status| *status == BusStatus::Up).await;
    b.hears_next(&a, &event("after")).await;
}

#[actix::test]
async fn garbage_on_redis_is_skipped() {
    let server = RedisServer::start();
    let a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    let huge_claim = b"\x93\xa1a\xdd\x20\x00\x00\x00";
    for (channel, payload) in [
        (&b"socket.io#/events#"[..], &b"garbage"[..]),
        (b"socket.io#/events#", b""),
        (b"socket.io#/events#", huge_claim),
        (b"socket.io#/events#\xff\xfe#", b"\xc1"),
        (b"socket.io#/events#room#", &[0x91; 100_000]),
    ] {
        // `:2`: both instances were sent it.
        assert_eq!(server.command(&[b"PUBLISH", channel, payload]), b":2\r\n");
    }
    b.hears_next(&a, &event("after")).await;
    assert_eq!(b.stats.snapshot().num_malformed, 5);
    assert_eq!(b.stats.snapshot().num_links, 1);
}

#[actix::test]
async fn a_killed_subscription_comes_back() {
    let server = RedisServer::start();
    let a = Instance::over(config(&server)).up().await;
    let mut b = Instance::over(config(&server)).up().await;
    assert_eq!(
        server.command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]),
        b":2\r\n"
    );
    b.until_down().await;
    b.until(|status| *status == BusStatus::Up).await;
    let mut a = a;
    a.until(|status| *status == BusStatus::Up).await;
    b.hears_next(&a, &event("after")).await;
}

#[actix::test]
async fn a_wrong_password_is_said_without_showing_it() {
    let server = RedisServer::start_with(&["--requirepass", "sesame"]);
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port());
    let bus = redis_at(&url("hunter2"));
    assert_eq!(bus.place(), format!("127.0.0.1:{}", server.port()));
    let mut a = Instance::over(bus);
    a.until_down().await;
    let BusStatus::Down { reason, .. } = a.status.borrow().clone() else {
        panic!("it is not down")
    };
    assert!(
        reason.contains("assword") && !reason.contains("hunter2"),
        "{reason}"
    );
    Instance::over(redis_at(&url("sesame"))).up().await;
}

#[actix::test]
async fn refused_events_wait_in_order_while_others_are_heard() {
    let bus = MemoryBus::new();
    let mut a = Instance::over(bus.clone()).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    bus.refuse(Some(("socket.io", "OOM")));
    for number in 0..10 {
        a.publish(&event(&number.to_string()));
    }
    a.until_down().await;
    let uid = Uid::random().unwrap();
    bus.publish(
        "socket.io#/events#",
        message::encode(&uid, &event("heard")).unwrap(),
    );
    assert_eq!(a.hears().await, event("heard"));
    assert_eq!(b.hears().await, event("heard"));
    bus.refuse(None);
    a.until(|status| *status == BusStatus::Up).await;
    for number in 0..10 {
        assert_eq!(b.hears().await, event(&number.to_string()));
    }
    let stats = a.stats.snapshot();
    assert_eq!((stats.num_dropped, stats.num_links), (0, 1));
}

/// A bug: whoever had been refused, and had forgotten by that all that others relied on, told nobody.
#[actix::test]
async fn whoever_was_refused_for_a_while_says_hello_again() {
    let bus = MemoryBus::new();
    let [a, mut b, c] = acquainted(AdapterKind::Classic, || bus.clone()).await;
    let hailed = |by: &Instance<MemoryBus>| by.peers.hailed_at(b.peers.instance()).unwrap();
    let before = [hailed(&a), hailed(&c)];
    // Nobody else publishes there.
    bus.refuse(Some(("/refused", "OOM")));
    b.publish(&Broadcast {
        namespace: "/refused".into(),
        ..event("waits")
    });
    b.until_down().await;
    bus.refuse(None);
    b.until(|status| *status == BusStatus::Up).await;
    for (other, before) in [&a, &c].into_iter().zip(before) {
        let hello = async {
            while other.peers.hailed_at(b.peers.instance()) == Some(before) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("a hello", hello).await;
    }
    b.knows(&[&a, &c]).await;
}

/// A bug: of a message that was refused alone it was not said that it is lost, and whoever waited for it did so for ever.
#[actix::test]
async fn of_what_is_refused_alone_it_is_said_that_it_is_lost() {
    let bus = MemoryBus::new();
    let a = Instance::over(bus.clone()).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    // So that all of it goes out together.
    bus.set_answering(false);
    a.publish(&event("0"));
    assert_eq!(b.hears().await, event("0"));
    bus.refuse(Some(("sockhop", "OOM")));
    let (lose, lost) = tokio::sync::oneshot::channel();
    let behind = ForBridge::Behind {
        to: b.peers.instance(),
        payload: "for b".into(),
        loss: Some(Loss::new(move || _ = lose.send(()))),
    };
    a.bridge.do_send(behind);
    let last = a.bridge.send(publish(event("1")));
    soon("the mailbox", last).await.unwrap();
    bus.set_answering(true);
    assert_eq!(b.hears().await, event("1"));
    assert_eq!(soon("the loss", lost).await, Ok(()));
}

/// Patience of a test, of which only one kind is tried.
fn patience(confirm: Duration, role: Duration) -> Patience {
    Patience { confirm, role }
}

/// A bug: whoever was connected to a primary that became a replica stayed there, though its address had led elsewhere long since.
#[actix::test]
async fn an_address_is_looked_up_again_when_a_replica_stays_one() {
    let bus = MemoryBus::new();
    let short = patience(PATIENCE, Duration::from_millis(200));
    let mut a = Instance::patient(bus.clone(), short).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    let num_links = bus.num_links();
    // Memory may be free again at any time, wherever one is led.
    bus.refuse(Some(("/events", "OOM")));
    a.publish(&event("waits"));
    a.until_down().await;
    tokio::time::sleep(3 * short.role).await;
    assert_eq!(bus.num_links(), num_links);
    bus.refuse(Some(("/events", "READONLY")));
    let again = async {
        while bus.num_links() == num_links {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a new connection", again).await;
    bus.refuse(None);
    a.until(|status| *status == BusStatus::Up).await;
    assert_eq!(b.hears().await, event("waits"));
    let stats = a.stats.snapshot();
    assert_eq!((stats.num_dropped, stats.num_links), (0, 2));
}

/// A bug: a bus that said other things and never this one was waited for without end, and nothing was published meanwhile.
#[actix::test]
async fn a_change_that_is_never_confirmed_ends_the_connection() {
    let bus = MemoryBus::new();
    bus.hold_changes();
    let short = patience(Duration::from_millis(300), PATIENCE);
    let mut instance = Instance::patient(bus.clone(), short);
    instance
        .until(
            |status| matches!(status, BusStatus::Down { reason, .. } if reason.contains("300 ms")),
        )
        .await;
    bus.make_changes();
    instance.until(|status| *status == BusStatus::Up).await;
}

#[actix::test]
async fn the_time_of_a_slow_hub_is_not_that_of_the_bus() {
    let bus = MemoryBus::new();
    let short = patience(Duration::from_secs(2), PATIENCE);
    let mut instance = Instance::patient(bus.clone(), short).up().await;
    bus.hold_changes();
    instance.bridge.do_send(ForBridge::Open("/made/7".into()));
    soon("the change", async {
        while bus.num_held_changes() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    instance.hub.send_replace(false);
    let message = message::encode(&Uid::random().unwrap(), &event("e")).unwrap();
    for _ in 0..65 {
        bus.publish("socket.io#/events#", message.clone());
    }
    for _ in 0..64 {
        assert_eq!(instance.hears().await, event("e"));
    }
    tokio::time::sleep(short.confirm + Duration::from_millis(500)).await;
    instance.hub.send_replace(true);
    // It has read all that was there by then, and not the confirmation.
    assert_eq!(instance.hears().await, event("e"));
    assert_eq!(bus.make_changes(), 1);
    soon("it", bus.subscribed("socket.io-request#/made/7#")).await;
    bus.publish("socket.io#/events#", message);
    assert_eq!(instance.hears().await, event("e"));
    assert_eq!(instance.stats.snapshot().num_links, 1);
}

/// A bug: each look was a question to Redis of its own, and all that was to be sent to other instances waited for it.
#[actix::test]
async fn however_many_look_redis_is_asked_once_and_once_for_each_instance() {
    let bus = MemoryBus::new();
    let instance = Instance::over(bus.clone()).up().await;
    let other = Instance::over(bus.clone()).up().await;
    let nobody = InstanceId::random().unwrap();
    bus.set_answering(false);
    let (receipt, heard) = tokio::sync::oneshot::channel();
    let to = other.peers.instance();
    instance.bridge.do_send(ForBridge::Send {
        to,
        payload: "holds up what comes".into(),
        weight: Capacity::default().take(1).unwrap(),
        receipt,
    });
    let mut looking = Vec::new();
    for instance_of in [to, nobody].repeat(50) {
        let (reply, counted) = tokio::sync::oneshot::channel();
        let look = ForBridge::Look {
            instance: instance_of,
            reply,
        };
        soon("the mailbox", instance.bridge.send(look))
            .await
            .unwrap();
        looking.push((instance_of, counted));
    }
    bus.set_answering(true);
    assert_eq!(soon("the receipt", heard).await, Ok(1));
    for (instance_of, counted) in looking {
        let num = usize::from(instance_of == to);
        assert_eq!(soon("the number", counted).await, Ok(num));
    }
    assert_eq!(num_counted(&bus), 1);
}

#[actix::test]
async fn a_forbidden_channel_holds_up_no_other() {
    let bus = MemoryBus::new();
    let a = Instance::over(bus.clone()).up().await;
    let mut b = Instance::over(bus.clone()).up().await;
    bus.refuse(Some(("/other", "NOPERM")));
    let other = Broadcast {
        namespace: Namespace::from("/other"),
        ..event("never")
    };
    for name in ["1", "2", "3"] {
        a.publish(&other);
        a.publish(&event(name));
    }
    for name in ["1", "2", "3"] {
        assert_eq!(b.hears().await, event(name));
    }
    a.until_stats(|stats| stats.num_dropped == 3).await;
    assert_eq!(*a.status.borrow(), BusStatus::Up);
}

#[actix::test]
async fn who_may_not_publish_is_told_at_once_and_still_hears() {
    // An ACL user that may hear everything and say nothing.
    let rules = [
        "muted",
        "on",
        ">pw",
        "allchannels",
        "~*",
        "+@all",
        "-publish",
    ];
    let server = RedisServer::start_with(&[&["--user"][..], &rules].concat());
    let url = format!("redis://muted:pw@127.0.0.1:{}", server.port());
    let mut a = Instance::over(redis_at(&url));
    a.until(
        |status| matches!(status, BusStatus::Down { reason, .. } if reason.contains("publish")),
    )
    .await;
    a.publish(&event("waits"));
    let mut b = Instance::over(config(&server)).up().await;
    a.hears_next(&b, &event("heard")).await;
    assert_eq!(a.stats.snapshot().num_dropped, 0);
    server.command(&[b"ACL", b"SETUSER", b"muted", b"+publish"]);
    a.until(|status| *status == BusStatus::Up).await;
    assert_eq!(b.hears().await, event("waits"));
    assert_eq!(a.stats.snapshot().num_links, 1);
}

#[actix::test]
async fn the_documented_rights_are_enough() {
    let ways = [
        (AdapterKind::Classic, ACL_RULE),
        (
            AdapterKind::Sharded(SubscriptionMode::default()),
            SHARDED_ACL_RULE,
        ),
    ];
    for (adapter, rule) in ways {
        let rule: Vec<&str> = rule.split_whitespace().collect();
        let user = [&["--user", "sockhop", "on", ">pw"][..], &rule].concat();
        let server = RedisServer::start_with(&user);
        let url = format!("redis://sockhop:pw@127.0.0.1:{}", server.port());
        let start = || {
            let bus = AnyBus::new(&redis_config(&url, adapter)).unwrap();
            Instance::speaking(adapter, bus, Interest::in_everything()).up()
        };
        let a = start().await;
        let mut b = start().await;
        b.hears_next(&a, &event("one")).await;
        a.tell("all");
        assert_eq!(b.is_told().await, said(Audience::All, "all", 1));
        let log = server.command(&[b"ACL", b"LOG"]);
        assert_eq!(log, b"*0\r\n", "{}", String::from_utf8_lossy(&log));
    }
}

#[actix::test]
async fn a_redis_that_cannot_do_the_work_says_what_to_do() {
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1 1"]);
    let locked = RedisServer::start_with(&["--requirepass", "sesame"]);
    let deaf = RedisServer::start_with(&[
        "--user",
        "default",
        "on",
        "nopass",
        "+@all",
        "-psubscribe",
        "allchannels",
    ]);
    let nobody = RedisServer::reserve();
    let tls = format!("rediss://127.0.0.1:{}", locked.port());
    for (url, fault, words) in [
        (replica.url(), Fault::Replica, "replica"),
        (locked.url(), Fault::NoPassword, "NOAUTH"),
        (deaf.url(), Fault::NoPermission, "'psubscribe'"),
        (nobody.url(), Fault::Connect, "onnection refused"),
        // It waits for the rest of what it takes for a command.
        (tls, Fault::TimedOut, "no answer"),
    ] {
        let mut a = Instance::over(redis_at(&url));
        a.until_down().await;
        let BusStatus::Down { reason, advice } = a.status.borrow().clone() else {
            panic!("it is not down")
        };
        assert_eq!(advice, fault.advice(), "{reason}");
        assert_eq!(reason.matches(words).count(), 1, "{reason}");
    }
}

#[actix::test]
async fn the_bridge_is_built_from_the_settings() {
    let server = RedisServer::start();
    let (sender, _heard) = mpsc::unbounded_channel();
    let (_hub, is_open) = watch::channel(true);
    let probe = Probe {
        heard: sender,
        said: mpsc::unbounded_channel().0,
        num_heard: 0,
        is_open,
        num_waiting: Arc::default(),
        silent: Vec::new(),
    }
    .start();
    let new = |url: &str| {
        let config = RedisConfig {
            url: Secret::new(url),
            prefix: "other".to_owned(),
            adapter: Default::default(),
            tls: RedisTls::default(),
        };
        let namespaces = vec![Namespace::main()];
        let hub = door(probe.clone());
        let peers = peers(config.adapter);
        let dynamic = DynamicNamespaces::new(MAX_DYNAMIC);
        let on_connected = Arc::new(|| {});
        RedisBridge::new(
            &config,
            peers,
            namespaces,
            dynamic,
            hub,
            deaf(),
            on_connected,
        )
    };
    assert!(new("http://127.0.0.1").is_err());
    let bridge = new(&server.url()).unwrap();
    let mut status = bridge.status();
    // It is built on one arbiter and runs on another.
    let arbiter = actix::Arbiter::new();
    let bridge = RedisBridge::start_in_arbiter(&arbiter.handle(), move |_| bridge);
    soon(
        "the link",
        status.wait_for(|status| *status == BusStatus::Up),
    )
    .await
    .unwrap();
    let count = server.command(&[b"PUBSUB", b"NUMPAT"]);
    assert_eq!(count, b":1\r\n");
    assert_eq!(server.command(&[b"PUBLISH", b"other#/#", b"x"]), b":1\r\n");
    soon("the end", bridge.send(Stop)).await.unwrap();
    arbiter.stop();
    arbiter.join().unwrap();
}
