//! The broker alone, driven by hand: one `World` holds it, its durable batches and their body chunks.

mod access;
mod admin;
mod browse;
mod dedup;
mod expiry;
mod lanes;
mod policies;
mod redelivery;
mod schedule;
mod temporary;
mod topics;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::base::{ChunkRef, Destination, DestinationKind, TxNo};
use crate::journal::{IndexChunk, Recovered};
use crate::port::{
    Act, Applied, Binding, Body, Credit, Delivery, DeliveryKey, Outcome, Payload, Request, Requests,
    Selection, Send, Settle, Span, Subscribe, Target, Terms,
};

const S: SessionNo = SessionNo(1);
const NOW: Now = Now {
    wall_ms: 1_000,
    mono_ms: 0,
};

/// A broker with a store that keeps what was committed.
struct World {
    broker: Broker,
    limits: Limits,
    chunks: Vec<IndexChunk>,
    bodies: BTreeMap<u32, (ChunkRef, Bytes)>,
    last: Recovered,
    now: Now,
    /// Headers are not shown to the core.
    blind: bool,
}

impl World {
    fn new(limits: Limits) -> Self {
        let broker = Recovery::new(limits.clone()).finish(&Recovered::default(), NOW);
        let mut world = Self {
            broker,
            limits,
            chunks: Vec::new(),
            bodies: BTreeMap::new(),
            last: Recovered::default(),
            now: NOW,
            blind: false,
        };
        world.commit();
        world.broker.handle_open(S);
        world
    }

    /// Makes every batch that waits durable.
    fn commit(&mut self) {
        self.commit_at(self.now);
    }

    fn commit_at(&mut self, now: Now) {
        while let Some(batch) = self.broker.poll_batch() {
            let seq = batch.seq;
            for write in batch.chunks {
                self.bodies
                    .insert(write.place.slot.0, (write.place, write.payload));
            }
            self.chunks.retain(|chunk| !batch.drop.contains(&chunk.seq));
            let parts = u16::from(!batch.facts.is_empty());
            let size = IndexSize {
                parts,
                bytes: u32::from(parts) * (20 + crate::journal::encode_facts(&batch.facts).len() as u32),
            };
            if parts > 0 {
                self.chunks.push(IndexChunk {
                    seq,
                    facts: batch.facts,
                    size,
                });
            }
            let slot_count = self.last.slot_count.max(batch.slot_count);
            self.last = Recovered {
                last_seq: seq,
                meta: batch.meta,
                slot_count,
                uuid: [0; 16],
            };
            self.broker.handle_durable(seq, &[size], now);
            self.show_headers(now);
        }
        self.show_headers(now);
    }

    /// What whoever drives the core does for selectors.
    fn show_headers(&mut self, now: Now) {
        while !self.blind {
            let looks = self.broker.poll_looks(now);
            if looks.is_empty() {
                return;
            }
            let block = |look: &Look| Bytes::from(self.body(&look.body, look.header_len));
            let looked: Vec<(Look, Option<Bytes>)> = looks
                .into_iter()
                .map(|look| (look.clone(), Some(block(&look))))
                .collect();
            self.broker.handle_looked(&looked, now);
        }
    }

    /// What a restart finds.
    fn restart(&mut self) {
        self.restart_at(self.now);
    }

    fn restart_at(&mut self, now: Now) {
        let mut recovery = Recovery::new(self.limits.clone());
        self.chunks
            .iter()
            .cloned()
            .for_each(|chunk| recovery.visit(chunk));
        self.broker = recovery.finish(&self.last, now);
        self.commit_at(now);
        self.broker.handle_open(S);
    }

    fn ask(&mut self, fill: impl FnOnce(&mut Requests)) -> Applied {
        let mut requests = Requests::default();
        fill(&mut requests);
        self.broker.handle_requests(S, &requests, self.now)
    }

