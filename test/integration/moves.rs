//! Sessions that move to the instance at which their WebSocket lands: all of a session goes along, and what cannot is reached from
//! there. Source: wire.md 1.6; docs/sessions.md.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    task::Poll,
    time::Duration,
};

use serde_json::{Value, json};
use sockhop::{
    adapter::{kind::AdapterKind, sharded_channel::SubscriptionMode},
    app::App,
    config::Config,
    gateways::{Ack, AllArgs, Arg, Event, Gateway, HandlerError, SocketRef},
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::{
    cluster::{await_redis, pair_by, pair_of},
    limits::num_met,
    relay::Stranger,
    support::{
        PATIENCE,
        http::{self, Answer, Poller},
        program::Program,
        redis_server::RedisServer,
        server::TestServer,
        websocket::{Frame, WebSocket, upgrade_request},
        within,
    },
};

/// Handlers of these tests that wait until a test lets them go on.
static GATE: Semaphore = Semaphore::const_new(0);

/// Taken while a handler runs that has no end of its own.
static ENDLESS: Semaphore = Semaphore::const_new(1);

/// Taken while a handler awaits an ack that never comes.
static UNANSWERED: Semaphore = Semaphore::const_new(1);

/// `/moves`: handlers that are under way while their session moves.
fn with_moves(app: App) -> App {
    let gateway = Gateway::new("/moves")
        .on("held", |socket: SocketRef, Arg(n): Arg<u32>| async move {
            socket.emit("begun", n)?;
            let permit = GATE.acquire().await;
            permit.map(tokio::sync::SemaphorePermit::forget).unwrap();
            socket.set_data(&json!({ "last": n })).unwrap();
            socket.join(format!("room {n}")).await?;
            socket.emit("going on", n)?;
            let rooms = socket.rooms().await?.len();
            socket.namespace_ref().emit("to all", n).await?;
            Ok::<_, HandlerError>(Ack((n, rooms as u64)))
        })
        .on_move(|socket| async move {
            socket.with_data(|data| data["moved to"] = socket.instance().as_str().into());
        })
        .on("data", |socket: SocketRef, (): ()| async move {
            Ack(socket.data())
        })
        .on("ask", |socket: SocketRef, (): ()| async move {
            let answer = socket
                .emit_with_ack::<(u32,)>("question", (), Duration::from_secs(30))
                .await;
            socket.emit("answered", answer.ok().map(|(n,)| n))
        })
        .on("ask-in-vain", |socket: SocketRef, (): ()| async move {
            let _permit = UNANSWERED.acquire().await.unwrap();
            let asked = socket.emit_with_ack::<()>("question", (), 2 * PATIENCE);
            assert!(asked.await.is_err(), "nobody answers");
        })
        .on("rooms", |socket: SocketRef, (): ()| async move {
            let mut rooms: Vec<_> = socket.rooms().await?.into_iter().collect();
            rooms.retain(|room| room.as_str() != socket.id().as_str());
            rooms.sort();
            Ok::<_, HandlerError>(Ack(rooms))
        })
        .on("who", |socket: SocketRef, _: Event| async move {
            Ack((socket.id().clone(), socket.instance().as_str().to_owned()))
        })
        .on(
            "to-room",
            |socket: SocketRef, Arg(room): Arg<String>| async move {
                socket
                    .namespace_ref()
                    .to(room.as_str())
                    .emit("in room", room)
                    .await
            },
        )
        .on(
            "tell-all",
            |socket: SocketRef, args: AllArgs<(String, u32)>| async move {
                let AllArgs((name, n)) = args;
                socket.namespace_ref().emit("told", (&name, n)).await?;
                Ok::<_, HandlerError>(Ack(n))
            },
        )
        .on(
            "ask-all",
            |socket: SocketRef, args: AllArgs<(String, u32)>| async move {
                let AllArgs((name, n)) = args;
                let all = socket.namespace_ref().all();
                // Nobody answers, and nobody waits for it.
                let mut asked = Box::pin(async move {
                    all.emit_with_ack::<u32>("told", (&name, n), Duration::from_secs(5))
                        .await
                });
                // Put now, in its place among what this client sends.
                poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_ready())).await;
                actix_rt::spawn(asked);
                Ok::<_, HandlerError>(Ack(n))
            },
        )
        .on("never", |_, _: Event| std::future::pending::<()>())
        .on("endless", |_, (): ()| async {
            let _permit = ENDLESS.acquire().await.unwrap();
            std::future::pending::<()>().await;
        });
    let dynamic =
        Gateway::matching("/rooms/{id}").on("say", |socket: SocketRef, event: Event| async move {
            socket
                .namespace_ref()
                .all()
                .emit_args(event.args().clone())
                .await
        });
    app.gateway(gateway).gateway(dynamic)
}

async fn pair(redis: &RedisServer) -> (TestServer, TestServer) {
    pair_of(redis, with_moves).await
}

