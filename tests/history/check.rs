//! The checker: what the promise forbids, found in a history.
//!
//! It is written from the promise: a RECEIPT is durable and proves every earlier frame of its connection; a message
//! with a receipt is delivered at least once; one settled with a receipt never again; a transaction is whole or absent;
//! one sent again with its deduplication id is one message;
//! first deliveries of one producer are in order; redeliveries are marked; what rests does not come before its time, and a lease
//! is not cut short; a dead letter appears once, for a reason.
//! What no receipt confirmed may have happened or not, but only whole.
//!
//! # Invariants
//! - No false alarm: where clients cannot know an order, none is assumed. One such case is a subscription that
//!   is being ended: its last deliveries may be read long after the broker has given them to others. So a delivery
//!   counts as made at the latest when its UNSUBSCRIBE or DISCONNECT was written. The other are leases, which run out while a
//!   MESSAGE is on its way: a delivery with a lease counts as made when its SUBSCRIBE was written, which no kill is between.
//! - The history ends with every queue drained by settling all that came.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::record::{Event, Lease, Mode, Time, What};

/// What the checker must know of the load.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The failure of this number makes a dead letter.
    pub failures_max: usize,
    /// Queues with one consumer at a time, which ends its subscriptions properly: first deliveries in order.
    pub ordered: &'static [&'static str],
    /// Queues whose one consumer is in `auto` mode: what was on its way to a lost connection may be gone.
    pub auto: &'static [&'static str],
}

/// The name of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A confirmed message never came, or came, was not settled and never came again.
    Lost,
    /// A message came again after its settlement was confirmed.
    SettledAgain,
    /// A part of a transaction happened and another did not.
    TransactionSplit,
    /// A message came whose transaction was aborted or never committed.
    AbortedVisible,
    /// The body is not what was sent.
    BytesDiffer,
    /// First deliveries of one producer's messages out of their order.
    OrderBroken,
    /// An earlier delivery is known, and `redelivered` or `delivery-count` denies it.
    NotMarked,
    /// A message was given to a second consumer while the first still held it.
    HeldTwice,
    /// A lease ended, for its holder or for others, before it can have run out.
    LeaseCut,
    /// A message came that nobody sent, or from a queue it was not sent to.
    Stranger,
    /// A message that rests came before its time.
    Early,
    /// A dead letter without enough failures, a failed message that is none, or one back in its old queue.
    DeadLetterWrong,
    /// Receipts out of order, twice, or for a frame that asked for none.
    ReceiptWrong,
    /// A message id that changed, or that two messages share.
    MessageIdWrong,
    /// A MESSAGE after the RECEIPT of its UNSUBSCRIBE.
    AfterUnsubscribe,
    /// ERROR for a frame that was right, or a connection lost without a cause.
    Refused,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

struct Delivery {
    at: Time,
    count: u64,
    leased: bool,
    /// The latest moment at which the broker can have made it.
    made_by: Time,
    life: usize,
    queue: String,
    auto: bool,
    /// When it came, by the history's watch.
    at_ms: u64,
}

/// A frame that asks for a settlement, or for a failure, of one message.
struct Attempt {
    delivery: Time,
    /// Whether that has a lease.
    leased: bool,
    life: usize,
    conn: u32,
    frame: u64,
    at: Time,
    tx: Option<u32>,
    aborted: bool,
    /// Until when the message is to rest.
    due_ms: Option<u64>,
}

/// What a MESSAGE says, and when it came.
struct Came {
    at: Time,
    at_ms: u64,
    redelivered: bool,
    count: u64,
}

/// What an ACK or NACK asks for.
struct Asked {
    delivery: Time,
    tx: Option<u32>,
    accepted: bool,
    due_ms: Option<u64>,
}

struct Message {
    queue: &'static str,
    conn: u32,
    frame: u64,
    at: Time,
    tx: Option<u32>,
    /// Where else it was sent, with the same deduplication id: connection, frame, transaction.
    again: Vec<(u32, u64, Option<u32>)>,
    /// Its place among the messages of its connection, fixed by the frame that makes it visible.
    position: (u64, u64),
    deliveries: Vec<Delivery>,
    acks: Vec<Attempt>,
    nacks: Vec<Attempt>,
    /// Leases that are known to have run out.
    lapses: Vec<Lapse>,
}

