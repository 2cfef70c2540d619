//! Browsers: what they see, beside a world that has none and must be the same to everybody else.

use proptest::prelude::*;

use super::*;
use crate::port::Browse;

const QUEUE: &str = "a";
/// The session that browses.
const B: SessionNo = SessionNo(2);
const SUB: SubNo = SubNo(7);

#[derive(Debug, Clone)]
enum Op {
    Send {
        len: usize,
        persistent: bool,
    },
    Commit,
    Subscribe(u32),
    Unsubscribe,
    Settle(usize, bool),
    Purge(Option<usize>),
    Relocate,
    Tick,
    Pause(bool),
    Browse {
        from: Option<usize>,
        follow: bool,
        ack_mode: AckMode,
        prefetch_count: u32,
    },
    Unbrowse,
    Take(usize),
    Write(usize),
    Ack(usize),
}

fn arb_op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![4 => 3..30_usize, 2 => 2_000..9_000_usize, 1 => 30_000..40_000_usize];
    let mode = prop_oneof![2 => Just(AckMode::Auto), 1 => Just(AckMode::Client), 1 => Just(AckMode::ClientIndividual)];
    prop_oneof![
        8 => (len, prop::bool::weighted(0.8)).prop_map(|(len, persistent)| Op::Send { len, persistent }),
        5 => Just(Op::Commit),
        2 => (1..5_u32).prop_map(Op::Subscribe),
        1 => Just(Op::Unsubscribe),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, accepted)| Op::Settle(at, accepted)),
        2 => proptest::option::weighted(0.8, any::<usize>()).prop_map(Op::Purge),
        2 => Just(Op::Relocate),
        2 => Just(Op::Tick),
        1 => any::<bool>().prop_map(Op::Pause),
        3 => (proptest::option::of(0..6_usize), any::<bool>(), mode, 1..6_u32).prop_map(
            |(from, follow, ack_mode, prefetch_count)| Op::Browse { from, follow, ack_mode, prefetch_count }
        ),
        1 => Just(Op::Unbrowse),
        4 => (1..4_usize).prop_map(Op::Take),
        4 => (1..4_usize).prop_map(Op::Write),
        2 => any::<usize>().prop_map(Op::Ack),
    ]
}

/// One that browses, and what it must see.
struct Watch {
    /// What was there when it began and is not before its beginning: it is shown, unless it is gone by then.
    first: u64,
    /// Where it ends.
    until: Option<u64>,
    ack_mode: AckMode,
    /// Taken from the core and not written yet.
    taken: Vec<Delivery>,
    unsettled: Vec<Tag>,
    seen: Vec<u64>,
    ended: bool,
}

struct Pair {
    browsed: World,
    alone: World,
    bodies: BTreeMap<MessageId, String>,
    /// Which message has which id in each of them: relocation takes numbers, too.
    numbers: [BTreeMap<MessageId, usize>; 2],
    held: Vec<(Tag, Tag)>,
    subscribed: bool,
    watch: Option<Watch>,
    last: usize,
}

fn limits() -> Limits {
    Limits {
        prefetch_bytes_max: 20_000,
        compaction_waste_bytes_min: 0,
        deliveries_failed_max: 3,
        ..Limits::default()
    }
}

impl World {
    /// Moves what is in sparse slots, in one batch. Whether anything was asked for.
    fn move_bytes(&mut self) -> bool {
        let mut any = false;
        self.broker.handle_tick(self.now);
        while let Some(chunk) = self.broker.poll_relocation() {
            // What was not written yet cannot be read.
            let found = self.bodies.get(&chunk.slot.0).cloned();
            if let Some((_, payload)) = found.filter(|(place, _)| *place == chunk) {
                self.broker.handle_relocated(chunk, &payload);
                any = true;
            }
        }
        any
    }

    fn relocated(&mut self) {
        for _ in 0..4 {
            self.move_bytes();
            self.commit();
        }
    }

    fn try_act(&mut self, act: &Act) {
        // A queue that is not there cannot be paused or purged, and need not be.
        let _ = self.broker.handle_act(act, self.now);
    }

