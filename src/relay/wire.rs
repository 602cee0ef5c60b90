//! What crosses between two instances for one request: a line of JSON, and the bytes of a body behind it.
//!
//! Pure. Only Sockhop reads and writes it. `v`, `id`, `from` and `"type":"error"` are the same in every version, so that an
//! instance of another release can be told that it is not understood.
//!
//! ```text
//! {"v":1,"id":7,"from":"Ab3dE6gH","type":"poll","sid":"…","eio":4}
//! {"v":1,"id":8,"from":"Ab3dE6gH","type":"post","sid":"…","eio":4}
//! {"v":1,"id":8,"from":"Ab3dE6gH","type":"body","is_binary":false}⏎4hello
//! {"v":1,"id":7,"from":"Zy9xW7vU","type":"payload","is_binary":false}⏎4hi
//!
//! {"v":1,"id":9,"from":"Ab3dE6gH","type":"upgrade","sid":"…","eio":4}
//! {"v":1,"id":9,"from":"Zy9xW7vU","type":"ready","uid":"a1B2c3"}⏎["/chat"]
//! {"v":1,"id":9,"from":"Ab3dE6gH","type":"adopt","to":"Zy9xW7vU"}               to all instances
//! {"v":1,"id":9,"from":"Zy9xW7vU","type":"end"}
//! {"v":1,"id":9,"from":"Zy9xW7vU","type":"state"}⏎…                             see `socket::portable`
//! {"v":1,"id":9,"from":"Ab3dE6gH","type":"taken"}
//! ```
//! Limits: the body is whatever the bridge lets in (64 MiB); the line [`MAX_LINE_BYTES`]; namespaces [`MAX_NAMESPACES`], as many as a
//! session can be in: each is listened to.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::{
    engine_io::{dialect::Revision, sid::InstanceId},
    socket::{actor::MAX_NAMESPACES, portable::at_most},
    socket_io::{decoder::AckId, ids::Namespace},
};

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
    /// The marker ADOPT, from the caller, to all instances: it is to have a place in what each of the two hears.
    Adopt {
        /// The host.
        to: InstanceId,
    },
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
    /// A WebSocket that asks to become the transport of a session, which then moves.
    Upgrade {
        /// Of which session; any text.
        sid: String,
        /// In which revision.
        revision: Revision,
    },
    /// It has probed.
    Probed,
    /// The session has come, and lives here from now on, if that is heard.
    Taken,
    /// It is known that it was: the session is not given up here any more.
    Stays,
    /// Its client has acknowledged an event that it was sent where it comes from; or can no more.
    Acked {
        /// Which of its namespaces: the place in [`Portable::memberships`](crate::socket::portable::Portable::memberships).
        at: u32,
        /// Which event.
        id: AckId,
        /// The arguments, see [`pack`]; none if none will come.
        args: Option<Bytes>,
    },
    /// The session has ended.
    Ended,
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
            Self::Upgrade { .. } => "Upgrade",
            Self::Probed => "Probed",
            Self::Taken => "Taken",
            Self::Stays => "Stays",
            Self::Acked { .. } => "Acked",
            Self::Ended => "Ended",
        })
    }
}

/// What the host says.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 with this payload.
    Payload(Body),
    /// 200 `ok`.
    Ok,
    /// 400 with nothing: another request of the kind was under way.
    Refused,
    /// 503 with nothing: the body was more than is left for all clients of the host.
    Crowded,
    /// 400 with the error of this code.
    Error {
        /// Of the protocol's table.
        code: u8,
    },
    /// The WebSocket may probe.
    Ready {
        /// What the host calls itself on the bus.
        uid: String,
        /// The namespaces that the session's sockets are in: the caller must listen to them before it adopts.
        namespaces: Vec<Namespace>,
    },
    /// The marker was in vain: the session is in further namespaces.
    Again {
        /// All of them.
        namespaces: Vec<Namespace>,
    },
    /// The marker END, in line with what the host publishes.
    End,
    /// The session; see [`crate::socket::portable`].
    State(Bytes),
    /// A handler that still ran there has come to its end.
    Done {
        /// Which of the session's namespaces.
        at: u32,
        /// Which handler.
        call: u32,
        /// The arguments of its ack, see [`pack`].
        args: Bytes,
    },
    /// Something that was sent to the client while it left.
    More {
        /// Which of the session's namespaces.
        at: u32,
        /// The packet, see [`pack`].
        packet: Bytes,
    },
    /// Nothing of the session is left there.
    Over,
    /// Something that was said of the session did not get here, and nothing more is to be expected.
    Lost,
    /// A handler that still runs there has changed what the application remembers of the socket.
    Data {
        /// Which of the session's namespaces.
        at: u32,
        /// JSON text.
        json: Bytes,
    },
}

