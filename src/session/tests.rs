use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::{DestinationKind, MessageId, SubNo, Tag, TxNo};
use crate::port::{AckMode, Body, DeliveryKey, Payload, Settle};
use crate::wire::Version;

const LOGIN: [(&str, &str); 3] = [
    ("1.0", "CONNECT\n\n^"),
    ("1.1", "CONNECT\naccept-version:1.1\nhost:h\n\n^"),
    ("1.2", "CONNECT\naccept-version:1.2\nhost:h\n\n^"),
];

/// NUL is written as `^`.
fn wire(text: &str) -> Vec<u8> {
    text.bytes()
        .map(|byte| if byte == b'^' { 0 } else { byte })
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "^")
}

/// A session, its client and a core that does everything, on a virtual clock.
struct Pair {
    session: Session,
    now: Now,
    /// What the core answers with.
    gate: Seq,
    refuse: Option<(usize, Refusal)>,
    /// What the core was asked.
    asked: Vec<Request>,
    /// The stored form of each SEND: name, header block, body.
    sent: Vec<(String, String, Vec<u8>)>,
    held: Vec<u8>,
}

fn config() -> SessionConfig {
    SessionConfig {
        limits: Limits::default(),
        epoch: Epoch(7),
        store: "0a1b2c3d".to_owned(),
        heart_beat_ms_min: 1_000,
        heart_beat_margin_percent: 200,
    }
}

impl Pair {
    fn with(config: SessionConfig) -> Self {
        let now = Now {
            wall_ms: 1_000_000,
            mono_ms: 5_000,
        };
        Self {
            session: Session::new(Arc::new(config), SessionNo(42), now),
            now,
            gate: Seq(0),
            refuse: None,
            asked: vec![],
            sent: vec![],
            held: vec![],
        }
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = config();
        change(&mut config.limits);
        Self::with(config)
    }

    fn login(mut self, version: &str) -> Self {
        let login = LOGIN.iter().find(|(own, _)| *own == version).unwrap().1;
        self.send(login);
        assert!(self.read().starts_with("CONNECTED\n"));
        self
    }

    fn new(version: &str) -> Self {
        Self::with(config()).login(version)
    }

    /// What a driver does with received bytes.
    fn send_bytes(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        loop {
            let done = self.session.handle_bytes(&self.held, self.now);
            self.held.drain(..done);
            self.apply();
            if done == 0 || self.held.is_empty() {
                break;
            }
        }
    }

    fn apply(&mut self) {
        let requests = self.session.requests();
        let refuse = self.refuse.take_if(|(at, _)| *at < requests.list.len());
        let done = refuse.map_or(requests.list.len(), |(at, _)| at);
        for request in &requests.list[..done] {
            if let Request::Send(send) = request {
                let bytes = match &send.payload {
                    Payload::Arena(span) => requests.bytes(*span),
                    Payload::Shared(bytes) => bytes,
                };
                let (block, body) = bytes.split_at(send.header_len as usize);
                self.sent
                    .push((requests.text(send.name).to_owned(), text(block), body.to_vec()));
            }
            self.asked.push(request.clone());
        }
        let refusal = refuse.map(|(_, refusal)| refusal);
        self.session.handle_applied(
            Applied {
                done,
                gate: self.gate,
                refusal,
            },
            self.now,
        );
    }

    fn send(&mut self, frames: &str) {
        self.send_bytes(&wire(frames));
    }

    /// What leaves when this much is durable.
    fn read_at(&mut self, durable: u64) -> String {
        let mut out = Vec::new();
        self.session.poll_output(Seq(durable), &mut out);
        text(&out)
    }

    fn read(&mut self) -> String {
        self.read_at(u64::MAX)
    }

    /// The code of the ERROR that is all that leaves.
    #[track_caller]
    fn error(&mut self) -> String {
        let out = self.read();
        let (before, code) = out
            .split_once("\ncode:")
            .unwrap_or_else(|| panic!("no ERROR in {out:?}"));
        assert!(before.starts_with("ERROR\nmessage:"), "{out:?}");
        assert!(!before.contains('^'), "{out:?}");
        assert_eq!(self.session.phase(), Phase::Ended);
        assert!(!self.session.wants_input());
        code.lines().next().unwrap().to_owned()
    }

    /// Sends frames of which the last is refused.
    #[track_caller]
    fn fails(&mut self, frames: &str) -> String {
        self.send(frames);
        self.error()
    }

    fn timeout(&mut self, mono_ms: u64) -> String {
        self.now.mono_ms = mono_ms;
        let mut out = Vec::new();
        self.session.handle_timeout(self.now, &mut out);
        text(&out)
    }

    fn deliver(&mut self, delivery: &Delivery, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        self.session.handle_delivery(delivery, pieces, &mut out);
        text(&out)
    }
}

/// A frame in a session of each version: the code of its ERROR, or "" if it is accepted.
#[track_caller]
fn check_each(before: &str, frame: &str, expect: [&str; 3]) {
    for ((version, _), expect) in LOGIN.iter().zip(expect) {
        let mut pair = Pair::new(version);
        pair.send(before);
        assert_eq!(pair.session.phase(), Phase::Open, "{version}: {}", pair.read());
        pair.send(frame);
        let code = if pair.session.phase() == Phase::Open {
            String::new()
        } else {
            pair.error()
        };
        assert_eq!(code, expect, "{version}: {frame:?}");
    }
}

#[track_caller]
fn check_all(frame: &str, expect: &str) {
    check_each("", frame, [expect; 3]);
}

// ---- CONNECT

#[test]
fn the_highest_common_version_is_taken_in_any_order() {
    let check = |accept: &str, expect: &str| {
        for command in ["CONNECT", "STOMP"] {
            let mut pair = Pair::with(config());
            pair.send(&format!("{command}\n{accept}host:h\n\n^"));
            let out = pair.read();
            assert!(
                out.starts_with(&format!("CONNECTED\nversion:{expect}\n")),
                "{accept:?} {out:?}"
            );
        }
    };
    check("", "1.0");
    check("accept-version:1.0\n", "1.0");
    check("accept-version:1.0,1.1\n", "1.1");
    check("accept-version:1.2,1.1,1.0\n", "1.2");
    check("accept-version:1.1,1.0,2.0\n", "1.1");
    check("accept-version: 1.0, 1.1\n", "1.1");
    check("accept-version:1.1\naccept-version:1.2\n", "1.1");
}

#[test]
fn without_a_common_version_the_spoken_ones_are_named() {
    let mut pair = Pair::with(config());
    pair.send("CONNECT\naccept-version:2.0,1.3\nreceipt:r:1\n\n^SEND\ndestination:a\n\n^");
    let out = pair.read();
    assert!(out.contains("\nversion:1.0,1.1,1.2\n"), "{out}");
    assert!(out.contains("\nreceipt-id:r:1\n"), "{out}");
    assert_eq!(
        pair.session.end_reason(),
        Some(&EndReason::Violation("version-unsupported"))
    );
    assert!(pair.asked.is_empty());
}

