use super::*;

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
