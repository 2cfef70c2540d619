//! `steadfast queue`: one queue in detail, and what an operator does to it.
//!
//! # Invariants
//! - What loses messages is asked for twice: on a terminal, or by `--yes`.

use std::io::{self, BufRead, BufWriter, IsTerminal, Write};

use clap::{Args, Subcommand};

use super::api_client::{ApiClient, Route};
use super::policy::{named, named_changed};
use super::queues::flags;
use super::show::{counted, duration, escaped};
use super::table::{FLAGS, Look, table};
use super::{Failure, StoreArgs, print, print_json, queue_name, written};
use crate::api::{Acted, Delete, Next, Plain, QueueDetail, Selection, Subscription, Transfer};

#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Show it with its subscriptions and what each holds
    Show(ShowArgs),
    /// Drop its messages
    Purge(PurgeArgs),
    /// Drop it with all its messages
    Delete(DeleteArgs),
    /// Stop deliveries; messages are still accepted
    Pause(PlainArgs),
    /// Let deliveries go on
    Resume(PlainArgs),
    /// Move messages to another queue
    Move(TransferArgs),
    /// Copy messages to another queue
    Copy(TransferArgs),
    /// Move dead letters back to the queues they came from
    Requeue(RequeueArgs),
}

/// Which queue, of which broker.
#[derive(Debug, Args)]
struct NameArgs {
    /// The queue: NAME or /queue/NAME
    name: String,
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object, as the API has it
    #[arg(long)]
    json: bool,
}

/// Which of its messages.
#[derive(Debug, Args)]
struct SelectionArgs {
    /// Only messages with this header: NAME:VALUE, or NAME for any value; all of several
    #[arg(long = "header", value_name = "NAME[:VALUE]")]
    headers: Vec<String>,
    /// Only messages that are set aside, because they could not be read
    #[arg(long)]
    set_aside: bool,
    /// At most this many messages, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    #[command(flatten)]
    queue: NameArgs,
}

#[derive(Debug, Args)]
#[command(after_help = PURGE_EXAMPLES)]
struct PurgeArgs {
    #[command(flatten)]
    queue: NameArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
struct DeleteArgs {
    #[command(flatten)]
    queue: NameArgs,
    /// End the sessions that subscribe to it
    #[arg(long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PLAIN_EXAMPLES)]
struct PlainArgs {
    #[command(flatten)]
    queue: NameArgs,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = TRANSFER_EXAMPLES)]
struct TransferArgs {
    #[command(flatten)]
    queue: NameArgs,
    /// The queue that gets them; made if there is none
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    to: String,
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = REQUEUE_EXAMPLES)]
struct RequeueArgs {
    #[command(flatten)]
    queue: NameArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

const SHOW_EXAMPLES: &str = "\
HELD messages are delivered and not settled, LIMIT is how many may be (and their bytes; of a pull subscription what it asked \
for and was not given yet); SINCE is how long the oldest of them has been \
held. Rates are measured over half a second. FLAGS has \
priority:N where it is not 0, groups:N for the message groups that are the subscription's own, and browser for one that only looks.

Examples:
  steadfast queue show orders
  steadfast queue show /queue/orders --json | jq '.subscriptions[] | select(.stuck)'

Exit codes: 0 well, 1 no broker runs there, no such queue or a fault, 2 wrong usage or configuration.";

const PURGE_EXAMPLES: &str = "\
Messages that clients hold are dropped, too; their ACK has no effect then. What came after the purge began stays. It \
asks before it drops anything; where there is no terminal, --yes is needed.

Examples:
  steadfast queue purge orders --dry-run
  steadfast queue purge orders --header kind:test --yes
  steadfast queue purge orders --set-aside

Exit codes: 0 well, 1 no broker runs there, no such queue, not confirmed or a fault, 2 wrong usage or configuration.";

const DELETE_EXAMPLES: &str = "\
A queue with subscriptions is refused without --force. It asks before it drops anything; where there is no terminal, \
--yes is needed.

Examples:
  steadfast queue delete orders-old
  steadfast queue delete orders-old --force --yes

Exit codes: 0 well, 1 no broker runs there, no such queue, not confirmed or a fault, 2 wrong usage or configuration.";

const PLAIN_EXAMPLES: &str = "\
A queue stays paused over restarts. What clients hold may still be settled.

Examples:
  steadfast queue pause orders
  steadfast queue resume orders

Exit codes: 0 well, 1 no broker runs there, no such queue or a fault, 2 wrong usage or configuration.";

const TRANSFER_EXAMPLES: &str = "\
They go to the end, in their order. Messages that clients hold stay as they are, and are counted.

Examples:
  steadfast queue move orders --to orders-kept
  steadfast queue copy orders --to orders-test --limit 100
  steadfast queue move orders --to shoes --header kind:shoes --dry-run

Exit codes: 0 well, 1 no broker runs there, no such queue or a fault, 2 wrong usage or configuration.";

const REQUEUE_EXAMPLES: &str = "\
Each goes to the end of the queue that it came from. Messages that clients hold, and those that do not say where they \
came from, stay, and are counted.

Examples:
  steadfast queue requeue DLQ.orders
  steadfast queue requeue DLQ.orders --limit 1

Exit codes: 0 well, 1 no broker runs there, no such queue or a fault, 2 wrong usage or configuration.";

/// Over how long `show` measures rates.
const RATE_MS: u64 = 500;

pub(super) fn run(args: QueueArgs) -> Result<(), Failure> {
    match args.command {
        QueueCommand::Show(args) => show(args.queue),
        QueueCommand::Purge(args) => purge(args),
        QueueCommand::Delete(args) => delete(args),
        QueueCommand::Pause(args) => plain(args, "pause"),
        QueueCommand::Resume(args) => plain(args, "resume"),
        QueueCommand::Move(args) => transfer(args, "move", "moved"),
        QueueCommand::Copy(args) => transfer(args, "copy", "copied"),
        QueueCommand::Requeue(args) => requeue(args),
    }
}

/// A queue of a running broker.
struct Queue {
    api: ApiClient,
    name: String,
    json: bool,
}

impl Queue {
    fn new(args: NameArgs) -> Result<Self, Failure> {
        Ok(Self {
            name: queue_name(&args.name)?.to_owned(),
            api: ApiClient::new(args.store)?,
            json: args.json,
        })
    }

