//! What holds for queues: stated by the configuration, by operators, by queues themselves.

use super::*;
use crate::base::{Policies, Setting, SettingKey, Settings};
use crate::port::Act;

fn stated(list: &[(&str, u64)]) -> Settings {
    let mut settings = Settings::default();
    for (name, number) in list {
        let key = SettingKey::named(name).unwrap();
        assert!(settings.state(key, Setting::Number(*number)));
    }
    settings
}

fn configured(list: &[(&str, Settings)]) -> Policies {
    let mut policies = Policies::new(Limits::default().policy());
    for (pattern, settings) in list {
        policies.insert(pattern, settings.clone());
    }
    policies
}

impl World {
    /// An operator's act.
    fn state(&mut self, pattern: &str, settings: Option<Settings>) -> Result<u64, Refusal> {
        let act = Act::StatePolicy {
            pattern: pattern.into(),
            settings,
        };
        let preview = self.broker.preview(&act).map(|acted| acted.count);
        let acted = self.broker.handle_act(&act, NOW);
        assert_eq!(acted.map(|acted| acted.count), preview);
        if let Ok(acted) = acted {
            assert!(acted.gate > Seq(0), "it is durable before it is told of");
        }
        self.commit();
        preview
    }

    fn declare(&mut self, queue: &str, settings: &Settings) -> Applied {
        self.ask(|requests| {
            let name = requests.push_bytes(queue.as_bytes());
            requests.list.push(Request::Declare {
                name,
                settings: Box::new(settings.clone()),
            });
        })
    }

    fn count_max(&self, queue: &str) -> u64 {
        let view = self.broker.queue_view(queue).unwrap();
        view.policy.message_count_max
    }

    fn dropped(&self, queue: &str) -> u64 {
        self.broker.queue_view(queue).unwrap().counters.dropped_count
    }

    /// The bodies in a queue, oldest first, as a consumer gets them.
    fn take_all(&mut self, queue: &str) -> Vec<String> {
        self.subscribe(77, queue, AckMode::Auto, 1_000);
        let (deliveries, bodies): (Vec<_>, Vec<_>) = self.deliveries().into_iter().unzip();
        if let Some(last) = deliveries.last() {
            self.broker.handle_written(S, last.tag, NOW);
        }
        self.ask(|requests| requests.list.push(Request::Unsubscribe { sub: SubNo(77) }));
        self.commit();
        bodies
    }
}

#[test]
fn what_an_operator_states_counts_before_the_configuration_and_outlives_restarts() {
    let mut world = World::new(Limits::default());
    let config = || {
        configured(&[
            ("a.*", stated(&[("message_count_max", 1)])),
            ("b", stated(&[("message_count_max", 2)])),
        ])
    };
    world.broker.handle_policies(config(), NOW);
    world.send("a.x", "1", None);
    world.send("b", "1", None);
    world.commit();
    assert_eq!((world.count_max("a.x"), world.count_max("b")), (1, 2));
    assert_eq!(
        world.state("a.*", Some(stated(&[("message_count_max", 5)]))),
        Ok(1)
    );
    assert_eq!(world.state(">", Some(stated(&[("message_bytes_max", 9)]))), Ok(2));
    assert_eq!((world.count_max("a.x"), world.count_max("b")), (5, 2));
    let stored = |world: &World| -> Vec<(String, bool)> {
        let views = world.broker.policies().into_iter();
        views
            .map(|view| (view.pattern.to_string(), view.stored))
            .collect()
    };
    let expect = [("a.*", true), ("b", false), (">", true)].map(|(name, stored)| (name.to_owned(), stored));
    let mut shown = stored(&world);
    shown.sort_by_key(|(name, _)| expect.iter().position(|(other, _)| other == name));
    assert_eq!(shown, expect);
    world.restart();
    world.broker.handle_policies(config(), NOW);
    assert_eq!((world.count_max("a.x"), world.count_max("b")), (5, 2));
    // The configuration's own is back once the operator's is taken back.
    assert_eq!(
        world.state("a.#", None),
        Err(Refusal::PolicyUnknown),
        "another pattern"
    );
    assert_eq!(world.state("a.*", None), Ok(1));
    assert_eq!(
        world.state("b", None),
        Err(Refusal::PolicyUnknown),
        "it is of the configuration"
    );
    assert_eq!(world.count_max("a.x"), 1);
    world.restart();
    world.broker.handle_policies(config(), NOW);
    assert_eq!((world.count_max("a.x"), world.count_max("b")), (1, 2));
}

