//! What rules say by `steadfast acl`, and that the broker does as they say.

use std::time::{Duration, Instant};

use snapbox::str;

use super::check::World;
use super::rig::{Broker, Client, Settings};

const RULES: &str = r#"
[[rule]]
deny = ["*"]
principals = ["mallory"]
destinations = ["/queue/>", "/topic/>"]

[[rule]]
allow = ["send", "create"]
principals = ["alice", "group:ops"]
destinations = ["/queue/orders.*"]

[[rule]]
allow = ["receive"]
principals = ["*"]
destinations = ["/topic/prices.*"]
"#;

#[test]
fn a_check_says_which_rule_decides() {
    let world = World::new().with_file("c.toml", RULES);
    let check = |args: &[&str], code: i32, expect: &str| {
        let args = [&["acl", "check"], args, &["--config", "c.toml"]].concat();
        let output = world.command(&args).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(
            (output.status.code(), &*said),
            (Some(code), &*format!("{expect}\n")),
            "{args:?}"
        );
    };
    let orders = "by rule 2 (line 7): allow send, create to alice, group:ops on /queue/orders.*";
    check(
        &["alice", "send", "/queue/orders.eu"],
        0,
        &format!("allowed {orders}"),
    );
    check(&["alice", "send", "orders.eu"], 0, &format!("allowed {orders}"));
    check(
        &[
            "bob",
            "send",
            "/queue/orders.eu",
            "--group",
            "x",
            "--group",
            "ops",
        ],
        0,
        &format!("allowed {orders}"),
    );
    check(
        &["mallory", "send", "/queue/orders.eu", "--group", "ops"],
        1,
        "denied by rule 1 (line 2): deny send, receive, browse, create, purge, admin to mallory on /queue/>, /topic/>",
    );
    for args in [
        ["bob", "send", "/queue/orders.eu"],
        ["alice", "receive", "/queue/orders.eu"],
        ["alice", "send", "/topic/orders.eu"],
        ["ops", "send", "/queue/orders.eu"],
        ["anonymous", "send", "/queue/orders.eu"],
        ["anonymous", "create", "/temp-queue/x"],
        ["anonymous", "receive", "/topic/orders.*"],
    ] {
        check(&args, 1, "denied: no rule allows it");
    }
    let prices = "by rule 3 (line 12): allow receive to * on /topic/prices.*";
    check(
        &["anonymous", "receive", "/topic/prices.eu"],
        0,
        &format!("allowed {prices}"),
    );
    check(
        &["anonymous", "receive", "/topic/prices.*"],
        0,
        &format!("allowed {prices}"),
    );
    check(
        &["anonymous", "receive", "/topic/>"],
        0,
        &format!(
            "allowed in part (only what may be received is delivered; a durable subscription needs all) {prices}"
        ),
    );
}

