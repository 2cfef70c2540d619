//! What an operator sees and asks for.

use super::*;
use crate::journal::Fact;
use crate::port::{Act, Acted, Selection};

const ALL: Selection = Selection::From(0);
const T: SessionNo = SessionNo(2);

impl World {
    fn act(&mut self, act: Act) -> Result<Acted, Refusal> {
        let preview = self.broker.preview(&act);
        let acted = self.broker.handle_act(&act, NOW);
        let without_gate = acted.map(|acted| Acted {
            gate: Seq(0),
            ..acted
        });
        assert_eq!(preview, without_gate, "a preview says what the act will do");
        acted
    }

    fn purge(&mut self, queue: &str, selection: Selection) -> Acted {
        let queue = queue.to_owned();
        self.act(Act::Purge { queue, selection }).unwrap()
    }

    fn pass(&mut self, from: &str, to: &str, selection: Selection) -> Result<Acted, Refusal> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.act(Act::Move { from, to, selection })
    }

    fn copy(&mut self, from: &str, to: &str, selection: Selection) -> Result<Acted, Refusal> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.act(Act::Copy { from, to, selection })
    }

    fn requeue(&mut self, queue: &str) -> Result<Acted, Refusal> {
        let queue = queue.to_owned();
        self.act(Act::Requeue {
            queue,
            selection: ALL,
        })
    }

    fn delete(&mut self, queue: &str, force: bool) -> Result<Acted, Refusal> {
        let queue = queue.to_owned();
        self.act(Act::Delete { queue, force })
    }

    fn send_all<'a>(&mut self, queue: &str, bodies: impl IntoIterator<Item = &'a str>) {
        for body in bodies {
            assert_eq!(self.send(queue, body, None).refusal, None);
        }
        self.commit();
    }

    fn send_transient(&mut self, queue: &str, body: &str) {
        let applied = self.ask(|requests| send(requests, queue, body, false, None));
        assert_eq!(applied.refusal, None);
    }

    /// What stands in a queue, in order.
    fn stands(&self, queue: &str) -> Vec<String> {
        let views: Vec<_> = self.broker.entries(queue, 0).collect();
        views.iter().map(|view| self.body(&view.body, view.len)).collect()
    }

    /// The session begins anew: what it held is released.
    fn reconnect(&mut self) {
        self.broker.handle_close(S, NOW);
        self.broker.handle_open(S);
    }

    fn evicted(&mut self, session: SessionNo) -> Option<Refusal> {
        let mut events = Vec::new();
        self.broker.poll_events(session, usize::MAX, &mut events);
        match events.as_slice() {
            [Event::Evicted(refusal)] => Some(*refusal),
            _ => None,
        }
    }
}

fn without_gate(acted: Acted) -> Acted {
    Acted {
        gate: Seq(0),
        ..acted
    }
}

#[test]
fn a_purge_takes_ready_and_held_and_answers_have_no_effect() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2", "3", "4"]);
    world.subscribe(1, "a", AckMode::ClientIndividual, 3);
    let held = world.deliveries();
    world.send_transient("a", "5");
    world.send("a", "6", None);
    let acted = world.purge("a", ALL);
    let expected = Acted {
        count: 6,
        bytes: 6,
        held_count: 3,
        ..Acted::default()
    };
    assert_eq!(without_gate(acted), expected);
    assert!(acted.gate > world.last.last_seq, "it is told once durable");
    assert_eq!(world.depth("a"), 0);
    // Until then it is not done: a crash takes it back.
    world.restart();
    assert_eq!(world.stands("a"), ["1", "2", "3", "4"]);

    world.subscribe(1, "a", AckMode::ClientIndividual, 3);
    let again = world.deliveries();
    assert_eq!(again.len(), held.len());
    world.purge("a", ALL);
    world.commit();
    assert_eq!(world.settle(again[0].0.tag, true, None).refusal, None);
    assert_eq!(world.settle(again[1].0.tag, false, None).refusal, None);
    assert_eq!(
        world.settle(again[1].0.tag, false, None).refusal,
        Some(Refusal::DeliveryUnknown),
        "an answer is given once"
    );
    world.commit();
    world.reconnect();
    world.send_all("b", ["x"]);
    let view = world.broker.ledger();
    assert_eq!(view.slot_count - view.free_slot_count, 1, "no slot is lost");
    world.purge("b", ALL);
    world.commit();
    world.restart();
    assert_eq!(world.broker.queues().count(), 0);
}