#[test]
fn connected_says_who_we_are() {
    let check = |login: &str, expect: &str| {
        let mut pair = Pair::with(config());
        pair.send(login);
        assert_eq!(pair.read(), expect.replace("VERSION", env!("CARGO_PKG_VERSION")));
    };
    check(
        "STOMP\r\naccept-version:1.2\r\nhost:any:where\r\nlogin: me\r\npasscode::=123\\t\r\nreceipt:7\r\n\r\n^\r\n\n",
        "CONNECTED\nversion:1.2\nsession:0a1b2c3d-7-42\nserver:steadfast/VERSION\nheart-beat:0,0\n\n^",
    );
    check(
        "\n\r\nCONNECT\nlogin: me\npasscode: you\nheart-beat:nonsense\n\n^",
        "CONNECTED\nversion:1.0\nsession:0a1b2c3d-7-42\nserver:steadfast/VERSION\n\n^",
    );
}

#[test]
fn the_first_frame_is_connect_and_no_second_follows() {
    let first = |frame: &str| Pair::with(config()).fails(frame);
    assert_eq!(first("SEND\ndestination:a\n\n^"), "not-connected");
    assert_eq!(first("connect\n\n^"), "not-connected");
    assert_eq!(first("CONNECT\nnonsense\n\n^"), "bad-header");
    assert_eq!(first("CONNECT\n\nbody^"), "body-not-allowed");
    assert_eq!(first("CONNECT\ncontent-length:4\n\n"), "body-not-allowed");
    assert_eq!(first("GET / HTTP/1.1\r\n"), "http-not-stomp");
    assert_eq!(first("\r\nCONNECT a:1 HTTP/1.1\r\n"), "http-not-stomp");
    let mut tls = Pair::with(config());
    tls.send_bytes(&[0x16]);
    assert_eq!(tls.session.phase(), Phase::Open);
    tls.send_bytes(&[0x03, 0x01, 0x00]);
    assert_eq!(tls.error(), "tls-not-stomp");
    check_all("CONNECT\naccept-version:1.2\nhost:h\n\n^", "already-connected");
    check_all("STOMP\n\n^", "already-connected");
}

#[test]
fn frames_behind_connect_are_read_by_the_rules_of_the_version() {
    let mut pair = Pair::with(config());
    pair.send("CONNECT\naccept-version:1.2\n\n^SEND\r\ndestination:a\r\nreceipt:1\r\n\r\nx^SEND\ndestination:b\n\n^");
    assert_eq!(pair.sent.len(), 2);
    assert!(
        pair.read()
            .ends_with("heart-beat:0,0\n\n^RECEIPT\nreceipt-id:1\n\n^")
    );
}

#[test]
fn a_login_is_bounded() {
    // Bytes, in all, line ends before it among them.
    let login = "\n\nCONNECT\na:b\n\n^";
    for (max, fails) in [(login.len(), false), (login.len() - 1, true)] {
        for pieces in [login.len(), 1] {
            let mut pair = Pair::limited(|limits| limits.login_bytes_max = max);
            wire(login)
                .chunks(pieces)
                .for_each(|piece| pair.send_bytes(piece));
            assert_eq!(pair.session.phase() != Phase::Open, fails, "{max} {pieces}");
            if fails {
                assert_eq!(pair.error(), "login-too-long");
                assert_eq!(
                    pair.session.end_reason(),
                    Some(&EndReason::Refused("login-too-long"))
                );
            }
        }
    }
    let mut beats = Pair::limited(|limits| limits.login_bytes_max = 10);
    beats.send("\n\n\n\n\n\n\n\n\n\n");
    assert_eq!(beats.session.phase(), Phase::Open);
    assert_eq!(beats.fails("\n"), "login-too-long");
    // Time.
    let mut slow = Pair::with(config());
    assert_eq!(slow.session.poll_timeout(), Some(15_000));
    assert_eq!(slow.timeout(14_999), "");
    assert_eq!(slow.session.phase(), Phase::Open);
    slow.timeout(15_000);
    assert_eq!(slow.error(), "login-timeout");
    assert_eq!(
        slow.session.end_reason(),
        Some(&EndReason::TimedOut("login-timeout"))
    );
    assert_eq!(slow.session.poll_timeout(), None);
    assert_eq!(Pair::new("1.0").session.poll_timeout(), None);
}

// ---- Heart-beats

#[test]
fn heart_beats_are_agreed_per_direction() {
    let check = |header: &str, expect: Result<&str, &str>| {
        let mut pair = Pair::with(config());
        pair.send(&format!("CONNECT\naccept-version:1.1\n{header}\n\n^"));
        match expect {
            Ok(expect) => {
                let out = pair.read();
                assert!(
                    out.contains(&format!("\nheart-beat:{expect}\n")),
                    "{header} {out}"
                );
            }
            Err(code) => assert_eq!(pair.error(), code, "{header}"),
        }
    };
    check("heart-beat:0,0", Ok("0,0"));
    check("heart-beat:2000,0", Ok("0,2000"));
    check("heart-beat:0,2000", Ok("2000,0"));
    check("heart-beat:10,3000", Ok("3000,1000"));
    check(
        "heart-beat:99999999999999999999999,1",
        Ok("1000,18446744073709551615"),
    );
    for bad in [
        "", "1", "1,", ",1", "1,2,3", "-1,2", "1,+2", "1, 2", "1.5,2", "a,b",
    ] {
        check(&format!("heart-beat:{bad}"), Err("bad-heart-beat"));
    }
}

fn beating(client: &str) -> Pair {
    let mut pair = Pair::with(config());
    pair.send(&format!("CONNECT\naccept-version:1.2\nheart-beat:{client}\n\n^"));
    pair.read();
    pair
}

#[test]
fn we_beat_when_three_quarters_of_the_interval_were_silent() {
    let mut pair = beating("0,4000");
    assert_eq!(pair.session.poll_timeout(), Some(8_000));
    assert_eq!(pair.timeout(7_999), "");
    assert_eq!(pair.timeout(8_000), "\n");
    assert_eq!(pair.session.poll_timeout(), Some(11_000));
    pair.now.mono_ms = 10_000;
    pair.session.handle_wrote(pair.now);
    assert_eq!(pair.timeout(12_999), "");
    assert_eq!(pair.timeout(13_000), "\n");
    // Receipts that wait for the disk do not stop it; the end does.
    pair.gate = Seq(1);
    pair.send("DISCONNECT\nreceipt:1\n\n^");
    assert_eq!(pair.session.phase(), Phase::Ending);
    assert_eq!(pair.session.poll_timeout(), Some(16_000));
    assert_eq!(pair.timeout(16_000), "\n");
    pair.read();
    assert_eq!(
        (pair.session.phase(), pair.session.poll_timeout()),
        (Phase::Ended, None)
    );
    assert_eq!(pair.timeout(30_000), "");
}

#[test]
fn a_silent_peer_is_dead_after_its_interval_and_the_margin() {
    let mut pair = beating("1500,0");
    assert_eq!(pair.session.poll_timeout(), Some(8_000));
    pair.timeout(7_999);
    assert_eq!(pair.session.phase(), Phase::Open);
    pair.send("\n");
    assert_eq!(pair.session.poll_timeout(), Some(10_999));
    // A part of a frame is a sign of life too.
    pair.now.mono_ms = 10_998;
    pair.send("SEND\ndest");
    assert_eq!(pair.session.poll_timeout(), Some(13_998));
    // While we do not read, silence is not the peer's.
    pair.now.mono_ms = 13_998;
    pair.session.handle_unread(pair.now);
    pair.timeout(16_997);
    assert_eq!(pair.session.phase(), Phase::Open);
    pair.timeout(16_998);
    assert_eq!(pair.error(), "heart-beat-timeout");
    assert_eq!(
        pair.session.end_reason(),
        Some(&EndReason::TimedOut("heart-beat-timeout"))
    );
}

