//! One suite for every store. A new engine starts here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::faulty::{Call, Effect, Fault, FaultyStore};
use super::{Store, StoreError};
use crate::base::{ChunkNo, ChunkRef, Epoch, MessageId, Seq, SlotNo};
use crate::journal::{
    Batch, CHUNK_BYTES_MAX, ChunkWrite, Enqueued, Fact, IndexChunk, Item, Meta, Place, Recovered,
};

/// How a test gets at a store, ends it and gets at it again.
pub(super) trait Bed {
    type Store: Store;

    /// The store, new at first, then as the last end left it.
    fn open(&mut self) -> Self::Store;

    /// The process is killed. Of the batches behind the last flush up to `kept_count` are kept, if the bed can choose.
    fn kill(&mut self, store: Self::Store, kept_count: usize);
}

/// The same bed with a faulty store, without a fault, around each store.
pub(super) struct FaultyBed<B>(pub(super) B);

const NO_FAULT: Fault = Fault {
    call: Call::Append,
    at: 0,
    effect: Effect::None,
};

impl<B: Bed> Bed for FaultyBed<B> {
    type Store = FaultyStore<B::Store>;

    fn open(&mut self) -> Self::Store {
        FaultyStore::new(self.0.open(), NO_FAULT)
    }

    fn kill(&mut self, store: Self::Store, kept_count: usize) {
        self.0.kill(store.into_inner(), kept_count);
    }
}

macro_rules! suite {
    ($bed:expr) => {
        suite!($bed;
            a_new_store_is_empty,
            batches_come_back_in_order,
            dropped_chunks_stay_away,
            facts_of_many_parts_come_back,
            the_index_is_read_in_pieces,
            a_slot_has_the_last_chunk_only,
            the_pool_shrinks_and_grows,
            many_large_batches_are_whole,
            thousands_of_chunks_are_one_batch,
            without_a_flush_a_prefix_is_there,
            every_failed_call_leaves_whole_batches,
        );
    };
    ($bed:expr; $($check:ident,)*) => {
        $(
            #[test]
            fn $check() {
                crate::store::conformance::$check(&mut $bed);
            }
        )*
        mod faulty {
            use super::*;
            $(
                #[test]
                fn $check() {
                    crate::store::conformance::$check(&mut crate::store::conformance::FaultyBed($bed));
                }
            )*
        }
    };
}

pub(super) const UUID: [u8; 16] = *b"0123456789abcdef";

/// A producer of batches, and what must be found after any number of them.
#[derive(Default)]
pub(super) struct Script {
    batches: Vec<Batch>,
    next_chunk: u64,
}

impl Script {
    /// A batch with facts and with chunks of these payloads in these slots.
    pub(super) fn batch(&mut self, facts: Vec<Fact>, chunks: Vec<(u32, Bytes)>) -> &mut Batch {
        let last = self.batches.last();
        let pool = chunks.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let seq = Seq(self.batches.len() as u64 + 1);
        let mut writes = Vec::new();
        for (slot, payload) in chunks {
            self.next_chunk += 1;
            let place = ChunkRef {
                slot: SlotNo(slot),
                chunk: ChunkNo(self.next_chunk),
            };
            writes.push(ChunkWrite { place, payload });
        }
        self.batches.push(Batch {
            seq,
            facts,
            chunks: writes,
            drop: Vec::new(),
            slot_count: last.map_or(0, |batch| batch.slot_count).max(pool),
            meta: Meta {
                epoch: Epoch(1),
                next_id: seq.0 * 1_000,
                clean_epoch: Epoch(seq.0 as u32 / 2),
            },
        });
        self.batches.last_mut().unwrap()
    }

    pub(super) fn first(&self) -> &Batch {
        self.batches.first().unwrap()
    }

    pub(super) fn last(&self) -> &Batch {
        self.batches.last().unwrap()
    }

