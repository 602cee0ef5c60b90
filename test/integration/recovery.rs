//! Connection state recovery: a client that comes back is who it was, and gets what it missed. Source: wire.md 2.6, 2.3, 10.9.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use sockhop::{
    config::{Config, RecoveryConfig},
    gateways::Gateway,
};

use crate::{
    cluster::pair_by,
    recovery_gateway,
    support::{
        http::Poller,
        redis_server::RedisServer,
        server::TestServer,
        websocket::{Frame, WebSocket},
        within,
    },
};

fn server() -> TestServer {
    server_with(RecoveryConfig::default(), |_| {})
}

fn server_with(recovery: RecoveryConfig, change: fn(&mut Config)) -> TestServer {
    TestServer::of(
        |config| {
            change(config);
            config.recovery = Some(recovery);
        },
        |app| app.gateway(recovery_gateway::gateway()),
    )
}

/// A client of `/r`.
struct Client {
    websocket: WebSocket,
    sid: String,
    pid: String,
    /// The packets that came before its CONNECT reply.
    missed: Vec<String>,
    num_asked: u32,
}

impl Client {
    async fn enter(addr: SocketAddr) -> Self {
        Self::enter_with(addr, &json!({})).await
    }

    async fn enter_with(addr: SocketAddr, auth: &Value) -> Self {
        let mut websocket = WebSocket::open(addr).await;
        websocket.send(&format!("40/r,{auth}")).await;
        let mut missed = Vec::new();
        let reply = loop {
            let packet = websocket.message().await;
            match packet.strip_prefix("40/r,") {
                Some(reply) => break serde_json::from_str::<Value>(reply).unwrap(),
                None => missed.push(packet),
            }
        };
        assert_eq!(reply.as_object().unwrap().len(), 2, "sid and pid: {reply}");
        let id = |key: &str| reply[key].as_str().unwrap().to_owned();
        Self {
            websocket,
            sid: id("sid"),
            pid: id("pid"),
            missed,
            num_asked: 0,
        }
    }

    async fn say(&mut self, event: Value) {
        self.websocket.send(&format!("42/r,{event}")).await;
    }

    /// Sends an event and waits for its ack; nothing else may come.
    async fn ask(&mut self, event: Value) -> Value {
        let (before, ack) = self.ask_amid(event).await;
        assert_eq!(before, [""; 0]);
        ack
    }

    /// Sends an event and waits for its ack. Returns what came before it, too.
    async fn ask_amid(&mut self, event: Value) -> (Vec<String>, Value) {
        self.num_asked += 1;
        let id = self.num_asked;
        self.websocket.send(&format!("42/r,{id}{event}")).await;
        let mut before = Vec::new();
        loop {
            let packet = self.websocket.message().await;
            match packet.strip_prefix(&format!("43/r,{id}")) {
                Some(ack) => return (before, serde_json::from_str(ack).unwrap()),
                None => before.push(packet),
            }
        }
    }

    async fn state(&mut self) -> Value {
        self.ask(json!(["state"])).await[0].take()
    }

    async fn is_recovered(&mut self) -> bool {
        self.state().await[1].as_bool().unwrap()
    }

    /// Reads an event; returns its name and arguments without the offset, and that.
    async fn event(&mut self) -> (Value, String) {
        split(&self.websocket.message().await)
    }

    fn claim(&self, offset: &str) -> Value {
        json!({ "pid": self.pid, "offset": offset })
    }

    /// Is cut off, and the server knows.
    async fn vanish(self, server: &TestServer) {
        let others = server.num_connections().await - 1;
        drop(self.websocket);
        server.await_connections(others).await;
    }
}

/// Takes an event apart: its name and arguments, and its offset.
fn split(packet: &str) -> (Value, String) {
    let json = packet
        .strip_prefix("42/r,")
        .unwrap_or_else(|| panic!("{packet}"));
    let mut args: Value = serde_json::from_str(json).unwrap();
    let offset = args.as_array_mut().unwrap().pop().unwrap();
    (
        args,
        offset
            .as_str()
            .unwrap_or_else(|| panic!("no offset: {packet}"))
            .to_owned(),
    )
}

fn args_of(packets: &[String]) -> Vec<Value> {
    packets.iter().map(|packet| split(packet).0).collect()
}

