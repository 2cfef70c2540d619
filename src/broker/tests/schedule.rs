//! Messages that come later, and again and again: never early, each as often as promised, over crashes at any point, against a
//! model small enough to be seen through.

use proptest::prelude::*;

use super::*;
use crate::base::{Cron, Policies, Setting, SettingKey, Settings};
use crate::port::Repeat;

const QUEUE: &str = "a";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// From now.
    first_ms: u64,
    period_ms: u64,
    /// `None`: it goes on.
    count: Option<u64>,
    persistent: bool,
    staged: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Send(Plan),
    /// A message that has no time.
    Plain,
    Accept(usize),
    Pass(u64),
    /// Time goes by while nothing is committed: the crash behind it takes back what was stated.
    PassUncommitted(u64),
    Room(bool),
    Crash(u64),
    Purge,
    MoveAway,
}

fn arb_plan() -> impl Strategy<Value = Plan> {
    (
        1..30_u64,
        1..20_u64,
        prop_oneof![3 => (0..5_u64).prop_map(Some), 1 => Just(None)],
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(first_ms, period_ms, count, persistent, staged)| Plan {
            first_ms,
            period_ms,
            count,
            persistent: persistent || staged,
            staged,
        })
}

fn arb_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => arb_plan().prop_map(Op::Send),
        2 => Just(Op::Plain),
        4 => any::<usize>().prop_map(Op::Accept),
        8 => (1..25_u64).prop_map(Op::Pass),
        2 => (1..25_u64).prop_map(Op::PassUncommitted),
        1 => any::<bool>().prop_map(Op::Room),
        2 => (0..60_u64).prop_map(Op::Crash),
        1 => Just(Op::Purge),
        1 => Just(Op::MoveAway),
    ]
}

/// A message that was sent, by the promise.
#[derive(Debug)]
struct Sent {
    plan: Plan,
    first_at_ms: u64,
    /// Occurrences that were seen: message and the time at which it was due.
    seen: BTreeMap<MessageId, u64>,
    /// It was purged, or was in memory at a crash: no more comes, but for what is out.
    ended: bool,
    /// A crash took what was in memory.
    lost: bool,
}

struct Model {
    world: World,
    sent: Vec<Sent>,
    held: Vec<Tag>,
}

impl Model {
    /// With `compacting` nearly every batch states what waits again, and hides what the facts between say.
    fn new(compacting: bool) -> Self {
        let mut limits = Limits::default();
        if compacting {
            limits.compaction_garbage_bytes_min = 0;
            limits.compaction_chunk_count_slack = 0;
        }
        let mut model = Self {
            world: World::new(limits),
            sent: Vec::new(),
            held: Vec::new(),
        };
        model.begin();
        model
    }

    fn begin(&mut self) {
        self.world.subscribe(1, QUEUE, AckMode::ClientIndividual, 1_000);
        self.take();
    }

    fn take(&mut self) {
        let now = self.world.now.wall_ms;
        let entries: BTreeMap<MessageId, u64> = self
            .world
            .broker
            .entries(QUEUE, 0)
            .map(|entry| (entry.message, entry.accepted_at_ms))
            .collect();
        for (delivery, body) in self.world.deliveries() {
            let number: usize = body.parse().unwrap();
            let sent = &mut self.sent[number];
            let Plan { period_ms, count, .. } = sent.plan;
            let due = match (period_ms, count) {
                (_, Some(0)) => sent.first_at_ms,
                _ => entries[&delivery.message],
            };
            assert!(due <= now, "{number} is given early");
            assert!(due >= sent.first_at_ms, "{number} is given before its first time");
            assert_eq!(
                (due - sent.first_at_ms) % period_ms.max(1),
                0,
                "{number} is off its times"
            );
            let before = sent.seen.insert(delivery.message, due);
            assert!(
                before.is_none_or(|before| before == due),
                "one message has two times"
            );
            self.held.push(delivery.tag);
        }
        for (number, sent) in self.sent.iter().enumerate() {
            let mut times: Vec<u64> = sent.seen.values().copied().collect();
            times.sort_unstable();
            let all = times.len();
            times.dedup();
            assert_eq!(times.len(), all, "{number} came twice at one time");
            if let Some(count) = sent.plan.count {
                assert!(all as u64 <= count + 1, "{number} came too often");
            }
        }
    }

