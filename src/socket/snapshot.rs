//! A socket as other servers of the cluster see it: what `fetchSockets` tells.
//!
//! Plain data. Written with Node's keys in Node's order; read with tolerance, because other versions of other servers
//! write it: what a handshake lacks gets a default, unknown keys are skipped. Whom it tells is no longer asked: it is of
//! the moment in which it was made. That of a socket of this instance shares the handshake with its session: many are made at
//! once, and few of them are read.
//!
//! ```text
//! {"id":…,"handshake":{headers,time,address,xdomain,secure,issued,url,query,auth},"rooms":[…],"data":{…}}
//! ```
//! Source: socket.io 4.8 `Socket.buildHandshake`, socket.io-adapter 2.5 `fetchSockets`; wire.md 2.3, 3.6.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    hash::Hash,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};
use serde_json::value::RawValue;

use super::handshake::Handshake;
use crate::{
    engine_io::pairs::Pairs,
    socket_io::{
        ids::{Room, SocketId},
        json, object,
    },
};

/// Most rooms of one socket.
pub const MAX_ROOMS: usize = 65_536;
/// How deep `data` and `auth` may nest.
pub const MAX_DEPTH: usize = 128;
/// The last instant that has a date of four digits, in seconds since 1970: where texts of dates end here.
const END_OF_DATES: u64 = 253_402_300_799;
/// Headers that are told to nobody: what a client proves itself with is for the instance that it came to.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
/// Headers of which the first one counts and the others are dropped. All others are joined.
const SINGLE_HEADERS: [&str; 16] = [
    "age",
    "content-length",
    "content-type",
    "etag",
    "expires",
    "from",
    "host",
    "if-modified-since",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "referer",
    "retry-after",
    "server",
    "user-agent",
];

/// One socket of a namespace, somewhere in the cluster.
#[derive(Clone, Serialize)]
pub struct SocketSnapshot {
    /// Its id.
    pub id: SocketId,
    /// The request that opened its session, and what it said when it joined the namespace.
    pub handshake: HandshakeSnapshot,
    /// The rooms it is in, the one that its id names included.
    pub rooms: Vec<Room>,
    /// What the application keeps with it: any JSON, `{}` if nothing.
    pub data: Box<RawValue>,
}

/// A handshake as it travels.
#[derive(Clone, Serialize)]
pub struct HandshakeSnapshot {
    /// Lower-case names and values.
    pub headers: TextMap,
    /// When it came, as JavaScript's `Date` prints itself.
    pub time: String,
    /// Address of the peer.
    pub address: String,
    /// Whether a page of some origin opened it.
    pub xdomain: bool,
    /// Whether it came through TLS to this server itself.
    pub secure: bool,
    /// When it came, in milliseconds since 1970.
    pub issued: u64,
    /// Request target.
    pub url: Url,
    /// Query keys and values.
    pub query: TextMap,
    /// What the client sent with its CONNECT: any JSON, `{}` if nothing.
    pub auth: Box<RawValue>,
}

/// A request target, which is a text.
#[derive(Clone)]
pub struct Url(Target);

#[derive(Clone)]
enum Target {
    Own(String),
    Of(Arc<Handshake>),
}

/// An object of texts, in its order, each key once.
#[derive(Clone, Default)]
pub struct TextMap(Texts);

