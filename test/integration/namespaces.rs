//! Who may join what, and what ends a connection. Source: wire.md 2.2, 2.3, 2.4.

use std::time::Duration;

use sockhop::{
    config::Config,
    gateways::{Gateway, MAX_NAMESPACE_BYTES, Refusal, SocketRef},
    socket::actor::MAX_NAMESPACES,
};

use crate::support::{
    server::TestServer,
    websocket::{WebSocket, frame},
};

#[actix_rt::test]
async fn the_connect_reply_holds_the_sid_alone_and_the_auth_reaches_the_gateway() {
    let server = TestServer::start();
    for (connect, prefix, auth) in [
        ("40", "40{", "42[\"auth\",{}]"),
        (
            r#"40{"token":"123"}"#,
            "40{",
            r#"42["auth",{"token":"123"}]"#,
        ),
        ("40/custom,", "40/custom,{", r#"42/custom,["auth",{}]"#),
        ("40/custom", "40/custom,{", r#"42/custom,["auth",{}]"#),
        (
            r#"40/custom,{"token":"abc"}"#,
            "40/custom,{",
            r#"42/custom,["auth",{"token":"abc"}]"#,
        ),
    ] {
        let mut websocket = WebSocket::open(server.addr).await;
        websocket.send(connect).await;
        let reply = websocket.text().await;
        let json = reply
            .strip_prefix(&prefix[..prefix.len() - 1])
            .unwrap_or_else(|| panic!("{reply}"));
        let reply: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(reply.as_object().unwrap().len(), 1, "{reply}");
        assert_eq!(reply["sid"].as_str().unwrap().len(), 20, "{reply}");
        assert_eq!(websocket.text().await, auth);
    }
}

#[actix_rt::test]
async fn an_unknown_namespace_is_refused_and_nothing_is_closed() {
    let server = TestServer::start();
    let mut websocket = WebSocket::open(server.addr).await;
    websocket.send("40/random").await;
    assert_eq!(
        websocket.text().await,
        r#"44/random,{"message":"Invalid namespace"}"#
    );
    websocket.send("40/random?x=y,").await;
    assert_eq!(
        websocket.text().await,
        r#"44/random?x=y,{"message":"Invalid namespace"}"#
    );
    websocket.send("40").await;
    assert!(websocket.text().await.starts_with("40{"));
}

#[actix_rt::test]
async fn a_gateways_refusal_becomes_a_connect_error() {
    let server = TestServer::start();
    let (mut websocket, reply) = WebSocket::join(server.addr, "/test", r#"{"x":"refuse"}"#).await;
    assert_eq!(reply, r#"44/test,{"message":"no","data":{"code":7}}"#);
    websocket.send("40/test,").await;
    assert!(
        websocket.text().await.starts_with("40/test,{"),
        "and may be tried again"
    );
}

#[actix_rt::test]
async fn a_gateway_that_panics_refuses() {
    let server = TestServer::start();
    let (_, reply) = WebSocket::join(server.addr, "/test", r#"{"x":"panic"}"#).await;
    assert_eq!(
        reply,
        r#"44/test,{"message":"Internal server error","data":{"code":"internal"}}"#
    );
}

#[actix_rt::test]
async fn events_want_a_token() {
    let server = TestServer::start();
    for (auth, code) in [
        ("", "token_missing"),
        ("{}", "token_missing"),
        (r#"{"token":""}"#, "token_missing"),
        (r#"{"token":7}"#, "token_missing"),
        (r#"{"token":"garbage"}"#, "token_invalid"),
        (
            r#"{"token":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4IiwiZXhwIjo5OTk5OTk5OTk5fQ."}"#,
            "token_invalid",
        ),
    ] {
        let (_, reply) = WebSocket::join(server.addr, "/events", auth).await;
        let expected =
            format!(r#"44/events,{{"message":"Unauthorized","data":{{"code":"{code}"}}}}"#);
        assert_eq!(reply, expected, "{auth}");
    }
}

#[actix_rt::test]
async fn an_expired_token_is_told_apart() {
    let server = TestServer::with(|config| {
        config.jwt.expires_in = std::time::Duration::from_secs(1);
    });
    let token = server.token().await;
    let auth = serde_json::json!({ "token": token }).to_string();
    crate::support::within("the token's end", async {
        loop {
            let (_, reply) = WebSocket::join(server.addr, "/events", &auth).await;
            if reply.starts_with("44") {
                assert!(reply.contains(r#""code":"token_expired""#), "{reply}");
                break;
            }
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_token_may_come_as_a_header_of_the_handshake() {
    use crate::support::http::{self, request};

    let server = TestServer::start();
    let token = server.token().await;
    let header = format!("Authorization: Bearer {token}");
    let open = request(
        "GET",
        "/socket.io/?EIO=4&transport=polling",
        &[&header],
        b"",
    );
    let answer = http::Pending::send(server.addr, &open).await.answer().await;
    let sid = answer.text().split('"').nth(3).unwrap().to_owned();
    let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(
        http::post(server.addr, &target, b"40/events,").await.text(),
        "ok"
    );
    assert!(
        http::get(server.addr, &target)
            .await
            .text()
            .starts_with("40/events,{")
    );
}

#[actix_rt::test]
async fn packets_out_of_turn_end_the_connection() {
    let server = TestServer::start();
    for packets in [
        &["42[\"message\",1]"][..],
        &["430[]"],
        &["41"],
        &["41/custom,"],
        &["40", "42[\"nobody handles this\"]", "40"],
        &["40", "4317[]", "40"],
        &["40", "42/custom,[\"x\"]"],
        &["40", "41", "42[\"message\",1]"],
    ] {
        let mut websocket = WebSocket::open(server.addr).await;
        for packet in packets {
            websocket.send(packet).await;
        }
        assert_eq!(
            websocket.closed().await,
            (None, String::new()),
            "{packets:?}"
        );
    }
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_connect_is_ignored_until_the_namespace_it_repeats_is_used() {
    let server = TestServer::start();
    let mut websocket = WebSocket::open(server.addr).await;
    // One is judged for ever, so the second meets the first's wish; the others come as the official client sends them.
    for packet in [
        "40/test,{\"x\":\"never\"}",
        "40/test,",
        "40",
        "40",
        r#"40{"token":"another"}"#,
    ] {
        websocket.send(packet).await;
    }
    assert!(websocket.text().await.starts_with("40{"));
    assert_eq!(websocket.text().await, r#"42["auth",{}]"#);
    websocket.send("40").await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    websocket.send("41").await;
    websocket.send("40").await;
    websocket.send("40").await;
    assert!(websocket.text().await.starts_with("40{"), "joined anew");
    assert_eq!(websocket.text().await, r#"42["auth",{}]"#);
    websocket.send(r#"42["message",2]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",2]"#);
    websocket.send("40").await;
    assert_eq!(websocket.closed().await, (None, String::new()));
}

#[actix_rt::test]
async fn an_ack_for_nothing_and_an_event_without_payload_are_ignored() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    for packet in ["43999[]", "43[]", "42", "42[\"nobody handles this\"]"] {
        websocket.send(packet).await;
    }
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
}

#[actix_rt::test]
async fn leaving_one_namespace_keeps_the_others() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.send("40/custom,").await;
    assert!(websocket.text().await.starts_with("40/custom,"));
    websocket.text().await;
    websocket.send("41/custom,").await;
    websocket
        .send(r#"42["message","message to main namespace"]"#)
        .await;
    assert_eq!(
        websocket.text().await,
        r#"42["message-back","message to main namespace"]"#
    );
    websocket.send("40/custom,").await;
    assert!(
        websocket.text().await.starts_with("40/custom,"),
        "and it may come back"
    );
}

#[actix_rt::test]
async fn a_gateway_may_end_a_membership_or_the_connection() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.send("40/test,").await;
    websocket.text().await;
    websocket.send("42/test,1[\"kick\"]").await;
    assert_eq!(websocket.text().await, "41/test,");
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    websocket.send("40/test,").await;
    websocket.text().await;
    websocket.send("42/test,[\"hang-up\"]").await;
    let mut goodbyes = [websocket.text().await, websocket.text().await];
    goodbyes.sort();
    assert_eq!(goodbyes, ["41", "41/test,"]);
    websocket.assert_closed().await;
}

#[actix_rt::test]
async fn ten_thousand_wishes_for_unknown_namespaces_are_all_answered() {
    let server = TestServer::start();
    let mut websocket = WebSocket::join_main(server.addr).await;
    for chunk in 0..100 {
        for n in 0..100 {
            websocket.send(&format!("40/n{chunk}-{n},")).await;
        }
        for n in 0..100 {
            let expected = format!(r#"44/n{chunk}-{n},{{"message":"Invalid namespace"}}"#);
            assert_eq!(websocket.text().await, expected);
        }
    }
}

/// `/orders/{id}`, with `/orders/9` as a gateway of its own and `/x…` by a predicate.
fn start_with_patterns() -> TestServer {
    let which = |socket: SocketRef, (): ()| async move { socket.param("id").map(str::to_owned) };
    let orders = Gateway::matching("/orders/{id:[0-9]+}")
        .authorize(|request| match request.param("id") {
            Some("0") => Err("There is no such order"),
            _ => Ok(()),
        })
        .on("which", which)
        .on("all", |socket, (): ()| async move {
            let namespace = socket.namespace().clone();
            socket.namespace_ref().emit("hello", namespace).await
        });
    let nine = Gateway::new("/orders/9").on("which", |_, (): ()| async { "nine".to_owned() });
    let by_predicate = Gateway::matching_fn(|name| name.starts_with("/x")).on("which", which);
    TestServer::of(
        |_| {},
        |app| app.gateway(orders).gateway(by_predicate).gateway(nine),
    )
}

#[actix_rt::test]
async fn a_pattern_is_for_every_name_that_it_matches() {
    let server = start_with_patterns();
    let mut websocket = WebSocket::open(server.addr).await;
    for (namespace, part) in [
        ("/orders/7", r#""7""#),
        ("/orders/08", r#""08""#),
        ("/orders/9", r#""nine""#),
        ("/xyz", "null"),
    ] {
        websocket.send(&format!("40{namespace},")).await;
        let reply = websocket.text().await;
        assert!(reply.starts_with(&format!("40{namespace},{{")), "{reply}");
        websocket
            .send(&format!(r#"42{namespace},1["which"]"#))
            .await;
        assert_eq!(websocket.text().await, format!("43{namespace},1[{part}]"));
    }
    websocket.send("40/orders/0,").await;
    assert_eq!(
        websocket.text().await,
        r#"44/orders/0,{"message":"There is no such order"}"#
    );
    for namespace in ["/orders", "/orders/", "/orders/x", "/orders/7/8", "/"] {
        websocket.send(&format!("40{namespace},")).await;
        let shown = namespace.trim_end_matches('/');
        let refusal = match namespace {
            "/" => r#"44{"message":"Invalid namespace"}"#.to_owned(),
            "/orders/" => format!(r#"44{shown}/,{{"message":"Invalid namespace"}}"#),
            _ => format!(r#"44{shown},{{"message":"Invalid namespace"}}"#),
        };
        assert_eq!(websocket.text().await, refusal);
    }
}

#[actix_rt::test]
async fn namespaces_of_one_pattern_do_not_see_each_other() {
    let server = start_with_patterns();
    let mut websocket = WebSocket::open(server.addr).await;
    for namespace in ["/orders/1", "/orders/2"] {
        websocket.send(&format!("40{namespace},")).await;
        websocket.text().await;
    }
    for n in [1, 2] {
        websocket.send(&format!(r#"42/orders/{n},5["all"]"#)).await;
        let hello = format!(r#"42/orders/{n},["hello","/orders/{n}"]"#);
        assert_eq!(websocket.text().await, hello);
        assert_eq!(websocket.text().await, format!("43/orders/{n},5[]"));
    }
    websocket.send("41/orders/1,").await;
    websocket.send(r#"42/orders/2,6["which"]"#).await;
    assert_eq!(websocket.text().await, r#"43/orders/2,6["2"]"#);
}

#[actix_rt::test]
async fn a_name_that_only_a_pattern_knows_is_short_plain_text() {
    let server = start_with_patterns();
    let mut websocket = WebSocket::open(server.addr).await;
    let long = format!("/x{}", "y".repeat(MAX_NAMESPACE_BYTES - 2));
    websocket.send(&format!("40{long},")).await;
    assert!(websocket.text().await.starts_with(&format!("40{long},")));
    for name in [
        format!("{long}z"),
        format!("/x{}", "y".repeat(100_000)),
        "/x\n".to_owned(),
        "/x\0y".to_owned(),
    ] {
        websocket.send(&format!("40{name},")).await;
        assert_eq!(
            websocket.text().await,
            format!(r#"44{name},{{"message":"Invalid namespace"}}"#)
        );
    }
}

#[actix_rt::test]
async fn ten_thousand_wishes_for_namespaces_of_a_pattern_are_all_answered_and_few_granted() {
    let server = start_with_patterns();
    let mut websocket = WebSocket::open(server.addr).await;
    for n in 0..10_000 {
        websocket.send(&format!("40/orders/1{n:04},")).await;
        let answer = websocket.message().await;
        let expected = if n < MAX_NAMESPACES {
            format!(r#"40/orders/1{n:04},{{"sid":""#)
        } else {
            format!(r#"44/orders/1{n:04},{{"message":"Too many namespaces"}}"#)
        };
        assert!(answer.starts_with(&expected), "{answer}");
    }
    // A name that was given up makes room for one other.
    websocket.send("41/orders/10007,").await;
    websocket.send("40/orders/2,").await;
    assert!(websocket.text().await.starts_with("40/orders/2,{"));
    websocket.send("40/orders/3,").await;
    assert!(websocket.text().await.starts_with("44/orders/3,{"));
    websocket.send(r#"42/orders/10099,1["which"]"#).await;
    assert_eq!(websocket.text().await, r#"43/orders/10099,1["10099"]"#);
}

#[actix_rt::test]
async fn a_client_may_be_in_any_number_of_namespaces_one_after_the_other() {
    let server = start_with_patterns();
    let mut websocket = WebSocket::open(server.addr).await;
    websocket.send("40/orders/10,").await;
    for n in 0..10 * MAX_NAMESPACES {
        let reply = websocket.message().await;
        assert!(reply.starts_with(&format!("40/orders/1{n},{{")), "{reply}");
        let next = n + 1;
        let packets = [format!("41/orders/1{n},"), format!("40/orders/1{next},")];
        // In one write: the kernel would hold a second one back for a while.
        let frames = packets.map(|packet| frame(0x81, packet.as_bytes()));
        websocket.write(&frames.concat()).await;
    }
}

/// Its pong lies behind wishes to join that are not read while others are being judged: for longer than a heartbeat, but one after the
/// other comes to its end.
#[actix_rt::test]
async fn whoever_waits_to_be_let_into_many_is_not_taken_for_gone() {
    const NUM: u32 = 40;
    let change = |config: &mut Config| {
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_millis(300);
    };
    let server = TestServer::of(change, |app| {
        (0..NUM).fold(app, |app, n| {
            app.gateway(
                Gateway::new(&format!("/n{n}")).authorize(move |_| async move {
                    tokio::time::sleep(Duration::from_millis(60) * (n % 16 + 1)).await;
                    Ok::<_, Refusal>(())
                }),
            )
        })
    });
    let mut websocket = WebSocket::open(server.addr).await;
    let wishes = (0..NUM).map(|n| frame(0x81, format!("40/n{n},").as_bytes()));
    websocket.write(&wishes.collect::<Vec<_>>().concat()).await;
    for _ in 0..NUM {
        let reply = websocket.message().await;
        assert!(reply.starts_with("40/n"), "{reply}");
    }
}
