//! Faults planted to test the oracle: a broker that has one looks, on its wires or its disk, as if this had happened.

use super::Kind;
use crate::client::{Decoder, Frame};
use crate::journal::Fact;

/// A fault of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Batches are told as durable before they are flushed.
    ReceiptBeforeFlush,
    /// Of a batch that a crash tore, recovery takes the first half.
    TornBatch,
    /// Settlements are not stored.
    SettleLost,
    /// A SEND within a transaction takes effect at once.
    TransactionSplit,
    /// Messages leave in another order.
    OrderSwapped,
    /// A subscription is given one more than it asked for.
    CreditExceeded,
    /// A pull subscription is given one more than it asked for.
    UnaskedGiven,
    /// A dead letter is enqueued twice.
    DeadLetterTwice,
    /// A redelivery is not marked.
    MarkMissing,
    /// A first delivery is marked as another.
    MarkWrong,
    /// RECEIPTs leave in another order.
    ReceiptsSwapped,
    /// A message is delivered twice.
    DeliveredTwice,
    /// A RECEIPT is left out.
    ReceiptMissing,
    /// A NACK lets its message rest for a tenth of the time.
    RestShort,
    /// Rests are not stored.
    RestForgotten,
    /// Failures are not stored.
    FailureForgotten,
    /// A message expires in a tenth of its time.
    ExpiryEarly,
    /// A message has no end.
    ExpiryForgotten,
    /// Deduplication ids are not stored.
    DedupForgotten,
    /// The RECEIPT of a duplicate does not say so.
    DuplicateUntold,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ReceiptBeforeFlush,
        Self::TornBatch,
        Self::SettleLost,
        Self::TransactionSplit,
        Self::OrderSwapped,
        Self::CreditExceeded,
        Self::UnaskedGiven,
        Self::DeadLetterTwice,
        Self::MarkMissing,
        Self::MarkWrong,
        Self::ReceiptsSwapped,
        Self::DeliveredTwice,
        Self::ReceiptMissing,
        Self::RestShort,
        Self::RestForgotten,
        Self::FailureForgotten,
        Self::ExpiryEarly,
        Self::ExpiryForgotten,
        Self::DedupForgotten,
        Self::DuplicateUntold,
    ];

    /// What the oracle may call it.
    pub fn found_as(self) -> &'static [Kind] {
        match self {
            Self::ReceiptBeforeFlush => &[Kind::Lost, Kind::SettledAgain, Kind::FailuresWrong],
            Self::TornBatch => &[Kind::TransactionSplit, Kind::Lost],
            Self::SettleLost => &[Kind::SettledAgain],
            Self::TransactionSplit => &[Kind::TransactionSplit, Kind::Stranger],
            Self::OrderSwapped => &[Kind::OrderBroken],
            Self::CreditExceeded | Self::UnaskedGiven => &[Kind::CreditExceeded],
            Self::DeadLetterTwice => &[Kind::Doubled, Kind::MessageIdWrong],
            Self::MarkMissing | Self::MarkWrong => &[Kind::MarkWrong],
            Self::ReceiptsSwapped | Self::ReceiptMissing => &[Kind::ReceiptWrong],
            Self::DeliveredTwice => &[Kind::HeldTwice, Kind::Doubled],
            Self::RestShort | Self::RestForgotten => &[Kind::RestWrong],
            Self::FailureForgotten => &[Kind::FailuresWrong],
            Self::ExpiryEarly => &[Kind::Lost],
            Self::ExpiryForgotten => &[Kind::Expired],
            Self::DedupForgotten => &[
                Kind::SettledAgain,
                Kind::Doubled,
                Kind::MessageIdWrong,
                Kind::DuplicateWrong,
            ],
            Self::DuplicateUntold => &[Kind::DuplicateWrong],
        }
    }

    /// A client's frame as this broker takes it.
    pub(super) fn bend_up(self, bytes: Vec<u8>) -> Vec<u8> {
        let from: &[u8] = match self {
            Self::TransactionSplit if bytes.starts_with(b"SEND\n") => b"\ntransaction:",
            Self::CreditExceeded if bytes.starts_with(b"SUBSCRIBE\n") => b"\nprefetch-count:",
            Self::UnaskedGiven if bytes.starts_with(b"SEND\n") => b"\ncredit:",
            Self::RestShort if bytes.starts_with(b"NACK\n") => b"\ndelay:",
            Self::ExpiryEarly | Self::ExpiryForgotten if bytes.starts_with(b"SEND\n") => b"\nttl:",
            _ => return bytes,
        };
        let Some(at) = bytes.windows(from.len()).position(|window| window == from) else {
            return bytes;
        };
        let (before, header) = bytes.split_at(at + 1);
        let end = header
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(header.len());
        let (line, after) = header.split_at(end);
        let (name, count) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let line: Vec<u8> = if self == Self::TransactionSplit {
            b"without:transaction".to_vec()
        } else {
            let count = std::str::from_utf8(count.get(1..).unwrap_or_default()).ok();
            let count: u64 = count.and_then(|text| text.parse().ok()).unwrap_or(1);
            let count = match self {
                Self::RestShort | Self::ExpiryEarly => count / 10 + 1,
                Self::ExpiryForgotten => 0,
                // 0 is pull, and not less than 1.
                _ if count == 0 => 0,
                _ => count + 1,
            };
            [name, b":", count.to_string().as_bytes()].concat()
        };
        [before, &line, after].concat()
    }

    /// Frames of the broker as they leave it; `turns` counts those that could be bent.
    pub(super) fn bend_down(self, frames: &mut Vec<Vec<u8>>, turns: &mut u64) {
        let is = |frame: &[u8], command: &[u8]| frame.starts_with(command);
        let command: &[u8] = match self {
            Self::OrderSwapped | Self::MarkMissing | Self::MarkWrong | Self::DeliveredTwice => b"MESSAGE\n",
            Self::ReceiptsSwapped | Self::ReceiptMissing | Self::DuplicateUntold => b"RECEIPT\n",
            _ => return,
        };
        let mut at = 0;
        while at < frames.len() {
            let next = frames.get(at + 1).is_some_and(|frame| is(frame, command));
            let Some(frame) = frames.get_mut(at).filter(|frame| is(frame, command)) else {
                at += 1;
                continue;
            };
            *turns += 1;
            match self {
                Self::OrderSwapped | Self::ReceiptsSwapped if next => {
                    frames.swap(at, at + 1);
                    at += 1;
                }
                Self::DuplicateUntold => replace(frame, b"\nduplicate:true\n", b"\n"),
                Self::MarkMissing => replace(frame, b"\nredelivered:true\n", b"\nredelivered:false\n"),
                Self::MarkWrong if turns.is_multiple_of(7) => {
                    replace(frame, b"\nredelivered:false\n", b"\nredelivered:true\n");
                }
                Self::DeliveredTwice if turns.is_multiple_of(20) => {
                    let again = frame.clone();
                    frames.insert(at, again);
                    at += 1;
                }
                Self::ReceiptMissing if turns.is_multiple_of(20) => {
                    frames.remove(at);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }
}

fn replace(frame: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    if let Some(at) = frame.windows(from.len()).position(|window| window == from) {
        frame.splice(at..at + from.len(), to.iter().copied());
    }
}

impl Plant {
    /// Whether a broker with this fault stores a fact.
    pub(super) fn stores(self, fact: &Fact) -> bool {
        match self {
            Self::SettleLost => !matches!(fact, Fact::Settled { .. }),
            Self::RestForgotten => !matches!(fact, Fact::Delayed { .. }),
            Self::FailureForgotten => !matches!(fact, Fact::Counted { .. }),
            Self::DedupForgotten => !matches!(fact, Fact::Seen { .. }),
            _ => true,
        }
    }
}

/// A frame in its bytes again.
pub(super) fn raw(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = frame.command.to_vec();
    bytes.push(b'\n');
    for (name, value) in frame.headers() {
        bytes.extend_from_slice(name);
        bytes.push(b':');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(frame.body);
    bytes.push(0);
    bytes
}

/// All whole frames that a decoder has, in their bytes; `None` where it has something else.
pub(super) fn take_frames(decoder: &mut Decoder) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(raw(&frame)),
            Ok(None) => return Some(frames),
            Err(_) => return None,
        }
    }
}
