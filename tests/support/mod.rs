//! What the oracles share: a store as naive as can be, which also checks the rules that every batch must keep.

#![allow(dead_code, reason = "each of the suites uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use steadfast::base::{ChunkNo, ChunkRef, Limits, Now, Seq};
use steadfast::broker::{BackupPoint, Broker, Recovery};
use steadfast::journal::{
    Batch, CHUNK_BYTES_MAX, Enqueued, Fact, IndexChunk, IndexSize, Meta, Place, Recovered, decode_facts,
    encode_facts,
};
use steadfast::port::Body;

/// A disk: what is durable, and behind it what was appended and is not durable yet.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    index: BTreeMap<Seq, Vec<u8>>,
    slots: BTreeMap<u32, (ChunkNo, Bytes)>,
    slot_count: u32,
    meta: Meta,
    last_seq: Seq,
    pending: VecDeque<Batch>,
}

impl Disk {
    /// Takes a batch; not durable yet.
    pub(crate) fn append(&mut self, batch: Batch) {
        let last = self.appended_seq();
        assert_eq!(batch.seq.0, last.0 + 1, "batches are numbered without holes");
        for write in &batch.chunks {
            assert!(
                write.payload.len() <= CHUNK_BYTES_MAX,
                "a body chunk fits its slot"
            );
            assert!(
                write.place.slot.0 < batch.slot_count,
                "a body chunk lies inside the pool of {} slots",
                batch.slot_count
            );
        }
        self.check_slots_are_free(&batch);
        self.pending.push_back(batch);
    }

    /// A slot is used again only once it is durable that nothing in it is needed: no entry that was live in the durable
    /// state, or became so since, may name it.
    fn check_slots_are_free(&self, batch: &Batch) {
        if batch.chunks.is_empty() {
            return;
        }
        let mut live: BTreeMap<(Arc<str>, u64), Vec<ChunkRef>> = BTreeMap::new();
        let mut gone: Vec<(Arc<str>, (u64, u64))> = Vec::new();
        for fact in self.index.values().flat_map(|bytes| decoded(bytes)) {
            match fact {
                Fact::Enqueued(run) => live.extend(
                    (run.first_sequence..)
                        .zip(&run.items)
                        .map(|(sequence, _)| ((Arc::clone(&run.queue), sequence), chunks_of(&run))),
                ),
                Fact::Settled { queue, ranges } => {
                    gone.extend(ranges.into_iter().map(|range| (Arc::clone(&queue), range)));
                }
                Fact::Counted { .. }
                | Fact::Delayed { .. }
                | Fact::Watched { .. }
                | Fact::Paused { .. }
                | Fact::Declared { .. }
                | Fact::Policy { .. }
                | Fact::Seen { .. } => {}
            }
        }
        for (queue, (first, last)) in gone {
            let range = (Arc::clone(&queue), first)..=(queue, last);
            let dead: Vec<_> = live.range(range).map(|(key, _)| key.clone()).collect();
            dead.iter().for_each(|key| drop(live.remove(key)));
        }
        let since = self
            .pending
            .iter()
            .flat_map(|batch| &batch.facts)
            .filter_map(|fact| match fact {
                Fact::Enqueued(run) => Some(chunks_of(run)),
                _ => None,
            });
        let needed: BTreeMap<u32, ChunkNo> = live
            .into_values()
            .chain(since)
            .flatten()
            .map(|chunk| (chunk.slot.0, chunk.chunk))
            .collect();
        for write in &batch.chunks {
            let other = needed.get(&write.place.slot.0);
            assert!(
                other.is_none(),
                "slot {} was used again while chunk {other:?} in it is not durably gone",
                write.place.slot
            );
        }
    }

    /// The last batch appended.
    pub(crate) fn appended_seq(&self) -> Seq {
        self.pending.back().map_or(self.last_seq, |batch| batch.seq)
    }

    /// Makes up to `count` appended batches durable and returns the sizes of their index chunks.
    pub(crate) fn flush(&mut self, count: usize) -> Vec<IndexSize> {
        let count = count.min(self.pending.len());
        let batches: Vec<Batch> = self.pending.drain(..count).collect();
        batches.into_iter().map(|batch| self.write(batch)).collect()
    }

    fn write(&mut self, batch: Batch) -> IndexSize {
        if let Some(newest) = batch.drop.iter().max() {
            for seq in &batch.drop {
                self.index.remove(seq);
            }
            if let Some(oldest) = self.index.keys().next() {
                assert!(oldest > newest, "index chunks are dropped oldest first only");
            }
        }
        for write in batch.chunks {
            self.slots
                .insert(write.place.slot.0, (write.place.chunk, write.payload));
        }
        self.slots.retain(|slot, _| *slot < batch.slot_count);
        self.slot_count = batch.slot_count;
        assert!(
            batch.meta.next_id >= self.meta.next_id,
            "numbers are never handed out twice"
        );
        self.meta = batch.meta;
        self.last_seq = batch.seq;
        if batch.facts.is_empty() {
            return IndexSize::default();
        }
        let bytes = encode_facts(&batch.facts);
        let size = size_of(&bytes);
        self.index.insert(batch.seq, bytes);
        size
    }