#[test]
fn a_check_for_programs_and_one_without_rules() {
    let world = World::new().with_file("c.toml", RULES).with_file("none.toml", "");
    world.check(
        &["acl", "check", "alice", "send", "/queue/orders.eu", "--json", "--config", "c.toml"],
        0,
        str![[r#"
{"allowed":true,"in_part":false,"rule":{"number":2,"line":7,"text":"allow send, create to alice, group:ops on /queue/orders.*"}}

"#]],
    );
    world.check(
        &["acl", "check", "eve", "send", "/queue/a", "--config", "none.toml"],
        0,
        str![[r#"
allowed: there are no rules

"#]],
    );
    world.check(
        &["acl", "list", "--config", "c.toml"],
        0,
        str![[r#"
rule 1 (line 2): deny send, receive, browse, create, purge, admin to mallory on /queue/>, /topic/>
rule 2 (line 7): allow send, create to alice, group:ops on /queue/orders.*
rule 3 (line 12): allow receive to * on /topic/prices.*

"#]],
    );
    world.check(
        &["acl", "list", "--config", "none.toml"],
        0,
        str![[r#"
no rules: everybody may do everything

"#]],
    );
}

#[test]
fn a_check_of_nonsense() {
    let world = World::new().with_file("c.toml", "[[rule]]\nallow = [\"read\"]\nprincipals = [\"*\"]\n");
    world.check(
        &["acl", "check", "a", "send", "/queue/a", "--config", "c.toml"],
        2,
        str![[r#"
error: c.toml, line 1: a [[rule]] needs destinations: what it is about
error: c.toml, line 2: rule.allow = ["read"] is not allowed; it takes a list of send, receive, browse, create, purge, admin; or ["*"] for all

"#]],
    );
    for args in [
        &["a", "send", "/exchange/a"][..],
        &["a", "send", "/reply-queue/x/y"],
        &["a", "receive", "/topic/a.>.b"],
        &["a", "read", "/queue/a"],
        &["*", "send", "/queue/a"],
        &["group:x", "send", "/queue/a"],
        &["a", "send"],
    ] {
        let args = [&["acl", "check"], args].concat();
        let output = world.command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

/// The one ERROR with which a connection ends: code, action, destination.
fn end(client: &mut Client) -> [Option<String>; 3] {
    let frame = client.expect().unwrap();
    assert_eq!(frame.command, "ERROR", "{frame:?}");
    if let (Some(action), Some(destination)) = (frame.header("action"), frame.header("destination")) {
        let line = format!(" logged in here: {action} {}.", destination.escape_debug());
        let body = String::from_utf8_lossy(&frame.body);
        assert!(body.lines().next().unwrap().ends_with(&line), "{body}");
    }
    ["code", "action", "destination"].map(|name| frame.header(name).map(str::to_owned))
}

/// The rules in docs/security.md, and what it shows of them.
#[test]
fn the_documented_rules_say_what_the_document_says() {
    let document = include_str!("../../docs/security.md");
    let (_, document) = document.split_once("## Who may do what").unwrap();
    let shown = document.lines().filter_map(|line| line.strip_prefix("    "));
    let shown: Vec<&str> = shown.collect();
    let end = shown
        .iter()
        .position(|line| line.starts_with("steadfast"))
        .unwrap();
    let rules: String = shown[..end].iter().map(|line| format!("{line}\n")).collect();
    let world = World::new().with_file("steadfast.toml", &rules);
    let commands = shown[end..].chunks(2);
    assert_eq!(commands.len(), 3);
    for command in commands {
        let args: Vec<&str> = command[0].split(' ').skip(1).collect();
        let output = world.command(&args).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(said.trim_end(), command[1], "{args:?}");
    }
}

fn wait_for_log(broker: &Broker, text: &str) {
    let begin = Instant::now();
    while !broker.log_end().contains(text) {
        assert!(begin.elapsed().as_secs() < 30, "{text}: {}", broker.log_end());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_broker_does_as_the_rules_of_its_file_say_and_reads_them_again_at_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |name: &str| {
        format!(
            "[[rule]]\nallow = [\"send\", \"receive\", \"create\"]\nprincipals = [\"anonymous\"]\ndestinations = [\"/queue/{name}\"]\n"
        )
    };
    let broker = Settings {
        config: rule("a"),
        ..Settings::in_dir(dir.path())
    }
    .start();
    let denied = |action: &str, name: &str| {
        let destination = format!("/queue/{name}");
        [Some("access-denied"), Some(action), Some(&*destination)].map(|text| text.map(str::to_owned))
    };
    let connect = || Client::connect(broker.addr()).unwrap();
    let mut subscriber = connect();
    subscriber
        .request("SUBSCRIBE", &[("id", "0"), ("destination", "/queue/a")], b"")
        .unwrap();
    let mut producer = connect();
    producer
        .request("SEND", &[("destination", "/queue/a")], b"x")
        .unwrap();
    assert_eq!(subscriber.expect().unwrap().command, "MESSAGE");
    let mut other = connect();
    other
        .send("SEND", &[("destination", "/queue/b\nc")], b"x")
        .unwrap();
    let told = end(&mut other);
    assert_eq!(
        told[1..],
        [Some("send".to_owned()), Some("/queue/b\nc".to_owned())]
    );
    wait_for_log(&broker, "access denied");
    let log = broker.log_end();
    let line = log.lines().find(|line| line.contains("access denied")).unwrap();
    for part in [
        "audit",
        "user=\"anonymous\"",
        "action=\"send\"",
        "destination=/queue/b\\nc",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }

    let command = World::new()
        .command(&["send", "--addr", &broker.addr().to_string(), "/queue/c", "x"])
        .output()
        .unwrap();
    let said = String::from_utf8(command.stderr).unwrap();
    assert!(said.contains("logged in here: send /queue/c)"), "{said}");
    assert_eq!(command.status.code(), Some(1));

    // A mistake changes nothing, and is told.
    broker.rewrite_config(&rule("a").replace("create", "make"));
    broker.signal(rustix::process::Signal::HUP);
    wait_for_log(&broker, "the configuration was not read again");
    producer
        .request("SEND", &[("destination", "/queue/a")], b"x")
        .unwrap();
    assert_eq!(subscriber.expect().unwrap().command, "MESSAGE");

    broker.rewrite_config(&rule("b"));
    broker.signal(rustix::process::Signal::HUP);
    assert_eq!(end(&mut subscriber)[0].as_deref(), Some("access-denied"));
    wait_for_log(&broker, "rule_count=1");
    producer
        .send("SEND", &[("destination", "/queue/a")], b"x")
        .unwrap();
    assert_eq!(end(&mut producer), denied("send", "a"));
    connect()
        .request("SEND", &[("destination", "/queue/b")], b"x")
        .unwrap();
    broker.stop();
}
