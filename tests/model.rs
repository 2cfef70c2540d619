//! The broker against a model written from the promise: naive, slow, and with its own idea of what is legal.
//!
//! Where the promise leaves a choice (which subscription gets a message, what of the undurable survives a crash) the model
//! accepts every legal outcome and follows the broker. `World` plays an operation against both; `check_all` compares.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "model/compaction.rs"]
mod compaction;
#[path = "model/state.rs"]
mod state;
mod support;
#[path = "model/world.rs"]
mod world;

use proptest::prelude::*;
use steadfast::base::Limits;
use steadfast::port::{AckMode, Credit};

use world::{Ask, Deed, Op, Pick, Style, Which, World};

const SLOTS: u8 = 3;

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        60 => (0..8u8).prop_map(Pick::Right),
        2 => (0..64u8).prop_map(Pick::Any),
        1 => Just(Pick::Wrong),
    ]
}

fn destination() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("/queue/a"),
        2 => Just("/queue/b"),
        1 => Just("/queue/DLQ.a"),
        1 => Just("/topic/t"),
    ]
}

fn credit() -> impl Strategy<Value = Credit> {
    prop_oneof![
        2 => (1..4_u32).prop_map(Credit::count),
        1 => Just(Credit::count(1000)),
        1 => (0..3_u32, 1..5_000_u64).prop_map(|(count, bytes)| Credit::Window { count, bytes }),
        1 => Just(Credit::Pull),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let size = prop_oneof![
        6 => Just(0_usize),
        6 => 1..200_usize,
        2 => 2_000..9_000_usize,
        1 => 16_000..17_000_usize,
        1 => 60_000..90_000_usize,
    ];
    let mode = prop_oneof![
        Just(AckMode::Auto),
        Just(AckMode::Client),
        Just(AckMode::ClientIndividual)
    ];
    let transaction = || prop::option::weighted(0.35, pick());
    prop_oneof![
        8 => (destination(), size, prop::bool::weighted(0.75), transaction(), any::<bool>()).prop_map(
            |(destination, size, persistent, tx, shared)| Ask::Send { destination, size, persistent, tx, shared }
        ),
        3 => (destination(), mode, credit()).prop_map(
            |(destination, ack_mode, credit)| Ask::Subscribe { destination, ack_mode, credit }
        ),
        3 => (pick(), prop_oneof![4 => 1..4_u32, 1 => Just(999_999)]).prop_map(|(sub, count)| Ask::More(sub, count)),
        1 => pick().prop_map(Ask::Unsubscribe),
        8 => (pick(), prop::bool::weighted(0.7), transaction()).prop_map(
            |(delivery, accepted, tx)| Ask::Settle { delivery, accepted, tx }
        ),
        3 => Just(Ask::Begin),
        3 => pick().prop_map(Ask::Commit),
        2 => pick().prop_map(Ask::Abort),
        1 => prop::bool::weighted(0.2).prop_map(|really| if really { Ask::Disconnect } else { Ask::Begin }),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let queue = || prop_oneof![4 => Just("a"), 2 => Just("b"), 2 => Just("DLQ.a")];
    let which = || {
        prop_oneof![
            2 => Just(Which::All),
            1 => any::<u8>().prop_map(Which::From),
            2 => any::<u8>().prop_map(Which::Some),
        ]
    };
    prop_oneof![
        4 => (queue(), which()).prop_map(|(queue, which)| Deed::Purge(queue, which)),
        4 => (queue(), queue(), which()).prop_map(|(from, to, which)| Deed::Move(from, to, which)),
        3 => (queue(), queue(), which()).prop_map(|(from, to, which)| Deed::Copy(from, to, which)),
        3 => (queue(), which()).prop_map(|(queue, which)| Deed::Requeue(queue, which)),
        1 => (queue(), any::<bool>()).prop_map(|(queue, force)| Deed::Delete(queue, force)),
        1 => (0..SLOTS).prop_map(Deed::Disconnect),
        1 => queue().prop_map(Deed::Pause),
        2 => queue().prop_map(Deed::Resume),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    prop_oneof![
        24 => (slot(), prop::collection::vec(ask(), 1..5)).prop_map(|(slot, asks)| Op::Requests(slot, asks)),
        6 => Just(Op::Append),
        6 => Just(Op::Sync),
        3 => (1..4_usize).prop_map(Op::Flush),
        1 => (slot(), any::<bool>()).prop_map(|(slot, on)| Op::Stall(slot, on)),
        1 => (slot(), any::<bool>()).prop_map(|(slot, on)| Op::Slow(slot, on)),
        2 => slot().prop_map(Op::Close),
        3 => Just(Op::Tick),
        2 => Just(Op::Relocate),
        1 => (0..4_usize).prop_map(Op::Crash),
        1 => Just(Op::Restart),
        1 => prop::bool::weighted(0.7).prop_map(Op::Room),
        4 => deed().prop_map(Op::Act),
        8 => Just(Op::Backup),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..4_u32,
        prop_oneof![Just(600_usize), Just(20_000), Just(2 << 20)],
        prop_oneof![Just(0_u64), Just(2_000), Just(16 << 20)],
        prop_oneof![Just(7_000_usize), Just(8 << 20)],
        prop_oneof![Just(2_usize), Just(100_000)],
    )
        .prop_map(
            |(failures, commit_bytes_max, garbage, prefetch_bytes_max, admin_act_count_max)| Limits {
                admin_act_count_max,
                deliveries_failed_max: failures,
                commit_bytes_max,
                compaction_garbage_bytes_min: garbage,
                compaction_chunk_count_slack: garbage / 500,
                compaction_waste_bytes_min: garbage * 4,
                prefetch_bytes_max,
                ..Limits::default()
            },
        )
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Tag), Just(Style::Message), Just(Style::MessageAlone)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 2, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, the broker does what the model calls legal.
    #[test]
    fn broker_keeps_the_promise(
        limits in limits(),
        styles in prop::array::uniform3(style()),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut world = World::new(limits, &styles);
        for op in &ops {
            world.play(op);
        }
        world.play(&Op::Room(true));
        world.play(&Op::Sync);
        world.play(&Op::Crash(0));
        world.drain();
    }
}

/// Many small messages that share body chunks, settled out of order, with clients that read slowly: what moves bodies
/// and uses slots again.
fn churn() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let send = (200..400_usize).prop_map(|size| Ask::Send {
        destination: "/queue/a",
        size,
        persistent: true,
        tx: None,
        shared: false,
    });
    let settle = (pick(), prop::bool::weighted(0.8)).prop_map(|(delivery, accepted)| Ask::Settle {
        delivery,
        accepted,
        tx: None,
    });
    let subscribe = (2..9_u32).prop_map(|prefetch| Ask::Subscribe {
        destination: "/queue/a",
        ack_mode: AckMode::ClientIndividual,
        credit: Credit::count(prefetch),
    });
    prop_oneof![
        6 => (slot(), prop::collection::vec(send, 1..6)).prop_map(|(slot, asks)| Op::Requests(slot, asks)),
        6 => (slot(), prop::collection::vec(settle, 1..6)).prop_map(|(slot, asks)| Op::Requests(slot, asks)),
        2 => (slot(), subscribe).prop_map(|(slot, ask)| Op::Requests(slot, vec![ask])),
        6 => Just(Op::Sync),
        2 => Just(Op::Append),
        2 => (1..3_usize).prop_map(Op::Flush),
        6 => Just(Op::Tick),
        2 => Just(Op::Relocate),
        1 => (slot(), any::<bool>()).prop_map(|(slot, on)| Op::Slow(slot, on)),
        1 => slot().prop_map(Op::Close),
        1 => (0..3_usize).prop_map(Op::Crash),
        1 => any::<u8>().prop_map(|pattern| Op::Act(Deed::Purge("a", Which::Some(pattern)))),
        1 => Just(Op::Act(Deed::Copy("a", "b", Which::All))),
        1 => Just(Op::Act(Deed::Purge("b", Which::All))),
        10 => Just(Op::Backup),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases, ..ProptestConfig::default() })]

    /// Bytes are right wherever they are moved, and a slot is not used again before what was in it is gone for good.
    #[test]
    fn bodies_survive_their_slots(
        commit_bytes_max in prop_oneof![Just(600_usize), Just(2 << 20)],
        garbage in prop_oneof![Just(0_u64), Just(100_000)],
        ops in prop::collection::vec(churn(), 20..120),
    ) {
        let limits = Limits {
            deliveries_failed_max: 3,
            commit_bytes_max,
            compaction_garbage_bytes_min: garbage,
            compaction_chunk_count_slack: garbage / 1000,
            compaction_waste_bytes_min: 0,
            ..Limits::default()
        };
        let mut world = World::new(limits, &[Style::Tag, Style::Tag, Style::Tag]);
        for op in &ops {
            world.play(op);
        }
        world.play(&Op::Sync);
        world.play(&Op::Crash(0));
        world.drain();
    }
}

