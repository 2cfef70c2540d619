//! Reading a backup from anything, verifying all of it.

use std::io::{ErrorKind, Read};

use bytes::Bytes;

use super::{
    BackupError, BackupHead, BackupItem, END_PAYLOAD_BYTES, HEAD_PAYLOAD_BYTES, PAYLOAD_BYTES_MAX,
    SLOT_BYTES, VERSION,
};
use crate::base::{ChunkNo, ChunkRef, Epoch, Seq, SlotNo};
use crate::journal::{DecodeError, FORMAT_VERSION, decode_facts};
use crate::store::PART_BYTES_MAX;
use crate::store::frame::{self, Fields, FrameError, HEAD_BYTES, Kind};

/// What frames it is made of.
const KINDS: [Kind; 4] = [Kind::BackupHead, Kind::Index, Kind::BackupSlot, Kind::BackupEnd];

/// Reads one backup. What it has given is to be relied on only when [`BackupReader::next_item`] has given `None`.
#[derive(Debug)]
pub struct BackupReader<R> {
    from: R,
    /// Bytes read.
    at: u64,
    sum: u32,
    index_count: u64,
    slot_count: u64,
    head: BackupHead,
    last_seq: Seq,
    /// No slot before this one may follow.
    next_slot: u64,
    frame: Vec<u8>,
}

/// A frame, its checksum verified.
struct Found {
    kind: Kind,
    part: u16,
    number: u64,
    payload: Vec<u8>,
}

impl<R: Read> BackupReader<R> {
    /// Reads the head.
    pub fn new(from: R) -> Result<Self, BackupError> {
        let mut reader = Self {
            from,
            at: 0,
            sum: 0,
            index_count: 0,
            slot_count: 0,
            head: BackupHead {
                seq: Seq(0),
                uuid: [0; 16],
                epoch: Epoch(0),
                slot_count: 0,
                message_count: 0,
                made_at_ms: 0,
            },
            last_seq: Seq(0),
            next_slot: 0,
            frame: Vec::new(),
        };
        let found = reader.frame()?;
        if found.kind != Kind::BackupHead {
            return Err(BackupError::NotABackup);
        }
        let mut fields = Fields(&found.payload);
        let version = match found.payload.len() {
            HEAD_PAYLOAD_BYTES.. => u32::from_le_bytes(fields.take()),
            _ => return Err(BackupError::NotABackup),
        };
        if version != VERSION || found.payload.len() != HEAD_PAYLOAD_BYTES {
            return Err(BackupError::NewerFormat {
                found: version,
                known: VERSION,
            });
        }
        reader.head = BackupHead {
            seq: Seq(found.number),
            uuid: fields.take(),
            epoch: Epoch(u32::from_le_bytes(fields.take())),
            slot_count: u32::from_le_bytes(fields.take()),
            message_count: u64::from_le_bytes(fields.take()),
            made_at_ms: u64::from_le_bytes(fields.take()),
        };
        Ok(reader)
    }

