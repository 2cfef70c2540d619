//! The store alone: the broker's commits, put on the product's own store without broker and network. What it reaches is the
//! ceiling of the broker on this disk; beside it stands a plain log with the same bytes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::args::{count_parser, ms_parser};
use super::clock::{Clock, unix_ns};
use super::disk::{self, Times};
use super::report::{UNSTEADY, duration_text, grouped, is_steady};
use super::{BenchError, probe};
use crate::base::{ChunkNo, ChunkRef, Epoch, MessageId, Seq, SlotNo};
use crate::journal::{Batch, CHUNK_BYTES_MAX, ChunkWrite, Enqueued, Fact, Item, Meta, Place};
use crate::runtime;
use crate::store::{SledOptions, SledStore, Store, StoreError};

/// The messages of a commit go to so many queues.
const QUEUE_COUNT: usize = 8;
/// A stored header block such as the broker writes.
const HEADER_BYTES: usize = 90;
/// A line ends when it has stored so much: the folder is on somebody's disk.
const STORED_BYTES_MAX: u64 = 1 << 30;
/// With every commit of `e2e` the one so many before it is settled.
const SETTLED_AFTER: usize = 4;
/// Different chunks begin at different places of the same noise.
const NOISE_STARTS: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// Folder in which a new data folder is made, and removed in the end
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Messages in a commit, one line each
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512", value_name = "N", value_parser = group_parser)]
    per_commit: Vec<usize>,
    /// Bytes of each body
    #[arg(long, default_value_t = 1024, value_parser = count_parser)]
    size: usize,
    /// How long for each line
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = ms_parser)]
    duration_ms: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

fn group_parser(text: &str) -> Result<usize, String> {
    let most = QUEUE_COUNT * Enqueued::ITEM_COUNT_MAX;
    count_parser(text)
        .ok()
        .filter(|count| *count <= most)
        .ok_or_else(|| format!("a number from 1 to {most} is needed"))
}

#[derive(Debug, Serialize)]
struct Line {
    /// `publish` or `e2e`.
    load: &'static str,
    per_commit: usize,
    commits: usize,
    append_us: Times,
    flush_us: Times,
    messages_per_s: f64,
    /// Bytes written to storage per byte of message, header block included.
    written_per_byte: f64,
    /// The rate divided by that of a plain log: one write and one fdatasync of the same messages, before and after.
    of_plain_log: f64,
    /// Whether that ratio means something.
    steady: bool,
}

/// What the mode tells.
#[derive(Debug, Serialize)]
pub(super) struct StoreReport {
    mode: &'static str,
    version: &'static str,
    body_bytes: usize,
    lines: Vec<Line>,
    file_bytes: u64,
    /// Opening the store again and reading its index.
    reopen_s: f64,
    chunks_read: usize,
    /// Chunks that were durable and are not there, or are not as they were written.
    faults: u64,
    pub(super) valid: bool,
}

/// A folder that is gone when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It holds nothing, and the path names it if it stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One commit that is still there: its chunks with their lengths, and the facts that settle its messages.
struct Live {
    seq: Seq,
    places: Vec<(ChunkRef, usize)>,
    settles: Vec<Fact>,
}

/// Makes batches such as the core's and puts them on the store.
struct Load {
    store: SledStore,
    body_bytes: usize,
    noise: Bytes,
    seq: u64,
    next: u64,
    free: VecDeque<u32>,
    slot_count: u32,
    live: VecDeque<Live>,
    append: Vec<Duration>,
    flush: Vec<Duration>,
}

