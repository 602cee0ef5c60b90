//! The deadlines of an HTTP connection that actix-http 3.20 does not have. It watches the first head alone: once a connection
//! has been answered, a few bytes of a next head stop its keep-alive timer and start none, and it could be held for ever. Nor
//! does it mind a client that never reads its answer.
//!
//! The stream notes when bytes come while no request is under way, and when none can be written; the middleware notes when a
//! request is, and gives its body to [`body_deadline`]. Knows no heads and no routes.

use std::{
    cell::Cell,
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{Extensions, ServiceRequest, ServiceResponse},
    middleware::Next,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::body_deadline;
use crate::{
    counters::{Counters, Limit},
    socket::slots::Slot,
};

/// How actix-http's answer to a first head begins that took too long.
const LATE: &[u8] = b"HTTP/1.1 408 ";

/// How long a connection's client may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the head of a request.
    pub head: Duration,
    /// For its body.
    pub body: Duration,
    /// To take anything of an answer.
    pub write: Duration,
}

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first head is under way, which actix-http itself bounds.
    First,
    /// A request is under way.
    Busy,
    /// Between an answer and the first byte of the next head.
    Idle,
    /// Within a head that must be whole by then.
    Head(Instant),
}

/// What the stream and the middleware of one connection share.
#[derive(Clone, Debug)]
struct Shared {
    phase: Rc<Cell<Phase>>,
    deadlines: Deadlines,
    counters: Arc<Counters>,
}

/// A connection that ends if its client takes too long.
#[derive(Debug)]
pub struct Watched {
    io: TcpStream,
    shared: Shared,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Its place among those of its address.
    _slot: Slot,
}

impl Watched {
    /// Watches a new connection, whose first head is actix-http's to watch.
    pub fn new(io: TcpStream, deadlines: Deadlines, counters: Arc<Counters>, slot: Slot) -> Self {
        Self {
            io,
            shared: Shared {
                phase: Rc::new(Cell::new(Phase::First)),
                deadlines,
                counters,
            },
            head_timer: None,
            write_timer: None,
            _slot: slot,
        }
    }

    /// Lets the middleware find the connection of its request. For `on_connect_ext`.
    pub fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(self.shared.clone());
    }

    /// Returns the bare stream.
    pub fn into_inner(self) -> TcpStream {
        self.io
    }

    /// Counts a first head that did not come in time. actix-http says so by a 408 to its client, and not to us; nobody else writes
    /// one before a head has become a request.
    fn watch_first(&self, bytes: &[u8]) {
        let Shared {
            phase, counters, ..
        } = &self.shared;
        if phase.get() == Phase::First && bytes.starts_with(LATE) {
            counters.count(Limit::HeadTimeout);
            phase.set(Phase::Busy);
        }
    }

    /// Returns what a write led to, or that it made no progress for too long.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let limit = self.shared.deadlines.write;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.shared.counters.count(Limit::WriteTimeout);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The middleware: a head that became a request is in time; its body has yet to be.
///
/// # Errors
/// Only those of the inner services.
pub async fn note<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let shared = request.conn_data::<Shared>().cloned();
    let set = |to| {
        if let Some(shared) = &shared {
            shared.phase.set(to);
        }
    };
    set(Phase::Busy);
    if let Some(Shared {
        deadlines,
        counters,
        ..
    }) = &shared
    {
        body_deadline::set(&mut request, deadlines.body, counters);
    }
    let answer = next.call(request).await;
    set(Phase::Idle);
    answer
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let this = &mut *self;
        let Shared {
            phase, deadlines, ..
        } = &this.shared;
        if phase.get() == Phase::Idle && buf.filled().len() > before {
            phase.set(Phase::Head(Instant::now() + deadlines.head));
        }
        let Phase::Head(deadline) = phase.get() else {
            this.head_timer = None;
            return read;
        };
        let timer = this
            .head_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_ready() {
            this.shared.counters.count(Limit::HeadTimeout);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch_first(buf);
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch_write(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
