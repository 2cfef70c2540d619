//! The checker: what the promise forbids, found in a history.
//!
//! It is written from the promise: a RECEIPT is durable and proves every earlier frame of its connection; a message
//! with a receipt is delivered at least once; one settled with a receipt never again; a transaction is whole or absent;
//! one sent again with its deduplication id is one message;
//! first deliveries of one producer are in order; redeliveries are marked; a dead letter appears once, for a reason.
//! What no receipt confirmed may have happened or not, but only whole.
//!
//! # Invariants
//! - No false alarm: where clients cannot know an order, none is assumed. The one such case is a subscription that
//!   is being ended: its last deliveries may be read long after the broker has given them to others. So a delivery
//!   counts as made at the latest when its UNSUBSCRIBE or DISCONNECT was written.
//! - The history ends with every queue drained by settling all that came.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::record::{Event, Mode, Time, What};

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
    /// A message came that nobody sent, or from a queue it was not sent to.
    Stranger,
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
    /// The latest moment at which the broker can have made it.
    made_by: Time,
    life: usize,
    queue: String,
    auto: bool,
}

/// A frame that asks for a settlement, or for a failure, of one message.
struct Attempt {
    conn: u32,
    frame: u64,
    at: Time,
    tx: Option<u32>,
    aborted: bool,
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
}

impl Message {
    /// Every time that it was sent.
    fn sent(&self) -> impl Iterator<Item = (u32, u64, Option<u32>)> {
        std::iter::once((self.conn, self.frame, self.tx)).chain(self.again.iter().copied())
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
    ended: Option<(u64, Time)>,
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
    /// Who holds a message: the delivery and its subscription.
    holders: HashMap<u64, (Time, u32)>,
    ids: HashMap<String, u64>,
    id_of: HashMap<(u64, String), String>,
    /// When connections of `auto` subscriptions ended: queue and time.
    auto_ends: Vec<(&'static str, Time)>,
    killing: bool,
    life: usize,
}

/// All violations in a history.
pub fn check(events: &[Event], rules: &Rules) -> Vec<Violation> {
    let mut checker = Checker::default();
    for (at, event) in events.iter().enumerate() {
        checker.read(at, event);
    }
    checker.judge(rules);
    checker.found
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
            } => {
                if !intact {
                    self.report(
                        Kind::BytesDiffer,
                        format!("message {message}: delivery {at} on connection {conn}"),
                    );
                }
                self.read_delivery(at, *sub, *message, *redelivered, *count, message_id);
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
            Event::Closing { conn } => self.end_connection(*conn, at),
            Event::Killing => self.killing = true,
            Event::Down => {
                self.killing = false;
                self.life += 1;
                self.holders.clear();
                for sub in self.subs.values_mut() {
                    sub.held.clear();
                }
            }
        }
    }

