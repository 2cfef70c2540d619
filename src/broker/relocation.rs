//! Relocation: moving live bodies out of sparse slots, so that kept messages do not hold the room of those that passed.
//!
//! A round chooses slots, looks for their entries a bounded number at each tick, and then asks for one chunk after the
//! other (`poll_relocation`); the driver reads it and hands it back (`handle_relocated`). A round that comes to nothing
//! does no harm.
//!
//! # Invariants
//! - A leased entry is not moved: its delivery names the old place.
//! - A moved entry is delivered only once the batch that states its new place is durable: before, its bytes are not there.
//! - The old slot is free only once the batch that states the new place is durable, like any slot.

use std::collections::{BTreeMap, VecDeque};

use crate::base::{ChunkRef, SlotNo};
use crate::journal::Place;

use super::Broker;
use super::queue::{EntryBytes, QueueNo};

/// Slots of one round, and entries looked at in one tick.
const ROUND_SLOT_COUNT: usize = 1024;
const TICK_ENTRY_COUNT: usize = 200_000;
/// Ticks between rounds that move nothing (what is sparse is leased, or large).
const TICK_WAIT_MAX: u32 = 64;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Relocation {
    /// The chosen slots with their entries found so far.
    found: BTreeMap<SlotNo, Vec<(QueueNo, u64)>>,
    /// Where the search goes on; `None` when it has ended.
    cursor: Option<(QueueNo, u64)>,
    /// Chunks to be asked for.
    asking: VecDeque<ChunkRef>,
    /// Whether the last round moved anything; ticks to wait before the next, doubled by each that did not.
    moved: bool,
    wait: u32,
    patience: u32,
}

impl Broker {
    /// The next body chunk that the core wants to see (`handle_relocated`), if any.
    pub fn poll_relocation(&mut self) -> Option<ChunkRef> {
        self.relocation.asking.pop_front()
    }

    /// The payload of a chunk that `poll_relocation` asked for.
    pub fn handle_relocated(&mut self, chunk: ChunkRef, payload: &[u8]) {
        let Some(entries) = self.relocation.found.remove(&chunk.slot) else {
            return;
        };
        if !self.room || self.ledger.find_chunk(chunk.slot) != Some(chunk) {
            return;
        }
        // Entries that share bytes go on sharing them.
        let mut places: BTreeMap<u32, Place> = BTreeMap::new();
        for (no, sequence) in entries {
            let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            let Some(entry) = queue.entries.get_mut(sequence) else {
                continue;
            };
            let EntryBytes::Stored { slot, offset } = entry.bytes else {
                continue;
            };
            let bytes = payload
                .get(offset as usize..)
                .and_then(|bytes| bytes.get(..entry.len as usize));
            let Some(bytes) = bytes.filter(|_| slot == chunk.slot && !entry.leased) else {
                continue;
            };
            let place = match places.get(&offset) {
                Some(place) => {
                    self.ledger.share(&EntryBytes::of(place), entry.len);
                    place.clone()
                }
                None => {
                    let place = self.ledger.place(bytes);
                    places.insert(offset, place.clone());
                    place
                }
            };
            let old = std::mem::replace(&mut entry.bytes, EntryBytes::of(&place));
            let len = entry.len;
            self.relocation.moved = true;
            self.ledger.release(&old, len);
            self.restate(no, sequence);
            // It is not delivered before its bytes are where its place says.
            let seq = self.ledger.seq();
            if self.moving.back() != Some(&(seq, no)) {
                self.moving.push_back((seq, no));
            }
            self.queue_mut(no).expect("it was just there").moved_at = seq;
            self.ledger.close_if_full();
        }
    }

    /// One tick's share of a round.
    pub(super) fn relocate(&mut self) {
        if !self.room || !self.relocation.asking.is_empty() {
            return;
        }
        let Some((mut no, mut from)) = self.relocation.cursor else {
            if self.relocation.wait > 0 {
                self.relocation.wait -= 1;
                return;
            }
            // What the last round asked for was answered, or will not be.
            let moved = std::mem::take(&mut self.relocation.moved);
            self.relocation.patience = if moved {
                0
            } else {
                (2 * self.relocation.patience).clamp(1, TICK_WAIT_MAX)
            };
            self.relocation.wait = self.relocation.patience;
            let slots = self
                .ledger
                .sparse_slots(self.limits.compaction_waste_bytes_min, ROUND_SLOT_COUNT);
            self.relocation.cursor = (!slots.is_empty()).then_some((QueueNo(0), 0));
            self.relocation.found = slots.into_iter().map(|slot| (slot, Vec::new())).collect();
            return;
        };
        let mut budget = TICK_ENTRY_COUNT;
        while budget > 0 && (no.0 as usize) < self.queues.len() {
            budget -= 1;
            let queue = self.queues.get(no.0 as usize).and_then(Option::as_ref);
            for (sequence, entry) in queue.into_iter().flat_map(|queue| queue.entries.range_from(from)) {
                if let EntryBytes::Stored { slot, .. } = entry.bytes
                    && let Some(entries) = self.relocation.found.get_mut(&slot)
                {
                    entries.push((no, sequence));
                }
                budget = budget.saturating_sub(1);
                if budget == 0 {
                    self.relocation.cursor = Some((no, sequence + 1));
                    return;
                }
            }
            (no, from) = (QueueNo(no.0 + 1), 0);
        }
        if (no.0 as usize) < self.queues.len() {
            self.relocation.cursor = Some((no, from));
            return;
        }
        self.relocation.cursor = None;
        self.relocation.asking = self
            .relocation
            .found
            .keys()
            .filter_map(|slot| self.ledger.find_chunk(*slot))
            .collect();
    }
}
