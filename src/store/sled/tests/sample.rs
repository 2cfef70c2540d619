//! The frozen sample stores of all formats: they open for ever.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::*;
use crate::base::{ChunkNo, Epoch, MessageId, Setting, SettingKey, Settings};
use crate::journal::{ChunkWrite, Enqueued, Fact, IdList, Item, Meta, Place, field};

fn migration(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("migrations/{format:04}"))
}

/// The sample of a format, in a folder of its own, and what must be read from it.
fn unpacked(format: u32) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let packed = fs::File::open(migration(format).join("sample.tar.gz")).unwrap();
    tar::Archive::new(GzDecoder::new(packed))
        .unpack(dir.path())
        .unwrap();
    let expect = fs::read_to_string(migration(format).join("sample.txt")).unwrap();
    (dir, expect)
}

fn stated(name: &str, value: Setting) -> Settings {
    let mut settings = Settings::default();
    assert!(settings.state(SettingKey::named(name).unwrap(), value));
    settings
}

fn format_line(dir: &Path) -> String {
    fs::read_to_string(dir.join("format")).unwrap()
}

/// Everything a store holds, as text.
fn listing(dir: &Path) -> String {
    let store = SledStore::open_existing(dir).unwrap();
    shown(|visit| store.recover(visit), |place| store.body(place))
}

