//! Logins by password and by token, over TCP.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::hmac;
use steadfast::api;
use steadfast::auth::{Authority, Hash, Sources, UsersFile};
use steadfast::base::{
    Actions, Destinations, Identity, Login, Method, Methods, Now, Rule, Secret, TokenAlgorithm, TokenKey, Who,
};
use steadfast::runtime::{Listener, ServeOptions};

use super::client::{Client, Frame, PATIENCE, send_frame};
use super::server::Server;

const SECRET: &[u8] = b"a secret of thirty-two bytes and a bit more";

/// A folder with a users file and the key of tokens, and a broker that reads them.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) files: Files,
}

pub(crate) struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn users(&self) -> PathBuf {
        self.dir.path().join("users.toml")
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut UsersFile)) {
        let mut users = UsersFile::open(&self.users()).unwrap();
        change(&mut users);
        users.save().unwrap();
    }

    /// A user with a password, unless that is empty.
    pub(crate) fn add(&self, name: &str, password: &str, uid: Option<u32>) {
        let hash = (!password.is_empty()).then(|| Hash::of(&Secret::new(password), &[7; 16]));
        self.change(|users| users.add(name, hash.as_ref(), &[], uid).unwrap());
    }

    /// A users file that may be there, and the key if it is.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        let key = self.dir.path().join("key");
        let key = key.exists().then_some(TokenKey {
            algorithm: TokenAlgorithm::Hs256,
            file: key,
        });
        let sources = Sources {
            users_file: Some(self.users()),
            token_keys: key.into_iter().collect(),
            ..Sources::default()
        };
        Arc::new(Authority::load(sources).unwrap())
    }
}

impl World {
    fn new(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let files = Files::new();
        files.add("alice", "the right one", None);
        Self::of(files, change)
    }

    fn of(files: Files, change: impl FnOnce(&mut ServeOptions)) -> Self {
        let server = Server::start(|options| {
            options.authority = files.authority();
            change(options);
        });
        Self { server, files }
    }

    fn client(&self) -> Client {
        Client::dial(self.server.address())
    }

    fn alice(&self) -> Client {
        let mut client = self.client();
        client.send(connect("alice", "the right one"));
        assert_eq!(client.frame().command, "CONNECTED");
        client
    }

    /// What a login is told that must fail.
    fn denied(&self, login: &str) -> Frame {
        let mut client = self.client();
        client.send(login);
        let error = client.expect_error();
        client.expect_end();
        error
    }
}

fn connect(login: &str, passcode: &str) -> String {
    let header = |name, value: &str| match value {
        "" => String::new(),
        value => format!("{name}:{value}\n"),
    };
    format!(
        "CONNECT\naccept-version:1.2\nhost:test\n{}{}\n\0",
        header("login", login),
        header("passcode", passcode)
    )
}

