//! `export` and `import` where files, pipes and brokers are not as they should be.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::backup::{World, command, drain, refused, run_well};

/// Runs a command with bytes on its standard input, through a pipe.
fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args, &[]).stdin(Stdio::piped()).spawn().unwrap();
    // Where the command ends before it has read all, it says why.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Lines of an export.
fn lines(bodies: &[&str]) -> String {
    let line = |body: &&str| {
        let body = serde_json::json!({"encoding": "text", "data": body, "truncated": false});
        format!(
            "{}\n",
            serde_json::json!({"queue": "a", "headers": [], "body": body})
        )
    };
    bodies.iter().map(line).collect()
}

#[test]
fn a_pipe_is_imported_from_its_first_byte_on() {
    let world = World::new();
    let broker = world.settings.start();
    let addr = broker.addr().to_string();
    let json = lines(&["one", "two"]);
    let frames =
        "SEND\ndestination:/queue/a\ncontent-length:5\n\nthree\0\nSEND\ndestination:/queue/a\n\nfour\0\n";
    for input in [json.as_str(), frames] {
        let output = piped(&["import", "-", "--addr", &addr], input.as_bytes());
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "2 messages sent and confirmed\n", "{output:?}");
    }
    let fifo = world.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = command(&["import", "--addr", &addr], &[&fifo]).spawn().unwrap();
    fs::write(&fifo, lines(&["five"])).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 message sent and confirmed\n",
        "{output:?}"
    );
    let bodies: Vec<Vec<u8>> = drain(&broker, "a").into_iter().map(|frame| frame.body).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three", b"four", b"five"]);
}

#[test]
fn a_line_that_says_itself_that_it_is_not_whole_is_refused() {
    let world = World::new();
    let broker = world.settings.start();
    let args = ["import", "--addr", &broker.addr().to_string()];
    let file = world.path("a.jsonl");
    let whole = lines(&["one"]);
    for (line, why) in [
        (whole.replace("false", "true"), "its body is cut"),
        (
            whole.replace("\"queue\"", "\"fault\":\"body chunk 7 is damaged\",\"queue\""),
            "body chunk 7 is damaged",
        ),
        (
            "{\"queue\":\"a\",\"body\":null,\"fault\":\"gone\"}\n".to_owned(),
            "gone",
        ),
        ("{\"queue\":\"a\"}\n".to_owned(), "it has no body"),
    ] {
        fs::write(&file, format!("{whole}{line}")).unwrap();
        let said = refused(&args, &[&file], 1);
        assert!(said.contains("message 2 of") && said.contains(why), "{said}");
    }
    assert_eq!(drain(&broker, "a").len(), 0);
}

#[test]
fn what_is_skipped_must_be_there() {
    let world = World::new();
    let broker = world.settings.start();
    let addr = broker.addr().to_string();
    let import = |skip| ["import", "--addr", addr.as_str(), "--skip", skip];
    let file = world.path("a.jsonl");
    fs::write(&file, lines(&["one", "two"])).unwrap();
    let said = refused(&import("99999"), &[&file], 1);
    assert!(
        said.contains("ends after 2 messages") && said.contains("nothing was sent"),
        "{said}"
    );
    assert_eq!(
        run_well(&import("2"), &[&file]),
        "0 messages sent and confirmed\n",
        "an import that had come to its end"
    );
    fs::write(&file, format!("{}{{\n{}", lines(&["one"]), lines(&["three"]))).unwrap();
    let said = refused(&import("2"), &[&file], 1);
    assert!(
        said.contains("message 2 of") && !said.contains("are there"),
        "{said}"
    );
    assert_eq!(drain(&broker, "a").len(), 0);
}
