//! Churn: clients that connect, join, emit and vanish in every way over both transports, and of which nothing stays.
//!
//! Some seconds of it in the suite. `make soak` does it for an hour (`SOAK_SECONDS`) with the release build and tells how it goes:
//!
//! ```text
//! soak:   600 s   58213 sessions   120 open   RSS 21 MiB   147 files
//! ```
//! The rate is bounded: so many clients at a time, each with its pauses. The course of each is drawn from a seed, which a failure
//! names and `SOAK_SEED` repeats.
//!
//! In some seconds these are too few to see a leak in the memory of the process. So thousands more come and vanish at once, as fast as they
//! can, and half a session that each left behind would be seen.

#![allow(clippy::print_stderr, reason = "the figures are what one runs it for")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    http::{self, await_connections, await_no_backlog, num_connections, request},
    program::{ONE_ARENA, Program},
    websocket::{WebSocket, frame, upgrade_request},
    within,
};

/// Clients at a time.
const NUM_CLIENTS: u64 = 100;

/// Longest pause of a client between two sessions.
const MAX_PAUSE_MS: u64 = 1500;

/// What may be taken more after the churn than after its first part: what the allocator keeps differs, and a leak of 4 KiB for each
/// session would be 400 MiB in an hour.
const SLACK_MIB: u64 = 8;

/// Dynamic namespaces at a time: more than clients are in. A place that is not given back is missed in the end.
const NUM_DYNAMIC: usize = 400;

/// Sessions that vanish as fast as they can, and how many of them at a time.
const NUM_VANISHING: usize = 4000;
const NUM_VANISHING_AT_A_TIME: usize = 50;

/// What a session takes at least.
const SESSION_BYTES: usize = 4096;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var_os(name);
    value.map_or(default, |value| value.to_str().unwrap().parse().unwrap())
}