    fn due(&mut self) {
        let due = self.world.broker.next_due();
        if due.wall_ms <= self.world.now.wall_ms || due.mono_ms <= self.world.now.mono_ms {
            self.world.broker.handle_due(self.world.now);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.world.now.wall_ms += ms;
        self.world.now.mono_ms += ms;
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Send(plan) => {
                let body = self.sent.len().to_string();
                let first_at_ms = self.world.now.wall_ms + plan.first_ms;
                let last_at_ms = plan.count.map(|count| first_at_ms + count * plan.period_ms);
                let repeat = Repeat::Every {
                    period_ms: plan.period_ms,
                    last_at_ms,
                };
                let tx = plan.staged.then_some(TxNo(1));
                let applied = self.world.ask(|requests| {
                    tx.into_iter()
                        .for_each(|tx| requests.list.push(Request::Begin { tx }));
                    send(requests, QUEUE, &body, plan.persistent, tx);
                    let Some(Request::Send(send)) = requests.list.last_mut() else {
                        panic!("it was just added")
                    };
                    send.terms.due_at_ms = Some(first_at_ms);
                    send.terms.repeat = (plan.count != Some(0)).then_some(repeat);
                    tx.into_iter()
                        .for_each(|tx| requests.list.push(Request::Commit { tx }));
                });
                let Some(refusal) = applied.refusal else {
                    self.world.commit();
                    self.sent.push(Sent {
                        plan: *plan,
                        first_at_ms,
                        seen: BTreeMap::new(),
                        ended: false,
                        lost: false,
                    });
                    return self.take();
                };
                assert_eq!(refusal, Refusal::DiskFull);
            }
            Op::Plain => {
                let plan = Plan {
                    first_ms: 0,
                    period_ms: 0,
                    count: Some(0),
                    persistent: true,
                    staged: false,
                };
                let body = self.sent.len().to_string();
                if self.world.send(QUEUE, &body, None).refusal.is_none() {
                    self.sent.push(Sent {
                        plan,
                        first_at_ms: self.world.now.wall_ms,
                        seen: BTreeMap::new(),
                        ended: false,
                        lost: false,
                    });
                }
                self.world.commit();
            }
            Op::Accept(at) => {
                if !self.held.is_empty() {
                    let tag = self.held.swap_remove(at % self.held.len());
                    assert_eq!(self.world.settle(tag, true, None).refusal, None);
                    self.world.commit();
                }
            }
            Op::Pass(ms) => {
                for _ in 0..*ms {
                    self.pass(1);
                    self.due();
                    self.world.commit();
                    self.take();
                }
            }
            Op::PassUncommitted(ms) => {
                for _ in 0..*ms {
                    self.pass(1);
                    self.due();
                }
                return self.step(&Op::Crash(0));
            }
            Op::Room(room) => self.world.broker.handle_room(*room),
            Op::Crash(ms) => {
                self.pass(*ms);
                self.held.clear();
                for sent in self.sent.iter_mut().filter(|sent| !sent.plan.persistent) {
                    (sent.ended, sent.lost) = (true, true);
                }
                self.world.restart();
                self.begin();
            }
            Op::Purge => {
                self.sent.iter_mut().for_each(|sent| sent.ended = true);
                self.world
                    .broker
                    .handle_act(
                        &Act::Purge {
                            queue: QUEUE.into(),
                            selection: Selection::From(0),
                        },
                        self.world.now,
                    )
                    .unwrap();
                self.world.commit();
            }
            // There and back: what waits keeps its times.
            Op::MoveAway => {
                for (from, to) in [(QUEUE, "b"), ("b", QUEUE)] {
                    let act = Act::Move {
                        from: from.into(),
                        to: to.into(),
                        selection: Selection::From(0),
                    };
                    match self.world.broker.handle_act(&act, self.world.now) {
                        Ok(_) | Err(Refusal::DiskFull | Refusal::QueueUnknown) => {}
                        Err(refusal) => panic!("{refusal}"),
                    }
                    self.world.commit();
                }
            }
        }
        self.take();
    }

