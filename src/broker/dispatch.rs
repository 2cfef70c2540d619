//! Dispatch: choosing the next entry and subscription.

use crate::base::{Now, SessionNo, SubNo, Tag};
use crate::port::{AckMode, Delivery, Event, Outcome};

use super::Broker;
use super::expiry::EXPIRE_TICK;
use super::overflow::SHED_INPUT;
use super::peer::{Source, Unsent};
use super::queue::{QueueNo, SubRef};

impl Broker {
    /// Serves every queue in which something changed, and forgets those that nothing refers to.
    pub(super) fn dispatch(&mut self, now: Now) {
        if !self.overfull.is_empty() {
            self.shed(SHED_INPUT);
        }
        while let Some(no) = self.dirty.pop_front() {
            if let Some(queue) = self.queue_mut(no) {
                queue.dirty = false;
                if !queue.paused {
                    self.dispatch_queue(no, now);
                }
                self.close_queue_if_idle(no);
            }
        }
    }

    fn dispatch_queue(&mut self, no: QueueNo, now: Now) {
        let durable = self.ledger.durable();
        let mut expired_count = 0;
        while let Some(queue) = self.queue_mut(no) {
            if queue.ring.is_empty() {
                return;
            }
            let Some(sequence) = queue.next_ready() else {
                return;
            };
            if self.expire_one(no, sequence, now) {
                expired_count += 1;
                if expired_count < EXPIRE_TICK {
                    continue;
                }
                // The rest goes by and by, and what is behind it then.
                return;
            }
            let queue = self.queue_mut(no).expect("it was just there");
            let home = queue.entries.get(sequence).expect("a ready entry exists").home;
            if queue.moved_at.min(home) > durable {
                return;
            }
            let Some(to) = self.pick(no, sequence) else { return };
            self.deliver(no, sequence, to, now);
        }
    }

    /// The next subscription in turn that can take the entry; one that has just nacked it only if no other can.
    /// The one picked is out of the ring.
    fn pick(&mut self, no: QueueNo, sequence: u64) -> Option<SubRef> {
        let bytes_max = self.limits.prefetch_bytes_max;
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut)?;
        let len = queue.entries.get(sequence).expect("a ready entry exists").len as usize;
        let nacked_by = queue.nacked_by.get(&sequence).copied();
        let mut last = None;
        for _ in 0..queue.ring.len() {
            let to = queue.ring.pop_front()?;
            let peer = self
                .peers
                .get_mut(&to.0)
                .expect("the ring holds live subscriptions");
            let sub = peer
                .subs
                .get_mut(&to.1)
                .expect("the ring holds live subscriptions");
            let over = |bytes: usize| bytes > 0 && bytes + len > bytes_max;
            if !sub.has_credit() || over(sub.unsent_bytes) || over(peer.unsent_bytes) {
                peer.blocked |= over(peer.unsent_bytes);
                sub.in_ring = false;
            } else if nacked_by == Some(to) {
                last = Some(to);
            } else {
                if let Some(last) = last {
                    queue.ring.push_front(last);
                }
                return Some(to);
            }
        }
        last
    }

    fn deliver(&mut self, no: QueueNo, sequence: u64, to: SubRef, now: Now) {
        let (session, sub_no) = to;
        let queue = self
            .queues
            .get_mut(no.0 as usize)
            .and_then(Option::as_mut)
            .expect("its entry was just seen");
        if !queue.nacked_by.is_empty() {
            queue.nacked_by.remove(&sequence);
        }
        queue.counters.out_count += 1;
        let entry = queue.lease(sequence);
        let redelivered = entry.deliveries > 0 || entry.suspect;
        entry.deliveries += 1;
        let (message, len) = (entry.message, entry.len);
        let body = entry.bytes.body(|slot| self.ledger.chunk_in(slot));
        let (header_len, delivery_count) = (entry.header_len, entry.deliveries);
        let death = entry.last_death();
        let stated_ms = entry.ack_timeout_ms().unwrap_or(queue.policy.ack_timeout_ms);
        let peer = self.peers.get_mut(&session).expect("pick found it");
        let by_message = peer.subs.get(&sub_no).is_some_and(|sub| sub.by_message);
        let tag = peer.hold(sub_no, message, Some((no, sequence)), by_message, now.mono_ms);
        peer.unsent.push_back(Unsent {
            tag,
            sub: sub_no,
            len: len as usize,
        });
        peer.unsent_bytes += len as usize;
        let sub = peer.subs.get_mut(&sub_no).expect("pick found it");
        sub.take(tag, len as usize);
        sub.in_ring = sub.has_credit();
        if sub.in_ring {
            queue.ring.push_back(to);
        } else {
            sub.moved_at_ms = now.mono_ms;
        }
        if stated_ms > 0 || sub.ack_timeout_ms.is_some() {
            self.give_lease(session, tag, stated_ms, now);
        }
        self.counters.delivered_count += 1;
        let delivery = Delivery {
            tag,
            sub: sub_no,
            message,
            body,
            header_len,
            len,
            delivery_count,
            redelivered,
            death,
        };
        self.push_event(session, Event::Delivery(delivery));
    }

    /// A subscription may have credit or room again: back into the ring, at its end.
    pub(super) fn refill(&mut self, session: SessionNo, no: SubNo) {
        let Some(sub) = self
            .peers
            .get_mut(&session)
            .and_then(|peer| peer.subs.get_mut(&no))
        else {
            return;
        };
        if !sub.has_credit() || sub.in_ring {
            return;
        }
        match &sub.source {
            Source::Queue(queue_no) => {
                let queue_no = *queue_no;
                sub.in_ring = true;
                let queue = self.queue_mut(queue_no).expect("it has a subscription");
                queue.ring.push_back((session, no));
                self.mark_dirty(queue_no);
            }
            Source::Topic { .. } => self.pump_topic(session, no),
        }
    }

    /// See `handle_written`.
    pub(super) fn written(&mut self, session: SessionNo, up_to: Tag, now: Now) {
        self.unpin(session, up_to);
        let mut last: Option<SubNo> = None;
        while let Some(peer) = self.peers.get_mut(&session)
            && let Some(unsent) = peer.unsent.front().copied()
            && unsent.tag <= up_to
        {
            peer.unsent.pop_front();
            peer.unsent_bytes -= unsent.len;
            let Some(sub) = peer.subs.get_mut(&unsent.sub) else {
                continue;
            };
            sub.unsent_bytes -= unsent.len;
            if sub.ack_mode == AckMode::Auto {
                self.conclude(session, unsent.tag, Outcome::Accepted, None, now);
            } else if last != Some(unsent.sub) {
                if let Some(last) = last {
                    self.refill(session, last);
                }
                last = Some(unsent.sub);
            }
        }
        if let Some(last) = last {
            self.refill(session, last);
        }
        // Asked only now: a subscription may have been passed over while bytes of this very call were counted.
        let blocked = self
            .peers
            .get_mut(&session)
            .is_some_and(|peer| std::mem::take(&mut peer.blocked));
        if blocked {
            let subs: Vec<SubNo> = self
                .peers
                .get(&session)
                .map(|peer| peer.subs.keys().copied().collect())
                .unwrap_or_default();
            subs.into_iter().for_each(|sub| self.refill(session, sub));
        }
    }
}