pub(super) fn run(args: &StoreArgs) -> Result<StoreReport, BenchError> {
    runtime::set_up_allocator();
    let scratch = Scratch(
        args.dir
            .join(format!("steadfast-bench-store-{}", std::process::id())),
    );
    let options = SledOptions {
        cache_bytes: SledOptions::CACHE_BYTES,
        uuid: u128::from(unix_ns()).to_be_bytes(),
    };
    let open = || SledStore::create_or_open(&scratch.0, options).map_err(BenchError::Store);
    let store = open()?;
    store.recover(&mut |_| ()).map_err(BenchError::Store)?;
    let mut load = Load::new(store, args.size);
    let mut lines = Vec::new();
    for per_commit in &args.per_commit {
        let commit_bytes = per_commit * load.message_bytes();
        let log_per_s = || {
            disk::append(&args.dir, commit_bytes, args.duration_ms / 4)
                .map(|log| *per_commit as f64 * 1e6 / log.mean)
                .map_err(|source| BenchError::Disk {
                    dir: args.dir.clone(),
                    source,
                })
        };
        load.settle_all()?;
        for (name, settle) in [("e2e", true), ("publish", false)] {
            let before = log_per_s()?;
            let mut line = load.line(name, *per_commit, settle, args.duration_ms)?;
            let after = log_per_s()?;
            line.of_plain_log = line.messages_per_s / ((before + after) / 2.0);
            line.steady = is_steady(before, after, line.of_plain_log);
            lines.push(line);
        }
    }
    // What the last line stored is there still, to be read back.
    let file_bytes = load.store.stats().file_bytes;
    let Load {
        store, live, noise, ..
    } = load;
    drop(store);

    let clock = Clock::start();
    let store = open()?;
    store.recover(&mut |_| ()).map_err(BenchError::Store)?;
    let reopen_s = clock.elapsed().as_secs_f64();
    let places: Vec<(ChunkRef, usize)> = live.into_iter().flat_map(|live| live.places).collect();
    let mut faults = 0;
    for (place, len) in &places {
        match store.body(*place) {
            Ok(payload) if payload == payload_of(&noise, *place, *len) => {}
            Ok(_) | Err(StoreError::Gone(_) | StoreError::Damaged { .. }) => faults += 1,
            Err(error) => return Err(BenchError::Store(error)),
        }
    }
    Ok(StoreReport {
        mode: "store",
        version: env!("CARGO_PKG_VERSION"),
        body_bytes: args.size,
        lines,
        file_bytes,
        reopen_s,
        chunks_read: places.len(),
        faults,
        valid: faults == 0,
    })
}

/// What that chunk holds.
fn payload_of(noise: &Bytes, place: ChunkRef, len: usize) -> Bytes {
    let from = (place.chunk.0.wrapping_mul(37) % NOISE_STARTS) as usize;
    noise.slice(from..from + len)
}

