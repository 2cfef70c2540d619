//! `steadfast serve`.

use std::io::Write;
use std::sync::Arc;

use super::{Failure, ServeArgs, load};
use crate::auth::{AuthError, Authority, Sources};
use crate::base::Settings;
use crate::config::{Config, Overrides};
use crate::runtime::{self, ServeOptions, Started};
use crate::store::StoreError;
use crate::telemetry;

pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let overrides = Overrides {
        file: args.store.config,
        data_dir: args.store.data_dir,
        listen: args.listen,
        log_format: args.log_format,
        log_level: args.log_level,
        metrics_listen: args.metrics_listen,
        insecure_allow_anonymous: args.insecure_allow_anonymous,
    };
    let config = load(overrides.clone())?;
    let at_start = config.clone();
    let authority = Authority::load(sources(&config)).map_err(|error| unreadable(error, &config))?;
    config.refuse_exposed(authority.is_open())?;
    telemetry::init(config.log).map_err(Failure::Telemetry)?;
    let worker_count = match config.server.worker_thread_count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let data_dir = config.server.data_dir.clone();
    let listen = config.every_listener().collect();
    let options = ServeOptions {
        listen,
        data_dir: config.server.data_dir,
        limits: config.limits,
        policies: config.policies,
        heart_beat_ms_min: config.heart_beat.interval_ms_min,
        heart_beat_margin_percent: config.heart_beat.margin_percent,
        shutdown_ms_max: config.server.shutdown_ms_max,
        worker_count,
        store_cache_bytes: config.store.cache_bytes,
        metrics_listen: config.server.metrics_listen,
        authority: Arc::new(authority),
    };
    // A broker whose standard output is gone still serves.
    let _ = writeln!(std::io::stdout(), "steadfast {}", env!("CARGO_PKG_VERSION"));
    let started = |started: &Started| {
        let _ = announce(started, &mut std::io::stdout().lock());
    };
    runtime::run(options, started, || reload(&overrides, &at_start))
        .map(|_reason| ())
        .map_err(|error| Failure::Run { error, data_dir })
}

/// A users file in the data folder that cannot be read is a data folder that cannot be.
fn unreadable(error: AuthError, config: &Config) -> Failure {
    match error {
        AuthError::File {
            operation,
            path,
            source,
        } if config.security.users_file.is_none() && path == config.users_file() => Failure::Store {
            error: StoreError::File {
                operation,
                path,
                source,
            },
            data_dir: config.server.data_dir.clone(),
        },
        error => error.into(),
    }
}

/// Where the configuration says that users and keys are.
fn sources(config: &Config) -> Sources {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    let security = &config.security;
    Sources {
        users_file: Some(config.users_file()),
        users_file_named: security.users_file.is_some(),
        token_keys: security.jwt_keys.clone(),
        token_audience: said(&security.jwt_audience),
        token_issuer: said(&security.jwt_issuer),
    }
}

/// Reads the configuration again. A wrong one changes nothing.
fn reload(overrides: &Overrides, at_start: &Config) -> Option<Vec<(String, Settings)>> {
    let config = match load(overrides.clone()) {
        Ok(config) => config,
        Err(failure) => {
            tracing::error!("the configuration was not read again: {failure}");
            return None;
        }
    };
    let policies = config.policies.clone();
    let rest = Config {
        policies: at_start.policies.clone(),
        ..config
    };
    if rest != *at_start {
        tracing::warn!(
            "the configuration differs in more than its [[policy]] tables: that takes effect at the next start"
        );
    }
    Some(policies)
}

fn announce(started: &Started, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "data folder {}, epoch {}",
        started.data_dir.display(),
        started.epoch
    )?;
    writeln!(
        out,
        "recovered {} queues with {} messages ({} bytes) in {} ms",
        started.queue_count,
        started.message_count,
        started.message_bytes,
        started.recovery.as_millis()
    )?;
    for listener in &started.listen {
        writeln!(out, "listening on {listener}")?;
    }
    if let Some(address) = started.metrics_listen {
        writeln!(out, "metrics on http://{address}/metrics")?;
    }
    out.flush()
}
