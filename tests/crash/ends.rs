//! Other ends of a broker under load than a kill: it is asked to stop, stands still, or runs out of memory.
//!
//! `STEADFAST_TEST_STOPS`, `STEADFAST_TEST_STALLS` and `STEADFAST_TEST_MEMORY_ENDS` make longer runs.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::rig::{Broker, Client, env_number};
use super::{Trial, alone, assert_kept, millis, seed};

#[test]
fn stops_under_load_lose_nothing() {
    let _alone = alone();
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(dir.path(), dir.path(), seed);
    let mut slowest = Duration::ZERO;
    for _ in 0..env_number("STEADFAST_TEST_STOPS", 6) {
        trial.start(None);
        let while_ = millis(&mut trial.rng, 50, 800);
        trial.run(while_);
        let begin = Instant::now();
        trial.stop();
        slowest = slowest.max(begin.elapsed());
    }
    println!("  the slowest stop took {slowest:?}");
    assert_kept(&trial.finish(), seed);
}

/// A client whose heart-beats are to come every 250 ms, both ways, and do.
struct Beater {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Beater {
    fn start(addr: SocketAddr) -> Self {
        let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (own_over, own_answers) = (Arc::clone(&over), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            if let Err(error) = beat(addr, &own_over, &own_answers) {
                assert!(own_over.load(SeqCst), "a client that beats was lost: {error}");
            }
        });
        Self {
            over,
            answers,
            thread,
        }
    }

