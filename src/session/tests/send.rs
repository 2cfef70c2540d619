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
