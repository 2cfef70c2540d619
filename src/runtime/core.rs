//! The core behind its one lock, and who must be woken after an input.
//!
//! Connections and the committer call in; each call is one input (or one bundle of inputs of one connection), after
//! which every output of the core is drained: sessions with events are flagged and woken, notices are logged, and the
//! committer is told if a batch waits. Waking and logging are done after the lock is given back.
//!
//! # Invariants
//! - Nothing is awaited, read, written or logged under the lock, and no other lock is taken under it.
//! - A session that waits for a Seq is woken once that Seq is durable: whether it must wait is decided, and the wait
//!   noted, under the lock under which the committer reports.
//! - A panic under the lock ends the process: the state is no longer to be trusted.
//!
//! # Not here
//! What is due to a peer: the session keeps receipts in line; `connection` drives it.

mod admin;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::base::{ChunkRef, Limits, MessageId, Now, Seq, SessionNo, Tag};
use crate::broker::{Broker, Counters, Look, Notice};
use crate::journal::{Batch, IndexSize};
use crate::port::{Applied, Event, Requests};

use super::clock::Clock;
use super::exit;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Core {
    state: Mutex<State>,
    /// The committer waits here for a batch.
    batch_waits: Condvar,
    /// The highest Seq that is durable.
    durable: AtomicU64,
    /// Bytes that wait for a flush.
    unflushed_bytes: AtomicUsize,
    levels: Levels,
    /// Until this monotonic time, light connections are taken to wait for flushes.
    light_until: AtomicU64,
    /// Something is due earlier than the timer knows.
    due_sooner: Notify,
    /// The core may want to see headers.
    looks_wanted: Notify,
    clock: Clock,
}

/// When nothing is due.
const END_OF_TIME: Now = Now {
    wall_ms: u64::MAX,
    mono_ms: u64::MAX,
};

/// The timer looks at the clock at least so often.
const DUE_WAIT_MS_MAX: u64 = 1_000;

/// A light connection that waited for a flush is likely to do so again within this.
const LIGHT_MS: u64 = 100;

/// Unflushed bytes beyond which a socket is not read.
///
/// Whoever sends little waits behind all that is unflushed. So those who send much are the first to wait: always with
/// more under way than keeps the disk busy, and beside light ones with less than that.
#[derive(Debug, Clone, Copy)]
struct Levels {
    /// For all.
    all: usize,
    /// For heavy ones: a commit under way and another full.
    heavy: usize,
    /// For heavy ones while light ones wait.
    heavy_beside_light: usize,
}

impl Levels {
    fn new(limits: &Limits) -> Self {
        let all = limits.unflushed_bytes_max;
        Self {
            all,
            heavy: all.min(limits.commit_bytes_max.saturating_mul(2)),
            heavy_beside_light: all.min(limits.commit_bytes_max / 4),
        }
    }
}

/// What the committer is to do next.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Make this durable; when it was opened, if that is known.
    Batch(Box<Batch>, Option<Duration>),
    /// Nothing came for as long as it wanted to wait.
    Idle,
    /// End: the broker was stopped and nothing is left.
    Over,
}

#[derive(Debug)]
struct State {
    broker: Broker,
    peers: HashMap<SessionNo, Peer, foldhash::fast::FixedState>,
    next_session: u64,
    /// Sessions to be woken when a Seq is durable, ascending by Seq.
    gates: VecDeque<(Seq, SessionNo)>,
    /// Whoever else waits for a Seq to be durable: a few.
    durable_waits: Vec<DurableWait>,
    /// Sessions to be woken when less is unflushed, those first who wait longest.
    paused: Vec<SessionNo>,
    /// Kept for its memory.
    wakes: Vec<SessionNo>,
    committer_idle: bool,
    closing: bool,
    /// When the batch being filled was opened; for measuring.
    opened: Option<Duration>,
    /// What the timer waits for.
    due: Now,
}

#[derive(Debug)]
struct DurableWait {
    seq: Seq,
    waker: Waker,
}

#[derive(Debug)]
struct Peer {
    /// Missing until the connection's first turn.
    waker: Option<Waker>,
    link: Arc<Link>,
}

