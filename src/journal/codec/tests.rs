use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::base::SETTINGS;

fn chunk(slot: u32, chunk: u64) -> ChunkRef {
    ChunkRef {
        slot: SlotNo(slot),
        chunk: ChunkNo(chunk),
    }
}

fn enqueued(items: Vec<Item>) -> Enqueued {
    let base = Epoch(3).first_id();
    Enqueued {
        queue: "orders".into(),
        first_sequence: base + 1_000,
        first_message: MessageId(base + 1_234),
        accepted_at_ms: 1_800_000_000_000,
        place: Place::Chunk {
            chunk: chunk(7, base + 1_200),
            offset: 300,
        },
        items,
        deliveries: 0,
        failures: 0,
        fields: Vec::new(),
    }
}

fn ids<'a>(list: impl IntoIterator<Item = (u64, &'a [u8])>) -> IdList {
    let mut ids = IdList::default();
    list.into_iter().for_each(|(at_ms, id)| ids.push(at_ms, id));
    ids
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes on disk. A change here is a new format version and a step under `migrations/`.
#[test]
fn golden_bytes() {
    fn check(facts: &[Fact], expect: &str) {
        let bytes = encode_facts(facts);
        assert_eq!(hex(&bytes), expect.replace(' ', ""));
        assert_eq!(decode_facts(&bytes).unwrap(), facts);
    }
    let name = "0a 07 00 6f7264657273";
    let message = "fd d204000000030000";
    let accepted = "fd 00505c18a3010000";
    check(&[], "");
    check(
        &[Fact::Enqueued(enqueued(vec![
            Item {
                header_len: 90,
                len: 1_114,
            },
            Item {
                header_len: 250,
                len: 70_000,
            },
        ]))],
        &format!(
            "{name} 02 2a 00 {message} fbd301 {accepted} 00 00 00 07 43 fb2c01 02 5a fb5a04 fa fc70110100 00"
        ),
    );
    check(
        &[Fact::Enqueued(Enqueued {
            place: Place::Extent([chunk(5, 6), chunk(6, 7), chunk(2, 8)].into()),
            first_message: MessageId(4),
            first_sequence: 4,
            accepted_at_ms: 0,
            deliveries: 2,
            failures: 1,
            fields: vec![(1, Bytes::from_static(b"in")), (9, Bytes::new())],
            ..enqueued(vec![Item {
                header_len: 0,
                len: 9,
            }])
        })],
        &format!("{name} 02 18 00 04 00 00 02 01 01 03 0a 04 02 02 07 02 01 00 09 02 01 02 696e 09 00"),
    );
    check(
        &[
            Fact::Settled {
                queue: "orders".into(),
                ranges: vec![(10, 10), (12, 300)],
            },
            Fact::Counted {
                queue: "a".into(),
                ranges: vec![(0, u64::MAX)],
                deliveries: Some(2),
                failures: 1,
            },
            Fact::Counted {
                queue: "orders".into(),
                ranges: vec![(1, 1)],
                deliveries: None,
                failures: 3,
            },
            Fact::Watched {
                queue: "a".into(),
                epoch: Epoch(3),
            },
            Fact::Paused {
                queue: "a".into(),
                paused: true,
            },
            Fact::Paused {
                queue: "orders".into(),
                paused: false,
            },
            Fact::Seen {
                queue: "a".into(),
                ids: ids([(1_000, &b"x"[..]), (1_003, b"yz"), (1_001, b"x")]),
            },
            Fact::Seen {
                queue: "orders".into(),
                ids: IdList::default(),
            },
        ],
        &format!(
            "{name} 03 08 00 02 0a 00 02 fb2001 0a 02 00 61 04 0e 01 03 01 01 00 fd ffffffffffffffff \
             04 06 00 00 03 01 01 00 05 02 01 03 0b 02 01 01 0b 02 00 00 \
             08 0e 01 03 fbd007 01 78 06 02 797a 03 01 78 08 02 00 00"
        ),
    );
}

#[test]
fn a_run_of_sixteen_messages_costs_under_eight_bytes_each() {
    let run = enqueued(vec![
        Item {
            header_len: 90,
            len: 1_114
        };
        16
    ]);
    let bytes = encode_facts(&[Fact::Enqueued(run)]);
    assert!(bytes.len() < 16 * 8, "{} bytes", bytes.len());
}

#[test]
fn nothing_is_too_large() {
    let long: QueueName = "q".repeat(10 * 1024).into();
    let facts = vec![
        Fact::Enqueued(Enqueued {
            queue: long.clone(),
            place: Place::Extent((0..4_113).map(|n| chunk(n * 7 % 5_000, u64::from(n))).collect()),
            fields: vec![(1, Bytes::from("o".repeat(10 * 1024)))],
            ..enqueued(vec![Item {
                header_len: 1,
                len: 64 << 20,
            }])
        }),
        Fact::Settled {
            queue: long,
            ranges: (0..10_000).map(|n| (n * 3, n * 3 + 1)).collect(),
        },
    ];
    assert_eq!(decode_facts(&encode_facts(&facts)).unwrap(), facts);
}

#[test]
fn an_unknown_mandatory_kind_is_named_and_an_optional_one_skipped() {
    for tag in [0, 6, 7, 9, 14, 127] {
        assert_eq!(decode_facts(&[tag, 0]), Err(DecodeError::UnknownKind { tag }));
    }
    // A queue with a property that we do not know.
    let unknown = [10, 2, 0, b'a', 1, 4, 0, 1, 9, 0];
    assert_eq!(decode_facts(&unknown), Err(DecodeError::UnknownKind { tag: 1 }));
    let known = Fact::Watched {
        queue: "a".into(),
        epoch: Epoch(1),
    };
    let mut bytes = vec![0x80, 2, 1, 2, 0xff, 0];
    bytes.extend(encode_facts(std::slice::from_ref(&known)));
    bytes.extend([0x85, 1, 0]);
    assert_eq!(decode_facts(&bytes).unwrap(), [known]);
}

#[test]
fn broken_bytes_are_named_by_their_fact() {
    let name = [10, 2, 0, b'a'];
    let check = |tail: &[u8], index: usize| {
        let bytes = [&name[..], tail].concat();
        assert_eq!(
            decode_facts(&bytes),
            Err(DecodeError::Malformed { index }),
            "{tail:?}"
        );
    };
    check(&[5], 1); // no length
    check(&[5, 3, 0, 1], 1); // shorter than its length
    check(&[5, 3, 0, 1, 0], 1); // longer than the fact
    check(&[5, 2, 1, 1], 1); // no such name
    check(&[11, 2, 0, 2], 1); // neither paused nor not
    check(&[10, 2, 1, b'b'], 1); // a virtual host
    check(&[8, 4, 0, 1, 0, 0], 1); // an id that is empty
    check(&[8, 5, 0, 1, 0, 2, b'x'], 1); // shorter than its length
    check(&[8, 3, 0, 250, 1], 1); // more ids than bytes
    let long = [&[8, 251, 239, 3, 0, 1, 0, 251, 233, 3][..], &[b'x'; 1_001]].concat();
    check(&long, 1); // an id over its bound
    check(&[10, 2, 0, 0xff], 1); // not UTF-8
    check(&[3, 6, 0, 2, 5, 0, 1, 0], 1); // touching ranges
    check(&[3, 3, 0, 250, 1], 1); // more ranges than bytes
    check(
        &[
            5, 2, 0, 1, 3, 11, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255, 1,
        ],
        2,
    ); // a count of 2^64 - 1
    assert_eq!(decode_facts(&[0; 100]), Err(DecodeError::UnknownKind { tag: 0 }));
}

#[test]
#[should_panic(expected = "ranges ascend")]
fn a_range_out_of_order_does_not_reach_the_disk() {
    encode_facts(&[Fact::Settled {
        queue: "a".into(),
        ranges: vec![(5, 6), (7, 8)],
    }]);
}

fn arb_name() -> impl Strategy<Value = QueueName> {
    prop_oneof![Just("a".to_owned()), Just("orders".to_owned()), ".{0,12}"].prop_map(Into::into)
}

fn arb_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u32>().prop_map(u64::from), any::<u64>()]
}

