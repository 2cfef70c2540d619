//! Leases: how long a delivery may be unsettled. One that runs out is a failure, and the entry goes to another.
//!
//! # Invariants
//! - A delivery whose lease has run out settles nothing any more, but for an entry that nobody else has: so no RECEIPT says
//!   that a message is settled which will come again.

use crate::base::{Now, SessionNo, SubNo, Tag, Window};
use crate::port::{AckMode, DeliveryKey, Refusal};

use super::Broker;
use super::peer::{Held, HeldState, Peer, Sub};
use super::settle::{Failure, Release};

/// How long a delivery may be unsettled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lease {
    /// Until when, in monotonic milliseconds.
    pub(super) until_ms: u64,
    /// From when it was given, or renewed.
    pub(super) span_ms: u64,
}

impl Broker {
    /// Gives a delivery just made its lease, if it has one: what the subscription asks for, else what the message does, else what
    /// holds for the queue.
    pub(super) fn give_lease(&mut self, session: SessionNo, tag: Tag, stated_ms: u64, now: Now) {
        let Some(peer) = self.peers.get_mut(&session) else {
            return;
        };
        let Some(held) = peer.held.get_mut(tag.0) else {
            return;
        };
        let Some(sub) = peer.subs.get(&held.sub) else {
            return;
        };
        if sub.ack_mode == AckMode::Auto {
            return;
        }
        if let Some(span_ms) = Some(sub.ack_timeout_ms.unwrap_or(stated_ms)).filter(|ms| *ms > 0) {
            let until_ms = now.mono_ms_after(span_ms);
            held.lease = Some(Lease { until_ms, span_ms });
            self.leases.insert((until_ms, session, tag));
        }
    }

    /// A delivery has no lease any more.
    pub(super) fn end_lease(&mut self, session: SessionNo, tag: Tag, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.leases.remove(&(lease.until_ms, session, tag));
        }
    }

    /// Lets leases run out that are over.
    pub(super) fn lapse_due(&mut self, now: Now, count_max: usize) {
        for _ in 0..count_max {
            match self.leases.first() {
                Some(&(until_ms, session, tag)) if until_ms <= now.mono_ms => {
                    self.leases.pop_first();
                    self.lapse(session, tag, until_ms);
                }
                _ => return,
            }
        }
    }

    /// A lease has run out. One that was settled or renewed meanwhile has another end, or none.
    fn lapse(&mut self, session: SessionNo, tag: Tag, until_ms: u64) {
        let Some(peer) = self.peers.get_mut(&session) else {
            return;
        };
        let held = peer.held.get(tag.0).copied();
        let Some(held) = held.filter(|held| held.lease.is_some_and(|lease| lease.until_ms == until_ms))
        else {
            return;
        };
        let counted = match held.state {
            HeldState::Held => true,
            HeldState::Staged => false,
            HeldState::Ended | HeldState::Lost => return,
        };
        let Some((no, sequence)) = held.entry else { return };
        // What was not handed out cannot be answered; the driver still has it to send.
        let known = tag <= peer.handed;
        if let Some(sub) = peer.subs.get_mut(&held.sub)
            && counted
        {
            sub.let_go(tag);
            sub.beyond.forget(tag);
            if !known {
                sub.beyond.give_back();
            }
        }
        if known {
            peer.lose(tag);
        } else {
            peer.forget_unsent(tag);
        }
        self.pin(session, tag, no, sequence);
        if known {
            self.counters.failed_count += 1;
            self.counters.lapsed_count += 1;
            if let Some(queue) = self.queue_mut(no) {
                queue.disown(sequence);
            }
            self.fail(no, sequence, Some((session, held.sub)), &Failure::default());
        } else {
            self.release(no, sequence, Release::Never);
        }
        self.refill(session, held.sub);
    }

    /// A holder asks for more time.
    pub(super) fn renew(
        &mut self,
        session: SessionNo,
        key: DeliveryKey,
        span_ms: Option<u64>,
        now: Now,
    ) -> Result<(), Refusal> {
        let peer = self.peer(session);
        let tag = peer.find(key).filter(|tag| *tag <= peer.handed);
        let tag = tag.ok_or(Refusal::DeliveryUnknown)?;
        let held = peer.held.get_mut(tag.0).expect("find gives what is held");
        match held.state {
            HeldState::Held => {}
            HeldState::Lost => return Err(Refusal::LeaseLost),
            HeldState::Staged | HeldState::Ended => return Err(Refusal::DeliveryUnknown),
        }
        let before = held.lease.take();
        let span_ms = span_ms.or(before.map(|lease| lease.span_ms)).unwrap_or(0);
        let lease = (span_ms > 0).then(|| Lease {
            until_ms: now.mono_ms_after(span_ms),
            span_ms,
        });
        held.lease = lease;
        self.end_lease(session, tag, before);
        if let Some(lease) = lease {
            self.leases.insert((lease.until_ms, session, tag));
        }
        Ok(())
    }

    /// Whether a delivery whose lease has run out may settle its entry all the same: nobody else has it.
    pub(super) fn may_settle_late(&self, session: SessionNo, tag: Tag) -> bool {
        let held = self.peers.get(&session).and_then(|peer| peer.held.get(tag.0));
        let entry = held.and_then(|held| {
            let (no, sequence) = held.entry?;
            self.queue(no)?.entries.get(sequence)
        });
        held.zip(entry)
            .is_some_and(|(held, entry)| entry.message == held.message && !entry.leased)
    }
}

impl Peer {
    /// Takes out a delivery that its driver has not taken.
    fn forget_unsent(&mut self, tag: Tag) {
        self.unhold(tag);
        self.events
            .retain(|event| !matches!(event, crate::port::Event::Delivery(delivery) if delivery.tag == tag));
        let unsent_bytes = &mut self.unsent_bytes;
        let mut of: Option<(SubNo, usize)> = None;
        self.unsent.retain(|unsent| {
            if unsent.tag == tag {
                *unsent_bytes -= unsent.len;
                of = Some((unsent.sub, unsent.len));
            }
            unsent.tag != tag
        });
        if let Some((sub, len)) = of
            && let Some(sub) = self.subs.get_mut(&sub)
        {
            sub.unsent_bytes -= len;
        }
    }
}

impl Sub {
    /// Whether a cumulative answer up to a delivery would cover one whose lease has run out, and whose message this subscription
    /// has not been given again among those covered.
    pub(super) fn covers_lost(&self, held: &Window<Held>, up_to: Tag) -> bool {
        let covered = |state: HeldState| {
            let tags = self.order.iter().take_while(|of| **of <= up_to);
            let held = tags.filter_map(|tag| held.get(tag.0));
            held.filter(move |held| held.state == state)
        };
        let again = |lost: &Held| covered(HeldState::Held).any(|held| held.message == lost.message);
        covered(HeldState::Lost).any(|lost| !again(lost))
    }
}
