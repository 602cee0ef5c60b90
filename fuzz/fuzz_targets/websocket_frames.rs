//! Well-formed frames in any cut: every message arrives, whole and in order, unless a limit is passed.
#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use sockhop::websocket::decoder::{Decoder, Incoming, MAX_FRAGMENTS, ProtocolError};

const LIMIT: usize = 70_000;

#[derive(Arbitrary, Debug)]
struct Message {
    is_text: bool,
    text: String,
    /// Stretches the payload over the borders of the length's forms.
    repeat: u16,
    cuts: Vec<u8>,
    ping_between: Option<Vec<u8>>,
    mask: [u8; 4],
}

fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0xfe);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xff);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
}

fuzz_target!(|input: (Vec<Message>, u16)| {
    let (messages, portion) = input;
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let mut is_over = false;
    for message in messages.iter().take(6) {
        let repeat = match message.text.len() {
            0 => 1,
            // Seldom long: a run of megabytes tells no more than one over the limit.
            _ if message.repeat % 32 != 0 => usize::from(message.repeat % 8).max(1),
            len => usize::from(message.repeat).min((LIMIT + 1000) / len).max(1),
        };
        let text = message.text.repeat(repeat);
        let mut rest = text.as_bytes();
        let mut opcode = if message.is_text { 1 } else { 2 };
        for cut in message.cuts.iter().take(MAX_FRAGMENTS - 1) {
            let (fragment, tail) = rest.split_at(usize::from(*cut).min(rest.len()));
            put_frame(&mut bytes, opcode, fragment, message.mask);
            opcode = 0;
            rest = tail;
            if let Some(ping) = &message.ping_between {
                let ping = &ping[..ping.len().min(125)];
                put_frame(&mut bytes, 0x89, ping, message.mask);
                if !is_over {
                    expected.push(Incoming::Ping(ping.to_vec().into()));
                }
            }
        }
        put_frame(&mut bytes, 0x80 | opcode, rest, message.mask);
        if text.len() > LIMIT {
            is_over = true;
        }
        if !is_over {
            expected.push(match message.is_text {
                true => Incoming::Text(text.into()),
                false => Incoming::Binary(text.into_bytes().into()),
            });
        }
    }
    let mut decoder = Decoder::new(LIMIT);
    let mut got = Vec::new();
    for portion in bytes.chunks_mut(usize::from(portion).max(1)) {
        let mut rest = portion;
        loop {
            match decoder.decode(&mut rest) {
                Ok(Some(message)) => got.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert!(
                        is_over && matches!(error, ProtocolError::TooLarge { .. }),
                        "{error}"
                    );
                    // Pings between the fragments of the message that is too large may or may not have come.
                    got.truncate(expected.len());
                    expected.truncate(got.len());
                    assert_eq!(got, expected);
                    return;
                }
            }
        }
    }
    assert!(!is_over);
    assert_eq!(got, expected);
});