#[test]
fn a_begun_frame_makes_progress_or_ends() {
    let mut pair = Pair::limited(|limits| {
        limits.frame_bytes_per_second_min = 2;
        limits.frame_progress_window_ms = 10_000;
    })
    .login("1.2");
    assert_eq!(pair.session.poll_timeout(), None);
    pair.send("SEND\ndestination:a\n");
    assert_eq!(pair.session.poll_timeout(), Some(15_000));
    pair.now.mono_ms = 14_000;
    pair.send("b:c\n"); // 23 bytes in this window
    pair.timeout(15_000);
    assert_eq!(pair.session.poll_timeout(), Some(25_000));
    pair.send("12345678:012345678\n");
    pair.timeout(24_999);
    assert_eq!(pair.session.phase(), Phase::Open);
    // 19 in this one.
    pair.timeout(25_000);
    assert_eq!(pair.error(), "frame-too-slow");
    assert_eq!(
        pair.session.end_reason(),
        Some(&EndReason::TimedOut("frame-too-slow"))
    );

    let mut quick = Pair::new("1.2");
    quick.send("SEND\ndestination:a\n");
    quick.now.mono_ms = 20_000;
    quick.send("\n^SEND\n");
    assert_eq!(
        quick.session.poll_timeout(),
        Some(50_000),
        "each frame has a window of its own"
    );
    quick.send("destination:a\n\n^\n\n");
    assert_eq!(quick.session.poll_timeout(), None);
}

// ---- What the versions change

#[test]
fn frames_are_judged_by_the_version() {
    let sub = "SUBSCRIBE\nid:1\ndestination:a\nack:client\n\n^";
    let old = "SUBSCRIBE\ndestination:a\n\n^";
    // 68
    check_each("", old, ["", "header-missing", "header-missing"]);
    check_each("", "SUBSCRIBE\nid:1\n\n^", ["header-missing"; 3]);
    // 69
    check_each(
        sub,
        "SUBSCRIBE\nid:1\ndestination:b\n\n^",
        ["subscription-exists"; 3],
    );
    check_each(sub, "SUBSCRIBE\nid:2\ndestination:a\n\n^", [""; 3]);
    // 71
    check_each(
        "",
        "SUBSCRIBE\nid:1\ndestination:a\nack:client-individual\n\n^",
        ["header-invalid", "", ""],
    );
    check_all(
        "SUBSCRIBE\nid:1\ndestination:a\nack:Client\n\n^",
        "header-invalid",
    );
    // 79
    check_each(sub, "UNSUBSCRIBE\nid:1\n\n^", [""; 3]);
    check_each(sub, "UNSUBSCRIBE\nid:2\n\n^", ["subscription-unknown"; 3]);
    check_each(
        sub,
        "UNSUBSCRIBE\ndestination:a\n\n^",
        ["subscription-unknown", "header-missing", "header-missing"],
    );
    check_all("UNSUBSCRIBE\n\n^", "header-missing");
    // 81
    check_each(
        sub,
        "ACK\nmessage-id:0a1b2c3d-7-1\n\n^",
        ["", "header-missing", "header-missing"],
    );
    check_each(
        sub,
        "ACK\nmessage-id:0a1b2c3d-7-1\nsubscription:1\n\n^",
        ["", "", "header-missing"],
    );
    check_each(
        sub,
        "ACK\nmessage-id:0a1b2c3d-7-1\nsubscription:9\n\n^",
        ["", "delivery-unknown", "header-missing"],
    );
    check_each(
        sub,
        "ACK\nid:0a1b2c3d-7-42-1\n\n^",
        ["header-missing", "header-missing", ""],
    );
    // 84
    check_each(
        sub,
        "NACK\nmessage-id:0a1b2c3d-7-1\nsubscription:1\n\n^",
        ["nack-unsupported", "", "header-missing"],
    );
    // 2, 10, 11, 12
    check_each(
        "",
        "SEND\r\ndestination:a\r\n\r\n^",
        ["nul-in-header", "nul-in-header", ""],
    );
    check_each("", "SEND\ndestination:a\nx:\\n\\c\\\\\n\n^", [""; 3]);
    check_each("", "SEND\ndestination:a\nx:\\r\n\n^", ["", "bad-escape", ""]);
    check_each(
        "",
        "SEND\ndestination:a\nx:\\t\n\n^",
        ["", "bad-escape", "bad-escape"],
    );
    check_each(
        "",
        "ACK\n\\x:1\n\n^",
        ["header-missing", "bad-escape", "bad-escape"],
    );
    // 18
    check_each(
        "",
        "SUBSCRIBE\nid:1\ndestination:a\n\nselect^",
        ["", "body-not-allowed", "body-not-allowed"],
    );
    check_all("BEGIN\ntransaction:1\n\nx^", "body-not-allowed");
    // 19: on other frames it is read too
    check_all("BEGIN\ntransaction:1\ncontent-length:0\n\n^", "");
    check_all(
        "BEGIN\ntransaction:1\ncontent-length:1\n\n\n^",
        "body-not-allowed",
    );
    check_all("SEND\ndestination:a\ncontent-length:5\n\nabcdefg^", "nul-missing");
    check_all("SEND\ndestination:a\ncontent-length:x\n\n^", "bad-content-length");
    // 4, 103
    check_all("send\ndestination:a\n\n^", "unknown-command");
    check_all("MESSAGE\n\n^", "unknown-command");
    check_all("SEND\nDestination:a\n\n^", "header-missing");
    // 61, 62
    check_all("SEND\n\n^", "header-missing");
    for bad in ["", "/temp-queue/a", "/queue/", "/topic/", "/"] {
        check_all(&format!("SEND\ndestination:{bad}\n\n^"), "bad-destination");
        check_all(
            &format!("SUBSCRIBE\nid:1\ndestination:{bad}\n\n^"),
            "bad-destination",
        );
    }
    check_all("SEND\ndestination:a\npersistent:maybe\n\n^", "header-invalid");
    // 87, 89, 91
    for command in ["BEGIN", "COMMIT", "ABORT"] {
        check_all(&format!("{command}\n\n^"), "header-missing");
    }
    check_each(
        "BEGIN\ntransaction:1\n\n^",
        "BEGIN\ntransaction:1\n\n^",
        ["transaction-exists"; 3],
    );
    check_all("COMMIT\ntransaction:1\n\n^", "transaction-unknown");
    check_all("ABORT\ntransaction:1\n\n^", "transaction-unknown");
    check_all("SEND\ndestination:a\ntransaction:1\n\n^", "transaction-unknown");
    check_all("SUBSCRIBE\nid:1\ndestination:a\ntransaction:1\n\n^", "");
}

#[test]
fn headers_are_utf8_but_for_1_0() {
    for (version, _) in LOGIN {
        let mut pair = Pair::new(version);
        pair.send_bytes(b"SEND\ndestination:a\nx:\xff\n\n\0");
        match version {
            "1.0" => assert_eq!(pair.session.phase(), Phase::Open),
            _ => assert_eq!(pair.error(), "not-utf8"),
        }
    }
    let mut pair = Pair::new("1.0");
    pair.send_bytes(b"SEND\ndestination:\xff\n\n\0");
    assert_eq!(pair.error(), "not-utf8");
}

