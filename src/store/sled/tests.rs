mod sample;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::store::conformance::{Script, UUID, enqueued, payload, watched};

/// A copy of a data folder while it is in use, as a killed process leaves it.
pub(in crate::store) fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const OPTIONS: SledOptions = SledOptions {
    cache_bytes: SledOptions::CACHE_BYTES,
    uuid: UUID,
};

fn open(dir: &Path) -> Result<SledStore, StoreError> {
    SledStore::create_or_open(dir, OPTIONS)
}

fn recovered(dir: &Path) -> Result<(SledStore, usize), StoreError> {
    let store = open(dir)?;
    let mut count = 0;
    store.recover(&mut |_| count += 1)?;
    Ok((store, count))
}

/// A folder with a store of these many batches, each with two facts and three chunks.
fn filled(batch_count: u32) -> (TempDir, Script) {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script::default();
    let store = open(dir.path()).unwrap();
    store.recover(&mut |_| ()).unwrap();
    for number in 0..batch_count {
        let slots = (0..3).map(|n| (number * 7 + n * 5) % 100);
        let chunks = slots.map(|slot| (slot, payload(number, 3_000))).collect();
        store
            .append(script.batch(vec![watched("a"), enqueued(u64::from(number), 0)], chunks))
            .unwrap();
        store.flush().unwrap();
    }
    (dir, script)
}

fn entries(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("snap.")).collect();
    names.sort();
    names
}

/// Writes past the store, as damage or a newer version would.
fn edit(dir: &Path, change: impl FnOnce(&::sled::Db)) {
    let folder = Folder::take(dir).unwrap();
    let db = open_engine(&folder, 1 << 20).unwrap();
    change(&db);
    db.flush().unwrap();
}

fn damage_text<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Damaged { what }) => what,
        other => panic!("not damage: {other:?}"),
    }
}

#[test]
fn a_new_folder_is_ours_alone_and_whole() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    drop(open(&dir).unwrap());
    assert_eq!(
        entries(&dir),
        ["blobs", "conf", "db", "durable", "format", "lock"]
    );
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        fs::read_to_string(dir.join("format")).unwrap(),
        "steadfast store, format 4, 30313233343536373839616263646566\n"
    );
}

#[test]
fn two_cannot_have_a_folder_and_one_can_have_it_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let store = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(StoreError::InUse(path)) if path == dir.path()));
        assert!(matches!(
            SledStore::open_existing(dir.path()),
            Err(StoreError::InUse(_))
        ));
        drop(store);
        drop(SledStore::open_existing(dir.path()).unwrap());
    }
}

#[test]
fn an_existing_store_is_not_made() {
    let root = tempfile::tempdir().unwrap();
    for dir in [root.path(), &root.path().join("absent")] {
        let error = SledStore::open_existing(dir).unwrap_err();
        assert!(
            matches!(&error, StoreError::File { operation: "open", path, .. } if path == dir),
            "{error}"
        );
    }
    assert_eq!(entries(root.path()), [""; 0]);
}

#[test]
fn an_interrupted_creation_begins_anew() {
    let (dir, _) = filled(3);
    fs::write(dir.path().join("format"), "steadfast store, format 4, creating\n").unwrap();
    fs::write(dir.path().join("conf"), "torn conf").unwrap();
    fs::write(dir.path().join("snap.00"), "torn").unwrap();
    assert!(SledStore::open_existing(dir.path()).is_err());
    let (store, count) = recovered(dir.path()).unwrap();
    assert_eq!((store.stats().epoch, count), (Epoch(0), 0));
    drop(store);
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_creation_cut_at_any_file_begins_anew_or_is_whole() {
    // Every state of the folder that a kill can leave, made by ending the creation at each step.
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path()).unwrap());
    for missing in ["db", "conf", "blobs"] {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(whole.path(), dir.path());
        fs::write(dir.path().join("format"), "steadfast store, format 4, creating\n").unwrap();
        let path = dir.path().join(missing);
        if path.is_dir() {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        }
        .unwrap();
        assert_eq!(recovered(dir.path()).unwrap().1, 0);
    }
}

