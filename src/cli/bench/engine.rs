//! The load: one thread drives all connections, non-blocking, with one `poll` for all, one read for many frames and one
//! write for many. Producers and consumers are roles of connections, so every mode of the bench is this one loop with
//! other numbers of each.
//!
//! # Invariants
//! - A producer never has more frames without RECEIPT than its window, nor (where asked) more messages undelivered than
//!   its bound.
//! - The time of a message begins when its frame is made, so waiting in our own output counts.
//! - The measured time of consumers ends with the RECEIPT of their DISCONNECT: then every settlement is processed.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::BenchError;
use super::clock::Clock;
use super::probe::{self, Usage};
use super::progress::Progress;
use super::verify::{Bodies, Faults, Stamp, Verifier};
use crate::client::{
    ClientError, Connection, SendTemplate, Target, encode_ack, encode_frame, expect_command, parse_number,
    refuse_error,
};

#[cfg(test)]
mod tests;

/// A producer makes no further frame while so many bytes wait for the socket.
const OUT_BYTES_MAX: usize = 128 << 10;
/// How often memory is read and progress shown.
const TICK_NS: u64 = 200_000_000;
/// Up to 60 s in nanoseconds; longer ones count as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

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
    /// Counts only without producers.
    pub(super) awaited: Await,
    pub(super) run: Option<u32>,
    pub(super) body_bytes: usize,
    pub(super) window: usize,
    pub(super) undelivered_max: Option<u64>,
    pub(super) ack: AckMode,
    pub(super) prefetch: Option<u32>,
    pub(super) send_headers: Vec<(String, String)>,
    pub(super) subscribe_headers: Vec<(String, String)>,
    /// Nothing for so long although something is due: the rest counts as lost.
    pub(super) patience: Duration,
    pub(super) pid: Option<u32>,
}

/// What one run of the loop gave.
#[derive(Debug)]
pub(super) struct Measured {
    /// Messages sent, by stream.
    pub(super) sent: Vec<u64>,
    pub(super) received_count: u64,
    pub(super) elapsed: Duration,
    pub(super) receipt_ns: Histogram<u64>,
    pub(super) delivery_ns: Histogram<u64>,
    /// The broker before and after.
    pub(super) usage: Option<(Usage, Usage)>,
    pub(super) rss_bytes_peak: u64,
    /// CPU of the load in the same time.
    pub(super) own_cpu_s: f64,
    /// What the verifier has seen; not finished, since another run may deliver the rest.
    pub(super) verifier: Verifier,
    /// Faults of receipts.
    pub(super) faults: Faults,
}

impl Measured {
    pub(super) fn sent_count(&self) -> u64 {
        self.sent.iter().sum()
    }
}

#[derive(Debug)]
struct Stream {
    number: usize,
    template: SendTemplate,
}

/// One connection's sending side.
#[derive(Debug)]
struct Producer {
    streams: Vec<Stream>,
    turn: usize,
    left_count: u64,
    next_receipt: u64,
    /// For each receipt awaited its number and when its frame was made; 0 where none is. The place is the number modulo
    /// the window.
    awaited: Vec<(u64, u64)>,
    unconfirmed_count: usize,
}

/// One connection's receiving side.
#[derive(Debug)]
struct Consumer {
    number: usize,
    /// Raw ack id of the last message of each subscription since the last cumulative ACK.
    unacked: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    subscribed: bool,
    left: bool,
}

/// What all connections share.
#[derive(Debug)]
struct Tally {
    run: u32,
    bodies: Bodies,
    verifier: Verifier,
    sent: Vec<u64>,
    /// The producer of each stream.
    owners: Vec<usize>,
    /// Sent and not yet delivered, by producer; kept only where producers and consumers run together.
    undelivered: Vec<u64>,
    received_count: u64,
    receipt_ns: Histogram<u64>,
    delivery_ns: Histogram<u64>,
    faults: Faults,
}

/// Runs the plan to its end.
pub(super) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    let mut engine = Engine::connect(plan)?;
    engine.drive()?;
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

