//! The bus of sharded channels: a Redis from version 7 on, alone or as a Redis Cluster.
//!
//! Which of the two it is, Redis says itself (`HELLO`). A channel lives on the node that has its slot, and moves with it:
//!
//! ```text
//! publisher   one connection to each node that is needed; a batch goes to all of them at once, each in its order
//!             MOVED: the message, and those of its channel behind it, go again, to where Redis says
//! subscriber  one connection to each node that is needed
//!             MOVED: asks there            withdrawn: the slot has moved; asks who has it now, and asks there
//! any connection lost, CLUSTERDOWN, slots that nobody has: the whole link ends, and `link` makes a new one
//! ```
//! A node's loss ends the link of all channels, not of its own alone: what is published meanwhile waits in the queue as in
//! any outage, and the new link begins with what the cluster says by then, from whichever node still answers.
//!
//! Redis answers no ASK for sharded channels: a slot's old owner serves them until the slot has moved. While it moves, what
//! is published is lost to those who have not subscribed anew yet, and to nobody twice.
//!
//! Source: Redis 7 "Sharded Pub/Sub", Redis cluster specification; wire.md 4.4.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    future::{select_ok, try_join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::{
    bus::{Bus, BusError, Heard, Inbound, Names, Outbound, Published, Publisher, Subscriber},
    redis_bus::{
        CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RedisBus, RedisPublisher, bus_error, num_listeners,
        within,
    },
    shard_listener::{Event, Listener},
    slots::{self, Node, SlotMap, slot_of},
};
use crate::{config::RedisConfig, telemetry::with_causes};

/// How long one node may take to tell about the cluster, before others are asked.
const ASK_TIMEOUT: Duration = Duration::from_millis(1200);
/// How often a message or a subscription follows MOVED before the slots are given up as unsettled.
const MAX_MOVES: u32 = 16;
/// First oldest version that has sharded channels.
const MIN_VERSION: u32 = 7;

/// The map that both halves of a link share.
type SharedMap = Arc<Mutex<SlotMap>>;

/// A Redis, or a Redis Cluster.
#[derive(Debug)]
pub struct ShardedBus {
    seed: RedisBus,
    /// The nodes that the last link used: one may answer when the seed does not.
    known: Mutex<Vec<Node>>,
}

impl ShardedBus {
    /// Returns the Redis of the settings, or the cluster that it is a node of; see [`RedisBus::new`].
    ///
    /// # Errors
    /// [`BusError::Address`].
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        Ok(Self {
            seed: RedisBus::new(config)?,
            known: Mutex::default(),
        })
    }

    /// Asks the seed, then all other nodes that are known, who has which slot.
    async fn look_around(&self) -> Result<(SlotMap, Node, RedisPublisher), BusError> {
        let err = match survey(&self.seed, Node::Seed).await {
            Ok(found) => return Ok(found),
            Err(err) => err,
        };
        let known = self.known.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner).clone();
        let surveys: Vec<_> = known
            .into_iter()
            .map(|node| Box::pin(survey(&self.seed, node)))
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
        let nodes = map.nodes().into_iter().filter(|node| **node != Node::Seed);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = nodes.cloned().collect();
        let map = Arc::new(Mutex::new(map));
        let publisher = ShardedPublisher {
            seed: self.seed.clone(),
            map: Arc::clone(&map),
            connections: HashMap::from([(node, connection)]),
        };
        Ok((publisher, ShardedSubscriber::new(self.seed.clone(), map)))
    }
}

/// Asks a node who has which slot. Returns its name and the connection, too.
async fn survey(seed: &RedisBus, node: Node) -> Result<(SlotMap, Node, RedisPublisher), BusError> {
    within(ASK_TIMEOUT, async {
        let mut connection = seed.at(&node)?.publisher().await?;
        let asked = match &node {
            Node::Seed => seed.named(),
            Node::At { .. } => node.clone(),
        };
        let map = slot_map(&mut connection, &asked).await?;
        // In a cluster the seed is known by the name that the cluster gives it.
        let node = match map.owner(0) {
            Some(Node::Seed) | None => Node::Seed,
            Some(Node::At { .. }) => asked,
        };
        Ok((map, node, connection))
    })
    .await
}

