//! The broker of a simulation: the real core, the real connections and the real readers of bodies, with the committer's
//! three steps taken one by one, so that anything can happen between them.
//!
//! # Not here
//! What is the real program's own and not simulated: threads, sockets, signals, the engine of the store, the look at
//! the disk's room.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::Plant;
use super::disk::Disk;
use super::network::Wire;
use super::rng::Rng;
use crate::base::{Dialect, Limits, Methods, Seq, SessionNo};
use crate::broker::Recovery;
use crate::journal::{Batch, IndexSize};
use crate::port::Act;
use crate::runtime::parts::{
    Bodies, Budget, Clock, Core, Current, Doorstep, Logins, Shared, Wait, commit_term, drive, relocate,
    show_headers,
};
use crate::session::SessionConfig;
use crate::store::Store;

const TICK_MS: u64 = 1_000;

/// The longest that reading bodies takes.
pub(super) const READ_MS_MAX: usize = 40;

/// The broker failed as it says it does when its disk fails: it would end its process.
#[derive(Debug)]
pub(super) struct Failed;

/// See the module's text.
pub(super) struct Host {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<Disk>,
    clock: Clock,
    commit: Commit,
    next_session: u64,
    next_tick_ms: u64,
    relocation: Option<Task>,
    looks: Task,
    plant: Option<Plant>,
}

/// Where the committer is.
enum Commit {
    Idle,
    Taken(Box<Batch>),
    Appended(Seq, IndexSize),
    /// A planted fault: told as durable, and not flushed.
    Told,
}

/// A future of the broker, and whether it asks for its turn.
pub(super) struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    pub(super) fn new(future: impl Future<Output = ()> + 'static) -> Self {
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        Self {
            future: Box::pin(future),
            bell,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.bell.0.load(Ordering::Relaxed)
    }

    /// One turn. True at its end.
    pub(super) fn turn(&mut self) -> bool {
        self.bell.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.bell));
        matches!(
            self.future.as_mut().poll(&mut Context::from_waker(&waker)),
            Poll::Ready(())
        )
    }
}

