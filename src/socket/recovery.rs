//! Connection state recovery at one client: where it stands in the order of its events, and how it gets its state back.
//!
//! What is sent, and who is away, the hub knows ([`crate::hub::recovery`]); this is the part of the Socket actor. Not for clients
//! 2.x, whose protocol has no place for it.
//!
//! Source: wire.md 2.6.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    disconnect::{CloseKind, DisconnectReason},
    dynamic::InUse,
    portable::PortableStanding,
    record::Record,
};
use crate::{
    gateways::Gateway,
    hub::{
        hub_ref::HubRef,
        parked::Pursuit,
        recovery::{Claim, Collect, Collected, Park},
        replay::Logged,
    },
    socket_io::{
        args::Args,
        encode::{self, EncodeError},
        ids::{Namespace, Pid, SocketId},
        parser::Parser,
        recovery::{Claim as Shown, Epoch, Position},
    },
};

/// How long a client that comes back may have to wait for the last handlers of its former connection; then it gets a new state.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the sessions of an instance share if their clients may recover.
#[derive(Debug)]
pub struct Recovery {
    /// This life of this instance.
    pub epoch: Epoch,
    /// Serial of the last event that was logged.
    pub head: Arc<AtomicU64>,
    /// Most bytes of missed events that one client is sent at a time, what they take beside their own included.
    pub max_missed_bytes: usize,
}

/// Where a client stands in one namespace.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) pid: Pid,
    /// What `authorize` returned for it: JSON text.
    authorized: Box<str>,
    since: Position,
    pub(super) last: Position,
    /// The last offset of the instance that its session came from, if it came from one.
    before: Option<Box<str>>,
}

impl Standing {
    /// Returns that of a client that is new.
    pub(super) fn begin(recovery: &Recovery, authorized: &Value) -> Result<Self, getrandom::Error> {
        // What is logged up to now never goes to it: the hub does not know it yet.
        let since = Position::of(recovery.head.load(Relaxed));
        Ok(Self {
            pid: Pid::random()?,
            authorized: authorized.to_string().into(),
            since,
            last: since,
            before: None,
        })
    }

    /// Returns what another instance must know to go on.
    pub(super) fn pack(self, recovery: &Recovery, is_recovered: bool) -> PortableStanding {
        // Nothing has come since its session came itself: then the offset is that of the instance before.
        let offset = match self.before {
            Some(before) if self.last == self.since => before.into_string(),
            _ => recovery.epoch.offset(self.last),
        };
        PortableStanding {
            pid: self.pid,
            authorized: self.authorized.into(),
            offset,
            is_recovered,
        }
    }

    /// Goes on with what another instance knew: from now on its events have places of this one.
    pub(super) fn unpack(recovery: &Recovery, packed: PortableStanding) -> Self {
        let since = Position::of(recovery.head.load(Relaxed));
        Self {
            pid: packed.pid,
            authorized: packed.authorized.into(),
            since,
            last: since,
            before: Some(packed.offset.into()),
        }
    }

    /// Encodes an event for this client alone, which is sent to it next.
    pub(super) fn log(
        &mut self,
        epoch: Epoch,
        parser: Parser,
        namespace: &Namespace,
        args: &Args,
    ) -> Result<Arc<Logged>, EncodeError> {
        let position = self.last.next_own();
        let message = encode::event_with_offset(parser, namespace, args, &epoch.offset(position))?;
        self.last = position;
        Ok(Arc::new(Logged { position, message }))
    }

    /// Returns what the hub keeps of it, in a namespace that is in use by that. `settled` is closed when its last handlers are done.
    pub(super) fn park(
        self,
        record: Arc<Record>,
        in_use: Option<Arc<InUse>>,
        settled: watch::Receiver<()>,
    ) -> Park {
        let Self {
            pid,
            authorized,
            since,
            last,
            before,
        } = self;
        Park {
            record,
            in_use,
            pid,
            authorized,
            since,
            last,
            before,
            settled,
        }
    }
}

/// Returns whether a client whose membership ended so may come back to it.
pub(super) fn may_come_back(reason: DisconnectReason) -> bool {
    match reason {
        // Either side wanted this end.
        DisconnectReason::ClientNamespaceDisconnect
        | DisconnectReason::ServerNamespaceDisconnect
        // It would do the same again.
        | DisconnectReason::Closed(CloseKind::ParseError | CloseKind::RateLimited) => false,
        DisconnectReason::Closed(
            CloseKind::TransportClose
            | CloseKind::TransportError
            | CloseKind::PingTimeout
            | CloseKind::ForcedClose
            | CloseKind::ForcedServerClose
            | CloseKind::ServerShuttingDown
            | CloseKind::SlowReader,
        ) => true,
    }
}

