//! Writing a backup, into memory: whoever has the bytes sends or stores them.

use super::{BackupHead, SLOT_BYTES, VERSION};
use crate::base::{ChunkRef, Seq};
use crate::journal::encode_facts;
use crate::journal::{CHUNK_BYTES_MAX, Fact};
use crate::store::PART_BYTES_MAX;
use crate::store::frame::{self, Kind};

/// Makes the bytes of one backup: `head` once, `facts` for each batch, `chunk` for each slot, `end` once. All append to `out`.
#[derive(Debug, Default)]
pub struct BackupWriter {
    sum: u32,
    index_count: u64,
    slot_count: u64,
    frame: Vec<u8>,
    payload: Vec<u8>,
}

impl BackupWriter {
    /// What it is of.
    pub fn head(&mut self, head: &BackupHead, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        payload.extend_from_slice(&VERSION.to_le_bytes());
        payload.extend_from_slice(&head.uuid);
        payload.extend_from_slice(&head.epoch.0.to_le_bytes());
        payload.extend_from_slice(&head.slot_count.to_le_bytes());
        payload.extend_from_slice(&head.message_count.to_le_bytes());
        payload.extend_from_slice(&head.made_at_ms.to_le_bytes());
        self.put(Kind::BackupHead, 0, head.seq.0, &payload, out);
    }

    /// The facts of a batch.
    pub fn facts(&mut self, seq: Seq, facts: &[Fact], out: &mut Vec<u8>) {
        let bytes = encode_facts(facts);
        let mut rest = bytes.as_slice();
        for part in 0.. {
            let (payload, more) = rest.split_at(rest.len().min(PART_BYTES_MAX));
            self.put(Kind::Index, part, seq.0, payload, out);
            rest = more;
            if payload.len() < PART_BYTES_MAX {
                break;
            }
        }
        self.index_count += 1;
    }

    /// A body chunk.
    pub fn chunk(&mut self, place: ChunkRef, payload: &[u8], out: &mut Vec<u8>) {
        let mut whole = std::mem::take(&mut self.payload);
        whole.clear();
        whole.reserve(SLOT_BYTES + CHUNK_BYTES_MAX);
        whole.extend_from_slice(&place.slot.0.to_le_bytes());
        whole.extend_from_slice(payload);
        self.put(Kind::BackupSlot, 0, place.chunk.0, &whole, out);
        self.payload = whole;
        self.slot_count += 1;
    }

    /// Nothing more follows.
    pub fn end(&mut self, seq: Seq, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        payload.extend_from_slice(&self.index_count.to_le_bytes());
        payload.extend_from_slice(&self.slot_count.to_le_bytes());
        payload.extend_from_slice(&self.sum.to_le_bytes());
        self.put(Kind::BackupEnd, 0, seq.0, &payload, out);
    }

    fn put(&mut self, kind: Kind, part: u16, number: u64, payload: &[u8], out: &mut Vec<u8>) {
        frame::seal(&mut self.frame, kind, part, number, payload);
        self.sum = crc32c::crc32c_append(self.sum, &self.frame);
        out.extend_from_slice(&self.frame);
    }
}