    fn send(&mut self, queue: &str, body: &str, tx: Option<TxNo>) -> Applied {
        self.ask(|requests| send(requests, queue, body, true, tx))
    }

    fn subscribe(&mut self, sub: u32, queue: &str, ack_mode: AckMode, prefetch_count: u32) {
        let applied = self.ask(|requests| {
            subscribe(
                requests,
                sub,
                DestinationKind::Queue,
                queue,
                (ack_mode, prefetch_count),
            );
        });
        assert_eq!(applied.refusal, None);
        self.commit();
    }

    fn settle(&mut self, tag: Tag, accepted: bool, tx: Option<TxNo>) -> Applied {
        let delivery = DeliveryKey::Tag(tag);
        self.ask(|requests| {
            requests.list.push(Request::Settle(Settle {
                why: None,
                delivery,
                outcome: if accepted {
                    Outcome::Accepted
                } else {
                    Outcome::Failed
                },
                tx,
            }))
        })
    }

    fn deliveries(&mut self) -> Vec<(Delivery, String)> {
        let mut events = Vec::new();
        self.broker.poll_events(S, usize::MAX, &mut events);
        let deliveries = events.into_iter().map(|event| match event {
            Event::Delivery(delivery) => delivery,
            Event::Evicted(refusal) => panic!("evicted: {refusal}"),
        });
        deliveries
            .map(|delivery| (delivery.clone(), self.body(&delivery.body, delivery.len)))
            .collect()
    }

    fn bodies(&mut self) -> Vec<String> {
        self.deliveries().into_iter().map(|(_, body)| body).collect()
    }

    fn body(&self, body: &Body, len: u32) -> String {
        let chunk = |place: &ChunkRef| {
            let (found, payload) = &self.bodies[&place.slot.0];
            assert_eq!(found, place, "the slot holds the chunk that the entry names");
            payload
        };
        let bytes = match body {
            Body::Stored { chunk: place, offset } => chunk(place)
                .slice(*offset as usize..*offset as usize + len as usize)
                .to_vec(),
            Body::Extent(places) => places.iter().flat_map(|place| chunk(place).to_vec()).collect(),
            Body::Memory(bytes) => bytes.to_vec(),
        };
        String::from_utf8(bytes).unwrap()
    }

    fn depth(&self, queue: &str) -> u64 {
        self.broker
            .queues()
            .find(|view| &*view.name == queue)
            .map_or(0, |view| view.depth)
    }
}

/// How a subscription settles, and how many deliveries it may hold.
type Mode = (AckMode, u32);

fn subscribe(requests: &mut Requests, sub: u32, kind: DestinationKind, name: &str, mode: Mode) {
    let name = requests.push_bytes(name.as_bytes());
    requests.list.push(Request::Subscribe(Subscribe {
        ack_timeout_ms: None,
        sub: SubNo(sub),
        kind,
        name,
        binding: Binding::None,
        ack_mode: mode.0,
        credit: Credit::count(mode.1),
        filter: None,
        binds_durably: false,
        priority: 0,
        exclusive: false,
        no_local: false,
        browse: None,
        by_message: false,
    }));
}

fn send(requests: &mut Requests, queue: &str, body: &str, persistent: bool, tx: Option<TxNo>) {
    let name = requests.push_bytes(queue.as_bytes());
    let payload = Payload::Arena(requests.push_bytes(body.as_bytes()));
    let kind = DestinationKind::Queue;
    requests.list.push(Request::Send(Send {
        to: Target { kind, name },
        also: Vec::new(),
        payload,
        header_len: 0,
        persistent,
        terms: Terms::default(),
        dedup: None,
        tx,
    }));
}

