//! The real program as its users meet it: start, stop, restart, a second one on the same folder, a folder that is missing
//! or of another user, reconnects, space on the disk, a disk that is full or nearly so.
//!
//! `STEADFAST_TEST_PINNED` sets how many messages pass one that stays (ten million is the figure of the design).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

mod rig;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::http::ask;
use rig::{Broker, Client, Frame, Settings, env_number};

/// SUBSCRIBE; `prefetch` is how many deliveries it may hold.
fn subscribe(client: &mut Client, queue: &str, ack: &str, prefetch: &str) {
    let headers = [
        ("destination", queue),
        ("id", "0"),
        ("ack", ack),
        ("prefetch-count", prefetch),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
}

fn take(client: &mut Client) -> Frame {
    let frame = client.expect().unwrap();
    assert_eq!(frame.command, "MESSAGE", "{frame:?}");
    frame
}

fn ack(client: &mut Client, message: &Frame) {
    client
        .send("ACK", &[("id", message.header("ack").unwrap())], b"")
        .unwrap();
}

/// Sends messages without waiting between them, and waits for the receipt of the last, which proves them all.
fn fill(client: &mut Client, queue: &str, bodies: impl IntoIterator<Item = Vec<u8>>) {
    for body in bodies {
        client.send("SEND", &[("destination", queue)], &body).unwrap();
    }
    client
        .request("SEND", &[("destination", queue)], b"last")
        .unwrap();
}

/// Takes and settles everything up to the message that `fill` sends last; gives how many came before it.
fn drain(broker: &Broker, queue: &str) -> u64 {
    let mut client = broker.connect();
    subscribe(&mut client, queue, "client", "1000");
    let mut count = 0;
    loop {
        let message = take(&mut client);
        let last = message.body == b"last";
        if last || count % 100 == 0 {
            ack(&mut client, &message);
        }
        if last {
            client.request("DISCONNECT", &[], b"").unwrap();
            return count;
        }
        count += 1;
    }
}

/// Bytes that a folder takes on the disk.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in fs::read_dir(dir).unwrap() {
        // A file may vanish between the listing and the look.
        let Ok(metadata) = entry.as_ref().unwrap().metadata() else {
            continue;
        };
        sum += if metadata.is_dir() {
            size_of(&entry.unwrap().path())
        } else {
            metadata.blocks() * 512
        };
    }
    sum
}

/// Nearly no ballast, so that the size of the folder is that of the store.
const SMALL_BALLAST: &str = "[limits]\ndisk_free_bytes_min = 1_048_576\n";

#[test]
fn a_second_broker_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let first = settings.start();
    let mut second = settings.spawn();
    let status = second
        .wait(Duration::from_secs(30))
        .expect("the second broker ends");
    assert_eq!(status.code(), Some(5), "{}", second.log_end());
    let log = second.log_end();
    assert!(
        log.contains("another broker") && log.contains(settings.data_dir.to_str().unwrap()),
        "it says which folder is in use:\n{log}"
    );
    first
        .connect()
        .request("SEND", &[("destination", "/queue/a")], b"goes on")
        .unwrap();
    first.stop();
    settings.start().stop();
}

