//! The frame around every stored value: magic, format, kind, number, length, checksum. Written by hand, so that it can
//! be read without any library.
//!
//! ```text
//! 0   magic      53 54 46 44 ("STFD")
//! 4   format     u8
//! 5   kind       u8: 1 index part, 2 body chunk, 3 meta, 4 durable; in a backup also 5 head, 6 slot, 7 end
//! 6   part       u16: of an index chunk; else 0
//! 8   number     u64: chunk number of a body chunk or slot; else Seq
//! 16  length     u32: bytes of the payload
//! 20  checksum   u32: CRC32C of bytes 0 to 19 and the payload
//! 24  payload
//! ```
//! Numbers are little endian. Magic, format, length and checksum stay where they are in every format to come, so that
//! a newer one is told from damage.
//!
//! # Invariants
//! - A run of zeros does not parse, nor does a value cut short or with anything behind its payload.

use crate::journal::FORMAT_VERSION;

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 24;

/// Every frame begins so.
pub(super) const MAGIC: [u8; 4] = *b"STFD";
const FORMAT: u8 = FORMAT_VERSION as u8;
const CHECKED_BYTES: usize = 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A part of an index chunk.
    Index = 1,
    /// A body chunk.
    Body = 2,
    /// The counters.
    Meta = 3,
    /// What is known to be durable.
    Durable = 4,
    /// What a backup begins with.
    BackupHead = 5,
    /// A body chunk in a backup.
    BackupSlot = 6,
    /// What a backup ends with.
    BackupEnd = 7,
}

/// Why a value is not the frame that was looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Not a frame: too short, no magic, a wrong length, or a checksum that does not fit.
    Broken(&'static str),
    /// A whole frame of a newer format.
    Newer(u32),
}

/// A frame, its checksum verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// As it is stored; one of [`Kind`] in the formats known.
    pub kind: u8,
    /// Of an index chunk; else 0.
    pub part: u16,
    /// Chunk number of a body chunk; else Seq.
    pub number: u64,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Writes a frame over what `out` held.
pub fn seal(out: &mut Vec<u8>, kind: Kind, part: u16, number: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a payload stays under 4 GiB");
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[FORMAT, kind as u8]);
    out.extend_from_slice(&part.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(out), payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads a frame of a kind.
pub fn open(value: &[u8], kind: Kind) -> Result<Frame<'_>, FrameError> {
    let frame = open_any(value)?;
    if frame.kind == kind as u8 {
        Ok(frame)
    } else {
        Err(FrameError::Broken("is of another kind"))
    }
}

/// How long the frame is that begins here, by what its head says, unverified; `None` where none begins that ends here too.
pub(super) fn extent(bytes: &[u8], payload_bytes_max: usize) -> Option<usize> {
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES)?;
    let (checked, _) = head.split_at(CHECKED_BYTES);
    let (before, length) = checked.split_at(CHECKED_BYTES - size_of::<u32>());
    let length = u32::from_le_bytes(Fields(length).take()) as usize;
    let fits = length <= payload_bytes_max.min(payload.len());
    (before.starts_with(&MAGIC) && fits).then_some(HEAD_BYTES + length)
}

/// How long the frame is that begins here and is whole but for one bit of its length; `None` where there is none. Such a bit
/// would else hide what lies behind the frame, or show as a frame what it holds.
pub(super) fn mended_extent(bytes: &[u8], payload_bytes_max: usize) -> Option<usize> {
    let (head, _) = bytes.split_at_checked(HEAD_BYTES)?;
    (0..u32::BITS as usize).find_map(|bit| {
        let mut mended = head.to_vec();
        let at = CHECKED_BYTES - size_of::<u32>() + bit / 8;
        *mended.get_mut(at)? ^= 1 << (bit % 8);
        let (_, length) = peek(&mended).filter(|(_, length)| *length <= payload_bytes_max)?;
        mended.extend_from_slice(bytes.get(HEAD_BYTES..HEAD_BYTES + length)?);
        let is_whole = !matches!(open_any(&mended), Err(FrameError::Broken(_)));
        is_whole.then_some(mended.len())
    })
}

/// Which body chunk the frame holds whose head this is, by what it says, unverified; `None` of another kind.
pub(super) fn body_number(head: &[u8]) -> Option<u64> {
    let mut fields = Fields(head.get(..HEAD_BYTES)?);
    let _magic: [u8; MAGIC.len()] = fields.take();
    let [_format, kind, _, _] = fields.take();
    (kind == Kind::Body as u8).then(|| u64::from_le_bytes(fields.take()))
}

/// Reads a frame of any kind.
pub(super) fn open_any(value: &[u8]) -> Result<Frame<'_>, FrameError> {
    let broken = FrameError::Broken;
    let (head, payload) = value
        .split_at_checked(HEAD_BYTES)
        .ok_or(broken("is shorter than a frame"))?;
    let (checked, checksum) = head.split_at(CHECKED_BYTES);
    let mut head = Fields(checked);
    if head.take() != MAGIC {
        return Err(broken("does not begin with the magic number"));
    }
    let [format, kind] = head.take();
    let part = u16::from_le_bytes(head.take());
    let number = u64::from_le_bytes(head.take());
    if u32::from_le_bytes(head.take()) as usize != payload.len() {
        return Err(broken("does not have its length"));
    }
    if crc32c::crc32c_append(crc32c::crc32c(checked), payload) != u32::from_le_bytes(Fields(checksum).take())
    {
        return Err(broken("does not fit its checksum"));
    }
    match format {
        // Older formats have the same frame.
        1..=FORMAT => Ok(Frame {
            kind,
            part,
            number,
            payload,
        }),
        format if format > FORMAT => Err(FrameError::Newer(u32::from(format))),
        _ => Err(broken("has format 0")),
    }
}

/// The kind and the length of the payload that the first bytes of a frame say, unverified. `None` without the magic number.
pub(super) fn peek(head: &[u8]) -> Option<(u8, usize)> {
    let mut fields = Fields(head.get(..HEAD_BYTES)?);
    if fields.take() != MAGIC {
        return None;
    }
    let [_format, kind] = fields.take();
    let _part_and_number: [u8; 10] = fields.take();
    Some((kind, u32::from_le_bytes(fields.take()) as usize))
}

/// Fixed fields, read from the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    /// The next bytes. Panics where there are too few: the length was checked before.
    pub(super) fn take<const LEN: usize>(&mut self) -> [u8; LEN] {
        let (taken, rest) = self.0.split_first_chunk().expect("the length was checked before");
        self.0 = rest;
        *taken
    }
}

#[cfg(test)]
mod tests;
