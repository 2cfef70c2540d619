use super::*;
use crate::base::{ChunkNo, SlotNo};
use crate::journal::FORMAT_VERSION;
use crate::store::PART_BYTES_MAX;

const HEAD: BackupHead = BackupHead {
    seq: Seq(9),
    uuid: *b"0123456789abcdef",
    epoch: Epoch(3),
    slot_count: 8,
    message_count: 2,
    made_at_ms: 1_700_000_000_000,
};

fn watched(queue: &str) -> Fact {
    Fact::Watched {
        queue: queue.into(),
        epoch: Epoch(1),
    }
}

/// Facts that take more than so many parts.
fn many(parts: usize) -> Vec<Fact> {
    let name = "n".repeat(1000);
    (0..=parts * PART_BYTES_MAX / 1000)
        .map(|no| watched(&format!("{name}{no}")))
        .collect()
}

fn place(slot: u32, chunk: u64) -> ChunkRef {
    ChunkRef {
        slot: SlotNo(slot),
        chunk: ChunkNo(chunk),
    }
}

fn items() -> Vec<BackupItem> {
    vec![
        BackupItem::Facts(Seq(2), vec![watched("a"), watched("b")]),
        BackupItem::Facts(Seq(5), many(2)),
        BackupItem::Facts(Seq(9), vec![watched("c")]),
        BackupItem::Chunk(place(0, 70), Bytes::from_static(b"first")),
        BackupItem::Chunk(place(7, 60), Bytes::from(vec![7; CHUNK_BYTES_MAX])),
    ]
}

fn written(items: &[BackupItem]) -> Vec<u8> {
    let mut writer = BackupWriter::default();
    let mut out = Vec::new();
    writer.head(&HEAD, &mut out);
    for item in items {
        match item {
            BackupItem::Facts(seq, facts) => writer.facts(*seq, facts, &mut out),
            BackupItem::Chunk(place, payload) => writer.chunk(*place, payload, &mut out),
        }
    }
    writer.end(HEAD.seq, &mut out);
    out
}

/// A small one.
fn small() -> Vec<u8> {
    let mut items = items();
    items.retain(|item| match item {
        BackupItem::Facts(_, facts) => facts.len() < 3,
        BackupItem::Chunk(_, payload) => payload.len() < 10,
    });
    written(&items)
}

fn read(bytes: &[u8]) -> Result<Vec<BackupItem>, BackupError> {
    let mut reader = BackupReader::new(bytes)?;
    assert_eq!(*reader.head(), HEAD);
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    assert_eq!(reader.read_bytes(), bytes.len() as u64);
    Ok(items)
}

#[test]
fn what_was_written_is_read() {
    assert!(read(&written(&items())).unwrap() == items());
    assert_eq!(read(&written(&[])).unwrap(), []);
}

/// An index chunk of exactly one part has an empty one behind it.
#[test]
fn a_full_last_part_has_an_end() {
    let payload = |len: usize| vec![watched(&"q".repeat(len))];
    let lens = (0..40).map(|less| PART_BYTES_MAX - 40 + less);
    let full = lens
        .filter(|len| crate::journal::encode_facts(&payload(*len)).len() == PART_BYTES_MAX)
        .collect::<Vec<_>>();
    let [len] = full[..] else {
        panic!("one length fits: {full:?}")
    };
    let item = BackupItem::Facts(Seq(1), payload(len));
    assert!(read(&written(std::slice::from_ref(&item))).unwrap() == [item]);
}

#[test]
fn golden_head_and_end() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = written(&[]);
    let head = "5354464404050000 0900000000000000 2c000000";
    assert_eq!(hex(&bytes[..20]), head.replace(' ', ""));
    let payload =
        "01000000 30313233343536373839616263646566 03000000 08000000 0200000000000000 0068e5cf8b010000";
    assert_eq!(hex(&bytes[24..68]), payload.replace(' ', ""));
    let end = "5354464404070000 0900000000000000 14000000";
    assert_eq!(hex(&bytes[68..88]), end.replace(' ', ""));
    assert_eq!(hex(&bytes[92..108]), "0".repeat(32));
}

#[test]
fn every_cut_is_incomplete() {
    let bytes = small();
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, BackupError::Incomplete { at } if at == len as u64),
            "{len}: {error}"
        );
    }
}

#[test]
fn every_changed_byte_is_found() {
    let whole = small();
    for at in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            assert!(read(&bytes).is_err(), "byte {at} ^ {change:x}");
        }
    }
}

/// Each frame is whole; their order and number are not.
#[test]
fn frames_left_out_doubled_or_swapped_are_found() {
    let whole = small();
    let mut frames = Vec::new();
    let mut rest = whole.as_slice();
    while !rest.is_empty() {
        let len = 24 + u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
        let (frame, more) = rest.split_at(len);
        frames.push(frame);
        rest = more;
    }
    assert_eq!(frames.len(), 5);
    for at in 0..frames.len() {
        let mut fewer = frames.clone();
        fewer.remove(at);
        assert!(read_any(&fewer.concat()).is_err(), "without frame {at}");
        let mut doubled = frames.clone();
        doubled.insert(at, frames[at]);
        assert!(read_any(&doubled.concat()).is_err(), "frame {at} twice");
        for other in 0..at {
            let mut swapped = frames.clone();
            swapped.swap(at, other);
            assert!(
                read_any(&swapped.concat()).is_err(),
                "frames {at} and {other} swapped"
            );
        }
    }
    let longer = [&whole, &b"\0"[..]].concat();
    assert!(matches!(read(&longer), Err(BackupError::Damaged { .. })));
}

fn read_any(bytes: &[u8]) -> Result<(), BackupError> {
    let mut reader = BackupReader::new(bytes)?;
    while reader.next_item()?.is_some() {}
    Ok(())
}

#[test]
fn strangers_and_newer_ones_are_told_apart() {
    let text = b"#!/bin/sh\nthis is no backup at all\n";
    assert!(matches!(read_any(text), Err(BackupError::NotABackup)));
    // The format of a frame, its checksum made anew.
    let mut bytes = small();
    bytes[4] = FORMAT_VERSION as u8 + 1;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..68]);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(read_any(&bytes), Err(BackupError::NewerFormat { .. })));
    // The version of the backup.
    let mut bytes = small();
    bytes[24] = 2;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..68]);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(
        read_any(&bytes),
        Err(BackupError::NewerFormat { found: 2, known: 1 })
    ));
}

/// A length is not believed: what claims 4 GiB is refused at once.
#[test]
fn a_length_that_no_frame_has_takes_no_memory() {
    let mut bytes = small();
    bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read_any(&bytes),
        Err(BackupError::Damaged { at: 0, .. })
    ));
}
