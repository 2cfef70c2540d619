//! The receiving side of a connection: it acknowledges at once, or forwards in transactions what it received.

use super::window::Window;
use super::{AckMode, OUT_BYTES_MAX, Plan, Tally, served};
use crate::client::{
    ClientError, Connection, Frame, encode_ack, encode_ack_staged, encode_frame, parse_number,
};

/// With nothing new for so long, a transaction is closed with fewer messages than it should have.
const FORWARD_QUIET_NS: u64 = 100_000_000;

/// A message that is to be forwarded and acknowledged in one transaction.
#[derive(Debug)]
struct Held {
    destination: usize,
    ack: Vec<u8>,
    body: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Consumer {
    number: usize,
    /// Raw ack id of the last message of each subscription since the last cumulative ACK.
    unacked: Vec<(u64, Vec<u8>)>,
    held: Vec<Held>,
}

impl Consumer {
    /// Number `number` of the plan's consumers; its SUBSCRIBE frames are appended, the last one with a receipt.
    pub(super) fn new(plan: &Plan, number: usize, connection: &mut Connection) -> Self {
        let prefetch = plan.prefetch.map(|prefetch| prefetch.to_string());
        let mut subscriptions = served(&plan.destinations, number, plan.consumers).peekable();
        while let Some((id, destination)) = subscriptions.next() {
            let id = id.to_string();
            let mut headers = vec![
                ("destination", destination),
                ("id", &id),
                ("ack", plan.ack.text()),
            ];
            headers.extend(prefetch.as_deref().map(|prefetch| ("prefetch-count", prefetch)));
            let further = plan.subscribe_headers.iter();
            headers.extend(further.map(|(name, value)| (name.as_str(), value.as_str())));
            if subscriptions.peek().is_none() {
                headers.push(("receipt", "subscribed"));
            }
            encode_frame(connection.out(), "SUBSCRIBE", &headers, None);
        }
        Self {
            number,
            unacked: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Whether it owes no transaction.
    pub(super) fn is_done(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes a MESSAGE.
    pub(super) fn take(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
        plan: &Plan,
        now_ns: u64,
    ) -> Result<(), ClientError> {
        tally.note_delivered(self.number, frame.body, now_ns);
        if plan.ack == AckMode::Auto {
            return Ok(());
        }
        let missing = ClientError::Unexpected {
            command: "MESSAGE without ack".to_owned(),
            expected: "MESSAGE with ack (STOMP 1.2)",
        };
        let ack = frame.header("ack").ok_or(missing)?;
        let subscription = || {
            frame
                .header("subscription")
                .and_then(parse_number)
                .unwrap_or_default()
        };
        if !plan.forward.is_empty() {
            self.held.push(Held {
                destination: subscription() as usize,
                ack: ack.to_vec(),
                body: frame.body.to_vec(),
            });
        } else if plan.ack == AckMode::ClientIndividual {
            encode_ack(out, ack);
        } else {
            self.note_unacked(subscription(), ack);
        }
        Ok(())
    }

    fn note_unacked(&mut self, subscription: u64, ack: &[u8]) {
        match self.unacked.iter_mut().find(|(id, _)| *id == subscription) {
            Some((_, last)) => {
                last.clear();
                last.extend_from_slice(ack);
            }
            None => self.unacked.push((subscription, ack.to_vec())),
        }
    }

    /// Acknowledges cumulatively what one read brought.
    pub(super) fn acknowledge(&mut self, out: &mut Vec<u8>) {
        for (_, ack) in self.unacked.drain(..) {
            encode_ack(out, &ack);
        }
    }

    /// Forwards in transactions what is held. `all_came` if nothing more is expected.
    pub(super) fn forward(
        &mut self,
        out: &mut Vec<u8>,
        pending_bytes: usize,
        window: &mut Window,
        plan: &Plan,
        all_came: bool,
        (quiet_ns, now_ns): (u64, u64),
    ) {
        let full_bytes = out.len() + OUT_BYTES_MAX.saturating_sub(pending_bytes);
        let whole = plan.transaction.unwrap_or(1);
        let short = all_came || quiet_ns > FORWARD_QUIET_NS;
        while !self.held.is_empty() && window.is_free() && out.len() < full_bytes {
            if self.held.len() < whole && !short {
                return;
            }
            let count = whole.min(self.held.len());
            let number = window.open(now_ns, count as u64);
            let name = number.to_string();
            encode_frame(out, "BEGIN", &[("transaction", &name)], None);
            for held in self.held.drain(..count) {
                let Some(destination) = plan.forward.get(held.destination) else {
                    continue;
                };
                let mut headers = vec![("destination", destination.as_str()), ("transaction", &name)];
                let further = plan.send_headers.iter();
                headers.extend(further.map(|(name, value)| (name.as_str(), value.as_str())));
                encode_frame(out, "SEND", &headers, Some(&held.body));
                encode_ack_staged(out, &held.ack, &name);
            }
            let headers = [("transaction", name.as_str()), ("receipt", &name)];
            encode_frame(out, "COMMIT", &headers, None);
        }
    }
}