    fn read_sent(&mut self, at: Time, conn: u32, frame: u64, what: &What) {
        match *what {
            What::Send { message, queue, tx } => {
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
                    },
                );
            }
            What::Resend { message, tx, .. } => {
                if let Some(tx) = tx {
                    self.txs.entry(tx).or_default().sends.push(message);
                }
                if let Some(message) = self.messages.get_mut(&message) {
                    message.again.push((conn, frame, tx));
                }
            }
            What::Subscribe { sub, queue, mode } => {
                self.subs.insert(
                    sub,
                    Sub {
                        conn,
                        queue,
                        mode,
                        ended: None,
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
            What::Ack { delivery, tx } => self.settle(at, conn, frame, delivery, tx, true),
            What::Nack { delivery, tx } => self.settle(at, conn, frame, delivery, tx, false),
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
                        .is_some_and(|(held, _)| held == delivery)
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
                    let sub = self.holders.get(&message).filter(|(held, _)| *held == delivery);
                    if let Some(sub) = sub.and_then(|(_, sub)| self.subs.get_mut(sub)) {
                        sub.held.insert(delivery, message);
                    }
                }
            }
        }
    }

    fn settle(&mut self, at: Time, conn: u32, frame: u64, delivery: Time, tx: Option<u32>, accepted: bool) {
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
        for (delivery, message) in settled {
            match tx.map(|tx| self.txs.entry(tx).or_default()) {
                Some(tx) if accepted => tx.acks.push((message, delivery)),
                Some(tx) => tx.nacks.push((message, delivery)),
                None => {
                    self.holders.remove(&message);
                }
            }
            if let Some(message) = self.messages.get_mut(&message) {
                let attempts = if accepted {
                    &mut message.acks
                } else {
                    &mut message.nacks
                };
                attempts.push(Attempt {
                    conn,
                    frame,
                    at,
                    tx,
                    aborted: false,
                });
            }
        }
    }

    fn end_sub(&mut self, no: u32, frame: u64, at: Time) {
        if let Some(sub) = self.subs.get_mut(&no) {
            sub.ended.get_or_insert((frame, at));
            sub.held.clear();
            self.holders.retain(|_, (_, sub)| *sub != no);
        }
    }

    fn end_connection(&mut self, conn: u32, at: Time) {
        for (no, sub) in &mut self.subs {
            if sub.conn == conn {
                sub.held.clear();
                self.holders.retain(|_, (_, holder)| holder != no);
                if sub.mode == Mode::Auto {
                    self.auto_ends.push((sub.queue, at));
                }
            }
        }
    }

    fn read_delivery(
        &mut self,
        at: Time,
        sub_no: u32,
        no: u64,
        redelivered: bool,
        count: u64,
        message_id: &str,
    ) {
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
        let made_by = sub.ended.map_or(at, |(_, ended)| ended.min(at));
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
            made_by,
            life: self.life,
            queue,
            auto: sub.mode == Mode::Auto,
        });
        if sub.mode != Mode::Auto {
            let holder = self.holders.get(&no).copied();
            if sub.ended.is_none() {
                sub.held.insert(at, no);
                self.holders.insert(no, (at, sub_no));
            }
            if let Some((held, holder)) = holder.filter(|(held, _)| *held < made_by) {
                found.push((
                    Kind::HeldTwice,
                    format!(
                        "message {no}, delivery {at}, is still held by subscription {holder} since {held}"
                    ),
                ));
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

    /// When a settlement was asked for and, if so, confirmed; `None` where it never came to that.
    fn settled(&self, attempt: &Attempt) -> Option<(Time, Option<Time>)> {
        match attempt.tx {
            _ if attempt.aborted => None,
            None => Some((attempt.at, self.confirmed(attempt.conn, attempt.frame))),
            Some(tx) => {
                let tx = self.txs.get(&tx)?;
                let (frame, at) = tx.commit?;
                Some((at, self.confirmed(tx.conn, frame)))
            }
        }
    }

    /// When a SEND was confirmed, alone or with its transaction.
    fn stored(&self, message: &Message) -> Option<Time> {
        let sent = |(conn, frame, tx): (u32, u64, Option<u32>)| match tx {
            None => self.confirmed(conn, frame),
            Some(tx) => {
                let tx = self.txs.get(&tx)?;
                self.confirmed(tx.conn, tx.commit?.0)
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
            let staged = |tx: u32| self.txs.get(&tx).is_some_and(|tx| tx.commit.is_none());
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
            && !settles.iter().any(|(at, _)| *at >= last.made_by)
        {
            report(
                Kind::Lost,
                format!("was delivered at {}, not settled, and never came again", last.at),
            );
        }

        let dead_queue = dead_letters_of(message.queue);
        let dead = message
            .deliveries
            .iter()
            .filter(|d| d.queue == dead_queue)
            .min_by_key(|d| d.at);
        let failures: Vec<_> = message
            .nacks
            .iter()
            .filter_map(|nack| self.settled(nack))
            .collect();
        if let Some(dead) = dead {
            let asked = failures.iter().filter(|(at, _)| *at < dead.at).count();
            if asked < rules.failures_max {
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
        let mut confirmed: Vec<_> = failures.iter().filter_map(|(_, confirmed)| *confirmed).collect();
        confirmed.sort_unstable();
        let last_failure = rules
            .failures_max
            .checked_sub(1)
            .and_then(|last| confirmed.get(last));
        if let Some(failed) = last_failure {
            for back in message
                .deliveries
                .iter()
                .filter(|d| d.queue == message.queue && d.made_by > *failed)
            {
                report(
                    Kind::DeadLetterWrong,
                    format!(
                        "failed for good by {failed} and came from its queue at {}",
                        back.at
                    ),
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
        let Some((frame, committed)) = tx.commit else {
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
        let (back, gone): (Vec<u64>, Vec<u64>) =
            tx.acks.iter().map(|(message, _)| *message).partition(|message| {
                self.messages
                    .get(message)
                    .is_some_and(|m| m.deliveries.iter().any(|d| d.made_by > committed))
            });
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
