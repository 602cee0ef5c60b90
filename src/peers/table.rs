//! Who is there: a table of the other instances, as far as their beats have told.
//!
//! A plain struct, without clock or connection. Bounded by [`MAX_PEERS`], twice: those that live, and those that are known to be
//! gone. A newcomer beyond it is not taken in, so that a flood of invented ones drives no real one out.
//!
//! An instance is gone when it says so, or when nothing was heard of it for [`LIFETIME`] by the clock of our own beats: what was
//! sent at some moment has come back, so all that others had said by then has been heard. When this instance itself is slow to
//! read, or Redis to deliver, that clock stands still, and nobody dies of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::wire::{Beat, Said};
use crate::{adapter::uid::Uid, engine_io::sid::InstanceId, socket_io::ids::Namespace};

/// How often each instance says that it lives.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How long one lives of whom nothing is heard. With the interval, which our own clock moves in, less than 10 s.
pub const LIFETIME: Duration = Duration::from_secs(7);
/// Others that are known at a time; and how many of those that are gone.
pub const MAX_PEERS: usize = 1024;
/// How long it is remembered that an instance is gone: its clients have tried by then.
const MEMORY: Duration = Duration::from_secs(10 * 60);

/// One that lives.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// When it was last heard.
    pub(super) heard: Instant,
    /// When it last said hello, if anyone here knows: what it was sent before that, it need not have heard.
    pub(super) hailed: Option<Instant>,
    /// What it said then.
    pub(super) beat: Beat,
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is our own, come back.
    Own,
    /// One more lives, or one lives on.
    Lives,
    /// The same, and it would like to hear of all others.
    Hails,
    /// One is gone.
    Left,
    /// There are too many already.
    TooMany,
}

/// The table of one instance.
#[derive(Debug)]
pub(super) struct Table {
    own: InstanceId,
    began: Instant,
    alive: HashMap<InstanceId, Peer>,
    by_uid: HashMap<Uid, InstanceId>,
    gone: HashMap<InstanceId, Instant>,
}

impl Table {
    /// Returns an empty table of the instance `own`, which has run since `began`.
    pub(super) fn new(own: InstanceId, began: Instant) -> Self {
        Self {
            own,
            began,
            alive: HashMap::new(),
            by_uid: HashMap::new(),
            gone: HashMap::new(),
        }
    }

    /// Takes what somebody said.
    pub(super) fn take(&mut self, now: Instant, said: Said) -> Taken {
        match said {
            Said::Bye(instance) if instance == self.own => Taken::Own,
            Said::Bye(instance) => {
                // Of those that are not known, nothing need be remembered.
                if self.remove(&instance) {
                    self.bury(instance, now);
                }
                Taken::Left
            }
            Said::Beat(beat) if beat.instance == self.own => {
                // Never later than now, whoever made it up.
                let uptime = now.saturating_duration_since(self.began);
                self.sweep(self.began + beat.uptime.min(uptime));
                Taken::Own
            }
            Said::Beat(beat) => {
                let instance = beat.instance;
                let hailed = self.hailed(instance);
                let is_known = self.remove(&instance);
                if !is_known && self.alive.len() >= MAX_PEERS {
                    return Taken::TooMany;
                }
                self.gone.remove(&instance);
                self.by_uid.insert(beat.uid.clone(), instance);
                let taken = if beat.is_hello {
                    Taken::Hails
                } else {
                    Taken::Lives
                };
                let hailed = if beat.is_hello { Some(now) } else { hailed };
                let peer = Peer {
                    heard: now,
                    hailed,
                    beat,
                };
                self.alive.insert(instance, peer);
                taken
            }
        }
    }

    /// Removes those of whom nothing was heard for too long at `now`, and forgets those that were removed long ago.
    fn sweep(&mut self, now: Instant) {
        let silent = |peer: &Peer| now.saturating_duration_since(peer.heard) > LIFETIME;
        let silent = self.alive.iter().filter(|(_, peer)| silent(peer));
        let lost: Vec<_> = silent.map(|(instance, _)| *instance).collect();
        for instance in lost {
            log::debug!("instance {instance} has not been heard for {LIFETIME:?}");
            self.remove(&instance);
            self.bury(instance, now);
        }
        self.gone
            .retain(|_, since| now.saturating_duration_since(*since) <= MEMORY);
    }

