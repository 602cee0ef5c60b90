//! How often each limit was met since the start.
//!
//! Counts and nothing else: what a limit does is decided where it is. Every name is one of ours, never a client's, so however
//! many clients misbehave in however many ways, this stays as large as it is. `GET /readyz` shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// What happened because of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A session was refused: `MAX_CONNECTIONS`.
    Connections,
    /// A session was refused: `MAX_CONNECTIONS_PER_ADDRESS`.
    ConnectionsPerAddress,
    /// An HTTP connection was refused: four times `MAX_CONNECTIONS_PER_ADDRESS`.
    HttpConnectionsPerAddress,
    /// A head did not arrive in time: `HEAD_TIMEOUT`.
    HeadTimeout,
    /// A body did not arrive in time: `BODY_TIMEOUT`.
    BodyTimeout,
    /// An answer was not read in time, or a client took nothing of what waited for it: `WRITE_TIMEOUT`.
    WriteTimeout,
    /// A volatile event was dropped, because its client was behind.
    VolatileDropped,
    /// A client was disconnected because too much waited for it: `MAX_BACKLOG`.
    SlowReader,
    /// A client was disconnected, or its body refused, an answer to it broken off or an ack of it dropped, because too much waited for
    /// all together: `MAX_TOTAL_BACKLOG`.
    TotalBacklog,
    /// An event, or a wish to join, was not handled: `MAX_EVENT_RATE`.
    EventRate,
    /// A client was disconnected because it went on: `MAX_EVENT_RATE`.
    RateLimited,
    /// A socket could not join a room: `MAX_ROOMS_PER_SOCKET`.
    Rooms,
    /// A client could not join a namespace that nobody is in: `MAX_DYNAMIC_NAMESPACES`.
    Namespaces,
    /// An event of another server was not handled: too many are, or wait for it, or with too much.
    ServerEvents,
    /// A command or question, of another server or our own, would have kept the hub busy for too long.
    HubWork,
    /// A command was not published, or a body not passed on to the instance of its session, because too much was on its way already.
    BridgeBehind,
    /// An account was not made: `MAX_REGISTRATIONS_PER_ADDRESS`.
    Registrations,
}

impl Limit {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Connections, "connections"),
        (Self::ConnectionsPerAddress, "connections_per_address"),
        (
            Self::HttpConnectionsPerAddress,
            "http_connections_per_address",
        ),
        (Self::HeadTimeout, "head_timeout"),
        (Self::BodyTimeout, "body_timeout"),
        (Self::WriteTimeout, "write_timeout"),
        (Self::VolatileDropped, "volatile_dropped"),
        (Self::SlowReader, "slow_reader"),
        (Self::TotalBacklog, "total_backlog"),
        (Self::EventRate, "event_rate"),
        (Self::RateLimited, "rate_limited"),
        (Self::Rooms, "rooms"),
        (Self::Namespaces, "namespaces"),
        (Self::ServerEvents, "server_events"),
        (Self::HubWork, "hub_work"),
        (Self::BridgeBehind, "bridge_behind"),
        (Self::Registrations, "registrations"),
    ];
}

/// Counters of one instance.
#[derive(Debug, Default)]
pub struct Counters {
    limits: [AtomicU64; Limit::ALL.len()],
}

impl Counters {
    /// Counts one. Returns how many there were before.
    pub fn count(&self, limit: Limit) -> u64 {
        self.add(limit, 1)
    }

    /// Counts several. Returns how many there were before.
    pub fn add(&self, limit: Limit, num: u64) -> u64 {
        self.of(limit).fetch_add(num, Ordering::Relaxed)
    }

    /// Returns how many there were.
    pub fn get(&self, limit: Limit) -> u64 {
        self.of(limit).load(Ordering::Relaxed)
    }

    fn of(&self, limit: Limit) -> &AtomicU64 {
        self.limits.get(limit as usize).expect("one for each")
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Limit::ALL.len()))?;
        for (limit, name) in Limit::ALL {
            map.serialize_entry(name, &self.get(limit))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_a_counter_and_a_name_of_its_own() {
        let counters = Counters::default();
        for (at, (limit, _)) in (0..).zip(Limit::ALL) {
            assert_eq!(counters.add(limit, at), 0, "{limit:?} is shared");
        }
        let json = serde_json::to_value(&counters).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Limit::ALL.len());
        assert_eq!(json["connections"], 0);
        assert_eq!(json["bridge_behind"], 15);
    }
}
