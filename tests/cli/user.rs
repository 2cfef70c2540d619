//! `steadfast user`, and that nothing secret is told by the real program.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::Value;

use super::admin::terminal;
use super::rig::{Client, Settings, http};

const SECRET: &str = "correct horse battery";

struct World {
    settings: Settings,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::in_dir(dir.path());
        settings.config = "[log]\nlevel = \"trace\"\n".to_owned();
        Self { settings, dir }
    }

    fn file(&self) -> PathBuf {
        self.settings.data_dir.join("users.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command
            .env_clear()
            .arg("user")
            .args(args)
            .arg("--data-dir")
            .arg(&self.settings.data_dir);
        command
    }

    /// Runs a command with this on its standard input.
    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails early does not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn said(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str], input: &str, expected: &str) {
        let output = self.run(args, input);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), &*output.stdout),
            (Some(2), &b""[..]),
            "{errors}"
        );
        assert_eq!(errors, format!("error: {expected}\n"));
    }

    fn users(&self) -> Vec<Value> {
        let lines = self.said(&["list", "--json"], "");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[test]
fn users_are_added_changed_and_removed() {
    let world = World::new();
    let file = world.file();
    let told = |what: &str| {
        format!(
            "user {what} {}; SIGHUP makes a running broker read it\n",
            file.display()
        )
    };
    let added = world.said(
        &[
            "add",
            "alice",
            "--group",
            "orders",
            "--group",
            "all",
            "--password-stdin",
        ],
        "the right one\n",
    );
    assert_eq!(added, told("alice added to"));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&world.settings.data_dir), 0o700);
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("# Users of Steadfast"), "{first}");
    assert!(first.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !first.contains("the right one"));
    world.said(&["add", "bob", "--uid", "1001", "--no-password"], "");
    assert_eq!(world.said(&["disable", "bob"], ""), told("bob disabled in"));
    let alice = serde_json::json!({"name": "alice", "groups": ["orders", "all"], "disabled": false, "uid": null, "has_password": true});
    let bob = serde_json::json!({"name": "bob", "groups": [], "disabled": true, "uid": 1001, "has_password": false});
    assert_eq!(world.users(), [alice.clone(), bob]);
    assert_eq!(
        world.said(&["list"], ""),
        "USER        GROUPS  PASSWORD   UID  DISABLED\n\
         alice  orders, all       yes              no\n\
         bob                       no  1001       yes\n"
    );
    assert_eq!(world.said(&["enable", "bob"], ""), told("bob enabled in"));
    // The same password again has another salt.
    assert_eq!(
        world.said(
            &["passwd", "alice", "--password-stdin"],
            "the right one\r\nwhat follows is not read"
        ),
        told("alice has a new password in")
    );
    let hash = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("password"))
            .unwrap()
            .to_owned()
    };
    assert_ne!(hash(&fs::read_to_string(&file).unwrap()), hash(&first));
    assert_eq!(world.said(&["remove", "bob"], ""), told("bob removed from"));
    assert_eq!(world.users(), [alice]);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let world = World::new();
    let file = world.file();
    let missing = format!(
        "there is no users file {}; `steadfast user add NAME` makes one",
        file.display()
    );
    world.refused(&["list"], "", &missing);
    world.refused(
        &["add", "alice", "--password-stdin"],
        "",
        "a password has 8 characters at least",
    );
    world.refused(
        &["add", "alice", "--password-stdin"],
        "short\n",
        "a password has 8 characters at least",
    );
    let form = "a password is text without control characters and without spaces around it";
    world.refused(&["add", "alice", "--password-stdin"], "with\ta tab\n", form);
    let terminal =
        "standard input is no terminal to ask for the password at; --password-stdin reads it from there";
    world.refused(&["add", "alice"], "the right one\n", terminal);
    assert!(!file.exists(), "nothing was written");
    world.said(&["add", "alice", "--no-password"], "");
    let exists = "there is a user alice already; `steadfast user passwd alice` sets another password";
    world.refused(&["add", "alice", "--no-password"], "", exists);
    let unknown = format!(
        "there is no user bob in {}; `steadfast user list` shows who there is",
        file.display()
    );
    for command in ["remove", "disable", "enable"] {
        world.refused(&[command, "bob"], "", &unknown);
    }
    world.refused(
        &["passwd", "bob", "--password-stdin"],
        "the right one\n",
        &unknown,
    );
    fs::write(&file, "[[user]]\nname = \"alice\"\npassword = \"in the clear\"\n").unwrap();
    let wrong = format!(
        "{}, line 3: password is an argon2id hash, as `steadfast user passwd` writes it",
        file.display()
    );
    world.refused(&["list"], "", &wrong);
    world.refused(&["add", "bob", "--no-password"], "", &wrong);
    assert_eq!(
        fs::read_to_string(&file).unwrap().lines().count(),
        3,
        "nothing was changed"
    );
    // Nor does a broker start with it.
    let serve = Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&world.settings.data_dir)
        .output()
        .unwrap();
    assert_eq!(serve.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(serve.stderr).unwrap(),
        format!("error: {wrong}\n")
    );
}

