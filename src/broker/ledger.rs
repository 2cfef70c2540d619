//! The ledger: the batch being filled, the pool of body slots, and the log of index chunks.
//!
//! # Invariants
//! - A body chunk stands in the same batch as the facts that name it, or in an earlier one.
//! - A slot is handed out again only after the batch in which its last message was settled is durable.
//! - Index chunks are dropped oldest first only; before one is dropped, what is still live in it has been stated again in
//!   the batch that drops it or in an earlier one.
//! - Every Seq has exactly one record in the index log until it is dropped, so a record is found by subtraction.
//! - Nothing that a backup holds is dropped or handed out (`hold`).
//!
//! # Not here
//! Entries. Who calls `place` and `state_*` keeps them, and calls `forget` when one is settled.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{ChunkNo, ChunkRef, Epoch, MessageId, Seq, SlotNo};
use crate::journal::{
    Batch, CHUNK_BYTES_MAX, ChunkWrite, Enqueued, Fact, IdList, IndexSize, Item, Meta, Place, QueueName,
};

use super::policy::PolicyNo;
use super::queue::{EntryBytes, Queue, QueueNo};

mod hold;

use hold::Hold;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ledger {
    commit_bytes_max: usize,
    open: OpenBatch,
    closed: VecDeque<(Batch, usize)>,
    /// Bytes of batches handed out or waiting, oldest first.
    unflushed: VecDeque<(Seq, usize)>,
    unflushed_bytes: usize,
    durable: Seq,
    log: VecDeque<IndexRecord>,
    log_first: Seq,
    log_bytes: u64,
    log_dead_bytes: u64,
    log_part_count: u64,
    slots: Vec<Slot>,
    free: BTreeSet<SlotNo>,
    /// Slots emptied by a batch, usable once it is durable.
    freeing: VecDeque<(Seq, SlotNo)>,
    slot_count: u32,
    next_id: u64,
    epoch: Epoch,
    clean_epoch: Epoch,
    /// A batch is due although nothing was recorded (the new term's counters, dropped chunks, a smaller pool).
    wanted: bool,
    /// Facts that belong together are being stated.
    kept_open: bool,
    /// What a backup needs.
    hold: Option<Hold>,
}

#[derive(Debug, Default)]
struct OpenBatch {
    seq: Seq,
    facts: Vec<Fact>,
    settled: Vec<(QueueName, Vec<(u64, u64)>)>,
    /// Facts about ids, apart so that those about entries stay runs.
    seen: Vec<Fact>,
    chunks: Vec<ChunkWrite>,
    chunk_bytes: usize,
    /// About what its facts take.
    fact_bytes: usize,
    /// Where the bytes of the last entry stated end in their chunk.
    run_end: u32,
    filling: Option<Filling>,
    drop: Vec<Seq>,
}

/// The body chunk that small messages are packed into.
#[derive(Debug)]
struct Filling {
    place: ChunkRef,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    chunk: ChunkNo,
    /// Entries whose bytes are here.
    live: u32,
    /// Their bytes; what two entries share counts for both.
    live_bytes: u32,
    /// Bytes written to it, as far as is known: after recovery, up to the end of the last entry that is live.
    filled: u32,
}

/// What is known of one index chunk.
#[derive(Debug, Default)]
struct IndexRecord {
    size: IndexSize,
    /// Entries stated in it, and those of them that are still live and not stated again later.
    stated: u32,
    live: u32,
    dead_bytes: u32,
    /// Which entries, so that the live ones can be stated again.
    runs: Vec<Run>,
    /// Facts about queues that stand here and may still matter, and how many did.
    marks: Vec<Mark>,
    marks_stated: u32,
    /// Deduplication ids stated in it, and what they, and those of them that still matter, weigh.
    seen: Vec<Run>,
    seen_stated: u32,
    seen_live: u32,
}

/// Entries of one queue with consecutive sequences; or ids that it has seen, with consecutive numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) queue: QueueNo,
    pub(super) first: u64,
    pub(super) count: u32,
}

/// A fact about a queue as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// It has a subscriber.
    Watched(QueueNo),
    /// Its deliveries are stopped.
    Paused(QueueNo),
    /// It has properties.
    Declared(QueueNo),
    /// Of no queue: what holds for a pattern of names.
    Policy(PolicyNo),
}

