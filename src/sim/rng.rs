//! The only source of chance: SplitMix64, so that a run can be told again by its seed.

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("a number below a usize is one")
    }

    /// True in `count` of `of` cases.
    pub(super) fn chance(&mut self, count: usize, of: usize) -> bool {
        self.below(of) < count
    }

    /// One of a few.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len());
        *from.get(at).expect("a number below the length is an index")
    }

    /// Another source that does not depend on how often this one is asked later.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }
}
