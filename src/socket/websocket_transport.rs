//! The WebSocket transport of one session, and the WebSocket that probes to become it.
//!
//! Turns WebSocket messages into Engine.IO packets; what they mean is the actor's.
//!
//! Source: wire.md 1.3, 1.5, 1.6, 1.10.

use std::{
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{disconnect::CloseReason, outbox::Outbox};
use crate::{
    engine_io::{
        dialect::{Dialect, Revision},
        encoded,
        packet::{Message, PROBE, Packet, PacketError},
    },
    shrink::shrink,
    slots::Slot,
    websocket::{
        close::CloseFrame,
        connection::{Connection, ReceiveError},
        decoder::Incoming,
        frame::{self, Opcode},
    },
};

/// Bytes that may wait for a probing WebSocket: its 101 and some answers to probes.
const MAX_PROBE_BACKLOG_BYTES: usize = 4096;

/// Bytes of a message of a probing WebSocket that may be held before it is whole: it may only probe, or say that it is ready.
const MAX_PROBE_MESSAGE_BYTES: usize = 1024;

/// How often a parked GET is released while a WebSocket probes.
pub(super) const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// What a WebSocket brought forth.
#[derive(Debug)]
pub(super) enum FromWebSocket {
    /// An Engine.IO packet.
    Packet(Packet),
    /// A ping of the WebSocket layer, whose pong is to be queued.
    Pong(Bytes),
    /// A pong of that layer: nothing follows from it, but it counts as something, for there may be ten thousand in what was read at once.
    Nothing,
    /// The end.
    End(CloseReason),
    /// Nothing: of a message that is not whole, more is held than there is room for.
    HeldUp,
}

/// One WebSocket and what it has received but not yet handled.
#[derive(Debug)]
pub(super) struct WebSocketTransport {
    connection: Connection,
    revision: Revision,
    incoming: VecDeque<Incoming>,
    /// What those take.
    incoming_bytes: usize,
    failure: Option<ReceiveError>,
}

impl WebSocketTransport {
    pub(super) fn new(connection: Connection, revision: Revision) -> Self {
        Self {
            connection,
            revision,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            failure: None,
        }
    }

    /// Returns what came next; for that at most `room` bytes are read at a time, and not many more in all. There must be some.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<FromWebSocket> {
        loop {
            if let Some(message) = self.incoming.pop_front() {
                self.incoming_bytes -= message.held_bytes();
                shrink(&mut self.incoming);
                return Poll::Ready(match message {
                    Incoming::Text(text) => packet(match self.revision {
                        Revision::V4 => Packet::decode(&text),
                        Revision::V3 => Packet::decode_v3(&text),
                    }),
                    Incoming::Binary(bytes) => packet(match self.revision {
                        Revision::V4 => Ok(Packet::Message(Message::Binary(bytes))),
                        Revision::V3 => Packet::decode_v3_binary(bytes),
                    }),
                    Incoming::Ping(payload) => {
                        let len = frame::MAX_SERVER_HEADER_BYTES + payload.len();
                        let mut pong = BytesMut::with_capacity(len);
                        frame::put_header(&mut pong, Opcode::Pong, payload.len());
                        pong.extend_from_slice(&payload);
                        FromWebSocket::Pong(pong.freeze())
                    }
                    Incoming::Pong => FromWebSocket::Nothing,
                    Incoming::Close => FromWebSocket::End(CloseReason::PeerClosed),
                });
            }
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(FromWebSocket::End(match failure {
                    ReceiveError::Ended => CloseReason::PeerClosed,
                    ReceiveError::Io(_) => CloseReason::Aborted,
                    ReceiveError::Protocol(error) => CloseReason::WebSocket(error),
                }));
            }
            if !self.connection.may_receive(room) {
                return Poll::Ready(FromWebSocket::HeldUp);
            }
            match self.connection.poll_receive(cx, &mut self.incoming, room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => self.failure = Some(failure),
            }
            // There were none before.
            self.incoming_bytes = self.incoming.iter().map(Incoming::held_bytes).sum();
        }
    }

    /// Returns how many bytes are held of a message that is not whole yet.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.connection.unfinished_bytes()
    }

    /// Returns how many bytes whole messages take that [`Self::poll_next`] did not return yet, and the places that earlier ones left.
    pub(super) fn unseen_bytes(&self) -> usize {
        let num_free = match self.incoming.len() {
            0 => 0,
            len => self.incoming.capacity() - len,
        };
        self.incoming_bytes + num_free * size_of::<Incoming>()
    }

    /// Writes what it can. Returns whether the stream still stands.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> bool {
        !matches!(self.connection.poll_flush(cx, outbox), Poll::Ready(Err(_)))
    }

    /// Returns the stream; see [`Connection::stream`].
    pub(super) fn stream(&self) -> &Rc<TcpStream> {
        self.connection.stream()
    }

    /// Says goodbye and lets go; see [`Connection::farewell`].
    pub(super) fn farewell(self, outbox: Outbox, frame: &CloseFrame) {
        // What it counted as was its session's.
        self.connection.farewell(outbox, frame, Slot::default());
    }
}

