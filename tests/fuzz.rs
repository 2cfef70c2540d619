//! The corpora of the fuzz targets, replayed: what the fuzzer found once stays found. `scripts/fuzz` looks for more.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "model/state.rs"]
mod state;
mod support;
#[path = "../fuzz/src/targets.rs"]
mod targets;
#[path = "model/world.rs"]
#[allow(dead_code, reason = "the model's own tests look deeper")]
mod world;

use std::fs;
use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 5, "only {} inputs of {name}", paths.len());
    for path in paths {
        println!("{}", path.display());
        target(&fs::read(&path).unwrap());
    }
    target(b"");
}

#[test]
fn decoder() {
    replay("decoder", targets::decoder);
}

#[test]
fn session() {
    replay("session", targets::session);
}

#[test]
fn broker() {
    replay("broker", targets::broker);
}

#[test]
fn journal() {
    replay("journal", targets::journal);
}

#[test]
fn config() {
    replay("config", targets::config);
}

#[test]
fn selector() {
    replay("selector", targets::selector);
}
