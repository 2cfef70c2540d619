//! The load: one thread drives all connections, non-blocking, with one `poll` for all, one read for many frames and one
//! write for many. Producers and consumers are roles of connections, so every mode of the bench is this one loop with
//! other numbers of each.
//!
//! # Invariants
//! - A producer never has more frames without RECEIPT than its window, nor (where asked) more messages undelivered than
//!   its bound.
//! - In a closed loop the time of a message begins when its frame is made, so waiting in our own output counts. In an
//!   open loop it begins when the message was due, so waiting for a broker that does not keep up counts too, and every
//!   message that was due is sent: no omission is coordinated with a slow broker.
//! - The measured time of consumers ends with the RECEIPT of their DISCONNECT: then every settlement is processed.

mod consumer;
mod producer;
mod tally;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::consumer::Consumer;
use self::producer::Producer;
use self::tally::Tally;
use self::window::Window;
use super::BenchError;
use super::clock::Clock;
use super::probe::{self, Usage};
use super::progress::{Goal, Progress};
use super::timeline::Point;
use super::verify::{Faults, Verifier};
use crate::client::{
    ClientError, Connection, Target, encode_frame, expect_command, parse_number, refuse_error,
};

/// A connection makes no further frame while so many bytes wait for the socket.
const OUT_BYTES_MAX: usize = 128 << 10;
/// How often memory is read and progress shown.
const TICK_NS: u64 = 200_000_000;
/// The loop looks around at least this often.
const POLL_NS_MAX: u64 = 20_000_000;

/// When producers stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stop {
    /// After so many messages, of all producers together.
    Count(u64),
    /// After this time.
    After(Duration),
}

/// What consumers wait for where nobody produces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Await {
    /// So many messages.
    Count(u64),
    /// Whatever there is, until nothing came for this time.
    Quiet(Duration),
}

/// How consumers acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum AckMode {
    /// Not at all.
    Auto,
    /// Cumulatively, one ACK for what one read brought.
    Client,
    /// One ACK for each message.
    ClientIndividual,
}

impl AckMode {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

/// One run of the loop.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) target: Target,
    pub(super) destinations: Vec<String>,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) stop: Stop,
    /// Messages in a second, of all producers together; `None` for a closed loop. With [`Stop::Count`] only.
    pub(super) rate: Option<f64>,
    /// Counts only without producers.
    pub(super) awaited: Await,
    pub(super) run: Option<u32>,
    pub(super) body_bytes: usize,
    /// Frames, or transactions, without RECEIPT for each connection at most.
    pub(super) window: usize,
    /// Messages in a transaction; `None` for none.
    pub(super) transaction: Option<usize>,
    /// Where consumers forward messages to, by destination, in one transaction with their ACKs; empty where they do not.
    pub(super) forward: Vec<String>,
    /// Whether every consumer is due every message (a topic).
    pub(super) each_gets_all: bool,
    pub(super) undelivered_max: Option<u64>,
    pub(super) ack: AckMode,
    pub(super) prefetch: Option<u32>,
    /// Whether each message has a deduplication id of its own.
    pub(super) dedup: bool,
    pub(super) send_headers: Vec<(String, String)>,
    pub(super) subscribe_headers: Vec<(String, String)>,
    /// Nothing for so long although something is due: the rest counts as lost.
    pub(super) patience: Duration,
    pub(super) pid: Option<u32>,
    /// Whether to keep rate and latency over time.
    pub(super) timeline: bool,
    /// Whether to show no progress.
    pub(super) silent: bool,
}

impl Plan {
    /// How often a message is due.
    fn copies(&self) -> u64 {
        if self.each_gets_all {
            self.consumers as u64
        } else {
            1
        }
    }

    fn goal(&self) -> Goal {
        match (self.producers, self.stop, self.awaited) {
            (0, _, Await::Count(count)) => Goal::Count(count),
            (0, _, Await::Quiet(_)) => Goal::Unknown,
            (_, Stop::Count(count), _) => Goal::Count(count * self.copies()),
            (_, Stop::After(time), _) => Goal::Time(time),
        }
    }

    /// How long it takes, where that is known.
    fn length(&self) -> Option<Duration> {
        match (self.producers, self.stop, self.rate) {
            (1.., Stop::After(time), _) => Some(time),
            (1.., Stop::Count(count), Some(rate)) => Duration::try_from_secs_f64(count as f64 / rate).ok(),
            _ => None,
        }
    }
}

