//! How many accounts each address may make in an hour, and no more.
//!
//! Plain struct: it is told the time, and knows neither passwords nor requests. An address is known only until it might have as many
//! again as it had at first. Shared by the workers; the lock is held for one look-up, and seldom for the table to be looked through.
//! Each instance counts for itself.
//!
//! Whose are counted says [`PerAddress`].

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    bucket::Bucket, config::DEFAULT_MAX_REGISTRATIONS_PER_ADDRESS, per_address::PerAddress,
    shrink::shrink,
};

/// How long an address takes to have all its registrations again.
const SPAN: Duration = Duration::from_secs(60 * 60);

/// Addresses that are told apart, some 4 MiB; all further ones share what one has.
const MAX_ADDRESSES: usize = 65_536;

/// Time between two looks through a table that is full.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The address has made as many accounts as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// How many those are, in an hour.
    pub(super) limit: u32,
    /// Until it may make one more.
    pub(super) retry_after: Duration,
}

/// What a registration has taken, for [`Registrations::put_back`].
#[derive(Debug)]
#[must_use]
pub(super) struct Token(Option<(Of, Rate)>);

/// Whose bucket it is.
#[derive(Clone, Copy, Debug)]
enum Of {
    One(IpAddr),
    /// Of all those that there was no room for.
    Others,
}

/// Who may still make how many.
#[derive(Debug)]
pub(super) struct Registrations {
    rate: PerAddress<Rate>,
    table: Mutex<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    limit: u32,
    interval: Duration,
}

#[derive(Debug, Default)]
struct Table {
    buckets: HashMap<IpAddr, Bucket>,
    others: Option<Bucket>,
    /// How many there were when it was looked through, and when that was.
    looked: Option<(usize, Instant)>,
}

impl Table {
    /// Forgets those who have as much as anybody who is not known.
    fn look_through(&mut self, now: Instant) {
        let num_kept = match self.looked {
            Some((_, at)) if now.saturating_duration_since(at) < LOOK_INTERVAL => return,
            Some((num_kept, _)) => num_kept,
            None => 0,
        };
        if self.buckets.len() >= MAX_ADDRESSES.min(2 * num_kept) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            shrink(&mut self.buckets);
            self.looked = Some((self.buckets.len(), now));
        }
    }

    fn bucket(&mut self, address: IpAddr, now: Instant) -> (&mut Bucket, Of) {
        let new = || Bucket::new(now);
        if !self.buckets.contains_key(&address) {
            self.look_through(now);
            if self.buckets.len() >= MAX_ADDRESSES {
                return (self.others.get_or_insert_with(new), Of::Others);
            }
        }
        let bucket = self.buckets.entry(address).or_insert_with(new);
        (bucket, Of::One(address))
    }
}

impl Registrations {
    /// Returns what each address may have by `MAX_REGISTRATIONS_PER_ADDRESS`; 0 is no limit. If it says nothing, it is the default, and
    /// private addresses have none.
    pub(super) fn new(setting: Option<u32>) -> Self {
        let limit = setting.unwrap_or(DEFAULT_MAX_REGISTRATIONS_PER_ADDRESS);
        let interval = SPAN.checked_div(limit);
        let rate = interval.map(|interval| Rate { limit, interval });
        Self {
            rate: PerAddress::new(rate, setting.is_some()),
            table: Mutex::default(),
        }
    }

    /// Counts a registration of this address.
    ///
    /// # Errors
    /// It has had as many as it may.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> Result<Token, Spent> {
        let Some(rate) = self.rate.of(address) else {
            return Ok(Token(None));
        };
        let Rate { limit, interval } = rate;
        // A table is never left half-changed, so a panic elsewhere does not spoil it.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, of) = table.bucket(address, now);
        match bucket.take(now, interval, limit) {
            true => Ok(Token(Some((of, rate)))),
            false => Err(Spent {
                limit,
                retry_after: bucket.next(now, interval, limit),
            }),
        }
    }

    /// Takes back what has come to nothing through no fault of whoever wanted it.
    pub(super) fn put_back(&self, token: Token) {
        let Some((of, Rate { interval, .. })) = token.0 else {
            return;
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match of {
            Of::One(address) => table.buckets.get_mut(&address),
            Of::Others => table.others.as_mut(),
        };
        if let Some(bucket) = bucket {
            bucket.put_back(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9));
    const PRIVATE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn take_all(registrations: &Registrations, address: IpAddr, now: Instant) -> (u32, Duration) {
        for num in 0..5000 {
            if let Err(spent) = registrations.take(address, now) {
                return (num, spent.retry_after);
            }
        }
        (u32::MAX, Duration::ZERO)
    }

    #[test]
    fn an_address_has_as_many_in_an_hour_and_they_come_back_evenly() {
        let (registrations, start) = (Registrations::new(Some(60)), Instant::now());
        let minute = Duration::from_secs(60);
        assert_eq!(take_all(&registrations, OPEN, start), (60, minute));
        assert_eq!(take_all(&registrations, PRIVATE, start), (60, minute));
        let later = start + minute * 3 / 2;
        assert_eq!(take_all(&registrations, OPEN, later), (1, minute / 2));
        let token = registrations.take(PRIVATE, later).unwrap();
        registrations.put_back(token);
        assert_eq!(take_all(&registrations, PRIVATE, later), (1, minute / 2));
        let next_day = start + 24 * SPAN;
        assert_eq!(take_all(&registrations, OPEN, next_day), (60, minute));
    }

    #[test]
    fn unless_it_is_said_how_many_private_addresses_may_have_any_number() {
        let now = Instant::now();
        let taken = |setting, address| take_all(&Registrations::new(setting), address, now).0;
        assert_eq!(taken(None, OPEN), DEFAULT_MAX_REGISTRATIONS_PER_ADDRESS);
        assert_eq!(taken(None, PRIVATE), u32::MAX);
        assert_eq!(taken(Some(0), OPEN), u32::MAX);
        assert_eq!(taken(Some(1), PRIVATE), 1);
    }

    #[test]
    fn only_so_many_addresses_are_known_and_others_share_what_one_has() {
        let (registrations, start) = (Registrations::new(Some(2)), Instant::now());
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let num_known = || registrations.table.lock().unwrap().buckets.len();
        for n in 0..MAX_ADDRESSES as u32 {
            _ = registrations.take(address(n), start).unwrap();
        }
        let first = registrations.take(address(1 << 20), start).unwrap();
        _ = registrations.take(address(2 << 20), start).unwrap();
        let spent = registrations.take(address(3 << 20), start);
        assert_eq!(spent.unwrap_err().retry_after, SPAN / 2);
        registrations.put_back(first);
        _ = registrations.take(address(3 << 20), start).unwrap();
        assert_eq!(num_known(), MAX_ADDRESSES);
        _ = registrations.take(address(1), start).unwrap();
        assert!(registrations.take(address(1), start).is_err(), "its own");
        // All but one are full again.
        let later = start + SPAN / 2;
        _ = registrations.take(address(3 << 20), later).unwrap();
        assert_eq!(num_known(), 2);
        let table = registrations.table.lock().unwrap();
        assert!(table.buckets.capacity() < 100);
    }

    #[test]
    fn those_who_come_seldom_are_forgotten_long_before_the_table_is_full() {
        let (registrations, start) = (Registrations::new(Some(3600)), Instant::now());
        for n in 0..10_000u32 {
            let now = start + Duration::from_millis(500) * n;
            _ = registrations.take(IpAddr::from(n.to_be_bytes()), now);
        }
        let num_known = registrations.table.lock().unwrap().buckets.len();
        assert!(num_known < 10, "{num_known}");
    }
}
