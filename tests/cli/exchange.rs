//! `export` and `import` where files, pipes and brokers are not as they should be.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::backup::{World, command, drain, refusal, refused, run_well, send};
use super::rig::http::ask;

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

/// The queue knows them already, perhaps as those that were exported: with their ids they would not be stored.
#[test]
fn deduplication_ids_are_not_imported() {
    let world = World::new();
    let broker = world.settings.start();
    let frames = "SEND\ndestination:/queue/a\ndedup-id:1\n_AMQ_DUPL_ID:1\nNats-Msg-Id:1\nkept:yes\n\nx\0\n";
    for _ in 0..2 {
        let output = piped(
            &["import", "-", "--addr", &broker.addr().to_string()],
            frames.as_bytes(),
        );
        assert!(output.status.success(), "{output:?}");
    }
    let messages = drain(&broker, "a");
    assert_eq!(messages.len(), 2);
    for message in messages {
        assert_eq!(message.header("kept"), Some("yes"));
        assert_eq!(message.header("dedup-id"), None);
    }
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

/// The time of a message may have passed since it was sent, and a dead letter has none any more.
#[test]
fn expiry_is_imported_where_it_is_asked_for() {
    let world = World::new();
    let broker = world.settings.start();
    let addr = broker.addr().to_string();
    let future = (4_000_000_000_000_u64).to_string();
    let expiry = [
        ("expires", future.as_str()),
        ("expiration", "3600000"),
        ("ttl", "7200000"),
    ];
    let headers = [&[("first", "1")], &expiry[..], &[("last", "2")]].concat();
    let mut client = broker.connect();
    send(&mut client, "a", &headers, b"one");
    let data = ["--data-dir", world.data().to_str().unwrap()];
    for format in ["json", "frames"] {
        let args = [&["export", "--queue", "a", "--format", format], &data[..]].concat();
        let file = world.path(format);
        fs::write(&file, command(&args, &[]).output().unwrap().stdout).unwrap();
        let kept = |flags: &[&str]| -> Vec<(String, String)> {
            let args = [&["import", "--to", "b", "--addr", &addr], flags].concat();
            assert_eq!(run_well(&args, &[&file]), "1 message sent and confirmed\n");
            let frames = drain(&broker, "b");
            assert_eq!(frames.len(), 1);
            let named = |name: &str| headers.iter().any(|(sent, _)| *sent == name);
            let headers = frames[0].headers.iter();
            headers.filter(|(name, _)| named(name)).cloned().collect()
        };
        let owned = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
            headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        assert_eq!(kept(&[]), owned(&[("first", "1"), ("last", "2")]), "{format}");
        assert_eq!(kept(&["--keep-expiry"]), owned(&headers), "{format}");
    }
    // Those that are kept have their effect.
    let file = world.path("past");
    fs::write(
        &file,
        "SEND\ndestination:/queue/b\nexpires:1\n\nlate\0\nSEND\ndestination:/queue/b\n\nnever\0\n",
    )
    .unwrap();
    for (flags, bodies) in [
        (&[][..], &[&b"late"[..], b"never"][..]),
        (&["--keep-expiry"], &[b"never"]),
    ] {
        run_well(&[&["import", "--addr", &addr], flags].concat(), &[&file]);
        let frames = drain(&broker, "b");
        let found: Vec<_> = frames.iter().map(|frame| &frame.body[..]).collect();
        assert_eq!(found, bodies);
    }
}

/// An occurrence of a schedule would begin a schedule of its own.
#[test]
fn schedules_are_imported_where_it_is_asked_for() {
    let world = World::new();
    let broker = world.settings.start();
    let addr = broker.addr().to_string();
    let file = world.path("export");
    fs::write(
        &file,
        "SEND\ndestination:/queue/b\nAMQ_SCHEDULED_PERIOD:3600000\nAMQ_SCHEDULED_REPEAT:-1\n\nagain\0\
         SEND\ndestination:/queue/b\nx-delay:3600000\n\nlater\0",
    )
    .unwrap();
    for (flags, count) in [(&["--keep-schedule"][..], 0), (&[], 2)] {
        run_well(&[&["import", "--addr", &addr], flags].concat(), &[&file]);
        assert_eq!(drain(&broker, "b").len(), count, "{flags:?}");
    }
}

/// They are gone with their sessions, and a SEND to their names is refused.
#[test]
fn temporary_queues_are_exported_by_name_alone() {
    let world = World::new();
    let broker = world.settings.start();
    let mut client = broker.connect();
    let subscribe = [("id", "1"), ("destination", "/temp-queue/x"), ("ack", "client")];
    client.request("SUBSCRIBE", &subscribe, b"").unwrap();
    client
        .send("SEND", &[("destination", "/temp-queue/x")], b"reply")
        .unwrap();
    let message = client.expect().unwrap();
    assert_eq!(
        (message.command.as_str(), &message.body[..]),
        ("MESSAGE", &b"reply"[..])
    );
    send(&mut broker.connect(), "a", &[], b"kept");
    let data = ["--data-dir", world.data().to_str().unwrap()];
    let queues = |args: &[&str]| -> Vec<String> {
        let said = run_well(&[args, &data].concat(), &[]);
        let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .map(|line: Value| line["queue"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = run_well(&[&["queues", "--json"], &data[..]].concat(), &[]);
    let temporary = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|queue| !queue["owner"].is_null())
        .unwrap();
    assert_eq!(temporary["depth"], 1);
    let temporary = temporary["name"].as_str().unwrap();
    assert_eq!(queues(&["export", "--queue", temporary]), [temporary]);
    assert_eq!(queues(&["export", "--all"]), ["a"]);
    let file = world.path("temporary");
    let export = [&["export", "--queue", temporary], &data[..]].concat();
    fs::write(&file, run_well(&export, &[])).unwrap();
    let addr = broker.addr().to_string();
    let said = refused(&["import", "--addr", &addr], &[&file], 1);
    assert!(said.contains("bad destination"), "{said}");
    run_well(&["import", "--to", "b", "--addr", &addr], &[&file]);
    assert_eq!(drain(&broker, "b")[0].body, b"reply");
}

/// What is answered to whoever asks for a body.
#[derive(Clone, Copy)]
enum Told {
    /// So many bytes, of so many that were announced.
    Bytes(usize, usize),
    Refusal(&'static str),
}

/// An API with one queue of two messages, of which the first has a body that no page holds.
struct FakeApi {
    queues: String,
    messages: String,
}

impl FakeApi {
    const BODY_BYTES: usize = 5 << 20;

    /// Its answers are those of a broker, but for the length of the body.
    fn new(world: &World, body_bytes: usize) -> Self {
        let broker = world.settings.start();
        let mut client = broker.connect();
        send(&mut client, "a", &[], &vec![b'x'; Self::BODY_BYTES]);
        send(&mut client, "a", &[], b"small");
        let socket = world.data().join("api.sock");
        let text = |path: &str| ask(&socket, "GET", path, "").unwrap().text().to_owned();
        let told = format!("\"body_bytes\":{}", Self::BODY_BYTES);
        let messages = text("/v1/queues/a/messages?body=whole");
        assert!(messages.contains(&told));
        let fake = Self {
            queues: text("/v1/queues"),
            messages: messages.replace(&told, &format!("\"body_bytes\":{body_bytes}")),
        };
        broker.stop();
        fake
    }

    /// What `export` says while this API answers.
    fn export(&self, world: &World, told: Told, to: &Path) -> Output {
        let socket = world.data().join("api.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            let mut child = command(
                &["export", "--all", "--format", "frames", "--data-dir"],
                &[world.data()],
            )
            .stdout(fs::File::create(to).unwrap())
            .spawn()
            .unwrap();
            let over = scope.spawn(|| {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut head = String::new();
                    if BufReader::new(&stream).read_line(&mut head).unwrap() == 0 {
                        return;
                    }
                    // Whoever broke off the exchange has the answer that he wanted.
                    let _ = self.answer(&mut stream, &head, told);
                }
            });
            child.wait().unwrap();
            // A connection without a request ends the API.
            drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
            over.join().unwrap();
            child.wait_with_output().unwrap()
        })
    }

    fn answer(&self, stream: &mut impl Write, head: &str, told: Told) -> io::Result<()> {
        let path = head.split(' ').nth(1).unwrap();
        let (status, len, body): (_, _, Box<dyn Read>) = match told {
            _ if path.ends_with("/body") => match told {
                Told::Bytes(count, len) => ("200 OK", len, Box::new(io::repeat(b'x').take(count as u64))),
                Told::Refusal(code) => {
                    let text = format!("{{\"code\":\"{code}\",\"message\":\"no\"}}");
                    ("500 No", text.len(), Box::new(io::Cursor::new(text)))
                }
            },
            _ => {
                let text = if path.contains("/messages") {
                    &self.messages
                } else {
                    &self.queues
                };
                ("200 OK", text.len(), Box::new(io::Cursor::new(text.clone())))
            }
        };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n")?;
        io::copy(&mut { body }, stream)?;
        Ok(())
    }
}

#[test]
fn what_export_could_not_read_is_told() {
    let world = World::new();
    let len = FakeApi::BODY_BYTES;
    let api = FakeApi::new(&world, len);
    let to = world.path("a.stomp");
    let export = |told| api.export(&world, told, &to);
    let exported = || {
        let bytes = fs::read(&to).unwrap();
        (bytes.len() > len, bytes.ends_with(b"small\0\n"))
    };
    let output = export(Told::Bytes(len, len));
    assert_eq!(
        (output.status.code(), exported()),
        (Some(0), (true, true)),
        "{output:?}"
    );
    // Only these two say that the message has left its queue.
    for code in ["message-unknown", "queue-unknown"] {
        let output = export(Told::Refusal(code));
        assert_eq!(
            (output.status.code(), exported()),
            (Some(0), (false, true)),
            "{output:?}"
        );
    }
    let said = refusal(&export(Told::Refusal("store-damaged")), 1);
    assert!(said.contains("(store-damaged)"), "{said}");
    // Shorter than it is stored, ended well or broken off: the rest is exported all the same.
    for told in [Told::Bytes(len - 1, len - 1), Told::Bytes(len - 1, len)] {
        let said = refusal(&export(told), 1);
        assert!(
            said.contains("1 message could not be read and not exported"),
            "{said}"
        );
        assert!(said.contains("in queue a"), "{said}");
        assert_eq!(exported(), (false, true));
    }
}

#[test]
fn the_longest_body_is_exported_whole() {
    let world = World::new();
    let len = (256 << 20) + 4_096;
    let api = FakeApi::new(&world, len);
    let to = world.path("a.stomp");
    let output = api.export(&world, Told::Bytes(len, len), &to);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(fs::metadata(&to).unwrap().len() > len as u64);
}

#[test]
fn an_export_that_nobody_reads_to_its_end_is_none() {
    let world = World::new();
    let broker = world.settings.start();
    let mut client = broker.connect();
    for _ in 0..20 {
        send(&mut client, "a", &[], &[b'x'; 100_000]);
    }
    let head = |args: &[&str]| {
        let mut child = command(args, &[Path::new("--data-dir"), world.data()])
            .spawn()
            .unwrap();
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        child.wait_with_output().unwrap()
    };
    let said = refusal(&head(&["export", "--all"]), 1);
    assert!(said.contains("cannot write to standard output"), "{said}");
    // Who only looks has seen what he wanted.
    let output = head(&["peek", "a", "--body", "--json", "--count", "20"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