    /// What everybody but the browser sees.
    fn seen_by_others(
        &self,
        numbers: &BTreeMap<MessageId, usize>,
    ) -> impl PartialEq + std::fmt::Debug + use<> {
        let counters = self.broker.counters();
        let view = self.broker.queue_view(QUEUE);
        let view = view.map(|view| {
            (
                view.depth,
                view.bytes,
                view.ready_count,
                view.leased_count,
                view.paused,
            )
        });
        let entries: Vec<_> = self
            .broker
            .entries(QUEUE, 0)
            .map(|entry| {
                let number = numbers.get(&entry.message).copied();
                (number, entry.deliveries, entry.failures, entry.leased)
            })
            .collect();
        let counted = (
            counters.delivered_count,
            counters.accepted_count,
            counters.failed_count,
            counters.released_count,
            counters.dead_lettered_count,
        );
        (view.filter(|view| view.0 > 0), entries, counted)
    }

    /// Every slot but the one being filled is free, once everything is gone.
    fn is_bare(&mut self) -> bool {
        for _ in 0..3 {
            self.broker.ledger.want_batch();
            self.commit();
        }
        let figures = self.broker.ledger();
        figures.free_slot_count == figures.slot_count
    }
}

impl Pair {
    fn new() -> Self {
        let mut browsed = World::new(limits());
        browsed.broker.handle_open(B);
        Self {
            browsed,
            alone: World::new(limits()),
            bodies: BTreeMap::new(),
            numbers: Default::default(),
            held: Vec::new(),
            subscribed: false,
            watch: None,
            last: 0,
        }
    }

    fn both(&mut self, mut act: impl FnMut(&mut World)) {
        act(&mut self.browsed);
        act(&mut self.alone);
        let (with, without) = (self.browsed.deliveries(), self.alone.deliveries());
        let told = |(delivery, body): &(Delivery, String)| {
            (delivery.delivery_count, delivery.redelivered, body.clone())
        };
        let told_with: Vec<_> = with.iter().map(told).collect();
        assert_eq!(told_with, without.iter().map(told).collect::<Vec<_>>());
        for (with, without) in with.iter().zip(&without) {
            self.browsed.broker.handle_written(S, with.0.tag, NOW);
            self.alone.broker.handle_written(S, without.0.tag, NOW);
            self.held.push((with.0.tag, without.0.tag));
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Send { len, persistent } => {
                self.last += 1;
                let body = format!("{}:{}", self.last, "x".repeat(*len));
                self.both(|world| {
                    world.ask(|requests| send(requests, QUEUE, &body, *persistent, None));
                });
                let newest = |world: &World| {
                    let newest = world.broker.entries(QUEUE, 0).last();
                    newest.expect("it was just sent").message
                };
                let (with, without) = (newest(&self.browsed), newest(&self.alone));
                self.bodies.insert(with, body);
                self.numbers[0].insert(with, self.last);
                self.numbers[1].insert(without, self.last);
            }
            Op::Commit => self.both(World::commit),
            Op::Subscribe(prefetch_count) if !self.subscribed => {
                self.subscribed = true;
                self.both(|world| world.subscribe(1, QUEUE, AckMode::ClientIndividual, *prefetch_count));
            }
            Op::Unsubscribe if self.subscribed => {
                self.subscribed = false;
                self.held.clear();
                self.both(|world| {
                    world.ask(|requests| requests.list.push(Request::Unsubscribe { sub: SubNo(1) }));
                });
            }
            Op::Settle(at, accepted) if !self.held.is_empty() => {
                let (with, without) = self.held.remove(at % self.held.len());
                let mut tags = [with, without].into_iter();
                self.both(|world| {
                    let tag = tags.next().unwrap();
                    assert_eq!(world.settle(tag, *accepted, None).refusal, None);
                });
            }
            Op::Purge(which) => {
                self.both(|world| {
                    let entries: Vec<u64> = world
                        .broker
                        .entries(QUEUE, 0)
                        .map(|entry| entry.sequence)
                        .collect();
                    let selection = match which {
                        None => Selection::From(0),
                        Some(_) if entries.is_empty() => return,
                        Some(at) => Selection::Sequences(vec![entries[at % entries.len()]]),
                    };
                    let queue = QUEUE.to_owned();
                    world.try_act(&Act::Purge { queue, selection });
                });
            }
            Op::Relocate => self.both(World::relocated),
            Op::Tick => self.both(|world| world.broker.handle_tick(NOW)),
            // A queue may exist for a browser alone.
            Op::Pause(pause) if self.alone.broker.queue_view(QUEUE).is_some() => {
                let queue = QUEUE.to_owned();
                let act = if *pause {
                    Act::Pause { queue }
                } else {
                    Act::Resume { queue }
                };
                self.both(|world| world.try_act(&act));
            }
            Op::Browse {
                from,
                follow,
                ack_mode,
                prefetch_count,
            } => {
                self.unbrowse();
                self.browse(*from, *follow, *ack_mode, *prefetch_count);
            }
            Op::Unbrowse => self.unbrowse(),
            Op::Take(count) => self.take(*count),
            Op::Write(count) => self.write(*count),
            Op::Ack(at) => self.ack(*at),
            Op::Subscribe(_) | Op::Unsubscribe | Op::Settle(..) | Op::Pause(_) => {}
        }
        self.both(|_| {});
        let [with, without] = &self.numbers;
        assert_eq!(
            self.browsed.seen_by_others(with),
            self.alone.seen_by_others(without)
        );
    }

