//! A WebSocket on its raw stream: the one file that reads one, and writes to it unless `many_writes` does.
//!
//! The stream comes from actix-http's upgrade hook, so nothing of the HTTP dispatcher and none of its buffers outlives
//! the handshake. Reading goes through one scratch buffer per thread and an idle connection keeps no buffer at all;
//! writing hands the outbox's shared frames to the kernel, many in one call.
//!
//! Does not know what a message means, and closes nothing by itself.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io::{self, IoSlice, Write as _},
    net::Shutdown,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
};

use super::{
    close::CloseFrame,
    decoder::{Decoder, Incoming, ProtocolError},
};
use crate::{slots::Slot, socket::outbox::Outbox};

/// Most bytes that one read takes, and with them the most that can wait undecoded.
const PORTION_BYTES: usize = 64 * 1024;

/// Most slices in one vectored write; the kernel's limit is 1024.
const MAX_SLICES: usize = 64;

/// Bytes of several messages that are put side by side before they are written: for so many that is cheaper than to have the kernel
/// fetch each from its own place.
const MAX_GATHERED: usize = 16 * 1024;

/// How long the client of a connection that we ended may take to read why and end the stream.
const LINGER: Duration = Duration::from_secs(2);

/// Connections of whoever was refused that may linger at a time: any stranger's. No limit of sessions or HTTP connections counts them all,
/// and each is an open file.
static REFUSED: Semaphore = Semaphore::const_new(256);

/// The same of WebSockets that had a session. Those who are refused, however many, must not take from them the time for what they have
/// yet to read.
static ENDED: Semaphore = Semaphore::const_new(1024);

thread_local! {
    /// Where what is read arrives, and what is written is put side by side. It is nobody's between two calls.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PORTION_BYTES].into_boxed_slice());
}

