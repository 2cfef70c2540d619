//! The runtime: the only floor with IO, a clock, entropy and threads. It drives the machines below it and knows nothing
//! of protocol, queues or files.
//!
//! ```text
//!   porch, then workers (tokio)            the core             committer (one thread)
//!   connection: socket <-> session  --->   one Mutex    <---    wait_batch, append, flush,
//!   (requests, written, events)            one call a           handle_durable; wakes those
//!                                          socket read          who wait for the Seq
//!         |  a body chunk that is not cached
//!         v
//!   readers (at most 4 blocking threads): Store::body
//! ```
//!
//! # Locks, and who may block where
//! - The locks are the core's, the body cache's, that of the list of connections, that of their addresses, that of what sessions begin
//!   with, and two of `logins`. They are held for memory work only: nothing is awaited, read, written, logged or woken under
//!   them, and none is taken under another.
//! - Worker threads never block: sockets, timers, readers and budgets are awaited.
//! - The committer blocks in `append` and `flush`, holding nothing. Readers block in `Store::body`, holding nothing
//!   but their permit.
//!
//! # Why nothing waits in a circle
//! - The core never waits: it is called, and its outputs are drained by the caller. A batch is pulled by the committer.
//! - A socket is not read for three reasons. The backlog of unflushed bytes: the committer drains it with nobody's help, and each
//!   flush lets those go on who may, and one of those who may not.
//!   Room for a long body: those who hold room wait for nothing but their own peer, whose progress is watched, and
//!   those who wait hold none. Receipts that the peer does not read: its own doing, and bounded in time.
//!   A full output stops deliveries, not reading, so ACKs are always read.
//! - Whoever waits for a Seq is noted under the core's lock, under which the committer reports it: no wake is lost.
//! - A failed append or flush ends the process ([`exit`]) before anybody is told of durability.
//!
//! # Invariants
//! - No receipt leaves before [`core::Core::durable`] has reached its gate: the session is handed no other number.
//! - A connection's place in the core ends with its task, however that ends.
//!
//! # Not here
//! What a frame means (`session`), what is delivered to whom (`broker`), bytes on disk (`store`).

mod allocator;
mod api;
mod bodies;
mod clock;
mod committer;
mod connection;
mod core;
mod current;
mod door;
mod entropy;
mod error;
mod exit;
mod logins;
mod looks;
mod neighbours;
mod porch;
mod presence;
mod room;
mod server;
mod service;
mod stats;
mod timings;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Reloaded;
use crate::auth::Authority;
use crate::base::{Epoch, Limits, Rules, Settings};
use crate::store::{self, SledOptions, SledStore, StoreError};

use self::clock::Clock;
use self::room::RoomKeeper;

pub(crate) use self::allocator::set_up as set_up_allocator;
pub use self::api::{ApiCode, METRICS, Metric, refusal_status};
pub use self::error::RunError;
pub use self::server::Running;
pub use self::stats::StatsView;
pub use crate::config::Listener;

/// A salt for the hash of a password.
pub(crate) fn salt() -> [u8; 16] {
    entropy::salt()
}

/// What a simulation drives itself, in place of threads and sockets.
#[cfg(feature = "sim")]
pub(crate) mod parts {
    pub(crate) use super::bodies::Bodies;
    pub(crate) use super::clock::Clock;
    pub(crate) use super::connection::{Budget, Shared, drive};
    pub(crate) use super::core::{Core, Wait};
    pub(crate) use super::current::Current;
    pub(crate) use super::logins::{Doorstep, Logins};
    pub(crate) use super::looks::show_headers;
    pub(crate) use super::server::{commit_term, relocate};
}