#[test]
fn a_message_is_delivered_once_durable_and_gone_once_acked() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let applied = world.send("a", "one", None);
    assert!(
        applied.gate > world.last.last_seq,
        "the receipt waits for a batch that is not durable yet"
    );
    assert_eq!(world.bodies(), [""; 0]);
    world.commit();
    let deliveries = world.deliveries();
    assert_eq!(deliveries[0].1, "one");
    assert_eq!(world.settle(deliveries[0].0.tag, true, None).refusal, None);
    assert_eq!(
        world.settle(deliveries[0].0.tag, true, None).refusal,
        Some(Refusal::DeliveryUnknown)
    );
    world.commit();
    world.restart();
    assert_eq!(world.depth("a"), 0);
}

#[test]
fn what_is_released_keeps_its_place_and_is_marked() {
    let mut world = World::new(Limits::default());
    for body in ["1", "2", "3"] {
        world.send("a", body, None);
    }
    world.commit();
    world.subscribe(1, "a", AckMode::ClientIndividual, 2);
    assert_eq!(world.bodies(), ["1", "2"]);
    world.broker.handle_close(S, NOW);
    world.broker.handle_open(S);
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let again = world.deliveries();
    let seen: Vec<_> = again
        .iter()
        .map(|(d, body)| (body.as_str(), d.redelivered, d.delivery_count))
        .collect();
    assert_eq!(seen, [("1", true, 2), ("2", true, 2), ("3", false, 1)]);
}

#[test]
fn the_tenth_failure_moves_a_message_once_without_a_second_body() {
    let mut world = World::new(Limits::default());
    world.send("a", "poison", None);
    world.commit();
    world.subscribe(1, "a", AckMode::ClientIndividual, 1);
    for count in 1..=10 {
        let deliveries = world.deliveries();
        assert_eq!(deliveries[0].0.delivery_count, count);
        world.settle(deliveries[0].0.tag, false, None);
        world.commit();
    }
    assert_eq!((world.depth("a"), world.depth("DLQ.a")), (0, 1));
    world.restart();
    assert_eq!((world.depth("a"), world.depth("DLQ.a")), (0, 1));
    world.subscribe(1, "DLQ.a", AckMode::ClientIndividual, 1);
    assert_eq!(world.bodies(), ["poison"]);
}

#[test]
fn what_cannot_be_read_is_set_aside_and_neither_settled_nor_lost() {
    for ack_mode in [AckMode::Auto, AckMode::Client, AckMode::ClientIndividual] {
        let mut world = World::new(Limits::default());
        for body in ["1", "2", "3"] {
            world.send("a", body, None);
        }
        world.commit();
        world.subscribe(1, "a", ack_mode, 2);
        let tags: Vec<Tag> = world.deliveries().iter().map(|(d, _)| d.tag).collect();
        let (queue, sequence, _) = world.broker.handle_unreadable(S, tags[0], NOW).unwrap();
        assert_eq!(&*queue, "a");
        assert_eq!(world.broker.handle_unreadable(S, tags[0], NOW), None);
        assert_eq!(world.bodies(), ["3"], "its place in the window is free");
        // What is behind it in the socket says nothing of it.
        world.broker.handle_written(S, tags[1], NOW);
        let view = world.broker.queue_view("a").unwrap();
        let depth = if ack_mode == AckMode::Auto { 2 } else { 3 };
        assert_eq!((view.depth, view.set_aside_count), (depth, 1), "{ack_mode:?}");
        assert_eq!(view.ready_count + view.leased_count, depth - 1);
        world.broker.handle_close(S, NOW);
        world.broker.handle_open(S);
        world.subscribe(1, "a", AckMode::ClientIndividual, 10);
        assert!(!world.bodies().contains(&"1".to_owned()), "not again in this run");
        // The next run tries it again.
        world.commit();
        world.restart();
        world.subscribe(1, "a", AckMode::ClientIndividual, 1);
        let again = world.deliveries();
        assert_eq!(again[0].1, "1");
        world.broker.handle_unreadable(S, again[0].0.tag, NOW).unwrap();
        let purge = Act::Purge {
            queue: "a".to_owned(),
            selection: Selection::Sequences(vec![sequence]),
        };
        assert_eq!(world.broker.handle_act(&purge, NOW).unwrap().count, 1);
        assert_eq!(world.broker.queue_view("a").unwrap().set_aside_count, 0);
    }
}

