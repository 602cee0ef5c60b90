//! Requests from Redis: decoded, and, if they are one, encoded and decoded again as the same one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::{
    adapter::{
        EncodeError,
        request::{Request, decode, encode},
        uid::Uid,
    },
    socket_io::ids::Namespace,
};

fuzz_target!(|bytes: &[u8]| {
    let namespace = Namespace::from("/n");
    let Ok(received) = decode(&namespace, &Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let own = Uid::parse("abcdef").expect("a uid");
    let again = match encode(&own, &namespace, &received.request) {
        Ok(again) => again,
        Err(error) => return assert_eq!(error, EncodeError::ReservedName),
    };
    let again = decode(&namespace, &again).expect("our own request");
    assert_eq!(again.uid.as_deref(), Some("abcdef"));
    match (&received.request, &again.request) {
        // JSON has no binary, and what is written in its place takes it for good.
        (Request::ServerSideEmit { args, .. }, Request::ServerSideEmit { args: again, .. })
            if !args.attachments().is_empty() =>
        {
            assert!(again.attachments().is_empty());
        }
        // Numbers are written as JavaScript prints them, once.
        (Request::Broadcast { .. }, Request::Broadcast { .. }) => {
            let once = encode(&own, &namespace, &again.request).expect("what was decoded");
            let twice = decode(&namespace, &once).expect("our own request");
            assert_eq!(twice.request, again.request);
        }
        (request, again) => assert_eq!(request, again),
    }
});
