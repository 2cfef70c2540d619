//! A store in which some messages cannot be read: what the commands say and what an operator can still save.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::backup::{World, command, drain, refusal, refused, run_well, send};

const MESSAGE_COUNT: usize = 300;

fn body(number: usize) -> String {
    format!("message number {number:06}")
}

/// A stopped broker's store of small messages, of which a bit was changed in the middle of one body.
fn damaged(world: &World) {
    let broker = world.settings.start();
    let mut client = broker.connect();
    for number in 0..MESSAGE_COUNT {
        send(&mut client, "a", &[], body(number).as_bytes());
    }
    for _ in 0..8 {
        send(&mut client, "behind", &[], &[b'x'; 1 << 20]);
    }
    broker.stop();
    // What lies in segments before the engine's snapshot, which a start makes, is read only when it is asked for.
    run_well(&["inspect", "--data-dir"], &[world.data()]);
    let path = world.data().join("db");
    let mut bytes = fs::read(&path).unwrap();
    let wanted = body(MESSAGE_COUNT / 2).into_bytes();
    let places: Vec<usize> = (0..bytes.len() - wanted.len())
        .filter(|&at| bytes[at..].starts_with(&wanted))
        .collect();
    assert!(!places.is_empty());
    // The file keeps what was replaced for a while; which of them counts is not to be seen here.
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
}

/// Standard output of a command that finds damage, as JSON, line by line.
fn told(args: &[&str], paths: &[&Path]) -> Vec<Value> {
    let output = command(args, paths).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let lines = output.stdout.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn sequences<'a>(lines: impl Iterator<Item = &'a Value>) -> BTreeSet<u64> {
    lines.map(|line| line["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn inspect_says_which_messages_repair_saves() {
    let world = World::new();
    damaged(&world);
    let seen = told(&["inspect", "--check", "--json", "--data-dir"], &[world.data()]);
    let faults: Vec<&Value> = seen.iter().filter(|line| line["kind"] == "fault").collect();
    assert!(
        faults.iter().all(|fault| {
            let what = fault["what"].as_str().unwrap();
            what.contains("the engine finds damage at byte") && !what.contains("backtrace")
        }),
        "{faults:?}"
    );
    let of = |saves: bool| {
        faults
            .iter()
            .copied()
            .filter(move |line| line["repair_saves"] == saves)
    };
    // A broker loses what lies beside the message, too.
    assert!(of(true).count() > 1, "{faults:?}");
    let check = seen.last().unwrap();
    assert_eq!(
        (&check["faults"], &check["repair_saves"]),
        (&faults.len().into(), &of(true).count().into())
    );

    let new = world.path("new");
    let to = [world.data(), Path::new("--to"), &new];
    let repaired = told(&["repair", "--json", "--data-dir"], &to);
    let gone = sequences(repaired.iter().filter(|line| line["kind"] == "gone"));
    assert_eq!(gone.len(), 1);
    assert_eq!(sequences(of(false)), gone);

    let output = command(&["inspect", "--check", "--data-dir"], &[world.data()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("a broker cannot read it, and a repair saves it"),
        "{text}"
    );
    assert!(text.contains("; it is gone\n"), "{text}");
}

#[test]
fn nothing_is_written_into_the_folder_that_is_read() {
    let world = World::new();
    world.settings.start().stop();
    let data = world.data();
    let list = || {
        let mut names: Vec<_> = fs::read_dir(data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = list();
    let link = world.path("link");
    std::os::unix::fs::symlink(data, &link).unwrap();
    for to in [
        data.join("below"),
        data.join("not/there/yet"),
        link.join("below"),
        data.join("../data/below"),
    ] {
        for command in ["repair", "backup"] {
            let said = refused(&[command, "--data-dir"], &[data, Path::new("--to"), &to], 2);
            assert!(said.contains("lies in the data folder"), "{said}");
        }
    }
    refused(&["backup", "--data-dir"], &[data, Path::new("--to"), data], 2);
    assert_eq!(list(), before);
    let beside = world.path("data-2");
    run_well(&["repair", "--data-dir"], &[data, Path::new("--to"), &beside]);
}

/// A small file system in memory. Dropping it unmounts.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path());
        assert!(
            mount.status().unwrap().success(),
            "cannot mount: this test needs root"
        );
        Self(dir)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_repair_without_room_leaves_nothing() {
    let world = World::new();
    damaged(&world);
    let data = ["repair", "--data-dir", world.data().to_str().unwrap(), "--to"];
    // Too few bytes; bytes enough, and too few files.
    for (options, why) in [
        ("size=24m", "are free"),
        ("size=256m,nr_inodes=5", "No space left on device"),
    ] {
        let mount = Mount::new(options);
        let to = mount.0.path().join("new");
        for _ in 0..2 {
            let output = command(&data, &[&to]).output().unwrap();
            let said = refusal(&output, 4);
            assert!(said.contains(why) && said.contains("make room there"), "{said}");
            assert!(!said.contains("Os {"), "{said}");
        }
        assert_eq!(fs::read_dir(mount.0.path()).unwrap().count(), 0);
    }
    // One that was killed is told for what it is.
    let unfinished = world.path("new.unfinished");
    fs::create_dir(&unfinished).unwrap();
    let said = refused(&data, &[&world.path("new")], 2);
    assert!(
        said.contains("new.unfinished") && said.contains("remove it and repair again"),
        "{said}"
    );
}

#[test]
fn a_backup_that_meets_an_unreadable_message_says_where_to_look() {
    let world = World::new();
    damaged(&world);
    let broker = world.settings.start();
    let to = world.path("a.backup");
    let backup = ["backup", "--to", to.to_str().unwrap(), "--data-dir"];
    let said = refused(&backup, &[world.data()], 1);
    for part in [
        "the broker's log",
        "`backup given up`",
        "`steadfast queues`",
        "docs/backup.md",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let log = fs::read_to_string(world.settings.log.with_extension("err")).unwrap();
    assert!(
        log.contains("backup given up") && log.contains("the store is damaged"),
        "{log}"
    );

    // As the page says: drop what is set aside, or repair.
    let read_count = drain(&broker, "a").len();
    assert!(read_count < MESSAGE_COUNT - 1);
    run_well(
        &["queue", "purge", "a", "--set-aside", "--yes", "--data-dir"],
        &[world.data()],
    );
    run_well(&backup, &[world.data()]);
    let said = refused(&backup, &[world.data()], 1);
    assert!(
        said.contains("nothing is overwritten: choose another name"),
        "{said}"
    );
    broker.stop();
}

#[test]
fn a_repaired_store_is_backed_up() {
    let world = World::new();
    damaged(&world);
    let new = world.other("new");
    told(
        &["repair", "--json", "--data-dir"],
        &[world.data(), Path::new("--to"), &new.data_dir],
    );
    let broker = new.start();
    let to = world.path("a.backup");
    run_well(
        &["backup", "--to"],
        &[&to, Path::new("--data-dir"), &new.data_dir],
    );
    let said = run_well(&["restore", "--check"], &[&to]);
    assert!(said.starts_with("307 messages in 2 queues"), "{said}");

    let small = Mount::new("size=1m");
    let said = refused(
        &["backup", "--to"],
        &[small.0.path(), Path::new("--data-dir"), &new.data_dir],
        1,
    );
    assert!(said.contains("make room there"), "{said}");
    assert_eq!(fs::read_dir(small.0.path()).unwrap().count(), 0);
    broker.stop();
}
