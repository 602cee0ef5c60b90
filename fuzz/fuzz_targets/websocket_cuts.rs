//! Any bytes as WebSocket frames: the result must not depend on how the input is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::websocket::decoder::{Decoder, Incoming, ProtocolError};

const LIMIT: usize = 2000;

fn decode<'a>(
    portions: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Incoming>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut messages = Vec::new();
    for portion in portions {
        let mut portion = portion.to_vec();
        let mut rest = portion.as_mut_slice();
        loop {
            match decoder.decode(&mut rest) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break assert!(rest.is_empty(), "input was left"),
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    let mut rest = bytes;
    let mut cuts = cuts.iter();
    let portions = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        // Behind the last cut, byte by byte.
        let at = usize::from(*cuts.next().unwrap_or(&1)).min(rest.len());
        let (portion, tail) = rest.split_at(at);
        rest = tail;
        Some(portion)
    });
    let cut = decode(portions);
    let whole = decode(std::iter::once(bytes));
    assert_eq!(cut, whole);
    for message in &whole.0 {
        match message {
            Incoming::Text(text) => assert!(text.len() <= LIMIT),
            Incoming::Binary(bytes) => assert!(bytes.len() <= LIMIT),
            Incoming::Ping(bytes) => assert!(bytes.len() <= 125),
            Incoming::Pong | Incoming::Close => {}
        }
    }
});
