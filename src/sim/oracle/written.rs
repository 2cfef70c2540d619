//! What the broker has written.

use super::super::message::{UID, body_of};
use super::{Cause, Conn, Delivery, FrameNo, Kind, Mode, Op, Oracle, Place, State, To, Uid};
use crate::client::{Frame, parse_number};

/// ERRORs that need no cause of ours: bounds that are small in a simulation, and reached by chance.
const BOUNDS: &[&str] = &[
    "memory-full",
    "staged-too-much",
    "slow-subscriber",
    "frame-too-slow",
    "login-timeout",
];

impl Oracle {
    /// A whole frame has left the broker. `live`: the core still has the session behind that turn.
    pub(crate) fn written(&mut self, conn: Conn, live: bool, frame: &Frame<'_>) {
        self.tick += 1;
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if link.failed {
            return self.report(
                Kind::WireWrong,
                format!("connection {conn}: a frame behind the ERROR"),
            );
        }
        match frame.command {
            b"CONNECTED" => {
                let version = match frame.header("version") {
                    Some(b"1.1") => 11,
                    Some(b"1.2") => 12,
                    _ => 10,
                };
                if link.version != Some(version) {
                    self.report(
                        Kind::WireWrong,
                        format!("connection {conn}: version {version} was not chosen"),
                    );
                }
            }
            b"RECEIPT" => self.written_receipt(conn, frame),
            b"MESSAGE" => self.written_message(conn, live, frame),
            b"ERROR" => self.written_error(conn, frame),
            _ => self.report(
                Kind::WireWrong,
                format!("connection {conn}: no frame of a server"),
            ),
        }
    }

    fn written_receipt(&mut self, conn: Conn, frame: &Frame<'_>) {
        let of = frame.header("receipt-id").and_then(parse_number);
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let due = link.due.pop_front();
        if of.is_none() || of != due {
            return self.report(
                Kind::ReceiptWrong,
                format!("connection {conn}: RECEIPT of {of:?}; that of {due:?} is due"),
            );
        }
        let of = of.unwrap_or_default();
        self.check_duplicate(conn, of, frame.header("duplicate") == Some(b"true"));
        self.confirm(conn, of);
    }

    /// Whether a RECEIPT says `duplicate:true` where it must, and only there.
    fn check_duplicate(&mut self, conn: Conn, of: FrameNo, told: bool) {
        let ops = self.links.get(&conn).and_then(|link| link.ops.get(&of));
        let op = ops.and_then(|ops| ops.first());
        let wrong = match op {
            Some(Op::Again(_, known)) => *known && !told,
            Some(Op::Stored(uid)) => told && self.messages.get(uid).is_some_and(|message| !message.again),
            _ => told,
        };
        if wrong {
            let text = format!("connection {conn}: the RECEIPT of {of} says duplicate:{told} of {op:?}");
            self.report(Kind::DuplicateWrong, text);
        }
    }

    fn written_error(&mut self, conn: Conn, frame: &Frame<'_>) {
        let code = frame.text("code").unwrap_or_default();
        let of = frame.header("receipt-id").and_then(parse_number);
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.failed = true;
        let excused = BOUNDS.contains(&code.as_str())
            || link.excuses.contains(code.as_str())
            || (code == "shutting-down" && self.stopping);
        let due = link.due.front().copied();
        if !excused {
            self.report(
                Kind::Refused,
                format!("connection {conn}: ERROR {code} (receipt-id {of:?})"),
            );
        }
        if let Some(of) = of {
            if due != Some(of) {
                self.report(
                    Kind::ReceiptWrong,
                    format!("connection {conn}: ERROR for {of}; the RECEIPT of {due:?} is due before"),
                );
            }
            self.confirm(conn, of.saturating_sub(1));
            self.void(conn, of);
        }
    }

