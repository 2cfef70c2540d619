//! Hostile clients of the real program, over real sockets. Whatever they do: the broker stays up, its memory stays within
//! what its limits say, descriptors and threads are given back, and a neighbour that keeps to the rules is served and
//! loses nothing, also by a kill right afterwards (`hostile/stage.rs` holds all of it against each attack).
//!
//! `STEADFAST_TEST_HOSTILE` multiplies what the attackers do; 50 makes a million frames. Each test prints the latency of
//! the neighbour's rounds in peace and under attack, which no test judges: with `--release`, `--test-threads 1` and
//! `--nocapture` they are figures.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test of the real program: clocks, files and processes are real here"
)]

#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/peer.rs"]
mod peer;
mod rig;
#[path = "hostile/stage.rs"]
mod stage;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use peer::Peer;
use rig::{Client, Rng};
use stage::{IN_FRAME, PATIENCE, SMALL, Stage, UNREAD, factor};

const MIB: usize = 1 << 20;

/// Frames that come byte by byte, before and after the login, are ended by their time limits.
#[test]
fn slow_headers() {
    let limits = "login_ms_max = 500\nframe_progress_window_ms = 1_000\n";
    let stage = Stage::set("slow headers", limits);
    let count = 200;
    stage.endure(2 * count * SMALL, |stage| {
        let mut peers: Vec<Peer> = (0..2 * count)
            .map(|number| {
                let mut peer = if number < count {
                    Peer::dial(stage.addr())
                } else {
                    Peer::connect(stage.addr(), "1.2")
                };
                peer.say(if number < count { "CONNECT\nx:" } else { "SEND\nx:" });
                peer
            })
            .collect();
        let begin = Instant::now();
        while peers.iter_mut().any(|peer| !peer.is_ended()) {
            assert!(begin.elapsed() < PATIENCE, "not all are closed");
            for peer in &mut peers {
                peer.look();
                if peer.answer.is_empty() {
                    peer.push(b"y");
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for (number, peer) in (0..).zip(&peers) {
            let expected = if number < count {
                "login-timeout"
            } else {
                "frame-too-slow"
            };
            assert_eq!(peer.code(), expected, "{}", peer.answer.escape_ascii());
        }
    });
}

/// What never ends is refused where its limit is.
#[test]
fn endless_frames() {
    let stage = Stage::set("endless frames", "");
    // Logged in or not, what it begins with, what it goes on with, and the code.
    let cases: &[(bool, &str, &str, &str)] = &[
        (false, "", "CONNECT", "header-line-too-long"),
        (false, "CONNECT\n", "x", "header-line-too-long"),
        (false, "CONNECT\n", "a:b\n", "too-many-headers"),
        (
            false,
            "CONNECT\n",
            &format!("a:{}\n", "b".repeat(5_000)),
            "header-block-too-long",
        ),
        (false, "", "\n", "login-too-long"),
        (false, "", "\r\n", "login-too-long"),
        (false, "CONNECT\n\n", "body", "body-not-allowed"),
        (false, "CONNECT\ncontent-length:4\n\n", "body", "body-not-allowed"),
        (true, "", "SEND", "header-line-too-long"),
        (true, "SEND\n", "x", "header-line-too-long"),
        (true, "SEND\n", "a:b\n", "too-many-headers"),
        (true, "SEND\n", "\\n:\\n\n", "too-many-headers"),
        (
            true,
            "SEND\n",
            &format!("a:{}\n", "b".repeat(5_000)),
            "header-block-too-long",
        ),
        (
            true,
            "SEND\ndestination:/queue/endless\n\n",
            "body",
            "body-too-long",
        ),
        (true, "SEND\ncontent-length:4194305\n\n", "x", "body-too-long"),
        (
            true,
            "SEND\ncontent-length:18446744073709551616\n\n",
            "x",
            "body-too-long",
        ),
        (
            true,
            "SEND\ncontent-length:99999999999999999999999999999999\n\n",
            "x",
            "body-too-long",
        ),
        (true, "SEND\ncontent-length:-1\n\n", "x", "bad-content-length"),
        (true, "SEND\ncontent-length:+5\n\n", "x", "bad-content-length"),
        (true, "SEND\ncontent-length:0x10\n\n", "x", "bad-content-length"),
        (true, "SEND\ncontent-length:\n\n", "x", "bad-content-length"),
        (true, "SEND\ncontent-length:1\n\n", "xx", "nul-missing"),
        (true, "ACK\nid:1\n\n", "x", "body-too-long"),
        (true, "", "\0", "nul-in-header"),
    ];
    stage.endure(32 * IN_FRAME, |stage| {
        for _ in 0..factor() {
            for (logged_in, begin, more, code) in cases {
                let mut peer = if *logged_in {
                    Peer::connect(stage.addr(), "1.2")
                } else {
                    Peer::dial(stage.addr())
                };
                peer.say(begin);
                let more = more.repeat(1 + 16 * 1024 / more.len());
                let mut sent = 0;
                while peer.answer.is_empty() && !peer.is_ended() {
                    sent += peer.push(more.as_bytes());
                    assert!(sent < 16 * MIB, "{begin:?} has no end");
                }
                assert_eq!(peer.await_code(), *code, "{begin:?} {more:.20}");
            }
        }
    });
}

/// Bodies without a length, or of a length that is announced, that stop just before their end: they are held within the
/// budget of bodies being received, and what has no room in it waits in its socket.
#[test]
fn bodies_that_never_end() {
    let stage = Stage::set("bodies that never end", "");
    let count = 200;
    stage.endure(count * IN_FRAME, |stage| {
        let body = vec![b'x'; 4 * MIB - 1];
        let mut peers: Vec<(Peer, usize)> = (0..count)
            .map(|number| {
                let mut peer = Peer::connect(stage.addr(), "1.2");
                let length = if number % 2 == 0 {
                    ""
                } else {
                    "content-length:4194304\n"
                };
                peer.say(format!("SEND\ndestination:/queue/never\n{length}\n"));
                (peer, 0)
            })
            .collect();
        // Until nobody can write any more.
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_secs(1) {
            for (peer, sent) in &mut peers {
                let rest = &body[*sent..];
                let count = peer.push(&rest[..rest.len().min(256 * 1024)]);
                if count > 0 {
                    last = Instant::now();
                }
                *sent += count;
            }
        }
        peers
    });
}

/// Connections that are dropped in every way, at once.
#[test]
fn connects_and_drops() {
    let stage = Stage::set("connects and drops", "");
    // No more than there are ports for while closed ones wait.
    let count = (2_000 * factor()).min(10_000);
    stage.endure(100 * SMALL, |stage| {
        for number in 0..count {
            let mut peer = Peer::dial(stage.addr());
            match number % 6 {
                0 => peer.reset(),
                1 => peer.say("CONNECT\naccept-ver"),
                2 => {
                    peer.say("CONNECT\n\n\0SEND\ndestination:/queue/dropped\n\nx\0SEND\ndest");
                    peer.reset();
                }
                3 => peer.say("CONNECT\n\n\0SUBSCRIBE\nid:0\ndestination:/queue/dropped\nack:client\n\n\0BEGIN\ntransaction:t\n\n\0"),
                4 => peer.say("CONNECT\n\n\0SEND\ndestination:/queue/dropped\ncontent-length:1000000\n\nx"),
                _ => {}
            }
        }
    });
}

/// Peers that close one side, or neither, in the middle of everything: the broker gives its side up by itself.
#[test]
fn half_open_sockets() {
    let limits = "login_ms_max = 500\nlinger_ms_max = 500\nframe_progress_window_ms = 500\n";
    let stage = Stage::set("half-open sockets", limits);
    let beginnings = [
        "",
        "CONNECT\n",
        "CONNECT\n\n\0",
        "CONNECT\n\n\0SEND\ndestination:",
        "CONNECT\n\n\0SEND\ndestination:/queue/half\ncontent-length:1000000\n\nx",
        "CONNECT\n\n\0SEND\ndestination:/queue/half\nreceipt:r\n\nx\0",
        "CONNECT\n\n\0SUBSCRIBE\nid:0\ndestination:/queue/half\nack:client\n\n\0",
        "CONNECT\n\n\0DISCONNECT\nreceipt:bye\n\n\0",
        "NONSENSE\n\n\0",
    ];
    stage.endure(540 * SMALL, |stage| {
        let mut peers = Vec::new();
        for number in 0..60 {
            for beginning in beginnings {
                let mut peer = Peer::dial(stage.addr());
                peer.say(beginning);
                // One that is logged in and between frames may be silent for ever.
                let is_idle = beginning.starts_with("CONNECT\n\n\0")
                    && beginning.ends_with('\0')
                    && !beginning.contains("DISCONNECT");
                if number % 2 == 0 || is_idle {
                    // It may be closed already.
                    peer.shut().ok();
                }
                peers.push(peer);
            }
        }
        stage.await_alone();
        peers
    });
}

/// Frames at random: mutated, spliced, cut, in sequences; the seeds are fixed.
#[test]
fn random_and_mutated_frames() {
    let stage = Stage::set("random and mutated frames", "");
    let count = 20_000 * factor();
    stage.endure(64 * UNREAD, |stage| {
        let mut rng = Rng::new(7);
        let mut peers = VecDeque::new();
        let mut sent = 0;
        while sent < count {
            let version = ["1.0", "1.1", "1.2", ""][rng.below(4)];
            let mut bytes = match version {
                "" => Vec::new(),
                version => format!("CONNECT\naccept-version:{version}\nhost:h\n\n\0").into_bytes(),
            };
            for _ in 0..1 + rng.below(8) {
                bytes.extend_from_slice(&frames::mutated(&mut rng));
                sent += 1;
            }
            let mut peer = Peer::dial(stage.addr());
            peer.say(&bytes);
            peers.push_back(peer);
            if peers.len() > 32 {
                let mut peer = peers.pop_front().unwrap();
                peer.look();
                // A reset leaves no port waiting.
                peer.reset();
            }
        }
    });
}

/// Bytes of TLS and HTTP are told what this port is; and no page that a browser shows can make it send a frame.
#[test]
fn other_protocols() {
    let stage = Stage::set("other protocols", "");
    let smuggled = "CONNECT\n\n\0SEND\ndestination:/queue/smuggled\n\nx\0";
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT",
    ];
    let mut cases: Vec<(String, &str)> = methods
        .map(|method| {
            let request = format!(
                "{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{smuggled}",
                smuggled.len()
            );
            (request, "http-not-stomp")
        })
        .into();
    cases.push((
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{smuggled}"),
        "http-not-stomp",
    ));
    cases.push((
        format!("\r\n\n\nPOST / HTTP/1.1\r\n\r\n\0{smuggled}"),
        "http-not-stomp",
    ));
    // A method that is none of HTTP's is a first frame that is not CONNECT.
    cases.push((
        format!("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n\0{smuggled}"),
        "not-connected",
    ));
    cases.push((
        format!("SEND / HTTP/1.1\r\nHost: h\r\n\r\n\0{smuggled}"),
        "not-connected",
    ));
    cases.push((
        format!("EHLO h\r\nMAIL FROM:<a>\r\n\r\n\0{smuggled}"),
        "not-connected",
    ));
    cases.push((
        format!("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}{smuggled}"),
        "tls-not-stomp",
    ));
    let addr = stage.addr();
    stage.endure(64 * SMALL, |stage| {
        for (bytes, code) in &cases {
            for piece in [1, 7, bytes.len()] {
                let mut peer = Peer::dial(stage.addr());
                for piece in bytes.as_bytes().chunks(piece) {
                    peer.say(piece);
                }
                assert_eq!(peer.await_code(), *code, "{bytes:.20} in pieces of {piece}");
            }
        }
        // The queue has one message: our own.
        let mut client = Client::connect(addr).unwrap();
        let queue = ("destination", "/queue/smuggled");
        client.request("SEND", &[queue], b"ours").unwrap();
        client.send("SUBSCRIBE", &[queue, ("id", "0")], b"").unwrap();
        assert_eq!(client.expect().unwrap().body, b"ours");
    });
}

/// As many subscriptions, transactions and staged messages as the limits allow, and one more.
#[test]
fn subscription_and_transaction_floods() {
    let stage = Stage::set("subscription and transaction floods", "");
    let count = 30;
    stage.endure(count * (UNREAD + 2 * SMALL), |stage| {
        let mut held = Vec::new();
        let mut codes = BTreeSet::new();
        for connection in 0..count {
            let mut subscriber = Peer::connect(stage.addr(), "1.2");
            for number in 0..1_000 {
                let kind = ["queue", "topic"][number % 2];
                subscriber.say(format!(
                    "SUBSCRIBE\nid:{number}\ndestination:/{kind}/flood.{connection}.{number}\n\n\0"
                ));
            }
            subscriber.say("BEGIN\ntransaction:last\nreceipt:last\n\n\0");
            subscriber.await_answer("receipt-id:last\n\n\0");
            let mut beginner = Peer::connect(stage.addr(), "1.2");
            for number in 0..256 {
                beginner.say(format!("BEGIN\ntransaction:{number}\n\n\0"));
            }
            if connection % 2 == 0 {
                subscriber.say("SUBSCRIBE\nid:1000\ndestination:/queue/flood\n\n\0");
                assert_eq!(subscriber.await_code(), "too-many-subscriptions");
                beginner.say("BEGIN\ntransaction:256\n\n\0");
                assert_eq!(beginner.await_code(), "too-many-transactions");
            }
            let mut stager = Peer::connect(stage.addr(), "1.2");
            stager.say("BEGIN\ntransaction:t\n\n\0");
            let frame = format!(
                "SEND\ndestination:/queue/flood\ntransaction:t\n\n{}\0",
                "x".repeat(30_000)
            );
            // Up to the bound of one connection, or over it; until that of the broker is reached.
            for _ in 0..130 + 20 * (connection % 2) {
                stager.say(&frame);
            }
            stager.say("BEGIN\ntransaction:last\nreceipt:last\n\n\0");
            stager.await_any();
            codes.insert(stager.code());
            held.push([subscriber, beginner, stager]);
        }
        let expected = ["memory-full", "none", "staged-too-much"].map(str::to_owned);
        assert_eq!(codes, expected.into());
        held
    });
}

/// Acknowledgements of what was never delivered, each on a connection that it ends; and line ends without a pause.
#[test]
fn floods_of_acks_and_heart_beats() {
    let stage = Stage::set("floods of acks and heart-beats", "");
    stage.endure(320 * SMALL, |stage| {
        for round in 0..300 * factor() {
            for (version, ack) in [
                ("1.0", "ACK\nmessage-id:1-1-1"),
                ("1.1", "NACK\nsubscription:0\nmessage-id:\\\\"),
                ("1.1", "ACK\nsubscription:0\nmessage-id:1"),
                ("1.2", "ACK\nid:18446744073709551616"),
                ("1.2", "NACK\nid:00000000-1-1-1"),
            ] {
                let mut peer = Peer::connect(stage.addr(), version);
                let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/none\nack:client\n\n\0";
                peer.say(format!("{subscribe}{ack}\n\n\0").repeat(1 + (round % 3) as usize));
                let code = peer.await_code();
                assert_eq!(code, "delivery-unknown", "{version} {ack:?}");
                peer.reset();
            }
        }
        // As fast as may be asked for, and nobody reads.
        let beating: Vec<_> = (0..300)
            .map(|_| {
                let mut peer = Peer::dial(stage.addr());
                peer.say("CONNECT\naccept-version:1.2\nhost:h\nheart-beat:0,1\n\n\0");
                peer
            })
            .collect();
        for ends in ["\n", "\r\n"] {
            let mut peer = Peer::connect(stage.addr(), "1.2");
            let flood = ends.repeat(MIB / ends.len());
            for _ in 0..8 * factor() {
                peer.say(&flood);
            }
            peer.say("SEND\ndestination:/queue/beats\nreceipt:r\n\nx\0");
            peer.await_answer("receipt-id:r\n\n\0");
        }
        beating
    });
}

/// Long receipts that nobody reads: the broker stops reading, and then ends the connection.
#[test]
fn receipts_that_are_never_read() {
    let stage = Stage::set("receipts that are never read", "unread_output_ms_max = 1_000\n");
    let count = 40;
    stage.endure(count * UNREAD, |stage| {
        let frame = format!(
            "SEND\ndestination:/queue/unread\nreceipt:{}\n\nx\0",
            "r".repeat(9_000)
        );
        let frames = frame.repeat(20);
        let mut peers: Vec<(Peer, usize)> = (0..count)
            .map(|_| (Peer::connect(stage.addr(), "1.2"), 0))
            .collect();
        let begin = Instant::now();
        // A write to what the broker closed fails; nothing is read before.
        while peers.iter().any(|(peer, _)| !peer.is_over()) {
            assert!(begin.elapsed() < PATIENCE, "they are not closed");
            for (peer, sent) in &mut peers {
                *sent += peer.push(&frames.as_bytes()[*sent % frames.len()..]);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        peers
    });
}

/// Subscribers that never read, of a queue and of topics, while others send to them.
#[test]
fn subscribers_that_never_read() {
    let stage = Stage::set("subscribers that never read", "");
    stage.endure(22 * UNREAD, |stage| {
        let mut held = Vec::new();
        for number in 0..20 {
            let mut peer = Peer::connect(stage.addr(), "1.2");
            if number % 2 == 0 {
                peer.say("SUBSCRIBE\nid:0\ndestination:/queue/deaf\nack:client\nprefetch-count:1000000\nreceipt:s\n\n\0");
            } else {
                for topic in 0..50 {
                    peer.say(format!(
                        "SUBSCRIBE\nid:{topic}\ndestination:/topic/deaf.{number}.{topic}\n\n\0"
                    ));
                }
                peer.say("BEGIN\ntransaction:t\nreceipt:s\n\n\0");
            }
            peer.await_answer("receipt-id:s\n\n\0");
            held.push(peer);
        }
        let body = vec![b'x'; 100_000];
        let mut producer = Client::connect(stage.addr()).unwrap();
        for _ in 0..200 * factor().min(5) {
            producer.send("SEND", &[("destination", "/queue/deaf")], &body).unwrap();
        }
        for number in (1..20).step_by(2) {
            for topic in 0..50 {
                let topic = format!("/topic/deaf.{number}.{topic}");
                for _ in 0..9 {
                    producer.send("SEND", &[("destination", &topic)], &body).unwrap();
                }
            }
        }
        producer
            .request("SEND", &[("destination", "/queue/other")], b"through")
            .unwrap();
        held
    });
}

/// Logins by the thousand, repeated, and of every odd kind.
#[test]
fn login_floods() {
    let stage = Stage::set("login floods", "");
    let long = vec!["1.2"; 2_000].join(",");
    let odd: Vec<(String, &str)> = vec![
        ("CONNECT\naccept-version:1.2\n\n\0CONNECT\n\n\0".into(), "already-connected"),
        ("CONNECT\naccept-version:3\n\n\0".into(), "version-unsupported"),
        ("CONNECT\naccept-version:\n\n\0".into(), "version-unsupported"),
        (format!("CONNECT\naccept-version:{long}\n\n\0STOMP\n\n\0"), "already-connected"),
        ("CONNECT\naccept-version:1.2\nheart-beat:1\n\n\0".into(), "bad-heart-beat"),
        ("CONNECT\naccept-version:1.2\nheart-beat:-1,1\n\n\0".into(), "bad-heart-beat"),
        (
            "CONNECT\naccept-version:1.2\nheart-beat:18446744073709551615,18446744073709551615\n\n\0ACK\n\n\0".into(),
            "header-missing",
        ),
        ("connect\n\n\0".into(), "not-connected"),
        ("SEND\ndestination:/queue/early\n\n\0CONNECT\n\n\0".into(), "not-connected"),
        ("SEND\ndestination:/queue/early\n\nx\0CONNECT\n\n\0".into(), "body-not-allowed"),
        (format!("CONNECT\nlogin:{}\n\n\0ACK\n\n\0", "x".repeat(10_000)), "header-missing"),
    ];
    stage.endure(64 * SMALL, |stage| {
        for _ in 0..factor() {
            for (bytes, code) in &odd {
                let mut peer = Peer::dial(stage.addr());
                peer.say(bytes);
                assert_eq!(peer.await_code(), *code, "{bytes:.80}");
            }
        }
        for _ in 0..(1_000 * factor()).min(10_000) {
            let mut peer = Peer::connect(stage.addr(), "1.2");
            peer.say("DISCONNECT\nreceipt:bye\n\n\0");
            peer.await_answer("receipt-id:bye\n\n\0");
            peer.reset();
        }
    });
}

/// NUL, CR, LF, colons and escapes at odd places, in each version: the code, or the receipt where it is legal.
#[test]
fn odd_bytes_in_each_version() {
    let stage = Stage::set("odd bytes in each version", "");
    stage.endure(64 * SMALL, |stage| {
        for (version, bytes, expected) in frames::ODD {
            for piece in [1, bytes.len()] {
                let mut peer = Peer::connect(stage.addr(), version);
                for piece in bytes.chunks(piece) {
                    peer.say(piece);
                }
                if *expected == "receipt" {
                    peer.await_answer("\n\n\0");
                    assert!(peer.answer.starts_with(b"RECEIPT\n"), "{}", bytes.escape_ascii());
                } else {
                    let code = peer.await_code();
                    assert_eq!(code, *expected, "{version} {}", bytes.escape_ascii());
                }
            }
        }
    });
}
