//! Everything that Redis can do to two instances, under a steady stream of numbered events from a client of each.
//!
//! In every case the same is checked, see [`Trial::end`]: each event comes back to its own instance's client at once; what the other
//! instance's client receives is in order, without doubles; and each event that it misses was sent while an instance
//! said at `/readyz` that Redis was not up, or between the fault and that moment. Source: the README, "When Redis fails".

use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_rt::task::JoinHandle;
use serde_json::{Value, json};
use sockhop::{
    app::App,
    gateways::{Event, Gateway, SocketRef},
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    cluster::await_redis,
    support::{
        http::{self, post_json},
        program::Program,
        redis_server::RedisServer,
        server::TestServer,
        websocket::WebSocket,
        within,
    },
};

/// Time between two events of one publisher.
const PACE: Duration = Duration::from_millis(10);
/// How long an event may take to its own instance's clients. Far below what the bridge waits for Redis, far above what
/// a busy machine takes.
const LOCAL_LIMIT: Duration = Duration::from_secs(2);
/// How long the bridge may take to notice a fault.
const DETECTION: Duration = Duration::from_secs(6);
/// What the clocks of a test may be apart: an event is sent, and published a moment later.
const SLACK: Duration = Duration::from_millis(500);
/// How long the stream flows undisturbed before a fault and after it.
const CALM: Duration = Duration::from_secs(1);

fn stream_gateway(app: App) -> App {
    app.gateway(
        Gateway::new("/stream").on("n", |socket: SocketRef, event: Event| async move {
            socket
                .namespace_ref()
                .all()
                .emit_args(event.args().clone())
                .await
        }),
    )
}

/// A time in which an instance was without Redis, by what it said.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// When it last said that it had it.
    begin: Instant,
    end: Instant,
}

/// What one instance and its client saw.
#[derive(Debug, Default)]
struct Seen {
    sent: Vec<Instant>,
    slowest: Duration,
    others: Vec<usize>,
    windows: Vec<Window>,
    advice: Vec<String>,
}

type Shared<T> = Rc<RefCell<T>>;