    fn written_message(&mut self, conn: Conn, live: bool, frame: &Frame<'_>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.message_count += 1;
        let (no, ending) = (link.message_count, link.ending);
        let sub_no = frame
            .header("subscription")
            .and_then(parse_number)
            .and_then(|no| u32::try_from(no).ok());
        let uid = frame.header(UID).and_then(parse_number);
        let (Some(sub_no), Some(uid)) = (sub_no, uid) else {
            return self.report(Kind::Stranger, format!("connection {conn}: a MESSAGE of nobody"));
        };
        let Some(sub) = self.subs.get(&sub_no).filter(|sub| sub.conn == conn) else {
            return self.report(
                Kind::OutsideSubscription,
                format!("message {uid} for subscription {sub_no}, which connection {conn} never made"),
            );
        };
        if sub.receipt.is_some() {
            self.report(
                Kind::OutsideSubscription,
                format!("message {uid} came before the RECEIPT of subscription {sub_no}"),
            );
        }
        let Some(sub) = self.subs.get_mut(&sub_no) else {
            return;
        };
        let unsubscribed = sub.over && !self.links.get(&conn).is_none_or(|link| link.dead);
        if unsubscribed {
            return self.report(
                Kind::OutsideSubscription,
                format!("message {uid} came behind the RECEIPT of the end of subscription {sub_no}"),
            );
        }
        let unasked = sub.prefetch == 0 && sub.asked == 0;
        sub.asked = sub.asked.saturating_sub(1);
        let (to, mode, held_count, prefetch) = (sub.to.clone(), sub.mode, sub.held.len(), sub.prefetch);
        let stale = !live || ending || sub.ending;
        if unasked {
            self.report(
                Kind::CreditExceeded,
                format!("message {uid}: subscription {sub_no} did not ask for it"),
            );
        }
        let state = if stale || mode == Mode::Auto {
            State::Settled
        } else {
            State::Open
        };
        if let Some(link) = self.links.get_mut(&conn) {
            let sub = sub_no;
            link.deliveries.insert(no, Delivery { uid, sub, state });
        }
        if !self.is_whole(uid, frame) {
            return;
        }
        if stale {
            // It may have been on its way while its lease ended: known to have been handed out, but not when.
            if let Some(message) = self.messages.get_mut(&uid) {
                message.exempt = true;
                if mode == Mode::Auto {
                    message.places.push((Place::Gone, Cause::Written));
                }
            }
            return;
        }
        if mode != Mode::Auto && prefetch > 0 && held_count >= prefetch {
            self.report(
                Kind::CreditExceeded,
                format!("message {uid}: subscription {sub_no} holds {held_count} of {prefetch} already"),
            );
        }
        match to {
            To::Topic(topic) => self.written_topic_message(conn, no, sub_no, mode, uid, &topic),
            To::Queue(queue) => self.written_queue_message(conn, no, sub_no, mode, uid, &queue, frame),
        }
    }

    /// Whether a message is what was sent.
    fn is_whole(&mut self, uid: Uid, frame: &Frame<'_>) -> bool {
        let Some(message) = self.messages.get(&uid) else {
            self.report(Kind::Stranger, format!("message {uid}, which nobody sent"));
            return false;
        };
        let destination = match &message.to {
            To::Queue(name) => format!("/queue/{name}"),
            To::Topic(name) => format!("/topic/{name}"),
        };
        if frame.text("destination").as_deref() != Some(&destination) || frame.body != body_of(uid) {
            self.report(Kind::BytesDiffer, format!("message {uid}"));
        }
        let id = frame.text("message-id").unwrap_or_default();
        let uid_before = *self.uid_of_id.entry(id.clone()).or_insert(uid);
        let id_before = self.ids.entry(uid).or_insert_with(|| id.clone());
        if uid_before != uid || *id_before != id {
            let text =
                format!("message {uid} is {id}; it was {id_before}, and that was message {uid_before}");
            self.report(Kind::MessageIdWrong, text);
        }
        true
    }

    fn written_topic_message(&mut self, conn: Conn, no: u64, sub_no: u32, mode: Mode, uid: Uid, topic: &str) {
        let Some(message) = self.messages.get(&uid) else {
            return;
        };
        let (producer, position, tx) = (message.conn, message.position, message.tx);
        if !matches!(&message.to, To::Topic(of) if **of == *topic) {
            return self.report(Kind::Stranger, format!("message {uid} came from topic {topic}"));
        }
        let Some(sub) = self.subs.get_mut(&sub_no) else {
            return;
        };
        if mode != Mode::Auto {
            sub.held.insert(no);
        }
        let again = !sub.came.insert(uid);
        let last = sub.last.insert(producer, (position, uid));
        if again {
            self.report(
                Kind::Doubled,
                format!("message {uid} of topic {topic} on connection {conn}"),
            );
        }
        if let Some((_, other)) = last.filter(|(last, _)| *last > position) {
            self.report(
                Kind::OrderBroken,
                format!("message {uid} of topic {topic} came after {other}, which was sent later"),
            );
        }
        if let Some(tx) = tx {
            self.decide(tx, true, &format!("its message {uid} came"));
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a delivery, its subscription and what it says"
    )]
    fn written_queue_message(
        &mut self,
        conn: Conn,
        no: u64,
        sub_no: u32,
        mode: Mode,
        uid: Uid,
        queue: &str,
        frame: &Frame<'_>,
    ) {
        let Some(message) = self.messages.get(&uid) else {
            return;
        };
        if message.late && message.may_be(&Place::Gone) {
            return;
        }
        if let Some((holder, delivery)) = self.leases.get(&uid) {
            let text = format!("message {uid}, while connection {holder} holds it as delivery {delivery}");
            self.report(Kind::HeldTwice, text);
        }
        self.check_rest(uid, queue, None);
        self.observe(uid, queue, &format!("was delivered to connection {conn} from"));
        self.check_order(sub_no, uid, queue, frame);
        self.check_marks(uid, queue, frame);
        self.leases.insert(uid, (conn, no));
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        message.rest = None;
        message.known += 1;
        message.known_in_life += 1;
        message.exempt = false;
        if mode == Mode::Auto {
            message.places.push((Place::Gone, Cause::Written));
        } else if let Some(sub) = self.subs.get_mut(&sub_no) {
            sub.held.insert(no);
        }
    }

