//! Client libraries that nobody here wrote, doing a full job with the real program in each version they speak: connect,
//! SEND with receipt, the ack modes, ACK and NACK, transactions over two queues, a topic, an ERROR, heart-beats,
//! DISCONNECT; then the program is killed and started again, and they find what they left.
//!
//! The libraries are pinned beside their scripts in `tests/foreign/` and installed under `target/` by the first test that
//! needs them. One that cannot be installed fails its test.
//!
//! The other way round, our own commands with a broker that nobody here wrote: RabbitMQ, Debian's package, which
//! `scripts/test` installs. Where it is missing its test fails.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

#[path = "rig/certificates.rs"]
mod certificates;
#[path = "foreign/page.rs"]
mod page;
mod rig;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use certificates::Folder;
use rig::Settings;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

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

/// The job, a kill, a restart, and the rest of the job; with the first listener, or with one of its own whose other keys these are.
fn full_job(version: &str, listener: &str, command: impl Fn() -> Command) {
    full_job_of(&[], version, listener, command);
}

/// The same where there are users, each added with these arguments.
fn full_job_of(users: &[&[&str]], version: &str, listener: &str, command: impl Fn() -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    users.iter().for_each(|user| add_user(&settings, user));
    if !listener.is_empty() {
        settings.config = listener_of(listener);
    }
    for phase in ["first", "again"] {
        let broker = settings.start();
        let port = match listener {
            "" => broker.addr().port(),
            _ => broker.listener(1).port(),
        };
        let port = port.to_string();
        run(command().args([&port, version, phase]));
        broker.kill();
    }
}

/// What every user of these tests has.
const PASSCODE: &str = "päss: wörd";

fn add_user(settings: &Settings, args: &[&str]) {
    let mut add = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    add.env_clear()
        .args(["user", "add"])
        .args(args)
        .arg("--data-dir")
        .arg(&settings.data_dir);
    let mut child = add.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // One that is added without a password reads none.
    let _ = child.stdin.take().unwrap().write_all(PASSCODE.as_bytes());
    assert!(child.wait().unwrap().success(), "{args:?}");
}

/// The configuration of a listener with these keys, on any free port.
fn listener_of(keys: &str) -> String {
    format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{keys}")
}

