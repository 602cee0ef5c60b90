//! The life of the connections to the bus: connect, subscribe, publish, ask and listen, until something breaks; again.
//!
//! ```text
//! connect ──▶ listen: subscribe to all ──▶ settled: on_connected ──▶ publish: what waited first, then what comes
//!    ▲            follow the namespaces; take in what comes in          ask: count who listens, then publish
//!    └──────────── wait (backoff) ◀──── either ends ◀───────────────────┘
//! ```
//! Subscribed before anything is published: who publishes first could miss the answer of others.
//!
//! Nothing here ends the bridge but the end of the hub.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time,
};

use super::{
    actor::OnConnected,
    backoff,
    bus::{Bus, BusError, Heard, Outbound, Publisher, Subscriber},
    calls::Calls,
    incoming::{HubDoor, HubGone, Incoming},
    listening::Listening,
    messages::AskOthers,
    namespaces::Namespaces,
    private::{self, Batch, Listener, Waiting},
    queue::Queue,
    redis_bus::RESPONSE_TIMEOUT,
    status::{BridgeStats, BusStatus},
};
use crate::{
    adapter::{
        request::{self, Request},
        uid::Uid,
    },
    hub::question::{Answer, Question},
};

/// Silence on a connection after which the other side is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a link must have lived for the next one to begin with the shortest delay again. Without it, a Redis that
/// accepts and at once closes would be called ten times a second.
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// What the connections need to know.
pub(super) struct Link<B: Bus> {
    pub(super) bus: B,
    pub(super) uid: Uid,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) queue: Arc<Queue>,
    pub(super) calls: Arc<Calls>,
    pub(super) asks: mpsc::Receiver<AskOthers>,
    pub(super) private: private::Receiver,
    /// Who takes what others say to this instance alone.
    pub(super) listener: Listener,
    pub(super) stats: Arc<BridgeStats>,
    pub(super) status: watch::Sender<BusStatus>,
    pub(super) hub: HubDoor,
    pub(super) on_connected: OnConnected,
}

/// Why a link ended.
enum End {
    Bus(BusError),
    /// There is nobody left to listen for.
    HubGone,
}

impl From<BusError> for End {
    fn from(err: BusError) -> Self {
        Self::Bus(err)
    }
}

impl From<HubGone> for End {
    fn from(HubGone: HubGone) -> Self {
        Self::HubGone
    }
}

/// A time without connection.
struct Outage {
    since: Instant,
    num_dropped_before: u64,
}

impl<B: Bus> Link<B> {
    /// Keeps the connections up for as long as there is a hub.
    pub(super) async fn run(mut self) {
        let mut delays = backoff::delays();
        let mut outage = None;
        let mut num_dropped_before = 0;
        loop {
            let err = match self.bus.connect().await {
                Ok((publisher, subscriber)) => {
                    let since = Instant::now();
                    let end = self.live(publisher, subscriber, &mut outage).await;
                    if outage.is_none() {
                        // What is under way is lost to the outage that begins here.
                        num_dropped_before = self.queue.num_dropped();
                        self.queue.abandon();
                    }
                    if since.elapsed() >= STEADY_AFTER {
                        delays = backoff::delays();
                    }
                    match end {
                        End::Bus(err) => err,
                        End::HubGone => return,
                    }
                }
                Err(err) => err,
            };
            self.report_down(&mut outage, num_dropped_before, &err);
            time::sleep(delays.next().unwrap_or(backoff::MAX_DELAY)).await;
        }
    }

    /// Listens, and publishes as soon as every subscription is in force. `outage` ends then.
    async fn live(
        &mut self,
        publisher: B::Publisher,
        subscriber: B::Subscriber,
        outage: &mut Option<Outage>,
    ) -> End {
        let (settled, is_settled) = watch::channel(false);
        // Apart from the rest, which the listener shares.
        let mut asks = std::mem::replace(&mut self.asks, mpsc::channel(1).1);
        let mut private = std::mem::replace(&mut self.private, mpsc::channel(1).1);
        let this = &*self;
        let publish = async {
            let mut is_settled = is_settled;
            // Fails only with the listener, and then this is dropped.
            _ = is_settled.wait_for(|is_settled| *is_settled).await;
            this.report_up(outage.take());
            (this.on_connected)();
            this.publish(publisher, &mut asks, &mut private).await
        };
        let end = select! {
            end = this.listen(subscriber, &settled) => end,
            err = publish => End::Bus(err),
        };
        self.asks = asks;
        self.private = private;
        end
    }

