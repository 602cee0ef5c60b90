//! The server that the protocols' official conformance suites want: their handlers, their time-outs.
//!
//! ```text
//! PORT=3000 cargo run --example conformance
//! ```
//! Engine.IO suite: path `/engine.io/`, every message is echoed. Socket.IO suite: namespaces `/` and `/custom`.
//! Source: `docs/engine.io-protocol/v4-test-suite` and `docs/socket.io-protocol/v5-test-suite` of socketio/socket.io.

use std::time::Duration;

use serde_json::Value;
use sockhop::{
    app::App,
    config::{Config, EngineConfig},
    gateways::{Event, Gateway, Reply, SocketRef},
    socket_io::args::Args,
    telemetry,
};

/// The settings of the suites, on the host and port of the environment.
pub(crate) fn configure(config: Config) -> Config {
    Config {
        allowed_origins: "*".parse().expect("a star is a list of origins"),
        engine: EngineConfig {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(1000),
            max_payload: 1_000_000,
            ..config.engine
        },
        // Some cases send requests on two connections and count on their being taken in the order sent.
        workers: 1,
        ..config
    }
}

/// The application of the suites.
pub(crate) fn app(config: Config) -> App {
    App::new(config)
        .bare_engine_io("/engine.io/", Some)
        .gateway(main_gateway())
        .gateway(custom_gateway())
}

/// `/`: sends the auth back, and every message.
pub(crate) fn main_gateway() -> Gateway {
    with_auth_event(Gateway::new("/"))
        .on("message", |socket: SocketRef, event: Event| async move {
            // Same arguments under another name, placeholders and all.
            let json = event.args().json().replacen("message", "message-back", 1);
            let attachments = event.args().attachments().to_vec();
            socket.emit_args(&Args::from_parts(json.into(), attachments));
        })
        .on("message-with-ack", |_, event: Event| async move {
            Reply::args(event.payload())
        })
}

/// `/custom`: sends the auth back.
pub(crate) fn custom_gateway() -> Gateway {
    with_auth_event(Gateway::new("/custom"))
}

fn with_auth_event(gateway: Gateway) -> Gateway {
    gateway
        .authorize(|request| request.auth_as::<Value>())
        .on_connect(|socket| async move { socket.emit("auth", socket.data()) })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = configure(Config::from_env()?);
    telemetry::init(&config.log_filter);
    actix::System::new().block_on(async {
        let running = app(config).start().await?;
        log::info!("listening on {} for the conformance suites", running.url());
        running.run_until_signal().await?;
        Ok(())
    })
}
