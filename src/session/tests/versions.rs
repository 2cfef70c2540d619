use super::*;

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
    for bad in ["", "/exchange/a", "/queue/", "/topic/", "/"] {
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