/// What a connection may read without the lock. Written under the lock.
#[derive(Debug, Default)]
struct Link {
    /// The core has events for this session.
    events: AtomicBool,
    /// The core ended this session.
    evicted: AtomicBool,
    /// The last Seq this session was noted to wait for.
    gate: AtomicU64,
    /// This session is in `paused`.
    paused: AtomicBool,
    /// It sends much.
    heavy: AtomicBool,
    /// Heavy or not, it may be read once.
    pass: AtomicBool,
    /// The core was told of the end.
    closed: AtomicBool,
}

/// What a connection has for the core in one step.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// The last delivery whose bytes are in the socket, if new.
    pub(crate) written: Option<Tag>,
    /// The requests of a socket read, if any.
    pub(crate) requests: Option<&'a Requests>,
    /// How many events may be handed out now.
    pub(crate) event_count_max: usize,
}

/// A session's place in the core. Dropping it closes the session, however its connection came to its end.
#[derive(Debug)]
pub(crate) struct Seat {
    core: Arc<Core>,
    session: SessionNo,
    link: Arc<Link>,
}

impl Core {
    /// The core of a broker whose batches up to `durable` are stored.
    pub(crate) fn new(broker: Broker, durable: Seq, limits: &Limits, clock: Clock) -> Self {
        Self {
            state: Mutex::new(State {
                broker,
                peers: HashMap::default(),
                next_session: 1,
                gates: VecDeque::new(),
                durable_waits: Vec::new(),
                paused: Vec::new(),
                wakes: Vec::new(),
                committer_idle: false,
                closing: false,
                opened: None,
                due: END_OF_TIME,
            }),
            batch_waits: Condvar::new(),
            durable: AtomicU64::new(durable.0),
            unflushed_bytes: AtomicUsize::new(0),
            levels: Levels::new(limits),
            light_until: AtomicU64::new(0),
            due_sooner: Notify::new(),
            looks_wanted: Notify::new(),
            clock,
        }
    }

    /// The highest Seq that is durable.
    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    /// Opens a session.
    pub(crate) fn open(self: &Arc<Self>) -> Seat {
        let link = Arc::new(Link::default());
        let mut state = self.lock();
        let session = SessionNo(state.next_session);
        state.next_session += 1;
        state.broker.handle_open(session);
        state.peers.insert(
            session,
            Peer {
                waker: None,
                link: Arc::clone(&link),
            },
        );
        self.finish(state, None, Vec::new());
        Seat {
            core: Arc::clone(self),
            session,
            link,
        }
    }

    /// The disk has room, or not.
    pub(crate) fn handle_room(&self, room: bool) {
        let mut state = self.lock();
        state.broker.handle_room(room);
        self.finish(state, None, Vec::new());
    }

    /// For how long the committer has left a batch where it is, if there is one.
    pub(crate) fn committer_waits(&self) -> Option<Duration> {
        let opened = self.lock().opened?;
        Some(self.clock.elapsed().saturating_sub(opened))
    }

    /// What holds from now on.
    pub(crate) fn handle_limits(&self, limits: Limits) {
        self.lock().broker.handle_limits(limits);
    }

    /// Does what time demands.
    pub(crate) fn handle_tick(&self) {
        let (mut state, now) = self.lock_now();
        state.broker.handle_tick(now);
        self.finish(state, None, Vec::new());
    }

