//! Events, acks, binary, order, slow and broken handlers. Source: wire.md 2.5; README, "What it does" (`test-event`, `echo`).

use crate::support::{
    http::Poller,
    server::TestServer,
    websocket::{Frame, WebSocket},
};

async fn in_test(server: &TestServer) -> WebSocket {
    let (websocket, reply) = WebSocket::join(server.addr, "/test", "{}").await;
    assert!(reply.starts_with("40/test,"), "{reply}");
    websocket
}

#[actix_rt::test]
async fn a_test_event_reaches_all_clients_unchanged_sender_included() {
    let server = TestServer::start_wide();
    let token = server.token().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(WebSocket::join_events(server.addr, &token).await);
    }
    for payload in [
        "",
        r#","text""#,
        r#",5.0,-0,1e400,123456789012345678901234567890,1.10"#,
        r#",{"b":1,"a":{"é":[null,true,"\ud83d\ude00","\ud800"]}}"#,
        r#", [ 1 , 2 ] "#,
    ] {
        let event = format!(r#"42/events,["test-event"{payload}]"#);
        clients[1].send(&event).await;
        for client in &mut clients {
            assert_eq!(client.text().await, event);
        }
    }
}

#[actix_rt::test]
async fn a_hundred_get_the_same_in_order_whether_they_share_a_system_call_or_not() {
    for io_uring in [true, false] {
        let server = TestServer::with(|config| config.engine.io_uring = io_uring);
        let token = server.token().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(WebSocket::join_events(server.addr, &token).await);
        }
        // Alone, and several at once.
        let events = |number| {
            (0..=number).map(move |part| format!(r#"42/events,["test-event",{number},{part}]"#))
        };
        for number in 0..4 {
            for event in events(number) {
                clients[0].send(&event).await;
            }
            for client in &mut clients {
                for event in events(number) {
                    assert_eq!(client.text().await, event);
                }
            }
        }
    }
}

#[actix_rt::test]
async fn a_test_event_keeps_its_attachments_and_is_acked_if_asked() {
    let server = TestServer::start_wide();
    let token = server.token().await;
    let mut sender = WebSocket::join_events(server.addr, &token).await;
    let mut other = WebSocket::join_events(server.addr, &token).await;
    let json =
        r#"["test-event",{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}]"#;
    sender.send(&format!("452-/events,7{json}")).await;
    sender.send_binary(&[1, 2]).await;
    sender.send_binary(&[3]).await;
    for client in [&mut sender, &mut other] {
        assert_eq!(client.text().await, format!("452-/events,{json}"));
        assert_eq!(client.next().await, Frame::Binary(vec![1, 2]));
        assert_eq!(client.next().await, Frame::Binary(vec![3]));
    }
    assert_eq!(
        sender.text().await,
        r#"43/events,7[{"ok":true}]"#,
        "the event comes before its ack"
    );
}

#[actix_rt::test]
async fn an_echo_acks_its_arguments() {
    let server = TestServer::start_wide();
    let token = server.token().await;
    let mut client = WebSocket::join_events(server.addr, &token).await;
    client.send(r#"42/events,1["echo",{"a":[5.0]},"x"]"#).await;
    assert_eq!(client.text().await, r#"43/events,1[{"a":[5.0]},"x"]"#);
    client.send(r#"42/events,2["echo"]"#).await;
    assert_eq!(client.text().await, "43/events,2[]");
    // An empty attachment is an attachment.
    for attachment in [&[9][..], &[]] {
        client
            .send(r#"451-/events,3["echo",{"_placeholder":true,"num":0}]"#)
            .await;
        client.send_binary(attachment).await;
        assert_eq!(
            client.text().await,
            r#"461-/events,3[{"_placeholder":true,"num":0}]"#
        );
        assert_eq!(client.next().await, Frame::Binary(attachment.to_vec()));
    }
}

#[actix_rt::test]
async fn pollers_and_websockets_get_the_same_event() {
    let server = TestServer::start_wide();
    let mut websocket = in_test(&server).await;
    let poller = Poller::open(server.addr).await;
    poller.ok("40/test,").await;
    poller.payload().await;
    let parked = poller.begin_get().await;
    websocket
        .send(r#"451-/test,["broadcast-then-ack",{"_placeholder":true,"num":0}]"#)
        .await;
    websocket.send_binary(&[1, 2, 3, 4]).await;
    let expected = r#"451-/test,["broadcast-then-ack",{"_placeholder":true,"num":0}]"#;
    assert_eq!(websocket.text().await, expected);
    assert_eq!(
        parked.answer().await.text(),
        format!("{expected}\u{1e}bAQIDBA==")
    );
}

#[actix_rt::test]
async fn what_a_handler_sends_comes_before_its_ack() {
    let server = TestServer::start_wide();
    let mut client = in_test(&server).await;
    for n in 0..50 {
        client
            .send(&format!(r#"42/test,{n}["emit-then-ack",{n}]"#))
            .await;
        client
            .send(&format!(r#"42/test,1{n:03}["quick",{n}]"#))
            .await;
        client
            .send(&format!(r#"42/test,2{n:03}["broadcast-then-ack",{n}]"#))
            .await;
    }
    for n in 0..50 {
        assert_eq!(client.text().await, r#"42/test,["first",1]"#);
        assert_eq!(client.text().await, format!("43/test,{n}[{n}]"));
        assert_eq!(client.text().await, format!("43/test,1{n:03}[{n}]"));
        assert_eq!(
            client.text().await,
            format!(r#"42/test,["broadcast-then-ack",{n}]"#)
        );
        assert_eq!(client.text().await, format!("43/test,2{n:03}[{n}]"));
    }
}

#[actix_rt::test]
async fn one_clients_events_are_handled_in_the_order_sent() {
    let server = TestServer::start_wide();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,1["slow",1]"#).await;
    client.send(r#"42/test,2["quick",2]"#).await;
    assert_eq!(client.text().await, "43/test,1[1]");
    assert_eq!(client.text().await, "43/test,2[2]");
}

#[actix_rt::test]
async fn a_handler_that_never_ends_stops_nobody_else() {
    let server = TestServer::start_wide();
    let mut stuck = WebSocket::join_main(server.addr).await;
    stuck.send("40/test,").await;
    stuck.text().await;
    stuck.send(r#"42/test,1["never"]"#).await;
    stuck
        .send(r#"42["message","other namespaces of the same client go on"]"#)
        .await;
    assert!(stuck.text().await.starts_with("42[\"message-back\""));
    let mut other = in_test(&server).await;
    other.send(r#"42/test,1["quick",1]"#).await;
    assert_eq!(other.text().await, "43/test,1[1]");
    drop(stuck);
    server.await_connections(1).await;
}

#[actix_rt::test]
async fn a_client_that_outruns_its_handlers_is_held_back_not_dropped() {
    let server = TestServer::start_wide();
    let mut client = in_test(&server).await;
    for n in 0..200 {
        client.send(&format!(r#"42/test,{n}["slow",{n}]"#)).await;
    }
    client.send(r#"42/test,999["quick","last"]"#).await;
    for n in 0..200 {
        assert_eq!(client.text().await, format!("43/test,{n}[{n}]"));
    }
    assert_eq!(client.text().await, r#"43/test,999["last"]"#);
}

#[actix_rt::test]
async fn a_handler_that_panics_or_fails_ends_nothing_but_its_call() {
    let server = TestServer::start_wide();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,1["panic"]"#).await;
    assert_eq!(
        client.text().await,
        r#"43/test,1[{"error":{"code":"internal","message":"The server failed to handle this event."}}]"#
    );
    client.send(r#"42/test,2["fail"]"#).await;
    assert_eq!(
        client.text().await,
        r#"43/test,2[{"error":{"code":"teapot","message":"I am one."}}]"#
    );
    client.send(r#"42/test,3["who knows"]"#).await;
    assert_eq!(
        client.text().await,
        r#"43/test,3[{"error":{"code":"unknown_event","message":"who knows"}}]"#
    );
    client.send(r#"42/test,4["quick",4]"#).await;
    assert_eq!(client.text().await, "43/test,4[4]");
}

#[actix_rt::test]
async fn a_room_gets_what_is_sent_to_it() {
    let server = TestServer::start_wide();
    let mut inside = in_test(&server).await;
    let mut outside = in_test(&server).await;
    inside.send(r#"42/test,1["join"]"#).await;
    assert_eq!(inside.text().await, "43/test,1[]");
    outside.send(r#"42/test,["to-room",1]"#).await;
    assert_eq!(inside.text().await, r#"42/test,["to-room",1]"#);
    outside.send(r#"42/test,2["quick"]"#).await;
    assert_eq!(
        outside.text().await,
        "43/test,2[]",
        "who is not in the room gets nothing"
    );
}

#[actix_rt::test]
async fn large_messages_go_both_ways_on_both_transports() {
    let server = TestServer::start_wide();
    let long = "x".repeat(900_000);
    let mut websocket = in_test(&server).await;
    websocket
        .send(&format!(r#"42/test,1["quick","{long}"]"#))
        .await;
    assert_eq!(websocket.text().await, format!(r#"43/test,1["{long}"]"#));
    let poller = Poller::open(server.addr).await;
    poller.ok("40/test,").await;
    poller.payload().await;
    poller.ok(&format!(r#"42/test,1["quick","{long}"]"#)).await;
    assert_eq!(poller.payload().await, format!(r#"43/test,1["{long}"]"#));
}

#[actix_rt::test]
async fn typed_arguments_reach_the_handler_and_typed_answers_the_client() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,1["sum",2,40]"#).await;
    assert_eq!(client.text().await, "43/test,1[42]");
    client.send(r#"42/test,2["sum",2,"x"]"#).await;
    let refused = client.text().await;
    assert!(
        refused
            .starts_with(r#"43/test,2[{"error":{"code":"bad_arguments","message":"invalid type"#),
        "{refused}"
    );
    client
        .send(r#"451-/test,3["reverse",{"_placeholder":true,"num":0}]"#)
        .await;
    client.send_binary(&[1, 2, 3]).await;
    assert_eq!(
        client.text().await,
        r#"461-/test,3[{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(client.next().await, Frame::Binary(vec![3, 2, 1]));
}

#[actix_rt::test]
async fn what_a_handler_remembers_of_a_socket_is_there_the_next_time() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    for n in 1..=3 {
        client.send(&format!(r#"42/test,{n}["visit"]"#)).await;
        assert_eq!(client.text().await, format!("43/test,{n}[{n}]"));
    }
    let mut other = in_test(&server).await;
    other.send(r#"42/test,1["visit"]"#).await;
    assert_eq!(other.text().await, "43/test,1[1]");
}

#[actix_rt::test]
async fn middleware_may_refuse_an_event() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,1["forbidden"]"#).await;
    assert_eq!(
        client.text().await,
        r#"43/test,1[{"error":{"code":"forbidden","message":"Not this one."}}]"#
    );
}

#[actix_rt::test]
async fn a_handler_may_await_the_clients_own_ack() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,7["ask-me",20000]"#).await;
    assert_eq!(client.text().await, r#"42/test,0["question","what?"]"#);
    // Events that were sent before the ack wait; the ack itself does not wait for them, however many they are.
    for n in 0..200 {
        client
            .send(&format!(r#"42/test,1{n:03}["quick",{n}]"#))
            .await;
    }
    client.send(r#"43/test,99["of nothing"]"#).await;
    client
        .send(r#"461-/test,0["that",{"_placeholder":true,"num":0}]"#)
        .await;
    client.send_binary(&[7]).await;
    assert_eq!(client.text().await, r#"43/test,7[["that",[7]]]"#);
    for n in 0..200 {
        assert_eq!(client.text().await, format!("43/test,1{n:03}[{n}]"));
    }
}

#[actix_rt::test]
async fn an_ack_that_does_not_come_or_does_not_fit_is_an_error_of_the_handler_alone() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    client.send(r#"42/test,1["ask-me",20]"#).await;
    client.text().await;
    assert_eq!(
        client.text().await,
        r#"43/test,1["the client did not acknowledge within 20ms"]"#
    );
    client.send("43/test,0[\"too late\"]").await;
    client.send(r#"42/test,2["ask-me",20000]"#).await;
    assert_eq!(client.text().await, r#"42/test,1["question","what?"]"#);
    client.send(r#"43/test,1["no binary"]"#).await;
    assert_eq!(
        client.text().await,
        r#"43/test,2["the acknowledgement is not of the expected type"]"#
    );
}

#[actix_rt::test]
async fn a_broadcast_to_others_leaves_its_sender_out() {
    let server = TestServer::start_wide();
    let mut sender = in_test(&server).await;
    let mut other = in_test(&server).await;
    sender.send(r#"42/test,1["to-others","x"]"#).await;
    assert_eq!(sender.text().await, "43/test,1[]");
    assert_eq!(other.text().await, r#"42/test,["to-others","x"]"#);
}

#[actix_rt::test]
async fn a_volatile_event_passes_over_a_client_that_cannot_take_it_at_once() {
    let server = TestServer::start();
    let mut sender = in_test(&server).await;
    let poller = Poller::open(server.addr).await;
    poller.ok("40/test,").await;
    poller.payload().await;
    // No poll is parked now.
    sender.send(r#"42/test,1["volatile","lost"]"#).await;
    assert_eq!(sender.text().await, r#"42/test,["volatile","lost"]"#);
    assert_eq!(sender.text().await, "43/test,1[]");
    let parked = poller.begin_get().await;
    sender.send(r#"42/test,2["volatile","found"]"#).await;
    assert_eq!(
        parked.answer().await.text(),
        r#"42/test,["volatile","found"]"#
    );
}

#[actix_rt::test]
async fn who_left_a_room_gets_nothing_more_from_it() {
    let server = TestServer::start();
    let mut client = in_test(&server).await;
    for (n, event) in ["join", "leave", "to-room"].iter().enumerate() {
        client.send(&format!(r#"42/test,{n}["{event}"]"#)).await;
        assert_eq!(client.text().await, format!("43/test,{n}[]"));
    }
}
