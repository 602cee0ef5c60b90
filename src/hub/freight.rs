//! What is on its way from the hub to the bridge, bounded in bytes; and how many those are.
//!
//! Plain counter: no actor. Mailboxes have no bound, and a hub that hands out broadcasts is faster than a bridge that writes each
//! of them for the others. The bridge's own queue is behind its mailbox, so it cannot bound what lies before.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{broadcast::Target, command::Command, question::Question};
use crate::socket_io::ids::Room;

/// Bytes that may be on their way; as much again may wait at the bridge.
pub const MAX_BYTES: usize = 16 << 20;

/// What a command takes beside its own bytes, about: its place in the mailbox and some allocations.
const OVERHEAD: usize = 256;

/// What a room that is named takes beside its name, about: its handle, and an allocation.
const ROOM_BYTES: usize = 64;

/// How much is on its way.
#[derive(Debug, Default)]
pub struct Freight(Arc<AtomicUsize>);

/// A command on its way: it counts until this is dropped. The default counts nothing.
#[derive(Debug, Default)]
pub struct Load {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Freight {
    /// Lets a command set out, or not, if too much is on its way already. One alone may be of any size.
    pub fn load(&self, command: &Command) -> Option<Load> {
        let bytes = OVERHEAD + len_bytes(command);
        // Only whoever has the hub's turn adds, so nothing comes between the two.
        let before = self.0.load(Ordering::Relaxed);
        if before > 0 && before + bytes > MAX_BYTES {
            return None;
        }
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Some(Load {
            of: Arc::clone(&self.0),
            bytes,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
        let freight = Freight::default();
        let megabyte = command(1 << 20);
        let mut loads: Vec<_> = std::iter::from_fn(|| freight.load(&megabyte)).collect();
        assert_eq!(loads.len(), 15);
        loads.pop();
        loads.extend(freight.load(&megabyte));
        assert_eq!(loads.len(), 15);
        drop(loads);
        assert_eq!(freight.0.load(Ordering::Relaxed), 0);
        let large = freight.load(&command(2 * MAX_BYTES));
        assert!(large.is_some(), "one alone");
        assert!(freight.load(&command(1)).is_none());
    }
}
