//! A backup of the running broker: what is stored at one Seq, held as it was while it is read and everything goes on.
//!
//! The index chunks up to that Seq are the whole truth of it, since each is one batch; the store has them, and the body
//! chunks that they name. So the core says which Seq, which body chunks, and sees to it that none of it is dropped or
//! overwritten before it was read (`ledger::hold`). One backup at a time.

use crate::base::{ChunkRef, Seq, SlotNo};
use crate::journal::Meta;
use crate::port::Page;

use super::Broker;

/// What a backup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupPoint {
    /// The last batch in it. It can be read once that is durable.
    pub seq: Seq,
    /// The counters at that batch.
    pub meta: Meta,
    /// Slots of the pool.
    pub slot_count: u32,
    /// Messages stored.
    pub message_count: u64,
}

impl Broker {
    /// Begins a backup of everything up to now. `None` while there is another.
    pub fn begin_backup(&mut self) -> Option<BackupPoint> {
        let (seq, meta, slot_count) = self.ledger.begin_hold()?;
        Some(BackupPoint {
            seq,
            meta,
            slot_count,
            message_count: self.queues.iter().flatten().map(|queue| queue.stored_count).sum(),
        })
    }

    /// The backup has read the index chunks up to its Seq.
    pub fn end_backup_index(&mut self) {
        self.ledger.end_index_hold();
    }

    /// Body chunks that the backup is to read, by slot from one on, once its Seq is durable; those before were read.
    /// A page may be empty and have a next one.
    pub fn backup_chunks(&mut self, from: SlotNo, count_max: usize) -> Page<ChunkRef, SlotNo> {
        self.ledger.held_chunks(from, count_max)
    }

    /// The backup has read everything, or was given up.
    pub fn end_backup(&mut self) {
        self.ledger.end_hold();
    }
}
