//! The command of the simulation: seed after seed, until something is found or it has run for as long as it should.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use steadfast::sim::{Outcome, run};

/// Runs the simulation of Steadfast with one seed after the other. The first that finds something ends it with exit
/// code 1 and is printed; `--seed` with its number does the same again, step by step.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Runs this seed alone and prints its last events; the broker's log goes to standard error.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed; another at each start where it is missing.
    #[arg(long)]
    from: Option<u64>,
    /// So many seeds.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// No new seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
}

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// The same where nobody looks on.
const PROGRESS_LOGGED: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args = Args::parse();
    // What is printed to a pipe that has closed is of no use to anybody, and no reason to stop.
    match args.seed {
        Some(seed) => one(seed),
        None => many(&args),
    }
}

fn one(seed: u64) -> ExitCode {
    tracing_subscriber::fmt()
        .without_time()
        .with_writer(stderr)
        .with_ansi(false)
        .init();
    let outcome = run(seed, None);
    let mut out = stdout().lock();
    for line in &outcome.trail {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(
        out,
        "seed {seed}: {} events, sum {:016x}",
        outcome.event_count, outcome.sum
    );
    let _ = writeln!(out, "{:#?}", outcome.tally);
    verdict(seed, &outcome)
}

fn many(args: &Args) -> ExitCode {
    let first = args.from.unwrap_or_else(seed_of_now);
    let started = now();
    let mut told = started;
    let pause = if stderr().is_terminal() {
        PROGRESS
    } else {
        PROGRESS_LOGGED
    };
    let (mut seed_count, mut event_count) = (0_u64, 0_u64);
    while seed_count < args.count
        && args
            .minutes
            .is_none_or(|minutes| started.elapsed() < Duration::from_secs(60 * minutes))
    {
        let seed = first.wrapping_add(seed_count);
        let outcome = run(seed, None);
        seed_count += 1;
        event_count += outcome.event_count;
        if !outcome.found.is_empty() {
            return verdict(seed, &outcome);
        }
        if told.elapsed() >= pause {
            told = now();
            let seconds = started.elapsed().as_secs();
            let _ = writeln!(
                stderr(),
                "{seconds} s: {seed_count} seeds from {first}, {event_count} events, nothing found"
            );
        }
    }
    let _ = writeln!(
        stdout(),
        "{seed_count} seeds from {first}, {event_count} events: nothing found"
    );
    ExitCode::SUCCESS
}

fn verdict(seed: u64, outcome: &Outcome) -> ExitCode {
    let mut out = stdout().lock();
    for violation in &outcome.found {
        let _ = writeln!(out, "seed {seed}: {violation}");
    }
    if outcome.found.is_empty() {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(
        out,
        "again: cargo run --features sim --bin steadfast-sim -- --seed {seed}"
    );
    ExitCode::FAILURE
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command measures how long it has run"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "another first seed at each start")]
fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() << 20
}
