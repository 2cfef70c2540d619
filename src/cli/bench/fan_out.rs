//! Many receivers: of one topic, where each is due every message, or of one queue, where each message goes to one.

use clap::{Args, ValueEnum};

use super::BenchError;
use super::args::{LoadArgs, PacedArgs, SENDING};
use super::loads::both_ways;
use super::report::Report;

/// Messages that are under way to the slowest subscriber of a topic, unless asked otherwise: brokers bound what they
/// keep for one and cut off who is behind.
const UNDELIVERED_MAX: u64 = 256;
const CONSUMERS: usize = 8;

/// What the receivers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shared {
    /// One topic: each receives every message.
    Topic,
    /// One queue: each message goes to one of them.
    Queue,
}

#[derive(Debug, Args)]
pub(super) struct FanOutArgs {
    #[command(flatten)]
    pub(super) paced: PacedArgs,
    /// What the receivers share; for a topic `/queue/` in the prefix becomes `/topic/`
    #[arg(long, value_enum, default_value = "topic")]
    pub(super) to: Shared,
    /// Messages sent and not yet delivered per producer at most, counted over all receivers [default: topic 256]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_undelivered: Option<u64>,
}

pub(super) fn run(load: &LoadArgs, to: Shared, undelivered_max: Option<u64>) -> Result<Report, BenchError> {
    let mut plan = load.plan("fan-out", SENDING, 1, 256, Some(1));
    plan.consumers = load.consumers.unwrap_or(CONSUMERS);
    plan.undelivered_max = undelivered_max;
    if to == Shared::Topic {
        let [destination] = plan.destinations.as_mut_slice() else {
            return Err(BenchError::Usage(
                "there is one topic: --queues is for --to queue",
            ));
        };
        if let Some(name) = destination.strip_prefix("/queue/") {
            *destination = format!("/topic/{name}");
        }
        plan.each_gets_all = true;
        if plan.rate.is_none() {
            plan.undelivered_max = undelivered_max.or(Some(UNDELIVERED_MAX));
        }
    }
    both_ways(&plan)
}
