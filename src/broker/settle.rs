//! The end of a delivery: accepted, failed (with its dead letter), released.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Death, DeathReason, MessageId, Now, Policy, SessionNo, Tag};
use crate::journal::{Fact, Item, Place, field};
use crate::port::{Outcome, Why};

use super::lanes::PLAIN;
use super::peer::HeldState;
use super::queue::{Afterlife, Entry, EntryBytes, Queue, QueueNo};
use super::{Broker, Notice};

/// A stored entry to be made.
#[derive(Debug)]
pub(super) struct Enqueue<'a> {
    /// Its header block, if that is at hand.
    pub(super) block: Option<&'a [u8]>,
    pub(super) message: MessageId,
    pub(super) accepted_at_ms: u64,
    pub(super) place: Place,
    pub(super) item: Item,
    pub(super) fields: Vec<(u8, Bytes)>,
}

/// What is known of a failure.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failure<'a> {
    /// It is not to be given again.
    pub(super) rejected: bool,
    /// How long it rests, if the consumer says so.
    pub(super) delay_ms: Option<u64>,
    /// The consumer's words.
    pub(super) words: &'a str,
}

/// Why a delivery ends that was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// Its driver had not taken it, so it never was.
    Never,
    /// The broker, or an operator, ended it.
    Withdrawn,
    /// Its holder is gone, or takes no more.
    Lost,
}

/// How long a message rests after so many failures.
fn rest_ms(policy: &Policy, failures: u32) -> u64 {
    let max = policy.redelivery_delay_ms_max;
    let mut rest = policy.redelivery_delay_ms;
    for _ in 1..failures {
        let next = rest.saturating_mul(policy.redelivery_delay_percent) / 100;
        if next == rest || rest >= max {
            break;
        }
        rest = next;
    }
    rest.min(max)
}

fn entry_of(queue: &mut Queue, sequence: u64) -> &mut Entry {
    queue.entries.get_mut(sequence).expect("it was just seen")
}

