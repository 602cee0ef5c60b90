//! The life of the connections to the bus: connect, subscribe, publish, ask and listen, until something breaks; again.
//!
//! ```text
//! connect ──▶ listen: subscribe to all ──▶ settled: on_connected ──▶ publish: what waited first, then what comes
//!    ▲            follow the namespaces; take in what comes in          of a question: count who heard it
//!    └──────────── wait (backoff) ◀──── either ends ◀───────────────────┘
//! ```
//! Subscribed before anything is published: who publishes first could miss the answer of others.
//!
//! A bus that answers but refuses what is published (rights, memory, a replica) breaks no connection: others are still
//! listened to, and what it refused waits until an attempt shows that it is taken.
//!
//! Nothing here ends the bridge but the end of the hub.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
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
    bus::{Bus, BusError, Heard, Inbound, Outbound, Published, Publisher, Subscriber},
    calls::Calls,
    incoming::{HubDoor, HubGone, Intake, Places},
    listening::Listening,
    messages::AskOthers,
    namespaces::Namespaces,
    outgoing::LIMITS,
    private::{self, Batch, Listener, Looks, Waiting},
    queue::Queue,
    status::{BridgeStats, BusStatus},
    ticket::{self, Census, Ticket},
};
use crate::{
    hub::{
        question::Answer,
        room_table::{News, RoomTable},
    },
    peers::{ANSWER_DELAY, BEAT_INTERVAL, Peers},
    redis_endpoint::fault::Fault,
};

/// Silence on a connection after which the other side is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a link must have lived for the next one to begin with the shortest delay again. Without it, a Redis that
/// accepts and at once closes would be called ten times a second.
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// How long a bus may take to confirm a change of what is listened to, the time not counted in which the hub keeps us from reading.
/// However many names it has, a Redis that works is done long before; one that says other things and never this is no use, and a fresh
/// connection may be.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a bus may be what takes no messages for all, a replica or a Sentinel, before its address is looked up again. Whatever
/// follows the primary (a balancer, a DNS name) may lead elsewhere by then, and whoever was demoted closes no connection.
const ROLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the log is told of losses while the bus can be reached.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);

/// How many different refusals are logged that do not stop the rest.
const MAX_TOLD: usize = 8;

/// What the connections need to know.
pub(super) struct Link<B: Bus> {
    pub(super) bus: B,
    pub(super) peers: Arc<Peers>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) queue: Arc<Queue>,
    pub(super) calls: Arc<Calls>,
    /// Until the link runs.
    pub(super) inbox: Option<Inbox>,
    /// Who takes what instances of Sockhop say.
    pub(super) listener: Listener,
    pub(super) stats: Arc<BridgeStats>,
    pub(super) status: watch::Sender<BusStatus>,
    pub(super) hub: HubDoor,
    pub(super) on_connected: OnConnected,
    /// For what others ask, whichever connection it came over.
    pub(super) places: Places,
    pub(super) patience: Patience,
    /// What the log has been told of that is forbidden; at most [`MAX_TOLD`] texts.
    pub(super) told: RefCell<Vec<String>>,
}

/// How long a connection is kept that answers, but not as we need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without the confirmation of a change.
    pub(super) confirm: Duration,
    /// As that of one whose role it is not to publish.
    pub(super) role: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            confirm: CONFIRM_TIMEOUT,
            role: ROLE_TIMEOUT,
        }
    }
}

/// What waits for the connection that publishes, besides the queue. Unlike that, it does not outlive an outage.
pub(super) struct Inbox {
    pub(super) asks: mpsc::Receiver<AskOthers>,
    /// The first of them, which waits until its namespace is listened to.
    pub(super) unsettled: Option<AskOthers>,
    pub(super) private: private::Receiver,
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

/// A time in which nothing can be published.
struct Outage {
    since: Instant,
    num_dropped_before: u64,
    /// What the log has been told of.
    told: Vec<Fault>,
}

impl<B: Bus> Link<B> {
    /// Keeps the connections up for as long as there is a hub.
    pub(super) async fn run(mut self) {
        let mut delays = backoff::delays();
        let mut outage = None;
        // Apart from the rest, which publisher and listener share.
        let Some(mut inbox) = self.inbox.take() else {
            return;
        };
        loop {
            let num_dropped_before = self.queue.num_dropped();
            let (err, num_dropped_before) = match self.bus.connect().await {
                Ok((publisher, subscriber)) => {
                    let since = Instant::now();
                    let end = self
                        .live(publisher, subscriber, &mut inbox, &mut outage)
                        .await;
                    // What is under way is lost to the outage that begins here.
                    let num_dropped_before = self.queue.num_dropped();
                    self.queue.abandon();
                    if since.elapsed() >= STEADY_AFTER {
                        delays = backoff::delays();
                    }
                    match end {
                        End::Bus(err) => (err, num_dropped_before),
                        End::HubGone => return,
                    }
                }
                Err(err) => (err, num_dropped_before),
            };
            self.report_down(&mut outage, &mut inbox, num_dropped_before, &err);
            time::sleep(delays.next().unwrap_or(backoff::MAX_DELAY)).await;
        }
    }

