//! Expiry: never before its time, and not delivered from then on.

use super::*;

/// The moment at which what these tests send expires, and the one before.
const AT: u64 = 2_000;
const BEFORE: Now = at(AT - 1);
const DUE: Now = at(AT);

const fn at(wall_ms: u64) -> Now {
    Now {
        wall_ms,
        mono_ms: wall_ms - NOW.wall_ms,
    }
}

impl World {
    fn send_until(&mut self, kind: DestinationKind, name: &str, body: &str, persistent: bool) -> Applied {
        self.ask(|requests| {
            send(requests, name, body, persistent, None);
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                panic!("it was just added")
            };
            send.to.kind = kind;
            send.terms.expires_at_ms = Some(AT);
        })
    }

    /// Seconds pass, as the runtime has it.
    fn tick(&mut self, now: Now) {
        self.broker.handle_tick(now);
        self.commit();
    }

    /// What an operator sees: depth, and how many expired.
    fn seen(&self, queue: &str) -> (u64, u64) {
        let view = self.broker.queue_view(queue);
        view.map_or((0, 0), |view| (view.depth, view.counters.expired_count))
    }
}

#[test]
fn what_is_stored_expires_at_its_time_and_not_before() {
    for persistent in [true, false] {
        let mut world = World::new(Limits::default());
        world.send("a", "for ever", None);
        world.send_until(DestinationKind::Queue, "a", "until", persistent);
        world.commit();
        world.tick(BEFORE);
        assert_eq!(world.seen("a"), (2, 0));
        world.tick(DUE);
        assert_eq!(world.seen("a"), (1, 1));
        assert_eq!(world.broker.counters().expired_count, 1);
        world.subscribe(1, "a", AckMode::Auto, 10);
        assert_eq!(world.bodies(), ["for ever"]);
        world.restart();
        assert_eq!(world.depth("a"), 1, "its end is durable");
        assert_eq!(world.broker.holdings().transient_bytes, 0);
    }
}

/// Also where the timer has not seen it yet.
#[test]
fn nothing_is_delivered_behind_its_time() {
    let mut world = World::new(Limits::default());
    world.send_until(DestinationKind::Queue, "a", "until", true);
    world.send("a", "for ever", None);
    world.commit();
    let mut requests = Requests::default();
    subscribe(&mut requests, 1, DestinationKind::Queue, "a", (AckMode::Auto, 10));
    world.broker.handle_requests(S, &requests, DUE);
    while let Some(batch) = world.broker.poll_batch() {
        for write in batch.chunks {
            world
                .bodies
                .insert(write.place.slot.0, (write.place, write.payload));
        }
        world
            .broker
            .handle_durable(batch.seq, &[IndexSize::default()], DUE);
    }
    assert_eq!(world.bodies(), ["for ever"]);
}

#[test]
fn what_is_due_while_the_broker_is_down_is_not_delivered_after() {
    let mut world = World::new(Limits::default());
    world.send_until(DestinationKind::Queue, "a", "until", true);
    world.commit();
    world.restart();
    assert_eq!(world.depth("a"), 1, "nobody knows the time yet");
    world.tick(DUE);
    assert_eq!(world.depth("a"), 0);
    world.restart();
    assert_eq!(world.depth("a"), 0);
}

/// The answer of who holds it is accepted, and has no effect.
#[test]
fn what_is_held_expires_too() {
    for (persistent, accepted) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = World::new(Limits::default());
        world.subscribe(1, "a", AckMode::ClientIndividual, 1);
        world.send_until(DestinationKind::Queue, "a", "until", persistent);
        world.commit();
        let tag = world.deliveries()[0].0.tag;
        world.tick(DUE);
        assert_eq!(world.seen("a"), (0, 1));
        assert_eq!(world.settle(tag, accepted, None).refusal, None);
        world.commit();
        world.send("a", "next", None);
        world.commit();
        assert_eq!(world.bodies(), ["next"], "its credit is free");
        assert_eq!(world.broker.counters().dead_lettered_count, 0);
        world.broker.handle_close(S, NOW);
        world.commit();
        world.restart();
        assert_eq!(world.depth("a"), 1);
        let ledger = world.broker.ledger();
        assert_eq!(ledger.slot_count - ledger.free_slot_count, 1, "{ledger:?}");
    }
}

