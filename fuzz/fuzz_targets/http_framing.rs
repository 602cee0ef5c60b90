//! Where heads and bodies end: wherever the input is cut, and where actix-http's own decoder finds it.
#![no_main]

use actix_codec::Decoder as _;
use actix_http::h1::{Codec, Message};
use actix_rt::{System, SystemRunner};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sockhop::http::{body_end::BodyEnd, head_end::HeadEnd};

thread_local! {
    /// The codec brings a clock along, which wants to run somewhere.
    static RUNNER: SystemRunner = System::new();
}

/// Cuts `bytes` at these lengths, and behind the last one byte by byte.
fn cut<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter();
    std::iter::from_fn(move || {
        let at = usize::from(*cuts.next().unwrap_or(&1)).min(bytes.len());
        let (portion, rest) = bytes.split_at(at);
        bytes = rest;
        (!portion.is_empty() || !rest.is_empty()).then_some(portion)
    })
}

/// Returns where the first head ends.
fn head<'a>(portions: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let (mut end, mut len) = (HeadEnd::default(), 0);
    for portion in portions {
        if let Some(at) = end.find(portion) {
            return Some(len + at);
        }
        len += portion.len();
    }
    None
}

/// Returns how many bytes are of a body, and whether it has come to an end.
fn body<'a>(mut end: BodyEnd, portions: impl Iterator<Item = &'a [u8]>) -> (usize, bool) {
    let mut len = 0;
    for portion in portions {
        let passed = end.pass(portion);
        len += passed;
        if passed < portion.len() {
            break;
        }
    }
    (len, end == BodyEnd::OVER)
}

/// Returns what a fresh decoder makes of the begin of a connection, and how many bytes it leaves.
fn first_by_actix(bytes: &[u8]) -> (Result<bool, ()>, usize) {
    let mut codec = Codec::default();
    let mut left = BytesMut::from(bytes);
    let decoded = codec.decode(&mut left);
    (
        decoded.map(|head| head.is_some()).map_err(|_| ()),
        left.len(),
    )
}

/// The same as [`body`] of one in chunks, as actix-http sees it.
fn chunks_by_actix(bytes: &[u8]) -> (usize, bool) {
    let mut codec = Codec::default();
    let mut left =
        BytesMut::from(&b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..]);
    codec.decode(&mut left).expect("a head").expect("whole");
    left.extend_from_slice(bytes);
    let is_over = loop {
        match codec.decode(&mut left) {
            Ok(Some(Message::Chunk(Some(_)))) => {}
            Ok(Some(_)) | Err(_) => break true,
            Ok(None) => break false,
        }
    };
    (bytes.len() - left.len(), is_over)
}

fuzz_target!(|input: (Vec<u8>, u16, &[u8])| {
    let (cuts, len, bytes) = input;
    let whole = || std::iter::once(bytes);

    let end = head(whole());
    assert_eq!(head(cut(bytes, &cuts)), end);
    let (by_chunks, with_head, before_its_end) = RUNNER.with(|runner| {
        runner.block_on(async {
            (
                chunks_by_actix(bytes),
                first_by_actix(&bytes[..end.unwrap_or(bytes.len())]),
                first_by_actix(&bytes[..end.map_or(0, |end| end - 1)]),
            )
        })
    });
    match end {
        // It is a request or refused, and all of it is the head.
        Some(_) => assert!(matches!(with_head, (Ok(true), 0) | (Err(()), _))),
        None => assert_ne!(with_head.0, Ok(true)),
    }
    assert_ne!(before_its_end.0, Ok(true));

    let in_chunks = body(BodyEnd::begin(None), whole());
    assert_eq!(in_chunks, by_chunks);
    assert_eq!(body(BodyEnd::begin(None), cut(bytes, &cuts)), in_chunks);

    let len = usize::from(len);
    let expected = (len.min(bytes.len()), len <= bytes.len());
    for portions in [
        &mut whole() as &mut dyn Iterator<Item = &[u8]>,
        &mut cut(bytes, &cuts),
    ] {
        assert_eq!(body(BodyEnd::begin(Some(len as u64)), portions), expected);
    }
});
