//! Calls a handler so that its panic ends nothing but the call.
//!
//! Knows neither sockets nor servers: what is said of a panic is for whoever calls.

use std::panic::AssertUnwindSafe;

use futures_util::future::{Either, FutureExt as _, LocalBoxFuture};

use crate::telemetry::{self, About};

/// Makes a call whose panic, in the closure or in its future, ends nothing but the call: then `panicked` is given what it said, and `end`
/// `None`, else what the call came to. `about` is in whose name the log is spoken to meanwhile. `None` if there is nothing to call.
pub(crate) fn guard<T: 'static, U: 'static>(
    about: About,
    call: impl FnOnce() -> Option<LocalBoxFuture<'static, T>>,
    panicked: impl FnOnce(&str) + 'static,
    end: impl FnOnce(Option<T>) -> U + 'static,
) -> Option<LocalBoxFuture<'static, U>> {
    let begun = about.during(|| std::panic::catch_unwind(AssertUnwindSafe(call)));
    let future = match begun {
        Ok(future) => Either::Left(AssertUnwindSafe(future?).catch_unwind()),
        Err(panic) => Either::Right(std::future::ready(Err(panic))),
    };
    let ended = future.map(move |outcome| {
        let outcome = outcome.map_err(|panic| panicked(telemetry::panic_text(&*panic)));
        end(outcome.ok())
    });
    Some(about.scope(ended).boxed_local())
}
