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
use steadfast::port::AckMode;

use world::{Ask, Op, Pick, Style, World};

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
        3 => (destination(), mode, prop_oneof![Just(1_u32), Just(2), Just(3), Just(1000)]).prop_map(
            |(destination, ack_mode, prefetch)| Ask::Subscribe { destination, ack_mode, prefetch }
        ),
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
        2 => Just(Op::Tick),
        1 => (0..4_usize).prop_map(Op::Crash),
        1 => Just(Op::Restart),
        1 => prop::bool::weighted(0.7).prop_map(Op::Room),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..4_u32,
        prop_oneof![Just(600_usize), Just(20_000), Just(2 << 20)],
        prop_oneof![Just(0_u64), Just(2_000), Just(16 << 20)],
        prop_oneof![Just(7_000_usize), Just(8 << 20)],
    )
        .prop_map(
            |(failures, commit_bytes_max, garbage, prefetch_bytes_max)| Limits {
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

/// Two subscriptions with credit get the same number of messages, give or take one.
#[test]
fn subscriptions_are_served_in_turn() {
    for count in [2_u8, 3] {
        let mut world = World::new(Limits::default(), &[Style::Tag, Style::Tag, Style::Tag]);
        let subscribe = Ask::Subscribe {
            destination: "/queue/a",
            ack_mode: AckMode::ClientIndividual,
            prefetch: 1000,
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
