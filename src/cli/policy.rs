//! `steadfast policy`: what holds for queues, by pattern of their names.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::api_client::{ApiClient, Route};
use super::show::{counted, escaped};
use super::table::{Look, table};
use super::{Failure, StoreArgs, print, print_json, written};
use crate::api::{self, Acted, Plain, Policies, Policy, StatePolicy};
use crate::base::{self, SettingKey};

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Show every policy in force, the most specific first
    List(ListArgs),
    /// State what holds for the queues of a pattern, from now on and after restarts
    Set(SetArgs),
    /// Take back what was stated for a pattern with `set`
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object on each line, as the API has it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
struct SetArgs {
    /// The name of a queue, or a pattern: levels between dots, * for one, > at the end for all below
    pattern: String,
    /// Each setting that it states; what it stated before is gone
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = setting)]
    settings: Vec<(String, Value)>,
    #[command(flatten)]
    store: StoreArgs,
    /// Only say for how many queues it would change what holds
    #[arg(long)]
    dry_run: bool,
    /// One JSON object, as the API has it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
struct DeleteArgs {
    /// The pattern, as `policy list` shows it
    pattern: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Only say for how many queues it would change what holds
    #[arg(long)]
    dry_run: bool,
    /// One JSON object, as the API has it
    #[arg(long)]
    json: bool,
}

const LIST_EXAMPLES: &str = "\
Those of the configuration are changed there; `steadfast reload` makes the broker read them again. \
`steadfast queue show NAME` shows what holds for one queue.

Examples:
  steadfast policy list
  steadfast policy list --json | jq -r .pattern

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

const SET_EXAMPLES: &str = "\
Of several patterns that match a name, each setting is taken from the most specific that states it. One that is stated here \
counts instead of the same pattern in the configuration. `steadfast config default` explains every setting.

Examples:
  steadfast policy set orders deliveries_failed_max=3 redelivery_delay_ms=1000
  steadfast policy set 'jobs.>' message_count_max=100000 overflow=drop-head
  steadfast policy set '>' message_ttl_ms=86400000 expiry_queue='EXPIRED.*'

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

const DELETE_EXAMPLES: &str = "\
Examples:
  steadfast policy delete 'jobs.>'

Exit codes: 0 well, 1 no broker runs there or a fault, 2 wrong usage or configuration.";

/// Reads NAME=VALUE.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let key = SettingKey::named(name)
        .ok_or_else(|| format!("there is no setting {name:?}; `steadfast config default` lists them"))?;
    match key.parse(value) {
        Some(value) => Ok((name.to_owned(), api::setting_json(&value))),
        None => Err(format!("{name} takes {}", key.allowed())),
    }
}

pub(super) fn run(args: PolicyArgs) -> Result<(), Failure> {
    match args.command {
        PolicyCommand::List(args) => list(args),
        PolicyCommand::Set(args) => {
            let settings: BTreeMap<String, Value> = args.settings.into_iter().collect();
            let body = StatePolicy {
                settings,
                dry_run: args.dry_run,
            };
            let acted =
                ApiClient::new(args.store)?.post(Route::new(&["policies", &args.pattern, "set"]), &body)?;
            tell(&acted, args.json)
        }
        PolicyCommand::Delete(args) => {
            let body = Plain {
                dry_run: args.dry_run,
            };
            let acted = ApiClient::new(args.store)?
                .post(Route::new(&["policies", &args.pattern, "delete"]), &body)?;
            tell(&acted, args.json)
        }
    }
}

fn tell(acted: &Acted, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&[acted]);
    }
    let queues = counted(acted.count, "queue");
    print(match acted.dry_run {
        true => format!("would change what holds for {queues} there are now\n"),
        false => format!("changed what holds for {queues} there are now, and for those to come\n"),
    })
}

fn list(args: ListArgs) -> Result<(), Failure> {
    let policies: Policies = ApiClient::new(args.store)?.get(Route::new(&["policies"]))?;
    if args.json {
        return print_json(&policies.policies);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = if policies.policies.is_empty() {
        writeln!(out, "no policies: the defaults hold for every queue")
    } else {
        let look = Look::of_stdout();
        table(&mut out, look, &rows(&policies.policies))
    };
    written(shown.and_then(|()| out.flush()))
}

fn rows(policies: &[Policy]) -> Vec<[String; 3]> {
    let mut rows = vec![["PATTERN", "FROM", "SETTINGS"].map(str::to_owned)];
    rows.extend(policies.iter().map(|policy| {
        let from = if policy.stored { "operator" } else { "config" };
        [escaped(&policy.pattern), from.to_owned(), named(&policy.settings)]
    }));
    rows
}

/// NAME=VALUE of each that is not the default.
pub(super) fn named_changed(settings: &BTreeMap<String, Value>) -> String {
    let default = base::Policy::default();
    let mut changed = settings.clone();
    changed.retain(|name, value| {
        let default = SettingKey::named(name).map(|key| api::setting_json(&key.of(&default)));
        default.as_ref() != Some(value)
    });
    named(&changed)
}

/// NAME=VALUE of each.
pub(super) fn named(settings: &BTreeMap<String, Value>) -> String {
    let shown = settings.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={}", escaped(text)),
        value => format!("{name}={value}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The same of what a configuration states.
pub(super) fn named_settings(settings: &base::Settings) -> String {
    let all = settings.iter();
    named(
        &all.map(|(key, value)| (key.name.to_owned(), api::setting_json(value)))
            .collect(),
    )
}
