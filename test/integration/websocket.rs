//! Frames, and how a WebSocket ends. Source: wire.md 1.3, 1.5; RFC 6455.

use crate::support::{
    server::TestServer,
    websocket::{Frame, WebSocket, frame},
};

async fn joined(server: &TestServer) -> WebSocket {
    WebSocket::join_main(server.addr).await
}

#[actix_rt::test]
async fn text_and_binary_messages_are_answered_in_kind() {
    let server = TestServer::start();
    let mut websocket = joined(&server).await;
    websocket.send(r#"42["message",1,"2",{"3":[true]}]"#).await;
    assert_eq!(
        websocket.text().await,
        r#"42["message-back",1,"2",{"3":[true]}]"#
    );
    websocket
        .send(r#"451-["message",{"_placeholder":true,"num":0}]"#)
        .await;
    websocket.send_binary(&[1, 2, 3, 4]).await;
    assert_eq!(
        websocket.text().await,
        r#"451-["message-back",{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(websocket.next().await, Frame::Binary(vec![1, 2, 3, 4]));
}

#[actix_rt::test]
async fn a_binary_message_may_come_as_base64_text() {
    let server = TestServer::start();
    let mut websocket = joined(&server).await;
    websocket
        .send(r#"451-["message",{"_placeholder":true,"num":0}]"#)
        .await;
    websocket.send("bAQIDBA==").await;
    websocket.text().await;
    assert_eq!(websocket.next().await, Frame::Binary(vec![1, 2, 3, 4]));
}

#[actix_rt::test]
async fn bad_packets_end_the_connection_without_a_status() {
    let server = TestServer::start();
    for text in [
        "abc",
        "",
        "4",
        "4abc",
        "2",
        "1",
        "4{",
        "42{}",
        "42abc[\"message-with-ack\"]",
    ] {
        let mut websocket = joined(&server).await;
        websocket.send(text).await;
        websocket.assert_closed().await;
    }
    let mut websocket = joined(&server).await;
    websocket.send_binary(&[]).await;
    websocket.assert_closed().await;
    let mut websocket = joined(&server).await;
    websocket.send_binary(&[1]).await;
    websocket.assert_closed().await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_message_over_the_limit_is_told_its_size_and_the_limit() {
    let server = TestServer::with(|config| config.engine.max_payload = 1000);
    let mut websocket = joined(&server).await;
    websocket.send(&"4".repeat(1001)).await;
    let (code, reason) = websocket.closed().await;
    assert_eq!(code, Some(1009));
    assert_eq!(
        reason,
        "message of at least 1001 bytes exceeds the limit of 1000 bytes"
    );
    let mut websocket = joined(&server).await;
    let text = format!("42[\"message\",\"{}\"]", "x".repeat(1000 - 15 - 2));
    websocket.send(&text).await;
    assert_eq!(websocket.text().await.len(), text.len() + "-back".len());
}

#[actix_rt::test]
async fn breaches_of_rfc_6455_get_their_close_code() {
    let server = TestServer::start();
    let mut claim = vec![0x82, 0xff];
    claim.extend_from_slice(&u64::MAX.to_be_bytes());
    claim.extend_from_slice(&[0; 4]);
    for (bytes, expected) in [
        (frame(0xc1, b"4x"), 1002),
        (frame(0x83, b"4x"), 1002),
        (vec![0x81, 2, b'4', b'x'], 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x09, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x88, &999_u16.to_be_bytes()), 1002),
        (claim, 1002),
        (frame(0x81, b"42[\"\xff\"]"), 1007),
        (
            [frame(0x01, b"4\xe2\x82"), frame(0x80, b"x")].concat(),
            1007,
        ),
    ] {
        let mut websocket = joined(&server).await;
        websocket.write(&bytes).await;
        let (code, _) = websocket.closed().await;
        assert_eq!(code, Some(expected), "{bytes:x?}");
        assert_eq!(websocket.next().await, Frame::End);
    }
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn fragments_make_one_message_and_a_ping_may_come_between() {
    let server = TestServer::start();
    let mut websocket = joined(&server).await;
    let text = "42[\"message\",\"€\"]".as_bytes();
    websocket.frame(0x01, &text[..14]).await;
    websocket.frame(0x89, b"hi").await;
    websocket.frame(0x00, &text[14..15]).await;
    assert_eq!(websocket.next().await, Frame::Pong(b"hi".to_vec()));
    websocket.frame(0x80, &text[15..]).await;
    assert_eq!(websocket.text().await, "42[\"message-back\",\"€\"]");
}

#[actix_rt::test]
async fn frames_may_arrive_byte_by_byte_or_many_at_once() {
    let server = TestServer::start();
    let mut websocket = joined(&server).await;
    for byte in frame(0x81, br#"42["message",1]"#) {
        websocket.write(&[byte]).await;
    }
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    let many: Vec<u8> = (0..1000)
        .flat_map(|n| frame(0x81, format!("42{n}[\"message-with-ack\",{n}]").as_bytes()))
        .collect();
    websocket.write(&many).await;
    for n in 0..1000 {
        assert_eq!(websocket.text().await, format!("43{n}[{n}]"));
    }
}

#[actix_rt::test]
async fn a_close_frame_of_the_client_is_answered() {
    let server = TestServer::start();
    let mut websocket = joined(&server).await;
    websocket.frame(0x88, &1000_u16.to_be_bytes()).await;
    websocket.assert_closed().await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_client_that_vanishes_is_forgotten() {
    let server = TestServer::start();
    let websocket = joined(&server).await;
    server.await_connections(1).await;
    drop(websocket);
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_client_that_reads_nothing_is_held_back_and_then_let_go_without_harm_to_others() {
    let server = TestServer::start();
    let token = server.token().await;
    let mut reader = WebSocket::join_events(server.addr, &token).await;
    let deaf = WebSocket::join_events(server.addr, &token).await;
    let event = format!("42/events,[\"test-event\",\"{}\"]", "x".repeat(100_000));
    // Beyond what the kernel holds for the deaf one, its backlog overflows and it is disconnected.
    let mut rounds = 0;
    while server.num_connections().await == 2 {
        reader.send(&event).await;
        assert_eq!(reader.text().await, event);
        rounds += 1;
        assert!(
            rounds < 1000,
            "a client that reads nothing must not be served for ever"
        );
    }
    drop(deaf);
}

#[actix_rt::test]
async fn what_a_client_reads_late_is_whole_and_in_order() {
    let server = TestServer::with(|config| config.engine.max_backlog = Some(100_000_000));
    let token = server.token().await;
    let mut reader = WebSocket::join_events(server.addr, &token).await;
    let mut late = WebSocket::join_events(server.addr, &token).await;
    // Above what the kernel takes, and each by itself: one of them is cut in two, and the next are behind it.
    let event = |n: usize| format!("42/events,[\"test-event\",{n},\"{}\"]", "x".repeat(99_991));
    let num = 300;
    for n in 0..num {
        reader.send(&event(n)).await;
        assert_eq!(reader.text().await, event(n));
    }
    for n in 0..num {
        assert_eq!(late.text().await, event(n));
    }
    for n in num..num + 3 {
        reader.send(&event(n)).await;
        assert_eq!(late.text().await, event(n), "and it keeps up again");
    }
}