/// A place among the connections that linger, or none if there are too many of its kind.
#[derive(Debug)]
pub struct Linger(Option<SemaphorePermit<'static>>);

impl Linger {
    /// Takes a place for one that was refused, if there is one.
    pub fn refused() -> Self {
        Self(REFUSED.try_acquire().ok())
    }

    /// Takes a place for one that had a session, if there is one.
    fn ended() -> Self {
        Self(ENDED.try_acquire().ok())
    }

    /// Returns how long the connection may stay open. Without a place that is no time at all: what can be done at once is done.
    pub fn limit(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |_| LINGER)
    }
}

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer ended the stream, without a close frame.
    #[error("stream ended")]
    Ended,
    /// The stream broke.
    #[error("stream broke")]
    Io(#[source] io::Error),
    /// The peer broke the protocol.
    #[error("protocol breach")]
    Protocol(#[source] ProtocolError),
}

/// Writes whole frames before which nothing waits. Returns how many bytes the kernel took; why not all, [`Connection::poll_flush`] finds
/// out.
///
/// The reactor is not asked first whether the stream is writable: it nearly always is. A peer that is gone is an error, and no signal, as
/// in every Rust program.
pub fn write_now(stream: &TcpStream, frames: &[u8]) -> usize {
    SockRef::from(stream).send(frames).unwrap_or(0)
}

/// A raw stream on its way from the worker that accepted it to the arbiter of its session.
#[derive(Debug)]
pub struct Handover {
    stream: std::net::TcpStream,
    unread: Bytes,
}

/// One WebSocket.
#[derive(Debug)]
pub struct Connection {
    io: Rc<TcpStream>,
    decoder: Decoder,
    unread: BytesMut,
}

impl Connection {
    /// Takes over a stream after its handshake. `unread` is what the client sent behind it.
    pub fn new(io: TcpStream, unread: BytesMut, max_payload: usize) -> Self {
        // Even an empty one may hold the eight kilobytes that the HTTP dispatcher reserved.
        let unread = if unread.is_empty() {
            BytesMut::new()
        } else {
            unread
        };
        Self {
            io: Rc::new(io),
            decoder: Decoder::new(max_payload),
            unread,
        }
    }

    /// Detaches the stream from this thread's reactor. Only before anything was received.
    ///
    /// # Errors
    /// The reactor would not let go of it.
    pub fn hand_over(self) -> io::Result<Handover> {
        let io = Rc::into_inner(self.io).ok_or(io::ErrorKind::ResourceBusy)?;
        Ok(Handover {
            stream: io.into_std()?,
            unread: self.unread.freeze(),
        })
    }

    /// Attaches a stream to this thread's reactor.
    ///
    /// # Errors
    /// The reactor would not take it.
    pub fn take_over(handover: Handover, max_payload: usize) -> io::Result<Self> {
        let io = TcpStream::from_std(handover.stream)?;
        Ok(Self::new(io, BytesMut::from(handover.unread), max_payload))
    }

    /// Returns the stream, for [`write_now`] while nothing waits to be written.
    pub fn stream(&self) -> &Rc<TcpStream> {
        &self.io
    }

    /// Returns how many bytes are held that are no whole message yet.
    pub fn unfinished_bytes(&self) -> usize {
        self.unread.len() + self.decoder.unfinished_bytes()
    }

    /// Returns whether more may be read, if a message that is not whole may hold so many bytes. What was read before is there anyway, and
    /// of a stream that has ended no more comes than the system holds already.
    pub fn may_receive(&self, room: usize) -> bool {
        !self.unread.is_empty() || self.decoder.unfinished_bytes() <= room || self.has_ended()
    }

    /// Returns whether the peer has ended the stream, behind what was not received yet.
    fn has_ended(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(self.io.ready(Interest::READABLE)).poll(&mut cx) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Receives one portion, of at most `limit` bytes, and appends its messages to `messages`, which may be none.
    ///
    /// # Errors
    /// Nothing more can be received; `messages` holds what came before.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut VecDeque<Incoming>,
        limit: usize,
    ) -> Poll<Result<(), ReceiveError>> {
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            return Poll::Ready(self.decode(&mut unread, messages));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch
                .get_mut(..limit.min(PORTION_BYTES))
                .unwrap_or_default();
            loop {
                ready!(self.io.poll_read_ready(cx)).map_err(ReceiveError::Io)?;
                match self.io.try_read(scratch) {
                    Ok(0) => return Poll::Ready(Err(ReceiveError::Ended)),
                    Ok(len) => {
                        let portion = scratch.get_mut(..len).unwrap_or_default();
                        return Poll::Ready(self.decode(portion, messages));
                    }
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    Err(err) => return Poll::Ready(Err(ReceiveError::Io(err))),
                }
            }
        })
    }

    fn decode(
        &mut self,
        mut portion: &mut [u8],
        messages: &mut VecDeque<Incoming>,
    ) -> Result<(), ReceiveError> {
        while let Some(message) = self
            .decoder
            .decode(&mut portion)
            .map_err(ReceiveError::Protocol)?
        {
            messages.push_back(message);
        }
        Ok(())
    }

    /// Writes until the outbox is empty or the kernel takes no more.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
    ) -> Poll<io::Result<()>> {
        while !outbox.is_empty() {
            let written = match outbox.lone() {
                // The kernel does less for a plain `send`, and so do we.
                Some(bytes) => self.io.try_write(bytes),
                None => self.write_several(outbox),
            };
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(len) => outbox.written(len),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.io.poll_write_ready(cx))?;
                }
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_several(&self, outbox: &Outbox) -> io::Result<usize> {
        // Of a client that reads nothing it is known already that the kernel takes no more: then nothing need be gathered.
        self.io.try_io(Interest::WRITABLE, || Ok(()))?;
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let slices = outbox.fill_slices(&mut slices);
        if slices.iter().map(|slice| slice.len()).sum::<usize>() > MAX_GATHERED {
            return self.io.try_write_vectored(slices);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut place = &mut scratch[..];
            for slice in slices {
                place.write_all(slice)?;
            }
            let len = PORTION_BYTES - place.len();
            self.io.try_write(scratch.get(..len).unwrap_or_default())
        })
    }

    /// Sends what waits and a close frame, then gives the peer some time to end the stream, unless too many linger already: for one that
    /// had a session.
    ///
    /// What fits the kernel's buffer is written before this returns; a task of its own sees to the rest.
    pub fn farewell(self, outbox: Outbox, frame: &CloseFrame) {
        self.end(outbox, frame, Linger::ended, Slot::default());
    }

    /// Does the same as [`Self::farewell`] for one that is of no use. What it counts as is kept until then.
    pub fn turn_away(self, outbox: Outbox, frame: &CloseFrame, slot: Slot) {
        self.end(outbox, frame, Linger::refused, slot);
    }

    fn end(mut self, mut outbox: Outbox, frame: &CloseFrame, linger: fn() -> Linger, slot: Slot) {
        // Overflow or not: this is the last item.
        _ = outbox.push_raw(frame.encode());
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = self.poll_flush(&mut cx, &mut outbox) {
            return;
        }
        actix_rt::spawn(async move {
            let goodbye = async {
                if poll_fn(|cx| self.poll_flush(cx, &mut outbox)).await.is_ok()
                    && SockRef::from(&*self.io).shutdown(Shutdown::Write).is_ok()
                {
                    poll_fn(|cx| self.poll_discard(cx)).await;
                }
            };
            let linger = linger();
            // Whether it ended or not, the stream is dropped now.
            _ = tokio::time::timeout(linger.limit(), goodbye).await;
            drop((linger, slot));
        });
    }

    /// Reads and discards until the peer ends the stream.
    ///
    /// Closing a socket with unread input would reset it, and the peer might never read our close frame.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                if ready!(self.io.poll_read_ready(cx)).is_err() {
                    return Poll::Ready(());
                }
                match self.io.try_read(scratch) {
                    Ok(0) => return Poll::Ready(()),
                    Ok(_) => {}
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Poll::Ready(()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::{engine_io::encoded::Encoded, websocket::testing::connected};

    /// A bug: strangers who were refused took the places of clients whose sessions had ended.
    #[test]
    fn so_many_linger_and_who_is_refused_takes_no_place_of_who_had_a_session() {
        let kinds: [(fn() -> Linger, usize); 2] = [(Linger::refused, 256), (Linger::ended, 1024)];
        let mut all = Vec::new();
        for (begin, num) in kinds {
            let places = std::iter::repeat_with(begin).take_while(|place| !place.limit().is_zero());
            let mut places: Vec<_> = places.collect();
            assert_eq!(places.len(), num);
            assert_eq!(begin().limit(), Duration::ZERO);
            places.pop();
            let again = begin();
            assert_eq!(again.limit(), LINGER);
            assert_eq!(begin().limit(), Duration::ZERO);
            all.push((places, again));
        }
    }

    #[actix::test]
    async fn several_messages_arrive_whole_and_in_order_however_they_are_written() {
        let (stream, mut client) = connected();
        let mut connection = Connection::new(stream, BytesMut::new(), 1000);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        let mut expected = Vec::new();
        for (num, len) in [
            (1, 10),
            (2, 10),
            (3, MAX_GATHERED / 2),
            (MAX_SLICES + 1, 100),
            (MAX_SLICES, MAX_GATHERED / MAX_SLICES - 4),
            (MAX_SLICES, MAX_GATHERED / MAX_SLICES - 3),
            (2, 3_000_000),
            (5, PORTION_BYTES),
        ] {
            let mut outbox = Outbox::new(usize::MAX);
            for number in 0..num {
                let text = char::from(b'a' + number as u8 % 26).to_string().repeat(len);
                let message = Encoded::new(&text, &[]);
                expected.extend_from_slice(message.frames());
                outbox.push(message).unwrap();
            }
            poll_fn(|cx| connection.poll_flush(cx, &mut outbox))
                .await
                .unwrap();
            assert!(outbox.is_empty());
        }
        drop(connection);
        assert!(reader.join().unwrap() == expected);
    }
}