    fn ask(&mut self, fill: impl FnOnce(&mut Requests)) {
        let mut requests = Requests::default();
        fill(&mut requests);
        let applied = self.browsed.broker.handle_requests(B, &requests, NOW);
        assert_eq!(applied.refusal, None);
    }

    fn browse(&mut self, from: Option<usize>, follow: bool, ack_mode: AckMode, prefetch_count: u32) {
        let world = &self.browsed;
        let there: Vec<u64> = world
            .broker
            .entries(QUEUE, 0)
            .map(|entry| entry.sequence)
            .collect();
        let from = from.map(|at| there.get(at).copied().unwrap_or(0));
        self.ask(|requests| {
            subscribe(
                requests,
                SUB.0,
                DestinationKind::Queue,
                QUEUE,
                (ack_mode, prefetch_count),
            );
            let end = requests.push_bytes(b"the end");
            if let Some(Request::Subscribe(subscribe)) = requests.list.last_mut() {
                subscribe.browse = Some(Browse { from, follow, end });
            }
        });
        let next = self.browsed.broker.queue_view(QUEUE).unwrap().next_sequence;
        self.watch = Some(Watch {
            first: from.unwrap_or(next),
            until: (!follow).then_some(next),
            ack_mode,
            taken: Vec::new(),
            unsettled: Vec::new(),
            seen: Vec::new(),
            ended: false,
        });
    }

    /// It ends wherever it is; what it has not been sent yet it will never be.
    fn unbrowse(&mut self) {
        let Some(watch) = self.watch.take() else { return };
        self.ask(|requests| requests.list.push(Request::Unsubscribe { sub: SUB }));
        let mut events = Vec::new();
        self.browsed.broker.poll_events(B, usize::MAX, &mut events);
        assert_eq!(events, [], "nothing comes behind UNSUBSCRIBE");
        if let Some(last) = watch.taken.last() {
            self.browsed.broker.handle_written(B, last.tag, NOW);
        }
        for tag in watch.unsettled {
            self.answer(tag);
        }
    }

    fn take(&mut self, count: usize) {
        let Some(watch) = &mut self.watch else { return };
        let mut events = Vec::new();
        self.browsed.broker.poll_events(B, count, &mut events);
        for event in events {
            let Event::Delivery(delivery) = event else {
                panic!("{event:?}");
            };
            assert_eq!(delivery.sub, SUB);
            watch.taken.push(delivery);
        }
    }

    /// The socket takes some of it: only now are the bytes read.
    fn write(&mut self, count: usize) {
        let Some(watch) = &mut self.watch else { return };
        let count = count.min(watch.taken.len());
        let mut last = None;
        for delivery in watch.taken.drain(..count) {
            assert!(!watch.ended, "nothing comes behind the end");
            last = Some(delivery.tag);
            let body = self.browsed.body(&delivery.body, delivery.len);
            match delivery.sequence {
                None => {
                    assert_eq!(body, "the end");
                    watch.ended = true;
                }
                Some(sequence) => {
                    assert_eq!(self.bodies.get(&delivery.message), Some(&body));
                    assert!(watch.seen.last().is_none_or(|last| *last < sequence), "in order");
                    assert!(sequence >= watch.first && watch.until.is_none_or(|until| sequence < until));
                    watch.seen.push(sequence);
                }
            }
            if watch.ack_mode != AckMode::Auto {
                watch.unsettled.push(delivery.tag);
            }
        }
        if let Some(tag) = last {
            self.browsed.broker.handle_written(B, tag, NOW);
        }
    }

