//! Lanes: which ready entries of a queue go before others, and which may not go to everyone.
//!
//! Entries of one priority, of one group, that the same selectors let through are a lane; within a lane they go in order. The
//! plain lane has those of the default priority, of no group, that no selector is known to let through: the queue keeps it by
//! itself, and a queue that has no other lane has none of what is here.
//!
//! # Invariants
//! - An entry is of one lane as long as it is in its queue, but for a selector that is new or gone. Ready ones of a lane that is
//!   not the plain one stand in it, and no others do.
//! - A lane that nobody can be given the first entry of is parked, and looked at again when one who may have it has credit.
//! - A group belongs to at most one subscription; while entries of it are held, to the one that holds them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::queue::SubRef;

/// A lane's place; [`PLAIN`] is none of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct LaneNo(pub(super) u32);

/// The plain lane.
pub(super) const PLAIN: LaneNo = LaneNo(0);

/// One of the selectors of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SelectorNo(pub(super) u32);

/// What the entries of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct LaneKey {
    /// 0 is first.
    pub(super) rank: u8,
    pub(super) group: Option<Arc<[u8]>>,
    /// Selectors that let them through, in order.
    pub(super) matched: Vec<SelectorNo>,
}

#[derive(Debug)]
struct Lane {
    key: LaneKey,
    /// Entries of the queue, in whatever state.
    entry_count: u64,
    /// Ascending.
    ready: VecDeque<u64>,
    /// For whom it waits, while it is parked.
    parked: Vec<Awaited>,
    /// Under what it stands in the order of lanes.
    listed: Option<u64>,
}

/// Whose credit a parked lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Awaited {
    /// That of a subscription without a selector.
    Anyone,
    /// That of a subscription with this selector.
    Selector(SelectorNo),
    Owner(SubRef),
    /// Nobody's: for something of its group to end.
    Group,
}

/// What is known of the consumer of a group.
#[derive(Debug, Default)]
struct Group {
    /// And its selector.
    owner: Option<(SubRef, Option<SelectorNo>)>,
    /// A few.
    lanes: Vec<LaneNo>,
    entry_count: u64,
    held_count: u64,
    /// Entries that failed and rest: what is behind them waits.
    resting: BTreeSet<u64>,
    /// When it had entries last, as a place in `idle`.
    idle_at: Option<u64>,
}

type GroupKey = Arc<[u8]>;

impl Lane {
    /// An entry, ready or not, is ready no more. Mostly it is the first.
    fn unready(&mut self, sequence: u64) {
        if let Ok(at) = self.ready.binary_search(&sequence) {
            self.ready.remove(at);
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    free: BTreeSet<u32>,
    by_key: BTreeMap<LaneKey, LaneNo>,
    /// Lanes that have something ready and are not parked: by rank and first entry.
    order: BTreeSet<(u8, u64, LaneNo)>,
    parked: BTreeSet<(Awaited, LaneNo)>,
    /// The plain lane is parked.
    plain_parked: bool,
    groups: BTreeMap<GroupKey, Group>,
    /// How many of them each subscription owns, if any.
    owned: BTreeMap<SubRef, u64>,
    /// Groups that have an owner and no entries, the longest so first.
    idle: BTreeMap<u64, GroupKey>,
    idle_last: u64,
    idle_count_max: usize,
}

/// Who may be given an entry of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takers {
    /// Whoever its selectors let.
    Any,
    /// The owner of its group.
    One(SubRef),
    /// Nobody now: what is before it in its group rests.
    None,
}

impl Lanes {
    pub(super) fn new(idle_count_max: usize) -> Self {
        Self {
            idle_count_max,
            ..Self::default()
        }
    }

    fn lane(&self, no: LaneNo) -> Option<&Lane> {
        self.lanes.get(no.0.checked_sub(1)? as usize)?.as_ref()
    }

    fn lane_mut(&mut self, no: LaneNo) -> Option<&mut Lane> {
        self.lanes.get_mut(no.0.checked_sub(1)? as usize)?.as_mut()
    }

    fn group_key(&self, no: LaneNo) -> Option<GroupKey> {
        self.lane(no)?.key.group.clone()
    }

    /// What the entries of a lane have in common.
    pub(super) fn key(&self, no: LaneNo) -> Option<&LaneKey> {
        self.lane(no).map(|lane| &lane.key)
    }

