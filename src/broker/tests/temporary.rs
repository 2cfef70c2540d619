//! Temporary queues: of one session, in memory, gone with it.

use super::*;

const OTHER: SessionNo = SessionNo(2);

impl World {
    fn make(&mut self, session: SessionNo, sub: u32, name: &str) -> Applied {
        let mut requests = Requests::default();
        let terms = (AckMode::ClientIndividual, 1);
        subscribe(&mut requests, sub, DestinationKind::Temporary, name, terms);
        self.broker.handle_requests(session, &requests, NOW)
    }

    fn reply(&mut self, session: SessionNo, name: &str, body: &str, tx: Option<TxNo>) -> Applied {
        let mut requests = Requests::default();
        let name = requests.push_bytes(name.as_bytes());
        let payload = Payload::Arena(requests.push_bytes(body.as_bytes()));
        requests.list.push(Request::Send(Send {
            to: Target {
                kind: DestinationKind::Temporary,
                name,
            },
            also: Vec::new(),
            payload,
            header_len: 0,
            persistent: true,
            terms: Terms::default(),
            dedup: None,
            tx,
        }));
        self.broker.handle_requests(session, &requests, NOW)
    }

    fn names(&self) -> Vec<String> {
        self.broker.queues().map(|view| view.name.to_string()).collect()
    }
}

fn pair() -> World {
    let limits = Limits {
        memory_bytes_max: 100,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.broker.handle_open(OTHER);
    world
}

#[test]
fn it_is_gone_with_its_session_and_with_all_it_held() {
    let mut world = pair();
    assert_eq!(world.make(S, 1, "s/x").refusal, None);
    for body in ["1", "2", "3"] {
        let applied = world.reply(OTHER, "s/x", body, None);
        assert_eq!(
            (applied.refusal, applied.gate),
            (None, Seq(0)),
            "nothing waits for a disk"
        );
    }
    assert_eq!(world.bodies(), ["1"]);
    assert_eq!(world.names(), ["TEMP.s/x"]);
    // It outlives its subscriptions, and not its session.
    world.leave(1);
    assert_eq!(world.depth("TEMP.s/x"), 3);
    world.broker.handle_close(S, NOW);
    assert_eq!(world.names(), [""; 0]);
    assert_eq!(world.broker.holdings().transient_count, 0);
    assert_eq!(world.broker.holdings().transient_bytes, 0);
    assert_eq!(world.reply(OTHER, "s/x", "late", None).refusal, None);
    assert_eq!(world.broker.counters().late_reply_count, 1);
    assert_eq!(world.names(), [""; 0]);
    world.commit();
    assert!(
        world.chunks.iter().all(|chunk| chunk.facts.is_empty()),
        "nothing of it is stored"
    );
    // Its place is another's now: the end of the session that had it changes nothing there.
    world.broker.handle_open(S);
    world.send("a", "kept", None);
    world.broker.handle_close(S, NOW);
    assert_eq!(world.depth("a"), 1);
}

#[test]
fn it_is_its_sessions_alone() {
    let mut world = pair();
    world.make(S, 1, "s/x");
    assert_eq!(world.make(OTHER, 1, "s/x").refusal, Some(Refusal::QueuePrivate));
    world.broker.handle_close(OTHER, NOW);
    world.broker.handle_open(OTHER);
    let mut requests = Requests::default();
    subscribe(
        &mut requests,
        1,
        DestinationKind::Queue,
        "TEMP.s/x",
        (AckMode::Auto, 1),
    );
    let applied = world.broker.handle_requests(OTHER, &requests, NOW);
    assert_eq!(applied.refusal, Some(Refusal::QueuePrivate));
    let queue = || "TEMP.s/x".to_owned();
    world.send("a", "1", None);
    for act in [
        Act::Pause { queue: queue() },
        Act::Move {
            from: "a".to_owned(),
            to: queue(),
            selection: Selection::From(0),
        },
        Act::Copy {
            from: "a".to_owned(),
            to: queue(),
            selection: Selection::From(0),
        },
    ] {
        assert_eq!(
            world.broker.handle_act(&act, NOW).unwrap_err(),
            Refusal::QueuePrivate
        );
    }
    let act = Act::Delete {
        queue: queue(),
        force: false,
    };
    assert_eq!(
        world.broker.handle_act(&act, NOW).unwrap_err(),
        Refusal::QueueInUse
    );
    // By force its session ends, and it with it.
    let act = Act::Delete {
        queue: queue(),
        force: true,
    };
    world.broker.handle_act(&act, NOW).unwrap();
    assert_eq!(world.names(), ["a"]);
    assert!(world.broker.is_evicted(S));
}

#[test]
fn its_memory_is_bounded_and_a_failure_stays() {
    let mut world = pair();
    world.make(S, 1, "s/x");
    assert_eq!(world.reply(OTHER, "s/x", &"x".repeat(90), None).refusal, None);
    assert_eq!(
        world.reply(OTHER, "s/x", &"x".repeat(11), None).refusal,
        Some(Refusal::MemoryFull)
    );
    for count in 1..=20 {
        let deliveries = world.deliveries();
        assert_eq!(deliveries[0].0.delivery_count, count);
        world.settle(deliveries[0].0.tag, false, None);
    }
    assert_eq!(world.names(), ["TEMP.s/x"], "no dead letter of what is not kept");
    world.broker.handle_room(false);
    let tag = world.deliveries()[0].0.tag;
    world.settle(tag, true, None);
    assert_eq!(
        world.reply(OTHER, "s/x", "x", None).refusal,
        None,
        "it needs no disk"
    );
}

#[test]
fn a_reply_in_a_transaction_comes_with_it() {
    let mut world = pair();
    world.make(S, 1, "s/x");
    let tx = TxNo(1);
    let mut begin = Requests::default();
    begin.list.push(Request::Begin { tx });
    world.broker.handle_requests(OTHER, &begin, NOW);
    world.reply(OTHER, "s/x", "answer", Some(tx));
    assert_eq!(world.bodies(), [""; 0]);
    let mut commit = Requests::default();
    commit.list.push(Request::Commit { tx });
    assert_eq!(world.broker.handle_requests(OTHER, &commit, NOW).refusal, None);
    assert_eq!(world.bodies(), ["answer"]);
    world.reply(OTHER, "s/x", "answer", None);
    assert_eq!(world.broker.handle_stop(NOW), 0, "its session is gone by then");
}