#[test]
fn sigterm_ends_in_time_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let broker = settings.start();
    let mut producer = broker.connect();
    fill(
        &mut producer,
        "/queue/a",
        (0..100).map(|n: u32| n.to_string().into_bytes()),
    );
    let mut consumer = broker.connect();
    subscribe(&mut consumer, "/queue/a", "client-individual", "10");
    let held: Vec<_> = (0..10).map(|_| take(&mut consumer)).collect();
    // An eleventh comes into the place of the settled one.
    let more = consumer
        .request("ACK", &[("id", held[3].header("ack").unwrap())], b"")
        .unwrap();
    let out = 9 + if more.is_empty() {
        usize::from(take(&mut consumer).body == b"10")
    } else {
        more.len()
    };
    // Both connections stay open: the stop must not wait for them.
    let begin = Instant::now();
    broker.stop();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    let broker = settings.start();
    let mut consumer = broker.connect();
    subscribe(&mut consumer, "/queue/a", "client-individual", "1000");
    let mut came = Vec::new();
    for _ in 0..100 {
        let message = take(&mut consumer);
        ack(&mut consumer, &message);
        came.push(message);
    }
    let bodies: Vec<_> = came
        .iter()
        .map(|m| String::from_utf8(m.body.clone()).unwrap())
        .collect();
    let mut expected: Vec<_> = (0..100).filter(|n| *n != 3).map(|n: u32| n.to_string()).collect();
    expected.push("last".into());
    assert_eq!(bodies, expected);
    // A clean stop knows what was out and what never was.
    for (n, message) in came.iter().enumerate() {
        let mark = if n < out { "true" } else { "false" };
        assert_eq!(
            message.header("redelivered"),
            Some(mark),
            "the {n}th: {:?}",
            message.headers
        );
    }
    broker.stop();
}

#[test]
fn ten_reconnects_with_a_hundred_prefetched_messages_poison_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[limits]\ndeliveries_failed_max = 3\n".into();
    let broker = settings.start();
    fill(&mut broker.connect(), "/queue/a", (0..99).map(|_| vec![7; 100]));
    for round in 0..10 {
        let mut client = broker.connect();
        subscribe(&mut client, "/queue/a", "client", "1000");
        for _ in 0..100 {
            take(&mut client);
        }
        match round % 3 {
            0 => client.reset(),
            1 => drop(client.request("DISCONNECT", &[], b"").unwrap()),
            _ => drop(client),
        }
    }
    let mut client = broker.connect();
    subscribe(&mut client, "/queue/a", "client-individual", "1000");
    for _ in 0..100 {
        let message = take(&mut client);
        assert_eq!(message.header("delivery-count"), Some("11"));
        ack(&mut client, &message);
    }
    client.request("UNSUBSCRIBE", &[("id", "0")], b"").unwrap();
    client
        .request("SEND", &[("destination", "/queue/DLQ.a")], b"the only one")
        .unwrap();
    subscribe(&mut client, "/queue/DLQ.a", "client", "10");
    assert_eq!(take(&mut client).body, b"the only one");
    broker.stop();
}

#[test]
fn a_client_with_one_thread_that_sends_first_and_reads_later_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[limits]\n\
                       unflushed_bytes_max = 65_536\n\
                       commit_bytes_max = 65_536\n\
                       prefetch_bytes_max = 65_536\n\
                       unread_output_bytes_max = 1_048_576\n"
        .into();
    let broker = settings.start();
    let mut client = broker.connect();
    subscribe(&mut client, "/queue/a", "client-individual", "100000");
    // Far more than all bounds and socket buffers together, with nothing read meanwhile.
    const COUNT: u32 = 4_000;
    let sender = std::thread::spawn(move || -> io::Result<()> {
        for n in 0..COUNT {
            let receipt = n.to_string();
            client.send(
                "SEND",
                &[("destination", "/queue/a"), ("receipt", &receipt)],
                &vec![1; 10_000],
            )?;
        }
        let (mut receipts, mut messages) = (0, 0);
        while receipts < 2 * COUNT || messages < COUNT {
            let frame = client.expect()?;
            match frame.command.as_str() {
                "RECEIPT" => receipts += 1,
                "MESSAGE" => {
                    messages += 1;
                    let id = frame.header("ack").unwrap().to_owned();
                    client.send("ACK", &[("id", &id), ("receipt", &id)], b"")?;
                }
                _ => return Err(io::Error::other(format!("{frame:?}"))),
            }
        }
        Ok(())
    });
    let begin = Instant::now();
    while !sender.is_finished() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "the client is stuck:\n{}",
            broker.log_end()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    sender.join().unwrap().unwrap();
    broker.stop();
}

