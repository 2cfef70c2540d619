//! The commands for a running broker, against the real one, in pipes and on terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use super::rig::{Broker, Client, Settings};

/// A broker, and commands for it.
struct World {
    broker: Broker,
    settings: Settings,
    _dir: tempfile::TempDir,
}

/// Names that break what handles them without care.
const ODD: &[&str] = &[
    "with space",
    "a/b//c/",
    "..",
    "'single' \"double\" `back` $x \\n",
    "-x",
    "%2F?a=b&c#d+e",
    "\t\n\r\u{1b}[31mred\u{7f}\u{9b}",
    "ünïcode 日本 \u{202e}reversed",
];

impl World {
    /// Where the first failure makes a dead letter.
    fn new() -> Self {
        Self::with("")
    }

    /// With further limits.
    fn with(limits: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::in_dir(dir.path());
        settings.config = format!("[limits]\ndeliveries_failed_max = 1\n{limits}");
        Self {
            broker: settings.start(),
            settings,
            _dir: dir,
        }
    }

    fn client(&self) -> Client {
        self.broker.connect()
    }

    fn send(&self, queue: &str, bodies: &[&str]) {
        let mut client = self.client();
        for body in bodies {
            let headers = [("destination", queue), ("kind", body)];
            client.request("SEND", &headers, body.as_bytes()).unwrap();
        }
    }

    /// A client that holds the first message of a queue.
    fn holder(&self, queue: &str) -> (Client, String) {
        let mut client = self.client();
        let headers = [
            ("destination", queue),
            ("id", "1"),
            ("ack", "client-individual"),
            ("prefetch-count", "1"),
        ];
        client.request("SUBSCRIBE", &headers, b"").unwrap();
        let ack = client.expect().unwrap().header("ack").unwrap().to_owned();
        (client, ack)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command
            .env_clear()
            .args(args)
            .arg("--data-dir")
            .arg(&self.settings.data_dir)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that ends well prints.
    fn said(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that fails says.
    fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(code), Vec::new()),
            "{args:?}: {text}"
        );
        text
    }

    fn json(&self, args: &[&str]) -> Vec<Value> {
        self.said(&[args, &["--json"]].concat())
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn depth(&self, queue: &str) -> u64 {
        let queues = self.json(&["queues"]);
        let found = queues.iter().find(|line| line["name"] == queue);
        found.map_or(0, |queue| queue["depth"].as_u64().unwrap())
    }

    /// Runs on a terminal, with something typed; gives the exit code and all that the terminal was sent.
    fn on_terminal(&self, columns: u16, args: &[&str], typed: &[u8]) -> (Option<i32>, String) {
        let (mut master, slave) = terminal(columns, 24);
        let mut child = self
            .command(args)
            .env("TERM", "xterm")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        master.write_all(typed).unwrap();
        let shown = read_terminal(&mut master);
        (child.wait().unwrap().code(), shown)
    }
}

pub(crate) fn terminal(columns: u16, rows: u16) -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (master.into(), slave)
}

