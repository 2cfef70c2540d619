//! The disk: the store in memory, with failing calls, and crashes that keep what was flushed and, of the one batch
//! behind it, all or nothing, as the contract of [`Store`] has it.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Plant;
use crate::base::{ChunkRef, Seq};
use crate::journal::{Batch, IndexChunk, IndexSize, Recovered};
use crate::store::{MemoryStore, Store, StoreError, StoreStats};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Disk {
    memory: MemoryStore,
    state: Mutex<State>,
    plant: Option<Plant>,
}

#[derive(Debug, Default)]
struct State {
    /// Appended and not flushed.
    pending: Option<Batch>,
    fails: Option<Fails>,
    bodies_fail: bool,
}

/// Which call fails next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    /// The append; its batch is not there.
    Append,
    /// The flush; its batch may be there after the crash.
    Flush,
}

impl Disk {
    pub(super) fn new(plant: Option<Plant>) -> Self {
        Self {
            memory: MemoryStore::new([7; 16]),
            state: Mutex::default(),
            plant,
        }
    }

    /// The next call of a kind fails.
    pub(super) fn fail(&self, fails: Fails) {
        self.state().fails = Some(fails);
    }

    /// Nothing fails that was to.
    pub(super) fn calm(&self) {
        self.state().fails = None;
    }

    /// Reading a body fails from now on, or no more.
    pub(super) fn fail_bodies(&self, fail: bool) {
        self.state().bodies_fail = fail;
    }

    /// The power is gone. The batch that was not flushed is kept or not.
    pub(super) fn crash(&self, keep: bool) {
        let state = std::mem::take(&mut *self.state());
        let torn = self.plant == Some(Plant::TornBatch) && keep;
        self.memory.crash(usize::from(keep && !torn));
        if torn && let Some(mut batch) = state.pending {
            batch.facts.truncate(batch.facts.len() / 2);
            batch.chunks.truncate(batch.chunks.len() / 2);
            let again = self
                .memory
                .recover(&mut |_| {})
                .and_then(|_| self.memory.append(&batch))
                .and_then(|_| self.memory.flush());
            again.expect("a store in memory does not fail");
            self.memory.crash(0);
        }
    }

    /// A body, whatever fails.
    pub(super) fn look(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        self.memory.body(place)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure() -> io::Error {
    io::Error::other("the disk of the simulation fails")
}

impl Store for Disk {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        self.memory.recover(visit)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        let mut state = self.state();
        if state.fails == Some(Fails::Append) {
            let (seq, source) = (batch.seq, failure());
            return Err(StoreError::Append { seq, source });
        }
        state.pending = Some(batch.clone());
        match self.plant {
            None => self.memory.append(batch),
            Some(plant) => {
                let mut batch = batch.clone();
                batch.facts.retain(|fact| plant.stores(fact));
                self.memory.append(&batch)
            }
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.fails == Some(Fails::Flush) {
            return Err(StoreError::Flush { source: failure() });
        }
        state.pending = None;
        self.memory.flush()
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        self.memory.index(from, to, bytes_min)
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        if self.state().bodies_fail {
            return Err(StoreError::File {
                operation: "read",
                path: PathBuf::from("body"),
                source: failure(),
            });
        }
        self.memory.body(place)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.memory.tidy()
    }

    fn stats(&self) -> StoreStats {
        self.memory.stats()
    }
}
