//! `steadfast restore`: a backup as a data folder.
//!
//! # Invariants
//! - The folder is a store only when the backup was read to its end, everything in it fits, and all is synced.
//! - No number that the broker of the backup may have handed out since is handed out again; every message counts as
//!   delivered before, since that cannot be excluded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::clock::unix_ns;
use super::progress::Progress;
use super::show::{bytes_for_people, counted, escaped, hex, utc};
use super::{Failure, StoreArgs, load, print};
use crate::base::{ChunkNo, ChunkRef, Epoch, Limits, Now, Seq, SlotNo};
use crate::broker::{Broker, Recovery};
use crate::config::Overrides;
use crate::journal::{Batch, ChunkWrite, Fact, IndexChunk, IndexSize, Meta, Recovered};
use crate::port::Body;
use crate::store::{
    self, BackupError, BackupHead, BackupItem, BackupReader, SledOptions, SledStore, Store, StoreError,
};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// The backup
    from: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Only read the backup and verify everything in it
    #[arg(long, conflicts_with_all = ["data_dir", "config"])]
    check: bool,
}

const EXAMPLES: &str = "\
The data folder must be missing or empty. Everything is verified while it is read; what does not come to its end leaves \
no store. Queues, messages with their ids, counters and order, pauses and the origin of dead letters are as they were. \
The store keeps its id; its epoch is raised by a thousand and more, so that no message id comes twice. Every message \
will be marked redelivered:true: whether it was delivered after the backup nobody knows.

Examples:
  steadfast restore /backup/steadfast-20260131T020000.000Z.backup --data-dir /var/lib/steadfast
  steadfast restore orders.backup --check

Exit codes: 0 well, 1 a fault, 2 wrong usage, 4 the backup is damaged or incomplete, or the folder is not empty.";

/// Body bytes of one batch.
const BATCH_BYTES: usize = 2 << 20;

/// Terms that the broker of the backup may begin after it, before it gives out numbers that the restored one gives out.
const EPOCHS_KEPT: u32 = 1_024;

/// Two restores of one backup differ by chance in so many terms.
const EPOCHS_SPREAD: u32 = 32_768;

/// The terms that message ids have room for.
const EPOCH_END: u32 = 1 << 24;

/// What a new store takes beside what is put into it.
const STORE_BYTES: u64 = 32 << 20;

pub(super) fn run(args: RestoreArgs) -> Result<(), Failure> {
    let damaged = |error| Failure::Backup {
        error,
        path: args.from.clone(),
    };
    let file = File::open(&args.from).map_err(|source| damaged(BackupError::Read(source)))?;
    let bytes = file.metadata().map_or(0, |found| found.len());
    let mut reader = BackupReader::new(BufReader::with_capacity(BATCH_BYTES, file)).map_err(damaged)?;
    if args.check {
        let restored = Restore::new(None, *reader.head())
            .read(&mut reader)
            .map_err(|fault| fault.failure(&args.from, Path::new("")))?;
        return print(format!("{}, verified\n", restored.text()));
    }
    let config = load(Overrides {
        file: args.store.config,
        data_dir: args.store.data_dir,
        ..Overrides::default()
    })?;
    let data_dir = config.server.data_dir;
    restore(&mut reader, bytes, &data_dir, config.store.cache_bytes)
        .map_err(|fault| fault.failure(&args.from, &data_dir))
        .and_then(|restored| print(format!("{} in {}\n", restored.text(), data_dir.display())))
}

/// Why it did not come to its end.
enum Fault {
    Backup(BackupError),
    Store(StoreError),
}

impl Fault {
    fn failure(self, from: &Path, data_dir: &Path) -> Failure {
        match self {
            Self::Backup(error) => Failure::Backup {
                error,
                path: from.to_owned(),
            },
            Self::Store(error) => Failure::Store {
                error,
                data_dir: data_dir.to_owned(),
            },
        }
    }
}