struct Lapse {
    delivery: Time,
    /// When it was certain.
    at: Time,
    life: usize,
}

/// Who has a message.
#[derive(Clone, Copy)]
struct Holder {
    delivery: Time,
    sub: u32,
    count: u64,
    /// Until when at least, if it has a lease.
    until_ms: Option<u64>,
}

impl Message {
    /// Every time that it was sent.
    fn sent(&self) -> impl Iterator<Item = (u32, u64, Option<u32>)> {
        std::iter::once((self.conn, self.frame, self.tx)).chain(self.again.iter().copied())
    }

    /// Whether it was given again behind this delivery, in the same life of the broker.
    fn came_behind(&self, delivery: &Delivery) -> bool {
        let behind = |d: &Delivery| d.life == delivery.life && d.count > delivery.count;
        self.deliveries
            .iter()
            .any(|d| d.queue == delivery.queue && behind(d))
    }
}

#[derive(Default)]
struct Tx {
    conn: u32,
    sends: Vec<u64>,
    acks: Vec<(u64, Time)>,
    nacks: Vec<(u64, Time)>,
    commit: Option<(u64, Time)>,
}

struct Sub {
    conn: u32,
    queue: &'static str,
    mode: Mode,
    at: Time,
    lease: Option<Lease>,
    ended: Option<(u64, Time)>,
    /// When its connection ended.
    gone: Option<Time>,
    /// Deliveries that the client may still settle, by time, with their message.
    held: BTreeMap<Time, u64>,
}

#[derive(Default)]
struct Checker {
    found: Vec<Violation>,
    /// Per connection: receipts by frame, with their time.
    receipts: HashMap<u32, BTreeMap<u64, Time>>,
    asked: HashMap<u32, BTreeSet<u64>>,
    messages: BTreeMap<u64, Message>,
    txs: BTreeMap<u32, Tx>,
    subs: BTreeMap<u32, Sub>,
    /// The subscription of a delivery.
    sub_of: HashMap<Time, u32>,
    holders: HashMap<u64, Holder>,
    /// The frame from which on a connection had no effect.
    void: HashMap<u32, u64>,
    ids: HashMap<String, u64>,
    id_of: HashMap<(u64, String), String>,
    /// When connections of `auto` subscriptions ended: queue and time.
    auto_ends: Vec<(&'static str, Time)>,
    killing: bool,
    life: usize,
}

/// What a history has shown, so that it can be told from one in which nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Confirmed rests.
    pub rest_count: u64,
    /// Those of them after which the message came in a later life of the broker.
    pub rest_over_end_count: u64,
    /// Leases that ran out for certain.
    pub lapse_count: u64,
    /// Answers behind the end of a lease that were refused.
    pub lease_lost_count: u64,
}

/// All violations in a history, and what it has shown.
pub fn check(events: &[Event], rules: &Rules) -> (Vec<Violation>, Tally) {
    let mut checker = Checker::default();
    for (at, event) in events.iter().enumerate() {
        checker.read(at, event);
    }
    checker.judge(rules);
    let tally = checker.tally();
    (checker.found, tally)
}

impl Checker {
    fn report(&mut self, kind: Kind, text: String) {
        self.found.push(Violation { kind, text });
    }

