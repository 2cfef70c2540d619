//! What happened in a run: how much, a sum over all of it that two runs of one seed must share, and its end for people.

use std::collections::VecDeque;
use std::hash::Hasher;

/// Lines kept for people.
const TRAIL_COUNT_MAX: usize = 4_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct History {
    sum: Fnv,
    pub(super) event_count: u64,
    trail: VecDeque<String>,
}

/// FNV-1a: the same on every machine and in every build.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl History {
    /// Something happened.
    pub(super) fn note(&mut self, line: String) {
        self.sum.write(line.as_bytes());
        self.event_count += 1;
        if self.trail.len() == TRAIL_COUNT_MAX {
            self.trail.pop_front();
        }
        self.trail.push_back(line);
    }

    /// Bytes passed.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.sum.write(bytes);
    }

    /// The sum over all of it.
    pub(super) fn sum(&self) -> u64 {
        self.sum.finish()
    }

    /// The last lines.
    pub(super) fn into_trail(self) -> Vec<String> {
        self.trail.into()
    }
}