impl<'a> Engine<'a> {
    fn connect(plan: &'a Plan) -> Result<Self, BenchError> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(BenchError::Histogram);
        let mut tally = Tally {
            run: plan.run.unwrap_or_default(),
            bodies: Bodies::new(plan.body_bytes),
            verifier: Verifier::new(plan.run),
            sent: Vec::new(),
            owners: Vec::new(),
            undelivered: vec![0; plan.producers],
            received_count: 0,
            receipt_ns: histogram()?,
            delivery_ns: histogram()?,
            faults: Faults::default(),
        };
        let mut links = Vec::new();
        for number in 0..plan.producers {
            let mut streams = Vec::new();
            for (_, destination) in served(&plan.destinations, number, plan.producers) {
                let template = SendTemplate::new(destination, plan.body_bytes, &plan.send_headers);
                streams.push(Stream {
                    number: tally.sent.len(),
                    template,
                });
                tally.sent.push(0);
                tally.owners.push(number);
            }
            let left_count = match plan.stop {
                Stop::Count(count) => {
                    let (each, rest) = (count / plan.producers as u64, count % plan.producers as u64);
                    each + u64::from((number as u64) < rest)
                }
                Stop::After(_) => u64::MAX,
            };
            let producer = Producer {
                streams,
                turn: 0,
                left_count,
                next_receipt: 0,
                awaited: vec![(0, 0); plan.window],
                unconfirmed_count: 0,
            };
            let connection = Connection::open(&plan.target)?;
            links.push(Link {
                connection,
                producer: Some(producer),
                consumer: None,
                subscribed: true,
                left: false,
            });
        }
        for number in 0..plan.consumers {
            let mut connection = Connection::open(&plan.target)?;
            let mut subscriptions = served(&plan.destinations, number, plan.consumers).peekable();
            while let Some((id, destination)) = subscriptions.next() {
                let id = id.to_string();
                let prefetch = plan.prefetch.map(|prefetch| prefetch.to_string());
                let mut headers = vec![
                    ("destination", destination),
                    ("id", &id),
                    ("ack", plan.ack.text()),
                ];
                headers.extend(prefetch.as_deref().map(|prefetch| ("prefetch-count", prefetch)));
                let further = plan.subscribe_headers.iter();
                headers.extend(further.map(|(name, value)| (name.as_str(), value.as_str())));
                if subscriptions.peek().is_none() {
                    headers.push(("receipt", "subscribed"));
                }
                encode_frame(connection.out(), "SUBSCRIBE", &headers, None);
            }
            let consumer = Some(Consumer {
                number,
                unacked: Vec::new(),
            });
            links.push(Link {
                connection,
                producer: None,
                consumer,
                subscribed: false,
                left: false,
            });
        }
        for link in &links {
            link.connection.set_nonblocking()?;
        }
        let clock = Clock::start();
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
            progress: Progress::new(plan.name),
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
                }
            }
            if phase == Phase::Running {
                self.produce(now_ns);
                let quiet_ns = now_ns - arrived_ns;
                if self.done(quiet_ns) || quiet_ns > self.plan.patience.as_nanos() as u64 {
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
            self.wait(&mut ready)?;
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
            if phase != Phase::Running && now_ns - arrived_ns > self.plan.target.timeout.as_nanos() as u64 {
                return Err(ClientError::TimedOut.into());
            }
            if now_ns - tick_ns > TICK_NS {
                tick_ns = now_ns;
                let usage = self.plan.pid.and_then(probe::usage).unwrap_or_default();
                self.rss_bytes_peak = self.rss_bytes_peak.max(usage.rss_bytes);
                self.progress.show(
                    now_ns - self.start_ns,
                    self.tally.sent.iter().sum(),
                    self.tally.received_count,
                );
            }
        }
    }

    /// Lets every producer make frames as far as its bounds allow.
    fn produce(&mut self, now_ns: u64) {
        let over =
            matches!(self.plan.stop, Stop::After(time) if now_ns - self.start_ns > time.as_nanos() as u64);
        for (number, link) in self.links.iter_mut().enumerate() {
            let pending_bytes = link.connection.pending_bytes();
            let Some(producer) = link.producer.as_mut() else {
                continue;
            };
            if over {
                producer.left_count = 0;
            }
            producer.produce(
                number,
                link.connection.out(),
                pending_bytes,
                &mut self.tally,
                self.plan,
                now_ns,
            );
        }
    }

    /// Whether nothing more is due.
    fn done(&self, quiet_ns: u64) -> bool {
        let mut producers = self.links.iter().filter_map(|link| link.producer.as_ref());
        if !producers.all(|producer| producer.left_count == 0 && producer.unconfirmed_count == 0) {
            return false;
        }
        if self.plan.consumers == 0 {
            return true;
        }
        let accounted_count = self.tally.verifier.accounted_count();
        if self.plan.producers > 0 {
            return accounted_count >= self.tally.sent.iter().sum();
        }
        match self.plan.awaited {
            Await::Count(count) => accounted_count >= count,
            Await::Quiet(time) => quiet_ns > time.as_nanos() as u64,
        }
    }

    fn mark_end(&mut self, now_ns: u64) {
        self.end_ns = now_ns;
        self.usage.1 = self.plan.pid.and_then(probe::usage);
        self.own_cpu_s.1 = probe::own_cpu_s();
    }

    /// Waits until something can be read or written; `ready` says for each connection whether it can be read.
    fn wait(&self, ready: &mut Vec<bool>) -> Result<(), BenchError> {
        let mut descriptors = Vec::with_capacity(self.links.len());
        for link in &self.links {
            let flags = match (link.left, link.connection.pending_bytes()) {
                (true, _) => PollFlags::empty(),
                (false, 0) => PollFlags::IN,
                (false, _) => PollFlags::IN | PollFlags::OUT,
            };
            descriptors.push(PollFd::new(&link.connection, flags));
        }
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
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

    fn finish(mut self) -> Measured {
        self.progress.clear();
        for producer in self.links.iter().filter_map(|link| link.producer.as_ref()) {
            self.tally.faults.unconfirmed += producer.unconfirmed_count as u64;
        }
        let usage = self.usage.0.zip(self.usage.1);
        let rss_bytes_peak = usage.map_or(0, |(before, after)| before.rss_bytes.max(after.rss_bytes));
        Measured {
            sent: self.tally.sent,
            received_count: self.tally.received_count,
            elapsed: Duration::from_nanos(self.end_ns.saturating_sub(self.start_ns)),
            receipt_ns: self.tally.receipt_ns,
            delivery_ns: self.tally.delivery_ns,
            usage,
            rss_bytes_peak: self.rss_bytes_peak.max(rss_bytes_peak),
            own_cpu_s: self.own_cpu_s.1 - self.own_cpu_s.0,
            verifier: self.tally.verifier,
            faults: self.tally.faults,
        }
    }
}

