//! The bridge's door: every message that it takes, who sends it, and what comes back.

use std::{sync::Arc, time::Duration};

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{loss::Loss, private::Weight};
use crate::{
    engine_io::sid::InstanceId,
    hub::{
        command::Command,
        freight::Load,
        question::{Answers, Question},
    },
    socket_io::ids::Namespace,
};

/// What the Hub and the relay tell the bridge, by `do_send`; nothing comes back. One message for all of it, which keeps the order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum ForBridge {
    /// Publishes a command to the other instances.
    ///
    /// Taken at once: it waits in the bridge's own queue, which is bounded in bytes and age and drops its oldest.
    Publish(Arc<Command>, Load),
    /// Asks the other instances.
    Ask(Box<AskOthers>),
    /// A namespace has its first socket here: what others publish there is heard from now on. One of the namespaces that the
    /// bridge has from its start is heard anyway.
    Open(Namespace),
    /// A namespace has no sockets here any more.
    Close(Namespace),
    /// Listens to namespaces for as long as they are in use, whether they have sockets here or not. From the relay: sockets of a session
    /// that moves here are about to be in them.
    Hear {
        /// Which.
        namespaces: Vec<Namespace>,
        /// Told when all of them are heard. Dropped if that cannot be said, or if too many are listened to that have no sockets here.
        reply: oneshot::Sender<()>,
    },
    /// Sends bytes to one instance, which knows what they are. From the relay.
    Send {
        /// Whom to.
        to: InstanceId,
        /// What.
        payload: Bytes,
        /// Its room among what waits.
        weight: Weight,
        /// Says how many have heard it: 0, if that instance is not there. Dropped if it cannot be sent, or if nobody knows.
        receipt: oneshot::Sender<usize>,
    },
    /// Says something to every instance of Sockhop, this one included: it hears its own words in their place among all that it
    /// hears. They are published in one order with what [`Self::Publish`] publishes, that in which the bridge was told, and
    /// wait in the same queue.
    ///
    /// With one Redis, all hear what anybody says and what anybody publishes in one order. A Redis Cluster keeps an order within
    /// each channel alone.
    Tell {
        /// What.
        payload: Bytes,
    },
    /// Sends bytes to one instance, behind all that was published before them and in the same queue. Nobody says whether they were
    /// heard; see [`Self::Send`] for that, which overtakes what waits.
    Behind {
        /// Whom to.
        to: InstanceId,
        /// What.
        payload: Bytes,
        /// What is done if they are dropped while they wait, or refused.
        loss: Option<Loss>,
    },
    /// Looks whether an instance is there. From the relay.
    Look {
        /// Which.
        instance: InstanceId,
        /// Says how many of this name there are. Dropped if nobody knows.
        reply: oneshot::Sender<usize>,
    },
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
