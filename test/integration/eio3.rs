//! Clients of Engine.IO revision 3 (Socket.IO 2.x), where the settings let them in; and base64 in the place of binary, which
//! clients of either revision may ask for. Source: wire.md 1.1, 1.3, 1.6, 1.10, 2.3.

use std::time::Duration;

use serde_json::json;
use sockhop::{
    app::App,
    gateways::{Event, Gateway, SocketRef},
};

use crate::support::{
    http::{self, Answer, Pending},
    server::TestServer,
    websocket::{Frame, WebSocket},
    within,
};

const POLLING: &str = "/socket.io/?EIO=3&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=3&transport=websocket";

fn server() -> TestServer {
    TestServer::with(|config| config.engine.allow_eio3 = true)
}

/// An echo that stands on Engine.IO alone.
fn echo_server() -> TestServer {
    TestServer::of(
        |config| config.engine.allow_eio3 = true,
        |app| app.bare_engine_io("/engine.io/", Some),
    )
}

/// The text payload of these packets.
fn payload(packets: &[&str]) -> String {
    packets
        .iter()
        .map(|packet| format!("{}:{packet}", packet.encode_utf16().count()))
        .collect()
}

/// Takes a text payload apart.
fn packets(payload: &str) -> Vec<String> {
    let units: Vec<u16> = payload.encode_utf16().collect();
    let mut rest = &units[..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let colon = rest
            .iter()
            .position(|unit| *unit == u16::from(b':'))
            .unwrap();
        let len: usize = String::from_utf16(&rest[..colon]).unwrap().parse().unwrap();
        packets.push(String::from_utf16(&rest[colon + 1..][..len]).unwrap());
        rest = &rest[colon + 1 + len..];
    }
    packets
}

/// A session on polling, as a client of revision 3 has it.
struct Poller {
    server: std::net::SocketAddr,
    target: String,
    sid: String,
}