    /// Live bodies that are refused. Panics on one that is wrong.
    pub(super) fn broken_bodies<S: Store>(&self, store: &S) -> Vec<StoreError> {
        let writes = self.batches.iter().flat_map(|batch| &batch.chunks);
        let live: BTreeMap<_, _> = writes.map(|write| (write.place.slot, write)).collect();
        let mut broken = Vec::new();
        for write in live.values() {
            match store.body(write.place) {
                Ok(found) => assert_eq!(found, write.payload),
                Err(error) => broken.push(error),
            }
        }
        broken
    }

    /// The state after the first `count` batches.
    pub(super) fn check<S: Store>(&self, store: &S, count: usize) {
        let mut index = BTreeMap::new();
        let mut slots = BTreeMap::new();
        let mut expect = Recovered {
            uuid: UUID,
            ..Recovered::default()
        };
        for batch in &self.batches[..count] {
            if !batch.facts.is_empty() {
                index.insert(batch.seq, batch.facts.clone());
            }
            batch.drop.iter().for_each(|seq| drop(index.remove(seq)));
            for write in &batch.chunks {
                slots.insert(write.place.slot, write.clone());
            }
            slots.split_off(&SlotNo(batch.slot_count));
            expect.last_seq = batch.seq;
            expect.meta = batch.meta;
            expect.slot_count = batch.slot_count;
        }
        let mut found = Vec::new();
        assert_eq!(
            store
                .recover(&mut |chunk| found.push((chunk.seq, chunk.facts)))
                .unwrap(),
            expect
        );
        assert!(
            found == index.into_iter().collect::<Vec<_>>(),
            "the index differs"
        );
        for write in slots.values() {
            assert!(
                store.body(write.place).unwrap() == write.payload,
                "{:?} differs",
                write.place
            );
        }
        for batch in &self.batches {
            for write in &batch.chunks {
                if slots
                    .get(&write.place.slot)
                    .is_none_or(|live| live.place != write.place)
                {
                    assert!(
                        matches!(store.body(write.place), Err(StoreError::Gone(gone)) if gone == write.place)
                    );
                }
            }
        }
    }
}

pub(super) fn watched(queue: &str) -> Fact {
    Fact::Watched {
        queue: queue.into(),
        epoch: Epoch(1),
    }
}

pub(super) fn enqueued(number: u64, slot: u32) -> Fact {
    Fact::Enqueued(Enqueued {
        queue: "orders".into(),
        first_sequence: number,
        first_message: MessageId(number),
        accepted_at_ms: 5,
        place: Place::Chunk {
            chunk: ChunkRef {
                slot: SlotNo(slot),
                chunk: ChunkNo(number),
            },
            offset: 0,
        },
        items: vec![
            Item {
                header_len: 1,
                len: 2
            };
            3
        ],
        deliveries: 0,
        failures: 0,
        fields: Vec::new(),
    })
}

/// Bytes that differ from chunk to chunk.
pub(super) fn payload(seed: u32, len: usize) -> Bytes {
    seed.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn recovered<S: Store>(store: &S) -> Vec<IndexChunk> {
    let mut chunks = Vec::new();
    store.recover(&mut |chunk| chunks.push(chunk)).unwrap();
    chunks
}

fn append_all<S: Store>(store: &S, batches: &[Batch]) {
    for batch in batches {
        store.append(batch).unwrap();
    }
}

pub(super) fn a_new_store_is_empty<B: Bed>(bed: &mut B) {
    let script = Script::default();
    let store = bed.open();
    script.check(&store, 0);
    assert_eq!(store.stats().epoch, Epoch(0));
    bed.kill(store, 0);
    script.check(&bed.open(), 0);
}

pub(super) fn batches_come_back_in_order<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    for number in 1..300 {
        match number % 3 {
            0 => script.batch(vec![], vec![]),
            1 => script.batch(vec![watched("a"), watched("b")], vec![]),
            _ => script.batch(vec![enqueued(number, 0)], vec![(0, payload(number as u32, 100))]),
        };
    }
    let store = bed.open();
    recovered(&store);
    let mut sizes = Vec::new();
    for batch in &script.batches {
        let size = store.append(batch).unwrap();
        assert_eq!(size.parts, u16::from(!batch.facts.is_empty()));
        sizes.extend((size.parts > 0).then_some(size));
    }
    store.flush().unwrap();
    assert_eq!(store.stats().epoch, Epoch(1));
    bed.kill(store, 0);
    let store = bed.open();
    script.check(&store, 299);
    assert_eq!(store.stats().epoch, Epoch(1));
    assert_eq!(
        recovered(&store)
            .into_iter()
            .map(|chunk| chunk.size)
            .collect::<Vec<_>>(),
        sizes
    );
}

