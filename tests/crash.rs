//! The real program killed with SIGKILL, and cut from its power, at any moment, under a mixed load; and the proof that
//! the tests would see a broken promise: faults planted outside of the program, each of which must be found.
//!
//! `STEADFAST_TEST_KILLS`, `STEADFAST_TEST_CUTS` and `STEADFAST_TEST_SEED` make longer and other runs. Every run prints
//! its seed. Needs root and `/dev/fuse`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

#[path = "crash/ends.rs"]
mod ends;
mod history;
mod powercut;
#[path = "crash/restart.rs"]
mod restart;
mod rig;
#[path = "crash/soak.rs"]
mod soak;
#[path = "crash/watched.rs"]
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use history::{History, Kind, Load, Rules, Tally, Violation, check, drain};
use powercut::{Disk, Mounted, Naming, Policy};
use rig::{Broker, Fault, Proxy, Rng, Settings, env_number};

/// Failures that make a dead letter in these tests.
const FAILURES_MAX: usize = 3;

/// Each of these tests is a load for both cores; one at a time keeps their timing honest.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> u64 {
    let default = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64 % 1_000_000_000;
    let seed = env_number("STEADFAST_TEST_SEED", default);
    println!("STEADFAST_TEST_SEED={seed}");
    seed
}

fn rules() -> Rules {
    Rules {
        failures_max: FAILURES_MAX,
        ordered: &[history::ORDERED],
        auto: &[history::AUTO],
    }
}

/// A broker under load whose history goes on over kills and cuts.
struct Trial {
    settings: Settings,
    history: Arc<History>,
    load: Option<Load>,
    broker: Option<Broker>,
    rng: Rng,
}

impl Trial {
    fn new(dir: &Path, data_dir: &Path, seed: u64) -> Self {
        let mut settings = Settings::in_dir(dir);
        settings.data_dir = data_dir.join("data");
        // Small bounds, so that compaction and the reuse of space happen all the time.
        settings.config = format!(
            "[limits]\n\
             deliveries_failed_max = {FAILURES_MAX}\n\
             disk_free_bytes_min = 4_194_304\n\
             compaction_garbage_bytes_min = 65_536\n\
             compaction_chunk_count_slack = 64\n\
             compaction_waste_bytes_min = 262_144\n"
        );
        Self {
            settings,
            history: Arc::default(),
            load: None,
            broker: None,
            rng: Rng::new(seed),
        }
    }

    /// Starts the broker and puts the load on it, through a proxy with a fault if there is one.
    fn start(&mut self, fault: Option<Fault>) -> Option<Proxy> {
        let broker = self.settings.start();
        let proxy = fault.map(|fault| Proxy::start(broker.addr(), fault));
        let addr = proxy.as_ref().map_or(broker.addr(), Proxy::addr);
        let seed = self.rng.next();
        self.load = Some(match self.load.take() {
            None => Load::start(addr, &self.history, seed),
            Some(load) => load.next(addr, seed),
        });
        self.broker = Some(broker);
        proxy
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("the trial was started")
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("the broker runs")
    }

