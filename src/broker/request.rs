//! What a session asks: one call for all requests of a socket read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{
    DestinationKind, MessageId, Now, Seq, SessionNo, SubNo, TEMPORARY_QUEUE_PREFIX, Tag, TxNo,
};
use crate::journal::{Item, Place};
use crate::port::{
    Applied, Binding, Duplicate, Filter, Outcome, Payload, Refusal, Request, Requests, Send, Settle,
    Subscribe, Target,
};

use super::Broker;
use super::credit::Beyond;
use super::dedup::{Id, is_on};
use super::expiry::EXPIRE_INPUT;
use super::lanes::PLAIN;
use super::ledger::{Mark, Statement};
use super::peer::{Held, HeldState, Source, Step, Sub, TopicMessage, Transaction};
use super::queue::{Entry, EntryBytes, Queue, QueueNo, expiry_of, fields_of, kept_fields, rest_of};
use super::ring::Class;
use super::schedule::is_schedule;
use super::selectors::Headers;
use super::settle::{Enqueue, Release};

/// What a staged ACK or NACK counts against `staged_bytes_max`, beside each delivery it names.
const STAGED_STEP_BYTES: usize = 64;

impl Broker {
    /// All requests of one socket read, in order, up to the first that is refused.
    pub fn handle_requests(&mut self, session: SessionNo, requests: &Requests, now: Now) -> Applied {
        let evicted = match self.peers.get(&session) {
            Some(peer) => peer.evicted,
            None => Some(Refusal::ShuttingDown),
        };
        if let Some(refusal) = evicted {
            return Applied {
                done: 0,
                gate: Seq(0),
                refusal: Some(refusal),
                denied: None,
                duplicates: Vec::new(),
            };
        }
        self.now = now;
        let mut refusal = None;
        let mut done = 0;
        let mut gate = Seq(0);
        let mut subscribed = Vec::new();
        let mut duplicates = Vec::new();
        for request in &requests.list {
            let judged = self.authorise(session, request, requests);
            match judged.and_then(|()| self.apply(session, request, requests, now)) {
                Ok(seq) => gate = gate.max(seq),
                Err(why) => {
                    self.counters.refused_count += 1;
                    refusal = Some(why);
                    break;
                }
            }
            if let Request::Subscribe(subscribe) = request {
                subscribed.push(subscribe.sub);
            }
            if let Some(left_out) = self.dedup.left_out.take() {
                duplicates.push(Duplicate {
                    request: done,
                    ..left_out
                });
            }
            done += 1;
            self.ledger.close_if_full();
            // A message to a topic may have ended this very session: nothing more is done for it.
            let published = match request {
                Request::Send(send) => targets(send).any(|to| to.kind == DestinationKind::Topic),
                request => matches!(request, Request::Commit { .. }),
            };
            if published && let Some(why) = self.peers.get(&session).and_then(|peer| peer.evicted) {
                refusal = Some(why);
                break;
            }
        }
        let peer = self.peers.get_mut(&session).expect("it was just there");
        peer.gate = peer.gate.max(gate);
        // The receipts of this call leave together, so that a subscription's first message waits for all of them.
        let gate_all = peer.gate;
        for sub in subscribed {
            self.activate_at(session, sub, gate_all);
        }
        self.expire(now, EXPIRE_INPUT);
        self.dispatch(now);
        Applied {
            done,
            gate,
            refusal,
            denied: self.denied.take(),
            duplicates,
        }
    }

    /// One request. Gives the Seq that states its effect; `Seq(0)` where nothing is to be waited for.
    fn apply(
        &mut self,
        session: SessionNo,
        request: &Request,
        requests: &Requests,
        now: Now,
    ) -> Result<Seq, Refusal> {
        match request {
            Request::ActFor { principal } => self.act_for(session, principal).map(|()| Seq(0)),
            Request::Send(send) => self.send(session, send, requests, now),
            Request::Settle(settle) => self.settle_request(session, settle, now),
            Request::Subscribe(subscribe) => self.subscribe(session, subscribe, requests, now),
            Request::Unsubscribe { sub } => {
                self.unsubscribe(session, *sub);
                Ok(Seq(0))
            }
            Request::Declare { name, settings } => self.declare(requests.text(*name), settings),
            Request::Credit { sub, count } => self.ask_for_more(session, *sub, *count).map(|()| Seq(0)),
            Request::Renew {
                delivery,
                ack_timeout_ms,
            } => self
                .renew(session, *delivery, *ack_timeout_ms, now)
                .map(|()| Seq(0)),
            Request::Unbind { name } => self.unbind(requests.text(*name)),
            Request::Begin { tx } => {
                let transaction = Transaction {
                    since_ms: now.mono_ms,
                    ..Transaction::default()
                };
                self.peer(session).transactions.insert(*tx, transaction);
                Ok(Seq(0))
            }
            Request::Commit { tx } => self.commit(session, *tx, now),
            Request::Abort { tx } => {
                let transaction = self.take_transaction(session, *tx)?;
                self.counters.aborted_count += 1;
                self.unstage(session, transaction);
                Ok(Seq(0))
            }
            Request::Disconnect => {
                self.end_session(session, Release::Lost);
                Ok(Seq(0))
            }
        }
    }

    pub(super) fn peer(&mut self, session: SessionNo) -> &mut super::Peer {
        self.peers
            .get_mut(&session)
            .expect("requests come from an open session")
    }

    // ---- SEND ----