impl Load {
    fn new(store: SledStore, body_bytes: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = (0..CHUNK_BYTES_MAX + NOISE_STARTS as usize).map(|_| {
            // xorshift64: incompressible, the same in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        Self {
            store,
            body_bytes,
            noise: noise.collect(),
            seq: 0,
            next: 0,
            free: VecDeque::new(),
            slot_count: 0,
            live: VecDeque::new(),
            append: Vec::new(),
            flush: Vec::new(),
        }
    }

    fn message_bytes(&self) -> usize {
        self.body_bytes + HEADER_BYTES
    }

    /// Commits again and again for `time`.
    fn line(
        &mut self,
        name: &'static str,
        per_commit: usize,
        settle: bool,
        time: Duration,
    ) -> Result<Line, BenchError> {
        if settle {
            for _ in 0..SETTLED_AFTER {
                self.commit(per_commit, false)?;
            }
        }
        self.append.clear();
        self.flush.clear();
        let commit_bytes = (per_commit * self.message_bytes()) as u64;
        let commits_max = (STORED_BYTES_MAX / commit_bytes).max(1) as usize;
        let written_bytes = || probe::usage(std::process::id()).map_or(0, |usage| usage.written_bytes);
        let before_bytes = written_bytes();
        let clock = Clock::start();
        while clock.elapsed() < time && (settle || self.append.len() < commits_max) {
            self.commit(per_commit, settle)?;
        }
        let seconds = clock.elapsed().as_secs_f64();
        let commits = self.append.len();
        let messages_per_s = (commits * per_commit) as f64 / seconds;
        Ok(Line {
            load: name,
            per_commit,
            commits,
            append_us: Times::of(&mut self.append),
            flush_us: Times::of(&mut self.flush),
            messages_per_s,
            written_per_byte: (written_bytes() - before_bytes) as f64
                / (commits as u64 * commit_bytes).max(1) as f64,
            of_plain_log: 0.0,
            steady: false,
        })
    }

    /// Settles everything, some commits at a time, so that the next line begins with little stored.
    fn settle_all(&mut self) -> Result<(), BenchError> {
        while !self.live.is_empty() {
            let mut batch = self.begin();
            for live in self.live.drain(..self.live.len().min(64)) {
                self.free
                    .extend(live.places.iter().map(|(place, _)| place.slot.0));
                batch.drop.push(live.seq);
            }
            self.put(&batch)?;
        }
        Ok(())
    }

    /// One commit of so many messages; with `settle` it also settles what the oldest one added.
    fn commit(&mut self, message_count: usize, settle: bool) -> Result<(), BenchError> {
        let mut batch = self.begin();
        if let Some(old) = settle.then(|| self.live.pop_front()).flatten() {
            self.free.extend(old.places.iter().map(|(place, _)| place.slot.0));
            batch.facts = old.settles;
            batch.drop.push(old.seq);
        }
        let mut places = Vec::new();
        let mut left_bytes = message_count * self.message_bytes();
        while left_bytes > 0 {
            let len = left_bytes.min(CHUNK_BYTES_MAX);
            left_bytes -= len;
            let slot = self.free.pop_front().unwrap_or_else(|| {
                self.slot_count += 1;
                self.slot_count - 1
            });
            self.next += 1;
            let place = ChunkRef {
                slot: SlotNo(slot),
                chunk: ChunkNo(self.next),
            };
            places.push((place, len));
            let payload = payload_of(&self.noise, place, len);
            batch.chunks.push(ChunkWrite { place, payload });
        }
        batch.slot_count = self.slot_count;
        let mut settles = Vec::new();
        let mut at_bytes = 0;
        for queue in 0..QUEUE_COUNT.min(message_count) {
            let count = message_count / QUEUE_COUNT + usize::from(queue < message_count % QUEUE_COUNT);
            let first = Epoch(1).first_id() + self.next;
            self.next += count as u64;
            let name: Arc<str> = format!("queue-{queue}").into();
            settles.push(Fact::Settled {
                queue: Arc::clone(&name),
                ranges: vec![(first, first + count as u64 - 1)],
            });
            let (chunk, offset) = (at_bytes / CHUNK_BYTES_MAX, at_bytes % CHUNK_BYTES_MAX);
            let (chunk, _) = *places.get(chunk).expect("the chunks hold every message");
            batch.facts.push(Fact::Enqueued(Enqueued {
                queue: name,
                first_sequence: first,
                first_message: MessageId(first),
                accepted_at_ms: 1_800_000_000_000,
                place: Place::Chunk {
                    chunk,
                    offset: offset as u32,
                },
                items: vec![
                    Item {
                        header_len: HEADER_BYTES as u32,
                        len: self.message_bytes() as u32
                    };
                    count
                ],
                deliveries: 0,
                failures: 0,
                fields: Vec::new(),
            }));
            at_bytes += count * self.message_bytes();
        }
        self.put(&batch)?;
        self.live.push_back(Live {
            seq: batch.seq,
            places,
            settles,
        });
        Ok(())
    }

    fn begin(&mut self) -> Batch {
        self.seq += 1;
        Batch {
            seq: Seq(self.seq),
            facts: Vec::new(),
            chunks: Vec::new(),
            drop: Vec::new(),
            slot_count: self.slot_count,
            meta: Meta::default(),
        }
    }

    fn put(&mut self, batch: &Batch) -> Result<(), BenchError> {
        let clock = Clock::start();
        self.store.append(batch).map_err(BenchError::Store)?;
        let appended = clock.elapsed();
        self.store.flush().map_err(BenchError::Store)?;
        self.append.push(appended);
        self.flush.push(clock.elapsed() - appended);
        Ok(())
    }
}

impl StoreReport {
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "store  {} B; a commit is made durable before the next one begins\n",
            grouped(self.body_bytes as u64)
        );
        for line in &self.lines {
            text.push_str(&format!(
                "  {:<7} {:>4} a commit  {:>11} msg/s  {:.2} of a plain log  append p50 {}  flush p50 {} p99 {}  {:.2} bytes per byte{}\n",
                line.load,
                line.per_commit,
                grouped(line.messages_per_s as u64),
                line.of_plain_log,
                duration_text(line.append_us.p50),
                duration_text(line.flush_us.p50),
                duration_text(line.flush_us.p99),
                line.written_per_byte,
                if line.steady { "" } else { UNSTEADY }
            ));
        }
        text.push_str(&format!(
            "  file    {:.0} MiB, opened again in {:.3} s\n",
            self.file_bytes as f64 / 1048576.0,
            self.reopen_s
        ));
        text.push_str(&match self.faults {
            0 => format!(
                "  verdict valid: {} chunks read back as they were written\n",
                self.chunks_read
            ),
            faults => format!("  verdict INVALID: {faults} of {} chunks\n", self.chunks_read),
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_measured_read_back_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let report = run(&StoreArgs {
            dir: dir.path().to_owned(),
            per_commit: vec![1, 20, 600],
            size: 100,
            duration_ms: Duration::from_millis(20),
            json: false,
        })
        .unwrap();
        assert!(report.valid && report.chunks_read >= SETTLED_AFTER);
        assert_eq!(report.lines.len(), 6);
        assert!(
            report
                .lines
                .iter()
                .all(|line| line.commits > 0 && line.messages_per_s > 0.0)
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
