use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::super::clock::Clock;
use super::*;
use crate::base::{DestinationKind, Limits, SubNo};
use crate::broker::Recovery;
use crate::journal::Recovered;
use crate::port::{
    AckMode, Act, Binding, Credit, Payload, Request, Selection, Send, Subscribe, Target, Terms,
};

const NOW: Now = Now {
    wall_ms: 0,
    mono_ms: 0,
};

/// Counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    /// How often it rang since the last look.
    fn rang(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

fn core(unflushed_bytes_max: usize) -> Arc<Core> {
    core_of(Limits {
        unflushed_bytes_max,
        ..Limits::default()
    })
}

fn core_of(limits: Limits) -> Arc<Core> {
    let broker = Recovery::new(limits.clone()).finish(&Recovered::default(), NOW);
    let core = Arc::new(Core::new(broker, Seq(0), &limits, Clock::new()));
    commit(&core);
    core
}

fn seat(core: &Arc<Core>) -> (Seat, Arc<Bell>) {
    let seat = core.open();
    let bell = Arc::new(Bell::default());
    seat.set_waker(Arc::clone(&bell).into());
    (seat, bell)
}

fn batch(core: &Core) -> Batch {
    match core.wait_batch(Duration::ZERO) {
        Wait::Batch(batch, _) => *batch,
        other => panic!("a batch waits: {other:?}"),
    }
}

/// What the committer does, once.
fn commit(core: &Arc<Core>) -> Seq {
    let seq = batch(core).seq;
    core.handle_durable(seq, IndexSize { parts: 1, bytes: 100 }, Vec::new());
    seq
}

fn step(seat: &Seat, requests: &Requests) -> Applied {
    let step = Step {
        written: None,
        requests: Some(requests),
        event_count_max: 0,
    };
    seat.step(&step, &mut Vec::new()).expect("there are requests")
}

fn send(name: &str, body: &[u8]) -> Requests {
    let mut requests = Requests::default();
    let name = requests.push_bytes(name.as_bytes());
    let header = b"destination:q\n";
    let payload = requests.push_bytes(&[header, body].concat());
    requests.list.push(Request::Send(Send {
        to: Target {
            kind: DestinationKind::Queue,
            name,
        },
        also: Vec::new(),
        payload: Payload::Arena(payload),
        header_len: header.len() as u32,
        persistent: true,
        terms: Terms::default(),
        dedup: None,
        tx: None,
    }));
    requests
}

fn subscribe(name: &str) -> Requests {
    let mut requests = Requests::default();
    let name = requests.push_bytes(name.as_bytes());
    requests.list.push(Request::Subscribe(Subscribe {
        ack_timeout_ms: None,
        binding: Binding::None,
        sub: SubNo(1),
        kind: DestinationKind::Queue,
        name,
        ack_mode: AckMode::ClientIndividual,
        credit: Credit::count(10),
        filter: None,
        binds_durably: false,
        priority: 0,
        exclusive: false,
        no_local: false,
        browse: None,
        by_message: false,
    }));
    requests
}

#[test]
fn whoever_waits_for_a_seq_is_woken_when_it_is_durable_and_once() {
    let core = core(usize::MAX);
    let (first, first_bell) = seat(&core);
    let (second, second_bell) = seat(&core);
    let gate = step(&first, &send("q", b"a")).gate;
    assert!(gate > core.durable());
    assert_eq!(step(&first, &send("q", b"b")).gate, gate, "one batch");
    step(&second, &send("q", b"c"));
    assert_eq!((first_bell.rang(), second_bell.rang()), (0, 0));
    assert_eq!(commit(&core), gate);
    assert_eq!(core.durable(), gate);
    assert_eq!((first_bell.rang(), second_bell.rang()), (1, 1));
    // The next batch is waited for anew, by the one who has something in it.
    step(&second, &send("q", b"d"));
    commit(&core);
    assert_eq!((first_bell.rang(), second_bell.rang()), (0, 1));
}

#[test]
fn one_who_waits_for_two_batches_is_woken_for_each() {
    let core = core(usize::MAX);
    let (seat, bell) = seat(&core);
    let first = step(&seat, &send("q", b"a")).gate;
    let batch = batch(&core);
    let second = step(&seat, &send("q", b"b")).gate;
    assert!(second > first, "the first batch is under way");
    core.handle_durable(batch.seq, IndexSize::default(), Vec::new());
    assert_eq!(bell.rang(), 1);
    commit(&core);
    assert_eq!(bell.rang(), 1);
    assert_eq!(core.durable(), second);
}

#[test]
fn events_are_flagged_and_whoever_has_them_is_woken() {
    let core = core(usize::MAX);
    let (consumer, consumer_bell) = seat(&core);
    let (producer, producer_bell) = seat(&core);
    step(&consumer, &subscribe("q"));
    commit(&core);
    consumer_bell.rang();
    step(&producer, &send("q", b"a"));
    assert!(!consumer.has_events(), "not before it is durable");
    commit(&core);
    assert!(consumer.has_events());
    assert_eq!((consumer_bell.rang(), producer_bell.rang()), (1, 1));
    let mut events = Vec::new();
    let take = Step {
        written: None,
        requests: None,
        event_count_max: 10,
    };
    consumer.step(&take, &mut events);
    assert_eq!(events.len(), 1);
    assert!(!consumer.has_events(), "taken");
}

#[test]
fn a_backlog_pauses_reading_until_it_is_flushed() {
    let core = core(1_000);
    let (seat, bell) = seat(&core);
    assert!(!seat.is_paused(false, NOW));
    step(&seat, &send("q", &[0; 2_000]));
    assert!(seat.is_paused(false, NOW) && seat.is_paused(false, NOW));
    assert_eq!(core.lock().paused.len(), 1, "noted once");
    commit(&core);
    assert!(!seat.is_paused(false, NOW));
    // Once for its Seq and once for the end of the backlog.
    assert_eq!(bell.rang(), 2);
}

#[test]
fn heavy_ones_wait_for_light_ones() {
    let core = core_of(Limits {
        commit_bytes_max: 10_000,
        unflushed_bytes_max: 100_000,
        ..Limits::default()
    });
    let (heavy, bell) = seat(&core);
    let (light, _) = seat(&core);
    for (bytes, heavy_alone, heavy_beside, light_waits) in [
        (2_400, false, false, false),
        (200, false, true, false),
        (17_000, false, true, false),
        (1_000, true, true, false),
        (78_000, true, true, false),
        (3_000, true, true, true),
    ] {
        step(&light, &send("q", &vec![0; bytes]));
        let later = Now {
            mono_ms: LIGHT_MS,
            ..NOW
        };
        light.note_light(NOW);
        let found = [
            heavy.is_paused(true, later),
            heavy.is_paused(true, NOW),
            light.is_paused(false, NOW),
        ];
        let unflushed_bytes = core.lock().broker.unflushed_bytes();
        assert_eq!(
            found,
            [heavy_alone, heavy_beside, light_waits],
            "{unflushed_bytes}"
        );
    }
    bell.rang();
    while core.lock().broker.has_batch() {
        commit(&core);
    }
    assert_eq!(bell.rang(), 1);
}

#[test]
fn of_heavy_ones_one_is_read_after_each_flush() {
    let core = core_of(Limits {
        commit_bytes_max: 1_000,
        unflushed_bytes_max: 100_000,
        ..Limits::default()
    });
    let (light, _) = seat(&core);
    let heavy = [seat(&core), seat(&core)];
    for _ in 0..4 {
        step(&light, &send("q", &[0; 10_000]));
    }
    assert!(heavy.iter().all(|(seat, _)| seat.is_paused(true, NOW)));
    for turn in 0..2 {
        commit(&core);
        let rang = heavy.each_ref().map(|(_, bell)| bell.rang());
        assert_eq!(rang, if turn == 0 { [1, 0] } else { [0, 1] });
        let (seat, _) = heavy.get(turn).expect("there are two");
        assert!(!seat.is_paused(true, NOW), "once");
        assert!(seat.is_paused(true, NOW), "and not again");
    }
}

#[test]
fn a_dropped_seat_leaves_nothing_and_releases_what_it_held() {
    let core = core(usize::MAX);
    let (producer, _) = seat(&core);
    step(&producer, &send("q", b"a"));
    let (consumer, _) = seat(&core);
    step(&consumer, &subscribe("q"));
    commit(&core);
    assert!(consumer.has_events());
    drop(consumer);
    assert_eq!(core.lock().peers.len(), 1);
    let (heir, _) = seat(&core);
    step(&heir, &subscribe("q"));
    while core.lock().broker.has_batch() {
        commit(&core);
    }
    assert!(heir.has_events());
}

#[test]
fn a_closed_session_is_still_woken_for_its_receipts() {
    let core = core(usize::MAX);
    let (seat, bell) = seat(&core);
    let gate = step(&seat, &send("q", b"a")).gate;
    seat.close();
    while core.durable() < gate {
        commit(&core);
    }
    assert_eq!(bell.rang(), 1);
}

#[test]
fn the_committer_is_told_of_a_batch_and_of_the_end() {
    let core = core(usize::MAX);
    let (seat, _) = seat(&core);
    let committer = std::thread::spawn({
        let core = Arc::clone(&core);
        move || {
            let mut count = 0;
            while let Wait::Batch(batch, _) = core.wait_batch(Duration::MAX) {
                count += 1;
                core.handle_durable(batch.seq, IndexSize::default(), Vec::new());
            }
            count
        }
    });
    let gate = step(&seat, &send("q", b"a")).gate;
    while core.durable() < gate {
        std::thread::yield_now();
    }
    drop(seat);
    core.handle_stop();
    assert!(committer.join().unwrap() >= 2, "the message, and the clean end");
}

/// Whoever waits for an act goes on once it is durable, and nobody is woken for what was not asked.
#[test]
fn an_act_is_waited_for() {
    let core = core(usize::MAX);
    let (seat, _) = seat(&core);
    step(&seat, &send("a", b"1"));
    commit(&core);
    let act = Act::Purge {
        queue: "a".into(),
        selection: Selection::From(0),
    };
    assert_eq!(core.preview(&act).map(|acted| acted.count), Ok(1));
    let acted = core.act(&act).expect("the queue is there");
    assert_eq!(acted.count, 1);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = std::task::Context::from_waker(&waker);
    let mut wait = std::pin::pin!(core.wait_durable(acted.gate));
    assert!(wait.as_mut().poll(&mut context).is_pending());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    assert_eq!(bell.rang(), 0);
    assert_eq!(commit(&core), acted.gate);
    assert_eq!(bell.rang(), 1, "one waker, however often it was polled");
    assert!(wait.as_mut().poll(&mut context).is_ready());
    let mut done = std::pin::pin!(core.wait_durable(acted.gate));
    assert!(
        done.as_mut().poll(&mut context).is_ready(),
        "what is durable is not waited for"
    );
    assert_eq!(core.queue("a"), None);
}