impl From<BackupError> for Fault {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn restore(
    reader: &mut BackupReader<impl Read>,
    bytes: u64,
    data_dir: &Path,
    cache_bytes: u64,
) -> Result<Restored, Fault> {
    let head = *reader.head();
    let uuid = head.uuid;
    let store = SledStore::begin_restore(data_dir, SledOptions { cache_bytes, uuid })?;
    let restored = check_room("restore", data_dir, bytes)
        .map_err(Fault::Store)
        .and_then(|()| {
            store.recover(&mut |_| {})?;
            let restored = Restore::new(Some(&store), head).read(reader)?;
            store.end_restore()?;
            Ok(restored)
        });
    drop(store);
    if restored.is_err() {
        // What cannot be removed says itself that it is no store.
        let _ = store::remove_restore(data_dir);
    }
    restored
}

/// The engine does not survive a full disk, so it is not tried where it would come to that: a new store in a folder, of
/// so many bytes of messages.
pub(super) fn check_room(operation: &'static str, dir: &Path, bytes: u64) -> Result<(), StoreError> {
    let needed = bytes + bytes / 4 + STORE_BYTES;
    let free = store::room(dir)?.free_bytes;
    if free >= needed {
        return Ok(());
    }
    let (needed, free) = (bytes_for_people(needed), bytes_for_people(free));
    Err(StoreError::File {
        operation,
        path: dir.to_owned(),
        source: io::Error::new(
            ErrorKind::StorageFull,
            format!("it takes about {needed}, and {free} are free"),
        ),
    })
}

/// What was restored, or could be.
struct Restored {
    head: BackupHead,
    queue_count: u64,
    bytes: u64,
}

impl Restored {
    fn text(&self) -> String {
        format!(
            "{} in {} ({}) as of batch {}, made {}, of store {}",
            counted(self.head.message_count, "message"),
            counted(self.queue_count, "queue"),
            bytes_for_people(self.bytes),
            self.head.seq,
            utc(self.head.made_at_ms),
            hex(&self.head.uuid)
        )
    }
}

/// A restore under way: batches of a store that begins anew.
struct Restore<'a> {
    /// None if the backup is only verified.
    store: Option<&'a SledStore>,
    head: BackupHead,
    epoch: Epoch,
    recovery: Recovery,
    /// The last batch appended.
    seq: Seq,
    unflushed_bytes: usize,
    /// The chunk in each slot, and its length.
    chunks: BTreeMap<SlotNo, (ChunkNo, usize)>,
}

impl<'a> Restore<'a> {
    fn new(store: Option<&'a SledStore>, head: BackupHead) -> Self {
        let by_chance = u32::try_from(unix_ns() / 1_000 % u64::from(EPOCHS_SPREAD)).expect("it is small");
        Self {
            store,
            epoch: Epoch(head.epoch.0.saturating_add(EPOCHS_KEPT + by_chance)),
            head,
            recovery: Recovery::new(Limits::default()),
            seq: Seq(0),
            unflushed_bytes: 0,
            chunks: BTreeMap::new(),
        }
    }

    fn read(mut self, reader: &mut BackupReader<impl Read>) -> Result<Restored, Fault> {
        if self.epoch.0 >= EPOCH_END {
            return Err(contradictory(format!(
                "its epoch is {}, and none is left behind it",
                self.head.epoch
            )));
        }
        let mut progress = Progress::new("read");
        let mut writes = Vec::new();
        let mut write_bytes = 0;
        while let Some(item) = reader.next_item()? {
            progress.tell(|| bytes_for_people(reader.read_bytes()));
            match item {
                BackupItem::Facts(_, facts) => self.state(facts)?,
                BackupItem::Chunk(place, payload) => {
                    self.chunks.insert(place.slot, (place.chunk, payload.len()));
                    write_bytes += payload.len();
                    writes.push(ChunkWrite { place, payload });
                    if write_bytes >= BATCH_BYTES {
                        self.append(Vec::new(), std::mem::take(&mut writes))?;
                        write_bytes = 0;
                    }
                }
            }
        }
        self.append(Vec::new(), writes)?;
        let recovered = Recovered {
            last_seq: self.seq,
            meta: self.meta(),
            slot_count: self.head.slot_count,
            uuid: self.head.uuid,
        };
        let recovery = std::mem::replace(&mut self.recovery, Recovery::new(Limits::default()));
        let broker = recovery.finish(&recovered, Now::default());
        let restored = self.verify(&broker)?;
        // They may have been delivered before, by the broker of the backup as it went on.
        let delivered = broker.queues().map(|queue| Fact::Watched {
            queue: queue.name,
            epoch: self.epoch,
        });
        self.append(delivered.collect(), Vec::new())?;
        if let Some(store) = self.store {
            store.flush()?;
        }
        Ok(restored)
    }