    /// Publishes what waits, batch after batch, and puts questions; one is answered by the bus before the next goes out.
    async fn publish(
        &self,
        mut publisher: B::Publisher,
        asks: &mut mpsc::Receiver<AskOthers>,
        private: &mut private::Receiver,
    ) -> BusError {
        let mut has_warned = false;
        loop {
            select! {
                batch = self.queue.next_batch() => {
                    match self.publish_batch(&mut publisher, batch).await {
                        Ok(None) => {}
                        Ok(Some(reason)) => {
                            let level = if has_warned { log::Level::Debug } else { log::Level::Warn };
                            has_warned = true;
                            log::log!(level, "Redis refuses events: {reason}");
                        }
                        Err(err) => return err,
                    }
                }
                Some(ask) = asks.recv() => {
                    if let Err(err) = self.ask(&mut publisher, ask).await {
                        return err;
                    }
                }
                Some(waiting) = private.recv() => {
                    if let Err(err) = self.send_private(&mut publisher, waiting, private).await {
                        return err;
                    }
                }
                () = time::sleep(PING_INTERVAL) => {
                    if let Err(err) = publisher.ping().await {
                        return err;
                    }
                }
            }
        }
    }

    /// Publishes a batch; returns why the bus refused some of it, if it did.
    async fn publish_batch(
        &self,
        publisher: &mut B::Publisher,
        batch: Vec<Outbound>,
    ) -> Result<Option<String>, BusError> {
        let num_messages = batch.len();
        let published = publisher.publish(batch).await?;
        let num_taken = num_messages.saturating_sub(published.num_refused);
        self.stats
            .num_published
            .fetch_add(num_taken as u64, Relaxed);
        self.queue.settle(published.num_refused);
        Ok(published.reason)
    }

