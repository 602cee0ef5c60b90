//! A session in the form in which it crosses to another instance: everything that is known of a client, and nothing of this process.
//!
//! Pure: plain values, and the bytes that they are written as. Who takes a session apart and puts one together again is the Socket
//! actor's business; when, is the relay's.
//!
//! ```text
//! portable = length (4 bytes, big-endian) JSON blob…        the JSON says how long each blob is
//! ```
//! Blobs are binary arguments, in the order in which the JSON speaks of them. Texts stand in the JSON.
//!
//! Limits: [`MAX_BYTES`] in all, and what holds for a session wherever it lives, save what is set for an instance: that is for whoever puts
//! it together. What breaks one is an error, never a part of a session; a list is refused at the first thing too many in it.

use std::{collections::HashSet, fmt, marker::PhantomData, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    acks::MAX_AWAITED,
    actor::MAX_NAMESPACES,
    handshake::Handshake,
    membership::{BEHIND_AN_ACK, MAX_QUEUED_EVENTS},
    running::MAX_RUNNING,
};
use crate::{
    detached::detached,
    engine_io::{dialect::Revision, handshake::MAX_QUERY_PAIRS, packet::Message, sid::Sid},
    socket_io::{
        args::Args,
        decoder::{AckId, MAX_ATTACHMENTS, check_placeholders},
        ids::{Namespace, Pid, Room, SocketId},
        json,
    },
};

/// The form that is written and read here.
const VERSION: u32 = 1;

/// Longest session that crosses. A larger one ends instead.
pub const MAX_BYTES: usize = 24 * 1024 * 1024;

/// Most things of one kind in one session, of those that have no limit of their own; more than any session can have.
const MAX_ITEMS: usize = 1 << 20;

/// Most events of one namespace that wait for their handlers.
const MAX_QUEUED: usize = MAX_QUEUED_EVENTS * BEHIND_AN_ACK;

/// Most messages of a packet that is not whole.
const MAX_UNFINISHED: usize = 1 + MAX_ATTACHMENTS;

/// Most headers of a request; more than any that came by HTTP can have.
const MAX_HEADERS: usize = 1000;

/// Bytes of the request that opened a session, as it is kept: its head, and its query once more, of which a byte may have become three. More
/// than one that opens a session can have.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;

/// What is known of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Portable {
    /// Its id, which it keeps.
    pub sid: Sid,
    /// The revision that its client speaks.
    pub revision: Revision,
    /// Whether Engine.IO alone is spoken.
    pub is_bare: bool,
    /// The request that opened it.
    pub handshake: Handshake,
    /// Its heartbeat.
    pub heartbeat: Heartbeat,
    /// How long it still has to join a namespace, if it must.
    pub connect_within: Option<Duration>,
    /// Messages of a packet of its client whose rest is still to come.
    pub unfinished: Vec<Message>,
    /// What its client was sent and has not got.
    pub undelivered: Vec<Undelivered>,
    /// Namespaces that it wants to join.
    pub admissions: Vec<PortableAdmission>,
    /// Namespaces that it is in.
    pub memberships: Vec<PortableMembership>,
}

/// Where the heartbeat stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heartbeat {
    /// The next ping is due after so many milliseconds.
    PingInMs(u64),
    /// A pong, or in revision 3 a ping, must come within so many milliseconds.
    HeardWithinMs(u64),
}

/// A message on its way to the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The text packet, its type digit included.
    pub text: Option<Bytes>,
    /// The binary messages that follow it.
    pub attachments: Vec<Bytes>,
}

/// A wish to join a namespace, not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct PortableAdmission {
    /// Which namespace.
    pub namespace: Namespace,
    /// What the client brings: a JSON object text.
    pub auth: Option<String>,
}

/// A namespace that the client is in.
#[derive(Clone, PartialEq, Eq)]
pub struct PortableMembership {
    /// Which namespace.
    pub namespace: Namespace,
    /// The client's public id there.
    pub id: SocketId,
    /// What the application remembers of it: JSON text.
    pub data: String,
    /// Its rooms, without the one that its id names.
    pub rooms: HashSet<Room>,
    /// Whether the client has sent anything in it.
    pub has_heard_client: bool,
    /// Whether its gateway has yet to be told that the client is there.
    pub is_new: bool,
    /// Handlers that still run where the session comes from, in the order of their start.
    pub running: Vec<PortableCall>,
    /// Events that wait for their handlers.
    pub queue: Vec<PortableEvent>,
    /// Acks that the client owes, to somebody where the session comes from.
    pub awaited: Vec<AckId>,
    /// Present if the client may come back to it after a disconnection.
    pub standing: Option<PortableStanding>,
}

