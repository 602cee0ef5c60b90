//! What is kept of the request that opened a session: gateways read it, and other servers of the cluster ask for it.
//!
//! Plain data, kept compact because every session has one for its whole life.
//!
//! Source: Socket.IO server API, "socket.handshake"; wire.md 2.3.

use std::time::SystemTime;

/// The request that opened a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Address of the peer: the client's, or the balancer's.
    pub address: String,
    /// Request target, as it was written.
    pub url: String,
    /// When it came.
    pub issued: SystemTime,
    /// Lower-case names and values, in their order. Values that are not text are left out.
    headers: Box<[(Box<str>, Box<str>)]>,
    /// Query keys and values, decoded, in their order.
    query: Box<[(Box<str>, Box<str>)]>,
}

impl Handshake {
    /// Puts the facts of a request together.
    pub fn new<'a>(
        address: String,
        url: String,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        query: &[(String, String)],
    ) -> Self {
        Self {
            address,
            url,
            issued: SystemTime::now(),
            headers: headers
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            query: query
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
        }
    }

    /// Returns the first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| **key == *name)
            .map(|(_, value)| &**value)
    }

    /// Returns all headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the last value of this query key.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .rev()
            .find(|(key, _)| **key == *name)
            .map(|(_, value)| &**value)
    }

    /// Returns all query keys and values.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns whether a page of some origin opened the session.
    pub fn is_cross_domain(&self) -> bool {
        self.header("origin").is_some()
    }
}
