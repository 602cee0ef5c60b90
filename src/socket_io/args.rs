//! Arguments of an event or of an ack: what an application sends and receives.
//!
//! Pure, and cheap to clone: the JSON text travels as it arrived (`5.0` stays `5.0`, keys keep their order), and
//! is neither parsed nor copied on its way from one client to all others. Binary arguments stand beside it.
//!
//! ```text
//! json         ["test-event",{"_placeholder":true,"num":0},5.0]
//! attachments  [ bytes of num 0 ]
//! ```
//! Source: Socket.IO protocol v5, "Event", "Ack", "Packet encoding" (`BINARY_EVENT`, `BINARY_ACK`).

use bytes::Bytes;
use bytestring::ByteString;

/// One JSON array text with the attachments that its placeholders name.
///
/// Of an event, the first element is its name. Without attachments nothing in the text is a placeholder, whatever it
/// looks like; with them, each placeholder's `num` is in range (the decoder saw to that).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    json: ByteString,
    attachments: Vec<Bytes>,
}

impl Args {
    /// Puts together a text and its attachments.
    ///
    /// The caller vouches for the text: one valid JSON array, placeholders in range.
    pub fn from_parts(json: ByteString, attachments: Vec<Bytes>) -> Self {
        Self { json, attachments }
    }

    /// Returns the JSON array text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns the attachments, in the order of their `num`.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Returns how many bytes the text and the attachments take.
    pub fn len_bytes(&self) -> usize {
        self.json.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}
