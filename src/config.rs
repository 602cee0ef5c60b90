//! Settings: every `ENV_` name, every default, and the one place that reads the environment.
//!
//! Does not open, bind or connect anything. All faults are collected and reported together, so that a
//! newcomer repairs a deployment in one go and nothing is bound before the settings are sound.
//!
//! An empty value counts as unset, which is what `${NAME:-}` in a compose file produces.

use std::{ffi::OsString, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use url::Url;

use crate::{
    adapter::{kind::AdapterKind, sharded_channel::SubscriptionMode},
    http::{
        origin::{AllowedOrigins, OriginFault},
        proxies::{ProxyFault, TrustedProxies},
    },
    socket_io::parser::Parser,
};

/// Names of the settings, as they stand in the environment and in `.env`.
pub mod env {
    /// Makes a constant of each name, and a list of them all.
    macro_rules! names {
        ($($(#[$attribute:meta])* $name:ident,)*) => {
            $($(#[$attribute])* pub const $name: &str = stringify!($name);)*

            /// All of them.
            pub const ALL: &[&str] = &[$($name),*];
        };
    }

    names! {
        /// Address to listen on. Default [`super::DEFAULT_HOST`].
        HOST,
        /// Port to listen on; 0 takes any free one. Default [`super::DEFAULT_PORT`].
        PORT,
        /// Comma-separated origins that are allowed besides the hub's own. Default none.
        FRONTEND_URL,
        /// Present: multi-instance over this Redis. Absent: single instance.
        REDIS_URL,
        /// First part of every Redis channel. Default [`super::DEFAULT_REDIS_PREFIX`].
        REDIS_PREFIX,
        /// Which of Node's Redis adapters is spoken: `classic` or `sharded`. Default `classic`.
        REDIS_ADAPTER,
        /// Which rooms have Redis channels of their own with the sharded adapter: `dynamic`, `static` or `dynamic-private`.
        /// Default `dynamic`.
        REDIS_SUBSCRIPTION_MODE,
        /// PEM file of the authorities that may sign the certificate of a `rediss://` Redis. Default: those of the system.
        REDIS_CA_FILE,
        /// PEM file of the certificate that we show to a `rediss://` Redis. Default none.
        REDIS_CERT_FILE,
        /// PEM file of the key of [`REDIS_CERT_FILE`].
        REDIS_KEY_FILE,
        /// Directory of a single instance's accounts and key. Default [`super::DEFAULT_DATA_DIR`].
        DATA_DIR,
        /// HS256 key, at least [`super::MIN_JWT_SECRET_BYTES`] bytes. Default: generated once and stored.
        JWT_SECRET,
        /// Lifetime of a token in seconds. Default [`super::DEFAULT_JWT_EXPIRES_IN`].
        JWT_EXPIRES_IN,
        /// Milliseconds between a pong and the next ping. Default [`super::DEFAULT_PING_INTERVAL`].
        PING_INTERVAL,
        /// Milliseconds a client has to answer a ping. Default [`super::DEFAULT_PING_TIMEOUT`].
        PING_TIMEOUT,
        /// Milliseconds a probing WebSocket has to finish its upgrade. Default [`super::DEFAULT_UPGRADE_TIMEOUT`].
        UPGRADE_TIMEOUT,
        /// Milliseconds a client has to join a namespace. Default [`super::DEFAULT_CONNECT_TIMEOUT`].
        CONNECT_TIMEOUT,
        /// Bytes in one message or polling body. Default [`super::DEFAULT_MAX_HTTP_BUFFER_SIZE`].
        MAX_HTTP_BUFFER_SIZE,
        /// Bytes that may wait for one client. Default [`super::EngineConfig::backlog_bytes`].
        MAX_BACKLOG,
        /// Bytes that may wait for all clients together. Default [`super::EngineConfig::total_backlog_bytes`].
        MAX_TOTAL_BACKLOG,
        /// Sessions in all. Default [`super::DEFAULT_MAX_CONNECTIONS`].
        MAX_CONNECTIONS,
        /// Sessions of one address; 0 is no limit. Default [`super::DEFAULT_MAX_CONNECTIONS_PER_ADDRESS`] for addresses of the open
        /// internet, and none for others; see [`super::Limits::max_connections_per_address`].
        MAX_CONNECTIONS_PER_ADDRESS,
        /// Accounts that one address may make in an hour; 0 is no limit. Default [`super::DEFAULT_MAX_REGISTRATIONS_PER_ADDRESS`] for
        /// addresses of the open internet, and none for others; see [`super::Limits::max_registrations_per_address`].
        MAX_REGISTRATIONS_PER_ADDRESS,
        /// Comma-separated addresses or networks of the balancers in front. Default none; see [`super::Limits::trusted_proxies`].
        TRUSTED_PROXIES,
        /// Rooms that one socket may be in. Default [`super::DEFAULT_MAX_ROOMS_PER_SOCKET`].
        MAX_ROOMS_PER_SOCKET,
        /// Dynamic namespaces that clients may be in. Default [`super::DEFAULT_MAX_DYNAMIC_NAMESPACES`].
        MAX_DYNAMIC_NAMESPACES,
        /// Events of one client in a second; 0 is no limit. Default [`super::DEFAULT_MAX_EVENT_RATE`].
        MAX_EVENT_RATE,
        /// Milliseconds for the head of a request. Default [`super::DEFAULT_HEAD_TIMEOUT`].
        HEAD_TIMEOUT,
        /// Milliseconds for a body, or for the attachments of a packet. Default [`super::DEFAULT_BODY_TIMEOUT`].
        BODY_TIMEOUT,
        /// Milliseconds for a client to take anything of what waits for it. Default [`super::DEFAULT_WRITE_TIMEOUT`].
        WRITE_TIMEOUT,
        /// Whether clients 2.x of Socket.IO are let in. Default `false`; see [`super::EngineConfig::allow_eio3`].
        ALLOW_EIO3,
        /// Form of Socket.IO packets, `json` or `msgpack`. Default `json`.
        PARSER,
        /// Milliseconds that a client may be away and still find its state again; 0 or unset: none is kept. See
        /// [`super::RecoveryConfig`].
        CONNECTION_STATE_RECOVERY,
        /// Number of HTTP workers. Default: one per core.
        WORKERS,
        /// Whether Linux's `io_uring` may be used. Default `true`; see [`super::EngineConfig::io_uring`].
        IO_URING,
        /// Log filter in `env_logger`'s grammar. Default [`super::DEFAULT_LOG`].
        RUST_LOG,
    }
}

/// Default of [`env::HOST`]: every IPv4 interface.
pub const DEFAULT_HOST: &str = "0.0.0.0";
/// Default of [`env::PORT`].
pub const DEFAULT_PORT: u16 = 3000;
/// Default of [`env::REDIS_PREFIX`], as in the Node adapter.
pub const DEFAULT_REDIS_PREFIX: &str = "socket.io";
/// Default of [`env::DATA_DIR`].
pub const DEFAULT_DATA_DIR: &str = "./data";
/// Shortest accepted [`env::JWT_SECRET`]: the output size of HS256 (RFC 7518, 3.2).
pub const MIN_JWT_SECRET_BYTES: usize = 32;
/// Default of [`env::JWT_EXPIRES_IN`], in seconds.
pub const DEFAULT_JWT_EXPIRES_IN: u64 = 3600;
/// Default of [`env::PING_INTERVAL`], in milliseconds.
pub const DEFAULT_PING_INTERVAL: u64 = 25_000;
/// Default of [`env::PING_TIMEOUT`], in milliseconds.
pub const DEFAULT_PING_TIMEOUT: u64 = 20_000;
/// Default of [`env::UPGRADE_TIMEOUT`], in milliseconds.
pub const DEFAULT_UPGRADE_TIMEOUT: u64 = 10_000;
/// Default of [`env::CONNECT_TIMEOUT`], in milliseconds.
pub const DEFAULT_CONNECT_TIMEOUT: u64 = 45_000;
/// Default of [`env::MAX_HTTP_BUFFER_SIZE`], in bytes.
pub const DEFAULT_MAX_HTTP_BUFFER_SIZE: usize = 1_000_000;
/// Default of [`Limits::wind_down_timeout`].
pub const DEFAULT_WIND_DOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of [`RecoveryConfig::max_disconnection`]: Node's.
pub const DEFAULT_MAX_DISCONNECTION: Duration = Duration::from_secs(120);
/// Default of [`RecoveryConfig::max_log_bytes`]: 64 MiB.
pub const DEFAULT_MAX_LOG_BYTES: usize = 64 * 1024 * 1024;
/// Default of [`RecoveryConfig::max_log_events`].
pub const DEFAULT_MAX_LOG_EVENTS: usize = 65_536;
/// Default of [`RecoveryConfig::max_sessions`].
pub const DEFAULT_MAX_SESSIONS: usize = 10_000;
/// Default of [`RecoveryConfig::max_session_bytes`]: 64 MiB.
pub const DEFAULT_MAX_SESSION_BYTES: usize = 64 * 1024 * 1024;
/// Least default of [`env::MAX_BACKLOG`], in bytes: 4 MiB.
pub const DEFAULT_MAX_BACKLOG: usize = 4 << 20;
/// Largest messages that the default of [`env::MAX_BACKLOG`] has room for, whatever their size.
const DEFAULT_BACKLOG_MESSAGES: usize = 8;
/// Least default of [`env::MAX_TOTAL_BACKLOG`], in bytes: 512 MiB.
pub const DEFAULT_MAX_TOTAL_BACKLOG: usize = 512 << 20;
/// Clients whose whole backlog the default of [`env::MAX_TOTAL_BACKLOG`] has room for, and as much beside.
const DEFAULT_TOTAL_BACKLOGS: usize = 4;
/// Default of [`env::MAX_CONNECTIONS`].
pub const DEFAULT_MAX_CONNECTIONS: usize = 100_000;
/// Default of [`env::MAX_CONNECTIONS_PER_ADDRESS`], of addresses that are of no private network.
pub const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// Default of [`env::MAX_REGISTRATIONS_PER_ADDRESS`], of addresses that are of no private network.
pub const DEFAULT_MAX_REGISTRATIONS_PER_ADDRESS: u32 = 1000;
/// Default of [`env::MAX_EVENT_RATE`].
pub const DEFAULT_MAX_EVENT_RATE: u32 = 10_000;
/// Default of [`env::MAX_ROOMS_PER_SOCKET`].
pub const DEFAULT_MAX_ROOMS_PER_SOCKET: usize = 10_000;
/// Default of [`env::MAX_DYNAMIC_NAMESPACES`].
pub const DEFAULT_MAX_DYNAMIC_NAMESPACES: usize = 10_000;
/// Default of [`env::HEAD_TIMEOUT`], in milliseconds.
pub const DEFAULT_HEAD_TIMEOUT: u64 = 10_000;
/// Default of [`env::BODY_TIMEOUT`], in milliseconds.
pub const DEFAULT_BODY_TIMEOUT: u64 = 30_000;
/// Default of [`env::WRITE_TIMEOUT`], in milliseconds.
pub const DEFAULT_WRITE_TIMEOUT: u64 = 30_000;
/// Default of [`env::RUST_LOG`].
pub const DEFAULT_LOG: &str = "info";

/// Longest accepted duration setting: a year. It keeps timer arithmetic far from overflow.
const MAX_MILLIS: u64 = 365 * 24 * 3600 * 1000;
/// Largest accepted [`env::MAX_HTTP_BUFFER_SIZE`]: 1 GiB.
const MAX_MAX_HTTP_BUFFER_SIZE: u64 = 1 << 30;
/// Largest accepted [`env::MAX_BACKLOG`]: 64 GiB.
const MAX_MAX_BACKLOG: u64 = 64 << 30;
/// Largest accepted [`env::MAX_TOTAL_BACKLOG`]: 1 TiB.
const MAX_MAX_TOTAL_BACKLOG: u64 = 1 << 40;
/// Largest accepted number of connections or rooms, and of events in a second.
const MAX_COUNT: u64 = 1_000_000_000;
/// Largest accepted [`env::WORKERS`].
const MAX_WORKERS: u64 = 1024;

/// Text that must not be printed: its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text. The caller takes care that it reaches no log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where and how instances meet. Present only in multi-instance mode.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` or `unix://` address; may hold a password.
    pub url: Secret,
    /// First part of every channel and key.
    pub prefix: String,
    /// Which of Node's adapters is spoken. Default [`AdapterKind::Classic`].
    pub adapter: AdapterKind,
    /// Used with `rediss://` only.
    pub tls: RedisTls,
}

/// Certificates for TLS to Redis, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Authorities that may sign Redis' certificate, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that we show, its chain behind it. Redis asks for one unless `tls-auth-clients` is `no`.
    pub cert_file: Option<PathBuf>,
    /// Its key. Goes with `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// Tokens.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// The HS256 key, or `None` to generate one and keep it in the store.
    pub secret: Option<Secret>,
    /// Lifetime of a token.
    pub expires_in: Duration,
}

/// Time-outs and limits of Engine.IO and Socket.IO sessions. Clients are told of `ping_interval`, `ping_timeout` and `max_payload`
/// in the open packet.
///
/// No duration may be zero, for it would be over at once, nor `max_payload`, for nothing could be received.
/// Source: Engine.IO protocol v4, "Handshake", "Heartbeat"; the option names of Node's server.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// From a pong to the next ping. Default 25 s.
    pub ping_interval: Duration,
    /// From a ping to the pong that it must get; the session ends without. Default 20 s.
    pub ping_timeout: Duration,
    /// From a probing WebSocket's open to its `5` (upgrade); the session stays on polling without. Default 10 s.
    pub upgrade_timeout: Duration,
    /// From the open packet to the first joined namespace; the session ends without. Default 45 s.
    pub connect_timeout: Duration,
    /// Bytes in one message (WebSocket), in one body (polling), and in all attachments of one packet. Default 1,000,000.
    pub max_payload: usize,
    /// Bytes that may wait for one client, 64 more for each message included; one message alone may exceed it. A client that
    /// lets more come together is disconnected (`slow reader`). `None` is the default, [`Self::backlog_bytes`].
    pub max_backlog: Option<usize>,
    /// Bytes that may wait for all clients together, each message once, however many it waits for, and of all for their handlers. A
    /// client may have as much waiting as is left, so that a few may be very slow, or many a little; who lets more come together is
    /// disconnected (`slow reader`), or not read from if it is what came from it; an ack that is more is dropped. `None` is the default, [`Self::total_backlog_bytes`].
    pub max_total_backlog: Option<usize>,
    /// Events and wishes to join that one client may send in a second, averaged over the last two; 0 is no limit. Beyond it events are
    /// not handled, and their acks say `rate_limited`; who goes on is disconnected (`rate limited`). Default 10,000, which nobody
    /// meets by hand: how much is much only an application knows, and what is sent faster than its handlers work is left unread
    /// whatever the rate.
    pub max_event_rate: u32,
    /// For the body of a request to arrive, and for the attachments of a packet behind its header. Default 30 s.
    pub body_timeout: Duration,
    /// Whether clients of Engine.IO revision 3 (`socket.io-client` 2.x) are let in. Default false.
    ///
    /// It is off because the protocol of those clients tells too much: their socket id *is* the session id (in `/`, and the
    /// part behind the `#` elsewhere), since the client computes it by itself. Whoever learns the socket id of such a client,
    /// from a list of users, the sender of a message or a log, can poll and post in its name. Where it is on, show socket ids
    /// to nobody whom you would not trust with the session. Clients 3.x and 4.x beside them are not affected.
    pub allow_eio3: bool,
    /// Whether many clients may be written to by one system call, with Linux's `io_uring`. Default true. Where the system has none or
    /// forbids it, each write is a system call of its own; clients notice no difference.
    pub io_uring: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_millis(DEFAULT_PING_INTERVAL),
            ping_timeout: Duration::from_millis(DEFAULT_PING_TIMEOUT),
            upgrade_timeout: Duration::from_millis(DEFAULT_UPGRADE_TIMEOUT),
            connect_timeout: Duration::from_millis(DEFAULT_CONNECT_TIMEOUT),
            max_payload: DEFAULT_MAX_HTTP_BUFFER_SIZE,
            max_backlog: None,
            max_total_backlog: None,
            max_event_rate: DEFAULT_MAX_EVENT_RATE,
            body_timeout: Duration::from_millis(DEFAULT_BODY_TIMEOUT),
            allow_eio3: false,
            io_uring: true,
        }
    }
}