#[test]
fn format_is_read_before_anything_is_touched() {
    let (dir, _) = filled(1);
    let write = |text: &str| fs::write(dir.path().join("format"), text).unwrap();
    let before = fs::read(dir.path().join("db")).unwrap();
    write("steadfast store, format 5, anything at all");
    assert!(matches!(
        open(dir.path()),
        Err(StoreError::NewerFormat { found: 5, known: 4 })
    ));
    for text in [
        "",
        "x",
        "steadfast store, format 0, creating",
        "steadfast store, format 4, 00",
    ] {
        write(text);
        assert!(damage_text(open(dir.path())).contains("`format`"), "{text}");
    }
    fs::remove_file(dir.path().join("format")).unwrap();
    assert!(damage_text(open(dir.path())).contains("`format` is missing"));
    assert!(before == fs::read(dir.path().join("db")).unwrap());
    write("steadfast store, format 4, 00000000000000000000000000000001");
    assert!(damage_text(open(dir.path())).contains("two stores"));
    fs::remove_file(dir.path().join("db")).unwrap();
    assert!(damage_text(open(dir.path())).contains("`db` is missing"));
}

#[test]
fn a_newer_value_and_an_unknown_fact_are_refused_by_name() {
    let newer = |value: &[u8]| {
        let mut value = value.to_vec();
        value[4] = 5;
        let (head, payload) = value.split_at(HEAD_BYTES);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), payload);
        value[20..24].copy_from_slice(&checksum.to_le_bytes());
        value
    };
    for key in [&META_KEY[..], &index_key(Seq(2), 0)] {
        let (dir, _) = filled(3);
        edit(dir.path(), |db| {
            let value = db.get(key).unwrap().unwrap();
            db.insert(key, newer(&value)).unwrap();
        });
        assert!(matches!(
            recovered(dir.path()),
            Err(StoreError::NewerFormat { found: 5, known: 4 })
        ));
    }
    let (dir, _) = filled(3);
    edit(dir.path(), |db| {
        let mut value = Vec::new();
        frame::seal(&mut value, Kind::Index, 0, 2, &[7, 0]);
        db.insert(index_key(Seq(2), 0), value).unwrap();
    });
    assert!(matches!(
        recovered(dir.path()),
        Err(StoreError::UnknownFact { tag: 7 })
    ));
}

#[test]
fn a_lost_or_changed_index_part_is_damage() {
    let check = |change: &dyn Fn(&::sled::Db), expect: &str| {
        let (dir, mut script) = filled(3);
        let (store, _) = recovered(dir.path()).unwrap();
        store
            .append(script.batch(vec![watched(&"x".repeat(3 * PART_BYTES_MAX))], vec![]))
            .unwrap();
        drop(store);
        edit(dir.path(), change);
        let what = damage_text(recovered(dir.path()));
        assert!(what.contains(expect), "{what}");
    };
    let seal = |number: u64, part: u16| {
        let mut value = Vec::new();
        frame::seal(&mut value, Kind::Index, part, number, &[]);
        value
    };
    let remove =
        |seq: u64, part: u16| move |db: &::sled::Db| drop(db.remove(index_key(Seq(seq), part)).unwrap());
    check(
        &remove(1, 0),
        "the index has 6 parts where the meta record of batch 4 counts 7",
    );
    check(
        &remove(4, 0),
        "the part before part 1 of index chunk 4 is missing",
    );
    check(
        &remove(4, 2),
        "the part before part 3 of index chunk 4 is missing",
    );
    check(&remove(4, 3), "index chunk 4: fact 0 does not parse");
    check(
        &|db| drop(db.insert(index_key(Seq(1), 0), seal(2, 0))),
        "part 0 of index chunk 1 is out of place",
    );
    check(
        &|db| drop(db.insert(index_key(Seq(1), 0), seal(1, 1))),
        "part 0 of index chunk 1 is out of place",
    );
    check(
        &|db| drop(db.insert(index_key(Seq(5), 0), seal(5, 0))),
        "part 0 of index chunk 5 is out of place",
    );
    check(
        &|db| drop(db.insert(index_key(Seq(1), 0), &[0; 30])),
        "part 0 of index chunk 1 does not begin",
    );
    check(
        &|db| drop(db.insert([INDEX_RANGE, 1], &[])),
        "an index key does not parse",
    );
    check(&|db| drop(db.remove(META_KEY)), "the meta record is missing");
    // As many keys, but others.
    let swap = |db: &::sled::Db| {
        db.remove(index_key(Seq(1), 0)).unwrap();
        db.insert(index_key(Seq(0), 0), seal(0, 0)).unwrap();
    };
    check(
        &swap,
        "the index has 7 parts where the meta record of batch 4 counts 7, or others",
    );
}

#[test]
fn a_changed_body_is_damage_and_another_chunk_is_gone() {
    let (dir, script) = filled(1);
    let place = script.last().chunks[0].place;
    let key = body_key(place.slot);
    edit(dir.path(), |db| {
        let mut value = db.get(key).unwrap().unwrap().to_vec();
        value[1_000] ^= 4;
        db.insert(key, value).unwrap();
    });
    let store = open(dir.path()).unwrap();
    assert!(damage_text(store.body(place)).contains("body slot 0 does not fit its checksum"));
    drop(store);
    edit(dir.path(), |db| drop(db.insert(key, &[]).unwrap()));
    assert!(matches!(
        open(dir.path()).unwrap().body(place),
        Err(StoreError::Gone(_))
    ));
}

