//! The protocol machine of one connection: frames in, requests out; deliveries and gates in, frames out. Pure: no IO, no
//! clock, no async, no randomness.
//!
//! The driver's cycle: `handle_bytes` until it consumes nothing more; hand `requests()` to the core; `handle_applied`;
//! then `poll_output(durable)` and after it `handle_delivery` for each delivery, in this order, so that the RECEIPT of
//! SUBSCRIBE precedes its first MESSAGE.

use crate::base::{Epoch, Limits, Now, Seq, SessionNo};
use crate::port::{Applied, Delivery, Refusal, Requests};

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
}

/// See the module's text.
#[derive(Debug)]
pub struct Session {}

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
    pub fn new(_config: std::sync::Arc<SessionConfig>, _no: SessionNo, _now: Now) -> Self {
        unimplemented!("session")
    }

    /// Takes bytes from the peer: decodes whole frames into requests and returns how many bytes are done with. The rest
    /// must be handed over again with what follows it. Stops at the end of the input, at a bounded number of requests
    /// (call `handle_applied`, then again), and when the session takes no more input.
    pub fn handle_bytes(&mut self, _bytes: &[u8], _now: Now) -> usize {
        unimplemented!("session")
    }

    /// Bytes of body that the frame begun last still needs (announced by its content-length), for the driver to reserve
    /// before it reads them; 0 between frames and for bodies under 64 KiB.
    pub fn body_bytes_announced(&self) -> usize {
        unimplemented!("session")
    }

    /// The requests gathered since the last `handle_applied`.
    pub fn requests(&self) -> &Requests {
        unimplemented!("session")
    }

    /// The core's answer to `requests()`; empties them. Receipts of what is done go into line behind the gate.
    pub fn handle_applied(&mut self, _applied: Applied, _now: Now) {
        unimplemented!("session")
    }

    /// Appends a MESSAGE for a delivery whose bytes are at hand in pieces. Appends nothing if its subscription is gone.
    pub fn handle_delivery(&mut self, _delivery: &Delivery, _pieces: &[&[u8]], _out: &mut Vec<u8>) {
        unimplemented!("session")
    }

    /// The core ended this session: ERROR, in its place in line, then close.
    pub fn handle_evicted(&mut self, _refusal: Refusal, _now: Now) {
        unimplemented!("session")
    }

    /// A fault of ours: an ERROR that gives nothing away but the incident's id, in its place in line, then close.
    pub fn handle_fault(&mut self, _incident: &str, _now: Now) {
        unimplemented!("session")
    }

    /// Appends every frame in line whose gate is durable (CONNECTED, RECEIPT, ERROR).
    pub fn poll_output(&mut self, _durable: Seq, _out: &mut Vec<u8>) {
        unimplemented!("session")
    }

    /// The gate that the head of the line waits for, if any.
    pub fn poll_gate(&self) -> Option<Seq> {
        unimplemented!("session")
    }

    /// Bytes were written to the peer: our heart-beat starts anew.
    pub fn handle_wrote(&mut self, _now: Now) {
        unimplemented!("session")
    }

    /// The monotonic time at which `handle_timeout` must be called, if any.
    pub fn poll_timeout(&self) -> Option<u64> {
        unimplemented!("session")
    }

    /// Does what time demands: appends a heart-beat, or ends the session (ERROR in line where one is due).
    pub fn handle_timeout(&mut self, _now: Now, _out: &mut Vec<u8>) {
        unimplemented!("session")
    }

    /// Whether bytes should be read from the peer: false once ending, and while receipts in line exceed their bound.
    pub fn wants_input(&self) -> bool {
        unimplemented!("session")
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        unimplemented!("session")
    }

    /// Why it ended, once it is not `Open`.
    pub fn end_reason(&self) -> Option<&EndReason> {
        unimplemented!("session")
    }
}
