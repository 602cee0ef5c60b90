//! What waits for all clients together, in both directions: `MAX_TOTAL_BACKLOG`. How much memory that is: `bounded`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use sockhop::{
    app::App,
    config::Config,
    gateways::{Ack, Arg, Event, Gateway, Refusal, SocketRef},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
};

use crate::{
    cluster::{await_peers, await_redis},
    limits::{backlog_bytes, flood, flooding, num_met, telling},
    support::{
        http::{Pending, Poller, request},
        redis_server::RedisServer,
        server::TestServer,
        websocket::{WebSocket, frame},
        within,
    },
};

pub(crate) async fn await_backlog(addr: SocketAddr, what: &str, is_so: impl Fn(usize) -> bool) {
    within(what, async {
        while !is_so(backlog_bytes(addr).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Returns how much waits when that has not changed for some answers.
pub(crate) async fn settled_backlog(addr: SocketAddr) -> usize {
    let (mut last, mut num_same) = (0, 0);
    while num_same < 20 {
        let bytes = backlog_bytes(addr).await;
        num_same = if bytes == last { num_same + 1 } else { 0 };
        last = bytes;
    }
    last
}

/// Opens a session over polling that is in `/a`.
async fn poller(addr: SocketAddr) -> Poller {
    let poller = Poller::open(addr).await;
    poller.ok("40/a,").await;
    poller.payload().await;
    poller
}

/// Opens as many as there are clients.
async fn pollers(addr: SocketAddr) -> Vec<Poller> {
    let mut pollers = Vec::new();
    for _ in 0..NUM_CLIENTS {
        pollers.push(poller(addr).await);
    }
    pollers
}

/// Bytes of a message of which one client alone has sent most, and bytes that may wait for all.
const MOST: usize = 90_000;
const TOTAL: usize = 1_000_000;
const NUM_CLIENTS: usize = 20;

#[actix_rt::test]
async fn who_has_more_than_is_left_for_all_is_told_so() {
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| {
        config.engine.max_backlog = Some(1_500_000);
        config.engine.max_total_backlog = Some(2_000_000);
    };
    let server = TestServer::of(change, |app| app.gateway(flooding(gateway)));
    // It has not too much, and leaves less than another may have.
    let poller = poller(server.addr).await;
    poller.ok(r#"42/a,1["flood",8]"#).await;
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    let text = flood(&mut websocket, &mut reasons).await;
    let numbers = text
        .strip_prefix("backlog of ")
        .and_then(|rest| rest.strip_suffix(" bytes that are left for all clients"))
        .and_then(|rest| rest.split_once(" bytes exceeds the "));
    let (len, free) = numbers.expect(&text);
    let (len, free): (usize, usize) = (len.parse().unwrap(), free.parse().unwrap());
    assert!(free < 1_200_000 && free < len && len < 1_500_000, "{text}");
    assert_eq!(num_met(server.addr, "total_backlog").await, 1);
    assert_eq!(server.num_connections().await, 1);
    assert!(poller.payload().await.ends_with("43/a,1[]"));
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

fn echoing() -> Gateway {
    Gateway::new("/a").on("echo", |_, Arg(text): Arg<String>| async move { text })
}

/// So little that the clients of a test can have too much together.
fn small(config: &mut Config) {
    config.engine.max_payload = 100_000;
    config.engine.max_backlog = Some(500_000);
    config.engine.max_total_backlog = Some(TOTAL);
}

#[actix_rt::test]
async fn many_that_are_slow_have_no_more_together_than_is_said_and_those_that_read_notice_nothing()
{
    let (gateway, mut reasons) = telling();
    let change = |config: &mut Config| {
        config.engine.max_backlog = Some(1_000_000);
        config.engine.max_total_backlog = Some(2_000_000);
    };
    let server = TestServer::of(change, |app| app.gateway(flooding(gateway)));
    let mut pollers = Vec::new();
    for _ in 0..5 {
        let poller = poller(server.addr).await;
        // Not too much for one client, but for two or three.
        poller.ok(r#"42/a,1["flood",8]"#).await;
        pollers.push(poller);
    }
    for _ in 0..3 {
        let reason = within("an end", reasons.recv()).await.unwrap();
        assert_eq!(reason.as_str(), "slow reader");
    }
    let (mut reading, _) = WebSocket::join(server.addr, "/a", "").await;
    reading.send(r#"42/a,2["flood",100]"#).await;
    while reading.text().await != "43/a,2[]" {}
    let num_left = server.num_connections().await - 1;
    assert!((1..=2).contains(&num_left), "{num_left}");
    assert_eq!(num_met(server.addr, "total_backlog").await, 5 - num_left);
    assert_eq!(num_met(server.addr, "slow_reader").await, 0);
    let waiting = backlog_bytes(server.addr).await;
    assert!((800_000..2_000_000).contains(&waiting), "{waiting}");
    // Whoever was not too slow gets all of it, and then nothing waits any more.
    let mut num_whole = 0;
    for poller in &pollers {
        let answer = poller.get().await;
        num_whole += u64::from(answer.text().ends_with("43/a,1[]"));
    }
    assert_eq!(num_whole, num_left);
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

/// Returns the frame in which a message begins that has an end to come.
fn begun() -> String {
    format!(r#"42/a,1["echo","{}"#, "x".repeat(MOST))
}

/// Begins a message at each of many clients. Returns them, and how much waits when no more of it is read.
async fn begin_messages(server: &TestServer) -> (Vec<WebSocket>, usize) {
    let mut websockets = Vec::new();
    for _ in 0..NUM_CLIENTS {
        let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
        websocket.frame(0x01, begun().as_bytes()).await;
        websockets.push(websocket);
    }
    await_backlog(server.addr, "much waits", |bytes| bytes > TOTAL / 2).await;
    (websockets, settled_backlog(server.addr).await)
}

/// Whoever is held up has nobody to wait for but others like it: so none of them is for longer than a heartbeat.
#[actix_rt::test]
async fn messages_that_do_not_end_have_no_more_together_than_is_said_and_that_for_a_heartbeat() {
    let change = |config: &mut Config| {
        small(config);
        config.engine.ping_interval = Duration::from_millis(1500);
        config.engine.ping_timeout = Duration::from_millis(500);
    };
    let server = TestServer::of(change, |app| app.gateway(echoing()));
    let (websockets, waiting) = begin_messages(&server).await;
    // Each may have a KiB and one portion of a KiB, whatever is left.
    assert!(waiting < TOTAL + NUM_CLIENTS * 2048, "{waiting}");
    server.await_connections(0).await;
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
    drop(websockets);
}

#[actix_rt::test]
async fn a_message_that_was_held_up_is_read_on_when_others_have_gone() {
    let server = TestServer::of(small, |app| app.gateway(echoing()));
    let (first, _) = begin_messages(&server).await;
    let (mut last, _) = WebSocket::join(server.addr, "/a", "").await;
    last.frame(0x01, begun().as_bytes()).await;
    last.frame(0x80, br#""]"#).await;
    settled_backlog(server.addr).await;
    drop(first);
    assert!(last.text().await.starts_with("43/a,1[\"xxx"));
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

#[actix_rt::test]
async fn bodies_in_part_have_no_more_together_than_is_said() {
    let server = TestServer::of(small, |app| app.gateway(echoing()));
    let pollers = pollers(server.addr).await;
    let body = format!(r#"42/a,1["echo","{}"]"#, "x".repeat(MOST));
    let mut posts = Vec::new();
    for poller in &pollers {
        let whole = request("POST", &poller.target, &[], body.as_bytes());
        posts.push(Pending::send(server.addr, &whole[..whole.len() - 10]).await);
    }
    // Some are refused, and what is left of the others is held.
    let most_held = TOTAL / MOST;
    within("the bodies", async {
        while (num_met(server.addr, "total_backlog").await as usize) < NUM_CLIENTS - most_held {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(backlog_bytes(server.addr).await <= TOTAL);
    let rest = body.as_bytes().last_chunk::<10>().unwrap();
    let answers = join_all(posts.into_iter().map(async |mut post| {
        // Whoever was refused may not be listened to any more.
        _ = post.stream.write_all(rest).await;
        post.answer().await.status
    }));
    let answers = answers.await;
    let num = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(num(200) + num(503), NUM_CLIENTS, "{answers:?}");
    assert_eq!(num(503) as u64, num_met(server.addr, "total_backlog").await);
    drop(pollers);
}

#[actix_rt::test]
async fn packets_without_their_last_attachment_have_no_more_together_than_is_said() {
    let server = TestServer::of(small, |app| app.gateway(echoing()));
    let pollers = pollers(server.addr).await;
    let header = r#"452-/a,["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let body = format!("{header}\u{1e}b{}", "A".repeat(MOST));
    let mut taken = Vec::new();
    for poller in &pollers {
        match poller.post(&body).await.status {
            200 => taken.push(poller),
            503 => {}
            other => panic!("{other}"),
        }
    }
    let num_refused = (NUM_CLIENTS - taken.len()) as u64;
    assert_eq!(num_met(server.addr, "total_backlog").await, num_refused);
    let waiting = settled_backlog(server.addr).await;
    assert!((TOTAL / 2..TOTAL).contains(&waiting), "{waiting}");
    for poller in taken {
        poller.ok("1").await;
    }
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

#[actix_rt::test]
async fn what_clients_bring_to_be_let_in_is_no_more_together_than_is_said_and_all_are_let_in() {
    let gate = Arc::new(Semaphore::new(0));
    let gateway = {
        let gate = Arc::clone(&gate);
        Gateway::new("/a").authorize(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await);
                Ok::<_, Refusal>(())
            }
        })
    };
    let server = TestServer::of(small, |app| app.gateway(gateway));
    let wish = format!(r#"40/a,{{"token":"{}"}}"#, "x".repeat(MOST));
    let joining = (0..NUM_CLIENTS).map(async |_| {
        let mut websocket = WebSocket::open(server.addr).await;
        websocket.send(&wish).await;
        assert!(websocket.text().await.starts_with("40/a,{"));
        websocket
    });
    let watching = async {
        await_backlog(server.addr, "much waits", |bytes| bytes > TOTAL / 2).await;
        let waiting = settled_backlog(server.addr).await;
        gate.add_permits(1);
        waiting
    };
    let (websockets, waiting) = tokio::join!(join_all(joining), watching);
    assert!(waiting < TOTAL + NUM_CLIENTS * 2048, "{waiting}");
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
    drop(websockets);
}

#[actix_rt::test]
async fn what_is_spent_on_messages_however_small_counts() {
    let gateway = Gateway::new("/a").on("never", |_, _: Event| std::future::pending::<()>());
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    // Most of them are not even looked at. No more than a portion of 64 KiB is read; what is made of it is larger.
    let events = frame(0x81, br#"42/a,["never"]"#).repeat(4000);
    websocket.write(&events).await;
    await_backlog(server.addr, "they wait", |bytes| bytes > 64 * 1024).await;
}

#[actix_rt::test]
async fn events_that_wait_for_handlers_have_no_more_together_than_is_said_and_all_are_handled() {
    let gate = Arc::new(Semaphore::new(0));
    let num_handled = Arc::new(AtomicUsize::new(0));
    let gateway = {
        let (gate, num_handled) = (Arc::clone(&gate), Arc::clone(&num_handled));
        Gateway::new("/a").on("slow", move |_: SocketRef, Arg(_): Arg<String>| {
            let (gate, num_handled) = (Arc::clone(&gate), Arc::clone(&num_handled));
            async move {
                drop(gate.acquire().await);
                num_handled.fetch_add(1, Relaxed);
            }
        })
    };
    const TOTAL: usize = 10_000_000;
    const EVENT: usize = 50_000;
    const NUM_EVENTS: usize = 30;
    let change = |config: &mut Config| {
        config.engine.max_backlog = Some(2_000_000);
        config.engine.max_total_backlog = Some(TOTAL);
    };
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let event = format!(r#"42/a,["slow","{}"]"#, "x".repeat(EVENT));
    let mut senders = Vec::new();
    for _ in 0..NUM_CLIENTS {
        let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
        let event = event.clone();
        senders.push(actix_rt::spawn(async move {
            for _ in 0..NUM_EVENTS {
                websocket.send(&event).await;
            }
            websocket
        }));
    }
    // Each might have a mebibyte waiting.
    await_backlog(server.addr, "much waits", |bytes| bytes > TOTAL / 2).await;
    let waiting = settled_backlog(server.addr).await;
    // The last of each was begun when there was still room.
    assert!(waiting < TOTAL + NUM_CLIENTS * EVENT, "{waiting}");
    gate.add_permits(1);
    let websockets = join_all(senders).await;
    within("all are handled", async {
        while num_handled.load(Relaxed) < NUM_CLIENTS * NUM_EVENTS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.num_connections().await, NUM_CLIENTS as u64);
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
    drop(websockets);
}

/// Makes so many times 100,000 bytes wait for a client, polls, and reads no more than how the answer begins.
async fn begin_to_read(server: &TestServer, num: usize) -> (Poller, Pending) {
    let poller = poller(server.addr).await;
    poller.ok(&format!(r#"42/a,1["flood",{num}]"#)).await;
    await_backlog(server.addr, "much waits", |bytes| bytes > num * 100_000).await;
    let poll = request("GET", &poller.target, &[], b"");
    let mut pending = Pending::send(server.addr, &poll).await;
    let mut begin = [0; 8];
    within("an answer", pending.stream.read_exact(&mut begin))
        .await
        .unwrap();
    assert_eq!(&begin, b"HTTP/1.1");
    (poller, pending)
}

#[actix_rt::test]
async fn a_client_polls_again_when_it_has_all_of_the_answer_before() {
    let server = TestServer::of(|_| {}, |app| app.gateway(flooding(Gateway::new("/a"))));
    // More than the kernel takes.
    let (poller, mut pending) = begin_to_read(&server, 75).await;
    assert_eq!(poller.get().await.status, 400);
    poller.assert_gone().await;
    // What it has been promised is on its way all the same.
    let mut rest = vec![0; 7_500_000];
    within("the rest", pending.stream.read_exact(&mut rest))
        .await
        .unwrap();
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

#[actix_rt::test]
async fn an_answer_that_is_not_read_breaks_off_when_less_is_left() {
    let change = |config: &mut Config| {
        config.engine.max_backlog = Some(8_000_000);
        config.engine.max_total_backlog = Some(20_000_000);
    };
    let server = TestServer::of(change, |app| app.gateway(flooding(Gateway::new("/a"))));
    let (_slow, mut pending) = begin_to_read(&server, 75).await;
    let other = poller(server.addr).await;
    other.ok(r#"42/a,1["flood",60]"#).await;
    await_backlog(server.addr, "more waits", |bytes| bytes > 13_500_000).await;
    let mut rest = Vec::new();
    // However it ends.
    _ = within("the end", pending.stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 7_500_000, "{}", rest.len());
    assert_eq!(num_met(server.addr, "total_backlog").await, 1);
    await_backlog(server.addr, "less waits", |bytes| bytes < 6_100_000).await;
    assert!(other.payload().await.ends_with("43/a,1[]"));
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

#[actix_rt::test]
async fn events_of_clients_that_have_left_count_until_they_are_handled() {
    let gate = Arc::new(Semaphore::new(0));
    let gateway = {
        let gate = Arc::clone(&gate);
        Gateway::new("/a").on("slow", move |_: SocketRef, Arg(_): Arg<String>| {
            let gate = Arc::clone(&gate);
            async move { drop(gate.acquire().await) }
        })
    };
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    let event = format!(r#"42/a,["slow","{}"]"#, "x".repeat(MOST));
    for _ in 0..8 {
        websocket.send(&event).await;
    }
    // The one that is handled included; in steps of a KiB.
    let waiting = 8 * MOST - 1024;
    await_backlog(server.addr, "they wait", |bytes| bytes > waiting).await;
    drop(websocket);
    server.await_connections(0).await;
    let left = backlog_bytes(server.addr).await;
    assert!((waiting..waiting + MOST).contains(&left), "{left}");
    gate.add_permits(1);
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

#[actix_rt::test]
async fn a_body_counts_while_its_session_is_not_read_from() {
    let change = |config: &mut Config| config.engine.max_backlog = Some(1_000_000);
    let server = TestServer::of(change, |app| app.gateway(flooding(Gateway::new("/a"))));
    let poller = poller(server.addr).await;
    // More than half of what may wait: it is not read from before it has polled.
    poller.ok(r#"42/a,["flood",6]"#).await;
    await_backlog(server.addr, "much waits", |bytes| bytes > 600_000).await;
    let body = format!(r#"42/a,["none","{}"]"#, "x".repeat(MOST));
    let whole = request("POST", &poller.target, &[], body.as_bytes());
    let post = Pending::send(server.addr, &whole).await;
    await_backlog(server.addr, "the body waits", |bytes| {
        bytes > 600_000 + MOST
    })
    .await;
    poller.payload().await;
    assert_eq!(post.answer().await.status, 200);
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
}

/// A bug: they were counted there, and none was refused.
#[actix_rt::test]
async fn bodies_that_come_by_way_of_another_instance_have_no_more_together_than_is_said() {
    let redis = RedisServer::start();
    static GATE: Semaphore = Semaphore::const_new(0);
    let build = |app: App| {
        let gateway = Gateway::new("/a");
        app.gateway(
            gateway.on("slow", |_: SocketRef, Arg(_): Arg<String>| async {
                drop(GATE.acquire().await);
            }),
        )
    };
    let server = TestServer::on_redis_as(&redis.url(), small, build);
    let other = TestServer::on_redis_with(&redis.url(), build);
    for server in [&server, &other] {
        await_redis(server, "up").await;
    }
    let pollers = pollers(server.addr).await;
    let body = format!(r#"42/a,["slow","{}"]"#, "x".repeat(MOST));
    let mut posts = Vec::new();
    for poller in &pollers {
        let whole = request("POST", &poller.target, &[], body.as_bytes());
        posts.push(Pending::send(other.addr, &whole).await);
    }
    within("the bodies", async {
        let num_known = async || {
            let num_held = backlog_bytes(server.addr).await / MOST;
            num_met(server.addr, "total_backlog").await as usize + num_held
        };
        while num_known().await < NUM_CLIENTS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One more may come while another becomes an event, and counts as neither.
    let most = TOTAL + 2 * MOST;
    let held = backlog_bytes(server.addr).await;
    assert!(held <= most, "{held} of {most}");
    GATE.add_permits(1);
    let answers = join_all(
        posts
            .into_iter()
            .map(async |post| post.answer().await.status),
    )
    .await;
    let num = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(num(200) + num(503), NUM_CLIENTS, "{answers:?}");
    assert_eq!(num(503) as u64, num_met(server.addr, "total_backlog").await);
    assert_eq!(server.num_connections().await, num(200) as u64);
    drop(pollers);
}

#[actix_rt::test]
async fn small_events_count_with_what_is_spent_on_them() {
    let gateway = Gateway::new("/a").on("never", |_, _: Event| std::future::pending::<()>());
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway));
    let poller = poller(server.addr).await;
    let events = [r#"42/a,["never"]"#; 50];
    poller.ok(&events.join("\u{1e}")).await;
    // In steps of a KiB.
    await_backlog(server.addr, "they wait", |bytes| bytes >= 12 * 1024).await;
}

/// Asks all when told to, and says how many answered in time.
fn asking(gateway: Gateway) -> Gateway {
    gateway.on(
        "ask",
        |socket: SocketRef, Arg(seconds): Arg<u64>| async move {
            let all = socket.broadcast();
            let asked = all.emit_with_ack::<String>("question", (), Duration::from_secs(seconds));
            let arrived = asked
                .await
                .unwrap_or_else(|err| err.into_arrived().unwrap());
            Ack(arrived.len())
        },
    )
}

/// Lets one client of `server` ask many of `other`, who answer with much, all but the last; what waits at `server` is bounded
/// meanwhile. Returns who asked and who was asked, with what the latter owes.
async fn answer_with_much(
    server: &TestServer,
    other: &TestServer,
    seconds: u64,
) -> (WebSocket, Vec<(WebSocket, String)>) {
    let mut asked = Vec::new();
    for _ in 0..NUM_CLIENTS {
        asked.push(WebSocket::join(other.addr, "/a", "").await.0);
    }
    let (mut asking, _) = WebSocket::join(server.addr, "/a", "").await;
    asking.send(&format!(r#"42/a,7["ask",{seconds}]"#)).await;
    let mut owing = Vec::new();
    for mut websocket in asked {
        let question = websocket.text().await;
        let id = question.strip_prefix("42/a,").unwrap();
        let id = id.strip_suffix(r#"["question"]"#).unwrap().to_owned();
        owing.push((websocket, id));
    }
    let answer = "x".repeat(MOST);
    let (_, others) = owing.split_last_mut().unwrap();
    for (websocket, id) in others {
        websocket.send(&format!(r#"43/a,{id}["{answer}"]"#)).await;
    }
    await_backlog(server.addr, "much waits", |bytes| bytes > TOTAL / 2).await;
    let waiting = settled_backlog(server.addr).await;
    assert!(waiting < TOTAL, "{waiting}");
    (asking, owing)
}

/// Awaits how many answers arrived: as many as there was room for.
async fn assert_some_arrived(asking: &mut WebSocket) -> usize {
    let ack = asking.text().await;
    let num = ack
        .strip_prefix("43/a,7[")
        .and_then(|ack| ack.strip_suffix("]"));
    let num: usize = num.unwrap_or_else(|| panic!("{ack}")).parse().unwrap();
    assert!((TOTAL / MOST / 2..=TOTAL / MOST).contains(&num), "{num}");
    num
}

/// A bug: what clients acknowledged was counted nowhere while those who asked many waited for the last.
#[actix_rt::test]
async fn acks_count_while_the_last_of_those_who_were_asked_is_waited_for() {
    let server = TestServer::of(small, |app| app.gateway(asking(Gateway::new("/a"))));
    let (mut asking, mut owing) = answer_with_much(&server, &server, 60).await;
    let (last, id) = owing.last_mut().unwrap();
    last.send(&format!(r#"43/a,{id}["x"]"#)).await;
    assert_some_arrived(&mut asking).await;
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
    assert_eq!(server.num_connections().await, NUM_CLIENTS as u64 + 1);
}

/// A bug: they were counted nowhere if the clients are another instance's.
#[actix_rt::test]
async fn acks_of_clients_of_other_instances_count_too() {
    let redis = RedisServer::start();
    let build = |app: App| app.gateway(asking(Gateway::new("/a")));
    let server = TestServer::on_redis_as(&redis.url(), small, build);
    let other = TestServer::on_redis_with(&redis.url(), build);
    for server in [&server, &other] {
        await_redis(server, "up").await;
    }
    await_peers(&server, &[other.instance().await]).await;
    let (mut asking, mut owing) = answer_with_much(&server, &other, 600).await;
    // A bug: whoever asked waited for those that were dropped, as long as it would wait for any.
    let (last, id) = owing.last_mut().unwrap();
    last.send(&format!(r#"43/a,{id}["x"]"#)).await;
    let num = assert_some_arrived(&mut asking).await;
    await_backlog(server.addr, "nothing waits", |bytes| bytes == 0).await;
    let num_dropped = num_met(server.addr, "total_backlog").await;
    assert_eq!(num as u64 + num_dropped, owing.len() as u64);
}
