//! One connection that listens to sharded channels of one node.
//!
//! Speaks RESP2 itself, see `resp`. Nothing is read while nobody polls, and never more than one message and a socket
//! buffer beyond it: a slow hub fills the socket's buffers, then Redis' own output buffer, instead of our memory.
//!
//! It does not know which node should have a channel: that is `subscriber`'s.
//!
//! Source: Redis 7 "Sharded Pub/Sub"; wire.md 4.4.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{self, Instant, Sleep},
};

use super::{
    super::{
        bus::BusError,
        link::PING_INTERVAL,
        redis_bus::{MAX_MESSAGE_BYTES, RESPONSE_TIMEOUT},
    },
    resp::{self, Frame, RespFault},
};
use crate::redis_endpoint::Stream;

/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;
/// Bytes of room for what is not whole yet that are kept for what comes next; more was for a long message, and is given back.
const KEPT_BYTES: usize = 1 << 20;

/// What the node says.
#[derive(Debug)]
pub(super) enum Event {
    /// A message.
    Message {
        /// Where it was published.
        channel: Bytes,
        /// What.
        payload: Bytes,
    },
    /// A channel is listened to from here on.
    Subscribed(String),
    /// The node has ended a subscription of its own accord: it does not have the slot any more.
    Withdrawn(String),
    /// The node does not let us listen to a channel.
    Refused {
        /// Which.
        channel: String,
        /// Its own words.
        error: String,
    },
}

/// A command whose answer has not come yet. Answers come in the order of the commands.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Subscribe(String),
    Unsubscribe(String),
    Ping,
}

/// The connection.
pub(in super::super) struct Listener {
    socket: Box<dyn Stream>,
    scratch: Box<[u8]>,
    input: BytesMut,
    /// How much of it there has been since it was made.
    peak_bytes: usize,
    output: BytesMut,
    asked: VecDeque<Asked>,
    /// Looks after [`PING_INTERVAL`], or when an answer is due.
    timer: Pin<Box<Sleep>>,
    has_heard: bool,
}

impl Listener {
    /// Logs in on a fresh connection.
    ///
    /// # Errors
    /// The node does not let us in, or does not speak RESP2.
    pub(in super::super) async fn log_in(
        mut socket: Box<dyn Stream>,
        username: Option<&str>,
        password: Option<&str>,
    ) -> Result<Self, BusError> {
        let mut input = BytesMut::new();
        if let Some(password) = password {
            let mut output = BytesMut::new();
            match username {
                Some(username) => resp::write(&mut output, &["AUTH", username, password]),
                None => resp::write(&mut output, &["AUTH", password]),
            }
            socket.write_all(&output).await.map_err(lost)?;
            socket.flush().await.map_err(lost)?;
            let answer = loop {
                if let Some(frame) = take(&mut input)? {
                    break frame;
                }
                if socket.read_buf(&mut input).await.map_err(lost)? == 0 {
                    return Err(closed());
                }
            };
            if let Frame::Error(reason) = answer {
                return Err(BusError::refused(&reason));
            }
        }
        Ok(Self {
            socket,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            peak_bytes: input.len(),
            input,
            output: BytesMut::new(),
            asked: VecDeque::new(),
            timer: Box::pin(time::sleep(PING_INTERVAL)),
            has_heard: false,
        })
    }

    /// Asks to listen to a channel; sent by [`Self::poll`].
    pub(super) fn subscribe(&mut self, channel: String) {
        // One by one: channels of different slots in one command are refused (CROSSSLOT).
        resp::write(&mut self.output, &["SSUBSCRIBE", &channel]);
        self.asked.push_back(Asked::Subscribe(channel));
    }

    /// Asks to listen to a channel no more.
    pub(super) fn unsubscribe(&mut self, channel: String) {
        resp::write(&mut self.output, &["SUNSUBSCRIBE", &channel]);
        self.asked.push_back(Asked::Unsubscribe(channel));
    }