#[test]
fn a_purge_of_a_choice_leaves_the_others() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2", "3", "4"]);
    world.subscribe(1, "a", AckMode::ClientIndividual, 2);
    let held = world.deliveries();
    let sequences: Vec<u64> = world.broker.entries("a", 0).map(|view| view.sequence).collect();
    let choice = vec![sequences[3], sequences[0], sequences[0], 7];
    let acted = world.purge("a", Selection::Sequences(choice));
    assert_eq!((acted.count, acted.held_count, acted.next), (2, 1, None));
    assert_eq!(world.settle(held[0].0.tag, false, None).refusal, None);
    world.commit();
    assert_eq!(world.stands("a"), ["2", "3"]);
    world.restart();
    assert_eq!(world.stands("a"), ["2", "3"]);
    let acted = world.purge("a", Selection::From(sequences[2]));
    assert_eq!(acted.count, 1);
    assert_eq!(world.stands("a"), ["2"]);
}

#[test]
fn a_purge_of_very_many_is_one_range_and_gives_room_back_in_pieces() {
    let mut world = World::new(Limits {
        compaction_garbage_bytes_min: 1_000,
        ..Limits::default()
    });
    let count = 100_000;
    for n in 0..count {
        world.send("a", &format!("{n:0100}"), None);
        if n % 1_000 == 0 {
            world.commit();
        }
    }
    world.commit();
    let before = world.broker.ledger();
    let acted = world.purge("a", ALL);
    assert_eq!(acted.count, count);
    assert_eq!(world.depth("a"), 0);
    let mut left = vec![world.broker.holdings().purging_count];
    let mut ranges = 0;
    while let Some(batch) = world.broker.poll_batch() {
        let seq = batch.seq;
        for fact in &batch.facts {
            if let Fact::Settled { ranges: of, .. } = fact {
                ranges += of.len();
            }
        }
        let parts = u16::from(!batch.facts.is_empty());
        world.chunks.retain(|chunk| !batch.drop.contains(&chunk.seq));
        let size = IndexSize { parts, bytes: 100 };
        if parts > 0 {
            let facts = batch.facts;
            world.chunks.push(IndexChunk { seq, facts, size });
        }
        world.last.last_seq = seq;
        world.last.meta = batch.meta;
        world.broker.handle_durable(seq, &[size], NOW);
        left.push(world.broker.holdings().purging_count);
        if left.len() == 3 {
            // What comes meanwhile is not touched.
            world.send("a", "new", None);
        }
    }
    assert_eq!(ranges, 1, "one range says it all");
    assert!(
        left.windows(2).all(|two| two[0] - two[1] <= 8_192 + 64),
        "{left:?}"
    );
    assert!(left.len() > 10, "{left:?}");
    assert_eq!(world.depth("a"), 1);
    for _ in 0..5 {
        world.broker.handle_tick(NOW);
        world.commit();
    }
    let after = world.broker.ledger();
    assert!(before.slot_count > 600, "{before:?}");
    assert!(after.slot_count - after.free_slot_count < 3, "{after:?}");
    assert!(after.index_part_count < 10, "the log is tended again: {after:?}");
    world.restart();
    assert_eq!(world.depth("a"), 1);
}

#[test]
fn a_stop_within_a_purge_counts_nothing_of_it() {
    let mut world = World::new(Limits::default());
    for _ in 0..20_000 {
        world.send_transient("a", "x");
    }
    world.send_transient("b", "y");
    world.purge("a", ALL);
    assert_eq!(world.broker.holdings().purging_count, 20_000 - 8_192);
    assert_eq!(world.broker.handle_stop(NOW), 1);
}

