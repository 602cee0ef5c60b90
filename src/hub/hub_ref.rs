//! What everyone else holds of the hub: sends it messages, and keeps the order of those that nobody awaits.
//!
//! A broadcast is not awaited. Whoever sends many would wait for the hub between any two, and each of them would cost every
//! receiver a write of its own. So what must not overtake a broadcast goes after it by the same way: see [`HubRef::tell`].
//!
//! ```text
//!               something waits, or it is long
//! emit ──┬──────────────────────────────────────▶ mailbox ──▶ the hub's arbiter ──┬──▶ inboxes of the receivers' arbiters
//!        └─▶ a turn of the hub, on this thread ───────────────────────────────────┘
//! ```
//! Either way is one turn of the hub, and all turns have one order. A turn is taken here only if nothing is on its way to the hub that
//! could have been sent before; it counts as being on its way itself until it is over, so nothing sent by somebody who knows of
//! it comes before it at any receiver. What takes memory to keep, membership above all, always goes by the mailbox: that memory is
//! then of one thread, and not of whichever came first, each of which would keep what it had at its worst.

use std::{fmt, sync::Arc};

use actix::{Addr, ArbiterHandle, MailboxError, Message, dev::Request};
use tokio::task::consume_budget;

use super::{
    actor::{Hub, Turn, Turns},
    ahead::{Ahead, Kind, Permit, Ticket},
    broadcast::Broadcast,
    counted::{Counted, HubRecipient},
    messages::{Emit, Forward, Settle},
    state::State,
};
use crate::{
    socket::{inbox::InboxRef, messages::ForSocket},
    socket_io::args::Args,
};

struct Inner {
    addr: Addr<Hub>,
    turns: Turns,
    ahead: Arc<Ahead>,
}

/// The hub of one instance. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct HubRef {
    inner: Arc<Inner>,
}

impl HubRef {
    /// Starts the hub on an arbiter. Once, and cloned from then on: order holds among the clones.
    pub fn start(state: State, arbiter: &ArbiterHandle) -> Self {
        let (addr, turns) = Hub::from(state).start_on(arbiter);
        let ahead = Arc::default();
        Self {
            inner: Arc::new(Inner { addr, turns, ahead }),
        }
    }

    /// Returns what sends messages of one kind alone.
    pub fn recipient<M>(&self) -> HubRecipient<M>
    where
        State: Turn<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let recipient = self.inner.addr.clone().recipient::<Counted<M>>();
        HubRecipient::new(recipient, Arc::clone(&self.inner.ahead))
    }

    fn counted<M>(&self, message: M, kind: Kind) -> Counted<M> {
        Counted::new(message, kind, &self.inner.ahead)
    }

    /// Sends a message and returns its answer.
    pub fn send<M>(&self, message: M) -> Request<Hub, Counted<M>>
    where
        State: Turn<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let message = self.counted(message, Kind::Other);
        self.inner.addr.send::<Counted<M>>(message)
    }

    /// Sends a message without waiting.
    pub fn do_send<M>(&self, message: M)
    where
        State: Turn<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let message = self.counted(message, Kind::Other);
        self.inner.addr.do_send::<Counted<M>>(message);
    }

    /// Puts a message for sockets into the mailbox.
    fn leave<M>(&self, message: Counted<M>)
    where
        State: Turn<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        let Inner { addr, ahead, .. } = &*self.inner;
        addr.do_send::<Counted<M>>(message.leave(ahead));
    }

    /// Takes a turn of the hub on this thread, unless something waits for one or it would be long: then the message is handed back,
    /// counted.
    fn try_turn<M>(
        &self,
        message: M,
        is_short: impl FnOnce(&State, &M) -> bool,
    ) -> Result<M::Result, Counted<M>>
    where
        State: Turn<M>,
        M: Message,
    {
        let Inner { turns, ahead, .. } = &*self.inner;
        let nothing_waits = ahead.is_idle();
        // From here on it is on its way itself, whichever that will be.
        let message = self.counted(message, Kind::ForSockets);
        match nothing_waits {
            true => turns
                .try_take::<Counted<M>>(message, |hub, counted| is_short(hub, counted.message())),
            false => Err(message),
        }
    }

    /// Waits until an event with these arguments may be on its way to sockets.
    pub async fn permit(&self, args: &Args) -> Permit {
        self.inner.ahead.permit(args.len_bytes()).await
    }

    /// Broadcasts on this instance and, unless it is local, on all others. Waits only while too much is on its way; when this
    /// returns, the place of the broadcast is certain: what is sent to the hub or by [`Self::tell`] from then on comes later.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn emit(&self, broadcast: Broadcast, is_local: bool) -> Result<(), MailboxError> {
        // One that is done here at once never waits for a permit, and many in a row would keep this thread.
        consume_budget().await;
        let permit = self.permit(&broadcast.args).await;
        if !self.inner.addr.connected() {
            return Err(MailboxError::Closed);
        }
        self.emit_with(broadcast, is_local, Some(permit));
        Ok(())
    }

    /// As [`Self::emit`], and never waits: for what goes to one socket, and no more.
    pub fn emit_to_one(&self, broadcast: Broadcast, is_local: bool) {
        self.emit_with(broadcast, is_local, None);
    }

    fn emit_with(&self, broadcast: Broadcast, is_local: bool, permit: Option<Permit>) {
        let emit = Emit {
            broadcast,
            is_local,
            permit,
        };
        if let Err(emit) = self.try_turn(emit, State::is_short) {
            self.leave(emit);
        }
    }

    /// Sends a message to one socket, behind every broadcast that could have been sent before: by way of the hub, if one is on
    /// its way there.
    pub fn tell(&self, socket: &InboxRef, message: ForSocket) {
        if self.inner.ahead.is_clear() {
            socket.do_send(message);
        } else {
            self.forward(socket, message);
        }
    }

    /// Sends a message to one socket by way of the hub.
    pub fn forward(&self, socket: &InboxRef, message: ForSocket) {
        let socket = socket.clone();
        self.leave(self.counted(Forward { socket, message }, Kind::ForSockets));
    }

    /// Returns a ticket for what the caller has sent to sockets without waiting.
    pub fn ticket(&self) -> Ticket {
        self.inner.ahead.ticket()
    }

    /// Returns whether what the caller had sent when it took a ticket has left the hub.
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.inner.ahead.is_done(ticket)
    }

    /// Waits until everything that was sent before has left the hub.
    pub async fn settle(&self) {
        // A hub that is gone has nothing left.
        _ = self.send(Settle).await;
    }
}

