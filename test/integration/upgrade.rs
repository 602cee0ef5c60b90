//! From polling to WebSocket, with its races. Source: wire.md 1.6.

use std::time::Duration;

use crate::support::{
    http::{self, Poller},
    server::TestServer,
    websocket::{Frame, WebSocket},
};

async fn probing(poller: &Poller) -> WebSocket {
    WebSocket::connect(poller.addr, &poller.upgrade_target()).await
}

/// Upgrades as the official client does.
async fn upgraded(poller: &Poller) -> WebSocket {
    let mut websocket = probing(poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.send("5").await;
    websocket
}

#[actix_rt::test]
async fn a_session_moves_to_the_websocket() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let parked = poller.begin_get().await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    assert_eq!(
        parked.answer().await.text(),
        "6",
        "a parked poll is released"
    );
    assert_eq!(
        poller.payload().await,
        "6",
        "and so is one that comes later"
    );
    websocket.send("5").await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
    let answer = poller.get().await;
    assert_eq!(answer.json()["code"], 3, "polling is over: {answer:?}");
    websocket.send(r#"42["message",2]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",2]"#);
}

#[actix_rt::test]
async fn what_waits_for_a_poll_is_flushed_to_the_websocket_in_order() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    for n in 0..20 {
        poller.ok(&format!("42{n}[\"message-with-ack\",{n}]")).await;
    }
    let mut websocket = upgraded(&poller).await;
    for n in 0..20 {
        assert_eq!(websocket.text().await, format!("43{n}[{n}]"));
    }
}

#[actix_rt::test]
async fn an_upgrade_without_a_probe_is_accepted() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("5").await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
}

#[actix_rt::test]
async fn any_other_first_packet_closes_the_probe_and_polling_goes_on() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    for packet in ["2", "2other", r#"42["message",1]"#, "abc", "3probe"] {
        let mut websocket = probing(&poller).await;
        websocket.send(packet).await;
        websocket.assert_closed().await;
    }
    poller.ok(r#"42["message",1]"#).await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
}

#[actix_rt::test]
async fn a_probe_that_vanishes_does_no_harm() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    drop(websocket);
    poller.ok(r#"42["message",1]"#).await;
    loop {
        // A noop may have released a poll meanwhile.
        match poller.payload().await.as_str() {
            "6" => {}
            payload => break assert_eq!(payload, r#"42["message-back",1]"#),
        }
    }
    upgraded(&poller).await;
}

#[actix_rt::test]
async fn an_upgrade_that_is_not_finished_in_time_is_dropped() {
    let server = TestServer::with(|config| {
        config.engine.upgrade_timeout = Duration::from_millis(100);
    });
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.assert_closed().await;
    poller.ok(r#"42["message",1]"#).await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
}

#[actix_rt::test]
async fn a_second_websocket_is_refused_while_one_probes_and_after_the_upgrade() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut first = probing(&poller).await;
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    probing(&poller).await.assert_closed().await;
    first.send("5").await;
    first.send(r#"42["message",1]"#).await;
    assert_eq!(first.text().await, r#"42["message-back",1]"#);
    probing(&poller).await.assert_closed().await;
    first.send(r#"42["message",2]"#).await;
    assert_eq!(first.text().await, r#"42["message-back",2]"#);
}

#[actix_rt::test]
async fn a_session_that_was_born_on_a_websocket_takes_no_second() {
    let server = TestServer::start();
    let mut first = WebSocket::connect(server.addr, "/socket.io/?EIO=4&transport=websocket").await;
    let open = first.text().await;
    let sid = open.split('"').nth(3).unwrap();
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    WebSocket::connect(server.addr, &target)
        .await
        .assert_closed()
        .await;
    first.send("40").await;
    assert!(first.text().await.starts_with("40"));
}

#[actix_rt::test]
async fn the_end_of_the_session_closes_the_probe() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    poller.ok("1").await;
    websocket.assert_closed().await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn frames_that_came_with_the_handshake_are_not_lost() {
    use crate::support::websocket::{frame, upgrade_request};
    use tokio::io::AsyncReadExt as _;

    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let target = poller.upgrade_target();
    let bytes = [upgrade_request(&target, &[]), frame(0x81, b"2probe")].concat();
    let mut pending = http::Pending::send(server.addr, &bytes).await;
    let mut got = Vec::new();
    crate::support::within("3probe", async {
        while !got.ends_with(b"3probe") {
            assert!(pending.stream.read_buf(&mut got).await.unwrap() > 0);
        }
    })
    .await;
}

#[actix_rt::test]
async fn repeated_probes_are_answered_each_time() {
    let server = TestServer::start();
    let poller = Poller::join_main(server.addr).await;
    let mut websocket = probing(&poller).await;
    for _ in 0..3 {
        websocket.send("2probe").await;
        assert_eq!(websocket.next().await, Frame::Text("3probe".to_owned()));
    }
}
