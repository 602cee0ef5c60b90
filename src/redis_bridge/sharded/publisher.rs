//! The connections that publish on sharded channels: one to each node that is needed.
//!
//! A batch goes to all of them at once, to each in its order. A node that does not have a channel says so (MOVED); then the message,
//! and those of its channel behind it, go again, to where it says. So does a message for which the map that both halves of a link
//! share says something new, but not before all that went the old way is heard where it goes now: see `passage`.
//!
//! Source: Redis 7 "Sharded Pub/Sub", Redis cluster specification "MOVED redirection"; wire.md 4.4.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{ErrorKind, ServerErrorKind};

use super::{
    super::{
        bus::{BusError, Outbound, Published, Publisher},
        redis_bus::{
            CONNECT_TIMEOUT, RedisBus, RedisPublisher, bus_error, judge, num_listeners, within,
        },
    },
    MAX_MOVES, nobody_has, not_whole, passage, refusal,
    slots::{self, Node, SharedMap, SlotMap, slot_of},
    survey::{is_unknown_command, slot_map},
    unsettled,
};
use crate::{
    adapter::{channel, uid::Uid},
    telemetry::with_causes,
};

/// Marks' names that are tried until one has a slot that has moved. With so many numbers in it every slot has a name.
const MAX_MARKS: u32 = 1 << 18;

/// The connections that publish.
#[derive(Debug)]
pub struct ShardedPublisher {
    seed: RedisBus,
    /// First part of every channel.
    prefix: String,
    map: SharedMap,
    /// What `map` was when all that is published began to go by it.
    routes: Arc<SlotMap>,
    connections: HashMap<Node, RedisPublisher>,
}

impl ShardedPublisher {
    /// Returns one that has a connection to a node.
    pub(super) fn new(
        seed: RedisBus,
        prefix: String,
        map: SharedMap,
        (node, connection): (Node, RedisPublisher),
    ) -> Self {
        Self {
            seed,
            prefix,
            routes: map.now(),
            map,
            connections: HashMap::from([(node, connection)]),
        }
    }

    /// Goes by what the map says now, as soon as nothing can be overtaken by that. Nodes that have no slot any more are left.
    async fn catch_up(&mut self) -> Result<(), BusError> {
        let map = self.map.now();
        if Arc::ptr_eq(&map, &self.routes) {
            return Ok(());
        }
        for (from, to) in self.routes.moves(&map) {
            // Without a connection nothing has gone there.
            let Some(connection) = self.connections.get_mut(from) else {
                continue;
            };
            match connection.still_says().await {
                Ok(hello) if hello.is_replica() => {
                    let has_moved = |channel: &str| {
                        let slot = slot_of(channel.as_bytes());
                        self.routes.owner(slot) == Some(from) && map.owner(slot) == Some(to)
                    };
                    if let Some(mark) = mark(&self.prefix, has_moved)? {
                        let mark = passage::wait(connection, &self.seed.at(to)?, mark).await?;
                        log::debug!(
                            "a node of the Redis Cluster has handed over; the mark: {mark:?}"
                        );
                    }
                }
                // A master whose slots have gone to another takes nothing on.
                Ok(_) => {}
                // It was shut down, perhaps.
                Err(_) => passage::wait_without_mark().await,
            }
        }
        let nodes = map.nodes();
        self.connections.retain(|node, _| nodes.contains(node));
        self.routes = map;
        Ok(())
    }

    /// Makes the connections to these nodes that there are not yet.
    async fn reach<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>) -> Result<(), BusError> {
        let missing = nodes.filter(|node| !self.connections.contains_key(*node));
        let seed = &self.seed;
        let made = try_join_all(missing.map(|node| async move {
            Ok::<_, BusError>((node.clone(), seed.at(node)?.publisher().await?))
        }));
        let made = within(CONNECT_TIMEOUT, made).await?;
        self.connections.extend(made);
        Ok(())
    }

    /// Publishes messages of a batch, told by their places in it, where their channels are thought to be; returns those that
    /// must go elsewhere, in their order.
    async fn publish_once(
        &mut self,
        batch: &[Outbound],
        places: Vec<usize>,
        published: &mut Published,
    ) -> Result<Vec<usize>, BusError> {
        let routes = Arc::clone(&self.routes);
        let mut by_node: HashMap<&Node, Vec<(usize, &Outbound)>> = HashMap::new();
        for place in places {
            if let Some(message) = batch.get(place) {
                let slot = slot_of(message.channel.as_bytes());
                let node = routes.owner(slot).ok_or_else(|| nobody_has(slot))?;
                by_node.entry(node).or_default().push((place, message));
            }
        }
        self.reach(by_node.keys().copied()).await?;
        let sending = self
            .connections
            .iter_mut()
            .filter_map(|(node, connection)| {
                let messages = by_node.remove(node)?;
                Some(async move {
                    let batch = messages.iter().map(|(_, message)| *message);
                    let answers = connection.send("SPUBLISH", batch).await?;
                    Ok::<_, BusError>((node, messages, answers))
                })
            });
        let mut moved = Vec::new();
        for (node, messages, answers) in try_join_all(sending).await? {
            for ((place, _), answer) in messages.into_iter().zip(answers) {
                let err = match answer {
                    Ok(answer) => {
                        if let Some(num) = published.num_listeners.get_mut(place) {
                            *num = num_listeners(answer);
                        }
                        continue;
                    }
                    Err(err) => err,
                };
                match err.kind() {
                    ErrorKind::Server(ServerErrorKind::Moved) => {
                        let error = format!("MOVED {}", err.detail().unwrap_or_default());
                        let Some((slot, node)) = slots::moved(&error, node) else {
                            return Err(not_whole(&err));
                        };
                        self.map.note(slot, &node);
                        moved.push(place);
                    }
                    ErrorKind::Server(ServerErrorKind::ClusterDown) => return Err(not_whole(&err)),
                    _ if is_unknown_command(&err) => return Err(refusal(&with_causes(&err))),
                    _ => published.refused.push((place, bus_error(err))),
                }
            }
        }
        moved.sort_unstable();
        Ok(moved)
    }
}

