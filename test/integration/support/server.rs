//! An instance in this process, on a free port, with an application made for tests.

use std::{
    net::SocketAddr,
    path::Path,
    sync::mpsc::{self, Receiver},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};
use sockhop::{
    adapter::kind::AdapterKind,
    app::App,
    config::{Config, RedisConfig, RedisTls, Secret},
    gateways::{
        Ack, AllArgs, Arg, Binary, Event, Gateway, HandlerError, Refusal, Reply, SocketRef,
    },
};
use tokio::sync::oneshot;

use super::{PATIENCE, conformance, http, received};

/// A running instance; ends when dropped.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Nothing ever comes: it closes when the thread ends.
    end: Receiver<()>,
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
        Self::on_redis_with(url, |app| app)
    }

    /// Starts one on a Redis, with more than the usual gateways.
    pub(crate) fn on_redis_with(url: &str, build: fn(App) -> App) -> Self {
        Self::on_redis_as(url, |_| {}, build)
    }

    /// Starts one on a Redis by one of the adapters, with more than the usual gateways.
    pub(crate) fn on_redis_by(adapter: AdapterKind, url: &str, build: fn(App) -> App) -> Self {
        Self::on_redis_of(adapter, url, |_| {}, build)
    }

    /// Starts one on a Redis, with changed settings and more than the usual gateways.
    pub(crate) fn on_redis_as(
        url: &str,
        further: impl FnOnce(&mut Config),
        build: fn(App) -> App,
    ) -> Self {
        Self::on_redis_of(AdapterKind::default(), url, further, build)
    }

    fn on_redis_of(
        adapter: AdapterKind,
        url: &str,
        further: impl FnOnce(&mut Config),
        build: fn(App) -> App,
    ) -> Self {
        let url = Secret::new(url);
        let change = |config: &mut Config| {
            further(config);
            config.redis = Some(RedisConfig {
                url,
                prefix: "socket.io".to_owned(),
                adapter,
                tls: RedisTls::default(),
            });
            config.workers = 2;
        };
        Self::of(change, move |app| build(usual(app)))
    }

    /// Starts one with changed settings.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(change, usual)
    }

    /// Starts one with one gateway, a test's own.
    pub(crate) fn of_gateway(gateway: Gateway) -> Self {
        Self::of(|_| {}, |app| app.gateway(gateway))
    }

    /// Starts one with changed settings and an application of the test's own.
    pub(crate) fn of(
        change: impl FnOnce(&mut Config),
        build: impl FnOnce(App) -> App + Send + 'static,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        change(&mut config);
        Self::launch(data, move || build(App::new(config)))
    }

    /// Starts an application that is put together elsewhere, with the settings that it wants.
    pub(crate) fn of_app(
        configure: fn(Config) -> Config,
        app: impl FnOnce(Config) -> App + Send + 'static,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = configure(config(data.path()));
        Self::launch(data, move || app(config))
    }

    fn launch(data: tempfile::TempDir, app: impl FnOnce() -> App + Send + 'static) -> Self {
        let (started, is_started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (ends, end) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _ends = ends;
            let app = app();
            actix::System::new().block_on(async {
                let running = app.start().await.unwrap();
                started.send(running.addr()).unwrap();
                _ = stopped.await;
                running.stop().await;
            });
        });
        let addr = received("the start of an instance", &is_started);
        Self {
            addr: addr.expect("the instance must start"),
            stop: Some(stop),
            thread: Some(thread),
            end,
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

    /// Returns its name among instances.
    pub(crate) async fn instance(&self) -> String {
        let ready = super::http::get(self.addr, "/readyz").await.json();
        ready["instance"].as_str().unwrap().to_owned()
    }

    /// Returns how many sessions it has.
    pub(crate) async fn num_connections(&self) -> u64 {
        http::num_connections(self.addr).await
    }

    /// Waits until the instance has this many sessions.
    pub(crate) async fn await_connections(&self, expected: u64) {
        http::await_connections(self.addr, expected).await;
    }

    /// Stops it and waits until it has stopped.
    pub(crate) fn stop(self) {
        drop(self);
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
        if std::thread::panicking() {
            // The test has failed already. One that does not stop either is left behind, and ends with the process.
            _ = self.end.recv_timeout(PATIENCE);
            return;
        }
        received("the stop of an instance", &self.end);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Adds the gateways that most tests use.
fn usual(app: App) -> App {
    app.with_accounts()
        .unwrap()
        .gateway(conformance::main_gateway())
        .gateway(conformance::custom_gateway())
        .gateway(test_gateway())
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

/// `/test`: what goes wrong, and what takes its time.
fn test_gateway() -> Gateway {
    let gateway = Gateway::new("/test").authorize(|request| async move {
        match request.auth.as_deref() {
            Some(auth) if auth.contains("refuse") => Err(Refusal {
                message: "no".to_owned(),
                data: Some(json!({ "code": 7 })),
            }),
            Some(auth) if auth.contains("panic") => panic!("a test wants this"),
            Some(auth) if auth.contains("never") => std::future::pending().await,
            _ => Ok(json!({ "visits": 0 })),
        }
    });
    with_sending(with_faults(gateway))
        .on("quick", |_, event: Event| async move {
            Reply::args(event.payload())
        })
        .on("slow", |_, event: Event| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Reply::args(event.payload())
        })
        .on("sum", |_, AllArgs(terms): AllArgs<(i64, i64)>| async move {
            Ack(terms.0 + terms.1)
        })
        .on("reverse", |_, Arg(Binary(bytes)): Arg<Binary>| async move {
            Ack(Binary(bytes.iter().rev().copied().collect()))
        })
        .on("visit", |socket: SocketRef, (): ()| async move {
            socket.with_data(|data| {
                let visits = data["visits"].as_u64().unwrap() + 1;
                data["visits"] = visits.into();
                Ack(visits)
            })
        })
        .on("kick", |socket: SocketRef, _: Event| async move {
            socket.disconnect(false)
        })
        .on("hang-up", |socket: SocketRef, _: Event| async move {
            socket.disconnect(true)
        })
        .middleware(|_, event| async move {
            if event.name() == "forbidden" {
                return Err(HandlerError::new("forbidden", "Not this one."));
            }
            Ok(event)
        })
        .on_other(|_, event: Event| async move {
            Err::<(), _>(HandlerError::new("unknown_event", event.name()))
        })
}

fn with_faults(gateway: Gateway) -> Gateway {
    gateway
        .on("panic", |_, _: Event| async move {
            if true {
                panic!("a test wants this");
            }
        })
        .on("fail", |_, _: Event| async move {
            Err::<(), _>(HandlerError::new("teapot", "I am one."))
        })
        .on("never", |_, _: Event| std::future::pending::<()>())
}

fn with_sending(gateway: Gateway) -> Gateway {
    gateway
        .on(
            "emit-then-ack",
            |socket: SocketRef, event: Event| async move {
                socket.emit("first", 1)?;
                Ok::<_, HandlerError>(Reply::args(event.payload()))
            },
        )
        .on(
            "broadcast-then-ack",
            |socket: SocketRef, event: Event| async move {
                socket
                    .namespace_ref()
                    .all()
                    .emit_args(event.args().clone())
                    .await?;
                Ok::<_, HandlerError>(Reply::args(event.payload()))
            },
        )
        .on("to-others", |socket: SocketRef, event: Event| async move {
            socket.broadcast().emit_args(event.args().clone()).await
        })
        .on("volatile", |socket: SocketRef, event: Event| async move {
            let all = socket.namespace_ref().all().volatile();
            all.emit_args(event.args().clone()).await
        })
        .on("join", |socket: SocketRef, _: Event| async move {
            socket.join("room").await
        })
        .on("leave", |socket: SocketRef, _: Event| async move {
            socket.leave("room").await
        })
        .on("to-room", |socket: SocketRef, event: Event| async move {
            socket
                .namespace_ref()
                .to("room")
                .emit_args(event.args().clone())
                .await
        })
        .on(
            "ask-me",
            |socket: SocketRef, Arg(millis): Arg<u64>| async move {
                let timeout = Duration::from_millis(millis);
                match socket
                    .emit_with_ack::<(Value, Binary)>("question", "what?", timeout)
                    .await
                {
                    Ok((value, Binary(bytes))) => Ack(json!([value, bytes.to_vec()])),
                    Err(err) => Ack(json!(err.to_string())),
                }
            },
        )
}
