//! What crosses between two instances for one polling request: a line of JSON, and the bytes of a body behind it.
//!
//! Pure. Only Sockhop reads and writes it. `v`, `id`, `from` and `"type":"error"` are the same in every version, so that an
//! instance of another release can be told that it is not understood.
//!
//! ```text
//! {"v":1,"id":7,"from":"Ab3dE6gH","type":"poll","sid":"…","eio":4}
//! {"v":1,"id":8,"from":"Ab3dE6gH","type":"post","sid":"…","eio":4}
//! {"v":1,"id":8,"from":"Ab3dE6gH","type":"body","is_binary":false}⏎4hello
//! {"v":1,"id":7,"from":"Zy9xW7vU","type":"payload","is_binary":false}⏎4hi
//! ```
//! Limits: the body is whatever the bridge lets in (64 MiB); the line [`MAX_LINE_BYTES`].

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine_io::{dialect::Revision, sid::InstanceId};

/// The version that is spoken here.
pub const VERSION: u32 = 1;
/// Longest line that is taken.
pub const MAX_LINE_BYTES: usize = 1024;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin with a line of JSON that says what it is.
    #[error("no header")]
    Header(#[source] serde_json::Error),
    /// The line is too long, or no UTF-8.
    #[error("header line is too long")]
    Line,
    /// It is of another release.
    #[error("version {version}, and {VERSION} is spoken here")]
    Version {
        /// Which.
        version: u32,
        /// Whose message it is, if that can be read.
        envelope: Option<Envelope>,
        /// Whether it is an error, to which nothing may be answered.
        is_error: bool,
    },
    /// The sender's name can be none.
    #[error("sender has no name")]
    From,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The caller's number for the request, the same in all messages about it.
    pub id: u64,
    /// Who sent this message.
    pub from: InstanceId,
}

/// Bytes behind the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Whether they are in the binary form of revision 3.
    pub is_binary: bool,
    /// The bytes.
    pub bytes: Bytes,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the caller.
    Request(Request),
    /// From the host.
    Answer(Answer),
}

/// What the caller says.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// A GET.
    Poll {
        /// Of which session; any text.
        sid: String,
        /// In which revision.
        revision: Revision,
    },
    /// The head of a POST.
    Post {
        /// Of which session; any text.
        sid: String,
        /// In which revision.
        revision: Revision,
    },
    /// The body of that POST.
    Body(Body),
    /// It was over the limit, and the client was told so.
    TooLarge,
    /// It was of a type that the revision does not know.
    WrongType,
    /// The client went away.
    Abort {
        /// Of a GET, the session: if the answer was on its way already, nobody got it.
        sid: Option<String>,
    },
}

impl fmt::Debug for Request {
    /// Without the ids of sessions, which are secrets, and without what clients sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll { .. } => "Poll",
            Self::Post { .. } => "Post",
            Self::Body(_) => "Body",
            Self::TooLarge => "TooLarge",
            Self::WrongType => "WrongType",
            Self::Abort { .. } => "Abort",
        })
    }
}

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with this payload.
    Payload(Body),
    /// 200 `ok`.
    Ok,
    /// 400 with nothing: another request of the kind was under way.
    Refused,
    /// 400 with the error of this code.
    Error {
        /// Of the protocol's table.
        code: u8,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    v: u32,
    id: u64,
    from: String,
    #[serde(flatten)]
    kind: Kind,
}

/// What every version has.
#[derive(Deserialize)]
struct AnyLine {
    v: u32,
    id: Option<u64>,
    from: Option<String>,
    r#type: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind {
    Poll {
        sid: String,
        eio: u8,
    },
    Post {
        sid: String,
        eio: u8,
    },
    Body {
        is_binary: bool,
    },
    TooLarge,
    WrongType,
    Abort {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sid: Option<String>,
    },
    Payload {
        is_binary: bool,
    },
    Ok,
    Refused,
    Error {
        code: u8,
    },
}

fn eio(revision: Revision) -> u8 {
    match revision {
        Revision::V3 => 3,
        Revision::V4 => 4,
    }
}