    /// Returns when something may be due. For the timer.
    pub(crate) async fn wait_due(&self) {
        let due = self.lock().due;
        let now = self.clock.now();
        let wait_ms = (due.wall_ms.saturating_sub(now.wall_ms)).min(due.mono_ms.saturating_sub(now.mono_ms));
        // Wall clocks jump: not for long.
        let wait = Duration::from_millis(wait_ms.clamp(1, DUE_WAIT_MS_MAX));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.due_sooner.notified() => {}
        }
    }

    /// Does what is due.
    pub(crate) fn handle_due(&self) {
        let (mut state, now) = self.lock_now();
        let due = state.broker.next_due();
        if due.wall_ms <= now.wall_ms || due.mono_ms <= now.mono_ms {
            state.broker.handle_due(now);
            self.finish(state, None, Vec::new());
        }
    }

    /// Bytes of the store's file that the core holds something in.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lock().broker.ledger().held_bytes()
    }

    /// Chunks that the core wants to see, to move what is live out of them: up to `count_max`.
    pub(crate) fn poll_relocations(&self, count_max: usize) -> Vec<ChunkRef> {
        let mut state = self.lock();
        std::iter::from_fn(|| state.broker.poll_relocation())
            .take(count_max)
            .collect()
    }

    /// One of them, read.
    pub(crate) fn handle_relocated(&self, chunk: ChunkRef, payload: &[u8]) {
        let mut state = self.lock();
        state.broker.handle_relocated(chunk, payload);
        self.finish(state, None, Vec::new());
    }

    /// Waits for entries whose headers the core wants to see.
    pub(crate) async fn wait_looks(&self) -> Vec<Look> {
        loop {
            let wanted = self.looks_wanted.notified();
            let looks = self.poll_looks();
            if !looks.is_empty() {
                return looks;
            }
            wanted.await;
        }
    }

    fn poll_looks(&self) -> Vec<Look> {
        let (mut state, now) = self.lock_now();
        let looks = state.broker.poll_looks(now);
        self.finish(state, None, Vec::new());
        looks
    }

    /// What was asked for.
    pub(crate) fn handle_looked(&self, looked: &[(Look, Option<Bytes>)]) {
        let (mut state, now) = self.lock_now();
        state.broker.handle_looked(looked, now);
        self.finish(state, None, Vec::new());
    }

    /// A clean stop begins.
    pub(crate) fn handle_stopping(&self) {
        self.lock().broker.handle_stopping();
    }

    /// A clean stop, every session being closed: the committer writes what is left and ends. Gives back how many
    /// transient messages go with it.
    pub(crate) fn handle_stop(&self) -> u64 {
        let (mut state, now) = self.lock_now();
        let transient_count = state.broker.handle_stop(now);
        state.closing = true;
        self.batch_waits.notify_one();
        self.finish(state, None, Vec::new());
        transient_count
    }

    /// Counters since start.
    pub(crate) fn counters(&self) -> Counters {
        self.lock().broker.counters()
    }

    /// Waits for the next batch. For the committer.
    pub(crate) fn wait_batch(&self, patience: Duration) -> Wait {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.broker.poll_batch() {
                let opened = state.opened;
                // What the batch had no room for was opened hardly later.
                state.opened = opened.filter(|_| state.broker.has_batch());
                return Wait::Batch(Box::new(batch), opened);
            }
            if state.closing {
                return Wait::Over;
            }
            state.committer_idle = true;
            let Ok((again, waited)) = self.batch_waits.wait_timeout(state, patience) else {
                exit::after_bug();
            };
            state = again;
            state.committer_idle = false;
            if waited.timed_out() && !state.broker.has_batch() {
                return Wait::Idle;
            }
        }
    }

    /// A batch is durable: what waited for it may leave. `wakers` is empty and is kept for its memory.
    pub(crate) fn handle_durable(&self, seq: Seq, size: IndexSize, wakers: Vec<Waker>) -> Vec<Waker> {
        self.durable.store(seq.0, Ordering::Release);
        let (mut state, now) = self.lock_now();
        state.broker.handle_durable(seq, &[size], now);
        let State {
            broker,
            gates,
            peers,
            paused,
            durable_waits,
            ..
        } = &mut *state;
        let mut wakers = wakers;
        wakers.extend(
            durable_waits
                .extract_if(.., |wait| wait.seq <= seq)
                .map(|wait| wait.waker),
        );
        while let Some(&(gate, session)) = gates.front()
            && gate <= seq
        {
            gates.pop_front();
            wakers.extend(peers.get(&session).and_then(|peer| peer.waker.clone()));
        }
        let unflushed_bytes = broker.unflushed_bytes();
        // One that is heavy may be read after each flush, however much light ones send: nobody starves.
        let mut passes = usize::from(unflushed_bytes <= self.levels.all);
        paused.retain(|session| {
            let Some(peer) = peers.get(session) else {
                return false;
            };
            let link = &peer.link;
            if unflushed_bytes > self.level(link.heavy.load(Ordering::Relaxed), now) {
                if passes == 0 {
                    return true;
                }
                passes -= 1;
                link.pass.store(true, Ordering::Relaxed);
            }
            link.paused.store(false, Ordering::Relaxed);
            wakers.extend(peer.waker.clone());
            false
        });
        self.finish(state, None, wakers)
    }

    /// Wakes every connection, to look at what it shares with all others.
    pub(crate) fn wake_all(&self) {
        let state = self.lock();
        let wakers: Vec<Waker> = state
            .peers
            .values()
            .filter_map(|peer| peer.waker.clone())
            .collect();
        self.finish(state, None, wakers);
    }

    /// The bytes that may be unflushed while such a connection is read.
    fn level(&self, heavy: bool, now: Now) -> usize {
        match heavy {
            false => self.levels.all,
            true if now.mono_ms < self.light_until.load(Ordering::Relaxed) => self.levels.heavy_beside_light,
            true => self.levels.heavy,
        }
    }

    /// Drains the outputs of the core, gives the lock back, then wakes and logs. Gives `wakers` back, empty.
    fn finish(
        &self,
        mut state: MutexGuard<'_, State>,
        own: Option<SessionNo>,
        mut wakers: Vec<Waker>,
    ) -> Vec<Waker> {
        let State {
            broker, peers, wakes, ..
        } = &mut *state;
        broker.poll_wakes(wakes);
        for session in wakes.drain(..) {
            let Some(peer) = peers.get(&session) else {
                continue;
            };
            peer.link.events.store(true, Ordering::Release);
            peer.link
                .evicted
                .store(broker.is_evicted(session), Ordering::Release);
            // The session whose turn this is looks at its flag before the turn ends.
            if own != Some(session) {
                wakers.extend(peer.waker.clone());
            }
        }
        let mut notices = Vec::new();
        while let Some(notice) = broker.poll_notice() {
            notices.push(notice);
        }
        self.unflushed_bytes
            .store(broker.unflushed_bytes(), Ordering::Release);
        if state.opened.is_none() && state.broker.has_batch() {
            state.opened = Some(self.clock.elapsed());
        }
        if state.committer_idle && state.broker.has_batch() {
            state.committer_idle = false;
            self.batch_waits.notify_one();
        }
        let due = state.broker.next_due();
        let sooner = due.wall_ms < state.due.wall_ms || due.mono_ms < state.due.mono_ms;
        state.due = due;
        let looks = state.broker.wants_looks();
        drop(state);
        if looks {
            self.looks_wanted.notify_one();
        }
        if sooner {
            self.due_sooner.notify_one();
        }
        for waker in wakers.drain(..) {
            waker.wake();
        }
        for notice in notices {
            log(&notice);
        }
        wakers
    }

    /// The lock, and the time at which it was got: what an input does is never dated before one that came earlier.
    fn lock_now(&self) -> (MutexGuard<'_, State>, Now) {
        let state = self.lock();
        (state, self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        match self.state.lock() {
            Ok(state) => state,
            Err(_) => exit::after_bug(),
        }
    }
}