#[test]
fn a_topic_message_expires_in_its_backlog() {
    let mut world = World::new(Limits::default());
    let applied = world.ask(|requests| {
        subscribe(
            requests,
            1,
            DestinationKind::Topic,
            "t",
            (AckMode::ClientIndividual, 1),
        );
    });
    assert_eq!(applied.refusal, None);
    for _ in 0..2 {
        world.send_until(DestinationKind::Topic, "t", "until", true);
    }
    let tag = world.deliveries()[0].0.tag;
    world.tick(DUE);
    world.settle(tag, true, None);
    assert_eq!(
        world.deliveries().len(),
        1,
        "the clock of that call is before its time"
    );
    world.send_until(DestinationKind::Topic, "t", "until", true);
    let mut requests = Requests::default();
    requests.list.push(Request::Settle(Settle {
        why: None,
        delivery: DeliveryKey::Tag(Tag(tag.0 + 1)),
        outcome: Outcome::Accepted,
        tx: None,
    }));
    world.broker.handle_requests(S, &requests, DUE);
    assert_eq!(world.deliveries().len(), 0);
    assert_eq!(world.broker.counters().expired_count, 1);
}

/// What moves, or is copied, keeps its time; a dead letter has none.
#[test]
fn a_move_and_a_copy_keep_the_time_and_a_dead_letter_has_none() {
    let limits = Limits {
        deliveries_failed_max: 1,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.send_until(DestinationKind::Queue, "a", "1", true);
    world.send_until(DestinationKind::Queue, "a", "2", false);
    world.commit();
    let act = Act::Copy {
        from: "a".to_owned(),
        to: "c".to_owned(),
        selection: Selection::From(0),
    };
    assert_eq!(world.broker.handle_act(&act, NOW).unwrap().count, 2);
    let act = Act::Move {
        from: "a".to_owned(),
        to: "b".to_owned(),
        selection: Selection::From(0),
    };
    assert_eq!(world.broker.handle_act(&act, NOW).unwrap().count, 2);
    world.commit();
    world.subscribe(1, "b", AckMode::ClientIndividual, 1);
    let tag = world.deliveries()[0].0.tag;
    world.settle(tag, false, None);
    world.commit();
    assert_eq!((world.depth("b"), world.depth("c")), (1, 2));
    world.tick(DUE);
    assert_eq!(
        (world.depth("b"), world.depth("c"), world.depth("DLQ.b")),
        (0, 0, 1)
    );
}

/// Those that went before their time are not kept in mind for ever.
#[test]
fn what_is_settled_before_its_time_is_forgotten() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::Auto, 1_000);
    for _ in 0..20 {
        for _ in 0..1_000 {
            world.send_until(DestinationKind::Queue, "a", "until", true);
        }
        world.commit();
        let (last, _) = world.deliveries().pop().unwrap();
        world.broker.handle_written(S, last.tag, NOW);
        world.tick(BEFORE);
    }
    assert_eq!(world.broker.counters().accepted_count, 20_000);
    assert!(
        world.broker.expiring_count() <= 2_048,
        "{}",
        world.broker.expiring_count()
    );
}

/// An answer to what an earlier batch has ended is confirmed when that batch is durable, not before: a power cut would bring
/// the message back.
#[test]
fn an_answer_to_what_was_purged_waits_for_the_purge() {
    for in_transaction in [false, true] {
        let mut world = World::new(Limits::default());
        world.subscribe(1, "a", AckMode::ClientIndividual, 1);
        world.send("a", "x", None);
        world.commit();
        let tag = world.deliveries()[0].0.tag;
        let act = Act::Purge {
            queue: "a".to_owned(),
            selection: Selection::From(0),
        };
        let purged = world.broker.handle_act(&act, NOW).unwrap().gate;
        let batch = world.broker.poll_batch().unwrap();
        assert_eq!(batch.seq, purged, "on its way to the disk");
        let tx = in_transaction.then_some(TxNo(1));
        if let Some(tx) = tx {
            world.ask(|requests| requests.list.push(Request::Begin { tx }));
        }
        let mut applied = world.settle(tag, true, tx);
        if let Some(tx) = tx {
            applied = world.ask(|requests| requests.list.push(Request::Commit { tx }));
        }
        assert_eq!(
            (applied.refusal, applied.gate),
            (None, purged),
            "{in_transaction}"
        );
    }
}