/// Reads from a terminal until this is on it.
fn await_text(master: &mut File, expected: &str) -> String {
    let mut shown = String::new();
    let mut chunk = [0; 256];
    while !shown.ends_with(expected) {
        let count = master.read(&mut chunk).unwrap();
        shown.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    shown
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let world = World::new();
    // How it is typed, twice; what becomes of it.
    for (name, typed, expected) in [
        ("alice", ["the right one\r", "the right one\r"], None),
        ("bob", ["typo\x15the rightt\x7f one\r", "the right one\n"], None),
        (
            "carol",
            ["the right one\r", "the wrong one\r"],
            Some("the two passwords differ; nothing was changed"),
        ),
        (
            "dave",
            ["the right\x03", ""],
            Some("no password was given; nothing was changed"),
        ),
        (
            "eve",
            ["short\r", ""],
            Some("a password has 8 characters at least"),
        ),
    ] {
        let (mut master, slave) = terminal(80, 24);
        let mut child = world
            .command(&["add", name])
            .stdin(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut shown = await_text(&mut master, "Password: ");
        master.write_all(typed[0].as_bytes()).unwrap();
        if !typed[1].is_empty() {
            shown.push_str(&await_text(&mut master, "Again: "));
            master.write_all(typed[1].as_bytes()).unwrap();
        }
        if let Some(expected) = expected {
            shown.push_str(&await_text(&mut master, &format!("error: {expected}\r\n")));
        }
        let status = child.wait().unwrap();
        assert_eq!(
            status.code(),
            Some(if expected.is_some() { 2 } else { 0 }),
            "{name}: {shown}"
        );
        assert!(
            !shown.contains("right") && !shown.contains("short"),
            "{name}: {shown}"
        );
        let modes = tcgetattr(&slave).unwrap().local_modes;
        assert!(
            modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG),
            "{name}: the terminal is as it was"
        );
    }
    let names: Vec<_> = world.users().iter().map(|user| user["name"].clone()).collect();
    assert_eq!(names, ["alice", "bob"]);
    let broker = world.settings.start();
    for name in ["alice", "bob"] {
        assert_eq!(login(&broker, name, "the right one"), "CONNECTED", "{name}");
    }
}

/// What a login is answered.
fn login(broker: &super::rig::Broker, name: &str, passcode: &str) -> String {
    let mut client = Client::open(broker.addr()).unwrap();
    let headers = [
        ("accept-version", "1.2"),
        ("host", "test"),
        ("login", name),
        ("passcode", passcode),
    ];
    client.send("CONNECT", &headers, b"").unwrap();
    client.expect().unwrap().command
}

#[test]
fn nothing_secret_is_in_the_log_the_api_or_the_help() {
    let world = World::new();
    world.said(&["add", "alice", "--password-stdin"], SECRET);
    let users = fs::read_to_string(world.file()).unwrap();
    let hash = users
        .split("p=1$")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let broker = world.settings.start();
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
    assert_eq!(login(&broker, "alice", SECRET), "CONNECTED");
    for (name, passcode) in [
        ("alice", "another horse battery"),
        ("bob", SECRET),
        ("alice", token),
    ] {
        assert_eq!(login(&broker, name, passcode), "ERROR");
    }
    let mut inside = Client::open(broker.addr()).unwrap();
    let headers = [
        ("accept-version", "1.2"),
        ("login", "alice"),
        ("passcode", SECRET),
    ];
    inside.send("CONNECT", &headers, b"").unwrap();
    assert_eq!(inside.expect().unwrap().command, "CONNECTED");
    // A file that is not as it should be is told of without what stands in it.
    fs::write(
        world.file(),
        format!("[[user]]\nname = \"alice\"\npassword = \"{SECRET}\"\n"),
    )
    .unwrap();
    broker.signal(Signal::HUP);
    let api = world.settings.data_dir.join("api.sock");
    let mut told = String::new();
    for path in ["/v1/status", "/v1/connections", "/v1/store", "/metrics"] {
        told.push_str(http::ask(&api, "GET", path, "").unwrap().text());
    }
    assert!(told.contains("alice"), "the user is shown");
    for command in ["serve", "user", "send", "bench"] {
        let help = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .env("STEADFAST_PASSCODE", SECRET)
            .args([command, "--help"])
            .output()
            .unwrap();
        told.push_str(&String::from_utf8(help.stdout).unwrap());
    }
    world.said(&["list", "--users-file", "/dev/null"], "");
    drop(inside);
    broker.stop();
    let log = fs::read_to_string(world.settings.log.with_extension("err")).unwrap();
    told.push_str(&log);
    for line in [
        "login accepted",
        "login denied",
        "wrong-password",
        "unknown-user",
        "users and keys were not read again",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    for secret in [SECRET, "another horse", "eyJhbGci", &hash, "c2lnbmF0dXJl"] {
        assert!(!told.contains(secret), "{secret} is told:\n{told}");
    }
}

#[test]
fn users_added_at_once_are_all_there() {
    let world = World::new();
    world.said(&["add", "first", "--no-password"], "");
    let names: Vec<_> = (0..8).map(|number| format!("user{number}")).collect();
    let children = names.iter().map(|name| {
        let mut command = world.command(&["add", name, "--no-password"]);
        command.stdout(Stdio::null()).spawn().unwrap()
    });
    for mut child in children.collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    let there: Vec<_> = world
        .users()
        .iter()
        .map(|user| user["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(there, [&["first".to_owned()][..], &names].concat());
}

/// `serve` until it listens, or ends: what it said on standard output and on standard error, and its exit code if it ended.
fn serve(world: &World, args: &[&str], variables: &[(&str, &str)]) -> (String, String, Option<i32>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(["serve", "--data-dir"])
        .arg(&world.settings.data_dir)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !said.contains("listening on") && lines.read_line(&mut said).unwrap() > 0 {}
    // Where it has ended there is nothing to kill.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    (
        said,
        String::from_utf8(output.stderr).unwrap(),
        output.status.code(),
    )
}

#[test]
fn with_users_others_may_reach_it_and_a_listener_without_asking_is_refused() {
    let world = World::new();
    let everywhere = ["--listen", "0.0.0.0:0"];
    let refusal = "refused to listen on 0.0.0.0:0";
    let (said, errors, code) = serve(&world, &everywhere, &[]);
    assert!(
        said.is_empty() && errors.starts_with("error: --listen: ") && errors.contains(refusal),
        "{said}{errors}"
    );
    assert_eq!(code, Some(2));
    world.said(&["add", "alice", "--no-password"], "");
    let (said, errors, _) = serve(&world, &everywhere, &[]);
    assert!(said.contains("listening on 0.0.0.0:"), "{said}{errors}");
    assert!(errors.contains("passcodes pass in the clear here"), "{errors}");
    let config = world.dir.path().join("open.toml");
    fs::write(
        &config,
        "[[listener]]\naddress = \"0.0.0.0:0\"\nauthentication = [\"password\", \"none\"]\n",
    )
    .unwrap();
    let (_, errors, code) = serve(&world, &["--config", config.to_str().unwrap()], &[]);
    assert!(errors.contains(refusal), "{errors}");
    assert_eq!(code, Some(2));
    let (said, ..) = serve(
        &world,
        &["--config", config.to_str().unwrap(), "--insecure-allow-anonymous"],
        &[],
    );
    assert!(said.contains("listening on 0.0.0.0:"), "{said}");
}

#[test]
fn what_logins_are_judged_by_has_to_be_there_at_a_start() {
    let world = World::new();
    let missing = world.dir.path().join("missing.toml");
    let missing = missing.to_str().unwrap();
    let local = ["--listen", "127.0.0.1:0"];
    let (_, errors, code) = serve(&world, &local, &[("STEADFAST_SECURITY_USERS_FILE", missing)]);
    let expected = format!("error: there is no users file {missing}; `steadfast user add NAME` makes one\n");
    assert_eq!((errors, code), (expected, Some(2)));
    let key = world.dir.path().join("key");
    fs::write(&key, "a short secret\n").unwrap();
    let keys = format!("HS256:{}", key.display());
    let (_, errors, code) = serve(&world, &local, &[("STEADFAST_SECURITY_JWT_KEYS", &keys)]);
    let expected = format!(
        "error: the key {} for HS256 cannot be used: the secret of HS256 has 32 bytes at least\n",
        key.display()
    );
    assert_eq!((errors, code), (expected, Some(2)));
}

#[test]
fn audit_is_told_whatever_the_level() {
    let mut world = World::new();
    world.settings.config = "[log]\nlevel = \"error\"\n".to_owned();
    world.said(&["add", "alice", "--password-stdin"], SECRET);
    let broker = world.settings.start();
    assert_eq!(login(&broker, "alice", SECRET), "CONNECTED");
    assert_eq!(login(&broker, "alice", "another horse"), "ERROR");
    broker.stop();
    let log = fs::read_to_string(world.settings.log.with_extension("err")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.contains("steadfast::audit: login ")),
        "{log}"
    );
}
