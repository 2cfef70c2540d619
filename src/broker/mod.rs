//! The core: queues, topics, subscriptions, leases, transactions. One value for the whole process, a pure state machine:
//! no IO, no clock, no async, no randomness.
//!
//! Inputs are `handle_*`; outputs are `poll_*`. After any input: `has_batch` and `poll_batch` (for the committer),
//! `poll_wakes` (sessions that have events), `poll_notice` (for the log).
//!
//! # Invariants
//! - An entry is leased by at most one delivery; a delivery is settled once.
//! - A stored entry is delivered only after the batch that states it is durable.
//! - A transaction's sends and settles are stated in one batch.
//! - What was refused left no trace.
//!
//! # Not here
//! Receipts (the session keeps them, gated by [`Applied::gate`]); bytes of bodies once they are in a batch.

mod access;
mod admin;
mod backup;
mod browse;
mod credit;
mod dedup;
mod dispatch;
mod expiry;
mod lanes;
mod lease;
mod ledger;
mod overflow;
mod peer;
mod policy;
mod queue;
mod recovery;
mod relocation;
mod request;
mod ring;
mod routes;
mod schedule;
mod selectors;
mod settle;
mod topic;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::{Epoch, Limits, MessageId, Now, Rules, Seq, SessionNo, Settings, SubNo, Tag, Window};
use crate::journal::{Batch, Fact, IndexSize};
use crate::port::{AckMode, Event, MissingRight, Refusal};

use dedup::Dedup;
use expiry::{EXPIRE_INPUT, EXPIRE_TICK, Expiring};
use ledger::{Ledger, Mark, Oldest, Statement, Thresholds};
use overflow::SHED_TICK;
use peer::{Peer, TopicMessage};
use policy::PolicyBook;
use queue::{Entry, EntryBytes, Queue, QueueNo, SubRef};
use routes::Routes;
use settle::Release;

pub use backup::BackupPoint;
pub use ledger::LedgerView;
pub use recovery::Recovery;
use relocation::Relocation;
pub use selectors::Look;
pub use view::{Counters, Notice};

/// See the module's text.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    /// What holds for queues, by name.
    policies: PolicyBook,
    /// Who may do what.
    rules: Arc<Rules>,
    /// What the request being applied was denied.
    denied: Option<MissingRight>,
    /// Queues that hold too much and let their oldest go.
    overfull: BTreeSet<QueueNo>,
    /// Queues that declare something of themselves.
    declared_count: usize,
    /// Entries that are schedules.
    schedule_count: usize,
    ledger: Ledger,
    queues: Vec<Option<Queue>>,
    free_queues: BTreeSet<QueueNo>,
    names: BTreeMap<Arc<str>, QueueNo>,
    /// Where messages for topics go.
    routes: Routes,
    /// Queues that are bound to a topic.
    bound_count: usize,
    peers: BTreeMap<SessionNo, Peer>,
    /// For each batch that is not durable, oldest first: the queues that got entries, and up to which sequence.
    touched: VecDeque<Vec<(QueueNo, u64)>>,
    /// Browsers that have passed over much without showing anything, and go on at the next tick.
    browsing: BTreeSet<SubRef>,
    /// Subscriptions that wait for a Seq before their first delivery.
    activating: BTreeSet<(Seq, SessionNo, SubNo)>,
    /// Topic messages of transactions, and those behind them, waiting for a Seq.
    deferred: VecDeque<(Seq, Arc<str>, TopicMessage)>,
    deferred_bytes: usize,
    /// Bytes of the topic messages that wait for subscriptions, counted for each.
    backlog_bytes: usize,
    /// Batches that move bytes of a queue's entries, oldest first.
    moving: VecDeque<(Seq, QueueNo)>,
    /// Queues of which entries are to be looked at for selectors.
    scanning: BTreeSet<QueueNo>,
    /// None of them has anything to be looked at before something happens.
    looks_wait: bool,
    /// Entries that expire, or rest.
    expiring: Expiring,
    /// Deliveries by the time at which their leases run out, in monotonic milliseconds.
    leases: BTreeSet<(u64, SessionNo, Tag)>,
    /// What queues remember to have been sent.
    dedup: Dedup,
    /// Queues in which something changed, in the order in which it did.
    dirty: VecDeque<QueueNo>,
    wakes: Vec<SessionNo>,
    notices: VecDeque<Notice>,
    counters: Counters,
    /// Bytes of transient entries and of staged messages.
    transient_bytes: usize,
    transient_count: u64,
    staged_bytes: usize,
    room: bool,
    relocation: Relocation,
    /// Entries of purged queues whose room is not given back yet.
    purged: VecDeque<Window<Entry>>,
    /// Bytes of purged entries whose deliveries have not ended, and their length.
    lingering: BTreeMap<(QueueNo, u64), (EntryBytes, u32)>,
    /// A clean stop is under way.
    stopping: bool,
    /// The time of the latest input.
    now: Now,
}

