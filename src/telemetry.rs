//! The log: where it goes, how a line looks, and how an error reads in it.

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

/// Returns an error's text with those of its causes, in one line.
pub fn with_causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}

/// Returns what a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