    /// A message is given, or waits until a time: no sooner than it was asked for.
    pub(super) fn check_rest(&mut self, uid: Uid, queue: &str, due_ms: Option<u64>) {
        let Some(message) = self.messages.get(&uid).filter(|message| *message.home == *queue) else {
            return;
        };
        let asked = message.rest.filter(|rest| {
            // What a living session holds is nobody's until its NACK has happened.
            rest.sure || self.links.get(&rest.conn).is_some_and(|link| !link.dead)
        });
        let now_ms = self.now_ms;
        let early = asked.is_some_and(|rest| rest.due_ms > due_ms.unwrap_or(now_ms));
        let unasked = due_ms.is_some_and(|due_ms| {
            let longest = message.rest.map(|rest| now_ms + rest.delay_ms);
            due_ms <= now_ms || (!message.moved && longest.is_none_or(|longest| due_ms > longest))
        });
        if early || unasked {
            let text = format!(
                "message {uid} of {queue} at {now_ms} ms, due {due_ms:?}: {:?}",
                message.rest
            );
            self.report(Kind::RestWrong, text);
        }
    }

    fn check_order(&mut self, sub_no: u32, uid: Uid, queue: &str, frame: &Frame<'_>) {
        let Some(message) = self.messages.get(&uid) else {
            return;
        };
        let sent_there = matches!(&message.to, To::Queue(of) if **of == *queue);
        let first = message.known == 0 && frame.header("redelivered") == Some(b"false");
        if !first || !sent_there || message.moved || message.again {
            return;
        }
        let (producer, position, sent_at) = (message.conn, message.position, message.sent_at);
        let given_back = self.may_have_ended(queue, sent_at);
        let Some(sub) = self.subs.get_mut(&sub_no) else {
            return;
        };
        let last = sub
            .last
            .get(&producer)
            .copied()
            .filter(|(last, _)| *last > position);
        match last {
            None => {
                sub.last.insert(producer, (position, uid));
            }
            Some((_, other)) if !given_back => self.report(
                Kind::OrderBroken,
                format!("message {uid} of {queue} came after {other}, which was sent later"),
            ),
            Some(_) => {}
        }
    }

    fn check_marks(&mut self, uid: Uid, queue: &str, frame: &Frame<'_>) {
        let Some(message) = self.messages.get(&uid) else {
            return;
        };
        if message.exempt {
            if let Some(message) = self.messages.get_mut(&uid) {
                message.known = 0;
                message.known_in_life = 0;
            }
            return;
        }
        let redelivered = frame.header("redelivered") == Some(b"true");
        let count = frame.header("delivery-count").and_then(parse_number).unwrap_or(0);
        let (known, in_life, sent_at) = (message.known, message.known_in_life, message.sent_at);
        if (known > 0 && !redelivered) || count < u64::from(in_life) + 1 {
            self.report(
                Kind::MarkWrong,
                format!(
                    "message {uid} of {queue} says redelivered:{redelivered}, delivery-count:{count}, after {known} \
                     deliveries, {in_life} of them in this life"
                ),
            );
        }
        let excluded = known == 0 && self.crashed_at < sent_at && !self.may_have_ended(queue, sent_at);
        if excluded && (redelivered || count != 1) {
            self.report(
                Kind::MarkWrong,
                format!("message {uid} of {queue} says redelivered:{redelivered}, delivery-count:{count} on its first"),
            );
        }
    }

    /// RECEIPTs that are due.
    pub(super) fn due(&self, conn: Conn) -> Option<FrameNo> {
        self.links.get(&conn).and_then(|link| link.due.front().copied())
    }
}