/// Index chunks dropped and entries stated again with an ordinary commit, and by an idle tick.
const TEND_COMMIT: (usize, usize) = (16, 512);
const TEND_TICK: (usize, usize) = (256, 4096);
/// Ids whose window is over that are forgotten at once where they are in the way of dropping a chunk.
const FORGET_TEND: usize = 512;
/// Slots given back by an idle tick: 8 MiB a second.
const SHRINK_TICK: u32 = 512;

impl Broker {
    /// The term of this broker.
    pub fn epoch(&self) -> Epoch {
        self.ledger.epoch()
    }

    /// A session begins (at accept).
    pub fn handle_open(&mut self, session: SessionNo) {
        self.peers.entry(session).or_default();
    }

    /// A session ended, however: what it holds is released, what it staged is aborted. Safe to call twice.
    pub fn handle_close(&mut self, session: SessionNo, now: Now) {
        self.now = now;
        self.forget_session(session);
        self.dispatch(now);
    }

    fn forget_session(&mut self, session: SessionNo) {
        let lost = match self.stopping {
            true => Release::Withdrawn,
            false => Release::Lost,
        };
        self.end_session(session, lost);
        self.unpin(session, Tag(u64::MAX));
        self.peers.remove(&session);
    }

    /// Every batch up to this Seq is durable. `sizes` are those of the batches since the last call, oldest first.
    pub fn handle_durable(&mut self, seq: Seq, sizes: &[IndexSize], now: Now) {
        (self.now, self.looks_wait) = (now, false);
        let first = self.ledger.durable().0 + 1;
        assert_eq!((first..=seq.0).count(), sizes.len(), "one size for each batch");
        for (of, size) in (first..=seq.0).zip(sizes) {
            self.ledger.handle_durable(Seq(of), *size);
            for (no, end) in self.touched.pop_front().unwrap_or_default() {
                if let Some(queue) = self.queue_mut(no) {
                    queue.durable_end = queue.durable_end.max(end);
                    self.mark_dirty(no);
                }
            }
        }
        while let Some(&(of, no)) = self.moving.front()
            && of <= seq
        {
            self.moving.pop_front();
            self.mark_dirty(no);
        }
        while let Some(&(gate, session, sub)) = self.activating.first()
            && gate <= seq
        {
            self.activating.pop_first();
            self.activate(session, sub);
        }
        while let Some((gate, ..)) = self.deferred.front()
            && *gate <= seq
        {
            let (_, topic, message) = self.deferred.pop_front().expect("it was just seen");
            self.deferred_bytes -= message.bytes.len();
            self.fan_out(&topic, &message);
        }
        self.expire(now, EXPIRE_INPUT);
        self.dispatch(now);
    }

    /// Whether the disk has room for messages; settlements go on without.
    pub fn handle_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Does what time demands; called about once a second, also when nothing else happens.
    pub fn handle_tick(&mut self, now: Now) {
        self.now = now;
        self.notice_stuck(now);
        self.expire(now, EXPIRE_TICK);
        self.shed(SHED_TICK);
        self.forget_ids(now);
        self.browse_on();
        self.dispatch(now);
        self.relocate();
        let rests = self.ledger.unflushed_bytes() == 0 && self.ledger.is_open_empty();
        if rests && self.room && self.purged.is_empty() {
            self.tend(TEND_TICK);
            if self.ledger.is_open_empty() && self.ledger.shrink_pool(SHRINK_TICK) > 0 {
                self.ledger.want_batch();
            }
        }
    }

    /// A clean stop begins: sessions that end from now on are not to blame for it.
    pub fn handle_stopping(&mut self) {
        self.stopping = true;
    }

