//! How long to wait before the next attempt to connect: twice as long each time, with jitter, for ever.
//!
//! The jitter keeps many instances from coming back to a restarted Redis in the same instant.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Shortest delay before jitter.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(100);
/// Longest delay before jitter, which at most doubles it: so no more than 5 s.
pub(super) const MAX_DELAY: Duration = Duration::from_millis(2500);

/// Returns the delays of one outage.
pub(super) fn delays() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(MIN_DELAY)
        .with_max_delay(MAX_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
        .chain(std::iter::repeat(MAX_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_their_limit_and_never_end() {
        let first: Vec<Duration> = delays().take(20).collect();
        for (index, delay) in first.iter().enumerate() {
            let without_jitter = MAX_DELAY.min(MIN_DELAY * 2_u32.saturating_pow(index as u32));
            assert!(
                (without_jitter..=2 * without_jitter).contains(delay),
                "{index}: {delay:?}"
            );
        }
        assert_eq!(delays().take(10_000).count(), 10_000);
        assert_ne!(
            first,
            delays().take(20).collect::<Vec<_>>(),
            "there is no jitter"
        );
    }
}