/// What the oldest index chunk still holds, for whoever keeps the entries.
#[derive(Debug)]
pub(super) enum Oldest {
    /// Entries that may be live in it.
    Run(Seq, Run),
    /// A fact about a queue that may still matter.
    Mark(Seq, Mark),
    /// Ids that may still be remembered.
    Seen(Seq, Run),
}

/// Thresholds of compaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    pub(super) garbage_bytes_min: u64,
    pub(super) chunk_count_slack: u64,
}

/// About what a fact takes in memory.
const FACT_BYTES: usize = 64;

const PART_BYTES: u64 = CHUNK_BYTES_MAX as u64;

impl Ledger {
    pub(super) fn new(commit_bytes_max: usize) -> Self {
        Self {
            commit_bytes_max,
            open: OpenBatch::default(),
            closed: VecDeque::new(),
            unflushed: VecDeque::new(),
            unflushed_bytes: 0,
            durable: Seq(0),
            log: VecDeque::new(),
            log_first: Seq(1),
            log_bytes: 0,
            log_dead_bytes: 0,
            log_part_count: 0,
            slots: Vec::new(),
            free: BTreeSet::new(),
            freeing: VecDeque::new(),
            slot_count: 0,
            next_id: 0,
            epoch: Epoch(0),
            clean_epoch: Epoch(0),
            wanted: false,
            kept_open: false,
            hold: None,
        }
    }

    // ---- recovery ----

    /// Takes the record of a recovered index chunk; its entries follow by `recover_run`.
    pub(super) fn recover_chunk(&mut self, seq: Seq, size: IndexSize) {
        if self.log.is_empty() {
            self.log_first = seq;
        }
        self.extend_log(seq);
        self.log_bytes += u64::from(size.bytes);
        self.log_part_count += u64::from(size.parts);
        self.record(seq).expect("the log was extended to it").size = size;
    }

    /// Takes a recovered chunk's run of entries.
    pub(super) fn recover_run(&mut self, seq: Seq, run: Run) {
        let record = self.record(seq).expect("recover_chunk came first");
        record.stated += run.count;
        record.runs.push(run);
    }

    /// Takes a recovered fact about a queue.
    pub(super) fn recover_mark(&mut self, seq: Seq, mark: Mark) {
        self.record(seq)
            .expect("recover_chunk came first")
            .push_mark(mark);
    }

    /// Takes an id that a recovered fact says was seen.
    pub(super) fn recover_seen(&mut self, seq: Seq, len: usize) {
        let record = self.record(seq).expect("recover_chunk came first");
        record.seen_stated += seen_weight(len);
    }

    /// Counts one id that is remembered, under a number.
    pub(super) fn recover_seen_live(&mut self, home: Seq, queue: QueueNo, number: u64, len: usize) {
        let record = self.record(home).expect("the id came from this chunk");
        record.seen_live += seen_weight(len);
        push_run(&mut record.seen, queue, number);
    }

    /// Notes which chunk a fact names. The newest chunk of a slot is the one that live entries have: a slot is only
    /// overwritten when nothing in it is live.
    pub(super) fn recover_place(&mut self, place: ChunkRef) {
        let slot = self.slot_mut(place.slot);
        slot.chunk = slot.chunk.max(place.chunk);
    }

    /// Counts one live entry that was found.
    pub(super) fn recover_live(&mut self, home: Seq, bytes: &EntryBytes, len: u32) {
        self.record(home).expect("the entry came from this chunk").live += 1;
        let end = match bytes {
            EntryBytes::Stored { offset, .. } => offset + len,
            EntryBytes::Extent(_) | EntryBytes::Memory(_) => len,
        };
        for no in bytes.slots() {
            let slot = self.slot_mut(no);
            slot.live += 1;
            slot.live_bytes = slot.live_bytes.saturating_add(in_chunk(len));
            slot.filled = slot.filled.max(in_chunk(end));
        }
    }

