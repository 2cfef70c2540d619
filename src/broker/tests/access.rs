//! Rules: every request of everybody is judged as they say, whatever was judged before.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{Action, Actions, Destinations, Principal, Rule, Rules, Who};

/// Whom the sessions act for.
fn principals() -> [Principal; 3] {
    let named = |name: &str, groups: &[&str]| Principal {
        name: Some(name.into()),
        groups: groups.iter().map(|group| (*group).into()).collect(),
    };
    [named("x", &["g"]), named("y", &[]), Principal::default()]
}

fn rule(allows: bool, actions: &[&str], who: &str, on: &[String]) -> Rule {
    Rule {
        allows,
        actions: Actions::parse(actions.iter().copied()).unwrap(),
        principals: [Who::parse(who).unwrap()].into(),
        destinations: on.iter().map(|on| Destinations::parse(on).unwrap()).collect(),
        line: 1,
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let on = prop::collection::vec("/(queue|topic)/((a|b)\\.)?(a|b|\\*|>)", 1..3);
    let actions = prop::collection::vec(prop::sample::select(vec!["send", "receive", "create", "*"]), 1..3);
    let who = prop::sample::select(vec!["*", "anonymous", "x", "group:g"]);
    let one = (prop::bool::weighted(0.7), actions, who, on)
        .prop_map(|(allows, actions, who, on)| rule(allows, &actions, who, &on));
    prop::collection::vec(one, 0..6).prop_map(|list| {
        let mut rules = Rules::default();
        list.into_iter().for_each(|rule| rules.push(rule));
        rules
    })
}

#[derive(Debug, Clone)]
enum Op {
    /// Of a session, to these, in a transaction that is committed at once.
    Send(usize, Vec<(DestinationKind, String)>, bool),
    Subscribe(usize, DestinationKind, String),
    Rules(Rules),
}

fn any_op() -> impl Strategy<Value = Op> {
    let name = "((a|b)\\.)?(a|b)";
    let kind = || prop::sample::select(vec![DestinationKind::Queue, DestinationKind::Topic]);
    let to = prop::collection::vec((kind(), name), 1..3);
    let pattern = prop_oneof![Just(">".to_owned()), "((a|b|\\*)\\.)?(a|b|\\*)"];
    prop_oneof![
        6 => (0..3_usize, to, any::<bool>()).prop_map(|(of, to, tx)| Op::Send(of, to, tx)),
        2 => (0..3_usize, name).prop_map(|(of, name)| Op::Subscribe(of, DestinationKind::Queue, name)),
        3 => (0..3_usize, pattern).prop_map(|(of, name)| Op::Subscribe(of, DestinationKind::Topic, name)),
        2 => any_rules().prop_map(Op::Rules),
    ]
}

/// Sessions, what each has subscribed to, and the rules that hold.
struct Stage {
    world: World,
    rules: Rules,
    sessions: [SessionNo; 3],
    subs: [Vec<(SubNo, DestinationKind, String)>; 3],
    last: u64,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            world: World::new(Limits::default()),
            rules: Rules::default(),
            sessions: [S; 3],
            subs: Default::default(),
            last: 1,
        };
        (0..3).for_each(|of| stage.log_in(of));
        stage
    }

    fn log_in(&mut self, of: usize) {
        self.world.broker.handle_close(self.sessions[of], NOW);
        self.last += 1;
        self.sessions[of] = SessionNo(self.last);
        self.subs[of].clear();
        self.world.broker.handle_open(self.sessions[of]);
        let principal = Arc::new(principals()[of].clone());
        let applied = self.ask(of, |requests| requests.list.push(Request::ActFor { principal }));
        assert_eq!((applied.done, applied.refusal), (1, None));
    }

    fn ask(&mut self, of: usize, fill: impl FnOnce(&mut Requests)) -> Applied {
        let mut requests = Requests::default();
        fill(&mut requests);
        let applied = self
            .world
            .broker
            .handle_requests(self.sessions[of], &requests, NOW);
        self.world.commit();
        applied
    }

    fn may(&self, of: usize, action: Action, kind: DestinationKind, name: &str) -> bool {
        self.rules.decide(&principals()[of], action, kind, name).allowed
    }

    fn may_subscribe(&self, of: usize, kind: DestinationKind, name: &str) -> bool {
        match kind {
            DestinationKind::Topic => {
                self.rules
                    .decide_some(&principals()[of], Action::Receive, kind, name)
                    .allowed
            }
            _ => self.may(of, Action::Receive, kind, name),
        }
    }

    fn is_there(&self, queue: &str) -> bool {
        self.world.broker.queues().any(|view| &*view.name == queue)
    }

    fn may_make(&self, of: usize, kind: DestinationKind, name: &str) -> bool {
        kind == DestinationKind::Topic || self.is_there(name) || self.may(of, Action::Create, kind, name)
    }

    /// What a session was given, by subscription.
    fn given(&mut self, of: usize) -> Vec<(SubNo, String)> {
        let mut events = Vec::new();
        self.world
            .broker
            .poll_events(self.sessions[of], usize::MAX, &mut events);
        let given = events.into_iter().map(|event| match event {
            Event::Delivery(delivery) => {
                let body = self.world.body(&delivery.body, delivery.len);
                self.world
                    .broker
                    .handle_written(self.sessions[of], delivery.tag, NOW);
                (delivery.sub, body)
            }
            Event::Evicted(refusal) => panic!("evicted: {refusal}"),
        });
        let given = given.collect();
        self.world.commit();
        given
    }

    fn send(&mut self, of: usize, to: &[(DestinationKind, String)], tx: bool) {
        let expected = to
            .iter()
            .all(|(kind, name)| self.may(of, Action::Send, *kind, name) && self.may_make(of, *kind, name));
        let before: Vec<(String, u64)> = self.depths();
        let body: Vec<&str> = to.iter().map(|(_, name)| name.as_str()).collect();
        let tx = tx.then_some(TxNo(1));
        let applied = self.ask(of, |requests| {
            let mut targets: Vec<Target> = to
                .iter()
                .map(|(kind, name)| Target {
                    kind: *kind,
                    name: requests.push_bytes(name.as_bytes()),
                })
                .collect();
            let payload = Payload::Arena(requests.push_bytes(body.join(",").as_bytes()));
            requests.list.extend(tx.map(|tx| Request::Begin { tx }));
            requests.list.push(Request::Send(Send {
                to: targets.remove(0),
                also: targets,
                payload,
                header_len: 0,
                persistent: true,
                terms: Terms::default(),
                dedup: None,
                tx,
            }));
            requests.list.extend(tx.map(|tx| Request::Commit { tx }));
        });
        if !expected {
            assert_eq!(applied.refusal, Some(Refusal::AccessDenied), "{to:?}");
            assert!(applied.denied.is_some());
            assert_eq!(self.depths(), before, "what was refused left no trace");
            (0..3).for_each(|of| assert_eq!(self.given(of), []));
            return self.log_in(of);
        }
        assert_eq!((applied.refusal, applied.denied), (None, None), "{to:?}");
        for of in 0..3 {
            let given = self.given(of);
            for (sub, body) in &given {
                let topics = body.split(',');
                let (_, kind, pattern) = self.subs[of].iter().find(|(no, ..)| no == sub).unwrap();
                let readable = |topic: &str| match kind {
                    DestinationKind::Topic => {
                        matches_naive(pattern, topic) && self.may(of, Action::Receive, *kind, topic)
                    }
                    _ => pattern == topic,
                };
                assert!(topics.into_iter().any(readable), "{of} got {body} by {pattern}");
            }
            // And everybody who may gets it: once for each topic, since each is one message of its own there.
            let topics: BTreeSet<&str> = to
                .iter()
                .filter(|(kind, _)| *kind == DestinationKind::Topic)
                .map(|(_, name)| name.as_str())
                .collect();
            for (no, _, pattern) in self.subs[of]
                .iter()
                .filter(|(_, kind, _)| *kind == DestinationKind::Topic)
            {
                let wanted = topics.iter().filter(|topic| {
                    matches_naive(pattern, topic)
                        && self.may(of, Action::Receive, DestinationKind::Topic, topic)
                });
                let got = given.iter().filter(|(sub, _)| sub == no);
                assert_eq!(got.count(), wanted.count(), "{of} by {pattern}: {topics:?}");
            }
        }
    }

    fn depths(&self) -> Vec<(String, u64)> {
        let queues = self.world.broker.queues();
        queues.map(|view| (view.name.to_string(), view.depth)).collect()
    }

    fn subscribe(&mut self, of: usize, kind: DestinationKind, name: &str) {
        let expected = self.may_subscribe(of, kind, name) && self.may_make(of, kind, name);
        let no = self.subs[of].last().map_or(1, |(no, ..)| no.0 + 1);
        let applied = self.ask(of, |requests| {
            super::subscribe(requests, no, kind, name, (AckMode::Auto, 1_000));
        });
        match expected {
            true => {
                assert_eq!(applied.refusal, None, "{name}");
                self.subs[of].push((SubNo(no), kind, name.to_owned()));
                self.given(of);
            }
            false => {
                assert_eq!(applied.refusal, Some(Refusal::AccessDenied), "{name}");
                self.log_in(of);
            }
        }
    }

    fn set_rules(&mut self, rules: Rules) {
        self.rules = rules.clone();
        self.world.broker.handle_rules(Arc::new(rules), NOW);
        for of in 0..3 {
            let lost = self.subs[of]
                .iter()
                .any(|(_, kind, name)| !self.may_subscribe(of, *kind, name));
            assert_eq!(self.world.broker.is_evicted(self.sessions[of]), lost);
            if lost {
                self.log_in(of);
            }
        }
    }
}

