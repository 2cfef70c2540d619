//! Broker, disk and model side by side.

#[path = "acts.rs"]
mod acts;
#[path = "backup.rs"]
mod backup;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use steadfast::base::{
    ChunkRef, Destination, DestinationKind, Limits, MessageId, Now, Seq, SessionNo, SubNo, Tag, TxNo,
};
use steadfast::broker::{Broker, Notice};
use steadfast::journal::Fact;
use steadfast::port::{
    AckMode, Binding, Credit, Delivery, DeliveryKey, EntryView, Event, Outcome, Payload, Refusal, Request,
    Requests, Send, Settle, Subscribe, Target, Terms,
};

use crate::state::{
    At, ChainStep, Entry, Held, HeldState, Message, Number, Pauses, Session, Spot, Step, Sub, Suspect,
};
use crate::support::Disk;

/// One operation on the world.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// One socket read of the client in a slot.
    Requests(u8, Vec<Ask>),
    /// Batches are handed to the committer.
    Append,
    /// So many batches become durable.
    Flush(usize),
    /// All of both.
    Sync,
    /// The client does not read (true), or reads again.
    Stall(u8, bool),
    /// What is handed to the client's socket is not written yet.
    Slow(u8, bool),
    Close(u8),
    Tick,
    /// The chunks that the broker asked for have been read.
    Relocate,
    /// Of the batches that are not durable so many happen to be kept.
    Crash(usize),
    Restart,
    Room(bool),
    /// An operator asks for something.
    Act(Deed),
    /// A backup begins, or the next piece of it is read.
    Backup,
}

/// What an operator asks for, with the entries still to be chosen.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Purge(&'static str, Which),
    Move(&'static str, &'static str, Which),
    Copy(&'static str, &'static str, Which),
    Requeue(&'static str, Which),
    Delete(&'static str, bool),
    Disconnect(u8),
    Pause(&'static str),
    Resume(&'static str),
}

/// Which entries: all, those from one on, or those of a pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    All,
    From(u8),
    Some(u8),
}

/// One frame, with what it names still to be chosen.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Send {
        destination: &'static str,
        size: usize,
        persistent: bool,
        tx: Option<Pick>,
        shared: bool,
    },
    Subscribe {
        destination: &'static str,
        ack_mode: AckMode,
        credit: Credit,
    },
    /// A subscription asks for so many more.
    More(Pick, u32),
    Unsubscribe(Pick),
    Settle {
        delivery: Pick,
        accepted: bool,
        tx: Option<Pick>,
    },
    Begin,
    Commit(Pick),
    Abort(Pick),
    Disconnect,
}

/// One that may be named, any that there ever was, or one that never was.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pick {
    Right(u8),
    Any(u8),
    Wrong,
}

/// How the client in a slot names deliveries: as 1.2, 1.1 and 1.0 do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Tag,
    Message,
    MessageAlone,
}

/// See the module's text.
pub(crate) struct World {
    limits: Limits,
    styles: Vec<Style>,
    broker: Broker,
    disk: Disk,
    now: Now,
    next_session: u64,
    next_unit: usize,
    sessions: BTreeMap<u8, Session>,
    queues: BTreeMap<String, Vec<Entry>>,
    messages: Vec<Message>,
    ids: BTreeMap<MessageId, Number>,
    sequences: BTreeMap<(String, u64), Number>,
    /// Which batch stated an entry first.
    stated: BTreeMap<(String, u64), Seq>,
    /// Queues that had a subscription since the last clean stop.
    watched: BTreeSet<String>,
    /// Topic messages since everything was durable last.
    recent: Vec<(String, Number)>,
    room: bool,
    gate_max: Seq,
    /// Chunks on their way to the broker, which will move what lives in them.
    reading: Vec<(ChunkRef, Bytes)>,
    /// Messages that went back to the subscription that nacked them, in this step.
    came_back: Vec<(String, Number, u8, SubNo)>,
    /// Whether each queue's deliveries are stopped, and what is durable of it.
    paused: BTreeMap<String, Pauses>,
    /// Purged while they were on their way to a client that does not read.
    late: BTreeSet<(String, Number)>,
    /// Two calls were made since events were polled last.
    unseen_return: bool,
    tally: Tally,
    backup: Option<backup::Backup>,
}

/// What the broker must have counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    enqueued: u64,
    accepted: u64,
    failed: u64,
    dead_lettered: u64,
    committed: u64,
    aborted: u64,
}

