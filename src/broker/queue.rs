//! Queues and their entries.
//!
//! # Invariants
//! - Entries stand under their queue sequence, which only grows and is never used again, also over restarts.
//! - Of the plain lane, every ready entry below `head` is in `returned`; at or above `head` every entry is ready, or delayed. One that
//!   is set aside is below `head`, neither ready nor leased, until it is taken out or the broker starts again. So its next ready
//!   entry is the first returned one, else the first from `head` on, and a released entry is back in its old place.
//! - Other lanes know their ready entries themselves.
//! - Only entries below `durable_end` are delivered.
//!
//! ```text
//!            dispatch              settle(accepted)
//!   Ready ------------> Leased --------------------> (gone)
//!     ^ ^                |  |  failures = max
//!     | |   released,    |  +----------------------> (dead letter: an entry of another queue)
//!     | +-- failed ------+
//!     |     < max        +----------------------> SetAside: its bytes cannot be read
//!     +--- Delayed <-----+ failed < max, with a delay
//! ```

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::{
    ChunkRef, Death, DeathReason, MessageId, Now, Policy, Seq, SessionNo, Settings, SlotNo, SubNo, Window,
};
use crate::journal::{Item, Place, field};
use crate::port::{Body, Filter, PRIORITY_DEFAULT, PRIORITY_MAX, QueueCounters, Repeat, Requests, Terms};

use super::dedup::SeenIds;
use super::lanes::{LaneKey, LaneNo, Lanes, PLAIN, SelectorNo};
use super::ring::{Class, Ring};
use super::schedule::is_schedule;
use super::selectors::Selectors;

/// A queue's place in memory. Used again after the queue is gone: sequences, which are not, tell entries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueNo(pub(super) u32);

/// The rank of the plain lane.
const PLAIN_RANK: u8 = PRIORITY_MAX - PRIORITY_DEFAULT;

/// Optional fields of an entry.
type KeptFields = Option<Box<[(u8, Bytes)]>>;

/// A subscription, named within the broker.
pub(super) type SubRef = (SessionNo, SubNo);

/// A destination whose messages each go to one subscription.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    /// What holds for it.
    pub(super) policy: Arc<Policy>,
    pub(super) entries: Window<Entry>,
    pub(super) next_sequence: u64,
    pub(super) head: u64,
    pub(super) returned: BTreeSet<u64>,
    pub(super) durable_end: u64,
    /// The lanes beside the plain one, if there has been any.
    pub(super) lanes: Option<Box<Lanes>>,
    group_count_max: usize,
    /// The selectors of its subscriptions, if any.
    pub(super) selectors: Option<Box<Selectors>>,
    /// Subscriptions in all, and those of them that may be given a message now.
    pub(super) sub_count: usize,
    pub(super) ring: Ring,
    /// Subscriptions that only look at it.
    pub(super) browsers: BTreeSet<SubRef>,
    /// Subscriptions that want all of it for themselves: the first of them gets it.
    pub(super) exclusive: BTreeSet<(Reverse<i32>, u64, SubRef)>,
    /// Entries that a subscription has just nacked: another one gets them if it can.
    pub(super) nacked_by: BTreeMap<u64, SubRef>,
    pub(super) bytes: u64,
    pub(super) leased_count: u64,
    /// Of those that are leased or set aside.
    pub(super) away_bytes: u64,
    pub(super) set_aside_count: u64,
    /// Entries that rest until a time.
    pub(super) delayed_count: u64,
    /// Those of them that come again and again, and their bytes: they do not count against the queue's bounds.
    pub(super) schedule_count: u64,
    pub(super) schedule_bytes: u64,
    /// An occurrence of one waits for room, and this was told.
    pub(super) occurrence_waits: bool,
    /// Entries that another queue gave up.
    pub(super) dead_letter_count: u64,
    pub(super) stored_count: u64,
    /// Its `Watched` fact is in the journal since the last clean stop.
    pub(super) watched: bool,
    /// The last batch that states it.
    pub(super) watched_at: Seq,
    /// The last batch in which bytes of its entries move to another slot: until it is durable, they are in neither.
    pub(super) moved_at: Seq,
    /// Deliveries are stopped.
    pub(super) paused: bool,
    /// The last batch that states whether.
    pub(super) paused_at: Seq,
    /// The session that it belongs to, of a temporary queue: all of it is in memory.
    pub(super) owner: Option<SessionNo>,
    /// The topic, or pattern of topics, whose messages it keeps.
    pub(super) binding: Option<Arc<str>>,
    /// Which of them; `None`: all.
    pub(super) binding_filter: Option<Arc<Filter>>,
    /// What it declares of itself.
    pub(super) declared: Settings,
    /// The last batch that states both.
    pub(super) declared_at: Seq,
    /// Deduplication ids that it remembers, if any.
    pub(super) seen: Option<Box<SeenIds>>,
    /// Subscriptions that are stuck.
    pub(super) stuck_count: usize,
    pub(super) counters: QueueCounters,
    /// It is on the list of queues to dispatch.
    pub(super) dirty: bool,
    /// The open batch in which it has a place on the list of touched queues, and that place.
    pub(super) touched: (Seq, usize),
    /// The open batch in which it has ranges of settlements, and their index.
    pub(super) settled: (Seq, usize),
}

