//! The oracle: what the promise forbids, looked for while it happens. It is written from the promise, not from the core.
//!
//! It sees both ends of each wire: every frame a client writes (`sent`), every frame the broker has written (`written`),
//! acts, crashes. Of each message it keeps the *places* it may be in. A frame that nothing has confirmed adds a place; a
//! confirmation, a delivery or a look into the queues at a quiet moment (`quiet`) leaves only those that agree with it,
//! and when none is left the promise is broken.
//!
//! # Invariants
//! - No false alarm. What a client has sent may have been executed from that moment on; it must have been once a RECEIPT
//!   for it or for a later frame of its connection is written. What the broker wrote for a subscription that may have
//!   ended by then, or for a session the core has ended, proves nothing.
//! - What is decided stays decided: of a transaction of which one part is seen to have happened, all parts must have.

mod quiet;
mod settle;
mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;

pub(super) use quiet::{Look, QueueLook, Seen};

pub(super) type Conn = u32;
pub(super) type FrameNo = u64;
pub(super) type Uid = u64;
pub(super) type Queue = Rc<str>;

/// The name of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A confirmed message is not where it must be, or not there at all.
    Lost,
    /// A message came, or is there, after its settlement was confirmed.
    SettledAgain,
    /// A part of a transaction happened and another did not.
    TransactionSplit,
    /// A message came that was not sent, not committed, refused, or not sent there.
    Stranger,
    /// The bytes are not those that were sent.
    BytesDiffer,
    /// First deliveries, or entries, of one producer out of their order.
    OrderBroken,
    /// `redelivered` or `delivery-count` denies an earlier delivery, or claims one that cannot have been.
    MarkWrong,
    /// A message was delivered while another delivery of it was held.
    HeldTwice,
    /// More deliveries unsettled than the subscription asked for.
    CreditExceeded,
    /// A message is in two places at once.
    Doubled,
    /// Failures that do not agree with the NACKs, or a dead letter with too few.
    FailuresWrong,
    /// A RECEIPT out of order, unasked for, or missing.
    ReceiptWrong,
    /// A MESSAGE before the RECEIPT of its SUBSCRIBE or after that of its UNSUBSCRIBE.
    OutsideSubscription,
    /// A message id that changed, or that two messages share.
    MessageIdWrong,
    /// A frame after ERROR, or bytes that are no frame.
    WireWrong,
    /// ERROR, or the end of a connection, without a cause.
    Refused,
    /// A message that rests was delivered before its time, or its rest was forgotten, or nobody has asked for it.
    RestWrong,
    /// A message whose time has come is still there.
    Expired,
    /// A RECEIPT says of a new message that it is known, or the reverse.
    DuplicateWrong,
    /// A message that could be delivered is not.
    Stuck,
    /// What the queues' views say is not so.
    ViewWrong,
    /// The broker panicked.
    Panicked,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub kind: Kind,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// Where a SEND or a SUBSCRIBE goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Queue(Queue),
    Topic(Queue),
}

/// Ack mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Auto,
    Client,
    Individual,
}

/// What a client's frame asks for. Messages, subscriptions and transactions have numbers of their own in the whole run;
/// a delivery is named by its place among the MESSAGEs of its connection.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Connect,
    Send {
        uid: Uid,
        to: To,
        persistent: bool,
        ttl_ms: Option<u64>,
        tx: Option<u32>,
    },
    /// A message with a deduplication id, sent before.
    Again {
        uid: Uid,
        to: To,
    },
    Subscribe {
        sub: u32,
        to: To,
        mode: Mode,
        /// 0 is pull.
        prefetch: usize,
    },
    /// A pull subscription asks for so many more.
    More {
        sub: u32,
        count: usize,
    },
    Unsubscribe {
        sub: u32,
    },
    Settle {
        delivery: u64,
        accepted: bool,
        /// How long a NACK lets it rest.
        delay_ms: Option<u64>,
        tx: Option<u32>,
    },
    Begin,
    Commit {
        tx: u32,
    },
    Abort {
        tx: u32,
    },
    Disconnect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Never stored.
    Nowhere,
    In(Queue),
    Gone,
}

/// What would have brought a message to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Sure,
    Frame(Conn, FrameNo),
    Tx(u32),
    /// Written to a subscription in `auto` mode.
    Written,
    Act,
    /// A stop, of a message in memory only.
    Stop,
    /// Its time has come.
    Expired,
}

