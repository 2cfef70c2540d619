//! The store: where batches become durable. A replicated log in disguise: append a numbered batch atomically, make it
//! durable, read it back in order, fence off an old owner.
//!
//! # Invariants
//! - After `append(b)` and a successful `flush()`, `b` and every batch before it survive power loss, whole.
//! - Without that flush, after a crash, a prefix of the appended batches is there, each whole or absent.
//! - One writer: `append`, `flush` and `tidy` are called by the committer only; `body` and `index` from any thread.
//! - After any failed `append`, `flush` or `tidy` the store is poisoned: every later call of the three fails.
//!
//! # Not here
//! What facts mean. The store moves them; only `broker` understands them.

mod backup;
mod ballast;
#[cfg(test)]
mod conformance;
mod error;
mod faulty;
mod frame;
mod memory;
mod sled;

use std::sync::Arc;

use bytes::Bytes;

pub use backup::{BackupError, BackupHead, BackupItem, BackupReader, BackupWriter};
pub use ballast::{Ballast, Room, room};
pub use error::StoreError;
pub use faulty::{Call, Effect, Fault, FaultyStore};
pub use memory::MemoryStore;
pub use sled::{SledOptions, SledStore, make_folder, remove_restore};

use crate::base::{ChunkRef, Epoch, Seq};
use crate::journal::{Batch, CHUNK_BYTES_MAX, IndexChunk, IndexSize, Recovered};

/// A store of batches. Blocking; no callbacks; no engine's types.
pub trait Store: std::marker::Send + Sync {
    /// Reads every index chunk back, in the order of Seq. Called once, before the first `append`.
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError>;

    /// Index chunks from a Seq to another, both included, in order: so many that they have this many bytes, if there are.
    /// None at the end. After [`Store::recover`]; what is dropped meanwhile is seen or not.
    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError>;

    /// Appends a batch as one atomic unit; not durable yet.
    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError>;

    /// Makes everything appended durable. A failure poisons the store: no retry, no further append.
    fn flush(&self) -> Result<(), StoreError>;

    /// The payload of a body chunk, its checksum verified. [`StoreError::Gone`] where the slot holds another chunk by now.
    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError>;

    /// Does a small part of what gives room back to the file system and can wait; `true` while more is left. Called by
    /// the committer when it has nothing to commit. A failure poisons the store.
    fn tidy(&self) -> Result<bool, StoreError>;

    /// Figures for people.
    fn stats(&self) -> StoreStats;
}

/// Figures of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Bytes that the store takes on disk.
    pub file_bytes: u64,
    /// The owner's term.
    pub epoch: Epoch,
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        (**self).recover(visit)
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        (**self).index(from, to, bytes_min)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        (**self).append(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        (**self).flush()
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        (**self).body(place)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        (**self).tidy()
    }

    fn stats(&self) -> StoreStats {
        (**self).stats()
    }
}

/// The encoded facts of a batch are cut into parts of this length; each is one key of the index.
const PART_BYTES_MAX: usize = CHUNK_BYTES_MAX;

const OLDEST_FIRST: &str = "index chunks are dropped oldest first only";

/// What every store demands of the core.
fn check_batch(batch: &Batch, last: Seq) {
    assert_eq!(
        batch.seq.0,
        last.0 + 1,
        "batches follow each other without a hole"
    );
    for write in &batch.chunks {
        let len = write.payload.len();
        assert!(
            (1..=CHUNK_BYTES_MAX).contains(&len),
            "a body chunk of {len} bytes"
        );
        assert!(
            write.place.slot.0 < batch.slot_count,
            "a body chunk lies within the pool"
        );
    }
}

/// The size of an index chunk of so many bytes.
fn index_size(len: usize) -> IndexSize {
    IndexSize {
        parts: u16::try_from(len.div_ceil(PART_BYTES_MAX)).expect("a batch's facts stay under 1 GiB"),
        bytes: u32::try_from(len).expect("a batch's facts stay under 1 GiB"),
    }
}
