//! A stream that is read only as far ahead as its consumer allows.
//!
//! The Redis client's own task reads a subscriber's socket into a queue without a bound. This gate stands between that
//! task and the socket: it lets [`READ_AHEAD`] bytes through, then none until the consumer, having emptied the queue,
//! opens it again. So a slow hub fills the socket's buffers, then Redis' own output buffer, instead of our memory.
//!
//! Knows nothing of Redis: bytes only.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

/// Bytes that may be read before the consumer asks for more.
pub(super) const READ_AHEAD: usize = 256 << 10;

/// The consumer's side of the gate.
#[derive(Debug, Default)]
pub(super) struct Gate {
    allowance: AtomicUsize,
    num_read: AtomicU64,
    /// Whoever reads the stream, waiting for the gate to open.
    reader: AtomicWaker,
    /// The consumer, waiting for the gate to close.
    consumer: AtomicWaker,
}

impl Gate {
    /// Returns `stream` behind a gate, and the gate, which is open.
    pub(super) fn new<S>(stream: S) -> (Gated<S>, Arc<Self>) {
        let gate = Arc::new(Self {
            allowance: AtomicUsize::new(READ_AHEAD),
            ..Self::default()
        });
        (
            Gated {
                stream,
                gate: gate.clone(),
            },
            gate,
        )
    }

    /// Lets another [`READ_AHEAD`] bytes through.
    pub(super) fn open(&self) {
        self.allowance.store(READ_AHEAD, SeqCst);
        self.reader.wake();
    }

    /// Waits until as much as was allowed has been read. For one consumer.
    pub(super) async fn closed(&self) {
        poll_fn(|cx| {
            // A task that has worked long enough is told "nothing there" by tokio's queues, whatever is there: it must
            // not open the gate for that. Such a task is woken at once.
            if !coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.consumer.register(cx.waker());
            match self.allowance.load(SeqCst) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// Returns how many bytes have been read.
    pub(super) fn num_read(&self) -> u64 {
        self.num_read.load(SeqCst)
    }
}

/// The reader's side.
#[derive(Debug)]
pub(super) struct Gated<S> {
    stream: S,
    gate: Arc<Gate>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.gate.reader.register(cx.waker());
        let allowance = this.gate.allowance.load(SeqCst);
        if allowance == 0 {
            return Poll::Pending;
        }
        // The last read may go over the allowance by what the reader's buffer holds: a few KiB, or one long message.
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let len = buf.filled().len() - before;
        if len > 0 {
            this.gate.num_read.fetch_add(len as u64, SeqCst);
            let left = allowance.saturating_sub(len);
            this.gate.allowance.store(left, SeqCst);
            if left == 0 {
                this.gate.consumer.wake();
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// A gate that does not do its work must fail the test, not hold it up.
    async fn soon<T>(event: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), event)
            .await
            .expect("it happens")
    }

    #[tokio::test]
    async fn nobody_reads_through_a_closed_gate_until_it_is_opened() {
        let (mut stream, gate) = Gate::new(tokio::io::repeat(7));
        let mut buf = vec![0; READ_AHEAD];
        stream.read_exact(&mut buf).await.unwrap();
        assert_eq!(gate.num_read(), READ_AHEAD as u64);
        soon(gate.closed()).await;

        let read_on = async {
            stream.read_exact(&mut buf[..10]).await.unwrap();
            "read"
        };
        let open = async {
            // Polled second: by now the reader is waiting.
            assert_eq!(
                gate.num_read(),
                READ_AHEAD as u64,
                "the closed gate let bytes through"
            );
            gate.open();
        };
        let (done, ()) = soon(async { tokio::join!(biased; read_on, open) }).await;
        assert_eq!(done, "read");
    }

    #[tokio::test]
    async fn the_consumer_is_woken_when_the_gate_closes() {
        let (mut stream, gate) = Gate::new(tokio::io::repeat(7));
        let mut buf = vec![0; READ_AHEAD];
        let both = async { tokio::join!(biased; gate.closed(), stream.read_exact(&mut buf)) };
        let (closed, read) = soon(both).await;
        assert_eq!((closed, read.unwrap()), ((), READ_AHEAD));
    }
}
