//! `floor`: what the kernel alone costs. One thread, one epoll, one `send` for each delivery, and nothing else.
//!
//! `floor --two`: the same, save that a second thread sends half of each broadcast to all: what a server pays for the use of two cores,
//! whatever it is. The kernel looks a file up at a higher price in a process of several threads, and the two disturb each other.
//!
//! It answers every handshake, and the events of the workloads, with bytes made beforehand; it checks nothing, allocates next to
//! nothing and sends no pings. No Socket.IO server can be cheaper that writes each delivery by itself; one that writes several at
//! once can.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    mem,
    os::fd::{AsFd as _, OwnedFd},
    sync::mpsc,
    thread,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

const LISTENER: Token = Token(usize::MAX);

/// The load program sends one key alone (RFC 6455, 1.3), so that not even SHA-1 is in the floor.
const UPGRADE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OPEN: &[u8] = br#"0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
const CONNECTED: &[u8] = br#"40/events,{"sid":"AAAAAAAAAAAAAAAAAAAA"}"#;
const EVENT: &[u8] = b"42/events,";

struct Client {
    stream: TcpStream,
    is_upgraded: bool,
    inbox: Vec<u8>,
    /// What the kernel has not taken yet.
    outbox: Vec<u8>,
}

/// The second thread, which begins with the first broadcast: who is there by then stays to the end.
struct Second {
    frames: mpsc::Sender<Vec<u8>>,
    /// Clients from this one on are its.
    from: usize,
}

struct Server {
    poll: Poll,
    clients: Vec<Option<Client>>,
    rooms: HashMap<Vec<u8>, Vec<usize>>,
    scratch: Vec<u8>,
    frame: Vec<u8>,
    is_for_two: bool,
    second: Option<Second>,
}

