use super::*;
use crate::cli::bench::sink::{Fault, FaultPlan, SinkThread};

const COUNT: u64 = 1_000;

fn plan(sink: &SinkThread, producers: usize, consumers: usize, queues: usize) -> Plan {
    Plan {
        name: "test",
        target: Target::new(&sink.addr),
        destinations: (0..queues)
            .map(|number| format!("/queue/test-{number}"))
            .collect(),
        producers,
        consumers,
        stop: Stop::Count(COUNT),
        rate: None,
        awaited: Await::Count(COUNT),
        run: Some(7),
        body_bytes: 100,
        window: 16,
        transaction: None,
        forward: Vec::new(),
        each_gets_all: false,
        undelivered_max: None,
        ack: AckMode::ClientIndividual,
        prefetch: None,
        dedup: false,
        send_headers: Vec::new(),
        subscribe_headers: Vec::new(),
        patience: Duration::from_secs(10),
        pid: None,
        timeline: false,
        silent: true,
    }
}

/// The verdict of a run that received what it sent.
fn all_faults(measured: &mut Measured) -> Faults {
    let sent = measured.sent.clone();
    let mut faults = measured.delivery_faults(&sent);
    faults += measured.faults;
    faults
}

/// The verdict of producers and consumers at once, with one queue and with `fault` at every 100th message.
fn e2e(fault: Option<Fault>, patience: Duration) -> Faults {
    let sink = SinkThread::start(fault.map(|fault| FaultPlan { fault, every: 100 })).unwrap();
    let mut measured = run(&Plan {
        patience,
        ..plan(&sink, 1, 1, 1)
    })
    .unwrap();
    all_faults(&mut measured)
}

const PATIENT: Duration = Duration::from_secs(10);
/// Where something is missing this is how long the test waits for it.
const HASTY: Duration = Duration::from_secs(2);

#[test]
fn a_sink_without_fault_is_valid() {
    assert_eq!(e2e(None, PATIENT), Faults::default());
}

#[test]
fn a_loss_is_found() {
    assert_eq!(
        e2e(Some(Fault::Lose), HASTY),
        Faults {
            lost: 10,
            ..Faults::default()
        }
    );
}

#[test]
fn a_double_is_found() {
    assert_eq!(
        e2e(Some(Fault::Double), PATIENT),
        Faults {
            doubled: 10,
            ..Faults::default()
        }
    );
}

#[test]
fn a_swap_is_found() {
    // Only where two messages wait can they be swapped: so all are sent before one is received.
    let sink = SinkThread::start(Some(FaultPlan {
        fault: Fault::Swap,
        every: 100,
    }))
    .unwrap();
    let filled = run(&plan(&sink, 1, 0, 1)).unwrap();
    let mut drained = run(&plan(&sink, 0, 1, 1)).unwrap();
    // The last message has none to be swapped with.
    assert_eq!(
        drained.delivery_faults(&filled.sent),
        Faults {
            reordered: 9,
            ..Faults::default()
        }
    );
}

#[test]
fn an_altered_byte_is_found() {
    assert_eq!(
        e2e(Some(Fault::Alter), PATIENT),
        Faults {
            altered: 10,
            lost: 10,
            ..Faults::default()
        }
    );
}

#[test]
fn a_missing_receipt_is_found() {
    // The frame whose receipt is missing blocks its place in the window: nothing more is sent than the window holds.
    let faults = e2e(Some(Fault::Forget), HASTY);
    assert_eq!(
        faults,
        Faults {
            unconfirmed: 1,
            ..Faults::default()
        }
    );
}

#[test]
fn a_repeated_receipt_is_found() {
    assert_eq!(
        e2e(Some(Fault::Repeat), PATIENT),
        Faults {
            stray_receipts: 10,
            ..Faults::default()
        }
    );
}

#[test]
fn many_connections_and_queues_in_every_ack_mode() {
    for ack in [AckMode::Auto, AckMode::Client, AckMode::ClientIndividual] {
        for (producers, consumers, queues) in [(3, 2, 5), (5, 4, 3), (1, 1, 1), (2, 6, 2)] {
            let sink = SinkThread::start(None).unwrap();
            let undelivered_max = Some(8);
            let mut measured = run(&Plan {
                ack,
                undelivered_max,
                ..plan(&sink, producers, consumers, queues)
            })
            .unwrap();
            assert_eq!(measured.sent_count(), COUNT);
            assert_eq!(measured.received_count, COUNT);
            assert_eq!(measured.receipt_ns.len(), COUNT);
            assert_eq!(measured.delivery_ns.len(), COUNT);
            assert_eq!(all_faults(&mut measured), Faults::default());
        }
    }
}

#[test]
fn a_drain_of_an_unknown_number_ends_when_it_is_quiet() {
    let sink = SinkThread::start(None).unwrap();
    run(&plan(&sink, 2, 0, 2)).unwrap();
    let awaited = Await::Quiet(HASTY);
    let mut drained = run(&Plan {
        awaited,
        run: None,
        ..plan(&sink, 0, 1, 2)
    })
    .unwrap();
    assert_eq!(drained.received_count, COUNT);
    assert!(drained.elapsed < PATIENT);
    assert_eq!(
        drained.verifiers.remove(0).finish_unknown(Some(COUNT)),
        Faults::default()
    );
}

