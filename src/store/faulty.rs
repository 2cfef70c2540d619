//! A store that fails on purpose: wraps any other and fails its n-th call of one kind.
//!
//! # Invariants
//! - A failed `append` or `flush` poisons it, as the contract of [`Store`] demands.
//! - The caller of a failed call cannot know whether it had its effect; both happen, by [`Effect`].

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::{Store, StoreError, StoreStats};
use crate::base::{ChunkRef, Seq};
use crate::journal::{Batch, IndexChunk, IndexSize, Recovered};

/// Which call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Store::append`].
    Append,
    /// [`Store::flush`].
    Flush,
    /// [`Store::body`].
    Body,
    /// [`Store::tidy`].
    Tidy,
}

/// What the failing call has done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All of it.
    Whole,
    /// Nothing, and it does not return either: it panics, as a bug of the engine would.
    Panic,
}

/// The fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Calls of this kind are counted.
    pub call: Call,
    /// The call with this number, from 1, fails; 0 for none.
    pub at: u64,
    /// What it does.
    pub effect: Effect,
}

/// See the module's text.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    fault: Fault,
    call_count: AtomicU64,
    poisoned: AtomicBool,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store.
    pub fn new(inner: S, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            call_count: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Whether the fault has happened.
    pub fn has_failed(&self) -> bool {
        self.fault.at > 0 && self.call_count.load(Ordering::SeqCst) >= self.fault.at
    }

    /// The store within.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The store within, without faults.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn call<T>(
        &self,
        call: Call,
        run: impl FnOnce() -> Result<T, StoreError>,
        fault: impl FnOnce(io::Error) -> StoreError,
    ) -> Result<T, StoreError> {
        let writes = call != Call::Body;
        if writes && self.poisoned.load(Ordering::SeqCst) {
            return Err(StoreError::Poisoned);
        }
        let counted = call == self.fault.call;
        if !(counted && self.call_count.fetch_add(1, Ordering::SeqCst) + 1 == self.fault.at) {
            return run();
        }
        match self.fault.effect {
            Effect::None => {}
            Effect::Whole => drop(run()?),
            Effect::Panic => panic!("planned panic"),
        }
        self.poisoned.fetch_or(writes, Ordering::SeqCst);
        Err(fault(io::Error::other("planned fault")))
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        self.inner.recover(visit)
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        self.inner.index(from, to, bytes_min)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        let seq = batch.seq;
        self.call(
            Call::Append,
            || self.inner.append(batch),
            |source| StoreError::Append { seq, source },
        )
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.call(
            Call::Flush,
            || self.inner.flush(),
            |source| StoreError::Flush { source },
        )
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        self.call(
            Call::Body,
            || self.inner.body(place),
            |source| StoreError::File {
                operation: "read",
                path: PathBuf::from("body"),
                source,
            },
        )
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.call(
            Call::Tidy,
            || self.inner.tidy(),
            |source| StoreError::Flush { source },
        )
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}