    fn send(
        &mut self,
        session: SessionNo,
        send: &Send,
        requests: &Requests,
        now: Now,
    ) -> Result<Seq, Refusal> {
        let stored = send.persistent || send.tx.is_some();
        let dedup = send.dedup.map(|id| self.dedup.id(requests.bytes(id)));
        if stored && !self.room {
            let to = || targets(send).map(|to| (to.kind, requests.text(to.name)));
            let again = send.tx.is_none() && dedup.is_some_and(|id| self.is_again(to(), id, now));
            if !again && self.is_kept(to()) {
                return Err(Refusal::DiskFull);
            }
        }
        if send.terms.repeat.is_some() {
            self.admit_schedules(1 + send.also.len())?;
        }
        if let Some(tx) = send.tx {
            return self.stage_send(session, tx, send, requests);
        }
        if send.to.kind != DestinationKind::Queue || !send.also.is_empty() {
            let block = send.block(requests);
            let fields = fields_of(&send.terms, requests);
            let mut way = self.way(
                targets(send).map(|to| (to.kind, requests.text(to.name))),
                (block, &fields),
            );
            let mut known = Seq(0);
            if let Some(id) = dedup {
                let left = self.leave_out(&mut way, id, send.persistent, now);
                let Left { gate, whole } = left.inspect_err(|_| self.leave_way(&way))?;
                known = gate;
                if whole {
                    self.note_duplicate();
                }
            }
            let bytes = shared(&send.payload, requests);
            let message = TopicMessage {
                message: self.message_id(),
                bytes,
                header_len: send.header_len,
                from: session,
                fields: fields_of(&send.terms, requests),
            };
            let gate = self.send_ways(&way, &message, dedup, send.persistent, now)?;
            return Ok(gate.max(known));
        }
        let name = requests.text(send.to.name);
        let item = Item {
            header_len: send.header_len,
            len: payload_len(&send.payload),
        };
        if let Some(id) = dedup
            && let Some(gate) = self.send_again(session, name, id, send.persistent, now)?
        {
            return Ok(gate);
        }
        if !send.persistent {
            if self.memory_bytes() + item.len as usize > self.limits.memory_bytes_max {
                return Err(Refusal::MemoryFull);
            }
            let bytes = shared(&send.payload, requests);
            let no = self.sending_queue(session, name);
            self.admit(no, 1, u64::from(item.len))?;
            let message = self.message_id();
            self.counters.enqueued_count += 1;
            let fields = fields_of(&send.terms, requests);
            self.enqueue_transient(no, message, now.wall_ms, bytes, item, fields);
            if let Some(id) = dedup {
                self.remember(no, id, Seq(0), now);
            }
            return Ok(Seq(0));
        }
        let no = self.sending_queue(session, name);
        self.admit(no, 1, u64::from(item.len))?;
        let place = match &send.payload {
            Payload::Arena(span) => self.ledger.place(requests.bytes(*span)),
            Payload::Shared(bytes) => self.ledger.place_shared(bytes),
        };
        let message = self.message_id();
        self.counters.enqueued_count += 1;
        let gate = self.enqueue(
            no,
            &Enqueue {
                block: Some(send.block(requests)),
                message,
                accepted_at_ms: now.wall_ms,
                place,
                item,
                fields: fields_of(&send.terms, requests),
            },
        );
        if let Some(id) = dedup {
            self.remember(no, id, gate, now);
        }
        Ok(gate)
    }