/// A rest that a NACK has asked for.
#[derive(Debug, Clone, Copy)]
struct Rest {
    conn: Conn,
    cause: Cause,
    /// Until when at least.
    due_ms: u64,
    delay_ms: u64,
    /// The NACK has happened.
    sure: bool,
}

/// When a message expires.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    ttl_ms: u64,
    /// Not before.
    from_ms: u64,
    /// For certain, once its SEND is known to have been executed.
    until_ms: Option<u64>,
}

#[derive(Debug)]
struct Message {
    conn: Conn,
    /// Its place among what its connection sent.
    position: (FrameNo, u64),
    to: To,
    persistent: bool,
    tx: Option<u32>,
    sent_at: u64,
    places: Vec<(Place, Cause)>,
    /// The queue that `failures` and `known` are about.
    home: Queue,
    /// At least and at most so many failures.
    failures: (u32, u32),
    /// Raised whenever failures may have begun anew.
    era: u32,
    /// Deliveries known in this queue, and in this life of the broker.
    known: u32,
    known_in_life: u32,
    /// It may have been moved since: what is known of deliveries says nothing.
    exempt: bool,
    /// It was moved at some time, so that its producer's order is no longer its own.
    moved: bool,
    /// It was purged, and may still arrive.
    late: bool,
    rest: Option<Rest>,
    expiry: Option<Expiry>,
    /// Sent more than once: whose message it is says nothing.
    again: bool,
}

#[derive(Debug)]
struct Sub {
    conn: Conn,
    to: To,
    mode: Mode,
    prefetch: usize,
    /// Of a pull subscription, what it asked for and was not given.
    asked: usize,
    /// Its frame, if a RECEIPT was asked for that has not been written.
    receipt: Option<FrameNo>,
    /// When the RECEIPT of its SUBSCRIBE, or one behind it, was written.
    ready_at: Option<u64>,
    /// The client has sent UNSUBSCRIBE.
    ending: bool,
    /// Its end is certain.
    over: bool,
    /// Deliveries that the client has, neither settled nor staged.
    held: BTreeSet<u64>,
    /// The last first delivery of each producer.
    last: BTreeMap<Conn, ((FrameNo, u64), Uid)>,
    /// Of a topic: what came.
    came: BTreeSet<Uid>,
}

impl Sub {
    /// Whether it is full, but for bytes on their way.
    fn is_full(&self) -> bool {
        match self.prefetch {
            0 => self.asked == 0,
            prefetch => self.mode != Mode::Auto && self.held.len() >= prefetch,
        }
    }
}

#[derive(Debug)]
struct Delivery {
    uid: Uid,
    sub: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Staged,
    Settled,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    /// In this era of its message.
    Failed(u32),
}

/// What becomes certain when a frame is confirmed.
#[derive(Debug, Clone, Copy)]
enum Op {
    Stored(Uid),
    /// With a deduplication id that was known for certain, or not.
    Again(Uid, bool),
    Settled(Uid, Outcome),
    Commit(u32),
    Abort,
    Subscribed(u32),
    Unsubscribed(u32),
}

