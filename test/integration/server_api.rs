//! The server API: on one instance alone, and from one of two instances on a Redis to both. Beside Node's servers:
//! test/client. Source: Socket.IO server API; wire.md 3.3, 3.4.

use std::time::Duration;

use serde_json::{Value, json};
use sockhop::adapter::{kind::AdapterKind, sharded_channel::SubscriptionMode};

use crate::{
    cluster::{await_peers, await_redis, pair_by},
    ops_gateway,
    support::{redis_server::RedisServer, server::TestServer, websocket::WebSocket, within},
};

/// A client of `/ops`.
pub(crate) struct Client {
    pub(crate) websocket: WebSocket,
    pub(crate) id: String,
    next_ack: u64,
}

impl Client {
    pub(crate) async fn of(server: &TestServer) -> Self {
        let (websocket, connected) = WebSocket::join(server.addr, "/ops", "").await;
        let connected = connected.strip_prefix("40/ops,").unwrap();
        let connected: Value = serde_json::from_str(connected).unwrap();
        Self {
            websocket,
            id: connected["sid"].as_str().unwrap().to_owned(),
            next_ack: 0,
        }
    }

    /// Calls an event and returns the ack's first argument.
    pub(crate) async fn call(&mut self, event: &str, arg: &Value) -> Value {
        let id = self.next_ack;
        self.next_ack += 1;
        self.websocket
            .send(&format!(r#"42/ops,{id}{}"#, json!([event, arg])))
            .await;
        let text = self.websocket.text().await;
        let ack = text
            .strip_prefix(&format!("43/ops,{id}"))
            .unwrap_or_else(|| panic!("no ack {id}: {text}"));
        let ack: Value = serde_json::from_str(ack).unwrap();
        ack.get(0).cloned().unwrap_or_default()
    }

    pub(crate) async fn op(&mut self, order: Value) -> Value {
        self.call("op", &order).await
    }

    /// Awaits an event and returns what follows its name; the ack id that it wants, too.
    pub(crate) async fn event(&mut self, name: &str) -> (Option<String>, Value) {
        let text = self.websocket.text().await;
        let rest = text
            .strip_prefix("42/ops,")
            .unwrap_or_else(|| panic!("{text}"));
        let at = rest.find('[').unwrap();
        let (id, json) = rest.split_at(at);
        let event: Value = serde_json::from_str(json).unwrap();
        assert_eq!(event[0], name, "{text}");
        ((!id.is_empty()).then(|| id.to_owned()), event[1].clone())
    }

    pub(crate) async fn acknowledge(&mut self, id: &str, value: &Value) {
        self.websocket.send(&format!("43/ops,{id}[{value}]")).await;
    }
}

pub(crate) fn sorted(list: &Value) -> Vec<String> {
    let mut texts: Vec<String> = list
        .as_array()
        .unwrap_or_else(|| panic!("{list}"))
        .iter()
        .map(|item| item["id"].as_str().or(item.as_str()).unwrap().to_owned())
        .collect();
    texts.sort_unstable();
    texts
}

pub(crate) fn ids(clients: &[&Client]) -> Vec<String> {
    let mut ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    ids.sort_unstable();
    ids
}

/// Two instances on one Redis, and a client of each.
async fn two(redis: &RedisServer) -> (TestServer, TestServer, Client, Client) {
    two_by(AdapterKind::Classic, &redis.url()).await
}

/// Two instances on a Redis by one of the adapters, and a client of each.
pub(crate) async fn two_by(
    adapter: AdapterKind,
    url: &str,
) -> (TestServer, TestServer, Client, Client) {
    let (one, two) = pair_by(adapter, url, |app| app.gateway(ops_gateway::gateway())).await;
    let (a, b) = (Client::of(&one).await, Client::of(&two).await);
    (one, two, a, b)
}

#[actix_rt::test]
async fn sockets_of_all_instances_are_fetched_with_rooms_and_data() {
    let redis = RedisServer::start();
    check_fetching(AdapterKind::Classic, &redis.url()).await;
}

pub(crate) async fn check_fetching(adapter: AdapterKind, url: &str) {
    let (_one, _two, mut a, mut b) = two_by(adapter, url).await;
    a.call("join", &json!("red")).await;
    b.call("join", &json!("red")).await;
    b.call("join", &json!("blue")).await;
    b.call("data", &json!({ "name": "é\"b", "n": 5 })).await;

    let all = a.op(json!({ "op": "fetch" })).await["ok"].clone();
    assert_eq!(sorted(&all), ids(&[&a, &b]));
    let of_b = all
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["id"] == b.id.as_str());
    let of_b = of_b.unwrap();
    assert_eq!(of_b["data"], json!({ "name": "é\"b", "n": 5 }));
    assert_eq!(of_b["query"], "websocket");
    let mut rooms = sorted(&of_b["rooms"]);
    rooms.retain(|room| *room != b.id);
    assert_eq!(rooms, ["blue", "red"]);

    let blue = a.op(json!({ "op": "fetch", "to": ["blue"] })).await["ok"].clone();
    assert_eq!(sorted(&blue), ids(&[&b]));
    let not_blue = a.op(json!({ "op": "fetch", "except": ["blue"] })).await["ok"].clone();
    assert_eq!(sorted(&not_blue), ids(&[&a]));
    let here = b.op(json!({ "op": "fetch", "local": true })).await["ok"].clone();
    assert_eq!(sorted(&here), ids(&[&b]));

    let in_red = a.op(json!({ "op": "ids", "to": ["red"] })).await["ok"].clone();
    assert_eq!(sorted(&in_red), ids(&[&a, &b]));
    let rooms = b.op(json!({ "op": "rooms" })).await["ok"].clone();
    let mut expected = ids(&[&a, &b]);
    expected.extend(["blue".to_owned(), "red".to_owned()]);
    expected.sort_unstable();
    assert_eq!(sorted(&rooms), expected);
}

#[actix_rt::test]
async fn sockets_anywhere_join_leave_and_are_disconnected() {
    let redis = RedisServer::start();
    check_membership(AdapterKind::Classic, &redis.url()).await;
}

pub(crate) async fn check_membership(adapter: AdapterKind, url: &str) {
    let (_one, two_, mut a, mut b) = two_by(adapter, url).await;
    let both = a.op(json!({ "op": "join", "rooms": ["x", "y"] })).await;
    assert_eq!(both, json!({ "ok": null }));
    // Joined first, fetched second: on one channel, in that order.
    let in_y = a.op(json!({ "op": "fetch", "to": ["y"] })).await["ok"].clone();
    assert_eq!(sorted(&in_y), ids(&[&a, &b]));
    let target = [b.id.clone()];
    a.op(json!({ "op": "leave", "to": target, "rooms": ["x"] }))
        .await;
    let in_x = a.op(json!({ "op": "fetch", "to": ["x"] })).await["ok"].clone();
    assert_eq!(sorted(&in_x), ids(&[&a]));

    a.op(json!({ "op": "disconnect", "to": ["y"], "except": [a.id], "close": false }))
        .await;
    assert_eq!(b.websocket.text().await, "41/ops,");
    let left = a.op(json!({ "op": "fetch" })).await["ok"].clone();
    assert_eq!(sorted(&left), ids(&[&a]));
    let mut c = Client::of(&two_).await;
    a.op(json!({ "op": "disconnect", "to": [c.id], "close": true }))
        .await;
    assert_eq!(c.websocket.text().await, "41/ops,");
    c.websocket.closed().await;
}

#[actix_rt::test]
async fn clients_anywhere_acknowledge_a_broadcast() {
    let redis = RedisServer::start();
    check_acks(AdapterKind::Classic, &redis.url()).await;
}

pub(crate) async fn check_acks(adapter: AdapterKind, url: &str) {
    let (_one, two_, mut a, mut b) = two_by(adapter, url).await;
    let mut c = Client::of(&two_).await;
    a.websocket
        .send(r#"42/ops,0["op",{"op":"ask","event":"q","args":{"k":1},"ms":20000}]"#)
        .await;
    a.next_ack = 1;
    for (client, value) in [(&mut a, "A"), (&mut b, "B"), (&mut c, "C")] {
        let (id, arg) = client.event("q").await;
        assert_eq!(arg, json!({ "k": 1 }));
        client.acknowledge(&id.unwrap(), &json!(value)).await;
    }
    let text = a.websocket.text().await;
    let ack: Value = serde_json::from_str(text.strip_prefix("43/ops,0").unwrap()).unwrap();
    assert_eq!(sorted(&ack[0]["ok"]), ["A", "B", "C"]);

    // Somebody does not answer: what came is told, and how many did not.
    let order = json!({ "op": "ask", "event": "q", "args": 0, "ms": 300, "except": [a.id] });
    let asking = async { a.op(order).await };
    let answering = async {
        let (id, _) = b.event("q").await;
        b.acknowledge(&id.unwrap(), &json!("only B")).await;
        c.event("q").await;
    };
    let (told, ()) = tokio::join!(asking, answering);
    assert_eq!(told["arrived"], json!(["only B"]));
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("1 clients did not answer"), "{error}");

    // One of another instance alone.
    let order = json!({ "op": "ask-one", "event": "q", "args": 0, "ms": 20_000, "to": [c.id] });
    let asking = async { a.op(order).await };
    let answering = async {
        let (id, _) = c.event("q").await;
        c.acknowledge(&id.unwrap(), &json!("C alone")).await;
    };
    let (told, ()) = tokio::join!(asking, answering);
    assert_eq!(told, json!({ "ok": "C alone" }));
}

#[actix_rt::test]
async fn a_broadcast_with_acks_ends_when_nobody_is_left_who_could_answer() {
    let server = TestServer::of(|_| {}, |app| app.gateway(ops_gateway::gateway()));
    let (mut a, mut b) = (Client::of(&server).await, Client::of(&server).await);
    let hour = 3_600_000;
    let order = json!({ "op": "ask", "event": "q", "args": 0, "ms": hour, "except": [a.id] });
    let asking = async { a.op(order).await };
    let leaving = async {
        b.event("q").await;
        b.websocket.send("41/ops,").await;
    };
    let (told, ()) = within("the answer", async { tokio::join!(asking, leaving) }).await;
    assert_eq!(told["arrived"], json!([]), "{told}");
    let nobody = json!({ "op": "ask", "event": "q", "args": 0, "ms": hour, "to": ["nobody"] });
    assert_eq!(a.op(nobody).await, json!({ "ok": [] }));
}

#[actix_rt::test]
async fn servers_send_events_to_each_other_and_not_to_themselves() {
    let redis = RedisServer::start();
    check_server_events(AdapterKind::Classic, &redis.url()).await;
}

pub(crate) async fn check_server_events(adapter: AdapterKind, url: &str) {
    let (_one, _two, mut a, mut b) = two_by(adapter, url).await;
    let order = json!({ "op": "server-emit", "event": "server-tell", "args": { "x": 1 } });
    assert_eq!(a.op(order).await, json!({ "ok": null }));
    assert_eq!(b.event("told").await, (None, json!({ "x": 1 })));
    // An own echo would be there before the answer to this.
    let order = json!({ "op": "server-ask", "event": "server-ping", "args": 7, "ms": 20_000 });
    assert_eq!(a.op(order).await, json!({ "ok": [{ "pong": 7 }] }));
    let order = json!({ "op": "server-ask", "event": "nobody-has-it", "args": 7, "ms": 300 });
    let told = a.op(order).await;
    assert_eq!(told["arrived"], json!([]));
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("1 of 1 other instances"), "{error}");
    for reserved in ["connect", "connection", "new_namespace", "error"] {
        let order = json!({ "op": "server-emit", "event": reserved, "args": 0 });
        assert_eq!(a.op(order).await["error"]["code"], "reserved_event");
    }
}

