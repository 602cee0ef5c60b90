//! What a client meets when handlers are slow, busy, or done with it. Each test names the fault that it once met.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sockhop::{
    config::DEFAULT_MAX_BACKLOG,
    gateways::{Ack, Arg, Event, Gateway, HandlerError, Refusal, Reply, SocketRef},
};
use tokio::sync::{Notify, watch};

use crate::support::{
    http::{Pending, Poller},
    server::TestServer,
    websocket::{Frame, WebSocket, frame, upgrade_request},
    within,
};

/// Counts calls, for handlers that are moved away.
fn counter() -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (count.clone(), count)
}

#[actix_rt::test]
async fn a_burst_to_a_client_that_reads_is_delivered_whole() {
    // A little more than a backlog may hold, so that some of it must go to the kernel meanwhile.
    let gateway = Gateway::new("/a").on("burst", |socket: SocketRef, (): ()| async move {
        for _ in 0..75 {
            socket.emit("x", "y".repeat(60_000))?;
        }
        Ok::<_, HandlerError>(())
    });
    let small = |config: &mut sockhop::config::Config| config.engine.max_payload = 100_000;
    const { assert!(75 * 60_000 > DEFAULT_MAX_BACKLOG) };
    let server = TestServer::of(small, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send(r#"42/a,["burst"]"#).await;
    for n in 0..75 {
        let got = websocket.next().await;
        assert!(matches!(got, Frame::Text(_)), "event {n}: {got:?}");
    }
}

#[actix_rt::test]
async fn a_client_whose_handlers_are_slow_is_not_timed_out() {
    let gateway = Gateway::new("/a").on("slow", |_, (): ()| async move {
        tokio::time::sleep(Duration::from_millis(25)).await;
    });
    let change = |config: &mut sockhop::config::Config| {
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_millis(200);
    };
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    for n in 0..100 {
        websocket.send(&format!(r#"42/a,{n}["slow"]"#)).await;
    }
    let mut num_acks = 0;
    while num_acks < 100 {
        match websocket.next().await {
            Frame::Text(text) if text == "2" => websocket.send("3").await,
            Frame::Text(_) => num_acks += 1,
            other => panic!("after {num_acks} acks: {other:?}"),
        }
    }
}

#[actix_rt::test]
async fn an_awaited_ack_is_read_although_another_namespace_is_behind() {
    let a = Gateway::new("/a").on("ask", |socket: SocketRef, (): ()| async move {
        let answer = socket
            .emit_with_ack::<(u32,)>("question", (), Duration::from_secs(20))
            .await;
        Ack(answer.map_or_else(|err| err.to_string(), |(number,)| number.to_string()))
    });
    let b = Gateway::new("/b").on("never", |_, (): ()| std::future::pending::<()>());
    let server = TestServer::of(|_| {}, |app| app.gateway(a).gateway(b));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send("40/b,").await;
    websocket.text().await;
    websocket.send(r#"42/a,1["ask"]"#).await;
    assert_eq!(websocket.text().await, r#"42/a,0["question"]"#);
    for _ in 0..100 {
        websocket.send(r#"42/b,["never"]"#).await;
    }
    websocket.send("43/a,0[7]").await;
    assert_eq!(websocket.text().await, r#"43/a,1["7"]"#);
}

#[actix_rt::test]
async fn a_connect_reply_that_overflows_leaves_no_member() {
    let (connected, counted) = counter();
    let (release, gate) = watch::channel(false);
    let a = Gateway::new("/a").on("fill", |socket: SocketRef, (): ()| async move {
        // Two messages in a backlog: one of them alone may be of any size.
        socket.emit("x", "y".repeat(2 * DEFAULT_MAX_BACKLOG - 100))
    });
    let b = Gateway::new("/b")
        .authorize(move |_| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|is_open| *is_open).await.unwrap();
                Ok::<_, Refusal>(())
            }
        })
        .on_connect(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {}
        });
    let server = TestServer::of(|_| {}, |app| app.gateway(a).gateway(b));
    let poller = Poller::open(server.addr).await;
    poller.ok("40/a,").await;
    poller.payload().await;
    poller.ok("40/b,").await;
    poller.ok(r#"42/a,["fill"]"#).await;
    release.send(true).unwrap();
    server.await_connections(0).await;
    assert_eq!(
        connected.load(Ordering::SeqCst),
        0,
        "who was never told is no member"
    );
}

#[actix_rt::test]
async fn a_stop_waits_for_the_handlers_of_clients_that_leave() {
    let (done, count) = counter();
    let gateway = Gateway::new("/a").on_disconnect(move |_, reason| {
        let count = count.clone();
        async move {
            assert_eq!(reason.as_str(), "server shutting down");
            tokio::time::sleep(Duration::from_millis(100)).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let server = TestServer::of_gateway(gateway);
    let (_websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    server.stop();
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[actix_rt::test]
async fn a_stop_does_not_wait_for_a_client_that_has_yet_to_fetch_its_close() {
    let server = TestServer::start();
    let poller = Poller::open(server.addr).await;
    poller.ok("49").await;
    let began = std::time::Instant::now();
    server.stop();
    // The drain alone would take three seconds, and the client would not come.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[actix_rt::test]
async fn events_behind_a_kick_are_not_handled() {
    let (handled, count) = counter();
    let told = Arc::new(Notify::new());
    let tell = told.clone();
    let gateway = Gateway::new("/a")
        .on("kick", |socket: SocketRef, (): ()| async move {
            socket.disconnect(true)
        })
        .on("count", move |_, (): ()| {
            count.fetch_add(1, Ordering::SeqCst);
            async {}
        })
        .on_disconnect(move |_, reason| {
            assert_eq!(reason.as_str(), "forced server close");
            tell.notify_one();
            async {}
        });
    let server = TestServer::of_gateway(gateway);
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    let mut all = frame(0x81, br#"42/a,["kick"]"#);
    for _ in 0..10 {
        all.extend(frame(0x81, br#"42/a,["count"]"#));
    }
    websocket.write(&all).await;
    websocket.closed().await;
    within("the disconnect handler", told.notified()).await;
    server.stop();
    assert_eq!(handled.load(Ordering::SeqCst), 0);
}

#[actix_rt::test]
async fn a_client_is_thrown_out_behind_the_broadcast_before_it_and_ahead_of_its_next_event() {
    let (handled, count) = counter();
    let gateway = Gateway::new("/a")
        .on("kick", |socket: SocketRef, (): ()| async move {
            for n in 0..50 {
                socket.namespace_ref().emit("bye", n).await?;
            }
            socket.disconnect(false);
            Ok::<_, HandlerError>(())
        })
        .on("count", move |_, (): ()| {
            count.fetch_add(1, Ordering::SeqCst);
            async {}
        });
    let server = TestServer::of_gateway(gateway);
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    let mut all = frame(0x81, br#"42/a,["kick"]"#);
    for _ in 0..10 {
        all.extend(frame(0x81, br#"42/a,["count"]"#));
    }
    websocket.write(&all).await;
    for n in 0..50 {
        assert_eq!(websocket.text().await, format!(r#"42/a,["bye",{n}]"#));
    }
    assert_eq!(websocket.text().await, "41/a,");
    server.stop();
    assert_eq!(handled.load(Ordering::SeqCst), 0);
}

#[actix_rt::test]
async fn what_handlers_send_by_whatever_way_and_their_acks_keep_their_order() {
    let gateway = Gateway::new("/a")
        .on("all", |socket: SocketRef, Arg(n): Arg<u32>| async move {
            socket.namespace_ref().emit("1", n).await?;
            socket.emit("2", n)?;
            socket.namespace_ref().emit("3", n).await?;
            socket
                .namespace_ref()
                .to(socket.id().room())
                .emit("4", n)
                .await
        })
        .on("one", |socket: SocketRef, Arg(n): Arg<u32>| async move {
            socket.namespace_ref().emit("5", n).await
        })
        .on("none", |_, Arg(_): Arg<u32>| async {});
    let noise = Gateway::new("/noise").on("noise", |socket: SocketRef, (): ()| async move {
        socket.namespace_ref().emit("noise", ()).await
    });
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway).gateway(noise));
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    // Somebody else's broadcasts, so that the hub is busy.
    let (mut other, _) = WebSocket::join(server.addr, "/noise", "").await;
    for round in 0..20 {
        let mut noise = Vec::new();
        let mut events = Vec::new();
        for n in (round * 10)..(round * 10 + 10) {
            for (at, name) in ["all", "one", "none"].iter().enumerate() {
                let text = format!(r#"42/a,{}["{name}",{n}]"#, 3 * n + at);
                events.extend(frame(0x81, text.as_bytes()));
            }
            noise.extend(frame(0x81, br#"42/noise,["noise"]"#));
        }
        other.write(&noise).await;
        websocket.write(&events).await;
        for n in (round * 10)..(round * 10 + 10) {
            for name in 1..=4 {
                assert_eq!(websocket.text().await, format!(r#"42/a,["{name}",{n}]"#));
            }
            assert_eq!(websocket.text().await, format!("43/a,{}[]", 3 * n));
            assert_eq!(websocket.text().await, format!(r#"42/a,["5",{n}]"#));
            for at in 1..3 {
                assert_eq!(websocket.text().await, format!("43/a,{}[]", 3 * n + at));
            }
        }
        for _ in 0..10 {
            assert_eq!(other.text().await, r#"42/noise,["noise"]"#);
        }
    }
}

#[actix_rt::test]
async fn volatile_events_that_come_at_once_reach_a_client_that_reads() {
    let gateway = Gateway::new("/a").on("several", |socket: SocketRef, (): ()| async move {
        for n in 0..10 {
            socket.volatile().emit("direct", n)?;
            socket
                .namespace_ref()
                .all()
                .volatile()
                .emit("all", n)
                .await?;
        }
        Ok::<_, HandlerError>(())
    });
    let server = TestServer::of_gateway(gateway);
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    websocket.send(r#"42/a,["several"]"#).await;
    for n in 0..10 {
        for name in ["direct", "all"] {
            assert_eq!(websocket.text().await, format!(r#"42/a,["{name}",{n}]"#));
        }
    }
}

#[actix_rt::test]
async fn a_bad_frame_behind_the_handshake_is_answered_behind_the_101() {
    let server = TestServer::start();
    let mut bytes = upgrade_request("/socket.io/?EIO=4&transport=websocket", &[]);
    bytes.extend(frame(0x81, b"x"));
    let mut pending = Pending::send(server.addr, &bytes).await;
    let mut all = Vec::new();
    within(
        "the end",
        tokio::io::AsyncReadExt::read_to_end(&mut pending.stream, &mut all),
    )
    .await
    .unwrap();
    assert!(
        all.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&all)
    );
    assert!(all.ends_with(&[0x88, 0]));
}

#[actix_rt::test]
async fn a_binary_event_may_hold_whatever_a_text_event_may() {
    let gateway =
        Gateway::new("/a").on_other(|_, event: Event| async move { Reply::args(event.payload()) });
    let server = TestServer::of_gateway(gateway);
    let (mut websocket, _) = WebSocket::join(server.addr, "/a", "").await;
    for extra in [
        r#""\ud800""#,
        "1e400",
        "123456789012345678901234567890",
        r#"{"a":1,"a":2}"#,
    ] {
        let args = format!(r#"{{"_placeholder":true,"num":0}},{extra}"#);
        websocket.send(&format!(r#"451-/a,2["x",{args}]"#)).await;
        websocket.send_binary(b"abc").await;
        assert_eq!(websocket.text().await, format!("461-/a,2[{args}]"));
        assert_eq!(websocket.next().await, Frame::Binary(b"abc".to_vec()));
    }
}
