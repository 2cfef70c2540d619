//! `steadfast send`: puts messages into a queue or topic of any STOMP 1.2 broker.
//!
//! # Invariants
//! - With receipts, exit code 0 means that the broker confirmed every message.
//! - Nothing read from standard input waits for more of it: a line is on its way before the next one is awaited.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, StdinLock, Write};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::show::counted;
use super::target::{TargetArgs, header_beside};
use super::{Failure, print};
use crate::client::{BODY_BYTES_MAX, ClientError, Connection, encode_frame, expect_command, parse_number};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// Where to, such as /queue/orders or /topic/prices
    destination: String,
    /// The message [default: standard input, whole]
    text: Option<OsString>,
    #[command(flatten)]
    target: TargetArgs,
    /// A message for each line of standard input, as it comes
    #[arg(long, conflicts_with = "text")]
    lines: bool,
    /// Send each message this many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// A further header of each message; any number of times
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = own_header)]
    headers: Vec<(String, String)>,
    /// Commit this many messages at a time; the rest at the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    transaction: Option<u64>,
    /// Let the broker keep the messages in memory only (persistent:false)
    #[arg(long)]
    transient: bool,
    /// Do not ask for a receipt of each message, only of the end
    #[arg(long)]
    no_receipt: bool,
    /// How long an answer of the broker may take
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

const EXAMPLES: &str = "\
Each message is sent with a receipt, and the command ends well when all of them came: with Steadfast the messages \
then survive a power cut. Where it fails, it says how many were confirmed. With --transaction the receipt is that of \
the COMMIT. A line is sent without its line end. RabbitMQ and ActiveMQ keep a message in memory unless they are asked \
for more: --header persistent:true.

Examples:
  steadfast send /queue/orders 'one pair of shoes'
  steadfast send /queue/orders --header kind:shoes --header 'note:two: left, right' < order.json
  tail -f events.log | steadfast send /queue/events --lines
  steadfast send /queue/orders test --count 1000 --transaction 100
  STEADFAST_PASSCODE=guest steadfast send /queue/a hello --addr rabbit:61613 --login guest --host / --header persistent:true

Exit codes: 0 all sent and confirmed, 1 a fault or an ERROR of the broker, 2 wrong usage.";

/// Headers that the command decides.
const OWN: &[&str] = &["destination", "content-length", "receipt", "transaction"];

/// Receipts that may be due before more is sent.
const WINDOW: usize = 256;

/// Bytes that gather before they are written.
const GATHERED_BYTES: usize = 64 << 10;

fn own_header(text: &str) -> Result<(String, String), String> {
    header_beside(OWN, text)
}

pub(super) fn run(args: &SendArgs) -> Result<(), Failure> {
    let mut source = Source::new(args)?;
    let target = args.target.target(Duration::from_millis(args.timeout_ms));
    let connection = Connection::open(&target).map_err(Failure::client)?;
    let mut sender = Sender {
        args,
        connection,
        sent_count: 0,
        confirmed_count: 0,
        due: BTreeMap::new(),
        receipt: 0,
        transaction: None,
    };
    let sent = sender.send_all(&mut source);
    let (sent_count, confirmed_count) = (sender.sent_count, sender.confirmed_count);
    match sent.and_then(|()| sender.connection.disconnect().map_err(Failure::client)) {
        Ok(()) if args.no_receipt => print(format!("{} sent\n", counted(sent_count, "message"))),
        Ok(()) => print(format!("{} sent and confirmed\n", counted(sent_count, "message"))),
        Err(Failure::Client { error, .. }) if sent_count > 0 => Err(Failure::Client {
            error,
            note: Some(format!(
                "confirmed {confirmed_count} of {}",
                counted(sent_count, "message")
            )),
        }),
        Err(failure) => Err(failure),
    }
}

/// Where bodies come from.
enum Source {
    One(Option<Vec<u8>>),
    Lines(BufReader<StdinLock<'static>>),
}

impl Source {
    fn new(args: &SendArgs) -> Result<Self, Failure> {
        if let Some(text) = &args.text {
            return Ok(Self::One(Some(text.clone().into_vec())));
        }
        if io::stdin().is_terminal() {
            let what = if args.lines { "messages" } else { "the message" };
            // A hint that nobody can see is not needed.
            let _ = writeln!(io::stderr(), "reading {what} from the terminal; Ctrl-D ends");
        }
        let stdin = io::stdin().lock();
        if args.lines {
            return Ok(Self::Lines(BufReader::with_capacity(GATHERED_BYTES, stdin)));
        }
        let mut body = Vec::new();
        stdin
            .take(BODY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut body)
            .map_err(Failure::Input)?;
        Self::bounded(body).map(|body| Self::One(Some(body)))
    }

