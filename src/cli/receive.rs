//! `steadfast receive`: takes messages from a queue or topic of any STOMP 1.2 broker.
//!
//! # Invariants
//! - A message is acknowledged after it was written to standard output and flushed, and not before.
//! - With `--count` no further message is delivered: at any time those delivered are at most that many.
//! - What is not acknowledged when the command ends stays in the queue.

mod page;

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Failure;
use super::clock::Clock;
use super::failure::chain;
use super::show::escaped;
use super::stop::{Stop, Woken};
use super::target::{TargetArgs, header_beside};
use crate::client::{ClientError, Connection, Frame, Target, encode_ack, encode_frame, refuse_error};
use page::Page;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReceiveArgs {
    /// Where from, such as /queue/orders or /topic/prices
    destination: String,
    #[command(flatten)]
    target: TargetArgs,
    /// End after this many messages; wait for them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Never end; connect again where the connection is lost
    #[arg(long)]
    follow: bool,
    /// When messages count as taken
    #[arg(long, value_enum, value_name = "MODE", default_value = "client-individual")]
    ack: Ack,
    /// A further header of SUBSCRIBE, such as prefetch-count:10; any number of times
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = own_header)]
    headers: Vec<(String, String)>,
    /// One JSON object on each line: message_id, destination, headers, body or body_hex
    #[arg(long)]
    json: bool,
    /// The bytes of each body and nothing between them
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// End when nothing came for so long [default: 1000; with --count or --follow never]
    #[arg(long, value_name = "MS", conflicts_with = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,
}

const EXAMPLES: &str = "\
Prints each body and a line end. A message is acknowledged once it was written; what is not stays in the queue, also \
after Ctrl-C, a closed pipe or a crash. Without --count and --follow it takes what is there, until nothing came for \
one second. With --count no other message is touched: the last ACKs go out together. On a terminal control characters are shown as escapes; into a file or a pipe bodies go as they are.

Acknowledge modes: client-individual, one by one; client, all up to one; auto, the broker counts a message as taken \
when it is sent, so one that is not printed because of a crash is lost.

Examples:
  steadfast receive /queue/orders
  steadfast receive /queue/orders --count 1 --raw > order.json
  steadfast receive /queue/orders --follow --json | jq .body
  steadfast receive /topic/prices --follow
  STEADFAST_PASSCODE=guest steadfast receive /queue/a --addr rabbit:61613 --login guest --host /

Exit codes: 0 well, also if nothing was there; 1 a fault, an ERROR of the broker, or fewer messages than --count \
within --timeout-ms; 2 wrong usage.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    Auto,
    Client,
    ClientIndividual,
}

