//! A restart in place: the broker is asked to stop and started again at its address, under clients that connect again by
//! themselves. What it costs them is measured: the gap between the last answer before and the first behind.
//!
//! `STEADFAST_TEST_RESTARTS` says how many (3), `STEADFAST_TEST_STORED` how many messages of 1 KiB lie in the store besides (2,000).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::alone;
use super::rig::{Client, Frame, Settings, encode, env_number};

const QUEUE: &str = "/queue/work";
const PRODUCER_COUNT: u64 = 4;
const CONSUMER_COUNT: usize = 4;

/// How soon a client tries again.
const AGAIN: Duration = Duration::from_millis(2);

/// What clients know, by the body of each message.
#[derive(Default)]
struct Known {
    confirmed: BTreeSet<String>,
    /// With its message id.
    delivered: BTreeMap<String, String>,
    settled: BTreeSet<String>,
    violations: Vec<String>,
    /// Of each time that a client was cut: from its last answer to its next.
    gaps: Vec<Duration>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    over: AtomicBool,
    /// Answers that clients got.
    answers: AtomicU64,
}

/// When a client was last answered, and whether it was cut since.
struct Pulse {
    answered: Instant,
    cut: bool,
}

impl Pulse {
    fn new() -> Self {
        Self {
            answered: Instant::now(),
            cut: false,
        }
    }

    fn answer(&mut self, shared: &Shared) {
        let now = Instant::now();
        if std::mem::take(&mut self.cut) {
            let mut known = shared.known.lock().unwrap();
            known.gaps.push(now - self.answered);
        }
        self.answered = now;
        shared.answers.fetch_add(1, SeqCst);
    }
}

/// Does a client's work, on a new connection whenever the last one is gone.
fn again_and_again(
    addr: SocketAddr,
    shared: &Arc<Shared>,
    mut work: impl FnMut(&mut Client, &Shared, &mut Pulse) -> io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut pulse = Pulse::new();
        while !shared.over.load(SeqCst) {
            match Client::connect(addr) {
                Ok(mut client) => {
                    let done = work(&mut client, &shared, &mut pulse);
                    pulse.cut |= done.is_err();
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    })
}

/// Sends one message after the other, each until it is confirmed; its deduplication id keeps it single.
fn produce(addr: SocketAddr, shared: &Arc<Shared>, number: u64) -> JoinHandle<()> {
    let mut next = 0;
    again_and_again(addr, shared, move |client, shared, pulse| {
        while !shared.over.load(SeqCst) {
            let body = format!("{number}-{next}");
            let headers = [("destination", QUEUE), ("dedup-id", &body)];
            client.request("SEND", &headers, body.as_bytes())?;
            pulse.answer(shared);
            shared.known.lock().unwrap().confirmed.insert(body);
            next += 1;
        }
        Ok(())
    })
}

/// Settles one message after the other, each confirmed.
fn consume(client: &mut Client, shared: &Shared, pulse: &mut Pulse) -> io::Result<()> {
    let headers = [
        ("destination", QUEUE),
        ("id", "0"),
        ("ack", "client-individual"),
        ("prefetch-count", "20"),
    ];
    let mut waiting = VecDeque::from(client.request("SUBSCRIBE", &headers, b"")?);
    while !shared.over.load(SeqCst) {
        let frame = match waiting.pop_front() {
            Some(frame) => frame,
            None => match client.receive(Duration::from_millis(100))? {
                Some(frame) => frame,
                None => continue,
            },
        };
        if frame.command != "MESSAGE" {
            return Err(io::Error::other(format!("{frame:?}")));
        }
        let body = deliver(&frame, shared);
        let id = frame.header("ack").expect("a MESSAGE can be settled").to_owned();
        waiting.extend(client.request("ACK", &[("id", &id)], b"")?);
        pulse.answer(shared);
        shared.known.lock().unwrap().settled.insert(body);
    }
    Ok(())
}

fn deliver(frame: &Frame, shared: &Shared) -> String {
    let body = String::from_utf8(frame.body.clone()).unwrap();
    let id = frame.header("message-id").unwrap().to_owned();
    let mut known = shared.known.lock().unwrap();
    if known.settled.contains(&body) {
        known
            .violations
            .push(format!("{body} came back, and was settled"));
    }
    match known.delivered.insert(body.clone(), id.clone()) {
        Some(before) if before != id => known.violations.push(format!("{body} was stored twice")),
        _ => {}
    }
    body
}

/// Messages that nobody takes, in flocks of a hundred receipts.
fn fill(addr: SocketAddr, count: u64) {
    let mut client = Client::connect(addr).unwrap();
    let body = vec![b'x'; 1024];
    let frame = encode("SEND", &[("destination", "/queue/stored")], &body);
    for begin in (0..count).step_by(100) {
        client
            .send_raw(&frame.repeat((count - begin).min(100) as usize - 1))
            .unwrap();
        client
            .request("SEND", &[("destination", "/queue/stored")], &body)
            .unwrap();
    }
}

/// Reads every file of a folder once; how long that takes, and how many bytes they have.
fn read_once(folder: &Path) -> (Duration, u64) {
    let begin = Instant::now();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let mut file = fs::File::open(path).unwrap();
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                len => bytes += len as u64,
            }
        }
    }
    (begin.elapsed(), bytes)
}

