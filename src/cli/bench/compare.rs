//! The standard set against two brokers in turns, A, B, B, A, ...: what the machine does meanwhile falls on both, and the
//! ratio says more than either figure. The same address twice shows the noise.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::super::target::header;
use super::args::{BrokerArgs, LoadArgs, count_parser, ms_parser, size_parser};
use super::report::{Ratio, Report, grouped, median, verdict_text};
use super::verify::Faults;
use super::{BenchError, loads, sink};

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The first broker: [LOGIN:PASSCODE@]HOST:PORT
    a: String,
    /// The second
    b: String,
    /// Virtual host, sent as `host` to both [default: the host of each address]
    #[arg(long)]
    host: Option<String>,
    /// Turns of each; an even number is fair to both
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = count_parser)]
    rounds: usize,
    /// How long each publish, e2e and ping-pong sends
    #[arg(long, default_value = "2000", value_name = "MS", value_parser = ms_parser)]
    duration_ms: Duration,
    /// Messages of each drain
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Bytes of each body
    #[arg(long, default_value_t = 1024, value_parser = size_parser)]
    size: usize,
    /// A further header of every SEND, to both; `persistent:true` asks RabbitMQ and ActiveMQ for what Steadfast does unasked
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// How long nothing may come though something is due, before the rest counts as lost
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = ms_parser)]
    patience_ms: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// One load of the standard set.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// Whether it is of a number of messages, not of a time: after a time each would have another backlog.
    counted: bool,
    run: fn(&LoadArgs) -> Result<Report, BenchError>,
    value: fn(&Report) -> f64,
}

const STANDARD: [Measure; 4] = [
    Measure {
        name: "ping-pong p50",
        unit: "us",
        counted: false,
        run: |load| loads::ping_pong(load, None),
        value: |report| report.receipt_us.map_or(0.0, |latency| latency.p50),
    },
    Measure {
        name: "publish",
        unit: "msg/s",
        counted: false,
        run: loads::publish,
        value: |report| report.rate_per_s,
    },
    Measure {
        name: "e2e",
        unit: "msg/s",
        counted: false,
        run: |load| loads::e2e(load, None),
        value: |report| report.rate_per_s,
    },
    Measure {
        name: "drain",
        unit: "msg/s",
        counted: true,
        run: |load| loads::drain(load, false),
        value: |report| report.rate_per_s,
    },
];

#[derive(Debug, Serialize)]
struct Row {
    measure: &'static str,
    unit: &'static str,
    /// By round.
    a: Vec<f64>,
    b: Vec<f64>,
    ratio: Ratio,
    /// The same load generator against a sink of its own.
    generator: f64,
}

/// What the mode tells.
#[derive(Debug, Serialize)]
pub(super) struct CompareReport {
    mode: &'static str,
    version: &'static str,
    a: String,
    b: String,
    body_bytes: usize,
    rows: Vec<Row>,
    a_faults: Faults,
    b_faults: Faults,
    pub(super) valid: bool,
}

pub(super) fn run(args: &CompareArgs) -> Result<CompareReport, BenchError> {
    let mut brokers = [BrokerArgs::named(&args.a), BrokerArgs::named(&args.b)];
    brokers
        .iter_mut()
        .for_each(|broker| broker.at.host = args.host.clone());
    let addrs = brokers.each_ref().map(|broker| broker.at.addr.clone());
    let sides = brokers.map(|broker| LoadArgs {
        headers: args.headers.clone(),
        ..LoadArgs::standard(broker, args.size, args.patience_ms)
    });
    let mut faults = [Faults::default(); 2];
    let mut rows = Vec::new();
    let sink = sink::SinkThread::start(None).map_err(BenchError::Sink)?;
    for measure in &STANDARD {
        let shaped = |load: &LoadArgs| LoadArgs {
            count: measure.counted.then_some(args.count),
            duration_ms: (!measure.counted).then_some(args.duration_ms),
            ..load.clone()
        };
        let mut values = [Vec::new(), Vec::new()];
        for round in 0..args.rounds {
            // A, B, then B, A.
            for turn in [round % 2, 1 - round % 2] {
                let sides = sides.iter().zip(&mut values).zip(&mut faults);
                for ((side, values), faults) in sides.skip(turn).take(1) {
                    let report = (measure.run)(&shaped(side))?;
                    values.push((measure.value)(&report));
                    *faults += report.faults;
                }
            }
        }
        let [a, b] = values;
        let [side, _] = &sides;
        let generator = (measure.run)(&shaped(side).brief(&sink.addr))?;
        rows.push(Row {
            measure: measure.name,
            unit: measure.unit,
            ratio: Ratio::of(&b, &a),
            a,
            b,
            generator: (measure.value)(&generator),
        });
    }
    let [a, b] = addrs;
    let [a_faults, b_faults] = faults;
    Ok(CompareReport {
        mode: "compare",
        version: env!("CARGO_PKG_VERSION"),
        a,
        b,
        body_bytes: args.size,
        rows,
        a_faults,
        b_faults,
        valid: a_faults.none() && b_faults.none(),
    })
}

impl CompareReport {
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "compare  {} B, {} rounds in turns A, B, B, A, ...\n  A {}\n  B {}\n",
            grouped(self.body_bytes as u64),
            self.rows.first().map_or(0, |row| row.a.len()),
            self.a,
            self.b
        );
        let heads = ["median", "A", "B", "", "B/A (least - most)", "generator alone"];
        let [name, a, b, unit, ratio, generator] = heads;
        text.push_str(&format!(
            "  {name:<14} {a:>12} {b:>12} {unit:<6} {ratio:<24} {generator:>15}\n"
        ));
        for row in &self.rows {
            let [a, b, generator] =
                [median(&row.a), median(&row.b), row.generator].map(|value| grouped(value as u64));
            text.push_str(&format!(
                "  {:<14} {a:>12} {b:>12} {:<6} {:<24} {generator:>15}\n",
                row.measure,
                row.unit,
                row.ratio.text()
            ));
        }
        for (name, faults) in [("A", &self.a_faults), ("B", &self.b_faults)] {
            text.push_str(&format!("{name} {}", verdict_text(faults, true)));
        }
        text
    }
}