#[test]
fn every_destination_is_served_and_every_connection_serves() {
    for destinations in 1..6_usize {
        let names: Vec<String> = (0..destinations).map(|number| number.to_string()).collect();
        for count in 1..8 {
            let served: Vec<Vec<usize>> = (0..count)
                .map(|number| served(&names, number, count).map(|(at, _)| at).collect())
                .collect();
            assert!(
                served.iter().all(|mine| !mine.is_empty()),
                "{destinations} {count}"
            );
            assert!((0..destinations).all(|at| served.iter().flatten().any(|mine| *mine == at)));
        }
    }
}

/// The schedule of an open loop: every message that is due is sent, and counts from when it was due.
#[test]
fn an_open_loop_keeps_its_rate() {
    let sink = SinkThread::start(None).unwrap();
    let rate = Some(5_000.0);
    let mut measured = run(&Plan {
        rate,
        ..plan(&sink, 3, 2, 3)
    })
    .unwrap();
    // The last of 1,000 is due after 0.1998 s, never earlier.
    assert!(
        measured.elapsed >= Duration::from_micros(199_800),
        "{:?}",
        measured.elapsed
    );
    assert_eq!(measured.receipt_ns.len(), COUNT);
    assert_eq!(all_faults(&mut measured), Faults::default());
}

/// A broker that cannot keep up is not forgiven: with one frame under way at a time and a rate far above that, the wait of
/// the later ones shows in their latency, though each was answered soon after it was sent.
#[test]
fn omission_is_not_coordinated() {
    let sink = SinkThread::start(None).unwrap();
    let measured = run(&Plan {
        rate: Some(1e9),
        window: 1,
        ..plan(&sink, 1, 0, 1)
    })
    .unwrap();
    let closed = run(&Plan {
        window: 1,
        ..plan(&sink, 1, 0, 1)
    })
    .unwrap();
    assert_eq!((measured.sent_count(), measured.receipt_ns.len()), (COUNT, COUNT));
    let [open_p50, closed_p50] = [measured, closed].map(|run| run.receipt_ns.value_at_quantile(0.5));
    assert!(open_p50 > 10 * closed_p50, "{open_p50}, {closed_p50}");
}

#[test]
fn each_subscriber_of_a_topic_must_get_everything() {
    let topic = |sink: &SinkThread, patience| {
        let mut measured = run(&Plan {
            destinations: vec!["/topic/test".to_owned()],
            each_gets_all: true,
            undelivered_max: Some(16),
            patience,
            ..plan(sink, 2, 3, 1)
        })
        .unwrap();
        let received = measured.received.clone();
        (all_faults(&mut measured), received)
    };
    let sound = SinkThread::start(None).unwrap();
    assert_eq!(topic(&sound, PATIENT), (Faults::default(), vec![COUNT; 3]));
    let faulty = SinkThread::start(Some(FaultPlan {
        fault: Fault::Lose,
        every: COUNT,
    }))
    .unwrap();
    // Of 3,000 deliveries three are missing, and no other subscriber makes up for one; producers wait for the undelivered.
    let (faults, _) = topic(&faulty, HASTY);
    assert_eq!((faults.lost, faults.doubled), (3, 0));
}

#[test]
fn transactions_confirm_all_their_messages_at_once() {
    let sink = SinkThread::start(None).unwrap();
    let transaction = Some(30);
    let mut measured = run(&Plan {
        transaction,
        ..plan(&sink, 2, 1, 3)
    })
    .unwrap();
    // Twice 500 in 30s: sixteen whole ones and one of twenty.
    assert_eq!(measured.receipt_ns.len(), 34);
    assert_eq!(measured.received_count, COUNT);
    assert_eq!(all_faults(&mut measured), Faults::default());
}

#[test]
fn what_is_forwarded_arrives_as_it_was_sent() {
    let sink = SinkThread::start(None).unwrap();
    let filled = run(&plan(&sink, 2, 0, 2)).unwrap();
    let forward: Vec<String> = (0..2).map(|number| format!("/queue/moved-{number}")).collect();
    let moved = run(&Plan {
        transaction: Some(30),
        forward: forward.clone(),
        ..plan(&sink, 0, 2, 2)
    })
    .unwrap();
    assert_eq!((moved.received_count, moved.faults), (COUNT, Faults::default()));
    let mut looked = run(&Plan {
        destinations: forward,
        ..plan(&sink, 0, 2, 2)
    })
    .unwrap();
    assert_eq!(looked.delivery_faults(&filled.sent), Faults::default());
}

#[test]
fn the_course_of_a_run_holds_every_message() {
    let sink = SinkThread::start(None).unwrap();
    let measured = run(&Plan {
        timeline: true,
        rate: Some(2_000.0),
        ..plan(&sink, 1, 1, 1)
    })
    .unwrap();
    assert!(measured.points.len() >= 3);
    let last = measured.points.last().unwrap();
    assert!(last.at_s <= measured.elapsed.as_secs_f64() + 1e-6);
    assert!(
        measured
            .points
            .iter()
            .all(|point| point.delivered.rate_per_s > 0.0)
    );
}
