//! Deduplication: the ids that a queue has seen, so that what is sent again is not stored again.
//!
//! # Invariants
//! - An id is stated in the batch that states its message, so a crash leaves both or neither. That of a message in memory is
//!   in memory only.
//! - What is told to be a duplicate waits for the batch that states the original.
//! - Ids are compared byte by byte. Where it is in doubt whether an id was seen, it was not: a message stored twice does
//!   less harm than one lost.
//! - A queue exists while it remembers ids.
//!
//! # Not here
//! The header: `session`. Facts and their compaction: `ledger`.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::base::{Now, Policy, Seq, Settings};
use crate::port::{Duplicate, Refusal};

use super::ledger::Run;
use super::queue::QueueNo;
use super::{Broker, Notice};

/// About what an id takes in memory beside its bytes, and a queue that remembers any beside its name.
const ID_BYTES: usize = 48;
const QUEUE_BYTES: usize = 1_024;
/// Ids of one block.
const BLOCK: usize = 64;
/// Ids forgotten with each new one, so that those whose window is over go as fast as others come.
const FORGET_INPUT: usize = 2;
/// Ids forgotten, and queues looked at, by a tick.
const FORGET_TICK: usize = 100_000;
const LOOK_TICK: usize = 10_000;

/// What is known of the ids of all queues.
#[derive(Debug)]
pub(super) struct Dedup {
    /// Differs from store to store, so that ids which collide cannot be made beforehand.
    hasher: FixedState,
    /// Queues that remember ids, by the time of the oldest; it may have become a later one since.
    by_age: BTreeSet<(u64, QueueNo)>,
    /// Where the next tick looks.
    cursor: (u64, QueueNo),
    pub(super) id_count: u64,
    pub(super) bytes: usize,
    /// It was told that `dedup_bytes_max` is too little.
    told: bool,
    /// What the request being applied did not store.
    pub(super) left_out: Option<Duplicate>,
}

impl Default for Dedup {
    fn default() -> Self {
        Self {
            hasher: FixedState::with_seed(0),
            by_age: BTreeSet::new(),
            cursor: (0, QueueNo(0)),
            id_count: 0,
            bytes: 0,
            told: false,
            left_out: None,
        }
    }
}

/// The ids that one queue has seen, numbered as they came.
#[derive(Debug, Default)]
pub(super) struct SeenIds {
    blocks: VecDeque<Block>,
    /// Number of the first id of the first block; of the oldest that is remembered; of the next one.
    base: u64,
    first: u64,
    next: u64,
    /// The lower half of the latest number of each id.
    table: HashTable<u32>,
    /// The open batch in which it has a fact, and the fact's index.
    stated: (Seq, usize),
    /// Its place in `Dedup::by_age`.
    age: u64,
    /// Of these ids.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Block {
    ids: Vec<u8>,
    seen: Vec<Seen>,
}

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at_ms: u64,
    /// The batch that states it; `Seq(0)`: none does.
    pub(super) home: Seq,
    /// Where it ends in its block.
    end: u16,
}

/// An id, looked at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<'a> {
    bytes: &'a [u8],
    hash: u64,
}

impl Dedup {
    pub(super) fn id<'a>(&self, bytes: &'a [u8]) -> Id<'a> {
        let hash = self.hasher.hash_one(bytes);
        Id { bytes, hash }
    }
}

/// An id that is no longer remembered.
#[derive(Debug)]
struct Forgotten {
    seen: Seen,
    len: usize,
}

impl SeenIds {
    /// Ids that are remembered.
    pub(super) fn len(&self) -> u64 {
        self.next - self.first
    }

    /// An id and what is known of it.
    pub(super) fn get(&self, number: u64) -> (Seen, &[u8]) {
        id_at(&self.blocks, self.base, number)
    }

