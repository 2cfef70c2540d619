//! The command line: what it takes, and the exit code it ends with.
//!
//! Exit codes: 0 well; 1 a fault while running; 2 wrong usage or configuration; 3 a flush of the store failed; 4 the
//! store is damaged or cannot be opened; 5 another broker is using the folder.
//!
//! # Invariants
//! - A failure is one line on standard error that says what to do, unless `clap` shows the usage; each mistake of a
//!   configuration is one.

mod acl;
mod api_client;
mod backup;
pub mod bench;
mod clock;
mod configuration;
mod connections;
mod export;
mod failure;
mod import;
mod inspect;
mod peek;
pub mod plot;
mod policy;
mod progress;
mod queue;
mod queues;
mod receive;
mod reference;
mod reload;
mod repair;
mod restore;
mod send;
mod serve;
mod show;
mod status;
mod stop;
mod stored;
mod table;
mod target;
mod top;
mod user;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::base::{Destination, DestinationKind};
use crate::config::{self, Config, LogFormat, LogLevel, Overrides};
use failure::Failure;
pub use reference::reference;

/// A durable message-queue broker that speaks STOMP 1.0, 1.1 and 1.2.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  steadfast serve                                STOMP on 127.0.0.1:61613, data in ./data
  steadfast serve --data-dir /var/lib/steadfast --listen 127.0.0.1:61613 --listen [::1]:61613
  steadfast send /queue/orders 'one pair of shoes'
  steadfast receive /queue/orders
  steadfast queues --sort depth
  steadfast inspect --data-dir /var/lib/steadfast
  steadfast config default > steadfast.toml
  steadfast config check --config steadfast.toml

Every key of the configuration file is also an environment variable, such as \
STEADFAST_LIMITS_BODY_BYTES_MAX=1048576. Flags beat the environment, which beats the file, which beats the defaults.

Exit codes: 0 well, 1 fault, 2 wrong usage or configuration, 3 a flush of the store failed, 4 the store is damaged \
or cannot be opened, 5 another broker is using the folder.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until SIGTERM or Ctrl-C
    Serve(ServeArgs),
    /// Look into the data folder of a stopped broker
    Inspect(inspect::InspectArgs),
    /// Save what is whole of a damaged store into a new one
    Repair(repair::RepairArgs),
    /// Back up a broker, running or not, into a file
    Backup(backup::BackupArgs),
    /// Make a data folder from a backup
    Restore(restore::RestoreArgs),
    /// Write messages of queues of the running broker into a stream
    Export(export::ExportArgs),
    /// Send what was exported to a broker, any that speaks STOMP 1.2
    Import(import::ImportArgs),
    /// Send messages to a broker, any that speaks STOMP 1.2
    Send(send::SendArgs),
    /// Receive messages from a broker, any that speaks STOMP 1.2
    Receive(receive::ReceiveArgs),
    /// Show the running broker in short
    Status(status::StatusArgs),
    /// List the queues of the running broker
    Queues(queues::QueuesArgs),
    /// Show or change one queue of the running broker
    Queue(queue::QueueArgs),
    /// Look at messages of a queue without taking them
    Peek(peek::PeekArgs),
    /// List the connections of the running broker, or end one
    Connections(connections::ConnectionsArgs),
    /// Show or change who may log in
    User(user::UserArgs),
    /// Show or change what holds for queues, by pattern of their names
    Policy(policy::PolicyArgs),
    /// Make the running broker read its configuration and certificates again
    Reload(reload::ReloadArgs),
    /// Say what the rules of the configuration allow
    Acl(acl::AclArgs),
    /// List the queues that hold dead letters
    Dlq(queues::DlqArgs),
    /// Watch the running broker
    Top(top::TopArgs),
    /// Measure a broker, any that speaks STOMP 1.2
    Bench(Box<bench::BenchArgs>),
    /// The configuration file
    Config(configuration::ConfigArgs),
    /// Print a script that completes commands and options in a shell
    Completions(reference::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(reference::ManArgs),
}

