//! What waits to be written to one client, bounded in bytes.
//!
//! Plain struct: no actor, no stream. Holds shared messages, so a thousand slow clients of one broadcast hold its bytes
//! once. Overflow is an error for the caller, who ends the session; nothing is dropped silently. There are two limits: of this client,
//! and of all together, see `backlogs`.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use bytes::Bytes;

use super::backlogs::{Backlogs, Held, HeldBody, Share};
use crate::{
    engine_io::{
        dialect::Dialect,
        encoded::{Encoded, Kept},
    },
    shrink::shrink,
};

/// What an entry takes beside its bytes, about: its place in the queue and an allocation. Without it two-byte pongs to a
/// client that reads nothing would take fifty times the limit.
pub(crate) const ITEM_BYTES: usize = 64;

/// The backlog is over a limit: the client reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// Over its own.
    #[error("backlog of {len} bytes exceeds the limit of {limit} bytes")]
    Own {
        /// Bytes that wait, and what they take beside themselves.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Over what is left for all clients together.
    #[error("backlog of {len} bytes exceeds the {free} bytes that are left for all clients")]
    Together {
        /// As above.
        len: usize,
        /// What is left.
        free: usize,
    },
}

#[derive(Clone, Debug)]
enum Item {
    /// A message, in the form of either transport and of every dialect.
    Message(Arc<Encoded>),
    /// Bytes of the WebSocket layer: the 101, a pong, a close frame.
    Raw(Bytes),
}

impl Item {
    fn bytes(&self, dialect: Dialect, share: Option<&Share>) -> &Bytes {
        match self {
            Self::Message(encoded) => encoded.frames_in(dialect, &|len| kept(share, len)),
            Self::Raw(bytes) => bytes,
        }
    }

    /// Returns how much of the limit it takes, the same in every dialect: base64 is up to a third longer.
    fn cost(&self) -> usize {
        let shared = match self {
            Self::Message(encoded) => encoded.len_bytes(),
            Self::Raw(_) => 0,
        };
        self.own_cost() + shared
    }

    /// Returns how much of that nobody shares.
    fn own_cost(&self) -> usize {
        match self {
            Self::Message(_) => ITEM_BYTES,
            Self::Raw(bytes) => ITEM_BYTES + bytes.len(),
        }
    }
}

