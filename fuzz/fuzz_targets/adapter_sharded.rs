//! Messages of the sharded adapter: decoded, and, if they are one, encoded and decoded again as the same one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::{
    adapter::{
        EncodeError,
        incoming::Body,
        sharded::{Envelope, encode_broadcast, encode_request, encode_response},
        uid::Uid,
    },
    socket_io::ids::Namespace,
};

fuzz_target!(|bytes: &[u8]| {
    let namespace = Namespace::main();
    let own = Uid::parse_hex("0123456789abcdef").expect("a uid");
    let open = || Envelope::open(&Bytes::copy_from_slice(bytes));
    let (Ok(envelope), Ok(again)) = (open(), open()) else {
        return;
    };
    let is_own = envelope.is_from(&own);
    let mut asked = None;
    let decoded = envelope.decode(&namespace, |id| {
        asked = Some(id.clone());
        true
    });
    // What nobody waits for is not read, and that is told of nothing but responses.
    let unheard = again.decode(&namespace, |_| false);
    match &asked {
        Some(_) => assert_eq!(unheard, Ok(None)),
        None => assert_eq!(unheard, decoded),
    }
    let Ok(Some(incoming)) = decoded else {
        return;
    };
    let answered = match &incoming.body {
        Body::Response(response) => Some(response.id()),
        Body::Broadcast(_) | Body::Request(_) => None,
    };
    assert_eq!(answered, asked.as_ref());
    assert_eq!(is_own, incoming.uid.as_deref() == Some(own.as_str()));
    let again = match &incoming.body {
        Body::Broadcast(broadcast) => encode_broadcast(&own, broadcast),
        Body::Request(request) => encode_request(&own, &namespace, request),
        Body::Response(response) => encode_response(&own, &namespace, response),
    };
    let again = match again {
        Ok(again) => again,
        Err(error) => return assert_eq!(error, EncodeError::ReservedName),
    };
    let envelope = Envelope::open(&again).expect("our own message");
    assert!(envelope.is_from(&own));
    let again = envelope.decode(&namespace, |_| true);
    let again = again.expect("our own message").expect("all is asked");
    // The encoding follows from the content, and so does the text of every number.
    assert_eq!(again.body, incoming.body);
});
