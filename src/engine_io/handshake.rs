//! The rules that every Engine.IO request passes, in the protocol's order: first failure wins.
//!
//! Pure: judges facts that the HTTP layer gathered; plain requests and WebSocket upgrades are judged alike.
//!
//! Source: wire.md 1.1 (Node's `verify`), Engine.IO protocol v4, "Handshake".

use url::form_urlencoded;

use super::{
    dialect::{Dialect, Revision},
    pairs::Pairs,
};

/// The two transports that exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportName {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl TransportName {
    /// Returns the name as it stands in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// Most pairs of a query that are looked at, as in Node (`querystring`'s `maxKeys`); those behind them do not exist.
pub const MAX_QUERY_PAIRS: usize = 1000;

/// What a request's query says. Of a repeated key the last value counts; an empty `sid` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `transport`, if it names one that exists here.
    pub transport: Option<TransportName>,
    /// `sid`.
    pub sid: Option<String>,
    /// How the client speaks. Its revision is 4 if `EIO` is exactly `4`, and 3 otherwise, if there is none, too; base64 is
    /// asked for by any `b64` that is not empty.
    pub dialect: Dialect,
    /// Every key and value, in their order, for the application: at most [`MAX_QUERY_PAIRS`].
    pub pairs: Pairs,
}

impl Query {
    /// Reads a query string.
    pub fn parse(query: &str) -> Self {
        let mut parsed = Self {
            dialect: Dialect {
                revision: Revision::V3,
                base64: false,
            },
            ..Self::default()
        };
        let pairs = form_urlencoded::parse(query.as_bytes()).take(MAX_QUERY_PAIRS);
        let pairs = pairs.inspect(|(key, value)| match &**key {
            "transport" => {
                parsed.transport = match &**value {
                    "polling" => Some(TransportName::Polling),
                    "websocket" => Some(TransportName::WebSocket),
                    _ => None,
                }
            }
            "sid" => parsed.sid = (!value.is_empty()).then(|| value.clone().into_owned()),
            "EIO" => {
                parsed.dialect.revision = match &**value {
                    "4" => Revision::V4,
                    _ => Revision::V3,
                }
            }
            "b64" => parsed.dialect.base64 = !value.is_empty(),
            _ => {}
        });
        parsed.pairs = pairs.collect();
        parsed
    }
}

/// What is known of the session that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFact {
    /// The request names none: it wants a new one.
    None,
    /// No such session.
    Unknown,
    /// It lives, on this transport, and speaks this revision.
    On(TransportName, Revision),
}

/// What a request is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// `transport` of the query.
    pub transport: Option<TransportName>,
    /// Whether `Origin` is absent or made of legal header characters.
    pub origin_is_legal: bool,
    /// What `sid` of the query names.
    pub session: SessionFact,
    /// Whether the request asks for a WebSocket.
    pub is_upgrade: bool,
    /// Whether the method is GET.
    pub is_get: bool,
    /// The revision that the query names.
    pub revision: Revision,
    /// Whether the settings let in clients of revision 3.
    pub allow_eio3: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Code 0.
    #[error("Transport unknown")]
    TransportUnknown,
    /// Code 1.
    #[error("Session ID unknown")]
    SessionIdUnknown,
    /// Code 2.
    #[error("Bad handshake method")]
    BadHandshakeMethod,
    /// Code 3.
    #[error("Bad request")]
    BadRequest,
    /// Code 4: the origin is not allowed.
    #[error("Forbidden")]
    Forbidden,
    /// Code 5.
    #[error("Unsupported protocol version")]
    UnsupportedProtocolVersion,
}

impl HandshakeError {
    /// Returns the `code` of the JSON answer.
    pub fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionIdUnknown => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedProtocolVersion => 5,
        }
    }

    /// Returns what whoever runs the client, or the hub, can do about it, where the message alone does not say.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::UnsupportedProtocolVersion => {
                Some("use socket.io-client 3 or 4, or start the hub with ALLOW_EIO3=true")
            }
            Self::TransportUnknown
            | Self::SessionIdUnknown
            | Self::BadHandshakeMethod
            | Self::BadRequest
            | Self::Forbidden => None,
        }
    }

    /// Returns the error of a `code`, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::TransportUnknown,
            Self::SessionIdUnknown,
            Self::BadHandshakeMethod,
            Self::BadRequest,
            Self::Forbidden,
            Self::UnsupportedProtocolVersion,
        ]
        .into_iter()
        .find(|error| error.code() == code)
    }

    /// Returns the HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::TransportUnknown
            | Self::SessionIdUnknown
            | Self::BadHandshakeMethod
            | Self::BadRequest
            | Self::UnsupportedProtocolVersion => 400,
        }
    }
}

