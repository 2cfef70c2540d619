//! Which message goes next, and to whom: priorities, groups, times, exclusive consumers and those of a higher priority, against a
//! model small enough to be seen through.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::*;
use crate::port::{Filter, PRIORITY_DEFAULT, Terms, Why};

const QUEUE: &str = "a";
const FAILURES_MAX: u32 = 3;

#[derive(Debug, Clone)]
enum Op {
    Send {
        priority: u8,
        group: Option<u8>,
        delay_ms: Option<u64>,
        ends_group: bool,
        persistent: bool,
        color: u8,
    },
    Subscribe {
        prefetch_count: u32,
        /// Which colors it takes, by the bits; 0: all, without a selector.
        colors: u8,
        priority: i32,
        exclusive: bool,
    },
    Unsubscribe(usize),
    Accept(usize),
    Fail(usize, Option<u64>),
    Pass(u64),
    Purge,
    Crash,
}

fn arb_op() -> impl Strategy<Value = Op> {
    let priority = prop_oneof![3 => Just(PRIORITY_DEFAULT), 2 => 0..10_u8];
    let send = (
        priority,
        proptest::option::of(0..3_u8),
        proptest::option::weighted(0.2, 1..30_u64),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.8),
        0..3_u8,
    );
    prop_oneof![
        8 => send.prop_map(|(priority, group, delay_ms, ends_group, persistent, color)| Op::Send {
            priority, group, delay_ms, ends_group: ends_group && group.is_some(), persistent, color,
        }),
        2 => (1..4_u32, prop_oneof![Just(0_u8), 1..7_u8], -1..2_i32, proptest::bool::weighted(0.2)).prop_map(
            |(prefetch_count, colors, priority, exclusive)| Op::Subscribe { prefetch_count, colors, priority, exclusive }
        ),
        1 => any::<usize>().prop_map(Op::Unsubscribe),
        6 => any::<usize>().prop_map(Op::Accept),
        3 => (any::<usize>(), proptest::option::of(1..20_u64)).prop_map(|(at, ms)| Op::Fail(at, ms)),
        2 => (1..20_u64).prop_map(Op::Pass),
        1 => Just(Op::Purge),
        1 => Just(Op::Crash),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Until when; and whether it failed before.
    Waits(u64, bool),
    Held(u32, Tag),
    /// Purged while it was held: its holder does not know yet.
    Purged(u32, Tag),
    Gone,
}

#[derive(Debug)]
struct Message {
    priority: u8,
    group: Option<u8>,
    ends_group: bool,
    persistent: bool,
    color: u8,
    failures: u32,
    /// Who has just nacked it: another gets it, if one can.
    nacked_by: Option<u32>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
struct Consumer {
    no: u32,
    prefetch_count: u32,
    colors: u8,
    priority: i32,
    exclusive: bool,
}

impl Consumer {
    fn takes(&self, color: u8) -> bool {
        self.colors == 0 || self.colors & (1 << color) != 0
    }