    /// Whether one of these is a queue, or has queues bound to it.
    fn is_kept<'a>(&self, mut to: impl Iterator<Item = (DestinationKind, &'a str)>) -> bool {
        to.any(|(kind, name)| match kind {
            DestinationKind::Queue => true,
            DestinationKind::Topic => !self.routes.queues_of(name).is_empty(),
            DestinationKind::Temporary => false,
        })
    }

    /// Where a message goes, each queue and topic once.
    fn way<'a>(
        &mut self,
        to: impl Iterator<Item = (DestinationKind, &'a str)>,
        (block, fields): (&[u8], &[(u8, Bytes)]),
    ) -> Way {
        let mut way = Way::default();
        let mut headers = None;
        for (kind, name) in to {
            match kind {
                DestinationKind::Queue => {
                    let no = self.open_queue(name);
                    way.queues.insert(no);
                    way.named.insert(no);
                }
                DestinationKind::Topic => {
                    for no in self.routes.queues_of(name) {
                        let filter = self.queue(no).and_then(|queue| queue.binding_filter.as_ref());
                        let keeps = |filter: &Arc<Filter>| {
                            headers
                                .get_or_insert_with(|| Headers::of(block, fields))
                                .pass(filter)
                        };
                        if filter.is_none_or(keeps) {
                            way.queues.insert(no);
                        }
                    }
                    way.topics.insert(name.into());
                }
                DestinationKind::Temporary => {
                    let no = self.names.get(&*temporary(name)).copied();
                    match no.filter(|no| self.queue(*no).is_some_and(|queue| queue.owner.is_some())) {
                        Some(no) => {
                            way.temporary.insert(no);
                        }
                        // Who asked is gone: that harms nobody.
                        None => self.counters.late_reply_count += 1,
                    }
                }
            }
        }
        way
    }

    /// A message that may have several places to go to: all of them, or none.
    fn send_ways(
        &mut self,
        way: &Way,
        message: &TopicMessage,
        dedup: Option<Id<'_>>,
        persistent: bool,
        now: Now,
    ) -> Result<Seq, Refusal> {
        let len = message.bytes.len();
        if way.queues.len() > self.limits.fan_out_count_max {
            self.leave_way(way);
            return Err(Refusal::FanOutTooLarge);
        }
        let mut all = way.queues.iter().chain(&way.temporary);
        if let Err(refusal) = all.try_for_each(|no| self.admit(*no, 1, len as u64)) {
            way.queues.iter().for_each(|no| self.mark_dirty(*no));
            return Err(refusal);
        }
        let in_memory = way.temporary.len() + if persistent { 0 } else { way.queues.len() };
        if in_memory > 0 && self.memory_bytes() + len * in_memory > self.limits.memory_bytes_max {
            self.leave_way(way);
            return Err(Refusal::MemoryFull);
        }
        let place = (persistent && !way.queues.is_empty()).then(|| self.ledger.place_shared(&message.bytes));
        let gate = self.keep(way, message, place.as_ref(), dedup, now);
        for topic in &way.topics {
            self.publish_behind(gate, topic, message.clone());
        }
        Ok(gate)
    }

    /// Adds an entry to each queue on the way; those that are stored share the bytes placed. Gives the Seq that states them.
    fn keep(
        &mut self,
        way: &Way,
        message: &TopicMessage,
        place: Option<&Place>,
        dedup: Option<Id<'_>>,
        now: Now,
    ) -> Seq {
        let TopicMessage {
            message,
            bytes,
            header_len,
            fields,
            ..
        } = message;
        let (message, at_ms) = (*message, now.wall_ms);
        let item = Item {
            header_len: *header_len,
            len: u32::try_from(bytes.len()).expect("a frame is under 4 GiB"),
        };
        for no in &way.temporary {
            self.counters.enqueued_count += 1;
            self.enqueue_transient(*no, message, at_ms, bytes.clone(), item, fields.clone());
        }
        let mut gate = Seq(0);
        for (count, no) in way.queues.iter().enumerate() {
            self.counters.enqueued_count += 1;
            let Some(place) = place else {
                self.enqueue_transient(*no, message, at_ms, bytes.clone(), item, fields.clone());
                self.remember_kept(*no, dedup, Seq(0), now);
                continue;
            };
            // The bytes count once as they are placed, and once more for each queue behind the first.
            if count > 0 {
                self.ledger.share(&EntryBytes::of(place), item.len);
            }
            let new = Enqueue {
                block: bytes.get(..item.header_len as usize),
                message,
                accepted_at_ms: at_ms,
                place: place.clone(),
                item,
                fields: fields.clone(),
            };
            gate = self.enqueue(*no, &new);
            self.remember_kept(*no, dedup, gate, now);
        }
        gate
    }

    /// A refused message goes nowhere: the queues on its way are forgotten if nothing else refers to them.
    fn leave_way(&mut self, way: &Way) {
        way.queues.iter().for_each(|no| self.mark_dirty(*no));
    }

    /// Leaves out the queues that have seen an id, and topics that such a queue keeps: who was present has got the message.
    fn leave_out(&mut self, way: &mut Way, id: Id<'_>, persistent: bool, now: Now) -> Result<Left, Refusal> {
        let off = |no: &QueueNo| self.queue(*no).is_some_and(|queue| !is_on(&queue.policy));
        if way.named.iter().any(off) {
            return Err(Refusal::DedupOff);
        }
        let mut left = Left::default();
        let mut again = BTreeSet::new();
        for no in &way.queues {
            if let Some(gate) = self.recall(*no, id, persistent, now) {
                left.gate = left.gate.max(gate);
                again.insert(*no);
            }
        }
        self.leave_queues(way, &again);
        left.whole = !again.is_empty() && way.queues.is_empty() && way.temporary.is_empty();
        Ok(left)
    }

    fn leave_queues(&mut self, way: &mut Way, again: &BTreeSet<QueueNo>) {
        if again.is_empty() {
            return;
        }
        way.queues.retain(|no| !again.contains(no));
        let routes = &self.routes;
        way.topics
            .retain(|topic| routes.queues_of(topic).is_disjoint(again));
        for no in again {
            self.count_duplicate(*no);
        }
    }

    fn count_duplicate(&mut self, no: QueueNo) {
        if let Some(queue) = self.queue_mut(no) {
            queue.counters.duplicate_count += 1;
        }
    }

    /// Whether every queue that a SEND would be kept by has seen its id.
    fn is_again<'a>(
        &self,
        mut to: impl Iterator<Item = (DestinationKind, &'a str)>,
        id: Id<'_>,
        now: Now,
    ) -> bool {
        let again = |no: &QueueNo| self.recall(*no, id, true, now).is_some();
        to.all(|(kind, name)| match kind {
            DestinationKind::Queue => self.names.get(name).is_some_and(again),
            DestinationKind::Topic => self.routes.queues_of(name).iter().all(again),
            DestinationKind::Temporary => true,
        })
    }

    /// A SEND with an id to one queue: if it is there already, what its receipt must wait for.
    fn send_again(
        &mut self,
        session: SessionNo,
        name: &str,
        id: Id<'_>,
        persistent: bool,
        now: Now,
    ) -> Result<Option<Seq>, Refusal> {
        let last = self.peers.get(&session).and_then(|peer| peer.last_queue);
        let last = last.filter(|no| self.queue(*no).is_some_and(|queue| &*queue.name == name));
        let Some(no) = last.or_else(|| self.names.get(name).copied()) else {
            self.check_dedup(name)?;
            return Ok(None);
        };
        if self.queue(no).is_some_and(|queue| !is_on(&queue.policy)) {
            return Err(Refusal::DedupOff);
        }
        let gate = self.recall(no, id, persistent, now);
        if gate.is_some() {
            self.count_duplicate(no);
            self.note_duplicate();
        }
        Ok(gate)
    }

    /// The SEND being applied was stored before.
    fn note_duplicate(&mut self) {
        self.counters.duplicate_count += 1;
        self.dedup.left_out = Some(Duplicate {
            request: 0,
            whole: true,
            count: None,
        });
    }

    /// A queue on a way got a message with an id, if it has one. A queue that keeps a topic may remember none.
    fn remember_kept(&mut self, no: QueueNo, id: Option<Id<'_>>, home: Seq, now: Now) {
        if let Some(id) = id
            && self.queue(no).is_some_and(|queue| is_on(&queue.policy))
        {
            self.remember(no, id, home, now);
        }
    }

    /// The queue of a name; mostly the one that this session sent to before.
    fn sending_queue(&mut self, session: SessionNo, name: &str) -> QueueNo {
        let last = self.peers.get(&session).and_then(|peer| peer.last_queue);
        if let Some(no) = last
            && self.queue(no).is_some_and(|queue| &*queue.name == name)
        {
            return no;
        }
        let no = self.open_queue(name);
        self.peer(session).last_queue = Some(no);
        no
    }

    /// Adds a stored entry at a queue's end; its bytes are placed. Gives the Seq that states it.
    pub(super) fn enqueue(&mut self, no: QueueNo, new: &Enqueue<'_>) -> Seq {
        let seq = self.ledger.seq();
        let queue = self
            .queues
            .get_mut(no.0 as usize)
            .and_then(Option::as_mut)
            .expect("the queue was just opened");
        let aged = queue.aged(&new.fields, self.now);
        let fields = aged.as_ref().unwrap_or(&new.fields);
        let expires_at_ms = expiry_of(fields);
        let rests_until = rest_of(fields, self.now);
        let (due_at, kept) = kept_fields(fields.clone());
        self.schedule_count += usize::from(is_schedule(fields));
        let matched = queue.matched(new.block, fields);
        let unasked = matched.is_none();
        let entry = Entry {
            message: new.message,
            accepted_at_ms: new.accepted_at_ms,
            home: seq,
            bytes: EntryBytes::of(&new.place),
            header_len: new.item.header_len,
            len: new.item.len,
            deliveries: 0,
            failures: 0,
            leased: false,
            set_aside: false,
            suspect: false,
            delayed: rests_until.is_some(),
            lane: PLAIN,
            due_at,
            fields: kept,
        };
        let sequence = queue.push_matched(entry, matched.unwrap_or_default());
        self.expiring.insert(expires_at_ms, no, sequence);
        self.expiring.insert(rests_until, no, sequence);
        let statement = Statement {
            sequence,
            message: new.message,
            accepted_at_ms: new.accepted_at_ms,
            place: &new.place,
            item: new.item,
            deliveries: 0,
            failures: 0,
            fields,
        };
        self.ledger.state_enqueued(no, &queue.name, &statement);
        let end = queue.next_sequence;
        if queue.touched.0 != seq {
            let at =
                usize::try_from(seq.0 - self.ledger.durable().0 - 1).expect("few batches are not durable");
            while self.touched.len() <= at {
                self.touched.push_back(Vec::new());
            }
            let list = self.touched.get_mut(at).expect("it was just made");
            queue.touched = (seq, list.len());
            list.push((no, end));
        } else {
            self.extend_touched(no, end);
        }
        if unasked {
            self.look_later(no, sequence);
        }
        self.watch_bound(no);
        seq
    }

    /// Lets the queue's latest batch that is not durable carry entries up to `end`; false if there is none.
    fn extend_touched(&mut self, no: QueueNo, end: u64) -> bool {
        let (seq, index) = self.queue(no).expect("the queue was just opened").touched;
        let at = seq
            .0
            .checked_sub(self.ledger.durable().0 + 1)
            .and_then(|at| usize::try_from(at).ok());
        let place = at
            .and_then(|at| self.touched.get_mut(at))
            .and_then(|list| list.get_mut(index));
        match place {
            Some(place) => {
                place.1 = end;
                true
            }
            None => false,
        }
    }

    /// Adds an entry in memory at a queue's end.
    pub(super) fn enqueue_transient(
        &mut self,
        no: QueueNo,
        message: MessageId,
        accepted_at_ms: u64,
        bytes: Bytes,
        item: Item,
        fields: Vec<(u8, Bytes)>,
    ) {
        self.transient_bytes += bytes.len();
        self.transient_count += 1;
        self.schedule_count += usize::from(is_schedule(&fields));
        let now = self.now;
        let queue = self.queue_mut(no).expect("the queue was just opened");
        let fields = queue.aged(&fields, now).unwrap_or(fields);
        let expires_at_ms = expiry_of(&fields);
        let rests_until = rest_of(&fields, now);
        let block = bytes.get(..item.header_len as usize);
        let matched = queue.matched(block, &fields).unwrap_or_default();
        let (due_at, fields) = kept_fields(fields);
        let entry = Entry {
            message,
            accepted_at_ms,
            home: Seq(0),
            bytes: EntryBytes::Memory(Box::new(bytes)),
            header_len: item.header_len,
            len: item.len,
            deliveries: 0,
            failures: 0,
            leased: false,
            set_aside: false,
            suspect: false,
            delayed: rests_until.is_some(),
            lane: PLAIN,
            due_at,
            fields,
        };
        let sequence = queue.push_matched(entry, matched);
        // It keeps its place among the stored ones: if one before it is not durable yet, it waits with that.
        let end = queue.next_sequence;
        self.expiring.insert(expires_at_ms, no, sequence);
        self.expiring.insert(rests_until, no, sequence);
        if !self.extend_touched(no, end) {
            self.queue_mut(no).expect("as above").durable_end = end;
            self.mark_dirty(no);
        }
        self.watch_bound(no);
    }

    // ---- transactions ----

    fn stage_send(
        &mut self,
        session: SessionNo,
        tx: TxNo,
        send: &Send,
        requests: &Requests,
    ) -> Result<Seq, Refusal> {
        let len = payload_len(&send.payload) as usize;
        self.check_stage(session, tx, len)?;
        if send.dedup.is_some() {
            let named = targets(send).filter(|to| to.kind == DestinationKind::Queue);
            named
                .map(|to| requests.text(to.name))
                .try_for_each(|name| self.check_dedup(name))?;
        }
        let step = Step::Send {
            to: targets(send)
                .map(|to| (to.kind, requests.text(to.name).into()))
                .collect(),
            bytes: shared(&send.payload, requests),
            header_len: send.header_len,
            fields: fields_of(&send.terms, requests),
            dedup: send.dedup.map(|id| requests.bytes(id).into()),
        };
        self.stage(session, tx, step, len);
        Ok(Seq(0))
    }

    /// Whether one more frame of so many bytes may be staged.
    fn check_stage(&mut self, session: SessionNo, tx: TxNo, bytes: usize) -> Result<(), Refusal> {
        let full = self.memory_bytes() + bytes > self.limits.memory_bytes_max;
        let (frame_count_max, bytes_max) = (self.limits.staged_frame_count_max, self.limits.staged_bytes_max);
        let peer = self.peer(session);
        if !peer.transactions.contains_key(&tx) {
            return Err(Refusal::TransactionUnknown);
        }
        if peer.staged_frame_count + 1 > frame_count_max || peer.staged_bytes + bytes > bytes_max {
            return Err(Refusal::StagedTooMuch);
        }
        if full { Err(Refusal::MemoryFull) } else { Ok(()) }
    }

    fn stage(&mut self, session: SessionNo, tx: TxNo, step: Step, bytes: usize) {
        self.staged_bytes += bytes;
        let peer = self.peer(session);
        peer.staged_frame_count += 1;
        peer.staged_bytes += bytes;
        let transaction = peer.transactions.get_mut(&tx).expect("check_stage found it");
        transaction.bytes += bytes;
        transaction.steps.push(step);
    }

    fn take_transaction(&mut self, session: SessionNo, tx: TxNo) -> Result<Transaction, Refusal> {
        let peer = self.peer(session);
        let transaction = peer.transactions.remove(&tx).ok_or(Refusal::TransactionUnknown)?;
        peer.staged_frame_count -= transaction.steps.len();
        peer.staged_bytes -= transaction.bytes;
        self.staged_bytes -= transaction.bytes;
        Ok(transaction)
    }

    fn commit(&mut self, session: SessionNo, tx: TxNo, now: Now) -> Result<Seq, Refusal> {
        let transaction = self.take_transaction(session, tx)?;
        if self.has_lost(session, &transaction) {
            self.counters.aborted_count += 1;
            self.unstage(session, transaction);
            return Err(Refusal::LeaseLost);
        }
        let kept = |step: &Step| match step {
            Step::Send { to, dedup, .. } => {
                let to = || to.iter().map(|(kind, name)| (*kind, &**name));
                let again = dedup
                    .as_ref()
                    .is_some_and(|id| self.is_again(to(), self.dedup.id(id), now));
                !again && self.is_kept(to())
            }
            Step::Settle { .. } => false,
        };
        if !self.room && transaction.steps.iter().any(kept) {
            self.counters.aborted_count += 1;
            self.unstage(session, transaction);
            return Err(Refusal::DiskFull);
        }
        let schedules_of = |step: &Step| match step {
            Step::Send { to, fields, .. } if is_schedule(fields) => to.len(),
            _ => 0,
        };
        let schedule_count = transaction.steps.iter().map(schedules_of).sum();
        if let Err(refusal) = self.admit_schedules(schedule_count) {
            self.counters.aborted_count += 1;
            self.unstage(session, transaction);
            return Err(refusal);
        }
        let entries_of = |step: &Step| match step {
            Step::Send { to, .. } => {
                let topics = to.iter().filter(|(kind, _)| *kind == DestinationKind::Topic);
                topics
                    .map(|(_, name)| self.routes.queues_of(name).len())
                    .sum::<usize>()
            }
            Step::Settle { .. } => 0,
        };
        let entry_count: usize = transaction.steps.iter().map(entries_of).sum();
        if entry_count > self.limits.fan_out_count_max {
            self.counters.aborted_count += 1;
            self.unstage(session, transaction);
            return Err(Refusal::FanOutTooLarge);
        }
        let ways = match self.ways(&transaction, now) {
            Ok(ways) => ways,
            Err(refusal) => {
                self.counters.aborted_count += 1;
                self.unstage(session, transaction);
                return Err(refusal);
            }
        };
        if let Err(refusal) = self.admit_all(&transaction.steps, &ways) {
            ways.iter().for_each(|way| self.leave_way(way));
            self.dedup.left_out = None;
            self.counters.aborted_count += 1;
            self.unstage(session, transaction);
            return Err(refusal);
        }
        // Bytes first: they may fill several batches. Then all facts in the one that is open by then.
        let ways: Vec<(Way, Option<Place>)> = transaction
            .steps
            .iter()
            .zip(ways)
            .map(|(step, way)| match step {
                Step::Send { bytes, .. } => {
                    let place = (!way.queues.is_empty()).then(|| self.ledger.place_shared(bytes));
                    (way, place)
                }
                Step::Settle { .. } => Default::default(),
            })
            .collect();
        self.ledger.keep_open(true);
        let mut topics = Vec::new();
        for (step, (way, place)) in transaction.steps.into_iter().zip(ways) {
            match step {
                Step::Send {
                    bytes,
                    header_len,
                    fields,
                    dedup,
                    ..
                } => {
                    let message = TopicMessage {
                        message: self.message_id(),
                        bytes,
                        header_len,
                        from: session,
                        fields,
                    };
                    let dedup = dedup.as_deref().map(|id| self.dedup.id(id));
                    self.keep(&way, &message, place.as_ref(), dedup, now);
                    let topics_of = way.topics.into_iter();
                    topics.extend(topics_of.map(|topic| (topic, message.clone())));
                }
                Step::Settle { tags, outcome, why } => {
                    tags.into_iter()
                        .for_each(|tag| self.conclude(session, tag, outcome, why.as_deref(), now));
                }
            }
        }
        self.ledger.keep_open(false);
        self.counters.committed_count += 1;
        let gate = self.ledger.gate();
        for (topic, message) in topics {
            self.publish_behind(gate, &topic, message);
        }
        Ok(self.ledger.gate_so_far())
    }

    /// Refuses a transaction of which some message finds its queue full.
    fn admit_all(&mut self, steps: &[Step], ways: &[Way]) -> Result<(), Refusal> {
        let mut more: BTreeMap<QueueNo, (u64, u64)> = BTreeMap::new();
        for (step, way) in steps.iter().zip(ways) {
            let Step::Send { bytes, .. } = step else { continue };
            for no in way.queues.iter().chain(&way.temporary) {
                if self.queue(*no).is_some_and(Queue::is_bounded) {
                    let (count, total) = more.entry(*no).or_default();
                    *count += 1;
                    *total += bytes.len() as u64;
                }
            }
        }
        more.into_iter()
            .try_for_each(|(no, (count, bytes))| self.admit(no, count, bytes))
    }

    /// Whether the lease of a delivery that a transaction settles has run out.
    fn has_lost(&self, session: SessionNo, transaction: &Transaction) -> bool {
        let held = self.peers.get(&session).map(|peer| &peer.held);
        let lost = |tag: &Tag| {
            let held = held.and_then(|held| held.get(tag.0));
            held.is_none_or(|held| held.state == HeldState::Lost)
        };
        transaction.steps.iter().any(|step| match step {
            Step::Settle { tags, .. } => tags.iter().any(lost),
            Step::Send { .. } => false,
        })
    }

    /// Where each step of a transaction goes, without what the queues have seen, and without what comes twice in it.
    fn ways(&mut self, transaction: &Transaction, now: Now) -> Result<Vec<Way>, Refusal> {
        let mut ways: Vec<Way> = Vec::with_capacity(transaction.steps.len());
        let mut fresh: BTreeSet<(QueueNo, &[u8])> = BTreeSet::new();
        let (mut send_count, mut count) = (0, 0);
        for step in &transaction.steps {
            let Step::Send {
                to,
                dedup,
                bytes,
                header_len,
                fields,
            } = step
            else {
                ways.push(Way::default());
                continue;
            };
            send_count += 1;
            let block = bytes.get(..*header_len as usize).unwrap_or_default();
            let mut way = self.way(to.iter().map(|(kind, name)| (*kind, &**name)), (block, fields));
            if let Some(id) = dedup {
                let twice: BTreeSet<QueueNo> = way.queues.iter().copied().collect();
                let twice = twice
                    .into_iter()
                    .filter(|no| fresh.contains(&(*no, &**id)))
                    .collect();
                self.leave_queues(&mut way, &twice);
                let left = match self.leave_out(&mut way, self.dedup.id(id), true, now) {
                    Ok(left) => left,
                    Err(refusal) => {
                        ways.iter().chain([&way]).for_each(|way| self.leave_way(way));
                        return Err(refusal);
                    }
                };
                let nowhere = way.queues.is_empty() && way.temporary.is_empty();
                count += u32::from(left.whole || (nowhere && !twice.is_empty()));
                fresh.extend(way.queues.iter().map(|no| (*no, &**id)));
            }
            ways.push(way);
        }
        if count > 0 {
            self.counters.duplicate_count += u64::from(count);
            self.dedup.left_out = Some(Duplicate {
                request: 0,
                whole: count == send_count,
                count: Some(count),
            });
        }
        Ok(ways)
    }

    /// Gives back what an aborted transaction staged: its deliveries are held by the client again.
    fn unstage(&mut self, session: SessionNo, transaction: Transaction) {
        for step in transaction.steps {
            let Step::Settle { tags, .. } = step else { continue };
            for tag in tags {
                let peer = self
                    .peers
                    .get_mut(&session)
                    .expect("requests come from an open session");
                let held = peer.held.get_mut(tag.0);
                let Some(held) = held.filter(|held| held.state == HeldState::Staged) else {
                    continue;
                };
                held.state = HeldState::Held;
                let (sub, entry) = (held.sub, held.entry);
                match peer.subs.get_mut(&sub) {
                    Some(sub) => {
                        sub.hold_again(tag);
                    }
                    // Its subscription is gone meanwhile: nothing holds it any more.
                    None => {
                        peer.end(tag);
                        if let Some((queue, sequence)) = entry {
                            self.release(queue, sequence, Release::Lost);
                        }
                    }
                }
            }
        }
    }

    // ---- ACK, NACK ----

    fn settle_request(&mut self, session: SessionNo, settle: &Settle, now: Now) -> Result<Seq, Refusal> {
        if let Some(tx) = settle.tx {
            self.check_stage(session, tx, STAGED_STEP_BYTES)?;
        }
        let tags = match self.named(session, settle)? {
            // The failure, or the end of the entry, is stated by an earlier batch.
            None => return Ok(self.ledger.gate_so_far()),
            Some(tags) => tags,
        };
        let why = settle.why.as_deref();
        let Some(tx) = settle.tx else {
            match tags {
                Tags::One(tag) => self.conclude(session, tag, settle.outcome, why, now),
                Tags::Many(tags) => tags
                    .into_iter()
                    .for_each(|tag| self.conclude(session, tag, settle.outcome, why, now)),
            }
            // What was purged or has expired meanwhile is gone by an earlier batch.
            return Ok(self.ledger.gate_so_far());
        };
        let tags = match tags {
            Tags::One(tag) => vec![tag],
            Tags::Many(tags) => tags,
        };
        let peer = self
            .peers
            .get_mut(&session)
            .expect("requests come from an open session");
        let mut of = None;
        for tag in &tags {
            let held = peer.held.get_mut(tag.0).expect("it was just named");
            held.state = HeldState::Staged;
            of = Some(held.sub);
            let sub = peer
                .subs
                .get_mut(&held.sub)
                .expect("a held delivery has its subscription");
            sub.let_go(*tag);
            sub.moved_at_ms = now.mono_ms;
        }
        let words = settle.why.as_ref().map_or(0, |why| why.words.len());
        let bytes = STAGED_STEP_BYTES + words + tags.len() * size_of::<Tag>();
        self.stage(
            session,
            tx,
            Step::Settle {
                tags,
                outcome: settle.outcome,
                why: settle.why.clone(),
            },
            bytes,
        );
        if let Some(sub) = of {
            self.refill(session, sub);
        }
        Ok(Seq(0))
    }

    /// The deliveries that an ACK or NACK is about; `None` where the broker has ended it, so that nothing is to be done.
    fn named(&mut self, session: SessionNo, settle: &Settle) -> Result<Option<Tags>, Refusal> {
        let peer = self
            .peers
            .get_mut(&session)
            .expect("requests come from an open session");
        let tag = peer
            .find(settle.delivery)
            .filter(|tag| *tag <= peer.handed)
            .ok_or(Refusal::DeliveryUnknown)?;
        let held = *peer.held.get(tag.0).expect("find gives what is held");
        match held.state {
            HeldState::Staged => return Err(Refusal::DeliveryUnknown),
            HeldState::Ended => {
                peer.unhold(tag);
                return Ok(None);
            }
            HeldState::Lost => {
                let Some(sub) = peer.subs.get(&held.sub) else {
                    // Given back by UNSUBSCRIBE, as those are whose leases had not run out.
                    peer.unhold(tag);
                    return Ok(None);
                };
                let alone = sub.ack_mode == crate::port::AckMode::ClientIndividual;
                return match settle.outcome {
                    // The failure is counted already.
                    Outcome::Failed if alone && settle.tx.is_none() => {
                        self.peer(session).unhold(tag);
                        Ok(None)
                    }
                    Outcome::Accepted
                        if alone && settle.tx.is_none() && self.may_settle_late(session, tag) =>
                    {
                        Ok(Some(Tags::One(tag)))
                    }
                    _ => Err(Refusal::LeaseLost),
                };
            }
            HeldState::Held => {}
        }
        let sub = peer
            .subs
            .get_mut(&held.sub)
            .expect("a held delivery has its subscription");
        match sub.ack_mode {
            crate::port::AckMode::Auto => Err(Refusal::DeliveryUnknown),
            crate::port::AckMode::ClientIndividual => Ok(Some(Tags::One(tag))),
            crate::port::AckMode::Client if sub.covers_lost(&peer.held, tag) => Err(Refusal::LeaseLost),
            crate::port::AckMode::Client => {
                let count = sub.order.partition_point(|of| *of <= tag);
                let tags = sub.order.drain(..count).filter(|tag| {
                    peer.held
                        .get(tag.0)
                        .is_some_and(|held| held.state == HeldState::Held)
                });
                Ok(Some(Tags::Many(tags.collect())))
            }
        }
    }

    // ---- SUBSCRIBE, UNSUBSCRIBE ----

    pub(super) fn subscribe(
        &mut self,
        session: SessionNo,
        subscribe: &Subscribe,
        requests: &Requests,
        now: Now,
    ) -> Result<Seq, Refusal> {
        let name = requests.text(subscribe.name);
        let mut gate = Seq(0);
        let mut selector = None;
        let source = match subscribe.kind {
            DestinationKind::Queue | DestinationKind::Temporary if subscribe.browse.is_some() => {
                self.open_browser(session, subscribe, requests)?
            }
            DestinationKind::Queue => {
                let there = self.find_queue(name);
                if there.is_some_and(|queue| queue.owner.is_some()) {
                    return Err(Refusal::QueuePrivate);
                }
                gate = self.bind_as_asked(name, subscribe, requests)?;
                let no = self.open_queue(name);
                if let (Some(filter), false) = (&subscribe.filter, subscribe.binds_durably) {
                    let opened = self.open_selector(no, filter);
                    selector = Some(opened.inspect_err(|_| self.mark_dirty(no))?);
                }
                let queue = self
                    .queues
                    .get_mut(no.0 as usize)
                    .and_then(Option::as_mut)
                    .expect("it was just opened");
                queue.sub_count += 1;
                if subscribe.exclusive {
                    let order = queue.exclusive.iter().map(|(_, order, _)| *order).max();
                    let sub = (session, subscribe.sub);
                    let place = (
                        Reverse(subscribe.priority),
                        order.map_or(0, |order| order + 1),
                        sub,
                    );
                    queue.exclusive.insert(place);
                    let only = queue.only();
                    let lanes = queue.open_lanes();
                    if only == Some(sub) {
                        lanes.disown_for(sub);
                    }
                    lanes.unpark_all();
                }
                if !queue.watched {
                    queue.watched = true;
                    self.state_mark(Mark::Watched(no));
                }
                Source::Queue(no)
            }
            DestinationKind::Temporary => {
                let no = self.open_temporary(session, name)?;
                if let Some(filter) = &subscribe.filter {
                    selector = Some(self.open_selector(no, filter)?);
                }
                Source::Queue(no)
            }
            DestinationKind::Topic => {
                let name: Arc<str> = name.into();
                self.routes.open(&name).subs.push((session, subscribe.sub));
                Source::Topic {
                    name,
                    backlog: Default::default(),
                    backlog_bytes: 0,
                }
            }
        };
        let (prefetch_count, beyond) = Beyond::of(subscribe.credit, self.limits.prefetch_count_max);
        let sub = Sub {
            source,
            ack_mode: subscribe.ack_mode,
            by_message: subscribe.by_message,
            prefetch_count,
            beyond,
            held_count: 0,
            unsent_bytes: 0,
            no_local: subscribe.no_local,
            filter: subscribe.filter.clone(),
            class: Class {
                selector,
                priority: subscribe.priority,
            },
            active: false,
            in_ring: false,
            order: Default::default(),
            ack_timeout_ms: subscribe.ack_timeout_ms,
            since: self.peer(session).last_tag,
            moved_at_ms: now.mono_ms,
            stuck_told: false,
        };
        self.peer(session).subs.insert(subscribe.sub, sub);
        Ok(gate)
    }

    /// One more subscription of a session's own temporary queue, made if there is none.
    fn open_temporary(&mut self, session: SessionNo, name: &str) -> Result<QueueNo, Refusal> {
        let name = temporary(name);
        let there = self.find_queue(&name);
        if there.is_some_and(|queue| queue.owner != Some(session)) {
            return Err(Refusal::QueuePrivate);
        }
        let no = self.open_queue(&name);
        let queue = self.queue_mut(no).expect("it was just opened");
        queue.sub_count += 1;
        if queue.owner.replace(session).is_none() {
            self.peer(session).temporary.push(no);
        }
        Ok(no)
    }

    /// Binds a queue as a SUBSCRIBE asks for, and gives the Seq that states it; or refuses.
    fn bind_as_asked(&mut self, name: &str, asked: &Subscribe, requests: &Requests) -> Result<Seq, Refusal> {
        let filter = asked.filter.clone().filter(|_| asked.binds_durably);
        let queue = self.find_queue(name);
        let bound = queue.and_then(|queue| queue.binding.as_ref());
        match (asked.binding, bound) {
            (Binding::None, _) => Ok(Seq(0)),
            (Binding::Present, None) => Err(Refusal::BindingUnknown),
            (Binding::Present, Some(_)) => Ok(self.binding_gate(name)),
            (Binding::To(topic), Some(bound)) if **bound != *requests.text(topic) => {
                Err(Refusal::BindingDiffers)
            }
            (Binding::To(_), Some(topic)) => {
                let before = queue.and_then(|queue| queue.binding_filter.as_ref());
                if !asked.binds_durably
                    || before.map(|filter| &filter.text) == filter.as_ref().map(|filter| &filter.text)
                {
                    return Ok(self.binding_gate(name));
                }
                // Those who share it would not get what they asked for.
                if queue.is_some_and(|queue| queue.sub_count > 0) {
                    return Err(Refusal::BindingDiffers);
                }
                if !self.room {
                    return Err(Refusal::DiskFull);
                }
                let topic = Arc::clone(topic);
                let no = self.open_queue(name);
                self.bind(no, Some(topic), filter);
                self.state_mark(Mark::Declared(no));
                Ok(self.ledger.gate())
            }
            (Binding::To(topic), None) => {
                if !self.room {
                    return Err(Refusal::DiskFull);
                }
                if self.bound_count >= self.limits.durable_subscription_count_max {
                    return Err(Refusal::TooManyBindings);
                }
                let no = self.open_queue(name);
                self.bind(no, Some(requests.text(topic).into()), filter);
                self.state_mark(Mark::Declared(no));
                Ok(self.ledger.gate())
            }
        }
    }

    /// What must be durable before somebody is told that a queue is bound.
    fn binding_gate(&self, name: &str) -> Seq {
        let queue = self.find_queue(name);
        queue.map_or(Seq(0), |queue| queue.declared_at)
    }

    /// Binds a queue to a topic, or to none, in memory.
    pub(super) fn bind(&mut self, no: QueueNo, topic: Option<Arc<str>>, filter: Option<Arc<Filter>>) {
        let queue = self.queue_mut(no).expect("the queue was just opened");
        queue.binding_filter = filter;
        let before = std::mem::replace(&mut queue.binding, topic.clone());
        self.bound_count += usize::from(topic.is_some());
        self.bound_count -= usize::from(before.is_some());
        if let Some(before) = before {
            self.routes.change(&before, |route| {
                route.queues.remove(&no);
            });
        }
        if let Some(topic) = topic {
            self.routes.open(&topic).queues.insert(no);
        }
    }

    /// Ends a durable subscription that nobody is served from: its queue is gone, with all it holds.
    fn unbind(&mut self, name: &str) -> Result<Seq, Refusal> {
        let no = self.names.get(name).copied();
        let no = no.filter(|no| self.queue(*no).is_some_and(|queue| queue.binding.is_some()));
        let no = no.ok_or(Refusal::BindingUnknown)?;
        if self.queue(no).is_some_and(|queue| queue.sub_count > 0) {
            return Err(Refusal::BindingInUse);
        }
        self.end_queue(no);
        self.mark_dirty(no);
        Ok(self.ledger.gate())
    }

    /// A new subscription may be served once its SUBSCRIBE's receipt may leave, and once it is durable that its queue has
    /// a subscriber, since a crash could not be told from no delivery otherwise.
    fn activate_at(&mut self, session: SessionNo, sub: SubNo, gate: Seq) {
        let Some(source) = self
            .peers
            .get(&session)
            .and_then(|peer| peer.subs.get(&sub))
            .map(|sub| &sub.source)
        else {
            return;
        };
        let watched_at = match source {
            Source::Queue(no) => self.queue(*no).map_or(Seq(0), |queue| queue.watched_at),
            Source::Topic { .. } | Source::Browse(_) => Seq(0),
        };
        let gate = gate.max(watched_at);
        if gate <= self.ledger.durable() {
            self.activate(session, sub);
        } else {
            self.activating.insert((gate, session, sub));
        }
    }

    pub(super) fn activate(&mut self, session: SessionNo, no: SubNo) {
        if let Some(sub) = self
            .peers
            .get_mut(&session)
            .and_then(|peer| peer.subs.get_mut(&no))
        {
            sub.active = true;
            self.refill(session, no);
        }
    }

    /// Ends a subscription: what it holds goes back in its old place, what is on its way and not yet taken never was.
    pub(super) fn unsubscribe(&mut self, session: SessionNo, no: SubNo) {
        let peer = self.peer(session);
        let Some(sub) = peer.subs.remove(&no) else { return };
        if sub.held_count > 0 || sub.unsent_bytes > 0 {
            self.give_up(session, no, &sub);
        }
        self.leave(session, no, &sub);
    }

    /// Ends the deliveries that a subscription holds; it has some, and is no longer among those of its session.
    fn give_up(&mut self, session: SessionNo, no: SubNo, sub: &Sub) {
        let peer = self.peer(session);
        let handed = peer.handed;
        peer.events
            .retain(|event| !matches!(event, crate::port::Event::Delivery(delivery) if delivery.sub == no));
        let unsent_bytes = &mut peer.unsent_bytes;
        peer.unsent.retain(|unsent| {
            let never = unsent.sub == no && unsent.tag > handed;
            if never {
                *unsent_bytes -= unsent.len;
            }
            !never
        });
        // Those passed over for the sake of what was to go to this one have room now.
        if std::mem::take(&mut peer.blocked) {
            let others: Vec<SubNo> = peer.subs.keys().copied().collect();
            others.into_iter().for_each(|other| self.refill(session, other));
        }
        let peer = self.peer(session);
        let held: Vec<(Tag, Held)> = peer
            .held
            .range_from(sub.since.0)
            .filter(|(_, held)| held.sub == no && held.state == HeldState::Held)
            .take(sub.held_count as usize)
            .map(|(tag, held)| (Tag(tag), *held))
            .collect();
        for (tag, Held { entry, lease, .. }) in held {
            self.end_lease(session, tag, lease);
            let never = tag > handed;
            if never && sub.is_browser() {
                self.unpin_one(session, tag);
            }
            let peer = self.peer(session);
            if never || sub.ack_mode == crate::port::AckMode::Auto {
                peer.unhold(tag);
            } else {
                peer.end(tag);
            }
            if let Some((queue, sequence)) = entry {
                self.pin(session, tag, queue, sequence);
                self.release(
                    queue,
                    sequence,
                    if never { Release::Never } else { Release::Lost },
                );
            }
        }
    }

    /// A delivery is about to end without the client's doing. A long message of which a part may be out is sent to its end
    /// all the same, so its bytes stay where they are until then.
    pub(super) fn pin(&mut self, session: SessionNo, tag: Tag, no: QueueNo, sequence: u64) {
        let entry = self.queue(no).and_then(|queue| queue.entries.get(sequence));
        let purged = self.lingering.get(&(no, sequence));
        let (bytes, len) = match (entry, purged) {
            (Some(entry), _) => (&entry.bytes, entry.len),
            (None, Some((bytes, len))) => (bytes, *len),
            (None, None) => return,
        };
        let EntryBytes::Extent(chunks) = bytes else { return };
        let bytes = EntryBytes::Extent(chunks.clone());
        if self.peer(session).is_being_sent(tag) {
            self.ledger.share(&bytes, len);
            let pinned = &mut self.peer(session).pinned;
            let at = pinned.partition_point(|(of, ..)| *of < tag);
            pinned.insert(at, (tag, bytes, len));
        }
    }

    /// What was pinned is in the socket up to this delivery, or will never be.
    pub(super) fn unpin(&mut self, session: SessionNo, up_to: Tag) {
        while let Some(peer) = self.peers.get_mut(&session)
            && peer.pinned.front().is_some_and(|(tag, ..)| *tag <= up_to)
            && let Some((_, bytes, len)) = peer.pinned.pop_front()
        {
            self.ledger.release(&bytes, len);
        }
    }

    /// What was pinned for a delivery will not be read.
    fn unpin_one(&mut self, session: SessionNo, tag: Tag) {
        let pinned = &mut self.peer(session).pinned;
        let at = pinned.binary_search_by_key(&tag, |(of, ..)| *of).ok();
        if let Some((_, bytes, len)) = at.and_then(|at| pinned.remove(at)) {
            self.ledger.release(&bytes, len);
        }
    }

    /// A subscription no longer stands at its source.
    fn leave(&mut self, session: SessionNo, no: SubNo, sub: &Sub) {
        match &sub.source {
            Source::Queue(queue_no) => {
                if let Some(queue) = self.queue_mut(*queue_no) {
                    queue.sub_count -= 1;
                    queue.stuck_count -= usize::from(sub.stuck_told);
                    queue.ring.remove(sub.class, (session, no));
                    let selector = sub.class.selector;
                    let before = queue.only();
                    queue.exclusive.retain(|(.., of)| *of != (session, no));
                    let changed = before != queue.only();
                    if let Some(lanes) = &mut queue.lanes {
                        lanes.disown_by((session, no));
                        if changed {
                            lanes.unpark_all();
                        }
                    }
                    if let Some(selector) = selector {
                        self.close_selector(*queue_no, selector);
                    }
                }
                // Also so that it is forgotten if nothing is left of it.
                self.mark_dirty(*queue_no);
            }
            Source::Browse(browser) => self.end_browser((session, no), browser.queue),
            Source::Topic {
                name, backlog_bytes, ..
            } => {
                self.backlog_bytes -= backlog_bytes;
                self.routes
                    .change(name, |route| route.subs.retain(|of| *of != (session, no)));
            }
        }
    }

    /// Releases all that a session holds, aborts all that it staged.
    pub(super) fn end_session(&mut self, session: SessionNo, lost: Release) {
        let Some(peer) = self.peers.get_mut(&session) else {
            return;
        };
        let subs = std::mem::take(&mut peer.subs);
        let transactions = std::mem::take(&mut peer.transactions);
        let held = std::mem::take(&mut peer.held);
        let handed = peer.handed;
        self.staged_bytes -= peer.staged_bytes;
        self.counters.aborted_count += transactions.len() as u64;
        peer.staged_bytes = 0;
        peer.staged_frame_count = 0;
        peer.by_message.clear();
        peer.events.clear();
        for (tag, held) in held.iter() {
            self.end_lease(session, Tag(tag), held.lease);
            if !held.state.is_over()
                && let Some((queue, sequence)) = held.entry
            {
                self.pin(session, Tag(tag), queue, sequence);
                self.release(
                    queue,
                    sequence,
                    if Tag(tag) > handed { Release::Never } else { lost },
                );
            }
        }
        let peer = self.peer(session);
        peer.unsent.clear();
        peer.unsent_bytes = 0;
        let temporary = std::mem::take(&mut peer.temporary);
        for (no, sub) in subs {
            self.leave(session, no, &sub);
        }
        for no in temporary {
            self.purge_all(no);
            if let Some(queue) = self.queue_mut(no) {
                queue.owner = None;
            }
            self.mark_dirty(no);
        }
    }
}