/// What makes a client that comes back known again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableStanding {
    /// What it must show.
    pub pid: Pid,
    /// What `authorize` returned for it: JSON text.
    pub authorized: String,
    /// The last offset that it was sent where the session comes from.
    pub offset: String,
    /// Whether it has come back once.
    pub is_recovered: bool,
}

/// A handler that runs where the session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableCall {
    /// By which its end is told.
    pub number: u32,
    /// The ack that it owes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckId>,
    /// Whether it is the one that greets the client, before which no other may begin.
    pub is_connecting: bool,
}

/// An event that waits for its handler.
#[derive(Clone, PartialEq, Eq)]
pub struct PortableEvent {
    /// Its name.
    pub name: String,
    /// Name and arguments.
    pub args: Args,
    /// The ack that the client wants.
    pub ack: Option<AckId>,
}

/// Why bytes are no session.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// They are too few, or too many.
    #[error("{len} bytes where {expected} were announced")]
    Length {
        /// How many there are.
        len: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The session is larger than may cross.
    #[error("{len} bytes, and {MAX_BYTES} may cross")]
    TooLarge {
        /// How many.
        len: usize,
    },
    /// The JSON is none, or says other things.
    #[error("head is malformed")]
    Head(#[source] serde_json::Error),
    /// It is of another release.
    #[error("version {0}, and {VERSION} is spoken here")]
    Version(u32),
    /// A value is not what it must be.
    #[error("{0} is malformed")]
    Value(&'static str),
}

impl Portable {
    /// Writes it.
    ///
    /// # Errors
    /// [`PortableError::TooLarge`].
    pub fn encode(&self) -> Result<Bytes, PortableError> {
        let mut blobs = Blobs::default();
        let head = Head {
            v: VERSION,
            sid: self.sid.as_str().to_owned(),
            eio: match self.revision {
                Revision::V3 => 3,
                Revision::V4 => 4,
            },
            bare: self.is_bare,
            handshake: HandshakeText::of(&self.handshake),
            heartbeat: self.heartbeat,
            connect_within_ms: self.connect_within.map(millis),
            unfinished: self
                .unfinished
                .iter()
                .map(|message| match message {
                    Message::Text(text) => MessageText::Text(text.to_string()),
                    Message::Binary(bytes) => {
                        blobs.add(bytes);
                        MessageText::Binary
                    }
                })
                .collect(),
            undelivered: self
                .undelivered
                .iter()
                .map(|message| UndeliveredText {
                    text: message.text.as_deref().map(lossy),
                    attachments: blobs.add_all(&message.attachments),
                })
                .collect(),
            admissions: self
                .admissions
                .iter()
                .map(|admission| AdmissionText {
                    nsp: admission.namespace.clone(),
                    auth: admission.auth.clone(),
                })
                .collect(),
            memberships: self
                .memberships
                .iter()
                .map(|membership| membership.text(&mut blobs))
                .collect(),
            blobs: Vec::new(),
        };
        let head = Head {
            blobs: blobs.lens,
            ..head
        };
        let head = serde_json::to_vec(&head).map_err(PortableError::Head)?;
        let len = 4 + head.len() + blobs.bytes.len();
        if len > MAX_BYTES {
            return Err(PortableError::TooLarge { len });
        }
        let mut written = BytesMut::with_capacity(len);
        written.put_u32(u32::try_from(head.len()).or(Err(PortableError::TooLarge { len }))?);
        written.extend_from_slice(&head);
        written.extend_from_slice(&blobs.bytes);
        Ok(written.freeze())
    }

    /// Reads one.
    ///
    /// # Errors
    /// See [`PortableError`].
    pub fn decode(mut bytes: Bytes) -> Result<Self, PortableError> {
        let len = bytes.len();
        if len > MAX_BYTES {
            return Err(PortableError::TooLarge { len });
        }
        let head_len = bytes.try_get_u32().map_or(usize::MAX, |len| len as usize);
        if head_len > bytes.len() {
            let expected = head_len.saturating_add(4);
            return Err(PortableError::Length { len, expected });
        }
        let head = bytes.split_to(head_len);
        let AnyHead { v } = serde_json::from_slice(&head).map_err(PortableError::Head)?;
        if v != VERSION {
            return Err(PortableError::Version(v));
        }
        let head: Head = serde_json::from_slice(&head).map_err(PortableError::Head)?;
        let announced = head
            .blobs
            .iter()
            .fold(0_usize, |sum, len| sum.saturating_add(*len as usize));
        if announced != bytes.len() {
            let expected = announced.saturating_add(4 + head_len);
            return Err(PortableError::Length { len, expected });
        }
        let mut blobs = Unread {
            lens: head.blobs.into_iter(),
            whole_len: bytes.len(),
            bytes,
        };
        let unfinished = head.unfinished.into_iter().map(|message| match message {
            MessageText::Text(text) => Ok(Message::Text(text.into())),
            MessageText::Binary => blobs.take().map(Message::Binary),
        });
        let unfinished = unfinished.collect::<Result<_, _>>()?;
        let undelivered = head.undelivered.into_iter().map(|message| {
            Ok(Undelivered {
                text: message.text.map(Bytes::from),
                attachments: blobs.take_all(message.attachments)?,
            })
        });
        let undelivered = undelivered.collect::<Result<_, _>>()?;
        let memberships = head
            .memberships
            .into_iter()
            .map(|membership| membership.read(&mut blobs));
        let memberships = memberships.collect::<Result<_, _>>()?;
        if blobs.lens.next().is_some() {
            return Err(PortableError::Value("blobs"));
        }
        let admissions = head.admissions.into_iter().map(|admission| {
            let is_sound = admission
                .auth
                .as_deref()
                .is_none_or(|auth| json::check_object(auth).is_ok());
            is_sound
                .then_some(PortableAdmission {
                    namespace: admission.nsp,
                    auth: admission.auth,
                })
                .ok_or(PortableError::Value("auth"))
        });
        Ok(Self {
            sid: Sid::parse(&head.sid).ok_or(PortableError::Value("sid"))?,
            revision: match head.eio {
                3 => Revision::V3,
                4 => Revision::V4,
                _ => return Err(PortableError::Value("eio")),
            },
            is_bare: head.bare,
            handshake: head.handshake.read()?,
            heartbeat: head.heartbeat,
            connect_within: head.connect_within_ms.map(Duration::from_millis),
            unfinished,
            undelivered,
            admissions: admissions.collect::<Result<_, _>>()?,
            memberships,
        })
    }
}

impl PortableMembership {
    fn text(&self, blobs: &mut Blobs) -> MembershipText {
        MembershipText {
            nsp: self.namespace.clone(),
            id: self.id.clone(),
            data: raw(&self.data),
            rooms: self.rooms.iter().cloned().collect(),
            heard: self.has_heard_client,
            new: self.is_new,
            running: self.running.clone(),
            queue: self
                .queue
                .iter()
                .map(|event| EventText {
                    name: event.name.clone(),
                    json: event.args.json().to_owned(),
                    attachments: blobs.add_all(event.args.attachments()),
                    ack: event.ack,
                })
                .collect(),
            awaited: self.awaited.clone(),
            standing: self.standing.clone(),
        }
    }
}

impl MembershipText {
    fn read(self, blobs: &mut Unread) -> Result<PortableMembership, PortableError> {
        let queue = self.queue.into_iter().map(|event| {
            let attachments = blobs.take_all(event.attachments)?;
            let is_sound = json::check_array(&event.json).is_ok()
                && (attachments.is_empty()
                    || check_placeholders(&event.json, attachments.len()).is_ok());
            if !is_sound {
                return Err(PortableError::Value("event"));
            }
            Ok(PortableEvent {
                name: event.name,
                args: Args::from_parts(event.json.into(), attachments),
                ack: event.ack,
            })
        });
        Ok(PortableMembership {
            queue: queue.collect::<Result<_, PortableError>>()?,
            namespace: self.nsp,
            id: self.id,
            data: self.data.get().to_owned(),
            rooms: self.rooms.into_iter().collect(),
            has_heard_client: self.heard,
            is_new: self.new,
            running: self.running,
            awaited: self.awaited,
            standing: self.standing,
        })
    }
}

// ---- the JSON ----

#[derive(Deserialize)]
struct AnyHead {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Head {
    v: u32,
    sid: String,
    eio: u8,
    bare: bool,
    handshake: HandshakeText,
    heartbeat: Heartbeat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect_within_ms: Option<u64>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_UNFINISHED>")]
    unfinished: Vec<MessageText>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_ITEMS>")]
    undelivered: Vec<UndeliveredText>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_NAMESPACES>")]
    admissions: Vec<AdmissionText>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_NAMESPACES>")]
    memberships: Vec<MembershipText>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_ITEMS>")]
    blobs: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct HandshakeText {
    address: String,
    url: String,
    issued_ms: u64,
    #[serde(deserialize_with = "at_most::<_, _, MAX_HEADERS>")]
    headers: Vec<(String, String)>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_QUERY_PAIRS>")]
    query: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MessageText {
    Text(String),
    Binary,
}

#[derive(Serialize, Deserialize)]
struct UndeliveredText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    attachments: usize,
}

#[derive(Serialize, Deserialize)]
struct AdmissionText {
    nsp: Namespace,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct MembershipText {
    nsp: Namespace,
    id: SocketId,
    data: Box<RawValue>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_ITEMS>")]
    rooms: Vec<Room>,
    heard: bool,
    new: bool,
    #[serde(deserialize_with = "at_most::<_, _, MAX_RUNNING>")]
    running: Vec<PortableCall>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_QUEUED>")]
    queue: Vec<EventText>,
    #[serde(deserialize_with = "at_most::<_, _, MAX_AWAITED>")]
    awaited: Vec<AckId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    standing: Option<PortableStanding>,
}

#[derive(Serialize, Deserialize)]
struct EventText {
    name: String,
    json: String,
    attachments: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ack: Option<AckId>,
}

impl HandshakeText {
    fn of(handshake: &Handshake) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            address: handshake.address.clone(),
            url: handshake.url.clone(),
            issued_ms: handshake
                .issued
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, millis),
            headers: handshake.headers().map(owned).collect(),
            query: handshake.queries().map(owned).collect(),
        }
    }

    fn len_bytes(&self) -> usize {
        let pairs = self.headers.iter().chain(&self.query);
        let texts = pairs.map(|(name, value)| name.len() + value.len());
        self.address.len() + self.url.len() + texts.sum::<usize>()
    }

    fn read(self) -> Result<Handshake, PortableError> {
        if self.len_bytes() > MAX_HANDSHAKE_BYTES {
            return Err(PortableError::Value("handshake"));
        }
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        let mut handshake = Handshake::new(
            self.address,
            self.url,
            headers,
            self.query.into_iter().collect(),
        );
        let issued = Duration::from_millis(self.issued_ms);
        if let Some(issued) = std::time::UNIX_EPOCH.checked_add(issued) {
            handshake.issued = issued;
        }
        Ok(handshake)
    }
}

/// Reads a list of at most `N` things. What is longer takes no more memory than that before it is refused.
pub(crate) fn at_most<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const N: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {N}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == N {
                    return Err(A::Error::invalid_length(N + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, N>(PhantomData))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

// ---- the blobs ----

#[derive(Default)]
struct Blobs {
    lens: Vec<u32>,
    bytes: BytesMut,
}

impl Blobs {
    fn add(&mut self, blob: &[u8]) {
        // One that is longer makes the whole too large, which is found out at the end.
        self.lens
            .push(u32::try_from(blob.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(blob);
    }

    fn add_all(&mut self, blobs: &[Bytes]) -> usize {
        blobs.iter().for_each(|blob| self.add(blob));
        blobs.len()
    }
}

struct Unread {
    lens: std::vec::IntoIter<u32>,
    bytes: Bytes,
    whole_len: usize,
}

impl Unread {
    fn take(&mut self) -> Result<Bytes, PortableError> {
        let len = self.lens.next().map(|len| len as usize);
        let len = len.filter(|len| *len <= self.bytes.len());
        len.map(|len| detached(self.bytes.split_to(len), self.whole_len))
            .ok_or(PortableError::Value("blob"))
    }

    fn take_all(&mut self, num: usize) -> Result<Vec<Bytes>, PortableError> {
        // The first one missing ends it.
        (0..num).map(|_| self.take()).collect()
    }
}

impl fmt::Debug for Portable {
    /// Without what clients sent and are sent, and without the ids of sessions, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portable")
            .field("sid", &self.sid)
            .field("num_undelivered", &self.undelivered.len())
            .field("num_admissions", &self.admissions.len())
            .field("num_memberships", &self.memberships.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::sid::InstanceId;

    fn session() -> Portable {
        let headers = [("host", "a"), ("cookie", "hidden=1")];
        let query = [("k", "1")];
        let mut handshake = Handshake::new(
            "127.0.0.1".to_owned(),
            "/socket.io/?k=1".to_owned(),
            headers.into_iter(),
            query.into_iter().collect(),
        );
        handshake.issued = std::time::UNIX_EPOCH + Duration::from_millis(1_795_413_399_990);
        let (one, two, three) = (
            Bytes::from_static(&[1]),
            Bytes::new(),
            Bytes::from_static(&[3, 3, 3]),
        );
        Portable {
            sid: Sid::random(InstanceId::random().unwrap()).unwrap(),
            revision: Revision::V4,
            is_bare: false,
            handshake,
            heartbeat: Heartbeat::PingInMs(17),
            connect_within: Some(Duration::from_millis(45_000)),
            unfinished: vec![
                Message::Text("52-[\"x\"]".into()),
                Message::Binary(one.clone()),
            ],
            undelivered: vec![
                Undelivered {
                    text: Some(Bytes::from_static("42[\"é\"]".as_bytes())),
                    attachments: vec![two.clone(), three.clone()],
                },
                Undelivered {
                    text: None,
                    attachments: vec![one.clone()],
                },
            ],
            admissions: vec![PortableAdmission {
                namespace: "/admin".into(),
                auth: Some(r#"{"token":"hidden"}"#.to_owned()),
            }],
            memberships: vec![PortableMembership {
                namespace: "/chat".into(),
                id: "12345678901234567890".into(),
                data: r#"{"user": "hidden", "n":5.0}"#.to_owned(),
                rooms: HashSet::from(["red".into(), "a b#".into()]),
                has_heard_client: true,
                is_new: false,
                running: vec![PortableCall {
                    number: 3,
                    ack: Some(AckId(u64::MAX)),
                    is_connecting: false,
                }],
                queue: vec![PortableEvent {
                    name: "say".to_owned(),
                    args: Args::from_parts(
                        r#"["say",5.0,{"_placeholder":true,"num":0}]"#.into(),
                        vec![three],
                    ),
                    ack: Some(AckId(0)),
                }],
                awaited: vec![AckId(7)],
                standing: Some(PortableStanding {
                    pid: Pid::parse("hiddenhiddenhiddenhi").unwrap(),
                    authorized: r#"{"user":"hidden"}"#.to_owned(),
                    offset: "k3J9x_-a17".to_owned(),
                    is_recovered: true,
                }),
            }],
        }
    }

    #[test]
    fn a_session_crosses_as_it_is() {
        let session = session();
        let bytes = session.encode().unwrap();
        let read = Portable::decode(bytes).unwrap();
        assert!(read == session, "{read:?}");
    }

    #[test]
    fn cut_off_or_longer_bytes_are_no_session() {
        let bytes = session().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Portable::decode(bytes.slice(..len)).is_err(), "{len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        let err = Portable::decode(longer.into()).unwrap_err();
        assert!(matches!(err, PortableError::Length { .. }), "{err}");
    }

    /// Changes the head of a good session.
    fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Result<Portable, PortableError> {
        let mut bytes = session().encode().unwrap();
        let len = bytes.get_u32() as usize;
        let mut head = serde_json::from_slice(&bytes.split_to(len)).unwrap();
        change(&mut head);
        let head = serde_json::to_vec(&head).unwrap();
        let mut written = BytesMut::new();
        written.put_u32(head.len() as u32);
        written.extend_from_slice(&head);
        written.extend_from_slice(&bytes);
        Portable::decode(written.freeze())
    }

    #[test]
    fn what_no_session_can_be_is_refused() {
        assert!(changed(|_| {}).is_ok());
        let version = changed(|head| head["v"] = 2.into()).unwrap_err();
        assert!(matches!(version, PortableError::Version(2)), "{version}");
        for (key, value) in [
            ("sid", serde_json::json!("short")),
            ("eio", 5.into()),
            ("blobs", serde_json::json!([1, 0, 3, 1, 2, 1])),
            ("blobs", serde_json::json!([8])),
            (
                "undelivered",
                serde_json::json!([{"attachments": 1_u64 << 40}]),
            ),
            ("unfinished", serde_json::json!([])),
            (
                "admissions",
                serde_json::json!([{"nsp": "/", "auth": "[]"}]),
            ),
        ] {
            assert!(changed(|head| head[key] = value.clone()).is_err(), "{key}");
        }
        let event = |head: &mut serde_json::Value, json: &str| {
            head["memberships"][0]["queue"][0]["json"] = json.into();
        };
        for json in ["{}", "[", r#"["say"]"#] {
            let refused = changed(|head| event(head, json));
            assert!(
                matches!(refused, Err(PortableError::Value("event"))),
                "{json}"
            );
        }
    }

    /// A bug: two bytes for an ack that is awaited became a task, and a state of 24 MiB twelve million of them.
    #[test]
    fn no_list_is_longer_than_that_of_a_session_can_be() {
        let pair = serde_json::json!(["", ""]);
        let call = serde_json::json!({"number": 0, "is_connecting": false});
        let event = serde_json::json!({"name": "", "json": "[\"\"]", "attachments": 0});
        let nothing = serde_json::json!({"nsp": "/"});
        let binary = serde_json::json!("binary");
        let of_session = [
            ("/handshake/headers", pair.clone(), MAX_HEADERS),
            ("/handshake/query", pair, MAX_QUERY_PAIRS),
            ("/admissions", nothing, MAX_NAMESPACES),
            ("/memberships/0/running", call, MAX_RUNNING),
            ("/memberships/0/queue", event, 1024),
            ("/memberships/0/awaited", 1.into(), 1024),
        ];
        // As many as there may be cannot be had without what they are made of, or belong to each other.
        let of_parts = [
            ("/unfinished", binary, MAX_UNFINISHED),
            (
                "/undelivered",
                serde_json::json!({"attachments": 0}),
                MAX_ITEMS,
            ),
            ("/memberships", serde_json::Value::Null, MAX_NAMESPACES),
            ("/memberships/0/rooms", "".into(), MAX_ITEMS),
            ("/blobs", 0.into(), MAX_ITEMS),
        ];
        let with = |list: &str, item: &serde_json::Value, num: usize| {
            changed(|head| {
                // The blob of the event that was there goes to the one before.
                if list.ends_with("queue") {
                    head["undelivered"][1]["attachments"] = 2.into();
                }
                let membership = head["memberships"][0].clone();
                let item = if item.is_null() { &membership } else { item };
                *head.pointer_mut(list).unwrap() = vec![item.clone(); num].into();
            })
        };
        for (list, item, max) in &of_session {
            assert!(with(list, item, *max).is_ok(), "{list}");
        }
        for (list, item, max) in of_session.iter().chain(&of_parts) {
            let refused = with(list, item, max + 1).unwrap_err();
            let text = format!("{refused:?}");
            let expected = format!("invalid length {}", max + 1);
            assert!(text.contains(&expected), "{list}: {text}");
        }
    }

    #[test]
    fn a_request_is_no_longer_than_one_can_be() {
        for (len, is_sound) in [
            (MAX_HANDSHAKE_BYTES - 100, true),
            (MAX_HANDSHAKE_BYTES, false),
        ] {
            let long = || "x".repeat(len);
            let text = |head: &mut serde_json::Value, at: &str| {
                *head.pointer_mut(at).unwrap() = long().into();
            };
            for at in ["/handshake/url", "/handshake/address"] {
                assert_eq!(changed(|head| text(head, at)).is_ok(), is_sound, "{at}");
            }
            for at in ["/handshake/headers", "/handshake/query"] {
                let read = changed(|head| {
                    *head.pointer_mut(at).unwrap() = serde_json::json!([["k", long()]]);
                });
                assert_eq!(read.is_ok(), is_sound, "{at}");
            }
        }
    }

    #[test]
    fn a_session_that_is_too_large_stays() {
        let mut session = session();
        session.undelivered.push(Undelivered {
            text: None,
            attachments: vec![vec![0; MAX_BYTES].into()],
        });
        let err = session.encode().unwrap_err();
        assert!(matches!(err, PortableError::TooLarge { .. }), "{err}");
    }

    #[test]
    fn secrets_stay_out_of_debug_texts() {
        assert!(!format!("{:?}", session()).contains("hidden"));
    }
}