    /// Nothing is lost: with time and room, all that was promised has come.
    fn end(mut self) {
        self.world.broker.handle_room(true);
        for _ in 0..1_500 {
            self.step(&Op::Pass(1));
            while !self.held.is_empty() {
                self.step(&Op::Accept(0));
            }
        }
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.ended {
                continue;
            }
            let came = sent.seen.len() as u64;
            match sent.plan.count {
                Some(count) => assert_eq!(came, count + 1, "{number}"),
                None => assert!(came > 0, "{number}"),
            }
        }
        let going_on = |sent: &&Sent| !sent.ended && sent.plan.count.is_none();
        let going_on = self.sent.iter().filter(going_on).count();
        assert_eq!(self.world.depth(QUEUE), going_on as u64);
        assert_eq!(self.world.broker.schedule_count, going_on);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn each_comes_as_often_as_promised(
        ops in proptest::collection::vec(arb_op(), 1..50),
        compacting in any::<bool>(),
    ) {
        let mut model = Model::new(compacting);
        for op in &ops {
            model.step(op);
        }
        model.end();
    }
}

fn schedule(requests: &mut Requests, body: &str, first_at_ms: u64, repeat: Repeat) {
    send(requests, QUEUE, body, true, None);
    let Some(Request::Send(send)) = requests.list.last_mut() else {
        panic!("it was just added")
    };
    (send.terms.due_at_ms, send.terms.repeat) = (Some(first_at_ms), Some(repeat));
}

impl World {
    fn schedule(&mut self, body: &str, first_at_ms: u64, repeat: Repeat) -> Applied {
        let applied = self.ask(|requests| schedule(requests, body, first_at_ms, repeat));
        self.commit();
        applied
    }

    fn pass_to(&mut self, wall_ms: u64) {
        self.now.wall_ms = wall_ms;
        self.broker.handle_due(self.now);
        self.commit();
    }

    fn policy(&mut self, settings: &[(&str, Setting)]) {
        let mut stated = Settings::default();
        for (name, setting) in settings {
            assert!(stated.state(SettingKey::named(name).unwrap(), setting.clone()));
        }
        let mut policies = Policies::new(Limits::default().policy());
        policies.insert(QUEUE, stated);
        self.broker.handle_policies(policies, self.now);
    }
}

fn every(period_ms: u64, last_at_ms: Option<u64>) -> Repeat {
    Repeat::Every {
        period_ms,
        last_at_ms,
    }
}

#[test]
fn what_was_missed_comes_all_where_it_ends_and_once_where_it_goes_on() {
    let mut world = World::new(Limits::default());
    world.schedule("ends", 2_000, every(1_000, Some(6_000)));
    world.schedule("goes on", 2_000, every(1_000, None));
    world.now.wall_ms = 9_500;
    world.restart();
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 100);
    for ms in 9_500..9_510 {
        world.pass_to(ms);
    }
    let mut came = world.bodies();
    came.sort();
    assert_eq!(came, ["ends", "ends", "ends", "ends", "ends", "goes on"]);
    let due: Vec<_> = world
        .broker
        .entries(QUEUE, 0)
        .filter_map(|of| of.due_at_ms)
        .collect();
    assert_eq!(due, [10_000], "the one that goes on keeps its times");
    // Each says when it was due.
    let at = |entry: crate::port::EntryView| (entry.leased).then_some(entry.accepted_at_ms);
    let mut at: Vec<_> = world.broker.entries(QUEUE, 0).filter_map(at).collect();
    at.sort();
    assert_eq!(at, [2_000, 2_000, 3_000, 4_000, 5_000, 6_000]);
}

#[test]
fn what_is_late_comes_one_after_the_other() {
    let mut world = World::new(Limits::default());
    world.schedule("late", 2_000, every(1, Some(1_000_000)));
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 10_000);
    world.now.wall_ms = 500_000;
    world.ask(|requests| {
        send(requests, QUEUE, "new", true, None);
        let Some(Request::Send(send)) = requests.list.last_mut() else {
            panic!("it was just added")
        };
        send.terms.due_at_ms = Some(500_001);
    });
    world.pass_to(500_001);
    world.pass_to(500_002);
    let came = world.bodies();
    assert!(came.len() < 10, "one at a time");
    assert!(came.iter().any(|body| body == "new"), "others come in between");
}