#[derive(Debug, Default)]
struct Link {
    version: Option<u8>,
    /// Frames whose RECEIPTs are due, in order.
    due: VecDeque<FrameNo>,
    ops: BTreeMap<FrameNo, Vec<Op>>,
    deliveries: BTreeMap<u64, Delivery>,
    message_count: u64,
    /// The client has sent DISCONNECT or closed its side.
    ending: bool,
    /// The core has ended the session.
    dead: bool,
    /// An ERROR was written.
    failed: bool,
    /// Causes for an ERROR or a sudden end.
    excuses: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
struct Tx {
    sends: Vec<Uid>,
    /// Connection, delivery, message, accepted, rest.
    settles: Vec<(Conn, u64, Uid, bool, Option<u64>)>,
    /// Those of them that had their lease at COMMIT.
    applied: Vec<(Uid, Outcome)>,
    committed: Option<FrameNo>,
    happened: Option<bool>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Oracle {
    failures_max: u32,
    pub(super) found: Vec<Violation>,
    tick: u64,
    now_ms: u64,
    /// What may expire from when on.
    expiring: BTreeSet<(u64, Uid)>,
    messages: BTreeMap<Uid, Message>,
    /// Topic messages that subscriptions are expected to get.
    published: BTreeSet<Uid>,
    /// Those whose place is not settled for good.
    unsettled: BTreeSet<Uid>,
    links: BTreeMap<Conn, Link>,
    subs: BTreeMap<u32, Sub>,
    txs: BTreeMap<u32, Tx>,
    /// Who holds a message: connection and delivery.
    leases: BTreeMap<Uid, (Conn, u64)>,
    /// When a subscription of a queue ended last.
    last_end: BTreeMap<Queue, u64>,
    /// When the broker last stopped uncleanly.
    crashed_at: u64,
    ids: BTreeMap<Uid, String>,
    uid_of_id: BTreeMap<String, Uid>,
    /// Acts that are not durable, with what they purge for certain.
    acts: Vec<(u64, Vec<Uid>)>,
    pub(super) paused: BTreeMap<Queue, Option<bool>>,
    /// Copies made into a queue of their own: of which messages, how many, and whether a crash, or their age, may have taken some.
    copies: BTreeMap<Queue, (BTreeSet<Uid>, u64, bool)>,
    stopping: bool,
    /// Causes for ERRORs of any connection, now.
    standing: BTreeSet<&'static str>,
}

impl Oracle {
    pub(super) fn new(failures_max: u32) -> Self {
        Self {
            failures_max,
            found: Vec::new(),
            tick: 1,
            now_ms: 0,
            expiring: BTreeSet::new(),
            messages: BTreeMap::new(),
            published: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            links: BTreeMap::new(),
            subs: BTreeMap::new(),
            txs: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_end: BTreeMap::new(),
            crashed_at: 0,
            ids: BTreeMap::new(),
            uid_of_id: BTreeMap::new(),
            acts: Vec::new(),
            paused: BTreeMap::new(),
            copies: BTreeMap::new(),
            stopping: false,
            standing: BTreeSet::new(),
        }
    }

    fn report(&mut self, kind: Kind, text: String) {
        self.found.push(Violation { kind, text });
    }

    /// The run found something on its own.
    pub(super) fn accuse(&mut self, kind: Kind, text: String) {
        self.report(kind, text);
    }

    /// So much time has passed since the beginning.
    pub(super) fn passed(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some((at_ms, uid)) = self
            .expiring
            .first()
            .copied()
            .filter(|(at_ms, _)| *at_ms <= now_ms)
        {
            self.expiring.remove(&(at_ms, uid));
            self.may_expire(uid);
        }
    }

    /// A message may be gone for its age, if it may be in a queue that is not for dead letters.
    fn may_expire(&mut self, uid: Uid) {
        let now_ms = self.now_ms;
        let Some(message) = self.messages.get_mut(&uid) else {
            return;
        };
        let is_due = message.expiry.is_some_and(|expiry| expiry.from_ms <= now_ms);
        let alive = |(place, _): &(Place, Cause)| matches!(place, Place::In(of) if !of.starts_with("DLQ."));
        if is_due && message.places.iter().any(alive) {
            message.places.push((Place::Gone, Cause::Expired));
        }
    }

    // ---- what clients do ----

    pub(super) fn opened(&mut self, conn: Conn, version: u8) {
        let link = Link {
            version: Some(version),
            excuses: self.standing.clone(),
            ..Link::default()
        };
        self.links.insert(conn, link);
    }

