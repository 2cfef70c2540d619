//! The HTTP API of the real program: where its socket is, who may use it, kills in the middle of acts, acts under load.
//!
//! `STEADFAST_TEST_ACT_KILLS` sets how many; `STEADFAST_TEST_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

#[path = "api/load.rs"]
mod load;
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rig::http::ask;
use rig::{Broker, Rng, Settings, env_number};
use steadfast::api;

/// Where a broker's socket is, as its clients find it.
fn socket(data_dir: &Path) -> PathBuf {
    match fs::read_to_string(data_dir.join(api::PATH_FILE)) {
        Ok(path) => PathBuf::from(path),
        Err(_) => data_dir.join(api::SOCKET_FILE),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_ready(data_dir: &Path) -> bool {
    let answer = ask(&socket(data_dir), "GET", "/health/ready", "").unwrap();
    answer.json::<api::Health>().ok
}

fn fill(broker: &Broker, queue: &str, count: u64) {
    let mut client = broker.connect();
    let destination = format!("/queue/{queue}");
    for number in 1..count {
        let n = (number % 2).to_string();
        client
            .send("SEND", &[("destination", &destination), ("n", &n)], b"x")
            .unwrap();
    }
    client
        .request("SEND", &[("destination", &destination), ("n", "0")], b"x")
        .unwrap();
}

#[test]
fn a_socket_left_over_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let broker = settings.start();
    assert!(is_ready(&settings.data_dir));
    assert_eq!(mode(&socket(&settings.data_dir)), 0o600);
    broker.kill();
    assert!(socket(&settings.data_dir).exists(), "nobody removed it");
    let broker = settings.start();
    assert!(is_ready(&settings.data_dir));
    // One that is refused the folder leaves its owner's socket alone.
    let mut second = settings.spawn();
    assert_eq!(second.wait(Duration::from_secs(30)).unwrap().code(), Some(5));
    assert!(is_ready(&settings.data_dir));
    broker.stop();
    assert!(!settings.data_dir.join(api::SOCKET_FILE).exists());
}

#[test]
fn a_long_path_has_its_socket_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.data_dir = dir.path().join("long".repeat(40));
    let broker = settings.start();
    let first = socket(&settings.data_dir);
    assert!(!first.starts_with(dir.path()) && first.as_os_str().len() <= 107);
    assert_eq!((mode(&first), mode(first.parent().unwrap())), (0o600, 0o700));
    assert!(is_ready(&settings.data_dir));
    broker.kill();
    let broker = settings.start();
    assert!(is_ready(&settings.data_dir));
    assert!(!first.exists(), "what the killed one left is gone");
    let second = socket(&settings.data_dir);
    broker.stop();
    assert!(!second.parent().unwrap().exists());
    assert!(!settings.data_dir.join(api::PATH_FILE).exists());
}

