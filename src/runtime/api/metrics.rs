//! What `/metrics` tells, in the OpenMetrics text format.
//!
//! One table says what there is; a reading is taken of it all, and every series is a function of the reading. Nothing is
//! kept between two scrapes, and nothing is counted for them but what is counted anyway.
//!
//! # Invariants
//! - Series of single queues are bounded by `metrics_queue_count_max`: the deepest are shown, of equal depth the first
//!   by name. The sums are over all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::broker::{Counters, LedgerView};
use crate::port::{HoldingsView, QueueView};

use super::super::stats::StatsView;
use super::super::timings::{BOUNDS_US, HistogramView};
use super::Parts;
use super::views::Totals;

/// The media type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name, without the suffix that its kind adds.
    name: &'static str,
    /// What it means.
    pub help: &'static str,
    source: Source,
}

/// Where its values come from; this says of what kind it is.
#[derive(Debug)]
enum Source {
    Counter(fn(&Reading) -> u64),
    Gauge(fn(&Reading) -> u64),
    Seconds(fn(&Reading) -> f64),
    /// One counter for each value of a label.
    Labelled(&'static str, fn(&Reading) -> Vec<(&'static str, u64)>),
    Histogram(fn(&Reading) -> &HistogramView),
    QueueCounter(fn(&QueueView) -> u64),
    QueueGauge(fn(&QueueView) -> u64),
    /// At a wall-clock time; left out where there is no value.
    QueueSeconds(fn(&QueueView, u64) -> Option<f64>),
}

impl Metric {
    /// Its name as it is scraped: that of a histogram without `_bucket`, `_sum` and `_count`.
    pub fn name(&self) -> String {
        match self.source {
            Source::Counter(_) | Source::Labelled(..) | Source::QueueCounter(_) => {
                format!("{}_total", self.name)
            }
            _ => self.name.to_owned(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self.source {
            Source::Counter(_) | Source::Labelled(..) | Source::QueueCounter(_) => "counter",
            Source::Histogram(_) => "histogram",
            _ => "gauge",
        }
    }

    /// Its label, if it has one.
    pub fn label(&self) -> Option<&'static str> {
        match self.source {
            Source::Labelled(label, _) => Some(label),
            Source::QueueCounter(_) | Source::QueueGauge(_) | Source::QueueSeconds(_) => Some(QUEUE),
            _ => None,
        }
    }
}

const QUEUE: &str = "queue";

/// Everything that values come from.
#[derive(Debug)]
pub(super) struct Reading {
    stats: StatsView,
    counters: Counters,
    ledger: LedgerView,
    holdings: HoldingsView,
    totals: Totals,
    file_bytes: u64,
    ready: bool,
    uptime_ms: u64,
    wall_ms: u64,
    commit: HistogramView,
    flush: HistogramView,
    dispatch: HistogramView,
    end_to_end: HistogramView,
    queues: Vec<QueueView>,
    queue_skipped_count: u64,
}

macro_rules! metrics {
    ($($name:literal, $help:literal, $kind:ident($($source:expr),+);)*) => {
        /// Every metric, for `docs/metrics.md`.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            help: $help,
            source: Source::$kind($($source),+),
        }),*];
    };
}

