//! A raw WebSocket client: writes whatever it is told, frame by frame.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::within;

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason; no code means a bare close frame.
    Close(Option<u16>, String),
    /// The stream ended.
    End,
}

pub(crate) struct WebSocket {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// Puts an upgrade request together; `headers` are whole lines.
pub(crate) fn upgrade_request(target: &str, headers: &[&str]) -> Vec<u8> {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

impl WebSocket {
    /// Opens a WebSocket at a target that must be upgraded.
    pub(crate) async fn connect(addr: SocketAddr, target: &str) -> Self {
        Self::connect_by(TcpStream::connect(addr).await.unwrap(), target).await
    }

    /// As [`Self::connect`], by a stream of one's own.
    pub(crate) async fn connect_by(mut stream: TcpStream, target: &str) -> Self {
        stream
            .write_all(&upgrade_request(target, &[]))
            .await
            .unwrap();
        let mut unread = Vec::new();
        let head_len = within("a 101", async {
            loop {
                if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                assert!(stream.read_buf(&mut unread).await.unwrap() > 0, "no 101");
            }
        })
        .await;
        let head = String::from_utf8_lossy(&unread[..head_len]).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            let mut why = unread.split_off(head_len);
            // For people: nothing depends on how much of it comes.
            let rest = stream.read_to_end(&mut why);
            _ = tokio::time::timeout(std::time::Duration::from_secs(1), rest).await;
            panic!("{head}{}", String::from_utf8_lossy(&why));
        }
        unread.drain(..head_len);
        Self { stream, unread }
    }

    /// Opens a session of Socket.IO and reads the open packet.
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::open_at(addr, "/socket.io/").await
    }

    /// Opens a session at a path that begins and ends with a slash, and reads the open packet.
    pub(crate) async fn open_at(addr: SocketAddr, path: &str) -> Self {
        let mut websocket = Self::connect(addr, &format!("{path}?EIO=4&transport=websocket")).await;
        assert!(websocket.text().await.starts_with("0{"));
        websocket
    }

    /// Opens a session and joins `/`.
    pub(crate) async fn join_main(addr: SocketAddr) -> Self {
        let mut websocket = Self::open(addr).await;
        websocket.send("40").await;
        assert!(websocket.text().await.starts_with("40{\"sid\":"));
        assert_eq!(websocket.text().await, r#"42["auth",{}]"#);
        websocket
    }

    /// Opens a session and joins a namespace with some auth; returns the CONNECT reply or CONNECT_ERROR.
    pub(crate) async fn join(addr: SocketAddr, namespace: &str, auth: &str) -> (Self, String) {
        let mut websocket = Self::open(addr).await;
        websocket.send(&format!("40{namespace},{auth}")).await;
        let reply = websocket.text().await;
        (websocket, reply)
    }

    /// Joins `/events` with a valid token; the `instance` event is read.
    pub(crate) async fn join_events(addr: SocketAddr, token: &str) -> Self {
        let auth = serde_json::json!({ "token": token }).to_string();
        let (mut websocket, reply) = Self::join(addr, "/events", &auth).await;
        assert!(reply.starts_with(r#"40/events,{"sid":""#), "{reply}");
        // Events of others may come before it.
        while !websocket
            .text()
            .await
            .starts_with(r#"42/events,["instance",{"id":"#)
        {}
        websocket
    }

    /// Writes raw bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Writes one masked frame. `first` holds FIN, reserved bits and opcode.
    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.write(&frame(first, payload)).await;
    }

    /// Sends a text message.
    pub(crate) async fn send(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    /// Sends a text message, if the server still takes any.
    pub(crate) async fn try_send(&mut self, text: &str) {
        _ = self.stream.write_all(&frame(0x81, text.as_bytes())).await;
    }

    /// Sends a binary message.
    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        self.frame(0x82, bytes).await;
    }

    /// Reads the next frame.
    pub(crate) async fn next(&mut self) -> Frame {
        within("a frame", self.read()).await
    }

    async fn read(&mut self) -> Frame {
        loop {
            if let Some((frame, len)) = parse(&self.unread) {
                self.unread.drain(..len);
                return frame;
            }
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return Frame::End,
                Ok(_) => {}
            }
        }
    }

    /// Reads a text frame.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Frame::Text(text) => text,
            other => panic!("a text frame was due, not {other:?}"),
        }
    }

    /// Reads the next frame that is no ping. Pings are answered, as every client must: on a slow machine one may come
    /// anywhere.
    pub(crate) async fn next_but_pings(&mut self) -> Frame {
        loop {
            match self.next().await {
                Frame::Text(text) if text == "2" => self.send("3").await,
                frame => return frame,
            }
        }
    }

    /// Reads a text frame that is no ping. Pings are answered.
    pub(crate) async fn message(&mut self) -> String {
        match self.next_but_pings().await {
            Frame::Text(text) => text,
            other => panic!("a message was due, not {other:?}"),
        }
    }

    /// Reads until the server closes; pings and events before it are skipped. Returns code and reason.
    pub(crate) async fn closed(&mut self) -> (Option<u16>, String) {
        loop {
            match self.next().await {
                Frame::Close(code, reason) => return (code, reason),
                Frame::End => panic!("the stream ended without a close frame"),
                Frame::Text(_) | Frame::Binary(_) | Frame::Pong(_) => {}
            }
        }
    }

    /// Asserts that the server ends the connection as Engine.IO does: a close frame without a status.
    pub(crate) async fn assert_closed(&mut self) {
        assert_eq!(self.closed().await, (None, String::new()));
        assert_eq!(self.next().await, Frame::End);
    }
}

pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// Reads one whole frame off the front, if there is one. The server never fragments.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let [first, second, ..] = *bytes else {
        return None;
    };
    assert_eq!(first & 0x70, 0, "reserved bits");
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let (len, head) = match second {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize,
            10,
        ),
        len => (usize::from(len), 2),
    };
    let payload = bytes.get(head..head + len)?.to_vec();
    let frame = match first {
        0x81 => Frame::Text(String::from_utf8(payload).unwrap()),
        0x82 => Frame::Binary(payload),
        0x8a => Frame::Pong(payload),
        0x88 => match payload.get(..2) {
            None => Frame::Close(None, String::new()),
            Some(code) => Frame::Close(
                Some(u16::from_be_bytes(code.try_into().unwrap())),
                String::from_utf8(payload[2..].to_vec()).unwrap(),
            ),
        },
        other => panic!("unexpected first byte {other:#x}"),
    };
    Some((frame, head + len))
}
