//! Why sessions and memberships end, and how each end looks on the wire.
//!
//! Pure tables. Source: wire.md 1.4 (what a poll gets), 1.5 (close frames), 1.8 and 2.4 (reason texts).

use std::time::Duration;

use crate::{
    counters::Limit,
    socket::outbox::Overflow,
    socket_io::decoder::DecodeError,
    websocket::{
        close::{CloseCode, CloseFrame},
        decoder::ProtocolError,
    },
};

/// Why a socket left its namespace, as gateways are told; the texts are the Socket.IO server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client left the namespace and keeps its connection.
    ClientNamespaceDisconnect,
    /// A gateway ended the membership.
    ServerNamespaceDisconnect,
    /// The connection ended.
    Closed(CloseKind),
}

impl DisconnectReason {
    /// Returns the protocol's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::Closed(kind) => kind.as_str(),
        }
    }
}

/// Why a connection ended, in the protocol's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseKind {
    /// The peer closed.
    TransportClose,
    /// The network or the peer failed.
    TransportError,
    /// The peer sent what is no packet.
    ParseError,
    /// The peer did not answer a ping.
    PingTimeout,
    /// The server ended the connection because of what the peer did.
    ForcedClose,
    /// A gateway ended the connection.
    ForcedServerClose,
    /// The instance is stopping.
    ServerShuttingDown,
    /// Too much waited for the peer, which reads too slowly or not at all. Node knows no such limit, so the text is ours.
    SlowReader,
    /// The peer went on sending more events than it may. The text is ours, too.
    RateLimited,
}

impl CloseKind {
    /// Returns the protocol's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::ParseError => "parse error",
            Self::PingTimeout => "ping timeout",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
            Self::SlowReader => "slow reader",
            Self::RateLimited => "rate limited",
        }
    }
}

