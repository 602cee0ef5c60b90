//! A deadline for the body of every request, whoever reads it: an application's routes have one, too.
//!
//! The body ends with an error of kind [`TimedOut`](io::ErrorKind::TimedOut) then; what to answer is for whoever reads it. Of one that
//! nobody reads, or has yet to, nothing is asked for, and nobody is told that it is late before it is read.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage as _,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
};
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Sleep;

use crate::counters::{Counters, Limit};

/// Gives the body of a request this long to arrive, and asks for more of it whenever all that has come was taken and whoever reads it
/// waits. Returns whether there is one.
pub(super) fn set(
    request: &mut ServiceRequest,
    limit: Duration,
    counters: &Arc<Counters>,
    ask: impl Fn() + 'static,
) -> bool {
    let timed = match request.take_payload() {
        Payload::None => return false,
        payload => Timed {
            payload,
            timer: Box::pin(tokio::time::sleep(limit)),
            is_over: false,
            counters: Arc::clone(counters),
            ask,
        },
    };
    request.set_payload(Payload::Stream {
        payload: Box::pin(timed),
    });
    true
}

/// Returns whether that is why a body ended.
pub(super) fn is_late(err: &PayloadError) -> bool {
    matches!(err, PayloadError::Io(err) if err.kind() == io::ErrorKind::TimedOut)
}

struct Timed<F> {
    payload: Payload,
    timer: Pin<Box<Sleep>>,
    is_over: bool,
    counters: Arc<Counters>,
    ask: F,
}

// Nothing in it is pinned by it.
impl<F> Unpin for Timed<F> {}

impl<F: Fn()> Stream for Timed<F> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut self.payload).poll_next(cx);
        if next.is_pending() {
            (self.ask)();
        }
        // A body that always brings a little more must end, too.
        if matches!(next, Poll::Ready(None)) || self.timer.as_mut().poll(cx).is_pending() {
            return next;
        }
        self.is_over = true;
        self.counters.count(Limit::BodyTimeout);
        Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))))
    }
}
