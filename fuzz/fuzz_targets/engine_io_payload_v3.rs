//! Polling bodies of revision 3, in both forms: any bytes become packets, the same that a naive reading finds, and what is
//! written is read again. The seeds begin with a zero: no messages.
#![no_main]

use bytes::Bytes;
use bytestring::ByteString;
use libfuzzer_sys::fuzz_target;
use sockhop::engine_io::{
    packet::{Message, Packet},
    payload_v3::{Payload, put_base64, put_binary, put_text, put_text_as_binary},
};

/// The packets before the first fault, and whether there was one.
type Read = (Vec<Packet>, bool);

fn read(payload: Payload) -> Read {
    let mut packets = Vec::new();
    for packet in payload {
        match packet {
            Ok(packet) => packets.push(packet),
            Err(_) => return (packets, true),
        }
    }
    (packets, false)
}

fn number(digits: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// As JavaScript would: a list of UTF-16 code units, cut by index.
fn naive_text(body: &[u8]) -> Read {
    let units: Vec<u16> = String::from_utf8_lossy(body).encode_utf16().collect();
    let mut packets = Vec::new();
    let mut rest = &units[..];
    while !rest.is_empty() {
        let packet = (|| {
            let colon = rest.iter().position(|unit| *unit == u16::from(b':'))?;
            let len = number(String::from_utf16(&rest[..colon]).ok()?.as_bytes())?;
            let packet = rest[colon + 1..].get(..len)?;
            rest = &rest[colon + 1 + len..];
            String::from_utf16(packet).ok()
        })();
        match packet {
            Some(packet) if packet.is_empty() => {}
            Some(packet) => match Packet::decode_v3(&ByteString::from(packet)) {
                Ok(packet) => packets.push(packet),
                Err(_) => return (packets, true),
            },
            None => return (packets, true),
        }
    }
    (packets, units.is_empty())
}

fn naive_binary(body: &[u8]) -> Read {
    let mut packets = Vec::new();
    let mut rest = body;
    while let Some((kind, tail)) = rest.split_first() {
        let packet = (|| {
            let end = tail.iter().position(|byte| *byte == 0xff)?;
            let digits: Option<Vec<u8>> = tail[..end]
                .iter()
                .map(|digit| (*digit <= 9).then(|| digit + b'0'))
                .collect();
            let len = number(&digits?)?;
            let packet = tail[end + 1..].get(..len)?;
            rest = &tail[end + 1 + len..];
            match kind {
                0 => Packet::decode_v3(&ByteString::from(std::str::from_utf8(packet).ok()?)).ok(),
                1 => Packet::decode_v3_binary(Bytes::copy_from_slice(packet)).ok(),
                _ => None,
            }
        })();
        match packet {
            Some(packet) => packets.push(packet),
            None => return (packets, true),
        }
    }
    (packets, body.is_empty())
}

fuzz_target!(|input: (Vec<(bool, String)>, &[u8])| {
    let (messages, body) = input;
    let bytes = Bytes::copy_from_slice(body);
    assert_eq!(read(Payload::text(bytes.clone())), naive_text(body));
    assert_eq!(read(Payload::binary(bytes)), naive_binary(body));

    if messages.is_empty() {
        return;
    }
    let (mut text, mut binary, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (is_binary, data) in messages {
        let packet = format!("4{data}");
        if is_binary {
            put_base64(&mut text, data.as_bytes());
            put_binary(&mut binary, data.as_bytes());
            expected.push(Packet::Message(Message::Binary(data.into())));
        } else {
            put_text(&mut text, packet.as_bytes());
            put_text_as_binary(&mut binary, packet.as_bytes());
            expected.push(Packet::Message(Message::Text(data.into())));
        }
    }
    assert_eq!(read(Payload::text(text.into())), (expected.clone(), false));
    assert_eq!(read(Payload::binary(binary.into())), (expected, false));
});
