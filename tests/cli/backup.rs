//! Backup and restore, export and import: the real commands, a real broker.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rig::http::ask;
use super::rig::{Broker, Client, Rng, Settings};

/// Names that break what handles them without care.
pub(super) const ODD: &[&str] = &[
    "with space",
    "a/b//c/",
    "..",
    "'single' \"double\" `back` $x \\n",
    "%2F?a=b&c#d+e",
    "\t\n\r\u{1b}[31mred\u{7f}\u{9b}:",
    "ünïcode 日本 \u{202e}reversed",
];

pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) settings: Settings,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::in_dir(dir.path());
        settings.config = "[limits]\ndeliveries_failed_max = 2\n".to_owned();
        Self { dir, settings }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn data(&self) -> &Path {
        &self.settings.data_dir
    }

    /// The settings of a broker in another folder.
    pub(super) fn other(&self, name: &str) -> Settings {
        Settings {
            data_dir: self.path(name),
            log: self.path(&format!("{name}-log")),
            ..self.settings.clone()
        }
    }

    fn backup(&self, to: &Path) {
        run_well(&["backup", "--to"], &[to, Path::new("--data-dir"), self.data()]);
    }

    /// Restores into a new folder, and checks what it made.
    fn restore(&self, from: &Path, name: &str) -> Settings {
        let other = self.other(name);
        run_well(&["restore"], &[from, Path::new("--data-dir"), &other.data_dir]);
        run_well(&["inspect", "--check", "--data-dir"], &[&other.data_dir]);
        other
    }
}

