//! What the core keeps for one session: subscriptions, deliveries it holds, transactions, events on their way.
//!
//! # Invariants
//! - A delivery is in `held` from dispatch until it is settled; then it is gone, so that a second ACK finds nothing.
//! - A delivery that the broker ended (its subscription or its entry is gone) stays in `held` until the client answers,
//!   so that the answer is accepted without effect; how many stay is bounded.
//! - Tags grow with dispatch, so `events` and `unsent` are in the order of tags.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{DestinationKind, MessageId, Principal, Seq, SessionNo, SubNo, Tag, TxNo, Window};
use crate::port::{AckMode, DeliveryKey, Event, Filter, Outcome, Refusal, Why};

use super::access::Verdicts;
use super::browse::Browser;
use super::credit::Beyond;
use super::lease::Lease;
use super::queue::{EntryBytes, QueueNo};
use super::ring::Class;

/// How many deliveries that the broker ended are remembered for late answers.
const ENDED_COUNT_MAX: usize = 100_000;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) subs: BTreeMap<SubNo, Sub>,
    pub(super) held: Window<Held>,
    /// Deliveries to be settled by message id.
    pub(super) by_message: BTreeSet<(MessageId, SubNo, Tag)>,
    pub(super) last_tag: Tag,
    /// The last delivery that the driver took.
    pub(super) handed: Tag,
    pub(super) events: VecDeque<Event>,
    /// Deliveries whose bytes are not in the socket yet.
    pub(super) unsent: VecDeque<Unsent>,
    pub(super) unsent_bytes: usize,
    /// Bytes that may be half sent although their delivery has ended, and their length; in the order of tags.
    pub(super) pinned: VecDeque<(Tag, EntryBytes, u32)>,
    /// A subscription was passed over because of `unsent_bytes`.
    pub(super) blocked: bool,
    pub(super) transactions: BTreeMap<TxNo, Transaction>,
    pub(super) staged_frame_count: usize,
    pub(super) staged_bytes: usize,
    /// Deliveries that the broker ended, oldest first.
    ended: VecDeque<Tag>,
    /// The latest gate of this session's requests.
    pub(super) gate: Seq,
    /// Its temporary queues.
    pub(super) temporary: Vec<QueueNo>,
    /// The queue that was sent to last.
    pub(super) last_queue: Option<QueueNo>,
    /// Whom it acts for.
    pub(super) principal: Arc<Principal>,
    /// What the rules said to it.
    pub(super) verdicts: Verdicts,
    /// It is on the list of sessions to wake.
    pub(super) woken: bool,
    /// It was told to go: nothing more is done for it.
    pub(super) evicted: Option<Refusal>,
}

/// A standing request for a destination's messages.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) source: Source,
    pub(super) ack_mode: AckMode,
    pub(super) by_message: bool,
    /// It is not given what its own session sends.
    pub(super) no_local: bool,
    /// Which messages it takes, if not all.
    pub(super) filter: Option<Arc<Filter>>,
    /// What sets it apart from others of its queue.
    pub(super) class: Class,
    /// How long its deliveries may be unsettled, if it says so.
    pub(super) ack_timeout_ms: Option<u64>,
    pub(super) prefetch_count: u32,
    /// What it may be given besides.
    pub(super) beyond: Beyond,
    /// Deliveries neither settled nor staged.
    pub(super) held_count: u32,
    pub(super) unsent_bytes: usize,
    /// No delivery before this Seq is durable.
    pub(super) active: bool,
    /// It stands in its queue's ring.
    pub(super) in_ring: bool,
    /// In `client` mode, its deliveries in order, for cumulative answers; may name some that are gone.
    pub(super) order: VecDeque<Tag>,
    /// All its deliveries have later tags.
    pub(super) since: Tag,
    /// When something was settled last, or the limit was reached; for the notice of a stuck subscription.
    pub(super) moved_at_ms: u64,
    pub(super) stuck_told: bool,
}

/// Where a subscription's messages come from.
#[derive(Debug)]
pub(super) enum Source {
    Queue(QueueNo),
    Topic {
        name: Arc<str>,
        /// Each with the topic that it was sent to.
        backlog: VecDeque<(Arc<str>, TopicMessage)>,
        backlog_bytes: usize,
    },
    Browse(Browser),
}

/// A message sent to a topic.
#[derive(Debug, Clone)]
pub(super) struct TopicMessage {
    pub(super) message: MessageId,
    pub(super) bytes: Bytes,
    pub(super) header_len: u32,
    /// Who sent it.
    pub(super) from: SessionNo,
    /// Those of its entries.
    pub(super) fields: Vec<(u8, Bytes)>,
}

/// A delivery that this session holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) sub: SubNo,
    pub(super) message: MessageId,
    pub(super) entry: Option<(QueueNo, u64)>,
    pub(super) state: HeldState,
    /// When it was dispatched.
    pub(super) since_ms: u64,
    /// How long it may be unsettled.
    pub(super) lease: Option<Lease>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldState {
    /// The client has it.
    Held,
    /// The client answered within a transaction.
    Staged,
    /// The broker ended it; the answer will have no effect.
    Ended,
    /// Its lease has run out; another may have the entry.
    Lost,
}

/// A delivery on its way to the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsent {
    pub(super) tag: Tag,
    pub(super) sub: SubNo,
    pub(super) len: usize,
}

/// A named set of staged sends and settles.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) steps: Vec<Step>,
    pub(super) bytes: usize,
    /// When it was begun.
    pub(super) since_ms: u64,
}