#[derive(Clone)]
enum Texts {
    Own(Vec<(String, String)>),
    /// Headers as Node puts them together, once they are read.
    Headers(Arc<Handshake>, OnceLock<Pairs>),
    Query(Arc<Handshake>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl SocketSnapshot {
    /// Reads the JSON object `text`; `None` if it is none, has no id, more than [`MAX_ROOMS`] rooms, or data or auth
    /// deeper than [`MAX_DEPTH`].
    pub fn from_json(text: &str) -> Option<Self> {
        let [id, handshake, rooms, data] =
            object::members(text, ["id", "handshake", "rooms", "data"])?;
        let rooms = match rooms.map(|rooms| object::elements(rooms, MAX_ROOMS)) {
            None => Vec::new(),
            Some(rooms) => {
                let rooms = rooms.filter(|rooms| !rooms.has_more)?.texts.into_iter();
                let room = |text| object::string_or_number(text).map(Room::from);
                rooms.map(room).collect::<Option<_>>()?
            }
        };
        Some(Self {
            id: SocketId::from(object::string(id?)?),
            handshake: HandshakeSnapshot::from_json(handshake.unwrap_or("{}"))?,
            rooms,
            data: raw_value(data)?,
        })
    }
}

impl HandshakeSnapshot {
    /// Tells of `handshake`, without the headers and without the `auth` that clients prove themselves with: unlike Node,
    /// whose servers tell each other all of it, in a Redis that anybody may read who can reach it.
    pub fn new(handshake: &Arc<Handshake>) -> Self {
        Self {
            headers: TextMap(Texts::Headers(Arc::clone(handshake), OnceLock::new())),
            time: date_text(handshake.issued),
            address: handshake.address.clone(),
            xdomain: handshake.is_cross_domain(),
            // Who wants TLS puts a balancer in front.
            secure: false,
            issued: millis(handshake.issued),
            url: Url(Target::Of(Arc::clone(handshake))),
            query: TextMap(Texts::Query(Arc::clone(handshake))),
            auth: empty_object(),
        }
    }

    /// Reads the JSON object `text`; `None` if it is none, or auth is deeper than [`MAX_DEPTH`]. What is missing or of a
    /// wrong type is empty, false or zero.
    pub fn from_json(text: &str) -> Option<Self> {
        let [
            headers,
            time,
            address,
            xdomain,
            secure,
            issued,
            url,
            query,
            auth,
        ] = object::members(
            text,
            [
                "headers", "time", "address", "xdomain", "secure", "issued", "url", "query", "auth",
            ],
        )?;
        let text = |text: Option<&str>| text.and_then(object::string).unwrap_or_default();
        Some(Self {
            headers: headers.map(TextMap::from_json).unwrap_or_default(),
            time: text(time),
            address: text(address),
            xdomain: xdomain == Some("true"),
            secure: secure == Some("true"),
            issued: issued.and_then(object::uint).unwrap_or_default(),
            url: Url(Target::Own(text(url))),
            query: query.map(TextMap::from_json).unwrap_or_default(),
            auth: raw_value(auth)?,
        })
    }
}

impl TextMap {
    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        match &self.0 {
            Texts::Own(pairs) => {
                let pair = pairs.iter().find(|(name, _)| *name == key);
                pair.map(|(_, value)| &**value)
            }
            Texts::Headers(of, told) => told.get_or_init(|| told_headers(of)).first(key),
            Texts::Query(of) => of.query(key),
        }
    }

    /// Returns keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().into_iter()
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        match &self.0 {
            Texts::Own(pairs) => pairs
                .iter()
                .map(|(key, value)| (&**key, &**value))
                .collect(),
            Texts::Headers(of, told) => told.get_or_init(|| told_headers(of)).iter().collect(),
            Texts::Query(of) => unique(of.queries()),
        }
    }

    /// Reads the object `text`: texts, and lists of texts joined as repeated headers are. All else is skipped.
    fn from_json(text: &str) -> Self {
        let mut pairs = Vec::new();
        object::each_member(text, |key, value| {
            let value = object::string_or_number(value).or_else(|| {
                let list = object::elements(value, usize::MAX)?.texts.into_iter();
                let list = list
                    .map(object::string_or_number)
                    .collect::<Option<Vec<_>>>();
                list.map(|list| list.join(", "))
            });
            if let Some(value) = value {
                pairs.push((key, value));
            }
        });
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for TextMap {
    /// Of a repeated key the last value counts, in the place of the first, as in a JavaScript object.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(key, value)| (key.into(), value.into()));
        Self(Texts::Own(unique(pairs)))
    }
}

/// Leaves each key once: its last value, in the place of the first.
fn unique<K: Clone + Eq + Hash, V>(pairs: impl Iterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut map: Vec<(K, V)> = Vec::new();
    for (key, value) in pairs {
        match places.get(&key).and_then(|place| map.get_mut(*place)) {
            Some(pair) => pair.1 = value,
            None => {
                places.insert(key.clone(), map.len());
                map.push((key, value));
            }
        }
    }
    map
}

/// Puts those headers together that are told, as Node does.
fn told_headers(handshake: &Handshake) -> Pairs {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut map: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for (name, value) in handshake.headers() {
        if SECRET_HEADERS.contains(&name) {
            continue;
        }
        match places.get(name).and_then(|place| map.get_mut(*place)) {
            Some(_) if SINGLE_HEADERS.contains(&name) => {}
            Some((_, joined)) => {
                let joined = joined.to_mut();
                joined.push_str(", ");
                joined.push_str(value);
            }
            None => {
                places.insert(name, map.len());
                map.push((name, value.into()));
            }
        }
    }
    map.into_iter().collect()
}

/// Returns the JSON `text` as it stands, `{}` if there is none; `None` if it is no JSON or too deep.
fn raw_value(text: Option<&str>) -> Option<Box<RawValue>> {
    let Some(text) = text else {
        return Some(empty_object());
    };
    let is_shallow = !json::is_deeper(text, MAX_DEPTH);
    is_shallow
        .then(|| RawValue::from_string(text.to_owned()).ok())
        .flatten()
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("it is JSON")
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Returns what `new Date() + ""` is where the clock shows UTC.
fn date_text(time: SystemTime) -> String {
    let seconds = (millis(time) / 1000).min(END_OF_DATES);
    // Mon, 23 Nov 2026 05:56:39 GMT
    let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut words = http.split_ascii_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (weekday, day, month, year, clock) = (word(), word(), word(), word(), word());
    let weekday = weekday.trim_end_matches(',');
    format!("{weekday} {month} {day} {year} {clock} GMT+0000 (Coordinated Universal Time)")
}

impl Serialize for TextMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.pairs();
        let mut map = serializer.serialize_map(Some(pairs.len()))?;
        for (key, value) in &pairs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl PartialEq for TextMap {
    fn eq(&self, other: &Self) -> bool {
        self.pairs() == other.pairs()
    }
}

impl Eq for TextMap {}

impl Deref for Url {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Target::Own(url) => url,
            Target::Of(handshake) => &handshake.url,
        }
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for SocketSnapshot {
    /// From JSON only, as [`SocketSnapshot::from_json`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(text.get()).ok_or_else(|| D::Error::custom("no socket"))
    }
}

impl PartialEq for SocketSnapshot {
    /// Compares `data` as text.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.handshake == other.handshake
            && self.rooms == other.rooms
            && self.data.get() == other.data.get()
    }
}