metrics! {
    "steadfast_ready", "1 while the broker is ready, as /health/ready says; else 0", Gauge(|of| u64::from(of.ready));
    "steadfast_uptime_seconds", "Time since the start of the process", Seconds(|of| of.uptime_ms as f64 / 1e3);
    "steadfast_connections", "Connections open now", Gauge(|of| of.stats.connection_count);
    "steadfast_connections_accepted", "Connections accepted", Counter(|of| of.stats.accepted_count);
    "steadfast_connections_turned_away", "Connections turned away at connection_count_max or address_connection_count_max", Counter(|of| of.stats.turned_away_count);
    "steadfast_accept_failures", "Failed calls of accept: descriptors or memory are short", Counter(|of| of.stats.accept_failed_count);
    "steadfast_logins_denied", "Logins denied; the log says whose and why", Counter(|of| of.stats.login_denied_count);
    "steadfast_connections_closed", "Connections ended, by why", Labelled("reason", |of| vec![
        ("disconnect", of.stats.disconnected_count),
        ("violation", of.stats.violation_count),
        ("refusal", of.stats.refused_count),
        ("timeout", of.stats.timed_out_count),
        ("lost", of.stats.lost_count),
        ("fault", of.stats.fault_count),
    ]);
    "steadfast_received_bytes", "Bytes read from connections", Counter(|of| of.stats.in_bytes);
    "steadfast_sent_bytes", "Bytes written to connections", Counter(|of| of.stats.out_bytes);
    "steadfast_requests", "Requests of clients that took effect", Counter(|of| of.stats.request_count);
    "steadfast_requests_refused", "Requests of clients that were refused", Counter(|of| of.counters.refused_count);
    "steadfast_access_denied", "What the rules did not allow to clients; the log names each", Counter(|of| of.counters.denied_count);
    "steadfast_queues", "Queues that have messages or subscriptions, are paused, keep the messages of a topic, or remember deduplication ids", Gauge(|of| of.holdings.queue_count);
    "steadfast_queues_paused", "Queues whose deliveries an operator has stopped", Gauge(|of| of.totals.paused_count);
    "steadfast_queues_skipped", "Queues that have no series of their own, being over metrics_queue_count_max", Gauge(|of| of.queue_skipped_count);
    "steadfast_topics", "Topics that have subscriptions", Gauge(|of| of.holdings.topic_count);
    "steadfast_subscriptions", "Subscriptions of all connections", Gauge(|of| of.totals.subscription_count);
    "steadfast_subscriptions_stuck", "Subscriptions on queues that hold their limit and have settled nothing for stuck_subscription_ms", Gauge(|of| of.totals.stuck_count);
    "steadfast_transactions", "Open transactions", Gauge(|of| of.totals.transaction_count);
    "steadfast_messages", "Messages in all queues", Gauge(|of| of.totals.message_count);
    "steadfast_messages_bytes", "Their bytes", Gauge(|of| of.totals.message_bytes);
    "steadfast_messages_leased", "Messages out for delivery, in all queues", Gauge(|of| of.totals.leased_count);
    "steadfast_messages_set_aside", "Messages not delivered in this run, because their bytes could not be read", Gauge(|of| of.totals.set_aside_count);
    "steadfast_messages_transient", "Messages in memory only (persistent:false)", Gauge(|of| of.holdings.transient_count);
    "steadfast_memory_bytes", "Bytes of transient and staged messages; memory_bytes_max bounds them", Gauge(|of| of.holdings.transient_bytes + of.holdings.staged_bytes);
    "steadfast_messages_enqueued", "Messages accepted into queues", Counter(|of| of.counters.enqueued_count);
    "steadfast_deliveries", "Deliveries handed to sessions", Counter(|of| of.counters.delivered_count);
    "steadfast_settlements", "Deliveries settled, by outcome", Labelled("outcome", |of| vec![
        ("accepted", of.counters.accepted_count),
        ("failed", of.counters.failed_count),
        ("released", of.counters.released_count),
    ]);
    "steadfast_dead_letters", "Messages moved to a dead-letter queue", Counter(|of| of.counters.dead_lettered_count);
    "steadfast_topic_messages_in", "Messages accepted for topics", Counter(|of| of.counters.topic_in_count);
    "steadfast_topic_messages_out", "Topic messages handed to sessions", Counter(|of| of.counters.topic_out_count);
    "steadfast_topic_messages_dropped", "Topic messages dropped for slow subscribers", Counter(|of| of.counters.topic_dropped_count);
    "steadfast_schedules", "Messages that come again and again; schedule_count_max bounds them", Gauge(|of| of.holdings.schedule_count);
    "steadfast_schedule_occurrences", "Times that such a message came", Counter(|of| of.counters.occurrence_count);
    "steadfast_messages_expired", "Messages that expired", Counter(|of| of.counters.expired_count);
    "steadfast_leases_lapsed", "Deliveries that were unsettled when their ack-timeout ran out", Counter(|of| of.counters.lapsed_count);
    "steadfast_messages_dropped", "Messages that made room for newer ones in a full queue", Counter(|of| of.counters.dropped_count);
    "steadfast_duplicates", "Messages that were stored nowhere because they had been before", Counter(|of| of.counters.duplicate_count);
    "steadfast_dedup_ids", "Deduplication ids that all queues remember", Gauge(|of| of.holdings.dedup_id_count);
    "steadfast_dedup_bytes", "About what they take in memory; dedup_bytes_max bounds it", Gauge(|of| of.holdings.dedup_bytes);
    "steadfast_dedup_ids_forgotten", "Deduplication ids forgotten before their window was over, for dedup_count_max or dedup_bytes_max", Counter(|of| of.counters.dedup_forgotten_count);
    "steadfast_late_replies", "Messages for temporary queues that were gone with their session", Counter(|of| of.counters.late_reply_count);
    "steadfast_transactions_ended", "Transactions ended, by outcome", Labelled("outcome", |of| vec![
        ("committed", of.counters.committed_count),
        ("aborted", of.counters.aborted_count),
    ]);
    "steadfast_operator_messages", "Messages that an operator acted on, by act", Labelled("act", |of| vec![
        ("purge", of.counters.purged_count),
        ("move", of.counters.moved_count),
        ("copy", of.counters.copied_count),
    ]);
    "steadfast_commits", "Batches made durable", Counter(|of| of.stats.commit_count);
    "steadfast_commit_seconds", "Time of a commit: append and flush", Histogram(|of| &of.commit);
    "steadfast_flush_seconds", "Time of the flush of a commit", Histogram(|of| &of.flush);
    "steadfast_dispatch_seconds", "From a durable commit to its messages being handed to connections", Histogram(|of| &of.dispatch);
    "steadfast_end_to_end_seconds", "From the first request of a commit to its messages being handed to connections, once for each commit: what a waiting consumer sees of the broker", Histogram(|of| &of.end_to_end);
    "steadfast_durable_seq", "The last batch that is durable", Gauge(|of| of.ledger.durable.0);
    "steadfast_unflushed_bytes", "Bytes that wait for a flush; at unflushed_bytes_max sockets are not read", Gauge(|of| of.holdings.unflushed_bytes);
    "steadfast_store_file_bytes", "Bytes of the store's file", Gauge(|of| of.file_bytes);
    "steadfast_store_live_bytes", "Bytes of slots and index chunks that hold something live", Gauge(|of| of.ledger.held_bytes());
    "steadfast_store_slots", "Body slots in the pool", Gauge(|of| u64::from(of.ledger.slot_count));
    "steadfast_store_slots_free", "Body slots that hold nothing live", Gauge(|of| u64::from(of.ledger.free_slot_count));
    "steadfast_store_index_bytes", "Bytes of live index chunks", Gauge(|of| of.ledger.index_bytes);
    "steadfast_store_index_dead_bytes", "Bytes among them that say nothing any more", Gauge(|of| of.ledger.index_dead_bytes);
    "steadfast_store_compactions", "Index chunks compacted", Counter(|of| of.counters.compacted_count);
    "steadfast_disk_room", "1 while the disk has room for messages, else 0: SENDs are refused", Gauge(|of| u64::from(of.holdings.room));
    "steadfast_body_chunks_hit", "Body chunks found in memory", Counter(|of| of.stats.body_hit_count);
    "steadfast_body_chunks_read", "Body chunks read from the store", Counter(|of| of.stats.body_read_count);
    "steadfast_queue_messages", "Messages in the queue", QueueGauge(|of| of.depth);
    "steadfast_queue_bytes", "Their bytes", QueueGauge(|of| of.bytes);
    "steadfast_queue_ready", "Messages waiting", QueueGauge(|of| of.ready_count);
    "steadfast_queue_leased", "Messages out for delivery", QueueGauge(|of| of.leased_count);
    "steadfast_queue_set_aside", "Messages not delivered in this run, because their bytes could not be read", QueueGauge(|of| of.set_aside_count);
    "steadfast_queue_subscriptions", "Subscriptions", QueueGauge(|of| of.subscription_count);
    "steadfast_queue_subscriptions_stuck", "Subscriptions that hold their limit and have settled nothing for stuck_subscription_ms", QueueGauge(|of| of.stuck_count);
    "steadfast_queue_paused", "1 while deliveries are stopped, else 0", QueueGauge(|of| u64::from(of.paused));
    "steadfast_queue_oldest_seconds", "How long the oldest message has waited; absent without one", QueueSeconds(|of, wall_ms| of.oldest_at_ms.map(|at_ms| wall_ms.saturating_sub(at_ms) as f64 / 1e3));
    "steadfast_queue_in", "Messages added since the queue exists in this run", QueueCounter(|of| of.counters.in_count);
    "steadfast_queue_out", "Deliveries handed to sessions", QueueCounter(|of| of.counters.out_count);
    "steadfast_queue_accepted", "Messages settled as accepted", QueueCounter(|of| of.counters.accepted_count);
    "steadfast_queue_failed", "Deliveries settled as failed", QueueCounter(|of| of.counters.failed_count);
    "steadfast_queue_dead_letters", "Messages moved to the queue's dead-letter queue", QueueCounter(|of| of.counters.dead_lettered_count);
}

