//! The store on sled 0.34.7, the only folder that names it. `docs/storage.md` has the keys, the measured rules and
//! what is promised.
//!
//! One tree with three ranges of keys: meta, index (parts of encoded facts, by Seq), body (slots, overwritten in place).
//! A batch is one `apply_batch`; `flush` is sled's flush and then our own `fdatasync` of its file, which alone counts.
//!
//! # Invariants
//! - A value is at most [`VALUE_BYTES_MAX`] long, so that a leaf of the tree never exceeds a quarter of a segment: sled
//!   would write it as a file under `blobs/`, which it never syncs.
//! - The meta record written with every batch names the number and a sum of the index keys; recovery compares, so a
//!   lost index chunk is never a silent loss.
//! - Slots are made empty, ahead of their use, in ascending order, one insert each. A slot is never removed but at the
//!   end of the pool, a few in a batch, and never overwritten with nothing.
//! - After a failed append or flush nothing more is written, not even when the store is dropped.
//! - The folder is ours from before sled touches anything until after sled is gone.
//!
//! # Not here
//! Panic guards around writes: a panic there is a bug that ends the process.

mod durable;
mod folder;
mod guard;
mod live;
mod log;
mod meta;
mod salvage;
#[cfg(target_os = "linux")]
mod sync_file_range;
mod tidy;

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use self::durable::Durable;
use self::folder::{Folder, State};
pub use self::folder::{make_folder, remove_restore};
use self::live::LiveIndex;
use self::meta::MetaRecord;
pub use self::salvage::{Loss, Salvage};
use self::tidy::{Step, Tidy};
use super::frame::{self, Fields, FrameError, HEAD_BYTES, Kind};
use super::{PART_BYTES_MAX, Store, StoreError, StoreStats, check_batch, index_size};
use crate::base::{ChunkRef, Epoch, Seq, SlotNo};
use crate::journal::{
    Batch, CHUNK_BYTES_MAX, FORMAT_VERSION, IndexChunk, IndexSize, Recovered, decode_facts, encode_facts,
};

const SEGMENT_BYTES: usize = 2 << 20;

/// The longest value under any key.
const VALUE_BYTES_MAX: usize = HEAD_BYTES
    + if CHUNK_BYTES_MAX > PART_BYTES_MAX {
        CHUNK_BYTES_MAX
    } else {
        PART_BYTES_MAX
    };

/// A leaf holds 17 items, about 20 after a merge.
const LEAF_ITEM_COUNT_MAX: usize = 24;

/// Above this sled writes a page as a file of its own.
const PAGE_BYTES_MAX: usize = SEGMENT_BYTES / 4 - 20;

/// Key and lengths of one item of a page.
const ITEM_OVERHEAD_BYTES_MAX: usize = 64;

const _: () = assert!(LEAF_ITEM_COUNT_MAX * (VALUE_BYTES_MAX + ITEM_OVERHEAD_BYTES_MAX) < PAGE_BYTES_MAX);

/// Slots made beyond the highest one in use.
const SLOTS_AHEAD_COUNT: u32 = 64;

/// Slots removed in one batch at most.
const SLOTS_REMOVED_COUNT_MAX: u32 = 512;

/// How often a step of [`SledStore::tidy`] writes at most; a few milliseconds.
const STIR_COUNT: usize = 8;

/// sled's background threads may hold its file for a moment after the last handle to it went in this process.
const ENGINE_LOCK_TRIES: u32 = 400;
const ENGINE_LOCK_PAUSE: Duration = Duration::from_millis(5);
const ENGINE_LOCK_ERROR: &str = "could not acquire lock";

const META_KEY: [u8; 1] = [0x10];
const META_FENCE: u8 = 0x18;
const INDEX_RANGE: u8 = 0x20;
const INDEX_FENCE: u8 = 0x28;
const BODY_RANGE: u8 = 0x30;
const INDEX_KEY_LEN: usize = 11;

/// More keys without meaning between two ranges than a leaf holds, so that no leaf holds keys of both: the end of the index is
/// rewritten every few commits, and would take bodies with it.
const FENCE_COUNT: u8 = 18;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SledOptions {
    /// Pages that sled keeps in memory. Its own count; see `docs/storage.md` for what the process takes.
    pub cache_bytes: u64,
    /// The identity of the store, if it is made by this call.
    pub uuid: [u8; 16],
}

impl SledOptions {
    /// The default of [`SledOptions::cache_bytes`].
    pub const CACHE_BYTES: u64 = 32 << 20;
}