/// As in a query: what is not 4 is 3.
fn revision(eio: u8) -> Revision {
    if eio == 4 { Revision::V4 } else { Revision::V3 }
}

/// Writes a message.
pub fn encode(envelope: &Envelope, message: &Message) -> Bytes {
    let (kind, body) = match message {
        Message::Request(Request::Poll { sid, revision }) => {
            let (sid, eio) = (sid.clone(), eio(*revision));
            (Kind::Poll { sid, eio }, None)
        }
        Message::Request(Request::Post { sid, revision }) => {
            let (sid, eio) = (sid.clone(), eio(*revision));
            (Kind::Post { sid, eio }, None)
        }
        Message::Request(Request::Body(body)) => {
            let is_binary = body.is_binary;
            (Kind::Body { is_binary }, Some(&body.bytes))
        }
        Message::Request(Request::TooLarge) => (Kind::TooLarge, None),
        Message::Request(Request::WrongType) => (Kind::WrongType, None),
        Message::Request(Request::Abort { sid }) => (Kind::Abort { sid: sid.clone() }, None),
        Message::Answer(Answer::Payload(body)) => {
            let is_binary = body.is_binary;
            (Kind::Payload { is_binary }, Some(&body.bytes))
        }
        Message::Answer(Answer::Ok) => (Kind::Ok, None),
        Message::Answer(Answer::Refused) => (Kind::Refused, None),
        Message::Answer(Answer::Error { code }) => (Kind::Error { code: *code }, None),
    };
    let line = Line {
        v: VERSION,
        id: envelope.id,
        from: envelope.from.as_str().to_owned(),
        kind,
    };
    let mut bytes = serde_json::to_vec(&line).expect("texts and numbers always serialise");
    if let Some(body) = body {
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
    }
    bytes.into()
}

