//! What is known of one socket, whatever its transport: its ids, the handshake, and the application's `data`.
//!
//! Made once when a client joins a namespace, and shared: by the handles that gateways hold, and by the hub, which tells
//! other instances of it. It knows nobody who could be sent anything.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{
    handshake::Handshake,
    snapshot::{HandshakeSnapshot, SocketSnapshot},
};
use crate::{
    engine_io::sid::InstanceId,
    socket_io::ids::{Namespace, Room, SocketId},
};

/// Tells one membership of a client from an earlier one of the same namespace; unique within the client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinId(pub u32);

/// Whether a client may come back to what it had; see [`super::recovery`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recoverable {
    /// It may not.
    #[default]
    No,
    /// It may, and this is its first connection.
    Yes,
    /// It may, and did.
    Recovered,
}

/// One socket of one namespace.
pub struct Record {
    /// Its public id.
    pub id: SocketId,
    /// The namespace that it joined.
    pub namespace: Namespace,
    /// Which membership of its client it is.
    pub join: JoinId,
    /// The instance that its client is connected to.
    pub instance: InstanceId,
    /// The request that opened its client's session.
    pub handshake: Arc<Handshake>,
    /// Whether its client may come back.
    pub recoverable: Recoverable,
    /// JSON text: a tree of it would take several times as much, in every socket.
    data: Mutex<Box<str>>,
    has_left: AtomicBool,
}

impl fmt::Debug for Record {
    /// Without `data`, which may hold anything, and without the id: that of a client 2.x is its session id, a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Puts a record together; `data` is what `authorize` returned.
    pub fn new(
        id: SocketId,
        namespace: Namespace,
        join: JoinId,
        instance: InstanceId,
        handshake: Arc<Handshake>,
        data: &Value,
    ) -> Self {
        Self {
            id,
            namespace,
            join,
            instance,
            handshake,
            recoverable: Recoverable::No,
            data: Mutex::new(data.to_string().into()),
            has_left: AtomicBool::new(false),
        }
    }

    /// Returns `data`.
    pub fn data(&self) -> Value {
        parse(&self.lock())
    }

    /// Returns how many bytes `data` and the handshake take.
    pub fn len_bytes(&self) -> usize {
        self.lock().len() + self.handshake.len_bytes()
    }

    /// Sets whether its client may come back.
    #[must_use]
    pub fn with_recoverable(mut self, recoverable: Recoverable) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Returns `data` as JSON text.
    pub fn data_text(&self) -> String {
        self.lock().clone().into_string()
    }

    /// Replaces `data` by JSON text that another instance wrote. What is none, or none that can be read, is ignored.
    pub fn set_data_text(&self, text: &str) {
        if verify(text).is_ok() {
            *self.lock() = text.into();
        }
    }

    /// Returns what other instances are told of it, which is in `rooms` at the moment.
    pub fn snapshot(&self, rooms: Vec<Room>) -> SocketSnapshot {
        let data = self.data_text();
        SocketSnapshot {
            id: self.id.clone(),
            handshake: HandshakeSnapshot::new(&self.handshake),
            rooms,
            data: RawValue::from_string(data).expect("it was written from a value"),
        }
    }

    /// Reads `data` as a type of the application's own.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.lock())
    }

    /// Replaces `data`.
    ///
    /// # Errors
    /// It does not serialise to JSON that can be read again; nothing is changed.
    pub fn set_data(&self, data: &(impl Serialize + ?Sized)) -> Result<(), serde_json::Error> {
        let text = serde_json::to_string(data)?;
        verify(&text)?;
        *self.lock() = text.into();
        Ok(())
    }

    /// Changes `data` as a type of the application's own.
    ///
    /// # Errors
    /// It is not of this type before, or no JSON that can be read again after; nothing is changed.
    pub fn with_data_as<D, T>(
        &self,
        change: impl FnOnce(&mut D) -> T,
    ) -> Result<T, serde_json::Error>
    where
        D: DeserializeOwned + Serialize,
    {
        let mut text = self.lock();
        let mut data = serde_json::from_str(&text)?;
        let result = change(&mut data);
        let changed = serde_json::to_string(&data)?;
        verify(&changed)?;
        *text = changed.into();
        Ok(result)
    }

    /// Changes `data`.
    pub fn with_data<T>(&self, change: impl FnOnce(&mut Value) -> T) -> T {
        let mut text = self.lock();
        let mut data = parse(&text);
        let result = change(&mut data);
        *text = data.to_string().into();
        result
    }

    /// Notes that the client is in the namespace no more.
    pub fn note_left(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client has left the namespace.
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Box<str>> {
        // Replaced as a whole, so a panic elsewhere does not spoil it.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifies that `text` can be read. What is JSON need not be: a type of the application's may hold text of a client as it came, and in
/// that a number that no `f64` holds, half of a surrogate pair, or more nesting than is read.
fn verify(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<Value>(text).map(drop)
}

/// Reads `data`. `null` is what a gateway made that cannot be read: nested too deep, since all else was verified.
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|err| {
        log::error!("a socket's data cannot be read: {err}");
        Value::Null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let handshake = Handshake::new(
            String::new(),
            String::new(),
            std::iter::empty(),
            Default::default(),
        );
        Record::new(
            "a".into(),
            "/events".into(),
            JoinId(1),
            InstanceId::random().unwrap(),
            Arc::new(handshake),
            &serde_json::json!("before"),
        )
    }

    /// A bug: what a client sent could be remembered and not be read, and whoever read it panicked.
    #[test]
    fn data_that_cannot_be_read_again_is_refused() {
        let record = record();
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in ["1e999", r#""\ud800""#, &deep] {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            record.set_data(&raw).unwrap_err();
            let refused = record.with_data_as(|data: &mut Box<RawValue>| *data = raw);
            refused.unwrap_err();
            record.set_data_text(text);
            assert_eq!(record.data(), "before");
        }
        let readable = RawValue::from_string("[1e99]".to_owned()).unwrap();
        record.set_data(&readable).unwrap();
        assert_eq!(record.data_text(), "[1e99]");
    }

    #[test]
    fn what_a_gateway_nests_too_deep_is_null() {
        let record = record();
        record.with_data(|data| {
            for _ in 0..200 {
                *data = Value::Array(vec![data.take()]);
            }
        });
        assert_eq!(record.data(), Value::Null);
        record.snapshot(Vec::new());
        record.with_data(|data| *data = 1.into());
        assert_eq!(record.data(), 1);
    }

    /// A bug: it printed the handshake with its tokens, and the application's data.
    #[test]
    fn neither_the_id_nor_data_nor_the_handshake_has_a_debug_text() {
        let headers = [("authorization", "Bearer hunter2")];
        let url = "/socket.io/?token=hunter2".to_owned();
        let handshake = Handshake::new(String::new(), url, headers.into_iter(), Default::default());
        let record = Record::new(
            "a-2x-sid".into(),
            "/events".into(),
            JoinId(1),
            InstanceId::random().unwrap(),
            Arc::new(handshake),
            &serde_json::json!({ "password": "hunter2" }),
        );
        let debug = format!("{record:?}");
        assert!(debug.contains("/events"), "{debug}");
        for secret in ["hunter2", "a-2x-sid", "password"] {
            assert!(!debug.contains(secret), "{debug}");
        }
    }
}
