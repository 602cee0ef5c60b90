//! The bus that is one Redis with its plain channels, and connections for `sharded`: the two places that know the client.
//!
//! Two connections in RESP2: one publishes, in pipelines, one is subscribed. We make the sockets ourselves, because the
//! client's subscriber reads as fast as Redis sends; see `read_gate`. The client's own reconnecting is not used:
//! `link` must resubscribe before it publishes, and count what is lost.
//!
//! A Redis Cluster is refused: it carries plain channels, but each node counts its own subscribers alone, so questions
//! would miss instances. How a stream is opened (TCP, TLS, a Unix socket): `redis_endpoint`.
//!
//! Source: Redis 7 "Pub/Sub", "RESP"; wire.md 10.5, 10.14, 10.21.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream as _;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Msg, Pipeline, RedisConnectionInfo, RedisError,
    RedisResult, Value,
    aio::{MultiplexedConnection, PubSub, PubSubSink, PubSubStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::{self, Instant, Sleep},
};

use super::{
    bus::{Bus, BusError, Heard, Inbound, Names, Outbound, Published, Publisher, Subscriber},
    hello::Hello,
    link::PING_INTERVAL,
    read_gate::Gate,
    sharded::{Listener, Node},
};
use crate::{
    config::RedisConfig,
    redis_endpoint::{Endpoint, EndpointError, OpenError, Stream, fault::SENTINEL},
    telemetry::with_causes,
};

/// How long both connections may take to stand: name look-up, TCP, password.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long Redis may take to answer. With [`PING_INTERVAL`] of silence before (twice, for a subscriber that has just
/// received something), a Redis that has become a black hole is noticed in less than 5 s.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(2500);
/// Longest message that is surely taken in; one that is longer by more than a socket buffer surely is not. Redis
/// itself carries up to 512 MiB; nobody sends that for a good reason.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Names in one command that changes what is listened to. Redis answers each of them alone, keeps all those answers until the
/// command is done, and ends a subscriber for which it keeps too much (32 MB, if nobody has set it otherwise).
const MAX_NAMES: usize = 1024;
/// Bytes of those names, unless the first alone is longer: each comes back in its answer.
const MAX_NAMES_BYTES: usize = 1 << 20;

/// One Redis.
#[derive(Clone, Debug)]
pub struct RedisBus {
    endpoint: Endpoint,
}

impl RedisBus {
    /// Returns the Redis of the settings.
    ///
    /// # Errors
    /// [`BusError::Address`].
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        match Endpoint::new(config) {
            Ok(endpoint) => Ok(Self { endpoint }),
            Err(err) => Err(BusError::Address { reason: err.reason }),
        }
    }

    /// Returns the Redis at another node of its cluster: the same credentials, another address.
    pub(super) fn at(&self, node: &Node) -> Result<Self, BusError> {
        let Node::At { host, port } = node else {
            return Ok(self.clone());
        };
        let endpoint = self.endpoint.at(host, *port);
        let address = |err: EndpointError| BusError::Address { reason: err.reason };
        Ok(Self {
            endpoint: endpoint.map_err(address)?,
        })
    }

    /// Returns this Redis by host and port, if it has them.
    pub(super) fn named(&self) -> Node {
        match self.endpoint.host_and_port() {
            Some((host, port)) => Node::At {
                host: host.into(),
                port,
            },
            None => Node::Seed,
        }
    }

    /// Connects, to listen to sharded channels.
    pub(super) async fn listener(&self) -> Result<Listener, BusError> {
        let socket = self.open().await?;
        let login = self.endpoint.login();
        Listener::log_in(socket, login.username(), login.password()).await
    }

    async fn open(&self) -> Result<Box<dyn Stream>, BusError> {
        self.endpoint.open().await.map_err(|err| {
            let reason = with_causes(&err);
            match err {
                OpenError::Connect(_) => BusError::Connect { reason },
                OpenError::Tls(_) => BusError::Untrusted { reason },
            }
        })
    }

    /// Connects, to publish and to ask.
    pub(super) async fn publisher(&self) -> Result<RedisPublisher, BusError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        let socket = self.open().await?;
        let (connection, driver) =
            MultiplexedConnection::new_with_config(self.endpoint.login(), socket, config)
                .await
                .map_err(bus_error)?;
        // Ends when the connection is dropped.
        tokio::spawn(driver);
        Ok(RedisPublisher { connection })
    }

    async fn subscriber(&self) -> Result<RedisSubscriber, BusError> {
        RedisSubscriber::over(self.open().await?, self.endpoint.login()).await
    }
}