fn arb_chunk() -> impl Strategy<Value = ChunkRef> {
    (any::<u32>(), arb_number()).prop_map(|(slot, number)| chunk(slot, number))
}

fn arb_ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((2..1_000_u64, 0..1_000_u64), 0..20).prop_map(|steps| {
        let mut last = 0;
        steps
            .into_iter()
            .map(|(gap, len)| {
                let first = last + gap;
                last = first + len;
                (first, last)
            })
            .collect()
    })
}

fn arb_item() -> impl Strategy<Value = Item> {
    (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Item {
        header_len: a.min(b),
        len: a.max(b),
    })
}

fn arb_place() -> impl Strategy<Value = (Place, Vec<Item>)> {
    prop_oneof![
        (arb_chunk(), any::<u32>(), vec(arb_item(), 1..40))
            .prop_map(|(chunk, offset, items)| (Place::Chunk { chunk, offset }, items)),
        (vec(arb_chunk(), 1..40), arb_item())
            .prop_map(|(chunks, item)| (Place::Extent(chunks.into()), vec![item])),
    ]
}

prop_compose! {
    fn arb_enqueued()(
        queue in arb_name(),
        first_sequence in arb_number(),
        first_message in arb_number(),
        accepted_at_ms in arb_number(),
        (place, items) in arb_place(),
        deliveries in any::<u32>(),
        failures in any::<u32>(),
        fields in proptest::collection::btree_map(any::<u8>(), vec(any::<u8>(), 0..20), 0..4),
    ) -> Fact {
        let room = u64::MAX - 100;
        Fact::Enqueued(Enqueued {
            queue,
            first_sequence: first_sequence.min(room),
            first_message: MessageId(first_message.min(room)),
            accepted_at_ms,
            place,
            items,
            deliveries,
            failures,
            fields: fields.into_iter().map(|(tag, bytes)| (tag, bytes.into())).collect(),
        })
    }
}