fn token(name: &str, expires_in: Duration) -> String {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + expires_in;
    let claims = format!("{{\"sub\":\"{name}\",\"exp\":{}}}", at.as_secs_f64());
    let part = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    let message = format!("{}.{}", part("{\"alg\":\"HS256\"}"), part(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!(
        "{message}.{}",
        Base64UrlUnpadded::encode_string(signature.as_ref())
    )
}

#[test]
fn whatever_was_wrong_is_told_the_same() {
    let files = Files::new();
    files.add("alice", "the right one", None);
    files.add("carol", "the right one", None);
    files.add("dave", "", None);
    files.change(|users| users.set_disabled("carol", true).unwrap());
    fs::write(files.dir.path().join("key"), SECRET).unwrap();
    let world = World::of(files, |options| options.limits.login_failure_count_max = 1_000);
    world.alice().disconnect();
    let over = token("alice", Duration::ZERO);
    let good = token("alice", Duration::from_secs(60));
    let wrong = [
        connect("alice", "the wrong one"),
        connect("bob", "the right one"),
        connect("carol", "the right one"),
        connect("dave", "the right one"),
        connect("alice", ""),
        connect("", "the right one"),
        connect("", ""),
        connect("", &over),
        connect("bob", &good),
        connect("", &good[..good.len() - 2]),
    ];
    let first = world.denied(&wrong[0]);
    assert_eq!(first.header("code"), "login-failed");
    assert_eq!(first.header("message"), "login failed");
    for login in &wrong {
        assert_eq!(world.denied(login), first, "{login}");
    }
    let stats = world.server.stats();
    assert_eq!(stats.login_denied_count, wrong.len() as u64 + 1);
}

#[test]
fn what_stands_behind_a_denied_login_is_not_executed() {
    let world = World::new(|_| {});
    let behind = |login: String, body: &str| {
        let mut bytes = login.into_bytes();
        bytes.extend(send_frame("q", body.as_bytes(), "r"));
        bytes
    };
    let mut thief = world.client();
    thief.send(behind(connect("alice", "the wrong one"), "stolen"));
    assert_eq!(thief.expect_error().header("code"), "login-failed");
    thief.expect_end();
    let mut alice = world.client();
    alice.send(behind(connect("alice", "the right one"), "hers"));
    assert_eq!(alice.frame().command, "CONNECTED");
    alice.expect_receipt("r");
    alice.subscribe("q", "auto", "");
    alice.expect_message("hers");
    alice.disconnect();
}

#[test]
fn the_user_is_shown() {
    let world = World::new(|_| {});
    let _alice = world.alice();
    let api = world.server.started().api.clone().unwrap();
    let connections: api::Connections = crate::http::ask(&api, "GET", "/v1/connections", "")
        .unwrap()
        .json();
    let [connection] = &connections.connections[..] else {
        panic!("{connections:?}");
    };
    assert_eq!(connection.user.as_deref(), Some("alice"));
}

#[test]
fn users_are_read_again_and_who_is_gone_is_out() {
    let world = World::new(|options| options.limits.login_failure_count_max = 1_000);
    world.files.add("bob", "the other one", None);
    world.denied(&connect("bob", "the other one"));
    world.server.running().reload_logins().unwrap();
    let mut alice = world.alice();
    let mut bob = world.client();
    bob.send(connect("bob", "the other one"));
    assert_eq!(bob.frame().command, "CONNECTED");
    // One that is idle, and has moved to where those are served who are no newcomers.
    alice.subscribe("q", "client-individual", "");
    for number in 0..100 {
        alice.publish("q", &number.to_string(), "");
        let message = alice.expect_message(&number.to_string());
        alice.ack(&message, "a");
    }
    alice.publish("q", "held", "");
    alice.expect_message("held");

    // A file that cannot be used changes nothing.
    let good = fs::read(world.files.users()).unwrap();
    fs::write(world.files.users(), "[[user]]\nname = 7\n").unwrap();
    world.server.running().reload_logins().unwrap_err();
    fs::remove_file(world.files.users()).unwrap();
    world.server.running().reload_logins().unwrap_err();
    bob.publish("other", "still here", "r");
    bob.expect_receipt("r");
    world.alice().disconnect();
    fs::write(world.files.users(), good).unwrap();

    world.files.change(|users| users.remove("alice").unwrap());
    world.server.running().reload_logins().unwrap();
    assert_eq!(alice.expect_error().header("code"), "login-revoked");
    alice.expect_end();
    world.denied(&connect("alice", "the right one"));
    // What she held is there for others.
    bob.subscribe("q", "auto", "");
    bob.expect_message("held");
    bob.disconnect();
}

#[test]
fn with_the_first_user_nobody_is_anonymous_any_more() {
    let open = Listener {
        authentication: Methods::Only([Method::None].into()),
        ..SocketAddr::from(([127, 0, 0, 1], 0)).into()
    };
    let world = World::of(Files::new(), |options| options.listen.push(open));
    let address = world.server.started().listen[1].address.tcp().unwrap();
    let mut before = world.server.client();
    let mut silent = world.client();
    let mut allowed = Client::connect(address);
    world.files.add("alice", "the right one", None);
    world.server.running().reload_logins().unwrap();
    assert_eq!(before.expect_error().header("code"), "login-revoked");
    before.expect_end();
    assert_eq!(silent.expect_error().header("code"), "login-revoked");
    world.denied(&connect("", ""));
    allowed.publish("q", "x", "r");
    allowed.expect_receipt("r");
    Client::connect(address).disconnect();
}

/// A client that comes from another loopback address.
fn dial_from(address: SocketAddr, last: u8) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream)
}

