//! Polling without sticky sessions: each request of a session lands on another instance than the one before. The rules are
//! those of `polling`. Source: wire.md 1.4; docs/sessions.md.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sockhop::{
    adapter::{
        kind::AdapterKind,
        sharded_channel::SubscriptionMode::{self, Dynamic, DynamicPrivate, Static},
    },
    config::Config,
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    cluster::{await_redis, pair_by, pair_of},
    limits::num_met,
    support::{
        http::{self, Answer, Pending, Poller},
        program::Program,
        redis_cluster::RedisCluster,
        redis_server::RedisServer,
        server::TestServer,
        websocket::WebSocket,
        within,
    },
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// A session of one instance, whose requests can be sent to any.
struct Session {
    sid: String,
}

impl Session {
    async fn open(addr: SocketAddr) -> Self {
        let sid = Poller::open(addr).await.sid;
        Self { sid }
    }

    fn target(&self) -> String {
        format!("{POLLING}&sid={}", self.sid)
    }

    async fn get(&self, addr: SocketAddr) -> Answer {
        http::get(addr, &self.target()).await
    }

    async fn post(&self, addr: SocketAddr, body: &[u8]) -> Answer {
        http::post(addr, &self.target(), body).await
    }
}

/// Joins `/`, each request at another of the two; everything that comes with it is read.
async fn join(session: &Session, one: &TestServer, two: &TestServer) {
    assert_eq!(session.post(two.addr, b"40").await.text(), "ok");
    let mark = br#"420["message-with-ack","joined"]"#;
    let mut all = session.get(one.addr).await.text().to_owned();
    assert!(all.starts_with(r#"40{"sid":""#), "{all}");
    assert_eq!(session.post(one.addr, mark).await.text(), "ok");
    while !all.ends_with(r#"430["joined"]"#) {
        all = session.get(two.addr).await.text().to_owned();
    }
}

async fn pair(redis: &RedisServer) -> (TestServer, TestServer) {
    pair_of(redis, |app| app).await
}

async fn sharded_pair(url: &str, mode: SubscriptionMode) -> (TestServer, TestServer) {
    pair_by(AdapterKind::Sharded(mode), url, |app| app).await
}

fn assert_unknown(response: &Answer) {
    assert_eq!(response.status, 400, "{response:?}");
    assert_eq!(response.json()["code"], 1, "{response:?}");
}

#[actix_rt::test]
async fn every_request_may_land_on_another_instance() {
    let redis = RedisServer::start();
    check_every_request(pair(&redis).await).await;
}

#[actix_rt::test]
async fn every_request_may_land_elsewhere_with_the_sharded_adapter() {
    let redis = RedisServer::start();
    for mode in [Static, Dynamic, DynamicPrivate] {
        check_every_request(sharded_pair(&redis.url(), mode).await).await;
    }
}

#[actix_rt::test]
async fn every_request_may_land_elsewhere_on_a_cluster() {
    let cluster = RedisCluster::start();
    // The names of the private channels are random: with each pair they are on other nodes.
    for node in [0, 1, 2, 0] {
        check_every_request(sharded_pair(&cluster.url_of(node), Dynamic).await).await;
    }
}

#[actix_rt::test]
async fn an_owner_that_is_gone_is_said_at_once_on_a_cluster() {
    let cluster = RedisCluster::start();
    for node in 0..3 {
        check_gone_owner(sharded_pair(&cluster.url_of(node), Dynamic).await).await;
    }
}

async fn check_every_request((one, two): (TestServer, TestServer)) {
    let session = Session::open(one.addr).await;
    join(&session, &one, &two).await;
    for n in 0..20 {
        let (here, there) = if n % 2 == 0 {
            (one.addr, two.addr)
        } else {
            (two.addr, one.addr)
        };
        let event = format!(r#"42{n}["message-with-ack",{n},"é"]"#);
        let (posted, got) = tokio::join!(session.post(here, event.as_bytes()), session.get(there));
        assert_eq!(posted.text(), "ok");
        assert_eq!(posted.header("content-type"), Some("text/html"));
        assert_eq!(got.text(), format!(r#"43{n}[{n},"é"]"#));
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }
    // Binary, and many packets in one payload.
    let body =
        "451-[\"message\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA==\u{1e}42[\"message\",2]";
    let (posted, got) = tokio::join!(
        session.post(two.addr, body.as_bytes()),
        session.get(two.addr)
    );
    assert_eq!(posted.text(), "ok");
    let mut all = got.text().to_owned();
    while !all.contains(",2]") {
        all = format!("{all}\u{1e}{}", session.get(one.addr).await.text());
    }
    assert_eq!(
        all,
        "451-[\"message-back\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA==\u{1e}42[\"message-back\",2]"
    );
}

#[actix_rt::test]
async fn a_second_get_elsewhere_closes_the_session() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    for (first, second) in [
        (one.addr, two.addr),
        (two.addr, one.addr),
        (two.addr, two.addr),
    ] {
        let session = Session::open(one.addr).await;
        // Whichever arrives first waits for the other.
        let (a, b) = tokio::join!(session.get(first), session.get(second));
        let (closed, refused) = if a.status == 200 { (a, b) } else { (b, a) };
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(closed.status, 200, "{closed:?}");
        assert_eq!(closed.text(), "1");
        assert_unknown(&session.get(two.addr).await);
    }
    one.await_connections(0).await;
}

#[actix_rt::test]
async fn a_client_that_goes_away_elsewhere_ends_its_session() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let session = Session::open(one.addr).await;
    one.await_connections(1).await;
    let pending = Pending::send(two.addr, &http::request("GET", &session.target(), &[], b"")).await;
    // It is parked when a second one is refused; that would end the session, too, so look at the owner's side alone.
    drop(pending);
    one.await_connections(0).await;
    assert_unknown(&session.get(two.addr).await);
}

#[actix_rt::test]
async fn the_protocols_errors_cross_as_they_are() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let session = Session::open(one.addr).await;

    let too_large = vec![b'4'; 1_000_001];
    assert_eq!(session.post(two.addr, &too_large).await.status, 413);
    assert_eq!(
        session.post(two.addr, b"40").await.status,
        200,
        "the session survives"
    );
    assert!(session.get(two.addr).await.text().starts_with("40"));

    let other_revision = format!("/socket.io/?EIO=3&transport=polling&sid={}", session.sid);
    let refused = http::get(two.addr, &other_revision).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &3.into()));

    let mut on_websocket =
        WebSocket::connect(one.addr, "/socket.io/?EIO=4&transport=websocket").await;
    let open = on_websocket.text().await;
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    let of_websocket = Session {
        sid: open["sid"].as_str().unwrap().to_owned(),
    };
    let refused = of_websocket.get(two.addr).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &3.into()));

    let binary = ["Content-Type: application/octet-stream"];
    let refused = http::send(two.addr, "POST", &session.target(), &binary, b"4x").await;
    assert_eq!((refused.status, refused.text()), (400, ""));
    assert_unknown(&session.get(two.addr).await);

    let bad = Session::open(one.addr).await;
    let (posted, got) = tokio::join!(bad.post(two.addr, b"abc"), bad.get(two.addr));
    assert!(posted.text() == "ok" || posted.status == 400, "{posted:?}");
    assert!(got.text() == "1" || got.status == 400, "{got:?}");
    assert_unknown(&bad.get(two.addr).await);

    let closing = Session::open(one.addr).await;
    assert_eq!(closing.post(two.addr, b"1").await.text(), "ok");
    assert_eq!(closing.get(two.addr).await.text(), "6");
    assert_unknown(&closing.get(two.addr).await);
}