    /// Lets the load run for a while, and at least until some messages more went through.
    fn run(&mut self, for_a_while: Duration) {
        let begin = Instant::now();
        let sent = self.load().sent();
        while begin.elapsed() < for_a_while || self.load().sent() < sent + 50 || self.load().settled() < 50 {
            assert!(
                self.broker().runs(),
                "the broker ended:\n{}",
                self.broker().log_end()
            );
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "the load does not get on:\n{}",
                self.broker().log_end()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the broker and waits for all clients. A stopped disk lets go of the program after the kill.
    fn kill(&mut self, disk: Option<&Mounted>) {
        self.load().killing();
        let mut broker = self.broker.take().expect("the broker runs");
        broker.kill_begin();
        if let Some(disk) = disk {
            disk.release();
        }
        assert!(
            broker.wait(Duration::from_secs(30)).is_some(),
            "a killed program ends"
        );
        self.load.as_mut().expect("the trial was started").join();
    }

    /// Asks the broker to stop under load, and waits for all clients. Gives the number of index chunks it compacted.
    fn stop(&mut self) -> u64 {
        self.load().killing();
        let log = self.broker.take().expect("the broker runs").stop();
        self.load.as_mut().expect("the trial was started").join();
        let (_, count) = log
            .rsplit_once("compacted_count: ")
            .expect("a stop logs the counters");
        let digits = count.split(|c: char| !c.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("a count is a number")
    }

    /// Starts the broker without load, empties all queues, starts it again and looks for what should be gone.
    fn finish(&mut self) -> Vec<Violation> {
        self.finish_counted().0
    }

    fn finish_counted(&mut self) -> (Vec<Violation>, Tally) {
        for round in 0..2 {
            let broker = self.settings.start();
            let drained = drain(self.load(), broker.addr());
            println!("  drained {drained} messages in round {round}");
            broker.stop();
        }
        let events = self.history.events();
        let (found, tally) = check(&events, &rules());
        println!(
            "  {} messages, {} events, {tally:?}",
            self.load().sent(),
            events.len()
        );
        (found, tally)
    }
}

fn assert_kept(found: &[Violation], seed: u64) {
    let texts: Vec<_> = found.iter().take(20).map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "STEADFAST_TEST_SEED={seed}: {} violations\n{}",
        found.len(),
        texts.join("\n")
    );
}

/// A history of ten ends or more in which nobody rested, or worked for too long, shows nothing of it.
fn assert_shown(tally: &Tally, ends: u64) {
    let Tally {
        rest_count,
        rest_over_end_count,
        lapse_count,
        lease_lost_count,
    } = *tally;
    let least = [rest_count, rest_over_end_count, lapse_count, lease_lost_count].map(|count| count > 0);
    assert!(ends < 10 || least == [true; 4], "{tally:?}");
}

fn kinds(found: &[Violation]) -> BTreeSet<Kind> {
    found.iter().map(|violation| violation.kind).collect()
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + rng.next() % (to - from))
}

#[test]
fn kills_lose_nothing() {
    let _alone = alone();
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(dir.path(), dir.path(), seed);
    let mut compacted = None;
    let kills = env_number("STEADFAST_TEST_KILLS", 30);
    for kill in 0..kills {
        if kill > 0 && trial.rng.chance(25) {
            // During recovery.
            let mut broker = trial.settings.spawn();
            std::thread::sleep(millis(&mut trial.rng, 0, 80));
            broker.kill_begin();
            assert!(broker.wait(Duration::from_secs(30)).is_some());
        }
        trial.start(None);
        let while_ = millis(&mut trial.rng, 100, 1500);
        trial.run(while_);
        trial.kill(None);
        if trial.rng.chance(20) {
            trial.start(None);
            trial.run(Duration::from_millis(200));
            *compacted.get_or_insert(0) += trial.stop();
        }
    }
    let (found, tally) = trial.finish_counted();
    assert_kept(&found, seed);
    assert_shown(&tally, kills);
    assert_ne!(compacted, Some(0), "this load is to make the broker compact");
    let blobs = trial.settings.data_dir.join("blobs");
    assert_eq!(
        std::fs::read_dir(blobs).unwrap().count(),
        0,
        "sled never syncs what it writes as a blob"
    );
}

/// A disk, its mount, and the way from one to the next by a cut.
struct Power {
    mounted: Option<Mounted>,
    dir: tempfile::TempDir,
}

impl Power {
    fn new(naming: Naming) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Some(Mounted::new(Disk::new(naming), dir.path()));
        Self { mounted, dir }
    }

    fn disk(&self) -> &Mounted {
        self.mounted.as_ref().expect("the disk is mounted")
    }

    /// The program is dead; what it had not synced is decided by the policy.
    fn cut(&mut self, policy: Policy, seed: u64) {
        let disk = self.mounted.take().expect("the disk is mounted").unmount();
        self.mounted = Some(Mounted::new(disk.cut(policy, seed), self.dir.path()));
    }
}

const POLICIES: [Policy; 3] = [Policy::DropAll, Policy::Prefix, Policy::Subset];

