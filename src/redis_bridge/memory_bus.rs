//! A bus within one process, for tests: it can be cut, restored, held up, and asked what went over it.
//!
//! Not a broker: patterns end in `*` and are otherwise literal, as `adapter::channel` writes them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::bus::{
    Bus, BusError, Heard, Inbound, Names, Outbound, Published, Publisher, Subscriber,
};

/// One bus; clones are the same one.
#[derive(Clone)]
pub(super) struct MemoryBus {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    is_up: watch::Sender<bool>,
    /// Whether answers to PUBLISH come back.
    answers: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    listeners: Vec<Listener>,
    num_links: usize,
    refused: Option<(&'static str, &'static str)>,
    /// Everything that anybody did, in order.
    journal: Vec<Deed>,
    /// Changes of subscriptions that are not made yet, and whose; `None`: they are made at once.
    held_changes: Option<Vec<(usize, Names, Names)>>,
}

impl State {
    fn change(&mut self, id: usize, add: Names, remove: Names) {
        // Cut off meanwhile: `next` tells.
        let Some(listener) = self.listeners.iter_mut().find(|l| l.id == id) else {
            return;
        };
        let names = &mut listener.names;
        names
            .patterns
            .retain(|name| !remove.patterns.contains(name));
        names
            .channels
            .retain(|name| !remove.channels.contains(name));
        names.patterns.extend(add.patterns.iter().cloned());
        names.channels.extend(add.channels.iter().cloned());
        listener.inbox.send(Heard::Settled).unwrap();
        if !remove.is_empty() {
            self.journal.push(Deed::Unsubscribed(remove));
        }
        if !add.is_empty() {
            self.journal.push(Deed::Subscribed(add));
        }
    }
}

struct Listener {
    id: usize,
    names: Names,
    inbox: mpsc::UnboundedSender<Heard>,
}

/// Something that somebody did on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Subscribed(Names),
    Unsubscribed(Names),
    Published(Vec<Outbound>),
    Counted(Vec<String>),
}

impl MemoryBus {
    pub(super) fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            is_up: watch::Sender::new(true),
            answers: watch::Sender::new(true),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Breaks all links, and refuses new ones until it is restored.
    pub(super) fn set_up(&self, is_up: bool) {
        if !is_up {
            self.shared.state.lock().unwrap().listeners.clear();
        }
        self.shared.is_up.send_replace(is_up);
    }

    /// Lets publishers wait for their answers.
    pub(super) fn set_answering(&self, answers: bool) {
        self.shared.answers.send_replace(answers);
    }

    /// Refuses to publish on channels that contain this, with that code; nothing refuses nothing.
    pub(super) fn refuse(&self, refused: Option<(&'static str, &'static str)>) {
        self.shared.state.lock().unwrap().refused = refused;
    }

    fn refusal(&self, channel: &str) -> Option<BusError> {
        let (part, code) = self.shared.state.lock().unwrap().refused?;
        channel.contains(part).then(|| BusError::Refused {
            code: code.to_owned(),
            reason: format!("no access to a channel: {channel}"),
        })
    }

    /// Lets changes of subscriptions wait, as on a long way.
    pub(super) fn hold_changes(&self) {
        self.shared.state.lock().unwrap().held_changes = Some(Vec::new());
    }

