//! A broker from recovery to stop: listeners, the committer, what is done each second, and a stop in good order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::auth::{AuthError, Authority};
use crate::base::{Dialect, Limits, Method, Policies, Settings};
use crate::broker::{Broker, Recovery};
use crate::config::Address;
use crate::listener::{Gate, TlsError};
use crate::session::SessionConfig;
use crate::store::{Store, StoreError};

use super::api::{self, Api};
use super::bodies::Bodies;
use super::clock::Clock;
use super::committer::{Committer, Watchdog, commit};
use super::connection::{Budget, Shared};
use super::core::Core;
use super::current::Current;
use super::door::{self, Door, Entrance};
use super::logins::Logins;
use super::looks::show_headers;
use super::porch::Porch;
use super::room::{RoomKeeper, reusable_bytes};
use super::stats::{Stats, StatsView};
use super::timings::Timings;
use super::{Listener, Renewal, RunError, ServeOptions, Started, exit};

/// Descriptors kept for the store, listeners and the like.
const DESCRIPTORS_KEPT: u64 = 64;

/// Body chunks moved in one go, and the pause behind it: at most about 12 MiB a second.
const RELOCATION_COUNT: usize = 16;
const RELOCATION_PAUSE: Duration = Duration::from_millis(20);

const TICK: Duration = Duration::from_secs(1);
const TICKS_PER_REPORT: u32 = 60;

/// A broker that accepts connections.
pub struct Running {
    shared: Arc<Shared>,
    api_server: api::Server,
    listen: Vec<Listener>,
    /// Those listeners that have more than a socket before STOMP.
    gates: Vec<(Address, Arc<Gate>)>,
    accepting: watch::Sender<bool>,
    /// Ends when every connection has.
    connections: mpsc::Receiver<()>,
    helpers: Vec<task::JoinHandle<()>>,
    api: Arc<Api>,
    watchdog: Arc<Watchdog>,
    porch: Porch,
    door: Arc<Door>,
    committer: JoinHandle<()>,
    shutdown: Duration,
}

/// What the configuration states.
pub(super) fn policies(limits: &Limits, stated: &[(String, Settings)]) -> Policies {
    let mut policies = Policies::new(limits.policy());
    for (pattern, settings) in stated {
        policies.insert(pattern, settings.clone());
    }
    policies
}

impl Running {
    /// Recovers the store, commits the new term, and accepts connections. Blocks while it reads the store; needs a
    /// tokio runtime around it.
    pub fn start(store: Arc<dyn Store>, options: &ServeOptions) -> Result<(Self, Started), RunError> {
        let keeper = RoomKeeper::new(&options.data_dir, options.limits.disk_free_bytes_min);
        Self::start_since(Clock::new(), keeper, store, options)
    }