    fn shown(&self) -> String {
        escaped(&self.name)
    }

    fn act(&self, act: &str, body: &impl serde::Serialize) -> Result<Acted, Failure> {
        self.api.post(Route::new(&["queues", &self.name, act]), body)
    }

    /// Repeats a request until all is done, and adds up.
    fn act_on<T: serde::Serialize>(
        &self,
        act: &str,
        limit: Option<u64>,
        body: impl Fn(Option<u64>, Option<Next>) -> T,
    ) -> Result<Acted, Failure> {
        let mut all = Acted::default();
        let mut next = None;
        loop {
            let left = limit.map(|limit| limit.saturating_sub(all.count));
            let acted = self.act(act, &body(left, next))?;
            all.count += acted.count;
            all.bytes += acted.bytes;
            all.held_count += acted.held_count;
            all.skipped_count += acted.skipped_count;
            all.dry_run = acted.dry_run;
            next = acted.next;
            if next.is_none() || limit == Some(all.count) {
                return Ok(all);
            }
        }
    }

    fn purge(&self, args: &SelectionArgs, dry_run: bool) -> Result<Acted, Failure> {
        self.act_on("purge", args.limit, |limit, next| {
            args.selection(limit, next, dry_run)
        })
    }

    /// Asks whether messages may be lost.
    fn confirm(&self, act: &str, doomed: &Acted) -> Result<(), Failure> {
        let look = Look::of_stdout();
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::Usage(
                "this drops messages for good: confirm it with --yes (--dry-run says what would be dropped)",
            ));
        }
        let mut err = io::stderr().lock();
        let asked = write!(
            err,
            "{act} queue {}: {} ({}){} will be dropped for good. Go on? [y/N] ",
            self.shown(),
            counted(doomed.count, "message"),
            look.bytes(doomed.bytes),
            held(doomed, "of them held by clients")
        )
        .and_then(|()| err.flush());
        let mut answer = String::new();
        asked
            .and_then(|()| io::stdin().lock().read_line(&mut answer))
            .map_err(Failure::Input)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::NotConfirmed),
        }
    }

    /// Tells what was done, or would be.
    fn tell(&self, acted: &Acted, text: &str, rest: &str) -> Result<(), Failure> {
        if self.json {
            return print_json(&[acted]);
        }
        let would = if acted.dry_run { "would have " } else { "" };
        print(format!("{would}{text}{rest}\n"))
    }
}