/// The place of one message in one queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: MessageId,
    pub(super) accepted_at_ms: u64,
    /// The batch that states it; `Seq(0)` for a transient one, which no batch states.
    pub(super) home: Seq,
    pub(super) bytes: EntryBytes,
    pub(super) header_len: u32,
    pub(super) len: u32,
    pub(super) deliveries: u32,
    pub(super) failures: u32,
    pub(super) leased: bool,
    /// It rests until a time.
    pub(super) delayed: bool,
    pub(super) lane: LaneNo,
    /// Its bytes could not be read: it is not delivered again in this run.
    pub(super) set_aside: bool,
    /// Recovered after an unclean stop from a queue that had a subscriber: an earlier delivery cannot be excluded.
    pub(super) suspect: bool,
    /// Until when it rests, or rested, in milliseconds since the Unix epoch. Not among its fields, which take more: millions may rest.
    pub(super) due_at: Option<NonZeroU64>,
    /// Other optional fields; none in the common case.
    pub(super) fields: KeptFields,
}

/// Where an entry's bytes are. The chunk number of a slot is in the ledger.
#[derive(Debug)]
pub(super) enum EntryBytes {
    Stored { slot: SlotNo, offset: u32 },
    Extent(Box<Arc<[ChunkRef]>>),
    Memory(Box<Bytes>),
}

impl EntryBytes {
    pub(super) fn of(place: &Place) -> Self {
        match place {
            Place::Chunk { chunk, offset } => Self::Stored {
                slot: chunk.slot,
                offset: *offset,
            },
            Place::Extent(chunks) => Self::Extent(Box::new(Arc::clone(chunks))),
        }
    }

    /// The slots that hold them.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotNo> {
        let (one, many): (Option<SlotNo>, &[ChunkRef]) = match self {
            Self::Stored { slot, .. } => (Some(*slot), &[]),
            Self::Extent(chunks) => (None, chunks),
            Self::Memory(_) => (None, &[]),
        };
        one.into_iter().chain(many.iter().map(|chunk| chunk.slot))
    }

    /// Where they are, for a reader; `chunk_in` tells what is in a slot.
    pub(super) fn body(&self, chunk_in: impl Fn(SlotNo) -> ChunkRef) -> Body {
        match self {
            Self::Stored { slot, offset } => Body::Stored {
                chunk: chunk_in(*slot),
                offset: *offset,
            },
            Self::Extent(chunks) => Body::Extent(Arc::clone(chunks)),
            Self::Memory(bytes) => Body::Memory(Bytes::clone(bytes)),
        }
    }

    /// Where they are, for the journal; `None` for a transient entry.
    pub(super) fn place(&self, chunk_in: impl Fn(SlotNo) -> ChunkRef) -> Option<Place> {
        match self {
            Self::Stored { slot, offset } => Some(Place::Chunk {
                chunk: chunk_in(*slot),
                offset: *offset,
            }),
            Self::Extent(chunks) => Some(Place::Extent(Arc::clone(chunks))),
            Self::Memory(_) => None,
        }
    }
}

impl Entry {
    pub(super) fn item(&self) -> Item {
        Item {
            header_len: self.header_len,
            len: self.len,
        }
    }

    pub(super) fn is_transient(&self) -> bool {
        matches!(self.bytes, EntryBytes::Memory(_))
    }