#[test]
fn a_purge_goes_before_what_cannot_be_read() {
    let mut world = World::new(Limits::default());
    world.send("a", "1", None);
    world.commit();
    world.subscribe(1, "a", AckMode::ClientIndividual, 2);
    let tag = world.deliveries()[0].0.tag;
    let purge = Act::Purge {
        queue: "a".to_owned(),
        selection: Selection::From(0),
    };
    world.broker.handle_act(&purge, NOW).unwrap();
    assert_eq!(world.broker.handle_unreadable(S, tag, NOW), None);
    world.commit();
    let ledger = world.broker.ledger();
    assert_eq!(ledger.free_slot_count, ledger.slot_count, "its bytes are let go");
}

#[test]
fn a_transaction_is_whole_or_absent() {
    let mut world = World::new(Limits::default());
    world.send("a", "in", None);
    world.commit();
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let tag = world.deliveries()[0].0.tag;
    let tx = TxNo(1);
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    world.send("b", "out", Some(tx));
    world.settle(tag, true, Some(tx));
    world.commit();
    world.ask(|requests| requests.list.push(Request::Abort { tx }));
    assert_eq!((world.depth("a"), world.depth("b")), (1, 0));
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    world.send("b", "out", Some(tx));
    world.settle(tag, true, Some(tx));
    world.ask(|requests| requests.list.push(Request::Commit { tx }));
    assert_eq!((world.depth("a"), world.depth("b")), (0, 1));
    world.commit();
    world.restart();
    assert_eq!((world.depth("a"), world.depth("b")), (0, 1));
}

#[test]
fn large_bodies_span_chunks_of_their_own_and_commits_are_capped() {
    let mut world = World::new(Limits {
        commit_bytes_max: 100_000,
        ..Limits::default()
    });
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    world.send("a", &body, None);
    world.send("a", "small", None);
    let mut batches = 0;
    while let Some(batch) = world.broker.poll_batch() {
        batches += 1;
        for write in batch.chunks {
            world
                .bodies
                .insert(write.place.slot.0, (write.place, write.payload));
        }
        world
            .broker
            .handle_durable(batch.seq, &[IndexSize { parts: 1, bytes: 100 }], NOW);
    }
    assert!(batches >= 3, "{batches}");
    world.subscribe(1, "a", AckMode::Auto, 10);
    assert_eq!(world.bodies(), [body, "small".to_owned()]);
}