    /// Sends what is to be sent and returns the next event.
    ///
    /// # Errors
    /// The connection is lost, silent for too long, or not understood.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, BusError>> {
        loop {
            self.poll_write(cx)?;
            while let Some(frame) = take(&mut self.input)? {
                if let Some(event) = self.understand(frame)? {
                    return Poll::Ready(Ok(event));
                }
            }
            self.give_back();
            let mut buf = ReadBuf::new(&mut self.scratch);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    return Poll::Ready(Err(closed()));
                }
                Poll::Ready(Ok(())) => {
                    self.input.extend_from_slice(buf.filled());
                    self.peak_bytes = self.peak_bytes.max(self.input.len());
                    self.has_heard = true;
                }
                Poll::Ready(Err(err)) => return Poll::Ready(Err(lost(err))),
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    self.tick()?;
                }
            }
        }
    }

    /// Gives back the room that a long message needed, once it has been taken out.
    fn give_back(&mut self) {
        // The room itself cannot be asked for: what has been taken out of it does not count.
        if self.peak_bytes > KEPT_BYTES && self.input.len() <= READ_BYTES {
            self.input = BytesMut::from(&self.input[..]);
            self.peak_bytes = self.input.len();
        }
    }

    /// Writes as much as the socket takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), BusError> {
        let mut has_written = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Err(closed()),
                Poll::Ready(Ok(len)) => {
                    self.output.advance(len);
                    has_written = true;
                }
                Poll::Ready(Err(err)) => return Err(lost(err)),
                Poll::Pending => break,
            }
        }
        // Under TLS, what was written may still wait; a flush that cannot end yet is taken up by the next write.
        if has_written && let Poll::Ready(Err(err)) = Pin::new(&mut self.socket).poll_flush(cx) {
            return Err(lost(err));
        }
        Ok(())
    }

    fn understand(&mut self, frame: Frame) -> Result<Option<Event>, BusError> {
        let mut items = match frame {
            Frame::Array(items) => items.into_iter(),
            Frame::Simple(_) => {
                self.answers(&Asked::Ping);
                return Ok(None);
            }
            Frame::Error(error) => {
                return match self.asked.pop_front() {
                    Some(Asked::Subscribe(channel)) => Ok(Some(Event::Refused { channel, error })),
                    // It has none of it then.
                    Some(Asked::Unsubscribe(_)) => Ok(None),
                    Some(Asked::Ping) | None => Err(BusError::refused(&error)),
                };
            }
        };
        let mut next = || items.next().flatten();
        let kind = next().unwrap_or_default();
        if &kind[..] == b"pong" {
            self.answers(&Asked::Ping);
            return Ok(None);
        }
        let (Some(channel), payload) = (next(), next()) else {
            return Ok(None);
        };
        if &kind[..] == b"smessage" {
            let payload = payload.unwrap_or_default();
            return Ok(Some(Event::Message { channel, payload }));
        }
        // We have named all channels; none of them was anything else.
        let Ok(channel) = String::from_utf8(channel.into()) else {
            return Ok(None);
        };
        Ok(match &kind[..] {
            b"ssubscribe" => {
                let asked = Asked::Subscribe(channel);
                self.answers(&asked);
                match asked {
                    Asked::Subscribe(channel) => Some(Event::Subscribed(channel)),
                    Asked::Unsubscribe(_) | Asked::Ping => None,
                }
            }
            b"sunsubscribe" => match Asked::Unsubscribe(channel) {
                asked if self.answers(&asked) => None,
                Asked::Unsubscribe(channel) => Some(Event::Withdrawn(channel)),
                Asked::Subscribe(_) | Asked::Ping => None,
            },
            _ => None,
        })
    }

    /// Returns whether this is the answer to the oldest command, which has its answer then.
    fn answers(&mut self, asked: &Asked) -> bool {
        let is_oldest = self.asked.front() == Some(asked);
        if is_oldest {
            self.asked.pop_front();
        }
        is_oldest
    }

    /// Pings after silence, gives up after unanswered commands.
    fn tick(&mut self) -> Result<(), BusError> {
        let next_look = if std::mem::take(&mut self.has_heard) {
            PING_INTERVAL
        } else if self.asked.contains(&Asked::Ping) {
            return Err(BusError::TimedOut {
                after: RESPONSE_TIMEOUT,
            });
        } else {
            resp::write(&mut self.output, &["PING"]);
            self.asked.push_back(Asked::Ping);
            RESPONSE_TIMEOUT
        };
        self.reset(next_look);
        Ok(())
    }

    fn reset(&mut self, next_look: Duration) {
        self.timer.as_mut().reset(Instant::now() + next_look);
    }
}

fn take(input: &mut BytesMut) -> Result<Option<Frame>, BusError> {
    resp::take(input, MAX_MESSAGE_BYTES).map_err(|fault| match fault {
        RespFault::TooLong => BusError::TooLong {
            max_bytes: MAX_MESSAGE_BYTES,
        },
        RespFault::Grammar => BusError::Lost {
            reason: "what came is not RESP2".to_owned(),
        },
    })
}

fn lost(err: io::Error) -> BusError {
    BusError::Lost {
        reason: err.to_string(),
    }
}