/// Connection state recovery: a client that comes back soon finds its socket id, its rooms, its `data` and what it missed.
///
/// Off unless an instance is given this. What falls out of a limit is not recoverable, and no more than that: its client
/// gets a new socket id, as it does without. Source: Socket.IO, "Connection state recovery"; wire.md 2.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// The longest disconnection; `maxDisconnectionDuration` of Node. Default 120 s.
    pub max_disconnection: Duration,
    /// Bytes of events that are kept to be sent again, however many clients missed them. The oldest go first. Default 64 MiB.
    pub max_log_bytes: usize,
    /// How many such events. Default 65,536.
    pub max_log_events: usize,
    /// Sockets that are away. Each keeps its rooms, its `data` and the head of the request that opened its session, so some KiB, as
    /// it did when it was here. Whoever left first is forgotten first. Default 10,000.
    pub max_sessions: usize,
    /// Bytes that these take: as much as their rooms (256 and the name for each), their `data`, even if it becomes larger while they are
    /// away, and what their clients sent to be let in, which may be 40 KiB. Whoever left first is forgotten first. Default 64 MiB.
    pub max_session_bytes: usize,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            max_disconnection: DEFAULT_MAX_DISCONNECTION,
            max_log_bytes: DEFAULT_MAX_LOG_BYTES,
            max_log_events: DEFAULT_MAX_LOG_EVENTS,
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_session_bytes: DEFAULT_MAX_SESSION_BYTES,
        }
    }
}