#[test]
fn in_1_0_names_and_values_are_padded_and_the_id_is_optional() {
    let mut pair = Pair::new("1.0");
    pair.send("SUBSCRIBE\ndestination : /queue/a\nreceipt:  r\n\n^SUBSCRIBE\ndestination:/topic/a\n\n^");
    assert_eq!(pair.read(), "RECEIPT\nreceipt-id:r\n\n^");
    assert_eq!(pair.fails("SUBSCRIBE\ndestination:a\n\n^"), "subscription-exists");
    let mut pair = Pair::new("1.0");
    pair.send("SUBSCRIBE\ndestination:a\n\n^UNSUBSCRIBE\ndestination:/queue/a\n\n^");
    assert_eq!(pair.asked[1], Request::Unsubscribe { sub: SubNo(1) });
    // An id that was not given at SUBSCRIBE does no harm beside the destination.
    pair.send("SUBSCRIBE\ndestination:a\n\n^UNSUBSCRIBE\nid:x\ndestination:a\n\n^");
    assert_eq!(pair.asked[3], Request::Unsubscribe { sub: SubNo(2) });
    // In 1.1 a space is a character.
    assert_eq!(
        Pair::new("1.1").fails("SEND\ndestination :a\n\n^"),
        "header-missing"
    );
}

// ---- SEND

#[track_caller]
fn check_block(version: &str, headers: &str, expect: &str) {
    let mut pair = Pair::new(version);
    pair.send(&format!("SEND\n{headers}\nhi^"));
    assert_eq!(pair.session.phase(), Phase::Open, "{}", pair.read());
    assert_eq!(pair.sent[0].1, format!("{expect}content-length:2\n"), "{version}");
    assert_eq!(pair.sent[0].2, b"hi");
}

#[test]
fn a_message_is_stored_with_its_headers_byte_for_byte() {
    for (version, _) in LOGIN {
        check_block(
            version,
            "b:2\na:1\ndestination:/queue/q\na:0\ncontent-type:text/plain\nexpires:1\npersistent:true\nempty:\nb:2\n",
            "destination:/queue/q\nb:2\na:1\na:0\ncontent-type:text/plain\nexpires:1\npersistent:true\nempty:\nb:2\n",
        );
    }
}

#[test]
fn a_message_is_stored_with_the_escapes_of_1_2() {
    // The same text, as each version writes it.
    let stored = "destination:a\\cb\\\\\nn:v\\cw\\\\\\r!\n";
    check_block("1.0", "destination:a:b\\\nn:v:w\\\r!\n", stored);
    check_block("1.1", "destination:a\\cb\\\\\nn:v\\cw\\\\\r!\n", stored);
    check_block("1.2", "destination:a\\cb\\\\\nn:v\\cw\\\\\\r!\n", stored);
    // A raw colon in a value is read as one.
    check_block(
        "1.2",
        "destination:a\nurl:http://x\n",
        "destination:a\nurl:http\\c//x\n",
    );
    check_block(
        "1.2",
        "destination:a\r\nn\\c\\n:\\n\r\n",
        "destination:a\nn\\c\\n:\\n\n",
    );
    check_block("1.0", "destination:a\n  n : v \n", "destination:a\n  n:v \n");
    for (version, destination) in [
        ("1.0", "a:b\\"),
        ("1.1", "a\\cb\\\\"),
        ("1.2", "/queue/a\\cb\\\\"),
    ] {
        let mut pair = Pair::new(version);
        pair.send(&format!("SEND\ndestination:{destination}\n\n^"));
        assert_eq!(pair.sent[0].0, "a:b\\");
    }
}

#[test]
fn what_belongs_to_the_broker_is_not_passed_on() {
    let own = "subscription:s\nack:1\nredelivered:true\ndelivery-count:9\nreceipt:r\ncontent-length:2\ncontent-length:9\n";
    check_block(
        "1.2",
        &format!("{own}destination:a\ndestination:/queue/forged\nmessage-id:m\nx:y\n"),
        "destination:a\nsender-message-id:m\nx:y\n",
    );
    check_block(
        "1.2",
        "message-id:m\ndestination:a\nsender-message-id:mine\n",
        "destination:a\nsender-message-id:mine\n",
    );
    // Another name is another header.
    check_block(
        "1.1",
        "destination:a\nack :1\nAck:2\n",
        "destination:a\nack :1\nAck:2\n",
    );
}

#[test]
fn large_bodies_are_buffers_of_their_own() {
    for (size, shared) in [(0, false), (65_535, false), (65_536, true)] {
        let mut pair = Pair::new("1.2");
        let body = vec![0; size];
        let mut frame =
            format!("SEND\ndestination:/topic/t\npersistent:false\ncontent-length:{size}\n\n").into_bytes();
        pair.send_bytes(&frame);
        assert_eq!(
            pair.session.body_bytes_announced(),
            if shared { size + 1 } else { 0 }
        );
        frame.clear();
        frame.extend(&body);
        frame.push(0);
        pair.send_bytes(&frame);
        assert_eq!(pair.session.body_bytes_announced(), 0);
        let block = format!("destination:/topic/t\npersistent:false\ncontent-length:{size}\n");
        assert_eq!(pair.sent[0], ("t".to_owned(), block, body));
        let Request::Send(send) = &pair.asked[0] else {
            panic!("not a SEND")
        };
        assert_eq!(matches!(send.payload, Payload::Shared(_)), shared);
        assert_eq!(
            (send.kind, send.persistent, send.tx),
            (DestinationKind::Topic, false, None)
        );
    }
}

#[test]
fn an_announced_body_counts_down() {
    let mut pair = Pair::new("1.2");
    pair.send("SEND\ndestination:a\ncontent-length:100000\n\n");
    assert_eq!(pair.session.body_bytes_announced(), 100_001);
    pair.send_bytes(&[7; 1_000]);
    assert_eq!(pair.session.body_bytes_announced(), 99_001);
    pair.send_bytes(&[7; 99_000]);
    assert_eq!(pair.session.body_bytes_announced(), 1);
    pair.send("^");
    assert_eq!((pair.session.body_bytes_announced(), pair.sent.len()), (0, 1));
}

// ---- SUBSCRIBE

#[test]
fn a_subscription_is_asked_for_as_its_headers_say() {
    let check = |version: &str, headers: &str, expect: (AckMode, u32, bool)| {
        let mut pair = Pair::new(version);
        pair.send(&format!("SUBSCRIBE\nid:0\ndestination:/topic/t\n{headers}\n^"));
        let Some(Request::Subscribe(sub)) = pair.asked.first() else {
            panic!("{}", pair.read())
        };
        assert_eq!((sub.sub, sub.kind), (SubNo(1), DestinationKind::Topic));
        assert_eq!(
            (sub.ack_mode, sub.prefetch_count, sub.by_message),
            expect,
            "{headers}"
        );
    };
    check("1.0", "", (AckMode::Auto, 1_000, true));
    check("1.1", "ack:client\n", (AckMode::Client, 1_000, true));
    check(
        "1.2",
        "ack:client-individual\nprefetch-count:1\n",
        (AckMode::ClientIndividual, 1, false),
    );
    check(
        "1.2",
        "ack:auto\nprefetch:1000000\n",
        (AckMode::Auto, 1_000_000, false),
    );
    check(
        "1.2",
        "activemq.prefetchSize:5\nprefetch:7\n",
        (AckMode::Auto, 5, false),
    );
    check(
        "1.2",
        "no-local:false\nbrowser:false\nx-unknown:1\npersistent:false\n",
        (AckMode::Auto, 1_000, false),
    );
}