#[test]
fn power_cuts_lose_nothing() {
    let _alone = alone();
    let seed = seed();
    let mut left = env_number("STEADFAST_TEST_CUTS", 30);
    let is_long = left >= 10;
    let mut rng = Rng::new(seed);
    let (mut at_syncs, mut in_recoveries, mut compacted) = (0, 0, 0);
    for store in 0_usize.. {
        if left == 0 {
            break;
        }
        let naming = [Naming::Strict, Naming::Ext4][store % 2];
        let count = left.min(15);
        left -= count;
        println!("store {store}, {naming:?}: {count} cuts");
        let dir = tempfile::tempdir().unwrap();
        let mut power = Power::new(naming);
        let mut trial = Trial::new(dir.path(), power.disk().dir(), rng.next());
        trial.settings.config.insert_str(0, METRICS);
        for cut in 0..count {
            let policy = POLICIES[cut as usize % 3];
            // At least one of each store falls within a recovery.
            let mut is_due = cut == 1;
            while trial.load.is_some() && (is_due || trial.rng.chance(25)) {
                in_recoveries += u64::from(cut_while_starting(&mut trial, &mut power, policy, is_due));
                is_due = false;
            }
            trial.start(None);
            // Six in ten; with each of the three policies.
            let at_a_sync = cut % 5 < 3;
            if at_a_sync {
                at_syncs += 1;
                let after = 1 + trial.rng.next() % 300;
                power.disk().stop_at_sync(power.disk().syncs() + after);
                let broker = trial.broker.as_mut().expect("the broker runs");
                let stopped = power
                    .disk()
                    .wait_stopped(Duration::from_secs(60), || !broker.runs());
                assert!(stopped, "the load does not get on:\n{}", broker.log_end());
                // What the broker sends now, with its disk at a stand, it must not have sent.
                std::thread::sleep(Duration::from_millis(30));
            } else {
                let while_ = millis(&mut trial.rng, 50, 1500);
                trial.run(while_);
                compacted += compacted_count(trial.broker());
            }
            trial.kill(Some(power.disk()));
            let cut_seed = trial.rng.next();
            println!("  cut {cut}: {policy:?} {cut_seed}, at a sync: {at_a_sync}");
            power.cut(policy, cut_seed);
        }
        let (found, tally) = trial.finish_counted();
        assert_kept(&found, seed);
        assert_shown(&tally, count);
    }
    println!(
        "{at_syncs} cuts at a sync, {in_recoveries} at one of a recovery; {compacted} index chunks compacted"
    );
    assert!(at_syncs > 0 || !is_long, "no cut fell within a sync");
    assert!(in_recoveries > 0 || !is_long, "no cut fell within a recovery");
    assert!(
        compacted > 0 || !is_long,
        "the load is to make the broker compact"
    );
}

/// Where a broker under load tells what it did.
const METRICS: &str = "[server]\nmetrics_listen = \"127.0.0.1:0\"\n";

