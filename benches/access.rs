//! What rules cost the core, on one core: for each SEND, and when they change: `cargo bench --bench access`. A measurement, not a
//! test.
//!
//! The SENDs go to topics that nobody has subscribed to, so that little else is done for them.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it measures with a clock, prints, and is run by hand"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use steadfast::base::{
    Actions, DestinationKind, Destinations, Limits, Now, Principal, Rule, Rules, SessionNo, SubNo, Who,
};
use steadfast::broker::{Broker, Recovery};
use steadfast::journal::Recovered;
use steadfast::port::{AckMode, Binding, Credit, Payload, Request, Requests, Send, Subscribe, Target, Terms};

const NOW: Now = Now {
    wall_ms: 1,
    mono_ms: 1,
};
const SESSION: SessionNo = SessionNo(1);
/// SENDs of one socket read.
const READ_COUNT: usize = 27;
/// As many as there may be, by the default of `connection_count_max`.
const SESSION_COUNT: u64 = 20_000;

/// The last of them is the one that allows it.
fn rules(count: usize) -> Rules {
    let mut rules = Rules::default();
    for no in (0..count).rev() {
        rules.push(Rule {
            allows: true,
            actions: Actions::parse(["send", "receive", "create"]).unwrap(),
            principals: [Who::parse(&format!("group:g{no}")).unwrap()].into(),
            destinations: [Destinations::parse("/topic/orders.>").unwrap()].into(),
            line: no,
        });
    }
    rules
}

fn reads(topic_count: usize) -> Vec<Requests> {
    let mut names = (0..topic_count).map(|no| format!("orders.{no}")).cycle();
    let read_count = topic_count.div_ceil(READ_COUNT);
    let read = |_| {
        let mut requests = Requests::default();
        for name in names.by_ref().take(READ_COUNT) {
            let name = requests.push_bytes(name.as_bytes());
            let payload = Payload::Arena(requests.push_bytes(&[0; 256]));
            requests.list.push(Request::Send(Send {
                to: Target {
                    kind: DestinationKind::Topic,
                    name,
                },
                also: Vec::new(),
                payload,
                header_len: 0,
                persistent: true,
                terms: Terms::default(),
                dedup: None,
                tx: None,
            }));
        }
        requests
    };
    (0..read_count).map(read).collect()
}

fn nanoseconds(broker: &mut Broker, reads: &[Requests]) -> f64 {
    let (began, mut count) = (Instant::now(), 0_usize);
    while began.elapsed() < Duration::from_millis(300) {
        for read in reads {
            let applied = broker.handle_requests(SESSION, black_box(read), NOW);
            assert_eq!(applied.refusal, None);
            count += applied.done;
        }
    }
    began.elapsed().as_secs_f64() * 1e9 / count as f64
}

fn login() -> Requests {
    let mut login = Requests::default();
    login.list.push(Request::ActFor {
        principal: Arc::new(Principal {
            name: Some("alice".into()),
            groups: ["g0".into()].into(),
        }),
    });
    login
}

/// For how long the core does nothing else while the rights of all subscriptions are looked at.
fn change(rule_count: usize) -> Duration {
    let mut broker = Recovery::new(Limits::default()).finish(&Recovered::default(), NOW);
    for no in 0..SESSION_COUNT {
        let session = SessionNo(no);
        broker.handle_open(session);
        let mut requests = login();
        let name = requests.push_bytes(format!("orders.{no}").as_bytes());
        requests.list.push(Request::Subscribe(Subscribe {
            sub: SubNo(1),
            kind: DestinationKind::Topic,
            name,
            binding: Binding::None,
            ack_mode: AckMode::Auto,
            credit: Credit::count(1),
            ack_timeout_ms: None,
            filter: None,
            binds_durably: false,
            priority: 0,
            exclusive: false,
            no_local: false,
            browse: None,
            by_message: false,
        }));
        assert_eq!(broker.handle_requests(session, &requests, NOW).refusal, None);
    }
    let rules = Arc::new(rules(rule_count));
    let began = Instant::now();
    broker.handle_rules(rules, NOW);
    let took = began.elapsed();
    assert!((0..SESSION_COUNT).all(|no| !broker.is_evicted(SessionNo(no))));
    took
}

fn main() {
    for rule_count in [1, 100] {
        let took = change(rule_count).as_secs_f64() * 1e3;
        println!("{rule_count} rules, {SESSION_COUNT} sessions: {took:.1} ms when they change");
    }
    println!("{:>6} {:>7} {:>12}", "rules", "topics", "ns a SEND");
    for topic_count in [1, 1_000] {
        let reads = reads(topic_count);
        for round in 0..3 {
            for rule_count in [0, 1, 100] {
                let mut broker = Recovery::new(Limits::default()).finish(&Recovered::default(), NOW);
                broker.handle_rules(Arc::new(rules(rule_count)), NOW);
                broker.handle_open(SESSION);
                broker.handle_requests(SESSION, &login(), NOW);
                let ns = nanoseconds(&mut broker, &reads);
                if round > 0 {
                    println!("{rule_count:>6} {topic_count:>7} {ns:>12.0}");
                }
            }
        }
    }
}
