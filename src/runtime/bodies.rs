//! Bytes of bodies: a bounded cache of fresh body chunks, and a few readers for those that are not in it.
//!
//! # Invariants
//! - The cache holds at most `body_cache_bytes_max` bytes, and one chunk even if that is larger.
//! - At most [`READER_COUNT`] threads read the store at a time, each at most [`RUN_CHUNK_COUNT_MAX`] chunks in a run.
//! - A chunk number is never used again, so what is cached is never stale, only useless.
//!
//! # Not here
//! Which slot is free: the core knows. A chunk that the store no longer has ([`StoreError::Gone`]) belonged to a
//! delivery that has ended.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::base::ChunkRef;
use crate::journal::{CHUNK_BYTES_MAX, ChunkWrite};
use crate::port::Body;
use crate::store::{Store, StoreError};

use super::exit;
use super::stats::Stats;

/// Threads that read the store for deliveries.
const READER_COUNT: usize = 4;

/// Chunks read in one run, so that a connection holds at most about 1 MiB of them.
pub(crate) const RUN_CHUNK_COUNT_MAX: usize = 64;

/// One chunk, read or failed to be read.
pub(crate) type Fetched = (ChunkRef, Result<Bytes, StoreError>);

/// Chunks on their way from the store, in the order asked for.
pub(crate) type Fetch = Pin<Box<dyn Future<Output = Vec<Fetched>> + Send>>;

/// See the module's text.
pub(crate) struct Bodies {
    cache: Mutex<Cache>,
    readers: Arc<Semaphore>,
    store: Arc<dyn Store>,
    stats: Arc<Stats>,
    #[cfg(feature = "sim")]
    simulated: Option<Pause>,
}

/// Chunks that were read, or failed to be.
pub(crate) type Chunks = HashMap<ChunkRef, Result<Bytes, StoreError>>;

/// The chunks that hold the first bytes of an extent.
pub(crate) fn chunks_for(chunks: &[ChunkRef], bytes: usize) -> &[ChunkRef] {
    let count = bytes.div_ceil(CHUNK_BYTES_MAX).min(chunks.len());
    chunks.get(..count).unwrap_or_default()
}

/// The first bytes of a message, or why they cannot be read; `None` where a chunk is not in its slot any more.
pub(crate) fn first_bytes(body: &Body, bytes: usize, chunks: &Chunks) -> Option<Result<Vec<u8>, String>> {
    let mut out = Vec::with_capacity(bytes);
    let mut take = |place: &ChunkRef, from: usize| match chunks.get(place)? {
        Ok(payload) => {
            let rest = payload.get(from..).unwrap_or_default();
            let wanted = bytes - out.len();
            out.extend_from_slice(rest.get(..wanted).unwrap_or(rest));
            Some(Ok(()))
        }
        Err(StoreError::Gone(_)) => None,
        Err(error) => Some(Err(exit::chain(error).to_string())),
    };
    match body {
        Body::Memory(payload) => out.extend_from_slice(payload.get(..bytes).unwrap_or(payload)),
        Body::Stored { chunk, offset } => {
            if let Err(fault) = take(chunk, *offset as usize)? {
                return Some(Err(fault));
            }
        }
        Body::Extent(of) => {
            for chunk in chunks_for(of, bytes) {
                if let Err(fault) = take(chunk, 0)? {
                    return Some(Err(fault));
                }
            }
        }
    }
    if out.len() < bytes {
        return Some(Err("fewer bytes are stored than it has".to_owned()));
    }
    Some(Ok(out))
}

