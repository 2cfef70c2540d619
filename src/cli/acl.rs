//! `steadfast acl`: what the rules of the configuration say. No broker is asked.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::show::escaped;
use super::{Failure, load, print, print_json};
use crate::base::{
    Action, Decision, Destination, DestinationKind, Principal, REPLY_PREFIX, Rule, Rules, Who, Wildcards,
};
use crate::config::Overrides;

#[derive(Debug, Args)]
pub(super) struct AclArgs {
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, Subcommand)]
enum AclCommand {
    /// Say whether a user may do something, and which rule decides
    Check(CheckArgs),
    /// Show every rule, in the order in which they are asked
    List(ListArgs),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    /// The name of a user, or `anonymous` for those without a name (user:anonymous for one of that name)
    #[arg(value_parser = user)]
    user: Asker,
    /// What is to be done
    #[arg(value_parser = PossibleValuesParser::new(Action::ALL.map(Action::name)).try_map(action))]
    action: Action,
    /// With what: /queue/NAME, /topic/NAME, /temp-queue/NAME, or NAME for a queue; with receive, a pattern of topics too
    destination: String,
    /// A group that the user is in, any number of times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    from: From,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    #[command(flatten)]
    from: From,
    /// One JSON object on each line
    #[arg(long)]
    json: bool,
}

/// Where the rules are.
#[derive(Debug, Args)]
struct From {
    /// Configuration file; `steadfast config default` prints one [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const CHECK_EXAMPLES: &str = "\
Reads the rules ([[rule]]) of the configuration file as the broker would at its next start or SIGHUP. The first rule that is \
about user, action and destination decides. A queue that is not there needs create besides, for whatever makes it.

Examples:
  steadfast acl check alice send /queue/orders --config /etc/steadfast/steadfast.toml
  steadfast acl check alice receive '/topic/prices.>' --group traders --group eu
  steadfast acl check anonymous create /queue/x --json

Exit codes: 0 allowed, 1 denied, 2 wrong usage or configuration.";

const LIST_EXAMPLES: &str = "\
Examples:
  steadfast acl list --config /etc/steadfast/steadfast.toml

Exit codes: 0 well, 2 wrong usage or configuration.";

/// Whom a check is about.
#[derive(Debug, Clone)]
struct Asker(Option<Box<str>>);

fn user(text: &str) -> Result<Asker, &'static str> {
    match Who::parse(text) {
        Some(Who::Anonymous) => Ok(Asker(None)),
        Some(Who::User(name)) => Ok(Asker(Some(name))),
        _ => Err("expected the name of one user; groups are given with --group"),
    }
}

fn action(name: String) -> Result<Action, String> {
    Action::named(&name).ok_or(name)
}

/// A rule as it is shown.
#[derive(Debug, Serialize)]
struct RuleView {
    /// From 1, in the order of the file.
    number: usize,
    line: usize,
    text: String,
}

impl RuleView {
    fn new(no: usize, rule: &Rule) -> Self {
        Self {
            number: no + 1,
            line: rule.line,
            text: rule.to_string(),
        }
    }
}

/// The answer of a check.
#[derive(Debug, Serialize)]
struct Answer {
    allowed: bool,
    /// Of a pattern of topics only some may be received, and only that is delivered.
    in_part: bool,
    /// The rule that decides; without, none is about it.
    rule: Option<RuleView>,
}

pub(super) fn run(args: AclArgs) -> Result<ExitCode, Failure> {
    match args.command {
        AclCommand::Check(args) => check(args),
        AclCommand::List(args) => list(args).map(|()| ExitCode::SUCCESS),
    }
}

fn rules(from: From) -> Result<Rules, Failure> {
    let overrides = Overrides {
        file: from.config,
        ..Overrides::default()
    };
    Ok(load(overrides)?.rules)
}

fn check(args: CheckArgs) -> Result<ExitCode, Failure> {
    let CheckArgs {
        user,
        action,
        destination,
        groups,
        from,
        json,
    } = args;
    let of_another = destination.starts_with(REPLY_PREFIX);
    let Some(Destination { kind, name }) = Destination::parse(&destination).filter(|_| !of_another) else {
        return Err(Failure::Usage(
            "a destination is /queue/NAME, /topic/NAME, /temp-queue/NAME, or NAME for a queue",
        ));
    };
    let rules = rules(from)?;
    let principal = Principal {
        name: user.0,
        groups: groups.into_iter().map(String::into_boxed_str).collect(),
    };
    let mut decision = rules.decide(&principal, action, kind, name);
    let mut in_part = false;
    if (kind, action) == (DestinationKind::Topic, Action::Receive) {
        decision = match Wildcards::of(name) {
            Wildcards::None => decision,
            Wildcards::Valid => {
                let whole = rules.decide_all(&principal, action, kind, name);
                let part = rules.decide_some(&principal, action, kind, name);
                in_part = part.allowed && !whole.allowed;
                if whole.allowed { whole } else { part }
            }
            Wildcards::Misplaced => {
                return Err(Failure::Usage(
                    "of a pattern of topics, >, # and ** are the last level",
                ));
            }
        };
    }
    let Decision { allowed, rule } = decision;
    let rule = rule.and_then(|no| Some(RuleView::new(no, rules.get(no)?)));
    let code = if allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if json {
        print_json(&[Answer {
            allowed,
            in_part,
            rule,
        }])?;
        return Ok(code);
    }
    let verdict = match (allowed, in_part) {
        (true, true) => {
            "allowed in part (only what may be received is delivered; a durable subscription needs all)"
        }
        (true, false) => "allowed",
        (false, _) => "denied",
    };
    print(match rule {
        Some(RuleView { number, line, text }) => {
            format!("{verdict} by rule {number} (line {line}): {}\n", escaped(&text))
        }
        None if allowed => format!("{verdict}: there are no rules\n"),
        None => format!("{verdict}: no rule allows it\n"),
    })?;
    Ok(code)
}

fn list(args: ListArgs) -> Result<(), Failure> {
    let rules = rules(args.from)?;
    let shown: Vec<RuleView> = rules
        .iter()
        .enumerate()
        .map(|(no, rule)| RuleView::new(no, rule))
        .collect();
    if args.json {
        return print_json(&shown);
    }
    if shown.is_empty() {
        return print("no rules: everybody may do everything\n");
    }
    let lines = shown
        .iter()
        .map(|RuleView { number, line, text }| format!("rule {number} (line {line}): {}\n", escaped(text)));
    print(lines.collect::<String>())
}
