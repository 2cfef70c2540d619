//! The one place where the command line reads clocks: it measures and waits; nothing of the broker runs here.
#![expect(
    clippy::disallowed_methods,
    reason = "a client of the broker has no clock handed to it"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since it was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// In nanoseconds; never 0, so that 0 can mean none.
    pub(super) fn ns(self) -> u64 {
        u64::try_from(self.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// Nanoseconds since the Unix epoch, to compare with what a script has noted.
pub(super) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits a moment before a broker that is not up yet is asked again.
pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