#[test]
fn an_occurrence_waits_for_room_on_the_disk() {
    let mut world = World::new(Limits::default());
    world.schedule("x", 2_000, every(1_000, Some(4_000)));
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 100);
    world.broker.handle_room(false);
    for ms in (2_000..=20_000).step_by(500) {
        world.pass_to(ms);
    }
    assert_eq!(world.bodies(), [""; 0]);
    let told = std::iter::from_fn(|| world.broker.poll_notice());
    let waits = told.filter(|notice| matches!(notice, Notice::OccurrenceWaits { .. }));
    assert_eq!(waits.count(), 1, "told once");
    world.broker.handle_room(true);
    for ms in 21_000..21_010 {
        world.pass_to(ms);
    }
    assert_eq!(world.bodies(), ["x"; 3]);
    assert_eq!(world.broker.schedule_count, 0);
}

#[test]
fn an_occurrence_waits_for_room_in_memory() {
    let mut world = World::new(Limits {
        memory_bytes_max: 10,
        ..Limits::default()
    });
    world.ask(|requests| {
        schedule(requests, "12345678", 2_000, every(1_000, None));
        let Some(Request::Send(send)) = requests.list.last_mut() else {
            panic!("it was just added")
        };
        send.persistent = false;
    });
    world.pass_to(10_000);
    assert_eq!(
        world.depth(QUEUE),
        1,
        "the bytes of two are more than there may be"
    );
}

#[test]
fn an_occurrence_waits_for_a_full_queue_and_does_not_fill_it_by_itself() {
    let mut world = World::new(Limits::default());
    world.policy(&[("message_count_max", Setting::Number(1))]);
    world.schedule("x", 2_000, every(1_000, Some(3_000)));
    assert_eq!(
        world.send(QUEUE, "y", None).refusal,
        None,
        "a schedule does not count"
    );
    world.commit();
    world.pass_to(5_000);
    assert_eq!(world.depth(QUEUE), 2, "it waits");
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 1);
    assert_eq!(world.bodies(), ["y"]);
    world.pass_to(6_000);
    assert_eq!(world.depth(QUEUE), 3, "what is held does not count");
    world.pass_to(7_000);
    assert_eq!(world.depth(QUEUE), 3, "the last waits");
}

#[test]
fn overflow_leaves_schedules_alone() {
    let mut world = World::new(Limits::default());
    world.policy(&[
        ("message_count_max", Setting::Number(1)),
        ("overflow", Setting::Text("drop-head".into())),
    ]);
    world.schedule("x", 2_000, every(1_000, None));
    for body in ["1", "2", "3"] {
        world.send(QUEUE, body, None);
        world.commit();
    }
    world.broker.handle_tick(world.now);
    world.commit();
    assert_eq!(world.depth(QUEUE), 2);
    world.pass_to(2_000);
    world.pass_to(3_000);
    world.broker.handle_tick(world.now);
    world.commit();
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 100);
    assert_eq!(world.bodies(), ["x"], "the newest");
    assert_eq!(world.broker.schedule_count, 1);
}

#[test]
fn a_time_to_live_of_the_queue_is_that_of_each_occurrence() {
    let mut world = World::new(Limits::default());
    world.policy(&[("message_ttl_ms", Setting::Number(5_000))]);
    world.schedule("x", 10_000, every(10_000, None));
    world.pass_to(10_000);
    assert_eq!(world.depth(QUEUE), 2);
    world.pass_to(15_000);
    assert_eq!(world.depth(QUEUE), 2);
    world.pass_to(15_001);
    assert_eq!(
        world.depth(QUEUE),
        1,
        "the occurrence is gone, the schedule is not"
    );
}