    /// Ends recovery: a new term begins behind `last`.
    pub(super) fn recover_end(&mut self, last: Seq, slot_count: u32, meta: Meta) {
        if self.log.is_empty() {
            self.log_first = Seq(last.0 + 1);
        } else {
            self.extend_log(last);
        }
        self.durable = last;
        self.slot_count = slot_count.max(u32::try_from(self.slots.len()).expect("slot numbers are 32 bits"));
        self.slots.resize(self.slot_count as usize, Slot::default());
        self.free = (0..)
            .map(SlotNo)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.live == 0)
            .map(|(no, _)| no)
            .collect();
        for record in &mut self.log {
            record.dead_bytes = record.size.bytes - record.live_bytes();
            self.log_dead_bytes += u64::from(record.dead_bytes);
        }
        self.epoch = Epoch(meta.epoch.0 + 1);
        self.clean_epoch = meta.clean_epoch;
        self.next_id = self.epoch.first_id();
        self.open_at(Seq(last.0 + 1));
        self.wanted = true;
    }

    fn slot_mut(&mut self, no: SlotNo) -> &mut Slot {
        let at = no.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Slot::default());
        }
        self.slots.get_mut(at).expect("the pool was extended to it")
    }

    fn extend_log(&mut self, to: Seq) {
        while self.log_first.0 + (self.log.len() as u64) <= to.0 {
            self.log.push_back(IndexRecord::default());
        }
    }

    fn record(&mut self, seq: Seq) -> Option<&mut IndexRecord> {
        let at = seq.0.checked_sub(self.log_first.0)?;
        self.log.get_mut(usize::try_from(at).ok()?)
    }

    fn open_at(&mut self, seq: Seq) {
        self.open = OpenBatch {
            seq,
            ..OpenBatch::default()
        };
        self.extend_log(seq);
    }

    // ---- recording ----

    /// The Seq of the batch being filled.
    pub(super) fn seq(&self) -> Seq {
        self.open.seq
    }

    /// What a receipt must wait for if something has just been stated: the batch being filled, unless it is empty and so
    /// may never be committed.
    pub(super) fn gate(&self) -> Seq {
        if self.is_open_empty() {
            Seq(0)
        } else {
            self.open.seq
        }
    }

    /// What a receipt must wait for if nothing had to be stated, because an earlier batch said it: all that were filled.
    pub(super) fn gate_so_far(&self) -> Seq {
        let closed = Seq(self.open.seq.0 - 1);
        match self.gate() {
            Seq(0) if closed > self.durable => closed,
            gate => gate,
        }
    }

    pub(super) fn durable(&self) -> Seq {
        self.durable
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A number never handed out before.
    pub(super) fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The number that `take_id` will hand out next.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// What is in the slot of an entry.
    pub(super) fn chunk_in(&self, slot: SlotNo) -> ChunkRef {
        self.find_chunk(slot).expect("an entry's slot is in the pool")
    }

    /// What is in a slot; `None` if the pool has shrunk since.
    pub(super) fn find_chunk(&self, slot: SlotNo) -> Option<ChunkRef> {
        let chunk = self.slots.get(slot.0 as usize)?.chunk;
        Some(ChunkRef { slot, chunk })
    }

    /// Puts message bytes into the batch being filled. May close that batch: facts go into whatever batch is open then.
    pub(super) fn place(&mut self, bytes: &[u8]) -> Place {
        if bytes.len() > CHUNK_BYTES_MAX {
            return self.place_shared(&Bytes::copy_from_slice(bytes));
        }
        let full = |filling: &Filling| filling.payload.len() + bytes.len() > CHUNK_BYTES_MAX;
        if self.open.filling.as_ref().is_some_and(full) {
            self.end_filling();
            self.close_if_full();
        }
        if self.open.filling.is_none() {
            let place = self.take_slot();
            self.open.filling = Some(Filling {
                place,
                payload: Vec::with_capacity(bytes.len().max(2048)),
            });
        }
        let filling = self.open.filling.as_mut().expect("it was just made");
        let offset = u32::try_from(filling.payload.len()).expect("a chunk is small");
        filling.payload.extend_from_slice(bytes);
        self.open.chunk_bytes += bytes.len();
        let chunk = filling.place;
        self.slot_mut(chunk.slot).add(bytes.len());
        Place::Chunk { chunk, offset }
    }

    /// The same for bytes that need not be copied.
    pub(super) fn place_shared(&mut self, bytes: &Bytes) -> Place {
        if bytes.len() <= CHUNK_BYTES_MAX {
            return self.place(bytes);
        }
        let mut places = Vec::with_capacity(bytes.len().div_ceil(CHUNK_BYTES_MAX));
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let payload = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            let place = self.take_slot();
            self.slot_mut(place.slot).add(payload.len());
            self.open.chunk_bytes += payload.len();
            self.open.chunks.push(ChunkWrite { place, payload });
            places.push(place);
            self.close_if_full();
        }
        Place::Extent(places.into())
    }

    /// One more entry refers to bytes that are already placed.
    pub(super) fn share(&mut self, bytes: &EntryBytes, len: u32) {
        for no in bytes.slots() {
            let slot = self.slot_mut(no);
            slot.live += 1;
            slot.live_bytes = slot.live_bytes.saturating_add(in_chunk(len));
        }
    }

    fn take_slot(&mut self) -> ChunkRef {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            let slot = SlotNo(self.slot_count);
            self.slot_count += 1;
            slot
        });
        let chunk = ChunkNo(self.take_id());
        *self.slot_mut(slot) = Slot {
            chunk,
            ..Slot::default()
        };
        ChunkRef { slot, chunk }
    }

    fn end_filling(&mut self) {
        let Some(Filling { place, mut payload }) = self.open.filling.take() else {
            return;
        };
        if payload.len() < payload.capacity() / 2 {
            payload.shrink_to_fit();
        }
        self.open.chunks.push(ChunkWrite {
            place,
            payload: Bytes::from(payload),
        });
        if self.slot_mut(place.slot).live == 0 {
            self.freeing.push_back((self.open.seq, place.slot));
        }
    }

    /// States that an entry exists; its home is the batch being filled.
    pub(super) fn state_enqueued(&mut self, queue: QueueNo, name: &QueueName, new: &Statement<'_>) {
        let record = self.log.back_mut().expect("the open batch has the last record");
        record.stated += 1;
        record.live += 1;
        push_run(&mut record.runs, queue, new.sequence);
        let end = match new.place {
            Place::Chunk { offset, .. } => offset + new.item.len,
            Place::Extent(_) => 0,
        };
        if let Some(Fact::Enqueued(last)) = self.open.facts.last_mut()
            && continues(last, self.open.run_end, name, new)
        {
            last.items.push(new.item);
            self.open.fact_bytes += size_of::<Item>();
        } else {
            self.open.fact_bytes += FACT_BYTES;
            self.open.facts.push(Fact::Enqueued(Enqueued {
                queue: Arc::clone(name),
                first_sequence: new.sequence,
                first_message: new.message,
                accepted_at_ms: new.accepted_at_ms,
                place: new.place.clone(),
                items: vec![new.item],
                deliveries: new.deliveries,
                failures: new.failures,
                fields: new.fields.to_vec(),
            }));
        }
        self.open.run_end = end;
    }

    /// States that entries are gone: all there were from `first` to `last`. `index` is where this queue's ranges are in the
    /// open batch; see [`Ledger::settled_index`].
    pub(super) fn state_settled(&mut self, index: usize, first: u64, last: u64) {
        let (_, ranges) = self
            .open
            .settled
            .get_mut(index)
            .expect("the index is of the open batch");
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => {
                ranges.push((first, last));
                self.open.fact_bytes += size_of::<(u64, u64)>();
            }
        }
    }

    /// Where a queue's settlements are in the open batch, room being made at the first; it holds while `seq()` stays the
    /// same.
    pub(super) fn settled_index(&mut self, queue: &mut Queue) -> usize {
        if queue.settled.0 != self.open.seq {
            queue.settled = (self.open.seq, self.open.settled.len());
            self.open.settled.push((Arc::clone(&queue.name), Vec::new()));
            self.open.fact_bytes += FACT_BYTES;
        }
        queue.settled.1
    }

    /// States that a queue has seen an id: its number, when, and the id. `stated` is where this queue's ids are in the open
    /// batch, made at the first.
    pub(super) fn state_seen(
        &mut self,
        queue: QueueNo,
        name: &QueueName,
        stated: &mut (Seq, usize),
        (number, at_ms, id): (u64, u64, &[u8]),
    ) {
        let record = self.log.back_mut().expect("the open batch has the last record");
        record.seen_stated += seen_weight(id.len());
        record.seen_live += seen_weight(id.len());
        push_run(&mut record.seen, queue, number);
        if stated.0 != self.open.seq {
            *stated = (self.open.seq, self.open.seen.len());
            self.open.fact_bytes += FACT_BYTES;
            self.open.seen.push(Fact::Seen {
                queue: Arc::clone(name),
                ids: IdList::default(),
            });
        }
        if let Some(Fact::Seen { ids, .. }) = self.open.seen.get_mut(stated.1) {
            ids.push(at_ms, id);
        }
        self.open.fact_bytes += size_of::<(u64, usize)>() + id.len();
    }

    /// States that all ids of a queue are forgotten; dropped as what `state_paused` says is.
    pub(super) fn state_unseen(&mut self, name: &QueueName) {
        self.open.fact_bytes += FACT_BYTES;
        self.open.seen.push(Fact::Seen {
            queue: Arc::clone(name),
            ids: IdList::default(),
        });
    }

    /// An id is forgotten, or was stated again.
    pub(super) fn forget_seen(&mut self, home: Seq, len: usize) {
        let record = self.record(home).expect("a remembered id's home is in the log");
        record.seen_live -= seen_weight(len);
        let more = record.bury();
        self.log_dead_bytes += u64::from(more);
    }

    /// States anything else.
    pub(super) fn state(&mut self, fact: Fact) {
        self.open.fact_bytes += FACT_BYTES;
        self.open.facts.push(fact);
    }

    /// States that a queue has a subscriber.
    pub(super) fn state_watched(&mut self, queue: QueueNo, name: &QueueName) {
        let epoch = self.epoch;
        self.state_mark(Mark::Watched(queue));
        self.state(Fact::Watched {
            queue: Arc::clone(name),
            epoch,
        });
    }

    /// States that the deliveries of a queue are stopped, or go on. That they go on matters only until it is stated that
    /// they are stopped, which was before, is dropped; so it may be dropped when its turn comes.
    pub(super) fn state_paused(&mut self, queue: QueueNo, name: &QueueName, paused: bool) {
        if paused {
            self.state_mark(Mark::Paused(queue));
        }
        self.state(Fact::Paused {
            queue: Arc::clone(name),
            paused,
        });
    }

    /// States which topic a queue is bound to and what it declares of itself; neither, once it is gone, which is dropped as
    /// what `state_paused` says is.
    pub(super) fn state_declared(&mut self, no: QueueNo, queue: &Queue) {
        if queue.is_declared() {
            self.state_mark(Mark::Declared(no));
        }
        self.state(Fact::Declared {
            queue: Arc::clone(&queue.name),
            topic: queue.binding.clone(),
            selector: queue
                .binding_filter
                .as_ref()
                .map(|filter| Arc::clone(&filter.text)),
            settings: queue.declared.clone(),
        });
    }

    /// States what holds for a pattern of names; nothing any more, if it has no place, which is dropped as above.
    pub(super) fn state_policy(&mut self, no: Option<PolicyNo>, fact: Fact) {
        if let Some(no) = no {
            self.state_mark(Mark::Policy(no));
        }
        self.state(fact);
    }

    fn state_mark(&mut self, mark: Mark) {
        let seq = self.open.seq;
        self.record(seq)
            .expect("the open batch has a record")
            .push_mark(mark);
    }

    /// An entry is gone, or was stated again: `home` holds one live entry less.
    pub(super) fn forget(&mut self, home: Seq) {
        let record = self.record(home).expect("a live entry's home is in the log");
        record.live -= 1;
        let more = record.bury();
        self.log_dead_bytes += u64::from(more);
    }

    /// An entry's bytes are needed no more; its slots are free once the open batch is durable.
    pub(super) fn release(&mut self, bytes: &EntryBytes, len: u32) {
        for no in bytes.slots() {
            let slot = self.slot_mut(no);
            slot.live -= 1;
            slot.live_bytes = slot.live_bytes.saturating_sub(in_chunk(len));
            let filling = self
                .open
                .filling
                .as_ref()
                .is_some_and(|filling| filling.place.slot == no);
            if self.slot_mut(no).live == 0 && !filling {
                self.freeing.push_back((self.open.seq, no));
            }
        }
    }

    /// Marks this term as ended cleanly and makes a last batch due.
    pub(super) fn state_clean_stop(&mut self) {
        self.clean_epoch = self.epoch;
        self.wanted = true;
    }

    /// Until this is taken back, the batch being filled is not closed, whatever its size.
    pub(super) fn keep_open(&mut self, keep: bool) {
        self.kept_open = keep;
    }

    /// Closes the batch being filled if it is over its cap. Not called between facts that belong together.
    pub(super) fn close_if_full(&mut self) {
        let bytes = self.open.chunk_bytes + self.open.fact_bytes;
        if bytes >= self.commit_bytes_max && !self.kept_open {
            self.close();
        }
    }

    // ---- batches ----

    /// The next batch, oldest first.
    pub(super) fn poll_batch(&mut self) -> Option<Batch> {
        if self.closed.is_empty() && (self.wanted || !self.is_open_empty()) {
            self.close();
        }
        let (batch, bytes) = self.closed.pop_front()?;
        self.unflushed.push_back((batch.seq, bytes));
        Some(batch)
    }

    pub(super) fn is_open_empty(&self) -> bool {
        let open = &self.open;
        open.facts.is_empty()
            && open.settled.is_empty()
            && open.seen.is_empty()
            && open.chunks.is_empty()
            && open.filling.is_none()
            && open.drop.is_empty()
    }

    /// Whether `poll_batch` would give one.
    pub(super) fn has_batch(&self) -> bool {
        self.wanted || !self.closed.is_empty() || !self.is_open_empty()
    }

    pub(super) fn want_batch(&mut self) {
        self.wanted = true;
    }

    fn close(&mut self) {
        self.end_filling();
        self.wanted = false;
        let next = Seq(self.open.seq.0 + 1);
        let open = std::mem::take(&mut self.open);
        let mut facts = open.facts;
        facts.extend(open.seen);
        facts.extend(open.settled.into_iter().map(|(queue, mut ranges)| {
            merge(&mut ranges);
            Fact::Settled { queue, ranges }
        }));
        let bytes = open.chunk_bytes + open.fact_bytes;
        self.unflushed_bytes += bytes;
        let meta = self.meta();
        let batch = Batch {
            seq: open.seq,
            facts,
            chunks: open.chunks,
            drop: open.drop,
            slot_count: self.slot_count,
            meta,
        };
        self.closed.push_back((batch, bytes));
        self.open_at(next);
    }

    fn meta(&self) -> Meta {
        Meta {
            epoch: self.epoch,
            next_id: self.next_id,
            clean_epoch: self.clean_epoch,
        }
    }

    /// Bytes in batches that are not durable.
    pub(super) fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes + self.open.chunk_bytes + self.open.fact_bytes
    }

    /// The batch `seq` is durable; called for each, in order.
    pub(super) fn handle_durable(&mut self, seq: Seq, size: IndexSize) {
        assert_eq!(seq.0, self.durable.0 + 1, "batches become durable in order");
        self.durable = seq;
        while let Some(&(of, bytes)) = self.unflushed.front()
            && of <= seq
        {
            self.unflushed.pop_front();
            self.unflushed_bytes -= bytes;
        }
        while let Some(&(of, slot)) = self.freeing.front()
            && of <= seq
        {
            self.freeing.pop_front();
            if slot.0 < self.slot_count && self.slot_mut(slot).live == 0 {
                self.end_slot(slot);
            }
        }
        self.log_bytes += u64::from(size.bytes);
        self.log_part_count += u64::from(size.parts);
        let record = self.record(seq).expect("a batch is dropped only when durable");
        record.size = size;
        let dead = size.bytes - record.live_bytes();
        record.dead_bytes = dead;
        self.log_dead_bytes += u64::from(dead);
    }

    // ---- the index log ----

    /// Drops the oldest index chunks that hold nothing live, up to a number of them, with the batch being filled.
    /// Gives what must be looked at before the next one can be dropped, if anything.
    pub(super) fn drop_oldest(&mut self, budget: &mut usize) -> Option<Oldest> {
        while self.log_first <= self.durable && *budget > 0 {
            let seq = self.log_first;
            let record = self
                .log
                .front_mut()
                .expect("a durable Seq from the first on has a record");
            if let Some(&mark) = record.marks.last() {
                return Some(Oldest::Mark(seq, mark));
            }
            if record.live > 0 {
                let run = record.runs.last().copied().expect("a live entry is in a run");
                return Some(Oldest::Run(seq, run));
            }
            if record.seen_live > 0 {
                let run = record.seen.last().copied().expect("a remembered id is in a run");
                return Some(Oldest::Seen(seq, run));
            }
            if record.size.parts > 0 {
                self.open.drop.push(seq);
                *budget -= 1;
            }
            self.log_bytes -= u64::from(record.size.bytes);
            self.log_dead_bytes -= u64::from(record.dead_bytes);
            self.log_part_count -= u64::from(record.size.parts);
            self.log.pop_front();
            self.log_first = Seq(seq.0 + 1);
        }
        None
    }

    /// The fact about a queue just looked at matters no more, or was stated again.
    pub(super) fn end_mark(&mut self) {
        self.log.front_mut().expect("it was just looked at").marks.pop();
    }

    /// The last run of the oldest chunk has been looked at up to its end.
    pub(super) fn end_run(&mut self) {
        self.log.front_mut().expect("it was just looked at").runs.pop();
    }

    /// The last run of ids of the oldest chunk has been looked at up to its end.
    pub(super) fn end_seen(&mut self) {
        self.log.front_mut().expect("it was just looked at").seen.pop();
    }

    /// The same except for its first `count` ids.
    pub(super) fn shorten_seen(&mut self, count: u32) {
        let run = self.log.front_mut().and_then(|record| record.seen.last_mut());
        run.expect("it was just looked at").count = count;
    }

    /// The last run of the oldest chunk has been looked at except for its first `count` entries.
    pub(super) fn shorten_run(&mut self, count: u32) {
        let run = self
            .log
            .front_mut()
            .and_then(|record| record.runs.last_mut())
            .expect("it was just looked at");
        run.count = count;
    }

    /// Whether so much of the log is dead, or in so many small chunks, that stating the live again is worth it.
    pub(super) fn wants_compaction(&self, thresholds: Thresholds) -> bool {
        let live = self.log_bytes - self.log_dead_bytes;
        self.log_dead_bytes > live.max(thresholds.garbage_bytes_min)
            || self.log_part_count > thresholds.chunk_count_slack + 2 * (live / PART_BYTES)
    }

    /// Gives free slots at the end of the pool back, up to a number of them, but for a reserve. A store may keep a few
    /// more, so that an empty pool is no slower.
    pub(super) fn shrink_pool(&mut self, budget: u32) -> u32 {
        let live = self.slots.len() - self.free.len().min(self.slots.len());
        let reserve = live / 4;
        let mut given = 0;
        while given < budget
            && self.free.len() > reserve
            && let Some(&last) = self.free.last()
            && last.0 + 1 == self.slot_count
        {
            self.free.pop_last();
            self.slots.pop();
            self.slot_count -= 1;
            given += 1;
        }
        given
    }

    /// Slots whose live bytes should be moved so that they are free: sparse ones while more of the pool is waste than
    /// live, and those behind the middle of a pool that is mostly free, so that it can shrink. Ascending, up to `count_max`.
    pub(super) fn sparse_slots(&self, waste_bytes_min: u64, count_max: usize) -> Vec<SlotNo> {
        let filling = self.open.filling.as_ref().map(|filling| filling.place.slot);
        let live = || {
            (0..)
                .map(SlotNo)
                .zip(&self.slots)
                .filter(|(no, slot)| slot.live > 0 && Some(*no) != filling)
        };
        let (mut waste_bytes, mut live_bytes, mut live_count) = (0_u64, 0_u64, 0_usize);
        for (_, slot) in live() {
            waste_bytes += u64::from(slot.filled.saturating_sub(slot.live_bytes));
            live_bytes += u64::from(slot.live_bytes);
            live_count += 1;
        }
        let far = (self.slots.len() > 4 * live_count + 4096).then_some(2 * live_count + 1024);
        let sparse = waste_bytes > live_bytes.max(waste_bytes_min);
        live()
            .filter(|(no, slot)| {
                far.is_some_and(|far| no.0 as usize >= far)
                    || (sparse && u64::from(slot.live_bytes) * 2 < u64::from(slot.filled))
            })
            .map(|(no, _)| no)
            .take(count_max)
            .collect()
    }

    /// For people and tests.
    pub(super) fn figures(&self) -> LedgerView {
        LedgerView {
            index_part_count: self.log_part_count,
            index_bytes: self.log_bytes,
            index_dead_bytes: self.log_dead_bytes,
            slot_count: self.slot_count,
            free_slot_count: u32::try_from(self.free.len()).expect("slot numbers are 32 bits"),
            durable: self.durable,
            epoch: self.epoch,
        }
    }
}