/// A third instance beside the pair.
async fn third(redis: &RedisServer) -> TestServer {
    let three = TestServer::on_redis_by(AdapterKind::Classic, &redis.url(), with_moves);
    await_redis(&three, "up").await;
    three
}

/// What polling gets whose session lives on a WebSocket, wherever that is.
fn assert_on_websocket(answer: &Answer) {
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({ "code": 3, "message": "Bad request" })
    );
}

fn assert_unknown(answer: &Answer) {
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({ "code": 1, "message": "Session ID unknown" })
    );
}

/// Waits until an instance knows that a session has ended that was on a WebSocket.
async fn await_unknown(addr: SocketAddr, poller: &Poller) {
    within("the end of a session", async {
        loop {
            let answer = http::get(addr, &poller.target).await;
            if answer.json()["code"] != 3 {
                return assert_unknown(&answer);
            }
            assert_on_websocket(&answer);
        }
    })
    .await;
    assert_unknown(&http::post(addr, &poller.target, b"40").await);
}

/// Lets a WebSocket at `there` probe for a session.
async fn probing(poller: &Poller, there: SocketAddr) -> WebSocket {
    let mut websocket = WebSocket::connect(there, &poller.upgrade_target()).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket
}

/// As [`probing`], for a session whose last probe may not have been given up yet.
async fn probing_again(poller: &Poller, there: SocketAddr) -> WebSocket {
    within("another probe", async {
        loop {
            let mut websocket = WebSocket::connect(there, &poller.upgrade_target()).await;
            websocket.send("2probe").await;
            match websocket.next().await {
                Frame::Text(text) => {
                    assert_eq!(text, "3probe");
                    break websocket;
                }
                frame => assert_eq!(frame, Frame::Close(None, String::new())),
            }
        }
    })
    .await
}

pub(crate) async fn moved(poller: &Poller, there: SocketAddr) -> WebSocket {
    let mut websocket = probing(poller, there).await;
    websocket.send("5").await;
    websocket
}