impl Producer {
    fn produce(
        &mut self,
        number: usize,
        out: &mut Vec<u8>,
        pending_bytes: usize,
        tally: &mut Tally,
        plan: &Plan,
        now_ns: u64,
    ) {
        let Some(undelivered) = tally.undelivered.get_mut(number) else {
            return;
        };
        let room = OUT_BYTES_MAX.saturating_sub(pending_bytes);
        let full_bytes = out.len() + room;
        while self.left_count > 0 && self.unconfirmed_count < self.awaited.len() && out.len() < full_bytes {
            if plan.undelivered_max.is_some_and(|max| *undelivered >= max) {
                return;
            }
            let place = (self.next_receipt % self.awaited.len() as u64) as usize;
            let (Some(awaited), Some(stream)) = (self.awaited.get_mut(place), self.streams.get(self.turn))
            else {
                return;
            };
            // A broker that answers out of order may leave an old one waiting here.
            if awaited.1 != 0 {
                return;
            }
            let Some(sequence) = tally.sent.get_mut(stream.number) else {
                return;
            };
            let stamp = Stamp {
                run: tally.run,
                stream: stream.number as u32,
                sequence: *sequence,
                sent_ns: now_ns,
            };
            stream
                .template
                .encode(out, self.next_receipt, |out| tally.bodies.encode(out, stamp));
            *awaited = (self.next_receipt, now_ns);
            *sequence += 1;
            *undelivered += 1;
            self.unconfirmed_count += 1;
            self.next_receipt += 1;
            self.left_count -= 1;
            self.turn = (self.turn + 1) % self.streams.len();
        }
    }

    /// Takes a RECEIPT; gives when its frame was made, or nothing if it was not due.
    fn confirm(&mut self, receipt: u64) -> Option<u64> {
        let place = (receipt % self.awaited.len() as u64) as usize;
        let awaited = self.awaited.get_mut(place)?;
        if awaited.1 == 0 || awaited.0 != receipt {
            return None;
        }
        self.unconfirmed_count -= 1;
        Some(std::mem::take(&mut awaited.1))
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
                match (parse_number(id), link.producer.as_mut()) {
                    (Some(receipt), Some(producer)) => match producer.confirm(receipt) {
                        Some(made_ns) => tally.receipt_ns.saturating_record(now_ns - made_ns),
                        None => tally.faults.stray_receipts += 1,
                    },
                    _ if id == b"subscribed" => link.subscribed = true,
                    _ if id == b"left" => {
                        link.left = true;
                        return Ok(());
                    }
                    _ => tally.faults.stray_receipts += 1,
                }
            }
            b"MESSAGE" => {
                let Some(consumer) = link.consumer.as_mut() else {
                    return expect_command(&frame, "RECEIPT");
                };
                tally.received_count += 1;
                if let Some(stamp) = tally.verifier.check(consumer.number, frame.body)
                    && let Some(owner) = tally.owners.get(stamp.stream as usize)
                    && let Some(undelivered) = tally.undelivered.get_mut(*owner)
                {
                    *undelivered = undelivered.saturating_sub(1);
                    tally
                        .delivery_ns
                        .saturating_record(now_ns.saturating_sub(stamp.sent_ns));
                }
                if plan.ack == AckMode::Auto {
                    continue;
                }
                let missing = ClientError::Unexpected {
                    command: "MESSAGE without ack".to_owned(),
                    expected: "MESSAGE with ack (STOMP 1.2)",
                };
                let ack = frame.header("ack").ok_or(missing)?;
                if plan.ack == AckMode::ClientIndividual {
                    encode_ack(out, ack);
                } else {
                    let subscription = frame
                        .header("subscription")
                        .and_then(parse_number)
                        .unwrap_or_default();
                    consumer.note_unacked(subscription, ack);
                }
            }
            _ => {
                refuse_error(&frame)?;
                expect_command(&frame, "MESSAGE or RECEIPT")?;
            }
        }
    }
    if let Some(consumer) = link.consumer.as_mut() {
        for (_, ack) in consumer.unacked.drain(..) {
            encode_ack(out, &ack);
        }
    }
    Ok(())
}

impl Consumer {
    fn note_unacked(&mut self, subscription: u64, ack: &[u8]) {
        match self.unacked.iter_mut().find(|(id, _)| *id == subscription) {
            Some((_, last)) => {
                last.clear();
                last.extend_from_slice(ack);
            }
            None => self.unacked.push((subscription, ack.to_vec())),
        }
    }
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