/// What a client shows to get its state back, and whom to ask.
pub(super) struct Attempt {
    pub(super) hub: HubRef,
    pub(super) namespace: Namespace,
    pub(super) shown: Shown,
    pub(super) max_bytes: usize,
}

/// A client's state, to be given back to it.
pub(super) struct Restored {
    pub(super) id: SocketId,
    pub(super) standing: Standing,
    pub(super) back: Back,
}

/// What a client that has come back gets, and how the hub knows it again.
pub(super) struct Back {
    pub(super) data: Value,
    pub(super) missed: Vec<Arc<Logged>>,
    /// Serial of the last event that was looked at for `missed`.
    pub(super) head: u64,
    pub(super) pursuit: Pursuit,
}

impl Attempt {
    /// Asks the hub for the client's state. `authorized` is what `authorize` returned now; if it is someone else whom the gateway
    /// sees by that, the state stays where it is. `None`: the client gets a new one.
    pub(super) async fn restore(self, gateway: &Gateway, authorized: &Value) -> Option<Restored> {
        let pursuit = Pursuit::default();
        let claim = Claim {
            namespace: self.namespace.clone(),
            pid: self.shown.pid.clone(),
            pursuit: Arc::clone(&pursuit),
        };
        let mut claimed = self.hub.send(claim).await.ok()?.ok()?;
        let before: Value = serde_json::from_str(&claimed.authorized).ok()?;
        let same = AssertUnwindSafe(|| gateway.is_same_identity(&before, authorized));
        if !std::panic::catch_unwind(same).unwrap_or(false) {
            log::debug!("a client of {} is someone else now", self.namespace);
            return None;
        }
        // Closed, it has nothing to say any more: the last handlers are done.
        if claimed.settled.has_changed().is_ok() {
            // What they changed and sent, and what `on_disconnect` did, comes before anything that the new connection does.
            let settled = claimed.settled.changed();
            if tokio::time::timeout(SETTLE_TIMEOUT, settled).await.is_err() {
                log::debug!("old handlers of a client of {} take long", self.namespace);
                return None;
            }
        }
        let pid = self.shown.pid.clone();
        let collect = Collect {
            namespace: self.namespace,
            shown: self.shown,
            max_bytes: self.max_bytes,
            pursuit: Arc::clone(&pursuit),
        };
        let Collected {
            record,
            missed,
            since,
            last,
            before,
            head,
        } = self.hub.send(collect).await.ok()?.ok()?;
        Some(Restored {
            id: record.id.clone(),
            standing: Standing {
                pid,
                authorized: authorized.to_string().into(),
                since,
                last,
                before,
            },
            back: Back {
                data: record.data(),
                missed,
                head,
                pursuit,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_cut_off_may_come_back_and_who_left_may_not() {
        for (reason, expected) in [
            ("transport error", true),
            ("transport close", true),
            ("forced close", true),
            ("ping timeout", true),
            ("server shutting down", true),
            ("forced server close", true),
            ("parse error", false),
            ("client namespace disconnect", false),
            ("server namespace disconnect", false),
        ] {
            let of = [
                DisconnectReason::ClientNamespaceDisconnect,
                DisconnectReason::ServerNamespaceDisconnect,
                DisconnectReason::Closed(CloseKind::TransportClose),
                DisconnectReason::Closed(CloseKind::TransportError),
                DisconnectReason::Closed(CloseKind::ParseError),
                DisconnectReason::Closed(CloseKind::PingTimeout),
                DisconnectReason::Closed(CloseKind::ForcedClose),
                DisconnectReason::Closed(CloseKind::ForcedServerClose),
                DisconnectReason::Closed(CloseKind::ServerShuttingDown),
            ];
            let found = of.into_iter().find(|one| one.as_str() == reason).unwrap();
            assert_eq!(may_come_back(found), expected, "{reason}");
        }
    }

    #[test]
    fn events_for_one_client_have_places_behind_the_last_that_it_got() {
        let recovery = Recovery {
            epoch: Epoch::random().unwrap(),
            head: Arc::new(AtomicU64::new(7)),
            max_missed_bytes: 0,
        };
        let mut standing = Standing::begin(&recovery, &Value::Null).unwrap();
        let args = Args::from_parts(r#"["a"]"#.into(), Vec::new());
        let log = |standing: &mut Standing| {
            let logged = standing
                .log(recovery.epoch, Parser::Json, &"/".into(), &args)
                .unwrap();
            (logged.position.serial, logged.position.own)
        };
        assert_eq!(log(&mut standing), (7, 1));
        assert_eq!(log(&mut standing), (7, 2));
        standing.last = Position::of(9);
        assert_eq!(log(&mut standing), (9, 1));
        assert!(!format!("{standing:?}").contains(standing.pid.expose()));
    }
}
