//! `steadfast bench`: measures any STOMP 1.2 broker from outside, and says INVALID if it lost, doubled, reordered or
//! altered a message on the way.
//!
//! Figures are of the run itself, first frame to last answer: no warm-up is cut away. A publish is followed by a drain
//! that is not measured and looks at every message. The load is a closed loop, a producer sends as fast as its window
//! lets it, so latency is that of the load; or with `--rate` an open loop, where latency counts from when a message was
//! due. The broker's CPU, memory and bytes written come from `/proc`. `docs/performance.md` has the method.
//!
//! # Not here
//! The connections and what is counted on them: `engine`. Whether messages came as they were sent: `verify`.

mod args;
mod backlog;
mod compare;
mod disk;
mod engine;
mod examples;
mod fan_out;
mod idle;
mod loads;
mod plot;
mod probe;
mod progress;
mod report;
mod sink;
mod store;
mod timeline;
mod transactions;
mod verify;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::clock;
use super::failure::chain;
use crate::client::ClientError;
use crate::store::StoreError;
use args::{LoadArgs, PacedArgs, PlottedArgs};
use report::{Generator, Report};

/// Arguments of `steadfast bench`.
#[derive(Debug, Args)]
#[command(after_help = examples::BENCH)]
pub struct BenchArgs {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Send with a receipt for each message; then look at every message, unmeasured
    #[command(after_help = examples::PUBLISH)]
    Publish(PacedArgs),
    /// Send and leave the messages stored, for `drain --stored`
    #[command(after_help = examples::FILL)]
    Fill(PlottedArgs),
    /// Fill, unmeasured, then receive and acknowledge everything
    #[command(after_help = examples::DRAIN)]
    Drain(loads::DrainArgs),
    /// Producers and consumers at once; delivery latency
    #[command(after_help = examples::E2E)]
    E2e(loads::E2eArgs),
    /// One message at a time: SEND, wait for its RECEIPT
    #[command(after_help = examples::PING_PONG)]
    PingPong(loads::PingPongArgs),
    /// Several SENDs, or SENDs and ACKs, in each transaction; the RECEIPT of COMMIT
    #[command(after_help = examples::TRANSACTIONS)]
    Transactions(transactions::TransactionsArgs),
    /// Many receivers of one topic, or of one queue
    #[command(after_help = examples::FAN_OUT)]
    FanOut(fan_out::FanOutArgs),
    /// Publish and drain with few messages stored and with many, as a ratio
    #[command(after_help = examples::BACKLOG)]
    Backlog(backlog::BacklogArgs),
    /// Wait for the broker to come up and time the first delivery
    #[command(after_help = examples::FIRST)]
    First(idle::FirstArgs),
    /// Open connections that do nothing; memory of the broker for each
    #[command(after_help = examples::IDLE)]
    Idle(idle::IdleArgs),
    /// The standard set against two brokers in turns, as ratios
    #[command(after_help = examples::COMPARE)]
    Compare(compare::CompareArgs),
    /// The disk alone: append with fdatasync, and the ceiling of group commit
    #[command(after_help = examples::DISK)]
    Disk(disk::DiskArgs),
    /// The store alone: the broker's commits without broker and network
    #[command(after_help = examples::STORE)]
    Store(store::StoreArgs),
    /// A broker that keeps no promise and answers at once, to measure the load generator against
    #[command(after_help = examples::SINK)]
    Sink(SinkArgs),
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
    #[error("{0}")]
    Usage(&'static str),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot measure the disk in {}", dir.display())]
    Disk { dir: PathBuf, source: io::Error },
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("the sink failed")]
    Sink(#[source] io::Error),
    #[error("no histogram can be made")]
    Histogram(#[source] hdrhistogram::CreationError),
    #[error("the report cannot be printed")]
    Print(#[source] io::Error),
    #[error("the plot cannot be written to {}", path.display())]
    Plot { path: PathBuf, source: io::Error },
    #[error("the broker's process is not found; name it with --pid")]
    NoProcess,
}

impl BenchError {
    /// One line, with what to do about it where that is known.
    fn line(&self) -> String {
        let line = chain(self);
        match self {
            Self::Client(ClientError::Connect { .. }) => {
                format!("{line}; start a broker there (`steadfast serve`), or name another with --addr")
            }
            Self::Disk { .. } | Self::Store(_) => format!("{line}; choose another folder with --dir"),
            _ => line,
        }
    }
}

/// Runs it. Exit code 0: measured and valid; 1: INVALID, or the run could not be made; 2: wrong usage.
pub fn run(args: &BenchArgs) -> ExitCode {
    match run_mode(&args.mode) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where standard error is gone, the exit code still tells.
            let _ = writeln!(io::stderr(), "error: {}", error.line());
            ExitCode::from(if matches!(error, BenchError::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// True if what was measured is valid.
fn run_mode(mode: &Mode) -> Result<bool, BenchError> {
    match mode {
        Mode::Publish(args) => measure(args.load(), args.plot(), loads::publish),
        Mode::Fill(args) => measure(args.load(), args.plot.as_deref(), loads::fill),
        Mode::Drain(args) => {
            let plotted = &args.plotted;
            measure(plotted.load(), plotted.plot.as_deref(), |load| {
                loads::drain(load, args.stored && !load.brief)
            })
        }
        Mode::E2e(args) => measure(args.paced.load(), args.paced.plot(), |load| {
            loads::e2e(load, args.max_undelivered)
        }),
        Mode::PingPong(args) => measure(args.paced.load(), args.paced.plot(), |load| {
            loads::ping_pong(load, args.dir.as_ref())
        }),
        Mode::Transactions(args) => measure(args.paced.load(), args.paced.plot(), |load| {
            transactions::run(load, args.per_transaction, args.acks)
        }),
        Mode::FanOut(args) => measure(args.paced.load(), args.paced.plot(), |load| {
            fan_out::run(load, args.to, args.max_undelivered)
        }),
        Mode::Backlog(args) => {
            let (load, _sink) = args.load.clone().with_sink()?;
            let report = backlog::run(&load, args.backlog)?;
            print(load.broker.json, &report, &report.text())?;
            Ok(report.valid)
        }
        Mode::First(args) => idle::first(args),
        Mode::Idle(args) => idle::idle(args),
        Mode::Compare(args) => {
            let report = compare::run(args)?;
            print(args.json, &report, &report.text())?;
            Ok(report.valid)
        }
        Mode::Disk(args) => {
            let report = disk::run(args)?;
            print(args.json, &report, &report.text())?;
            Ok(true)
        }
        Mode::Store(args) => {
            let report = store::run(args)?;
            print(args.json, &report, &report.text())?;
            Ok(report.valid)
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

/// Makes one measurement, looks how fast the load generator is alone, and tells both.
fn measure(
    load: LoadArgs,
    plot: Option<&Path>,
    make: impl Fn(&LoadArgs) -> Result<Report, BenchError>,
) -> Result<bool, BenchError> {
    let (load, sink) = load.with_sink()?;
    let mut report = make(&load)?;
    drop(sink);
    if !load.sink && !load.no_generator_check {
        let sink = sink::SinkThread::start(None).map_err(BenchError::Sink)?;
        let rate_per_s = make(&load.brief(&sink.addr))?.rate_per_s;
        report.generator = Some(Generator {
            rate_per_s,
            ratio: rate_per_s / report.rate_per_s.max(1e-9),
        });
    }
    if let Some(path) = plot {
        let title = format!(
            "{}: {} msg/s",
            report.mode,
            report::grouped(report.rate_per_s as u64)
        );
        let picture = plot::svg(&title, &report.shape(), &report.points);
        std::fs::write(path, picture).map_err(|source| BenchError::Plot {
            path: path.to_owned(),
            source,
        })?;
    }
    print(load.broker.json, &report, &report.text())?;
    Ok(report.valid)
}

fn print(json: bool, report: &impl Serialize, text: &str) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    let printed = if json {
        serde_json::to_writer(&mut out, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        out.write_all(text.as_bytes())
    };
    match printed {
        // Whoever has gone has seen what they wanted; the exit code still gives the verdict.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(BenchError::Print(error)),
        _ => Ok(()),
    }
}