pub(super) fn dropped_chunks_stay_away<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    for number in 1..=200_u64 {
        let facts = if number % 5 == 0 {
            vec![]
        } else {
            vec![watched("a")]
        };
        let batch = script.batch(facts, vec![]);
        if number > 20 && number % 2 == 0 {
            batch.drop = (number.saturating_sub(22)..number - 18).map(Seq).collect();
        }
        store.append(batch).unwrap();
    }
    store.flush().unwrap();
    bed.kill(store, 0);
    let store = bed.open();
    script.check(&store, 200);
    // Everything may go, and be asked to go again.
    let batch = script.batch(vec![], vec![]);
    batch.drop = (150..=200).map(Seq).collect();
    store.append(batch).unwrap();
    store.flush().unwrap();
    bed.kill(store, 0);
    script.check(&bed.open(), 201);
}

pub(super) fn facts_of_many_parts_come_back<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    for number in 1..=40_usize {
        let names = (0..number).map(|n| watched(&format!("{n:>05000}"))).collect();
        let batch = script.batch(names, vec![]);
        if number > 10 {
            batch.drop = vec![Seq(number as u64 - 10)];
        }
        let size = store.append(batch).unwrap();
        assert_eq!(
            usize::from(size.parts),
            (size.bytes as usize).div_ceil(CHUNK_BYTES_MAX)
        );
    }
    assert!(
        store
            .append(script.batch(vec![watched(&"x".repeat(5 * CHUNK_BYTES_MAX))], vec![]))
            .unwrap()
            .parts
            == 6
    );
    store.flush().unwrap();
    bed.kill(store, 0);
    script.check(&bed.open(), 41);
}

fn many_facts(seq: u64) -> Vec<Fact> {
    (0..seq).map(|n| watched(&format!("{n:>05000}"))).collect()
}

pub(super) fn the_index_is_read_in_pieces<B: Bed>(bed: &mut B) {
    let store = bed.open();
    let mut script = Script::default();
    recovered(&store);
    for seq in 1..=9 {
        let facts = if seq % 3 == 0 { Vec::new() } else { many_facts(seq) };
        let batch = script.batch(facts, Vec::new());
        if seq == 9 {
            batch.drop = vec![Seq(1)];
        }
        store.append(batch).unwrap();
    }
    // What is behind the end is not read, nor what was dropped.
    let mut found = Vec::new();
    let mut from = Seq(0);
    loop {
        let piece = store.index(from, Seq(7), 30_000).unwrap();
        let Some(last) = piece.last() else { break };
        from = Seq(last.seq.0 + 1);
        let bytes: u32 = piece.iter().map(|chunk| chunk.size.bytes).sum();
        let before: u32 = piece.iter().rev().skip(1).map(|chunk| chunk.size.bytes).sum();
        assert!(before < 30_000 && (bytes >= 30_000 || last.seq == Seq(7)));
        found.extend(piece.into_iter().map(|chunk| (chunk.seq, chunk.facts)));
    }
    let expect: Vec<_> = [2, 4, 5, 7].map(|seq| (Seq(seq), many_facts(seq))).into();
    assert!(found == expect);
    assert!(store.index(Seq(8), Seq(7), 1).unwrap().is_empty());
}

