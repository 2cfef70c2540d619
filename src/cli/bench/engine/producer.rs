//! The sending side of a connection: SENDs, alone or in transactions, as fast as its bounds allow or each at its time.

use super::window::Window;
use super::{OUT_BYTES_MAX, Plan, Stop, Tally, served};
use crate::cli::bench::verify::Stamp;
use crate::client::{SendTemplate, encode_frame};

#[derive(Debug)]
struct Stream {
    number: usize,
    template: SendTemplate,
}

/// When the next unit is due, in an open loop. The units of all producers follow each other evenly.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two units of this producer.
    interval_ns: f64,
    /// Of its first one, after the start.
    offset_ns: f64,
    made_count: u64,
}

impl Pace {
    fn due_ns(&self, start_ns: u64) -> u64 {
        start_ns + (self.offset_ns + self.made_count as f64 * self.interval_ns) as u64
    }
}

/// See the module's text. A unit is what one RECEIPT confirms: a SEND, or a transaction of several.
#[derive(Debug)]
pub(super) struct Producer {
    number: usize,
    streams: Vec<Stream>,
    turn: usize,
    left_count: u64,
    pace: Option<Pace>,
    /// Whether each message has a deduplication id.
    dedup: bool,
}

impl Producer {
    /// Number `number` of the plan's producers, with its streams noted in `tally`.
    pub(super) fn new(plan: &Plan, number: usize, tally: &mut Tally) -> Self {
        let numbered = if plan.transaction.is_some() {
            "transaction"
        } else {
            "receipt"
        };
        let streams = served(&plan.destinations, number, plan.producers)
            .map(|(_, destination)| Stream {
                number: tally.note_stream(number),
                template: SendTemplate::new(destination, plan.body_bytes, &plan.send_headers, numbered),
            })
            .collect();
        let left_count = match plan.stop {
            Stop::Count(count) => {
                let (each, rest) = (count / plan.producers as u64, count % plan.producers as u64);
                each + u64::from((number as u64) < rest)
            }
            Stop::After(_) => u64::MAX,
        };
        let pace = plan.rate.map(|rate| {
            let unit_ns = plan.transaction.unwrap_or(1) as f64 * 1e9 / rate;
            Pace {
                interval_ns: unit_ns * plan.producers as f64,
                offset_ns: unit_ns * number as f64,
                made_count: 0,
            }
        });
        Self {
            number,
            streams,
            turn: 0,
            left_count,
            pace,
            dedup: plan.dedup,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left_count == 0
    }

    /// Sends nothing more.
    pub(super) fn stop(&mut self) {
        self.left_count = 0;
    }

    /// When it has to be asked again without an answer of the broker; `None` if only that lets it go on.
    pub(super) fn due_ns(&self, start_ns: u64, window: &Window) -> Option<u64> {
        let pace = self.pace.filter(|_| !self.is_done() && window.is_free())?;
        Some(pace.due_ns(start_ns))
    }

    /// Makes frames as far as its bounds allow. `pending_bytes` wait for the socket already.
    pub(super) fn produce(
        &mut self,
        out: &mut Vec<u8>,
        pending_bytes: usize,
        window: &mut Window,
        tally: &mut Tally,
        plan: &Plan,
        (start_ns, now_ns): (u64, u64),
    ) {
        let full_bytes = out.len() + OUT_BYTES_MAX.saturating_sub(pending_bytes);
        while !self.is_done() && window.is_free() && out.len() < full_bytes {
            let count = self.left_count.min(plan.transaction.unwrap_or(1) as u64);
            let due_ns = self.pace.map_or(now_ns, |pace| pace.due_ns(start_ns));
            if due_ns > now_ns || !tally.may_send(self.number, plan) {
                return;
            }
            if let Some(pace) = &mut self.pace {
                pace.made_count += 1;
            }
            let number = window.open(due_ns, count);
            self.left_count -= count;
            if plan.transaction.is_some() {
                let name = number.to_string();
                encode_frame(out, "BEGIN", &[("transaction", &name)], None);
                self.send(out, number, count, tally, due_ns);
                let headers = [("transaction", name.as_str()), ("receipt", &name)];
                encode_frame(out, "COMMIT", &headers, None);
            } else {
                self.send(out, number, count, tally, due_ns);
            }
        }
    }

    fn send(&mut self, out: &mut Vec<u8>, number: u64, count: u64, tally: &mut Tally, sent_ns: u64) {
        for _ in 0..count {
            let Some(stream) = self.streams.get(self.turn) else {
                return;
            };
            let stamp = Stamp {
                run: tally.run,
                stream: stream.number as u32,
                sequence: tally.note_sent(stream.number, self.number),
                sent_ns,
            };
            let id = self.dedup.then(|| id_of(&stamp));
            let id = id.as_ref().map(<[u8; ID_BYTES]>::as_slice);
            stream
                .template
                .encode(out, number, id, |out| tally.bodies.encode(out, stamp));
            self.turn = (self.turn + 1) % self.streams.len();
        }
    }
}

/// As long as a UUID.
const ID_BYTES: usize = 36;

/// The id of a message: its run, stream and place in it, in hexadecimal digits.
fn id_of(stamp: &Stamp) -> [u8; ID_BYTES] {
    let mut id = [b'0'; ID_BYTES];
    let numbers = [u64::from(stamp.run), u64::from(stamp.stream), stamp.sequence];
    for (part, number) in id.chunks_mut(ID_BYTES / 3).zip(numbers) {
        let mut rest = number;
        for digit in part.iter_mut().rev() {
            let low = (rest % 16) as u8;
            *digit = if low < 10 { b'0' + low } else { b'a' + low - 10 };
            rest /= 16;
        }
    }
    id
}