    fn filter(&self) -> Option<Arc<Filter>> {
        if self.colors == 0 {
            return None;
        }
        let colors: Vec<String> = (0..3)
            .filter(|color| self.takes(*color))
            .map(|color| color.to_string())
            .collect();
        let text = format!("color IN ({})", colors.join(", "));
        Some(Arc::new(Filter::parse(text.into(), Filter::ANY).unwrap()))
    }
}

struct Model {
    world: World,
    messages: Vec<Message>,
    /// In the order in which they came.
    consumers: Vec<Consumer>,
    owners: BTreeMap<u8, u32>,
    last_sub: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            world: World::new(Limits::default()),
            messages: Vec::new(),
            consumers: Vec::new(),
            owners: BTreeMap::new(),
            last_sub: 0,
        }
    }

    fn held_by(&self, sub: u32) -> usize {
        let held = |message: &&Message| matches!(message.state, State::Held(by, _) | State::Purged(by, _) if by == sub);
        self.messages.iter().filter(held).count()
    }

    /// Who may be given a message now, by the promise.
    fn takers(&self, number: usize) -> Vec<Consumer> {
        let message = &self.messages[number];
        if message.state != State::Ready {
            return Vec::new();
        }
        let takes = |owner: &u32| {
            let owner = self.consumers.iter().find(|consumer| consumer.no == *owner);
            owner.is_some_and(|owner| owner.takes(message.color))
        };
        let mut of_group: Option<u32> = None;
        if let Some(group) = message.group {
            let others = || {
                self.messages
                    .iter()
                    .enumerate()
                    .filter(|(_, other)| other.group == Some(group))
            };
            // What is behind one that failed and rests waits.
            if others().any(|(at, other)| at < number && matches!(other.state, State::Waits(_, true))) {
                return Vec::new();
            }
            let holders: BTreeSet<u32> = others()
                .filter_map(|(_, other)| match other.state {
                    State::Held(by, _) => Some(by),
                    _ => None,
                })
                .collect();
            assert!(
                holders.len() <= 1,
                "one consumer at a time has messages of a group"
            );
            of_group = self.owners.get(&group).copied().filter(takes);
            if of_group.is_none() && !holders.is_empty() {
                return Vec::new();
            }
        }
        let exclusive = self.consumers.iter().filter(|consumer| consumer.exclusive);
        let only = exclusive.min_by_key(|consumer| (Reverse(consumer.priority), consumer.no));
        let all = self.consumers.iter();
        let mut may: Vec<Consumer> = all
            .filter(|consumer| only.is_none_or(|only| only.no == consumer.no))
            .filter(|consumer| consumer.takes(message.color))
            .filter(|consumer| of_group.is_none_or(|owner| owner == consumer.no))
            .filter(|consumer| self.held_by(consumer.no) < consumer.prefetch_count as usize)
            .copied()
            .collect();
        if may.iter().any(|consumer| Some(consumer.no) != message.nacked_by) {
            may.retain(|consumer| Some(consumer.no) != message.nacked_by);
        }
        let highest = may.iter().map(|consumer| consumer.priority).max();
        may.retain(|consumer| Some(consumer.priority) == highest);
        may
    }

    /// The message that goes next, by the promise.
    fn next(&self) -> Option<usize> {
        let all = 0..self.messages.len();
        let may = all.filter(|number| !self.takers(*number).is_empty());
        may.min_by_key(|number| (Reverse(self.messages[*number].priority), *number))
    }

    fn take(&mut self) {
        self.world.commit();
        for (delivery, body) in self.world.deliveries() {
            let number: usize = body.split_once('\n').unwrap().1.parse().unwrap();
            assert_eq!(self.next(), Some(number), "{:?}", self.messages);
            let by = delivery.sub.0;
            let takers = self.takers(number);
            assert!(takers.iter().any(|consumer| consumer.no == by), "{takers:?} {by}");
            let message = &mut self.messages[number];
            message.state = State::Held(by, delivery.tag);
            message.nacked_by = None;
            if let Some(group) = message.group {
                match message.ends_group {
                    true => _ = self.owners.remove(&group),
                    false => _ = self.owners.insert(group, by),
                }
            }
        }
        assert_eq!(
            self.next(),
            None,
            "nothing waits that somebody may have: {:?}",
            self.messages
        );
        let waits = |message: &&Message| matches!(message.state, State::Waits(..));
        let ready = |message: &&Message| message.state == State::Ready;
        let count = |of: &dyn Fn(&&Message) -> bool| self.messages.iter().filter(of).count() as u64;
        if let Some(view) = self.world.broker.queue_view(QUEUE) {
            assert_eq!(
                (view.delayed_count, view.ready_count),
                (count(&waits), count(&ready))
            );
        }
    }

    fn held(&self, at: usize) -> Option<(usize, Tag)> {
        let held: Vec<(usize, Tag)> = self
            .messages
            .iter()
            .enumerate()
            .filter_map(|(number, message)| match message.state {
                State::Held(_, tag) | State::Purged(_, tag) => Some((number, tag)),
                _ => None,
            })
            .collect();
        (!held.is_empty()).then(|| held[at % held.len()])
    }

    fn release(&mut self, of: impl Fn(u32) -> bool) {
        for message in &mut self.messages {
            message.state = match message.state {
                State::Held(by, _) if of(by) => State::Ready,
                State::Purged(by, _) if of(by) => State::Gone,
                state => state,
            };
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Send {
                priority,
                group,
                delay_ms,
                ends_group,
                persistent,
                color,
            } => {
                let body = self.messages.len().to_string();
                let due_at_ms = delay_ms.map(|delay| self.world.now.wall_ms + delay);
                self.world.ask(|requests| {
                    // A header block of one header.
                    send(
                        requests,
                        QUEUE,
                        &format!("color:{color}\n{body}"),
                        *persistent,
                        None,
                    );
                    let group = group.map(|group| requests.push_bytes(&[group]));
                    let Some(Request::Send(send)) = requests.list.last_mut() else {
                        panic!("it was just added")
                    };
                    send.header_len = 8;
                    send.terms = Terms {
                        due_at_ms,
                        priority: *priority,
                        group,
                        ends_group: *ends_group,
                        ..Terms::default()
                    };
                });
                self.messages.push(Message {
                    priority: *priority,
                    group: *group,
                    ends_group: *ends_group,
                    persistent: *persistent,
                    color: *color,
                    failures: 0,
                    nacked_by: None,
                    state: due_at_ms.map_or(State::Ready, |due| State::Waits(due, false)),
                });
            }
            Op::Subscribe {
                prefetch_count,
                colors,
                priority,
                exclusive,
            } => {
                self.last_sub += 1;
                let no = self.last_sub;
                let consumer = Consumer {
                    no,
                    prefetch_count: *prefetch_count,
                    colors: *colors,
                    priority: *priority,
                    exclusive: *exclusive,
                };
                self.world.ask(|requests| {
                    let mode = (AckMode::ClientIndividual, consumer.prefetch_count);
                    subscribe(requests, no, DestinationKind::Queue, QUEUE, mode);
                    let Some(Request::Subscribe(subscribe)) = requests.list.last_mut() else {
                        panic!("it was just added")
                    };
                    (subscribe.priority, subscribe.exclusive) = (consumer.priority, consumer.exclusive);
                    subscribe.filter = consumer.filter();
                });
                // It has all of what others had as soon as they have settled what they hold.
                let first = self
                    .consumers
                    .iter()
                    .filter(|other| other.exclusive)
                    .min_by_key(|other| (Reverse(other.priority), other.no));
                if *exclusive && first.is_none_or(|first| first.priority < *priority) {
                    self.owners.clear();
                }
                self.consumers.push(consumer);
            }
            Op::Unsubscribe(at) if !self.consumers.is_empty() => {
                let gone = self.consumers.remove(at % self.consumers.len()).no;
                self.world.ask(|requests| {
                    requests.list.push(Request::Unsubscribe { sub: SubNo(gone) });
                });
                self.release(|by| by == gone);
                self.owners.retain(|_, owner| *owner != gone);
            }
            Op::Unsubscribe(_) => {}
            Op::Accept(at) => {
                if let Some((number, tag)) = self.held(*at) {
                    self.messages[number].state = State::Gone;
                    assert_eq!(self.world.settle(tag, true, None).refusal, None);
                }
            }
            Op::Fail(at, delay_ms) => {
                if let Some((number, tag)) = self.held(*at)
                    && self.messages[number].failures < FAILURES_MAX
                    && matches!(self.messages[number].state, State::Held(..))
                {
                    let due = delay_ms.map(|delay| self.world.now.wall_ms_after(delay));
                    let message = &mut self.messages[number];
                    message.failures += 1;
                    if let (State::Held(by, _), None) = (message.state, delay_ms) {
                        message.nacked_by = Some(by);
                    }
                    message.state = due.map_or(State::Ready, |due| State::Waits(due, true));
                    let why = delay_ms.map(|delay| {
                        Box::new(Why {
                            delay_ms: Some(delay),
                            words: "".into(),
                        })
                    });
                    self.world.ask(|requests| {
                        requests.list.push(Request::Settle(Settle {
                            why,
                            delivery: DeliveryKey::Tag(tag),
                            outcome: Outcome::Failed,
                            tx: None,
                        }));
                    });
                }
            }
            Op::Pass(ms) => {
                for _ in 0..*ms {
                    self.world.now.wall_ms += 1;
                    self.world.now.mono_ms += 1;
                    let now = self.world.now;
                    for message in &mut self.messages {
                        if matches!(message.state, State::Waits(due, _) if due <= now.wall_ms) {
                            message.state = State::Ready;
                        }
                    }
                    self.world.broker.handle_due(now);
                    self.take();
                }
            }
            Op::Purge => {
                let act = Act::Purge {
                    queue: QUEUE.to_owned(),
                    selection: Selection::From(0),
                };
                if let Ok(acted) = self.world.broker.handle_act(&act, self.world.now) {
                    // It knows nothing of groups any more, unless there was nothing to purge.
                    if acted.count > 0 {
                        self.owners.clear();
                    }
                    for message in &mut self.messages {
                        message.state = match message.state {
                            State::Held(by, tag) | State::Purged(by, tag) => State::Purged(by, tag),
                            _ => State::Gone,
                        };
                    }
                }
            }
            Op::Crash => {
                self.world.commit();
                self.world.restart();
                self.consumers.clear();
                self.owners.clear();
                self.release(|_| true);
                self.messages
                    .iter_mut()
                    .for_each(|message| message.nacked_by = None);
                for message in self.messages.iter_mut().filter(|message| !message.persistent) {
                    message.state = State::Gone;
                }
            }
        }
        self.take();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_goes_next_goes_to_whom_it_may(ops in proptest::collection::vec(arb_op(), 1..80)) {
        let mut model = Model::new();
        for op in &ops {
            model.step(op);
        }
        // Everything comes in the end.
        model.step(&Op::Pass(40));
        model.step(&Op::Subscribe { prefetch_count: 1, colors: 0, priority: 5, exclusive: true });
        while let Some((number, tag)) = model.held(0) {
            model.messages[number].state = State::Gone;
            model.world.settle(tag, true, None);
            model.take();
        }
        prop_assert!(model.messages.iter().all(|message| message.state == State::Gone));
        prop_assert_eq!(model.world.depth(QUEUE), 0);
    }
}

