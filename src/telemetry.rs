//! The log: where it goes and how a line looks.

use std::io::Write as _;

use env_logger::{Builder, Target};
use log::LevelFilter;

/// Sends log lines that pass `filter` to standard error. A second call in one process does nothing.
pub fn init(filter: &str) {
    let result = Builder::new()
        // What it says at its start is said better by the application; a filter that names it still wins.
        .filter_module("actix_server", LevelFilter::Warn)
        // It takes a stranger's malformed request for an error of ours.
        .filter_module("actix_http", LevelFilter::Off)
        .parse_filters(filter)
        .target(Target::Stderr)
        .format(|out, record| {
            let style = out.default_level_style(record.level());
            writeln!(
                out,
                "{} {style}{:<5}{style:#} {}",
                out.timestamp_millis(),
                record.level(),
                record.args()
            )
        })
        .try_init();
    if result.is_err() {
        log::debug!("the log is set up already");
    }
}