#[actix_rt::test]
async fn an_owner_that_is_gone_is_said_at_once() {
    let redis = RedisServer::start();
    check_gone_owner(pair(&redis).await).await;
}

async fn check_gone_owner((one, two): (TestServer, TestServer)) {
    let session = Session::open(one.addr).await;
    let foreign = Session {
        sid: "Ab3dE6gH0123456789012345678901".to_owned(),
    };
    assert_unknown(&foreign.get(two.addr).await);
    assert_unknown(&foreign.post(two.addr, b"40").await);
    one.stop();
    assert_unknown(&session.get(two.addr).await);
}

#[actix_rt::test]
async fn an_owner_that_stops_tells_clients_whose_polls_are_elsewhere() {
    let redis = RedisServer::start();
    let (mut one, two) = pair(&redis).await;
    let session = Session::open(one.addr).await;
    join(&session, &one, &two).await;
    let polling = session.get(two.addr);
    let stopping = async {
        // Its ping interval is far longer than this test waits: only the end can answer the poll.
        one.begin_stop();
    };
    let (got, ()) = within("the close", async { tokio::join!(polling, stopping) }).await;
    let text = got.text();
    assert!(text.ends_with('1') || got.status == 400, "{got:?}");
}

#[actix_rt::test]
async fn when_redis_goes_away_polls_elsewhere_fail_and_their_sessions_end() {
    let mut redis = RedisServer::start();
    // A poll that was still on the way ends nothing at its owner: then the heartbeat does.
    let quick = |config: &mut Config| {
        config.engine.ping_interval = Duration::from_secs(3);
        config.engine.ping_timeout = Duration::from_secs(3);
    };
    let start = || TestServer::on_redis_as(&redis.url(), quick, |app| app);
    let (one, two) = (start(), start());
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    let session = Session::open(one.addr).await;
    join(&session, &one, &two).await;
    let polling = session.get(two.addr);
    let killing = async {
        tokio::task::yield_now().await;
        redis.kill();
    };
    let (got, ()) = within("the failure", async { tokio::join!(polling, killing) }).await;
    assert_unknown(&got);
    one.await_connections(0).await;
    // Local clients notice nothing.
    let local = Session::open(one.addr).await;
    assert_eq!(local.post(one.addr, b"40").await.text(), "ok");
    await_redis(&two, "down").await;
    assert_unknown(&local.get(two.addr).await);
    assert!(local.get(one.addr).await.text().starts_with("40"));
}