    /// Returns how many wait.
    pub(super) fn num_held_changes(&self) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.held_changes.as_ref().map_or(0, Vec::len)
    }

    /// Makes those that wait, and from now on each at once; returns how many waited.
    pub(super) fn make_changes(&self) -> usize {
        let mut state = self.shared.state.lock().unwrap();
        let held = state.held_changes.take().unwrap_or_default();
        let num = held.len();
        for (id, add, remove) in held {
            state.change(id, add, remove);
        }
        num
    }

    /// Publishes as a stranger would.
    pub(super) fn publish(&self, channel: &str, payload: impl Into<Bytes>) {
        self.deliver(&[Outbound {
            channel: channel.to_owned(),
            payload: payload.into(),
        }]);
    }

    /// Listens to a channel as a stranger would.
    pub(super) fn listen(&self, channel: &str) -> mpsc::UnboundedReceiver<Bytes> {
        self.listen_to(Names {
            channels: vec![channel.to_owned()],
            ..Names::default()
        })
    }

    /// Listens to a pattern as a stranger would.
    pub(super) fn listen_by(&self, pattern: &str) -> mpsc::UnboundedReceiver<Bytes> {
        self.listen_to(Names {
            patterns: vec![pattern.to_owned()],
            ..Names::default()
        })
    }

    fn listen_to(&self, names: Names) -> mpsc::UnboundedReceiver<Bytes> {
        let (inbox, mut heard) = mpsc::unbounded_channel();
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.shared.state.lock().unwrap();
        state.num_links += 1;
        let id = state.num_links;
        state.listeners.push(Listener { id, names, inbox });
        actix_rt::spawn(async move {
            while let Some(Heard::Message(inbound)) = heard.recv().await {
                _ = sender.send(inbound.payload);
            }
        });
        receiver
    }

    /// Waits until somebody listens to a channel by its name.
    pub(super) async fn subscribed(&self, channel: &str) {
        self.until_listeners(channel, |num| num > 0).await;
    }

    /// Waits until nobody listens to a channel by its name.
    pub(super) async fn unsubscribed(&self, channel: &str) {
        self.until_listeners(channel, |num| num == 0).await;
    }

    async fn until_listeners(&self, channel: &str, is: impl Fn(usize) -> bool) {
        // Subscribing makes no sound, so this looks at every turn.
        while !is(self.num_listeners(channel)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn num_listeners(&self, channel: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        let listens = |listener: &&Listener| listener.names.channels.iter().any(|n| n == channel);
        state.listeners.iter().filter(listens).count()
    }

    /// Returns how many have connected or begun to listen so far.
    pub(super) fn num_links(&self) -> usize {
        self.shared.state.lock().unwrap().num_links
    }

    pub(super) fn journal(&self) -> Vec<Deed> {
        self.shared.state.lock().unwrap().journal.clone()
    }

    fn deliver(&self, batch: &[Outbound]) -> Vec<usize> {
        let state = self.shared.state.lock().unwrap();
        let mut num_listeners = Vec::new();
        for Outbound { channel, payload } in batch {
            num_listeners.push(0);
            for listener in &state.listeners {
                let by_pattern = listener.names.patterns.iter().filter(|pattern| {
                    let start = pattern.strip_suffix('*').unwrap().replace('\\', "");
                    channel.starts_with(&start)
                });
                let by_name = listener
                    .names
                    .channels
                    .iter()
                    .filter(|name| *name == channel);
                for pattern in by_pattern.map(Some).chain(by_name.map(|_| None)) {
                    *num_listeners.last_mut().unwrap() += 1;
                    let _ = listener.inbox.send(Heard::Message(Inbound {
                        pattern: pattern.cloned(),
                        channel: channel.clone().into(),
                        payload: payload.clone(),
                    }));
                }
            }
        }
        num_listeners
    }

    fn check(&self) -> Result<(), BusError> {
        if *self.shared.is_up.borrow() {
            return Ok(());
        }
        Err(BusError::Connect {
            reason: "the test said so".to_owned(),
        })
    }
}

impl Bus for MemoryBus {
    type Publisher = MemoryPublisher;
    type Subscriber = MemorySubscriber;

    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn connect(&self) -> Result<(MemoryPublisher, MemorySubscriber), BusError> {
        self.check()?;
        let (sender, inbox) = mpsc::unbounded_channel();
        let mut state = self.shared.state.lock().unwrap();
        state.num_links += 1;
        let id = state.num_links;
        state.listeners.push(Listener {
            id,
            names: Names::default(),
            inbox: sender,
        });
        drop(state);
        let subscriber = MemorySubscriber {
            bus: self.clone(),
            id,
            inbox,
        };
        Ok((MemoryPublisher { bus: self.clone() }, subscriber))
    }
}

pub(super) struct MemoryPublisher {
    bus: MemoryBus,
}

impl Publisher for MemoryPublisher {
    async fn publish(&mut self, batch: &[Outbound]) -> Result<Published, BusError> {
        self.bus.check()?;
        let mut published = Published::default();
        let mut batch = batch.to_vec();
        for (index, message) in batch.iter().enumerate() {
            if let Some(err) = self.bus.refusal(&message.channel) {
                published.refused.push((index, err));
            }
        }
        let mut index = 0;
        batch.retain(|_| {
            index += 1;
            !published.refused.iter().any(|(at, _)| *at == index - 1)
        });
        let mut num_listeners = self.bus.deliver(&batch);
        for (index, _) in &published.refused {
            num_listeners.insert(*index, 0);
        }
        published.num_listeners = num_listeners;
        self.bus
            .shared
            .state
            .lock()
            .unwrap()
            .journal
            .push(Deed::Published(batch));
        let mut answers = self.bus.shared.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        Ok(published)
    }

    async fn probe(&mut self, channel: &str) -> Result<(), BusError> {
        self.bus.check()?;
        self.bus.refusal(channel).map_or(Ok(()), Err)
    }

    async fn num_subscribers(&mut self, channels: &[String]) -> Result<Vec<usize>, BusError> {
        self.bus.check()?;
        let counted = Deed::Counted(channels.to_vec());
        self.bus.shared.state.lock().unwrap().journal.push(counted);
        let count = |channel: &String| self.bus.num_listeners(channel);
        Ok(channels.iter().map(count).collect())
    }

    async fn ping(&mut self) -> Result<(), BusError> {
        self.bus.check()
    }
}

pub(super) struct MemorySubscriber {
    bus: MemoryBus,
    id: usize,
    inbox: mpsc::UnboundedReceiver<Heard>,
}

impl Subscriber for MemorySubscriber {
    fn change(&mut self, add: Names, remove: Names) {
        let mut state = self.bus.shared.state.lock().unwrap();
        match &mut state.held_changes {
            Some(held) => held.push((self.id, add, remove)),
            None => state.change(self.id, add, remove),
        }
    }

    async fn next(&mut self) -> Result<Heard, BusError> {
        let lost = || BusError::Lost {
            reason: "cut".to_owned(),
        };
        self.inbox.recv().await.ok_or_else(lost)
    }
}

impl Drop for MemorySubscriber {
    fn drop(&mut self) {
        let mut state = self.bus.shared.state.lock().unwrap();
        state.listeners.retain(|listener| listener.id != self.id);
    }
}