    fn bounded(body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if body.len() > BODY_BYTES_MAX {
            let what = format!("a message is longer than {BODY_BYTES_MAX} bytes");
            return Err(Failure::Input(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        Ok(body)
    }

    /// Whether the next body may have to be waited for.
    fn may_wait(&self) -> Result<bool, Failure> {
        let Self::Lines(input) = self else {
            return Ok(false);
        };
        if input.buffer().contains(&b'\n') {
            return Ok(false);
        }
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut ready, Some(&at_once)) {
            Ok(count) => Ok(count == 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(Failure::Input(error.into())),
        }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let input = match self {
            Self::One(body) => return Ok(body.take()),
            Self::Lines(input) => input,
        };
        let mut line = Vec::new();
        // The line end comes on top.
        let read = input
            .take(BODY_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(Failure::Input)?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Self::bounded(line).map(Some)
    }
}

struct Sender<'a> {
    args: &'a SendArgs,
    connection: Connection,
    sent_count: u64,
    confirmed_count: u64,
    /// Messages that each receipt on its way will confirm.
    due: BTreeMap<u64, u64>,
    receipt: u64,
    /// The open transaction: its name and the messages in it.
    transaction: Option<(String, u64)>,
}

impl Sender<'_> {
    fn send_all(&mut self, source: &mut Source) -> Result<(), Failure> {
        loop {
            if source.may_wait()? {
                self.settle(0).map_err(Failure::client)?;
            }
            let Some(body) = source.next()? else {
                break;
            };
            for _ in 0..self.args.count {
                self.send(&body).map_err(Failure::client)?;
            }
        }
        self.commit()
            .and_then(|()| self.settle(0))
            .map_err(Failure::client)
    }

    fn send(&mut self, body: &[u8]) -> Result<(), ClientError> {
        let args = self.args;
        if args.transaction.is_some() && self.transaction.is_none() {
            let name = format!("t{}", self.receipt);
            encode_frame(self.connection.out(), "BEGIN", &[("transaction", &name)], None);
            self.transaction = Some((name, 0));
        }
        let receipt;
        let mut headers = vec![("destination", args.destination.as_str())];
        headers.extend(
            args.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        headers.extend(args.transient.then_some(("persistent", "false")));
        if let Some((name, count)) = &mut self.transaction {
            *count += 1;
            headers.push(("transaction", name));
        } else if !args.no_receipt {
            self.receipt += 1;
            receipt = self.receipt.to_string();
            self.due.insert(self.receipt, 1);
            headers.push(("receipt", &receipt));
        }
        encode_frame(self.connection.out(), "SEND", &headers, Some(body));
        self.sent_count += 1;
        if let Some((_, count)) = self.transaction
            && Some(count) == args.transaction
        {
            self.commit()?;
        }
        if self.connection.pending_bytes() >= GATHERED_BYTES {
            self.write()?;
        }
        if self.due.len() >= WINDOW {
            self.settle(WINDOW / 2)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), ClientError> {
        let Some((name, count)) = self.transaction.take() else {
            return Ok(());
        };
        self.receipt += 1;
        let receipt = self.receipt.to_string();
        let mut headers = vec![("transaction", name.as_str())];
        if !self.args.no_receipt {
            headers.push(("receipt", &receipt));
            self.due.insert(self.receipt, count);
        }
        encode_frame(self.connection.out(), "COMMIT", &headers, None);
        Ok(())
    }

    fn write(&mut self) -> Result<(), ClientError> {
        self.connection
            .write_all()
            .map_err(|error| self.connection.explain(error))
    }

    /// Writes everything and waits until at most so many receipts are due.
    fn settle(&mut self, due_count: usize) -> Result<(), ClientError> {
        self.write()?;
        while self.due.len() > due_count {
            let receipt = self.connection.wait_frame(|frame| {
                expect_command(frame, "RECEIPT")?;
                Ok(frame.header("receipt-id").and_then(parse_number))
            })?;
            let confirmed = receipt.and_then(|receipt| self.due.remove(&receipt));
            self.confirmed_count += confirmed.ok_or(ClientError::Unexpected {
                command: "RECEIPT".to_owned(),
                expected: "the receipt of a message",
            })?;
        }
        Ok(())
    }
}