    fn ack(&mut self, at: usize) {
        let Some(watch) = &mut self.watch else { return };
        if watch.unsettled.is_empty() {
            return;
        }
        let at = at % watch.unsettled.len();
        let tag = watch.unsettled.remove(at);
        if watch.ack_mode == AckMode::Client {
            // Those before it went with it, but for a marker, whose answer says nothing.
            watch.unsettled.retain(|of| *of > tag);
        }
        self.answer(tag);
    }

    fn answer(&mut self, tag: Tag) {
        let settle = Settle {
            delivery: DeliveryKey::Tag(tag),
            outcome: if tag.0.is_multiple_of(2) {
                Outcome::Accepted
            } else {
                Outcome::Rejected
            },
            why: None,
            tx: None,
        };
        self.ask(|requests| requests.list.push(Request::Settle(settle)));
    }

    /// The browser reads on to its end: it has seen what is still there, and nothing of it is left anywhere.
    fn finish(mut self) {
        for _ in 0..1_000 {
            self.both(World::commit);
            self.take(usize::MAX);
            self.write(usize::MAX);
            let Some(watch) = &self.watch else { break };
            match watch.unsettled.last() {
                Some(_) => self.ack(watch.unsettled.len() - 1),
                None if self.browsed.broker.has_events(B) => {}
                None => break,
            }
        }
        if let Some(watch) = &self.watch {
            assert_eq!(
                watch.ended,
                watch.until.is_some(),
                "the end is told, if there is one"
            );
            let there = self.browsed.broker.entries(QUEUE, watch.first);
            let there = there.map(|entry| entry.sequence);
            let missed: Vec<u64> = there
                .filter(|sequence| watch.until.is_none_or(|until| *sequence < until))
                .filter(|sequence| !watch.seen.contains(sequence))
                .collect();
            assert_eq!(missed, [0; 0], "it saw what is there");
        }
        self.unbrowse();
        let mut world = self.browsed;
        world.broker.handle_close(S, NOW);
        for queue in [QUEUE, "DLQ.a"] {
            let selection = Selection::From(0);
            let queue = queue.to_owned();
            world.try_act(&Act::Purge {
                queue: queue.clone(),
                selection,
            });
            world.try_act(&Act::Resume { queue });
        }
        assert!(world.is_bare(), "{:?}", world.broker.ledger());
        assert_eq!(world.broker.queues().count(), 0);
        assert_eq!(world.broker.memory_bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_browser_sees_what_is_there_and_changes_nothing(ops in prop::collection::vec(arb_op(), 1..80)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.apply(op);
        }
        pair.finish();
    }
}

/// A world with so many messages, and one that browses them with a large credit.
fn browsing(count: usize, len: usize) -> Pair {
    let mut pair = Pair::new();
    for _ in 0..count {
        pair.apply(&Op::Send {
            len,
            persistent: true,
        });
    }
    pair.apply(&Op::Commit);
    pair.browse(Some(0), false, AckMode::Auto, 1_000);
    pair
}

#[test]
fn what_is_on_its_way_to_a_browser_stays_readable_when_the_queue_is_drained_and_its_slots_are_wanted() {
    let mut pair = browsing(40, 1_000);
    pair.take(usize::MAX);
    let in_flight = pair.watch.as_ref().unwrap().taken.len();
    assert!(
        (2..40).contains(&in_flight),
        "as much as there is room for: {in_flight}"
    );
    pair.apply(&Op::Purge(None));
    pair.apply(&Op::Relocate);
    let before = pair.browsed.broker.ledger();
    assert!(
        before.free_slot_count < before.slot_count,
        "what is on its way is pinned"
    );
    // Others would overwrite whatever is free.
    for _ in 0..100 {
        pair.apply(&Op::Send {
            len: 1_500,
            persistent: true,
        });
        pair.apply(&Op::Commit);
    }
    pair.write(usize::MAX);
    let watch = pair.watch.as_ref().unwrap();
    assert_eq!(watch.seen.len(), in_flight, "each was read as it was sent");
    pair.take(usize::MAX);
    pair.write(usize::MAX);
    assert!(pair.watch.as_ref().unwrap().ended, "the rest is gone");
    pair.finish();
}

#[test]
fn a_browser_that_reads_nothing_and_vanishes_leaves_nothing_behind() {
    for taken in [0, 5] {
        let mut pair = browsing(30, 1_000);
        pair.take(taken);
        pair.apply(&Op::Purge(None));
        pair.browsed.broker.handle_close(B, NOW);
        pair.browsed.broker.handle_open(B);
        pair.watch = None;
        pair.finish();
    }
}

#[test]
fn much_that_is_passed_over_does_not_end_a_browser() {
    let mut world = World::new(Limits::default());
    for number in 0..2_500 {
        world.ask(|requests| {
            send(requests, QUEUE, &number.to_string(), true, None);
            if let Some(Request::Send(send)) = requests.list.last_mut() {
                send.terms.expires_at_ms = Some(2_000);
            }
        });
    }
    world.send(QUEUE, "last", None);
    world.commit();
    // The timer has not seen them yet.
    world.broker.now.wall_ms = 3_000;
    let mut requests = Requests::default();
    subscribe(
        &mut requests,
        1,
        DestinationKind::Queue,
        QUEUE,
        (AckMode::Auto, 1),
    );
    let end = requests.push_bytes(b"the end");
    if let Some(Request::Subscribe(subscribe)) = requests.list.last_mut() {
        subscribe.browse = Some(Browse {
            from: Some(0),
            follow: false,
            end,
        });
    }
    let Some(Request::Subscribe(subscribe)) = requests.list.first() else {
        panic!("it was just made");
    };
    world.broker.subscribe(S, subscribe, &requests, NOW).unwrap();
    world.broker.activate(S, SubNo(1));
    assert_eq!(world.bodies(), [""; 0]);
    for _ in 0..2 {
        world.broker.browse_on();
    }
    assert_eq!(world.bodies(), ["last", "the end"]);
}

#[test]
fn one_that_cannot_be_read_is_left_out() {
    let mut pair = browsing(3, 15_000);
    pair.take(usize::MAX);
    let first = pair.watch.as_mut().unwrap().taken.remove(0);
    assert_eq!(pair.browsed.broker.handle_unreadable(B, first.tag, NOW), None);
    pair.browsed.broker.handle_written(B, first.tag, NOW);
    for _ in 0..4 {
        pair.take(usize::MAX);
        pair.write(usize::MAX);
    }
    let watch = pair.watch.as_ref().unwrap();
    assert_eq!((watch.seen.len(), watch.ended), (2, true));
    let view = pair.browsed.broker.queue_view(QUEUE).unwrap();
    assert_eq!(
        (view.depth, view.set_aside_count),
        (3, 0),
        "it is for a consumer to find out"
    );
}

#[test]
fn what_is_being_moved_is_shown_once_it_is_where_the_entry_says() {
    let mut pair = browsing(40, 1_000);
    pair.unbrowse();
    // What is left is sparse.
    let sequences: Vec<u64> = pair
        .browsed
        .broker
        .entries(QUEUE, 0)
        .map(|entry| entry.sequence)
        .collect();
    let doomed = sequences
        .iter()
        .copied()
        .filter(|sequence| sequence % 8 != 0)
        .collect();
    let selection = Selection::Sequences(doomed);
    pair.both(|world| {
        let queue = QUEUE.to_owned();
        let selection = selection.clone();
        world.try_act(&Act::Purge { queue, selection });
        world.commit();
    });
    pair.browse(Some(0), false, AckMode::Auto, 1);
    pair.take(usize::MAX);
    let moved = (0..10).any(|_| pair.browsed.move_bytes());
    assert!(moved, "there is something to move");
    pair.write(usize::MAX);
    pair.take(usize::MAX);
    assert_eq!(
        pair.watch.as_ref().unwrap().taken.len(),
        0,
        "the next one is in no slot now"
    );
    pair.browsed.commit();
    for _ in 0..10 {
        pair.take(usize::MAX);
        pair.write(usize::MAX);
    }
    let watch = pair.watch.as_ref().unwrap();
    assert_eq!((watch.seen.len(), watch.ended), (5, true));
}
