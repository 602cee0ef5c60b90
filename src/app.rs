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
//!     running.run_until_signal().await?;
//!     Ok(())
//! }
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor as _, Addr, Arbiter, AsyncContext as _};
use actix_rt::task::JoinHandle;
use actix_server::ServerHandle;
use actix_web::web;
use bytes::Bytes;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    auth::{Accounts, OpenError},
    config::{Config, RecoveryConfig, RedisConfig},
    counters::Counters,
    engine_io::{packet::Message, sid::InstanceId},
    gateways::{Gateway, Gateways, NamespaceRef, events, server_side::ServerSide},
    http::{
        health::Health,
        routes::{OwnRoutes, Shared},
        server,
    },
    hub::{
        self, hub_ref::HubRef, interest::Interest, messages::ConnectBridge, room_table::RoomTable,
        state::State,
    },
    peers::{PeerList, Peers},
    redis_bridge::{
        self, Audience, BridgeStats, BusStatus, HubDoor, Listener, RedisBridge, bus::BusError,
    },
    relay::Relay,
    slots::Slots,
    socket::{
        acks::AckIds,
        actor::Services,
        backlogs::Backlogs,
        dynamic::DynamicNamespaces,
        endpoint::{Endpoint, Layer},
        messages::Stop,
        recovery::Recovery,
        sessions::Sessions,
        work::WorkCount,
    },
    socket_io::{ids::Namespace, parser::Parser, recovery::Epoch},
    telemetry,
};

/// How long clients may take to be told that the instance is stopping, and their handlers to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two attempts to read the token key from a Redis that can be reached.
const KEY_RETRY: Duration = Duration::from_secs(1);

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
    Redis(#[from] BusError),
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
    own_routes: OwnRoutes,
}

impl App {
    /// Returns an instance without gateways and without accounts: whatever an application adds is all it does.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            accounts: None,
            gateways: Gateways::default(),
            endpoints: vec![Endpoint::socket_io()],
            own_routes: OwnRoutes::default(),
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

    /// Adds a gateway. One for a namespace, or for a pattern, that has one already replaces it. A namespace without a gateway is
    /// there for nobody, not even `/`.
    #[must_use]
    pub fn gateway(mut self, gateway: impl Into<Gateway>) -> Self {
        self.gateways.add(gateway.into());
        self
    }

    /// Serves a page of HTML, in UTF-8, at `path`, which begins with a slash. At `/` it takes the place of the test page.
    ///
    /// ```
    /// # use sockhop::{app::App, config::Config};
    /// let app = App::new(Config::default())
    ///     .page("/", "<!doctype html><title>Hello</title><script src=/socket.io/socket.io.js></script>");
    /// ```
    #[must_use]
    pub fn page(mut self, path: &str, html: impl Into<Bytes>) -> Self {
        self.own_routes.add_page(path, html.into());
        self
    }

    /// Adds routes of actix-web beside Socket.IO: resources, scopes, `app_data`, a `default_service` for addresses where nothing
    /// is. `configure` is called once for each worker, so what they share is made outside of it. The version of actix-web is
    /// that of [`sockhop::actix_web`](crate::actix_web).
    ///
    /// The hub's own addresses come first (`/socket.io/`, `/healthz`, `/readyz`, with accounts `/auth/…`); its test page comes
    /// last, so that a route at `/` takes its place. Pages of allowed origins may read the answers (CORS), but the routes are
    /// not guarded: pages of any origin may send requests. A WebSocket upgrade never comes to them.
    ///
    /// ```
    /// use sockhop::{actix_web::web, app::App, config::Config};
    ///
    /// let greeting = web::Data::new("Hello".to_owned());
    /// let app = App::new(Config::default()).routes(move |routes| {
    ///     async fn greet(greeting: web::Data<String>, name: web::Path<String>) -> String {
    ///         format!("{}, {name}!", **greeting)
    ///     }
    ///     routes.app_data(greeting.clone()).route("/greet/{name}", web::get().to(greet));
    /// });
    /// ```
    #[must_use]
    pub fn routes(
        mut self,
        configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static,
    ) -> Self {
        self.own_routes.add(configure);
        self
    }