    /// Sends what waits for other instances alone, and tells how many have heard it.
    async fn send_private(
        &self,
        publisher: &mut B::Publisher,
        waiting: Waiting,
        receiver: &mut private::Receiver,
    ) -> Result<(), BusError> {
        let mut next = Some(waiting);
        while let Some(waiting) = next.take() {
            match waiting {
                Waiting::Letter(first) => {
                    let (mut batch, behind) = Batch::gather(first, receiver);
                    let published = publisher
                        .publish(std::mem::take(&mut batch.messages))
                        .await?;
                    batch.settle(&published.num_listeners);
                    next = behind;
                }
                Waiting::Look { channel, reply } => {
                    match publisher.num_subscribers(&channel).await {
                        // Whoever looks may have given up.
                        Ok(num) => _ = reply.send(num),
                        // Redis may forbid this one command; all else goes on.
                        Err(BusError::Refused { .. }) => {}
                        Err(err) => return Err(err),
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a question: counts who will answer, says so, and publishes it.
    async fn ask(&self, publisher: &mut B::Publisher, ask: AskOthers) -> Result<(), BusError> {
        let AskOthers {
            namespace,
            question,
            timeout,
            answers,
        } = ask;
        let unreachable = |reason: String| Answer::Unreachable { reason };
        let channels = self.namespaces.channels(&namespace);
        // Or we would take ourselves for another, or another for us; and could not hear what is answered at once. The listener
        // goes on meanwhile. If the bus does not confirm it, this link is about to end.
        let settled = time::timeout(RESPONSE_TIMEOUT, self.namespaces.settled(&namespace));
        let are_we_among = settled.await.unwrap_or(false);
        let num_listeners = match publisher.num_subscribers(channels.requests.request()).await {
            Ok(num_listeners) => num_listeners,
            Err(err) => {
                // Whoever asked may have given up.
                _ = answers.send(unreachable(err.to_string()));
                return match err {
                    // Redis may forbid this one command; all else goes on.
                    BusError::Refused { .. } => Ok(()),
                    err => Err(err),
                };
            }
        };
        let num_instances = num_listeners.saturating_sub(usize::from(are_we_among));
        let asked = answers.send(Answer::Asked { num_instances });
        if num_instances == 0 || asked.is_err() {
            return Ok(());
        }
        let now = Instant::now();
        let Some(id) = self
            .calls
            .begin(now, namespace.clone(), answers.clone(), timeout)
        else {
            _ = answers.send(unreachable("too many questions are open".to_owned()));
            return Ok(());
        };
        let request = match question {
            Question::SocketIds { target } => Request::SocketIds {
                id: id.clone(),
                rooms: target.rooms,
            },
            Question::Rooms => Request::AllRooms { id: id.clone() },
            Question::Sockets { target } => Request::Fetch {
                id: id.clone(),
                target,
            },
            Question::ServerEvent { args } => Request::ServerSideEmit {
                id: Some(id.clone()),
                args,
            },
            Question::Broadcast {
                broadcast,
                timeout,
                expects_one,
            } => Request::Broadcast {
                id: id.clone(),
                broadcast,
                timeout: Some(timeout),
                expect_single_response: expects_one,
            },
        };
        match request::encode(&self.uid, &namespace, &request) {
            // In its place behind what was published before it.
            Ok(payload) => self.queue.push(Outbound {
                channel: channels.requests.request().to_owned(),
                payload,
            }),
            Err(err) => {
                self.calls.end(&id);
                _ = answers.send(unreachable(format!(
                    "the question cannot be published: {err}"
                )));
            }
        }
        Ok(())
    }

    /// Follows the table of namespaces, and takes in what others publish.
    async fn listen(&self, mut subscriber: B::Subscriber, settled: &watch::Sender<bool>) -> End {
        let mut incoming = Incoming::new(
            self.uid.clone(),
            self.hub.clone(),
            self.listener.clone(),
            Arc::clone(&self.queue),
            Arc::clone(&self.calls),
            Arc::clone(&self.stats),
        );
        let mut listening = Listening::default();
        let (add, remove) = listening.follow(&self.namespaces);
        // There is always something: at least where we are spoken to alone.
        subscriber.change(add, remove);
        let mut is_changing = true;
        loop {
            let heard = select! {
                heard = subscriber.next() => heard,
                // One change at a time: what clients open and close meanwhile is one change, however much it is.
                () = self.namespaces.changed(), if !is_changing => {
                    let (add, remove) = listening.follow(&self.namespaces);
                    is_changing = !(add.is_empty() && remove.is_empty());
                    if is_changing {
                        subscriber.change(add, remove);
                    } else {
                        self.namespaces.note_in_force(listening.namespaces());
                    }
                    continue;
                }
            };
            match heard {
                Ok(Heard::Settled) => {
                    is_changing = false;
                    self.namespaces.note_in_force(listening.namespaces());
                    settled.send_replace(true);
                }
                Ok(Heard::Message(inbound)) => {
                    let place = listening.place(&inbound);
                    if let Err(gone) = incoming.take(&inbound, place).await {
                        return gone.into();
                    }
                }
                Err(err) => return err.into(),
            }
        }
    }

    fn report_up(&self, outage: Option<Outage>) {
        let place = self.bus.place();
        match outage {
            None => log::info!("Redis at {place} connected"),
            Some(Outage {
                since,
                num_dropped_before,
            }) => {
                let num_dropped = self.queue.num_dropped().saturating_sub(num_dropped_before);
                let seconds = since.elapsed().as_secs_f32();
                log::info!(
                    "Redis at {place} is back after {seconds:.1} s; {num_dropped} events were dropped"
                );
            }
        }
        self.stats.num_links.fetch_add(1, Relaxed);
        self.status.send_replace(BusStatus::Up);
    }

    /// Says once that the bus is away, and why.
    fn report_down(
        &mut self,
        outage: &mut Option<Outage>,
        num_dropped_before: u64,
        err: &BusError,
    ) {
        let place = self.bus.place();
        self.fail_questions(&err.to_string());
        if outage.is_none() {
            *outage = Some(Outage {
                since: Instant::now(),
                num_dropped_before,
            });
            log::warn!("Redis at {place} unreachable: {err}; serving local clients, retrying");
        } else {
            log::debug!("Redis at {place} still unreachable: {err}");
        }
        let status = BusStatus::Down {
            reason: err.to_string(),
        };
        // Watchers are woken by news only.
        self.status.send_if_modified(|current| {
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }

    /// Tells all who ask, or are about to, that nobody can be heard.
    fn fail_questions(&mut self, reason: &str) {
        self.calls.fail_all(reason);
        self.listener.lose_all();
        // Their receipts are dropped with them, which says it all.
        while self.private.try_recv().is_ok() {}
        while let Ok(ask) = self.asks.try_recv() {
            let reason = reason.to_owned();
            // Whoever asked may have given up.
            _ = ask.answers.send(Answer::Unreachable { reason });
        }
    }
}