impl Slot {
    fn add(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a chunk is small");
        self.live += 1;
        self.live_bytes += bytes;
        self.filled += bytes;
    }
}

impl IndexRecord {
    fn push_mark(&mut self, mark: Mark) {
        self.marks.push(mark);
        self.marks_stated += 1;
    }

    /// Something in it says nothing any more; how many of its bytes do so now.
    fn bury(&mut self) -> u32 {
        if self.size.bytes == 0 {
            return 0;
        }
        let dead = self.size.bytes - self.live_bytes();
        let more = dead - self.dead_bytes;
        self.dead_bytes = dead;
        more
    }

    /// Its share of bytes that still say something.
    fn live_bytes(&self) -> u32 {
        let stated = u64::from(self.stated) + u64::from(self.marks_stated);
        let live = u64::from(self.live) + self.marks.len() as u64;
        let stated = stated * FACT_WEIGHT + u64::from(self.seen_stated);
        let live = live * FACT_WEIGHT + u64::from(self.seen_live);
        let share = (u64::from(self.size.bytes) * live)
            .checked_div(stated)
            .unwrap_or(0);
        u32::try_from(share).expect("a share is no larger than the whole")
    }
}

/// The journal as the core sees it, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerView {
    /// Parts of live index chunks, each a key of the store.
    pub index_part_count: u64,
    /// Their bytes.
    pub index_bytes: u64,
    /// Bytes among them that say nothing any more.
    pub index_dead_bytes: u64,
    /// Body slots in the pool.
    pub slot_count: u32,
    /// Those of them that hold nothing live.
    pub free_slot_count: u32,
    /// The last durable batch.
    pub durable: Seq,
    /// The term.
    pub epoch: Epoch,
}