impl Host {
    /// Starts on what the disk holds.
    pub(super) fn start(
        disk: Arc<Disk>,
        limits: &Limits,
        wall: Duration,
        rng: &mut Rng,
        plant: Option<Plant>,
    ) -> Result<Self, Failed> {
        let clock = Clock::simulated(wall);
        let mut recovery = Recovery::new(limits.clone());
        let recovered = disk
            .recover(&mut |chunk| recovery.visit(chunk))
            .map_err(|_| Failed)?;
        let mut broker = recovery.finish(&recovered, clock.now());
        let epoch = broker.epoch();
        let durable = commit_term(&mut broker, &*disk, clock)
            .map_err(|_| Failed)?
            .unwrap_or(recovered.last_seq);
        let core = Arc::new(Core::new(broker, durable, limits, clock));
        let stats = Arc::default();
        let store: Arc<dyn Store> = Arc::clone(&disk) as _;
        let bodies = Bodies::new(store, limits.body_cache_bytes_max, Arc::clone(&stats));
        let delays = std::sync::Mutex::new(rng.split());
        let bodies = bodies.simulated(Box::new(move || {
            let mut delays = delays.lock().expect("no holder of the lock panics");
            let ms = delays.below(READ_MS_MAX + 1) as u64;
            Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
        }));
        let shared = Arc::new(Shared {
            core,
            bodies: Arc::new(bodies),
            clock,
            stats,
            presence: Arc::default(),
            logins: Arc::new(Logins::new(Arc::default(), limits, clock)),
            session: Current::new(SessionConfig {
                limits: limits.clone(),
                epoch,
                store: "51a51a51".to_owned(),
                heart_beat_ms_min: 100,
                heart_beat_margin_percent: 200,
                dialect: Dialect::default(),
            }),
            receiving: Budget::new(limits.receiving_bytes_max),
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let looks = Task::new(show_headers(Arc::clone(&shared)));
        Ok(Self {
            shared,
            looks,
            disk,
            clock,
            commit: Commit::Idle,
            next_session: 1,
            next_tick_ms: TICK_MS,
            relocation: None,
            plant,
        })
    }

    /// A client connects: the connection's task, and the session it will be.
    pub(super) fn accept(&mut self, wire: &Rc<RefCell<Wire>>) -> (Task, SessionNo) {
        let session = SessionNo(self.next_session);
        self.next_session += 1;
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let doorstep = Doorstep {
            session: self.shared.session.get(),
            methods: Methods::default(),
            listener: "sim".into(),
        };
        let mut task = Task::new(drive(
            Arc::clone(&self.shared),
            Arc::new(doorstep),
            Wire::socket(wire),
            peer,
        ));
        // Sessions are numbered by their first turns.
        let ended = task.turn();
        assert!(!ended, "a connection waits for its first bytes");
        (task, session)
    }

    /// Whether the core still has a session.
    pub(super) fn is_live(&self, session: SessionNo) -> bool {
        self.shared.core.preview(&Act::Disconnect { session }).is_ok()
    }

    /// The committer's next step. True if there was one.
    pub(super) fn step_commit(&mut self) -> Result<bool, Failed> {
        let core = &self.shared.core;
        self.commit = match std::mem::replace(&mut self.commit, Commit::Idle) {
            Commit::Idle => match core.wait_batch(Duration::ZERO) {
                Wait::Batch(batch, _) => {
                    self.shared.bodies.put(&batch.chunks);
                    Commit::Taken(batch)
                }
                Wait::Idle | Wait::Over => return Ok(false),
            },
            Commit::Taken(batch) => {
                let size = self.disk.append(&batch).map_err(|_| Failed)?;
                Commit::Appended(batch.seq, size)
            }
            Commit::Appended(seq, size) => {
                let early = self.plant == Some(Plant::ReceiptBeforeFlush);
                if !early {
                    self.disk.flush().map_err(|_| Failed)?;
                }
                core.handle_durable(seq, size, Vec::new());
                if early { Commit::Told } else { Commit::Idle }
            }
            Commit::Told => {
                self.disk.flush().map_err(|_| Failed)?;
                Commit::Idle
            }
        };
        Ok(true)
    }

    /// Whether a batch is between being taken and being durable.
    pub(super) fn is_committing(&self) -> bool {
        !matches!(self.commit, Commit::Idle)
    }

    /// Does what is done each second, and what that began. True if anything was done.
    pub(super) fn step_tick(&mut self) -> bool {
        let now = self.clock.now();
        let due = now.mono_ms >= self.next_tick_ms;
        if due {
            self.next_tick_ms = now.mono_ms + TICK_MS;
            self.shared.core.handle_tick();
            if self.relocation.is_none() {
                let shared = Arc::clone(&self.shared);
                self.relocation = Some(Task::new(async move { relocate(&shared).await }));
            }
        }
        let ready = self.relocation.as_ref().is_some_and(Task::is_ready);
        if ready && self.relocation.as_mut().is_some_and(Task::turn) {
            self.relocation = None;
        }
        let looks = self.looks.is_ready();
        if looks {
            self.looks.turn();
        }
        due || ready || looks
    }

    /// Rests, leases and expiry: the timer's turn.
    pub(super) fn step_due(&self) {
        self.shared.core.handle_due();
    }

    /// Every connection is told to go.
    pub(super) fn begin_stop(&self) {
        self.shared.core.handle_stopping();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.core.wake_all();
    }

    /// Connections are closed as they are.
    pub(super) fn close_all(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.core.wake_all();
    }

    /// The end of a clean stop, every connection being gone.
    pub(super) fn finish_stop(&mut self) -> Result<(), Failed> {
        self.relocation = None;
        self.shared.core.handle_stop();
        while self.step_commit()? {}
        Ok(())
    }
}
