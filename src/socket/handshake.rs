//! What is kept of the request that opened a session: gateways read it, and other servers of the cluster ask for it.
//!
//! Plain data, kept compact because every session has one for its whole life.
//!
//! Source: Socket.IO server API, "socket.handshake"; wire.md 2.3.

use std::{fmt, time::SystemTime};

use crate::engine_io::pairs::Pairs;

/// The request that opened a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Address of the peer: the client's, or the balancer's.
    pub address: String,
    /// Request target, as it was written.
    pub url: String,
    /// When it came.
    pub issued: SystemTime,
    /// Lower-case names and values, in their order. Values that are not text are left out.
    headers: Pairs,
    /// Query keys and values, decoded, in their order.
    query: Pairs,
}

impl fmt::Debug for Handshake {
    /// Without URL, headers and query: they hold what the client proves itself with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// Puts the facts of a request together.
    pub fn new<'a>(
        address: String,
        url: String,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        query: Pairs,
    ) -> Self {
        Self {
            address,
            url,
            issued: SystemTime::now(),
            headers: headers.collect(),
            query,
        }
    }

    /// Returns the first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// Returns all headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter()
    }

    /// Returns the last value of this query key.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.last(name)
    }

    /// Returns all query keys and values.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter()
    }

    /// Returns how many bytes it takes.
    pub fn len_bytes(&self) -> usize {
        let texts = self.address.len() + self.url.len();
        texts + self.headers.len_bytes() + self.query.len_bytes()
    }

    /// Returns whether a page of some origin opened the session.
    pub fn is_cross_domain(&self) -> bool {
        self.header("origin").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bug: whoever logged a socket logged what its client proves itself with.
    #[test]
    fn what_a_client_proves_itself_with_has_no_debug_text() {
        let headers = [
            ("authorization", "Bearer hunter2"),
            ("cookie", "sid=hunter2"),
        ];
        let query = [("token", "hunter2")].into_iter().collect();
        let url = "/socket.io/?token=hunter2".to_owned();
        let handshake = Handshake::new("192.0.2.1".to_owned(), url, headers.into_iter(), query);
        let debug = format!("{handshake:?}");
        assert!(debug.contains("192.0.2.1"), "{debug}");
        for secret in ["hunter2", "Bearer", "token"] {
            assert!(!debug.contains(secret), "{debug}");
        }
    }
}
