//! Browsers: subscriptions that are shown what is in a queue, in the order of queue sequences, and take nothing.
//!
//! # Invariants
//! - A browser changes nothing of an entry, and nothing of its queue but that it exists while there is a browser.
//! - What was in the queue when the browser began is shown once, whatever its state, unless it is gone when its turn comes.
//! - The bytes of what is on its way to a browser are pinned until they are in the socket, whatever becomes of the entry.
//! - Only what is durable is shown, and only bytes that are where the entry says.
//!
//! # Not here
//! Credit and bytes on their way: as for every subscription, but that nothing of it comes back to the queue.

use bytes::Bytes;

use crate::base::{DestinationKind, MessageId, SessionNo, SubNo, Tag};
use crate::port::{AckMode, Binding, Body, Delivery, Event, Refusal, Requests, Subscribe};

use super::Broker;
use super::peer::{Source, Unsent};
use super::queue::{EntryBytes, QueueNo, SubRef};
use super::request::temporary;

/// Entries looked at in one turn.
const LOOK_COUNT: usize = 1_000;

/// What a browser knows of its way.
#[derive(Debug)]
pub(super) struct Browser {
    pub(super) queue: QueueNo,
    /// The first sequence that was not looked at.
    next: u64,
    /// Where it ends; `None`: it goes on.
    until: Option<u64>,
    /// The header block of the marker that tells of the end.
    end: Bytes,
    /// It was told.
    ended: bool,
}

impl EntryBytes {
    /// The same bytes, for somebody else.
    fn same(&self) -> Self {
        match self {
            Self::Stored { slot, offset } => Self::Stored {
                slot: *slot,
                offset: *offset,
            },
            Self::Extent(chunks) => Self::Extent(chunks.clone()),
            Self::Memory(bytes) => Self::Memory(bytes.clone()),
        }
    }
}

impl Broker {
    /// A SUBSCRIBE that only looks. Neither a temporary queue nor a durable subscription is made by it.
    pub(super) fn open_browser(
        &mut self,
        session: SessionNo,
        subscribe: &Subscribe,
        requests: &Requests,
    ) -> Result<Source, Refusal> {
        let browse = subscribe.browse.expect("it is a browser");
        let name = requests.text(subscribe.name);
        let private = subscribe.kind == DestinationKind::Temporary;
        let name = if private { temporary(name) } else { name.to_owned() };
        let there = self.find_queue(&name);
        let owner = there.and_then(|queue| queue.owner);
        if owner != private.then_some(session) {
            return Err(Refusal::QueuePrivate);
        }
        let unbound = there.is_none_or(|queue| queue.binding.is_none());
        if unbound && subscribe.binding == Binding::Present {
            return Err(Refusal::BindingUnknown);
        }
        let no = self.open_queue(&name);
        let queue = self.queue_mut(no).expect("it was just opened");
        queue.browsers.insert((session, subscribe.sub));
        Ok(Source::Browse(Browser {
            queue: no,
            next: browse.from.unwrap_or(queue.next_sequence),
            until: (!browse.follow).then_some(queue.next_sequence),
            end: Bytes::copy_from_slice(requests.bytes(browse.end)),
            ended: false,
        }))
    }

    /// A browser is gone.
    pub(super) fn end_browser(&mut self, sub: SubRef, no: QueueNo) {
        self.browsing.remove(&sub);
        if let Some(queue) = self.queue_mut(no) {
            queue.browsers.remove(&sub);
        }
        // So that the queue is forgotten if nothing is left of it.
        self.mark_dirty(no);
    }

    /// Something changed in a queue: its browsers go on.
    pub(super) fn browse_queue(&mut self, no: QueueNo) {
        let browsers = self.queue(no).map(|queue| &queue.browsers);
        let browsers: Vec<SubRef> = browsers.into_iter().flatten().copied().collect();
        for (session, sub) in browsers {
            self.browse(session, sub);
        }
    }

    /// Those go on that have passed over much.
    pub(super) fn browse_on(&mut self) {
        for (session, sub) in std::mem::take(&mut self.browsing) {
            self.browse(session, sub);
        }
    }

