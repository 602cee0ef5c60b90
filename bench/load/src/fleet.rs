//! All clients, in one thread over one epoll: connects them, reads what comes, counts and checks every delivery.
//!
//! Knows the way of a client from TCP to its namespace, by WebSocket or by polling. What is sent when is the workload's.
//!
//! A polling client has one connection, for whatever it has to ask next: its POST if it has something to say, else its GET. One
//! that is to speak while its GET is parked has a second one ([`Fleet::add_mouth`]).
//!
//! Beside those whose latencies count there may be others ([`Role`]). Of one that reads nothing more, the kernel alone says how it is.

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, event::Event, net::TcpStream};
use socket2::{Domain, Socket, Type};

use crate::{
    histogram::Histogram,
    queues::{self, Holding},
    wire::{self, ACCEPT, CLOSE, KEY, TEXT},
};

/// Connections that are on their way at one moment: as many browsers might come back after an outage, and far below any backlog.
const CONNECTING_AT_ONCE: usize = 64;

/// What one `read` takes at most.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Receive buffer of one that reads nothing more: the kernel takes next to nothing for it.
const DEAF_RECEIVE_BYTES: usize = 4096;

/// Segments of the further clients, as on Ethernet. A sender's buffer grows with them: to some 100 KB with these, to megabytes with
/// those of the loopback, which no server would ever fill and which a thousand clients cannot all have.
const ETHERNET_SEGMENT: u32 = 1460;

/// Bytes that the kernel, at both ends, takes at most for one that reads nothing more.
pub(crate) const MOST_HELD: u64 = 1 << 20;

/// What `connect` says of a socket that does not block.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// What a client is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Its latencies are measured.
    Measured,
    /// Reads and checks what it gets as the measured ones do; its latencies do not count.
    Beside,
    /// Joins, and then never reads again.
    Deaf,
}

