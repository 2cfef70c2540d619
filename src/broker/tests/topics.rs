//! Topics: wildcards, composite destinations, durable subscriptions.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::port::{Page, QueueView};

const OTHER: SessionNo = SessionNo(2);

impl World {
    /// SEND to a list of destinations.
    fn send_to(&mut self, destinations: &str, body: &str, persistent: bool, tx: Option<TxNo>) -> Applied {
        self.ask(|requests| {
            let mut targets: Vec<Target> = Destination::parts(destinations)
                .map(|part| {
                    let Destination { kind, name } = Destination::parse(part).unwrap();
                    let name = requests.push_bytes(name.as_bytes());
                    Target { kind, name }
                })
                .collect();
            let to = targets.remove(0);
            let payload = Payload::Arena(requests.push_bytes(body.as_bytes()));
            requests.list.push(Request::Send(Send {
                to,
                also: targets,
                payload,
                header_len: 0,
                persistent,
                terms: Terms::default(),
                dedup: None,
                tx,
            }));
        })
    }

    /// SUBSCRIBE of a session: of a topic, or of a queue with what is said of its topic.
    fn join(&mut self, session: SessionNo, sub: u32, name: &str, topic: Option<Option<&str>>) -> Applied {
        let mut requests = Requests::default();
        let binding = match topic {
            Some(Some(topic)) => Binding::To(requests.push_bytes(topic.as_bytes())),
            Some(None) => Binding::Present,
            None => Binding::None,
        };
        let kind = match topic {
            Some(_) => DestinationKind::Queue,
            None => DestinationKind::Topic,
        };
        let name = requests.push_bytes(name.as_bytes());
        requests.list.push(Request::Subscribe(Subscribe {
            ack_timeout_ms: None,
            sub: SubNo(sub),
            kind,
            name,
            binding,
            ack_mode: AckMode::ClientIndividual,
            credit: Credit::count(100),
            filter: None,
            binds_durably: false,
            priority: 0,
            exclusive: false,
            no_local: false,
            browse: None,
            by_message: false,
        }));
        self.broker.handle_requests(session, &requests, NOW)
    }

    pub(super) fn leave(&mut self, sub: u32) {
        self.ask(|requests| requests.list.push(Request::Unsubscribe { sub: SubNo(sub) }));
    }

    fn unbind(&mut self, queue: &str) -> Applied {
        self.ask(|requests| {
            let name = requests.push_bytes(queue.as_bytes());
            requests.list.push(Request::Unbind { name });
        })
    }

    fn queues(&self) -> Vec<(String, Option<String>, u64)> {
        let Page { items, .. } = self.broker.queues_page("", 1_000);
        let view = |queue: QueueView| {
            let topic = queue.topic.map(|topic| topic.to_string());
            (queue.name.to_string(), topic, queue.depth)
        };
        items.into_iter().map(view).collect()
    }
}

fn bound(name: &str, topic: &str, depth: u64) -> (String, Option<String>, u64) {
    (name.to_owned(), Some(topic.to_owned()), depth)
}

#[test]
fn a_subscription_to_a_pattern_gets_what_matches_and_each_its_own() {
    let mut world = World::new(Limits::default());
    for (sub, topic) in [(1, "a.*"), (2, "a.>"), (3, "a.b"), (4, "b.#")] {
        assert_eq!(world.join(S, sub, topic, None).refusal, None);
    }
    world.send_to("/topic/a.b", "x", true, None);
    let got: Vec<u32> = world.deliveries().iter().map(|(d, _)| d.sub.0).collect();
    assert_eq!(got, [3, 2, 1]);
    world.send_to("/topic/a", "x", true, None);
    world.send_to("/topic/b", "x", true, None);
    let got: Vec<u32> = world.deliveries().iter().map(|(d, _)| d.sub.0).collect();
    assert_eq!(got, [2, 4]);
    (1..=4).for_each(|sub| world.leave(sub));
    world.send_to("/topic/a.b", "x", true, None);
    assert!(world.deliveries().is_empty());
    assert_eq!(world.broker.holdings().topic_count, 0);
}

