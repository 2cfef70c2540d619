//! TLS and mutual TLS.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use steadfast::config::ClientCertificate;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ProtocolVersion};

use super::*;
use crate::client::send_frame;

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn client(server: &Server, folder: &Folder) -> Client<TlsStream> {
    let config = trusting(&folder.authority, BOTH).with_no_client_auth();
    Client::over(dial_tls(server.address(), config)).logged_in()
}

/// The name in the certificate that a connection was shown.
fn shown(client: &Client<TlsStream>) -> Box<str> {
    let shown = client.stream.conn.peer_certificates().unwrap();
    steadfast::listener::login_of(&shown[0], CertificateName::CommonName).unwrap()
}

#[test]
fn both_versions_do_the_job() {
    let folder = Folder::new();
    let server = serve(tls(&folder, ClientCertificate::None), |_| {});
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let config = trusting(&folder.authority, &[version]).with_no_client_auth();
        let mut client = Client::over(dial_tls(server.address(), config)).logged_in();
        assert_eq!(client.stream.conn.protocol_version(), Some(expected));
        client.subscribe("q", "client-individual", "");
        // More than makes it a newcomer, so that it goes from one thread to another.
        for number in 0..200 {
            client.publish("q", &number.to_string(), "");
            let message = client.expect_message(&number.to_string());
            client.ack(&message, "a");
        }
        // Its end is said in TLS, too: reading on would fail otherwise.
        client.disconnect();
    }
    server.await_stats("the end", |stats| stats.disconnected_count == 2);
}

