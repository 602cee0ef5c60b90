//! The deadlines of an HTTP connection that actix-http 3.20 does not have. It watches the first head alone: once a connection
//! has been answered, a few bytes of a next head stop its keep-alive timer and start none, and it could be held for ever. Nor
//! does it mind a client that never reads its answer.
//!
//! Nor does it mind how many requests come before the first is answered: it reads all that fits 128 KiB, which may be thousands, and keeps
//! seven kilobytes for each. It reads as much of a body that nobody asked for. Of a head that comes byte by byte it looks at all anew
//! with each. And what comes behind an answer that did not wait for the end of a body in chunks has no deadline at all.
//!
//! The stream notes when bytes come while no request is under way, and when none can be written. It hands out no more than one head, in
//! few portions however it comes, and then of its body what is asked for; what is left of the body when the request is over goes before
//! the next head, to nowhere. The middleware notes when a request is under way, and gives its body to [`body_deadline`], which asks for
//! it. Of heads and bodies it knows where they end, and of routes nothing.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_web::{
    Error,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Extensions, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap},
    middleware::Next,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::{body_deadline, body_end::BodyEnd, head_end::HeadEnd, held_head::HeldHead};
use crate::{
    counters::{Counters, Limit},
    slots::Slot,
};

/// How actix-http's answer to a first head begins that took too long.
const LATE: &[u8] = b"HTTP/1.1 408 ";

/// Bytes that are read at a time while no request is under way, and so the most that is kept of what comes behind a head; nearly every
/// head is shorter. And the most that is handed out of a body in chunks at a time, of which actix-http keeps each by itself; what frames
/// one, extensions and trailers, is to fit that.
const PORTION_BYTES: usize = 1024;

/// Bytes that are handed out at a time of a body whose length is known: what was is taken before more is, or actix-http would keep a buffer
/// for all that it could have read.
const BODY_PORTION_BYTES: usize = 16 * 1024;

/// Most bytes of a head. actix-http would take 128 KiB, and looks at all of it anew whenever more is handed out. One that opens a session may have
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
    /// Within a head that must be whole by then, or within what is left of a body in chunks, which must be over.
    Head(Instant),
}

/// What the stream and the middleware of one connection share.
#[derive(Clone, Debug)]
struct Shared {
    phase: Rc<Cell<Phase>>,
    /// How many bytes of its body the request under way may still be given, until it asks for more.
    budget: Rc<Cell<u64>>,
    /// What is yet to be handed out of the body of the last request.
    body: Rc<Cell<BodyEnd>>,
    /// How many bytes the next head may still have.
    head_room: Rc<Cell<u64>>,
    /// To be woken when there is more to be had again.
    waker: Rc<RefCell<Option<Waker>>>,
    deadlines: Deadlines,
    counters: Arc<Counters>,
}

impl Shared {
    /// A request with such a body is under way.
    fn begin(&self, body: BodyEnd) {
        self.phase.set(Phase::Busy);
        self.body.set(body);
    }

    /// Whoever reads the body waits for more of it.
    fn ask(&self) {
        let portion_bytes = match self.body.get() {
            BodyEnd::After(_) => BODY_PORTION_BYTES,
            BodyEnd::InChunks(_) => PORTION_BYTES,
        };
        // If it is another wait that holds the bytes up, asking again would wake the connection for nothing, over and over.
        if self.budget.replace(portion_bytes as u64) == 0 {
            self.wake();
        }
    }

