//! What waits to be written to one client, bounded in bytes.
//!
//! Plain struct: no actor, no stream. Holds shared messages, so a thousand slow clients of one broadcast hold its bytes
//! once. Overflow is an error for the caller, who ends the session; nothing is dropped silently.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use bytes::Bytes;

use crate::engine_io::{
    dialect::Dialect,
    encoded::{Encoded, PollingBody},
};

/// What an entry takes beside its bytes, about: its place in the queue and an allocation. Without it two-byte pongs to a
/// client that reads nothing would take fifty times the limit.
const ITEM_BYTES: usize = 64;

/// The backlog is over its limit: the client reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backlog of {len} bytes exceeds the limit of {limit} bytes")]
pub struct Overflow {
    /// Bytes that wait, and what they take beside themselves.
    pub len: usize,
    /// The limit.
    pub limit: usize,
}

#[derive(Debug)]
enum Item {
    /// A message, in the form of either transport and of every dialect.
    Message(Arc<Encoded>),
    /// Bytes of the WebSocket layer: the 101, a pong, a close frame.
    Raw(Bytes),
}

impl Item {
    fn bytes(&self, dialect: Dialect) -> &Bytes {
        match self {
            Self::Message(encoded) => encoded.frames_in(dialect),
            Self::Raw(bytes) => bytes,
        }
    }

    /// Returns how much of the limit it takes, the same in every dialect: base64 is up to a third longer.
    fn cost(&self) -> usize {
        let len = match self {
            Self::Message(encoded) => encoded.len_bytes(),
            Self::Raw(bytes) => bytes.len(),
        };
        ITEM_BYTES + len
    }
}

/// The queue of one client.
#[derive(Debug)]
pub struct Outbox {
    items: VecDeque<Item>,
    /// How much of the front item the kernel already has.
    front_written: usize,
    /// Whether the front item is the answer to the handshake, without which nothing else makes sense.
    begins_with_answer: bool,
    len_bytes: usize,
    limit_bytes: usize,
    dialect: Dialect,
}