/// How many index chunks a broker has compacted since its start.
fn compacted_count(broker: &Broker) -> u64 {
    let begin = Instant::now();
    let address = loop {
        let output = broker.output();
        let found = output
            .split_once("metrics on http://")
            .and_then(|(_, rest)| rest.split_once('/'));
        if let Some((address, _)) = found {
            break address.parse().unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{output}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let metrics = rig::http::ask_tcp(address, "GET", "/metrics").unwrap();
    let text = metrics.text();
    text.lines()
        .find_map(|line| line.strip_prefix("steadfast_store_compactions_total "))
        .unwrap_or_else(|| panic!("no compactions in {text}"))
        .parse()
        .unwrap()
}

/// A cut in the middle of a start, at a sync (the first one, where it must be at one) or at any moment. Gives whether the
/// broker, still at its recovery, waited for a sync.
fn cut_while_starting(trial: &mut Trial, power: &mut Power, policy: Policy, at_first_sync: bool) -> bool {
    let mut broker = trial.settings.spawn();
    let is_recovered = |broker: &Broker| broker.output().contains("recovered ");
    let mut stopped = false;
    if at_first_sync || trial.rng.chance(50) {
        let n = match at_first_sync {
            true => 1,
            false => 1 + trial.rng.next() % 4,
        };
        power.disk().stop_at_sync(n);
        stopped = power.disk().wait_stopped(Duration::from_secs(30), || {
            is_recovered(&broker) || !broker.runs()
        });
    } else {
        std::thread::sleep(millis(&mut trial.rng, 0, 80));
    }
    let in_recovery = stopped && !is_recovered(&broker);
    broker.kill_begin();
    power.disk().release();
    assert!(
        broker.wait(Duration::from_secs(30)).is_some(),
        "a killed program ends"
    );
    power.cut(policy, trial.rng.next());
    in_recovery
}

/// Starts the broker, stops its disk at this sync of the start, and kills it there. False where it got through before.
fn start_stopped_at_sync(settings: &Settings, power: &Power, n: u64) -> bool {
    power.disk().stop_at_sync(power.disk().syncs() + n);
    let mut broker = settings.spawn();
    let mut ready = false;
    let stopped = power.disk().wait_stopped(Duration::from_secs(60), || {
        ready = broker.output().contains("127.0.0.1:");
        ready || !broker.runs()
    });
    assert!(stopped || ready, "{}", broker.log_end());
    broker.kill_begin();
    power.disk().release();
    assert!(
        broker.wait(Duration::from_secs(30)).is_some(),
        "a killed program ends"
    );
    stopped
}

/// The first start of all is cut at its first sync, at its second, and so on until it gets through.
#[test]
fn a_cut_at_every_sync_of_the_first_start_leaves_a_store_that_opens() {
    let _alone = alone();
    let seed = seed();
    let mut cuts = 0;
    for naming in [Naming::Strict, Naming::Ext4] {
        for policy in POLICIES {
            for n in 1.. {
                let dir = tempfile::tempdir().unwrap();
                let mut power = Power::new(naming);
                let mut settings = Settings::in_dir(dir.path());
                settings.data_dir = power.disk().dir().join("data");
                if !start_stopped_at_sync(&settings, &power, n) {
                    break;
                }
                power.cut(policy, seed + n);
                cuts += 1;
                let broker = settings.start();
                let mut client = broker.connect();
                client
                    .request("SEND", &[("destination", "/queue/a")], b"kept")
                    .unwrap();
                broker.kill();
                power.cut(Policy::DropAll, seed);
                let broker = settings.start();
                let mut client = broker.connect();
                client
                    .send("SUBSCRIBE", &[("destination", "/queue/a"), ("id", "0")], b"")
                    .unwrap();
                assert_eq!(
                    client.expect().unwrap().body,
                    b"kept",
                    "{naming:?} {policy:?} cut at sync {n}"
                );
                broker.kill();
            }
        }
    }
    println!("{cuts} cuts of a first start");
    assert!(cuts >= 6, "a first start syncs at least once");
}

/// A store of each older format, cut at every sync of the start that takes it over, opens then with all that was in it.
#[test]
fn a_cut_at_every_sync_of_a_migration_loses_nothing() {
    let _alone = alone();
    let seed = seed();
    let mut cuts = 0;
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut samples: Vec<_> = std::fs::read_dir(migrations)
        .unwrap()
        .map(|found| found.unwrap().path().join("sample.tar.gz"))
        .collect();
    samples.sort();
    samples.pop();
    assert!(!samples.is_empty(), "there is a format older than the newest");
    for sample in samples {
        let plain = tempfile::tempdir().unwrap();
        unpack(&sample, plain.path());
        let expected = messages_in(plain.path());
        assert!(expected.len() > 10, "a sample holds messages");
        for (at, policy) in POLICIES.into_iter().enumerate() {
            for n in 1.. {
                let dir = tempfile::tempdir().unwrap();
                let mut power = Power::new([Naming::Strict, Naming::Ext4][at % 2]);
                let mut settings = Settings::in_dir(dir.path());
                settings.data_dir = power.disk().dir().join("data");
                unpack(&sample, &settings.data_dir);
                sync_all(power.disk().dir());
                let stopped = start_stopped_at_sync(&settings, &power, n);
                power.cut(policy, seed + n);
                settings.start().kill();
                power.cut(Policy::DropAll, seed);
                assert_eq!(
                    messages_in(&settings.data_dir),
                    expected,
                    "{} {policy:?} cut at sync {n}",
                    sample.display()
                );
                if !stopped {
                    break;
                }
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts of a migration");
    assert!(cuts >= 6, "a migration syncs at least once");
}

fn unpack(sample: &Path, dir: &Path) {
    let packed = std::fs::File::open(sample).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed))
        .unpack(dir)
        .unwrap();
}

/// Makes durable what is below a folder.
fn sync_all(dir: &Path) {
    for found in std::fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            sync_all(&path);
        } else {
            std::fs::File::open(path).unwrap().sync_all().unwrap();
        }
    }
    std::fs::File::open(dir).unwrap().sync_all().unwrap();
}

/// What `inspect` finds: queue, sequence, id and size of each message.
fn messages_in(data_dir: &Path) -> Vec<String> {
    let inspect = |queue: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["inspect", "--json", "--data-dir"])
            .arg(data_dir)
            .args(queue)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        lines.lines().map(of).collect::<Vec<_>>()
    };
    let queues = inspect(&[]).into_iter().filter(|line| line["kind"] == "queue");
    queues
        .flat_map(|queue| inspect(&["--queue", queue["name"].as_str().unwrap()]))
        .filter(|line| line["kind"] == "message")
        .map(|line| {
            let [queue, sequence, id, bytes] =
                ["queue", "sequence", "message_id", "bytes"].map(|key| &line[key]);
            format!("{queue} {sequence} {id} {bytes}")
        })
        .collect()
}