    /// The same, with a clock that was started, and a keeper made, before the store was opened.
    pub(super) fn start_since(
        clock: Clock,
        mut keeper: RoomKeeper,
        store: Arc<dyn Store>,
        options: &ServeOptions,
    ) -> Result<(Self, Started), RunError> {
        tell_of(&options.authority);
        options
            .listen
            .iter()
            .for_each(|listener| tell_of_clear(listener, &options.authority));
        // Addresses are taken before the store is read, so that one in use is found out early; connections are
        // accepted after it, so that an open port means a broker that answers.
        let sockets = options
            .listen
            .iter()
            .map(|listener| {
                let gate = Gate::build(listener, options.limits.login_bytes_max);
                let gate = gate.map_err(|source| RunError::Tls {
                    address: listener.address.clone(),
                    source: Box::new(source),
                })?;
                Ok((
                    listener.clone(),
                    door::take(&listener.address)?,
                    gate.map(Arc::new),
                ))
            })
            .collect::<Result<Vec<_>, RunError>>()?;
        let metrics = options.metrics_listen.map(|address| {
            let bound = door::bind_tcp(address).and_then(door::listen_tcp);
            bound.map_err(|source| RunError::Listen {
                address: Address::Tcp(address),
                source,
            })
        });
        let metrics = metrics.transpose()?;
        let metrics_listen = metrics.as_ref().map(|(_, bound)| *bound);
        let api = Arc::new(Api::default());
        let api_server = api::Server::start(&api, &options.data_dir, metrics.map(|(listener, _)| listener));
        let mut recovery = Recovery::new(options.limits.clone());
        let recovered = store
            .recover(&mut |chunk| recovery.visit(chunk))
            .map_err(RunError::Store)?;
        let mut broker = recovery.finish(&recovered, clock.now());
        let look = keeper.look(reusable_bytes(
            store.stats().file_bytes,
            broker.ledger().held_bytes(),
        ));
        broker.handle_room(look.room);
        broker.handle_policies(policies(&options.limits, &options.policies), clock.now());
        broker.handle_rules(Arc::new(options.rules.clone()), clock.now());
        let epoch = broker.epoch();
        let mut started = Started {
            listen: Vec::new(),
            metrics_listen,
            api: api_server.path().map(Path::to_owned),
            data_dir: options.data_dir.clone(),
            queue_count: 0,
            message_count: 0,
            message_bytes: 0,
            recovery: Duration::from_millis(clock.now().mono_ms),
            epoch,
        };
        for queue in broker.queues() {
            started.queue_count += 1;
            started.message_count += queue.depth;
            started.message_bytes += queue.bytes;
        }
        let durable = commit_term(&mut broker, &*store, clock)?.unwrap_or(recovered.last_seq);

        let stats = Arc::new(Stats::default());
        let core = Arc::new(Core::new(broker, durable, &options.limits, clock));
        let bodies = Arc::new(Bodies::new(
            Arc::clone(&store),
            options.limits.body_cache_bytes_max,
            Arc::clone(&stats),
        ));
        let watchdog = Arc::new(Watchdog::default());
        let timings = Arc::new(Timings::default());
        let (room_store, api_store) = (Arc::clone(&store), Arc::clone(&store));
        let (api_watchdog, running_watchdog) = (Arc::clone(&watchdog), Arc::clone(&watchdog));
        let committer = Committer {
            core: Arc::clone(&core),
            store,
            bodies: Arc::clone(&bodies),
            watchdog: Arc::clone(&watchdog),
            clock,
            stats: Arc::clone(&stats),
            timings: Arc::clone(&timings),
        };
        let shared = Arc::new(Shared {
            core,
            bodies,
            clock,
            stats,
            presence: Arc::default(),
            logins: Arc::new(Logins::new(
                Arc::clone(&options.authority),
                &options.limits,
                clock,
            )),
            session: Current::new(SessionConfig {
                limits: options.limits.clone(),
                epoch,
                store: recovered
                    .uuid
                    .iter()
                    .take(4)
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
                heart_beat_ms_min: options.heart_beat_ms_min,
                heart_beat_margin_percent: options.heart_beat_margin_percent,
                dialect: Dialect::default(),
            }),
            receiving: Budget::new(options.limits.receiving_bytes_max),
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });

        let porch = Porch::build().map_err(|source| RunError::System {
            operation: "starting the newcomers' thread",
            source,
        })?;
        let mut entrances = Vec::new();
        let mut gates = Vec::new();
        for (asked, taken, gate) in sockets {
            let _there = porch.handle().enter();
            let session = shared.session.get();
            let here = (asked.dialect, asked.authentication.clone());
            let (entrance, address) = Entrance::open(taken, &asked.address, gate.clone(), here, &session)?;
            entrances.push(entrance);
            gates.extend(gate.map(|gate| (address.clone(), gate)));
            started.listen.push(Listener { address, ..asked });
        }
        let committer = committer.start().map_err(|source| RunError::System {
            operation: "starting the committer's thread",
            source,
        })?;
        let (accepting, accept_until) = watch::channel(true);
        let (present, connections) = mpsc::channel(1);
        let door = Arc::new(Door::new(
            Arc::clone(&shared),
            connection_count_max(options.limits.connection_count_max),
            Handle::current(),
        ));
        let mut helpers = vec![
            tokio::spawn(tick(Arc::clone(&shared), watchdog)),
            tokio::spawn(time(Arc::clone(&shared))),
            tokio::spawn(show_headers(Arc::clone(&shared))),
            tokio::spawn(keep_room(Arc::clone(&shared), room_store, keeper, look.pause)),
        ];
        for entrance in entrances {
            let attended = Arc::clone(&door).attend(entrance, accept_until.clone(), present.clone());
            helpers.push(porch.handle().spawn(attended));
        }
        api.begin(api::Parts {
            shared: Arc::clone(&shared),
            store: api_store,
            watchdog: api_watchdog,
            timings,
            uuid: recovered.uuid,
            data_dir: std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone()),
            listen: started.listen.clone(),
            metrics_listen,
            looks: api::Parts::looks(),
        });
        let running = Self {
            shared,
            api_server,
            listen: started.listen.clone(),
            gates,
            accepting,
            connections,
            helpers,
            api,
            watchdog: running_watchdog,
            porch,
            door,
            committer,
            shutdown: Duration::from_millis(options.shutdown_ms_max),
        };
        Ok((running, started))
    }

    /// The first address of the network, with the port chosen, if there is one.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.listen.iter().find_map(|listener| listener.address.tcp())
    }

    /// Counters of connections and bytes.
    pub fn stats(&self) -> StatsView {
        self.shared.stats.view()
    }

    /// What holds from now on; for connections, for those from now on.
    pub fn renew(&mut self, renewal: &Renewal) {
        let limits = &renewal.limits;
        let before = self.shared.session.get();
        if limits.connection_count_max != before.limits.connection_count_max {
            let count_max = connection_count_max(limits.connection_count_max);
            self.door.set_connection_count_max(count_max);
        }
        self.shared.session.set(SessionConfig {
            limits: limits.clone(),
            heart_beat_ms_min: renewal.heart_beat_ms_min,
            heart_beat_margin_percent: renewal.heart_beat_margin_percent,
            ..SessionConfig::clone(&before)
        });
        self.shared.core.handle_limits(limits.clone());
        self.shared
            .core
            .handle_policies(policies(limits, &renewal.policies));
        self.shared.core.handle_rules(Arc::new(renewal.rules.clone()));
        self.shutdown = Duration::from_millis(renewal.shutdown_ms_max);
    }

    /// Where the API's requests to read the configuration again arrive from now on. To be called once.
    pub(super) fn take_reloads(&self) -> mpsc::Receiver<api::ReloadAnswer> {
        self.api.take_reloads()
    }

    /// Calls `alive` at least twice within `late`, as long as the core answers and the committer is not late by that much.
    pub fn watch(&mut self, late: Duration, alive: impl Fn() + Send + 'static) {
        let (shared, watchdog) = (Arc::clone(&self.shared), Arc::clone(&self.watchdog));
        self.helpers.push(tokio::spawn(async move {
            let mut ticks = interval(late / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Where the core's lock is never given back, this is the end of it.
                let waits = shared.core.committer_waits();
                let writes = watchdog.elapsed(shared.clock.now().mono_ms);
                if waits.max(writes).is_none_or(|elapsed| elapsed < late) {
                    alive();
                }
            }
        }));
    }

    /// Reads certificates and keys again, for connections from now on: for each listener that has some, whether they are
    /// used. Where they cannot be the old ones stay.
    pub fn reload_certificates(&self) -> Vec<(Address, Result<(), TlsError>)> {
        let read = |(address, gate): &(Address, Arc<Gate>)| match gate.reload() {
            Ok(true) => Some((address.clone(), Ok(()))),
            Ok(false) => None,
            Err(error) => Some((address.clone(), Err(error))),
        };
        self.gates.iter().filter_map(read).collect()
    }

    /// Reads users and keys of tokens again, for logins from now on; whoever is in and could not come in as they did is out,
    /// with an ERROR. Where they cannot be used the old ones stay.
    pub fn reload_logins(&self) -> Result<(), AuthError> {
        let authority = self.shared.logins.reload()?;
        tell_of(&authority);
        if !authority.is_open() {
            tracing::info!(user_count = authority.user_count(), "users and keys read again");
        }
        self.shared.core.wake_all();
        Ok(())
    }

    /// Stops in good order: accepts no more, lets each connection have what is due to it, within `shutdown_ms_max`;
    /// then ends the term cleanly. Everything is durable and the store is free when this returns.
    pub async fn stop(mut self) {
        // Those who accept hold the other end; that they are gone is their assent.
        let _ = self.accepting.send(false);
        self.shared.core.handle_stopping();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.core.wake_all();
        if timeout(self.shutdown, self.connections.recv()).await.is_err() {
            tracing::warn!(
                connection_count = self.shared.stats.connection_count.value(),
                "connections did not end in time and are closed as they are"
            );
            self.shared.closing.store(true, Ordering::Release);
            self.shared.core.wake_all();
            self.connections.recv().await;
        }
        for helper in self.helpers {
            helper.abort();
            // It ends by being aborted, or has ended.
            let _ = helper.await;
        }
        self.porch.close().await;
        // Until here an operator could look on; behind the stop nothing may act.
        self.api_server.stop().await;
        let transient_count = self.shared.core.handle_stop();
        let committer = self.committer;
        if !matches!(task::spawn_blocking(|| committer.join()).await, Ok(Ok(()))) {
            exit::after_bug();
        }
        if transient_count > 0 {
            tracing::warn!(
                transient_count,
                "messages sent with persistent:false are gone with this stop"
            );
        }
        tracing::info!(stats = ?self.shared.stats.view(), counters = ?self.shared.core.counters(), "stopped");
    }
}

