//! Whose session a request is for, as far as this instance can tell: of plain requests and upgrades alike.
//!
//! Finds out, and judges nothing; the rules are in `engine_io::handshake`. A request for a session that is here costs one look-up.

use std::sync::Arc;

use crate::{
    engine_io::{
        dialect::Revision,
        handshake::{Query, SessionFact, TransportName},
        sid::Sid,
    },
    relay::Relay,
    socket::{actor::Services, sessions::Session},
};

/// Whose session a request is for.
#[derive(Debug)]
pub(super) enum Whose<'s> {
    /// Nobody's: it wants a new one.
    New,
    /// One of this instance.
    Own(Arc<Session>),
    /// One of another instance, by its id, which is to be asked by way of the relay.
    Elsewhere(&'s Arc<Relay>, Sid),
    /// One of this instance that lives at another one now, on a WebSocket. It speaks this revision.
    Moved(Revision),
    /// One that is not to be found.
    Unknown,
}

impl<'s> Whose<'s> {
    /// Finds the session that a query names. `may_ask`: whether its owner, if that is another instance, can be asked about such a
    /// request.
    pub(super) fn find(services: &'s Services, query: &Query, may_ask: bool) -> Self {
        let Some(sid) = &query.sid else {
            return Self::New;
        };
        let Some(sid) = Sid::parse(sid) else {
            return Self::Unknown;
        };
        // First: what moves away is noted before it is no more among these.
        if let Some(session) = services.sessions.get(&sid) {
            return Self::Own(session);
        }
        match &services.relay {
            Some(relay) if !relay.is_elsewhere(&sid) => relay
                .revision_of_moved(&sid)
                .map_or(Self::Unknown, Self::Moved),
            Some(relay) if may_ask => Self::Elsewhere(relay, sid),
            Some(_) | None => Self::Unknown,
        }
    }

    /// Returns what a request of `query` is to be judged by.
    pub(super) fn fact(&self, query: &Query) -> SessionFact {
        match self {
            Self::New => SessionFact::None,
            Self::Own(session) => session.fact(),
            // What is to be judged by the session, its owner judges.
            Self::Elsewhere(..) => SessionFact::On(TransportName::Polling, query.dialect.revision),
            Self::Moved(revision) => SessionFact::On(TransportName::WebSocket, *revision),
            Self::Unknown => SessionFact::Unknown,
        }
    }
}
