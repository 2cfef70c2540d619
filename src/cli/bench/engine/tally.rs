//! What all connections of a run count together.

use hdrhistogram::Histogram;

use super::Plan;
use super::window::Awaited;
use crate::cli::bench::BenchError;
use crate::cli::bench::timeline::{Timeline, histogram};
use crate::cli::bench::verify::{Bodies, Faults, Verifier};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) run: u32,
    pub(super) bodies: Bodies,
    /// One, or one for each consumer where each is due every message.
    pub(super) verifiers: Vec<Verifier>,
    copies: u64,
    pub(super) sent: Vec<u64>,
    sent_count: u64,
    /// The producer of each stream.
    owners: Vec<usize>,
    /// Deliveries due and not yet made, by producer; kept only where producers and consumers run together.
    undelivered: Vec<u64>,
    pub(super) received: Vec<u64>,
    pub(super) confirmed_count: u64,
    pub(super) receipt_ns: Histogram<u64>,
    pub(super) delivery_ns: Histogram<u64>,
    pub(super) timeline: Option<Timeline>,
    pub(super) faults: Faults,
}

impl Tally {
    pub(super) fn new(plan: &Plan) -> Result<Self, BenchError> {
        let timeline = plan.timeline.then(|| Timeline::new(plan.length())).transpose();
        Ok(Self {
            run: plan.run.unwrap_or_default(),
            bodies: Bodies::new(plan.body_bytes),
            verifiers: (0..plan.copies().max(1))
                .map(|_| Verifier::new(plan.run))
                .collect(),
            copies: plan.copies(),
            sent: Vec::new(),
            sent_count: 0,
            owners: Vec::new(),
            undelivered: vec![0; plan.producers],
            received: vec![0; plan.consumers],
            confirmed_count: 0,
            receipt_ns: histogram().map_err(BenchError::Histogram)?,
            delivery_ns: histogram().map_err(BenchError::Histogram)?,
            timeline: timeline.map_err(BenchError::Histogram)?,
            faults: Faults::default(),
        })
    }

    pub(super) fn start(&mut self, now_ns: u64) {
        if let Some(timeline) = &mut self.timeline {
            timeline.start(now_ns);
        }
    }

    pub(super) fn roll(&mut self, now_ns: u64) {
        if let Some(timeline) = &mut self.timeline {
            timeline.roll(now_ns);
        }
    }

    /// Another stream of that producer; gives its number.
    pub(super) fn note_stream(&mut self, producer: usize) -> usize {
        self.sent.push(0);
        self.owners.push(producer);
        self.sent.len() - 1
    }

    /// Whether the bound on undelivered messages lets that producer send.
    pub(super) fn may_send(&self, producer: usize, plan: &Plan) -> bool {
        let undelivered = self.undelivered.get(producer).copied().unwrap_or_default();
        plan.undelivered_max
            .is_none_or(|max| undelivered < max * self.copies)
    }

    /// Another message of that stream; gives its sequence.
    pub(super) fn note_sent(&mut self, stream: usize, producer: usize) -> u64 {
        if let Some(undelivered) = self.undelivered.get_mut(producer) {
            *undelivered += self.copies;
        }
        self.sent_count += 1;
        self.sent.get_mut(stream).map_or(0, |sent| {
            *sent += 1;
            *sent - 1
        })
    }

    pub(super) fn note_confirmed(&mut self, awaited: Option<Awaited>, now_ns: u64) {
        let Some(awaited) = awaited else {
            self.faults.stray_receipts += 1;
            return;
        };
        let latency_ns = now_ns.saturating_sub(awaited.since_ns);
        self.confirmed_count += awaited.message_count;
        self.receipt_ns.saturating_record(latency_ns);
        if let Some(timeline) = &mut self.timeline {
            timeline.confirmed(awaited.message_count, latency_ns);
        }
    }

    pub(super) fn note_delivered(&mut self, consumer: usize, body: &[u8], now_ns: u64) {
        if let Some(received) = self.received.get_mut(consumer) {
            *received += 1;
        }
        let group = if self.verifiers.len() > 1 { consumer } else { 0 };
        let verifier = self.verifiers.get_mut(group);
        let stamp = verifier.and_then(|verifier| verifier.check(consumer, body));
        let owner = stamp.and_then(|stamp| self.owners.get(stamp.stream as usize).copied());
        // Of a message sent in another run of the loop the time is that of another clock.
        let latency_ns = stamp.zip(owner).map(|(stamp, owner)| {
            if let Some(undelivered) = self.undelivered.get_mut(owner) {
                *undelivered = undelivered.saturating_sub(1);
            }
            now_ns.saturating_sub(stamp.sent_ns)
        });
        if let Some(latency_ns) = latency_ns {
            self.delivery_ns.saturating_record(latency_ns);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.delivered(latency_ns);
        }
    }

    pub(super) fn sent_count(&self) -> u64 {
        self.sent_count
    }

    pub(super) fn received_count(&self) -> u64 {
        self.received.iter().sum()
    }

    /// How many deliveries are accounted for.
    pub(super) fn accounted_count(&self) -> u64 {
        self.verifiers.iter().map(Verifier::accounted_count).sum()
    }
}
