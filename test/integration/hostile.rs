//! What strangers send to do harm. Each test checks the answer, that a fresh client is served afterwards, and that no
//! session is left, and nothing waits; where memory is the target, the binary runs as a process of its own and its peak is bounded.
//!
//! Not here: whatever another room covers already (the table below), Redis' side, tokens (`auth::token`'s own tests), and
//! compression, which does not exist. What each setting for a limit does: `limits`; what many clients cost together: `bounded`.
//!
//! | corpus | test |
//! | --- | --- |
//! | `EIO` missing, 3, `4abc`; `transport` missing, unknown, `__proto__`; `sid` of wrong length; PUT, OPTIONS | `handshake::the_first_broken_rule_is_told` |
//! | `sid` after its session's end | `polling`, wherever it says `assert_gone` |
//! | `Sec-WebSocket-Key` malformed | `handshake::a_malformed_websocket_handshake_is_refused` |
//! | `Origin` absent, `null`, suffix tricks | `origins` |
//! | path `//socket.io`, no trailing slash | `handshake::only_paths_below_the_slash_are_engine_io` |
//! | two GETs, two POSTs | `polling::a_second_get_ends_the_session`, `polling::a_second_post_ends_the_session` |
//! | body never-ending | `polling::an_endless_chunked_body_is_cut_at_the_limit` |
//! | binary content type | `polling::a_binary_body_ends_the_session` |
//! | 1 MB of separators, a lone separator, invalid UTF-8 | `polling::a_megabyte_of_separators_or_noops_costs_nothing`, `polling::a_bad_packet_…`, `polling::invalid_utf8_is_replaced` |
//! | abort mid-body | `polling::a_client_that_aborts_its_post_ends_the_session` |
//! | RSV, reserved opcode, unmasked, length with its highest bit, control frames, close codes, split UTF-8 | `websocket::breaches_of_rfc_6455_get_their_close_code` |
//! | probe twice, wrong probe text, upgrade without `5` | `upgrade::repeated_probes_…`, `upgrade::any_other_first_packet_…`, `upgrade::an_upgrade_that_is_not_finished_in_time_is_dropped` |
//! | CONNECT twice; 10k CONNECTs to unknown namespaces | `namespaces::a_connect_is_ignored_until_…`, `namespaces::packets_out_of_turn_end_the_connection`, `namespaces::ten_thousand_wishes_…` |
//! | 10k CONNECTs to new namespaces that a pattern matches | `namespaces::ten_thousand_wishes_for_namespaces_of_a_pattern_…` |
//! | ack for nothing, `2` without payload | `namespaces::an_ack_for_nothing_and_an_event_without_payload_are_ignored` |
//! | a `pid` or offset that is guessed, malformed, somebody else's or used before | `recovery::whatever_is_no_valid_claim_…`, `recovery::someone_else_…`, `recovery::a_session_is_had_once`, `recovery::of_clients_that_ask_at_the_same_time_…` |
//! | rooms that a client chooses: too many, of no text, named like another's socket id | `limits::a_socket_is_in_so_many_rooms`, `chat::messages_that_make_no_sense_…`, `chat::a_room_named_like_a_socket_id_…` |
//! | a slow reader | `websocket::a_client_that_reads_nothing_is_held_back_…`; many of them: here |
//! | register flood, login of unknown users, 100 kB token | `accounts`, `auth`'s own tests |
//!
//! Bounds on memory are those of a debug build, each several times what was measured and a fraction of what the attack
//! would cost without its limit.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use sockhop::gateways::Gateway;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use crate::{
    support::{
        http::{self, Pending, Poller, await_connections, await_no_backlog, request},
        open_files,
        program::Program,
        server::TestServer,
        websocket::{Frame, WebSocket, frame, upgrade_request},
        within,
    },
    total_backlog::{await_backlog, settled_backlog},
};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// Asserts that a fresh client is served over either transport, and that then no session is left and nothing waits.
async fn assert_unharmed(addr: SocketAddr) {
    let answer = r#"44/nowhere,{"message":"Invalid namespace"}"#;
    let mut websocket = WebSocket::open(addr).await;
    websocket.send("40/nowhere,").await;
    assert_eq!(websocket.text().await, answer);
    let poller = Poller::open(addr).await;
    poller.ok("40/nowhere,").await;
    assert_eq!(poller.payload().await, answer);
    poller.ok("1").await;
    drop(websocket);
    await_connections(addr, 0).await;
    await_no_backlog(addr).await;
}

/// The binary under attack.
struct Target {
    program: Program,
    before_mib: u64,
    _dir: tempfile::TempDir,
}

