//! The sharded adapter: the server API and rooms in every mode on a single Redis, and on a Redis Cluster whose slots move and
//! whose master is lost. Beside Node's servers: test/client. Source: wire.md 4.

use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use sockhop::adapter::{
    kind::AdapterKind,
    sharded_channel::SubscriptionMode::{self, Dynamic, DynamicPrivate, Static},
};

use crate::{
    cluster::await_redis,
    ops_gateway,
    server_api::{
        Client, check_acks, check_fetching, check_membership, check_server_events, two_by,
    },
    support::{
        http, redis_cluster::RedisCluster, redis_server::RedisServer, server::TestServer, within,
    },
};

const MODES: [SubscriptionMode; 3] = [Static, Dynamic, DynamicPrivate];

fn sharded(mode: SubscriptionMode) -> AdapterKind {
    AdapterKind::Sharded(mode)
}

/// Returns how many connections listen to a sharded channel of a single Redis.
fn num_subscribers(redis: &RedisServer, channel: &str) -> usize {
    let answer = redis.command(&[b"PUBSUB", b"SHARDNUMSUB", channel.as_bytes()]);
    let answer = String::from_utf8(answer).unwrap();
    answer.trim().rsplit(':').next().unwrap().parse().unwrap()
}

/// Waits until so many connections listen.
async fn await_subscribers(expected: usize, count: impl Fn() -> usize) {
    within("the subscriptions", async {
        while count() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Emits a number to rooms, or to all, but not to the sender.
async fn emit(client: &mut Client, to: &[&str], n: usize) {
    let except = [&client.id];
    let order = json!({ "op": "emit", "event": "n", "args": n, "to": to, "except": except });
    let told = client.op(order).await;
    assert_eq!(told, json!({ "ok": null }));
}

#[actix_rt::test]
async fn sockets_are_fetched_in_every_mode() {
    let redis = RedisServer::start();
    for mode in MODES {
        check_fetching(sharded(mode), &redis.url()).await;
    }
}

#[actix_rt::test]
async fn sockets_join_leave_and_are_disconnected_in_every_mode() {
    let redis = RedisServer::start();
    for mode in MODES {
        check_membership(sharded(mode), &redis.url()).await;
    }
}

#[actix_rt::test]
async fn broadcasts_are_acknowledged_in_every_mode() {
    let redis = RedisServer::start();
    for mode in MODES {
        check_acks(sharded(mode), &redis.url()).await;
    }
}

#[actix_rt::test]
async fn servers_send_each_other_events_in_every_mode() {
    let redis = RedisServer::start();
    for mode in MODES {
        check_server_events(sharded(mode), &redis.url()).await;
    }
}

#[actix_rt::test]
async fn rooms_of_all_kinds_are_reached_in_every_mode() {
    let redis = RedisServer::start();
    // A room that looks like a socket's id to those who publish, one that is several, one with everything in it.
    let long = "twenty-letters-long!";
    let strange = "a#{b} c\u{e9}*";
    for mode in MODES {
        let (_one, _two, mut a, mut b) = two_by(sharded(mode), &redis.url()).await;
        for room in ["red", long, strange] {
            b.call("join", &json!(room)).await;
        }
        let has_channel = |room: &str, is_private: bool| match mode {
            Static => false,
            Dynamic => !is_private,
            DynamicPrivate => room == room.trim(),
        };
        for (room, is_private) in [("red", false), (strange, false), (&*b.id, true)] {
            let channel = format!("socket.io#/ops#{room}#");
            let expected = usize::from(has_channel(room, is_private));
            await_subscribers(expected, || num_subscribers(&redis, &channel)).await;
        }
        let id = b.id.clone();
        let rooms: [&[&str]; 6] = [
            &["red"],
            &[long],
            &[strange],
            &[&id],
            &["red", strange, "none"],
            &[],
        ];
        for (n, to) in rooms.into_iter().enumerate() {
            emit(&mut a, to, n).await;
            assert_eq!(b.event("n").await.1, json!(n), "{mode:?} {to:?}");
        }
        // Nobody else is disturbed, and what nobody is in reaches nobody: an event for all comes next.
        emit(&mut a, &["nobody"], 98).await;
        emit(&mut a, &["red"], 99).await;
        assert_eq!(b.event("n").await.1, json!(99));
    }
}

#[actix_rt::test]
async fn a_room_is_listened_to_while_it_has_members() {
    let redis = RedisServer::start();
    let (_one, two, mut a, mut b) = two_by(sharded(Dynamic), &redis.url()).await;
    let mut c = Client::of(&two).await;
    let channel = "socket.io#/ops#red#";
    let count = || num_subscribers(&redis, channel);
    b.call("join", &json!("red")).await;
    await_subscribers(1, count).await;
    a.call("join", &json!("red")).await;
    await_subscribers(2, count).await;
    c.call("join", &json!("red")).await;
    let leave = |id: &str| json!({ "op": "leave", "to": [id], "rooms": ["red"], "local": true });
    let id = b.id.clone();
    b.op(leave(&id)).await;
    emit(&mut a, &["red"], 1).await;
    assert_eq!(c.event("n").await.1, json!(1), "c is still in it");
    assert_eq!(count(), 2);
    c.websocket.send("41/ops,").await;
    await_subscribers(1, count).await;
    let id = a.id.clone();
    a.op(leave(&id)).await;
    await_subscribers(0, count).await;
}

#[actix_rt::test]
async fn rooms_are_listened_to_again_after_an_outage() {
    let mut redis = RedisServer::start();
    let (one, two, mut a, mut b) = two_by(sharded(Dynamic), &redis.url()).await;
    b.call("join", &json!("red")).await;
    await_subscribers(1, || num_subscribers(&redis, "socket.io#/ops#red#")).await;
    redis.kill();
    await_redis(&one, "down").await;
    await_redis(&two, "down").await;
    // Rooms come and go meanwhile.
    b.call("join", &json!("blue")).await;
    let id = b.id.clone();
    b.op(json!({ "op": "leave", "to": [id], "rooms": ["red"], "local": true }))
        .await;
    redis.restart_on_same_port();
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    assert_eq!(num_subscribers(&redis, "socket.io#/ops#blue#"), 1);
    assert_eq!(num_subscribers(&redis, "socket.io#/ops#red#"), 0);
    emit(&mut a, &["blue"], 1).await;
    assert_eq!(b.event("n").await.1, json!(1));
}

#[actix_rt::test]
async fn what_redis_refuses_waits_until_it_is_taken() {
    let redis = RedisServer::start();
    let (one, _two, mut a, mut b) = two_by(sharded(Dynamic), &redis.url()).await;
    redis.command(&[b"ACL", b"SETUSER", b"default", b"-spublish"]);
    emit(&mut a, &[], 1).await;
    await_redis(&one, "down").await;
    let told = http::get(one.addr, "/readyz").await.json()["redis"].clone();
    assert!(
        told["reason"].as_str().unwrap().contains("spublish"),
        "{told}"
    );
    redis.command(&[b"ACL", b"SETUSER", b"default", b"+spublish"]);
    await_redis(&one, "up").await;
    emit(&mut a, &[], 2).await;
    let got = [b.event("n").await.1, b.event("n").await.1];
    assert_eq!(got, [json!(1), json!(2)]);
}

#[actix_rt::test]
async fn garbage_on_sharded_channels_does_no_harm() {
    let redis = RedisServer::start();
    let (_one, _two, mut a, mut b) = two_by(sharded(Dynamic), &redis.url()).await;
    for garbage in [
        b"".as_slice(),
        b"garbage",
        b"{}",
        b"null",
        br#"{"type":3,"uid":"0123456789abcdef","nsp":"/ops"}"#,
        br#"{"type":3,"data":{},"uid":7,"nsp":"/ops"}"#,
        br#"{"type":99,"data":{},"uid":"x","nsp":"/ops"}"#,
        b"\xdf\xff\xff\xff\xff",
        &[0x91; 100_000],
    ] {
        redis.command(&[b"SPUBLISH", b"socket.io#/ops#", garbage]);
    }
    emit(&mut a, &[&b.id.clone()], 1).await;
    assert_eq!(b.event("n").await.1, json!(1));
}

#[actix_rt::test]
async fn a_redis_without_sharded_channels_is_told_with_what_to_do() {
    // Stands for one older than 7: it answers these two as such a one does.
    let redis = RedisServer::start_with(&["--rename-command", "SSUBSCRIBE", ""]);
    let server = TestServer::on_redis_by(sharded(Static), &redis.url(), |app| app);
    await_redis(&server, "down").await;
    let reason = http::get(server.addr, "/readyz").await.json()["redis"]["reason"].clone();
    let reason = reason.as_str().unwrap().to_owned();
    for part in ["Redis 7 or newer", "REDIS_ADAPTER=classic"] {
        assert!(reason.contains(part), "{reason}");
    }
}

// ---- on a Redis Cluster ----

#[actix_rt::test]
async fn on_a_cluster_the_whole_server_api_works_and_instances_may_know_different_nodes() {
    let cluster = RedisCluster::start();
    for mode in MODES {
        check_fetching(sharded(mode), &cluster.url_of(0)).await;
        check_membership(sharded(mode), &cluster.url_of(1)).await;
        check_acks(sharded(mode), &cluster.url_of(2)).await;
        check_server_events(sharded(mode), &cluster.url_of(0)).await;
    }
    let ops = |app: sockhop::app::App| app.gateway(ops_gateway::gateway());
    let one = TestServer::on_redis_by(sharded(Dynamic), &cluster.url_of(0), ops);
    let two = TestServer::on_redis_by(sharded(Dynamic), &cluster.url_of(2), ops);
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    let (mut a, mut b) = (Client::of(&one).await, Client::of(&two).await);
    // Rooms on every node.
    for node in 0..3 {
        let channel = cluster.name_at(node, |n| format!("socket.io#/ops#room {n}#"));
        let room = channel
            .strip_prefix("socket.io#/ops#")
            .and_then(|rest| rest.strip_suffix('#'))
            .unwrap();
        b.call("join", &json!(room)).await;
        await_subscribers(1, || cluster.num_subscribers(&channel)).await;
        emit(&mut a, &[room], node).await;
        assert_eq!(b.event("n").await.1, json!(node));
    }
}

/// Receives numbers until one that is at least `last`; checks that they only rise, and returns them.
async fn rising_until(b: &mut Client, last: usize) -> Vec<usize> {
    let mut got: Vec<usize> = Vec::new();
    within("the last number", async {
        while got.last().is_none_or(|n| *n < last) {
            let n = b.event("n").await.1.as_u64().unwrap() as usize;
            assert!(
                got.last().is_none_or(|before| *before < n),
                "{n} after {got:?}"
            );
            got.push(n);
        }
    })
    .await;
    got
}

#[actix_rt::test]
async fn a_slot_may_move_under_a_stream_of_events() {
    let cluster = RedisCluster::start();
    let (_one, _two, mut a, mut b) = two_by(sharded(Dynamic), &cluster.url_of(0)).await;
    b.call("join", &json!("red")).await;
    let channel = "socket.io#/ops#red#";
    await_subscribers(1, || cluster.num_subscribers(channel)).await;
    let slot = cluster.slot_of(channel);
    let from = cluster.owner_of(channel);
    for n in 1..=100 {
        emit(&mut a, &["red"], n).await;
    }
    // Two moves under way of the stream; each ends before the next 100 are sent.
    let mut n = 100;
    let mut got = Vec::new();
    for hop in 0..2 {
        let (from, to) = ((from + hop) % 3, (from + hop + 1) % 3);
        for step in 0..100 {
            n += 1;
            emit(&mut a, &["red"], n).await;
            if step == 49 && hop == 0 {
                // What was emitted is published a little later: the window begins when all of it has arrived.
                got = rising_until(&mut b, n).await;
            }
            if step == 50 {
                cluster.move_slot(slot, from, to);
            }
        }
        await_subscribers(1, || cluster.num_subscribers(channel)).await;
    }
    for _ in 0..100 {
        n += 1;
        emit(&mut a, &["red"], n).await;
    }
    got.extend(rising_until(&mut b, n).await);
    assert!(got.is_sorted(), "{got:?}");
    // Lost is nothing outside of the windows: before the first move, and after the last subscription.
    let expected: Vec<usize> = (1..=150).chain(n - 99..=n).collect();
    let outside: Vec<usize> = got
        .iter()
        .copied()
        .filter(|n| expected.contains(n))
        .collect();
    assert_eq!(outside, expected);
}

#[actix_rt::test]
async fn questions_find_every_instance_after_the_main_channels_slot_has_moved() {
    let cluster = RedisCluster::start();
    let (_one, _two, mut a, b) = two_by(sharded(Static), &cluster.url_of(0)).await;
    let channel = "socket.io#/ops#";
    let (slot, from) = (cluster.slot_of(channel), cluster.owner_of(channel));
    cluster.move_slot(slot, from, (from + 1) % 3);
    await_subscribers(2, || cluster.num_subscribers(channel)).await;
    let all = a.op(json!({ "op": "fetch" })).await;
    let found: Vec<&Value> = all["ok"].as_array().unwrap().iter().collect();
    assert_eq!(found.len(), 2, "{all}");
    assert!(found.iter().any(|socket| socket["id"] == b.id.as_str()));
}

#[actix_rt::test]
async fn a_lost_master_is_replaced_and_delivery_resumes_by_itself() {
    let mut cluster = RedisCluster::start();
    let channel = "socket.io#/ops#red#";
    let master = cluster.owner_of(channel);
    cluster.add_replica_of(master);
    // Both know the master that will die, and only that one.
    let (one, two, mut a, mut b) = two_by(sharded(Dynamic), &cluster.url_of(master)).await;
    b.call("join", &json!("red")).await;
    await_subscribers(1, || cluster.num_subscribers(channel)).await;
    emit(&mut a, &["red"], 1).await;
    assert_eq!(b.event("n").await.1, json!(1));
    cluster.kill(master);
    // They notice by themselves, and come back by what they know of the other nodes.
    await_subscribers(0, || cluster.num_subscribers(channel)).await;
    await_subscribers(1, || cluster.num_subscribers(channel)).await;
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    let crossed = async {
        let mut n = 1;
        loop {
            n += 1;
            emit(&mut a, &["red"], n).await;
            let patience = Duration::from_millis(100);
            if let Ok((_, got)) = tokio::time::timeout(patience, b.event("n")).await {
                break got;
            }
        }
    };
    within("an event crosses", crossed).await;
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(told["ok"].as_array().map(Vec::len), Some(2), "{told}");
}

#[actix_rt::test]
async fn a_master_may_hand_over_to_its_replica_under_a_stream_of_events() {
    let mut cluster = RedisCluster::start();
    // One master has both the room's channel and the main one, whose subscribers are counted.
    let main = "socket.io#/ops#";
    let master = cluster.owner_of(main);
    cluster.add_replica_of(master);
    let room = cluster.name_at(master, |n| format!("socket.io#/ops#room{n}#"));
    let name = room[main.len()..].trim_end_matches('#');
    let (_one, _two, mut a, mut b) = two_by(sharded(Dynamic), &cluster.url_of(0)).await;
    b.call("join", &json!(name)).await;
    await_subscribers(1, || cluster.num_subscribers(&room)).await;
    for n in 1..=50 {
        emit(&mut a, &[name], n).await;
    }
    // What was emitted is published a little later: the window begins when all of it has arrived.
    let mut got = rising_until(&mut b, 50).await;
    cluster.hand_over_to(3);
    for n in 51..=100 {
        emit(&mut a, &[name], n).await;
    }
    await_subscribers(1, || cluster.num_subscribers(&room)).await;
    await_subscribers(2, || cluster.num_subscribers(main)).await;
    for n in 101..=150 {
        emit(&mut a, &[name], n).await;
    }
    got.extend(rising_until(&mut b, 150).await);
    assert!(got.is_sorted(), "{got:?}");
    let outside: Vec<usize> = got.into_iter().filter(|n| *n <= 50 || *n > 100).collect();
    let expected: Vec<usize> = (1..=50).chain(101..=150).collect();
    assert_eq!(outside, expected);
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(told["ok"].as_array().map(Vec::len), Some(2), "{told}");
}

/// Emits rising numbers until it is so; returns the last.
async fn emit_until(
    a: &mut Client,
    to: &[&str],
    mut n: usize,
    mut is_so: impl FnMut() -> bool,
) -> usize {
    within("what is emitted until then", async {
        while !is_so() {
            n += 1;
            emit(a, to, n).await;
        }
    })
    .await;
    n
}

/// Returns how often an instance has connected to Redis.
async fn num_links(server: &TestServer) -> u64 {
    let ready = http::get(server.addr, "/readyz").await.json();
    ready["bridge"]["num_links"].as_u64().unwrap()
}

/// Waits until what a former master has passed on has arrived at the new one.
async fn await_passed_on(cluster: &RedisCluster, former: usize, master: usize) {
    within("what was passed on", async {
        while cluster.num_passed_on(former, "sent") != cluster.num_passed_on(master, "received") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Kills a former master, and checks that nobody misses it.
async fn check_that_nobody_needs(
    cluster: &mut RedisCluster,
    former: usize,
    master: usize,
    servers: [&TestServer; 2],
) {
    cluster.kill(former);
    // Each instance asks all whom it needs once a second.
    let num_asked = cluster.num_calls(master, "hello");
    within("some seconds", async {
        while cluster.num_calls(master, "hello") < num_asked + 3 * servers.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for server in servers {
        assert_eq!(num_links(server).await, 1);
    }
}

#[actix_rt::test]
async fn what_a_former_master_still_takes_is_not_overtaken() {
    // Long enough for the instances to learn of the new master, and to publish there, before what the former one passed on arrives.
    let mut cluster = RedisCluster::start_wide(Duration::from_millis(100));
    let main = "socket.io#/ops#";
    let master = cluster.owner_of(main);
    cluster.add_replica_of(master);
    let (one, two, mut a, mut b) = two_by(sharded(Static), &cluster.url_of(0)).await;
    let mut handing_over = actix_rt::task::spawn_blocking(move || {
        cluster.hand_over_to(3);
        cluster
    });
    // Without a pause, so that something is under way at any time: Redis holds it back while it hands over, and takes it then.
    let mut handed_over = None;
    let n = emit_until(&mut a, &[], 0, || {
        handed_over = (&mut handing_over).now_or_never();
        handed_over.is_some()
    })
    .await;
    let mut cluster = handed_over.unwrap().unwrap();
    await_subscribers(2, || cluster.num_subscribers(main)).await;
    let n = emit_until(&mut a, &[], n, || cluster.num_calls(3, "spublish") > 0).await;
    await_passed_on(&cluster, master, 3).await;
    emit(&mut a, &[], n + 1).await;
    rising_until(&mut b, n + 1).await;
    check_that_nobody_needs(&mut cluster, master, 3, [&one, &two]).await;
    emit(&mut a, &[], n + 2).await;
    assert_eq!(b.event("n").await.1, json!(n + 2));
}

#[actix_rt::test]
async fn who_listens_to_nothing_at_a_former_master_learns_of_the_new_one_too() {
    let mut cluster = RedisCluster::start();
    // A master that has nothing but the channel of a room, in which one instance alone has members.
    let room = "socket.io#/ops#red#";
    cluster.add_master();
    cluster.move_slot(cluster.slot_of(room), cluster.owner_of(room), 3);
    cluster.add_replica_of(3);
    let (one, two, mut a, mut b) = two_by(sharded(Dynamic), &cluster.url_of(0)).await;
    b.call("join", &json!("red")).await;
    await_subscribers(1, || cluster.num_subscribers(room)).await;
    emit(&mut a, &["red"], 1).await;
    assert_eq!(b.event("n").await.1, json!(1));
    cluster.hand_over_to(4);
    await_subscribers(1, || cluster.num_subscribers(room)).await;
    let n = emit_until(&mut a, &["red"], 1, || cluster.num_calls(4, "spublish") > 0).await;
    await_passed_on(&cluster, 3, 4).await;
    emit(&mut a, &["red"], n + 1).await;
    rising_until(&mut b, n + 1).await;
    check_that_nobody_needs(&mut cluster, 3, 4, [&one, &two]).await;
    emit(&mut a, &["red"], n + 2).await;
    assert_eq!(b.event("n").await.1, json!(n + 2));
}

#[actix_rt::test]
async fn accounts_are_found_on_every_node_of_a_cluster() {
    let cluster = RedisCluster::start();
    let (one, two, ..) = two_by(sharded(Static), &cluster.url_of(0)).await;
    for node in 0..3 {
        let key = cluster.name_at(node, |n| format!("socket.io:sockhop:user:ada{n}"));
        let name = key.rsplit(':').next().unwrap();
        let body = format!(r#"{{"username":"{name}","password":"correct horse"}}"#);
        let answer = http::post_json(one.addr, "/auth/register", &body).await;
        assert_eq!(answer.status, 201, "{name}");
        let answer = http::post_json(two.addr, "/auth/login", &body).await;
        assert_eq!(answer.status, 200, "{name}");
        let again = http::post_json(two.addr, "/auth/register", &body).await;
        assert_eq!(again.status, 409, "{name}");
    }
}

/// A bug: ASK was followed as if it were MOVED, and whoever registered meanwhile was told that Redis is away.
#[actix_rt::test]
async fn accounts_are_made_and_found_while_their_slot_is_on_its_way() {
    let cluster = RedisCluster::start();
    let (one, two, ..) = two_by(sharded(Static), &cluster.url_of(0)).await;
    let slot = cluster.slot_of("socket.io:sockhop:user:ada");
    let from = cluster.owner_of("socket.io:sockhop:user:ada");
    let body = r#"{"username":"ada","password":"correct horse"}"#;
    cluster.begin_to_move_slot(slot, from, (from + 1) % 3);
    for (addr, path, status) in [
        (two.addr, "login", 401),
        (one.addr, "register", 201),
        (two.addr, "login", 200),
        (two.addr, "register", 409),
    ] {
        let answer = http::post_json(addr, &format!("/auth/{path}"), body).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[actix_rt::test]
async fn the_classic_adapter_refuses_a_cluster_and_says_what_to_do() {
    let cluster = RedisCluster::start();
    let server = TestServer::on_redis_by(AdapterKind::Classic, &cluster.url_of(0), |app| app);
    await_redis(&server, "down").await;
    let reason = http::get(server.addr, "/readyz").await.json()["redis"]["reason"].clone();
    assert!(
        reason.as_str().unwrap().contains("REDIS_ADAPTER=sharded"),
        "{reason}"
    );
}