#[test]
fn one_that_expires_comes_no_more() {
    let mut world = World::new(Limits::default());
    world.ask(|requests| {
        schedule(requests, "x", 2_000, every(1_000, None));
        let Some(Request::Send(send)) = requests.list.last_mut() else {
            panic!("it was just added")
        };
        send.terms.expires_at_ms = Some(4_000);
    });
    world.commit();
    for ms in (2_000..4_000).step_by(500) {
        world.pass_to(ms);
    }
    assert_eq!(world.depth(QUEUE), 3);
    world.pass_to(4_000);
    assert_eq!(world.depth(QUEUE), 0, "its occurrences have the same time");
    assert_eq!(world.broker.schedule_count, 0);
}

#[test]
fn by_cron_once_for_all_that_were_missed() {
    const MINUTE: u64 = 60_000;
    let mut world = World::new(Limits::default());
    let first = Cron::parse("*/5 * * * *").unwrap().next(NOW.wall_ms).unwrap();
    assert_eq!(first, 5 * MINUTE);
    world.ask(|requests| {
        let text = requests.push_bytes(b"*/5 * * * *");
        schedule(requests, "x", first, Repeat::Cron(text));
    });
    world.commit();
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 100);
    world.pass_to(first - 1);
    assert_eq!(world.bodies(), [""; 0]);
    world.pass_to(first);
    assert_eq!(world.bodies(), ["x"]);
    world.pass_to(2 * first);
    assert_eq!(world.bodies(), ["x"]);
    world.now.wall_ms = 32 * MINUTE;
    world.restart();
    let view = world.broker.entries(QUEUE, 0).next().unwrap();
    assert_eq!(view.schedule.unwrap().cron.as_deref(), Some("*/5 * * * *"));
    world.pass_to(32 * MINUTE);
    let due: Vec<_> = world
        .broker
        .entries(QUEUE, 0)
        .filter_map(|of| of.due_at_ms)
        .collect();
    assert_eq!(due, [35 * MINUTE]);
    assert_eq!(
        world.depth(QUEUE),
        4,
        "the schedule, two that were not settled, one for four"
    );
}

#[test]
fn no_more_schedules_than_there_may_be() {
    let mut world = World::new(Limits {
        schedule_count_max: 2,
        ..Limits::default()
    });
    let more = Some(Refusal::TooManySchedules);
    assert_eq!(world.schedule("1", 2_000, every(1_000, None)).refusal, None);
    let applied = world.ask(|requests| {
        requests.list.push(Request::Begin { tx: TxNo(1) });
        for _ in 0..2 {
            schedule(requests, "x", 2_000, every(1_000, None));
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                panic!("it was just added")
            };
            send.tx = Some(TxNo(1));
        }
        requests.list.push(Request::Commit { tx: TxNo(1) });
    });
    assert_eq!(
        (applied.done, applied.refusal),
        (3, more),
        "a transaction, as a whole"
    );
    assert_eq!(
        world.schedule("2", 2_000, every(1_000, Some(3_000))).refusal,
        None
    );
    assert_eq!(world.schedule("3", 2_000, every(1_000, None)).refusal, more);
    world.restart();
    assert_eq!(world.schedule("3", 2_000, every(1_000, None)).refusal, more);
    world.pass_to(2_000);
    world.pass_to(3_000);
    assert_eq!(
        world.schedule("3", 4_000, every(1_000, None)).refusal,
        None,
        "one has ended"
    );
    let purge = Act::Purge {
        queue: QUEUE.into(),
        selection: Selection::From(0),
    };
    world.broker.handle_act(&purge, world.now).unwrap();
    world.commit();
    assert_eq!(world.broker.schedule_count, 0);
}

#[test]
fn some_are_cancelled_by_a_purge_of_their_sequences() {
    let mut world = World::new(Limits::default());
    world.schedule("keep", 2_000, every(1_000, None));
    world.schedule("cancel", 2_000, every(1_000, None));
    let second = world.broker.entries(QUEUE, 0).nth(1).unwrap().sequence;
    let purge = Act::Purge {
        queue: QUEUE.into(),
        selection: Selection::Sequences(vec![second]),
    };
    assert_eq!(world.broker.handle_act(&purge, world.now).unwrap().count, 1);
    world.commit();
    world.restart();
    world.pass_to(2_000);
    world.subscribe(1, QUEUE, AckMode::ClientIndividual, 100);
    assert_eq!(world.bodies(), ["keep"]);
}
