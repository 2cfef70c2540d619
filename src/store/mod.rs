//! The store: where batches become durable. A replicated log in disguise: append a numbered batch atomically, make it
//! durable, read it back in order, fence off an old owner.
//!
//! # Invariants
//! - After `append(b)` and a successful `flush()`, `b` and every batch before it survive power loss, whole.
//! - Without that flush, after a crash, a prefix of the appended batches is there, each whole or absent.
//! - One writer: `append` and `flush` are called by the committer only; `body` from any thread.
//! - After any failed `append` or `flush` the store is poisoned: every later call of the two fails.
//!
//! # Not here
//! What facts mean. The store moves them; only `broker` understands them.

mod error;

use bytes::Bytes;

pub use error::StoreError;

use crate::base::{ChunkRef, Epoch};
use crate::journal::{Batch, IndexChunk, IndexSize, Recovered};

/// A store of batches. Blocking; no callbacks; no engine's types.
pub trait Store: std::marker::Send + Sync {
    /// Reads every index chunk back, in the order of Seq. Called once, before the first `append`.
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError>;

    /// Appends a batch as one atomic unit; not durable yet.
    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError>;

    /// Makes everything appended durable. A failure poisons the store: no retry, no further append.
    fn flush(&self) -> Result<(), StoreError>;

    /// The payload of a body chunk, its checksum verified. [`StoreError::Gone`] where the slot holds another chunk by now.
    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError>;

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