/// The script with stomp.py.
fn stomp_py_command() -> Command {
    let mut command = Command::new(python());
    command
        .arg(scripts().join("stomp_py.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn stomp_py(version: &str) {
    full_job(version, "", stomp_py_command);
}

/// The keys of a listener that has the certificate of a folder.
fn tls_keys(transport: &str, folder: &Folder) -> String {
    format!(
        "transport = \"{transport}\"\ncertificate_file = {:?}\nkey_file = {:?}\n",
        folder.path("server.pem"),
        folder.path("server.key")
    )
}

#[test]
fn stomp_py_over_tls() {
    let folder = Folder::new();
    full_job("1.2", &tls_keys("tls", &folder), || {
        let mut command = stomp_py_command();
        command.env("TEST_CA", folder.path("ca.pem"));
        command
    });
}

#[test]
fn stomp_py_with_a_password() {
    let alice: &[&str] = &["alice", "--password-stdin"];
    let as_alice = |passcode: &str| {
        let mut command = stomp_py_command();
        command.env("TEST_LOGIN", "alice").env("TEST_PASSCODE", passcode);
        command
    };
    for version in ["1.0", "1.2"] {
        full_job_of(&[alice], version, "", || as_alice(PASSCODE));
    }

    // With another one, nothing.
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::in_dir(dir.path());
    add_user(&settings, alice);
    let broker = settings.start();
    let port = broker.addr().port().to_string();
    let denied = as_alice("another")
        .args([&port, "1.2", "first"])
        .output()
        .unwrap();
    assert!(!denied.status.success());
    let log = broker.stop();
    assert!(
        log.contains("login denied") && log.contains("wrong-password"),
        "{log}"
    );
}

/// The certificate is the login: nothing is said in CONNECT.
#[test]
fn stomp_py_as_the_user_of_its_certificate() {
    let folder = Folder::new();
    let (certificate, key) = folder.authority.client("alice");
    folder.write("alice.pem", &certificate);
    folder.write("alice.key", &key);
    let asked = format!(
        "{}client_certificate = \"optional\"\nclient_ca_file = {:?}\nauthentication = [\"certificate\"]\n",
        tls_keys("tls", &folder),
        folder.path("ca.pem")
    );
    full_job_of(&[&["alice", "--no-password"]], "1.2", &asked, || {
        let mut command = stomp_py_command();
        command
            .env("TEST_CA", folder.path("ca.pem"))
            .env("TEST_CERTIFICATE", folder.path("alice.pem"))
            .env("TEST_KEY", folder.path("alice.key"));
        command
    });
}

#[test]
fn stomp_py_with_a_certificate() {
    let folder = Folder::new();
    let (certificate, key) = folder.authority.client("alice");
    folder.write("alice.pem", &certificate);
    folder.write("alice.key", &key);
    let asked = format!(
        "{}client_certificate = \"required\"\nclient_ca_file = {:?}\n",
        tls_keys("tls", &folder),
        folder.path("ca.pem")
    );
    full_job("1.1", &asked, || {
        let mut command = stomp_py_command();
        command
            .env("TEST_CA", folder.path("ca.pem"))
            .env("TEST_CERTIFICATE", folder.path("alice.pem"))
            .env("TEST_KEY", folder.path("alice.key"));
        command
    });

    // Without it, nothing.
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        config: listener_of(&asked),
        ..Settings::in_dir(dir.path())
    };
    let broker = settings.start();
    let port = broker.listener(1).port();
    // Not by stomp.py, which over TLS may wait for ever: it takes the end of a connection for nothing to read.
    let refused = openssl(port, &folder, &["-tls1_2"]);
    assert!(refused.contains("alert certificate required"), "{refused}");
    let log = fs::read_to_string(settings.log.with_extension("err")).unwrap();
    assert!(log.contains("closed before it could speak STOMP"), "{log}");
    assert!(log.contains("peer sent no certificates"), "{log}");
    broker.stop();
}

/// What openssl says of a handshake.
fn openssl(port: u16, folder: &Folder, args: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
        .arg(folder.path("ca.pem"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is there, as scripts/test sees to");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_settings_of_tls_hold_from_outside() {
    let folder = Folder::new();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        config: listener_of(&tls_keys("tls", &folder)),
        ..Settings::in_dir(dir.path())
    };
    let broker = settings.start();
    let port = broker.listener(1).port();
    let handshake = |args: &[&str]| openssl(port, &folder, args);
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = handshake(&[version]);
        for expected in [name, "Verify return code: 0 (ok)", "Compression: NONE"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
    for old in ["-tls1", "-tls1_1"] {
        let said = handshake(&[old, "-cipher", "ALL:@SECLEVEL=0"]);
        // The broker's own word, not that of openssl.
        assert!(said.contains("SSL alert number"), "{old}: {said}");
        assert!(said.contains("Cipher is (NONE)"), "{old}: {said}");
    }
    // Nothing without forward secrecy, without encryption, or with CBC.
    for weak in [
        "kRSA",
        "aNULL:eNULL",
        "AES128-SHA:AES256-SHA",
        "ECDHE+AES+SHA1:ECDHE+SHA256:!AESGCM",
    ] {
        let said = handshake(&["-tls1_2", "-cipher", &format!("{weak}:@SECLEVEL=0")]);
        assert!(said.contains("alert handshake failure"), "{weak}: {said}");
    }
    broker.stop();
}

#[test]
fn a_new_certificate_is_shown_from_sighup_on() {
    let folder = Folder::new();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        config: listener_of(&tls_keys("tls", &folder)),
        ..Settings::in_dir(dir.path())
    };
    let broker = settings.start();
    let port = broker.listener(1).port();
    let log = settings.log.with_extension("err");
    let await_line = |line: &str| {
        let start = Instant::now();
        while !fs::read_to_string(&log).unwrap().contains(line) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "not in the log: {line}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let hang_up = || {
        let pid = Pid::from_raw(i32::try_from(broker.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    };
    let shown = |name: &str| {
        let said = openssl(port, &folder, &[]);
        assert!(said.contains(&format!("subject=CN = {name}\n")), "{said}");
    };
    shown("first");
    folder.renew("second");
    hang_up();
    await_line("certificates read again");
    shown("second");
    folder.write("server.pem", "nonsense");
    hang_up();
    await_line("the certificates were not read again, the old ones stay: there is no certificate in");
    shown("second");
    broker.stop();
}

#[test]
fn stomp_py_with_a_listener_of_its_dialect() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        config: listener_of("dialect = \"rabbitmq\"\n"),
        ..Settings::in_dir(dir.path())
    };
    let broker = settings.start();
    let port = broker.listener(1).port();
    for version in ["1.0", "1.1", "1.2"] {
        run(Command::new(python())
            .arg(scripts().join("stomp_py.py"))
            .args([&port.to_string(), version, "rabbitmq"])
            .env("PYTHONDONTWRITEBYTECODE", "1"));
    }
    broker.stop();
}

fn node_command(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(node().join(script));
    command
}

fn by_node(script: &str, version: &str) {
    full_job(version, "", || node_command(script));
}

#[test]
fn stompjs_over_websocket() {
    for version in ["1.0", "1.1", "1.2"] {
        full_job(version, "transport = \"ws\"\n", || {
            let mut command = node_command("stompjs.mjs");
            command.env("TEST_SCHEME", "ws");
            command
        });
    }
}

#[test]
fn stompjs_over_websocket_and_tls() {
    let folder = Folder::new();
    let alice: &[&str] = &["alice", "--password-stdin"];
    full_job_of(&[alice], "1.2", &tls_keys("wss", &folder), || {
        let mut command = node_command("stompjs.mjs");
        command
            .env("TEST_SCHEME", "wss")
            .env("TEST_LOGIN", "alice")
            .env("TEST_PASSCODE", PASSCODE)
            .env("NODE_EXTRA_CA_CERTS", folder.path("ca.pem"));
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

/// RabbitMQ with its STOMP plugin, in a folder of its own and on ports of its own. Dropping it ends it.
struct Rabbit {
    server: Child,
    /// In which Erlang notes its nodes; it would start one that outlives it.
    nodes: Child,
    stomp_port: u16,
    dir: tempfile::TempDir,
}

impl Rabbit {
    fn start() -> Self {
        let program = "/usr/lib/rabbitmq/bin/rabbitmq-server";
        assert!(
            Path::new(program).exists(),
            "RabbitMQ is missing: install Debian's package rabbitmq-server, as scripts/test does"
        );
        // All at once, so that they differ.
        let ports = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [stomp_port, amqp_port, node_port, epmd_port] =
            ports.map(|port| port.local_addr().unwrap().port());
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp_port}\nstomp.listeners.tcp.1 = 127.0.0.1:{stomp_port}\n"
        );
        fs::write(path("rabbitmq.conf"), config).unwrap();
        fs::write(path("plugins"), "[rabbitmq_stomp].").unwrap();
        let nodes = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        await_port(epmd_port, || None);
        let server = Command::new(program)
            .env("HOME", dir.path())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("RABBITMQ_NODENAME", "steadfast-test@localhost")
            .env("RABBITMQ_DIST_PORT", node_port.to_string())
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("generated"))
            .env("RABBITMQ_SCHEMA_DIR", path("schema"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(path("out")).unwrap())
            .stderr(fs::File::create(path("err")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut rabbit = Self {
            server,
            nodes,
            stomp_port,
            dir,
        };
        await_port(stomp_port, || {
            let ended = rabbit.server.try_wait().unwrap()?;
            let said = |name| fs::read_to_string(rabbit.dir.path().join(name)).unwrap_or_default();
            Some(format!("RabbitMQ {ended}\n{}{}", said("out"), said("err")))
        });
        rabbit
    }

    /// What a command of ours, logged in there, prints.
    fn said(&self, args: &[&str], input: &str) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .env_clear()
            .args(args)
            .args(["--addr", &format!("127.0.0.1:{}", self.stomp_port)])
            .args(["--login", "guest", "--passcode", "guest", "--host", "/"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}\n{problem}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        // What has ended by itself needs no killing.
        let _ = kill_process_group(Pid::from_child(&self.server), Signal::KILL);
        let _ = self.server.wait();
        let _ = self.nodes.kill();
        let _ = self.nodes.wait();
    }
}

/// Waits until somebody listens there; fails where `ended` says why nobody will.
fn await_port(port: u16, mut ended: impl FnMut() -> Option<String>) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = ended();
        assert!(
            ended.is_none() && start.elapsed() < Duration::from_secs(120),
            "nobody listens on {port}: {ended:?}"
        );
        // Neither a stranger's port nor its end can be awaited.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn our_commands_with_a_foreign_broker() {
    let rabbit = Rabbit::start();
    let persistent = ["--header", "persistent:true"];
    let send = |args: &[&str], input: &str| rabbit.said(&[&["send"], args, &persistent].concat(), input);
    let receive = |args: &[&str]| rabbit.said(&[&["receive"], args].concat(), "");

    let header = "note:a\\b: c\n日本";
    let sent = send(&["/queue/one", "one pair of shoes", "--header", header], "");
    assert_eq!(sent, "1 message sent and confirmed\n");
    let message: serde_json::Value =
        serde_json::from_str(&receive(&["/queue/one", "--count", "1", "--json"])).unwrap();
    assert_eq!(message["body"], "one pair of shoes");
    let headers = message["headers"].as_array().unwrap();
    assert!(
        headers.contains(&serde_json::json!(["note", "a\\b: c\n日本"])),
        "{message}"
    );

    let lines: String = (1..=250).map(|number| format!("{number}\n")).collect();
    let sent = send(&["/queue/many", "--lines", "--transaction", "100"], &lines);
    assert_eq!(sent, "250 messages sent and confirmed\n");
    for (ack, count) in [("client", 100), ("client-individual", 50)] {
        let count = count.to_string();
        receive(&["/queue/many", "--count", &count, "--ack", ack]);
    }
    let rest: String = (151..=250).map(|number| format!("{number}\n")).collect();
    assert_eq!(receive(&["/queue/many", "--ack", "auto"]), rest);
    assert_eq!(receive(&["/queue/many"]), "");

    for mode in ["publish", "e2e", "drain", "transactions"] {
        let report = rabbit.said(
            &[&["bench", mode, "--count", "500", "--json"][..], &persistent].concat(),
            "",
        );
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["valid"], true, "{mode}: {report}");
    }
}
