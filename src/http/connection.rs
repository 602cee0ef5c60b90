//! The deadlines of an HTTP connection that actix-http 3.20 does not have. It watches the first head alone: once a connection
//! has been answered, a few bytes of a next head stop its keep-alive timer and start none, and it could be held for ever. Nor
//! does it mind a client that never reads its answer.
//!
//! Nor does it mind how many requests come before the first is answered: it reads all that fits 128 KiB, which may be thousands, and keeps
//! seven kilobytes for each.
//!
//! The stream notes when bytes come while no request is under way, and when none can be written, and hands out no more than belongs to
//! the request under way and a little; the middleware notes when a request is, and gives its body to [`body_deadline`]. Knows no heads
//! and no routes.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_web::{
    Error,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Extensions, ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderMap},
    },
    middleware::Next,
};
use bytes::Bytes;
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

/// Bytes that are read at a time while no request is under way, and so the most that may be there of what comes behind one; nearly every
/// head is shorter. And the same of a body in chunks, before what came of it is taken.
const PORTION_BYTES: usize = 1024;

/// Bytes of a body that are read at a time: what was read is taken before more is, or actix-http would keep a buffer for all that it could
/// have read.
const BODY_PORTION_BYTES: usize = 16 * 1024;

/// Most bytes of a head. actix-http would take 128 KiB, and looks at all of it anew with every read. One that opens a session may have
/// less, see `engine_io`.
const MAX_HEAD_BYTES: u64 = 24 * 1024;

/// What whoever sends more is told.
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

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
    /// A request is under way, or its answer.
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
    /// How many bytes the request under way may still be given.
    budget: Rc<Cell<u64>>,
    /// How many bytes may be handed out before the next request: what is left of the last one's body, and a head.
    head_room: Rc<Cell<u64>>,
    /// To be woken when there is more to be had again.
    waker: Rc<RefCell<Option<Waker>>>,
    deadlines: Deadlines,
    counters: Arc<Counters>,
}

impl Shared {
    /// A request is under way, whose body may be given so many bytes.
    fn begin(&self, budget: u64) {
        self.phase.set(Phase::Busy);
        self.give(budget);
    }

    /// It is over. `rest` of its body is yet to come, and goes nowhere.
    fn end(&self, rest: u64) {
        self.phase.set(Phase::Idle);
        self.head_room.set(MAX_HEAD_BYTES.saturating_add(rest));
        self.give(0);
    }