#[test]
fn one_kept_message_keeps_log_and_pool_flat() {
    let limits = Limits {
        compaction_garbage_bytes_min: 10_000,
        compaction_chunk_count_slack: 50,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.send("kept", "kept", None);
    world.commit();
    world.subscribe(1, "a", AckMode::Auto, 1_000);
    for round in 0..3_000 {
        for n in 0..4 {
            world.send("a", &format!("{round} {n}"), None);
        }
        world.commit();
        let deliveries = world.deliveries();
        assert_eq!(deliveries.len(), 4);
        world.broker.handle_written(S, deliveries[3].0.tag, NOW);
    }
    let view = world.broker.ledger();
    assert!(view.index_part_count < 200, "{view:?}");
    assert!(view.index_bytes < 40_000, "{view:?}");
    assert!(view.slot_count < 10, "{view:?}");
    assert_eq!(world.chunks.len() as u64, view.index_part_count);
    world.commit();
    world.restart();
    assert_eq!((world.depth("a"), world.depth("kept")), (0, 1));
    world.subscribe(1, "kept", AckMode::Auto, 10);
    assert_eq!(world.bodies(), ["kept"]);
}

#[test]
fn bodies_move_out_of_sparse_slots() {
    let mut world = World::new(Limits {
        compaction_waste_bytes_min: 100_000,
        ..Limits::default()
    });
    world.subscribe(1, "a", AckMode::ClientIndividual, 10_000);
    for n in 0..1_000 {
        world.send("a", &format!("{n:01000}"), None);
    }
    world.commit();
    for (n, (delivery, _)) in world.deliveries().into_iter().enumerate() {
        if n % 20 > 0 {
            world.settle(delivery.tag, true, None);
        }
    }
    world.broker.handle_close(S, NOW);
    world.broker.handle_open(S);
    world.commit();
    let before = world.broker.ledger();
    for _ in 0..20 {
        world.broker.handle_tick(NOW);
        while let Some(chunk) = world.broker.poll_relocation() {
            let payload = world.bodies[&chunk.slot.0].1.clone();
            world.broker.handle_relocated(chunk, &payload);
        }
        world.commit();
    }
    let after = world.broker.ledger();
    assert!(before.slot_count - before.free_slot_count > 40, "{before:?}");
    assert!(after.slot_count - after.free_slot_count < 6, "{after:?}");
    world.restart();
    world.subscribe(1, "a", AckMode::Auto, 10_000);
    let expected: Vec<String> = (0..1_000).step_by(20).map(|n| format!("{n:01000}")).collect();
    assert_eq!(world.bodies(), expected);
}

#[test]
fn a_chunk_that_was_asked_for_may_have_no_slot_when_it_was_read() {
    let mut world = World::new(Limits {
        compaction_waste_bytes_min: 100_000,
        ..Limits::default()
    });
    world.subscribe(1, "a", AckMode::ClientIndividual, 10_000);
    for n in 0..1_000 {
        world.send("a", &format!("{n:01000}"), None);
    }
    world.commit();
    let (kept, passing): (Vec<_>, Vec<_>) = world
        .deliveries()
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % 20 == 0);
    let settle = |world: &mut World, deliveries: Vec<(usize, (Delivery, String))>| {
        for (_, (delivery, _)) in deliveries {
            assert_eq!(world.settle(delivery.tag, true, None).refusal, None);
        }
        world.commit();
    };
    settle(&mut world, passing);
    world.broker.handle_tick(NOW);
    world.broker.handle_tick(NOW);
    let asked: Vec<ChunkRef> = std::iter::from_fn(|| world.broker.poll_relocation()).collect();
    assert!(!asked.is_empty());
    settle(&mut world, kept);
    world.broker.handle_tick(NOW);
    world.commit();
    assert_eq!(world.broker.ledger().slot_count, 0, "the pool has shrunk");
    for chunk in asked {
        world.broker.handle_relocated(chunk, &[]);
    }
    assert!(!world.broker.has_batch());
}

#[test]
fn an_answer_that_records_nothing_waits_for_nothing() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    let applied = world.ask(|requests| send(requests, "a", "in memory", false, None));
    assert_eq!(applied.gate, Seq(0));
    let tag = world.deliveries()[0].0.tag;
    assert_eq!(
        world.settle(tag, true, None),
        Applied {
            done: 1,
            gate: Seq(0),
            refusal: None,
            denied: None,
            duplicates: Vec::new(),
        }
    );
    let tx = TxNo(1);
    let applied = world.ask(|requests| {
        requests
            .list
            .extend([Request::Begin { tx }, Request::Commit { tx }])
    });
    assert_eq!(
        applied,
        Applied {
            done: 2,
            gate: Seq(0),
            refusal: None,
            denied: None,
            duplicates: Vec::new(),
        }
    );
    assert!(!world.broker.has_batch());
}