    /// Chooses the form of Socket.IO packets for all clients of this instance, whatever the settings say. There is no
    /// negotiation: clients must be made with the same parser.
    #[must_use]
    pub fn parser(mut self, parser: Parser) -> Self {
        self.config.parser = parser;
        self
    }

    /// Keeps the state of clients that are away, so that they find it again, whatever the settings say: `connectionStateRecovery`
    /// of Node. `None` keeps nothing. What it promises, and what it costs, is told at [`RecoveryConfig`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sockhop::{app::App, config::{Config, RecoveryConfig}};
    /// let app = App::new(Config::default()).recovery(Some(RecoveryConfig {
    ///     max_disconnection: Duration::from_secs(60),
    ///     ..RecoveryConfig::default()
    /// }));
    /// ```
    #[must_use]
    pub fn recovery(mut self, recovery: Option<RecoveryConfig>) -> Self {
        self.config.recovery = recovery;
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
            own_routes,
        } = self;
        let instance = InstanceId::random()?;
        let redis = config.redis.as_ref();
        let adapter = redis.map(|redis| redis.adapter).unwrap_or_default();
        let uid = adapter.random_uid()?;
        let listener =
            server::bind(&config.host, config.port).map_err(|source| StartError::Listen {
                host: config.host.clone(),
                port: config.port,
                source,
            })?;
        let addr = listener.local_addr().map_err(StartError::Workers)?;

        let parser = config.parser;
        let ack_ids = Arc::new(match redis {
            Some(_) => AckIds::apart()?,
            None => AckIds::default(),
        });
        let rooms = redis_bridge::room_table(adapter);
        let (recovery, hub_recovery) = recovery(&config)?.unzip();
        let counters = Arc::new(Counters::default());
        let backlogs = Arc::new(Backlogs::new(config.engine.total_backlog_bytes()));
        let kept = Kept {
            rooms: rooms.clone(),
            recovery: hub_recovery,
            max_rooms: config.limits.max_rooms_per_socket,
            counters: Arc::clone(&counters),
        };
        // Behind all that can fail without stopping it.
        let hub_arbiter = Arbiter::new();
        let (hub, interest) = start_hub(&hub_arbiter, parser, &ack_ids, &gateways, kept);
        let dynamic = DynamicNamespaces::new(config.limits.max_dynamic_namespaces);
        let cluster = match redis {
            Some(redis) => {
                let on_connected = refresh_key_on_connect(accounts.clone());
                let namespaces = gateways.namespaces();
                let (backlogs, counters) = (Arc::clone(&backlogs), Arc::clone(&counters));
                let door = HubDoor::new(&hub, interest.clone(), rooms, backlogs, counters);
                let peers = Arc::new(Peers::new(instance, uid));
                let cluster = Cluster::start(
                    redis,
                    peers,
                    namespaces,
                    Arc::clone(&dynamic),
                    door,
                    on_connected,
                )
                .inspect_err(|_| _ = hub_arbiter.stop())?;
                log::info!("[EventsGateway] Redis adapter configured for WebSocket scalability");
                hub.do_send(ConnectBridge(cluster.bridge.clone().recipient()));
                Some(cluster)
            }
            None => {
                log::info!(
                    "[EventsGateway] REDIS_URL not configured. Running in single-instance mode"
                );
                None
            }
        };
        let services = Arc::new(Services {
            instance,
            config: config.engine.clone(),
            by_address: Slots::new(config.limits.max_connections_per_address, 1),
            dynamic_namespaces: dynamic,
            limits: config.limits.clone(),
            counters,
            backlogs,
            parser,
            gateways,
            hub,
            relay: cluster.as_ref().map(|cluster| Arc::clone(&cluster.relay)),
            interest,
            ack_ids,
            sessions: Sessions::default(),
            endpoints,
            work: WorkCount::default(),
            recovery,
            is_stopping: AtomicBool::new(false),
        });
        if let Some(cluster) = &cluster {
            cluster.serve(&services);
        }
        let health = web::Data::new(Health {
            services: Arc::clone(&services),
            bus: cluster.as_ref().map(|cluster| cluster.bus.clone()),
            bridge: cluster.as_ref().map(|cluster| Arc::clone(&cluster.stats)),
            verifier: accounts.as_ref().map(Accounts::verifier),
        });
        let shared = Shared {
            services: Arc::clone(&services),
            accounts,
            health,
            origins: config.allowed_origins.clone(),
            own_routes,
        };
        let server = match server::serve(listener, config.workers, shared) {
            Ok(server) => server,
            Err(err) => {
                hub_arbiter.stop();
                if let Some(cluster) = cluster {
                    cluster.arbiter.stop();
                }
                return Err(StartError::Workers(err));
            }
        };
        Ok(Running {
            addr,
            services,
            server: server.handle(),
            serving: actix_rt::spawn(server),
            hub_arbiter,
            cluster,
        })
    }
}

