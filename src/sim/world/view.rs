//! What the queues show.

use super::World;
use super::faults::WALL_START_MS;
use crate::port::{Body, EntryView, PAGE_COUNT_MAX};
use crate::sim::message::uid_in;
use crate::sim::oracle::{Kind, Look, QueueLook, Seen};

impl World {
    /// Every queue with its entries, as an operator sees them; the oracle hears of what cannot be read.
    pub(super) fn look(&mut self) -> Look {
        let Some(host) = &self.host else {
            return Look::new();
        };
        let core = &host.shared.core;
        let mut look = Look::new();
        let mut unread = Vec::new();
        for view in core.queues("", PAGE_COUNT_MAX).items {
            let mut entries = Vec::new();
            let mut from = Some(0);
            while let Some(at) = from {
                let page = core.entries(&view.name, at, PAGE_COUNT_MAX);
                from = page.next;
                for entry in page.items {
                    match self.uid_of(&entry) {
                        Some(uid) => entries.push(Seen {
                            uid,
                            failures: entry.failures,
                            leased: entry.leased,
                            due_ms: entry.due_at_ms.map(|at| at.saturating_sub(WALL_START_MS)),
                        }),
                        None => unread.push(format!(
                            "entry {} of {} cannot be read",
                            entry.sequence, view.name
                        )),
                    }
                }
            }
            look.push(QueueLook { view, entries });
        }
        for text in unread {
            self.oracle.accuse(Kind::Lost, text);
        }
        look
    }

    /// The number in an entry's message.
    pub(super) fn uid_of(&self, entry: &EntryView) -> Option<u64> {
        let header_len = entry.header_len as usize;
        match &entry.body {
            Body::Memory(bytes) => uid_in(bytes.get(..header_len)?),
            Body::Stored { chunk, offset } => {
                let payload = self.disk.look(*chunk).ok()?;
                let start = *offset as usize;
                uid_in(payload.get(start..start + header_len)?)
            }
            Body::Extent(chunks) => uid_in(self.disk.look(*chunks.first()?).ok()?.get(..header_len)?),
        }
    }
}