#[test]
fn a_drained_pool_shrinks_while_idle() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::Auto, 1_000_000);
    let body = "x".repeat(8_000);
    for _ in 0..6_000 {
        world.send("a", &body, None);
    }
    world.commit();
    let before = world.broker.ledger();
    while let Some((delivery, _)) = world.deliveries().last() {
        world.broker.handle_written(S, delivery.tag, NOW);
        world.commit();
    }
    for _ in 0..100 {
        world.broker.handle_tick(NOW);
        world.commit();
    }
    let after = world.broker.ledger();
    assert!(before.slot_count > 2_900, "{before:?}");
    assert!(after.slot_count <= 1_100, "{after:?}");
    assert!(!world.broker.has_batch(), "an idle broker comes to rest");
}

#[test]
fn a_subscription_that_settles_nothing_is_told_of_once() {
    let mut world = World::new(Limits {
        stuck_subscription_ms: 500,
        ..Limits::default()
    });
    world.subscribe(1, "a", AckMode::ClientIndividual, 2);
    for body in ["one", "two", "three"] {
        world.send("a", body, None);
    }
    world.commit();
    let first = world.deliveries()[0].0.tag;
    let told_at = |world: &mut World, mono_ms| {
        world.broker.handle_tick(Now { mono_ms, ..NOW });
        std::iter::from_fn(|| world.broker.poll_notice())
            .filter(|notice| matches!(notice, Notice::Stuck { session: S, sub: SubNo(1), queue } if &**queue == "a"))
            .count()
    };
    assert_eq!(told_at(&mut world, 499), 0);
    assert_eq!(told_at(&mut world, 500), 1, "at the bound");
    assert_eq!(told_at(&mut world, 10_000), 0, "once");
    // What is settled makes room for the third, with which it holds its limit anew.
    assert_eq!(world.settle(first, true, None).refusal, None);
    world.commit();
    assert_eq!(world.bodies(), ["three"]);
    assert_eq!(told_at(&mut world, 499), 0);
    assert_eq!(told_at(&mut world, 500), 1);
}

#[test]
fn unsubscribe_makes_room_for_those_passed_over() {
    let mut world = World::new(Limits {
        prefetch_bytes_max: 1_000,
        ..Limits::default()
    });
    for _ in 0..2 {
        world.send("a", &"x".repeat(900), None);
    }
    world.commit();
    world.subscribe(1, "a", AckMode::ClientIndividual, 10);
    world.subscribe(2, "b", AckMode::ClientIndividual, 10);
    world.send("b", &"y".repeat(900), None);
    world.commit();
    // Nothing was taken by the driver yet, so nothing will be written.
    let sub = SubNo(1);
    world.ask(|requests| requests.list.push(Request::Unsubscribe { sub }));
    assert_eq!(world.bodies(), ["y".repeat(900)]);
}

#[test]
fn what_is_half_sent_keeps_its_bytes_though_another_settles_it() {
    for disconnect in [false, true] {
        let mut world = World::new(Limits::default());
        let held = |world: &World| {
            let view = world.broker.ledger();
            view.slot_count - view.free_slot_count
        };
        world.subscribe(1, "a", AckMode::ClientIndividual, 10);
        let long = "x".repeat(50_000);
        world.send("a", &long, None);
        world.commit();
        let (begun, _) = world.deliveries().remove(0);
        // The driver has taken it; its first bytes may be out.
        let applied = world.ask(|requests| {
            let end = if disconnect {
                Request::Disconnect
            } else {
                Request::Unsubscribe { sub: SubNo(1) }
            };
            requests.list.push(end);
        });
        assert_eq!(applied.refusal, None);
        let other = SessionNo(2);
        world.broker.handle_open(other);
        let mut requests = Requests::default();
        subscribe(&mut requests, 1, DestinationKind::Queue, "a", (AckMode::Auto, 1));
        world.broker.handle_requests(other, &requests, NOW);
        world.commit();
        let mut events = Vec::new();
        world.broker.poll_events(other, 1, &mut events);
        let [Event::Delivery(again)] = events.as_slice() else {
            panic!("it is given to another: {events:?}");
        };
        world.broker.handle_written(other, again.tag, NOW);
        world.commit();
        for n in 0..50 {
            requests.clear();
            send(&mut requests, "b", &n.to_string().repeat(5_000), true, None);
            world.broker.handle_requests(other, &requests, NOW);
            world.commit();
        }
        assert_eq!(world.body(&begun.body, begun.len), long);
        let before = held(&world);
        if disconnect {
            world.broker.handle_close(S, NOW);
        } else {
            world.broker.handle_written(S, begun.tag, NOW);
        }
        requests.clear();
        send(&mut requests, "b", "more", true, None);
        world.broker.handle_requests(other, &requests, NOW);
        world.commit();
        assert!(held(&world) <= before - 3, "its slots are free then");
    }
}

