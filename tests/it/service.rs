//! What a service manager is told, and when.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, PATIENCE};

/// A manager, and the service that it has started.
struct Managed {
    socket: UnixDatagram,
    child: Child,
    address: std::net::SocketAddr,
    dir: tempfile::TempDir,
}

impl Managed {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // A port that was free a moment ago: the manager knows it before the broker says anything.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        std::fs::write(dir.path().join("steadfast.toml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["serve", "--listen", &address.to_string()])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--config")
            .arg(dir.path().join("steadfast.toml"))
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .env("WATCHDOG_USEC", "2000000")
            .env("STEADFAST_LIMITS_DISK_FREE_BYTES_MIN", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            socket,
            child,
            address,
            dir,
        }
    }

    /// The next that is told.
    fn told(&self) -> String {
        let mut text = [0; 1024];
        let len = self.socket.recv(&mut text).expect("it is told in time");
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    /// The next that is told beside signs of life.
    fn told_of_state(&self) -> String {
        loop {
            let told = self.told();
            if told != "WATCHDOG=1\n" {
                return told;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // Where it has ended, and was waited for, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_is_ready_when_it_listens_and_stopping_when_it_stops() {
    let mut managed = Managed::start("");
    assert_eq!(managed.told_of_state(), "STATUS=reading the store\n");
    let ready = managed.told_of_state();
    assert!(
        ready.starts_with("READY=1\nSTATUS=recovered 0 messages in 0 queues in "),
        "{ready}"
    );
    // No retry: it listens.
    let mut client = Client::connect(managed.address);
    client.publish("q", "kept", "r");
    client.expect_receipt("r");
    while managed.told() != "WATCHDOG=1\n" {}
    managed.signal(Signal::TERM);
    assert_eq!(
        managed.told_of_state(),
        "STOPPING=1\nSTATUS=answering what is due\n"
    );
    client.expect_error();
    client.expect_end();
    drop(client);
    assert_eq!(managed.child.wait().unwrap().code(), Some(0));
    TcpStream::connect(managed.address).expect_err("nobody listens any more");
}

#[test]
fn a_reload_begins_and_ends_in_its_sight() {
    let managed = Managed::start("");
    while !managed.told_of_state().starts_with("READY=1\n") {}
    for config in ["[limits]\nbody_bytes_max = 10\n", "nonsense"] {
        std::fs::write(managed.dir.path().join("steadfast.toml"), config).unwrap();
        managed.signal(Signal::HUP);
        let reloading = managed.told_of_state();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let since = since.and_then(|since| since.trim_end().parse::<u64>().ok());
        assert!(since.is_some_and(|since| since > 0), "{reloading}");
        // What it was ready for it still is, with mistakes in the file, too.
        let ready = managed.told_of_state();
        assert!(ready.starts_with("READY=1\nSTATUS="), "{ready}");
    }
    let mut client = Client::connect(managed.address);
    client.publish("q", "more than ten bytes", "r");
    assert_eq!(client.expect_error().header("code"), "body-too-long");
}
