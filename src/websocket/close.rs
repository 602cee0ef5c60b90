//! Close codes, and the frame that says one.
//!
//! Pure. Source: RFC 6455, 5.5.1 and 7.4; the codes that the HTTP crates define are taken from them.

pub use actix_web_actors::ws::CloseCode;
use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, MAX_CONTROL_PAYLOAD_BYTES, Opcode};

/// What a close frame says: nothing, or a code and a text for the developer at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// `None` sends a frame without a status, which a browser reports as 1005.
    pub code: Option<CloseCode>,
    /// Cut to 123 bytes on the wire.
    pub reason: String,
}

impl CloseFrame {
    /// A close frame without a status: how Engine.IO ends a WebSocket that did nothing wrong at this layer.
    pub const BARE: Self = Self {
        code: None,
        reason: String::new(),
    };

    /// Encodes the frame.
    pub fn encode(&self) -> Bytes {
        const CODE_BYTES: usize = 2;
        let mut out = BytesMut::new();
        match self.code {
            None => frame::put_header(&mut out, Opcode::Close, 0),
            Some(code) => {
                let mut len = self
                    .reason
                    .len()
                    .min(MAX_CONTROL_PAYLOAD_BYTES - CODE_BYTES);
                while !self.reason.is_char_boundary(len) {
                    len -= 1;
                }
                let reason = self.reason.get(..len).unwrap_or_default();
                frame::put_header(&mut out, Opcode::Close, CODE_BYTES + reason.len());
                out.put_u16(code.into());
                out.put_slice(reason.as_bytes());
            }
        }
        out.freeze()
    }
}

/// Returns whether a peer may send this code: the defined ones, and those for libraries and applications.
pub fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_close_has_no_payload() {
        assert_eq!(CloseFrame::BARE.encode(), [0x88, 0].as_slice());
    }

    #[test]
    fn code_and_reason_are_written_and_a_long_reason_is_cut_at_a_character() {
        let frame = CloseFrame {
            code: Some(CloseCode::Size),
            reason: "big".into(),
        };
        assert_eq!(
            frame.encode(),
            [0x88, 5, 0x03, 0xf1, b'b', b'i', b'g'].as_slice()
        );
        let frame = CloseFrame {
            code: Some(CloseCode::Size),
            reason: "€".repeat(100),
        };
        assert_eq!(frame.encode().len(), 2 + 2 + 123);
    }

    #[test]
    fn codes_that_never_travel_may_not_be_received() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535] {
            assert!(!may_be_received(code), "{code}");
        }
        for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
            assert!(may_be_received(code), "{code}");
        }
    }
}