impl EngineConfig {
    /// Returns how many bytes may wait for one client: [`Self::max_backlog`], or else [`DEFAULT_MAX_BACKLOG`], and at least room
    /// for eight messages of the largest size.
    pub fn backlog_bytes(&self) -> usize {
        self.max_backlog.unwrap_or_else(|| {
            DEFAULT_MAX_BACKLOG.max(DEFAULT_BACKLOG_MESSAGES.saturating_mul(self.max_payload))
        })
    }

    /// Returns how many bytes may wait for all clients together: [`Self::max_total_backlog`], or else [`DEFAULT_MAX_TOTAL_BACKLOG`],
    /// and at least four times as many as for one.
    pub fn total_backlog_bytes(&self) -> usize {
        self.max_total_backlog.unwrap_or_else(|| {
            let some = DEFAULT_TOTAL_BACKLOGS.saturating_mul(self.backlog_bytes());
            DEFAULT_MAX_TOTAL_BACKLOG.max(some)
        })
    }
}

/// What clients may take of an instance, beside what a session is told in [`EngineConfig`]. How often each was met
/// is counted in `/readyz`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions in all, on either transport. The next one gets 503 `too_many_connections`. Default 100,000.
    pub max_connections: usize,
    /// Sessions of one address; the next one gets 429 `too_many_connections_of_address`. HTTP connections of one address may be
    /// four times as many, since a polling client needs two. All of an IPv6 /64 is one address. 0 is no limit. `None`, the default, is 10,000 for addresses of
    /// the open internet, and no limit for those of private networks (loopback, RFC 1918, 100.64.0.0/10, link-local, `fc00::/7`): those are as
    /// a rule balancers', and behind one all clients have its address, unless [`Self::trusted_proxies`] names it.
    pub max_connections_per_address: Option<usize>,
    /// Accounts that one address may make in an hour, here: each instance counts for itself. They come back evenly; the next one gets 429
    /// `too_many_registrations`. 0 is no limit. `None`, the default, is 1,000 for addresses of the open internet, and no limit for those of
    /// private networks, which are the same as above.
    pub max_registrations_per_address: Option<u32>,
    /// The balancers in front. For what comes from them, the address that counts is the last one in `X-Forwarded-For` that is not
    /// a balancer's. Whoever else sends that header is not believed. Default none.
    pub trusted_proxies: TrustedProxies,
    /// Rooms that one socket may be in, its own not counted; `too_many_rooms` beyond. A name of more than 256 bytes counts as
    /// several. Default 10,000.
    pub max_rooms_per_socket: usize,
    /// Namespaces that clients of this instance are in, wait to be let into, may come back to or come to with a session of another instance,
    /// and that no gateway spells out: a client names them, and a gateway is for all those of a pattern. Whoever asks for one more gets
    /// `connect_error` with `data.code` `too_many_namespaces`; nobody else is touched. With Redis, each makes it look a little longer at
    /// each message of every instance, and as many again, or 1,024, may be listened to without clients. Default 10,000.
    pub max_dynamic_namespaces: usize,
    /// For the head of a request to arrive; 408, or the end of the connection. Default 10 s.
    pub head_timeout: Duration,
    /// For an HTTP client to take anything of its answer; the connection ends without. And for a session to take anything of what
    /// waits for it, if that is more than a heartbeat takes; it ends without (`slow reader`). Default 30 s.
    pub write_timeout: Duration,
    /// For the handlers of a client that has left to come to their end; then they are cut off, and `on_disconnect` has as long again.
    /// No variable sets it. Default 30 s.
    pub wind_down_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: None,
            max_registrations_per_address: None,
            trusted_proxies: TrustedProxies::default(),
            max_rooms_per_socket: DEFAULT_MAX_ROOMS_PER_SOCKET,
            max_dynamic_namespaces: DEFAULT_MAX_DYNAMIC_NAMESPACES,
            head_timeout: Duration::from_millis(DEFAULT_HEAD_TIMEOUT),
            write_timeout: Duration::from_millis(DEFAULT_WRITE_TIMEOUT),
            wind_down_timeout: DEFAULT_WIND_DOWN_TIMEOUT,
        }
    }
}

