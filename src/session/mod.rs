//! The protocol machine of one connection: frames in, requests out; deliveries and gates in, frames out. Pure: no IO, no
//! clock, no async, no randomness.
//!
//! The driver's cycle: `handle_bytes` until it consumes nothing more; hand `requests()` to the core; `handle_applied`;
//! then `poll_output(durable)` and after it `handle_delivery` for each delivery, in this order, so that the RECEIPT of
//! SUBSCRIBE precedes its first MESSAGE.
//!
//! A session whose logins are judged stops at CONNECT: `poll_login` gives the login, `handle_judged` takes the judgement.
//! Until then it takes no input, so that nothing behind CONNECT is decoded; its deadlines go on.
//!
//! # Invariants
//! - Frames of the line (CONNECTED, RECEIPT, ERROR) leave in the order of the frames they answer.
//! - No request is made before the login was judged, where logins are judged.
//! - Behind an ERROR or the RECEIPT of DISCONNECT nothing leaves, and nothing behind a faulty frame is executed.
//!
//! # Not here
//! Deliveries, credit, what a transaction holds: the core. Sockets and their bounds: the driver.

mod browse;
mod connect;
mod control;
mod credit;
mod declare;
mod deliver;
mod dialect;
mod durable;
mod error;
mod fields;
mod heartbeat;
mod ids;
mod line;
mod login;
mod rules;
mod schedule;
mod send;
mod settle;
mod subscribe;
mod temporary;

use std::sync::Arc;

use crate::base::{
    DestinationKind, Dialect, Epoch, Identity, Limits, Login, Now, Principal, Seq, SessionNo, Settings, SubNo,
};
use crate::port::{Applied, Delivery, MissingRight, Refusal, Request, Requests};
use crate::wire::{
    DecodeError, Decoded, Decoder, Escapes, Frame, FrameLimits, Grammar, Header, Version, unescape,
};

pub use connect::mistaken;
use declare::Declaration;
use dialect::{Meaning, On, RowNo};
pub use dialect::{dialect_table, refused_headers};
use error::Cause;
pub use error::{CODES, REFUSALS, Violation, refusal};
use fields::{Fields, receipt_of};
use heartbeat::{HeartBeat, Progress};
use line::Line;
use login::Judging;
pub use login::{Denied, Judged};
use rules::Rules;
use settle::Transactions;
use subscribe::Subscriptions;

/// Requests gathered by one call of [`Session::handle_bytes`], so that no connection keeps the core for long.
const REQUEST_COUNT_MAX: usize = 512;

/// Room made at once for the messages of one call.
const RESERVED_BYTES_MAX: usize = 256 * 1024;

/// Of empty buffers, so much is kept for the next read: most connections are idle most of the time.
const KEPT_BYTES_MAX: usize = 512;

/// What all sessions of one listener share.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Bounds.
    pub limits: Limits,
    /// The broker's term; part of `session`, message and ack ids.
    pub epoch: Epoch,
    /// The first 8 hexadecimal digits of the store's identity; part of `session`, message and ack ids.
    pub store: String,
    /// The shortest heart-beat interval we guarantee and ask for, either way.
    pub heart_beat_ms_min: u64,
    /// A peer is dead after its agreed interval times this, in percent (200 = twice the interval).
    pub heart_beat_margin_percent: u64,
    /// Whose reading of a header counts where brokers differ.
    pub dialect: Dialect,
}

/// See the module's text.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    no: SessionNo,
    /// The session id; empty before CONNECT.
    id: Box<str>,
    /// Of CONNECT.
    client_id: Option<Box<[u8]>>,
    /// What the transport knows of the peer.
    identity: Identity,
    /// Whom it acts for; nobody before the login is judged.
    principal: Arc<Principal>,
    /// Whom the core was told that it acts for.
    told_principal: Arc<Principal>,
    /// How far its login is.
    judging: Judging,
    /// The monotonic time at which the login ends, if it does.
    login_until: Option<u64>,
    /// Those of the version; `None` before CONNECT.
    rules: Option<&'static Rules>,
    decoder: Decoder,
    requests: Requests,
    line: Line,
    subscriptions: Subscriptions,
    transactions: Transactions,
    heart_beat: HeartBeat,
    /// Of the frame begun, if one is.
    progress: Option<Progress>,
    /// Bytes done with before CONNECT.
    login_bytes: usize,
    login_due: u64,
    /// Headers without effect that were told, by their rows.
    told: u128,
    /// Those that are still to be told.
    untold: Vec<RowNo>,
    end: Option<EndReason>,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads and writes.
    Open,
    /// Takes no more input; output waits in line (its gates, then ERROR or the last RECEIPT).
    Ending,
    /// Nothing more to come: flush, close our side, linger for the peer's close up to `linger_ms_max`, then close.
    Ended,
}

