//! What a run is told as: a few lines for people, or one JSON object.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::engine::{Measured, Plan};
use super::timeline::Point;
use super::verify::Faults;

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) p9999: f64,
    pub(super) max: f64,
}

impl Latency {
    /// `None` if nothing was recorded.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Self {
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            p9999: us(0.9999),
            max: us(1.0),
        })
    }

    fn text(&self) -> String {
        let Self {
            p50,
            p90,
            p99,
            p999,
            p9999,
            max,
        } = self;
        [
            ("p50", p50),
            ("p90", p90),
            ("p99", p99),
            ("p99.9", p999),
            ("p99.99", p9999),
            ("max", max),
        ]
        .map(|(name, us)| format!("{name} {}", duration_text(*us)))
        .join("  ")
    }
}

/// What the broker's process used.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct BrokerUsage {
    pub(super) pid: u32,
    pub(super) cpu_s: f64,
    pub(super) cpu_s_per_million: f64,
    pub(super) rss_bytes_before: u64,
    pub(super) rss_bytes_after: u64,
    pub(super) rss_bytes_peak: u64,
    pub(super) written_bytes: u64,
    /// Bytes written to storage per byte of message body.
    pub(super) written_per_byte: f64,
}

/// The raw disk beside the broker, measured before and after it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct DiskRatio {
    /// Half of the appends of one body with fdatasync took no longer, in microseconds.
    pub(super) append_us_p50: f64,
    /// The receipt's p50 divided by that.
    pub(super) ratio: f64,
    /// Whether the ratio means something; see [`is_steady`].
    pub(super) steady: bool,
}

/// Two measurements of the same thing may differ by this factor, and something durable may be this much faster than the
/// raw disk (an append costs more than an overwrite).
const STEADY_FACTOR: f64 = 1.5;

/// Whether the raw disk was the same before and after, and what was made durable on it not faster than it: else something
/// else had the machine, and the ratio of the two says nothing.
pub(super) fn is_steady(before: f64, after: f64, faster_than_disk: f64) -> bool {
    before.max(after) <= before.min(after) * STEADY_FACTOR && faster_than_disk <= STEADY_FACTOR
}

/// What is shown beside a ratio that is not steady.
pub(super) const UNSTEADY: &str = " (UNSTEADY: the machine is not quiet, this ratio says nothing)";

/// The load generator alone, with the same load against a sink of its own, as fast as it goes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Generator {
    /// Messages per second.
    pub(super) rate_per_s: f64,
    /// That, divided by the rate of the run. Near 1 the run measures the generator and not the broker.
    pub(super) ratio: f64,
}

/// Below this the generator may have been what limited a run.
const GENERATOR_RATIO_MIN: f64 = 1.5;

/// How messages were shared out to the consumers.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Shares {
    least: u64,
    most: u64,
}

/// A ratio of two measurements made in turns: the median of the ratios of each turn, and how far they spread.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Ratio {
    /// Of values that belong together by their place.
    pub(super) fn of(over: &[f64], under: &[f64]) -> Self {
        let ratios: Vec<f64> = over
            .iter()
            .zip(under)
            .map(|(over, under)| over / under.max(1e-9))
            .collect();
        Self {
            median: median(&ratios),
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            most: ratios.iter().copied().fold(0.0, f64::max),
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{:.3} ({:.3} - {:.3})", self.median, self.least, self.most)
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    }
}

/// See the module's text.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) mode: &'static str,
    pub(super) version: &'static str,
    pub(super) addr: String,
    pub(super) body_bytes: usize,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) queues: usize,
    pub(super) window: usize,
    pub(super) rate_asked_per_s: Option<f64>,
    pub(super) per_transaction: Option<usize>,
    pub(super) acks_in_transactions: bool,
    pub(super) each_gets_all: bool,
    pub(super) undelivered_max: Option<u64>,
    pub(super) ack_mode: &'static str,
    pub(super) prefetch: Option<u32>,
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) rate_per_s: f64,
    /// To the RECEIPT of a SEND, or of the COMMIT of a transaction.
    pub(super) receipt_us: Option<Latency>,
    pub(super) delivery_us: Option<Latency>,
    pub(super) shares: Option<Shares>,
    pub(super) broker: Option<BrokerUsage>,
    pub(super) generator_cpu_s_per_million: f64,
    pub(super) generator: Option<Generator>,
    pub(super) disk: Option<DiskRatio>,
    /// Whether every message was looked at; false for a fill, whose messages stay.
    pub(super) verified: bool,
    pub(super) faults: Faults,
    pub(super) valid: bool,
    #[serde(skip)]
    pub(super) points: Vec<Point>,
}

