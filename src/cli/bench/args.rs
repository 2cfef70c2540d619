//! What the modes of the bench are asked with: arguments that several of them share, and how they become a plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::super::target::{TargetArgs, header};
use super::engine::{AckMode, Await, Plan, Stop};
use super::{BenchError, clock, probe, sink, verify};
use crate::client::Target;

/// A closed loop that sends for a time, unless asked otherwise.
pub(super) const SENDING: Stop = Stop::After(Duration::from_secs(5));
/// What is stored before it is received, unless asked otherwise.
pub(super) const STORED: Stop = Stop::Count(200_000);
/// The look at the load generator alone is no longer than this, and no more messages.
const BRIEF: (Duration, u64) = (Duration::from_millis(300), 20_000);

const SIZE: usize = 1024;
const PREFIX: &str = "/queue/bench-";
const PATIENCE_MS: &str = "10000";
/// How long a connection, and each answer to a blocking call, may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Which broker, and how to tell the result.
#[derive(Debug, Clone, Args)]
pub(super) struct BrokerArgs {
    #[command(flatten)]
    pub(super) at: TargetArgs,
    /// Process of the broker [default: the one that listens at the address, on this machine]
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl BrokerArgs {
    /// `HOST:PORT`, or `LOGIN:PASSCODE@HOST:PORT`.
    pub(super) fn named(text: &str) -> Self {
        Self {
            at: TargetArgs::named(text),
            pid: None,
            json: false,
        }
    }

    pub(super) fn target(&self) -> Target {
        self.at.target(ANSWER)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid.or_else(|| probe::find_listener(&self.at.addr))
    }
}

/// The shape of a load.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    /// Measure against a sink in this process instead of a broker
    #[arg(long, conflicts_with_all = ["addr", "pid"])]
    pub(super) sink: bool,
    /// Let that sink break something, to see it found
    #[arg(long, requires = "sink", value_name = "KIND")]
    pub(super) fault: Option<sink::Fault>,
    /// ... at every n-th message
    #[arg(long, requires = "fault", default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) fault_every: u64,
    /// Connections that send [default: 8; e2e 4; ping-pong and fan-out 1]
    #[arg(long, value_parser = count_parser)]
    pub(super) connections: Option<usize>,
    /// Connections that receive [default: as many as queues, at most 8; fan-out 8]
    #[arg(long, value_parser = count_parser)]
    pub(super) consumers: Option<usize>,
    /// Queues [default: as many as connections; drain and fan-out 1]
    #[arg(long, value_parser = count_parser)]
    pub(super) queues: Option<usize>,
    /// Destinations are this and a number
    #[arg(long, default_value = PREFIX)]
    pub(super) prefix: String,
    /// Bytes of each body
    #[arg(long, default_value_t = SIZE, value_parser = size_parser)]
    pub(super) size: usize,
    /// Frames (or transactions) without receipt per connection at most [default: 256; transactions 4; ping-pong 1]
    #[arg(long, value_parser = count_parser)]
    pub(super) window: Option<usize>,
    /// Messages in all [default: drain and fill 200000, ping-pong 2000]
    #[arg(long, conflicts_with = "duration_ms", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// How long to send [default: where --count has none, 5000]
    #[arg(long, value_name = "MS", value_parser = ms_parser)]
    pub(super) duration_ms: Option<Duration>,
    /// How consumers acknowledge
    #[arg(long, value_enum, default_value = "client-individual")]
    pub(super) ack_mode: AckMode,
    /// Ask for this `prefetch-count`
    #[arg(long)]
    pub(super) prefetch: Option<u32>,
    /// Give each message a `dedup-id` of its own, of 36 bytes
    #[arg(long)]
    pub(super) dedup: bool,
    /// A further header of every SEND
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    /// A further header of every SUBSCRIBE
    #[arg(long = "subscribe-header", value_name = "NAME:VALUE", value_parser = header)]
    pub(super) subscribe_headers: Vec<(String, String)>,
    /// How long nothing may come though something is due, before the rest counts as lost
    #[arg(long, value_name = "MS", default_value = PATIENCE_MS, value_parser = ms_parser)]
    pub(super) patience_ms: Duration,
    /// Do not look how fast the load generator alone is
    #[arg(long)]
    pub(super) no_generator_check: bool,
    /// Messages in a second; `None` for a closed loop.
    #[arg(skip)]
    pub(super) rate: Option<f64>,
    /// Whether rate and latency over time are kept.
    #[arg(skip)]
    pub(super) timeline: bool,
    /// Whether this is the look at the load generator alone.
    #[arg(skip)]
    pub(super) brief: bool,
}

/// A load whose course can be drawn.
#[derive(Debug, Clone, Args)]
pub(super) struct PlottedArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Draw rate and latency over time
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
}

impl PlottedArgs {
    pub(super) fn load(&self) -> LoadArgs {
        LoadArgs {
            timeline: self.plot.is_some(),
            ..self.load.clone()
        }
    }
}

/// A load that can be sent at a rate.
#[derive(Debug, Clone, Args)]
pub(super) struct PacedArgs {
    #[command(flatten)]
    plotted: PlottedArgs,
    /// Messages in a second, of all connections together (open loop): each has its time, and its latency counts from then
    /// even if it could not be sent then [default: as fast as the window lets]
    #[arg(long, value_name = "N", value_parser = rate_parser)]
    rate: Option<f64>,
}

