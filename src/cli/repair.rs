//! `steadfast repair`: what is whole of a damaged store, in a new one.
//!
//! # Invariants
//! - The old folder is only read: it is the copy to go back to.
//! - The new folder has its name only when all that could be saved is durable in it. One that fails leaves no folder.
//! - Every message of the new store is marked as delivered before: that cannot be excluded of any.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::restore::check_room;
use super::show::{escaped, hex};
use super::stored::{Damage, Reader, message_id, well_formed};
use super::table::{Look, table};
use super::{Failure, StoreArgs, check_outside, load, written};
use crate::base::{ChunkNo, ChunkRef, Epoch, Now, Seq, SlotNo};
use crate::broker::{Broker, Recovery};
use crate::config::Overrides;
use crate::journal::{Batch, CHUNK_BYTES_MAX, ChunkWrite, Enqueued, Fact, Meta, Place, Recovered};
use crate::port::QueueView;
use crate::store::{Salvage, SledOptions, SledStore, Store, StoreError};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Folder of the new store; it is made, and must not be there, nor lie in the damaged one
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// One JSON object on each line: kind is damage, gone, queue or repaired
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The broker must be stopped. The damaged folder is only read, and stays as the copy to go back to; the new one takes as \
much room as the messages that are saved, which is looked for first. Every message in it is byte for byte one that was stored, in its old place of \
its queue, with its message-id, and is delivered with redelivered:true. What is gone is listed: messages by queue, \
sequence and message-id where the index names them; whole batches where it does not. Of what was settled in a batch \
that is gone it cannot be known that it was: such messages come back, and are counted as perhaps settled.

Examples:
  steadfast repair --data-dir /var/lib/steadfast --to /var/lib/steadfast.new
  mv /var/lib/steadfast /var/lib/steadfast.damaged && mv /var/lib/steadfast.new /var/lib/steadfast

Exit codes: 0 nothing is gone, 2 no store there or wrong usage, 4 something is gone, or nothing could be written, 5 a \
broker is using the folder.";

/// More starts than can have been lost with the end of a log: the new store hands out no number of theirs.
const EPOCHS_LOST_MAX: u32 = 1_000;

/// Message bytes of one batch of the new store.
const COMMIT_BYTES: usize = 2 << 20;

const UNFINISHED: &str = ".unfinished";