pub(super) fn a_slot_has_the_last_chunk_only<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    for round in 0..20_u32 {
        let len = [1, 100, CHUNK_BYTES_MAX][round as usize % 3];
        let slots = (0..30).filter(|slot| (slot + round) % 3 == 0);
        let chunks = slots
            .map(|slot| (slot, payload(round * 100 + slot, len)))
            .collect();
        store.append(script.batch(vec![watched("a")], chunks)).unwrap();
        store.flush().unwrap();
    }
    bed.kill(store, 0);
    let store = bed.open();
    script.check(&store, 20);
    for slot in [31, 70, u32::MAX] {
        let place = ChunkRef {
            slot: SlotNo(slot),
            chunk: ChunkNo(1),
        };
        assert!(
            matches!(store.body(place), Err(StoreError::Gone(_))),
            "slot {slot}"
        );
    }
}

pub(super) fn the_pool_shrinks_and_grows<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    let fill = |from: u32, to: u32| {
        (from..to)
            .map(|slot| (slot, payload(slot, 2_000)))
            .collect::<Vec<_>>()
    };
    append_all(
        &store,
        std::slice::from_ref(script.batch(vec![watched("a")], fill(0, 400))),
    );
    for slot_count in (0..400).rev().step_by(7) {
        let batch = script.batch(vec![], vec![]);
        batch.slot_count = slot_count;
        append_all(&store, std::slice::from_ref(batch));
    }
    for _ in 0..40 {
        append_all(&store, std::slice::from_ref(script.batch(vec![], vec![])));
    }
    append_all(&store, std::slice::from_ref(script.batch(vec![], fill(100, 250))));
    store.flush().unwrap();
    bed.kill(store, 0);
    // Contents of slots beyond the pool may linger, but nothing names them: only what is in the pool is compared.
    let store = bed.open();
    let found = store.recover(&mut |_| ()).unwrap();
    assert_eq!(found.slot_count, 250);
    for write in &script.last().chunks {
        assert_eq!(store.body(write.place).unwrap(), write.payload);
    }
}

pub(super) fn many_large_batches_are_whole<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    // 64 MiB in 32 batches of 2 MiB; every slot is overwritten once.
    for round in 0..32_u32 {
        let slots = (0..128).map(|n| (round % 16) * 128 + n);
        let chunks = slots
            .map(|slot| (slot, payload(round << 16 | slot, CHUNK_BYTES_MAX)))
            .collect();
        store
            .append(script.batch(vec![enqueued(u64::from(round), 0)], chunks))
            .unwrap();
        store.flush().unwrap();
    }
    bed.kill(store, 0);
    script.check(&bed.open(), 32);
}

pub(super) fn thousands_of_chunks_are_one_batch<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let store = bed.open();
    recovered(&store);
    let chunks = (0..4_000)
        .map(|slot| (slot, payload(slot, CHUNK_BYTES_MAX)))
        .collect();
    store.append(script.batch(vec![watched("a")], chunks)).unwrap();
    store.flush().unwrap();
    bed.kill(store, 0);
    script.check(&bed.open(), 1);
}

pub(super) fn without_a_flush_a_prefix_is_there<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let mut appended = 0;
    for kept_count in [0, 1, 7, 20] {
        let store = bed.open();
        script.check(&store, appended);
        for number in 0..20_u32 {
            let chunks = (0..6)
                .map(|slot| (slot + number % 3, payload(number, 9_000)))
                .collect();
            let batch = script.batch(vec![watched("a"), enqueued(u64::from(number), 0)], chunks);
            store.append(batch).unwrap();
            if number == 9 {
                store.flush().unwrap();
            }
        }
        bed.kill(store, kept_count);
        let found = bed.open();
        let last = found.recover(&mut |_| ()).unwrap().last_seq.0 as usize;
        assert!(
            (appended + 10..=appended + 20).contains(&last),
            "{last} of {appended} + 20"
        );
        script.check(&found, last);
        appended = last;
        script.batches.truncate(last);
        bed.kill(found, 0);
    }
}

