//! The real program as a child process.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;

/// How to start it.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    /// Where its output goes: standard output to `<log>.out`, the log to `<log>.err`, each new start appended.
    pub log: PathBuf,
    /// Text of a configuration file; empty for none.
    pub config: String,
    /// Variables of its environment.
    pub variables: Vec<(&'static str, String)>,
    /// How long a start may take.
    pub start_timeout: Duration,
}

impl Settings {
    /// A data folder and a place for logs in a directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            data_dir: dir.join("data"),
            log: dir.join("broker"),
            config: String::new(),
            variables: Vec::new(),
            start_timeout: Duration::from_secs(60),
        }
    }

    fn log_path(&self, end: &str) -> PathBuf {
        self.log.with_extension(end)
    }

    /// Starts it and does not wait for its address.
    pub fn spawn(&self) -> Broker {
        self.spawn_at("127.0.0.1:0")
    }

    /// The same, at a chosen address.
    pub fn spawn_at(&self, listen: &str) -> Broker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", listen]);
        // What steers the tests, or the tester's own broker, is not for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STEADFAST_") {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        if !self.config.is_empty() {
            let path = self.log_path("toml");
            fs::write(&path, &self.config).unwrap();
            command.arg("--config").arg(path);
        }
        let open = |end| {
            File::options()
                .create(true)
                .append(true)
                .open(self.log_path(end))
                .unwrap()
        };
        let (out, err) = (open("out"), open("err"));
        let from = out.metadata().unwrap().len();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the program can be started");
        Broker {
            settings: self.clone(),
            child,
            from: usize::try_from(from).expect("a log is small"),
            addr: None,
        }
    }

    /// Starts it and waits for its address. A program that ends instead, or takes too long, fails the test.
    pub fn start(&self) -> Broker {
        let mut broker = self.spawn();
        match broker.wait_ready() {
            Ok(_) => broker,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The running program. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    child: Child,
    /// Where in the output file this start begins.
    from: usize,
    addr: Option<SocketAddr>,
}

/// Why a start failed, with the end of the log.
#[derive(Debug)]
pub struct StartError {
    pub status: Option<ExitStatus>,
    log: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "the broker ended instead of starting: {status}"),
            None => write!(f, "the broker did not start in time"),
        }?;
        write!(f, "\nthe end of its log:\n{}", self.log)
    }
}

impl Broker {
    /// Waits until it printed its address.
    pub fn wait_ready(&mut self) -> Result<SocketAddr, StartError> {
        let end = Instant::now() + self.settings.start_timeout;
        loop {
            if let Some(addr) = address(&self.output()) {
                self.addr = Some(addr);
                return Ok(addr);
            }
            let status = self.child.try_wait().expect("a child can be waited for");
            if status.is_some() || Instant::now() > end {
                return Err(StartError {
                    status,
                    log: self.log_end(),
                });
            }
            pause();
        }
    }

    /// The address it listens on. Panics before `wait_ready`.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("the broker was waited for")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection, logged in.
    pub fn connect(&self) -> Client {
        match Client::connect(self.addr()) {
            Ok(client) => client,
            Err(error) => {
                let state = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
                panic!(
                    "{error}\nthe broker: {state}\nthe end of its log:\n{}",
                    self.log_end()
                )
            }
        }
    }

    /// What it printed since this start.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.settings.log_path("out")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.from..).unwrap_or_default()).into_owned()
    }

    /// Waits until the listener of this number was told, the first being 0; its address.
    pub fn listener(&self, number: usize) -> SocketAddr {
        let end = Instant::now() + self.settings.start_timeout;
        loop {
            let output = self.output();
            let mut told = output
                .split_inclusive('\n')
                .filter_map(|line| line.strip_prefix("listening on ")?.strip_suffix('\n'));
            if let Some(line) = told.nth(number) {
                let address = line.split(',').next().unwrap_or_default();
                return address.parse().expect("it is an address of the network");
            }
            assert!(Instant::now() < end, "listener {number} was not told: {output}");
            pause();
        }
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        let text = [self.settings.log_path("out"), self.settings.log_path("err")]
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned())
            .concat();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Kills it (SIGKILL) without waiting for its end.
    pub fn kill_begin(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(mut self) -> ExitStatus {
        self.kill_begin();
        self.wait(Duration::from_secs(30)).expect("a killed program ends")
    }

    /// Writes its configuration file anew. It must have had one.
    pub fn rewrite_config(&self, config: &str) {
        assert!(!self.settings.config.is_empty(), "it was started without one");
        fs::write(self.settings.log_path("toml"), config).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; `None` if it did not come in time.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            pause();
        }
    }

    /// Asks it to stop and expects exit code 0 in time. Gives the end of its log.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(30));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "the broker did not stop cleanly; the end of its log:\n{}",
            self.log_end()
        );
        self.log_end()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        1024 * self.status("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        1024 * self.status("VmHWM:")
    }

    /// Addresses in use, in bytes.
    pub fn address_bytes(&self) -> u64 {
        1024 * self.status("VmSize:")
    }

    pub fn thread_count(&self) -> usize {
        self.status("Threads:") as usize
    }

    pub fn descriptor_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a process has a folder of descriptors")
            .count()
    }

    /// A number from the status of the process.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in the status of the process:\n{status}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill_begin();
        self.child.wait().ok();
    }
}

/// The first loopback address with a port in the output.
fn address(output: &str) -> Option<SocketAddr> {
    let (whole_lines, _) = output.rsplit_once('\n')?;
    whole_lines
        .split(|c: char| c.is_whitespace() || "\"',;()/=".contains(c))
        .filter(|word| word.starts_with("127.0.0.1:"))
        .find_map(|word| word.trim_end_matches(['.', ':']).parse().ok())
}

/// The file system and the process table cannot be awaited; they are looked at again after a moment.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