    /// Listens, and publishes as soon as every subscription is in force. `outage` ends then.
    async fn live(
        &self,
        mut publisher: B::Publisher,
        subscriber: B::Subscriber,
        inbox: &mut Inbox,
        outage: &mut Option<Outage>,
    ) -> End {
        let (settled, is_settled) = watch::channel(false);
        let publish = async {
            let mut is_settled = is_settled;
            // Fails only with the listener, and then this is dropped.
            _ = is_settled.wait_for(|is_settled| *is_settled).await;
            let num_dropped = self.queue.num_dropped();
            match self.probe(&mut publisher).await {
                Ok(()) => self.report_up(outage.take()),
                Err(err) => {
                    let hold = self.hold(&mut publisher, inbox, outage, num_dropped, err);
                    if let Err(err) = hold.await {
                        return err;
                    }
                }
            }
            self.stats.num_links.fetch_add(1, Relaxed);
            (self.on_connected)();
            self.publish(publisher, inbox, outage).await
        };
        select! {
            end = self.listen(subscriber, &settled) => end,
            err = publish => End::Bus(err),
        }
    }

    /// Publishes what waits, batch after batch, and puts questions; one is answered by the bus before the next goes out.
    async fn publish(
        &self,
        mut publisher: B::Publisher,
        inbox: &mut Inbox,
        outage: &mut Option<Outage>,
    ) -> BusError {
        let mut tick = time::interval(PING_INTERVAL);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut losses = Losses::new(self.queue.num_dropped());
        // At first a hello: the others are to be known at once.
        let mut is_hello = true;
        let mut next_beat = time::Instant::now();
        loop {
            let num_dropped = self.queue.num_dropped();
            let done = select! {
                batch = self.queue.next_batch() => self.publish_batch(&mut publisher, batch).await,
                // Nothing else waits for it. One at a time: they keep their order.
                Some(ask) = inbox.asks.recv(), if inbox.unsettled.is_none() => {
                    inbox.unsettled = Some(ask);
                    Ok(())
                }
                are_we_among = self.settled(inbox.unsettled.as_ref()) => {
                    if let Some(ask) = inbox.unsettled.take() {
                        self.ask(ask, are_we_among);
                    }
                    Ok(())
                }
                Some(waiting) = inbox.private.recv() => {
                    self.send_private(&mut publisher, waiting, &mut inbox.private).await
                }
                () = self.peers.hailed() => {
                    next_beat = next_beat.min(time::Instant::now() + ANSWER_DELAY);
                    Ok(())
                }
                // Not through the queue: however much waits there, this instance lives.
                () = time::sleep_until(next_beat) => {
                    next_beat = time::Instant::now() + BEAT_INTERVAL;
                    self.beat(&mut publisher, std::mem::take(&mut is_hello)).await
                }
                // Under traffic, too: what Redis is may change without an error.
                _ = tick.tick() => {
                    losses.report(num_dropped);
                    publisher.ping().await
                }
            };
            if let Err(err) = done {
                let hold = self.hold(&mut publisher, inbox, outage, num_dropped, err);
                if let Err(err) = hold.await {
                    return err;
                }
                // The outage's own report has told of what was lost.
                losses = Losses::new(self.queue.num_dropped());
                // All that others rely on was forgotten here, as by a connection that is lost, and they are to know it as then.
                is_hello = true;
                next_beat = time::Instant::now();
            }
        }
    }

