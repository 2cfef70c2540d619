//! A client: a small state machine that speaks STOMP in one of its versions, holds to the rules, and otherwise does what
//! chance tells it. It knows only what it has read.

use std::rc::Rc;

use super::message::{UID, body_of};
use super::oracle::{Ask, Conn, FrameNo, Mode, Queue, To, Uid};
use super::rng::Rng;
use crate::client::{Decoder, Frame, encode_frame, parse_number};

/// The queues and topics of a run.
pub(super) const QUEUES: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["t", "u"];

/// The longest that a NACK asks a message to rest.
pub(super) const REST_MS_MAX: usize = 3_000;
/// The longest time to live that a SEND states.
const TTL_MS_MAX: usize = 4_000;
/// Messages that may be sent again.
const RECENT_COUNT_MAX: usize = 8;

const SUB_COUNT_MAX: usize = 3;
const TX_COUNT_MAX: usize = 2;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Conn,
    pub(super) version: u8,
    frame: FrameNo,
    connected: bool,
    /// Its DISCONNECT waits for a RECEIPT.
    leaving: Option<FrameNo>,
    /// It does not read for a while.
    pub(super) stalled: bool,
    subs: Vec<Own>,
    held: Vec<Held>,
    txs: Vec<(u32, Vec<Held>)>,
    message_count: u64,
    decoder: Decoder,
}

#[derive(Debug, Clone)]
struct Own {
    no: u32,
    to: To,
    mode: Mode,
    pull: bool,
}

/// A MESSAGE that is to be answered.
#[derive(Debug, Clone)]
struct Held {
    delivery: u64,
    sub: u32,
    message_id: String,
    ack: String,
}

/// Numbers that no two clients share.
#[derive(Debug)]
pub(super) struct Numbers {
    /// One message of so many is long.
    long_of: usize,
    uid: Uid,
    sub: u32,
    tx: u32,
    /// Messages with a deduplication id, and their queues, that may be sent again by anybody.
    recent: Vec<(Uid, &'static str)>,
}

impl Numbers {
    /// A queue forgets its deduplication ids.
    pub(super) fn forget_recent(&mut self, queue: &str) {
        self.recent.retain(|(_, of)| *of != queue);
    }

    pub(super) fn new(long_of: usize) -> Self {
        Self {
            long_of,
            uid: 0,
            sub: 0,
            tx: 0,
            recent: Vec::new(),
        }
    }
}

/// A frame to be sent.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) frame: FrameNo,
    pub(super) receipt: bool,
    pub(super) ask: Ask,
    pub(super) bytes: Vec<u8>,
}

/// What reading told it to do about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Go on.
    More,
    /// There is nothing more to come: close.
    Enough,
}

impl Client {
    /// A client with its first frame.
    pub(super) fn connect(conn: Conn, version: u8) -> (Self, Wish) {
        let mut client = Self {
            conn,
            version,
            frame: 0,
            connected: false,
            leaving: None,
            stalled: false,
            subs: Vec::new(),
            held: Vec::new(),
            txs: Vec::new(),
            message_count: 0,
            decoder: Decoder::with_space(4_096),
        };
        let accept = match version {
            10 => "1.0",
            11 => "1.0,1.1",
            _ => "1.0,1.1,1.2",
        };
        let headers = vec![("accept-version", accept.to_owned()), ("host", "sim".to_owned())];
        let wish = client.wish("CONNECT", Ask::Connect, headers, None, false);
        (client, wish)
    }

