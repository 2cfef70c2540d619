//! Messages that come again and again. A schedule is one entry that rests until its next time and is never delivered itself: each
//! occurrence is an entry of its own, a new message behind all others of the queue, which shares the bytes.
//!
//! # Invariants
//! - An occurrence and the schedule's next time, or its end, are stated in one batch: no crash loses or doubles one.
//! - None comes before its time. One that finds no room waits, and none is lost: those of a schedule that ends by a count come
//!   all, one after the other; of one that goes on, one comes for all that were missed.
//! - A schedule does not count against the bounds of its queue, whose overflow leaves it alone; its occurrences do.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Cron, Now, Schedule};
use crate::journal::{Fact, field};
use crate::port::{Refusal, ScheduleView};

use super::queue::{Entry, EntryBytes, QueueNo, number_in};
use super::settle::Enqueue;
use super::{Broker, Notice};

/// How long an occurrence waits that finds no room.
const ROOM_WAIT_MS: u64 = 1_000;
/// And one that finds too much to be flushed.
const FLUSH_WAIT_MS: u64 = 10;
/// From one occurrence that is late to the next of the same schedule, so that others come in between.
const LATE_WAIT_MS: u64 = 1;

/// The fields that make a schedule, and those of its own that its occurrences do not have.
const TIMES: [u8; 3] = [field::PERIOD, field::LAST_DUE_AT, field::CRON];

/// Whether an entry with these fields is a schedule.
pub(super) fn is_schedule(fields: &[(u8, Bytes)]) -> bool {
    fields
        .iter()
        .any(|(tag, _)| matches!(*tag, field::PERIOD | field::CRON))
}

/// Its times, if they can be read.
fn schedule_of(fields: &[(u8, Bytes)]) -> Option<Schedule> {
    let cron = fields.iter().find(|(tag, _)| *tag == field::CRON);
    match cron {
        Some((_, text)) => std::str::from_utf8(text)
            .ok()
            .and_then(Cron::parse)
            .map(Schedule::Cron),
        None => Some(Schedule::Every {
            period_ms: number_in(fields, field::PERIOD)?.max(1),
            last_at_ms: number_in(fields, field::LAST_DUE_AT),
        }),
    }
}

impl Entry {
    /// Whether it is a schedule.
    pub(super) fn is_schedule(&self) -> bool {
        self.fields.is_some() && is_schedule(self.fields())
    }

    /// When it comes again, for people.
    pub(super) fn schedule_view(&self) -> Option<ScheduleView> {
        let cron = self.fields().iter().find(|(tag, _)| *tag == field::CRON);
        self.is_schedule().then(|| ScheduleView {
            period_ms: number_in(self.fields(), field::PERIOD),
            last_due_at_ms: number_in(self.fields(), field::LAST_DUE_AT),
            cron: cron.map(|(_, text)| String::from_utf8_lossy(text).into_owned()),
        })
    }
}

/// What keeps an occurrence from coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Room,
    Flush,
}

impl Broker {
    /// The time of a schedule may have come: enqueues its occurrence, and lets it rest until the next.
    pub(super) fn occur(&mut self, no: QueueNo, sequence: u64, now: Now) {
        let queue = self.queue(no).expect("its entry was just seen");
        let entry = queue.entries.get(sequence).expect("it was just seen");
        let due_at_ms = entry.due_at_ms().unwrap_or(0);
        // It was said a later time since.
        if due_at_ms > now.wall_ms {
            return;
        }
        if let Err(wait) = self.check_occurrence(no, sequence) {
            let wait_ms = match wait {
                Wait::Room => ROOM_WAIT_MS,
                Wait::Flush => FLUSH_WAIT_MS,
            };
            self.expiring
                .insert(Some(now.wall_ms.saturating_add(wait_ms)), no, sequence);
            let queue = self.queue_mut(no).expect("it was just seen");
            if wait == Wait::Room && !std::mem::replace(&mut queue.occurrence_waits, true) {
                let queue = Arc::clone(&queue.name);
                self.notices.push_back(Notice::OccurrenceWaits { queue });
            }
            return;
        }
        let transient = self.enqueue_occurrence(no, sequence, due_at_ms);
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("it was just seen");
        queue.occurrence_waits = false;
        let entry = queue.entries.get_mut(sequence).expect("it was just seen");
        let schedule = schedule_of(entry.fields());
        match schedule.and_then(|schedule| schedule.next(due_at_ms, now.wall_ms)) {
            Some(next) => {
                entry.set_due(next);
                if !transient {
                    self.ledger.state(Fact::Delayed {
                        queue: Arc::clone(&queue.name),
                        ranges: vec![(sequence, sequence)],
                        due_at_ms: next,
                    });
                }
                let at_ms = next.max(now.wall_ms.saturating_add(LATE_WAIT_MS));
                self.expiring.insert(Some(at_ms), no, sequence);
            }
            None => _ = self.remove(no, sequence),
        }
        self.mark_dirty(no);
        self.ledger.close_if_full();
    }

    fn check_occurrence(&mut self, no: QueueNo, sequence: u64) -> Result<(), Wait> {
        let queue = self.queue(no).expect("it was just seen");
        let entry = queue.entries.get(sequence).expect("it was just seen");
        let len = entry.len;
        if entry.is_transient() {
            if self.memory_bytes() + len as usize > self.limits.memory_bytes_max {
                return Err(Wait::Room);
            }
        } else if !self.room {
            return Err(Wait::Room);
        } else if self.unflushed_bytes() > self.limits.unflushed_bytes_max {
            return Err(Wait::Flush);
        }
        self.admit(no, 1, u64::from(len)).map_err(|_| Wait::Room)
    }

    /// Adds the message of a schedule at the end of its queue, accepted at the time it was due. Whether it is in memory only.
    fn enqueue_occurrence(&mut self, no: QueueNo, sequence: u64, due_at_ms: u64) -> bool {
        let message = self.message_id();
        self.counters.enqueued_count += 1;
        self.counters.occurrence_count += 1;
        let queue = self.queues.get(no.0 as usize).and_then(Option::as_ref);
        let queue = queue.expect("its entry was just seen");
        let entry = queue.entries.get(sequence).expect("it was just seen");
        let item = entry.item();
        let fields = entry.fields().iter().filter(|(tag, _)| !TIMES.contains(tag));
        let fields: Vec<(u8, Bytes)> = fields.cloned().collect();
        if let EntryBytes::Memory(bytes) = &entry.bytes {
            let bytes = Bytes::clone(bytes);
            self.enqueue_transient(no, message, due_at_ms, bytes, item, fields);
            return true;
        }
        let place = entry.bytes.place(|slot| self.ledger.chunk_in(slot));
        let place = place.expect("it is stored");
        self.ledger.share(&entry.bytes, entry.len);
        self.enqueue(
            no,
            &Enqueue {
                block: None,
                message,
                accepted_at_ms: due_at_ms,
                place,
                item,
                fields,
            },
        );
        false
    }

    /// Whether there may be so many schedules more.
    pub(super) fn admit_schedules(&self, count: usize) -> Result<(), Refusal> {
        if count > 0 && self.schedule_count + count > self.limits.schedule_count_max {
            return Err(Refusal::TooManySchedules);
        }
        Ok(())
    }
}
