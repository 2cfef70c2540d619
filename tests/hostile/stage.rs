//! A broker, a healthy neighbour, and what must hold whatever others do to the broker.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rig::{Broker, Client, Settings, env_number};

const MIB: u64 = 1 << 20;

/// How long what must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The broker's bounds in these tests: small, so that what is not bounded shows.
const CONFIG: &str = "\
[limits]
body_bytes_max = 4_194_304
receiving_bytes_max = 8_388_608
memory_bytes_max = 16_777_216
staged_bytes_max = 4_194_304
body_cache_bytes_max = 4_194_304
commit_bytes_max = 1_048_576
unflushed_bytes_max = 4_194_304
unread_output_bytes_max = 262_144
topic_backlog_bytes_max = 1_048_576
disk_free_bytes_min = 1_048_576
";

/// What the whole broker may hold by these bounds: bodies being received, and copied to where they are stored; memory
/// for staged and transient messages and topic backlogs; the cache of bodies; what is not flushed, in the core and on
/// its way into the store; and the pages and buffers of the store.
const BROKER_BYTES_MAX: u64 = (2 * 8 + 16 + 4 + 2 * 4 + 64) * MIB;

/// What one connection may hold whose frames are short and whose answers are read, or fit into its socket: small things.
pub const SMALL: u64 = MIB / 16;

/// What one may hold that is in the middle of a frame as long as its limits allow: a header block, or a short body, too.
pub const IN_FRAME: u64 = SMALL + MIB / 8;

/// What one may hold that does not read: its receipts, and output on its way (up to four times its bound as memory
/// grows), too. As much are a thousand subscriptions.
pub const UNREAD: u64 = MIB / 4 + MIB + IN_FRAME;

/// Of the machine, before any thread of this program was told where to run.
static CORE_COUNT: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// Threads that read bodies and look after the disk stay for a while after their work, and take the next.
const POOL_THREAD_COUNT_MAX: usize = 8;

/// What it takes up, and must give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footing {
    thread_count: usize,
    descriptor_count: usize,
}

impl Footing {
    fn of(broker: &Broker) -> Self {
        Self {
            thread_count: broker.thread_count(),
            descriptor_count: broker.descriptor_count(),
        }
    }
}

