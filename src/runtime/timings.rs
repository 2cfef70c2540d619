//! How long things take: histograms that many threads may read while one writes, a few additions for each commit.
//!
//! # Not here
//! What is measured, and when: the committer and the core. How it is shown: `api`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper ends of the buckets in microseconds; one more bucket takes the rest.
pub(crate) const BOUNDS_US: [u64; 18] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// What takes time on the way of a message.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    /// A commit: append and flush.
    pub(crate) commit: Histogram,
    /// The flush alone.
    pub(crate) flush: Histogram,
    /// From a durable commit to its messages being handed to connections.
    pub(crate) dispatch: Histogram,
    /// From the first request of a commit to its messages being handed to connections.
    pub(crate) end_to_end: Histogram,
}

/// A count for each bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Histogram {
    /// Adds one.
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// One reading; not one moment for all of its numbers.
    pub(crate) fn view(&self) -> HistogramView {
        HistogramView {
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
            max_us: self.max_us.load(Ordering::Relaxed),
        }
    }
}

/// One reading of a histogram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistogramView {
    /// For each of [`BOUNDS_US`], and for the rest.
    pub(crate) counts: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum_us: u64,
    pub(crate) max_us: u64,
}

impl HistogramView {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// So many of 1,000 took no longer than this: the upper end of their bucket, but never more than the longest.
    pub(crate) fn permille_us(&self, permille: u64) -> u64 {
        let wanted = (self.count() * permille).div_ceil(1_000);
        let mut seen = 0;
        for (count, bound) in self.counts.iter().zip(BOUNDS_US) {
            seen += count;
            if seen >= wanted {
                return bound.min(self.max_us);
            }
        }
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_its_bucket() {
        let histogram = Histogram::default();
        for us in [0, 20, 21, 10_000_000, 10_000_001, u64::MAX / 4] {
            histogram.record(Duration::from_micros(us));
        }
        let view = histogram.view();
        let mut expected = [0; BOUNDS_US.len() + 1];
        expected[0] = 2;
        expected[1] = 1;
        expected[BOUNDS_US.len() - 1] = 1;
        expected[BOUNDS_US.len()] = 2;
        assert_eq!(view.counts, expected);
        assert_eq!((view.count(), view.max_us), (6, u64::MAX / 4));
    }

    #[test]
    fn a_percentile_is_the_end_of_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.view().permille_us(500), 0);
        for us in 1..=100 {
            histogram.record(Duration::from_micros(us * 1_000));
        }
        let view = histogram.view();
        assert_eq!(view.permille_us(500), 50_000);
        assert_eq!(view.permille_us(510), 100_000);
        assert_eq!(view.permille_us(1_000), 100_000);
    }
}
