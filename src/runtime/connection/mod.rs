//! The driver of one connection: its socket, its session, its seat in the core.
//!
//! One task, one future without inner waiting: each poll is a *turn* of a few *rounds*. A round reads once, hands
//! requests to the core in one call, appends what may leave, and writes once. A turn ends when nothing moves any more,
//! or after a number of rounds or requests, for the sake of others. The task is woken by its socket, its timer, its reader, and by
//! the core: for a Seq that became durable, for events, for the end of a backlog.
//!
//! ```text
//!            the session ends, or the peer      all that is due is in the socket
//!   Open -----------------------------> Closing -------------------------------> Lingering --> (closed)
//!     |                                    |   the peer had closed, or time is up                  ^
//!     +------------------------------------+-------------------------------------------------------+
//!       the socket fails, unread output
//! ```
//!
//! A connection begins as a newcomer, on the thread of those (`porch`), and moves once, to the workers: when it has logged in and
//! has been there for a while, or has had some requests done. One that ends before never costs the workers anything.
//!
//! # Invariants
//! - What stands in line goes before deliveries. The core gives a subscription nothing before the RECEIPT of its
//!   SUBSCRIBE may leave; so that RECEIPT precedes its first MESSAGE.
//! - Nothing but its own rest is appended after the beginning of a frame.
//! - Reading stops only for what ends without this peer's help (the flush of a backlog, other connections' bodies,
//!   which are watched) and for receipts that this peer does not read.
//! - Idle, a connection holds no buffer: input and output are memory of the thread, borrowed for a turn.
//!
//! # Not here
//! The protocol (`session`), and what is owed to whom (`broker`).

mod deliveries;
mod intake;
mod login;
mod output;
mod reservation;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
#[cfg(feature = "sim")]
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::auth::Grant;
use crate::base::{Identity, Now, Tag};
use crate::port::{Event, Refusal};
use crate::session::{EndReason, Phase, Session};

use self::deliveries::{Deliveries, Fault};
use self::intake::Intake;
use self::output::Output;
use self::reservation::Reservation;
use super::bodies::Bodies;
use super::clock::Clock;
use super::core::{Core, Seat, Step};
use super::current::Current;
use super::exit;
use super::logins::{Doorstep, Judgement, Logins, Reading};
use super::presence::{Attendance, Peer, Presence};
use super::stats::Stats;

pub(crate) use self::reservation::Budget;

/// Bytes asked of the socket at a time: about 60 messages of 1 KiB.
const READ_BYTES: usize = 64 * 1024;

/// Rounds of one turn, and requests after which none follows: whoever asks for much waits for the others in between.
const ROUND_COUNT_MAX: usize = 8;
const TURN_REQUEST_COUNT_MAX: usize = 512;

/// A connection is a newcomer until it has been there for so long, or has had as many requests done.
const NEWCOMER_MS: u64 = 1_000;
const NEWCOMER_REQUEST_COUNT: usize = 64;

/// A deadline of the session that is seen later than this is looked at again after as long.
const LATE_MS: u64 = 5;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<Stats>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) logins: Arc<Logins>,
    pub(crate) session: Current,
    pub(crate) receiving: Budget,
    /// Sessions are to be told that the broker stops.
    pub(crate) stopping: AtomicBool,
    /// Connections are to be closed as they are.
    pub(crate) closing: AtomicBool,
}