impl Publisher for ShardedPublisher {
    async fn publish(&mut self, batch: &[Outbound]) -> Result<Published, BusError> {
        let mut published = Published {
            num_listeners: vec![0; batch.len()],
            refused: Vec::new(),
        };
        let mut left = (0..batch.len()).collect();
        for _ in 0..=MAX_MOVES {
            self.catch_up().await?;
            left = self.publish_once(batch, left, &mut published).await?;
            if left.is_empty() {
                published.refused.sort_unstable_by_key(|(place, _)| *place);
                return Ok(published);
            }
        }
        Err(unsettled())
    }

    /// Tries the node that has `channel`, and whether all others that are in use are there.
    async fn probe(&mut self, channel: &str) -> Result<(), BusError> {
        let nothing = Outbound {
            channel: channel.to_owned(),
            payload: Bytes::new(),
        };
        let Published { mut refused, .. } = self.publish(&[nothing]).await?;
        if let Some((_, err)) = refused.pop() {
            return Err(err);
        }
        self.ping().await
    }

    /// Sums over all nodes: each counts its own connections alone.
    async fn num_subscribers(&mut self, channels: &[String]) -> Result<Vec<usize>, BusError> {
        self.catch_up().await?;
        let routes = Arc::clone(&self.routes);
        let nodes = routes.nodes();
        self.reach(nodes.iter().copied()).await?;
        let counting = self
            .connections
            .iter_mut()
            .filter(|(node, _)| nodes.contains(node))
            .map(|(_, connection)| connection.count("SHARDNUMSUB", channels));
        let mut sums = vec![0; channels.len()];
        for counted in try_join_all(counting).await? {
            for (sum, num) in sums.iter_mut().zip(counted) {
                *sum += num;
            }
        }
        Ok(sums)
    }

    /// Asks every node, what it is, too: one that has handed over to its replica says so to nobody who does not listen to it, and
    /// answers what is published with the number of its own listeners, of whom there are none any more.
    async fn ping(&mut self) -> Result<(), BusError> {
        self.catch_up().await?;
        let asking = self
            .connections
            .iter_mut()
            .map(|(node, connection)| async move {
                let hello = connection.still_says().await?;
                Ok::<_, BusError>((node, connection, hello))
            });
        let mut map = None;
        for (node, connection, hello) in try_join_all(asking).await? {
            if !(hello.is_of_cluster() && hello.is_replica()) {
                judge(&hello)?;
            } else if self.routes.nodes().contains(node) {
                // It knows its master.
                map = Some(slot_map(connection, node).await?);
            }
        }
        if let Some(map) = map {
            self.map.replace(map);
            self.catch_up().await?;
        }
        Ok(())
    }
}

/// Returns a channel for a mark that is as it must be.
fn mark(prefix: &str, is_good: impl Fn(&str) -> bool) -> Result<Option<String>, BusError> {
    let uid = Uid::random_hex().map_err(|err| BusError::Unsettled {
        reason: format!("the system gives no random numbers: {err}"),
    })?;
    let mut names = (0..MAX_MARKS).map(|n| channel::mark(prefix, &uid, n));
    Ok(names.find(|name| is_good(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_name_for_its_mark() {
        for slot in [0, 1, 8_191, slots::NUM_SLOTS - 1] {
            let found = mark("socket.io", |name| slot_of(name.as_bytes()) == slot);
            assert_eq!(slot_of(found.unwrap().unwrap().as_bytes()), slot);
        }
        // With a hash tag in the prefix all channels have one slot, and no other has a name.
        let tagged = |slot| mark("{io}", |name| slot_of(name.as_bytes()) == slot);
        assert!(tagged(slot_of(b"io")).unwrap().is_some());
        assert!(tagged(slot_of(b"io") + 1).unwrap().is_none());
    }
}