#[actix_rt::test]
async fn an_instance_alone_knows_no_elsewhere() {
    let server = TestServer::start();
    let foreign = Session {
        sid: "Ab3dE6gH0123456789012345678901".to_owned(),
    };
    assert_unknown(&foreign.get(server.addr).await);
}

/// Two instances as processes of their own, on one Redis.
fn processes(redis: &RedisServer, dir: &TempDir) -> (Program, Program) {
    let url = redis.url();
    let start = || Program::start(dir.path(), &[("REDIS_URL", &url)]);
    (start(), start())
}

async fn await_up(addr: SocketAddr) {
    within("the cluster", async {
        while http::get(addr, "/readyz").await.json()["ready"] != true {}
    })
    .await;
}

#[actix_rt::test]
async fn an_owner_that_is_killed_leaves_no_poll_waiting() {
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (one, two) = processes(&redis, &dir);
    await_up(one.addr).await;
    await_up(two.addr).await;
    let session = Session::open(one.addr).await;
    let polling = session.get(two.addr);
    let killing = async {
        // The poll is on its way or parked; it must be told either way.
        tokio::task::yield_now().await;
        one.signal("-KILL");
    };
    let (got, ()) = within("the news", async { tokio::join!(polling, killing) }).await;
    assert_unknown(&got);
}

