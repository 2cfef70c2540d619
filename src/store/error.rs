//! Faults of the store.

use std::io;
use std::path::PathBuf;

use crate::base::{ChunkRef, Epoch, Seq};
use crate::journal::DecodeError;

/// What can go wrong in a store. All but `Gone` are faults that stop the broker.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A batch could not be appended.
    #[error("append of batch {seq} failed")]
    Append {
        /// Which.
        seq: Seq,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Appended batches could not be made durable.
    #[error("flush failed")]
    Flush {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are damaged.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What was found, and where.
        what: String,
    },
    /// A file operation failed.
    #[error("{operation} of {} failed", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The slot holds another chunk by now: the delivery that asked for it has ended.
    #[error("body chunk {} is no longer in slot {}", .0.chunk, .0.slot)]
    Gone(ChunkRef),
    /// Another process has the folder.
    #[error("another broker is using {}", .0.display())]
    InUse(PathBuf),
    /// The folder was to be empty.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A restore into the folder did not come to its end.
    #[error("a restore into {} did not come to its end", .0.display())]
    RestoreUnfinished(PathBuf),
    /// The store was written by a newer version.
    #[error("the store has format {found}; this version reads up to {known}")]
    NewerFormat {
        /// In the store.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The store holds something that this version does not know and may not ignore.
    #[error(
        "the store holds facts of kind {tag}, which this version does not know: use the version that wrote it"
    )]
    UnknownFact {
        /// The kind's number.
        tag: u8,
    },
    /// An earlier append or flush failed.
    #[error("an earlier flush failed; the store takes no writes")]
    Poisoned,
    /// Another owner has a newer term.
    #[error("a newer owner holds epoch {current}")]
    Fenced {
        /// Its term.
        current: Epoch,
    },
}

impl StoreError {
    /// The facts of an index chunk, its checksum verified, do not decode.
    pub(super) fn undecodable(seq: Seq, error: &DecodeError) -> Self {
        match *error {
            DecodeError::UnknownKind { tag } => Self::UnknownFact { tag },
            DecodeError::Malformed { .. } => Self::Damaged {
                what: format!("index chunk {seq}: {error}"),
            },
        }
    }

    /// The stable code, listed in `docs/errors.md`; also the metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Append { .. } => "store-append",
            Self::Flush { .. } => "store-flush",
            Self::Damaged { .. } => "store-damaged",
            Self::File { .. } => "store-file",
            Self::Gone(_) => "store-gone",
            Self::InUse(_) => "store-in-use",
            Self::NotEmpty(_) => "store-not-empty",
            Self::RestoreUnfinished(_) => "store-restore-unfinished",
            Self::NewerFormat { .. } => "store-newer-format",
            Self::UnknownFact { .. } => "store-unknown-fact",
            Self::Poisoned => "store-poisoned",
            Self::Fenced { .. } => "store-fenced",
        }
    }
}
