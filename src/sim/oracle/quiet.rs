//! The look at a quiet moment: nothing is on its way, everything is flushed, and each queue shows what it holds. Behind
//! it nothing is uncertain any more.

use std::collections::BTreeMap;

use super::{Cause, Conn, Kind, Mode, Oracle, Place, State, To, Uid};
use crate::port::QueueView;

/// An entry, as it is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) uid: Uid,
    pub(crate) failures: u32,
    pub(crate) leased: bool,
    /// Until when it rests, since the beginning.
    pub(crate) due_ms: Option<u64>,
}

/// A queue, as it is seen.
#[derive(Debug)]
pub(crate) struct QueueLook {
    pub(crate) view: QueueView,
    pub(crate) entries: Vec<Seen>,
}

/// All queues, as they are seen.
pub(crate) type Look = Vec<QueueLook>;

impl Oracle {
    /// See the module's text.
    pub(crate) fn quiet(&mut self, look: &Look) {
        self.tick += 1;
        self.settle_links();
        let mut seen: BTreeMap<Uid, (&QueueLook, Seen)> = BTreeMap::new();
        for queue in look {
            if self.copies.contains_key(&queue.view.name as &str) {
                self.check_copies(queue);
                continue;
            }
            for entry in &queue.entries {
                if seen.insert(entry.uid, (queue, *entry)).is_some() {
                    let text = format!("message {} is in {} and elsewhere", entry.uid, queue.view.name);
                    self.report(Kind::Doubled, text);
                }
            }
            self.check_entry_order(queue);
        }
        for (uid, (queue, entry)) in &seen {
            self.check_entry(*uid, &queue.view.name, *entry);
        }
        let absent: Vec<Uid> = self
            .unsettled
            .iter()
            .filter(|uid| !seen.contains_key(uid))
            .copied()
            .collect();
        absent.into_iter().for_each(|uid| self.check_absent(uid));
        self.recount();
        let copies = &self.copies;
        let queues = look
            .iter()
            .filter(|queue| !copies.contains_key(&queue.view.name as &str));
        queues
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|queue| self.check_view(queue));
        self.check_topics();
        self.forget();
    }

    /// What is sent on a connection that goes on has been executed; what is left on others never will be.
    fn settle_links(&mut self) {
        let conns: Vec<(Conn, bool)> = self
            .links
            .iter()
            .map(|(no, link)| (*no, link.dead || link.failed))
            .collect();
        for (conn, dead) in conns {
            if dead {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.ops.clear();
                }
                continue;
            }
            if let Some(due) = self.due(conn) {
                self.report(
                    Kind::ReceiptWrong,
                    format!("connection {conn}: nothing moves, and the RECEIPT of {due} has not come"),
                );
            }
            self.confirm(conn, u64::MAX);
        }
        // What was written in `auto` mode, and told to the core, is settled.
        let mut written = Vec::new();
        self.leases.retain(|uid, (conn, delivery)| {
            let sub = self
                .links
                .get(conn)
                .and_then(|link| link.deliveries.get(delivery))
                .and_then(|delivery| self.subs.get(&delivery.sub));
            let auto = sub.is_some_and(|sub| sub.mode == Mode::Auto);
            if auto {
                written.push(*uid);
            }
            !auto
        });
        for uid in written {
            self.leave_only(uid, &Place::Gone);
        }
    }

    fn check_copies(&mut self, queue: &QueueLook) {
        let name = &*queue.view.name;
        let Some((of, count, lost)) = self.copies.get(name) else {
            return;
        };
        let found = queue.entries.len() as u64;
        let strange = queue.entries.iter().find(|entry| !of.contains(&entry.uid));
        let wrong = found > *count || (!lost && found < *count);
        if let Some(entry) = strange {
            let text = format!("message {} is among the copies in {name}", entry.uid);
            self.report(Kind::Stranger, text);
        } else if wrong {
            let text = format!("{found} copies are in {name}, of {count}");
            self.report(Kind::Lost, text);
        }
    }

    fn check_entry_order(&mut self, queue: &QueueLook) {
        let mut last: BTreeMap<Conn, ((u64, u64), Uid)> = BTreeMap::new();
        let mut broken = Vec::new();
        for entry in &queue.entries {
            let Some(message) = self.messages.get(&entry.uid) else {
                continue;
            };
            let own = matches!(&message.to, To::Queue(of) if **of == *queue.view.name);
            if !own || message.moved || message.again {
                continue;
            }
            let place = (message.position, entry.uid);
            if let Some((before, other)) = last.insert(message.conn, place)
                && before > message.position
            {
                broken.push((entry.uid, other));
            }
        }
        for (uid, other) in broken {
            let text = format!(
                "message {uid} stands in {} behind {other}, which was sent later",
                queue.view.name
            );
            self.report(Kind::OrderBroken, text);
        }
    }

    fn check_entry(&mut self, uid: Uid, queue: &str, entry: Seen) {
        if !entry.leased {
            self.check_rest(uid, queue, entry.due_ms);
        }
        let until_ms = self
            .messages
            .get(&uid)
            .and_then(|message| message.expiry?.until_ms);
        if until_ms.is_some_and(|until_ms| until_ms <= self.now_ms) && !queue.starts_with("DLQ.") {
            let text = format!(
                "message {uid} is in {queue} at {}, and expired at {until_ms:?}",
                self.now_ms
            );
            self.report(Kind::Expired, text);
        }
        self.observe(uid, queue, "is in");
        let Some(message) = self.messages.get_mut(&uid) else {
            return self.report(
                Kind::Stranger,
                format!("message {uid} is in {queue}, and nobody sent it"),
            );
        };
        let (least, most) = message.failures;
        message.failures = (entry.failures, entry.failures);
        // What is decided later about settlements asked for before is counted in it.
        message.era += 1;
        if entry.failures < least || entry.failures > most {
            self.report(
                Kind::FailuresWrong,
                format!(
                    "message {uid} in {queue} has {} failures, not {least} to {most}",
                    entry.failures
                ),
            );
        }
    }

    /// A message that is in no queue.
    fn check_absent(&mut self, uid: Uid) {
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        let absent: Vec<(Place, Cause)> = message
            .places
            .iter()
            .filter(|(place, _)| !matches!(place, Place::In(_)))
            .cloned()
            .collect();
        let sent = message.tx;
        if absent.is_empty() {
            let text = format!("message {uid} is in no queue; it must be in {:?}", message.places);
            message.places = vec![(Place::Gone, Cause::Sure)];
            self.report(Kind::Lost, text);
            return;
        }
        let never = absent.iter().all(|(place, _)| *place == Place::Nowhere);
        let sent_at_all = absent.iter().all(|(place, _)| *place == Place::Gone);
        message.places = match (never, sent_at_all) {
            (true, _) => vec![(Place::Nowhere, Cause::Sure)],
            (_, true) => vec![(Place::Gone, Cause::Sure)],
            // Which of them the transaction it was sent in will tell, or nobody.
            _ => absent.clone(),
        };
        let by = absent.first().map(|(_, cause)| *cause);
        if let (true, Some(tx)) = (never, sent)
            && self.txs.get(&tx).is_some_and(|tx| tx.committed.is_some())
        {
            self.decide(tx, false, &format!("its message {uid} is not there"));
        }
        if let Some(Cause::Tx(tx)) = by
            && absent.iter().all(|(_, cause)| *cause == Cause::Tx(tx))
        {
            self.decide(tx, true, &format!("message {uid}, which it settled, is gone"));
        }
    }

    /// What each subscription holds is known again, also of what an ABORT gave back.
    fn recount(&mut self) {
        for (no, sub) in &mut self.subs {
            if sub.ending && !sub.over {
                continue;
            }
            let Some(link) = self.links.get(&sub.conn) else {
                continue;
            };
            let open = |(delivery, of): (&u64, &super::Delivery)| {
                (of.sub == *no && of.state == State::Open).then_some(*delivery)
            };
            sub.held = link.deliveries.iter().filter_map(open).collect();
        }
    }

    fn check_view(&mut self, queue: &QueueLook) {
        let (view, name) = (&queue.view, &*queue.view.name);
        let leased = queue.entries.iter().filter(|entry| entry.leased).count() as u64;
        let differs = |entry: &&Seen| entry.leased != self.leases.contains_key(&entry.uid);
        let differing: Vec<Uid> = queue
            .entries
            .iter()
            .filter(differs)
            .map(|entry| entry.uid)
            .collect();
        let depth = queue.entries.len() as u64;
        let subs: Vec<_> = self
            .subs
            .values()
            .filter(|sub| matches!(&sub.to, To::Queue(of) if **of == *name) && !sub.over)
            .filter(|sub| self.links.get(&sub.conn).is_some_and(|link| !link.dead))
            .collect();
        let sub_count = subs.len() as u64;
        let resting = queue
            .entries
            .iter()
            .filter(|entry| entry.due_ms.is_some())
            .count() as u64;
        let ready = depth - leased - resting;
        let could = subs.iter().any(|sub| !sub.is_full());
        let paused = self.paused.get(name).copied().flatten();
        let expected = (depth, ready, leased, resting, sub_count);
        let told = (
            view.depth,
            view.ready_count,
            view.leased_count,
            view.delayed_count,
            view.subscription_count,
        );
        if !differing.is_empty() {
            let text =
                format!("{name}: messages {differing:?} are leased and held by nobody, or the reverse");
            self.report(Kind::ViewWrong, text);
        }
        if told != expected {
            self.report(
                Kind::ViewWrong,
                format!("{name}: depth, ready, leased, resting, subscriptions are {expected:?}, and told as {told:?}"),
            );
        }
        if paused.is_some_and(|paused| paused != view.paused) {
            self.report(Kind::ViewWrong, format!("{name}: paused is {}", view.paused));
        }
        if ready > 0 && could && !view.paused {
            self.report(
                Kind::Stuck,
                format!("{name}: {ready} messages wait, nothing moves, and a subscription has credit"),
            );
        }
    }

    /// Each topic message reached each subscription that stood before it was sent.
    fn check_topics(&mut self) {
        let mut missing = Vec::new();
        for (no, sub) in &self.subs {
            let (To::Topic(topic), Some(ready_at)) = (&sub.to, sub.ready_at) else {
                continue;
            };
            let gone = self
                .links
                .get(&sub.conn)
                .is_none_or(|link| link.dead || link.ending || link.failed);
            if gone || sub.is_full() || sub.ending {
                continue;
            }
            for uid in &self.published {
                let Some(message) = self.messages.get(uid) else {
                    continue;
                };
                let there = matches!(&message.to, To::Topic(of) if of == topic) && message.sent_at > ready_at;
                let executed = match message.tx {
                    Some(tx) => self.txs.get(&tx).is_some_and(|tx| tx.happened == Some(true)),
                    None => self
                        .links
                        .get(&message.conn)
                        .is_some_and(|link| !link.dead && !link.failed),
                };
                if there && executed && !sub.came.contains(uid) {
                    missing.push((*uid, *no));
                }
            }
        }
        for (uid, sub) in missing {
            self.report(
                Kind::Lost,
                format!("topic message {uid} did not reach subscription {sub}"),
            );
        }
    }

    /// What is settled for good needs no more looks; nothing is late any more.
    fn forget(&mut self) {
        let messages = &mut self.messages;
        self.unsettled.retain(|uid| {
            let Some(message) = messages.get_mut(uid) else {
                return false;
            };
            message.late = false;
            let open = message
                .tx
                .is_some_and(|tx| self.txs.get(&tx).is_some_and(|tx| tx.happened.is_none()));
            open || message
                .places
                .iter()
                .any(|(place, _)| matches!(place, Place::In(_)))
        });
        let links = &self.links;
        // Whether a topic message was sent is certain only while its producer is there.
        self.published.retain(|uid| {
            messages
                .get(uid)
                .is_some_and(|message| links.contains_key(&message.conn))
        });
    }

    /// At the end of a run, every queue drained: nothing is left.
    pub(crate) fn drained(&mut self, look: &Look) {
        for queue in look.iter().filter(|queue| !queue.entries.is_empty()) {
            let text = format!(
                "{} messages of {} cannot be drained",
                queue.entries.len(),
                queue.view.name
            );
            self.report(Kind::Stuck, text);
        }
    }
}