#[test]
fn an_unfinished_snapshot_does_not_stop_it_from_opening() {
    let (dir, script) = filled(5);
    fs::write(
        dir.path().join("snap.FFFFFFFFFFFFFFFF.generating"),
        "half a snapshot",
    )
    .unwrap();
    script.check(&open(dir.path()).unwrap(), 5);
}

/// Random damage to the file: what is found is right, or the store or the body is refused; never a panic, never less.
/// sled frees the segment in which the log was known to be whole last, once a snapshot lies behind it.
#[test]
fn a_log_whose_stable_segment_was_given_back_is_followed_from_the_snapshot() {
    let (mut dir, mut script) = filled(1);
    let mut given_back = 0;
    for kill in 1..60_u32 {
        let store = open(dir.path()).unwrap();
        let recovered = store.recover(&mut |_| ()).unwrap();
        assert_eq!(recovered.last_seq, script.last().seq, "kill {kill}");
        for number in 0..4 {
            let slots = (0..3).map(|n| (number * 3 + n) % 10);
            let chunks = slots.map(|slot| (slot, payload(kill, 9_000))).collect();
            let facts = vec![enqueued(u64::from(1000 * kill + number), 0)];
            store.append(script.batch(facts, chunks)).unwrap();
            store.flush().unwrap();
        }
        let killed = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), killed.path());
        drop(store);
        dir = killed;
        let head = fs::read(dir.path().join("db")).unwrap();
        given_back += u32::from(head.iter().take(20).all(|byte| *byte == 0));
    }
    assert!(given_back > 0, "the first segment was given back");
}

#[test]
fn damage_is_told() {
    let (dir, script) = filled(400);
    let mut refused_count = 0;
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        let path = copy.path().join("db");
        let mut bytes = fs::read(&path).unwrap();
        let at = random.random_range(0..bytes.len());
        match seed % 3 {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
            _ => bytes.truncate(at),
        }
        fs::write(&path, bytes).unwrap();
        match recovered(copy.path()) {
            Ok((store, count)) => {
                assert_eq!(count, 400);
                let broken = script.broken_bodies(&store);
                refused_count += usize::from(!broken.is_empty());
                assert!(
                    broken
                        .iter()
                        .all(|error| matches!(error, StoreError::Damaged { .. })),
                    "{broken:?}"
                );
            }
            Err(StoreError::Damaged { .. }) => refused_count += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused_count > 15, "{refused_count}");
}

#[cfg(target_os = "linux")]
#[test]
fn sled_comes_to_our_sync_file_range_and_each_full_segment_is_synced() {
    let (calls, syncs) = sync_file_range::counts();
    let (dir, mut script) = filled(2);
    let (store, _) = recovered(dir.path()).unwrap();
    for _ in 0..10 {
        let chunks = (0..100)
            .map(|slot| (slot, payload(slot, CHUNK_BYTES_MAX)))
            .collect();
        store.append(script.batch(vec![], chunks)).unwrap();
        store.flush().unwrap();
    }
    let (calls, syncs) = (
        sync_file_range::counts().0 - calls,
        sync_file_range::counts().1 - syncs,
    );
    // 16 MB fill seven segments; tests that run beside this one add theirs.
    assert!(syncs >= 7 && calls > syncs, "{calls} calls, {syncs} syncs");
}

#[test]
fn no_page_becomes_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script::default();
    let store = open(dir.path()).unwrap();
    store.recover(&mut |_| ()).unwrap();
    let names = watched(&"x".repeat(20 * PART_BYTES_MAX));
    for round in 0..12_u32 {
        let slots = (0..200).map(|slot| (slot * 7 + round) % 500);
        let chunks = slots.map(|slot| (slot, payload(slot, CHUNK_BYTES_MAX))).collect();
        let batch = script.batch(vec![names.clone()], chunks);
        if round > 4 {
            batch.drop = vec![Seq(u64::from(round) - 4)];
            batch.slot_count = 500 - round;
            batch.chunks.retain(|write| write.place.slot.0 < 500 - round);
        }
        store.append(batch).unwrap();
        store.flush().unwrap();
        assert_eq!(entries(&dir.path().join("blobs")), [""; 0]);
    }
    drop(store);
    drop(recovered(dir.path()).unwrap());
    assert_eq!(entries(&dir.path().join("blobs")), [""; 0]);
}