#[test]
fn a_session_that_ends_itself_is_done_nothing_more_for() {
    let mut world = World::new(Limits {
        topic_backlog_count_max: 1,
        ..Limits::default()
    });
    world.send("a", "kept", None);
    world.commit();
    let applied = world.ask(|requests| {
        subscribe(requests, 1, DestinationKind::Topic, "t", (AckMode::Client, 1));
        for _ in 0..3 {
            send(requests, "t", "news", true, None);
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                unreachable!()
            };
            send.to.kind = DestinationKind::Topic;
        }
        subscribe(requests, 2, DestinationKind::Queue, "a", (AckMode::Client, 1));
    });
    assert_eq!(applied.refusal, Some(Refusal::SlowSubscriber));
    world.commit();
    let mut events = Vec::new();
    world.broker.poll_events(S, usize::MAX, &mut events);
    assert_eq!(events, [Event::Evicted(Refusal::SlowSubscriber)]);
}

/// `memory_bytes_max` bounds what waits for all topic subscriptions together; the session with most of it makes room.
#[test]
fn topic_backlogs_are_bounded_in_all() {
    const OTHER: SessionNo = SessionNo(77);
    const MESSAGE_BYTES: usize = 300;
    for topic_drop_oldest in [false, true] {
        let mut world = World::new(Limits {
            memory_bytes_max: 6 * MESSAGE_BYTES,
            topic_drop_oldest,
            ..Limits::default()
        });
        world.broker.handle_open(OTHER);
        for (session, topics) in [(S, &["t", "u"][..]), (OTHER, &["t"])] {
            let mut requests = Requests::default();
            for (sub, topic) in (1..).zip(topics) {
                subscribe(
                    &mut requests,
                    sub,
                    DestinationKind::Topic,
                    topic,
                    (AckMode::Client, 1),
                );
            }
            world.broker.handle_requests(session, &requests, NOW);
        }
        let publish = |world: &mut World, topic: &str| {
            let mut requests = Requests::default();
            send(&mut requests, topic, "", true, None);
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                unreachable!()
            };
            send.to.kind = DestinationKind::Topic;
            let Payload::Arena(span) = send.payload else {
                unreachable!()
            };
            let missing = vec![b'x'; MESSAGE_BYTES - span.len as usize];
            requests.arena.extend_from_slice(&missing);
            send.payload = Payload::Arena(Span {
                len: MESSAGE_BYTES as u32,
                ..span
            });
            world.broker.handle_requests(OTHER, &requests, NOW);
        };
        // One of each is delivered, two wait for each of the three.
        for topic in ["t", "u"].repeat(3) {
            publish(&mut world, topic);
        }
        assert_eq!(world.broker.counters().topic_dropped_count, 0);
        publish(&mut world, "u");
        let dropped_count = world.broker.counters().topic_dropped_count;
        assert_eq!(dropped_count, 3, "the larger backlog of the one with two");
        assert_eq!(world.broker.is_evicted(S), !topic_drop_oldest);
        assert!(!world.broker.is_evicted(OTHER));
    }
}

