//! Log lines on standard error, as text or JSON.
//!
//! # Not here
//! What is printed for people on standard output: `cli`.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// The target of lines about who came in and who did not. They are logged whatever the level.
pub const AUDIT: &str = "steadfast::audit";

/// Changes what is left out while the process runs.
#[derive(Debug)]
pub struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    /// From now on.
    pub fn set(&self, level: LogLevel) {
        // It fails only where nothing is logged any more.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // What libraries say below a warning is for their authors.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target(AUDIT, level.max(LevelFilter::INFO))
}

/// Sends every log line of the process to standard error from now on. Fails if that was done before.
pub fn init(log: Log) -> Result<Levels, TryInitError> {
    let (filter, levels) = reload::Layer::new(targets(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => {
            let colour =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(colour).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()?;
    Ok(Levels(levels))
}
