//! The moment in which a session leaves for another instance, and what is known of it where it was. A stranger on Redis stands for that
//! instance, so that it says and hears what a test wants. Source: docs/sessions.md.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
};

use serde_json::{Value, json};
use sockhop::{
    adapter::kind::AdapterKind,
    app::App,
    gateways::{AckError, Gateway, Refusal, SocketRef},
};
use tokio::sync::Semaphore;

use crate::{
    cluster::{await_redis, pair_of},
    moves::{Coming, adopt, asked_for, moved as moving, sent_to},
    relay::Stranger,
    support::{
        PATIENCE, cut_line,
        http::{self, Answer, Poller},
        redis_server::RedisServer,
        server::TestServer,
        websocket::Frame,
        within,
    },
};

/// Holds the thread of a client's worker, so that what is sent to its session meanwhile comes to it at once.
struct Brake {
    is_on: Semaphore,
    may_go: Mutex<bool>,
    changed: Condvar,
}

impl Brake {
    const fn new() -> Self {
        Self {
            is_on: Semaphore::const_new(0),
            may_go: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Returns when it is let go.
    fn hold(&self) {
        self.is_on.add_permits(1);
        let may_go = self.may_go.lock().unwrap();
        let wait = self
            .changed
            .wait_timeout_while(may_go, PATIENCE, |may_go| !*may_go);
        drop(wait.unwrap());
    }

    /// Waits until it holds.
    async fn held(&self) {
        within("a thread is held", self.is_on.acquire())
            .await
            .unwrap()
            .forget();
    }

    fn let_go(&self) {
        *self.may_go.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Held while a client is let into `/late`.
static LATE: Brake = Brake::new();

/// Held while a client of `/second` is served.
static SECOND: Brake = Brake::new();

/// And then its handler waits for this.
static GO_ON: Semaphore = Semaphore::const_new(0);

/// What the gateways of [`ending`] were told, each: its namespace, and the name of an event or the reason of an end.
static TOLD: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Lets handlers of these go on.
static MAY_END: Semaphore = Semaphore::const_new(0);

/// The last client that came to each namespace.
static CAME: Mutex<Option<HashMap<String, SocketRef>>> = Mutex::new(None);

fn came(namespace: &str) -> Option<SocketRef> {
    let came = CAME.lock().unwrap_or_else(PoisonError::into_inner);
    came.as_ref()?.get(namespace).cloned()
}

fn keeping(namespace: &str) -> Gateway {
    Gateway::new(namespace).on_connect(|socket| async move {
        let namespace = socket.namespace().as_str().to_owned();
        let mut came = CAME.lock().unwrap_or_else(PoisonError::into_inner);
        came.get_or_insert_default().insert(namespace, socket);
    })
}

fn tell(socket: &SocketRef, what: &str) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.push((socket.namespace().as_str().to_owned(), what.to_owned()));
}

/// Returns what the gateway of a namespace was told.
fn told(namespace: &str) -> Vec<String> {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let told = told.iter().filter(|(of, _)| of == namespace);
    told.map(|(_, what)| what.clone()).collect()
}

/// Waits until the gateway of a namespace was told so much.
async fn await_told(namespace: &str, num: usize) -> Vec<String> {
    within("the application is told", async {
        while told(namespace).len() < num {
            tokio::task::yield_now().await;
        }
    })
    .await;
    told(namespace)
}

/// A gateway that notes what it is told: of `hold`, whose handler waits, of `next`, and of the end.
fn ending(namespace: &str) -> Gateway {
    keeping(namespace)
        .on("hold", |socket: SocketRef, (): ()| async move {
            tell(&socket, "hold");
            MAY_END.acquire().await.unwrap().forget();
        })
        .on("next", |socket: SocketRef, (): ()| async move {
            tell(&socket, "next");
        })
        .on_disconnect(|socket, reason| async move {
            tell(&socket, reason.as_str());
        })
}

fn with_brakes(app: App) -> App {
    let late = keeping("/late").authorize(|_| async {
        LATE.hold();
        Ok::<_, Refusal>(json!({}))
    });
    let second = keeping("/second").on("hold", |socket: SocketRef, (): ()| async move {
        SECOND.hold();
        GO_ON.acquire().await.unwrap().forget();
        socket.set_data("of the second").unwrap();
    });
    let endings = [
        "/ends", "/unheard", "/unsure", "/queued", "/refused", "/lost",
    ];
    let app = endings
        .into_iter()
        .fold(app, |app, namespace| app.gateway(ending(namespace)));
    app.gateway(keeping("/held"))
        .gateway(keeping("/asked"))
        .gateway(keeping("/early"))
        .gateway(keeping("/first"))
        .gateway(second)
        .gateway(late)
}

async fn instance(redis: &RedisServer) -> TestServer {
    let one = TestServer::on_redis_by(AdapterKind::Classic, &redis.url(), with_brakes);
    await_redis(&one, "up").await;
    one
}

/// Opens a session by polling that is in some namespaces.
async fn joined(one: &TestServer, namespaces: &[&str]) -> Poller {
    let poller = Poller::open(one.addr).await;
    for namespace in namespaces {
        poller.ok(&format!("40{namespace},")).await;
        let connected = poller.payload().await;
        assert!(connected.starts_with(&format!("40{namespace},")));
    }
    poller
}

/// Posts a packet whose answer comes late.
fn posted(poller: &Poller, packet: &'static str) -> actix_rt::task::JoinHandle<Answer> {
    let (addr, target) = (poller.addr, poller.target.clone());
    actix_rt::spawn(async move { http::post(addr, &target, packet.as_bytes()).await })
}

/// A bug: it was a member nowhere. What it joined was lost without a word, and what was sent to it went round in its actor for ever.
#[actix_rt::test]
async fn who_is_let_in_while_its_session_leaves_joins_where_that_goes() {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let poller = joined(&one, &["/early"]).await;
    asked_for(&mut stranger, &poller, 1).await;
    let _answer = posted(&poller, r#"40/late,{"token":"t"}"#);
    LATE.held().await;
    adopt(&redis, &poller, 1);
    stranger.hears(r#""type":"end""#).await;
    LATE.let_go();
    stranger.hears(r#""type":"state""#).await;
    let state = stranger.hears(r#""blobs":"#).await;
    let wish = r#""admissions":[{"nsp":"/late","auth":"{\"token\":\"t\"}"}]"#;
    assert!(state.contains(wish), "{state}");
    stranger.tell(&poller.sid, 1, 1, r#""type":"taken"}"#);
    one.await_connections(0).await;
    // Whatever would still have been called is behind it then.
    one.stop();
    assert!(came("/late").is_none(), "it is greeted there alone");
}

/// A bug: what was changed of one went to another, if one before it had left while the session was being packed up.
#[actix_rt::test]
async fn what_a_handler_remembers_goes_to_its_own_namespace() {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let poller = joined(&one, &["/first", "/second"]).await;
    asked_for(&mut stranger, &poller, 1).await;
    let _answer = posted(&poller, r#"42/second,["hold"]"#);
    SECOND.held().await;
    adopt(&redis, &poller, 1);
    stranger.hears(r#""type":"end""#).await;
    // It comes behind the word that the hub has let the session go, and before it is packed up.
    came("/first").unwrap().disconnect(false);
    SECOND.let_go();
    stranger.hears(r#""type":"state""#).await;
    let state = stranger.hears(r#""blobs":"#).await;
    assert!(
        state.contains(r#""memberships":[{"nsp":"/second""#),
        "{state}"
    );
    stranger.tell(&poller.sid, 1, 1, r#""type":"taken"}"#);
    one.await_connections(0).await;
    GO_ON.add_permits(1);
    stranger.hears(r#""type":"data""#).await;
    let said = stranger.hears(r#""of the second""#).await;
    // The end of the handler may have been heard as well.
    let (data, _) = said.split_once(r#""of the second""#).unwrap();
    assert!(data.contains(r#""at":0"#), "{data}");
}

/// Returns an instance whose only client, in `namespace`, has been taken by a stranger.
async fn taken<'a>(redis: &'a RedisServer, namespace: &str) -> (TestServer, Stranger<'a>, Poller) {
    let one = instance(redis).await;
    let mut stranger = Stranger::join(redis);
    let poller = joined(&one, &[namespace]).await;
    sent_to(&mut stranger, redis, &poller, 1).await;
    stranger.tell(&poller.sid, 1, 1, r#""type":"taken"}"#);
    one.await_connections(0).await;
    (one, stranger, poller)
}

/// A bug: if it was given up behind the word that it had come, neither instance told the application of its end.
#[actix_rt::test]
async fn who_is_given_up_where_it_was_to_come_has_left_where_it_was() {
    let redis = RedisServer::start();
    let (one, stranger, poller) = taken(&redis, "/ends").await;
    let sid = &poller.sid;
    assert!(told("/ends").is_empty(), "it lives");
    stranger.tell(sid, 1, 1, &format!(r#""type":"abort","sid":"{sid}"}}"#));
    await_told("/ends", 1).await;
    assert!(!came("/ends").unwrap().is_connected());
    one.stop();
    assert_eq!(told("/ends"), ["transport error"], "once");
}

/// Moves a session in `namespace` to an instance whose connection to Redis breaks behind a word of it, so that it does not know who has
/// heard that. Asserts that the client is told, and the application once.
async fn assert_told_once_if_cut_behind(word: &'static str, namespace: &str) {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let line = cut_line::lay(redis.port(), word);
    let url = format!("redis://127.0.0.1:{}", line.port());
    let two = TestServer::on_redis_by(AdapterKind::Classic, &url, with_brakes);
    await_redis(&two, "up").await;
    let poller = joined(&one, &[namespace]).await;
    let mut websocket = moving(&poller, two.addr).await;
    let Frame::Close(code, reason) = websocket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(code, Some(1013), "{reason}");
    assert_eq!(await_told(namespace, 1).await, ["transport error"]);
    await_redis(&two, "up").await;
    one.stop();
    two.stop();
    assert_eq!(told(namespace).len(), 1, "once");
}

/// A bug: nobody told the application. Where it was to come it was given up, and where it was it had gone.
#[actix_rt::test]
async fn who_has_come_and_is_not_known_to_be_heard_has_left_where_it_was() {
    assert_told_once_if_cut_behind(r#""type":"taken""#, "/unheard").await;
}

/// A bug: it lived on, though the application could have been told of its end where it was.
#[actix_rt::test]
async fn who_stays_and_is_not_known_to_be_heard_has_left_where_it_is() {
    assert_told_once_if_cut_behind(r#""type":"stays""#, "/unsure").await;
}

/// A bug: what waited for a handler was forgotten where the session was, and never came to where it was given up.
#[actix_rt::test]
async fn what_waits_for_handlers_of_who_is_given_up_is_handled_where_it_was() {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let mut number = 0;
    let mut expected = Vec::new();
    for (lasts, is_handled) in [(["taken", "abort"], true), (["taken", "stays"], false)] {
        number += 1;
        let poller = joined(&one, &["/queued"]).await;
        poller.ok(r#"42/queued,["hold"]"#).await;
        poller.ok(r#"42/queued,["next"]"#).await;
        expected.push("hold");
        await_told("/queued", expected.len()).await;
        sent_to(&mut stranger, &redis, &poller, number).await;
        for last in lasts {
            stranger.tell(&poller.sid, 1, number, &format!(r#""type":"{last}"}}"#));
        }
        one.await_connections(0).await;
        MAY_END.add_permits(1);
        if is_handled {
            expected.extend(["next", "transport error"]);
            await_told("/queued", expected.len()).await;
        } else {
            stranger.hears(r#""type":"over""#).await;
        }
        assert_eq!(told("/queued"), expected);
    }
    one.stop();
    assert_eq!(told("/queued"), expected, "nor is it later");
}

/// A bug: it lived on where it had come, while the application was told of its end where it was.
#[actix_rt::test]
async fn who_is_refused_where_it_was_ends_where_it_is() {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let mut coming = Coming::begin(&redis, &one, &mut stranger, "/refused").await;
    coming.state(&json!([]), &json!([]));
    coming.say(r#""type":"end""#, b"");
    stranger.hears(r#""type":"stays""#).await;
    assert!(told("/refused").is_empty(), "it lives");
    coming.say(r#""type":"refused""#, b"");
    let Frame::Close(code, reason) = coming.websocket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(code, Some(1013), "{reason}");
    assert_eq!(await_told("/refused", 1).await, ["transport error"]);
    stranger.hears(r#""type":"ended""#).await;
}

/// A bug: where the session was, the application was told of an end by what got lost there, though it might have come by then to where it
/// went.
#[actix_rt::test]
async fn who_loses_something_on_its_way_ends_where_it_comes() {
    let redis = RedisServer::start();
    let one = instance(&redis).await;
    let mut stranger = Stranger::join(&redis);
    let poller = joined(&one, &["/lost"]).await;
    // Of an instance that nobody is any more when the poll is answered.
    let channel = format!("socket.io-sockhop#{}#", &poller.sid[..8]);
    let sid = &poller.sid;
    let poll = format!(r#"{{"v":1,"id":7,"from":"Zy9xW7vU","type":"poll","sid":"{sid}","eio":4}}"#);
    redis.command(&[b"PUBLISH", channel.as_bytes(), poll.as_bytes()]);
    sent_to(&mut stranger, &redis, &poller, 1).await;
    stranger.hears(r#""type":"refused""#).await;
    for word in ["taken", "stays"] {
        stranger.tell(sid, 1, 1, &format!(r#""type":"{word}"}}"#));
    }
    one.await_connections(0).await;
    stranger.hears(r#""type":"over""#).await;
    one.stop();
    assert!(told("/lost").is_empty(), "it is told where it is");
}

/// A bug: whoever still held its socket where it was never learned of its end.
#[actix_rt::test]
async fn whoever_holds_a_socket_that_has_moved_learns_of_its_end() {
    let redis = RedisServer::start();
    let (_one, mut stranger, poller) = taken(&redis, "/held").await;
    let socket = came("/held").unwrap();
    stranger.tell(&poller.sid, 1, 1, r#""type":"stays"}"#);
    stranger.hears(r#""type":"over""#).await;
    assert!(socket.is_connected(), "elsewhere");
    stranger.tell(&poller.sid, 1, 1, r#""type":"ended"}"#);
    within("its end is known", async {
        while socket.is_connected() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A bug: a socket whose session had moved took the first argument of an ack for all of them.
#[actix_rt::test]
async fn a_socket_that_has_moved_reads_acks_as_before() {
    let redis = RedisServer::start();
    let (one, two) = pair_of(&redis, with_brakes).await;
    let poller = joined(&one, &["/asked"]).await;
    let socket = came("/asked").unwrap();
    let mut websocket = moving(&poller, two.addr).await;
    one.await_connections(0).await;
    let mut question = async |ack: &str| {
        let question = websocket.text().await;
        let id = question.strip_prefix("42/asked,").unwrap();
        let id = id.strip_suffix(r#"["question"]"#).unwrap();
        websocket.send(&format!("43/asked,{id}{ack}")).await;
    };
    let asked = socket.emit_with_ack::<(u32,)>("question", (), PATIENCE);
    let (answer, ()) = tokio::join!(asked, question("[7]"));
    assert_eq!(answer.unwrap(), (7,));
    let asked = socket.emit_with_ack::<Value>("question", (), PATIENCE);
    let (answer, ()) = tokio::join!(asked, question("[7]"));
    assert_eq!(answer.unwrap(), json!([7]));
    let asked = socket.emit_with_ack::<(u32,)>("question", (), PATIENCE);
    let (answer, ()) = tokio::join!(asked, question(r#"["seven"]"#));
    assert!(matches!(answer, Err(AckError::Decode(_))), "{answer:?}");
}