    fn read(&mut self, at: Time, event: &Event) {
        match event {
            Event::Sent {
                conn,
                frame,
                receipt,
                what,
            } => {
                if *receipt {
                    self.asked.entry(*conn).or_default().insert(*frame);
                }
                self.read_sent(at, *conn, *frame, what);
            }
            Event::Receipt { conn, frame } => {
                if !self.asked.get(conn).is_some_and(|asked| asked.contains(frame)) {
                    self.report(
                        Kind::ReceiptWrong,
                        format!("connection {conn}: RECEIPT for frame {frame}, which asked for none"),
                    );
                }
                let receipts = self.receipts.entry(*conn).or_default();
                let last = receipts.last_key_value().map(|(frame, _)| *frame);
                receipts.insert(*frame, at);
                if let Some(last) = last.filter(|last| last >= frame) {
                    self.report(
                        Kind::ReceiptWrong,
                        format!("connection {conn}: RECEIPT of frame {frame} after that of frame {last}"),
                    );
                }
            }
            Event::Delivered {
                conn,
                sub,
                message,
                redelivered,
                count,
                message_id,
                intact,
                at_ms,
            } => {
                if !intact {
                    self.report(
                        Kind::BytesDiffer,
                        format!("message {message}: delivery {at} on connection {conn}"),
                    );
                }
                let came = Came {
                    at,
                    at_ms: *at_ms,
                    redelivered: *redelivered,
                    count: *count,
                };
                self.read_delivery(*sub, *message, &came, message_id);
            }
            Event::Refused { conn, text } => {
                if !self.killing {
                    self.report(Kind::Refused, format!("connection {conn}: ERROR {text}"));
                }
                self.end_connection(*conn, at);
            }
            Event::Lost { conn } => {
                if !self.killing {
                    self.report(
                        Kind::Refused,
                        format!("connection {conn} was lost without a cause, at {at}"),
                    );
                }
                self.end_connection(*conn, at);
            }
            Event::LeaseLost { conn, frame, at_ms } => {
                let over = |sub: &Sub| {
                    sub.lease
                        .is_some_and(|lease| lease.from_ms + lease.span_ms <= *at_ms)
                };
                if !self.subs.values().any(|sub| sub.conn == *conn && over(sub)) {
                    self.report(
                        Kind::LeaseCut,
                        format!(
                            "connection {conn}: frame {frame} was refused before a lease can have run out"
                        ),
                    );
                }
                self.void.insert(*conn, *frame);
                self.end_connection(*conn, at);
            }
            Event::Closing { conn } => self.end_connection(*conn, at),
            Event::Killing => self.killing = true,
            Event::Down => {
                self.killing = false;
                self.life += 1;
                self.holders.clear();
                for sub in self.subs.values_mut() {
                    sub.held.clear();
                    sub.gone.get_or_insert(at);
                }
            }
        }
    }

    fn read_sent(&mut self, at: Time, conn: u32, frame: u64, what: &What) {
        match *what {
            What::Resend { message, tx, .. } if self.messages.contains_key(&message) => {
                if let Some(tx) = tx {
                    self.txs.entry(tx).or_default().sends.push(message);
                }
                self.messages
                    .entry(message)
                    .and_modify(|message| message.again.push((conn, frame, tx)));
            }
            // A connection may end before the first of a transaction's messages is written, or the second.
            What::Send { message, queue, tx } | What::Resend { message, queue, tx } => {
                let index = match tx {
                    Some(tx) => {
                        let sends = &mut self.txs.entry(tx).or_default().sends;
                        sends.push(message);
                        sends.len() as u64
                    }
                    None => 0,
                };
                self.messages.insert(
                    message,
                    Message {
                        queue,
                        conn,
                        frame,
                        at,
                        tx,
                        again: Vec::new(),
                        position: (frame, index),
                        deliveries: Vec::new(),
                        acks: Vec::new(),
                        nacks: Vec::new(),
                        lapses: Vec::new(),
                    },
                );
            }
            What::Subscribe {
                sub,
                queue,
                mode,
                lease,
            } => {
                self.subs.insert(
                    sub,
                    Sub {
                        conn,
                        queue,
                        mode,
                        at,
                        lease,
                        ended: None,
                        gone: None,
                        held: BTreeMap::new(),
                    },
                );
            }
            What::Unsubscribe { sub } => self.end_sub(sub, frame, at),
            What::Disconnect => {
                let subs: Vec<_> = self
                    .subs
                    .iter()
                    .filter(|(_, s)| s.conn == conn)
                    .map(|(no, _)| *no)
                    .collect();
                for sub in subs {
                    self.end_sub(sub, frame, at);
                }
            }
            What::Ack { delivery, tx } => {
                let asked = Asked {
                    delivery,
                    tx,
                    accepted: true,
                    due_ms: None,
                };
                self.settle(at, conn, frame, &asked);
            }
            What::Nack { delivery, tx, due_ms } => {
                let asked = Asked {
                    delivery,
                    tx,
                    accepted: false,
                    due_ms,
                };
                self.settle(at, conn, frame, &asked);
            }
            What::Begin { tx } => self.txs.entry(tx).or_default().conn = conn,
            What::Commit { tx } => {
                let tx = self.txs.entry(tx).or_default();
                tx.commit = Some((frame, at));
                for (index, send) in (1..).zip(&tx.sends) {
                    if let Some(message) = self.messages.get_mut(send) {
                        message.position = (frame, index);
                    }
                }
                for (message, delivery) in tx.acks.iter().chain(&tx.nacks) {
                    if self
                        .holders
                        .get(message)
                        .is_some_and(|holder| holder.delivery == *delivery)
                    {
                        self.holders.remove(message);
                    }
                }
            }
            What::Abort { tx: no } => {
                // The client holds again what it had settled inside.
                let tx = self.txs.entry(no).or_default();
                for (message, delivery) in tx.acks.drain(..).chain(tx.nacks.drain(..)) {
                    if let Some(message) = self.messages.get_mut(&message) {
                        for attempt in message.acks.iter_mut().chain(&mut message.nacks) {
                            attempt.aborted |= attempt.tx == Some(no);
                        }
                    }
                    let sub = self.sub_of.get(&delivery).and_then(|sub| self.subs.get_mut(sub));
                    if let Some(sub) = sub.filter(|sub| sub.ended.is_none() && sub.gone.is_none()) {
                        sub.held.insert(delivery, message);
                    }
                }
            }
        }
    }

