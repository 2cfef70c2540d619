//! The course of a run: rate and latency in one interval after the other.
//!
//! # Invariants
//! - Every message recorded is in exactly one interval, and an interval's rate counts the time that it really took.

use std::time::Duration;

use hdrhistogram::CreationError;
use hdrhistogram::Histogram;

use super::report::Latency;

/// Up to 60 s in nanoseconds; longer ones count as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// An interval is at least this long, and so long where the length of the run is not known.
const INTERVAL_NS_MIN: u64 = 100_000_000;
/// A run of known length has about so many intervals.
const INTERVAL_COUNT: u64 = 200;

/// A histogram as every latency of the bench is recorded in: three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
}

/// One kind of event within an interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) rate_per_s: f64,
    /// `None` where no latency was recorded.
    pub(super) latency_us: Option<Latency>,
}

/// One interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Its end, from the start of the run.
    pub(super) at_s: f64,
    /// Messages confirmed by a RECEIPT.
    pub(super) confirmed: Course,
    /// Messages delivered.
    pub(super) delivered: Course,
}

#[derive(Debug)]
struct Lane {
    count: u64,
    latency_ns: Histogram<u64>,
}

impl Lane {
    fn record(&mut self, count: u64, latency_ns: Option<u64>) {
        self.count += count;
        if let Some(latency_ns) = latency_ns {
            self.latency_ns.saturating_record(latency_ns);
        }
    }

    fn take(&mut self, seconds: f64) -> Course {
        let course = Course {
            rate_per_s: self.count as f64 / seconds,
            latency_us: Latency::of(&self.latency_ns),
        };
        self.count = 0;
        self.latency_ns.reset();
        course
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Timeline {
    start_ns: u64,
    began_ns: u64,
    interval_ns: u64,
    confirmed: Lane,
    delivered: Lane,
    points: Vec<Point>,
}

impl Timeline {
    /// `length` is how long the run will take, where that is known.
    pub(super) fn new(length: Option<Duration>) -> Result<Self, CreationError> {
        let interval_ns = length.map_or(0, |length| length.as_nanos() as u64 / INTERVAL_COUNT);
        let lane = || {
            Ok(Lane {
                count: 0,
                latency_ns: histogram()?,
            })
        };
        Ok(Self {
            start_ns: 0,
            began_ns: 0,
            interval_ns: interval_ns.max(INTERVAL_NS_MIN),
            confirmed: lane()?,
            delivered: lane()?,
            points: Vec::new(),
        })
    }

    /// The run begins now.
    pub(super) fn start(&mut self, now_ns: u64) {
        self.start_ns = now_ns;
        self.began_ns = now_ns;
    }

    pub(super) fn confirmed(&mut self, count: u64, latency_ns: u64) {
        self.confirmed.record(count, Some(latency_ns));
    }

    pub(super) fn delivered(&mut self, latency_ns: Option<u64>) {
        self.delivered.record(1, latency_ns);
    }

    /// Ends the interval if it is over.
    pub(super) fn roll(&mut self, now_ns: u64) {
        if now_ns >= self.began_ns + self.interval_ns {
            self.close(now_ns);
        }
    }

    fn close(&mut self, now_ns: u64) {
        let seconds = now_ns.saturating_sub(self.began_ns) as f64 / 1e9;
        if seconds > 0.0 {
            self.points.push(Point {
                at_s: now_ns.saturating_sub(self.start_ns) as f64 / 1e9,
                confirmed: self.confirmed.take(seconds),
                delivered: self.delivered.take(seconds),
            });
            self.began_ns = now_ns;
        }
    }

    /// All intervals. The last one is left out if it is too short for its rate to mean something and not the only one.
    pub(super) fn finish(mut self, now_ns: u64) -> Vec<Point> {
        if self.points.is_empty() || now_ns >= self.began_ns + self.interval_ns / 4 {
            self.close(now_ns);
        }
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn each_interval_has_its_own_rate_and_latency() {
        let mut timeline = Timeline::new(None).unwrap();
        timeline.start(5 * MS);
        for _ in 0..50 {
            timeline.confirmed(2, 3_000);
        }
        timeline.roll(104 * MS);
        timeline.roll(105 * MS);
        timeline.delivered(Some(7_000_000));
        timeline.delivered(None);
        // The loop was held up: the interval is as long as it was.
        timeline.roll(305 * MS);
        let points = timeline.finish(306 * MS);
        assert_eq!(points.len(), 2);
        assert!((points[0].at_s - 0.1).abs() < 1e-9 && (points[1].at_s - 0.3).abs() < 1e-9);
        assert!((points[0].confirmed.rate_per_s - 1000.0).abs() < 1e-6);
        assert!((points[0].confirmed.latency_us.unwrap().p50 - 3.0).abs() < 0.01);
        assert!(points[1].confirmed.latency_us.is_none());
        assert!((points[1].delivered.rate_per_s - 10.0).abs() < 1e-6);
        assert!((points[1].delivered.latency_us.unwrap().max - 7000.0).abs() < 10.0);
    }

    #[test]
    fn a_short_run_has_one_interval_and_a_long_one_not_too_many() {
        let mut timeline = Timeline::new(None).unwrap();
        timeline.start(0);
        timeline.confirmed(1, 1);
        assert_eq!(timeline.finish(MS).len(), 1);
        assert_eq!(
            Timeline::new(Some(Duration::from_secs(200))).unwrap().interval_ns,
            1_000 * MS
        );
    }
}