impl Poller {
    async fn open(server: &TestServer, target: &str) -> Self {
        let answer = http::get(server.addr, target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let open = packets(answer.text());
        let open: serde_json::Value =
            serde_json::from_str(open[0].strip_prefix('0').unwrap()).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self {
            server: server.addr,
            target: format!("{target}&sid={sid}"),
            sid,
        }
    }

    /// Opens a session of Socket.IO and waits until it is in `/`; the `auth` event is read.
    async fn join_main(server: &TestServer) -> Self {
        let poller = Self::open(server, POLLING).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(poller.packets().await);
        }
        assert_eq!(seen, ["40", r#"42["auth",{}]"#]);
        poller
    }

    async fn get(&self) -> Answer {
        http::get(self.server, &self.target).await
    }

    async fn packets(&self) -> Vec<String> {
        let answer = self.get().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=UTF-8")
        );
        packets(answer.text())
    }

    /// Sends a GET and leaves its answer for later; it is parked when this returns.
    async fn begin_get(&self) -> Pending {
        let request = http::request("GET", &self.target, &[], b"");
        let pending = Pending::send(self.server, &request).await;
        assert_eq!(http::get(self.server, "/healthz").await.status, 200);
        pending
    }

    async fn ok(&self, packets: &[&str]) {
        let answer = http::post(self.server, &self.target, payload(packets).as_bytes()).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }

    async fn ok_binary(&self, body: &[u8]) {
        let headers = ["Content-Type: application/octet-stream"];
        let answer = http::send(self.server, "POST", &self.target, &headers, body).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }

    async fn probe(&self, query: &str) -> WebSocket {
        let target = format!("{WEBSOCKET}&sid={}{query}", self.sid);
        WebSocket::connect(self.server, &target).await
    }

    async fn assert_gone(&self) {
        let answer = self.get().await;
        assert_eq!(answer.json()["code"], 1, "{answer:?}");
    }
}

/// Opens a session on a WebSocket; returns its sid.
async fn open_websocket(server: &TestServer, target: &str) -> (WebSocket, String) {
    let mut websocket = WebSocket::connect(server.addr, target).await;
    let open = websocket.text().await;
    let open: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    (websocket, open["sid"].as_str().unwrap().to_owned())
}

/// Opens a session of Socket.IO on a WebSocket and waits until it is in `/`.
async fn join_main(server: &TestServer, target: &str) -> WebSocket {
    let (mut websocket, _) = open_websocket(server, target).await;
    assert_eq!(websocket.text().await, "40");
    assert_eq!(websocket.text().await, r#"42["auth",{}]"#);
    websocket
}

// ---- handshake ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn any_eio_but_4_opens_a_session_of_revision_3() {
    let server = server();
    for query in ["", "EIO=3&", "EIO=4abc&", "EIO=2&"] {
        let target = format!("/socket.io/?{query}transport=polling");
        let answer = http::get(server.addr, &target).await;
        assert_eq!(answer.status, 200, "{query}");
        let open = packets(answer.text());
        assert_eq!(open.len(), 1);
        let open: serde_json::Value =
            serde_json::from_str(open[0].strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        assert_eq!(open["pingInterval"], 25_000);
    }
    let answer = http::get(server.addr, "/socket.io/?EIO=4&transport=polling").await;
    assert!(answer.text().starts_with("0{"), "revision 4 beside it");
}

#[actix_rt::test]
async fn a_session_is_spoken_to_in_its_own_revision_alone() {
    let server = server();
    let old = Poller::join_main(&server).await;
    let new = http::Poller::join_main(server.addr).await;
    for (sid, eio) in [(&old.sid, 4), (&new.sid, 3)] {
        let query = format!("EIO={eio}&transport=polling&sid={sid}");
        let answer = http::get(server.addr, &format!("/socket.io/?{query}")).await;
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({ "code": 3, "message": "Bad request" }))
        );
        let query = format!("EIO={eio}&transport=websocket&sid={sid}");
        let request =
            crate::support::websocket::upgrade_request(&format!("/socket.io/?{query}"), &[]);
        let answer = Pending::send(server.addr, &request).await.answer().await;
        assert_eq!((answer.status, answer.text()), (400, "Bad request"));
    }
    old.ok(&[r#"420["message-with-ack",1]"#]).await;
    assert_eq!(old.packets().await, ["430[1]"], "both survive that");
    new.ok(r#"420["message-with-ack",1]"#).await;
    assert_eq!(new.payload().await, "430[1]");
}

// ---- payloads -----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn lengths_count_utf16_both_ways() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let texts = ["plain", "é€漢", "🙂🏽", "a:b,5:4x"];
    let events = texts.map(|text| format!(r#"42["message","{text}"]"#));
    poller.ok(&events.each_ref().map(String::as_str)).await;
    let mut seen = Vec::new();
    while seen.len() < texts.len() {
        seen.extend(poller.packets().await);
    }
    assert_eq!(
        seen,
        texts.map(|text| format!(r#"42["message-back","{text}"]"#))
    );
}

#[actix_rt::test]
async fn binary_travels_in_binary_payloads_both_ways() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let event = r#"451-["message","é",{"_placeholder":true,"num":0}]"#;
    let reply = r#"451-["message-back","é",{"_placeholder":true,"num":0}]"#;
    let digits =
        |len: usize| -> Vec<u8> { len.to_string().bytes().map(|digit| digit - b'0').collect() };
    let body = |text: &str| {
        let mut body = vec![0];
        body.extend(digits(text.len()));
        body.push(0xff);
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(&[1, 5, 0xff, 4, 0, 1, 0xfe, 0xff]);
        body
    };
    poller.ok_binary(&body(event)).await;
    let answer = poller.get().await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.body, body(reply));

    poller.ok(&[event, "b4AAH+/w=="]).await;
    let answer = poller.get().await;
    assert_eq!(answer.body, body(reply), "base64 is taken as well");
}

#[actix_rt::test]
async fn whoever_asks_for_base64_gets_text_payloads() {
    let server = server();
    let poller = Poller::open(&server, &format!("{POLLING}&b64=1")).await;
    let event = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    poller.ok(&[event, "b4AQIDBA=="]).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(poller.packets().await);
    }
    assert_eq!(
        seen[2..],
        [
            r#"451-["message-back",{"_placeholder":true,"num":0}]"#.to_owned(),
            "b4AQIDBA==".to_owned()
        ]
    );
}

#[actix_rt::test]
async fn a_malformed_payload_ends_the_session_behind_the_packets_before_it() {
    let server = server();
    for (content_type, body) in [
        ("text/plain", &b"4hello"[..]),
        ("text/plain", b""),
        ("text/plain", b"99999999999999999999:4"),
        ("text/plain", b"2:4"),
        ("application/octet-stream", b"\x00\x09\x09\x09\xff4"),
        ("application/octet-stream", b"\x00\x02\xff"),
        ("application/octet-stream", b"\x07\x01\xff4"),
    ] {
        let poller = Poller::join_main(&server).await;
        let parked = poller.begin_get().await;
        let headers = [format!("Content-Type: {content_type}")];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = http::send(server.addr, "POST", &poller.target, &headers, body).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{body:?}");
        assert_eq!(parked.answer().await.text(), "1:1", "{body:?}");
        poller.assert_gone().await;
    }
}

#[actix_rt::test]
async fn what_stands_before_a_bad_packet_is_taken() {
    let (seen, mut events) = tokio::sync::mpsc::unbounded_channel();
    let server = TestServer::of(
        |config| config.engine.allow_eio3 = true,
        move |app: App| {
            app.gateway(Gateway::new("/").on_other(move |_, event: Event| {
                let seen = seen.clone();
                async move { seen.send(event.name().to_owned()).unwrap() }
            }))
        },
    );
    let good = payload(&[r#"42["first"]"#]);
    for bad in ["999999:4x", "2:9x", "x"] {
        let poller = Poller::open(&server, POLLING).await;
        assert_eq!(poller.packets().await, ["40"]);
        let body = format!("{good}{bad}{good}");
        let answer = http::post(server.addr, &poller.target, body.as_bytes()).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
        let first = within("the event before the bad packet", events.recv()).await;
        assert_eq!(first.as_deref(), Some("first"));
        poller.assert_gone().await;
    }
    assert!(events.try_recv().is_err(), "nothing behind it");
}

#[actix_rt::test]
async fn a_body_of_nothing_but_pings_is_answered_as_fast_as_the_client_reads_and_no_faster() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let num_pings = 300_000;
    let body = "1:2".repeat(num_pings);
    let request = http::request("POST", &poller.target, &[], body.as_bytes());
    let posted = Pending::send(server.addr, &request).await;
    let mut num_pongs = 0;
    let mut largest = 0;
    while num_pongs < num_pings {
        let payload = poller.get().await.body;
        assert!(payload.chunks(3).all(|packet| packet == b"1:3"));
        largest = largest.max(payload.len() / 3);
        num_pongs += payload.len() / 3;
    }
    assert_eq!(posted.answer().await.text(), "ok");
    assert_eq!(num_pongs, num_pings);
    assert!(largest < num_pings / 2, "{largest} waited at a time");
}

#[actix_rt::test]
async fn a_close_packet_ends_the_session() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let parked = poller.begin_get().await;
    poller.ok(&["1"]).await;
    assert_eq!(parked.answer().await.text(), "1:6");
    poller.assert_gone().await;
}

// ---- WebSocket ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn binary_frames_begin_with_the_type() {
    let server = echo_server();
    let (mut websocket, _) = open_websocket(&server, "/engine.io/?EIO=3&transport=websocket").await;
    websocket.send("4text").await;
    assert_eq!(websocket.text().await, "4text");
    websocket.send_binary(&[4, 1, 2, 3]).await;
    assert_eq!(websocket.next().await, Frame::Binary(vec![4, 1, 2, 3]));
    websocket.send_binary(&[4]).await;
    assert_eq!(websocket.next().await, Frame::Binary(vec![4]));
    websocket.send("b4AQID").await;
    assert_eq!(websocket.next().await, Frame::Binary(vec![4, 1, 2, 3]));
    websocket.send_binary(&[1, 2, 3]).await;
    websocket.assert_closed().await;
}

#[actix_rt::test]
async fn base64_is_sent_as_text_frames_in_either_revision() {
    let server = echo_server();
    for (eio, message) in [(3, "b4AQID"), (4, "bAQID")] {
        let target = format!("/engine.io/?EIO={eio}&transport=websocket&b64=1");
        let (mut websocket, _) = open_websocket(&server, &target).await;
        websocket.send(message).await;
        assert_eq!(websocket.text().await, message);
        websocket
            .send_binary(if eio == 3 { &[4, 1, 2, 3] } else { &[1, 2, 3] })
            .await;
        assert_eq!(websocket.text().await, message, "binary is still taken");
    }
}

#[actix_rt::test]
async fn a_frame_that_is_no_packet_ends_the_session() {
    let server = echo_server();
    for frame in ["", "bAQID", "9", "b"] {
        let (mut websocket, _) =
            open_websocket(&server, "/engine.io/?EIO=3&transport=websocket").await;
        websocket.send(frame).await;
        websocket.assert_closed().await;
    }
}

// ---- the upgrade --------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn a_session_moves_to_the_websocket() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let parked = poller.begin_get().await;
    let mut websocket = poller.probe("").await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    assert_eq!(parked.answer().await.text(), "1:6");
    let event = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    // Taken while polling still is the transport: the answer waits for whichever comes next.
    poller.ok(&[event, "b4AQID"]).await;
    websocket.send("5").await;
    assert_eq!(
        websocket.text().await,
        r#"451-["message-back",{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(websocket.next().await, Frame::Binary(vec![4, 1, 2, 3]));
    assert_eq!(poller.get().await.json()["code"], 3, "polling is over");
    websocket.send("2").await;
    assert_eq!(websocket.text().await, "3");
}

#[actix_rt::test]
async fn base64_of_a_websocket_is_its_own_not_that_of_the_polling_before_it() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    let mut websocket = poller.probe("&b64=1").await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.send("5").await;
    let event = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    websocket.send(event).await;
    websocket.send_binary(&[4, 1, 2, 3]).await;
    assert!(websocket.text().await.starts_with("451-"));
    assert_eq!(websocket.text().await, "b4AQID");
}

// ---- heartbeat ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn the_client_pings_and_the_server_answers_with_the_same_data() {
    let server = server();
    let mut websocket = join_main(&server, WEBSOCKET).await;
    for data in ["", "probe", "é🙂"] {
        websocket.send(&format!("2{data}")).await;
        assert_eq!(websocket.text().await, format!("3{data}"));
    }
    let poller = Poller::join_main(&server).await;
    poller.ok(&["2", "2x"]).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(poller.packets().await);
    }
    assert_eq!(seen, ["3", "3x"]);
}

