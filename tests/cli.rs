//! The command line: help, refusals and their exit codes, as snapshots.
//!
//! `SNAPSHOTS=overwrite cargo test --test cli` writes what is printed now into this file; read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

#[path = "cli/acl.rs"]
mod acl;
#[path = "cli/admin.rs"]
mod admin;
#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/bench.rs"]
mod bench;
#[path = "rig/certificates.rs"]
mod certificates;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/damaged.rs"]
mod damaged;
#[path = "cli/exchange.rs"]
mod exchange;
#[path = "cli/messages.rs"]
mod messages;
mod rig;
#[path = "cli/secure.rs"]
mod secure;
#[path = "cli/user.rs"]
mod user;

use std::path::Path;

use check::World;
use rig::Settings;
use snapbox::str;

#[test]
fn help() {
    let world = World::new();
    world.check(
        &["--help"],
        0,
        str![[r#"
A durable message-queue broker that speaks STOMP 1.0, 1.1 and 1.2

Usage: steadfast <COMMAND>

Commands:
  serve        Run the broker until SIGTERM or Ctrl-C
  inspect      Look into the data folder of a stopped broker
  repair       Save what is whole of a damaged store into a new one
  backup       Back up a broker, running or not, into a file
  restore      Make a data folder from a backup
  export       Write messages of queues of the running broker into a stream
  import       Send what was exported to a broker, any that speaks STOMP 1.2
  send         Send messages to a broker, any that speaks STOMP 1.2
  receive      Receive messages from a broker, any that speaks STOMP 1.2
  status       Show the running broker in short
  queues       List the queues of the running broker
  queue        Show or change one queue of the running broker
  peek         Look at messages of a queue without taking them
  connections  List the connections of the running broker, or end one
  user         Show or change who may log in
  policy       Show or change what holds for queues, by pattern of their names
  reload       Make the running broker read its configuration and certificates again
  acl          Say what the rules of the configuration allow
  dlq          List the queues that hold dead letters
  top          Watch the running broker
  bench        Measure a broker, any that speaks STOMP 1.2
  config       The configuration file
  completions  Print a script that completes commands and options in a shell
  man          Print the manual page, or write one for each command
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Examples:
  steadfast serve                                STOMP on 127.0.0.1:61613, data in ./data
  steadfast serve --data-dir /var/lib/steadfast --listen 127.0.0.1:61613 --listen [::1]:61613
  steadfast send /queue/orders 'one pair of shoes'
  steadfast receive /queue/orders
  steadfast queues --sort depth
  steadfast inspect --data-dir /var/lib/steadfast
  steadfast config default > steadfast.toml
  steadfast config check --config steadfast.toml

Every key of the configuration file is also an environment variable, such as
STEADFAST_LIMITS_BODY_BYTES_MAX=1048576. Flags beat the environment, which beats the file, which
beats the defaults.

Exit codes: 0 well, 1 fault, 2 wrong usage or configuration, 3 a flush of the store failed, 4 the
store is damaged or cannot be opened, 5 another broker is using the folder.

"#]],
    );
    world.check(
        &["serve", "--help"],
        0,
        str![[r#"
Run the broker until SIGTERM or Ctrl-C

Usage: steadfast serve [OPTIONS]

Options:
      --data-dir <DIR>              Data folder [default: ./data]
      --config <FILE>               Configuration file; `steadfast config default` prints one
                                    [default: none]
      --listen <ADDR:PORT>          Address to listen on instead of server.listen, any number of
                                    times; port 0 takes a free one [default: 127.0.0.1:61613]
      --metrics-listen <ADDR:PORT>  Address for metrics and health over HTTP; port 0 takes a free
                                    one [default: none]
      --log-format <FORMAT>         Form of log lines on standard error [default: text] [possible
                                    values: text, json]
      --log-level <LEVEL>           Least severe level that is logged [default: info] [possible
                                    values: error, warn, info, debug, trace]
      --insecure-allow-anonymous    Allow addresses that are not loopback although anyone who
                                    reaches them may read and write every queue
  -h, --help                        Print help

Prints the version, the data folder, what was recovered, and `listening on ADDRESS` for each
listener, with its transport unless that is plain (`, tls`) and its dialect unless that is steadfast
(`, dialect rabbitmq`). SIGHUP reads configuration, certificates, users and keys of tokens again, as
`steadfast reload` does. SIGTERM and Ctrl-C answer what is due and end with exit code 0; a second
one ends at once.

Examples:
  steadfast serve
  steadfast serve --data-dir /var/lib/steadfast --listen 127.0.0.1:61613 --log-format json
  STEADFAST_LISTEN=127.0.0.1:0 steadfast serve --config steadfast.toml

"#]],
    );
    world.check(
        &["inspect", "--help"],
        0,
        str![[r#"
Look into the data folder of a stopped broker

Usage: steadfast inspect [OPTIONS]

Options:
      --data-dir <DIR>   Data folder [default: ./data]
      --config <FILE>    Configuration file; `steadfast config default` prints one [default: none]
      --queue <NAME>     Show the messages of this queue, with their headers, instead of the table
                         of queues
      --limit <N>        At most this many messages [default: 100]
      --from <SEQUENCE>  From this queue sequence on [default: 0]
      --bodies           Show bodies too: as text, or in hexadecimal where they are not
      --check            Read every stored message and verify checksums, lengths, header blocks and
                         counts
      --json             One JSON object on each line: kind is store, damage, queue, message, fault
                         or check
  -h, --help             Print help

The broker must be stopped: its folder has one user at a time. Nothing is delivered, settled or
changed. Opening verifies the index of the store and counts its chunks; --check also reads every
body. Times are UTC.

Of a store that is damaged, and that a broker refuses, it shows what is whole, which is what
`steadfast repair` would save; --check names each message that is gone. The exit code is 4. Of a
store that a broker opens, and in which it cannot read some messages, --check says of each whether
`steadfast repair` saves it: one damaged bit hides what is stored beside it from a broker, and
seldom from a repair.

Examples:
  steadfast inspect --data-dir /var/lib/steadfast
  steadfast inspect --queue orders --limit 10 --bodies
  steadfast inspect --check --json | jq 'select(.kind == "queue")'

Exit codes: 0 well, 2 no store there, 4 the store is damaged, 5 a broker is using the folder.

"#]],
    );
    world.check(
        &["config", "--help"],
        0,
        str![[r#"
The configuration file

Usage: steadfast config <COMMAND>

Commands:
  default  Print every key with its default and what it means
  check    Tell every mistake in the configuration, each with its place and what is allowed
  show     Print the value of every key, and where it comes from
  help     Print this message or the help of the given subcommand(s)

Options:
  -h, --help  Print help

"#]],
    );
}

#[test]
fn without_a_command_the_help_is_an_error() {
    let world = World::new();
    let help = world.command(&["--help"]).output().unwrap().stdout;
    let output = world.command(&[]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(2), help));
}

#[test]
fn version() {
    World::new().check(
        &["--version"],
        0,
        str![[r#"
steadfast 0.1.0

"#]],
    );
}

#[test]
fn the_default_configuration_is_printed() {
    let output = World::new().command(&["config", "default"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        steadfast::config::SAMPLE
    );
}

#[test]
fn completions_and_manual_pages() {
    let world = World::new();
    let said = |args: &[&str]| {
        let output = world.command(args).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        assert!(
            script.contains("receive") && script.contains("timeout-ms"),
            "{shell}"
        );
    }
    let page = said(&["man"]);
    assert!(
        page.contains(".TH steadfast 1") && page.contains("steadfast\\-send(1)"),
        "{page}"
    );
    assert_eq!(said(&["man", "--dir", "pages/man1"]), "");
    let folder = world.folder().join("pages/man1");
    assert_eq!(std::fs::read_to_string(folder.join("steadfast.1")).unwrap(), page);
    let page = std::fs::read_to_string(folder.join("steadfast-config-default.1")).unwrap();
    assert!(page.contains("steadfast config default"), "{page}");
    world.check(
        &["man", "--dir", "pages/man1/steadfast.1/below"],
        1,
        str![[r#"
error: cannot write pages/man1/steadfast.1/below: Not a directory (os error 20)

"#]],
    );
}

#[test]
fn wrong_flags() {
    let world = World::new();
    world.check(
        &["serve", "--lisen", "127.0.0.1:0"],
        2,
        str![[r#"
error: unexpected argument '--lisen' found

  tip: a similar argument exists: '--listen'

Usage: steadfast serve --listen <ADDR:PORT>

For more information, try '--help'.

"#]],
    );
    world.check(&["serve", "--listen", "broker.example:61613"], 2, str![[r#"
error: invalid value 'broker.example:61613' for '--listen <ADDR:PORT>': expected IP:PORT, such as 127.0.0.1:61613 or [::1]:61613 (port 0 = any free port)

For more information, try '--help'.

"#]]);
    world.check(
        &["serve", "--log-level", "loud"],
        2,
        str![[r#"
error: invalid value 'loud' for '--log-level <LEVEL>'
  [possible values: error, warn, info, debug, trace]

For more information, try '--help'.

"#]],
    );
    world.check(
        &["inspect", "--limit", "10"],
        2,
        str![[r#"
error: the following required arguments were not provided:
  --queue <NAME>

Usage: steadfast inspect --queue <NAME> --limit <N>

For more information, try '--help'.

"#]],
    );
}

#[test]
fn wrong_files() {
    let serve = |text| World::new().with_file("my.toml", text);
    let args = ["serve", "--config", "my.toml"];
    serve("[server]\nlisten = [\"127.0.0.1:0\"]\nport = 1\n").check(&args, 2, str![[r#"
error: my.toml, line 3: unknown key server.port; keys of [server] are listen, data_dir, metrics_listen, insecure_allow_anonymous, shutdown_ms_max, worker_thread_count

"#]]);
    serve("[limits]\nbody_bytes_max = 0\n").check(
        &args,
        2,
        str![[r#"
error: my.toml, line 2: limits.body_bytes_max = 0 is not allowed; it takes a whole number from 1 to 1073741824

"#]],
    );
    serve("[limits]\n\nbody_bytes_max = \"64 MiB\"\n").check(&args, 2, str![[r#"
error: my.toml, line 3: limits.body_bytes_max = "64 MiB" is not allowed; it takes a whole number from 1 to 1073741824

"#]]);
    serve("[server]\nlisten = [127.0.0.1]\n").check(
        &args,
        2,
        str![[r#"
error: my.toml, line 2: not valid TOML: invalid float, expected nothing

"#]],
    );
    serve("[limits]\nprefetch_count_max = 10\n").check(
        &args,
        2,
        str![[r#"
error: my.toml, line 2: limits.prefetch_count = 1000 is more than limits.prefetch_count_max = 10; it may be at most that

"#]],
    );
    World::new().check(
        &args,
        2,
        str![[r#"
error: cannot read the configuration file my.toml: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn every_mistake_in_a_configuration_is_told_at_once() {
    let world = World::new()
        .with_file(
            "my.toml",
            "[limits]\nbody_bytes_max = 0\nbodies = 1\n\n[server]\nlisten = [\"0.0.0.0:1\"]\n",
        )
        .with_variable("STEADFAST_LOG_LEVEL", "loud");
    for args in [
        ["serve", "--config", "my.toml"].as_slice(),
        &["config", "check", "--config", "my.toml"],
        &["config", "show", "--config", "my.toml"],
    ] {
        let output = world.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let begins: Vec<_> = said
            .lines()
            .map(|line| line.split(" = ").next().unwrap().split(';').next().unwrap())
            .collect();
        assert_eq!(
            begins,
            [
                "error: my.toml, line 2: limits.body_bytes_max",
                "error: my.toml, line 3: unknown key limits.bodies",
                "error: my.toml, line 6: refused to listen on 0.0.0.0:1: it is not a loopback address, and anyone who \
                 reaches it could read and write every queue without a login",
                "error: environment variable STEADFAST_LOG_LEVEL: log.level",
            ],
            "{said}"
        );
    }
    assert!(!world.folder().join("data").exists());
    let args = ["config", "check", "--config", "my.toml", "--json"];
    let output = world.command(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let mistakes: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(mistakes.len(), 4);
    assert_eq!(mistakes[1]["file"], "my.toml");
    assert_eq!(mistakes[1]["line"], 3);
    assert_eq!(mistakes[3]["variable"], "STEADFAST_LOG_LEVEL");
    assert!(
        mistakes[0]["message"]
            .as_str()
            .unwrap()
            .contains("it takes a whole number from 1 to")
    );
}

#[test]
fn a_configuration_without_mistakes_is_shown_with_its_sources() {
    let world = World::new()
        .with_file(
            "my.toml",
            "[log]\nlevel = \"warn\"\n\n[[listener]]\naddress = \"127.0.0.1:7\"\n\n[[policy]]\npattern = \"a.*\"\n\
             ack_timeout_ms = 5\n",
        )
        .with_variable("STEADFAST_LIMITS_BODY_BYTES_MAX", "1000");
    world.check(
        &["config", "check", "--config", "my.toml"],
        0,
        str![[r#"
no mistakes: 1 listener, 1 policy, 0 rules

"#]],
    );
    world.check(
        &["config", "show", "--config", "my.toml", "--changed"],
        0,
        str![[r#"
[log]
level = "warn"  # my.toml, line 2

[limits]
body_bytes_max = 1000  # environment variable STEADFAST_LIMITS_BODY_BYTES_MAX
# [[listener]] 127.0.0.1:7: my.toml, line 4
# [[policy]] a.* ack_timeout_ms=5: my.toml, line 7

"#]],
    );
    let output = world
        .command(&["config", "show", "--config", "my.toml"])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("\nshutdown_ms_max = 5000  # default\n"), "{shown}");
    // What is shown is a configuration.
    let again = World::new().with_file("my.toml", shown.trim_start());
    let output = again
        .command(&["config", "check", "--config", "my.toml"])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn certificates_are_part_of_the_check() {
    let world = World::new().with_file(
        "my.toml",
        "[[listener]]\naddress = \"127.0.0.1:7\"\ntransport = \"tls\"\ncertificate_file = \"none.pem\"\nkey_file = \"none.key\"\n",
    );
    world.check(
        &["config", "check", "--config", "my.toml"],
        2,
        str![[r#"
error: my.toml, line 1: cannot read the certificate in none.pem: I/O error: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn wrong_variables() {
    let with = |name, value: &str| World::new().with_variable(name, value);
    with("STEADFAST_PORT", "61613").check(&["serve"], 2, str![[r#"
error: environment variable STEADFAST_PORT matches no key; they are named STEADFAST_SECTION_KEY (without SECTION for [server]), such as STEADFAST_DATA_DIR or STEADFAST_LIMITS_BODY_BYTES_MAX: `steadfast config default` lists every key

"#]]);
    with("STEADFAST_LIMITS_LOGIN_MS_MAX", "0").check(&["serve"], 2, str![[r#"
error: environment variable STEADFAST_LIMITS_LOGIN_MS_MAX: limits.login_ms_max = 0 is not allowed; it takes a whole number from 1 to 86400000

"#]]);
    with("STEADFAST_LISTEN", "127.0.0.1:0,nowhere").check(&["serve"], 2, str![[r#"
error: environment variable STEADFAST_LISTEN: server.listen = 127.0.0.1:0,nowhere is not allowed; it takes a list of IP:PORT, such as 127.0.0.1:61613 or [::1]:61613 (port 0 = any free port)

"#]]);
    with("STEADFAST_CONFIG", "missing.toml").check(
        &["serve"],
        2,
        str![[r#"
error: cannot read the configuration file missing.toml: No such file or directory (os error 2)

"#]],
    );
}

#[test]
fn an_address_others_can_reach_must_be_asked_for_by_name() {
    let world = World::new();
    world.check(&["serve", "--listen", "0.0.0.0:0"], 2, str![[r#"
error: --listen: refused to listen on 0.0.0.0:0: it is not a loopback address, and anyone who reaches it could read and write every queue without a login; make users (`steadfast user add NAME`; a listener whose authentication has "none" lets anyone in all the same), listen on 127.0.0.1, or ask for it by name with --insecure-allow-anonymous (server.insecure_allow_anonymous = true)

"#]]);
    World::new()
        .with_variable("STEADFAST_LISTEN", "127.0.0.1:0,[::]:0")
        .check(&["serve"], 2, str![[r#"
error: environment variable STEADFAST_LISTEN: refused to listen on [::]:0: it is not a loopback address, and anyone who reaches it could read and write every queue without a login; make users (`steadfast user add NAME`; a listener whose authentication has "none" lets anyone in all the same), listen on 127.0.0.1, or ask for it by name with --insecure-allow-anonymous (server.insecure_allow_anonymous = true)

"#]]);
    assert!(!world.folder().join("data").exists());
}

#[test]
fn inspect_without_a_store() {
    let world = World::new().with_file("file", "");
    world.check(
        &["inspect"],
        2,
        str![[r#"
error: there is no store in ./data; name the data folder of a broker with --data-dir

"#]],
    );
    world.check(
        &["inspect", "--data-dir", "file"],
        2,
        str![[r#"
error: there is no store in file; name the data folder of a broker with --data-dir

"#]],
    );
    std::fs::create_dir(world.folder().join("empty")).unwrap();
    world.check(
        &["inspect", "--data-dir", "empty", "--json"],
        2,
        str![[r#"
error: there is no store in empty; name the data folder of a broker with --data-dir

"#]],
    );
    world.check(
        &["inspect", "--queue", "/topic/prices"],
        2,
        str![[r#"
error: '/topic/prices' is not the name of a queue; write NAME or /queue/NAME

"#]],
    );
    let left = std::fs::read_dir(world.folder().join("empty")).unwrap().count();
    assert_eq!(left, 0, "inspect makes nothing");
    assert!(!world.folder().join("data").exists());
}

/// A broker that holds two orders, one of them failed once, and something else; killed.
fn filled(dir: &Path) -> Settings {
    let settings = Settings::in_dir(dir);
    let broker = settings.start();
    let mut client = broker.connect();
    for (destination, body) in [
        ("/queue/orders", &b"one"[..]),
        ("/queue/orders", &[0xff, 0x00]),
        ("/queue/bell\u{7}", b"rings"),
    ] {
        client
            .request("SEND", &[("destination", destination), ("kind", "test")], body)
            .unwrap();
    }
    let headers = [
        ("destination", "/queue/orders"),
        ("id", "1"),
        ("ack", "client-individual"),
    ];
    client.request("SUBSCRIBE", &headers, b"").unwrap();
    let message = client.expect().unwrap();
    client
        .request("NACK", &[("id", message.header("ack").unwrap())], b"")
        .unwrap();
    broker.kill();
    settings
}

#[test]
fn inspect_shows_what_a_killed_broker_holds() {
    let world = World::new();
    let settings = filled(world.folder());
    let inspect = |args: &[&str]| {
        let args = [&["inspect", "--data-dir", "data"], args].concat();
        let output = world.command(&args).output().unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!((output.status.code(), err), (Some(0), String::new()), "{out}");
        out
    };
    let table = inspect(&[]);
    let queues: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        table.starts_with("store ") && table.contains("(not stopped cleanly)"),
        "{table}"
    );
    assert_eq!(queues[0], ["QUEUE", "DEPTH", "BYTES", "OLDEST"]);
    assert_eq!(queues[1][..2], ["bell\\u{7}", "1"]);
    assert_eq!(queues[2][..2], ["orders", "2"]);
    assert_eq!(queues.len(), 3);

    let text = inspect(&["--queue", "/queue/orders", "--bodies", "--limit", "1"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("failures 1"), "{text}");
    assert_eq!(
        lines[1..4],
        [
            "    destination:/queue/orders",
            "    kind:test",
            "    content-length:3"
        ]
    );
    assert_eq!(lines[4], "    | one");
    let (more, sequence) = lines[5].rsplit_once(' ').unwrap();
    assert_eq!((more, lines.len()), ("more: --from", 6));

    let json = inspect(&[
        "--queue", "orders", "--bodies", "--from", sequence, "--json", "--check",
    ]);
    let lines: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["body_hex"]),
        (&"message".into(), &"ff00".into())
    );
    assert_eq!(
        (&lines[1]["kind"], &lines[1]["messages"], &lines[1]["faults"]),
        (&"check".into(), &3.into(), &0.into())
    );

    assert_eq!(inspect(&[]), table, "looking changes nothing");
    let broker = settings.start();
    assert!(
        broker.output().contains("recovered 2 queues with 3 messages"),
        "{}",
        broker.output()
    );
    world.check(
        &["inspect", "--data-dir", "data"],
        5,
        str![[r#"
error: another broker is using data: the folder is in use; look at that broker (`steadfast status`), stop it, or choose another folder with --data-dir

"#]],
    );
    broker.stop();
    assert!(inspect(&[]).contains("(stopped cleanly)"));
}

#[test]
fn a_damaged_store_is_named() {
    let world = World::new();
    filled(world.folder());
    let path = world.folder().join("data/db");
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[64..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, &bytes).unwrap();
    for args in [
        &["inspect", "--data-dir", "data"][..],
        &["serve", "--data-dir", "data", "--listen", "127.0.0.1:0"],
    ] {
        let output = world.command(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(
            last.starts_with("error: the store is damaged: ") && last.contains("restore a backup"),
            "{text}"
        );
    }
}

#[test]
fn a_data_folder_that_is_open_to_others_is_told_of() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new();
    let settings = Settings::in_dir(world.folder());
    let warned = |mode| {
        if let Some(mode) = mode {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&settings.data_dir, permissions).unwrap();
        }
        let log = settings.start().stop();
        log.contains("other users may look into the data folder")
    };
    // The last is seen alone: a log has what earlier starts said.
    assert!(!warned(None), "one that it made is its own");
    assert!(!warned(Some(0o700)));
    assert!(warned(Some(0o750)));
}

#[test]
fn serve_that_cannot_start_says_why() {
    let world = World::new().with_file("file", "");
    let fails = |args: &[&str], code| {
        let output = world.command(&[&["serve"], args].concat()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let last = text.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("error: "), "{text}");
        last
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = fails(&["--listen", &address], 1);
    assert!(
        line.contains(&address) && line.contains("stop the program that listens there"),
        "{line}"
    );
    for dir in ["file", "file/below"] {
        let line = fails(&["--listen", "127.0.0.1:0", "--data-dir", dir], 4);
        assert!(
            line.contains("file") && line.contains("it is not a folder"),
            "{line}"
        );
    }
    let line = fails(&["--listen", "192.0.2.1:61613", "--insecure-allow-anonymous"], 1);
    assert!(line.contains("an address of this machine"), "{line}");
}

#[test]
fn log_lines_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    let log = |settings: &Settings| {
        settings.start().stop();
        std::fs::read_to_string(settings.log.with_extension("err")).unwrap()
    };
    settings.config = "[log]\nformat = \"json\"\n".to_owned();
    let text = log(&settings);
    let count = text.lines().count();
    assert!(count >= 2, "started and stopped: {text}");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    settings.config = "[log]\nlevel = \"error\"\n".to_owned();
    assert_eq!(
        log(&settings).lines().count(),
        count,
        "a clean run has nothing at this level"
    );
    settings.config = String::new();
    let text = log(&settings);
    assert!(
        text.lines().count() > count && !text.contains('\u{1b}'),
        "no colours in a file: {text}"
    );
}