/// What one run of the loop gave.
#[derive(Debug)]
pub(super) struct Measured {
    /// Messages sent, by stream.
    pub(super) sent: Vec<u64>,
    pub(super) received_count: u64,
    /// By consumer.
    pub(super) received: Vec<u64>,
    pub(super) elapsed: Duration,
    pub(super) receipt_ns: Histogram<u64>,
    pub(super) delivery_ns: Histogram<u64>,
    /// The broker before and after.
    pub(super) usage: Option<(Usage, Usage)>,
    pub(super) rss_bytes_peak: u64,
    /// CPU of the load in the same time.
    pub(super) own_cpu_s: f64,
    /// What the verifiers have seen, one for each set of deliveries that must be whole; not finished, since another run
    /// may deliver the rest.
    pub(super) verifiers: Vec<Verifier>,
    /// Faults of receipts.
    pub(super) faults: Faults,
    /// Where the plan asked for it.
    pub(super) points: Vec<Point>,
}

impl Measured {
    pub(super) fn sent_count(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Everything wrong with the deliveries of this run, if this is what was sent, by stream.
    pub(super) fn delivery_faults(&mut self, sent: &[u64]) -> Faults {
        let mut faults = Faults::default();
        for verifier in self.verifiers.drain(..) {
            faults += verifier.finish(sent);
        }
        faults
    }
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    window: Window,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    subscribed: bool,
    left: bool,
}

/// Runs the plan to its end.
pub(super) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    let mut engine = Engine::connect(plan)?;
    let done = engine.drive();
    engine.progress.clear();
    done?;
    Ok(engine.finish())
}

struct Engine<'a> {
    plan: &'a Plan,
    links: Vec<Link>,
    tally: Tally,
    clock: Clock,
    start_ns: u64,
    end_ns: u64,
    usage: (Option<Usage>, Option<Usage>),
    own_cpu_s: (f64, f64),
    rss_bytes_peak: u64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Subscribing,
    Running,
    Leaving,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing more is due.
    Done,
    /// The broker owes something.
    Waiting,
    /// We owe something, at a later time.
    Pausing,
}

impl<'a> Engine<'a> {
    fn connect(plan: &'a Plan) -> Result<Self, BenchError> {
        let mut tally = Tally::new(plan)?;
        let mut links = Vec::new();
        for number in 0..plan.producers + plan.consumers {
            let mut connection = Connection::open(&plan.target)?;
            let (mut producer, mut consumer) = (None, None);
            match number.checked_sub(plan.producers) {
                None => producer = Some(Producer::new(plan, number, &mut tally)),
                Some(number) => consumer = Some(Consumer::new(plan, number, &mut connection)),
            }
            links.push(Link {
                connection,
                window: Window::new(plan.window),
                subscribed: consumer.is_none(),
                producer,
                consumer,
                left: false,
            });
        }
        for link in &links {
            link.connection.set_nonblocking()?;
        }
        let clock = Clock::start();
        tally.start(clock.ns());
        Ok(Self {
            plan,
            links,
            tally,
            clock,
            start_ns: clock.ns(),
            end_ns: 0,
            usage: (plan.pid.and_then(probe::usage), None),
            own_cpu_s: (probe::own_cpu_s(), 0.0),
            rss_bytes_peak: 0,
            progress: Progress::new(plan.name, plan.goal(), plan.silent),
        })
    }

