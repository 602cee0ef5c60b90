//! A bus within one process, for tests: it can be cut, restored, held up, and asked what went over it.
//!
//! Not a broker: patterns end in `*` and are otherwise literal, as `adapter::channel` writes them.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::bus::{Bus, BusError, Inbound, Outbound, Published, Publisher, Subscriber};

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
    /// Everything that anybody did, in order.
    journal: Vec<Deed>,
}

struct Listener {
    patterns: Vec<String>,
    inbox: mpsc::UnboundedSender<Inbound>,
}

/// Something that somebody did on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Subscribed(Vec<String>),
    Published(Vec<Outbound>),
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

    /// Publishes as a stranger would.
    pub(super) fn publish(&self, channel: &str, payload: impl Into<bytes::Bytes>) {
        self.deliver(&[Outbound {
            channel: channel.to_owned(),
            payload: payload.into(),
        }]);
    }

    pub(super) fn journal(&self) -> Vec<Deed> {
        self.shared.state.lock().unwrap().journal.clone()
    }

    fn deliver(&self, batch: &[Outbound]) {
        let state = self.shared.state.lock().unwrap();
        for Outbound { channel, payload } in batch {
            for listener in &state.listeners {
                for pattern in &listener.patterns {
                    let start = pattern.strip_suffix('*').unwrap().replace('\\', "");
                    if channel.starts_with(&start) {
                        let _ = listener.inbox.send(Inbound {
                            pattern: Some(pattern.clone()),
                            channel: channel.clone().into(),
                            payload: payload.clone(),
                        });
                    }
                }
            }
        }
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
        let subscriber = MemorySubscriber {
            bus: self.clone(),
            sender: Some(sender),
            inbox,
        };
        Ok((MemoryPublisher { bus: self.clone() }, subscriber))
    }
}

pub(super) struct MemoryPublisher {
    bus: MemoryBus,
}

impl Publisher for MemoryPublisher {
    async fn publish(&mut self, batch: Vec<Outbound>) -> Result<Published, BusError> {
        self.bus.check()?;
        self.bus.deliver(&batch);
        self.bus
            .shared
            .state
            .lock()
            .unwrap()
            .journal
            .push(Deed::Published(batch));
        let mut answers = self.bus.shared.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        Ok(Published::default())
    }

    async fn ping(&mut self) -> Result<(), BusError> {
        self.bus.check()
    }
}

pub(super) struct MemorySubscriber {
    bus: MemoryBus,
    sender: Option<mpsc::UnboundedSender<Inbound>>,
    inbox: mpsc::UnboundedReceiver<Inbound>,
}

impl Subscriber for MemorySubscriber {
    async fn psubscribe(&mut self, patterns: &[&str]) -> Result<(), BusError> {
        self.bus.check()?;
        let patterns: Vec<String> = patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect();
        let mut state = self.bus.shared.state.lock().unwrap();
        state.journal.push(Deed::Subscribed(patterns.clone()));
        let inbox = self.sender.take().expect("subscribes once");
        state.listeners.push(Listener { patterns, inbox });
        Ok(())
    }

    async fn next(&mut self) -> Result<Inbound, BusError> {
        let lost = || BusError::Lost {
            reason: "cut".to_owned(),
        };
        self.inbox.recv().await.ok_or_else(lost)
    }
}
