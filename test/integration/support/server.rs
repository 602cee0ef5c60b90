//! An instance in this process, on a free port, with an application made for tests.

use std::{net::SocketAddr, path::Path, sync::mpsc, thread::JoinHandle, time::Duration};

use sockhop::{
    app::App,
    config::{Config, RedisConfig, Secret},
    gateways::{Gateway, HandlerError, Refusal, Reply},
    hub::broadcast::Broadcast,
};
use tokio::sync::oneshot;

use super::http;

/// A running instance; ends when dropped.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl TestServer {
    /// Starts one with default time-outs.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts one with several workers, so that clients sit on different threads.
    pub(crate) fn start_wide() -> Self {
        Self::with(|config| config.workers = 3)
    }

    /// Starts one on a Redis.
    pub(crate) fn on_redis(url: &str) -> Self {
        let url = Secret::new(url);
        Self::with(|config| {
            config.redis = Some(RedisConfig {
                url,
                prefix: "socket.io".to_owned(),
            });
            config.workers = 2;
        })
    }

    /// Starts one with changed settings.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        change(&mut config);
        let (started, is_started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let app = App::new(config)
                .unwrap()
                .gateway(main_gateway())
                .gateway(custom_gateway())
                .gateway(test_gateway());
            actix::System::new().block_on(async {
                let running = app.start().await.unwrap();
                started.send(running.addr()).unwrap();
                _ = stopped.await;
                running.stop().await;
            });
        });
        let addr = is_started.recv().expect("the instance must start");
        Self {
            addr,
            stop: Some(stop),
            thread: Some(thread),
            _data: data,
        }
    }

    /// Registers a fresh user and returns its token.
    pub(crate) async fn token(&self) -> String {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = format!(r#"{{"username":"u{name}","password":"correct horse"}}"#);
        let answer = http::post_json(self.addr, "/auth/register", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Returns how many sessions the instance has.
    pub(crate) async fn num_connections(&self) -> u64 {
        http::num_connections(self.addr).await
    }

    /// Waits until the instance has this many sessions.
    pub(crate) async fn await_connections(&self, expected: u64) {
        http::await_connections(self.addr, expected).await;
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn config(data_dir: &Path) -> Config {
    Config {
        host: "127.0.0.1".to_owned(),
        port: 0,
        data_dir: data_dir.to_owned(),
        // What is sent on several connections is then taken in the order sent; tests of more workers ask for them.
        workers: 1,
        ..Config::default()
    }
}

/// `/`, as the conformance suite of the Socket.IO protocol wants it.
fn main_gateway() -> Gateway {
    with_auth_event(Gateway::new("/"))
        .on("message", |socket, event| async move {
            let args = event.args();
            // Same arguments under another name, placeholders and all.
            let json = args.json().replacen("message", "message-back", 1);
            let back = sockhop::socket_io::args::Args::from_parts(
                json.into(),
                args.attachments().to_vec(),
            );
            socket.emit_args(&back);
            Ok(Reply::Empty)
        })
        .on("message-with-ack", |_, event| async move {
            Ok(Reply::Args(event.payload()))
        })
}

/// `/custom`, likewise.
fn custom_gateway() -> Gateway {
    with_auth_event(Gateway::new("/custom"))
}

fn with_auth_event(gateway: Gateway) -> Gateway {
    gateway
        .authorize(|request| async move {
            let auth = request.auth.as_deref().unwrap_or("{}");
            Ok(serde_json::from_str(auth).unwrap())
        })
        .on_connect(|socket| async move { socket.emit("auth", &[socket.data()]).unwrap() })
}

/// `/test`: what goes wrong, and what takes its time.
fn test_gateway() -> Gateway {
    Gateway::new("/test")
        .authorize(|request| async move {
            match request.auth.as_deref() {
                Some(auth) if auth.contains("refuse") => Err(Refusal {
                    message: "no".to_owned(),
                    data: Some(serde_json::json!({ "code": 7 })),
                }),
                Some(auth) if auth.contains("panic") => panic!("a test wants this"),
                Some(auth) if auth.contains("never") => std::future::pending().await,
                _ => Ok(serde_json::json!({})),
            }
        })
        .on("panic", |_, _| async move { panic!("a test wants this") })
        .on("fail", |_, _| async move {
            Err(HandlerError::new("teapot", "I am one."))
        })
        .on("never", |_, _| async move { std::future::pending().await })
        .on("slow", |_, event| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Reply::Args(event.payload()))
        })
        .on("quick", |_, event| async move {
            Ok(Reply::Args(event.payload()))
        })
        .on("emit-then-ack", |socket, event| async move {
            socket.emit("first", &[1])?;
            Ok(Reply::Args(event.payload()))
        })
        .on("broadcast-then-ack", |socket, event| async move {
            socket
                .originate(Broadcast::to_all("/test".into(), event.args().clone()))
                .await?;
            Ok(Reply::Args(event.payload()))
        })
        .on("join", |socket, _| async move {
            socket.join("room").await?;
            Ok(Reply::Empty)
        })
        .on("to-room", |socket, event| async move {
            let mut broadcast = Broadcast::to_all("/test".into(), event.args().clone());
            broadcast.target.rooms.push("room".into());
            socket.originate(broadcast).await?;
            Ok(Reply::Empty)
        })
        .on("kick", |socket, _| async move {
            socket.disconnect(false);
            Ok(Reply::Empty)
        })
        .on("hang-up", |socket, _| async move {
            socket.disconnect(true);
            Ok(Reply::Empty)
        })
        .on_other(|_, event| async move {
            Err(HandlerError::new("unknown_event", event.name().to_owned()))
        })
}