/// Why a session ended, for the log and the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// DISCONNECT.
    Disconnected,
    /// The peer broke the protocol; the code is stable, listed in `docs/errors.md`.
    Violation(&'static str),
    /// The core or a limit said no.
    Refused(&'static str),
    /// Silent past its heart-beat, or no login in time, or a begun frame made no progress.
    TimedOut(&'static str),
}

impl Session {
    /// A connection was accepted.
    pub fn new(config: Arc<SessionConfig>, no: SessionNo, now: Now) -> Self {
        let limits = FrameLimits {
            body_bytes_max: 0,
            ..connect::frame_limits(&config.limits)
        };
        let nobody = Arc::<Principal>::default();
        Self {
            no,
            id: Box::default(),
            client_id: None,
            rules: None,
            decoder: Decoder::new(limits, Grammar::CONNECT),
            requests: Requests::default(),
            line: Line::default(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            heart_beat: HeartBeat::new(now.mono_ms),
            progress: None,
            login_bytes: 0,
            login_due: now.mono_ms.saturating_add(config.limits.login_ms_max),
            told: 0,
            untold: Vec::new(),
            end: None,
            identity: Identity::Unknown,
            told_principal: Arc::clone(&nobody),
            principal: nobody,
            judging: Judging::Open,
            login_until: None,
            config,
        }
    }

    /// The session of a peer of whom the transport knows something.
    pub fn identified(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// The bounds it began with.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// The session of one whose login is judged elsewhere.
    pub fn acting_for(self, principal: Arc<Principal>) -> Self {
        Self { principal, ..self }
    }

    /// What the transport knows of the peer.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whom the session acts for.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Takes bytes from the peer: decodes whole frames into requests and returns how many bytes are done with. The rest
    /// must be handed over again with what follows it. Stops at the end of the input, at a bounded number of requests
    /// (call `handle_applied`, then again), and when the session takes no more input: then all bytes are done with.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Now) -> usize {
        if !bytes.is_empty() {
            self.heart_beat.handle_received(now.mono_ms);
        }
        let mut done = 0;
        let mut incomplete = false;
        while self.end.is_none()
            && !incomplete
            && !self.is_judged_now()
            && self.requests.list.len() < REQUEST_COUNT_MAX
        {
            let rest = bytes.get(done..).unwrap_or_default();
            let decoded = match self.rules {
                Some(_) => self.decoder.decode(rest).map_err(Cause::from),
                None => self.decode_login(rest),
            };
            match decoded {
                Ok(Decoded::Frame(frame, len)) => {
                    done += len;
                    if self.requests.list.is_empty() {
                        self.requests.arena.reserve(rest.len().min(RESERVED_BYTES_MAX));
                    }
                    self.handle_frame(&frame, now);
                }
                Ok(Decoded::Incomplete(len)) => {
                    done += len;
                    incomplete = true;
                }
                Err(cause) => {
                    let receipt_id = receipt_of(self.decoder.headers_so_far(rest), self.escapes());
                    self.fail(cause, receipt_id);
                }
            }
        }
        if self.end.is_some() {
            self.progress = None;
            return bytes.len();
        }
        let held = bytes.len() - done;
        match &mut self.progress {
            Some(progress) if incomplete && done == 0 => progress.held = held,
            progress => *progress = (incomplete && held > 0).then(|| Progress::new(held, now.mono_ms)),
        }
        done
    }

    /// Bytes of body that the frame begun last still needs, for the driver to reserve before it reads them; 0 between
    /// frames and for bodies under 64 KiB. A body without content-length that is longer may become as long as any.
    pub fn body_bytes_announced(&self) -> usize {
        match (
            self.decoder.long_frame_bytes(send::SHARED_BYTES_MIN),
            &self.progress,
        ) {
            (Some(frame), Some(progress)) => frame.saturating_sub(progress.held),
            _ => 0,
        }
    }

    /// The requests gathered since the last `handle_applied`.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The core's answer to `requests()`; empties them. Receipts of what is done go into line behind the gate.
    pub fn handle_applied(&mut self, applied: Applied, _now: Now) {
        let Applied {
            done,
            gate,
            refusal,
            denied,
            duplicates,
        } = applied;
        assert!(
            refusal.is_some() || done == self.requests.list.len(),
            "what is not refused is done"
        );
        self.line.handle_duplicates(&duplicates);
        self.line.handle_done(done, gate);
        self.requests.clear();
        let kept = self.requests.arena.capacity() + self.requests.list.capacity() * size_of::<Request>();
        if kept > KEPT_BYTES_MAX {
            self.requests = Requests::default();
        }
        if let Some(refusal) = refusal {
            let receipt_id = self.line.handle_refused(done);
            // Whatever ended the session stood behind the refused frame, and was not executed.
            self.end = None;
            self.fail_with(refusal.into(), receipt_id, denied.as_ref());
        }
    }

    /// Appends a MESSAGE for a delivery whose bytes are at hand in pieces. Appends nothing if its subscription is gone,
    /// or the session ends.
    pub fn handle_delivery(&mut self, delivery: &Delivery, pieces: &[&[u8]], out: &mut Vec<u8>) {
        let (Some(rules), None) = (self.rules, &self.end) else {
            return;
        };
        if let Some(subscription) = self.subscriptions.get(delivery.sub) {
            deliver::write(subscription, &self.id, rules, delivery, pieces, out);
        }
    }

    /// Whether a subscription stands: what is delivered to one that is gone has been released.
    pub fn has_subscription(&self, sub: SubNo) -> bool {
        self.end.is_none() && self.subscriptions.get(sub).is_some()
    }

    /// The core ended this session: ERROR, in its place in line, then close.
    pub fn handle_evicted(&mut self, refusal: Refusal, _now: Now) {
        self.fail(refusal.into(), None);
    }

    /// Appends every frame in line whose gate is durable (CONNECTED, RECEIPT, ERROR).
    pub fn poll_output(&mut self, durable: Seq, out: &mut Vec<u8>) {
        self.line.poll(durable, out);
    }

    /// The gate that the head of the line waits for, if any.
    pub fn poll_gate(&self) -> Option<Seq> {
        self.line.head_gate()
    }

    /// A header that the client sent and that has no effect here, and why; each once.
    pub fn poll_notice(&mut self) -> Option<(&'static str, &'static str)> {
        let row = self.untold.pop()?;
        if self.untold.is_empty() {
            self.untold = Vec::new();
        }
        Some(dialect::without_effect(row))
    }

    /// Bytes were written to the peer: our heart-beat starts anew.
    pub fn handle_wrote(&mut self, now: Now) {
        self.heart_beat.handle_wrote(now.mono_ms);
    }

    /// The driver did not read from the peer for a reason of ours (no room for its body, unflushed bytes) and reads
    /// again: the silence up to now was not the peer's.
    pub fn handle_unread(&mut self, now: Now) {
        self.heart_beat.handle_received(now.mono_ms);
        if let Some(progress) = &mut self.progress {
            progress.restart(now.mono_ms);
        }
    }

    /// The monotonic time at which `handle_timeout` must be called, if any.
    pub fn poll_timeout(&self) -> Option<u64> {
        let progress_due = self
            .progress
            .as_ref()
            .map(|progress| progress.due(&self.config.limits));
        let login_due = match self.rules {
            None => Some(self.login_due),
            Some(_) => self.login_until,
        };
        match self.phase() {
            Phase::Open => [
                self.heart_beat.beat_due(),
                self.heart_beat.dead_due(),
                progress_due,
                login_due,
            ]
            .into_iter()
            .flatten()
            .min(),
            Phase::Ending => self.heart_beat.beat_due(),
            Phase::Ended => None,
        }
    }

    /// Does what time demands: appends a heart-beat, or ends the session (ERROR in line where one is due).
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<u8>) {
        let at = now.mono_ms;
        if self.phase() == Phase::Open {
            if !self.wants_input() {
                self.handle_unread(now);
            }
            if let Some(violation) = self.overdue(at) {
                self.fail(violation.into(), None);
                return;
            }
        }
        if self.phase() != Phase::Ended && self.heart_beat.beat_due().is_some_and(|due| due <= at) {
            out.push(b'\n');
            self.heart_beat.handle_wrote(at);
        }
    }

    /// Whether bytes should be read from the peer: false once ending, while its login is judged, and while receipts in line
    /// exceed their bound.
    pub fn wants_input(&self) -> bool {
        self.end.is_none()
            && !self.is_judged_now()
            && self.line.len() <= self.config.limits.unread_output_bytes_max
    }

    /// The version agreed on; `None` before CONNECT, and until the login is judged.
    pub fn version(&self) -> Option<Version> {
        self.rules.map(|rules| rules.version)
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match self.end {
            None => Phase::Open,
            Some(_) if self.line.len() == 0 && self.requests.list.is_empty() => Phase::Ended,
            Some(_) => Phase::Ending,
        }
    }

    /// Why it ended, once it is not `Open`.
    pub fn end_reason(&self) -> Option<&EndReason> {
        self.end.as_ref()
    }

    /// Before CONNECT: other protocols are told apart, and all bytes are counted.
    fn decode_login<'a>(&mut self, bytes: &'a [u8]) -> Result<Decoded<'a>, Cause> {
        // What comes behind the bound is not looked at, so that what is told does not depend on how the bytes are cut.
        let room = self.config.limits.login_bytes_max - self.login_bytes;
        let within = bytes.get(..room).unwrap_or(bytes);
        let begun = within.get(self.decoder.gap(within)..).unwrap_or_default();
        if let Some(violation) = connect::mistaken(begun) {
            return Err(violation.into());
        }
        let decoded = self.decoder.decode(within).map_err(|error| match error {
            DecodeError::BodyTooLong => Cause::from(Violation::BodyNotAllowed),
            error => Cause::from(error),
        })?;
        let (Decoded::Frame(_, done) | Decoded::Incomplete(done)) = decoded;
        self.login_bytes += done;
        if matches!(decoded, Decoded::Incomplete(_)) && within.len() < bytes.len() {
            return Err(Violation::LoginTooLong.into());
        }
        Ok(decoded)
    }

    fn handle_frame(&mut self, frame: &Frame<'_>, now: Now) {
        let handled = match self.rules {
            Some(rules) => self.handle_command(frame, rules, now),
            None => self.connect(frame, now),
        };
        if let Err(cause) = handled {
            let receipt_id = receipt_of(frame.headers(), self.escapes());
            self.fail(cause, receipt_id);
        }
    }

    fn handle_command(&mut self, frame: &Frame<'_>, rules: &Rules, now: Now) -> Result<(), Cause> {
        let body_allowed = match frame.command {
            b"SEND" => true,
            b"SUBSCRIBE" => rules.subscribe_body,
            b"UNSUBSCRIBE" | b"ACK" | b"NACK" | b"BEGIN" | b"COMMIT" | b"ABORT" | b"DISCONNECT" => false,
            b"CONNECT" | b"STOMP" => return Err(Violation::AlreadyConnected.into()),
            _ => return Err(Violation::UnknownCommand.into()),
        };
        if !Arc::ptr_eq(&self.told_principal, &self.principal) {
            self.told_principal = Arc::clone(&self.principal);
            let principal = Arc::clone(&self.principal);
            self.requests.list.push(Request::ActFor { principal });
        }
        let first = self.requests.list.len();
        let fields = Fields::read(frame, rules)?;
        if !body_allowed && !frame.body.is_empty() {
            return Err(Violation::BodyNotAllowed.into());
        }
        match frame.command {
            b"SEND" => match control::order(&fields) {
                Some(order) => self.control(order, frame, &fields, rules)?,
                None => self.send(frame, &fields, rules, now)?,
            },
            b"SUBSCRIBE" => self.subscribe(frame, &fields, rules)?,
            b"UNSUBSCRIBE" => self.unsubscribe(frame, &fields, rules)?,
            b"ACK" => self.settle(&fields, rules, true)?,
            b"NACK" => self.settle(&fields, rules, false)?,
            b"BEGIN" => self.begin(&fields, rules)?,
            b"COMMIT" => self.end_transaction(&fields, rules, |tx| Request::Commit { tx })?,
            b"ABORT" => self.end_transaction(&fields, rules, |tx| Request::Abort { tx })?,
            _ => {
                self.requests.list.push(Request::Disconnect);
                self.end = Some(EndReason::Disconnected);
            }
        }
        if let Some(receipt) = fields.receipt {
            let receipt = unescape(rules.escapes(), receipt)?;
            self.line
                .push_receipt(first..self.requests.list.len(), rules.escapes(), &receipt);
        }
        Ok(())
    }

    fn send(&mut self, frame: &Frame<'_>, fields: &Fields<'_>, rules: &Rules, now: Now) -> Result<(), Cause> {
        let tx = self.transaction(fields, rules)?;
        self.expect_replies(fields, rules)?;
        self.check_own(fields, rules)?;
        let (routing, declared) = match fields.foreign {
            true => self.foreign(frame)?,
            false => Default::default(),
        };
        let of = send::Sender {
            tx,
            session: &self.id,
            now,
            group_bytes_max: self.config.limits.group_id_bytes_max,
            dedup_id_bytes_max: self.config.limits.dedup_id_bytes_max,
            schedule_period_ms_min: self.config.limits.schedule_period_ms_min,
            dialect: self.config.dialect,
            routing,
            declared,
        };
        send::send(&mut self.requests, frame, fields, rules, of)
    }

    /// Looks through a SEND for headers of other brokers: refuses what is not built, and reads what a name without prefix is.
    fn foreign(
        &mut self,
        frame: &Frame<'_>,
    ) -> Result<(Option<DestinationKind>, Option<Box<Settings>>), Cause> {
        let mut routing = None;
        let mut declaration = Declaration::default();
        for header in frame.headers() {
            let Header { name, value } = header?;
            let Some((row, meaning)) = dialect::meaning(self.config.dialect, On::Send, name) else {
                continue;
            };
            dialect::check(row, meaning, value)?;
            match meaning {
                Meaning::NoEffect => self.note(row),
                Meaning::Declares(what) => declaration.take(what, dialect::name(row), value)?,
                Meaning::Routing if routing.is_none() => {
                    routing = Some(dialect::routing(dialect::name(row), value)?);
                }
                _ => {}
            }
        }
        Ok((routing, declaration.end()?))
    }

    /// A header that has no effect: told once.
    fn note(&mut self, row: RowNo) {
        if self.told & (1 << row) == 0 {
            self.told |= 1 << row;
            self.untold.push(row);
        }
    }

    fn escapes(&self) -> Escapes {
        self.rules.map_or(Escapes::None, Rules::escapes)
    }

    /// What is over its time, if anything. Begins the next window of a frame that makes progress.
    fn overdue(&mut self, at: u64) -> Option<Violation> {
        let limits = &self.config.limits;
        if self.rules.is_none() && self.login_due <= at {
            return Some(Violation::LoginTimeout);
        }
        if self.login_until.is_some_and(|until| until <= at) {
            return Some(Violation::LoginExpired);
        }
        if self.heart_beat.dead_due().is_some_and(|due| due <= at) {
            return Some(Violation::HeartBeatTimeout);
        }
        let progress = self
            .progress
            .as_mut()
            .filter(|progress| progress.due(limits) <= at)?;
        (!progress.turn(limits, at)).then_some(Violation::FrameTooSlow)
    }

    /// Ends the session with an ERROR in its place in line, unless it ends already.
    fn fail(&mut self, cause: Cause, receipt_id: Option<Vec<u8>>) {
        self.fail_with(cause, receipt_id, None);
    }

    fn fail_with(&mut self, cause: Cause, receipt_id: Option<Vec<u8>>, denied: Option<&MissingRight>) {
        if self.end.is_some() {
            return;
        }
        let escapes = self.escapes();
        let requests = self.requests.list.len();
        self.line.push(requests..requests, |out| {
            cause.write(escapes, receipt_id.as_deref(), denied, out);
        });
        self.end = Some(cause.reason());
    }
}

#[cfg(test)]
mod tests;