    /// Publishes a batch. If the bus refuses its end, that waits again.
    async fn publish_batch(
        &self,
        publisher: &mut B::Publisher,
        batch: Vec<Outbound>,
    ) -> Result<(), BusError> {
        let mut batch = batch;
        let Published {
            num_listeners,
            mut refused,
        } = publisher.publish(&batch).await?;
        let num_taken = batch.len().saturating_sub(refused.len());
        self.stats
            .num_published
            .fetch_add(num_taken as u64, Relaxed);
        // What comes behind the last that was taken can wait and stay in order. A channel that is forbidden holds up no
        // other.
        let mut keep_from = batch.len();
        let mut why = None;
        while let Some((index, err)) =
            refused.pop_if(|(index, err)| *index + 1 == keep_from && !err.is_of_channel())
        {
            keep_from = index;
            why = Some(err);
        }
        let kept = batch.split_off(keep_from);
        if let Some((_, err)) = refused.last() {
            self.warn_once(err);
        }
        let mut heard = Vec::new();
        let refused_at: Vec<_> = refused.iter().map(|(index, _)| *index).collect();
        for (place, ticket) in self.queue.settle(&refused_at, kept) {
            let at = refused_at.binary_search(&place).ok();
            if let Some((_, err)) = at.and_then(|at| refused.get(at)) {
                ticket.fail(err.to_string());
            } else {
                let num_heard = num_listeners.get(place).copied().unwrap_or(0);
                heard.push((ticket, num_heard));
            }
        }
        self.count(publisher, heard).await?;
        why.map_or(Ok(()), Err)
    }

    /// Tells who asked how many others have heard the question, which is out; `heard` says how many listeners each had.
    ///
    /// If just as many have as there are instances of Sockhop in that namespace, it is they. If not, others listen, too: servers
    /// of Node, which answer, or somebody's pattern, which does not; then Redis must say who listens to that channel by its name.
    async fn count(
        &self,
        publisher: &mut B::Publisher,
        heard: Vec<(Ticket, usize)>,
    ) -> Result<(), BusError> {
        let mut doubtful = Vec::new();
        for (ticket, num_heard) in heard {
            let census = &ticket.census;
            let num_instances = census.others_among(num_heard);
            if num_instances == census.peers.len() {
                ticket.tell(num_instances);
            } else {
                doubtful.push((ticket, num_instances));
            }
        }
        if doubtful.is_empty() {
            return Ok(());
        }
        // All at once, and each channel once: who asks much must not hold up what is published.
        let channels = doubtful.iter().map(|(ticket, _)| &ticket.census.channel);
        let channels: Vec<_> = channels
            .collect::<BTreeSet<_>>()
            .into_iter()
            .cloned()
            .collect();
        let counted = match publisher.num_subscribers(&channels).await {
            Ok(counted) => channels.into_iter().zip(counted).collect(),
            // Redis may forbid this one command; all else goes on.
            Err(err @ BusError::Refused { .. }) => {
                self.warn_once(&err);
                HashMap::new()
            }
            Err(err) => return Err(err),
        };
        for (ticket, num_instances) in doubtful {
            let census = &ticket.census;
            // Who has come since has not heard the question.
            let num_listening = counted.get(&census.channel);
            let num_listening = num_listening.map(|num| census.others_among(*num));
            let num_instances = num_listening.map_or(num_instances, |num| num.min(num_instances));
            ticket.tell(num_instances);
        }
        Ok(())
    }

    /// Says that this instance lives.
    async fn beat(&self, publisher: &mut B::Publisher, is_hello: bool) -> Result<(), BusError> {
        let namespaces = self.namespaces.names();
        let Some(payload) = self.peers.beat(namespaces, is_hello) else {
            return Ok(());
        };
        let channel = self.namespaces.shared().to_owned();
        let published = publisher.publish(&[Outbound { channel, payload }]).await?;
        match published.refused.into_iter().next() {
            None => Ok(()),
            // Redis may forbid this one channel; all else goes on.
            Some((_, err)) if err.is_of_channel() => {
                self.warn_once(&err);
                Ok(())
            }
            Some((_, err)) => Err(err),
        }
    }

    /// Waits until a bus that refused takes what is published; any other error ends the connection at once, and a role that is not to
    /// publish after a while.
    async fn hold(
        &self,
        publisher: &mut B::Publisher,
        inbox: &mut Inbox,
        outage: &mut Option<Outage>,
        num_dropped_before: u64,
        mut err: BusError,
    ) -> Result<(), BusError> {
        let mut delays = backoff::delays();
        let mut out_of_role: Option<time::Instant> = None;
        while matches!(err, BusError::Refused { .. }) {
            let is_out_of_role = matches!(err.fault(), Fault::Replica | Fault::Sentinel);
            out_of_role = is_out_of_role.then(|| out_of_role.unwrap_or_else(time::Instant::now));
            if out_of_role.is_some_and(|since| since.elapsed() > self.patience.role) {
                break;
            }
            self.report_down(outage, inbox, num_dropped_before, &err);
            time::sleep(delays.next().unwrap_or(backoff::MAX_DELAY)).await;
            let mut attempt = self.probe(publisher).await;
            if attempt.is_ok() && self.queue.has_waiting() {
                let batch = self.queue.next_batch().await;
                attempt = self.publish_batch(publisher, batch).await;
            }
            match attempt {
                Ok(()) => {
                    self.report_up(outage.take());
                    return Ok(());
                }
                Err(next) => err = next,
            }
        }
        Err(err)
    }

