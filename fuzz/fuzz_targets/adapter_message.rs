//! Bytes from Redis: opened, decoded, and, if they are a broadcast, encoded and decoded again as the same one.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::adapter::{
    message::{Envelope, encode},
    uid::Uid,
};

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(envelope) = Envelope::open(&bytes) else {
        return;
    };
    let own = Uid::parse("abcdef").expect("a uid");
    assert_eq!(envelope.is_from(&own), envelope.uid() == "abcdef");
    let Ok(broadcast) = envelope.decode() else {
        return;
    };
    let value: serde_json::Result<Box<serde_json::value::RawValue>> =
        serde_json::from_str(broadcast.args.json());
    value.expect("arguments are JSON");
    let again = encode(&own, &broadcast).expect("what was decoded can be encoded");
    let envelope = Envelope::open(&again).expect("our own message");
    assert!(envelope.is_from(&own));
    assert_eq!(envelope.decode().expect("our own message"), broadcast);
});