impl fmt::Debug for Answer {
    /// Without what clients and applications sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload(_) => "Payload",
            Self::Ok => "Ok",
            Self::Refused => "Refused",
            Self::Crowded => "Crowded",
            Self::Error { code } => return write!(f, "Error({code})"),
            Self::Ready { .. } => "Ready",
            Self::Again { .. } => "Again",
            Self::End => "End",
            Self::State(_) => "State",
            Self::Done { .. } => "Done",
            Self::More { .. } => "More",
            Self::Data { .. } => "Data",
            Self::Over => "Over",
            Self::Lost => "Lost",
        })
    }
}

/// Most attachments in [`pack`]ed bytes.
const MAX_PACKED: usize = 1000;

/// Writes a text and what is attached to it: the length of each (4 bytes, big-endian) and then its bytes.
pub fn pack(text: &[u8], attachments: &[Bytes]) -> Bytes {
    let all = || std::iter::once(text).chain(attachments.iter().map(|bytes| &bytes[..]));
    let mut packed = BytesMut::with_capacity(all().map(|bytes| 4 + bytes.len()).sum());
    for bytes in all() {
        // What is longer was never let in.
        packed.put_u32(u32::try_from(bytes.len()).unwrap_or_default());
        packed.extend_from_slice(bytes);
    }
    packed.freeze()
}

/// Reads what [`pack`] wrote; `None` if it is something else.
pub fn unpack(mut packed: Bytes) -> Option<(ByteString, Vec<Bytes>)> {
    let mut next = || {
        let len = packed.try_get_u32().ok()? as usize;
        (len <= packed.len()).then(|| packed.split_to(len))
    };
    let text = ByteString::try_from(next()?).ok()?;
    let mut attachments = Vec::new();
    while attachments.len() < MAX_PACKED
        && let Some(attachment) = next()
    {
        attachments.push(attachment);
    }
    packed.is_empty().then_some((text, attachments))
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
    Crowded,
    Error {
        code: u8,
    },
    Upgrade {
        sid: String,
        eio: u8,
    },
    Probed,
    Adopt {
        to: String,
    },
    Taken,
    Stays,
    Acked {
        at: u32,
        ack: AckId,
        is_none: bool,
    },
    Ended,
    Ready {
        uid: String,
    },
    Again,
    End,
    State,
    Done {
        at: u32,
        call: u32,
    },
    More {
        at: u32,
    },
    Data {
        at: u32,
    },
    Over,
    Lost,
}

