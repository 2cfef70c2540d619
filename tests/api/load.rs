//! Every act, again and again, beside producers and consumers. Messages are numbers; what became of each is told by those
//! who saw it, in one order, and judged at the end.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use steadfast::api;

use super::rig::http::{Answer, ask};
use super::rig::{Client, Rng, Settings, env_number};
use super::{socket, state};

/// Messages between two receipts of a producer.
const PACE: usize = 10;
/// The last digit decides what an operator may do to a message beside moving it.
const SET_ASIDE: u32 = 6;
const DOOMED: u32 = 7;
/// It fails until it is a dead letter.
const FAILING: u32 = 5;
/// Long enough for any answer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who goes on until when.
const LOADED: u8 = 0;
const DRAINING: u8 = 1;
const OVER: u8 = 2;

/// What a consumer saw or did, and when an operator was about to end a session.
#[derive(Debug)]
enum Told {
    Began {
        session: u64,
    },
    Came {
        session: u64,
        number: u32,
        id: String,
    },
    /// An ACK is about to be written.
    Asked {
        number: u32,
    },
    /// Its RECEIPT came.
    Settled {
        id: String,
    },
    /// Of one session, or of any.
    Ending {
        session: Option<u64>,
    },
    Ended {
        session: u64,
    },
}

#[derive(Debug, Default)]
struct World {
    told: Mutex<Vec<Told>>,
    phase: AtomicU8,
    /// The next number that nobody has sent.
    next: AtomicU32,
}

impl World {
    fn tell(&self, told: Told) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }
}

/// Of a length of its own, so that a piece of another message is seen.
fn body_of(number: u32) -> Vec<u8> {
    format!("{number} ")
        .repeat(number as usize % 150 + 1)
        .into_bytes()
}

fn produce(addr: SocketAddr, world: &World) {
    let mut client = Client::connect(addr).unwrap();
    while world.phase.load(SeqCst) == LOADED {
        for left in (0..PACE).rev() {
            let number = world.next.fetch_add(1, SeqCst);
            let (number_text, digit) = (number.to_string(), (number % 10).to_string());
            let headers = [
                ("destination", "/queue/a"),
                ("number", number_text.as_str()),
                ("digit", &digit),
            ];
            // The last receipt proves all.
            match left {
                0 => client.request("SEND", &headers, &body_of(number)).map(|_| ()),
                _ => client.send("SEND", &headers, &body_of(number)),
            }
            .unwrap();
        }
    }
}

/// Takes messages of a queue until all is over, over one connection after the other.
fn consume(addr: SocketAddr, queue: &str, world: &World) {
    while world.phase.load(SeqCst) != OVER {
        let mut client = Client::open(addr).unwrap();
        let headers = [("accept-version", "1.2"), ("host", "test")];
        client.send("CONNECT", &headers, b"").unwrap();
        let connected = client.expect().unwrap();
        let session = connected.header("session").unwrap();
        let session = session.rsplit('-').next().unwrap().parse().unwrap();
        world.tell(Told::Began { session });
        // What is written to a session that has been ended may reset the socket before the ERROR is read.
        if consume_over(&mut client, session, queue, world).is_err() {
            world.tell(Told::Ended { session });
        }
    }
}

