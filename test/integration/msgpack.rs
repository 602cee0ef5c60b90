//! `PARSER=msgpack`: packets in MessagePack, in raw bytes. Source: wire.md 2.7.

use sockhop::socket_io::parser::Parser;

use crate::support::{
    http::{self, Poller},
    program::Program,
    server::TestServer,
    websocket::{Frame, WebSocket},
};

fn start() -> TestServer {
    TestServer::with(|config| config.parser = Parser::MessagePack)
}

/// CONNECT without auth, as the official client writes it.
const CONNECT: &str = "83a47479706500a464617461d40000a36e7370a12f";
/// EVENT `["message",1,<01 02 03>]`.
const MESSAGE: &str = "83a47479706502a46461746193a76d65737361676501c403010203a36e7370a12f";
/// EVENT `["message-back",1,<01 02 03>]`.
const MESSAGE_BACK: &str =
    "83a47479706502a46461746193ac6d6573736167652d6261636b01c403010203a36e7370a12f";
/// EVENT `["auth",{}]`.
const AUTH: &str = "83a47479706502a46461746192a46175746880a36e7370a12f";

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A text in MessagePack, up to 31 bytes.
fn text(text: &str) -> String {
    format!("{:02x}{}", 0xa0 + text.len(), hex(text.as_bytes()))
}

/// What follows the map's marker for a type and the rest.
fn packet(num_keys: usize, kind: u8, rest: &str, namespace: &str) -> String {
    let (marker, nsp) = (0x80 + num_keys, text(namespace));
    format!("{marker:02x}a474797065{kind:02x}{rest}a36e7370{nsp}")
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("b{}", STANDARD.encode(bytes))
}

fn from_base64(payload: &str) -> Vec<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let packets = payload.split('\u{1e}');
    packets
        .map(|packet| hex(&STANDARD.decode(packet.strip_prefix('b').unwrap()).unwrap()))
        .collect()
}

async fn send(websocket: &mut WebSocket, packet: &str) {
    websocket.send_binary(&unhex(packet)).await;
}

async fn next(websocket: &mut WebSocket) -> String {
    match websocket.next_but_pings().await {
        Frame::Binary(bytes) => hex(&bytes),
        other => panic!("not a binary message: {other:?}"),
    }
}

/// Asserts that a CONNECT reply holds a socket id and nothing else.
fn assert_connect(packet: &str, namespace: &str) {
    let head = "83a47479706500a46461746181a3736964b4";
    let tail = format!("a36e7370{}", text(namespace));
    let id = packet
        .strip_prefix(head)
        .and_then(|rest| rest.strip_suffix(&*tail))
        .unwrap_or_else(|| panic!("not a CONNECT: {packet}"));
    assert_eq!(id.len(), 40, "20 characters");
}

async fn join_main(server: &TestServer) -> WebSocket {
    let mut websocket = WebSocket::open(server.addr).await;
    send(&mut websocket, CONNECT).await;
    assert_connect(&next(&mut websocket).await, "/");
    assert_eq!(next(&mut websocket).await, AUTH);
    websocket
}

async fn join_test(server: &TestServer) -> WebSocket {
    let mut websocket = WebSocket::open(server.addr).await;
    send(&mut websocket, &packet(2, 0, "", "/test")).await;
    assert_connect(&next(&mut websocket).await, "/test");
    websocket
}

#[actix_rt::test]
async fn each_packet_is_one_binary_frame() {
    let server = start();
    let mut websocket = join_main(&server).await;
    send(&mut websocket, MESSAGE).await;
    assert_eq!(next(&mut websocket).await, MESSAGE_BACK);
    // ["message-with-ack",<bin>] with id 7 is acked with the same arguments.
    let data = format!("a46461746192{}c40109", text("message-with-ack"));
    let event = packet(4, 2, &format!("a2696407{data}"), "/");
    send(&mut websocket, &event).await;
    let ack = packet(4, 3, "a2696407a46461746191c40109", "/");
    assert_eq!(next(&mut websocket).await, ack);
}

#[actix_rt::test]
async fn on_polling_packets_are_base64_and_an_upgrade_carries_on() {
    let server = start();
    let poller = Poller::open(server.addr).await;
    poller.ok(&to_base64(&unhex(CONNECT))).await;
    let mut packets = from_base64(&poller.payload_but_pings().await);
    if packets.len() == 1 {
        packets.extend(from_base64(&poller.payload_but_pings().await));
    }
    assert_connect(&packets[0], "/");
    assert_eq!(packets[1..], [AUTH]);
    let two = [MESSAGE, MESSAGE].map(|packet| to_base64(&unhex(packet)));
    poller.ok(&two.join("\u{1e}")).await;
    let mut backs = Vec::new();
    while backs.len() < 2 {
        backs.extend(from_base64(&poller.payload_but_pings().await));
    }
    assert_eq!(backs, [MESSAGE_BACK, MESSAGE_BACK]);

    let mut websocket = WebSocket::connect(server.addr, &poller.upgrade_target()).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.send("5").await;
    send(&mut websocket, MESSAGE).await;
    assert_eq!(next(&mut websocket).await, MESSAGE_BACK);
}