/// Also where the fact that states a policy is the oldest that there is.
#[test]
fn a_policy_survives_compaction() {
    let mut world = World::new(Limits {
        compaction_garbage_bytes_min: 0,
        compaction_chunk_count_slack: 0,
        ..Limits::default()
    });
    world
        .state("a", Some(stated(&[("message_count_max", 5)])))
        .unwrap();
    world
        .state("gone", Some(stated(&[("message_count_max", 5)])))
        .unwrap();
    world.state("gone", None).unwrap();
    world.declare("d", &stated(&[("message_count_max", 6)]));
    world.commit();
    let first = world.chunks.first().unwrap().seq;
    for _ in 0..50 {
        world.send("a", "x", None);
        world.commit();
        world.take_all("a");
    }
    assert!(world.chunks.first().unwrap().seq > first, "the log was compacted");
    world.restart();
    let patterns: Vec<_> = world
        .broker
        .policies()
        .into_iter()
        .map(|view| view.pattern.to_string())
        .collect();
    assert_eq!(patterns, ["a"]);
    assert_eq!(world.count_max("d"), 6);
}

#[test]
fn policies_and_declarations_are_bounded() {
    let mut world = World::new(Limits {
        policy_count_max: 2,
        declared_queue_count_max: 2,
        ..Limits::default()
    });
    let some = || stated(&[("message_count_max", 5)]);
    for pattern in ["a", "b"] {
        world.state(pattern, Some(some())).unwrap();
        assert_eq!(world.declare(pattern, &some()).refusal, None);
    }
    assert_eq!(world.state("c", Some(some())), Err(Refusal::TooManyPolicies));
    assert_eq!(
        world.state("b", Some(stated(&[]))),
        Ok(0),
        "another statement of the same, which its declaration beats"
    );
    assert_eq!(
        world.declare("c", &some()).refusal,
        Some(Refusal::TooManyDeclared)
    );
    world.commit();
    let act = Act::Delete {
        queue: "a".into(),
        force: false,
    };
    world.broker.handle_act(&act, NOW).unwrap();
    world.commit();
    assert_eq!(world.declare("c", &some()).refusal, None);
    assert!(
        world.broker.queue_view("a").is_none(),
        "nothing is left of a declared queue that was deleted"
    );
}

#[test]
fn a_queue_is_what_it_first_declared_until_it_is_deleted() {
    let mut world = World::new(Limits::default());
    world
        .state(
            "a",
            Some(stated(&[("message_count_max", 5), ("message_bytes_max", 50)])),
        )
        .unwrap();
    let declared = stated(&[("message_count_max", 3)]);
    let applied = world.declare("a", &declared);
    assert_eq!(applied.refusal, None);
    assert!(applied.gate > Seq(0));
    assert_eq!(world.declare("a", &declared).refusal, None);
    world.commit();
    assert_eq!(
        world.declare("a", &stated(&[("message_count_max", 4)])).refusal,
        Some(Refusal::DeclarationDiffers)
    );
    world.restart();
    let view = world
        .broker
        .queue_view("a")
        .expect("it stays although it is empty");
    assert_eq!(
        (view.policy.message_count_max, view.policy.message_bytes_max),
        (3, 50)
    );
    assert_eq!(view.declared, declared);
}

#[test]
fn a_full_queue_refuses_the_whole_frame() {
    for persistent in [true, false] {
        let mut world = World::new(Limits::default());
        world
            .state(
                "a",
                Some(stated(&[("message_count_max", 2), ("message_bytes_max", 10)])),
            )
            .unwrap();
        let refusal = |world: &mut World, body: &str| {
            world
                .ask(|requests| send(requests, "a", body, persistent, None))
                .refusal
        };
        assert_eq!(
            refusal(&mut world, "12345678901"),
            Some(Refusal::QueueFull),
            "too large even alone"
        );
        assert!(
            world.broker.queue_view("a").is_none(),
            "what was refused left no trace"
        );
        assert_eq!(refusal(&mut world, "1234567890"), None);
        assert_eq!(
            refusal(&mut world, "1"),
            Some(Refusal::QueueFull),
            "one byte too many"
        );
        world.commit();
        assert_eq!(world.take_all("a"), ["1234567890"]);
        assert_eq!(refusal(&mut world, "1"), None);
        assert_eq!(refusal(&mut world, "2"), None);
        assert_eq!(
            refusal(&mut world, ""),
            Some(Refusal::QueueFull),
            "one message too many"
        );
        world.commit();
        // What a client holds does not count.
        world.subscribe(1, "a", AckMode::ClientIndividual, 1);
        assert_eq!(world.bodies(), ["1"]);
        assert_eq!(refusal(&mut world, "3"), None);
        assert_eq!(refusal(&mut world, "4"), Some(Refusal::QueueFull));
    }
}