/// One send, one body; whole or absent.
#[test]
fn a_composite_is_one_send() {
    let mut world = World::new(Limits::default());
    world.join(S, 1, "t", None);
    let applied = world.send_to("/queue/a,/topic/t,/queue/b,/queue/a", "x", true, None);
    assert_eq!(applied.refusal, None);
    assert!(applied.gate > world.last.last_seq);
    assert_eq!(
        world.bodies(),
        [""; 0],
        "nobody sees a part of what may yet be lost"
    );
    world.commit();
    assert_eq!(world.bodies(), ["x"]);
    assert_eq!((world.depth("a"), world.depth("b")), (1, 1), "each queue once");
    let ledger = world.broker.ledger();
    assert_eq!(ledger.slot_count - ledger.free_slot_count, 1);
    world.restart();
    for (sub, queue) in [(1, "a"), (2, "b")] {
        world.subscribe(sub, queue, AckMode::ClientIndividual, 1);
        let deliveries = world.deliveries();
        assert_eq!(deliveries[0].1, "x");
        world.settle(deliveries[0].0.tag, true, None);
        world.commit();
    }
    let ledger = world.broker.ledger();
    assert_eq!(
        ledger.free_slot_count, ledger.slot_count,
        "the body goes with its last entry"
    );
    world.send_to("/queue/a,/queue/b", "never", true, None);
    world.restart();
    assert_eq!((world.depth("a"), world.depth("b")), (0, 0));
}

#[test]
fn a_durable_subscription_keeps_what_comes_while_nobody_is_there() {
    let mut world = World::new(Limits::default());
    let applied = world.join(S, 1, "DSUB.c/n", Some(Some("t.*")));
    assert!(
        applied.gate > world.last.last_seq,
        "the receipt says that it is durable"
    );
    world.commit();
    world.leave(1);
    let applied = world.send_to("/topic/t.1", "one", true, None);
    assert!(
        applied.gate > world.last.last_seq,
        "the receipt says that it is kept"
    );
    world.commit();
    world.send_to("/topic/other", "no", true, None);
    world.restart();
    assert_eq!(world.queues(), [bound("DSUB.c/n", "t.*", 1)]);
    world.send_to("/topic/t.2", "two", true, None);
    world.commit();
    // Two that share it.
    world.broker.handle_open(OTHER);
    assert_eq!(world.join(S, 1, "DSUB.c/n", Some(Some("t.*"))).refusal, None);
    assert_eq!(world.join(OTHER, 1, "DSUB.c/n", Some(None)).refusal, None);
    world.commit();
    let mine = world.deliveries();
    assert_eq!(mine.len(), 2, "the first had credit before the second came");
    world.settle(mine[0].0.tag, true, None);
    world.leave(1);
    let mut events = Vec::new();
    world.broker.poll_events(OTHER, 10, &mut events);
    assert!(matches!(&events[..], [Event::Delivery(delivery)] if delivery.redelivered));
    assert_eq!(world.unbind("DSUB.c/n").refusal, Some(Refusal::BindingInUse));
    world.broker.handle_close(OTHER, NOW);
    let applied = world.unbind("DSUB.c/n");
    assert_eq!(applied.refusal, None);
    assert!(applied.gate > world.last.last_seq);
    assert_eq!(world.queues(), []);
    world.commit();
    world.restart();
    assert_eq!(world.queues(), []);
    assert_eq!(world.unbind("DSUB.c/n").refusal, Some(Refusal::BindingUnknown));
    let ledger = world.broker.ledger();
    assert_eq!(ledger.free_slot_count, ledger.slot_count);
}