    /// Finds out whether publishing is possible.
    async fn probe(&self, publisher: &mut B::Publisher) -> Result<(), BusError> {
        match self.namespaces.own_channel() {
            Some(channel) => publisher.probe(&channel).await,
            None => publisher.ping().await,
        }
    }

    /// Sends what waits for other instances alone, and tells how many have heard it; or how many listen, of those who look.
    async fn send_private(
        &self,
        publisher: &mut B::Publisher,
        waiting: Waiting,
        receiver: &mut private::Receiver,
    ) -> Result<(), BusError> {
        match waiting {
            Waiting::Letter(first) => {
                let batch = Batch::gather(first, receiver);
                let published = publisher.publish(&batch.messages).await?;
                if let Some((_, err)) = published.refused.last() {
                    self.warn_once(err);
                }
                batch.settle(&published.num_listeners);
            }
            Waiting::Look(first) => {
                let looks = Looks::gather(first, receiver);
                match publisher.num_subscribers(&looks.channels()).await {
                    Ok(counted) => looks.settle(&counted),
                    // Redis may forbid this one command; all else goes on.
                    Err(BusError::Refused { .. }) => {}
                    Err(err) => return Err(err),
                }
            }
        }
        Ok(())
    }

    /// Waits until a question can be put about a namespace that has not been listened to before; returns whether we listen there.
    /// Or we would take ourselves for another, or another for us; and could not hear what is answered at once. The listener goes
    /// on meanwhile. May be dropped while it waits.
    async fn settled(&self, ask: Option<&AskOthers>) -> bool {
        let Some(ask) = ask else {
            return std::future::pending().await;
        };
        select! {
            is_heard = self.namespaces.settled(&ask.namespace) => is_heard,
            // A bus that is silent or never confirms ends the link; until then, or with a slow hub, it may be longer than anybody waits.
            () = ask.answers.closed() => false,
        }
    }

    /// Puts such a question into the queue; all others the actor has put there itself.
    fn ask(&self, ask: AskOthers, are_we_among: bool) {
        let channels = self.namespaces.channels(&ask.namespace);
        let census = Census {
            channel: channels.counted().to_owned(),
            are_we_among,
            peers: self.peers.hearing(&ask.namespace),
        };
        ticket::enqueue(&self.queue, &self.calls, &channels, ask, census);
    }

    /// Follows the table of namespaces, and takes in what others publish.
    async fn listen(&self, mut subscriber: B::Subscriber, settled: &watch::Sender<bool>) -> End {
        let mut intake = Intake::new(
            Arc::clone(&self.peers),
            self.hub.clone(),
            self.listener.clone(),
            Arc::clone(&self.queue),
            Arc::clone(&self.calls),
            Arc::clone(&self.stats),
            self.places.clone(),
        );
        let mut listening = Listening::default();
        let rooms = self.hub.rooms.as_deref();
        self.namespaces.forget_in_force();
        let mut change = listening.follow(self.namespaces.all(), &self.namespaces);
        if let Some(rooms) = rooms {
            change.merge(listening.follow_rooms(News::All(rooms.all()), &self.namespaces));
        }
        // There is always something: at least where we are spoken to alone.
        subscriber.change(change.add, change.remove);
        let mut is_changing = true;
        let mut due = time::Instant::now() + self.patience.confirm;
        loop {
            let rooms_changed = async {
                match rooms {
                    Some(rooms) => rooms.changed().await,
                    None => std::future::pending().await,
                }
            };
            // Late is only what is not there yet when all that is there has been read.
            let heard = async {
                select! {
                    biased;
                    heard = subscriber.next() => heard,
                    () = async { time::sleep_until(due).await }, if is_changing => Err(BusError::TimedOut {
                        after: self.patience.confirm,
                    }),
                }
            };
            let change = select! {
                heard = heard => match heard {
                    Ok(Heard::Settled) => {
                        is_changing = false;
                        self.namespaces.note_in_force(listening.confirm());
                        settled.send_replace(true);
                        continue;
                    }
                    Ok(Heard::Message(inbound)) => {
                        let began = time::Instant::now();
                        if let Err(gone) = take_in(&mut intake, &listening, &inbound).await {
                            return gone.into();
                        }
                        due += began.elapsed();
                        continue;
                    }
                    Err(err) => return err.into(),
                },
                // One change at a time: what clients open and close meanwhile is one change, however much it is.
                () = self.namespaces.changed(), if !is_changing => {
                    listening.follow(self.namespaces.news(), &self.namespaces)
                }
                () = rooms_changed, if !is_changing => {
                    let news = rooms.map_or(News::Some(Vec::new()), RoomTable::news);
                    listening.follow_rooms(news, &self.namespaces)
                }
            };
            self.namespaces.note_gone(&change.gone);
            is_changing = !change.is_empty();
            if is_changing {
                subscriber.change(change.add, change.remove);
                due = time::Instant::now() + self.patience.confirm;
            } else {
                self.namespaces.note_in_force(listening.confirm());
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
                ..
            }) => {
                let num_dropped = self.queue.num_dropped().saturating_sub(num_dropped_before);
                let seconds = since.elapsed().as_secs_f32();
                log::info!(
                    "Redis at {place} is back after {seconds:.1} s; {num_dropped} events were dropped"
                );
            }
        }
        self.status.send_replace(BusStatus::Up);
    }

