//! An instance whose clients may call every operation of the server API, for tests beside Node's servers.
//!
//! ```text
//! PORT=3000 REDIS_URL=redis://127.0.0.1:6379 cargo run --example ops
//! ```
//! Namespaces: `/ops` and any `/ops-{number}`, see `test/support/ops_gateway.rs`; and `/` without events, so that a client can be in
//! two.

#[path = "../support/ops_gateway.rs"]
mod ops_gateway;

use sockhop::{app::App, config::Config, gateways::Gateway, telemetry};

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let app = App::new(config)
        .gateway(ops_gateway::gateway())
        .gateway(ops_gateway::with_ops(Gateway::matching(
            "/ops-{number:[0-9]+}",
        )))
        .gateway(Gateway::new("/"));
    let running = app.start().await?;
    log::info!("listening on {} for the server API", running.url());
    running.run_until_signal().await?;
    Ok(())
}
