//! A backup: a store at one Seq, as a stream of bytes. Frames (`frame`) one after the other:
//!
//! ```text
//! head     kind 5, its number the Seq; payload, little endian:
//!          0   version of the backup  u32: 1
//!          4   store id               16 bytes
//!          20  epoch                  u32: the term that the Seq is of
//!          24  slots of the pool      u32
//!          28  messages stored        u64
//!          36  made at                u64: milliseconds since the Unix epoch
//! index    kind 1, its number a Seq: part 0, 1, .. of the batch's encoded facts. A part of full length (16,320 bytes) is
//!          followed by another, which may be empty. By Seq, ascending.
//! slot     kind 6, its number a chunk: payload slot (u32), then that of the body chunk. By slot, ascending.
//! end      kind 7, its number the Seq; payload:
//!          0   index chunks           u64
//!          8   slots                  u64
//!          16  sum                    u32: CRC32C of every byte before this frame
//! ```
//!
//! # Invariants
//! - A stream that was cut, or of which a byte was changed, is refused: each frame has its checksum and the end one of all.
//! - The reader trusts nothing: no more memory is taken than what a batch's facts take, as they come.
//!
//! # Not here
//! What the facts mean, and whether the chunks that they name are there: `cli::restore` looks.

mod read;
mod write;

use std::io;

pub use read::BackupReader;
pub use write::BackupWriter;

use crate::base::{ChunkRef, Epoch, Seq};
use crate::journal::{CHUNK_BYTES_MAX, Fact};
use bytes::Bytes;

const VERSION: u32 = 1;
const HEAD_PAYLOAD_BYTES: usize = 44;
const END_PAYLOAD_BYTES: usize = 20;
const SLOT_BYTES: usize = 4;
const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES_MAX + SLOT_BYTES;

/// What a backup is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupHead {
    /// The last batch in it.
    pub seq: Seq,
    /// The store's identity.
    pub uuid: [u8; 16],
    /// The term that the batch is of.
    pub epoch: Epoch,
    /// Slots in the pool.
    pub slot_count: u32,
    /// Messages stored.
    pub message_count: u64,
    /// Milliseconds since the Unix epoch.
    pub made_at_ms: u64,
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupItem {
    /// The facts of one batch.
    Facts(Seq, Vec<Fact>),
    /// The payload of a body chunk.
    Chunk(ChunkRef, Bytes),
}

/// Why bytes are not a backup that can be relied on.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It does not begin as one.
    #[error("it is not a backup")]
    NotABackup,
    /// It was made by a newer version.
    #[error("it has format {found}; this version reads up to {known}")]
    NewerFormat {
        /// Of the backup.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It was cut.
    #[error("it is incomplete: it stops at byte {at} before its end; whatever wrote it was interrupted")]
    Incomplete {
        /// Its length.
        at: u64,
    },
    /// Its bytes were changed.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where what is wrong begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// Every frame is whole, and together they are no store.
    #[error("it is whole and does not make a store: {what}")]
    Contradictory {
        /// What does not fit.
        what: String,
    },
}

impl BackupError {
    /// The stable code, listed in `docs/errors.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "backup-read",
            Self::NotABackup => "backup-none",
            Self::NewerFormat { .. } => "backup-newer-format",
            Self::Incomplete { .. } => "backup-incomplete",
            Self::Damaged { .. } => "backup-damaged",
            Self::Contradictory { .. } => "backup-contradictory",
        }
    }
}

#[cfg(test)]
mod tests;