#[test]
fn headers_that_are_not_built_are_refused_by_name() {
    let check = |header: &str, expect: &str| {
        let mut pair = Pair::new("1.1");
        pair.send(&format!(
            "SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:9\n{header}\n\n^"
        ));
        let out = pair.read();
        let (name, _) = header.split_once(':').unwrap();
        assert!(
            out.contains(&format!("\ncode:{expect}\nreceipt-id:9\n")),
            "{header} {out}"
        );
        assert!(
            out.contains(&format!("\nheader: {name}\n")) || expect == "prefetch-too-high",
            "{out}"
        );
    };
    for name in unsupported_headers() {
        check(&format!("{name}:x"), "unsupported-header");
    }
    check("no-local:true", "unsupported-header");
    check("persistent:true", "unsupported-header");
    check("prefetch-count:0", "unsupported-header");
    check("prefetch-count:-1", "header-invalid");
    check("prefetch:", "header-invalid");
    check("activemq.prefetchSize:many", "header-invalid");
    check("prefetch-count:1000001", "prefetch-too-high");
    check("prefetch-count:99999999999999999999", "prefetch-too-high");
    // A queue keeps its messages anyway.
    check_all("SUBSCRIBE\nid:0\ndestination:a\npersistent:true\n\n^", "");
    check_all("SEND\ndestination:a\nselector:x\nexclusive:true\n\n^", "");
}

#[test]
fn subscriptions_and_transactions_are_bounded() {
    let limited = || {
        Pair::limited(|limits| {
            limits.subscription_count_max = 2;
            limits.transaction_count_max = 2;
        })
        .login("1.2")
    };
    let mut pair = limited();
    for id in 0..5 {
        pair.send(&format!(
            "SUBSCRIBE\nid:{id}\ndestination:a\n\n^UNSUBSCRIBE\nid:{id}\n\n^"
        ));
        pair.send(&format!(
            "BEGIN\ntransaction:{id}\n\n^ABORT\ntransaction:{id}\n\n^"
        ));
    }
    let two = |frame: &str| {
        (1..3)
            .map(|id| frame.replace('#', &id.to_string()))
            .collect::<String>()
    };
    pair.send(&two(
        "SUBSCRIBE\nid:#\ndestination:a\n\n^BEGIN\ntransaction:#\n\n^",
    ));
    assert_eq!(pair.session.phase(), Phase::Open);
    assert_eq!(
        pair.fails("SUBSCRIBE\nid:3\ndestination:a\n\n^"),
        "too-many-subscriptions"
    );
    let mut pair = limited();
    pair.send(&two("BEGIN\ntransaction:#\n\n^"));
    assert_eq!(pair.fails("BEGIN\ntransaction:3\n\n^"), "too-many-transactions");
}

// ---- ACK, NACK, transactions

#[test]
fn a_delivery_is_named_as_the_version_says() {
    let id = MessageId::from_parts(Epoch(5), 31).unwrap();
    let settle = |delivery| {
        vec![Request::Settle(Settle {
            delivery,
            accepted: true,
            tx: None,
        })]
    };
    let check = |version: &str, before: &str, ack: &str, delivery: DeliveryKey| {
        let mut pair = Pair::new(version);
        pair.send(before);
        let before = pair.asked.len();
        pair.send(&format!("ACK\n{ack}\n^"));
        assert_eq!(pair.asked[before..], settle(delivery), "{version} {ack}");
    };
    let sub = "SUBSCRIBE\nid:x\ndestination:a\n\n^SUBSCRIBE\nid:a\\cb\ndestination:a\nack:client\n\n^";
    let message = DeliveryKey::Message;
    check("1.0", "", "message-id:0a1b2c3d-5-31\n", message(None, id));
    check(
        "1.0",
        sub,
        "message-id: 0a1b2c3d-5-31\nsubscription:x\n",
        message(Some(SubNo(1)), id),
    );
    check(
        "1.0",
        "",
        "message-id:0a1b2c3d-5-31\nsubscription:gone\n",
        message(None, id),
    );
    check(
        "1.1",
        sub,
        "message-id:0a1b2c3d-5-31\nsubscription:a\\cb\n",
        message(Some(SubNo(2)), id),
    );
    check("1.2", "", "id:0a1b2c3d-7-42-977\n", DeliveryKey::Tag(Tag(977)));
    check(
        "1.2",
        "",
        "id:0a1b2c3d-7-42-977\nid:other\nmessage-id:x\n",
        DeliveryKey::Tag(Tag(977)),
    );
}

#[test]
fn ids_of_others_are_unknown_deliveries() {
    let sub = "SUBSCRIBE\nid:x\ndestination:a\nack:client\n\n^";
    for id in [
        "",
        "1",
        "0a1b2c3d-7-41-1",
        "0a1b2c3d-6-42-1",
        "ffffffff-7-42-1",
        "0a1b2c3d-7-42-",
        "0a1b2c3d-7-42-1x",
    ] {
        assert_eq!(
            Pair::new("1.2").fails(&format!("{sub}ACK\nid:{id}\n\n^")),
            "delivery-unknown",
            "{id}"
        );
    }
    for id in [
        "",
        "1",
        "ffffffff-7-1",
        "0a1b2c3d-7",
        "0a1b2c3d-7-",
        "0a1b2c3d-7-+1",
        "0a1b2c3d-99999999999-1",
    ] {
        let mut pair = Pair::new("1.1");
        pair.send(&format!(
            "{sub}NACK\nsubscription:x\nmessage-id:{id}\nreceipt:n\n\n^"
        ));
        let out = pair.read();
        assert!(
            out.contains("code:delivery-unknown\nreceipt-id:n\n"),
            "{id} {out}"
        );
        assert_eq!(
            pair.session.end_reason(),
            Some(&EndReason::Refused("delivery-unknown"))
        );
    }
}

#[test]
fn acks_for_what_unsubscribe_ended_are_passed_on() {
    let mut pair = Pair::new("1.1");
    let cycle = |pair: &mut Pair, id: usize, ack: &str| {
        pair.send(&format!(
            "SUBSCRIBE\nid:{id}\ndestination:a\nack:{ack}\n\n^UNSUBSCRIBE\nid:{id}\n\n^"
        ));
    };
    let ack = |id: usize| format!("ACK\nmessage-id:0a1b2c3d-7-1\nsubscription:{id}\n\n^");
    for id in 0..1_000 {
        cycle(&mut pair, id, "client");
    }
    pair.send(&ack(0));
    let Some(Request::Settle(settle)) = pair.asked.last() else {
        panic!("no ACK")
    };
    let id = MessageId::from_parts(Epoch(7), 1).unwrap();
    assert_eq!(settle.delivery, DeliveryKey::Message(Some(SubNo(1)), id));
    cycle(&mut pair, 1_000, "client-individual");
    pair.send(&ack(1));
    assert_eq!(pair.session.phase(), Phase::Open);
    assert_eq!(pair.fails(&ack(0)), "delivery-unknown");
    // What was never to be acknowledged is not remembered.
    let mut pair = Pair::new("1.1");
    cycle(&mut pair, 1, "auto");
    assert_eq!(pair.fails(&ack(1)), "delivery-unknown");
}