    fn drive(&mut self) -> Result<(), BenchError> {
        let mut phase = Phase::Subscribing;
        let mut ready = Vec::new();
        let mut arrived_ns = self.clock.ns();
        let mut tick_ns = arrived_ns;
        loop {
            let now_ns = self.clock.ns();
            if phase == Phase::Subscribing && self.links.iter().all(|link| link.subscribed) {
                phase = Phase::Running;
                // Where somebody produces, subscribing is set-up; in a drain it starts the deliveries.
                if self.plan.producers > 0 {
                    self.start_ns = now_ns;
                    self.tally.start(now_ns);
                }
            }
            if phase == Phase::Running {
                self.make_frames(now_ns, now_ns - arrived_ns);
                let state = self.state(now_ns - arrived_ns);
                if state == State::Pausing {
                    arrived_ns = now_ns;
                }
                let quiet_ns = now_ns - arrived_ns;
                if state == State::Done || quiet_ns > self.plan.patience.as_nanos() as u64 {
                    phase = Phase::Leaving;
                    if self.plan.consumers == 0 {
                        self.mark_end(now_ns);
                    } else if quiet_ns > TICK_NS {
                        // It ended by waiting in vain; that wait is no part of the measurement.
                        self.mark_end(arrived_ns);
                    }
                    arrived_ns = now_ns;
                    for link in &mut self.links {
                        encode_frame(link.connection.out(), "DISCONNECT", &[("receipt", "left")], None);
                    }
                }
            }
            if phase == Phase::Leaving {
                let mut consumers = self.links.iter().filter(|link| link.consumer.is_some());
                if self.end_ns == 0 && consumers.all(|link| link.left) {
                    self.mark_end(now_ns);
                }
                if self.links.iter().all(|link| link.left) {
                    return Ok(());
                }
            }
            for link in self.links.iter_mut().filter(|link| !link.left) {
                link.connection.write_some()?;
            }
            self.wait(&mut ready, now_ns)?;
            let now_ns = self.clock.ns();
            for (link, _) in self
                .links
                .iter_mut()
                .zip(&ready)
                .filter(|(link, ready)| **ready && !link.left)
            {
                read(link, &mut self.tally, self.plan, now_ns)?;
                arrived_ns = now_ns;
            }
            self.tally.roll(now_ns);
            if phase != Phase::Running && now_ns - arrived_ns > self.plan.target.timeout.as_nanos() as u64 {
                return Err(ClientError::TimedOut.into());
            }
            if now_ns - tick_ns > TICK_NS {
                tick_ns = now_ns;
                let usage = self.plan.pid.and_then(probe::usage).unwrap_or_default();
                self.rss_bytes_peak = self.rss_bytes_peak.max(usage.rss_bytes);
                let done_count = if self.plan.consumers > 0 {
                    self.tally.received_count()
                } else {
                    self.tally.confirmed_count
                };
                self.progress.show(now_ns - self.start_ns, done_count);
            }
        }
    }

    /// Lets every connection make frames as far as its bounds allow.
    fn make_frames(&mut self, now_ns: u64, quiet_ns: u64) {
        let over =
            matches!(self.plan.stop, Stop::After(time) if now_ns - self.start_ns > time.as_nanos() as u64);
        let all_came = self.all_came(quiet_ns);
        for link in &mut self.links {
            let pending_bytes = link.connection.pending_bytes();
            let out = link.connection.out();
            if let Some(producer) = &mut link.producer {
                if over {
                    producer.stop();
                }
                let times = (self.start_ns, now_ns);
                producer.produce(
                    out,
                    pending_bytes,
                    &mut link.window,
                    &mut self.tally,
                    self.plan,
                    times,
                );
            }
            if let Some(consumer) = &mut link.consumer {
                let times = (quiet_ns, now_ns);
                consumer.forward(out, pending_bytes, &mut link.window, self.plan, all_came, times);
            }
        }
    }

    /// Whether every message that consumers wait for is accounted for.
    fn all_came(&self, quiet_ns: u64) -> bool {
        let due_count = match self.plan.awaited {
            _ if self.plan.consumers == 0 => return true,
            _ if self.plan.producers > 0 => self.tally.sent_count() * self.plan.copies(),
            Await::Count(count) => count,
            Await::Quiet(time) => return quiet_ns > time.as_nanos() as u64,
        };
        self.tally.accounted_count() >= due_count
    }

    fn state(&self, quiet_ns: u64) -> State {
        let confirmed = self.links.iter().all(|link| link.window.is_empty());
        let forwarded = self.links.iter().filter_map(|link| link.consumer.as_ref());
        if !confirmed || !self.all_came(quiet_ns) || !forwarded.into_iter().all(Consumer::is_done) {
            return State::Waiting;
        }
        let mut producers = self.links.iter().filter_map(|link| link.producer.as_ref());
        if producers.all(Producer::is_done) {
            State::Done
        } else {
            State::Pausing
        }
    }

    fn mark_end(&mut self, now_ns: u64) {
        self.end_ns = now_ns;
        self.usage.1 = self.plan.pid.and_then(probe::usage);
        self.own_cpu_s.1 = probe::own_cpu_s();
    }

