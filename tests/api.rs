//! The HTTP API of the real program: where its socket is, who may use it, kills in the middle of acts.
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

fn depth(data_dir: &Path, queue: &str) -> u64 {
    let answer = ask(&socket(data_dir), "GET", &format!("/v1/queues/{queue}"), "").unwrap();
    match answer.status {
        404 => 0,
        _ => answer.json::<api::QueueDetail>().queue.depth,
    }
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

/// A kill at any moment leaves all of an act or nothing, and all of one that was answered.
#[test]
fn a_kill_in_an_act_leaves_all_of_it_or_nothing() {
    const COUNT: u64 = 3_000;
    let mut rng = Rng::new(env_number("STEADFAST_TEST_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    let mut broker = settings.start();
    let (mut done_count, mut answered_count) = (0, 0);
    for round in 0..env_number("STEADFAST_TEST_ACT_KILLS", 9) {
        fill(&broker, "a", COUNT);
        let (act, body, count, left, got) = match round % 3 {
            0 => ("purge", "", COUNT, 0, 0),
            1 => ("move", r#"{"to": "b"}"#, COUNT, 0, COUNT),
            _ => (
                "copy",
                r#"{"to": "b", "header": ["n:0"]}"#,
                COUNT / 2,
                COUNT,
                COUNT / 2,
            ),
        };
        let socket_path = socket(&settings.data_dir);
        let target = format!("/v1/queues/a/{act}");
        let asked = std::thread::spawn(move || ask(&socket_path, "POST", &target, body));
        std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
        broker.kill();
        let answered = asked.join().unwrap().ok();
        broker = settings.start();
        let found = (depth(&settings.data_dir, "a"), depth(&settings.data_dir, "b"));
        let (before, after) = ((COUNT, 0), (left, got));
        assert!(
            found == before || found == after,
            "{act}: {found:?} is neither {before:?} nor {after:?}"
        );
        if let Some(answer) = answered {
            assert_eq!(answer.json::<api::Acted>().count, count);
            assert_eq!(found, after, "{act} was answered");
            answered_count += 1;
        }
        done_count += u64::from(found == after);
        for queue in ["a", "b"] {
            ask(
                &socket(&settings.data_dir),
                "POST",
                &format!("/v1/queues/{queue}/purge"),
                "",
            )
            .unwrap();
        }
    }
    println!("{done_count} done, {answered_count} of them answered");
    broker.stop();
}