impl RedisBus {
    /// Publishes one message over a connection of its own; returns how many subscriptions got it. Answers within seconds,
    /// whatever the other side does.
    ///
    /// # Errors
    /// See [`BusError`]. After [`BusError::Lost`] and [`BusError::TimedOut`] it is unknown whether it went out.
    pub async fn publish_once(&self, message: &Outbound) -> Result<u64, BusError> {
        let mut publisher = within(CONNECT_TIMEOUT, self.publisher()).await?;
        publish("PUBLISH", &message.channel, &message.payload)
            .query_async(&mut publisher.connection)
            .await
            .map_err(bus_error)
    }
}

impl Bus for RedisBus {
    type Publisher = RedisPublisher;
    type Subscriber = RedisSubscriber;

    fn place(&self) -> String {
        self.endpoint.place()
    }

    async fn connect(&self) -> Result<(RedisPublisher, RedisSubscriber), BusError> {
        let both = async {
            let mut publisher = self.publisher().await?;
            publisher.refuse_cluster().await?;
            Ok((publisher, self.subscriber().await?))
        };
        within(CONNECT_TIMEOUT, both).await
    }
}

/// The connection that publishes.
#[derive(Debug)]
pub struct RedisPublisher {
    connection: MultiplexedConnection,
}

impl RedisPublisher {
    /// Publishes messages by `verb` (PUBLISH, SPUBLISH) in their order; returns what Redis says of each.
    pub(super) async fn send(
        &mut self,
        verb: &str,
        batch: impl Iterator<Item = &Outbound>,
    ) -> Result<Vec<RedisResult<Value>>, BusError> {
        let mut pipeline = Pipeline::with_capacity(batch.size_hint().0);
        for Outbound { channel, payload } in batch {
            pipeline
                .add_command(publish(verb, channel, payload))
                .ignore_errors();
        }
        let answers = pipeline.query_async(&mut self.connection);
        answers.await.map_err(bus_error)
    }

    /// Returns the census of `verb` (NUMSUB, SHARDNUMSUB), of each channel.
    pub(super) async fn count(
        &mut self,
        verb: &str,
        channels: &[String],
    ) -> Result<Vec<usize>, BusError> {
        let mut census = redis::cmd("PUBSUB");
        census.arg(verb).arg(channels);
        let counted: Vec<(Value, usize)> = census
            .query_async(&mut self.connection)
            .await
            .map_err(bus_error)?;
        Ok(counted.into_iter().map(|(_, num)| num).collect())
    }

    /// Puts a command that is not about a channel.
    pub(super) async fn ask(&mut self, command: &[&str]) -> RedisResult<Value> {
        let mut cmd = Cmd::new();
        for word in command {
            cmd.arg(*word);
        }
        cmd.query_async(&mut self.connection).await
    }

    /// Asks what it says of itself. One that is too old for this command says so.
    pub(super) async fn hello(&mut self) -> RedisResult<Hello> {
        Ok(Hello::read(&self.ask(&["HELLO"]).await?))
    }

    /// Asks the same of one that may have become something else. One that cannot or may not answer that is there, and that is all
    /// we know.
    pub(super) async fn still_says(&mut self) -> Result<Hello, BusError> {
        let hello = within(RESPONSE_TIMEOUT, async {
            self.hello().await.map_err(bus_error)
        });
        match hello.await {
            // Too old for this command, or forbidden, or loading.
            Err(BusError::Refused { .. }) => Ok(Hello::default()),
            hello => hello,
        }
    }