/// Sends numbered events, each after the one before has come back, and notes what it hears.
async fn publish(
    mut client: WebSocket,
    me: &'static str,
    seen: Shared<Seen>,
    stop: Rc<Cell<bool>>,
) -> WebSocket {
    let mut number = 0;
    while !stop.get() {
        let event = format!(r#"42/stream,["n","{me}",{number}]"#);
        let sent = Instant::now();
        client.send(&event).await;
        seen.borrow_mut().sent.push(sent);
        loop {
            let text = client.text().await;
            if text == event {
                break;
            }
            note(&text, me, &seen);
        }
        let took = sent.elapsed();
        let slowest = seen.borrow().slowest;
        seen.borrow_mut().slowest = slowest.max(took);
        number += 1;
        actix_rt::time::sleep(PACE).await;
    }
    client
}

fn note(text: &str, me: &str, seen: &Shared<Seen>) {
    let event: Value = serde_json::from_str(text.strip_prefix("42/stream,").unwrap()).unwrap();
    assert_ne!(
        event[1], me,
        "an own event came twice, or out of order: {text}"
    );
    let number = event[2].as_u64().unwrap() as usize;
    seen.borrow_mut().others.push(number);
}

/// Reads `/readyz` again and again, and notes the times without Redis.
async fn watch(addr: std::net::SocketAddr, seen: Shared<Seen>, stop: Rc<Cell<bool>>) {
    let mut last_up = Instant::now();
    let mut num_links = 0;
    let mut was_up = false;
    while !stop.get() {
        let asked = Instant::now();
        let ready = http::get(addr, "/readyz").await.json();
        let is_up = ready["redis"]["state"] == "up";
        let links = ready["bridge"]["num_links"].as_u64().unwrap();
        if let Some(advice) = ready["redis"]["advice"].as_str() {
            let mut seen = seen.borrow_mut();
            if !seen.advice.iter().any(|known| known == advice) {
                seen.advice.push(advice.to_owned());
            }
        }
        // One that was over before it was seen has left a link behind.
        if is_up && (!was_up || links != num_links) {
            seen.borrow_mut().windows.push(Window {
                begin: last_up,
                end: Instant::now(),
            });
        }
        if is_up {
            (last_up, num_links) = (asked, links);
        }
        was_up = is_up;
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Side {
    server: TestServer,
    seen: Shared<Seen>,
    publisher: JoinHandle<WebSocket>,
    watcher: JoinHandle<()>,
    me: &'static str,
}

/// Two instances under a stream.
struct Trial {
    sides: [Side; 2],
    stop: Rc<Cell<bool>>,
    stop_watching: Rc<Cell<bool>>,
    faults: Vec<Instant>,
}

impl Trial {
    /// Starts both, whether Redis is there or not.
    async fn begin(url: &str) -> Self {
        let (stop, stop_watching) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let mut sides = Vec::new();
        for me in ["a", "b"] {
            let server = TestServer::on_redis_with(url, stream_gateway);
            let (client, _) = WebSocket::join(server.addr, "/stream", "").await;
            let seen = Shared::default();
            let publisher =
                actix_rt::spawn(publish(client, me, Rc::clone(&seen), Rc::clone(&stop)));
            let watcher = watch(server.addr, Rc::clone(&seen), Rc::clone(&stop_watching));
            sides.push(Side {
                server,
                seen,
                publisher,
                watcher: actix_rt::spawn(watcher),
                me,
            });
        }
        let sides = sides.try_into().unwrap_or_else(|_| panic!("two sides"));
        Self {
            sides,
            stop,
            stop_watching,
            faults: Vec::new(),
        }
    }

    /// Starts both on a sound Redis, and lets the stream flow.
    async fn on(redis: &RedisServer) -> Self {
        let trial = Self::begin(&redis.url()).await;
        trial.both("up").await;
        trial.calm().await;
        trial
    }

    async fn both(&self, state: &str) {
        for side in &self.sides {
            await_redis(&side.server, state).await;
        }
    }

    async fn links(&self, at_least: u64) {
        for side in &self.sides {
            within("a new link", async {
                loop {
                    let ready = http::get(side.server.addr, "/readyz").await.json();
                    if ready["bridge"]["num_links"].as_u64() >= Some(at_least) {
                        break;
                    }
                }
            })
            .await;
        }
    }

    async fn calm(&self) {
        actix_rt::time::sleep(CALM).await;
    }

    fn fault(&mut self) {
        self.faults.push(Instant::now());
    }

    /// Waits until both have Redis again and events cross undisturbed; then judges. Returns how many were lost that were sent
    /// after the fault.
    async fn end(self, advice: &[&str]) -> usize {
        self.both("up").await;
        // What an outage may cost is over when the queue's oldest have gone.
        self.calm().await;
        self.calm().await;
        self.stop.set(true);
        let mut clients = Vec::new();
        let [a, b] = self.sides;
        let mut servers = Vec::new();
        for side in [a, b] {
            let client = within("the last event", side.publisher).await.unwrap();
            servers.push(side.server);
            clients.push((client, side.seen, side.watcher, side.me));
        }
        let last: Vec<usize> = clients
            .iter()
            .map(|(_, seen, ..)| seen.borrow().sent.len() - 1)
            .collect();
        for (index, (client, seen, _, me)) in clients.iter_mut().enumerate() {
            let last_of_other = last[1 - index];
            within("the other's last event", async {
                while seen.borrow().others.last() != Some(&last_of_other) {
                    let text = client.text().await;
                    note(&text, me, seen);
                }
            })
            .await;
        }
        self.stop_watching.set(true);
        let mut seen = Vec::new();
        for (_, side, watcher, _) in clients {
            within("the last look", watcher).await.unwrap();
            seen.push(Rc::try_unwrap(side).unwrap().into_inner());
        }
        judge(&seen, &self.faults, advice)
    }
}

fn judge(seen: &[Seen], faults: &[Instant], advice: &[&str]) -> usize {
    let windows: Vec<Window> = seen
        .iter()
        .flat_map(|seen| &seen.windows)
        .copied()
        .collect();
    let is_covered = |sent: Instant| {
        windows.iter().any(|window| {
            let noticed =
                |fault: &&Instant| **fault <= window.begin && window.begin - **fault < DETECTION;
            let begin = faults
                .iter()
                .filter(noticed)
                .min()
                .copied()
                .unwrap_or(window.begin);
            (begin - SLACK..window.end + SLACK).contains(&sent)
        })
    };
    let mut num_lost = 0;
    for (publisher, receiver) in [(&seen[0], &seen[1]), (&seen[1], &seen[0])] {
        assert!(
            publisher.slowest < LOCAL_LIMIT,
            "a local event took {:?}",
            publisher.slowest
        );
        let heard = &receiver.others;
        for pair in heard.windows(2) {
            assert!(pair[0] < pair[1], "{} came after {}", pair[1], pair[0]);
        }
        for (number, sent) in publisher.sent.iter().enumerate() {
            if heard.binary_search(&number).is_err() {
                num_lost += usize::from(faults.first().is_none_or(|fault| sent >= fault));
                assert!(
                    is_covered(*sent),
                    "{number} of {} is lost, sent {:?} ago; faults {:?} ago; windows {:?}",
                    publisher.sent.len(),
                    sent.elapsed(),
                    faults.iter().map(Instant::elapsed).collect::<Vec<_>>(),
                    windows
                        .iter()
                        .map(|w| (w.begin.elapsed(), w.end.elapsed()))
                        .collect::<Vec<_>>()
                );
            }
        }
    }
    let given: Vec<&String> = seen.iter().flat_map(|seen| &seen.advice).collect();
    for words in advice {
        assert!(
            given.iter().any(|given| given.contains(words)),
            "{words:?} is not in {given:?}"
        );
    }
    num_lost
}

#[actix_rt::test]
async fn killed_and_restarted_empty() {
    let mut redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.kill();
    trial.both("down").await;
    trial.calm().await;
    redis.restart_on_same_port();
    trial.end(&["start Redis"]).await;
}

#[actix_rt::test]
async fn a_black_hole() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.freeze();
    trial.both("down").await;
    trial.calm().await;
    redis.thaw();
    trial.end(&["stopped or overloaded"]).await;
}

#[actix_rt::test]
async fn refused_at_the_start() {
    let mut redis = RedisServer::reserve();
    let mut trial = Trial::begin(&redis.url()).await;
    trial.fault();
    trial.both("down").await;
    trial.calm().await;
    redis.restart_on_same_port();
    trial.end(&["start Redis"]).await;
}

#[actix_rt::test]
async fn subscribers_are_killed() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    let killed = redis.command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    assert_eq!(killed, b":2\r\n");
    trial.links(2).await;
    trial.end(&["CLIENT KILL"]).await;
}

#[actix_rt::test]
async fn publishers_are_killed() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    // Those of the accounts are among them.
    let killed = redis.command(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
    assert!(killed.starts_with(b":"), "{killed:?}");
    trial.links(2).await;
    trial.end(&["CLIENT KILL"]).await;
}

#[actix_rt::test]
async fn an_output_buffer_runs_over() {
    let limit = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"];
    let redis = RedisServer::start_with(&limit);
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    let burst = vec![b'x'; 2 << 20];
    redis.command(&[b"PUBLISH", b"socket.io#/stream#", &burst]);
    trial.links(2).await;
    trial.end(&["client-output-buffer-limit"]).await;
}

#[actix_rt::test]
async fn demoted_to_a_replica_and_promoted_again() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.command(&[b"REPLICAOF", b"127.0.0.1", b"1"]);
    trial.both("down").await;
    let refused = post_json(
        trial.sides[0].server.addr,
        "/auth/register",
        r#"{"username":"x1234","password":"correct horse"}"#,
    )
    .await;
    assert_eq!(refused.status, 503, "-READONLY");
    redis.command(&[b"REPLICAOF", b"NO", b"ONE"]);
    trial.end(&["this is a replica"]).await;
}

