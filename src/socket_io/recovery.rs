//! What client and server say to each other so that a client gets its state back after a disconnection: `pid` and offset.
//!
//! Pure. An offset is a place in the order in which an instance sends a client its events; it stands behind the arguments of
//! each that can be sent again, and the client brings back the last one that it saw.
//!
//! ```text
//! ◀── 40{"sid":"…","pid":"…"}
//! ◀── 42["news",1,"k3J9x0Qa17"]              offset = epoch serial ["." own]
//!  ⋯  disconnected
//! ──▶ 40{"pid":"…","offset":"k3J9x0Qa17",…}  the claim; `offset` is missing if no event came
//! ◀── 42["news",2,"k3J9x0Qa18"]              what was missed
//! ◀── 40{"sid":"…","pid":"…"}                the same as before, or else both are new
//! ```
//! The epoch tells one process from another, whose serials mean something else. Clients take offsets for opaque texts.
//!
//! Source: wire.md 2.6; Socket.IO, "Connection state recovery".

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::ids::Pid;

/// Random bytes of an epoch, and the characters of base64url that they make.
const EPOCH_BYTES: usize = 6;
const EPOCH_LEN: usize = 8;

/// Longest offset that we give out: an epoch and two numbers.
const MAX_OFFSET_LEN: usize = EPOCH_LEN + 20 + 1 + 10;

/// One life of one instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_LEN]);

/// A place in the order of one client's events.
///
/// `serial` counts the events that the instance logged; `own` counts those that one client alone was sent behind that one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Of the last event of the instance, from 1; 0 comes before all.
    pub serial: u64,
    /// Behind it, from 1; 0 is that event itself.
    pub own: u32,
}

impl Position {
    /// Returns the place of an event of the instance.
    pub fn of(serial: u64) -> Self {
        Self { serial, own: 0 }
    }

    /// Returns the place of the next event for this client alone.
    #[must_use]
    pub fn next_own(self) -> Self {
        Self {
            own: self.own.saturating_add(1),
            ..self
        }
    }
}

impl Epoch {
    /// Returns one with 48 random bits.
    ///
    /// # Errors
    /// The system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; EPOCH_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self::parse(&URL_SAFE_NO_PAD.encode(bytes)).expect("six bytes are eight characters"))
    }

    fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the text of a place. It needs no escapes in JSON.
    pub fn offset(&self, position: Position) -> String {
        let Position { serial, own } = position;
        match own {
            0 => format!("{self}{serial}"),
            own => format!("{self}{serial}.{own}"),
        }
    }

    /// Returns the place that an offset means; none, if it is not exactly what this epoch gives out.
    pub fn read(&self, offset: &str) -> Option<Position> {
        if offset.len() > MAX_OFFSET_LEN {
            return None;
        }
        let numbers = offset.strip_prefix(self.as_str())?;
        let (serial, own) = numbers.split_once('.').unwrap_or((numbers, "0"));
        let position = Position {
            serial: serial.parse().ok()?,
            own: own.parse().ok()?,
        };
        (self.offset(position) == offset).then_some(position)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("no epoch"))
    }
}

/// What a client shows to get its state back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which state.
    pub pid: Pid,
    /// What it saw last; nothing, if no event with an offset has come to it.
    pub offset: Option<String>,
}

impl Claim {
    /// Reads what a client brought, the text of a JSON object. Nothing, unless `pid` is one and `offset` is a text or missing:
    /// then it is a new client, and that is no breach. Of a repeated key the last counts, as in JavaScript.
    pub fn read(auth: &str) -> Option<Self> {
        let Fields { pid, offset } = serde_json::from_str(auth).ok()?;
        let pid = Pid::parse(&text(pid?)?)?;
        let offset = match offset {
            None => None,
            Some(raw) => Some(text(raw)?.into_owned()),
        };
        let is_short = offset
            .as_ref()
            .is_none_or(|offset| offset.len() <= MAX_OFFSET_LEN);
        is_short.then_some(Self { pid, offset })
    }
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok()
}

