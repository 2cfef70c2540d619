//! The program and its signals.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;

struct Program {
    child: Child,
    address: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

impl Program {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .env("STEADFAST_LIMITS_LINGER_MS_MAX", "60000")
            .env("STEADFAST_SHUTDOWN_MS_MAX", "60000")
            .env("STEADFAST_LIMITS_DISK_FREE_BYTES_MIN", "0")
            .env("STEADFAST_HEART_BEAT_INTERVAL_MS_MIN", "50")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening on ").map(str::to_owned))
            .expect("it says where it listens");
        // What it says later has no reader, which must not trouble it.
        Self {
            child,
            address: address.parse().unwrap(),
            _dir: dir,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Where it has ended, and was waited for, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn either_signal_stops_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let program = Program::start();
        let mut client = Client::connect(program.address);
        client.publish("q", "kept", "r");
        client.expect_receipt("r");
        program.signal(signal);
        client.expect_error();
        client.expect_end();
        drop(client);
        assert_eq!(program.exit_code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let program = Program::start();
    let mut client = Client::connect(program.address);
    program.signal(Signal::TERM);
    // It lingers for this client, which does not close.
    client.expect_error();
    client.expect_end();
    program.signal(Signal::TERM);
    assert_eq!(program.exit_code(), Some(1));
}

#[test]
fn a_broker_that_stood_still_does_not_blame_its_clients() {
    let program = Program::start();
    let mut client = Client::dial(program.address);
    client.send("CONNECT\naccept-version:1.2\nhost:test\nheart-beat:100,50\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
    program.signal(Signal::STOP);
    let start = Instant::now();
    // Twice the interval is its margin: beyond it a silent client is dead.
    while start.elapsed() < Duration::from_millis(600) {
        client.send("\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.publish("q", "alive", "r");
    program.signal(Signal::CONT);
    client.expect_receipt("r");
}
