//! The life of the connections to the bus: connect, resubscribe, publish and listen, until something breaks; again.
//!
//! ```text
//! connect ──▶ PSUBSCRIBE all ──▶ on_connected ──▶ ┬─ publish: what waited first, then what comes; PING when idle
//!    ▲                                            └─ listen:  judge, reinject; PING when idle
//!    └──────────── wait (backoff) ◀──── either ends ◀─┘
//! ```
//! Subscribed before anything is published: who publishes first could miss the answer of others.
//!
//! Nothing here ends the bridge but the end of the hub. Messages that cannot be read are skipped and counted.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use actix::Recipient;
use tokio::{select, sync::watch, time};

use super::{
    actor::OnConnected,
    backoff,
    bus::{Bus, BusError, Inbound, Publisher, Subscriber},
    queue::Queue,
    status::{BridgeStats, BusStatus},
};
use crate::{
    adapter::{DecodeError, channel::BroadcastChannels, message::Envelope, uid::Uid},
    hub::{broadcast::Broadcast, messages::Reinject},
};

/// Silence on a connection after which the other side is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a link must have lived for the next one to begin with the shortest delay again. Without it, a Redis that
/// accepts and at once closes would be called ten times a second.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Messages handed to the hub without waiting for it to have taken them.
const MAX_UNCONFIRMED: usize = 64;
/// Bytes of them.
const MAX_UNCONFIRMED_BYTES: usize = 256 << 10;

/// What the connections need to know.
pub(super) struct Link<B: Bus> {
    pub(super) bus: B,
    pub(super) uid: Uid,
    pub(super) channels: Arc<[BroadcastChannels]>,
    pub(super) queue: Arc<Queue>,
    pub(super) stats: Arc<BridgeStats>,
    pub(super) status: watch::Sender<BusStatus>,
    pub(super) hub: Recipient<Reinject>,
    pub(super) on_connected: OnConnected,
}

/// Why a link ended.
enum End {
    Bus(BusError),
    /// There is nobody left to listen for.
    HubGone,
}

/// Why a message is not for the hub.
enum Unfit {
    OwnEcho,
    /// For a namespace other than the one whose pattern heard it.
    Foreign,
    /// On a channel that is none of ours.
    Channel,
    Malformed(DecodeError),
}

/// A time without connection.
struct Outage {
    since: Instant,
    num_dropped_before: u64,
}

