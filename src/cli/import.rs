//! `steadfast import`: what `export` has written, sent to a broker, any that speaks STOMP 1.2.
//!
//! # Invariants
//! - Messages are sent in the order of the file, a transaction at a time; the next begins when the last was confirmed. So
//!   at most one transaction is in doubt when the command fails, and it says how many messages come before it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::progress::Progress;
use super::show::counted;
use super::target::TargetArgs;
use super::{Failure, print, queue_name};
use crate::api::{Body, BodyEncoding};
use crate::client::{BODY_BYTES_MAX, Connection, Decoder, Frame, encode_frame, expect_command, unescape};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// The file, JSON lines or frames; - for standard input
    file: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Send everything to this queue instead of the one it came from
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Leave out the first messages: those that an earlier run has confirmed
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Send expires, expiration and ttl too, so that messages expire by them; else they are left out, since their time may
    /// have passed and a dead letter has none
    #[arg(long)]
    keep_expiry: bool,
    /// Send the headers that delay a message or let it come again too: delays begin anew, and each message that came by a
    /// schedule begins one of its own; else they are left out, and all come at once
    #[arg(long)]
    keep_schedule: bool,
    /// Messages of one transaction, at most; they are fewer where they are large
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    transaction: u64,
    /// How long an answer of the broker may take
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

const EXAMPLES: &str = "\
Headers, bodies and order are kept; message ids, times, counters, the origin of dead letters, persistent:false and \
deduplication ids (dedup-id, _AMQ_DUPL_ID, Nats-Msg-Id), by which a queue may know the message already, are not: each is a new message. Where the command fails it says how many messages were confirmed; --skip of that number \
goes on behind them. The transaction that was under way may be there or not, so its messages may come twice.

Examples:
  steadfast import orders.jsonl
  steadfast import all.stomp --addr other:61613
  steadfast import orders.jsonl --to orders-again --skip 12000
  zcat orders.jsonl.gz | steadfast import -

Exit codes: 0 all sent and confirmed, 1 a fault, an ERROR of the broker or a file that is no export, 2 wrong usage.";

/// Bytes of one transaction, beyond which it is committed.
const TRANSACTION_BYTES: usize = 1 << 20;

/// What the frames that import makes have already.
const OWN: [&str; 4] = ["destination", "content-length", "receipt", "transaction"];

/// Headers by which the queue may know the message, perhaps as the very one that was exported, and would not store it.
const DEDUP: [&str; 3] = ["dedup-id", "_AMQ_DUPL_ID", "Nats-Msg-Id"];

/// Headers that would end a message, a dead letter perhaps, whose time may have passed since it was first sent.
const EXPIRY: [&str; 3] = ["expires", "expiration", "ttl"];
const SCHEDULE: [&str; 7] = [
    "AMQ_SCHEDULED_DELAY",
    "AMQ_SCHEDULED_TIME",
    "AMQ_SCHEDULED_PERIOD",
    "AMQ_SCHEDULED_REPEAT",
    "AMQ_SCHEDULED_CRON",
    "x-delay",
    "deliver-after",
];

pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let to = args.to.as_deref().map(queue_name).transpose()?;
    let mut source = Source::open(&args.file)?;
    source.skip(args.skip)?;
    let target = args.target.target(Duration::from_millis(args.timeout_ms));
    let connection = Connection::open(&target).map_err(Failure::client)?;
    let mut import = Import {
        args,
        to: to.map(|name| format!("/queue/{name}")),
        connection,
        transaction: Vec::new(),
        bytes: 0,
        confirmed_count: args.skip,
        progress: Progress::new("imported"),
    };
    let sent = import.send_all(&mut source);
    let count = import.confirmed_count - args.skip;
    let Import {
        connection,
        confirmed_count,
        ..
    } = import;
    match sent.and_then(|()| connection.disconnect().map_err(Failure::client)) {
        Ok(()) => print(format!("{} sent and confirmed\n", counted(count, "message"))),
        Err(failure) => Err(Failure::Import {
            failure: Box::new(failure),
            skip: confirmed_count,
        }),
    }
}

/// A message as it is in the file.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    destination: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A line of JSON, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Line {
    queue: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Option<LineBody>,
    /// Why the broker could not read it.
    fault: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LineBody {
    encoding: BodyEncoding,
    data: String,
    #[serde(default)]
    truncated: bool,
}

/// The messages of a file.
struct Source {
    path: PathBuf,
    form: Form,
    /// Messages read.
    count: u64,
}

/// Bytes that come once, as out of a pipe.
type Stream = Box<dyn Read>;

