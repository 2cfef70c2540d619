//! What a backup needs to stay as it was at its Seq, while batches go on.
//!
//! # Invariants
//! - While a hold has the index, no index chunk is dropped.
//! - A slot that held a chunk at the Seq is handed out again only when the backup has read past it. Chunks made later
//!   are none of its business: their slots come and go as ever. So the pool grows by no more than it held at the Seq.

use std::collections::BTreeSet;

use super::Ledger;
use crate::base::{ChunkNo, ChunkRef, Seq, SlotNo};
use crate::journal::Meta;
use crate::port::Page;

/// Slots looked at for one page of chunks: a fraction of a millisecond.
const LOOK_COUNT_MAX: usize = 4_096;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Hold {
    /// Chunks from this number on were made later.
    chunk_end: ChunkNo,
    /// Slots before this one were read.
    from: SlotNo,
    /// Slots that would be free.
    slots: BTreeSet<SlotNo>,
    /// Index chunks are still to be read.
    index: bool,
}

impl Hold {
    fn needs(&self, place: ChunkRef) -> bool {
        place.slot >= self.from && place.chunk < self.chunk_end
    }
}

impl Ledger {
    /// Closes the batch being filled and holds what is true up to it: gives its Seq, its counters and the slots of the
    /// pool. `None` while there is a hold.
    pub(in crate::broker) fn begin_hold(&mut self) -> Option<(Seq, Meta, u32)> {
        if self.hold.is_some() {
            return None;
        }
        if !self.is_open_empty() {
            self.close();
        }
        self.hold = Some(Hold {
            chunk_end: ChunkNo(self.next_id),
            from: SlotNo(0),
            slots: BTreeSet::new(),
            index: true,
        });
        Some((Seq(self.open.seq.0 - 1), self.meta(), self.slot_count))
    }

    /// Whether index chunks are held.
    pub(in crate::broker) fn holds_index(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.index)
    }

    /// The index has been read.
    pub(in crate::broker) fn end_index_hold(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.index = false;
        }
    }

    /// Chunks of the hold from a slot on, whose Seq is durable, ascending; what lies before is let go. A page may be short,
    /// or empty, and have a next one. Chunks in which nothing was live at the Seq may be among them.
    pub(in crate::broker) fn held_chunks(
        &mut self,
        from: SlotNo,
        count_max: usize,
    ) -> Page<ChunkRef, SlotNo> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        let Some(hold) = &mut self.hold else {
            return page;
        };
        hold.from = from;
        while let Some(first) = hold.slots.pop_first() {
            if first >= from {
                hold.slots.insert(first);
                break;
            }
            self.free.insert(first);
        }
        let slots = self.slots.get(from.0 as usize..).unwrap_or_default();
        for (looked_count, (no, slot)) in (from.0..).map(SlotNo).zip(slots).enumerate() {
            if looked_count == LOOK_COUNT_MAX || page.items.len() == count_max {
                page.next = Some(no);
                break;
            }
            let place = ChunkRef {
                slot: no,
                chunk: slot.chunk,
            };
            if hold.needs(place) && !self.free.contains(&no) {
                page.items.push(place);
            }
        }
        page
    }

    /// Lets go of everything.
    pub(in crate::broker) fn end_hold(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            self.free.append(&mut hold.slots);
        }
    }

    /// A slot holds nothing any more, and that is durable.
    pub(super) fn end_slot(&mut self, no: SlotNo) {
        let place = self.chunk_in(no);
        match &mut self.hold {
            Some(hold) if hold.needs(place) => hold.slots.insert(no),
            _ => self.free.insert(no),
        };
    }
}
