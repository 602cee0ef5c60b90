//! The actor: turns commands into messages, queues them, and ends in order.
//!
//! Never waits and touches no connection itself: that is `link`'s, which runs as a future of this actor, on its
//! arbiter. Reinjecting does not pass through the mailbox, so that a flood of outgoing broadcasts delays it little.

use std::{cell::RefCell, sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture,
    SpawnHandle, WrapFuture,
};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    any_bus::AnyBus,
    bus::{Bus, BusError, Outbound},
    calls::Calls,
    closing::Closing,
    incoming::{HubDoor, Places},
    link::{Inbox, Link, Patience},
    messages::{AskOthers, ForBridge, Stop},
    namespaces::Namespaces,
    outgoing::{LIMITS, Outgoing},
    private::{self, Listener},
    queue::Queue,
    status::{BridgeStats, BusStatus},
    ticket::{self, Census},
};
use crate::{
    adapter::request::Request,
    config::RedisConfig,
    hub::{command::Command, question::Answer},
    peers::Peers,
    socket::dynamic::DynamicNamespaces,
    socket_io::ids::Namespace,
};

/// How long [`Stop`] waits for what is still to be published.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Questions that may wait for the connection that puts them.
const MAX_WAITING_QUESTIONS: usize = 1024;

/// How long a namespace without sockets is listened to for the answers to a question, whatever its time-out.
const MAX_HEARING: Duration = Duration::from_secs(10 * 60);

/// How long a namespace is listened to after its last socket has left, lest one that comes and goes cost Redis four commands
/// each time.
const CLOSE_DELAY: Duration = Duration::from_secs(5);

/// In so many namespaces without sockets here an application may have questions at a time, however few its clients may name.
pub(super) const MIN_MAX_IDLE: usize = 1024;

/// Called on each connection, the first included. Must not block.
pub(super) type OnConnected = Arc<dyn Fn() + Send + Sync>;

/// The bridge between this instance's hub and all others. One per instance, on an arbiter of its own.
pub struct RedisBridge<B: Bus = AnyBus> {
    peers: Arc<Peers>,
    namespaces: Arc<Namespaces>,
    /// Those that clients have named.
    dynamic: Arc<DynamicNamespaces>,
    /// What keeps namespaces open that are not of the start.
    closing: Closing,
    /// When it is looked next whether one of those is due.
    looking: Option<(Instant, SpawnHandle)>,
    queue: Arc<Queue>,
    calls: Arc<Calls>,
    asks: mpsc::Sender<AskOthers>,
    private: private::Sender,
    stats: Arc<BridgeStats>,
    status: watch::Receiver<BusStatus>,
    /// Until the actor starts.
    link: Option<Link<B>>,
}

