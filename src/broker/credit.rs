//! Credit: how many deliveries a subscription may still be given.
//!
//! Most subscriptions have a window of deliveries: `held_count` under `prefetch_count`. The others have [`Beyond`] besides.
//!
//! # Invariants
//! - A subscription with a window holds at most its `prefetch_count`, or what it held before the delivery that filled its
//!   bytes and that one, whichever is more; never more than `prefetch_count_max`. ABORT may put back more.
//! - A pull subscription is given a delivery for each that it asked for, and no other; what it holds and what it may still be
//!   given is at most `prefetch_count_max` when it asks.
//!
//! # Not here
//! Bytes on their way to a socket (`prefetch_bytes_max`): `dispatch`.

use std::collections::BTreeMap;

use crate::base::{SessionNo, SubNo, Tag};
use crate::port::{Credit, Refusal};

use super::Broker;
use super::peer::Sub;

/// What a subscription may be given when it holds its `prefetch_count`.
#[derive(Debug, Default)]
pub(super) enum Beyond {
    /// Nothing: the common case.
    #[default]
    Nothing,
    /// More, while the bytes of what it holds are under a bound.
    Bytes(Box<ByteWindow>),
    /// So many as it has asked for and was not given yet.
    Asked(u32),
}

/// See [`Beyond::Bytes`].
#[derive(Debug)]
pub(super) struct ByteWindow {
    bytes_max: u64,
    /// Bytes of the deliveries neither settled nor staged.
    held_bytes: u64,
    /// Bytes of each delivery that is not settled.
    of: BTreeMap<Tag, u32>,
    /// `prefetch_count_max`.
    count_max: u32,
}

impl Beyond {
    /// That of a new subscription, and its `prefetch_count`.
    pub(super) fn of(credit: Credit, count_max: u32) -> (u32, Self) {
        match credit {
            Credit::Pull => (0, Self::Asked(0)),
            Credit::Window { count, bytes: 0 } => (count.max(1), Self::Nothing),
            Credit::Window { count, bytes } => {
                let window = ByteWindow {
                    bytes_max: bytes,
                    held_bytes: 0,
                    of: BTreeMap::new(),
                    count_max,
                };
                (count, Self::Bytes(Box::new(window)))
            }
        }
    }

    /// Whether one more may be given to a subscription that holds so many.
    pub(super) fn has_room(&self, held_count: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bytes(window) => window.held_bytes < window.bytes_max && held_count < window.count_max,
            Self::Asked(left) => *left > 0,
        }
    }

    /// One more was given.
    pub(super) fn take(&mut self, tag: Tag, len: usize) {
        match self {
            Self::Nothing => {}
            Self::Bytes(window) => {
                let len = u32::try_from(len).expect("a frame is under 4 GiB");
                window.held_bytes += u64::from(len);
                window.of.insert(tag, len);
            }
            Self::Asked(left) => {
                *left = left.checked_sub(1).expect("none is given that was not asked for");
            }
        }
    }

    /// A delivery is held no more: staged, or settled.
    pub(super) fn let_go(&mut self, tag: Tag) {
        if let Self::Bytes(window) = self {
            window.held_bytes -= u64::from(window.of.get(&tag).copied().unwrap_or(0));
        }
    }

    /// A staged delivery is held again.
    pub(super) fn hold_again(&mut self, tag: Tag) {
        if let Self::Bytes(window) = self {
            window.held_bytes += u64::from(window.of.get(&tag).copied().unwrap_or(0));
        }
    }

    /// A delivery that is held no more is settled.
    pub(super) fn forget(&mut self, tag: Tag) {
        if let Self::Bytes(window) = self {
            window.of.remove(&tag);
        }
    }

    /// A delivery that was given never reached the client: what was asked for is still due.
    pub(super) fn give_back(&mut self) {
        if let Self::Asked(left) = self {
            *left += 1;
        }
    }

    /// Of a pull subscription, how many it may still be given.
    pub(super) fn asked(&self) -> Option<u32> {
        match self {
            Self::Asked(left) => Some(*left),
            _ => None,
        }
    }

    /// Of a window in bytes, their bound.
    pub(super) fn bytes_max(&self) -> Option<u64> {
        match self {
            Self::Bytes(window) => Some(window.bytes_max),
            _ => None,
        }
    }
}

impl Sub {
    /// Whether it holds all it may, so that nothing comes before something is settled.
    pub(super) fn is_full(&self) -> bool {
        match &self.beyond {
            // It gets nothing because it asks for nothing.
            Beyond::Asked(_) => false,
            beyond => self.held_count >= self.prefetch_count && !beyond.has_room(self.held_count),
        }
    }
}

impl Broker {
    /// A pull subscription asks for more.
    pub(super) fn ask_for_more(&mut self, session: SessionNo, no: SubNo, count: u32) -> Result<(), Refusal> {
        let count_max = self.limits.prefetch_count_max;
        let Some(sub) = self.peer(session).subs.get_mut(&no) else {
            return Ok(());
        };
        let Beyond::Asked(left) = &mut sub.beyond else {
            return Err(Refusal::NotPull);
        };
        let more = left.checked_add(count);
        let more = more.filter(|more| more.saturating_add(sub.held_count) <= count_max);
        *left = more.ok_or(Refusal::CreditTooHigh)?;
        self.refill(session, no);
        Ok(())
    }
}
