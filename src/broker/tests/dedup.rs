//! Deduplication: what a queue has seen is not stored again, over crashes, compaction and transactions.

use proptest::prelude::*;

use super::*;
use crate::base::{Policies, SettingKey, Settings};
use crate::port::Duplicate;

const TX: TxNo = TxNo(1);

impl World {
    /// SEND to a list of destinations, with an id.
    fn send_id(&mut self, destinations: &str, body: &str, id: &str, tx: Option<TxNo>) -> Applied {
        self.send_with(destinations, body, id, true, tx)
    }

    fn send_with(
        &mut self,
        destinations: &str,
        body: &str,
        id: &str,
        persistent: bool,
        tx: Option<TxNo>,
    ) -> Applied {
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
            let dedup = Some(requests.push_bytes(id.as_bytes()));
            requests.list.push(Request::Send(Send {
                to,
                also: targets,
                payload,
                header_len: 0,
                persistent,
                terms: Terms::default(),
                dedup,
                tx,
            }));
        })
    }

    fn begin(&mut self, tx: TxNo) {
        self.ask(|requests| requests.list.push(Request::Begin { tx }));
    }

    fn commit_tx(&mut self, tx: TxNo) -> Applied {
        self.ask(|requests| requests.list.push(Request::Commit { tx }))
    }

    fn subscribe_topic(&mut self, sub: u32, topic: &str) {
        self.ask(|requests| {
            subscribe(requests, sub, DestinationKind::Topic, topic, (AckMode::Auto, 100));
        });
    }

    /// A durable subscription that nobody takes from.
    fn bind_queue(&mut self, sub: u32, queue: &str, topic: &str) {
        self.ask(|requests| {
            let name = requests.push_bytes(queue.as_bytes());
            let binding = Binding::To(requests.push_bytes(topic.as_bytes()));
            requests.list.push(Request::Subscribe(Subscribe {
                sub: SubNo(sub),
                kind: DestinationKind::Queue,
                name,
                binding,
                ack_mode: AckMode::ClientIndividual,
                credit: Credit::count(1),
                ack_timeout_ms: None,
                filter: None,
                binds_durably: false,
                priority: 0,
                exclusive: false,
                no_local: false,
                browse: None,
                by_message: false,
            }));
        });
        self.leave(sub);
        self.commit();
    }

    fn state_policy(&mut self, pattern: &str, stated: &[(&str, u64)]) {
        let mut policies = Policies::new(self.limits.policy());
        let mut settings = Settings::default();
        for (name, number) in stated {
            let key = SettingKey::named(name).unwrap();
            assert!(settings.state(key, crate::base::Setting::Number(*number)));
        }
        policies.insert(pattern, settings);
        self.broker.handle_policies(policies, self.now);
    }

    fn wait(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.mono_ms += ms;
    }

    fn tick_now(&mut self) {
        self.broker.handle_tick(self.now);
        self.commit();
    }

    fn ids(&self, queue: &str) -> u64 {
        self.broker
            .queue_view(queue)
            .map_or(0, |view| view.dedup_id_count)
    }

    /// Takes and settles all that a queue holds.
    fn drain(&mut self, queue: &str) -> Vec<String> {
        self.commit();
        self.subscribe(999, queue, AckMode::ClientIndividual, 10_000);
        let got = self.deliveries();
        for (delivery, _) in &got {
            self.settle(delivery.tag, true, None);
        }
        self.leave(999);
        self.commit();
        got.into_iter().map(|(_, body)| body).collect()
    }
}

fn is_new(applied: &Applied) -> bool {
    assert_eq!(applied.refusal, None);
    applied.duplicates.is_empty()
}

fn is_again(applied: &Applied) -> bool {
    assert_eq!(applied.refusal, None);
    let again = Duplicate {
        request: 0,
        whole: true,
        count: None,
    };
    applied.duplicates == [again]
}

