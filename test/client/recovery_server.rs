//! An instance whose clients come back to what they had, for tests beside Node's server.
//!
//! ```text
//! PORT=3000 CONNECTION_STATE_RECOVERY=120000 cargo run --example recovery
//! ```
//! Namespace: `/r`, see `test/support/recovery_gateway.rs`.

#[path = "../support/recovery_gateway.rs"]
mod recovery_gateway;

use sockhop::{app::App, config::Config, telemetry};

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let running = App::new(config)
        .gateway(recovery_gateway::gateway())
        .start()
        .await?;
    log::info!("listening on {} for clients that come back", running.url());
    running.run_until_signal().await?;
    Ok(())
}
