//! Logins by what a transport proves.

use std::os::unix::net::UnixStream;

use steadfast::base::Dialect;
use steadfast::config::Address;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::*;
use crate::logins::Files;

/// Shows the certificate of "alice", says this, and is answered.
fn answer(server: &Server, folder: &Folder, shows: bool, said: &str) -> String {
    let trusting = trusting(&folder.authority, &[&TLS13, &TLS12]);
    let config = match shows {
        true => {
            let (chain, key) = shown_by(&folder.authority);
            trusting.with_client_auth_cert(chain, key).unwrap()
        }
        false => trusting.with_no_client_auth(),
    };
    let mut client = Client::over(dial_tls(server.address(), config));
    client.send(format!("CONNECT\naccept-version:1.2\nhost:test\n{said}\n\0"));
    client.frame().command
}

#[test]
fn a_certificate_is_a_login_where_its_name_is_a_users() {
    let folder = Folder::new();
    let files = Files::new();
    files.add("alice", "", None);
    files.add("bob", "the password of bob", None);
    let authority = folder.path("ca.pem");
    let server = serve(tls(&folder, ClientCertificate::Optional(authority)), |options| {
        options.authority = files.authority();
    });
    let check = |shows, said: &str, expected: &str| {
        assert_eq!(answer(&server, &folder, shows, said), expected, "{shows} {said}");
    };
    check(true, "", "CONNECTED");
    check(true, "login:alice\n", "CONNECTED");
    check(true, "login:alice\npasscode:whatever\n", "CONNECTED");
    check(true, "login:bob\n", "ERROR");
    check(true, "login:bob\npasscode:the password of bob\n", "CONNECTED");
    check(false, "", "ERROR");
    check(false, "login:alice\n", "ERROR");
    check(false, "login:alice\npasscode:whatever\n", "ERROR");
    files.change(|users| users.set_disabled("alice", true).unwrap());
    server.running().reload_logins().unwrap();
    check(true, "", "ERROR");
    files.change(|users| users.remove("alice").unwrap());
    server.running().reload_logins().unwrap();
    check(true, "", "ERROR");
}

#[test]
fn a_process_is_a_login_where_its_user_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stomp.sock");
    let files = Files::new();
    let me = rustix::process::geteuid().as_raw();
    files.add("me", "", Some(me));
    files.add("bob", "the password of bob", Some(me + 1));
    let listener = Listener {
        address: Address::Unix {
            path: path.clone(),
            mode: 0o600,
        },
        dialect: Dialect::default(),
        ..any()
    };
    let server = serve(listener, |options| options.authority = files.authority());
    let connect = |said: &str| {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client::over(stream);
        client.send(format!("CONNECT\naccept-version:1.2\nhost:test\n{said}\n\0"));
        let command = client.frame().command;
        (client, command)
    };
    let (mut client, command) = connect("");
    assert_eq!(command, "CONNECTED");
    assert_eq!(connect("login:me\n").1, "CONNECTED");
    assert_eq!(connect("login:bob\n").1, "ERROR");
    assert_eq!(
        connect("login:bob\npasscode:the password of bob\n").1,
        "CONNECTED"
    );
    files.change(|users| users.remove("me").unwrap());
    server.running().reload_logins().unwrap();
    assert_eq!(client.expect_error().header("code"), "login-revoked");
    assert_eq!(connect("").1, "ERROR");
}
