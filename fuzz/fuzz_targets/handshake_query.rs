//! Query strings, percent-encoding included, and the rules that judge what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::engine_io::{
    dialect::Revision,
    handshake::{Facts, Query, SessionFact, TransportName, verify},
    sid::Sid,
};

fuzz_target!(|input: (&str, u8)| {
    let (text, bits) = input;
    let query = Query::parse(text);
    let last = |key: &str| {
        let of_key = query.pairs.iter().filter(|(name, _)| *name == key);
        of_key.last().map(|(_, value)| value)
    };
    let is_eio4 = query.dialect.revision == Revision::V4;
    assert_eq!(is_eio4, last("EIO") == Some("4"));
    assert_eq!(
        query.dialect.base64,
        last("b64").is_some_and(|value| !value.is_empty())
    );
    assert_eq!(
        query.sid.as_deref(),
        last("sid").filter(|sid| !sid.is_empty())
    );
    assert_eq!(
        query.transport.map(TransportName::as_str),
        last("transport").filter(|name| ["polling", "websocket"].contains(name))
    );
    if let Some(sid) = query.sid.as_deref().and_then(Sid::parse) {
        assert_eq!(query.sid.as_deref(), Some(sid.as_str()));
    }
    let session_revision = match bits & 64 {
        0 => Revision::V4,
        _ => Revision::V3,
    };
    let session = match bits & 3 {
        0 => SessionFact::None,
        1 => SessionFact::Unknown,
        2 => SessionFact::On(TransportName::Polling, session_revision),
        _ => SessionFact::On(TransportName::WebSocket, session_revision),
    };
    let facts = Facts {
        transport: query.transport,
        origin_is_legal: bits & 4 != 0,
        session,
        is_upgrade: bits & 8 != 0,
        is_get: bits & 16 != 0,
        revision: query.dialect.revision,
        allow_eio3: bits & 32 != 0,
    };
    if verify(&facts).is_ok() {
        // Whatever the order of the checks: these must hold for everything that passes.
        assert!(query.transport.is_some() && facts.origin_is_legal);
        match session {
            SessionFact::On(_, revision) => assert_eq!(revision, query.dialect.revision),
            _ => assert!(is_eio4 || facts.allow_eio3),
        }
        assert_ne!(session, SessionFact::Unknown);
        assert!(session != SessionFact::None || facts.is_get);
    }
});
