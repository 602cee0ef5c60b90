//! The bus of sharded channels: a Redis from version 7 on, alone or as a Redis Cluster.
//!
//! Which of the two it is, Redis says itself (`HELLO`). A channel lives on the node that has its slot, and moves with it:
//!
//! ```text
//! mod          the bus, and how it begins: `survey` asks who has which slot
//! publisher    publishes where the slots are, and stays in order when they move: `passage`
//! subscriber   listens where the slots are, over a `listener` for each node, which reads RESP2 itself: `resp`
//! slots        who has which slot, as both halves have learned
//! ```
//! Any connection lost, CLUSTERDOWN, slots that nobody has: the whole link ends, and `link` makes a new one.
//! A node's loss ends the link of all channels, not of its own alone: what is published meanwhile waits in the queue as in
//! any outage, and the new link begins with what the cluster says by then, from whichever node still answers.
//!
//! Redis answers no ASK for sharded channels: a slot's old owner serves them until the slot has moved. While it moves, what
//! is published is lost to those who have not subscribed anew yet, and to nobody twice.
//!
//! Source: Redis 7 "Sharded Pub/Sub", Redis cluster specification; wire.md 4.4.

use std::sync::{Mutex, PoisonError};

use futures_util::future::select_ok;
use redis::RedisError;

use self::{
    slots::{SharedMap, SlotMap},
    survey::{survey, too_old},
};
use super::{
    bus::{Bus, BusError},
    redis_bus::{CONNECT_TIMEOUT, RedisBus, RedisPublisher, within},
};
use crate::{config::RedisConfig, telemetry::with_causes};

mod listener;
mod passage;
mod publisher;
mod resp;
mod slots;
mod subscriber;
mod survey;

pub(super) use self::{
    listener::Listener, publisher::ShardedPublisher, slots::Node, subscriber::ShardedSubscriber,
};

/// How often a message or a subscription follows MOVED before the slots are given up as unsettled.
const MAX_MOVES: u32 = 16;

/// A Redis, or a Redis Cluster.
#[derive(Debug)]
pub struct ShardedBus {
    seed: RedisBus,
    /// First part of every channel.
    prefix: String,
    /// What the last link learned: one of its nodes may answer when the seed does not.
    last: Mutex<Option<SharedMap>>,
}

impl ShardedBus {
    /// Returns the Redis of the settings, or the cluster that it is a node of; see [`RedisBus::new`].
    ///
    /// # Errors
    /// [`BusError::Address`].
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        Ok(Self {
            seed: RedisBus::new(config)?,
            prefix: config.prefix.clone(),
            last: Mutex::default(),
        })
    }

    /// Asks the seed, then all other nodes that are known, who has which slot.
    async fn look_around(&self) -> Result<(SlotMap, Node, RedisPublisher), BusError> {
        let err = match survey(&self.seed, Node::Seed).await {
            Ok(found) => return Ok(found),
            Err(err) => err,
        };
        let last = self.last.lock();
        let last = last
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(SharedMap::now);
        let nodes = last.as_ref().map(|map| map.nodes()).unwrap_or_default();
        let others = nodes.into_iter().filter(|node| **node != Node::Seed);
        let surveys: Vec<_> = others
            .map(|node| Box::pin(survey(&self.seed, node.clone())))
            .collect();
        if surveys.is_empty() {
            return Err(err);
        }
        match select_ok(surveys).await {
            Ok((found, _others)) => Ok(found),
            // What the address of the settings says tells most.
            Err(_) => Err(err),
        }
    }
}

impl Bus for ShardedBus {
    type Publisher = ShardedPublisher;
    type Subscriber = ShardedSubscriber;

    fn place(&self) -> String {
        self.seed.place()
    }

    async fn connect(&self) -> Result<(ShardedPublisher, ShardedSubscriber), BusError> {
        let (map, node, connection) = within(CONNECT_TIMEOUT, self.look_around()).await?;
        let map = SharedMap::new(map);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(map.clone());
        let publisher = ShardedPublisher::new(
            self.seed.clone(),
            self.prefix.clone(),
            map.clone(),
            (node, connection),
        );
        Ok((publisher, ShardedSubscriber::new(self.seed.clone(), map)))
    }
}

/// Sorts what Redis says of one channel or message.
fn refusal(error: &str) -> BusError {
    if error.contains("unknown command") {
        return too_old("without SSUBSCRIBE and SPUBLISH");
    }
    BusError::refused(error)
}

/// The link must end: a new one finds out anew who has which slot.
fn not_whole(err: &RedisError) -> BusError {
    BusError::Unsettled {
        reason: with_causes(err),
    }
}

fn nobody_has(slot: u16) -> BusError {
    BusError::Unsettled {
        reason: format!("no node of the Redis Cluster has slot {slot}"),
    }
}

fn unsettled() -> BusError {
    BusError::Unsettled {
        reason: format!("slots of the Redis Cluster moved more than {MAX_MOVES} times at once"),
    }
}