    fn seen_mut(&mut self, number: u64) -> &mut Seen {
        let (block, at) = place(self.base, number);
        let block = self.blocks.get_mut(block);
        block
            .and_then(|block| block.seen.get_mut(at))
            .expect("the number is of a remembered id")
    }

    fn find(&self, Id { bytes: id, hash }: Id<'_>) -> Option<u64> {
        let found = self.table.find(hash, |low| self.get(self.number(*low)).1 == id);
        found.map(|low| self.number(*low))
    }

    fn number(&self, low: u32) -> u64 {
        number(self.first, low)
    }

    /// Adds an id, instead of what was known of it; gives its number, and the one that it had.
    fn push(&mut self, hasher: &FixedState, id: Id<'_>, at_ms: u64, home: Seq) -> (u64, Option<u64>) {
        let Id { bytes: id, hash } = id;
        let no = self.next;
        self.next += 1;
        if place(self.base, no).0 == self.blocks.len() {
            if let Some(full) = self.blocks.back_mut() {
                full.ids.shrink_to_fit();
            }
            self.blocks.push_back(Block::default());
        }
        let block = self.blocks.back_mut().expect("it was just made");
        block.ids.extend_from_slice(id);
        block.seen.push(Seen {
            at_ms,
            home,
            end: u16::try_from(block.ids.len()).expect("a block of the longest ids is under 64 KiB"),
        });
        let Self {
            blocks,
            base,
            first,
            table,
            ..
        } = self;
        let id_of = |low: &u32| id_at(blocks, *base, number(*first, *low)).1;
        let low = low(no);
        match table.find_mut(hash, |low| id_of(low) == id) {
            Some(known) => {
                let old = number(*first, *known);
                *known = low;
                (no, Some(old))
            }
            None => {
                table.insert_unique(hash, low, |low| hasher.hash_one(id_of(low)));
                (no, None)
            }
        }
    }

    /// Forgets the oldest.
    fn pop(&mut self, hasher: &FixedState) -> Option<Forgotten> {
        if self.first == self.next {
            return None;
        }
        let (seen, id) = id_at(&self.blocks, self.base, self.first);
        let len = id.len();
        let oldest = low(self.first);
        // Where the id has come again, its later number stays.
        if let Ok(entry) = self.table.find_entry(hasher.hash_one(id), |low| *low == oldest) {
            entry.remove();
        }
        self.first += 1;
        if place(self.base, self.first).0 > 0 {
            self.blocks.pop_front();
            self.base += BLOCK as u64;
            let Self {
                blocks,
                base,
                first,
                table,
                ..
            } = self;
            if table.capacity() > 8 * table.len() + BLOCK {
                let id_of = |low: &u32| id_at(blocks, *base, number(*first, *low)).1;
                table.shrink_to(2 * table.len(), |low| hasher.hash_one(id_of(low)));
            }
        }
        Some(Forgotten { seen, len })
    }

    /// The numbers of a run that are remembered and stated in `home`.
    fn stated_in(&self, run: Run, home: Seq) -> Vec<u64> {
        let end = (run.first + u64::from(run.count)).min(self.next);
        let numbers = run.first.max(self.first)..end;
        numbers.filter(|no| self.get(*no).0.home == home).collect()
    }

    /// All that are stated.
    fn stated(&self) -> impl Iterator<Item = (Seen, &[u8])> {
        let all = (self.first..self.next).map(|no| self.get(no));
        all.filter(|(seen, _)| seen.home > Seq(0))
    }
}

fn place(base: u64, number: u64) -> (usize, usize) {
    let at = usize::try_from(number - base).expect("remembered ids fit the memory");
    (at / BLOCK, at % BLOCK)
}

fn id_at(blocks: &VecDeque<Block>, base: u64, number: u64) -> (Seen, &[u8]) {
    let (block, at) = place(base, number);
    let block = blocks.get(block).expect("the number is of a remembered id");
    let seen = block.seen.get(at).expect("the number is of a remembered id");
    let start = at.checked_sub(1).and_then(|at| block.seen.get(at));
    let start = start.map_or(0, |before| before.end as usize);
    let id = block.ids.get(start..seen.end as usize);
    (*seen, id.expect("an id lies in its block"))
}

