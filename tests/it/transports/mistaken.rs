//! Strangers: each protocol on the port of another gets an answer that says so.

use std::io::{Read, Write};

use steadfast::config::ClientCertificate;

use super::*;

const STOMP: &[u8] = b"CONNECT\naccept-version:1.2\nhost:a\n\n\0";
const HTTP: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n";
/// The beginning of a ClientHello of TLS 1.2.
const TLS: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";

/// All that is said to somebody who says this, up to an end without a reset.
fn answer(listener: Listener, said: &[u8]) -> String {
    let server = serve(listener, |_| {});
    let mut stream = dial(server.address());
    stream.write_all(said).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    server.await_stats("the end", |stats| {
        stats.connection_count == 0 && stats.violation_count + stats.refused_count == 1
    });
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn each_is_told_what_is_spoken() {
    let folder = Folder::new();
    let tls = || tls(&folder, ClientCertificate::None);
    for (listener, said, begins, says) in [
        (any(), HTTP, "ERROR\n", "code:http-not-stomp"),
        (any(), TLS, "ERROR\n", "code:tls-not-stomp"),
        (tls(), STOMP, "ERROR\n", "code:tls-needed"),
        (tls(), HTTP, "HTTP/1.1 400 ", "STOMP over TLS, not HTTP"),
        (ws(), STOMP, "ERROR\n", "code:websocket-needed"),
        (ws(), TLS, "HTTP/1.1 400 ", "WebSocket without TLS"),
        (
            ws(),
            HTTP,
            "HTTP/1.1 404 ",
            "No WebSocket is served under this path",
        ),
        (
            ws(),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 426 ",
            "Upgrade: websocket\r\n",
        ),
        (ws(), b"GET / nonsense\r\n\r\n", "HTTP/1.1 400 ", "not a request"),
        (wss(&folder), STOMP, "ERROR\n", "code:tls-needed"),
        (wss(&folder), HTTP, "HTTP/1.1 400 ", "WebSocket over TLS"),
    ] {
        let transport = listener.transport();
        let answer = answer(listener, said);
        let said = said.escape_ascii();
        assert!(answer.starts_with(begins), "{transport}, {said}: {answer}");
        assert!(answer.contains(says), "{transport}, {said}: {answer}");
    }
}

#[test]
fn stomp_and_http_within_tls_are_told_apart_too() {
    let folder = Folder::new();
    let versions = &[&rustls::version::TLS13];
    for (listener, said, says) in [
        (tls(&folder, ClientCertificate::None), HTTP, "code:http-not-stomp"),
        (wss(&folder), STOMP, "code:websocket-needed"),
        (wss(&folder), HTTP, "HTTP/1.1 404 "),
    ] {
        let server = serve(listener, |_| {});
        let config = trusting(&folder.authority, versions).with_no_client_auth();
        let mut stream = dial_tls(server.address(), config);
        stream.write_all(said).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(says), "{answer}");
    }
}

#[test]
fn the_head_of_a_request_is_bounded() {
    let server = serve(ws(), |_| {});
    let most = steadfast::base::Limits::default().login_bytes_max;
    let begin = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: ";
    for (len, expected) in [(most, "HTTP/1.1 101 "), (most + 1, "HTTP/1.1 431 ")] {
        let mut stream = dial(server.address());
        let cookie = "a".repeat(len - begin.len() - 4);
        stream
            .write_all(format!("{begin}{cookie}\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{len}");
    }
}

#[test]
fn whoever_is_one_too_many_is_told_where_that_can_be() {
    let folder = Folder::new();
    for (listener, expected) in [
        (any(), "ERROR\nmessage:too many connections"),
        (ws(), "HTTP/1.1 503 "),
        (tls(&folder, ClientCertificate::None), ""),
    ] {
        let server = serve(listener, |options| options.limits.connection_count_max = 1);
        let _first = dial(server.address());
        server.await_stats("the first", |stats| stats.connection_count == 1);
        let mut second = dial(server.address());
        let mut answer = String::new();
        second.shutdown(std::net::Shutdown::Write).unwrap();
        second.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
        assert_eq!(answer.is_empty(), expected.is_empty());
        assert_eq!(server.stats().turned_away_count, 1);
    }
}
