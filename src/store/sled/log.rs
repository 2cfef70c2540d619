//! sled's file `db`, read as sled 0.34.7 wrote it and without sled: nothing is changed by it, nothing panics, and no length is
//! believed before its checksum.
//!
//! ```text
//! segment  2 MiB: CRC32 of what follows, inverted (u32); LSN xor 2^63-1 (i64); stable LSN xor 2^63-1 (i64); messages
//! message  CRC32 of payload and what follows, inverted (u32); kind (u8); length, segment number, page (sled's varints); payload
//! ```
//! Numbers are little endian. An LSN is a place in the log as it was written: segment number times 2 MiB, and the place in
//! the segment. Segments lie in the file in any order, and those freed keep what they held until they are used again.
//!
//! # Not here
//! Pages and the tree. Values are found by the magic number of their own frames.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::memmem;

use super::{SEGMENT_BYTES, VALUE_BYTES_MAX};
use crate::base::Seq;
use crate::store::frame::{self, Fields, Frame, HEAD_BYTES, Kind};

const SEGMENT_HEAD_BYTES: usize = 20;
const XOR: u64 = i64::MAX as u64;

/// No message begins so near to the end of a segment.
const MESSAGE_HEAD_BYTES_MAX: usize = 32;

const CAP: u8 = 2;
const BATCH: u8 = 3;
const KIND_MAX: u8 = 11;

/// One segment of the file.
#[derive(Debug)]
pub(super) struct Segment {
    /// Where in the file it begins.
    pub(super) base: u64,
    pub(super) bytes: Vec<u8>,
    /// `None` where its head is damaged, or was never written.
    pub(super) head: Option<SegmentHead>,
}

/// What the head of a segment says.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentHead {
    pub(super) lsn: u64,
    /// Everything before this was written when the segment was begun.
    stable: u64,
}

/// One message of a segment.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    pub(super) payload: Range<usize>,
    /// Its checksum fits.
    pub(super) whole: bool,
}

/// A frame of ours, and where it begins in the bytes that were searched.
#[derive(Debug)]
pub(super) struct FoundFrame<'a> {
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) frame: Frame<'a>,
}

impl Segment {
    /// Reads the segment that begins there; a shorter one at the end of the file.
    pub(super) fn read(file: &File, base: u64) -> io::Result<Self> {
        let mut bytes = vec![0; SEGMENT_BYTES];
        let len = read_at(file, &mut bytes, base)?;
        bytes.truncate(len);
        let head = SegmentHead::parse(&bytes);
        Ok(Self { base, bytes, head })
    }

    /// The messages from the first on, up to where none follows.
    pub(super) fn messages(&self) -> Messages<'_> {
        Messages {
            bytes: &self.bytes,
            at: SEGMENT_HEAD_BYTES,
            number: self.head.map(|head| head.lsn / SEGMENT_BYTES as u64),
        }
    }
}

impl SegmentHead {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(..SEGMENT_HEAD_BYTES)?);
        let checksum = !u32::from_le_bytes(fields.take());
        let fits = crc32fast::hash(fields.0) == checksum;
        let mut number = || u64::from_le_bytes(fields.take()) ^ XOR;
        let (lsn, stable) = (number(), number());
        // sled writes -1 for a stable LSN while there is none.
        let stable = if stable > XOR { 0 } else { stable };
        (fits && lsn.is_multiple_of(SEGMENT_BYTES as u64)).then_some(Self { lsn, stable })
    }
}

/// See [`Segment::messages`]. Where it ends, [`Messages::at`] says from where on nothing is known.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    number: Option<u64>,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        if self.at + MESSAGE_HEAD_BYTES_MAX > SEGMENT_BYTES {
            return None;
        }
        let bytes = self.bytes.get(self.at..)?;
        let mut rest = bytes;
        let (checksum, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        let (&kind, after) = rest.split_first()?;
        rest = after;
        let len = usize::try_from(varint(&mut rest)?).ok()?;
        let number = varint(&mut rest)?;
        varint(&mut rest)?;
        if !(1..=KIND_MAX).contains(&kind) || Some(number) != self.number {
            return None;
        }
        let head_len = bytes.len() - rest.len();
        let payload = rest.get(..len)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(payload);
        hasher.update(bytes.get(checksum.len()..head_len)?);
        let begin = self.at + head_len;
        self.at = begin + len;
        Some(Message {
            kind,
            payload: begin..self.at,
            whole: !hasher.finalize() == u32::from_le_bytes(*checksum),
        })
    }
}