#[test]
fn transactions_are_named_by_the_client_and_numbered_by_us() {
    let mut pair = Pair::new("1.2");
    pair.send(
        "BEGIN\ntransaction:a\\cb\n\n^BEGIN\ntransaction:c\n\n^SEND\ndestination:q\ntransaction:a\\cb\n\n^\
         NACK\nid:0a1b2c3d-7-42-3\ntransaction:c\n\n^COMMIT\ntransaction:a\\cb\n\n^BEGIN\ntransaction:a\\cb\n\n^\
         ABORT\ntransaction:c\n\n^",
    );
    let (one, two, three) = (TxNo(1), TxNo(2), TxNo(3));
    let Request::Send(send) = &pair.asked[2] else {
        panic!("not a SEND")
    };
    assert_eq!(send.tx, Some(one));
    let settle = Settle {
        delivery: DeliveryKey::Tag(Tag(3)),
        accepted: false,
        tx: Some(two),
    };
    let rest = [
        Request::Settle(settle),
        Request::Commit { tx: one },
        Request::Begin { tx: three },
        Request::Abort { tx: two },
    ];
    assert_eq!(
        pair.asked[..2],
        [Request::Begin { tx: one }, Request::Begin { tx: two }]
    );
    assert_eq!(pair.asked[3..], rest);
}

// ---- The line

#[test]
fn receipts_leave_in_order_behind_their_gates() {
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(4);
    pair.send("SEND\ndestination:a\nreceipt:1\n\n^SEND\ndestination:a\n\n^BEGIN\ntransaction:t\nreceipt:a\\cb\\r\n\n^");
    assert_eq!(pair.session.poll_gate(), Some(Seq(4)));
    // A later call with a lower gate does not overtake.
    pair.gate = Seq(3);
    pair.send("SUBSCRIBE\nid:1\ndestination:a\nreceipt:3\n\n^");
    assert_eq!(pair.session.poll_gate(), Some(Seq(4)));
    pair.gate = Seq(6);
    pair.send("ABORT\ntransaction:t\nreceipt:4\n\n^");
    assert_eq!(pair.read_at(3), "");
    assert_eq!(
        pair.read_at(5),
        "RECEIPT\nreceipt-id:1\n\n^RECEIPT\nreceipt-id:a\\cb\\r\n\n^RECEIPT\nreceipt-id:3\n\n^"
    );
    assert_eq!(pair.session.poll_gate(), Some(Seq(6)));
    assert_eq!(pair.read_at(6), "RECEIPT\nreceipt-id:4\n\n^");
    assert_eq!((pair.session.poll_gate(), pair.read_at(9)), (None, String::new()));
}

#[test]
fn a_receipt_is_echoed_as_the_version_writes_it() {
    for (version, receipt, echo) in [
        ("1.0", "a\\c:b", "a\\c:b"),
        ("1.1", "a\\c:b\r\\n", "a\\c\\cb\r\\n"),
        ("1.2", "\\\\:", "\\\\\\c"),
        ("1.2", "", ""),
    ] {
        let mut pair = Pair::new(version);
        pair.send(&format!(
            "BEGIN\ntransaction:1\nreceipt:{receipt}\nreceipt:x\n\n^"
        ));
        assert_eq!(
            pair.read(),
            format!("RECEIPT\nreceipt-id:{echo}\n\n^"),
            "{version}"
        );
        pair.send(&format!("BEGIN\ntransaction:1\nreceipt:{receipt}\n\n^"));
        assert!(
            pair.read().contains(&format!("\nreceipt-id:{echo}\n")),
            "{version}"
        );
    }
}

#[test]
fn an_error_keeps_its_place_and_nothing_behind_it_is_executed() {
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(2);
    pair.send("SEND\ndestination:a\nreceipt:1\n\n^ACK\nreceipt:2\n\n^SEND\ndestination:a\nreceipt:3\n\n^");
    assert_eq!((pair.asked.len(), pair.session.phase()), (1, Phase::Ending));
    pair.send("SEND\ndestination:a\nreceipt:4\n\n^");
    assert_eq!((pair.asked.len(), pair.held.len()), (1, 0));
    assert_eq!(pair.read_at(1), "");
    let out = pair.read_at(2);
    assert!(out.starts_with("RECEIPT\nreceipt-id:1\n\n^ERROR\nmessage:header missing\ncode:header-missing\nreceipt-id:2\ncontent-type:text/plain\ncontent-length:"), "{out}");
    assert!(out.ends_with(".\n^") && out.contains("\nheader: id\n"), "{out}");
    assert_eq!(
        (pair.session.phase(), out.matches('^').count()),
        (Phase::Ended, 2)
    );
    assert_eq!(
        pair.session.end_reason(),
        Some(&EndReason::Violation("header-missing"))
    );
}

#[test]
fn a_refusal_takes_back_the_receipts_behind_it() {
    // Also where a later frame of the same read broke the protocol, or was DISCONNECT.
    for tail in ["", "NONSENSE\nreceipt:9\n\n^", "DISCONNECT\nreceipt:9\n\n^"] {
        for (receipt, expect) in [
            ("receipt:b\\cc\n", "\nreceipt-id:b\\cc\n"),
            ("", "full\ncontent-type"),
        ] {
            let mut pair = Pair::new("1.2");
            pair.gate = Seq(5);
            pair.refuse = Some((2, Refusal::DiskFull));
            let send = |receipt: &str| format!("SEND\ndestination:a\n{receipt}\n^");
            let frames = [
                send(""),
                send("receipt:a\n"),
                send(receipt),
                send("receipt:z\n"),
                tail.to_owned(),
            ];
            pair.send(&frames.concat());
            assert_eq!(pair.asked.len(), 2);
            let out = pair.read_at(5);
            assert!(
                out.starts_with("RECEIPT\nreceipt-id:a\n\n^ERROR\nmessage:disk full\n"),
                "{out}"
            );
            assert!(
                out.contains(expect) && !out.contains(":z") && !out.contains(":9"),
                "{out}"
            );
            assert_eq!(out.matches('^').count(), 2, "{out}");
            assert_eq!(pair.session.end_reason(), Some(&EndReason::Refused("disk-full")));
            assert_eq!(pair.session.phase(), Phase::Ended);
        }
    }
}

#[test]
fn disconnect_is_answered_last() {
    for (version, _) in LOGIN {
        let mut pair = Pair::new(version);
        pair.gate = Seq(3);
        pair.send("SEND\ndestination:a\nreceipt:1\n\n^DISCONNECT\nreceipt:77\n\n^SEND\ndestination:a\n\n^");
        assert_eq!(pair.asked.last(), Some(&Request::Disconnect));
        assert_eq!((pair.asked.len(), pair.session.phase()), (2, Phase::Ending));
        assert!(!pair.session.wants_input());
        pair.session.handle_evicted(Refusal::ShuttingDown, pair.now);
        assert_eq!(
            pair.read(),
            "RECEIPT\nreceipt-id:1\n\n^RECEIPT\nreceipt-id:77\n\n^"
        );
        assert_eq!(pair.session.phase(), Phase::Ended);
        assert_eq!(pair.session.end_reason(), Some(&EndReason::Disconnected));
        let mut plain = Pair::new(version);
        plain.send("DISCONNECT\n\n^");
        assert_eq!(
            (plain.session.phase(), plain.read()),
            (Phase::Ended, String::new())
        );
    }
}