/// Two subscriptions with credit get the same number of messages, give or take one.
#[test]
fn subscriptions_are_served_in_turn() {
    for count in [2_u8, 3] {
        let mut world = World::new(Limits::default(), &[Style::Tag, Style::Tag, Style::Tag]);
        let subscribe = Ask::Subscribe {
            destination: "/queue/a",
            ack_mode: AckMode::ClientIndividual,
            credit: Credit::count(1000),
        };
        for slot in 0..count {
            world.play(&Op::Requests(slot, vec![subscribe.clone()]));
        }
        world.play(&Op::Sync);
        for _ in 0..50 {
            let send = Ask::Send {
                destination: "/queue/a",
                size: 10,
                persistent: true,
                tx: None,
                shared: false,
            };
            world.play(&Op::Requests(0, vec![send.clone(), send.clone(), send]));
            world.play(&Op::Sync);
            let held: Vec<usize> = (0..count).map(|slot| world.held_count(slot)).collect();
            let (most, least) = (held.iter().max().unwrap(), held.iter().min().unwrap());
            assert!(most - least <= 1, "served in turn: {held:?}");
        }
        assert_eq!((0..count).map(|slot| world.held_count(slot)).sum::<usize>(), 150);
    }
}

/// A COMMIT that moves more bytes than a commit should hold (a transient message becomes a dead letter in it) is still
/// whole or absent, wherever the power goes.
#[test]
fn a_large_commit_is_whole() {
    for kept in 0..8 {
        let limits = Limits {
            deliveries_failed_max: 1,
            commit_bytes_max: 600,
            ..Limits::default()
        };
        let mut world = World::new(limits, &[Style::Tag]);
        let send = |destination, persistent, tx| Ask::Send {
            destination,
            size: 5_000,
            persistent,
            tx,
            shared: false,
        };
        let settle = |at, accepted| Ask::Settle {
            delivery: Pick::Right(at),
            accepted,
            tx: Some(Pick::Right(0)),
        };
        let subscribe = Ask::Subscribe {
            destination: "/queue/a",
            ack_mode: AckMode::ClientIndividual,
            credit: Credit::count(1000),
        };
        let persistent = [send("/queue/a", true, None), send("/queue/a", true, None)];
        let transient = [send("/queue/a", false, None), send("/queue/a", false, None)];
        world.play(&Op::Requests(0, vec![subscribe]));
        world.play(&Op::Requests(0, persistent.to_vec()));
        world.play(&Op::Requests(0, transient.to_vec()));
        world.play(&Op::Sync);
        assert_eq!(world.held_count(0), 4);
        world.play(&Op::Requests(
            0,
            vec![Ask::Begin, send("/queue/b", true, Some(Pick::Right(0)))],
        ));
        for (at, accepted) in [(3, true), (1, false), (0, false), (0, false)] {
            world.play(&Op::Requests(0, vec![settle(at, accepted)]));
        }
        world.play(&Op::Requests(
            0,
            vec![send("/queue/b", true, Some(Pick::Right(0)))],
        ));
        world.play(&Op::Requests(0, vec![Ask::Commit(Pick::Right(0))]));
        world.play(&Op::Append);
        world.play(&Op::Crash(kept));
        world.drain();
    }
}

