//! `steadfast queues` and `steadfast dlq`: every queue in a line.

use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};

use super::api_client::{ApiClient, Route};
use super::show::{counted, duration, escaped};
use super::table::{FLAGS, Look, table};
use super::{Failure, StoreArgs, print_json, written};
use crate::api::{PAGE_COUNT_MAX, Queue, Queues};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct QueuesArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The order: by name, or the largest first
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "name")]
    sort: Sort,
    /// Only queues whose names begin so
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object on each line, as the API has it
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
HELD messages are with a client and not settled; OLDEST is how long the oldest has waited; IN, OUT, FAILED and DEAD (moved to \
its dead-letter queue) count since the queue exists in this run. FLAGS: the session of a temporary queue; the topic that it keeps, a durable subscription; paused; ids that an empty queue remembers, by which it knows what was sent before; stuck, a subscription holds its limit and settles nothing.

Examples:
  steadfast queues
  steadfast queues --sort depth --limit 10
  steadfast queues --json | jq -r 'select(.subscription_count == 0) | .name'

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

#[derive(Debug, Args)]
#[command(after_help = DLQ_EXAMPLES)]
pub(super) struct DlqArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object on each line, as the API has it
    #[arg(long)]
    json: bool,
}

const DLQ_EXAMPLES: &str = "\
A message that failed too often, or was rejected, lies in DLQ.NAME, or in the dead-letter queue that the policy of its queue
names. `peek` shows where it came from and why.

Examples:
  steadfast dlq
  steadfast peek DLQ.orders
  steadfast queue requeue DLQ.orders

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Name,
    Depth,
    Bytes,
    Ready,
    Held,
    Subscriptions,
    /// The oldest message
    Age,
    In,
    Out,
    Failed,
    Dead,
}

impl Sort {
    /// Sorts by it; the same value by name.
    pub(super) fn sort(self, queues: &mut [Queue]) {
        if self != Self::Name {
            queues.sort_by_cached_key(|queue| (Reverse(self.value(queue)), queue.name.clone()));
        }
    }

    fn value(self, queue: &Queue) -> u64 {
        match self {
            Self::Name => 0,
            Self::Depth => queue.depth,
            Self::Bytes => queue.bytes,
            Self::Ready => queue.ready_count,
            Self::Held => queue.leased_count,
            Self::Subscriptions => queue.subscription_count,
            Self::Age => queue.oldest_ms.unwrap_or_default(),
            Self::In => queue.in_count,
            Self::Out => queue.out_count,
            Self::Failed => queue.failed_count,
            Self::Dead => queue.dead_lettered_count,
        }
    }
}

pub(super) fn run(args: QueuesArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    // In the order of names the first ones are enough.
    let wanted = args.limit.filter(|_| args.sort == Sort::Name);
    let mut queues = fetch(&api, args.prefix.as_deref(), wanted)?;
    args.sort.sort(&mut queues);
    queues.truncate(args.limit.map_or(usize::MAX, |limit| limit as usize));
    if args.json {
        return print_json(&queues);
    }
    show(
        &queues,
        match args.prefix {
            Some(_) => "no queue of such a name has messages or subscriptions",
            None => "no queue has messages or subscriptions",
        },
    )
}

pub(super) fn dlq(args: DlqArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    let mut queues = fetch(&api, None, None)?;
    queues.retain(|queue| queue.dead_letter && queue.depth > 0);
    if args.json {
        return print_json(&queues);
    }
    show(&queues, "no dead letters")
}

/// Every queue, or the first ones, in the order of names.
pub(super) fn fetch(
    api: &ApiClient,
    prefix: Option<&str>,
    count_max: Option<u64>,
) -> Result<Vec<Queue>, Failure> {
    let mut queues = Vec::new();
    let mut from = None;
    loop {
        let left = count_max.map_or(u64::MAX, |count| count - queues.len() as u64);
        if left == 0 {
            return Ok(queues);
        }
        let route = Route::new(&["queues"])
            .with("prefix", prefix)
            .with("from", from.take())
            .with("count", Some(left.min(PAGE_COUNT_MAX)));
        let page: Queues = api.get(route)?;
        queues.extend(page.queues);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(queues),
        }
    }
}

fn show(queues: &[Queue], nothing: &str) -> Result<(), Failure> {
    let look = Look::of_stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = if queues.is_empty() {
        writeln!(out, "{nothing}")
    } else {
        table(&mut out, look, &rows(look, queues))
    };
    written(shown.and_then(|()| out.flush()))
}

fn rows(look: Look, queues: &[Queue]) -> Vec<[String; 13]> {
    let head = [
        "QUEUE", FLAGS, "DEPTH", "READY", "HELD", "DELAYED", "SUBS", "OLDEST", "BYTES", "IN", "OUT",
        "FAILED", "DEAD",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(queues.iter().map(|queue| {
        [
            escaped(&queue.name),
            flags(queue),
            queue.depth.to_string(),
            queue.ready_count.to_string(),
            queue.leased_count.to_string(),
            // Nothing is delayed yet in most brokers.
            Some(queue.delayed_count)
                .filter(|count| *count > 0)
                .map(|count| count.to_string())
                .unwrap_or_default(),
            queue.subscription_count.to_string(),
            queue.oldest_ms.map(duration).unwrap_or_default(),
            look.bytes(queue.bytes),
            queue.in_count.to_string(),
            queue.out_count.to_string(),
            queue.failed_count.to_string(),
            queue.dead_lettered_count.to_string(),
        ]
    }));
    rows
}

/// What is out of the ordinary.
pub(super) fn flags(queue: &Queue) -> String {
    let mut flags = Vec::new();
    if let Some(session) = queue.owner {
        flags.push(format!("of session {session}"));
    }
    if let Some(topic) = &queue.topic {
        flags.push(format!("keeps /topic/{}", escaped(topic)));
    }
    if queue.paused {
        flags.push("paused".to_owned());
    }
    if queue.dedup_id_count > 0 && queue.depth + queue.subscription_count == 0 {
        flags.push(format!("remembers {}", counted(queue.dedup_id_count, "id")));
    }
    if queue.stuck_count > 0 {
        flags.push(format!("{} stuck", counted(queue.stuck_count, "subscriber")));
    }
    if queue.set_aside_count > 0 {
        flags.push(format!("{} set aside", queue.set_aside_count));
    }
    flags.join(", ")
}
