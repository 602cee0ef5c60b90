//! Every case of the protocols' official suites, against `examples/conformance.rs`.
//!
//! `engine_…` are the 25 of Engine.IO at `/engine.io/`, `socket_…` the 32 of Socket.IO at `/socket.io/`, 16 of which are
//! Engine.IO's own once more. A case of both suites is one function here, called for each path.
//!
//! Each case has an instance of its own, or all share what listens at `CONFORMANCE_ADDR`: test/client/conformance.test.mjs puts several
//! instances and a balancer there.
//!
//! Source: wire.md 8; `docs/engine.io-protocol/v4-test-suite` and `docs/socket.io-protocol/v5-test-suite` of
//! socketio/socket.io.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::{
    conformance,
    http::{self, Pending, Poller},
    server::TestServer,
    websocket::{Frame, WebSocket, upgrade_request},
    within,
};

const ENGINE_IO: &str = "/engine.io/";
const SOCKET_IO: &str = "/socket.io/";

/// From the open packet to the end of a session that answers no ping.
const PING_INTERVAL_AND_TIMEOUT: Duration = Duration::from_millis(500);

/// What a case connects to.
struct Place {
    addr: SocketAddr,
    own: Option<TestServer>,
}

fn start() -> Place {
    if let Some(addr) = std::env::var_os("CONFORMANCE_ADDR") {
        let addr = addr.to_str().unwrap().parse().unwrap();
        return Place { addr, own: None };
    }
    let own = TestServer::of_app(conformance::configure, conformance::app);
    Place {
        addr: own.addr,
        own: Some(own),
    }
}

/// Declares a test for each case that the suites share: a function below, and the path that it is called for.
macro_rules! shared_cases {
    ($($name:ident: $case:ident at $path:ident;)+) => {
        $(
            #[actix_rt::test]
            async fn $name() {
                $case(&start(), $path).await;
            }
        )+
    };
}

shared_cases! {
    engine_01_polling_handshake: polling_handshake at ENGINE_IO;
    engine_02_polling_handshake_with_an_invalid_eio: polling_invalid_eio at ENGINE_IO;
    engine_03_polling_handshake_with_an_invalid_transport: polling_invalid_transport at ENGINE_IO;
    engine_04_handshake_by_post_or_put: invalid_method at ENGINE_IO;
    engine_05_websocket_handshake: websocket_handshake at ENGINE_IO;
    engine_06_websocket_handshake_with_an_invalid_eio: websocket_invalid_eio at ENGINE_IO;
    engine_07_websocket_handshake_with_an_invalid_transport: websocket_invalid_transport at ENGINE_IO;
    engine_17_polling_heartbeat: polling_heartbeat at ENGINE_IO;
    engine_18_polling_ping_timeout: polling_ping_timeout at ENGINE_IO;
    engine_19_websocket_heartbeat: websocket_heartbeat at ENGINE_IO;
    engine_20_websocket_ping_timeout: websocket_ping_timeout at ENGINE_IO;
    engine_21_polling_close: polling_close at ENGINE_IO;
    engine_22_websocket_close: websocket_close at ENGINE_IO;

    socket_engine_01_polling_handshake: polling_handshake at SOCKET_IO;
    socket_engine_02_polling_handshake_with_an_invalid_eio: polling_invalid_eio at SOCKET_IO;
    socket_engine_03_polling_handshake_with_an_invalid_transport: polling_invalid_transport at SOCKET_IO;
    socket_engine_04_handshake_by_post_or_put: invalid_method at SOCKET_IO;
    socket_engine_05_websocket_handshake: websocket_handshake at SOCKET_IO;
    socket_engine_06_websocket_handshake_with_an_invalid_eio: websocket_invalid_eio at SOCKET_IO;
    socket_engine_07_websocket_handshake_with_an_invalid_transport: websocket_invalid_transport at SOCKET_IO;
    socket_engine_08_polling_heartbeat: polling_heartbeat at SOCKET_IO;
    socket_engine_09_polling_ping_timeout: polling_ping_timeout at SOCKET_IO;
    socket_engine_10_websocket_heartbeat: websocket_heartbeat at SOCKET_IO;
    socket_engine_11_websocket_ping_timeout: websocket_ping_timeout at SOCKET_IO;
    socket_engine_12_polling_close: polling_close at SOCKET_IO;
    socket_engine_13_websocket_close: websocket_close at SOCKET_IO;
}