#[test]
fn acts_are_logged_with_who_and_what() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let broker = settings.start();
    fill(&broker, "a\nb", 3);
    let socket = socket(&settings.data_dir);
    let answer = ask(&socket, "POST", "/v1/queues/a%0Ab/move", "{\"to\": \"c\"}").unwrap();
    assert_eq!(answer.json::<api::Acted>().count, 3);
    let answer = ask(&socket, "POST", "/v1/queues/none/purge", "").unwrap();
    assert_eq!(answer.failure().0, 404);
    let log = broker.stop();
    let uid = rustix::process::getuid().as_raw();
    let line = log
        .lines()
        .find(|line| line.contains("act=\"move\""))
        .expect("the act is logged");
    for part in [
        "INFO",
        r#"queue="a\nb""#,
        r#"to="c""#,
        "count=3",
        &format!("uid={uid}"),
        &format!("pid={}", std::process::id()),
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn metrics_have_an_address_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[server]\nmetrics_listen = \"127.0.0.1:0\"\n".to_owned();
    let broker = settings.start();
    let output = broker.output();
    let address = output
        .lines()
        .find_map(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"))
        .unwrap_or_else(|| panic!("{output}"))
        .parse()
        .unwrap();
    let answer = rig::http::ask_tcp(address, "GET", "/metrics").unwrap();
    assert!(answer.text().ends_with("# EOF\n"));
    broker.stop();
}

/// Depth of a queue, and whether it is paused.
fn state(data_dir: &Path, queue: &str) -> (u64, bool) {
    let answer = ask(&socket(data_dir), "GET", &format!("/v1/queues/{queue}"), "").unwrap();
    match answer.status {
        404 => (0, false),
        _ => {
            let queue = answer.json::<api::QueueDetail>().queue;
            (queue.depth, queue.paused)
        }
    }
}

/// Takes the first messages of a queue and gives them back as failed.
fn fail(broker: &Broker, queue: &str, count: u64) {
    let mut client = broker.connect();
    let (destination, prefetch) = (format!("/queue/{queue}"), count.to_string());
    let headers = [
        ("destination", destination.as_str()),
        ("id", "1"),
        ("ack", "client"),
        ("prefetch-count", &prefetch),
    ];
    client.request("SUBSCRIBE", &headers, b"").unwrap();
    let mut last = String::new();
    for _ in 0..count {
        let message = client.expect().unwrap();
        last = message
            .header("ack")
            .expect("it is to be acknowledged")
            .to_owned();
    }
    client.request("NACK", &[("id", &last)], b"").unwrap();
}

/// An act to be killed in, on queues filled for it.
struct Case {
    act: &'static str,
    queue: &'static str,
    body: &'static str,
    count: u64,
    /// Of the queues `a`, `b` and `DLQ.a`: depth, and whether it is paused.
    before: [(u64, bool); 3],
    after: [(u64, bool); 3],
}

const COUNT: u64 = 3_000;
const FULL: (u64, bool) = (COUNT, false);
const PAUSED: (u64, bool) = (COUNT, true);
const NONE: (u64, bool) = (0, false);

const CASES: [Case; 7] = [
    Case {
        act: "purge",
        queue: "a",
        body: "",
        count: COUNT,
        before: [FULL, NONE, NONE],
        after: [NONE, NONE, NONE],
    },
    Case {
        act: "delete",
        queue: "a",
        body: "",
        count: COUNT,
        before: [PAUSED, NONE, NONE],
        after: [NONE, NONE, NONE],
    },
    Case {
        act: "pause",
        queue: "a",
        body: "",
        count: 1,
        before: [FULL, NONE, NONE],
        after: [PAUSED, NONE, NONE],
    },
    Case {
        act: "resume",
        queue: "a",
        body: "",
        count: 1,
        before: [PAUSED, NONE, NONE],
        after: [FULL, NONE, NONE],
    },
    Case {
        act: "move",
        queue: "a",
        body: r#"{"to": "b"}"#,
        count: COUNT,
        before: [FULL, NONE, NONE],
        after: [NONE, FULL, NONE],
    },
    Case {
        act: "copy",
        queue: "a",
        body: r#"{"to": "b", "header": ["n:0"]}"#,
        count: COUNT / 2,
        before: [FULL, NONE, NONE],
        after: [FULL, (COUNT / 2, false), NONE],
    },
    Case {
        act: "requeue",
        queue: "DLQ.a",
        body: "",
        count: COUNT,
        before: [NONE, NONE, FULL],
        after: [FULL, NONE, NONE],
    },
];

/// A kill at any moment leaves all of an act or nothing, and all of one that was answered.
#[test]
fn a_kill_in_an_act_leaves_all_of_it_or_nothing() {
    let mut rng = Rng::new(env_number("STEADFAST_TEST_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.config = "[limits]\ndeliveries_failed_max = 1\n".to_owned();
    let data_dir = &settings.data_dir;
    let act = |queue: &str, act: &str, body: &str| {
        ask(
            &socket(data_dir),
            "POST",
            &format!("/v1/queues/{queue}/{act}"),
            body,
        )
        .unwrap()
    };
    let states = || ["a", "b", "DLQ.a"].map(|queue| state(data_dir, queue));
    let mut broker = settings.start();
    let (mut done_count, mut answered_count) = (0, 0);
    for round in 0..env_number("STEADFAST_TEST_ACT_KILLS", 3 * CASES.len() as u64) {
        let case = &CASES[round as usize % CASES.len()];
        fill(&broker, "a", COUNT);
        if case.before[2] == FULL {
            fail(&broker, "a", COUNT);
        }
        if case.before[0] == PAUSED {
            act("a", "pause", "");
        }
        assert_eq!(states(), case.before);
        let socket_path = socket(data_dir);
        let target = format!("/v1/queues/{}/{}", case.queue, case.act);
        let body = case.body;
        let asked = std::thread::spawn(move || ask(&socket_path, "POST", &target, body));
        std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
        broker.kill();
        let answered = asked.join().unwrap().ok();
        broker = settings.start();
        let found = states();
        assert!(
            found == case.before || found == case.after,
            "{}: {found:?} is neither {:?} nor {:?}",
            case.act,
            case.before,
            case.after
        );
        if let Some(answer) = answered {
            assert_eq!(answer.json::<api::Acted>().count, case.count);
            assert_eq!(found, case.after, "{} was answered", case.act);
            answered_count += 1;
        }
        done_count += u64::from(found == case.after);
        for queue in ["a", "b", "DLQ.a"] {
            act(queue, "delete", "");
        }
    }
    println!("{done_count} done, {answered_count} of them answered");
    broker.stop();
}