/// See the module's text.
pub struct Stage {
    name: &'static str,
    settings: Settings,
    broker: Broker,
    before: Footing,
    resident_bytes: u64,
    neighbour: Neighbour,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// Starts both. `limits` are lines of configuration behind those of all.
    pub fn set(name: &'static str, limits: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::in_dir(dir.path());
        settings.config = format!("{CONFIG}{limits}");
        run_on(Cores::Others);
        let broker = settings.start();
        run_on(Cores::First);
        let neighbour = Neighbour::move_in(broker.addr());
        neighbour.await_rounds(30 * factor());
        Self {
            name,
            settings,
            before: Footing::of(&broker),
            resident_bytes: broker.peak_resident_bytes(),
            broker,
            neighbour,
            _dir: dir,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    /// The broker gave back the descriptors of all others, although they may not have closed theirs.
    pub fn await_alone(&self) {
        let begin = Instant::now();
        while self.broker.descriptor_count() > self.before.descriptor_count {
            assert!(
                begin.elapsed() < PATIENCE,
                "{}: {:?} were {:?}",
                self.name,
                Footing::of(&self.broker),
                self.before
            );
            pause();
        }
    }

    /// The attack, by connections that may hold so many bytes in all; what it returns is held while the neighbour is
    /// served. Then everything must be as it was: memory within its bound, descriptors and threads given back, every message
    /// of the neighbour there, also after a kill.
    pub fn endure<T>(mut self, connections_bytes_max: u64, attack: impl FnOnce(&Self) -> T) {
        let quiet = self.neighbour.rounds();
        let held = attack(&self);
        self.neighbour.await_rounds(20);
        let attacked = self.neighbour.rounds();
        drop(held);
        assert!(self.broker.runs(), "{}:\n{}", self.name, self.broker.log_end());
        let begin = Instant::now();
        loop {
            let now = Footing::of(&self.broker);
            if now.thread_count <= self.before.thread_count + POOL_THREAD_COUNT_MAX
                && now.descriptor_count <= self.before.descriptor_count
            {
                break;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{}: {now:?} were {:?}",
                self.name,
                self.before
            );
            pause();
        }
        let peak = self.broker.peak_resident_bytes() - self.resident_bytes;
        let bound = BROKER_BYTES_MAX + connections_bytes_max;
        let latencies = self.neighbour.move_out();
        println!(
            "{}: neighbour's round quiet {}, attacked {}; memory +{} of {} MiB",
            self.name,
            percentiles(&latencies[..quiet]),
            percentiles(&latencies[quiet..attacked]),
            peak / MIB,
            bound / MIB
        );
        assert!(peak <= bound, "{}: {peak} bytes of {bound}", self.name);
        assert!(!self.broker.log_end().contains("panicked"));
        self.broker.kill();
        let broker = self.settings.start();
        let kept = take_all(&broker, "/queue/kept");
        let expected: Vec<_> = (0..latencies.len()).map(|number| number.to_string()).collect();
        assert!(
            kept == expected,
            "{}: {} of {} messages",
            self.name,
            kept.len(),
            expected.len()
        );
        let again = take_all(&broker, "/queue/passed");
        assert_eq!(again.len(), 0, "{}: settled messages came again", self.name);
        broker.stop();
    }
}

/// How many times the work of an ordinary run the attackers do.
pub fn factor() -> u64 {
    env_number("STEADFAST_TEST_HOSTILE", 1)
}

/// The bodies of all messages of a queue, settled.
pub fn take_all(broker: &Broker, queue: &str) -> Vec<String> {
    let mut client = broker.connect();
    client
        .request("SEND", &[("destination", queue)], b"the last")
        .unwrap();
    let headers = [
        ("destination", queue),
        ("id", "0"),
        ("ack", "client"),
        ("prefetch-count", "100000"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut bodies = Vec::new();
    loop {
        let message = client.expect().unwrap();
        assert_eq!(message.command, "MESSAGE", "{message:?}");
        let body = String::from_utf8(message.body.clone()).unwrap();
        let id = message.header("ack").unwrap();
        if body == "the last" {
            client.request("ACK", &[("id", id)], b"").unwrap();
            return bodies;
        }
        client.send("ACK", &[("id", id)], b"").unwrap();
        bodies.push(body);
    }
}

/// A client that keeps to the rules: each round sends a message that stays, and one that comes back and is settled.
struct Neighbour {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    round_count: AtomicU64,
    /// Of each round.
    latencies: Mutex<Vec<Duration>>,
}

impl Neighbour {
    fn move_in(addr: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || live(addr, &own));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    fn rounds(&self) -> usize {
        self.shared.round_count.load(SeqCst) as usize
    }

    /// Waits until it did so many rounds more.
    fn await_rounds(&self, count: u64) {
        let now = || self.shared.round_count.load(SeqCst);
        let goal = now() + count;
        let (mut last, mut since) = (now(), Instant::now());
        while last < goal {
            let thread = self.thread.as_ref().expect("it lives here");
            assert!(
                !thread.is_finished() && since.elapsed() < PATIENCE,
                "the neighbour is not served"
            );
            pause();
            if now() > last {
                (last, since) = (now(), Instant::now());
            }
        }
    }

    /// The latencies of all of its rounds.
    fn move_out(&mut self) -> Vec<Duration> {
        self.shared.over.store(true, SeqCst);
        let thread = self.thread.take().expect("it lives here");
        thread.join().expect("every request of the neighbour is answered");
        let mut latencies = self
            .shared
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *latencies)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
    }
}

fn live(addr: SocketAddr, shared: &Shared) {
    go_first();
    let mut client = Client::connect(addr).unwrap();
    let headers = [
        ("destination", "/queue/passed"),
        ("id", "0"),
        ("ack", "client-individual"),
    ];
    client.request("SUBSCRIBE", &headers, b"").unwrap();
    for round in 0_u64.. {
        if shared.over.load(SeqCst) {
            return;
        }
        let body = round.to_string();
        let begin = Instant::now();
        client
            .request("SEND", &[("destination", "/queue/kept")], body.as_bytes())
            .unwrap();
        let mut came = client
            .request("SEND", &[("destination", "/queue/passed")], body.as_bytes())
            .unwrap();
        let message = match came.pop() {
            Some(message) => message,
            None => client.expect().unwrap(),
        };
        assert_eq!(message.body, body.as_bytes(), "{message:?}");
        client
            .request("ACK", &[("id", message.header("ack").unwrap())], b"")
            .unwrap();
        let mut latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.push(begin.elapsed());
        drop(latencies);
        shared.round_count.fetch_add(1, SeqCst);
    }
}

/// The cores of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cores {
    First,
    Others,
}

/// For figures: what this thread starts from now on runs on these cores only. Clients have machines of their own, and the
/// broker is to be measured, not a scheduler that divides one machine between all of them.
fn run_on(cores: Cores) {
    let count = *CORE_COUNT;
    if factor() == 1 || count < 2 {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    match cores {
        Cores::First => set.set(0),
        Cores::Others => (1..count).for_each(|core| set.set(core)),
    }
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// For figures: this thread does not wait for others of its core, as it would not on a machine of its own. A lower nice value would
/// leave it waiting for milliseconds.
fn go_first() {
    if factor() == 1 {
        return;
    }
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt").args(["-r", "-p", "2", &thread]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "figures need the right to set a real-time priority"
    );
}

fn percentiles(latencies: &[Duration]) -> String {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    format!("p50 {:.1?} p99 {:.1?} of {}", at(50), at(99), sorted.len())
}

/// What is awaited is another process, which tells nobody.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
