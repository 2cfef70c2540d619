//! A backup of the running broker, as an answer that is sent while it is read.
//!
//! # Invariants
//! - What the core holds for a backup is let go of with its stream, however that ends.
//! - At most a few runs of chunks (about 1 MiB each) are in memory.
//!
//! # Not here
//! The bytes: `store::BackupWriter`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::api;
use crate::base::{Seq, SlotNo};
use crate::store::{BackupHead, BackupWriter, Store};

use super::super::bodies::RUN_CHUNK_COUNT_MAX;
use super::super::connection::Shared;
use super::super::core::Core;
use super::super::exit;
use super::problem::Problem;
use super::stream::{self, GivenUp, Out};
use super::{Answer, ApiCode, Caller, Parts};

/// Bytes of facts read in one go.
const INDEX_RUN_BYTES: usize = 1 << 20;

impl Parts {
    /// Begins a backup.
    pub(super) fn backup(&self, wanted: &api::Backup, caller: Caller) -> Result<Answer, Problem> {
        let core = Arc::clone(&self.shared.core);
        let Some(point) = core.begin_backup() else {
            return Err(Problem::new(
                ApiCode::BackupRunning,
                "another backup of this broker is under way; wait for its end",
            ));
        };
        let hold = Hold(core);
        tracing::info!(
            act = "backup",
            seq = point.seq.0,
            message_count = point.message_count,
            uid = caller.uid,
            pid = caller.pid,
            "operator"
        );
        let (out, answer) = stream::open();
        let source = Source {
            shared: Arc::clone(&self.shared),
            store: Arc::clone(&self.store),
            writer: BackupWriter::default(),
            rate: wanted
                .bytes_per_second_max
                .unwrap_or(api::BACKUP_BYTES_PER_SECOND),
            sent_bytes: 0,
        };
        let head = BackupHead {
            seq: point.seq,
            uuid: self.uuid,
            epoch: point.meta.epoch,
            slot_count: point.slot_count,
            message_count: point.message_count,
            made_at_ms: self.shared.clock.now().wall_ms,
        };
        tokio::spawn(source.run(head, hold, out));
        Ok(answer)
    }
}

/// The core holds a backup for as long as this is there.
struct Hold(Arc<Core>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.end_backup();
    }
}

struct Source {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    writer: BackupWriter,
    /// Bytes a second; 0 for as many as it can.
    rate: u64,
    sent_bytes: u64,
}

impl Source {
    async fn run(mut self, head: BackupHead, hold: Hold, out: Out) {
        let done = out.drive(self.send_all(head, &out)).await;
        drop(hold);
        let (seq, sent_bytes) = (head.seq.0, self.sent_bytes);
        match done {
            Ok(()) => tracing::info!(seq, sent_bytes, "backup ended"),
            Err(why) => tracing::warn!(seq, sent_bytes, "backup given up: {}", exit::chain(&why)),
        }
    }

    async fn send_all(&mut self, head: BackupHead, out: &Out) -> Result<(), GivenUp> {
        let core = Arc::clone(&self.shared.core);
        core.wait_durable(head.seq).await;
        let mut bytes = Vec::new();
        self.writer.head(&head, &mut bytes);
        self.send(out, bytes).await?;
        let mut from = Some(Seq(0));
        while let Some(first) = from {
            let began = self.shared.clock.elapsed();
            let bytes;
            (bytes, from) = self.index(first, head.seq).await?;
            self.paced(out, bytes, began).await?;
        }
        core.end_backup_index();
        let mut from = Some(SlotNo(0));
        while let Some(first) = from {
            let began = self.shared.clock.elapsed();
            let page = core.backup_chunks(first, RUN_CHUNK_COUNT_MAX);
            from = page.next;
            let mut bytes = Vec::new();
            for (place, payload) in self.shared.bodies.look(page.items).await {
                let payload = payload.map_err(GivenUp::Store)?;
                self.writer.chunk(place, &payload, &mut bytes);
            }
            self.paced(out, bytes, began).await?;
        }
        let mut bytes = Vec::new();
        self.writer.end(head.seq, &mut bytes);
        self.send(out, bytes).await
    }

    /// A run of index chunks, and where the next begins.
    async fn index(&mut self, from: Seq, to: Seq) -> Result<(Vec<u8>, Option<Seq>), GivenUp> {
        let store = Arc::clone(&self.store);
        let mut writer = std::mem::take(&mut self.writer);
        let read = tokio::task::spawn_blocking(move || {
            let chunks = store.index(from, to, INDEX_RUN_BYTES)?;
            let mut bytes = Vec::new();
            for chunk in &chunks {
                writer.facts(chunk.seq, &chunk.facts, &mut bytes);
            }
            let next = chunks.last().map(|last| Seq(last.seq.0 + 1));
            Ok((writer, bytes, next))
        });
        let (writer, bytes, next) = read
            .await
            .map_err(|_| GivenUp::Stopping)?
            .map_err(GivenUp::Store)?;
        self.writer = writer;
        Ok((bytes, next))
    }

    /// Sends what was read since `began`, and lets as much time pass as the rate asks for.
    async fn paced(&mut self, out: &Out, bytes: Vec<u8>, began: Duration) -> Result<(), GivenUp> {
        let due = (bytes.len() as u64 * 1_000_000)
            .checked_div(self.rate)
            .map_or(Duration::ZERO, Duration::from_micros);
        self.send(out, bytes).await?;
        sleep((began + due).saturating_sub(self.shared.clock.elapsed())).await;
        Ok(())
    }

    async fn send(&mut self, out: &Out, bytes: Vec<u8>) -> Result<(), GivenUp> {
        self.sent_bytes += bytes.len() as u64;
        out.send(bytes.into()).await
    }
}
