//! Silence, ours and the peer's: heart-beats, and the progress of a frame begun.

use super::SessionConfig;
use crate::base::Limits;

/// Heart-beats of one connection, both ways. An interval of 0 is none.
#[derive(Debug)]
pub(super) struct HeartBeat {
    /// We write something at least this often.
    send_ms: u64,
    /// The peer is dead after this long without a byte; the margin is in it.
    dead_ms: u64,
    wrote_at: u64,
    received_at: u64,
}

impl HeartBeat {
    /// None yet.
    pub(super) fn new(at: u64) -> Self {
        Self {
            send_ms: 0,
            dead_ms: 0,
            wrote_at: at,
            received_at: at,
        }
    }

    /// Begins with what the client can (`can_ms`) and wants (`wants_ms`); returns what we can and want.
    pub(super) fn agree(
        &mut self,
        config: &SessionConfig,
        (can_ms, wants_ms): (u64, u64),
        at: u64,
    ) -> (u64, u64) {
        let ours = |theirs: u64| {
            if theirs == 0 {
                0
            } else {
                theirs.max(config.heart_beat_ms_min)
            }
        };
        let (send_ms, receive_ms) = (ours(wants_ms), ours(can_ms));
        self.send_ms = send_ms;
        self.dead_ms = receive_ms.saturating_mul(config.heart_beat_margin_percent) / 100;
        self.wrote_at = at;
        (send_ms, receive_ms)
    }

    pub(super) fn handle_wrote(&mut self, at: u64) {
        self.wrote_at = at;
    }

    pub(super) fn handle_received(&mut self, at: u64) {
        self.received_at = at;
    }

    /// When a beat of ours is due: early enough that it arrives within the interval.
    pub(super) fn beat_due(&self) -> Option<u64> {
        let early_ms = (self.send_ms - self.send_ms / 4).max(1);
        (self.send_ms > 0).then(|| self.wrote_at.saturating_add(early_ms))
    }

    /// When the peer is dead.
    pub(super) fn dead_due(&self) -> Option<u64> {
        (self.dead_ms > 0).then(|| self.received_at.saturating_add(self.dead_ms))
    }
}

/// The window over which the progress of a frame begun is averaged.
#[derive(Debug)]
pub(super) struct Progress {
    began_at: u64,
    /// Bytes of the frame when the window began, and now.
    held_before: usize,
    pub(super) held: usize,
}

impl Progress {
    /// A frame was begun.
    pub(super) fn new(held: usize, at: u64) -> Self {
        Self {
            began_at: at,
            held_before: 0,
            held,
        }
    }

    /// When the window ends.
    pub(super) fn due(&self, limits: &Limits) -> u64 {
        self.began_at.saturating_add(limits.frame_progress_window_ms)
    }

    /// Begins the next window; false if too little came in this one.
    pub(super) fn turn(&mut self, limits: &Limits, at: u64) -> bool {
        let due = limits
            .frame_bytes_per_second_min
            .saturating_mul(limits.frame_progress_window_ms)
            / 1000;
        let came = (self.held - self.held_before) as u64;
        self.restart(at);
        came >= due
    }

    /// Begins a window anew: what came so far no longer counts, nor does the silence.
    pub(super) fn restart(&mut self, at: u64) {
        self.began_at = at;
        self.held_before = self.held;
    }
}
