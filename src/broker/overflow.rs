//! What a queue holds at most, by its policy: messages that wait, and their bytes. What clients hold does not count, so that
//! a full queue flows on.
//!
//! # Invariants
//! - A client's message for a full queue that refuses is refused before anything is done.
//! - What comes from elsewhere (a dead letter, an operator's move) was accepted once: it is never refused, and only
//!   `drop-head` lets something go for it.

use crate::base::{DeathReason, Overflow, Policy};
use crate::port::Refusal;

use super::Broker;
use super::queue::{Afterlife, Queue, QueueNo};

/// Entries that one input takes out of a queue at most; the rest goes with the ticks.
pub(super) const SHED_INPUT: usize = 1_000;
pub(super) const SHED_TICK: usize = 10_000;

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
            || over(
                self.bytes - self.away_bytes - self.schedule_bytes + more_bytes,
                message_bytes_max,
            )
    }

    fn waiting_count(&self) -> u64 {
        self.entries.len() as u64 - self.leased_count - self.set_aside_count - self.schedule_count
    }
}

impl Broker {
    /// Refuses messages for a queue that is full, or would be.
    pub(super) fn admit(&mut self, no: QueueNo, count: u64, bytes: u64) -> Result<(), Refusal> {
        let queue = self.queue(no).expect("the queue was just opened");
        // One that has no dead-letter queue does not let go of what it has.
        let refuses = match queue.policy.overflow {
            Overflow::Refuse => true,
            Overflow::DropHead => false,
            Overflow::DeadLetter => queue.afterlife(DeathReason::Overflow) == Afterlife::Stays,
        };
        let refuses = refuses && queue.is_bounded();
        if refuses && queue.is_over(count, bytes) {
            // It may have been opened for this message.
            self.mark_dirty(no);
            return Err(Refusal::QueueFull);
        }
        Ok(())
    }

    /// A queue may hold too much.
    pub(super) fn watch_bound(&mut self, no: QueueNo) {
        let queue = self.queue(no);
        if queue.is_some_and(|queue| queue.is_bounded() && queue.policy.overflow != Overflow::Refuse) {
            self.overfull.insert(no);
        }
    }

    /// Makes room in queues that hold too much: takes out so many entries of each at most.
    pub(super) fn shed(&mut self, count_max: usize) {
        for no in std::mem::take(&mut self.overfull) {
            self.shed_one(no, count_max);
        }
    }

    fn shed_one(&mut self, no: QueueNo, count_max: usize) {
        for _ in 0..count_max {
            let room = self.room;
            let Some(queue) = self.queue_mut(no).filter(|queue| queue.is_over(0, 0)) else {
                return;
            };
            let Some(sequence) = queue.oldest_waiting() else {
                return;
            };
            let entry = queue.entries.get(sequence).expect("it waits");
            // What is a dead letter already does not go from queue to queue; one in memory would have to be stored.
            let movable = entry.origin().is_none() && (room || !entry.is_transient());
            let afterlife = match queue.policy.overflow {
                Overflow::Refuse => return,
                Overflow::DropHead => Afterlife::Ends,
                Overflow::DeadLetter => queue.afterlife(DeathReason::Overflow),
            };
            match afterlife {
                Afterlife::In(target) if movable => {
                    self.bury(no, sequence, &target, DeathReason::Overflow, "")
                }
                Afterlife::In(_) | Afterlife::Stays => return,
                Afterlife::Ends => {
                    queue.counters.dropped_count += 1;
                    self.counters.dropped_count += 1;
                }
            }
            self.take_out(no, sequence);
            self.mark_dirty(no);
        }
        self.overfull.insert(no);
    }
}
