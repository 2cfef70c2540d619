//! Making sled give the end of its file back, in small steps, while nothing else is to be done.
//!
//! sled cuts free segments off the end of its file by itself. But a segment is free only once every page in it has been
//! written elsewhere, and sled 0.34.7 moves pages out of a sparse segment one at a time, each time that it rewrites some
//! other page (`src/pagecache/mod.rs`, `replace`); and it holds a free segment back until the one being written is full
//! (`src/pagecache/segment.rs`, `defer_free_lsn`). An idle store therefore keeps its size. So we give it something to
//! rewrite: first the fence in front of the index, whose values mean nothing, very often; then slots that nobody uses,
//! to fill a few segments.

use std::num::NonZeroU64;

use super::SEGMENT_BYTES;
use crate::base::SlotNo;

/// A file is worth the work when it is larger than twice what its slots take and this.
const SLACK_BYTES: u64 = 16 * SEGMENT_BYTES as u64;

/// Rewriting a fence moves about two pages, and the smallest pages left behind are some hundred to a segment; by trial
/// half of these rounds do.
const BYTES_PER_ROUND: u64 = 64 * 1024;

/// After the rounds: so often the unused slots are written, about 1 MiB each time.
const FILL_COUNT: u32 = 4;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write the fence; the value is another one each time, since sled skips what changes nothing.
    Fence(u8),
    /// Write every slot that nobody uses.
    Fill(u8),
}

/// Where the work stands.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    cycle: Option<Cycle>,
    turn: u8,
}

#[derive(Debug)]
struct Cycle {
    /// Size of the file when it began; unknown before the first step.
    began_at: Option<NonZeroU64>,
    rounds_left: u64,
    fills_left: u32,
}

impl Tidy {
    /// There may be something to gain.
    pub(super) fn wake(&mut self) {
        self.cycle = Some(Cycle {
            began_at: None,
            rounds_left: 0,
            fills_left: 0,
        });
    }

    /// The next step for a file of this size with so many slots; `None` when all is done.
    pub(super) fn next(&mut self, file_bytes: u64, slots_made: u32) -> Option<Step> {
        let cycle = self.cycle.as_mut()?;
        if cycle.rounds_left == 0 && cycle.fills_left == 0 {
            let gained = cycle
                .began_at
                .is_none_or(|began_at| file_bytes + SEGMENT_BYTES as u64 <= began_at.get());
            let goal = SLACK_BYTES + 2 * u64::from(slots_made) * super::VALUE_BYTES_MAX as u64;
            if !gained || file_bytes <= goal {
                self.cycle = None;
                return None;
            }
            *cycle = Cycle {
                began_at: NonZeroU64::new(file_bytes),
                rounds_left: file_bytes / BYTES_PER_ROUND,
                fills_left: FILL_COUNT,
            };
        }
        self.turn = self.turn.wrapping_add(1);
        if cycle.rounds_left > 0 {
            cycle.rounds_left -= 1;
            return Some(Step::Fence(self.turn));
        }
        cycle.fills_left -= 1;
        Some(Step::Fill(self.turn))
    }
}

/// The slots of which the core knows nothing: made, and behind its pool.
pub(super) fn unused_slots(slot_count: u32, slots_made: u32) -> impl Iterator<Item = SlotNo> {
    (slot_count..slots_made)
        .take(super::SLOTS_AHEAD_COUNT as usize)
        .map(SlotNo)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn run(tidy: &mut Tidy, mut size: impl FnMut(u64) -> u64) -> u64 {
        (0..)
            .find(|step| tidy.next(size(*step), 64).is_none())
            .expect("it ends")
    }

    #[test]
    fn a_file_of_its_proper_size_is_left_alone() {
        let mut tidy = Tidy::default();
        assert_eq!(tidy.next(900 * MIB, 64), None, "nobody asked");
        tidy.wake();
        assert_eq!(run(&mut tidy, |_| 30 * MIB), 0);
        tidy.wake();
        assert_eq!(tidy.next(900 * MIB, 40_000), None, "the slots take it");
    }

    #[test]
    fn it_ends_when_nothing_is_gained() {
        let mut tidy = Tidy::default();
        tidy.wake();
        assert_eq!(run(&mut tidy, |_| 400 * MIB), 400 * 16 + 4);
        assert_eq!(run(&mut tidy, |_| 400 * MIB), 0);
    }

    #[test]
    fn it_goes_on_while_something_is_gained() {
        let mut tidy = Tidy::default();
        tidy.wake();
        let first = 400 * 16 + 4;
        assert_eq!(
            run(&mut tidy, |step| if step < 1_000 { 400 } else { 300 } * MIB),
            first + 300 * 16 + 4
        );
    }
}
