//! What instances say to one another about a polling request: what is read is written as it was.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::relay::wire::{decode, encode};

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok((envelope, message)) = decode(&bytes) {
        let written = encode(&envelope, &message);
        let (envelope_again, message_again) = decode(&written).expect("what was written is read");
        assert_eq!((envelope_again, message_again), (envelope, message));
    }
});