    /// Shows a browser what is next, as far as its credit and its room go.
    pub(super) fn browse(&mut self, session: SessionNo, no: SubNo) {
        let durable = self.ledger.durable();
        let bytes_max = self.limits.prefetch_bytes_max;
        let wall_ms = self.now.wall_ms;
        let mut shown = false;
        for _ in 0..LOOK_COUNT {
            let Some(peer) = self.peers.get_mut(&session) else {
                return;
            };
            let peer_bytes = peer.unsent_bytes;
            let Some(sub) = peer.subs.get_mut(&no).filter(|sub| sub.active) else {
                return;
            };
            let (has_credit, sub_bytes) = (sub.has_credit(), sub.unsent_bytes);
            let Source::Browse(browser) = &mut sub.source else {
                return;
            };
            let queue = self.queues.get(browser.queue.0 as usize).and_then(Option::as_ref);
            let queue = queue.expect("a queue exists while it has a browser");
            let next = queue.entries.next_from(browser.next);
            let Some(sequence) = next.filter(|next| browser.until.is_none_or(|until| *next < until)) else {
                if browser.until.is_some() {
                    self.end_browse(session, no);
                }
                return;
            };
            let entry = queue.entries.get(sequence).expect("it was just found");
            if sequence >= queue.durable_end || queue.moved_at.min(entry.home) > durable {
                return;
            }
            if entry.set_aside || entry.expires_at_ms().is_some_and(|at| at <= wall_ms) {
                browser.next = sequence + 1;
                continue;
            }
            let len = entry.len as usize;
            let over = |bytes: usize| bytes > 0 && bytes + len > bytes_max;
            if !has_credit || over(sub_bytes) || over(peer_bytes) {
                peer.blocked |= has_credit && over(peer_bytes);
                return;
            }
            browser.next = sequence + 1;
            let delivery = Delivery {
                tag: Tag(0),
                sub: no,
                message: entry.message,
                body: entry.bytes.body(|slot| self.ledger.chunk_in(slot)),
                header_len: entry.header_len,
                len: entry.len,
                // What its next delivery would say.
                delivery_count: entry.deliveries + 1,
                redelivered: entry.deliveries > 0 || entry.suspect,
                death: entry.last_death(),
                sequence: Some(sequence),
            };
            let pinned = (!entry.is_transient()).then(|| entry.bytes.same());
            let tag = self.show(session, delivery);
            if let Some(bytes) = pinned {
                self.ledger
                    .share(&bytes, u32::try_from(len).expect("a frame is under 4 GiB"));
                let peer = self.peer(session);
                peer.pinned
                    .push_back((tag, bytes, u32::try_from(len).expect("as above")));
            }
            let sub = self.peer(session).subs.get_mut(&no).expect("it was just there");
            sub.take(tag, len);
            shown = true;
        }
        // What is on its way brings it back here; if nothing is, the next tick does.
        if !shown {
            self.browsing.insert((session, no));
        }
    }

    /// Tells a browser that it has seen all. That needs no credit, and an answer to it has no effect.
    fn end_browse(&mut self, session: SessionNo, no: SubNo) {
        let sub = self.peer(session).subs.get_mut(&no).expect("it was just there");
        let ack_mode = sub.ack_mode;
        let Source::Browse(browser) = &mut sub.source else {
            return;
        };
        if std::mem::replace(&mut browser.ended, true) {
            return;
        }
        let end = browser.end.clone();
        let len = u32::try_from(end.len()).expect("a frame is under 4 GiB");
        sub.unsent_bytes += end.len();
        let delivery = Delivery {
            tag: Tag(0),
            sub: no,
            message: MessageId(0),
            body: Body::Memory(end),
            header_len: len,
            len,
            delivery_count: 1,
            redelivered: false,
            death: None,
            sequence: None,
        };
        let tag = self.show(session, delivery);
        let peer = self.peer(session);
        match ack_mode {
            AckMode::Auto => _ = peer.unhold(tag),
            AckMode::Client | AckMode::ClientIndividual => peer.end(tag),
        }
    }

    /// Sends a message on its way. Gives its tag.
    fn show(&mut self, session: SessionNo, delivery: Delivery) -> Tag {
        let since_ms = self.now.mono_ms;
        let (sub, len) = (delivery.sub, delivery.len as usize);
        let peer = self.peer(session);
        let by_message = peer.subs.get(&sub).is_some_and(|sub| sub.by_message);
        let tag = peer.hold(sub, delivery.message, None, by_message, since_ms);
        peer.unsent.push_back(Unsent { tag, sub, len });
        peer.unsent_bytes += len;
        self.push_event(session, Event::Delivery(Delivery { tag, ..delivery }));
        tag
    }
}
