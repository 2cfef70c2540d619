//! What is stored: facts, and the batch that appends them.
//!
//! A batch is the unit of atomicity: the facts of one Seq with the body chunks they name. Its facts are stored as one
//! *index chunk* of one or more parts; message bytes are packed end to end into *body chunks*, each overwriting one
//! slot of a pool.
//!
//! # Invariants
//! - Replaying a fact twice changes nothing, and `Settled` wins over `Enqueued` whatever the order within a batch.
//! - Index chunks are dropped oldest first only. So a settle fact, which can only refer to an entry enqueued in the
//!   same or an earlier Seq, is never dropped before the last enqueue fact of its entry.
//! - A slot is live only if an enqueue fact of a live entry names the chunk number found in its header.
//!
//! # Not here
//! Which slot is free, what may be dropped, when to compact: `broker::ledger`. Keys and pages: `store`.

mod codec;

use std::sync::Arc;

use bytes::Bytes;

pub use codec::{DecodeError, decode_facts, encode_facts};

use crate::base::{ChunkRef, Epoch, MessageId, Seq, Settings};

/// The number of the on-disk layout that this build writes; `migrations/` describes each.
pub const FORMAT_VERSION: u32 = 4;

/// A body chunk's payload is at most this long, so that a leaf of the store's tree, which holds up to about 20 of
/// them, stays under a quarter of a segment (`docs/storage.md`).
pub const CHUNK_BYTES_MAX: usize = 16 * 1024 - 64;

/// What one commit appends, atomically.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its position; one more than the batch before.
    pub seq: Seq,
    /// Facts in the order in which they happened.
    pub facts: Vec<Fact>,
    /// Body chunks to be written over their slots.
    pub chunks: Vec<ChunkWrite>,
    /// Index chunks that this batch makes obsolete: removed in the same unit.
    pub drop: Vec<Seq>,
    /// Slots from this number on are not used by anything. The store may make some ahead and keep them; what lies far
    /// beyond is removed, a bounded number with each batch (the pool shrinks).
    pub slot_count: u32,
    /// Counters to be stored with it.
    pub meta: Meta,
}

/// One body chunk to be written.
#[derive(Debug, Clone)]
pub struct ChunkWrite {
    /// Where, and under which number.
    pub place: ChunkRef,
    /// Message bytes; at most [`CHUNK_BYTES_MAX`].
    pub payload: Bytes,
}

/// The core's counters, stored in every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The term of the owner that wrote it.
    pub epoch: Epoch,
    /// The next number for messages, chunks and queue sequences that was not handed out in this term.
    pub next_id: u64,
    /// The last term that ended with a clean stop: `Watched` facts of it and earlier ones say nothing any more.
    pub clean_epoch: Epoch,
}

/// Which queue a fact is about. Identity is (virtual host, name); the virtual host is 0 today.
pub type QueueName = Arc<str>;

/// One stored fact. Tags on disk are in `codec`; some are reserved there for what comes later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Entries now exist.
    Enqueued(Enqueued),
    /// Entries are gone: ranges of queue sequences, both ends included.
    Settled {
        /// The queue.
        queue: QueueName,
        /// Ascending, not touching.
        ranges: Vec<(u64, u64)>,
    },
    /// The counters of entries, absolute; ranges of queue sequences, both ends included.
    Counted {
        /// The queue.
        queue: QueueName,
        /// Ascending, not touching.
        ranges: Vec<(u64, u64)>,
        /// Earlier deliveries known; `None` leaves the number as it is.
        deliveries: Option<u32>,
        /// NACKs and run-out leases.
        failures: u32,
    },
    /// Entries rest until a time: ranges of queue sequences, both ends included.
    Delayed {
        /// The queue.
        queue: QueueName,
        /// Ascending, not touching.
        ranges: Vec<(u64, u64)>,
        /// In milliseconds since the Unix epoch.
        due_at_ms: u64,
    },
    /// The queue has, or had in this term, a subscriber: after an unclean stop an earlier delivery of its entries
    /// cannot be excluded.
    Watched {
        /// The queue.
        queue: QueueName,
        /// The term.
        epoch: Epoch,
    },
    /// The queue has properties, or has none any more. The last one counts.
    Declared {
        /// The queue.
        queue: QueueName,
        /// The topic, or pattern of topics, whose messages it keeps; `None`: it keeps none.
        topic: Option<Arc<str>>,
        /// Which of them, as the client wrote it; `None`: all.
        selector: Option<Arc<str>>,
        /// What it declares of itself.
        settings: Settings,
    },
    /// What holds for queues whose names match a pattern. The last one counts.
    Policy {
        /// The pattern.
        pattern: Arc<str>,
        /// What it states; `None`: nothing any more.
        settings: Option<Settings>,
    },
    /// The queue has seen deduplication ids: of messages stated in the same batch, or stated again.
    Seen {
        /// The queue.
        queue: QueueName,
        /// None: all that it has seen before are forgotten.
        ids: IdList,
    },
    /// Deliveries of the queue are stopped, or go on again. The last one counts.
    Paused {
        /// The queue.
        queue: QueueName,
        /// Stopped.
        paused: bool,
    },
}