// ---- what both suites ask for ----

/// Checks an open packet: exactly these five keys, and the suites' values.
fn assert_open_packet(packet: &str, upgrades: &[&str]) {
    let open: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
    let sid = open["sid"].as_str().unwrap();
    assert_eq!(
        open,
        json!({
            "sid": sid,
            "upgrades": upgrades,
            "pingInterval": 300,
            "pingTimeout": 200,
            "maxPayload": 1_000_000,
        })
    );
}

async fn polling_handshake(server: &Place, path: &str) {
    let answer = http::get(server.addr, &format!("{path}?EIO=4&transport=polling")).await;
    assert_eq!(answer.status, 200);
    assert_open_packet(answer.text(), &["websocket"]);
}

async fn assert_refused(server: &Place, method: &str, target: &str, code: u8) {
    let answer = http::send(server.addr, method, target, &[], b"").await;
    assert_eq!(answer.status, 400, "{method} {target}");
    assert_eq!(answer.json()["code"], code, "{method} {target}");
}

async fn polling_invalid_eio(server: &Place, path: &str) {
    for query in ["transport=polling", "EIO=abc&transport=polling"] {
        assert_refused(server, "GET", &format!("{path}?{query}"), 5).await;
    }
}

async fn polling_invalid_transport(server: &Place, path: &str) {
    for query in ["EIO=4", "EIO=4&transport=abc"] {
        assert_refused(server, "GET", &format!("{path}?{query}"), 0).await;
    }
}

async fn invalid_method(server: &Place, path: &str) {
    let target = format!("{path}?EIO=4&transport=polling");
    for method in ["POST", "PUT"] {
        assert_refused(server, method, &target, 2).await;
    }
}

async fn websocket_handshake(server: &Place, path: &str) {
    let target = format!("{path}?EIO=4&transport=websocket");
    let mut websocket = WebSocket::connect(server.addr, &target).await;
    assert_open_packet(&websocket.text().await, &[]);
}

/// Asserts that an upgrade is refused in plain HTTP, and the connection ended, which is all that a WebSocket client sees.
async fn assert_upgrade_refused(server: &Place, target: &str, message: &str) {
    let mut pending = Pending::send(server.addr, &upgrade_request(target, &[])).await;
    let mut all = String::new();
    within("the end", pending.stream.read_to_string(&mut all))
        .await
        .unwrap();
    assert!(all.starts_with("HTTP/1.1 400 "), "{target}: {all}");
    // Advice may follow.
    let body = format!("\r\n\r\n{message}");
    assert!(all.contains(&body), "{target}: {all}");
}

async fn websocket_invalid_eio(server: &Place, path: &str) {
    for query in ["transport=websocket", "EIO=abc&transport=websocket"] {
        let target = format!("{path}?{query}");
        assert_upgrade_refused(server, &target, "Unsupported protocol version").await;
    }
}

async fn websocket_invalid_transport(server: &Place, path: &str) {
    for query in ["EIO=4", "EIO=4&transport=abc"] {
        assert_upgrade_refused(server, &format!("{path}?{query}"), "Transport unknown").await;
    }
}

// The heartbeat's third ping leaves 900 ms after the open packet, and 100 ms later the suite's connectTimeout ends a Socket.IO
// session that has joined nothing. A slow machine may need more, so these two cases join `/` first.