#[test]
fn a_message_is_stored_once_whatever_becomes_of_it() {
    let mut world = World::new(Limits::default());
    let first = world.send_id("a", "one", "x", None);
    assert!(is_new(&first));
    let again = world.send_id("a", "one", "x", None);
    assert!(is_again(&again));
    assert_eq!(
        again.gate, first.gate,
        "no receipt says so before the original can be lost no more"
    );
    world.commit();
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    assert_eq!((world.depth("a"), world.ids("a")), (1, 1));
    assert!(is_new(&world.send_id("b", "one", "x", None)), "by queue");
    assert!(is_new(&world.send_id("a", "two", "y", None)));
    assert!(is_new(&world.send("a", "three", None)));
    assert_eq!(world.drain("a"), ["one", "two", "three"]);
    assert!(is_again(&world.send_id("a", "one", "x", None)), "also settled");
    world.restart();
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    assert!(is_new(&world.send_id("a", "four", "z", None)));
    assert_eq!(world.drain("a"), ["four"]);
    let counters = world.broker.queue_view("a").unwrap().counters;
    assert_eq!(counters.duplicate_count, 1, "since the start");
}

#[test]
fn what_was_not_durable_was_not_seen() {
    let mut world = World::new(Limits::default());
    world.send_id("a", "one", "x", None);
    world.restart();
    assert!(is_new(&world.send_id("a", "one", "x", None)));
    assert_eq!(world.drain("a"), ["one"]);
}

#[test]
fn an_id_counts_for_the_window_and_its_queue_exists_as_long() {
    let mut world = World::new(Limits::default());
    world.state_policy("a", &[("dedup_window_ms", 1_000)]);
    world.send_id("a", "one", "x", None);
    assert_eq!(world.drain("a"), ["one"]);
    world.wait(999);
    world.tick_now();
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    assert_eq!(world.ids("a"), 1);
    world.wait(1);
    assert!(is_new(&world.send_id("a", "one", "x", None)), "exactly");
    assert_eq!(world.drain("a"), ["one"]);
    world.wait(1_000);
    world.tick_now();
    assert!(world.broker.queue_view("a").is_none());
    let holdings = world.broker.holdings();
    assert_eq!((holdings.dedup_id_count, holdings.dedup_bytes), (0, 0));
}

/// A message stored twice does less harm than one lost.
#[test]
fn a_clock_set_back_does_not_prolong_the_window_for_ever() {
    let mut world = World::new(Limits::default());
    world.state_policy(">", &[("dedup_window_ms", 1_000)]);
    world.now.wall_ms = 1_000_000;
    world.send_id("a", "one", "x", None);
    world.now.wall_ms = 999_001;
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    world.now.wall_ms = 999_000;
    assert!(is_new(&world.send_id("a", "one", "x", None)));
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    world.now.wall_ms = 999_500;
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    world.commit();
    world.restart();
    world.state_policy(">", &[("dedup_window_ms", 1_000)]);
    assert!(is_again(&world.send_id("a", "one", "x", None)));
    world.now.wall_ms = 1_000_500;
    assert!(is_new(&world.send_id("a", "one", "x", None)));
}

#[test]
fn the_oldest_ids_are_forgotten_first() {
    let mut world = World::new(Limits::default());
    world.state_policy(">", &[("dedup_count_max", 3)]);
    for id in ["1", "2", "3", "4"] {
        assert!(is_new(&world.send_id("a", id, id, None)));
    }
    assert_eq!(world.ids("a"), 3);
    assert_eq!(world.broker.counters().dedup_forgotten_count, 1);
    assert!(is_again(&world.send_id("a", "2", "2", None)));
    assert!(is_new(&world.send_id("a", "1", "1", None)));
    assert!(is_new(&world.send_id("a", "2", "2", None)));
    // A lower bound holds from the next tick on.
    world.state_policy(">", &[("dedup_count_max", 1)]);
    world.tick_now();
    assert_eq!(world.ids("a"), 1);
    assert!(is_again(&world.send_id("a", "2", "2", None)));
}