impl RedisBridge<AnyBus> {
    /// Returns a bridge for `namespaces`, and for as many of those of `dynamic` as there may be, over the Redis of `config`, called as
    /// `peers` says there. Nothing is connected before
    /// the actor starts, and a Redis that is away is no error. `on_connected` is called on the bridge's arbiter
    /// whenever the connections stand and every subscription is in force; it must not block. `listener` takes what other
    /// instances of Sockhop say.
    ///
    /// # Errors
    /// [`BusError::Address`]: the address has no meaning to us.
    pub fn new(
        config: &RedisConfig,
        peers: Arc<Peers>,
        namespaces: Vec<Namespace>,
        dynamic: Arc<DynamicNamespaces>,
        hub: HubDoor,
        listener: Listener,
        on_connected: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, BusError> {
        let bus = AnyBus::new(config)?;
        let namespaces = Namespaces::new(config.adapter, &config.prefix, &peers, namespaces);
        Ok(Self::over(
            bus,
            peers,
            namespaces,
            dynamic,
            hub,
            listener,
            on_connected,
        ))
    }
}

impl<B: Bus> RedisBridge<B> {
    /// Returns a bridge over any bus.
    pub(super) fn over(
        bus: B,
        peers: Arc<Peers>,
        namespaces: Namespaces,
        dynamic: Arc<DynamicNamespaces>,
        hub: HubDoor,
        listener: Listener,
        on_connected: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let namespaces = Arc::new(namespaces);
        let stats = Arc::new(BridgeStats::default());
        let queue = Arc::new(Queue::new(Outgoing::new(LIMITS), stats.clone()));
        let (status_sender, status) = watch::channel(BusStatus::Connecting);
        let (asks, asked) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let (private, private_waiting) = private::channel();
        let calls = Arc::new(Calls::new(peers.uid().clone()));
        let link = Link {
            bus,
            peers: Arc::clone(&peers),
            namespaces: Arc::clone(&namespaces),
            queue: Arc::clone(&queue),
            calls: Arc::clone(&calls),
            inbox: Some(Inbox {
                asks: asked,
                unsettled: None,
                private: private_waiting,
            }),
            listener,
            stats: Arc::clone(&stats),
            status: status_sender,
            hub,
            on_connected,
            places: Places::default(),
            patience: Patience::default(),
            told: RefCell::default(),
        };
        Self {
            peers,
            namespaces,
            dynamic,
            closing: Closing::default(),
            looking: None,
            queue,
            calls,
            asks,
            private,
            stats,
            status,
            link: Some(link),
        }
    }

    /// Makes it wait for less than it does where it is in use.
    #[cfg(test)]
    pub(super) fn with_patience(mut self, patience: Patience) -> Self {
        if let Some(link) = &mut self.link {
            link.patience = patience;
        }
        self
    }

    /// Returns whether other instances can be reached, now and from now on.
    pub fn status(&self) -> watch::Receiver<BusStatus> {
        self.status.clone()
    }

    /// Returns the counts, now and from now on.
    pub fn stats(&self) -> Arc<BridgeStats> {
        self.stats.clone()
    }

    fn is_down(&self) -> bool {
        matches!(*self.status.borrow(), BusStatus::Down { .. })
    }

    fn publish(&self, command: &Command) {
        let namespace = command.namespace();
        let channels = self.namespaces.channels(namespace);
        let outbound = match command {
            Command::Broadcast(broadcast) => channels.broadcast(broadcast),
            Command::Join { target, rooms, .. } => channels.request(&Request::Join {
                target: target.clone(),
                rooms: rooms.clone(),
            }),
            Command::Leave { target, rooms, .. } => channels.request(&Request::Leave {
                target: target.clone(),
                rooms: rooms.clone(),
            }),
            Command::Disconnect {
                target,
                whole_connection,
                ..
            } => channels.request(&Request::Disconnect {
                target: target.clone(),
                close: *whole_connection,
            }),
            Command::ServerEvent { args, .. } => channels.request(&Request::ServerSideEmit {
                id: None,
                args: args.clone(),
            }),
        };
        match outbound {
            Ok(outbound) => self.queue.push(outbound),
            Err(err) => {
                self.queue.count_dropped();
                log::warn!("An event of {namespace} cannot be published: {err}");
            }
        }
    }

    /// Returns how many namespaces without sockets here may be listened to. Those with sockets are bounded where clients come in; what
    /// each costs Redis is the same.
    fn max_idle(&self) -> usize {
        self.dynamic.limit().max(MIN_MAX_IDLE)
    }

    /// Listens to a namespace for a while, whether it has sockets here or not: where a question is put, as long as answers may come.
    /// Returns whether it does; not if that would be one too many without.
    fn hear_for(&mut self, namespace: &Namespace, time: Duration, ctx: &mut Context<Self>) -> bool {
        if self.namespaces.is_fixed(namespace) {
            return true;
        }
        if !self.namespaces.is_open(namespace) && self.closing.num_idle() >= self.max_idle() {
            return false;
        }
        self.namespaces.open(namespace.clone());
        let until = Instant::now() + time.min(MAX_HEARING) + CLOSE_DELAY;
        self.closing.keep(namespace.clone(), until);
        self.look_when_due(ctx);
        true
    }