/// A commit of many segments: the store uses segments again that it emptied in the same commit. Their messages, long
/// confirmed, must not be lost with what had not been synced.
#[test]
fn cuts_in_large_commits_lose_nothing_older() {
    let _alone = alone();
    let seed = seed();
    let mut rng = Rng::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut power = Power::new(Naming::Ext4);
    let mut settings = Settings::in_dir(dir.path());
    settings.data_dir = power.disk().dir().join("data");
    settings.config = "[limits]\ndisk_free_bytes_min = 4_194_304\ncommit_bytes_max = 33_554_432\nunflushed_bytes_max = 67_108_864\n".into();
    let keep = ("destination", "/queue/keep");
    let body = |no: u32| [&no.to_be_bytes()[..], &[7; 15_000]].concat();

    // What stays shares its leaves with what passes.
    let broker = settings.start();
    let mut client = broker.connect();
    for no in 0..1_500 {
        for destination in ["/queue/keep", "/queue/pass"] {
            client
                .send("SEND", &[("destination", destination)], &body(no))
                .unwrap();
        }
    }
    client.request("SEND", &[keep], &body(1_500)).unwrap();
    take_all(&broker, "/queue/pass", 1_500, true);
    broker.kill();
    let mut at_syncs = 0;
    for cut in 0..env_number("STEADFAST_TEST_LARGE_CUTS", 6) {
        let mut broker = settings.start();
        let mut client = broker.connect();
        for round in 0..3 {
            client.request("BEGIN", &[("transaction", "t")], b"").unwrap();
            for no in 0..1_500 {
                let headers = [("destination", "/queue/pass"), ("transaction", "t")];
                client.send("SEND", &headers, &body(no)).unwrap();
            }
            if round < 2 {
                client.request("COMMIT", &[("transaction", "t")], b"").unwrap();
                take_all(&broker, "/queue/pass", 1_500, true);
            }
        }
        client
            .request("BEGIN", &[("transaction", "all sent")], b"")
            .unwrap();
        power
            .disk()
            .stop_at_sync(power.disk().syncs() + 1 + rng.next() % 2 * u64::from(cut > 0));
        client.send("COMMIT", &[("transaction", "t")], b"").unwrap();
        // Idle again, it may have had one sync only.
        let stopped = power
            .disk()
            .wait_stopped(Duration::from_secs(2), || !broker.runs());
        println!("cut {cut}, at a sync: {stopped}");
        at_syncs += u64::from(stopped);
        broker.kill_begin();
        power.disk().release();
        assert!(
            broker.wait(Duration::from_secs(30)).is_some(),
            "a killed program ends"
        );
        power.cut(Policy::Subset, rng.next());

        let broker = settings.start();
        let numbers = take_all(&broker, "/queue/keep", 1_501, false);
        assert!(
            numbers.into_iter().eq(0..=1_500),
            "STEADFAST_TEST_SEED={seed}: cut {cut}"
        );
        broker.kill();
    }
    assert_ne!(at_syncs, 0, "no cut fell within a sync");
}