impl fmt::Debug for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubRef")
            .field("ahead", &self.inner.ahead)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    use actix::Arbiter;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        hub::{
            broadcast::{Flags, Target},
            command::Command,
            messages::{Reinject, Unregister},
            state::MAX_SHORT_STEPS,
            testing::{broadcast, delivered, probe, register},
        },
        socket::depot::Probe as SocketProbe,
        socket_io::{ids::SocketId, parser::Parser},
    };

    fn hub(arbiter: &Arbiter) -> HubRef {
        let (server_side, _) = probe();
        let (state, _) = State::new(Parser::Json, Arc::default(), server_side);
        HubRef::start(state, &arbiter.handle())
    }

    /// Returns a hub on an arbiter of its own, and its one member.
    async fn one_socket() -> (Arbiter, HubRef, SocketProbe) {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        let socket = SocketProbe::open();
        hub.send(register("a", &socket)).await.unwrap();
        (arbiter, hub, socket)
    }

    fn to_all() -> Broadcast {
        broadcast(Target::default(), Flags::default())
    }

    /// Keeps an arbiter's thread until the sender that is returned is dropped.
    fn keep(arbiter: &Arbiter) -> mpsc::Sender<()> {
        let (free, kept) = mpsc::channel();
        arbiter.spawn_fn(move || _ = kept.recv());
        free
    }

    /// Calls a function in a turn of the hub.
    struct Call<T>(Box<dyn FnOnce() -> T + Send>);

    impl<T: 'static> Message for Call<T> {
        type Result = T;
    }

    impl<T: 'static> Turn<Call<T>> for State {
        fn turn(&mut self, Call(call): Call<T>) -> T {
            call()
        }
    }

    #[actix::test]
    async fn what_is_short_is_done_on_the_senders_thread_while_nothing_waits() {
        let (arbiter, hub, socket) = one_socket().await;
        let free = keep(&arbiter);
        hub.emit(to_all(), true).now_or_never().unwrap().unwrap();
        assert!(hub.inner.ahead.is_idle());
        delivered(socket.next().await);
        drop(free);
        arbiter.stop();
    }

    #[actix::test]
    async fn nothing_overtakes_what_waits_in_the_mailbox() {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        let (gone, there) = (SocketProbe::open(), SocketProbe::open());
        for (id, socket) in [("gone", &gone), ("there", &there)] {
            hub.send(register(id, socket)).await.unwrap();
        }
        let free = keep(&arbiter);
        hub.do_send(Unregister {
            namespace: "/events".into(),
            socket_id: SocketId::from("gone"),
        });
        hub.emit(to_all(), true).now_or_never().unwrap().unwrap();
        assert!(!hub.inner.ahead.is_idle());
        drop(free);
        delivered(there.next().await);
        hub.settle().await;
        assert!(gone.is_empty());
        arbiter.stop();
    }

    /// A bug in the making: the answer to a question can be here before the hub has an event that was sent before it.
    #[actix::test]
    async fn nothing_overtakes_what_came_from_another_instance() {
        let (arbiter, hub, socket) = one_socket().await;
        let free = keep(&arbiter);
        let theirs = Args::from_parts(r#"["theirs"]"#.into(), Vec::new());
        hub.recipient().do_send(Reinject {
            command: Command::Broadcast(Broadcast {
                args: theirs,
                ..to_all()
            }),
            from: None,
        });
        hub.emit_to_one(to_all(), true);
        drop(free);
        let (first, _) = delivered(socket.next().await);
        assert!(String::from_utf8_lossy(first.frames()).contains("theirs"));
        arbiter.stop();
    }

    #[actix::test]
    async fn who_sends_many_in_a_row_lets_others_have_their_turn() {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        hub.settle().await;
        let sender = actix_rt::spawn(async move {
            let other = actix_rt::spawn(async {});
            for _ in 0..10_000 {
                // To nobody, so that no permit is ever missing.
                hub.emit(to_all(), true).await.unwrap();
                if other.is_finished() {
                    return true;
                }
            }
            false
        });
        assert!(sender.await.unwrap());
        arbiter.stop();
    }

    #[actix::test]
    async fn a_long_broadcast_is_the_hubs_own_work() {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        let socket = SocketProbe::open();
        for n in 0..=MAX_SHORT_STEPS {
            hub.do_send(register(&n.to_string(), &socket));
        }
        hub.settle().await;
        let free = keep(&arbiter);
        hub.emit_to_one(to_all(), true);
        assert!(!hub.inner.ahead.is_idle());
        drop(free);
        for _ in 0..=MAX_SHORT_STEPS {
            delivered(socket.next().await);
        }
        arbiter.stop();
    }

    #[actix::test]
    async fn nobody_waits_for_a_turn_of_another() {
        let (arbiter, hub, socket) = one_socket().await;
        let (begins, begun) = tokio::sync::oneshot::channel();
        let (free, kept) = mpsc::channel::<()>();
        // Not counted, so that only the turn itself is in the way.
        hub.inner.addr.do_send(Call(Box::new(move || {
            _ = begins.send(());
            _ = kept.recv();
        })));
        begun.await.unwrap();
        hub.emit_to_one(to_all(), true);
        assert!(socket.is_empty() && !hub.inner.ahead.is_idle());
        drop(free);
        delivered(socket.next().await);
        arbiter.stop();
    }

    #[actix::test]
    async fn a_turn_that_is_taken_here_is_on_its_way_until_it_is_over() {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        hub.settle().await;
        let ahead = Arc::clone(&hub.inner.ahead);
        let here = thread::current().id();
        let look = Call(Box::new(move || (thread::current().id(), ahead.is_idle())));
        let seen = hub.try_turn(look, |_, _| true);
        assert_eq!(seen.ok(), Some((here, false)));
        assert!(hub.inner.ahead.is_idle());
        arbiter.stop();
    }

    #[actix::test]
    async fn a_hub_that_is_gone_is_told_as_such() {
        let arbiter = Arbiter::new();
        let hub = hub(&arbiter);
        hub.settle().await;
        arbiter.stop();
        arbiter.join().unwrap();
        assert_eq!(hub.emit(to_all(), true).await, Err(MailboxError::Closed));
        let look = Call(Box::new(|| ()));
        assert!(hub.try_turn(look, |_, _| true).is_err());
    }

    /// All threads at once, so that turns are taken here and there and messages wait in between.
    #[actix::test]
    async fn all_receivers_get_what_many_threads_send_in_one_order() {
        const NUM_THREADS: usize = 4;
        const NUM_EACH: usize = 2_000;

        let hub_arbiter = Arbiter::new();
        let hub = hub(&hub_arbiter);
        let start = Arc::new(Barrier::new(NUM_THREADS));
        let (arbiters, seen): (Vec<_>, Vec<_>) = (0..2)
            .map(|n| {
                let arbiter = Arbiter::new();
                let (told, seen) = tokio::sync::oneshot::channel();
                let hub = hub.clone();
                let (registered, is_registered) = mpsc::channel();
                let receive = async move || {
                    let socket = SocketProbe::open();
                    hub.send(register(&n.to_string(), &socket)).await.unwrap();
                    registered.send(()).unwrap();
                    let mut all = Vec::new();
                    while all.len() < NUM_THREADS * NUM_EACH {
                        let (message, _) = delivered(socket.next().await);
                        all.push(message.frames().clone());
                    }
                    _ = told.send(all);
                };
                arbiter.spawn_fn(move || _ = actix_rt::spawn(receive()));
                is_registered.recv().unwrap();
                (arbiter, seen)
            })
            .unzip();
        let senders: Vec<_> = (0..NUM_THREADS)
            .map(|sender| {
                let (hub, start) = (hub.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    for n in 0..NUM_EACH {
                        let json = format!(r#"["x",{sender},{n:05}]"#);
                        let args = Args::from_parts(json.into(), Vec::new());
                        hub.emit_to_one(Broadcast { args, ..to_all() }, true);
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        let [first, second] = futures_util::future::join_all(seen)
            .await
            .try_into()
            .unwrap();
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first == second, "one order for all");
        for sender in 0..NUM_THREADS {
            let of_it = format!(r#"["x",{sender},"#);
            let is_of_it =
                |frames: &&bytes::Bytes| String::from_utf8_lossy(frames).contains(&of_it);
            assert!(first.iter().filter(is_of_it).is_sorted(), "sender {sender}");
        }
        for arbiter in arbiters.into_iter().chain([hub_arbiter]) {
            arbiter.stop();
        }
    }
}