#[actix_rt::test]
async fn an_instance_alone_answers_itself() {
    let server = TestServer::of(|_| {}, |app| app.gateway(ops_gateway::gateway()));
    let mut a = Client::of(&server).await;
    let all = a.op(json!({ "op": "fetch" })).await["ok"].clone();
    assert_eq!(sorted(&all), ids(&[&a]));
    let order = json!({ "op": "server-ask", "event": "server-ping", "args": 7, "ms": 20_000 });
    assert_eq!(a.op(order).await, json!({ "ok": [] }));
}

#[actix_rt::test]
async fn without_redis_a_question_says_so_with_what_did_arrive() {
    let mut redis = RedisServer::start();
    let (one, _two, mut a, _b) = two(&redis).await;
    redis.kill();
    await_redis(&one, "down").await;
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(sorted(&told["arrived"]), ids(&[&a]));
    let error = told["error"].as_str().unwrap();
    assert!(
        error.starts_with("other instances cannot be reached"),
        "{error}"
    );
    let order = json!({ "op": "ask", "event": "q", "args": 0, "ms": 5000, "except": [a.id] });
    assert_eq!(a.op(order).await["arrived"], json!([]));
}

#[actix_rt::test]
async fn without_the_right_to_count_instances_those_who_know_each_other_are_asked() {
    let redis = RedisServer::start();
    let (one, two, mut a, mut b) = two(&redis).await;
    redis.command(&[b"ACL", b"SETUSER", b"default", b"-pubsub"]);
    await_peers(&one, &[two.instance().await]).await;
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(sorted(&told["ok"]), ids(&[&a, &b]), "{told}");
    // Somebody else listens, too: then whoever heard the question counts.
    let _mute = redis.subscribe("socket.io-request#/ops#");
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(sorted(&told["arrived"]), ids(&[&a, &b]), "{told}");
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("1 of 2 other instances and"), "{error}");
    a.op(json!({ "op": "join", "to": [b.id], "rooms": ["x"] }))
        .await;
    a.op(json!({ "op": "disconnect", "to": ["x"], "close": false }))
        .await;
    assert_eq!(b.websocket.text().await, "41/ops,");
    await_redis(&one, "up").await;
}

