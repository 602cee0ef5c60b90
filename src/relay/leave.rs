//! What is said to the instance that a session moves to: the whole of it, and later what is left behind.
//!
//! Only says it; when and what is for the session's actor to know.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    Relay,
    host::Key,
    wire::{Answer, Message},
};
use crate::{
    engine_io::{
        dialect::Revision,
        sid::{InstanceId, Sid},
    },
    hub::{hub_ref::HubRef, messages::PassOn},
    redis_bridge::Loss,
};

/// The way there. Cheap to clone.
#[derive(Clone)]
pub struct Leave {
    relay: Arc<Relay>,
    hub: HubRef,
    key: Key,
    /// Set once it is known that the session has ended there, or nothing is heard of it any more.
    has_ended: Arc<AtomicBool>,
}

impl Leave {
    /// Returns the way to the instance `to`, which calls the session `number`.
    pub fn new(relay: Arc<Relay>, hub: HubRef, to: InstanceId, number: u64) -> Self {
        Self {
            relay,
            hub,
            key: (to, number),
            has_ended: Arc::default(),
        }
    }

    /// Says that the session is in namespaces that nobody listens to there.
    pub fn again(&self) {
        self.relay.host.tell_again(&self.relay, self.key);
    }

    /// Sends the session.
    pub fn state(&self, state: Bytes) {
        self.say(Answer::State(state));
    }

    /// Notes that the session lives there: it is judged by that here, until it ends.
    pub fn note_moved(&self, sid: Sid, revision: Revision) {
        let host = &self.relay.host;
        host.note_moved(self.key, sid, revision, &self.has_ended);
    }

    /// Returns whether the session has ended there, as far as is known here.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Says that the session is not to go on there: something that was written for its client got lost here.
    pub fn withdraw(&self) {
        self.say(Answer::Refused);
    }

    /// Says that the session is not to be had, and no more of it.
    pub fn refuse(&self) {
        self.withdraw();
        self.forget();
    }

    /// Says, behind all that was published from here before, that nothing of the session is left here, and listens to no more that is
    /// said about it there.
    pub fn be_over(&self, sid: &Sid) {
        self.say_behind(Answer::Over);
        self.forget();
        self.note_unknown(sid);
    }

    /// If it is not, or no more, noted that the session lives there, whoever holds a socket of it would wait for its end for ever:
    /// notes that it has ended, as far as is known here.
    pub fn note_unknown(&self, sid: &Sid) {
        if self.relay.host.revision_of_moved(sid).is_none() {
            self.has_ended.store(true, Relaxed);
        }
    }

    /// Listens to no more that is said about it there.
    pub fn forget(&self) {
        self.relay.host.forget(self.key);
    }

    fn say(&self, answer: Answer) {
        let (to, id) = self.key;
        self.relay.send(to, id, &Message::Answer(answer));
    }

    /// Says something behind all that was published from here before. If it is dropped on its way, since more is published than Redis
    /// takes, that is said instead, at once: whoever waits for it there must know that it does not come.
    pub fn say_behind(&self, answer: Answer) {
        let (to, id) = self.key;
        let payload = self.relay.encode(id, &Message::Answer(answer));
        let way = self.clone();
        let loss = Loss::new(move || way.say(Answer::Lost));
        self.hub.do_send(PassOn { to, payload, loss });
    }
}

impl fmt::Debug for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leave")
            .field("to", &self.key.0)
            .finish_non_exhaustive()
    }
}
