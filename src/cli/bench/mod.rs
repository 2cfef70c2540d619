//! `steadfast bench`: measures any STOMP 1.2 broker from outside, and says INVALID if it lost, doubled, reordered or
//! altered a message on the way.
//!
//! Figures are of the run itself, first frame to last answer: no warm-up is cut away. A publish is followed by a drain
//! that is not measured and looks at every message. The load is a closed loop: a producer sends as fast as its window
//! lets it, so latency is that of the load, and not of a rate; `ping-pong` is the latency of one message alone. The broker's CPU, memory and bytes written come from `/proc`.

mod disk;
mod engine;
mod probe;
mod progress;
mod report;
mod sink;
mod verify;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::clock::{self, unix_ns};
use crate::client::{ClientError, Connection, Target, encode_frame, expect_command};
use engine::{AckMode, Await, Plan, Stop};
use report::{DiskRatio, Report};
use verify::Faults;

/// Arguments of `steadfast bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Send with a receipt for each message; then look at every message, unmeasured
    Publish(LoadArgs),
    /// Send and leave the messages stored, for `drain --stored`
    Fill(LoadArgs),
    /// Fill, unmeasured, then receive and acknowledge everything
    Drain(DrainArgs),
    /// Producers and consumers at once; delivery latency
    E2e(E2eArgs),
    /// One message at a time: SEND, wait for its RECEIPT
    PingPong(PingPongArgs),
    /// Wait for the broker to come up and time the first delivery
    First(FirstArgs),
    /// Open connections that do nothing; memory of the broker for each
    Idle(IdleArgs),
    /// The disk alone: append with fdatasync, and the ceiling of group commit
    Disk(DiskArgs),
    /// A broker that keeps no promise and answers at once, to measure the load generator against
    Sink(SinkArgs),
}

#[derive(Debug, Clone, Args)]
struct TargetArgs {
    /// Address of the broker
    #[arg(long, default_value = "127.0.0.1:61613", value_name = "HOST:PORT")]
    addr: String,
    /// Login name
    #[arg(long)]
    login: Option<String>,
    /// Passcode
    #[arg(long)]
    passcode: Option<String>,
    /// Virtual host, sent as `host` [default: the host of the address]
    #[arg(long)]
    host: Option<String>,
    /// Process of the broker [default: the one that listens at the address, on this machine]
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Measure against a sink in this process instead of a broker
    #[arg(long, conflicts_with_all = ["addr", "pid"])]
    sink: bool,
    /// Let that sink break something, to see it found
    #[arg(long, requires = "sink", value_name = "KIND")]
    fault: Option<sink::Fault>,
    /// ... at every n-th message
    #[arg(long, requires = "fault", default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fault_every: u64,
    /// Connections that send [default: 8; e2e 4; ping-pong 1]
    #[arg(long, value_parser = count_parser)]
    connections: Option<usize>,
    /// Connections that receive [default: e2e and drain as many as queues, at most 8]
    #[arg(long, value_parser = count_parser)]
    consumers: Option<usize>,
    /// Queues [default: as many as connections; drain 1]
    #[arg(long, value_parser = count_parser)]
    queues: Option<usize>,
    /// Destinations are this and a number
    #[arg(long, default_value = "/queue/bench-")]
    prefix: String,
    /// Bytes of each body
    #[arg(long, default_value_t = 1024, value_parser = size_parser)]
    size: usize,
    /// Messages without receipt per connection at most [default: 256; ping-pong 1]
    #[arg(long, value_parser = count_parser)]
    window: Option<usize>,
    /// Messages in all [default: drain and fill 200000, ping-pong 2000]
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Seconds of sending [default: publish and e2e 5]
    #[arg(long, value_name = "SECONDS", value_parser = seconds_parser)]
    duration: Option<Duration>,
    /// How consumers acknowledge
    #[arg(long, value_enum, default_value = "client-individual")]
    ack_mode: AckMode,
    /// Ask for this `prefetch-count`
    #[arg(long)]
    prefetch: Option<u32>,
    /// A further header of every SEND
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header_parser)]
    headers: Vec<(String, String)>,
    /// A further header of every SUBSCRIBE
    #[arg(long = "subscribe-header", value_name = "NAME:VALUE", value_parser = header_parser)]
    subscribe_headers: Vec<(String, String)>,
    /// Seconds without anything, though something is due, after which the rest counts as lost
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds_parser)]
    patience: Duration,
}