/// What is odd about users and keys, and no error.
fn tell_of(authority: &Authority) {
    for notice in authority.notices() {
        tracing::warn!("{notice}");
    }
}

/// Passcodes that others may read on their way.
fn tell_of_clear(listener: &Listener, authority: &Authority) {
    let methods = &listener.authentication;
    let by_passcode = [Method::Password, Method::Jwt];
    let asked = by_passcode
        .into_iter()
        .any(|method| methods.take(method, authority.is_open()));
    let is_remote = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
    if asked && listener.tls.is_none() && listener.address.tcp().is_some_and(is_remote) {
        tracing::warn!(listener = %listener.address, "passcodes pass in the clear here: transport = \"tls\" or \"wss\" hides them");
    }
}

/// Makes the new term durable, before anything is promised in its name.
pub(crate) fn commit_term(
    broker: &mut Broker,
    store: &dyn Store,
    clock: Clock,
) -> Result<Option<crate::base::Seq>, RunError> {
    let mut durable = None;
    while let Some(batch) = broker.poll_batch() {
        let seq = batch.seq;
        let size = commit(store, batch).map_err(RunError::Store)?;
        broker.handle_durable(seq, &[size], clock.now());
        durable = Some(seq);
    }
    Ok(durable)
}

/// Refuses a limit on open files that leaves no descriptor for a connection.
pub(super) fn check_descriptors() -> Result<(), RunError> {
    let needed = DESCRIPTORS_KEPT + 1;
    match descriptor_count_max() {
        limit if limit < needed => Err(RunError::Descriptors { limit, needed }),
        _ => Ok(()),
    }
}

