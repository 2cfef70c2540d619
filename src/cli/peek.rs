//! `steadfast peek`: looks at messages of a queue without taking them.

use std::io::{self, BufWriter, Write};

use clap::Args;

use super::api_client::{ApiClient, Route};
use super::show::{counted, escaped, utc};
use super::table::Look;
use super::{Failure, StoreArgs, queue_name, write_json, written};
use crate::api::{BodyEncoding, Message, Messages, PAGE_COUNT_MAX};
use crate::port::PRIORITY_DEFAULT;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PeekArgs {
    /// The queue: NAME or /queue/NAME
    name: String,
    #[command(flatten)]
    store: StoreArgs,
    /// At most this many messages
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// From this queue sequence on
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// Only messages with this header: NAME:VALUE, or NAME for any value; all of several
    #[arg(long = "header", value_name = "NAME[:VALUE]")]
    headers: Vec<String>,
    /// Show whole bodies (up to 4 MiB each) instead of their first 256 bytes
    #[arg(long)]
    body: bool,
    /// One JSON object on each line, as the API has it
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Nothing is delivered, counted or changed. A body that is not text is shown in base64. Times are UTC.

Examples:
  steadfast peek orders
  steadfast peek DLQ.orders --count 1 --body
  steadfast peek orders --header kind:shoes --json | jq .message_id

Exit codes: 0 well, 1 no broker runs there, no such queue or a fault, 2 wrong usage or configuration.";

pub(super) fn run(args: PeekArgs) -> Result<(), Failure> {
    let queue = queue_name(&args.name)?;
    let api = ApiClient::new(args.store)?;
    let look = Look::of_stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut left = args.count;
    let mut from = Some(args.from);
    // A page may end early: bodies are large, or a filter looked at many.
    while let Some(first) = from.filter(|_| left > 0) {
        let mut route = Route::new(&["queues", queue, "messages"])
            .with("from", Some(first))
            .with("count", Some(left.min(PAGE_COUNT_MAX)))
            .with("body", Some(if args.body { "whole" } else { "preview" }));
        for header in &args.headers {
            route = route.with("header", Some(header));
        }
        let page: Messages = api.get(route)?;
        left = left.saturating_sub(page.messages.len() as u64);
        from = page.next;
        let shown = page.messages.iter().try_for_each(|message| match args.json {
            true => write_json(&mut out, message),
            false => show(&mut out, look, message),
        });
        if let Err(error) = shown {
            return written(Err(error));
        }
    }
    let rest = match from {
        _ if args.json => Ok(()),
        Some(next) => writeln!(out, "more: --from {next}"),
        None if left == args.count => writeln!(out, "queue {} has no such message", escaped(queue)),
        None => Ok(()),
    };
    written(rest.and_then(|()| out.flush()))
}

fn show(out: &mut dyn Write, look: Look, message: &Message) -> io::Result<()> {
    let mut line = format!(
        "{} message-id:{} {} accepted {}, {} bytes (body {}), deliveries {}, failures {}",
        message.sequence,
        escaped(&message.message_id),
        escaped(&message.state),
        utc(message.accepted_at_ms),
        message.bytes,
        message.body_bytes,
        message.deliveries,
        message.failures
    );
    if message.transient {
        line.push_str(", transient");
    }
    if let Some(origin) = &message.origin {
        line.push_str(&format!(", from {}", escaped(origin)));
    }
    if let Some(due_at_ms) = message.due_at_ms {
        line.push_str(&format!(", rests until {}", utc(due_at_ms)));
    }
    if message.priority != PRIORITY_DEFAULT {
        line.push_str(&format!(", priority {}", message.priority));
    }
    if let Some(group) = &message.group {
        line.push_str(&format!(", group {}", escaped(group)));
    }
    if let Some(schedule) = &message.schedule {
        match (&schedule.cron, schedule.period_ms) {
            (Some(cron), _) => line.push_str(&format!(", comes again at `{}`", escaped(cron))),
            (None, period_ms) => {
                line.push_str(&format!(
                    ", comes again every {} ms",
                    period_ms.unwrap_or_default()
                ));
            }
        }
        if let Some(last_due_at_ms) = schedule.last_due_at_ms {
            line.push_str(&format!(" until {}", utc(last_due_at_ms)));
        }
    }
    writeln!(out, "{}", look.bold(&line))?;
    for death in &message.history {
        let text = death.text.as_deref().map(|text| format!(": {}", escaped(text)));
        writeln!(
            out,
            "    {} {} in {} after {} of {} deliveries{}",
            utc(death.at_ms),
            escaped(&death.reason),
            escaped(&death.queue),
            counted(u64::from(death.failures), "failure"),
            death.deliveries,
            text.unwrap_or_default()
        )?;
    }
    if let Some(fault) = &message.fault {
        writeln!(out, "    {}", look.warning(&format!("fault: {}", escaped(fault))))?;
    }
    for (name, value) in &message.headers {
        writeln!(out, "    {}:{}", escaped(name), escaped(value))?;
    }
    let Some(body) = &message.body else {
        return Ok(());
    };
    match body.encoding {
        BodyEncoding::Base64 => writeln!(out, "    base64 {}", escaped(&body.data))?,
        BodyEncoding::Text => {
            for row in body.data.lines() {
                writeln!(out, "    | {}", escaped(row))?;
            }
        }
    }
    if body.truncated {
        writeln!(out, "    ...")?;
    }
    Ok(())
}