#[test]
fn much_is_read_slowly_and_settled() {
    let folder = Folder::new();
    let server = serve(tls(&folder, ClientCertificate::None), |_| {});
    let mut producer = client(&server, &folder);
    let body = |number: u8| vec![b'a' + number; 300_000];
    for number in 0..20 {
        producer.send(send_frame("q", &body(number), "r"));
        producer.expect_receipt("r");
    }
    let mut consumer = client(&server, &folder);
    consumer.subscribe("q", "auto", "");
    for number in 0..20 {
        assert_eq!(consumer.frame().body, body(number), "{number}");
        if number % 5 == 0 {
            // Meanwhile both ends' buffers are full.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // What was written was settled: nothing is there for the next.
    consumer.disconnect();
    let mut heir = client(&server, &folder);
    heir.subscribe("q", "auto", "");
    heir.publish("q", "the only one", "");
    heir.expect_message("the only one");
}

#[test]
fn a_certificate_is_demanded_where_it_is_required() {
    let folder = Folder::new();
    let authority = folder.path("ca.pem");
    let stranger = Authority::new();
    for (wanted, without) in [
        (ClientCertificate::Required(authority.clone()), false),
        (ClientCertificate::Optional(authority), true),
    ] {
        for version in [&TLS12, &TLS13] {
            let server = serve(tls(&folder, wanted.clone()), |_| {});
            let builder = || trusting(&folder.authority, &[version]);
            let (chain, key) = shown_by(&folder.authority);
            let known = builder().with_client_auth_cert(chain, key).unwrap();
            Client::over(dial_tls(server.address(), known))
                .logged_in()
                .disconnect();

            let (chain, key) = shown_by(&stranger);
            let unknown = builder().with_client_auth_cert(chain, key).unwrap();
            expect_alert(dial_tls(server.address(), unknown));
            let bare = dial_tls(server.address(), builder().with_no_client_auth());
            match without {
                true => Client::over(bare).logged_in().disconnect(),
                false => expect_alert(bare),
            }
            let refused_count = if without { 1 } else { 2 };
            server.await_stats("the end of all", |stats| {
                stats.connection_count == 0 && stats.violation_count == refused_count
            });
        }
    }
}

/// The broker says in TLS that it will not have this client.
fn expect_alert(mut stream: TlsStream) {
    // In 1.3 a client learns of it at its first read, in 1.2 within the handshake.
    let said = stream.write_all(b"CONNECT\n\n\0").and_then(|()| {
        let mut byte = [0];
        stream.read_exact(&mut byte)
    });
    let error = said.unwrap_err();
    assert!(error.to_string().contains("received fatal alert"), "{error}");
}

#[test]
fn certificates_are_read_again_without_a_restart() {
    let folder = Folder::new();
    let server = serve(tls(&folder, ClientCertificate::None), |_| {});
    let mut early = client(&server, &folder);
    assert_eq!(&*shown(&early), "first");

    folder.renew("second");
    assert_eq!(&*shown(&client(&server, &folder)), "first", "nobody was told");
    server.running().reload_certificates();
    assert_eq!(&*shown(&client(&server, &folder)), "second");

    // A key of another certificate, no certificate at all, no file: each is refused, and the old one stays.
    let (_, key) = folder.authority.server("third");
    folder.write("server.key", &key);
    server.running().reload_certificates();
    assert_eq!(&*shown(&client(&server, &folder)), "second");
    folder.write("server.pem", "nonsense");
    server.running().reload_certificates();
    std::fs::remove_file(folder.path("server.key")).unwrap();
    server.running().reload_certificates();
    assert_eq!(&*shown(&client(&server, &folder)), "second");

    folder.renew("fourth");
    server.running().reload_certificates();
    assert_eq!(&*shown(&client(&server, &folder)), "fourth");
    early.publish("q", "still here", "r");
    early.expect_receipt("r");
}

#[test]
fn a_broker_without_a_certificate_does_not_start() {
    use steadfast::runtime::{RunError, Running};
    use steadfast::store::MemoryStore;

    let folder = Folder::new();
    folder.write("server.pem", "");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let options = ServeOptions {
        listen: vec![tls(&folder, ClientCertificate::None)],
        data_dir: folder.path("data"),
        ..ServeOptions::default()
    };
    match Running::start(Arc::new(MemoryStore::new([0; 16])), &options).map(|_| ()) {
        Err(error @ RunError::Tls { .. }) => {
            assert_eq!(error.to_string(), "no TLS can be spoken on 127.0.0.1:0");
            assert_eq!(error.exit_code(), 2);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_dawdles_before_stomp_is_cut_and_counted() {
    let folder = Folder::new();
    let login = Duration::from_millis(400);
    let quick = |options: &mut ServeOptions| options.limits.login_ms_max = 400;
    // Nothing, the beginning of a record of TLS, the beginning of a request.
    for (listener, said) in [
        (tls(&folder, ClientCertificate::None), &b""[..]),
        (
            tls(&folder, ClientCertificate::None),
            b"\x16\x03\x01\x02\x00\x01\x00",
        ),
        (ws(), b"GET / HTTP/1.1\r\nHost: a\r\n"),
        (wss(&folder), b"\x16"),
    ] {
        let server = serve(listener, quick);
        let mut stream = dial(server.address());
        let start = Instant::now();
        stream.write_all(said).unwrap();
        // Closed, with a reset perhaps: what was said is unread.
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        assert!(start.elapsed() >= login - Duration::from_millis(10));
        server.await_stats("the end", |stats| {
            stats.timed_out_count == 1 && stats.connection_count == 0
        });
    }
    // The time of the handshake is taken from that of the login.
    let server = serve(tls(&folder, ClientCertificate::None), quick);
    let config = trusting(&folder.authority, BOTH).with_no_client_auth();
    let mut stream = dial_tls(server.address(), config);
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let mut client = Client::over(stream);
    assert_eq!(client.expect_error().header("code"), "login-timeout");
    let took = start.elapsed();
    assert!(took < Duration::from_millis(300) + login, "{took:?}");
}

#[test]
fn who_vanishes_before_stomp_is_lost_and_gives_back_its_place() {
    let folder = Folder::new();
    for (listener, said) in [
        (tls(&folder, ClientCertificate::None), &b""[..]),
        (tls(&folder, ClientCertificate::None), b"\x16\x03\x01"),
        (ws(), b""),
        (ws(), b"GET / HTTP/1.1\r\n"),
    ] {
        let server = serve(listener, |_| {});
        for _ in 0..50 {
            dial(server.address()).write_all(said).unwrap();
        }
        server.await_stats("the end of all", |stats| {
            stats.lost_count == 50 && stats.connection_count == 0
        });
    }
}

#[test]
fn a_stop_does_not_wait_for_a_handshake() {
    let folder = Folder::new();
    let mut server = serve(tls(&folder, ClientCertificate::None), |options| {
        options.limits.login_ms_max = 60_000;
        options.shutdown_ms_max = 60_000;
    });
    let mut stream = dial(server.address());
    stream.write_all(b"\x16\x03\x01").unwrap();
    server.await_stats("its arrival", |stats| stats.connection_count == 1);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < PATIENCE);
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
}

/// CVE-2026-39304: what answers each of many requests for new keys takes memory as long as they are sent.
#[test]
fn a_flood_of_requests_for_new_keys_ends_the_connection() {
    let folder = Folder::new();
    let server = serve(tls(&folder, ClientCertificate::None), |_| {});
    let config = trusting(&folder.authority, &[&TLS13]).with_no_client_auth();
    let mut flooding = Client::over(dial_tls(server.address(), config)).logged_in();
    let TlsStream { conn, sock } = &mut flooding.stream;
    let begin = Instant::now();
    // Written on until the broker has closed its side: it takes no more of them, however many are on their way.
    let flooded = (0..).find_map(|_| {
        assert!(begin.elapsed() < Duration::from_secs(60), "it takes them all");
        conn.refresh_traffic_keys().unwrap();
        while conn.wants_write() {
            if let Err(error) = conn.write_tls(sock) {
                return Some(error);
            }
        }
        None
    });
    assert!(flooded.is_some());
    server.await_stats("the end", |stats| stats.violation_count == 1);
    let mut other = client(&server, &folder);
    other.publish("q", "x", "r");
    other.expect_receipt("r");
}