/// Counts a form of a message.
fn kept(share: Option<&Share>, len: usize) -> Kept {
    let held = |share: &Share| Held::bytes(share.backlogs(), len);
    Box::new(share.map_or_else(Held::default, held))
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
    /// By which what waits is counted; nothing is, if by none.
    share: Option<Share>,
    /// How much of `len_bytes` nobody shares.
    own_bytes: usize,
    /// How many items are counted, from the front on.
    num_counted: usize,
    /// How many items have left it.
    num_gone: u64,
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
            share: None,
            own_bytes: 0,
            num_counted: 0,
            num_gone: 0,
        }
    }

    /// Sets what is left for all clients together, which is the limit of a lone message, too.
    #[must_use]
    pub fn among(mut self, backlogs: &Arc<Backlogs>) -> Self {
        self.share = Some(Share::new(backlogs));
        self
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

    /// Returns what stands for the end of all that waits now, for [`Self::has_passed`].
    pub fn mark(&self) -> u64 {
        self.num_gone + self.items.len() as u64
    }

    /// Returns whether all has left it that waited when [`Self::mark`] returned this.
    pub fn has_passed(&self, mark: u64) -> bool {
        self.num_gone >= mark
    }

    /// Returns whether so much waits that no more should be asked of this client.
    pub fn is_congested(&self) -> bool {
        self.len_bytes > self.limit_bytes.min(self.free()) / 2
    }

    /// Returns which limit is exceeded, if one is.
    pub fn overflow(&self) -> Option<Overflow> {
        let (len, limit) = (self.len_bytes, self.limit_bytes);
        if len > limit && self.items.len() > 1 {
            return Some(Overflow::Own { len, limit });
        }
        let free = self.free();
        (len > free).then_some(Overflow::Together { len, free })
    }

    fn backlogs(&self) -> Option<&Arc<Backlogs>> {
        self.share.as_ref().map(Share::backlogs)
    }

    /// Returns how much of what is left for all clients together this one may have.
    fn free(&self) -> usize {
        self.backlogs()
            .map_or(usize::MAX, |backlogs| backlogs.limit_of_one())
    }

    /// Notes that what is here has to wait.
    pub fn wait(&mut self) {
        let Some(share) = &mut self.share else {
            return;
        };
        for item in self.items.range(self.num_counted..) {
            if let Item::Message(message) = item {
                share.backlogs().take_message(message);
            }
        }
        self.num_counted = self.items.len();
        share.set(self.own_bytes);
    }

    /// Counts a message no more.
    fn let_go(&self, item: &Item) {
        if let (Some(backlogs), Item::Message(message)) = (self.backlogs(), item) {
            backlogs.give_message_back(message);
        }
    }

    /// Counts no more of its own than there is.
    fn settle(&mut self) {
        if self.num_counted == self.items.len()
            && let Some(share) = &mut self.share
        {
            share.set(self.own_bytes);
        }
    }

    fn pop_front(&mut self) {
        let Some(front) = self.items.pop_front() else {
            return;
        };
        self.num_gone += 1;
        self.len_bytes -= front.cost();
        self.own_bytes -= front.own_cost();
        if self.num_counted > 0 {
            self.num_counted -= 1;
            self.let_go(&front);
        }
    }

    /// Drops all behind the first `len` items.
    fn truncate(&mut self, len: usize) {
        if len < self.num_counted {
            let dropped = self.items.range(len..self.num_counted);
            dropped.for_each(|item| self.let_go(item));
            self.num_counted = len;
        }
        self.num_gone += self.items.len().saturating_sub(len) as u64;
        self.items.truncate(len);
        shrink(&mut self.items);
        self.len_bytes = self.items.iter().map(Item::cost).sum();
        self.own_bytes = self.items.iter().map(Item::own_cost).sum();
        self.settle();
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
        self.len_bytes += item.cost();
        self.own_bytes += item.own_cost();
        self.items.push_back(item);
        self.overflow().map_or(Ok(()), Err)
    }

    /// Appends all of `later`, whose limits count from now on, and whose marks do not. For a finished upgrade: what the probing
    /// WebSocket still has to write comes first.
    pub fn append(&mut self, mut later: Self) {
        debug_assert_eq!(
            later.front_written, 0,
            "a polling outbox is never half written"
        );
        debug_assert_eq!(self.num_counted, 0, "a probe's outbox is counted nowhere");
        self.limit_bytes = later.limit_bytes;
        self.len_bytes += later.len_bytes;
        self.own_bytes += later.own_bytes;
        self.items.extend(later.items.iter().cloned());
        self.share = later.backlogs().map(Share::new);
        // Before those that are dropped now are counted no more.
        self.wait();
        later.truncate(0);
    }

    /// Returns every message that waits. Of a polling client, that is all.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Encoded>> + Clone {
        self.items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            Item::Raw(_) => None,
        })
    }

    /// Drops what waits, save for the answer to the handshake and a frame that is half written: cut off, it would garble
    /// what follows.
    pub fn clear(&mut self) {
        self.truncate(usize::from(
            self.front_written > 0 || self.begins_with_answer,
        ));
    }

    /// Takes every message as one polling payload.
    pub fn take_payload(&mut self) -> HeldBody {
        self.front_written = 0;
        let body = Encoded::payload(
            self.messages().map(|message| &**message),
            self.dialect,
            &|len| kept(self.share.as_ref(), len),
        );
        let held = match (self.backlogs(), self.items.front()) {
            // Its bytes are shared with all that it waits for.
            (Some(backlogs), Some(Item::Message(lone))) if self.items.len() == 1 => {
                Held::message(backlogs, lone)
            }
            (Some(backlogs), _) => Held::bytes(backlogs, body.bytes.len()),
            (None, _) => Held::default(),
        };
        self.truncate(0);
        HeldBody { body, held }
    }

    /// Returns what is to be written next to a WebSocket, if that is all.
    pub fn lone(&self) -> Option<&[u8]> {
        let front = self.items.front().filter(|_| self.items.len() == 1)?;
        front
            .bytes(self.dialect, self.share.as_ref())
            .get(self.front_written..)
    }

    /// Fills `slices` with what is to be written next to a WebSocket and returns the filled part.
    pub fn fill_slices<'s, 'a>(&'a self, slices: &'s mut [IoSlice<'a>]) -> &'s [IoSlice<'a>] {
        let mut skip = self.front_written;
        let mut num = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            let bytes = item.bytes(self.dialect, self.share.as_ref());
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
            let front_len = front.bytes(self.dialect, self.share.as_ref()).len();
            if self.front_written < front_len {
                break;
            }
            self.front_written -= front_len;
            self.pop_front();
            self.begins_with_answer = false;
        }
        self.settle();
        shrink(&mut self.items);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if self.num_counted > 0 {
            self.truncate(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_io::encoded::MESSAGE_BYTES;

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
        assert_eq!(outbox.take_payload().body.bytes, "4a");
        outbox.push(message("4a")).unwrap();
        outbox
            .push(Encoded::new("451-[]", &[Bytes::from_static(&[1])]))
            .unwrap();
        outbox.push(message("2")).unwrap();
        assert_eq!(
            outbox.take_payload().body.bytes,
            "4a\x1e451-[]\x1ebAQ==\x1e2"
        );
        assert!(outbox.is_empty());
        assert_eq!(outbox.take_payload().body.bytes, "");
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
            Err(Overflow::Own {
                len: 2 * ITEM_BYTES + 21,
                limit: 10
            })
        );
        outbox.written(21);
        assert_eq!(outbox.push(message("4")), Ok(()));
    }

    /// Returns room for so many bytes, and the outboxes of so many clients there.
    fn among<const N: usize>(free: usize) -> (Arc<Backlogs>, [Outbox; N]) {
        let backlogs = Arc::new(Backlogs::new(free));
        let outboxes = [(); N].map(|()| Outbox::new(1 << 20).among(&backlogs));
        (backlogs, outboxes)
    }

    /// So many items take a step of what is counted.
    const STEP_ITEMS: usize = 1024 / ITEM_BYTES;

    #[test]
    fn only_what_waits_is_counted_and_what_is_shared_once() {
        let (backlogs, [mut one, mut two]) = among(100_000);
        let shared = message("4abc");
        let (len, held) = (shared.len_bytes(), shared.held_bytes());
        for outbox in [&mut one, &mut two] {
            for _ in 0..STEP_ITEMS {
                outbox.push(Arc::clone(&shared)).unwrap();
            }
        }
        assert_eq!(backlogs.taken(), 0, "nobody has tried to write it yet");
        one.wait();
        one.wait();
        assert_eq!(backlogs.taken(), 1024 + held);
        two.wait();
        two.push_raw(Bytes::from(vec![0; 1024 - ITEM_BYTES]))
            .unwrap();
        assert_eq!(backlogs.taken(), 2 * 1024 + held);
        two.wait();
        assert_eq!(backlogs.taken(), 3 * 1024 + held);
        one.written(STEP_ITEMS * len);
        assert_eq!(backlogs.taken(), 2 * 1024 + held);
        two.written(1);
        two.clear();
        assert_eq!(backlogs.taken(), held, "it is half written");
        drop(two);
        assert_eq!(backlogs.taken(), 0);
    }

    #[test]
    fn what_is_written_before_it_waits_is_never_counted() {
        let (backlogs, [mut outbox]) = among(10_000);
        outbox.push(message("4abc")).unwrap();
        outbox.push(message("4de")).unwrap();
        outbox.written(6);
        outbox.wait();
        assert_eq!(backlogs.taken(), MESSAGE_BYTES + 5);
        outbox.push(message("4f")).unwrap();
        outbox.written(9);
        assert!(outbox.is_empty());
        assert_eq!(backlogs.taken(), 0);
    }

    #[test]
    fn a_polling_payload_is_counted_until_it_is_dropped() {
        let (backlogs, [mut one, mut two]) = among(10_000);
        let shared = message("4abc");
        for outbox in [&mut one, &mut two] {
            outbox.push(Arc::clone(&shared)).unwrap();
            outbox.wait();
        }
        let (first, second) = (one.take_payload(), two.take_payload());
        assert_eq!(
            backlogs.taken(),
            shared.held_bytes(),
            "they share their bytes"
        );
        drop((first, second));
        assert_eq!(backlogs.taken(), 0);
        one.push(Arc::clone(&shared)).unwrap();
        one.push(shared).unwrap();
        let copied = one.take_payload();
        assert_eq!(backlogs.taken(), copied.body.bytes.len());
        drop(copied);
        assert_eq!(backlogs.taken(), 0);
    }

    #[test]
    fn an_upgrade_leaves_what_waits_counted_once() {
        let (backlogs, [mut polling]) = among(10_000);
        for _ in 0..STEP_ITEMS {
            polling.push(message("4abc")).unwrap();
        }
        polling.wait();
        let mut probe = Outbox::new(100);
        probe.push(message("3probe")).unwrap();
        probe.append(polling);
        assert_eq!(
            backlogs.taken(),
            1024 + STEP_ITEMS * (MESSAGE_BYTES + 6) + MESSAGE_BYTES + 8
        );
        probe.written(8);
        assert_eq!(backlogs.taken(), 1024 + STEP_ITEMS * (MESSAGE_BYTES + 6));
        probe.written(STEP_ITEMS * 6);
        assert!(probe.is_empty());
        assert_eq!(backlogs.taken(), 0);
    }

    #[test]
    fn nobody_may_have_more_than_is_left_for_the_others() {
        let (backlogs, [mut slow, mut also, mut quick]) = among(200_000);
        let text = format!("4{}", "x".repeat(935));
        let fill = |outbox: &mut Outbox| {
            let mut num = 0;
            while outbox.push(message(&text)).is_ok() {
                outbox.wait();
                num += 1;
            }
            num
        };
        let first = fill(&mut slow);
        // What a message takes beside its bytes counts for all together, and not as a part of this client's limit.
        assert!((89..=91).contains(&first), "about half of it: {first}");
        assert!(slow.is_congested());
        let free = backlogs.free();
        let refused = slow.push(message("4")).unwrap_err();
        let len = slow.len_bytes;
        assert_eq!(refused, Overflow::Together { len, free });
        // The next one may have half of what is left.
        let second = fill(&mut also);
        assert!((40..=42).contains(&second), "{second}");
        // A little may wait though nothing is left: whoever reads is not touched.
        backlogs.take(backlogs.free());
        quick.push(message(&text)).unwrap();
        assert!(!quick.is_congested());
        assert!((3..=4).contains(&(1 + fill(&mut quick))));
        drop(slow);
        quick.push(message("4abc")).unwrap();
    }

    #[test]
    fn a_mark_is_passed_when_what_stood_before_it_has_left() {
        let mut outbox = Outbox::new(1000);
        assert!(outbox.has_passed(outbox.mark()));
        for _ in 0..3 {
            outbox.push(message("4")).unwrap();
        }
        let mark = outbox.mark();
        outbox.push(message("4")).unwrap();
        outbox.written(3 + 3 + 2);
        assert!(!outbox.has_passed(mark));
        outbox.written(1);
        assert!(outbox.has_passed(mark) && !outbox.has_passed(outbox.mark()));
        let mark = outbox.mark();
        outbox.take_payload();
        assert!(outbox.has_passed(mark));
    }

    #[test]
    fn a_queue_that_was_long_keeps_no_memory_when_it_is_empty() {
        for is_polled in [true, false] {
            let mut outbox = Outbox::new(1 << 20);
            for _ in 0..1000 {
                outbox.push(message("4")).unwrap();
            }
            if is_polled {
                outbox.take_payload();
            } else {
                outbox.clear();
            }
            assert!(outbox.is_empty() && outbox.items.capacity() <= 32);
        }
    }
}
