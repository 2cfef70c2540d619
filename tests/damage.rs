//! Damage to the folder of a stopped store, at places and of kinds chosen by a seed: what the real program does with it.
//!
//! The oracle: every message that `serve` or a repaired store delivers is, byte for byte, one that was confirmed;
//! nothing that was settled with a receipt comes from `serve`; nothing that was confirmed and not settled is lost in
//! silence: it is delivered, or set aside, or the store is refused, and then repaired with a list of what is gone. What
//! is intact is saved: a repair loses no message whose facts and body are still whole in the file `db`, and `serve` sets
//! aside nothing but what was hit and what shares a page of the engine with it. Which those are the test finds out by
//! itself, from the frames in the file. Every command ends in time, by itself, with its exit code and one line.
//!
//! `STEADFAST_TEST_DAMAGES` is how many damages of each kind, `STEADFAST_TEST_SEED` the first seed.

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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rig::{Broker, Client, Frame, Rng, Settings, env_number};
use steadfast::journal::{Fact, Place, decode_facts};
use steadfast::store::frame::{self, Kind};

const QUEUES: [&str; 3] = ["orders", "mail", "big"];

/// No command may take longer, on a store of a few MiB.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A message by the number in its header `n`.
type Messages = BTreeMap<u64, (&'static str, Vec<u8>)>;

/// With a ballast that is quickly copied.
fn settings(dir: &Path) -> Settings {
    Settings {
        config: "[limits]\ndisk_free_bytes_min = 131072\n".to_owned(),
        ..Settings::in_dir(dir)
    }
}

/// A store, and what was confirmed of it.
struct Sample {
    dir: tempfile::TempDir,
    sent: Messages,
    settled: BTreeSet<u64>,
    /// What each live message needs of `db`.
    needs: BTreeMap<u64, Needs>,
    /// How many copies of each frame there are: the engine writes anew what shares a page with something new.
    copies: HashMap<Vec<u8>, usize>,
}

/// What a message needs to be whole.
struct Needs {
    /// The parts of the batch that names its place, and its chunks.
    frames: Vec<Vec<u8>>,
    /// Where its chunks are.
    slots: Vec<u32>,
}

impl Sample {
    /// Made by the real broker: messages in three queues, small ones and ones of many chunks, some settled, a start in
    /// between; stopped cleanly or killed.
    fn make(seed: u64, killed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let mut rng = Rng::new(seed);
        let mut sample = Self {
            dir,
            sent: Messages::new(),
            settled: BTreeSet::new(),
            needs: BTreeMap::new(),
            copies: HashMap::new(),
        };
        let broker = settings.start();
        sample.send(&broker, &mut rng, 500);
        sample.settle(&broker, "mail", 100);
        sample.settle(&broker, "orders", 20);
        broker.stop();
        let broker = settings.start();
        sample.send(&broker, &mut rng, 200);
        sample.settle(&broker, "orders", 60);
        sample.settle(&broker, "big", 5);
        if killed {
            broker.kill();
        } else {
            broker.stop();
        }
        let db = fs::read(sample.folder().join("db")).unwrap();
        sample.needs = needs(&sample, &db);
        sample.copies = frames(&db);
        let live = sample.live();
        assert!(
            sample.needs.keys().eq(&live),
            "every live message is found in `db`"
        );
        sample
    }

    /// The live messages of which enough is whole in a damaged `db`, and those of which nothing was hit.
    fn intact(&self, dir: &Path, kind: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let db = fs::read(dir.join("db")).unwrap_or_default();
        let found = frames(&db);
        let hidden = match kind {
            MISPLACED => hidden(&db, &found),
            _ => HashMap::new(),
        };
        let with = |whole: &dyn Fn(&Vec<u8>) -> bool| {
            let all = |(_, needs): &(_, &Needs)| needs.frames.iter().all(whole);
            self.needs.iter().filter(all).map(|(n, _)| *n).collect()
        };
        (
            with(&|frame| found.get(frame) > hidden.get(frame)),
            with(&|frame| found.get(frame) >= self.copies.get(frame)),
        )
    }

    /// How many pages of the engine hold something of each of these messages, at least.
    fn page_count(&self, of: impl Iterator<Item = u64>) -> usize {
        let mut open: Vec<u64> = of.collect();
        let mut count = 0;
        let last = |n: &u64| *self.needs[n].slots.iter().max().unwrap();
        while let Some(end) = open.iter().map(last).min() {
            let shares = |slot: &u32| (end..end + PAGE_SLOT_COUNT_MAX).contains(slot);
            open.retain(|n| !self.needs[n].slots.iter().any(shares));
            count += 1;
        }
        count
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn send(&mut self, broker: &Broker, rng: &mut Rng, count: usize) {
        let mut client = broker.connect();
        for _ in 0..count {
            let n = self.sent.len() as u64;
            let queue = match rng.below(20) {
                0 => "big",
                1..=10 => "orders",
                _ => "mail",
            };
            let len = if queue == "big" { 40_000 } else { 20 } + rng.below(6_000);
            let body: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            let (destination, number) = (format!("/queue/{queue}"), n.to_string());
            let headers = [("destination", destination.as_str()), ("n", &number)];
            if rng.chance(20) {
                client.request("SEND", &headers, &body).unwrap();
            } else {
                client.send("SEND", &headers, &body).unwrap();
            }
            self.sent.insert(n, (queue, body));
        }
        client.request("DISCONNECT", &[], b"").unwrap();
    }

    fn settle(&mut self, broker: &Broker, queue: &str, count: usize) {
        let mut client = broker.connect();
        subscribe(&mut client, queue);
        for at in 1..=count {
            let message = client.expect().unwrap();
            let ack = [("id", message.header("ack").unwrap())];
            self.settled.insert(number(&message));
            if at == count {
                client.request("ACK", &ack, b"").unwrap();
            } else {
                client.send("ACK", &ack, b"").unwrap();
            }
        }
        client.request("DISCONNECT", &[], b"").unwrap();
    }

    fn live(&self) -> BTreeSet<u64> {
        let live = self.sent.keys().filter(|n| !self.settled.contains(n));
        live.copied().collect()
    }

    /// A copy of the folder, to be damaged.
    fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        copy_folder(&self.folder(), &dir);
        (root, dir)
    }
}

/// Asks for no receipt: deliveries come at once.
fn subscribe(client: &mut Client, queue: &str) {
    let destination = format!("/queue/{queue}");
    let headers = [
        ("destination", destination.as_str()),
        ("id", queue),
        ("ack", "client-individual"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
}

fn number(message: &Frame) -> u64 {
    message.header("n").unwrap().parse().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

// ---- what is in the file ----

/// Every whole frame in the bytes of `db`, and how many copies there are of it.
fn frames(db: &[u8]) -> HashMap<Vec<u8>, usize> {
    let mut found = HashMap::new();
    for (_, frame) in frames_at(db) {
        *found.entry(frame.to_vec()).or_default() += 1;
    }
    found
}

/// Where each of them is.
fn frames_at(db: &[u8]) -> Vec<(usize, &[u8])> {
    const MAGIC: &[u8] = b"STFD";
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = db[at..].windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
        at += next;
        let length = db.get(at + 16..at + 20).map(|bytes| bytes.try_into().unwrap());
        let end = length.map_or(0, |bytes| at + 24 + u32::from_le_bytes(bytes) as usize);
        let bytes = db.get(at..end).unwrap_or_default();
        let is_whole = [Kind::Index, Kind::Body].map(|kind| frame::open(bytes, kind).is_ok());
        if is_whole.contains(&true) {
            found.push((at, bytes));
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// The frames that lie where a chunk would, of which there is nothing but its head, and a part perhaps: whether they are
/// its own bytes, which its sender chose, nobody can tell. And how many copies of each.
fn hidden(db: &[u8], found: &HashMap<Vec<u8>, usize>) -> HashMap<Vec<u8>, usize> {
    let number = |head: &[u8]| u64::from_le_bytes(head[8..16].try_into().unwrap());
    let is_body = |head: &[u8]| head[5] == Kind::Body as u8;
    let whole: BTreeSet<u64> = found
        .keys()
        .filter(|head| is_body(head))
        .map(|head| number(head))
        .collect();
    let mut hidden: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut from = 0;
    while let Some(at) = db[from..].windows(4).position(|bytes| bytes == b"STFD") {
        let at = from + at;
        from = at + 4;
        let rest = &db[at..];
        if rest.len() < 24 || !is_body(rest) || whole.contains(&number(rest)) {
            continue;
        }
        let len = 24 + u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
        let reach = &rest[24..rest.len().min(len + FRAME_BYTES_MAX)];
        for (_, frame) in frames_at(reach).into_iter().filter(|(at, _)| at + 24 < len) {
            *hidden.entry(frame.to_vec()).or_default() += 1;
        }
    }
    hidden
}

/// What each live message needs to be whole, by the newest of the batches that name its place.
fn needs(sample: &Sample, db: &[u8]) -> BTreeMap<u64, Needs> {
    let mut batches: BTreeMap<u64, BTreeMap<u16, Vec<u8>>> = BTreeMap::new();
    let mut chunks: HashMap<u64, Vec<u8>> = HashMap::new();
    for bytes in frames(db).into_keys() {
        if let Ok(part) = frame::open(&bytes, Kind::Index) {
            let (seq, part) = (part.number, part.part);
            batches.entry(seq).or_default().insert(part, bytes);
        } else {
            let chunk = frame::open(&bytes, Kind::Body).unwrap().number;
            chunks.insert(chunk, bytes);
        }
    }
    let payload = |chunk: u64| {
        let bytes = chunks
            .get(&chunk)
            .map(|bytes| frame::open(bytes, Kind::Body).unwrap());
        bytes.map_or(&[][..], |frame| frame.payload)
    };
    let numbers: HashMap<&[u8], u64> = sample.sent.iter().map(|(n, (_, body))| (&body[..], *n)).collect();
    let mut needs = BTreeMap::new();
    for parts in batches.values() {
        let whole: Vec<u8> = parts
            .values()
            .flat_map(|part| frame::open(part, Kind::Index).unwrap().payload)
            .copied()
            .collect();
        // What a start left behind may have lost a part.
        for fact in decode_facts(&whole).unwrap_or_default() {
            let Fact::Enqueued(enqueued) = fact else { continue };
            let (places, offset) = match enqueued.place {
                Place::Chunk { chunk, offset } => (vec![chunk], offset as usize),
                Place::Extent(places) => (places.to_vec(), 0),
            };
            let used = || places.iter().map(|place| place.chunk.0);
            let mut bytes: Vec<u8> = used().flat_map(payload).skip(offset).copied().collect();
            for item in enqueued.items {
                let rest = bytes.split_off(bytes.len().min(item.len as usize));
                let body = bytes.get(item.header_len as usize..).unwrap_or_default();
                if let Some(n) = numbers.get(body).filter(|n| !sample.settled.contains(n)) {
                    let of_chunks = used().map(|chunk| chunks[&chunk].clone());
                    let frames = parts.values().cloned().chain(of_chunks).collect();
                    let slots = places.iter().map(|place| place.slot.0).collect();
                    needs.insert(*n, Needs { frames, slots });
                }
                bytes = rest;
            }
        }
    }
    needs
}

// ---- damage ----

/// The kind that may put the head of a chunk where it does not belong.
const MISPLACED: usize = 4;

const PAGE: usize = 4096;
const SEGMENT: usize = 2 << 20;

/// The kinds of damage. The last four are done to any of the other files.
const KINDS: [&str; 12] = [
    "a flipped bit",
    "a zeroed page",
    "zeros over a few sectors",
    "random bytes over a page",
    "a page in another's place",
    "two segments swapped",
    "the end cut off",
    "a bit near the end",
    "a file missing",
    "a file emptied or cut",
    "a file changed",
    "a file of another store, or a folder in its place",
];

/// The kinds that change no more than a page of one file, in its place.
const LOCAL: [usize; 7] = [0, 1, 2, 3, 4, 7, 10];
/// Those of them that change one bit.
const ONE_BIT: [usize; 2] = [0, 7];

/// No frame is longer.
const FRAME_BYTES_MAX: usize = 32 << 10;

/// Slots that a page of the engine holds at most.
const PAGE_SLOT_COUNT_MAX: u32 = 24;

/// Does damage of a kind; gives where.
fn damage(dir: &Path, kind: usize, rng: &mut Rng, other: &Path) -> String {
    if kind >= 8 {
        return damage_file(dir, kind, rng, other);
    }
    let path = dir.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let len = bytes.len();
    let page = |rng: &mut Rng| rng.below(len / PAGE) * PAGE;
    let at = match kind {
        0 => rng.below(len),
        2 => rng.below(len - 2048) / 512 * 512,
        5 => rng.below(len / SEGMENT) * SEGMENT,
        6 => rng.below(len),
        7 => {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            end - rng.below(64 * 1024)
        }
        _ => page(rng),
    };
    match kind {
        0 | 7 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at..at + PAGE].fill(0),
        2 => bytes[at..at + 512 * (1 + rng.below(4))].fill(0),
        3 => bytes[at..at + PAGE].fill_with(|| rng.next() as u8),
        4 => {
            let from = page(rng);
            bytes.copy_within(from..from + PAGE, at);
        }
        5 => {
            let from = rng.below(len / SEGMENT) * SEGMENT;
            let kept = bytes[at..at + SEGMENT].to_vec();
            bytes.copy_within(from..from + SEGMENT, at);
            bytes[from..from + SEGMENT].copy_from_slice(&kept);
        }
        _ => bytes.truncate(at),
    }
    fs::write(&path, bytes).unwrap();
    format!("db at {at} of {len}")
}

fn damage_file(dir: &Path, kind: usize, rng: &mut Rng, other: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| kind == 8 || kind == 11 || dir.join(name).is_file())
        .collect();
    names.sort();
    let name = names[rng.below(names.len())].clone();
    let path = dir.join(&name);
    let remove = |path: &Path| {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    };
    match kind {
        8 => remove(&path),
        9 => {
            let len = fs::metadata(&path).unwrap().len() as usize;
            let kept = if rng.chance(50) { 0 } else { rng.below(len.max(1)) };
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(kept as u64)
                .unwrap();
        }
        10 => {
            let mut bytes = fs::read(&path).unwrap();
            if bytes.is_empty() {
                bytes.push(0);
            }
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
            fs::write(&path, bytes).unwrap();
        }
        _ => {
            remove(&path);
            if rng.chance(50) {
                fs::create_dir(&path).unwrap();
            } else if let Ok(bytes) = fs::read(other.join(&name)) {
                fs::write(&path, bytes).unwrap();
            }
        }
    }
    name
}

// ---- what the program does ----

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = without_settings(Command::new(env!("CARGO_BIN_EXE_steadfast")));
    command.args(args).stdin(Stdio::null());
    command
}

/// What steers the tests, or the tester's own broker, is not for this one.
fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STEADFAST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, which comes in time and by itself, with no more than one line of complaint.
fn run(root: &Path, args: &[&str]) -> Result<Said, String> {
    let path = |end: &str| root.join(format!("said.{end}"));
    let file = |end: &str| fs::File::create(path(end)).unwrap();
    let mut child = command(args)
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .unwrap();
    let status = wait(&mut child)?;
    let read = |end: &str| String::from_utf8_lossy(&fs::read(path(end)).unwrap()).into_owned();
    let (out, err) = (read("out"), read("err"));
    let code = status
        .code()
        .ok_or_else(|| format!("{args:?}: {status}: {err}"))?;
    let complaint = if code == 0 {
        err.is_empty()
    } else {
        err.lines().count() == 1 && err.starts_with("error: ")
    };
    if !complaint || err.contains("panic") && !err.contains("gave up") {
        return Err(format!("{args:?}: exit code {code}: {err}"));
    }
    Ok(Said { code, out, err })
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let end = Instant::now() + TIME_MAX;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err("it came to no end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What `serve` did with a store.
enum Served {
    Refused,
    /// What it delivered, how many it set aside, and whether all was marked as delivered before.
    Ran {
        delivered: BTreeSet<u64>,
        set_aside: u64,
        all_marked: bool,
    },
}

fn serve(sample: &Sample, root: &Path, dir: &Path) -> Result<Served, String> {
    let settings = Settings {
        data_dir: dir.to_owned(),
        start_timeout: TIME_MAX,
        ..settings(root)
    };
    for end in ["out", "err"] {
        fs::remove_file(settings.log.with_extension(end)).ok();
    }
    let log =
        |settings: &Settings| fs::read_to_string(settings.log.with_extension("err")).unwrap_or_default();
    let mut broker = settings.spawn();
    if let Err(error) = broker.wait_ready() {
        let err = log(&settings);
        let code = error.status.and_then(|status| status.code());
        let errors: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        let clear = matches!(code, Some(1 | 4)) && errors.len() == 1 && !panicked(&err);
        return if clear {
            Ok(Served::Refused)
        } else {
            Err(format!("serve: {error}"))
        };
    }
    let expected: u64 = broker
        .output()
        .lines()
        .find_map(|line| line.strip_prefix("recovered ")?.split_once(" queues with "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .ok_or("serve: it does not say what it recovered")?;
    let mut delivered = BTreeSet::new();
    let mut all_marked = true;
    let set_aside = |settings: &Settings| log(settings).matches("message set aside").count() as u64;
    let mut client: Option<Client> = None;
    let end = Instant::now() + TIME_MAX;
    while (delivered.len() as u64) + set_aside(&settings) < expected {
        if Instant::now() > end || !broker.runs() {
            let aside = set_aside(&settings);
            return Err(format!(
                "serve: {} of {expected} delivered, {aside} set aside\n{}",
                delivered.len(),
                broker.log_end()
            ));
        }
        let connected = client.get_or_insert_with(|| {
            let mut client = broker.connect();
            QUEUES.iter().for_each(|queue| subscribe(&mut client, queue));
            client
        });
        match connected.receive(Duration::from_millis(50)) {
            Ok(None) => {}
            Ok(Some(message)) if message.command == "MESSAGE" => {
                all_marked &= message.header("redelivered") == Some("true");
                delivered.insert(check_message(sample, &message)?);
            }
            Ok(Some(frame)) if frame.command == "RECEIPT" => {}
            Ok(Some(frame)) => return Err(format!("serve: {frame:?}")),
            // A long message that cannot be read on ends its connection.
            Err(_) => client = None,
        }
    }
    let set_aside = set_aside(&settings);
    // What is set aside can be dropped, and the rest is whole then.
    let data_dir = ["--data-dir", dir.to_str().unwrap()];
    if set_aside > 0 {
        for queue in QUEUES {
            let purge = ["queue", "purge", queue, "--set-aside", "--yes"];
            run(root, &[&purge[..], &data_dir].concat())?;
        }
    }
    let err = broker.stop();
    if panicked(&err) {
        return Err(format!("serve: {err}"));
    }
    if set_aside > 0 {
        let check = run(root, &[&["inspect", "--check"][..], &data_dir].concat())?;
        if check.code != 0 {
            return Err(format!("serve: it is not whole after the purge: {}", check.out));
        }
    }
    Ok(Served::Ran {
        delivered,
        set_aside,
        all_marked,
    })
}

fn panicked(text: &str) -> bool {
    text.contains("panicked at") || text.contains("RUST_BACKTRACE")
}

/// Which message it is, byte for byte one that was confirmed, in its queue.
fn check_message(sample: &Sample, message: &Frame) -> Result<u64, String> {
    let n = message.header("n").and_then(|n| n.parse().ok());
    let n: u64 = n.ok_or_else(|| format!("a message without its number: {:?}", message.headers))?;
    let (queue, body) = sample
        .sent
        .get(&n)
        .ok_or_else(|| format!("message {n} was never sent"))?;
    if message.header("destination") != Some(&format!("/queue/{queue}")) || message.body != *body {
        return Err(format!("message {n} is not what was sent"));
    }
    Ok(n)
}

/// What `repair` saved of a store.
struct Repaired {
    /// None where nothing could be read.
    saved: Option<BTreeSet<u64>>,
    gone: usize,
    /// Facts of the index are gone: what was settled may be back, what was sent may be missing.
    damage: bool,
    perhaps_settled: u64,
}

fn repair(sample: &Sample, root: &Path, dir: &Path) -> Result<Repaired, String> {
    let before = digest(dir);
    let to = root.join("new");
    let args = ["repair", "--json", "--data-dir"];
    let said = run(
        root,
        &[&args[..], &[dir.to_str().unwrap(), "--to", to.to_str().unwrap()]].concat(),
    )?;
    if digest(dir) != before {
        return Err("repair: it changed the folder".to_owned());
    }
    let is = |line: &str, kind: &str| line.contains(&format!("\"kind\":\"{kind}\""));
    let count = |kind: &str| said.out.lines().filter(|line| is(line, kind)).count();
    let (gone, damage) = (count("gone"), count("damage") > 0);
    let perhaps_settled = said
        .out
        .lines()
        .filter_map(|line| line.split_once("\"perhaps_settled\":"))
        .filter_map(|(_, rest)| rest.trim_end_matches('}').parse::<u64>().ok())
        .sum();
    if !to.exists() {
        return if matches!(said.code, 2 | 4) && count("repaired") == 0 {
            Ok(Repaired {
                saved: None,
                gone,
                damage,
                perhaps_settled,
            })
        } else {
            Err(format!(
                "repair: exit code {} and no store: {}",
                said.code, said.err
            ))
        };
    }
    if said.code != if gone > 0 || damage { 4 } else { 0 } {
        return Err(format!("repair: exit code {} with {}", said.code, said.out));
    }
    let check = run(
        root,
        &["inspect", "--check", "--json", "--data-dir", to.to_str().unwrap()],
    )?;
    if check.code != 0 {
        return Err(format!(
            "repair: the new store is faulty: {} {}",
            check.out, check.err
        ));
    }
    match serve(sample, root, &to)? {
        Served::Ran {
            delivered,
            set_aside: 0,
            all_marked: true,
        } => Ok(Repaired {
            saved: Some(delivered),
            gone,
            damage,
            perhaps_settled,
        }),
        Served::Refused => Err("repair: the new store does not serve".to_owned()),
        Served::Ran {
            set_aside,
            all_marked,
            ..
        } => Err(format!(
            "repair: the new store sets {set_aside} messages aside, or hides that they were delivered ({all_marked})"
        )),
    }
}

/// The contents of the files of a folder, but for the lock.
fn digest(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn collect(dir: &Path, into: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "lock") {
                continue;
            }
            if path.is_dir() {
                collect(&path, into)?;
                into.insert(path, None);
            } else {
                into.insert(path.clone(), Some(fs::read(path)?));
            }
        }
        Ok(())
    }
    let mut files = BTreeMap::new();
    collect(dir, &mut files).unwrap();
    files
}

/// What came of one damage.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    refused: bool,
    set_aside: u64,
    saved: usize,
    lost: usize,
    /// Messages there are to save, and those of them of which all that is needed is whole.
    live: usize,
    intact: usize,
    back: usize,
    perhaps_settled: u64,
    unsaved: bool,
    exact: bool,
}

fn round(sample: &Sample, other: &Path, kind: usize, seed: u64) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed * 100 + kind as u64);
    let (root, dir) = sample.copy();
    let place = damage(&dir, kind, &mut rng, other);
    let told = |what: String| format!("{}, {place} (seed {seed}, kind {kind}): {what}", KINDS[kind]);
    let live = sample.live();
    let (intact, not_hit) = sample.intact(&dir, kind);
    let data_dir = dir.to_str().unwrap();
    // A repair must save as much whether a start or a look came before it or not.
    let untouched = root.path().join("untouched");
    copy_folder(&dir, &untouched);
    let inspected = run(
        root.path(),
        &["inspect", "--check", "--json", "--data-dir", data_dir],
    )
    .map_err(told)?;
    if !matches!(inspected.code, 0 | 2 | 4) {
        return Err(told(format!(
            "inspect: exit code {}: {}",
            inspected.code, inspected.err
        )));
    }
    let served = serve(sample, root.path(), &dir).map_err(told)?;
    let mut outcome = Outcome {
        live: live.len(),
        intact: intact.len(),
        ..Outcome::default()
    };
    match &served {
        Served::Refused => outcome.refused = true,
        Served::Ran {
            delivered, set_aside, ..
        } => {
            outcome.set_aside = *set_aside;
            if let Some(n) = delivered.iter().find(|n| sample.settled.contains(n)) {
                return Err(told(format!("serve: message {n} was settled and is back")));
            }
            let empty = delivered.is_empty() && *set_aside == 0;
            // A folder without `db` and `format` is an empty one, and no damage to a file makes one.
            if (delivered.len() as u64) + set_aside != live.len() as u64 || empty {
                return Err(told(format!(
                    "serve: {} delivered and {set_aside} set aside, of {}",
                    delivered.len(),
                    live.len()
                )));
            }
            // The engine checks its own pages, which hold a few slots each and lie in the file in pieces: a bit is of one of
            // them, or of the head of one; 4 KiB may be of several, since a piece with empty slots is short.
            let not_hit: Vec<u64> = not_hit.difference(delivered).copied().collect();
            let pages = sample.page_count(not_hit.iter().copied());
            let pages_max = if ONE_BIT.contains(&kind) { 2 } else { 8 };
            if LOCAL.contains(&kind) && pages > pages_max {
                return Err(told(format!(
                    "serve: messages that were not hit are set aside, of {pages} pages: {not_hit:?}"
                )));
            }
            if (inspected.code == 0) != (*set_aside == 0) {
                return Err(told(format!(
                    "inspect: exit code {}, and {set_aside} cannot be delivered",
                    inspected.code
                )));
            }
        }
    }
    let repaired = repair(sample, root.path(), &untouched).map_err(told)?;
    fs::remove_dir_all(root.path().join("new")).ok();
    if outcome.refused {
        let again = repair(sample, root.path(), &dir).map_err(told)?;
        if again.saved != repaired.saved {
            let count = |of: &Repaired| of.saved.as_ref().map(BTreeSet::len);
            return Err(told(format!(
                "what was refused was changed: a repair saves {:?} messages, and {:?} before",
                count(&again),
                count(&repaired)
            )));
        }
    }
    let Some(saved) = repaired.saved else {
        outcome.unsaved = true;
        outcome.lost = live.len();
        // A bit more or less may make the format that of a newer version, whose store is left alone.
        let is_newer = kind == 10 && place == "format";
        return if intact.is_empty() || is_newer {
            Ok(outcome)
        } else {
            Err(told(format!(
                "repair: {} messages are intact, and none saved",
                intact.len()
            )))
        };
    };
    let unsaved = intact.difference(&saved);
    if unsaved.clone().next().is_some() {
        return Err(told(format!(
            "repair: {} messages are intact and not saved, of {}: {:?}",
            unsaved.clone().count(),
            intact.len(),
            unsaved.take(10).collect::<Vec<_>>()
        )));
    }
    outcome.saved = saved.len();
    outcome.lost = live.difference(&saved).count();
    outcome.back = saved.intersection(&sample.settled).count();
    outcome.perhaps_settled = repaired.perhaps_settled;
    outcome.exact = repaired.gone == 0 && !repaired.damage;
    // Where the index is gone nothing names what it held.
    let silent = !repaired.damage && outcome.lost > repaired.gone;
    if silent || outcome.back as u64 > repaired.perhaps_settled {
        return Err(told(format!(
            "repair: {} lost and {} named, {} settled ones back and {} told",
            outcome.lost, repaired.gone, outcome.back, repaired.perhaps_settled
        )));
    }
    Ok(outcome)
}

#[test]
fn damage_is_told_and_what_is_whole_is_saved() {
    let count = env_number("STEADFAST_TEST_DAMAGES", 2);
    let first = env_number("STEADFAST_TEST_SEED", 1);
    let only = std::env::var("STEADFAST_TEST_KIND").ok();
    let samples = [Sample::make(1, false), Sample::make(2, true)];
    let other = Sample::make(3, false);
    let rounds: Vec<(usize, u64)> = (first..first + count)
        .flat_map(|seed| (0..KINDS.len()).map(move |kind| (kind, seed)))
        .filter(|(kind, _)| only.as_ref().is_none_or(|only| *only == kind.to_string()))
        .collect();
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Result<Outcome, String>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&(kind, seed)) = rounds.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let sample = &samples[seed as usize % 2];
                    let outcome = round(sample, &other.folder(), kind, seed);
                    if let Err(fault) = &outcome {
                        println!("{fault}");
                    }
                    outcomes.lock().unwrap().push((kind, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let mut faults = Vec::new();
    for (kind, name) in KINDS.iter().enumerate() {
        let of_kind = || outcomes.iter().filter(move |(of, _)| *of == kind);
        let good: Vec<Outcome> = of_kind()
            .filter_map(|(_, outcome)| outcome.as_ref().ok().copied())
            .collect();
        faults.extend(of_kind().filter_map(|(_, outcome)| outcome.as_ref().err().cloned()));
        let sum = |of: fn(&Outcome) -> usize| good.iter().map(of).sum::<usize>();
        println!(
            "{name}: {} damages, {} refused, {} unsaved, {} whole; messages set aside {}, saved {} of {} with {} intact, lost {}, back {} of {} told",
            of_kind().count(),
            sum(|of| usize::from(of.refused)),
            sum(|of| usize::from(of.unsaved)),
            sum(|of| usize::from(of.exact)),
            sum(|of| of.set_aside as usize),
            sum(|of| of.saved),
            sum(|of| of.live),
            sum(|of| of.intact),
            sum(|of| of.lost),
            sum(|of| of.back),
            sum(|of| of.perhaps_settled as usize)
        );
        // So nearly all is intact, and saved.
        let (saved, live) = (sum(|of| of.saved), sum(|of| of.live));
        if LOCAL.contains(&kind) && saved * 4 < live * 3 {
            faults.push(format!("{name}: {saved} messages saved of {live}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    let refused = outcomes
        .iter()
        .flat_map(|(_, outcome)| outcome)
        .filter(|of| of.refused);
    assert!(
        refused.count() > 0,
        "the damages did no harm: the test shows nothing"
    );
}

// ---- what else stands in the way ----

/// A file system in memory. Dropping it unmounts.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        mount.set(&["-t", "tmpfs", "-o", options, "tmpfs"]);
        mount
    }

    fn set(&self, args: &[&str]) {
        let status = Command::new("mount")
            .args(args)
            .arg(self.0.path())
            .status()
            .unwrap();
        assert!(status.success(), "cannot mount: this test needs root");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status()
            .unwrap();
    }
}

/// The one line with which `serve` refuses a folder.
fn refusal(mut serve: Command, dir: &Path, code: i32) -> String {
    let output = serve
        .args(["--data-dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && !panicked(&text), "{text}");
    errors[0].to_owned()
}

fn check_line(line: &str, expect: &[&str]) {
    let missing: Vec<_> = expect.iter().filter(|part| !line.contains(**part)).collect();
    assert!(missing.is_empty(), "{line}\ndoes not say {missing:?}");
}

#[test]
fn each_obstacle_is_one_clear_line() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path());
    settings.start().stop();
    let copy = |name: &str| {
        let dir = root.path().join(name);
        copy_folder(&settings.data_dir, &dir);
        dir
    };
    for name in ["lock", "format", "db", "conf", "durable"] {
        let dir = copy(&format!("with folder {name}"));
        fs::remove_file(dir.join(name)).unwrap();
        fs::create_dir(dir.join(name)).unwrap();
        let line = refusal(command(&["serve"]), &dir, 4);
        check_line(
            &line,
            &[
                "Is a directory",
                "a folder is where a file should be",
                "steadfast repair",
            ],
        );
    }
    for (name, expect) in [("format", "`format` is missing"), ("db", "`db` is missing")] {
        let dir = copy(&format!("without {name}"));
        fs::remove_file(dir.join(name)).unwrap();
        check_line(
            &refusal(command(&["serve"]), &dir, 4),
            &[expect, "steadfast repair"],
        );
    }
    let dir = copy("newer");
    let format = fs::read_to_string(dir.join("format")).unwrap();
    let newer = format.replace("format 4", "format 5");
    assert_ne!(format, newer);
    fs::write(dir.join("format"), newer).unwrap();
    let line = refusal(command(&["serve"]), &dir, 4);
    check_line(
        &line,
        &[
            "the store has format 5; this version reads up to 4",
            "use the version that wrote",
        ],
    );

    let few = |count: u32| {
        let mut serve = without_settings(Command::new("sh"));
        let script = format!("ulimit -n {count}; exec \"$0\" serve \"$@\"");
        serve.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_steadfast"));
        serve
    };
    for count in [10, 64] {
        let line = refusal(few(count), &settings.data_dir, 1);
        check_line(&line, &["limit on open files", "needs 65", "ulimit -n"]);
    }

    let full = Mount::new("nr_inodes=2");
    let line = refusal(command(&["serve"]), &full.path().join("data"), 4);
    check_line(&line, &["No space left on device", "df -i"]);

    let read_only = Mount::new("size=64m");
    let dir = read_only.path().join("data");
    copy_folder(&settings.data_dir, &dir);
    read_only.set(&["-o", "remount,ro"]);
    check_line(
        &refusal(command(&["serve"]), &dir, 4),
        &["lock", "the file system is read-only"],
    );
    // What can only be read can be saved from.
    let to = root.path().join("saved");
    let said = run(
        root.path(),
        &[
            "repair",
            "--data-dir",
            dir.to_str().unwrap(),
            "--to",
            to.to_str().unwrap(),
        ],
    );
    assert_eq!(said.unwrap().code, 0);
    let taken = run(
        root.path(),
        &[
            "repair",
            "--data-dir",
            dir.to_str().unwrap(),
            "--to",
            to.to_str().unwrap(),
        ],
    );
    let taken = taken.unwrap();
    assert_eq!(taken.code, 2);
    check_line(&taken.err, &["is there already"]);
}