impl Report {
    /// `messages` is what the rate counts; `faults` is the whole verdict.
    pub(super) fn new(
        plan: &Plan,
        measured: Measured,
        messages: u64,
        verified: bool,
        faults: Faults,
    ) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        let millions = messages.max(1) as f64 / 1e6;
        let broker = measured.usage.zip(plan.pid).map(|((before, after), pid)| {
            let written_bytes = after.written_bytes - before.written_bytes;
            let cpu_s = after.cpu_s - before.cpu_s;
            BrokerUsage {
                pid,
                cpu_s,
                cpu_s_per_million: cpu_s / millions,
                rss_bytes_before: before.rss_bytes,
                rss_bytes_after: after.rss_bytes,
                rss_bytes_peak: measured.rss_bytes_peak,
                written_bytes,
                written_per_byte: written_bytes as f64 / (messages as f64 * plan.body_bytes as f64).max(1.0),
            }
        });
        let received = measured.received.iter().copied();
        Self {
            mode: plan.name,
            version: env!("CARGO_PKG_VERSION"),
            addr: plan.target.addr.clone(),
            body_bytes: plan.body_bytes,
            producers: plan.producers,
            consumers: plan.consumers,
            queues: plan.destinations.len(),
            window: plan.window,
            rate_asked_per_s: plan.rate,
            per_transaction: plan.transaction,
            acks_in_transactions: !plan.forward.is_empty(),
            each_gets_all: plan.each_gets_all,
            undelivered_max: plan.undelivered_max,
            ack_mode: plan.ack.text(),
            prefetch: plan.prefetch,
            messages,
            seconds,
            rate_per_s: messages as f64 / seconds.max(1e-9),
            receipt_us: Latency::of(&measured.receipt_ns),
            delivery_us: Latency::of(&measured.delivery_ns),
            shares: received
                .clone()
                .min()
                .zip(received.max())
                .filter(|_| plan.consumers > 1)
                .map(|(least, most)| Shares { least, most }),
            broker,
            generator_cpu_s_per_million: measured.own_cpu_s / millions,
            generator: None,
            disk: None,
            verified,
            faults,
            valid: faults.none(),
            points: measured.points,
        }
    }

    /// What was asked for, in one line.
    pub(super) fn shape(&self) -> String {
        let mut text = format!("{} B", grouped(self.body_bytes as u64));
        // Writing to a String cannot fail, here and below.
        if self.producers > 0 {
            let _ = write!(text, ", {} producers", self.producers);
        }
        if self.producers > 0 || self.acks_in_transactions {
            let _ = write!(text, ", window {}", self.window);
        }
        if let Some(rate) = self.rate_asked_per_s {
            let _ = write!(text, ", at {rate} msg/s");
        }
        if let Some(count) = self.per_transaction {
            let acks = if self.acks_in_transactions {
                "SENDs and ACKs"
            } else {
                "SENDs"
            };
            let _ = write!(text, ", {count} {acks} in a transaction");
        }
        if let Some(max) = self.undelivered_max {
            let _ = write!(text, ", at most {max} undelivered each");
        }
        if self.consumers > 0 {
            let _ = write!(text, ", {} consumers, {}", self.consumers, self.ack_mode);
        }
        if let Some(prefetch) = self.prefetch.filter(|_| self.consumers > 0) {
            let _ = write!(text, ", prefetch {prefetch}");
        }
        let place = if self.each_gets_all { "topics" } else { "queues" };
        let _ = write!(text, ", {} {place}", self.queues);
        text
    }

    /// The lines for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}  {}\n", self.mode, self.shape());
        let (messages, rate) = (grouped(self.messages), grouped(self.rate_per_s as u64));
        let unit = if self.each_gets_all {
            "deliveries"
        } else {
            "messages"
        };
        let _ = writeln!(
            text,
            "  rate       {rate} msg/s ({messages} {unit} in {:.2} s)",
            self.seconds
        );
        let receipt = if self.per_transaction.is_some() {
            "commit  "
        } else {
            "receipt "
        };
        for (name, latency) in [(receipt, &self.receipt_us), ("delivery", &self.delivery_us)] {
            if let Some(latency) = latency {
                let _ = writeln!(text, "  {name}   {}", latency.text());
            }
        }
        if let Some(Shares { least, most }) = self.shares {
            let (least, most) = (grouped(least), grouped(most));
            let _ = writeln!(text, "  shares     {least} to {most} messages for each consumer");
        }
        if let Some(disk) = &self.disk {
            let raw = duration_text(disk.append_us_p50);
            let _ = writeln!(
                text,
                "  raw disk   append + fdatasync p50 {raw}; receipt p50 is {:.2} x{}",
                disk.ratio,
                if disk.steady { "" } else { UNSTEADY }
            );
        }
        match &self.broker {
            Some(broker) => {
                let mib = |bytes: u64| bytes as f64 / 1048576.0;
                let _ = writeln!(
                    text,
                    "  broker     {:.2} CPU s per million, RSS {:.0} -> {:.0} MiB (peak {:.0}), {:.2} bytes written per byte (pid {})",
                    broker.cpu_s_per_million,
                    mib(broker.rss_bytes_before),
                    mib(broker.rss_bytes_after),
                    mib(broker.rss_bytes_peak),
                    broker.written_per_byte,
                    broker.pid,
                );
            }
            None => text.push_str("  broker     process not found (name it with --pid)\n"),
        }
        let _ = write!(
            text,
            "  generator  {:.2} CPU s per million",
            self.generator_cpu_s_per_million
        );
        if let Some(generator) = &self.generator {
            let rate = grouped(generator.rate_per_s as u64);
            let _ = write!(text, "; alone {rate} msg/s, {:.1} x this rate", generator.ratio);
            if generator.ratio < GENERATOR_RATIO_MIN {
                text.push_str(": IT MAY BE THE LIMIT");
            }
        }
        text.push('\n');
        text.push_str(&verdict_text(&self.faults, self.verified));
        text
    }
}

