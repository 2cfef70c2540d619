//! Bounds: what happens when somebody is slow, large, or many.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use steadfast::config::Address;
use steadfast::runtime::Listener;

use super::client::{Client, PATIENCE, send_frame};
use super::server::Server;

const MIB: usize = 1024 * 1024;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn a_body_at_the_limit_passes_and_one_over_does_not() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    let body = pattern(64 * MIB);
    client.send(send_frame("large", &body, "at the limit"));
    client.expect_receipt("at the limit");
    client.publish("large", "small, behind it", "behind");
    client.expect_receipt("behind");
    client.subscribe("large", "client-individual", "");
    let message = client.frame();
    assert!(
        message.body == body,
        "{} bytes came back, or others",
        message.body.len()
    );
    let small = client.expect_message("small, behind it");
    client.ack(&message, "1");
    client.ack(&small, "2");
    client.disconnect();

    let mut client = server.client();
    client.send(format!(
        "SEND\ndestination:/queue/large\nreceipt:over\ncontent-length:{}\n\n",
        64 * MIB + 1
    ));
    let error = client.expect_error();
    assert_eq!(error.header("receipt-id"), "over");
    client.expect_end();
    server.await_stats("the end of all", |stats| stats.connection_count == 0);
}

#[test]
fn long_bodies_are_received_within_one_budget() {
    let body = pattern(2 * MIB);
    let counted = send_frame("q", &body, "r");
    let uncounted = [
        b"SEND\ndestination:/queue/q\nreceipt:r\n\n",
        &vec![b'x'; 2 * MIB][..],
        b"\0",
    ]
    .concat();
    for frame in [counted, uncounted] {
        let server = Server::start(|options| {
            options.limits.receiving_bytes_max = 3 * MIB;
            options.limits.body_bytes_max = 2 * MIB;
        });
        let mut first = server.client();
        let mut second = server.client();
        first.send(&frame[..MIB]);
        // The first holds its room once part of its body is taken in.
        server.await_stats("the first half", |stats| stats.in_bytes > MIB as u64);
        let mut writer = second.stream.try_clone().unwrap();
        let whole = frame.clone();
        let writing = std::thread::spawn(move || writer.write_all(&whole).unwrap());
        assert!(second.is_silent());
        first.send(&frame[MIB..]);
        first.expect_receipt("r");
        second.expect_receipt("r");
        writing.join().unwrap();
        // Short ones need no room.
        let mut third = server.client();
        third.publish("q", "short", "r");
        third.expect_receipt("r");
    }
}

#[test]
fn one_that_waits_for_room_is_not_taken_for_silent() {
    let server = Server::start(|options| {
        options.limits.receiving_bytes_max = 3 * MIB;
        options.heart_beat_ms_min = 50;
    });
    let frame = send_frame("q", &pattern(2 * MIB), "r");
    let mut first = server.client();
    first.send(&frame[..MIB]);
    server.await_stats("the first half", |stats| stats.in_bytes > MIB as u64);
    let beating = || {
        let mut client = Client::dial(server.address());
        client.send("CONNECT\naccept-version:1.2\nhost:test\nheart-beat:50,0\n\n\0");
        assert_eq!(client.frame().command, "CONNECTED");
        client
    };
    let mut second = beating();
    let mut writer = second.stream.try_clone().unwrap();
    let whole = frame.clone();
    let writing = std::thread::spawn(move || writer.write_all(&whole).unwrap());
    // One that came later, and is silent, is dead by now: so the second would be, too.
    let mut third = beating();
    assert_eq!(third.expect_error().header("code"), "heart-beat-timeout");
    third.expect_end();
    first.send(&frame[MIB..]);
    first.expect_receipt("r");
    second.expect_receipt("r");
    writing.join().unwrap();
}

