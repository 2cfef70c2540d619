use super::*;

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
fn a_receipt_waits_for_every_earlier_frame_also_one_without_receipt() {
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(4);
    pair.send("SEND\ndestination:a\n\n^");
    assert_eq!(pair.session.poll_gate(), None);
    // Later calls without an effect of their own, and one without a request.
    pair.gate = Seq(0);
    pair.send("BEGIN\ntransaction:t\nreceipt:1\n\n^");
    assert_eq!(pair.read_at(3), "");
    assert_eq!(pair.read_at(4), "RECEIPT\nreceipt-id:1\n\n^");
    pair.gate = Seq(5);
    pair.send("SEND\ndestination:a\n\n^");
    pair.gate = Seq(0);
    pair.send("DISCONNECT\nreceipt:2\n\n^");
    assert_eq!(pair.read_at(4), "");
    assert_eq!(pair.read_at(5), "RECEIPT\nreceipt-id:2\n\n^");
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
fn the_core_may_end_a_session() {
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(8);
    pair.send("SEND\ndestination:a\nreceipt:1\n\n^");
    pair.session.handle_evicted(Refusal::SlowSubscriber, pair.now);
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
}

#[test]
fn reading_stops_while_too_many_receipts_are_in_line() {
    let receipt = "RECEIPT\nreceipt-id:1\n\n\0\n".len();
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

#[test]
fn the_receipt_of_a_duplicate_says_so() {
    let again = |request: usize| Duplicate {
        request,
        whole: true,
        count: None,
    };
    let send = |receipt: &str| format!("SEND\ndestination:a\n{receipt}\n^");
    let frames = [
        send(""),
        send("receipt:1\n"),
        send("receipt:2\n"),
        send(""),
        "BEGIN\ntransaction:t\nreceipt:3\n\n^".to_owned(),
        "COMMIT\ntransaction:t\nreceipt:a\\c\n\n^".to_owned(),
    ]
    .concat();
    let mut pair = Pair::new("1.2");
    pair.gate = Seq(2);
    pair.send(&send("receipt:0\n"));
    pair.duplicates = [0, 2, 3].map(again).into();
    pair.duplicates.push(Duplicate {
        request: 5,
        whole: false,
        count: Some(7),
    });
    pair.send(&frames);
    assert_eq!(pair.read_at(1), "");
    let receipt = |id: &str, more: &str| format!("RECEIPT\nreceipt-id:{id}\n{more}\n^");
    let expect = [
        receipt("0", ""),
        receipt("1", ""),
        receipt("2", "duplicate:true\n"),
        receipt("3", ""),
        receipt("a\\c", "duplicate-count:7\n"),
    ];
    assert_eq!(pair.read_at(2), expect.concat());
    pair.duplicates = vec![Duplicate {
        request: 1,
        whole: true,
        count: Some(2),
    }];
    pair.send("BEGIN\ntransaction:t\n\n^COMMIT\ntransaction:t\nreceipt:9\n\n^");
    assert_eq!(pair.read(), receipt("9", "duplicate:true\nduplicate-count:2\n"));
    // A refusal behind it, of a frame whose receipt is told in the ERROR.
    pair.duplicates = vec![again(0)];
    pair.refuse = Some((1, Refusal::DiskFull));
    pair.send(&[send("receipt:1\n"), send("receipt:2\n"), send("receipt:3\n")].concat());
    let out = pair.read();
    let start = receipt("1", "duplicate:true\n") + "ERROR\nmessage:disk full\n";
    assert!(
        out.starts_with(&start) && out.contains("\nreceipt-id:2\n"),
        "{out}"
    );
    assert!(!out.contains(":3\n"), "{out}");
    // The ERROR of a later frame waits for the same requests and is no RECEIPT.
    let mut pair = Pair::new("1.2");
    pair.duplicates = vec![again(0)];
    pair.send(&[&send(""), "ACK\nreceipt:2\n\n^"].concat());
    let out = pair.read();
    assert!(out.starts_with("ERROR\n") && !out.contains("duplicate"), "{out}");
}
