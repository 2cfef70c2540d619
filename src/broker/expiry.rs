//! Times of entries: one whose time has come to expire is settled, wherever it is; one whose rest ends is ready again. Neither
//! before.
//!
//! # Invariants
//! - An entry is not delivered once its time has come, whether or not the timer has seen it yet.
//! - What a client holds expires too: its answer will be accepted and have no effect, as after a purge.

use std::collections::BTreeSet;

use crate::base::{DeathReason, Now};

use super::Broker;
use super::queue::{Afterlife, Entry, QueueNo};

/// Entries that a tick looks at at most, and each other input, so that those that come faster than ticks take them go as
/// fast.
pub(super) const EXPIRE_TICK: usize = 10_000;
pub(super) const EXPIRE_INPUT: usize = 256;

/// Entries by the times at which they expire and at which their rests end. Those settled before stay until they are too many,
/// since few are looked for by their place.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    by_time: BTreeSet<(u64, QueueNo, u64)>,
    /// From so many on, those that are gone are taken out.
    clean_at: usize,
    /// Where that goes on, while it is under way.
    cleaning: Option<(u64, QueueNo, u64)>,
}

const CLEAN_COUNT_MIN: usize = 1_024;
/// Those that one input looks at: less than a millisecond.
const CLEAN_INPUT: usize = 2_048;

impl Expiring {
    pub(super) fn insert(&mut self, at_ms: Option<u64>, no: QueueNo, sequence: u64) {
        if let Some(at_ms) = at_ms {
            self.by_time.insert((at_ms, no, sequence));
        }
    }

    /// The next whose time has come.
    fn pop_due(&mut self, wall_ms: u64) -> Option<(QueueNo, u64)> {
        let &(at_ms, no, sequence) = self.by_time.first()?;
        if at_ms > wall_ms {
            return None;
        }
        self.by_time.pop_first();
        Some((no, sequence))
    }

    /// The next time.
    pub(super) fn first_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at_ms, ..)| *at_ms)
    }
}

impl Broker {
    /// Does what is due.
    pub(super) fn expire(&mut self, now: Now, count_max: usize) {
        self.lapse_due(now, count_max);
        for _ in 0..count_max {
            let Some((no, sequence)) = self.expiring.pop_due(now.wall_ms) else {
                break;
            };
            if !self.expire_one(no, sequence, now) {
                self.wake_one(no, sequence, now);
            }
        }
        self.clean_expiring();
    }

    /// Takes out those that are gone, a piece at a time: there may be millions.
    fn clean_expiring(&mut self) {
        let Expiring {
            by_time,
            clean_at,
            cleaning,
        } = &mut self.expiring;
        if cleaning.is_none() && by_time.len() > (*clean_at).max(CLEAN_COUNT_MIN) {
            *cleaning = by_time.first().copied();
        }
        let Some(from) = *cleaning else { return };
        let queues = &self.queues;
        let is_gone = |&&(_, no, sequence): &&(u64, QueueNo, u64)| {
            let queue = queues.get(no.0 as usize).and_then(Option::as_ref);
            queue.is_none_or(|queue| queue.entries.get(sequence).is_none())
        };
        let mut piece = by_time.range(from..);
        let gone: Vec<_> = piece
            .by_ref()
            .take(CLEAN_INPUT)
            .filter(is_gone)
            .copied()
            .collect();
        *cleaning = piece.next().copied();
        for key in gone {
            by_time.remove(&key);
        }
        if cleaning.is_none() {
            *clean_at = 2 * by_time.len();
        }
    }

    /// When something is due next; of each clock the end of time for nothing.
    pub fn next_due(&self) -> Now {
        Now {
            wall_ms: self.expiring.first_ms().unwrap_or(u64::MAX),
            mono_ms: self.leases.first().map_or(u64::MAX, |(until_ms, ..)| *until_ms),
        }
    }

    /// Does what is due: called as soon as [`Broker::next_due`] has come.
    pub fn handle_due(&mut self, now: Now) {
        self.now = now;
        self.expire(now, EXPIRE_TICK);
        self.dispatch(now);
    }

    #[cfg(test)]
    pub(super) fn expiring_count(&self) -> usize {
        self.expiring.by_time.len()
    }

    /// Lets an entry expire if its time has come. Whether it did.
    pub(super) fn expire_one(&mut self, no: QueueNo, sequence: u64, now: Now) -> bool {
        let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
            return false;
        };
        let Some(entry) = queue.entries.get(sequence) else {
            return false;
        };
        if entry.expires_at_ms().is_none_or(|at| at > now.wall_ms) {
            return false;
        }
        queue.counters.expired_count += 1;
        self.counters.expired_count += 1;
        // What was taken out of a queue for good before ends here, or it would go from queue to queue.
        let again = entry.origin().is_some();
        // One in memory would have to be stored.
        let room = self.room || !entry.is_transient();
        if let Afterlife::In(target) = queue.afterlife(DeathReason::Expired)
            && !again
            && room
        {
            self.bury(no, sequence, &target, DeathReason::Expired, "");
        }
        self.take_out(no, sequence);
        self.mark_dirty(no);
        true
    }

    /// Ends the rest of an entry if its time has come. That of a schedule is one of its times.
    fn wake_one(&mut self, no: QueueNo, sequence: u64, now: Now) {
        let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let entry = queue.entries.get(sequence);
        if entry.is_some_and(Entry::is_schedule) {
            return self.occur(no, sequence, now);
        }
        let due = entry.and_then(Entry::due_at_ms);
        if due.is_some_and(|at| at <= now.wall_ms) && queue.wake(sequence) {
            self.mark_dirty(no);
        }
    }
}
