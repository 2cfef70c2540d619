//! What an operator asks for: purge, delete, pause, move, copy, requeue, disconnect.
//!
//! An act is planned first (what it would do, or why it is refused) and then done whole, in the batch being filled.
//!
//! # Invariants
//! - A purge states one range, however much it takes, and takes its entries out at once. Their slots are given back in
//!   pieces, one with each batch; until that is done the index log is not tended, since it still counts them as live.
//! - The bytes of a purged entry stay until the delivery that holds it has ended: its driver may have them to read.
//!
//! # Not here
//! What is seen of the core: `view`.

use bytes::Bytes;

use crate::base::{MessageId, Now, SessionNo, Settings};
use crate::journal::field;
use crate::port::{Act, Acted, Refusal, Selection};

use super::Broker;
use super::ledger::Mark;
use super::peer::Source;
use super::queue::{Entry, EntryBytes, Queue, QueueNo};
use super::settle::Enqueue;

/// Purged entries whose slots are given back with one batch: about a millisecond.
const PURGE_PIECE: usize = 8_192;

/// What an act would do.
#[derive(Debug)]
struct Plan {
    acted: Acted,
    /// Missing for a disconnect, and for a policy.
    no: Option<QueueNo>,
    /// The entries it would take; empty where it takes a whole queue.
    sequences: Vec<u64>,
}

impl Plan {
    fn queue(&self) -> QueueNo {
        self.no.expect("every other act is on a queue")
    }
}

/// What an act does with an entry that it looks at.
enum Choice {
    Take,
    Held,
    Skip,
}

impl Broker {
    /// What [`Broker::handle_act`] would answer now, but for the gate. Does nothing.
    pub fn preview(&self, act: &Act) -> Result<Acted, Refusal> {
        self.plan(act).map(|plan| plan.acted)
    }

    /// Does what an operator asks for, in one batch, or refuses it.
    pub fn handle_act(&mut self, act: &Act, now: Now) -> Result<Acted, Refusal> {
        self.now = now;
        let plan = self.plan(act)?;
        match act {
            Act::Purge {
                selection: Selection::From(0),
                ..
            } => self.purge_all(plan.queue()),
            Act::Purge { .. } => plan
                .sequences
                .iter()
                .for_each(|sequence| self.purge_one(plan.queue(), *sequence)),
            Act::Delete { .. } => {
                for session in self.subscribers(plan.queue()) {
                    self.evict(session, Refusal::QueueDeleted);
                }
                self.end_queue(plan.queue());
            }
            Act::Pause { .. } => self.set_paused(plan.queue(), true),
            Act::Resume { .. } => self.set_paused(plan.queue(), false),
            Act::Move { to, .. } => self.pass_all(&plan, Pass::Move(to)),
            Act::Copy { to, .. } => self.pass_all(&plan, Pass::Copy(to)),
            Act::Requeue { .. } => self.pass_all(&plan, Pass::Requeue),
            Act::Disconnect { session } => self.evict(*session, Refusal::DisconnectedByOperator),
            Act::StatePolicy { pattern, settings } => self.state_policy(pattern, settings.as_ref(), now),
        }
        // Also so that a queue is forgotten if nothing is left of it.
        plan.no.into_iter().for_each(|no| self.mark_dirty(no));
        let gate = self.ledger.gate();
        self.dispatch(now);
        Ok(Acted { gate, ..plan.acted })
    }