    /// Sets how many bytes the request under way may be given.
    fn give(&self, budget: u64) {
        self.budget.set(budget);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A connection that ends if its client takes too long.
#[derive(Debug)]
pub struct Watched {
    io: TcpStream,
    shared: Shared,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Whether what was read last had the size of a portion, and nothing was made of it yet.
    is_full: bool,
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
                budget: Rc::default(),
                head_room: Rc::new(Cell::new(MAX_HEAD_BYTES)),
                waker: Rc::default(),
                deadlines,
                counters,
            },
            head_timer: None,
            write_timer: None,
            is_full: false,
            _slot: slot,
        }
    }

    /// Lets the middleware find the connection of its request. For `on_connect_ext`.
    pub fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(self.shared.clone());
    }

    /// Returns the bare stream, and its place among those of its address.
    pub fn into_parts(self) -> (TcpStream, Slot) {
        (self.io, self._slot)
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

    /// Reads what may be read now. Returns how many bytes that were.
    fn poll_portion(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let is_busy = self.shared.phase.get() == Phase::Busy;
        let (portion_bytes, limit) = match is_busy {
            true => (BODY_PORTION_BYTES, self.shared.budget.get()),
            false => (PORTION_BYTES, u64::MAX),
        };
        let limit = usize::try_from(limit).map_or(portion_bytes, |limit| limit.min(portion_bytes));
        // Whoever does not take answers need not ask for more.
        if limit == 0 || self.write_timer.is_some() {
            return self.poll_end(cx);
        }
        if std::mem::take(&mut self.is_full) {
            // Now it is looked at, and then comes the next.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let limit = limit.min(buf.remaining());
        let mut portion = ReadBuf::new(buf.initialize_unfilled_to(limit));
        let read = Pin::new(&mut self.io).poll_read(cx, &mut portion);
        let len = portion.filled().len();
        buf.advance(len);
        if is_busy {
            let budget = &self.shared.budget;
            budget.set(budget.get() - len as u64);
        } else {
            let head_room = &self.shared.head_room;
            let Some(left) = head_room.get().checked_sub(len as u64) else {
                // Whoever sends so much may not read it.
                _ = self.io.try_write(HEAD_TOO_LARGE);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            };
            head_room.set(left);
        }
        self.is_full = len == portion_bytes;
        read.map_ok(|()| len)
    }

    /// Finds out whether the client has gone, and leaves what it sends where it is.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut byte = [0];
        let peeked = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        if matches!(peeked, Poll::Ready(Ok(1..))) {
            self.shared.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        peeked
    }

    /// Returns what a write led to, or that it made no progress for too long.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.write_timer.take().is_some() {
                // Now more may be read, too.
                self.shared.wake();
            }
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
pub async fn note<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Answer>, Error> {
    // Until the answer is written, if there is one.
    let under_way = begin(&mut request);
    let answer = next.call(request).await?;
    Ok(answer.map_body(|_, body| Answer {
        body: body.boxed(),
        _under_way: under_way,
    }))
}

/// Notes on the connection of a request, if it is watched, that it is under way.
fn begin(request: &mut ServiceRequest) -> Option<UnderWay> {
    let shared = request.conn_data::<Shared>()?.clone();
    let claimed = claimed_len(request.headers());
    let taken = {
        let shared = shared.clone();
        // Where a body in chunks ends is not known before it does.
        move || {
            if claimed.is_none() {
                shared.give(PORTION_BYTES as u64);
            }
        }
    };
    let Shared {
        deadlines,
        counters,
        ..
    } = &shared;
    let has_body = body_deadline::set(request, deadlines.body, counters, taken);
    // Nobody wants what comes behind the head of a GET: it waits, and is thrown away when the answer is written. Until then nobody sees
    // whether its client has gone.
    let is_wanted = !matches!(*request.method(), Method::GET | Method::HEAD);
    let (budget, unwanted) = match (has_body, is_wanted) {
        (true, true) => (claimed.unwrap_or(PORTION_BYTES as u64), 0),
        (true, false) => (0, claimed.unwrap_or(0)),
        (false, _) => (0, 0),
    };
    shared.begin(budget);
    Some(UnderWay { shared, unwanted })
}

/// Returns how long a body is said to be, if that is said: of one in chunks it is not.
pub(super) fn claimed_len(headers: &HeaderMap) -> Option<u64> {
    let claimed = headers.get(header::CONTENT_LENGTH)?;
    claimed.to_str().ok()?.parse().ok()
}

/// A request that is over when this is dropped.
#[derive(Debug)]
struct UnderWay {
    shared: Shared,
    /// Bytes of a body that was not even read.
    unwanted: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Of a body in chunks that is answered before its end, no more is read than a head may have.
        let rest = self.shared.budget.get().saturating_add(self.unwanted);
        self.shared.end(rest);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: BoxBody,
    _under_way: Option<UnderWay>,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }

    /// Of one in one piece the request is over: it is written in one go.
    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Self { body, _under_way } = self;
        body.try_into_bytes()
            .map_err(|body| Self { body, _under_way })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = this.poll_portion(cx, buf);
        let Shared {
            phase, deadlines, ..
        } = &this.shared;
        if phase.get() == Phase::Idle && matches!(read, Poll::Ready(Ok(1..))) {
            phase.set(Phase::Head(Instant::now() + deadlines.head));
        }
        let read = read.map_ok(drop);
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
