//! Settlements and transactions: asked for, confirmed, undone.

use std::rc::Rc;

use super::{Cause, Conn, FrameNo, Kind, Mode, Op, Oracle, Outcome, Place, State, To, Uid, dead_letters_of};

impl Oracle {
    /// ACK or NACK. What the client names is what it got; whether that still has its lease is known here.
    pub(super) fn settle(
        &mut self,
        conn: Conn,
        frame: FrameNo,
        delivery: u64,
        (accepted, delay_ms): (bool, Option<u64>),
        tx: Option<u32>,
    ) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let Some(named) = link.deliveries.get(&delivery) else {
            return;
        };
        let sub_no = named.sub;
        let Some(sub) = self.subs.get_mut(&sub_no) else {
            return;
        };
        if sub.ending || sub.over {
            return;
        }
        let first = if sub.mode == Mode::Client { 0 } else { delivery };
        let mut settled = Vec::new();
        for (no, of) in link.deliveries.range_mut(first..=delivery) {
            if of.sub == sub_no && of.state == State::Open {
                of.state = if tx.is_some() {
                    State::Staged
                } else {
                    State::Settled
                };
                sub.held.remove(no);
                settled.push((*no, of.uid));
            }
        }
        for (no, uid) in settled {
            if let Some(tx) = tx {
                let staged = (conn, no, uid, accepted, delay_ms);
                self.txs.entry(tx).or_default().settles.push(staged);
            } else if self.leases.get(&uid) == Some(&(conn, no)) {
                self.leases.remove(&uid);
                let cause = Cause::Frame(conn, frame);
                self.may_rest(uid, conn, delay_ms, cause);
                if let Some(outcome) = self.may_settle(uid, accepted, cause) {
                    self.push_op(conn, frame, Op::Settled(uid, outcome));
                }
            }
        }
    }

    /// A message is answered: it rests from then on, or does not.
    fn may_rest(&mut self, uid: Uid, conn: Conn, delay_ms: Option<u64>, cause: Cause) {
        let now_ms = self.now_ms;
        if let Some(message) = self.messages.get_mut(&uid) {
            message.rest = delay_ms.map(|delay_ms| super::Rest {
                conn,
                cause,
                due_ms: now_ms + delay_ms,
                delay_ms,
                sure: false,
            });
        }
    }

    /// A settlement may happen from now on.
    fn may_settle(&mut self, uid: Uid, accepted: bool, cause: Cause) -> Option<Outcome> {
        let failures_max = self.failures_max;
        let message = self.messages.get_mut(&uid)?;
        let outcome = message.outcome(accepted);
        if outcome == Outcome::Accepted {
            message.places.push((Place::Gone, cause));
            return Some(outcome);
        }
        message.failures.1 += 1;
        if message.failures.1 >= failures_max
            && let Some(dead) = dead_letters_of(&message.home)
        {
            message.places.push((Place::In(dead), cause));
        }
        Some(outcome)
    }

    /// A settlement has happened.
    fn has_settled(&mut self, uid: Uid, outcome: Outcome, cause: Cause) {
        let failures_max = self.failures_max;
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        if let Some(rest) = message.rest.as_mut().filter(|rest| rest.cause == cause) {
            rest.sure = true;
        }
        match outcome {
            Outcome::Accepted => {
                if !self.leave_only(uid, &Place::Gone) {
                    self.report(
                        Kind::SettledAgain,
                        format!("message {uid}: its settlement is confirmed, and it was there behind it"),
                    );
                }
            }
            Outcome::Failed(era) if era == message.era => {
                message.failures.0 += 1;
                let home = Place::In(Rc::clone(&message.home));
                let for_good = message.failures.0 >= failures_max && dead_letters_of(&message.home).is_some();
                if !for_good || !message.persistent {
                    return;
                }
                message.places.retain(|(place, _)| *place != home);
                if message.places.is_empty() {
                    message.places.push((home, Cause::Sure));
                    self.report(
                        Kind::FailuresWrong,
                        format!("message {uid} has failed for good, and is still in its queue"),
                    );
                }
            }
            Outcome::Failed(_) => {}
        }
    }

    /// A settlement has not happened, and will not.
    fn has_not_settled(&mut self, uid: Uid, outcome: Outcome, cause: Cause) {
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        message.places.retain(|(_, of)| *of != cause);
        message.rest = message.rest.filter(|rest| rest.cause != cause);
        if outcome == Outcome::Failed(message.era) {
            message.failures.1 = message.failures.1.saturating_sub(1).max(message.failures.0);
        }
        if message.places.is_empty() {
            message.places.push((Place::Gone, Cause::Sure));
            self.report(
                Kind::SettledAgain,
                format!("message {uid}: what was refused or undone has settled it"),
            );
        }
    }

    /// COMMIT is sent: all of it may happen.
    pub(super) fn commit(&mut self, frame: FrameNo, no: u32) {
        let Some(tx) = self.txs.get_mut(&no) else { return };
        tx.committed = Some(frame);
        let sends = tx.sends.clone();
        let settles = std::mem::take(&mut tx.settles);
        for (index, uid) in (1..).zip(sends) {
            let Some(message) = self.messages.get_mut(&uid) else {
                continue;
            };
            message.position = (frame, index);
            let home = Rc::clone(&message.home);
            message.places.push((Place::In(home), Cause::Tx(no)));
            self.may_expire(uid);
        }
        for (conn, delivery, uid, accepted, delay_ms) in settles {
            if self.leases.get(&uid) != Some(&(conn, delivery)) {
                continue;
            }
            self.leases.remove(&uid);
            self.may_rest(uid, conn, delay_ms, Cause::Tx(no));
            if let Some(outcome) = self.may_settle(uid, accepted, Cause::Tx(no)) {
                self.txs.entry(no).or_default().applied.push((uid, outcome));
            }
        }
    }

    /// ABORT is sent: what is staged is held again.
    pub(super) fn abort(&mut self, no: u32) {
        let Some(tx) = self.txs.get_mut(&no) else { return };
        for (conn, delivery, uid, _, _) in std::mem::take(&mut tx.settles) {
            let Some(link) = self.links.get_mut(&conn) else {
                continue;
            };
            let Some(of) = link.deliveries.get_mut(&delivery) else {
                continue;
            };
            of.state = State::Open;
            let ended = self.subs.get(&of.sub).is_none_or(|sub| sub.ending || sub.over);
            if ended && self.leases.get(&uid) == Some(&(conn, delivery)) {
                self.leases.remove(&uid);
            }
        }
    }

    /// It is known whether a transaction happened: then all of it, or nothing.
    pub(super) fn decide(&mut self, no: u32, happened: bool, why: &str) {
        let Some(tx) = self.txs.get_mut(&no) else { return };
        if tx.committed.is_none() && happened {
            return self.report(
                Kind::TransactionSplit,
                format!("transaction {no} was not committed, and {why}"),
            );
        }
        match tx.happened {
            Some(known) if known == happened => return,
            Some(_) => {
                return self.report(
                    Kind::TransactionSplit,
                    format!(
                        "transaction {no} has {}happened, and {why}",
                        if happened { "not " } else { "" }
                    ),
                );
            }
            None => tx.happened = Some(happened),
        }
        let (sends, applied) = (tx.sends.clone(), tx.applied.clone());
        for uid in sends {
            let Some(message) = self.messages.get_mut(&uid) else {
                continue;
            };
            if let To::Topic(_) = message.to {
                continue;
            }
            message
                .places
                .retain(|(place, _)| (*place == Place::Nowhere) != happened);
            if message.places.is_empty() {
                message.places.push((Place::Nowhere, Cause::Sure));
                self.report(
                    Kind::TransactionSplit,
                    format!("transaction {no}: {why}; its message {uid} says otherwise"),
                );
            }
        }
        for (uid, outcome) in applied {
            if happened {
                self.has_settled(uid, outcome, Cause::Tx(no));
            } else {
                self.has_not_settled(uid, outcome, Cause::Tx(no));
            }
        }
    }

    /// Every frame of a connection up to this one has had its effect.
    pub(super) fn confirm(&mut self, conn: Conn, up_to: FrameNo) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let rest = match up_to.checked_add(1) {
            Some(next) => link.ops.split_off(&next),
            None => Default::default(),
        };
        let done = std::mem::replace(&mut link.ops, rest);
        let done = done
            .into_iter()
            .flat_map(|(frame, ops)| ops.into_iter().map(move |op| (frame, op)));
        for (frame, op) in done {
            match op {
                Op::Stored(uid) | Op::Again(uid, _) => self.has_been_stored(uid),
                Op::Settled(uid, outcome) => self.has_settled(uid, outcome, Cause::Frame(conn, frame)),
                Op::Commit(tx) => self.decide(tx, true, "its COMMIT is confirmed"),
                Op::Abort => {}
                Op::Subscribed(sub) => {
                    let tick = self.tick;
                    if let Some(sub) = self.subs.get_mut(&sub) {
                        sub.ready_at = Some(tick);
                        sub.receipt = None;
                    }
                }
                Op::Unsubscribed(sub) => self.sub_is_over(sub),
            }
        }
    }

    fn has_been_stored(&mut self, uid: Uid) {
        let now_ms = self.now_ms;
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        message.places.retain(|(place, _)| *place != Place::Nowhere);
        if let Some(expiry) = &mut message.expiry {
            expiry
                .until_ms
                .get_or_insert(now_ms.saturating_add(expiry.ttl_ms));
        }
        if message.places.is_empty() {
            message.places.push((Place::Nowhere, Cause::Sure));
            self.report(
                Kind::Lost,
                format!("message {uid} is confirmed, and it was not there"),
            );
        }
    }

    /// No frame of a connection from this one on has had an effect, or will.
    pub(super) fn void(&mut self, conn: Conn, from: FrameNo) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        for (frame, ops) in link.ops.split_off(&from) {
            for op in ops {
                let cause = Cause::Frame(conn, frame);
                match op {
                    Op::Stored(uid) => {
                        let Some(message) = self.messages.get_mut(&uid) else {
                            continue;
                        };
                        if matches!(message.to, To::Topic(_)) {
                            continue;
                        }
                        if message.again {
                            message.forget_place(cause);
                        } else if !self.leave_only(uid, &Place::Nowhere) {
                            self.report(
                                Kind::Stranger,
                                format!(
                                    "message {uid} was refused, or stood behind a refused frame, and came"
                                ),
                            );
                        }
                    }
                    Op::Settled(uid, outcome) => self.has_not_settled(uid, outcome, cause),
                    Op::Again(uid, _) => {
                        if let Some(message) = self.messages.get_mut(&uid) {
                            message.forget_place(cause);
                        }
                    }
                    Op::Commit(tx) => self.decide(tx, false, "its COMMIT was refused"),
                    Op::Abort | Op::Subscribed(_) | Op::Unsubscribed(_) => {}
                }
            }
        }
    }

    /// A message was seen in a queue.
    pub(super) fn observe(&mut self, uid: Uid, queue: &str, how: &str) {
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        if !message.may_be_in(queue) {
            let kind = match message.places.first() {
                Some((Place::Gone, _)) => Kind::SettledAgain,
                _ => Kind::Stranger,
            };
            let places = format!("{:?}", message.places);
            return self.report(
                kind,
                format!("message {uid} {how} {queue}, where it cannot be: {places}"),
            );
        }
        let undone: Vec<u32> = message
            .places
            .iter()
            .filter_map(|(place, cause)| match (place, cause) {
                (Place::Gone, Cause::Tx(tx)) => Some(*tx),
                _ => None,
            })
            .collect();
        let sent = message.tx;
        message.places = vec![(Place::In(queue.into()), Cause::Sure)];
        let is_dead = queue.starts_with("DLQ.");
        if *message.home != *queue {
            message.rest = None;
            message.home = queue.into();
            message.failures = (0, 0);
            message.era += 1;
            message.known = 0;
            message.known_in_life = 0;
        }
        for tx in undone {
            self.decide(
                tx,
                false,
                &format!("message {uid}, which it settled, is in {queue}"),
            );
        }
        if let Some(tx) = sent {
            self.decide(tx, true, &format!("its message {uid} is in {queue}"));
        }
        if is_dead && let Some(message) = self.messages.get_mut(&uid) {
            // A dead letter waits for a person.
            message.expiry = None;
        }
        self.may_expire(uid);
    }
}

impl super::Message {
    /// What would have brought it there has not happened.
    fn forget_place(&mut self, cause: Cause) {
        self.places.retain(|(_, of)| *of != cause);
        if self.places.is_empty() {
            self.places.push((Place::Nowhere, Cause::Sure));
        }
    }
}