/// A queue is filled and drained again and again, its consumer being there all the time: the file stays small. Then
/// nothing happens any more, and it shrinks.
#[test]
fn space_is_used_again_after_a_drain_and_given_back_while_idle() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = SMALL_BALLAST.into();
    let broker = settings.start();
    let (mut producer, mut consumer) = (broker.connect(), broker.connect());
    subscribe(&mut consumer, "/queue/a", "client", "100000");
    let mut sizes = Vec::new();
    for _ in 0..200 {
        fill(&mut producer, "/queue/a", (0..1_000).map(|_| vec![3; 10_000]));
        let last = (0..=1_000).map(|_| take(&mut consumer)).last().unwrap();
        ack(&mut consumer, &last);
        sizes.push(size_of(&settings.data_dir) >> 20);
    }
    println!("MiB after each drain of 10: {sizes:?}");
    assert!(sizes.iter().all(|size| *size < 180), "the store grows: {sizes:?}");

    fill(&mut producer, "/queue/a", (0..8_000).map(|_| vec![3; 10_000]));
    let last = (0..=8_000).map(|_| take(&mut consumer)).last().unwrap();
    ack(&mut consumer, &last);
    consumer.request("UNSUBSCRIBE", &[("id", "0")], b"").unwrap();
    let full = size_of(&settings.data_dir);
    assert!(full > 80 << 20, "80 MB were stored: {full}");
    let begin = Instant::now();
    while size_of(&settings.data_dir) > 40 << 20 {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "{} of {full} bytes are left of an idle store",
            size_of(&settings.data_dir)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("idle for {:?}", begin.elapsed());
    broker.stop();
}

/// One message stays while many pass: the store stays as small, and a restart as fast, as if it did not.
#[test]
fn a_message_that_stays_costs_nothing_while_many_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = format!(
        "{SMALL_BALLAST}compaction_garbage_bytes_min = 1_048_576\ncompaction_chunk_count_slack = 1_024\n"
    );
    let mut broker = settings.start();
    broker
        .connect()
        .request("SEND", &[("destination", "/queue/pinned")], b"stays")
        .unwrap();
    let rounds = 4;
    let per_round = env_number("STEADFAST_TEST_PINNED", 120_000) / rounds;
    let mut figures = Vec::new();
    for _ in 0..rounds {
        // In portions, so that what waits at a time is no part of the figures.
        let mut left = per_round;
        while left > 0 {
            let portion = left.min(10_000);
            fill(
                &mut broker.connect(),
                "/queue/a",
                (0..portion).map(|_| vec![5; 100]),
            );
            assert_eq!(drain(&broker, "/queue/a"), portion, "{figures:?}, {left} left");
            left -= portion;
        }
        broker.kill();
        let begin = Instant::now();
        broker = settings.start();
        figures.push((size_of(&settings.data_dir), begin.elapsed()));
    }
    println!("bytes and time to restart, after each {per_round} messages: {figures:?}");
    let (first, last) = (figures[0], figures[rounds as usize - 1]);
    assert!(
        last.0 < first.0 * 3 / 2 + 4_000_000,
        "the store grows: {figures:?}"
    );
    assert!(
        last.1 < first.1 * 3 + Duration::from_millis(500),
        "a restart slows down: {figures:?}"
    );
    let mut client = broker.connect();
    subscribe(&mut client, "/queue/pinned", "client", "1");
    assert_eq!(take(&mut client).body, b"stays");
    broker.stop();
}

/// A small file system. Dropping it unmounts.
struct SmallDisk {
    dir: tempfile::TempDir,
    /// What it is stored in, if not in memory.
    _image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    fn tmpfs(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        must_run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(dir.path()),
        );
        Self { dir, _image: None }
    }

    /// With nothing kept back for root.
    fn ext4(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        must_run(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0"])
                .arg(image.path()),
        );
        must_run(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(image.path())
                .arg(dir.path()),
        );
        Self {
            dir,
            _image: Some(image),
        }
    }
}

fn must_run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?} fails: this test needs root");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status()
            .ok();
    }
}

fn run(args: &[&str], paths: &[&std::path::Path]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.env_clear().args(args).args(paths).output().unwrap()
}