#[test]
fn the_core_may_end_a_session_and_so_may_a_fault() {
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(8);
    pair.send("SEND\ndestination:a\nreceipt:1\n\n^");
    pair.session.handle_evicted(Refusal::SlowSubscriber, pair.now);
    pair.session.handle_fault("abc", pair.now);
    assert_eq!(
        (pair.read_at(7), pair.session.phase()),
        (String::new(), Phase::Ending)
    );
    let out = pair.read_at(8);
    assert!(
        out.starts_with("RECEIPT\nreceipt-id:1\n\n^ERROR\nmessage:slow subscriber\n"),
        "{out}"
    );
    assert_eq!(
        (out.matches('^').count(), pair.session.phase()),
        (2, Phase::Ended)
    );
    assert_eq!(
        pair.session.end_reason(),
        Some(&EndReason::Refused("slow-subscriber"))
    );

    let mut pair = Pair::new("1.2");
    pair.session.handle_fault("f00d", pair.now);
    let out = pair.read();
    assert!(
        out.contains("\ncode:internal-error\n") && out.contains("\nincident: f00d\n"),
        "{out}"
    );
}

#[test]
fn reading_stops_while_too_many_receipts_are_in_line() {
    let receipt = "RECEIPT\nreceipt-id:1\n\n^".len();
    let mut pair = Pair::limited(|limits| limits.unread_output_bytes_max = 2 * receipt);
    pair.send("CONNECT\naccept-version:1.2\nheart-beat:1000,0\n\n^");
    pair.read();
    pair.gate = Seq(1);
    let begin = |name: u32| format!("BEGIN\ntransaction:{name}\nreceipt:1\n\n^");
    pair.send(&format!("{}{}", begin(1), begin(2)));
    assert!(pair.session.wants_input());
    pair.send(&begin(3));
    assert!(!pair.session.wants_input());
    // A peer that we do not read is not dead.
    pair.timeout(100_000);
    assert_eq!(pair.session.phase(), Phase::Open);
    assert_eq!(pair.session.poll_timeout(), Some(102_000));
    pair.read();
    assert!(pair.session.wants_input());
}

#[test]
fn a_call_gathers_a_bounded_number_of_requests() {
    let mut pair = Pair::new("1.2");
    let frames = wire(&"SEND\ndestination:a\nreceipt:1\n\n^\n".repeat(1_000));
    let done = pair.session.handle_bytes(&frames, pair.now);
    assert_eq!(pair.session.requests().list.len(), 512);
    assert_eq!(pair.session.handle_bytes(&frames[done..], pair.now), 0);
    assert_eq!(pair.session.poll_timeout(), None, "no frame was begun");
    pair.held = frames[done..].to_vec();
    pair.apply();
    pair.send("");
    assert_eq!(
        (pair.asked.len(), pair.read().matches('^').count()),
        (1_000, 1_000)
    );
}

// ---- MESSAGE

fn delivery(block: &str, body: &[u8]) -> (Delivery, Vec<u8>) {
    let bytes = [block.as_bytes(), body].concat();
    let delivery = Delivery {
        tag: Tag(19),
        sub: SubNo(1),
        message: MessageId::from_parts(Epoch(6), 1234).unwrap(),
        body: Body::Memory(bytes.clone().into()),
        header_len: block.len() as u32,
        len: bytes.len() as u32,
        delivery_count: 3,
        redelivered: true,
    };
    (delivery, bytes)
}

#[test]
fn a_message_is_written_as_the_version_says() {
    let check = |version: &str, subscribe: &str, head: &str, block: &str| {
        let mut pair = Pair::new(version);
        pair.send(&format!("SUBSCRIBE\ndestination:a\n{subscribe}\n^"));
        let (delivery, bytes) = delivery("destination:a\nx\\cy:\\\\v\\cw\\r\\n\ncontent-length:2\n", b"\0!");
        let expect = format!("MESSAGE\n{head}{block}\n^!^");
        for at in 0..=bytes.len() {
            let (one, two) = bytes.split_at(at);
            assert_eq!(pair.deliver(&delivery, &[one, two]), expect, "{version} {at}");
            assert_eq!(
                pair.deliver(&delivery, &[one, b"", two]),
                expect,
                "{version} {at}"
            );
        }
    };
    let counts = "redelivered:true\ndelivery-count:3\n";
    let id = "message-id:0a1b2c3d-6-1234\n";
    let block = |line: &str| format!("destination:a\n{line}\ncontent-length:2\n");
    let (old, mid, new) = (
        block("x\\cy:\\v:w\r\\n"),
        block("x\\cy:\\\\v\\cw\r\\n"),
        block("x\\cy:\\\\v\\cw\\r\\n"),
    );
    check("1.0", "ack:client\n", &format!("{id}{counts}"), &old);
    check(
        "1.0",
        "id:a\\b:c\n",
        &format!("subscription:a\\b:c\n{id}{counts}"),
        &old,
    );
    check(
        "1.1",
        "id:a\\cb\nack:client\n",
        &format!("subscription:a\\cb\n{id}{counts}"),
        &mid,
    );
    check(
        "1.2",
        "id:a\\cb:\n",
        &format!("subscription:a\\cb\\c\n{id}{counts}"),
        &new,
    );
    for mode in ["client", "client-individual"] {
        let head = format!("subscription:1\n{id}ack:0a1b2c3d-7-42-19\n{counts}");
        check("1.2", &format!("id:1\nack:{mode}\n"), &head, &new);
    }
}

#[test]
fn the_first_delivery_says_so() {
    let mut pair = Pair::new("1.1");
    pair.send("SUBSCRIBE\nid:1\ndestination:a\n\n^");
    let (mut delivery, bytes) = delivery("destination:a\ncontent-length:0\n", b"");
    (delivery.redelivered, delivery.delivery_count) = (false, 1);
    let out = pair.deliver(&delivery, &[&bytes]);
    assert!(
        out.contains("\nredelivered:false\ndelivery-count:1\ndestination:a\n"),
        "{out}"
    );
}

#[test]
fn nothing_is_delivered_to_what_has_ended() {
    let (delivery, bytes) = delivery("destination:a\ncontent-length:0\n", b"");
    let mut pair = Pair::new("1.1");
    pair.send("SUBSCRIBE\nid:1\ndestination:a\n\n^UNSUBSCRIBE\nid:1\nreceipt:1\n\n^");
    assert_eq!(pair.deliver(&delivery, &[&bytes]), "");
    for end in ["DISCONNECT\n\n^", "NONSENSE\n\n^"] {
        let mut pair = Pair::new("1.1");
        pair.send("SUBSCRIBE\nid:1\ndestination:a\n\n^");
        assert_ne!(pair.deliver(&delivery, &[&bytes]), "");
        pair.send(end);
        assert_eq!(pair.deliver(&delivery, &[&bytes]), "");
    }
}

