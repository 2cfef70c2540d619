//! What can be saved of a store that does not open: every value of ours that is whole in the file `db`, read without
//! sled, and of those the ones that say what is stored.
//!
//! A value is found by its own frame, so that damage to sled's pages loses none. What the file cannot tell is which
//! values were replaced or removed: it keeps their bytes for a while. That is found out here, from the meta record: it
//! has the number of the live index keys and a sum of their hashes, they are dropped oldest first only, and a slot is
//! overwritten only when nothing in it is live.
//!
//! # Invariants
//! - Nothing in the folder is changed but the lock file, which is made where it is missing.
//! - Nothing is given out whose checksum was not verified, and no body under another chunk number than its own.
//! - A value in a damaged part of the file, where it may have been planted in the body of a message, never counts
//!   against one in a part that is whole, and only where one is missing.
//! - Within the extent of a body chunk that is broken nothing is taken for a value that the chunk may have held: only where
//!   the same chunk is whole elsewhere, and holds something else there. Then it is the chunk's head that is out of place.
//!
//! # Not here
//! What is done with it: `repair` and `inspect` of the command line.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::folder::{self, Folder, State};
use super::live::{hash, unhash};
use super::log::{self, FoundFrame, Seen, Segment};
use super::meta::MetaRecord;
use super::{SEGMENT_BYTES, VALUE_BYTES_MAX, damaged, durable, frame_error};
use crate::base::{ChunkNo, ChunkRef, Seq, SlotNo};
use crate::journal::{Enqueued, Fact, IndexChunk, Meta, Place, Recovered, decode_facts};
use crate::store::frame::{self, HEAD_BYTES, Kind};
use crate::store::{StoreError, index_size};

/// Batches without facts, which have no index chunk, looked past before the rest is taken for unknown.
const GAP_COUNT_MAX: u64 = 100_000;

/// A part of an index chunk.
type IndexKey = (Seq, u16);

/// See the module's text.
#[derive(Debug)]
pub struct Salvage {
    file: File,
    index: BTreeMap<IndexKey, Value>,
    bodies: HashMap<ChunkNo, Value>,
    uuid: [u8; 16],
    meta: MetaRecord,
    /// The oldest index chunk that says anything.
    first: Seq,
    loss: Loss,
    _folder: Option<Folder>,
}

/// What is known to be gone of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// Batches whose facts are gone, ascending.
    pub batches: Vec<Seq>,
    /// So many more index parts, of which it is not known to which batches they belong; and what was dropped before cannot
    /// be told for sure from what was not.
    pub unknown_part_count: u64,
    /// The end of the log is gone: the last batch found, and the last one known to be durable.
    pub end: Option<(Seq, Seq)>,
}

impl Loss {
    /// The batches before this one may have been settled, in part, by what is gone. `Seq(0)` where nothing is.
    pub fn doubt_before(&self, last: Seq) -> Seq {
        match (self.unknown_part_count, self.end) {
            (0, None) => self.batches.last().copied().unwrap_or(Seq(0)),
            _ => Seq(last.0 + 1),
        }
    }
}

/// A frame in the file.
#[derive(Debug, Clone, Copy)]
struct Value {
    at: u64,
    len: usize,
    /// Where in the log; `None` in a part of the file that is damaged, or no longer used.
    lsn: Option<u64>,
}

/// All that was found, before it is known what of it counts.
#[derive(Debug, Default)]
struct Found {
    index: BTreeMap<IndexKey, Value>,
    doubtful: BTreeMap<IndexKey, Value>,
    bodies: HashMap<ChunkNo, Value>,
    meta: Option<(bool, [u8; 16], MetaRecord)>,
    /// Parts of the file that are damaged, or no longer used.
    damaged: Vec<Range<u64>>,
}