#[actix_rt::test]
async fn who_is_alone_needs_no_right_to_count_instances() {
    let redis = RedisServer::start();
    redis.command(&[b"ACL", b"SETUSER", b"default", b"-pubsub"]);
    let one = TestServer::on_redis_with(&redis.url(), |app| app.gateway(ops_gateway::gateway()));
    await_redis(&one, "up").await;
    let mut a = Client::of(&one).await;
    let told = a.op(json!({ "op": "fetch" })).await;
    assert_eq!(sorted(&told["ok"]), ids(&[&a]), "{told}");
    await_redis(&one, "up").await;
}

#[actix_rt::test]
async fn a_question_under_way_fails_when_redis_does() {
    let mut redis = RedisServer::start();
    let (_one, _two, mut a, mut b) = two(&redis).await;
    let hour = 3_600_000;
    let order = json!({ "op": "ask", "event": "q", "args": 0, "ms": hour, "except": [a.id] });
    let asking = async { a.op(order).await };
    let killing = async {
        b.event("q").await;
        redis.kill();
    };
    let (told, ()) = within("the answer", async { tokio::join!(asking, killing) }).await;
    let error = told["error"].as_str().unwrap();
    assert!(
        error.starts_with("other instances cannot be reached"),
        "{error}"
    );
}

