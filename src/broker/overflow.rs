//! What a queue holds at most, by its policy: messages that wait, and their bytes. What clients hold does not count, so that
//! a full queue flows on.
//!
//! # Invariants
//! - A client's message for a full queue that refuses is refused before anything is done.
//! - What comes from elsewhere (a dead letter, an operator's move) was accepted once: it is never refused, and only
//!   `drop-head` lets something go for it.

use crate::base::{Overflow, Policy};
use crate::port::Refusal;

use super::Broker;
use super::queue::{Queue, QueueNo};

/// Entries that one input takes out of a queue at most; the rest goes with the ticks.
const SHED_INPUT: usize = 1_000;
const SHED_TICK: usize = 10_000;

impl Queue {
    /// Whether it has a bound.
    pub(super) fn is_bounded(&self) -> bool {
        self.policy.message_count_max > 0 || self.policy.message_bytes_max > 0
    }

    /// Whether it would hold too much with so many messages more, of so many bytes.
    fn is_over(&self, more_count: u64, more_bytes: u64) -> bool {
        let Policy {
            message_count_max,
            message_bytes_max,
            ..
        } = *self.policy;
        let over = |is: u64, max: u64| max > 0 && is > max;
        over(self.waiting_count() + more_count, message_count_max)
            || over(self.bytes - self.away_bytes + more_bytes, message_bytes_max)
    }

    fn waiting_count(&self) -> u64 {
        self.entries.len() as u64 - self.leased_count - self.set_aside_count
    }
}

impl Broker {
    /// Refuses messages for a queue that is full, or would be.
    pub(super) fn admit(&mut self, no: QueueNo, count: u64, bytes: u64) -> Result<(), Refusal> {
        let queue = self.queue(no).expect("the queue was just opened");
        let refuses = queue.is_bounded() && queue.policy.overflow == Overflow::Refuse;
        if refuses && queue.is_over(count, bytes) {
            // It may have been opened for this message.
            self.mark_dirty(no);
            return Err(Refusal::QueueFull);
        }
        Ok(())
    }

    /// Makes room in a queue that holds too much, if it drops its oldest.
    pub(super) fn shed(&mut self, no: QueueNo) {
        self.shed_some(no, SHED_INPUT);
    }

    /// Goes on with queues that hold too much.
    pub(super) fn shed_tick(&mut self) {
        let all = std::mem::take(&mut self.overfull);
        all.into_iter().for_each(|no| self.shed_some(no, SHED_TICK));
    }

    fn shed_some(&mut self, no: QueueNo, count_max: usize) {
        for _ in 0..count_max {
            let Some(queue) = self.queue_mut(no) else { return };
            if queue.policy.overflow != Overflow::DropHead || !queue.is_over(0, 0) {
                return;
            }
            let Some(sequence) = queue.oldest_waiting() else {
                return;
            };
            queue.counters.dropped_count += 1;
            self.counters.dropped_count += 1;
            self.take_out(no, sequence);
            self.mark_dirty(no);
        }
        self.overfull.insert(no);
    }
}