/// Sequences that once led astray, kept for good.
mod found {
    use super::*;

    fn eager() -> Limits {
        Limits {
            deliveries_failed_max: 1,
            compaction_garbage_bytes_min: 0,
            compaction_chunk_count_slack: 0,
            compaction_waste_bytes_min: 0,
            ..Limits::default()
        }
    }

    fn send(destination: &'static str, size: usize) -> Ask {
        Ask::Send {
            destination,
            size,
            persistent: true,
            tx: None,
            shared: false,
        }
    }

    fn transient(destination: &'static str) -> Ask {
        Ask::Send {
            destination,
            size: 0,
            persistent: false,
            tx: None,
            shared: false,
        }
    }

    fn staged(destination: &'static str) -> Ask {
        Ask::Send {
            destination,
            size: 0,
            persistent: true,
            tx: Some(Pick::Right(0)),
            shared: false,
        }
    }

    fn subscribe(destination: &'static str, ack_mode: AckMode, prefetch: u32) -> Ask {
        Ask::Subscribe {
            destination,
            ack_mode,
            credit: Credit::count(prefetch),
        }
    }

    fn settle(at: u8, accepted: bool) -> Ask {
        Ask::Settle {
            delivery: Pick::Right(at),
            accepted,
            tx: None,
        }
    }

    fn check(limits: Limits, styles: [Style; 3], ops: &[Op]) {
        let mut world = World::new(limits, &styles);
        for op in ops {
            world.play(op);
        }
        world.play(&Op::Sync);
        (0..SLOTS).for_each(|slot| world.play(&Op::Close(slot)));
        world.drain();
    }

