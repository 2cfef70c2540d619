//! What the bench puts into bodies and how it finds that a broker lost, doubled, reordered or altered one.
//!
//! A body is a stamp (checksum, run, stream, sequence, time) and a filler that differs from message to message. A
//! stream is what one producer sends to one queue; its sequence begins at 0 and has no gaps.
#![expect(
    clippy::indexing_slicing,
    reason = "ranges within arrays and bodies whose length is checked before"
)]

use std::ops::AddAssign;

use serde::Serialize;

#[cfg(test)]
mod tests;

/// The stamp: CRC32C of what follows it (4), run (4), stream (4), sequence (8), nanoseconds of the sender's clock (8).
pub(super) const STAMP_BYTES: usize = 28;
/// The filler starts at a different place of the noise for each message.
const NOISE_STARTS: u64 = 4096;
/// A sequence above this is no number of ours, whatever its checksum says.
const SEQUENCE_MAX: u64 = 1 << 36;
const STREAM_MAX: u32 = 1 << 20;

/// What a body says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) run: u32,
    pub(super) stream: u32,
    pub(super) sequence: u64,
    pub(super) sent_ns: u64,
}

/// Makes bodies of one size.
#[derive(Debug)]
pub(super) struct Bodies {
    noise: Vec<u8>,
    filler_bytes: usize,
}

