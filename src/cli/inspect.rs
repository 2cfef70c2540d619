//! `steadfast inspect`: looks into the store of a stopped broker.
//!
//! # Invariants
//! - Nothing is appended to the store, and a folder without a store stays as it is.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::show::{escaped, hex, utc};
use super::stored::{Chunk, Damage, Reader, message_id, well_formed};
use super::table::{Look, table};
use super::{Failure, StoreArgs, load, queue_name, written};
use crate::base::{Limits, Now};
use crate::broker::{Broker, Recovery};
use crate::config::Overrides;
use crate::journal::Recovered;
use crate::port::QueueView;
use crate::store::{Salvage, SledStore, Store, StoreError};
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
    /// One JSON object on each line: kind is store, damage, queue, message, fault or check
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The broker must be stopped: its folder has one user at a time. Nothing is delivered, settled or changed. Opening \
verifies the index of the store and counts its chunks; --check also reads every body. Times are UTC.

Of a store that is damaged, and that a broker refuses, it shows what is whole, which is what `steadfast repair` would \
save; --check names each message that is gone. The exit code is 4. Of a store that a broker opens, and in which it \
cannot read some messages, --check says of each whether `steadfast repair` saves it: one damaged bit hides what is \
stored beside it from a broker, and seldom from a repair.

Examples:
  steadfast inspect --data-dir /var/lib/steadfast
  steadfast inspect --queue orders --limit 10 --bodies
  steadfast inspect --check --json | jq 'select(.kind == \"queue\")'

Exit codes: 0 well, 2 no store there, 4 the store is damaged, 5 a broker is using the folder.";

