//! The plain loads: publish, fill, drain, e2e, ping-pong.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{LoadArgs, PacedArgs, PlottedArgs, SENDING, STORED};
use super::engine::{self, Await, Measured, Plan, Stop};
use super::report::{DiskRatio, Report, is_steady};
use super::verify::Faults;
use super::{BenchError, disk};

/// How many messages `ping-pong` sends, unless asked otherwise.
const PINGS: Stop = Stop::Count(2_000);

/// A drain of nobody knows how many messages is over when nothing came for this long.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) plotted: PlottedArgs,
    /// Do not fill: take what a fill has stored; without --count whatever there is
    #[arg(long)]
    pub(super) stored: bool,
}

#[derive(Debug, Args)]
pub(super) struct E2eArgs {
    #[command(flatten)]
    pub(super) paced: PacedArgs,
    /// Messages sent and not yet delivered per producer at most, so that latency means something
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_undelivered: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct PingPongArgs {
    #[command(flatten)]
    pub(super) paced: PacedArgs,
    /// Compare with append and fdatasync of one body in this folder, before and after
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
}

/// Messages sent, measured; then all of them received and looked at.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) sent: Measured,
    pub(super) looked: Measured,
    /// Of both together.
    pub(super) faults: Faults,
}

impl Published {
    pub(super) fn run(load: &LoadArgs, plan: &Plan) -> Result<Self, BenchError> {
        let sent = engine::run(plan)?;
        let look = load.look(plan, Await::Count(sent.sent_count()));
        let mut looked = engine::run(&look)?;
        let mut faults = looked.delivery_faults(&sent.sent);
        faults += sent.faults;
        faults += looked.faults;
        Ok(Self { sent, looked, faults })
    }

    /// What the sending gave.
    pub(super) fn report(self, plan: &Plan) -> Report {
        let count = self.sent.sent_count();
        Report::new(plan, self.sent, count, true, self.faults)
    }
}

/// Sends, measured; then receives it all, unmeasured, for the verdict.
pub(super) fn publish(load: &LoadArgs) -> Result<Report, BenchError> {
    let plan = load.plan("publish", SENDING, 8, 256, None);
    Ok(Published::run(load, &plan)?.report(&plan))
}

/// Sends and leaves it there.
pub(super) fn fill(load: &LoadArgs) -> Result<Report, BenchError> {
    let plan = load.plan("fill", STORED, 8, 256, None);
    let measured = engine::run(&plan)?;
    let (count, faults) = (measured.sent_count(), measured.faults);
    Ok(Report::new(&plan, measured, count, false, faults))
}

/// Fills, unmeasured, or takes what is `stored`; then receives it all.
pub(super) fn drain(load: &LoadArgs, stored: bool) -> Result<Report, BenchError> {
    let mut fill = load.plan("fill", STORED, 8, 256, Some(1));
    fill.timeline = false;
    let (sent, mut faults) = if stored {
        fill.run = None;
        (None, Faults::default())
    } else {
        let filled = engine::run(&fill)?;
        (Some(filled.sent), filled.faults)
    };
    let sent_count = sent.as_ref().map(|sent| sent.iter().sum());
    let awaited = sent_count
        .or(load.count)
        .map_or(Await::Quiet(QUIET), Await::Count);
    let plan = Plan {
        name: "drain",
        timeline: load.timeline,
        ..load.look(&fill, awaited)
    };
    let mut measured = engine::run(&plan)?;
    faults += match &sent {
        Some(sent) => measured.delivery_faults(sent),
        None => measured
            .verifiers
            .drain(..)
            .map(|verifier| verifier.finish_unknown(load.count))
            .next()
            .unwrap_or_default(),
    };
    faults += measured.faults;
    let count = measured.received_count;
    Ok(Report::new(&plan, measured, count, true, faults))
}

/// Producers and consumers at once.
pub(super) fn e2e(load: &LoadArgs, undelivered_max: Option<u64>) -> Result<Report, BenchError> {
    let mut plan = load.plan("e2e", SENDING, 4, 256, None);
    plan.consumers = load.consumers_for(plan.destinations.len());
    plan.undelivered_max = undelivered_max;
    both_ways(&plan)
}

/// Runs a plan of producers and consumers.
pub(super) fn both_ways(plan: &Plan) -> Result<Report, BenchError> {
    let mut measured = engine::run(plan)?;
    let sent = std::mem::take(&mut measured.sent);
    let mut faults = measured.delivery_faults(&sent);
    faults += measured.faults;
    let count = measured.received_count;
    Ok(Report::new(plan, measured, count, true, faults))
}

/// One message at a time, beside the raw disk under `dir` if there is one.
pub(super) fn ping_pong(load: &LoadArgs, dir: Option<&PathBuf>) -> Result<Report, BenchError> {
    let plan = load.plan("ping-pong", PINGS, 1, 1, None);
    let append_us_p50 = || {
        let measure = |dir: &PathBuf| {
            disk::append(dir, plan.body_bytes, Duration::from_secs(1))
                .map(|times| times.p50)
                .map_err(|source| BenchError::Disk {
                    dir: dir.clone(),
                    source,
                })
        };
        dir.filter(|_| !load.brief).map(measure).transpose()
    };
    let before = append_us_p50()?;
    let mut report = Published::run(load, &plan)?.report(&plan);
    report.disk = before
        .zip(append_us_p50()?)
        .zip(report.receipt_us)
        .map(|((before, after), receipt_us)| {
            let append_us_p50 = (before + after) / 2.0;
            let ratio = receipt_us.p50 / append_us_p50;
            DiskRatio {
                append_us_p50,
                ratio,
                steady: is_steady(before, after, 1.0 / ratio.max(1e-9)),
            }
        });
    Ok(report)
}
