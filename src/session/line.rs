//! The line of frames that are not deliveries: CONNECTED, RECEIPT, ERROR, encoded, in the order of the frames they
//! answer.
//!
//! ```text
//!   push        its request is done        the gate is durable
//!  ------> waiting -----------------> gated -------------------> (written)
//!              |
//!              | a request before it, or its own, is refused
//!              v
//!           (gone)
//! ```
//!
//! # Invariants
//! - Frames leave in the order in which they came: the gate of a frame is never below that of the one before.
//! - Nor is it below the gate of any request before it, also of one that asked for no receipt: a client may read a
//!   receipt as proof of every earlier frame.

use std::collections::VecDeque;
use std::ops::Range;

use super::ids::write_number;
use crate::base::Seq;
use crate::port::Duplicate;
use crate::wire::{Encoder, Escapes};

const RECEIPT_HEAD: &[u8] = b"RECEIPT\nreceipt-id:";
const RECEIPT_TAIL: &[u8] = b"\n\n\0\n";

/// See the module's text. Takes no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The frames, first the gated ones, then those that wait.
    bytes: Vec<u8>,
    /// Runs of gated frames: their bytes and gate.
    gated: VecDeque<(usize, Seq)>,
    /// Frames that wait: their bytes, and the requests of the frame that they answer, all of which must be done.
    waiting: Vec<(usize, Range<usize>)>,
    /// The latest gate of all requests so far.
    latest: Seq,
}

impl Line {
    /// Puts a frame in line, to leave when these of the requests gathered, and all before them, are done.
    pub(super) fn push(&mut self, requests: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - before;
        if requests.end == 0 {
            assert!(self.waiting.is_empty(), "without requests nothing waits");
            self.gate(len);
        } else {
            self.waiting.push((len, requests));
        }
    }

    /// Puts the RECEIPT of a frame in line.
    pub(super) fn push_receipt(&mut self, requests: Range<usize>, escapes: Escapes, receipt: &[u8]) {
        self.push(requests, |out| {
            Encoder::new(out, escapes, "RECEIPT")
                .header("receipt-id", receipt)
                .end()
        });
    }

    /// Requests that are done were stored before: their RECEIPTs say so. Comes before [`Line::handle_done`].
    pub(super) fn handle_duplicates(&mut self, duplicates: &[Duplicate]) {
        if duplicates.is_empty() {
            return;
        }
        let gated = self.bytes.len() - self.waiting.iter().map(|(len, _)| len).sum::<usize>();
        let waiting = self.bytes.split_off(gated);
        let mut rest = &waiting[..];
        let mut duplicates = duplicates.iter().peekable();
        for (len, requests) in &mut self.waiting {
            let (frame, behind) = rest.split_at(*len);
            rest = behind;
            while duplicates.next_if(|of| of.request < requests.start).is_some() {}
            let of = duplicates.next_if(|of| requests.contains(&of.request));
            let head = of.and_then(|of| Some((of, frame.strip_suffix(RECEIPT_TAIL)?)));
            let Some((of, head)) = head.filter(|(_, head)| head.starts_with(RECEIPT_HEAD)) else {
                self.bytes.extend_from_slice(frame);
                continue;
            };
            let before = self.bytes.len();
            self.bytes.extend_from_slice(head);
            if of.whole {
                self.bytes.extend_from_slice(b"\nduplicate:true");
            }
            if let Some(count) = of.count {
                self.bytes.extend_from_slice(b"\nduplicate-count:");
                write_number(u64::from(count), &mut self.bytes);
            }
            self.bytes.extend_from_slice(RECEIPT_TAIL);
            *len = self.bytes.len() - before;
        }
    }

    /// The first `done` requests are done, and their effect waits for the gate.
    pub(super) fn handle_done(&mut self, done: usize, gate: Seq) {
        let count = self.waiting.partition_point(|(_, requests)| requests.end <= done);
        let len = self.waiting.drain(..count).map(|(len, _)| len).sum();
        self.latest = self.latest.max(gate);
        self.gate(len);
    }

    /// The request behind the first `done` was refused: drops what waits for it. Returns the escaped receipt-id of its
    /// own RECEIPT, if it was to have one. Comes after [`Line::handle_done`].
    pub(super) fn handle_refused(&mut self, done: usize) -> Option<Vec<u8>> {
        let gated = self.bytes.len() - self.waiting.iter().map(|(len, _)| len).sum::<usize>();
        let dropped = self.bytes.split_off(gated);
        let (len, requests) = self.waiting.first().cloned()?;
        self.waiting.clear();
        // The ERROR of a later frame may wait for the same requests; a RECEIPT it is not.
        let receipt = requests.contains(&done).then(|| dropped.get(..len))??;
        let value = receipt.strip_prefix(RECEIPT_HEAD)?.strip_suffix(RECEIPT_TAIL)?;
        Some(value.to_vec())
    }

    /// Appends every frame whose gate is durable.
    pub(super) fn poll(&mut self, durable: Seq, out: &mut Vec<u8>) {
        let mut len = 0;
        while let Some((run, gate)) = self.gated.front()
            && *gate <= durable
        {
            len += run;
            self.gated.pop_front();
        }
        out.extend(self.bytes.drain(..len));
        if self.bytes.is_empty() {
            *self = Self {
                latest: self.latest,
                ..Self::default()
            };
        }
    }

    /// The gate that the head waits for.
    pub(super) fn head_gate(&self) -> Option<Seq> {
        self.gated.front().map(|(_, gate)| *gate)
    }

    /// Bytes in line.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.gated.capacity() + self.waiting.capacity()
    }

    fn gate(&mut self, len: usize) {
        match self.gated.back_mut() {
            _ if len == 0 => {}
            Some((run, last)) if self.latest <= *last => *run += len,
            _ => self.gated.push_back((len, self.latest)),
        }
    }
}
