//! GET and POST of a session, and every way in which they go wrong. Source: wire.md 1.4.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    http::{self, Answer, Pending, Poller, request},
    server::TestServer,
    within,
};

fn assert_empty_400(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (400, ""));
}

#[actix_rt::test]
async fn a_get_is_held_until_there_is_something() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let parked = poller.begin_get().await;
    poller.ok(r#"42["message",1]"#).await;
    let answer = parked.answer().await;
    assert_eq!(answer.text(), r#"42["message-back",1]"#);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[actix_rt::test]
async fn a_post_is_answered_ok() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    let answer = poller.post("40").await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert_eq!(answer.header("content-length"), Some("2"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[actix_rt::test]
async fn packets_of_one_payload_are_all_taken_and_answered_in_order() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller
        .ok("421[\"message-with-ack\",1]\u{1e}422[\"message-with-ack\",2]\u{1e}451-3[\"message-with-ack\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA==")
        .await;
    let mut got = String::new();
    while !got.contains("bAQIDBA==") {
        if !got.is_empty() {
            got.push('\u{1e}');
        }
        got.push_str(&poller.payload().await);
    }
    assert_eq!(
        got,
        "431[1]\u{1e}432[2]\u{1e}461-3[{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA=="
    );
}

#[actix_rt::test]
async fn a_second_get_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let first = poller.begin_get().await;
    assert_empty_400(&poller.get().await);
    let first = first.answer().await;
    assert_eq!((first.status, first.text()), (200, "1"));
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_second_post_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let whole = request("POST", &poller.target, &[], b"42[\"message\",1]");
    let first = Pending::send(server.addr, &whole[..whole.len() - 3]).await;
    assert_empty_400(&poller.post("6").await);
    assert_empty_400(&first.answer().await);
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_binary_body_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let headers = ["Content-Type: application/octet-stream"];
    let answer = http::send(server.addr, "POST", &poller.target, &headers, b"4x").await;
    assert_empty_400(&answer);
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_client_that_aborts_its_get_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    drop(poller.begin_get().await);
    server.await_connections(0).await;
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_client_that_aborts_its_post_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let whole = request("POST", &poller.target, &[], &[b'6'; 100]);
    drop(Pending::send(server.addr, &whole[..whole.len() - 1]).await);
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_body_over_the_limit_is_refused_and_the_session_survives() {
    let server = TestServer::with(|config| config.engine.max_payload = 1000);
    let poller = Poller::join_main(server.addr).await;
    let answer = poller
        .post(&format!("42[\"message\",\"{}\"]", "x".repeat(1000)))
        .await;
    assert_eq!((answer.status, answer.text()), (413, ""));
    poller
        .ok(&format!("42[\"message\",\"{}\"]", "x".repeat(1000 - 16)))
        .await;
    assert!(poller.payload().await.starts_with("42[\"message-back\""));
}

#[actix_rt::test]
async fn a_body_in_chunks_arrives_whole_however_it_is_cut() {
    let server = TestServer::start();
    let text = "x".repeat(20_000);
    let body = format!(r#"420["message-with-ack","{text}"]"#);
    for chunk_len in [1, 7, 1000, 5000, body.len()] {
        let poller = Poller::join_main(server.addr).await;
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n",
            poller.target
        );
        for chunk in body.as_bytes().chunks(chunk_len) {
            let chunk = std::str::from_utf8(chunk).unwrap();
            request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        request.push_str("0\r\n\r\n");
        let post = Pending::send(server.addr, request.as_bytes()).await;
        assert_eq!(post.answer().await.text(), "ok", "{chunk_len}");
        assert!(poller.payload_but_pings().await.contains(&text));
    }
}

#[actix_rt::test]
async fn an_endless_chunked_body_is_cut_at_the_limit() {
    let server = TestServer::with(|config| config.engine.max_payload = 1000);
    let poller = Poller::join_main(server.addr).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n",
        poller.target
    );
    let mut pending = Pending::send(server.addr, head.as_bytes()).await;
    let chunk = [b"200\r\n".as_slice(), &[b'6'; 512], b"\r\n"].concat();
    for _ in 0..2 {
        pending.stream.write_all(&chunk).await.unwrap();
    }
    assert_eq!(pending.answer().await.status, 413);
    poller.ok("6").await;
}

#[actix_rt::test]
async fn a_bad_packet_is_answered_ok_and_ends_the_session() {
    let server = TestServer::start();
    for body in ["abc", "", "\u{1e}", "4", "7"] {
        let poller = Poller::join_main(server.addr).await;
        let parked = poller.begin_get().await;
        poller.ok("6").await;
        poller.ok(body).await;
        assert_eq!(parked.answer().await.text(), "1", "{body:?}");
        poller.assert_gone().await;
    }
}

#[actix_rt::test]
async fn packets_before_a_bad_one_are_handled() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let listener = crate::support::websocket::WebSocket::join(server.addr, "/test", "{}").await;
    let (mut listener, _) = listener;
    poller.ok("40/test,").await;
    assert!(poller.payload().await.starts_with("40/test,"));
    poller
        .ok("42/test,[\"broadcast-then-ack\",1]\u{1e}abc\u{1e}42/test,[\"broadcast-then-ack\",2]")
        .await;
    assert_eq!(listener.text().await, r#"42/test,["broadcast-then-ack",1]"#);
    server.await_connections(1).await;
}

#[actix_rt::test]
async fn a_close_packet_releases_the_get_with_a_noop() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let parked = poller.begin_get().await;
    poller.ok("1").await;
    assert_eq!(parked.answer().await.text(), "6");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_get_that_the_close_packet_overtook_gets_the_noop_too() {
    // Sent at the same time on two connections, they may arrive in either order.
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller.ok("1").await;
    assert_eq!(poller.payload().await, "6");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_close_packet_without_a_get_leaves_nothing_behind() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller.ok("1").await;
    let answer = poller.post("6").await;
    assert_eq!(answer.json()["code"], 1, "{answer:?}");
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_session_that_waits_for_its_last_get_does_not_hold_up_the_stop() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller.ok("4abc").await;
    let began = Instant::now();
    drop(server);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "it took all the time that clients have to be told in"
    );
}

#[actix_rt::test]
async fn a_ping_of_the_client_ends_the_session() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller.ok("2").await;
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn packets_that_only_servers_send_are_ignored() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller
        .ok("0\u{1e}5\u{1e}6\u{1e}3\u{1e}42[\"message\",1]")
        .await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
}

#[actix_rt::test]
async fn a_server_close_answers_a_parked_get() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let parked = poller.begin_get().await;
    poller.ok("4abc").await;
    assert_eq!(parked.answer().await.text(), "1");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_server_close_without_a_get_waits_for_the_next() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    poller.ok("4abc").await;
    assert_eq!(poller.payload().await, "6\u{1e}1");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn what_still_waits_comes_before_the_close() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    poller.ok("40/nowhere,").await;
    poller.ok("4abc").await;
    // Not in one payload: clients would act on the close first.
    assert_eq!(
        poller.payload().await,
        r#"44/nowhere,{"message":"Invalid namespace"}"#
    );
    assert_eq!(poller.payload().await, "6\u{1e}1");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn what_a_parked_get_can_take_comes_before_the_close_too() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    let parked = poller.begin_get().await;
    poller.ok("40/nowhere,\u{1e}4abc").await;
    assert_eq!(
        parked.answer().await.text(),
        r#"44/nowhere,{"message":"Invalid namespace"}"#
    );
    assert_eq!(poller.payload().await, "6\u{1e}1");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn invalid_utf8_is_replaced() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let answer = http::post(server.addr, &poller.target, b"42[\"message\",\"a\xffb\"]").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        poller.payload().await,
        "42[\"message-back\",\"a\u{fffd}b\"]"
    );
}

#[actix_rt::test]
async fn a_megabyte_of_separators_or_noops_costs_nothing() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let noops = "6\u{1e}".repeat(499_999) + "6";
    within("half a million noops", poller.ok(&noops)).await;
    within(
        "a million separators",
        poller.ok(&"\u{1e}".repeat(1_000_000)),
    )
    .await;
    poller.assert_gone().await;
    Poller::join_main(server.addr).await;
}

#[actix_rt::test]
async fn many_aborted_gets_leave_nothing_behind() {
    let server = TestServer::start();
    for _ in 0..200 {
        let poller = Poller::open(server.addr).await;
        drop(poller.begin_get().await);
    }
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn the_large_buffer_is_delivered_in_one_payload() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    for n in 0..100 {
        poller.ok(&format!("42[\"message\",{n}]")).await;
    }
    let mut all = Vec::new();
    while all.len() < 100 {
        all.extend(poller.payload().await.split('\u{1e}').map(str::to_owned));
    }
    let expected: Vec<_> = (0..100)
        .map(|n| format!("42[\"message-back\",{n}]"))
        .collect();
    assert_eq!(all, expected);
    assert_eq!(json!(all.len()), json!(100));
}