/// Everything that an instance is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// Origins allowed besides the hub's own.
    pub allowed_origins: AllowedOrigins,
    /// Present in multi-instance mode.
    pub redis: Option<RedisConfig>,
    /// Where a single instance keeps its accounts and its key.
    pub data_dir: PathBuf,
    /// Tokens.
    pub jwt: JwtConfig,
    /// Session time-outs and limits.
    pub engine: EngineConfig,
    /// What clients may take.
    pub limits: Limits,
    /// Form of Socket.IO packets. There is no negotiation: every client must be made with the same. Instances of a cluster
    /// may differ. Default [`Parser::Json`].
    pub parser: Parser,
    /// Present: clients that come back find their state again. Default none.
    pub recovery: Option<RecoveryConfig>,
    /// HTTP workers, each a thread that serves its clients' handlers, too. At least 1; default one per core.
    pub workers: usize,
    /// Log filter.
    pub log_filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
            allowed_origins: AllowedOrigins::default(),
            redis: None,
            data_dir: PathBuf::from(DEFAULT_DATA_DIR),
            jwt: JwtConfig {
                secret: None,
                expires_in: Duration::from_secs(DEFAULT_JWT_EXPIRES_IN),
            },
            engine: EngineConfig::default(),
            limits: Limits::default(),
            parser: Parser::default(),
            recovery: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            log_filter: DEFAULT_LOG.to_owned(),
        }
    }
}

/// One setting that cannot be used. The texts say what to write instead; no value of a secret is shown.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The value is not UTF-8.
    #[error("{name} is not valid UTF-8")]
    NotUnicode {
        /// Which setting.
        name: &'static str,
    },
    /// The value is no whole number, or out of its range.
    #[error("{name}={value:?} must be a whole number from {min} to {max}{unit}")]
    Number {
        /// Which setting.
        name: &'static str,
        /// What stood there.
        value: String,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
        /// " milliseconds" and the like, or nothing.
        unit: &'static str,
    },
    /// The value is neither yes nor no.
    #[error("{name}={value:?} must be true or false")]
    Boolean {
        /// Which setting.
        name: &'static str,
        /// What stood there.
        value: String,
    },
    /// One of the origins cannot be one.
    #[error("FRONTEND_URL: {0}")]
    Origin(#[from] OriginFault),
    /// One of the balancers is neither an address nor a network.
    #[error("TRUSTED_PROXIES: {0}")]
    Proxy(#[from] ProxyFault),
    /// A single message of the largest size would be too much for a client that reads at all.
    #[error(
        "MAX_BACKLOG={max_backlog} must be at least MAX_HTTP_BUFFER_SIZE, which is {max_payload}"
    )]
    SmallBacklog {
        /// Bytes that may wait.
        max_backlog: usize,
        /// Bytes of the largest message.
        max_payload: usize,
    },
    /// A single client could not have all that it may.
    #[error(
        "MAX_TOTAL_BACKLOG={total} must be at least twice MAX_BACKLOG, which is {max_backlog}: nobody may have more waiting than is left for the others"
    )]
    SmallTotalBacklog {
        /// Bytes that may wait for all.
        total: usize,
        /// Bytes that may wait for one.
        max_backlog: usize,
    },
    /// The Redis address has no meaning to us.
    #[error(
        "REDIS_URL must look like redis://[user:password@]host[:port][/db], rediss://… for TLS, or unix:///path: {reason}"
    )]
    RedisUrl {
        /// What is wrong with it, without the value, which may hold a password.
        reason: String,
    },
    /// Certificates that nobody would look at, or half a pair of them.
    #[error("{name} {reason}")]
    RedisTls {
        /// Which setting.
        name: &'static str,
        /// What is wrong with it being set.
        reason: &'static str,
    },
    /// It is about a Redis that nobody named.
    #[error(
        "{name} is set, but REDIS_URL is not, so there is no Redis: set REDIS_URL, or unset it"
    )]
    WithoutRedis {
        /// Which setting.
        name: &'static str,
    },
    /// The prefix would act as a pattern, or split channel names.
    #[error("REDIS_PREFIX={value:?} must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -")]
    RedisPrefix {
        /// What stood there.
        value: String,
    },
    /// There is no such adapter.
    #[error("REDIS_ADAPTER={value:?} must be classic or sharded")]
    RedisAdapter {
        /// What stood there.
        value: String,
    },
    /// There is no such mode.
    #[error("REDIS_SUBSCRIPTION_MODE={value:?} must be dynamic, static or dynamic-private")]
    SubscriptionMode {
        /// What stood there.
        value: String,
    },
    /// A mode is chosen that the adapter does not have.
    #[error(
        "REDIS_SUBSCRIPTION_MODE is for REDIS_ADAPTER=sharded alone; set that, or unset the mode"
    )]
    ModeWithoutSharded,
    /// The key is too short to be safe.
    #[error(
        "JWT_SECRET must be at least {MIN_JWT_SECRET_BYTES} bytes and has {len}; make one with `openssl rand -hex 32`, or leave it unset"
    )]
    ShortSecret {
        /// Its length in bytes.
        len: usize,
    },
    /// There is no such parser.
    #[error("PARSER={value:?} must be json or msgpack")]
    Parser {
        /// What stood there.
        value: String,
    },
    /// Clients 2.x are to be let in, and none of them speaks the parser's form of packets.
    #[error(
        "ALLOW_EIO3=true and PARSER=msgpack exclude each other: clients 2.x speak JSON here; unset one of them"
    )]
    OldClientsSpeakJson,
    /// The log filter is not in `env_logger`'s grammar.
    #[error("RUST_LOG={value:?} is not a log filter; write for example info or sockhop=debug")]
    LogFilter {
        /// What stood there.
        value: String,
    },
    /// `.env` exists and cannot be read.
    #[error(".env cannot be read: {reason}")]
    DotEnv {
        /// What the reader said; its texts name the line, and the line may hold a secret, so only the kind is kept.
        reason: String,
    },
}