#[test]
fn what_comes_while_others_are_looked_at_comes_behind_them() {
    let mut world = World::new(Limits::default());
    let colored = |world: &mut World, color: u8, body: &str| {
        world.ask(|requests| {
            send(requests, QUEUE, &format!("color:{color}\n{body}"), true, None);
            let Some(Request::Send(send)) = requests.list.last_mut() else {
                panic!("it was just added")
            };
            send.header_len = 8;
        });
        world.commit();
    };
    let listen = |world: &mut World, sub: u32, colors: &str| {
        let filter = Filter::parse(format!("color IN ({colors})").into(), Filter::ANY).unwrap();
        world.ask(|requests| {
            let mode = (AckMode::ClientIndividual, 10);
            subscribe(requests, sub, DestinationKind::Queue, QUEUE, mode);
            let Some(Request::Subscribe(subscribe)) = requests.list.last_mut() else {
                panic!("it was just added")
            };
            subscribe.filter = Some(Arc::new(filter));
        });
        world.commit();
    };
    let bodies = |world: &mut World| {
        let list = world.bodies().into_iter();
        list.map(|body| body[8..].to_owned()).collect::<Vec<_>>()
    };
    colored(&mut world, 1, "a");
    colored(&mut world, 2, "b");
    world.blind = true;
    listen(&mut world, 1, "1");
    colored(&mut world, 1, "c");
    // A selector that comes later has everything to be looked at, too: it must not keep the first waiting.
    listen(&mut world, 2, "2");
    colored(&mut world, 2, "d");
    assert!(bodies(&mut world).is_empty());
    world.blind = false;
    world.commit();
    assert_eq!(bodies(&mut world), ["a", "b", "c", "d"]);
    colored(&mut world, 2, "e");
    assert_eq!(bodies(&mut world), ["e"]);
}