#[test]
fn one_socket_that_sends_and_acks_above_the_watermark_finishes() {
    let server = Server::start(|options| {
        options.limits.unflushed_bytes_max = 64 * 1024;
        options.limits.commit_bytes_max = 16 * 1024;
    });
    let mut client = server.client();
    client.subscribe("q", "client-individual", "prefetch-count:10\n");
    let body = "x".repeat(1_000);
    let (rounds, burst) = (40, 500);
    let mut received = 0;
    for round in 0..rounds {
        let mut frames = Vec::new();
        for _ in 0..burst {
            frames.extend_from_slice(&send_frame("q", body.as_bytes(), ""));
        }
        client.send(&frames);
        while received < (round + 1) * burst {
            let message = client.frame();
            assert_eq!(message.command, "MESSAGE", "{message:?}");
            client.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
            received += 1;
        }
    }
    client.disconnect();
}

#[test]
fn a_reader_that_stands_still_harms_nobody_and_misses_nothing() {
    let server = Server::start(|_| {});
    let mut slow = server.client();
    slow.subscribe("q", "client-individual", "prefetch-count:100000\n");
    let mut producer = server.client();
    let body = "y".repeat(20_000);
    let count = 1_000;
    for number in 0..count {
        producer.publish("q", &format!("{number} {body}"), "r");
        producer.expect_receipt("r");
    }
    // Others go on.
    let mut other = server.client();
    other.publish("other", "z", "r");
    other.expect_receipt("r");
    other.subscribe("other", "auto", "");
    other.expect_message("z");
    // Its ACK is read although its own output is not.
    for number in 0..count {
        let message = slow.frame();
        assert!(message.text().starts_with(&format!("{number} ")));
        slow.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
    }
    slow.disconnect();
}

#[test]
fn acks_are_read_while_the_output_is_full() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    client.subscribe("q", "client-individual", "prefetch-count:100000\n");
    client.publish("q", "first", "");
    let first = client.expect_message("first");
    let mut producer = server.client();
    let body = "y".repeat(50_000);
    for _ in 0..400 {
        producer.publish("q", &body, "r");
        producer.expect_receipt("r");
    }
    // 20 MB are on their way to a client that does not read; what it sends counts all the same.
    let before = server.stats().request_count;
    client.send(format!("ACK\nid:{}\n\n\0", first.header("ack")));
    server.await_stats("the ACK", |stats| stats.request_count > before);
}

#[test]
fn a_topic_subscriber_that_stands_still_is_ended_and_nobody_else() {
    let server = Server::start(|options| {
        options.limits.topic_backlog_count_max = 100;
        options.limits.linger_ms_max = 60_000;
    });
    let mut slow = server.client();
    slow.send("SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:sub\n\n\0");
    slow.expect_receipt("sub");
    let mut producer = server.client();
    let body = "t".repeat(50_000);
    for _ in 0..1_000 {
        producer.send(format!("SEND\ndestination:/topic/t\nreceipt:r\n\n{body}\0"));
        producer.expect_receipt("r");
    }
    producer.disconnect();
    // It is told, behind what was on its way, once it reads.
    let mut message_count = 0;
    let last = loop {
        let frame = slow.frame();
        if frame.command != "MESSAGE" {
            break frame;
        }
        message_count += 1;
    };
    assert_eq!(last.command, "ERROR", "{last:?}");
    assert!(message_count < 1_000);
    slow.expect_end();
    drop(slow);
    server.await_stats("the count", |stats| stats.refused_count == 1);
}

#[test]
fn a_topic_subscriber_that_never_reads_again_is_not_kept() {
    let server = Server::start(|options| {
        options.limits.topic_backlog_count_max = 100;
        options.limits.linger_ms_max = 100;
    });
    let mut slow = server.client();
    slow.send("SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:sub\n\n\0");
    slow.expect_receipt("sub");
    let mut producer = server.client();
    let body = "t".repeat(50_000);
    for _ in 0..1_000 {
        producer.send(format!("SEND\ndestination:/topic/t\nreceipt:r\n\n{body}\0"));
        producer.expect_receipt("r");
    }
    server.await_stats("the end", |stats| {
        stats.refused_count == 1 && stats.connection_count == 1
    });
}