#[actix_rt::test]
async fn full_memory_stops_accounts_but_no_event() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.command(&[b"CONFIG", b"SET", b"maxmemory", b"1"]);
    let answer = redis.command(&[b"SET", b"x", b"y"]);
    assert!(answer.starts_with(b"-OOM"), "{answer:?}");
    let register = r#"{"username":"x1234","password":"correct horse"}"#;
    let addr = trial.sides[0].server.addr;
    let refused = post_json(addr, "/auth/register", register).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (503, &json!("accounts_unavailable"))
    );
    trial.calm().await;
    redis.command(&[b"CONFIG", b"SET", b"maxmemory", b"0"]);
    assert_eq!(
        post_json(addr, "/auth/register", register).await.status,
        201
    );
    assert_eq!(trial.end(&[]).await, 0);
}

#[actix_rt::test]
async fn the_right_to_publish_is_taken_and_given_back() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.command(&[b"ACL", b"SETUSER", b"default", b"-publish"]);
    trial.both("down").await;
    trial.calm().await;
    redis.command(&[b"ACL", b"SETUSER", b"default", b"+publish"]);
    // They were heard all the while, and what they had to say has waited.
    assert_eq!(trial.end(&["the ACL rule is in the README"]).await, 0);
}

#[actix_rt::test]
async fn all_channels_are_taken_and_given_back() {
    let redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    trial.fault();
    redis.command(&[b"ACL", b"SETUSER", b"default", b"resetchannels"]);
    trial.both("down").await;
    trial.calm().await;
    redis.command(&[b"ACL", b"SETUSER", b"default", b"allchannels"]);
    trial.end(&["the ACL rule is in the README"]).await;
}

