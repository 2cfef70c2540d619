//! What the model knows.

use std::collections::{BTreeMap, VecDeque};

use steadfast::base::{DestinationKind, MessageId, Seq, SubNo, Tag, TxNo};
use steadfast::port::{AckMode, Credit, Delivery};

/// A message's number in the model; its bytes begin with it.
pub(crate) type Number = usize;

/// What the model keeps of each message ever sent.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) header_len: u32,
    /// Learned from the broker; stays.
    pub(crate) id: Option<MessageId>,
    /// Deliveries ever handed to a session.
    pub(crate) delivery_count: u32,
    /// Queues in which it stood while a subscription could have been given it.
    pub(crate) exposed: Vec<String>,
    /// Its places, in queues where it was stored: (queue, sequence).
    pub(crate) places: BTreeMap<String, u64>,
    /// Of a topic's message: the Seq of the transaction it was sent in.
    pub(crate) gate: Seq,
    /// What is, or may become, durable of it.
    pub(crate) chain: Chain,
}

/// Where a stored message is; `None` before it was enqueued and after it was settled.
pub(crate) type At = Option<Spot>;

/// A queue, the failures in it, and the queue that a dead letter came from.
pub(crate) type Spot = (String, u32, Option<String>);

/// The durable place of a message, and the steps behind it that may not be durable yet.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) base: At,
    pub(crate) steps: Vec<ChainStep>,
}

/// One effect on a message.
#[derive(Debug)]
pub(crate) struct ChainStep {
    /// Must be durable when this Seq is; `None` while unknown.
    pub(crate) bound: Option<Seq>,
    /// Steps of one unit are durable together or not at all.
    pub(crate) unit: usize,
    pub(crate) after: At,
}

/// Whether a queue is paused: what is durable, and behind it what may not be yet.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) base: bool,
    /// Must be durable when this Seq is.
    pub(crate) steps: Vec<(Seq, bool)>,
}

impl Pauses {
    pub(crate) fn now(&self) -> bool {
        self.steps.last().map_or(self.base, |(_, paused)| *paused)
    }

    /// All up to this Seq is durable.
    pub(crate) fn settle(&mut self, durable: Seq) {
        let done = self.steps.partition_point(|(bound, _)| *bound <= durable);
        if let Some((_, paused)) = self.steps.drain(..done).next_back() {
            self.base = paused;
        }
    }
}

/// An entry as the model sees it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: Number,
    pub(crate) transient: bool,
    pub(crate) deliveries: u32,
    pub(crate) failures: u32,
    /// The delivery that has it, as far as the model was told.
    pub(crate) lease: Option<(u8, Tag)>,
    pub(crate) suspect: Suspect,
    /// Of a dead letter: the queue it came from.
    pub(crate) origin: Option<String>,
    /// The subscription that nacked it last, until its next delivery.
    pub(crate) nacked_by: Option<(u8, SubNo)>,
}

/// Whether a delivery before the last unclean stop can be excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspect {
    No,
    Yes,
    /// The queue had a subscription, but perhaps none that could be given this entry.
    Either,
}

/// A session as the model sees it.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) no: u64,
    pub(crate) subs: BTreeMap<SubNo, Sub>,
    pub(crate) held: BTreeMap<Tag, Held>,
    pub(crate) transactions: BTreeMap<TxNo, Vec<Step>>,
    pub(crate) last_tag: Tag,
    pub(crate) written: Tag,
    /// The latest gate of its calls.
    pub(crate) gate: Seq,
    pub(crate) next_sub: u32,
    pub(crate) next_tx: u32,
    /// Deliveries that an ABORT put back.
    pub(crate) held_again: usize,
    /// Its events are not polled.
    pub(crate) stalled: bool,
    /// It was stalled until now.
    pub(crate) catching_up: bool,
    /// What was polled is not reported as written.
    pub(crate) slow: bool,
}

/// A subscription as the model sees it.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) kind: DestinationKind,
    pub(crate) name: String,
    pub(crate) ack_mode: AckMode,
    pub(crate) credit: Credit,
    /// Of a pull subscription, what it asked for and was not given yet.
    pub(crate) asked: Option<usize>,
    /// No delivery before this Seq is durable: receipts of its session wait for it.
    pub(crate) gate: Seq,
    /// Everything was durable since it came, so it is certainly served.
    pub(crate) active: bool,
    /// Topic messages that it is to get (true) or may get (false), in order.
    pub(crate) expected: VecDeque<(Number, bool)>,
}

/// A delivery that a session was handed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) sub: SubNo,
    pub(crate) number: Number,
    /// `None` for a topic's message, and for one that was purged.
    pub(crate) queue: Option<String>,
    pub(crate) delivery: Delivery,
    pub(crate) state: HeldState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldState {
    Held,
    Staged,
    /// Its subscription is gone; an answer has no effect.
    Ended,
    Settled,
}

/// One staged frame.
#[derive(Debug)]
pub(crate) enum Step {
    Send {
        kind: DestinationKind,
        name: String,
        number: Number,
    },
    Settle {
        tags: Vec<Tag>,
        accepted: bool,
    },
}

impl Sub {
    pub(crate) fn is_of(&self, queue: &str) -> bool {
        self.kind == DestinationKind::Queue && self.name == queue
    }
}

impl Session {
    /// Deliveries of a subscription that use its credit.
    pub(crate) fn credit_used(&self, no: SubNo) -> usize {
        self.using_credit(no).count()
    }

    /// Their bytes.
    pub(crate) fn bytes_used(&self, no: SubNo) -> u64 {
        self.using_credit(no)
            .map(|held| u64::from(held.delivery.len))
            .sum()
    }

    fn using_credit(&self, no: SubNo) -> impl Iterator<Item = &Held> {
        let auto = self
            .subs
            .get(&no)
            .is_some_and(|sub| sub.ack_mode == AckMode::Auto);
        self.held
            .iter()
            .filter(move |(tag, held)| {
                held.sub == no && held.state == HeldState::Held && (!auto || **tag > self.written)
            })
            .map(|(_, held)| held)
    }

    pub(crate) fn has_credit(&self, no: SubNo) -> bool {
        self.subs
            .get(&no)
            .is_some_and(|sub| match (sub.credit, sub.asked) {
                (Credit::Window { count, bytes }, _) => {
                    self.credit_used(no) < count as usize || self.bytes_used(no) < bytes
                }
                (Credit::Pull, asked) => asked.is_some_and(|asked| asked > 0),
            })
    }
}