pub(super) fn every_failed_call_leaves_whole_batches<B: Bed>(bed: &mut B) {
    let mut script = Script::default();
    let mut appended = 0;
    for call in [Call::Append, Call::Flush, Call::Body, Call::Tidy] {
        for effect in [Effect::None, Effect::Whole] {
            for at in 1.. {
                let store = FaultyStore::new(bed.open(), Fault { call, at, effect });
                assert_eq!(
                    recovered(&store).last().map_or(0, |chunk| chunk.seq.0) as usize,
                    appended
                );
                let flushed = run_until_fault(&store, &mut script, appended);
                if store.has_failed() && call != Call::Body {
                    let next = script.batch(vec![], vec![]).clone();
                    assert!(matches!(store.append(&next), Err(StoreError::Poisoned)));
                    assert!(matches!(store.flush(), Err(StoreError::Poisoned)));
                }
                let done = !store.has_failed();
                bed.kill(store.into_inner(), at as usize % 3);
                let found = bed.open();
                let last = found.recover(&mut |_| ()).unwrap().last_seq.0 as usize;
                assert!(
                    (flushed..=script.batches.len()).contains(&last),
                    "{last} with {flushed} flushed"
                );
                script.check(&found, last);
                bed.kill(found, 0);
                appended = last;
                script.batches.truncate(last);
                if done {
                    break;
                }
            }
        }
    }
}

/// Four batches, each flushed and read. Gives how many batches in all are known to be durable.
fn run_until_fault<S: Store>(store: &FaultyStore<S>, script: &mut Script, appended: usize) -> usize {
    let mut flushed = appended;
    for number in 0..4 {
        let seq = script.batches.len() as u32;
        let batch = script.batch(vec![watched("a")], vec![(number, payload(seq, 5_000))]);
        if appended > 6 {
            batch.drop = (1..batch.seq.0 - 6).map(Seq).collect();
        }
        let place = batch.chunks[0].place;
        if store.append(batch).is_err() {
            return flushed;
        }
        if store.flush().is_err() {
            return flushed;
        }
        flushed += 1;
        if store.tidy().is_err() {
            return flushed;
        }
        match store.body(place) {
            Ok(found) => assert_eq!(found, payload(seq, 5_000)),
            Err(_) => assert!(store.has_failed()),
        }
    }
    flushed
}

mod memory {
    use std::sync::Arc;

    use super::{Bed, Script, UUID, watched};
    use crate::store::{MemoryStore, Store};

    struct MemoryBed(Arc<MemoryStore>);

    impl Bed for MemoryBed {
        type Store = Arc<MemoryStore>;

        fn open(&mut self) -> Self::Store {
            self.0.clone()
        }

        fn kill(&mut self, store: Self::Store, kept_count: usize) {
            store.crash(kept_count);
        }
    }

    suite!(MemoryBed(Arc::new(MemoryStore::new(UUID))));

    #[test]
    fn a_crash_keeps_as_many_batches_as_it_was_told() {
        for kept_count in 0..4 {
            let store = MemoryStore::new(UUID);
            let mut script = Script::default();
            store.recover(&mut |_| ()).unwrap();
            for number in 0..4 {
                store.append(script.batch(vec![watched("a")], vec![])).unwrap();
                if number == 0 {
                    store.flush().unwrap();
                }
            }
            assert_eq!(store.pending_count(), 3);
            store.crash(kept_count);
            assert_eq!(store.pending_count(), 0);
            script.check(&store, 1 + kept_count.min(3));
        }
    }
}

mod sled {
    use tempfile::TempDir;

    use super::{Bed, UUID};
    use crate::store::{SledOptions, SledStore};

    /// A kill is a copy of the folder as it is now: what the process has written, and nothing of what it has in mind.
    struct SledBed(TempDir);

    impl Bed for SledBed {
        type Store = SledStore;

        fn open(&mut self) -> Self::Store {
            let options = SledOptions {
                cache_bytes: SledOptions::CACHE_BYTES,
                uuid: UUID,
            };
            SledStore::create_or_open(self.0.path(), options).unwrap()
        }

        fn kill(&mut self, store: Self::Store, _kept_count: usize) {
            let copy = tempfile::tempdir().unwrap();
            crate::store::sled::copy_folder(self.0.path(), copy.path());
            drop(store);
            self.0 = copy;
        }
    }

    suite!(SledBed(tempfile::tempdir().unwrap()));
}
