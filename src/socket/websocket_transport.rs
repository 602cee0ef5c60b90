//! The WebSocket transport of one session, and the WebSocket that probes to become it.
//!
//! Turns WebSocket messages into Engine.IO packets; what they mean is the actor's.
//!
//! Source: wire.md 1.3, 1.5, 1.6, 1.10.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{disconnect::CloseReason, outbox::Outbox};
use crate::{
    engine_io::{
        dialect::Revision,
        packet::{Message, Packet, PacketError},
    },
    websocket::{
        close::CloseFrame,
        connection::{Connection, ReceiveError},
        decoder::Incoming,
        frame::{self, Opcode},
    },
};

/// How often a parked GET is released while a WebSocket probes.
pub(super) const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// What a WebSocket brought forth.
#[derive(Debug)]
pub(super) enum FromWebSocket {
    /// An Engine.IO packet.
    Packet(Packet),
    /// A ping of the WebSocket layer, whose pong is to be queued.
    Pong(Bytes),
    /// The end.
    End(CloseReason),
}

/// One WebSocket and what it has received but not yet handled.
#[derive(Debug)]
pub(super) struct WebSocketTransport {
    connection: Connection,
    revision: Revision,
    incoming: VecDeque<Incoming>,
    failure: Option<ReceiveError>,
}

impl WebSocketTransport {
    pub(super) fn new(connection: Connection, revision: Revision) -> Self {
        Self {
            connection,
            revision,
            incoming: VecDeque::new(),
            failure: None,
        }
    }

    /// Returns what came next.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FromWebSocket> {
        loop {
            if let Some(message) = self.incoming.pop_front() {
                if self.incoming.is_empty() && self.incoming.capacity() > 32 {
                    self.incoming = VecDeque::new();
                }
                match message {
                    Incoming::Text(text) => {
                        return Poll::Ready(packet(match self.revision {
                            Revision::V4 => Packet::decode(&text),
                            Revision::V3 => Packet::decode_v3(&text),
                        }));
                    }
                    Incoming::Binary(bytes) => {
                        return Poll::Ready(packet(match self.revision {
                            Revision::V4 => Ok(Packet::Message(Message::Binary(bytes))),
                            Revision::V3 => Packet::decode_v3_binary(bytes),
                        }));
                    }
                    Incoming::Ping(payload) => {
                        let mut pong = BytesMut::new();
                        frame::put_header(&mut pong, Opcode::Pong, payload.len());
                        pong.extend_from_slice(&payload);
                        return Poll::Ready(FromWebSocket::Pong(pong.freeze()));
                    }
                    Incoming::Pong => {}
                    Incoming::Close => {
                        return Poll::Ready(FromWebSocket::End(CloseReason::PeerClosed));
                    }
                }
                continue;
            }
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(FromWebSocket::End(match failure {
                    ReceiveError::Ended => CloseReason::PeerClosed,
                    ReceiveError::Io(_) => CloseReason::Aborted,
                    ReceiveError::Protocol(error) => CloseReason::WebSocket(error),
                }));
            }
            match self.connection.poll_receive(cx, &mut self.incoming) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => self.failure = Some(failure),
            }
        }
    }

    /// Writes what it can. Returns whether the stream still stands.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> bool {
        !matches!(self.connection.poll_flush(cx, outbox), Poll::Ready(Err(_)))
    }

    /// Says goodbye and lets go; see [`Connection::farewell`].
    pub(super) fn farewell(self, outbox: Outbox, frame: &CloseFrame) {
        self.connection.farewell(outbox, frame);
    }
}

fn packet(decoded: Result<Packet, PacketError>) -> FromWebSocket {
    decoded.map_or_else(
        |_| FromWebSocket::End(CloseReason::BadPacket),
        FromWebSocket::Packet,
    )
}

/// A WebSocket that has not yet become the transport.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) transport: WebSocketTransport,
    pub(super) outbox: Outbox,
    /// When it must have sent its `5`.
    pub(super) deadline: Instant,
    /// When a parked GET is released next; `None` before the probe was answered.
    pub(super) noop_at: Option<Instant>,
}