/// Why a connection ended, in detail: for the log, and for the close frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer ended the stream or sent a close frame.
    #[error("peer closed")]
    PeerClosed,
    /// The peer sent the close packet.
    #[error("close packet")]
    ClosePacket,
    /// The peer's request or stream broke off.
    #[error("aborted")]
    Aborted,
    /// The peer polled, or posted, twice at a time.
    #[error("overlapping requests")]
    Overlap,
    /// A body of a type that this revision does not know.
    #[error("binary body")]
    BinaryBody,
    /// A ping from the client: in revision 4 only servers ping.
    #[error("ping from the client")]
    ClientPing,
    /// A pong from the client: in revision 3 only clients ping.
    #[error("pong from the client")]
    ClientPong,
    /// No packet.
    #[error("bad packet")]
    BadPacket,
    /// A breach of RFC 6455 or of its limits.
    #[error("websocket")]
    WebSocket(#[source] ProtocolError),
    /// A breach of Socket.IO.
    #[error("socket.io")]
    SocketIo(#[source] DecodeError),
    /// A packet for a namespace that the client did not join, or a CONNECT for one that it has used already.
    #[error("packet out of turn")]
    OutOfTurn,
    /// No pong came in time, or in revision 3 no ping.
    #[error("ping timeout")]
    PingTimeout,
    /// No namespace was joined in time.
    #[error("connect timeout")]
    ConnectTimeout,
    /// The client reads too slowly.
    #[error("slow reader")]
    SlowReader(#[source] Overflow),
    /// The client took nothing of what waits for it.
    #[error("nothing was read for {limit:?}")]
    WriteTimeout {
        /// How long that may be.
        limit: Duration,
    },
    /// The client went on sending more events than it may.
    #[error("more than {limit} events per second")]
    RateLimited {
        /// How many it may send in a second.
        limit: u32,
    },
    /// The attachments of a packet did not come in time.
    #[error("attachments did not come within {limit:?}")]
    AttachmentTimeout {
        /// How long they may take.
        limit: Duration,
    },
    /// A gateway wanted it.
    #[error("gateway")]
    Gateway,
    /// The session was to move to another instance, and did not.
    #[error("did not move")]
    NotMoved,
    /// The instance is stopping.
    #[error("shutdown")]
    Shutdown,
}

impl CloseReason {
    /// Returns the protocol's reason.
    pub fn kind(&self) -> CloseKind {
        match self {
            Self::PeerClosed | Self::ClosePacket => CloseKind::TransportClose,
            Self::Aborted
            | Self::Overlap
            | Self::BinaryBody
            | Self::ClientPing
            | Self::ClientPong
            | Self::WebSocket(_)
            | Self::NotMoved => CloseKind::TransportError,
            Self::SlowReader(_) | Self::WriteTimeout { .. } => CloseKind::SlowReader,
            Self::RateLimited { .. } => CloseKind::RateLimited,
            Self::BadPacket => CloseKind::ParseError,
            Self::PingTimeout => CloseKind::PingTimeout,
            Self::SocketIo(_)
            | Self::OutOfTurn
            | Self::ConnectTimeout
            | Self::AttachmentTimeout { .. } => CloseKind::ForcedClose,
            Self::Gateway => CloseKind::ForcedServerClose,
            Self::Shutdown => CloseKind::ServerShuttingDown,
        }
    }

    /// Returns the limit that the client met, if that is why.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::SlowReader(Overflow::Own { .. }) => Some(Limit::SlowReader),
            Self::SlowReader(Overflow::Together { .. }) => Some(Limit::TotalBacklog),
            Self::WriteTimeout { .. } => Some(Limit::WriteTimeout),
            Self::RateLimited { .. } => Some(Limit::RateLimited),
            Self::AttachmentTimeout { .. } => Some(Limit::BodyTimeout),
            Self::PeerClosed
            | Self::ClosePacket
            | Self::Aborted
            | Self::Overlap
            | Self::BinaryBody
            | Self::ClientPing
            | Self::ClientPong
            | Self::BadPacket
            | Self::WebSocket(_)
            | Self::SocketIo(_)
            | Self::OutOfTurn
            | Self::PingTimeout
            | Self::ConnectTimeout
            | Self::Gateway
            | Self::NotMoved
            | Self::Shutdown => None,
        }
    }

    /// Returns whether what still waits is worth writing: the client may be told something first.
    pub fn drains(&self) -> bool {
        match self {
            Self::SocketIo(_)
            | Self::OutOfTurn
            | Self::ConnectTimeout
            | Self::RateLimited { .. }
            | Self::AttachmentTimeout { .. }
            | Self::Gateway => true,
            Self::PeerClosed
            | Self::ClosePacket
            | Self::Aborted
            | Self::Overlap
            | Self::BinaryBody
            | Self::ClientPing
            | Self::ClientPong
            | Self::BadPacket
            | Self::WebSocket(_)
            | Self::PingTimeout
            | Self::SlowReader(_)
            | Self::WriteTimeout { .. }
            | Self::NotMoved
            | Self::Shutdown => false,
        }
    }

    /// Returns the close frame that a WebSocket gets.
    pub fn close_frame(&self) -> CloseFrame {
        match self {
            Self::WebSocket(error) => {
                let code = match error {
                    ProtocolError::InvalidUtf8 => CloseCode::Invalid,
                    ProtocolError::TooLarge { .. } | ProtocolError::TooManyFragments => {
                        CloseCode::Size
                    }
                    ProtocolError::ReservedBits
                    | ProtocolError::ReservedOpcode(_)
                    | ProtocolError::Unmasked
                    | ProtocolError::FragmentedControl
                    | ProtocolError::LongControl
                    | ProtocolError::LoneContinuation
                    | ProtocolError::Interleaved
                    | ProtocolError::BadLength
                    | ProtocolError::BadClose => CloseCode::Protocol,
                };
                CloseFrame {
                    code: Some(code),
                    reason: error.to_string(),
                }
            }
            Self::SlowReader(overflow) => CloseFrame {
                code: Some(CloseCode::Policy),
                reason: overflow.to_string(),
            },
            Self::WriteTimeout { .. }
            | Self::RateLimited { .. }
            | Self::AttachmentTimeout { .. } => CloseFrame {
                code: Some(CloseCode::Policy),
                reason: self.to_string(),
            },
            Self::PeerClosed
            | Self::ClosePacket
            | Self::Aborted
            | Self::Overlap
            | Self::BinaryBody
            | Self::ClientPing
            | Self::ClientPong
            | Self::BadPacket
            | Self::SocketIo(_)
            | Self::OutOfTurn
            | Self::PingTimeout
            | Self::ConnectTimeout
            | Self::Gateway
            | Self::Shutdown => CloseFrame::BARE,
            Self::NotMoved => CloseFrame {
                code: Some(CloseCode::Again),
                reason: "the session could not move to this instance; connect again".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_limit_is_told_with_its_size_and_the_limit() {
        let reason = CloseReason::WebSocket(ProtocolError::TooLarge {
            at_least: 1001,
            limit: 1000,
        });
        let frame = reason.close_frame();
        assert_eq!(frame.code, Some(CloseCode::Size));
        assert!(
            frame.reason.contains("1001") && frame.reason.contains("1000"),
            "{frame:?}"
        );
        assert_eq!(reason.kind().as_str(), "transport error");
    }
}
