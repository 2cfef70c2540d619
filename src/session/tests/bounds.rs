use super::*;

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
        Request::Send(send) => format!("{:?} {} {:?}", send.to.kind, send.persistent, send.tx),
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