    fn settle(&mut self, at: Time, conn: u32, frame: u64, asked: &Asked) {
        let Asked {
            delivery,
            tx,
            accepted,
            due_ms,
        } = *asked;
        let sub = self.sub_of.get(&delivery).and_then(|sub| self.subs.get_mut(sub));
        let Some(sub) = sub.filter(|sub| sub.held.contains_key(&delivery)) else {
            // The load's own mistake, or a history made by hand: there is nothing to settle.
            return;
        };
        let settled = match sub.mode {
            Mode::Client => {
                let rest = sub.held.split_off(&(delivery + 1));
                std::mem::replace(&mut sub.held, rest)
            }
            Mode::Individual | Mode::Auto => sub
                .held
                .remove(&delivery)
                .map(|m| (delivery, m))
                .into_iter()
                .collect(),
        };
        let leased = sub.lease.is_some();
        for (delivery, message) in settled {
            match tx.map(|tx| self.txs.entry(tx).or_default()) {
                Some(tx) if accepted => tx.acks.push((message, delivery)),
                Some(tx) => tx.nacks.push((message, delivery)),
                None => {
                    if self
                        .holders
                        .get(&message)
                        .is_some_and(|of| of.delivery == delivery)
                    {
                        self.holders.remove(&message);
                    }
                }
            }
            if let Some(message) = self.messages.get_mut(&message) {
                let attempts = if accepted {
                    &mut message.acks
                } else {
                    &mut message.nacks
                };
                attempts.push(Attempt {
                    delivery,
                    leased,
                    life: self.life,
                    conn,
                    frame,
                    at,
                    tx,
                    aborted: false,
                    due_ms,
                });
            }
        }
    }

    fn end_sub(&mut self, no: u32, frame: u64, at: Time) {
        if let Some(sub) = self.subs.get_mut(&no) {
            sub.ended.get_or_insert((frame, at));
            sub.held.clear();
            self.holders.retain(|_, holder| holder.sub != no);
        }
    }

    fn end_connection(&mut self, conn: u32, at: Time) {
        for (no, sub) in &mut self.subs {
            if sub.conn == conn {
                sub.held.clear();
                sub.gone.get_or_insert(at);
                self.holders.retain(|_, holder| holder.sub != *no);
                if sub.mode == Mode::Auto {
                    self.auto_ends.push((sub.queue, at));
                }
            }
        }
    }