    /// Says what is wrong and what to do, each once in an outage.
    fn report_down(
        &self,
        outage: &mut Option<Outage>,
        inbox: &mut Inbox,
        num_dropped_before: u64,
        err: &BusError,
    ) {
        let place = self.bus.place();
        let reason = err.to_string();
        self.fail_waiting(inbox, &reason);
        let outage = outage.get_or_insert_with(|| Outage {
            since: Instant::now(),
            num_dropped_before,
            told: Vec::new(),
        });
        let fault = err.fault();
        if outage.told.contains(&fault) {
            log::debug!("Redis at {place} still unusable: {reason}");
        } else {
            let advice = fault.advice();
            match outage.told.len() {
                0 => log::warn!(
                    "Redis at {place} unusable: {reason}; {advice}. Local clients are served, events for others wait \
                     {:?} or {} MiB long, retrying",
                    LIMITS.age,
                    LIMITS.bytes >> 20
                ),
                _ => log::warn!("Redis at {place} now: {reason}; {advice}"),
            }
            outage.told.push(fault);
        }
        // Watchers are woken by news only.
        let advice = fault.advice();
        let status = BusStatus::Down { reason, advice };
        self.status.send_if_modified(|current| {
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }

    /// Says once in this instance's life that Redis forbids something that all else goes on without.
    fn warn_once(&self, err: &BusError) {
        let text = err.to_string();
        let mut told = self.told.borrow_mut();
        if !told.contains(&text) && told.len() < MAX_TOLD {
            let advice = err.fault().advice();
            log::warn!(
                "Redis at {} forbids a part of our work: {text}; {advice}. All else goes on",
                self.bus.place()
            );
            told.push(text);
        }
    }

    /// Tells all who wait for others, or are about to, that nobody can be heard.
    fn fail_waiting(&self, inbox: &mut Inbox, reason: &str) {
        self.calls.fail_all(reason);
        self.queue.withdraw_questions();
        self.peers.lose_all();
        self.listener.lose_all();
        // Their receipts are dropped with them, which says it all.
        while inbox.private.try_recv().is_some() {}
        while let Some(ask) = inbox
            .unsettled
            .take()
            .or_else(|| inbox.asks.try_recv().ok())
        {
            let reason = reason.to_owned();
            // Whoever asked may have given up.
            _ = ask.answers.send(Answer::Unreachable { reason });
        }
    }
}

/// Hands a message to whom its name says.
async fn take_in(
    intake: &mut Intake,
    listening: &Listening,
    inbound: &Inbound,
) -> Result<(), HubGone> {
    if let Some(audience) = listening.audience(inbound) {
        return intake.take_said(audience, inbound).await;
    }
    let mut is_ours = false;
    for (channels, kind) in listening.places(inbound) {
        is_ours = true;
        intake.take(inbound, channels, &kind).await?;
    }
    if !is_ours {
        intake.skip_misplaced(inbound);
    }
    Ok(())
}

/// What is lost while the bus can be reached: it is slower than what is sent, or forbids a channel.
struct Losses {
    num_told: u64,
    told: Option<Instant>,
}

impl Losses {
    fn new(num_dropped: u64) -> Self {
        Self {
            num_told: num_dropped,
            told: None,
        }
    }

    fn report(&mut self, num_dropped: u64) {
        let is_due = self.told.is_none_or(|told| told.elapsed() >= LOSS_INTERVAL);
        let num_new = num_dropped.saturating_sub(self.num_told);
        if num_new > 0 && is_due {
            log::warn!(
                "{num_new} events for other instances were dropped: Redis takes fewer than are sent"
            );
            *self = Self {
                num_told: num_dropped,
                told: Some(Instant::now()),
            };
        }
    }
}
