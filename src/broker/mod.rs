//! The core: queues, topics, subscriptions, leases, transactions. One value for the whole process, a pure state machine:
//! no IO, no clock, no async, no randomness.
//!
//! Inputs are `handle_*`; outputs are `poll_*`. After any input: `poll_batch` (for the committer), `poll_wakes` (sessions
//! that have events), `poll_notices` (for the log).
//!
//! # Not here
//! Receipts (the session keeps them, gated by [`Applied::gate`]); bytes of bodies once they are in a batch.

use std::sync::Arc;

use crate::base::{DestinationKind, Limits, MessageId, Now, Seq, SessionNo, SubNo, Tag};
use crate::journal::{Batch, IndexChunk, IndexSize, Recovered};
use crate::port::{Applied, Body, Event, Requests};

/// Rebuilds a [`Broker`] from the index chunks of the journal, handed over in the order of Seq.
#[derive(Debug)]
pub struct Recovery {}

impl Recovery {
    /// Begins with nothing.
    pub fn new(_limits: Limits) -> Self {
        unimplemented!("broker")
    }

    /// Takes the next index chunk.
    pub fn visit(&mut self, _chunk: IndexChunk) {
        unimplemented!("broker")
    }

    /// The broker, in a new term. Its first batch (the new term's counters) is ready for `poll_batch`.
    pub fn finish(self, _recovered: &Recovered, _now: Now) -> Broker {
        unimplemented!("broker")
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Broker {}

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

/// One queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its name without prefix.
    pub name: Arc<str>,
    /// Entries in all.
    pub depth: u64,
    /// Their message bytes.
    pub bytes: u64,
    /// Waiting.
    pub ready_count: u64,
    /// Out for delivery.
    pub leased_count: u64,
    /// Subscriptions.
    pub subscription_count: u64,
    /// When the oldest entry was accepted, milliseconds since the Unix epoch.
    pub oldest_at_ms: Option<u64>,
}

/// One entry, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// Its place in the queue.
    pub sequence: u64,
    /// The message's identity.
    pub message: MessageId,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub accepted_at_ms: u64,
    /// Where its bytes are.
    pub body: Body,
    /// Bytes of the header block.
    pub header_len: u32,
    /// Bytes in all.
    pub len: u32,
    /// Earlier deliveries known.
    pub deliveries: u32,
    /// NACKs and run-out leases.
    pub failures: u32,
    /// Out for delivery now.
    pub leased: bool,
    /// In memory only (`persistent:false`).
    pub transient: bool,
}

impl Broker {
    /// A session begins (at accept).
    pub fn handle_open(&mut self, _session: SessionNo) {
        unimplemented!("broker")
    }

    /// All requests of one socket read.
    pub fn handle_requests(&mut self, _session: SessionNo, _requests: &Requests, _now: Now) -> Applied {
        unimplemented!("broker")
    }

    /// The bytes of all deliveries of this session up to and including this tag are in its socket (or were skipped
    /// because their subscription is gone): frees the unsent bytes, settles `auto` deliveries.
    pub fn handle_written(&mut self, _session: SessionNo, _up_to: Tag, _now: Now) {
        unimplemented!("broker")
    }

    /// A session ended, however: what it holds is released, what it staged is aborted. Safe to call twice.
    pub fn handle_close(&mut self, _session: SessionNo, _now: Now) {
        unimplemented!("broker")
    }

    /// Every batch up to this Seq is durable. `sizes` are those of the batches since the last call, oldest first.
    pub fn handle_durable(&mut self, _seq: Seq, _sizes: &[IndexSize], _now: Now) {
        unimplemented!("broker")
    }

    /// Whether the disk has room for messages; settlements go on without.
    pub fn handle_room(&mut self, _room: bool) {
        unimplemented!("broker")
    }

    /// Does what time demands; called about once a second, also when nothing else happens.
    pub fn handle_tick(&mut self, _now: Now) {
        unimplemented!("broker")
    }

    /// A clean stop: every session is closed; journals the counters and marks the term as ended cleanly.
    /// Returns how many transient messages go with it.
    pub fn handle_stop(&mut self, _now: Now) -> u64 {
        unimplemented!("broker")
    }

    /// The next batch for the committer, oldest first; `None` when nothing waits. A full batch is closed at
    /// `commit_bytes_max`; the last one is closed by this call.
    pub fn poll_batch(&mut self) -> Option<Batch> {
        unimplemented!("broker")
    }

    /// Moves up to `count_max` events of a session, in order, to the end of `events`. What is moved counts as handed
    /// to its socket.
    pub fn poll_events(&mut self, _session: SessionNo, _count_max: usize, _events: &mut Vec<Event>) {
        unimplemented!("broker")
    }

    /// Whether a session has events.
    pub fn has_events(&self, _session: SessionNo) -> bool {
        unimplemented!("broker")
    }

    /// Moves the sessions that got events since the last call to the end of `sessions`.
    pub fn poll_wakes(&mut self, _sessions: &mut Vec<SessionNo>) {
        unimplemented!("broker")
    }

    /// The next line for the log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        unimplemented!("broker")
    }

    /// Bytes in batches that are not yet durable; beyond `unflushed_bytes_max` sockets are not read.
    pub fn unflushed_bytes(&self) -> usize {
        unimplemented!("broker")
    }

    /// Counters since start.
    pub fn counters(&self) -> Counters {
        unimplemented!("broker")
    }

    /// Every queue that has entries or subscriptions, by name.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        std::iter::empty()
    }

    /// The entries of a queue in order, from a queue sequence on. Empty for an unknown queue.
    pub fn entries(&self, _queue: &str, _from: u64) -> impl Iterator<Item = EntryView> {
        std::iter::empty()
    }

    /// Subscriptions on a destination.
    pub fn subscription_count(&self, _kind: DestinationKind, _name: &str) -> usize {
        unimplemented!("broker")
    }
}
