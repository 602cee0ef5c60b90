//! Frame headers: opcodes, and the header that a server writes.
//!
//! Pure. Reading, which must unmask and distrust, is `decoder`'s. Source: RFC 6455, 5.2.

use bytes::{BufMut, BytesMut};

/// The most bytes that a header of a server's frame takes: no mask, 64-bit length.
pub const MAX_SERVER_HEADER_BYTES: usize = 10;

/// Largest payload of a control frame.
pub const MAX_CONTROL_PAYLOAD_BYTES: usize = 125;

/// The opcodes that RFC 6455 defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    /// Returns the opcode of four bits, or `None` for a reserved one.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Returns its four bits.
    pub fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Returns whether this opcode may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// Writes the header of a whole, unmasked frame with `len` bytes of payload.
pub fn put_header(out: &mut BytesMut, opcode: Opcode, len: usize) {
    const FIN: u8 = 0x80;
    out.put_u8(FIN | opcode.bits());
    if len <= MAX_CONTROL_PAYLOAD_BYTES {
        out.put_u8(len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.put_u8(126);
        out.put_u16(len);
    } else {
        out.put_u8(127);
        out.put_u64(len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_its_shortest_form() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65535, vec![0x81, 126, 0xff, 0xff]),
            (65536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            put_header(&mut out, Opcode::Text, len);
            assert_eq!(out, header, "{len}");
        }
    }

    #[test]
    fn opcodes_round_trip_and_reserved_ones_are_none() {
        for bits in 0..16 {
            match Opcode::from_bits(bits) {
                Some(opcode) => assert_eq!(opcode.bits(), bits),
                None => assert!(matches!(bits, 3..=7 | 11..=15), "{bits}"),
            }
        }
    }
}
