//! Latencies, counted in buckets of at most 1.6 % width.
//!
//! Not a general histogram: microseconds, up to about 70 minutes, in 2,000 counters.

/// Buckets of each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const POWERS: usize = 26;

/// Counts of durations in microseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; (POWERS + 1) * STEPS as usize],
            total: 0,
            max: 0,
        }
    }

    /// The bucket of a value: exact below 64, then 64 to each power of two.
    fn bucket(micros: u64) -> usize {
        if micros < STEPS {
            return micros as usize;
        }
        let power = micros.ilog2() - STEP_BITS;
        let step = (micros >> power) - STEPS;
        ((u64::from(power) + 1) * STEPS + step) as usize
    }

    /// The middle of a bucket.
    fn value(bucket: usize) -> u64 {
        let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
        if power == 0 {
            return step;
        }
        ((STEPS + step) << (power - 1)) + (1 << (power - 1)) / 2
    }

    pub(crate) fn add(&mut self, micros: u64) {
        let last = self.counts.len() - 1;
        self.counts[Self::bucket(micros).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Returns the value below which `share` (0 to 1) of all lie, or 0 if there are none.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Self::value(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_one_64th_wide() {
        for value in (0..5000).chain((1..30).map(|shift| (1 << shift) + 12345)) {
            let middle = Histogram::value(Histogram::bucket(value));
            assert!(middle.abs_diff(value) * 64 <= value, "{value} → {middle}");
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=60).for_each(|value| histogram.add(value));
        assert_eq!(histogram.quantile(0.5), 30);
        assert_eq!(histogram.quantile(1.0), 60);
        assert_eq!(histogram.quantile(0.0), 1);
        assert_eq!(histogram.max(), 60);
    }
}