/// All faults of the settings, together.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => write!(f, "a setting cannot be used:")?,
            n => write!(f, "{n} settings cannot be used:")?,
        }
        for fault in &self.faults {
            write!(f, "\n  - {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads `.env` of the working directory, if there is one, then the environment, which wins.
    ///
    /// # Errors
    /// Every fault of every setting.
    pub fn from_env() -> Result<Self, ConfigError> {
        let dotenv_fault = match dotenv::from_path(".env") {
            Ok(()) => None,
            Err(dotenv::Error::Io(err)) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => Some(Fault::DotEnv {
                reason: dotenv_reason(&err),
            }),
        };
        let mut result = Self::from_lookup(|name| std::env::var_os(name));
        if let Some(fault) = dotenv_fault {
            match &mut result {
                Ok(_) => {
                    return Err(ConfigError {
                        faults: vec![fault],
                    });
                }
                Err(err) => err.faults.insert(0, fault),
            }
        }
        result
    }

    /// Reads the settings through `lookup`, so that tests need no process environment.
    ///
    /// # Errors
    /// Every fault of every setting.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            lookup,
            faults: Vec::new(),
        };
        let defaults = Self::default();
        let config = Self {
            host: reader.text(env::HOST).unwrap_or(defaults.host),
            port: reader.number(env::PORT, 0, u64::from(u16::MAX), "", DEFAULT_PORT),
            allowed_origins: reader
                .parsed(env::FRONTEND_URL, AllowedOrigins::from_str)
                .unwrap_or_default(),
            redis: reader.redis(),
            data_dir: reader
                .text(env::DATA_DIR)
                .map_or(defaults.data_dir, PathBuf::from),
            jwt: JwtConfig {
                secret: reader.parsed(env::JWT_SECRET, |text| match text.len() {
                    len if len < MIN_JWT_SECRET_BYTES => Err(Fault::ShortSecret { len }),
                    _ => Ok(Secret::new(text)),
                }),
                expires_in: Duration::from_secs(reader.number(
                    env::JWT_EXPIRES_IN,
                    1,
                    MAX_MILLIS / 1000,
                    " seconds",
                    DEFAULT_JWT_EXPIRES_IN,
                )),
            },
            engine: EngineConfig {
                ping_interval: reader.millis(env::PING_INTERVAL, DEFAULT_PING_INTERVAL),
                ping_timeout: reader.millis(env::PING_TIMEOUT, DEFAULT_PING_TIMEOUT),
                upgrade_timeout: reader.millis(env::UPGRADE_TIMEOUT, DEFAULT_UPGRADE_TIMEOUT),
                connect_timeout: reader.millis(env::CONNECT_TIMEOUT, DEFAULT_CONNECT_TIMEOUT),
                max_payload: reader.number(
                    env::MAX_HTTP_BUFFER_SIZE,
                    1,
                    MAX_MAX_HTTP_BUFFER_SIZE,
                    " bytes",
                    DEFAULT_MAX_HTTP_BUFFER_SIZE,
                ),
                max_backlog: reader.optional_number(env::MAX_BACKLOG, 1, MAX_MAX_BACKLOG, " bytes"),
                max_total_backlog: reader.optional_number(
                    env::MAX_TOTAL_BACKLOG,
                    1,
                    MAX_MAX_TOTAL_BACKLOG,
                    " bytes",
                ),
                max_event_rate: reader.number(
                    env::MAX_EVENT_RATE,
                    0,
                    MAX_COUNT,
                    " a second",
                    defaults.engine.max_event_rate,
                ),
                body_timeout: reader.millis(env::BODY_TIMEOUT, DEFAULT_BODY_TIMEOUT),
                allow_eio3: reader.boolean(env::ALLOW_EIO3, defaults.engine.allow_eio3),
                io_uring: reader.boolean(env::IO_URING, defaults.engine.io_uring),
            },
            limits: reader.limits(),
            parser: reader
                .parsed(env::PARSER, |text| {
                    Parser::from_str(text).or(Err(Fault::Parser {
                        value: text.to_owned(),
                    }))
                })
                .unwrap_or_default(),
            recovery: reader.recovery(),
            workers: reader.number(env::WORKERS, 1, MAX_WORKERS, "", defaults.workers),
            log_filter: reader
                .parsed(env::RUST_LOG, |text| {
                    match env_filter::Builder::new().try_parse(text) {
                        Ok(_) => Ok(text.to_owned()),
                        Err(_) => Err(Fault::LogFilter {
                            value: text.to_owned(),
                        }),
                    }
                })
                .unwrap_or(defaults.log_filter),
        };
        if config.engine.allow_eio3 && config.parser == Parser::MessagePack {
            reader.faults.push(Fault::OldClientsSpeakJson);
        }
        if let Some(max_backlog) = config.engine.max_backlog
            && max_backlog < config.engine.max_payload
        {
            reader.faults.push(Fault::SmallBacklog {
                max_backlog,
                max_payload: config.engine.max_payload,
            });
        }
        let max_backlog = config.engine.backlog_bytes();
        if let Some(total) = config.engine.max_total_backlog
            && total / 2 < max_backlog
        {
            reader
                .faults
                .push(Fault::SmallTotalBacklog { total, max_backlog });
        }
        if reader.faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                faults: reader.faults,
            })
        }
    }
}

/// Returns whether the path of a Redis address is empty or names a database by its number.
fn is_database(path: &str) -> bool {
    let number = path.trim_start_matches('/');
    number.is_empty() || number.parse::<u16>().is_ok()
}

/// Returns what is wrong with the address of Redis, without its password.
fn redis_url_fault(url: &Url) -> Option<String> {
    match url.scheme() {
        "unix" | "redis+unix" | "valkey+unix" => None,
        "redis" | "rediss" | "valkey" | "valkeys" => {
            let fault = if url.host_str().is_none_or(str::is_empty) {
                "the host is missing"
            } else if !is_database(url.path()) {
                "behind the slash stands the number of a database, or nothing"
            } else if url.fragment().is_some() {
                "nothing may stand behind a #; certificates are always checked, and REDIS_CA_FILE names an authority of your own"
            } else {
                return None;
            };
            Some(fault.to_owned())
        }
        other => Some(format!("the scheme is {other}://")),
    }
}