impl Parts {
    /// Takes a reading of everything.
    pub(super) async fn reading(&self) -> Reading {
        let mut deepest = Deepest::new(self.shared.session.get().limits.metrics_queue_count_max);
        let totals = self.totals(|queue| deepest.see(queue)).await;
        let (queues, queue_skipped_count) = deepest.end();
        let store = self.store.clone();
        let file_bytes = tokio::task::spawn_blocking(move || store.stats().file_bytes).await;
        let now = self.shared.clock.now();
        Reading {
            stats: self.shared.stats.view(),
            counters: self.shared.core.counters(),
            ledger: self.shared.core.ledger(),
            holdings: self.shared.core.holdings(),
            totals,
            file_bytes: file_bytes.unwrap_or_default(),
            ready: self.health().ok,
            uptime_ms: now.mono_ms,
            wall_ms: now.wall_ms,
            commit: self.timings.commit.view(),
            flush: self.timings.flush.view(),
            dispatch: self.timings.dispatch.view(),
            end_to_end: self.timings.end_to_end.view(),
            queues,
            queue_skipped_count,
        }
    }
}

impl Reading {
    /// The text of a scrape. Takes a while where queues are many.
    pub(super) fn into_text(self) -> String {
        let mut text = String::new();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }

    fn encode_one(&self, metric: &Metric, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match metric.source {
            Source::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(&value(self), None),
            Source::Gauge(value) => encoder.encode_gauge(&value(self)),
            Source::Seconds(value) => encoder.encode_gauge(&value(self)),
            Source::Labelled(label, values) => values(self).into_iter().try_for_each(|(of, value)| {
                encoder
                    .encode_family(&[(label, of)])?
                    .encode_counter::<NoLabelSet, _, f64>(&value, None)
            }),
            Source::Histogram(view) => encode_histogram(view(self), &mut encoder),
            Source::QueueCounter(value) => self.queues.iter().try_for_each(|queue| {
                encoder
                    .encode_family(&name_of(queue))?
                    .encode_counter::<NoLabelSet, _, f64>(&value(queue), None)
            }),
            Source::QueueGauge(value) => self.queues.iter().try_for_each(|queue| {
                encoder
                    .encode_family(&name_of(queue))?
                    .encode_gauge(&value(queue))
            }),
            Source::QueueSeconds(value) => self.queues.iter().try_for_each(|queue| {
                let Some(value) = value(queue, self.wall_ms) else {
                    return Ok(());
                };
                encoder.encode_family(&name_of(queue))?.encode_gauge(&value)
            }),
        }
    }
}

