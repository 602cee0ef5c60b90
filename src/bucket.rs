//! A token bucket that is one moment: when it would be full again, if nothing more is taken. That says how many tokens there are.
//!
//! Plain struct: it is told the time, how many tokens fit, and how long it is until one comes back.

use std::time::{Duration, Instant};

/// A bucket that is full at first.
#[derive(Debug)]
pub(crate) struct Bucket(Instant);

impl Bucket {
    pub(crate) fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Takes a token, if there is one of the `num` that fit, and that come back one every `interval`.
    pub(crate) fn take(&mut self, now: Instant, interval: Duration, num: u32) -> bool {
        let full_at = self.0.max(now) + interval;
        let has_one = full_at <= now + interval * num;
        if has_one {
            self.0 = full_at;
        }
        has_one
    }

    /// Puts back a token that was taken with the same `interval`.
    pub(crate) fn put_back(&mut self, interval: Duration) {
        self.0 = self.0.checked_sub(interval).unwrap_or(self.0);
    }

    /// Returns how long it is until there is a token.
    pub(crate) fn next(&self, now: Instant, interval: Duration, num: u32) -> Duration {
        let full_at = self.0.max(now) + interval;
        full_at.saturating_duration_since(now + interval * num)
    }

    /// Returns whether it is as good as new.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_one_after_the_other_and_no_more_than_fit() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut bucket = Bucket::new(start);
        let all = |bucket: &mut Bucket, now| {
            let taken = std::iter::from_fn(|| bucket.take(now, second, 3).then_some(()));
            taken.count()
        };
        assert!(bucket.is_full(start) && bucket.next(start, second, 3).is_zero());
        assert_eq!(all(&mut bucket, start), 3);
        assert_eq!(bucket.next(start, second, 3), second);
        let later = start + second / 4;
        assert_eq!(bucket.next(later, second, 3), second * 3 / 4);
        assert!(!bucket.take(later, second, 3));
        bucket.put_back(second);
        assert_eq!(all(&mut bucket, later), 1);
        assert_eq!(all(&mut bucket, start + second * 2), 2);
        assert!(!bucket.is_full(start + second * 4));
        assert!(bucket.is_full(start + second * 5));
        assert_eq!(all(&mut bucket, start + second * 100), 3);
    }
}
