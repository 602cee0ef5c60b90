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
    websocket::many_writes::Write,
};

/// Memberships that a lane serves; what is for a further one goes to the socket.
const MAX_JOINS: usize = 4;

/// Stands for no membership.
const NONE: JoinId = JoinId(u32::MAX);

/// Memberships that get messages by a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joins([JoinId; MAX_JOINS]);

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
pub(super) struct Lane {
    stream: Rc<TcpStream>,
    dialect: Dialect,
    joins: Joins,
}

/// A lane that could be lent.
#[derive(Debug)]
pub(super) struct LaneRef<'a> {
    /// Where the client reads.
    pub(super) stream: &'a Rc<TcpStream>,
    /// How it speaks.
    pub(super) dialect: Dialect,
    /// Who it is.
    pub(super) joins: Joins,
}

impl LaneRef<'_> {
    /// Returns whether it is the one that was lent.
    pub(super) fn is(&self, lane: &Lane) -> bool {
        Rc::ptr_eq(self.stream, &lane.stream)
            && self.dialect == lane.dialect
            && self.joins == lane.joins
    }

    /// Lends it.
    pub(super) fn lend(self) -> Lane {
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

impl Lane {
    /// Has the processor fetch what [`Self::write`] will need.
    pub(super) fn warm(&self) {
        black_box(self.stream.as_raw_fd());
    }

    /// Returns what is to be written of a message for one membership; nothing, if the lane does not serve that, or the client needs
    /// a form of its own, which is counted by its socket.
    pub(super) fn write<'a>(&'a self, join: JoinId, message: &'a Encoded) -> Option<Write<'a>> {
        let Joins(joins) = &self.joins;
        let is_served = join != NONE && joins.contains(&join);
        let frames = message.frames_as_is(self.dialect).filter(|_| is_served)?;
        Some(Write {
            stream: &self.stream,
            frames,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::websocket::testing::connected;

    const V4: Dialect = Dialect::V4;

    /// Returns a lane for the memberships 1 and 2, and where its client reads.
    fn lane() -> (Lane, std::net::TcpStream) {
        let (stream, client) = connected();
        let lane = LaneRef {
            stream: &Rc::new(stream),
            dialect: V4,
            joins: [JoinId(1), JoinId(2)].into_iter().collect(),
        };
        (lane.lend(), client)
    }

    #[actix::test]
    async fn what_is_for_one_of_its_memberships_is_to_be_written_and_nothing_else() {
        let (lane, _client) = lane();
        let message = Encoded::new("4x", &[Bytes::from_static(b"binary")]);
        for (join, is_served) in [
            (JoinId(1), true),
            (JoinId(2), true),
            (JoinId(3), false),
            (NONE, false),
        ] {
            let write = lane.write(join, &message);
            assert_eq!(write.is_some(), is_served, "{join:?}");
            if let Some(write) = write {
                assert_eq!(write.frames, message.frames());
                assert!(std::ptr::eq(write.stream, &*lane.stream));
            }
        }
    }

    #[actix::test]
    async fn the_same_lane_is_lent_once() {
        let (lane, _client) = lane();
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
        assert!(other.write(JoinId(4), &message).is_some());
        let further = other.write(JoinId(5), &message);
        assert!(further.is_none(), "it serves so many memberships");
    }
}