    fn read_delivery(&mut self, sub_no: u32, no: u64, came: &Came, message_id: &str) {
        let Came {
            at,
            at_ms,
            redelivered,
            count,
        } = *came;
        let Some(sub) = self.subs.get_mut(&sub_no) else {
            return self.report(
                Kind::Stranger,
                format!("message {no} for subscription {sub_no}, which nobody made"),
            );
        };
        let Some(message) = self.messages.get_mut(&no) else {
            let text = format!("message {no} from {}, which nobody sent", sub.queue);
            return self.report(Kind::Stranger, text);
        };
        let mut found = Vec::new();
        let queue = sub.queue.to_owned();
        let dead = queue == dead_letters_of(message.queue);
        if queue != message.queue && !dead {
            found.push((
                Kind::Stranger,
                format!("message {no} from {queue}, sent to {}", message.queue),
            ));
        }
        if let Some((frame, _)) = sub.ended
            && self
                .receipts
                .get(&sub.conn)
                .is_some_and(|receipts| receipts.contains_key(&frame))
        {
            found.push((
                Kind::AfterUnsubscribe,
                format!("message {no} on subscription {sub_no}, delivery {at}"),
            ));
        }
        let made_by = match sub.lease {
            None => sub.ended.map_or(at, |(_, ended)| ended.min(at)),
            Some(_) => sub.at,
        };
        let earlier = message
            .deliveries
            .iter()
            .filter(|d| d.queue == queue && d.at < made_by);
        if !redelivered && earlier.clone().next().is_some() {
            found.push((
                Kind::NotMarked,
                format!("message {no}, delivery {at}, says redelivered:false"),
            ));
        }
        let known = earlier.filter(|d| d.life == self.life).count() as u64;
        if count < known + 1 {
            found.push((
                Kind::NotMarked,
                format!(
                    "message {no}, delivery {at}, says delivery-count:{count} after {known} in this life"
                ),
            ));
        }
        let other = self.ids.insert(message_id.to_owned(), no);
        if let Some(other) = other.filter(|other| *other != no) {
            found.push((
                Kind::MessageIdWrong,
                format!("messages {no} and {other} are both {message_id}"),
            ));
        }
        let old = self.id_of.insert((no, queue.clone()), message_id.to_owned());
        if let Some(old) = old.filter(|old| old != message_id) {
            found.push((
                Kind::MessageIdWrong,
                format!("message {no} was {old} and is {message_id}"),
            ));
        }

        self.sub_of.insert(at, sub_no);
        message.deliveries.push(Delivery {
            at,
            count,
            leased: sub.lease.is_some(),
            made_by,
            life: self.life,
            queue,
            auto: sub.mode == Mode::Auto,
            at_ms,
        });
        if sub.mode != Mode::Auto {
            let before = self.holders.get(&no).copied();
            // A delivery whose lease has run out may be read behind the next one.
            let is_last = before.is_none_or(|before| before.until_ms.is_none() || before.count < count);
            if sub.ended.is_none() {
                sub.held.insert(at, no);
                let holder = Holder {
                    delivery: at,
                    sub: sub_no,
                    count,
                    until_ms: sub.lease.map(|lease| lease.from_ms + lease.span_ms),
                };
                if is_last {
                    self.holders.insert(no, holder);
                }
            }
            if let Some(before) = before.filter(|_| is_last) {
                let text = format!(
                    "message {no}, delivery {at}, is still held by subscription {} since {}",
                    before.sub, before.delivery
                );
                match before.until_ms {
                    None if before.delivery < made_by => found.push((Kind::HeldTwice, text)),
                    None => {}
                    Some(until_ms) if at_ms < until_ms => {
                        let text = format!(
                            "{text}, whose lease ends {} ms later at the earliest",
                            until_ms - at_ms
                        );
                        found.push((Kind::LeaseCut, text));
                    }
                    Some(_) => {
                        // Unless the broker has ended that connection by an ERROR that is not read yet.
                        let conn = self.subs.get(&before.sub).map(|sub| sub.conn);
                        let asked = conn.and_then(|conn| self.asked.get(&conn)?.last());
                        let answered = conn.and_then(|conn| self.receipts.get(&conn)?.keys().next_back());
                        if asked == answered {
                            message.lapses.push(Lapse {
                                delivery: before.delivery,
                                at,
                                life: self.life,
                            });
                        }
                    }
                }
            }
        }
        for (kind, text) in found {
            self.report(kind, text);
        }
    }

