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

use super::json;

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

    /// Returns the elements behind the first: what an event carries beside its name.
    pub fn without_name(&self) -> Self {
        let json = self.first().map_or_else(
            || ByteString::from_static("[]"),
            |first| {
                // Where the name's text ends in the whole text; it is a slice of it.
                let end = first.as_ptr() as usize - self.json.as_ptr() as usize + first.len();
                let tail = self.json.get(end..).unwrap_or("]").trim_start();
                let tail = tail.strip_prefix(',').unwrap_or(tail);
                ByteString::from(["[", tail].concat())
            },
        );
        Self {
            json,
            attachments: self.attachments.clone(),
        }
    }

    /// Returns the same with one more element, see [`Self::parts_with_last`].
    pub(super) fn with_last(&self, text: &str) -> Self {
        Self {
            json: self.parts_with_last(text).concat().into(),
            attachments: self.attachments.clone(),
        }
    }

    /// Returns the parts of the JSON array text with one more element, a text that needs no escapes in JSON. There is an element already.
    pub(super) fn parts_with_last<'a>(&'a self, text: &'a str) -> [&'a str; 4] {
        let open = self.json.trim_end();
        let open = open.strip_suffix(']').unwrap_or(open);
        [open, ",\"", text, "\"]"]
    }

    /// Returns the text of the first element: of an event, its name.
    pub fn first(&self) -> Option<&str> {
        json::first_element(&self.json)
    }

    /// Adds the attachments that arrived behind the text.
    pub(super) fn attach(&mut self, attachments: Vec<Bytes>) {
        self.attachments = attachments;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_cut_off_and_the_rest_keeps_its_text() {
        for (json, rest) in [
            (r#"["echo"]"#, "[]"),
            (
                r#"["echo",5.0,{"b":1,"a":[ ]}]"#,
                r#"[5.0,{"b":1,"a":[ ]}]"#,
            ),
            (r#" [ "e,\"]" , 1 ] "#, "[ 1 ] "),
            ("[7,8]", "[8]"),
        ] {
            let args = Args::from_parts(json.into(), vec![Bytes::from_static(&[1])]);
            assert_eq!(args.without_name().json(), rest, "{json}");
            assert_eq!(args.without_name().attachments().len(), 1);
        }
    }

    #[test]
    fn an_offset_stands_behind_all_arguments() {
        for (json, more) in [
            (r#"["a"]"#, r#"["a","o"]"#),
            (r#"[7,[1]]"#, r#"[7,[1],"o"]"#),
            (" [ \"]\" ] \n", " [ \"]\" ,\"o\"]"),
        ] {
            let args = Args::from_parts(json.into(), vec![Bytes::from_static(&[1])]);
            assert_eq!(args.with_last("o").json(), more, "{json}");
            assert!(json::check_array(more).is_ok());
            assert_eq!(args.with_last("o").attachments().len(), 1);
        }
    }
}
