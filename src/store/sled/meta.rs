//! The meta record, written with every batch.
//!
//! ```text
//! frame of kind 3, its number the last Seq; payload, little endian:
//! 0   store id              16 bytes
//! 16  segment bytes         u32
//! 20  chunk bytes, at most  u32
//! 24  epoch                 u32
//! 28  last clean epoch      u32
//! 32  next id               u64
//! 40  slots of the core     u32
//! 44  slots made            u32
//! 48  index keys            u64
//! 56  sum over index keys   u64
//! ```

use super::{SEGMENT_BYTES, damaged, frame_error};
use crate::base::{Epoch, Seq};
use crate::journal::{CHUNK_BYTES_MAX, Meta};
use crate::store::StoreError;
use crate::store::frame::{self, Fields, Frame, Kind};

const PAYLOAD_BYTES: usize = 64;

/// What the record says besides constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MetaRecord {
    pub(super) last_seq: Seq,
    pub(super) counters: Meta,
    /// Slots of the core's pool.
    pub(super) slot_count: u32,
    /// Slots that have a key.
    pub(super) slots_made: u32,
    pub(super) index_key_count: u64,
    pub(super) index_key_sum: u64,
}

impl MetaRecord {
    /// Writes the record over what `out` held.
    pub(super) fn encode(&self, uuid: [u8; 16], out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        payload.extend_from_slice(&uuid);
        let word = |number: u32| number.to_le_bytes();
        payload.extend_from_slice(&word(SEGMENT_BYTES as u32));
        payload.extend_from_slice(&word(CHUNK_BYTES_MAX as u32));
        payload.extend_from_slice(&word(self.counters.epoch.0));
        payload.extend_from_slice(&word(self.counters.clean_epoch.0));
        payload.extend_from_slice(&self.counters.next_id.to_le_bytes());
        payload.extend_from_slice(&word(self.slot_count));
        payload.extend_from_slice(&word(self.slots_made));
        payload.extend_from_slice(&self.index_key_count.to_le_bytes());
        payload.extend_from_slice(&self.index_key_sum.to_le_bytes());
        frame::seal(out, Kind::Meta, 0, self.last_seq.0, &payload);
    }

    /// Reads the store id and the record.
    pub(super) fn decode(value: &[u8]) -> Result<([u8; 16], Self), StoreError> {
        let found = frame::open(value, Kind::Meta).map_err(|error| frame_error("the meta record", error))?;
        Self::of_frame(&found)
    }

    /// The same, its checksum having been verified.
    pub(super) fn of_frame(found: &Frame<'_>) -> Result<([u8; 16], Self), StoreError> {
        if found.payload.len() != PAYLOAD_BYTES {
            return Err(damaged("the meta record does not have its length"));
        }
        let mut fields = Fields(found.payload);
        let uuid = fields.take();
        let mut word = || u32::from_le_bytes(fields.take());
        let sizes = (word() as usize, word() as usize);
        if sizes != (SEGMENT_BYTES, CHUNK_BYTES_MAX) {
            return Err(damaged(format!("its segments and chunks have {sizes:?} bytes")));
        }
        let (epoch, clean_epoch) = (Epoch(word()), Epoch(word()));
        let next_id = u64::from_le_bytes(fields.take());
        let record = Self {
            last_seq: Seq(found.number),
            counters: Meta {
                epoch,
                next_id,
                clean_epoch,
            },
            slot_count: u32::from_le_bytes(fields.take()),
            slots_made: u32::from_le_bytes(fields.take()),
            index_key_count: u64::from_le_bytes(fields.take()),
            index_key_sum: u64::from_le_bytes(fields.take()),
        };
        Ok((uuid, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_of_encode_is_the_same() {
        let record = MetaRecord {
            last_seq: Seq(1),
            counters: Meta {
                epoch: Epoch(2),
                next_id: 3,
                clean_epoch: Epoch(4),
            },
            slot_count: 5,
            slots_made: 6,
            index_key_count: 7,
            index_key_sum: 8,
        };
        let mut bytes = Vec::new();
        record.encode([9; 16], &mut bytes);
        assert_eq!(MetaRecord::decode(&bytes).unwrap(), ([9; 16], record));
        let hex: String = bytes.iter().skip(24).map(|byte| format!("{byte:02x}")).collect();
        let expect = "09090909090909090909090909090909 00002000 c03f0000 02000000 04000000 0300000000000000 \
                      05000000 06000000 0700000000000000 0800000000000000";
        assert_eq!(hex, expect.replace(' ', ""));
    }
}
