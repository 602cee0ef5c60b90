//! A session as it crosses to another instance: what is read is written as it was, and what is packed beside it, too.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sockhop::{
    relay::wire::{pack, unpack},
    socket::portable::Portable,
};

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(session) = Portable::decode(bytes.clone()) {
        let written = session.encode().expect("what was read can be written");
        let again = Portable::decode(written).expect("what was written is read");
        assert!(again == session, "{again:?}");
    }
    if let Some((text, attachments)) = unpack(bytes) {
        let again = unpack(pack(text.as_bytes(), &attachments));
        assert_eq!(again, Some((text, attachments)));
    }
});