/// Messages between two lines of progress.
const PROGRESS_EVERY: u64 = 10_000;

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Damage(&'a Damage),
    Gone {
        queue: &'a str,
        sequence: u64,
        message_id: String,
        bytes: u32,
        what: &'a str,
    },
    Queue(&'a Saved),
    Repaired {
        to: &'a Path,
        messages: u64,
        bytes: u64,
        gone: u64,
    },
}

/// What became of one queue.
#[derive(Debug, Default, Serialize)]
struct Saved {
    name: String,
    messages: u64,
    bytes: u64,
    gone: u64,
    /// Of the messages: those that a batch which is gone may have settled.
    perhaps_settled: u64,
}

pub(super) fn run(args: &RepairArgs) -> Result<(), Failure> {
    let config = load(Overrides {
        file: args.store.config.clone(),
        data_dir: args.store.data_dir.clone(),
        ..Overrides::default()
    })?;
    let data_dir = config.server.data_dir;
    check_outside(&data_dir, &args.to)?;
    let unfinished = unfinished(&args.to);
    if fs::symlink_metadata(&args.to).is_ok() {
        return Err(Failure::Exists(args.to.clone()));
    }
    if fs::symlink_metadata(&unfinished).is_ok() {
        return Err(Failure::RepairUnfinished(unfinished));
    }
    let failed = |error| match error {
        StoreError::Damaged { .. } => Failure::Unsaved(error),
        error => Failure::store(error, &data_dir),
    };
    let salvage = Salvage::read(&data_dir).map_err(failed)?;
    let mut recovery = Recovery::new(config.limits);
    let recovered = salvage
        .recover(&mut |chunk| recovery.visit(chunk))
        .map_err(failed)?;
    let broker = recovery.finish(&recovered, Now::default());
    let damage = Damage::new(None, salvage.loss());
    let mut report = Report {
        out: BufWriter::new(io::stdout().lock()),
        json: args.json,
        uuid: recovered.uuid,
    };
    report.damage(&damage)?;
    let bytes = broker.queues().map(|queue| queue.bytes).sum();
    check_room("repair", there(&unfinished), bytes).map_err(|error| Failure::store(error, &unfinished))?;
    let written = write_store(&unfinished, &salvage, &broker, &recovered, &mut report).and_then(|saved| {
        let placed = put_in_place(&unfinished, &args.to);
        placed.map(|()| saved).map_err(|source| Failure::Write {
            path: args.to.clone(),
            source,
        })
    });
    let saved = written.inspect_err(|_| {
        // It was not there before. What cannot be removed has a name that says what it is.
        let _ = fs::remove_dir_all(&unfinished);
    })?;
    report.end(&saved, &args.to)?;
    let gone_count: u64 = saved.iter().map(|queue| queue.gone).sum();
    if gone_count == 0 && damage.is_none() {
        return Ok(());
    }
    Err(Failure::Gone {
        message_count: gone_count,
        index: !damage.is_none(),
        to: args.to.clone(),
    })
}

/// Writes all that can be read into a new store, a queue after the other.
fn write_store(
    dir: &Path,
    salvage: &Salvage,
    broker: &Broker,
    recovered: &Recovered,
    report: &mut Report<'_>,
) -> Result<Vec<Saved>, Failure> {
    let failed = |error| Failure::store(error, dir);
    let options = SledOptions {
        cache_bytes: SledOptions::CACHE_BYTES,
        uuid: recovered.uuid,
    };
    let store = SledStore::create_or_open(dir, options).map_err(failed)?;
    store.recover(&mut |_| ()).map_err(failed)?;
    let epoch = Epoch(recovered.meta.epoch.0 + EPOCHS_LOST_MAX);
    let mut writer = Writer::new(&store, epoch);
    let chunk = |place| salvage.body(place);
    let mut reader = Reader::new(&chunk);
    let doubt_before = salvage.loss().doubt_before(recovered.last_seq);
    let progress = io::stderr().is_terminal();
    let mut message_count = 0_u64;
    let mut saved = Vec::new();
    for policy in broker.policies() {
        writer.state(Fact::Policy {
            pattern: policy.pattern,
            settings: Some(policy.settings),
        });
    }
    // Ids are left out: what cannot be saved is to be sent again. So is a queue that has nothing else.
    let kept = |queue: &QueueView| {
        queue.depth > 0 || queue.topic.is_some() || !queue.declared.is_empty() || queue.paused
    };
    for queue in broker.queues().filter(kept) {
        let mut here = Saved {
            name: queue.name.to_string(),
            ..Saved::default()
        };
        if queue.topic.is_some() || !queue.declared.is_empty() {
            writer.state(Fact::Declared {
                queue: Arc::clone(&queue.name),
                topic: queue.topic.clone(),
                selector: queue.selector.clone(),
                settings: queue.declared.clone(),
            });
        }
        if queue.paused {
            writer.state(Fact::Paused {
                queue: Arc::clone(&queue.name),
                paused: true,
            });
        }
        for (entry, fact) in broker.statements(&queue.name) {
            let read = reader
                .message(&entry)
                .map_err(|error| super::failure::chain(&error))
                .and_then(|bytes| well_formed(&bytes, &entry).map(|()| bytes));
            match read {
                Ok(bytes) => {
                    here.messages += 1;
                    here.bytes += u64::from(entry.len);
                    here.perhaps_settled += u64::from(entry.gate < doubt_before);
                    writer.add(fact, &bytes).map_err(failed)?;
                }
                Err(what) => {
                    here.gone += 1;
                    report.gone(&fact, &what)?;
                }
            }
            message_count += 1;
            if progress && message_count.is_multiple_of(PROGRESS_EVERY) {
                eprint!("\r{message_count} messages");
            }
        }
        saved.push(here);
    }
    if progress && message_count >= PROGRESS_EVERY {
        eprintln!();
    }
    writer.commit().map_err(failed)?;
    Ok(saved)
}

/// The lowest folder that is there, of those that a new one will lie in.
fn there(dir: &Path) -> &Path {
    dir.ancestors()
        .skip(1)
        .map(|above| match above == Path::new("") {
            true => Path::new("."),
            false => above,
        })
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("."))
}

/// Gives the new folder its name, durably.
fn put_in_place(unfinished: &Path, to: &Path) -> io::Result<()> {
    fs::rename(unfinished, to)?;
    let above = std::path::absolute(to)?;
    above
        .parent()
        .map_or(Ok(()), |above| File::open(above)?.sync_all())
}

fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    to.with_file_name(name)
}

