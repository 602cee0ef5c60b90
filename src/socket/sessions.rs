//! Who is here: every live session of this instance, by its `sid`.
//!
//! A request of a session can arrive at any worker; this is how it finds the session's actor. Shared by the workers; the
//! lock is held for one look-up and never across an await.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use actix::Addr;
use tokio::sync::watch;

use super::{actor::SocketActor, inbox::InboxRef};
use crate::{
    engine_io::{
        dialect::Revision,
        handshake::{SessionFact, TransportName},
        sid::Sid,
    },
    shrink::shrink,
    slots::{self, Slot},
};

/// A session, as the HTTP layer sees it.
#[derive(Debug)]
pub struct Session {
    /// Its actor.
    pub addr: Addr<SocketActor>,
    /// What takes what has to keep its order with deliveries.
    pub inbox: InboxRef,
    /// The revision that it speaks, for its whole life.
    pub revision: Revision,
    is_websocket: AtomicBool,
    stay: Arc<Stay>,
}

impl Session {
    /// Returns the transport that it is on now.
    pub fn transport(&self) -> TransportName {
        if self.is_websocket.load(Ordering::Acquire) {
            TransportName::WebSocket
        } else {
            TransportName::Polling
        }
    }

    /// Returns what a request for it is to be judged by.
    pub fn fact(&self) -> SessionFact {
        SessionFact::On(self.transport(), self.revision)
    }

    /// Returns what is to be held by all that goes on after the session.
    pub(super) fn stay(&self) -> Arc<Stay> {
        Arc::clone(&self.stay)
    }

    /// Notes a finished upgrade, here or at the instance that the session moves to. Only the session's actor calls it.
    pub(super) fn set_websocket(&self) {
        self.is_websocket.store(true, Ordering::Release);
    }
}

/// A session's place among all, and among those of its address: until it has ended, and then, among what winds down, until nobody holds
/// this any more. Handlers that still run keep the request that opened it.
#[derive(Debug)]
pub(super) struct Stay {
    slot: Slot,
    num_winding_down: Arc<AtomicUsize>,
}

impl Stay {
    /// Notes that the session has ended. Called once.
    fn end(&self) {
        self.num_winding_down.fetch_add(1, Ordering::Relaxed);
        self.slot.wind_down();
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if self.slot.is_winding_down() {
            self.num_winding_down.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The place of a session of another instance that is about to come here, among all: until it is here, or does not come.
#[derive(Debug)]
pub struct Expected(Arc<AtomicUsize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every session of one instance.
#[derive(Debug)]
pub struct Sessions {
    by_sid: Mutex<HashMap<Sid, Arc<Session>>>,
    num_sessions: watch::Sender<usize>,
    /// Those that have ended and still have something to do.
    num_winding_down: Arc<AtomicUsize>,
    /// Those that are about to come from other instances.
    num_expected: Arc<AtomicUsize>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_sid: Mutex::default(),
            num_sessions: watch::Sender::new(0),
            num_winding_down: Arc::default(),
            num_expected: Arc::default(),
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Sid, Arc<Session>>> {
        // A map is never left half-changed, so a panic elsewhere does not spoil it.
        self.by_sid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session that has just begun.
    pub(super) fn insert(
        &self,
        sid: Sid,
        addr: Addr<SocketActor>,
        inbox: InboxRef,
        transport: TransportName,
        revision: Revision,
        slot: Slot,
    ) -> Arc<Session> {
        let is_websocket = AtomicBool::new(transport == TransportName::WebSocket);
        let stay = Arc::new(Stay {
            slot,
            num_winding_down: Arc::clone(&self.num_winding_down),
        });
        let session = Arc::new(Session {
            addr,
            inbox,
            revision,
            is_websocket,
            stay,
        });
        let mut sessions = self.lock();
        sessions.insert(sid, Arc::clone(&session));
        // Told while the lock is held, or two workers could tell their counts in the wrong order.
        self.num_sessions.send_replace(sessions.len());
        session
    }

    /// Removes a session that has ended.
    pub(super) fn remove(&self, sid: &Sid) {
        let mut sessions = self.lock();
        let removed = sessions.remove(sid);
        shrink(&mut *sessions);
        if let Some(session) = &removed {
            session.stay.end();
        }
        self.num_sessions.send_replace(sessions.len());
        drop(sessions);
    }

    /// Finds a session.
    pub fn get(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.lock().get(sid).cloned()
    }

    /// Returns every session.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    /// Returns how many sessions there are.
    pub fn len(&self) -> usize {
        *self.num_sessions.borrow()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a place for a session that is about to come from another instance. Once that is here, it is to be dropped, or the session
    /// counts twice.
    pub fn expect_one(&self) -> Expected {
        self.num_expected.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(&self.num_expected))
    }

    /// Returns whether there are no more to be than there are, with those that are expected: `limit`, or twice as many, together with those
    /// that have ended and still have something to do.
    pub fn are_full(&self, limit: usize) -> bool {
        let num_winding_down = self.num_winding_down.load(Ordering::Relaxed);
        let num_expected = self.num_expected.load(Ordering::Relaxed);
        slots::are_all_held(self.len() + num_expected, num_winding_down, limit)
    }

    /// Returns the number of sessions as it changes.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.num_sessions.subscribe()
    }
}
