//! One message kept while many pass: what the journal holds stays flat.

use steadfast::base::DestinationKind;
use steadfast::base::{Limits, Now, SessionNo, SubNo, Tag};
use steadfast::port::{
    AckMode, Binding, Credit, DeliveryKey, Event, Outcome, Payload, Request, Requests, Send, Settle,
    Subscribe, Target, Terms,
};

use crate::support::Disk;

const PASSING: usize = 200_000;
const AT_ONCE: usize = 100;

fn send(requests: &mut Requests, queue: &str, body: &str) {
    let header = "content-length:0\n";
    let name = requests.push_bytes(queue.as_bytes());
    let payload = Payload::Arena(requests.push_bytes(format!("{header}{body}").as_bytes()));
    requests.list.push(Request::Send(Send {
        to: Target {
            kind: DestinationKind::Queue,
            name,
        },
        also: Vec::new(),
        payload,
        header_len: u32::try_from(header.len()).unwrap(),
        persistent: true,
        terms: Terms::default(),
        dedup: None,
        tx: None,
    }));
}

/// How the kept message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// In a queue of its own that nobody reads.
    Alone,
    /// First in the queue through which the others pass, held by a client that never answers.
    Leased,
}

fn one_kept_while_many_pass(kept: Kept) {
    let limits = Limits {
        compaction_garbage_bytes_min: 64 << 10,
        compaction_chunk_count_slack: 64,
        compaction_waste_bytes_min: 1 << 20,
        ..Limits::default()
    };
    let mut now = Now {
        wall_ms: 1_700_000_000_000,
        mono_ms: 0,
    };
    let mut disk = Disk::default();
    let mut broker = disk.recover(&limits, now);
    let (holder, worker) = (SessionNo(1), SessionNo(2));
    broker.handle_open(holder);
    broker.handle_open(worker);
    let subscribe = |broker: &mut steadfast::broker::Broker, session, queue: &str, now| {
        let mut requests = Requests::default();
        let name = requests.push_bytes(queue.as_bytes());
        requests.list.push(Request::Subscribe(Subscribe {
            ack_timeout_ms: None,
            binding: Binding::None,
            sub: SubNo(1),
            kind: DestinationKind::Queue,
            name,
            ack_mode: AckMode::ClientIndividual,
            credit: Credit::count(if session == holder { 1 } else { 1000 }),
            filter: None,
            binds_durably: false,
            priority: 0,
            exclusive: false,
            no_local: false,
            browse: None,
            by_message: false,
        }));
        broker.handle_requests(session, &requests, now);
    };
    let sync = |broker: &mut steadfast::broker::Broker, disk: &mut Disk, now| {
        while let Some(batch) = broker.poll_batch() {
            disk.append(batch);
        }
        let sizes = disk.flush(usize::MAX);
        if !sizes.is_empty() {
            broker.handle_durable(disk.durable_seq(), &sizes, now);
        }
    };
    let kept_queue = if kept == Kept::Alone { "kept" } else { "flow" };
    let mut requests = Requests::default();
    send(&mut requests, kept_queue, "the one that is kept");
    broker.handle_requests(worker, &requests, now);
    sync(&mut broker, &mut disk, now);
    if kept == Kept::Leased {
        subscribe(&mut broker, holder, "flow", now);
        sync(&mut broker, &mut disk, now);
        let mut events = Vec::new();
        broker.poll_events(holder, 10, &mut events);
        assert_eq!(events.len(), 1, "the holder has it");
        broker.handle_written(holder, Tag(1), now);
    }
    subscribe(&mut broker, worker, "flow", now);
    sync(&mut broker, &mut disk, now);

    let body = "x".repeat(100);
    let mut most = Vec::new();
    let mut high = (0, 0, 0);
    let rounds = PASSING / AT_ONCE;
    for round in 0..rounds {
        now.mono_ms += 5;
        now.wall_ms += 5;
        requests.clear();
        for _ in 0..AT_ONCE {
            send(&mut requests, "flow", &body);
        }
        broker.handle_requests(worker, &requests, now);
        sync(&mut broker, &mut disk, now);
        let mut events = Vec::new();
        broker.poll_events(worker, usize::MAX, &mut events);
        assert_eq!(events.len(), AT_ONCE, "all that came passes");
        requests.clear();
        let mut last = Tag(0);
        for event in &events {
            let Event::Delivery(delivery) = event else {
                panic!("nobody is evicted")
            };
            last = delivery.tag;
            requests.list.push(Request::Settle(Settle {
                why: None,
                delivery: DeliveryKey::Tag(delivery.tag),
                outcome: Outcome::Accepted,
                tx: None,
            }));
        }
        broker.handle_written(worker, last, now);
        let applied = broker.handle_requests(worker, &requests, now);
        assert_eq!(applied.refusal, None);
        sync(&mut broker, &mut disk, now);
        if round % 200 == 199 {
            now.mono_ms += 1_000;
            broker.handle_tick(now);
            sync(&mut broker, &mut disk, now);
        }
        let (chunks, bytes, slots) = disk.extent();
        high = (high.0.max(chunks), high.1.max(bytes), high.2.max(slots));
        if (round + 1) % (rounds / 10) == 0 {
            most.push(high);
            high = (0, 0, 0);
        }
    }
    // Flat: no later tenth needs more than the second one did.
    let early = most[1];
    for (tenth, high) in most.iter().enumerate().skip(2) {
        assert!(
            high.0 <= early.0 + early.0 / 4 && high.1 <= early.1 + early.1 / 4 && high.2 <= early.2,
            "tenth {tenth} needs (index chunks, bytes, slots) {high:?}, the second needed {early:?}"
        );
    }
    assert!(
        most[9].1 < 1 << 20,
        "one message and some slack need no {} bytes",
        most[9].1
    );

    // And recovery from them gives exactly that state.
    let again = disk.recover(&limits, now);
    let queues: Vec<(String, u64)> = again
        .queues()
        .map(|view| (view.name.to_string(), view.depth))
        .collect();
    assert_eq!(queues, [(kept_queue.to_owned(), 1)]);
    let view = again.entries(kept_queue, 0).next().unwrap();
    let bytes = disk.resolve(&view.body, view.len).concat();
    assert_eq!(bytes, b"content-length:0\nthe one that is kept");
}

#[test]
fn one_message_kept_alone_while_many_pass() {
    one_kept_while_many_pass(Kept::Alone);
}

#[test]
fn one_message_leased_while_many_pass() {
    one_kept_while_many_pass(Kept::Leased);
}