fn name_of(queue: &QueueView) -> [(&'static str, &str); 1] {
    [(QUEUE, &*queue.name)]
}

fn encode_histogram(view: &HistogramView, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    let seconds = |us: u64| us as f64 / 1e6;
    let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(view.counts).collect();
    encoder.encode_histogram::<NoLabelSet>(seconds(view.sum_us), view.count(), &buckets, None)
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| {
            let kind = match metric.kind() {
                "counter" => MetricType::Counter,
                "gauge" => MetricType::Gauge,
                _ => MetricType::Histogram,
            };
            self.encode_one(
                metric,
                encoder.encode_descriptor(metric.name, metric.help, None, kind)?,
            )
        })
    }
}

/// The deepest of many queues.
#[derive(Debug)]
struct Deepest {
    count_max: usize,
    skipped_count: u64,
    /// The shallowest on top, of equal depth the last by name.
    heap: BinaryHeap<Reverse<ByDepth>>,
}

impl Deepest {
    fn new(count_max: usize) -> Self {
        Self {
            count_max,
            skipped_count: 0,
            heap: BinaryHeap::new(),
        }
    }

    fn see(&mut self, queue: QueueView) {
        let queue = ByDepth(queue);
        let is_full = self.heap.len() >= self.count_max;
        self.skipped_count += u64::from(is_full);
        if is_full && self.heap.peek().is_none_or(|Reverse(last)| queue < *last) {
            return;
        }
        if is_full {
            self.heap.pop();
        }
        self.heap.push(Reverse(queue));
    }

    /// By name, and how many there are beside them.
    fn end(self) -> (Vec<QueueView>, u64) {
        let mut queues: Vec<QueueView> = self
            .heap
            .into_iter()
            .map(|Reverse(ByDepth(queue))| queue)
            .collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        (queues, self.skipped_count)
    }
}

/// The deeper is the greater, of equal depth the first by name.
#[derive(Debug)]
struct ByDepth(QueueView);

impl Ord for ByDepth {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let depth = self.0.depth.cmp(&other.0.depth);
        depth.then_with(|| other.0.name.cmp(&self.0.name))
    }
}

impl PartialOrd for ByDepth {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByDepth {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByDepth {}

#[cfg(test)]
mod tests;
