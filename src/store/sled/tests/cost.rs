//! What commits cost, for `docs/storage.md`. Run with
//! `cargo test --release --lib commit_costs -- --ignored --nocapture`.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::VecDeque;
use std::time::Instant;

use super::*;
use crate::base::{ChunkNo, Epoch, MessageId};
use crate::journal::{ChunkWrite, Enqueued, Fact, Item, Meta, Place};

const QUEUE_COUNT: u64 = 8;
const MESSAGE_BYTES: usize = 1_024 + 90;

struct Load {
    store: SledStore,
    seq: u64,
    next: u64,
    free: VecDeque<u32>,
    slot_count: u32,
    /// Per batch, oldest first: its slots and its settle facts.
    live: VecDeque<(Vec<ChunkRef>, Vec<Fact>)>,
    bytes: Bytes,
}

impl Load {
    fn commit(&mut self, message_count: u64, settle: bool) {
        self.seq += 1;
        let mut facts = Vec::new();
        let mut settles = Vec::new();
        let mut drop = Vec::new();
        if settle {
            let (places, old) = self.live.pop_front().unwrap();
            self.free.extend(places.iter().map(|place| place.slot.0));
            facts.extend(old);
            drop.push(Seq(self.seq - self.live.len() as u64 - 1));
        }
        let mut chunks = Vec::new();
        let mut rest = usize::try_from(message_count).unwrap() * MESSAGE_BYTES;
        while rest > 0 {
            let len = rest.min(CHUNK_BYTES_MAX);
            rest -= len;
            let slot = self.free.pop_front().unwrap_or_else(|| {
                self.slot_count += 1;
                self.slot_count - 1
            });
            self.next += 1;
            let place = ChunkRef {
                slot: SlotNo(slot),
                chunk: ChunkNo(self.next),
            };
            let payload = self.bytes.slice(..len);
            chunks.push(ChunkWrite { place, payload });
        }
        for queue in 0..QUEUE_COUNT.min(message_count) {
            let count = message_count / QUEUE_COUNT.min(message_count);
            let first = Epoch(1).first_id() + self.next;
            self.next += count;
            let name: Arc<str> = format!("queue-{queue}").into();
            settles.push(Fact::Settled {
                queue: name.clone(),
                ranges: vec![(first, first + count - 1)],
            });
            facts.push(Fact::Enqueued(Enqueued {
                queue: name,
                first_sequence: first,
                first_message: MessageId(first),
                accepted_at_ms: 1_800_000_000_000,
                place: Place::Chunk {
                    chunk: chunks[0].place,
                    offset: 0,
                },
                items: vec![
                    Item {
                        header_len: 90,
                        len: MESSAGE_BYTES as u32
                    };
                    count as usize
                ],
                deliveries: 0,
                failures: 0,
                fields: Vec::new(),
            }));
        }
        self.live
            .push_back((chunks.iter().map(|write| write.place).collect(), settles));
        let batch = Batch {
            seq: Seq(self.seq),
            facts,
            chunks,
            drop,
            slot_count: self.slot_count,
            meta: Meta::default(),
        };
        self.store.append(&batch).unwrap();
    }
}

fn proc_number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn run(name: &str, load: &mut Load, message_count: u64, commit_count: u64, settle: bool) {
    let written = proc_number("io", "write_bytes");
    let begin = Instant::now();
    let mut append = Duration::ZERO;
    let mut flush = Duration::ZERO;
    for _ in 0..commit_count {
        let at = Instant::now();
        load.commit(message_count, settle);
        append += at.elapsed();
        let at = Instant::now();
        load.store.flush().unwrap();
        flush += at.elapsed();
    }
    let total = begin.elapsed();
    let written = proc_number("io", "write_bytes") - written;
    let messages = (message_count * commit_count) as f64;
    eprintln!(
        "{name:>8} {message_count:>4} a commit: {:>8.0} msg/s, append {:>6.0} us, flush {:>6.0} us, {:>5.2} bytes per byte, \
         file {:>5} MB, RSS {:>4} MB",
        messages / total.as_secs_f64(),
        append.as_secs_f64() * 1e6 / commit_count as f64,
        flush.as_secs_f64() * 1e6 / commit_count as f64,
        written as f64 / (messages * MESSAGE_BYTES as f64),
        load.store.stats().file_bytes >> 20,
        proc_number("status", "VmRSS") >> 10,
    );
}

#[test]
#[ignore = "a measurement"]
fn commit_costs() {
    let root = std::env::var_os("STEADFAST_COST_DIR").map_or_else(std::env::temp_dir, Into::into);
    for message_count in [1, 64, 512] {
        let dir = tempfile::tempdir_in(&root).unwrap();
        let store = open(dir.path()).unwrap();
        store.recover(&mut |_| ()).unwrap();
        eprintln!("idle RSS {} MB", proc_number("status", "VmRSS") >> 10);
        let mut load = Load {
            store,
            seq: 0,
            next: 0,
            free: VecDeque::new(),
            slot_count: 0,
            live: VecDeque::new(),
            bytes: payload(7, CHUNK_BYTES_MAX),
        };
        let commits = |messages: u64| (messages / message_count).min(8_000);
        run("begin", &mut load, message_count, 4, false);
        run("steady", &mut load, message_count, commits(100_000), true);
        run("warm-up", &mut load, message_count, commits(20_000), false);
        run("publish", &mut load, message_count, commits(300_000), false);
        run("e2e", &mut load, message_count, commits(300_000), true);
        run("e2e", &mut load, message_count, commits(300_000), true);
        let live = load.live;
        drop(load.store);
        let begin = Instant::now();
        let (store, count) = recovered(dir.path()).unwrap();
        let opened = begin.elapsed();
        let places: Vec<_> = live.into_iter().flat_map(|(places, _)| places).collect();
        let begin = Instant::now();
        places
            .iter()
            .for_each(|place| assert!(store.body(*place).is_ok()));
        eprintln!(
            "   reopen with {count} index chunks: {opened:?}, then a body in {:?}, RSS {} MB",
            begin.elapsed() / places.len() as u32,
            proc_number("status", "VmRSS") >> 10
        );
    }
}
