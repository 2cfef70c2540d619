//! `steadfast inspect`: looks into the store of a stopped broker.
//!
//! # Invariants
//! - Nothing is appended to the store, and a folder without a store stays as it is.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::show::{escaped, hex, utc};
use super::table::{Look, table};
use super::{Failure, StoreArgs, load, queue_name, written};
use crate::base::{ChunkRef, Now};
use crate::broker::{Broker, Recovery};
use crate::config::Overrides;
use crate::journal::Recovered;
use crate::port::{Body, EntryView, QueueView};
use crate::store::{SledStore, Store, StoreError, StoreStats};
use crate::wire::{self, Escapes};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Show the messages of this queue, with their headers, instead of the table of queues
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// At most this many messages
    #[arg(long, value_name = "N", default_value_t = 100, requires = "queue")]
    limit: usize,
    /// From this queue sequence on
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, requires = "queue")]
    from: u64,
    /// Show bodies too: as text, or in hexadecimal where they are not
    #[arg(long, requires = "queue")]
    bodies: bool,
    /// Read every stored message and verify checksums, lengths, header blocks and counts
    #[arg(long)]
    check: bool,
    /// One JSON object on each line: kind is store, queue, message, fault or check
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The broker must be stopped: its folder has one user at a time. Nothing is delivered, settled or changed. Opening \
verifies the index of the store and counts its chunks; --check also reads every body. Times are UTC.

Examples:
  steadfast inspect --data-dir /var/lib/steadfast
  steadfast inspect --queue orders --limit 10 --bodies
  steadfast inspect --check --json | jq 'select(.kind == \"queue\")'

Exit codes: 0 well, 2 no store there, 4 the store is damaged, 5 a broker is using the folder.";

/// Faults that a check tells one by one; the rest is counted.
const FAULT_LINES_MAX: u64 = 100;

/// Messages between two lines of progress.
const PROGRESS_EVERY: u64 = 10_000;

pub(super) fn run(args: InspectArgs) -> Result<(), Failure> {
    let config = load(Overrides {
        file: args.store.config,
        data_dir: args.store.data_dir,
        ..Overrides::default()
    })?;
    let queue = args.queue.as_deref().map(queue_name).transpose()?;
    let data_dir = config.server.data_dir;
    let failed = |error| Failure::Store {
        error,
        data_dir: data_dir.clone(),
    };
    let store = open(&data_dir)?;
    let mut recovery = Recovery::new(config.limits);
    let recovered = store
        .recover(&mut |chunk| recovery.visit(chunk))
        .map_err(failed)?;
    let view = View {
        store: &store,
        broker: recovery.finish(&recovered, Now::default()),
        recovered,
        json: args.json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = match queue {
        Some(queue) => view.messages(&mut out, queue, args.from, args.limit, args.bodies),
        None => view.queues(&mut out),
    };
    let fault_count = shown.and_then(|()| if args.check { view.check(&mut out) } else { Ok(0) });
    match fault_count.and_then(|count| out.flush().map(|()| count)) {
        Ok(0) => Ok(()),
        Ok(fault_count) => Err(Failure::CheckFailed {
            fault_count,
            data_dir,
        }),
        Err(error) => written(Err(error)),
    }
}

/// What is looked at, and how it is told.
struct View<'a> {
    store: &'a dyn Store,
    broker: Broker,
    recovered: Recovered,
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Store {
        uuid: String,
        epoch: u32,
        last_seq: u64,
        clean: bool,
        file_bytes: u64,
        slot_count: u32,
    },
    Queue {
        name: &'a str,
        depth: u64,
        bytes: u64,
        oldest_at: Option<String>,
    },
    Message {
        queue: &'a str,
        sequence: u64,
        message_id: String,
        accepted_at: String,
        bytes: u32,
        body_bytes: u32,
        deliveries: u32,
        failures: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        headers: Option<Vec<(String, String)>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body_hex: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
    },
    Fault {
        queue: &'a str,
        sequence: Option<u64>,
        what: String,
    },
    Check {
        queues: u64,
        messages: u64,
        bytes: u64,
        faults: u64,
    },
}