#[test]
fn a_purge_spans_terms() {
    let mut world = World::new(Limits::default());
    for body in ["1", "2", "3"] {
        world.send_all("a", [body]);
        world.restart();
    }
    assert_eq!(world.purge("a", ALL).count, 3);
    world.commit();
    world.restart();
    assert_eq!(world.depth("a"), 0);
}

#[test]
fn what_is_on_its_way_keeps_its_bytes() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let long = "x".repeat(50_000);
    world.send_all("a", ["short", &long]);
    world.purge("a", ALL);
    world.commit();
    for n in 0..50 {
        world.send_all("b", [n.to_string().repeat(5_000).as_str()]);
    }
    // Dispatched before the purge: it is still delivered, whole.
    let deliveries = world.deliveries();
    assert_eq!((deliveries[0].1.as_str(), &deliveries[1].1), ("short", &long));
    let held = |world: &World| {
        let view = world.broker.ledger();
        view.slot_count - view.free_slot_count
    };
    let before = held(&world);
    for (delivery, _) in &deliveries {
        assert_eq!(world.settle(delivery.tag, true, None).refusal, None);
    }
    world.send_all("b", ["more"]);
    assert!(held(&world) < before - 3, "its slots are free then");
    world.restart();
    assert_eq!(world.depth("a"), 0);
}

#[test]
fn a_staged_answer_to_what_was_purged_is_committed_without_effect() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    world.send_all("a", ["1", "2"]);
    let held = world.deliveries();
    let tx = TxNo(1);
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    world.settle(held[0].0.tag, true, Some(tx));
    world.settle(held[1].0.tag, false, Some(tx));
    world.send("b", "out", Some(tx));
    world.purge("a", ALL);
    let applied = world.ask(|requests| requests.list.push(Request::Commit { tx }));
    assert_eq!(applied.refusal, None);
    world.commit();
    world.restart();
    assert_eq!((world.depth("a"), world.depth("b")), (0, 1));
}

#[test]
fn a_delete_needs_force_where_there_are_subscriptions() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2", "3"]);
    world.broker.handle_open(T);
    world.subscribe(1, "a", AckMode::ClientIndividual, 2);
    assert_eq!(world.delete("a", false), Err(Refusal::QueueInUse));
    let acted = world.delete("a", true).unwrap();
    assert_eq!((acted.count, acted.held_count), (3, 2));
    assert_eq!(world.evicted(S), Some(Refusal::QueueDeleted));
    assert!(!world.broker.is_evicted(T), "who has nothing to do with it stays");
    assert_eq!(world.delete("a", true), Err(Refusal::QueueUnknown));
    world.commit();
    world.restart();
    assert_eq!(world.broker.queues().count(), 0);
    world.send_all("a", ["anew"]);
    assert_eq!(world.delete("a", false).unwrap().count, 1);
    assert_eq!(world.broker.queues().count(), 0);
}

#[test]
fn a_move_keeps_order_and_identity_and_passes_over_what_is_held() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2", "3"]);
    world.send_transient("a", "4");
    world.send_all("b", ["0"]);
    let ids: Vec<MessageId> = world.broker.entries("a", 0).map(|view| view.message).collect();
    world.subscribe(1, "a", AckMode::ClientIndividual, 1);
    let held = world.deliveries();
    let acted = world.pass("a", "b", ALL).unwrap();
    let expected = Acted {
        count: 3,
        bytes: 3,
        held_count: 1,
        ..Acted::default()
    };
    assert_eq!(without_gate(acted), expected);
    assert_eq!(world.stands("b"), ["0", "2", "3", "4"]);
    let moved: Vec<MessageId> = world.broker.entries("b", 0).map(|view| view.message).collect();
    assert_eq!(moved[1..], ids[1..]);
    // A crash before the gate takes all of it back.
    let mut crashed = World::new(Limits::default());
    crashed.chunks = world.chunks.clone();
    crashed.bodies = world.bodies.clone();
    crashed.last = world.last;
    crashed.restart();
    assert_eq!((crashed.depth("a"), crashed.depth("b")), (3, 1));

    assert_eq!(world.settle(held[0].0.tag, true, None).refusal, None);
    world.commit();
    assert_eq!(world.depth("a"), 0);
    world.restart();
    assert_eq!(world.stands("b"), ["0", "2", "3"]);
    world.subscribe(1, "b", AckMode::Auto, 10);
    assert_eq!(world.bodies(), ["0", "2", "3"]);
}