#[actix_rt::test]
async fn an_owner_that_does_not_move_any_more_is_known_to_be_gone() {
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (one, two) = processes(&redis, &dir);
    await_up(one.addr).await;
    await_up(two.addr).await;
    let num_peers = async |expected: u64| {
        within("the others", async {
            while http::get(two.addr, "/readyz").await.json()["peers"]["num"] != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    num_peers(1).await;
    let session = Session::open(one.addr).await;
    let other = Session::open(one.addr).await;
    // Its connections stay open, and to Redis it listens as before.
    one.signal("-STOP");
    let parked = within("the news", session.get(two.addr)).await;
    assert_unknown(&parked);
    num_peers(0).await;
    assert_unknown(&other.get(two.addr).await);
    assert_unknown(&other.post(two.addr, b"1").await);
    // It only slept.
    one.signal("-CONT");
    num_peers(1).await;
    let session = Session::open(one.addr).await;
    assert_eq!(session.post(two.addr, b"40").await.text(), "ok");
}

#[actix_rt::test]
async fn an_instance_that_is_killed_leaves_no_session_behind() {
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (one, two) = processes(&redis, &dir);
    await_up(one.addr).await;
    await_up(two.addr).await;
    let session = Session::open(one.addr).await;
    assert_eq!(http::num_connections(one.addr).await, 1);
    let request = http::request("GET", &session.target(), &[], b"");
    let _parked = Pending::send(two.addr, &request).await;
    // It has crossed: another session's poll behind it was answered.
    let other = Session::open(one.addr).await;
    let (posted, got) = tokio::join!(other.post(two.addr, b"1"), other.get(two.addr));
    assert!(posted.text() == "ok" || got.status == 400);
    two.signal("-KILL");
    http::await_connections(one.addr, 0).await;
}

/// Stands in the place of an instance: hears what is said to it, and says what it likes.
pub(crate) struct Stranger<'r> {
    redis: &'r RedisServer,
    stream: TcpStream,
    heard: Vec<u8>,
}

impl<'r> Stranger<'r> {
    pub(crate) const NAME: &'static str = "Ab3dE6gH";

    pub(crate) fn join(redis: &'r RedisServer) -> Self {
        Self::listen(redis, &format!("socket.io-sockhop#{}#", Self::NAME))
    }

    /// Hears what is said to all.
    pub(crate) fn eavesdrop(redis: &'r RedisServer) -> Self {
        Self::listen(redis, "socket.io-sockhop#")
    }

    fn listen(redis: &'r RedisServer, channel: &str) -> Self {
        let stream = redis.subscribe(channel);
        stream.set_nonblocking(true).unwrap();
        Self {
            redis,
            stream: TcpStream::from_std(stream).unwrap(),
            heard: Vec::new(),
        }
    }

    /// Tells the instance that owns `sid` something, in any version.
    pub(crate) fn tell(&self, sid: &str, v: u32, id: u64, rest: &str) {
        let channel = format!("socket.io-sockhop#{}#", &sid[..8]);
        let line = format!(r#"{{"v":{v},"id":{id},"from":"{}",{rest}"#, Self::NAME);
        let heard = self
            .redis
            .command(&[b"PUBLISH", channel.as_bytes(), line.as_bytes()]);
        assert_eq!(heard, b":1\r\n", "somebody listens");
    }

    /// Waits until `text` has been said, and returns all that was said up to then.
    pub(crate) async fn hears(&mut self, text: &str) -> String {
        within(text, async {
            loop {
                let heard = String::from_utf8_lossy(&self.heard).into_owned();
                if let Some(at) = heard.find(text) {
                    self.heard.drain(..at + text.len());
                    return heard;
                }
                assert_ne!(self.stream.read_buf(&mut self.heard).await.unwrap(), 0);
            }
        })
        .await
    }
}

#[actix_rt::test]
async fn an_answer_that_crosses_its_abort_ends_the_session() {
    let redis = RedisServer::start();
    let (one, _two) = pair(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let session = Session::open(one.addr).await;
    let sid = &session.sid;
    let poll = format!(r#""type":"poll","sid":"{sid}","eio":4}}"#);
    stranger.tell(sid, 1, 7, &poll);
    assert_eq!(session.post(one.addr, b"40").await.text(), "ok");
    stranger.hears(r#""type":"payload""#).await;
    // The client went away, and with it what was in that payload.
    stranger.tell(sid, 1, 7, &format!(r#""type":"abort","sid":"{sid}"}}"#));
    one.await_connections(0).await;
}

#[actix_rt::test]
async fn an_instance_of_another_release_is_told_that_it_is_not_understood() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let of_one = Session::open(one.addr).await;
    stranger.tell(&of_one.sid, 2, 7, r#""type":"dance"}"#);
    let heard = stranger.hears(r#""type":"error","code":1"#).await;
    assert!(heard.contains(r#""v":1,"id":7"#), "{heard}");
    // Or it would go to and fro for ever.
    stranger.tell(&of_one.sid, 2, 8, r#""type":"error","code":1}"#);
    stranger.tell(&of_one.sid, 2, 9, r#""type":"dance"}"#);
    let heard = stranger.hears(r#""type":"error","code":1"#).await;
    assert!(
        heard.contains(r#""id":9"#) && !heard.contains(r#""id":8"#),
        "{heard}"
    );

    let foreign = Session {
        sid: format!("{}0123456789012345678901", Stranger::NAME),
    };
    let answering = async {
        stranger.hears(r#""v":1,"id":"#).await;
        let rest = stranger.hears(",").await;
        let id = rest.split(',').next().unwrap().parse().unwrap();
        stranger.tell(
            &Session::open(two.addr).await.sid,
            2,
            id,
            r#""type":"sorry"}"#,
        );
    };
    let (got, ()) = tokio::join!(foreign.get(two.addr), answering);
    assert_unknown(&got);
}

#[actix_rt::test]
async fn a_body_beyond_the_owners_limit_is_not_taken() {
    let redis = RedisServer::start();
    let (one, _two) = pair(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let session = Session::open(one.addr).await;
    let sid = &session.sid;
    let post = format!(r#""type":"post","sid":"{sid}","eio":4}}"#);
    stranger.tell(sid, 1, 7, &post);
    let huge = "2".repeat(1_000_001);
    stranger.tell(
        sid,
        1,
        7,
        &format!("\"type\":\"body\",\"is_binary\":false}}\n{huge}"),
    );
    stranger.hears(r#""id":7,"from":"#).await;
    stranger.hears(r#""type":"error""#).await;
    assert_eq!(session.post(one.addr, b"40").await.text(), "ok");
}

/// A bug: those that did not fit were dropped without a word, and their clients waited until their sessions were over; nor could anything
/// else be said to other instances.
#[actix_rt::test]
async fn bodies_that_wait_for_redis_leave_room_for_what_instances_say() {
    const NUM: usize = 40;
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let sessions = join_all((0..NUM).map(|_| Session::open(one.addr))).await;
    let last = Session::open(one.addr).await;
    redis.freeze();
    let noop = format!("6{}", "x".repeat(998_000));
    let posting = sessions
        .iter()
        .map(async |session| session.post(two.addr, noop.as_bytes()).await.status);
    let thawing = async {
        within("refusals", async {
            // 32 MiB are for all, and half of what is left for one.
            while num_met(two.addr, "bridge_behind").await < NUM as u64 - 32 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let sent = http::request("POST", &last.target(), &[], b"6");
        let little = Pending::send(two.addr, &sent).await;
        redis.thaw();
        little.answer().await.status
    };
    let (statuses, little) = tokio::join!(join_all(posting), thawing);
    assert_eq!(little, 200);
    let num = |status| statuses.iter().filter(|is| **is == status).count();
    assert_eq!((num(200), num(503)), (32, NUM - 32), "{statuses:?}");
    // Those that were refused are over.
    one.await_connections(32 + 1).await;
}

#[actix_rt::test]
async fn a_request_that_nobody_hears_is_not_taken_back() {
    let redis = RedisServer::start();
    let (_one, two) = pair(&redis).await;
    let foreign = Session {
        sid: "Ab3dE6gH0123456789012345678901".to_owned(),
    };
    let num_published = || {
        let stats = redis.command(&[b"INFO", b"commandstats"]);
        let stats = String::from_utf8(stats).unwrap();
        let calls = stats.split("cmdstat_publish:calls=").nth(1);
        calls.map_or(0, |calls| {
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        })
    };
    let before = num_published();
    for _ in 0..10 {
        assert_unknown(&foreign.get(two.addr).await);
    }
    // What was said about all but the last has been published before the last was; and meanwhile both instances may have said that
    // they live.
    let num_published = num_published() - before;
    assert!((10..19).contains(&num_published), "{num_published}");
}

#[actix_rt::test]
async fn an_instance_that_stops_lets_go_of_polls_for_others_at_once() {
    let redis = RedisServer::start();
    let (one, mut two) = pair(&redis).await;
    let session = Session::open(one.addr).await;
    join(&session, &one, &two).await;
    let there = two.addr;
    let polling = async {
        let got = session.get(there).await;
        (got, Instant::now())
    };
    let stopping = async {
        // It is parked at its owner: what is posted behind it elsewhere is answered there.
        assert_eq!(session.post(there, b"42[\"nobody\"]").await.text(), "ok");
        two.begin_stop();
        Instant::now()
    };
    let ((got, answered), began) =
        within("the end", async { tokio::join!(polling, stopping) }).await;
    assert_unknown(&got);
    let took = answered.duration_since(began);
    assert!(took < Duration::from_secs(1), "{took:?}");
    one.await_connections(0).await;
}