    /// A clean stop: every session is closed; journals the counters and marks the term as ended cleanly.
    /// Returns how many transient messages go with it.
    pub fn handle_stop(&mut self, now: Now) -> u64 {
        self.now = now;
        self.stopping = true;
        let sessions: Vec<SessionNo> = self.peers.keys().copied().collect();
        for session in sessions {
            self.forget_session(session);
        }
        while self.release_purged() {}
        // What cannot be excluded counts as one delivery from here on. The entry itself says so too, since compaction may
        // still state it again behind its counters.
        for queue in self.queues.iter_mut().flatten() {
            let suspects: Vec<u64> = queue
                .entries
                .iter()
                .filter(|(_, entry)| entry.suspect && entry.deliveries == 0)
                .map(|(sequence, _)| sequence)
                .collect();
            for sequence in suspects {
                queue
                    .entries
                    .get_mut(sequence)
                    .expect("it was just seen")
                    .deliveries = 1;
            }
        }
        for queue in self.queues.iter().flatten() {
            let mut run: Option<(u64, u64, u32, u32)> = None;
            let mut state = |run: Option<(u64, u64, u32, u32)>| {
                if let Some((first, last, deliveries, failures)) = run {
                    let queue = Arc::clone(&queue.name);
                    let ranges = vec![(first, last)];
                    self.ledger.state(Fact::Counted {
                        queue,
                        ranges,
                        deliveries: Some(deliveries),
                        failures,
                    });
                }
            };
            for (sequence, entry) in queue.entries.iter().filter(|(_, entry)| !entry.is_transient()) {
                let deliveries = entry.deliveries;
                run = match run {
                    Some((first, last, d, f))
                        if last + 1 == sequence && (d, f) == (deliveries, entry.failures) =>
                    {
                        Some((first, sequence, d, f))
                    }
                    other => {
                        state(other);
                        (deliveries > 0).then_some((sequence, sequence, deliveries, entry.failures))
                    }
                };
            }
            state(run);
        }
        self.ledger.state_clean_stop();
        self.transient_count
    }

    /// Whether `poll_batch` would give a batch.
    pub fn has_batch(&self) -> bool {
        self.ledger.has_batch() || !self.purged.is_empty()
    }

    /// The next batch for the committer, oldest first; `None` when nothing waits. A full batch is closed at
    /// `commit_bytes_max`; the last one is closed by this call.
    pub fn poll_batch(&mut self) -> Option<Batch> {
        if !self.purged.is_empty() {
            // The slots are free once this batch is durable, whatever else is in it.
            self.release_purged();
            self.ledger.want_batch();
        } else if self.ledger.has_batch() {
            let (drops, moves) = TEND_COMMIT;
            // What is dead is dropped also without room, or what settlements leave behind would take the rest of it.
            self.tend((drops, if self.room { moves } else { 0 }));
        }
        self.ledger.poll_batch()
    }

    /// Moves up to `count_max` events of a session, in order, to the end of `events`. What is moved counts as handed
    /// to its socket.
    pub fn poll_events(&mut self, session: SessionNo, count_max: usize, events: &mut Vec<Event>) {
        let Some(peer) = self.peers.get_mut(&session) else {
            return;
        };
        let count = peer.events.len().min(count_max);
        events.extend(peer.events.drain(..count).inspect(|event| {
            if let Event::Delivery(delivery) = event {
                peer.handed = delivery.tag;
            }
        }));
    }

    /// Whether a session has events.
    pub fn has_events(&self, session: SessionNo) -> bool {
        self.peers
            .get(&session)
            .is_some_and(|peer| !peer.events.is_empty())
    }

    /// Whether the core has ended a session: then [`Event::Evicted`] is the next event, and the last.
    pub fn is_evicted(&self, session: SessionNo) -> bool {
        self.peers
            .get(&session)
            .is_some_and(|peer| peer.evicted.is_some())
    }

