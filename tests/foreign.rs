//! Client libraries that nobody here wrote, doing a full job with the real program in each version they speak: connect,
//! SEND with receipt, the ack modes, ACK and NACK, transactions over two queues, a topic, an ERROR, heart-beats,
//! DISCONNECT; then the program is killed and started again, and they find what they left.
//!
//! The libraries are pinned beside their scripts in `tests/foreign/` and installed under `target/` by the first test that
//! needs them. One that cannot be installed fails its test.

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
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rig::Settings;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign")
}

/// Where the libraries are installed: kept between runs, away from the sources.
fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign").join(name)
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The interpreter of a virtual environment with stomp.py.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let dir = installed("python");
        fs::create_dir_all(&dir).unwrap();
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir));
        let python = dir.join("bin/python");
        run(Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--requirement",
            ])
            .arg(scripts().join("requirements.txt")));
        python
    })
}

/// The folder with the scripts for Node and their libraries.
fn node() -> &'static Path {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    NODE.get_or_init(|| {
        let dir = installed("node");
        fs::create_dir_all(&dir).unwrap();
        for name in ["package.json", "package-lock.json", "stompit.mjs", "stompjs.mjs"] {
            fs::copy(scripts().join(name), dir.join(name)).unwrap();
        }
        run(Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&dir));
        dir
    })
}

/// The job, a kill, a restart, and the rest of the job.
fn full_job(version: &str, command: impl Fn() -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    for phase in ["first", "again"] {
        let broker = settings.start();
        let port = broker.addr().port().to_string();
        run(command().args([&port, version, phase]));
        broker.kill();
    }
}

fn stomp_py(version: &str) {
    full_job(version, || {
        let mut command = Command::new(python());
        command
            .arg(scripts().join("stomp_py.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    });
}

fn by_node(script: &str, version: &str) {
    full_job(version, || {
        let mut command = Command::new("node");
        command.arg(node().join(script));
        command
    });
}

#[test]
fn stomp_py_1_0() {
    stomp_py("1.0");
}

#[test]
fn stomp_py_1_1() {
    stomp_py("1.1");
}

#[test]
fn stomp_py_1_2() {
    stomp_py("1.2");
}

#[test]
fn stompit_1_0() {
    by_node("stompit.mjs", "1.0");
}

#[test]
fn stompit_1_1() {
    by_node("stompit.mjs", "1.1");
}

#[test]
fn stompit_1_2() {
    by_node("stompit.mjs", "1.2");
}

#[test]
fn stompjs_1_0() {
    by_node("stompjs.mjs", "1.0");
}

#[test]
fn stompjs_1_1() {
    by_node("stompjs.mjs", "1.1");
}

#[test]
fn stompjs_1_2() {
    by_node("stompjs.mjs", "1.2");
}

/// The program in the README in this language, with the port of a broker of our own.
fn tour(language: &str, port: &str) -> String {
    let readme = include_str!("../README.md");
    let fence = format!("```{language}\n");
    let (_, rest) = readme
        .split_once(&fence)
        .expect("the README has a program in this language");
    let (program, _) = rest.split_once("```").expect("a fence ends");
    assert!(program.contains("61613"), "it connects to the default port");
    program.replace("61613", port)
}

fn take_tour(language: &str, command: impl Fn(&str) -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Settings::in_dir(dir.path()).start();
    let mut command = command(&tour(language, &broker.addr().port().to_string()));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let said = String::from_utf8(output.stdout).unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{problem}",
        output.status
    );
    assert!(
        said.contains("confirmed") && said.contains("got one pair of shoes"),
        "{said}{problem}"
    );
    broker.stop();
}

#[test]
fn the_tour_in_python() {
    take_tour("python", |program| {
        let mut command = Command::new(python());
        command.args(["-c", program]);
        command
    });
}

#[test]
fn the_tour_in_node() {
    take_tour("js", |program| {
        let mut command = Command::new("node");
        command.args(["-e", program]).current_dir(node());
        command
    });
}