/// Packs messages into the batches of a new store.
struct Writer<'a> {
    store: &'a SledStore,
    batch: Batch,
    /// The chunk that small messages are packed into.
    filling: Option<(ChunkRef, Vec<u8>)>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    fn new(store: &'a SledStore, epoch: Epoch) -> Self {
        let meta = Meta {
            epoch,
            next_id: epoch.first_id(),
            clean_epoch: epoch,
        };
        let batch = Batch {
            seq: Seq(1),
            facts: Vec::new(),
            chunks: Vec::new(),
            drop: Vec::new(),
            slot_count: 0,
            meta,
        };
        Self {
            store,
            batch,
            filling: None,
            bytes: 0,
        }
    }

    fn state(&mut self, fact: Fact) {
        self.batch.facts.push(fact);
    }

    fn add(&mut self, fact: Enqueued, bytes: &Bytes) -> Result<(), StoreError> {
        let place = self.place(bytes);
        self.state(Fact::Enqueued(Enqueued {
            place,
            deliveries: fact.deliveries.max(1),
            ..fact
        }));
        self.bytes += bytes.len();
        match self.bytes {
            COMMIT_BYTES.. => self.commit(),
            _ => Ok(()),
        }
    }

    fn place(&mut self, bytes: &Bytes) -> Place {
        if bytes.len() > CHUNK_BYTES_MAX {
            let mut rest = bytes.clone();
            let mut places = Vec::new();
            while !rest.is_empty() {
                let payload = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
                let place = self.take_slot();
                self.batch.chunks.push(ChunkWrite { place, payload });
                places.push(place);
            }
            return Place::Extent(places.into());
        }
        let full = |(_, payload): &(ChunkRef, Vec<u8>)| payload.len() + bytes.len() > CHUNK_BYTES_MAX;
        if self.filling.as_ref().is_some_and(full) {
            self.end_filling();
        }
        let (chunk, payload) = match &mut self.filling {
            Some(filling) => filling,
            None => {
                let place = self.take_slot();
                self.filling.insert((place, Vec::new()))
            }
        };
        let offset = u32::try_from(payload.len()).expect("a chunk is small");
        payload.extend_from_slice(bytes);
        Place::Chunk {
            chunk: *chunk,
            offset,
        }
    }

    fn take_slot(&mut self) -> ChunkRef {
        let place = ChunkRef {
            slot: SlotNo(self.batch.slot_count),
            chunk: ChunkNo(self.batch.meta.next_id),
        };
        self.batch.slot_count += 1;
        self.batch.meta.next_id += 1;
        place
    }

    fn end_filling(&mut self) {
        if let Some((place, payload)) = self.filling.take() {
            let payload = payload.into();
            self.batch.chunks.push(ChunkWrite { place, payload });
        }
    }

    /// Makes what was added durable.
    fn commit(&mut self) -> Result<(), StoreError> {
        self.end_filling();
        self.store.append(&self.batch)?;
        self.store.flush()?;
        self.batch.seq.0 += 1;
        self.batch.facts.clear();
        self.batch.chunks.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// What is told, on standard output.
struct Report<'a> {
    out: BufWriter<io::StdoutLock<'a>>,
    json: bool,
    uuid: [u8; 16],
}

impl Report<'_> {
    fn damage(&mut self, damage: &Damage) -> Result<(), Failure> {
        if !self.json {
            let store = format!("store {}", hex(&self.uuid));
            return std::iter::once(store)
                .chain(damage.lines())
                .try_for_each(|line| self.text(&line));
        }
        match damage.is_none() {
            true => Ok(()),
            false => self.line(&Line::Damage(damage)),
        }
    }

    fn gone(&mut self, fact: &Enqueued, what: &str) -> Result<(), Failure> {
        let (queue, sequence) = (&*fact.queue, fact.first_sequence);
        let message_id = message_id(&self.uuid, fact.first_message);
        if !self.json {
            let queue = escaped(queue);
            return self.text(&format!(
                "gone: queue {queue}, sequence {sequence}, message-id {message_id}: {what}"
            ));
        }
        let bytes = fact.items.iter().map(|item| item.len).sum();
        self.line(&Line::Gone {
            queue,
            sequence,
            message_id,
            bytes,
            what,
        })
    }

    fn end(&mut self, saved: &[Saved], to: &Path) -> Result<(), Failure> {
        let sum = |of: fn(&Saved) -> u64| saved.iter().map(of).sum::<u64>();
        let (messages, bytes, gone) = (sum(|of| of.messages), sum(|of| of.bytes), sum(|of| of.gone));
        if self.json {
            for queue in saved {
                self.line(&Line::Queue(queue))?;
            }
            self.line(&Line::Repaired {
                to,
                messages,
                bytes,
                gone,
            })?;
        } else {
            let look = Look::of_stdout();
            let mut rows = vec![["QUEUE", "SAVED", "BYTES", "GONE", "PERHAPS SETTLED"].map(str::to_owned)];
            rows.extend(saved.iter().map(|queue| {
                [
                    escaped(&queue.name),
                    queue.messages.to_string(),
                    look.bytes(queue.bytes),
                    queue.gone.to_string(),
                    queue.perhaps_settled.to_string(),
                ]
            }));
            if !saved.is_empty() {
                written(table(&mut self.out, look, &rows))?;
            }
            self.text(&format!(
                "wrote {messages} messages with {bytes} bytes to {}; they are delivered with redelivered:true",
                to.display()
            ))?;
        }
        written(self.out.flush())
    }

    fn text(&mut self, line: &str) -> Result<(), Failure> {
        written(writeln!(self.out, "{line}"))
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(line).map_err(|error| Failure::Output(error.into()))?;
        text.push(b'\n');
        written(self.out.write_all(&text))
    }
}