#[test]
fn a_transaction_is_refused_whole_where_one_queue_of_it_is_full() {
    let mut world = World::new(Limits::default());
    world
        .state("a", Some(stated(&[("message_count_max", 2)])))
        .unwrap();
    for (count, refusal) in [
        (3, Some(Refusal::QueueFull)),
        (2, None),
        (1, Some(Refusal::QueueFull)),
    ] {
        let tx = TxNo(1);
        world.ask(|requests| requests.list.push(Request::Begin { tx }));
        for _ in 0..count {
            assert_eq!(world.send("a", "x", Some(tx)).refusal, None);
            assert_eq!(world.send("b", "x", Some(tx)).refusal, None);
        }
        let applied = world.ask(|requests| requests.list.push(Request::Commit { tx }));
        assert_eq!(applied.refusal, refusal, "{count}");
        world.commit();
    }
    assert_eq!((world.depth("a"), world.depth("b")), (2, 2));
    assert_eq!(world.broker.holdings().staged_bytes, 0);
}

fn dropping(count_max: u64) -> Settings {
    let mut settings = stated(&[("message_count_max", count_max)]);
    let key = SettingKey::named("overflow").unwrap();
    assert!(settings.state(key, Setting::Text("drop-head".into())));
    settings
}

#[test]
fn a_full_queue_lets_its_oldest_go_if_it_says_so() {
    for persistent in [true, false] {
        let mut world = World::new(Limits::default());
        world.state("a", Some(dropping(2))).unwrap();
        for body in ["1", "2", "3", "4"] {
            assert_eq!(
                world
                    .ask(|requests| send(requests, "a", body, persistent, None))
                    .refusal,
                None
            );
        }
        world.commit();
        assert_eq!((world.depth("a"), world.dropped("a")), (2, 2));
        assert_eq!(world.broker.counters().dropped_count, 2);
        // What is held stays, and what comes back to its old place is the next to go.
        world.subscribe(1, "a", AckMode::ClientIndividual, 1);
        let held = world.deliveries();
        assert_eq!(held[0].1, "3");
        world.ask(|requests| send(requests, "a", "5", persistent, None));
        assert_eq!((world.depth("a"), world.dropped("a")), (3, 2));
        world.ask(|requests| requests.list.push(Request::Unsubscribe { sub: SubNo(1) }));
        world.ask(|requests| send(requests, "a", "6", persistent, None));
        world.commit();
        assert_eq!(world.dropped("a"), 4);
        if persistent {
            world.restart();
        }
        assert_eq!(world.take_all("a"), ["5", "6"]);
        assert_eq!(world.broker.holdings().transient_bytes, 0);
    }
}

/// At once where it is a few, by and by where it is many.
#[test]
fn a_new_bound_is_kept_by_what_is_there() {
    let mut world = World::new(Limits::default());
    for number in 0..2_500 {
        world.send("a", &number.to_string(), None);
    }
    world.commit();
    world.state("a", Some(dropping(10))).unwrap();
    assert!(world.depth("a") < 2_500);
    world.broker.handle_tick(NOW);
    world.commit();
    assert_eq!((world.depth("a"), world.dropped("a")), (10, 2_490));
    world.restart();
    assert_eq!(world.take_all("a")[0], "2490");
}

/// Nothing that was accepted once is refused, or lost unless somebody said so.
#[test]
fn what_comes_from_elsewhere_is_bounded_by_drop_head_alone() {
    for (settings, depth) in [(stated(&[("message_count_max", 1)]), 3), (dropping(1), 1)] {
        let mut world = World::new(Limits {
            deliveries_failed_max: 1,
            ..Limits::default()
        });
        world.state("DLQ.a", Some(settings)).unwrap();
        for body in ["1", "2", "3"] {
            world.send("a", body, None);
        }
        world.commit();
        world.subscribe(1, "a", AckMode::ClientIndividual, 10);
        for (delivery, _) in world.deliveries() {
            assert_eq!(world.settle(delivery.tag, false, None).refusal, None);
        }
        world.commit();
        assert_eq!(world.depth("DLQ.a"), depth);
    }
}

#[test]
fn a_queue_says_when_messages_expire_that_do_not_say_so() {
    for persistent in [true, false] {
        let mut world = World::new(Limits::default());
        world
            .state("a", Some(stated(&[("message_ttl_ms", 500)])))
            .unwrap();
        world.ask(|requests| send(requests, "a", "the queue's", persistent, None));
        world.ask(|requests| {
            send(requests, "a", "its own", persistent, None);
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                panic!("it was just added")
            };
            send.terms.expires_at_ms = Some(NOW.wall_ms + 1_000);
        });
        world.commit();
        if persistent {
            world.restart();
        }
        let mut depth_at = |ms: u64| {
            let now = Now {
                wall_ms: NOW.wall_ms + ms,
                mono_ms: ms,
            };
            world.broker.handle_tick(now);
            world.commit();
            world.depth("a")
        };
        assert_eq!([500, 501, 999, 1_000].map(&mut depth_at), [2, 1, 1, 0]);
    }
}