    /// The queue that a dead letter came from.
    pub(super) fn origin(&self) -> Option<&str> {
        let origin = self
            .fields()
            .iter()
            .find(|(tag, _)| *tag == field::DEAD_LETTER_ORIGIN);
        origin.and_then(|(_, name)| std::str::from_utf8(name).ok())
    }

    /// Whether it says where it failed for good.
    pub(super) fn is_dead_letter(&self) -> bool {
        self.origin().is_some()
    }

    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        expiry_of(self.fields())
    }

    /// Until when it rests, or rested.
    pub(super) fn due_at_ms(&self) -> Option<u64> {
        self.due_at.map(NonZeroU64::get)
    }

    /// What it says of how long a delivery of it may be unsettled.
    pub(super) fn ack_timeout_ms(&self) -> Option<u64> {
        number_in(self.fields(), field::ACK_TIMEOUT)
    }

    /// The queues that it was taken out of for good before, the newest first.
    pub(super) fn deaths(&self) -> Vec<Death> {
        let deaths = self.fields().iter().find(|(tag, _)| *tag == field::DEATHS);
        deaths.map_or_else(Vec::new, |(_, bytes)| Death::decode(bytes))
    }

    /// From 0 to 9.
    pub(super) fn priority(&self) -> u8 {
        let priority = self
            .field(field::PRIORITY)
            .and_then(|value| value.first().copied());
        priority.unwrap_or(PRIORITY_DEFAULT).min(PRIORITY_MAX)
    }

    /// The group it is of.
    pub(super) fn group(&self) -> Option<&Bytes> {
        self.field(field::GROUP)
    }

    fn field(&self, tag: u8) -> Option<&Bytes> {
        let field = self.fields().iter().find(|(of, _)| *of == tag);
        field.map(|(_, value)| value)
    }

    /// Its lane, unless that is the plain one.
    fn lane_key(&self, matched: Vec<SelectorNo>) -> Option<LaneKey> {
        if self.fields.is_none() && matched.is_empty() {
            return None;
        }
        let key = LaneKey {
            rank: PRIORITY_MAX - self.priority(),
            group: self.group().map(|group| Arc::from(&**group)),
            matched,
        };
        let plain = key.rank == PLAIN_RANK && key.group.is_none() && key.matched.is_empty();
        (!plain).then_some(key)
    }

    /// Whether the head of the plain lane moves past it.
    fn is_passed(&self) -> bool {
        self.delayed || self.lane != PLAIN
    }

    /// The last of them.
    pub(super) fn last_death(&self) -> Option<Box<Death>> {
        self.fields.as_ref()?;
        self.deaths().into_iter().next().map(Box::new)
    }

    /// Lets it rest until a time.
    pub(super) fn set_due(&mut self, due_at_ms: u64) {
        self.due_at = NonZeroU64::new(due_at_ms);
    }

    /// All optional fields, as they are stated.
    pub(super) fn stated_fields(&self) -> Cow<'_, [(u8, Bytes)]> {
        let Some(due_at) = self.due_at else {
            return Cow::Borrowed(self.fields());
        };
        let mut fields = self.fields().to_vec();
        fields.push(number_field(field::DUE_AT, due_at.get()));
        fields.sort_by_key(|(tag, _)| *tag);
        Cow::Owned(fields)
    }

    /// The optional fields but for its time.
    pub(super) fn fields(&self) -> &[(u8, Bytes)] {
        self.fields.as_deref().unwrap_or_default()
    }
}

impl Queue {
    /// `first` is the number that is handed out next: no entry of an earlier queue of this name has it.
    pub(super) fn new(name: &str, policy: Arc<Policy>, first: u64, group_count_max: usize) -> Self {
        Self {
            name: name.into(),
            policy,
            entries: Window::default(),
            next_sequence: first,
            head: first,
            returned: BTreeSet::new(),
            durable_end: first,
            lanes: None,
            group_count_max,
            selectors: None,
            sub_count: 0,
            ring: Ring::default(),
            browsers: BTreeSet::new(),
            exclusive: BTreeSet::new(),
            nacked_by: BTreeMap::new(),
            bytes: 0,
            leased_count: 0,
            away_bytes: 0,
            set_aside_count: 0,
            delayed_count: 0,
            schedule_count: 0,
            schedule_bytes: 0,
            occurrence_waits: false,
            dead_letter_count: 0,
            stored_count: 0,
            watched: false,
            watched_at: Seq(0),
            moved_at: Seq(0),
            paused: false,
            paused_at: Seq(0),
            owner: None,
            binding: None,
            binding_filter: None,
            declared: Settings::default(),
            declared_at: Seq(0),
            seen: None,
            stuck_count: 0,
            counters: QueueCounters::default(),
            dirty: false,
            touched: (Seq(0), 0),
            settled: (Seq(0), 0),
        }
    }

