//! What instances say of themselves: what is read is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::peers::wire::{MAX_BYTES, decode, encode};

fuzz_target!(|input: &[u8]| {
    if let Ok(said) = decode(input) {
        let written = encode(&said);
        assert!(written.len() <= MAX_BYTES);
        assert_eq!(decode(&written).expect("what was written is read"), said);
    }
});
