//! Dispatch: choosing the next entry and subscription.

use crate::base::{Now, SessionNo, SubNo, Tag};
use crate::port::{AckMode, Delivery, Event, Outcome};

use super::Broker;
use super::expiry::EXPIRE_TICK;
use super::lanes::{LaneNo, PLAIN, Takers};
use super::overflow::SHED_INPUT;
use super::peer::{Source, Unsent};
use super::queue::{QueueNo, SubRef};
use super::ring::Class;

impl Broker {
    /// Serves every queue in which something changed, and forgets those that nothing refers to.
    pub(super) fn dispatch(&mut self, now: Now) {
        if !self.overfull.is_empty() {
            self.shed(SHED_INPUT);
        }
        while let Some(no) = self.dirty.pop_front() {
            if let Some(queue) = self.queue_mut(no) {
                queue.dirty = false;
                let paused = queue.paused;
                // First, so that what is taken at once was seen before.
                self.browse_queue(no);
                if !paused {
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
            let Some((sequence, lane)) = queue.next_ready() else {
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
            match self.pick(no, sequence, lane) {
                Some(to) => self.deliver(no, sequence, lane, to, now),
                // Others may go on where this one is for somebody who has no credit.
                None => match self.queue_mut(no).and_then(|queue| queue.lanes.as_mut()) {
                    Some(lanes) => lanes.park(lane),
                    None => return,
                },
            }
        }
    }

    /// The next subscription in turn that can take the entry; one that has just nacked it only if no other can.
    /// The one picked is out of the ring.
    fn pick(&mut self, no: QueueNo, sequence: u64, lane: LaneNo) -> Option<SubRef> {
        let bytes_max = self.limits.prefetch_bytes_max;
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut)?;
        let takers = match &queue.lanes {
            Some(lanes) => lanes.takers(lane),
            None => Takers::Any,
        };
        let only = match (queue.only(), takers) {
            (_, Takers::None) => return None,
            (Some(only), Takers::One(owner)) if only != owner => return None,
            (Some(only), _) | (None, Takers::One(only)) => Some(only),
            (None, Takers::Any) => None,
        };
        let matched = match &queue.lanes {
            Some(lanes) if lane != PLAIN => lanes.matched(lane),
            _ => Vec::new(),
        };
        let len = queue.entries.get(sequence).expect("a ready entry exists").len as usize;
        let nacked_by = queue.nacked_by.get(&sequence).copied();
        let mut last = None;
        for _ in 0..queue.ring.len() {
            let to = match only {
                Some(only) => {
                    let sub = self.peers.get(&only.0)?.subs.get(&only.1)?;
                    let is_let = |selector| matched.binary_search(&selector).is_ok();
                    if !sub.in_ring || !sub.class.selector.is_none_or(is_let) {
                        return None;
                    }
                    queue.ring.remove(sub.class, only);
                    only
                }
                None => match queue.ring.pop(&matched) {
                    Some(to) => to,
                    None => break,
                },
            };
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
            } else if nacked_by == Some(to) && only.is_none() {
                last = Some((sub.class, to));
            } else {
                if let Some((class, last)) = last {
                    queue.ring.push_front(class, last);
                }
                return Some(to);
            }
        }
        last.map(|(_, last)| last)
    }

    fn deliver(&mut self, no: QueueNo, sequence: u64, lane: LaneNo, to: SubRef, now: Now) {
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
        let class = match lane {
            PLAIN => Class::default(),
            _ => {
                let sub = self.peers.get(&session).and_then(|peer| peer.subs.get(&sub_no));
                sub.map_or_else(Class::default, |sub| sub.class)
            }
        };
        let entry = queue.lease(sequence, lane, to, class);
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
            queue.ring.push(sub.class, to);
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
            sequence: Some(sequence),
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
        // The end of what a browser sees needs no credit.
        if !sub.has_credit() && !sub.is_browser() {
            return;
        }
        match &sub.source {
            Source::Queue(queue_no) => {
                let (queue_no, class) = (*queue_no, sub.class);
                let was_in = std::mem::replace(&mut sub.in_ring, true);
                let queue = self.queue_mut(queue_no).expect("it has a subscription");
                if !was_in {
                    queue.ring.push(class, (session, no));
                }
                let lanes = queue.lanes.as_mut();
                let waited = lanes.is_some_and(|lanes| lanes.unpark_for((session, no), class.selector));
                if !was_in || waited {
                    self.mark_dirty(queue_no);
                }
            }
            Source::Topic { .. } => self.pump_topic(session, no),
            Source::Browse(_) => self.browse(session, no),
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