/// One line that says whether the figures count.
pub(super) fn verdict_text(faults: &Faults, verified: bool) -> String {
    let Faults {
        lost,
        doubled,
        reordered,
        altered,
        foreign,
        unconfirmed,
        stray_receipts,
    } = *faults;
    if faults.none() {
        let checked = "nothing lost, doubled, reordered or altered";
        let text = if verified {
            checked
        } else {
            "every receipt came once; the messages stay, to be drained"
        };
        return format!("  verdict    valid: {text}\n");
    }
    let counts = [
        (lost, "lost"),
        (doubled, "doubled"),
        (reordered, "reordered"),
        (altered, "altered"),
        (
            foreign,
            "never sent, or of an earlier run (give a fresh --prefix)",
        ),
        (unconfirmed, "without receipt"),
        (stray_receipts, "receipts not due"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", grouped(*count)))
        .collect();
    format!("  verdict    INVALID: {}\n", counts.join(", "))
}

/// A number with commas between thousands.
pub(in crate::cli) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds in the unit that reads best.
pub(in crate::cli) fn duration_text(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Microseconds of a duration.
pub(super) fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_counts_only_beside_a_steady_disk() {
        assert!(is_steady(200.0, 260.0, 0.7));
        // Waiting for a processor, not for the disk: before, after, or all the time but for the broker.
        assert!(!is_steady(200.0, 4000.0, 0.7));
        assert!(!is_steady(4000.0, 200.0, 0.7));
        assert!(!is_steady(4000.0, 4000.0, 10.0));
    }

    #[test]
    fn a_ratio_of_turns_has_a_median_and_a_spread() {
        let ratio = Ratio::of(&[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]);
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.0, 1.0, 3.0));
        assert_eq!((median(&[]), median(&[4.0, 1.0, 2.0, 3.0])), (0.0, 2.5));
    }
}
