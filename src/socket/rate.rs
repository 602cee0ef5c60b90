//! How many events one client may send: a token bucket ([`crate::bucket`]), and the patience with who goes on when it is empty.
//!
//! Plain struct: it is told the time and the limit and says what is to become of an event; the actor does it. Two moments are all
//! that it knows, since every session has one.
//!
//! ```text
//! allowance   2 s worth, refilled at the rate      ── empty: the event is refused, its ack says `rate_limited`
//! patience    2 s worth of refusals, refilled at a tenth of the rate  ── empty: the client is disconnected
//! ```
//! A client that sends at twice its rate is refused after two seconds and disconnected after about two more; one that sends a
//! tenth too much loses a tenth of its events and stays.

use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// How many seconds of its rate a client may send at once.
const BURST_SECONDS: u32 = 2;

/// How much slower patience comes back than the allowance.
const PATIENCE_FACTOR: u32 = 10;

/// What is to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is handled.
    Take,
    /// It is not handled, and whoever sent it is told if it wants an ack.
    Refuse,
    /// Its client has been refused too often.
    Disconnect,
}

/// The rate of one client.
#[derive(Debug)]
pub(super) struct Rate {
    allowance: Bucket,
    patience: Bucket,
}

impl Rate {
    /// Returns the rate of a client that has sent nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            allowance: Bucket::new(now),
            patience: Bucket::new(now),
        }
    }

    /// Judges an event that has come from a client that may send `per_second` of them; 0 is no limit.
    pub(super) fn judge(&mut self, now: Instant, per_second: u32) -> Verdict {
        let Some(interval) = Duration::from_secs(1).checked_div(per_second) else {
            return Verdict::Take;
        };
        let burst = per_second.saturating_mul(BURST_SECONDS);
        if self.allowance.take(now, interval, burst) {
            Verdict::Take
        } else if self.patience.take(now, interval * PATIENCE_FACTOR, burst) {
            Verdict::Refuse
        } else {
            Verdict::Disconnect
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends at `rate` for `seconds` against a limit of 100; returns how many were taken and refused, and whether it still
    /// stands.
    fn send(rate: u32, seconds: u32) -> (u32, u32, bool) {
        let start = Instant::now();
        let mut limited = Rate::new(start);
        let (mut taken, mut refused) = (0, 0);
        for n in 0..rate * seconds {
            match limited.judge(start + Duration::from_secs(1) * n / rate, 100) {
                Verdict::Take => taken += 1,
                Verdict::Refuse => refused += 1,
                Verdict::Disconnect => return (taken, refused, false),
            }
        }
        (taken, refused, true)
    }

    #[test]
    fn who_stays_below_the_rate_is_never_refused() {
        assert_eq!(send(100, 600), (60_000, 0, true));
        assert_eq!(send(1, 600), (600, 0, true));
    }

    #[test]
    fn a_burst_of_two_seconds_passes() {
        let start = Instant::now();
        let mut limited = Rate::new(start);
        let verdicts: Vec<_> = (0..401).map(|_| limited.judge(start, 100)).collect();
        assert!(verdicts[..200].iter().all(|v| *v == Verdict::Take));
        assert!(verdicts[200..400].iter().all(|v| *v == Verdict::Refuse));
        assert_eq!(verdicts[400], Verdict::Disconnect);
        let later = start + Duration::from_secs(2);
        assert_eq!(limited.judge(later, 100), Verdict::Take, "it comes back");
    }

    #[test]
    fn who_sends_a_little_too_much_is_refused_as_much_and_stays() {
        let (taken, refused, stands) = send(110, 600);
        assert!(stands);
        assert!((60_000..=60_201).contains(&taken), "{taken}");
        assert_eq!(taken + refused, 66_000);
    }

    #[test]
    fn who_goes_on_at_twice_the_rate_is_disconnected_after_a_few_seconds() {
        let (taken, refused, stands) = send(200, 600);
        assert!(!stands);
        assert!((600..=650).contains(&taken), "{taken}");
        assert!((200..=250).contains(&refused), "{refused}");
    }

    #[test]
    fn zero_is_no_limit() {
        let start = Instant::now();
        let mut unlimited = Rate::new(start);
        let verdicts = (0..100_000).map(|_| unlimited.judge(start, 0));
        assert!(verdicts.into_iter().all(|verdict| verdict == Verdict::Take));
    }
}
