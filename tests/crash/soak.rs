//! A mixed load for a long time, with restarts: what it takes stays flat, a client beside it is served as fast as in the
//! beginning (judged in runs of over five minutes), and nothing is lost.
//!
//! `STEADFAST_TEST_SOAK_SECONDS` says how long (1,800 for half an hour), `STEADFAST_TEST_SOAK_PLOT` where a picture goes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use steadfast::cli::plot::{Panel, Scale, Series, svg};

use super::rig::{Broker, Client, env_number};
use super::{Trial, alone, assert_kept, millis, seed};

/// How many brokers follow each other in one history, which has to fit into memory. Between two histories the store is drained.
const LIVES: usize = 8;

/// How long one broker lives at most.
const LIFE_MAX: Duration = Duration::from_secs(3);

const SAMPLES_PER_LIFE: u32 = 3;

/// Histories there are at least, so that the first and the last can be compared.
const HISTORIES_MIN: u64 = 3;

/// Runs as long as this, in seconds, judge latencies: in a short one a few samples under a busy machine would.
const LATENCY_SECONDS_MIN: u64 = 300;

/// How much slower than in the beginning a round may become, as the median of what was sampled.
const LATENCY_FACTOR_MAX: f64 = 5.0;

/// And so much more, of what is fast: what another load on the machine takes.
const LATENCY_SLACK_US: f64 = 20_000.0;

const MIB: f64 = (1 << 20) as f64;

/// What was seen of a broker at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_s: f64,
    resident_mib: f64,
    file_mib: f64,
    thread_count: f64,
    descriptor_count: f64,
    /// Of rounds of a client of its own since the sample before: a message sent, delivered and settled, each confirmed.
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// One client that is served beside the load, and times it.
struct Probe(Client);

impl Probe {
    fn start(broker: &Broker) -> Self {
        let mut client = broker.connect();
        let headers = [
            ("destination", "/queue/probe"),
            ("id", "0"),
            ("ack", "client-individual"),
        ];
        client.request("SUBSCRIBE", &headers, b"").unwrap();
        Self(client)
    }

    fn round(&mut self) -> Duration {
        let begin = Instant::now();
        let headers = [("destination", "/queue/probe")];
        let mut came = self.0.request("SEND", &headers, b"probe").unwrap();
        let message = match came.pop() {
            Some(message) => message,
            None => self.0.expect().unwrap(),
        };
        let id = message.header("ack").expect("a MESSAGE can be settled");
        self.0.request("ACK", &[("id", id)], b"").unwrap();
        begin.elapsed()
    }
}

/// Lets the load run for one life, and samples it.
fn sample(trial: &mut Trial, begin: Instant, life: Duration, samples: &mut Vec<Sample>) {
    let mut probe = Probe::start(trial.broker());
    for _ in 0..SAMPLES_PER_LIFE {
        let mut rounds = Vec::new();
        let next = Instant::now() + life / SAMPLES_PER_LIFE;
        while rounds.is_empty() || Instant::now() < next {
            rounds.push(probe.round());
        }
        rounds.sort_unstable();
        let at = |percent: usize| rounds[(rounds.len() - 1) * percent / 100].as_secs_f64() * 1e6;
        let file = fs::metadata(trial.settings.data_dir.join("db")).unwrap();
        let broker = trial.broker();
        assert!(broker.runs(), "the broker ended:\n{}", broker.log_end());
        samples.push(Sample {
            at_s: begin.elapsed().as_secs_f64(),
            resident_mib: broker.resident_bytes() as f64 / MIB,
            file_mib: (file.blocks() * 512) as f64 / MIB,
            thread_count: broker.thread_count() as f64,
            descriptor_count: broker.descriptor_count() as f64,
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
        });
    }
}

