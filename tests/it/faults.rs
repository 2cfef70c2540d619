//! The store fails.

use std::process::Command;
use std::sync::Arc;

use steadfast::store::{Call, Effect, Fault, FaultyStore, MemoryStore};

use super::server::Server;

const PLANNED: &str = "STEADFAST_PLANNED_FAULT";

fn faulty(call: Call, at: u64, effect: Effect) -> Server {
    let fault = Fault { call, at, effect };
    Server::with(
        move |_| Arc::new(FaultyStore::new(MemoryStore::new([7; 16]), fault)),
        |options| options.limits.body_cache_bytes_max = 1,
    )
}

/// Runs in a process of its own, started by the tests below: the fault ends it.
#[test]
#[ignore = "ends the process; run by the tests of failed commits"]
fn child_whose_store_fails() {
    let (call, effect) = match std::env::var(PLANNED).unwrap().as_str() {
        "append" => (Call::Append, Effect::None),
        "flush" => (Call::Flush, Effect::None),
        "flush that worked" => (Call::Flush, Effect::Whole),
        "append that panics" => (Call::Append, Effect::Panic),
        "flush that panics" => (Call::Flush, Effect::Panic),
        other => panic!("{other}"),
    };
    // The first commit is that of the new term.
    let server = faulty(call, 3, effect);
    let mut client = server.client();
    client.publish("q", "kept", "first");
    client.expect_receipt("first");
    println!("confirmed");
    client.publish("q", "lost", "second");
    let answer = client.try_frame();
    println!("answered {answer:?}");
}

fn ends_with(planned: &str, code: i32) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::child_whose_store_fails",
            "--ignored",
            "--nocapture",
        ])
        .env(PLANNED, planned)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert_eq!(child.status.code(), Some(code), "{planned}: {text}");
    assert!(text.contains("confirmed"), "{planned}: {text}");
    assert!(!text.contains("RECEIPT"), "{planned}: {text}");
}

#[test]
fn a_failed_append_ends_the_process_before_any_receipt() {
    ends_with("append", 3);
}

#[test]
fn a_failed_flush_ends_the_process_before_any_receipt() {
    ends_with("flush", 3);
    ends_with("flush that worked", 3);
}

/// Whoever waits for a receipt would wait for ever otherwise.
#[test]
fn a_panic_of_the_committer_ends_the_process_before_any_receipt() {
    ends_with("append that panics", 1);
    ends_with("flush that panics", 1);
}

#[test]
fn a_fault_within_a_frame_ends_the_connection_there() {
    // The first run of a long message is read at once; the second fails.
    let server = faulty(Call::Body, 65, Effect::None);
    let mut client = server.client();
    let body = "x".repeat(3_000_000);
    client.publish("q", &body, "r");
    client.expect_receipt("r");
    let mut consumer = server.client();
    consumer.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0");
    let mut bytes = Vec::new();
    // However it ends, it ends within the frame.
    let _ = std::io::Read::read_to_end(&mut consumer.stream, &mut bytes);
    assert!(
        bytes.starts_with(b"MESSAGE") && bytes.len() < body.len(),
        "{} bytes",
        bytes.len()
    );
    assert!(!bytes.contains(&0), "no frame was ended");
    server.await_stats("the count", |stats| stats.fault_count == 1);
    // It is set aside, so that the next one is not torn by it, too, and what comes behind it is not kept waiting.
    let mut heir = server.client();
    heir.subscribe("q", "auto", "");
    client.publish("q", "next", "r");
    client.expect_receipt("r");
    assert_eq!(heir.frame().text(), "next");
}

#[test]
fn a_body_that_cannot_be_read_is_set_aside_and_the_next_one_comes() {
    let server = faulty(Call::Body, 1, Effect::None);
    let mut client = server.client();
    for text in ["a", "b"] {
        // More than the cache holds, so that the first must be read.
        client.publish("q", &text.repeat(15_000), "r");
        client.expect_receipt("r");
    }
    client.subscribe("q", "auto", "");
    assert_eq!(client.frame().text(), "b".repeat(15_000));
    server.await_stats("no fault", |stats| stats.fault_count == 0);
}