/// Where one message goes.
#[derive(Debug, Default)]
struct Way {
    queues: BTreeSet<QueueNo>,
    /// Those of them that the sender named.
    named: BTreeSet<QueueNo>,
    temporary: BTreeSet<QueueNo>,
    topics: BTreeSet<Arc<str>>,
}

/// What was left out of a way.
#[derive(Debug, Default)]
struct Left {
    /// What a receipt that says so must wait for.
    gate: Seq,
    /// Nothing that is stored is left.
    whole: bool,
}

/// The queue of a temporary queue's name.
pub(super) fn temporary(name: &str) -> String {
    format!("{TEMPORARY_QUEUE_PREFIX}{name}")
}

/// All that a SEND names.
pub(super) fn targets(send: &Send) -> impl Iterator<Item = &Target> {
    std::iter::once(&send.to).chain(&send.also)
}

/// The deliveries that one ACK or NACK is about.
enum Tags {
    One(Tag),
    Many(Vec<Tag>),
}

fn payload_len(payload: &Payload) -> u32 {
    match payload {
        Payload::Arena(span) => span.len,
        Payload::Shared(bytes) => u32::try_from(bytes.len()).expect("a frame is under 4 GiB"),
    }
}

fn shared(payload: &Payload, requests: &Requests) -> Bytes {
    match payload {
        Payload::Arena(span) => Bytes::copy_from_slice(requests.bytes(*span)),
        Payload::Shared(bytes) => bytes.clone(),
    }
}