#[actix_rt::test]
async fn while_it_loads_its_data_events_cross_and_accounts_wait() {
    let mut redis = RedisServer::start();
    let mut trial = Trial::on(&redis).await;
    // So many that it loads for a minute, or until it is told to hurry.
    let fill = b"for i = 1, 30000 do redis.call('set', 'k' .. i, string.rep('x', 100)) end";
    redis.command(&[b"EVAL", fill, b"0"]);
    assert_eq!(redis.command(&[b"SAVE"]), b"+OK\r\n");
    trial.fault();
    redis.restart_loading(&[
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    trial.links(2).await;
    let answer = redis.command(&[b"GET", b"x"]);
    assert!(answer.starts_with(b"-LOADING"), "{answer:?}");
    let addr = trial.sides[0].server.addr;
    let register = r#"{"username":"x1234","password":"correct horse"}"#;
    assert_eq!(
        post_json(addr, "/auth/register", register).await.status,
        503
    );
    let heard = |trial: &Trial| trial.sides[0].seen.borrow().others.len();
    let before = heard(&trial);
    within("events cross while it loads", async {
        while heard(&trial) < before + 10 {
            actix_rt::time::sleep(PACE).await;
        }
    })
    .await;
    let answer = redis.command(&[b"GET", b"x"]);
    assert!(
        answer.starts_with(b"-LOADING"),
        "it was loaded too soon: {answer:?}"
    );
    // One that begins now gets the token key as soon as Redis gives it.
    let late = TestServer::on_redis(&redis.url());
    let hurry = redis.command(&[b"CONFIG", b"SET", b"key-load-delay", b"0"]);
    assert_eq!(hurry, b"+OK\r\n");
    await_redis(&late, "up").await;
    assert_eq!(
        post_json(addr, "/auth/register", register).await.status,
        201
    );
    trial.end(&[]).await;
}

#[actix_rt::test]
async fn the_log_says_once_what_is_wrong_and_what_to_do_and_what_it_cost() {
    let mut redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("REDIS_URL", &redis.url())]);
    let state = async |expected: &str| {
        within(expected, async {
            while http::get(program.addr, "/readyz").await.json()["redis"]["state"] != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    state("up").await;
    within("the token key", async {
        while http::get(program.addr, "/readyz").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    redis.kill();
    state("down").await;
    // Some attempts long.
    actix_rt::time::sleep(3 * CALM).await;
    redis.restart_on_same_port();
    state("up").await;
    program.signal("-TERM");
    let (_, log) = program.wait();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines(" unusable: connection lost"), 1, "{log}");
    assert_eq!(lines(" now: cannot connect: "), 1, "{log}");
    assert_eq!(
        lines("start Redis, or correct host and port in REDIS_URL"),
        1,
        "{log}"
    );
    assert_eq!(lines(" is back after "), 1, "{log}");
    assert_eq!(lines("; 0 events were dropped"), 1, "{log}");
    assert_eq!(lines("WARN"), 2, "{log}");
}

/// A stable address before Redis, as a balancer or a name is, that can be led elsewhere.
async fn balancer(target: Rc<Cell<u16>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    actix_rt::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let port = target.get();
            actix_rt::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Ends with either side.
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    port
}

#[actix_rt::test]
async fn a_failover_to_a_replica() {
    let mut primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let target = Rc::new(Cell::new(primary.port()));
    let port = balancer(Rc::clone(&target)).await;
    let mut trial = Trial::begin(&format!("redis://127.0.0.1:{port}")).await;
    trial.both("up").await;
    trial.calm().await;
    trial.fault();
    primary.kill();
    // The address leads there before it is promoted.
    target.set(replica.port());
    trial.both("down").await;
    within("it is found to be a replica", async {
        let is_told = |side: &Side| {
            side.seen
                .borrow()
                .advice
                .iter()
                .any(|advice| advice.contains("replica"))
        };
        while !trial.sides.iter().all(is_told) {
            actix_rt::time::sleep(PACE).await;
        }
    })
    .await;
    replica.command(&[b"REPLICAOF", b"NO", b"ONE"]);
    trial.end(&["this is a replica"]).await;
}

#[actix_rt::test]
async fn one_that_answers_loading_to_everything_is_waited_for() {
    let redis = RedisServer::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Rc::new(Cell::new(listener.local_addr().unwrap().port()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                use std::io::Read as _;
                let mut buf = [0; 4096];
                while matches!(stream.read(&mut buf), Ok(1..)) {
                    _ = stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n");
                }
            });
        }
    });
    let port = balancer(Rc::clone(&target)).await;
    let server = TestServer::on_redis(&format!("redis://127.0.0.1:{port}"));
    await_redis(&server, "down").await;
    let ready = http::get(server.addr, "/readyz").await.json();
    let told = &ready["redis"];
    assert!(
        told["reason"].as_str().unwrap().contains("LOADING"),
        "{told}"
    );
    assert!(
        told["advice"]
            .as_str()
            .unwrap()
            .contains("nothing is to be done"),
        "{told}"
    );
    target.set(redis.port());
    await_redis(&server, "up").await;
}