/// An ack id made for a MESSAGE is read as the tag it was made from, a message id as the message.
#[test]
fn ids_that_we_write_we_read() {
    let (delivery, bytes) = delivery("destination:a\ncontent-length:0\n", b"");
    for version in ["1.1", "1.2"] {
        let mut pair = Pair::new(version);
        pair.send("SUBSCRIBE\nid:1\ndestination:a\nack:client\n\n^");
        let message = pair.deliver(&delivery, &[&bytes]);
        let header = |name: &str| {
            let line = message
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.unwrap_or_default().to_owned()
        };
        pair.send(&format!(
            "ACK\nid:{}\nmessage-id:{}\nsubscription:1\n\n^",
            header("ack"),
            header("message-id")
        ));
        let Some(Request::Settle(settle)) = pair.asked.last() else {
            panic!("{}", pair.read())
        };
        let expect = match version {
            "1.1" => DeliveryKey::Message(Some(SubNo(1)), delivery.message),
            _ => DeliveryKey::Tag(delivery.tag),
        };
        assert_eq!(settle.delivery, expect);
    }
}

// ---- Limits of frames, codes, size

#[test]
fn frame_limits_hold_in_a_session_at_the_bound_and_not_one_over() {
    let limited = || {
        Pair::limited(|limits| {
            limits.header_line_bytes_max = 30;
            limits.header_block_bytes_max = 80;
            limits.header_count_max = 5;
            limits.body_bytes_max = 10;
        })
        .login("1.2")
    };
    let check = |headers: &str, body: &str, expect: &str| {
        for size in [1, 7, 1_000] {
            let mut pair = limited();
            wire(&format!("SEND\ndestination:a\nreceipt:1\n{headers}\n{body}^"))
                .chunks(size)
                .for_each(|piece| pair.send_bytes(piece));
            if expect.is_empty() {
                assert_eq!(pair.session.phase(), Phase::Open, "{headers} {body}");
            } else {
                let out = pair.read();
                assert!(out.contains(&format!("\ncode:{expect}\nreceipt-id:1\n")), "{out}");
                let code = DecodeError::CODES
                    .iter()
                    .find(|entry| entry.code == expect)
                    .unwrap()
                    .code;
                assert_eq!(pair.session.end_reason(), Some(&EndReason::Refused(code)));
            }
        }
    };
    let line = |len: usize| format!("a:{}\n", "x".repeat(len - 2));
    check(&line(30), "", "");
    check(&line(31), "", "header-line-too-long");
    check(&(line(20) + &line(29)), "", "");
    check(&(line(20) + &line(30)), "", "header-block-too-long");
    check("a:\nb:\nc:\n", "", "");
    check("a:\nb:\nc:\nd:\n", "", "too-many-headers");
    check("", "0123456789", "");
    check("", "0123456789a", "body-too-long");
    check("content-length:10\n", "0123456789", "");
    check("content-length:11\n", "", "body-too-long");
}

#[test]
fn codes_are_unique_and_texts_are_whole() {
    let refusals = REFUSALS.map(|refusal| (refusal.code(), refusal.to_string()));
    let table = CODES
        .into_iter()
        .flatten()
        .map(|entry| (entry.code, entry.text.to_owned()));
    let mut seen = BTreeSet::new();
    for (code, text) in table.chain(refusals) {
        assert!(seen.insert(code), "{code} twice");
        assert!(
            code.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        );
        assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn an_error_echoes_no_secret() {
    let secret = "hunter2";
    for frame in [
        format!("CONNECT\nlogin:{secret}\npasscode:{secret}\naccept-version:9\n\n^"),
        format!("CONNECT\nlogin:{secret}\npasscode:{secret}\n{secret}\n\n^"),
        format!("{secret}\nlogin:{secret}\n\n^"),
    ] {
        let mut pair = Pair::with(config());
        pair.send(&frame);
        let out = pair.read();
        assert!(out.starts_with("ERROR\n") && !out.contains(secret), "{out}");
    }
    check_each(
        "",
        &format!("SEND\ndestination:/{secret}\n\n{secret}^"),
        ["bad-destination"; 3],
    );
}

#[test]
fn an_idle_session_is_small() {
    let mut pair = Pair::new("1.2");
    for _ in 0..100 {
        pair.send(&format!("SEND\ndestination:a\nreceipt:1\n\n{}^", "x".repeat(1_000)).repeat(50));
        pair.read();
    }
    let session = &pair.session;
    let requests =
        session.requests.arena.capacity() + session.requests.list.capacity() * std::mem::size_of::<Request>();
    assert!(requests <= KEPT_BYTES_MAX, "{requests}");
    assert_eq!(session.line.capacity(), 0);
    let own = std::mem::size_of::<Session>();
    assert!(own + requests <= 1_536, "{own} + {requests}");
}

/// What a session does with bytes does not depend on how they are cut, beyond when it does it.
#[derive(Debug, PartialEq)]
struct Trace(
    Vec<(String, String, Vec<u8>)>,
    Vec<String>,
    String,
    Option<EndReason>,
);

fn trace(pieces: &[&[u8]]) -> Trace {
    let mut pair = Pair::with(config());
    pieces.iter().for_each(|piece| pair.send_bytes(piece));
    let asked = pair.asked.iter().map(|request| match request {
        Request::Send(send) => format!("{:?} {} {:?}", send.kind, send.persistent, send.tx),
        Request::Subscribe(sub) => format!("{:?} {:?} {:?}", sub.sub, sub.kind, sub.ack_mode),
        request => format!("{request:?}"),
    });
    let asked = asked.collect();
    let out = pair.read();
    Trace(pair.sent, asked, out, pair.session.end_reason().cloned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 5_000 }))]

    #[test]
    fn every_split_leads_to_the_same_session(
        login in prop::sample::select(LOGIN.to_vec()),
        frames in prop::collection::vec(
            prop::sample::select(vec![
                "SEND\ndestination:a\nreceipt:1\n\nhello^", "SEND\ndestination:/topic/b\nx\\c:y\n\n^\n",
                "SEND\r\ndestination:a\r\ncontent-length:3\r\n\r\na^b^\r\n", "BEGIN\ntransaction:t\nreceipt:2\n\n^",
                "COMMIT\ntransaction:t\nreceipt:3\n\n^", "SUBSCRIBE\nid:1\ndestination:a\nack:client\n\n^",
                "UNSUBSCRIBE\nid:1\nreceipt:4\n\n^", "ACK\nid:0a1b2c3d-7-42-1\n\n^", "\n", "DISCONNECT\nreceipt:5\n\n^",
                "ACK\nmessage-id:0a1b2c3d-7-1\nsubscription:1\n\n^", "SEND\ndestination:a\n\n^",
                "SEND\ndestination:a\n\n^", "NONSENSE\n\n^", "SEND\ndestination:a\nreceipt:\\t\n\n^",
            ]),
            0..8,
        ),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = wire(&format!("{}{}", login.1, frames.concat()));
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = trace(&[&bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&trace(&single), &whole);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&trace(&pieces), &whole);
    }
}

#[test]
fn every_version_has_its_rules() {
    for version in Version::ALL {
        assert_eq!(Rules::of(version).version, version);
    }
}
