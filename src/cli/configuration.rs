//! `steadfast config`: the configuration file, before and without a broker.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::policy::named_settings;
use super::serve::Plan;
use super::show::counted;
use super::{Failure, print, print_json};
use crate::config::{self, ConfigError, Loaded, Origin, Overrides, keys};
use crate::listener::Gate;

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every key with its default and what it means
    Default,
    /// Tell every mistake in the configuration, each with its place and what is allowed
    Check(CheckArgs),
    /// Print the value of every key, and where it comes from
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    /// Configuration file [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object for each mistake
    #[arg(long)]
    json: bool,
}

const CHECK_EXAMPLES: &str = "\
Reads what `steadfast serve` would read: the file, and STEADFAST_* variables. Certificates and keys of listeners are read, too. \
Nothing is started, and no data folder is touched.

Examples:
  steadfast config check --config /etc/steadfast/steadfast.toml
  steadfast config check --config steadfast.toml --json | jq -r .message

Exit codes: 0 no mistakes, 2 mistakes, each a line.";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    /// Configuration file [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only what is not the default
    #[arg(long)]
    changed: bool,
    /// One JSON object for each key
    #[arg(long)]
    json: bool,
}

const SHOW_EXAMPLES: &str = "\
A file again, with where each value comes from behind it. Listeners and policies are told in short.

Examples:
  steadfast config show --config /etc/steadfast/steadfast.toml --changed
  STEADFAST_LIMITS_BODY_BYTES_MAX=1000 steadfast config show | grep body_bytes_max

Exit codes: 0 well, 2 the configuration has mistakes, each a line.";

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    match args.command {
        ConfigCommand::Default => print(config::SAMPLE),
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => show(&args),
    }
}

/// Where something was written, for machines.
#[derive(Debug, Default, Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
}

impl Place {
    fn of(origin: Option<&Origin>) -> Self {
        match origin {
            Some(Origin::File { path, line }) => Self {
                file: Some(path.display().to_string()),
                line: Some(*line),
                variable: None,
            },
            Some(Origin::Variable { name }) => Self {
                variable: Some(name.clone()),
                ..Self::default()
            },
            Some(Origin::Flag { .. } | Origin::Default) | None => Self::default(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Mistake {
    #[serde(flatten)]
    place: Place,
    /// With the place, and what is allowed.
    message: String,
}

impl Mistake {
    fn of(error: &ConfigError) -> Self {
        Self {
            place: Place::of(error.place()),
            message: error.line(),
        }
    }
}

fn read(file: Option<PathBuf>) -> Plan {
    Plan::read(Overrides {
        file,
        ..Overrides::default()
    })
}

fn check(args: CheckArgs) -> Result<(), Failure> {
    let Plan {
        loaded,
        mut mistakes,
        authority,
    } = read(args.config);
    for (listener, origin) in loaded.config.listeners.iter().zip(&loaded.origins.listeners) {
        if let Err(error) = Gate::build(listener, loaded.config.limits.login_bytes_max) {
            mistakes.add(ConfigError::Certificates {
                at: origin.clone(),
                message: super::failure::chain(&error),
            });
        }
    }
    if args.json {
        let mut all: Vec<_> = mistakes.iter().map(Mistake::of).collect();
        all.extend(authority.err().map(|failure| Mistake {
            place: Place::default(),
            message: failure.to_string(),
        }));
        print_json(&all)?;
        return match all.len() {
            0 => Ok(()),
            count => Err(Failure::ConfigTold(count)),
        };
    }
    mistakes.none()?;
    authority?;
    let listeners = counted(loaded.config.every_listener().count() as u64, "listener");
    let policies = match loaded.config.policies.len() {
        1 => "1 policy".to_owned(),
        count => format!("{count} policies"),
    };
    let rules = counted(loaded.config.rules.len() as u64, "rule");
    print(format!("no mistakes: {listeners}, {policies}, {rules}\n"))
}

#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    value: serde_json::Value,
    /// default, file or environment.
    from: &'static str,
    #[serde(flatten)]
    place: Place,
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let Plan { loaded, mistakes, .. } = read(args.config.clone());
    mistakes.none()?;
    let Loaded { config, origins } = loaded;
    let shown = keys().filter(|key| !args.changed || *origins.of(key) != Origin::Default);
    if args.json {
        let all: Vec<_> = shown
            .map(|key| Shown {
                key: key.path(),
                value: json(key.get(&config)),
                from: from(origins.of(key)),
                place: Place::of(Some(origins.of(key))),
            })
            .collect();
        return print_json(&all);
    }
    let mut text = String::new();
    let mut section = "";
    // Writing to a String cannot fail.
    for key in shown {
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{}]", key.section);
            section = key.section;
        }
        let value = key.get(&config);
        // No file may say that it listens nowhere; a broker with other listeners does.
        let mark = match value == config::Value::List(Vec::new()) {
            true => "#",
            false => "",
        };
        let _ = writeln!(text, "{mark}{} = {value}  # {}", key.name, origins.of(key));
    }
    for (listener, origin) in config.listeners.iter().zip(&origins.listeners) {
        let _ = writeln!(text, "# [[listener]] {listener}: {origin}");
    }
    for rule in config.rules.iter() {
        let _ = writeln!(text, "# [[rule]] {rule}: line {}", rule.line);
    }
    for ((pattern, settings), origin) in config.policies.iter().zip(&origins.policies) {
        let settings = named_settings(settings);
        let _ = writeln!(
            text,
            "# [[policy]] {} {settings}: {origin}",
            super::show::escaped(pattern)
        );
    }
    print(text)
}

fn from(origin: &Origin) -> &'static str {
    match origin {
        Origin::File { .. } => "file",
        Origin::Variable { .. } => "environment",
        Origin::Flag { .. } => "flag",
        Origin::Default => "default",
    }
}

fn json(value: config::Value) -> serde_json::Value {
    match value {
        config::Value::Number(number) => number.into(),
        config::Value::Flag(flag) => flag.into(),
        config::Value::Text(text) => text.into(),
        config::Value::List(list) => list.into(),
    }
}
