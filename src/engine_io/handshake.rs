//! The rules that every Engine.IO request passes, in the protocol's order: first failure wins.
//!
//! Pure: judges facts that the HTTP layer gathered; plain requests and WebSocket upgrades are judged alike.
//!
//! Source: wire.md 1.1 (Node's `verify`), Engine.IO protocol v4, "Handshake".

use url::form_urlencoded;

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
///
/// A session keeps its query, and each pair costs many times the two bytes that it can have in the request.
pub const MAX_QUERY_PAIRS: usize = 1000;

/// What a request's query says. Of a repeated key the last value counts; an empty `sid` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `transport`, if it names one that exists here.
    pub transport: Option<TransportName>,
    /// `sid`.
    pub sid: Option<String>,
    /// Whether `EIO` is exactly `4`.
    pub is_eio4: bool,
    /// Every key and value, in their order, for the application: at most [`MAX_QUERY_PAIRS`].
    pub pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query string.
    pub fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()).take(MAX_QUERY_PAIRS) {
            match &*key {
                "transport" => {
                    parsed.transport = match &*value {
                        "polling" => Some(TransportName::Polling),
                        "websocket" => Some(TransportName::WebSocket),
                        _ => None,
                    }
                }
                "sid" => parsed.sid = (!value.is_empty()).then(|| value.clone().into_owned()),
                "EIO" => parsed.is_eio4 = value == "4",
                _ => {}
            }
            parsed.pairs.push((key.into_owned(), value.into_owned()));
        }
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
    /// It lives, on this transport.
    On(TransportName),
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
    /// Whether `EIO` is `4`.
    pub is_eio4: bool,
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
        SessionFact::On(current) if !facts.is_upgrade && current != transport => Err(E::BadRequest),
        // Every session here has revision 4.
        SessionFact::On(_) if !facts.is_eio4 => Err(E::BadRequest),
        SessionFact::On(_) => Ok(()),
        SessionFact::None if !facts.is_get => Err(E::BadHandshakeMethod),
        SessionFact::None if transport == TransportName::WebSocket && !facts.is_upgrade => {
            Err(E::BadRequest)
        }
        SessionFact::None if !facts.is_eio4 => Err(E::UnsupportedProtocolVersion),
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
        is_eio4: true,
    };

    #[test]
    fn the_checks_stand_in_the_protocols_order() {
        // Each case repairs what the one before it broke, so the order itself is tested.
        let mut facts = Facts {
            transport: None,
            origin_is_legal: false,
            session: SessionFact::Unknown,
            is_get: false,
            is_eio4: false,
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
        facts.is_eio4 = true;
        assert_eq!(verify(&facts), Ok(()));
    }

    #[test]
    fn a_request_of_a_session_must_use_its_transport_and_revision() {
        let on = |transport| Facts {
            session: SessionFact::On(transport),
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
        let old = Facts {
            is_eio4: false,
            ..on(TransportName::Polling)
        };
        assert_eq!(verify(&old), Err(HandshakeError::BadRequest));
        let post = Facts {
            is_get: false,
            ..on(TransportName::Polling)
        };
        assert_eq!(verify(&post), Ok(()));
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_and_an_empty_sid_is_none() {
        let query =
            Query::parse("EIO=3&EIO=4&transport=websocket&transport=polling&sid=&t=x&room=a%20b");
        assert!(query.is_eio4);
        assert_eq!(query.transport, Some(TransportName::Polling));
        assert_eq!(query.sid, None);
        assert_eq!(
            query.pairs.last(),
            Some(&("room".to_owned(), "a b".to_owned()))
        );
    }

    #[test]
    fn a_query_of_many_keys_is_read_as_far_as_node_reads_it() {
        let query = Query::parse(&("&a".repeat(MAX_QUERY_PAIRS - 1) + "&EIO=4&sid=x"));
        assert_eq!(query.pairs.len(), MAX_QUERY_PAIRS);
        assert!(query.is_eio4);
        assert_eq!(query.sid, None);
    }

    #[test]
    fn only_a_bare_four_is_revision_four_and_only_two_transports_exist() {
        for eio in ["", "0", "3", "99", "4abc", "04"] {
            assert!(!Query::parse(&format!("EIO={eio}")).is_eio4, "{eio}");
        }
        for transport in ["", "webtransport", "__proto__", "Polling", "abc"] {
            assert_eq!(
                Query::parse(&format!("transport={transport}")).transport,
                None
            );
        }
    }
}