/// Random numbers that come again from the same seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// A connection, as far as it was read. Whatever goes wrong on it is the churn's own doing, or found at the end.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn connect(addr: SocketAddr, bytes: &[u8]) -> Option<Self> {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        Some(Self {
            stream,
            read: Vec::new(),
        })
    }

    async fn send(&mut self, packet: &str) -> Option<()> {
        let frame = frame(0x81, packet.as_bytes());
        self.stream.write_all(&frame).await.ok()
    }

    /// Reads until `text` has come.
    async fn await_text(&mut self, text: &str) -> Option<()> {
        let found = |read: &[u8]| read.windows(text.len()).any(|part| part == text.as_bytes());
        while !found(&self.read) {
            if self.read.len() > 64 * 1024 {
                self.read.drain(..32 * 1024);
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    }

    /// Vanishes by a reset.
    fn reset(self) {
        _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// A session on polling; answers that are refused mean that it is over.
struct Polling {
    addr: SocketAddr,
    target: String,
    sid: String,
}

impl Polling {
    async fn open(addr: SocketAddr) -> Option<Self> {
        let target = "/socket.io/?EIO=4&transport=polling";
        let answer = http::get(addr, target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let sid = answer.text().split('"').nth(3)?.to_owned();
        Some(Self {
            addr,
            target: format!("{target}&sid={sid}"),
            sid,
        })
    }

    async fn post(&self, body: &str) -> Option<()> {
        let answer = http::post(self.addr, &self.target, body.as_bytes()).await;
        (answer.status == 200).then_some(())
    }

    async fn get(&self) -> Option<String> {
        let answer = http::get(self.addr, &self.target).await;
        (answer.status == 200).then(|| answer.text().to_owned())
    }

    async fn await_text(&self, text: &str) -> Option<()> {
        while !self.get().await?.contains(text) {}
        Some(())
    }

    /// Begins a request and leaves it.
    async fn abandon(&self, method: &str, length: usize) -> Option<()> {
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: hub\r\nContent-Length: {length}\r\n\r\n",
            self.target
        );
        Client::connect(self.addr, head.as_bytes()).await.map(drop)
    }
}

/// What a client does once it has joined.
fn doings(dice: &mut Dice) -> Vec<String> {
    let num = 1 + dice.below(6);
    (0..num)
        .map(|_| {
            let room = dice.below(50);
            match dice.below(7) {
                0 => format!(r#"42["join","room {room}"]"#),
                1 => format!(r#"42["leave","room {room}"]"#),
                2 => format!(
                    r#"42["say","room {room}","{}"]"#,
                    "x".repeat(dice.below(2000) as usize)
                ),
                3 => format!(r#"42["join-many","of {room}, ",{}]"#, dice.below(100)),
                4 => r#"42["ask"]"#.to_owned(),
                5 => r#"421["slow",1]"#.to_owned(),
                _ => format!(r#"42["volatile-flood","room {room}",10,500]"#),
            }
        })
        .collect()
}

/// Joins a dynamic namespace, its own or one that others know, too, and stays there, leaves it, or does not wait for the answer.
async fn in_a_dynamic_namespace(client: &mut Client, dice: &mut Dice) -> Option<()> {
    let num_names = if dice.below(2) == 0 { 10 } else { 1 << 30 };
    let name = format!("/dynamic-{}", dice.below(num_names));
    client.send(&format!("40{name},")).await?;
    let course = dice.below(4);
    if course == 0 {
        return Some(());
    }
    // It may be refused, if there are too many.
    client.await_text(&format!("{name},{{")).await?;
    client.send(&format!(r#"42{name},["join","room"]"#)).await?;
    if course == 1 {
        client.send(&format!("41{name},")).await?;
    }
    Some(())
}

/// One session over WebSocket, and one of the ways to end it.
async fn over_websocket(addr: SocketAddr, dice: &mut Dice) -> Option<()> {
    let target = "/socket.io/?EIO=4&transport=websocket";
    let mut client = Client::connect(addr, &upgrade_request(target, &[])).await?;
    client.await_text("\"sid\"").await?;
    client.send("40").await?;
    client.await_text("40{").await?;
    for doing in doings(dice) {
        client.send(&doing).await?;
    }
    client.send(r#"427["echo",7]"#).await?;
    client.await_text("437[7]").await?;
    for _ in 0..dice.below(4) {
        in_a_dynamic_namespace(&mut client, dice).await?;
    }
    end_of_websocket(client, dice).await
}

async fn end_of_websocket(mut client: Client, dice: &mut Dice) -> Option<()> {
    match dice.below(11) {
        0 => drop(client),
        1 => client.reset(),
        2 => client
            .stream
            .write_all(&frame(0x88, &[3, 232]))
            .await
            .ok()?,
        3 => client.send("1").await?,
        4 => client.send("41").await?,
        5 => client.send("nonsense").await?,
        6 => client.send(r#"42["kick"]"#).await?,
        7 => {
            client.send(r#"42["kick-all"]"#).await?;
            while client.stream.read_buf(&mut client.read).await.ok()? > 0 {
                client.read.clear();
            }
        }
        // With something unfinished: half a frame, an attachment, an ack that is awaited, a handler that runs.
        8 => {
            let half = frame(0x81, &[b'x'; 5000]);
            client.stream.write_all(&half[..2500]).await.ok()?;
        }
        9 => {
            client
                .send(r#"451-["echo",{"_placeholder":true,"num":0}]"#)
                .await?
        }
        // Silence until the ping time-out.
        _ => {
            while client.stream.read_buf(&mut client.read).await.ok()? > 0 {
                client.read.clear();
            }
        }
    }
    Some(())
}

/// One session over polling, and one of the ways to end it.
async fn over_polling(addr: SocketAddr, dice: &mut Dice) -> Option<()> {
    let polling = Polling::open(addr).await?;
    polling.post("40").await?;
    polling.await_text("40{").await?;
    polling.post(&doings(dice).join("\u{1e}")).await?;
    polling.post(r#"427["echo",7]"#).await?;
    polling.await_text("437[7]").await?;
    match dice.below(9) {
        0 => polling.post("1").await?,
        1 => polling.post("41").await?,
        2 => polling.post("nonsense").await?,
        3 => polling.post(r#"42["kick-all"]"#).await?,
        4 => polling.abandon("GET", 0).await?,
        5 => polling.abandon("POST", 5000).await?,
        6 => {
            _ = tokio::join!(polling.get(), polling.get());
        }
        // An upgrade that is begun, or finished.
        7 => {
            let mut client = upgrade(&polling).await?;
            if dice.below(2) == 0 {
                client.send("5").await?;
                client.send(r#"428["echo",8]"#).await?;
                client.await_text("438[8]").await?;
                end_of_websocket(client, dice).await?;
            }
        }
        // Silence.
        _ => {}
    }
    Some(())
}

async fn upgrade(polling: &Polling) -> Option<Client> {
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={}", polling.sid);
    let mut client = Client::connect(polling.addr, &upgrade_request(&target, &[])).await?;
    client.send("2probe").await?;
    client.await_text("3probe").await?;
    Some(client)
}

/// Connections that never become a session.
async fn never_a_session(addr: SocketAddr, dice: &mut Dice) -> Option<()> {
    let bytes: &[u8] = match dice.below(4) {
        0 => b"",
        1 => b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nUpgrade: ",
        2 => b"\x16\x03\x01 this is TLS",
        _ => &request(
            "GET",
            "/socket.io/?EIO=3&transport=polling",
            &["Connection: close"],
            b"",
        ),
    };
    let mut client = Client::connect(addr, bytes).await?;
    match dice.below(3) {
        0 => drop(client),
        1 => client.reset(),
        // Until the server has had enough.
        _ => while client.stream.read_buf(&mut client.read).await.ok()? > 0 {},
    }
    Some(())
}

/// What all clients share.
struct Churn {
    addr: SocketAddr,
    seed: u64,
    num_sessions: AtomicU64,
    is_over: AtomicBool,
}

impl Churn {
    async fn client(self: Arc<Self>, n: u64) {
        let mut dice = Dice(self.seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        while !self.is_over.load(Ordering::Relaxed) {
            let session = async {
                match dice.below(10) {
                    0 => never_a_session(self.addr, &mut dice).await,
                    1..=4 => over_polling(self.addr, &mut dice).await,
                    _ => over_websocket(self.addr, &mut dice).await,
                }
            };
            // An end that comes earlier than a course expects is one of the ways; one that does not come is a fault.
            let what = format!("client {n} of SOAK_SEED={}", self.seed);
            _ = within(&what, session).await;
            self.num_sessions.fetch_add(1, Ordering::Relaxed);
            let pause = Duration::from_millis(dice.below(MAX_PAUSE_MS));
            tokio::time::sleep(pause).await;
        }
    }
}

/// Lets clients come and go for so long, and returns when the last has left and nothing of them is there.
async fn churn(program: &Program, seed: u64, time: Duration) -> u64 {
    let addr = program.addr;
    let churn = Arc::new(Churn {
        addr,
        seed,
        num_sessions: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    });
    let clients: Vec<_> = (0..NUM_CLIENTS)
        .map(|n| actix_rt::spawn(Arc::clone(&churn).client(n)))
        .collect();
    let began = Instant::now();
    let step = (time / 20).clamp(Duration::from_secs(1), Duration::from_secs(30));
    while began.elapsed() < time {
        tokio::time::sleep(step.min(time.saturating_sub(began.elapsed()))).await;
        eprintln!(
            "soak: {:5} s {:8} sessions {:5} open   RSS {} MiB {:5} files",
            began.elapsed().as_secs(),
            churn.num_sessions.load(Ordering::Relaxed),
            num_connections(addr).await,
            program.memory_mib(),
            program.num_open(),
        );
    }
    churn.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    await_connections(addr, 0).await;
    await_no_backlog(addr).await;
    churn.num_sessions.load(Ordering::Relaxed)
}

/// Returns the numbers of sockets and rooms besides those of whoever asks.
async fn left_in_the_hub(addr: SocketAddr) -> String {
    let mut client = WebSocket::open(addr).await;
    client.send("40").await;
    client.message().await;
    client.send(r#"427["count"]"#).await;
    client.message().await
}

/// Asserts that every dynamic namespace that there may be is to be had.
async fn assert_all_dynamic_namespaces_are_free(addr: SocketAddr) {
    // A client may be in a hundred.
    const NUM_EACH: usize = 80;
    let clients = (0..NUM_DYNAMIC / NUM_EACH).map(async |client| {
        let mut websocket = WebSocket::open(addr).await;
        for n in 0..NUM_EACH {
            websocket
                .send(&format!("40/dynamic-last-{client}-{n},"))
                .await;
        }
        for _ in 0..NUM_EACH {
            let answer = websocket.message().await;
            assert!(answer.starts_with("40/dynamic-last-"), "{answer}");
        }
        websocket
    });
    drop(join_all(clients).await);
    await_connections(addr, 0).await;
}

#[actix_rt::test]
async fn clients_that_come_and_go_in_every_way_leave_nothing_behind() {
    let time = Duration::from_secs(setting("SOAK_SECONDS", 16));
    let seed = setting("SOAK_SEED", u64::from(std::process::id()));
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("PING_INTERVAL", "1000"),
        ("PING_TIMEOUT", "1000"),
        ("UPGRADE_TIMEOUT", "1000"),
        ("CONNECT_TIMEOUT", "2000"),
        ("HEAD_TIMEOUT", "2000"),
        ("BODY_TIMEOUT", "2000"),
        // A place that is not given back is missed in the end.
        ("MAX_CONNECTIONS_PER_ADDRESS", "1000"),
        ("MAX_DYNAMIC_NAMESPACES", &NUM_DYNAMIC.to_string()),
    ];
    let program = Program::start_example("churn", dir.path(), &settings);
    let addr = program.addr;
    let num_first = churn(&program, seed, time / 4).await;
    let settled = program.memory_mib();
    let num_second = churn(&program, !seed, time * 3 / 4).await;
    assert_eq!(left_in_the_hub(addr).await, "437[[1,1]]");
    await_connections(addr, 0).await;
    assert_all_dynamic_namespaces_are_free(addr).await;
    let kept = program.memory_mib();
    eprintln!(
        "soak: RSS {settled} MiB after {num_first} sessions, {kept} MiB after {num_second} more; {}",
        http::get(addr, "/readyz").await.json()["limits"],
    );
    assert!(
        kept <= settled + SLACK_MIB,
        "{settled} MiB, then {kept} MiB"
    );
    // Of the connections that are not sessions, those that idle may stay for a while.
    within("connections that are over", async {
        while program.num_open() > 64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    program.signal("-TERM");
    let (status, log) = program.wait();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("; 0 clients were told"), "{log}");
    for fault in ["WARN", "ERROR", "cut off", "panicked"] {
        assert!(!log.contains(fault), "{fault}: {log}");
    }
}

/// One session that joins, and vanishes while it waits to be let into a namespace of its own, or once it is there.
async fn vanishing(addr: SocketAddr, n: usize) -> Option<()> {
    let target = "/socket.io/?EIO=4&transport=websocket";
    let mut client = Client::connect(addr, &upgrade_request(target, &[])).await?;
    client.send("40").await?;
    client.await_text("40{").await?;
    client.send(&format!(r#"42["join","room {n}"]"#)).await?;
    client.send(&format!("40/dynamic-{n},")).await?;
    if n.is_multiple_of(2) {
        client.await_text(&format!("40/dynamic-{n},{{")).await?;
    }
    client.reset();
    Some(())
}

/// Lets so many vanish, and returns when nothing of them is there.
async fn vanish(addr: SocketAddr, num_sessions: usize) {
    let clients = (0..NUM_VANISHING_AT_A_TIME).map(async |client| {
        for n in (client..num_sessions).step_by(NUM_VANISHING_AT_A_TIME) {
            let session = within("a session that vanishes", vanishing(addr, n)).await;
            assert!(session.is_some(), "it must be served until it vanishes");
        }
    });
    join_all(clients).await;
    await_connections(addr, 0).await;
    await_no_backlog(addr).await;
    assert_eq!(left_in_the_hub(addr).await, "437[[1,1]]");
    await_connections(addr, 0).await;
}

#[actix_rt::test]
async fn thousands_that_vanish_take_all_of_their_memory_along() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start_example("churn", dir.path(), &[ONE_ARENA]);
    vanish(program.addr, NUM_VANISHING / 4).await;
    let settled = program.memory_mib();
    vanish(program.addr, NUM_VANISHING).await;
    let kept = program.memory_mib();
    let bound = (NUM_VANISHING * SESSION_BYTES / 2) >> 20;
    eprintln!("soak: RSS {settled} MiB, {kept} MiB after {NUM_VANISHING} sessions that vanished");
    assert!(
        kept <= settled + bound as u64,
        "{settled} MiB, then {kept} MiB, {bound} more allowed"
    );
}
