//! `steadfast connections`: who is connected, and what they hold.

use std::io::{self, BufWriter, Write};

use clap::Args;

use super::api_client::{ApiClient, Route};
use super::queue::subscription_rows;
use super::show::{counted, duration, escaped, utc};
use super::table::{Look, table};
use super::{Failure, StoreArgs, print, print_json, written};
use crate::api::{Acted, Connection, ConnectionDetail, Connections, PAGE_COUNT_MAX, Plain};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Show this session with its subscriptions and transactions
    #[arg(long, value_name = "SESSION", conflicts_with = "disconnect")]
    show: Option<u64>,
    /// End this session; what it holds goes back to its queues
    #[arg(long, value_name = "SESSION")]
    disconnect: Option<u64>,
    /// Only say what would be done
    #[arg(long, requires = "disconnect")]
    dry_run: bool,
    /// One JSON object on each line, as the API has it
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
SESSION is the number that the log calls session, and the last part of the session header of CONNECTED. HELD messages \
are delivered and not settled; STAGED frames are in open transactions.

Examples:
  steadfast connections
  steadfast connections --show 12
  steadfast connections --disconnect 12

Exit codes: 0 well, 1 no broker runs there, no such session or a fault, 2 wrong usage or configuration.";

pub(super) fn run(args: ConnectionsArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.store)?;
    if let Some(session) = args.disconnect {
        let route = Route::new(&["connections", &session.to_string(), "disconnect"]);
        let plain = Plain {
            dry_run: args.dry_run,
        };
        let acted: Acted = api.post(route, &plain)?;
        if args.json {
            return print_json(&[acted]);
        }
        let would = if args.dry_run { "would have " } else { "" };
        let back = match acted.held_count {
            0 => String::new(),
            count => format!(", which held {}", counted(count, "message")),
        };
        return print(format!("{would}ended session {session}{back}\n"));
    }
    if let Some(session) = args.show {
        let detail: ConnectionDetail = api.get(Route::new(&["connections", &session.to_string()]))?;
        return match args.json {
            true => print_json(&[detail]),
            false => show_one(&detail),
        };
    }
    let connections = fetch(&api)?;
    if args.json {
        return print_json(&connections);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let look = Look::of_stdout();
    let shown = match connections.is_empty() {
        true => writeln!(out, "nobody is connected"),
        false => table(&mut out, look, &rows(look, &connections)),
    };
    written(shown.and_then(|()| out.flush()))
}

fn fetch(api: &ApiClient) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    let mut from = None::<u64>;
    loop {
        let route = Route::new(&["connections"])
            .with("from", from)
            .with("count", Some(PAGE_COUNT_MAX));
        let page: Connections = api.get(route)?;
        connections.extend(page.connections);
        match page.next {
            None => return Ok(connections),
            next => from = next,
        }
    }
}

fn rows(look: Look, connections: &[Connection]) -> Vec<[String; 11]> {
    let head = [
        "SESSION", "PEER", "USER", "STOMP", "SUBS", "HELD", "TX", "STAGED", "SINCE", "IN", "OUT",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(connections.iter().map(|connection| {
        [
            connection.session.to_string(),
            connection.peer.as_deref().map(escaped).unwrap_or_default(),
            connection.user.as_deref().map(escaped).unwrap_or_default(),
            connection.version.as_deref().map(escaped).unwrap_or_default(),
            connection.subscription_count.to_string(),
            connection.held_count.to_string(),
            connection.transaction_count.to_string(),
            connection.staged_frame_count.to_string(),
            connection.connected_at_ms.map(utc).unwrap_or_default(),
            look.bytes(connection.in_bytes),
            look.bytes(connection.out_bytes),
        ]
    }));
    rows
}

fn show_one(detail: &ConnectionDetail) -> Result<(), Failure> {
    let look = Look::of_stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut show = || {
        table(
            &mut out,
            look,
            &rows(look, std::slice::from_ref(&detail.connection)),
        )?;
        if !detail.subscriptions.is_empty() {
            writeln!(out)?;
            table(&mut out, look, &subscription_rows(look, &detail.subscriptions))?;
        }
        if !detail.transactions.is_empty() {
            writeln!(out)?;
            let mut rows = vec![["TRANSACTION", "FRAMES", "BYTES", "OPEN"].map(str::to_owned)];
            rows.extend(detail.transactions.iter().map(|transaction| {
                [
                    transaction.tx.to_string(),
                    transaction.staged_frame_count.to_string(),
                    look.bytes(transaction.staged_bytes),
                    duration(transaction.open_ms),
                ]
            }));
            table(&mut out, look, &rows)?;
        }
        out.flush()
    };
    written(show())
}