fn shown(
    recover: impl FnOnce(&mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError>,
    body: impl Fn(ChunkRef) -> Result<Bytes, StoreError>,
) -> String {
    let mut text = String::new();
    let mut places = Vec::new();
    let found = recover(&mut |chunk| {
        writeln!(
            text,
            "index chunk {}, {} parts, {} bytes",
            chunk.seq, chunk.size.parts, chunk.size.bytes
        )
        .unwrap();
        for fact in chunk.facts {
            match &fact {
                Fact::Enqueued(enqueued) => match &enqueued.place {
                    Place::Chunk { chunk, .. } => places.push(*chunk),
                    Place::Extent(chunks) => places.extend(chunks.iter().copied()),
                },
                Fact::Settled { .. }
                | Fact::Counted { .. }
                | Fact::Delayed { .. }
                | Fact::Watched { .. }
                | Fact::Paused { .. }
                | Fact::Declared { .. }
                | Fact::Policy { .. }
                | Fact::Seen { .. } => {}
            }
            // Long names are shown by their length.
            let line = format!("  {fact:?}").replace(&long_name(), "(16,000 x)");
            writeln!(text, "{line}").unwrap();
        }
    });
    let Recovered {
        last_seq,
        meta,
        slot_count,
        uuid,
    } = found.unwrap();
    for place in places {
        let body = body(place);
        let shown = match &body {
            Ok(body) => format!("{} bytes, CRC32C {:08x}", body.len(), crc32c::crc32c(body)),
            Err(error) => error.to_string(),
        };
        writeln!(text, "slot {} chunk {}: {shown}", place.slot, place.chunk).unwrap();
    }
    writeln!(
        text,
        "last batch {last_seq}, {meta:?}, {slot_count} slots, id {uuid:02x?}"
    )
    .unwrap();
    text
}

fn long_name() -> String {
    "x".repeat(16_000)
}

fn fill(store: &SledStore) {
    let base = Epoch(2).first_id();
    let queue: Arc<str> = "orders".into();
    let chunk = |slot: u32, number: u64| ChunkRef {
        slot: SlotNo(slot),
        chunk: ChunkNo(base + number),
    };
    let enqueued = |number: u64, place: Place, items: Vec<Item>| Enqueued {
        queue: queue.clone(),
        first_sequence: base + number,
        first_message: MessageId(base + number),
        accepted_at_ms: 1_800_000_000_000 + number,
        place,
        items,
        deliveries: 0,
        failures: 0,
        fields: Vec::new(),
    };
    let one = |place: ChunkRef, offset: u32| Place::Chunk { chunk: place, offset };
    let item = |len: u32| Item {
        header_len: len / 10,
        len,
    };
    let dead = Enqueued {
        queue: "DLQ.orders".into(),
        deliveries: 11,
        failures: 10,
        fields: vec![
            (1, Bytes::from_static(b"orders")),
            (2, Bytes::from_static(&[0, 0, 0, 10])),
            (200, Bytes::from_static(b"of a later version")),
        ],
        ..enqueued(4, one(chunk(0, 1), 300), vec![item(70)])
    };
    let extent: Arc<[ChunkRef]> = [chunk(3, 20), chunk(1, 21), chunk(5, 22)].into();
    // So late that a broker which takes the sample over finds its message as long as there are samples.
    let expires_at_ms: u64 = 32_503_680_000_000;
    let expiring = Enqueued {
        fields: vec![
            (
                field::EXPIRES_AT,
                Bytes::copy_from_slice(&expires_at_ms.to_be_bytes()),
            ),
            (field::PRIORITY, Bytes::from_static(&[9])),
            (field::GROUP, Bytes::from_static(b"a group")),
            (field::ENDS_GROUP, Bytes::new()),
        ],
        ..enqueued(24, Place::Extent(extent.clone()), vec![item(40_000)])
    };
    let counted = |deliveries, failures| Fact::Counted {
        queue: queue.clone(),
        ranges: vec![(base + 3, base + 5), (base + 9, base + 9)],
        deliveries,
        failures,
    };
    let epoch = Epoch(2);
    let settled = Fact::Settled {
        queue: queue.clone(),
        ranges: vec![(base + 3, base + 3), (base + 7, base + 8)],
    };
    let long: Arc<str> = long_name().into();
    let mut seen = IdList::default();
    seen.push(32_503_680_000_000, b"order 1");
    seen.push(32_503_680_000_007, b"order 2");
    let rounds: Vec<(Vec<Fact>, Vec<ChunkRef>, Vec<u64>)> = vec![
        (
            vec![Fact::Watched {
                queue: "gone".into(),
                epoch: Epoch(1),
            }],
            vec![],
            vec![],
        ),
        (
            vec![
                Fact::Watched {
                    queue: queue.clone(),
                    epoch,
                },
                Fact::Enqueued(enqueued(
                    2,
                    one(chunk(0, 1), 0),
                    vec![item(100), item(0), item(200)],
                )),
            ],
            vec![chunk(0, 1)],
            vec![],
        ),
        (vec![], vec![chunk(1, 6)], vec![]),
        (
            vec![
                Fact::Enqueued(enqueued(7, one(chunk(2, 10), 0), vec![item(90); 17])),
                counted(Some(2), 1),
            ],
            vec![chunk(2, 10)],
            vec![1],
        ),
        (
            vec![
                Fact::Enqueued(expiring),
                counted(None, 3),
                Fact::Enqueued(dead),
                settled,
            ],
            extent.to_vec(),
            vec![],
        ),
        (
            vec![
                Fact::Watched {
                    queue: long.clone(),
                    epoch,
                },
                Fact::Settled {
                    queue: format!("{long}y").into(),
                    ranges: vec![(1, u64::MAX)],
                },
            ],
            vec![],
            vec![],
        ),
        (vec![], vec![], vec![]),
        (
            vec![
                Fact::Paused {
                    queue: queue.clone(),
                    paused: true,
                },
                Fact::Paused {
                    queue: "DLQ.orders".into(),
                    paused: false,
                },
            ],
            vec![],
            vec![],
        ),
        (
            vec![
                Fact::Declared {
                    queue: "DSUB.shop/orders".into(),
                    topic: Some("orders.*.>".into()),
                    selector: Some("type = 'a'".into()),
                    settings: stated("message_count_max", Setting::Number(7)),
                },
                Fact::Policy {
                    pattern: "orders.#".into(),
                    settings: Some(stated("overflow", Setting::Text("drop-head".into()))),
                },
                Fact::Delayed {
                    queue: queue.clone(),
                    ranges: vec![(base + 10, base + 11)],
                    due_at_ms: 32_503_680_000_000,
                },
                Fact::Seen {
                    queue: queue.clone(),
                    ids: seen,
                },
                Fact::Policy {
                    pattern: "gone".into(),
                    settings: None,
                },
                Fact::Declared {
                    queue: queue.clone(),
                    topic: None,
                    selector: None,
                    settings: Settings::default(),
                },
            ],
            vec![],
            vec![],
        ),
    ];
    store.recover(&mut |_| ()).unwrap();
    for (seq, (facts, places, drop)) in (1..).zip(rounds) {
        let write = |place: &ChunkRef| ChunkWrite {
            place: *place,
            payload: payload(place.slot.0 + 1, 16_320 - place.slot.0 as usize * 500),
        };
        let batch = Batch {
            seq: Seq(seq),
            facts,
            chunks: places.iter().map(write).collect(),
            drop: drop.into_iter().map(Seq).collect(),
            slot_count: 6,
            meta: Meta {
                epoch,
                next_id: base + seq * 100,
                clean_epoch: Epoch(1),
            },
        };
        store.append(&batch).unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn the_samples_of_all_formats_open() {
    for format in 1..=FORMAT_VERSION {
        let (dir, expect) = unpacked(format);
        assert_eq!(listing(dir.path()), expect);
        let line = format_line(dir.path());
        assert!(
            line.contains(&format!("format {format},")),
            "to look changes nothing: {line}"
        );
    }
}

/// Also without sled, and with nothing of it but `db`.
#[test]
fn the_samples_of_all_formats_can_be_saved_from() {
    for format in 1..=FORMAT_VERSION {
        let (dir, expect) = unpacked(format);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("db") {
                fs::remove_file(path).unwrap();
            }
        }
        let salvage = Salvage::read(dir.path()).unwrap();
        assert_eq!(*salvage.loss(), Loss::default());
        assert_eq!(
            shown(|visit| salvage.recover(visit), |place| salvage.body(place)),
            expect
        );
    }
}

/// An older store says our format before anything of it is written, and keeps all that it holds.
#[test]
fn an_older_store_is_taken_over() {
    (1..FORMAT_VERSION).for_each(taken_over);
}

fn taken_over(format: u32) {
    let (dir, expect) = unpacked(format);
    let older = format_line(dir.path());
    drop(open(dir.path()).unwrap());
    assert_eq!(
        format_line(dir.path()),
        older.replace(&format!("format {format},"), &format!("format {FORMAT_VERSION},"))
    );
    assert_eq!(listing(dir.path()), expect);
    let store = open(dir.path()).unwrap();
    let found = store.recover(&mut |_| ()).unwrap();
    let paused = Fact::Paused {
        queue: "orders".into(),
        paused: true,
    };
    let batch = Batch {
        seq: Seq(found.last_seq.0 + 1),
        facts: vec![paused.clone()],
        chunks: Vec::new(),
        drop: Vec::new(),
        slot_count: found.slot_count,
        meta: found.meta,
    };
    store.append(&batch).unwrap();
    store.flush().unwrap();
    drop(store);
    let (body, _) = expect.split_once("slot 0").unwrap();
    let after = listing(dir.path());
    assert!(after.starts_with(body), "{after}");
    assert!(after.contains(&format!("{paused:?}")), "{after}");
}

/// A creation that an older version began is begun anew.
#[test]
fn an_older_creation_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("format"), "steadfast store, format 1, creating\n").unwrap();
    drop(open(dir.path()).unwrap());
    assert!(format_line(dir.path()).starts_with(&format!("steadfast store, format {FORMAT_VERSION}, ")));
}

/// What this version writes is what the sample has: a change of the format shows here.
#[test]
fn this_version_writes_what_the_sample_holds() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path()).unwrap());
    let (_, expect) = unpacked(FORMAT_VERSION);
    assert_eq!(listing(dir.path()), expect);
}

#[test]
#[ignore = "writes into the source tree: once for a format"]
fn make_the_sample() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path()).unwrap());
    fs::remove_file(dir.path().join("lock")).unwrap();
    fs::create_dir_all(migration(FORMAT_VERSION)).unwrap();
    let packed = fs::File::create(migration(FORMAT_VERSION).join("sample.tar.gz")).unwrap();
    let mut archive = tar::Builder::new(GzEncoder::new(packed, Compression::best()));
    archive.mode(tar::HeaderMode::Deterministic);
    archive.append_dir_all(".", dir.path()).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    fs::write(migration(FORMAT_VERSION).join("sample.txt"), listing(dir.path())).unwrap();
}
