//! How far a long command is, for whoever watches it on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::clock::Clock;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A line on standard error that is written over and over; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    verb: &'static str,
    terminal: bool,
    clock: Clock,
    shown_at: Option<Duration>,
}

impl Progress {
    pub(super) fn new(verb: &'static str) -> Self {
        Self {
            verb,
            terminal: std::io::stderr().is_terminal(),
            clock: Clock::start(),
            shown_at: None,
        }
    }

    /// How far it is now.
    pub(super) fn tell(&mut self, amount: impl FnOnce() -> String) {
        let now = self.clock.elapsed();
        if self.terminal && now >= self.shown_at.unwrap_or_default() + PAUSE {
            self.shown_at = Some(now);
            // Progress that cannot be shown is no reason to fail.
            let _ = write!(std::io::stderr(), "\r\x1b[K{} {}", self.verb, amount());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
