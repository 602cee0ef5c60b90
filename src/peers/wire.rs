//! What an instance says of itself on the channel that all instances hear: one line of JSON.
//!
//! Pure. Only Sockhop reads and writes it. `peer`, the version, comes first in every version, and tells these messages from all
//! others there.
//!
//! ```text
//! {"peer":1,"instance":"Ab3dE6gH","uid":"a1B2c3","release":"0.1.0","uptime_ms":61000,"sessions":1200,"hello":true,
//!  "namespaces":["/","/chat"]}                      a beat
//! {"peer":1,"instance":"Ab3dE6gH","bye":true}       the last word
//! ```
//! Limits: [`MAX_BYTES`]; [`MAX_NAMESPACES`], of which more are not told at all; [`MAX_RELEASE_BYTES`].

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{adapter::uid::Uid, engine_io::sid::InstanceId, socket_io::ids::Namespace};

/// The version that is spoken here.
pub const VERSION: u32 = 1;
/// Longest message that is read.
pub const MAX_BYTES: usize = 4096;
/// Most namespaces that a beat tells of.
pub const MAX_NAMESPACES: usize = 64;
/// Longest name of a release.
pub const MAX_RELEASE_BYTES: usize = 64;

/// What every message begins with.
const START: &[u8] = br#"{"peer":"#;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is longer than any can be.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not of the form.
    #[error("no word of an instance")]
    Form(#[source] serde_json::Error),
    /// It is of another release.
    #[error("version {version}, and {VERSION} is spoken here")]
    Version {
        /// Which.
        version: u32,
    },
    /// A name in it can be none.
    #[error("{name} is no name")]
    Name {
        /// Which.
        name: &'static str,
    },
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// That it lives.
    Beat(Beat),
    /// That it is about to end.
    Bye(InstanceId),
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Who it is, to other instances of Sockhop.
    pub instance: InstanceId,
    /// Who it is, to all servers.
    pub uid: Uid,
    /// The version of its program.
    pub release: String,
    /// How long it has run; whole milliseconds cross.
    pub uptime: Duration,
    /// Its load: clients' sessions.
    pub num_sessions: u64,
    /// Whether it would like to hear of all others now, not at their next turn.
    pub is_hello: bool,
    /// The namespaces in which it hears requests; nothing if they are too many to tell.
    pub namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct AnyLine {
    peer: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Line {
    peer: u32,
    instance: String,
    #[serde(default, skip_serializing_if = "is_false")]
    bye: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    hello: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<Vec<Namespace>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Returns whether a message is of this kind, in whatever version.
pub fn is_said(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// Writes a message. Of namespaces that are too many, or would make it longer than [`MAX_BYTES`], it tells nothing.
pub fn encode(said: &Said) -> Bytes {
    let mut line = match said {
        Said::Bye(instance) => Line {
            instance: instance.as_str().to_owned(),
            bye: true,
            ..Line::default()
        },
        Said::Beat(beat) => Line {
            instance: beat.instance.as_str().to_owned(),
            uid: Some(beat.uid.as_str().to_owned()),
            release: Some(beat.release.clone()),
            uptime_ms: Some(u64::try_from(beat.uptime.as_millis()).unwrap_or(u64::MAX)),
            sessions: Some(beat.num_sessions),
            hello: beat.is_hello,
            namespaces: beat
                .namespaces
                .clone()
                .filter(|names| names.len() <= MAX_NAMESPACES),
            ..Line::default()
        },
    };
    line.peer = VERSION;
    let text = write(&line);
    if text.len() <= MAX_BYTES {
        return text;
    }
    line.namespaces = None;
    write(&line)
}

fn write(line: &Line) -> Bytes {
    let text = serde_json::to_vec(line).expect("texts and numbers always serialise");
    text.into()
}

/// Reads a message.
///
/// # Errors
/// It is none of this version; see [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Said, DecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(DecodeError::TooLong);
    }
    let AnyLine { peer: version } = serde_json::from_slice(bytes).map_err(DecodeError::Form)?;
    if version != VERSION {
        return Err(DecodeError::Version { version });
    }
    let line: Line = serde_json::from_slice(bytes).map_err(DecodeError::Form)?;
    let unfit = |name| DecodeError::Name { name };
    let instance = InstanceId::parse(&line.instance).ok_or(unfit("instance"))?;
    if line.bye {
        return Ok(Said::Bye(instance));
    }
    let uid = line.uid.as_deref();
    let uid = uid.and_then(|uid| Uid::parse(uid).or_else(|| Uid::parse_hex(uid)));
    let is_release = |name: &String| {
        name.len() <= MAX_RELEASE_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    Ok(Said::Beat(Beat {
        instance,
        uid: uid.ok_or(unfit("uid"))?,
        release: line.release.filter(is_release).ok_or(unfit("release"))?,
        uptime: Duration::from_millis(line.uptime_ms.ok_or(unfit("uptime_ms"))?),
        num_sessions: line.sessions.ok_or(unfit("sessions"))?,
        is_hello: line.hello,
        namespaces: line
            .namespaces
            .filter(|names| names.len() <= MAX_NAMESPACES),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat() -> Beat {
        Beat {
            instance: InstanceId::parse("Ab3dE6gH").unwrap(),
            uid: Uid::parse("a1B2c3").unwrap(),
            release: "0.1.0".to_owned(),
            uptime: Duration::from_millis(61_000),
            num_sessions: 1200,
            is_hello: false,
            namespaces: Some(vec!["/".into(), "/chat".into()]),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let hello = Beat {
            is_hello: true,
            namespaces: None,
            uid: Uid::parse_hex("0123456789abcdef").unwrap(),
            ..beat()
        };
        for (said, text) in [
            (
                Said::Beat(beat()),
                r#"{"peer":1,"instance":"Ab3dE6gH","uid":"a1B2c3","release":"0.1.0","uptime_ms":61000,"sessions":1200,"namespaces":["/","/chat"]}"#,
            ),
            (
                Said::Beat(hello),
                r#"{"peer":1,"instance":"Ab3dE6gH","uid":"0123456789abcdef","release":"0.1.0","uptime_ms":61000,"sessions":1200,"hello":true}"#,
            ),
            (
                Said::Bye(beat().instance),
                r#"{"peer":1,"instance":"Ab3dE6gH","bye":true}"#,
            ),
        ] {
            let bytes = encode(&said);
            assert_eq!(std::str::from_utf8(&bytes).unwrap(), text);
            assert!(is_said(&bytes));
            assert_eq!(decode(&bytes).unwrap(), said);
        }
    }

    #[test]
    fn of_too_many_namespaces_nothing_is_told() {
        let many = |num, len: usize| {
            let names = (0..num).map(|n| format!("/{n:0len$}").as_str().into());
            let namespaces = Some(names.collect());
            Said::Beat(Beat {
                namespaces,
                ..beat()
            })
        };
        for (num, len, is_told) in [(64, 10, true), (65, 10, false), (64, 100, false)] {
            let bytes = encode(&many(num, len));
            assert!(bytes.len() <= MAX_BYTES);
            let Said::Beat(read) = decode(&bytes).unwrap() else {
                panic!("a beat")
            };
            assert_eq!(read.namespaces.is_some(), is_told, "{num} of {len}");
        }
    }

    #[test]
    fn what_can_be_none_is_refused() {
        let replaced = |from: &str, to: &str| {
            let text = String::from_utf8(encode(&Said::Beat(beat())).to_vec()).unwrap();
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        };
        for text in [
            String::new(),
            "{}".to_owned(),
            r#"{"peer":1}"#.to_owned(),
            r#"{"peer":1,"instance":"Ab3dE6gH"}"#.to_owned(),
            r#"{"peer":1,"instance":"short","bye":true}"#.to_owned(),
            replaced("a1B2c3", "a1B2c#"),
            replaced("0.1.0", "0 1\\n"),
            replaced("0.1.0", &"x".repeat(MAX_RELEASE_BYTES + 1)),
            replaced("61000", "-1"),
            replaced("1200", "1e300"),
            replaced("\"uid\"", "\"instance\""),
            replaced("\"/chat\"", "7"),
            replaced("/chat", &"x".repeat(MAX_BYTES)),
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        let newer = replaced("\"peer\":1", "\"peer\":2");
        assert!(is_said(newer.as_bytes()));
        assert!(matches!(
            decode(newer.as_bytes()),
            Err(DecodeError::Version { version: 2 })
        ));
        // What a later release adds is passed over.
        let more = replaced("\"sessions\"", "\"new\":[1],\"sessions\"");
        assert!(decode(more.as_bytes()).is_ok());
    }

    #[test]
    fn other_messages_are_not_of_this_kind() {
        for text in ["", "{", r#"{"v":1,"id":7}"#, r#" {"peer":1}"#] {
            assert!(!is_said(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_damage_to_a_beat_is_answered_without_a_panic_and_what_is_read_is_written(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
        ) {
            let mut bytes = encode(&Said::Beat(beat())).to_vec();
            for (index, byte) in damage {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            if let Ok(said) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&said)).unwrap(), said);
            }
        }
    }
}