    /// What becomes of a message that is taken out of it for good. Neither a dead-letter queue nor a temporary one, whose messages
    /// are not kept, has a dead-letter queue of its own.
    pub(super) fn afterlife(&self, reason: DeathReason) -> Afterlife {
        let setting = match reason {
            DeathReason::Expired => &self.policy.expiry_queue,
            _ if self.name.starts_with(DEAD_LETTER_PREFIX) => return Afterlife::Stays,
            _ => &self.policy.dead_letter_queue,
        };
        match Policy::target(setting, &self.name) {
            _ if self.owner.is_some() && reason == DeathReason::Failures => Afterlife::Stays,
            _ if self.owner.is_some() => Afterlife::Ends,
            Some(target) if target == *self.name => Afterlife::Stays,
            Some(target) => Afterlife::In(target),
            None => Afterlife::Ends,
        }
    }

    /// The fields of a new entry with the time at which it expires, if that is for the queue to say. It says nothing of schedules:
    /// its time is that of each occurrence.
    pub(super) fn aged(&self, fields: &[(u8, Bytes)], now: Now) -> Option<Vec<(u8, Bytes)>> {
        let ttl_ms = self.policy.message_ttl_ms;
        if ttl_ms == 0 || expiry_of(fields).is_some() || is_schedule(fields) {
            return None;
        }
        let mut aged = fields.to_vec();
        aged.push(number_field(field::EXPIRES_AT, now.wall_ms_after(ttl_ms)));
        aged.sort_by_key(|(tag, _)| *tag);
        Some(aged)
    }