impl Ack {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

/// Headers that the command decides.
const OWN: &[&str] = &["id", "destination", "ack", "receipt"];

/// Messages on their way to us at most; they go back where the command ends first.
const PREFETCH_COUNT: u64 = 100;

/// Without --count and --follow: nothing more is there when nothing came for so long.
const QUIET: Duration = Duration::from_secs(1);

/// For an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the broker shall say that it is there.
const BEAT_MS: u32 = 10_000;

/// Between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

fn own_header(text: &str) -> Result<(String, String), String> {
    header_beside(OWN, text)
}

pub(super) fn run(args: &ReceiveArgs) -> Result<(), Failure> {
    if args.count.is_some() && args.ack == Ack::Auto {
        // The broker counts more as taken than would be printed.
        return Err(Failure::Usage(
            "--count with --ack auto would lose what comes after the last one; leave one of them out",
        ));
    }
    let mut receiver = Receiver {
        args,
        target: Target {
            beat_ms: BEAT_MS,
            ..args.target.target(ANSWER)
        },
        stop: Stop::new().map_err(Failure::Signals)?,
        page: Page::new(args.json, args.raw),
        taken_count: 0,
        held: Vec::new(),
    };
    let mut backoff = BACKOFF.0;
    let mut lost = false;
    loop {
        let taken_count = receiver.taken_count;
        let mut session = Session::default();
        let error = match receiver.receive(&mut session, lost) {
            Ok(end) => return receiver.end(end),
            Err(Fault::Client(error)) => error,
            Err(Fault::Other(failure)) => return Err(failure),
        };
        // An ERROR before the subscription stands would come again: a wrong login, a wrong name.
        let refused = !session.subscribed && matches!(error, ClientError::Refused { .. });
        if !args.follow || refused {
            return Err(Failure::client(error));
        }
        if receiver.taken_count > taken_count {
            backoff = BACKOFF.0;
        }
        if session.subscribed || !lost {
            note(format_args!("{}; trying again", escaped(&chain(&error))));
        }
        lost = true;
        if receiver
            .stop
            .wait(None, Some(backoff))
            .map_err(Failure::Signals)?
            != Woken::TimedOut
        {
            return Ok(());
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Tells something beside the messages.
fn note(text: impl Display) {
    // What cannot be told does not keep messages from coming.
    let _ = writeln!(io::stderr(), "{text}");
}

struct Receiver<'a> {
    args: &'a ReceiveArgs,
    target: Target,
    stop: Stop,
    page: Page,
    taken_count: u64,
    /// ACKs of printed messages that wait for the end, so that no more than `--count` messages leave the queue.
    held: Vec<u8>,
}

/// What the broker has confirmed on one connection.
#[derive(Debug, Default)]
struct Session {
    subscribed: bool,
    unsubscribed: bool,
}

/// Why receiving ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `--count` messages were taken.
    Whole,
    /// Nothing came for long enough.
    Quiet,
    /// A signal came.
    Stopped,
    /// Nobody reads what we print.
    OutputGone,
}

enum Fault {
    /// Of this connection; another one may do better.
    Client(ClientError),
    /// Of this program.
    Other(Failure),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Receiver<'_> {
    /// Receives over one connection.
    fn receive(&mut self, session: &mut Session, again: bool) -> Result<End, Fault> {
        let mut connection = Connection::open(&self.target)?;
        // What another connection was to acknowledge comes again on this one.
        self.held.clear();
        self.subscribe(&mut connection)?;
        let silence = connection.beat().map(|beat| 2 * beat);
        let mut heard = Clock::start();
        let mut came = Clock::start();
        let end = loop {
            let subscribed = session.subscribed;
            match self.take(&mut connection, session)? {
                Taken::Whole => break End::Whole,
                Taken::OutputGone => break End::OutputGone,
                Taken::Some => came = Clock::start(),
                Taken::None => {}
            }
            if session.subscribed && !subscribed {
                came = Clock::start();
                if again {
                    note("connected again");
                }
            }
            let quiet = self.quiet().filter(|_| session.subscribed);
            // Before the subscription stands its receipt is due.
            let silence = if session.subscribed { silence } else { Some(ANSWER) };
            let left = [
                quiet.map(|quiet| quiet.saturating_sub(came.elapsed())),
                silence.map(|silence| silence.saturating_sub(heard.elapsed())),
            ];
            let woken = self
                .stop
                .wait(Some(connection.as_fd()), left.into_iter().flatten().min());
            match woken.map_err(|error| Fault::Other(Failure::Signals(error)))? {
                Woken::Stopped => break End::Stopped,
                Woken::OutputGone => break End::OutputGone,
                Woken::Ready => {
                    connection.read_some()?;
                    heard = Clock::start();
                }
                Woken::TimedOut if quiet.is_some_and(|quiet| came.elapsed() >= quiet) => break End::Quiet,
                Woken::TimedOut if silence.is_some_and(|silence| heard.elapsed() >= silence) => {
                    return Err(ClientError::TimedOut.into());
                }
                Woken::TimedOut => {}
            }
        };
        if self.args.ack == Ack::Auto && end != End::OutputGone {
            self.take_rest(&mut connection, session)?;
        }
        // Together with DISCONNECT, so that nothing is delivered in between.
        connection.out().append(&mut self.held);
        match connection.disconnect() {
            // Without a reader there is nobody to tell, either.
            Err(_) if end == End::OutputGone => Ok(end),
            done => Ok(done.map(|()| end)?),
        }
    }

    fn quiet(&self) -> Option<Duration> {
        let default = (self.args.count.is_none() && !self.args.follow).then_some(QUIET);
        self.args.timeout_ms.map(Duration::from_millis).or(default)
    }

    /// Messages on their way to us at most.
    fn prefetch_count(&self) -> u64 {
        match self.args.count {
            Some(count) => (count / 10).clamp(1, PREFETCH_COUNT),
            None => PREFETCH_COUNT,
        }
    }

    fn subscribe(&self, connection: &mut Connection) -> Result<(), ClientError> {
        let args = self.args;
        let prefetch = self.prefetch_count().to_string();
        let mut headers = vec![
            ("id", "0"),
            ("destination", args.destination.as_str()),
            ("ack", args.ack.name()),
            ("receipt", "subscribe"),
        ];
        headers.extend(
            args.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        // Of a repeated header the first counts, so that one of the user's wins.
        headers.push(("prefetch-count", &prefetch));
        encode_frame(connection.out(), "SUBSCRIBE", &headers, None);
        connection.write_all().map_err(|error| connection.explain(error))
    }

    /// Prints the messages that are there, then acknowledges them.
    fn take(&mut self, connection: &mut Connection, session: &mut Session) -> Result<Taken, Fault> {
        let (decoder, out) = connection.split();
        let (mut acks, mut held) = (Vec::new(), Vec::new());
        let mut count = 0;
        let wanted = self.args.count.map(|count| count - self.taken_count);
        // An ACK makes room for another message. Those of the last ones wait until all were printed.
        let at_once = wanted.map_or(u64::MAX, |wanted| wanted.saturating_sub(self.prefetch_count()));
        self.page.clear();
        while wanted.is_none_or(|wanted| count < wanted) {
            let Some(frame) = decoder.next_frame().map_err(ClientError::Decode)? else {
                break;
            };
            refuse_error(&frame)?;
            match frame.command {
                b"MESSAGE" => {
                    self.page.message(&frame);
                    let acks = if count < at_once { &mut acks } else { &mut held };
                    self.acknowledge(acks, &frame);
                    count += 1;
                }
                b"RECEIPT" => {
                    session.subscribed = true;
                    session.unsubscribed |= frame.header("receipt-id") == Some(b"unsubscribe");
                }
                other => {
                    return Err(Fault::Client(ClientError::Unexpected {
                        command: String::from_utf8_lossy(other).into_owned(),
                        expected: "MESSAGE",
                    }));
                }
            }
        }
        if count == 0 {
            return Ok(Taken::None);
        }
        if !self
            .page
            .print()
            .map_err(|error| Fault::Other(Failure::Output(error)))?
        {
            return Ok(Taken::OutputGone);
        }
        self.taken_count += count;
        out.extend_from_slice(&acks);
        self.held.extend_from_slice(&held);
        connection
            .write_all()
            .map_err(|error| connection.explain(error))?;
        Ok(if wanted == Some(count) {
            Taken::Whole
        } else {
            Taken::Some
        })
    }

    fn acknowledge(&self, acks: &mut Vec<u8>, frame: &Frame<'_>) {
        match self.args.ack {
            Ack::Auto => return,
            // The last one covers those before.
            Ack::Client => acks.clear(),
            Ack::ClientIndividual => {}
        }
        if let Some(ack) = frame.header("ack") {
            encode_ack(acks, ack);
        }
    }

    /// In auto mode what is on its way counts as taken already: it is printed before the end.
    fn take_rest(&mut self, connection: &mut Connection, session: &mut Session) -> Result<(), Fault> {
        let headers = [("id", "0"), ("receipt", "unsubscribe")];
        encode_frame(connection.out(), "UNSUBSCRIBE", &headers, None);
        connection
            .write_all()
            .map_err(|error| connection.explain(error))?;
        loop {
            if self.take(connection, session)? == Taken::OutputGone || session.unsubscribed {
                return Ok(());
            }
            if !connection.read_some()? {
                return Err(ClientError::TimedOut.into());
            }
        }
    }

    fn end(&self, end: End) -> Result<(), Failure> {
        match (end, self.args.count) {
            (End::Quiet, Some(wanted)) => Err(Failure::Fewer {
                came: self.taken_count,
                wanted,
            }),
            (End::Quiet, None) if self.taken_count == 0 => {
                note("nothing came");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What one look at the connection gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    None,
    Some,
    Whole,
    OutputGone,
}
