use super::*;

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
    // However it is cut: what comes behind the bound is not looked at.
    let beyond = "\n\n\n\n\n\n\n\n\n\nSEND\n\nbody^";
    for pieces in [beyond.len(), 1] {
        let mut pair = Pair::limited(|limits| limits.login_bytes_max = 10);
        let bytes = wire(beyond);
        bytes.chunks(pieces).for_each(|piece| pair.send_bytes(piece));
        assert_eq!(pair.error(), "login-too-long", "{pieces}");
    }
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

/// Whom it acts for is told before the first thing that it asks for, and once; of nobody nothing is told.
#[test]
fn the_core_is_told_whom_the_session_acts_for() {
    let eve = Arc::new(Principal {
        name: Some("eve".into()),
        groups: ["staff".into()].into(),
    });
    for (_, login) in LOGIN {
        let mut pair = Pair::with(config());
        pair.session = pair.session.acting_for(Arc::clone(&eve));
        pair.send(login);
        assert_eq!(pair.asked, []);
        pair.send("BEGIN\ntransaction:t\n\n^BEGIN\ntransaction:u\n\n^");
        let told = Request::ActFor {
            principal: Arc::clone(&eve),
        };
        assert_eq!(
            pair.asked,
            [
                told,
                Request::Begin { tx: TxNo(1) },
                Request::Begin { tx: TxNo(2) }
            ]
        );
        assert_eq!(*pair.session.principal(), *eve);
    }
    let mut pair = Pair::new("1.2");
    pair.send("BEGIN\ntransaction:t\n\n^");
    assert_eq!(pair.asked, [Request::Begin { tx: TxNo(1) }]);
}

/// A refused frame is told with its own receipt, whatever else went to the core with it.
#[test]
fn what_is_denied_is_told_with_its_own_receipt() {
    let mut pair = Pair::with(config());
    pair.session = pair.session.acting_for(Arc::new(Principal {
        name: Some("eve".into()),
        ..Principal::default()
    }));
    pair.send(LOGIN[2].1);
    pair.read();
    pair.refuse = Some((1, Refusal::AccessDenied));
    pair.send("SEND\ndestination:/queue/a\nreceipt:1\n\nx^SEND\ndestination:/queue/a\nreceipt:2\n\nx^");
    let told = pair.read();
    assert!(
        told.starts_with("ERROR\n") && told.contains("\ncode:access-denied\n"),
        "{told}"
    );
    assert!(
        told.contains("\nreceipt-id:1\n") && !told.contains("RECEIPT"),
        "{told}"
    );
}

fn judged() -> Pair {
    let mut pair = Pair::with(config());
    pair.session = Session::new(Arc::new(config()), SessionNo(42), pair.now).judged();
    pair
}

#[test]
fn a_login_is_given_once_and_holds_everything_up() {
    let mut pair = judged();
    assert!(pair.session.wants_input() && pair.session.poll_login().is_none());
    pair.send("CONNECT\naccept-version:1.2\nhost:h\nlogin:me\npasscode:you\n\n^SEND\ndestination:a\n\n^");
    assert!(!pair.session.wants_input());
    let login = pair.session.poll_login().unwrap();
    assert_eq!(login.name.as_deref(), Some(&b"me"[..]));
    assert_eq!(login.passcode.unwrap().reveal(), b"you");
    assert_eq!(pair.session.poll_login(), None);
    assert_eq!((pair.session.version(), pair.read()), (None, String::new()));
    assert!(pair.asked.is_empty() && !pair.held.is_empty());
    let principal = Arc::new(Principal {
        name: Some("me".into()),
        groups: ["us".into()].into(),
    });
    let until = Some(pair.now.mono_ms + 1_000);
    let accepted = Judged {
        principal: Arc::clone(&principal),
        until,
    };
    pair.session.handle_judged(Ok(accepted), pair.now);
    assert_eq!(*pair.session.principal(), *principal);
    assert_eq!(pair.session.poll_timeout(), until);
    pair.send("");
    assert!(matches!(
        &pair.asked[..],
        [Request::ActFor { .. }, Request::Send(_)]
    ));
    assert!(pair.read().starts_with("CONNECTED\n"));
}

#[test]
fn a_judgement_that_comes_too_late_changes_nothing() {
    for accepted in [true, false] {
        let mut pair = judged();
        pair.send("CONNECT\n\n^SEND\ndestination:a\n\n^");
        pair.session.poll_login().unwrap();
        pair.session.handle_evicted(Refusal::ShuttingDown, pair.now);
        let judgement = match accepted {
            true => Ok(Judged {
                principal: Arc::default(),
                until: None,
            }),
            false => Err(Denied),
        };
        pair.session.handle_judged(judgement, pair.now);
        pair.send("");
        assert!(pair.read().contains("\ncode:shutting-down\n"));
        assert!(pair.asked.is_empty());
    }
}