    /// Adds an entry at the end and gives its sequence.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        self.push_matched(entry, Vec::new())
    }

    /// The same of one that these selectors let through.
    pub(super) fn push_matched(&mut self, mut entry: Entry, matched: Vec<SelectorNo>) -> u64 {
        self.counters.in_count += 1;
        let sequence = self.next_sequence;
        let matched = match &mut self.selectors {
            Some(selectors) => selectors.hold_back(sequence, matched),
            None => matched,
        };
        if let Some(key) = entry.lane_key(matched) {
            let lanes = self.open_lanes();
            entry.lane = lanes.enter(key);
            if !entry.delayed {
                lanes.ready(entry.lane, sequence);
            }
        }
        self.next_sequence += 1;
        self.bytes += u64::from(entry.len);
        self.stored_count += u64::from(!entry.is_transient());
        self.delayed_count += u64::from(entry.delayed);
        self.dead_letter_count += u64::from(entry.is_dead_letter());
        if entry.is_schedule() {
            self.schedule_count += 1;
            self.schedule_bytes += u64::from(entry.len);
        }
        self.entries.insert(sequence, entry);
        sequence
    }

    /// Takes an entry out, whatever its state.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Entry> {
        let entry = self.entries.remove(sequence)?;
        self.bytes -= u64::from(entry.len);
        self.stored_count -= u64::from(!entry.is_transient());
        self.dead_letter_count -= u64::from(entry.is_dead_letter());
        if entry.is_schedule() {
            self.schedule_count -= 1;
            self.schedule_bytes -= u64::from(entry.len);
        }
        if let Some(lanes) = self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            lanes.leave(entry.lane, sequence, entry.leased);
        }
        if entry.leased {
            self.leased_count -= 1;
            self.away_bytes -= u64::from(entry.len);
        } else if entry.set_aside {
            self.set_aside_count -= 1;
            self.away_bytes -= u64::from(entry.len);
        } else if entry.delayed {
            self.delayed_count -= 1;
        } else if entry.lane == PLAIN {
            self.returned.remove(&sequence);
        }
        if !self.nacked_by.is_empty() {
            self.nacked_by.remove(&sequence);
        }
        if let Some(selectors) = &mut self.selectors {
            selectors.forget(sequence);
        }
        Some(entry)
    }

    /// Takes all entries out.
    pub(super) fn clear(&mut self) -> Window<Entry> {
        self.head = self.next_sequence;
        self.returned.clear();
        if let Some(lanes) = &mut self.lanes {
            lanes.clear();
        }
        if let Some(selectors) = &mut self.selectors {
            selectors.forget_all();
        }
        self.nacked_by.clear();
        (self.bytes, self.stored_count) = (0, 0);
        (self.leased_count, self.set_aside_count, self.away_bytes) = (0, 0, 0);
        (self.delayed_count, self.dead_letter_count) = (0, 0);
        (self.schedule_count, self.schedule_bytes) = (0, 0);
        std::mem::take(&mut self.entries)
    }

    /// The oldest entry that no client holds, durable or not. One that rests only where no other waits, a schedule never.
    pub(super) fn oldest_waiting(&mut self) -> Option<u64> {
        let lanes = self.lanes.as_ref().and_then(|lanes| lanes.oldest());
        let mut plain = self.returned.first().copied();
        if plain.is_none() {
            self.pass_head();
            plain = self.entries.next_from(self.head);
            while let Some(sequence) = plain
                && self.entries.get(sequence).is_some_and(Entry::is_passed)
            {
                plain = self.entries.next_from(sequence + 1);
            }
        }
        let rests = |(_, entry): &(u64, &Entry)| entry.delayed && !entry.is_schedule();
        let ready = plain.into_iter().chain(lanes).min();
        ready.or_else(|| self.entries.iter().find(rests).map(|(sequence, _)| sequence))
    }

    /// The next ready entry that is durable, and its lane.
    pub(super) fn next_ready(&mut self) -> Option<(u64, LaneNo)> {
        let plain_is_parked = self.lanes.as_ref().is_some_and(|lanes| lanes.is_plain_parked());
        let plain = match plain_is_parked {
            true => None,
            false => self.next_plain(),
        };
        let Some(lanes) = &self.lanes else {
            return plain.map(|sequence| (sequence, PLAIN));
        };
        let plain = plain.map(|sequence| (PLAIN_RANK, sequence, PLAIN));
        let first = plain.into_iter().chain(lanes.first(self.durable_end)).min();
        first.map(|(_, sequence, lane)| (sequence, lane))
    }

    fn next_plain(&mut self) -> Option<u64> {
        if let Some(&first) = self.returned.first() {
            return Some(first);
        }
        self.pass_head();
        (self.head < self.durable_end).then_some(self.head)
    }

    /// Moves the head past what the plain lane does not give from there.
    fn pass_head(&mut self) {
        while self.head < self.durable_end && self.entries.get(self.head).is_none_or(Entry::is_passed) {
            let past = self.head + u64::from(self.entries.get(self.head).is_some());
            self.head = self.entries.next_from(past).unwrap_or(self.next_sequence);
        }
    }

    /// Leases a ready entry to a subscription. Gives it.
    pub(super) fn lease(&mut self, sequence: u64, lane: LaneNo, by: SubRef, class: Class) -> &mut Entry {
        if let Some(lanes) = self.lanes.as_mut().filter(|_| lane != PLAIN) {
            let entry = self.entries.get(sequence).expect("a ready entry exists");
            let ends_group = entry.fields().iter().any(|(tag, _)| *tag == field::ENDS_GROUP);
            lanes.unready(lane, sequence);
            lanes.hold(lane, (by, class.selector), ends_group);
        } else if sequence < self.head {
            self.returned.remove(&sequence);
        } else {
            assert_eq!(sequence, self.head, "entries are leased in order");
            self.head += 1;
        }
        self.leased_count += 1;
        let entry = self.entries.get_mut(sequence).expect("a ready entry exists");
        assert!(!entry.leased, "an entry is leased by at most one delivery");
        entry.leased = true;
        self.away_bytes += u64::from(entry.len);
        entry
    }

    /// Gives a leased entry back to its old place.
    pub(super) fn give_back(&mut self, sequence: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(sequence)?;
        assert!(entry.leased, "only a leased entry is given back");
        entry.leased = false;
        self.leased_count -= 1;
        self.away_bytes -= u64::from(entry.len);
        match self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            Some(lanes) => {
                lanes.unhold(entry.lane);
                lanes.ready(entry.lane, sequence);
            }
            None => _ = self.returned.insert(sequence),
        }
        self.catch_up(sequence);
        self.entries.get_mut(sequence)
    }

    /// Lets a leased entry rest.
    pub(super) fn rest(&mut self, sequence: u64) {
        let entry = self.entries.get_mut(sequence).expect("a leased entry exists");
        assert!(entry.leased, "only a leased entry is let rest");
        (entry.leased, entry.delayed) = (false, true);
        self.leased_count -= 1;
        self.away_bytes -= u64::from(entry.len);
        self.delayed_count += 1;
        if let Some(lanes) = self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            lanes.unhold(entry.lane);
            lanes.rest(entry.lane, sequence);
        }
        self.catch_up(sequence);
    }

    /// A ready entry rests still: after a restart.
    pub(super) fn rest_again(&mut self, sequence: u64) {
        let entry = self.entries.get_mut(sequence).expect("a ready entry exists");
        entry.delayed = true;
        self.delayed_count += 1;
        if let Some(lanes) = self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            lanes.unready(entry.lane, sequence);
            if entry.failures > 0 {
                lanes.rest(entry.lane, sequence);
            }
        }
    }

    /// An entry's rest has ended: it is ready in its old place. False if it does not rest.
    pub(super) fn wake(&mut self, sequence: u64) -> bool {
        let entry = self.entries.get_mut(sequence).filter(|entry| entry.delayed);
        let Some(entry) = entry else { return false };
        entry.delayed = false;
        self.delayed_count -= 1;
        if let Some(lanes) = self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            lanes.unrest(entry.lane, sequence);
            lanes.ready(entry.lane, sequence);
        } else if sequence < self.head {
            self.returned.insert(sequence);
        }
        true
    }

    /// Sets a leased entry aside.
    pub(super) fn set_aside(&mut self, sequence: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(sequence)?;
        assert!(entry.leased, "only a leased entry is set aside");
        (entry.leased, entry.set_aside) = (false, true);
        self.leased_count -= 1;
        self.set_aside_count += 1;
        if let Some(lanes) = self.lanes.as_mut().filter(|_| entry.lane != PLAIN) {
            lanes.unhold(entry.lane);
        }
        Some(entry)
    }

    /// An entry that nobody holds is let through by these selectors, too.
    pub(super) fn change_lane(&mut self, sequence: u64, selectors: &BTreeSet<SelectorNo>) {
        let Some(entry) = self.entries.get_mut(sequence) else {
            return;
        };
        let before = entry.lane;
        let lanes = self
            .lanes
            .get_or_insert_with(|| Box::new(Lanes::new(self.group_count_max)));
        let mut key = lanes.key(before).cloned().unwrap_or(LaneKey {
            rank: PLAIN_RANK,
            ..LaneKey::default()
        });
        let all: BTreeSet<SelectorNo> = key.matched.iter().chain(selectors).copied().collect();
        if all.len() == key.matched.len() {
            return;
        }
        key.matched = all.into_iter().collect();
        // The new one first, so that a group is not forgotten in between.
        entry.lane = lanes.enter(key);
        if before == PLAIN {
            self.returned.remove(&sequence);
        } else {
            lanes.leave(before, sequence, false);
        }
        match entry.delayed {
            true if entry.failures > 0 => lanes.rest(entry.lane, sequence),
            true => {}
            false => lanes.ready(entry.lane, sequence),
        }
    }

    /// An entry is held no more: what selectors were found to let it through meanwhile counts.
    fn catch_up(&mut self, sequence: u64) {
        let pending = self.selectors.as_mut();
        if let Some(selectors) = pending.and_then(|all| all.take_pending(sequence)) {
            self.change_lane(sequence, &selectors);
        }
    }

    /// The group of an entry may go to another consumer.
    pub(super) fn disown(&mut self, sequence: u64) {
        let lane = self.entries.get(sequence).map(|entry| entry.lane);
        if let (Some(lanes), Some(lane)) = (&mut self.lanes, lane) {
            lanes.disown(lane);
        }
    }

    pub(super) fn open_lanes(&mut self) -> &mut Lanes {
        let group_count_max = self.group_count_max;
        self.lanes
            .get_or_insert_with(|| Box::new(Lanes::new(group_count_max)))
    }

    /// The subscription that gets all, if one wants to.
    pub(super) fn only(&self) -> Option<SubRef> {
        self.exclusive.first().map(|(.., sub)| *sub)
    }

    /// Whether a subscription asks for all of it.
    pub(super) fn wants_all(&self, sub: SubRef) -> bool {
        self.exclusive.iter().any(|(.., of)| *of == sub)
    }

    /// Groups whose messages go to a subscription.
    pub(super) fn group_count(&self, sub: SubRef) -> u64 {
        self.lanes.as_ref().map_or(0, |lanes| lanes.owned_count(sub))
    }

    /// Nothing refers to it any more.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty()
            && self.sub_count == 0
            && self.browsers.is_empty()
            && !self.paused
            && !self.is_declared()
            && self.owner.is_none()
            && self.seen.is_none()
    }

    /// It has properties, which are stored.
    pub(super) fn is_declared(&self) -> bool {
        self.binding.is_some() || !self.declared.is_empty()
    }
}