#[test]
fn receipts_that_are_not_read_stop_reading_and_then_end_the_connection() {
    let server = Server::start(|options| {
        options.limits.unread_output_bytes_max = 64 * 1024;
        options.limits.unread_output_ms_max = 500;
    });
    let mut client = server.client();
    let receipt = "r".repeat(5_000);
    let frame = send_frame("q", b"", &receipt);
    let mut sent = 0;
    let start = Instant::now();
    let error = loop {
        match client.stream.write(&frame) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(start.elapsed() < PATIENCE, "{sent} bytes were taken and no end");
    };
    assert!(
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{error}"
    );
    server.await_stats("the count", |stats| stats.timed_out_count == 1);
    // Whatever the sockets' buffers hold, what the broker read is bounded by what they and the limit hold.
    let in_bytes = server.stats().in_bytes;
    assert!(in_bytes < 64 * MIB as u64, "{in_bytes} bytes were read");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = Server::start(|options| options.limits.connection_count_max = 2);
    let first = server.client();
    let _second = server.client();
    let mut third = Client::dial(server.address());
    third.send("CONNECT\naccept-version:1.2\nhost:test\n\n\0");
    let error = third.expect_error();
    assert_eq!(error.header("code"), "too-many-connections");
    assert_eq!(error.header("message"), "too many connections");
    third.expect_end();
    assert_eq!(server.stats().turned_away_count, 1);
    first.disconnect();
    server.await_stats("room for another", |stats| stats.connection_count == 1);
    server.client().disconnect();
}

#[test]
fn one_address_has_its_share_of_connections_and_a_unix_socket_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stomp.sock");
    let server = Server::start(|options| {
        options.limits.address_connection_count_max = 2;
        let address = Address::Unix {
            path: socket.clone(),
            mode: 0o600,
        };
        let plain = options.listen[0].clone();
        options.listen.push(Listener { address, ..plain });
        // The whole loopback network is ours.
        options.listen[0] = SocketAddr::from(([0, 0, 0, 0], 0)).into();
    });
    let port = server.address().port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let first = Client::connect(here);
    let _second = Client::connect(here);
    let mut third = Client::dial(here);
    assert_eq!(third.expect_error().header("code"), "too-many-connections");
    third.expect_end();
    assert_eq!(server.stats().turned_away_count, 1);
    // From another address, and from none.
    let elsewhere = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&elsewhere, &SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    rustix::net::connect(&elsewhere, &here).unwrap();
    let elsewhere = TcpStream::from(elsewhere);
    elsewhere.set_read_timeout(Some(PATIENCE)).unwrap();
    let _other = Client::over(elsewhere).logged_in();
    let _local = UnixStream::connect(&socket).unwrap();
    server.await_stats("all that may", |stats| stats.connection_count == 4);
    first.disconnect();
    server.await_stats("room for another", |stats| stats.connection_count == 3);
    Client::connect(here).disconnect();
}

/// The timer of the broker's end of a connection, as the kernel tells it: its kind, and what is left of it in milliseconds.
fn timer(server: SocketAddr, client: SocketAddr) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1).unwrap_or("0"), 16).unwrap_or(0);
    let mut ends = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let end = ends
        .find(|end| (port(end[1]), port(end[2])) == (server.port(), client.port()))
        .expect("the broker's end");
    let (kind, left) = end[5].split_once(':').unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    // It counts in hundredths of a second.
    (number(kind), number(left) * 10)
}