    /// Waits until something can be read, written or is due; `ready` says for each connection whether it can be read.
    /// Frames were last made at `made_ns`.
    fn wait(&self, ready: &mut Vec<bool>, made_ns: u64) -> Result<(), BenchError> {
        let mut descriptors = Vec::with_capacity(self.links.len());
        let mut due_ns = u64::MAX;
        for link in &self.links {
            let flags = match (link.left, link.connection.pending_bytes()) {
                (true, _) => PollFlags::empty(),
                (false, 0) => PollFlags::IN,
                (false, _) => PollFlags::IN | PollFlags::OUT,
            };
            descriptors.push(PollFd::new(&link.connection, flags));
            let due = link
                .producer
                .as_ref()
                .and_then(|producer| producer.due_ns(self.start_ns, &link.window));
            due_ns = due_ns.min(due.unwrap_or(u64::MAX));
        }
        // What was due then and was not made waits for the socket or for deliveries, not for a time.
        let pause_ns = if due_ns > made_ns {
            due_ns.saturating_sub(self.clock.ns())
        } else {
            POLL_NS_MAX
        };
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: pause_ns.min(POLL_NS_MAX) as _,
        };
        match poll(&mut descriptors, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ClientError::Read(error.into()).into()),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        ready.clear();
        ready.extend(
            descriptors
                .iter()
                .map(|descriptor| descriptor.revents().intersects(readable)),
        );
        Ok(())
    }

    fn finish(self) -> Measured {
        let tally = self.tally;
        let mut faults = tally.faults;
        for link in &self.links {
            faults.unconfirmed += link.window.message_count();
        }
        let usage = self.usage.0.zip(self.usage.1);
        let rss_bytes_peak = usage.map_or(0, |(before, after)| before.rss_bytes.max(after.rss_bytes));
        Measured {
            received_count: tally.received_count(),
            sent: tally.sent,
            received: tally.received,
            elapsed: Duration::from_nanos(self.end_ns.saturating_sub(self.start_ns)),
            receipt_ns: tally.receipt_ns,
            delivery_ns: tally.delivery_ns,
            usage,
            rss_bytes_peak: self.rss_bytes_peak.max(rss_bytes_peak),
            own_cpu_s: self.own_cpu_s.1 - self.own_cpu_s.0,
            verifiers: tally.verifiers,
            faults,
            points: tally
                .timeline
                .map_or_else(Vec::new, |timeline| timeline.finish(self.end_ns)),
        }
    }
}

/// Reads once and takes every whole frame.
fn read(link: &mut Link, tally: &mut Tally, plan: &Plan, now_ns: u64) -> Result<(), ClientError> {
    link.connection.read_some()?;
    let (decoder, out) = link.connection.split();
    while let Some(frame) = decoder.next_frame()? {
        match frame.command {
            b"RECEIPT" => {
                let id = frame.header("receipt-id").unwrap_or_default();
                match parse_number(id) {
                    Some(number) => tally.note_confirmed(link.window.close(number), now_ns),
                    _ if id == b"subscribed" => link.subscribed = true,
                    _ if id == b"left" => {
                        link.left = true;
                        return Ok(());
                    }
                    _ => tally.note_confirmed(None, now_ns),
                }
            }
            b"MESSAGE" => match &mut link.consumer {
                Some(consumer) => consumer.take(&frame, out, tally, plan, now_ns)?,
                None => return expect_command(&frame, "RECEIPT"),
            },
            _ => {
                refuse_error(&frame)?;
                expect_command(&frame, "MESSAGE or RECEIPT")?;
            }
        }
    }
    if let Some(consumer) = &mut link.consumer {
        consumer.acknowledge(out);
    }
    Ok(())
}

/// The destinations that connection `number` of `count` serves, with their numbers: each connection has at least one,
/// and each destination at least one connection.
fn served(destinations: &[String], number: usize, count: usize) -> impl Iterator<Item = (usize, &str)> {
    let single = (count >= destinations.len()).then(|| number % destinations.len());
    destinations
        .iter()
        .enumerate()
        .filter_map(move |(at, destination)| {
            let mine = single.map_or(at % count == number, |single| at == single);
            mine.then_some((at, destination.as_str()))
        })
}