    /// What it is of.
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.at
    }

    /// The next part; `None` once the end was read and everything fits it.
    pub fn next_item(&mut self) -> Result<Option<BackupItem>, BackupError> {
        let (at, sum) = (self.at, self.sum);
        let found = self.frame()?;
        let damaged = |what: &str| BackupError::Damaged {
            at,
            what: what.to_owned(),
        };
        match found.kind {
            Kind::Index if self.slot_count == 0 => self.facts(at, found).map(Some),
            Kind::BackupSlot => {
                let payload = Bytes::from(found.payload);
                let Some((slot, _)) = payload.split_first_chunk::<SLOT_BYTES>() else {
                    return Err(damaged("a body chunk says no slot"));
                };
                let place = ChunkRef {
                    slot: SlotNo(u32::from_le_bytes(*slot)),
                    chunk: ChunkNo(found.number),
                };
                let in_order =
                    u64::from(place.slot.0) >= self.next_slot && place.slot.0 < self.head.slot_count;
                if !in_order || payload.len() == SLOT_BYTES {
                    return Err(damaged("a body chunk is out of place"));
                }
                self.next_slot = u64::from(place.slot.0) + 1;
                self.slot_count += 1;
                Ok(Some(BackupItem::Chunk(place, payload.slice(SLOT_BYTES..))))
            }
            Kind::BackupEnd => {
                let mut fields = Fields(&found.payload);
                let fits = found.payload.len() == END_PAYLOAD_BYTES
                    && found.number == self.head.seq.0
                    && u64::from_le_bytes(fields.take()) == self.index_count
                    && u64::from_le_bytes(fields.take()) == self.slot_count
                    && u32::from_le_bytes(fields.take()) == sum;
                if !fits {
                    return Err(damaged("its end does not fit what comes before"));
                }
                let mut byte = [0];
                match self.read_up_to(&mut byte)? {
                    0 => Ok(None),
                    _ => Err(BackupError::Damaged {
                        at: self.at - 1,
                        what: "something follows its end".to_owned(),
                    }),
                }
            }
            _ => Err(damaged("a frame is out of place")),
        }
    }

    /// The facts that begin with this part.
    fn facts(&mut self, at: u64, first: Found) -> Result<BackupItem, BackupError> {
        let damaged = |what: String| BackupError::Damaged { at, what };
        let seq = Seq(first.number);
        if first.part != 0 || seq <= self.last_seq || seq > self.head.seq {
            return Err(damaged("an index chunk is out of place".to_owned()));
        }
        let mut last_len = first.payload.len();
        let mut bytes = first.payload;
        let mut part = 0_u16;
        while last_len == PART_BYTES_MAX {
            let next = self.frame()?;
            let follows = part.checked_add(1).filter(|part| *part == next.part);
            let (Some(next_part), true) = (follows, next.kind == Kind::Index && next.number == seq.0) else {
                return Err(damaged(format!("index chunk {seq} is not whole")));
            };
            part = next_part;
            last_len = next.payload.len();
            bytes.extend_from_slice(&next.payload);
        }
        let facts = decode_facts(&bytes).map_err(|error| match error {
            DecodeError::UnknownKind { .. } => damaged(error.to_string()),
            DecodeError::Malformed { .. } => damaged(format!("index chunk {seq}: {error}")),
        })?;
        self.last_seq = seq;
        self.index_count += 1;
        Ok(BackupItem::Facts(seq, facts))
    }

    fn frame(&mut self) -> Result<Found, BackupError> {
        let at = self.at;
        let broken = |what: &str| BackupError::Damaged {
            at,
            what: format!("a frame {what}"),
        };
        let mut bytes = std::mem::take(&mut self.frame);
        bytes.resize(HEAD_BYTES, 0);
        self.read_whole(&mut bytes)?;
        let (kind, len) = frame::peek(&bytes).ok_or(match at {
            0 => BackupError::NotABackup,
            _ => broken("does not begin with the magic number"),
        })?;
        if len > PAYLOAD_BYTES_MAX {
            return Err(broken("has a length that none has"));
        }
        bytes.resize(HEAD_BYTES + len, 0);
        let (_, payload) = bytes.split_at_mut(HEAD_BYTES);
        self.read_whole(payload)?;
        let kind = KINDS
            .into_iter()
            .find(|known| *known as u8 == kind)
            .ok_or_else(|| broken("is of no kind that a backup has"))?;
        let frame = frame::open(&bytes, kind).map_err(|error| match error {
            FrameError::Broken(what) => broken(what),
            FrameError::Newer(found) => BackupError::NewerFormat {
                found,
                known: FORMAT_VERSION,
            },
        })?;
        let found = Found {
            kind,
            part: frame.part,
            number: frame.number,
            payload: frame.payload.to_vec(),
        };
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        self.frame = bytes;
        Ok(found)
    }

    fn read_whole(&mut self, into: &mut [u8]) -> Result<(), BackupError> {
        match self.read_up_to(into)? {
            count if count == into.len() => Ok(()),
            _ => Err(BackupError::Incomplete { at: self.at }),
        }
    }

    fn read_up_to(&mut self, mut into: &mut [u8]) -> Result<usize, BackupError> {
        let mut total = 0;
        while !into.is_empty() {
            match self.from.read(into) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    self.at += count as u64;
                    into = into.split_at_mut(count).1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BackupError::Read(error)),
            }
        }
        Ok(total)
    }
}