#[actix_rt::test]
async fn a_server_that_is_frozen_is_counted_and_the_rest_arrives() {
    // A subscriber that never answers stands in for it: one of Node has no name to be called by.
    let redis = RedisServer::start();
    let (_one, _two, mut a, b) = two(&redis).await;
    let _mute = redis.subscribe("socket.io-request#/ops#");
    let began = std::time::Instant::now();
    let told = a.op(json!({ "op": "fetch" })).await;
    assert!(began.elapsed() >= Duration::from_secs(4), "{told}");
    assert_eq!(sorted(&told["arrived"]), ids(&[&a, &b]));
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("1 of 2 other instances and"), "{error}");
}

#[actix_rt::test]
async fn an_instance_that_is_frozen_is_called_by_its_name_and_the_rest_arrives() {
    for adapter in [
        AdapterKind::Classic,
        AdapterKind::Sharded(SubscriptionMode::default()),
    ] {
        let redis = RedisServer::start();
        let (one, two, mut a, b) = two_by(adapter, &redis.url()).await;
        // One that said that it lives, listens, and answers nothing.
        let is_classic = adapter == AdapterKind::Classic;
        let (uid, publish) = match is_classic {
            true => ("a1B2c3", &b"PUBLISH"[..]),
            false => ("0123456789abcdef", &b"SPUBLISH"[..]),
        };
        let _frozen = match is_classic {
            true => redis.subscribe("socket.io-request#/ops#"),
            false => redis.subscribe_sharded("socket.io#/ops#"),
        };
        let beat = format!(
            r#"{{"peer":1,"instance":"Ab3dE6gH","uid":"{uid}","release":"0.1.0","uptime_ms":1,"sessions":3,"namespaces":["/ops"]}}"#
        );
        redis.command(&[publish, b"socket.io-sockhop#", beat.as_bytes()]);
        let others = [two.instance().await, "Ab3dE6gH".to_owned()];
        await_peers(&one, &others).await;
        let told = a.op(json!({ "op": "fetch" })).await;
        assert_eq!(sorted(&told["arrived"]), ids(&[&a, &b]), "{told}");
        let error = told["error"].as_str().unwrap();
        let expected = "1 of 2 other instances (Ab3dE6gH) and 0 clients";
        assert!(error.contains(expected), "{error}");
    }
}
