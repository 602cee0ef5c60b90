//! The actor: turns broadcasts into messages, queues them, and ends in order.
//!
//! Never waits and touches no connection itself: that is `link`'s, which runs as a future of this actor, on its
//! arbiter. Reinjecting does not pass through the mailbox, so that a flood of outgoing broadcasts delays it little.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient,
    ResponseActFuture, WrapFuture,
};
use tokio::sync::watch;

use super::{
    bus::{Bus, BusError, Outbound},
    link::Link,
    messages::{Publish, Stop},
    outgoing::{LIMITS, Outgoing},
    queue::Queue,
    redis_bus::RedisBus,
    status::{BridgeStats, BusStatus},
};
use crate::{
    adapter::{channel::BroadcastChannels, message, uid::Uid},
    config::RedisConfig,
    hub::messages::Reinject,
    socket_io::ids::Namespace,
};

/// How long [`Stop`] waits for what is still to be published.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Called on each connection, the first included. Must not block.
pub(super) type OnConnected = Arc<dyn Fn() + Send + Sync>;

/// The bridge between this instance's hub and all others. One per instance, on an arbiter of its own.
pub struct RedisBridge<B: Bus = RedisBus> {
    uid: Uid,
    channels: Arc<[BroadcastChannels]>,
    queue: Arc<Queue>,
    stats: Arc<BridgeStats>,
    status: watch::Receiver<BusStatus>,
    /// Until the actor starts.
    link: Option<Link<B>>,
}

impl RedisBridge<RedisBus> {
    /// Returns a bridge for `namespaces` over the Redis of `config`, named `uid` there. Nothing is connected before
    /// the actor starts, and a Redis that is away is no error. `on_connected` is called on the bridge's arbiter
    /// whenever the connections stand and every subscription is in force; it must not block.
    ///
    /// # Errors
    /// [`BusError::Address`]: the address has no meaning to us.
    pub fn new(
        config: &RedisConfig,
        uid: Uid,
        namespaces: Vec<Namespace>,
        hub: Recipient<Reinject>,
        on_connected: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, BusError> {
        let bus = RedisBus::new(&config.url)?;
        Ok(Self::over(
            bus,
            &config.prefix,
            uid,
            namespaces,
            hub,
            on_connected,
        ))
    }
}

impl<B: Bus> RedisBridge<B> {
    /// Returns a bridge over any bus; `prefix` begins every channel's name.
    pub fn over(
        bus: B,
        prefix: &str,
        uid: Uid,
        namespaces: Vec<Namespace>,
        hub: Recipient<Reinject>,
        on_connected: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let channels: Arc<[BroadcastChannels]> = namespaces
            .into_iter()
            .map(|namespace| BroadcastChannels::new(prefix, namespace))
            .collect();
        let stats = Arc::new(BridgeStats::default());
        let queue = Arc::new(Queue::new(Outgoing::new(LIMITS), stats.clone()));
        let (status_sender, status) = watch::channel(BusStatus::Connecting);
        let link = Link {
            bus,
            uid: uid.clone(),
            channels: channels.clone(),
            queue: queue.clone(),
            stats: stats.clone(),
            status: status_sender,
            hub,
            on_connected,
        };
        Self {
            uid,
            channels,
            queue,
            stats,
            status,
            link: Some(link),
        }
    }

    /// Returns whether other instances can be reached, now and from now on.
    pub fn status(&self) -> watch::Receiver<BusStatus> {
        self.status.clone()
    }

    /// Returns the counts, now and from now on.
    pub fn stats(&self) -> Arc<BridgeStats> {
        self.stats.clone()
    }
}

impl<B: Bus> Actor for RedisBridge<B> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(link) = self.link.take() {
            // Dropped, and its connections with it, when the actor stops. It ends by itself only without a hub.
            ctx.spawn(link.run().into_actor(self).map(|(), _, ctx| ctx.stop()));
        }
    }
}

impl<B: Bus> Handler<Publish> for RedisBridge<B> {
    type Result = ();

    fn handle(&mut self, Publish(broadcast): Publish, _ctx: &mut Self::Context) {
        if broadcast.flags.local {
            return;
        }
        let Some(channels) = self
            .channels
            .iter()
            .find(|c| *c.namespace() == broadcast.namespace)
        else {
            log::debug!(
                "Nobody else hears of namespace {}: not published",
                broadcast.namespace
            );
            return;
        };
        match message::encode(&self.uid, &broadcast) {
            Ok(payload) => {
                let channel = channels.publish_to(&broadcast.target).into_owned();
                self.queue.push(Outbound { channel, payload });
            }
            Err(err) => {
                self.queue.count_dropped();
                log::warn!(
                    "An event of {} cannot be published: {err}",
                    broadcast.namespace
                );
            }
        }
    }
}

impl<B: Bus> Handler<Stop> for RedisBridge<B> {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Stop: Stop, _ctx: &mut Self::Context) -> Self::Result {
        self.queue.close();
        let queue = self.queue.clone();
        // Without a connection, waiting would only make the end late.
        let is_down = matches!(*self.status.borrow(), BusStatus::Down { .. });
        let flush = async move {
            if !is_down
                && tokio::time::timeout(FLUSH_TIMEOUT, queue.drained())
                    .await
                    .is_err()
            {
                log::warn!("Redis did not take the last events within {FLUSH_TIMEOUT:?}");
            }
        };
        Box::pin(flush.into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}