impl Found {
    fn see(&mut self, found: &FoundFrame<'_>, at: u64, lsn: Option<u64>) {
        let value = Value {
            at,
            len: found.len,
            lsn,
        };
        let frame = &found.frame;
        // What was written later counts: after a crash a batch may have had the number of one that was lost.
        let newer = |old: &Value| lsn > old.lsn;
        if frame.kind == Kind::Index as u8 {
            let index = match lsn {
                Some(_) => &mut self.index,
                None => &mut self.doubtful,
            };
            let old = index.entry((Seq(frame.number), frame.part)).or_insert(value);
            if newer(old) {
                *old = value;
            }
        } else if frame.kind == Kind::Body as u8 {
            let old = self.bodies.entry(ChunkNo(frame.number)).or_insert(value);
            if newer(old) {
                *old = value;
            }
        } else if frame.kind == Kind::Meta as u8
            && let Ok((uuid, meta)) = MetaRecord::of_frame(frame)
        {
            let rank = |whole: bool, meta: &MetaRecord| (whole, meta.counters.epoch, meta.last_seq);
            let new = (lsn.is_some(), uuid, meta);
            if self
                .meta
                .is_none_or(|old| rank(old.0, &old.2) < rank(new.0, &new.2))
            {
                self.meta = Some(new);
            }
        }
    }

    fn see_segment(&mut self, segment: &Segment) {
        let part = |from: usize, to: usize| segment.base + from as u64..segment.base + to as u64;
        let mut messages = segment.messages();
        for message in messages.by_ref() {
            let Range { start, end } = message.payload;
            match segment.head.filter(|_| message.whole) {
                Some(head) => {
                    for found in log::frames(segment.bytes.get(start..end).unwrap_or_default()) {
                        let at = (start + found.at) as u64;
                        self.see(&found, segment.base + at, Some(head.lsn + at));
                    }
                }
                None => self.damaged.push(part(start, end)),
            }
        }
        self.damaged.push(part(messages.at, segment.bytes.len()));
    }