/// Names what is wrong with `.env` without its content.
fn dotenv_reason(err: &dotenv::Error) -> String {
    match err {
        dotenv::Error::LineParse(_, position) => {
            format!("a line is not NAME=value (fault at its character {position})")
        }
        dotenv::Error::Io(err) => err.to_string(),
        _ => "it is not valid UTF-8".to_owned(),
    }
}

/// Collects faults instead of stopping at the first.
struct Reader<L> {
    lookup: L,
    faults: Vec<Fault>,
}

impl<L: Fn(&str) -> Option<OsString>> Reader<L> {
    fn text(&mut self, name: &'static str) -> Option<String> {
        let value = (self.lookup)(name)?;
        match value.into_string() {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(text.trim().to_owned()),
            Err(_) => {
                self.faults.push(Fault::NotUnicode { name });
                None
            }
        }
    }

    /// Returns whether it has a value, sound or not.
    fn is_set(&self, name: &str) -> bool {
        (self.lookup)(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
    }

    fn parsed<T, E: Into<Fault>>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(fault.into());
                None
            }
        }
    }

    fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
        unit: &'static str,
        default: T,
    ) -> T {
        self.optional_number(name, min, max, unit)
            .unwrap_or(default)
    }

    fn optional_number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
        unit: &'static str,
    ) -> Option<T> {
        self.parsed(name, |text| {
            u64::from_str(text)
                .ok()
                .filter(|number| (min..=max).contains(number))
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| Fault::Number {
                    name,
                    value: text.to_owned(),
                    min,
                    max,
                    unit,
                })
        })
    }

    fn limits(&mut self) -> Limits {
        let defaults = Limits::default();
        Limits {
            max_connections: self.number(
                env::MAX_CONNECTIONS,
                1,
                MAX_COUNT,
                "",
                defaults.max_connections,
            ),
            max_connections_per_address: self.optional_number(
                env::MAX_CONNECTIONS_PER_ADDRESS,
                0,
                MAX_COUNT,
                "",
            ),
            max_registrations_per_address: self.optional_number(
                env::MAX_REGISTRATIONS_PER_ADDRESS,
                0,
                MAX_COUNT,
                " an hour",
            ),
            trusted_proxies: self
                .parsed(env::TRUSTED_PROXIES, TrustedProxies::from_str)
                .unwrap_or_default(),
            max_rooms_per_socket: self.number(
                env::MAX_ROOMS_PER_SOCKET,
                0,
                MAX_COUNT,
                "",
                defaults.max_rooms_per_socket,
            ),
            max_dynamic_namespaces: self.number(
                env::MAX_DYNAMIC_NAMESPACES,
                1,
                MAX_COUNT,
                "",
                defaults.max_dynamic_namespaces,
            ),
            head_timeout: self.millis(env::HEAD_TIMEOUT, DEFAULT_HEAD_TIMEOUT),
            write_timeout: self.millis(env::WRITE_TIMEOUT, DEFAULT_WRITE_TIMEOUT),
            wind_down_timeout: DEFAULT_WIND_DOWN_TIMEOUT,
        }
    }

    fn millis(&mut self, name: &'static str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, 1, MAX_MILLIS, " milliseconds", default))
    }

    fn recovery(&mut self) -> Option<RecoveryConfig> {
        let name = env::CONNECTION_STATE_RECOVERY;
        let millis = self.number(name, 0, MAX_MILLIS, " milliseconds", 0);
        (millis > 0).then(|| RecoveryConfig {
            max_disconnection: Duration::from_millis(millis),
            ..RecoveryConfig::default()
        })
    }

    fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.parsed(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Fault::Boolean {
                name,
                value: text.to_owned(),
            }),
        })
        .unwrap_or(default)
    }

    fn redis(&mut self) -> Option<RedisConfig> {
        let prefix = self
            .parsed(env::REDIS_PREFIX, |text| {
                let sound = text.len() <= 64
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
                if sound {
                    Ok(text.to_owned())
                } else {
                    Err(Fault::RedisPrefix {
                        value: text.to_owned(),
                    })
                }
            })
            .unwrap_or_else(|| DEFAULT_REDIS_PREFIX.to_owned());
        let adapter = self.redis_adapter();
        if !self.is_set(env::REDIS_URL) {
            self.without_redis(adapter);
            return None;
        }
        let mut is_tls = false;
        let url = self.parsed(env::REDIS_URL, |text| {
            let url = Url::parse(text).map_err(|err| Fault::RedisUrl {
                reason: err.to_string(),
            })?;
            is_tls = matches!(url.scheme(), "rediss" | "valkeys");
            match redis_url_fault(&url) {
                None => Ok(Secret::new(text)),
                Some(reason) => Err(Fault::RedisUrl { reason }),
            }
        })?;
        let tls = self.redis_tls(is_tls);
        Some(RedisConfig {
            url,
            prefix,
            adapter,
            tls,
        })
    }

    fn redis_adapter(&mut self) -> AdapterKind {
        let is_sharded = self.parsed(env::REDIS_ADAPTER, |text| match text {
            "classic" => Ok(false),
            "sharded" => Ok(true),
            _ => Err(Fault::RedisAdapter {
                value: text.to_owned(),
            }),
        });
        let mode = self.parsed(env::REDIS_SUBSCRIPTION_MODE, |text| match text {
            "dynamic" => Ok(SubscriptionMode::Dynamic),
            "static" => Ok(SubscriptionMode::Static),
            "dynamic-private" => Ok(SubscriptionMode::DynamicPrivate),
            _ => Err(Fault::SubscriptionMode {
                value: text.to_owned(),
            }),
        });
        match (is_sharded, mode) {
            (Some(true), mode) => AdapterKind::Sharded(mode.unwrap_or_default()),
            // Or else somebody believes that rooms have channels of their own.
            (_, Some(_)) => {
                self.faults.push(Fault::ModeWithoutSharded);
                AdapterKind::Classic
            }
            (_, None) => AdapterKind::Classic,
        }
    }

    /// Refuses what would be ignored without Redis. Whoever sets it believes that this instance has one.
    fn without_redis(&mut self, adapter: AdapterKind) {
        for name in [
            env::REDIS_CA_FILE,
            env::REDIS_CERT_FILE,
            env::REDIS_KEY_FILE,
            env::REDIS_SUBSCRIPTION_MODE,
        ] {
            if self.is_set(name) {
                self.faults.push(Fault::WithoutRedis { name });
            }
        }
        if let AdapterKind::Sharded(_) = adapter {
            let name = env::REDIS_ADAPTER;
            self.faults.push(Fault::WithoutRedis { name });
        }
    }

    fn redis_tls(&mut self, is_tls: bool) -> RedisTls {
        let mut file = |name| self.text(name).map(PathBuf::from);
        let tls = RedisTls {
            ca_file: file(env::REDIS_CA_FILE),
            cert_file: file(env::REDIS_CERT_FILE),
            key_file: file(env::REDIS_KEY_FILE),
        };
        let settings = [
            (env::REDIS_CA_FILE, &tls.ca_file),
            (env::REDIS_CERT_FILE, &tls.cert_file),
            (env::REDIS_KEY_FILE, &tls.key_file),
        ];
        for (name, _) in settings
            .iter()
            .filter(|(_, file)| !is_tls && file.is_some())
        {
            // Whoever sets it believes that the connection is safe.
            let reason = "is set, but REDIS_URL is not rediss://, so there is no TLS";
            self.faults.push(Fault::RedisTls { name, reason });
        }
        let half = match (&tls.cert_file, &tls.key_file) {
            (Some(_), None) => Some((env::REDIS_CERT_FILE, "needs REDIS_KEY_FILE beside it")),
            (None, Some(_)) => Some((env::REDIS_KEY_FILE, "needs REDIS_CERT_FILE beside it")),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if let Some((name, reason)) = half {
            self.faults.push(Fault::RedisTls { name, reason });
        }
        tls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.host, "0.0.0.0");
        assert_eq!(config.port, 3000);
        assert!(config.redis.is_none());
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert!(config.jwt.secret.is_none());
        assert_eq!(config.jwt.expires_in, Duration::from_secs(3600));
        assert_eq!(config.engine.ping_interval, Duration::from_secs(25));
        assert_eq!(config.engine.ping_timeout, Duration::from_secs(20));
        assert_eq!(config.engine.upgrade_timeout, Duration::from_secs(10));
        assert_eq!(config.engine.connect_timeout, Duration::from_secs(45));
        assert_eq!(config.engine.max_payload, 1_000_000);
        assert!(!config.engine.allow_eio3);
        assert!(config.engine.io_uring);
        assert_eq!(config.engine.backlog_bytes(), 8_000_000);
        assert_eq!(config.engine.max_event_rate, 10_000);
        assert_eq!(config.engine.body_timeout, Duration::from_secs(30));
        assert_eq!(config.limits.max_connections, 100_000);
        assert_eq!(config.limits.max_connections_per_address, None);
        assert_eq!(config.limits.max_registrations_per_address, None);
        assert_eq!(config.limits.max_rooms_per_socket, 10_000);
        assert_eq!(config.limits.max_dynamic_namespaces, 10_000);
        assert_eq!(config.limits.head_timeout, Duration::from_secs(10));
        assert_eq!(config.limits.write_timeout, Duration::from_secs(30));
        assert_eq!(config.parser, Parser::Json);
        assert!(config.workers >= 1);
        assert_eq!(config.log_filter, "info");
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        let config = read(&[
            (env::REDIS_URL, ""),
            (env::PORT, " "),
            (env::JWT_SECRET, ""),
        ])
        .unwrap();
        assert!(config.redis.is_none());
        assert_eq!(config.port, 3000);
        assert!(config.jwt.secret.is_none());
    }

    #[test]
    fn the_backlog_has_room_for_several_messages_of_the_largest_size() {
        let backlog =
            |vars: &[(&str, &str)]| read(vars).map(|config| config.engine.backlog_bytes());
        let small = (env::MAX_HTTP_BUFFER_SIZE, "1000");
        assert_eq!(backlog(&[small]).unwrap(), DEFAULT_MAX_BACKLOG);
        let large = (env::MAX_HTTP_BUFFER_SIZE, "100000000");
        assert_eq!(backlog(&[large]).unwrap(), 800_000_000);
        assert_eq!(backlog(&[small, (env::MAX_BACKLOG, "1000")]).unwrap(), 1000);
        let err = backlog(&[small, (env::MAX_BACKLOG, "999")]).unwrap_err();
        assert_eq!(err.faults.len(), 1);
        assert!(err.to_string().contains("MAX_BACKLOG=999"), "{err}");
    }

    #[test]
    fn all_backlogs_together_have_room_for_some_that_are_full() {
        let total =
            |vars: &[(&str, &str)]| read(vars).map(|config| config.engine.total_backlog_bytes());
        assert_eq!(total(&[]).unwrap(), DEFAULT_MAX_TOTAL_BACKLOG);
        let large = (env::MAX_BACKLOG, "1000000000");
        assert_eq!(total(&[large]).unwrap(), 4_000_000_000);
        let small = (env::MAX_TOTAL_BACKLOG, "16000000");
        assert_eq!(total(&[small]).unwrap(), 16_000_000);
        let err = total(&[(env::MAX_TOTAL_BACKLOG, "15999999")]).unwrap_err();
        assert_eq!(err.faults.len(), 1);
        assert!(
            err.to_string().contains("MAX_TOTAL_BACKLOG=15999999"),
            "{err}"
        );
    }

    #[test]
    fn a_parser_is_chosen_by_its_name() {
        for parser in [Parser::Json, Parser::MessagePack] {
            assert_eq!(
                read(&[(env::PARSER, parser.as_str())]).unwrap().parser,
                parser
            );
        }
    }

    #[test]
    fn state_is_kept_for_clients_only_where_it_is_said_for_how_long() {
        let name = env::CONNECTION_STATE_RECOVERY;
        for text in ["", "0"] {
            assert_eq!(read(&[(name, text)]).unwrap().recovery, None, "{text:?}");
        }
        let recovery = read(&[(name, "120000")]).unwrap().recovery;
        assert_eq!(recovery, Some(RecoveryConfig::default()));
        assert!(
            read(&[(name, "true")])
                .unwrap_err()
                .to_string()
                .contains("CONNECTION_STATE_RECOVERY=\"true\"")
        );
    }

    #[test]
    fn clients_2x_and_msgpack_exclude_each_other() {
        let both = [(env::ALLOW_EIO3, "true"), (env::PARSER, "msgpack")];
        let err = read(&both).unwrap_err().to_string();
        assert!(
            err.contains(env::ALLOW_EIO3) && err.contains(env::PARSER),
            "{err}"
        );
        for one in both {
            assert!(read(&[one]).is_ok());
        }
    }

    #[test]
    fn every_fault_is_named_in_one_message() {
        let err = read(&[
            (env::PORT, "70000"),
            (env::FRONTEND_URL, "example.com"),
            (env::REDIS_URL, "http://redis"),
            (env::REDIS_PREFIX, "a*b"),
            (env::REDIS_ADAPTER, "streams"),
            (env::REDIS_SUBSCRIPTION_MODE, "all"),
            (env::JWT_SECRET, "short"),
            (env::JWT_EXPIRES_IN, "1h"),
            (env::PING_INTERVAL, "0"),
            (env::MAX_HTTP_BUFFER_SIZE, "-1"),
            (env::MAX_CONNECTIONS, "0"),
            (env::TRUSTED_PROXIES, "10.0.0.0/33"),
            (env::ALLOW_EIO3, "maybe"),
            (env::PARSER, "yaml"),
            (env::WORKERS, "0"),
            (env::RUST_LOG, "sockhop=loud"),
        ])
        .unwrap_err();
        let text = err.to_string();
        assert!(text.starts_with("16 settings cannot be used:"), "{text}");
        for name in [
            env::PORT,
            env::FRONTEND_URL,
            env::REDIS_URL,
            env::REDIS_PREFIX,
            env::REDIS_ADAPTER,
            env::REDIS_SUBSCRIPTION_MODE,
            env::JWT_SECRET,
            env::JWT_EXPIRES_IN,
            env::PING_INTERVAL,
            env::MAX_HTTP_BUFFER_SIZE,
            env::MAX_CONNECTIONS,
            env::TRUSTED_PROXIES,
            env::ALLOW_EIO3,
            env::PARSER,
            env::WORKERS,
            env::RUST_LOG,
        ] {
            assert!(text.contains(name), "{name} is missing in {text}");
        }
        assert!(
            !text.contains("short\""),
            "the secret's value must not be shown: {text}"
        );
    }

    #[test]
    fn the_adapter_and_its_mode_are_chosen_by_their_names() {
        let redis = |vars: &[(&str, &str)]| {
            let vars = [&[(env::REDIS_URL, "redis://host")], vars].concat();
            read(&vars).map(|config| config.redis.unwrap().adapter)
        };
        assert_eq!(redis(&[]).unwrap(), AdapterKind::Classic);
        let classic = [(env::REDIS_ADAPTER, "classic")];
        assert_eq!(redis(&classic).unwrap(), AdapterKind::Classic);
        let sharded = (env::REDIS_ADAPTER, "sharded");
        assert_eq!(
            redis(&[sharded]).unwrap(),
            AdapterKind::Sharded(SubscriptionMode::Dynamic)
        );
        for (text, mode) in [
            ("dynamic", SubscriptionMode::Dynamic),
            ("static", SubscriptionMode::Static),
            ("dynamic-private", SubscriptionMode::DynamicPrivate),
        ] {
            let mode_setting = (env::REDIS_SUBSCRIPTION_MODE, text);
            assert_eq!(
                redis(&[sharded, mode_setting]).unwrap(),
                AdapterKind::Sharded(mode)
            );
            let err = redis(&[mode_setting]).unwrap_err().to_string();
            assert!(err.contains("REDIS_ADAPTER=sharded alone"), "{err}");
        }
    }

    #[test]
    fn a_boolean_is_true_or_false() {
        for (text, value) in [
            ("true", true),
            ("1", true),
            ("True", true),
            ("false", false),
            ("0", false),
            ("", false),
        ] {
            let config = read(&[(env::ALLOW_EIO3, text)]).unwrap();
            assert_eq!(config.engine.allow_eio3, value, "{text:?}");
        }
        let err = read(&[(env::ALLOW_EIO3, "yes please")]).unwrap_err();
        assert!(
            err.to_string()
                .contains("ALLOW_EIO3=\"yes please\" must be true or false"),
            "{err}"
        );
    }

    #[test]
    fn secrets_have_no_debug_text() {
        let config = read(&[
            (env::JWT_SECRET, "0123456789abcdef0123456789abcdef"),
            (env::REDIS_URL, "redis://user:hunter2@localhost"),
        ])
        .unwrap();
        let debug = format!("{config:?}");
        assert!(
            !debug.contains("hunter2") && !debug.contains("0123456789"),
            "{debug}"
        );
    }

    #[test]
    fn a_redis_database_is_a_number() {
        assert!(read(&[(env::REDIS_URL, "redis://host/3")]).is_ok());
        assert!(read(&[(env::REDIS_URL, "redis://host/")]).is_ok());
        assert!(read(&[(env::REDIS_URL, "redis://host/abc")]).is_err());
    }

    #[test]
    fn every_way_to_redis_has_its_address() {
        for url in [
            "rediss://u:p@host:1/2",
            "valkey://host",
            "valkeys://host",
            "unix:///run/redis.sock?db=1",
        ] {
            assert!(read(&[(env::REDIS_URL, url)]).is_ok(), "{url}");
        }
        let err = read(&[(env::REDIS_URL, "rediss://host/#insecure")]).unwrap_err();
        assert!(err.to_string().contains(env::REDIS_CA_FILE), "{err}");
        let err = read(&[(env::REDIS_URL, "redis+sentinel://host/name")]).unwrap_err();
        assert!(err.to_string().contains("redis+sentinel://"), "{err}");
    }

    #[test]
    fn certificates_are_refused_where_nobody_would_look_at_them() {
        let all = [
            (env::REDIS_CA_FILE, "/ca"),
            (env::REDIS_CERT_FILE, "/cert"),
            (env::REDIS_KEY_FILE, "/key"),
        ];
        let with = |url, files: &[(&'static str, &'static str)]| {
            read(&[&[(env::REDIS_URL, url)][..], files].concat())
        };
        let tls = with("rediss://host", &all).unwrap().redis.unwrap().tls;
        assert_eq!(tls.ca_file, Some(PathBuf::from("/ca")));
        assert_eq!(tls.key_file, Some(PathBuf::from("/key")));
        assert_eq!(with("redis://host", &all).unwrap_err().faults.len(), 3);
        for half in &all[1..] {
            let err = with("rediss://host", &[*half]).unwrap_err().to_string();
            assert!(err.contains("beside it"), "{err}");
        }
    }

    /// A bug: an instance that was to join a cluster ran alone, and said nothing.
    #[test]
    fn what_is_said_of_a_redis_that_is_not_named_is_refused() {
        let of_redis = [
            (env::REDIS_CA_FILE, "/ca"),
            (env::REDIS_CERT_FILE, "/cert"),
            (env::REDIS_KEY_FILE, "/key"),
            (env::REDIS_ADAPTER, "sharded"),
            (env::REDIS_SUBSCRIPTION_MODE, "static"),
        ];
        let err = read(&of_redis).unwrap_err();
        assert_eq!(err.faults.len(), 5, "{err}");
        for (name, value) in of_redis {
            let text = read(&[(name, value)]).unwrap_err().to_string();
            let advice = format!("{name} is set, but REDIS_URL is not");
            assert!(text.contains(&advice), "{text}");
            // The address is named and faulty: that is told, and enough.
            let text = read(&[(env::REDIS_URL, "http://redis"), (name, value)]).unwrap_err();
            assert!(!text.to_string().contains("REDIS_URL is not,"), "{text}");
        }
        for harmless in [(env::REDIS_ADAPTER, "classic"), (env::REDIS_CA_FILE, " ")] {
            assert!(read(&[harmless]).is_ok(), "{harmless:?}");
        }
    }

    #[test]
    fn a_redis_url_with_a_bad_port_is_reported_without_its_password() {
        let err = read(&[(env::REDIS_URL, "redis://u:hunter2@host:99999")]).unwrap_err();
        assert!(err.to_string().contains("REDIS_URL"));
        assert!(!err.to_string().contains("hunter2"));
    }
}