#[actix_rt::test]
async fn a_pong_of_the_client_ends_the_session() {
    let server = server();
    let mut websocket = join_main(&server, WEBSOCKET).await;
    websocket.send("3").await;
    websocket.assert_closed().await;
}

/// Opens a session that pings for two of these windows, and is answered. Returns whether its pings were in time: if they were not, nothing
/// is asserted.
async fn pings_in_time(server: &TestServer, window: Duration) -> bool {
    let mut pinged = std::time::Instant::now();
    let (mut alive, _) = open_websocket(server, WEBSOCKET).await;
    assert_eq!(alive.text().await, "40");
    let started = std::time::Instant::now();
    while started.elapsed() < 2 * window {
        alive.try_send("2").await;
        let answer = alive.next().await;
        if pinged.elapsed() > window / 2 {
            return false;
        }
        assert_eq!(answer, Frame::Text("3".to_owned()));
        pinged = std::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

#[actix_rt::test]
async fn a_client_that_does_not_ping_is_timed_out_and_one_that_pings_is_not() {
    let (reasons, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let server = TestServer::of(
        |config| {
            config.engine.allow_eio3 = true;
            config.engine.ping_interval = Duration::from_millis(1000);
            config.engine.ping_timeout = Duration::from_millis(500);
        },
        move |app: App| {
            app.gateway(Gateway::new("/").on_disconnect(move |_, reason| {
                let reasons = reasons.clone();
                async move { reasons.send(reason.as_str()).unwrap() }
            }))
        },
    );
    let window = Duration::from_millis(1500);
    let started = std::time::Instant::now();
    let (mut silent, _) = open_websocket(&server, WEBSOCKET).await;
    assert_eq!(silent.text().await, "40");
    // Messages do not count as pings, and no ping of the server comes in between.
    silent.send(r#"42["x"]"#).await;
    silent.assert_closed().await;
    assert!(started.elapsed() >= window, "not before");
    let reason = within("the end of the silent one", ended.recv()).await;
    assert_eq!(reason, Some("ping timeout"));

    // Anew, if it was this test that stood still for so long that no ping of it can have been in time.
    within("two windows with a ping in time all along", async {
        while !pings_in_time(&server, window).await {}
    })
    .await;
}

// ---- Socket.IO ----------------------------------------------------------------------------------------------------------

fn id_gateway(name: &str) -> Gateway {
    Gateway::new(name)
        .authorize(|request| async move {
            let auth: serde_json::Value = request.auth_as().unwrap();
            match auth["refuse"].as_str() {
                None => Ok(auth),
                Some(why) => Err(sockhop::gateways::Refusal {
                    message: "no".to_owned(),
                    data: serde_json::from_str(why).ok(),
                }),
            }
        })
        .on_connect(|socket| async move {
            socket
                .emit("you", (socket.id().as_str(), socket.data()))
                .unwrap();
        })
}

fn id_server() -> TestServer {
    TestServer::of(
        |config| config.engine.allow_eio3 = true,
        |app| app.gateway(id_gateway("/")).gateway(id_gateway("/chat")),
    )
}

#[actix_rt::test]
async fn the_socket_id_is_the_session_id_and_the_query_of_a_namespace_its_auth() {
    let server = id_server();
    let (mut websocket, sid) = open_websocket(&server, WEBSOCKET).await;
    assert_eq!(websocket.text().await, "40");
    assert_eq!(websocket.text().await, format!(r#"42["you","{sid}",{{}}]"#));
    websocket.send("40/chat?token=a%20b&x=1,").await;
    assert_eq!(websocket.text().await, "40/chat,");
    assert_eq!(
        websocket.text().await,
        format!(r#"42/chat,["you","/chat#{sid}",{{"token":"a b","x":"1"}}]"#)
    );
    websocket.send("41/chat").await;
    websocket.send("40/chat").await;
    assert_eq!(websocket.text().await, "40/chat,");
    assert_eq!(
        websocket.text().await,
        format!(r#"42/chat,["you","/chat#{sid}",{{}}]"#),
        "it comes back under the same id"
    );
}

#[actix_rt::test]
async fn a_client_that_comes_back_under_its_id_waits_until_its_handlers_have_ended() {
    let (log, mut logged) = tokio::sync::mpsc::unbounded_channel();
    let may_end = std::sync::Arc::new(tokio::sync::Notify::new());
    let waiting = std::sync::Arc::clone(&may_end);
    let server = TestServer::of(
        |config| config.engine.allow_eio3 = true,
        move |app: App| {
            let connected = log.clone();
            let gateway = Gateway::new("/chat")
                .on_connect(move |_| {
                    let log = connected.clone();
                    async move { log.send("connect").unwrap() }
                })
                .on("late", move |socket: SocketRef, (): ()| {
                    let waiting = std::sync::Arc::clone(&waiting);
                    async move {
                        waiting.notified().await;
                        socket.join("room").await
                    }
                })
                .on("to-room", |socket: SocketRef, (): ()| async move {
                    let room = socket.namespace_ref().to("room");
                    room.emit("in the room", ()).await
                })
                .on_disconnect(move |_, _| {
                    let log = log.clone();
                    async move { log.send("disconnect").unwrap() }
                });
            app.gateway(gateway)
        },
    );
    let (mut websocket, _) = open_websocket(&server, WEBSOCKET).await;
    websocket.send("40/chat").await;
    assert_eq!(websocket.text().await, "40/chat,");
    assert_eq!(within("on_connect", logged.recv()).await, Some("connect"));
    for packet in [r#"42/chat,["late"]"#, "41/chat", "40/chat", "2"] {
        websocket.send(packet).await;
    }
    assert_eq!(websocket.text().await, "3", "it is not in again yet");
    may_end.notify_one();
    assert_eq!(websocket.text().await, "40/chat,");
    for expected in ["disconnect", "connect"] {
        assert_eq!(within(expected, logged.recv()).await, Some(expected));
    }
    websocket.send(r#"42/chat,1["to-room"]"#).await;
    assert_eq!(
        websocket.text().await,
        "43/chat,1[]",
        "the room of its earlier membership is not its room now"
    );
}

#[actix_rt::test]
async fn a_refusal_is_an_error_packet_of_the_data_or_the_message() {
    let server = id_server();
    let (mut websocket, _) = open_websocket(&server, WEBSOCKET).await;
    assert_eq!(websocket.text().await, "40");
    assert!(websocket.text().await.starts_with(r#"42["you","#));
    for (query, refusal) in [
        ("refuse=none", r#"44/chat,"no""#),
        ("refuse={\"code\":7}", r#"44/chat,{"code":7}"#),
    ] {
        websocket.send(&format!("40/chat?{query}")).await;
        assert_eq!(websocket.text().await, refusal);
    }
    websocket.send("40/nowhere?a=b,").await;
    assert_eq!(
        websocket.text().await,
        r#"44/nowhere,{"message":"Invalid namespace"}"#
    );
    websocket.send("40/chat").await;
    assert_eq!(
        websocket.text().await,
        "40/chat,",
        "the connection lives on"
    );
}

#[actix_rt::test]
async fn joining_the_main_namespace_again_ends_the_connection_once_it_was_used() {
    let server = server();
    let mut websocket = join_main(&server, WEBSOCKET).await;
    websocket.send("40").await;
    websocket.send("2").await;
    assert_eq!(websocket.text().await, "3", "ignored so far");
    websocket.send(r#"42["nobody handles this"]"#).await;
    websocket.send("40").await;
    websocket.assert_closed().await;
}

#[actix_rt::test]
async fn without_a_main_namespace_a_client_may_join_another_and_else_is_told_at_the_end() {
    let server = TestServer::of(
        |config| {
            config.engine.allow_eio3 = true;
            config.engine.connect_timeout = Duration::from_secs(2);
        },
        |app| app.gateway(id_gateway("/chat")),
    );
    let (mut waiting, _) = open_websocket(&server, WEBSOCKET).await;
    let (mut joined, sid) = open_websocket(&server, WEBSOCKET).await;
    joined.send("40/chat").await;
    assert_eq!(joined.text().await, "40/chat,");
    assert_eq!(waiting.text().await, r#"44{"message":"Invalid namespace"}"#);
    waiting.assert_closed().await;
    joined.send("2").await;
    assert_eq!(
        joined.text().await,
        format!(r#"42/chat,["you","/chat#{sid}",{{}}]"#)
    );
    assert_eq!(joined.text().await, "3", "its time-out is over");
}

#[actix_rt::test]
async fn a_broadcast_reaches_clients_of_both_revisions_each_in_its_form() {
    let server = server();
    let mut old = open_websocket(&server, WEBSOCKET).await.0;
    assert_eq!(old.text().await, "40");
    assert_eq!(old.text().await, r#"42["auth",{}]"#);
    let mut base64 = join_main(&server, &format!("{WEBSOCKET}&b64=1")).await;
    let polling = Poller::join_main(&server).await;
    for websocket in [&mut old, &mut base64] {
        websocket.send("40/test").await;
        assert_eq!(websocket.text().await, "40/test,");
    }
    polling.ok(&["40/test"]).await;
    assert_eq!(polling.packets().await, ["40/test,"]);
    let (mut new, reply) = WebSocket::join(server.addr, "/test", "{}").await;
    assert!(reply.starts_with(r#"40/test,{"sid":""#));
    let (mut new_base64, reply) = {
        let target = "/socket.io/?EIO=4&transport=websocket&b64=1";
        let (mut websocket, _) = open_websocket(&server, target).await;
        websocket.send("40/test").await;
        let reply = websocket.text().await;
        (websocket, reply)
    };
    assert!(reply.starts_with(r#"40/test,{"sid":""#));

    let parked = polling.begin_get().await;
    let header = r#"451-/test,["broadcast-then-ack",{"_placeholder":true,"num":0}]"#;
    new.send(header).await;
    new.send_binary(&[1, 2, 3]).await;
    for websocket in [&mut new, &mut new_base64, &mut old, &mut base64] {
        assert_eq!(websocket.text().await, header);
    }
    assert_eq!(new.next().await, Frame::Binary(vec![1, 2, 3]));
    assert_eq!(new_base64.next().await, Frame::Text("bAQID".to_owned()));
    assert_eq!(old.next().await, Frame::Binary(vec![4, 1, 2, 3]));
    assert_eq!(base64.next().await, Frame::Text("b4AQID".to_owned()));
    let answer = parked.answer().await;
    let expected = [
        &[0, 6, 2, 0xff][..],
        header.as_bytes(),
        &[1, 4, 0xff, 4, 1, 2, 3],
    ]
    .concat();
    assert_eq!(header.len(), 62);
    assert_eq!(answer.body, expected);

    old.send(header).await;
    old.send_binary(&[4, 9]).await;
    assert_eq!(new.text().await, header, "and from the old to the new");
    assert_eq!(new.next().await, Frame::Binary(vec![9]));
}

#[actix_rt::test]
async fn acks_go_both_ways() {
    let server = server();
    let mut websocket = join_main(&server, WEBSOCKET).await;
    websocket.send("40/test").await;
    assert_eq!(websocket.text().await, "40/test,");
    websocket.send(r#"42/test,7["sum",1,2]"#).await;
    assert_eq!(websocket.text().await, "43/test,7[3]");
    websocket.send(r#"42/test,8["ask-me",20000]"#).await;
    let question = websocket.text().await;
    let id = question
        .strip_prefix("42/test,")
        .and_then(|rest| rest.strip_suffix(r#"["question","what?"]"#))
        .unwrap_or_else(|| panic!("{question}"));
    let reply = format!(r#"461-/test,{id}["x",{{"_placeholder":true,"num":0}}]"#);
    websocket.send(&reply).await;
    websocket.send_binary(&[4, 5, 6]).await;
    assert_eq!(websocket.text().await, r#"43/test,8[["x",[5,6]]]"#);
}

#[actix_rt::test]
async fn a_session_that_is_ended_by_the_server_says_so_to_its_poll() {
    let server = server();
    let poller = Poller::join_main(&server).await;
    poller.ok(&["40/test"]).await;
    assert_eq!(poller.packets().await, ["40/test,"]);
    let parked = poller.begin_get().await;
    poller.ok(&[r#"42/test,["hang-up"]"#]).await;
    let mut seen = packets(parked.answer().await.text());
    while seen.last().map(String::as_str) != Some("1") {
        seen.extend(poller.packets().await);
    }
    seen.sort();
    assert!(
        seen.contains(&"41".to_owned()) && seen.contains(&"41/test,".to_owned()),
        "{seen:?}"
    );
}