/// In a simulation there are no threads: a run of chunks is read after this.
#[cfg(feature = "sim")]
pub(crate) type Pause = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Bodies {
    /// With an empty cache.
    pub(crate) fn new(store: Arc<dyn Store>, bytes_max: usize, stats: Arc<Stats>) -> Self {
        Self {
            cache: Mutex::new(Cache::new(bytes_max)),
            readers: Arc::new(Semaphore::new(READER_COUNT)),
            store,
            stats,
            #[cfg(feature = "sim")]
            simulated: None,
        }
    }

    /// The same without threads.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(self, pause: Pause) -> Self {
        Self {
            simulated: Some(pause),
            ..self
        }
    }

    /// Keeps the chunks of a batch: consumers that wait will ask for them as soon as it is durable.
    pub(crate) fn put(&self, chunks: &[ChunkWrite]) {
        if chunks.is_empty() {
            return;
        }
        let mut cache = self.cache();
        for chunk in chunks {
            cache.insert(chunk.place, chunk.payload.clone());
        }
    }

    /// A chunk at hand.
    pub(crate) fn cached(&self, place: ChunkRef) -> Option<Bytes> {
        let found = self.cache().find(place);
        if found.is_some() {
            self.stats.body_hit_count.add(1);
        }
        found
    }

    /// Whether a chunk is at hand.
    pub(crate) fn has(&self, place: ChunkRef) -> bool {
        self.cache().chunks.contains_key(&place)
    }

    /// Reads chunks from the store, away from the threads that serve connections. Dropping the future loses the
    /// answer; a read under way goes on and its chunks are cached.
    pub(crate) fn fetch(self: &Arc<Self>, places: Vec<ChunkRef>) -> Fetch {
        self.run(places, true)
    }

    /// The same for somebody who only looks: what is read is not kept, so that what consumers need stays in memory.
    pub(crate) fn look(self: &Arc<Self>, places: Vec<ChunkRef>) -> Fetch {
        self.run(places, false)
    }

    fn run(self: &Arc<Self>, places: Vec<ChunkRef>, keep: bool) -> Fetch {
        let bodies = Arc::clone(self);
        #[cfg(feature = "sim")]
        if let Some(pause) = &self.simulated {
            let pause = pause();
            return Box::pin(async move {
                pause.await;
                bodies.read(&places, keep)
            });
        }
        Box::pin(async move {
            let readers = Arc::clone(&bodies.readers);
            let permit = readers
                .acquire_owned()
                .await
                .expect("the semaphore of readers is never closed");
            let read = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                bodies.read(&places, keep)
            });
            match read.await {
                Ok(fetched) => fetched,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Cancelled: the runtime is going down, and this future with it.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }

    fn read(&self, places: &[ChunkRef], keep: bool) -> Vec<Fetched> {
        let fetched: Vec<Fetched> = places
            .iter()
            .map(|&place| {
                // Another run may have read it while this one waited for a reader.
                let payload = match self.cache().find(place) {
                    Some(payload) => Ok(payload),
                    None => {
                        self.stats.body_read_count.add(1);
                        self.store.body(place)
                    }
                };
                (place, payload)
            })
            .collect();
        if !keep {
            return fetched;
        }
        let mut cache = self.cache();
        for (place, payload) in &fetched {
            if let Ok(payload) = payload {
                cache.insert(*place, payload.clone());
            }
        }
        drop(cache);
        fetched
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing in the lock's scope can leave the cache half changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Bodies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bodies").finish_non_exhaustive()
    }
}

/// First in, first out: chunks are asked for in the order in which they were written, so the oldest is the one that
/// was asked for already, or whose readers are far behind.
struct Cache {
    chunks: HashMap<ChunkRef, Bytes, foldhash::fast::FixedState>,
    order: VecDeque<ChunkRef>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    fn new(bytes_max: usize) -> Self {
        Self {
            chunks: HashMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn find(&self, place: ChunkRef) -> Option<Bytes> {
        self.chunks.get(&place).cloned()
    }

    fn insert(&mut self, place: ChunkRef, payload: Bytes) {
        self.bytes += payload.len();
        match self.chunks.insert(place, payload) {
            Some(old) => self.bytes -= old.len(),
            None => self.order.push_back(place),
        }
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(payload) = self.chunks.remove(&oldest) {
                self.bytes -= payload.len();
            }
        }
    }
}

#[cfg(test)]
mod tests;
