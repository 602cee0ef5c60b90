//! Which node of a Redis Cluster has which channel.
//!
//! A plain struct: no connection. A single Redis is a cluster of one node that has every slot.
//!
//! Source: Redis cluster specification, "Key distribution model", "Hash tags", "MOVED redirection"; wire.md 4.4.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::redis_endpoint::pointer;

/// How many slots a cluster has.
pub(super) const NUM_SLOTS: u16 = 16_384;

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Node {
    /// The one that the settings name.
    Seed,
    /// One that the cluster names.
    At {
        /// Name or address.
        host: Arc<str>,
        /// Its port for clients.
        port: u16,
    },
}

/// The owners of all slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    owners: Vec<Option<Node>>,
}

impl SlotMap {
    /// Returns the map of a single Redis.
    pub(super) fn single() -> Self {
        Self {
            owners: vec![Some(Node::Seed); usize::from(NUM_SLOTS)],
        }
    }

    /// Returns a map in which nobody has anything.
    pub(super) fn empty() -> Self {
        Self {
            owners: vec![None; usize::from(NUM_SLOTS)],
        }
    }

    /// Notes who has a slot. One that no cluster has is passed over.
    pub(super) fn set(&mut self, slot: u16, node: &Node) {
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = Some(node.clone());
        }
    }

    /// Returns who has a slot, if anybody does.
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        self.owners.get(usize::from(slot))?.as_ref()
    }

    /// Returns every node that has a slot.
    pub(super) fn nodes(&self) -> HashSet<&Node> {
        self.owners.iter().flatten().collect()
    }

    /// Returns which nodes have lost slots since, and to whom.
    pub(super) fn moves<'a>(&'a self, later: &'a Self) -> HashSet<(&'a Node, &'a Node)> {
        let pairs = self.owners.iter().zip(&later.owners);
        pairs
            .filter_map(|(from, to)| from.as_ref().zip(to.as_ref()))
            .filter(|(from, to)| from != to)
            .collect()
    }
}

/// The map as both halves of a link have learned it so far.
#[derive(Clone, Debug)]
pub(super) struct SharedMap(Arc<Mutex<Arc<SlotMap>>>);

impl SharedMap {
    /// Returns a map to be shared.
    pub(super) fn new(map: SlotMap) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(map))))
    }

    /// Returns what is known now: the same pointer as before unless something was learned.
    pub(super) fn now(&self) -> Arc<SlotMap> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes who has a slot.
    pub(super) fn note(&self, slot: u16, node: &Node) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.owner(slot) != Some(node) {
            Arc::make_mut(&mut map).set(slot, node);
        }
    }

    /// Notes what a node says of all slots.
    pub(super) fn replace(&self, map: SlotMap) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }
}

/// Returns the slot of a channel. What stands between its first braces, if anything, decides alone.
pub(super) fn slot_of(channel: &[u8]) -> u16 {
    let tag = channel
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| {
            let inner = channel.get(open + 1..)?;
            let close = inner.iter().position(|byte| *byte == b'}')?;
            inner.get(..close).filter(|tag| !tag.is_empty())
        });
    crc16(tag.unwrap_or(channel)) % NUM_SLOTS
}

/// CRC-16/XMODEM, bit by bit: names are short.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

/// Returns the slot and its owner from the text of a MOVED error that the node at `asked` gave; `None` if it is another error.
pub(super) fn moved(error: &str, asked: &Node) -> Option<(u16, Node)> {
    let mut words = error.strip_prefix("MOVED ")?.split_ascii_whitespace();
    let slot = words
        .next()?
        .parse()
        .ok()
        .filter(|slot| *slot < NUM_SLOTS)?;
    let (host, port) = pointer::read(words.next()?)?;
    Some((slot, at(host, port, asked)))
}

/// Returns the node that the node at `asked` calls `host` and `port`. Without a host it means its own.
pub(super) fn at(host: Option<&str>, port: u16, asked: &Node) -> Node {
    let host = match (host, asked) {
        (Some(host), _) => host.into(),
        (None, Node::At { host, .. }) => Arc::clone(host),
        // The settings' address belongs to whoever made the first connection.
        (None, Node::Seed) => return Node::Seed,
    };
    Node::At { host, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node::At {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        for (channel, slot) in [
            ("", 0),
            ("123456789", 0x31C3),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}b{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot_of(channel.as_bytes()), slot, "{channel}");
        }
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % NUM_SLOTS);
    }

    #[test]
    fn moved_tells_a_slot_and_its_owner() {
        let asked = node("h", 1);
        for (text, expected) in [
            (
                "MOVED 3999 127.0.0.1:6381",
                Some((3999, node("127.0.0.1", 6381))),
            ),
            (
                "MOVED 1 redis.local:7000",
                Some((1, node("redis.local", 7000))),
            ),
            ("MOVED 1 :7000", Some((1, node("h", 7000)))),
            ("MOVED 16384 h:1", None),
            ("MOVED x h:1", None),
            ("MOVED 1 h", None),
            ("MOVED", None),
            ("ASK 1 h:1", None),
            ("CLUSTERDOWN Hash slot not served", None),
        ] {
            assert_eq!(moved(text, &asked), expected, "{text}");
        }
    }

    #[test]
    fn a_map_knows_its_nodes() {
        let mut map = SlotMap::empty();
        assert_eq!(map.owner(0), None);
        map.set(0, &node("a", 1));
        map.set(1, &node("b", 1));
        map.set(2, &node("a", 1));
        map.set(NUM_SLOTS, &node("c", 1));
        assert_eq!(map.owner(2), Some(&node("a", 1)));
        assert_eq!(map.nodes(), HashSet::from([&node("a", 1), &node("b", 1)]));
        assert_eq!(SlotMap::single().nodes(), HashSet::from([&Node::Seed]));
    }

    #[test]
    fn what_has_moved_is_told_once_for_each_pair_of_nodes() {
        let map = |owners: [Option<&str>; 5]| {
            let mut map = SlotMap::empty();
            for (slot, owner) in (0..).zip(owners) {
                if let Some(owner) = owner {
                    map.set(slot, &node(owner, 1));
                }
            }
            map
        };
        let before = map([Some("a"), Some("a"), Some("b"), Some("b"), None]);
        let after = map([Some("c"), Some("c"), Some("b"), None, Some("c")]);
        let (a, c) = (node("a", 1), node("c", 1));
        assert_eq!(before.moves(&after), HashSet::from([(&a, &c)]));
        assert_eq!(after.moves(&before), HashSet::from([(&c, &a)]));
        assert_eq!(before.moves(&before), HashSet::new());
    }

    #[test]
    fn a_shared_map_is_another_only_when_something_was_learned() {
        let mut map = SlotMap::empty();
        map.set(7, &node("a", 1));
        let shared = SharedMap::new(map.clone());
        let before = shared.now();
        shared.note(7, &node("a", 1));
        shared.note(NUM_SLOTS, &node("a", 1));
        assert_eq!(*shared.now(), map);
        shared.clone().note(7, &node("b", 1));
        assert!(!Arc::ptr_eq(&before, &shared.now()));
        assert_eq!(before.owner(7), Some(&node("a", 1)));
        assert_eq!(shared.now().owner(7), Some(&node("b", 1)));
        shared.replace(map);
        assert_eq!(shared.now().owner(7), Some(&node("a", 1)));
    }
}
