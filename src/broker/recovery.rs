//! Recovery: broker state from the index chunks of the journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::{Epoch, Limits, MessageId, Now, Policies, Seq};
use crate::journal::{Enqueued, Fact, IndexChunk, Place, QueueName, Recovered};
use crate::port::{Filter, QueueCounters};

use super::dedup::Dedup;
use super::expiry::Expiring;
use super::lanes::PLAIN;
use super::ledger::{Ledger, Mark, Run};
use super::policy::PolicyBook;
use super::queue::{Entry, EntryBytes, QueueNo, kept_fields};
use super::relocation::Relocation;
use super::routes::Routes;
use super::{Broker, Counters};

/// Rebuilds a [`Broker`] from the index chunks of the journal, handed over in the order of Seq.
#[derive(Debug)]
pub struct Recovery {
    broker: Broker,
    /// The latest term in which each queue is known to have had a subscriber.
    watched: BTreeMap<QueueNo, Epoch>,
}

impl Recovery {
    /// Begins with nothing.
    pub fn new(limits: Limits) -> Self {
        let broker = Broker {
            ledger: Ledger::new(limits.commit_bytes_max),
            policies: PolicyBook::new(Policies::new(limits.policy())),
            declared_count: 0,
            schedule_count: 0,
            rules: Arc::default(),
            denied: None,
            overfull: BTreeSet::new(),
            limits,
            queues: Vec::new(),
            free_queues: BTreeSet::new(),
            names: BTreeMap::new(),
            routes: Routes::default(),
            bound_count: 0,
            scanning: BTreeSet::new(),
            looks_wait: false,
            expiring: Expiring::default(),
            leases: BTreeSet::new(),
            dedup: Dedup::default(),
            peers: BTreeMap::new(),
            touched: VecDeque::new(),
            browsing: BTreeSet::new(),
            activating: BTreeSet::new(),
            deferred: VecDeque::new(),
            deferred_bytes: 0,
            backlog_bytes: 0,
            moving: VecDeque::new(),
            dirty: VecDeque::new(),
            wakes: Vec::new(),
            notices: VecDeque::new(),
            counters: Counters::default(),
            transient_bytes: 0,
            transient_count: 0,
            staged_bytes: 0,
            room: true,
            relocation: Relocation::default(),
            purged: VecDeque::new(),
            lingering: BTreeMap::new(),
            stopping: false,
            now: Now::default(),
        };
        Self {
            broker,
            watched: BTreeMap::new(),
        }
    }