impl SelectionArgs {
    fn selection(&self, limit: Option<u64>, next: Option<Next>, dry_run: bool) -> Selection {
        Selection {
            header: self.headers.clone(),
            set_aside: self.set_aside,
            limit,
            from: next.map(|next| next.from),
            until: next.map(|next| next.until),
            dry_run,
        }
    }
}

/// ", 3 SAID", or nothing.
fn held(acted: &Acted, said: &str) -> String {
    match acted.held_count {
        0 => String::new(),
        count => format!(", {count} {said}"),
    }
}

fn sized(acted: &Acted) -> String {
    format!(
        "{} ({})",
        counted(acted.count, "message"),
        Look::of_stdout().bytes(acted.bytes)
    )
}

fn purge(args: PurgeArgs) -> Result<(), Failure> {
    let queue = Queue::new(args.queue)?;
    let selection = &args.selection;
    if !args.yes && !selection.dry_run {
        let doomed = queue.purge(selection, true)?;
        queue.confirm("purge", &doomed)?;
    }
    let acted = queue.purge(selection, selection.dry_run)?;
    let text = format!("purged {} of queue {}", sized(&acted), queue.shown());
    queue.tell(&acted, &text, &held(&acted, "of them held by clients"))
}

fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let queue = Queue::new(args.queue)?;
    let body = |dry_run| Delete {
        force: args.force,
        dry_run,
    };
    if !args.yes && !args.dry_run {
        let doomed = queue.act("delete", &body(true))?;
        queue.confirm("delete", &doomed)?;
    }
    let acted = queue.act("delete", &body(args.dry_run))?;
    let text = format!("deleted queue {} with {}", queue.shown(), sized(&acted));
    queue.tell(&acted, &text, &held(&acted, "of them held by clients"))
}

fn plain(args: PlainArgs, act: &str) -> Result<(), Failure> {
    let queue = Queue::new(args.queue)?;
    let acted = queue.act(
        act,
        &Plain {
            dry_run: args.dry_run,
        },
    )?;
    if acted.count == 0 && !queue.json {
        let state = if act == "pause" {
            "paused already"
        } else {
            "not paused"
        };
        return print(format!("queue {} is {state}\n", queue.shown()));
    }
    queue.tell(&acted, &format!("{act}d queue {}", queue.shown()), "")
}

fn transfer(args: TransferArgs, act: &str, done: &str) -> Result<(), Failure> {
    let queue = Queue::new(args.queue)?;
    let to = queue_name(&args.to)?;
    let selection = &args.selection;
    let acted = queue.act_on(act, selection.limit, |limit, next| {
        let selection = selection.selection(limit, next, selection.dry_run);
        Transfer {
            to: to.to_owned(),
            header: selection.header,
            set_aside: selection.set_aside,
            limit: selection.limit,
            from: selection.from,
            until: selection.until,
            dry_run: selection.dry_run,
        }
    })?;
    let text = format!(
        "{done} {} from queue {} to queue {}",
        sized(&acted),
        queue.shown(),
        escaped(to)
    );
    queue.tell(&acted, &text, &held(&acted, "held by clients stayed"))
}

fn requeue(args: RequeueArgs) -> Result<(), Failure> {
    let queue = Queue::new(args.queue)?;
    let selection = &args.selection;
    let acted = queue.act_on("requeue", selection.limit, |limit, next| {
        selection.selection(limit, next, selection.dry_run)
    })?;
    let text = format!("requeued {} from queue {}", sized(&acted), queue.shown());
    let skipped = match acted.skipped_count {
        0 => String::new(),
        count => format!(", {count} without origin stayed"),
    };
    queue.tell(
        &acted,
        &text,
        &(held(&acted, "held by clients stayed") + &skipped),
    )
}

fn show(args: NameArgs) -> Result<(), Failure> {
    let queue = Queue::new(args)?;
    let route = Route::new(&["queues", &queue.name]).with("rate_ms", Some(RATE_MS));
    let detail: QueueDetail = queue.api.get(route)?;
    if queue.json {
        return print_json(&[detail]);
    }
    let look = Look::of_stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    written(show_detail(&mut out, look, &detail).and_then(|()| out.flush()))
}