/// Reads a message. Shares the bytes of its body.
///
/// # Errors
/// It is none of this version; see [`DecodeError`].
pub fn decode(bytes: &Bytes) -> Result<(Envelope, Message), DecodeError> {
    let end = bytes.iter().take(MAX_LINE_BYTES).position(|b| *b == b'\n');
    let (line, body) = match end {
        Some(end) => (bytes.slice(..end), bytes.slice(end + 1..)),
        None if bytes.len() <= MAX_LINE_BYTES => (bytes.clone(), Bytes::new()),
        None => return Err(DecodeError::Line),
    };
    let any: AnyLine = serde_json::from_slice(&line).map_err(DecodeError::Header)?;
    if any.v != VERSION {
        let from = any.from.as_deref().and_then(InstanceId::parse);
        return Err(DecodeError::Version {
            version: any.v,
            envelope: any.id.zip(from).map(|(id, from)| Envelope { id, from }),
            is_error: any.r#type.as_deref() == Some("error"),
        });
    }
    let Line { id, from, kind, .. } = serde_json::from_slice(&line).map_err(DecodeError::Header)?;
    let from = InstanceId::parse(&from).ok_or(DecodeError::From)?;
    let whole = |is_binary| Body {
        is_binary,
        bytes: body,
    };
    let message = match kind {
        Kind::Poll { sid, eio } => Message::Request(Request::Poll {
            sid,
            revision: revision(eio),
        }),
        Kind::Post { sid, eio } => Message::Request(Request::Post {
            sid,
            revision: revision(eio),
        }),
        Kind::Body { is_binary } => Message::Request(Request::Body(whole(is_binary))),
        Kind::TooLarge => Message::Request(Request::TooLarge),
        Kind::WrongType => Message::Request(Request::WrongType),
        Kind::Abort { sid } => Message::Request(Request::Abort { sid }),
        Kind::Payload { is_binary } => Message::Answer(Answer::Payload(whole(is_binary))),
        Kind::Ok => Message::Answer(Answer::Ok),
        Kind::Refused => Message::Answer(Answer::Refused),
        Kind::Error { code } => Message::Answer(Answer::Error { code }),
    };
    Ok((Envelope { id, from }, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: 7,
            from: InstanceId::parse("Ab3-E_gH").unwrap(),
        }
    }

    fn body(bytes: &'static [u8]) -> Body {
        Body {
            is_binary: true,
            bytes: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let sid = "Ab3dE6gH0123456789012345678901".to_owned();
        let aborted = Some(sid.clone());
        let revision = Revision::V3;
        let poll = Request::Poll {
            sid: sid.clone(),
            revision,
        };
        for message in [
            Message::Request(poll.clone()),
            Message::Request(Request::Post { sid, revision }),
            Message::Request(Request::Body(body(b"a\nb\x00\xff"))),
            Message::Request(Request::Body(body(b""))),
            Message::Request(Request::TooLarge),
            Message::Request(Request::WrongType),
            Message::Request(Request::Abort { sid: None }),
            Message::Request(Request::Abort { sid: aborted }),
            Message::Answer(Answer::Payload(body(b"4hi"))),
            Message::Answer(Answer::Ok),
            Message::Answer(Answer::Refused),
            Message::Answer(Answer::Error { code: 3 }),
        ] {
            let bytes = encode(&envelope(), &message);
            assert_eq!(decode(&bytes).unwrap(), (envelope(), message));
        }
        assert_eq!(
            encode(&envelope(), &Message::Answer(Answer::Payload(body(b"4hi")))),
            &br#"{"v":1,"id":7,"from":"Ab3-E_gH","type":"payload","is_binary":true}
4hi"#[..]
        );
        let text = encode(&envelope(), &Message::Request(poll));
        assert!(
            text.ends_with(br#""type":"poll","sid":"Ab3dE6gH0123456789012345678901","eio":3}"#)
        );
    }

    #[test]
    fn no_log_learns_the_id_of_a_session() {
        let sid = "Ab3dE6gH0123456789012345678901".to_owned();
        let revision = Revision::V4;
        for request in [
            Request::Poll {
                sid: sid.clone(),
                revision,
            },
            Request::Post {
                sid: sid.clone(),
                revision,
            },
            Request::Abort {
                sid: Some(sid.clone()),
            },
        ] {
            assert!(!format!("{:?}", Message::Request(request)).contains("0123456789"));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let refused = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes)).unwrap_err();
        for bytes in [
            &b""[..],
            b"\n",
            b"{}",
            b"[1]",
            b"\xc1",
            br#"{"v":1}"#,
            br#"{"v":1,"id":-1,"from":"Ab3dE6gH","type":"ok"}"#,
            br#"{"v":1,"id":1,"from":"Ab3dE6gH","type":"dance"}"#,
            br#"{"v":1,"id":1,"from":"Ab3dE6gH","type":"poll"}"#,
        ] {
            assert!(
                matches!(refused(bytes), DecodeError::Header(_)),
                "{bytes:?}"
            );
        }
        let line = br#"{"v":1,"id":1,"from":"Ab3dE6g","type":"ok"}"#;
        assert!(matches!(refused(line), DecodeError::From));
        let line = br#"{"v":2,"id":1,"from":"Ab3dE6gH","type":"dance"}"#;
        let err = refused(line);
        assert!(
            matches!(
                err,
                DecodeError::Version {
                    version: 2,
                    envelope: Some(Envelope { id: 1, .. }),
                    is_error: false
                }
            ),
            "{err:?}"
        );
        let err = refused(br#"{"v":3,"id":1,"from":"Ab3dE6gH","type":"error","why":[]}"#);
        assert!(
            matches!(
                err,
                DecodeError::Version {
                    version: 3,
                    is_error: true,
                    ..
                }
            ),
            "{err:?}"
        );
        let err = refused(br#"{"v":3,"from":"?"}"#);
        assert!(
            matches!(
                err,
                DecodeError::Version {
                    version: 3,
                    envelope: None,
                    ..
                }
            ),
            "{err:?}"
        );
        assert!(matches!(refused(&[b' '; 2000]), DecodeError::Line));
    }
}