fn consume_over(client: &mut Client, session: u64, queue: &str, world: &World) -> io::Result<()> {
    let headers = [
        ("destination", queue),
        ("id", "1"),
        ("ack", "client-individual"),
        ("prefetch-count", "30"),
    ];
    client.request("SUBSCRIBE", &headers, b"")?;
    let mut due = HashMap::new();
    loop {
        let Some(frame) = client.receive(Duration::from_millis(20))? else {
            if world.phase.load(SeqCst) == OVER && due.is_empty() {
                return client.request("DISCONNECT", &[], b"").map(|_| ());
            }
            continue;
        };
        match frame.command.as_str() {
            "MESSAGE" => {
                let number: u32 = frame.header("number").unwrap().parse().unwrap();
                assert_eq!(frame.body, body_of(number), "message {number} is altered");
                let id = frame.header("message-id").unwrap().to_owned();
                world.tell(Told::Came {
                    session,
                    number,
                    id: id.clone(),
                });
                let ack = frame.header("ack").unwrap();
                if number % 10 == FAILING && world.phase.load(SeqCst) == LOADED {
                    client.send("NACK", &[("id", ack)], b"")?;
                } else {
                    world.tell(Told::Asked { number });
                    client.send("ACK", &[("id", ack), ("receipt", ack)], b"")?;
                    due.insert(ack.to_owned(), id);
                }
            }
            "RECEIPT" => {
                let id = due.remove(frame.header("receipt-id").unwrap());
                world.tell(Told::Settled {
                    id: id.expect("a RECEIPT for what is due"),
                });
            }
            _ => {
                let code = frame.header("code").unwrap();
                assert!(
                    ["queue-deleted", "disconnected-by-operator"].contains(&code),
                    "{frame:?}"
                );
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// What an operator did, in numbers.
#[derive(Debug, Default)]
struct Deeds {
    purged_count: u64,
    deleted_count: u64,
    copied_count: u64,
    moved_count: u64,
    requeued_count: u64,
    ended_count: u64,
}

struct Operator<'a> {
    data_dir: &'a Path,
    world: &'a World,
    deeds: Deeds,
}

impl Operator<'_> {
    fn post(&self, target: &str, body: &str) -> Answer {
        ask(&socket(self.data_dir), "POST", target, body).unwrap()
    }

    /// How many it was done to; none where there is no such queue just now.
    fn act(&self, queue: &str, act: &str, body: &str) -> u64 {
        let answer = self.post(&format!("/v1/queues/{queue}/{act}"), body);
        match answer.status {
            404 => 0,
            _ => answer.json::<api::Acted>().count,
        }
    }

    /// Ends one of the sessions that subscribe to something.
    fn disconnect(&self, rng: &mut Rng) -> u64 {
        let answer = ask(&socket(self.data_dir), "GET", "/v1/connections", "").unwrap();
        let mut sessions = answer.json::<api::Connections>().connections;
        sessions.retain(|session| session.subscription_count > 0);
        if sessions.is_empty() {
            return 0;
        }
        let session = sessions[rng.below(sessions.len())].session;
        self.world.tell(Told::Ending {
            session: Some(session),
        });
        let answer = self.post(&format!("/v1/connections/{session}/disconnect"), "");
        match answer.status {
            404 => 0,
            _ => answer.json::<api::Acted>().count,
        }
    }

    fn requeue(&mut self) {
        for queue in ["DLQ.a", "DLQ.b"] {
            self.deeds.requeued_count += self.act(queue, "requeue", "");
        }
    }

    /// Every act once.
    fn round(&mut self, rng: &mut Rng) {
        self.act("a", "pause", "");
        let aside = format!(r#"{{"to": "b", "header": ["digit:{SET_ASIDE}"], "limit": 40}}"#);
        let doomed = format!(r#"{{"to": "doomed", "header": ["digit:{DOOMED}"]}}"#);
        self.deeds.moved_count += self.act("a", "move", &aside);
        self.deeds.copied_count += self.act("a", "copy", r#"{"to": "copies", "limit": 10}"#);
        self.act("a", "resume", "");
        self.deeds.moved_count += self.act("b", "move", r#"{"to": "a", "limit": 5}"#);
        self.deeds.moved_count += self.act("a", "move", &doomed);
        self.deeds.purged_count += match rng.chance(50) {
            true => self.act("doomed", "purge", ""),
            false => self.act("doomed", "purge", r#"{"header": ["number"], "limit": 7}"#),
        };
        self.requeue();
        if rng.chance(20) {
            // So that something is in it.
            self.act("b", "pause", "");
            self.deeds.moved_count += self.act("a", "move", &aside);
            self.world.tell(Told::Ending { session: None });
            self.deeds.deleted_count += self.act("b", "delete", r#"{"force": true}"#);
        }
        self.deeds.ended_count += self.disconnect(rng);
    }
}

#[test]
fn acts_under_load_lose_double_and_alter_nothing() {
    let mut rng = Rng::new(env_number("STEADFAST_TEST_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[limits]\ndeliveries_failed_max = 2\n".to_owned();
    let broker = settings.start();
    let addr = broker.addr();
    let world = World::default();
    let mut operator = Operator {
        data_dir: &settings.data_dir,
        world: &world,
        deeds: Deeds::default(),
    };
    std::thread::scope(|scope| {
        for queue in ["/queue/a", "/queue/a", "/queue/b"] {
            let world = &world;
            scope.spawn(move || consume(addr, queue, world));
        }
        let producers = [(); 2].map(|()| scope.spawn(|| produce(addr, &world)));
        for _ in 0..env_number("STEADFAST_TEST_ACT_ROUNDS", 30) {
            operator.round(&mut rng);
        }
        world.phase.store(DRAINING, SeqCst);
        for producer in producers {
            producer.join().unwrap();
        }
        let start = Instant::now();
        while ["a", "b", "DLQ.a", "DLQ.b"].map(|queue| state(&settings.data_dir, queue)) != [(0, false); 4] {
            assert!(start.elapsed() < PATIENCE, "the queues are not drained");
            operator.requeue();
        }
        world.phase.store(OVER, SeqCst);
    });
    let deeds = operator.deeds;
    let (told, sent_count) = (world.told.into_inner().unwrap(), world.next.into_inner());
    println!("{sent_count} sent, {} events, {deeds:?}", told.len());
    judge(&told, sent_count, &settings.data_dir, &deeds);
    broker.stop();
}

/// Nothing came again behind its settlement; every number was settled, or taken by the operator who said how many.
fn judge(told: &[Told], sent_count: u32, data_dir: &Path, deeds: &Deeds) {
    let ends = ends(told);
    let mut settled_at: HashMap<&str, usize> = HashMap::new();
    for (at, told) in told.iter().enumerate() {
        if let Told::Settled { id } = told {
            settled_at.entry(id).or_insert(at);
        }
    }
    let (mut asked, mut ids) = (HashSet::new(), HashMap::new());
    for (at, told) in told.iter().enumerate() {
        match told {
            Told::Came { session, number, id } => {
                let made_by = ends.get(session).map_or(at, |end| at.min(*end));
                let settled_at = settled_at.get(id.as_str());
                assert!(
                    settled_at.is_none_or(|settled_at| made_by < *settled_at),
                    "message {number} came after it was settled"
                );
                let before = ids.insert(*number, id);
                assert!(
                    before.is_none_or(|before| before == id),
                    "message {number} has two ids"
                );
            }
            Told::Asked { number } => {
                asked.insert(*number);
            }
            _ => {}
        }
    }
    let different: HashSet<_> = ids.values().collect();
    assert_eq!(different.len(), ids.len(), "two messages have one id");

    // Of what was asked for on a session that was ended, the ACK may have been too late.
    let count = |digit: u32, taken: &dyn Fn(&u32) -> bool| {
        let numbers = (0..sent_count).filter(|number| number % 10 == digit);
        numbers.filter(|number| !taken(number)).count() as u64
    };
    let missing = |digit| count(digit, &|number| asked.contains(number));
    let unsure = |digit| {
        count(digit, &|number| {
            ids.get(number)
                .is_some_and(|id| settled_at.contains_key(id.as_str()))
        })
    };
    for digit in (0..10).filter(|digit| ![SET_ASIDE, DOOMED].contains(digit)) {
        assert_eq!(missing(digit), 0, "messages that end in {digit} were lost");
    }
    let doomed_count = deeds.purged_count + state(data_dir, "doomed").0;
    assert!(
        (missing(DOOMED)..=unsure(DOOMED)).contains(&doomed_count),
        "{doomed_count} doomed, {} missing, {} not settled",
        missing(DOOMED),
        unsure(DOOMED)
    );
    assert!(
        missing(SET_ASIDE) <= deeds.deleted_count,
        "{} missing: {deeds:?}",
        missing(SET_ASIDE)
    );
    assert_eq!(state(data_dir, "copies").0, deeds.copied_count);
    let counts = [
        deeds.purged_count,
        deeds.deleted_count,
        deeds.copied_count,
        deeds.moved_count,
        deeds.requeued_count,
        deeds.ended_count,
    ];
    assert!(
        counts.iter().all(|count| *count > 0),
        "each act took something: {deeds:?}"
    );
}

/// When sessions were ended at the earliest: what was on its way to them then may be read much later.
fn ends(told: &[Told]) -> HashMap<u64, usize> {
    let (mut began, mut one, mut ended) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut any = Vec::new();
    for (at, told) in told.iter().enumerate() {
        match told {
            Told::Began { session } => {
                began.insert(*session, at);
            }
            Told::Ending {
                session: Some(session),
            } => {
                one.insert(*session, at);
            }
            Told::Ending { session: None } => any.push(at),
            Told::Ended { session } => {
                let next = any.iter().find(|any| **any > began[session]);
                let end = one.get(session).into_iter().chain(next).min();
                ended.insert(*session, *end.expect("nobody else ends a session"));
            }
            _ => {}
        }
    }
    ended
}