impl Broker {
    /// Settles a delivery that is held or staged, or whose lease has run out.
    pub(super) fn conclude(
        &mut self,
        session: SessionNo,
        tag: Tag,
        outcome: Outcome,
        why: Option<&Why>,
        now: Now,
    ) {
        let peer = self
            .peers
            .get_mut(&session)
            .expect("requests come from an open session");
        let Some(held) = peer.unhold(tag) else { return };
        let (mut by, mut freed) = (None, None);
        let mut browsed = false;
        if let Some(sub) = peer.subs.get_mut(&held.sub) {
            browsed = sub.is_browser();
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
        self.end_lease(session, tag, held.lease);
        if let Some(queue) = freed.and_then(|no| self.queue_mut(no)) {
            queue.stuck_count -= 1;
        }
        match (outcome, held.entry) {
            _ if browsed => {}
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
                    let failure = Failure {
                        rejected: outcome == Outcome::Rejected,
                        delay_ms: why.and_then(|why| why.delay_ms),
                        words: why.map_or("", |why| &why.words),
                    };
                    self.fail(queue, sequence, by, &failure);
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
        self.schedule_count -= usize::from(entry.is_schedule());
        if let EntryBytes::Memory(bytes) = &entry.bytes {
            self.transient_bytes -= bytes.len();
            self.transient_count -= 1;
        } else {
            let index = self.ledger.settled_index(queue);
            self.ledger.state_settled(index, sequence, sequence);
            self.ledger.forget(entry.home);
            self.ledger.release(&entry.bytes, entry.len);
        }
        if entry.lane != PLAIN {
            // What is behind it in its group may go to another now.
            self.mark_dirty(no);
        }
        Some(entry)
    }

    /// Counts a failure of a leased entry: back to its old place, at once or after a rest, or out of the queue for good.
    pub(super) fn fail(
        &mut self,
        no: QueueNo,
        sequence: u64,
        by: Option<super::SubRef>,
        failure: &Failure<'_>,
    ) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let Some(queue) = queue.filter(|queue| queue.entries.get(sequence).is_some()) else {
            self.end_lingering(no, sequence);
            return;
        };
        queue.counters.failed_count += 1;
        let entry = queue.entries.get_mut(sequence).expect("it was just seen");
        entry.failures += 1;
        let (failures, deliveries, transient) = (entry.failures, entry.deliveries, entry.is_transient());
        let reason = match failure.rejected {
            true => DeathReason::Rejected,
            false => DeathReason::Failures,
        };
        if failure.rejected || u64::from(failures) >= queue.policy.deliveries_failed_max {
            match queue.afterlife(reason) {
                // One in memory would have to be stored: without room it stays, and its next failure moves it.
                Afterlife::In(target) if self.room || !transient => {
                    self.bury(no, sequence, &target, reason, failure.words);
                    self.remove(no, sequence);
                    self.mark_dirty(no);
                    return;
                }
                Afterlife::Ends => {
                    queue.counters.dropped_count += 1;
                    self.counters.dropped_count += 1;
                    self.remove(no, sequence);
                    self.mark_dirty(no);
                    return;
                }
                Afterlife::In(_) | Afterlife::Stays => {}
            }
        }
        let rest_ms = failure
            .delay_ms
            .unwrap_or_else(|| rest_ms(&queue.policy, failures));
        let due_at_ms = (rest_ms > 0).then(|| self.now.wall_ms_after(rest_ms));
        let name = Arc::clone(&queue.name);
        if let Some(due_at_ms) = due_at_ms {
            entry_of(queue, sequence).set_due(due_at_ms);
            queue.rest(sequence);
            self.expiring.insert(Some(due_at_ms), no, sequence);
        } else {
            queue.give_back(sequence);
            if let Some(by) = by {
                queue.nacked_by.insert(sequence, by);
            }
        }
        if !transient {
            self.ledger.state(Fact::Counted {
                queue: Arc::clone(&name),
                ranges: vec![(sequence, sequence)],
                deliveries: Some(deliveries),
                failures,
            });
            if let Some(due_at_ms) = due_at_ms {
                self.ledger.state(Fact::Delayed {
                    queue: name,
                    ranges: vec![(sequence, sequence)],
                    due_at_ms,
                });
            }
        }
        self.mark_dirty(no);
    }

    /// Enqueues the message of an entry that is taken out of its queue for good in another, without a second body and in the
    /// same batch. The entry itself is for the caller to take out.
    pub(super) fn bury(
        &mut self,
        no: QueueNo,
        sequence: u64,
        target: &str,
        reason: DeathReason,
        words: &str,
    ) {
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
        let mut deaths = vec![Death {
            queue: Arc::clone(&origin),
            reason,
            at_ms: self.now.wall_ms,
            failures: entry.failures,
            deliveries: entry.deliveries,
            words: words.into(),
        }];
        deaths.extend(entry.deaths());
        let mut fields = vec![
            (
                field::DEAD_LETTER_ORIGIN,
                Bytes::copy_from_slice(origin.as_bytes()),
            ),
            (
                field::DEAD_LETTER_FAILURES,
                Bytes::copy_from_slice(&entry.failures.to_be_bytes()),
            ),
            (field::DEATHS, Death::encode(&deaths)),
        ];
        let kept =
            |(tag, _): &&(u8, Bytes)| matches!(*tag, field::PRIORITY | field::GROUP | field::ENDS_GROUP);
        fields.extend(entry.fields().iter().filter(kept).cloned());
        fields.sort_by_key(|(tag, _)| *tag);
        let (message, accepted_at_ms, item) = (entry.message, entry.accepted_at_ms, entry.item());
        let failures = entry.failures;
        let target = self.open_queue(target);
        // Keeps queue sequences below the numbers handed out, though the message has its number already.
        self.ledger.take_id();
        self.enqueue(
            target,
            &Enqueue {
                block: None,
                message,
                accepted_at_ms,
                place,
                item,
                fields,
            },
        );
        if reason == DeathReason::Expired {
            return;
        }
        self.counters.dead_lettered_count += 1;
        let target = Arc::clone(&self.queue(target).expect("it was just opened").name);
        self.notices.push_back(Notice::DeadLettered {
            queue: origin,
            target,
            message,
            failures,
        });
        let queue = self.queue_mut(no).expect("it was just there");
        queue.counters.dead_lettered_count += 1;
    }

    /// The bytes of a delivery cannot be read, so that nobody has got it: its entry is set aside, for the queue to flow on.
    /// Gives queue, sequence and message, unless the entry is the session's no more, or never was.
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
        self.end_lease(session, tag, held.lease);
        let Some((no, sequence)) = held.entry else {
            // A browser does without it; the entry is for a consumer to find out.
            self.refill(session, held.sub);
            return None;
        };
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let set_aside = queue.and_then(|queue| {
            let name = Arc::clone(&queue.name);
            let entry = queue.set_aside(sequence)?;
            entry.deliveries -= 1;
            Some((name, sequence, entry.message))
        });
        match set_aside {
            Some(_) => {
                self.counters.set_aside_count += 1;
                self.mark_dirty(no);
            }
            // It was purged meanwhile.
            None => self.end_lingering(no, sequence),
        }
        self.refill(session, held.sub);
        self.dispatch(now);
        set_aside
    }

    /// Gives an entry back, without blame unless its queue says otherwise.
    pub(super) fn release(&mut self, no: QueueNo, sequence: u64, release: Release) {
        let counts = self
            .queue(no)
            .is_some_and(|queue| queue.policy.count_lost_sessions);
        if counts && release == Release::Lost {
            self.counters.failed_count += 1;
            return self.fail(no, sequence, None, &Failure::default());
        }
        let entry = self.queue_mut(no).and_then(|queue| queue.give_back(sequence));
        let Some(entry) = entry else {
            self.end_lingering(no, sequence);
            return;
        };
        entry.deliveries -= u32::from(release == Release::Never);
        self.counters.released_count += 1;
        self.mark_dirty(no);
    }
}
