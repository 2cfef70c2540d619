//! What the clients write down, in one order.
//!
//! # Invariants
//! - A frame is recorded before its first byte is written; what came from the broker, after it was read and before
//!   anything is done about it. So an event's place is never later than its cause's effects.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::rig::Rng;

/// The place of an event in the history; the only clock of the checker.
pub type Time = usize;

/// Ack mode of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Auto,
    Client,
    Individual,
}

impl Mode {
    /// Its text in SUBSCRIBE.
    pub fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::Individual => "client-individual",
        }
    }
}

/// How long a delivery of a subscription may be unsettled (`ack-timeout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub span_ms: u64,
    /// When its SUBSCRIBE was about to be written, by the history's watch: no lease of it begins earlier.
    pub from_ms: u64,
}

/// What a client's frame asked for. Subscriptions, transactions and messages have numbers of their own in the whole
/// history; a delivery is named by the time of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Send {
        message: u64,
        queue: &'static str,
        tx: Option<u32>,
    },
    /// The same message once more, in the same form, with the deduplication id of the first time.
    Resend {
        message: u64,
        queue: &'static str,
        tx: Option<u32>,
    },
    Subscribe {
        sub: u32,
        queue: &'static str,
        mode: Mode,
        lease: Option<Lease>,
    },
    Unsubscribe {
        sub: u32,
    },
    Ack {
        delivery: Time,
        tx: Option<u32>,
    },
    Nack {
        delivery: Time,
        tx: Option<u32>,
        /// The message is to rest: until when at least, by the history's watch.
        due_ms: Option<u64>,
    },
    Begin {
        tx: u32,
    },
    Commit {
        tx: u32,
    },
    Abort {
        tx: u32,
    },
    Disconnect,
}

/// One thing that a client did or saw, or that was done to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client is about to write a frame; frames are numbered per connection, from 1.
    Sent {
        conn: u32,
        frame: u64,
        receipt: bool,
        what: What,
    },
    /// RECEIPT came.
    Receipt { conn: u32, frame: u64 },
    /// MESSAGE came.
    Delivered {
        conn: u32,
        sub: u32,
        message: u64,
        redelivered: bool,
        /// `delivery-count`.
        count: u64,
        message_id: String,
        /// Whether every byte of the body was right.
        intact: bool,
        /// When it was read, by the history's watch.
        at_ms: u64,
    },
    /// ERROR came.
    Refused { conn: u32, text: String },
    /// ERROR `lease-lost` came, for this frame: it and those behind it had no effect.
    LeaseLost { conn: u32, frame: u64, at_ms: u64 },
    /// The client is about to close the connection.
    Closing { conn: u32 },
    /// The connection ended from the other side; all that could be read was read.
    Lost { conn: u32 },
    /// The broker is about to be killed, or asked to stop: it may end connections from now on.
    Killing,
    /// Its process is gone, and every connection with it.
    Down,
}

/// See the module's text.
#[derive(Debug)]
pub struct History {
    events: Mutex<Vec<Event>>,
    began: Instant,
}

impl Default for History {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl History {
    /// Milliseconds since its beginning.
    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Adds an event.
    pub fn record(&self, event: Event) -> Time {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        events.len() - 1
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The body of a message: its number decides length and bytes, so that each can be checked.
pub fn body_of(message: u64) -> Vec<u8> {
    let mut rng = Rng::new(message);
    let len = match rng.below(100) {
        0..10 => 0,
        10..70 => rng.below(2_000),
        70..95 => rng.below(20_000),
        _ => rng.below(300_000),
    };
    let mut body = Vec::with_capacity(len + 8);
    while body.len() < len {
        body.extend_from_slice(&rng.next().to_le_bytes());
    }
    body.truncate(len);
    body
}