#[test]
fn all_queues_together_remember_within_a_bound() {
    let limits = Limits {
        dedup_bytes_max: 20_000,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    for no in 0..1_000 {
        world.wait(1);
        let queue = format!("q{}", no % 3);
        assert!(is_new(&world.send_id(&queue, "x", &format!("{no:036}"), None)));
        let bytes = world.broker.holdings().dedup_bytes;
        assert!(bytes <= 20_000, "{bytes}");
    }
    let kept = world.broker.holdings().dedup_id_count;
    assert!((150..240).contains(&kept), "{kept}");
    assert_eq!(world.broker.counters().dedup_forgotten_count, 1_000 - kept);
    let oldest = 1_000 - kept;
    let id = |no: u64| format!("{no:036}");
    assert!(is_again(&world.send_id(
        &format!("q{}", oldest % 3),
        "x",
        &id(oldest),
        None
    )));
    assert!(is_new(&world.send_id(
        &format!("q{}", (oldest - 1) % 3),
        "x",
        &id(oldest - 1),
        None
    )));
    let told = std::iter::from_fn(|| world.broker.poll_notice());
    assert_eq!(
        told.filter(|notice| matches!(notice, Notice::DedupFull { .. }))
            .count(),
        1
    );
    // Very many queues, of one each.
    for no in 0..1_000 {
        let queue = format!("{}{no}", "n".repeat(200));
        assert!(is_new(&world.send_id(&queue, "x", "1", None)));
    }
    assert!(world.broker.holdings().dedup_bytes <= 20_000);
}

#[test]
fn a_queue_without_a_window_refuses_ids_and_a_topic_passes_them_by() {
    let mut world = World::new(Limits::default());
    for off in ["dedup_window_ms", "dedup_count_max"] {
        world.state_policy("off", &[(off, 0)]);
        for destinations in ["off", "/queue/on,/queue/off", "/topic/t,/queue/off"] {
            let applied = world.send_id(destinations, "x", "1", None);
            assert_eq!(applied.refusal, Some(Refusal::DedupOff), "{destinations}");
        }
        world.begin(TX);
        let applied = world.send_id("off", "x", "1", Some(TX));
        assert_eq!(applied.refusal, Some(Refusal::DedupOff));
        world.ask(|requests| requests.list.push(Request::Abort { tx: TX }));
        assert_eq!(world.broker.queues().count(), 0, "a refused send leaves nothing");
    }
    assert!(is_new(&world.send("off", "x", None)));
    for _ in 0..2 {
        assert!(is_new(&world.send_id("/topic/t", "x", "1", None)));
    }
    // The policy changes while a transaction is open.
    world.begin(TX);
    world.send_id("later", "x", "1", Some(TX));
    world.send("other", "x", Some(TX));
    world.state_policy("later", &[("dedup_window_ms", 0)]);
    assert_eq!(world.commit_tx(TX).refusal, Some(Refusal::DedupOff));
    assert_eq!((world.depth("later"), world.depth("other")), (0, 0));
    assert_eq!(world.broker.queues().count(), 1);
}

#[test]
fn each_queue_of_a_send_looks_for_itself() {
    let mut world = World::new(Limits::default());
    world.subscribe_topic(1, "t");
    world.bind_queue(2, "D", "t");
    assert!(is_new(&world.send_id("/queue/a", "x", "1", None)));
    // Kept by `b` alone, and told to be new.
    assert!(is_new(&world.send_id("/queue/a,/queue/b", "x", "1", None)));
    assert_eq!((world.depth("a"), world.depth("b")), (1, 1));
    assert!(is_again(&world.send_id("/queue/a,/queue/b", "x", "1", None)));
    assert!(is_new(&world.send_id("/topic/t", "y", "2", None)));
    world.commit();
    assert_eq!(world.bodies(), ["y"]);
    // Who was present has got it.
    assert!(is_again(&world.send_id("/topic/t", "y", "2", None)));
    assert!(is_new(&world.send_id("/topic/t,/queue/c", "y", "2", None)));
    world.commit();
    assert_eq!(world.bodies(), [""; 0]);
    assert_eq!((world.depth("D"), world.depth("c")), (1, 1));
    // A topic that no queue keeps has no window.
    world.subscribe_topic(3, "u");
    for _ in 0..2 {
        assert!(is_new(&world.send_id("/topic/u", "z", "3", None)));
    }
    assert!(is_again(&world.send_id("/topic/u,/queue/a", "z", "1", None)));
    world.commit();
    assert_eq!(world.bodies(), ["z", "z", "z"]);
    world.restart();
    assert!(is_again(&world.send_id("/topic/t", "y", "2", None)));
    assert!(is_again(&world.send_id("/queue/c,/queue/b", "y", "2", None)) || world.depth("b") == 2);
}

/// A resend is answered also where nothing new can be stored.
#[test]
fn a_full_disk_does_not_keep_a_duplicate_from_its_receipt() {
    let mut world = World::new(Limits::default());
    world.bind_queue(1, "D", "t");
    world.send_id("a", "x", "1", None);
    world.send_id("/topic/t", "x", "1", None);
    world.begin(TX);
    world.send_id("a", "x", "1", Some(TX));
    world.commit();
    world.broker.handle_room(false);
    assert!(is_again(&world.send_id("a", "x", "1", None)));
    assert!(is_again(&world.send_id("/topic/t,/queue/a", "x", "1", None)));
    assert_eq!(world.commit_tx(TX).refusal, None);
    assert_eq!(
        world.send_id("a", "x", "2", None).refusal,
        Some(Refusal::DiskFull)
    );
    world.broker.handle_room(true);
    assert!(
        is_new(&world.send_id("a", "x", "2", None)),
        "a refused id was not seen"
    );
}

/// What is in memory only is gone at a restart, and its id with it; nor does it stand for a message that is to be stored.
#[test]
fn an_id_is_as_durable_as_its_message() {
    let mut world = World::new(Limits::default());
    assert!(is_new(&world.send_with("a", "m", "1", false, None)));
    assert!(is_again(&world.send_with("a", "m", "1", false, None)));
    assert!(is_new(&world.send_with("a", "m", "2", false, None)));
    assert!(is_new(&world.send_id("a", "stored", "1", None)));
    assert!(is_again(&world.send_with("a", "m", "1", false, None)));
    world.commit();
    world.restart();
    assert!(is_again(&world.send_with("a", "m", "1", false, None)));
    assert!(is_new(&world.send_with("a", "m", "2", false, None)));
    assert_eq!(world.drain("a"), ["stored", "m"]);
}

#[test]
fn a_transaction_sent_again_stores_nothing_twice() {
    let mut world = World::new(Limits::default());
    world.send("in", "work", None);
    world.commit();
    world.subscribe(1, "in", AckMode::ClientIndividual, 1);
    let tag = world.deliveries()[0].0.tag;
    let work = |world: &mut World, tag: Option<Tag>| {
        world.begin(TX);
        assert!(is_new(&world.send_id("out", "one", "1", Some(TX))), "staged");
        assert!(is_new(&world.send_id("out", "two", "2", Some(TX))));
        assert!(is_new(&world.send_id("out", "one", "1", Some(TX))));
        if let Some(tag) = tag {
            assert_eq!(world.settle(tag, true, Some(TX)).refusal, None);
        }
        world.commit_tx(TX)
    };
    let applied = work(&mut world, Some(tag));
    let told = |whole, count| {
        let count = Some(count);
        [Duplicate {
            request: 0,
            whole,
            count,
        }]
    };
    assert_eq!(applied.duplicates, told(false, 1), "the same id twice in it");
    world.commit();
    // The receipt is lost: the client comes again with what it sent; the message that it had taken does not.
    world.restart();
    assert_eq!((world.depth("in"), world.depth("out")), (0, 2));
    let applied = work(&mut world, None);
    assert_eq!(applied.duplicates, told(true, 3));
    assert_eq!(world.drain("out"), ["one", "two"]);
    // One that is new, and settlements, are applied all the same.
    world.send("in", "more", None);
    world.commit();
    world.subscribe(2, "in", AckMode::ClientIndividual, 1);
    let tag = world.deliveries()[0].0.tag;
    world.begin(TX);
    world.send_id("out", "three", "3", Some(TX));
    world.send("out", "four", Some(TX));
    world.send_id("out", "one", "1", Some(TX));
    world.settle(tag, true, Some(TX));
    assert_eq!(world.commit_tx(TX).duplicates, told(false, 1));
    world.commit();
    world.restart();
    assert_eq!(world.depth("in"), 0);
    assert_eq!(world.drain("out"), ["three", "four"]);
}

#[test]
fn an_aborted_transaction_has_shown_nobody_its_ids() {
    let mut world = World::new(Limits::default());
    world.begin(TX);
    world.send_id("a", "x", "1", Some(TX));
    world.ask(|requests| requests.list.push(Request::Abort { tx: TX }));
    world.begin(TX);
    world.send_id("a", "x", "1", Some(TX));
    world.broker.handle_close(S, NOW);
    world.broker.handle_open(S);
    assert!(is_new(&world.send_id("a", "x", "1", None)));
    assert_eq!(world.drain("a"), ["x"]);
}

#[test]
fn purge_and_move_leave_the_window_and_delete_ends_it() {
    let mut world = World::new(Limits::default());
    let queue = || "a".to_owned();
    let (from, selection) = (queue(), Selection::From(0));
    world.send_id("a", "x", "1", None);
    world.commit();
    let act = Act::Move {
        from,
        to: "b".to_owned(),
        selection: selection.clone(),
    };
    world.broker.handle_act(&act, NOW).unwrap();
    assert!(is_again(&world.send_id("a", "x", "1", None)));
    assert!(is_new(&world.send_id("b", "x", "1", None)));
    world.send_id("a", "x", "2", None);
    let purge = Act::Purge {
        queue: queue(),
        selection,
    };
    world.broker.handle_act(&purge, NOW).unwrap();
    world.commit();
    world.restart();
    assert!(is_again(&world.send_id("a", "x", "2", None)));
    let act = Act::Delete {
        queue: queue(),
        force: false,
    };
    let acted = world.broker.handle_act(&act, NOW).unwrap();
    assert!(acted.gate > world.last.last_seq);
    assert!(world.broker.queue_view("a").is_none());
    world.commit();
    world.restart();
    assert!(world.broker.queue_view("a").is_none());
    assert!(is_new(&world.send_id("a", "x", "1", None)));
    // All in one batch.
    world.broker.handle_act(&act, NOW).unwrap();
    assert!(is_new(&world.send_id("a", "x", "1", None)));
    world.commit();
    world.restart();
    assert!(is_again(&world.send_id("a", "x", "1", None)));
    assert_eq!(world.ids("a"), 1);
}

/// Ids outlive the chunks that stated them first, and cost little to be stated again.
#[test]
fn ids_outlive_compaction() {
    let limits = Limits {
        compaction_garbage_bytes_min: 200,
        compaction_chunk_count_slack: 100,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.subscribe(1_000, "pass", AckMode::Auto, 1_000);
    let first = world.last.last_seq;
    let mut stated = 0;
    for no in 0..500 {
        world.wait(1);
        assert!(is_new(&world.send_id("pass", "x", &format!("id {no}"), None)));
        world.commit();
        stated += ids_in(world.chunks.last());
        if let Some((last, _)) = world.deliveries().last() {
            world.broker.handle_written(S, last.tag, world.now);
        }
        world.commit();
        stated += ids_in(world.chunks.last());
    }
    assert!(world.chunks.first().is_some_and(|chunk| chunk.seq > first));
    let kept: usize = world.chunks.iter().map(|chunk| ids_in(Some(chunk))).sum();
    assert!(world.chunks.len() < 300, "{} chunks", world.chunks.len());
    assert!((500..1_500).contains(&kept), "{kept} ids in all chunks");
    assert!(stated < 500 * 8, "{stated} ids were stated in all");
    for _ in 0..3 {
        for no in [0, 1, 249, 498, 499] {
            assert!(
                is_again(&world.send_id("pass", "x", &format!("id {no}"), None)),
                "{no}"
            );
        }
        world.restart();
        assert_eq!(world.ids("pass"), 500);
    }
    // What is over is dropped with its chunks.
    world.wait(600_000);
    for _ in 0..20 {
        world.tick_now();
    }
    let kept: usize = world.chunks.iter().map(|chunk| ids_in(Some(chunk))).sum();
    assert_eq!((kept, world.ids("pass")), (0, 0));
}

fn ids_in(chunk: Option<&IndexChunk>) -> usize {
    let facts = chunk.into_iter().flat_map(|chunk| &chunk.facts);
    facts
        .map(|fact| match fact {
            Fact::Seen { ids, .. } => ids.len(),
            _ => 0,
        })
        .sum()
}

/// The first batch of a start comes before anything tells the time, and may find an id in the oldest chunk.
#[test]
fn a_start_takes_no_id_for_old() {
    let mut world = World::new(Limits::default());
    world.now.wall_ms = 1_800_000_000_000;
    world.send_id("a", "x", "1", None);
    world.drain("a");
    for _ in 0..3 {
        world.restart();
        assert!(is_again(&world.send_id("a", "x", "1", None)));
    }
}

/// One that was stated again, and so comes later in the journal, is still older than what came after it.
#[test]
fn recovery_keeps_the_order_in_which_ids_came() {
    let limits = Limits {
        compaction_garbage_bytes_min: 0,
        compaction_chunk_count_slack: 1,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    for no in 0..20 {
        world.wait(1);
        world.send_id("a", "x", &no.to_string(), None);
        world.drain("a");
        world.tick_now();
    }
    world.restart();
    world.state_policy(">", &[("dedup_count_max", 5)]);
    world.tick_now();
    assert!(is_again(&world.send_id("a", "x", "15", None)));
    assert!(is_new(&world.send_id("a", "x", "14", None)));
}

#[derive(Debug, Clone)]
enum Op {
    Send(usize, u32, bool),
    Both(u32),
    Transaction(Vec<(usize, u32)>, bool),
    Drain(usize),
    Delete(usize),
    Pass(u64),
    Back(u64),
    Commit,
    Tick,
    Crash,
}

const QUEUES: [&str; 2] = ["a", "b"];
const WINDOW_MS: u64 = 70;
const COUNT_MAX: usize = 6;

fn op() -> impl Strategy<Value = Op> {
    let id = || 0..8_u32;
    let queue = || 0..QUEUES.len();
    prop_oneof![
        10 => (queue(), id(), prop::bool::weighted(0.8)).prop_map(|(queue, id, stored)| Op::Send(queue, id, stored)),
        2 => id().prop_map(Op::Both),
        3 => (prop::collection::vec((queue(), id()), 1..4), any::<bool>())
            .prop_map(|(sends, commit)| Op::Transaction(sends, commit)),
        2 => queue().prop_map(Op::Drain),
        1 => queue().prop_map(Op::Delete),
        3 => (0..60_u64).prop_map(Op::Pass),
        1 => (0..80_u64).prop_map(Op::Back),
        4 => Just(Op::Commit),
        2 => Just(Op::Tick),
        2 => Just(Op::Crash),
    ]
}

/// What a queue is promised to know.
#[derive(Debug, Clone, Default)]
struct Known {
    /// In the order in which they came.
    ids: Vec<Id>,
    /// Of messages, in their order: body and whether they are stored.
    messages: Vec<(String, bool)>,
}

#[derive(Debug, Clone)]
struct Id {
    id: u32,
    at_ms: u64,
    stored: bool,
    /// It was over its window, or one too many, before a crash or a clock set back may have brought it back.
    shaky: bool,
}

impl Known {
    /// Whether an id is seen; `None` where it may be.
    fn again(&self, id: u32, stored: bool, now_ms: u64) -> Option<bool> {
        let within =
            |of: &&Id| of.id == id && of.at_ms.abs_diff(now_ms) < WINDOW_MS && (of.stored || !stored);
        let all = || self.ids.iter().filter(within);
        match (all().any(|of| !of.shaky), all().any(|of| of.shaky)) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    fn add(&mut self, id: u32, stored: bool, at_ms: u64, body: String) {
        for of in self.ids.iter_mut().filter(|of| of.id == id) {
            of.shaky = true;
        }
        self.ids.push(Id {
            id,
            at_ms,
            stored,
            shaky: false,
        });
        self.messages.push((body, stored));
    }

    fn shake(&mut self, now_ms: u64) {
        let count = self.ids.len();
        for (at, of) in self.ids.iter_mut().enumerate() {
            of.shaky |= of.at_ms.abs_diff(now_ms) >= WINDOW_MS || at + COUNT_MAX < count;
        }
    }

    /// What is left after a crash of what was durable; `before` is what was known then.
    fn crash(&mut self, before: &Self) {
        let firm = |of: &Id| {
            before
                .ids
                .iter()
                .any(|id| (id.id, id.at_ms, id.shaky) == (of.id, of.at_ms, false))
        };
        self.ids.retain(|of| of.stored);
        self.messages.retain(|(_, stored)| *stored);
        let ordered = self.ids.is_sorted_by(|a, b| a.at_ms < b.at_ms);
        for of in &mut self.ids {
            of.shaky |= !firm(of) || !ordered;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is sent, and wherever it crashes: what is told to be a duplicate was seen within the window and is durable
    /// with its receipt; what was seen within the window is told to be one.
    #[test]
    fn each_id_is_stored_once_in_its_window(
        ops in prop::collection::vec(op(), 1..80),
        slack in prop_oneof![Just(0_u64), Just(65_536)],
    ) {
        let limits = Limits {
            compaction_garbage_bytes_min: slack,
            compaction_chunk_count_slack: slack,
            ..Limits::default()
        };
        let mut world = World::new(limits);
        let policy: &[(&str, u64)] = &[("dedup_window_ms", WINDOW_MS), ("dedup_count_max", COUNT_MAX as u64)];
        world.state_policy(">", policy);
        let mut state = [Known::default(), Known::default()];
        let mut durable = state.clone();
        for (number, op) in ops.into_iter().enumerate() {
            let body = format!("message {number}");
            world.wait(1);
            let now_ms = world.now.wall_ms;
            match op {
                Op::Send(queue, id, stored) => {
                    let applied = world.send_with(QUEUES[queue], &body, &id.to_string(), stored, None);
                    let again = is_again(&applied);
                    let expect = state[queue].again(id, stored, now_ms).unwrap_or(again);
                    prop_assert_eq!(again, expect, "{:?}", &state[queue].ids);
                    if !again {
                        state[queue].add(id, stored, now_ms, body);
                    } else if stored && applied.gate <= world.last.last_seq {
                        let known = durable[queue].again(id, stored, now_ms);
                        prop_assert_ne!(known, Some(false), "a receipt for what is not durable");
                    }
                }
                Op::Both(id) => {
                    let again = state.each_ref().map(|known| known.again(id, true, now_ms));
                    if again.contains(&None) {
                        continue;
                    }
                    let applied = world.send_id("/queue/a,/queue/b", &body, &id.to_string(), None);
                    prop_assert_eq!(is_again(&applied), again == [Some(true), Some(true)]);
                    for (known, again) in state.iter_mut().zip(again) {
                        if again == Some(false) {
                            known.add(id, true, now_ms, body.clone());
                        }
                    }
                }
                Op::Transaction(mut sends, commit) => {
                    let tx = TxNo(number as u32);
                    let before = state.clone();
                    sends.retain(|(queue, id)| before[*queue].again(*id, true, now_ms).is_some());
                    world.begin(tx);
                    for (at, (queue, id)) in sends.iter().enumerate() {
                        world.send_id(QUEUES[*queue], &format!("{body}.{at}"), &id.to_string(), Some(tx));
                    }
                    if !commit {
                        world.ask(|requests| requests.list.push(Request::Abort { tx }));
                        continue;
                    }
                    let applied = world.commit_tx(tx);
                    let mut fresh = BTreeSet::new();
                    let mut count = 0;
                    for (at, (queue, id)) in sends.iter().enumerate() {
                        // All look at the state before.
                        let again = before[*queue].again(*id, true, now_ms) == Some(true);
                        if again || !fresh.insert((*queue, *id)) {
                            count += 1;
                        } else {
                            state[*queue].add(*id, true, now_ms, format!("{body}.{at}"));
                        }
                    }
                    let whole = count as usize == sends.len();
                    let expect = (count > 0).then_some(Duplicate { request: 0, whole, count: Some(count) });
                    prop_assert_eq!(applied.duplicates, Vec::from_iter(expect));
                }
                Op::Drain(queue) => {
                    let expect = std::mem::take(&mut state[queue].messages);
                    let got = world.drain(QUEUES[queue]);
                    prop_assert_eq!(got, expect.into_iter().map(|(body, _)| body).collect::<Vec<_>>());
                    durable = state.clone();
                }
                Op::Delete(queue) => {
                    let act = Act::Delete { queue: QUEUES[queue].to_owned(), force: true };
                    let acted = world.broker.handle_act(&act, world.now);
                    let known = std::mem::take(&mut state[queue]);
                    prop_assert!(acted.is_ok() || known.messages.is_empty());
                }
                Op::Pass(ms) => world.wait(ms),
                Op::Back(ms) => world.now.wall_ms = now_ms.saturating_sub(ms),
                Op::Tick => {
                    world.tick_now();
                    durable = state.clone();
                }
                Op::Commit => {
                    world.commit();
                    durable = state.clone();
                }
                Op::Crash => {
                    world.restart();
                    world.state_policy(">", policy);
                    let before = std::mem::replace(&mut state, durable.clone());
                    for (known, before) in state.iter_mut().zip(&before) {
                        known.crash(before);
                    }
                    durable = state.clone();
                }
            }
            for known in state.iter_mut().chain(&mut durable) {
                known.shake(world.now.wall_ms);
            }
        }
    }
}