/// Memory of a thread, borrowed by whichever connection has its turn.
#[derive(Default)]
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
    events: Vec<Event>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// See the module's text.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    stream: S,
    seat: Seat,
    attendance: Attendance,
    session: Session,
    doorstep: Arc<Doorstep>,
    /// Its login is judged.
    is_asked: bool,
    judging: Option<Judging>,
    /// What the judgement was, if it was a good one.
    grant: Option<Grant>,
    /// The reading of users and keys that it is in by.
    reading: u64,
    life: Life,
    waker: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The monotonic time for which `timer` is set.
    timer_at: u64,
    /// Input that the session has not taken.
    rest: Vec<u8>,
    /// `rest` may hold more than the beginning of a frame: reading was stopped before the session was done with it.
    rest_unread: bool,
    /// The peer was not read from, for a reason that is not its own.
    unread: bool,
    /// The peer closed its side.
    input_ended: bool,
    reservation: Reservation,
    deliveries: Deliveries,
    output: Output,
    intake: Intake,
    /// Requests handed to the core in this turn.
    asked_count: usize,
    /// Requests that make it more than a newcomer, and when it is so without them.
    probation_count: usize,
    probation_until: u64,
    /// The last delivery in the socket that the core does not know of.
    written: Option<Tag>,
    /// Since when the socket takes no output.
    stalled_at: Option<u64>,
    /// When a deadline of the session that was seen late is looked at again.
    second_look_at: Option<u64>,
    stop_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// No input is taken; what is due leaves, until the deadline.
    Closing {
        deadline: Option<u64>,
    },
    /// Our side is closed; the peer's input is thrown away until it closes too, or until the deadline. Closing at
    /// once would reset the connection where input is unread, and the peer could lose our last frame.
    Lingering {
        deadline: u64,
    },
}

/// Why a connection was closed.
#[derive(Debug)]
pub(crate) enum CloseReason {
    /// The session ended.
    Ended(EndReason),
    /// The peer closed without DISCONNECT.
    Lost,
    /// The socket failed.
    Failed(io::Error),
    /// The peer did not read what is due to it.
    Unread,
    /// A frame could not be finished.
    Torn,
    /// The broker stopped.
    Stopped,
}

/// A login being judged.
type Judging = Pin<Box<dyn Future<Output = Judgement> + Send>>;

/// What a round did.
enum Round {
    /// Something moved: look again.
    Moved,
    /// Everything waits, and whoever can end the wait wakes this task.
    Idle,
}

type Rounded = Result<Round, CloseReason>;

/// Runs a connection to its end.
#[cfg(feature = "sim")]
pub(crate) async fn drive<S>(shared: Arc<Shared>, doorstep: Arc<Doorstep>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = shared.clock.now();
    let from = (peer.into(), Identity::Unknown);
    if let Some(resident) = welcome(shared, doorstep, stream, from, accepted).await {
        resident.serve().await;
    }
}

/// Runs a connection while it is a newcomer. Nothing if it ended as one. The time to log in began when it was accepted.
pub(crate) async fn welcome<S>(
    shared: Arc<Shared>,
    doorstep: Arc<Doorstep>,
    stream: S,
    (peer, identity): (Peer, Identity),
    accepted: Now,
) -> Option<Resident<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Box::new(Connection::new(
        shared,
        doorstep,
        stream,
        (peer, identity),
        accepted,
    ));
    let session = connection.seat.session().0;
    match connection.session.identity() {
        Identity::Certificate { login } => {
            let login = login.as_deref().unwrap_or_default();
            tracing::info!(session, %peer, certificate = login, "connection opened");
        }
        _ => tracing::info!(session, %peer, "connection opened"),
    }
    let reason = poll_fn(|cx| {
        let turn = connection.borrowed_turn(cx);
        // Others of this process may wait for the processor, and the system would let them for milliseconds.
        std::thread::yield_now();
        match turn {
            Poll::Ready(reason) => Poll::Ready(Some(reason)),
            Poll::Pending if connection.is_newcomer() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        }
    })
    .await;
    let resident = Resident { connection, peer };
    match reason {
        Some(reason) => {
            resident.end(&reason);
            None
        }
        None => Some(resident),
    }
}