async fn slot_map(connection: &mut RedisPublisher, asked: &Node) -> Result<SlotMap, BusError> {
    let hello = match connection.ask(&["HELLO"]).await {
        Ok(hello) => flat_map(&hello),
        // Redis 5 and older.
        Err(err) if is_unknown_command(&err) => return Err(too_old("older than 6")),
        Err(err) => return Err(bus_error(err)),
    };
    let version = hello.get("version").map_or("", String::as_str);
    let major = version
        .split('.')
        .next()
        .and_then(|n| n.parse::<u32>().ok());
    if major.is_some_and(|major| major < MIN_VERSION) {
        return Err(too_old(version));
    }
    if hello.get("mode").map(String::as_str) != Some("cluster") {
        return Ok(SlotMap::single());
    }
    let slots = connection.ask(&["CLUSTER", "SLOTS"]).await;
    Ok(read_slots(&slots.map_err(bus_error)?, asked))
}

/// Reads the answer to `CLUSTER SLOTS`; passes over what it does not understand, whose slots then have no owner.
fn read_slots(answer: &Value, asked: &Node) -> SlotMap {
    let mut map = SlotMap::empty();
    let Value::Array(ranges) = answer else {
        return map;
    };
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = parts.as_slice()
        else {
            continue;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            continue;
        };
        let host = text(host).unwrap_or_default();
        let Some(node) = u16::try_from(*port)
            .ok()
            .and_then(|port| slots::at(&host, port, asked))
        else {
            continue;
        };
        let slot = |slot: &i64| u16::try_from(*slot).unwrap_or(slots::NUM_SLOTS);
        for slot in slot(first)..=slot(last).min(slots::NUM_SLOTS) {
            map.set(slot, &node);
        }
    }
    map
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// Reads a map that RESP2 tells as a list.
fn flat_map(value: &Value) -> HashMap<String, String> {
    let Value::Array(items) = value else {
        return HashMap::new();
    };
    let mut map = HashMap::new();
    let mut items = items.iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        if let (Some(key), Some(value)) = (text(key), text(value)) {
            map.insert(key, value);
        }
    }
    map
}

fn is_unknown_command(err: &RedisError) -> bool {
    with_causes(err).contains("unknown command")
}