fn packet(decoded: Result<Packet, PacketError>) -> FromWebSocket {
    decoded.map_or_else(
        |_| FromWebSocket::End(CloseReason::BadPacket),
        FromWebSocket::Packet,
    )
}

/// A WebSocket that has not yet become the transport of a session, here or of another instance.
#[derive(Debug)]
pub(crate) struct Probe {
    transport: WebSocketTransport,
    outbox: Outbox,
    /// When it must have sent its `5`.
    pub(super) deadline: Instant,
    /// When a parked GET is released next; `None` before the probe was answered.
    pub(super) noop_at: Option<Instant>,
}

/// What a probing WebSocket wants.
#[derive(Debug)]
pub(crate) enum ProbeEvent {
    /// Its probe is to be answered.
    Probed,
    /// It has sent its `5`.
    Finished,
    /// To end, with such a frame.
    Over(CloseFrame),
}

impl Probe {
    /// Begins with the 101, which is not written yet.
    pub(crate) fn new(
        connection: Connection,
        dialect: Dialect,
        answer: Bytes,
        deadline: Instant,
    ) -> Self {
        Self {
            transport: WebSocketTransport::new(connection, dialect.revision),
            outbox: Outbox::with_answer(MAX_PROBE_BACKLOG_BYTES, answer).in_dialect(dialect),
            deadline,
            noop_at: None,
        }
    }

    /// Returns how it speaks.
    pub(super) fn dialect(&self) -> Dialect {
        self.outbox.dialect()
    }

    /// Writes what it can, and returns what the WebSocket wants next.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ProbeEvent> {
        loop {
            if !self.transport.flush(cx, &mut self.outbox) {
                return Poll::Ready(ProbeEvent::Over(CloseFrame::BARE));
            }
            return match self.transport.poll_next(cx, MAX_PROBE_MESSAGE_BYTES) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(FromWebSocket::Packet(Packet::Ping(data))) if data == PROBE => {
                    Poll::Ready(ProbeEvent::Probed)
                }
                Poll::Ready(FromWebSocket::Packet(Packet::Upgrade)) => {
                    Poll::Ready(ProbeEvent::Finished)
                }
                Poll::Ready(FromWebSocket::Pong(frame)) => {
                    if self.outbox.push_raw(frame).is_ok() {
                        continue;
                    }
                    Poll::Ready(ProbeEvent::Over(CloseFrame::BARE))
                }
                Poll::Ready(FromWebSocket::Nothing) => continue,
                Poll::Ready(FromWebSocket::Packet(_) | FromWebSocket::HeldUp) => {
                    Poll::Ready(ProbeEvent::Over(CloseFrame::BARE))
                }
                Poll::Ready(FromWebSocket::End(reason)) => {
                    Poll::Ready(ProbeEvent::Over(reason.close_frame()))
                }
            };
        }
    }

    /// Returns what the WebSocket wants next; to end, if its time is over. May be dropped.
    pub(crate) async fn next(&mut self) -> ProbeEvent {
        let deadline = self.deadline.into();
        tokio::time::timeout_at(deadline, poll_fn(|cx| self.poll(cx)))
            .await
            .unwrap_or(ProbeEvent::Over(CloseFrame::BARE))
    }

    /// Returns how long it has to send its `5`.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Answers the probe, when the WebSocket is polled next.
    ///
    /// # Errors
    /// It reads nothing: it is to end with this frame.
    pub(crate) fn answer(&mut self) -> Result<(), CloseFrame> {
        let pushed = self.outbox.push(encoded::pong_probe());
        pushed.or(Err(CloseFrame::BARE))
    }

    /// Returns what the session goes on with: the transport, and its outbox, in which all of `waiting` stands behind what is to be
    /// written yet.
    pub(super) fn into_transport(self, waiting: Outbox) -> (WebSocketTransport, Outbox) {
        let mut outbox = self.outbox;
        outbox.append(waiting);
        (self.transport, outbox)
    }

    /// Says goodbye and lets go; see [`Connection::farewell`].
    pub(crate) fn farewell(self, frame: &CloseFrame) {
        self.transport.farewell(self.outbox, frame);
    }
}