impl View<'_> {
    fn queues(&self, out: &mut dyn Write) -> io::Result<()> {
        let StoreStats { file_bytes, .. } = self.store.stats();
        let Recovered {
            meta,
            last_seq,
            uuid,
            slot_count,
        } = self.recovered;
        let clean = meta.clean_epoch == meta.epoch;
        if self.json {
            let uuid = hex(&uuid);
            line(
                out,
                &Line::Store {
                    uuid,
                    epoch: meta.epoch.0,
                    last_seq: last_seq.0,
                    clean,
                    file_bytes,
                    slot_count,
                },
            )?;
            for queue in self.broker.queues() {
                line(
                    out,
                    &Line::Queue {
                        name: &queue.name,
                        depth: queue.depth,
                        bytes: queue.bytes,
                        oldest_at: queue.oldest_at_ms.map(utc),
                    },
                )?;
            }
            return Ok(());
        }
        writeln!(
            out,
            "store {}, epoch {} ({}), {file_bytes} bytes on disk, {slot_count} body slots",
            hex(&uuid),
            meta.epoch,
            if clean {
                "stopped cleanly"
            } else {
                "not stopped cleanly"
            },
        )?;
        let look = Look::of_stdout();
        let mut rows = vec![["QUEUE", "DEPTH", "BYTES", "OLDEST"].map(str::to_owned)];
        rows.extend(self.broker.queues().map(|queue| {
            [
                escaped(&queue.name),
                queue.depth.to_string(),
                look.bytes(queue.bytes),
                queue.oldest_at_ms.map(utc).unwrap_or_default(),
            ]
        }));
        match rows.len() {
            1 => writeln!(out, "no queue holds a message"),
            _ => table(out, look, &rows),
        }
    }

    fn messages(
        &self,
        out: &mut dyn Write,
        queue: &str,
        from: u64,
        count_max: usize,
        bodies: bool,
    ) -> io::Result<()> {
        let mut reader = Reader::new(self.store);
        let mut entries = self.broker.entries(queue, from);
        let mut shown_count = 0;
        for entry in entries.by_ref().take(count_max) {
            shown_count += 1;
            let message_id = self.message_id(&entry);
            let read = reader.message(&entry);
            let accepted_at = utc(entry.accepted_at_ms);
            let (parts, fault) = match &read {
                Ok(bytes) => (bytes.split_at_checked(entry.header_len as usize), None),
                Err(error) => (None, Some(one_line(error))),
            };
            let (block, body) = parts.map_or((None, None), |(block, body)| (Some(block), Some(body)));
            let body = body.filter(|_| bodies);
            let text = body.and_then(|body| std::str::from_utf8(body).ok());
            if self.json {
                line(
                    out,
                    &Line::Message {
                        queue,
                        sequence: entry.sequence,
                        message_id,
                        accepted_at,
                        bytes: entry.len,
                        body_bytes: entry.len.saturating_sub(entry.header_len),
                        deliveries: entry.deliveries,
                        failures: entry.failures,
                        headers: block.map(headers),
                        body: text,
                        body_hex: body.filter(|_| text.is_none()).map(hex),
                        fault,
                    },
                )?;
                continue;
            }
            writeln!(
                out,
                "{} message-id:{message_id} accepted {accepted_at}, {} bytes (body {}), deliveries {}, failures {}",
                entry.sequence,
                entry.len,
                entry.len.saturating_sub(entry.header_len),
                entry.deliveries,
                entry.failures
            )?;
            if let Some(fault) = fault {
                writeln!(out, "    fault: {fault}")?;
            }
            for header in block.unwrap_or_default().split_inclusive(|&b| b == b'\n') {
                let header = header.strip_suffix(b"\n").unwrap_or(header);
                writeln!(out, "    {}", escaped(&String::from_utf8_lossy(header)))?;
            }
            match (text, body) {
                (Some(text), _) => {
                    for row in text.lines() {
                        writeln!(out, "    | {}", escaped(row))?;
                    }
                }
                (None, Some(body)) => writeln!(out, "    hexadecimal {}", hex(body))?,
                (None, None) => {}
            }
        }
        if !self.json {
            match (shown_count, entries.next()) {
                (0, None) => writeln!(out, "queue {} holds no message from {from} on", escaped(queue))?,
                (_, Some(next)) => writeln!(out, "more: --from {}", next.sequence)?,
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// Reads every message and counts what is wrong.
    fn check(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut reader = Reader::new(self.store);
        let queues: Vec<QueueView> = self.broker.queues().collect();
        let expected: u64 = queues.iter().map(|queue| queue.depth).sum();
        let progress = io::stderr().is_terminal();
        let (mut message_count, mut byte_count, mut fault_count) = (0, 0, 0);
        for queue in &queues {
            let (messages_before, bytes_before) = (message_count, byte_count);
            for entry in self.broker.entries(&queue.name, 0) {
                message_count += 1;
                byte_count += u64::from(entry.len);
                let found = reader
                    .message(&entry)
                    .map_err(|error| one_line(&error))
                    .and_then(|bytes| well_formed(&bytes, &entry));
                if let Err(what) = found {
                    fault_count += 1;
                    self.fault(out, fault_count, &queue.name, Some(entry.sequence), what)?;
                }
                if progress && message_count % PROGRESS_EVERY == 0 {
                    eprint!("\rchecked {message_count} of {expected} messages");
                }
            }
            let (messages, bytes) = (message_count - messages_before, byte_count - bytes_before);
            if (messages, bytes) != (queue.depth, queue.bytes) {
                fault_count += 1;
                let what = format!(
                    "it holds {messages} messages with {bytes} bytes, and its counters say {} with {}",
                    queue.depth, queue.bytes
                );
                self.fault(out, fault_count, &queue.name, None, what)?;
            }
        }
        if progress && message_count >= PROGRESS_EVERY {
            eprintln!();
        }
        if self.json {
            line(
                out,
                &Line::Check {
                    queues: queues.len() as u64,
                    messages: message_count,
                    bytes: byte_count,
                    faults: fault_count,
                },
            )?;
        } else {
            writeln!(
                out,
                "checked {message_count} messages with {byte_count} bytes in {} queues: {}",
                queues.len(),
                match fault_count {
                    0 => "no fault".to_owned(),
                    count => format!("{count} faults"),
                }
            )?;
        }
        Ok(fault_count)
    }

    fn fault(
        &self,
        out: &mut dyn Write,
        fault_count: u64,
        queue: &str,
        sequence: Option<u64>,
        what: String,
    ) -> io::Result<()> {
        if self.json {
            return line(
                out,
                &Line::Fault {
                    queue,
                    sequence,
                    what,
                },
            );
        }
        let place = sequence
            .map(|sequence| format!(", sequence {sequence}"))
            .unwrap_or_default();
        match fault_count {
            ..=FAULT_LINES_MAX => writeln!(out, "fault: queue {}{place}: {what}", escaped(queue)),
            _ => Ok(()),
        }
    }

    fn message_id(&self, entry: &EntryView) -> String {
        let (epoch, number) = entry.message.parts();
        let store: String = hex(&self.recovered.uuid).chars().take(8).collect();
        format!("{store}-{epoch}-{number}")
    }
}

fn line(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

/// Reads messages; keeps the last chunk, because its neighbours are likely to be next.
struct Reader<'a> {
    store: &'a dyn Store,
    last: Option<(ChunkRef, Bytes)>,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its chunks hold {found} bytes from its place on, and it has {expected}")]
    Short { found: usize, expected: u32 },
}

impl<'a> Reader<'a> {
    fn new(store: &'a dyn Store) -> Self {
        Self { store, last: None }
    }

    fn chunk(&mut self, place: ChunkRef) -> Result<Bytes, StoreError> {
        match &self.last {
            Some((last, bytes)) if *last == place => Ok(bytes.clone()),
            _ => {
                let bytes = self.store.body(place)?;
                self.last = Some((place, bytes.clone()));
                Ok(bytes)
            }
        }
    }

    /// Header block and body.
    fn message(&mut self, entry: &EntryView) -> Result<Bytes, ReadError> {
        let (start, bytes) = match &entry.body {
            Body::Stored { chunk, offset } => (*offset as usize, self.chunk(*chunk)?),
            Body::Extent(chunks) => {
                let mut bytes = Vec::new();
                for &chunk in chunks.iter() {
                    bytes.extend_from_slice(&self.store.body(chunk)?);
                }
                (0, bytes.into())
            }
            Body::Memory(bytes) => (0, bytes.clone()),
        };
        let end = start + entry.len as usize;
        if bytes.len() < end {
            return Err(ReadError::Short {
                found: bytes.len().saturating_sub(start),
                expected: entry.len,
            });
        }
        Ok(bytes.slice(start..end))
    }
}

/// Whether stored bytes are a header block and a body that agree with each other.
fn well_formed(bytes: &[u8], entry: &EntryView) -> Result<(), String> {
    let (block, body) = bytes
        .split_at_checked(entry.header_len as usize)
        .ok_or("its header block is longer than itself")?;
    let mut destination = false;
    let mut length = None;
    for header in block.split_inclusive(|&b| b == b'\n') {
        let (name, value) = header
            .strip_suffix(b"\n")
            .and_then(|header| std::str::from_utf8(header).ok())
            .and_then(|header| header.split_once(':'))
            .ok_or_else(|| format!("no header: {}", escaped(&String::from_utf8_lossy(header))))?;
        destination |= name == "destination";
        if name == "content-length" {
            length = length.or(Some(value));
        }
    }
    if !destination {
        return Err("its header block has no destination".to_owned());
    }
    match length {
        Some(length) if length == body.len().to_string() => Ok(()),
        _ => Err(format!(
            "its content-length is {}, and its body has {} bytes",
            length.map_or_else(|| "missing".to_owned(), escaped),
            body.len()
        )),
    }
}

/// The headers of a block, without their escapes; where `--check` finds an escape at fault, as they are.
fn headers(block: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(block);
    text.lines()
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect()
}

fn one_line(error: &dyn std::error::Error) -> String {
    super::failure::chain(error)
}

fn unescaped(text: &str) -> String {
    match wire::unescape(Escapes::Four, text.as_bytes()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => text.to_owned(),
    }
}

/// Opens the store of a stopped broker.
pub(super) fn open(data_dir: &Path) -> Result<SledStore, Failure> {
    SledStore::open_existing(data_dir).map_err(|error| match &error {
        StoreError::File { source, .. }
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Failure::NoStore(data_dir.to_owned())
        }
        _ => Failure::Store {
            error,
            data_dir: data_dir.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests;