fn arb_settings() -> impl Strategy<Value = Settings> {
    let one = (any::<prop::sample::Index>(), arb_number(), "[a-z*.]{0,5}");
    vec(one, 0..4).prop_map(|list| {
        let mut settings = Settings::default();
        for (index, number, name) in list {
            let key = index.get(SETTINGS);
            let value = match key.form {
                SettingForm::Number(min, max) => Setting::Number(number.clamp(min, max)),
                SettingForm::Flag => Setting::Flag(number % 2 == 1),
                SettingForm::QueueName => Setting::Text(name.into()),
                SettingForm::Choice(choices) => {
                    let at = usize::try_from(number % choices.len() as u64).unwrap();
                    Setting::Text(choices[at].into())
                }
            };
            assert!(settings.state(key, value));
        }
        settings
    })
}

fn arb_fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        arb_enqueued(),
        (arb_name(), arb_ranges()).prop_map(|(queue, ranges)| Fact::Settled { queue, ranges }),
        (arb_name(), arb_ranges(), any::<Option<u32>>(), any::<u32>()).prop_map(
            |(queue, ranges, deliveries, failures)| Fact::Counted {
                queue,
                ranges,
                deliveries,
                failures
            }
        ),
        (arb_name(), arb_ranges(), any::<u64>()).prop_map(|(queue, ranges, due_at_ms)| Fact::Delayed {
            queue,
            ranges,
            due_at_ms
        }),
        (arb_name(), any::<u32>()).prop_map(|(queue, epoch)| Fact::Watched {
            queue,
            epoch: Epoch(epoch)
        }),
        (arb_name(), any::<bool>()).prop_map(|(queue, paused)| Fact::Paused { queue, paused }),
        (
            arb_name(),
            proptest::option::of("[a-z.]{1,9}"),
            proptest::option::of("[a-z =]{1,9}"),
            arb_settings()
        )
            .prop_map(|(queue, topic, selector, settings)| {
                Fact::Declared {
                    queue,
                    topic: topic.map(Into::into),
                    selector: selector.map(Into::into),
                    settings,
                }
            }),
        ("[a-z.]{1,9}", proptest::option::of(arb_settings())).prop_map(|(pattern, settings)| Fact::Policy {
            pattern: pattern.into(),
            settings,
        }),
        (arb_name(), vec((arb_number(), vec(any::<u8>(), 1..50)), 0..20)).prop_map(|(queue, list)| {
            let ids = ids(list.iter().map(|(at_ms, id)| (*at_ms, &id[..])));
            Fact::Seen { queue, ids }
        }),
    ]
}

proptest! {
    #[test]
    fn decode_of_encode_is_the_same(facts in vec(arb_fact(), 0..12)) {
        prop_assert_eq!(decode_facts(&encode_facts(&facts)).unwrap(), facts);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(facts) = decode_facts(&bytes) {
            prop_assert_eq!(decode_facts(&encode_facts(&facts)).unwrap(), facts);
        }
    }

    #[test]
    fn what_decodes_from_broken_bytes_encodes_again(
        facts in vec(arb_fact(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode_facts(&facts);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(facts) = decode_facts(&bytes) {
            prop_assert_eq!(decode_facts(&encode_facts(&facts)).unwrap(), facts);
        }
    }

    #[test]
    fn a_cut_run_of_bytes_gives_whole_facts_or_none(facts in vec(arb_fact(), 1..6), at in any::<prop::sample::Index>()) {
        let bytes = encode_facts(&facts);
        let at = at.index(bytes.len());
        if let Ok(some) = decode_facts(&bytes[..at]) {
            prop_assert_eq!(&facts[..some.len()], &some[..]);
        }
    }
}