    /// Takes the next index chunk.
    pub fn visit(&mut self, chunk: IndexChunk) {
        let seq = chunk.seq;
        self.broker.ledger.recover_chunk(seq, chunk.size);
        for fact in chunk.facts {
            match fact {
                Fact::Enqueued(fact) => {
                    let queue = self.queue_no(&fact.queue);
                    let count = u32::try_from(fact.items.len()).expect("a run is short");
                    self.broker.ledger.recover_run(
                        seq,
                        Run {
                            queue,
                            first: fact.first_sequence,
                            count,
                        },
                    );
                    match &fact.place {
                        Place::Chunk { chunk, .. } => self.broker.ledger.recover_place(*chunk),
                        Place::Extent(chunks) => chunks
                            .iter()
                            .for_each(|chunk| self.broker.ledger.recover_place(*chunk)),
                    }
                    self.enqueue(queue, seq, fact);
                }
                Fact::Settled { queue, ranges } => {
                    let queue = self.queue_no(&queue);
                    let queue = self.broker.queue_mut(queue).expect("it was just made");
                    for (first, last) in ranges {
                        // A range may span numbers that never were: one of a purge spans terms.
                        while let Some(sequence) = queue.entries.next_from(first)
                            && sequence <= last
                        {
                            queue.take(sequence);
                        }
                    }
                }
                Fact::Counted {
                    queue,
                    ranges,
                    deliveries,
                    failures,
                } => {
                    let queue = self.queue_no(&queue);
                    let queue = self.broker.queue_mut(queue).expect("it was just made");
                    for sequence in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                        if let Some(entry) = queue.entries.get_mut(sequence) {
                            entry.deliveries = deliveries.unwrap_or(entry.deliveries);
                            entry.failures = failures;
                        }
                    }
                }
                Fact::Delayed {
                    queue,
                    ranges,
                    due_at_ms,
                } => {
                    let queue = self.queue_no(&queue);
                    let queue = self.broker.queue_mut(queue).expect("it was just made");
                    for sequence in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                        if let Some(entry) = queue.entries.get_mut(sequence) {
                            entry.set_due(due_at_ms);
                        }
                    }
                }
                Fact::Watched { queue, epoch } => {
                    let queue = self.queue_no(&queue);
                    self.broker.ledger.recover_mark(seq, Mark::Watched(queue));
                    self.broker.queue_mut(queue).expect("it was just made").watched_at = seq;
                    let latest = self.watched.entry(queue).or_insert(epoch);
                    *latest = epoch.max(*latest);
                }
                Fact::Paused { queue, paused } => {
                    let no = self.queue_no(&queue);
                    if paused {
                        self.broker.ledger.recover_mark(seq, Mark::Paused(no));
                    }
                    let queue = self.broker.queue_mut(no).expect("it was just made");
                    (queue.paused, queue.paused_at) = (paused, seq);
                }
                Fact::Seen { queue, ids } => {
                    let no = self.queue_no(&queue);
                    if ids.is_empty() {
                        self.broker.recover_unseen(no);
                    }
                    for (at_ms, id) in ids.iter() {
                        self.broker.recover_seen(no, id, at_ms, seq);
                    }
                }
                Fact::Declared {
                    queue,
                    topic,
                    selector,
                    settings,
                } => {
                    let no = self.queue_no(&queue);
                    if topic.is_some() || !settings.is_empty() {
                        self.broker.ledger.recover_mark(seq, Mark::Declared(no));
                    }
                    // One that this version cannot read lets everything through: nothing that is wanted is lost.
                    let filter = selector.and_then(|text| Filter::parse(text, Filter::ANY).ok());
                    self.broker.bind(no, topic, filter.map(Arc::new));
                    self.broker.set_declared(no, settings);
                    self.broker.queue_mut(no).expect("it was just made").declared_at = seq;
                }
                Fact::Policy { pattern, settings } => {
                    if let Some(mark) = self.broker.policies.recover(&pattern, settings, seq) {
                        self.broker.ledger.recover_mark(seq, mark);
                    }
                }
            }
        }
    }

    fn queue_no(&mut self, name: &QueueName) -> QueueNo {
        self.broker.open_queue(name)
    }

    fn enqueue(&mut self, no: QueueNo, seq: Seq, fact: Enqueued) {
        let queue = self.broker.queue_mut(no).expect("it was just made");
        let (due_at, fields) = kept_fields(fact.fields);
        let mut offset = match &fact.place {
            Place::Chunk { offset, .. } => *offset,
            Place::Extent(_) => 0,
        };
        for ((sequence, message), item) in (fact.first_sequence..)
            .zip(fact.first_message.0..)
            .zip(fact.items)
        {
            let mut bytes = EntryBytes::of(&fact.place);
            if let EntryBytes::Stored { offset: at, .. } = &mut bytes {
                *at = offset;
            }
            offset += item.len;
            queue.take(sequence);
            queue.next_sequence = sequence;
            queue.push(Entry {
                message: MessageId(message),
                accepted_at_ms: fact.accepted_at_ms,
                home: seq,
                bytes,
                header_len: item.header_len,
                len: item.len,
                deliveries: fact.deliveries,
                failures: fact.failures,
                leased: false,
                set_aside: false,
                suspect: false,
                delayed: false,
                lane: PLAIN,
                due_at,
                fields: fields.clone(),
            });
        }
    }

    /// The broker, in a new term. Its first batch (the new term's counters) is ready for `poll_batch`.
    pub fn finish(mut self, recovered: &Recovered, now: Now) -> Broker {
        self.broker.now = now;
        let clean = recovered.meta.clean_epoch;
        let broker = &mut self.broker;
        let mut resting = Vec::new();
        for (no, queue) in (0..).map(QueueNo).zip(&broker.queues) {
            for (sequence, entry) in queue.iter().flat_map(|queue| queue.entries.iter()) {
                broker.ledger.recover_live(entry.home, &entry.bytes, entry.len);
                broker.expiring.insert(entry.expires_at_ms(), no, sequence);
                let is_schedule = entry.is_schedule();
                broker.schedule_count += usize::from(is_schedule);
                if let Some(due_at_ms) = entry.due_at_ms().filter(|due| is_schedule || *due > now.wall_ms) {
                    broker.expiring.insert(Some(due_at_ms), no, sequence);
                    resting.push((no, sequence));
                }
            }
        }
        for (no, sequence) in resting {
            let queue = broker.queue_mut(no).expect("it was just seen");
            queue.rest_again(sequence);
        }
        broker.recover_seen_end(recovered.uuid);
        broker
            .ledger
            .recover_end(recovered.last_seq, recovered.slot_count, recovered.meta);
        let next = broker.ledger.next_id();
        for queue in broker.queues.iter_mut().flatten() {
            queue.head = queue.entries.first().map_or(next, |(sequence, _)| sequence);
            queue.next_sequence = next;
            queue.durable_end = next;
            queue.counters = QueueCounters::default();
        }
        for (no, epoch) in self.watched {
            let Some(queue) = broker.queue_mut(no) else {
                continue;
            };
            if epoch > clean {
                queue.watched = true;
                let sequences: Vec<u64> = queue.entries.iter().map(|(sequence, _)| sequence).collect();
                for sequence in sequences {
                    queue.entries.get_mut(sequence).expect("it was just seen").suspect = true;
                }
            }
        }
        let all: Vec<QueueNo> = broker.names.values().copied().collect();
        all.into_iter().for_each(|no| broker.close_queue_if_idle(no));
        broker.now = now;
        broker.renew_policies(now);
        self.broker
    }
}