/// What `serve` needs to know.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to accept STOMP; at least one.
    pub listen: Vec<Listener>,
    /// The folder of the store; created where it is missing.
    pub data_dir: PathBuf,
    /// Every bound.
    pub limits: Limits,
    /// What the configuration states for queues by pattern of their names.
    pub policies: Vec<(String, Settings)>,
    /// Who may do what.
    pub rules: Rules,
    /// The shortest heart-beat interval we guarantee and ask for, either way.
    pub heart_beat_ms_min: u64,
    /// A peer is dead after its agreed interval times this, in percent (200 = twice the interval).
    pub heart_beat_margin_percent: u64,
    /// How long a stop waits for connections to take what they are due.
    pub shutdown_ms_max: u64,
    /// Threads that serve connections; at least 1.
    pub worker_count: usize,
    /// Pages that the store's engine keeps in memory.
    pub store_cache_bytes: u64,
    /// An address for metrics and health alone, beside the API's socket; port 0 takes any free port.
    pub metrics_listen: Option<SocketAddr>,
    /// Users, and keys of tokens.
    pub authority: Arc<Authority>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 61613)).into()],
            data_dir: PathBuf::from("data"),
            limits: Limits::default(),
            policies: Vec::new(),
            rules: Rules::default(),
            heart_beat_ms_min: 100,
            heart_beat_margin_percent: 200,
            shutdown_ms_max: 5_000,
            worker_count: 2,
            store_cache_bytes: SledOptions::CACHE_BYTES,
            metrics_listen: None,
            authority: Arc::default(),
        }
    }
}

/// What people want to read once the broker accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The listeners, with the ports chosen, in the order of [`ServeOptions::listen`].
    pub listen: Vec<Listener>,
    /// The address of metrics and health, with the port chosen.
    pub metrics_listen: Option<SocketAddr>,
    /// The socket of the API, unless it could not be made.
    pub api: Option<PathBuf>,
    /// The folder of the store.
    pub data_dir: PathBuf,
    /// Queues recovered.
    pub queue_count: u64,
    /// Messages recovered.
    pub message_count: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Opening and reading the store took this long.
    pub recovery: Duration,
    /// The term that began.
    pub epoch: Epoch,
}

/// Why a broker that had started came to its end. A second signal or a failed flush ends the process instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
}

/// What a broker that runs can be given anew.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// As [`ServeOptions::limits`]; those that size something at the start stay what they were.
    pub limits: Limits,
    /// As [`ServeOptions::policies`].
    pub policies: Vec<(String, Settings)>,
    /// As [`ServeOptions::rules`].
    pub rules: Rules,
    /// As [`ServeOptions::heart_beat_ms_min`].
    pub heart_beat_ms_min: u64,
    /// As [`ServeOptions::heart_beat_margin_percent`].
    pub heart_beat_margin_percent: u64,
    /// As [`ServeOptions::shutdown_ms_max`].
    pub shutdown_ms_max: u64,
}

/// A configuration that was read again: what the broker is given, and what is told of it; or its mistakes, one a line.
pub type Reread = Result<(Renewal, Reloaded), String>;

