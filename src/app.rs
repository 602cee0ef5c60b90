//! One instance: puts the rooms together, starts them, and stops them in order.
//!
//! `main.rs` and the tests use the same door. Nothing is served before everything stands; what can fail at start fails with
//! a text that says what to do.
//!
//! ```no_run
//! use sockhop::{app::App, config::Config, gateways::{Event, Gateway, Reply}};
//!
//! #[actix::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config::from_env()?;
//!     let running = App::new(config)
//!         .gateway(Gateway::new("/hello").on("greet", |_, event: Event| async move {
//!             Reply::args(event.payload())
//!         }))
//!         .start()
//!         .await?;
//!     running.run_until_signal().await;
//!     Ok(())
//! }
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor as _, Addr, Arbiter};
use actix_server::ServerHandle;
use actix_web::web;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    adapter::uid::Uid,
    auth::{Accounts, OpenError, with_causes},
    config::Config,
    engine_io::{packet::Message, sid::InstanceId},
    gateways::{Gateway, Gateways, NamespaceRef, events},
    http::{health::Health, routes::Shared, server},
    hub::actor::{ConnectBridge, Hub},
    redis_bridge::{self, RedisBridge},
    socket::{
        actor::Services,
        endpoint::{Endpoint, Layer},
        messages::Stop,
        sessions::Sessions,
    },
};

/// How long clients may take to be told that the instance is stopping.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, forbidden, or not this machine's.
    #[error("cannot listen on {host}:{port}: {source}; {}", listen_advice(source))]
    Listen {
        /// `HOST`.
        host: String,
        /// `PORT`.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The accounts cannot be opened.
    #[error(transparent)]
    Accounts(#[from] OpenError),
    /// The bridge does not understand the address of Redis.
    #[error("REDIS_URL cannot be used")]
    Redis(#[from] redis_bridge::bus::BusError),
    /// The server's threads cannot be started.
    #[error("the server's workers cannot be started")]
    Workers(#[source] io::Error),
    /// No randomness, no safe ids.
    #[error("the system's random source failed")]
    Random(#[from] getrandom::Error),
}

fn listen_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the program that uses it, or set PORT to another port (0 takes any free one)"
        }
        io::ErrorKind::PermissionDenied => {
            "set PORT to 1024 or above, or grant the right to bind it"
        }
        _ => "set HOST to an address of this machine, for example 0.0.0.0",
    }
}

/// An instance that has not been started yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    accounts: Option<Accounts>,
    gateways: Gateways,
    endpoints: Vec<Endpoint>,
}

impl App {
    /// Returns an instance without gateways and without accounts: whatever an application adds is all it does.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            accounts: None,
            gateways: Gateways::default(),
            endpoints: vec![Endpoint::socket_io()],
        }
    }

    /// Opens the accounts, and adds the routes to register and log in and the built-in gateway `/events`, which wants their
    /// tokens. Call it outside of async work: it may wait for a disk.
    ///
    /// # Errors
    /// The accounts cannot be opened.
    pub fn with_accounts(mut self) -> Result<Self, StartError> {
        let accounts = Accounts::open(&self.config)?;
        self.gateways.add(events::gateway(accounts.verifier()));
        self.accounts = Some(accounts);
        Ok(self)
    }

    /// Adds a gateway. One for a namespace that has one already replaces it.
    #[must_use]
    pub fn gateway(mut self, gateway: Gateway) -> Self {
        self.gateways.add(gateway);
        self
    }

    /// Adds a path that speaks Engine.IO alone: each message goes to `answer`, and what that returns goes back.
    ///
    /// `path` begins and ends with a slash. The handler runs on the arbiter of the client and must not block.
    #[must_use]
    pub fn bare_engine_io(
        mut self,
        path: &str,
        answer: impl Fn(Message) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        let layer = Layer::Bare(Arc::new(answer));
        self.endpoints.push(Endpoint {
            path: path.to_owned(),
            layer,
        });
        self
    }

    /// Starts everything, within an actix system.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running then.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self {
            config,
            accounts,
            gateways,
            endpoints,
        } = self;
        let instance = InstanceId::random()?;
        let listener =
            server::bind(&config.host, config.port).map_err(|source| StartError::Listen {
                host: config.host.clone(),
                port: config.port,
                source,
            })?;
        let addr = listener.local_addr().map_err(StartError::Workers)?;

        let hub_arbiter = Arbiter::new();
        let hub = Hub::start_in_arbiter(&hub_arbiter.handle(), |_| Hub::default());
        let bridge = match &config.redis {
            Some(redis) => {
                let on_connected = refresh_key_on_connect(accounts.clone());
                let bridge = RedisBridge::new(
                    redis,
                    Uid::random()?,
                    gateways.namespaces(),
                    hub.clone().recipient(),
                    on_connected,
                )?;
                log::info!("[EventsGateway] Redis adapter configured for WebSocket scalability");
                Some(bridge)
            }
            None => {
                log::info!(
                    "[EventsGateway] REDIS_URL not configured. Running in single-instance mode"
                );
                None
            }
        };
        let bus = bridge.as_ref().map(RedisBridge::status);
        let bridge = bridge.map(|bridge| {
            let arbiter = Arbiter::new();
            let addr = RedisBridge::start_in_arbiter(&arbiter.handle(), move |_| bridge);
            hub.do_send(ConnectBridge(addr.clone().recipient()));
            (arbiter, addr)
        });

        let services = Arc::new(Services {
            instance,
            config: config.engine.clone(),
            gateways,
            hub,
            sessions: Sessions::default(),
            endpoints,
        });
        let health = web::Data::new(Health {
            services: Arc::clone(&services),
            bus,
            verifier: accounts.as_ref().map(Accounts::verifier),
            is_stopping: AtomicBool::new(false),
        });
        let shared = Shared {
            services: Arc::clone(&services),
            accounts,
            health: health.clone(),
            origins: config.allowed_origins.clone(),
        };
        let server =
            server::serve(listener, config.workers, shared).map_err(StartError::Workers)?;
        let server_handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(err) = server.await {
                log::error!("the server ended: {err}");
            }
        });
        Ok(Running {
            addr,
            services,
            health,
            server: server_handle,
            hub_arbiter,
            bridge,
        })
    }
}

