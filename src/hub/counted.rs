//! A message that is counted on its way to the hub, and who sends such messages alone.
//!
//! Every message to the hub is one, whoever sends it: what is not counted could be overtaken, see [`super::hub_ref`].

use std::sync::Arc;

use actix::{MailboxError, Message, Recipient};

use super::{
    actor::Turn,
    ahead::{Ahead, Kind, Left, OnItsWay},
    state::State,
};

/// A message that is counted until the hub is done with it.
#[derive(Debug)]
pub struct Counted<M> {
    message: M,
    on_its_way: OnItsWay,
    /// Of one for sockets that waits in the mailbox.
    left: Option<Left>,
}

impl<M> Counted<M> {
    /// Counts a message from now on.
    pub(super) fn new(message: M, kind: Kind, ahead: &Arc<Ahead>) -> Self {
        Self {
            message,
            on_its_way: ahead.set_out(kind),
            left: None,
        }
    }

    /// Counts it as left in the mailbox, too. Just before it is put there.
    pub(super) fn leave(mut self, ahead: &Arc<Ahead>) -> Self {
        self.left = Some(ahead.leave());
        self
    }

    pub(super) fn message(&self) -> &M {
        &self.message
    }

    /// Returns the message, counted no more.
    #[cfg(test)]
    pub(crate) fn into_message(self) -> M {
        self.message
    }
}

impl<M: Message> Message for Counted<M> {
    type Result = M::Result;
}

impl<M: Message> Turn<Counted<M>> for State
where
    Self: Turn<M>,
{
    fn turn(&mut self, counted: Counted<M>) -> M::Result {
        let Counted {
            message,
            on_its_way,
            left,
        } = counted;
        let result = self.turn(message);
        drop((on_its_way, left));
        result
    }
}

/// Sends one kind of messages to the hub, from any thread.
#[derive(Debug)]
pub struct HubRecipient<M>
where
    M: Message<Result: Send> + Send + 'static,
{
    recipient: Recipient<Counted<M>>,
    ahead: Arc<Ahead>,
}

impl<M> Clone for HubRecipient<M>
where
    M: Message<Result: Send> + Send + 'static,
{
    fn clone(&self) -> Self {
        Self {
            recipient: self.recipient.clone(),
            ahead: Arc::clone(&self.ahead),
        }
    }
}

impl<M> HubRecipient<M>
where
    M: Message<Result: Send> + Send + 'static,
{
    /// Returns one that counts in `ahead` what it sends.
    pub(crate) fn new(recipient: Recipient<Counted<M>>, ahead: Arc<Ahead>) -> Self {
        Self { recipient, ahead }
    }

    /// Sends a message and waits until it is done.
    ///
    /// # Errors
    /// The instance is stopping.
    pub async fn send(&self, message: M) -> Result<M::Result, MailboxError> {
        let message = Counted::new(message, Kind::Other, &self.ahead);
        self.recipient.send(message).await
    }

    /// Sends a message without waiting.
    pub fn do_send(&self, message: M) {
        self.recipient
            .do_send(Counted::new(message, Kind::Other, &self.ahead));
    }

    /// Returns whether there is still somebody to send to.
    pub fn connected(&self) -> bool {
        self.recipient.connected()
    }
}