#[test]
fn a_restore_onto_a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let broker = settings.start();
    let mut client = broker.connect();
    for number in 0..400_u32 {
        let body = number.to_be_bytes().repeat(12_500);
        client
            .request("SEND", &[("destination", "/queue/a")], &body)
            .unwrap();
    }
    broker.stop();
    let backup = dir.path().join("a.backup");
    let to = [backup.as_path(), "--data-dir".as_ref(), &settings.data_dir];
    assert!(run(&["backup", "--to"], &to).status.success());

    let fails = |output: std::process::Output, data: &std::path::Path| {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said.lines().count()),
            (Some(4), 1),
            "{said}"
        );
        assert_eq!(
            fs::read_dir(data).unwrap().count(),
            0,
            "nothing looks like a store"
        );
        said
    };
    let disk = SmallDisk::tmpfs(40 << 20);
    let data = disk.dir.path().join("data");
    let from = [backup.as_path(), "--data-dir".as_ref(), &data];
    let said = fails(run(&["restore"], &from), &data);
    assert!(said.contains("free; make room there"), "{said}");

    // Somebody else fills the disk meanwhile. A restore that was faster is tried again.
    for _ in 0..50 {
        let disk = SmallDisk::tmpfs(64 << 20);
        let data = disk.dir.path().join("data");
        let from = [backup.as_path(), "--data-dir".as_ref(), &data];
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        let mut child = command
            .arg("restore")
            .args(from)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while fs::metadata(data.join("durable")).is_err() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).ok();
        // It ends where the disk does.
        fs::write(disk.dir.path().join("filler"), vec![1; 64 << 20]).ok();
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).ok();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() && fails(output, &data).contains("No space left on device") {
            return;
        }
    }
    panic!("the disk was never full in the middle of a restore");
}

#[test]
fn on_a_disk_nearly_full_only_sends_are_refused() {
    only_sends_are_refused(&SmallDisk::tmpfs(256 << 20));
}

#[test]
fn on_an_ext4_nearly_full_only_sends_are_refused() {
    only_sends_are_refused(&SmallDisk::ext4(256 << 20));
}

