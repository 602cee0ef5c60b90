//! The log: where it goes, how a line looks, which are left out, and how an error reads in it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write as _},
    panic::PanicHookInfo,
    sync::Arc,
    time::Instant,
};

use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

mod about;
mod repeats;
mod short;

pub(crate) use self::about::About;
use self::repeats::{MAX_LINES, Repeats, SPAN, Verdict};
pub(crate) use self::short::short;

/// Bytes of a warning or error that are written: it may quote what a client has sent.
const MAX_LINE_BYTES: usize = 4096;

/// Bytes that are told of what a panic said.
const MAX_PANIC_BYTES: usize = 1024;

/// Sends log lines that pass `filter` to standard error. Warnings and errors that come from one line of code, in the name of one handler, more often than 20
/// times in 10 s are left out, and it is said that they are; of each, 4 KiB are written. Panics are errors, too, whoever catches them: from now on they are told in
/// the log, where they happened and the first KiB of what they said, with a backtrace if `RUST_BACKTRACE` asks for one. Those that
/// `filter` leaves out go to standard error all the same, as bare lines. A second call in one process does nothing, nor does one where
/// the log is set up already.
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
    let sparing = Arc::new(Sparing {
        logger,
        repeats: Repeats::default(),
    });
    match log::set_boxed_logger(Box::new(Arc::clone(&sparing))) {
        Ok(()) => {
            log::set_max_level(level);
            // The one that Rust has writes each panic in full, that of a handler, too, which a client may repeat as fast as it sends.
            std::panic::set_hook(Box::new(move |panic| sparing.log_panic(panic)));
        }
        Err(_) => log::debug!("the log is set up already"),
    }
}

/// A log that nobody can flood.
struct Sparing {
    logger: Logger,
    repeats: Repeats,
}

impl Sparing {
    /// Returns what is to be said of a record that warns or tells of an error, `more` in full behind it; `None` if it is to be left out.
    fn line(&self, record: &Record<'_>, more: impl FnOnce() -> String) -> Option<String> {
        let verdict = self.repeats.judge(place(record), Instant::now());
        let note = match verdict {
            Verdict::Say => String::new(),
            Verdict::SayAfter(num) => format!(" ({num} like it were left out)"),
            Verdict::SayAsLast => {
                format!(" ({MAX_LINES} like it came within {SPAN:?}: more are left out until then)")
            }
            Verdict::LeaveOut => return None,
        };
        let text = short(record.args(), MAX_LINE_BYTES);
        Some(format!("{text}{note}{}", more()))
    }

    fn write(&self, record: &Record<'_>, line: &str) {
        let mut said = Record::builder();
        let said = said.metadata(record.metadata().clone());
        self.logger.log(&said.args(format_args!("{line}")).build());
    }

    fn log_panic(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        let text = short(panic_text(panic.payload()), MAX_PANIC_BYTES);
        let (file, line) = panic
            .location()
            .map_or(("nowhere", 0), |at| (at.file(), at.line()));
        let mut record = Record::builder();
        let record = record.level(Level::Error).target("panic");
        let record = record.file(Some(file)).line(Some(line));
        let args = format_args!("thread {thread} panicked at {file}:{line}: {text}");
        let record = record.args(args).build();
        let trace = || {
            let trace = Backtrace::capture();
            match trace.status() {
                BacktraceStatus::Captured => format!("\n{trace}"),
                _ => String::new(),
            }
        };
        match self.line(&record, trace) {
            Some(line) if self.logger.matches(&record) => self.write(&record, &line),
            // It may be what the program dies of.
            Some(line) => _ = writeln!(io::stderr(), "{line}"),
            None => {}
        }
    }
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
        if let Some(line) = self.line(record, String::new) {
            self.write(record, &line);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Returns where a record comes from, and in whose name. What `tracing` passes on has a file, though no static one.
fn place<'a>(record: &'a Record<'_>) -> repeats::Place<'a> {
    let name = record.file().unwrap_or_else(|| record.target());
    (name, record.line().unwrap_or_default(), About::current())
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

    /// A bug: a line was written whole, with all of what a client had sent that it quoted.
    #[test]
    fn a_line_is_cut() {
        let sparing = Sparing {
            logger: Builder::new().build(),
            repeats: Repeats::default(),
        };
        let line = |text: &str| {
            let mut record = Record::builder();
            let record = record.level(Level::Warn);
            let line = sparing.line(&record.args(format_args!("{text}")).build(), || {
                "more".into()
            });
            line.unwrap()
        };
        assert_eq!(line("text"), "textmore");
        let most = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(line(&most), format!("{most}more"));
        assert_eq!(line(&format!("{most}y")), format!("{most}…more"));
    }

    /// A bug: of what `tracing` passes on nothing was left out, since its file is not static.
    #[test]
    fn every_record_has_a_place() {
        let mut builder = Record::builder();
        let builder = builder.target("t").line(Some(7));
        assert_eq!(place(&builder.build()), ("t", 7, About::default()));
        let passed_on = builder.file(Some("a.rs")).build();
        assert_eq!(passed_on.file_static(), None);
        assert_eq!(place(&passed_on), ("a.rs", 7, About::default()));
    }
}
