//! Two instances on one Redis that may fail. Source: wire.md 3; README, "When Redis fails".

use serde_json::json;
use sockhop::{adapter::kind::AdapterKind, app::App};

use crate::support::{
    http::{self, post_json},
    redis_server::RedisServer,
    server::TestServer,
    websocket::{Frame, WebSocket},
    within,
};

/// Waits until the instance says so of its Redis; once it is up, until the token key has come, too.
pub(crate) async fn await_redis(server: &TestServer, state: &str) {
    within(state, async {
        loop {
            let ready = http::get(server.addr, "/readyz").await.json();
            if ready["redis"]["state"] == state && (state != "up" || ready["ready"] == true) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the instance knows exactly these others.
pub(crate) async fn await_peers(server: &TestServer, others: &[String]) {
    let mut others = others.to_vec();
    others.sort_unstable();
    within("the acquaintance", async {
        while peers(server).await != others {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Returns the others that an instance knows, by name.
async fn peers(server: &TestServer) -> Vec<String> {
    let ready = http::get(server.addr, "/readyz").await.json();
    let list = ready["peers"]["list"].as_array().unwrap().clone();
    assert_eq!(ready["peers"]["num"], list.len());
    let name = |peer: &serde_json::Value| peer["instance"].as_str().unwrap().to_owned();
    list.iter().map(name).collect()
}

#[actix_rt::test]
async fn readyz_tells_of_the_other_instances_and_their_load() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let names = [one.instance().await, two.instance().await];
    await_peers(&one, &names[1..]).await;
    await_peers(&two, &names[..1]).await;
    let _client = WebSocket::open(two.addr).await;
    within("the load", async {
        loop {
            let ready = http::get(one.addr, "/readyz").await.json();
            let peer = &ready["peers"]["list"][0];
            assert_eq!(peer["release"], env!("CARGO_PKG_VERSION"));
            assert!(peer["uptime_s"].is_u64(), "{peer}");
            assert!(peer["heard_ms_ago"].as_u64().unwrap() < 7_000, "{peer}");
            if peer["sessions"] == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    two.stop();
    await_peers(&one, &[]).await;
    // Where there is no Redis, there are no others.
    let alone = TestServer::start();
    let ready = http::get(alone.addr, "/readyz").await.json();
    assert!(ready.get("peers").is_none(), "{ready}");
}

/// Two instances that see each other.
async fn pair(redis: &RedisServer) -> (TestServer, TestServer) {
    pair_of(redis, |app| app).await
}

/// Two instances that see each other, with more gateways.
pub(crate) async fn pair_of(
    redis: &RedisServer,
    build: fn(App) -> App,
) -> (TestServer, TestServer) {
    pair_by(AdapterKind::Classic, &redis.url(), build).await
}

/// Two instances that see each other by one of the adapters.
pub(crate) async fn pair_by(
    adapter: AdapterKind,
    url: &str,
    build: fn(App) -> App,
) -> (TestServer, TestServer) {
    let pair = (
        TestServer::on_redis_by(adapter, url, build),
        TestServer::on_redis_by(adapter, url, build),
    );
    await_redis(&pair.0, "up").await;
    await_redis(&pair.1, "up").await;
    pair
}

/// Sends numbered events at one instance until one arrives at the other. Each is received at home first.
async fn await_crossing(here: &mut WebSocket, there: &mut WebSocket, mark: &str) {
    within("an event crosses", async {
        let mut n = 0;
        loop {
            n += 1;
            let event = format!(r#"42/events,["test-event","{mark}",{n}]"#);
            here.send(&event).await;
            assert_eq!(here.text().await, event);
            let patience = std::time::Duration::from_millis(50);
            match tokio::time::timeout(patience, there.text()).await {
                Ok(text) if text.contains(mark) => break,
                Ok(_) | Err(_) => {}
            }
        }
    })
    .await;
}

#[actix_rt::test]
async fn events_cross_in_order_without_doubles_and_unchanged() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let token = one.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    for n in 0..200 {
        a.send(&format!(
            r#"42/events,["test-event",{n},{{"é":[null,1.5,"x"]}}]"#
        ))
        .await;
    }
    for client in [&mut a, &mut b] {
        for n in 0..200 {
            assert_eq!(
                client.text().await,
                format!(r#"42/events,["test-event",{n},{{"é":[null,1.5,"x"]}}]"#)
            );
        }
    }
    b.send(r#"451-/events,["test-event",{"x":{"_placeholder":true,"num":0}}]"#)
        .await;
    b.send_binary(&[0, 1, 254, 255]).await;
    for client in [&mut a, &mut b] {
        assert_eq!(
            client.text().await,
            r#"451-/events,["test-event",{"x":{"_placeholder":true,"num":0}}]"#
        );
        assert_eq!(client.next().await, Frame::Binary(vec![0, 1, 254, 255]));
    }
}

#[actix_rt::test]
async fn who_registers_at_one_instance_logs_in_at_the_other() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let body = r#"{"username":"ada","password":"correct horse"}"#;
    assert_eq!(
        post_json(one.addr, "/auth/register", body).await.status,
        201
    );
    let login = post_json(two.addr, "/auth/login", body).await;
    assert_eq!(login.status, 200);
    let token = login.json()["access_token"].as_str().unwrap().to_owned();
    WebSocket::join_events(one.addr, &token).await;
    assert_eq!(
        post_json(two.addr, "/auth/register", body).await.status,
        409
    );
    let ready = http::get(one.addr, "/readyz").await.json();
    assert_eq!(
        (&ready["mode"], &ready["redis"]),
        (&json!("cluster"), &json!({ "state": "up" }))
    );
}

#[actix_rt::test]
async fn redis_may_be_killed_and_come_back_under_traffic() {
    let mut redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let token = one.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    await_crossing(&mut a, &mut b, "before").await;
    redis.kill();
    for n in 0..100 {
        let event = format!(r#"42/events,["test-event","alone",{n}]"#);
        a.send(&event).await;
        assert_eq!(a.text().await, event, "local delivery never stops");
    }
    await_redis(&one, "down").await;
    let answer = post_json(
        one.addr,
        "/auth/login",
        r#"{"username":"x1234","password":"correct horse"}"#,
    )
    .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (503, &json!("accounts_unavailable"))
    );
    assert_eq!(
        http::get(one.addr, "/readyz").await.status,
        200,
        "it still takes clients"
    );
    WebSocket::join_events(one.addr, &token).await;
    redis.restart_on_same_port();
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    await_crossing(&mut a, &mut b, "after").await;
    let mut fresh = WebSocket::join_events(two.addr, &token).await;
    await_crossing(&mut a, &mut fresh, "fresh").await;
}

#[actix_rt::test]
async fn an_instance_starts_without_redis_and_joins_when_it_comes() {
    let mut redis = RedisServer::reserve();
    let one = TestServer::on_redis(&redis.url());
    await_redis(&one, "down").await;
    let ready = http::get(one.addr, "/readyz").await;
    assert_eq!(ready.status, 503, "no token can be checked without the key");
    let (_, reply) = WebSocket::join(one.addr, "/events", r#"{"token":"x.y.z"}"#).await;
    assert!(reply.contains(r#""code":"auth_unavailable""#), "{reply}");
    let mut main = WebSocket::join_main(one.addr).await;
    main.send(r#"42["message",1]"#).await;
    assert_eq!(
        main.text().await,
        r#"42["message-back",1]"#,
        "open namespaces work"
    );
    redis.restart_on_same_port();
    await_redis(&one, "up").await;
    let two = TestServer::on_redis(&redis.url());
    await_redis(&two, "up").await;
    let token = two.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    await_crossing(&mut a, &mut b, "hello").await;
}

#[actix_rt::test]
async fn a_frozen_redis_delays_nobody_at_home() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let token = one.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    await_crossing(&mut a, &mut b, "before").await;
    redis.freeze();
    for n in 0..1000 {
        let event = format!(r#"42/events,["test-event","alone",{n}]"#);
        a.send(&event).await;
        assert_eq!(a.text().await, event);
    }
    redis.thaw();
    await_crossing(&mut a, &mut b, "after").await;
}

#[actix_rt::test]
async fn a_stopped_instance_leaves_the_other_whole() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let token = one.token().await;
    let mut b = WebSocket::join_events(two.addr, &token).await;
    drop(one);
    let event = r#"42/events,["test-event",1]"#;
    b.send(event).await;
    assert_eq!(b.text().await, event);
    let third = TestServer::on_redis(&redis.url());
    await_redis(&third, "up").await;
    let mut c = WebSocket::join_events(third.addr, &token).await;
    await_crossing(&mut c, &mut b, "third").await;
}

#[actix_rt::test]
async fn what_others_publish_arrives_and_garbage_does_no_harm() {
    let redis = RedisServer::start();
    let (one, _two) = pair(&redis).await;
    let token = one.token().await;
    let mut a = WebSocket::join_events(one.addr, &token).await;
    let publish = |payload: &[u8]| {
        redis.command(&[b"PUBLISH", b"socket.io#/events#", payload]);
    };
    for garbage in [
        b"".as_slice(),
        b"garbage",
        b"{}",
        b"\xc1",
        b"\x93",
        b"\x93\xa7emitter",
        // A map, an array and a string that claim four gigabytes.
        b"\x93\xa7emitter\xdf\xff\xff\xff\xff",
        b"\x93\xa7emitter\xdd\xff\xff\xff\xff",
        b"\x93\xdb\xff\xff\xff\xff",
        &[0x91; 100_000],
    ] {
        publish(garbage);
    }
    // ["emitter", {type: 2, data: ["hello", bin 01], nsp: "/events"}, {rooms: [], flags: {}, except: []}]
    publish(
        b"\x93\xa7emitter\x83\xa4type\x02\xa4data\x92\xa5hello\xc4\x01\x01\xa3nsp\xa7/events\
          \x83\xa5rooms\x90\xa5flags\x80\xa6except\x90",
    );
    assert_eq!(
        a.text().await,
        r#"451-/events,["hello",{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(a.next().await, Frame::Binary(vec![1]));
}
