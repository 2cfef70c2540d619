//! What a backlog costs: the same publish and drain with few messages stored and with many, in turns, as a ratio.

use clap::Args;
use serde::Serialize;

use super::BenchError;
use super::args::{LoadArgs, SENDING, STORED};
use super::engine::{self, Await, Stop};
use super::loads::Published;
use super::report::{Ratio, grouped, verdict_text};
use super::verify::Faults;

#[derive(Debug, Args)]
pub(super) struct BacklogArgs {
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// Messages that stay stored meanwhile, in one queue of their own
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) backlog: u64,
}

/// One publish and the drain of what it sent, in messages per second.
#[derive(Debug, Clone, Copy, Serialize)]
struct Stage {
    publish_per_s: f64,
    drain_per_s: f64,
}

/// What the mode tells.
#[derive(Debug, Serialize)]
pub(super) struct BacklogReport {
    mode: &'static str,
    version: &'static str,
    addr: String,
    body_bytes: usize,
    backlog: u64,
    /// In the order in which they were measured.
    few: Vec<Stage>,
    many: Vec<Stage>,
    /// With many stored, divided by with few.
    publish_ratio: Ratio,
    drain_ratio: Ratio,
    /// Storing and draining the backlog itself.
    fill_per_s: f64,
    empty_per_s: f64,
    pub(super) faults: Faults,
    pub(super) valid: bool,
}

/// Few, many, many, few: what drifts evenly over time falls on both alike.
pub(super) fn run(load: &LoadArgs, backlog: u64) -> Result<BacklogReport, BenchError> {
    let mut faults = Faults::default();
    let stage = |faults: &mut Faults| -> Result<Stage, BenchError> {
        let plan = load.plan("publish", SENDING, 8, 256, None);
        let published = Published::run(load, &plan)?;
        *faults += published.faults;
        Ok(Stage {
            publish_per_s: per_s(published.sent.sent_count(), &published.sent),
            drain_per_s: per_s(published.looked.received_count, &published.looked),
        })
    };
    let mut few = vec![stage(&mut faults)?];

    let mut fill = load.plan("fill", STORED, 8, 256, Some(1));
    fill.stop = Stop::Count(backlog);
    fill.destinations = vec![format!("{}backlog", load.prefix)];
    let filled = engine::run(&fill)?;
    let many = vec![stage(&mut faults)?, stage(&mut faults)?];
    let mut emptied = engine::run(&load.look(&fill, Await::Count(filled.sent_count())))?;
    faults += emptied.delivery_faults(&filled.sent);
    faults += filled.faults;
    faults += emptied.faults;

    few.push(stage(&mut faults)?);
    let ratio = |value: fn(&Stage) -> f64| {
        let values = |stages: &[Stage]| stages.iter().map(value).collect::<Vec<_>>();
        Ratio::of(&values(&many), &values(&few))
    };
    Ok(BacklogReport {
        mode: "backlog",
        version: env!("CARGO_PKG_VERSION"),
        addr: load.broker.at.addr.clone(),
        body_bytes: load.size,
        backlog,
        publish_ratio: ratio(|stage| stage.publish_per_s),
        drain_ratio: ratio(|stage| stage.drain_per_s),
        fill_per_s: per_s(filled.sent_count(), &filled),
        empty_per_s: per_s(emptied.received_count, &emptied),
        few,
        many,
        faults,
        valid: faults.none(),
    })
}

fn per_s(count: u64, measured: &engine::Measured) -> f64 {
    count as f64 / measured.elapsed.as_secs_f64().max(1e-9)
}

impl BacklogReport {
    pub(super) fn text(&self) -> String {
        type Line<'a> = (&'static str, fn(&Stage) -> f64, &'a Ratio);
        let rates = |stages: &[Stage], value: fn(&Stage) -> f64| {
            let rates: Vec<String> = stages.iter().map(|stage| grouped(value(stage) as u64)).collect();
            rates.join(", ")
        };
        let backlog = grouped(self.backlog);
        let mut text = format!(
            "backlog  {} B, {backlog} stored against none, in the order few, many, many, few\n",
            grouped(self.body_bytes as u64)
        );
        let lines: [Line<'_>; 2] = [
            ("publish", |stage| stage.publish_per_s, &self.publish_ratio),
            ("drain", |stage| stage.drain_per_s, &self.drain_ratio),
        ];
        for (name, value, ratio) in lines {
            text.push_str(&format!(
                "  {name:<10} few {} msg/s; many {} msg/s; many/few {}\n",
                rates(&self.few, value),
                rates(&self.many, value),
                ratio.text()
            ));
        }
        text.push_str(&format!(
            "  backlog    stored at {} msg/s, drained at {} msg/s\n",
            grouped(self.fill_per_s as u64),
            grouped(self.empty_per_s as u64)
        ));
        text.push_str(&verdict_text(&self.faults, true));
        text
    }
}
