//! A store in memory: the reference that every other store is measured by, and the disk of simulations.
//!
//! # Invariants
//! - It obeys the contract of [`Store`] and no more: a crash keeps a prefix of the batches behind the last flush,
//!   chosen by the caller.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::{OLDEST_FIRST, Store, StoreError, StoreStats, check_batch, index_size};
use crate::base::{ChunkNo, ChunkRef, Seq, SlotNo};
use crate::journal::{Batch, ChunkWrite, IndexChunk, IndexSize, Meta, Recovered, decode_facts, encode_facts};

/// See the module's text.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    durable: Image,
    current: Image,
    /// Appended and not flushed, oldest first.
    pending: Vec<Step>,
    recovered: bool,
}

/// What a batch does to the stored bytes.
#[derive(Debug, Clone)]
struct Step {
    seq: Seq,
    index: Bytes,
    chunks: Vec<ChunkWrite>,
    drop: Vec<Seq>,
    slot_count: u32,
    meta: Meta,
}

#[derive(Debug, Clone)]
struct Image {
    index: BTreeMap<Seq, Bytes>,
    slots: BTreeMap<SlotNo, (ChunkNo, Bytes)>,
    found: Recovered,
}

impl Image {
    fn apply(&mut self, step: &Step) {
        for seq in &step.drop {
            let oldest = self.index.first_key_value();
            assert!(oldest.is_none_or(|(oldest, _)| seq <= oldest), "{OLDEST_FIRST}");
            self.index.remove(seq);
        }
        if !step.index.is_empty() {
            self.index.insert(step.seq, step.index.clone());
        }
        for write in &step.chunks {
            let chunk = (write.place.chunk, write.payload.clone());
            self.slots.insert(write.place.slot, chunk);
        }
        let _gone = self.slots.split_off(&SlotNo(step.slot_count));
        self.found.last_seq = step.seq;
        self.found.meta = step.meta;
        self.found.slot_count = step.slot_count;
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(uuid: [u8; 16]) -> Self {
        let image = Image {
            index: BTreeMap::new(),
            slots: BTreeMap::new(),
            found: Recovered {
                uuid,
                ..Recovered::default()
            },
        };
        let state = State {
            durable: image.clone(),
            current: image,
            pending: Vec::new(),
            recovered: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// The number of batches that a crash could lose.
    pub fn pending_count(&self) -> usize {
        self.lock().pending.len()
    }

    /// The process or the power is gone: of the batches behind the last flush the first `kept_count` are kept. What
    /// comes next is [`Store::recover`].
    pub fn crash(&self, kept_count: usize) {
        let state = &mut *self.lock();
        for step in state.pending.drain(..).take(kept_count) {
            state.durable.apply(&step);
        }
        state.current = state.durable.clone();
        state.recovered = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

fn decoded(seq: Seq, bytes: &[u8]) -> Result<IndexChunk, StoreError> {
    Ok(IndexChunk {
        seq,
        facts: decode_facts(bytes).map_err(|error| StoreError::undecodable(seq, &error))?,
        size: index_size(bytes.len()),
    })
}

impl Store for MemoryStore {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        let (index, found) = {
            let state = &mut *self.lock();
            state.recovered = true;
            (state.current.index.clone(), state.current.found)
        };
        for (seq, bytes) in index {
            visit(decoded(seq, &bytes)?);
        }
        Ok(found)
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        let mut bytes = 0;
        let state = self.lock();
        let chunks = state
            .current
            .index
            .range(from..)
            .take_while(|(seq, _)| **seq <= to);
        let wanted = chunks.take_while(|(_, facts)| {
            let wanted = bytes < bytes_min;
            bytes += facts.len();
            wanted
        });
        wanted.map(|(seq, facts)| decoded(*seq, facts)).collect()
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        let state = &mut *self.lock();
        assert!(state.recovered, "a store is recovered before it is written");
        check_batch(batch, state.current.found.last_seq);
        let step = Step {
            seq: batch.seq,
            index: encode_facts(&batch.facts).into(),
            chunks: batch.chunks.clone(),
            drop: batch.drop.clone(),
            slot_count: batch.slot_count,
            meta: batch.meta,
        };
        state.current.apply(&step);
        let size = index_size(step.index.len());
        state.pending.push(step);
        Ok(size)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let state = &mut *self.lock();
        for step in state.pending.drain(..) {
            state.durable.apply(&step);
        }
        Ok(())
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        match self.lock().current.slots.get(&place.slot) {
            Some((chunk, payload)) if *chunk == place.chunk => Ok(payload.clone()),
            _ => Err(StoreError::Gone(place)),
        }
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn stats(&self) -> StoreStats {
        let image = &self.lock().current;
        let bodies = image.slots.values().map(|(_, payload)| payload.len() as u64);
        StoreStats {
            file_bytes: bodies.sum::<u64>()
                + image.index.values().map(|bytes| bytes.len() as u64).sum::<u64>(),
            epoch: image.found.meta.epoch,
        }
    }
}