    /// When a frame was confirmed: by its own RECEIPT or a later one of its connection.
    fn confirmed(&self, conn: u32, frame: u64) -> Option<Time> {
        let receipts = self.receipts.get(&conn)?;
        receipts.range(frame..).next().map(|(_, at)| *at)
    }

    /// Whether a frame was refused, or stood behind one that was.
    fn is_void(&self, conn: u32, frame: u64) -> bool {
        self.void.get(&conn).is_some_and(|from| *from <= frame)
    }

    /// The COMMIT of a transaction, unless it was refused.
    fn commit_of(&self, tx: &Tx) -> Option<(u64, Time)> {
        tx.commit.filter(|(frame, _)| !self.is_void(tx.conn, *frame))
    }

    /// When a settlement was asked for and, if so, confirmed; `None` where it never came to that.
    fn settled(&self, attempt: &Attempt) -> Option<(Time, Option<Time>)> {
        match attempt.tx {
            _ if attempt.aborted => None,
            None if self.is_void(attempt.conn, attempt.frame) => None,
            None => Some((attempt.at, self.confirmed(attempt.conn, attempt.frame))),
            Some(tx) => {
                let tx = self.txs.get(&tx)?;
                let (frame, at) = self.commit_of(tx)?;
                Some((at, self.confirmed(tx.conn, frame)))
            }
        }
    }

    /// Whether an ACK may have settled a delivery. One behind the end of its lease takes effect once nobody else has the
    /// message, which may be long after it was sent.
    fn may_settle(&self, ack: &Attempt, last: &Delivery) -> bool {
        self.settled(ack).is_some_and(|(at, confirmed)| {
            let late = ack.leased && ack.life == last.life && confirmed.is_none_or(|by| by >= last.made_by);
            at >= last.made_by || late
        })
    }

    /// Whether a lease may have run out that no client knows of: its MESSAGE was on its way while the connection ended.
    fn may_lapse_unseen(&self, message: &Message, until: Time) -> bool {
        self.subs.values().any(|sub| {
            let read_all = sub.ended.is_some_and(|(frame, _)| {
                self.receipts
                    .get(&sub.conn)
                    .is_some_and(|receipts| receipts.contains_key(&frame))
            });
            let beside = sub.at < until && sub.gone.is_none_or(|gone| gone > message.at);
            sub.lease.is_some() && sub.queue == message.queue && !read_all && beside
        })
    }

    /// When a SEND was confirmed, alone or with its transaction.
    fn stored(&self, message: &Message) -> Option<Time> {
        let sent = |(conn, frame, tx): (u32, u64, Option<u32>)| match tx {
            None => self.confirmed(conn, frame),
            Some(tx) => {
                let tx = self.txs.get(&tx)?;
                self.confirmed(tx.conn, self.commit_of(tx)?.0)
            }
        };
        message.sent().filter_map(sent).min()
    }

    fn judge(&mut self, rules: &Rules) {
        let mut found = Vec::new();
        for (no, message) in &self.messages {
            self.judge_message(*no, message, rules, &mut found);
        }
        for (no, tx) in &self.txs {
            self.judge_tx(*no, tx, &mut found);
        }
        for queue in rules.ordered {
            self.judge_order(queue, &mut found);
        }
        self.found.extend(found);
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally {
            lease_lost_count: self.void.len() as u64,
            ..Tally::default()
        };
        for message in self.messages.values() {
            tally.lapse_count += message.lapses.len() as u64;
            for rest in message.nacks.iter().filter(|nack| nack.due_ms.is_some()) {
                if let Some((asked, Some(_))) = self.settled(rest) {
                    tally.rest_count += 1;
                    let next = message.deliveries.iter().find(|d| d.made_by > asked);
                    tally.rest_over_end_count += u64::from(next.is_some_and(|d| d.life > rest.life));
                }
            }
        }
        tally
    }

