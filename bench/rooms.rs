//! The hub that `make bench` measures rooms with: `/events` with `join`, `leave` and `say`, which the built-in gateway lacks.
//!
//! `join` and `leave` take a room's name and are acked; `say` takes a name and a payload, which goes to everyone there as `said`.

use serde_json::value::RawValue;
use sockhop::{
    app::App,
    config::Config,
    gateways::{AllArgs, Arg, Gateway, SocketRef},
    telemetry,
};

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let gateway = Gateway::new("/events")
        .on("join", |socket: SocketRef, Arg(room): Arg<String>| async move {
            socket.join(room).await
        })
        .on("leave", |socket: SocketRef, Arg(room): Arg<String>| async move {
            socket.leave(room).await
        })
        .on(
            "say",
            |socket: SocketRef, AllArgs((room, payload)): AllArgs<(String, Box<RawValue>)>| async move {
                let members = socket.namespace_ref().to(room);
                members.emit("said", (payload,)).await
            },
        );
    let running = App::new(config).gateway(gateway).start().await?;
    log::info!("listening on {}", running.url());
    running.run_until_signal().await?;
    Ok(())
}