    /// Waits until it was answered again.
    fn await_answer(&self) {
        let before = self.answers.load(SeqCst);
        let begin = Instant::now();
        while self.answers.load(SeqCst) <= before + 1 {
            assert!(!self.thread.is_finished(), "a client that beats was lost");
            assert!(begin.elapsed() < Duration::from_secs(60), "it is not answered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The broker is about to end.
    fn end(&self) {
        self.over.store(true, SeqCst);
    }
}

fn beat(addr: SocketAddr, over: &AtomicBool, answers: &AtomicU64) -> io::Result<()> {
    let mut client = Client::open(addr)?;
    let headers = [
        ("accept-version", "1.2"),
        ("host", "h"),
        ("heart-beat", "250,250"),
    ];
    client.send("CONNECT", &headers, b"")?;
    let connected = client.expect()?;
    assert_eq!(connected.header("heart-beat"), Some("250,250"), "{connected:?}");
    let mut last = Instant::now();
    while !over.load(SeqCst) {
        client.send_raw(b"\n")?;
        // No frame comes of itself, but the end would be seen.
        if let Some(frame) = client.receive(Duration::from_millis(50))? {
            return Err(io::Error::other(format!("{frame:?}")));
        }
        if last.elapsed() > Duration::from_millis(100) {
            client.request("BEGIN", &[("transaction", "t")], b"")?;
            client.request("ABORT", &[("transaction", "t")], b"")?;
            answers.fetch_add(1, SeqCst);
            last = Instant::now();
        }
    }
    Ok(())
}

/// SIGSTOP and SIGCONT: for the broker the time between is gone at once. No client is blamed for it, nothing is lost, also
/// if it is killed as it stands.
#[test]
fn a_broker_that_stands_still_loses_nothing_and_blames_nobody() {
    let _alone = alone();
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(dir.path(), dir.path(), seed);
    trial
        .settings
        .config
        .push_str("[heart_beat]\nmargin_percent = 400\n");
    let mut beater = None;
    let mut kills = 0;
    for _ in 0..env_number("STEADFAST_TEST_STALLS", 8) {
        let beating = beater.get_or_insert_with(|| {
            trial.start(None);
            Beater::start(trial.broker.as_ref().expect("it was started").addr())
        });
        let while_ = millis(&mut trial.rng, 20, 400);
        trial.run(while_);
        beating.await_answer();
        trial.broker().signal(Signal::STOP);
        // Half of the time for longer than a client may be silent.
        let (from, to) = [(1, 300), (1_100, 2_000)][trial.rng.below(2)];
        std::thread::sleep(millis(&mut trial.rng, from, to));
        match trial.rng.below(4) {
            0 => {
                beating.end();
                trial.kill(None);
                kills += 1;
            }
            1 => {
                beating.end();
                trial.load().killing();
                trial.broker().signal(Signal::CONT);
                trial.stop();
            }
            _ => {
                trial.broker().signal(Signal::CONT);
                beating.await_answer();
                continue;
            }
        }
        let ended = beater.take().expect("it was just used");
        ended.thread.join().expect("no client is blamed");
    }
    if let Some(beating) = beater {
        beating.end();
        trial.kill(None);
        beating.thread.join().expect("no client is blamed");
    }
    println!("  {kills} were killed as they stood");
    assert_kept(&trial.finish(), seed);
}

/// Of the kernel: kills a process of the group that needs more memory.
struct MemoryGroup(PathBuf);

/// Where the groups of memory are, and the file of one that holds its bound, in either version of them; `None` where
/// this process may make none.
fn memory_groups() -> Option<(&'static str, &'static str)> {
    let kinds = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ];
    kinds.into_iter().find(|(root, limit)| {
        let group = MemoryGroup(PathBuf::from(root).join(format!("steadfast-test-{}", std::process::id())));
        fs::create_dir(&group.0).is_ok() && group.write(limit, 1 << 30).is_ok()
    })
}

impl MemoryGroup {
    /// For a broker, with so much memory more than it has: what it has already stays on the account of the group that it
    /// leaves.
    fn around(broker: &Broker, (root, limit): (&str, &str), more_bytes: u64) -> Self {
        let group = Self(PathBuf::from(root).join(format!("steadfast-test-{}", broker.pid())));
        // One that a killed test left behind, of a process that had this number.
        let _ = fs::remove_dir(&group.0);
        fs::create_dir(&group.0).unwrap();
        group.write(limit, more_bytes).unwrap();
        group.write("cgroup.procs", u64::from(broker.pid())).unwrap();
        group
    }

    /// Only what is there: a folder of another file system would take any name.
    fn write(&self, file: &str, value: u64) -> io::Result<()> {
        let mut file = fs::File::options().write(true).open(self.0.join(file))?;
        file.write_all(value.to_string().as_bytes())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It can be removed once the kernel has buried its last process.
        let begin = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stages as much as one connection may, and waits for its end.
fn stage_all(addr: SocketAddr) -> io::Result<()> {
    let mut client = Client::connect(addr)?;
    client.send("BEGIN", &[("transaction", "t")], b"")?;
    let headers = [("destination", "/queue/never"), ("transaction", "t")];
    let body = vec![1; 1 << 20];
    for _ in 0..60 {
        client.send("SEND", &headers, &body)?;
    }
    client.expect().map(drop)
}

/// Memory runs out under load, once by the limit of the process's addresses, where an allocation fails, once by that of a
/// memory group, where the kernel kills. The second only where groups can be made (the memory controller, and the right to
/// write below `/sys/fs/cgroup`); elsewhere the test says so, and every end is one of the first kind.
#[test]
fn memory_that_runs_out_loses_nothing() {
    let _alone = alone();
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(dir.path(), dir.path(), seed);
    let (mut failed, mut killed) = (0, 0);
    let groups = memory_groups();
    if groups.is_none() {
        // Not by println!, which a passing test keeps to itself.
        let text = "NOT COVERED: no memory group can be made here, so the kernel's killer is not tried";
        writeln!(io::stderr(), "{text}").unwrap();
    }
    let rounds = env_number("STEADFAST_TEST_MEMORY_ENDS", 4);
    for round in 0..rounds {
        trial.start(None);
        let while_ = millis(&mut trial.rng, 50, 800);
        trial.run(while_);
        trial.load().killing();
        let more_bytes = (4 << 20) + trial.rng.next() % (60 << 20);
        let mut broker = trial.broker.take().expect("the broker runs");
        let groups = groups.filter(|_| round % 2 == 1);
        let group = groups.map(|groups| MemoryGroup::around(&broker, groups, more_bytes));
        if group.is_none() {
            let bytes = broker.address_bytes() + more_bytes;
            let limit = Rlimit {
                current: Some(bytes),
                maximum: Some(bytes),
            };
            prlimit(Pid::from_raw(broker.pid().cast_signed()), Resource::As, limit).unwrap();
        }
        let addr = broker.addr();
        let hogs: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(move || stage_all(addr)))
            .collect();
        let status = broker
            .wait(Duration::from_secs(60))
            .expect("memory runs out before everything is staged");
        println!("  {} bytes more, group {}: {status}", more_bytes, group.is_some());
        match status.signal() {
            Some(signal) if group.is_some() => {
                assert_eq!(signal, Signal::KILL.as_raw(), "{}", broker.log_end());
                killed += 1;
            }
            _ => {
                assert!(!status.success(), "{}", broker.log_end());
                failed += 1;
            }
        }
        for hog in hogs {
            assert!(hog.join().unwrap().is_err(), "the broker is gone");
        }
        trial.load.as_mut().expect("the trial was started").join();
    }
    println!("  {failed} ended by themselves, {killed} by the kernel");
    let expected = if groups.is_some() { rounds / 2 } else { 0 };
    assert_eq!(killed, expected, "the kernel kills where it was told to");
    assert_kept(&trial.finish(), seed);
}