/// What a store loses on the way from a stop to a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Whole,
    /// All that came since the last stop but one.
    RolledBack,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Restarts under load; how many confirmed messages are gone, and what else is wrong.
fn restarts(count: u64, stored_count: u64, consumer_count: usize, store: Store) -> (usize, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[limits]\ndisk_free_bytes_min = 0\n".to_owned();
    let mut broker = settings.start();
    let addr = broker.addr();
    fill(addr, stored_count);
    let shared = Arc::new(Shared::default());
    let mut clients: Vec<_> = (0..PRODUCER_COUNT).map(|n| produce(addr, &shared, n)).collect();
    clients.extend((0..consumer_count).map(|_| again_and_again(addr, &shared, consume)));
    let get_on = |count: u64| {
        let (begin, from) = (Instant::now(), shared.answers.load(SeqCst));
        while shared.answers.load(SeqCst) < from + count {
            assert!(begin.elapsed() < Duration::from_secs(60), "clients do not get on");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    get_on(200);
    let older = dir.path().join("older");
    for number in 1..=count {
        shared.known.lock().unwrap().gaps.clear();
        let begin = Instant::now();
        broker.stop();
        let stopped = begin.elapsed();
        let (reading, bytes) = read_once(&settings.data_dir);
        if store == Store::RolledBack && number < count {
            copy(&settings.data_dir, &older);
        } else if store == Store::RolledBack {
            fs::remove_dir_all(&settings.data_dir).unwrap();
            fs::rename(&older, &settings.data_dir).unwrap();
        }
        let begin = Instant::now();
        broker = settings.spawn_at(&addr.to_string());
        if let Err(error) = broker.wait_ready() {
            panic!("{error}");
        }
        let started = begin.elapsed();
        get_on(200);
        let gaps = shared.known.lock().unwrap().gaps.clone();
        let longest = gaps.iter().max().copied().unwrap_or_default();
        println!(
            "  restart {number}: stopped in {stopped:.1?}, started in {started:.1?}; {} clients were cut, the longest gap was \
             {:.1?} (without the {reading:.1?} in which this test read the store's {} KiB once)",
            gaps.len(),
            longest.saturating_sub(reading),
            bytes / 1024
        );
        assert!(!gaps.is_empty(), "nobody was cut");
    }
    shared.over.store(true, SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    // What is left belongs to nobody any more.
    let mut client = broker.connect();
    let headers = [("destination", QUEUE), ("id", "0"), ("ack", "auto")];
    let mut rest = client.request("SUBSCRIBE", &headers, b"").unwrap();
    loop {
        for frame in rest.drain(..) {
            deliver(&frame, &shared);
        }
        match client.receive(Duration::from_secs(2)).unwrap() {
            Some(frame) => rest.push(frame),
            None => break,
        }
    }
    drop(client);
    broker.stop();
    let known = std::mem::take(&mut *shared.known.lock().unwrap());
    println!(
        "  {} messages confirmed, {} settled",
        known.confirmed.len(),
        known.settled.len()
    );
    let gone = |body: &&String| !known.delivered.contains_key(*body);
    (known.confirmed.iter().filter(gone).count(), known.violations)
}

#[test]
fn a_restart_in_place_loses_nothing_and_costs_its_clients_a_gap() {
    let _alone = alone();
    let count = env_number("STEADFAST_TEST_RESTARTS", 3);
    let stored_count = env_number("STEADFAST_TEST_STORED", 2_000);
    let (gone_count, violations) = restarts(count, stored_count, CONSUMER_COUNT, Store::Whole);
    assert_eq!(gone_count, 0, "confirmed and gone");
    assert!(violations.is_empty(), "{violations:?}");
}

/// One consumer for all producers leaves a backlog, of which each restart has something to lose.
#[test]
fn a_store_that_is_rolled_back_between_restarts_is_caught() {
    let _alone = alone();
    let (gone_count, violations) = restarts(2, 100, 1, Store::RolledBack);
    assert!(gone_count > 0, "what was confirmed since is gone");
    assert!(
        violations.iter().any(|what| what.contains("came back")),
        "{violations:?}"
    );
}
