//! The log: where it goes, how a line looks, which are left out, and how an error reads in it.

use std::{io::Write as _, time::Instant};

use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

mod repeats;

use self::repeats::{MAX_LINES, Repeats, SPAN, Verdict};

/// Sends log lines that pass `filter` to standard error. Warnings and errors that come from one line of code more often than 20
/// times in 10 s are left out, and it is said that they are. A second call in one process does nothing.
pub fn init(filter: &str) {
    let logger = Builder::new()
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
        .build();
    let level = logger.filter();
    let sparing = Sparing {
        logger,
        repeats: Repeats::default(),
    };
    match log::set_boxed_logger(Box::new(sparing)) {
        Ok(()) => log::set_max_level(level),
        Err(_) => log::debug!("the log is set up already"),
    }
}

/// A log that nobody can flood.
struct Sparing {
    logger: Logger,
    repeats: Repeats,
}

impl Log for Sparing {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // Whoever wants to know more than that wants all of it.
        let is_sparing = record.level() <= Level::Warn && self.logger.matches(record);
        if !is_sparing {
            return self.logger.log(record);
        }
        let place = place(record);
        let text = record.args();
        let say = |args| {
            let metadata = record.metadata().clone();
            let mut said = Record::builder();
            self.logger.log(&said.metadata(metadata).args(args).build());
        };
        match self.repeats.judge(place, Instant::now()) {
            Verdict::Say => self.logger.log(record),
            Verdict::SayAfter(num) => say(format_args!("{text} ({num} like it were left out)")),
            Verdict::SayAsLast => say(format_args!(
                "{text} ({MAX_LINES} like it came within {SPAN:?}: more are left out until then)"
            )),
            Verdict::LeaveOut => {}
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Returns where a record comes from. What `tracing` passes on has a file, though no static one.
fn place<'a>(record: &'a Record<'_>) -> repeats::Place<'a> {
    let name = record.file().unwrap_or_else(|| record.target());
    (name, record.line().unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A bug: of what `tracing` passes on nothing was left out, since its file is not static.
    #[test]
    fn every_record_has_a_place() {
        let mut builder = Record::builder();
        let builder = builder.target("t").line(Some(7));
        assert_eq!(place(&builder.build()), ("t", 7));
        let passed_on = builder.file(Some("a.rs")).build();
        assert_eq!(passed_on.file_static(), None);
        assert_eq!(place(&passed_on), ("a.rs", 7));
    }
}
