//! One line on standard error that says how far a run is; only on a terminal.

use std::io::{IsTerminal, Write};

use super::report::grouped;

#[derive(Debug)]
pub(super) struct Progress {
    name: &'static str,
    on: bool,
}

impl Progress {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            on: std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn show(&self, elapsed_ns: u64, sent_count: u64, received_count: u64) {
        if self.on {
            let (name, seconds) = (self.name, elapsed_ns as f64 / 1e9);
            let (sent, received) = (grouped(sent_count), grouped(received_count));
            // Progress that cannot be shown is no reason to fail.
            let _ = write!(
                std::io::stderr(),
                "\r{name}: {seconds:.1} s, {sent} sent, {received} received   "
            );
        }
    }

    pub(super) fn clear(&self) {
        if self.on {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