#[test]
fn a_failed_sync_poisons() {
    let (dir, mut script) = filled(1);
    let (mut store, _) = recovered(dir.path()).unwrap();
    // A pipe cannot be synced.
    let (_, pipe) = std::io::pipe().unwrap();
    store.file = std::os::fd::OwnedFd::from(pipe).into();
    store.append(script.batch(vec![watched("a")], vec![])).unwrap();
    assert!(matches!(store.flush(), Err(StoreError::Flush { .. })));
    assert!(matches!(store.flush(), Err(StoreError::Poisoned)));
    let next = script.batch(vec![watched("a")], vec![]);
    assert!(matches!(store.append(next), Err(StoreError::Poisoned)));
    let place = script.first().chunks[0].place;
    assert_eq!(store.body(place).unwrap().len(), 3_000);
    assert_eq!(durable::read(dir.path(), UUID).unwrap(), Some(Seq(1)));
}

#[test]
fn bodies_are_read_while_batches_are_written() {
    let (dir, mut script) = filled(1);
    let (store, _) = recovered(dir.path()).unwrap();
    let (kept, bytes) = (
        script.first().chunks[0].place,
        script.first().chunks[0].payload.clone(),
    );
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(store.body(kept).unwrap(), bytes);
                }
            });
        }
        for number in 0..200 {
            let chunks = (0..4)
                .map(|slot| (20 + (slot + number) % 90, payload(number, 9_000)))
                .collect();
            store.append(script.batch(vec![watched("a")], chunks)).unwrap();
            store.flush().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn what_the_engine_says_is_told_as_the_system_told_it() {
    let first = std::io::Error::from_raw_os_error(28);
    let copy = std::io::Error::new(first.kind(), format!("{first:?}"));
    assert_eq!(io_error(::sled::Error::Io(copy)).to_string(), first.to_string());
    let other = std::io::Error::other("Os { code: none");
    assert_eq!(io_error(::sled::Error::Io(other)).to_string(), "Os { code: none");
    let error = io_error(::sled::Error::Corruption { at: None, bt: () });
    assert_eq!(error.to_string(), "the engine finds damage in its file");
}

/// A page that was written to a wrong place may hold the head of a chunk, which reaches over what lies behind that page.
#[test]
fn a_head_out_of_place_hides_nothing_and_what_a_body_holds_is_not_taken() {
    let sealed = |number: u64, payload: &[u8]| {
        let mut value = Vec::new();
        frame::seal(&mut value, Kind::Body, 0, number, payload);
        value
    };
    let (planted, behind) = (sealed(999, b"planted"), sealed(998, b"behind"));
    let body = [&payload(7, 1_000)[..], &planted, &payload(8, 1_000)].concat();
    let (dir, mut script) = filled(0);
    let store = open(dir.path()).unwrap();
    store.recover(&mut |_| ()).unwrap();
    store
        .append(script.batch(vec![enqueued(1, 0)], vec![(0, body.clone().into())]))
        .unwrap();
    store.flush().unwrap();
    drop(store);
    let stored = sealed(script.last().chunks[0].place.chunk.0, &body);
    let unknown = sealed(997, &body);
    let path = dir.path().join("db");
    let before = fs::read(&path).unwrap();
    // What is found of 997, 998 and 999 behind all segments, where nothing says what it is.
    let found = |tail: &[&[u8]]| {
        let mut bytes = before.clone();
        bytes.resize(bytes.len().next_multiple_of(SEGMENT_BYTES), 0);
        // In the place of a segment's head, and behind all.
        bytes.extend([0; 64]);
        bytes.extend(tail.concat());
        bytes.extend([0; 5_000]);
        fs::write(&path, bytes).unwrap();
        let salvage = Salvage::read(dir.path()).unwrap();
        [997, 998, 999].map(|number| {
            let place = ChunkRef {
                slot: SlotNo(0),
                chunk: crate::base::ChunkNo(number),
            };
            salvage.body(place).is_ok()
        })
    };
    let damaged = |value: &[u8]| {
        let mut value = value.to_vec();
        value[100] ^= 1;
        value
    };
    assert_eq!(found(&[&stored[..500], b"key", &behind]), [false, true, false]);
    assert_eq!(
        found(&[&unknown[..500], b"key", &behind, &unknown]),
        [true, true, false]
    );
    // Damaged where it is, it holds what its sender liked.
    assert_eq!(found(&[&damaged(&stored), &behind]), [false, true, false]);
    // It cannot be told which of both it is.
    assert_eq!(found(&[&unknown[..500], b"key", &behind]), [false; 3]);
    assert_eq!(found(&[&damaged(&unknown), &behind]), [false, true, false]);
}