    /// A client writes a frame.
    pub(super) fn sent(&mut self, conn: Conn, frame: FrameNo, receipt: bool, ask: &Ask) {
        self.tick += 1;
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if receipt {
            link.due.push_back(frame);
        }
        match ask {
            Ask::Connect | Ask::Begin => {}
            Ask::Send {
                uid,
                to,
                persistent,
                ttl_ms,
                tx,
            } => {
                self.sent_message(conn, frame, *uid, to, *persistent, *tx);
                self.sent_expiry(*uid, *ttl_ms);
            }
            Ask::Again { uid, to } => self.sent_again(conn, frame, *uid, to),
            Ask::Subscribe {
                sub,
                to,
                mode,
                prefetch,
            } => {
                self.push_op(conn, frame, Op::Subscribed(*sub));
                let sub_of = Sub {
                    conn,
                    to: to.clone(),
                    mode: *mode,
                    prefetch: *prefetch,
                    asked: 0,
                    receipt: receipt.then_some(frame),
                    ready_at: None,
                    ending: false,
                    over: false,
                    held: BTreeSet::new(),
                    last: BTreeMap::new(),
                    came: BTreeSet::new(),
                };
                self.subs.insert(*sub, sub_of);
            }
            Ask::More { sub, count } => {
                if let Some(sub) = self.subs.get_mut(sub) {
                    sub.asked += count;
                }
            }
            Ask::Unsubscribe { sub } => {
                self.push_op(conn, frame, Op::Unsubscribed(*sub));
                self.end_sub(*sub);
            }
            Ask::Settle {
                delivery,
                accepted,
                delay_ms,
                tx,
            } => self.settle(conn, frame, *delivery, (*accepted, *delay_ms), *tx),
            Ask::Commit { tx } => {
                self.push_op(conn, frame, Op::Commit(*tx));
                self.commit(frame, *tx);
            }
            Ask::Abort { tx } => {
                self.push_op(conn, frame, Op::Abort);
                self.abort(*tx);
            }
            Ask::Disconnect => self.leaving(conn),
        }
    }

    fn push_op(&mut self, conn: Conn, frame: FrameNo, op: Op) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.ops.entry(frame).or_default().push(op);
        }
    }

    fn sent_message(
        &mut self,
        conn: Conn,
        frame: FrameNo,
        uid: Uid,
        to: &To,
        persistent: bool,
        tx: Option<u32>,
    ) {
        let home = match to {
            To::Queue(queue) | To::Topic(queue) => Rc::clone(queue),
        };
        let mut places = vec![(Place::Nowhere, Cause::Sure)];
        if let Some(tx) = tx {
            self.txs.entry(tx).or_default().sends.push(uid);
        } else {
            places.push((Place::In(Rc::clone(&home)), Cause::Frame(conn, frame)));
            self.push_op(conn, frame, Op::Stored(uid));
        }
        let message = Message {
            conn,
            position: (frame, 0),
            to: to.clone(),
            // Inside a transaction every SEND to a queue is stored.
            persistent: persistent || tx.is_some(),
            tx,
            sent_at: self.tick,
            places,
            home,
            failures: (0, 0),
            era: 0,
            known: 0,
            known_in_life: 0,
            exempt: false,
            moved: false,
            late: false,
            rest: None,
            expiry: None,
            again: false,
        };
        self.messages.insert(uid, message);
        match to {
            To::Queue(_) => self.unsettled.insert(uid),
            To::Topic(_) => self.published.insert(uid),
        };
    }

    fn sent_expiry(&mut self, uid: Uid, ttl_ms: Option<u64>) {
        let Some((ttl_ms, message)) = ttl_ms.zip(self.messages.get_mut(&uid)) else {
            return;
        };
        let from_ms = self.now_ms + ttl_ms;
        message.expiry = Some(Expiry {
            ttl_ms,
            from_ms,
            until_ms: None,
        });
        self.expiring.insert((from_ms, uid));
    }

    /// The message may be stored by this, if no earlier SEND has.
    fn sent_again(&mut self, conn: Conn, frame: FrameNo, uid: Uid, to: &To) {
        let Some(message) = self.messages.get_mut(&uid) else {
            // The first time it did not get as far as its connection.
            return self.sent_message(conn, frame, uid, to, true, None);
        };
        message.again = true;
        let known = !message.may_be(&Place::Nowhere);
        if !known {
            let home = Rc::clone(&message.home);
            message.places.push((Place::In(home), Cause::Frame(conn, frame)));
            self.unsettled.insert(uid);
        }
        self.push_op(conn, frame, Op::Again(uid, known));
    }

    /// Whether a SEND with a known deduplication id is on its way to a queue.
    pub(super) fn may_come_again(&self, queue: &str) -> bool {
        let mut ops = self.links.values().flat_map(|link| link.ops.values().flatten());
        ops.any(|op| match op {
            Op::Again(uid, _) => {
                let message = self.messages.get(uid);
                message.is_some_and(|message| matches!(&message.to, To::Queue(of) if **of == *queue))
            }
            _ => false,
        })
    }