/// A run of entries of one queue: consecutive queue sequences, consecutive message ids, bytes one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The queue.
    pub queue: QueueName,
    /// Queue sequence of the first.
    pub first_sequence: u64,
    /// Message id of the first.
    pub first_message: MessageId,
    /// Milliseconds since the Unix epoch at which the message was accepted.
    pub accepted_at_ms: u64,
    /// Where the bytes of the first begin.
    pub place: Place,
    /// Lengths; at least one, at most [`Enqueued::ITEM_COUNT_MAX`], exactly one for [`Place::Extent`].
    pub items: Vec<Item>,
    /// Earlier deliveries known.
    pub deliveries: u32,
    /// NACKs and run-out leases.
    pub failures: u32,
    /// Optional fields (tag, bytes) in ascending order of tags; unknown ones are kept through compaction.
    pub fields: Vec<(u8, Bytes)>,
}

impl Enqueued {
    /// So that no fact outgrows an index chunk part.
    pub const ITEM_COUNT_MAX: usize = 512;
}

/// Deduplication ids, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdList {
    bytes: Vec<u8>,
    /// When the message of each was accepted, in milliseconds since the Unix epoch; and where it ends.
    ends: Vec<(u64, usize)>,
}

impl IdList {
    /// The longest id there is.
    pub const ID_BYTES_MAX: usize = 1_000;

    /// Adds an id, which is not empty and not over [`IdList::ID_BYTES_MAX`].
    pub fn push(&mut self, at_ms: u64, id: &[u8]) {
        assert!(Self::is_id(id), "an id is not empty and not over its bound");
        self.bytes.extend_from_slice(id);
        self.ends.push((at_ms, self.bytes.len()));
    }

    /// Whether it may be an id.
    pub fn is_id(id: &[u8]) -> bool {
        (1..=Self::ID_BYTES_MAX).contains(&id.len())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each with the time of its message.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(at_ms, end)| {
            let id = self.bytes.get(start..*end).expect("ids lie one after the other");
            start = *end;
            (*at_ms, id)
        })
    }
}

/// Optional fields of [`Enqueued`].
pub mod field {
    /// A dead letter's origin: the name of the queue it failed in, UTF-8.
    pub const DEAD_LETTER_ORIGIN: u8 = 1;
    /// A dead letter's failures in its origin, u32 big-endian.
    pub const DEAD_LETTER_FAILURES: u8 = 2;
    /// When it expires: milliseconds since the Unix epoch, u64 big-endian.
    pub const EXPIRES_AT: u8 = 3;
    /// Until when it rests: milliseconds since the Unix epoch, u64 big-endian.
    pub const DUE_AT: u8 = 4;
    /// How long a delivery of it may be unsettled, in milliseconds, u64 big-endian.
    pub const ACK_TIMEOUT: u8 = 5;
    /// The queues that it was taken out of for good before: see [`Death`](crate::base::Death).
    pub const DEATHS: u8 = 6;
    /// Its priority, one byte.
    pub const PRIORITY: u8 = 7;
    /// The group it is of, as the client named it.
    pub const GROUP: u8 = 8;
    /// Its group may go to another consumer behind it; empty.
    pub const ENDS_GROUP: u8 = 9;
    /// It comes again and again, so often: in milliseconds, u64 big-endian. It is never delivered itself: its occurrences are.
    pub const PERIOD: u8 = 16;
    /// When it comes for the last time: milliseconds since the Unix epoch, u64 big-endian. Missing: it goes on.
    pub const LAST_DUE_AT: u8 = 17;
    /// It comes again and again, at the times of this cron expression, as with [`PERIOD`].
    pub const CRON: u8 = 18;
}

/// Where message bytes begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Within one body chunk.
    Chunk {
        /// Which.
        chunk: ChunkRef,
        /// From which byte of its payload.
        offset: u32,
    },
    /// In whole body chunks of their own, in this order.
    Extent(Arc<[ChunkRef]>),
}

/// Lengths of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Bytes of the header block.
    pub header_len: u32,
    /// Bytes of header block and body.
    pub len: u32,
}

/// What is known of one appended index chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexSize {
    /// Parts, each a key; 0 where the batch had no facts.
    pub parts: u16,
    /// Bytes of all parts.
    pub bytes: u32,
}

/// One index chunk, read back.
#[derive(Debug, Clone)]
pub struct IndexChunk {
    /// Its batch.
    pub seq: Seq,
    /// Its facts, in order.
    pub facts: Vec<Fact>,
    /// Its size.
    pub size: IndexSize,
}

/// What recovery found besides index chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The last batch appended; `Seq(0)` for a new store.
    pub last_seq: Seq,
    /// Its counters; the epoch is that of the last owner.
    pub meta: Meta,
    /// Slots in the pool.
    pub slot_count: u32,
    /// The store's identity, made at creation.
    pub uuid: [u8; 16],
}
