//! `steadfast status`: the running broker in a dozen lines.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::api_client::{ApiClient, Route};
use super::show::{counted, duration, escaped, utc};
use super::table::Look;
use super::{Failure, StoreArgs, print_json, written};
use crate::api::{Latency, Status, Store};
use crate::base::Dialect;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object: status and store, as the API has them
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  steadfast status
  steadfast status --data-dir /var/lib/steadfast --json | jq .status.health

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

#[derive(Serialize)]
struct Both<'a> {
    status: &'a Status,
    store: &'a Store,
}

pub(super) fn run(args: StatusArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    let status: Status = api.get(Route::new(&["status"]))?;
    let store: Store = api.get(Route::new(&["store"]))?;
    if args.json {
        return print_json(&[Both {
            status: &status,
            store: &store,
        }]);
    }
    let mut out = io::stdout().lock();
    written(show(&mut out, Look::of_stdout(), &status, &store).and_then(|()| out.flush()))
}

fn show(out: &mut dyn Write, look: Look, status: &Status, store: &Store) -> io::Result<()> {
    let mut line = |name: &str, text: String| writeln!(out, "{} {text}", look.bold(&format!("{name:<12}")));
    line(
        "broker",
        format!(
            "steadfast {}, pid {}, up {} (since {})",
            escaped(&status.version),
            status.pid,
            duration(status.uptime_ms),
            utc(status.started_at_ms)
        ),
    )?;
    let health = if status.health.ok {
        "ready".to_owned()
    } else {
        let reasons = status.health.reasons.iter();
        let reasons: Vec<String> = reasons
            .map(|reason| format!("{}: {}", escaped(&reason.code), escaped(&reason.message)))
            .collect();
        look.warning(&format!("not ready: {}", reasons.join("; ")))
    };
    line("health", health)?;
    line("data folder", escaped(&status.data_dir))?;
    let dialects = status.dialects.iter().map(Some).chain(std::iter::repeat(None));
    let listens = status
        .listen
        .iter()
        .zip(dialects)
        .map(|(address, dialect)| match dialect {
            Some(dialect) if dialect != Dialect::default().name() => format!("{address} ({dialect})"),
            _ => address.clone(),
        });
    line("listens on", escaped(&listens.collect::<Vec<_>>().join(", ")))?;
    if let Some(addr) = &status.metrics_listen {
        line("metrics on", escaped(addr))?;
    }
    line(
        "queues",
        format!(
            "{} with {} ({})",
            status.queue_count,
            counted(status.message_count, "message"),
            look.bytes(status.message_bytes)
        ),
    )?;
    line(
        "clients",
        format!(
            "{}, {}, {}, {}",
            counted(status.connection_count, "connection"),
            counted(status.subscription_count, "subscription"),
            counted(status.topic_count, "topic"),
            counted(status.transaction_count, "open transaction")
        ),
    )?;
    line(
        "memory",
        format!(
            "{} of {}: {}, and {} staged in transactions",
            look.bytes(status.transient_bytes + status.staged_bytes),
            look.bytes(status.memory_bytes_max),
            counted(status.transient_count, "transient message"),
            look.bytes(status.staged_bytes)
        ),
    )?;
    let counters = status.counters;
    line(
        "since start",
        format!(
            "{} in, {} out, {} settled, {} failed, {} dead letters, {} refused",
            counters.enqueued_count,
            counters.delivered_count,
            counters.accepted_count,
            counters.failed_count,
            counters.dead_lettered_count,
            counters.refused_count
        ),
    )?;
    line(
        "store",
        format!(
            "{} on disk, {} live, epoch {}, durable up to {}",
            look.bytes(store.file_bytes),
            look.bytes(store.live_bytes),
            store.epoch,
            store.durable_seq
        ),
    )?;
    line("commits", latency(store.commit))?;
    line("flushes", latency(store.flush))?;
    let free = store
        .disk_free_bytes
        .map_or("unknown".to_owned(), |bytes| look.bytes(bytes));
    let room = if store.disk_room {
        format!("{free} free")
    } else {
        look.warning(&format!("{free} free: messages are refused"))
    };
    line("disk", room)
}

fn latency(latency: Latency) -> String {
    format!(
        "{}, half within {:.1} ms, 99 % within {:.1} ms, all within {:.1} ms",
        latency.count, latency.p50_ms, latency.p99_ms, latency.max_ms
    )
}