#[test]
fn a_moved_message_is_delivered_once_the_move_is_durable() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1"]);
    world.subscribe(1, "b", AckMode::ClientIndividual, 10);
    world.pass("a", "b", ALL).unwrap();
    assert_eq!(world.bodies(), [""; 0]);
    world.commit();
    let deliveries = world.deliveries();
    assert_eq!(
        (deliveries[0].0.delivery_count, deliveries[0].0.redelivered),
        (1, false)
    );
}

#[test]
fn an_act_looks_at_so_many_entries_and_says_where_to_go_on() {
    let mut world = World::new(Limits {
        admin_act_count_max: 3,
        ..Limits::default()
    });
    world.send_all("a", ["1", "2", "3"]);
    assert_eq!(world.copy("a", "b", ALL).unwrap().next, None, "at the bound");
    world.send_all("a", ["4", "5"]);
    let first = world.copy("a", "c", ALL).unwrap();
    assert_eq!(first.count, 3);
    let next = first.next.expect("one over");
    let last = world.copy("a", "c", Selection::From(next)).unwrap();
    assert_eq!((last.count, last.next), (2, None));
    assert_eq!(world.stands("c"), ["1", "2", "3", "4", "5"]);
    let sequences: Vec<u64> = world.broker.entries("a", 0).map(|view| view.sequence).collect();
    let listed = world.purge("a", Selection::Sequences(sequences.clone()));
    assert_eq!((listed.count, listed.next), (3, Some(sequences[3])));
    let moved = world.pass("a", "c", ALL).unwrap();
    assert_eq!((moved.count, moved.next), (2, None));
    assert_eq!(world.purge("c", ALL).count, 7, "a purge of all has no bound");
}

#[test]
fn a_copy_is_a_message_of_its_own_that_shares_the_bytes() {
    let mut world = World::new(Limits {
        memory_bytes_max: 1_000,
        ..Limits::default()
    });
    let long = "x".repeat(50_000);
    world.send_all("a", ["1", &long]);
    let before = world.broker.ledger().slot_count;
    let acted = world.copy("a", "b", ALL).unwrap();
    assert_eq!((acted.count, acted.bytes), (2, 50_001));
    world.commit();
    assert!(world.broker.ledger().slot_count <= before, "no second body");
    let ids = |world: &World, queue: &str| -> Vec<MessageId> {
        world.broker.entries(queue, 0).map(|view| view.message).collect()
    };
    assert!(ids(&world, "a").iter().all(|id| !ids(&world, "b").contains(id)));
    world.purge("a", ALL);
    world.commit();
    for n in 0..20 {
        world.send_all("c", [n.to_string().repeat(10_000).as_str()]);
    }
    world.restart();
    assert_eq!(
        (world.stands("a"), world.stands("b")),
        (vec![], vec!["1".to_owned(), long])
    );

    world.send_transient("t", &"y".repeat(500));
    assert_eq!(world.copy("t", "u", ALL).unwrap().count, 1, "at the bound");
    assert_eq!(world.copy("t", "v", ALL), Err(Refusal::MemoryFull));
    assert_eq!(world.broker.holdings().transient_bytes, 1_000);
    assert_eq!(
        world.broker.holdings().queue_count,
        4,
        "what was refused left no trace"
    );
    world.purge("u", ALL);
    assert_eq!(world.broker.holdings().transient_bytes, 500);
}