#[test]
fn who_fails_often_waits_and_others_do_not() {
    let world = World::new(|options| {
        options.limits.login_failure_count_max = 2;
        options.limits.login_delay_ms = 60_000;
        options.limits.login_delay_ms_max = 60_000;
        options.limits.login_ms_max = 5_000;
    });
    world.denied(&connect("alice", "the wrong one"));
    world.alice().disconnect();
    world.denied(&connect("bob", "the wrong one"));
    // The right password waits as well, and has no more time than any login.
    let mut slowed = world.client();
    slowed.send(connect("alice", "the right one"));
    // Whoever shows no passcode guesses none, and is answered at once.
    assert_eq!(world.denied(&connect("", "")).header("code"), "login-failed");
    let mut other = dial_from(world.server.address(), 2);
    other.send(connect("alice", "the right one"));
    assert_eq!(other.frame().command, "CONNECTED");
    assert_eq!(slowed.expect_error().header("code"), "login-timeout");
    slowed.expect_end();
    other.disconnect();
}

#[test]
fn a_wait_has_its_end() {
    let world = World::new(|options| {
        options.limits.login_failure_count_max = 1;
        options.limits.login_delay_ms = 200;
    });
    world.denied(&connect("alice", "the wrong one"));
    let start = Instant::now();
    world.alice().disconnect();
    assert!(
        start.elapsed() >= Duration::from_millis(150),
        "{:?}",
        start.elapsed()
    );
}

/// Attempts at once gain nothing: what was let through before it was known is as much as may be judged at a time.
#[test]
fn many_attempts_at_once_are_slowed_too() {
    let world = World::new(|options| {
        options.limits.login_failure_count_max = 3;
        options.limits.login_delay_ms = 60_000;
        options.limits.login_delay_ms_max = 60_000;
        options.limits.login_check_count_max = 2;
        options.limits.login_ms_max = 6_000;
    });
    let mut clients: Vec<_> = (0..20).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send(connect("alice", "the wrong one"));
    }
    let codes: Vec<_> = clients
        .iter_mut()
        .map(|client| client.expect_error().header("code").to_owned())
        .collect();
    let judged = codes.iter().filter(|code| *code == "login-failed").count();
    assert!((3..=4).contains(&judged), "{judged}: {codes:?}");
    assert_eq!(world.server.stats().login_denied_count, judged as u64);
}

/// While many logins wait to be verified, which takes a second at the least, whoever is inside has a hundred requests done.
#[test]
fn many_logins_do_not_keep_a_neighbour() {
    const LOGINS: u64 = 60;
    let world = World::new(|options| {
        options.limits.login_failure_count_max = 1_000_000;
        options.limits.login_ms_max = 60_000;
        options.limits.login_check_count_max = 1;
    });
    let mut neighbour = world.alice();
    let mut flood: Vec<_> = (0..LOGINS).map(|_| world.client()).collect();
    for client in &mut flood {
        client.send(connect("alice", "the wrong one"));
    }
    for _ in 0..100 {
        neighbour.publish("q", "x", "r");
        neighbour.expect_receipt("r");
    }
    let denied_count = world.server.stats().login_denied_count;
    assert!(
        denied_count < LOGINS,
        "all were judged before a hundred requests were done"
    );
    for client in &mut flood {
        assert_eq!(client.expect_error().header("code"), "login-failed");
    }
    neighbour.disconnect();
}

#[test]
fn a_token_is_a_login_until_it_expires() {
    let files = Files::new();
    fs::write(files.dir.path().join("key"), SECRET).unwrap();
    let world = World::of(files, |_| {});
    let mut client = world.client();
    client.send(connect("", &token("alice", Duration::from_secs(4))));
    assert_eq!(client.frame().command, "CONNECTED");
    client.publish("q", "x", "r");
    client.expect_receipt("r");
    assert_eq!(client.expect_error().header("code"), "login-expired");
    client.expect_end();
    let mut client = world.client();
    client.send(connect("alice", &token("alice", Duration::from_secs(3_600))));
    assert_eq!(client.frame().command, "CONNECTED");
    // Another key in the place of the one that it was signed with.
    fs::write(world.files.dir.path().join("key"), [b'x'; 32]).unwrap();
    world.server.running().reload_logins().unwrap();
    assert_eq!(client.expect_error().header("code"), "login-revoked");
}