enum Form {
    Lines(BufReader<Stream>),
    Frames(Decoder, Stream),
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        let is_stdin = path == Path::new("-");
        let path = match is_stdin {
            true => Path::new("standard input"),
            false => path,
        };
        let failed = |source| Failure::Read {
            path: path.to_owned(),
            source,
        };
        let mut stream: Stream = match is_stdin {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path).map_err(failed)?),
        };
        // A pipe cannot be read again: what was looked at goes before the rest.
        let mut first = Vec::new();
        stream.by_ref().take(1).read_to_end(&mut first).map_err(failed)?;
        let is_json = first.is_empty() || first == b"{";
        let stream: Stream = Box::new(io::Cursor::new(first).chain(stream));
        Ok(Self {
            path: path.to_owned(),
            form: match is_json {
                true => Form::Lines(BufReader::with_capacity(TRANSACTION_BYTES, stream)),
                false => Form::Frames(Decoder::new(), stream),
            },
            count: 0,
        })
    }

    /// Passes over the first messages. Where there are fewer it is another file, or a part of it.
    fn skip(&mut self, skip: u64) -> Result<(), Failure> {
        while self.count < skip {
            if self.next()?.is_none() {
                return Err(Failure::Skip {
                    path: self.path.clone(),
                    count: self.count,
                    skip,
                });
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let record = match &mut self.form {
            Form::Lines(lines) => next_line(lines),
            Form::Frames(decoder, stream) => next_frame(decoder, stream),
        };
        let record = record.map_err(|what| Failure::Record {
            path: self.path.clone(),
            number: self.count + 1,
            what,
        })?;
        self.count += u64::from(record.is_some());
        Ok(record)
    }
}

fn next_line(lines: &mut impl BufRead) -> Result<Option<Record>, String> {
    /// A body in base64, or a text of which not all is escaped, and headers.
    const LINE_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX as u64;
    let mut text = Vec::new();
    let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
    if read.map_err(|error| error.to_string())? == 0 {
        return Ok(None);
    }
    if text.len() as u64 == LINE_BYTES_MAX {
        return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
    }
    if text.last() != Some(&b'\n') {
        return Err("the line has no end: the export was cut".to_owned());
    }
    let line: Line = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if let Some(fault) = line.fault {
        return Err(format!("it could not be read where it comes from: {fault}"));
    }
    let LineBody {
        encoding,
        data,
        truncated,
    } = line.body.ok_or("it has no body")?;
    if truncated {
        return Err("its body is cut (truncated:true)".to_owned());
    }
    let body = Body {
        encoding,
        data,
        truncated,
    };
    Ok(Some(Record {
        destination: format!("/queue/{}", line.queue),
        headers: line.headers,
        body: body.into_bytes().ok_or("its body is no base64")?,
    }))
}

fn next_frame(decoder: &mut Decoder, stream: &mut impl Read) -> Result<Option<Record>, String> {
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            return record_of(&frame).map(Some);
        }
        let count = match stream.read(decoder.space()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(|error| error.to_string())?,
        };
        decoder.filled(count);
        if count == 0 {
            return match decoder.is_empty() {
                true => Ok(None),
                false => Err("the frame has no end: the export was cut".to_owned()),
            };
        }
    }
}

fn record_of(frame: &Frame<'_>) -> Result<Record, String> {
    if frame.command != b"SEND" {
        return Err(format!(
            "it is no SEND but {}",
            String::from_utf8_lossy(frame.command)
        ));
    }
    let text = |raw: &[u8]| String::from_utf8(unescape(raw).into_owned()).map_err(|error| error.to_string());
    let headers = frame
        .headers()
        .map(|(name, value)| Ok((text(name)?, text(value)?)));
    Ok(Record {
        destination: frame.text("destination").ok_or("it has no destination")?,
        headers: headers.collect::<Result<_, String>>()?,
        body: frame.body.to_vec(),
    })
}

struct Import<'a> {
    args: &'a ImportArgs,
    to: Option<String>,
    connection: Connection,
    /// What the next transaction has.
    transaction: Vec<Record>,
    bytes: usize,
    /// Messages of the file that are there, with those that were skipped.
    confirmed_count: u64,
    progress: Progress,
}

impl Import<'_> {
    fn send_all(&mut self, source: &mut Source) -> Result<(), Failure> {
        while let Some(record) = source.next()? {
            self.bytes += record.body.len();
            self.transaction.push(record);
            let full = self.transaction.len() as u64 == self.args.transaction;
            if full || self.bytes >= TRANSACTION_BYTES {
                self.commit()?;
            }
        }
        self.commit()
    }

    /// Sends what has gathered and waits until it is confirmed.
    fn commit(&mut self) -> Result<(), Failure> {
        let records = std::mem::take(&mut self.transaction);
        self.bytes = 0;
        let name = self.confirmed_count.to_string();
        // A single message, which may be larger than what may be staged, needs no transaction.
        let (transaction, receipt) = match records.len() {
            0 => return Ok(()),
            1 => (None, Some(name.as_str())),
            _ => (Some(name.as_str()), None),
        };
        if let Some(name) = transaction {
            encode_frame(self.connection.out(), "BEGIN", &[("transaction", name)], None);
        }
        for record in &records {
            let mut headers = vec![("destination", self.to.as_deref().unwrap_or(&record.destination))];
            let own = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            headers.extend(own.filter(|(name, _)| {
                !OWN.contains(name)
                    && !DEDUP.contains(name)
                    && (self.args.keep_expiry || !EXPIRY.contains(name))
                    && (self.args.keep_schedule || !SCHEDULE.contains(name))
            }));
            headers.extend(transaction.map(|name| ("transaction", name)));
            headers.extend(receipt.map(|name| ("receipt", name)));
            encode_frame(self.connection.out(), "SEND", &headers, Some(&record.body));
        }
        if let Some(name) = transaction {
            let headers = [("transaction", name), ("receipt", name)];
            encode_frame(self.connection.out(), "COMMIT", &headers, None);
        }
        let confirmed = self
            .connection
            .write_all()
            .map_err(|error| self.connection.explain(error))
            .and_then(|()| {
                self.connection
                    .wait_frame(|frame| expect_command(frame, "RECEIPT"))
            });
        confirmed.map_err(Failure::client)?;
        self.confirmed_count += records.len() as u64;
        self.progress.tell(|| counted(self.confirmed_count, "message"));
        Ok(())
    }
}