impl Seat {
    /// Which session.
    pub(crate) fn session(&self) -> SessionNo {
        self.session
    }

    /// Whom to wake.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let mut state = self.core.lock();
        if let Some(peer) = state.peers.get_mut(&self.session) {
            peer.waker = Some(waker);
        }
    }

    /// Whether the core has events for this session.
    pub(crate) fn has_events(&self) -> bool {
        self.link.events.load(Ordering::Acquire)
    }

    /// Whether the core ended this session; its last event says why.
    pub(crate) fn is_evicted(&self) -> bool {
        self.link.evicted.load(Ordering::Acquire)
    }

    /// Whether reading must wait for a flush, for a connection that sends much, or does not. If so, this session is woken
    /// when it may go on.
    pub(crate) fn is_paused(&self, heavy: bool, now: Now) -> bool {
        let is_over = || self.core.unflushed_bytes.load(Ordering::Acquire) > self.core.level(heavy, now);
        if !is_over() {
            return false;
        }
        let mut state = self.core.lock();
        if self.core.unflushed_bytes.load(Ordering::Acquire) <= self.core.levels.all
            && self.link.pass.swap(false, Ordering::Relaxed)
        {
            return false;
        }
        self.link.heavy.store(heavy, Ordering::Relaxed);
        // Looked at again under the lock under which the committer wakes: no wake is lost.
        let paused = is_over();
        if paused && !self.link.paused.swap(true, Ordering::Relaxed) {
            state.paused.push(self.session);
        }
        paused
    }

    /// A light connection waits for a flush.
    pub(crate) fn note_light(&self, now: Now) {
        self.core
            .light_until
            .store(now.mono_ms + LIGHT_MS, Ordering::Relaxed);
    }

    /// One call for everything a turn has for the core. Events are appended to `events`.
    pub(crate) fn step(&self, step: &Step<'_>, events: &mut Vec<Event>) -> Option<Applied> {
        let session = self.session;
        let (mut state, now) = self.core.lock_now();
        let State { broker, gates, .. } = &mut *state;
        if let Some(tag) = step.written {
            broker.handle_written(session, tag, now);
        }
        let applied = step
            .requests
            .map(|requests| broker.handle_requests(session, requests, now));
        if let Some(gate) = applied.as_ref().map(|applied| applied.gate)
            && gate > self.core.durable()
            && self.link.gate.swap(gate.0, Ordering::Relaxed) != gate.0
        {
            gates.push_back((gate, session));
        }
        if step.event_count_max > 0 {
            broker.poll_events(session, step.event_count_max, events);
        }
        let more = broker.has_events(session);
        self.link.events.store(more, Ordering::Release);
        self.core.finish(state, Some(session), Vec::new());
        applied
    }

    /// The bytes of a delivery cannot be read; to be told before anything behind it counts as written. Gives what was set
    /// aside: queue, sequence, message.
    pub(crate) fn set_aside(&self, tag: Tag) -> Option<(Arc<str>, u64, MessageId)> {
        let (mut state, now) = self.core.lock_now();
        let set_aside = state.broker.handle_unreadable(self.session, tag, now);
        self.core.finish(state, None, Vec::new());
        set_aside
    }

    /// Ends the session in the core: what it holds is released. It is still woken for what it waits for.
    pub(crate) fn close(&self) {
        if self.link.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (mut state, now) = self.core.lock_now();
        state.broker.handle_close(self.session, now);
        self.core.finish(state, Some(self.session), Vec::new());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
        self.core.lock().peers.remove(&self.session);
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::DeadLettered {
            queue,
            target,
            message,
            failures,
        } => tracing::warn!(%queue, %target, message = message.0, failures, "message dead-lettered"),
        Notice::Stuck { session, sub, queue } => {
            tracing::warn!(session = session.0, subscription = sub.0, %queue, "subscription stuck: it holds its limit and settles nothing");
        }
        Notice::Denied {
            session,
            principal,
            action,
            destination,
            line,
        } => {
            let user = principal.name.as_deref().unwrap_or("anonymous");
            let rule_line = *line;
            tracing::warn!(target: "audit", session = session.0, user, action = action.name(), destination = %destination.escape_debug(), rule_line, "access denied");
        }
        Notice::DedupFull { id_count } => {
            tracing::warn!(
                id_count,
                "deduplication ids are forgotten before their window is over: dedup_bytes_max is reached"
            );
        }
        Notice::OccurrenceWaits { queue } => {
            tracing::warn!(%queue, "an occurrence of a schedule waits for room: of its queue, on the disk or in memory");
        }
        Notice::SlowSubscriber {
            session,
            sub,
            topic,
            dropped_count,
        } => {
            tracing::warn!(session = session.0, subscription = sub.0, %topic, dropped_count, "subscription too slow for its topic");
        }
    }
}

#[cfg(test)]
mod tests;