/// What an instance has to do with others, if it is one of several.
#[derive(Debug)]
struct Cluster {
    relay: Arc<Relay>,
    arbiter: Arbiter,
    bridge: Addr<RedisBridge>,
    bus: watch::Receiver<BusStatus>,
    stats: Arc<BridgeStats>,
}

impl Cluster {
    /// Starts the bridge, on an arbiter of its own. A Redis that is away is no error.
    ///
    /// # Errors
    /// The address of Redis has no meaning to us.
    fn start(
        redis: &RedisConfig,
        peers: Arc<Peers>,
        namespaces: Vec<Namespace>,
        dynamic: Arc<DynamicNamespaces>,
        hub: HubDoor,
        on_connected: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, BusError> {
        let relay = Arc::new(Relay::new(Arc::clone(&peers), redis.adapter));
        let listener = relayed(&relay);
        let bridge = RedisBridge::new(
            redis,
            peers,
            namespaces,
            dynamic,
            hub,
            listener,
            on_connected,
        )?;
        let (bus, stats) = (bridge.status(), bridge.stats());
        let arbiter = Arbiter::new();
        let bridge = RedisBridge::start_in_arbiter(&arbiter.handle(), move |_| bridge);
        Ok(Self {
            relay,
            arbiter,
            bridge,
            bus,
            stats,
        })
    }

    /// Lets others reach the sessions of this instance, and tells them how many there are.
    fn serve(&self, services: &Arc<Services>) {
        let bridge = self.bridge.clone().recipient();
        self.relay.connect(services, bridge);
        let services = Arc::downgrade(services);
        self.relay.peers().count_sessions(move || {
            let services = services.upgrade();
            services.map_or(0, |services| services.sessions.len())
        });
    }
}

/// Returns who takes what other instances say.
fn relayed(relay: &Arc<Relay>) -> Listener {
    let (taking, losing) = (Arc::clone(relay), Arc::clone(relay));
    Listener::new(
        move |audience, payload| match audience {
            Audience::One => taking.take(payload),
            Audience::All => taking.take_shared(payload),
        },
        move || losing.lose_all(),
    )
}

/// What the hub keeps beside membership, and within which limits.
struct Kept {
    rooms: Option<Arc<RoomTable>>,
    recovery: Option<hub::recovery::Recovery>,
    max_rooms: usize,
    counters: Arc<Counters>,
}

/// Returns what sessions and hub need so that clients may recover, if they may.
fn recovery(
    config: &Config,
) -> Result<Option<(Recovery, hub::recovery::Recovery)>, getrandom::Error> {
    let Some(recovery) = &config.recovery else {
        return Ok(None);
    };
    let engine = &config.engine;
    let epoch = Epoch::random()?;
    let head = Arc::new(AtomicU64::new(0));
    let longest_silence = engine.ping_interval.saturating_add(engine.ping_timeout);
    let at_sessions = Recovery {
        epoch,
        head: Arc::clone(&head),
        // What was missed comes at once, and must not make its client a slow reader.
        max_missed_bytes: engine.backlog_bytes() / 2,
    };
    let at_hub = hub::recovery::Recovery::new(epoch, head, recovery, longest_silence);
    Ok(Some((at_sessions, at_hub)))
}

/// Starts the hub on its arbiter, and on this one the actor that runs the servers' own handlers; each knows the other.
fn start_hub(
    arbiter: &Arbiter,
    parser: Parser,
    ack_ids: &Arc<AckIds>,
    gateways: &Gateways,
    kept: Kept,
) -> (HubRef, Interest) {
    let Kept {
        rooms,
        recovery,
        max_rooms,
        counters,
    } = kept;
    let mut started = None;
    ServerSide::create(|ctx| {
        let server_side = ctx.address().recipient();
        let (mut hub, interest) = State::new(parser, Arc::clone(ack_ids), server_side);
        hub.limit(max_rooms, counters);
        if let Some(recovery) = recovery {
            hub.recover(recovery);
        }
        if let Some(rooms) = rooms {
            hub.list_rooms_in(rooms);
        }
        let hub = HubRef::start(hub, &arbiter.handle());
        started = Some((hub.clone(), interest));
        ServerSide::new(gateways.clone(), hub)
    });
    started.expect("create calls its closure")
}

/// Fetches the token key on every connection, since Redis may have been emptied meanwhile; again and again until Redis gives
/// it, since one that can be reached may still be loading its data, or full.
fn refresh_key_on_connect(accounts: Option<Accounts>) -> Arc<dyn Fn() + Send + Sync> {
    let latest = Arc::new(AtomicU64::new(0));
    Arc::new(move || {
        let Some(accounts) = accounts.clone() else {
            return;
        };
        let latest = Arc::clone(&latest);
        let this = latest.fetch_add(1, Ordering::Relaxed) + 1;
        actix_rt::spawn(async move {
            let mut level = log::Level::Warn;
            // A later connection does it in this one's place.
            while latest.load(Ordering::Relaxed) == this {
                let Err(err) = accounts.refresh_key().await else {
                    return;
                };
                log::log!(
                    level,
                    "the token key cannot be read from Redis, trying again: {}",
                    telemetry::with_causes(&err)
                );
                level = log::Level::Debug;
                tokio::time::sleep(KEY_RETRY).await;
            }
        });
    })
}

/// A running instance.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    services: Arc<Services>,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    hub_arbiter: Arbiter,
    cluster: Option<Cluster>,
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