const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX - HEAD_BYTES;

/// What begins like a frame of ours.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    Frame(FoundFrame<'a>),
    /// One whose checksum does not fit: where its head is, and how long it says that it is.
    Broken {
        at: usize,
        len: usize,
    },
}

/// The frames in a part of a segment, whole and broken. Within a frame that is whole, and within the extent of one that is
/// not, nothing is looked for: a message's body may hold whatever its sender likes.
pub(super) fn seen(bytes: &[u8]) -> impl Iterator<Item = Seen<'_>> {
    let finder = memmem::Finder::new(&frame::MAGIC);
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + finder.find(bytes.get(from..)?)?;
            let rest = bytes.get(at..)?;
            let told = frame::extent(rest, PAYLOAD_BYTES_MAX);
            if let Some(len) = told
                && let Ok(frame) = frame::open_any(rest.get(..len)?)
            {
                from = at + len;
                return Some(Seen::Frame(FoundFrame { at, len, frame }));
            }
            if let Some(len) = frame::mended_extent(rest, PAYLOAD_BYTES_MAX).or(told) {
                from = at + len;
                return Some(Seen::Broken { at, len });
            }
            from = at + frame::MAGIC.len();
        }
    })
}

/// Those of them that are whole.
pub(super) fn frames(bytes: &[u8]) -> impl Iterator<Item = FoundFrame<'_>> {
    seen(bytes).filter_map(|seen| match seen {
        Seen::Frame(found) => Some(found),
        Seen::Broken { .. } => None,
    })
}

/// The last batch in the log, as far as sled will follow it when it opens: what lies behind that, it overwrites. `None`
/// where there is no batch at all. `snapshot` is the LSN up to which sled's newest snapshot holds the log: the segments
/// before it may be gone.
pub(super) fn last_seq(file: &File, snapshot: u64) -> io::Result<Option<Seq>> {
    let file_bytes = file.metadata()?.len();
    let mut bases: BTreeMap<u64, u64> = BTreeMap::new();
    let mut stable = snapshot;
    for base in (0..file_bytes).step_by(SEGMENT_BYTES) {
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        let len = read_at(file, &mut bytes, base)?;
        if let Some(head) = SegmentHead::parse(bytes.get(..len).unwrap_or_default()) {
            stable = stable.max(head.stable);
            bases.insert(head.lsn, base);
        }
    }
    let tail = stable - stable % SEGMENT_BYTES as u64;
    let mut last = None;
    let mut batch = None;
    for lsn in (tail..).step_by(SEGMENT_BYTES) {
        let Some(&base) = bases.get(&lsn) else { break };
        let segment = Segment::read(file, base)?;
        if !follow(&segment, lsn, &mut last, &mut batch) {
            break;
        }
    }
    // No batch was written for long, but what means nothing was (`tidy`).
    for base in bases.range(..tail).rev().map(|(_, base)| *base) {
        if last.is_some() {
            break;
        }
        let segment = Segment::read(file, base)?;
        last = newest(segment.messages().take_while(|message| message.whole), &segment);
    }
    Ok(last)
}