#[actix_rt::test]
async fn a_refusal_arrives_and_nothing_is_closed() {
    let server = start();
    let mut websocket = WebSocket::open(server.addr).await;
    send(&mut websocket, &packet(2, 0, "", "/random")).await;
    let data = format!(
        "a46461746181{}{}",
        text("message"),
        text("Invalid namespace")
    );
    assert_eq!(next(&mut websocket).await, packet(3, 4, &data, "/random"));
    let auth = format!("a46461746181{}c3", text("refuse"));
    send(&mut websocket, &packet(3, 0, &auth, "/test")).await;
    let data = format!(
        "a46461746182{}{}a46461746181{}07",
        text("message"),
        text("no"),
        text("code")
    );
    assert_eq!(next(&mut websocket).await, packet(3, 4, &data, "/test"));
    send(&mut websocket, CONNECT).await;
    assert_connect(&next(&mut websocket).await, "/");
}

#[actix_rt::test]
async fn a_broadcast_is_the_same_bytes_for_all() {
    let server = start();
    let mut websockets = [join_test(&server).await, join_test(&server).await];
    let event = |name| {
        let data = format!("a46461746193{}2ac402cafe", text(name));
        packet(3, 2, &data, "/test")
    };
    send(&mut websockets[0], &event("volatile")).await;
    for websocket in &mut websockets {
        assert_eq!(next(websocket).await, event("volatile"));
    }
    send(&mut websockets[0], &event("to-others")).await;
    assert_eq!(next(&mut websockets[1]).await, event("to-others"));
}

#[actix_rt::test]
async fn the_server_asks_and_disconnects() {
    let server = start();
    let mut websocket = join_test(&server).await;
    // ["ask-me",5000]: the server emits ["question","what?"] with its id 0, and acks the answer as
    // [true,[1,2,3]].
    let ask = format!("a2696405a46461746192{}cd1388", text("ask-me"));
    send(&mut websocket, &packet(4, 2, &ask, "/test")).await;
    let question = format!("a2696400a46461746192{}{}", text("question"), text("what?"));
    assert_eq!(next(&mut websocket).await, packet(4, 2, &question, "/test"));
    let answer = "a2696400a46461746192c3c403010203";
    send(&mut websocket, &packet(4, 3, answer, "/test")).await;
    let ack = "a2696405a4646174619192c393010203";
    assert_eq!(next(&mut websocket).await, packet(4, 3, ack, "/test"));
    let kick = format!("a46461746191{}", text("kick"));
    send(&mut websocket, &packet(3, 2, &kick, "/test")).await;
    assert_eq!(next(&mut websocket).await, packet(2, 1, "", "/test"));
    // Only the namespace was left, as by a client's own DISCONNECT: the connection is there.
    send(&mut websocket, CONNECT).await;
    assert_connect(&next(&mut websocket).await, "/");
    assert_eq!(next(&mut websocket).await, AUTH);
    send(&mut websocket, "83a47479706501a464617461d40000a36e7370a12f").await;
    send(&mut websocket, CONNECT).await;
    assert_connect(&next(&mut websocket).await, "/");
}

#[actix_rt::test]
async fn breaches_end_the_connection() {
    let server = start();
    let deep = format!("a464617461{}c0", "91".repeat(300));
    let reserved = format!("a46461746191{}", text("disconnect"));
    let many = format!("a4646174619c{}{}", text("x"), "c400".repeat(11));
    for bad in [
        // Truncated, claiming 4 Gi elements, followed by something, no map, empty.
        MESSAGE[..MESSAGE.len() - 2].to_owned(),
        "dfffffffff".to_owned(),
        packet(3, 2, "a464617461ddffffffff", "/"),
        format!("{MESSAGE}c0"),
        "c1".to_owned(),
        "90".to_owned(),
        String::new(),
        packet(3, 2, &deep, "/"),
        packet(3, 2, &reserved, "/"),
        packet(3, 2, &many, "/"),
        packet(3, 2, "a464617461c0", "/"),
        packet(4, 2, "a26964c0a46461746191a178", "/"),
        packet(3, 1, "a464617461c0", "/"),
        // CONNECT_ERROR is the server's; an EVENT elsewhere is out of turn.
        packet(3, 4, "a46461746180", "/"),
        packet(3, 2, "a46461746191a178", "/custom"),
    ] {
        let mut websocket = join_main(&server).await;
        send(&mut websocket, &bad).await;
        assert_eq!(websocket.closed().await, (None, String::new()), "{bad}");
    }
    let mut websocket = join_main(&server).await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.closed().await, (None, String::new()), "text");
    let poller = Poller::open(server.addr).await;
    poller.ok("40").await;
    assert_eq!(poller.payload().await, "6\u{1e}1");
    poller.assert_gone().await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_json_instance_does_not_take_it() {
    let server = TestServer::start();
    let mut websocket = WebSocket::open(server.addr).await;
    send(&mut websocket, CONNECT).await;
    assert_eq!(websocket.closed().await, (None, String::new()));
}

#[actix_rt::test]
async fn the_setting_is_told_to_whoever_must_choose_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("PARSER", "msgpack")]);
    let ready = http::get(program.addr, "/readyz").await.json();
    assert_eq!(ready["parser"], "msgpack");
    let mut websocket = WebSocket::open(program.addr).await;
    send(&mut websocket, &packet(2, 0, "", "/nowhere")).await;
    let data = format!(
        "a46461746181{}{}",
        text("message"),
        text("Invalid namespace")
    );
    assert_eq!(next(&mut websocket).await, packet(3, 4, &data, "/nowhere"));
    let bundle = http::get(program.addr, "/socket.io/socket.io.msgpack.min.js").await;
    assert!([200, 302].contains(&bundle.status));
    let json = http::get(TestServer::start().addr, "/readyz").await.json();
    assert_eq!(json["parser"], "json");
}