    /// Returns a namespace, to send to its clients on all instances from outside of any handler. `name` begins with a slash;
    /// what is sent to one without a gateway reaches nobody.
    pub fn namespace(&self, name: &str) -> NamespaceRef {
        NamespaceRef {
            namespace: name.into(),
            hub: self.services.hub.clone(),
        }
    }

    /// Returns the other instances that live, as far as is known; nothing without Redis.
    pub fn peers(&self) -> Option<PeerList> {
        let relay = self.services.relay.as_ref()?;
        Some(relay.peers().list())
    }

    /// Returns what its sessions share, for tests of what happens to one on an arbiter of their own.
    #[cfg(test)]
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
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
    ///
    /// # Errors
    /// The server ended by itself: its workers could not be started, or failed.
    pub async fn run_until_signal(mut self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            ended = &mut self.serving => {
                ended.map_err(io::Error::other)??;
                return Err(io::Error::other("the server ended by itself"));
            }
        };
        log::info!("{name}: stopping; clients are told and will reconnect elsewhere");
        self.stop().await;
        Ok(())
    }

    /// Stops: takes no more sessions, ends every one, lets handlers finish, publishes what waits, ends the workers.
    pub async fn stop(self) {
        let began = Instant::now();
        self.services.is_stopping.store(true, Ordering::Relaxed);
        self.server.pause().await;
        let num_sessions = self.services.sessions.len();
        if let Some(relay) = &self.services.relay {
            relay.let_go();
        }
        for session in self.services.sessions.all() {
            session.addr.do_send(Stop);
        }
        let drained = async {
            // Both fail only if nobody counts any more, and then there is nothing to wait for.
            _ = self
                .services
                .sessions
                .watch()
                .wait_for(|num| *num == 0)
                .await;
            _ = self.services.work.watch().wait_for(|num| *num == 0).await;
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            let num_clients = self.services.sessions.len();
            let num_working = *self.services.work.watch().borrow();
            log::warn!(
                "{num_clients} clients could not be told in time, handlers of {num_working} are cut off"
            );
        }
        // What handlers have sent and not awaited is to be published, too.
        self.services.hub.settle().await;
        if let Some(Cluster {
            arbiter, bridge, ..
        }) = &self.cluster
        {
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
