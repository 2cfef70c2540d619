//! Logins: by whom they are judged, when, and how many at a time.
//!
//! ```text
//!   waits, if its address has failed too often     waits for one of few permits     verified on a blocking thread
//!  ------------------------------------------> --------------------------------> -----------------------------> judged
//!            ^                                           | the address has failed meanwhile
//!            +-------------------------------------------+
//! ```
//! What costs little (certificates, peers, tokens) is judged at once, where the connection is.
//!
//! # Invariants
//! - Neither a worker nor the porch hashes a password, and no more are hashed at a time than there are permits.
//! - A login that is slowed, or waits for a permit, has no more time than any other login.
//! - A session never acts for longer on an old reading than until its next turn.
//!
//! # Locks
//! Two, of this module alone, each held for memory work only.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::sleep_until;

use crate::auth::{AuthError, Authority, Grant, Reason, Slowing, Source, is_name};
use crate::base::{Identity, Limits, Login, Method, Methods};
use crate::session::SessionConfig;

use super::clock::Clock;
use super::presence::Peer;

/// How far a thread that verifies passwords stands back.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// See the module's text.
pub(crate) struct Logins {
    current: Mutex<Reading>,
    /// The number of `current`, for looking at without the lock.
    number: AtomicU64,
    slowing: Mutex<Slowing>,
    permits: Arc<Semaphore>,
    clock: Clock,
}

/// One reading of users and keys.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) number: u64,
    pub(crate) authority: Arc<Authority>,
}

/// Where a connection came in, and what holds there.
#[derive(Debug)]
pub(crate) struct Doorstep {
    pub(crate) session: Arc<SessionConfig>,
    /// How somebody may prove who they are.
    pub(crate) methods: Methods,
    /// The listener's address, for the log.
    pub(crate) listener: Box<str>,
}

/// What became of a login.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// The reading by which it was judged.
    pub(crate) reading: u64,
    /// The name that it said, as far as it may be logged.
    pub(crate) name: Option<Box<str>>,
    pub(crate) verdict: Result<Grant, (Option<Method>, Reason)>,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").finish_non_exhaustive()
    }
}

impl Logins {
    pub(crate) fn new(authority: Arc<Authority>, limits: &Limits, clock: Clock) -> Self {
        Self {
            current: Mutex::new(Reading { number: 0, authority }),
            number: AtomicU64::new(0),
            slowing: Mutex::new(Slowing::new(limits)),
            permits: Arc::new(Semaphore::new(limits.login_check_count_max)),
            clock,
        }
    }

    /// The number of the newest reading.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The newest reading.
    pub(crate) fn current(&self) -> Reading {
        locked(&self.current).clone()
    }

    /// Reads users and keys again. Where they cannot be used the old ones stay.
    pub(crate) fn reload(&self) -> Result<Arc<Authority>, AuthError> {
        let again = Arc::new(self.current().authority.reload()?);
        let mut current = locked(&self.current);
        current.number += 1;
        current.authority = Arc::clone(&again);
        self.number.store(current.number, Ordering::Release);
        Ok(again)
    }

    /// Judges a login.
    pub(crate) async fn judge(
        self: Arc<Self>,
        login: Login,
        doorstep: Arc<Doorstep>,
        peer: Peer,
    ) -> Judgement {
        // Who shows no passcode guesses none.
        let source = login
            .passcode
            .as_ref()
            .and_then(|_| source(peer, &login.identity));
        loop {
            if let Some(until) = self.wait_until(source) {
                sleep_until(self.clock.instant(until)).await;
                continue;
            }
            let reading = self.current();
            if !reading.authority.is_costly(&login, &doorstep.methods) {
                return self.judge_now(&reading, &login, &doorstep.methods, source);
            }
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            if self.wait_until(source).is_some() {
                continue;
            }
            let number = reading.number;
            let done = task::spawn_blocking(move || {
                yield_to_others();
                let judgement = self.judge_now(&reading, &login, &doorstep.methods, source);
                // Whoever has it next knows of this failure, also where nobody waits for the judgement any more.
                drop(permit);
                judgement
            });
            return done.await.unwrap_or_else(|error| {
                tracing::error!("a login could not be judged: {error}");
                Judgement {
                    reading: number,
                    name: None,
                    verdict: Err((None, Reason::Fault)),
                }
            });
        }
    }

    fn judge_now(
        &self,
        reading: &Reading,
        login: &Login,
        methods: &Methods,
        source: Option<Source>,
    ) -> Judgement {
        let verdict = reading.authority.judge(login, methods, self.clock.now());
        if let (Err(_), Some(source)) = (&verdict, source) {
            let at = self.clock.now().mono_ms;
            locked(&self.slowing).handle_failure(source, at);
        }
        let name = login
            .name
            .as_deref()
            .and_then(|name| std::str::from_utf8(name).ok());
        Judgement {
            reading: reading.number,
            name: name.filter(|name| is_name(name)).map(Box::from),
            verdict,
        }
    }

    fn wait_until(&self, source: Option<Source>) -> Option<u64> {
        let at = self.clock.now().mono_ms;
        source.and_then(|source| locked(&self.slowing).wait_until(source, at))
    }
}

/// Whoever is inside goes first: of a processor that others want, this thread gets about a tenth of what each of them gets.
/// The threads that block for the porch verify passwords, and nothing else.
fn yield_to_others() {
    // Linux takes 0 for the calling thread; elsewhere it would be the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("passwords are verified with the priority of everything else: {error}");
    }
}

/// Whose failures are counted together.
fn source(peer: Peer, identity: &Identity) -> Option<Source> {
    match (peer, identity) {
        (Peer::Net(address), _) => Some(Source::of(address.ip())),
        (_, Identity::Local { uid, .. }) => Some(Source::Local(*uid)),
        _ => None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in a lock's scope can leave what it guards half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
