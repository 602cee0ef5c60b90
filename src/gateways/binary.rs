//! Binary values inside typed arguments.
//!
//! A [`Binary`] may stand anywhere in a type that serde reads or writes: on the wire its bytes travel beside the JSON text,
//! which holds a placeholder in their stead. The attachments of the packet at hand are kept in a thread-local for the length
//! of one (synchronous) call, because serde hands no context down.

use std::cell::RefCell;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap as _,
};

/// Bytes among the arguments of an event or an ack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary(pub Bytes);

#[derive(Deserialize)]
struct Placeholder {
    #[serde(rename = "_placeholder")]
    is_placeholder: bool,
    num: usize,
}

enum Attachments {
    /// No packet is being read or written.
    None,
    Reading(Vec<Bytes>),
    Writing(Vec<Bytes>),
}

thread_local! {
    static ATTACHMENTS: RefCell<Attachments> = const { RefCell::new(Attachments::None) };
}

/// Puts the former state back when it ends, on a panic too.
struct Scope {
    former: Option<Attachments>,
}

impl Scope {
    fn enter(state: Attachments) -> Self {
        Self {
            former: Some(ATTACHMENTS.replace(state)),
        }
    }

    /// Ends the scope and returns what it collected.
    fn leave(mut self) -> Attachments {
        ATTACHMENTS.replace(self.former.take().unwrap_or(Attachments::None))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(former) = self.former.take() {
            ATTACHMENTS.set(former);
        }
    }
}

/// Reads JSON text whose placeholders name `attachments`.
pub(super) fn read<'de, T: Deserialize<'de>>(
    json: &'de str,
    attachments: &[Bytes],
) -> Result<T, serde_json::Error> {
    let scope = Scope::enter(Attachments::Reading(attachments.to_vec()));
    let value = serde_json::from_str(json);
    scope.leave();
    value
}

/// Writes a value; returns what `write` returned and the attachments that it left.
pub(super) fn write<T>(write: impl FnOnce() -> T) -> (T, Vec<Bytes>) {
    let scope = Scope::enter(Attachments::Writing(Vec::new()));
    let value = write();
    match scope.leave() {
        Attachments::Writing(attachments) => (value, attachments),
        Attachments::None | Attachments::Reading(_) => (value, Vec::new()),
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let placeholder = Placeholder::deserialize(deserializer)?;
        ATTACHMENTS.with_borrow(|attachments| match attachments {
            Attachments::Reading(attachments) if placeholder.is_placeholder => attachments
                .get(placeholder.num)
                .cloned()
                .map(Self)
                .ok_or_else(|| D::Error::custom("binary expected")),
            _ => Err(D::Error::custom("binary expected")),
        })
    }
}

impl Serialize for Binary {
    /// Outside of an event or an ack there is nowhere for the bytes to go: that is an error of the caller.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let num = ATTACHMENTS.with_borrow_mut(|attachments| match attachments {
            Attachments::Writing(attachments) => {
                attachments.push(self.0.clone());
                Some(attachments.len() - 1)
            }
            Attachments::None | Attachments::Reading(_) => None,
        });
        let num = num.ok_or_else(|| {
            serde::ser::Error::custom("binary can be sent in events and acks alone")
        })?;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("_placeholder", &true)?;
        map.serialize_entry("num", &num)?;
        map.end()
    }
}
