//! The bridge's door: every message that it takes, who sends it, and what comes back.

use std::{sync::Arc, time::Duration};

use actix::Message;

use crate::{
    hub::{
        command::Command,
        question::{Answers, Question},
    },
    socket_io::ids::Namespace,
};

/// What the Hub tells the bridge, by `do_send`; nothing comes back. One message for all of it, which keeps the order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub enum ForBridge {
    /// Publishes a command to the other instances.
    ///
    /// Taken at once: it waits in the bridge's own queue, which is bounded in bytes and age and drops its oldest.
    Publish(Arc<Command>),
    /// Asks the other instances.
    Ask(Box<AskOthers>),
    /// A namespace has its first socket here: what others publish there is heard from now on. One of the namespaces that the
    /// bridge has from its start is heard anyway.
    Open(Namespace),
    /// A namespace has no sockets here any more.
    Close(Namespace),
}

/// A question to the other instances.
#[derive(Clone, Debug)]
pub struct AskOthers {
    /// About which namespace.
    pub namespace: Namespace,
    /// What.
    pub question: Question,
    /// How long they have.
    pub timeout: Duration,
    /// Where answers go, the first of which says how many instances were asked.
    pub answers: Answers,
}

/// Ends the bridge. From whoever stops the instance; comes back when what waited has been published, or after
/// [`super::FLUSH_TIMEOUT`]. What is handed over later is dropped.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;