/// Faults that a check tells one by one; the rest is counted.
const FAULT_LINES_MAX: usize = 100;

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
    let failed = |error| Failure::store(error, &data_dir);
    let mut recovery = Recovery::new(config.limits.clone());
    let opened = SledStore::open_existing(&data_dir)
        .map_err(failed)
        .and_then(|store| {
            let recovered = store
                .recover(&mut |chunk| recovery.visit(chunk))
                .map_err(failed)?;
            Ok((store, recovered))
        });
    let (view, refused) = match opened {
        Ok((store, recovered)) => {
            let view = View {
                file_bytes: store.stats().file_bytes,
                chunk: Box::new(move |place| store.body(place)),
                broker: recovery.finish(&recovered, Now::default()),
                recovered,
                damage: None,
                json: args.json,
            };
            (view, None)
        }
        Err(failure) => {
            let Failure::Store {
                error: error @ StoreError::Damaged { .. },
                ..
            } = &failure
            else {
                return Err(failure);
            };
            let Ok(salvage) = Salvage::read(&data_dir) else {
                return Err(failure);
            };
            let (broker, recovered) = recover(&salvage, &config.limits).map_err(failed)?;
            let view = View {
                file_bytes: salvage.file_bytes(),
                damage: Some(Damage::new(Some(error), salvage.loss())),
                chunk: Box::new(move |place| salvage.body(place)),
                broker,
                recovered,
                json: args.json,
            };
            (view, Some(failure))
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = match queue {
        Some(queue) => view.messages(&mut out, queue, args.from, args.limit, args.bodies),
        None => view.queues(&mut out),
    };
    let fault_count = shown.and_then(|()| match args.check {
        true => view.check(&mut out, |faults| look_again(faults, &data_dir, &config.limits)),
        false => Ok(0),
    });
    match (fault_count.and_then(|count| out.flush().map(|()| count)), refused) {
        (Ok(_), Some(failure)) => Err(failure),
        (Ok(0), None) => Ok(()),
        (Ok(fault_count), None) => Err(Failure::CheckFailed {
            fault_count,
            data_dir,
        }),
        (Err(error), _) => written(Err(error)),
    }
}

/// The broker of what can be saved.
fn recover(salvage: &Salvage, limits: &Limits) -> Result<(Broker, Recovered), StoreError> {
    let mut recovery = Recovery::new(limits.clone());
    let recovered = salvage.recover(&mut |chunk| recovery.visit(chunk))?;
    Ok((recovery.finish(&recovered, Now::default()), recovered))
}

/// What is looked at, and how it is told.
struct View<'a> {
    chunk: Box<Chunk<'a>>,
    file_bytes: u64,
    broker: Broker,
    recovered: Recovered,
    /// What a broker would not open it for.
    damage: Option<Damage>,
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
    Damage(&'a Damage),
    Queue {
        name: &'a str,
        depth: u64,
        bytes: u64,
        oldest_at: Option<String>,
        /// The topic, or pattern of topics, whose messages it keeps.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
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
        what: &'a str,
        /// Whether a repair saves the message; `null` where that is not known, or it is the fault of a queue.
        repair_saves: Option<bool>,
    },
    Check {
        queues: u64,
        messages: u64,
        bytes: u64,
        faults: u64,
        /// Messages at fault that a repair saves.
        repair_saves: u64,
    },
}

/// What a check finds at fault.
struct Fault {
    queue: Arc<str>,
    /// The message; `None` where it is the queue.
    sequence: Option<u64>,
    what: String,
    repair_saves: Option<bool>,
}

impl View<'_> {
    fn queues(&self, out: &mut dyn Write) -> io::Result<()> {
        let file_bytes = self.file_bytes;
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
            if let Some(damage) = &self.damage {
                line(out, &Line::Damage(damage))?;
            }
            for queue in self.broker.queues() {
                line(
                    out,
                    &Line::Queue {
                        name: &queue.name,
                        depth: queue.depth,
                        bytes: queue.bytes,
                        oldest_at: queue.oldest_at_ms.map(utc),
                        topic: queue.topic.as_deref(),
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
        for damage in self.damage.iter().flat_map(Damage::lines) {
            writeln!(out, "{damage}")?;
        }
        let look = Look::of_stdout();
        let mut rows = vec![["QUEUE", "KEEPS", "DEPTH", "BYTES", "OLDEST"].map(str::to_owned)];
        rows.extend(self.broker.queues().map(|queue| {
            [
                escaped(&queue.name),
                queue
                    .topic
                    .map(|topic| format!("/topic/{}", escaped(&topic)))
                    .unwrap_or_default(),
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
        let mut reader = Reader::new(&*self.chunk);
        let mut entries = self.broker.entries(queue, from);
        let mut shown_count = 0;
        for entry in entries.by_ref().take(count_max) {
            shown_count += 1;
            let message_id = message_id(&self.recovered.uuid, entry.message);
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

    /// Reads every message and counts what is wrong; has what a broker cannot read looked at again, with the store closed.
    fn check(self, out: &mut dyn Write, look_again: impl FnOnce(&mut [Fault])) -> io::Result<u64> {
        let mut reader = Reader::new(&*self.chunk);
        let queues: Vec<QueueView> = self.broker.queues().collect();
        let expected: u64 = queues.iter().map(|queue| queue.depth).sum();
        let progress = io::stderr().is_terminal();
        let (mut message_count, mut byte_count) = (0, 0);
        let mut faults = Vec::new();
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
                    faults.push(Fault {
                        queue: Arc::clone(&queue.name),
                        sequence: Some(entry.sequence),
                        what,
                        // Where a broker refuses the store, it was read as a repair would.
                        repair_saves: self.damage.is_some().then_some(false),
                    });
                }
                if progress && message_count % PROGRESS_EVERY == 0 {
                    eprint!("\rchecked {message_count} of {expected} messages");
                }
            }
            let (messages, bytes) = (message_count - messages_before, byte_count - bytes_before);
            if (messages, bytes) != (queue.depth, queue.bytes) {
                let what = format!(
                    "it holds {messages} messages with {bytes} bytes, and its counters say {} with {}",
                    queue.depth, queue.bytes
                );
                faults.push(Fault {
                    queue: Arc::clone(&queue.name),
                    sequence: None,
                    what,
                    repair_saves: None,
                });
            }
        }
        if progress && message_count >= PROGRESS_EVERY {
            eprintln!();
        }
        let Self {
            json, damage, chunk, ..
        } = self;
        // A folder has one user at a time.
        drop(chunk);
        if damage.is_none() && !faults.is_empty() {
            look_again(&mut faults);
        }
        for (number, fault) in faults.iter().enumerate() {
            if json || number < FAULT_LINES_MAX {
                fault.tell(out, json)?;
            }
        }
        let saved_count = faults
            .iter()
            .filter(|fault| fault.repair_saves == Some(true))
            .count() as u64;
        let fault_count = faults.len() as u64;
        if json {
            line(
                out,
                &Line::Check {
                    queues: queues.len() as u64,
                    messages: message_count,
                    bytes: byte_count,
                    faults: fault_count,
                    repair_saves: saved_count,
                },
            )?;
        } else {
            writeln!(
                out,
                "checked {message_count} messages with {byte_count} bytes in {} queues: {}",
                queues.len(),
                match (fault_count, saved_count) {
                    (0, _) => "no fault".to_owned(),
                    (count, 0) => format!("{count} faults"),
                    (count, saved) => format!("{count} faults, and a repair saves {saved} of these messages"),
                }
            )?;
        }
        Ok(fault_count)
    }
}

impl Fault {
    fn tell(&self, out: &mut dyn Write, json: bool) -> io::Result<()> {
        let Self {
            queue,
            sequence,
            what,
            repair_saves,
        } = self;
        if json {
            return line(
                out,
                &Line::Fault {
                    queue,
                    sequence: *sequence,
                    what,
                    repair_saves: *repair_saves,
                },
            );
        }
        let place = sequence
            .map(|sequence| format!(", sequence {sequence}"))
            .unwrap_or_default();
        let verdict = match repair_saves {
            Some(true) => "; a broker cannot read it, and a repair saves it",
            Some(false) => "; it is gone",
            None => "",
        };
        writeln!(out, "fault: queue {}{place}: {what}{verdict}", escaped(queue))
    }
}

/// Finds out what a repair makes of messages that a broker cannot read, by reading them as it does.
fn look_again(faults: &mut [Fault], data_dir: &Path, limits: &Limits) {
    let Ok(salvage) = Salvage::read(data_dir) else {
        return;
    };
    let Ok((broker, _)) = recover(&salvage, limits) else {
        return;
    };
    let chunk = |place| salvage.body(place);
    let mut reader = Reader::new(&chunk);
    for fault in faults {
        fault.repair_saves = fault.sequence.map(|sequence| {
            let entry = broker
                .entries(&fault.queue, sequence)
                .next()
                .filter(|entry| entry.sequence == sequence);
            entry.is_some_and(|entry| {
                let read = reader.message(&entry);
                read.is_ok_and(|bytes| well_formed(&bytes, &entry).is_ok())
            })
        });
    }
}

fn line(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
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

#[cfg(test)]
mod tests;
