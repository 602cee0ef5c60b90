//! A path that speaks Engine.IO, and what stands above it there.
//!
//! Plain data. `/socket.io/` is the one that every hub has; an application may add others that speak Engine.IO alone, for
//! clients of the `engine.io-client` kind and for the protocol's conformance suite.

use std::{fmt, sync::Arc};

use crate::engine_io::packet::Message;

/// The path of Socket.IO, as in Node.
pub const SOCKET_IO_PATH: &str = "/socket.io/";

/// Answers one Engine.IO message, or not.
pub type AnswerMessage = Arc<dyn Fn(Message) -> Option<Message> + Send + Sync>;

/// What stands above Engine.IO.
#[derive(Clone)]
pub enum Layer {
    /// Socket.IO: namespaces, events, acks.
    SocketIo,
    /// Nothing: messages go to the application as they are.
    Bare(AnswerMessage),
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SocketIo => "SocketIo",
            Self::Bare(_) => "Bare",
        })
    }
}

/// One path.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Begins and ends with a slash; everything below it belongs to the endpoint.
    pub path: String,
    /// What stands above.
    pub layer: Layer,
}

impl Endpoint {
    /// Returns the endpoint of Socket.IO.
    pub fn socket_io() -> Self {
        Self {
            path: SOCKET_IO_PATH.to_owned(),
            layer: Layer::SocketIo,
        }
    }

    /// Finds the endpoint that a request path belongs to.
    pub fn find<'a>(endpoints: &'a [Self], path: &str) -> Option<&'a Self> {
        endpoints
            .iter()
            .find(|endpoint| path.starts_with(&endpoint.path))
    }
}