    /// Listens where the sockets of a session will be that moves here.
    fn hear(
        &mut self,
        namespaces: Vec<Namespace>,
        reply: oneshot::Sender<()>,
        ctx: &mut Context<Self>,
    ) {
        for namespace in &namespaces {
            // They are in use until the session is here or does not come, and kept for that long.
            if !self.hear_for(namespace, Duration::ZERO, ctx) {
                return log::debug!("too many namespaces are listened to: a session stays away");
            }
        }
        let table = Arc::clone(&self.namespaces);
        ctx.spawn(tell_when_heard(table, namespaces, reply).into_actor(self));
    }

    /// The last socket has left a namespace. Whoever makes clients come and go in ever new ones must neither make every message dearer by
    /// what they leave behind, nor take the room of questions and of sessions that move.
    fn leave(&mut self, namespace: Namespace, ctx: &mut Context<Self>) {
        // Somebody is about to be in it again, perhaps with a session that moves here and must miss nothing.
        let is_in_use = self.dynamic.is_in_use(&namespace);
        let num_idle = self.closing.num_idle();
        let delay = if is_in_use || num_idle < self.dynamic.limit() / 2 {
            CLOSE_DELAY
        } else {
            Duration::ZERO
        };
        self.closing
            .leave(namespace.clone(), Instant::now() + delay);
        if !is_in_use && num_idle >= self.max_idle() {
            // Even if answers are yet to come there: they are missed, and whoever asked is told so.
            self.closing.forget(&namespace);
            self.namespaces.close(&namespace);
        }
        self.close_due();
        self.look_when_due(ctx);
    }

    /// Closes what is due and not in use.
    fn close_due(&mut self) {
        let now = Instant::now();
        while let Some(namespace) = self.closing.take_due(now) {
            if self.dynamic.is_in_use(&namespace) {
                self.closing.keep(namespace, now + CLOSE_DELAY);
            } else {
                self.namespaces.close(&namespace);
            }
        }
    }

    /// Sets the timer to when the next namespace is to be closed, unless it rings before that.
    fn look_when_due(&mut self, ctx: &mut Context<Self>) {
        let Some(next) = self.closing.next() else {
            return;
        };
        match self.looking {
            Some((at, _)) if at <= next => return,
            Some((_, late)) => _ = ctx.cancel_future(late),
            None => {}
        }
        let wait = next.saturating_duration_since(Instant::now());
        let looking = ctx.run_later(wait, |this, ctx| {
            this.looking = None;
            this.close_due();
            this.look_when_due(ctx);
        });
        self.looking = Some((next, looking));
    }