#[test]
fn a_durable_subscription_is_what_it_was_or_refused() {
    let mut world = World::new(Limits::default());
    world.join(S, 1, "D", Some(Some("t")));
    assert_eq!(
        world.join(S, 2, "D", Some(Some("u"))).refusal,
        Some(Refusal::BindingDiffers)
    );
    assert_eq!(
        world.join(S, 3, "E", Some(None)).refusal,
        Some(Refusal::BindingUnknown)
    );
    assert_eq!(world.join(S, 4, "D", Some(None)).refusal, None);
    world.leave(1);
    world.leave(4);
    assert_eq!(world.unbind("E").refusal, Some(Refusal::BindingUnknown));
    world.send("a", "x", None);
    assert_eq!(world.unbind("a").refusal, Some(Refusal::BindingUnknown));
    // A full disk: what would be kept is refused, what would not goes on.
    world.commit();
    world.broker.handle_room(false);
    assert_eq!(
        world.send_to("/topic/t", "x", true, None).refusal,
        Some(Refusal::DiskFull)
    );
    assert_eq!(world.send_to("/topic/u", "x", true, None).refusal, None);
    assert_eq!(
        world.join(S, 5, "E", Some(Some("u"))).refusal,
        Some(Refusal::DiskFull)
    );
    let tx = TxNo(1);
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    assert_eq!(
        world.send_to("/topic/t", "x", true, Some(tx)).refusal,
        Some(Refusal::DiskFull)
    );
    assert_eq!(world.unbind("D").refusal, None, "what gives room is done");
}

/// An operator's purge leaves it, a delete ends it.
#[test]
fn a_delete_ends_a_durable_subscription() {
    let mut world = World::new(Limits::default());
    world.join(S, 1, "D", Some(Some("t")));
    world.leave(1);
    world.send_to("/topic/t", "x", true, None);
    world.commit();
    let queue = "D".to_owned();
    let act = Act::Purge {
        queue: queue.clone(),
        selection: Selection::From(0),
    };
    assert_eq!(world.broker.handle_act(&act, NOW).unwrap().count, 1);
    assert_eq!(world.queues(), [bound("D", "t", 0)]);
    let act = Act::Delete { queue, force: false };
    world.broker.handle_act(&act, NOW).unwrap();
    world.send_to("/topic/t", "x", true, None);
    assert_eq!(world.queues(), []);
    world.commit();
    world.restart();
    assert_eq!(world.queues(), []);
}

/// A message of a transaction is kept by who is bound when it is committed.
#[test]
fn a_transaction_sends_to_durable_subscriptions_whole() {
    let mut world = World::new(Limits::default());
    let tx = TxNo(1);
    world.ask(|requests| requests.list.push(Request::Begin { tx }));
    world.send_to("/topic/t", "x", true, Some(tx));
    world.send_to("/queue/a", "y", true, Some(tx));
    world.join(S, 1, "D", Some(Some(">")));
    world.join(S, 2, "t", None);
    world.commit();
    world.ask(|requests| requests.list.push(Request::Commit { tx }));
    assert_eq!(world.bodies(), [""; 0]);
    world.commit();
    assert_eq!(world.bodies(), ["x", "x"]);
    world.restart();
    assert_eq!((world.depth("D"), world.depth("a")), (1, 1));
}