#[test]
fn a_peer_that_the_network_may_have_lost_is_asked() {
    const KEEP_ALIVE: u64 = 2;
    for (silence_ms_max, asked) in [(0, None), (16_000, Some(8_000)), (3_000, Some(4_000))] {
        let server = Server::start(|options| options.limits.silence_ms_max = silence_ms_max);
        let mut client = server.client();
        client.publish("q", "answered, so that nothing is under way", "r");
        client.expect_receipt("r");
        let here = client.stream.local_addr().unwrap();
        let begin = Instant::now();
        // The receipt is acknowledged a moment later, until when another timer runs.
        let (kind, left_ms) = loop {
            let seen = timer(server.address(), here);
            let expected = if asked.is_some() { KEEP_ALIVE } else { 0 };
            if seen.0 == expected || begin.elapsed() > PATIENCE {
                break seen;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        match asked {
            None => assert_eq!(kind, 0, "no timer runs"),
            Some(at_ms) => {
                assert_eq!(kind, KEEP_ALIVE, "{silence_ms_max}");
                assert!((at_ms - 2_000..=at_ms).contains(&left_ms), "{left_ms} ms left");
            }
        }
    }
}

#[test]
fn an_error_is_read_in_full_although_more_was_sent() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    let mut bytes = send_frame("q", b"good", "good");
    bytes.extend_from_slice(b"NONSENSE\nreceipt:bad\n\n\0");
    // More than one read takes: unread input at close would reset the connection, and the ERROR with it.
    bytes.resize(200_000, b'x');
    client.send(&bytes);
    client.expect_receipt("good");
    let error = client.expect_error();
    assert_eq!(error.header("receipt-id"), "bad");
    client.expect_end();
    // What is sent still is taken, and thrown away.
    client.send(vec![b'x'; 1_000_000]);
    server.await_stats("the rest", |stats| stats.in_bytes > 1_200_000);
    drop(client);
    server.await_stats("the count", |stats| stats.violation_count == 1);
}

#[test]
fn a_peer_that_never_closes_is_left_after_the_linger() {
    let server = Server::start(|options| options.limits.linger_ms_max = 200);
    let mut client = server.client();
    client.send("NONSENSE\n\n\0");
    client.expect_error();
    client.expect_end();
    server.await_stats("the end", |stats| stats.connection_count == 0);
}

#[test]
fn a_peer_that_only_closed_its_side_gets_its_receipts() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    client.publish("q", "last words", "r");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_receipt("r");
    client.expect_end();
    server.await_stats("the count", |stats| {
        stats.lost_count == 1 && stats.connection_count == 0
    });
}

#[test]
fn one_that_does_not_log_in_is_closed() {
    let server = Server::start(|options| options.limits.login_ms_max = 100);
    let mut client = Client::dial(server.address());
    client.expect_error();
    client.expect_end();
    server.await_stats("the count", |stats| stats.timed_out_count == 1);
}

#[test]
fn a_heart_beat_comes_in_time() {
    let server = Server::start(|options| options.heart_beat_ms_min = 50);
    let mut client = Client::dial(server.address());
    client.send("CONNECT\naccept-version:1.2\nhost:test\nheart-beat:0,50\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
    let start = Instant::now();
    let mut beats = [0; 4];
    client.stream.read_exact(&mut beats).unwrap();
    assert!(beats.iter().all(|byte| *byte == b'\n'));
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Also where a long message of another subscription is half sent when the receipt may leave, its bytes being read from the
/// store (simulation, seed 1882669598137723).
#[test]
fn a_receipt_of_subscribe_comes_before_its_first_message() {
    let server = Server::start(|options| options.limits.body_cache_bytes_max = 1);
    let mut producer = server.client();
    let body = pattern(6 * MIB);
    producer.send(send_frame("long", &body, "long"));
    producer.expect_receipt("long");
    producer.publish("short", "short", "short");
    producer.expect_receipt("short");
    for round in 1..=20 {
        let mut client = server.client();
        client.send("SUBSCRIBE\nid:long\ndestination:/queue/long\nack:client\nreceipt:1\n\n\0");
        client.expect_receipt("1");
        client.read_up_to(round * MIB / 4);
        client.send("SUBSCRIBE\nid:short\ndestination:/queue/short\nack:client\nreceipt:2\n\n\0");
        let commands: Vec<String> = (0..3).map(|_| client.frame().command).collect();
        assert_eq!(commands, ["MESSAGE", "RECEIPT", "MESSAGE"], "round {round}");
        client.disconnect();
    }
}