/// The limit on open files, raised as far as it may be.
fn descriptor_count_max() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// The bound that is asked for, or what the descriptors allow.
fn connection_count_max(asked: usize) -> u64 {
    let asked = asked as u64;
    let allowed = descriptor_count_max().saturating_sub(DESCRIPTORS_KEPT);
    if allowed < asked {
        tracing::info!(asked, allowed, "fewer descriptors than connections asked for");
    }
    asked.min(allowed)
}

/// Does what is due when it is.
async fn time(shared: Arc<Shared>) {
    loop {
        shared.core.wait_due().await;
        shared.core.handle_due();
    }
}

/// What is done each second.
async fn tick(shared: Arc<Shared>, watchdog: Arc<Watchdog>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 1_u32.. {
        ticks.tick().await;
        let now = shared.clock.now();
        shared.core.handle_tick();
        relocate(&shared).await;
        if let Some(elapsed) = watchdog.check(now.mono_ms) {
            tracing::warn!(
                elapsed_ms = elapsed.as_millis(),
                "a commit hangs: the disk does not answer"
            );
        }
        if count.is_multiple_of(TICKS_PER_REPORT) {
            tracing::debug!(stats = ?shared.stats.view(), counters = ?shared.core.counters(), "counters");
        }
    }
}

/// Shows the core the body chunks it asks for, so that it moves what is live out of sparse ones: a few at a time, so
/// that commits of others hardly wait for it.
pub(crate) async fn relocate(shared: &Shared) {
    loop {
        let wanted = shared.core.poll_relocations(RELOCATION_COUNT);
        if wanted.is_empty() {
            return;
        }
        for (place, payload) in shared.bodies.fetch(wanted).await {
            match payload {
                Ok(payload) => shared.core.handle_relocated(place, &payload),
                // What is gone was settled meanwhile, and has nothing to be moved.
                Err(StoreError::Gone(_)) => {}
                Err(error) => tracing::error!(
                    code = error.code(),
                    slot = place.slot.0,
                    "a body chunk cannot be moved: {}",
                    exit::chain(&error)
                ),
            }
        }
        sleep(RELOCATION_PAUSE).await;
    }
}

/// Looks after the room on the disk, away from the threads that serve connections.
async fn keep_room(shared: Arc<Shared>, store: Arc<dyn Store>, mut keeper: RoomKeeper, mut pause: Duration) {
    loop {
        sleep(pause).await;
        let (core, store) = (Arc::clone(&shared.core), Arc::clone(&store));
        let looked = task::spawn_blocking(move || {
            let look = keeper.look(reusable_bytes(store.stats().file_bytes, core.held_bytes()));
            (keeper, look)
        });
        let Ok((again, look)) = looked.await else {
            return;
        };
        keeper = again;
        pause = look.pause;
        shared.core.handle_room(look.room);
    }
}
