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
    moves::{adopt, asked_for, sent_to},
    relay::Stranger,
    support::{
        PATIENCE,
        http::{self, Answer, Poller},
        redis_server::RedisServer,
        server::TestServer,
        websocket::WebSocket,
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

/// How clients left `/ends`.
static ENDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

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
    let ends = keeping("/ends").on_disconnect(|_, reason| async move {
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push(reason.as_str().to_owned());
    });
    app.gateway(ends)
        .gateway(keeping("/held"))
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
    let ends = || ENDS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(ends().is_empty(), "it lives");
    stranger.tell(sid, 1, 1, &format!(r#""type":"abort","sid":"{sid}"}}"#));
    within("the end of a session", async {
        while ends().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!came("/ends").unwrap().is_connected());
    one.stop();
    assert_eq!(ends(), ["transport error"], "once");
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
    let mut websocket = WebSocket::connect(two.addr, &poller.upgrade_target()).await;
    websocket.send("2probe").await;
    assert_eq!(websocket.text().await, "3probe");
    websocket.send("5").await;
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
