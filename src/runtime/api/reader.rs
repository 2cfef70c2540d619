//! Header blocks and bodies of entries, for people; and the choice of entries by header.
//!
//! # Invariants
//! - What is read here never drives out of memory what consumers need, and takes one of the store's readers at a time
//!   for at most [`LOOK_COUNT_MAX`] requests together.
//! - At most one run of chunks (about 1 MiB), or one message, is held at a time.

use std::iter::Peekable;
use std::sync::Arc;

use crate::base::ChunkRef;
use crate::port::{Body, EntryView};
use crate::wire::{Escapes, unescape};

use super::super::bodies::{Chunks, RUN_CHUNK_COUNT_MAX, chunks_for, first_bytes};
use super::super::connection::Shared;
use super::problem::Problem;

/// Requests that read messages at a time.
pub(super) const LOOK_COUNT_MAX: usize = 2;

/// How often an entry is looked at again because its bytes have moved meanwhile.
const TRY_COUNT_MAX: usize = 3;

/// Headers that a message must have.
#[derive(Debug, Default)]
pub(super) struct Filter {
    wanted: Vec<(String, Option<String>)>,
}

impl Filter {
    /// Of `NAME:VALUE`, or `NAME` for any value.
    pub(super) fn parse(texts: &[String]) -> Result<Self, Problem> {
        let wanted = texts
            .iter()
            .map(|text| {
                let (name, value) = match text.split_once(':') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text.as_str(), None),
                };
                if name.is_empty() {
                    return Err(Problem::bad(format!(
                        "header {text:?} is not NAME:VALUE, or NAME for any value"
                    )));
                }
                Ok((name.to_owned(), value))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { wanted })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether a message has all of them. Of a repeated header, the first counts, as in STOMP.
    pub(super) fn takes(&self, headers: &[(String, String)]) -> bool {
        self.wanted.iter().all(|(name, value)| {
            headers
                .iter()
                .find(|(of, _)| of == name)
                .is_some_and(|(_, found)| value.as_ref().is_none_or(|value| value == found))
        })
    }
}

/// The headers of a block, without their escapes.
pub(super) fn headers(block: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(block)
        .split('\n')
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect()
}

fn unescaped(text: &str) -> String {
    match unescape(Escapes::Four, text.as_bytes()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => text.to_owned(),
    }
}

/// What became of an entry that was to be read.
#[derive(Debug)]
pub(super) enum Seen {
    /// The entry as it was when its bytes were read, and the first of them.
    Read(EntryView, Vec<u8>),
    /// It has left the queue.
    Gone,
    /// Its bytes cannot be read.
    Faulty(EntryView, String),
}

/// Entries whose first bytes are read in one go.
#[derive(Debug)]
pub(super) struct Groups<I: Iterator<Item = EntryView>> {
    entries: Peekable<I>,
}

impl<I: Iterator<Item = EntryView>> Groups<I> {
    pub(super) fn of(entries: impl IntoIterator<IntoIter = I>) -> Self {
        Self {
            entries: entries.into_iter().peekable(),
        }
    }

    /// The next entries, each with how many of its bytes are asked for: as many as one run of chunks holds, but one.
    pub(super) fn next(&mut self, need: impl Fn(&EntryView) -> usize) -> Vec<(EntryView, usize)> {
        let mut group = Vec::new();
        let (mut chunk_count, mut last) = (0, None);
        while let Some(entry) = self.entries.peek() {
            let bytes = need(entry).min(entry.len as usize);
            let (first, count) = match &entry.body {
                Body::Stored { chunk, .. } => (Some(*chunk), 1),
                Body::Extent(chunks) => (None, chunks_for(chunks, bytes).len()),
                Body::Memory(_) => (None, 0),
            };
            // Messages lie end to end: mostly the next one is in the same chunk.
            let count = if first.is_some() && first == last {
                0
            } else {
                count
            };
            if !group.is_empty() && chunk_count + count > RUN_CHUNK_COUNT_MAX {
                break;
            }
            chunk_count += count;
            last = first;
            group.extend(self.entries.next().map(|entry| (entry, bytes)));
        }
        group
    }
}

/// Reads the first bytes of each entry, so many of each, in their order.
pub(super) async fn read(shared: &Shared, queue: &str, group: Vec<(EntryView, usize)>) -> Vec<Seen> {
    let chunks = fetch(shared, &group).await;
    let mut seen = Vec::with_capacity(group.len());
    for (entry, bytes) in group {
        seen.push(match first_bytes(&entry.body, bytes, &chunks) {
            Some(Ok(found)) => Seen::Read(entry, found),
            Some(Err(fault)) => Seen::Faulty(entry, fault),
            None => read_again(shared, queue, entry.sequence, bytes).await,
        });
    }
    seen
}

/// Reads an entry whose bytes were not where it said: it was settled, or is being moved to another chunk.
async fn read_again(shared: &Shared, queue: &str, sequence: u64, bytes: usize) -> Seen {
    let mut last = None;
    for _ in 0..TRY_COUNT_MAX {
        let page = shared.core.entries(queue, sequence, 1);
        let Some(entry) = page.items.into_iter().find(|entry| entry.sequence == sequence) else {
            return Seen::Gone;
        };
        let group = vec![(entry, bytes)];
        let chunks = fetch(shared, &group).await;
        for (entry, bytes) in group {
            match first_bytes(&entry.body, bytes, &chunks) {
                Some(Ok(found)) => return Seen::Read(entry, found),
                Some(Err(fault)) => return Seen::Faulty(entry, fault),
                None => last = Some(entry),
            }
        }
    }
    match last {
        Some(entry) => Seen::Faulty(entry, "its bytes are being moved; look again".to_owned()),
        None => Seen::Gone,
    }
}

async fn fetch(shared: &Shared, group: &[(EntryView, usize)]) -> Chunks {
    // What is not durable is not in the store yet.
    let gate = group.iter().map(|(entry, _)| entry.gate).max();
    if let Some(gate) = gate {
        shared.core.wait_durable(gate).await;
    }
    let mut places: Vec<ChunkRef> = Vec::new();
    for (entry, bytes) in group {
        match &entry.body {
            Body::Stored { chunk, .. } if places.last() != Some(chunk) => places.push(*chunk),
            Body::Extent(chunks) => places.extend(chunks_for(chunks, *bytes)),
            Body::Stored { .. } | Body::Memory(_) => {}
        }
    }
    let mut found = Chunks::default();
    for run in places.chunks(RUN_CHUNK_COUNT_MAX) {
        found.extend(Arc::clone(&shared.bodies).look(run.to_vec()).await);
    }
    found
}