    /// Looks into the damaged parts, when all that is whole is known.
    fn see_damaged(&mut self, file: &File) -> io::Result<()> {
        let parts = std::mem::take(&mut self.damaged);
        let read = |part: &Range<u64>| {
            let mut bytes = vec![0; (part.end - part.start) as usize];
            file.read_exact_at(&mut bytes, part.start).map(|()| bytes)
        };
        let mut chunks: HashMap<ChunkNo, Range<u64>> = HashMap::new();
        for (chunk, value) in &self.bodies {
            chunks.insert(*chunk, value.at..value.at + value.len as u64);
        }
        for part in &parts {
            for found in log::frames(&read(part)?).filter(|found| found.frame.kind == Kind::Body as u8) {
                let at = part.start + found.at as u64;
                let place = at..at + found.len as u64;
                chunks.entry(ChunkNo(found.frame.number)).or_insert(place);
            }
        }
        let whole = |chunk: ChunkNo| chunks.get(&chunk).map(&read).transpose();
        for part in parts {
            let bytes = read(&part)?;
            let mut from = 0;
            while let Some(rest) = bytes.get(from..)
                && let Some(seen) = log::seen(rest).next()
            {
                match seen {
                    Seen::Frame(found) => {
                        from += found.at;
                        self.see(&found, part.start + from as u64, None);
                        from += found.len;
                    }
                    Seen::Broken { at, len } => {
                        let stranger = stranger(rest.get(at..).unwrap_or_default(), len, whole)?;
                        from += at + stranger.unwrap_or(len);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where in the extent of a broken chunk, which these bytes begin with, the first value is that the chunk did not hold: its
/// head is out of place then, as where a page was written to a wrong place. Only where the same chunk is whole can it
/// be told.
fn stranger(
    bytes: &[u8],
    len: usize,
    whole: impl Fn(ChunkNo) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Option<usize>> {
    let Some(chunk) = frame::body_number(bytes).map(ChunkNo) else {
        return Ok(None);
    };
    let reach = bytes.get(..len + VALUE_BYTES_MAX).unwrap_or(bytes);
    let behind: Vec<(Range<usize>, bool)> = log::frames(reach.get(HEAD_BYTES..).unwrap_or_default())
        .map(|found| {
            let at = HEAD_BYTES + found.at;
            let (kind, number) = (found.frame.kind, found.frame.number);
            let is_same = kind == Kind::Body as u8 && number == chunk.0 && found.len == len;
            (at..at + found.len, is_same)
        })
        .take_while(|(place, _)| place.start < len)
        .collect();
    if behind.is_empty() {
        return Ok(None);
    }
    let whole = match whole(chunk)? {
        Some(whole) => whole,
        // As long as the chunk and behind its beginning: it cannot have been held by it.
        None => match behind.iter().find(|(_, is_same)| *is_same) {
            Some((place, _)) => bytes.get(place.clone()).unwrap_or_default().to_vec(),
            None => return Ok(None),
        },
    };
    let is_strange = |(place, _): &&(Range<usize>, bool)| {
        let within = place.start..place.end.min(len);
        whole.get(within.clone()) != bytes.get(within)
    };
    let strange = behind.iter().find(is_strange);
    Ok(strange
        .filter(|_| whole.len() == len)
        .map(|(place, _)| place.start))
}

impl Salvage {
    /// Reads the whole file `db` of a folder that no broker uses.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        folder::check_exists(dir)?;
        // Where the lock file cannot be opened, no broker could have it either.
        let folder = match Folder::take(dir) {
            Err(error @ StoreError::InUse(_)) => return Err(error),
            taken => taken.ok(),
        };
        let named = match folder.as_ref().map(Folder::state) {
            Some(Err(error @ StoreError::NewerFormat { .. })) => return Err(error),
            Some(Ok(State::Complete(uuid) | State::Older(uuid))) => Some(uuid),
            _ => None,
        };
        let path = dir.join(folder::DB);
        let read_error = |operation| folder::error(operation, &path);
        let file = File::open(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => folder::db_missing(),
            _ => read_error("open")(source),
        })?;
        let file_bytes = file.metadata().map_err(read_error("read"))?.len();
        let mut found = Found::default();
        for base in (0..file_bytes).step_by(SEGMENT_BYTES) {
            found.see_segment(&Segment::read(&file, base).map_err(read_error("read"))?);
        }
        found.see_damaged(&file).map_err(read_error("read"))?;
        let Found {
            mut index,
            doubtful,
            bodies,
            meta,
            ..
        } = found;
        let (uuid, meta) = match (meta, named) {
            (Some((_, uuid, meta)), _) => (uuid, meta),
            (None, Some(uuid)) => (uuid, MetaRecord::default()),
            (None, None) => return Err(damaged("neither `db` nor `format` says which store this is")),
        };
        let witness = durable::read(dir, uuid).ok().flatten();
        // Two of three say which store it is, where one was changed.
        if named.is_some_and(|named| named != uuid) && witness.is_none() {
            return Err(damaged(
                "its files are of two stores: `format` and `db` name different ids",
            ));
        }
        let whole = live(&meta, index.keys().copied());
        let lost_end = witness.is_some_and(|seq| seq > meta.last_seq);
        if whole.1 != Missing::Keys(Vec::new()) || lost_end {
            for (key, value) in doubtful {
                index.entry(key).or_insert(value);
            }
        }
        let (first, missing) = live(&meta, index.keys().copied());
        let mut loss = Loss::default();
        match missing {
            Missing::Keys(keys) => {
                loss.batches = keys.into_iter().map(|(seq, _)| seq).collect();
                loss.batches.dedup();
            }
            Missing::Unknown(count) => loss.unknown_part_count = count.max(1),
        }
        let mut salvage = Self {
            file,
            index,
            bodies,
            uuid,
            meta,
            first,
            loss,
            _folder: folder,
        };
        salvage.find_broken_batches()?;
        let last = salvage.last_seq();
        // Behind the last meta record that is whole nothing says which batches had facts.
        let behind = (salvage.meta.last_seq.0 + 1..last.0).map(Seq);
        let empty = |seq: &Seq| salvage.index.range((*seq, 0)..=(*seq, u16::MAX)).next().is_none();
        let lost: Vec<Seq> = behind.filter(empty).collect();
        salvage.loss.batches.extend(lost);
        salvage.loss.end = witness.filter(|seq| *seq > last).map(|seq| (last, seq));
        Ok(salvage)
    }

    /// What is gone of the index.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }

    /// Hands over every index chunk that is whole, in the order of Seq, without what is proven to be settled.
    pub fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        let mut newest: HashMap<SlotNo, ChunkNo> = HashMap::new();
        self.each_batch(&mut |_, facts, _| {
            for place in facts.iter().flat_map(chunks_of) {
                let chunk = newest.entry(place.slot).or_insert(place.chunk);
                *chunk = place.chunk.max(*chunk);
            }
        })?;
        // A slot is overwritten only when nothing in it is live: what a fact says of an older chunk in it was settled.
        let current = |place: ChunkRef| newest.get(&place.slot) == Some(&place.chunk);
        let mut epoch = self.meta.counters.epoch;
        self.each_batch(&mut |seq, mut facts, len| {
            facts.retain(|fact| chunks_of(fact).all(current));
            for fact in &facts {
                match fact {
                    Fact::Enqueued(Enqueued { first_message, .. }) => {
                        epoch = epoch.max(first_message.parts().0);
                    }
                    Fact::Watched { epoch: watched, .. } => epoch = epoch.max(*watched),
                    _ => {}
                }
            }
            let size = index_size(len);
            visit(IndexChunk { seq, facts, size });
        })?;
        let slot_count = newest.keys().map(|slot| slot.0 + 1).max().unwrap_or(0);
        Ok(Recovered {
            last_seq: self.last_seq(),
            meta: Meta {
                epoch,
                ..self.meta.counters
            },
            slot_count: slot_count.max(self.meta.slot_count),
            uuid: self.uuid,
        })
    }

    /// The payload of a body chunk, its checksum verified.
    pub fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        let value = self
            .bodies
            .get(&place.chunk)
            .ok_or_else(|| damaged(format!("body chunk {} is gone", place.chunk)))?;
        self.payload(value, Kind::Body, &format!("body chunk {}", place.chunk))
    }

    fn last_seq(&self) -> Seq {
        let last = self.index.last_key_value().map(|((seq, _), _)| *seq);
        last.unwrap_or_default().max(self.meta.last_seq)
    }

    /// Batches of which a part is missing, or that do not decode, are gone as a whole.
    fn find_broken_batches(&mut self) -> Result<(), StoreError> {
        let mut broken = Vec::new();
        for (seq, parts) in self.batches() {
            let whole = parts
                .keys()
                .copied()
                .eq(0..u16::try_from(parts.len()).unwrap_or(u16::MAX));
            if !whole || self.facts(seq, &parts)?.is_none() {
                broken.push(seq);
            }
        }
        self.loss.batches.extend(broken);
        self.loss.batches.sort_unstable();
        self.loss.batches.dedup();
        Ok(())
    }

    /// The index chunks that count, with their parts.
    fn batches(&self) -> BTreeMap<Seq, BTreeMap<u16, Value>> {
        let mut batches: BTreeMap<Seq, BTreeMap<u16, Value>> = BTreeMap::new();
        for ((seq, part), value) in self.index.range((self.first, 0)..) {
            batches.entry(*seq).or_default().insert(*part, *value);
        }
        batches
    }

    fn each_batch(&self, visit: &mut dyn FnMut(Seq, Vec<Fact>, usize)) -> Result<(), StoreError> {
        for (seq, parts) in self.batches() {
            if self.loss.batches.binary_search(&seq).is_err()
                && let Some((facts, len)) = self.facts(seq, &parts)?
            {
                visit(seq, facts, len);
            }
        }
        Ok(())
    }

    /// The facts of a batch and how many bytes they were; `None` where they do not decode.
    fn facts(
        &self,
        seq: Seq,
        parts: &BTreeMap<u16, Value>,
    ) -> Result<Option<(Vec<Fact>, usize)>, StoreError> {
        let mut bytes = Vec::new();
        for value in parts.values() {
            bytes.extend_from_slice(&self.payload(value, Kind::Index, "an index part")?);
        }
        match decode_facts(&bytes).map_err(|error| StoreError::undecodable(seq, &error)) {
            Ok(facts) => Ok(Some((facts, bytes.len()))),
            Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn payload(&self, value: &Value, kind: Kind, name: &str) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; value.len];
        let read = self.file.read_exact_at(&mut bytes, value.at);
        read.map_err(|source| damaged(format!("{name} cannot be read: {source}")))?;
        let frame = frame::open(&bytes, kind).map_err(|error| frame_error(name, error))?;
        Ok(Bytes::copy_from_slice(frame.payload))
    }
}

fn chunks_of(fact: &Fact) -> impl Iterator<Item = ChunkRef> {
    let (one, many): (_, &[ChunkRef]) = match fact {
        Fact::Enqueued(Enqueued { place, .. }) => match place {
            Place::Chunk { chunk, .. } => (Some(*chunk), &[]),
            Place::Extent(chunks) => (None, chunks),
        },
        _ => (None, &[]),
    };
    one.into_iter().chain(many.iter().copied())
}

/// Index keys that were live and are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    /// These, ascending.
    Keys(Vec<IndexKey>),
    /// At least so many, and from where on keys are live is not sure.
    Unknown(u64),
}

/// Which of the keys found were live when the meta record was written: from which Seq on, and what is missing. Live are
/// all from some Seq on; their number and the sum of their hashes are known. Three guesses are proven by the sum: that
/// nothing is missing, that every number without a key is, and that just one key is.
fn live(meta: &MetaRecord, keys: impl Iterator<Item = IndexKey>) -> (Seq, Missing) {
    let mut found: BTreeMap<Seq, Vec<u16>> = BTreeMap::new();
    for (seq, part) in keys.filter(|(seq, _)| *seq <= meta.last_seq) {
        found.entry(seq).or_default().push(part);
    }
    let expected = (meta.index_key_count, meta.index_key_sum);
    if meta.last_seq == Seq(0) {
        return (Seq(0), Missing::Unknown(0));
    }
    if expected.0 == 0 {
        return (Seq(meta.last_seq.0 + 1), Missing::Keys(Vec::new()));
    }
    let (mut count, mut sum) = (0, 0_u64);
    let (mut gaps, mut gap_sum): (Vec<IndexKey>, u64) = (Vec::new(), 0);
    // Where nothing is proven: as far back as the number reaches.
    let (mut first, mut first_count) = (Seq(meta.last_seq.0 + 1), 0);
    for seq in (0..=meta.last_seq.0).rev().map(Seq) {
        let parts = found.get(&seq).map(Vec::as_slice).unwrap_or_default();
        let gaps_before = gaps.len();
        match parts.last() {
            None => gaps.push((seq, 0)),
            Some(last) => gaps.extend(
                (0..*last)
                    .filter(|part| !parts.contains(part))
                    .map(|part| (seq, part)),
            ),
        }
        for (seq, part) in gaps.get(gaps_before..).unwrap_or_default() {
            gap_sum = gap_sum.wrapping_add(hash(*seq, *part));
        }
        count += parts.len() as u64;
        sum = parts
            .iter()
            .fold(sum, |sum, part| sum.wrapping_add(hash(seq, *part)));
        if count > expected.0 {
            break;
        }
        if !parts.is_empty() {
            (first, first_count) = (seq, count);
        }
        if (count, sum) == expected {
            return (seq, Missing::Keys(Vec::new()));
        }
        if (count + gaps.len() as u64, sum.wrapping_add(gap_sum)) == expected {
            gaps.sort_unstable();
            return (seq, Missing::Keys(gaps));
        }
        if count + 1 == expected.0 {
            let key = unhash(expected.1.wrapping_sub(sum));
            let fits = key.0 <= meta.last_seq && !found.get(&key.0).is_some_and(|of| of.contains(&key.1));
            // Whatever was found between would be live, too.
            if fits && (key.0 >= seq || found.range(key.0..seq).next().is_none()) {
                return (key.0.min(seq), Missing::Keys(vec![key]));
            }
        }
        if gaps.len() as u64 > expected.0 - count + GAP_COUNT_MAX {
            break;
        }
    }
    (first, Missing::Unknown(expected.0.saturating_sub(first_count)))
}

#[cfg(test)]
mod tests;