/// The namespaces of one session.
#[derive(Deserialize)]
#[serde(transparent)]
struct Names {
    #[serde(deserialize_with = "at_most::<_, _, MAX_NAMESPACES>")]
    names: Vec<Namespace>,
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

fn names(namespaces: &[Namespace]) -> Bytes {
    let names = serde_json::to_vec(namespaces).expect("texts always serialise");
    names.into()
}

/// Writes a message.
pub fn encode(envelope: &Envelope, message: &Message) -> Bytes {
    let listed;
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
        Message::Answer(Answer::Crowded) => (Kind::Crowded, None),
        Message::Answer(Answer::Error { code }) => (Kind::Error { code: *code }, None),
        Message::Request(Request::Upgrade { sid, revision }) => {
            let (sid, eio) = (sid.clone(), eio(*revision));
            (Kind::Upgrade { sid, eio }, None)
        }
        Message::Request(Request::Probed) => (Kind::Probed, None),
        Message::Adopt { to } => {
            let to = to.as_str().to_owned();
            (Kind::Adopt { to }, None)
        }
        Message::Request(Request::Taken) => (Kind::Taken, None),
        Message::Request(Request::Stays) => (Kind::Stays, None),
        Message::Request(Request::Acked { at, id, args }) => {
            let (at, ack, is_none) = (*at, *id, args.is_none());
            (Kind::Acked { at, ack, is_none }, args.as_ref())
        }
        Message::Request(Request::Ended) => (Kind::Ended, None),
        Message::Answer(Answer::Ready { uid, namespaces }) => {
            listed = names(namespaces);
            (Kind::Ready { uid: uid.clone() }, Some(&listed))
        }
        Message::Answer(Answer::Again { namespaces }) => {
            listed = names(namespaces);
            (Kind::Again, Some(&listed))
        }
        Message::Answer(Answer::End) => (Kind::End, None),
        Message::Answer(Answer::State(bytes)) => (Kind::State, Some(bytes)),
        Message::Answer(Answer::Done { at, call, args }) => {
            let (at, call) = (*at, *call);
            (Kind::Done { at, call }, Some(args))
        }
        Message::Answer(Answer::More { at, packet }) => (Kind::More { at: *at }, Some(packet)),
        Message::Answer(Answer::Data { at, json }) => (Kind::Data { at: *at }, Some(json)),
        Message::Answer(Answer::Over) => (Kind::Over, None),
        Message::Answer(Answer::Lost) => (Kind::Lost, None),
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
    let listed = || serde_json::from_slice::<Names>(&body).map_err(DecodeError::Header);
    let namespaces = match kind {
        Kind::Ready { .. } | Kind::Again => listed()?.names,
        _ => Vec::new(),
    };
    let whole = |is_binary| Body {
        is_binary,
        bytes: body.clone(),
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
        Kind::Crowded => Message::Answer(Answer::Crowded),
        Kind::Error { code } => Message::Answer(Answer::Error { code }),
        Kind::Upgrade { sid, eio } => Message::Request(Request::Upgrade {
            sid,
            revision: revision(eio),
        }),
        Kind::Probed => Message::Request(Request::Probed),
        Kind::Adopt { to } => Message::Adopt {
            to: InstanceId::parse(&to).ok_or(DecodeError::From)?,
        },
        Kind::Taken => Message::Request(Request::Taken),
        Kind::Stays => Message::Request(Request::Stays),
        Kind::Acked { at, ack, is_none } => Message::Request(Request::Acked {
            at,
            id: ack,
            args: (!is_none).then_some(body),
        }),
        Kind::Ended => Message::Request(Request::Ended),
        Kind::Ready { uid } => Message::Answer(Answer::Ready { uid, namespaces }),
        Kind::Again => Message::Answer(Answer::Again { namespaces }),
        Kind::End => Message::Answer(Answer::End),
        Kind::State => Message::Answer(Answer::State(body)),
        Kind::Done { at, call } => Message::Answer(Answer::Done {
            at,
            call,
            args: body,
        }),
        Kind::More { at } => Message::Answer(Answer::More { at, packet: body }),
        Kind::Data { at } => Message::Answer(Answer::Data { at, json: body }),
        Kind::Over => Message::Answer(Answer::Over),
        Kind::Lost => Message::Answer(Answer::Lost),
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
            Message::Answer(Answer::Crowded),
            Message::Answer(Answer::Error { code: 3 }),
            Message::Request(Request::Upgrade {
                sid: "x".to_owned(),
                revision,
            }),
            Message::Request(Request::Probed),
            Message::Request(Request::Taken),
            Message::Request(Request::Stays),
            Message::Request(Request::Ended),
            acked(Some(pack(b"[1]", &[Bytes::from_static(b"\n\x00")]))),
            acked(None),
            Message::Adopt {
                to: envelope().from,
            },
            Message::Answer(Answer::Ready {
                uid: "a1B2c3".to_owned(),
                namespaces: vec!["/a\n".into()],
            }),
            Message::Answer(Answer::Again {
                namespaces: Vec::new(),
            }),
            Message::Answer(Answer::End),
            Message::Answer(Answer::Over),
            Message::Answer(Answer::Lost),
            Message::Answer(Answer::State(Bytes::from_static(b"\n\x00"))),
            Message::Answer(Answer::Done {
                at: 0,
                call: u32::MAX,
                args: pack(b"[]", &[]),
            }),
            Message::Answer(Answer::More {
                at: 1,
                packet: pack(b"42[]", &[]),
            }),
            Message::Answer(Answer::Data {
                at: 1,
                json: Bytes::from_static(b"{}"),
            }),
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

    fn acked(args: Option<Bytes>) -> Message {
        let (at, id) = (3, AckId(1 << 52));
        Message::Request(Request::Acked { at, id, args })
    }

    #[test]
    fn a_text_and_its_attachments_are_packed_and_nothing_else_is_unpacked() {
        let attachments = [Bytes::from_static(b"\x00"), Bytes::new()];
        let packed = pack("é".as_bytes(), &attachments);
        let unpacked = unpack(packed.clone()).unwrap();
        assert_eq!(
            (&*unpacked.0, unpacked.1.as_slice()),
            ("é", &attachments[..])
        );
        for len in [0, 3, 5, packed.len() - 1] {
            assert_eq!(unpack(packed.slice(..len)), None, "{len}");
        }
        assert_eq!(unpack(pack(b"\xff", &[])), None);
        let many = vec![Bytes::new(); MAX_PACKED + 1];
        assert_eq!(unpack(pack(b"", &many)), None);
    }

    /// A bug: each namespace of a list is listened to, and a list could be as long as Redis carries it.
    #[test]
    fn a_session_is_in_no_more_namespaces_than_it_may_be() {
        let ready = |namespaces| {
            let uid = "a1B2c3".to_owned();
            Answer::Ready { uid, namespaces }
        };
        let again = |namespaces| Answer::Again { namespaces };
        for answer in [ready as fn(_) -> _, again] {
            let read = |num| {
                let namespaces = vec!["/a".into(); num];
                decode(&encode(&envelope(), &Message::Answer(answer(namespaces))))
            };
            assert!(read(MAX_NAMESPACES).is_ok());
            let err = read(MAX_NAMESPACES + 1).unwrap_err();
            assert!(matches!(err, DecodeError::Header(_)), "{err:?}");
        }
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
            Request::Upgrade {
                sid: sid.clone(),
                revision,
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
