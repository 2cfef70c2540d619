//! The subscriptions of a queue that may be given a message now, in turn.
//!
//! # Invariants
//! - A subscription stands in the ring at most once.
//! - Of two that may have an entry, the one of the higher priority gets it; of the same priority, the one that waits longer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::lanes::SelectorNo;
use super::queue::SubRef;

/// What sets a subscription apart from the others of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Class {
    /// Which messages it takes; `None`: all.
    pub(super) selector: Option<SelectorNo>,
    /// Those of a higher one go first.
    pub(super) priority: i32,
}

/// Each with the turn in which it came.
type Line = VecDeque<(u64, SubRef)>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Those that are set apart by nothing.
    plain: Line,
    others: BTreeMap<(Option<SelectorNo>, Reverse<i32>), Line>,
    turn: u64,
    len: usize,
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds one behind all others.
    pub(super) fn push(&mut self, class: Class, sub: SubRef) {
        self.turn += 1;
        self.len += 1;
        let turn = self.turn;
        self.line(class).push_back((turn, sub));
    }

    /// Gives one back its place before all others.
    pub(super) fn push_front(&mut self, class: Class, sub: SubRef) {
        self.len += 1;
        let line = self.line(class);
        let turn = line.front().map_or(0, |(turn, _)| turn.saturating_sub(1));
        line.push_front((turn, sub));
    }

    fn line(&mut self, class: Class) -> &mut Line {
        match class {
            Class {
                selector: None,
                priority: 0,
            } => &mut self.plain,
            Class { selector, priority } => self.others.entry((selector, Reverse(priority))).or_default(),
        }
    }

    /// Takes out the next one for an entry that these selectors let through, beside those without one.
    pub(super) fn pop(&mut self, matched: &[SelectorNo]) -> Option<SubRef> {
        if self.others.is_empty() {
            let (_, sub) = self.plain.pop_front()?;
            self.len -= 1;
            return Some(sub);
        }
        let plain = self.plain.front().map(|(turn, _)| (Reverse(0), *turn, None));
        let selectors = std::iter::once(None).chain(matched.iter().copied().map(Some));
        let lines = selectors.filter_map(|selector| {
            let range = (selector, Reverse(i32::MAX))..=(selector, Reverse(i32::MIN));
            let (key, line) = self.others.range(range).next()?;
            line.front().map(|(turn, _)| (key.1, *turn, Some(*key)))
        });
        let (.., key) = plain.into_iter().chain(lines).min()?;
        self.len -= 1;
        let Some(key) = key else {
            return self.plain.pop_front().map(|(_, sub)| sub);
        };
        let line = self.others.get_mut(&key)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.others.remove(&key);
        }
        next.map(|(_, sub)| sub)
    }

    /// Takes one out, if it is in.
    pub(super) fn remove(&mut self, class: Class, sub: SubRef) {
        let line = self.line(class);
        let before = line.len();
        line.retain(|(_, of)| *of != sub);
        let gone = before - line.len();
        let empty = line.is_empty();
        self.len -= gone;
        if empty {
            self.others.remove(&(class.selector, Reverse(class.priority)));
        }
    }
}