fn closed() -> BusError {
    BusError::Lost {
        reason: "closed by Redis".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::io::DuplexStream;

    use super::*;

    /// A listener, and the node's end of its connection.
    async fn pair() -> (Listener, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let listener = Listener::log_in(Box::new(ours), None, None).await.unwrap();
        (listener, theirs)
    }

    async fn next(listener: &mut Listener) -> Result<Event, BusError> {
        poll_fn(|cx| listener.poll(cx)).await
    }

    async fn answer(node: &mut DuplexStream, text: &str) {
        node.write_all(text.as_bytes()).await.unwrap();
    }

    fn confirmation(verb: &str, channel: &str) -> String {
        let (verb_len, len) = (verb.len(), channel.len());
        format!("*3\r\n${verb_len}\r\n{verb}\r\n${len}\r\n{channel}\r\n:1\r\n")
    }

    #[tokio::test]
    async fn an_error_belongs_to_the_oldest_command_whatever_was_withdrawn_meanwhile() {
        let (mut listener, mut node) = pair().await;
        for channel in ["a", "b", "c"] {
            listener.subscribe(channel.to_owned());
        }
        answer(&mut node, &confirmation("ssubscribe", "a")).await;
        answer(&mut node, &confirmation("sunsubscribe", "a")).await;
        answer(&mut node, "-MOVED 1 h:2\r\n").await;
        answer(&mut node, &confirmation("ssubscribe", "c")).await;
        assert!(matches!(next(&mut listener).await, Ok(Event::Subscribed(c)) if c == "a"));
        assert!(matches!(next(&mut listener).await, Ok(Event::Withdrawn(c)) if c == "a"));
        let refused = next(&mut listener).await;
        assert!(
            matches!(&refused, Ok(Event::Refused { channel, error }) if channel == "b" && error == "MOVED 1 h:2"),
            "{refused:?}"
        );
        assert!(matches!(next(&mut listener).await, Ok(Event::Subscribed(c)) if c == "c"));
    }

    #[tokio::test]
    async fn what_we_ended_ourselves_was_not_withdrawn() {
        let (mut listener, mut node) = pair().await;
        listener.subscribe("a".to_owned());
        listener.unsubscribe("a".to_owned());
        answer(&mut node, &confirmation("ssubscribe", "a")).await;
        answer(&mut node, &confirmation("sunsubscribe", "a")).await;
        answer(&mut node, &confirmation("sunsubscribe", "z")).await;
        assert!(matches!(next(&mut listener).await, Ok(Event::Subscribed(c)) if c == "a"));
        assert!(matches!(next(&mut listener).await, Ok(Event::Withdrawn(c)) if c == "z"));
    }

    fn message(payload: &str) -> String {
        let len = payload.len();
        format!("*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n${len}\r\n{payload}\r\n")
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_asked_for() {
        let (ours, mut node) = tokio::io::duplex(1 << 20);
        let mut listener = Listener::log_in(Box::new(ours), None, None).await.unwrap();
        let flood = message(&"x".repeat(1000)).repeat(900);
        answer(&mut node, &flood).await;
        for taken in 1..=3 {
            assert!(matches!(
                next(&mut listener).await,
                Ok(Event::Message { .. })
            ));
            assert!(listener.input.len() <= READ_BYTES, "after {taken}");
        }
    }

    /// A bug: after one long message the connection held its room for good.
    #[tokio::test]
    async fn the_room_of_a_long_message_is_given_back() {
        let (mut listener, mut node) = pair().await;
        let long = message(&"x".repeat(5 * KEPT_BYTES));
        let said = async { answer(&mut node, &(long + &message("short"))).await };
        let (heard, ()) = tokio::join!(next(&mut listener), said);
        assert!(matches!(heard, Ok(Event::Message { payload, .. }) if payload.len() > KEPT_BYTES));
        assert!(
            matches!(next(&mut listener).await, Ok(Event::Message { payload, .. }) if payload == "short")
        );
        let nothing = next(&mut listener);
        assert!(nothing.now_or_never().is_none());
        assert!(listener.input.capacity() <= KEPT_BYTES);
        answer(&mut node, &message("next")).await;
        assert!(
            matches!(next(&mut listener).await, Ok(Event::Message { payload, .. }) if payload == "next")
        );
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_not_read() {
        let (mut listener, mut node) = pair().await;
        let claim = format!(
            "*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n${}\r\n",
            MAX_MESSAGE_BYTES + 1
        );
        answer(&mut node, &claim).await;
        assert!(matches!(
            next(&mut listener).await,
            Err(BusError::TooLong { .. })
        ));
        assert!(listener.input.capacity() < 1 << 20);
    }

    #[tokio::test]
    async fn a_silent_node_is_pinged_and_then_given_up() {
        let (mut listener, mut node) = pair().await;
        let began = Instant::now();
        let pong = async {
            let mut ping = [0; 14];
            node.read_exact(&mut ping).await.unwrap();
            assert_eq!(&ping, b"*1\r\n$4\r\nPING\r\n");
            answer(&mut node, "*2\r\n$4\r\npong\r\n$0\r\n\r\n").await;
        };
        let (err, ()) = tokio::join!(next(&mut listener), pong);
        let timed_out = BusError::TimedOut {
            after: RESPONSE_TIMEOUT,
        };
        assert_eq!(err.unwrap_err(), timed_out);
        assert!(
            began.elapsed() > PING_INTERVAL + RESPONSE_TIMEOUT,
            "the first ping was answered"
        );
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_and_the_password_is_not() {
        let (ours, mut node) = tokio::io::duplex(1 << 10);
        answer(&mut node, "-WRONGPASS invalid username-password pair\r\n").await;
        let Err(err) = Listener::log_in(Box::new(ours), Some("u"), Some("hunter2")).await else {
            panic!("it was let in");
        };
        assert!(err.to_string().contains("WRONGPASS"), "{err}");
        assert!(!err.to_string().contains("hunter2"));
    }
}
