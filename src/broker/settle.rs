//! The end of a delivery: accepted, failed (with its dead letter), released.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{MessageId, Now, SessionNo, Tag};
use crate::journal::{Fact, Item, Place, field};
use crate::port::Outcome;

use super::peer::HeldState;
use super::queue::{DEAD_LETTER_PREFIX, Entry, EntryBytes, QueueNo};
use super::{Broker, Notice};

/// A stored entry to be made.
#[derive(Debug)]
pub(super) struct Enqueue {
    pub(super) message: MessageId,
    pub(super) accepted_at_ms: u64,
    pub(super) place: Place,
    pub(super) item: Item,
    pub(super) fields: Vec<(u8, Bytes)>,
}

impl Broker {
    /// Settles a delivery that is held or staged.
    pub(super) fn conclude(&mut self, session: SessionNo, tag: Tag, outcome: Outcome, now: Now) {
        let peer = self
            .peers
            .get_mut(&session)
            .expect("requests come from an open session");
        let Some(held) = peer.unhold(tag) else { return };
        let (mut by, mut freed) = (None, None);
        if let Some(sub) = peer.subs.get_mut(&held.sub) {
            by = Some((session, held.sub));
            if held.state == HeldState::Held {
                sub.let_go(tag);
            }
            sub.beyond.forget(tag);
            sub.moved_at_ms = now.mono_ms;
            if std::mem::take(&mut sub.stuck_told) {
                freed = sub.queue();
            }
        }
        if let Some(queue) = freed.and_then(|no| self.queue_mut(no)) {
            queue.stuck_count -= 1;
        }
        match (outcome, held.entry) {
            (Outcome::Accepted, entry) => {
                self.counters.accepted_count += 1;
                if let Some((no, sequence)) = entry
                    && self.remove(no, sequence).is_some()
                    && let Some(queue) = self.queue_mut(no)
                {
                    queue.counters.accepted_count += 1;
                    if queue.is_idle() {
                        self.mark_dirty(no);
                    }
                }
            }
            (outcome, entry) => {
                self.counters.failed_count += 1;
                if let Some((queue, sequence)) = entry {
                    self.fail(queue, sequence, by, outcome == Outcome::Rejected);
                }
            }
        }
        if by.is_some() {
            self.refill(session, held.sub);
        }
    }

    /// Takes an entry out for good and states so.
    pub(super) fn remove(&mut self, no: QueueNo, sequence: u64) -> Option<Entry> {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let taken = queue.and_then(|queue| queue.take(sequence).map(|entry| (queue, entry)));
        let Some((queue, entry)) = taken else {
            self.end_lingering(no, sequence);
            return None;
        };
        if let EntryBytes::Memory(bytes) = &entry.bytes {
            self.transient_bytes -= bytes.len();
            self.transient_count -= 1;
            return Some(entry);
        }
        let index = self.ledger.settled_index(queue);
        self.ledger.state_settled(index, sequence, sequence);
        self.ledger.forget(entry.home);
        self.ledger.release(&entry.bytes, entry.len);
        Some(entry)
    }

