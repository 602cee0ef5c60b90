//! From polling to WebSocket, with its races: at the instance that has the session, and at another, to which it then moves. The rules
//! are the same. Source: wire.md 1.6; docs/sessions.md.

use std::{net::SocketAddr, time::Duration};

use sockhop::config::Config;

use crate::{
    cluster::await_redis,
    support::{
        http::{self, Poller},
        redis_server::RedisServer,
        server::TestServer,
        websocket::{Frame, WebSocket, frame, upgrade_request},
        within,
    },
};

/// Where a client polls, and where its WebSocket lands.
struct Place {
    poll: SocketAddr,
    probe: SocketAddr,
    servers: Vec<TestServer>,
    _redis: Option<RedisServer>,
}

impl Place {
    /// At one instance.
    fn here(change: fn(&mut Config)) -> Self {
        let server = TestServer::with(change);
        Self {
            poll: server.addr,
            probe: server.addr,
            servers: vec![server],
            _redis: None,
        }
    }

    /// At two, which hear each other.
    async fn elsewhere(change: fn(&mut Config)) -> Self {
        let redis = RedisServer::start();
        let start = || TestServer::on_redis_as(&redis.url(), change, |app| app);
        let servers = vec![start(), start()];
        for server in &servers {
            await_redis(server, "up").await;
        }
        Self {
            poll: servers[0].addr,
            probe: servers[1].addr,
            servers,
            _redis: Some(redis),
        }
    }