#[derive(Debug, Args)]
struct DrainArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Do not fill: take what a fill has stored; without --count whatever there is
    #[arg(long)]
    stored: bool,
}

#[derive(Debug, Args)]
struct E2eArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Messages sent and not yet delivered per producer at most, so that latency means something
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_undelivered: Option<u64>,
}

#[derive(Debug, Args)]
struct PingPongArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Compare with append and fdatasync of one body in this folder, before and after
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct FirstArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Destination to receive from
    #[arg(long, default_value = "/queue/bench-0")]
    destination: String,
    /// Nanoseconds since the Unix epoch from which the time counts (`date +%s%N`) [default: now]
    #[arg(long, value_name = "NANOSECONDS")]
    since: Option<u64>,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds_parser)]
    patience: Duration,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections to open
    #[arg(long, default_value_t = 500, value_parser = count_parser)]
    connections: usize,
}

#[derive(Debug, Args)]
struct DiskArgs {
    /// Folder to write in
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of each message
    #[arg(long, default_value_t = 1024, value_parser = count_parser)]
    size: usize,
    /// Seconds for each line
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds_parser)]
    duration: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SinkArgs {
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1:61613", value_name = "HOST:PORT")]
    listen: String,
    /// Break something
    #[arg(long, value_name = "KIND")]
    fault: Option<sink::Fault>,
    /// ... at every n-th message
    #[arg(long, requires = "fault", default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fault_every: u64,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot measure the disk in {}", dir.display())]
    Disk { dir: PathBuf, source: io::Error },
    #[error("the sink failed")]
    Sink(#[source] io::Error),
    #[error("no histogram can be made")]
    Histogram(#[source] hdrhistogram::CreationError),
    #[error("the report cannot be printed")]
    Print(#[source] io::Error),
    #[error("the broker's process is not found; name it with --pid")]
    NoProcess,
}

/// Runs it. Exit code 0: measured and valid; 1: INVALID, or the run could not be made.
pub fn run(args: &BenchArgs) -> ExitCode {
    match run_mode(&args.mode) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = format!("bench: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // Nothing is left to tell it to.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

/// True if what was measured is valid.
fn run_mode(mode: &Mode) -> Result<bool, BenchError> {
    match mode {
        Mode::Publish(load) => load.with_sink(|load| {
            let plan = load.plan(
                "publish",
                load.stop(Stop::After(Duration::from_secs(5))),
                8,
                256,
                None,
            )?;
            publish(load, plan, |_| Ok(()))
        }),
        Mode::Fill(load) => load.with_sink(|load| {
            let plan = load.plan("fill", load.stop(Stop::Count(200_000)), 8, 256, None)?;
            let measured = engine::run(&plan)?;
            show(
                load,
                &Report::new(&plan, &measured, measured.sent_count(), false, measured.faults),
            )
        }),
        Mode::Drain(args) => args.load.with_sink(|load| drain(load, args.stored)),
        Mode::E2e(args) => args.load.with_sink(|load| e2e(load, args.max_undelivered)),
        Mode::PingPong(args) => args.load.with_sink(|load| ping_pong(load, args.dir.as_ref())),
        Mode::First(args) => first(args),
        Mode::Idle(args) => idle(args),
        Mode::Disk(args) => {
            let fault = |source| BenchError::Disk {
                dir: args.dir.clone(),
                source,
            };
            let report = disk::report(&args.dir, args.size, args.duration).map_err(fault)?;
            print(args.json, &report, &report.text())?;
            Ok(true)
        }
        Mode::Sink(args) => {
            let plan = args.fault.map(|fault| sink::FaultPlan {
                fault,
                every: args.fault_every,
            });
            let sink = sink::Sink::bind(&args.listen, plan).map_err(BenchError::Sink)?;
            let addr = sink.addr().map_err(BenchError::Sink)?;
            writeln!(io::stdout(), "sink at {addr}: keeps nothing it confirms").map_err(BenchError::Print)?;
            sink.run(&AtomicBool::new(false)).map_err(BenchError::Sink)?;
            Ok(true)
        }
    }
}

/// Sends, measured; then receives it all, unmeasured, for the verdict.
fn publish(
    load: &LoadArgs,
    plan: Plan,
    add: impl FnOnce(&mut Report) -> Result<(), BenchError>,
) -> Result<bool, BenchError> {
    let measured = engine::run(&plan)?;
    let look = load.look(&plan, Await::Count(measured.sent_count()));
    let looked = engine::run(&look)?;
    let mut faults = looked.verifier.finish(&measured.sent);
    faults += measured.faults;
    let mut report = Report::new(&plan, &measured, measured.sent_count(), true, faults);
    add(&mut report)?;
    show(load, &report)
}

fn drain(load: &LoadArgs, stored: bool) -> Result<bool, BenchError> {
    let queues = load.queues.unwrap_or(1);
    let mut fill = load.plan("fill", load.stop(Stop::Count(200_000)), 8, 256, Some(queues))?;
    let (sent, mut faults) = if stored {
        fill.run = None;
        (None, Faults::default())
    } else {
        let filled = engine::run(&fill)?;
        (Some(filled.sent), filled.faults)
    };
    let sent_count = sent.as_ref().map(|sent| sent.iter().sum());
    let awaited = match sent_count.or(load.count) {
        Some(count) => Await::Count(count),
        None => Await::Quiet(Duration::from_secs(2)),
    };
    let plan = Plan {
        name: "drain",
        ..load.look(&fill, awaited)
    };
    let mut measured = engine::run(&plan)?;
    let verifier = std::mem::take(&mut measured.verifier);
    faults += match &sent {
        Some(sent) => verifier.finish(sent),
        None => verifier.finish_unknown(load.count),
    };
    faults += measured.faults;
    show(
        load,
        &Report::new(&plan, &measured, measured.received_count, true, faults),
    )
}

fn e2e(load: &LoadArgs, undelivered_max: Option<u64>) -> Result<bool, BenchError> {
    let mut plan = load.plan(
        "e2e",
        load.stop(Stop::After(Duration::from_secs(5))),
        4,
        256,
        None,
    )?;
    plan.consumers = load.consumers_for(plan.destinations.len());
    plan.undelivered_max = undelivered_max;
    let mut measured = engine::run(&plan)?;
    let mut faults = std::mem::take(&mut measured.verifier).finish(&measured.sent);
    faults += measured.faults;
    show(
        load,
        &Report::new(&plan, &measured, measured.received_count, true, faults),
    )
}

fn ping_pong(load: &LoadArgs, dir: Option<&PathBuf>) -> Result<bool, BenchError> {
    let plan = load.plan("ping-pong", load.stop(Stop::Count(2_000)), 1, 1, None)?;
    let append_us_p50 = |bytes| {
        let measure = |dir: &PathBuf| {
            disk::append(dir, bytes, Duration::from_secs(1))
                .map(|times| times.p50)
                .map_err(|source| BenchError::Disk {
                    dir: dir.clone(),
                    source,
                })
        };
        dir.map(measure).transpose()
    };
    let before = append_us_p50(plan.body_bytes)?;
    let bytes = plan.body_bytes;
    publish(load, plan, |report| {
        let raw = before
            .zip(append_us_p50(bytes)?)
            .map(|(before, after)| (before + after) / 2.0);
        report.disk = raw
            .zip(report.receipt_us)
            .map(|(append_us_p50, receipt_us)| DiskRatio {
                append_us_p50,
                ratio: receipt_us.p50 / append_us_p50,
            });
        Ok(())
    })
}

fn first(args: &FirstArgs) -> Result<bool, BenchError> {
    #[derive(Serialize)]
    struct FirstReport {
        mode: &'static str,
        connected_s: f64,
        first_delivery_s: f64,
    }
    let target = Target {
        timeout: args.patience,
        ..args.target.target()
    };
    let since_ns = args.since.unwrap_or_else(unix_ns);
    let since_s = || unix_ns().saturating_sub(since_ns) as f64 / 1e9;
    let mut connection = loop {
        match Connection::open(&target) {
            Ok(connection) => break connection,
            Err(ClientError::Connect { .. } | ClientError::Closed | ClientError::Read(_))
                if since_s() < args.patience.as_secs_f64() =>
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
    print(args.target.json, &report, &text)?;
    Ok(true)
}

fn idle(args: &IdleArgs) -> Result<bool, BenchError> {
    #[derive(Serialize)]
    struct IdleReport {
        mode: &'static str,
        connections: usize,
        rss_bytes_before: u64,
        rss_bytes_after: u64,
        bytes_per_connection: f64,
    }
    let target = args.target.target();
    let pid = args.target.pid().ok_or(BenchError::NoProcess)?;
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
    print(args.target.json, &report, &text)?;
    Ok(true)
}

impl TargetArgs {
    fn target(&self) -> Target {
        Target {
            login: self.login.clone(),
            passcode: self.passcode.clone(),
            host: self.host.clone(),
            ..Target::new(&self.addr)
        }
    }

    fn pid(&self) -> Option<u32> {
        self.pid.or_else(|| probe::find_listener(&self.addr))
    }
}

impl LoadArgs {
    /// Calls with these arguments, or with those of a sink that lives as long.
    fn with_sink(&self, run: impl FnOnce(&Self) -> Result<bool, BenchError>) -> Result<bool, BenchError> {
        if !self.sink {
            return run(self);
        }
        let plan = self.fault.map(|fault| sink::FaultPlan {
            fault,
            every: self.fault_every,
        });
        let sink = sink::SinkThread::start(plan).map_err(BenchError::Sink)?;
        let mut load = self.clone();
        load.target.addr = sink.addr.clone();
        run(&load)
    }

    fn stop(&self, default: Stop) -> Stop {
        let duration = self.duration.map(Stop::After);
        self.count.map(Stop::Count).or(duration).unwrap_or(default)
    }

    fn consumers_for(&self, queues: usize) -> usize {
        self.consumers.unwrap_or(queues.min(8))
    }

    /// A plan of producers only.
    fn plan(
        &self,
        name: &'static str,
        stop: Stop,
        connections: usize,
        window: usize,
        queues: Option<usize>,
    ) -> Result<Plan, BenchError> {
        let producers = self.connections.unwrap_or(connections);
        let queues = queues.or(self.queues).unwrap_or(producers);
        Ok(Plan {
            name,
            target: self.target.target(),
            destinations: (0..queues)
                .map(|number| format!("{}{number}", self.prefix))
                .collect(),
            producers,
            consumers: 0,
            stop,
            awaited: Await::Count(0),
            // Any number that differs from run to run will do.
            run: Some(unix_ns() as u32 ^ (std::process::id() << 16)),
            body_bytes: self.size,
            window: self.window.unwrap_or(window),
            undelivered_max: None,
            ack: self.ack_mode,
            prefetch: self.prefetch,
            send_headers: self.headers.clone(),
            subscribe_headers: self.subscribe_headers.clone(),
            patience: self.patience,
            // A sink in this process has no usage of its own.
            pid: self.target.pid().filter(|_| !self.sink),
        })
    }

    /// A plan of consumers only, for what `filled` has sent.
    fn look(&self, filled: &Plan, awaited: Await) -> Plan {
        let consumers = self.consumers_for(filled.destinations.len());
        Plan {
            name: "look",
            producers: 0,
            consumers,
            awaited,
            ..filled.clone()
        }
    }
}

fn show(load: &LoadArgs, report: &Report) -> Result<bool, BenchError> {
    print(load.target.json, report, &report.text())?;
    Ok(report.valid)
}

fn print(json: bool, report: &impl Serialize, text: &str) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report).map_err(|error| BenchError::Print(error.into()))?;
        writeln!(out)
    } else {
        out.write_all(text.as_bytes())
    }
    .map_err(BenchError::Print)
}

fn count_parser(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "a number above 0 is needed".to_owned())
}

fn size_parser(text: &str) -> Result<usize, String> {
    let least = verify::STAMP_BYTES;
    count_parser(text)
        .ok()
        .filter(|size| *size >= least)
        .ok_or_else(|| format!("at least {least}: the stamp's bytes"))
}

fn seconds_parser(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is needed".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn header_parser(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("NAME:VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}