    /// The selectors that let a lane's entries through.
    pub(super) fn matched(&self, no: LaneNo) -> Vec<SelectorNo> {
        self.lane(no)
            .map_or_else(Vec::new, |lane| lane.key.matched.clone())
    }

    /// One more entry of a lane, which is made if there is none. It is not ready yet.
    pub(super) fn enter(&mut self, key: LaneKey) -> LaneNo {
        let group = key.group.clone();
        let no = match self.by_key.get(&key) {
            Some(no) => *no,
            None => {
                let at = self.free.pop_first().unwrap_or_else(|| {
                    self.lanes.push(None);
                    u32::try_from(self.lanes.len() - 1).expect("a lane has an entry, and those are in memory")
                });
                let no = LaneNo(at + 1);
                self.by_key.insert(key.clone(), no);
                let place = self.lanes.get_mut(at as usize).expect("it was just made");
                *place = Some(Lane {
                    key,
                    entry_count: 0,
                    ready: VecDeque::new(),
                    parked: Vec::new(),
                    listed: None,
                });
                no
            }
        };
        self.lane_mut(no).expect("it was just made").entry_count += 1;
        if let Some(group) = group {
            let group = self.groups.entry(group).or_default();
            group.entry_count += 1;
            if !group.lanes.contains(&no) {
                group.lanes.push(no);
            }
            if let Some(at) = group.idle_at.take() {
                self.idle.remove(&at);
            }
        }
        no
    }

    /// An entry of a lane leaves it for good. `held`: it was held by a client.
    pub(super) fn leave(&mut self, no: LaneNo, sequence: u64, held: bool) {
        if held {
            self.unhold(no);
        }
        self.unrest(no, sequence);
        let group_key = self.group_key(no);
        let Some(lane) = self.lane_mut(no) else { return };
        lane.unready(sequence);
        lane.entry_count -= 1;
        // Those of a priority alone are few, and used again and again.
        let over = lane.entry_count == 0 && (lane.key.group.is_some() || !lane.key.matched.is_empty());
        self.list(no);
        if over {
            self.unpark(no);
            if let Some(lane) =
                no.0.checked_sub(1)
                    .and_then(|at| self.lanes.get_mut(at as usize)?.take())
            {
                if self.by_key.get(&lane.key) == Some(&no) {
                    self.by_key.remove(&lane.key);
                }
                self.free.insert(no.0 - 1);
            }
        }
        if let Some(key) = group_key
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.entry_count -= 1;
            if over {
                group.lanes.retain(|of| *of != no);
            }
            if group.entry_count == 0 {
                self.rest_group(key);
            }
        }
    }