/// Joins `/moves` by polling.
async fn joined(at: SocketAddr) -> (Poller, String) {
    let poller = Poller::open(at).await;
    poller.ok("40/moves,").await;
    let connected = poller.payload().await;
    let id = connected.strip_prefix(r#"40/moves,{"sid":""#).unwrap();
    (poller, id.strip_suffix(r#""}"#).unwrap().to_owned())
}

#[actix_rt::test]
async fn a_session_moves_to_the_instance_of_its_websocket() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let three = third(&redis).await;
    let (poller, id) = joined(one.addr).await;
    let parked = poller.begin_get().await;
    let mut websocket = probing(&poller, two.addr).await;
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
    websocket.send(r#"42/moves,0["who"]"#).await;
    let instance = http::get(two.addr, "/readyz").await.json()["instance"].clone();
    let expected = format!(r#"43/moves,0[["{id}",{instance}]]"#);
    assert_eq!(
        websocket.text().await,
        expected,
        "the same socket, elsewhere"
    );
    one.await_connections(0).await;
    two.await_connections(1).await;
    for addr in [one.addr, two.addr, three.addr] {
        assert_on_websocket(&http::get(addr, &poller.target).await);
        assert_on_websocket(&http::post(addr, &poller.target, b"40").await);
        let mut second = WebSocket::connect(addr, &poller.upgrade_target()).await;
        assert_eq!(
            second.next().await,
            Frame::Close(None, String::new()),
            "as a second one is closed anywhere"
        );
    }
    // Sound by its transport, and yet of no use: it opens nothing, here as there.
    let plain = poller.upgrade_target();
    let by_polling = plain.replace("websocket", "polling");
    for addr in [two.addr, one.addr] {
        for answer in [
            http::get(addr, &plain).await,
            http::post(addr, &plain, b"40").await,
        ] {
            assert_unknown(&answer);
        }
        assert_eq!(http::send(addr, "PUT", &plain, &[], b"").await.status, 500);
        let mut second = WebSocket::connect(addr, &by_polling).await;
        assert_eq!(second.next().await, Frame::Close(None, String::new()));
        let other_revision = poller.target.replace("EIO=4", "EIO=3");
        assert_on_websocket(&http::get(addr, &other_revision).await);
    }
    assert_eq!(
        (
            one.num_connections().await,
            two.num_connections().await,
            three.num_connections().await
        ),
        (0, 1, 0)
    );
    websocket.send(r#"42/moves,1["rooms"]"#).await;
    assert_eq!(websocket.text().await, "43/moves,1[[]]");
    websocket.send("41/moves,").await;
    drop(websocket);
    two.await_connections(0).await;
    for addr in [one.addr, two.addr, three.addr] {
        await_unknown(addr, &poller).await;
    }
}

/// Starts an instance that has room for one dynamic namespace.
fn narrow(redis: &RedisServer) -> TestServer {
    let change = |config: &mut Config| config.limits.max_dynamic_namespaces = 1;
    TestServer::on_redis_as(&redis.url(), change, with_moves)
}

/// Opens a session by polling that is in `/rooms/1`.
async fn in_room_one(server: &TestServer) -> Poller {
    let poller = Poller::open(server.addr).await;
    poller.ok("40/rooms/1,").await;
    poller.payload().await;
    poller
}

/// A bug: there it was found out that there was no room only once its client had left polling. It was thrown out, came back, and again.
#[actix_rt::test]
async fn a_session_stays_where_it_is_if_it_could_not_be_in_its_namespace_elsewhere() {
    let redis = RedisServer::start();
    let one = third(&redis).await;
    let two = narrow(&redis);
    // Of an older release, say.
    let other = TestServer::on_redis(&redis.url());
    for server in [&two, &other] {
        await_redis(server, "up").await;
    }
    let (mut before, _) = WebSocket::join(two.addr, "/rooms/0", "").await;
    for elsewhere in [two.addr, other.addr] {
        let poller = in_room_one(&one).await;
        let mut websocket = WebSocket::connect(elsewhere, &poller.upgrade_target()).await;
        websocket.send("2probe").await;
        let answer = websocket.next().await;
        assert_eq!(
            answer,
            Frame::Close(None, String::new()),
            "it may not even probe"
        );
        let event = r#"42/rooms/1,["say","still here"]"#;
        poller.ok(event).await;
        assert_eq!(poller.payload().await, event);
        poller.ok("1").await;
    }
    assert_eq!(num_met(two.addr, "namespaces").await, 1);
    // Once there is room, it can move.
    let poller = in_room_one(&one).await;
    before.send("41/rooms/0,").await;
    let mut websocket = probing_again(&poller, two.addr).await;
    websocket.send("5").await;
    let event = r#"42/rooms/1,["say","moved"]"#;
    websocket.send(event).await;
    assert_eq!(websocket.text().await, event);
}

#[actix_rt::test]
async fn a_session_that_joins_one_namespace_too_many_while_it_moves_does_not_come() {
    let redis = RedisServer::start();
    let one = third(&redis).await;
    let two = narrow(&redis);
    await_redis(&two, "up").await;
    let poller = in_room_one(&one).await;
    let mut websocket = probing(&poller, two.addr).await;
    // It is in use by the session that is to come.
    let mut stranger = WebSocket::open(two.addr).await;
    stranger.send("40/rooms/9,").await;
    assert!(stranger.text().await.starts_with("44/rooms/9,"));
    poller.ok("40/rooms/2,").await;
    while !poller.payload().await.starts_with("40/rooms/2,") {}
    websocket.send("5").await;
    let (code, _) = websocket.closed().await;
    assert_eq!(code, Some(1013));
    assert_eq!(num_met(two.addr, "namespaces").await, 2);
    // The place is free again.
    within("the place", async {
        loop {
            stranger.send("40/rooms/9,").await;
            if stranger.text().await.starts_with("40/rooms/9,") {
                break;
            }
        }
    })
    .await;
}

#[actix_rt::test]
async fn what_has_moved_to_an_instance_that_stops_is_unknown_where_it_was() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let three = third(&redis).await;
    let (poller, _) = joined(one.addr).await;
    let _websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    assert_on_websocket(&http::get(one.addr, &poller.target).await);
    two.stop();
    for addr in [one.addr, three.addr] {
        await_unknown(addr, &poller).await;
    }
}

#[actix_rt::test]
async fn what_has_moved_to_an_instance_that_is_killed_is_unknown_where_it_was() {
    let redis = RedisServer::start();
    let (one, three) = pair(&redis).await;
    let data = TempDir::new().unwrap();
    let two = Program::start(data.path(), &[("REDIS_URL", &redis.url())]);
    within("the cluster", async {
        while http::get(two.addr, "/readyz").await.json()["ready"] != true {}
    })
    .await;
    let poller = Poller::open(one.addr).await;
    let _websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    for addr in [one.addr, three.addr] {
        assert_on_websocket(&http::get(addr, &poller.target).await);
    }
    two.signal("-KILL");
    for addr in [one.addr, three.addr] {
        await_unknown(addr, &poller).await;
    }
}

#[actix_rt::test]
async fn without_redis_nobody_vouches_for_a_session_that_has_moved() {
    let mut redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let (poller, _) = joined(one.addr).await;
    let mut websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    assert_on_websocket(&http::get(one.addr, &poller.target).await);
    redis.kill();
    await_unknown(one.addr, &poller).await;
    websocket.send(r#"42/moves,0["rooms"]"#).await;
    assert_eq!(websocket.text().await, "43/moves,0[[]]", "it lives");
    assert_on_websocket(&http::get(two.addr, &poller.target).await);
}

#[actix_rt::test]
async fn what_waits_for_a_poll_goes_along_in_order_and_rooms_and_data_do_too() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = Poller::open(one.addr).await;
    poller.ok("40/test,").await;
    assert!(poller.payload().await.starts_with("40/test,"));
    poller.ok(r#"42/test,0["join"]"#).await;
    for n in 1..20 {
        poller.ok(&format!(r#"42/test,{n}["visit"]"#)).await;
    }
    let mut websocket = moved(&poller, two.addr).await;
    assert_eq!(websocket.text().await, "43/test,0[]");
    for n in 1..20 {
        assert_eq!(websocket.text().await, format!("43/test,{n}[{n}]"));
    }
    websocket.send(r#"42/test,20["visit"]"#).await;
    assert_eq!(websocket.text().await, "43/test,20[20]", "data came along");
    let (mut other, _) = WebSocket::join(one.addr, "/test", "").await;
    other.send(r#"42/test,["to-room","hello"]"#).await;
    assert_eq!(websocket.text().await, r#"42/test,["to-room","hello"]"#);
}

#[actix_rt::test]
async fn a_handler_that_runs_goes_on_and_no_later_event_overtakes_it() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let (poller, _) = joined(one.addr).await;
    poller.ok(r#"42/moves,0["held",7]"#).await;
    assert_eq!(poller.payload().await, r#"42/moves,["begun",7]"#);
    // These wait for their turn, and go along.
    poller.ok(r#"42/moves,1["data"]"#).await;
    poller.ok(r#"42/moves,2["rooms"]"#).await;
    let mut websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    websocket.send(r#"42/moves,3["who"]"#).await;
    GATE.add_permits(1);
    let instance = http::get(two.addr, "/readyz").await.json()["instance"].clone();
    // The gateway is told of the move when that handler has ended.
    let data = format!(r#"43/moves,1[{{"last":7,"moved to":{instance}}}]"#);
    for expected in [
        r#"42/moves,["going on",7]"#,
        r#"42/moves,["to all",7]"#,
        "43/moves,0[[7,2]]",
        &data,
        r#"43/moves,2[["room 7"]]"#,
    ] {
        assert_eq!(websocket.text().await, expected);
    }
    assert!(websocket.text().await.starts_with("43/moves,3["));
}

#[actix_rt::test]
async fn an_ack_that_is_awaited_where_the_session_was_arrives_there() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let (poller, _) = joined(one.addr).await;
    poller.ok(r#"42/moves,["ask"]"#).await;
    let question = poller.payload().await;
    let id = question.strip_prefix("42/moves,").unwrap();
    let id = id.strip_suffix(r#"["question"]"#).unwrap().to_owned();
    let mut websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    websocket.send(&format!("43/moves,{id}[5]")).await;
    assert_eq!(websocket.text().await, r#"42/moves,["answered",5]"#);
    // And one that is asked for by a handler that began before the move and asks after it.
    websocket.send(r#"42/moves,["ask"]"#).await;
    let question = websocket.text().await;
    assert!(
        !question.contains(&id),
        "numbers are not used twice: {question}"
    );
}

#[actix_rt::test]
async fn who_leaves_after_a_move_lets_nobody_wait() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let (poller, _) = joined(one.addr).await;
    poller.ok(r#"42/moves,["ask-in-vain"]"#).await;
    assert!(poller.payload().await.contains("question"));
    let websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    assert_on_websocket(&http::get(one.addr, &poller.target).await);
    assert_eq!(UNANSWERED.available_permits(), 0, "its client is there");
    drop(websocket);
    two.await_connections(0).await;
    await_unknown(one.addr, &poller).await;
    drop(
        within("the handler's end", UNANSWERED.acquire())
            .await
            .unwrap(),
    );
}

/// A bug: they ran for ever, and the session was kept for them.
#[actix_rt::test]
async fn handlers_that_stayed_are_cut_off_some_time_after_the_client_has_left() {
    let redis = RedisServer::start();
    let change = |config: &mut Config| {
        config.limits.wind_down_timeout = Duration::from_millis(300);
    };
    let one = TestServer::on_redis_as(&redis.url(), change, with_moves);
    let two = TestServer::on_redis_as(&redis.url(), change, with_moves);
    await_redis(&one, "up").await;
    await_redis(&two, "up").await;
    let (poller, _) = joined(one.addr).await;
    poller.ok(r#"42/moves,["endless"]"#).await;
    within("a handler", async {
        while ENDLESS.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let websocket = moved(&poller, two.addr).await;
    one.await_connections(0).await;
    assert_eq!(ENDLESS.available_permits(), 0, "its session lives");
    drop(websocket);
    drop(within("its end", ENDLESS.acquire()).await.unwrap());
}

#[actix_rt::test]
async fn a_packet_may_be_cut_in_two_by_the_move() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = Poller::open(one.addr).await;
    poller.ok("40/test,").await;
    poller.payload().await;
    let header = r#"451-/test,0["reverse",{"_placeholder":true,"num":0}]"#;
    poller.ok(header).await;
    let mut websocket = moved(&poller, two.addr).await;
    websocket.send_binary(&[1, 2, 3]).await;
    let text = websocket.text().await;
    assert_eq!(text, r#"461-/test,0[{"_placeholder":true,"num":0}]"#);
    assert_eq!(websocket.next().await, Frame::Binary(vec![3, 2, 1]));
}

#[actix_rt::test]
async fn a_wish_that_is_not_judged_yet_is_judged_where_the_session_is() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = Poller::join_main(one.addr).await;
    let mut websocket = probing(&poller, two.addr).await;
    poller.ok(r#"40/test,{"x":"never"}"#).await;
    poller.ok(r#"40/custom,{"token":"t"}"#).await;
    assert!(poller.payload().await.starts_with("40/custom,"));
    websocket.send("5").await;
    websocket.send(r#"420["message-with-ack",1]"#).await;
    loop {
        let text = websocket.text().await;
        if text == "430[1]" {
            break;
        }
        assert_eq!(text, r#"42/custom,["auth",{"token":"t"}]"#);
    }
    one.await_connections(0).await;
}

#[actix_rt::test]
async fn namespaces_that_come_and_go_are_listened_to_before_a_session_comes() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = in_room_one(&one).await;
    let mut websocket = probing(&poller, two.addr).await;
    // Of this one the other instance learns late.
    poller.ok("40/rooms/2,").await;
    assert!(poller.payload().await.contains("40/rooms/2,"));
    websocket.send("5").await;
    for room in ["/rooms/1", "/rooms/2"] {
        let (mut other, _) = WebSocket::join(one.addr, room, "").await;
        let event = format!(r#"42{room},["say","hello"]"#);
        other.send(&event).await;
        assert_eq!(other.text().await, event);
        assert_eq!(websocket.text().await, event);
    }
}

#[actix_rt::test]
async fn a_probe_that_ends_leaves_the_session_where_it_was() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = Poller::join_main(one.addr).await;
    for packet in ["2", "2other", r#"42["message",1]"#, "abc", "3probe"] {
        let mut websocket = WebSocket::connect(two.addr, &poller.upgrade_target()).await;
        websocket.send(packet).await;
        assert_eq!(websocket.next().await, Frame::Close(None, String::new()));
    }
    let websocket = probing_again(&poller, two.addr).await;
    let mut second = WebSocket::connect(two.addr, &poller.upgrade_target()).await;
    assert_eq!(
        second.next().await,
        Frame::Close(None, String::new()),
        "one at a time"
    );
    let mut second = WebSocket::connect(one.addr, &poller.upgrade_target()).await;
    assert_eq!(
        second.next().await,
        Frame::Close(None, String::new()),
        "wherever it lands"
    );
    drop(websocket);
    drop(probing_again(&poller, two.addr).await);
    poller.ok(r#"420["message-with-ack",1]"#).await;
    let mut all = String::new();
    while !all.contains("430[1]") {
        all = poller.payload().await;
    }
    assert_eq!(
        (one.num_connections().await, two.num_connections().await),
        (1, 0)
    );
}

/// Asks for the session of a client, for a stranger who calls it `number`.
pub(crate) async fn asked_for(stranger: &mut Stranger<'_>, poller: &Poller, number: u64) {
    let sid = &poller.sid;
    let upgrade = format!(r#""type":"upgrade","sid":"{sid}","eio":4}}"#);
    stranger.tell(sid, 1, number, &upgrade);
    stranger.hears(r#""type":"ready""#).await;
}

/// Publishes that the stranger wants it now.
pub(crate) fn adopt(redis: &RedisServer, poller: &Poller, number: u64) {
    let sid = &poller.sid;
    let adopt = format!(
        r#"{{"v":1,"id":{number},"from":"{}","type":"adopt","to":"{}"}}"#,
        Stranger::NAME,
        &sid[..8]
    );
    redis.command(&[b"PUBLISH", b"socket.io-sockhop#", adopt.as_bytes()]);
}

/// Moves the session of a client to a stranger, who calls it `number`, but for the word that it is taken.
pub(crate) async fn sent_to(
    stranger: &mut Stranger<'_>,
    redis: &RedisServer,
    poller: &Poller,
    number: u64,
) {
    asked_for(stranger, poller, number).await;
    adopt(redis, poller, number);
    stranger.hears(r#""type":"state""#).await;
}

#[actix_rt::test]
async fn what_is_said_of_a_session_that_has_moved_holds_in_the_order_in_which_it_is_said() {
    let redis = RedisServer::start();
    let (one, _two) = pair(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let lasts = [r#""type":"ended"}"#, r#""type":"abort"}"#];
    for (number, last) in (0..).step_by(2).zip(lasts) {
        let (poller, _) = joined(one.addr).await;
        sent_to(&mut stranger, &redis, &poller, number).await;
        stranger.tell(&poller.sid, 1, number, r#""type":"taken"}"#);
        one.await_connections(0).await;
        // Of another one.
        stranger.tell(&poller.sid, 1, number + 1, last);
        assert_on_websocket(&http::get(one.addr, &poller.target).await);
        stranger.tell(&poller.sid, 1, number, last);
        await_unknown(one.addr, &poller).await;
    }
    // It ends there before it is known here that it came.
    for number in 10..20 {
        let (poller, _) = joined(one.addr).await;
        sent_to(&mut stranger, &redis, &poller, number).await;
        for rest in [r#""type":"taken"}"#, r#""type":"ended"}"#] {
            stranger.tell(&poller.sid, 1, number, rest);
        }
        await_unknown(one.addr, &poller).await;
        one.await_connections(0).await;
        // Nor is it known again once it is known that it came.
        assert_unknown(&http::get(one.addr, &poller.target).await);
    }
}

/// A session of a stranger that comes to an instance.
pub(crate) struct Coming<'r> {
    redis: &'r RedisServer,
    /// Where it comes to, and by which number it is known there.
    instance: String,
    number: u64,
    sid: String,
    namespace: &'static str,
    pub(crate) websocket: WebSocket,
}

impl<'r> Coming<'r> {
    /// Lets one come that is in this namespace, up to the marker: all that the stranger says of it is left.
    pub(crate) async fn begin(
        redis: &'r RedisServer,
        one: &TestServer,
        stranger: &mut Stranger<'_>,
        namespace: &'static str,
    ) -> Self {
        let instance = one.instance().await;
        let mut all = Stranger::eavesdrop(redis);
        let sid = format!("{}{:022}", Stranger::NAME, 0);
        let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
        let ready = async {
            let asked = stranger.hears(r#""type":"upgrade""#).await;
            let (_, number) = asked.rsplit_once(r#""id":"#).unwrap();
            let number: u64 = number.split_once(',').unwrap().0.parse().unwrap();
            let ready = format!("\"type\":\"ready\",\"uid\":\"nnnnnn\"}}\n[\"{namespace}\"]");
            stranger.tell(&instance, 1, number, &ready);
            number
        };
        let (mut websocket, number) = tokio::join!(WebSocket::connect(one.addr, &target), ready);
        websocket.send("2probe").await;
        assert_eq!(websocket.text().await, "3probe");
        websocket.send("5").await;
        all.hears(r#""type":"adopt""#).await;
        Self {
            redis,
            instance,
            number,
            sid,
            namespace,
            websocket,
        }
    }

    /// Says something so often. In one go, since it takes nothing before its end.
    fn say_often(&self, num: usize, kind: &str, body: &[u8]) {
        let (number, from) = (self.number, Stranger::NAME);
        let line = format!(r#"{{"v":1,"id":{number},"from":"{from}",{kind}}}"#);
        let script = "local heard = 1 \
            for _ = 1, ARGV[2] do heard = redis.call('PUBLISH', KEYS[1], ARGV[1]) end \
            return heard";
        let heard = self.redis.command(&[
            b"EVAL",
            script.as_bytes(),
            b"1",
            format!("socket.io-sockhop#{}#", self.instance).as_bytes(),
            &[line.as_bytes(), b"\n", body].concat(),
            num.to_string().as_bytes(),
        ]);
        assert_eq!(heard, b":1\r\n", "somebody listens");
    }

    pub(crate) fn say(&self, kind: &str, body: &[u8]) {
        self.say_often(1, kind, body);
    }

    /// Sends the session: with handlers that go on at the stranger, and with what waits for them.
    pub(crate) fn state(&self, running: &Value, queue: &Value) {
        let session = json!({
            "v": 1, "sid": self.sid, "eio": 4, "bare": false,
            "handshake": {"address": "", "url": "", "issued_ms": 0, "headers": [], "query": []},
            "heartbeat": {"ping_in_ms": 20_000},
            "unfinished": [], "undelivered": [], "admissions": [], "blobs": [],
            "memberships": [{
                "nsp": self.namespace, "id": "aaaaaaaaaaaaaaaaaaaa", "data": null, "rooms": [],
                "heard": true, "new": false, "awaited": [], "running": running, "queue": queue,
            }],
        });
        let session = session.to_string();
        let state = [&(session.len() as u32).to_be_bytes(), session.as_bytes()].concat();
        self.say(r#""type":"state""#, &state);
    }
}

/// Lets a session come whose client's handler goes on where it comes from. While it is arriving, that says so often that its `data` has
/// changed to this, and then that. Asserts that what the client sends is handled behind it, and returns the handler's ack.
async fn ack_of_what_stayed(changes: (usize, &[u8]), last: (&str, &[u8])) -> String {
    let redis = RedisServer::start();
    let (one, _two) = pair(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let mut coming = Coming::begin(&redis, &one, &mut stranger, "/moves").await;
    let running = json!([{"number": 0, "ack": 5, "is_connecting": false}]);
    let queue = json!([{"name": "who", "json": "[\"who\"]", "attachments": 0, "ack": 6}]);
    coming.state(&running, &queue);
    coming.say_often(changes.0, r#""type":"data","at":0"#, changes.1);
    coming.say(last.0, last.1);
    coming.say(r#""type":"end""#, b"");
    let ack = coming.websocket.text().await;
    let next = coming.websocket.text().await;
    assert!(next.starts_with("43/moves,6"), "{next}");
    let ack = ack.strip_prefix("43/moves,5").expect("it comes first");
    ack.to_owned()
}

/// The end of the handler of [`ack_of_what_stayed`].
const DONE: (&str, &[u8]) = (r#""type":"done","at":0,"call":0"#, b"\0\0\0\x03[8]");

fn assert_failed(ack: &str) {
    assert!(ack.starts_with(r#"[{"error":"#), "{ack}");
}

/// A bug: the end of a handler that had stayed where the session came from was lost if more was said there than the session could take while
/// it was arriving, and its client's later events waited for it for good.
#[actix_rt::test]
async fn a_handler_of_whose_end_nothing_is_heard_lets_later_events_go_on() {
    let mebibyte = format!(r#"{{"x":"{}"}}"#, "x".repeat(1 << 20));
    assert_failed(&ack_of_what_stayed((9, mebibyte.as_bytes()), DONE).await);
}

/// A bug: a thousand small things were more than it could take.
#[actix_rt::test]
async fn much_that_is_said_while_a_session_arrives_is_taken() {
    assert_eq!(ack_of_what_stayed((4096, b"{}"), DONE).await, "[8]");
}

/// A bug: so was it if it was dropped among what waited for Redis.
#[actix_rt::test]
async fn a_handler_whose_end_is_lost_on_its_way_lets_later_events_go_on() {
    assert_failed(&ack_of_what_stayed((0, b""), (r#""type":"lost""#, b"")).await);
}

/// Asks for an upgrade and returns the answer, which is none.
async fn refused(addr: SocketAddr, sid: &str) -> String {
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = upgrade_request(&target, &[]);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &request)
        .await
        .unwrap();
    let mut answer = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer);
    within("a refusal", read).await.unwrap();
    answer
}

#[actix_rt::test]
async fn an_upgrade_of_a_session_that_is_nowhere_is_refused_before_it_begins() {
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let poller = Poller::open(one.addr).await;
    let mut forged = poller.sid.clone();
    forged.replace_range(29.., if forged.ends_with('A') { "B" } else { "A" });
    let mut strange = poller.sid.clone();
    strange.replace_range(..8, "AAAAAAAA");
    for sid in [forged, strange] {
        let answer = refused(two.addr, &sid).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("Session ID unknown"), "{answer}");
    }
}

/// A bug: those on their way were counted nowhere, so far more could come than an instance takes.
#[actix_rt::test]
async fn a_session_on_its_way_has_its_place_where_it_goes() {
    let redis = RedisServer::start();
    let one = TestServer::on_redis_with(&redis.url(), with_moves);
    let small = |config: &mut Config| config.limits.max_connections = 2;
    let two = TestServer::on_redis_as(&redis.url(), small, with_moves);
    for server in [&one, &two] {
        await_redis(server, "up").await;
    }
    let [first, second, third] = [(); 3].map(|()| Poller::open(one.addr));
    let (first, second, third) = tokio::join!(first, second, third);
    let open = async || http::get(two.addr, "/socket.io/?EIO=4&transport=polling").await;
    let assert_full = async || {
        assert_eq!(open().await.status, 503);
        let answer = refused(two.addr, &third.sid).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    };
    let mut websocket = probing(&first, two.addr).await;
    assert_eq!(open().await.status, 200);
    assert_full().await;
    websocket.send("5").await;
    two.await_connections(2).await;
    assert_full().await;
    drop(websocket);
    two.await_connections(1).await;
    let given_up = probing(&second, two.addr).await;
    assert_full().await;
    drop(given_up);
    within("the place of one that does not come", async {
        while open().await.status == 503 {}
    })
    .await;
    // It stayed where it was, as did the one that was refused.
    second.ok("40/moves,").await;
    third.ok("40/moves,").await;
}

#[actix_rt::test]
async fn with_the_sharded_adapter_a_session_stays_where_it_is() {
    let redis = RedisServer::start();
    let adapter = AdapterKind::Sharded(SubscriptionMode::Dynamic);
    let (one, two) = pair_by(adapter, &redis.url(), with_moves).await;
    let (poller, _) = joined(one.addr).await;
    let answer = refused(two.addr, &poller.sid).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    poller.ok(r#"42/moves,0["rooms"]"#).await;
    assert_eq!(poller.payload().await, "43/moves,0[[]]");
}

#[actix_rt::test]
async fn an_owner_that_dies_at_the_last_moment_ends_the_session_within_a_second() {
    let redis = RedisServer::start();
    let data = TempDir::new().unwrap();
    let owner = Program::start(data.path(), &[("REDIS_URL", &redis.url())]);
    let two = TestServer::on_redis_by(AdapterKind::Classic, &redis.url(), with_moves);
    await_redis(&two, "up").await;
    let poller = Poller::open(owner.addr).await;
    let mut websocket = probing(&poller, two.addr).await;
    owner.signal("-KILL");
    websocket.send("5").await;
    let Frame::Close(code, reason) = websocket.next().await else {
        panic!("no close frame");
    };
    assert!(code.is_none() || code == Some(1013), "{code:?} {reason}");
    two.await_connections(0).await;
}

/// Events that each publisher sends after the last session has moved: what gets lost at the end of a move, and not in its midst, is missed
/// by them alone.
const NUM_AFTER: u32 = 20;

/// Publishes numbered events in `/moves` until told to stop, then [`NUM_AFTER`], and then one that says so. Returns the number of the last
/// before that.
async fn publish(name: &'static str, addr: SocketAddr, is_stopped: watch::Receiver<bool>) -> u32 {
    let mut publisher = WebSocket::open(addr).await;
    publisher.send("40/moves,").await;
    publisher.text().await;
    let (mut n, mut num_after) = (0, 0);
    loop {
        num_after += u32::from(*is_stopped.borrow());
        let is_last = num_after > NUM_AFTER;
        n += 1;
        let number = if is_last { 0 } else { n };
        // Every other one is an event that is to be acknowledged: it goes another way.
        let event = if n % 2 == 0 { "ask-all" } else { "tell-all" };
        publisher
            .send(&format!(r#"42/moves,{n}["{event}","{name}",{number}]"#))
            .await;
        while publisher.text().await != format!("43/moves,{n}[{number}]") {}
        if is_last {
            return n - 1;
        }
        // A rate, so that there are events at every step of a move and the receivers keep up.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Connects by polling at `here`, upgrades at `there`, and returns every number that it got of each publisher. Says that it `has_moved` when
/// the first has come by its WebSocket.
async fn follow(
    here: SocketAddr,
    there: SocketAddr,
    has_moved: mpsc::UnboundedSender<()>,
) -> [Vec<u32>; 3] {
    let poller = Poller::open(here).await;
    poller.ok("40/moves,").await;
    let mut history: Vec<String> = Vec::new();
    let mut note = |payload: String| {
        history.extend(payload.split('\u{1e}').map(str::to_owned));
    };
    let mut websocket = WebSocket::connect(there, &poller.upgrade_target()).await;
    websocket.send("2probe").await;
    let mut is_probed = false;
    let mut get = Box::pin(poller.payload());
    loop {
        tokio::select! {
            text = websocket.text(), if !is_probed => {
                assert_eq!(text, "3probe");
                is_probed = true;
            }
            payload = &mut get => {
                note(payload);
                if is_probed {
                    break;
                }
                get = Box::pin(poller.payload());
            }
        }
    }
    websocket.send("5").await;
    note(websocket.text().await);
    has_moved.send(()).unwrap();
    let mut num_ends = 0;
    while num_ends < 3 {
        let text = websocket.text().await;
        num_ends += usize::from(text.ends_with(",0]"));
        note(text);
    }
    ["a", "b", "c"].map(|name| {
        let of_publisher = format!(r#"["told","{name}","#);
        let numbers = history.iter().filter_map(|packet| {
            let (_, number) = packet.split_once(&of_publisher)?;
            Some(number.strip_suffix(']')?.parse().unwrap())
        });
        numbers.collect()
    })
}

/// Three publishers, one at each instance, while sessions move between two of these: each session gets each event of each publisher once and in order, from
/// the first that it sees on to the last that there is.
#[actix_rt::test]
async fn nothing_is_lost_doubled_or_reordered_while_sessions_move() {
    const SESSIONS: usize = 40;
    let redis = RedisServer::start();
    let (one, two) = pair(&redis).await;
    let three = third(&redis).await;
    let at = [one.addr, two.addr, three.addr];
    let (stop, is_stopped) = watch::channel(false);
    let publishers = ["a", "b", "c"].into_iter().zip(at);
    let publishers: Vec<_> = publishers
        .map(|(name, addr)| actix_rt::spawn(publish(name, addr, is_stopped.clone())))
        .collect();
    let (has_moved, mut moves) = mpsc::unbounded_channel();
    let clients = (0..SESSIONS).map(|n| follow(at[n % 2], at[(n + 1) % 2], has_moved.clone()));
    let clients: Vec<_> = clients.map(actix_rt::spawn).collect();
    for _ in 0..SESSIONS {
        within("a session moves", moves.recv()).await.unwrap();
    }
    stop.send(true).unwrap();
    let mut lasts = Vec::new();
    for publisher in publishers {
        lasts.push(publisher.await.unwrap());
    }
    for client in clients {
        let histories = within("the end of a history", client).await.unwrap();
        for (numbers, last) in histories.into_iter().zip(&lasts) {
            let (end, numbers) = numbers.split_last().unwrap();
            assert_eq!(*end, 0);
            let first = *numbers.first().expect("it sees some");
            let expected: Vec<u32> = (first..=*last).collect();
            assert_eq!(numbers, expected);
            assert!(numbers.len() >= NUM_AFTER as usize, "all that came after");
        }
    }
}