impl Role {
    /// Returns the roles of `num_measured` clients and `num_further` of another role, spread so evenly that whatever order a server
    /// serves them in, neither come first. The very first is a measured one.
    pub(crate) fn spread(
        num_measured: usize,
        num_further: usize,
        further: Self,
    ) -> impl Iterator<Item = Self> {
        let num = num_measured + num_further;
        (0..num).map(move |number| {
            if number * num_measured % num < num_measured {
                Self::Measured
            } else {
                further
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// TCP, and the first request.
    Opening,
    /// The open packet has come, CONNECT was sent.
    Joining,
    Ready,
    /// Has disconnected, and the server has not.
    Leaving,
    Ended,
}

/// The state of a client that polls.
struct Polling {
    sid: String,
    /// A request is on its way.
    waits: bool,
    /// Packets for the next POST.
    to_say: Vec<u8>,
    /// Only posts, for another client.
    is_mouth: bool,
}

struct Client {
    stream: TcpStream,
    role: Role,
    target: usize,
    phase: Phase,
    began: Instant,
    /// Bytes of a message that is not whole yet.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    written: usize,
    is_upgraded: bool,
    polling: Option<Polling>,
    /// Whose broadcasts it gets.
    group: usize,
    /// The sequence number that comes next, if all come in order.
    next_seq: u32,
    received: u32,
    /// Sum of all sequence numbers that came: with `received` it tells a loss from a duplicate.
    seq_sum: u64,
}

/// What has happened since the last [`Tally::clear`].
pub(crate) struct Tally {
    /// Of measured clients, as the latencies are.
    pub(crate) delivered: u64,
    pub(crate) acked: u64,
    /// From the sending of an event to its delivery or ack.
    pub(crate) latency: Histogram,
    /// Of deliveries at the first target, where whoever sends is, and at the others.
    pub(crate) near: Histogram,
    pub(crate) far: Histogram,
    /// Came behind a later one.
    pub(crate) disordered: u64,
    /// Neither what was expected nor what may be ignored.
    pub(crate) strange: u64,
    /// Connections that the server ended.
    pub(crate) ended: u64,
    /// Those that it closed after their clients had.
    pub(crate) closed: u64,
}

impl Tally {
    fn new() -> Self {
        Self {
            delivered: 0,
            acked: 0,
            latency: Histogram::new(),
            near: Histogram::new(),
            far: Histogram::new(),
            disordered: 0,
            strange: 0,
            ended: 0,
            closed: 0,
        }
    }

    /// Forgets counts of success and times; what went wrong stays.
    pub(crate) fn clear(&mut self) {
        self.delivered = 0;
        self.acked = 0;
        self.closed = 0;
        self.latency.clear();
        self.near.clear();
        self.far.clear();
    }
}

/// How the clients are.
pub(crate) struct Manner {
    pub(crate) targets: Vec<SocketAddr>,
    /// As in a packet: `/events`.
    pub(crate) namespace: String,
    /// JSON of the CONNECT packet, or nothing.
    pub(crate) auth: String,
    pub(crate) polls: bool,
    /// Name of the event that is delivered.
    pub(crate) event: String,
    /// Bytes of its payload.
    pub(crate) payload: usize,
}

pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    num_ready: usize,
    /// Whether there are others than measured ones.
    is_mixed: bool,
    manner: Manner,
    /// What opens each delivery, up to its payload.
    delivery: Vec<u8>,
    ack: Vec<u8>,
    scratch: Vec<u8>,
    epoch: Instant,
    /// While it stands, whoever gets an ack asks again at once.
    pub(crate) echoes: bool,
    pub(crate) tally: Tally,
    /// From TCP to the namespace.
    pub(crate) connect_time: Histogram,
}

type Result<T> = std::result::Result<T, String>;

impl Fleet {
    pub(crate) fn new(manner: Manner) -> Result<Self> {
        let namespace = &manner.namespace;
        Ok(Self {
            poll: Poll::new().map_err(|err| err.to_string())?,
            events: Events::with_capacity(4096),
            clients: Vec::new(),
            num_ready: 0,
            is_mixed: false,
            delivery: format!("42{namespace},[\"{}\",", manner.event).into_bytes(),
            ack: format!("43{namespace},").into_bytes(),
            manner,
            scratch: vec![0; SCRATCH_BYTES],
            epoch: Instant::now(),
            echoes: false,
            tally: Tally::new(),
            connect_time: Histogram::new(),
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.manner.namespace
    }

    pub(crate) fn is_polling(&self) -> bool {
        self.manner.polls
    }

    pub(crate) fn now_micros(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// Connects `num` more clients, whose group is their number modulo `groups`.
    pub(crate) fn connect(&mut self, num: usize, groups: usize, patience: Duration) -> Result<()> {
        self.connect_as(std::iter::repeat_n(Role::Measured, num), groups, patience)
    }

    /// Connects one more client of each of these roles, in this order.
    pub(crate) fn connect_as(
        &mut self,
        roles: impl Iterator<Item = Role>,
        groups: usize,
        patience: Duration,
    ) -> Result<()> {
        let roles: Vec<_> = roles.collect();
        let goal = self.num_ready + roles.len();
        let mut to_open = roles.len();
        let deadline = Instant::now() + patience;
        while self.num_ready < goal {
            while to_open > 0 && (goal - to_open) - self.num_ready < CONNECTING_AT_ONCE {
                let number = self.clients.len();
                let role = roles[roles.len() - to_open];
                // Nobody expects anything of one that reads nothing.
                let group = match role {
                    Role::Measured | Role::Beside => number % groups.max(1),
                    Role::Deaf => usize::MAX,
                };
                self.open(number % self.manner.targets.len(), group, role)?;
                to_open -= 1;
            }
            self.turn(Some(Duration::from_millis(100)))?;
            if self.tally.ended > 0 {
                return Err(format!(
                    "a connection ended while {} of {goal} were ready",
                    self.num_ready
                ));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} of {goal} are ready after {patience:?}",
                    self.num_ready
                ));
            }
        }
        Ok(())
    }

    fn open(&mut self, target: usize, group: usize, role: Role) -> Result<()> {
        let addr = self.manner.targets[target];
        let number = self.clients.len();
        let began = Instant::now();
        let mut stream = match role {
            Role::Measured => TcpStream::connect(addr),
            Role::Beside | Role::Deaf => connect_further(addr, role),
        }
        .map_err(|err| format!("connect: {err}"))?;
        self.is_mixed |= role != Role::Measured;
        self.poll
            .registry()
            .register(
                &mut stream,
                Token(number),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(|err| err.to_string())?;
        let polling = self.manner.polls.then(|| Polling {
            sid: String::new(),
            waits: true,
            to_say: Vec::new(),
            is_mouth: false,
        });
        let outbox = if self.manner.polls {
            format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: {addr}\r\n\r\n")
        } else {
            format!(
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: \
                 websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
            )
        };
        self.clients.push(Client {
            stream,
            role,
            target,
            phase: Phase::Opening,
            began,
            inbox: Vec::new(),
            outbox: outbox.into_bytes(),
            written: 0,
            is_upgraded: false,
            polling,
            group,
            next_seq: 0,
            received: 0,
            seq_sum: 0,
        });
        Ok(())
    }

    /// Gives a polling client a second connection, for its POSTs. Returns its number; it is no client of its own.
    pub(crate) fn add_mouth(&mut self, of: usize) -> Result<usize> {
        let number = self.clients.len();
        let target = self.clients[of].target;
        let sid = self.clients[of]
            .polling
            .as_ref()
            .map(|polling| polling.sid.clone());
        self.open(target, usize::MAX, Role::Measured)?;
        let mouth = &mut self.clients[number];
        mouth.phase = Phase::Ready;
        mouth.outbox.clear();
        if let Some(polling) = &mut mouth.polling {
            polling.sid = sid.unwrap_or_default();
            polling.waits = false;
            polling.is_mouth = true;
        }
        Ok(number)
    }

    /// Puts an event `[name,prefix payload]` into a client's outbox; [`Self::flush`] sends it.
    pub(crate) fn put_event(
        &mut self,
        client: usize,
        id: Option<u32>,
        name: &str,
        first: &str,
        seq: u32,
    ) {
        let now = self.now_micros();
        let mut text = format!("42{},", self.manner.namespace);
        if let Some(id) = id {
            text += &id.to_string();
        }
        text += "[\"";
        text += name;
        text += "\",";
        text += first;
        let mut text = text.into_bytes();
        wire::put_payload(&mut text, self.manner.payload, seq, now);
        text.push(b']');
        self.put(client, &text);
    }

    /// Puts an Engine.IO packet into a client's outbox.
    pub(crate) fn put(&mut self, client: usize, packet: &[u8]) {
        let client = &mut self.clients[client];
        match &mut client.polling {
            None => wire::put_frame(&mut client.outbox, &[packet]),
            Some(polling) => {
                if !polling.to_say.is_empty() {
                    polling.to_say.push(0x1e);
                }
                polling.to_say.extend_from_slice(packet);
            }
        }
    }

    /// Sends what waits in a client's outbox, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, number: usize) {
        let addr = self.manner.targets[self.clients[number].target];
        let client = &mut self.clients[number];
        if let Some(polling) = &mut client.polling
            && !polling.waits
            && client.phase != Phase::Ended
        {
            polling.ask(&mut client.outbox, addr);
        }
        while client.written < client.outbox.len() {
            match client.stream.write(&client.outbox[client.written..]) {
                Ok(len) => client.written += len,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return,
                Err(err) if err.kind() == ErrorKind::NotConnected => return,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(number),
            }
        }
        client.outbox.clear();
        client.written = 0;
        if client.outbox.capacity() > 64 * 1024 {
            client.outbox = Vec::new();
        }
    }

    /// Ends a client's connection without a word of WebSocket or Socket.IO. It is counted once the server has closed it, too.
    pub(crate) fn disconnect(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.phase = Phase::Leaving;
        // One that is closed already is so, too.
        _ = client.stream.shutdown(std::net::Shutdown::Write);
    }

    fn end(&mut self, number: usize) {
        match mem::replace(&mut self.clients[number].phase, Phase::Ended) {
            Phase::Ended => {}
            Phase::Leaving => self.tally.closed += 1,
            _ => self.tally.ended += 1,
        }
    }

    /// Waits for what comes, at most `timeout`, and handles it.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(err) if err.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(|err| err.to_string())?,
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        if self.is_mixed {
            // The measured ones first: that the others are read, too, is no latency of the server's.
            let is_measured =
                |number: usize, fleet: &Self| fleet.clients[number].role == Role::Measured;
            for event in &events {
                if is_measured(event.token().0, self) {
                    self.handle(event)?;
                }
            }
            for event in &events {
                if !is_measured(event.token().0, self) {
                    self.handle(event)?;
                }
            }
        } else {
            for event in &events {
                self.handle(event)?;
            }
        }
        self.events = events;
        Ok(())
    }

    #[inline]
    fn handle(&mut self, event: &Event) -> Result<()> {
        let Token(number) = event.token();
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(number)?;
        }
        if event.is_writable() && !self.clients[number].outbox.is_empty() {
            self.flush(number);
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let mut scratch = mem::take(&mut self.scratch);
        let result = loop {
            match self.clients[number].stream.read(&mut scratch) {
                Ok(0) => {
                    self.end(number);
                    break Ok(());
                }
                Ok(len) => {
                    if let Err(err) = self.take(number, &scratch[..len]) {
                        break Err(err);
                    }
                    // Less than asked for: nothing is left, and edge-triggered epoll tells of the next byte.
                    if len < scratch.len() {
                        break Ok(());
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end(number);
                    break Ok(());
                }
            }
        };
        self.scratch = scratch;
        if !self.clients[number].outbox.is_empty() || self.clients[number].polling.is_some() {
            self.flush(number);
        }
        result
    }

    /// Handles every message that is whole in what waited and `bytes`, and keeps the rest.
    fn take(&mut self, number: usize, bytes: &[u8]) -> Result<()> {
        let client = &mut self.clients[number];
        if client.inbox.is_empty() {
            let used = self.messages(number, bytes)?;
            self.clients[number].inbox.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut inbox = mem::take(&mut client.inbox);
        inbox.extend_from_slice(bytes);
        let used = self.messages(number, &inbox)?;
        if used == inbox.len() {
            inbox = Vec::new();
        } else {
            inbox.drain(..used);
        }
        self.clients[number].inbox = inbox;
        Ok(())
    }

    fn messages(&mut self, number: usize, bytes: &[u8]) -> Result<usize> {
        let now = self.now_micros();
        let mut at = 0;
        if self.clients[number].polling.is_some() {
            while let Some(response) = wire::response(bytes, at)? {
                at = response.body.end;
                if response.status != 200 {
                    let body = String::from_utf8_lossy(&bytes[response.body]);
                    return Err(format!("HTTP {}: {body}", response.status));
                }
                if let Some(polling) = &mut self.clients[number].polling {
                    polling.waits = false;
                }
                let body = &bytes[response.body];
                if body != b"ok" {
                    for packet in body.split(|byte| *byte == 0x1e) {
                        self.packet(number, packet, now)?;
                    }
                }
            }
            return Ok(at);
        }
        if !self.clients[number].is_upgraded {
            let Some(response) = wire::response(bytes, 0)? else {
                return Ok(0);
            };
            let head = &bytes[response.head];
            let accepted = head.windows(ACCEPT.len()).any(|part| part == ACCEPT);
            if response.status != 101 || !accepted {
                return Err(format!("no upgrade: {}", String::from_utf8_lossy(head)));
            }
            self.clients[number].is_upgraded = true;
            at = response.body.end;
        }
        while let Some(frame) = wire::frame(bytes, at) {
            at = frame.payload.end;
            match frame.opcode {
                TEXT => self.packet(number, &bytes[frame.payload], now)?,
                CLOSE => self.end(number),
                _ => self.tally.strange += 1,
            }
        }
        Ok(at)
    }

    #[inline]
    fn packet(&mut self, number: usize, packet: &[u8], now: u64) -> Result<()> {
        if let Some(rest) = packet.strip_prefix(&self.delivery[..]) {
            self.delivery(number, rest, now);
            return Ok(());
        }
        if let Some(rest) = packet.strip_prefix(&self.ack[..]) {
            self.ack(number, rest, now);
            return Ok(());
        }
        self.control(number, packet)
    }

    #[inline]
    fn delivery(&mut self, number: usize, rest: &[u8], now: u64) {
        let payload = rest.strip_suffix(b"]").unwrap_or_default();
        let Some((seq, sent)) = wire::read_payload(payload, self.manner.payload) else {
            self.tally.strange += 1;
            return;
        };
        let client = &mut self.clients[number];
        if seq < client.next_seq {
            self.tally.disordered += 1;
        } else {
            client.next_seq = seq + 1;
        }
        client.received += 1;
        client.seq_sum += u64::from(seq);
        if client.role != Role::Measured {
            return;
        }
        self.tally.delivered += 1;
        let latency = now.saturating_sub(sent);
        self.tally.latency.add(latency);
        match client.target {
            0 => self.tally.near.add(latency),
            _ => self.tally.far.add(latency),
        }
    }

    #[inline]
    fn ack(&mut self, number: usize, rest: &[u8], now: u64) {
        self.tally.acked += 1;
        let Some(at) = rest.iter().position(|byte| *byte == b'[') else {
            self.tally.strange += 1;
            return;
        };
        let payload = rest[at + 1..].strip_suffix(b"]").unwrap_or_default();
        // The ack of `join` is empty, in whichever way.
        if [&b""[..], b"null", b"[]"].contains(&payload) {
            return;
        }
        match wire::read_payload(payload, self.manner.payload) {
            Some((seq, sent)) => {
                self.tally.latency.add(now.saturating_sub(sent));
                if self.echoes {
                    self.put_event(number, Some(seq), "echo", "", seq);
                }
            }
            None => self.tally.strange += 1,
        }
    }

    #[cold]
    fn control(&mut self, number: usize, packet: &[u8]) -> Result<()> {
        let namespace = self.manner.namespace.clone();
        let name = |kind: &str| format!("{kind}{namespace},").into_bytes();
        if packet == b"2" {
            self.put(number, b"3");
        } else if packet.starts_with(b"0{") {
            let text = String::from_utf8_lossy(packet);
            let sid = text
                .split("\"sid\":\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let sid = sid.ok_or("an open packet without sid")?.to_owned();
            let client = &mut self.clients[number];
            if let Some(polling) = &mut client.polling {
                polling.sid = sid;
            }
            client.phase = Phase::Joining;
            let mut connect = name("40");
            connect.extend_from_slice(self.manner.auth.as_bytes());
            self.put(number, &connect);
        } else if packet.starts_with(&name("40")) {
            let client = &mut self.clients[number];
            if client.phase == Phase::Joining {
                client.phase = Phase::Ready;
                self.num_ready += 1;
                let micros = client.began.elapsed().as_micros() as u64;
                self.connect_time.add(micros);
                if client.role == Role::Deaf {
                    // Nothing that comes for it is so much as noticed from now on.
                    let deregistered = self.poll.registry().deregister(&mut client.stream);
                    deregistered.map_err(|err| err.to_string())?;
                }
            }
        } else if packet.starts_with(b"44") {
            return Err(String::from_utf8_lossy(packet).into_owned());
        } else if packet.starts_with(b"41") || packet == b"1" {
            self.end(number);
        } else if packet != b"6" && !packet.starts_with(&name("42")) {
            // An event of another name is the server's own affair: Sockhop tells each client which instance serves it.
            self.tally.strange += 1;
        }
        Ok(())
    }

    /// Returns how many deliveries have not come of those that were sent to each group.
    pub(crate) fn count_missing(&self, sent: &[u32]) -> u64 {
        self.of_groups(sent)
            .map(|(client, sent)| u64::from(sent.saturating_sub(client.received)))
            .sum()
    }

    /// Returns how many clients got something twice.
    pub(crate) fn count_duplicates(&self, sent: &[u32]) -> u64 {
        let expected = |sent: u32| u64::from(sent) * u64::from(sent.saturating_sub(1)) / 2;
        self.of_groups(sent)
            .filter(|(client, sent)| {
                client.received > *sent
                    || client.received == *sent && client.seq_sum != expected(*sent)
            })
            .count() as u64
    }

    /// Returns how many bytes a broadcast is on a WebSocket.
    pub(crate) fn delivery_bytes(&self) -> u64 {
        wire::frame_len(self.delivery.len() + self.manner.payload + 1) as u64
    }

    /// Returns what the kernel holds for each deaf client to which the server still has a connection.
    pub(crate) fn deaf_queues(&self) -> Result<Vec<Holding>> {
        let failed = |err: std::io::Error| format!("the kernel's table of connections: {err}");
        let table = queues::read().map_err(failed)?;
        let deaf = self
            .clients
            .iter()
            .filter(|client| client.role == Role::Deaf);
        let holdings = deaf.map(|client| {
            let local = client.stream.local_addr().map_err(failed)?;
            Ok(table.holding(self.manner.targets[client.target], local))
        });
        holdings.filter_map(Result::transpose).collect()
    }

    fn of_groups<'a>(&'a self, sent: &'a [u32]) -> impl Iterator<Item = (&'a Client, u32)> {
        self.clients
            .iter()
            .filter_map(|client| Some((client, *sent.get(client.group)?)))
    }
}

/// Connects one that is not measured. Its options must stand before the handshake, which tells the server of them.
fn connect_further(addr: SocketAddr, role: Role) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_mss(ETHERNET_SEGMENT)?;
    if role == Role::Deaf {
        socket.set_recv_buffer_size(DEAF_RECEIVE_BYTES)?;
    }
    match socket.connect(&addr.into()) {
        Err(err) if err.raw_os_error() != Some(IN_PROGRESS) => return Err(err),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Polling {
    /// Writes the next request, if there is one.
    fn ask(&mut self, outbox: &mut Vec<u8>, addr: SocketAddr) {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", self.sid);
        if !self.to_say.is_empty() {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
                self.to_say.len()
            );
            outbox.extend_from_slice(head.as_bytes());
            outbox.append(&mut self.to_say);
        } else if !self.is_mouth {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
            outbox.extend_from_slice(head.as_bytes());
        } else {
            return;
        }
        self.waits = true;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn roles_are_as_many_as_were_asked_for_and_evenly_spread() {
        for (num_measured, num_further) in [(100, 1000), (1, 3), (7, 7), (100, 30), (5, 0)] {
            let roles: Vec<_> = Role::spread(num_measured, num_further, Role::Deaf).collect();
            let measured = |roles: &[Role]| {
                let measured = roles.iter().filter(|role| **role == Role::Measured);
                measured.count()
            };
            assert_eq!(roles.len(), num_measured + num_further);
            assert_eq!(measured(&roles), num_measured);
            assert_eq!(roles[0], Role::Measured);
            for end in 1..=roles.len() {
                let (num, even) = (measured(&roles[..end]), end * num_measured);
                let off = (num * roles.len()).abs_diff(even);
                assert!(off < roles.len(), "{num} of the first {end}");
            }
        }
    }

    #[test]
    fn the_kernel_takes_little_for_who_is_deaf() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _deaf = connect_further(listener.local_addr().unwrap(), Role::Deaf).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut taken = 0;
        let end = loop {
            match stream.write(&[0; 1000]) {
                Ok(len) => taken += len as u64,
                Err(err) => break err.kind(),
            }
            assert!(taken <= MOST_HELD, "{taken}");
        };
        assert_eq!(end, ErrorKind::WouldBlock, "after {taken}");
    }

    /// Reads until `end` has come.
    fn read_until(stream: &mut std::net::TcpStream, end: &[u8]) {
        let mut read = Vec::new();
        while !read.windows(end.len()).any(|part| part == end) {
            let mut bytes = [0; 1024];
            let len = stream.read(&mut bytes).unwrap();
            assert!(len > 0);
            read.extend_from_slice(&bytes[..len]);
        }
    }

    /// A server's frame of a short text.
    fn frame(text: &[u8]) -> Vec<u8> {
        [&[0x80 | TEXT, text.len() as u8], text].concat()
    }

    /// A server that joins `num` clients, one after the other, and then sends these frames to each.
    fn serve(listener: &TcpListener, num: usize, frames: &[u8]) -> Vec<std::net::TcpStream> {
        let join = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            read_until(&mut stream, b"\r\n\r\n");
            let accept = String::from_utf8_lossy(ACCEPT);
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&frame(br#"0{"sid":"x"}"#)).unwrap();
            read_until(&mut stream, b"40/events,");
            stream
                .write_all(&frame(br#"40/events,{"sid":"x"}"#))
                .unwrap();
            stream
        };
        let mut streams: Vec<_> = (0..num).map(join).collect();
        for stream in &mut streams {
            stream.write_all(frames).unwrap();
        }
        streams
    }

    const MEASURED: usize = 3;
    const FURTHER: usize = 8;
    const EVENTS: u32 = 5;

    /// Connects measured clients and further ones to a server that sends some events to all. Returns them when whoever reads has
    /// all of it, with the number of bytes that were sent to each.
    fn fleet_beside(
        further: Role,
    ) -> (
        Fleet,
        usize,
        std::thread::JoinHandle<Vec<std::net::TcpStream>>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let manner = Manner {
            targets: vec![listener.local_addr().unwrap()],
            namespace: "/events".to_owned(),
            auth: String::new(),
            polls: false,
            event: "test-event".to_owned(),
            payload: 64,
        };
        let mut frames = Vec::new();
        for seq in 0..EVENTS {
            let mut text = b"42/events,[\"test-event\",".to_vec();
            wire::put_payload(&mut text, 64, seq, 0);
            text.push(b']');
            frames.extend(frame(&text));
        }
        let len = frames.len();
        let server = std::thread::spawn(move || serve(&listener, MEASURED + FURTHER, &frames));
        let mut fleet = Fleet::new(manner).unwrap();
        let patience = Duration::from_secs(30);
        let roles = Role::spread(MEASURED, FURTHER, further);
        fleet.connect_as(roles, 1, patience).unwrap();
        let deadline = Instant::now() + patience;
        while fleet.count_missing(&[EVENTS]) > 0 {
            assert!(Instant::now() < deadline, "not all has come");
            fleet.turn(Some(Duration::from_millis(10))).unwrap();
        }
        (fleet, len, server)
    }

    #[test]
    fn what_others_read_is_checked_but_not_measured() {
        let (fleet, _, server) = fleet_beside(Role::Beside);
        let _streams = server.join().unwrap();
        assert_eq!(fleet.tally.delivered, MEASURED as u64 * u64::from(EVENTS));
        assert_eq!((fleet.tally.strange, fleet.tally.ended), (0, 0));
        let num = (MEASURED + FURTHER) as u64;
        assert_eq!(fleet.count_missing(&[EVENTS + 1]), num);
        assert_eq!(fleet.count_duplicates(&[EVENTS - 1]), num);
        assert!(fleet.deaf_queues().unwrap().is_empty());
    }

    #[test]
    fn who_is_deaf_reads_nothing_and_misses_nothing_and_is_told_apart_when_its_server_ends_it() {
        let (fleet, len, server) = fleet_beside(Role::Deaf);
        let mut streams = server.join().unwrap();
        assert_eq!(fleet.tally.delivered, MEASURED as u64 * u64::from(EVENTS));
        assert_eq!(fleet.count_missing(&[EVENTS + 1]), MEASURED as u64);
        assert_eq!(len as u64, fleet.delivery_bytes() * u64::from(EVENTS));
        let held = || -> Vec<_> {
            let queues = fleet.deaf_queues().unwrap();
            queues.iter().map(Holding::bytes).collect()
        };
        // A segment that is not acknowledged yet is at both ends.
        let deadline = Instant::now() + Duration::from_secs(30);
        while held() != [len as u64; FURTHER] {
            assert!(Instant::now() < deadline, "{:?} for {len}", held());
        }
        streams.drain(..MEASURED);
        while held().len() + MEASURED > FURTHER + 1 {
            assert!(Instant::now() < deadline, "{} are left", held().len());
        }
        assert_eq!(fleet.tally.ended, 0);
    }
}
