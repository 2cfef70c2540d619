//! What the clients write down, in one order.
//!
//! # Invariants
//! - A frame is recorded before its first byte is written; what came from the broker, after it was read and before
//!   anything is done about it. So an event's place is never later than its cause's effects.

use std::sync::{Mutex, PoisonError};

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
    },
    /// ERROR came.
    Refused { conn: u32, text: String },
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
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Event>>);

impl History {
    /// Adds an event.
    pub fn record(&self, event: Event) -> Time {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        events.len() - 1
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
