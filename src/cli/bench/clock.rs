//! The one place where the bench reads a clock: it measures, so time is its subject.

use std::time::{Duration, Instant};

/// Nanoseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Never 0, so that 0 can mean none.
    pub(super) fn ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64 + 1
    }
}
