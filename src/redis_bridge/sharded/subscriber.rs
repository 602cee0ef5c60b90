//! The connections that listen to sharded channels: one to each node that is needed.
//!
//! ```text
//! MOVED        asks there
//! withdrawn    the slot has moved: asks the node who has it now, and asks there
//! ```
//! One at a time is read, in turn. A lost connection, a slot that nobody has, ends the link.
//!
//! Source: Redis 7 "Sharded Pub/Sub", Redis cluster specification "MOVED redirection"; wire.md 4.4.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{
    super::{
        bus::{BusError, Heard, Inbound, Names, Subscriber},
        redis_bus::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RedisBus, within},
    },
    MAX_MOVES,
    listener::{Event, Listener},
    nobody_has, refusal,
    slots::{self, Node, SharedMap, SlotMap, slot_of},
    survey::slot_map,
    unsettled,
};

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
    pub(super) fn new(seed: RedisBus, map: SharedMap) -> Self {
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

    /// Returns who has the slot of a channel.
    fn owner(&self, channel: &str) -> Result<Node, BusError> {
        let slot = slot_of(channel.as_bytes());
        let map = self.map.now();
        map.owner(slot).cloned().ok_or_else(|| nobody_has(slot))
    }

    fn start_listening(&mut self, channel: String) -> Result<(), BusError> {
        let node = self.owner(&channel)?;
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
        let node = self.owner(&channel)?;
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
                self.map.replace(map?);
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
                    self.map.note(slot, &node);
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