fn only_sends_are_refused(disk: &SmallDisk) {
    let other = disk.dir.path().join("of somebody else");
    fs::write(&other, vec![1; 96 << 20]).unwrap();
    let logs = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(logs.path());
    settings.data_dir = disk.dir.path().join("data");
    let broker = settings.start();

    let mut producer = broker.connect();
    let mut stored = 0_u64;
    let error = loop {
        match producer.request("SEND", &[("destination", "/queue/a")], &vec![9; 50_000]) {
            Ok(_) => stored += 1,
            Err(error) => break error.to_string(),
        }
        assert!(stored < 4_000, "160 MiB take more than 200 MB");
    };
    println!("refused after {stored}: {error}");
    assert!(
        error.contains("disk"),
        "the ERROR says that it is the disk: {error}"
    );
    assert!(stored > 100, "only {stored} messages of 50 kB in 160 MiB");

    // An operator sees it, and may not add to it.
    let socket = settings.data_dir.join(steadfast::api::SOCKET_FILE);
    let ready = ask(&socket, "GET", "/health/ready", "").unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("disk-full"), "{}", ready.text());
    let moved = ask(&socket, "POST", "/v1/queues/a/move", "{\"to\": \"b\"}").unwrap();
    assert_eq!(moved.failure(), (507, "disk-full".to_owned()));
    let purged = ask(&socket, "POST", "/v1/queues/a/purge", "{\"limit\": 1}").unwrap();
    assert_eq!(purged.status, 200);
    stored -= 1;

    // Settlements and reads go on, also after a restart on the full disk.
    let mut consumer = broker.connect();
    subscribe(&mut consumer, "/queue/a", "client-individual", "10");
    for _ in 0..stored / 4 {
        let message = take(&mut consumer);
        assert_eq!(message.body.len(), 50_000);
        ack(&mut consumer, &message);
    }
    consumer.request("DISCONNECT", &[], b"").unwrap();
    broker.kill();
    let broker = settings.start();
    let mut consumer = broker.connect();
    subscribe(&mut consumer, "/queue/a", "client-individual", "10");
    for _ in stored / 4..stored {
        let message = take(&mut consumer);
        assert_eq!(message.body.len(), 50_000);
        ack(&mut consumer, &message);
    }
    consumer.request("DISCONNECT", &[], b"").unwrap();

    // What was drained is room again, time after time, and so is what somebody else gives free.
    for round in 0..4 {
        if round == 3 {
            fs::remove_file(&other).unwrap();
        }
        let begin = Instant::now();
        let mut producer = loop {
            let mut producer = broker.connect();
            match producer.request("SEND", &[("destination", "/queue/a")], &vec![round; 50_000]) {
                Ok(_) => break producer,
                Err(error) => assert!(
                    begin.elapsed() < Duration::from_secs(30),
                    "round {round}: it still refuses: {error}\n{}",
                    broker.log_end()
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut again = 1;
        while producer
            .request("SEND", &[("destination", "/queue/a")], &vec![round; 50_000])
            .is_ok()
        {
            again += 1;
            assert!(again < 8_000, "the disk never fills");
        }
        println!("round {round}: refused after {again}");
        assert!(
            again > stored / 6,
            "round {round}: only {again} of {stored} fit again"
        );
        let mut consumer = broker.connect();
        subscribe(&mut consumer, "/queue/a", "client-individual", "10");
        for _ in 0..again {
            let message = take(&mut consumer);
            assert_eq!(message.body, vec![round; 50_000]);
            ack(&mut consumer, &message);
        }
        consumer.request("DISCONNECT", &[], b"").unwrap();
    }
    broker.stop();
}

#[test]
fn on_a_disk_with_nothing_free_only_sends_are_refused() {
    nothing_is_free(&SmallDisk::tmpfs(256 << 20));
}

#[test]
fn on_an_ext4_with_nothing_free_only_sends_are_refused() {
    nothing_is_free(&SmallDisk::ext4(256 << 20));
}

/// Another program takes all that is free: at once while no broker runs, and slowly beside one. The ballast is given up,
/// consumers live on it, also over a kill, and it is taken again when there is room.
fn nothing_is_free(disk: &SmallDisk) {
    let logs = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(logs.path());
    settings.data_dir = disk.dir.path().join("data");
    let ballast = settings.data_dir.join("ballast");
    let other = disk.dir.path().join("of somebody else");
    const COUNT: u32 = 150;
    let broker = settings.start();
    let bodies = (0..COUNT).map(|n| n.to_be_bytes().repeat(10_000));
    fill(&mut broker.connect(), "/queue/a", bodies);
    assert!(ballast.exists());
    broker.kill();

    let mut filler = fs::File::create(&other).unwrap();
    let error = loop {
        if let Err(error) = filler.write_all(&[1; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(free_bytes(disk) < 4096, "{}", free_bytes(disk));
    let broker = settings.start();
    assert!(!ballast.exists(), "a start takes its room from the ballast");
    sends_are_refused(&broker);
    settle_some(&broker, 0..COUNT / 3);

    drop(filler);
    fs::remove_file(&other).unwrap();
    await_service(&broker);
    await_that("the ballast is taken again", || ballast.exists());

    // As fast as a disk of 50 MB/s.
    let mut filler = fs::File::create(&other).unwrap();
    await_that("the ballast is given up", || {
        filler.write_all(&vec![1; 1 << 18]).unwrap();
        !ballast.exists()
    });
    sends_are_refused(&broker);
    settle_some(&broker, COUNT / 3..COUNT / 3 * 2);
    broker.kill();
    let broker = settings.start();
    sends_are_refused(&broker);
    settle_some(&broker, COUNT / 3 * 2..COUNT);

    drop(filler);
    fs::remove_file(&other).unwrap();
    await_service(&broker);
    // What was sent behind them is all there is.
    let mut client = broker.connect();
    subscribe(&mut client, "/queue/a", "client-individual", "1");
    for expected in [b"last", b"more", b"more"] {
        let message = take(&mut client);
        assert_eq!(message.body, expected);
        ack(&mut client, &message);
    }
    client.request("DISCONNECT", &[], b"").unwrap();
    broker.stop();
}

fn free_bytes(disk: &SmallDisk) -> u64 {
    let found = rustix::fs::statvfs(disk.dir.path()).unwrap();
    found.f_bavail * found.f_frsize
}

fn sends_are_refused(broker: &Broker) {
    let send = broker
        .connect()
        .request("SEND", &[("destination", "/queue/a")], b"refused");
    let error = send.expect_err("a SEND is refused").to_string();
    assert!(error.contains("disk-full"), "{error}");
}

/// Takes the messages of these numbers, which come next, and settles them with a receipt.
fn settle_some(broker: &Broker, numbers: std::ops::Range<u32>) {
    let mut client = broker.connect();
    subscribe(&mut client, "/queue/a", "client-individual", "1");
    for number in numbers {
        let message = take(&mut client);
        assert_eq!(
            message.body,
            number.to_be_bytes().repeat(10_000),
            "message {number}"
        );
        ack(&mut client, &message);
    }
    client.request("DISCONNECT", &[], b"").unwrap();
}

/// A SEND is confirmed again.
fn await_service(broker: &Broker) {
    await_that("SENDs are taken again", || {
        let send = broker
            .connect()
            .request("SEND", &[("destination", "/queue/a")], b"more");
        send.is_ok()
    });
}

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `serve` of a folder, as another user or as this one; its exit code, and the one line of its complaint.
fn refused(data_dir: &Path, user: Option<u32>) -> (Option<i32>, String) {
    // Where that user can reach it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("steadfast");
    fs::copy(env!("CARGO_BIN_EXE_steadfast"), &program).unwrap();
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").args(["serve", "--data-dir"]);
    command.arg(data_dir).args(["--listen", "127.0.0.1:0"]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().expect("this test needs root");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said)
}

#[test]
fn a_missing_data_folder_is_made_or_its_refusal_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.data_dir = dir.path().join("not").join("there");
    settings.start().stop();
    let mode = fs::metadata(&settings.data_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it holds what others must not read");

    fs::write(dir.path().join("file"), "").unwrap();
    for (folder, expect) in [
        (
            dir.path().join("file"),
            "it is not a folder: choose one with --data-dir",
        ),
        (
            dir.path().join("file/data"),
            "it is not a folder: choose one with --data-dir",
        ),
        ("/proc/not/there".into(), "No such file or directory"),
    ] {
        let (code, said) = refused(&folder, None);
        assert_eq!(code, Some(4), "{said}");
        let name = folder.to_str().unwrap();
        assert!(
            said.starts_with(&format!("error: cannot make the data folder {name}: "))
                && said.contains(expect),
            "{said}"
        );
    }
}

#[test]
fn a_data_folder_of_another_user_is_one_clear_line() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let settings = Settings::in_dir(dir.path());
    settings.start().stop();
    let store = &settings.data_dir;
    let before = size_of(store);
    let mode = |mode| fs::set_permissions(store, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    let (code, said) = refused(store, Some(NOBODY));
    assert_eq!(code, Some(4), "{said}");
    let expect = "Permission denied (os error 13); this user needs to read and write it, or choose another folder with --data-dir";
    assert!(
        said.contains(store.to_str().unwrap()) && said.contains(expect),
        "{said}"
    );
    // A folder that may be entered, with files that may not be written.
    mode(0o755);
    let (code, said) = refused(store, Some(NOBODY));
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("/lock failed") && said.contains(expect), "{said}");
    // One that would have to be made in it.
    let (code, said) = refused(&dir.path().join("data.new"), Some(NOBODY));
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("cannot make the data folder") && said.contains(expect),
        "{said}"
    );
    assert_eq!(size_of(store), before, "nothing in it changes");
    settings.start().stop();
}