fn show_detail(out: &mut dyn Write, look: Look, detail: &QueueDetail) -> io::Result<()> {
    let queue = &detail.queue;
    let mut line = |name: &str, text: String| writeln!(out, "{} {text}", look.bold(&format!("{name:<13}")));
    line("queue", escaped(&queue.name))?;
    let flags = flags(queue);
    if !flags.is_empty() {
        line("flags", look.warning(&flags))?;
    }
    let oldest = queue
        .oldest_ms
        .map(|ms| format!(", the oldest waits {}", duration(ms)));
    line(
        "messages",
        format!(
            "{} ({}){}",
            queue.depth,
            look.bytes(queue.bytes),
            oldest.unwrap_or_default()
        ),
    )?;
    let some = |count: u64, what: &str| (count > 0).then(|| format!(", {count} {what}"));
    let delayed = some(queue.delayed_count, "delayed");
    let set_aside = some(queue.set_aside_count, "set aside");
    line(
        "of these",
        format!(
            "{} ready, {} held by clients{}{}",
            queue.ready_count,
            queue.leased_count,
            delayed.unwrap_or_default(),
            set_aside.unwrap_or_default()
        ),
    )?;
    line(
        "in this run",
        format!(
            "{} in, {} out, {} settled, {} failed, {} dead letters, {} expired{}",
            queue.in_count,
            queue.out_count,
            queue.accepted_count,
            queue.failed_count,
            queue.dead_lettered_count,
            queue.expired_count,
            some(queue.dropped_count, "dropped").unwrap_or_default()
        ),
    )?;
    if queue.dedup_id_count + queue.duplicate_count > 0 {
        line(
            "deduplication",
            format!(
                "{} remembered, {} not stored in this run",
                counted(queue.dedup_id_count, "id"),
                counted(queue.duplicate_count, "duplicate")
            ),
        )?;
    }
    if let Some(rates) = queue.rates {
        line(
            "per second",
            format!(
                "{:.0} in, {:.0} out, {:.0} settled",
                rates.in_per_second, rates.out_per_second, rates.accepted_per_second
            ),
        )?;
    }
    let policy = named_changed(&detail.policy);
    if !policy.is_empty() {
        line("policy", policy)?;
    }
    if !detail.declared.is_empty() {
        line("declared", named(&detail.declared))?;
    }
    line("subscriptions", queue.subscription_count.to_string())?;
    if detail.subscriptions.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table(out, look, &subscription_rows(look, &detail.subscriptions))
}

/// How much a subscription may hold, or what it asked for.
fn limit(subscription: &Subscription) -> String {
    match (subscription.credit, subscription.prefetch_bytes) {
        (Some(asked), _) => format!("pull:{asked}"),
        (None, Some(bytes)) => format!("{},{bytes}", subscription.prefetch_count),
        (None, None) => subscription.prefetch_count.to_string(),
    }
}

/// What sets a subscription apart from others.
fn standing(subscription: &Subscription) -> String {
    let flag = |is: bool, name: &str| is.then(|| name.to_owned());
    let number = |number: i64, name: &str| (number != 0).then(|| format!("{name}:{number}"));
    let flags = [
        flag(subscription.stuck, "stuck"),
        flag(subscription.browser, "browser"),
        flag(subscription.exclusive, "exclusive"),
        flag(subscription.no_local, "no-local"),
        number(i64::from(subscription.priority), "priority"),
        number(
            i64::try_from(subscription.group_count).unwrap_or(i64::MAX),
            "groups",
        ),
    ];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    flags.join(" ")
}

/// Subscriptions of a queue or a connection.
pub(super) fn subscription_rows(look: Look, subscriptions: &[Subscription]) -> Vec<[String; 10]> {
    let head = [
        "DESTINATION",
        FLAGS,
        "SESSION",
        "PEER",
        "ACK",
        "HELD",
        "LIMIT",
        "SINCE",
        "UNSENT",
        "BACKLOG",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(subscriptions.iter().map(|subscription| {
        [
            escaped(&subscription.destination),
            standing(subscription),
            subscription.session.to_string(),
            subscription.peer.as_deref().map(escaped).unwrap_or_default(),
            escaped(&subscription.ack),
            subscription.held_count.to_string(),
            limit(subscription),
            subscription.oldest_held_ms.map(duration).unwrap_or_default(),
            look.bytes(subscription.unsent_bytes),
            Some(subscription.backlog_count)
                .filter(|count| *count > 0)
                .map(|count| count.to_string())
                .unwrap_or_default(),
        ]
    }));
    rows
}