/// What becomes of a message that is taken out of its queue for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Afterlife {
    /// It goes to this queue.
    In(String),
    /// It ends.
    Ends,
    /// It is not taken out.
    Stays,
}

/// The optional fields of a new entry.
pub(super) fn fields_of(terms: &Terms, requests: &Requests) -> Vec<(u8, Bytes)> {
    let number = |tag: u8, number: Option<u64>| number.map(|number| number_field(tag, number));
    let priority = (terms.priority != PRIORITY_DEFAULT).then(|| {
        let priority = Bytes::copy_from_slice(&[terms.priority]);
        (field::PRIORITY, priority)
    });
    let group = terms
        .group
        .map(|group| (field::GROUP, Bytes::copy_from_slice(requests.bytes(group))));
    let ends_group = terms.ends_group.then_some((field::ENDS_GROUP, Bytes::new()));
    let (period_ms, last_at_ms, cron) = match terms.repeat {
        None => (None, None, None),
        Some(Repeat::Every {
            period_ms,
            last_at_ms,
        }) => (Some(period_ms), last_at_ms, None),
        Some(Repeat::Cron(text)) => (None, None, Some(Bytes::copy_from_slice(requests.bytes(text)))),
    };
    [
        number(field::EXPIRES_AT, terms.expires_at_ms),
        number(field::DUE_AT, terms.due_at_ms),
        number(field::ACK_TIMEOUT, terms.ack_timeout_ms),
        priority,
        group,
        ends_group,
        number(field::PERIOD, period_ms),
        number(field::LAST_DUE_AT, last_at_ms),
        cron.map(|text| (field::CRON, text)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The fields of a new entry as it keeps them: its time apart.
pub(super) fn kept_fields(fields: Vec<(u8, Bytes)>) -> (Option<NonZeroU64>, KeptFields) {
    let due_at = number_in(&fields, field::DUE_AT).and_then(NonZeroU64::new);
    let mut rest = fields;
    rest.retain(|(tag, _)| *tag != field::DUE_AT);
    (due_at, (!rest.is_empty()).then(|| rest.into_boxed_slice()))
}

/// Until when a new entry with these fields rests: a schedule always does.
pub(super) fn rest_of(fields: &[(u8, Bytes)], now: Now) -> Option<u64> {
    let due_at_ms = number_in(fields, field::DUE_AT)?;
    (due_at_ms > now.wall_ms || is_schedule(fields)).then_some(due_at_ms)
}

/// When an entry with these fields expires.
pub(super) fn expiry_of(fields: &[(u8, Bytes)]) -> Option<u64> {
    number_in(fields, field::EXPIRES_AT)
}

fn number_field(tag: u8, number: u64) -> (u8, Bytes) {
    (tag, Bytes::copy_from_slice(&number.to_be_bytes()))
}

/// A field that is a number.
pub(super) fn number_in(fields: &[(u8, Bytes)], tag: u8) -> Option<u64> {
    let (_, number) = fields.iter().find(|(of, _)| *of == tag)?;
    Some(u64::from_be_bytes(number.as_ref().try_into().ok()?))
}

/// The names of dead-letter queues begin so.
pub(super) const DEAD_LETTER_PREFIX: &str = "DLQ.";