pub(super) fn command(args: &[&str], paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command
        .env_clear()
        .args(args)
        .args(paths)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(super) fn run_well(args: &[&str], paths: &[&Path]) -> String {
    let output = command(args, paths).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(0), ""),
        "{args:?} {paths:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a command says which fails with an exit code.
pub(super) fn refused(args: &[&str], paths: &[&Path], code: i32) -> String {
    refusal(&command(args, paths).output().unwrap(), code)
}

pub(super) fn refusal(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

pub(super) fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "it never came that {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn send(client: &mut Client, queue: &str, headers: &[(&str, &str)], body: &[u8]) {
    let destination = format!("/queue/{queue}");
    let headers = [&[("destination", destination.as_str())], headers].concat();
    client.request("SEND", &headers, body).unwrap();
}

/// Takes the next message of a queue and answers it.
fn answer(broker: &Broker, queue: &str, answers: &[&str]) {
    let mut client = broker.connect();
    let destination = format!("/queue/{queue}");
    let headers = [
        ("destination", destination.as_str()),
        ("id", "1"),
        ("ack", "client-individual"),
        ("prefetch-count", "1"),
    ];
    client.request("SUBSCRIBE", &headers, b"").unwrap();
    for command in answers {
        let message = client.expect().unwrap();
        assert_eq!(message.command, "MESSAGE");
        let ack = message.header("ack").unwrap().to_owned();
        client.send(command, &[("id", &ack)], b"").unwrap();
    }
    client.request("UNSUBSCRIBE", &[("id", "1")], b"").unwrap();
}

/// Every message of a queue, as a consumer gets it: headers and body.
pub(super) fn drain(broker: &Broker, queue: &str) -> Vec<super::rig::Frame> {
    let mut client = broker.connect();
    let destination = format!("/queue/{queue}");
    let headers = [
        ("destination", destination.as_str()),
        ("id", "1"),
        ("ack", "client"),
    ];
    client.request("SUBSCRIBE", &headers, b"").unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = client.receive(Duration::from_millis(300)).unwrap() {
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        let ack = frame.header("ack").unwrap().to_owned();
        frames.push(frame);
        if frames.len() % 100 == 0 {
            client.send("ACK", &[("id", &ack)], b"").unwrap();
        }
    }
    if let Some(last) = frames.last().filter(|_| frames.len() % 100 > 0) {
        client
            .send("ACK", &[("id", last.header("ack").unwrap())], b"")
            .unwrap();
    }
    client.request("UNSUBSCRIBE", &[("id", "1")], b"").unwrap();
    frames
}

/// All that `inspect --json` says of a folder, but for the line of the store.
fn seen(data_dir: &Path) -> Vec<Value> {
    let parsed = |text: String| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let mut all = Vec::new();
    for line in parsed(run_well(&["inspect", "--json", "--data-dir"], &[data_dir])) {
        if line["kind"] != "queue" {
            continue;
        }
        // As `--queue=`, so that a name may begin with a dash.
        let queue = format!("--queue=/queue/{}", line["name"].as_str().unwrap());
        let args = [
            "inspect",
            "--json",
            "--bodies",
            "--limit",
            "100000",
            &queue,
            "--data-dir",
        ];
        all.push(line.clone());
        let messages = parsed(run_well(&args, &[data_dir]));
        all.extend(messages.into_iter().filter(|line| line["kind"] == "message"));
    }
    all
}

/// Something of everything.
fn fill(broker: &Broker, data_dir: &Path) {
    let mut client = broker.connect();
    for queue in ODD {
        send(&mut client, queue, &[("k:e\ny", "v:a\\l\nue")], queue.as_bytes());
    }
    let mut rng = Rng::new(7);
    for size in [0, 1, 100, 16_320, 20_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
        send(&mut client, "sizes", &[], &body);
    }
    for number in 0..500 {
        send(
            &mut client,
            "many",
            &[("number", &number.to_string())],
            b"one of many",
        );
    }
    client
        .request(
            "SEND",
            &[("destination", "/queue/gone"), ("persistent", "false")],
            b"not stored",
        )
        .unwrap();
    for body in ["fails", "stays"] {
        send(&mut client, "poison", &[], body.as_bytes());
    }
    // Two failures make a dead letter; another has one.
    answer(broker, "poison", &["NACK", "NACK"]);
    send(&mut client, "counted", &[], b"failed once");
    answer(broker, "counted", &["NACK"]);
    send(&mut client, "still", &[], b"waits");
    let socket = data_dir.join("api.sock");
    let post = |path: &str, body: &str| {
        let answer = ask(&socket, "POST", path, body).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    post("/v1/queues/still/pause", "");
    post("/v1/queues/many/copy", r#"{"to": "copies", "limit": 20}"#);
    post("/v1/queues/many/purge", r#"{"from": 0, "limit": 100}"#);
}

#[test]
fn what_is_restored_is_what_was_there() {
    let world = World::new();
    let broker = world.settings.start();
    fill(&broker, world.data());
    let (online, offline) = (world.path("online.backup"), world.path("offline.backup"));
    world.backup(&online);
    let text = run_well(&["restore", "--check"], &[&online]);
    assert!(text.starts_with("437 messages in 14 queues"), "{text}");
    // Not stopped in order: that would count deliveries that cannot be excluded.
    broker.kill();
    let expect = seen(world.data());
    world.backup(&offline);
    for (from, name) in [(&online, "from-online"), (&offline, "from-offline")] {
        let restored = world.restore(from, name);
        assert!(seen(&restored.data_dir) == expect, "{name}");
    }

    let restored = world.other("from-online");
    let broker = restored.start();
    let socket = restored.data_dir.join("api.sock");
    let get = |path: &str| -> Value { ask(&socket, "GET", path, "").unwrap().json() };
    assert_eq!(get("/v1/queues/still")["queue"]["paused"], true);
    let dead = get("/v1/queues/DLQ.poison/messages");
    assert_eq!(dead["messages"][0]["origin"], "poison");
    ask(&socket, "POST", "/v1/queues/DLQ.poison/requeue", "").unwrap();
    let poison = drain(&broker, "poison");
    assert_eq!(
        poison
            .iter()
            .map(|frame| frame.body.as_slice())
            .collect::<Vec<_>>(),
        [&b"stays"[..], b"fails"]
    );
    // Ids are kept, and each message may have been delivered since. A new one has an id of a later term.
    let many = drain(&broker, "many");
    assert_eq!(many.len(), 400);
    let of = |line: &Value| line["queue"] == "many";
    let ids: Vec<&str> = expect
        .iter()
        .filter(|line| of(line))
        .map(|line| line["message_id"].as_str().unwrap())
        .collect();
    let got: Vec<&str> = many
        .iter()
        .map(|frame| frame.header("message-id").unwrap())
        .collect();
    assert_eq!(got, ids);
    assert!(
        many.iter()
            .all(|frame| frame.header("redelivered") == Some("true"))
    );
    let epoch = |id: &str| id.split('-').nth(1).unwrap().parse::<u32>().unwrap();
    let mut client = broker.connect();
    send(&mut client, "many", &[], b"new");
    let new = drain(&broker, "many");
    assert_eq!(new[0].header("redelivered"), Some("false"));
    assert!(epoch(new[0].header("message-id").unwrap()) > epoch(ids[0]) + 1_000);
    broker.stop();
    run_well(&["inspect", "--check", "--data-dir"], &[&restored.data_dir]);
}

/// A producer that commits pairs over two queues, and a worker that moves messages from one queue to another, each move
/// a transaction.
struct Traffic {
    over: Arc<AtomicBool>,
    /// Pairs whose COMMIT was confirmed, and pairs begun.
    confirmed: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Messages that are moved to and fro.
const BALLS: u64 = 200;

impl Traffic {
    fn start(broker: &Broker) -> Self {
        let mut client = broker.connect();
        for number in 0..BALLS {
            send(&mut client, "ping", &[("number", &number.to_string())], b"ball");
        }
        let traffic = Self {
            over: Arc::default(),
            confirmed: Arc::default(),
            begun: Arc::default(),
            threads: Vec::new(),
        };
        let mut threads = Vec::new();
        let (over, confirmed, begun) = (
            traffic.over.clone(),
            traffic.confirmed.clone(),
            traffic.begun.clone(),
        );
        threads.push(std::thread::spawn(move || {
            for number in 0.. {
                if over.load(SeqCst) {
                    return;
                }
                begun.store(number + 1, SeqCst);
                let number = number.to_string();
                client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
                for queue in ["/queue/left", "/queue/right"] {
                    let headers = [("destination", queue), ("transaction", "t"), ("number", &number)];
                    client.send("SEND", &headers, &[b'x'; 3_000]).unwrap();
                }
                client.request("COMMIT", &[("transaction", "t")], b"").unwrap();
                confirmed.store(number.parse::<u64>().unwrap() + 1, SeqCst);
            }
        }));
        for (from, to) in [("/queue/ping", "/queue/pong"), ("/queue/pong", "/queue/ping")] {
            let (over, mut client) = (traffic.over.clone(), broker.connect());
            threads.push(std::thread::spawn(move || {
                let headers = [
                    ("destination", from),
                    ("id", "1"),
                    ("ack", "client-individual"),
                    ("prefetch-count", "10"),
                ];
                client.request("SUBSCRIBE", &headers, b"").unwrap();
                while !over.load(SeqCst) {
                    let Some(frame) = client.receive(Duration::from_millis(50)).unwrap() else {
                        continue;
                    };
                    if frame.command != "MESSAGE" {
                        continue;
                    }
                    let number = frame.header("number").unwrap().to_owned();
                    let ack = frame.header("ack").unwrap().to_owned();
                    client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
                    client
                        .send("ACK", &[("id", &ack), ("transaction", "t")], b"")
                        .unwrap();
                    let headers = [("destination", to), ("transaction", "t"), ("number", &number)];
                    client.send("SEND", &headers, b"ball").unwrap();
                    client.send("COMMIT", &[("transaction", "t")], b"").unwrap();
                }
            }));
        }
        Self { threads, ..traffic }
    }

    fn stop(self) {
        self.over.store(true, SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// The numbers of the messages of a queue, by `inspect`.
fn numbers(seen: &[Value], queue: &str) -> Vec<u64> {
    let of_queue = seen.iter().filter(|line| line["queue"] == queue);
    of_queue
        .map(|line| {
            let headers = line["headers"].as_array().unwrap();
            let number = headers.iter().find(|pair| pair[0] == "number").unwrap();
            number[1].as_str().unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn under_load_a_backup_is_one_moment() {
    let world = World::new();
    let broker = world.settings.start();
    // Enough to be read for a while, and all of it settled meanwhile: its slots must not be used again too early.
    let mut client = broker.connect();
    for number in 0..2_000_u32 {
        send(
            &mut client,
            "drained",
            &[("number", &number.to_string())],
            &number.to_be_bytes().repeat(1_000),
        );
    }
    let traffic = Traffic::start(&broker);
    await_that("pairs are committed", || traffic.confirmed.load(SeqCst) > 20);
    for round in 0..3 {
        let file = world.path(&format!("{round}.backup"));
        let confirmed = traffic.confirmed.load(SeqCst);
        let child = command(
            &[
                "backup",
                "--mib-per-second-max",
                if round == 0 { "2" } else { "0" },
                "--to",
            ],
            &[&file, Path::new("--data-dir"), world.data()],
        )
        .spawn()
        .unwrap();
        if round == 0 {
            let partial = world.path("0.backup.partial");
            await_that("the backup is under way", || {
                fs::metadata(&partial).is_ok_and(|found| found.len() > 1 << 20)
            });
            assert_eq!(drain(&broker, "drained").len(), 2_000);
            // What comes now would use the slots again.
            for number in 0..400_u32 {
                send(
                    &mut client,
                    "fresh",
                    &[("number", &number.to_string())],
                    &[b'f'; 16_000],
                );
            }
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let begun = traffic.begun.load(SeqCst);
        let restored = world.restore(&file, &format!("restored-{round}"));
        let seen = seen(&restored.data_dir);
        let (left, right) = (numbers(&seen, "left"), numbers(&seen, "right"));
        assert_eq!(left, right, "transactions are whole");
        assert!(
            left.iter().copied().eq(0..left.len() as u64),
            "a beginning of the history"
        );
        assert!(left.len() as u64 >= confirmed, "{} of {confirmed}", left.len());
        assert!(left.len() as u64 <= begun);
        let mut balls = numbers(&seen, "ping");
        balls.extend(numbers(&seen, "pong"));
        balls.sort_unstable();
        assert!(
            balls.iter().copied().eq(0..BALLS),
            "each is in one of two queues: {balls:?}"
        );
        if round == 0 {
            assert!(numbers(&seen, "drained").into_iter().eq(0..2_000));
            let bodies = seen.iter().filter(|line| line["queue"] == "drained");
            for (number, line) in (0_u32..).zip(bodies) {
                let hex: String = number
                    .to_be_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let body = line["body_hex"].as_str().map(str::to_owned).unwrap_or_else(|| {
                    let text = line["body"].as_str().unwrap();
                    text.bytes().map(|byte| format!("{byte:02x}")).collect()
                });
                assert!(body == hex.repeat(1_000), "the body of {number}");
            }
        }
    }
    traffic.stop();
    broker.stop();
    run_well(&["inspect", "--check", "--data-dir"], &[world.data()]);
}

/// A backup that takes for ever, once its first bytes are written.
fn slow_backup(world: &World, file: &Path) -> Child {
    let child = command(
        &["backup", "--mib-per-second-max", "1", "--to"],
        &[file, Path::new("--data-dir"), world.data()],
    )
    .spawn()
    .unwrap();
    let partial = file.with_extension("backup.partial");
    await_that("the backup is under way", || {
        fs::metadata(&partial).is_ok_and(|found| found.len() > 0)
    });
    child
}

#[test]
fn what_is_interrupted_is_no_backup() {
    let world = World::new();
    let broker = world.settings.start();
    let mut client = broker.connect();
    for _ in 0..100 {
        send(&mut client, "a", &[], &[1; 200_000]);
    }
    let file = world.path("a.backup");
    let partial = world.path("a.backup.partial");

    // The command is killed.
    let mut child = slow_backup(&world, &file);
    let said = refused(
        &["backup", "--to"],
        &[&world.path("b"), Path::new("--data-dir"), world.data()],
        1,
    );
    assert!(
        said.contains("another backup of this broker is under way"),
        "{said}"
    );
    assert!(!world.path("b.partial").exists(), "what failed leaves nothing");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!file.exists());
    let other = world.path("restored");
    let said = refused(&["restore"], &[&partial, Path::new("--data-dir"), &other], 4);
    assert!(said.contains("a.backup.partial: it is incomplete"), "{said}");
    assert_eq!(
        fs::read_dir(&other).unwrap().count(),
        0,
        "nothing looks like a store"
    );
    let said = refused(
        &["backup", "--to"],
        &[&file, Path::new("--data-dir"), world.data()],
        1,
    );
    assert!(said.contains("a.backup.partial"), "{said}");
    fs::remove_file(&partial).unwrap();

    // The broker has noticed, and is killed in the next one.
    let socket = world.data().join("api.sock");
    await_that("the broker lets go", || {
        let output = command(
            &["backup", "--to"],
            &[&world.path("c.backup"), Path::new("--data-dir"), world.data()],
        )
        .output();
        output.unwrap().status.success()
    });
    assert!(socket.exists());
    let child = slow_backup(&world, &file);
    broker.kill();
    let said = refusal(&child.wait_with_output().unwrap(), 1);
    assert!(said.contains("the broker broke off its answer"), "{said}");
    assert!(!file.exists() && !partial.exists());

    // A restore that was killed is told by name, by everyone.
    let unfinished = world.other("unfinished");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&unfinished.data_dir)
        .unwrap();
    fs::write(
        unfinished.data_dir.join("format"),
        "steadfast store, format 4, restoring\n",
    )
    .unwrap();
    for args in [&["serve"][..], &["inspect"], &["backup", "--to", "never"]] {
        let said = refused(&[args, &["--data-dir"]].concat(), &[&unfinished.data_dir], 4);
        assert!(said.contains("a restore into"), "{args:?}: {said}");
        assert!(
            said.contains("did not come to its end; remove the folder and restore again"),
            "{said}"
        );
    }
    let whole = world.path("c.backup");
    let said = refused(
        &["restore"],
        &[&whole, Path::new("--data-dir"), &unfinished.data_dir],
        4,
    );
    assert!(said.contains("did not come to its end"), "{said}");
    let said = refused(&["restore"], &[&whole, Path::new("--data-dir"), world.data()], 4);
    assert!(said.contains("is not empty"), "{said}");
    world.restore(&whole, "whole");
    assert!(!Path::new("never.partial").exists());
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let world = World::new();
    let broker = world.settings.start();
    let mut client = broker.connect();
    for body in ["one", "two"] {
        send(&mut client, "a", &[], body.as_bytes());
    }
    drop(client);
    let file = world.path("a.backup");
    world.backup(&file);
    broker.stop();
    let whole = fs::read(&file).unwrap();
    let changed = world.path("changed.backup");
    let mut rng = Rng::new(3);
    // Each byte is a matter of the reader's own tests; here it is the command that must refuse.
    for _ in 0..25 {
        let mut bytes = whole.clone();
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        fs::write(&changed, &bytes).unwrap();
        refused(&["restore", "--check"], &[&changed], 4);
        let other = world.path("restored");
        refused(&["restore"], &[&changed, Path::new("--data-dir"), &other], 4);
        assert!(
            !other.join("db").exists() && !other.join("format").exists(),
            "byte {at}"
        );
    }
    let said = refused(&["restore"], &[Path::new("/nowhere")], 1);
    assert!(said.contains("/nowhere"), "{said}");
    fs::write(&changed, "#!/bin/sh\necho no backup at all\n").unwrap();
    let said = refused(&["restore", "--check"], &[&changed], 4);
    assert!(said.contains("it is not a backup"), "{said}");
}

/// What a consumer gets, without what the broker says of the delivery.
fn content(frame: &super::rig::Frame) -> (Vec<(String, String)>, Vec<u8>) {
    let of_the_broker = [
        "subscription",
        "message-id",
        "ack",
        "redelivered",
        "delivery-count",
        "destination",
    ];
    let headers = frame.headers.iter();
    let headers = headers.filter(|(name, _)| !of_the_broker.contains(&name.as_str()));
    (headers.cloned().collect(), frame.body.clone())
}

#[test]
fn what_is_exported_is_imported() {
    let world = World::new();
    let broker = world.settings.start();
    let mut client = broker.connect();
    for queue in ODD {
        let headers = [
            ("k:e\ny", "v:a\\l\r\nue"),
            ("k", "1"),
            ("k", "2"),
            ("\u{1b}[31m", "\u{202e}"),
        ];
        send(&mut client, queue, &headers, queue.as_bytes());
        send(&mut client, queue, &[], b"\x00\xff\xfe\n\0{}\"");
        send(&mut client, queue, &[], b"");
    }
    let mut rng = Rng::new(11);
    let large: Vec<u8> = (0..5 << 20).map(|_| rng.next() as u8).collect();
    send(&mut client, "large", &[], &large);
    send(&mut client, "large", &[], "ü".repeat(3 << 20).as_bytes());
    for number in 0..2_500 {
        send(
            &mut client,
            "many",
            &[("number", &number.to_string())],
            b"one of many",
        );
    }
    let data = ["--data-dir", world.data().to_str().unwrap()];
    let json = run_well(&[&["export", "--all"], &data[..]].concat(), &[]);
    let args = [&["export", "--all", "--format", "frames"], &data[..]].concat();
    let frames = command(&args, &[]).output().unwrap();
    assert_eq!(frames.status.code(), Some(0), "{frames:?}");
    let (json_file, frames_file) = (world.path("all.jsonl"), world.path("all.stomp"));
    fs::write(&json_file, &json).unwrap();
    fs::write(&frames_file, &frames.stdout).unwrap();
    // Some by name, in their order.
    let args = [
        &["export", "--queue", "large", "--queue", "/queue/with space"],
        &data[..],
    ]
    .concat();
    let some = run_well(&args, &[]);
    let queues: Vec<Value> = some
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let queues: Vec<&str> = queues
        .iter()
        .map(|line| line["queue"].as_str().unwrap())
        .collect();
    assert_eq!(
        queues,
        ["large", "large", "with space", "with space", "with space"]
    );
    let said = refused(&[&["export", "--queue", "none"], &data[..]].concat(), &[], 1);
    assert!(said.contains("there is no such queue"), "{said}");

    let names = || ODD.iter().copied().chain(["large", "many"]);
    let expect: Vec<Vec<_>> = names()
        .map(|queue| drain(&broker, queue).iter().map(content).collect())
        .collect();
    assert!(expect.iter().all(|messages| messages.len() >= 2));
    broker.stop();
    for (name, file) in [("json", &json_file), ("frames", &frames_file)] {
        let settings = world.other(name);
        let broker = settings.start();
        let addr = broker.addr().to_string();
        let said = run_well(&["import", "--addr", &addr], &[file]);
        assert_eq!(said, "2523 messages sent and confirmed\n");
        for (queue, expect) in names().zip(&expect) {
            let found: Vec<_> = drain(&broker, queue).iter().map(content).collect();
            assert!(found == *expect, "{name}: {queue}");
        }
        broker.stop();
    }

    // A file that is at fault in the middle, mended, goes on where it stopped.
    let broker = world.other("mended").start();
    let addr = broker.addr().to_string();
    let lines: Vec<&str> = json.lines().filter(|line| line.contains("one of many")).collect();
    let mut broken = lines.clone();
    broken[2_100] = "{";
    let file = world.path("mended.jsonl");
    fs::write(&file, broken.join("\n")).unwrap();
    let said = refused(&["import", "--addr", &addr, "--to", "mended"], &[&file], 1);
    assert!(said.contains("message 2101 of"), "{said}");
    assert!(said.contains("--skip 2000"), "{said}");
    let mut text = lines.join("\n");
    fs::write(&file, &text).unwrap();
    // Without its last line end it may have been cut.
    let args = [
        "import",
        "--addr",
        &addr,
        "--to",
        "mended",
        "--skip",
        "2000",
        "--transaction",
        "100",
    ];
    let said = refused(&args, &[&file], 1);
    assert!(
        said.contains("the export was cut") && said.contains("--skip 2400"),
        "{said}"
    );
    text.push('\n');
    fs::write(&file, &text).unwrap();
    let args = ["import", "--addr", &addr, "--to", "mended", "--skip", "2400"];
    assert_eq!(run_well(&args, &[&file]), "100 messages sent and confirmed\n");
    let found: Vec<_> = drain(&broker, "mended").iter().map(content).collect();
    assert!(found == expect[expect.len() - 1]);
    let said = refused(&["import"], &[Path::new("/nowhere")], 1);
    assert!(said.contains("cannot read /nowhere"), "{said}");
}