async fn polling_heartbeat(server: &Place, path: &str) {
    let poller = Poller::open_at(server.addr, path).await;
    if path == SOCKET_IO {
        poller.ok("40").await;
        while !poller.payload_but_pings().await.contains(r#"["auth",{}]"#) {}
    }
    for _ in 0..3 {
        assert_eq!(poller.payload().await, "2");
        poller.ok("3").await;
    }
}

/// The wait is the case's own: the session must be gone by then, without a grace.
async fn polling_ping_timeout(server: &Place, path: &str) {
    let poller = Poller::open_at(server.addr, path).await;
    tokio::time::sleep(PING_INTERVAL_AND_TIMEOUT).await;
    poller.assert_gone().await;
}

async fn websocket_heartbeat(server: &Place, path: &str) {
    let mut websocket = WebSocket::open_at(server.addr, path).await;
    if path == SOCKET_IO {
        websocket.send("40").await;
        assert_connected(&mut websocket, "", "{}").await;
    }
    for _ in 0..3 {
        assert_eq!(websocket.text().await, "2");
        websocket.send("3").await;
    }
}

async fn websocket_ping_timeout(server: &Place, path: &str) {
    let mut websocket = WebSocket::open_at(server.addr, path).await;
    assert_eq!(websocket.text().await, "2");
    websocket.assert_closed().await;
}

/// GET and POST are under way at the same time; neither knows which comes first.
async fn polling_close(server: &Place, path: &str) {
    let poller = Poller::open_at(server.addr, path).await;
    let (polled, posted) = tokio::join!(poller.get(), poller.post("1"));
    assert_eq!((posted.status, posted.text()), (200, "ok"));
    assert_eq!((polled.status, polled.text()), (200, "6"));
    poller.assert_gone().await;
}

async fn websocket_close(server: &Place, path: &str) {
    let mut websocket = WebSocket::open_at(server.addr, path).await;
    websocket.send("1").await;
    assert_closed_while_ponging(&mut websocket).await;
}

/// Asserts that the server closes a client that answers its pings, so that it cannot be for a missing pong.
async fn assert_closed_while_ponging(websocket: &mut WebSocket) {
    assert_eq!(
        websocket.next_but_pings().await,
        Frame::Close(None, String::new())
    );
    assert_eq!(websocket.next().await, Frame::End);
}

async fn probing(poller: &Poller) -> WebSocket {
    WebSocket::connect(poller.addr, &poller.upgrade_target()).await
}

async fn probed(poller: &Poller) -> WebSocket {
    let mut websocket = probing(poller).await;
    websocket.send("2probe").await;
    // Pings still travel by polling.
    assert_eq!(websocket.text().await, "3probe");
    websocket
}

/// Opens a session and upgrades it as the suites do.
async fn upgraded(server: &Place, path: &str) -> (Poller, WebSocket) {
    let poller = Poller::open_at(server.addr, path).await;
    let mut websocket = probed(&poller).await;
    websocket.send("5").await;
    (poller, websocket)
}

/// Asserts that polls are refused, at once. Among several instances, one that is sent behind the `5` may come before it at the session,
/// and gets what is due to a poll that the client should have waited for: a noop, or the close with which the transport ends.
async fn assert_polling_is_over(server: &Place, poller: &Poller) {
    loop {
        let answer = poller.get().await;
        if server.own.is_some() || answer.status != 200 {
            assert_eq!(answer.status, 400);
            return;
        }
        assert!(matches!(answer.text(), "6" | "1"), "{answer:?}");
    }
}

// ---- Engine.IO alone ----

async fn assert_echo(websocket: &mut WebSocket) {
    websocket.send("4hello").await;
    assert_eq!(websocket.message().await, "4hello");
}

async fn polling_echo(payload: &str) {
    let server = start();
    let poller = Poller::open_at(server.addr, ENGINE_IO).await;
    poller.ok(payload).await;
    assert_eq!(poller.payload_but_pings().await, payload);
}

#[actix_rt::test]
async fn engine_08_polling_echo_text() {
    polling_echo("4hello").await;
}

#[actix_rt::test]
async fn engine_09_polling_echo_several_packets() {
    polling_echo("4test1\u{1e}4test2\u{1e}4test3").await;
}

#[actix_rt::test]
async fn engine_10_polling_echo_text_and_binary() {
    polling_echo("4hello\u{1e}bAQIDBA==").await;
}

#[actix_rt::test]
async fn engine_11_polling_bad_packet() {
    let server = start();
    let poller = Poller::open_at(server.addr, ENGINE_IO).await;
    // The suite takes any answer; this is Node's.
    poller.ok("abc").await;
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn engine_12_polling_duplicate_get() {
    let server = start();
    let poller = Poller::open_at(server.addr, ENGINE_IO).await;
    let first = poller.begin_get().await;
    let second = poller.get().await;
    let first = first.answer().await;
    let mut answers = [(first.status, first.text()), (second.status, second.text())];
    if server.own.is_none() {
        // Among several instances, the second may come before the first at the session.
        answers.sort_unstable();
    }
    assert_eq!(answers, [(200, "1"), (400, "")]);
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn engine_13_polling_aborted_get() {
    let server = start();
    let poller = Poller::open_at(server.addr, ENGINE_IO).await;
    drop(poller.begin_get().await);
    let answer = poller.get().await;
    match answer.status {
        // Among several instances, it may come before the one that was aborted, which then ends the session.
        200 if server.own.is_none() => assert_eq!(answer.text(), "1"),
        // Whether it still finds the session that the abort ends, or not any more.
        status => assert_eq!(status, 400),
    }
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn engine_14_websocket_echo_text() {
    let server = start();
    let mut websocket = WebSocket::open_at(server.addr, ENGINE_IO).await;
    assert_echo(&mut websocket).await;
}

#[actix_rt::test]
async fn engine_15_websocket_echo_binary() {
    let server = start();
    let mut websocket = WebSocket::open_at(server.addr, ENGINE_IO).await;
    websocket.send_binary(&[1, 2, 3, 4]).await;
    assert_eq!(
        websocket.next_but_pings().await,
        Frame::Binary(vec![1, 2, 3, 4])
    );
}

#[actix_rt::test]
async fn engine_16_websocket_bad_packet() {
    let server = start();
    let mut websocket = WebSocket::open_at(server.addr, ENGINE_IO).await;
    websocket.send("abc").await;
    assert_closed_while_ponging(&mut websocket).await;
}

#[actix_rt::test]
async fn engine_23_upgrade() {
    let server = start();
    let poller = Poller::open_at(server.addr, ENGINE_IO).await;
    let mut websocket = probed(&poller).await;
    assert_eq!(poller.payload_but_pings().await, "6");
    websocket.send("5").await;
    assert_echo(&mut websocket).await;
}

#[actix_rt::test]
async fn engine_24_polling_after_the_upgrade() {
    let server = start();
    let (poller, mut websocket) = upgraded(&server, ENGINE_IO).await;
    assert_polling_is_over(&server, &poller).await;
    assert_echo(&mut websocket).await;
}

#[actix_rt::test]
async fn engine_25_second_websocket_after_the_upgrade() {
    let server = start();
    let (poller, mut websocket) = upgraded(&server, ENGINE_IO).await;
    probing(&poller).await.assert_closed().await;
    assert_echo(&mut websocket).await;
}

// ---- Socket.IO ----

#[actix_rt::test]
async fn socket_engine_14_upgrade() {
    let server = start();
    let (_, mut websocket) = upgraded(&server, SOCKET_IO).await;
    // The suite ends here; that the WebSocket is the transport now shows only in an answer.
    websocket.send("40").await;
    assert_connected(&mut websocket, "", "{}").await;
}

#[actix_rt::test]
async fn socket_engine_15_polling_after_the_upgrade() {
    let server = start();
    let (poller, _websocket) = upgraded(&server, SOCKET_IO).await;
    assert_polling_is_over(&server, &poller).await;
}

#[actix_rt::test]
async fn socket_engine_16_second_websocket_after_the_upgrade() {
    let server = start();
    let (poller, _websocket) = upgraded(&server, SOCKET_IO).await;
    probing(&poller).await.assert_closed().await;
}

async fn open(server: &Place) -> WebSocket {
    WebSocket::open_at(server.addr, SOCKET_IO).await
}

/// Reads the CONNECT reply of a namespace, with exactly one key, and its `auth` event. `namespace` is as written on the
/// wire: empty, or with its comma.
async fn assert_connected(websocket: &mut WebSocket, namespace: &str, auth: &str) {
    let reply = websocket.message().await;
    let reply = reply
        .strip_prefix(&format!("40{namespace}"))
        .unwrap_or_else(|| panic!("a CONNECT was due, not {reply}"));
    let reply: Value = serde_json::from_str(reply).unwrap();
    let sid = reply["sid"].as_str().unwrap();
    assert_eq!(reply, json!({ "sid": sid }));
    assert_eq!(
        websocket.message().await,
        format!(r#"42{namespace}["auth",{auth}]"#)
    );
}

async fn connected(server: &Place) -> WebSocket {
    let mut websocket = open(server).await;
    websocket.send("40").await;
    assert_connected(&mut websocket, "", "{}").await;
    websocket
}

#[actix_rt::test]
async fn socket_01_connect() {
    let server = start();
    connected(&server).await;
}

#[actix_rt::test]
async fn socket_02_connect_with_a_payload() {
    let server = start();
    let mut websocket = open(&server).await;
    websocket.send(r#"40{"token":"123"}"#).await;
    assert_connected(&mut websocket, "", r#"{"token":"123"}"#).await;
}

#[actix_rt::test]
async fn socket_03_connect_to_a_namespace() {
    let server = start();
    let mut websocket = open(&server).await;
    websocket.send("40/custom,").await;
    assert_connected(&mut websocket, "/custom,", "{}").await;
}

#[actix_rt::test]
async fn socket_04_connect_to_a_namespace_with_a_payload() {
    let server = start();
    let mut websocket = open(&server).await;
    websocket.send(r#"40/custom,{"token":"abc"}"#).await;
    assert_connected(&mut websocket, "/custom,", r#"{"token":"abc"}"#).await;
}

#[actix_rt::test]
async fn socket_05_connect_to_an_unknown_namespace() {
    let server = start();
    let mut websocket = open(&server).await;
    websocket.send("40/random").await;
    assert_eq!(
        websocket.message().await,
        r#"44/random,{"message":"Invalid namespace"}"#
    );
}

#[actix_rt::test]
async fn socket_06_bad_packet_instead_of_connect() {
    let server = start();
    let mut websocket = open(&server).await;
    websocket.send("4abc").await;
    assert_closed_while_ponging(&mut websocket).await;
}

/// Stricter than the suite, which answers no ping and is satisfied with that end.
#[actix_rt::test]
async fn socket_07_no_connect() {
    let server = start();
    let mut websocket = open(&server).await;
    assert_closed_while_ponging(&mut websocket).await;
}

#[actix_rt::test]
async fn socket_08_disconnect() {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket.send("41").await;
    assert_eq!(websocket.text().await, "2", "the connection stays");
}

#[actix_rt::test]
async fn socket_09_disconnect_from_a_namespace() {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket.send("40/custom").await;
    assert_connected(&mut websocket, "/custom,", "{}").await;
    websocket.send("41/custom").await;
    websocket
        .send(r#"42["message","message to main namespace"]"#)
        .await;
    assert_eq!(
        websocket.message().await,
        r#"42["message-back","message to main namespace"]"#
    );
}

#[actix_rt::test]
async fn socket_10_message() {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket.send(r#"42["message",1,"2",{"3":[true]}]"#).await;
    assert_eq!(
        websocket.message().await,
        r#"42["message-back",1,"2",{"3":[true]}]"#
    );
}

/// Sends a text with two attachments, and asserts that another text comes back with the same.
async fn assert_binary_answer(sent: &str, expected: &str) {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket.send(sent).await;
    websocket.send_binary(&[1, 2, 3]).await;
    websocket.send_binary(&[4, 5, 6]).await;
    assert_eq!(websocket.message().await, expected);
    // Not even a ping may come between.
    assert_eq!(websocket.next().await, Frame::Binary(vec![1, 2, 3]));
    assert_eq!(websocket.next().await, Frame::Binary(vec![4, 5, 6]));
}

#[actix_rt::test]
async fn socket_11_message_with_attachments() {
    assert_binary_answer(
        r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        r#"452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    )
    .await;
}

#[actix_rt::test]
async fn socket_12_message_with_an_ack() {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket
        .send(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#)
        .await;
    assert_eq!(websocket.message().await, r#"43456[1,"2",{"3":[false]}]"#);
}

#[actix_rt::test]
async fn socket_13_message_with_attachments_and_an_ack() {
    assert_binary_answer(
        r#"452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
        r#"462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    )
    .await;
}

async fn assert_violation(packet: &str) {
    let server = start();
    let mut websocket = connected(&server).await;
    websocket.send(packet).await;
    assert_closed_while_ponging(&mut websocket).await;
}

#[actix_rt::test]
async fn socket_14_unknown_packet_type() {
    assert_violation("4abc").await;
}

#[actix_rt::test]
async fn socket_15_invalid_payload() {
    assert_violation("42{}").await;
}

#[actix_rt::test]
async fn socket_16_invalid_ack_id() {
    assert_violation(r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#).await;
}
