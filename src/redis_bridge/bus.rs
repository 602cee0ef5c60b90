//! What a bus can do: carry bytes on named channels from each instance to all.
//!
//! Knows neither Redis nor what the bytes mean. A link is a pair of connections that live and die together: one to
//! publish on, one to listen on. Both keep an eye on their health: a connection on which nothing comes back is an
//! error from [`Publisher::ping`] or [`Subscriber::next`] within seconds.

use std::{future::Future, time::Duration};

use bytes::Bytes;

use crate::redis_endpoint::fault::Fault;

/// Bytes on their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where to publish.
    pub channel: String,
    /// What.
    pub payload: Bytes,
}

/// Bytes that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The pattern through which they were heard; none if by a channel's plain name.
    pub pattern: Option<String>,
    /// Where they were published: any bytes.
    pub channel: Bytes,
    /// What: any bytes.
    pub payload: Bytes,
}

/// What is listened to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Channels by pattern.
    pub patterns: Vec<String>,
    /// Channels by their plain names.
    pub channels: Vec<String>,
}

impl Names {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.channels.is_empty()
    }
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(Inbound),
    /// Every change of what is listened to that was asked for is in force.
    Settled,
}

/// How a batch went that reached the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// How many have heard each message of the batch, as far as the bus knows; 0 for one that it refused.
    pub num_listeners: Vec<usize>,
    /// What the bus refused: the places in the batch, in order, and why.
    pub refused: Vec<(usize, BusError)>,
}

/// Why a bus cannot be used. Its text never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The address cannot be understood.
    #[error("address cannot be used: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot connect: {reason}")]
    Connect {
        /// What the system said.
        reason: String,
    },
    /// Somebody is there, but TLS could not be agreed upon, or the certificate is not to be trusted.
    #[error("{reason}")]
    Untrusted {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing came back in time.
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut {
        /// How long it was given.
        after: Duration,
    },
    /// The connection ended.
    #[error("connection lost: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// The bus answers, but not as we need it: a wrong password, no permission, still loading.
    #[error("refused: {reason}")]
    Refused {
        /// The word in capitals with which Redis begins an error: `NOPERM`, `LOADING`. Empty if there was none.
        code: String,
        /// Its own words.
        reason: String,
    },
    /// The bus works, but is not one for what the settings ask.
    #[error("{reason}")]
    Unsuited {
        /// Why, and what to do.
        reason: String,
    },
    /// The bus has many nodes, and does not know at the moment which of them is to be used.
    #[error("{reason}")]
    Unsettled {
        /// What is missing.
        reason: String,
    },
    /// A message is too long to be taken in.
    #[error("a message of more than {max_bytes} bytes came in")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
}

impl BusError {
    /// Returns what an error means that Redis told in these words.
    pub(super) fn refused(words: &str) -> Self {
        let code = words.split_ascii_whitespace().next().unwrap_or_default();
        let is_code = code.bytes().all(|byte| byte.is_ascii_uppercase());
        Self::Refused {
            code: if is_code { code } else { "" }.to_owned(),
            reason: words.to_owned(),
        }
    }

    /// Returns which kind of trouble it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Address { .. } => Fault::Address,
            Self::Connect { .. } => Fault::Connect,
            Self::Untrusted { .. } => Fault::Tls,
            Self::TimedOut { .. } => Fault::TimedOut,
            Self::Lost { .. } => Fault::Lost,
            Self::Refused { code, reason } => Fault::of_code(code, reason),
            Self::Unsuited { .. } => Fault::Unsuited,
            Self::Unsettled { .. } => Fault::Cluster,
            Self::TooLong { .. } => Fault::TooLong,
        }
    }

    /// Returns whether a refusal is about this channel, so that another may be free.
    pub(super) fn is_of_channel(&self) -> bool {
        // "…no permissions to access one of the channels used as arguments" (7.0), "…to access a channel" (7.2).
        matches!(self, Self::Refused { code, reason } if code == "NOPERM" && reason.contains("channel"))
    }
}

/// A place where links can be had.
pub trait Bus: Send + Unpin + 'static {
    /// The half of a link that publishes.
    type Publisher: Publisher;
    /// The half that listens.
    type Subscriber: Subscriber;

    /// Returns where it is, for people: `host:port`, without user or password.
    fn place(&self) -> String;

    /// Makes both connections. Answers within seconds, whatever the other side does.
    fn connect(
        &self,
    ) -> impl Future<Output = Result<(Self::Publisher, Self::Subscriber), BusError>>;
}

/// The half of a link that publishes.
pub trait Publisher: 'static {
    /// Publishes a batch, in its order; comes back when the bus has answered for each message. What it refused has
    /// certainly not gone out; after an error it is unknown what has.
    fn publish(&mut self, batch: &[Outbound]) -> impl Future<Output = Result<Published, BusError>>;

    /// Returns how many connections listen to each of `channels` by its plain name; with one question, however many they are.
    fn num_subscribers(
        &mut self,
        channels: &[String],
    ) -> impl Future<Output = Result<Vec<usize>, BusError>>;

    /// Finds out whether publishing is possible now, by publishing nothing on `channel`, which only we listen to.
    fn probe(&mut self, channel: &str) -> impl Future<Output = Result<(), BusError>>;

    /// Makes sure that the other side is there, and still what we need.
    fn ping(&mut self) -> impl Future<Output = Result<(), BusError>>;
}

/// The half of a link that listens.
pub trait Subscriber: 'static {
    /// Begins to change what is listened to; [`Self::next`] carries it out, and tells when it is done.
    fn change(&mut self, add: Names, remove: Names);

    /// Waits for the next message; while nobody calls this, no more than a bounded number of bytes is taken in.
    /// May be dropped while it waits: nothing is lost.
    fn next(&mut self) -> impl Future<Output = Result<Heard, BusError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_capitals_says_which_refusal_it_is() {
        for (words, fault) in [
            (
                "NOPERM no permissions to access a channel",
                Fault::NoPermission,
            ),
            ("WRONGPASS invalid", Fault::WrongPassword),
            ("CLUSTERDOWN Hash slot not served", Fault::Cluster),
            ("what is this", Fault::OtherRefusal),
            ("", Fault::OtherRefusal),
        ] {
            let err = BusError::refused(words);
            assert_eq!(err.fault(), fault, "{words}");
            assert_eq!(err.is_of_channel(), words.contains("channel"));
        }
    }
}
