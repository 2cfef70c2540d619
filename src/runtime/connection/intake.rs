//! How much a connection sends: what it handed over in the present window of time, and in the one before.

use crate::base::Now;

/// The windows.
const WINDOW_MS: u64 = 100;

/// Whoever hands over so much in two windows is heavy: some hundred KiB a second.
const HEAVY_BYTES_MIN: usize = 64 * 1024;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Intake {
    window: u64,
    bytes: usize,
    bytes_before: usize,
}

impl Intake {
    /// Frames of so many bytes came.
    pub(super) fn note(&mut self, count: usize, now: Now) {
        self.move_to(now);
        self.bytes = self.bytes.saturating_add(count);
    }

    /// Whether that was much lately.
    pub(super) fn is_heavy(&mut self, now: Now) -> bool {
        self.move_to(now);
        self.bytes.saturating_add(self.bytes_before) >= HEAVY_BYTES_MIN
    }

    fn move_to(&mut self, now: Now) {
        let window = now.mono_ms / WINDOW_MS;
        if window == self.window {
            return;
        }
        let follows = window == self.window + 1;
        self.bytes_before = if follows { self.bytes } else { 0 };
        self.bytes = 0;
        self.window = window;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_is_who_sent_much_in_this_window_or_the_one_before() {
        let at = |mono_ms| Now { wall_ms: 0, mono_ms };
        let mut intake = Intake::default();
        intake.note(HEAVY_BYTES_MIN - 1, at(50));
        assert!(!intake.is_heavy(at(99)), "one byte less than the bound");
        intake.note(1, at(100));
        assert!(intake.is_heavy(at(199)), "the bound");
        assert!(!intake.is_heavy(at(200)), "the first window is too long ago");
        intake.note(HEAVY_BYTES_MIN, at(250));
        assert!(intake.is_heavy(at(399)));
        assert!(!intake.is_heavy(at(400)));
    }
}