    /// Takes the facts of a batch.
    fn state(&mut self, facts: Vec<Fact>) -> Result<(), Fault> {
        let (size, facts) = self.append(facts, Vec::new())?;
        self.recovery.visit(IndexChunk {
            seq: self.seq,
            facts,
            size,
        });
        Ok(())
    }

    /// Appends a batch; gives its facts back.
    fn append(&mut self, facts: Vec<Fact>, chunks: Vec<ChunkWrite>) -> Result<(IndexSize, Vec<Fact>), Fault> {
        self.seq = Seq(self.seq.0 + 1);
        let Some(store) = self.store else {
            return Ok((IndexSize::default(), facts));
        };
        let batch = Batch {
            seq: self.seq,
            facts,
            chunks,
            drop: Vec::new(),
            slot_count: self.head.slot_count,
            meta: self.meta(),
        };
        let size = store.append(&batch)?;
        let chunk_bytes: usize = batch.chunks.iter().map(|write| write.payload.len()).sum();
        self.unflushed_bytes += size.bytes as usize + chunk_bytes;
        if self.unflushed_bytes >= BATCH_BYTES {
            store.flush()?;
            self.unflushed_bytes = 0;
        }
        Ok((size, batch.facts))
    }

    fn meta(&self) -> Meta {
        Meta {
            epoch: self.epoch,
            next_id: self.epoch.first_id(),
            clean_epoch: Epoch(0),
        }
    }

    /// Looks that there are as many messages as the broker of the backup had, and all their bytes.
    fn verify(&self, broker: &Broker) -> Result<Restored, Fault> {
        let mut restored = Restored {
            head: self.head,
            queue_count: 0,
            bytes: 0,
        };
        let mut message_count = 0;
        for queue in broker.queues() {
            restored.queue_count += 1;
            restored.bytes += queue.bytes;
            message_count += queue.depth;
            for entry in broker.entries(&queue.name, 0) {
                let len = entry.len as usize;
                let is_there = match &entry.body {
                    Body::Stored { chunk, offset } => self
                        .length(*chunk)
                        .is_some_and(|held| *offset as usize + len <= held),
                    Body::Extent(chunks) => {
                        chunks
                            .iter()
                            .map(|chunk| self.length(*chunk))
                            .sum::<Option<usize>>()
                            == Some(len)
                    }
                    Body::Memory(_) => false,
                };
                if !is_there {
                    let name = escaped(&queue.name);
                    return Err(contradictory(format!(
                        "the bytes of message {} of queue {name} are not in it",
                        entry.sequence
                    )));
                }
            }
        }
        if message_count != self.head.message_count {
            return Err(contradictory(format!(
                "it holds {message_count} messages, and the broker had {}",
                self.head.message_count
            )));
        }
        Ok(restored)
    }

    fn length(&self, place: ChunkRef) -> Option<usize> {
        let (chunk, len) = self.chunks.get(&place.slot)?;
        (*chunk == place.chunk).then_some(*len)
    }
}

fn contradictory(what: String) -> Fault {
    Fault::Backup(BackupError::Contradictory { what })
}
