//! `steadfast top`: the running broker, looked at again every second.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use super::api_client::{ApiClient, Route};
use super::clock::{Clock, unix_ns};
use super::queues::{Sort, fetch, flags};
use super::show::{counted, duration, escaped, utc};
use super::stop::{Stop, Woken};
use super::table::{FLAGS, Look, table};
use super::{Failure, StoreArgs, print_json, written};
use crate::api::{Queue, Status};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The order: by name, or the largest first
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "depth")]
    sort: Sort,
    /// Time between two looks
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..))]
    interval_ms: u64,
    /// End after this many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// One JSON object for each look: status and queues, as the API has them
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
q or Ctrl-C ends. Without a terminal it prints a line for each look. Rates are messages a second since the last look. Of \
more than 10,000 queues the first ones by name are looked at.

Examples:
  steadfast top
  steadfast top --sort held
  steadfast top --json --count 60 > minute.jsonl

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

/// Queues looked at, at most: a look shall cost the broker little.
const QUEUE_COUNT_MAX: u64 = 10_000;

/// Lines above the table, with the empty one, and the one on which the cursor stands.
const OTHER_ROWS: usize = 5;

pub(super) fn run(args: TopArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    let stop = Stop::new().map_err(Failure::Signals)?;
    let mut view = View {
        screen: None,
        sort: args.sort,
        json: args.json,
        before: None,
    };
    let mut stdin = Some(io::stdin()).filter(IsTerminal::is_terminal);
    let interval = Duration::from_millis(args.interval_ms);
    let mut left = args.count;
    loop {
        let clock = Clock::start();
        let status: Status = api.get(Route::new(&["status"]))?;
        let queues = fetch(&api, None, Some(QUEUE_COUNT_MAX))?;
        if view.screen.is_none() && !args.json && io::stdout().is_terminal() {
            view.screen = Some(Screen::open().map_err(Failure::Output)?);
        }
        view.show(clock, status, queues)?;
        left = left.map(|left| left - 1);
        if left == Some(0) {
            return Ok(());
        }
        loop {
            let rest = interval.saturating_sub(clock.elapsed());
            match stop.wait(stdin.as_ref().map(AsFd::as_fd), Some(rest)) {
                Ok(Woken::TimedOut) => break,
                Ok(Woken::Stopped | Woken::OutputGone) => return Ok(()),
                Ok(Woken::Ready) => {
                    let mut keys = [0; 64];
                    let count = stdin.as_mut().map(|stdin| io::Read::read(stdin, &mut keys));
                    match count.transpose().map_err(Failure::Input)?.unwrap_or_default() {
                        0 => stdin = None,
                        count if keys.iter().take(count).any(|key| matches!(key, b'q' | b'Q')) => {
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(Failure::Signals(error)),
            }
        }
    }
}

/// What is seen at one time.
#[derive(Serialize)]
struct Seen {
    status: Status,
    queues: Vec<Queue>,
    #[serde(skip)]
    clock: Clock,
}

struct View {
    screen: Option<Screen>,
    sort: Sort,
    json: bool,
    before: Option<Seen>,
}

/// Messages a second in, out and settled.
#[derive(Clone, Copy, PartialEq)]
struct Rates([f64; 3]);

impl Rates {
    fn between(seconds: f64, before: [u64; 3], now: [u64; 3]) -> Self {
        let [x, y, z] = [0, 1, 2].map(|at: usize| {
            let (before, now) = (before.get(at), now.get(at));
            // A broker that was started again counts from 0.
            let count = now.zip(before).map(|(now, before)| now.saturating_sub(*before));
            count.unwrap_or_default() as f64 / seconds.max(0.001)
        });
        Self([x, y, z])
    }
}

impl View {
    fn show(&mut self, clock: Clock, status: Status, queues: Vec<Queue>) -> Result<(), Failure> {
        let mut now = Seen {
            status,
            queues,
            clock,
        };
        self.sort.sort(&mut now.queues);
        let done = if self.json {
            print_json(&[&now])
        } else {
            let mut page = Vec::new();
            let drawn = match self.screen {
                Some(_) => self.draw(&mut page, &now),
                None => self.line(&mut page, &now),
            };
            let mut out = io::stdout().lock();
            written(
                drawn
                    .and_then(|()| out.write_all(&page))
                    .and_then(|()| out.flush()),
            )
        };
        self.before = Some(now);
        done
    }

    fn rates(&self, now: &Seen) -> Option<Rates> {
        let before = self.before.as_ref()?;
        let seconds = before
            .clock
            .elapsed()
            .saturating_sub(now.clock.elapsed())
            .as_secs_f64();
        let counts = |status: &Status| {
            let counters = status.counters;
            [
                counters.enqueued_count,
                counters.delivered_count,
                counters.accepted_count,
            ]
        };
        Some(Rates::between(
            seconds,
            counts(&before.status),
            counts(&now.status),
        ))
    }

    /// One line, where there is no terminal.
    fn line(&self, out: &mut dyn Write, now: &Seen) -> io::Result<()> {
        let status = &now.status;
        writeln!(
            out,
            "{} {}, {} ({} bytes) in {}, {}, {}",
            utc(unix_ns() / 1_000_000),
            per_second(self.rates(now)),
            counted(status.message_count, "message"),
            status.message_bytes,
            counted(status.queue_count, "queue"),
            counted(status.connection_count, "connection"),
            counted(status.subscription_count, "subscription"),
        )
    }

    /// The whole screen.
    fn draw(&self, out: &mut dyn Write, now: &Seen) -> io::Result<()> {
        let look = Look::of_stdout();
        let status = &now.status;
        let health = if status.health.ok { "ready" } else { "NOT READY" };
        let lines = [
            format!(
                "steadfast {}, up {}, {health}; q ends",
                escaped(&status.version),
                duration(status.uptime_ms)
            ),
            format!(
                "{} ({}) in {}; {}, {}, {}",
                counted(status.message_count, "message"),
                look.bytes(status.message_bytes),
                counted(status.queue_count, "queue"),
                counted(status.connection_count, "connection"),
                counted(status.subscription_count, "subscription"),
                counted(status.transaction_count, "open transaction")
            ),
            per_second(self.rates(now)),
        ];
        let mut page = Vec::new();
        for line in lines {
            writeln!(page, "{}", look.cut(&line))?;
        }
        writeln!(page)?;
        let room = look.height.unwrap_or(24).saturating_sub(OTHER_ROWS + 1);
        table(&mut page, look, &self.rows(look, now, room))?;
        // Line by line over what was there, so that nothing flickers.
        out.write_all(b"\x1b[H")?;
        for line in page.split_inclusive(|byte| *byte == b'\n') {
            out.write_all(line.strip_suffix(b"\n").unwrap_or(line))?;
            out.write_all(b"\x1b[K\n")?;
        }
        out.write_all(b"\x1b[J")
    }

    fn rows(&self, look: Look, now: &Seen, room: usize) -> Vec<[String; 9]> {
        let head = [
            "QUEUE", FLAGS, "DEPTH", "IN/S", "OUT/S", "DONE/S", "HELD", "SUBS", "BYTES",
        ];
        let counts = |queue: &Queue| [queue.in_count, queue.out_count, queue.accepted_count];
        let before: HashMap<&str, [u64; 3]> = self
            .before
            .iter()
            .flat_map(|seen| {
                seen.queues
                    .iter()
                    .map(|queue| (queue.name.as_str(), counts(queue)))
            })
            .collect();
        let seconds = self.before.as_ref().map_or(0.0, |before| {
            before
                .clock
                .elapsed()
                .saturating_sub(now.clock.elapsed())
                .as_secs_f64()
        });
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(now.queues.iter().take(room).map(|queue| {
            let Rates(rates) = before.get(queue.name.as_str()).map_or(Rates([0.0; 3]), |before| {
                Rates::between(seconds, *before, counts(queue))
            });
            let [inward, outward, settled] = rates.map(|rate| format!("{rate:.0}"));
            [
                escaped(&queue.name),
                flags(queue),
                queue.depth.to_string(),
                inward,
                outward,
                settled,
                queue.leased_count.to_string(),
                queue.subscription_count.to_string(),
                look.bytes(queue.bytes),
            ]
        }));
        rows
    }
}

fn per_second(rates: Option<Rates>) -> String {
    match rates {
        Some(Rates([inward, outward, settled])) => {
            format!("per second {inward:.0} in, {outward:.0} out, {settled:.0} settled")
        }
        None => "per second - in, - out, - settled".to_owned(),
    }
}

/// A terminal that shows keys no more and has a page of its own; as it was before when this is dropped.
struct Screen {
    before: Option<Termios>,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut keys = before.clone();
            keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(&stdin, OptionalActions::Now, &keys)?;
        }
        let screen = Self { before };
        let mut out = io::stdout().lock();
        // Another page, and no cursor.
        out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