    fn plan(&self, act: &Act) -> Result<Plan, Refusal> {
        match act {
            Act::Purge {
                queue,
                selection: Selection::From(0),
            } => self.plan_whole(self.named_queue(queue)?),
            Act::Purge { queue, selection } => self.choose(queue, selection, |_| Choice::Take),
            Act::Delete { queue, force } => {
                let no = self.named_queue(queue)?;
                let in_use = self
                    .queue(no)
                    .is_some_and(|queue| queue.sub_count > 0 || queue.owner.is_some());
                if in_use && !force {
                    return Err(Refusal::QueueInUse);
                }
                self.plan_whole(no)
            }
            Act::Pause { queue } => self.plan_paused(queue, true),
            Act::Resume { queue } => self.plan_paused(queue, false),
            Act::Move { from, to, selection } => {
                self.check_target(from, to)?;
                self.choose(from, selection, ready)
            }
            Act::Copy { from, to, selection } => {
                self.check_target(from, to)?;
                let plan = self.choose(from, selection, ready)?;
                let queue = self.queue(plan.queue()).expect("it was just named");
                let bytes: usize = plan
                    .sequences
                    .iter()
                    .filter_map(|sequence| queue.entries.get(*sequence))
                    .filter(|entry| entry.is_transient())
                    .map(|entry| entry.len as usize)
                    .sum();
                if bytes > 0 && self.memory_bytes() + bytes > self.limits.memory_bytes_max {
                    return Err(Refusal::MemoryFull);
                }
                Ok(plan)
            }
            Act::Requeue { queue, selection } => {
                self.check_room()?;
                self.choose(queue, selection, |entry| match entry.origin() {
                    Some(origin) if origin != queue => ready(entry),
                    _ => Choice::Skip,
                })
            }
            Act::StatePolicy { pattern, settings } => {
                let count = self.plan_policy(pattern, settings.as_ref())?;
                Ok(Plan {
                    acted: Acted {
                        count,
                        ..Acted::default()
                    },
                    no: None,
                    sequences: Vec::new(),
                })
            }
            Act::Disconnect { session } => {
                let peer = self.peers.get(session).filter(|peer| peer.evicted.is_none());
                let peer = peer.ok_or(Refusal::SessionUnknown)?;
                Ok(Plan {
                    acted: Acted {
                        count: 1,
                        held_count: peer.held_count(),
                        ..Acted::default()
                    },
                    no: None,
                    sequences: Vec::new(),
                })
            }
        }
    }

    fn named_queue(&self, name: &str) -> Result<QueueNo, Refusal> {
        self.names.get(name).copied().ok_or(Refusal::QueueUnknown)
    }

    fn check_room(&self) -> Result<(), Refusal> {
        if self.room { Ok(()) } else { Err(Refusal::DiskFull) }
    }

    fn check_target(&self, from: &str, to: &str) -> Result<(), Refusal> {
        if from == to {
            return Err(Refusal::SameQueue);
        }
        let to = self.find_queue(to);
        if to.is_some_and(|queue| queue.owner.is_some()) {
            return Err(Refusal::QueuePrivate);
        }
        self.check_room()
    }

    fn plan_whole(&self, no: QueueNo) -> Result<Plan, Refusal> {
        let queue = self.queue(no).expect("it was just named");
        let acted = Acted {
            count: queue.entries.len() as u64,
            bytes: queue.bytes,
            held_count: queue.leased_count,
            ..Acted::default()
        };
        Ok(Plan {
            acted,
            no: Some(no),
            sequences: Vec::new(),
        })
    }

    fn plan_paused(&self, name: &str, paused: bool) -> Result<Plan, Refusal> {
        let no = self.named_queue(name)?;
        let queue = self.queue(no).expect("it was just named");
        if queue.owner.is_some() {
            return Err(Refusal::QueuePrivate);
        }
        let acted = Acted {
            count: u64::from(queue.paused != paused),
            ..Acted::default()
        };
        Ok(Plan {
            acted,
            no: Some(no),
            sequences: Vec::new(),
        })
    }

    /// Looks at the selected entries, up to `admin_act_count_max`.
    fn choose(
        &self,
        name: &str,
        selection: &Selection,
        choice: impl Fn(&Entry) -> Choice,
    ) -> Result<Plan, Refusal> {
        let no = self.named_queue(name)?;
        let queue = self.queue(no).expect("it was just named");
        let listed: Vec<u64>;
        let mut entries: Box<dyn Iterator<Item = (u64, &Entry)>> = match selection {
            Selection::From(first) => Box::new(queue.entries.range_from(*first)),
            Selection::Sequences(sequences) => {
                let mut sequences = sequences.clone();
                sequences.sort_unstable();
                sequences.dedup();
                listed = sequences;
                let entry = |sequence: &u64| Some((*sequence, queue.entries.get(*sequence)?));
                Box::new(listed.iter().filter_map(entry))
            }
        };
        let mut acted = Acted::default();
        let mut sequences = Vec::new();
        for (sequence, entry) in entries.by_ref().take(self.limits.admin_act_count_max) {
            match choice(entry) {
                Choice::Take => {
                    acted.count += 1;
                    acted.bytes += u64::from(entry.len);
                    acted.held_count += u64::from(entry.leased);
                    sequences.push(sequence);
                }
                Choice::Held => acted.held_count += 1,
                Choice::Skip => acted.skipped_count += 1,
            }
        }
        acted.next = entries.next().map(|(sequence, _)| sequence);
        drop(entries);
        Ok(Plan {
            acted,
            no: Some(no),
            sequences,
        })
    }

