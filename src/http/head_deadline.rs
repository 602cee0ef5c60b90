//! A deadline for the head of every request of a connection. actix-http 3.20 has one for the first alone: once a connection
//! has been answered, a few bytes of a next head stop its keep-alive timer and start none, and it could be held for ever.
//!
//! The stream notes when bytes come while no request is under way; the middleware notes when a request is. Knows no heads
//! and no routes.

use std::{
    cell::Cell,
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
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

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request is under way, or the first head is, which actix-http itself bounds.
    Busy,
    /// Between an answer and the first byte of the next head.
    Idle,
    /// Within a head that must be whole by then.
    Head(Instant),
}

/// The phase, as the stream and the middleware of one connection share it.
#[derive(Clone, Debug)]
struct Shared(Rc<Cell<Phase>>);

/// A connection that ends if a head takes too long.
#[derive(Debug)]
pub struct Watched {
    io: TcpStream,
    phase: Shared,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Watches a new connection, whose first head is actix-http's to watch.
    pub fn new(io: TcpStream, limit: Duration) -> Self {
        Self {
            io,
            phase: Shared(Rc::new(Cell::new(Phase::Busy))),
            limit,
            timer: None,
        }
    }

    /// Lets the middleware find the connection of its request. For `on_connect_ext`.
    pub fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(self.phase.clone());
    }

    /// Returns the bare stream.
    pub fn into_inner(self) -> TcpStream {
        self.io
    }
}

/// The middleware: a head that became a request is in time.
///
/// # Errors
/// Only those of the inner services.
pub async fn note<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let phase = request.conn_data::<Shared>().cloned();
    let set = |to| {
        if let Some(Shared(phase)) = &phase {
            phase.set(to);
        }
    };
    set(Phase::Busy);
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
        if this.phase.0.get() == Phase::Idle && buf.filled().len() > before {
            this.phase.0.set(Phase::Head(Instant::now() + this.limit));
        }
        let Phase::Head(deadline) = this.phase.0.get() else {
            this.timer = None;
            return read;
        };
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_ready() {
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
        Pin::new(&mut self.io).poll_write(cx, buf)
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
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
