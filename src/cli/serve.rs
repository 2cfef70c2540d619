//! `steadfast serve`.

use std::io::Write;
use std::sync::Arc;

use super::{Failure, ServeArgs};
use crate::api::Reloaded;
use crate::auth::{AuthError, Authority, Sources};
use crate::config::{Changes, Config, ConfigErrors, Loaded, Overrides};
use crate::runtime::{self, Renewal, Reread, ServeOptions, Started};
use crate::store::StoreError;
use crate::telemetry::{self, Levels};

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
    let Plan {
        loaded,
        mistakes,
        authority,
    } = Plan::read(overrides.clone());
    mistakes.none()?;
    let (config, authority) = (loaded.config, authority?);
    let mut running_with = config.clone();
    let levels = telemetry::init(config.log).map_err(Failure::Telemetry)?;
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
        rules: config.rules,
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
    runtime::run(options, started, || {
        reread(&overrides, &mut running_with, &levels)
    })
    .map(|_reason| ())
    .map_err(|error| Failure::Run { error, data_dir })
}

/// What a broker would be started with, and everything that keeps it from starting so.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) loaded: Loaded,
    pub(super) mistakes: ConfigErrors,
    /// Who may log in.
    pub(super) authority: Result<Authority, Failure>,
}

impl Plan {
    pub(super) fn read(overrides: Overrides) -> Self {
        let (loaded, mut mistakes) = Loaded::read(overrides, std::env::vars_os());
        let authority = Authority::load(sources(&loaded.config));
        let open = authority.as_ref().is_ok_and(Authority::is_open);
        if let Some(exposed) = loaded.exposed(open) {
            mistakes.add(exposed);
        }
        Self {
            authority: authority.map_err(|error| unreadable(error, &loaded.config)),
            loaded,
            mistakes,
        }
    }
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

/// Reads the configuration again. One with mistakes changes nothing.
fn reread(overrides: &Overrides, running_with: &mut Config, levels: &Levels) -> Reread {
    let Plan { loaded, mistakes, .. } = Plan::read(overrides.clone());
    mistakes.none().map_err(|mistakes| mistakes.to_string())?;
    let config = loaded.config;
    let Changes {
        running,
        taken,
        restart,
    } = Changes::between(running_with, &config);
    levels.set(running.log.level);
    running_with.clone_from(&running);
    let renewal = Renewal {
        limits: running.limits,
        policies: running.policies,
        rules: running.rules,
        heart_beat_ms_min: running.heart_beat.interval_ms_min,
        heart_beat_margin_percent: running.heart_beat.margin_percent,
        shutdown_ms_max: running.server.shutdown_ms_max,
    };
    let reloaded = Reloaded {
        taken,
        restart,
        ..Reloaded::default()
    };
    Ok((renewal, reloaded))
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