/// Verifying for nobody takes what verifying for somebody does; the bounds are wide, and a skipped hash far outside of them.
#[test]
fn an_unknown_user_takes_as_long_as_a_known_one() {
    let files = Files::new();
    files.add("alice", "the right one", None);
    files.add("carol", "the right one", None);
    files.add("dave", "", None);
    files.change(|users| users.set_disabled("carol", true).unwrap());
    let authority = files.authority();
    let now = Now {
        wall_ms: 0,
        mono_ms: 0,
    };
    let time = |name: &str, passcode: &str| {
        let login = Login {
            name: Some(name.as_bytes().into()),
            passcode: Some(Secret::new(passcode)),
            identity: Identity::Unknown,
        };
        let times = (0..7).map(|_| {
            let start = Instant::now();
            authority.judge(&login, &Methods::Configured, now).unwrap_err();
            start.elapsed()
        });
        times.min().unwrap()
    };
    let known = time("alice", "the wrong one");
    for (name, passcode) in [
        ("bob", "the wrong one"),
        ("dave", "x"),
        ("carol", "the right one"),
        ("carol", "x"),
    ] {
        let other = time(name, passcode);
        assert!(
            known < 2 * other && other < 2 * known,
            "{name}: {known:?} {other:?}"
        );
    }
}

fn rule(allows: bool, actions: &str, who: &str, on: &str) -> Rule {
    Rule {
        allows,
        actions: Actions::parse(actions.split(' ')).unwrap(),
        principals: [Who::parse(who).unwrap()].into(),
        destinations: [Destinations::parse(on).unwrap()].into(),
        line: 0,
    }
}

#[test]
fn who_has_come_in_may_do_what_the_rules_say() {
    let files = Files::new();
    let hash = Hash::of(&Secret::new("the right one"), &[7; 16]);
    for (name, group) in [("alice", "shop"), ("bob", "audit")] {
        files.change(|users| users.add(name, Some(&hash), &[group.to_owned()], None).unwrap());
    }
    fs::write(files.dir.path().join("key"), SECRET).unwrap();
    let world = World::of(files, |options| {
        for rule in [
            rule(true, "send receive create", "group:shop", "/queue/orders.>"),
            rule(true, "browse", "group:audit", "/queue/>"),
            rule(true, "send", "carol", "/queue/orders.new"),
        ] {
            options.rules.push(rule);
        }
    });
    let enter = |name: &str, passcode: &str| {
        let mut client = world.client();
        client.send(connect(name, passcode));
        assert_eq!(client.frame().command, "CONNECTED");
        client
    };
    let mut alice = enter("alice", "the right one");
    alice.publish("orders.new", "1", "r");
    alice.expect_receipt("r");
    let denied = |mut client: Client, frame: &str, action: &str| {
        client.send(frame);
        let error = client.expect_error();
        assert_eq!(
            (error.header("code"), error.header("action")),
            ("access-denied", action)
        );
        client.expect_end();
    };
    let (bob, eve) = ("the right one", token("carol", Duration::from_secs(60)));
    denied(
        enter("bob", bob),
        "SEND\ndestination:/queue/orders.new\n\nx\0",
        "send",
    );
    denied(
        enter("bob", bob),
        "SUBSCRIBE\nid:0\ndestination:/queue/orders.new\n\n\0",
        "receive",
    );
    // One who is known by a token alone.
    denied(
        enter("", &eve),
        "SUBSCRIBE\nid:0\ndestination:/queue/orders.new\n\n\0",
        "receive",
    );
    denied(
        enter("alice", bob),
        "SEND\ndestination:/queue/other\n\nx\0",
        "send",
    );
    let mut carol = enter("", &eve);
    carol.publish("orders.new", "2", "r");
    carol.expect_receipt("r");
    let mut looking = enter("bob", bob);
    looking.subscribe("orders.new", "auto", "browser:true\n");
    looking.expect_message("1");
    looking.expect_message("2");
    alice.subscribe("orders.new", "auto", "");
    alice.expect_message("1");
    alice.expect_message("2");
}