/// Two clients; both got a first event, whose offset is returned.
async fn two(server: &TestServer) -> (Client, Client, String) {
    let mut client = Client::enter(server.addr).await;
    let mut other = Client::enter(server.addr).await;
    other.say(json!(["all", "first"])).await;
    let (event, offset) = client.event().await;
    assert_eq!(event, json!(["first"]));
    assert_eq!(other.event().await, (event, offset.clone()));
    (client, other, offset)
}

#[actix_rt::test]
async fn without_the_setting_there_is_neither_pid_nor_offset() {
    let server = TestServer::of_gateway(recovery_gateway::gateway());
    let (mut websocket, reply) =
        WebSocket::join(server.addr, "/r", r#"{"pid":"abcdefghijklmnopqrst"}"#).await;
    assert!(
        reply.starts_with(r#"40/r,{"sid":""#) && !reply.contains("pid"),
        "{reply}"
    );
    websocket.send(r#"42/r,["me","a",1]"#).await;
    assert_eq!(websocket.message().await, r#"42/r,["a",1]"#);
    websocket.send(r#"42/r,["all","b"]"#).await;
    assert_eq!(websocket.message().await, r#"42/r,["b"]"#);
}

#[actix_rt::test]
async fn the_connect_reply_holds_a_pid_that_is_not_the_sid() {
    let server = server();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let client = Client::enter(server.addr).await;
        for id in [&client.sid, &client.pid] {
            assert_eq!(id.len(), 20);
            assert!(seen.insert(id.clone()), "{id} twice");
        }
    }
}

#[actix_rt::test]
async fn events_that_can_be_sent_again_end_with_an_offset_and_others_do_not() {
    let server = server();
    let mut client = Client::enter(server.addr).await;
    client.ask(json!(["join", "red"])).await;
    let mut offsets = std::collections::HashSet::new();
    for how in ["me", "all", "red", "me", "me"] {
        client.say(json!([how, "news", 7])).await;
        let (event, offset) = client.event().await;
        assert_eq!(event, json!(["news", 7]), "{how}");
        assert!(offsets.insert(offset));
    }
    client.say(json!(["all-volatile", "cursor", 7])).await;
    assert_eq!(client.websocket.message().await, r#"42/r,["cursor",7]"#);
    client.say(json!(["ask"])).await;
    let question = client.websocket.message().await;
    assert!(question.ends_with(r#"["question","what?"]"#), "{question}");
}

#[actix_rt::test]
async fn every_receiver_of_a_broadcast_gets_the_same_bytes() {
    let server = server();
    let (mut client, mut other, _) = two(&server).await;
    other.say(json!(["all", "news", {"a": 1}])).await;
    assert_eq!(
        client.websocket.message().await,
        other.websocket.message().await
    );
}

#[actix_rt::test]
async fn who_comes_back_is_who_it_was_and_gets_what_it_missed_before_the_reply() {
    let server = server();
    let (mut client, mut other, _) = two(&server).await;
    client.ask(json!(["join", "red"])).await;
    client.ask(json!(["set", [1, "two"]])).await;
    client.say(json!(["me", "mine"])).await;
    let (_, offset) = client.event().await;
    let (sid, pid, claim) = (
        client.sid.clone(),
        client.pid.clone(),
        client.claim(&offset),
    );
    client.vanish(&server).await;

    other.say(json!(["red", "one", 1])).await;
    other.say(json!(["others", "two", 2])).await;
    other.say(json!(["all-volatile", "lost"])).await;
    other.say(json!(["all", "three", 3])).await;
    other.websocket.message().await;
    other.event().await;

    let mut back = Client::enter_with(server.addr, &claim).await;
    assert_eq!((&back.sid, &back.pid), (&sid, &pid));
    let missed = args_of(&back.missed);
    assert_eq!(
        missed,
        [json!(["one", 1]), json!(["two", 2]), json!(["three", 3])]
    );
    let expected = json!([sid, true, ["red", sid], { "left": "transport error", "user": null, "value": [1, "two"] }]);
    let mut state = back.state().await;
    state[2]
        .as_array_mut()
        .unwrap()
        .sort_by_key(|room| room != "red");
    // How a dropped stream ends is the kernel's choice.
    if state[3]["left"] == "transport close" {
        state[3]["left"] = "transport error".into();
    }
    assert_eq!(state, expected);
    other.say(json!(["red", "live"])).await;
    assert_eq!(back.event().await.0, json!(["live"]));
}

#[actix_rt::test]
async fn what_was_sent_and_not_seen_is_sent_again_once_and_in_order() {
    let server = server();
    let (mut client, mut other, first) = two(&server).await;
    let mut offsets = vec![first];
    // Written to it, but it is cut off before it has read them all.
    for (n, how) in ["all", "me", "me", "others", "me", "all"]
        .iter()
        .enumerate()
    {
        let who = if *how == "me" {
            &mut client
        } else {
            &mut other
        };
        who.say(json!([how, "n", n])).await;
        let (event, offset) = client.event().await;
        assert_eq!(event, json!(["n", n]));
        offsets.push(offset);
    }
    let mut client = client;
    for (seen, offset) in offsets.iter().enumerate() {
        let claim = client.claim(offset);
        client.vanish(&server).await;
        client = Client::enter_with(server.addr, &claim).await;
        let expected: Vec<_> = (seen..6).map(|n| json!(["n", n])).collect();
        assert_eq!(args_of(&client.missed), expected, "after {seen}");
        let again: Vec<_> = client.missed.iter().map(|packet| split(packet).1).collect();
        assert_eq!(again, offsets[seen + 1..], "the offsets are the same");
        assert!(client.is_recovered().await);
    }
}

#[actix_rt::test]
async fn who_came_back_goes_on_as_before_and_may_come_back_again() {
    let server = server();
    let (mut client, mut other, mut offset) = two(&server).await;
    let sid = client.sid.clone();
    for n in 0..4 {
        let claim = client.claim(&offset);
        client.vanish(&server).await;
        other.say(json!(["others", "missed", n])).await;
        other.state().await;
        client = Client::enter_with(server.addr, &claim).await;
        assert_eq!(client.sid, sid);
        assert_eq!(args_of(&client.missed), [json!(["missed", n])]);
        client.say(json!(["me", "live", n])).await;
        let (event, next) = client.event().await;
        assert_eq!(event, json!(["live", n]));
        assert!(next != offset);
        offset = next;
    }
}

#[actix_rt::test]
async fn who_got_no_event_yet_comes_back_without_an_offset() {
    let server = server();
    let client = Client::enter(server.addr).await;
    let (sid, claim) = (client.sid.clone(), json!({ "pid": client.pid }));
    client.vanish(&server).await;
    let mut other = Client::enter(server.addr).await;
    other.say(json!(["others", "missed"])).await;
    other.state().await;
    let mut back = Client::enter_with(server.addr, &claim).await;
    assert_eq!(back.sid, sid);
    assert_eq!(args_of(&back.missed), [json!(["missed"])]);
    assert!(back.is_recovered().await);
}

#[actix_rt::test]
async fn binary_events_are_missed_with_their_attachments() {
    let server = server();
    let (client, mut other, offset) = two(&server).await;
    let claim = client.claim(&offset);
    client.vanish(&server).await;
    let event = r#"451-/r,["others","bytes",{"_placeholder":true,"num":0}]"#;
    other.websocket.send(event).await;
    other.websocket.send_binary(&[1, 2, 3]).await;
    other.state().await;
    let mut websocket = WebSocket::open(server.addr).await;
    websocket.send(&format!("40/r,{claim}")).await;
    let head = websocket.message().await;
    assert!(
        head.starts_with(r#"451-/r,["bytes",{"_placeholder":true,"num":0},""#),
        "{head}"
    );
    assert_eq!(
        websocket.next_but_pings().await,
        Frame::Binary(vec![1, 2, 3])
    );
    assert!(websocket.message().await.starts_with("40/r,{"));
}

#[actix_rt::test]
async fn polling_clients_come_back_as_well() {
    let server = server();
    let (client, mut other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    other.say(json!(["others", "a"])).await;
    other.say(json!(["others", "b"])).await;
    other.state().await;
    let poller = Poller::open(server.addr).await;
    poller.ok(&format!("40/r,{claim}")).await;
    let payload = poller.payload().await;
    let packets: Vec<_> = payload.split('\u{1e}').collect();
    assert_eq!(packets.len(), 3, "{payload}");
    assert_eq!(split(packets[0]).0, json!(["a"]));
    assert_eq!(split(packets[1]).0, json!(["b"]));
    assert!(
        packets[2].starts_with(&format!(r#"40/r,{{"sid":"{sid}","pid":""#)),
        "{payload}"
    );
}

// ---- who may not ----

/// Asserts that a claim is answered with a new session, and that nothing is closed.
async fn assert_new(server: &TestServer, claim: &Value, old: &str) {
    let mut client = Client::enter_with(server.addr, claim).await;
    assert!(client.sid != old && client.missed.is_empty(), "{claim}");
    assert!(!client.is_recovered().await, "{claim}");
}

#[actix_rt::test]
async fn whatever_is_no_valid_claim_makes_a_new_client_and_spoils_nothing() {
    let server = server();
    let elsewhere = self::server();
    let (other_servers, _its_peer, foreign) = two(&elsewhere).await;
    let foreign_pid = other_servers.pid.clone();
    other_servers.vanish(&elsewhere).await;
    let (client, _other, offset) = two(&server).await;
    let (sid, pid) = (client.sid.clone(), client.pid.clone());
    let valid = client.claim(&offset);
    assert_new(&server, &valid, &sid).await;
    client.vanish(&server).await;
    let guess: String = pid.chars().rev().collect();
    for claim in [
        // Guesses.
        json!({ "pid": guess, "offset": offset }),
        json!({ "pid": sid, "offset": offset }),
        json!({ "pid": "", "offset": offset }),
        json!({ "pid": pid[..19], "offset": offset }),
        json!({ "pid": "x".repeat(100_000), "offset": offset }),
        // Of a server that has no Redis in common with this one: good there.
        json!({ "pid": foreign_pid, "offset": foreign }),
        json!({ "pid": foreign_pid, "offset": offset }),
        // Wrong types.
        json!({ "pid": 7, "offset": offset }),
        json!({ "pid": null, "offset": offset }),
        json!({ "pid": [pid], "offset": offset }),
        json!({ "pid": { "toString": pid }, "offset": offset }),
        json!({ "pid": pid, "offset": 7 }),
        json!({ "pid": pid, "offset": null }),
        json!({ "pid": pid, "offset": [offset] }),
        json!({ "pid": pid, "offset": true }),
        // Offsets that were never given out: another epoch's, of the future, no offsets at all.
        json!({ "pid": pid, "offset": foreign }),
        json!({ "pid": pid, "offset": format!("{offset}0") }),
        json!({ "pid": pid, "offset": format!("{offset}.1") }),
        json!({ "pid": pid, "offset": format!("{offset} ") }),
        json!({ "pid": pid, "offset": format!("{}18446744073709551615", &offset[..8]) }),
        json!({ "pid": pid, "offset": "" }),
        json!({ "pid": pid, "offset": "Q86_c12" }),
        json!({ "pid": pid, "offset": "9".repeat(100_000) }),
        json!({ "offset": offset }),
    ] {
        assert_new(&server, &claim, &sid).await;
    }
    let mut back = Client::enter_with(server.addr, &valid).await;
    assert_eq!((&back.sid, &back.pid), (&sid, &pid));
    assert!(back.is_recovered().await);
}

#[actix_rt::test]
async fn a_session_is_had_once() {
    let server = server();
    let (client, _other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    let mut back = Client::enter_with(server.addr, &claim).await;
    assert_eq!(back.sid, sid);
    assert_new(&server, &claim, &sid).await;
    assert!(back.is_recovered().await, "the first is not disturbed");
}

#[actix_rt::test]
async fn of_clients_that_ask_at_the_same_time_one_gets_it() {
    let server = server();
    let (client, _other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    let asking = (0..20).map(|_| Client::enter_with(server.addr, &claim));
    let clients = futures_util::future::join_all(asking).await;
    let num = clients.iter().filter(|client| client.sid == sid).count();
    assert_eq!(num, 1);
}

#[actix_rt::test]
async fn someone_else_does_not_get_it_whatever_they_show() {
    let server = server();
    let ada = |claim: Value| {
        let mut auth = claim;
        auth["user"] = "ada".into();
        auth
    };
    let mut client = Client::enter_with(server.addr, &ada(json!({}))).await;
    client.say(json!(["me", "secret"])).await;
    let (_, offset) = client.event().await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    let mut eve = claim.clone();
    eve["user"] = "eve".into();
    for other in [eve, claim.clone()] {
        assert_new(&server, &other, &sid).await;
    }
    let back = Client::enter_with(server.addr, &ada(claim)).await;
    assert_eq!(back.sid, sid, "it is there for whom it is");
}

#[actix_rt::test]
async fn a_gateway_may_say_what_an_identity_is() {
    fn gateway(name: &str) -> Gateway {
        Gateway::new(name).authorize(|request| {
            let auth: Value = request.auth_as()?;
            Ok::<_, sockhop::gateways::Refusal>(json!({ "user": auth["user"], "at": auth["at"] }))
        })
    }
    let server = TestServer::of(
        |config| config.recovery = Some(RecoveryConfig::default()),
        |app| {
            app.gateway(gateway("/all"))
                .gateway(
                    gateway("/user").same_identity(|before, now| before["user"] == now["user"]),
                )
                .gateway(gateway("/panic").same_identity(|_, _| panic!("a test wants this")))
        },
    );
    for (namespace, now, expected) in [
        ("/all", json!({ "user": "ada", "at": 1 }), true),
        ("/all", json!({ "user": "ada", "at": 2 }), false),
        ("/user", json!({ "user": "ada", "at": 2 }), true),
        ("/user", json!({ "user": "eve", "at": 1 }), false),
        ("/panic", json!({ "user": "ada", "at": 1 }), false),
    ] {
        let ids = |reply: &str| {
            let json = reply.strip_prefix(&format!("40{namespace},")).unwrap();
            serde_json::from_str::<Value>(json).unwrap()
        };
        let (websocket, reply) =
            WebSocket::join(server.addr, namespace, r#"{"user":"ada","at":1}"#).await;
        let before = ids(&reply);
        drop(websocket);
        server.await_connections(0).await;
        let mut auth = now.clone();
        auth["pid"] = before["pid"].clone();
        let (websocket, reply) = WebSocket::join(server.addr, namespace, &auth.to_string()).await;
        assert_eq!(ids(&reply) == before, expected, "{namespace} {now}");
        drop(websocket);
        server.await_connections(0).await;
    }
}

#[actix_rt::test]
async fn a_gateway_is_asked_anew_and_its_refusal_stands() {
    let server = server();
    let (client, _other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    let mut banned = claim.clone();
    banned["refuse"] = true.into();
    let (_websocket, reply) = WebSocket::join(server.addr, "/r", &banned.to_string()).await;
    assert_eq!(reply, r#"44/r,{"message":"not you"}"#);
    let back = Client::enter_with(server.addr, &claim).await;
    assert_eq!(back.sid, sid, "a later answer may be another");
}

#[actix_rt::test]
async fn a_session_is_of_one_namespace() {
    let server = TestServer::of(
        |config| config.recovery = Some(RecoveryConfig::default()),
        |app| {
            app.gateway(recovery_gateway::gateway())
                .gateway(recovery_gateway::with_events(Gateway::new("/s")))
        },
    );
    let (client, _other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    let (_websocket, reply) = WebSocket::join(server.addr, "/s", &claim.to_string()).await;
    assert!(
        reply.starts_with("40/s,{") && !reply.contains(&sid),
        "{reply}"
    );
    assert_eq!(Client::enter_with(server.addr, &claim).await.sid, sid);
}

// ---- which ends ----

#[actix_rt::test]
async fn who_was_cut_off_may_come_back() {
    let server = server_with(RecoveryConfig::default(), |config| {
        config.engine.ping_interval = Duration::from_millis(200);
        config.engine.ping_timeout = Duration::from_millis(100);
    });
    for (end, reason) in [
        ("1", "transport close"),
        ("42/r,{}", "forced close"),
        ("ping timeout", "ping timeout"),
        ("abort", "transport error"),
    ] {
        let mut client = Client::enter(server.addr).await;
        client.say(json!(["me", "x"])).await;
        let (_, offset) = client.event().await;
        let (sid, claim) = (client.sid.clone(), client.claim(&offset));
        match end {
            // Reserved bits: a breach of RFC 6455.
            "abort" => client.websocket.frame(0xf1, b"x").await,
            "ping timeout" => {}
            packet => client.websocket.send(packet).await,
        }
        server.await_connections(0).await;
        let mut back = Client::enter_with(server.addr, &claim).await;
        assert_eq!(back.sid, sid, "{reason}");
        assert_eq!(back.state().await[3]["left"], reason);
        drop(back);
        server.await_connections(0).await;
    }
}

#[actix_rt::test]
async fn who_left_or_was_thrown_out_may_not_come_back() {
    let server = server();
    for end in [
        "41/r,",
        r#"42/r,["kick"]"#,
        r#"42/r,["hang-up"]"#,
        "no packet",
    ] {
        let mut client = Client::enter(server.addr).await;
        client.say(json!(["me", "x"])).await;
        let (_, offset) = client.event().await;
        let (sid, claim) = (client.sid.clone(), client.claim(&offset));
        client.websocket.send(end).await;
        match end {
            // Read before the end of the stream, and no handler runs for it.
            "41/r," => {}
            _ if end.contains("kick") => assert_eq!(client.websocket.message().await, "41/r,"),
            // If it left first, it would not have been thrown out.
            _ => _ = client.websocket.closed().await,
        }
        drop(client);
        server.await_connections(0).await;
        assert_new(&server, &claim, &sid).await;
        server.await_connections(0).await;
    }
}

#[actix_rt::test]
async fn who_goes_while_it_is_let_in_may_try_again() {
    let server = server();
    let (client, _other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    for _ in 0..20 {
        let mut websocket = WebSocket::open(server.addr).await;
        websocket.send(&format!("40/r,{claim}")).await;
        drop(websocket);
    }
    server.await_connections(1).await;
    assert_eq!(Client::enter_with(server.addr, &claim).await.sid, sid);
}

// ---- handlers ----

#[actix_rt::test]
async fn what_a_handler_sends_when_its_client_has_left_is_missed() {
    let server = server();
    let (mut client, mut other, offset) = two(&server).await;
    client.say(json!(["hold", "late", 7])).await;
    client.say(json!(["set", "last"])).await;
    client.say(json!(["me", "later"])).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    // It has read them when it reads a close behind them.
    client.websocket.send("1").await;
    client.websocket.assert_closed().await;
    other.ask(json!(["release"])).await;
    let mut back = Client::enter_with(server.addr, &claim).await;
    assert_eq!(back.sid, sid);
    assert_eq!(
        args_of(&back.missed),
        [json!(["late", 7]), json!(["later"])]
    );
    assert_eq!(
        back.state().await[3],
        json!({ "left": "transport close", "user": null, "value": "last" })
    );
}

#[actix_rt::test]
async fn an_ack_does_not_overtake_what_its_handler_sent() {
    let server = server();
    let mut client = Client::enter(server.addr).await;
    for how in ["me", "all", "me"] {
        let (before, _) = client.ask_amid(json!([how, "x"])).await;
        assert_eq!(before.len(), 1, "{how}");
    }
}

// ---- bounds ----

#[actix_rt::test]
async fn a_quiet_client_comes_back_however_old_its_offset_is() {
    let few = RecoveryConfig {
        max_log_events: 3,
        ..RecoveryConfig::default()
    };
    let server = server_with(few, |_| {});
    let (client, mut other, offset) = two(&server).await;
    other.ask(json!(["join", "red"])).await;
    for n in 0..10 {
        other.say(json!(["red", "noise", n])).await;
        other.event().await;
    }
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    other.say(json!(["others", "news"])).await;
    other.say(json!(["red", "noise"])).await;
    other.event().await;
    let back = Client::enter_with(server.addr, &claim).await;
    assert_eq!(back.sid, sid);
    assert_eq!(args_of(&back.missed), [json!(["news"])]);
}

#[actix_rt::test]
async fn who_missed_more_than_is_kept_is_new() {
    let small = RecoveryConfig {
        max_log_bytes: 20_000,
        ..RecoveryConfig::default()
    };
    let server = server_with(small, |_| {});
    let (client, mut other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    for _ in 0..30 {
        other.say(json!(["others", "x".repeat(1000)])).await;
    }
    other.state().await;
    assert_new(&server, &claim, &sid).await;
}

#[actix_rt::test]
async fn who_missed_more_than_can_be_sent_at_a_time_is_new_and_no_slow_reader() {
    let server = server();
    let (client, mut other, offset) = two(&server).await;
    let (sid, claim) = (client.sid.clone(), client.claim(&offset));
    client.vanish(&server).await;
    for _ in 0..9 {
        other.say(json!(["others", "x".repeat(500_000)])).await;
    }
    other.state().await;
    assert_new(&server, &claim, &sid).await;
}

#[actix_rt::test]
async fn whoever_left_first_is_forgotten_first() {
    let few = RecoveryConfig {
        max_sessions: 2,
        ..RecoveryConfig::default()
    };
    let server = server_with(few, |_| {});
    let mut claims = Vec::new();
    for _ in 0..3 {
        let client = Client::enter(server.addr).await;
        claims.push((client.sid.clone(), json!({ "pid": client.pid })));
        client.vanish(&server).await;
    }
    // None of them leaves again, which would make one too many.
    let mut clients = Vec::new();
    for (at, (sid, claim)) in claims.iter().enumerate() {
        let back = Client::enter_with(server.addr, claim).await;
        assert_eq!(back.sid == *sid, at > 0, "{at}");
        clients.push(back);
    }
}

#[actix_rt::test]
async fn who_is_away_too_long_is_new() {
    let short = RecoveryConfig {
        max_disconnection: Duration::from_millis(1),
        ..RecoveryConfig::default()
    };
    let server = server_with(short, |_| {});
    within("a client that is away for more than a millisecond", async {
        loop {
            let client = Client::enter(server.addr).await;
            let (sid, claim) = (client.sid.clone(), json!({ "pid": client.pid }));
            client.vanish(&server).await;
            let back = Client::enter_with(server.addr, &claim).await;
            if back.sid != sid {
                break;
            }
        }
    })
    .await;
}

#[actix_rt::test]
async fn who_is_away_is_nowhere_to_be_seen() {
    let server = TestServer::of(
        |config| config.recovery = Some(RecoveryConfig::default()),
        |app| {
            let gateway = Gateway::new("/r").on(
                "count",
                |socket: sockhop::gateways::SocketRef, (): ()| async move {
                    let all = socket.namespace_ref();
                    let sockets = all.fetch_sockets().await.map(|sockets| sockets.len());
                    let rooms = all.all_rooms().await.map(|rooms| rooms.len());
                    sockhop::gateways::Ack(json!([sockets.unwrap(), rooms.unwrap()]))
                },
            );
            app.gateway(gateway)
        },
    );
    let client = Client::enter(server.addr).await;
    let mut other = Client::enter(server.addr).await;
    assert_eq!(other.ask(json!(["count"])).await, json!([[2, 2]]));
    client.vanish(&server).await;
    assert_eq!(other.ask(json!(["count"])).await, json!([[1, 1]]));
}

// ---- old clients, other instances ----

#[actix_rt::test]
async fn clients_2x_have_no_part_in_it() {
    let server = server_with(RecoveryConfig::default(), |config| {
        config.engine.allow_eio3 = true;
    });
    let target = "/socket.io/?EIO=3&transport=websocket";
    let mut websocket = WebSocket::connect(server.addr, target).await;
    assert!(websocket.text().await.starts_with("0{"));
    websocket
        .send("40/r?pid=abcdefghijklmnopqrst&offset=x,")
        .await;
    assert_eq!(websocket.text().await, "40/r,");
    websocket.send(r#"42/r,["me","x",1]"#).await;
    assert_eq!(websocket.text().await, r#"42/r,["x",1]"#);
    drop(websocket);
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn events_of_other_instances_are_missed_here_and_a_session_stays_where_it_was() {
    for adapter in ["classic", "sharded"] {
        let redis = RedisServer::start();
        let adapter = match adapter {
            "classic" => sockhop::adapter::kind::AdapterKind::Classic,
            _ => sockhop::adapter::kind::AdapterKind::Sharded(Default::default()),
        };
        let (here, there) = pair_by(adapter, &redis.url(), |app| {
            app.gateway(recovery_gateway::gateway())
                .recovery(Some(RecoveryConfig::default()))
        })
        .await;
        let mut client = Client::enter(here.addr).await;
        client.ask(json!(["join", "red"])).await;
        let mut other = Client::enter(there.addr).await;
        // Its room crosses before it is away.
        let offset = within("an event crosses", async {
            loop {
                other.ask(json!(["red", "probe"])).await;
                let (before, _) = client.ask_amid(json!(["state"])).await;
                if let Some(packet) = before.last() {
                    break split(packet).1;
                }
            }
        })
        .await;
        let (sid, claim) = (client.sid.clone(), client.claim(&offset));
        // It was alone: nobody else keeps its namespace and its room of interest to its instance.
        client.vanish(&here).await;
        other.ask(json!(["red", "news", 1])).await;
        other.ask_amid(json!(["all", "elsewhere"])).await;
        // Its own events come by way of Redis, behind those of before.
        let mut witness = Client::enter(here.addr).await;
        within("what was sent has crossed", async {
            loop {
                other.ask_amid(json!(["all", "mark"])).await;
                let (before, _) = witness.ask_amid(json!(["state"])).await;
                if before.iter().any(|packet| packet.contains("mark")) {
                    break;
                }
            }
        })
        .await;
        let elsewhere = Client::enter_with(there.addr, &claim).await;
        assert!(elsewhere.sid != sid && elsewhere.missed.is_empty());
        let back = Client::enter_with(here.addr, &claim).await;
        assert_eq!(back.sid, sid);
        let missed: Vec<_> = args_of(&back.missed)
            .into_iter()
            .filter(|event| event[0] != "mark" && event[0] != "probe")
            .collect();
        assert_eq!(
            missed,
            [json!(["news", 1]), json!(["elsewhere"])],
            "{adapter:?}"
        );
    }
}

#[actix_rt::test]
async fn a_session_that_moved_is_known_where_it_went() {
    let redis = RedisServer::start();
    let (here, there) = pair_by(Default::default(), &redis.url(), |app| {
        app.gateway(recovery_gateway::gateway())
            .recovery(Some(RecoveryConfig::default()))
    })
    .await;
    for is_told_there in [true, false] {
        let poller = Poller::open(here.addr).await;
        poller.ok("40/r,").await;
        let reply = poller.payload().await;
        let ids: Value = serde_json::from_str(reply.strip_prefix("40/r,").unwrap()).unwrap();
        poller.ok(r#"42/r,["join","red"]"#).await;
        poller.ok(r#"42/r,["me","before"]"#).await;
        let (event, offset) = split(&poller.payload().await);
        assert_eq!(event, json!(["before"]));

        let mut websocket = WebSocket::connect(there.addr, &poller.upgrade_target()).await;
        websocket.send("2probe").await;
        assert_eq!(websocket.text().await, "3probe");
        websocket.send("5").await;
        let mut offset = Some(offset);
        if is_told_there {
            websocket.send(r#"42/r,["me","there"]"#).await;
            let (event, later) = split(&websocket.message().await);
            assert_eq!(event, json!(["there"]));
            offset = Some(later);
        } else {
            // It is there when it answers.
            websocket.send(r#"42/r,7["state"]"#).await;
            assert!(websocket.message().await.starts_with("43/r,7["));
        }
        drop(websocket);
        there.await_connections(0).await;
        here.await_connections(0).await;

        let mut other = Client::enter(there.addr).await;
        other.ask(json!(["red", "missed"])).await;
        let claim = json!({ "pid": ids["pid"], "offset": offset });
        let mut back = Client::enter_with(there.addr, &claim).await;
        assert_eq!(json!(back.sid), ids["sid"], "{is_told_there}");
        assert_eq!(args_of(&back.missed), [json!(["missed"])]);
        assert!(back.is_recovered().await);
        back.vanish(&there).await;
        other.vanish(&there).await;
    }
}

/// Reads events until `until` of them are known, or the next cut; pings are answered. Returns the offset of the last.
async fn read_some(client: &mut Client, seen: &mut Vec<u64>, until: usize) -> Option<String> {
    let mut offset = None;
    let mut packets = std::mem::take(&mut client.missed).into_iter();
    while seen.len() < until {
        let packet = match packets.next() {
            Some(packet) => packet,
            None => client.websocket.message().await,
        };
        let (event, at) = split(&packet);
        seen.push(event[1].as_u64().unwrap());
        offset = Some(at);
    }
    offset
}

#[actix_rt::test]
async fn under_a_steady_stream_each_event_comes_once_whenever_a_client_is_cut_off() {
    const NUM: u64 = 600;
    let server = server_with(RecoveryConfig::default(), |config| config.workers = 3);
    let addr = server.addr;
    let mut publisher = Client::enter(addr).await;
    let stream = async {
        for n in 0..NUM {
            publisher.say(json!(["others", "n", n])).await;
            if n % 7 == 0 {
                // Its answer shows that the hub has come so far.
                publisher.ask(json!(["here"])).await;
            }
        }
        publisher.state().await;
    };
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::enter(addr).await);
    }
    let following = clients
        .into_iter()
        .zip(1..)
        .map(|(mut client, nth)| async move {
            let sid = client.sid.clone();
            let (mut seen, mut offset) = (Vec::new(), None);
            let all = NUM as usize;
            while seen.len() < all {
                let until = all.min(seen.len() + 11 * nth);
                offset = read_some(&mut client, &mut seen, until).await.or(offset);
                let claim = client.claim(offset.as_deref().unwrap());
                // What comes before the close is read and forgotten, as if it had been lost on the way.
                client.websocket.send("1").await;
                client.websocket.closed().await;
                client = Client::enter_with(addr, &claim).await;
                assert_eq!(client.sid, sid);
            }
            assert!(seen.iter().copied().eq(0..NUM), "{nth}: {seen:?}");
        });
    futures_util::future::join(stream, futures_util::future::join_all(following)).await;
}