    /// A client writes no more on a connection, or DISCONNECT.
    pub(super) fn leaving(&mut self, conn: Conn) {
        self.tick += 1;
        if let Some(link) = self.links.get_mut(&conn) {
            link.ending = true;
        }
        self.leases.retain(|_, (holder, _)| *holder != conn);
    }

    // ---- what ends sessions ----

    /// A connection may end with this code, or for this reason.
    pub(super) fn excuse(&mut self, conn: Conn, why: &'static str) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.excuses.insert(why);
        }
    }

    /// The same for any connection that is open while this stands.
    pub(super) fn excuse_all(&mut self, why: &'static str, stands: bool) {
        if !stands {
            self.standing.remove(why);
            return;
        }
        self.standing.insert(why);
        for link in self.links.values_mut() {
            link.excuses.insert(why);
        }
    }

    /// The core has ended a session.
    pub(super) fn died(&mut self, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut link.dead, true) {
            return;
        }
        self.tick += 1;
        self.leases.retain(|_, (holder, _)| *holder != conn);
        let subs: Vec<u32> = self.subs_of(conn).collect();
        subs.into_iter().for_each(|sub| self.sub_is_over(sub));
    }

    /// The broker is done with a connection: nothing more comes of it.
    pub(super) fn ended(&mut self, conn: Conn) {
        self.died(conn);
        if let Some(link) = self.links.remove(&conn) {
            let excused = link.ending || link.failed || !link.excuses.is_empty() || self.stopping;
            if !excused {
                self.report(
                    Kind::Refused,
                    format!("connection {conn} was ended without a cause"),
                );
            }
        }
        self.subs.retain(|_, sub| sub.conn != conn);
    }

    fn subs_of(&self, conn: Conn) -> impl Iterator<Item = u32> {
        self.subs
            .iter()
            .filter(move |(_, sub)| sub.conn == conn)
            .map(|(no, _)| *no)
    }

    fn end_sub(&mut self, no: u32) {
        let Some(sub) = self.subs.get_mut(&no) else { return };
        sub.ending = true;
        sub.held.clear();
        let conn = sub.conn;
        // What is staged stays with its transaction.
        let Some(link) = self.links.get(&conn) else { return };
        self.leases.retain(|_, (holder, delivery)| {
            *holder != conn
                || link
                    .deliveries
                    .get(delivery)
                    .is_none_or(|of| of.sub != no || of.state == State::Staged)
        });
    }

    fn sub_is_over(&mut self, no: u32) {
        let Some(sub) = self.subs.get_mut(&no) else { return };
        sub.over = true;
        if let To::Queue(queue) = &sub.to {
            self.last_end.insert(Rc::clone(queue), self.tick);
        }
    }

    /// Whether a subscription of the queue may have ended since.
    fn may_have_ended(&self, queue: &str, since: u64) -> bool {
        if self.last_end.get(queue).is_some_and(|at| *at >= since) {
            return true;
        }
        self.subs.values().any(|sub| {
            let ending = sub.ending || self.links.get(&sub.conn).is_none_or(|link| link.ending);
            ending && !sub.over && matches!(&sub.to, To::Queue(of) if **of == *queue)
        })
    }

    /// The broker is asked to stop.
    pub(super) fn stopping(&mut self) {
        self.stopping = true;
    }

    /// The broker is gone, cleanly or not, and every connection with it.
    pub(super) fn stopped(&mut self, clean: bool) {
        self.stopping = true;
        let conns: Vec<Conn> = self.links.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.ended(conn));
        self.stopping = false;
        self.tick += 1;
        self.leases.clear();
        if !clean {
            self.crashed_at = self.tick;
        }
        for uid in &self.unsettled {
            let Some(message) = self.messages.get_mut(uid) else {
                continue;
            };
            message.late = false;
            if !clean {
                message.known_in_life = 0;
            }
            if !message.persistent {
                message.places.push((Place::Gone, Cause::Stop));
            }
        }
        for (_, _, lost) in self.copies.values_mut() {
            *lost = true;
        }
        if !clean {
            for paused in self.paused.values_mut() {
                // An act that is not durable may be undone.
                if !self.acts.is_empty() {
                    *paused = None;
                }
            }
        }
        self.acts.clear();
    }

    // ---- what an operator does ----

    /// Entries of a queue may be gone; for certain those that were, if `whole`, certainly in it. Those that were out for
    /// delivery may still arrive.
    pub(super) fn purged(&mut self, queue: &str, whole: bool, leased: &BTreeSet<Uid>, gate: u64) {
        self.tick += 1;
        let mut sure = Vec::new();
        for uid in &self.unsettled {
            let Some(message) = self.messages.get_mut(uid) else {
                continue;
            };
            if message.may_be_in(queue) {
                if whole && message.places.len() == 1 {
                    sure.push(*uid);
                }
                message.places.push((Place::Gone, Cause::Act));
                message.late |= leased.contains(uid);
            }
        }
        self.acts.push((gate, sure));
    }

    /// Ready entries of a queue may be in another.
    pub(super) fn moved(&mut self, from: &str, to: &Queue, gate: u64) {
        self.tick += 1;
        for uid in &self.unsettled {
            let Some(message) = self.messages.get_mut(uid) else {
                continue;
            };
            if message.may_be_in(from) && !self.leases.contains_key(uid) {
                message.places.push((Place::In(Rc::clone(to)), Cause::Act));
                message.failures.0 = 0;
                message.era += 1;
                message.exempt = true;
                message.moved = true;
                message.rest = None;
                if from.starts_with("DLQ.") {
                    // A dead letter has no end of its own.
                    message.expiry = message.expiry.map(|expiry| Expiry {
                        until_ms: None,
                        ttl_ms: u64::MAX,
                        ..expiry
                    });
                }
            }
        }
        self.acts.push((gate, Vec::new()));
    }

    /// Ready entries of a queue are in another too, one that nothing else uses.
    pub(super) fn copied(&mut self, from: &str, to: &Queue, count: u64, gate: u64) {
        let of = self
            .unsettled
            .iter()
            .filter(|uid| {
                self.messages
                    .get(uid)
                    .is_some_and(|message| message.may_be_in(from))
            })
            .copied()
            .collect();
        let of: BTreeSet<Uid> = of;
        let expires = |uid: &Uid| {
            self.messages
                .get(uid)
                .is_some_and(|message| message.expiry.is_some())
        };
        let may_vanish = of.iter().any(expires);
        self.copies.insert(Rc::clone(to), (of, count, may_vanish));
        self.acts.push((gate, Vec::new()));
    }

    /// The queues of copies were deleted.
    pub(super) fn forget_copies(&mut self) {
        self.copies.clear();
    }

    /// A queue is paused or goes on.
    pub(super) fn pause(&mut self, queue: &Queue, paused: bool, gate: u64) {
        self.paused.insert(Rc::clone(queue), Some(paused));
        self.acts.push((gate, Vec::new()));
    }

    /// All up to this Seq is durable, as the operator was told.
    pub(super) fn durable(&mut self, seq: u64) {
        let (done, rest) = std::mem::take(&mut self.acts)
            .into_iter()
            .partition(|(gate, _)| *gate <= seq);
        self.acts = rest;
        let done: Vec<(u64, Vec<Uid>)> = done;
        for uid in done.into_iter().flat_map(|(_, sure)| sure) {
            self.leave_only(uid, &Place::Gone);
        }
    }

    /// Leaves of a message's places only this one; false if it is not among them.
    fn leave_only(&mut self, uid: Uid, place: &Place) -> bool {
        let Some(message) = self.messages.get_mut(&uid) else {
            return false;
        };
        if !message.places.iter().any(|(of, _)| of == place) {
            return false;
        }
        message.places = vec![(place.clone(), Cause::Sure)];
        true
    }
}

impl Message {
    fn outcome(&self, accepted: bool) -> Outcome {
        if accepted {
            Outcome::Accepted
        } else {
            Outcome::Failed(self.era)
        }
    }

    fn may_be(&self, place: &Place) -> bool {
        self.places.iter().any(|(of, _)| of == place)
    }

    fn may_be_in(&self, queue: &str) -> bool {
        self.places
            .iter()
            .any(|(place, _)| matches!(place, Place::In(of) if **of == *queue))
    }
}

/// The dead-letter queue of a queue, unless it is one.
fn dead_letters_of(queue: &str) -> Option<Queue> {
    (!queue.starts_with("DLQ.")).then(|| format!("DLQ.{queue}").into())
}
