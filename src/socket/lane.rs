//! The way past a socket: what it lends its depot while nothing waits for its client.
//!
//! Most messages find the client able to take them at once. Then there is nothing that the socket would have to decide, and to wake
//! it costs more than all else but the kernel's own work: its state lies in a dozen cache lines, and a lane in one. So a socket that
//! is at rest with an empty outbox leaves a lane with its depot; what the kernel does not take goes to the socket, which takes the lane
//! back until that is written.
//!
//! It is the socket's own stream, on the socket's own thread: while the socket does anything, nobody uses its lane.

use std::{hint::black_box, os::fd::AsRawFd as _, rc::Rc};

use tokio::net::TcpStream;

use super::record::JoinId;
use crate::{
    engine_io::{dialect::Dialect, encoded::Encoded},
    websocket::connection::write_now,
};

/// Memberships that a lane serves; what is for a further one goes to the socket.
const MAX_JOINS: usize = 4;

/// Stands for no membership.
const NONE: JoinId = JoinId(u32::MAX);

/// Memberships that get messages by a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joins([JoinId; MAX_JOINS]);

impl FromIterator<JoinId> for Joins {
    /// Takes the first few.
    fn from_iter<T: IntoIterator<Item = JoinId>>(joins: T) -> Self {
        let mut taken = [NONE; MAX_JOINS];
        for (place, join) in taken.iter_mut().zip(joins) {
            *place = join;
        }
        Self(taken)
    }
}

/// A lane that was lent.
#[derive(Debug)]
pub struct Lane {
    stream: Rc<TcpStream>,
    dialect: Dialect,
    joins: Joins,
}

/// A lane that could be lent.
#[derive(Debug)]
pub struct LaneRef<'a> {
    /// Where the client reads.
    pub stream: &'a Rc<TcpStream>,
    /// How it speaks.
    pub dialect: Dialect,
    /// Who it is.
    pub joins: Joins,
}

impl LaneRef<'_> {
    /// Returns whether it is the one that was lent.
    pub fn is(&self, lane: &Lane) -> bool {
        Rc::ptr_eq(self.stream, &lane.stream)
            && self.dialect == lane.dialect
            && self.joins == lane.joins
    }

    /// Lends it.
    pub fn lend(self) -> Lane {
        let Self {
            stream,
            dialect,
            joins,
        } = self;
        Lane {
            stream: Rc::clone(stream),
            dialect,
            joins,
        }
    }
}

/// How much of a message the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All.
    All,
    /// So many bytes. None, if the message is for a membership that the lane does not serve.
    Part(usize),
}

impl Lane {
    /// Has the processor fetch what [`Self::write`] will need.
    pub fn warm(&self) {
        black_box(self.stream.as_raw_fd());
    }

    /// Writes a message for one membership.
    pub fn write(&self, join: JoinId, message: &Encoded) -> Written {
        let Joins(joins) = &self.joins;
        if join == NONE || !joins.contains(&join) {
            return Written::Part(0);
        }
        let frames = message.frames_in(self.dialect);
        match write_now(&self.stream, frames) {
            len if len == frames.len() => Written::All,
            len => Written::Part(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;

    use super::*;

    const V4: Dialect = Dialect::V4;

    /// Returns a lane for the memberships 1 and 2, and where its client reads.
    async fn lane() -> (Lane, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let lane = LaneRef {
            stream: &Rc::new(TcpStream::from_std(server).unwrap()),
            dialect: V4,
            joins: [JoinId(1), JoinId(2)].into_iter().collect(),
        };
        (lane.lend(), client)
    }

    #[actix::test]
    async fn what_is_for_one_of_its_memberships_is_written_and_nothing_else() {
        let (lane, mut client) = lane().await;
        let message = Encoded::new("4x", &[Bytes::from_static(b"binary")]);
        for (join, expected) in [
            (JoinId(1), Written::All),
            (JoinId(2), Written::All),
            (JoinId(3), Written::Part(0)),
            (NONE, Written::Part(0)),
        ] {
            assert_eq!(lane.write(join, &message), expected, "{join:?}");
        }
        drop(lane);
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, message.frames_in(V4).repeat(2));
    }

    #[actix::test]
    async fn what_the_kernel_does_not_take_is_told() {
        let (lane, mut client) = lane().await;
        let message = Encoded::new(&format!("4{}", "x".repeat(100_000)), &[]);
        let mut len = 0;
        let part = loop {
            match lane.write(JoinId(1), &message) {
                Written::All => len += message.frames_in(V4).len(),
                Written::Part(part) => break part,
            }
        };
        assert!(part < message.frames_in(V4).len());
        if part > 0 {
            assert_eq!(lane.write(JoinId(1), &message), Written::Part(0));
        }
        drop(lane);
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), len + part);
    }

    #[actix::test]
    async fn the_same_lane_is_lent_once() {
        let (lane, _client) = lane().await;
        let same = LaneRef {
            stream: &lane.stream,
            dialect: V4,
            joins: [JoinId(1), JoinId(2)].into_iter().collect(),
        };
        assert!(same.is(&lane));
        let joins = (1..9).map(JoinId).collect();
        let other = LaneRef { joins, ..same };
        assert!(!other.is(&lane));
        let other = other.lend();
        let message = Encoded::new("4x", &[]);
        assert_eq!(other.write(JoinId(4), &message), Written::All);
        assert_eq!(
            other.write(JoinId(5), &message),
            Written::Part(0),
            "it serves so many memberships"
        );
    }
}
