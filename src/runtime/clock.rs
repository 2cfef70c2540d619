//! The only reader of the system's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::base::Now;

/// Both clocks; the monotonic one counts from the making of this value. It is the one that timers run by: where a
/// test has stopped that, time stands still here too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    /// In a simulation: what the wall clock said when this value was made; it goes on with the other.
    wall_start: Option<Duration>,
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
            wall_start: None,
        }
    }

    /// A clock of a simulation, which reads nothing but the time of timers.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(wall_start: Duration) -> Self {
        Self {
            wall_start: Some(wall_start),
            ..Self::new()
        }
    }

    /// One reading of both. A wall clock before 1970 reads as 1970.
    pub(crate) fn now(&self) -> Now {
        let wall = match self.wall_start {
            Some(start) => start + self.start.elapsed(),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
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
