//! What people see of the core.

use std::sync::Arc;

use crate::base::{DestinationKind, MessageId, SessionNo, SubNo};
use crate::port::{EntryView, QueueCounters, QueueView};

use super::Broker;
use super::ledger::LedgerView;
use super::queue::Queue;

/// A line for the log: something that must not pass silently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A message went to its dead-letter queue.
    DeadLettered {
        /// From.
        queue: Arc<str>,
        /// To.
        target: Arc<str>,
        /// Which.
        message: MessageId,
        /// After how many failures.
        failures: u32,
    },
    /// A subscription has held its limit for `stuck_subscription_ms` with nothing settled. Told once.
    Stuck {
        /// Whose.
        session: SessionNo,
        /// Which.
        sub: SubNo,
        /// On which queue.
        queue: Arc<str>,
    },
    /// A topic subscription over its bound lost messages or was disconnected.
    SlowSubscriber {
        /// Whose.
        session: SessionNo,
        /// Which.
        sub: SubNo,
        /// On which topic.
        topic: Arc<str>,
        /// Messages dropped for it by this.
        dropped_count: u64,
    },
}

/// Counters since start; all only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages accepted into queues.
    pub enqueued_count: u64,
    /// Deliveries handed to sessions.
    pub delivered_count: u64,
    /// Deliveries settled as accepted.
    pub accepted_count: u64,
    /// Deliveries settled as failed.
    pub failed_count: u64,
    /// Deliveries given back without blame.
    pub released_count: u64,
    /// Messages moved to a dead-letter queue.
    pub dead_lettered_count: u64,
    /// Messages accepted for topics.
    pub topic_in_count: u64,
    /// Topic messages handed to sessions.
    pub topic_out_count: u64,
    /// Topic messages dropped for slow subscribers.
    pub topic_dropped_count: u64,
    /// Transactions committed.
    pub committed_count: u64,
    /// Transactions aborted, by ABORT or with their session.
    pub aborted_count: u64,
    /// Requests refused.
    pub refused_count: u64,
    /// Index chunks compacted (their live facts moved forward).
    pub compacted_count: u64,
}

impl Broker {
    /// Counters since start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The journal as the core sees it.
    pub fn ledger(&self) -> LedgerView {
        self.ledger.figures()
    }

    /// Every queue that has entries or subscriptions, by name.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        self.names
            .values()
            .filter_map(|no| self.queue(*no))
            .map(Queue::view)
    }

    /// The entries of a queue in order, from a queue sequence on. Empty for an unknown queue.
    pub fn entries(&self, queue: &str, from: u64) -> impl Iterator<Item = EntryView> {
        let queue = self.names.get(queue).and_then(|no| self.queue(*no));
        queue
            .into_iter()
            .flat_map(move |queue| queue.entries.range_from(from))
            .map(|(sequence, entry)| EntryView {
                sequence,
                message: entry.message,
                accepted_at_ms: entry.accepted_at_ms,
                body: entry.bytes.body(|slot| self.ledger.chunk_in(slot)),
                header_len: entry.header_len,
                len: entry.len,
                deliveries: entry.deliveries,
                failures: entry.failures,
                leased: entry.leased,
                transient: entry.is_transient(),
                gate: entry.home,
                origin: entry.origin().map(str::to_owned),
            })
    }

    /// Subscriptions on a destination.
    pub fn subscription_count(&self, kind: DestinationKind, name: &str) -> usize {
        match kind {
            DestinationKind::Queue => self
                .names
                .get(name)
                .and_then(|no| self.queue(*no))
                .map_or(0, |queue| queue.sub_count),
            DestinationKind::Topic => self.topics.get(name).map_or(0, Vec::len),
        }
    }
}

impl Queue {
    fn view(&self) -> QueueView {
        let depth = self.entries.len() as u64;
        QueueView {
            name: Arc::clone(&self.name),
            depth,
            bytes: self.bytes,
            ready_count: depth - self.leased_count,
            leased_count: self.leased_count,
            subscription_count: self.sub_count as u64,
            oldest_at_ms: self.entries.first().map(|(_, entry)| entry.accepted_at_ms),
            paused: false,
            stuck_count: 0,
            counters: QueueCounters::default(),
        }
    }
}
