//! What the library offers an application, seen by its clients: state, data, rooms, selections, failures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sockhop::gateways::{
    Ack, Arg, ConnectRequest, Event, Gateway, HandlerError, Refusal, SocketRef,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{Semaphore, mpsc},
};

use crate::support::{
    server::TestServer,
    websocket::{self, WebSocket, upgrade_request},
    within,
};

async fn join(server: &TestServer) -> WebSocket {
    let (websocket, reply) = WebSocket::join(server.addr, "/a", "{}").await;
    assert!(reply.starts_with("40/a,"), "{reply}");
    websocket
}

/// Sends an event to `/a` and returns the arguments of its ack.
async fn ask(websocket: &mut WebSocket, event: &str) -> String {
    websocket.send(&format!("42/a,1{event}")).await;
    let ack = websocket.text().await;
    let args = ack.strip_prefix("43/a,1");
    args.unwrap_or_else(|| panic!("not an ack: {ack}"))
        .to_owned()
}

#[actix_rt::test]
async fn calls_of_authorize_add_up_until_one_refuses() {
    async fn second(request: ConnectRequest) -> Result<Value, Refusal> {
        assert_eq!(*request.data(), json!({ "user": "ada", "role": "none" }));
        if request.auth.is_some_and(|auth| auth.contains("refuse")) {
            return Err("Not you")?;
        }
        tokio::task::yield_now().await;
        Ok(json!({ "role": "admin" }))
    }
    let (asked, mut third) = mpsc::unbounded_channel();
    let gateway = Gateway::new("/a")
        .authorize(|_| Ok::<_, Refusal>(json!({ "user": "ada", "role": "none" })))
        .authorize(second)
        .authorize(move |_| {
            asked.send(()).unwrap();
            Ok::<_, Refusal>(())
        })
        .on("data", |socket, (): ()| async move { socket.data() });
    let server = TestServer::of_gateway(gateway);
    let (_, reply) = WebSocket::join(server.addr, "/a", r#"{"x":"refuse"}"#).await;
    assert_eq!(reply, r#"44/a,{"message":"Not you"}"#);
    assert!(third.try_recv().is_err(), "a refusal is the last word");
    let mut websocket = join(&server).await;
    let data = ask(&mut websocket, r#"["data"]"#).await;
    assert_eq!(
        serde_json::from_str::<Value>(&data).unwrap(),
        json!([{ "user": "ada", "role": "admin" }])
    );
}

#[actix_rt::test]
async fn auth_of_another_type_is_refused_with_where() {
    #[derive(Deserialize, Serialize)]
    struct Profile {
        name: String,
    }
    let gateway = Gateway::new("/a").authorize(|request| request.auth_as::<Profile>());
    let server = TestServer::of_gateway(gateway);
    let (_, reply) = WebSocket::join(server.addr, "/a", "").await;
    assert_eq!(
        reply,
        r#"44/a,{"message":"Bad auth: missing field `name` at line 1 column 2","data":{"code":"bad_auth"}}"#
    );
}

#[actix_rt::test]
async fn one_state_is_handed_to_every_call() {
    let state = Arc::new(AtomicU64::new(0));
    let gateway = Gateway::new("/a")
        .with_state(state.clone())
        .authorize(|state, _| {
            state.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Refusal>(())
        })
        .on_connect(|state, _| async move {
            state.fetch_add(10, Ordering::SeqCst);
        })
        .middleware(|state, _, event| async move {
            state.fetch_add(100, Ordering::SeqCst);
            Ok(event)
        })
        .on("get", |state, _, (): ()| async move {
            state.fetch_add(1000, Ordering::SeqCst)
        })
        .on_other(|state, _, _: Event| async move { state.fetch_add(10_000, Ordering::SeqCst) })
        .on_disconnect(|state, _, _| async move {
            state.fetch_add(100_000, Ordering::SeqCst);
        });
    let server = TestServer::of(|_| {}, |app| app.gateway(gateway));
    let mut websocket = join(&server).await;
    assert_eq!(ask(&mut websocket, r#"["get"]"#).await, "[111]");
    assert_eq!(ask(&mut websocket, r#"["other"]"#).await, "[1211]");
    server.stop();
    assert_eq!(state.load(Ordering::SeqCst), 111_211);
}

#[actix_rt::test]
async fn an_on_connect_that_fails_ends_that_membership_alone() {
    let failing = Gateway::new("/a").on_connect(|socket| async move {
        if socket.handshake().query("panic").is_some() {
            panic!("a test wants this");
        }
        Err(HandlerError::new("broken", "The database is away."))
    });
    let working = Gateway::new("/b").on("event", |_, (): ()| async { 7 });
    let server = TestServer::of(|_| {}, |app| app.gateway(failing).gateway(working));
    for query in ["", "&panic=1"] {
        let target = format!("/socket.io/?EIO=4&transport=websocket{query}");
        let mut websocket = WebSocket::connect(server.addr, &target).await;
        assert!(websocket.text().await.starts_with("0{"));
        websocket.send("40/b,").await;
        websocket.text().await;
        websocket.send("40/a,").await;
        assert!(websocket.text().await.starts_with("40/a,{"));
        assert_eq!(websocket.text().await, "41/a,");
        websocket.send(r#"42/b,1["event"]"#).await;
        assert_eq!(websocket.text().await, "43/b,1[7]");
    }
}

/// A bug: `{socket:?}` in a handler wrote the client's token into the log.
#[actix_rt::test]
async fn a_socket_can_be_logged_without_telling_what_its_client_proved_itself_with() {
    let (said, mut sayings) = mpsc::unbounded_channel();
    let gateway = Gateway::new("/a")
        .authorize(|_| async { Ok::<_, Refusal>(json!({ "note": "hunter2" })) })
        .on_connect(move |socket| {
            said.send(format!("{socket:?} {:?}", socket.handshake()))
                .unwrap();
            async {}
        });
    let server = TestServer::of_gateway(gateway);
    let target = "/socket.io/?EIO=4&transport=websocket&token=hunter2";
    let headers = ["Authorization: Bearer hunter2", "Cookie: sid=hunter2"];
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let mut bytes = upgrade_request(target, &headers);
    bytes.extend(websocket::frame(0x81, br#"40/a,{"token":"hunter2"}"#));
    stream.write_all(&bytes).await.unwrap();
    let debug = within("the text", sayings.recv()).await.unwrap();
    assert!(debug.contains("\"/a\""), "{debug}");
    for secret in ["hunter2", "Bearer", "note"] {
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[actix_rt::test]
async fn every_method_of_a_socket_goes_with_one_error_type() {
    #[derive(Deserialize, Serialize)]
    struct Visitor {
        visits: u32,
    }
    async fn all(
        socket: SocketRef,
        Arg(room): Arg<String>,
    ) -> Result<Ack<Vec<String>>, HandlerError> {
        socket.join(room.clone()).await?;
        socket.emit("one", 1)?;
        socket.emit_volatile("text", room.clone())?;
        socket.volatile().emit("none", ())?;
        socket.set_data(&Visitor { visits: 1 })?;
        let visits = socket.with_data_as(|visitor: &mut Visitor| {
            visitor.visits += 1;
            visitor.visits
        })?;
        let seen: Visitor = socket.data_as()?;
        assert_eq!(
            (visits, seen.visits, socket.data()),
            (2, 2, json!({ "visits": 2 }))
        );
        let (answer,): (String,) = socket
            .emit_with_ack("question", vec![1, 2], Duration::from_secs(20))
            .await?;
        let mut rooms: Vec<_> = socket
            .rooms()
            .await?
            .iter()
            .map(ToString::to_string)
            .collect();
        rooms.retain(|room| *room != socket.id().to_string());
        rooms.push(answer);
        socket.leave(room).await?;
        assert_eq!(socket.rooms().await?, [socket.id().room()].into());
        Ok(Ack(rooms))
    }
    let server = TestServer::of_gateway(Gateway::new("/a").on("all", all));
    let mut websocket = join(&server).await;
    websocket.send(r#"42/a,1["all","den"]"#).await;
    // What a busy client misses of the volatile ones is its loss: an ack would wait behind them, so only the others are sure.
    assert_eq!(websocket.text().await, r#"42/a,["one",1]"#);
    loop {
        match websocket.text().await.as_str() {
            r#"42/a,["text","den"]"# | r#"42/a,["none"]"# => {}
            question => {
                assert_eq!(question, r#"42/a,0["question",[1,2]]"#);
                break;
            }
        }
    }
    websocket.send(r#"43/a,0["yes"]"#).await;
    assert_eq!(websocket.text().await, r#"43/a,1[["den","yes"]]"#);
}

#[actix_rt::test]
async fn data_that_does_not_fit_is_left_as_it_was() {
    let gateway = Gateway::new("/a").on("try", |socket, (): ()| async move {
        socket.set_data(&"text")?;
        let changed = socket.with_data_as(|number: &mut u32| *number += 1);
        assert!(changed.is_err());
        assert!(
            socket
                .set_data(&std::collections::HashMap::from([((), 1)]))
                .is_err()
        );
        Ok::<_, HandlerError>(socket.data())
    });
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    assert_eq!(ask(&mut websocket, r#"["try"]"#).await, r#"["text"]"#);
}

#[actix_rt::test]
async fn selections_leave_out_the_sender_and_whom_they_say() {
    let gateway = Gateway::new("/a")
        .on("enter", |socket, Arg(room): Arg<String>| async move {
            socket.join(room).await
        })
        .on("send", |socket, Arg(how): Arg<String>| async move {
            let selection = match how.as_str() {
                "except" => socket.except("red"),
                "local" => socket.local(),
                "volatile to" => socket.volatile().to("red"),
                "volatile except" => socket.volatile().except("red"),
                "volatile local" => socket.volatile().local(),
                _ => socket.volatile().broadcast(),
            };
            selection.emit("got", how).await
        });
    let server = TestServer::of_gateway(gateway);
    let (mut sender, mut red, mut plain) = (
        join(&server).await,
        join(&server).await,
        join(&server).await,
    );
    ask(&mut red, r#"["enter","red"]"#).await;
    for (how, for_red, for_plain) in [
        ("except", false, true),
        ("local", true, true),
        ("volatile to", true, false),
        ("volatile except", false, true),
        ("volatile local", true, true),
        ("volatile broadcast", true, true),
    ] {
        assert_eq!(
            ask(&mut sender, &format!(r#"["send","{how}"]"#)).await,
            "[]"
        );
        for (client, gets) in [(&mut red, for_red), (&mut plain, for_plain)] {
            if gets {
                assert_eq!(client.text().await, format!(r#"42/a,["got","{how}"]"#));
            }
            // Nothing else was before it.
            assert_eq!(ask(client, r#"["enter","other"]"#).await, "[]");
        }
    }
}

#[actix_rt::test]
async fn a_socket_knows_that_its_client_left() {
    let (sender, mut told) = mpsc::unbounded_channel();
    let left = sender.clone();
    let gateway = Gateway::new("/a")
        .on_connect(move |socket| {
            sender
                .send((socket.clone(), socket.is_connected()))
                .unwrap();
            async {}
        })
        .on_disconnect(move |socket, _| {
            left.send((socket.clone(), socket.is_connected())).unwrap();
            async {}
        });
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    let (socket, was_connected) = within("on_connect", told.recv()).await.unwrap();
    assert!(was_connected);
    websocket.send("41/a,").await;
    let (_, was_connected) = within("on_disconnect", told.recv()).await.unwrap();
    assert!(!was_connected && !socket.is_connected());
    assert_eq!(socket.rooms().await, Ok([].into()));
}

#[actix_rt::test]
async fn what_a_handler_returns_is_the_ack() {
    async fn fails(_: SocketRef, (): ()) -> Result<bool, HandlerError> {
        let text = std::fs::read_to_string("/nowhere/secret").map_err(HandlerError::internal)?;
        Ok(text.is_empty())
    }
    let gateway = Gateway::new("/a")
        .on("nothing", |_, (): ()| async {})
        .on("number", |_, (): ()| async { 7 })
        .on("text", |_, (): ()| async { "x".to_owned() })
        .on("list", |_, (): ()| async { vec![1, 2] })
        .on("maybe", |_, (): ()| async { None::<u8> })
        .on("fails", fails);
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    for (event, ack) in [
        ("nothing", "[]"),
        ("number", "[7]"),
        ("text", r#"["x"]"#),
        ("list", "[[1,2]]"),
        ("maybe", "[null]"),
        (
            "fails",
            r#"[{"error":{"code":"internal","message":"The server failed to handle this event."}}]"#,
        ),
    ] {
        assert_eq!(ask(&mut websocket, &format!(r#"["{event}"]"#)).await, ack);
    }
}

/// A gateway whose `wait` ends when `go` is handled; each `wait` that begins is told.
fn waiting(at_a_time: usize) -> (Gateway, mpsc::UnboundedReceiver<()>) {
    let (begun, begins) = mpsc::unbounded_channel();
    let (go, _) = tokio::sync::watch::channel(false);
    let go = Arc::new(go);
    let waited = Arc::clone(&go);
    let gateway = Gateway::new("/a")
        .concurrent(at_a_time.try_into().unwrap())
        .on("wait", move |_, Arg(_): Arg<String>| {
            begun.send(()).unwrap();
            let mut waited = waited.subscribe();
            async move { _ = waited.wait_for(|may_go| *may_go).await }
        })
        .on("nothing", |_, (): ()| async {})
        .on("go", move |_, (): ()| {
            go.send_replace(true);
            async {}
        });
    (gateway, begins)
}

/// Awaits so many that begin. Returns how many more have begun by when another client, which comes along, has been answered a hundred
/// times.
async fn begin(
    server: &TestServer,
    begins: &mut mpsc::UnboundedReceiver<()>,
    num: usize,
) -> (usize, WebSocket) {
    for _ in 0..num {
        within("a handler", begins.recv()).await.unwrap();
    }
    let mut other = join(server).await;
    for _ in 0..100 {
        ask(&mut other, r#"["nothing"]"#).await;
    }
    (begins.len(), other)
}

#[actix_rt::test]
async fn a_gateway_that_gave_the_order_up_handles_many_events_at_a_time() {
    let (gateway, mut begins) = waiting(usize::MAX);
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    for id in 0..200 {
        websocket.send(&format!(r#"42/a,{id}["wait",""]"#)).await;
    }
    for _ in 0..200 {
        within("a handler that begins", begins.recv())
            .await
            .unwrap();
    }
    websocket.send(r#"42/a,200["go"]"#).await;
    let mut acked = Vec::new();
    for _ in 0..=200 {
        let ack = websocket.text().await;
        let id = ack
            .strip_prefix("43/a,")
            .and_then(|ack| ack.strip_suffix("[]"));
        acked.push(
            id.unwrap_or_else(|| panic!("{ack}"))
                .parse::<u32>()
                .unwrap(),
        );
    }
    acked.sort_unstable();
    assert_eq!(acked, (0..=200).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn however_many_a_gateway_allows_there_is_an_end_of_it() {
    const MOST: usize = 1024;
    let (gateway, mut begins) = waiting(usize::MAX);
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    let event = websocket::frame(0x81, br#"42/a,["wait",""]"#);
    websocket.write(&event.repeat(MOST + 6)).await;
    let (num_more, mut other) = begin(&server, &mut begins, MOST).await;
    assert_eq!(num_more, 0);
    ask(&mut other, r#"["go"]"#).await;
    for _ in 0..6 {
        within("a handler", begins.recv()).await.unwrap();
    }
}

/// A bug: events that were handled at the same time were counted nowhere, and there was no end of them.
#[actix_rt::test]
async fn what_is_handled_beside_another_counts_as_what_waits() {
    const LEN: usize = 300_000;
    let (gateway, mut begins) = waiting(usize::MAX);
    let server = TestServer::of_gateway(gateway);
    let mut websocket = join(&server).await;
    let event = format!(r#"42/a,["wait","{}"]"#, "x".repeat(LEN));
    let frames = websocket::frame(0x81, event.as_bytes()).repeat(50);
    // Whatever is not read waits in the kernel, or here.
    let writing = async {
        websocket.write(&frames).await;
        std::future::pending().await
    };
    // Whoever reads all would have begun them all by then.
    let (num_more, _) = tokio::select! {
        never = writing => never,
        begun = begin(&server, &mut begins, 5) => begun,
    };
    assert_eq!(num_more, 0, "one is handled, and a MiB beside it");
}

#[actix_rt::test]
async fn handlers_of_a_client_that_has_left_are_cut_off_after_some_time() {
    let running = Arc::new(Semaphore::new(1));
    let runs = Arc::clone(&running);
    let (begun, mut begins) = mpsc::unbounded_channel();
    let gateway = Gateway::new("/a").on("endless", move |_, (): ()| {
        let (begun, runs) = (begun.clone(), Arc::clone(&runs));
        async move {
            let _permit = runs.acquire().await;
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    });
    let change = |config: &mut sockhop::config::Config| {
        config.limits.wind_down_timeout = Duration::from_millis(300);
    };
    let server = TestServer::of(change, |app| app.gateway(gateway));
    let mut websocket = join(&server).await;
    websocket.send(r#"42/a,["endless"]"#).await;
    within("a handler", begins.recv()).await.unwrap();
    assert_eq!(running.available_permits(), 0, "it runs");
    drop(websocket);
    server.await_connections(0).await;
    drop(within("its end", running.acquire()).await.unwrap());
}
