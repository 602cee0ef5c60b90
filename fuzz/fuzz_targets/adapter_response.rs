//! Responses from Redis: decoded, and, if they are one, encoded and decoded again as the same one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::adapter::{
    response::{Received, Response, decode, encode},
    uid::Uid,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Received { uid, response }) = decode(&Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let uid = uid.as_deref().and_then(Uid::parse);
    let uid = uid.as_ref();
    let bytes = encode(&response, uid).expect("what was decoded can be encoded");
    let Received {
        uid: uid_again,
        response: again,
    } = decode(&bytes).expect("our own response");
    let has_uid = !matches!(response, Response::Ack { .. });
    assert_eq!(
        uid_again.as_deref(),
        uid.map(Uid::as_str).filter(|_| has_uid)
    );
    assert_eq!(again.id(), response.id());
    match (&response, &again) {
        // What came in JSON is printed anew on its way through MessagePack, once, and what came in MessagePack may hold
        // something binary.
        (Response::Ack { .. }, Response::Ack { .. })
        | (Response::ServerSideReply { .. }, Response::ServerSideReply { .. }) => {
            assert_eq!(encode(&again, uid).expect("what was decoded"), bytes);
        }
        (response, again) => assert_eq!(response, again),
    }
});