    fn judge_message(&self, no: u64, message: &Message, rules: &Rules, found: &mut Vec<Violation>) {
        let mut report = |kind, text: String| {
            found.push(Violation {
                kind,
                text: format!(
                    "message {no} (to {}, sent at {}) {text}",
                    message.queue, message.at
                ),
            });
        };
        if let Some(first) = message.deliveries.first() {
            let staged = |tx: u32| self.txs.get(&tx).is_some_and(|tx| self.commit_of(tx).is_none());
            if message.sent().all(|(_, _, tx)| tx.is_some_and(staged)) {
                report(
                    Kind::AbortedVisible,
                    format!("was delivered at {}; its transaction was not committed", first.at),
                );
            }
        } else if self.stored(message).is_some()
            && message.tx.is_none()
            && !(rules.auto.contains(&message.queue) && self.lost_on_the_way(message))
        {
            report(Kind::Lost, "was confirmed and never delivered".into());
        }

        let settles: Vec<_> = message.acks.iter().filter_map(|ack| self.settled(ack)).collect();
        if let Some(confirmed) = settles.iter().filter_map(|(_, confirmed)| *confirmed).min() {
            for again in message.deliveries.iter().filter(|d| d.made_by > confirmed) {
                report(
                    Kind::SettledAgain,
                    format!(
                        "was settled by {confirmed} and delivered from {} at {}",
                        again.queue, again.at
                    ),
                );
            }
        }
        if let Some(last) = message.deliveries.iter().max_by_key(|d| d.made_by)
            && !last.auto
            && !message.acks.iter().any(|ack| self.may_settle(ack, last))
        {
            report(
                Kind::Lost,
                format!("was delivered at {}, not settled, and never came again", last.at),
            );
        }

        for nack in &message.nacks {
            let Some((due_ms, (asked, Some(_)))) = nack.due_ms.zip(self.settled(nack)) else {
                continue;
            };
            for early in message
                .deliveries
                .iter()
                // The last failure makes a dead letter, which does not rest.
                .filter(|d| d.queue == message.queue && d.made_by > asked && d.at_ms < due_ms)
            {
                report(
                    Kind::Early,
                    format!(
                        "rests until {due_ms} ms since {asked} and came at {}, {} ms",
                        early.at, early.at_ms
                    ),
                );
            }
        }

        let dead_queue = dead_letters_of(message.queue);
        let dead = message
            .deliveries
            .iter()
            .filter(|d| d.queue == dead_queue)
            .min_by_key(|d| d.at);
        let asked = |nack: &&Attempt| self.settled(nack).map(|(at, _)| at);
        if let Some(dead) = dead {
            let nacks = message.nacks.iter().filter(|nack| !nack.leased);
            let nacked = nacks.filter(|nack| asked(nack).is_some_and(|at| at < dead.at));
            let leased = message
                .deliveries
                .iter()
                .filter(|d| d.leased && d.made_by < dead.at);
            let asked = nacked.count() + leased.count();
            if asked < rules.failures_max && !self.may_lapse_unseen(message, dead.at) {
                report(
                    Kind::DeadLetterWrong,
                    format!("is a dead letter at {} after {asked} failures", dead.at),
                );
            }
            for back in message
                .deliveries
                .iter()
                .filter(|d| d.queue != dead_queue && d.made_by > dead.at)
            {
                report(
                    Kind::DeadLetterWrong,
                    format!(
                        "was a dead letter at {} and came from its queue at {}",
                        dead.at, back.at
                    ),
                );
            }
        }
        // By delivery: when it had failed for certain, and for good or as long as the broker lives.
        let mut failed: BTreeMap<Time, (Time, Option<usize>)> = BTreeMap::new();
        for lapse in &message.lapses {
            failed.insert(lapse.delivery, (lapse.at, Some(lapse.life)));
        }
        for nack in &message.nacks {
            if let Some((_, Some(confirmed))) = self.settled(nack) {
                failed.insert(nack.delivery, (confirmed, None));
            }
        }
        for back in message.deliveries.iter().filter(|d| d.queue == message.queue) {
            let before = |(by, life): &&(Time, Option<usize>)| {
                *by <= back.made_by && life.is_none_or(|life| life == back.life)
            };
            let count = failed.values().filter(before).count();
            if count >= rules.failures_max {
                report(
                    Kind::DeadLetterWrong,
                    format!("failed {count} times and came from its queue at {}", back.at),
                );
            }
        }
    }