#[test]
fn dead_letters_go_back_to_where_they_came_from() {
    let mut world = World::new(Limits {
        deliveries_failed_max: 1,
        ..Limits::default()
    });
    for (sub, queue) in [(1, "a"), (2, "b")] {
        world.send_all(queue, [queue, "poison"]);
        world.subscribe(sub, queue, AckMode::ClientIndividual, 10);
    }
    for (delivery, _) in world.deliveries() {
        world.settle(delivery.tag, false, None);
    }
    world.commit();
    world.pass("DLQ.b", "DLQ.a", ALL).unwrap();
    world.send_all("DLQ.a", ["nowhere"]);
    world.reconnect();
    world.restart();
    let origins: Vec<_> = world.broker.entries("DLQ.a", 0).map(|view| view.origin).collect();
    let of = |name: &str| Some(name.to_owned());
    assert_eq!(origins, [of("a"), of("a"), of("b"), of("b"), None]);
    world.subscribe(1, "DLQ.a", AckMode::ClientIndividual, 1);
    assert_eq!(world.deliveries().len(), 1);
    let acted = world.requeue("DLQ.a").unwrap();
    assert_eq!((acted.count, acted.held_count, acted.skipped_count), (3, 1, 1));
    world.commit();
    world.restart();
    assert_eq!(world.stands("DLQ.a"), ["a", "nowhere"]);
    assert_eq!(
        (world.stands("a"), world.stands("b")),
        (
            vec!["poison".to_owned()],
            vec!["b".to_owned(), "poison".to_owned()]
        )
    );
    let view = world.broker.entries("b", 0).next().unwrap();
    assert_eq!((view.origin, view.failures, view.deliveries), (None, 0, 0));
    // Nothing there came from elsewhere.
    assert_eq!(world.requeue("a").unwrap().skipped_count, 1);
}

#[test]
fn without_room_what_frees_goes_on_and_what_fills_is_refused() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2", "3"]);
    world.broker.handle_room(false);
    assert_eq!(world.copy("a", "b", ALL), Err(Refusal::DiskFull));
    assert_eq!(world.pass("a", "b", ALL), Err(Refusal::DiskFull));
    assert_eq!(world.requeue("a"), Err(Refusal::DiskFull));
    let first = world.broker.entries("a", 0).next().unwrap().sequence;
    assert_eq!(world.purge("a", Selection::Sequences(vec![first])).count, 1);
    assert_eq!(world.delete("a", false).unwrap().count, 2);
    world.commit();
    world.restart();
    assert_eq!(world.broker.queues().count(), 0);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1"]);
    let queue = || "none".to_owned();
    let selection = ALL;
    assert_eq!(
        world.act(Act::Purge {
            queue: queue(),
            selection
        }),
        Err(Refusal::QueueUnknown)
    );
    assert_eq!(world.delete("none", true), Err(Refusal::QueueUnknown));
    assert_eq!(world.pass("none", "a", ALL), Err(Refusal::QueueUnknown));
    assert_eq!(world.copy("none", "a", ALL), Err(Refusal::QueueUnknown));
    assert_eq!(world.requeue("none"), Err(Refusal::QueueUnknown));
    assert_eq!(world.pass("a", "a", ALL), Err(Refusal::SameQueue));
    assert_eq!(world.copy("a", "a", ALL), Err(Refusal::SameQueue));
    assert_eq!(
        world.act(Act::Pause { queue: queue() }),
        Err(Refusal::QueueUnknown)
    );
    assert_eq!(
        world.act(Act::Resume { queue: queue() }),
        Err(Refusal::QueueUnknown)
    );
    assert!(!world.broker.has_batch(), "what was refused left no trace");
    let none = world.pass("a", "b", Selection::Sequences(vec![1])).unwrap();
    assert_eq!(none, Acted::default());
    assert_eq!(world.broker.holdings().queue_count, 1);
}

#[test]
fn a_disconnect_releases_and_says_why() {
    let mut world = World::new(Limits::default());
    world.send_all("a", ["1", "2"]);
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    assert_eq!(world.deliveries().len(), 2);
    let acted = world.act(Act::Disconnect { session: S }).unwrap();
    assert_eq!((acted.count, acted.held_count, acted.gate), (1, 2, Seq(0)));
    assert_eq!(world.evicted(S), Some(Refusal::DisconnectedByOperator));
    assert_eq!(
        world.act(Act::Disconnect { session: S }),
        Err(Refusal::SessionUnknown)
    );
    assert_eq!(
        world.act(Act::Disconnect { session: T }),
        Err(Refusal::SessionUnknown)
    );
    let applied = world.send("a", "late", None);
    assert_eq!(applied.refusal, Some(Refusal::DisconnectedByOperator));
    world.reconnect();
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let again = world.deliveries();
    assert!(again.iter().all(|(delivery, _)| delivery.redelivered));
    assert_eq!(again.len(), 2);
}

