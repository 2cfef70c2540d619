use super::*;

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

#[track_caller]
fn check_id(version: &str, headers: &str, expect: Option<&[u8]>) {
    let mut pair = Pair::new(version);
    pair.send("BEGIN\ntransaction:t\n\n^");
    pair.send(&format!("SEND\ndestination:a\n{headers}\n^"));
    assert_eq!(pair.session.phase(), Phase::Open, "{}", pair.read());
    let Some(Request::Send(send)) = pair.asked.last() else {
        panic!("not a SEND")
    };
    assert_eq!(send.dedup.is_some(), expect.is_some());
    assert_eq!(pair.ids.last().map(Vec::as_slice), expect, "{version} {headers}");
}

#[test]
fn a_deduplication_id_has_three_names() {
    for (version, _) in LOGIN {
        check_id(version, "", None);
        for name in ["dedup-id", "_AMQ_DUPL_ID", "Nats-Msg-Id"] {
            check_id(version, &format!("{name}:x 1\n"), Some(b"x 1"));
            // Of repeated headers the first counts.
            check_id(version, &format!("{name}:x\n{name}:y\n"), Some(b"x"));
        }
        let all = "_AMQ_DUPL_ID:x\ndedup-id:x\nNats-Msg-Id:x\ntransaction:t\n";
        check_id(version, all, Some(b"x"));
        // Passed on as they came.
        check_block(
            version,
            "destination:a\n_AMQ_DUPL_ID:x\n",
            "destination:a\n_AMQ_DUPL_ID:x\n",
        );
        // Another name is another header.
        check_id(version, "Dedup-Id:x\nnats-msg-id:x\n", None);
    }
    check_id("1.0", "dedup-id:a\\c\n", Some(b"a\\c"));
    check_id("1.2", "dedup-id:a\\c\nNats-Msg-Id:a:\n", Some(b"a:"));
}

#[test]
fn a_deduplication_id_that_is_none_is_refused() {
    for headers in [
        "dedup-id:\n",
        "Nats-Msg-Id:\ndedup-id:x\n",
        "dedup-id:x\n_AMQ_DUPL_ID:y\n",
        "Nats-Msg-Id:X\ndedup-id:x\n",
    ] {
        check_all(&format!("SEND\ndestination:a\n{headers}\n^"), "header-invalid");
    }
    for (len, expect) in [(255, ""), (256, "dedup-id-too-long")] {
        let id = "x".repeat(len);
        check_all(&format!("SEND\ndestination:a\ndedup-id:{id}\n\n^"), expect);
    }
    let mut pair = Pair::limited(|limits| limits.dedup_id_bytes_max = 1).login("1.2");
    // Bytes as they are meant, not as they are written.
    pair.send("SEND\ndestination:a\ndedup-id:\\c\n\n^");
    assert_eq!(
        pair.fails("SEND\ndestination:a\ndedup-id:12\n\n^"),
        "dedup-id-too-long"
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
            (send.to.kind, send.persistent, send.tx),
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

#[test]
fn a_body_without_length_counts_as_the_longest_once_it_is_long() {
    let mut pair = Pair::new("1.2");
    let head = "SEND\ndestination:a\n\n";
    pair.send(head);
    pair.send_bytes(&[7; 65_535]);
    assert_eq!(pair.session.body_bytes_announced(), 0);
    pair.send_bytes(&[7]);
    let body_bytes_max = Limits::default().body_bytes_max;
    assert_eq!(pair.session.body_bytes_announced(), body_bytes_max + 1 - 65_536);
    pair.send("^");
    assert_eq!((pair.session.body_bytes_announced(), pair.sent.len()), (0, 1));
}