    /// The request is over. What is yet to come of its body goes nowhere.
    fn end(&self) {
        self.phase.set(match self.body.get() {
            // As long as it may come to its end, actix-http holds the connection and minds no time; of any other body it does.
            BodyEnd::InChunks(_) => Phase::Head(Instant::now() + self.deadlines.head),
            BodyEnd::After(_) => Phase::Idle,
        });
        self.head_room.set(MAX_HEAD_BYTES);
        self.budget.set(0);
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
    /// Whether what was handed out last is to be looked at before there is more: a head, or all of a portion.
    is_enough: bool,
    /// Where in a head what was handed out last ends.
    head_end: HeadEnd,
    /// What of a head is not handed out yet, so that it is not looked at anew with every byte.
    held: HeldHead,
    /// What was read behind a head and is still to be handed out.
    rest: Vec<u8>,
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
                body: Rc::new(Cell::new(BodyEnd::OVER)),
                head_room: Rc::new(Cell::new(MAX_HEAD_BYTES)),
                waker: Rc::default(),
                deadlines,
                counters,
            },
            head_timer: None,
            write_timer: None,
            is_enough: false,
            head_end: HeadEnd::default(),
            held: HeldHead::default(),
            rest: Vec::new(),
            _slot: slot,
        }
    }

    /// Lets the middleware find the connection of its request. For `on_connect_ext`.
    pub fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(self.shared.clone());
    }

    /// Returns the bare stream, what was read of it and not handed out, and its place among those of its address.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>, Slot) {
        let mut behind = self.held.into_bytes();
        behind.extend(self.rest);
        (self.io, behind, self._slot)
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
        let limit = match is_busy {
            true => (self.shared.budget.get()).min(self.shared.body.get().at_most()),
            false => PORTION_BYTES as u64,
        };
        // Whoever does not take answers need not ask for more.
        if limit == 0 || self.write_timer.is_some() {
            return self.poll_end(cx);
        }
        if std::mem::take(&mut self.is_enough) {
            // Now it is looked at, and then comes the next, if it is there.
            if !self.rest.is_empty() || self.io.poll_read_ready(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let limit =
            usize::try_from(limit).map_or(buf.remaining(), |limit| limit.min(buf.remaining()));
        loop {
            if is_busy || self.shared.body.get() != BodyEnd::OVER {
                // What comes next is no part of a head, and whatever is held comes before it.
                self.held.release();
            }
            if self.held.is_due() {
                let len = self.held.hand_out(buf);
                self.is_enough = !is_busy && !self.held.is_due();
                return Poll::Ready(Ok(len));
            }
            let mut portion = ReadBuf::new(buf.initialize_unfilled_to(limit));
            ready!(self.poll_next(cx, &mut portion))?;
            let filled = portion.filled();
            if filled.is_empty() && self.held.release() {
                continue;
            }
            let mut body = self.shared.body.get();
            let body_len = body.pass(filled);
            self.shared.body.set(body);
            if is_busy {
                self.put_back(filled, body_len);
                let budget = &self.shared.budget;
                budget.set(budget.get() - body_len as u64);
                buf.advance(body_len);
                return Poll::Ready(Ok(body_len));
            }
            let head = filled.get(body_len..).unwrap_or_default();
            let end = self.head_end.find(head);
            let head = head.get(..end.unwrap_or(head.len())).unwrap_or_default();
            let len = body_len + head.len();
            self.put_back(filled, len);
            self.note_next(body_len, head.len())?;
            // Of one that begins behind a body, nothing is.
            if self.held.keep(head, end.is_some()) {
                continue;
            }
            // Of a body there is no more before it is asked for.
            self.is_enough = end.is_some() || filled.len() == PORTION_BYTES;
            buf.advance(len);
            return Poll::Ready(Ok(len));
        }
    }

    /// Keeps what was read behind so many bytes for later.
    fn put_back(&mut self, read: &[u8], len: usize) {
        let behind = read.get(len..).unwrap_or_default();
        self.rest.splice(..0, behind.iter().copied());
    }

    /// Reads what comes next, or takes it from what was read before.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        portion: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, portion);
        }
        let len = portion.remaining().min(self.rest.len());
        portion.put_slice(self.rest.get(..len).unwrap_or_default());
        self.rest.drain(..len);
        if self.rest.is_empty() {
            // It keeps no memory beyond that.
            self.rest = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Notes what was read behind a request: so many bytes that were left of its body, and then so many of the next head.
    ///
    /// # Errors
    /// The head is too large.
    fn note_next(&self, body_len: usize, head_len: usize) -> io::Result<()> {
        let Shared {
            phase,
            body,
            head_room,
            deadlines,
            ..
        } = &self.shared;
        if body_len > 0 && body.get() == BodyEnd::OVER {
            phase.set(Phase::Idle);
        }
        if head_len > 0 && phase.get() == Phase::Idle {
            phase.set(Phase::Head(Instant::now() + deadlines.head));
        }
        let Some(left) = head_room.get().checked_sub(head_len as u64) else {
            // Whoever sends so much may not read it.
            _ = self.io.try_write(HEAD_TOO_LARGE);
            return Err(io::ErrorKind::InvalidData.into());
        };
        head_room.set(left);
        Ok(())
    }

    /// Finds out whether the client has gone, and leaves what it sends where it is: behind that its going is not seen.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.held.is_due() || !self.rest.is_empty() {
            self.shared.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let mut byte = [0];
        let peeked = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        if matches!(peeked, Poll::Ready(Ok(1..))) {
            self.shared.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        peeked
    }

    /// Returns whether a head has taken too long, or else looks again when it has.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Head(deadline) = self.shared.phase.get() else {
            self.head_timer = None;
            return Poll::Pending;
        };
        let timer = match &mut self.head_timer {
            Some(timer) if timer.deadline() == deadline => timer,
            other => other.insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        timer.as_mut().poll(cx)
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
    let ask = {
        let shared = shared.clone();
        move || shared.ask()
    };
    let has_body = body_deadline::set(request, shared.deadlines.body, &shared.counters, ask);
    shared.begin(match has_body {
        true => BodyEnd::begin(claimed),
        false => BodyEnd::OVER,
    });
    Some(UnderWay(shared))
}

