//! What a run is told as: a few lines for people, or one JSON object.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::engine::{Measured, Plan};
use super::verify::Faults;

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
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
            max: us(1.0),
        })
    }

    fn text(&self) -> String {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        [
            ("p50", p50),
            ("p90", p90),
            ("p99", p99),
            ("p99.9", p999),
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

/// The raw disk beside the broker.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct DiskRatio {
    /// Half of the appends of one body with fdatasync took no longer, in microseconds.
    pub(super) append_us_p50: f64,
    /// The receipt's p50 divided by that.
    pub(super) ratio: f64,
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
    pub(super) undelivered_max: Option<u64>,
    pub(super) ack_mode: &'static str,
    pub(super) prefetch: Option<u32>,
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) rate_per_s: f64,
    pub(super) receipt_us: Option<Latency>,
    pub(super) delivery_us: Option<Latency>,
    pub(super) broker: Option<BrokerUsage>,
    pub(super) generator_cpu_s_per_million: f64,
    pub(super) disk: Option<DiskRatio>,
    /// Whether every message was looked at; false for a fill, whose messages stay.
    pub(super) verified: bool,
    pub(super) faults: Faults,
    pub(super) valid: bool,
}

impl Report {
    /// `messages` is what the rate counts; `faults` is the whole verdict.
    pub(super) fn new(
        plan: &Plan,
        measured: &Measured,
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
        Self {
            mode: plan.name,
            version: env!("CARGO_PKG_VERSION"),
            addr: plan.target.addr.clone(),
            body_bytes: plan.body_bytes,
            producers: plan.producers,
            consumers: plan.consumers,
            queues: plan.destinations.len(),
            window: plan.window,
            undelivered_max: plan.undelivered_max,
            ack_mode: plan.ack.text(),
            prefetch: plan.prefetch,
            messages,
            seconds,
            rate_per_s: messages as f64 / seconds.max(1e-9),
            receipt_us: Latency::of(&measured.receipt_ns),
            delivery_us: Latency::of(&measured.delivery_ns),
            broker,
            generator_cpu_s_per_million: measured.own_cpu_s / millions,
            disk: None,
            verified,
            faults,
            valid: faults.none(),
        }
    }

    /// The lines for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}  {} B", self.mode, grouped(self.body_bytes as u64));
        if self.producers > 0 {
            let _ = write!(text, ", {} producers, window {}", self.producers, self.window);
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
        let _ = writeln!(text, ", {} queues", self.queues);
        let (messages, rate) = (grouped(self.messages), grouped(self.rate_per_s as u64));
        let _ = writeln!(
            text,
            "  rate       {rate} msg/s ({messages} messages in {:.2} s)",
            self.seconds
        );
        for (name, latency) in [("receipt ", &self.receipt_us), ("delivery", &self.delivery_us)] {
            if let Some(latency) = latency {
                let _ = writeln!(text, "  {name}   {}", latency.text());
            }
        }
        if let Some(disk) = &self.disk {
            let raw = duration_text(disk.append_us_p50);
            let _ = writeln!(
                text,
                "  raw disk   append + fdatasync p50 {raw}; receipt p50 is {:.2} x",
                disk.ratio
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
        let _ = writeln!(
            text,
            "  generator  {:.2} CPU s per million",
            self.generator_cpu_s_per_million
        );
        text.push_str(&verdict_text(&self.faults, self.verified));
        text
    }
}

fn verdict_text(faults: &Faults, verified: bool) -> String {
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
pub(super) fn grouped(number: u64) -> String {
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
pub(super) fn duration_text(us: f64) -> String {
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