impl World {
    pub(crate) fn new(limits: Limits, styles: &[Style]) -> Self {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 1_000,
        };
        let disk = Disk::default();
        let broker = disk.recover(&limits, now);
        let mut world = Self {
            limits,
            styles: styles.to_vec(),
            broker,
            disk,
            now,
            next_session: 1,
            next_unit: 0,
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            messages: Vec::new(),
            ids: BTreeMap::new(),
            sequences: BTreeMap::new(),
            stated: BTreeMap::new(),
            watched: BTreeSet::new(),
            recent: Vec::new(),
            room: true,
            gate_max: Seq(0),
            reading: Vec::new(),
            came_back: Vec::new(),
            late: BTreeSet::new(),
            paused: BTreeMap::new(),
            unseen_return: false,
            tally: Tally::default(),
            backup: None,
        };
        world.sync();
        world
    }

    /// Plays one operation against broker and model, and compares.
    pub(crate) fn play(&mut self, op: &Op) {
        self.now.wall_ms += 1;
        self.now.mono_ms += 1;
        match op {
            Op::Requests(slot, asks) => self.requests(*slot, asks),
            Op::Append => self.append(),
            Op::Flush(count) => self.flush(*count),
            Op::Sync => self.sync(),
            Op::Stall(slot, on) => {
                let session = self.session(*slot);
                session.stalled = *on;
                session.catching_up = true;
            }
            Op::Slow(slot, on) => self.session(*slot).slow = *on,
            Op::Close(slot) => self.close(*slot),
            Op::Tick => {
                self.now.wall_ms += 1_000;
                self.now.mono_ms += 1_000;
                self.relocate();
                self.broker.handle_tick(self.now);
                self.read_for_relocation();
            }
            Op::Relocate => self.relocate(),
            Op::Crash(kept) => self.crash(*kept),
            Op::Restart => self.restart(),
            Op::Room(room) => {
                self.room = *room;
                self.broker.handle_room(*room);
            }
            Op::Act(deed) => self.act(deed),
            Op::Backup => self.backup(),
        }
        self.observe();
        self.check_all();
    }

    /// Takes everything out, in order, and finds nothing left.
    pub(crate) fn drain(&mut self) {
        let queues: Vec<String> = self.queues.keys().cloned().collect();
        for queue in ["a", "b", "DLQ.a", "DLQ.b"] {
            if self.is_paused(queue) {
                self.play(&Op::Act(Deed::Resume(queue)));
            }
        }
        for queue in queues {
            let want: Vec<Number> = self.queues[&queue].iter().map(|entry| entry.number).collect();
            let destination: &'static str = match queue.as_str() {
                "a" => "/queue/a",
                "b" => "/queue/b",
                "DLQ.a" => "/queue/DLQ.a",
                "DLQ.b" => "/queue/DLQ.b",
                other => panic!("no message was ever sent to {other}"),
            };
            let subscribe = Ask::Subscribe {
                destination,
                ack_mode: AckMode::Auto,
                credit: Credit::count(1000),
            };
            self.play(&Op::Requests(0, vec![subscribe]));
            let before: Vec<Tag> = self.session(0).held.keys().copied().collect();
            self.play(&Op::Sync);
            let got: Vec<Number> = self
                .session(0)
                .held
                .iter()
                .filter(|(tag, held)| !before.contains(tag) && held.queue.as_deref() == Some(&queue))
                .map(|(_, held)| held.number)
                .collect();
            let got_before = want.len() - got.len();
            assert_eq!(got, want[got_before..], "what is left comes in the old order");
        }
        self.play(&Op::Sync);
        assert!(
            self.queues.values().all(Vec::is_empty),
            "everything was delivered"
        );
    }

    pub(crate) fn held_count(&mut self, slot: u8) -> usize {
        let session = self.session(slot);
        session
            .held
            .values()
            .filter(|held| held.state == HeldState::Held)
            .count()
    }

    fn session(&mut self, slot: u8) -> &mut Session {
        if !self.sessions.contains_key(&slot) {
            let no = self.next_session;
            self.next_session += 1;
            self.broker.handle_open(SessionNo(no));
            let session = Session {
                no,
                ..Session::default()
            };
            self.sessions.insert(slot, session);
        }
        self.sessions.get_mut(&slot).unwrap()
    }

    // ---- durability ----

    fn append(&mut self) {
        while let Some(batch) = self.broker.poll_batch() {
            for fact in &batch.facts {
                if let Fact::Enqueued(run) = fact {
                    for sequence in (run.first_sequence..).take(run.items.len()) {
                        self.stated
                            .entry((run.queue.to_string(), sequence))
                            .or_insert(batch.seq);
                    }
                }
            }
            self.disk.append(batch);
        }
        // Whatever was done so far is stated in some batch up to here.
        let seq = self.disk.appended_seq();
        for message in &mut self.messages {
            for step in &mut message.chain.steps {
                step.bound.get_or_insert(seq);
            }
        }
    }

    fn flush(&mut self, count: usize) {
        let sizes = self.disk.flush(count);
        if sizes.is_empty() {
            return;
        }
        let durable = self.disk.durable_seq();
        self.paused.values_mut().for_each(|pauses| pauses.settle(durable));
        for message in &mut self.messages {
            let done = message
                .chain
                .steps
                .iter()
                .take_while(|step| step.bound.is_some_and(|bound| bound <= durable))
                .count();
            if let Some(last) = message.chain.steps.drain(..done).next_back() {
                message.chain.base = last.after;
            }
        }
        self.broker.handle_durable(durable, &sizes, self.now);
    }

    fn sync(&mut self) {
        // What becomes durable may lead to more to be made durable: `auto` deliveries are settled.
        for _ in 0..1_000 {
            self.append();
            self.flush(usize::MAX);
            self.observe();
            if self.is_quiet() {
                assert!(
                    self.gate_max <= self.disk.durable_seq(),
                    "every gate is reached: a receipt waits for Seq {}, the last batch is {}",
                    self.gate_max,
                    self.disk.durable_seq()
                );
                return;
            }
        }
        panic!("batches without end");
    }

    fn is_quiet(&self) -> bool {
        !self.broker.has_batch() && self.disk.pending_count() == 0
    }

    // ---- relocation ----

    /// Reads the chunks that the broker wants to see; it gets them later.
    fn read_for_relocation(&mut self) {
        while let Some(chunk) = self.broker.poll_relocation() {
            // A chunk that is gone by now is read by nobody.
            if let Some(payload) = self.disk.chunk(chunk) {
                self.reading.push((chunk, payload));
            }
        }
    }

    fn relocate(&mut self) {
        for (chunk, payload) in std::mem::take(&mut self.reading) {
            self.broker.handle_relocated(chunk, &payload);
        }
    }

    // ---- requests ----

    fn requests(&mut self, slot: u8, asks: &[Ask]) {
        self.session(slot);
        let mut requests = Requests::default();
        let mut sent = Vec::new();
        let mut fresh = (self.sessions[&slot].next_sub, self.sessions[&slot].next_tx);
        for ask in asks {
            if let Some(request) = self.request(slot, ask, &mut requests, &mut sent, &mut fresh) {
                let last = request == Request::Disconnect;
                requests.list.push(request);
                if last {
                    break;
                }
            }
        }
        if requests.list.is_empty() {
            return;
        }
        let no = SessionNo(self.sessions[&slot].no);
        let applied = self.broker.handle_requests(no, &requests, self.now);
        self.gate_max = self.gate_max.max(applied.gate);
        assert_eq!(
            applied.refusal.is_none(),
            applied.done == requests.list.len(),
            "all is done, or one request is refused"
        );
        let mut sent = sent.into_iter();
        let session = self.sessions.get_mut(&slot).unwrap();
        session.gate = session.gate.max(applied.gate);
        for request in &requests.list[..applied.done] {
            self.done(slot, request, &requests, &mut sent, applied.gate);
        }
        let mut gone = requests.list[..applied.done].contains(&Request::Disconnect);
        if let Some(refusal) = applied.refusal {
            self.refused(slot, &requests.list[applied.done], refusal);
            gone = true;
        }
        if gone {
            // What was dispatched to this session in between comes back without anybody having seen it.
            self.close(slot);
            self.unseen_return = true;
        }
    }

    /// The frame that the client sends; `None` where there is nothing to name.
    fn request(
        &mut self,
        slot: u8,
        ask: &Ask,
        requests: &mut Requests,
        sent: &mut Vec<Number>,
        fresh: &mut (u32, u32),
    ) -> Option<Request> {
        let style = self.styles[usize::from(slot)];
        let session = &self.sessions[&slot];
        let transaction = |pick: &Pick| match pick {
            Pick::Right(at) | Pick::Any(at) => {
                let open: Vec<TxNo> = session.transactions.keys().copied().collect();
                let begun = (session.next_tx..fresh.1).map(|no| TxNo(no + 1));
                let known: Vec<TxNo> = open.into_iter().chain(begun).collect();
                known.get(usize::from(*at) % known.len().max(1)).copied()
            }
            Pick::Wrong => Some(TxNo(9_999)),
        };
        let settling = |pick: &Option<Pick>| match pick {
            None => Some(None),
            Some(pick) => transaction(pick).map(Some),
        };
        Some(match ask {
            Ask::Send {
                destination,
                size,
                persistent,
                tx,
                shared,
            } => {
                let tx = settling(tx)?;
                let number = self.messages.len();
                let header = format!("n:{number:08}\n");
                let mut bytes = header.clone().into_bytes();
                bytes.extend((0..*size).map(|at| (at * 31 + number * 7) as u8));
                let destination = Destination::parse(destination).unwrap();
                let name = requests.push_bytes(destination.name.as_bytes());
                let payload = if *shared {
                    Payload::Shared(Bytes::from(bytes.clone()))
                } else {
                    Payload::Arena(requests.push_bytes(&bytes))
                };
                let header_len = u32::try_from(header.len()).unwrap();
                self.messages.push(Message {
                    bytes,
                    header_len,
                    ..Message::default()
                });
                sent.push(number);
                Request::Send(Send {
                    to: Target {
                        kind: destination.kind,
                        name,
                    },
                    also: Vec::new(),
                    payload,
                    header_len,
                    persistent: *persistent,
                    terms: Terms::default(),
                    dedup: None,
                    tx,
                })
            }
            Ask::Subscribe {
                destination,
                ack_mode,
                credit,
            } => {
                let destination = Destination::parse(destination).unwrap();
                // Two deliveries of one topic message in one session cannot be told apart by message id alone.
                let alone = style == Style::MessageAlone && destination.kind == DestinationKind::Topic;
                fresh.0 += 1;
                Request::Subscribe(Subscribe {
                    ack_timeout_ms: None,
                    binding: Binding::None,
                    sub: SubNo(fresh.0),
                    kind: destination.kind,
                    name: requests.push_bytes(destination.name.as_bytes()),
                    ack_mode: if alone { AckMode::Auto } else { *ack_mode },
                    credit: *credit,
                    filter: None,
                    binds_durably: false,
                    priority: 0,
                    exclusive: false,
                    no_local: false,
                    browse: None,
                    by_message: style != Style::Tag,
                })
            }
            Ask::More(pick, count) => {
                let (Pick::Right(at) | Pick::Any(at)) = pick else {
                    return None;
                };
                let right = |sub: &Sub| matches!(pick, Pick::Any(_)) || sub.asked.is_some();
                let known = session.subs.iter().filter(|(_, sub)| right(sub));
                let known: Vec<SubNo> = known.map(|(no, _)| *no).collect();
                let sub = *known.get(usize::from(*at) % known.len().max(1))?;
                // A session names none that it has ended.
                let ended = requests.list.contains(&Request::Unsubscribe { sub });
                (!ended).then_some(Request::Credit { sub, count: *count })?
            }
            Ask::Unsubscribe(pick) => {
                let known: Vec<SubNo> = session.subs.keys().copied().collect();
                let (Pick::Right(at) | Pick::Any(at)) = pick else {
                    return None;
                };
                let sub = *known.get(usize::from(*at) % known.len().max(1))?;
                // A session asks for each subscription's end once.
                let again = requests.list.contains(&Request::Unsubscribe { sub });
                (!again).then_some(Request::Unsubscribe { sub })?
            }
            Ask::Settle {
                delivery,
                accepted,
                tx,
            } => {
                let tx = settling(tx)?;
                let right = |held: &Held| {
                    let sub = session.subs.get(&held.sub);
                    held.state == HeldState::Held && sub.is_some_and(|sub| sub.ack_mode != AckMode::Auto)
                };
                let known: Vec<(&Tag, &Held)> = session
                    .held
                    .iter()
                    .rev()
                    .filter(|(_, held)| matches!(delivery, Pick::Any(_)) || right(held))
                    .collect();
                let delivery = match (delivery, style) {
                    (Pick::Right(at) | Pick::Any(at), _) => {
                        let (tag, held) = known.get(usize::from(*at) % known.len().max(1))?;
                        let message = held.delivery.message;
                        match style {
                            Style::Tag => DeliveryKey::Tag(**tag),
                            Style::Message => DeliveryKey::Message(Some(held.sub), message),
                            Style::MessageAlone => DeliveryKey::Message(None, message),
                        }
                    }
                    (Pick::Wrong, Style::Tag) => DeliveryKey::Tag(Tag(session.last_tag.0 + 1)),
                    (Pick::Wrong, _) => DeliveryKey::Message(None, MessageId(7)),
                };
                Request::Settle(Settle {
                    why: None,
                    delivery,
                    outcome: if *accepted {
                        Outcome::Accepted
                    } else {
                        Outcome::Failed
                    },
                    tx,
                })
            }
            Ask::Begin => {
                fresh.1 += 1;
                Request::Begin { tx: TxNo(fresh.1) }
            }
            Ask::Commit(pick) => Request::Commit {
                tx: transaction(pick)?,
            },
            Ask::Abort(pick) => Request::Abort {
                tx: transaction(pick)?,
            },
            Ask::Disconnect => Request::Disconnect,
        })
    }

    /// The broker says that it did this: was it legal, and what follows.
    fn done(
        &mut self,
        slot: u8,
        request: &Request,
        requests: &Requests,
        sent: &mut impl Iterator<Item = Number>,
        gate: Seq,
    ) {
        match request {
            Request::Send(send) => {
                let number = sent.next().unwrap();
                let name = requests.text(send.to.name).to_owned();
                let stored = send.to.kind == DestinationKind::Queue && (send.persistent || send.tx.is_some());
                assert!(self.room || !stored, "a full disk takes no message");
                match send.tx {
                    Some(tx) => {
                        let kind = send.to.kind;
                        let steps = self.sessions.get_mut(&slot).unwrap().transactions.get_mut(&tx);
                        steps
                            .expect("a SEND is staged in an open transaction only")
                            .push(Step::Send { kind, name, number });
                    }
                    None if send.to.kind == DestinationKind::Topic => self.publish(&name, number),
                    None => {
                        let unit = self.unit();
                        self.enqueue(&name, number, !send.persistent, None, Some(gate), unit);
                        self.tally.enqueued += 1;
                    }
                }
            }
            Request::Subscribe(subscribe) => {
                let name = requests.text(subscribe.name).to_owned();
                let expected = match subscribe.kind {
                    DestinationKind::Topic => self
                        .recent
                        .iter()
                        .filter(|(topic, _)| *topic == name)
                        .map(|(_, number)| (*number, false))
                        .collect(),
                    DestinationKind::Queue | DestinationKind::Temporary => {
                        self.watched.insert(name.clone());
                        Default::default()
                    }
                };
                let session = self.sessions.get_mut(&slot).unwrap();
                session.next_sub = subscribe.sub.0;
                // Its receipt leaves behind all earlier ones, and precedes its first message.
                let gate = session.gate;
                session.subs.insert(
                    subscribe.sub,
                    Sub {
                        kind: subscribe.kind,
                        name,
                        ack_mode: subscribe.ack_mode,
                        credit: subscribe.credit,
                        asked: (subscribe.credit == Credit::Pull).then_some(0),
                        gate,
                        active: false,
                        expected,
                    },
                );
            }
            Request::Unsubscribe { sub } => {
                let session = self.sessions.get_mut(&slot).unwrap();
                let auto = session.subs.remove(sub).unwrap().ack_mode == AckMode::Auto;
                let held: Vec<Tag> = session
                    .held
                    .iter_mut()
                    .filter(|(_, held)| held.sub == *sub && held.state == HeldState::Held)
                    .map(|(tag, held)| {
                        // In auto mode an answer was never asked for.
                        held.state = if auto {
                            HeldState::Settled
                        } else {
                            HeldState::Ended
                        };
                        *tag
                    })
                    .collect();
                held.into_iter().for_each(|tag| self.release(slot, tag));
            }
            Request::Settle(settle) => self.settled(slot, settle, gate),
            Request::Begin { tx } => {
                let session = self.sessions.get_mut(&slot).unwrap();
                session.next_tx = tx.0;
                session.transactions.insert(*tx, Vec::new());
            }
            Request::Commit { tx } => self.commit(slot, *tx, gate, requests.list.len() == 1),
            Request::Abort { tx } => self.abort(slot, *tx),
            Request::Credit { sub, count } => {
                let subs = &mut self.sessions.get_mut(&slot).unwrap().subs;
                let asked = subs.get_mut(sub).and_then(|sub| sub.asked.as_mut());
                *asked.expect("only a pull subscription may ask") += *count as usize;
            }
            Request::ActFor { .. }
            | Request::Unbind { .. }
            | Request::Declare { .. }
            | Request::Renew { .. } => {
                unreachable!("nobody asks for it")
            }
            Request::Disconnect => {}
        }
    }

    /// The broker says that it denied this: had it a reason.
    fn refused(&mut self, slot: u8, request: &Request, refusal: Refusal) {
        let open = |tx: &TxNo| self.sessions[&slot].transactions.contains_key(tx);
        let legal = match (request, refusal) {
            (Request::Send(send), Refusal::TransactionUnknown) => send.tx.is_some_and(|tx| !open(&tx)),
            (Request::Credit { sub, .. }, Refusal::NotPull) => self.sessions[&slot].subs[sub].asked.is_none(),
            // What was given meanwhile, and not looked at yet, is used up and held as well.
            (Request::Credit { sub, count }, Refusal::CreditTooHigh) => {
                let session = &self.sessions[&slot];
                let asked = session.subs[sub].asked.expect("it is a pull subscription");
                let sum = asked + session.credit_used(*sub) + *count as usize;
                sum > self.limits.prefetch_count_max as usize
            }
            (Request::Send(_), Refusal::DiskFull) => !self.room,
            (Request::Settle(settle), Refusal::TransactionUnknown) => settle.tx.is_some_and(|tx| !open(&tx)),
            (Request::Settle(settle), Refusal::DeliveryUnknown) => {
                let (held, ended) = self.find(slot, settle.delivery);
                held.is_none() && ended.is_none_or(|second| second)
            }
            (Request::Commit { tx } | Request::Abort { tx }, Refusal::TransactionUnknown) => !open(tx),
            (Request::Commit { tx }, Refusal::DiskFull) => {
                let steps = &self.sessions[&slot].transactions[tx];
                let legal = !self.room
                    && steps.iter().any(|step| {
                        matches!(
                            step,
                            Step::Send {
                                kind: DestinationKind::Queue,
                                ..
                            }
                        )
                    });
                self.abort(slot, *tx);
                legal
            }
            _ => false,
        };
        assert!(legal, "{request:?} was refused for no reason: {refusal:?}");
    }

    /// The delivery that an answer is about if it is held; else, whether there is one that was ended, and whether it may
    /// have been answered before (or is staged as well).
    fn find(&self, slot: u8, key: DeliveryKey) -> (Option<Tag>, Option<bool>) {
        let session = &self.sessions[&slot];
        let named: Vec<(Tag, &Held)> = session
            .held
            .iter()
            .filter(|(tag, held)| match key {
                DeliveryKey::Tag(of) => **tag == of,
                DeliveryKey::Message(sub, message) => {
                    held.delivery.message == message && sub.is_none_or(|sub| sub == held.sub)
                }
            })
            .map(|(tag, held)| (*tag, held))
            .collect();
        let answerable = |held: &Held| {
            held.state == HeldState::Held
                && session
                    .subs
                    .get(&held.sub)
                    .is_some_and(|sub| sub.ack_mode != AckMode::Auto)
        };
        let held = named
            .iter()
            .find(|(_, held)| answerable(held))
            .map(|(tag, _)| *tag);
        // A message id may also name what an earlier subscription had, for its client id may be in use again.
        let ended = match key {
            DeliveryKey::Tag(_) => named
                .iter()
                .any(|(_, held)| held.state == HeldState::Ended)
                .then_some(false),
            DeliveryKey::Message(_, message) => session
                .held
                .values()
                .any(|held| held.delivery.message == message && held.state == HeldState::Ended)
                .then(|| {
                    let own = |(_, held): &(Tag, &Held)| held.state == HeldState::Ended;
                    named.len() > 1 || !named.iter().any(own)
                }),
        };
        (held, ended)
    }

    fn settled(&mut self, slot: u8, settle: &Settle, gate: Seq) {
        let (held, ended) = self.find(slot, settle.delivery);
        let Some(tag) = held else {
            assert!(
                ended.is_some(),
                "an answer to what is not held is refused: {:?}",
                settle.delivery
            );
            // Accepted without effect; whether a second answer is, too, is open.
            for held in self.sessions.get_mut(&slot).unwrap().held.values_mut() {
                let named = match settle.delivery {
                    DeliveryKey::Tag(tag) => held.delivery.tag == tag,
                    DeliveryKey::Message(_, message) => held.delivery.message == message,
                };
                if named && held.state == HeldState::Ended {
                    held.state = HeldState::Settled;
                    break;
                }
            }
            return;
        };
        let session = self.sessions.get_mut(&slot).unwrap();
        let sub = session.held[&tag].sub;
        let tags: Vec<Tag> = match session.subs[&sub].ack_mode {
            AckMode::Client => session
                .held
                .range(..=tag)
                .filter(|(_, held)| held.sub == sub && held.state == HeldState::Held)
                .map(|(tag, _)| *tag)
                .collect(),
            _ => vec![tag],
        };
        match settle.tx {
            None => {
                let unit = self.unit();
                for (at, tag) in tags.into_iter().enumerate() {
                    self.conclude(
                        slot,
                        tag,
                        settle.outcome == Outcome::Accepted,
                        Some(gate),
                        unit + at,
                    );
                }
                self.next_unit += 100_000;
            }
            Some(tx) => {
                for tag in &tags {
                    session.held.get_mut(tag).unwrap().state = HeldState::Staged;
                }
                let accepted = settle.outcome == Outcome::Accepted;
                session
                    .transactions
                    .get_mut(&tx)
                    .expect("an ACK is staged in an open transaction only")
                    .push(Step::Settle { tags, accepted });
            }
        }
    }

    fn commit(&mut self, slot: u8, tx: TxNo, gate: Seq, alone: bool) {
        let steps = self
            .sessions
            .get_mut(&slot)
            .unwrap()
            .transactions
            .remove(&tx)
            .expect("only an open transaction is committed");
        let unit = self.unit();
        for step in steps {
            match step {
                Step::Send {
                    kind: DestinationKind::Topic,
                    name,
                    number,
                } => {
                    // Nobody sees a part of a transaction that may yet be lost.
                    // The gate of a call speaks of all its frames; of this one only if it is alone.
                    if alone {
                        self.messages[number].gate = gate;
                    }
                    self.publish(&name, number);
                }
                Step::Send { name, number, .. } => {
                    assert!(self.room, "a full disk takes no message");
                    self.enqueue(&name, number, false, None, Some(gate), unit);
                    self.tally.enqueued += 1;
                }
                Step::Settle { tags, accepted } => {
                    for tag in tags {
                        self.conclude(slot, tag, accepted, Some(gate), unit);
                    }
                }
            }
        }
        self.tally.committed += 1;
    }

    fn abort(&mut self, slot: u8, tx: TxNo) {
        let session = self.sessions.get_mut(&slot).unwrap();
        let steps = session
            .transactions
            .remove(&tx)
            .expect("only an open transaction is aborted");
        self.tally.aborted += 1;
        let mut loose = Vec::new();
        for step in steps {
            let Step::Settle { tags, .. } = step else { continue };
            for tag in tags {
                let held = session.held.get_mut(&tag).unwrap();
                if session.subs.contains_key(&held.sub) {
                    held.state = HeldState::Held;
                    session.held_again += 1;
                } else {
                    held.state = HeldState::Ended;
                    loose.push(tag);
                }
            }
        }
        loose.into_iter().for_each(|tag| self.release(slot, tag));
    }

    // ---- entries ----

    fn unit(&mut self) -> usize {
        self.next_unit += 1;
        self.next_unit
    }

    fn enqueue(
        &mut self,
        queue: &str,
        number: Number,
        transient: bool,
        origin: Option<String>,
        bound: Option<Seq>,
        unit: usize,
    ) {
        // It may have stood here before; it begins anew.
        self.messages[number].places.remove(queue);
        self.messages[number].exposed.retain(|of| of != queue);
        self.queues.entry(queue.to_owned()).or_default().push(Entry {
            number,
            transient,
            deliveries: 0,
            failures: 0,
            lease: None,
            suspect: Suspect::No,
            origin: origin.clone(),
            nacked_by: None,
        });
        if !transient {
            self.effect(number, Some((queue.to_owned(), 0, origin)), bound, unit);
        }
    }

    fn effect(&mut self, number: Number, after: At, bound: Option<Seq>, unit: usize) {
        let step = ChainStep { bound, unit, after };
        self.messages[number].chain.steps.push(step);
    }

    fn entry(&mut self, queue: &str, number: Number) -> &mut Entry {
        self.queues
            .get_mut(queue)
            .and_then(|entries| entries.iter_mut().find(|entry| entry.number == number))
            .expect("a held delivery has its entry")
    }

    fn remove(&mut self, queue: &str, number: Number) -> Entry {
        let entries = self.queues.get_mut(queue).unwrap();
        let at = entries.iter().position(|entry| entry.number == number).unwrap();
        entries.remove(at)
    }

    fn conclude(&mut self, slot: u8, tag: Tag, accepted: bool, bound: Option<Seq>, unit: usize) {
        let room = self.room;
        let failures_max = self.limits.deliveries_failed_max;
        let held = self.sessions.get_mut(&slot).unwrap().held.get_mut(&tag).unwrap();
        held.state = HeldState::Settled;
        let (number, queue, sub) = (held.number, held.queue.clone(), held.sub);
        if accepted {
            self.tally.accepted += 1;
        } else {
            self.tally.failed += 1;
        }
        let Some(queue) = queue else { return };
        if accepted {
            let entry = self.remove(&queue, number);
            if !entry.transient {
                self.effect(number, None, bound, unit);
            }
            return;
        }
        let entry = self.entry(&queue, number);
        entry.failures += 1;
        entry.lease = None;
        entry.nacked_by = Some((slot, sub));
        let (failures, transient, origin) = (entry.failures, entry.transient, entry.origin.clone());
        // On a full disk one in memory stays there.
        if failures >= failures_max && !queue.starts_with("DLQ.") && (room || !transient) {
            self.remove(&queue, number);
            self.tally.dead_lettered += 1;
            self.enqueue(&format!("DLQ.{queue}"), number, false, Some(queue), bound, unit);
        } else if !transient {
            self.effect(number, Some((queue, failures, origin)), bound, unit);
        }
    }

    fn release(&mut self, slot: u8, tag: Tag) {
        let held = &self.sessions[&slot].held[&tag];
        let (number, queue) = (held.number, held.queue.clone());
        if let Some(queue) = queue {
            self.entry(&queue, number).lease = None;
        }
    }

    fn publish(&mut self, topic: &str, number: Number) {
        for session in self.sessions.values_mut() {
            for sub in session.subs.values_mut() {
                if sub.kind == DestinationKind::Topic && sub.name == topic {
                    sub.expected.push_back((number, true));
                }
            }
        }
        self.recent.push((topic.to_owned(), number));
    }

    // ---- ends ----

    /// The model's side of a session's end.
    fn forget(&mut self, slot: u8) -> Option<u64> {
        let session = self.sessions.get_mut(&slot)?;
        let loose: Vec<Tag> = session
            .held
            .iter()
            .filter(|(_, held)| matches!(held.state, HeldState::Held | HeldState::Staged))
            .map(|(tag, _)| *tag)
            .collect();
        self.tally.aborted += session.transactions.len() as u64;
        loose.into_iter().for_each(|tag| self.release(slot, tag));
        self.sessions.remove(&slot).map(|session| session.no)
    }

    fn close(&mut self, slot: u8) {
        if let Some(no) = self.forget(slot) {
            self.broker.handle_close(SessionNo(no), self.now);
            self.broker.handle_close(SessionNo(no), self.now);
        }
    }

    fn restart(&mut self) {
        let slots: Vec<u8> = self.sessions.keys().copied().collect();
        slots.into_iter().for_each(|slot| {
            self.forget(slot);
        });
        let transient = self
            .queues
            .values()
            .flatten()
            .filter(|entry| entry.transient)
            .count();
        let told = self.broker.handle_stop(self.now);
        assert_eq!(told, transient as u64, "the count of transient messages that go");
        self.append();
        self.flush(usize::MAX);
        for entries in self.queues.values_mut() {
            entries.retain(|entry| !entry.transient);
        }
        self.start();
        for (queue, entries) in &mut self.queues {
            let views: Vec<_> = self.broker.entries(queue, 0).collect();
            assert_eq!(
                views.len(),
                entries.len(),
                "a clean stop keeps what is stored in {queue}"
            );
            for (entry, view) in entries.iter_mut().zip(&views) {
                let unknown = u32::from(entry.suspect != Suspect::No && entry.deliveries == 0);
                assert!(
                    (entry.deliveries..=entry.deliveries + unknown).contains(&view.deliveries),
                    "a clean stop keeps the deliveries of message {}: {} became {}",
                    entry.number,
                    entry.deliveries,
                    view.deliveries
                );
                assert!(
                    entry.suspect != Suspect::Yes || view.deliveries > 0,
                    "a clean stop keeps that an earlier delivery cannot be excluded"
                );
                entry.deliveries = view.deliveries;
                let ever = &mut self.messages[entry.number].delivery_count;
                *ever = view.deliveries.max(*ever);
                entry.suspect = Suspect::No;
                entry.nacked_by = None;
            }
        }
        self.watched.clear();
        for message in &mut self.messages {
            message.exposed.clear();
        }
        self.begin_term();
    }

    fn crash(&mut self, kept: usize) {
        self.sessions.clear();
        self.disk.crash(kept);
        self.late.clear();
        self.start();
        let mut found: BTreeMap<Number, Spot> = BTreeMap::new();
        let mut queues: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let names: Vec<String> = self.broker.queues().map(|view| view.name.to_string()).collect();
        for queue in names {
            for view in self.broker.entries(&queue, 0) {
                let bytes = self.disk.resolve(&view.body, view.len).concat();
                let number = self.number(&bytes, view.message);
                let twice = found.insert(number, (queue.clone(), view.failures, view.origin.clone()));
                assert!(twice.is_none(), "message {number} is in two places");
                let message = &self.messages[number];
                assert!(
                    view.deliveries <= message.delivery_count,
                    "message {number} was not delivered {} times",
                    view.deliveries
                );
                assert!(
                    !view.transient && !view.leased,
                    "what is recovered is stored and ready"
                );
                let suspect = match (message.exposed.contains(&queue), self.watched.contains(&queue)) {
                    (true, _) => Suspect::Yes,
                    (false, true) => Suspect::Either,
                    (false, false) => Suspect::No,
                };
                queues.entry(queue.clone()).or_default().push(Entry {
                    number,
                    transient: false,
                    deliveries: view.deliveries,
                    failures: view.failures,
                    lease: None,
                    suspect,
                    origin: view.origin,
                    nacked_by: None,
                });
            }
        }
        self.check_survivors(&found);
        self.check_pauses();
        self.queues = queues;
        self.begin_term();
    }

    /// What is durable is there, what is not may be, and a transaction is whole or absent.
    fn check_survivors(&mut self, found: &BTreeMap<Number, Spot>) {
        let durable = self.disk.durable_seq();
        // For each unit: a step of it that must have been applied, and one that cannot have been.
        let mut applied: BTreeMap<usize, Number> = BTreeMap::new();
        let mut absent: BTreeMap<usize, Number> = BTreeMap::new();
        for (number, message) in self.messages.iter_mut().enumerate() {
            let got = found.get(&number);
            let chain = &message.chain;
            let least = chain
                .steps
                .iter()
                .take_while(|step| step.bound.is_some_and(|bound| bound <= durable))
                .count();
            let after = |count: usize| match count.checked_sub(1) {
                None => chain.base.as_ref(),
                Some(last) => chain.steps[last].after.as_ref(),
            };
            let legal: Vec<usize> = (least..=chain.steps.len())
                .filter(|count| after(*count) == got)
                .collect();
            assert!(
                !legal.is_empty(),
                "message {number} is at {got:?}; Seq {durable} is durable, and of its steps {least}: {chain:?}"
            );
            let (first, last) = (legal[0], legal[legal.len() - 1]);
            for (at, step) in chain.steps.iter().enumerate() {
                if at < first {
                    applied.insert(step.unit, number);
                }
                if at >= last {
                    absent.insert(step.unit, number);
                }
            }
            // A place that was not durable is none; it may come again, elsewhere.
            message
                .places
                .retain(|queue, _| got.is_some_and(|(of, ..)| of == queue));
            // Or it moved away and back, and that was undone.
            if !message.chain.steps.is_empty() {
                message.places.clear();
            }
            message.chain.base = got.cloned();
            message.chain.steps.clear();
        }
        for (unit, number) in &applied {
            if let Some(other) = absent.get(unit) {
                panic!(
                    "a transaction was split: its step on message {number} is durable, on {other} it is not"
                );
            }
        }
    }

    fn start(&mut self) {
        self.tally = Tally::default();
        self.recent.clear();
        self.reading.clear();
        self.gate_max = Seq(0);
        self.room = true;
        self.broker = self.disk.recover(&self.limits, self.now);
        self.backup = None;
    }

    /// The new term's first batch.
    fn begin_term(&mut self) {
        let before = self.disk.epoch();
        self.append();
        self.flush(usize::MAX);
        assert!(self.disk.epoch() > before, "each start is a new term");
    }

    // ---- deliveries ----

    /// Takes what the broker has for its sessions, after each call of it, until there is nothing more.
    pub(crate) fn observe(&mut self) {
        loop {
            self.poll();
            let slot = self
                .sessions
                .iter()
                .find(|(_, session)| !session.slow && session.written < session.last_tag)
                .map(|(slot, _)| *slot);
            let Some(slot) = slot else { return };
            let session = self.sessions.get_mut(&slot).unwrap();
            let (no, up_to) = (SessionNo(session.no), session.last_tag);
            let settled: Vec<Tag> = session
                .held
                .iter()
                .filter(|(tag, held)| {
                    **tag > session.written
                        && held.state == HeldState::Held
                        && session
                            .subs
                            .get(&held.sub)
                            .is_some_and(|sub| sub.ack_mode == AckMode::Auto)
                })
                .map(|(tag, _)| *tag)
                .collect();
            session.written = up_to;
            self.broker.handle_written(no, up_to, self.now);
            for tag in settled {
                let unit = self.unit();
                self.conclude(slot, tag, true, None, unit);
            }
        }
    }

    fn poll(&mut self) {
        let mut woken = Vec::new();
        self.broker.poll_wakes(&mut woken);
        let mut delivered: Vec<(String, Number)> = Vec::new();
        let slots: Vec<u8> = self.sessions.keys().copied().collect();
        for slot in slots {
            let session = &self.sessions[&slot];
            if session.stalled {
                continue;
            }
            let no = SessionNo(session.no);
            let mut events = Vec::new();
            while self.broker.has_events(no) {
                // One that did not read was woken long ago.
                assert!(
                    session.catching_up || !events.is_empty() || woken.contains(&no),
                    "a session with events is woken"
                );
                self.broker.poll_events(no, 5, &mut events);
            }
            let late = std::mem::take(&mut self.session(slot).catching_up);
            for event in events {
                match event {
                    Event::Delivery(delivery) => {
                        let of = self.delivered(slot, delivery);
                        // One that did not read may have been given it long ago.
                        delivered.extend(of.filter(|_| !late));
                    }
                    Event::Evicted(refusal) => panic!("nobody is to be evicted here: {refusal:?}"),
                }
            }
        }
        for (queue, number) in &delivered {
            assert!(
                !self.is_paused(queue),
                "message {number} of {queue}, which is paused"
            );
        }
        // One step of dispatch hands out the first ready entries of a queue, none behind one that stays.
        for (queue, number) in delivered {
            if self.stalled_on(&queue) || self.unseen_return {
                continue;
            }
            let ahead = self.queues[&queue]
                .iter()
                .take_while(|entry| entry.number != number)
                .find(|entry| entry.lease.is_none());
            assert!(
                ahead.is_none(),
                "message {number} of {queue} was delivered while {ahead:?} before it was ready"
            );
        }
        self.unseen_return = false;
        self.check_who_came_back();
    }

    /// A nacked message goes to another subscription first, if one has credit. One that has some now had some before.
    fn check_who_came_back(&mut self) {
        let bytes_matter = self.limits.prefetch_bytes_max < 1 << 20;
        for (queue, number, slot, sub) in std::mem::take(&mut self.came_back) {
            let other = self.sessions.iter().any(|(of, session)| {
                let free = |no: &SubNo, sub: &Sub| sub.active && sub.is_of(&queue) && session.has_credit(*no);
                !session.stalled
                    && session
                        .subs
                        .iter()
                        .any(|(no, other)| (*of, *no) != (slot, sub) && free(no, other))
            });
            assert!(
                !other || bytes_matter,
                "message {number} went back to subscription {sub} of slot {slot}, though another has credit"
            );
        }
    }

    fn stalled_on(&self, queue: &str) -> bool {
        self.sessions.values().any(|session| {
            session.stalled
                && session
                    .subs
                    .values()
                    .any(|sub| sub.kind == DestinationKind::Queue && sub.name == queue)
        })
    }

    /// A session was handed a delivery: was it legal. Gives its entry.
    fn delivered(&mut self, slot: u8, delivery: Delivery) -> Option<(String, Number)> {
        let pieces = self.disk.resolve(&delivery.body, delivery.len);
        let bytes = pieces.concat();
        let number = self.number(&bytes, delivery.message);
        let message = &self.messages[number];
        assert_eq!(bytes, message.bytes, "the bytes of message {number}");
        assert_eq!(delivery.header_len, message.header_len, "its header block");
        assert!(
            message.id.is_none_or(|id| id == delivery.message),
            "the id of message {number} is stable"
        );
        let message_gate = message.gate;
        self.know_id(number, delivery.message);
        let session = self.sessions.get_mut(&slot).unwrap();
        assert!(delivery.tag > session.last_tag, "tags grow");
        session.last_tag = delivery.tag;
        let sub = session
            .subs
            .get_mut(&delivery.sub)
            .unwrap_or_else(|| panic!("message {number} came for a subscription that is not: {delivery:?}"));
        let durable = self.disk.durable_seq();
        assert!(
            sub.gate <= durable && message_gate <= durable,
            "message {number} came too early: its subscription waits for Seq {}, itself for {message_gate}; durable is {durable}",
            sub.gate
        );
        let queue = match sub.kind {
            DestinationKind::Queue | DestinationKind::Temporary => Some(sub.name.clone()),
            DestinationKind::Topic => {
                assert_eq!((delivery.delivery_count, delivery.redelivered), (1, false));
                loop {
                    let (next, must) = sub.expected.pop_front().unwrap_or_else(|| {
                        panic!("topic message {number} came again, or out of order, or unasked")
                    });
                    if next == number {
                        break;
                    }
                    assert!(!must, "topic message {next} was passed over");
                }
                None
            }
        };
        // What was purged on its way arrives, and its answer has no effect.
        let queue = queue.filter(|queue| !self.late.remove(&(queue.clone(), number)));
        session.held.insert(
            delivery.tag,
            Held {
                sub: delivery.sub,
                number,
                queue: queue.clone(),
                delivery: delivery.clone(),
                state: HeldState::Held,
            },
        );
        let used = session.credit_used(delivery.sub);
        // An ABORT of the same read may have put back what had freed the credit.
        let topic = session.subs[&delivery.sub].kind == DestinationKind::Topic;
        let back = if topic { session.held_again } else { 0 };
        let bytes = session.bytes_used(delivery.sub) - u64::from(delivery.len);
        let sub = session.subs.get_mut(&delivery.sub).expect("it was just there");
        match (sub.credit, &mut sub.asked) {
            (
                Credit::Window {
                    count,
                    bytes: bytes_max,
                },
                _,
            ) => assert!(
                used <= count as usize + back || bytes < bytes_max || (bytes_max > 0 && back > 0),
                "{used} deliveries are held with a credit of {count}, {bytes} bytes before with one of {bytes_max}"
            ),
            (Credit::Pull, asked) => {
                let left = asked.as_mut().and_then(|asked| asked.checked_sub(1));
                assert!(
                    left.is_some(),
                    "a pull subscription was given what it did not ask for"
                );
                *asked = left;
            }
        }
        let queue = queue?;
        self.lease(slot, &queue, number, &delivery);
        Some((queue, number))
    }

    fn lease(&mut self, slot: u8, queue: &str, number: Number, delivery: &Delivery) {
        let sequence = self.messages[number].places.get(queue).copied();
        let durable = self.disk.durable_seq();
        let stated = sequence.and_then(|sequence| self.stated.get(&(queue.to_owned(), sequence)).copied());
        let back = self.entry(queue, number).nacked_by.take() == Some((slot, delivery.sub));
        if back {
            self.came_back
                .push((queue.to_owned(), number, slot, delivery.sub));
        }
        let entry = self.entry(queue, number);
        assert!(
            entry.lease.is_none(),
            "message {number} is leased already: {entry:?}"
        );
        assert!(
            entry.transient || stated.is_some_and(|seq| seq <= durable),
            "message {number} was delivered before it was durable: stated in {stated:?}, durable is {durable}"
        );
        entry.lease = Some((slot, delivery.tag));
        assert_eq!(
            delivery.delivery_count,
            entry.deliveries + 1,
            "the delivery count of message {number}"
        );
        let known = entry.deliveries > 0;
        match entry.suspect {
            Suspect::No => assert_eq!(
                delivery.redelivered, known,
                "redelivered of message {number}: {entry:?}"
            ),
            Suspect::Yes => assert!(
                delivery.redelivered,
                "message {number} may have been delivered before"
            ),
            Suspect::Either => assert!(delivery.redelivered || !known, "redelivered of message {number}"),
        }
        entry.deliveries += 1;
        self.messages[number].delivery_count += 1;
        let exposed = &mut self.messages[number].exposed;
        if !exposed.iter().any(|of| of == queue) {
            exposed.push(queue.to_owned());
        }
    }

    fn know_id(&mut self, number: Number, id: MessageId) {
        self.messages[number].id = Some(id);
        let owner = *self.ids.entry(id).or_insert(number);
        assert_eq!(owner, number, "two messages have the id {id}");
    }

    /// A copy has the bytes of another message, but an id of its own.
    fn number(&self, bytes: &[u8], id: MessageId) -> Number {
        self.ids.get(&id).copied().unwrap_or_else(|| number_of(bytes))
    }

    // ---- comparison ----

    fn check_all(&mut self) {
        self.check_queues();
        self.check_bodies_on_their_way();
        let counters = self.broker.counters();
        let told = Tally {
            enqueued: counters.enqueued_count,
            accepted: counters.accepted_count,
            failed: counters.failed_count,
            dead_lettered: counters.dead_lettered_count,
            committed: counters.committed_count,
            aborted: counters.aborted_count,
        };
        assert_eq!(told, self.tally, "the counters");
        while let Some(notice) = self.broker.poll_notice() {
            if let Notice::DeadLettered { queue, target, .. } = notice {
                assert_eq!(*target, format!("DLQ.{queue}"), "a dead letter is named");
            }
        }
        if self.is_quiet() {
            self.recent.clear();
            for session in self.sessions.values_mut() {
                session.subs.values_mut().for_each(|sub| sub.active = true);
            }
            self.check_nothing_waits();
        }
    }

    fn check_queues(&mut self) {
        let views: Vec<_> = self.broker.queues().collect();
        let mut names: BTreeSet<String> = self
            .queues
            .iter()
            .filter(|(_, entries)| !entries.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let mut subs: BTreeMap<String, u64> = BTreeMap::new();
        for session in self.sessions.values() {
            for sub in session
                .subs
                .values()
                .filter(|sub| sub.kind == DestinationKind::Queue)
            {
                *subs.entry(sub.name.clone()).or_default() += 1;
                names.insert(sub.name.clone());
            }
        }
        let paused = self.paused.keys().filter(|queue| self.is_paused(queue));
        names.extend(paused.cloned());
        let told: BTreeSet<String> = views.iter().map(|view| view.name.to_string()).collect();
        assert_eq!(
            told, names,
            "a queue exists while it has entries or subscribers or is paused"
        );
        for view in views {
            let queue = view.name.to_string();
            let stalled = self.stalled_on(&queue);
            assert_eq!(view.paused, self.is_paused(&queue), "whether {queue} is paused");
            let entries: Vec<_> = self.broker.entries(&queue, 0).collect();
            self.queues.entry(queue.clone()).or_default();
            let model = &self.queues[&queue];
            let numbers: Vec<Number> = model.iter().map(|entry| entry.number).collect();
            // What stands in the batch being filled is not on the disk yet.
            let waits = self.broker.has_batch();
            let on_disk = |view: &EntryView| !waits || self.disk.holds(&view.body);
            assert_eq!(entries.len(), numbers.len(), "the depth of {queue}");
            let told: Vec<Number> = entries
                .iter()
                .zip(&numbers)
                .map(|(view, number)| {
                    if on_disk(view) {
                        self.number(&self.disk.resolve(&view.body, view.len).concat(), view.message)
                    } else {
                        *number
                    }
                })
                .collect();
            assert_eq!(told, numbers, "the entries of {queue}");
            let bytes: usize = numbers
                .iter()
                .map(|number| self.messages[*number].bytes.len())
                .sum();
            assert_eq!(view.depth, numbers.len() as u64, "the depth of {queue}");
            assert_eq!(view.bytes, bytes as u64, "the bytes of {queue}");
            assert_eq!(view.subscription_count, subs.get(&queue).copied().unwrap_or(0));
            assert_eq!(view.ready_count + view.leased_count, view.depth);
            for (entry, told) in model.iter().zip(&entries) {
                let number = entry.number;
                let message = &mut self.messages[number];
                if on_disk(told) {
                    let bytes = self.disk.resolve(&told.body, told.len).concat();
                    assert!(
                        bytes == message.bytes,
                        "the bytes of message {number} are damaged"
                    );
                }
                assert_eq!(
                    told.len as usize,
                    message.bytes.len(),
                    "the length of message {number}"
                );
                assert_eq!(told.header_len, message.header_len);
                assert_eq!(told.transient, entry.transient, "message {number}");
                assert_eq!(told.origin, entry.origin, "the origin of message {number}");
                assert_eq!(told.failures, entry.failures, "the failures of message {number}");
                if entry.lease.is_some() || !stalled {
                    assert_eq!(
                        told.leased,
                        entry.lease.is_some(),
                        "the lease of message {number}"
                    );
                }
                if told.leased != entry.lease.is_some() {
                    // On its way to a client that does not read: a crash may count it.
                    message.delivery_count = message.delivery_count.max(told.deliveries);
                } else {
                    assert_eq!(
                        told.deliveries, entry.deliveries,
                        "the deliveries of message {number}"
                    );
                }
                assert!(message.id.is_none_or(|id| id == told.message), "ids are stable");
                message.id = Some(told.message);
                let owner = *self.ids.entry(told.message).or_insert(number);
                assert_eq!(owner, number, "two messages have the id {}", told.message);
                let place = *message.places.entry(queue.clone()).or_insert(told.sequence);
                assert_eq!(
                    place, told.sequence,
                    "message {number} keeps its place in {queue}"
                );
                let owner = *self
                    .sequences
                    .entry((queue.clone(), told.sequence))
                    .or_insert(number);
                assert_eq!(owner, number, "a queue sequence is never used again");
            }
        }
    }

    /// Bytes that a driver may still have to read stay readable.
    fn check_bodies_on_their_way(&self) {
        for session in self.sessions.values() {
            for (_, held) in session.held.range(Tag(session.written.0 + 1)..) {
                if matches!(held.state, HeldState::Held | HeldState::Staged) {
                    let bytes = self.disk.resolve(&held.delivery.body, held.delivery.len).concat();
                    assert!(
                        bytes == self.messages[held.number].bytes,
                        "the bytes of message {} were overwritten on their way",
                        held.number
                    );
                }
            }
        }
    }

    /// With everything durable and written, who has credit has been served.
    fn check_nothing_waits(&mut self) {
        let busy = self
            .sessions
            .values()
            .any(|session| session.stalled || session.written < session.last_tag);
        if busy {
            return;
        }
        let mut exposed = Vec::new();
        for (slot, session) in &self.sessions {
            for (no, sub) in &session.subs {
                if sub.kind == DestinationKind::Topic {
                    assert!(
                        !session.has_credit(*no) || !sub.expected.iter().any(|(_, must)| *must),
                        "slot {slot}, {no}: topic messages wait: {:?}",
                        sub.expected
                    );
                    continue;
                }
                if self.is_paused(&sub.name) {
                    continue;
                }
                let entries = self.queues.get(&sub.name).map_or(&[][..], Vec::as_slice);
                let ready = entries.iter().find(|entry| entry.lease.is_none());
                assert!(
                    ready.is_none() || !session.has_credit(*no),
                    "slot {slot}, subscription {no} of {} has credit, and {ready:?} waits",
                    sub.name
                );
                exposed.extend(entries.iter().map(|entry| (entry.number, sub.name.clone())));
            }
        }
        for (number, queue) in exposed {
            let message = &mut self.messages[number];
            if !message.exposed.contains(&queue) {
                message.exposed.push(queue);
            }
        }
    }
}

/// The number that a message's bytes begin with.
fn number_of(bytes: &[u8]) -> Number {
    let text = bytes.get(2..10).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("these are no bytes of a message: {:?}", bytes.get(..20)))
}