fn low(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}

/// The number with this lower half that is not before `first`.
fn number(first: u64, of: u32) -> u64 {
    first + u64::from(of.wrapping_sub(low(first)))
}

/// Whether a queue remembers ids at all.
pub(super) fn is_on(policy: &Policy) -> bool {
    policy.dedup_window_ms > 0 && policy.dedup_count_max > 0
}

/// Whether an id counts as seen. In either direction, since a clock may be set back: what was then seen in the future is not
/// remembered for ever.
fn is_within(seen: Seen, policy: &Policy, now: Now) -> bool {
    seen.at_ms.abs_diff(now.wall_ms) < policy.dedup_window_ms
}

impl Broker {
    /// If a queue has seen an id, what a receipt that says so must wait for. An id of a message in memory is no reason not
    /// to store one.
    pub(super) fn recall(&self, no: QueueNo, id: Id<'_>, persistent: bool, now: Now) -> Option<Seq> {
        let queue = self.queue(no)?;
        let ids = queue.seen.as_ref()?;
        let number = ids.find(id)?;
        let (seen, _) = ids.get(number);
        let counts = is_within(seen, &queue.policy, now)
            && ids.next - number <= queue.policy.dedup_count_max
            && (seen.home > Seq(0) || !persistent);
        counts.then_some(seen.home)
    }

    /// A queue has seen an id; `home` is the batch being filled, or `Seq(0)` for that of a message in memory.
    pub(super) fn remember(&mut self, no: QueueNo, id: Id<'_>, home: Seq, now: Now) {
        let number = self.take_in(no, id, now.wall_ms, home);
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("the queue was just opened");
        let ids = queue.seen.as_mut().expect("it was just made");
        if home > Seq(0) {
            self.ledger
                .state_seen(no, &queue.name, &mut ids.stated, (number, now.wall_ms, id.bytes));
        }
        self.forget_old(no, FORGET_INPUT, now);
        self.forget_over(now);
    }

    /// The same in memory only. Gives the id's number.
    fn take_in(&mut self, no: QueueNo, id: Id<'_>, at_ms: u64, home: Seq) -> u64 {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let queue = queue.expect("the queue was just opened");
        let mut bytes = id.bytes.len() + ID_BYTES;
        if queue.seen.is_none() {
            bytes += QUEUE_BYTES + 2 * queue.name.len();
            self.dedup.by_age.insert((at_ms, no));
        }
        let ids = queue.seen.get_or_insert_with(|| {
            Box::new(SeenIds {
                age: at_ms,
                ..SeenIds::default()
            })
        });
        ids.bytes += bytes;
        self.dedup.bytes += bytes;
        self.dedup.id_count += 1;
        let (number, old) = ids.push(&self.dedup.hasher, id, at_ms, home);
        // What it was before is nothing any more, and need not be stated again.
        if let Some(old) = old {
            let home = std::mem::take(&mut ids.seen_mut(old).home);
            if home > Seq(0) {
                self.ledger.forget_seen(home, id.bytes.len());
            }
        }
        number
    }

    /// A recovered fact says that an id was seen. One that says it again moves it there.
    pub(super) fn recover_seen(&mut self, no: QueueNo, id: &[u8], at_ms: u64, home: Seq) {
        self.ledger.recover_seen(home, id.len());
        let id = self.dedup.id(id);
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        if let Some(ids) = queue.and_then(|queue| queue.seen.as_mut())
            && let Some(number) = ids.find(id)
        {
            let seen = ids.seen_mut(number);
            if seen.at_ms == at_ms {
                seen.home = home;
                return;
            }
            // Nothing is counted as live yet.
            seen.home = Seq(0);
        }
        self.take_in(no, id, at_ms, home);
    }

