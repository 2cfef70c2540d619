//! Transactions: SENDs staged and committed together; or, with `--acks`, what a worker does that takes messages from one
//! queue and puts them into another: the SENDs and the ACKs of one transaction.

use std::time::Duration;

use clap::Args;

use super::BenchError;
use super::args::{LoadArgs, PacedArgs, SENDING, count_parser};
use super::engine::{self, AckMode, Await, Plan, Stop};
use super::loads::Published;
use super::report::Report;

/// Messages to be moved, unless asked otherwise.
const MOVED: Stop = Stop::Count(50_000);
/// So long is waited for what should have gone with its ACK and did not.
const LEFT_BEHIND: Duration = Duration::from_millis(500);
/// Transactions without receipt per connection at most, unless asked otherwise.
const WINDOW: usize = 4;
/// The windows of brokers are no smaller; beyond it one is asked for.
const PREFETCH: usize = 500;

#[derive(Debug, Args)]
pub(super) struct TransactionsArgs {
    #[command(flatten)]
    pub(super) paced: PacedArgs,
    /// Messages in each transaction
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = count_parser)]
    pub(super) per_transaction: usize,
    /// Fill, unmeasured, then move everything to other queues: each transaction receives N messages, sends them on and
    /// acknowledges them
    #[arg(long, conflicts_with_all = ["rate", "duration_ms"])]
    pub(super) acks: bool,
}

pub(super) fn run(load: &LoadArgs, per_transaction: usize, acks: bool) -> Result<Report, BenchError> {
    if acks {
        return forward(load, per_transaction);
    }
    let mut plan = load.plan("transactions", SENDING, 8, WINDOW, None);
    plan.transaction = Some(per_transaction);
    Ok(Published::run(load, &plan)?.report(&plan))
}

fn forward(load: &LoadArgs, per_transaction: usize) -> Result<Report, BenchError> {
    let mut fill = load.plan("fill", MOVED, 8, WINDOW, None);
    fill.timeline = false;
    fill.window = fill.window.max(256);
    let (connections, queues) = (fill.producers, fill.destinations.len());
    if queues < connections {
        return Err(BenchError::Usage(
            "--acks needs at least as many --queues as --connections: two that empty one queue cannot keep its order",
        ));
    }
    let filled = engine::run(&fill)?;
    let awaited = Await::Count(filled.sent_count());
    let prefetch = load.prefetch.or_else(|| {
        let asked = per_transaction.saturating_mul(2);
        (asked > PREFETCH).then_some(u32::try_from(asked).unwrap_or(u32::MAX))
    });
    let plan = Plan {
        name: "transactions",
        consumers: connections,
        window: load.window.unwrap_or(WINDOW),
        transaction: Some(per_transaction),
        forward: load.destinations(&format!("{}moved-", load.prefix), queues),
        ack: AckMode::ClientIndividual,
        prefetch,
        timeline: load.timeline,
        ..load.look(&fill, awaited)
    };
    let mut moved = engine::run(&plan)?;
    let behind = engine::run(&load.look(&fill, Await::Quiet(LEFT_BEHIND)))?;
    let look = Plan {
        destinations: plan.forward.clone(),
        ..load.look(&fill, awaited)
    };
    let mut looked = engine::run(&look)?;

    // A message swapped on both ways would seem untouched in the end, so both deliveries are looked at.
    let first = moved.delivery_faults(&filled.sent);
    let mut faults = first.seen_by_either(looked.delivery_faults(&filled.sent));
    // What was acknowledged in a transaction with a receipt must not come again.
    faults.doubled += behind.received_count;
    for run in [&filled, &moved, &behind, &looked] {
        faults += run.faults;
    }
    let count = moved.received_count;
    Ok(Report::new(&plan, moved, count, true, faults))
}