/// See the module's text.
#[derive(Debug)]
pub struct SledStore {
    // Dropped in this order: sled, then the lock within the folder.
    db: ::sled::Db,
    file: File,
    durable: Durable,
    last_seq: AtomicU64,
    writer: Mutex<Writer>,
    poisoned: AtomicBool,
    epoch: AtomicU32,
    uuid: [u8; 16],
    folder: Folder,
}

#[derive(Debug)]
struct Writer {
    meta: MetaRecord,
    /// `None` before recovery.
    live: Option<LiveIndex>,
    tidy: Tidy,
    scratch: Vec<u8>,
}

impl SledStore {
    /// Opens the store in a folder, or makes folder and store where there is none.
    pub fn create_or_open(dir: &Path, options: SledOptions) -> Result<Self, StoreError> {
        make_folder(dir)?;
        let folder = Folder::take(dir)?;
        match folder.state()? {
            State::Complete(uuid) => return Self::open(folder, uuid, options.cache_bytes),
            State::Older(uuid) => {
                let store = Self::open(folder, uuid, options.cache_bytes)?;
                store.folder.name_format(uuid)?;
                return Ok(store);
            }
            State::Absent | State::Creating => {}
        }
        folder.begin_creation()?;
        let store = Self::create(folder, options)?;
        store.end_creation()?;
        Ok(store)
    }

    /// Makes a store in an empty folder, to be filled from a backup: nobody opens it before [`SledStore::end_restore`].
    /// Where it comes to no end, [`remove_restore`] leaves the folder as it was.
    pub fn begin_restore(dir: &Path, options: SledOptions) -> Result<Self, StoreError> {
        folder::check_empty(dir)?;
        make_folder(dir)?;
        let folder = Folder::take(dir)?;
        folder.begin_restore()?;
        Self::create(folder, options)
    }

    /// Everything was appended and flushed: from now on this is a store like any other.
    pub fn end_restore(&self) -> Result<(), StoreError> {
        self.end_creation()
    }

    fn create(folder: Folder, options: SledOptions) -> Result<Self, StoreError> {
        let db = open_engine(&folder, options.cache_bytes)?;
        let file = folder.open_db()?;
        let meta = MetaRecord::default();
        fill_new(&db, &meta, options.uuid).map_err(|error| engine_error(&folder, error))?;
        let durable = Durable::open(&folder, options.uuid)?;
        durable.write(meta.last_seq);
        Ok(Self::new(folder, db, file, durable, options.uuid, meta))
    }

    fn end_creation(&self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(self.folder.error("fsync", folder::DB))?;
        self.folder.end_creation(self.uuid)
    }