/// Follows the log through one segment of its tail. Whether it goes on in the next one.
fn follow(
    segment: &Segment,
    lsn: u64,
    last: &mut Option<Seq>,
    batch: &mut Option<(u64, Option<Seq>)>,
) -> bool {
    let mut messages = segment.messages();
    for message in messages.by_ref() {
        if !message.whole {
            return false;
        }
        match message.kind {
            CAP => return true,
            // The LSN that must be in the log for what follows to count.
            BATCH => {
                let payload = segment.bytes.get(message.payload).unwrap_or_default();
                *batch = payload.first_chunk().map(|end| (u64::from_le_bytes(*end), None));
            }
            _ => {
                let end = lsn + message.payload.end as u64;
                let found = newest(std::iter::once(message), segment);
                match batch {
                    Some((needed, held)) => {
                        *held = found.max(*held);
                        if *needed < end {
                            *last = (*held).max(*last);
                            *batch = None;
                        }
                    }
                    None => *last = found.max(*last),
                }
            }
        }
    }
    messages.at + MESSAGE_HEAD_BYTES_MAX > SEGMENT_BYTES
}

/// The newest batch whose meta record is in these messages.
fn newest(messages: impl Iterator<Item = Message>, segment: &Segment) -> Option<Seq> {
    let payload = |message: Message| segment.bytes.get(message.payload).unwrap_or_default();
    let frames = messages.map(payload).flat_map(frames);
    let metas = frames.filter(|found| found.frame.kind == Kind::Meta as u8);
    metas.map(|found| Seq(found.frame.number)).max()
}

/// sled's numbers of variable length.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let (number, len) = match first {
        0..=240 => (u64::from(first), 0),
        241..=248 => (
            240 + 256 * (u64::from(first) - 241) + u64::from(*rest.first()?),
            1,
        ),
        249 => {
            let high = u64::from(*rest.first()?);
            (2_288 + 256 * high + u64::from(*rest.get(1)?), 2)
        }
        _ => {
            let len = usize::from(first) - 247;
            let mut word = [0; 8];
            word.get_mut(..len)?.copy_from_slice(rest.get(..len)?);
            (u64::from_le_bytes(word), len)
        }
    };
    *bytes = rest.get(len..)?;
    Some(number)
}

/// Reads as much as there is.
fn read_at(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        frame::seal(&mut value, kind, 0, number, payload);
        value
    }

    fn numbers(bytes: &[u8]) -> Vec<(usize, u64)> {
        frames(bytes)
            .map(|found| (found.at, found.frame.number))
            .collect()
    }

    #[test]
    fn a_frame_planted_in_a_body_is_not_found() {
        let planted = sealed(Kind::Index, 99, b"settled: everything");
        let body = [b"hello ", &planted[..], &planted[..]].concat();
        let outer = sealed(Kind::Body, 1, &body);
        let next = sealed(Kind::Body, 2, b"next");
        let mut bytes = [b"page", &outer[..], b"key", &next[..], b"STFD"].concat();
        let at = 4 + outer.len() + 3;
        assert_eq!(numbers(&bytes), [(4, 1), (at, 2)]);
        // Nor where the body that holds it is damaged.
        bytes[4 + HEAD_BYTES + 2] ^= 1;
        assert_eq!(numbers(&bytes), [(at, 2)]);
        bytes[4 + HEAD_BYTES + 2] ^= 1;
        // Nor where a bit of its length is another, and what follows it is.
        for bit in 0..32 {
            let mut hit = bytes.clone();
            hit[4 + 16 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(numbers(&hit), [(at, 2)], "bit {bit}");
        }
    }

    #[test]
    fn numbers_are_those_of_sled() {
        let numbers: [(&[u8], u64); 9] = [
            (&[0], 0),
            (&[240], 240),
            (&[241, 1], 241),
            (&[248, 255], 2_287),
            (&[249, 0, 0], 2_288),
            (&[249, 255, 255], 67_823),
            (&[250, 0xf0, 0x08, 0x01], 67_824),
            (&[251, 0, 0, 0, 1], 1 << 24),
            (&[255; 9], u64::MAX),
        ];
        for (bytes, number) in numbers {
            let mut rest = bytes;
            assert_eq!((varint(&mut rest), rest), (Some(number), &[][..]));
            for cut in 0..bytes.len() {
                assert_eq!(varint(&mut &bytes[..cut]), None);
            }
        }
    }
}