#[test]
fn listings_go_on_where_a_page_ended() {
    let mut world = World::new(Limits::default());
    for n in 0..5 {
        world.send_all(&format!("q{n}"), ["x"]);
        world.broker.handle_open(SessionNo(10 + n));
    }
    let mut names = Vec::new();
    let mut from = Some(Arc::from(""));
    while let Some(name) = from.take() {
        let page = world.broker.queues_page(&name, 2);
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|view| view.name.to_string()));
        from = page.next;
    }
    assert_eq!(names, ["q0", "q1", "q2", "q3", "q4"]);
    let page = world.broker.sessions_page(SessionNo(11), 2, NOW);
    let sessions: Vec<u64> = page.items.iter().map(|view| view.session.0).collect();
    assert_eq!((sessions, page.next), (vec![11, 12], Some(SessionNo(13))));
    world.send_all("q0", ["y", "z"]);
    let page = world.broker.entries_page("q0", 0, 2);
    let rest = world.broker.entries_page("q0", page.next.unwrap(), 2);
    assert_eq!((page.items.len(), rest.items.len(), rest.next), (2, 1, None));
    assert!(page.items.iter().all(|view| view.gate <= world.last.last_seq));
    for n in 0..1_001 {
        world.send(&format!("r{n}"), "x", None);
    }
    let page = world.broker.queues_page("r", usize::MAX);
    assert_eq!(page.items.len(), 1_000, "whatever was asked for");
    assert!(page.next.is_some());
}

#[test]
fn a_queue_shows_what_passed_and_what_its_subscriptions_hold() {
    let mut world = World::new(Limits {
        deliveries_failed_max: 2,
        stuck_subscription_ms: 500,
        ..Limits::default()
    });
    world.send_all("a", ["1", "2", "3", "4"]);
    world.subscribe(7, "a", AckMode::ClientIndividual, 2);
    let tags: Vec<Tag> = world
        .deliveries()
        .iter()
        .map(|(delivery, _)| delivery.tag)
        .collect();
    world.settle(tags[0], true, None);
    world.settle(tags[1], false, None);
    world.commit();
    let again = world.deliveries();
    let (failed_again, _) = again.iter().find(|(_, body)| body == "2").unwrap();
    world.settle(failed_again.tag, false, None);
    world.commit();
    let late = Now { mono_ms: 800, ..NOW };
    world.broker.handle_tick(late);
    let view = world.broker.queue_view("a").unwrap();
    let counters = view.counters;
    assert_eq!((counters.in_count, counters.out_count), (4, 5));
    assert_eq!((counters.accepted_count, counters.failed_count), (1, 2));
    assert_eq!(counters.dead_lettered_count, 1);
    assert_eq!((view.depth, view.leased_count, view.stuck_count), (2, 2, 1));
    assert_eq!(world.broker.queue_view("DLQ.a").unwrap().counters.in_count, 1);
    assert_eq!(world.broker.queue_view("b"), None);

    let page = world.broker.subscriptions_page("a", SessionNo(0), 10, late);
    let [sub] = page.items.as_slice() else {
        panic!("one subscription: {page:?}")
    };
    assert_eq!((sub.session, sub.sub, &*sub.name), (S, SubNo(7), "a"));
    assert_eq!((sub.held_count, sub.prefetch_count, sub.stuck), (2, 2, true));
    assert_eq!(sub.oldest_held_ms, Some(800));
    let held: Vec<Tag> = world
        .deliveries()
        .iter()
        .map(|(delivery, _)| delivery.tag)
        .collect();
    world.settle(held[0], true, None);
    assert_eq!(world.broker.queue_view("a").unwrap().stuck_count, 0);
    world.broker.handle_tick(Now {
        mono_ms: 2_000,
        ..NOW
    });
    assert_eq!(
        world.broker.queue_view("a").unwrap().stuck_count,
        0,
        "it holds one of two"
    );
    world.send_all("a", ["5"]);
    world.broker.handle_tick(Now {
        mono_ms: 4_000,
        ..NOW
    });
    assert_eq!(world.broker.queue_view("a").unwrap().stuck_count, 1);
    world.reconnect();
    assert_eq!(world.broker.queue_view("a").unwrap().stuck_count, 0);
}