    /// Moves the sessions that got events since the last call to the end of `sessions`.
    pub fn poll_wakes(&mut self, sessions: &mut Vec<SessionNo>) {
        for session in self.wakes.drain(..) {
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.woken = false;
                sessions.push(session);
            }
        }
    }

    /// The next line for the log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Bytes in batches that are not yet durable, and of what waits for them; beyond `unflushed_bytes_max` sockets are not read.
    pub fn unflushed_bytes(&self) -> usize {
        self.ledger.unflushed_bytes() + self.deferred_bytes
    }

    // ---- shared by the parts ----

    fn queue(&self, no: QueueNo) -> Option<&Queue> {
        self.queues.get(no.0 as usize)?.as_ref()
    }

    fn queue_mut(&mut self, no: QueueNo) -> Option<&mut Queue> {
        self.queues.get_mut(no.0 as usize)?.as_mut()
    }

    /// The queue of a name, if there is one.
    fn find_queue(&self, name: &str) -> Option<&Queue> {
        self.names.get(name).and_then(|no| self.queue(*no))
    }

    /// The queue of a name, made if there is none.
    fn open_queue(&mut self, name: &str) -> QueueNo {
        if let Some(&no) = self.names.get(name) {
            return no;
        }
        let policy = self.policies.of(name, &Settings::default());
        let queue = Queue::new(name, policy, self.ledger.next_id(), self.limits.group_count_max);
        let no = self.free_queues.pop_first().unwrap_or_else(|| {
            self.queues.push(None);
            QueueNo(u32::try_from(self.queues.len() - 1).expect("queues are counted in 32 bits"))
        });
        self.names.insert(Arc::clone(&queue.name), no);
        *self
            .queues
            .get_mut(no.0 as usize)
            .expect("it was just made or freed") = Some(queue);
        no
    }

    /// Forgets a queue that nothing refers to: it exists while it has entries, subscriptions or the like (`Queue::is_idle`).
    fn close_queue_if_idle(&mut self, no: QueueNo) {
        if self.queue(no).is_some_and(Queue::is_idle)
            && let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::take)
        {
            self.names.remove(&queue.name);
            self.free_queues.insert(no);
        }
    }

    fn mark_dirty(&mut self, no: QueueNo) {
        if let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut)
            && !queue.dirty
        {
            queue.dirty = true;
            self.dirty.push_back(no);
        }
    }

    /// A session gets an event.
    fn push_event(&mut self, session: SessionNo, event: Event) {
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.events.push_back(event);
            if !peer.woken {
                peer.woken = true;
                self.wakes.push(session);
            }
        }
    }

    /// Drops what the oldest index chunks hold no more and, if it is worth it, states again what they still hold:
    /// up to so many chunks and entries.
    fn tend(&mut self, (mut drops, mut moves): (usize, usize)) {
        if self.ledger.holds_index() {
            return;
        }
        let thresholds = Thresholds {
            garbage_bytes_min: self.limits.compaction_garbage_bytes_min,
            chunk_count_slack: self.limits.compaction_chunk_count_slack,
        };
        while let Some(oldest) = self.ledger.drop_oldest(&mut drops) {
            match oldest {
                Oldest::Mark(seq, mark) => {
                    if self.is_live(seq, mark) {
                        if moves == 0 || !self.ledger.wants_compaction(thresholds) {
                            return;
                        }
                        moves -= 1;
                        self.state_mark(mark);
                    }
                    self.ledger.end_mark();
                }
                Oldest::Seen(seq, run) => {
                    let now = self.now;
                    if self.forget_old(run.queue, FORGET_TEND, now) > 0 {
                        continue;
                    }
                    if moves == 0 || !self.ledger.wants_compaction(thresholds) {
                        return;
                    }
                    self.move_seen(seq, run, &mut moves);
                }
                Oldest::Run(seq, run) => {
                    if moves == 0 || !self.ledger.wants_compaction(thresholds) {
                        return;
                    }
                    self.counters.compacted_count += 1;
                    self.move_run(seq, run, &mut moves);
                }
            }
        }
    }

    /// Whether a fact about a queue stands in this batch and in no later one. The queue's number may be another one's by
    /// now, whose fact stands elsewhere.
    fn is_live(&self, seq: Seq, mark: Mark) -> bool {
        match mark {
            Mark::Watched(no) => self
                .queue(no)
                .is_some_and(|queue| queue.watched && queue.watched_at == seq),
            Mark::Paused(no) => self
                .queue(no)
                .is_some_and(|queue| queue.paused && queue.paused_at == seq),
            Mark::Declared(no) => self
                .queue(no)
                .is_some_and(|queue| queue.is_declared() && queue.declared_at == seq),
            Mark::Policy(no) => self.policies.is_live(no, seq),
        }
    }

    /// States a fact about a queue in the batch being filled.
    fn state_mark(&mut self, mark: Mark) {
        let seq = self.ledger.seq();
        let no = match mark {
            Mark::Watched(no) | Mark::Paused(no) | Mark::Declared(no) => no,
            Mark::Policy(no) => {
                let fact = self.policies.restate(no, seq);
                return self.ledger.state_policy(Some(no), fact);
            }
        };
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("the queue was just seen");
        match mark {
            Mark::Watched(_) => {
                queue.watched_at = seq;
                self.ledger.state_watched(no, &queue.name);
            }
            Mark::Paused(_) => {
                queue.paused_at = seq;
                self.ledger.state_paused(no, &queue.name, queue.paused);
            }
            Mark::Declared(_) => {
                queue.declared_at = seq;
                self.ledger.state_declared(no, queue);
            }
            Mark::Policy(_) => unreachable!("it is of no queue"),
        }
    }

    /// States the entries of a run again that are live and at home in `seq`, from its end.
    fn move_run(&mut self, seq: Seq, run: ledger::Run, moves: &mut usize) {
        let live: Vec<u64> = match self.queue(run.queue) {
            Some(queue) => queue
                .entries
                .range_from(run.first)
                .take_while(|(sequence, _)| *sequence < run.first + u64::from(run.count))
                .filter(|(_, entry)| entry.home == seq)
                .map(|(sequence, _)| sequence)
                .collect(),
            None => Vec::new(),
        };
        let kept = live.len().saturating_sub(*moves);
        *moves -= live.len() - kept;
        for sequence in live.get(kept..).expect("kept is at most the length") {
            self.restate(run.queue, *sequence);
        }
        match kept.checked_sub(1).and_then(|last| live.get(last)) {
            Some(last) => self
                .ledger
                .shorten_run(u32::try_from(last + 1 - run.first).expect("within the run")),
            None => self.ledger.end_run(),
        }
    }

    /// States an entry again, with its counters as they are, in the batch being filled.
    fn restate(&mut self, no: QueueNo, sequence: u64) {
        let seq = self.ledger.seq();
        let queue = self
            .queues
            .get_mut(no.0 as usize)
            .and_then(Option::as_mut)
            .expect("its entry was just seen");
        let entry = queue.entries.get_mut(sequence).expect("it was just seen");
        let place = entry
            .bytes
            .place(|slot| self.ledger.chunk_in(slot))
            .expect("a transient entry has no home");
        let old = std::mem::replace(&mut entry.home, seq);
        let statement = Statement {
            sequence,
            message: entry.message,
            accepted_at_ms: entry.accepted_at_ms,
            place: &place,
            item: entry.item(),
            // The one going on may not have been taken yet, and then never was; `Watched` speaks for it after a crash.
            deliveries: entry.deliveries - u32::from(entry.leased),
            failures: entry.failures,
            fields: &entry.stated_fields(),
        };
        self.ledger.state_enqueued(no, &queue.name, &statement);
        self.ledger.forget(old);
    }

    /// Tells once of each subscription that has held its limit for too long.
    fn notice_stuck(&mut self, now: Now) {
        let after_ms = self.limits.stuck_subscription_ms;
        for (session, peer) in &mut self.peers {
            for (no, sub) in &mut peer.subs {
                let peer::Source::Queue(queue) = sub.source else {
                    continue;
                };
                let stuck = sub.ack_mode != AckMode::Auto
                    && sub.is_full()
                    && now.mono_ms.saturating_sub(sub.moved_at_ms) >= after_ms;
                if stuck == sub.stuck_told {
                    continue;
                }
                sub.stuck_told = stuck;
                let queue = self
                    .queues
                    .get_mut(queue.0 as usize)
                    .and_then(Option::as_mut)
                    .expect("it has a subscription");
                if stuck {
                    queue.stuck_count += 1;
                    let (session, sub, queue) = (*session, *no, Arc::clone(&queue.name));
                    self.notices.push_back(Notice::Stuck { session, sub, queue });
                } else {
                    queue.stuck_count -= 1;
                }
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.transient_bytes + self.staged_bytes
    }

    fn message_id(&mut self) -> MessageId {
        MessageId(self.ledger.take_id())
    }

    /// The core ends a session.
    fn evict(&mut self, session: SessionNo, refusal: Refusal) {
        if self.peers.get(&session).is_none_or(|peer| peer.evicted.is_some()) {
            return;
        }
        self.end_session(session, Release::Withdrawn);
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.evicted = Some(refusal);
            peer.events.clear();
        }
        self.push_event(session, Event::Evicted(refusal));
    }

    /// The bytes of all deliveries of this session up to and including this tag are in its socket (or were skipped
    /// because their subscription is gone): frees the unsent bytes, settles `auto` deliveries.
    pub fn handle_written(&mut self, session: SessionNo, up_to: Tag, now: Now) {
        self.now = now;
        self.written(session, up_to, now);
        self.dispatch(now);
    }
}

#[cfg(test)]
mod tests;