/// Fetches the token key, now and again, until Redis gave it; and on every later connection, since Redis may have been
/// emptied meanwhile.
fn refresh_key_on_connect(accounts: Option<Accounts>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        let Some(accounts) = accounts.clone() else {
            return;
        };
        actix_rt::spawn(async move {
            if let Err(err) = accounts.refresh_key().await {
                log::warn!(
                    "the token key cannot be read from Redis: {}",
                    with_causes(&err)
                );
            }
        });
    })
}

/// A running instance.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    services: Arc<Services>,
    health: web::Data<Health>,
    server: ServerHandle,
    hub_arbiter: Arbiter,
    bridge: Option<(Arbiter, Addr<RedisBridge>)>,
}

impl Running {
    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns its id.
    pub fn instance(&self) -> InstanceId {
        self.services.instance
    }

    /// Returns a namespace, to send to its clients on all instances from outside of any handler.
    pub fn namespace(&self, name: &str) -> NamespaceRef {
        NamespaceRef {
            namespace: name.into(),
            hub: self.services.hub.clone(),
        }
    }

    /// Returns its sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.services.sessions
    }

    /// Returns an address for people to open.
    pub fn url(&self) -> String {
        if self.addr.ip().is_unspecified() {
            format!("http://localhost:{}", self.addr.port())
        } else {
            format!("http://{}", self.addr)
        }
    }

    /// Serves until SIGTERM or SIGINT, then stops in order.
    pub async fn run_until_signal(self) {
        let signals = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        match signals {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                log::info!("{name}: stopping; clients are told and will reconnect elsewhere");
            }
            (Err(err), _) | (_, Err(err)) => {
                // Without handlers the system's defaults end the process, which is all that is left to wait for.
                log::error!("signals cannot be watched: {err}");
                std::future::pending::<()>().await;
            }
        }
        self.stop().await;
    }

    /// Stops: takes no more connections, ends every session, publishes what waits, ends the workers.
    pub async fn stop(self) {
        let began = Instant::now();
        self.health.is_stopping.store(true, Ordering::Relaxed);
        self.server.pause().await;
        let num_sessions = self.services.sessions.len();
        for session in self.services.sessions.all() {
            session.addr.do_send(Stop);
        }
        let mut watch = self.services.sessions.watch();
        let drained = tokio::time::timeout(
            DRAIN_TIMEOUT,
            watch.wait_for(|num_sessions| *num_sessions == 0),
        );
        if drained.await.is_err() {
            log::warn!(
                "{} clients could not be told in time",
                self.services.sessions.len()
            );
        }
        if let Some((arbiter, bridge)) = &self.bridge {
            // Fails only if the bridge has ended already.
            _ = bridge.send(redis_bridge::messages::Stop).await;
            arbiter.stop();
        }
        self.server.stop(true).await;
        self.hub_arbiter.stop();
        log::info!(
            "stopped after {} ms; {num_sessions} clients were told",
            began.elapsed().as_millis()
        );
    }
}
