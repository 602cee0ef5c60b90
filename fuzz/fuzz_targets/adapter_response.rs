//! Responses from Redis: decoded, and, if they are one, encoded and decoded again as the same one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::adapter::response::{Response, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(response) = decode(&Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let bytes = encode(&response).expect("what was decoded can be encoded");
    let again = decode(&bytes).expect("our own response");
    assert_eq!(again.id(), response.id());
    match (&response, &again) {
        // What came in JSON is printed anew on its way through MessagePack, once, and what came in MessagePack may hold
        // something binary.
        (Response::Ack { .. }, Response::Ack { .. })
        | (Response::ServerSideReply { .. }, Response::ServerSideReply { .. }) => {
            assert_eq!(encode(&again).expect("what was decoded"), bytes);
        }
        (response, again) => assert_eq!(response, again),
    }
});
