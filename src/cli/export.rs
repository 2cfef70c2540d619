//! `steadfast export`: messages of queues of the running broker, as lines of JSON or as STOMP frames.

use std::io::{self, BufWriter, Read, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::api_client::{ApiClient, Route};
use super::progress::Progress;
use super::show::counted;
use super::{Failure, StoreArgs, queue_name};
use crate::api::{Body, Failed, Message, Messages, PAGE_COUNT_MAX, QueueDetail, Queues};
use crate::client::encode_frame;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// A queue: NAME or /queue/NAME; any number of times
    #[arg(long = "queue", value_name = "NAME", required_unless_present = "all")]
    queues: Vec<String>,
    /// Every queue that has messages, but for temporary ones
    #[arg(long, conflicts_with = "queues")]
    all: bool,
    /// What is written
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object on each line: the message as the API has it, and its queue
    Json,
    /// SEND frames of STOMP 1.2, with a line end behind each
    Frames,
}

const EXAMPLES: &str = "\
Nothing is delivered, settled or changed. Each queue is read in its order up to the last message that it had when its \
turn came; what leaves it meanwhile is exported or not. Messages that clients hold are among them. How `steadfast \
import` takes them in, and what is not kept: docs/backup.md.

Examples:
  steadfast export --queue orders > orders.jsonl
  steadfast export --all --format frames > all.stomp
  steadfast export --queue DLQ.orders | jq -r '.headers[] | select(.[0] == \"order-id\")[1]'

Exit codes: 0 well, 1 no broker runs there, no such queue, a message that cannot be read, a reader of the \
output that went before the end (`| head`) or another fault, 2 wrong usage or configuration.";

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    queue: &'a str,
    #[serde(flatten)]
    message: Message,
}

pub(super) fn run(args: ExportArgs) -> Result<(), Failure> {
    let named: Result<Vec<&str>, Failure> = args.queues.iter().map(|name| queue_name(name)).collect();
    let named = named?;
    let api = ApiClient::new(args.store)?;
    let export = Export {
        api: &api,
        format: args.format,
        out: BufWriter::new(io::stdout().lock()),
        frame: Vec::new(),
        progress: Progress::new("exported"),
        count: 0,
        unread_count: 0,
        first_unread: None,
    };
    // Unlike what only shows, this fails where its reader has gone: what was taken is no export.
    export.run(named, args.all)
}

struct Export<'a> {
    api: &'a ApiClient,
    format: Format,
    out: BufWriter<io::StdoutLock<'static>>,
    frame: Vec<u8>,
    progress: Progress,
    count: u64,
    /// Messages whose bytes could not be read.
    unread_count: u64,
    /// The first of them: queue and sequence.
    first_unread: Option<(String, u64)>,
}

/// What became of a message that is asked for again.
enum Found {
    Whole(Body),
    Unreadable,
    /// It is no longer in the queue.
    Left,
}

impl Export<'_> {
    fn run(mut self, named: Vec<&str>, all: bool) -> Result<(), Failure> {
        let mut from = all.then(String::new);
        while let Some(first) = from {
            let page: Queues = self.api.get(Route::new(&["queues"]).with("from", Some(first)))?;
            // A temporary queue is gone with its session, and a SEND to its name is refused.
            let lasting = page.queues.iter().filter(|queue| queue.owner.is_none());
            for queue in lasting.filter(|queue| queue.depth > 0) {
                self.queue(&queue.name, queue.next_sequence)?;
            }
            from = page.next;
        }
        for name in named {
            let detail: QueueDetail = self.api.get(Route::new(&["queues", name]))?;
            self.queue(name, detail.queue.next_sequence)?;
        }
        self.end()
    }

    /// The messages of a queue below a sequence.
    fn queue(&mut self, queue: &str, until: u64) -> Result<(), Failure> {
        let mut from = Some(0);
        while let Some(first) = from.filter(|first| *first < until) {
            let route = Route::new(&["queues", queue, "messages"])
                .with("from", Some(first))
                .with("count", Some(PAGE_COUNT_MAX))
                .with("body", Some("whole"));
            let page: Messages = match self.api.get(route) {
                // It had messages, and has none any more.
                Err(Failure::Refused(failed)) if has_left(&failed) => return Ok(()),
                page => page?,
            };
            from = page.next;
            for mut message in page.messages {
                if message.sequence >= until {
                    return Ok(());
                }
                if message.fault.is_some() {
                    self.unread(queue, message.sequence);
                    continue;
                }
                if message.body.as_ref().is_some_and(|body| body.truncated) {
                    match self.complete(queue, &message)? {
                        Found::Whole(body) => message.body = Some(body),
                        Found::Unreadable => {
                            self.unread(queue, message.sequence);
                            continue;
                        }
                        Found::Left => continue,
                    }
                }
                self.write(queue, message).map_err(Failure::Output)?;
                self.count += 1;
                self.progress.tell(|| counted(self.count, "message"));
            }
        }
        Ok(())
    }

    fn unread(&mut self, queue: &str, sequence: u64) {
        self.unread_count += 1;
        self.first_unread
            .get_or_insert_with(|| (queue.to_owned(), sequence));
    }

    /// Reads a body that a page does not hold whole.
    fn complete(&self, queue: &str, message: &Message) -> Result<Found, Failure> {
        let (sequence, expected) = (message.sequence, message.body_bytes);
        let route = Route::new(&["queues", queue, "messages", &sequence.to_string(), "body"]);
        let mut bytes = Vec::new();
        let read = match self.api.get_bytes(route) {
            Err(Failure::Refused(failed)) if has_left(&failed) => return Ok(Found::Left),
            stream => stream?.take(expected + 1).read_to_end(&mut bytes),
        };
        if read.is_ok_and(|count| count as u64 == expected) {
            return Ok(Found::Whole(Body::of(&bytes, false)));
        }
        // It breaks off where the message was settled meanwhile, too.
        let route = Route::new(&["queues", queue, "messages"])
            .with("from", Some(sequence))
            .with("count", Some(1))
            .with("body", Some("none"));
        let page: Messages = match self.api.get(route) {
            Err(Failure::Refused(failed)) if has_left(&failed) => return Ok(Found::Left),
            page => page?,
        };
        match page.messages.first() {
            Some(message) if message.sequence == sequence => Ok(Found::Unreadable),
            _ => Ok(Found::Left),
        }
    }

    fn write(&mut self, queue: &str, message: Message) -> io::Result<()> {
        match self.format {
            Format::Json => serde_json::to_writer(&mut self.out, &Line { queue, message })?,
            Format::Frames => {
                let destination = format!("/queue/{queue}");
                let mut headers = vec![("destination", destination.as_str())];
                let own = message
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()));
                headers.extend(own.filter(|(name, _)| !matches!(*name, "destination" | "content-length")));
                let body = message.body.and_then(Body::into_bytes).unwrap_or_default();
                self.frame.clear();
                encode_frame(&mut self.frame, "SEND", &headers, Some(&body));
                self.out.write_all(&self.frame)?;
            }
        }
        self.out.write_all(b"\n")
    }

    fn end(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)?;
        match self.first_unread {
            None => Ok(()),
            Some((queue, sequence)) => Err(Failure::Unread {
                count: self.unread_count,
                queue,
                sequence,
            }),
        }
    }
}

/// A refusal that says that what was asked for has left its queue meanwhile, or the queue with it.
fn has_left(failed: &Failed) -> bool {
    matches!(failed.code.as_str(), "queue-unknown" | "message-unknown")
}