/// Returns how long a body is said to be, if that is said: of one in chunks it is not.
pub(super) fn claimed_len(headers: &HeaderMap) -> Option<u64> {
    let claimed = headers.get(header::CONTENT_LENGTH)?;
    claimed.to_str().ok()?.parse().ok()
}

/// A request that is over when this is dropped.
#[derive(Debug)]
struct UnderWay(Shared);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end();
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
        if this.poll_head_timer(cx).is_ready() {
            this.shared.counters.count(Limit::HeadTimeout);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read.map_ok(drop)
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

    /// Comes behind all that is written of an answer, so here it is seen that a deadline has begun with its end; that it is over is seen
    /// when it is read next.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        _ = self.poll_head_timer(cx);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::websocket::testing::connected;

    fn watched(io: TcpStream) -> Watched {
        let minute = Duration::from_secs(60);
        let deadlines = Deadlines {
            head: minute,
            body: minute,
            write: minute,
        };
        Watched::new(io, deadlines, Arc::default(), Slot::default())
    }

    async fn read(watched: &mut Watched) -> String {
        let mut bytes = vec![0; 4096];
        let len = watched.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// Returns whether nothing is handed out now.
    async fn is_held(watched: &mut Watched) -> bool {
        let mut byte = [0];
        std::future::poll_fn(|cx| {
            let read = Pin::new(&mut *watched).poll_read(cx, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_pending())
        })
        .await
    }

    /// A bug: all heads of a portion were, of which there may be 57, with seven kilobytes for each.
    #[actix_rt::test]
    async fn one_head_is_handed_out_at_a_time_and_then_what_is_its_bodys() {
        let (io, mut client) = connected();
        let mut watched = watched(io);
        let [one, two] = ["GET /1 HTTP/1.1\r\n\r\n", "POST /2 HTTP/1.1\n\n"];
        let all = [one, two, "body", one, "GET"].concat();
        client.write_all(all.as_bytes()).unwrap();
        assert_eq!(read(&mut watched).await, one);
        assert_eq!(read(&mut watched).await, two);
        let shared = watched.shared.clone();
        shared.begin(BodyEnd::begin(Some(4)));
        // A bug: of a body that nobody read, actix-http kept what it could have.
        assert!(is_held(&mut watched).await, "nobody asked for it");
        shared.ask();
        assert_eq!(read(&mut watched).await, "body");
        shared.ask();
        assert!(is_held(&mut watched).await, "no more is the request's");
        shared.end();
        assert_eq!(read(&mut watched).await, one);
        assert_eq!(read(&mut watched).await, "GET");
        assert_eq!(watched.into_parts().1, [0; 0]);
    }

    /// A bug: what stood behind a body in chunks was handed out with it.
    #[actix_rt::test]
    async fn a_body_in_chunks_is_handed_out_to_its_end() {
        let (io, mut client) = connected();
        let mut watched = watched(io);
        let head = "POST / HTTP/1.1\r\n\r\n";
        let body = "2;x\r\n\r\n\r\n0\r\n\r\n";
        client
            .write_all([head, body, head, "2"].concat().as_bytes())
            .unwrap();
        assert_eq!(read(&mut watched).await, head);
        let shared = watched.shared.clone();
        shared.begin(BodyEnd::begin(None));
        assert!(is_held(&mut watched).await, "nobody asked for it");
        shared.ask();
        assert_eq!(read(&mut watched).await, body);
        shared.ask();
        assert!(is_held(&mut watched).await, "no more is the request's");
        shared.end();
        assert_eq!(shared.phase.get(), Phase::Idle);
        assert_eq!(read(&mut watched).await, head);
        // Nobody reads this one. Its end may be waited for, and is no part of the next head.
        shared.begin(BodyEnd::begin(None));
        shared.end();
        assert!(matches!(shared.phase.get(), Phase::Head(_)));
        assert_eq!(read(&mut watched).await, "2");
        client
            .write_all(["\r\n\n\n\r\n0\r\n\r\n", head].concat().as_bytes())
            .unwrap();
        let left = ["\r\n\n\n\r\n0\r\n\r\n", head].concat();
        assert_eq!(read(&mut watched).await, left);
    }

    /// A bug: each byte was, and actix-http looked at all of the head anew for it.
    #[actix_rt::test]
    async fn a_head_that_trickles_is_handed_out_in_few_portions() {
        let (io, mut client) = connected();
        let mut watched = watched(io);
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1000));
        for num_heads in 1..=2 {
            let (mut got, mut num_portions) = (Vec::new(), 0);
            for (byte, left) in head.bytes().zip((0..MAX_HEAD_BYTES).rev()) {
                client.write_all(&[byte]).unwrap();
                let mut bytes = [0; 4096];
                std::future::poll_fn(|cx| {
                    let mut buf = ReadBuf::new(&mut bytes);
                    if let Poll::Ready(read) = Pin::new(&mut watched).poll_read(cx, &mut buf) {
                        read.unwrap();
                        num_portions += 1;
                        got.extend_from_slice(buf.filled());
                    }
                    match watched.shared.head_room.get() == left {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
            }
            assert_eq!(String::from_utf8(got).unwrap(), head, "{num_heads}");
            assert!(num_portions <= 12, "{num_portions} portions");
            watched.shared.begin(BodyEnd::OVER);
            watched.shared.end();
        }
    }

    #[actix_rt::test]
    async fn of_a_head_that_breaks_off_all_is_handed_out_before_the_end() {
        let (io, mut client) = connected();
        let mut watched = watched(io);
        let parts = ["GET / HTTP", "/", "1.1"];
        client.write_all(parts[0].as_bytes()).unwrap();
        assert_eq!(read(&mut watched).await, parts[0]);
        for part in &parts[1..] {
            client.write_all(part.as_bytes()).unwrap();
            let left = watched.shared.head_room.get() - part.len() as u64;
            std::future::poll_fn(|cx| {
                let read = Pin::new(&mut watched).poll_read(cx, &mut ReadBuf::new(&mut [0; 10]));
                assert!(read.is_pending(), "{part} is handed out");
                match watched.shared.head_room.get() == left {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
        drop(client);
        assert_eq!(read(&mut watched).await, parts[1..].concat());
        assert_eq!(read(&mut watched).await, "");
    }

    #[actix_rt::test]
    async fn asking_again_wakes_nobody() {
        let watched = watched(connected().0);
        let shared = watched.shared.clone();
        shared.begin(BodyEnd::begin(Some(4)));
        for is_left in [false, true] {
            shared.waker.replace(Some(Waker::noop().clone()));
            shared.ask();
            assert_eq!(shared.waker.borrow().is_some(), is_left);
        }
    }

    /// A bug: a body in chunks that was answered early was taken for a head that is too large.
    #[actix_rt::test]
    async fn what_is_left_of_a_body_is_no_part_of_the_next_head() {
        let large = MAX_HEAD_BYTES as usize + 1;
        let chunk = format!("{large:x}\r\n{}\r\n", "x".repeat(large));
        let cases = [
            (BodyEnd::begin(Some(large as u64)), "x".repeat(large)),
            (BodyEnd::begin(None), chunk + "0\r\n\r\n"),
        ];
        for (body, mut left) in cases {
            let (io, mut client) = connected();
            let mut watched = watched(io);
            let shared = watched.shared.clone();
            shared.begin(body);
            shared.end();
            let writing = {
                let left = left.clone();
                std::thread::spawn(move || client.write_all(left.as_bytes()).map(|()| client))
            };
            while !left.is_empty() {
                let part = read(&mut watched).await;
                left = left.strip_prefix(&part).unwrap().to_owned();
            }
            assert_eq!(shared.phase.get(), Phase::Idle);
            // But that may have no more than it may.
            let mut client = writing.join().unwrap().unwrap();
            client.write_all("x".repeat(large).as_bytes()).unwrap();
            let mut bytes = vec![0; 4096];
            let err = loop {
                if let Err(err) = watched.read(&mut bytes).await {
                    break err;
                }
            };
            assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        }
    }
}
