//! What is known of one socket, whatever its transport: its ids, the handshake, and the application's `data`.
//!
//! Made once when a client joins a namespace, and shared: by the handles that gateways hold, and by the hub, which tells
//! other instances of it. It knows nobody who could be sent anything.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    data: Mutex<Data>,
    has_left: AtomicBool,
}

/// The application's `data`: JSON text, since a tree of it would take several times as much, in every socket.
enum Data {
    Own(Box<str>),
    /// Its bytes are part of a sum. In a box, so that a socket of which that is not so takes no more for it.
    Counted(Box<(Box<str>, Arc<AtomicUsize>)>),
}

impl Data {
    fn text(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Counted(counted) => &counted.0,
        }
    }

    fn replace(&mut self, by: Box<str>) {
        match self {
            Self::Own(text) => *text = by,
            Self::Counted(counted) => {
                let (text, sum) = &mut **counted;
                // In this order: between the two it is too much rather than less than nothing.
                sum.fetch_add(by.len(), Ordering::Relaxed);
                sum.fetch_sub(text.len(), Ordering::Relaxed);
                *text = by;
            }
        }
    }
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
            data: Mutex::new(Data::Own(data.to_string().into())),
            has_left: AtomicBool::new(false),
        }
    }

    /// Returns `data`.
    pub fn data(&self) -> Value {
        parse(self.lock().text())
    }

    /// Lets a sum hold, from now on, how many bytes `data` has: whoever keeps a handle of a socket may make it larger at any time.
    pub fn count_in(&self, sum: &Arc<AtomicUsize>) {
        let mut data = self.lock();
        if let Data::Own(text) = &mut *data {
            let text = std::mem::take(text);
            sum.fetch_add(text.len(), Ordering::Relaxed);
            *data = Data::Counted(Box::new((text, Arc::clone(sum))));
        }
    }

    /// Takes the bytes of `data` out of the sum that holds them, if one does.
    pub fn count_no_more(&self) {
        let mut data = self.lock();
        if let Data::Counted(counted) = &mut *data {
            let (text, sum) = &mut **counted;
            let text = std::mem::take(text);
            sum.fetch_sub(text.len(), Ordering::Relaxed);
            *data = Data::Own(text);
        }
    }

    /// Sets whether its client may come back.
    #[must_use]
    pub fn with_recoverable(mut self, recoverable: Recoverable) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Returns `data` as JSON text.
    pub fn data_text(&self) -> String {
        self.lock().text().to_owned()
    }

    /// Replaces `data` by JSON text that another instance wrote. What is none, or none that can be read, is ignored.
    pub fn set_data_text(&self, text: &str) {
        if verify(text).is_ok() {
            self.lock().replace(text.into());
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
        serde_json::from_str(self.lock().text())
    }

    /// Replaces `data`.
    ///
    /// # Errors
    /// It does not serialise to JSON that can be read again; nothing is changed.
    pub fn set_data(&self, data: &(impl Serialize + ?Sized)) -> Result<(), serde_json::Error> {
        let text = serde_json::to_string(data)?;
        verify(&text)?;
        self.lock().replace(text.into());
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
        let mut own = self.lock();
        let mut data = serde_json::from_str(own.text())?;
        let result = change(&mut data);
        let changed = serde_json::to_string(&data)?;
        verify(&changed)?;
        own.replace(changed.into());
        Ok(result)
    }

    /// Changes `data`.
    pub fn with_data<T>(&self, change: impl FnOnce(&mut Value) -> T) -> T {
        let mut own = self.lock();
        let mut data = parse(own.text());
        let result = change(&mut data);
        own.replace(data.to_string().into());
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

    fn lock(&self) -> MutexGuard<'_, Data> {
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
    fn a_sum_holds_how_many_bytes_data_has_whoever_changes_it() {
        let record = record();
        let sum = Arc::<AtomicUsize>::default();
        let len = || sum.load(Ordering::Relaxed);
        record.count_in(&sum);
        record.count_in(&sum);
        assert_eq!((len(), record.data()), (8, "before".into()));
        record.set_data(&"twice as long").unwrap();
        assert_eq!(len(), 15);
        record.set_data_text("[1]");
        assert_eq!((len(), record.data_text().as_str()), (3, "[1]"));
        record
            .with_data_as(|data: &mut Vec<u8>| data.push(2))
            .unwrap();
        assert_eq!(len(), 5);
        record.with_data(|data| *data = 1000.into());
        assert_eq!((len(), record.data_as().ok()), (4, Some(1000)));
        record.count_no_more();
        record.count_no_more();
        record.set_data(&"no part of it").unwrap();
        assert_eq!((len(), record.data()), (0, "no part of it".into()));
        assert_eq!(Arc::strong_count(&sum), 1);
    }

    /// There is one of these for every namespace of every client.
    #[test]
    fn data_takes_no_more_for_being_counted_some_day() {
        assert_eq!(size_of::<Data>(), size_of::<Box<str>>());
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