/// An idle broker moves what is left of a drained store together and cuts its file off behind it, sync by sync.
#[test]
fn cuts_while_the_file_shrinks_lose_nothing() {
    let _alone = alone();
    let seed = seed();
    let mut rng = Rng::new(seed);
    let body = |no: u32| [&no.to_be_bytes()[..], &[7; 15_000]].concat();
    let mut shrunk = 0;
    let cuts = env_number("STEADFAST_TEST_SHRINK_CUTS", 3);
    for cut in 0..cuts {
        let dir = tempfile::tempdir().unwrap();
        let mut power = Power::new(Naming::Ext4);
        let mut settings = Settings::in_dir(dir.path());
        settings.data_dir = power.disk().dir().join("data");
        settings.config = "[limits]\ndisk_free_bytes_min = 4_194_304\n".into();
        let mut broker = settings.start();
        let mut client = broker.connect();
        for (destination, count) in [("/queue/keep", 100), ("/queue/pass", 3_000)] {
            for no in 0..count {
                client
                    .send("SEND", &[("destination", destination)], &body(no))
                    .unwrap();
            }
        }
        client
            .request("BEGIN", &[("transaction", "all sent")], b"")
            .unwrap();
        drop(client);
        take_all(&broker, "/queue/pass", 3_000, true);
        let file = settings.data_dir.join("db");
        let full = std::fs::metadata(&file).unwrap().len();
        // One in three is sure to come when the end was cut off already, each time under another policy.
        let seen = cut % 3 == (cut / 3 + seed) % 3;
        let syncs = if seen {
            let begin = Instant::now();
            while std::fs::metadata(&file).unwrap().len() >= full {
                assert!(
                    begin.elapsed() < Duration::from_secs(60) && broker.runs(),
                    "it does not shrink:\n{}",
                    broker.log_end()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            20
        } else {
            2_200
        };
        // Beyond the end it is stopped where it is.
        power
            .disk()
            .stop_at_sync(power.disk().syncs() + 1 + rng.next() % syncs);
        power
            .disk()
            .wait_stopped(Duration::from_secs(15), || !broker.runs());
        let size = std::fs::metadata(&file).unwrap().len();
        println!("cut {cut}: {} of {} MiB", size >> 20, full >> 20);
        // What was cut off may be written again while pages are moved.
        shrunk += u64::from(seen || size < full);
        broker.kill_begin();
        power.disk().release();
        assert!(
            broker.wait(Duration::from_secs(30)).is_some(),
            "a killed program ends"
        );
        power.cut(POLICIES[cut as usize % 3], rng.next());

        let broker = settings.start();
        let numbers = take_all(&broker, "/queue/keep", 100, false);
        assert!(
            numbers.into_iter().eq(0..100),
            "STEADFAST_TEST_SEED={seed}: cut {cut}"
        );
        broker.kill();
    }
    println!("{shrunk} files had begun to shrink, seed {seed}");
    assert!(
        shrunk >= cuts / 3,
        "{shrunk} of {cuts} cuts fell while the file shrank"
    );
}

/// Takes so many messages, settles them or gives them back, and returns the numbers that their bodies begin with.
fn take_all(broker: &Broker, queue: &str, count: usize, settle: bool) -> Vec<u32> {
    let mut client = broker.connect();
    let headers = [
        ("destination", queue),
        ("id", "0"),
        ("ack", "client"),
        ("prefetch-count", "10000"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut last = None;
    let numbers = (0..count)
        .map(|_| {
            let message = client.expect().unwrap();
            assert_eq!(message.command, "MESSAGE", "{message:?}");
            last = message.header("ack").map(str::to_owned);
            u32::from_be_bytes(message.body[..4].try_into().unwrap())
        })
        .collect();
    if settle {
        client.send("ACK", &[("id", &last.unwrap())], b"").unwrap();
    }
    client.request("DISCONNECT", &[], b"").unwrap();
    numbers
}

#[test]
fn a_failed_sync_ends_the_broker_and_loses_nothing() {
    let _alone = alone();
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut power = Power::new(Naming::Ext4);
    let mut trial = Trial::new(dir.path(), power.disk().dir(), seed);
    for round in 0..3 {
        trial.start(None);
        trial.run(Duration::from_millis(300));
        trial.load().killing();
        power.disk().fail_sync(power.disk().syncs() + 1 + round);
        let mut broker = trial.broker.take().expect("the broker runs");
        let status = broker.wait(Duration::from_secs(30));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(3),
            "a failed flush has an exit code of its own:\n{}",
            broker.log_end()
        );
        trial.load.as_mut().expect("the trial was started").join();
        power.cut(POLICIES[round as usize], seed);
    }
    assert_kept(&trial.finish(), seed);
}

/// A disk that lies about its syncs loses what was promised, and nothing above it can help. But what is left is either
/// taken as it is or refused as damaged; a batch that is torn is never taken for a whole one.
#[test]
fn what_a_lying_disk_tears_is_refused_or_left_out() {
    let _alone = alone();
    let mut rng = Rng::new(seed());
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut power = Power::new(Naming::Ext4);
        let mut trial = Trial::new(dir.path(), power.disk().dir(), rng.next());
        trial.start(None);
        trial.run(Duration::from_millis(300));
        power.disk().lie();
        trial.run(Duration::from_millis(300));
        trial.kill(None);
        power.cut([Policy::Prefix, Policy::Subset][round % 2], rng.next());
        let mut broker = trial.settings.spawn();
        if let Err(error) = broker.wait_ready() {
            let code = error.status.and_then(|status| status.code());
            assert_eq!(code, Some(4), "a damaged store is refused as such: {error}");
            println!("  round {round}: refused");
            continue;
        }
        assert_eq!(broker.kill().code(), None, "killed by the test");
        let found = kinds(&trial.finish());
        println!("  round {round}: {found:?}");
        assert!(!found.contains(&Kind::BytesDiffer) && !found.contains(&Kind::Stranger));
    }
}

/// One life with a fault, a kill, and what the checker says of it.
fn caught(fault: Fault) -> BTreeSet<Kind> {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(dir.path(), dir.path(), seed());
    let proxy = trial.start(Some(fault));
    trial.run(Duration::from_millis(1500));
    trial.kill(None);
    drop(proxy);
    kinds(&trial.finish())
}

#[test]
fn a_lost_settlement_is_caught() {
    let found = caught(Fault::LostSettlement);
    assert!(found.contains(&Kind::SettledAgain), "{found:?}");
}

#[test]
fn a_split_transaction_is_caught() {
    let found = caught(Fault::SplitTransaction);
    assert!(found.contains(&Kind::TransactionSplit), "{found:?}");
}

#[test]
fn a_send_outside_of_its_transaction_is_caught() {
    let found = caught(Fault::LeakedTransaction);
    assert!(found.contains(&Kind::AbortedVisible), "{found:?}");
}

#[test]
fn a_body_zeroed_at_its_end_is_caught() {
    let found = caught(Fault::ZeroedBody);
    assert!(found.contains(&Kind::BytesDiffer), "{found:?}");
}

#[test]
fn a_swapped_order_is_caught() {
    let found = caught(Fault::SwappedSends);
    assert!(found.contains(&Kind::OrderBroken), "{found:?}");
}

#[test]
fn a_rest_cut_short_is_caught() {
    let found = caught(Fault::ShortRest);
    assert!(found.contains(&Kind::Early), "{found:?}");
}

#[test]
fn a_lease_cut_short_is_caught() {
    let found = caught(Fault::ShortLease);
    assert!(found.contains(&Kind::LeaseCut), "{found:?}");
}

#[test]
fn a_receipt_before_its_flush_is_caught() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut power = Power::new(Naming::Ext4);
    let mut trial = Trial::new(dir.path(), power.disk().dir(), seed());
    let proxy = trial.start(Some(Fault::EarlyReceipt));
    trial.run(Duration::from_millis(300));
    power.disk().stop_at_sync(power.disk().syncs() + 1);
    let broker = trial.broker.as_mut().expect("the broker runs");
    assert!(
        power
            .disk()
            .wait_stopped(Duration::from_secs(60), || !broker.runs())
    );
    std::thread::sleep(Duration::from_millis(30));
    trial.kill(Some(power.disk()));
    drop(proxy);
    power.cut(Policy::DropAll, 0);
    let found = kinds(&trial.finish());
    assert!(found.contains(&Kind::Lost), "{found:?}");
}

#[test]
fn a_missing_fdatasync_is_caught() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut power = Power::new(Naming::Ext4);
    let mut trial = Trial::new(dir.path(), power.disk().dir(), seed());
    trial.start(None);
    trial.run(Duration::from_millis(500));
    power.disk().lie();
    trial.run(Duration::from_millis(500));
    trial.kill(None);
    power.cut(Policy::DropAll, 0);
    let found = kinds(&trial.finish());
    assert!(found.contains(&Kind::Lost), "{found:?}");
    assert!(found.contains(&Kind::SettledAgain), "{found:?}");
}