    fn remove(&mut self, instance: &InstanceId) -> bool {
        let Some(peer) = self.alive.remove(instance) else {
            return false;
        };
        if self.by_uid.get(&peer.beat.uid) == Some(instance) {
            self.by_uid.remove(&peer.beat.uid);
        }
        true
    }

    fn bury(&mut self, instance: InstanceId, now: Instant) {
        if self.gone.len() >= MAX_PEERS {
            let oldest = self.gone.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(instance, _)| *instance) {
                self.gone.remove(&oldest);
            }
        }
        self.gone.insert(instance, now);
    }

    /// Forgets all that live: nobody can be heard, so nobody knows. Those that are gone stay so.
    pub(super) fn lose_all(&mut self) {
        self.alive.clear();
        self.by_uid.clear();
    }

    /// Returns those that live.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Peer> {
        self.alive.values()
    }

    /// Returns when one was last heard that lives, as far as is known.
    pub(super) fn heard(&self, instance: InstanceId) -> Option<Instant> {
        self.alive.get(&instance).map(|peer| peer.heard)
    }

    /// Returns when one that lives last said hello.
    pub(super) fn hailed(&self, instance: InstanceId) -> Option<Instant> {
        self.alive.get(&instance).and_then(|peer| peer.hailed)
    }

    /// Returns whether one is known to be gone.
    pub(super) fn is_gone(&self, instance: InstanceId) -> bool {
        self.gone.contains_key(&instance)
    }

    /// Returns who it is that all servers call `uid`.
    pub(super) fn named(&self, uid: &str) -> Option<InstanceId> {
        let uid = Uid::parse(uid).or_else(|| Uid::parse_hex(uid))?;
        self.by_uid.get(&uid).copied()
    }

    /// Returns who should hear a request of `namespace`, by what they last said.
    pub(super) fn hearing(&self, namespace: &Namespace) -> Vec<InstanceId> {
        let hears = |beat: &Beat| {
            let told = beat.namespaces.as_ref();
            told.is_none_or(|names| names.contains(namespace))
        };
        self.alive()
            .filter(|peer| hears(&peer.beat))
            .map(|peer| peer.beat.instance)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(number: usize) -> InstanceId {
        InstanceId::parse(&format!("{number:08}")).unwrap()
    }

    fn beat(number: usize) -> Beat {
        Beat {
            instance: instance(number),
            uid: Uid::parse(&format!("{number:06}")).unwrap(),
            release: "1".to_owned(),
            uptime: Duration::ZERO,
            num_sessions: 0,
            is_hello: false,
            namespaces: Some(vec!["/".into()]),
        }
    }

    const OWN: usize = 0;

    struct Clock {
        began: Instant,
        table: Table,
    }

    impl Clock {
        fn new() -> Self {
            let began = Instant::now();
            let table = Table::new(instance(OWN), began);
            Self { began, table }
        }

        fn at(&mut self, seconds: u64, said: Said) -> Taken {
            let now = self.began + Duration::from_secs(seconds);
            self.table.take(now, said)
        }

        fn hears(&mut self, seconds: u64, number: usize) -> Taken {
            self.at(seconds, Said::Beat(beat(number)))
        }

        /// Our own beat of second `sent` comes back at second `seconds`.
        fn echo(&mut self, seconds: u64, sent: u64) {
            let own = Beat {
                uptime: Duration::from_secs(sent),
                ..beat(OWN)
            };
            assert_eq!(self.at(seconds, Said::Beat(own)), Taken::Own);
        }

        fn state(&self, number: usize) -> (bool, bool) {
            let instance = instance(number);
            (
                self.table.heard(instance).is_some(),
                self.table.is_gone(instance),
            )
        }
    }

    const ALIVE: (bool, bool) = (true, false);
    const GONE: (bool, bool) = (false, true);
    const UNKNOWN: (bool, bool) = (false, false);

    #[test]
    fn who_is_not_heard_any_more_is_gone_in_less_than_ten_seconds() {
        assert!(LIFETIME + BEAT_INTERVAL < Duration::from_secs(10));
        let mut clock = Clock::new();
        assert_eq!(clock.state(1), UNKNOWN);
        clock.hears(1, 1);
        clock.hears(1, 2);
        for second in 2..=8 {
            clock.hears(second, 2);
            clock.echo(second, second);
            assert_eq!(clock.state(1), ALIVE, "at {second}");
        }
        clock.echo(9, 9);
        assert_eq!((clock.state(1), clock.state(2)), (GONE, ALIVE));
        // It only slept.
        clock.hears(20, 1);
        assert_eq!(clock.state(1), ALIVE);
        clock.echo(20, 20);
        assert_eq!(clock.state(2), GONE);
        clock.echo(20 + 601, 20 + 601);
        assert_eq!(clock.state(2), UNKNOWN, "not remembered for ever");
    }

    #[test]
    fn nobody_dies_of_our_own_slowness() {
        let mut clock = Clock::new();
        clock.hears(1, 1);
        // What was sent at the second 3 comes at the 60.
        clock.echo(60, 3);
        assert_eq!(clock.state(1), ALIVE);
        clock.hears(61, 1);
        // Nor of a beat that we have yet to send.
        clock.echo(62, 1_000_000);
        assert_eq!(clock.state(1), ALIVE);
    }

    #[test]
    fn the_last_hello_is_remembered_from_beat_to_beat() {
        let mut clock = Clock::new();
        let hello = || {
            Said::Beat(Beat {
                is_hello: true,
                ..beat(1)
            })
        };
        let hailed = |clock: &Clock| clock.table.hailed(instance(1));
        let second = |clock: &Clock, second| Some(clock.began + Duration::from_secs(second));
        clock.hears(1, 1);
        assert_eq!(hailed(&clock), None);
        clock.at(2, hello());
        clock.hears(3, 1);
        assert_eq!(hailed(&clock), second(&clock, 2));
        clock.at(4, hello());
        assert_eq!(hailed(&clock), second(&clock, 4));
    }

    #[test]
    fn who_says_good_bye_is_gone_at_once() {
        let mut clock = Clock::new();
        clock.hears(1, 1);
        assert_eq!(clock.at(1, Said::Bye(instance(1))), Taken::Left);
        assert_eq!(clock.state(1), GONE);
        assert_eq!(clock.table.named("000001"), None);
        // One that was never here is no more remembered than before.
        clock.at(1, Said::Bye(instance(2)));
        assert_eq!(clock.state(2), UNKNOWN);
        assert_eq!(clock.at(1, Said::Bye(instance(OWN))), Taken::Own);
        assert_eq!(clock.state(OWN), UNKNOWN);
    }

    #[test]
    fn a_flood_of_invented_ones_drives_no_real_one_out_and_fills_no_memory() {
        let mut clock = Clock::new();
        clock.hears(1, 1);
        for number in 2..10 * MAX_PEERS {
            clock.hears(1, number);
        }
        assert_eq!(clock.hears(1, 20 * MAX_PEERS), Taken::TooMany);
        assert_eq!(clock.hears(2, 1), Taken::Lives);
        assert_eq!(clock.table.alive.len(), MAX_PEERS);
        assert_eq!(clock.table.by_uid.len(), MAX_PEERS);
        for number in 2..10 * MAX_PEERS {
            clock.at(3, Said::Bye(instance(number)));
            clock.hears(4, number + 10 * MAX_PEERS);
        }
        assert_eq!(clock.table.alive.len(), MAX_PEERS);
        assert_eq!(clock.table.gone.len(), MAX_PEERS - 1);
        for number in 2..3 * MAX_PEERS {
            clock.hears(5, number);
            clock.at(5, Said::Bye(instance(number)));
            clock.at(5, Said::Bye(instance(number + 10 * MAX_PEERS)));
        }
        assert!(clock.table.gone.len() <= MAX_PEERS);
        assert_eq!(clock.state(1), ALIVE);
    }

    #[test]
    fn names_belong_to_who_lives() {
        let mut clock = Clock::new();
        clock.hears(1, 1);
        assert_eq!(clock.table.named("000001"), Some(instance(1)));
        assert_eq!(clock.table.named("000002"), None);
        assert_eq!(clock.table.named("#"), None);
        let silent = Beat {
            namespaces: None,
            ..beat(2)
        };
        clock.at(1, Said::Beat(silent));
        let hearing = |clock: &Clock, namespace: &str| {
            let mut hearing = clock.table.hearing(&namespace.into());
            hearing.sort_unstable_by_key(|instance| instance.as_str().to_owned());
            hearing
        };
        assert_eq!(hearing(&clock, "/"), [instance(1), instance(2)]);
        assert_eq!(hearing(&clock, "/other"), [instance(2)]);
        clock.table.lose_all();
        assert!(hearing(&clock, "/").is_empty());
        assert_eq!(clock.state(1), UNKNOWN);
        assert_eq!(clock.table.named("000001"), None);
    }
}