    /// Whether a message of an `auto` queue can have been in the socket of a connection that ended: between the last
    /// that came before that end and the first that came after it, of the same producer.
    fn lost_on_the_way(&self, lost: &Message) -> bool {
        let mut before_or_after: Vec<(Time, (u64, u64))> = self
            .messages
            .values()
            .filter(|m| m.queue == lost.queue && m.conn == lost.conn)
            .flat_map(|m| m.deliveries.iter().map(|d| (d.at, m.position)))
            .collect();
        before_or_after.sort_unstable();
        self.auto_ends
            .iter()
            .filter(|(queue, end)| *queue == lost.queue && lost.at < *end)
            .any(|(_, end)| {
                let (before, after) =
                    before_or_after.split_at(before_or_after.partition_point(|(at, _)| at < end));
                before.iter().all(|(_, position)| *position < lost.position)
                    && after.iter().all(|(_, position)| *position > lost.position)
            })
    }

    fn judge_tx(&self, no: u32, tx: &Tx, found: &mut Vec<Violation>) {
        let Some((frame, committed)) = self.commit_of(tx) else {
            return;
        };
        let mut report = |kind, text: String| {
            found.push(Violation {
                kind,
                text: format!("transaction {no} (committed at {committed}) {text}"),
            });
        };
        let confirmed = self.confirmed(tx.conn, frame).is_some();
        let came = |message: &u64| {
            self.messages
                .get(message)
                .is_some_and(|m| !m.deliveries.is_empty())
        };
        let (present, absent): (Vec<u64>, Vec<u64>) = tx.sends.iter().partition(|message| came(message));
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for (message, delivery) in &tx.acks {
            let Some(of) = self.messages.get(message) else {
                continue;
            };
            let Some(acked) = of.deliveries.iter().find(|d| d.at == *delivery) else {
                continue;
            };
            let again = of.came_behind(acked);
            // One whose lease had run out before COMMIT is another's to settle, and says nothing of this transaction.
            if acked.leased && again {
                continue;
            }
            match again || of.deliveries.iter().any(|d| d.made_by > committed) {
                true => back.push(*message),
                false => gone.push(*message),
            }
        }
        if !present.is_empty() && !absent.is_empty() {
            report(
                Kind::TransactionSplit,
                format!("sent {present:?}, which came, and {absent:?}, which did not"),
            );
        } else if confirmed && !absent.is_empty() {
            report(
                Kind::Lost,
                format!("was confirmed; of its messages {absent:?} none came"),
            );
        }
        if !present.is_empty() && !back.is_empty() {
            report(
                Kind::TransactionSplit,
                format!("sent {present:?}, which came, and settled {back:?}, which came again"),
            );
        } else if !absent.is_empty() && !gone.is_empty() {
            report(
                Kind::TransactionSplit,
                format!(
                    "sent {absent:?}, which did not come, and settled {gone:?}, which did not come again"
                ),
            );
        } else if !back.is_empty() && !gone.is_empty() {
            report(
                Kind::TransactionSplit,
                format!("settled {gone:?}, which did not come again, and {back:?}, which did"),
            );
        }
    }

    fn judge_order(&self, queue: &str, found: &mut Vec<Violation>) {
        let mut first: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, m)| m.queue == queue)
            .filter_map(|(no, m)| {
                let delivery = m.deliveries.iter().find(|d| d.queue == queue)?;
                Some((delivery.at, m.conn, m.position, *no))
            })
            .collect();
        first.sort_unstable();
        let mut last: HashMap<u32, ((u64, u64), u64)> = HashMap::new();
        for (at, producer, position, no) in first {
            if let Some((before, other)) = last.insert(producer, (position, no))
                && before > position
            {
                found.push(Violation {
                    kind: Kind::OrderBroken,
                    text: format!("message {no} of {queue} came at {at} after {other}, which was sent later"),
                });
            }
        }
    }
}

fn dead_letters_of(queue: &str) -> String {
    let name = queue.strip_prefix("/queue/").unwrap_or(queue);
    format!("/queue/DLQ.{name}")
}

#[cfg(test)]
mod tests;