/// Runs a broker until a signal stops it. Calls `started` once, when connections are accepted, and `reread` at each SIGHUP and
/// each request to reload. Certificates, users and keys of tokens are read again then, too, unless the configuration has mistakes: those change nothing.
/// To be called before the process has other threads.
pub fn run(
    options: ServeOptions,
    started: impl FnOnce(&Started),
    mut reread: impl FnMut() -> Reread,
) -> Result<ExitReason, RunError> {
    allocator::set_up();
    let clock = Clock::new();
    server::check_descriptors()?;
    store::make_folder(&options.data_dir).map_err(|error| match error {
        StoreError::File {
            operation: "create",
            path,
            source,
        } => RunError::DataDir { path, source },
        error => RunError::Store(error),
    })?;
    warn_of_open_folder(&options.data_dir);
    let keeper = RoomKeeper::new(&options.data_dir, options.limits.disk_free_bytes_min);
    // Opening a store on a full disk takes room: the ballast's, if it comes to that.
    keeper.make_room_to_open();
    let store = SledStore::create_or_open(
        &options.data_dir,
        SledOptions {
            cache_bytes: options.store_cache_bytes,
            uuid: entropy::store_uuid(),
        },
    )
    .map_err(RunError::Store)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_count.max(1))
        .thread_name("worker")
        .enable_all()
        .build()
        .map_err(|source| RunError::System {
            operation: "starting worker threads",
            source,
        })?;
    let reason = runtime.block_on(async {
        let mut terminate = listen_for(SignalKind::terminate())?;
        let mut interrupt = listen_for(SignalKind::interrupt())?;
        let mut hangup = listen_for(SignalKind::hangup())?;
        service::recovering();
        let (mut running, facts) = Running::start_since(clock, keeper, Arc::new(store), &options)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = facts.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            metrics_listen = facts.metrics_listen.map(tracing::field::display),
            api = facts.api.as_ref().map(|path| tracing::field::display(path.display())),
            data_dir = %facts.data_dir.display(),
            epoch = facts.epoch.0,
            rule_count = options.rules.len(),
            queue_count = facts.queue_count,
            message_count = facts.message_count,
            message_bytes = facts.message_bytes,
            recovery_ms = facts.recovery.as_millis(),
            "started"
        );
        started(&facts);
        let status = status(&facts);
        let mut asked = running.take_reloads();
        if let Some(silence_max) = service::watchdog() {
            running.watch(silence_max / 2, service::alive);
        }
        service::ready(&status);
        let reason = loop {
            tokio::select! {
                reason = first_of(&mut terminate, &mut interrupt) => break reason,
                _ = hangup.recv() => {
                    let _told_in_the_log = reload(&mut running, &mut reread, &status);
                }
                Some(answer) = asked.recv() => {
                    // Who asked may have gone.
                    let _ = answer.send(reload(&mut running, &mut reread, &status));
                }
            }
        };
        service::stopping();
        tracing::info!(?reason, "stopping");
        let impatience = tokio::spawn(async move {
            first_of(&mut terminate, &mut interrupt).await;
            exit::impatiently();
        });
        running.stop().await;
        impatience.abort();
        Ok(reason)
    })?;
    // A reader that hangs in the store must not keep a broker that has ended.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(reason)
}

/// A folder that we make is for our own user; one that was there may be for others.
fn warn_of_open_folder(data_dir: &Path) {
    let mode = std::fs::metadata(data_dir).map(|folder| folder.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        tracing::warn!(
            data_dir = %data_dir.display(),
            mode = format!("{mode:03o}"),
            "other users may look into the data folder, where messages lie as they were sent: `chmod 700`"
        );
    }
}

/// What a service manager shows.
fn status(started: &Started) -> String {
    format!(
        "recovered {} messages in {} queues in {} ms; epoch {}",
        started.message_count,
        started.queue_count,
        started.recovery.as_millis(),
        started.epoch.0
    )
}

/// Reads the configuration and the certificates again, and logs what came of it.
fn reload(
    running: &mut Running,
    reread: &mut impl FnMut() -> Reread,
    status: &str,
) -> Result<Reloaded, String> {
    service::reloading();
    let done = reread().map(|(renewal, mut reloaded)| {
        running.renew(&renewal);
        for (address, read) in running.reload_certificates() {
            match read {
                Ok(()) => {
                    tracing::info!(listener = %address, "certificates read again");
                    reloaded.certificates.push(address.to_string());
                }
                Err(error) => {
                    let why = exit::chain(&error);
                    tracing::error!(
                        listener = %address,
                        "the certificates were not read again, the old ones stay: {why}"
                    );
                    reloaded.failed.push(format!("{address}: {why}"));
                }
            }
        }
        if let Err(error) = running.reload_logins() {
            let why = exit::chain(&error);
            tracing::error!("users and keys were not read again, the old ones stay: {why}");
            reloaded.failed.push(format!("users and keys: {why}"));
        }
        reloaded
    });
    match &done {
        Ok(reloaded) => tracing::info!(
            taken = reloaded.taken.join(" "),
            restart = reloaded.restart.join(" "),
            "configuration read again"
        ),
        Err(mistakes) => {
            for mistake in mistakes.lines() {
                tracing::error!("the configuration was not read again: {mistake}");
            }
        }
    }
    service::ready(status);
    done
}

fn listen_for(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(|source| RunError::System {
        operation: "listening for signals",
        source,
    })
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) -> ExitReason {
    tokio::select! {
        _ = terminate.recv() => ExitReason::Terminated,
        _ = interrupt.recv() => ExitReason::Interrupted,
    }
}