#[test]
fn a_mixed_load_with_restarts_takes_no_more_with_time() {
    let _alone = alone();
    let seed = seed();
    let long = Duration::from_secs(env_number("STEADFAST_TEST_SOAK_SECONDS", 10));
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut samples = Vec::new();
    let (mut messages, mut restarts) = (0, 0);
    // Within a history the store grows as its queues do, so only whole histories are compared.
    let mut histories = Vec::new();
    let life = LIFE_MAX.min(long / (LIVES as u32 * 5));
    let mut trial_seed = seed;
    while begin.elapsed() < long || trial_seed < seed + HISTORIES_MIN {
        trial_seed += 1;
        let first = samples.len();
        let mut trial = Trial::new(dir.path(), dir.path(), trial_seed);
        for lived in 0..LIVES {
            trial.start(None);
            sample(&mut trial, begin, life, &mut samples);
            let while_ = millis(&mut trial.rng, 1, 200);
            trial.run(while_);
            if lived % 2 == 0 {
                trial.kill(None);
            } else {
                trial.stop();
            }
            restarts += 1;
        }
        histories.push(first..samples.len());
        messages += trial.load().sent();
        assert_kept(&trial.finish(), trial_seed);
    }
    let summary = format!(
        "{} s, {messages} messages, {restarts} restarts, every second one a kill",
        begin.elapsed().as_secs()
    );
    println!("  {summary}");
    if let Some(path) = std::env::var_os("STEADFAST_TEST_SOAK_PLOT") {
        fs::write(path, picture(&summary, &samples)).unwrap();
    }
    // The first history fills what is filled once.
    let compared = (histories.len() / 4).max(1);
    let early = &samples[histories[1].start..histories[compared].end];
    let late = &samples[histories[histories.len() - compared].start..];
    for (what, of, slack) in figures() {
        let (early, late) = (highest(early, of), highest(late, of));
        println!("  {what}: at most {early:.0} early, {late:.0} late");
        assert!(late <= early * 1.5 + slack, "{what} grows: {early} to {late}");
    }
    type Latency = (&'static str, fn(&Sample) -> f64);
    let latencies: [Latency; 2] = [("p50", |sample| sample.p50_us), ("p99", |sample| sample.p99_us)];
    for (what, of) in latencies {
        let (early, late) = (median(early, of), median(late, of));
        let is_judged = long.as_secs() > LATENCY_SECONDS_MIN;
        let said = if is_judged {
            ""
        } else {
            ", not judged in a short run"
        };
        println!("  {what} of a round: {early:.0} us early, {late:.0} late{said}");
        assert!(
            !is_judged || late <= early * LATENCY_FACTOR_MAX + LATENCY_SLACK_US,
            "{what} of a round grows: {early} to {late} us"
        );
    }
}

fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What must stay flat: its name, where it is, and how much it may differ where it is small.
type Figure = (&'static str, fn(&Sample) -> f64, f64);

fn figures() -> [Figure; 4] {
    [
        ("resident MiB", |sample| sample.resident_mib, 128.0),
        ("MiB of the store's file", |sample| sample.file_mib, 128.0),
        ("threads", |sample| sample.thread_count, 8.0),
        ("descriptors", |sample| sample.descriptor_count, 16.0),
    ]
}

fn highest(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).fold(0.0, f64::max)
}

fn picture(summary: &str, samples: &[Sample]) -> String {
    let line = |name, of: fn(&Sample) -> f64| Series {
        name,
        values: samples.iter().map(|sample| Some(of(sample))).collect(),
    };
    let panels = [
        Panel {
            title: "memory and file, MiB",
            series: vec![
                line("resident", |sample| sample.resident_mib),
                line("file", |sample| sample.file_mib),
            ],
            scale: Scale::Linear,
        },
        Panel {
            title: "threads and descriptors",
            series: vec![
                line("threads", |sample| sample.thread_count),
                line("descriptors", |sample| sample.descriptor_count),
            ],
            scale: Scale::Linear,
        },
        Panel {
            title: "send, delivery and settlement of one message beside the load",
            series: vec![
                line("p50", |sample| sample.p50_us),
                line("p99", |sample| sample.p99_us),
                line("max", |sample| sample.max_us),
            ],
            scale: Scale::Time,
        },
    ];
    let moments_s: Vec<f64> = samples.iter().map(|sample| sample.at_s).collect();
    svg("A mixed load with restarts", summary, &moments_s, &panels)
}
