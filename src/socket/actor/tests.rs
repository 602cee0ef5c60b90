//! What becomes of a session in turns that no client can bring about at will: all is done on the test's own arbiter, in its order.

use std::net::TcpListener;

use tokio::sync::oneshot;

use super::{super::messages::ProbeElsewhere, *};
use crate::{
    app::{App, Running},
    config::{Config, RedisConfig, Secret},
    gateways::Gateway,
    socket::messages::{Body, FromNext},
};

/// A session on polling that is in `/`, and its parked GET.
struct Parked {
    running: Running,
    session: Arc<Session>,
    get: oneshot::Receiver<PollAnswer>,
}

impl Parked {
    async fn begin(redis: Option<RedisConfig>) -> Self {
        let config = Config {
            host: "127.0.0.1".to_owned(),
            port: 0,
            workers: 1,
            redis,
            ..Config::default()
        };
        let app = App::new(config).gateway(Gateway::new("/"));
        let running = app.start().await.unwrap();
        let services = running.services();
        let handshake = Handshake::new(
            String::new(),
            String::new(),
            std::iter::empty(),
            Default::default(),
        );
        let (layer, slot) = (Layer::SocketIo, Slot::default());
        Socket::open_polling(services, layer, handshake, Dialect::V4, slot).unwrap();
        let session = services.sessions.all().pop().unwrap();
        post(&session, "40").await;
        let Ok(PollAnswer::Payload(joined)) = get(&session).await else {
            panic!("it is the only one")
        };
        assert!(joined.body.bytes.starts_with(b"40{"), "{joined:?}");
        // Who has not got all of an answer may not poll again.
        drop(joined);
        let get = get(&session);
        // Behind it.
        post(&session, "6").await;
        Self {
            running,
            session,
            get,
        }
    }

    /// Breaks the GET off, and waits for the end of the session.
    async fn abort(self) {
        drop(self.get);
        let mut num_sessions = self.running.sessions().watch();
        let ended = num_sessions.wait_for(|num| *num == 0);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.is_ok(), "its client has a gap and does not know");
        self.running.stop().await;
    }
}

/// Polls.
fn get(session: &Session) -> oneshot::Receiver<PollAnswer> {
    let (reply, answer) = oneshot::channel();
    session.addr.do_send(Poll { reply });
    answer
}

/// Posts a packet, and waits until it is taken.
async fn post(session: &Session, packet: &'static str) {
    let (reply, answer) = oneshot::channel();
    let (sender, body) = oneshot::channel();
    session.addr.do_send(Post { body, reply });
    let bytes = Bytes::from_static(packet.as_bytes());
    sender.send(Body::Whole(bytes, Held::default())).unwrap();
    assert_eq!(answer.await, Ok(PostAnswer::Ok), "{packet:?}");
}

/// A bug: the message was lost, and the session lived on.
#[actix_rt::test]
async fn a_message_that_meets_an_aborted_get_ends_the_session() {
    let parked = Parked::begin(None).await;
    // Wakes the arbiter's depot before the session is woken.
    parked.session.inbox.do_send(ForSocket {
        join: JoinId(0),
        what: What::Deliver {
            message: Encoded::new(r#"42["x"]"#, &[]),
            volatile: false,
        },
    });
    parked.abort().await;
}

/// A bug: the session lived on.
#[actix_rt::test]
async fn a_noop_that_meets_an_aborted_get_ends_the_session() {
    // It may never answer: nothing of this goes there.
    let redis = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", redis.local_addr().unwrap());
    let parked = Parked::begin(Some(RedisConfig {
        url: Secret::new(url),
        prefix: "x".to_owned(),
        adapter: Default::default(),
        tls: Default::default(),
    }))
    .await;
    let (reply, may_probe) = oneshot::channel();
    let (_given_up, gone) = oneshot::channel();
    parked.session.addr.do_send(ProbeElsewhere {
        to: InstanceId::random().unwrap(),
        number: 0,
        gone,
        reply,
    });
    assert!(may_probe.await.unwrap().is_some());
    // Its mailbox comes before all else that the session looks at.
    parked.session.addr.do_send(FromNext::Probed);
    parked.abort().await;
}
