//! What is on its way from the hub to another actor, bounded in bytes and number; and how many bytes commands and questions are.
//!
//! Plain counter: no actor. Mailboxes have no bound, and a hub that hands out broadcasts is faster than a bridge that writes each
//! of them for the others, or than handlers of what other servers say. The bridge's own queue is behind its mailbox, so it cannot bound
//! what lies before.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{broadcast::Target, command::Command, question::Question};
use crate::socket_io::ids::Room;

/// Bytes that may be on their way to the bridge; as much again may wait at the bridge.
pub const MAX_BYTES: usize = 16 << 20;

/// What a command takes beside its own bytes, about: its place in the mailbox and some allocations.
const OVERHEAD: usize = 256;

/// What a room that is named takes beside its name, about: its handle, and an allocation.
const ROOM_BYTES: usize = 64;

/// How much is on its way.
#[derive(Debug)]
pub struct Freight {
    max_bytes: usize,
    max_num: usize,
    /// Shared with each that is on its way.
    bytes: Arc<AtomicUsize>,
}

/// One that is on its way: it counts until this is dropped. The default counts nothing.
#[derive(Debug, Default)]
pub struct Load {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Freight {
    /// Returns an empty way for so many bytes and so many pieces at a time.
    pub fn new(max_bytes: usize, max_num: usize) -> Self {
        Self {
            max_bytes,
            max_num,
            bytes: Arc::default(),
        }
    }

    /// Returns how many pieces are on their way.
    pub fn num(&self) -> usize {
        Arc::strong_count(&self.bytes) - 1
    }

    /// Returns how many bytes are.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets a piece set out, or not, if too much is on its way already. One alone may be of any size.
    pub fn load(&self, bytes: usize) -> Option<Load> {
        // Only whoever has the hub's turn adds, so nothing comes between.
        let before = self.bytes();
        if self.num() >= self.max_num || (before > 0 && before + bytes > self.max_bytes) {
            return None;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Load {
            of: Arc::clone(&self.bytes),
            bytes,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Returns how many bytes a command takes on its way to the bridge.
pub(super) fn freight_bytes(command: &Command) -> usize {
    OVERHEAD + len_bytes(command)
}

/// Returns how many bytes a command takes.
pub(super) fn len_bytes(command: &Command) -> usize {
    let rest = match command {
        Command::Broadcast(broadcast) => broadcast.args.len_bytes(),
        Command::Join { rooms, .. } | Command::Leave { rooms, .. } => rooms_bytes(rooms),
        Command::Disconnect { .. } => 0,
        Command::ServerEvent { args, .. } => args.len_bytes(),
    };
    command.namespace().as_str().len() + command.target().map_or(0, target_bytes) + rest
}

/// Returns how many bytes a question takes.
pub(super) fn question_bytes(question: &Question) -> usize {
    match question {
        Question::SocketIds { target } | Question::Sockets { target } => target_bytes(target),
        Question::Rooms => 0,
        Question::Broadcast { broadcast, .. } => {
            target_bytes(&broadcast.target) + broadcast.args.len_bytes()
        }
        Question::ServerEvent { args } => args.len_bytes(),
    }
}

fn target_bytes(target: &Target) -> usize {
    rooms_bytes(&target.rooms) + rooms_bytes(&target.except)
}

fn rooms_bytes(rooms: &[Room]) -> usize {
    let names = rooms.iter().map(|room| room.as_str().len());
    names.sum::<usize>() + ROOM_BYTES * rooms.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hub::broadcast::Broadcast, socket_io::args::Args};

    fn command(len: usize) -> Command {
        let json = format!("[\"{}\"]", "x".repeat(len));
        let args = Args::from_parts(json.into(), Vec::new());
        Command::Broadcast(Broadcast::to_all("/".into(), args))
    }

    #[test]
    fn no_more_sets_out_than_may_be_on_its_way_and_what_arrives_makes_room() {
        let freight = Freight::new(MAX_BYTES, usize::MAX);
        let load = |len| freight.load(freight_bytes(&command(len)));
        let mut loads: Vec<_> = std::iter::from_fn(|| load(1 << 20)).collect();
        assert_eq!(loads.len(), 15);
        loads.pop();
        loads.extend(load(1 << 20));
        assert_eq!(loads.len(), 15);
        drop(loads);
        assert_eq!(freight.bytes(), 0);
        let large = load(2 * MAX_BYTES);
        assert!(large.is_some(), "one alone");
        assert!(load(1).is_none());
    }
}