    /// A group has no entries: its owner is remembered for a while.
    fn rest_group(&mut self, key: GroupKey) {
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        if group.owner.is_none() {
            self.groups.remove(&key);
            return;
        }
        self.idle_last += 1;
        group.idle_at = Some(self.idle_last);
        self.idle.insert(self.idle_last, key);
        while self.idle.len() > self.idle_count_max
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            let owner = self.groups.remove(&oldest).and_then(|group| group.owner);
            self.count_owned(owner.map(|(owner, _)| owner), None);
        }
    }

    /// A group has another owner.
    fn count_owned(&mut self, before: Option<SubRef>, after: Option<SubRef>) {
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(count) = self.owned.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&before);
            }
        }
        if let Some(after) = after {
            *self.owned.entry(after).or_default() += 1;
        }
    }

    /// How many groups a subscription owns.
    pub(super) fn owned_count(&self, sub: SubRef) -> u64 {
        self.owned.get(&sub).copied().unwrap_or(0)
    }

    /// Keeps the order of lanes right.
    fn list(&mut self, no: LaneNo) {
        let Some(lane) = self.lane_mut(no) else { return };
        let first = lane.ready.front().copied().filter(|_| lane.parked.is_empty());
        let (rank, listed) = (lane.key.rank, lane.listed);
        if listed == first {
            return;
        }
        lane.listed = first;
        if let Some(listed) = listed {
            self.order.remove(&(rank, listed, no));
        }
        if let Some(first) = first {
            self.order.insert((rank, first, no));
        }
    }

    /// An entry of a lane is ready.
    pub(super) fn ready(&mut self, no: LaneNo, sequence: u64) {
        if let Some(lane) = self.lane_mut(no) {
            let at = lane.ready.partition_point(|of| *of < sequence);
            lane.ready.insert(at, sequence);
            match lane.ready.front() == Some(&sequence) && !lane.parked.is_empty() {
                // It may be one that what the lane waits for does not hold up.
                true => self.unpark(no),
                false => self.list(no),
            }
        }
    }

    /// An entry of a lane is ready no more.
    pub(super) fn unready(&mut self, no: LaneNo, sequence: u64) {
        if let Some(lane) = self.lane_mut(no) {
            lane.unready(sequence);
            self.list(no);
        }
    }

    /// The first ready entry, by rank and then by age, before this one.
    pub(super) fn first(&self, durable_end: u64) -> Option<(u8, u64, LaneNo)> {
        let mut from = (0, 0, PLAIN);
        loop {
            let &(rank, sequence, no) = self.order.range(from..).next()?;
            if sequence < durable_end {
                return Some((rank, sequence, no));
            }
            // All others of its rank are younger still.
            from = (rank + 1, 0, PLAIN);
        }
    }

    /// The oldest ready entry of all lanes here, whether durable or not, or parked.
    pub(super) fn oldest(&self) -> Option<u64> {
        let all = self.lanes.iter().flatten();
        all.filter_map(|lane| lane.ready.front().copied()).min()
    }

    /// Who may be given the first entry of a lane.
    pub(super) fn takers(&self, no: LaneNo) -> Takers {
        let Some(lane) = self.lane(no) else {
            return Takers::Any;
        };
        let Some(group) = self.group_key(no).and_then(|key| self.groups.get(&key)) else {
            return Takers::Any;
        };
        let first = lane.ready.front();
        let rests = |rests: &u64| first.is_some_and(|first| rests < first);
        let is_let = |selector: &SelectorNo| lane.key.matched.binary_search(selector).is_ok();
        match group.owner {
            _ if group.resting.first().is_some_and(rests) => Takers::None,
            Some((owner, selector)) if selector.as_ref().is_none_or(is_let) => Takers::One(owner),
            _ if group.held_count > 0 => Takers::None,
            _ => Takers::Any,
        }
    }

    /// An entry of a lane goes to a subscription, which owns its group from now on, or up to this entry.
    pub(super) fn hold(&mut self, no: LaneNo, by: (SubRef, Option<SelectorNo>), ends_group: bool) {
        if let Some(key) = self.group_key(no)
            && let Some(group) = self.groups.get_mut(&key)
        {
            let owner = (!ends_group).then_some(by);
            let before = std::mem::replace(&mut group.owner, owner);
            group.held_count += 1;
            self.count_owned(before.map(|(owner, _)| owner), owner.map(|(owner, _)| owner));
            if before.is_some_and(|(owner, _)| owner != by.0) {
                // What waits for the former one may be for this one.
                self.unpark_group(&key);
            }
        }
    }

    /// An entry of a lane is held no more.
    pub(super) fn unhold(&mut self, no: LaneNo) {
        if let Some(key) = self.group_key(no)
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.held_count -= 1;
            if group.held_count == 0 {
                self.unpark_group(&key);
            }
        }
    }

    /// The group of a lane may go to another subscription, once nothing of it is held.
    pub(super) fn disown(&mut self, no: LaneNo) {
        if let Some(key) = self.group_key(no) {
            self.disown_group(&key);
        }
    }

    /// The groups that a subscription owns may go to others: it is gone.
    pub(super) fn disown_by(&mut self, sub: SubRef) {
        self.disown_where(|owner| owner == sub);
    }

    /// Those of all others may go to it.
    pub(super) fn disown_for(&mut self, sub: SubRef) {
        self.disown_where(|owner| owner != sub);
    }

    fn disown_where(&mut self, whose: impl Fn(SubRef) -> bool) {
        let all = self.groups.iter();
        let owned = all.filter(|(_, group)| group.owner.is_some_and(|(owner, _)| whose(owner)));
        let owned: Vec<GroupKey> = owned.map(|(key, _)| key.clone()).collect();
        owned.iter().for_each(|key| self.disown_group(key));
    }

    fn disown_group(&mut self, key: &GroupKey) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let before = group.owner.take();
        if group.entry_count == 0 {
            if let Some(at) = group.idle_at {
                self.idle.remove(&at);
            }
            self.groups.remove(key);
        }
        self.count_owned(before.map(|(owner, _)| owner), None);
        self.unpark_group(key);
    }

    /// An entry of a group failed and rests.
    pub(super) fn rest(&mut self, no: LaneNo, sequence: u64) {
        if let Some(key) = self.group_key(no)
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.resting.insert(sequence);
        }
    }

    /// It does no more.
    pub(super) fn unrest(&mut self, no: LaneNo, sequence: u64) {
        if let Some(key) = self.group_key(no)
            && let Some(group) = self.groups.get_mut(&key)
            && group.resting.remove(&sequence)
        {
            self.unpark_group(&key);
        }
    }

    /// Nobody can be given the first entry of a lane now.
    pub(super) fn park(&mut self, no: LaneNo) {
        let takers = self.takers(no);
        let Some(lane) = self.lane_mut(no) else {
            self.plain_parked = true;
            return;
        };
        lane.parked = match takers {
            Takers::One(owner) => vec![Awaited::Owner(owner)],
            Takers::None => vec![Awaited::Group],
            Takers::Any => {
                let matched = lane.key.matched.iter().map(|no| Awaited::Selector(*no));
                matched.chain([Awaited::Anyone]).collect()
            }
        };
        for awaited in lane.parked.clone() {
            self.parked.insert((awaited, no));
        }
        self.list(no);
    }

    pub(super) fn is_plain_parked(&self) -> bool {
        self.plain_parked
    }

    fn unpark(&mut self, no: LaneNo) {
        let Some(lane) = self.lane_mut(no) else { return };
        for awaited in std::mem::take(&mut lane.parked) {
            self.parked.remove(&(awaited, no));
        }
        self.list(no);
    }

    fn unpark_group(&mut self, key: &GroupKey) {
        let lanes = self.groups.get(key).map(|group| group.lanes.clone());
        lanes.into_iter().flatten().for_each(|no| self.unpark(no));
    }

    fn unpark_awaiting(&mut self, awaited: Awaited) -> bool {
        let range = (awaited, PLAIN)..=(awaited, LaneNo(u32::MAX));
        let lanes: Vec<LaneNo> = self.parked.range(range).map(|(_, no)| *no).collect();
        lanes.iter().for_each(|no| self.unpark(*no));
        !lanes.is_empty()
    }

    /// A subscription has credit: what waits for it is looked at again. Whether there is any.
    pub(super) fn unpark_for(&mut self, sub: SubRef, selector: Option<SelectorNo>) -> bool {
        let owned = self.unpark_awaiting(Awaited::Owner(sub));
        let anyones = match selector {
            Some(selector) => self.unpark_awaiting(Awaited::Selector(selector)),
            None => self.unpark_awaiting(Awaited::Anyone) | std::mem::take(&mut self.plain_parked),
        };
        owned | anyones
    }

    /// Everything is looked at again.
    pub(super) fn unpark_all(&mut self) {
        self.plain_parked = false;
        let parked: BTreeSet<LaneNo> = self.parked.iter().map(|(_, no)| *no).collect();
        parked.into_iter().for_each(|no| self.unpark(no));
    }

    /// A selector is gone: the lanes that it let through are those of the others that do.
    pub(super) fn forget(&mut self, selector: SelectorNo) {
        let all = (1..).map(LaneNo).zip(&self.lanes);
        let of = all.filter(|(_, lane)| {
            lane.as_ref()
                .is_some_and(|lane| lane.key.matched.contains(&selector))
        });
        let of: Vec<LaneNo> = of.map(|(no, _)| no).collect();
        for no in of {
            self.unpark(no);
            let Some(lane) = self.lane_mut(no) else { continue };
            let before = lane.key.clone();
            lane.key.matched.retain(|of| *of != selector);
            let after = lane.key.clone();
            if self.by_key.get(&before) == Some(&no) {
                self.by_key.remove(&before);
            }
            // Where there is a lane like it already, this one goes on beside it until it is empty.
            self.by_key.entry(after).or_insert(no);
        }
    }

    /// All entries are gone.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.idle_count_max);
    }
}
