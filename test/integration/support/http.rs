//! A raw HTTP/1.1 client: one connection for each request unless told otherwise.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::within;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|err| panic!("{err} in {:?}", String::from_utf8_lossy(&self.body)))
    }
}

/// A request that was sent and not answered yet. Dropping it ends the connection.
pub(crate) struct Pending {
    pub(crate) stream: TcpStream,
}

impl Pending {
    /// Sends raw bytes.
    pub(crate) async fn send(addr: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        Self { stream }
    }

    /// Reads the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        within("an HTTP answer", read_answer(&mut self.stream)).await
    }
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read_buf(&mut bytes).await.unwrap();
        assert!(
            read > 0,
            "the connection ended within {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let len = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, len)| len.parse().unwrap());
    let mut body = bytes[head_len..].to_vec();
    while body.len() < len {
        let read = stream.read_buf(&mut body).await.unwrap();
        assert!(read > 0, "the connection ended within the body");
    }
    Answer {
        status,
        headers,
        body,
    }
}

/// Puts a request together; `headers` are whole lines.
pub(crate) fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: hub\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) async fn send(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    Pending::send(addr, &request(method, target, headers, body))
        .await
        .answer()
        .await
}

pub(crate) async fn get(addr: SocketAddr, target: &str) -> Answer {
    send(addr, "GET", target, &[], b"").await
}

pub(crate) async fn post(addr: SocketAddr, target: &str, body: &[u8]) -> Answer {
    send(
        addr,
        "POST",
        target,
        &["Content-Type: text/plain;charset=UTF-8"],
        body,
    )
    .await
}

pub(crate) async fn post_json(addr: SocketAddr, target: &str, body: &str) -> Answer {
    send(
        addr,
        "POST",
        target,
        &["Content-Type: application/json"],
        body.as_bytes(),
    )
    .await
}

/// Returns how many sessions the instance has.
pub(crate) async fn num_connections(addr: SocketAddr) -> u64 {
    get(addr, "/readyz").await.json()["connections"]
        .as_u64()
        .unwrap()
}

/// Waits until the instance has this many sessions.
pub(crate) async fn await_connections(addr: SocketAddr, expected: u64) {
    within("number of connections", async {
        while num_connections(addr).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until nothing waits for clients, nor anything of them.
pub(crate) async fn await_no_backlog(addr: SocketAddr) {
    within("the end of all that waits", async {
        while get(addr, "/readyz").await.json()["backlog_bytes"] != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A session on polling, in raw payloads.
pub(crate) struct Poller {
    pub(crate) addr: SocketAddr,
    path: String,
    pub(crate) target: String,
    pub(crate) sid: String,
}

impl Poller {
    /// Opens a session of Socket.IO.
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::open_at(addr, "/socket.io/").await
    }

    /// Opens a session at a path that begins and ends with a slash.
    pub(crate) async fn open_at(addr: SocketAddr, path: &str) -> Self {
        let answer = get(addr, &format!("{path}?EIO=4&transport=polling")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let open: serde_json::Value =
            serde_json::from_str(answer.text().strip_prefix('0').unwrap()).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        Self {
            addr,
            path: path.to_owned(),
            target: format!("{path}?EIO=4&transport=polling&sid={sid}"),
            sid,
        }
    }

    /// Returns where a WebSocket takes this session over.
    pub(crate) fn upgrade_target(&self) -> String {
        format!("{}?EIO=4&transport=websocket&sid={}", self.path, self.sid)
    }

    /// Opens a session and joins `/`.
    pub(crate) async fn join_main(addr: SocketAddr) -> Self {
        let poller = Self::open(addr).await;
        poller.ok("40").await;
        assert!(poller.payload().await.starts_with("40{\"sid\":"));
        // The `auth` event may come with the CONNECT reply or behind it; the marker comes last.
        poller.ok(r#"420["message-with-ack","joined"]"#).await;
        while !poller.payload().await.contains(r#"430["joined"]"#) {}
        poller
    }

    pub(crate) async fn get(&self) -> Answer {
        get(self.addr, &self.target).await
    }

    /// Sends a GET and leaves its answer for later. It is parked when this returns, if the instance has one worker: that
    /// takes connections in their order, and another request was answered since.
    pub(crate) async fn begin_get(&self) -> Pending {
        let pending = Pending::send(self.addr, &request("GET", &self.target, &[], b"")).await;
        assert_eq!(get(self.addr, "/healthz").await.status, 200);
        pending
    }

    pub(crate) async fn post(&self, body: &str) -> Answer {
        post(self.addr, &self.target, body.as_bytes()).await
    }

    /// Posts a payload that must be taken.
    pub(crate) async fn ok(&self, body: &str) {
        let answer = self.post(body).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }

    /// Polls a payload that must come.
    pub(crate) async fn payload(&self) -> String {
        let answer = self.get().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    }

    /// Polls until there is more than pings, and returns that. Pings are answered, as every client must: on a slow machine
    /// one may come anywhere.
    pub(crate) async fn payload_but_pings(&self) -> String {
        loop {
            let payload = self.payload().await;
            let (pings, packets): (Vec<_>, Vec<_>) =
                payload.split('\u{1e}').partition(|packet| *packet == "2");
            for _ in pings {
                self.ok("3").await;
            }
            if !packets.is_empty() {
                return packets.join("\u{1e}");
            }
        }
    }

    /// Asserts that the session has ended.
    pub(crate) async fn assert_gone(&self) {
        let answer = self.get().await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(
            answer.json(),
            serde_json::json!({ "code": 1, "message": "Session ID unknown" })
        );
    }
}
