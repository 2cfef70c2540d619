use super::*;
use crate::store::sled::live::LiveIndex;

/// The meta record of a store that wrote these index chunks (Seq, parts) and dropped those before `first`.
fn meta(chunks: &[(u64, u16)], first: u64) -> MetaRecord {
    let mut live = LiveIndex::default();
    for (seq, parts) in chunks.iter().filter(|(seq, _)| *seq >= first) {
        live.push(Seq(*seq), *parts);
    }
    MetaRecord {
        last_seq: Seq(chunks.last().map_or(0, |(seq, _)| *seq)),
        index_key_count: live.key_count(),
        index_key_sum: live.key_sum(),
        ..MetaRecord::default()
    }
}

fn keys(chunks: &[(u64, u16)]) -> Vec<IndexKey> {
    chunks
        .iter()
        .flat_map(|(seq, parts)| (0..*parts).map(|part| (Seq(*seq), part)))
        .collect()
}

/// What is said where the file still holds every key but these.
fn check(chunks: &[(u64, u16)], first: u64, lost: &[(u64, u16)]) -> (Seq, Missing) {
    let mut found = keys(chunks);
    found.retain(|key| !lost.contains(&(key.0.0, key.1)));
    live(&meta(chunks, first), found.into_iter())
}

/// One part each but for a few, and batches without facts between.
const CHUNKS: [(u64, u16); 12] = [
    (1, 1),
    (2, 1),
    (3, 1),
    (5, 4),
    (6, 1),
    (7, 1),
    (9, 1),
    (10, 2),
    (11, 1),
    (12, 1),
    (14, 1),
    (15, 1),
];

fn missing(keys: &[(u64, u16)]) -> Missing {
    Missing::Keys(keys.iter().map(|(seq, part)| (Seq(*seq), *part)).collect())
}

#[test]
fn what_was_dropped_is_told_from_what_is_live() {
    for first in 1..=15 {
        let (from, lost) = check(&CHUNKS, first, &[]);
        assert_eq!(lost, missing(&[]), "from {first} on");
        let live = CHUNKS.iter().find(|(seq, _)| *seq >= first).unwrap().0;
        assert_eq!(from, Seq(live));
    }
    assert_eq!(check(&CHUNKS, 16, &[]), (Seq(16), missing(&[])));
}

#[test]
fn any_one_part_that_is_missing_is_named() {
    for first in 1..=15 {
        for (seq, part) in keys(&CHUNKS).into_iter().map(|(seq, part)| (seq.0, part)) {
            let (from, lost) = check(&CHUNKS, first, &[(seq, part)]);
            let expect: &[_] = if seq >= first { &[(seq, part)] } else { &[] };
            assert_eq!(lost, missing(expect), "{seq} of those from {first} on");
            assert!(from.0 >= first, "{from} is not live from {first} on");
        }
    }
}

#[test]
fn several_that_are_missing_are_named_where_every_batch_had_facts() {
    let chunks: Vec<(u64, u16)> = (1..40).map(|seq| (seq, 1 + (seq % 3) as u16)).collect();
    let lost = [(20, 0), (21, 0), (24, 0), (25, 0), (26, 1)];
    assert_eq!(check(&chunks, 10, &lost), (Seq(10), missing(&lost)));
    // The parts of a chunk of which nothing is left cannot be counted.
    let (from, lost) = check(&chunks, 10, &[(20, 0), (20, 1), (20, 2), (24, 0)]);
    assert!(matches!(lost, Missing::Unknown(_)), "{lost:?}");
    assert!(from <= Seq(10), "{from}");
}

#[test]
fn where_it_cannot_be_known_as_much_as_may_be_live_is_kept() {
    let (from, lost) = check(&CHUNKS, 5, &[(7, 0), (10, 1)]);
    assert_eq!(lost, Missing::Unknown(0), "what was dropped takes their place");
    assert!(from <= Seq(5), "{from}");
    let nothing_known = MetaRecord::default();
    assert_eq!(
        live(&nothing_known, keys(&CHUNKS).into_iter()),
        (Seq(0), Missing::Unknown(0))
    );
}

#[test]
fn no_number_of_batches_is_taken_on_trust() {
    let mut meta = meta(&CHUNKS, 5);
    meta.last_seq = Seq(u64::MAX >> 1);
    assert!(matches!(
        live(&meta, keys(&CHUNKS).into_iter()),
        (_, Missing::Unknown(_))
    ));
}
