//! The `sockhop` program: reads the settings, starts one instance, waits for the signal to stop; or does one thing and ends. No
//! logic.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sockhop::{
    app::App, config::Config, emit, healthcheck, http::client_bundle, open_files, telemetry,
};

/// The Socket.IO server that you run, not write.
///
/// Settings are read from the environment and from .env in the working directory; the README lists them. Without any, one
/// instance listens on port 3000 and serves its test page there.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve,
    /// Ask the server of this environment's HOST and PORT whether it answers: exit code 0 if it does.
    Healthcheck,
    #[command(flatten)]
    Emit(emit::Order),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve);
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(err) => return fail(&err),
    };
    telemetry::init(&config.log_filter);
    let result = match command {
        Command::Serve => serve(config),
        Command::Healthcheck => healthcheck::run(&config).map_err(Into::into),
        Command::Emit(order) => actix::System::new()
            .block_on(emit::run(&config, order))
            .map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => fail(&*err),
    }
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    open_files::take_all(config.limits.max_connections);
    let app = App::new(config).with_accounts()?;
    actix::System::new().block_on(async {
        let running = app.start().await?;
        if !client_bundle::is_built_in() {
            log::info!(
                "built without the client bundle; /socket.io/socket.io.js redirects to the CDN"
            );
        }
        log::info!(
            "Sockhop {} is listening on {} (open it in a browser for the test page)",
            env!("CARGO_PKG_VERSION"),
            running.url()
        );
        running.run_until_signal().await?;
        Ok(())
    })
}

/// Prints an error with its causes: it may come before the log is set up.
#[allow(
    clippy::print_stderr,
    reason = "a failed start must be seen whatever the log filter says"
)]
fn fail(err: &dyn std::error::Error) -> ExitCode {
    eprintln!("sockhop: {}", telemetry::with_causes(err));
    ExitCode::FAILURE
}