    const TAGS: [Style; 3] = [Style::Tag, Style::Tag, Style::Tag];

    /// That an earlier delivery cannot be excluded was lost by a clean stop whose last batch also compacted.
    #[test]
    fn a_clean_stop_that_compacts_keeps_what_cannot_be_excluded() {
        check(
            eager(),
            TAGS,
            &[
                Op::Requests(0, vec![subscribe("/queue/b", AckMode::Client, 1)]),
                Op::Requests(0, vec![send("/queue/b", 0), send("/queue/b", 0)]),
                Op::Sync,
                Op::Crash(0),
                Op::Restart,
            ],
        );
    }

    /// A delivery that nobody had taken was counted by compaction, and a clean stop kept it so.
    #[test]
    fn a_delivery_never_taken_is_not_counted_by_compaction() {
        check(
            eager(),
            TAGS,
            &[
                Op::Requests(0, vec![send("/queue/a", 0)]),
                Op::Requests(1, vec![subscribe("/queue/a", AckMode::Auto, 1)]),
                Op::Stall(1, true),
                Op::Sync,
                Op::Tick,
                Op::Restart,
            ],
        );
    }

    /// A COMMIT to a new queue gave it sequences beyond the numbers handed out, so the next queue of that name began with
    /// one of them.
    #[test]
    fn a_queue_sequence_is_not_used_again_after_a_commit() {
        check(
            eager(),
            TAGS,
            &[
                Op::Requests(
                    0,
                    vec![Ask::Begin, staged("/queue/a"), Ask::Commit(Pick::Right(0))],
                ),
                Op::Requests(0, vec![subscribe("/queue/a", AckMode::Auto, 1)]),
                Op::Sync,
                Op::Close(0),
                Op::Requests(0, vec![transient("/queue/a")]),
            ],
        );
    }

    /// A late answer by message id named a delivery that the client could not know of yet.
    #[test]
    fn a_late_answer_names_what_the_client_can_know() {
        check(
            eager(),
            [Style::MessageAlone, Style::MessageAlone, Style::MessageAlone],
            &[
                Op::Requests(
                    0,
                    vec![send("/queue/b", 0), subscribe("/queue/b", AckMode::Client, 1)],
                ),
                Op::Sync,
                Op::Requests(0, vec![Ask::Unsubscribe(Pick::Right(0))]),
                Op::Stall(0, true),
                Op::Requests(0, vec![subscribe("/queue/b", AckMode::Client, 1)]),
                Op::Sync,
                Op::Requests(
                    0,
                    vec![Ask::Settle {
                        delivery: Pick::Any(0),
                        accepted: true,
                        tx: None,
                    }],
                ),
            ],
        );
    }

    /// A topic message waited for ever: it was passed over for bytes of the call that settled them.
    #[test]
    fn written_bytes_wake_every_subscription_that_waited_for_them() {
        let limits = Limits {
            prefetch_bytes_max: 7_000,
            ..eager()
        };
        check(
            limits,
            TAGS,
            &[
                Op::Requests(2, vec![send("/queue/a", 0)]),
                Op::Requests(2, vec![subscribe("/topic/t", AckMode::Auto, 1)]),
                Op::Requests(0, vec![send("/topic/t", 0)]),
                Op::Requests(0, vec![send("/topic/t", 6_979)]),
                Op::Requests(2, vec![subscribe("/queue/a", AckMode::Auto, 1)]),
                Op::Sync,
            ],
        );
    }

    /// A message was delivered from the place its bytes were moving to, before they were there.
    #[test]
    fn a_moved_body_is_delivered_once_it_is_there() {
        let four = [200, 200, 221, 200].map(|size| send("/queue/a", size));
        check(
            eager(),
            TAGS,
            &[
                Op::Requests(0, vec![subscribe("/queue/a", AckMode::ClientIndividual, 4)]),
                Op::Sync,
                Op::Requests(0, four.to_vec()),
                Op::Sync,
                Op::Requests(0, vec![settle(3, true), settle(1, true), settle(1, true)]),
                Op::Close(0),
                Op::Sync,
                Op::Tick,
                Op::Tick,
                Op::Tick,
                Op::Requests(1, vec![subscribe("/queue/a", AckMode::ClientIndividual, 2)]),
                Op::Sync,
                Op::Close(1),
                Op::Relocate,
                Op::Requests(2, vec![subscribe("/queue/a", AckMode::ClientIndividual, 2)]),
            ],
        );
    }
}