impl PartialEq for HandshakeSnapshot {
    /// Compares `auth` as text.
    fn eq(&self, other: &Self) -> bool {
        let facts = |it: &Self| (it.xdomain, it.secure, it.issued);
        facts(self) == facts(other)
            && self.headers == other.headers
            && self.time == other.time
            && self.address == other.address
            && *self.url == *other.url
            && self.query == other.query
            && self.auth.get() == other.auth.get()
    }
}

// Headers, query, url, auth and data hold what clients prove themselves with: none of it may reach a log.

impl fmt::Debug for SocketSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketSnapshot")
            .field("id", &self.id)
            .field("rooms", &self.rooms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HandshakeSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeSnapshot")
            .field("time", &self.time)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextMap({} keys)", self.pairs().len())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Node server answered (its headers shortened).
    const RECORDED: &str = concat!(
        r#"{"id":"MbQ25khvHO8bs0X8AAAB","handshake":{"headers":{"sec-websocket-version":"13","host":"127.0.0.1:39332"},"#,
        r#""time":"Mon Nov 23 2026 05:56:39 GMT+0000 (Coordinated Universal Time)","address":"::ffff:127.0.0.1","#,
        r#""xdomain":false,"secure":false,"issued":1795413399990,"url":"/socket.io/?k=v&EIO=4&transport=websocket","#,
        r#""query":{"k":"v","EIO":"4","transport":"websocket"},"auth":{"token":"t"}},"#,
        r#""rooms":["MbQ25khvHO8bs0X8AAAB","room1","room2"],"data":{"user":"bob"}}"#,
    );

    #[test]
    fn nodes_socket_is_read_and_written_byte_for_byte() {
        let snapshot = SocketSnapshot::from_json(RECORDED).unwrap();
        assert_eq!(snapshot.rooms.len(), 3);
        assert_eq!(snapshot.handshake.query.get("k"), Some("v"));
        assert_eq!(snapshot.data.get(), r#"{"user":"bob"}"#);
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), RECORDED);
        assert_eq!(
            serde_json::from_str::<SocketSnapshot>(RECORDED).unwrap(),
            snapshot
        );
    }

    #[test]
    fn a_handshake_is_told_as_node_tells_it_but_for_its_secrets() {
        let headers = [
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("cookie", "a=1"),
            ("origin", "http://x"),
            ("host", "b"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        let query = [("k", "1"), ("EIO", "4"), ("k", "2")];
        let mut handshake = Handshake::new(
            "127.0.0.1".to_owned(),
            "/socket.io/?k=1&EIO=4&k=2".to_owned(),
            headers.into_iter(),
            query.into_iter().collect(),
        );
        handshake.issued = UNIX_EPOCH + Duration::from_millis(1_795_413_399_990);
        let text = serde_json::to_string(&HandshakeSnapshot::new(&Arc::new(handshake)));
        assert_eq!(
            text.unwrap(),
            concat!(
                r#"{"headers":{"host":"a","x-forwarded-for":"1.1.1.1, 2.2.2.2","origin":"http://x"},"#,
                r#""time":"Mon Nov 23 2026 05:56:39 GMT+0000 (Coordinated Universal Time)","address":"127.0.0.1","#,
                r#""xdomain":true,"secure":false,"issued":1795413399990,"url":"/socket.io/?k=1&EIO=4&k=2","#,
                r#""query":{"k":"2","EIO":"4"},"auth":{}}"#,
            )
        );
    }

    /// A bug: a query of a thousand pairs, four kilobytes, was a hundred in each snapshot, and a thousand sockets were told of at once.
    #[test]
    fn a_snapshot_shares_the_handshake_and_reads_as_a_copy_does() {
        let headers = [("accept", "a"), ("accept", "b"), ("cookie", "a=1")];
        let query = (0..1000).map(|n| (format!("k{}", n % 900), n.to_string()));
        let handshake = Arc::new(Handshake::new(
            String::new(),
            "/socket.io/?k=1".to_owned(),
            headers.into_iter(),
            query.collect(),
        ));
        let shared = HandshakeSnapshot::new(&handshake);
        assert_eq!(shared.url.as_ptr(), handshake.url.as_ptr());
        for key in ["k5", "k500"] {
            let (told, own) = (
                shared.query.get(key).unwrap(),
                handshake.query(key).unwrap(),
            );
            assert_eq!((told, told.as_ptr()), (own, own.as_ptr()));
        }
        assert_eq!(shared.headers.get("accept"), Some("a, b"));
        assert_eq!(shared.headers.get("cookie"), None);
        let text = serde_json::to_string(&shared).unwrap();
        let copy = HandshakeSnapshot::from_json(&text).unwrap();
        assert!(copy == shared && copy.query.iter().count() == 900);
        for key in ["k5", "k500", "k900"] {
            assert_eq!(copy.query.get(key), shared.query.get(key));
        }
    }

    #[test]
    fn any_clock_has_a_text() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert!(date_text(far).starts_with("Fri Dec 31 9999 23:59:59 GMT+0000"));
        let past = UNIX_EPOCH - Duration::from_secs(1);
        assert!(date_text(past).starts_with("Thu Jan 01 1970 00:00:00 GMT+0000"));
    }

    #[test]
    fn what_others_leave_out_gets_a_default() {
        let snapshot = SocketSnapshot::from_json(r#"{"id":"a","more":[[1]]}"#).unwrap();
        let handshake = &snapshot.handshake;
        assert_eq!((snapshot.rooms.len(), snapshot.data.get()), (0, "{}"));
        assert_eq!((handshake.issued, handshake.xdomain), (0, false));
        assert_eq!((handshake.auth.get(), handshake.time.as_str()), ("{}", ""));
        let odd = r#"{"rooms":[1,"\ud800"],"data":null,"id":"a","handshake":{"issued":-1,"headers":
            {"set-cookie":["a","b"],"n":1,"o":{},"n":2},"query":7,"auth":null,"xdomain":1,"x":{}}}"#;
        let snapshot = SocketSnapshot::from_json(odd).unwrap();
        assert_eq!(snapshot.rooms, [Room::from("1"), Room::from("\u{fffd}")]);
        let headers: Vec<_> = snapshot.handshake.headers.iter().collect();
        assert_eq!(headers, [("set-cookie", "a, b"), ("n", "2")]);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        let many = format!("[{}1]", "1,".repeat(MAX_ROOMS));
        for text in [
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"id":1}"#.to_owned(),
            r#"{"id":"a","rooms":{}}"#.to_owned(),
            r#"{"id":"a","rooms":[null]}"#.to_owned(),
            format!(r#"{{"id":"a","rooms":{many}}}"#),
            r#"{"id":"a","handshake":[]}"#.to_owned(),
            format!(r#"{{"id":"a","data":{deep}}}"#),
            format!(r#"{{"id":"a","handshake":{{"auth":{deep}}}}}"#),
        ] {
            let start: String = text.chars().take(60).collect();
            assert!(SocketSnapshot::from_json(&text).is_none(), "{start}");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_texts() {
        let text = RECORDED
            .replace("127.0.0.1:39332", "hidden")
            .replace("\"t\"", "\"hidden\"");
        let text = text.replace("bob", "hidden").replace("k=v", "hidden");
        let snapshot = SocketSnapshot::from_json(&text).unwrap();
        let shown = format!(
            "{snapshot:?} {:?} {:?}",
            snapshot.handshake, snapshot.handshake.query
        );
        assert!(
            !shown.contains("hidden") && shown.contains("MbQ25"),
            "{shown}"
        );
    }
}