/// One staged frame.
#[derive(Debug)]
pub(super) enum Step {
    Send {
        to: Vec<(DestinationKind, Arc<str>)>,
        fields: Vec<(u8, Bytes)>,
        dedup: Option<Box<[u8]>>,
        bytes: Bytes,
        header_len: u32,
    },
    Settle {
        tags: Vec<Tag>,
        outcome: Outcome,
        why: Option<Box<Why>>,
    },
}

impl HeldState {
    /// It is its session's no more.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Lost)
    }
}

impl Peer {
    /// Whether a delivery that the driver took is not in the socket yet.
    pub(super) fn is_being_sent(&self, tag: Tag) -> bool {
        tag <= self.handed && self.unsent.front().is_some_and(|first| first.tag <= tag)
    }

    /// Deliveries neither settled nor staged, of all its subscriptions.
    pub(super) fn held_count(&self) -> u64 {
        self.subs.values().map(|sub| u64::from(sub.held_count)).sum()
    }

    /// The delivery that a client names. A message id may also name a delivery of an earlier subscription of the same
    /// client id, which its UNSUBSCRIBE ended.
    pub(super) fn find(&self, key: DeliveryKey) -> Option<Tag> {
        match key {
            DeliveryKey::Tag(tag) => self.held.get(tag.0).map(|_| tag),
            DeliveryKey::Message(sub, message) => {
                let all = || {
                    let range = (message, SubNo(0), Tag(0))..=(message, SubNo(u32::MAX), Tag(u64::MAX));
                    self.by_message.range(range).map(|(_, sub, tag)| (*sub, *tag))
                };
                let ended = |tag: Tag| self.held.get(tag.0).is_some_and(|held| held.state.is_over());
                // One that the client cannot know yet is not what it names.
                let live = || {
                    all().filter(|(of, tag)| {
                        !ended(*tag) && *tag <= self.handed && sub.is_none_or(|sub| sub == *of)
                    })
                };
                // What a browser was shown is not what is to be settled, if there is both.
                let taken = |tag: Tag| self.held.get(tag.0).is_some_and(|held| held.entry.is_some());
                let live = live().find(|(_, tag)| taken(*tag)).or_else(|| live().next());
                live.or_else(|| all().find(|(_, tag)| ended(*tag)))
                    .map(|(_, tag)| tag)
            }
        }
    }

    /// Enters a new delivery and gives its tag.
    pub(super) fn hold(
        &mut self,
        sub: SubNo,
        message: MessageId,
        entry: Option<(QueueNo, u64)>,
        by_message: bool,
        since_ms: u64,
    ) -> Tag {
        self.last_tag = Tag(self.last_tag.0 + 1);
        let tag = self.last_tag;
        self.held.insert(
            tag.0,
            Held {
                sub,
                message,
                entry,
                state: HeldState::Held,
                since_ms,
                lease: None,
            },
        );
        if by_message {
            self.by_message.insert((message, sub, tag));
        }
        tag
    }

    /// Takes a delivery out, settled.
    pub(super) fn unhold(&mut self, tag: Tag) -> Option<Held> {
        let held = self.held.remove(tag.0)?;
        if !self.by_message.is_empty() {
            self.by_message.remove(&(held.message, held.sub, tag));
        }
        Some(held)
    }

    /// Keeps a delivery that the broker ended for a late answer.
    pub(super) fn end(&mut self, tag: Tag) {
        self.end_as(tag, HeldState::Ended);
    }

    /// Keeps a delivery whose lease has run out for a late answer.
    pub(super) fn lose(&mut self, tag: Tag) {
        self.end_as(tag, HeldState::Lost);
    }

    fn end_as(&mut self, tag: Tag, state: HeldState) {
        if let Some(held) = self.held.get_mut(tag.0) {
            held.state = state;
            self.ended.push_back(tag);
        }
        if self.ended.len() > ENDED_COUNT_MAX
            && let Some(oldest) = self.ended.pop_front()
            && self.held.get(oldest.0).is_some_and(|held| held.state.is_over())
        {
            self.unhold(oldest);
        }
    }
}

impl Sub {
    /// The queue that it is on, or looks at.
    pub(super) fn queue(&self) -> Option<QueueNo> {
        match &self.source {
            Source::Queue(no) => Some(*no),
            Source::Browse(browser) => Some(browser.queue),
            Source::Topic { .. } => None,
        }
    }

    /// Bytes of the topic messages that wait for it.
    pub(super) fn backlog_bytes(&self) -> usize {
        match self.source {
            Source::Queue(_) | Source::Browse(_) => 0,
            Source::Topic { backlog_bytes, .. } => backlog_bytes,
        }
    }

    /// It only looks.
    pub(super) fn is_browser(&self) -> bool {
        matches!(self.source, Source::Browse(_))
    }

    /// Whether it may be given one more delivery, but for bytes.
    pub(super) fn has_credit(&self) -> bool {
        self.active && (self.held_count < self.prefetch_count || self.beyond.has_room(self.held_count))
    }

    /// Takes one more delivery.
    pub(super) fn take(&mut self, tag: Tag, len: usize) {
        self.held_count += 1;
        self.unsent_bytes += len;
        self.beyond.take(tag, len);
        if self.ack_mode == AckMode::Client {
            self.order.push_back(tag);
        }
    }

    /// A delivery is held no more: staged, or settled.
    pub(super) fn let_go(&mut self, tag: Tag) {
        self.held_count -= 1;
        self.beyond.let_go(tag);
    }

    /// A staged delivery is held again: back to its place in the order of cumulative answers.
    pub(super) fn hold_again(&mut self, tag: Tag) {
        self.held_count += 1;
        self.beyond.hold_again(tag);
        if self.ack_mode == AckMode::Client {
            let at = self.order.partition_point(|of| *of < tag);
            self.order.insert(at, tag);
        }
    }
}
