//! Polling bodies: any bytes become packets, the same that each part would be by itself.
#![no_main]

use bytes::Bytes;
use bytestring::ByteString;
use libfuzzer_sys::fuzz_target;
use sockhop::engine_io::{
    packet::Packet,
    payload::{Payload, SEPARATOR},
};

fuzz_target!(|body: &[u8]| {
    let got: Vec<_> = Payload::new(Bytes::copy_from_slice(body)).collect();
    let text = String::from_utf8_lossy(body);
    let mut expected = Vec::new();
    for part in text.split(char::from(SEPARATOR)) {
        expected.push(Packet::decode(&ByteString::from(part)));
        if matches!(expected.last(), Some(Err(_))) {
            break;
        }
    }
    assert_eq!(got, expected);
});
