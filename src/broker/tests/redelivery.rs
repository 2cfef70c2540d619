//! Rests, leases and dead letters, against a model small enough to be seen through.

use proptest::prelude::*;

use super::*;
use crate::base::{Policies, Setting, SettingKey, Settings};
use crate::port::Why;

const QUEUE: &str = "a";

/// What a message is, by the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ready,
    /// Not to be delivered before.
    Rests(u64),
    /// Held by a tag; until when, if it has a lease, and for how long it was given.
    Held(Tag, Option<u64>, u64),
    Settled,
    Dead,
}

#[derive(Debug, Clone)]
enum Op {
    Send(Option<u64>),
    Accept(usize),
    Fail(usize, Option<u64>),
    Reject(usize),
    Renew(usize, Option<u64>),
    Pass(u64),
    Crash,
    Stop,
}

fn arb_op() -> impl Strategy<Value = Op> {
    let ms = || prop_oneof![Just(0_u64), 1..40_u64];
    prop_oneof![
        4 => proptest::option::of(ms()).prop_map(Op::Send),
        2 => any::<usize>().prop_map(Op::Accept),
        4 => (any::<usize>(), proptest::option::of(ms())).prop_map(|(at, ms)| Op::Fail(at, ms)),
        1 => any::<usize>().prop_map(Op::Reject),
        2 => (any::<usize>(), proptest::option::of(ms())).prop_map(|(at, ms)| Op::Renew(at, ms)),
        5 => (1..60_u64).prop_map(Op::Pass),
        1 => Just(Op::Crash),
        1 => Just(Op::Stop),
    ]
}

/// The rests of the policy: 10, 20, 40, 50, 50 ms.
fn rest_ms(failures: u32) -> u64 {
    [10, 20, 40].get(failures as usize - 1).copied().unwrap_or(50)
}

const FAILURES_MAX: u32 = 6;
const ACK_TIMEOUT_MS: u64 = 30;