    /// Counts a failure: back to its old place, or to the dead-letter queue; one `rejected` is not given again.
    fn fail(&mut self, no: QueueNo, sequence: u64, by: Option<super::SubRef>, rejected: bool) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let Some(queue) = queue.filter(|queue| queue.entries.get(sequence).is_some()) else {
            self.end_lingering(no, sequence);
            return;
        };
        queue.counters.failed_count += 1;
        let (has_dead_letters, temporary) = (queue.has_dead_letters(), queue.owner.is_some());
        let entry = queue.entries.get_mut(sequence).expect("it was just seen");
        entry.failures += 1;
        let (failures, deliveries, transient) = (entry.failures, entry.deliveries, entry.is_transient());
        // One in memory would have to be stored: without room it stays, and its next failure moves it.
        let failed_for_good = u64::from(failures) >= queue.policy.deliveries_failed_max;
        if (rejected || failed_for_good) && has_dead_letters && (self.room || !transient) {
            self.move_to_dead_letters(no, sequence);
            return;
        }
        // What is in nobody's dead-letter queue ends here.
        if rejected && temporary {
            self.remove(no, sequence);
            return;
        }
        if !transient {
            let (queue, ranges) = (Arc::clone(&queue.name), vec![(sequence, sequence)]);
            self.ledger.state(Fact::Counted {
                queue,
                ranges,
                deliveries: Some(deliveries),
                failures,
            });
        }
        let queue = self.queue_mut(no).expect("it was just there");
        queue.give_back(sequence);
        if let Some(by) = by {
            queue.nacked_by.insert(sequence, by);
        }
        self.mark_dirty(no);
    }

    /// Settles an entry and enqueues its message in the dead-letter queue, in one batch and without a second body.
    fn move_to_dead_letters(&mut self, no: QueueNo, sequence: u64) {
        let queue = self
            .queues
            .get(no.0 as usize)
            .and_then(Option::as_ref)
            .expect("its entry was just seen");
        let origin = Arc::clone(&queue.name);
        let entry = queue.entries.get(sequence).expect("it was just seen");
        let place = match &entry.bytes {
            EntryBytes::Memory(bytes) => {
                let bytes = Bytes::clone(bytes);
                self.ledger.place_shared(&bytes)
            }
            stored => {
                let place = stored
                    .place(|slot| self.ledger.chunk_in(slot))
                    .expect("it is stored");
                self.ledger.share(stored, entry.len);
                place
            }
        };
        let entry = self.remove(no, sequence).expect("it was just seen");
        let target = self.open_queue(&format!("{DEAD_LETTER_PREFIX}{origin}"));
        // Keeps queue sequences below the numbers handed out, though the message has its number already.
        self.ledger.take_id();
        let fields = vec![
            (
                field::DEAD_LETTER_ORIGIN,
                Bytes::copy_from_slice(origin.as_bytes()),
            ),
            (
                field::DEAD_LETTER_FAILURES,
                Bytes::copy_from_slice(&entry.failures.to_be_bytes()),
            ),
        ];
        let (message, accepted_at_ms, item) = (entry.message, entry.accepted_at_ms, entry.item());
        self.enqueue(
            target,
            &Enqueue {
                message,
                accepted_at_ms,
                place,
                item,
                fields,
            },
        );
        self.counters.dead_lettered_count += 1;
        let target = Arc::clone(&self.queue(target).expect("it was just opened").name);
        self.notices.push_back(Notice::DeadLettered {
            queue: origin,
            target,
            message,
            failures: entry.failures,
        });
        let queue = self.queue_mut(no).expect("it was just there");
        queue.counters.dead_lettered_count += 1;
        if queue.is_idle() {
            self.mark_dirty(no);
        }
    }

    /// The bytes of a delivery cannot be read, so that nobody has got it: its entry is set aside, for the queue to flow on.
    /// Gives queue, sequence and message, unless the entry is the session's no more.
    pub fn handle_unreadable(
        &mut self,
        session: SessionNo,
        tag: Tag,
        now: Now,
    ) -> Option<(Arc<str>, u64, MessageId)> {
        self.now = now;
        let peer = self.peers.get_mut(&session)?;
        // One that was ended is its queue's again, and one that the client has answered is the client's.
        let held = *peer.held.get(tag.0)?;
        if held.state != HeldState::Held {
            return None;
        }
        peer.unhold(tag);
        if let Some(sub) = peer.subs.get_mut(&held.sub) {
            sub.let_go(tag);
            sub.beyond.forget(tag);
            sub.beyond.give_back();
        }
        let (no, sequence) = held.entry?;
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let set_aside = queue.and_then(|queue| {
            let name = Arc::clone(&queue.name);
            let entry = queue.set_aside(sequence)?;
            entry.deliveries -= 1;
            Some((name, sequence, entry.message))
        });
        match set_aside {
            Some(_) => self.counters.set_aside_count += 1,
            // It was purged meanwhile.
            None => self.end_lingering(no, sequence),
        }
        self.refill(session, held.sub);
        self.dispatch(now);
        set_aside
    }

    /// Gives an entry back without blame. `never`: its delivery was not taken by the driver, so it never was.
    pub(super) fn release(&mut self, no: QueueNo, sequence: u64, never: bool) {
        let entry = self.queue_mut(no).and_then(|queue| queue.give_back(sequence));
        let Some(entry) = entry else {
            self.end_lingering(no, sequence);
            return;
        };
        entry.deliveries -= u32::from(never);
        self.counters.released_count += 1;
        self.mark_dirty(no);
    }
}