impl Target {
    async fn start(settings: &[(&str, &str)]) -> Self {
        open_files::take_all();
        let dir = tempfile::tempdir().unwrap();
        let program = Program::start(dir.path(), settings);
        // What is made at the first use does not count.
        assert_unharmed(program.addr).await;
        let before_mib = program.memory_mib();
        Self {
            program,
            before_mib,
            _dir: dir,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.program.addr
    }

    /// Asserts that the attack never took more than this beside what was there before it.
    fn assert_peak_below(&self, mib: u64) {
        let grown = self
            .program
            .peak_memory_mib()
            .saturating_sub(self.before_mib);
        assert!(grown < mib, "{grown} MiB were taken, {mib} are allowed");
    }
}

/// Connections that an attack opens: the corpus names 50 000, but client and server share this machine's open files, and tests run side
/// by side.
const MANY: usize = 2000;

async fn tcp(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until the server ends the stream, or resets it.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    within("the end of the stream", async {
        while let Ok(1..) = stream.read_buf(&mut all).await {}
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Writes until it is done or the server has had enough.
async fn write_or_end(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    within("room to write, or the end", stream.write_all(bytes))
        .await
        .is_ok()
}

async fn probing(poller: &Poller) -> WebSocket {
    let target = format!("{WEBSOCKET}&sid={}", poller.sid);
    WebSocket::connect(poller.addr, &target).await
}

// ---- handshake ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn only_revision_4_passes_and_of_a_repeated_key_the_last_value_counts() {
    let server = TestServer::start();
    for (query, code) in [
        ("EIO=0&transport=polling", 5),
        ("EIO=99&transport=polling", 5),
        ("EIO=4&EIO=3&transport=polling", 5),
        ("EIO=%34%20&transport=polling", 5),
        ("EIO=4&transport=polling&transport=constructor", 0),
        ("EIO=4&transport[]=polling", 0),
    ] {
        let answer = http::get(server.addr, &format!("/socket.io/?{query}")).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!(code)),
            "{query}"
        );
    }
    let answer = http::get(
        server.addr,
        "/socket.io/?EIO=3&EIO=4&transport=x&transport=polling",
    )
    .await;
    assert_eq!(answer.status, 200);
    let sid = answer.text().split('"').nth(3).unwrap().to_owned();
    let answer = http::post(server.addr, &format!("{POLLING}&sid=x&sid={sid}"), b"1").await;
    assert_eq!(answer.text(), "ok");
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_sid_that_was_tampered_with_is_unknown() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    let sid = &poller.sid;
    let flipped = if sid.ends_with('A') { "B" } else { "A" };
    for forged in [
        format!("AAAAAAAA{}", &sid[8..]),
        format!("{}{flipped}", &sid[..sid.len() - 1]),
        sid.to_uppercase() + "x",
        format!("{sid}%00"),
        format!("%20{sid}"),
        "__proto__".to_owned(),
        "../../etc/passwd".to_owned(),
        "%ff%fe".to_owned(),
        "a".repeat(20_000),
    ] {
        let answer = http::get(server.addr, &format!("{POLLING}&sid={forged}")).await;
        let unknown = json!({ "code": 1, "message": "Session ID unknown" });
        assert_eq!(
            (answer.status, answer.json()),
            (400, unknown),
            "{forged:.50}"
        );
    }
    poller.ok("1").await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_head_request_opens_nothing_and_has_no_body() {
    let server = TestServer::start();
    let mut stream = tcp(
        server.addr,
        &request("HEAD", POLLING, &["Connection: close"], b""),
    )
    .await;
    let all = rest(&mut stream).await;
    assert!(
        all.starts_with("HTTP/1.1 400 ") && all.ends_with("\r\n\r\n"),
        "{all}"
    );
    await_connections(server.addr, 0).await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn ten_thousand_headers_are_refused() {
    let target = Target::start(&[]).await;
    for head in [
        request("GET", POLLING, &[], b""),
        upgrade_request(WEBSOCKET, &[]),
    ] {
        let head = head.strip_suffix(b"\r\n").unwrap();
        let mut stream = tcp(target.addr(), head).await;
        // It may be refused before all of them were sent.
        _ = write_or_end(&mut stream, "a: b\r\n".repeat(10_000).as_bytes()).await;
        _ = write_or_end(&mut stream, b"\r\n").await;
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_unharmed(target.addr()).await;
    target.assert_peak_below(16);
}

#[actix_rt::test]
async fn a_megabyte_of_query_is_refused() {
    let target = Target::start(&[]).await;
    for query in [
        "&x=".to_owned() + &"y".repeat(1_000_000),
        "&a".repeat(500_000),
    ] {
        let mut stream = tcp(target.addr(), b"").await;
        let head = request("GET", &format!("{POLLING}{query}"), &[], b"");
        _ = write_or_end(&mut stream, &head).await;
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_unharmed(target.addr()).await;
    // Much more than the two megabytes would mean that the query was taken apart.
    target.assert_peak_below(16);
}

#[actix_rt::test]
async fn a_query_of_many_keys_costs_a_session_little() {
    let target = Target::start(&[("PING_INTERVAL", "60000")]).await;
    // About as long as the head of a request that opens a session may be.
    let query = "&a".repeat(7_500);
    let many = 500;
    for _ in 0..many {
        let answer = http::get(target.addr(), &format!("{POLLING}{query}")).await;
        assert_eq!(answer.status, 200);
    }
    await_connections(target.addr(), many).await;
    // 15 kB of target each, as the handshake keeps it, are 8 MiB. Every key and value as two texts would be 240 MiB.
    target.assert_peak_below(96);
}

/// Writes bytes of a head at the attack's own pace until the server ends the stream; returns what it said.
async fn dribble(mut stream: TcpStream) -> String {
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    let mut answer = Vec::new();
    within("the end of the dribble", async {
        loop {
            tokio::select! {
                _ = pace.tick() => drop(stream.write_all(b"x").await),
                read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
            }
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

#[actix_rt::test]
async fn a_head_that_dribbles_is_cut_off() {
    let server = TestServer::start();
    let part = b"GET /healthz HTTP/1.1\r\nHost: hub\r\nx: ";
    let answer = dribble(tcp(server.addr, part).await).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_unharmed(server.addr).await;
}

/// A bug: only the first head of a connection had a deadline.
#[actix_rt::test]
async fn a_later_head_that_dribbles_is_cut_off_too() {
    let server = TestServer::start();
    let mut stream = tcp(server.addr, &request("GET", "/healthz", &[], b"")).await;
    let mut answer = Vec::new();
    within("the first answer", async {
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
    })
    .await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nx: ")
        .await
        .unwrap();
    dribble(stream).await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn upgrade_without_connection_is_refused() {
    let server = TestServer::start();
    let headers = [
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for target in [WEBSOCKET, POLLING] {
        let answer = http::send(server.addr, "GET", target, &headers, b"").await;
        assert_eq!(
            (answer.status, answer.text()),
            (400, "connection upgrade is expected")
        );
    }
    await_connections(server.addr, 0).await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_path_is_no_namespace() {
    let server = TestServer::start();
    let mut websocket = WebSocket::connect(
        server.addr,
        "/socket.io/test?EIO=4&transport=websocket&nsp=/test",
    )
    .await;
    assert!(websocket.text().await.starts_with("0{"));
    websocket.send(r#"42/test,1["quick"]"#).await;
    websocket.assert_closed().await;
    for path in [
        "/test/socket.io/",
        "/socket.io%2f",
        "/%2fsocket.io/",
        "/socket.io/../test",
    ] {
        let answer = http::get(server.addr, &format!("{path}?EIO=3&transport=polling")).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    assert_unharmed(server.addr).await;
}

// ---- polling ------------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn a_body_of_one_byte_over_a_megabyte_is_refused_and_the_session_survives() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let body = "6\u{1e}".repeat(500_000) + "6";
    assert_eq!(poller.post(&body).await.status, 413);
    poller.ok(r#"42["message",1]"#).await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
    poller.ok("1").await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_content_length_that_lies_gains_nothing() {
    let server = TestServer::start();
    for (length, status) in [
        ("Content-Length: 9223372036854775807", "413"),
        ("Content-Length: 99999999999999999999999", "400"),
        ("Content-Length: -1", "400"),
        ("Content-Length: +1", "400"),
        ("Content-Length: 0x1", "400"),
        ("Content-Length: 1\r\nContent-Length: 2", "400"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", "400"),
        ("Transfer-Encoding: chunked, identity", "400"),
    ] {
        let poller = Poller::open(server.addr).await;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: hub\r\n{length}\r\n\r\n1",
            poller.target
        );
        let answer = Pending::send(server.addr, head.as_bytes())
            .await
            .answer()
            .await;
        assert_eq!(answer.status.to_string(), status, "{length}");
        poller.ok("1").await;
    }
    // Too short: what is over is the next request, and none.
    let poller = Poller::open(server.addr).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: hub\r\nContent-Length: 1\r\n\r\n",
        poller.target
    );
    let mut stream = tcp(
        server.addr,
        format!("{head}1\u{1e}42[\"x\"]\r\n\r\n").as_bytes(),
    )
    .await;
    let answers = rest(&mut stream).await;
    // The fault may be seen before the first answer is written; then the stream ends without one.
    assert!(
        answers.is_empty() || answers.starts_with("HTTP/1.1 200 "),
        "{answers}"
    );
    await_connections(server.addr, 0).await;
    // Too long: the rest never comes, and the client goes.
    let poller = Poller::open(server.addr).await;
    let whole = request("POST", &poller.target, &[], &[b'6'; 1000]);
    drop(Pending::send(server.addr, &whole[..whole.len() - 1]).await);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_content_type_that_is_none_does_not_matter() {
    let server = TestServer::start();
    for content_type in ["nonsense", "text/plain; charset=utf-7", "a/b/c;;;=", ""] {
        let poller = Poller::open(server.addr).await;
        let header = format!("Content-Type: {content_type}");
        let answer = http::send(server.addr, "POST", &poller.target, &[&header], b"1").await;
        assert_eq!(answer.text(), "ok", "{content_type}");
    }
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_megabyte_of_pings_ends_at_the_first() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let pings = "2\u{1e}".repeat(499_999) + "2";
    within("half a million pings", poller.ok(&pings)).await;
    poller.assert_gone().await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn what_is_no_base64_ends_the_session() {
    let server = TestServer::start();
    for body in ["b!!", "bAQID\nBA==", "b====", "bA", "b\u{0}", "b€"] {
        let poller = Poller::join_main(server.addr).await;
        poller.ok(body).await;
        poller.assert_gone().await;
    }
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn thousands_of_aborted_gets_leave_no_memory_behind() {
    let target = Target::start(&[]).await;
    let addr = target.addr();
    let attack = async |rounds: usize| {
        join_all((0..4).map(|_| async move {
            for _ in 0..rounds / 4 {
                let poller = Poller::open(addr).await;
                drop(poller.begin_get().await);
            }
        }))
        .await;
        await_connections(addr, 0).await;
    };
    attack(4000).await;
    assert_unharmed(addr).await;
    // A session has some ten kilobytes: 4000 of them left behind would be 40 MiB and more.
    target.assert_peak_below(24);
}

// ---- frames -------------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn a_claimed_length_costs_nothing_until_its_bytes_come() {
    let target = Target::start(&[]).await;
    let mut held = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let mut websocket = WebSocket::open(target.addr()).await;
        let mut head = vec![0x82, 0xff];
        head.extend_from_slice(&1_000_000_u64.to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        websocket.write(&head).await;
        held.push(websocket);
    }
    // One byte more than the limit is refused without waiting for it.
    let mut websocket = WebSocket::open(target.addr()).await;
    let mut head = vec![0x82, 0xff];
    head.extend_from_slice(&1_000_001_u64.to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    websocket.write(&head).await;
    assert_eq!(websocket.closed().await.0, Some(1009));
    await_connections(target.addr(), MANY as u64).await;
    drop(held);
    assert_unharmed(target.addr()).await;
    // 2000 sessions with some ten kilobytes each; what they claimed is 2 GB.
    target.assert_peak_below(64);
}

#[actix_rt::test]
async fn a_message_in_a_million_fragments_is_refused() {
    let target = Target::start(&[]).await;
    for size in [0, 1] {
        let mut stream = tcp(target.addr(), &upgrade_request(WEBSOCKET, &[])).await;
        let fragment = frame(0x00, &b"x"[..size]);
        _ = write_or_end(&mut stream, &frame(0x01, &b"4"[..size])).await;
        for _ in 0..1000 {
            if !write_or_end(&mut stream, &fragment.repeat(1000)).await {
                break;
            }
        }
        let answer = rest(&mut stream).await;
        assert!(answer.contains("more than 4096 fragments"), "{answer}");
    }
    assert_unharmed(target.addr()).await;
    target.assert_peak_below(16);
}

#[actix_rt::test]
async fn a_message_that_never_ends_is_cut_at_the_limit() {
    let target = Target::start(&[]).await;
    let mut stream = tcp(target.addr(), &upgrade_request(WEBSOCKET, &[])).await;
    let mut opcode = 0x02;
    while write_or_end(&mut stream, &frame(opcode, &[0; 16 * 1024])).await {
        opcode = 0x00;
    }
    assert_unharmed(target.addr()).await;
    // The limit is one megabyte, and a buffer that grows doubles.
    target.assert_peak_below(16);
}

/// The client floods, reads nothing, and is ended because it answers no ping.
async fn flood(settings: &[(&str, &str)], first: &[u8], portion: &[u8]) -> Target {
    let target = Target::start(settings).await;
    let mut stream = tcp(target.addr(), &upgrade_request(WEBSOCKET, &[])).await;
    stream.write_all(first).await.unwrap();
    while write_or_end(&mut stream, portion).await {}
    assert_unharmed(target.addr()).await;
    target
}

const IMPATIENT: [(&str, &str); 2] = [("PING_INTERVAL", "4000"), ("PING_TIMEOUT", "1000")];

#[actix_rt::test]
async fn a_flood_of_pings_by_a_client_that_reads_nothing_is_held_back() {
    let portion = frame(0x89, b"").repeat(10_000);
    let target = flood(&IMPATIENT, b"", &portion).await;
    // Its backlog may hold 4 MiB, what each entry costs beside its bytes included.
    target.assert_peak_below(16);
}

#[actix_rt::test]
async fn a_flood_of_refused_connects_by_a_client_that_reads_nothing_is_held_back() {
    let portion = frame(0x81, b"40/a,").repeat(10_000);
    let target = flood(&IMPATIENT, b"", &portion).await;
    target.assert_peak_below(32);
}

#[actix_rt::test]
async fn a_flood_of_pongs_changes_nothing() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    let pongs = [frame(0x81, b"3"), frame(0x81, b"3x"), frame(0x8a, b"y")].concat();
    for _ in 0..100 {
        websocket.write(&pongs.repeat(1000)).await;
    }
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_flood_of_pongs_does_not_keep_a_client_that_answers_no_ping() {
    // An unsolicited pong restarts the interval; a thousand of them start one timer, not a thousand.
    let server = TestServer::with(|config| {
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_millis(200);
    });
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.write(&frame(0x81, b"3").repeat(1000)).await;
    assert_eq!(websocket.text().await, "2");
    websocket.assert_closed().await;
    assert_unharmed(server.addr).await;
}

// ---- Engine.IO ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn unknown_packet_types_end_the_session() {
    let server = TestServer::start();
    for packet in ["9", "7", "-1", "\u{0}", "{}", "٤"] {
        let mut websocket = WebSocket::join_main(server.addr).await;
        websocket.send(packet).await;
        websocket.assert_closed().await;
        let poller = Poller::open(server.addr).await;
        poller.ok(packet).await;
        poller.assert_gone().await;
    }
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn what_is_sent_before_the_open_packet_was_read_waits_for_it() {
    let server = TestServer::start();
    let request = [
        upgrade_request(WEBSOCKET, &[]),
        frame(0x81, b"40/nowhere,"),
        // Ends the connection behind what still waits.
        frame(0x81, b"47"),
    ]
    .concat();
    let mut stream = tcp(server.addr, &request).await;
    let answer = rest(&mut stream).await;
    let open = answer.find("0{\"sid\"").expect("an open packet");
    let refused = answer
        .find("44/nowhere,")
        .expect("the answer to what came early");
    assert!(open < refused);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn while_a_websocket_probes_messages_count_on_polling_alone() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    poller.ok(r#"42["message","by polling"]"#).await;
    // A message here is no `5`: it is not handled, and the probe is over.
    websocket.send(r#"42["message","by the probe"]"#).await;
    websocket.assert_closed().await;
    poller.ok(r#"42["message","last"]"#).await;
    let mut got = Vec::new();
    while !got.iter().any(|packet: &String| packet.contains("last")) {
        got.extend(poller.payload().await.split('\u{1e}').map(str::to_owned));
    }
    got.retain(|packet| packet != "6");
    assert_eq!(
        got,
        [
            r#"42["message-back","by polling"]"#,
            r#"42["message-back","last"]"#
        ]
    );
    poller.ok("1").await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn after_the_upgrade_polling_is_refused_even_if_it_began_before() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    // The head of a POST is there, and its body comes behind the `5`.
    let whole = request("POST", &poller.target, &[], br#"42["message","late"]"#);
    let mut post = tcp(server.addr, &whole[..whole.len() - 1]).await;
    // A turn of the only worker: the head was seen.
    assert_eq!(http::get(server.addr, "/healthz").await.status, 200);
    websocket.send("5").await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    _ = post.write_all(&whole[whole.len() - 1..]).await;
    let answer = Pending { stream: post }.answer().await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        poller.post(r#"42["message","later"]"#).await.json()["code"],
        3
    );
    assert_eq!(poller.get().await.json()["code"], 3);
    websocket.send(r#"42["message",2]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",2]"#);
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_close_in_the_midst_of_an_upgrade_ends_the_probe_alone_or_everything() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    for (opcode, packet) in [(0x81, b"1".as_slice()), (0x88, b""), (0x88, &[0x03, 0xe8])] {
        let mut websocket = probing(&poller).await;
        websocket.send("2probe").await;
        assert_eq!(websocket.text().await, "3probe");
        websocket.frame(opcode, packet).await;
        websocket.assert_closed().await;
    }
    poller.ok(r#"42["message",1]"#).await;
    while !poller.payload().await.contains("message-back") {}
    // The close packet by polling ends both; so does a `5` that comes with it.
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    poller.ok("1").await;
    websocket.send("5").await;
    websocket.assert_closed().await;
    // As a GET that the close packet overtook.
    assert_eq!(poller.payload().await, "6");
    poller.assert_gone().await;
    assert_unharmed(server.addr).await;
}

// ---- Socket.IO ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn packets_that_socket_io_does_not_know_end_the_connection() {
    let server = TestServer::start();
    let mut packets: Vec<String> = [
        "42{}",
        "42[]",
        r#"42[{"toString":1}]"#,
        r#"42[["message"]]"#,
        "42[null]",
        "42[true]",
        r#"42"message""#,
        "47",
        "4٤",
        r#"42-1["message"]"#,
        r#"4218446744073709551616["message"]"#,
        r#"43-1[]"#,
        r#"4318446744073709551616[]"#,
        r#"43{}"#,
        "40[]",
        "40null",
        r#"40"x""#,
        "401{}",
        "41{}",
        "45",
        "45-",
        "450-[]",
        r#"4511-["message"]"#,
        r#"45999999999-["message"]"#,
        r#"4599999999999999999999999-["message"]"#,
        r#"45-1-["message"]"#,
        r#"451e1-["message"]"#,
        r#"4600-[]"#,
        r#"44{"message":"x"}"#,
        r#"42["message",1e]"#,
        r#"42["message",'x']"#,
        "42[\"message\",\"\u{1}\"]",
        r#"42["message",NaN]"#,
        r#"42["message"]x"#,
    ]
    .map(str::to_owned)
    .into();
    for name in [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ] {
        packets.push(format!("42[{name:?}]"));
        packets.push(format!(
            r#"42["\u{:04x}{}"]"#,
            name.as_bytes()[0],
            &name[1..]
        ));
    }
    for packet in packets {
        let mut websocket = WebSocket::join_main(server.addr).await;
        websocket.send(&packet).await;
        websocket.assert_closed().await;
        let poller = Poller::join_main(server.addr).await;
        poller.ok(&packet).await;
        assert_eq!(poller.payload().await, "6\u{1e}1", "{packet}");
    }
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn odd_but_legal_packets_are_taken() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    // A number as a name, names that are reserved elsewhere, and acks that nobody waits for.
    for packet in [
        "42[1]",
        r#"42["error"]"#,
        r#"42["__proto__",{"__proto__":{"a":1},"constructor":null}]"#,
        r#"42["hasOwnProperty"]"#,
        r#"42["\ud800"]"#,
        "43999[]",
        "4318446744073709551615[]",
        "43007[]",
    ] {
        websocket.send(packet).await;
    }
    // The largest id there is, and one with leading zeros.
    websocket
        .send(r#"4218446744073709551615["message-with-ack",1]"#)
        .await;
    assert_eq!(websocket.text().await, "4318446744073709551615[1]");
    websocket.send(r#"42007["message-with-ack",2]"#).await;
    assert_eq!(websocket.text().await, "437[2]");
    for json in [
        r#"{"a":1,"a":2}"#,
        "1e400",
        "-1e-400",
        "123456789012345678901234567890.5",
        r#""\ud800 \udfff""#,
        r#"{"_placeholder":true,"num":7}"#,
        r#"{"__proto__":[]}"#,
    ] {
        websocket
            .send(&format!(r#"421["message-with-ack",{json}]"#))
            .await;
        assert_eq!(websocket.text().await, format!("431[{json}]"));
    }
    let digits = "9".repeat(900_000);
    websocket
        .send(&format!(r#"421["message-with-ack",{digits}]"#))
        .await;
    assert_eq!(websocket.text().await, format!("431[{digits}]"));
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn placeholders_that_name_no_attachment_end_the_connection() {
    let server = TestServer::start();
    let placeholder = |num: &str| format!(r#"{{"_placeholder":true,"num":{num}}}"#);
    let mut headers: Vec<_> = [
        "-1",
        "1.5",
        "\"0\"",
        "1",
        "10",
        "1e400",
        "null",
        "[0]",
        "-0.0",
        "18446744073709551616",
    ]
    .iter()
    .map(|num| format!(r#"451-["message",{}]"#, placeholder(num)))
    .collect();
    headers.push(format!(r#"451-["message",{0},{0}]"#, placeholder("0")));
    headers.push(r#"451-["message",{"_placeholder":true}]"#.to_owned());
    headers.push(r#"451-["message",{"_placeholder":1,"num":0}]"#.to_owned());
    headers.push(r#"451-["message"]"#.to_owned());
    for header in headers {
        let mut websocket = WebSocket::join_main(server.addr).await;
        websocket.send(&header).await;
        websocket.send_binary(&[1]).await;
        assert_eq!(websocket.closed().await, (None, String::new()), "{header}");
    }
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn attachments_must_come_when_they_are_due_and_only_then() {
    let server = TestServer::start();
    let header = r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    for text in ["42[\"message\"]", "40/custom,", "41", header] {
        let mut websocket = WebSocket::join_main(server.addr).await;
        websocket.send(header).await;
        websocket.send_binary(&[1]).await;
        websocket.send(text).await;
        websocket.assert_closed().await;
    }
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.send_binary(&[1]).await;
    websocket.assert_closed().await;
    let poller = Poller::join_main(server.addr).await;
    poller.ok("bAQ==").await;
    assert_eq!(poller.payload().await, "6\u{1e}1");
    // What never comes keeps nobody waiting: `limits` has its end.
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.send(header).await;
    websocket.send("3").await;
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn deep_json_is_refused_and_wide_json_is_taken() {
    let server = TestServer::start();
    let nest = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for json in [
        nest("[", "]", 100_000),
        nest("{\"a\":", "}", 100_000),
        "[".repeat(900_000),
        "{\"\":".repeat(200_000),
    ] {
        for packet in [
            format!(r#"42["message",{json}]"#),
            format!("40/custom,{json}"),
        ] {
            let mut websocket = WebSocket::join_main(server.addr).await;
            websocket.send(&packet).await;
            websocket.assert_closed().await;
        }
    }
    // As many keys as fit: they pass through as they are.
    let keys: Vec<_> = (0..90_000).map(|n| format!(r#""{n}":0"#)).collect();
    let object = format!("{{{}}}", keys.join(","));
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket
        .send(&format!(r#"421["message-with-ack",{object}]"#))
        .await;
    assert_eq!(websocket.text().await, format!("431[{object}]"));
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_namespace_may_be_long_and_strange_and_is_refused_by_its_name() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    for namespace in [
        "/".to_owned() + &"x".repeat(900_000),
        "/custom?token=1".to_owned(),
        "/custom/".to_owned(),
        "//custom".to_owned(),
        "/CUSTOM".to_owned(),
        "/../custom".to_owned(),
        "/cus\u{0}tom".to_owned(),
        "/*".to_owned(),
        "/custom#room#".to_owned(),
        "/__proto__".to_owned(),
    ] {
        websocket.send(&format!("40{namespace},")).await;
        assert_eq!(
            websocket.text().await,
            format!(r#"44{namespace},{{"message":"Invalid namespace"}}"#)
        );
    }
    // The name ends at the first comma, so this payload is `b,{}`.
    websocket.send("40/a,b,{}").await;
    websocket.assert_closed().await;
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn a_megabyte_of_auth_is_judged_like_any_other() {
    let target = Target::start(&[]).await;
    let long = "x".repeat(900_000);
    let keys: Vec<_> = (0..90_000).map(|n| format!(r#""{n}":0"#)).collect();
    for (auth, code) in [
        (format!(r#"{{"token":"{long}"}}"#), "token_invalid"),
        (format!(r#"{{"x":"{long}"}}"#), "token_missing"),
        (format!("{{{}}}", keys.join(",")), "token_missing"),
        (r#"{"token":"a","token":"b"}"#.to_owned(), "token_missing"),
        (r#"{"token":"\ud800"}"#.to_owned(), "token_missing"),
        (r#"{"token":{"token":1e400}}"#.to_owned(), "token_missing"),
    ] {
        let (_, reply) = WebSocket::join(target.addr(), "/events", &auth).await;
        assert!(reply.contains(code), "{auth:.50}: {reply}");
    }
    assert_unharmed(target.addr()).await;
    target.assert_peak_below(32);
}

// ---- resources ----------------------------------------------------------------------------------------------------------

#[actix_rt::test]
async fn thousands_of_half_open_handshakes_leave_room_for_others_and_are_cut_off() {
    let target = Target::start(&[]).await;
    let mut held = Vec::new();
    for n in 0..MANY {
        let part: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: hub\r\nUpgrade: ",
            _ => b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n",
        };
        held.push(tcp(target.addr(), part).await);
    }
    assert_unharmed(target.addr()).await;
    for mut stream in held {
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }
    assert_unharmed(target.addr()).await;
    // actix-http gives each connection two buffers of 8 KiB; 32 KiB each are allowed.
    target.assert_peak_below(64);
}

#[actix_rt::test]
async fn thousands_of_sessions_that_do_nothing_are_forgotten() {
    let target = Target::start(&[("PING_INTERVAL", "2000"), ("PING_TIMEOUT", "1000")]).await;
    for _ in 0..MANY {
        Poller::open(target.addr()).await;
    }
    assert_unharmed(target.addr()).await;
    target.assert_peak_below(64);
}

#[actix_rt::test]
async fn a_storm_of_connects_and_disconnects_leaves_nothing_behind() {
    let target = Target::start(&[]).await;
    let addr = target.addr();
    let storm = async |rounds: usize| {
        join_all((0..8).map(|client| async move {
            for round in 0..rounds / 8 {
                match (client + round) % 4 {
                    0 => drop(WebSocket::open(addr).await),
                    1 => {
                        let (mut websocket, _) = WebSocket::join(addr, "/events", "{}").await;
                        websocket.frame(0x88, &[0x03, 0xe8]).await;
                        websocket.assert_closed().await;
                    }
                    2 => {
                        let poller = Poller::open(addr).await;
                        poller.ok("40/events,").await;
                        poller.ok("1").await;
                    }
                    _ => {
                        let poller = Poller::open(addr).await;
                        let mut websocket = probing(&poller).await;
                        websocket.send("2probe").await;
                        websocket.send("5").await;
                    }
                }
            }
        }))
        .await;
        await_connections(addr, 0).await;
    };
    storm(2000).await;
    let settled = target.program.memory_mib();
    storm(2000).await;
    assert_unharmed(addr).await;
    target.assert_peak_below(48);
    // As much again costs nothing more: 4 KiB left behind by each would be 8 MiB.
    let grown = target.program.memory_mib().saturating_sub(settled);
    assert!(grown < 8, "{grown} MiB were kept");
}

async fn token(addr: SocketAddr) -> String {
    let body = r#"{"username":"mallory","password":"correct horse"}"#;
    let answer = http::post_json(addr, "/auth/register", body).await;
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[actix_rt::test]
async fn many_slow_readers_share_what_waits_for_them_and_are_let_go() {
    let target = Target::start(&[("WORKERS", "1")]).await;
    let token = token(target.addr()).await;
    let before = target.program.peak_memory_mib();
    let mut reader = WebSocket::join_events(target.addr(), &token).await;
    let mut deaf = Vec::new();
    for _ in 0..100 {
        deaf.push(WebSocket::join_events(target.addr(), &token).await);
    }
    let event = format!("42/events,[\"test-event\",\"{}\"]", "x".repeat(500_000));
    let mut rounds = 0;
    while http::num_connections(target.addr()).await > 1 {
        reader.send(&event).await;
        assert_eq!(reader.text().await, event);
        rounds += 1;
        assert!(rounds < 200, "clients that read nothing must not be kept");
    }
    drop((deaf, reader));
    assert_unharmed(target.addr()).await;
    // 100 backlogs of 4 MiB are the same 4 MiB. What is beyond them is the kernel's.
    let grown = target.program.peak_memory_mib().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB were taken");
}

#[actix_rt::test]
async fn events_that_wait_for_a_slow_handler_are_bounded_in_bytes_too() {
    let server = TestServer::with(|config| {
        config.engine.ping_interval = Duration::from_secs(4);
    });
    let mut stream = tcp(server.addr, &upgrade_request(WEBSOCKET, &[])).await;
    stream.write_all(&frame(0x81, b"40/test,")).await.unwrap();
    let mut read = Vec::new();
    within("the CONNECT reply", async {
        while !read.ends_with(b"\"}") || !read.windows(8).any(|part| part == b"40/test,") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
    })
    .await;
    let event = format!(r#"42/test,["never","{}"]"#, "x".repeat(900_000));
    let event = frame(0x81, event.as_bytes());
    let (mut from_server, mut to_server) = stream.into_split();
    // By number alone, 64 of them may wait.
    let writing = actix_rt::spawn(async move {
        for _ in 0..60 {
            to_server.write_all(&event).await.unwrap();
        }
    });
    await_backlog(server.addr, "a megabyte that waits", |bytes| {
        bytes > 1 << 20
    })
    .await;
    // The one at work, the one that went beyond the megabyte, and what has come of another.
    let settled = settled_backlog(server.addr).await;
    assert!(settled < 4_000_000, "{settled} bytes wait for one client");
    assert!(!writing.is_finished());
    // It is not read from, but still gets its ping.
    within("a ping", async {
        while !read.ends_with(&[0x81, 1, b'2']) {
            assert!(from_server.read_buf(&mut read).await.unwrap() > 0);
        }
    })
    .await;
    writing.abort();
    // Not `assert_unharmed`: a client that is held back is not read from, so its end is not seen while its handler runs.
    WebSocket::join_main(server.addr).await;
}

#[actix_rt::test]
async fn many_event_names_and_many_short_events_leave_nothing_behind() {
    let target = Target::start(&[("MAX_EVENT_RATE", "0")]).await;
    let token = token(target.addr()).await;
    let before = target.program.peak_memory_mib();
    let mut client = WebSocket::join_events(target.addr(), &token).await;
    for portion in 0..100 {
        let events: Vec<u8> = (0..1000)
            .flat_map(|n| {
                frame(
                    0x81,
                    format!(r#"42/events,["event {portion} {n}"]"#).as_bytes(),
                )
            })
            .collect();
        client.write(&events).await;
        client
            .send(&format!(r#"42/events,{portion}["echo"]"#))
            .await;
        assert_eq!(client.text().await, format!("43/events,{portion}[]"));
    }
    drop(client);
    assert_unharmed(target.addr()).await;
    let grown = target.program.peak_memory_mib().saturating_sub(before);
    assert!(grown < 16, "{grown} MiB were taken");
}

#[actix_rt::test]
async fn a_frame_kind_is_never_what_a_server_would_send() {
    // A peer that mirrors us: our own packets, sent back, are no way in.
    let server = TestServer::start();
    let mut websocket = WebSocket::open(server.addr).await;
    for packet in ["0{\"sid\":\"x\"}", "5", "6", "3probe"] {
        websocket.send(packet).await;
    }
    websocket.send("40/nowhere,").await;
    assert!(matches!(websocket.next().await, Frame::Text(text) if text.starts_with("44/nowhere")));
    drop(websocket);
    assert_unharmed(server.addr).await;
}

#[actix_rt::test]
async fn leaving_is_no_way_around_handlers_that_are_behind() {
    let (release, released) = watch::channel(false);
    let (num_running, mut running) = watch::channel(0);
    let num_running = Arc::new(num_running);
    let gateway = Gateway::matching("/slow/{n}").on("wait", move |_, (): ()| {
        let (mut released, num_running) = (released.clone(), Arc::clone(&num_running));
        async move {
            num_running.send_modify(|num| *num += 1);
            released.wait_for(|released| *released).await.unwrap();
        }
    });
    let server = TestServer::of_gateway(gateway);
    let mut attacker = WebSocket::open(server.addr).await;
    // In one write each, or the kernel would hold the second back until the first is acknowledged.
    let attack = async {
        attacker.send("40/slow/0,").await;
        for n in 0..100 {
            assert!(attacker.text().await.starts_with("40/slow/"));
            let packets = [
                format!("42/slow/{n},[\"wait\"]"),
                format!("41/slow/{n},"),
                format!("40/slow/{},", n + 1),
            ];
            let frames = packets.map(|packet| frame(0x81, packet.as_bytes()));
            attacker.write(&frames.concat()).await;
        }
    };
    let watching = async {
        let enough = running.wait_for(|num| *num >= 16);
        within("many handlers", enough).await.unwrap();
        let mut other = WebSocket::open(server.addr).await;
        for _ in 0..500 {
            other.send("40/nowhere,").await;
            other.text().await;
        }
        let num = *running.borrow();
        assert!(num <= 16, "{num} handlers of one client run");
        release.send_replace(true);
    };
    tokio::join!(attack, watching);
    let all = running.wait_for(|num| *num == 100);
    within("all of them", all).await.unwrap();
}