    /// Waits until there are this many sessions in all.
    async fn await_connections(&self, expected: u64) {
        within("number of connections", async {
            loop {
                let mut num = 0;
                for server in &self.servers {
                    num += server.num_connections().await;
                }
                if num == expected {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Declares two tests for each case below, with these settings: one at the instance that has the session, one at another.
macro_rules! cases {
    ($($name:ident with $change:ident;)+) => {
        mod here {
            $(
                #[actix_rt::test]
                async fn $name() {
                    super::$name(super::Place::here(super::$change)).await;
                }
            )+
        }

        mod elsewhere {
            $(
                #[actix_rt::test]
                async fn $name() {
                    super::$name(super::Place::elsewhere(super::$change).await).await;
                }
            )+
        }
    };
}

fn as_usual(_: &mut Config) {}

fn in_a_hurry(config: &mut Config) {
    config.engine.upgrade_timeout = Duration::from_millis(100);
}

fn with_all_the_time_in_the_world(config: &mut Config) {
    config.engine.upgrade_timeout = Duration::from_secs(3600);
}

cases! {
    a_session_moves_to_the_websocket with as_usual;
    what_waits_for_a_poll_is_flushed_to_the_websocket_in_order with as_usual;
    an_upgrade_without_a_probe_is_accepted with as_usual;
    what_comes_behind_an_upgrade_may_be_long with as_usual;
    any_other_first_packet_closes_the_probe_and_polling_goes_on with as_usual;
    a_probe_that_is_too_long_is_closed_before_it_is_whole with with_all_the_time_in_the_world;
    a_probe_that_vanishes_does_no_harm with as_usual;
    an_upgrade_that_is_not_finished_in_time_is_dropped with in_a_hurry;
    a_second_websocket_is_refused_while_one_probes_and_after_the_upgrade with as_usual;
    a_session_that_was_born_on_a_websocket_takes_no_second with as_usual;
    the_end_of_the_session_closes_the_probe with as_usual;
    frames_that_came_with_the_handshake_are_not_lost with as_usual;
    repeated_probes_are_answered_each_time with as_usual;
}

async fn probing(place: &Place, poller: &Poller) -> WebSocket {
    WebSocket::connect(place.probe, &poller.upgrade_target()).await
}

/// Upgrades as the official client does.
async fn upgraded(place: &Place, poller: &Poller) -> WebSocket {
    let mut websocket = probing(place, poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.send("5").await;
    websocket
}

async fn a_session_moves_to_the_websocket(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let parked = poller.begin_get().await;
    let mut websocket = probing(&place, &poller).await;
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
    for addr in [place.probe, place.poll] {
        let answer = http::get(addr, &poller.target).await;
        assert_eq!(answer.json()["code"], 3, "polling is over: {answer:?}");
    }
    websocket.send(r#"42["message",2]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",2]"#);
}

async fn what_waits_for_a_poll_is_flushed_to_the_websocket_in_order(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    for n in 0..20 {
        poller.ok(&format!("42{n}[\"message-with-ack\",{n}]")).await;
    }
    let mut websocket = upgraded(&place, &poller).await;
    for n in 0..20 {
        assert_eq!(websocket.text().await, format!("43{n}[{n}]"));
    }
}

async fn an_upgrade_without_a_probe_is_accepted(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    websocket.send("5").await;
    websocket.send(r#"42["message",1]"#).await;
    assert_eq!(websocket.text().await, r#"42["message-back",1]"#);
}

async fn any_other_first_packet_closes_the_probe_and_polling_goes_on(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    for packet in ["2", "2other", r#"42["message",1]"#, "abc", "3probe"] {
        let mut websocket = probing(&place, &poller).await;
        websocket.send(packet).await;
        websocket.assert_closed().await;
    }
    poller.ok(r#"42["message",1]"#).await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
}

async fn a_probe_that_is_too_long_is_closed_before_it_is_whole(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    let probe = frame(0x81, &[b'2'; 90_000]);
    websocket.write(&probe[..4096]).await;
    websocket.assert_closed().await;
}

async fn what_comes_behind_an_upgrade_may_be_long(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    let text = "x".repeat(90_000);
    let message = format!(r#"42["message","{text}"]"#);
    let all = [frame(0x81, b"5"), frame(0x81, message.as_bytes())];
    websocket.write(&all.concat()).await;
    assert_eq!(
        websocket.text().await,
        format!(r#"42["message-back","{text}"]"#)
    );
}

async fn a_probe_that_vanishes_does_no_harm(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
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
    // Until it is known that the first is gone, the session has one that probes, and a second is refused.
    let again = async {
        loop {
            let mut websocket = probing(&place, &poller).await;
            websocket.try_send("2probe").await;
            match websocket.next().await {
                Frame::Text(text) => break assert_eq!(text, "3probe"),
                frame => assert!(matches!(frame, Frame::Close(..)), "{frame:?}"),
            }
        }
    };
    within("another probe", again).await;
}

async fn an_upgrade_that_is_not_finished_in_time_is_dropped(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.assert_closed().await;
    poller.ok(r#"42["message",1]"#).await;
    assert_eq!(poller.payload().await, r#"42["message-back",1]"#);
}

async fn a_second_websocket_is_refused_while_one_probes_and_after_the_upgrade(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut first = probing(&place, &poller).await;
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    probing(&place, &poller).await.assert_closed().await;
    first.send("5").await;
    first.send(r#"42["message",1]"#).await;
    assert_eq!(first.text().await, r#"42["message-back",1]"#);
    probing(&place, &poller).await.assert_closed().await;
    first.send(r#"42["message",2]"#).await;
    assert_eq!(first.text().await, r#"42["message-back",2]"#);
}

async fn a_session_that_was_born_on_a_websocket_takes_no_second(place: Place) {
    let mut first = WebSocket::connect(place.poll, "/socket.io/?EIO=4&transport=websocket").await;
    let open = first.text().await;
    let sid = open.split('"').nth(3).unwrap();
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    WebSocket::connect(place.probe, &target)
        .await
        .assert_closed()
        .await;
    first.send("40").await;
    assert!(first.text().await.starts_with("40"));
}

async fn the_end_of_the_session_closes_the_probe(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    poller.ok("1").await;
    websocket.assert_closed().await;
    place.await_connections(0).await;
}

async fn frames_that_came_with_the_handshake_are_not_lost(place: Place) {
    use tokio::io::AsyncReadExt as _;

    let poller = Poller::join_main(place.poll).await;
    let target = poller.upgrade_target();
    let bytes = [upgrade_request(&target, &[]), frame(0x81, b"2probe")].concat();
    let mut pending = http::Pending::send(place.probe, &bytes).await;
    let mut got = Vec::new();
    within("3probe", async {
        while !got.ends_with(b"3probe") {
            assert!(pending.stream.read_buf(&mut got).await.unwrap() > 0);
        }
    })
    .await;
}

async fn repeated_probes_are_answered_each_time(place: Place) {
    let poller = Poller::join_main(place.poll).await;
    let mut websocket = probing(&place, &poller).await;
    for _ in 0..3 {
        websocket.send("2probe").await;
        assert_eq!(websocket.next().await, Frame::Text("3probe".to_owned()));
    }
}
