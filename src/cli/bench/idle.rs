//! What needs no load: the time to a first delivery after a start, and the memory of connections that do nothing.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::args::{BrokerArgs, count_parser, ms_parser};
use super::clock::{self, unix_ns};
use super::{BenchError, print, probe};
use crate::client::{ClientError, Connection, Target, encode_frame, expect_command};

#[derive(Debug, Args)]
pub(super) struct FirstArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Destination to receive from
    #[arg(long, default_value = "/queue/bench-0")]
    destination: String,
    /// Nanoseconds since the Unix epoch from which the time counts (`date +%s%N`) [default: now]
    #[arg(long, value_name = "NANOSECONDS")]
    since: Option<u64>,
    /// How long to wait at most
    #[arg(long, value_name = "MS", default_value = "60000", value_parser = ms_parser)]
    patience_ms: Duration,
}

#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Connections to open
    #[arg(long, default_value_t = 500, value_parser = count_parser)]
    connections: usize,
}

pub(super) fn first(args: &FirstArgs) -> Result<bool, BenchError> {
    #[derive(Serialize)]
    struct FirstReport {
        mode: &'static str,
        connected_s: f64,
        first_delivery_s: f64,
    }
    let target = Target {
        timeout: args.patience_ms,
        ..args.broker.target()
    };
    let since_ns = args.since.unwrap_or_else(unix_ns);
    let since_s = || unix_ns().saturating_sub(since_ns) as f64 / 1e9;
    let mut connection = loop {
        match Connection::open(&target) {
            Ok(connection) => break connection,
            Err(ClientError::Connect { .. } | ClientError::Closed | ClientError::Read(_))
                if since_s() < args.patience_ms.as_secs_f64() =>
            {
                clock::pause();
            }
            Err(error) => return Err(error.into()),
        }
    };
    let connected_s = since_s();
    let headers = [
        ("destination", args.destination.as_str()),
        ("id", "0"),
        ("ack", "client"),
        ("prefetch-count", "1"),
    ];
    encode_frame(connection.out(), "SUBSCRIBE", &headers, None);
    connection.write_all()?;
    connection.wait_frame(|frame| expect_command(frame, "MESSAGE"))?;
    let report = FirstReport {
        mode: "first",
        connected_s,
        first_delivery_s: since_s(),
    };
    let text = format!(
        "first  connected after {connected_s:.3} s, delivery after {:.3} s\n",
        report.first_delivery_s
    );
    print(args.broker.json, &report, &text)?;
    Ok(true)
}

pub(super) fn idle(args: &IdleArgs) -> Result<bool, BenchError> {
    #[derive(Serialize)]
    struct IdleReport {
        mode: &'static str,
        connections: usize,
        rss_bytes_before: u64,
        rss_bytes_after: u64,
        bytes_per_connection: f64,
    }
    let target = args.broker.target();
    let pid = args.broker.pid().ok_or(BenchError::NoProcess)?;
    let rss_bytes = || {
        probe::usage(pid)
            .map(|usage| usage.rss_bytes)
            .ok_or(BenchError::NoProcess)
    };
    // The first one pays for what all share.
    let _warm = Connection::open(&target)?;
    let rss_bytes_before = rss_bytes()?;
    let open: Result<Vec<Connection>, ClientError> =
        (0..args.connections).map(|_| Connection::open(&target)).collect();
    let connections = open?.len();
    let rss_bytes_after = rss_bytes()?;
    let bytes_per_connection = rss_bytes_after.saturating_sub(rss_bytes_before) as f64 / connections as f64;
    let report = IdleReport {
        mode: "idle",
        connections,
        rss_bytes_before,
        rss_bytes_after,
        bytes_per_connection,
    };
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    let (before, after) = (mib(rss_bytes_before), mib(rss_bytes_after));
    let text = format!(
        "idle  {connections} connections, RSS {before:.1} -> {after:.1} MiB, {bytes_per_connection:.0} bytes each\n"
    );
    print(args.broker.json, &report, &text)?;
    Ok(true)
}