impl PacedArgs {
    pub(super) fn load(&self) -> LoadArgs {
        LoadArgs {
            rate: self.rate,
            ..self.plotted.load()
        }
    }

    pub(super) fn plot(&self) -> Option<&Path> {
        self.plotted.plot.as_deref()
    }
}

impl LoadArgs {
    /// The defaults, for a broker and a size of bodies.
    pub(super) fn standard(broker: BrokerArgs, size: usize, patience: Duration) -> Self {
        Self {
            broker,
            sink: false,
            fault: None,
            fault_every: 1,
            connections: None,
            consumers: None,
            queues: None,
            prefix: PREFIX.to_owned(),
            size,
            window: None,
            count: None,
            duration_ms: None,
            ack_mode: AckMode::ClientIndividual,
            prefetch: None,
            dedup: false,
            headers: Vec::new(),
            subscribe_headers: Vec::new(),
            patience_ms: patience,
            no_generator_check: true,
            rate: None,
            timeline: false,
            brief: false,
        }
    }

    /// The same load, to be put briefly on a sink at this address, as fast as it goes.
    pub(super) fn brief(&self, addr: &str) -> Self {
        Self {
            broker: BrokerArgs::named(addr),
            sink: true,
            rate: None,
            timeline: false,
            brief: true,
            ..self.clone()
        }
    }

    /// When producers stop. A rate for a time is a number of messages: all that are due in that time are sent, even late.
    pub(super) fn stop(&self, default: Stop) -> Stop {
        let duration = self.duration_ms.map(Stop::After);
        let asked = self.count.map(Stop::Count).or(duration).unwrap_or(default);
        match (asked, self.rate) {
            (Stop::After(time), _) if self.brief => Stop::After(time.min(BRIEF.0)),
            (Stop::Count(count), _) if self.brief => Stop::Count(count.min(BRIEF.1)),
            (Stop::After(time), Some(rate)) => {
                Stop::Count((rate * time.as_secs_f64()).ceil().max(1.0) as u64)
            }
            _ => asked,
        }
    }

    pub(super) fn consumers_for(&self, queues: usize) -> usize {
        self.consumers.unwrap_or(queues.min(8))
    }

    /// A plan of producers only. `queues` is their number where it is not the connections'.
    pub(super) fn plan(
        &self,
        name: &'static str,
        stop: Stop,
        connections: usize,
        window: usize,
        queues: Option<usize>,
    ) -> Plan {
        let producers = self.connections.unwrap_or(connections);
        let queues = self.queues.or(queues).unwrap_or(producers);
        Plan {
            name,
            target: self.broker.target(),
            destinations: self.destinations(&self.prefix, queues),
            producers,
            consumers: 0,
            stop: self.stop(stop),
            rate: self.rate,
            awaited: Await::Count(0),
            // Any number that differs from run to run will do.
            run: Some(clock::unix_ns() as u32 ^ (std::process::id() << 16)),
            body_bytes: self.size,
            window: self.window.unwrap_or(window),
            transaction: None,
            forward: Vec::new(),
            each_gets_all: false,
            undelivered_max: None,
            ack: self.ack_mode,
            prefetch: self.prefetch,
            dedup: self.dedup,
            send_headers: self.headers.clone(),
            subscribe_headers: self.subscribe_headers.clone(),
            patience: self.patience_ms,
            // A sink in this process has no usage of its own.
            pid: self.broker.pid().filter(|_| !self.sink),
            timeline: self.timeline,
            silent: self.brief,
        }
    }

    pub(super) fn destinations(&self, prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    /// A plan of consumers only, for what `filled` has sent.
    pub(super) fn look(&self, filled: &Plan, awaited: Await) -> Plan {
        Plan {
            name: "look",
            producers: 0,
            consumers: self.consumers_for(filled.destinations.len()),
            awaited,
            transaction: None,
            ..filled.clone()
        }
    }

    /// A sink to measure instead of the broker, where asked for, with the arguments changed to its address.
    pub(super) fn with_sink(mut self) -> Result<(Self, Option<sink::SinkThread>), BenchError> {
        if !self.sink {
            return Ok((self, None));
        }
        let plan = self.fault.map(|fault| sink::FaultPlan {
            fault,
            every: self.fault_every,
        });
        let sink = sink::SinkThread::start(plan).map_err(BenchError::Sink)?;
        self.broker.at.addr = sink.addr.clone();
        Ok((self, Some(sink)))
    }
}

pub(super) fn count_parser(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| "a number above 0 is needed".to_owned())
}

pub(super) fn size_parser(text: &str) -> Result<usize, String> {
    let least = verify::STAMP_BYTES;
    count_parser(text)
        .ok()
        .filter(|size| *size >= least)
        .ok_or_else(|| format!("at least {least}: the stamp's bytes"))
}

pub(super) fn ms_parser(text: &str) -> Result<Duration, String> {
    count_parser(text)
        .map(|ms| Duration::from_millis(ms as u64))
        .map_err(|_| "a number of milliseconds above 0 is needed".to_owned())
}

fn rate_parser(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "a number above 0 is needed".to_owned())
}