    /// Takes bytes in.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Heard {
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.push(bytes);
        let mut heard = Heard::More;
        // What is no frame the oracle has told already.
        while let Ok(Some(frame)) = decoder.next_frame() {
            if self.hear_frame(&frame) == Heard::Enough {
                heard = Heard::Enough;
            }
        }
        self.decoder = decoder;
        heard
    }

    fn hear_frame(&mut self, frame: &Frame<'_>) -> Heard {
        match frame.command {
            b"CONNECTED" => self.connected = true,
            b"RECEIPT" => {
                let of = frame.header("receipt-id").and_then(parse_number);
                if of.is_some() && of == self.leaving {
                    return Heard::Enough;
                }
            }
            b"MESSAGE" => {
                self.message_count += 1;
                let sub = frame.header("subscription").and_then(parse_number);
                let own = self.subs.iter().find(|own| Some(u64::from(own.no)) == sub);
                if let Some(own) = own.filter(|own| own.mode != Mode::Auto) {
                    self.held.push(Held {
                        delivery: self.message_count,
                        sub: own.no,
                        message_id: frame.text("message-id").unwrap_or_default(),
                        ack: frame.text("ack").unwrap_or_default(),
                    });
                }
            }
            _ => return Heard::Enough,
        }
        Heard::More
    }

    /// What it wants to send now, if anything.
    pub(super) fn wish_any(&mut self, rng: &mut Rng, numbers: &mut Numbers) -> Option<Wish> {
        if !self.connected || self.leaving.is_some() {
            return None;
        }
        let receipt = rng.chance(1, 2);
        match rng.below(100) {
            0..34 => Some(self.wish_send(rng, numbers, receipt)),
            34..70 if !self.held.is_empty() => {
                let at = rng.below(self.held.len());
                let accepted = self.version == 10 || rng.chance(3, 4);
                let tx = self.any_tx(rng);
                let delay = (!accepted && rng.chance(1, 2)).then(|| rng.below(REST_MS_MAX) as u64);
                self.wish_settle(at, accepted, delay, tx, receipt)
            }
            34..70 => Some(self.wish_send(rng, numbers, receipt)),
            70..82 if self.subs.len() < SUB_COUNT_MAX => {
                let to = match rng.below(10) {
                    0 | 1 => To::Topic(rng.pick(&TOPICS).into()),
                    2 => To::Queue(format!("DLQ.{}", rng.pick(&QUEUES)).into()),
                    _ => To::Queue(rng.pick(&QUEUES).into()),
                };
                let mode = match rng.below(5) {
                    0 => Mode::Auto,
                    1 | 2 => Mode::Client,
                    _ if self.version == 10 => Mode::Client,
                    _ => Mode::Individual,
                };
                // None of them is pull.
                let prefetch = rng.chance(4, 5).then(|| rng.below(7));
                Some(self.wish_subscribe(numbers, to, mode, prefetch, receipt))
            }
            82..86 if !self.subs.is_empty() => {
                let at = rng.below(self.subs.len());
                let keep = self.version != 10 && rng.chance(1, 3);
                Some(self.wish_unsubscribe(at, keep, receipt))
            }
            86..90 if self.txs.len() < TX_COUNT_MAX => {
                numbers.tx += 1;
                let tx = numbers.tx;
                self.txs.push((tx, Vec::new()));
                Some(self.wish(
                    "BEGIN",
                    Ask::Begin,
                    vec![("transaction", tx.to_string())],
                    None,
                    receipt,
                ))
            }
            90..97 if !self.txs.is_empty() => {
                let at = rng.below(self.txs.len());
                let commits = rng.chance(3, 4);
                Some(self.wish_end(at, commits, receipt))
            }
            98 | 99 => self.wish_more(rng, receipt),
            97 if rng.chance(1, 4) => {
                self.leaving = Some(self.frame + 1);
                Some(self.wish("DISCONNECT", Ask::Disconnect, Vec::new(), None, true))
            }
            _ => None,
        }
    }

    fn any_tx(&self, rng: &mut Rng) -> Option<u32> {
        let open = !self.txs.is_empty() && rng.chance(1, 2);
        let at = open.then(|| rng.below(self.txs.len()))?;
        self.txs.get(at).map(|(tx, _)| *tx)
    }

    fn wish_send(&mut self, rng: &mut Rng, numbers: &mut Numbers, receipt: bool) -> Wish {
        let again = rng.chance(1, 8) && !numbers.recent.is_empty();
        if again {
            let (uid, queue) = rng.pick(&numbers.recent);
            return self.wish_again(uid, queue, receipt);
        }
        numbers.uid += 2;
        let uid = numbers.uid + u64::from(rng.chance(1, numbers.long_of));
        let tx = self.any_tx(rng);
        let queue = rng.pick(&QUEUES);
        let to = match rng.below(8) {
            0 => To::Topic(rng.pick(&TOPICS).into()),
            _ => To::Queue(queue.into()),
        };
        let persistent = rng.chance(6, 7);
        let mut headers = vec![("destination", destination(&to)), (UID, uid.to_string())];
        if !persistent {
            headers.push(("persistent", "false".to_owned()));
        }
        let is_queue = matches!(to, To::Queue(_));
        let ttl_ms = (is_queue && rng.chance(1, 6)).then(|| 1 + rng.below(TTL_MS_MAX) as u64);
        headers.extend(ttl_ms.map(|ms| (rng.pick(&["ttl", "expiration"]), ms.to_string())));
        let dedup = is_queue && persistent && tx.is_none() && ttl_ms.is_none() && rng.chance(1, 3);
        if dedup {
            headers.push(("dedup-id", uid.to_string()));
            numbers.recent.push((uid, queue));
            if numbers.recent.len() > RECENT_COUNT_MAX {
                numbers.recent.remove(0);
            }
        }
        headers.extend(tx.map(|tx| ("transaction", tx.to_string())));
        let ask = Ask::Send {
            uid,
            to,
            persistent,
            ttl_ms,
            tx,
        };
        self.wish("SEND", ask, headers, Some(&body_of(uid)), receipt)
    }

    /// SEND of a message that somebody has sent before, as a producer does that knows of no RECEIPT.
    fn wish_again(&mut self, uid: Uid, queue: &str, receipt: bool) -> Wish {
        let to = To::Queue(queue.into());
        let headers = vec![
            ("destination", destination(&to)),
            (UID, uid.to_string()),
            ("dedup-id", uid.to_string()),
        ];
        self.wish(
            "SEND",
            Ask::Again { uid, to },
            headers,
            Some(&body_of(uid)),
            receipt,
        )
    }

    /// SUBSCRIBE.
    pub(super) fn wish_subscribe(
        &mut self,
        numbers: &mut Numbers,
        to: To,
        mode: Mode,
        prefetch: Option<usize>,
        receipt: bool,
    ) -> Wish {
        numbers.sub += 1;
        let sub = numbers.sub;
        let own = Own {
            no: sub,
            to: to.clone(),
            mode,
            pull: prefetch == Some(0),
        };
        let ack = match mode {
            Mode::Auto => "auto",
            Mode::Client => "client",
            Mode::Individual => "client-individual",
        };
        let mut headers = vec![
            ("destination", destination(&own.to)),
            ("id", sub.to_string()),
            ("ack", ack.to_owned()),
        ];
        headers.extend(prefetch.map(|count| ("prefetch-count", count.to_string())));
        self.subs.push(own);
        let prefetch = prefetch.unwrap_or(usize::MAX);
        let ask = Ask::Subscribe {
            sub,
            to,
            mode,
            prefetch,
        };
        self.wish("SUBSCRIBE", ask, headers, None, receipt)
    }

    /// A pull subscription asks for more, if there is one.
    fn wish_more(&mut self, rng: &mut Rng, receipt: bool) -> Option<Wish> {
        let pull: Vec<u32> = self
            .subs
            .iter()
            .filter(|own| own.pull)
            .map(|own| own.no)
            .collect();
        let sub = *pull.get(rng.below(pull.len().max(1)))?;
        let count = 1 + rng.below(4);
        let headers = vec![
            ("destination", "/control/credit".to_owned()),
            ("subscription", sub.to_string()),
            ("credit", count.to_string()),
        ];
        Some(self.wish("SEND", Ask::More { sub, count }, headers, None, receipt))
    }

    /// UNSUBSCRIBE. With `keep` it forgets only later what it held, and may answer that all the same.
    fn wish_unsubscribe(&mut self, at: usize, keep: bool, receipt: bool) -> Wish {
        let sub = self.subs.remove(at).no;
        if !keep {
            self.held.retain(|held| held.sub != sub);
        }
        for (_, staged) in &mut self.txs {
            staged.retain(|held| held.sub != sub);
        }
        self.wish(
            "UNSUBSCRIBE",
            Ask::Unsubscribe { sub },
            vec![("id", sub.to_string())],
            None,
            receipt,
        )
    }

    /// ACK or NACK of the delivery at a place.
    fn wish_settle(
        &mut self,
        at: usize,
        accepted: bool,
        delay_ms: Option<u64>,
        tx: Option<u32>,
        receipt: bool,
    ) -> Option<Wish> {
        let held = self.held.get(at)?.clone();
        let own = self.subs.iter().find(|own| own.no == held.sub);
        let mode = own.map_or(Mode::Individual, |own| own.mode);
        let ended = own.is_none();
        let settled = |of: &mut Held| match mode {
            Mode::Client => of.sub == held.sub && of.delivery <= held.delivery,
            _ => of.delivery == held.delivery,
        };
        let done: Vec<Held> = self.held.extract_if(.., settled).collect();
        if let Some((_, staged)) = self.txs.iter_mut().find(|(no, _)| Some(*no) == tx)
            && !ended
        {
            staged.extend(done);
        }
        let mut headers = match self.version {
            12 => vec![("id", held.ack)],
            _ => vec![
                ("message-id", held.message_id),
                ("subscription", held.sub.to_string()),
            ],
        };
        headers.extend(tx.map(|tx| ("transaction", tx.to_string())));
        headers.extend(delay_ms.map(|ms| ("delay", ms.to_string())));
        let command = if accepted { "ACK" } else { "NACK" };
        let ask = Ask::Settle {
            delivery: held.delivery,
            accepted,
            delay_ms,
            tx,
        };
        Some(self.wish(command, ask, headers, None, receipt))
    }

    /// ACK of the first delivery held, with a RECEIPT.
    pub(super) fn wish_ack(&mut self) -> Option<Wish> {
        self.wish_settle(0, true, None, None, true)
    }

    /// COMMIT or ABORT.
    fn wish_end(&mut self, at: usize, commits: bool, receipt: bool) -> Wish {
        let (tx, staged) = self.txs.remove(at);
        let (command, ask) = if commits {
            ("COMMIT", Ask::Commit { tx })
        } else {
            self.held.extend(staged);
            self.held.sort_by_key(|held| held.delivery);
            ("ABORT", Ask::Abort { tx })
        };
        self.wish(command, ask, vec![("transaction", tx.to_string())], None, receipt)
    }

    fn wish(
        &mut self,
        command: &str,
        ask: Ask,
        mut headers: Vec<(&'static str, String)>,
        body: Option<&[u8]>,
        receipt: bool,
    ) -> Wish {
        self.frame += 1;
        let frame = self.frame;
        if receipt {
            headers.push(("receipt", frame.to_string()));
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, command, &headers, body);
        Wish {
            frame,
            receipt,
            ask,
            bytes,
        }
    }
}

fn destination(to: &To) -> String {
    match to {
        To::Queue(name) => format!("/queue/{name}"),
        To::Topic(name) => format!("/topic/{name}"),
    }
}

/// A queue by its name.
pub(super) fn queue(name: &str) -> Queue {
    Rc::from(name)
}
