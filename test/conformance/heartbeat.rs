//! Pings, pongs, and their absence. Source: wire.md 1.7, 8.1.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sockhop::{app::App, gateways::Gateway};

use crate::support::{conformance, http::Poller, server::TestServer, websocket::WebSocket, within};

/// The times of the official conformance suites.
fn quick() -> TestServer {
    TestServer::with(|config| {
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_millis(200);
        config.engine.connect_timeout = Duration::from_millis(1000);
    })
}

#[actix_rt::test]
async fn a_websocket_gets_a_ping_after_each_pong() {
    let server = quick();
    // Each before what the interval begins with, or a slow test would take the server for a quick one.
    let mut since = Instant::now();
    let mut websocket = WebSocket::join_main(server.addr).await;
    for _ in 0..3 {
        assert_eq!(websocket.text().await, "2");
        assert!(
            since.elapsed() > Duration::from_millis(200),
            "not before the interval"
        );
        since = Instant::now();
        websocket.send("3").await;
    }
}

#[actix_rt::test]
async fn a_poller_gets_a_ping_in_its_poll() {
    let server = quick();
    let poller = Poller::join_main(server.addr).await;
    for _ in 0..3 {
        assert_eq!(poller.payload().await, "2");
        poller.ok("3").await;
    }
}

#[actix_rt::test]
async fn a_websocket_without_pongs_is_closed() {
    let server = quick();
    let mut websocket = WebSocket::join_main(server.addr).await;
    assert_eq!(websocket.text().await, "2");
    websocket.assert_closed().await;
    server.await_connections(0).await;
}

#[actix_rt::test]
async fn a_poller_without_pongs_gets_a_close() {
    let server = quick();
    let poller = Poller::join_main(server.addr).await;
    assert_eq!(poller.payload().await, "2");
    assert_eq!(poller.payload().await, "1");
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_poller_that_never_polls_is_forgotten() {
    let server = quick();
    let poller = Poller::open(server.addr).await;
    server.await_connections(0).await;
    poller.assert_gone().await;
}

#[actix_rt::test]
async fn a_pong_that_arrived_in_time_counts_however_late_it_is_read() {
    let (has_stalled, mut stalled) = tokio::sync::mpsc::unbounded_channel();
    let (resume, resumed) = std::sync::mpsc::channel();
    let resumed = Arc::new(Mutex::new(resumed));
    let server = TestServer::of_app(conformance::configure, |config| {
        let stall = move |_, (): ()| {
            let (has_stalled, resumed) = (has_stalled.clone(), Arc::clone(&resumed));
            async move {
                has_stalled.send(()).unwrap();
                // Blocks the thread, which nobody should.
                resumed.lock().unwrap().recv().unwrap();
            }
        };
        App::new(config).gateway(Gateway::new("/").on("stall", stall))
    });
    let mut websocket = WebSocket::open(server.addr).await;
    websocket.send("40").await;
    assert!(websocket.text().await.starts_with("40"));
    assert_eq!(websocket.text().await, "2");
    websocket.send(r#"42["stall"]"#).await;
    within("the stall", stalled.recv()).await.unwrap();
    websocket.send("3").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    resume.send(()).unwrap();
    assert_eq!(websocket.text().await, "2", "the next ping");
}

#[actix_rt::test]
async fn a_client_that_joins_no_namespace_is_closed() {
    let server = TestServer::with(|config| {
        config.engine.connect_timeout = Duration::from_millis(100);
    });
    let mut websocket = WebSocket::open(server.addr).await;
    // A refusal does not stop the clock.
    websocket.send("40/nowhere,").await;
    assert!(websocket.text().await.starts_with("44/nowhere,"));
    websocket.assert_closed().await;
    let mut websocket = WebSocket::join_main(server.addr).await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
}