    // ---- purge ----

    pub(super) fn purge_all(&mut self, no: QueueNo) {
        let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let ends = (queue.entries.first(), queue.entries.last());
        let (Some((first, _)), Some((last, _))) = ends else {
            return;
        };
        let held: Vec<u64> = queue
            .entries
            .iter()
            .take_while(|(sequence, _)| *sequence < queue.head)
            .filter(|(_, entry)| entry.leased)
            .map(|(sequence, _)| sequence)
            .collect();
        self.counters.purged_count += queue.entries.len() as u64;
        if queue.stored_count > 0 {
            let index = self.ledger.settled_index(queue);
            self.ledger.state_settled(index, first, last);
        }
        for sequence in held {
            self.purge_held(no, sequence);
        }
        let queue = self.queue_mut(no).expect("it was just there");
        let schedule_count = queue.schedule_count as usize;
        let entries = queue.clear();
        self.schedule_count -= schedule_count;
        self.purged.push_back(entries);
        // A small one ends here, as if its entries had been settled one by one.
        self.release_purged();
    }

    fn purge_one(&mut self, no: QueueNo, sequence: u64) {
        self.counters.purged_count += 1;
        self.take_out(no, sequence);
    }

    /// Takes an entry out for good, whoever holds it, and states so.
    pub(super) fn take_out(&mut self, no: QueueNo, sequence: u64) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("its entry was just seen");
        let entry = queue.entries.get(sequence).expect("it was just seen");
        if !entry.leased {
            self.remove(no, sequence);
            return;
        }
        if !entry.is_transient() {
            let index = self.ledger.settled_index(queue);
            self.ledger.state_settled(index, sequence, sequence);
        }
        self.purge_held(no, sequence);
    }

    /// Takes out an entry that a client holds, its end being stated; its bytes stay until the delivery has ended.
    fn purge_held(&mut self, no: QueueNo, sequence: u64) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let entry = queue.and_then(|queue| queue.take(sequence));
        let entry = entry.expect("its entry was just seen");
        match &entry.bytes {
            EntryBytes::Memory(_) => self.end_purged(&entry),
            _ => {
                self.ledger.forget(entry.home);
                self.lingering.insert((no, sequence), (entry.bytes, entry.len));
            }
        }
    }

    /// The delivery of an entry that is no more has ended.
    pub(super) fn end_lingering(&mut self, no: QueueNo, sequence: u64) {
        if let Some((bytes, len)) = self.lingering.remove(&(no, sequence)) {
            self.ledger.release(&bytes, len);
        }
    }

    /// Gives back what a piece of the purged entries holds. Whether any are left.
    pub(super) fn release_purged(&mut self) -> bool {
        let mut budget = PURGE_PIECE;
        while budget > 0
            && let Some(entries) = self.purged.front_mut()
        {
            let Some(page) = entries.pop_page() else {
                self.purged.pop_front();
                continue;
            };
            for entry in page {
                self.end_purged(&entry);
                budget = budget.saturating_sub(1);
            }
        }
        !self.purged.is_empty()
    }

    fn end_purged(&mut self, entry: &Entry) {
        if let EntryBytes::Memory(bytes) = &entry.bytes {
            self.transient_bytes -= bytes.len();
            self.transient_count -= 1;
        } else {
            self.ledger.forget(entry.home);
            self.ledger.release(&entry.bytes, entry.len);
        }
    }

    // ---- delete, pause ----

    /// The sessions that subscribe to a queue.
    fn subscribers(&self, no: QueueNo) -> Vec<SessionNo> {
        let of = |source: &Source| matches!(source, Source::Queue(of) if *of == no);
        self.peers
            .iter()
            .filter(|(_, peer)| peer.subs.values().any(|sub| of(&sub.source)))
            .map(|(session, _)| *session)
            .collect()
    }

    /// Nothing is left of a queue once its subscriptions are gone: what it holds, that it is paused, the topic that it keeps.
    pub(super) fn end_queue(&mut self, no: QueueNo) {
        self.set_paused(no, false);
        if self.queue(no).is_some_and(Queue::is_declared) {
            self.bind(no, None, None);
            self.set_declared(no, Settings::default());
            self.state_mark(Mark::Declared(no));
        }
        self.forget_all(no);
        self.purge_all(no);
    }

    fn set_paused(&mut self, no: QueueNo, paused: bool) {
        if let Some(queue) = self.queue_mut(no)
            && queue.paused != paused
        {
            queue.paused = paused;
            self.state_mark(Mark::Paused(no));
        }
    }

    // ---- move, copy, requeue ----

    fn pass_all(&mut self, plan: &Plan, pass: Pass<'_>) {
        let no = plan.queue();
        let mut target: Option<(String, QueueNo)> = None;
        for &sequence in &plan.sequences {
            let queue = self.queue(no).expect("its entries were just seen");
            let entry = queue.entries.get(sequence).expect("it was just seen");
            let to = match pass {
                Pass::Move(to) | Pass::Copy(to) => to,
                Pass::Requeue => entry.origin().expect("it was chosen for its origin"),
            };
            let to = match &target {
                Some((name, to_no)) if name == to => *to_no,
                _ => {
                    let to = to.to_owned();
                    let to_no = self.open_queue(&to);
                    target = Some((to, to_no));
                    to_no
                }
            };
            self.pass(no, sequence, to, pass);
            if let Pass::Copy(_) = pass {
                self.counters.copied_count += 1;
            } else {
                self.counters.moved_count += 1;
                self.remove(no, sequence);
            }
        }
    }

    /// Enqueues an entry's message at the end of another queue, without a second body.
    fn pass(&mut self, no: QueueNo, sequence: u64, to: QueueNo, pass: Pass<'_>) {
        // Behind the opening of the queue, and also for a message that has its number: so the queue's sequences stay below
        // the numbers handed out.
        let id = MessageId(self.ledger.take_id());
        let queue = self.queues.get(no.0 as usize).and_then(Option::as_ref);
        let entry = queue.and_then(|queue| queue.entries.get(sequence));
        let entry = entry.expect("it was just seen");
        let message = match pass {
            Pass::Copy(_) => id,
            Pass::Move(_) | Pass::Requeue => entry.message,
        };
        let (accepted_at_ms, item) = (entry.accepted_at_ms, entry.item());
        let mut fields = entry.stated_fields().into_owned();
        if let Pass::Requeue = pass {
            fields.retain(|(tag, _)| {
                !matches!(
                    *tag,
                    field::DEAD_LETTER_ORIGIN | field::DEAD_LETTER_FAILURES | field::DUE_AT
                )
            });
        }
        if let EntryBytes::Memory(bytes) = &entry.bytes {
            let bytes = Bytes::clone(bytes);
            self.enqueue_transient(to, message, accepted_at_ms, bytes, item, fields);
            return;
        }
        let place = entry.bytes.place(|slot| self.ledger.chunk_in(slot));
        let place = place.expect("it is stored");
        self.ledger.share(&entry.bytes, entry.len);
        self.enqueue(
            to,
            &Enqueue {
                block: None,
                message,
                accepted_at_ms,
                place,
                item,
                fields,
            },
        );
    }
}

/// Where entries go.
#[derive(Debug, Clone, Copy)]
enum Pass<'a> {
    Move(&'a str),
    Copy(&'a str),
    Requeue,
}

fn ready(entry: &Entry) -> Choice {
    if entry.leased { Choice::Held } else { Choice::Take }
}
