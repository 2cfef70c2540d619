//! The index chunks in the store and how many parts each has, in a few bytes: runs of Seqs with equal part counts.

use std::collections::VecDeque;

use crate::base::Seq;
use crate::store::OLDEST_FIRST;

/// See the module's text. Seqs without parts are not in it.
#[derive(Debug, Default)]
pub(super) struct LiveIndex {
    runs: VecDeque<Run>,
    key_count: u64,
    key_sum: u64,
}

#[derive(Debug)]
struct Run {
    first: u64,
    len: u64,
    parts: u16,
}

impl LiveIndex {
    /// The number of index keys.
    pub(super) fn key_count(&self) -> u64 {
        self.key_count
    }

    /// The wrapping sum of a hash of every index key.
    pub(super) fn key_sum(&self) -> u64 {
        self.key_sum
    }

    /// Adds an index chunk behind all others.
    pub(super) fn push(&mut self, seq: Seq, parts: u16) {
        if parts == 0 {
            return;
        }
        self.key_count += u64::from(parts);
        self.key_sum = self.key_sum.wrapping_add(sum_of(seq, parts));
        match self.runs.back_mut() {
            Some(run) if run.parts == parts && run.first + run.len == seq.0 => run.len += 1,
            last => {
                let end = last.map_or(0, |run| run.first + run.len);
                assert!(end <= seq.0, "index chunks are appended in the order of Seq");
                self.runs.push_back(Run {
                    first: seq.0,
                    len: 1,
                    parts,
                });
            }
        }
    }

    /// Takes the oldest index chunk out and gives its part count; 0 where it has no parts, or has gone before.
    pub(super) fn drop_oldest(&mut self, seq: Seq) -> u16 {
        let Some(run) = self.runs.front_mut() else {
            return 0;
        };
        assert!(seq.0 <= run.first, "{OLDEST_FIRST}");
        if seq.0 < run.first {
            return 0;
        }
        let parts = run.parts;
        run.first += 1;
        run.len -= 1;
        if run.len == 0 {
            self.runs.pop_front();
        }
        self.key_count -= u64::from(parts);
        self.key_sum = self.key_sum.wrapping_sub(sum_of(seq, parts));
        parts
    }
}

/// The wrapping sum of the hashes of an index chunk's keys.
fn sum_of(seq: Seq, parts: u16) -> u64 {
    (0..parts).fold(0, |sum, part| sum.wrapping_add(hash(seq, part)))
}

/// The finalizer of splitmix64 over Seq and part.
pub(super) fn hash(seq: Seq, part: u16) -> u64 {
    let mut bits = seq.0.wrapping_mul(1 << 16) ^ u64::from(part);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The key that has this hash.
pub(super) fn unhash(hash: u64) -> (Seq, u16) {
    // Each step of `hash`, backwards: the factors are the inverses of its own, modulo 2^64.
    let mut bits = hash ^ (hash >> 31) ^ (hash >> 62);
    bits = bits.wrapping_mul(0x3196_42b2_d24d_8ec3);
    bits = (bits ^ (bits >> 27) ^ (bits >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    bits = bits ^ (bits >> 30) ^ (bits >> 60);
    (Seq(bits >> 16), bits as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_and_sum_follow_the_keys() {
        let mut live = LiveIndex::default();
        for (seq, parts) in [(1, 1), (2, 1), (3, 0), (4, 3), (5, 1)] {
            live.push(Seq(seq), parts);
        }
        assert_eq!(live.key_count(), 6);
        let mut other = LiveIndex::default();
        other.push(Seq(4), 3);
        other.push(Seq(5), 1);
        assert_ne!(live.key_sum(), other.key_sum());
        let parts: Vec<_> = (1..4).map(|seq| live.drop_oldest(Seq(seq))).collect();
        assert_eq!(parts, [1, 1, 0]);
        assert_eq!(
            (live.key_count(), live.key_sum()),
            (other.key_count(), other.key_sum())
        );
        assert_eq!(
            (
                live.drop_oldest(Seq(4)),
                live.drop_oldest(Seq(5)),
                live.drop_oldest(Seq(5))
            ),
            (3, 1, 0)
        );
        assert_eq!((live.key_count(), live.key_sum()), (0, 0));
    }

    #[test]
    fn a_key_is_found_by_its_hash() {
        for key in [
            (Seq(0), 0),
            (Seq(1), 1),
            (Seq(9_876_543_210), 7),
            (Seq(1 << 40), u16::MAX),
        ] {
            assert_eq!(unhash(hash(key.0, key.1)), key);
        }
    }

    #[test]
    fn many_chunks_take_little() {
        let mut live = LiveIndex::default();
        (1..100_000).for_each(|seq| live.push(Seq(seq), 1));
        assert_eq!(live.runs.len(), 1);
        live.push(Seq(u64::MAX), 1);
        assert_eq!(live.runs.len(), 2);
    }

    #[test]
    #[should_panic(expected = "oldest first")]
    fn an_older_chunk_may_not_stay() {
        let mut live = LiveIndex::default();
        live.push(Seq(1), 1);
        live.push(Seq(2), 1);
        live.drop_oldest(Seq(2));
    }
}