impl Outbox {
    /// Returns an empty outbox for at most `limit_bytes`, 64 more for each message included; one message alone
    /// may exceed it.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            front_written: 0,
            begins_with_answer: false,
            len_bytes: 0,
            limit_bytes,
            dialect: Dialect::V4,
        }
    }

    /// Sets how the client speaks; without this it is revision 4.
    #[must_use]
    pub fn in_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Returns how the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns an outbox that begins with the answer to a WebSocket handshake, which is written whatever happens.
    pub fn with_answer(limit_bytes: usize, answer: Bytes) -> Self {
        let mut outbox = Self::new(limit_bytes);
        // The first item always fits.
        _ = outbox.push_raw(answer);
        outbox.begins_with_answer = true;
        outbox
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns what differs once any of it was written, as long as nothing is appended.
    pub fn position(&self) -> (usize, usize) {
        (self.items.len(), self.front_written)
    }

    /// Returns whether so much waits that no more should be asked of this client.
    pub fn is_congested(&self) -> bool {
        self.len_bytes > self.limit_bytes / 2
    }

    /// Returns whether more waits than may; a lone message may be of any size.
    pub fn is_over_limit(&self) -> bool {
        self.len_bytes > self.limit_bytes && self.items.len() > 1
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The backlog is over its limit. The message was appended all the same.
    pub fn push(&mut self, message: Arc<Encoded>) -> Result<(), Overflow> {
        self.push_item(Item::Message(message))
    }

    /// Appends bytes of the WebSocket layer.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_raw(&mut self, bytes: Bytes) -> Result<(), Overflow> {
        self.push_item(Item::Raw(bytes))
    }

    fn push_item(&mut self, item: Item) -> Result<(), Overflow> {
        let was_empty = self.items.is_empty();
        self.len_bytes += item.cost();
        self.items.push_back(item);
        if self.len_bytes > self.limit_bytes && !was_empty {
            return Err(Overflow {
                len: self.len_bytes,
                limit: self.limit_bytes,
            });
        }
        Ok(())
    }

    /// Appends all of `later`, whose limit counts from now on. For a finished upgrade: what the probing WebSocket still
    /// has to write comes first.
    pub fn append(&mut self, later: Self) {
        debug_assert_eq!(
            later.front_written, 0,
            "a polling outbox is never half written"
        );
        self.limit_bytes = later.limit_bytes;
        self.len_bytes += later.len_bytes;
        self.items.extend(later.items);
    }

    /// Returns every message that waits. Of a polling client, that is all.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            Item::Raw(_) => None,
        })
    }

    /// Drops what waits, save for the answer to the handshake and a frame that is half written: cut off, it would garble
    /// what follows.
    pub fn clear(&mut self) {
        self.items.truncate(usize::from(
            self.front_written > 0 || self.begins_with_answer,
        ));
        self.len_bytes = self.items.iter().map(Item::cost).sum();
    }

    /// Takes every message as one polling payload.
    pub fn take_payload(&mut self) -> PollingBody {
        self.len_bytes = 0;
        self.front_written = 0;
        let messages = self.items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            Item::Raw(_) => None,
        });
        let payload = Encoded::payload(messages, self.dialect);
        self.items.clear();
        payload
    }

    /// Returns what is to be written next to a WebSocket, if that is all.
    pub fn lone(&self) -> Option<&[u8]> {
        let front = self.items.front().filter(|_| self.items.len() == 1)?;
        front.bytes(self.dialect).get(self.front_written..)
    }

    /// Fills `slices` with what is to be written next to a WebSocket and returns the filled part.
    pub fn fill_slices<'s, 'a>(&'a self, slices: &'s mut [IoSlice<'a>]) -> &'s [IoSlice<'a>] {
        let mut skip = self.front_written;
        let mut num = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            let bytes = item.bytes(self.dialect);
            *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
            skip = 0;
            num += 1;
        }
        slices.get(..num).unwrap_or_default()
    }

    /// Notes that the kernel took `len` bytes of what [`Self::fill_slices`] gave.
    pub fn written(&mut self, len: usize) {
        self.front_written += len;
        while let Some(front) = self.items.front() {
            let front_len = front.bytes(self.dialect).len();
            if self.front_written < front_len {
                break;
            }
            self.front_written -= front_len;
            self.len_bytes -= front.cost();
            self.items.pop_front();
            self.begins_with_answer = false;
        }
        if self.items.is_empty() && self.items.capacity() > 32 {
            // An idle client keeps no large queue from a busy moment.
            self.items = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Arc<Encoded> {
        Encoded::new(text, &[])
    }

    fn pending(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        outbox
            .fill_slices(&mut slices)
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn partial_writes_go_on_where_they_stopped() {
        let mut outbox = Outbox::new(1000);
        outbox.push(message("4abc")).unwrap();
        outbox.push(message("4de")).unwrap();
        outbox.push_raw(Bytes::from_static(b"\x88\x00")).unwrap();
        let all = b"\x81\x044abc\x81\x034de\x88\x00";
        for cut in 0..=all.len() {
            let mut copy = Outbox::new(1000);
            copy.push(message("4abc")).unwrap();
            copy.push(message("4de")).unwrap();
            copy.push_raw(Bytes::from_static(b"\x88\x00")).unwrap();
            copy.written(cut);
            assert_eq!(pending(&copy), all[cut..], "after {cut} bytes");
            let is_last = (11..all.len()).contains(&cut);
            assert_eq!(
                copy.lone(),
                is_last.then(|| &all[cut..]),
                "after {cut} bytes"
            );
            copy.written(all.len() - cut);
            assert!(copy.is_empty());
            assert_eq!(copy.len_bytes, 0);
        }
    }

    #[test]
    fn a_payload_joins_all_messages_with_the_separator() {
        let mut outbox = Outbox::new(1000);
        outbox.push(message("4a")).unwrap();
        assert_eq!(outbox.take_payload().bytes, "4a");
        outbox.push(message("4a")).unwrap();
        outbox
            .push(Encoded::new("451-[]", &[Bytes::from_static(&[1])]))
            .unwrap();
        outbox.push(message("2")).unwrap();
        assert_eq!(outbox.take_payload().bytes, "4a\x1e451-[]\x1ebAQ==\x1e2");
        assert!(outbox.is_empty());
        assert_eq!(outbox.take_payload().bytes, "");
    }

    #[test]
    fn clearing_keeps_a_half_written_frame_alone() {
        let mut outbox = Outbox::new(1000);
        outbox.push(message("4abc")).unwrap();
        outbox.push(message("4de")).unwrap();
        outbox.written(1);
        outbox.clear();
        assert_eq!(pending(&outbox), b"\x044abc");
        outbox.written(5);
        outbox.push(message("4de")).unwrap();
        outbox.clear();
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_answer_to_the_handshake_is_never_dropped() {
        let mut outbox = Outbox::with_answer(1000, Bytes::from_static(b"101"));
        outbox.push(message("4abc")).unwrap();
        outbox.clear();
        assert_eq!(pending(&outbox), b"101");
        outbox.written(3);
        outbox.push(message("4abc")).unwrap();
        outbox.clear();
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_upgrade_puts_the_waiting_messages_behind_those_of_the_probe() {
        let mut probe = Outbox::new(10);
        probe.push(message("3probe")).unwrap();
        probe.written(1);
        let mut polling = Outbox::new(1000);
        polling.push(message("4a")).unwrap();
        probe.append(polling);
        assert_eq!(pending(&probe), b"\x063probe\x81\x024a");
        assert_eq!(
            probe.push(message("4 and the session's limit holds")),
            Ok(())
        );
    }

    #[test]
    fn an_upgrade_may_change_the_form_and_every_byte_is_accounted_for() {
        let base64 = Dialect {
            base64: true,
            ..Dialect::V4
        };
        let mut polling = Outbox::new(1000);
        let attachment = Bytes::from_static(&[1, 2, 3, 4]);
        polling.push(Encoded::new("451-[]", &[attachment])).unwrap();
        polling.push(message("4a")).unwrap();
        let all = b"\x81\x06451-[]\x81\x09bAQIDBA==\x81\x024a";
        let mut websocket = Outbox::new(10).in_dialect(base64);
        websocket.append(polling);
        assert_eq!(pending(&websocket), all);
        for len in [3, 13, all.len() - 16] {
            websocket.written(len);
        }
        assert!(websocket.is_empty());
        assert_eq!(websocket.len_bytes, 0);
    }

    #[test]
    fn many_small_messages_overflow_by_what_they_take_not_by_their_bytes_alone() {
        let mut outbox = Outbox::new(100 * ITEM_BYTES);
        let pong = || Bytes::from_static(b"\x8a\x00");
        let taken = (0..)
            .take_while(|_| outbox.push_raw(pong()).is_ok())
            .count();
        assert!((90..100).contains(&taken), "{taken}");
        outbox.written(2 * (taken + 1));
        assert_eq!(outbox.len_bytes, 0);
    }

    #[test]
    fn overflow_is_told_but_a_lone_large_message_passes() {
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.push(message("4 a long message")), Ok(()));
        assert_eq!(
            outbox.push(message("4")),
            Err(Overflow {
                len: 2 * ITEM_BYTES + 21,
                limit: 10
            })
        );
        outbox.written(21);
        assert_eq!(outbox.push(message("4")), Ok(()));
    }
}