    /// Without a connection a question waits for it only while the first one is being made.
    fn ask(&self, ask: Box<AskOthers>) {
        if matches!(*self.status.borrow(), BusStatus::Up)
            && self.namespaces.is_in_force(&ask.namespace)
        {
            // At once, and so in its place among what is published: an event that is to be acknowledged keeps its order among others, and
            // the markers of sessions that move divide it like any other.
            let channels = self.namespaces.channels(&ask.namespace);
            let census = Census {
                channel: channels.counted().to_owned(),
                are_we_among: true,
                peers: self.peers.hearing(&ask.namespace),
            };
            return ticket::enqueue(&self.queue, &self.calls, &channels, *ask, census);
        }
        let (ask, reason) = match &*self.status.borrow() {
            BusStatus::Down { reason, .. } => (*ask, reason.clone()),
            BusStatus::Connecting | BusStatus::Up => match self.asks.try_send(*ask) {
                Ok(()) => return,
                Err(err) => (err.into_inner(), "too many questions wait".to_owned()),
            },
        };
        // Whoever asked may have given up.
        _ = ask.answers.send(Answer::Unreachable { reason });
    }
}

/// Tells who waits for it that all of these namespaces are listened to; ends without a word when nobody waits any more.
async fn tell_when_heard(
    table: Arc<Namespaces>,
    namespaces: Vec<Namespace>,
    mut reply: oneshot::Sender<()>,
) {
    let heard = async {
        for namespace in &namespaces {
            if !table.settled(namespace).await {
                return false;
            }
        }
        true
    };
    let are_heard = select! {
        are_heard = heard => are_heard,
        () = reply.closed() => false,
    };
    if are_heard {
        // Whoever waits may have given up.
        _ = reply.send(());
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

impl<B: Bus> Handler<ForBridge> for RedisBridge<B> {
    type Result = ();

    fn handle(&mut self, message: ForBridge, ctx: &mut Self::Context) {
        match message {
            ForBridge::Publish(command, load) => {
                self.publish(&command);
                drop(load);
            }
            ForBridge::Ask(ask) => {
                if self.hear_for(&ask.namespace, ask.timeout, ctx) {
                    self.ask(ask);
                } else {
                    let reason = "too many namespaces without sockets here are listened to";
                    let reason = reason.to_owned();
                    // Whoever asked may have given up.
                    _ = ask.answers.send(Answer::Unreachable { reason });
                }
            }
            ForBridge::Send {
                to,
                payload,
                weight,
                receipt,
            } if !self.is_down() => {
                let channel = self.namespaces.private_of(to);
                let message = Outbound { channel, payload };
                self.private.send(message, weight, receipt);
            }
            ForBridge::Tell { payload } => {
                let channel = self.namespaces.shared().to_owned();
                self.queue.push(Outbound { channel, payload });
            }
            ForBridge::Behind { to, payload, loss } => {
                let channel = self.namespaces.private_of(to);
                let message = Outbound { channel, payload };
                match loss {
                    Some(loss) => self.queue.push_or(message, loss),
                    None => self.queue.push(message),
                }
            }
            ForBridge::Hear { namespaces, reply } => self.hear(namespaces, reply, ctx),
            ForBridge::Look { instance, reply } if !self.is_down() => {
                self.private
                    .look(self.namespaces.private_of(instance), reply);
            }
            // Dropping the receipt, or the reply, says that nobody knows.
            ForBridge::Send { .. } | ForBridge::Look { .. } => {}
            ForBridge::Open(namespace) | ForBridge::Close(namespace)
                if self.namespaces.is_fixed(&namespace) => {}
            ForBridge::Open(namespace) => {
                self.namespaces.open(namespace.clone());
                self.closing.enter(namespace);
            }
            ForBridge::Close(namespace) => self.leave(namespace, ctx),
        }
    }
}

impl<B: Bus> Handler<Stop> for RedisBridge<B> {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Stop: Stop, _ctx: &mut Self::Context) -> Self::Result {
        // Behind all that it has to say.
        self.queue.push(Outbound {
            channel: self.namespaces.shared().to_owned(),
            payload: self.peers.bye(),
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::{kind::AdapterKind, uid::Uid},
        engine_io::sid::InstanceId,
    };

    /// A bug: whoever gave up was waited for, half a minute long and by as many as clients wanted.
    #[tokio::test]
    async fn who_gave_up_is_not_waited_for() {
        let uid = Uid::parse("abcdef").unwrap();
        let peers = Peers::new(InstanceId::parse("Ab3dE6gH").unwrap(), uid);
        let names = vec![Namespace::from("/a")];
        let table = Arc::new(Namespaces::new(
            AdapterKind::Classic,
            "p",
            &peers,
            names.clone(),
        ));
        let (reply, heard) = oneshot::channel();
        // Nothing will be listened to.
        let telling = tell_when_heard(table, names, reply);
        drop(heard);
        let patience = Duration::from_secs(30);
        let ended = tokio::time::timeout(patience, telling).await;
        assert!(ended.is_ok(), "it still waits");
    }
}
