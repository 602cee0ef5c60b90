//! What everyone else holds of the hub: sends it messages, and keeps the order of those that nobody awaits.
//!
//! A broadcast is not awaited. Whoever sends many would wait for the hub between any two, and each of them would cost every
//! receiver a write of its own. So what must not overtake a broadcast goes after it by the same way: see [`HubRef::tell`].

use std::{fmt, sync::Arc};

use actix::{Addr, Handler, MailboxError, Message, dev::Request};

use super::{
    actor::Hub,
    ahead::{Ahead, Permit, Ticket},
    broadcast::Broadcast,
    messages::{Emit, Forward, Settle},
};
use crate::socket::{inbox::InboxRef, messages::ForSocket};

struct Inner {
    addr: Addr<Hub>,
    ahead: Arc<Ahead>,
}

/// The hub of one instance. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct HubRef {
    inner: Arc<Inner>,
}

impl From<Addr<Hub>> for HubRef {
    /// Once for each hub, and cloned from then on: order holds among the clones.
    fn from(addr: Addr<Hub>) -> Self {
        let ahead = Arc::default();
        Self {
            inner: Arc::new(Inner { addr, ahead }),
        }
    }
}

impl HubRef {
    /// Returns the actor's address. What is sent by it is not counted.
    pub fn addr(&self) -> &Addr<Hub> {
        &self.inner.addr
    }

    /// Sends a message and returns its answer.
    pub fn send<M>(&self, message: M) -> Request<Hub, M>
    where
        Hub: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.inner.addr.send(message)
    }

    /// Sends a message without waiting.
    pub fn do_send<M>(&self, message: M)
    where
        Hub: Handler<M>,
        M: Message<Result: Send> + Send + 'static,
    {
        self.inner.addr.do_send(message);
    }

    /// Broadcasts on this instance and, unless it is local, on all others. Waits only while too much is on its way; when this
    /// returns, the place of the broadcast is certain: what is sent to the hub or by [`Self::tell`] from then on comes later.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn emit(&self, broadcast: Broadcast, is_local: bool) -> Result<(), MailboxError> {
        let permit = self.inner.ahead.permit(broadcast.args.len_bytes()).await;
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
        self.do_send(Emit {
            broadcast,
            is_local,
            permit,
            begun: self.inner.ahead.begin(),
        });
    }

    /// Sends a message to one socket, behind every broadcast that could have been sent before: by way of the hub, if one is on
    /// its way there.
    pub fn tell(&self, socket: &InboxRef, message: ForSocket) {
        if self.inner.ahead.is_idle() {
            socket.do_send(message);
        } else {
            self.forward(socket, message);
        }
    }

    /// Sends a message to one socket by way of the hub.
    pub fn forward(&self, socket: &InboxRef, message: ForSocket) {
        self.do_send(Forward {
            socket: socket.clone(),
            message,
            begun: self.inner.ahead.begin(),
        });
    }

    /// Returns a ticket for what the caller has sent without waiting.
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