#[derive(Default)]
struct Fields<'a> {
    pid: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let value = map.next_value()?;
                    match &*key {
                        "pid" => fields.pid = Some(value),
                        "offset" => fields.offset = Some(value),
                        _ => {}
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Epoch {
        Epoch::parse("k3J9x_-a").unwrap()
    }

    #[test]
    fn offsets_are_read_as_they_were_written_and_in_no_other_form() {
        let place = |serial, own| Position { serial, own };
        for (text, position) in [
            ("k3J9x_-a0", place(0, 0)),
            ("k3J9x_-a17", place(17, 0)),
            ("k3J9x_-a17.3", place(17, 3)),
            (
                "k3J9x_-a18446744073709551615.4294967295",
                place(u64::MAX, u32::MAX),
            ),
        ] {
            assert_eq!(epoch().offset(position), text);
            assert_eq!(epoch().read(text), Some(position));
        }
        for text in [
            "",
            "k3J9x_-a",
            "k3J9x_-b17",
            "17",
            "k3J9x_-a017",
            "k3J9x_-a+17",
            "k3J9x_-a-1",
            "k3J9x_-a 17",
            "k3J9x_-a17.",
            "k3J9x_-a17.0",
            "k3J9x_-a17.3.1",
            "k3J9x_-a18446744073709551616",
            "k3J9x_-a17.4294967296",
            "Q86_c12.0",
            "1795413066931-0",
        ] {
            assert_eq!(epoch().read(text), None, "{text}");
        }
        assert_eq!(epoch().read(&"9".repeat(1_000_000)), None);
    }

    #[test]
    fn places_are_in_the_order_in_which_a_client_gets_them() {
        let order =
            [(0, 1), (7, 0), (7, 1), (7, 2), (9, 0)].map(|(serial, own)| Position { serial, own });
        assert!(order.is_sorted());
        assert_eq!(Position::of(7).next_own(), order[2]);
    }

    #[test]
    fn each_process_has_an_epoch_of_its_own() {
        let (one, other) = (Epoch::random().unwrap(), Epoch::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(other.read(&one.offset(Position::of(1))), None);
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Epoch>(&json).unwrap(), one);
    }

    #[test]
    fn a_claim_is_a_pid_and_perhaps_an_offset() {
        let pid = "abcdefghijklmnopqrst";
        let claim = |offset: Option<&str>| {
            Some(Claim {
                pid: Pid::parse(pid).unwrap(),
                offset: offset.map(ToOwned::to_owned),
            })
        };
        for (auth, expected) in [
            (
                r#"{"pid":"abcdefghijklmnopqrst","offset":"x1","token":"t"}"#,
                claim(Some("x1")),
            ),
            (
                r#"{"token":{"pid":1},"pid":"abcdefghijklmnopqrst"}"#,
                claim(None),
            ),
            (
                r#"{"offset":"x\u0031","p\u0069d":"\u0061bcdefghijklmnopqrst"}"#,
                claim(Some("x1")),
            ),
            (r#"{"pid":7,"pid":"abcdefghijklmnopqrst"}"#, claim(None)),
            (r#"{"pid":"abcdefghijklmnopqrst","pid":7}"#, None),
            ("{}", None),
            (r#"{"pid":"abc","offset":"x1"}"#, None),
            (r#"{"pid":"abcdefghijklmnopqrst","offset":null}"#, None),
            (r#"{"pid":"abcdefghijklmnopqrst","offset":1}"#, None),
            (r#"{"pid":"abcdefghijklmnopqrst","offset":["x1"]}"#, None),
            (r#"{"pid":["abcdefghijklmnopqrst"],"offset":"x1"}"#, None),
            (r#"{"pid":{"toString":1},"offset":"x1"}"#, None),
            (r#"{"pid":null,"offset":"x1"}"#, None),
            (r#"{"pid":true,"offset":"x1"}"#, None),
            (r#"{"pid":"\ud800bcdefghijklmnopqrst","offset":"x1"}"#, None),
            (r#"{"__proto__":{"pid":"abcdefghijklmnopqrst"}}"#, None),
        ] {
            assert_eq!(Claim::read(auth), expected, "{auth}");
        }
        let long = format!(r#"{{"pid":"{pid}","offset":"{}"}}"#, "x".repeat(100_000));
        assert_eq!(Claim::read(&long), None);
        assert!(!format!("{:?}", claim(None)).contains(pid));
    }

    proptest::proptest! {
        #[test]
        fn what_strangers_write_is_a_claim_or_none(auth: String, offset: String) {
            _ = Claim::read(&auth);
            _ = epoch().read(&offset);
        }

        #[test]
        fn almost_claims_say_what_their_json_says(
            pid in r#"("[a-zA-Z0-9_-]{19,21}"|[0-9]{1,3}|null|\[\]|\{\})"#,
            offset in r#"("[a-z0-9.]{0,45}"|[0-9]{1,3}|null|\[\]|\{\})"#,
        ) {
            let auth = format!(r#"{{"offset":{offset},"pid":{pid}}}"#);
            let is_pid = pid.len() == 22 && pid.starts_with('"');
            let is_offset = offset.starts_with('"') && offset.len() <= MAX_OFFSET_LEN + 2;
            proptest::prop_assert_eq!(Claim::read(&auth).is_some(), is_pid && is_offset);
        }

        #[test]
        fn every_place_has_one_text(serial: u64, own: u32) {
            let position = Position { serial, own };
            proptest::prop_assert_eq!(epoch().read(&epoch().offset(position)), Some(position));
        }

        #[test]
        fn every_text_of_a_place_is_the_only_one(numbers in "[0-9+ -]{0,4}\\.?[0-9]{0,3}") {
            let text = format!("k3J9x_-a{numbers}");
            if let Some(position) = epoch().read(&text) {
                proptest::prop_assert_eq!(epoch().offset(position), text);
            }
        }
    }
}