#[test]
fn without_room_no_dead_letter_is_written() {
    let mut world = World::new(Limits::default());
    world.subscribe(1, "a", AckMode::ClientIndividual, 1);
    world.broker.handle_room(false);
    world.ask(|requests| send(requests, "a", "in memory", false, None));
    for _ in 0..12 {
        let tag = world.deliveries()[0].0.tag;
        assert_eq!(world.settle(tag, false, None).refusal, None);
        assert!(!world.broker.has_batch());
    }
    world.broker.handle_room(true);
    let tag = world.deliveries()[0].0.tag;
    world.settle(tag, false, None);
    assert_eq!((world.depth("a"), world.depth("DLQ.a")), (0, 1));
}

#[test]
fn without_room_the_log_does_not_grow_for_what_is_gone() {
    let mut world = World::new(Limits::default());
    world.broker.handle_room(false);
    for sub in 1..1_000 {
        world.subscribe(sub, &format!("q{sub}"), AckMode::Auto, 1);
        let sub = SubNo(sub);
        world.ask(|requests| requests.list.push(Request::Unsubscribe { sub }));
    }
    let view = world.broker.ledger();
    assert!(view.index_part_count < 10, "{view:?}");
}

#[test]
fn what_waits_for_a_flush_is_counted() {
    let mut world = World::new(Limits::default());
    world.send("DLQ.a", "one", None);
    world.commit();
    world.subscribe(1, "DLQ.a", AckMode::ClientIndividual, 1);
    for _ in 0..10_000 {
        let tag = world.deliveries()[0].0.tag;
        world.settle(tag, false, None);
    }
    assert!(world.broker.unflushed_bytes() > 100_000);
    world.commit();
    assert_eq!(world.broker.unflushed_bytes(), 0);
}

#[test]
fn one_long_message_does_not_hide_waste_from_a_restart() {
    let mut world = World::new(Limits {
        compaction_waste_bytes_min: 100_000,
        ..Limits::default()
    });
    world.send("long", &"x".repeat(1_000_000), None);
    world.subscribe(1, "a", AckMode::ClientIndividual, 10_000);
    for n in 0..10_000 {
        world.send("a", &format!("{n:01000}"), None);
    }
    world.commit();
    for (n, (delivery, _)) in world.deliveries().into_iter().enumerate() {
        // One in each slot, not always its first: what is known to be filled ends with the last that is live.
        if n % 17 > 0 {
            world.settle(delivery.tag, true, None);
        }
    }
    world.commit();
    world.restart();
    world.broker.handle_tick(NOW);
    world.broker.handle_tick(NOW);
    assert!(world.broker.poll_relocation().is_some());
}

/// `staged_bytes_max` and `memory_bytes_max` hold to the byte, and what is refused leaves nothing behind.
#[test]
fn staged_and_transient_bytes_are_bounded_to_the_byte() {
    let limits = Limits {
        staged_bytes_max: 100,
        memory_bytes_max: 150,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let tx = TxNo(1);
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    assert_eq!(world.send("a", &"x".repeat(60), Some(tx)).refusal, None);
    assert_eq!(
        world.send("a", &"x".repeat(41), Some(tx)).refusal,
        Some(Refusal::StagedTooMuch)
    );
    assert_eq!(
        world.send("a", &"x".repeat(40), Some(tx)).refusal,
        None,
        "at the bound"
    );
    let mut transient = |len: usize| {
        let applied = world.ask(|requests| send(requests, "t", &"x".repeat(len), false, None));
        applied.refusal
    };
    assert_eq!(transient(51), Some(Refusal::MemoryFull), "100 bytes are staged");
    assert_eq!(transient(50), None, "at the bound");
    assert_eq!(transient(1), Some(Refusal::MemoryFull));
    world.ask(|requests| requests.list.push(Request::Commit { tx }));
    let applied = world.ask(|requests| send(requests, "t", &"x".repeat(100), false, None));
    assert_eq!(applied.refusal, None, "what was committed is on disk");
    world.commit();
    assert_eq!((world.depth("a"), world.depth("t")), (2, 2));
}