    /// Makes sure that it is no node of a Redis Cluster. One too old to say what it is is taken as it is.
    async fn refuse_cluster(&mut self) -> Result<(), BusError> {
        match self.hello().await {
            Ok(hello) if hello.is_of_cluster() => Err(BusError::Unsuited {
                reason: "this Redis is a Redis Cluster, where the classic adapter's questions would miss instances: set REDIS_ADAPTER=sharded on all instances and servers, or use a single Redis".to_owned(),
            }),
            Err(err) if err.kind() == ErrorKind::Io => Err(bus_error(err)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Publisher for RedisPublisher {
    async fn publish(&mut self, batch: &[Outbound]) -> Result<Published, BusError> {
        let answers = self.send("PUBLISH", batch.iter()).await?;
        let mut published = Published::default();
        for (index, answer) in answers.into_iter().enumerate() {
            let num_listeners = answer.map(num_listeners).unwrap_or_else(|err| {
                published.refused.push((index, bus_error(err)));
                0
            });
            published.num_listeners.push(num_listeners);
        }
        Ok(published)
    }

    async fn probe(&mut self, channel: &str) -> Result<(), BusError> {
        let probe = publish("PUBLISH", channel, &Bytes::new());
        let answer = probe.query_async::<Value>(&mut self.connection);
        answer.await.map_err(bus_error)?;
        self.ping().await
    }

    async fn num_subscribers(&mut self, channels: &[String]) -> Result<Vec<usize>, BusError> {
        self.count("NUMSUB", channels).await
    }

    /// Asks what Redis says of itself: what is published at a replica reaches only who listens there, and no error tells.
    async fn ping(&mut self) -> Result<(), BusError> {
        judge(&self.still_says().await?)
    }
}

/// Reads Redis' answer to a message.
pub(super) fn num_listeners(answer: Value) -> usize {
    match answer {
        Value::Int(num) => usize::try_from(num).unwrap_or(0),
        _ => 0,
    }
}

/// Judges whether what is published there reaches all.
pub(super) fn judge(hello: &Hello) -> Result<(), BusError> {
    let refused = |code: &str, reason: &str| {
        Err(BusError::Refused {
            code: code.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if hello.is_sentinel() {
        return refused(SENTINEL, "a Sentinel publishes nothing");
    }
    if hello.is_replica() {
        return refused(
            "READONLY",
            "what is published at a replica does not reach all",
        );
    }
    Ok(())
}

fn publish(verb: &str, channel: &str, payload: &Bytes) -> Cmd {
    let mut command = Cmd::with_capacity(3, verb.len() + channel.len() + payload.len());
    command.arg(verb).arg(channel).arg(&payload[..]);
    command
}

/// The connection that listens.
pub struct RedisSubscriber {
    sink: PubSubSink,
    stream: PubSubStream,
    gate: Arc<Gate>,
    /// Looks after [`PING_INTERVAL`], or when a ping's answer is due.
    timer: Pin<Box<Sleep>>,
    num_read_at_tick: u64,
    ping: Option<Answer>,
    /// How many bytes had been read when the last message was whole, or the last command confirmed.
    num_read_when_whole: u64,
    /// Commands that change subscriptions, one after the other.
    changes: VecDeque<Answer>,
    has_settled: bool,
}

#[derive(Clone, Copy)]
enum Verb {
    PUnsubscribe,
    Unsubscribe,
    PSubscribe,
    Subscribe,
}

/// An answer of Redis that is under way.
type Answer = Pin<Box<dyn Future<Output = RedisResult<()>>>>;

impl Subscriber for RedisSubscriber {
    fn change(&mut self, add: Names, remove: Names) {
        // Sent by `next`, like everything here; what Redis answers comes through the same gate as messages do, so nobody may
        // wait for it without reading them. A command goes out when the one before it has been answered. No time is set for it here:
        // while the hub keeps us from reading, the answer may be stuck behind messages. Whether Redis is there, the pings tell, if
        // nothing at all comes; one that sends other things and never this answer, `link` gives up, who knows how long the hub took.
        for (verb, names) in [
            (Verb::PUnsubscribe, remove.patterns),
            (Verb::Unsubscribe, remove.channels),
            (Verb::PSubscribe, add.patterns),
            (Verb::Subscribe, add.channels),
        ] {
            for names in chunks(names) {
                let mut sink = self.sink.clone();
                self.changes.push_back(Box::pin(async move {
                    match verb {
                        Verb::PUnsubscribe => sink.punsubscribe(&names).await,
                        Verb::Unsubscribe => sink.unsubscribe(&names).await,
                        Verb::PSubscribe => sink.psubscribe(&names).await,
                        Verb::Subscribe => sink.subscribe(&names).await,
                    }
                }));
            }
        }
    }

    async fn next(&mut self) -> Result<Heard, BusError> {
        loop {
            if std::mem::take(&mut self.has_settled) {
                return Ok(Heard::Settled);
            }
            let answered = async {
                match &mut self.ping {
                    Some(pong) => pong.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                match self.changes.front_mut() {
                    Some(change) => change.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            select! {
                biased;
                message = next_message(&mut self.stream) => {
                    let lost = || BusError::Lost { reason: "closed by Redis".to_owned() };
                    self.num_read_when_whole = self.gate.num_read();
                    return inbound(&message.ok_or_else(lost)?).map(Heard::Message);
                }
                changed = changed => {
                    changed.map_err(bus_error)?;
                    self.changes.pop_front();
                    self.num_read_when_whole = self.gate.num_read();
                    self.has_settled = self.changes.is_empty();
                }
                // Only reached with the client's queue empty: what was let through is a message that is not whole, or answers to one
                // command, which are far shorter.
                () = self.gate.closed() => {
                    let num_partial = self.gate.num_read() - self.num_read_when_whole;
                    if num_partial > MAX_MESSAGE_BYTES as u64 {
                        return Err(BusError::TooLong { max_bytes: MAX_MESSAGE_BYTES });
                    }
                    self.gate.open();
                }
                answer = answered => {
                    self.ping = None;
                    answer.map_err(bus_error)?;
                }
                () = self.timer.as_mut() => self.tick()?,
            }
        }
    }
}

impl RedisSubscriber {
    /// Logs in on a fresh connection.
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        login: &RedisConnectionInfo,
    ) -> Result<Self, BusError> {
        let (socket, gate) = Gate::new(stream);
        let (sink, stream) = PubSub::new(login, socket).await.map_err(bus_error)?.split();
        Ok(Self {
            sink,
            stream,
            num_read_at_tick: gate.num_read(),
            gate,
            timer: Box::pin(time::sleep(PING_INTERVAL)),
            ping: None,
            num_read_when_whole: 0,
            changes: VecDeque::new(),
            has_settled: false,
        })
    }

    /// Pings after silence, gives up after unanswered pings.
    fn tick(&mut self) -> Result<(), BusError> {
        let num_read = self.gate.num_read();
        // Whatever came in shows that Redis is there, be it our answer or not: while the hub keeps us from reading,
        // the answer may be stuck behind messages.
        let is_silent = num_read == self.num_read_at_tick;
        self.num_read_at_tick = num_read;
        let next_look = if !is_silent {
            PING_INTERVAL
        } else if self.ping.is_some() {
            return Err(BusError::TimedOut {
                after: RESPONSE_TIMEOUT,
            });
        } else {
            let mut sink = self.sink.clone();
            self.ping = Some(Box::pin(
                async move { sink.ping::<Value>().await.map(drop) },
            ));
            RESPONSE_TIMEOUT
        };
        self.timer.as_mut().reset(Instant::now() + next_look);
        Ok(())
    }
}

/// Cuts names into what goes into one command each.
fn chunks(names: Vec<String>) -> impl Iterator<Item = Vec<String>> {
    let mut names = names.into_iter();
    std::iter::from_fn(move || {
        let rest = names.as_slice();
        let mut bytes = 0;
        let fits = |name: &&String| {
            bytes += name.len();
            bytes <= MAX_NAMES_BYTES
        };
        let num = rest.iter().take(MAX_NAMES).take_while(fits).count().max(1);
        let chunk: Vec<_> = names.by_ref().take(num).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Waits for the next message; `None` when the connection has ended.
async fn next_message(stream: &mut PubSubStream) -> Option<Msg> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

fn inbound(message: &Msg) -> Result<Inbound, BusError> {
    Ok(Inbound {
        pattern: message.get_pattern().map_err(bus_error)?,
        channel: message.get_channel::<Vec<u8>>().map_err(bus_error)?.into(),
        payload: Bytes::copy_from_slice(message.get_payload_bytes()),
    })
}

/// Gives up on `work` after `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, BusError>>,
) -> Result<T, BusError> {
    match time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(BusError::TimedOut { after: limit }),
    }
}

/// Sorts the client's errors. Redis names users in some of its answers, but never a password.
pub(super) fn bus_error(err: RedisError) -> BusError {
    let reason = with_causes(&err);
    if err.is_timeout() {
        return BusError::TimedOut {
            after: RESPONSE_TIMEOUT,
        };
    }
    match err.kind() {
        ErrorKind::Io | ErrorKind::Parse => BusError::Lost { reason },
        kind => BusError::Refused {
            code: match kind {
                // Its own kind, without Redis' words.
                ErrorKind::AuthenticationFailed => "WRONGPASS",
                _ => err.code().unwrap_or_default(),
            }
            .to_owned(),
            // Its own words alone: the client's text for it says them twice.
            reason: match (err.code(), err.detail()) {
                (Some(code), Some(detail)) => format!("{code} {detail}"),
                _ => reason,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
    };

    use super::*;
    use crate::redis_bridge::read_gate::READ_AHEAD;

    /// The other end of a subscriber's connection.
    struct Server {
        stream: BufReader<DuplexStream>,
    }

    impl Server {
        /// Returns a subscriber, and who is to answer it.
        async fn pair() -> (RedisSubscriber, Self) {
            let (ours, theirs) = tokio::io::duplex(4 << 20);
            let mut server = Self {
                stream: BufReader::new(theirs),
            };
            let login = RedisConnectionInfo::default();
            let greet = async {
                // What the client says of itself.
                for _ in 0..2 {
                    server.command().await;
                    server.say("+OK\r\n").await;
                }
            };
            let (subscriber, ()) = tokio::join!(RedisSubscriber::over(ours, &login), greet);
            (subscriber.unwrap(), server)
        }

        /// Returns the next command, in words.
        async fn command(&mut self) -> Vec<String> {
            let num_words = self.number().await;
            let mut words = Vec::new();
            for _ in 0..num_words {
                let mut word = vec![0; self.number().await + 2];
                self.stream.read_exact(&mut word).await.unwrap();
                words.push(String::from_utf8(word).unwrap().trim_end().to_owned());
            }
            words
        }

        async fn number(&mut self) -> usize {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            line.trim_end()[1..].parse().unwrap()
        }

        async fn say(&mut self, text: &str) {
            self.stream.write_all(text.as_bytes()).await.unwrap();
        }

        /// Says that all these are listened to, or not any more.
        async fn confirm(&mut self, command: &[String]) {
            let verb = command[0].to_ascii_lowercase();
            for name in &command[1..] {
                let (verb_len, len) = (verb.len(), name.len());
                let answer = format!("*3\r\n${verb_len}\r\n{verb}\r\n${len}\r\n{name}\r\n:1\r\n");
                self.say(&answer).await;
            }
        }
    }

    fn names(num: usize, len: usize) -> Vec<String> {
        let name = |at: usize| {
            let number = at.to_string();
            "x".repeat(len - number.len()) + &number
        };
        (0..num).map(name).collect()
    }

    /// A bug: all names went in one command, and with thousands of namespaces Redis closed each new connection, because it had
    /// to keep all answers to it.
    #[tokio::test]
    async fn no_command_makes_redis_keep_too_many_answers() {
        let (mut subscriber, mut server) = Server::pair().await;
        let patterns = names(2 * MAX_NAMES + 1, 10);
        let channels = names(3, MAX_NAMES_BYTES / 2);
        let add = Names {
            patterns: patterns.clone(),
            channels: channels.clone(),
        };
        subscriber.change(add, Names::default());
        subscriber.change(Names::default(), Names { patterns, channels });
        let answer = async {
            let mut commands = Vec::new();
            for _ in 0..10 {
                let command = server.command().await;
                server.confirm(&command).await;
                commands.push((command[0].clone(), command.len() - 1));
            }
            commands
        };
        // Fewer commands must fail the test, not hold it up.
        let both = async { tokio::join!(subscriber.next(), answer) };
        let both = time::timeout(Duration::from_secs(30), both).await;
        let (heard, commands) = both.expect("there are ten commands");
        assert_eq!(heard.unwrap(), Heard::Settled);
        let of = |verb: &str| {
            let of_it = commands.iter().filter(|(word, _)| word == verb);
            of_it.map(|(_, num)| *num).collect::<Vec<_>>()
        };
        for verb in ["PSUBSCRIBE", "PUNSUBSCRIBE"] {
            assert_eq!(of(verb), [MAX_NAMES, MAX_NAMES, 1]);
        }
        for verb in ["SUBSCRIBE", "UNSUBSCRIBE"] {
            assert_eq!(of(verb), [2, 1]);
        }
    }

    /// A bug: all that Redis confirmed with no message between counted as one that is not whole, and with so many namespaces that it is
    /// more than a message may have, each new connection ended.
    #[tokio::test]
    async fn what_is_confirmed_is_no_message_that_is_too_long() {
        let (mut subscriber, mut server) = Server::pair().await;
        let num = MAX_MESSAGE_BYTES / MAX_NAMES_BYTES + 4;
        let add = Names {
            channels: names(num, MAX_NAMES_BYTES),
            ..Names::default()
        };
        subscriber.change(add, Names::default());
        let answer = async {
            for _ in 0..num {
                let command = server.command().await;
                server.confirm(&command).await;
            }
        };
        let both = async { tokio::join!(subscriber.next(), answer) };
        let both = time::timeout(Duration::from_secs(60), both).await;
        assert_eq!(both.expect("all is confirmed").0, Ok(Heard::Settled));
    }

    /// A bug: what Redis had to confirm within 2.5 s counted as late while its answer stood behind messages that a slow hub had left
    /// unread, and the link ended on which they came.
    #[tokio::test]
    async fn an_answer_that_stands_behind_messages_is_not_late() {
        let (mut subscriber, mut server) = Server::pair().await;
        let add = Names {
            channels: vec!["a".to_owned()],
            ..Names::default()
        };
        subscriber.change(add, Names::default());
        let payload = "x".repeat(1000);
        let message = format!("*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1000\r\n{payload}\r\n");
        let num_messages = 3 * READ_AHEAD / 1000;
        let flood = async {
            let command = server.command().await;
            server.say(&message.repeat(num_messages)).await;
            server.confirm(&command).await;
        };
        let (heard, ()) = tokio::join!(subscriber.next(), flood);
        assert!(matches!(heard, Ok(Heard::Message(_))), "{heard:?}");
        // The hub takes that long for the first.
        time::sleep(RESPONSE_TIMEOUT).await;
        for at in 1..num_messages {
            let heard = subscriber.next().await;
            assert!(matches!(heard, Ok(Heard::Message(_))), "{at}: {heard:?}");
        }
        assert_eq!(subscriber.next().await, Ok(Heard::Settled));
    }

    #[test]
    fn a_name_that_is_too_long_goes_alone() {
        assert_eq!(chunks(Vec::new()).count(), 0);
        let long = "x".repeat(MAX_NAMES_BYTES + 1);
        let all = vec!["a".to_owned(), long.clone(), long, "b".to_owned()];
        let lens: Vec<_> = chunks(all).map(|chunk| chunk.len()).collect();
        assert_eq!(lens, [1, 1, 1, 1]);
    }
}
