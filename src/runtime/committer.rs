//! The committer: the one thread that appends and flushes, and the only door for what waits for durability.
//!
//! It takes whatever batch gathered while the last flush ran, and commits at once: no delay, no spinning. With
//! nothing to commit it lets the store tidy up. A failed
//! append or flush ends the process before anything that waited for it can leave.
//!
//! # Invariants
//! - `durable(seq)` is told only after `append` and `flush` of `seq` and of every batch before it returned well.
//! - A batch is dropped before it is reported, so that no reference to its bytes is touched on the way of a receipt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::journal::{Batch, IndexSize};
use crate::store::{Store, StoreError};

use super::bodies::Bodies;
use super::clock::Clock;
use super::core::{Core, Wait};
use super::exit;
use super::stats::Stats;
use super::timings::Timings;

/// A commit that takes longer is worth a line in the log.
const COMMIT_MS_MAX: u64 = 10_000;

/// Without a batch for so long, there is time to tidy up; and between two steps of that.
const IDLE: Duration = Duration::from_secs(1);
const TIDY_PAUSE: Duration = Duration::from_millis(5);

/// What the committer works with.
#[derive(Clone)]
pub(crate) struct Committer {
    pub(crate) core: Arc<Core>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<Stats>,
    pub(crate) timings: Arc<Timings>,
}

impl Committer {
    /// Starts the thread; it ends after [`Core::handle_stop`], when everything is committed.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        Builder::new().name("committer".into()).spawn(move || {
            let _watch = PanicEndsAll;
            self.commit_all();
        })
    }

    fn commit_all(self) {
        let mut wakers = Vec::new();
        let mut patience = IDLE;
        loop {
            match self.core.wait_batch(patience) {
                Wait::Batch(batch, opened) => {
                    let seq = batch.seq;
                    self.bodies.put(&batch.chunks);
                    let began = self.clock.elapsed();
                    let mut appended = began;
                    let size = self
                        .watched(|store| commit_by_steps(store, *batch, || appended = self.clock.elapsed()));
                    let flushed = self.clock.elapsed();
                    self.stats.commit_count.add(1);
                    wakers = self.core.handle_durable(seq, size, wakers);
                    let dispatched = self.clock.elapsed();
                    self.timings.commit.record(flushed - began);
                    self.timings.flush.record(flushed - appended);
                    self.timings.dispatch.record(dispatched - flushed);
                    if let Some(opened) = opened {
                        self.timings.end_to_end.record(dispatched.saturating_sub(opened));
                    }
                    patience = IDLE;
                }
                Wait::Idle if self.watched(|store| store.tidy()) => patience = TIDY_PAUSE,
                Wait::Idle => patience = Duration::MAX,
                Wait::Over => return,
            }
        }
    }

    /// Lets the store write, under the eyes of the watchdog; ends the process if that fails.
    fn watched<T>(&self, write: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> T {
        self.watchdog.begin(self.clock.now().mono_ms);
        let written = write(&*self.store);
        self.watchdog.end();
        written.unwrap_or_else(|error| {
            tracing::error!(
                code = error.code(),
                "the store failed, nothing more can be confirmed; the process ends: {}",
                exit::chain(&error)
            );
            exit::now(exit::STORE_FAILED)
        })
    }
}

/// Without its committer a broker confirms nothing any more: a bug there ends the process.
struct PanicEndsAll;

impl Drop for PanicEndsAll {
    fn drop(&mut self) {
        if std::thread::panicking() {
            exit::after_bug();
        }
    }
}

/// Makes one batch durable.
pub(crate) fn commit(store: &dyn Store, batch: Batch) -> Result<IndexSize, StoreError> {
    commit_by_steps(store, batch, || {})
}

fn commit_by_steps(
    store: &dyn Store,
    batch: Batch,
    appended: impl FnOnce(),
) -> Result<IndexSize, StoreError> {
    let size = store.append(&batch)?;
    drop(batch);
    appended();
    store.flush()?;
    Ok(size)
}

/// Notices a commit that hangs. The committer cannot: it is inside the system call.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// Monotonic time, plus one, at which the commit under way began; 0 between commits.
    began: AtomicU64,
    /// The commit that was logged.
    told: AtomicU64,
}

impl Watchdog {
    fn begin(&self, mono_ms: u64) {
        self.began.store(mono_ms + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    /// Whether a commit hangs that was not told of before. Called about once a second.
    pub(crate) fn check(&self, mono_ms: u64) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed);
        self.hangs(mono_ms)
            .filter(|_| self.told.swap(began, Ordering::Relaxed) != began)
    }

    /// For how long the commit under way has hung, if it does.
    pub(crate) fn hangs(&self, mono_ms: u64) -> Option<Duration> {
        self.elapsed(mono_ms)
            .filter(|elapsed| *elapsed > Duration::from_millis(COMMIT_MS_MAX))
    }

    /// For how long a commit has been under way, if one is.
    pub(crate) fn elapsed(&self, mono_ms: u64) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed);
        let elapsed = (mono_ms + 1).saturating_sub(began);
        (began != 0).then(|| Duration::from_millis(elapsed))
    }
}

#[cfg(test)]
mod tests;
