//! A backup taken a piece at a time while the world goes on: what it makes is what was stored when it began.

use std::collections::BTreeMap;

use bytes::Bytes;
use steadfast::base::{ChunkRef, MessageId, Seq, SlotNo};
use steadfast::broker::{BackupPoint, Broker};

use super::World;
use crate::support::Disk;

/// Index chunks, and body chunks, read in one step.
const PIECE: usize = 2;

/// An entry as far as it must be the same: queue, sequence, message, lengths, acceptance, failures, origin.
type Seen = (String, u64, MessageId, (u32, u32), u64, u32, Option<String>);

#[derive(Debug)]
pub(crate) struct Backup {
    point: BackupPoint,
    expect: (Vec<Seen>, BTreeMap<String, bool>),
    index: BTreeMap<Seq, Vec<u8>>,
    chunks: Vec<(ChunkRef, Bytes)>,
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Index(Seq),
    Chunk(SlotNo),
}

/// The stored entries, and which queues with entries are paused.
fn seen(broker: &Broker) -> (Vec<Seen>, BTreeMap<String, bool>) {
    let mut entries = Vec::new();
    let mut paused = BTreeMap::new();
    for queue in broker.queues() {
        let before = entries.len();
        let stored = broker.entries(&queue.name, 0).filter(|entry| !entry.transient);
        entries.extend(stored.map(|entry| {
            (
                queue.name.to_string(),
                entry.sequence,
                entry.message,
                (entry.header_len, entry.len),
                entry.accepted_at_ms,
                entry.failures,
                entry.origin,
            )
        }));
        if entries.len() > before || queue.paused {
            paused.insert(queue.name.to_string(), queue.paused);
        }
    }
    (entries, paused)
}

impl World {
    /// Begins a backup, or goes on with it.
    pub(super) fn backup(&mut self) {
        let Some(mut backup) = self.backup.take() else {
            let point = self.broker.begin_backup().expect("there is no other");
            assert_eq!(self.broker.begin_backup(), None, "one at a time");
            let expect = seen(&self.broker);
            assert_eq!(point.message_count, expect.0.len() as u64);
            self.backup = Some(Backup {
                point,
                expect,
                index: BTreeMap::new(),
                chunks: Vec::new(),
                next: Next::Index(Seq(0)),
            });
            return;
        };
        if self.disk.durable_seq() < backup.point.seq || self.step(&mut backup) {
            self.backup = Some(backup);
        } else {
            self.broker.end_backup();
            self.compare(&backup);
        }
    }

    /// Reads a piece. Whether more is to be read.
    fn step(&mut self, backup: &mut Backup) -> bool {
        match backup.next {
            Next::Index(from) => {
                let piece = self.disk.index(from, backup.point.seq, PIECE);
                backup.next = match piece.last() {
                    Some((last, _)) => Next::Index(Seq(last.0 + 1)),
                    None => {
                        self.broker.end_backup_index();
                        Next::Chunk(SlotNo(0))
                    }
                };
                backup.index.extend(piece);
                true
            }
            Next::Chunk(from) => {
                let page = self.broker.backup_chunks(from, PIECE);
                for place in page.items {
                    let payload = self.disk.chunk(place);
                    let payload = payload.unwrap_or_else(|| panic!("{place:?} was overwritten"));
                    backup.chunks.push((place, payload));
                }
                if let Some(next) = page.next {
                    backup.next = Next::Chunk(next);
                }
                page.next.is_some()
            }
        }
    }

    /// A broker made from it has the entries of its beginning, with their bytes.
    fn compare(&self, backup: &Backup) {
        let disk = Disk::of(&backup.point, backup.index.clone(), backup.chunks.clone());
        let broker = disk.recover(&self.limits, self.now);
        assert_eq!(seen(&broker), backup.expect);
        for (queue, ..) in &backup.expect.0 {
            for entry in broker.entries(queue, 0) {
                let bytes = disk.resolve(&entry.body, entry.len).concat();
                let number = self.number(&bytes, entry.message);
                assert_eq!(
                    bytes, self.messages[number].bytes,
                    "the bytes of message {number}"
                );
            }
        }
    }
}