#[test]
fn a_session_shows_its_transactions() {
    let mut world = World::new(Limits::default());
    let (first, second) = (TxNo(1), TxNo(2));
    world.ask(|requests| {
        let begin = [first, second].map(|tx| Request::Begin { tx });
        requests.list.extend(begin);
    });
    world.send("a", "12345", Some(second));
    let late = Now { mono_ms: 300, ..NOW };
    let detail = world.broker.session_detail(S, late).unwrap();
    assert_eq!(detail.session.transaction_count, 2);
    assert_eq!(
        (detail.session.staged_frame_count, detail.session.staged_bytes),
        (1, 5)
    );
    assert_eq!(detail.session.oldest_transaction_ms, Some(300));
    let frames: Vec<u64> = detail
        .transactions
        .iter()
        .map(|tx| tx.staged_frame_count)
        .collect();
    assert_eq!(frames, [0, 1]);
    assert_eq!(world.broker.holdings().staged_bytes, 5);
    assert_eq!(world.broker.session_detail(T, late), None);
}

#[test]
fn a_paused_queue_takes_and_settles_and_gives_nothing() {
    let mut world = World::new(Limits::default());
    let pause = || Act::Pause { queue: "a".into() };
    let resume = || Act::Resume { queue: "a".into() };
    world.send_all("a", ["1"]);
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let held = world.deliveries();
    let acted = world.act(pause()).unwrap();
    assert_eq!(acted.count, 1);
    assert!(acted.gate > world.last.last_seq);
    assert_eq!(world.act(pause()).unwrap().count, 0);
    world.send_all("a", ["2"]);
    world.send_transient("a", "3");
    assert_eq!(world.bodies(), [""; 0]);
    world.settle(held[0].0.tag, false, None);
    world.commit();
    assert_eq!(world.bodies(), [""; 0], "what is released waits too");
    assert!(world.broker.queue_view("a").unwrap().paused);
    assert_eq!(world.act(resume()).unwrap().count, 1);
    assert_eq!(world.bodies(), ["1", "2", "3"]);
}

#[test]
fn a_pause_outlives_restarts_and_compaction() {
    let mut world = World::new(Limits {
        compaction_garbage_bytes_min: 1,
        compaction_chunk_count_slack: 1,
        ..Limits::default()
    });
    world.send_all("a", ["1"]);
    world.act(Act::Pause { queue: "a".into() }).unwrap();
    world.restart();
    assert!(
        !world.broker.queue_view("a").unwrap().paused,
        "it was not durable"
    );
    world.act(Act::Pause { queue: "a".into() }).unwrap();
    world.purge("a", ALL);
    world.commit();
    for _ in 0..200 {
        world.send_all("b", ["x"]);
        world.purge("b", ALL);
        world.commit();
        world.broker.handle_tick(NOW);
        world.commit();
    }
    let view = world.broker.ledger();
    assert!(view.index_part_count < 20, "{view:?}");
    for _ in 0..2 {
        world.restart();
        let view = world.broker.queue_view("a").expect("a paused queue exists");
        assert_eq!((view.paused, view.depth), (true, 0));
    }
    world.act(Act::Resume { queue: "a".into() }).unwrap();
    assert_eq!(world.broker.queue_view("a"), None, "nothing is left of it");
    world.commit();
    world.restart();
    assert_eq!(world.broker.queue_view("a"), None);
    world.send_all("a", ["2"]);
    world.act(Act::Pause { queue: "a".into() }).unwrap();
    assert_eq!(world.delete("a", false).unwrap().count, 1);
    world.commit();
    world.restart();
    assert_eq!(world.broker.queues().count(), 0, "a deleted queue is not paused");
}
