//! `send` and `receive` against the real broker, as somebody at a shell would use them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::rig::{Broker, Settings};

/// A broker, and commands that talk to it.
struct World {
    // Killed before its folder goes.
    broker: Option<Broker>,
    settings: Settings,
    addr: String,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::in_dir(dir.path());
        let broker = settings.start();
        Self {
            addr: broker.addr().to_string(),
            broker: Some(broker),
            settings,
            _dir: dir,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command
            .env_clear()
            .args(args)
            .args(["--addr", &self.addr])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(broker) = self.broker.as_ref().filter(|_| said.contains("onnect")) {
            eprintln!("the end of the broker's log:\n{}", broker.log_end());
        }
        output
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    fn send(&self, args: &[&str], expect: &str) {
        told(&self.run(&[&["send"], args].concat()), 0, expect, "");
    }

    /// What a command takes from a queue.
    fn receive(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(&[&["receive"], args].concat());
        told_bytes(&output, 0, None, "");
        output.stdout
    }

    /// Receives what is there, and looks only at how much.
    fn count(&self, queue: &str) -> usize {
        let output = self.run(&["receive", queue, "--json", "--timeout-ms", "500"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout.split_inclusive(|byte| *byte == b'\n').count()
    }
}

fn told(output: &Output, code: i32, out: &str, err: &str) {
    told_bytes(output, code, Some(out.as_bytes()), err);
}

fn told_bytes(output: &Output, code: i32, out: Option<&[u8]>, err: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), err);
    assert_eq!(output.status.code(), Some(code));
    if let Some(out) = out {
        assert!(
            output.stdout == out,
            "{:?}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn bytes_go_round_exactly() {
    let world = World::new();
    let confirmed = "1 message sent and confirmed\n";
    let everything: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for body in [&b""[..], b"\0", b"\n", b"text\r\n", &everything] {
        let sent = world.run_with_input(&["send", "/queue/a"], body);
        told(&sent, 0, confirmed, "");
        let raw = world.receive(&["/queue/a", "--count", "1", "--raw"]);
        assert!(raw == body, "{} bytes of {}", raw.len(), body.len());
    }
    world.send(&["/queue/a", "text"], confirmed);
    world.send(&["/queue/a", ""], confirmed);
    assert_eq!(world.receive(&["/queue/a", "--count", "2"]), b"text\n\n");
}

#[test]
fn headers_and_names_go_round_exactly() {
    let world = World::new();
    let odd = "/queue/a b/\"c\":\\d\n\te\u{7f}\u{1b}[31mü";
    let header = "note:one: two\nthree\\four\r";
    world.send(
        &[odd, "\u{1b}]0;x\u{7}", "--header", header, "--header", "empty:"],
        "1 message sent and confirmed\n",
    );
    let json = world.receive(&[odd, "--count", "1", "--json"]);
    let message: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(message["destination"], odd);
    assert_eq!(message["body"], "\u{1b}]0;x\u{7}");
    let headers = message["headers"].as_array().unwrap();
    for pair in [["note", "one: two\nthree\\four\r"], ["empty", ""]] {
        assert!(headers.contains(&serde_json::json!(pair)), "{message}");
    }
    world.run_with_input(&["send", "/queue/a"], b"\xff\0");
    let json = world.receive(&["/queue/a", "--count", "1", "--json"]);
    let message: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&message["body"], &message["body_hex"]),
        (&().into(), &"ff00".into())
    );
}

#[test]
fn lines_counts_and_transactions() {
    let world = World::new();
    let lines: String = (0..3_000).map(|number| format!("line {number}\n")).collect();
    let sent = world.run_with_input(&["send", "/queue/a", "--lines"], lines.as_bytes());
    told(&sent, 0, "3000 messages sent and confirmed\n", "");
    let received = world.receive(&["/queue/a", "--count", "3000", "--ack", "client"]);
    assert!(received == lines.as_bytes());

    let sent = world.run_with_input(&["send", "/queue/a", "--lines", "--count", "2"], b"a\n\nlast");
    told(&sent, 0, "6 messages sent and confirmed\n", "");
    assert_eq!(world.receive(&["/queue/a"]), b"a\na\n\n\nlast\nlast\n");

    world.send(
        &["/queue/a", "t", "--count", "10", "--transaction", "4"],
        "10 messages sent and confirmed\n",
    );
    world.send(
        &["/queue/a", "n", "--count", "2", "--no-receipt"],
        "2 messages sent\n",
    );
    assert_eq!(
        world.receive(&["/queue/a", "--ack", "auto"]),
        b"t\n"
            .repeat(10)
            .into_iter()
            .chain(*b"n\nn\n")
            .collect::<Vec<_>>()
    );
    assert_eq!(world.count("/queue/a"), 0);
}

#[test]
fn each_line_is_confirmed_before_the_next_is_awaited() {
    let world = World::new();
    let mut child = world
        .command(&["send", "/queue/a", "--lines"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in ["one\n", "two\n"] {
        input.write_all(line.as_bytes()).unwrap();
        assert_eq!(world.receive(&["/queue/a", "--count", "1"]), line.as_bytes());
    }
    drop(input);
    told(
        &child.wait_with_output().unwrap(),
        0,
        "2 messages sent and confirmed\n",
        "",
    );
}

#[test]
fn what_is_confirmed_survives_kills() {
    let mut world = World::new();
    world.send(
        &["/queue/a", "kept", "--count", "20"],
        "20 messages sent and confirmed\n",
    );
    world.send(
        &["/queue/a", "gone", "--transient"],
        "1 message sent and confirmed\n",
    );
    world.broker.take().unwrap().kill();
    let refused = world.run(&["receive", "/queue/a"]);
    told(
        &refused,
        1,
        "",
        &format!(
            "error: cannot connect to {}: Connection refused (os error 111); nothing listens there: start a broker \
             (`steadfast serve`), or name another with --addr\n",
            world.addr
        ),
    );
    let broker = world.settings.start();
    world.addr = broker.addr().to_string();
    world.broker = Some(broker);
    let follow = world
        .command(&["receive", "/queue/a", "--follow"])
        .spawn()
        .unwrap();
    let mut follow = Follow::new(follow);
    for _ in 0..20 {
        assert_eq!(follow.line(), "kept\n");
    }
    // Ten of what follows are taken, and the process is killed where it stands.
    world.send(
        &["/queue/a", "more", "--count", "10"],
        "10 messages sent and confirmed\n",
    );
    for _ in 0..10 {
        assert_eq!(follow.line(), "more\n");
    }
    follow.end(rustix::process::Signal::KILL);
    assert!(
        world.count("/queue/a") <= 10,
        "the first twenty were acknowledged long ago"
    );
}

/// The broker dies under a stream of lines: those that were confirmed are there, in their order.
#[test]
fn a_broken_stream_says_how_far_it_came() {
    let mut world = World::new();
    let mut child = world
        .command(&["send", "/queue/a", "--lines"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let lines = (0_u64..).take_while(|number| writeln!(input, "{number}").is_ok());
        lines.count()
    });
    // Some are in, and more are on their way.
    assert_eq!(
        world
            .receive(&["/queue/a", "--count", "1000"])
            .iter()
            .filter(|b| **b == b'\n')
            .count(),
        1000
    );
    world.broker.take().unwrap().kill();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, confirmed) = said.rsplit_once("; confirmed ").unwrap();
    let confirmed: usize = confirmed.split(' ').next().unwrap().parse().unwrap();
    assert!(confirmed >= 1000, "{said}");

    let broker = world.settings.start();
    world.addr = broker.addr().to_string();
    world.broker = Some(broker);
    let rest = String::from_utf8(world.receive(&["/queue/a"])).unwrap();
    let numbers: Vec<usize> = rest.lines().map(|line| line.parse().unwrap()).collect();
    let first = numbers.first().copied().unwrap_or(confirmed);
    assert!(first <= 1000, "{first}");
    assert_eq!(numbers, (first..first + numbers.len()).collect::<Vec<_>>());
    assert!(
        first + numbers.len() >= confirmed,
        "{said} {}",
        first + numbers.len()
    );
}

/// A `receive --follow` and what it prints.
struct Follow {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Follow {
    fn new(mut child: Child) -> Self {
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended");
        line
    }

    /// The exit code and what it said beside.
    fn end(mut self, by: rustix::process::Signal) -> (Option<i32>, String) {
        signal(&self.child, by);
        let mut rest = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn following_connects_again_and_ends_cleanly() {
    let mut world = World::new();
    let mut follow = Follow::new(
        world
            .command(&["receive", "/queue/a", "--follow"])
            .spawn()
            .unwrap(),
    );
    world.send(&["/queue/a", "one"], "1 message sent and confirmed\n");
    assert_eq!(follow.line(), "one\n");
    world.broker.take().unwrap().kill();
    let mut broker = world.settings.spawn_at(&world.addr);
    broker.wait_ready().unwrap();
    world.send(&["/queue/a", "two"], "1 message sent and confirmed\n");
    // An ACK that the kill cut off brings the first one again.
    while follow.line() != "two\n" {}
    let (code, said) = follow.end(rustix::process::Signal::INT);
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].ends_with("; trying again") && lines[1] == "connected again",
        "{said}"
    );
    assert_eq!(world.count("/queue/a"), 0, "what was printed was acknowledged");
    broker.stop();
}

#[test]
fn what_nobody_reads_is_not_acknowledged() {
    let world = World::new();
    let mut follow = Follow::new(
        world
            .command(&["receive", "/queue/a", "--follow"])
            .spawn()
            .unwrap(),
    );
    world.send(&["/queue/a", "one"], "1 message sent and confirmed\n");
    assert_eq!(follow.line(), "one\n");
    drop(follow.out);
    let mut said = String::new();
    follow
        .child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(
        (follow.child.wait().unwrap().code(), said.as_str()),
        (Some(0), "")
    );
    world.send(&["/queue/a", "two"], "1 message sent and confirmed\n");
    assert_eq!(world.receive(&["/queue/a", "--count", "1"]), b"two\n");

    // A body far larger than a pipe: its reader leaves in the middle.
    let large = vec![b'x'; 1 << 20];
    told(
        &world.run_with_input(&["send", "/queue/a"], &large),
        0,
        "1 message sent and confirmed\n",
        "",
    );
    let mut child = world.command(&["receive", "/queue/a"]).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    told(&output, 0, "", "");
    assert_eq!(world.count("/queue/a"), 1);
}

#[test]
fn the_end_of_waiting() {
    let world = World::new();
    told(
        &world.run(&["receive", "/queue/a", "--timeout-ms", "1"]),
        0,
        "",
        "nothing came\n",
    );
    world.send(&["/queue/a", "one"], "1 message sent and confirmed\n");
    told(
        &world.run(&["receive", "/queue/a", "--count", "2", "--timeout-ms", "300"]),
        1,
        "one\n",
        "error: 1 of 2 messages came, and then nothing within --timeout-ms\n",
    );
    told(
        &world.run(&["receive", "/queue/a", "--count", "2", "--ack", "auto"]),
        2,
        "",
        "error: --count with --ack auto would lose what comes after the last one; leave one of them out\n",
    );
    world.send(
        &["/queue/a", "n", "--count", "5"],
        "5 messages sent and confirmed\n",
    );
    assert_eq!(world.receive(&["/queue/a", "--count", "2"]), b"n\nn\n");
    let rest = world.receive(&["/queue/a", "--json"]);
    let rest: Vec<serde_json::Value> = rest
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(rest.len(), 3, "the others stayed");
    for message in rest {
        let headers = message["headers"].as_array().unwrap();
        assert!(
            headers.contains(&serde_json::json!(["delivery-count", "1"])),
            "nobody else was given it: {message}"
        );
    }
}

#[test]
fn what_the_broker_refuses_is_one_line() {
    let world = World::new();
    let refused = world.run(&["send", "/else/a", "x", "--count", "3"]);
    told(
        &refused,
        1,
        "",
        "error: the broker sent ERROR: bad destination (the destination is none for this frame: write /queue/NAME or \
         /topic/NAME, or NAME for a queue; several, separated by commas, in SEND only); confirmed 0 of 3 messages\n",
    );
    let refused = world.run(&["receive", "/else/a", "--follow"]);
    told(
        &refused,
        1,
        "",
        "error: the broker sent ERROR: bad destination (the destination is none for this frame: write /queue/NAME or \
         /topic/NAME, or NAME for a queue; several, separated by commas, in SEND only)\n",
    );
    let odd = world
        .command(&["send", "/queue/a", "x"])
        .args(["--header", "receipt:1"])
        .output()
        .unwrap();
    told(
        &odd,
        2,
        "",
        "error: invalid value 'receipt:1' for '--header <NAME:VALUE>': receipt is set by this command\n\n\
         For more information, try '--help'.\n",
    );
}

/// What a client wrote, up to the NUL of a frame.
fn read_frame(stream: &mut TcpStream) -> String {
    let mut frame = Vec::new();
    let mut byte = [1];
    while byte != [0] {
        stream.read_exact(&mut byte).unwrap();
        frame.extend_from_slice(&byte);
    }
    String::from_utf8(frame).unwrap()
}

/// `receive` beside a stranger that the test plays; gives its command line's end and the first connection.
fn receive_from_stranger(args: &[&str]) -> (Child, TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .env_clear()
        .env("STEADFAST_PASSCODE", "p:w")
        .args(["receive", "/queue/a", "--addr", &addr])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    (child, listener, stream)
}

#[test]
fn login_and_the_words_of_a_stranger() {
    let (child, _listener, mut stream) = receive_from_stranger(&["--login", "me", "--host", "/"]);
    assert_eq!(
        read_frame(&mut stream),
        "CONNECT\naccept-version:1.2\nhost:/\nheart-beat:0,10000\nlogin:me\npasscode:p:w\n\n\0"
    );
    stream
        .write_all(b"ERROR\nmessage:no\\n\x1b[31mred\n\nno such user\nat line 7\n\0")
        .unwrap();
    drop(stream);
    told(
        &child.wait_with_output().unwrap(),
        1,
        "",
        "error: the broker sent ERROR: no \\u{1b}[31mred (no such user)\n",
    );
}

/// A token in a file says who it is: no login name is needed, and the process list shows none of it.
#[test]
fn a_passcode_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "head.claims.sum\r\nnot this\n").unwrap();
    let (mut child, _listener, mut stream) =
        receive_from_stranger(&["--passcode-file", file.to_str().unwrap()]);
    assert!(read_frame(&mut stream).contains("\npasscode:head.claims.sum\n\n\0"));
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("claims"));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A broker that promised heart-beats and is silent for two of them is gone, whatever its socket says.
#[test]
fn a_broker_that_falls_silent_is_left() {
    let (mut child, listener, mut stream) = receive_from_stranger(&["--follow"]);
    assert!(!read_frame(&mut stream).contains("passcode"), "nobody logs in");
    stream
        .write_all(b"CONNECTED\nversion:1.2\nheart-beat:10000,0\n\n\0")
        .unwrap();
    assert!(read_frame(&mut stream).contains("SUBSCRIBE"));
    stream.write_all(b"RECEIPT\nreceipt-id:subscribe\n\n\0").unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(
        errors.next().unwrap().unwrap(),
        "the broker did not answer in time; trying again"
    );
    listener.accept().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}