/// Level by level; `>` is all below, and the level itself.
fn matches_naive(pattern: &str, topic: &str) -> bool {
    let (pattern, topic): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), topic.split('.').collect());
    match pattern[..] {
        [">"] => true,
        _ => {
            let level = |(of, is): (&&str, &&str)| *of == "*" || of == is;
            pattern.len() == topic.len() && pattern.iter().zip(&topic).all(level)
        }
    }
}

proptest! {
    #[test]
    fn whatever_was_judged_before_each_request_is_judged_as_the_rules_say(
        first in any_rules(),
        ops in prop::collection::vec(any_op(), 1..40),
    ) {
        let mut stage = Stage::new();
        stage.set_rules(first);
        for op in ops {
            match op {
                Op::Send(of, to, tx) => stage.send(of, &to, tx),
                Op::Subscribe(of, kind, name) => stage.subscribe(of, kind, &name),
                Op::Rules(rules) => stage.set_rules(rules),
            }
        }
    }
}

#[test]
fn more_names_than_are_remembered_and_long_ones_are_judged_all_the_same() {
    let mut stage = Stage::new();
    let mut rules = Rules::default();
    rules.push(rule(false, &["send"], "*", &["/queue/no.>".to_owned()]));
    rules.push(rule(true, &["send", "create"], "*", &["/queue/>".to_owned()]));
    stage.set_rules(rules);
    let long = "x".repeat(10_000);
    for round in 0..2 {
        for no in 0..300 {
            let name = format!("{no}{}", if no % 7 == 0 { &*long } else { "" });
            stage.send(0, &[(DestinationKind::Queue, name.clone())], false);
            stage.send(1, &[(DestinationKind::Queue, format!("no.{name}"))], round == 0);
        }
    }
    assert_eq!(stage.depths().len(), 300);
    let remembered = stage.world.broker.peers[&stage.sessions[0]].verdicts.name_count();
    assert!((1..=64).contains(&remembered), "{remembered}");
}

#[test]
fn who_acts_for_another_keeps_no_subscription_that_this_one_may_not_have() {
    let mut stage = Stage::new();
    let mut rules = Rules::default();
    rules.push(rule(
        true,
        &["*"],
        "x",
        &["/topic/a".to_owned(), "/queue/a".to_owned()],
    ));
    rules.push(rule(true, &["receive"], "y", &["/topic/a".to_owned()]));
    stage.set_rules(rules);
    let [_, y, _] = principals().map(Arc::new);
    stage.subscribe(0, DestinationKind::Topic, "a");
    let act_for = |stage: &mut Stage| {
        let principal = Arc::clone(&y);
        stage.ask(0, |requests| requests.list.push(Request::ActFor { principal }))
    };
    assert_eq!(act_for(&mut stage).refusal, None);
    stage.log_in(0);
    stage.subscribe(0, DestinationKind::Queue, "a");
    let applied = act_for(&mut stage);
    assert_eq!(applied.refusal, Some(Refusal::AccessDenied));
    let denied = applied.denied.unwrap();
    assert_eq!(
        (denied.action, &*denied.destination),
        (Action::Receive, "/queue/a")
    );
}