struct Model {
    world: World,
    now: Now,
    /// By body: what it is, its failures, what it says of its lease.
    messages: Vec<(State, u32, Option<u64>)>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            world: World::new(Limits {
                compaction_garbage_bytes_min: 0,
                compaction_chunk_count_slack: 0,
                ..Limits::default()
            }),
            now: NOW,
            messages: Vec::new(),
        };
        model.begin();
        model
    }

    fn begin(&mut self) {
        let mut settings = Settings::default();
        for (name, number) in [
            ("redelivery_delay_ms", 10),
            ("redelivery_delay_percent", 200),
            ("redelivery_delay_ms_max", 50),
            ("deliveries_failed_max", u64::from(FAILURES_MAX)),
            ("ack_timeout_ms", ACK_TIMEOUT_MS),
        ] {
            assert!(settings.state(SettingKey::named(name).unwrap(), Setting::Number(number)));
        }
        let mut policies = Policies::new(Limits::default().policy());
        policies.insert(QUEUE, settings);
        self.world.broker.handle_policies(policies, self.now);
        self.ask(|requests| {
            subscribe(
                requests,
                1,
                DestinationKind::Queue,
                QUEUE,
                (AckMode::ClientIndividual, 3),
            );
        });
    }

    fn ask(&mut self, fill: impl FnOnce(&mut Requests)) -> Applied {
        let mut requests = Requests::default();
        fill(&mut requests);
        let applied = self.world.broker.handle_requests(S, &requests, self.now);
        self.world.commit_at(self.now);
        applied
    }

    /// What the broker gave must be what may be given.
    fn take(&mut self) {
        for (delivery, body) in self.world.deliveries() {
            let number: usize = body.parse().unwrap();
            let (state, failures, stated) = &mut self.messages[number];
            match state {
                State::Ready => {}
                State::Rests(until) => assert!(*until <= self.now.wall_ms, "{number} is given early"),
                other => panic!("{number} is given although it is {other:?}"),
            }
            assert!(*failures < FAILURES_MAX);
            let span = stated.unwrap_or(ACK_TIMEOUT_MS);
            let lease = (span > 0).then(|| self.now.mono_ms_after(span));
            *state = State::Held(delivery.tag, lease, span);
        }
    }

    fn failed(&mut self, number: usize, delay_ms: Option<u64>) {
        let (state, failures, _) = &mut self.messages[number];
        *failures += 1;
        let rest = delay_ms.unwrap_or(rest_ms(*failures));
        *state = match *failures {
            FAILURES_MAX => State::Dead,
            _ if rest == 0 => State::Ready,
            _ => State::Rests(self.now.wall_ms_after(rest)),
        };
    }

    fn held(&self, at: usize) -> Option<(usize, Tag)> {
        let held: Vec<(usize, Tag)> = (0..)
            .zip(&self.messages)
            .filter_map(|(number, (state, ..))| match state {
                State::Held(tag, ..) => Some((number, *tag)),
                _ => None,
            })
            .collect();
        held.get(at % held.len().max(1)).copied()
    }

    fn settle(&mut self, tag: Tag, outcome: Outcome, delay_ms: Option<u64>) {
        let why = delay_ms.map(|ms| {
            Box::new(Why {
                delay_ms: Some(ms),
                words: "because".into(),
            })
        });
        let applied = self.ask(|requests| {
            requests.list.push(Request::Settle(Settle {
                delivery: DeliveryKey::Tag(tag),
                outcome,
                why,
                tx: None,
            }));
        });
        assert_eq!(applied.refusal, None);
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Send(ack_timeout_ms) => {
                let body = self.messages.len().to_string();
                self.messages.push((State::Ready, 0, *ack_timeout_ms));
                let ack_timeout_ms = *ack_timeout_ms;
                self.ask(|requests| {
                    send(requests, QUEUE, &body, true, None);
                    let Some(Request::Send(send)) = requests.list.last_mut() else {
                        panic!("it was just added")
                    };
                    send.terms.ack_timeout_ms = ack_timeout_ms;
                });
            }
            Op::Accept(at) => {
                if let Some((number, tag)) = self.held(*at) {
                    self.messages[number].0 = State::Settled;
                    self.settle(tag, Outcome::Accepted, None);
                }
            }
            Op::Fail(at, delay_ms) => {
                if let Some((number, tag)) = self.held(*at) {
                    self.failed(number, *delay_ms);
                    self.settle(tag, Outcome::Failed, *delay_ms);
                }
            }
            Op::Reject(at) => {
                if let Some((number, tag)) = self.held(*at) {
                    self.messages[number].0 = State::Dead;
                    self.settle(tag, Outcome::Rejected, None);
                }
            }
            Op::Renew(at, span) => {
                if let Some((number, tag)) = self.held(*at) {
                    let State::Held(_, lease, before) = &mut self.messages[number].0 else {
                        panic!("it is held")
                    };
                    *before = span.unwrap_or(*before);
                    *lease = (*before > 0).then(|| self.now.mono_ms_after(*before));
                    let (delivery, ack_timeout_ms) = (DeliveryKey::Tag(tag), *span);
                    let applied = self.ask(|requests| {
                        requests.list.push(Request::Renew {
                            delivery,
                            ack_timeout_ms,
                        });
                    });
                    assert_eq!(applied.refusal, None);
                }
            }
            Op::Pass(ms) => {
                for _ in 0..*ms {
                    self.now = Now {
                        wall_ms: self.now.wall_ms + 1,
                        mono_ms: self.now.mono_ms + 1,
                    };
                    let now = self.now;
                    for number in 0..self.messages.len() {
                        if let State::Held(_, Some(until), _) = self.messages[number].0
                            && until <= now.mono_ms
                        {
                            self.failed(number, None);
                        }
                    }
                    let due = self.world.broker.next_due();
                    if due.wall_ms <= now.wall_ms || due.mono_ms <= now.mono_ms {
                        self.world.broker.handle_due(now);
                    }
                    self.world.commit_at(now);
                    self.take();
                }
            }
            Op::Crash | Op::Stop => {
                if let Op::Stop = op {
                    self.world.broker.handle_stop(self.now);
                    self.world.commit_at(self.now);
                }
                self.world.restart_at(self.now);
                for (state, ..) in &mut self.messages {
                    if let State::Held(..) = state {
                        *state = State::Ready;
                    }
                }
                self.begin();
            }
        }
        self.take();
    }

    /// Nothing is lost, and everything that may be given comes.
    fn end(mut self) {
        for _ in 0..100 {
            while let Some((number, tag)) = self.held(0) {
                self.messages[number].0 = State::Settled;
                self.settle(tag, Outcome::Accepted, None);
                self.take();
            }
            self.step(&Op::Pass(1));
        }
        for (number, (state, ..)) in self.messages.iter().enumerate() {
            assert!(
                matches!(state, State::Settled | State::Dead),
                "{number} is {state:?}"
            );
        }
        let dead = self.messages.iter().filter(|(state, ..)| *state == State::Dead);
        assert_eq!(self.world.depth("DLQ.a"), dead.count() as u64);
        assert_eq!(self.world.depth(QUEUE), 0);
        assert_eq!(
            self.world.broker.leases.len(),
            0,
            "no lease outlives its delivery"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rests_and_leases_are_kept(ops in proptest::collection::vec(arb_op(), 1..60)) {
        let mut model = Model::new();
        for op in &ops {
            model.step(op);
        }
        model.end();
    }
}

/// A RECEIPT says that the failure is counted for good: that of the lease, where the NACK came behind its end.
#[test]
fn a_nack_behind_the_end_of_its_lease_waits_for_what_that_stated() {
    let mut model = Model::new();
    model.ask(|requests| send(requests, QUEUE, "0", true, None));
    let tag = model.world.deliveries()[0].0.tag;
    let now = Now {
        mono_ms: NOW.mono_ms_after(ACK_TIMEOUT_MS),
        wall_ms: NOW.wall_ms_after(ACK_TIMEOUT_MS),
    };
    model.world.broker.handle_tick(now);
    assert!(model.world.broker.has_batch(), "the lapse is stated");
    let mut requests = Requests::default();
    requests.list.push(Request::Settle(Settle {
        delivery: DeliveryKey::Tag(tag),
        outcome: Outcome::Failed,
        why: None,
        tx: None,
    }));
    let applied = model.world.broker.handle_requests(S, &requests, now);
    assert_eq!(applied.refusal, None);
    assert!(applied.gate > model.world.last.last_seq, "{applied:?}");
}

/// The newest first, over requeues and restarts, and no more than some.
#[test]
fn a_dead_letter_keeps_its_history() {
    let mut world = World::new(Limits {
        deliveries_failed_max: 1,
        ..Limits::default()
    });
    world.send("a", "x", None);
    world.commit();
    for round in 0..10_u32 {
        world.subscribe(round + 1, "a", AckMode::ClientIndividual, 1);
        let tag = world.deliveries()[0].0.tag;
        let words = format!("round {round}");
        world.ask(|requests| {
            requests.list.push(Request::Settle(Settle {
                delivery: DeliveryKey::Tag(tag),
                outcome: if round % 2 == 0 {
                    Outcome::Failed
                } else {
                    Outcome::Rejected
                },
                why: Some(Box::new(Why {
                    delay_ms: None,
                    words: words.as_str().into(),
                })),
                tx: None,
            }));
        });
        world.ask(|requests| {
            requests.list.push(Request::Unsubscribe {
                sub: SubNo(round + 1),
            })
        });
        world.commit();
        world.restart();
        let entry = world.broker.entries("DLQ.a", 0).next().unwrap();
        assert_eq!(entry.origin.as_deref(), Some("a"));
        let told: Vec<_> = entry
            .deaths
            .iter()
            .map(|death| (&*death.queue, death.reason.name(), death.words.to_string()))
            .collect();
        let expect: Vec<_> = (0..=round)
            .rev()
            .take(8)
            .map(|of| {
                (
                    "a",
                    ["failures", "rejected"][of as usize % 2],
                    format!("round {of}"),
                )
            })
            .collect();
        assert_eq!(told, expect);
        let act = Act::Requeue {
            queue: "DLQ.a".into(),
            selection: Selection::From(0),
        };
        assert_eq!(world.broker.handle_act(&act, NOW).unwrap().count, 1);
        world.commit();
    }
}