impl<B: Bus> Link<B> {
    /// Keeps the connections up for as long as there is a hub.
    pub(super) async fn run(self) {
        let mut delays = backoff::delays();
        let mut outage = None;
        let mut num_dropped_before = 0;
        loop {
            let err = match self.establish().await {
                Ok((publisher, subscriber)) => {
                    let since = Instant::now();
                    self.report_up(outage.take());
                    (self.on_connected)();
                    let end = select! {
                        end = self.listen(subscriber) => end,
                        err = self.publish(publisher) => End::Bus(err),
                    };
                    // What is under way is lost to the outage that begins here.
                    num_dropped_before = self.queue.num_dropped();
                    self.queue.abandon();
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

    /// Connects and subscribes.
    async fn establish(&self) -> Result<(B::Publisher, B::Subscriber), BusError> {
        let (publisher, mut subscriber) = self.bus.connect().await?;
        let patterns: Vec<&str> = self
            .channels
            .iter()
            .map(BroadcastChannels::pattern)
            .collect();
        if !patterns.is_empty() {
            subscriber.psubscribe(&patterns).await?;
        }
        Ok((publisher, subscriber))
    }

    /// Publishes what waits, batch after batch; one is answered before the next goes out.
    async fn publish(&self, mut publisher: B::Publisher) -> BusError {
        let mut has_warned = false;
        loop {
            let batch = select! {
                batch = self.queue.next_batch() => batch,
                () = time::sleep(PING_INTERVAL) => match publisher.ping().await {
                    Ok(()) => continue,
                    Err(err) => return err,
                },
            };
            let num_messages = batch.len();
            match publisher.publish(batch).await {
                Ok(published) => {
                    let num_taken = num_messages.saturating_sub(published.num_refused);
                    self.stats
                        .num_published
                        .fetch_add(num_taken as u64, Relaxed);
                    self.queue.settle(published.num_refused);
                    if let Some(reason) = published.reason {
                        let level = if has_warned {
                            log::Level::Debug
                        } else {
                            log::Level::Warn
                        };
                        has_warned = true;
                        log::log!(level, "Redis refuses events: {reason}");
                    }
                }
                Err(err) => return err,
            }
        }
    }

    /// Hands what others publish to the hub, no faster than the hub takes it.
    async fn listen(&self, mut subscriber: B::Subscriber) -> End {
        let (mut num_unconfirmed, mut unconfirmed_bytes) = (0, 0);
        loop {
            let inbound = match subscriber.next().await {
                Ok(inbound) => inbound,
                Err(err) => return End::Bus(err),
            };
            let broadcast = match self.judge(&inbound) {
                Ok(broadcast) => broadcast,
                Err(unfit) => {
                    self.count(&inbound, &unfit);
                    continue;
                }
            };
            self.stats.num_reinjected.fetch_add(1, Relaxed);
            num_unconfirmed += 1;
            unconfirmed_bytes += inbound.payload.len();
            // Waiting for every message would cost a turn of both threads each. The mailbox keeps the order, so an
            // answer to this one says that the hub has taken all before it; until then nothing more is read.
            if num_unconfirmed >= MAX_UNCONFIRMED || unconfirmed_bytes >= MAX_UNCONFIRMED_BYTES {
                if self.hub.send(Reinject(broadcast)).await.is_err() {
                    return End::HubGone;
                }
                (num_unconfirmed, unconfirmed_bytes) = (0, 0);
            } else if self.hub.connected() {
                self.hub.do_send(Reinject(broadcast));
            } else {
                return End::HubGone;
            }
        }
    }

    /// Returns what the hub should deliver, if anything.
    fn judge(&self, inbound: &Inbound) -> Result<Broadcast, Unfit> {
        let pattern = inbound.pattern.as_deref();
        let channels = self.channels.iter().find(|c| Some(c.pattern()) == pattern);
        let channels = channels.ok_or(Unfit::Channel)?;
        channels.addressed(&inbound.channel).ok_or(Unfit::Channel)?;
        let envelope = Envelope::open(&inbound.payload).map_err(Unfit::Malformed)?;
        if envelope.is_from(&self.uid) {
            return Err(Unfit::OwnEcho);
        }
        let broadcast = envelope.decode().map_err(Unfit::Malformed)?;
        if broadcast.namespace != *channels.namespace() {
            return Err(Unfit::Foreign);
        }
        Ok(broadcast)
    }

    fn count(&self, inbound: &Inbound, unfit: &Unfit) {
        let why = match unfit {
            Unfit::OwnEcho => {
                self.stats.num_own_echoes.fetch_add(1, Relaxed);
                return;
            }
            Unfit::Foreign => {
                self.stats.num_foreign.fetch_add(1, Relaxed);
                return;
            }
            Unfit::Channel => "channel is none of ours".to_owned(),
            Unfit::Malformed(err) => err.to_string(),
        };
        // The first one tells that somebody speaks another language here; more of them would drown the log.
        let is_first = self.stats.num_malformed.fetch_add(1, Relaxed) == 0;
        let level = if is_first {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        log::log!(
            level,
            "Skipped a message of {} bytes on {:?}: {why}",
            inbound.payload.len(),
            String::from_utf8_lossy(&inbound.channel),
        );
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
    fn report_down(&self, outage: &mut Option<Outage>, num_dropped_before: u64, err: &BusError) {
        let place = self.bus.place();
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
}