impl LedgerView {
    /// Bytes of slots that hold something, and of index chunks.
    pub fn held_bytes(&self) -> u64 {
        u64::from(self.slot_count - self.free_slot_count) * PART_BYTES + self.index_bytes
    }
}

/// One entry, to be stated.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) sequence: u64,
    pub(super) message: MessageId,
    pub(super) accepted_at_ms: u64,
    pub(super) place: &'a Place,
    pub(super) item: Item,
    pub(super) deliveries: u32,
    pub(super) failures: u32,
    pub(super) fields: &'a [(u8, Bytes)],
}

/// What an entry or a mark weighs in an index chunk, beside an id.
const FACT_WEIGHT: u64 = 16;

fn seen_weight(len: usize) -> u32 {
    u32::try_from(len).expect("an id is short") + 2
}

fn push_run(runs: &mut Vec<Run>, queue: QueueNo, number: u64) {
    match runs.last_mut() {
        Some(run) if run.queue == queue && run.first + u64::from(run.count) == number => run.count += 1,
        _ => runs.push(Run {
            queue,
            first: number,
            count: 1,
        }),
    }
}

/// How much of a message's bytes is in one of its chunks, at most.
fn in_chunk(len: u32) -> u32 {
    len.min(CHUNK_BYTES_MAX as u32)
}

/// Whether one more entry can be told by the same fact, whose bytes end at `end`.
fn continues(last: &Enqueued, end: u32, name: &QueueName, next: &Statement<'_>) -> bool {
    let (
        Place::Chunk { chunk, .. },
        Place::Chunk {
            chunk: next_chunk,
            offset,
        },
    ) = (&last.place, next.place)
    else {
        return false;
    };
    let count = last.items.len() as u64;
    chunk == next_chunk
        && *offset == end
        && last.items.len() < Enqueued::ITEM_COUNT_MAX
        && last.first_sequence + count == next.sequence
        && last.first_message.0 + count == next.message.0
        && last.accepted_at_ms == next.accepted_at_ms
        && (last.deliveries, last.failures) == (next.deliveries, next.failures)
        && last.fields.as_slice() == next.fields
        && Arc::ptr_eq(&last.queue, name)
}

/// Sorts ranges and joins those that touch.
fn merge(ranges: &mut Vec<(u64, u64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touch = last.1 + 1 >= next.0;
        if touch {
            last.1 = last.1.max(next.1);
        }
        touch
    });
}
