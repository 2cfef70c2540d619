//! A session, a scripted client and a core that does as it is told, on a virtual clock. Numbers in comments name the
//! obligations of the standard, as the golden transcripts do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod bounds;
mod connect;
mod deliver;
mod heartbeat;
mod line;
mod send;
mod settle;
mod subscribe;
mod versions;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::{DestinationKind, MessageId, SubNo, Tag, TxNo};
use crate::port::{AckMode, Body, Credit, DeliveryKey, Duplicate, Payload, Settle};
use crate::wire::Version;

const LOGIN: [(&str, &str); 3] = [
    ("1.0", "CONNECT\n\n^"),
    ("1.1", "CONNECT\naccept-version:1.1\nhost:h\n\n^"),
    ("1.2", "CONNECT\naccept-version:1.2\nhost:h\n\n^"),
];

/// NUL is written as `^`.
fn wire(text: &str) -> Vec<u8> {
    text.bytes()
        .map(|byte| if byte == b'^' { 0 } else { byte })
        .collect()
}

/// The NUL and EOL that end each frame are written as `^`.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\0\n", "^")
}

/// A session, its client and a core that does everything, on a virtual clock.
struct Pair {
    session: Session,
    now: Now,
    /// What the core answers with.
    gate: Seq,
    refuse: Option<(usize, Refusal)>,
    /// Deduplication ids of SENDs.
    ids: Vec<Vec<u8>>,
    /// What the next call says.
    duplicates: Vec<Duplicate>,
    /// What the core was asked.
    asked: Vec<Request>,
    /// The stored form of each SEND: name, header block, body.
    sent: Vec<(String, String, Vec<u8>)>,
    held: Vec<u8>,
}

fn config() -> SessionConfig {
    SessionConfig {
        limits: Limits::default(),
        epoch: Epoch(7),
        store: "0a1b2c3d".to_owned(),
        heart_beat_ms_min: 1_000,
        heart_beat_margin_percent: 200,
        dialect: Dialect::default(),
    }
}

impl Pair {
    fn with(config: SessionConfig) -> Self {
        let now = Now {
            wall_ms: 1_000_000,
            mono_ms: 5_000,
        };
        Self {
            session: Session::new(Arc::new(config), SessionNo(42), now),
            now,
            gate: Seq(0),
            refuse: None,
            ids: vec![],
            duplicates: vec![],
            asked: vec![],
            sent: vec![],
            held: vec![],
        }
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = config();
        change(&mut config.limits);
        Self::with(config)
    }

    fn login(mut self, version: &str) -> Self {
        let login = LOGIN.iter().find(|(own, _)| *own == version).unwrap().1;
        self.send(login);
        assert!(self.read().starts_with("CONNECTED\n"));
        self
    }

    fn new(version: &str) -> Self {
        Self::with(config()).login(version)
    }

    /// What a driver does with received bytes.
    fn send_bytes(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        loop {
            let done = self.session.handle_bytes(&self.held, self.now);
            self.held.drain(..done);
            self.apply();
            if done == 0 || self.held.is_empty() {
                break;
            }
        }
    }

    fn apply(&mut self) {
        let requests = self.session.requests();
        let refuse = self.refuse.take_if(|(at, _)| *at < requests.list.len());
        let done = refuse.map_or(requests.list.len(), |(at, _)| at);
        for request in &requests.list[..done] {
            if let Request::Send(send) = request {
                let bytes = match &send.payload {
                    Payload::Arena(span) => requests.bytes(*span),
                    Payload::Shared(bytes) => bytes,
                };
                self.ids.extend(send.dedup.map(|id| requests.bytes(id).to_vec()));
                let (block, body) = bytes.split_at(send.header_len as usize);
                self.sent
                    .push((requests.text(send.to.name).to_owned(), text(block), body.to_vec()));
            }
            self.asked.push(request.clone());
        }
        let refusal = refuse.map(|(_, refusal)| refusal);
        self.session.handle_applied(
            Applied {
                done,
                gate: self.gate,
                refusal,
                denied: None,
                duplicates: std::mem::take(&mut self.duplicates),
            },
            self.now,
        );
    }

    fn send(&mut self, frames: &str) {
        self.send_bytes(&wire(frames));
    }

    /// What leaves when this much is durable.
    fn read_at(&mut self, durable: u64) -> String {
        let mut out = Vec::new();
        self.session.poll_output(Seq(durable), &mut out);
        text(&out)
    }

    fn read(&mut self) -> String {
        self.read_at(u64::MAX)
    }

    /// The code of the ERROR that is all that leaves.
    #[track_caller]
    fn error(&mut self) -> String {
        let out = self.read();
        let (before, code) = out
            .split_once("\ncode:")
            .unwrap_or_else(|| panic!("no ERROR in {out:?}"));
        assert!(before.starts_with("ERROR\nmessage:"), "{out:?}");
        assert!(!before.contains('^'), "{out:?}");
        assert_eq!(self.session.phase(), Phase::Ended);
        assert!(!self.session.wants_input());
        code.lines().next().unwrap().to_owned()
    }

    /// Sends frames of which the last is refused.
    #[track_caller]
    fn fails(&mut self, frames: &str) -> String {
        self.send(frames);
        self.error()
    }

    fn timeout(&mut self, mono_ms: u64) -> String {
        self.now.mono_ms = mono_ms;
        let mut out = Vec::new();
        self.session.handle_timeout(self.now, &mut out);
        text(&out)
    }

    fn deliver(&mut self, delivery: &Delivery, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        self.session.handle_delivery(delivery, pieces, &mut out);
        text(&out)
    }
}

/// A frame in a session of each version: the code of its ERROR, or "" if it is accepted.
#[track_caller]
fn check_each(before: &str, frame: &str, expect: [&str; 3]) {
    for ((version, _), expect) in LOGIN.iter().zip(expect) {
        let mut pair = Pair::new(version);
        pair.send(before);
        assert_eq!(pair.session.phase(), Phase::Open, "{version}: {}", pair.read());
        pair.send(frame);
        let code = if pair.session.phase() == Phase::Open {
            String::new()
        } else {
            pair.error()
        };
        assert_eq!(code, expect, "{version}: {frame:?}");
    }
}

#[track_caller]
fn check_all(frame: &str, expect: &str) {
    check_each("", frame, [expect; 3]);
}