/// Judges a request.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(facts: &Facts) -> Result<(), HandshakeError> {
    use HandshakeError as E;
    let transport = facts.transport.ok_or(E::TransportUnknown)?;
    if !facts.origin_is_legal {
        return Err(E::BadRequest);
    }
    match facts.session {
        SessionFact::Unknown => Err(E::SessionIdUnknown),
        SessionFact::On(current, _) if !facts.is_upgrade && current != transport => {
            Err(E::BadRequest)
        }
        SessionFact::On(_, revision) if facts.revision != revision => Err(E::BadRequest),
        SessionFact::On(..) => Ok(()),
        SessionFact::None if !facts.is_get => Err(E::BadHandshakeMethod),
        SessionFact::None if transport == TransportName::WebSocket && !facts.is_upgrade => {
            Err(E::BadRequest)
        }
        SessionFact::None if facts.revision == Revision::V3 && !facts.allow_eio3 => {
            Err(E::UnsupportedProtocolVersion)
        }
        SessionFact::None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        transport: Some(TransportName::Polling),
        origin_is_legal: true,
        session: SessionFact::None,
        is_upgrade: false,
        is_get: true,
        revision: Revision::V4,
        allow_eio3: false,
    };

    #[test]
    fn the_checks_stand_in_the_protocols_order() {
        // Each case repairs what the one before it broke, so the order itself is tested.
        let mut facts = Facts {
            transport: None,
            origin_is_legal: false,
            session: SessionFact::Unknown,
            is_get: false,
            revision: Revision::V3,
            ..GOOD
        };
        assert_eq!(verify(&facts), Err(HandshakeError::TransportUnknown));
        facts.transport = Some(TransportName::WebSocket);
        assert_eq!(verify(&facts), Err(HandshakeError::BadRequest));
        facts.origin_is_legal = true;
        assert_eq!(verify(&facts), Err(HandshakeError::SessionIdUnknown));
        facts.session = SessionFact::None;
        assert_eq!(verify(&facts), Err(HandshakeError::BadHandshakeMethod));
        facts.is_get = true;
        assert_eq!(verify(&facts), Err(HandshakeError::BadRequest));
        facts.is_upgrade = true;
        assert_eq!(
            verify(&facts),
            Err(HandshakeError::UnsupportedProtocolVersion)
        );
        facts.revision = Revision::V4;
        assert_eq!(verify(&facts), Ok(()));
    }

    #[test]
    fn a_request_of_a_session_must_use_its_transport_and_revision() {
        let on = |transport| Facts {
            session: SessionFact::On(transport, Revision::V4),
            ..GOOD
        };
        assert_eq!(verify(&on(TransportName::Polling)), Ok(()));
        assert_eq!(
            verify(&on(TransportName::WebSocket)),
            Err(HandshakeError::BadRequest)
        );
        let upgrade = Facts {
            transport: Some(TransportName::WebSocket),
            is_upgrade: true,
            ..on(TransportName::Polling)
        };
        assert_eq!(verify(&upgrade), Ok(()));
        for (session, request, verdict) in [
            (Revision::V4, Revision::V4, Ok(())),
            (Revision::V3, Revision::V3, Ok(())),
            (Revision::V4, Revision::V3, Err(HandshakeError::BadRequest)),
            (Revision::V3, Revision::V4, Err(HandshakeError::BadRequest)),
        ] {
            for is_upgrade in [false, true] {
                let facts = Facts {
                    session: SessionFact::On(TransportName::Polling, session),
                    revision: request,
                    allow_eio3: true,
                    is_upgrade,
                    ..GOOD
                };
                assert_eq!(verify(&facts), verdict, "{facts:?}");
            }
        }
        let post = Facts {
            is_get: false,
            ..on(TransportName::Polling)
        };
        assert_eq!(verify(&post), Ok(()));
    }

    #[test]
    fn revision_3_comes_in_where_the_settings_allow_it_alone() {
        for (allow_eio3, verdict) in [
            (true, Ok(())),
            (false, Err(HandshakeError::UnsupportedProtocolVersion)),
        ] {
            let old = Facts {
                revision: Revision::V3,
                allow_eio3,
                ..GOOD
            };
            assert_eq!(verify(&old), verdict);
            let current = Facts { allow_eio3, ..GOOD };
            assert_eq!(verify(&current), Ok(()));
        }
    }

    #[test]
    fn only_base64_that_is_asked_for_is_sent() {
        for (query, base64) in [
            ("EIO=4", false),
            ("b64=", false),
            ("b64=1", true),
            ("b64=x", true),
        ] {
            assert_eq!(Query::parse(query).dialect.base64, base64, "{query}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_and_an_empty_sid_is_none() {
        let query =
            Query::parse("EIO=3&EIO=4&transport=websocket&transport=polling&sid=&t=x&room=a%20b");
        assert_eq!(query.dialect, Dialect::V4);
        assert_eq!(query.transport, Some(TransportName::Polling));
        assert_eq!(query.sid, None);
        assert_eq!(query.pairs.iter().last(), Some(("room", "a b")));
    }

    #[test]
    fn a_query_of_many_keys_is_read_as_far_as_node_reads_it() {
        let query = Query::parse(&("&a".repeat(MAX_QUERY_PAIRS - 1) + "&EIO=4&sid=x"));
        assert_eq!(query.pairs.iter().count(), MAX_QUERY_PAIRS);
        assert_eq!(query.dialect, Dialect::V4);
        assert_eq!(query.sid, None);
    }

    #[test]
    fn only_a_bare_four_is_revision_four_and_only_two_transports_exist() {
        for eio in ["", "0", "3", "99", "4abc", "04"] {
            let query = Query::parse(&format!("EIO={eio}"));
            assert_eq!(query.dialect.revision, Revision::V3, "{eio}");
        }
        assert_eq!(Query::parse("").dialect.revision, Revision::V3);
        for transport in ["", "webtransport", "__proto__", "Polling", "abc"] {
            assert_eq!(
                Query::parse(&format!("transport={transport}")).transport,
                None
            );
        }
    }
}