    /// Opens the store in a folder, for reading by people; makes nothing where there is none.
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        folder::check_exists(dir)?;
        let folder = Folder::take(dir)?;
        match folder.state()? {
            State::Complete(uuid) | State::Older(uuid) => Self::open(folder, uuid, SledOptions::CACHE_BYTES),
            State::Absent | State::Creating => Err(folder::no_store(dir)),
        }
    }

    fn open(folder: Folder, uuid: [u8; 16], cache_bytes: u64) -> Result<Self, StoreError> {
        let file = folder.open_db()?;
        // Before sled, which overwrites what lies behind the place where it stops reading.
        let durable = durable::read(folder.dir(), uuid)?;
        let last_seq = log::last_seq(&file, folder.snapshot()?)
            .map_err(folder.error("read", folder::DB))?
            .ok_or_else(|| damaged("its log holds no batch"))?;
        check_end(last_seq, durable)?;
        folder.remove_unfinished_snapshots()?;
        let db = open_engine(&folder, cache_bytes)?;
        // What a killed process had written and not synced is part of the recovered state, which others will rely on.
        file.sync_all().map_err(folder.error("fsync", folder::DB))?;
        // sled renames a fresh snapshot into place and leaves the folder unsynced.
        folder.sync()?;
        let value = guard::catch("reading the meta record", || db.get(META_KEY))?
            .map_err(|error| engine_error(&folder, error))?
            .ok_or_else(|| damaged("the meta record is missing"))?;
        let (found_uuid, meta) = MetaRecord::decode(&value)?;
        if found_uuid != uuid {
            return Err(damaged(
                "its files are of two stores: `format` and `db` name different ids",
            ));
        }
        check_end(meta.last_seq, durable)?;
        let durable = Durable::open(&folder, uuid)?;
        durable.write(meta.last_seq);
        Ok(Self::new(folder, db, file, durable, uuid, meta))
    }

    fn new(
        folder: Folder,
        db: ::sled::Db,
        file: File,
        durable: Durable,
        uuid: [u8; 16],
        meta: MetaRecord,
    ) -> Self {
        let writer = Writer {
            meta,
            live: None,
            tidy: Tidy::default(),
            scratch: Vec::with_capacity(VALUE_BYTES_MAX),
        };
        Self {
            db,
            file,
            durable,
            last_seq: AtomicU64::new(meta.last_seq.0),
            writer: Mutex::new(writer),
            poisoned: AtomicBool::new(false),
            epoch: AtomicU32::new(meta.counters.epoch.0),
            uuid,
            folder,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no holder of the lock panics")
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    fn check_poison(&self) -> Result<(), StoreError> {
        match self.poisoned.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(StoreError::Poisoned),
        }
    }

    fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }

    fn write(&self, writer: &mut Writer, batch: &Batch) -> Result<IndexSize, ::sled::Error> {
        let Writer {
            meta,
            live,
            tidy,
            scratch,
        } = writer;
        let live = live.as_mut().expect("a store is recovered before it is written");
        self.make_slots(meta, batch)?;
        let mut unit = ::sled::Batch::default();
        let facts = encode_facts(&batch.facts);
        let size = index_size(facts.len());
        for (part, payload) in (0..).zip(facts.chunks(PART_BYTES_MAX)) {
            frame::seal(scratch, Kind::Index, part, batch.seq.0, payload);
            unit.insert(&index_key(batch.seq, part), scratch.as_slice());
        }
        for write in &batch.chunks {
            frame::seal(scratch, Kind::Body, 0, write.place.chunk.0, &write.payload);
            unit.insert(&body_key(write.place.slot), scratch.as_slice());
        }
        for seq in &batch.drop {
            for part in 0..live.drop_oldest(*seq) {
                unit.remove(&index_key(*seq, part));
            }
        }
        live.push(batch.seq, size.parts);
        let kept = batch.slot_count.saturating_add(SLOTS_AHEAD_COUNT);
        let removed = meta.slots_made.saturating_sub(kept).min(SLOTS_REMOVED_COUNT_MAX);
        for slot in meta.slots_made - removed..meta.slots_made {
            // Emptied first: sled writes a leaf anew after ten changes, and what was removed since stays in the file. So
            // the last changes of a leaf must be those that leave next to nothing behind.
            self.db.insert(body_key(SlotNo(slot)), &[])?;
            unit.remove(&body_key(SlotNo(slot)));
        }
        if removed > 0 {
            tidy.wake();
        }
        *meta = MetaRecord {
            last_seq: batch.seq,
            counters: batch.meta,
            slot_count: batch.slot_count,
            slots_made: meta.slots_made - removed,
            index_key_count: live.key_count(),
            index_key_sum: live.key_sum(),
        };
        meta.encode(self.uuid, scratch);
        unit.insert(&META_KEY, scratch.as_slice());
        self.db.apply_batch(unit)?;
        Ok(size)
    }

    /// Writes what means nothing, so that sled writes something else anew; see `tidy`.
    fn stir(&self, writer: &mut Writer, step: Step) -> Result<(), ::sled::Error> {
        let mut unit = ::sled::Batch::default();
        match step {
            Step::Fence(turn) => {
                for number in 0..FENCE_COUNT {
                    unit.insert(&[META_FENCE, number], &[turn]);
                }
            }
            Step::Fill(turn) => {
                let unused = tidy::unused_slots(writer.meta.slot_count, writer.meta.slots_made);
                for slot in unused {
                    // No chunk has the number 0.
                    frame::seal(&mut writer.scratch, Kind::Body, 0, 0, &[turn; CHUNK_BYTES_MAX]);
                    unit.insert(&body_key(slot), writer.scratch.as_slice());
                }
            }
        }
        self.db.apply_batch(unit)
    }

    /// Reads the index chunks of a range of keys, none behind a batch, and looks that each is whole.
    fn scan_index<K: AsRef<[u8]>>(
        &self,
        keys: Range<K>,
        last: Seq,
        mut take: impl FnMut(IndexChunk) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut items = self.db.range(keys);
        let mut chunk: Option<(Seq, u16, Vec<u8>)> = None;
        let mut close = |(seq, parts, bytes): (Seq, u16, Vec<u8>)| -> Result<_, StoreError> {
            let facts = decode_facts(&bytes).map_err(|error| StoreError::undecodable(seq, &error))?;
            let size = IndexSize {
                parts,
                ..index_size(bytes.len())
            };
            Ok(take(IndexChunk { seq, facts, size }))
        };
        while let Some(item) = guard::catch("reading the index", || items.next())? {
            let (key, value) = item.map_err(|error| engine_error(&self.folder, error))?;
            let (seq, part) = parse_index_key(&key).ok_or_else(|| damaged("an index key does not parse"))?;
            let name = || format!("part {part} of index chunk {seq}");
            let frame = frame::open(&value, Kind::Index).map_err(|error| frame_error(&name(), error))?;
            if (frame.number, frame.part) != (seq.0, part) || seq > last {
                return Err(damaged(format!("{} is out of place", name())));
            }
            match &mut chunk {
                Some((last, parts, bytes)) if *last == seq && *parts == part => {
                    *parts += 1;
                    bytes.extend_from_slice(frame.payload);
                }
                _ if part == 0 => {
                    if let Some(whole) = chunk.replace((seq, 1, frame.payload.to_vec()))
                        && close(whole)?.is_break()
                    {
                        return Ok(());
                    }
                }
                _ => return Err(damaged(format!("the part before {} is missing", name()))),
            }
        }
        if let Some(whole) = chunk {
            // Whether it was the last one wanted does not matter: it is the last.
            let _ = close(whole)?;
        }
        Ok(())
    }

    /// A `Batch` of sled is applied in no order, and ascending inserts leave emptier leaves: half the rewriting later.
    fn make_slots(&self, meta: &mut MetaRecord, batch: &Batch) -> Result<(), ::sled::Error> {
        let needed = batch
            .chunks
            .iter()
            .map(|write| write.place.slot.0 + 1)
            .max()
            .unwrap_or(0);
        if needed > meta.slots_made {
            for slot in meta.slots_made..needed + SLOTS_AHEAD_COUNT {
                self.db.insert(body_key(SlotNo(slot)), &[])?;
            }
            meta.slots_made = needed + SLOTS_AHEAD_COUNT;
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        let writer = &mut *self.lock();
        let mut live = LiveIndex::default();
        let last = writer.meta.last_seq;
        self.scan_index(&[INDEX_RANGE]..&[INDEX_RANGE + 1], last, |chunk| {
            live.push(chunk.seq, chunk.size.parts);
            visit(chunk);
            ControlFlow::Continue(())
        })?;
        let meta = writer.meta;
        if (live.key_count(), live.key_sum()) != (meta.index_key_count, meta.index_key_sum) {
            return Err(damaged(format!(
                "the index has {} parts where the meta record of batch {} counts {}, or others",
                live.key_count(),
                meta.last_seq,
                meta.index_key_count
            )));
        }
        writer.live = Some(live);
        writer.tidy.wake();
        Ok(Recovered {
            last_seq: meta.last_seq,
            meta: meta.counters,
            slot_count: meta.slot_count,
            uuid: self.uuid,
        })
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        let mut chunks = Vec::new();
        let mut bytes = 0;
        let keys = index_key(from, 0)..index_key(Seq(to.0 + 1), 0);
        self.scan_index(&keys.start..&keys.end, to, |chunk| {
            bytes += chunk.size.bytes as usize;
            chunks.push(chunk);
            match bytes < bytes_min {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(chunks)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        self.check_poison()?;
        let writer = &mut *self.lock();
        check_batch(batch, writer.meta.last_seq);
        let size = self.write(writer, batch).map_err(|error| {
            self.poison();
            StoreError::Append {
                seq: batch.seq,
                source: io_error(error),
            }
        })?;
        self.last_seq.store(batch.seq.0, Ordering::SeqCst);
        self.epoch.store(batch.meta.epoch.0, Ordering::Relaxed);
        Ok(size)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.check_poison()?;
        // Only this thread appends, so what is flushed now is at least this.
        let seq = Seq(self.last_seq.load(Ordering::SeqCst));
        let written = self.db.flush().map_err(io_error);
        written.and_then(|_| self.file.sync_data()).map_err(|source| {
            self.poison();
            StoreError::Flush { source }
        })?;
        self.durable.write(seq);
        Ok(())
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        let key = body_key(place.slot);
        let value = guard::catch("reading a body", || self.db.get(key))?
            .map_err(|error| engine_error(&self.folder, error))?;
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Err(StoreError::Gone(place));
        };
        let frame = frame::open(&value, Kind::Body)
            .map_err(|error| frame_error(&format!("body slot {}", place.slot), error))?;
        if frame.number != place.chunk.0 {
            return Err(StoreError::Gone(place));
        }
        // A copy: the value may be a slice of a whole leaf, and the payload may be kept for long.
        Ok(Bytes::copy_from_slice(frame.payload))
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.check_poison()?;
        let writer = &mut *self.lock();
        for _ in 0..STIR_COUNT {
            let Some(step) = writer.tidy.next(self.file_bytes(), writer.meta.slots_made) else {
                return Ok(false);
            };
            self.stir(writer, step).map_err(|error| {
                self.poison();
                StoreError::Flush {
                    source: io_error(error),
                }
            })?;
            self.flush()?;
            if matches!(step, Step::Fill(_)) {
                break;
            }
        }
        Ok(true)
    }

    fn stats(&self) -> StoreStats {
        StoreStats {
            file_bytes: self.file_bytes(),
            epoch: Epoch(self.epoch.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.check_poison().is_err() {
            // When its last handle goes, sled writes what it has and syncs: never after a failure.
            std::mem::forget(self.db.clone());
        }
    }
}

/// Refuses a log that ends before what was made durable.
fn check_end(last: Seq, durable: Option<Seq>) -> Result<(), StoreError> {
    match durable.filter(|seq| *seq > last) {
        None => Ok(()),
        Some(seq) => Err(damaged(format!(
            "its log ends with batch {last}, and batch {seq} had been made durable"
        ))),
    }
}

fn open_engine(folder: &Folder, cache_bytes: u64) -> Result<::sled::Db, StoreError> {
    let config = ::sled::Config::new()
        .path(folder.dir())
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None);
    let mut tries_left = ENGINE_LOCK_TRIES;
    loop {
        tries_left -= 1;
        match guard::catch("opening it", || config.open())? {
            Ok(db) => return Ok(db),
            Err(error) if tries_left > 0 && error.to_string().contains(ENGINE_LOCK_ERROR) => {
                std::thread::park_timeout(ENGINE_LOCK_PAUSE);
            }
            Err(error) => return Err(engine_error(folder, error)),
        }
    }
}

/// The fences and the first meta record.
fn fill_new(db: &::sled::Db, meta: &MetaRecord, uuid: [u8; 16]) -> Result<(), ::sled::Error> {
    for range in [META_FENCE, INDEX_FENCE] {
        for number in 0..FENCE_COUNT {
            db.insert([range, number], &[])?;
        }
    }
    let mut record = Vec::new();
    meta.encode(uuid, &mut record);
    db.insert(META_KEY, record)?;
    db.flush()?;
    Ok(())
}

fn index_key(seq: Seq, part: u16) -> [u8; INDEX_KEY_LEN] {
    let mut key = [INDEX_RANGE; INDEX_KEY_LEN];
    let (_, rest) = key.split_at_mut(1);
    let (number, rest) = rest.split_at_mut(8);
    number.copy_from_slice(&seq.0.to_be_bytes());
    rest.copy_from_slice(&part.to_be_bytes());
    key
}

fn parse_index_key(key: &[u8]) -> Option<(Seq, u16)> {
    let mut key = Fields(<&[u8; INDEX_KEY_LEN]>::try_from(key).ok()?);
    let [_range] = key.take();
    Some((
        Seq(u64::from_be_bytes(key.take())),
        u16::from_be_bytes(key.take()),
    ))
}

fn body_key(slot: SlotNo) -> [u8; 5] {
    let [a, b, c, d] = slot.0.to_be_bytes();
    [BODY_RANGE, a, b, c, d]
}

fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: what.into() }
}

fn frame_error(name: &str, error: FrameError) -> StoreError {
    match error {
        FrameError::Broken(how) => damaged(format!("{name} {how}")),
        FrameError::Newer(found) => StoreError::NewerFormat {
            found,
            known: FORMAT_VERSION,
        },
    }
}

fn engine_error(folder: &Folder, error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(_) => folder.error("access", folder::DB)(io_error(error)),
        ::sled::Error::Corruption { at, .. } => damaged(corruption(at)),
        other => damaged(format!("the engine says: {other}")),
    }
}

/// What the engine says where a page of its own is damaged, without what only its authors can use.
fn corruption(at: Option<::sled::DiskPtr>) -> String {
    match at {
        Some(at) => format!("the engine finds damage at byte {} of its file", at.lid()),
        None => "the engine finds damage in its file".to_owned(),
    }
}

/// An error of the engine, as the system told it.
fn io_error(error: ::sled::Error) -> io::Error {
    match error {
        // Of the first error the engine keeps no more than its debug form, and gives that out from then on.
        ::sled::Error::Io(source) => source
            .to_string()
            .strip_prefix("Os { code: ")
            .and_then(|rest| rest.split(',').next())
            .and_then(|code| code.parse().ok())
            .map_or(source, io::Error::from_raw_os_error),
        ::sled::Error::Corruption { at, .. } => io::Error::new(io::ErrorKind::InvalidData, corruption(at)),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(in crate::store) use tests::copy_folder;
