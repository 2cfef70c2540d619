//! The only reader of the system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::Now;

/// Both clocks; the monotonic one counts from the making of this value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads the clocks"
)]
impl Clock {
    /// A clock whose monotonic time begins now.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// One reading of both. A wall clock before 1970 reads as 1970.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            wall_ms: millis(wall),
            mono_ms: millis(self.start.elapsed()),
        }
    }

    /// Monotonic time, as fine as the system has it; for measuring.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The moment of a monotonic time, for timers.
    pub(crate) fn instant(&self, mono_ms: u64) -> Instant {
        // A deadline beyond what the clock can name is as good as a year away.
        self.start
            .checked_add(Duration::from_millis(mono_ms))
            .unwrap_or_else(|| self.start + Duration::from_secs(365 * 24 * 3600))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
