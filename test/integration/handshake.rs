//! The checks of every Engine.IO request, in their order, with status and JSON body. Source: wire.md 1.1, 1.2.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    http::{self, Pending, Poller},
    server::TestServer,
    websocket::{WebSocket, upgrade_request},
    within,
};

/// What a client of an older revision is told beside the protocol's own words.
const ADVICE: &str = "use socket.io-client 3 or 4, or start the hub with ALLOW_EIO3=true";

#[actix_rt::test]
async fn polling_handshake_brings_the_open_packet() {
    let server = TestServer::start();
    let answer = http::get(server.addr, "/socket.io/?EIO=4&transport=polling").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let open: serde_json::Value =
        serde_json::from_str(answer.text().strip_prefix('0').unwrap()).unwrap();
    let sid = open["sid"].as_str().unwrap();
    assert_eq!(
        open,
        json!({ "sid": sid, "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1_000_000 })
    );
}

#[actix_rt::test]
async fn websocket_handshake_brings_the_open_packet_without_upgrades() {
    let server = TestServer::start();
    let mut websocket =
        WebSocket::connect(server.addr, "/socket.io/?EIO=4&transport=websocket").await;
    assert!(websocket.text().await.contains(r#""upgrades":[],"#));
}

#[actix_rt::test]
async fn the_first_broken_rule_is_told() {
    let server = TestServer::start();
    let unknown = "a".repeat(30);
    for (method, query, code, message) in [
        ("GET", "", 0, "Transport unknown"),
        ("GET", "EIO=4", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=abc", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=__proto__", 0, "Transport unknown"),
        (
            "GET",
            "EIO=4&transport=webtransport",
            0,
            "Transport unknown",
        ),
        (
            "GET",
            "EIO=4&transport=polling&sid=abc",
            1,
            "Session ID unknown",
        ),
        (
            "GET",
            &format!("EIO=4&transport=polling&sid={unknown}"),
            1,
            "Session ID unknown",
        ),
        ("POST", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "EIO=4&transport=polling", 2, "Bad handshake method"),
        (
            "OPTIONS",
            "EIO=4&transport=polling",
            2,
            "Bad handshake method",
        ),
        ("GET", "EIO=4&transport=websocket", 3, "Bad request"),
        (
            "GET",
            "transport=polling",
            5,
            "Unsupported protocol version",
        ),
        (
            "GET",
            "EIO=abc&transport=polling",
            5,
            "Unsupported protocol version",
        ),
        (
            "GET",
            "EIO=3&transport=polling",
            5,
            "Unsupported protocol version",
        ),
        (
            "GET",
            "EIO=4abc&transport=polling",
            5,
            "Unsupported protocol version",
        ),
    ] {
        let target = format!("/socket.io/?{query}");
        let answer = http::send(server.addr, method, &target, &[], b"").await;
        assert_eq!(answer.status, 400, "{method} {query}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let mut expected = json!({ "code": code, "message": message });
        if code == 5 {
            expected["advice"] = ADVICE.into();
        }
        assert_eq!(answer.json(), expected, "{method} {query}");
    }
}

#[actix_rt::test]
async fn a_session_keeps_its_transport_and_revision() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    let sid = &poller.sid;
    for query in [
        format!("EIO=4&transport=websocket&sid={sid}"),
        format!("EIO=3&transport=polling&sid={sid}"),
    ] {
        let answer = http::get(server.addr, &format!("/socket.io/?{query}")).await;
        assert_eq!(
            answer.json(),
            json!({ "code": 3, "message": "Bad request" }),
            "{query}"
        );
    }
    let answer = http::send(server.addr, "PUT", &poller.target, &[], b"").await;
    assert_eq!((answer.status, answer.text()), (500, ""));
    poller.ok("40").await;
    assert!(
        poller.payload().await.starts_with("40"),
        "the session survives all that"
    );
}

#[actix_rt::test]
async fn only_paths_below_the_slash_are_engine_io() {
    let server = TestServer::start();
    for path in ["/socket.io", "//socket.io/", "/engine.io/", "/SOCKET.IO/"] {
        let answer = http::get(server.addr, &format!("{path}?EIO=4&transport=polling")).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let answer = http::get(server.addr, "/socket.io/foo?EIO=4&transport=polling").await;
    assert_eq!(answer.status, 200);
}

#[actix_rt::test]
async fn a_refused_upgrade_says_why_in_plain_http() {
    let server = TestServer::start();
    for (target, status, text) in [
        (
            "/socket.io/?EIO=4&transport=abc",
            "400 Bad Request",
            "Transport unknown",
        ),
        ("/socket.io/?EIO=4", "400 Bad Request", "Transport unknown"),
        (
            "/socket.io/?EIO=4&transport=websocket&sid=x",
            "400 Bad Request",
            "Session ID unknown",
        ),
        (
            "/socket.io/?EIO=3&transport=websocket",
            "400 Bad Request",
            "Unsupported protocol version: use socket.io-client 3 or 4, or start the hub with ALLOW_EIO3=true",
        ),
        (
            "/other/?EIO=4&transport=websocket",
            "404 Not Found",
            "WebSockets are served below /socket.io/",
        ),
    ] {
        let mut pending = Pending::send(server.addr, &upgrade_request(target, &[])).await;
        let mut all = String::new();
        within("the end", pending.stream.read_to_string(&mut all))
            .await
            .unwrap();
        assert!(
            all.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{target}: {all}"
        );
        assert!(
            all.contains("Connection: close\r\n") && all.ends_with(text),
            "{target}: {all}"
        );
    }
}

#[actix_rt::test]
async fn a_malformed_websocket_handshake_is_refused() {
    let server = TestServer::start();
    let good = String::from_utf8(upgrade_request(
        "/socket.io/?EIO=4&transport=websocket",
        &[],
    ))
    .unwrap();
    for (part, replacement) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("GET ", "POST "),
    ] {
        let bad = good.replace(part, replacement);
        let answer = Pending::send(server.addr, bad.as_bytes())
            .await
            .answer()
            .await;
        assert_eq!(answer.status, 400, "{replacement:?} for {part:?}");
    }
}

#[actix_rt::test]
async fn an_upgrade_that_asks_for_polling_is_opened_and_closed() {
    let server = TestServer::start();
    let mut websocket =
        WebSocket::connect(server.addr, "/socket.io/?EIO=4&transport=polling").await;
    websocket.assert_closed().await;
}

#[actix_rt::test]
async fn a_request_for_another_upgrade_is_served_as_plain_http() {
    // HTTP clients of some languages offer HTTP/2 in every request.
    let server = TestServer::start();
    let headers = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
    ];
    let answer = http::send(
        server.addr,
        "GET",
        "/socket.io/?EIO=4&transport=polling",
        &headers,
        b"",
    )
    .await;
    assert_eq!(answer.status, 200);
}

#[actix_rt::test]
async fn a_head_that_a_session_would_have_to_keep_is_limited() {
    let server = TestServer::start();
    let header = format!("X-Large: {}", "x".repeat(16 * 1024));
    let target = "/socket.io/?EIO=4&transport=polling";
    let answer = http::send(server.addr, "GET", target, &[&header], b"").await;
    assert_eq!(answer.status, 431);
    let upgrade = upgrade_request("/socket.io/?EIO=4&transport=websocket", &[&header]);
    let answer = Pending::send(server.addr, &upgrade).await.answer().await;
    assert_eq!(answer.status, 431);
    // What belongs to a session keeps nothing of its head.
    let poller = Poller::open(server.addr).await;
    let answer = http::send(server.addr, "POST", &poller.target, &[&header], b"6").await;
    assert_eq!(answer.status, 200);
}

/// A bug: 128 KiB of a head were read, and all of it looked at anew with every byte.
#[actix_rt::test]
async fn a_head_that_has_no_end_is_refused_when_it_is_large_the_first_like_any_other() {
    let server = TestServer::start();
    let healthz = http::request("GET", "/healthz", &[], b"");
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: hub\r\nX: {}",
        "x".repeat(25_000)
    );
    for before in [&b""[..], &healthz] {
        let mut pending = Pending::send(server.addr, before).await;
        let mut answers = Vec::new();
        within("an answer", async {
            while !before.is_empty() && !answers.ends_with(b"}") {
                assert!(pending.stream.read_buf(&mut answers).await.unwrap() > 0);
            }
            answers.clear();
            pending
                .stream
                .write_all(&head.as_bytes()[..25_000])
                .await
                .unwrap();
            _ = pending.stream.read_to_end(&mut answers).await;
        })
        .await;
        let answer = String::from_utf8_lossy(&answers);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
    // One that a browser with many cookies might send is none of those.
    let cookie = format!("Cookie: {}", "x".repeat(20_000));
    let request = http::request("GET", "/healthz", &[&cookie], b"");
    assert_eq!(
        Pending::send(server.addr, &request)
            .await
            .answer()
            .await
            .status,
        200
    );
}