fn too_old(version: &str) -> BusError {
    BusError::Unsuited {
        reason: format!(
            "this Redis ({version}) has no sharded channels: REDIS_ADAPTER=sharded needs Redis {MIN_VERSION} or newer; upgrade it, or set REDIS_ADAPTER=classic on all instances"
        ),
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

/// Returns who has the slot of a channel.
fn owner(map: &SharedMap, channel: &str) -> Result<Node, BusError> {
    let slot = slot_of(channel.as_bytes());
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.owner(slot).cloned().ok_or_else(|| nobody_has(slot))
}

fn note_move(map: &SharedMap, slot: u16, node: &Node) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.set(slot, node);
}

/// The connections that publish.
#[derive(Debug)]
pub struct ShardedPublisher {
    seed: RedisBus,
    map: SharedMap,
    connections: HashMap<Node, RedisPublisher>,
}

impl ShardedPublisher {
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
        let mut by_node: HashMap<Node, Vec<(usize, &Outbound)>> = HashMap::new();
        for place in places {
            if let Some(message) = batch.get(place) {
                let node = owner(&self.map, &message.channel)?;
                by_node.entry(node).or_default().push((place, message));
            }
        }
        self.reach(by_node.keys()).await?;
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
                        note_move(&self.map, slot, &node);
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
    async fn num_subscribers(&mut self, channel: &str) -> Result<usize, BusError> {
        let nodes: Vec<Node> = {
            let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
            map.nodes().into_iter().cloned().collect()
        };
        self.reach(nodes.iter()).await?;
        let counting = self
            .connections
            .iter_mut()
            .filter(|(node, _)| nodes.contains(node))
            .map(|(_, connection)| connection.count("SHARDNUMSUB", channel));
        Ok(try_join_all(counting).await?.into_iter().sum())
    }

    async fn ping(&mut self) -> Result<(), BusError> {
        let pings = self.connections.values_mut().map(Publisher::ping);
        try_join_all(pings).await.map(drop)
    }
}

/// A channel that is to be listened to.
#[derive(Debug)]
struct Wanted {
    /// Where it was asked for.
    node: Node,
    is_confirmed: bool,
    num_moves: u32,
}

type Opening = Pin<Box<dyn Future<Output = (Node, Result<Listener, BusError>)>>>;
type Survey = Pin<Box<dyn Future<Output = Result<SlotMap, BusError>>>>;

/// The connections that listen.
pub struct ShardedSubscriber {
    seed: RedisBus,
    map: SharedMap,
    wanted: HashMap<String, Wanted>,
    num_unconfirmed: usize,
    listeners: Vec<(Node, Listener)>,
    /// Whose turn it is, so that a busy node does not silence the others.
    turn: usize,
    /// Connections being made, and the channels to ask for there.
    opening: FuturesUnordered<Opening>,
    waiting: HashMap<Node, Vec<String>>,
    /// Who has which slot, being asked for the channels that a node has withdrawn.
    survey: Option<Survey>,
    withdrawn: Vec<String>,
    failed: Option<BusError>,
    owes_settled: bool,
}

impl Subscriber for ShardedSubscriber {
    fn change(&mut self, add: Names, remove: Names) {
        for channel in remove.channels {
            self.stop_listening(&channel);
        }
        for channel in add.channels {
            if let Err(err) = self.start_listening(channel) {
                self.failed = Some(err);
            }
        }
        self.owes_settled = true;
    }

    async fn next(&mut self) -> Result<Heard, BusError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl ShardedSubscriber {
    fn new(seed: RedisBus, map: SharedMap) -> Self {
        Self {
            seed,
            map,
            wanted: HashMap::new(),
            num_unconfirmed: 0,
            listeners: Vec::new(),
            turn: 0,
            opening: FuturesUnordered::new(),
            waiting: HashMap::new(),
            survey: None,
            withdrawn: Vec::new(),
            failed: None,
            owes_settled: false,
        }
    }

    fn start_listening(&mut self, channel: String) -> Result<(), BusError> {
        let node = owner(&self.map, &channel)?;
        let wanted = Wanted {
            node: node.clone(),
            is_confirmed: false,
            num_moves: 0,
        };
        if self.wanted.insert(channel.clone(), wanted).is_none() {
            self.num_unconfirmed += 1;
        }
        self.ask(node, channel)
    }

    fn stop_listening(&mut self, channel: &str) {
        let Some(wanted) = self.wanted.remove(channel) else {
            return;
        };
        self.num_unconfirmed -= usize::from(!wanted.is_confirmed);
        if let Some(waiting) = self.waiting.get_mut(&wanted.node) {
            waiting.retain(|name| name != channel);
        } else if let Some(listener) = listener(&mut self.listeners, &wanted.node) {
            listener.unsubscribe(channel.to_owned());
        }
    }

    /// Asks a node for a channel, at once or as soon as there is a connection to it.
    fn ask(&mut self, node: Node, channel: String) -> Result<(), BusError> {
        if let Some(listener) = listener(&mut self.listeners, &node) {
            listener.subscribe(channel);
            return Ok(());
        }
        if let Some(waiting) = self.waiting.get_mut(&node) {
            waiting.push(channel);
            return Ok(());
        }
        let bus = self.seed.at(&node)?;
        self.waiting.insert(node.clone(), vec![channel]);
        self.opening.push(Box::pin(async move {
            let opened = within(CONNECT_TIMEOUT, bus.listener()).await;
            (node, opened)
        }));
        Ok(())
    }

    /// Asks for a channel that is still wanted at whoever has it now.
    fn ask_again(&mut self, channel: String) -> Result<(), BusError> {
        let node = owner(&self.map, &channel)?;
        let Some(wanted) = self.wanted.get_mut(&channel) else {
            return Ok(());
        };
        if wanted.num_moves >= MAX_MOVES {
            return Err(unsettled());
        }
        wanted.num_moves += 1;
        wanted.node = node.clone();
        self.ask(node, channel)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, BusError>> {
        loop {
            if let Some(err) = self.failed.take() {
                return Poll::Ready(Err(err));
            }
            if self.owes_settled && self.num_unconfirmed == 0 {
                self.owes_settled = false;
                return Poll::Ready(Ok(Heard::Settled));
            }
            if let Poll::Ready(Some((node, opened))) = self.opening.poll_next_unpin(cx) {
                let mut listener = opened?;
                for channel in self.waiting.remove(&node).unwrap_or_default() {
                    listener.subscribe(channel);
                }
                self.listeners.push((node, listener));
                continue;
            }
            if let Some(survey) = &mut self.survey
                && let Poll::Ready(map) = survey.as_mut().poll(cx)
            {
                self.survey = None;
                *self.map.lock().unwrap_or_else(PoisonError::into_inner) = map?;
                for channel in std::mem::take(&mut self.withdrawn) {
                    self.ask_again(channel)?;
                }
                continue;
            }
            let Some((node, event)) = self.poll_listeners(cx)? else {
                return Poll::Pending;
            };
            if let Some(inbound) = self.take(node, event)? {
                return Poll::Ready(Ok(Heard::Message(inbound)));
            }
        }
    }

    /// Returns the next event of any node; nothing if there is none yet.
    fn poll_listeners(&mut self, cx: &mut Context<'_>) -> Result<Option<(Node, Event)>, BusError> {
        let num_listeners = self.listeners.len();
        for step in 0..num_listeners {
            let at = (self.turn + step) % num_listeners;
            let Some((node, listener)) = self.listeners.get_mut(at) else {
                continue;
            };
            match listener.poll(cx) {
                Poll::Ready(Ok(event)) => {
                    self.turn = at + 1;
                    return Ok(Some((node.clone(), event)));
                }
                Poll::Ready(Err(err)) => {
                    let is_needed = self.wanted.values().any(|wanted| wanted.node == *node);
                    if is_needed {
                        return Err(err);
                    }
                    // It has left the cluster, perhaps; nothing is lost with it. Those behind it have moved up.
                    self.listeners.swap_remove(at);
                    cx.waker().wake_by_ref();
                    return Ok(None);
                }
                Poll::Pending => {}
            }
        }
        Ok(None)
    }

    fn take(&mut self, node: Node, event: Event) -> Result<Option<Inbound>, BusError> {
        match event {
            Event::Message { channel, payload } => {
                return Ok(Some(Inbound {
                    pattern: None,
                    channel,
                    payload,
                }));
            }
            Event::Subscribed(channel) => {
                if let Some(wanted) = self.wanted.get_mut(&channel)
                    && wanted.node == node
                    && !wanted.is_confirmed
                {
                    wanted.is_confirmed = true;
                    wanted.num_moves = 0;
                    self.num_unconfirmed -= 1;
                }
            }
            Event::Withdrawn(channel) => {
                let wanted = self.wanted.get_mut(&channel);
                if let Some(wanted) = wanted.filter(|wanted| wanted.node == node) {
                    self.num_unconfirmed += usize::from(wanted.is_confirmed);
                    wanted.is_confirmed = false;
                    self.withdrawn.push(channel);
                    if self.survey.is_none() {
                        // Whoever gave a slot away knows to whom.
                        self.survey = Some(self.survey_of(node)?);
                    }
                }
            }
            Event::Refused { channel, error } => match slots::moved(&error, &node) {
                Some((slot, node)) => {
                    note_move(&self.map, slot, &node);
                    self.ask_again(channel)?;
                }
                None => return Err(refusal(&error)),
            },
        }
        Ok(None)
    }

    fn survey_of(&self, node: Node) -> Result<Survey, BusError> {
        let bus = self.seed.at(&node)?;
        Ok(Box::pin(within(RESPONSE_TIMEOUT, async move {
            slot_map(&mut bus.publisher().await?, &node).await
        })))
    }
}

fn listener<'a>(listeners: &'a mut [(Node, Listener)], node: &Node) -> Option<&'a mut Listener> {
    listeners
        .iter_mut()
        .find(|(at, _)| at == node)
        .map(|(_, listener)| listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_slots_of_a_cluster_are_read_and_nonsense_passed_over() {
        let range = |first, last, host: Value, port| {
            let master = Value::Array(vec![host, Value::Int(port), bulk("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master])
        };
        let answer = Value::Array(vec![
            range(0, 10, bulk("a"), 7000),
            range(11, 11, Value::Nil, 7001),
            range(12, 99_999, bulk("c"), 7002),
            range(-5, 3, bulk("d"), 7003),
            range(0, 5, bulk("e"), 99_999),
            Value::Array(vec![Value::Int(0)]),
            Value::Nil,
        ]);
        let asked = Node::At {
            host: "seed".to_owned(),
            port: 1,
        };
        let map = read_slots(&answer, &asked);
        let node = |host: &str, port| Node::At {
            host: host.to_owned(),
            port,
        };
        assert_eq!(map.owner(0), Some(&node("a", 7000)));
        assert_eq!(map.owner(11), Some(&node("seed", 7001)));
        assert_eq!(map.owner(16_383), Some(&node("c", 7002)));
        assert_eq!(map.nodes().len(), 3);
    }
}