    /// How many appended batches are not durable.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The last durable batch.
    pub(crate) fn durable_seq(&self) -> Seq {
        self.last_seq
    }

    /// The power goes: of what is not durable the first `kept` batches happen to be there, the others are forgotten.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.flush(kept);
        self.pending.clear();
    }

    /// The bytes a body names, header block first.
    pub(crate) fn resolve(&self, body: &Body, len: u32) -> Vec<Bytes> {
        let len = len as usize;
        match body {
            Body::Stored { chunk, offset } => {
                let payload = self.needed(*chunk);
                let at = *offset as usize;
                assert!(at + len <= payload.len(), "a message lies inside its chunk");
                vec![payload.slice(at..at + len)]
            }
            Body::Extent(chunks) => {
                let pieces: Vec<Bytes> = chunks.iter().map(|chunk| self.needed(*chunk)).collect();
                let total: usize = pieces.iter().map(Bytes::len).sum();
                assert_eq!(
                    total, len,
                    "the chunks of an extent hold the message and nothing else"
                );
                pieces
            }
            Body::Memory(bytes) => {
                assert_eq!(bytes.len(), len, "a message in memory has the length it says");
                vec![bytes.clone()]
            }
        }
    }

    fn needed(&self, place: ChunkRef) -> Bytes {
        self.chunk(place).unwrap_or_else(|| {
            let other = self.slots.get(&place.slot.0).map(|(chunk, _)| *chunk);
            panic!(
                "chunk {} is needed and not in slot {}, which holds {other:?}",
                place.chunk, place.slot
            )
        })
    }

    /// The payload of a chunk; `None` where its slot holds another one.
    pub(crate) fn chunk(&self, place: ChunkRef) -> Option<Bytes> {
        let pending = self
            .pending
            .iter()
            .rev()
            .flat_map(|batch| batch.chunks.iter().rev())
            .find(|write| write.place.slot == place.slot);
        if let Some(write) = pending {
            return (write.place == place).then(|| write.payload.clone());
        }
        let (chunk, payload) = self.slots.get(&place.slot.0)?;
        (*chunk == place.chunk).then(|| payload.clone())
    }

    /// Whether all chunks of a body are there.
    pub(crate) fn holds(&self, body: &Body) -> bool {
        match body {
            Body::Stored { chunk, .. } => self.chunk(*chunk).is_some(),
            Body::Extent(chunks) => chunks.iter().all(|chunk| self.chunk(*chunk).is_some()),
            Body::Memory(_) => true,
        }
    }

    /// Index chunks, their bytes, slots: what must stay flat.
    pub(crate) fn extent(&self) -> (usize, usize, u32) {
        let bytes = self.index.values().map(Vec::len).sum();
        (self.index.len(), bytes, self.slot_count)
    }

    /// Durable index chunks from a Seq to another: the first of them.
    pub(crate) fn index(&self, from: Seq, to: Seq, count_max: usize) -> Vec<(Seq, Vec<u8>)> {
        let found = self.index.range(from..).take_while(|(seq, _)| **seq <= to);
        found
            .take(count_max)
            .map(|(seq, bytes)| (*seq, bytes.clone()))
            .collect()
    }

    /// What a backup has read.
    pub(crate) fn of(
        point: &BackupPoint,
        index: BTreeMap<Seq, Vec<u8>>,
        chunks: Vec<(ChunkRef, Bytes)>,
    ) -> Self {
        let slots = chunks
            .into_iter()
            .map(|(place, payload)| (place.slot.0, (place.chunk, payload)));
        Self {
            index,
            slots: slots.collect(),
            slot_count: point.slot_count,
            meta: point.meta,
            last_seq: point.seq,
            pending: VecDeque::new(),
        }
    }

    /// A broker in a new term, from what is durable. Its first batches are not appended yet.
    pub(crate) fn recover(&self, limits: &Limits, now: Now) -> Broker {
        assert!(self.pending.is_empty(), "recovery sees durable batches only");
        let mut recovery = Recovery::new(limits.clone());
        for (seq, bytes) in &self.index {
            recovery.visit(IndexChunk {
                seq: *seq,
                facts: decoded(bytes),
                size: size_of(bytes),
            });
        }
        let recovered = Recovered {
            last_seq: self.last_seq,
            meta: self.meta,
            slot_count: self.slot_count,
            uuid: [0xab; 16],
        };
        recovery.finish(&recovered, now)
    }

    /// The term of the owner that wrote last.
    pub(crate) fn epoch(&self) -> steadfast::base::Epoch {
        self.meta.epoch
    }
}

fn decoded(bytes: &[u8]) -> Vec<Fact> {
    decode_facts(bytes).expect("what was encoded decodes")
}

fn chunks_of(run: &Enqueued) -> Vec<ChunkRef> {
    match &run.place {
        Place::Chunk { chunk, .. } => vec![*chunk],
        Place::Extent(chunks) => chunks.to_vec(),
    }
}

fn size_of(bytes: &[u8]) -> IndexSize {
    IndexSize {
        parts: u16::try_from(bytes.len().div_ceil(CHUNK_BYTES_MAX)).expect("an index chunk has few parts"),
        bytes: u32::try_from(bytes.len()).expect("an index chunk is small"),
    }
}
