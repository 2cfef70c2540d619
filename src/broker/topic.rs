//! Topics: fan-out to the subscriptions present, in memory, bounded.

use std::sync::Arc;

use crate::base::{Seq, SessionNo, SubNo};
use crate::port::{Body, Delivery, Event, Filter, Refusal};

use super::peer::{Peer, Source, Sub, TopicMessage, Unsent};
use super::queue::expiry_of;
use super::selectors::Headers;
use super::{Broker, Notice};

impl Broker {
    /// A message for a topic. Behind one that waits for its transaction it waits too, so that order is kept.
    pub(super) fn publish(&mut self, topic: &Arc<str>, message: TopicMessage) {
        match self.deferred.back() {
            Some(&(gate, ..)) => self.defer(gate, Arc::clone(topic), message),
            None => self.fan_out(topic, &message),
        }
    }

    /// A message for a topic that has a part elsewhere: nobody sees it before that part can be lost no more.
    pub(super) fn publish_behind(&mut self, gate: Seq, topic: &Arc<str>, message: TopicMessage) {
        match gate {
            Seq(0) => self.publish(topic, message),
            gate => self.defer(gate, Arc::clone(topic), message),
        }
    }

    /// Keeps a message until its transaction is durable.
    pub(super) fn defer(&mut self, gate: Seq, topic: Arc<str>, message: TopicMessage) {
        self.deferred_bytes += message.bytes.len();
        self.deferred.push_back((gate, topic, message));
    }

    /// Gives a message to every subscription present.
    pub(super) fn fan_out(&mut self, topic: &Arc<str>, message: &TopicMessage) {
        self.counters.topic_in_count += 1;
        let mut headers = None;
        for (session, no) in self.routes.subs_of(topic) {
            if !self.may_be_given(session, no, topic) {
                continue;
            }
            let Some(sub) = self
                .peers
                .get_mut(&session)
                .and_then(|peer| peer.subs.get_mut(&no))
            else {
                continue;
            };
            let passes = |filter: &Arc<Filter>| {
                let block = message.bytes.get(..message.header_len as usize);
                headers
                    .get_or_insert_with(|| Headers::of(block.unwrap_or_default(), &message.fields))
                    .pass(filter)
            };
            if sub.no_local && message.from == session || !sub.filter.as_ref().is_none_or(passes) {
                continue;
            }
            let Source::Topic {
                backlog,
                backlog_bytes,
                ..
            } = &mut sub.source
            else {
                continue;
            };
            backlog.push_back((Arc::clone(topic), message.clone()));
            *backlog_bytes += message.bytes.len();
            self.backlog_bytes += message.bytes.len();
            self.pump_topic(session, no);
            self.bound_backlog(session, no);
        }
    }

    /// Hands out what waits for a subscription, as far as its credit and its room go.
    pub(super) fn pump_topic(&mut self, session: SessionNo, no: SubNo) {
        let bytes_max = self.limits.prefetch_bytes_max;
        while let Some(peer) = self.peers.get_mut(&session)
            && let Some(sub) = peer.subs.get_mut(&no)
            && sub.has_credit()
        {
            let by_message = sub.by_message;
            let Source::Topic {
                backlog,
                backlog_bytes,
                ..
            } = &mut sub.source
            else {
                return;
            };
            let Some((_, next)) = backlog.front() else { return };
            let len = next.bytes.len();
            if expiry_of(&next.fields).is_some_and(|at| at <= self.now.wall_ms) {
                backlog.pop_front();
                *backlog_bytes -= len;
                self.backlog_bytes -= len;
                self.counters.expired_count += 1;
                continue;
            }
            let over = |bytes: usize| bytes > 0 && bytes + len > bytes_max;
            if over(sub.unsent_bytes) || over(peer.unsent_bytes) {
                peer.blocked |= over(peer.unsent_bytes);
                return;
            }
            let (_, next) = backlog.pop_front().expect("it was just seen");
            *backlog_bytes -= len;
            self.backlog_bytes -= len;
            let tag = peer.hold(no, next.message, None, by_message, self.now.mono_ms);
            peer.unsent.push_back(Unsent { tag, sub: no, len });
            peer.unsent_bytes += len;
            let sub = peer.subs.get_mut(&no).expect("it was just there");
            sub.take(tag, len);
            self.counters.topic_out_count += 1;
            let delivery = Delivery {
                tag,
                sub: no,
                message: next.message,
                body: Body::Memory(next.bytes),
                header_len: next.header_len,
                len: u32::try_from(len).expect("a frame is under 4 GiB"),
                delivery_count: 1,
                redelivered: false,
                death: None,
                sequence: None,
            };
            self.push_event(session, Event::Delivery(delivery));
        }
    }

    /// What a subscription just got may be too much for it, or for all of them together; then whoever is furthest behind
    /// makes room.
    fn bound_backlog(&mut self, session: SessionNo, no: SubNo) {
        let (count_max, bytes_max) = (
            self.limits.topic_backlog_count_max,
            self.limits.topic_backlog_bytes_max,
        );
        let is_over = |count: usize, bytes: usize| count > count_max || (bytes > bytes_max && count > 1);
        self.relieve(session, no, is_over);
        while self.backlog_bytes > self.limits.memory_bytes_max {
            let (session, no) = self.furthest_behind().expect("some backlog has its bytes");
            self.relieve(session, no, |count, _| count > 0);
        }
    }

    /// The subscription with the largest backlog, of the session with the largest.
    fn furthest_behind(&self) -> Option<(SessionNo, SubNo)> {
        let of_session = |peer: &Peer| peer.subs.values().map(Sub::backlog_bytes).sum::<usize>();
        let (session, peer) = self.peers.iter().max_by_key(|(_, peer)| of_session(peer))?;
        let (no, _) = peer.subs.iter().max_by_key(|(_, sub)| sub.backlog_bytes())?;
        Some((*session, *no))
    }

    /// A subscription over a bound loses its oldest messages, or its session.
    fn relieve(&mut self, session: SessionNo, no: SubNo, is_over: impl Fn(usize, usize) -> bool) {
        let Some(sub) = self
            .peers
            .get_mut(&session)
            .and_then(|peer| peer.subs.get_mut(&no))
        else {
            return;
        };
        let Source::Topic {
            name,
            backlog,
            backlog_bytes,
        } = &mut sub.source
        else {
            return;
        };
        if !is_over(backlog.len(), *backlog_bytes) {
            return;
        }
        let topic = Arc::clone(name);
        let mut dropped_count = 0;
        if self.limits.topic_drop_oldest {
            while is_over(backlog.len(), *backlog_bytes) {
                let (_, oldest) = backlog.pop_front().expect("it is over its bound");
                *backlog_bytes -= oldest.bytes.len();
                self.backlog_bytes -= oldest.bytes.len();
                dropped_count += 1;
            }
        } else {
            dropped_count = backlog.len() as u64;
            self.evict(session, Refusal::SlowSubscriber);
        }
        self.counters.topic_dropped_count += dropped_count;
        self.notices.push_back(Notice::SlowSubscriber {
            session,
            sub: no,
            topic,
            dropped_count,
        });
    }
}