/// Messages in memory are kept in memory, within its bound.
#[test]
fn what_is_not_persistent_is_kept_in_memory() {
    let limits = Limits {
        memory_bytes_max: 100,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    for queue in ["D", "E"] {
        world.join(S, 1, queue, Some(Some("t")));
        world.leave(1);
    }
    world.commit();
    assert_eq!(
        world.send_to("/topic/t", &"x".repeat(50), false, None).refusal,
        None
    );
    assert_eq!((world.depth("D"), world.depth("E")), (1, 1));
    assert_eq!(
        world.send_to("/topic/t,/queue/new", "x", false, None).refusal,
        Some(Refusal::MemoryFull)
    );
    assert_eq!(world.queues().len(), 2, "a refused send leaves nothing");
    world.commit();
    world.restart();
    assert_eq!(world.queues(), [bound("D", "t", 0), bound("E", "t", 0)]);
}

/// What is kept says so for ever, however much passes; and its bytes, moved, are still shared.
#[test]
fn bindings_and_shared_bytes_outlive_compaction() {
    let limits = Limits {
        compaction_garbage_bytes_min: 200,
        compaction_chunk_count_slack: 2,
        compaction_waste_bytes_min: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let count = 50;
    for no in 0..count {
        world.join(S, no + 1, &format!("D{no:02}"), Some(Some("t")));
        world.leave(no + 1);
    }
    world.commit();
    let first = world.last.last_seq;
    world.subscribe(1_000, "pass", AckMode::Auto, 1_000);
    for round in 0..100 {
        if round % 10 == 0 {
            world.send_to("/topic/t", &format!("{round:02}").repeat(50), true, None);
        }
        for _ in 0..20 {
            world.send("pass", &"p".repeat(1_000), None);
        }
        world.commit();
        if let Some((last, _)) = world.deliveries().last() {
            world.broker.handle_written(S, last.tag, NOW);
        }
        world.commit();
    }
    for _ in 0..200 {
        world.broker.handle_tick(NOW);
        while let Some(chunk) = world.broker.poll_relocation() {
            let (_, payload) = world.bodies[&chunk.slot.0].clone();
            world.broker.handle_relocated(chunk, &payload);
        }
        world.commit();
    }
    assert!(
        world.chunks.first().is_some_and(|chunk| chunk.seq > first),
        "the chunks that stated the bindings first are gone"
    );
    let ledger = world.broker.ledger();
    assert!(ledger.slot_count - ledger.free_slot_count <= 3, "{ledger:?}");
    world.restart();
    let expect: Vec<_> = (0..count)
        .map(|no| bound(&format!("D{no:02}"), "t", 10))
        .collect();
    assert_eq!(world.queues(), expect);
    world.subscribe(1, "D07", AckMode::ClientIndividual, 100);
    let expect: Vec<String> = (0..10).map(|no| format!("{:02}", no * 10).repeat(50)).collect();
    assert_eq!(world.bodies(), expect);
}

/// What one durable subscription more costs in the index.
#[test]
fn a_place_in_one_more_durable_subscription_takes_some_tens_of_bytes() {
    let mut world = World::new(Limits::default());
    for no in 0..1_000 {
        world.join(S, no + 1, &format!("DSUB.client/{no:04}"), Some(Some("t")));
        world.leave(no + 1);
    }
    world.commit();
    world.send_to("/topic/t", &"x".repeat(1_000), true, None);
    let batch = world.broker.poll_batch().unwrap();
    let body_bytes: usize = batch.chunks.iter().map(|write| write.payload.len()).sum();
    assert_eq!(body_bytes, 1_000, "stored once");
    let bytes = crate::journal::encode_facts(&batch.facts).len() / 1_000;
    assert!((20..80).contains(&bytes), "{bytes} bytes for each");
}

#[derive(Debug, Clone)]
enum Op {
    Join(usize, usize),
    Leave,
    Unbind(usize),
    Send(Vec<usize>, bool),
    Take(usize, usize),
    Commit,
    Crash,
}

const QUEUES: [&str; 4] = ["D", "E", "F", "a"];
const PATTERNS: [&str; 5] = ["t.1", "t.*", "t.>", "u", ">"];
const DESTINATIONS: [(&str, &[usize]); 4] = [
    ("/topic/t.1", &[0, 1, 2, 4]),
    ("/topic/t", &[2, 4]),
    ("/topic/u", &[3, 4]),
    ("/queue/a", &[]),
];

/// What each queue is bound to, and holds.
type State = BTreeMap<&'static str, (Option<usize>, VecDeque<String>)>;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3_usize, 0..PATTERNS.len()).prop_map(|(queue, pattern)| Op::Join(queue, pattern)),
        2 => Just(Op::Leave),
        1 => (0..3_usize).prop_map(Op::Unbind),
        6 => (prop::collection::vec(0..DESTINATIONS.len(), 1..4), any::<bool>())
            .prop_map(|(to, tx)| Op::Send(to, tx)),
        3 => (0..QUEUES.len(), 1..4_usize).prop_map(|(queue, count)| Op::Take(queue, count)),
        3 => Just(Op::Commit),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    /// Whatever is asked for, and wherever it crashes: each queue holds what was sent to what it was bound to.
    #[test]
    fn each_queue_holds_what_was_sent_to_its_topic(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new(Limits::default());
        let (mut durable, mut state) = (State::new(), State::new());
        let mut sub = 0;
        let mut live: Option<(u32, &str)> = None;
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Join(queue, pattern) => {
                    if let Some((sub, _)) = live.take() {
                        world.leave(sub);
                    }
                    sub += 1;
                    let name = QUEUES[queue];
                    let applied = world.join(S, sub, name, Some(Some(PATTERNS[pattern])));
                    let kept = state.entry(name).or_default();
                    let differs = kept.0.is_some_and(|bound| bound != pattern);
                    prop_assert_eq!(applied.refusal.is_some(), differs);
                    if !differs {
                        kept.0 = Some(pattern);
                        live = Some((sub, name));
                    }
                }
                Op::Leave => {
                    if let Some((sub, _)) = live.take() {
                        world.leave(sub);
                    }
                }
                Op::Unbind(queue) => {
                    let name = QUEUES[queue];
                    let is_bound = state.get(name).is_some_and(|kept| kept.0.is_some());
                    let used = live.is_some_and(|(_, of)| of == name);
                    let expect = match (is_bound, used) {
                        (false, _) => Some(Refusal::BindingUnknown),
                        (true, true) => Some(Refusal::BindingInUse),
                        (true, false) => None,
                    };
                    prop_assert_eq!(world.unbind(name).refusal, expect);
                    if expect.is_none() {
                        state.remove(name);
                    }
                }
                Op::Send(to, in_transaction) => {
                    let body = format!("message {number}");
                    let list: Vec<&str> = to.iter().map(|to| DESTINATIONS[*to].0).collect();
                    let tx = in_transaction.then_some(TxNo(number as u32));
                    if let Some(tx) = tx {
                        world.ask(|requests| requests.list.push(Request::Begin { tx }));
                    }
                    world.send_to(&list.join(","), &body, true, tx);
                    if let Some(tx) = tx {
                        world.ask(|requests| requests.list.push(Request::Commit { tx }));
                    }
                    for queue in QUEUES {
                        let kept = state.get(queue).and_then(|kept| kept.0);
                        let by_topic = to.iter().any(|to| kept.is_some_and(|of| DESTINATIONS[*to].1.contains(&of)));
                        if by_topic || (queue == "a" && to.contains(&3)) {
                            state.entry(queue).or_default().1.push_back(body.clone());
                        }
                    }
                }
                Op::Take(queue, count) => {
                    world.commit();
                    durable = state.clone();
                    if let Some((sub, _)) = live.take() {
                        world.leave(sub);
                    }
                    world.deliveries();
                    sub += 1;
                    let name = QUEUES[queue];
                    world.subscribe(sub, name, AckMode::ClientIndividual, 1_000);
                    let got = world.deliveries();
                    let kept = state.entry(name).or_default();
                    let bodies: Vec<&String> = got.iter().map(|(_, body)| body).collect();
                    prop_assert_eq!(bodies, kept.1.iter().collect::<Vec<_>>(), "{}", name);
                    for (delivery, _) in got.iter().take(count) {
                        world.settle(delivery.tag, true, None);
                        kept.1.pop_front();
                    }
                    world.leave(sub);
                }
                Op::Commit => {
                    world.commit();
                    durable = state.clone();
                }
                Op::Crash => {
                    world.restart();
                    state = durable.clone();
                    (sub, live) = (0, None);
                }
            }
            let told: BTreeMap<String, (Option<String>, u64)> = world
                .queues()
                .into_iter()
                .map(|(name, topic, depth)| (name, (topic, depth)))
                .collect();
            let expect: BTreeMap<String, (Option<String>, u64)> = state
                .iter()
                .filter(|(_, kept)| kept.0.is_some() || !kept.1.is_empty())
                .map(|(name, kept)| {
                    let topic = kept.0.map(|pattern| PATTERNS[pattern].to_owned());
                    ((*name).to_owned(), (topic, kept.1.len() as u64))
                })
                .collect();
            prop_assert_eq!(told, expect);
        }
    }
}