/// Where data and configuration are.
#[derive(Debug, Args)]
struct StoreArgs {
    /// Data folder [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file; `steadfast config default` prints one [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Address to listen on instead of server.listen, any number of times; port 0 takes a free one [default: 127.0.0.1:61613]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Vec<std::net::SocketAddr>,
    /// Address for metrics and health over HTTP; port 0 takes a free one [default: none]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    metrics_listen: Option<std::net::SocketAddr>,
    /// Form of log lines on standard error [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(LogFormat::NAMES).try_map(log_format))]
    log_format: Option<LogFormat>,
    /// Least severe level that is logged [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(LogLevel::NAMES).try_map(log_level))]
    log_level: Option<LogLevel>,
    /// Allow addresses that are not loopback although anyone who reaches them may read and write every queue
    #[arg(long)]
    insecure_allow_anonymous: bool,
}

const SERVE_EXAMPLES: &str = "\
Prints the version, the data folder, what was recovered, and `listening on ADDRESS` for each listener, with its \
transport unless that is plain (`, tls`) and its dialect unless that is steadfast (`, dialect rabbitmq`). SIGHUP \
reads configuration, certificates, users and keys of tokens again, as `steadfast reload` does. SIGTERM and Ctrl-C answer what is due and end with exit code 0; a second one ends at once.

Examples:
  steadfast serve
  steadfast serve --data-dir /var/lib/steadfast --listen 127.0.0.1:61613 --log-format json
  STEADFAST_LISTEN=127.0.0.1:0 steadfast serve --config steadfast.toml";

fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    config::parse_address(text).ok_or_else(|| format!("expected {}", config::ADDRESS_FORM))
}

fn log_format(text: String) -> Result<LogFormat, String> {
    LogFormat::named(&text).ok_or(text)
}

fn log_level(text: String) -> Result<LogLevel, String> {
    LogLevel::named(&text).ok_or(text)
}

/// Parses the arguments of the process and does what they say.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Repair(args) => repair::run(&args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(&args),
        Command::Status(args) => status::run(args),
        Command::Queues(args) => queues::run(args),
        Command::Queue(args) => queue::run(args),
        Command::Peek(args) => peek::run(args),
        Command::Connections(args) => connections::run(args),
        Command::User(args) => user::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Reload(args) => reload::run(args),
        Command::Acl(args) => match acl::run(args) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Dlq(args) => queues::dlq(args),
        Command::Top(args) => top::run(args),
        Command::Send(args) => send::run(&args),
        Command::Receive(args) => receive::run(&args),
        Command::Bench(args) => return bench::run(&args),
        Command::Config(args) => configuration::run(args),
        Command::Completions(args) => reference::completions(&args),
        Command::Man(args) => reference::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                // Where standard error is gone, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "error: {line}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_ref()).and_then(|()| out.flush()))
}

/// A reader that has gone (`steadfast inspect | head`) has seen what it wanted.
fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// Prints each as an object on a line of its own.
fn print_json(items: &[impl Serialize]) -> Result<(), Failure> {
    let mut text = Vec::new();
    let done = items.iter().try_for_each(|item| write_json(&mut text, item));
    done.map_err(Failure::Output)?;
    print(text)
}

/// Writes an object and a line end.
fn write_json(out: &mut dyn Write, item: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    out.write_all(b"\n")
}

/// The name of a queue that an argument means.
fn queue_name(text: &str) -> Result<&str, Failure> {
    match Destination::parse(text) {
        Some(Destination {
            kind: DestinationKind::Queue,
            name,
        }) => Ok(name),
        _ => Err(Failure::NoQueue(text.to_owned())),
    }
}

/// Refuses to write into a data folder that is only to be read.
fn check_outside(data_dir: &Path, to: &Path) -> Result<(), Failure> {
    let (Ok(data_dir), Ok(to)) = (data_dir.canonicalize(), std::path::absolute(to)) else {
        return Ok(());
    };
    // What is not there yet will be made in the lowest folder above it that is.
    let there = to.ancestors().find_map(|above| above.canonicalize().ok());
    match there.is_some_and(|there| there.starts_with(&data_dir)) {
        true => Err(Failure::Inside { path: to, data_dir }),
        false => Ok(()),
    }
}

/// Configuration from every source.
fn load(overrides: Overrides) -> Result<Config, Failure> {
    Ok(Config::load(overrides, std::env::vars_os())?)
}