impl Bodies {
    /// `body_bytes` is at least [`STAMP_BYTES`].
    pub(super) fn new(body_bytes: usize) -> Self {
        let filler_bytes = body_bytes - STAMP_BYTES;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = (0..filler_bytes + NOISE_STARTS as usize)
            .map(|_| {
                // xorshift64: incompressible, the same in every run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Self { noise, filler_bytes }
    }

    /// Appends the body of that stamp.
    pub(super) fn encode(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let start = out.len();
        let mut head = [0; STAMP_BYTES];
        head[4..8].copy_from_slice(&stamp.run.to_le_bytes());
        head[8..12].copy_from_slice(&stamp.stream.to_le_bytes());
        head[12..20].copy_from_slice(&stamp.sequence.to_le_bytes());
        head[20..28].copy_from_slice(&stamp.sent_ns.to_le_bytes());
        out.extend_from_slice(&head);
        let from = (stamp
            .sequence
            .wrapping_mul(37)
            .wrapping_add(u64::from(stamp.stream))
            % NOISE_STARTS) as usize;
        out.extend_from_slice(&self.noise[from..from + self.filler_bytes]);
        let checksum = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads a stamp; `None` if the body is not one of ours or not as it was sent.
fn decode(body: &[u8]) -> Option<Stamp> {
    let (head, _) = body.split_first_chunk::<STAMP_BYTES>()?;
    let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let u64_at = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    if u32_at(0)? != crc32c::crc32c(&body[4..]) {
        return None;
    }
    let stamp = Stamp {
        run: u32_at(4)?,
        stream: u32_at(8)?,
        sequence: u64_at(12)?,
        sent_ns: u64_at(20)?,
    };
    (stamp.sequence < SEQUENCE_MAX && stamp.stream < STREAM_MAX).then_some(stamp)
}

/// Counts of everything that must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Faults {
    /// Sent, confirmed and never delivered.
    pub(super) lost: u64,
    /// Delivered again.
    pub(super) doubled: u64,
    /// Delivered to a consumer after a later one of the same stream.
    pub(super) reordered: u64,
    /// Not as it was sent (these count as lost too: nobody knows which they were).
    pub(super) altered: u64,
    /// Whole, but of another run, or never sent.
    pub(super) foreign: u64,
    /// Sent without a RECEIPT in the end.
    pub(super) unconfirmed: u64,
    /// A RECEIPT that was not due.
    pub(super) stray_receipts: u64,
}

impl Faults {
    pub(super) fn none(&self) -> bool {
        *self == Self::default()
    }

    /// Of two looks at the same messages: a fault seen by both counts once, one that the second could not see counts too.
    pub(super) fn seen_by_either(self, other: Self) -> Self {
        Self {
            lost: self.lost.max(other.lost),
            doubled: self.doubled.max(other.doubled),
            reordered: self.reordered.max(other.reordered),
            altered: self.altered.max(other.altered),
            foreign: self.foreign.max(other.foreign),
            unconfirmed: self.unconfirmed.max(other.unconfirmed),
            stray_receipts: self.stray_receipts.max(other.stray_receipts),
        }
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.foreign += other.foreign;
        self.unconfirmed += other.unconfirmed;
        self.stray_receipts += other.stray_receipts;
    }
}

#[derive(Debug, Default)]
struct Stream {
    /// One bit for each sequence that came.
    seen: Vec<u64>,
    seen_count: u64,
    /// One more than the highest sequence that came.
    end: u64,
    /// For each consumer one more than the last sequence it got.
    last: Vec<u64>,
}

/// Checks every delivery of a run.
#[derive(Debug, Default)]
pub(super) struct Verifier {
    /// The run that messages must be of; the first one's if not known.
    run: Option<u32>,
    streams: Vec<Stream>,
    distinct_count: u64,
    faults: Faults,
}

impl Verifier {
    pub(super) fn new(run: Option<u32>) -> Self {
        Self {
            run,
            ..Self::default()
        }
    }

    /// Checks one delivered body; gives its stamp if it is a message of this run that came for the first time.
    pub(super) fn check(&mut self, consumer: usize, body: &[u8]) -> Option<Stamp> {
        let Some(stamp) = decode(body) else {
            self.faults.altered += 1;
            return None;
        };
        if *self.run.get_or_insert(stamp.run) != stamp.run {
            self.faults.foreign += 1;
            return None;
        }
        let index = stamp.stream as usize;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, Stream::default);
        }
        let stream = &mut self.streams[index];
        let (word, bit) = ((stamp.sequence / 64) as usize, 1 << (stamp.sequence % 64));
        if stream.seen.len() <= word {
            stream.seen.resize(word + 1, 0);
        }
        if stream.seen[word] & bit != 0 {
            self.faults.doubled += 1;
            return None;
        }
        stream.seen[word] |= bit;
        stream.seen_count += 1;
        stream.end = stream.end.max(stamp.sequence + 1);
        self.distinct_count += 1;
        if stream.last.len() <= consumer {
            stream.last.resize(consumer + 1, 0);
        }
        if stamp.sequence < stream.last[consumer] {
            self.faults.reordered += 1;
        } else {
            stream.last[consumer] = stamp.sequence + 1;
        }
        Some(stamp)
    }

    /// How many messages are accounted for: distinct ones, and altered ones in place of the unknown they were.
    pub(super) fn accounted_count(&self) -> u64 {
        self.distinct_count + self.faults.altered
    }

    /// The verdict, with what each stream sent, by number.
    pub(super) fn finish(mut self, sent: &[u64]) -> Faults {
        for (index, sent) in sent.iter().enumerate() {
            let came = self
                .streams
                .get(index)
                .map_or(0, |stream| seen_below(stream, *sent));
            self.faults.lost += sent - came;
        }
        for (index, stream) in self.streams.iter().enumerate() {
            let sent = sent.get(index).copied().unwrap_or(0);
            self.faults.foreign += stream.seen_count - seen_below(stream, sent);
        }
        self.faults
    }

    /// The verdict where an earlier run sent: every stream must be without gaps, and all together as many as expected.
    pub(super) fn finish_unknown(self, expected: Option<u64>) -> Faults {
        let gaps: u64 = self
            .streams
            .iter()
            .map(|stream| stream.end - stream.seen_count)
            .sum();
        let missing = expected.map_or(0, |expected| expected.saturating_sub(self.distinct_count));
        let more = expected.map_or(0, |expected| self.distinct_count.saturating_sub(expected));
        Faults {
            lost: gaps.max(missing),
            foreign: self.faults.foreign + more,
            ..self.faults
        }
    }
}

/// How many distinct sequences below `end` came.
fn seen_below(stream: &Stream, end: u64) -> u64 {
    if stream.end <= end {
        return stream.seen_count;
    }
    (0..end)
        .filter(|sequence| stream.seen[(sequence / 64) as usize] >> (sequence % 64) & 1 == 1)
        .count() as u64
}
