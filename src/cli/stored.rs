//! A store that no broker uses, whole or damaged, and the messages in it.

use bytes::Bytes;
use serde::Serialize;

use super::failure::chain;
use super::show::{escaped, hex};
use crate::base::{ChunkRef, MessageId, Seq};
use crate::port::{Body, EntryView};
use crate::store::{Loss, StoreError};

/// What is damaged of a store as a whole, and what of its index is gone for that.
#[derive(Debug, Serialize)]
pub(super) struct Damage {
    /// Why a broker refuses it, if it does.
    what: Option<String>,
    /// First and last of each run of batches whose facts are gone.
    lost_batches: Vec<(u64, u64)>,
    /// Index parts that are gone, of batches that are not known.
    lost_part_count: u64,
    /// The last batch found, and the last known to have been durable, where the end of the log is gone.
    lost_end: Option<(u64, u64)>,
}

impl Damage {
    pub(super) fn new(error: Option<&StoreError>, loss: &Loss) -> Self {
        let mut lost_batches: Vec<(u64, u64)> = Vec::new();
        for &Seq(seq) in &loss.batches {
            match lost_batches.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => lost_batches.push((seq, seq)),
            }
        }
        Self {
            what: error.map(|error| chain(error)),
            lost_batches,
            lost_part_count: loss.unknown_part_count,
            lost_end: loss.end.map(|(last, durable)| (last.0, durable.0)),
        }
    }

    /// Nothing of the index is gone.
    pub(super) fn is_none(&self) -> bool {
        self.lost_batches.is_empty() && self.lost_part_count == 0 && self.lost_end.is_none()
    }

    /// The same for people.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let batches = self.lost_batches.iter().map(|(first, last)| {
            let which = if first == last {
                format!("batch {first}")
            } else {
                format!("batches {first} to {last}")
            };
            format!("gone: the facts of {which}; what was added in them cannot be named, and what was settled comes back")
        });
        let parts = (self.lost_part_count > 0).then(|| {
            format!(
                "gone: {} parts of the index at least, of batches that cannot be named; messages settled long ago may come \
                 back",
                self.lost_part_count
            )
        });
        let end = self.lost_end.map(|(last, durable)| {
            format!(
                "gone: the end of the log, batches {} to {durable}; what was added in them cannot be named, and what was \
                 settled comes back",
                last + 1
            )
        });
        let what = self.what.clone();
        what.into_iter().chain(batches).chain(parts).chain(end)
    }
}

/// Reads a body chunk.
pub(super) type Chunk<'a> = dyn Fn(ChunkRef) -> Result<Bytes, StoreError> + 'a;

/// As in the header `message-id`.
pub(super) fn message_id(uuid: &[u8; 16], message: MessageId) -> String {
    let (epoch, number) = message.parts();
    let store: String = hex(uuid).chars().take(8).collect();
    format!("{store}-{epoch}-{number}")
}

/// Reads messages; keeps the last chunk, because its neighbours are likely to be next.
pub(super) struct Reader<'a> {
    chunk: &'a Chunk<'a>,
    last: Option<(ChunkRef, Bytes)>,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its chunks hold {found} bytes from its place on, and it has {expected}")]
    Short { found: usize, expected: u32 },
}

impl<'a> Reader<'a> {
    pub(super) fn new(chunk: &'a Chunk<'a>) -> Self {
        Self { chunk, last: None }
    }

    fn chunk(&mut self, place: ChunkRef) -> Result<Bytes, StoreError> {
        match &self.last {
            Some((last, bytes)) if *last == place => Ok(bytes.clone()),
            _ => {
                let bytes = (self.chunk)(place)?;
                self.last = Some((place, bytes.clone()));
                Ok(bytes)
            }
        }
    }

    /// Header block and body.
    pub(super) fn message(&mut self, entry: &EntryView) -> Result<Bytes, ReadError> {
        let (start, bytes) = match &entry.body {
            Body::Stored { chunk, offset } => (*offset as usize, self.chunk(*chunk)?),
            Body::Extent(chunks) => {
                let mut bytes = Vec::new();
                for &chunk in chunks.iter() {
                    bytes.extend_from_slice(&(self.chunk)(chunk)?);
                }
                (0, bytes.into())
            }
            Body::Memory(bytes) => (0, bytes.clone()),
        };
        let end = start + entry.len as usize;
        if bytes.len() < end {
            return Err(ReadError::Short {
                found: bytes.len().saturating_sub(start),
                expected: entry.len,
            });
        }
        Ok(bytes.slice(start..end))
    }
}

/// Whether stored bytes are a header block and a body that agree with each other.
pub(super) fn well_formed(bytes: &[u8], entry: &EntryView) -> Result<(), String> {
    let (block, body) = bytes
        .split_at_checked(entry.header_len as usize)
        .ok_or("its header block is longer than itself")?;
    let mut destination = false;
    let mut length = None;
    for header in block.split_inclusive(|&b| b == b'\n') {
        let (name, value) = header
            .strip_suffix(b"\n")
            .and_then(|header| std::str::from_utf8(header).ok())
            .and_then(|header| header.split_once(':'))
            .ok_or_else(|| format!("no header: {}", escaped(&String::from_utf8_lossy(header))))?;
        destination |= name == "destination";
        if name == "content-length" {
            length = length.or(Some(value));
        }
    }
    if !destination {
        return Err("its header block has no destination".to_owned());
    }
    match length {
        Some(length) if length == body.len().to_string() => Ok(()),
        _ => Err(format!(
            "its content-length is {}, and its body has {} bytes",
            length.map_or_else(|| "missing".to_owned(), escaped),
            body.len()
        )),
    }
}
