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
        awaited: Await::Count(COUNT),
        run: Some(7),
        body_bytes: 100,
        window: 16,
        undelivered_max: None,
        ack: AckMode::ClientIndividual,
        prefetch: None,
        send_headers: Vec::new(),
        subscribe_headers: Vec::new(),
        patience: Duration::from_secs(10),
        pid: None,
    }
}

/// The verdict of producers and consumers at once, with one queue and with `fault` at every 100th message.
fn e2e(fault: Option<Fault>, patience: Duration) -> Faults {
    let sink = SinkThread::start(fault.map(|fault| FaultPlan { fault, every: 100 })).unwrap();
    let measured = run(&Plan {
        patience,
        ..plan(&sink, 1, 1, 1)
    })
    .unwrap();
    let mut faults = measured.verifier.finish(&measured.sent);
    faults += measured.faults;
    faults
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
    let drained = run(&plan(&sink, 0, 1, 1)).unwrap();
    // The last message has none to be swapped with.
    assert_eq!(
        drained.verifier.finish(&filled.sent),
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
            let measured = run(&Plan {
                ack,
                undelivered_max,
                ..plan(&sink, producers, consumers, queues)
            })
            .unwrap();
            assert_eq!(measured.sent_count(), COUNT);
            assert_eq!(measured.received_count, COUNT);
            assert_eq!(measured.receipt_ns.len(), COUNT);
            assert_eq!(measured.delivery_ns.len(), COUNT);
            assert_eq!(measured.verifier.finish(&measured.sent), Faults::default());
        }
    }
}

#[test]
fn a_drain_of_an_unknown_number_ends_when_it_is_quiet() {
    let sink = SinkThread::start(None).unwrap();
    run(&plan(&sink, 2, 0, 2)).unwrap();
    let awaited = Await::Quiet(HASTY);
    let drained = run(&Plan {
        awaited,
        run: None,
        ..plan(&sink, 0, 1, 2)
    })
    .unwrap();
    assert_eq!(drained.received_count, COUNT);
    assert!(drained.elapsed < PATIENT);
    assert_eq!(drained.verifier.finish_unknown(Some(COUNT)), Faults::default());
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