fn main() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it cannot be raised, what was allowed before still is.
    _ = setrlimit(Resource::Nofile, limit);

    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    println!("listening on http://{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        poll,
        clients: Vec::new(),
        rooms: HashMap::new(),
        scratch: vec![0; 256 * 1024],
        frame: Vec::new(),
        is_for_two: std::env::args().any(|arg| arg == "--two"),
        second: None,
    };
    let mut events = Events::with_capacity(4096);
    loop {
        match server.poll.poll(&mut events, None) {
            Err(err) if err.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                server.accept(&listener)?;
                continue;
            }
            let Token(number) = event.token();
            if event.is_writable() {
                server.send(number, &[]);
            }
            if event.is_readable() || event.is_read_closed() {
                server.receive(number);
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, token, interest)?;
            self.clients.push(Some(Client {
                stream,
                is_upgraded: false,
                inbox: Vec::new(),
                outbox: Vec::new(),
            }));
        }
    }

    fn receive(&mut self, number: usize) {
        let mut scratch = mem::take(&mut self.scratch);
        while let Some(client) = &mut self.clients[number] {
            match client.stream.read(&mut scratch) {
                Ok(len) if len > 0 => {
                    let mut inbox = mem::take(&mut client.inbox);
                    if inbox.is_empty() {
                        let used = self.take(number, &scratch[..len]);
                        inbox.extend_from_slice(&scratch[used..len]);
                    } else {
                        inbox.extend_from_slice(&scratch[..len]);
                        let used = self.take(number, &inbox);
                        inbox.drain(..used);
                    }
                    if let Some(client) = &mut self.clients[number] {
                        client.inbox = inbox;
                    }
                    if len < scratch.len() {
                        break;
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                _ => self.clients[number] = None,
            }
        }
        self.scratch = scratch;
    }

    /// Answers every message that is whole. Returns how many bytes those have.
    fn take(&mut self, number: usize, bytes: &[u8]) -> usize {
        let mut at = 0;
        if let Some(client) = &mut self.clients[number]
            && !client.is_upgraded
        {
            let Some(len) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                return 0;
            };
            at = len + 4;
            client.is_upgraded = true;
            let mut answer = UPGRADE.to_vec();
            put_frame(&mut answer, OPEN);
            self.send(number, &answer);
        }
        while let Some((start, len)) = frame(bytes, at) {
            at = start + len;
            self.packet(number, &bytes[start..at]);
        }
        at
    }

    fn packet(&mut self, number: usize, packet: &[u8]) {
        let mut frame = mem::take(&mut self.frame);
        frame.clear();
        if packet.starts_with(b"40") {
            put_frame(&mut frame, CONNECTED);
            self.send(number, &frame);
        } else if let Some(event) = packet.strip_prefix(EVENT) {
            let num_digits = event
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let (id, args) = event.split_at(num_digits);
            if let Some(payload) = args.strip_prefix(b"[\"echo\",") {
                put_frame(&mut frame, &[b"43/events,", id, b"[", payload].concat());
                self.send(number, &frame);
            } else if let Some(rest) = args.strip_prefix(b"[\"join\",") {
                let room = rest[..rest.len() - 1].to_vec();
                self.rooms.entry(room).or_default().push(number);
                put_frame(&mut frame, &[b"43/events,", id, b"[]"].concat());
                self.send(number, &frame);
            } else if let Some(rest) = args.strip_prefix(b"[\"say\",") {
                let comma = rest.iter().position(|byte| *byte == b',').unwrap_or(0);
                let (room, payload) = rest.split_at(comma);
                put_frame(&mut frame, &[b"42/events,[\"said\"", payload].concat());
                let members = mem::take(self.rooms.entry(room.to_vec()).or_default());
                members.iter().for_each(|member| self.send(*member, &frame));
                self.rooms.insert(room.to_vec(), members);
            } else {
                put_frame(&mut frame, packet);
                if self.is_for_two && self.second.is_none() {
                    self.second = Some(self.share());
                }
                let mut num_own = self.clients.len();
                if let Some(Second { frames, from }) = &self.second {
                    num_own = *from;
                    // It lives as long as this one.
                    _ = frames.send(frame.clone());
                }
                (0..num_own).for_each(|client| self.send(client, &frame));
            }
        }
        self.frame = frame;
    }

    /// Hands half of the clients' streams to a second thread, as far as broadcasts go.
    fn share(&self) -> Second {
        let from = self.clients.len() / 2;
        let streams = self.clients[from..].iter().flatten();
        let streams = streams.map(|client| client.stream.as_fd().try_clone_to_owned());
        let streams: Vec<OwnedFd> = streams.collect::<io::Result<_>>().expect("descriptors");
        let mut streams: Vec<_> = streams.into_iter().map(std::net::TcpStream::from).collect();
        let (frames, waiting) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            for frame in waiting {
                for stream in &mut streams {
                    // At a steady rate the kernel takes it all. If it did not, the load program would miss it.
                    _ = stream.write(&frame);
                }
            }
        });
        Second { frames, from }
    }

    /// One `send`; what the kernel does not take waits until it does.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        let Some(Some(client)) = self.clients.get_mut(number) else {
            return;
        };
        if !client.outbox.is_empty() {
            client.outbox.extend_from_slice(bytes);
            match client.stream.write(&client.outbox) {
                Ok(len) => drop(client.outbox.drain(..len)),
                Err(err) if err.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.clients[number] = None,
            }
        } else if !bytes.is_empty() {
            match client.stream.write(bytes) {
                Ok(len) => client.outbox.extend_from_slice(&bytes[len..]),
                Err(err) if err.kind() == ErrorKind::WouldBlock => {
                    client.outbox.extend_from_slice(bytes);
                }
                Err(_) => self.clients[number] = None,
            }
        }
    }
}

/// Where the payload of the frame at `at` begins, and its length, if it is whole. The load program's masks are zero.
fn frame(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let head = bytes.get(at..at + 2)?;
    let (start, len) = match head[1] & 0x7f {
        126 => {
            let len = bytes.get(at + 2..at + 4)?;
            (at + 8, usize::from(u16::from_be_bytes([len[0], len[1]])))
        }
        127 => {
            let len: [u8; 8] = bytes.get(at + 2..at + 10)?.try_into().ok()?;
            (at + 14, u64::from_be_bytes(len) as usize)
        }
        len => (at + 6, usize::from(len)),
    };
    (bytes.len() >= start + len).then_some((start, len))
}

fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x81);
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