/// A connection that is no newcomer any more.
pub(crate) struct Resident<S> {
    connection: Box<Connection<S>>,
    peer: Peer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Resident<S> {
    /// Gives it a stream and timers of the runtime that it is to be served by. Nothing if that fails: it has ended then.
    pub(crate) fn rehome(self, rehomed: impl FnOnce(S) -> io::Result<S>) -> Option<Self> {
        let Self { connection, peer } = self;
        let session = connection.seat.session().0;
        let shared = Arc::clone(&connection.shared);
        let connection = *connection;
        match rehomed(connection.stream) {
            Ok(stream) => Some(Self {
                connection: Box::new(Connection {
                    stream,
                    timer: None,
                    timer_at: u64::MAX,
                    ..connection
                }),
                peer,
            }),
            Err(error) => {
                end(&shared.stats, session, peer, &CloseReason::Failed(error));
                None
            }
        }
    }

    /// Runs it to its end.
    pub(crate) async fn serve(mut self) {
        let reason = poll_fn(|cx| self.connection.borrowed_turn(cx)).await;
        self.end(&reason);
    }

    fn end(self, reason: &CloseReason) {
        let Self { connection, peer } = self;
        let session = connection.seat.session().0;
        end(&connection.shared.stats, session, peer, reason);
    }
}

fn end(stats: &Stats, session: u64, peer: Peer, reason: &CloseReason) {
    reason.count(stats);
    tracing::info!(session, %peer, reason = %reason, "connection closed");
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(
        shared: Arc<Shared>,
        doorstep: Arc<Doorstep>,
        stream: S,
        (peer, identity): (Peer, Identity),
        accepted: Now,
    ) -> Self {
        let now = shared.clock.now();
        let seat = shared.core.open();
        let attendance = shared.presence.enter(seat.session(), peer, now.wall_ms);
        let Reading { number, authority } = shared.logins.current();
        let session = Session::new(Arc::clone(&doorstep.session), seat.session(), accepted);
        let session = session.identified(identity);
        let is_asked = !authority.asks_nobody(&doorstep.methods);
        let session = if is_asked { session.judged() } else { session };
        Self {
            doorstep,
            is_asked,
            judging: None,
            grant: None,
            reading: number,
            shared,
            stream,
            seat,
            attendance,
            session,
            life: Life::Open,
            waker: None,
            timer: None,
            timer_at: u64::MAX,
            rest: Vec::new(),
            rest_unread: false,
            unread: false,
            input_ended: false,
            reservation: Reservation::default(),
            deliveries: Deliveries::default(),
            output: Output::default(),
            intake: Intake::default(),
            asked_count: 0,
            probation_count: NEWCOMER_REQUEST_COUNT,
            probation_until: now.mono_ms.saturating_add(NEWCOMER_MS),
            written: None,
            stalled_at: None,
            second_look_at: None,
            stop_told: false,
        }
    }

    /// A turn with memory of this thread.
    fn borrowed_turn(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        SCRATCH.with_borrow_mut(|scratch| {
            self.borrow(scratch);
            let turn = self.turn(cx, &mut scratch.input);
            self.give_back(scratch);
            turn
        })
    }

    /// Who has not logged in, or is on the way out, is none of those who go first.
    fn is_newcomer(&self) -> bool {
        self.life != Life::Open
            || self.session.version().is_none()
            || self.is_on_probation(self.shared.clock.now())
    }

    fn is_on_probation(&self, now: Now) -> bool {
        self.probation_count > 0 && now.mono_ms < self.probation_until
    }

    fn turn(&mut self, cx: &mut Context<'_>, input: &mut Vec<u8>) -> Poll<CloseReason> {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
            self.seat.set_waker(cx.waker().clone());
        }
        self.asked_count = 0;
        for _ in 0..ROUND_COUNT_MAX {
            match self.round(cx, input) {
                Err(reason) => return Poll::Ready(reason),
                Ok(Round::Moved) if self.asked_count >= TURN_REQUEST_COUNT_MAX => break,
                Ok(Round::Moved) => {}
                Ok(Round::Idle) => {
                    self.set_timer(cx);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn round(&mut self, cx: &mut Context<'_>, input: &mut Vec<u8>) -> Rounded {
        let now = self.shared.clock.now();
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(CloseReason::Stopped);
        }
        if self.life == Life::Open && !self.stop_told && self.shared.stopping.load(Ordering::Acquire) {
            self.stop_told = true;
            self.session.handle_evicted(Refusal::ShuttingDown, now);
        }
        if self.reading != self.shared.logins.number() {
            self.ask_again();
        }
        self.watch_time(now)?;
        let mut moved = match self.life {
            Life::Open => self.read(cx, input, now)?,
            Life::Closing { .. } => false,
            Life::Lingering { .. } => return self.linger(cx, input),
        };
        if self.is_asked && self.grant.is_none() {
            moved |= self.judge(cx, now);
        }
        self.watch_session(now);
        moved |= self.exchange();
        self.fill(cx, now)?;
        moved |= self.write(cx, now)?;
        moved |= self.close_by_steps(cx, now)?;
        Ok(if moved { Round::Moved } else { Round::Idle })
    }

    /// Reads once and hands what came to the session. True if anything came.
    fn read(&mut self, cx: &mut Context<'_>, input: &mut Vec<u8>, now: Now) -> Result<bool, CloseReason> {
        if !self.session.wants_input() {
            return Ok(false);
        }
        if self.is_paused(now) || self.reservation.poll_room(cx).is_pending() {
            self.unread = true;
            return Ok(false);
        }
        if std::mem::take(&mut self.unread) {
            self.session.handle_unread(now);
        }
        if self.rest_unread {
            let rest = std::mem::take(&mut self.rest);
            let taken = self.feed(&rest);
            self.rest = rest;
            self.rest.drain(..taken);
            return Ok(taken > 0 || !self.rest_unread);
        }
        if self.input_ended {
            return Ok(false);
        }
        let kept = self.rest.len();
        if kept > READ_BYTES {
            // A frame far larger than a read, which the session wants whole: it grows where it is.
            let mut rest = std::mem::take(&mut self.rest);
            match self.session.body_bytes_announced() {
                0 => {}
                announced => rest.reserve_exact(announced + READ_BYTES),
            }
            let read = self.read_after(kept, &mut rest, cx);
            let taken = match read {
                Ok(count) if count > 0 => self.feed(rest.get(..kept + count).unwrap_or_default()),
                _ => 0,
            };
            rest.truncate(kept + read.as_ref().copied().unwrap_or(0));
            rest.drain(..taken);
            self.rest = rest;
            return Ok(read? > 0);
        }
        let count = self.read_after(kept, input, cx)?;
        if count == 0 {
            return Ok(self.input_ended);
        }
        let (front, _) = input.split_at_mut(kept);
        front.copy_from_slice(&self.rest);
        let bytes = input.get(..kept + count).unwrap_or_default();
        let taken = self.feed(bytes);
        self.rest.clear();
        self.rest
            .extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(true)
    }

    /// Reads into `input` behind its first `kept` bytes. 0 where nothing came; notes the peer's end of input.
    fn read_after(
        &mut self,
        kept: usize,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<usize, CloseReason> {
        if input.len() < kept + READ_BYTES {
            input.resize(kept + READ_BYTES, 0);
        }
        let room = input.get_mut(kept..kept + READ_BYTES).unwrap_or_default();
        let mut buffer = ReadBuf::new(room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.input_ended = count == 0;
                self.shared.stats.in_bytes.add(count as u64);
                self.attendance.present.in_bytes.add(count as u64);
                Ok(count)
            }
            Poll::Ready(Err(error)) => Err(CloseReason::Failed(error)),
        }
    }

    fn is_paused(&mut self, now: Now) -> bool {
        let heavy = self.intake.is_heavy(now);
        self.seat.is_paused(heavy, now)
    }

    /// Hands bytes to the session, and its requests to the core, until it takes no more of them. Returns how many
    /// bytes are done with. To be called only while reading need not wait.
    fn feed(&mut self, bytes: &[u8]) -> usize {
        // Read behind the bytes: what a client asks to wait for must not begin before it asked.
        let now = self.shared.clock.now();
        let mut taken = 0;
        loop {
            let count = self
                .session
                .handle_bytes(bytes.get(taken..).unwrap_or_default(), now);
            taken += count;
            self.intake.note(count, now);
            self.attendance.present.note_version(|| self.session.version());
            while let Some((header, why)) = self.session.poll_notice() {
                let session = self.seat.session().0;
                tracing::info!(session, header, why, "header without effect");
            }
            let announced = self.session.body_bytes_announced();
            self.reservation.follow(count, announced, &self.shared.receiving);
            let asked = self.ask(now);
            if taken == bytes.len() || (count == 0 && !asked) {
                self.rest_unread = false;
                return taken;
            }
            let had_its_turn = self.asked_count >= TURN_REQUEST_COUNT_MAX;
            if had_its_turn || !self.session.wants_input() || self.is_paused(now) {
                self.rest_unread = true;
                return taken;
            }
        }
    }

    /// Hands the session's requests to the core, if there are any.
    fn ask(&mut self, now: Now) -> bool {
        let event_count_max = self.event_count_max();
        let requests = self.session.requests();
        if requests.list.is_empty() {
            return false;
        }
        let applied = self.seat.step(
            &Step {
                written: self.written.take(),
                requests: Some(requests),
                event_count_max,
            },
            &mut self.deliveries.events,
        );
        if let Some(applied) = applied {
            self.shared.stats.request_count.add(applied.done as u64);
            self.asked_count += applied.done;
            self.probation_count = self.probation_count.saturating_sub(applied.done);
            self.session.handle_applied(applied, now);
            let waits = self
                .session
                .poll_gate()
                .is_some_and(|gate| gate > self.shared.core.durable());
            if waits && !self.intake.is_heavy(now) && !self.is_on_probation(now) {
                self.seat.note_light(now);
            }
        }
        true
    }

    /// How many events are to be taken from the core. That it ended the session is heard of whatever the peer reads.
    fn event_count_max(&self) -> usize {
        if self.seat.is_evicted() {
            usize::MAX
        } else {
            self.deliveries.event_count_max(&self.output)
        }
    }

    /// Tells the core what was written and takes events, if there is either. True if events came.
    fn exchange(&mut self) -> bool {
        if self.life != Life::Open {
            return false;
        }
        let event_count_max = self.event_count_max();
        let events_wait = self.seat.has_events() && event_count_max > 0;
        if self.written.is_none() && !events_wait {
            return false;
        }
        self.seat.step(
            &Step {
                written: self.written.take(),
                requests: None,
                event_count_max,
            },
            &mut self.deliveries.events,
        );
        // What was written may bring new events: look at the flag again.
        true
    }

    /// Appends what may leave: receipts first, then deliveries.
    fn fill(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), CloseReason> {
        loop {
            let mid_frame = self.deliveries.is_mid_frame();
            if !mid_frame && !self.output.is_high() {
                let durable = self.shared.core.durable();
                self.session.poll_output(durable, &mut self.output.bytes);
            }
            if let Some(refusal) = self.deliveries.poll_evicted() {
                self.session.handle_evicted(refusal, now);
            }
            // What an ended session would skip must not count as written: it is released when the seat is closed. And behind
            // the rest of a frame that was begun comes what waits in line, the RECEIPT of the next one's SUBSCRIBE perhaps.
            let held = mid_frame || self.life != Life::Open || self.session.phase() != Phase::Open;
            let filled =
                self.deliveries
                    .fill(held, &mut self.session, &mut self.output, &self.shared.bodies, cx);
            let fault = match filled {
                Ok(()) if mid_frame && !self.deliveries.is_mid_frame() => continue,
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            self.set_aside(&fault);
            if fault.torn {
                return Err(CloseReason::Torn);
            }
            // Behind what was told to the core: what it holds no more is not settled by being written.
            self.deliveries.skip();
            self.output.mark(fault.tag);
        }
    }

    /// A message cannot be read: those behind it need not wait for that.
    fn set_aside(&mut self, fault: &Fault) {
        let Some((queue, sequence, message)) = self.seat.set_aside(fault.tag) else {
            tracing::warn!(
                code = fault.error.code(),
                slot = fault.place.slot.0,
                chunk = fault.place.chunk.0,
                "message left out: it cannot be read, and is not this connection's to set aside: {}",
                exit::chain(&fault.error)
            );
            return;
        };
        tracing::error!(
            %queue,
            sequence,
            message = message.0,
            code = fault.error.code(),
            slot = fault.place.slot.0,
            chunk = fault.place.chunk.0,
            "message set aside: it cannot be read, and is not delivered in this run: {}",
            exit::chain(&fault.error)
        );
    }

    /// Writes once. True if anything moved.
    fn write(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, CloseReason> {
        let mut moved = false;
        if self.output.is_unsent() {
            match self.output.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(count)) => {
                    self.shared.stats.out_bytes.add(count as u64);
                    self.attendance.present.out_bytes.add(count as u64);
                    self.session.handle_wrote(now);
                    self.stalled_at = None;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(CloseReason::Failed(error)),
                Poll::Pending => self.stalled_at = self.stalled_at.or(Some(now.mono_ms)),
            }
        }
        if let Some(tag) = self.output.poll_written() {
            self.written = Some(tag);
            moved = true;
        }
        Ok(moved)
    }

    /// Goes from state to state once the session or the peer has ended.
    fn close_by_steps(&mut self, cx: &mut Context<'_>, now: Now) -> Result<bool, CloseReason> {
        let linger_at = now.mono_ms + self.session.limits().linger_ms_max;
        match self.life {
            Life::Open => {
                let lost = self.input_ended && !self.rest_unread;
                if self.session.phase() == Phase::Open && !lost {
                    return Ok(false);
                }
                // What the session holds is released now, whatever its peer still has to read.
                let step = Step {
                    written: self.written.take(),
                    requests: None,
                    event_count_max: 0,
                };
                self.seat.step(&step, &mut self.deliveries.events);
                self.deliveries.clear();
                self.reservation.release();
                self.rest = Vec::new();
                if !self.deliveries.is_mid_frame() {
                    self.seat.close();
                }
                // The receipt of a DISCONNECT is waited for as long as any receipt is.
                let patient = self.session.end_reason() == Some(&EndReason::Disconnected);
                self.life = Life::Closing {
                    deadline: (!patient).then_some(linger_at),
                };
                Ok(true)
            }
            Life::Closing { .. } => {
                if self.deliveries.is_mid_frame() || self.output.is_unsent() {
                    return Ok(false);
                }
                self.seat.close();
                if self.session.phase() != Phase::Ended
                    && !(self.input_ended && self.session.poll_gate().is_none())
                {
                    return Ok(false);
                }
                // A peer that has closed is told that so have we, as far as it still listens.
                match Pin::new(&mut self.stream).poll_shutdown(cx) {
                    Poll::Pending => {
                        self.stalled_at = self.stalled_at.or(Some(now.mono_ms));
                        return Ok(false);
                    }
                    Poll::Ready(_) if self.input_ended => return Err(self.reason(CloseReason::Lost)),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Err(self.reason(CloseReason::Failed(error))),
                }
                self.life = Life::Lingering { deadline: linger_at };
                Ok(true)
            }
            Life::Lingering { .. } => Ok(false),
        }
    }

    /// Throws away what the peer sends until it closes.
    fn linger(&mut self, cx: &mut Context<'_>, input: &mut Vec<u8>) -> Rounded {
        match self.read_after(0, input, cx) {
            Ok(0) if self.input_ended => Err(self.reason(CloseReason::Lost)),
            Ok(0) => Ok(Round::Idle),
            Ok(_) => Ok(Round::Moved),
            Err(reason) => Err(self.reason(reason)),
        }
    }

    /// The session's own reason, where it has one.
    fn reason(&self, otherwise: CloseReason) -> CloseReason {
        match self.session.end_reason() {
            Some(reason) => CloseReason::Ended(reason.clone()),
            None => otherwise,
        }
    }

    /// Ends the connection where its own time is up.
    fn watch_time(&mut self, now: Now) -> Result<(), CloseReason> {
        if self.life_deadline().is_some_and(|at| at <= now.mono_ms) {
            return Err(self.reason(CloseReason::Lost));
        }
        if self.stall_deadline().is_some_and(|at| at <= now.mono_ms) {
            return Err(CloseReason::Unread);
        }
        Ok(())
    }

    /// Does what time demands of the session. Only after a read: what was in the socket, or would have been but for
    /// our not reading, is no silence of the peer's.
    fn watch_session(&mut self, now: Now) {
        if let Some(at) = self.session_deadline().filter(|at| *at <= now.mono_ms) {
            // Looked at late, this program stood still, and may not have heard yet of what came meanwhile.
            if now.mono_ms - at > LATE_MS
                && now.mono_ms < *self.second_look_at.get_or_insert(now.mono_ms + LATE_MS)
            {
                return;
            }
            self.second_look_at = None;
            if self.unread {
                self.session.handle_unread(now);
            }
            if self.deliveries.is_mid_frame() {
                // A heart-beat has no place within a frame, and the frame's own bytes prove as much.
                let mut nowhere = Vec::new();
                self.session.handle_timeout(now, &mut nowhere);
            } else {
                self.session.handle_timeout(now, &mut self.output.bytes);
            }
        } else {
            self.second_look_at = None;
        }
    }

    fn life_deadline(&self) -> Option<u64> {
        match self.life {
            Life::Open => None,
            Life::Closing { deadline } => deadline,
            Life::Lingering { deadline } => Some(deadline),
        }
    }

    /// So that one that only waits is no newcomer when what it waits for comes.
    fn probation_deadline(&self) -> Option<u64> {
        let waits = self.session.version().is_some() && self.is_on_probation(self.shared.clock.now());
        waits.then_some(self.probation_until)
    }

    fn stall_deadline(&self) -> Option<u64> {
        self.stalled_at
            .map(|at| at + self.session.limits().unread_output_ms_max)
    }

    fn session_deadline(&self) -> Option<u64> {
        match self.life {
            Life::Open | Life::Closing { .. } => self.session.poll_timeout(),
            Life::Lingering { .. } => None,
        }
    }

    /// Sets the timer to the next deadline. A timer set for an earlier moment is left as it is: most deadlines move
    /// on before they come, and a turn too many costs less than setting the timer in each.
    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let deadlines = [
            self.life_deadline(),
            self.stall_deadline(),
            self.session_deadline().max(self.second_look_at),
            self.probation_deadline(),
        ];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return;
        };
        let now = self.shared.clock.now().mono_ms;
        if self.timer_at <= deadline && self.timer_at > now {
            return;
        }
        let at = self.shared.clock.instant(deadline);
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(at);
                timer
            }
            None => self.timer.insert(Box::pin(tokio::time::sleep_until(at))),
        };
        self.timer_at = deadline;
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn borrow(&mut self, scratch: &mut Scratch) {
        self.output.borrow(&mut scratch.output);
        self.deliveries.borrow(&mut scratch.events);
    }

    fn give_back(&mut self, scratch: &mut Scratch) {
        self.output.give_back(&mut scratch.output);
        self.deliveries.give_back(&mut scratch.events);
        if self.rest.capacity() > 4096.max(4 * self.rest.len()) {
            self.rest.shrink_to(self.rest.len());
        }
        // Grown by frames far larger than a read; the next one is not likely to be so.
        if scratch.input.len() > 4 * READ_BYTES {
            scratch.input = Vec::new();
        }
    }
}

impl CloseReason {
    fn count(&self, stats: &Stats) {
        match self {
            Self::Ended(EndReason::Disconnected) => stats.disconnected_count.add(1),
            Self::Ended(EndReason::Violation(_)) => stats.violation_count.add(1),
            // What lies below STOMP was not as its protocol demands.
            Self::Failed(error) if error.kind() == io::ErrorKind::InvalidData => stats.violation_count.add(1),
            Self::Ended(EndReason::Refused(_)) | Self::Stopped => stats.refused_count.add(1),
            Self::Ended(EndReason::TimedOut(_)) | Self::Unread => stats.timed_out_count.add(1),
            Self::Lost | Self::Failed(_) => stats.lost_count.add(1),
            Self::Torn => stats.fault_count.add(1),
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(EndReason::Disconnected) => f.write_str("disconnected"),
            Self::Ended(EndReason::Violation(code)) => write!(f, "violation: {code}"),
            Self::Ended(EndReason::Refused(code)) => write!(f, "refused: {code}"),
            Self::Ended(EndReason::TimedOut(code)) => write!(f, "timed out: {code}"),
            Self::Lost => f.write_str("closed by the peer"),
            Self::Failed(error) => write!(f, "socket failed: {error}"),
            Self::Unread => f.write_str("timed out: output not read"),
            Self::Torn => f.write_str("fault within a frame"),
            Self::Stopped => f.write_str("closed by the stop of the broker"),
        }
    }
}