    /// Ends the recovery of ids: they were stated again in another order than that in which they came, and only now is it known
    /// where each is at home.
    pub(super) fn recover_seen_end(&mut self, uuid: [u8; 16]) {
        // The first half is partly known to clients.
        let secret = uuid.last_chunk().copied().unwrap_or_default();
        self.dedup.hasher = FixedState::with_seed(u64::from_be_bytes(secret));
        let all: Vec<QueueNo> = self.dedup.by_age.iter().map(|(_, no)| *no).collect();
        for no in all {
            let ids = self.queue_mut(no).and_then(|queue| queue.seen.take());
            let ids = ids.expect("it remembers ids");
            self.drop_seen(no, &ids);
            let mut stated: Vec<(Seen, &[u8])> = ids.stated().collect();
            stated.sort_by_key(|(seen, _)| seen.at_ms);
            for (Seen { at_ms, home, .. }, id) in stated {
                let number = self.take_in(no, self.dedup.id(id), at_ms, home);
                self.ledger.recover_seen_live(home, no, number, id.len());
            }
        }
    }

    /// Forgets all ids of a queue, for good.
    pub(super) fn forget_all(&mut self, no: QueueNo) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let Some((queue, ids)) = queue.and_then(|queue| queue.seen.take().map(|ids| (queue, ids))) else {
            return;
        };
        self.ledger.state_unseen(&queue.name);
        for (seen, id) in ids.stated() {
            self.ledger.forget_seen(seen.home, id.len());
        }
        self.drop_seen(no, &ids);
    }

    /// The same of a recovered fact, before anything is counted as live.
    pub(super) fn recover_unseen(&mut self, no: QueueNo) {
        if let Some(ids) = self.queue_mut(no).and_then(|queue| queue.seen.take()) {
            self.drop_seen(no, &ids);
        }
    }

    fn drop_seen(&mut self, no: QueueNo, ids: &SeenIds) {
        self.dedup.by_age.remove(&(ids.age, no));
        self.dedup.id_count -= ids.len();
        self.dedup.bytes -= ids.bytes;
        self.mark_dirty(no);
    }

    /// Forgets the oldest ids of a queue whose time is over, or that are too many. Gives how many, up to a number of them.
    pub(super) fn forget_old(&mut self, no: QueueNo, count_max: usize, now: Now) -> usize {
        for count in 0..count_max {
            let Some(queue) = self.queue(no) else { return count };
            let Some(ids) = &queue.seen else { return count };
            let within = is_within(ids.get(ids.first).0, &queue.policy, now);
            if within && ids.len() <= queue.policy.dedup_count_max {
                return count;
            }
            self.forget_oldest(no, within && is_on(&queue.policy));
        }
        count_max
    }

    /// Forgets the oldest id of a queue; `early` if it would still count.
    fn forget_oldest(&mut self, no: QueueNo, early: bool) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let Some(ids) = queue.and_then(|queue| queue.seen.as_mut()) else {
            return;
        };
        let Some(Forgotten { seen, len }) = ids.pop(&self.dedup.hasher) else {
            return;
        };
        ids.bytes -= len + ID_BYTES;
        self.dedup.bytes -= len + ID_BYTES;
        self.dedup.id_count -= 1;
        self.counters.dedup_forgotten_count += u64::from(early);
        if seen.home > Seq(0) {
            self.ledger.forget_seen(seen.home, len);
        }
        if ids.len() == 0
            && let Some(ids) = self.queue_mut(no).and_then(|queue| queue.seen.take())
        {
            self.drop_seen(no, &ids);
        }
    }

    /// Forgets the oldest of all while they take too much.
    fn forget_over(&mut self, now: Now) {
        while self.dedup.bytes > self.limits.dedup_bytes_max
            && let Some(&(age, no)) = self.dedup.by_age.first()
        {
            let queue = self.queue(no).expect("it remembers ids");
            let ids = queue.seen.as_ref().expect("it remembers ids");
            let (oldest, _) = ids.get(ids.first);
            if oldest.at_ms != age {
                self.set_age(no);
                continue;
            }
            let within = is_within(oldest, &queue.policy, now);
            if within && !self.dedup.told {
                self.dedup.told = true;
                let id_count = self.dedup.id_count;
                self.notices.push_back(Notice::DedupFull { id_count });
            }
            self.forget_oldest(no, within);
            self.set_age(no);
        }
    }

    /// Notes the time of a queue's oldest id.
    fn set_age(&mut self, no: QueueNo) {
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        if let Some(ids) = queue.and_then(|queue| queue.seen.as_mut()) {
            let at_ms = ids.get(ids.first).0.at_ms;
            self.dedup.by_age.remove(&(ids.age, no));
            self.dedup.by_age.insert((at_ms, no));
            ids.age = at_ms;
        }
    }

    /// A tick's share of what is to be forgotten.
    pub(super) fn forget_ids(&mut self, now: Now) {
        if self.dedup.by_age.is_empty() {
            return;
        }
        self.forget_over(now);
        let range = self.dedup.by_age.range(self.dedup.cursor..);
        let some: Vec<(u64, QueueNo)> = range.take(LOOK_TICK).copied().collect();
        self.dedup.cursor = match some.last() {
            Some((age, no)) if some.len() == LOOK_TICK => (*age, QueueNo(no.0 + 1)),
            _ => (0, QueueNo(0)),
        };
        let mut budget = FORGET_TICK;
        for (_, no) in some {
            budget -= self.forget_old(no, budget, now);
            self.set_age(no);
            if budget == 0 {
                break;
            }
        }
    }

    /// States the ids of a run again that are at home in `seq`, from its end.
    pub(super) fn move_seen(&mut self, seq: Seq, run: Run, moves: &mut usize) {
        let now = self.now;
        let queue = self.queues.get_mut(run.queue.0 as usize).and_then(Option::as_mut);
        let Some(queue) = queue.filter(|queue| queue.seen.is_some()) else {
            self.ledger.end_seen();
            return;
        };
        let ids = queue.seen.as_mut().expect("it was just there");
        let home = self.ledger.seq();
        let (live, over): (Vec<u64>, Vec<u64>) = ids
            .stated_in(run, seq)
            .into_iter()
            .partition(|number| is_within(ids.get(*number).0, &queue.policy, now));
        // Those are not the oldest where the clock was set back.
        for number in over {
            ids.seen_mut(number).home = Seq(0);
            self.ledger.forget_seen(seq, ids.get(number).1.len());
        }
        let kept = live.len().saturating_sub(*moves);
        *moves -= live.len() - kept;
        let mut stated = ids.stated;
        for &number in live.get(kept..).expect("kept is at most the length") {
            ids.seen_mut(number).home = home;
            let (seen, id) = ids.get(number);
            self.ledger
                .state_seen(run.queue, &queue.name, &mut stated, (number, seen.at_ms, id));
            self.ledger.forget_seen(seq, id.len());
        }
        ids.stated = stated;
        match kept.checked_sub(1).and_then(|last| live.get(last)) {
            Some(last) => self
                .ledger
                .shorten_seen(u32::try_from(last + 1 - run.first).expect("within the run")),
            None => self.ledger.end_seen(),
        }
    }

    /// Refuses a SEND with an id to a queue that remembers none.
    pub(super) fn check_dedup(&self, name: &str) -> Result<(), Refusal> {
        let on = match self.find_queue(name) {
            Some(queue) => is_on(&queue.policy),
            None => is_on(&self.policies.of(name, &Settings::default())),
        };
        if on { Ok(()) } else { Err(Refusal::DedupOff) }
    }
}
