//! The Debian package: built, installed in a copy of this system that is gone afterwards, used, and removed.
//! Needs root, for the copy; its steps are in `tests/package/inside.sh`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use steadfast::config::{Config, keys};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The values of a key of the unit.
fn stated(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(root().join("config/steadfast.service")).unwrap();
    let values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

#[test]
fn installed_used_upgraded_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new(root().join("scripts/package"))
        .args(["--binary", env!("CARGO_BIN_EXE_steadfast"), "--to"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let scripts = root().join("tests/package");
    let run = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(scripts.join("root.sh"))
        .arg(scripts.join("inside.sh"))
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn the_unit_gives_a_stop_and_connections_what_they_are_promised() {
    let number = |key: &str| -> u64 {
        let values = stated(key);
        assert_eq!(values.len(), 1, "{key}");
        values[0].parse().unwrap()
    };
    let default = Config::default();
    // A drain, then the last commit, with much to spare.
    assert!(number("TimeoutStopSec") * 1000 >= 10 * default.server.shutdown_ms_max);
    assert!(number("LimitNOFILE") > default.limits.connection_count_max as u64 + 64);
    // A commit is told of as hanging long before it ends the broker.
    assert!(number("WatchdogSec") >= 60);
    assert_eq!(stated("RestartPreventExitStatus"), ["2 4 5"]);
    for variable in stated("Environment") {
        let (name, _) = variable.split_once('=').unwrap();
        let known = name == "STEADFAST_CONFIG" || keys().any(|key| key.variable() == name);
        assert!(known, "{name}");
    }
}