/// Everything until nobody has the terminal open any more.
fn read_terminal(master: &mut File) -> String {
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    // The end of a terminal is an error on its other side.
    while let Ok(count) = master.read(&mut chunk) {
        shown.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(shown).unwrap()
}

/// Without colours.
fn plain(shown: &str) -> String {
    shown
        .replace("\u{1b}[1m", "")
        .replace("\u{1b}[33m", "")
        .replace("\u{1b}[0m", "")
}

#[test]
fn no_broker_is_said_and_inspect_is_named() {
    let world = World::new();
    let data_dir = world.settings.data_dir.display().to_string();
    let World {
        broker,
        settings,
        _dir,
        ..
    } = world;
    broker.kill();
    let commands: &[&[&str]] = &[
        &["status"],
        &["queues"],
        &["queue", "show", "a"],
        &["queue", "purge", "a", "--yes"],
        &["peek", "a"],
        &["connections"],
        &["dlq"],
        &["top"],
    ];
    for folder in [data_dir.as_str(), "/nowhere/at/all"] {
        for args in commands {
            let output = Command::new(env!("CARGO_BIN_EXE_steadfast"))
                .args(*args)
                .args(["--data-dir", folder])
                .env_clear()
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(
                String::from_utf8(output.stderr).unwrap(),
                format!(
                    "error: no broker runs in {folder}; name its folder with --data-dir, start it (`steadfast \
                     serve`), or look into a stopped one with `steadfast inspect --data-dir {folder}`\n"
                )
            );
        }
    }
    drop(settings);
}

#[test]
fn the_broker_and_its_queues_are_shown() {
    let world = World::new();
    assert_eq!(
        world.said(&["queues"]),
        "no queue has messages or subscriptions\n"
    );
    assert_eq!(world.said(&["dlq"]), "no dead letters\n");
    world.send("/queue/a", &["1"]);
    world.send("/queue/b", &["1", "2", "3"]);
    let (_holder, _) = world.holder("/queue/b");

    let table = world.said(&["queues"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "QUEUE", "FLAGS", "DEPTH", "READY", "HELD", "SUBS", "OLDEST", "BYTES", "IN", "OUT", "FAILED",
            "DEAD"
        ]
        .into_iter()
        .filter(|name| *name != "FLAGS")
        .collect::<Vec<_>>()
    );
    assert_eq!(lines[1][..5], ["a", "1", "1", "0", "0"]);
    assert_eq!(lines[2][..5], ["b", "3", "2", "1", "1"]);
    assert_eq!(lines.len(), 3);
    let names = |args: &[&str]| -> Vec<String> {
        let lines = world.json(args);
        lines
            .iter()
            .map(|line| line["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&["queues", "--sort", "depth"]), ["b", "a"]);
    assert_eq!(names(&["queues", "--sort", "age"]), ["a", "b"]);
    assert_eq!(names(&["queues", "--limit", "1"]), ["a"]);
    assert_eq!(names(&["queues", "--prefix", "b"]), ["b"]);

    let shown = world.said(&["queue", "show", "b"]);
    assert!(shown.contains("2 ready, 1 held by clients"), "{shown}");
    assert!(shown.contains("client-individual"), "{shown}");
    let detail = world.json(&["queue", "show", "/queue/b"]);
    assert_eq!(detail[0]["subscriptions"][0]["held_count"], 1);
    assert!(
        world
            .refused(&["queue", "show", "none"], 1)
            .contains("(queue-unknown)")
    );
    assert_eq!(
        world.refused(&["queue", "show", "/topic/a"], 2),
        "error: '/topic/a' is not the name of a queue; write NAME or /queue/NAME\n"
    );

    let status = world.said(&["status"]);
    assert!(status.contains("2 with 4 messages"), "{status}");
    assert_eq!(world.json(&["status"])[0]["status"]["message_count"], 4);

    let connections = world.json(&["connections"]);
    assert_eq!(
        connections.len(),
        1,
        "those of `send` are closed: {connections:?}"
    );
    let session = connections[0]["session"].to_string();
    assert!(world.said(&["connections"]).contains("1.2"));
    assert!(
        world
            .said(&["connections", "--show", &session])
            .contains("/queue/b")
    );
    let end = ["connections", "--disconnect", &session];
    let ended = format!("ended session {session}, which held 1 message\n");
    assert_eq!(
        world.said(&[&end[..], &["--dry-run"]].concat()),
        format!("would have {ended}")
    );
    assert_eq!(world.said(&end), ended);
    assert!(world.refused(&end, 1).contains("(session-unknown)"));
}

#[test]
fn flags_say_what_a_queue_is() {
    let world = World::new();
    world.send("/queue/plain", &["1"]);
    let mut client = world.client();
    let durable = [
        ("id", "kept"),
        ("destination", "/topic/odd\u{1b}[31m.*"),
        ("persistent", "true"),
    ];
    client.request("SUBSCRIBE", &durable, b"").unwrap();
    let temporary = [("id", "1"), ("destination", "/temp-queue/answers")];
    client.request("SUBSCRIBE", &temporary, b"").unwrap();
    let session = world.json(&["connections"])[0]["session"].to_string();
    let queues = world.json(&["queues", "--prefix", "TEMP."]);
    let temporary = queues[0]["name"].as_str().unwrap();
    // What a client has named does not steer the terminal.
    let keeps = "keeps /topic/odd\\u{1b}[31m.*";
    let of = format!("of session {session}");
    let table = world.said(&["queues"]);
    let cells: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()))
        .map(|cells| cells.take(3).collect())
        .collect();
    assert_eq!(
        cells,
        [
            ["QUEUE", "FLAGS", "DEPTH"],
            ["DSUB.kept", keeps, "0"],
            [temporary, &of, "0"],
            // No flag: its depth and what of it is ready.
            ["plain", "1", "1"],
        ],
        "{table}"
    );
    world.said(&["queue", "pause", "DSUB.kept"]);
    for (queue, flags) in [("DSUB.kept", format!("{keeps}, paused")), (temporary, of)] {
        let shown = world.said(&["queue", "show", queue]);
        let line = shown.lines().find_map(|line| line.strip_prefix("flags "));
        assert_eq!(line.map(str::trim), Some(flags.as_str()), "{shown}");
    }
}

#[test]
fn messages_are_looked_at() {
    let world = World::new();
    world.send("/queue/a", &["one", "two\nlines\u{1b}[31m", "three"]);
    let mut client = world.client();
    client
        .request("SEND", &[("destination", "/queue/a")], b"\xff\0")
        .unwrap();
    let text = world.said(&["peek", "a", "--count", "2"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("message-id:") && lines[0].ends_with("failures 0"),
        "{text}"
    );
    assert!(
        lines.contains(&"    kind:one") && lines.contains(&"    | one"),
        "{text}"
    );
    assert!(lines.contains(&"    | lines\\u{1b}[31m"), "{text}");
    let (more, next) = lines.last().unwrap().rsplit_once(' ').unwrap();
    assert_eq!(more, "more: --from");
    let rest = world.json(&["peek", "a", "--from", next]);
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[0]["body"]["data"], "three");
    assert_eq!(rest[1]["body"]["data"], "/wA=");
    let found = world.json(&["peek", "/queue/a", "--header", "kind:one"]);
    assert_eq!(
        (found.len(), &found[0]["sequence"]),
        (1, &world.json(&["peek", "a"])[0]["sequence"])
    );
    assert_eq!(
        world.said(&["peek", "a", "--header", "kind:four"]),
        "queue a has no such message\n"
    );
    let body = "x".repeat(1000);
    world.send("/queue/long", &[&body]);
    assert!(world.said(&["peek", "long"]).contains("\n    ...\n"));
    assert!(
        world
            .said(&["peek", "long", "--body"])
            .contains(&format!("    | {body}\n"))
    );
    assert_eq!(
        (world.depth("a"), world.depth("long")),
        (4, 1),
        "looking takes nothing"
    );
}

#[test]
fn acts_say_what_they_did() {
    let world = World::new();
    world.send("/queue/a", &["x", "y", "x"]);
    assert_eq!(world.said(&["queue", "pause", "a"]), "paused queue a\n");
    assert_eq!(
        world.said(&["queue", "pause", "a"]),
        "queue a is paused already\n"
    );
    assert!(world.said(&["queues"]).contains("paused"));
    assert_eq!(world.said(&["queue", "resume", "a"]), "resumed queue a\n");
    assert_eq!(world.said(&["queue", "resume", "a"]), "queue a is not paused\n");

    let said = world.said(&[
        "queue",
        "copy",
        "a",
        "--to",
        "b",
        "--header",
        "kind:x",
        "--dry-run",
    ]);
    assert!(said.starts_with("would have copied 2 messages ("), "{said}");
    assert_eq!(world.depth("b"), 0);
    let said = world.said(&["queue", "copy", "a", "--to", "b", "--header", "kind:x"]);
    assert!(
        said.starts_with("copied 2 messages (") && said.ends_with(" from queue a to queue b\n"),
        "{said}"
    );
    assert_eq!((world.depth("a"), world.depth("b")), (3, 2));
    let said = world.said(&["queue", "move", "a", "--to", "/queue/b", "--limit", "1"]);
    assert!(said.starts_with("moved 1 message ("), "{said}");
    assert_eq!((world.depth("a"), world.depth("b")), (2, 3));

    let (mut holder, ack) = world.holder("/queue/a");
    let said = world.said(&["queue", "move", "a", "--to", "b"]);
    assert!(said.ends_with(", 1 held by clients stayed\n"), "{said}");
    holder.request("NACK", &[("id", &ack)], b"").unwrap();
    assert!(world.said(&["dlq"]).contains("DLQ.a"));
    let said = world.said(&["queue", "requeue", "DLQ.a"]);
    assert!(said.starts_with("requeued 1 message ("), "{said}");

    let refused = world.refused(&["queue", "purge", "b"], 2);
    assert_eq!(
        refused,
        "error: this drops messages for good: confirm it with --yes (--dry-run says what would be dropped)\n"
    );
    assert_eq!(world.depth("b"), 4);
    let said = world.said(&["queue", "purge", "b", "--dry-run"]);
    assert!(said.starts_with("would have purged 4 messages ("), "{said}");
    let acted = world.json(&[
        "queue", "purge", "b", "--yes", "--header", "kind:x", "--limit", "1",
    ]);
    assert_eq!(acted[0]["count"], 1);
    let said = world.said(&["queue", "purge", "b", "--yes"]);
    assert!(
        said.starts_with("purged 3 messages (") && said.ends_with(" of queue b\n"),
        "{said}"
    );

    assert!(
        world
            .refused(&["queue", "delete", "a", "--yes"], 1)
            .contains("(queue-in-use)")
    );
    let said = world.said(&["queue", "delete", "a", "--yes", "--force"]);
    assert!(said.starts_with("deleted queue a with 1 message ("), "{said}");
    assert_eq!(world.depth("a"), 0);
    assert_eq!(
        world
            .refused(&["queue", "delete", "c"], 1)
            .matches("(queue-unknown)")
            .count(),
        1
    );
}

#[test]
fn an_act_of_many_steps_is_done_whole() {
    let world = World::with("admin_act_count_max = 2\n");
    let bodies: Vec<&str> = ["x", "y"].into_iter().cycle().take(15).collect();
    world.send("/queue/a", &bodies);
    let count = |args: &[&str]| world.json(args)[0]["count"].clone();
    assert_eq!(count(&["queue", "copy", "a", "--to", "b", "--dry-run"]), 15);
    assert_eq!(
        count(&["queue", "copy", "a", "--to", "b", "--header", "kind:x"]),
        8
    );
    assert_eq!(count(&["queue", "move", "b", "--to", "a", "--limit", "5"]), 5);
    assert_eq!(count(&["queue", "purge", "a", "--header", "kind:y", "--yes"]), 7);
    assert_eq!((world.depth("a"), world.depth("b")), (13, 3));
    assert_eq!(count(&["queue", "copy", "a", "--to", "b", "--limit", "5"]), 5);
    assert_eq!(count(&["queue", "purge", "b", "--limit", "3", "--yes"]), 3);
    assert_eq!(count(&["queue", "purge", "b", "--yes"]), 5);
    let refused = world.refused(&["queue", "move", "a", "--to", "/queue/a"], 1);
    assert_eq!(
        refused,
        "error: the messages are in that queue already (same-queue)\n"
    );
}

/// What a client gets for a SEND: a RECEIPT, or the code of an ERROR.
fn sent(world: &World, queue: &str) -> String {
    let mut client = world.client();
    let headers = [("destination", queue), ("receipt", "1")];
    client.send("SEND", &headers, b"x").unwrap();
    let frame = client.expect().unwrap();
    frame.header("code").unwrap_or(&frame.command).to_owned()
}

#[test]
fn policies_are_stated_shown_and_taken_back() {
    let mut world = World::new();
    assert_eq!(
        world.said(&["policy", "list"]),
        "no policies: the defaults hold for every queue\n"
    );
    let set = [
        "policy",
        "set",
        "jobs.>",
        "message_count_max=1",
        "overflow=refuse",
    ];
    let dry: Vec<&str> = set.iter().copied().chain(["--dry-run"]).collect();
    assert_eq!(
        world.said(&dry),
        "would change what holds for 0 queues there are now\n"
    );
    assert_eq!(
        world.said(&["policy", "list"]),
        "no policies: the defaults hold for every queue\n"
    );
    assert_eq!(sent(&world, "/queue/jobs.a"), "RECEIPT");
    assert_eq!(
        world.said(&set),
        "changed what holds for 1 queue there are now, and for those to come\n"
    );
    let logged = world.broker.log_end();
    assert!(
        logged.contains("act=\"policy set\"") && logged.contains("message_count_max=1 overflow="),
        "{logged}"
    );
    assert_eq!(sent(&world, "/queue/jobs.a"), "queue-full");
    assert_eq!(sent(&world, "/queue/jobs.b"), "RECEIPT");
    assert_eq!(sent(&world, "/queue/jobs.b"), "queue-full");
    assert_eq!(sent(&world, "/queue/other"), "RECEIPT");
    assert_eq!(sent(&world, "/queue/other"), "RECEIPT");
    let detail = world.said(&["queue", "show", "jobs.a"]);
    assert!(detail.contains("message_count_max=1"), "{detail}");
    // It is of the broker, not of its run.
    world.broker.kill_begin();
    let ended = world.broker.wait(std::time::Duration::from_secs(30));
    ended.expect("a killed program ends");
    world.broker = world.settings.start();
    assert_eq!(sent(&world, "/queue/jobs.a"), "queue-full");
    let listed: Value = serde_json::from_str(&world.said(&["policy", "list", "--json"])).unwrap();
    assert_eq!(
        listed,
        serde_json::json!({"pattern": "jobs.>", "settings": {"message_count_max": 1, "overflow": "refuse"}, "stored": true})
    );
    world.said(&["policy", "delete", "jobs.#"]);
    assert_eq!(sent(&world, "/queue/jobs.a"), "RECEIPT");
    let refused = world.refused(&["policy", "delete", "jobs.>"], 1);
    assert!(
        refused.contains("no operator has stated a policy for this pattern"),
        "{refused}"
    );
    for (args, expect) in [
        (["a", "message_count=1"], "there is no setting \"message_count\""),
        (
            ["a", "overflow=drop"],
            "overflow takes refuse, drop-head, dead-letter",
        ),
        (["a", "overflow"], "expected NAME=VALUE"),
    ] {
        let said = world.refused(&[&["policy", "set"][..], &args].concat(), 2);
        assert!(said.contains(expect), "{said}");
    }
    let said = world.refused(&["policy", "set", "a.>.b", "message_count_max=1"], 1);
    assert!(
        said.contains("is not the name of a queue, or a pattern of names"),
        "{said}"
    );
}

#[test]
fn policies_of_the_file_are_read_again_at_sighup() {
    const LIMITS: &str = "[limits]\ndeliveries_failed_max = 1\n";
    let world = World::with("[[policy]]\npattern = \"jobs.*\"\nmessage_count_max = 1\n");
    let await_count = |count: &str| {
        let begin = std::time::Instant::now();
        while !world.said(&["policy", "list"]).contains(count) {
            assert!(
                begin.elapsed().as_secs() < 30,
                "{count}: {}",
                world.broker.log_end()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    await_count("message_count_max=1");
    assert_eq!(sent(&world, "/queue/jobs.a"), "RECEIPT");
    assert_eq!(sent(&world, "/queue/jobs.a"), "queue-full");
    let reload = |policy: &str| {
        world.broker.rewrite_config(&format!("{LIMITS}{policy}"));
        world.broker.signal(rustix::process::Signal::HUP);
    };
    reload("[[policy]]\npattern = \"jobs.*\"\nmessage_count_max = 2\n");
    await_count("message_count_max=2");
    assert_eq!(sent(&world, "/queue/jobs.a"), "RECEIPT");
    // A mistake changes nothing, and is told.
    reload("[[policy]]\npattern = \"jobs.*\"\nmessage_count_max = -2\n");
    let begin = std::time::Instant::now();
    while !world
        .broker
        .log_end()
        .contains("message_count_max = -2 is not allowed")
    {
        assert!(begin.elapsed().as_secs() < 30, "{}", world.broker.log_end());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    await_count("message_count_max=2");
    // One that an operator states counts instead.
    world.said(&["policy", "set", "jobs.*", "message_count_max=3"]);
    reload("[[policy]]\npattern = \"jobs.*\"\nmessage_count_max = 4\n[[policy]]\npattern = \"last\"\n");
    await_count("last");
    await_count("message_count_max=3");
}

#[test]
fn a_reload_says_what_holds_and_what_waits() {
    let world = World::with("");
    let keep = world.client();
    assert_eq!(world.said(&["reload"]), "nothing has changed\n");
    let reload = |config: &str| world.broker.rewrite_config(config);
    const CHANGED: &str = "[server]\nworker_thread_count = 7\n[log]\nlevel = \"warn\"\n[limits]\nbody_bytes_max = 3\n\
                           deliveries_failed_max = 2\nsubscription_count_max = 1\n[[policy]]\npattern = \"a\"\nmessage_count_max = 1\n";
    reload(CHANGED);
    assert_eq!(
        world.said(&["reload"]),
        "from now on: log.level, limits.body_bytes_max, limits.subscription_count_max, limits.deliveries_failed_max, policy\n\
         at the next start: server.worker_thread_count\n"
    );
    // A connection has the bounds that it began with; those from now on have the new ones.
    let body = |mut client: Client| {
        let headers = [("destination", "/queue/b"), ("receipt", "1")];
        client.send("SEND", &headers, b"four").unwrap();
        let frame = client.expect().unwrap();
        frame.header("code").unwrap_or(&frame.command).to_owned()
    };
    assert_eq!(body(keep), "RECEIPT");
    assert_eq!(body(world.client()), "body-too-long");
    assert_eq!(sent(&world, "/queue/a"), "RECEIPT");
    assert_eq!(sent(&world, "/queue/a"), "queue-full");
    let log = world.broker.log_end();
    assert!(log.contains("configuration read again"), "{log}");
    assert!(log.contains("connection opened session=1 "), "{log}");
    assert!(!log.contains("connection opened session=2 "), "{log}");
    // What waits is told again.
    let told = world.said(&["reload", "--json"]);
    let told: steadfast::api::Reloaded = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (told.taken.len(), &told.restart[..]),
        (0, &["server.worker_thread_count".to_owned()][..])
    );
    // Mistakes change nothing, and all of them are told, to whoever asked.
    reload(&CHANGED.replace("body_bytes_max = 3", "body_bytes_max = 0\nbodies = 1"));
    let refused = world.refused(&["reload"], 1);
    let lines: Vec<_> = refused.lines().collect();
    assert_eq!(lines.len(), 2, "{refused}");
    assert!(
        lines[0].contains(", line 6: limits.body_bytes_max = 0 is not allowed"),
        "{refused}"
    );
    assert!(
        lines[1].contains(", line 7: unknown key limits.bodies"),
        "{refused}"
    );
    assert_eq!(body(world.client()), "body-too-long");
}

#[test]
fn the_time_that_a_stop_may_take_changes_while_it_runs() {
    let world = World::with("linger_ms_max = 60_000\n[server]\nshutdown_ms_max = 60_000\n");
    world
        .broker
        .rewrite_config("[limits]\nlinger_ms_max = 60_000\n[server]\nshutdown_ms_max = 100\n");
    assert_eq!(
        world.said(&["reload"]),
        "from now on: server.shutdown_ms_max, limits.deliveries_failed_max\n"
    );
    // It would be waited for, for a minute: it does not close.
    let _idle = world.client();
    let begin = std::time::Instant::now();
    let log = world.broker.stop();
    assert!(begin.elapsed() < std::time::Duration::from_secs(25), "{log}");
    assert!(log.contains("connections did not end in time"), "{log}");
}

/// What failed says why and where, what rests says until when, and what is sent back remembers.
#[test]
fn failures_are_seen() {
    let world = World::new();
    world.send("/queue/a", &["x"]);
    let (mut holder, ack) = world.holder("/queue/a");
    let refused = [
        ("id", &*ack),
        ("requeue", "false"),
        ("reason", "no \u{1b}[31mink"),
    ];
    holder.request("NACK", &refused, b"").unwrap();
    drop(holder);
    let said = world.said(&["peek", "DLQ.a"]);
    assert!(
        said.contains(" ready accepted ") && said.contains(", from a\n"),
        "{said}"
    );
    let line = said.lines().nth(1).unwrap();
    assert!(
        line.contains(" rejected in a after 1 failure of 1 deliveries: no "),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said:?}");

    let (mut holder, ack) = world.holder("/queue/DLQ.a");
    holder
        .request("NACK", &[("id", &*ack), ("delay", "3600000")], b"")
        .unwrap();
    drop(holder);
    let said = world.said(&["peek", "DLQ.a"]);
    assert!(
        said.contains(" delayed accepted ") && said.contains(", rests until 20"),
        "{said}"
    );
    let shown = world.said(&["queue", "show", "DLQ.a"]);
    assert!(shown.contains("1 delayed"), "{shown}");
    let listed = world.said(&["queues"]);
    assert!(listed.contains("DELAYED"), "{listed}");

    let seen = &world.json(&["peek", "DLQ.a"])[0];
    assert_eq!(
        (&seen["state"], &seen["failures"]),
        (&"delayed".into(), &1.into())
    );
    let rest = seen["due_at_ms"].as_u64().unwrap() - seen["accepted_at_ms"].as_u64().unwrap();
    assert!((3_600_000..3_700_000).contains(&rest), "{rest}");
    let death = &seen["history"][0];
    assert_eq!(
        (&death["queue"], &death["reason"]),
        (&"a".into(), &"rejected".into())
    );
    assert_eq!((&death["failures"], &death["deliveries"]), (&1.into(), &1.into()));

    world.json(&["queue", "requeue", "DLQ.a"]);
    let back = &world.json(&["peek", "a"])[0];
    assert_eq!((&back["state"], &back["failures"]), (&"ready".into(), &0.into()));
    assert_eq!(back["history"][0], *death, "it remembers");
    assert_eq!(world.said(&["dlq"]), "no dead letters\n");
}

/// A dead-letter queue of any name is found by what it holds.
#[test]
fn dead_letters_are_found_under_any_name() {
    let world = World::new();
    world.json(&["policy", "set", "a", "dead_letter_queue=failed"]);
    world.send("/queue/a", &["x"]);
    let (mut holder, ack) = world.holder("/queue/a");
    holder
        .request("NACK", &[("id", &*ack), ("requeue", "false")], b"")
        .unwrap();
    drop(holder);
    let listed = world.said(&["dlq"]);
    assert!(listed.contains("failed"), "{listed}");
}

#[test]
fn odd_names_in_every_command() {
    let world = World::new();
    for name in ODD {
        let queue = &format!("/queue/{name}");
        let other = &format!("{queue} other");
        let dead = &format!("/queue/DLQ.{name}");
        world.send(queue, &["one", "two"]);
        let listed = world.json(&["queues", "--prefix", name]);
        assert!(listed.iter().any(|line| line["name"] == *name), "{listed:?}");
        assert_eq!(world.json(&["queue", "show", queue])[0]["queue"]["name"], *name);
        assert_eq!(world.json(&["peek", queue]).len(), 2);
        for args in [&["queue", "pause", queue][..], &["queue", "resume", queue]] {
            assert_eq!(world.json(args)[0]["count"], 1);
        }
        assert_eq!(
            world.json(&["queue", "copy", queue, "--to", other])[0]["count"],
            2
        );
        assert_eq!(
            world.json(&["queue", "move", other, "--to", queue])[0]["count"],
            2
        );
        let (mut holder, ack) = world.holder(queue);
        holder.request("NACK", &[("id", &ack)], b"").unwrap();
        drop(holder);
        let dlq = world.json(&["dlq"]);
        assert!(
            dlq.iter().any(|line| line["name"] == format!("DLQ.{name}")),
            "{dlq:?}"
        );
        assert_eq!(world.json(&["queue", "requeue", dead])[0]["count"], 1);
        assert_eq!(
            world.json(&["queue", "purge", queue, "--limit", "1", "--yes"])[0]["count"],
            1
        );
        // What a person sees has nothing that a terminal would obey.
        for args in [
            &["queues"][..],
            &["queue", "show", queue],
            &["peek", queue],
            &["queue", "delete", queue, "--yes", "--force"],
        ] {
            let said = world.said(args);
            let bad = said
                .chars()
                .find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(bad, None, "{said:?}");
        }
        let refused = world.refused(&["queue", "show", queue], 1);
        assert!(refused.contains("(queue-unknown)"), "{refused}");
    }
}

#[test]
fn a_terminal_gets_colour_and_its_width() {
    let world = World::new();
    let long = "/queue/a-name-that-is-longer-than-the-terminal-is-wide-and-then-some";
    world.send(long, &["1"]);
    world.said(&["queue", "pause", long]);
    for columns in [20, 40, 60, 80, 200] {
        let (code, shown) = world.on_terminal(columns, &["queues"], b"");
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("\u{1b}[1mQUEUE\u{1b}[0m"), "{shown:?}");
        for line in plain(&shown).lines() {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
    }
    let (_, shown) = world.on_terminal(200, &["queues"], b"");
    assert!(shown.contains("\u{1b}[33mpaused\u{1b}[0m"), "{shown:?}");
    assert!(!world.said(&["queues"]).contains('\u{1b}'));

    let (master, slave) = terminal(80, 24);
    let mut child = world
        .command(&["queues"])
        .env("NO_COLOR", "1")
        .stdout(slave)
        .spawn()
        .unwrap();
    let shown = read_terminal(&mut { master });
    child.wait().unwrap();
    assert!(shown.contains("QUEUE") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn loss_is_confirmed_on_a_terminal() {
    let world = World::new();
    world.send("/queue/a", &["1", "2"]);
    for answer in ["n\n", "\n", "\u{4}"] {
        let (code, shown) = world.on_terminal(120, &["queue", "purge", "a"], answer.as_bytes());
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("purge queue a: 2 messages ("), "{shown}");
        assert!(
            shown.contains("error: not confirmed: nothing was done"),
            "{shown}"
        );
    }
    assert_eq!(world.depth("a"), 2);
    let (code, shown) = world.on_terminal(120, &["queue", "purge", "a"], b"y\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("purged 2 messages ("), "{shown}");
    let (code, _) = world.on_terminal(120, &["queue", "delete", "a"], b"yes\n");
    assert_eq!(
        code,
        Some(1),
        "a queue without messages and subscriptions is none"
    );
    assert_eq!(world.depth("a"), 0);
}

#[test]
fn top_watches() {
    let world = World::new();
    world.send("/queue/a", &["1"]);
    let text = world.said(&["top", "--count", "2", "--interval-ms", "100"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.lines()
            .all(|line| line.contains(" 1 message (") && line.contains("per second "))
    );
    let seen = world.json(&["top", "--count", "2", "--interval-ms", "100"]);
    assert_eq!((seen.len(), &seen[1]["queues"][0]["name"]), (2, &"a".into()));

    let (code, shown) = world.on_terminal(60, &["top"], b"xq");
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(
        shown.contains("\u{1b}[?1049h") && shown.ends_with("\u{1b}[?25h\u{1b}[?1049l"),
        "{shown:?}"
    );
    assert!(shown.contains("q ends") && shown.contains("DEPTH"), "{shown:?}");

    let (mut master, slave) = terminal(60, 24);
    let mut child = world
        .command(&["top"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave)
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    master.read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let shown = read_terminal(&mut master);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(shown.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{shown:?}");
}

/// A folder whose path is too long for a socket.
#[test]
fn a_folder_with_a_long_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.data_dir = dir.path().join("d".repeat(120));
    let broker = settings.start();
    let world = World {
        broker,
        settings,
        _dir: dir,
    };
    world.send("/queue/a", &["1"]);
    assert_eq!(world.depth("a"), 1);
}

#[test]
fn what_goes_first_and_to_whom_is_shown() {
    let world = World::new();
    let mut client = world.client();
    let standing = [
        ("destination", "/queue/a"),
        ("id", "1"),
        ("ack", "client-individual"),
        ("exclusive", "true"),
        ("x-priority", "-3"),
    ];
    client.request("SUBSCRIBE", &standing, b"").unwrap();
    let headers = [
        ("destination", "/queue/a"),
        ("JMSXGroupID", "blue\u{1b}shoes"),
        ("priority", "7"),
    ];
    client.request("SEND", &headers, b"x").unwrap();
    client.expect().unwrap();
    let shown = world.said(&["queue", "show", "a"]);
    assert!(shown.contains("exclusive priority:-3 groups:1"), "{shown}");
    let detail = &world.json(&["queue", "show", "a"])[0]["subscriptions"][0];
    assert_eq!(
        (&detail["exclusive"], &detail["no_local"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&detail["priority"], &detail["group_count"]),
        (&(-3).into(), &1.into())
    );

    let look = [("destination", "/queue/a"), ("id", "2"), ("browser", "true")];
    client.request("SUBSCRIBE", &look, b"").unwrap();
    assert_eq!(client.expect().unwrap().header("priority"), Some("7"));
    assert_eq!(client.expect().unwrap().header("browser"), Some("end"));
    let shown = world.said(&["queue", "show", "a"]);
    assert!(shown.contains(" browser "), "{shown}");
    let detail = &world.json(&["queue", "show", "a"])[0];
    assert_eq!(detail["queue"]["subscription_count"], 1, "it is no consumer");
    assert_eq!(detail["subscriptions"][1]["browser"], true);

    let said = world.said(&["peek", "a"]);
    assert!(said.contains(", priority 7, group blue\\u{1b}shoes"), "{said}");
    let seen = &world.json(&["peek", "a"])[0];
    assert_eq!(
        (&seen["priority"], &seen["group"]),
        (&7.into(), &"blue\u{1b}shoes".into())
    );

    client
        .request("SEND", &[("destination", "/queue/b")], b"y")
        .unwrap();
    assert!(!world.said(&["peek", "b"]).contains("priority"));
    let plain = &world.json(&["peek", "b"])[0];
    assert_eq!(
        (&plain["priority"], &plain["group"]),
        (&4.into(), &serde_json::Value::Null)
    );
}
