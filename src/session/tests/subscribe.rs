use super::*;

#[test]
fn a_subscription_is_asked_for_as_its_headers_say() {
    let check = |version: &str, headers: &str, expect: (AckMode, u32, bool)| {
        let mut pair = Pair::new(version);
        pair.send(&format!("SUBSCRIBE\nid:0\ndestination:/topic/t\n{headers}\n^"));
        let Some(Request::Subscribe(sub)) = pair.asked.first() else {
            panic!("{}", pair.read())
        };
        assert_eq!((sub.sub, sub.kind), (SubNo(1), DestinationKind::Topic));
        let (ack_mode, count, by_message) = expect;
        assert_eq!(
            (sub.ack_mode, sub.credit, sub.by_message),
            (ack_mode, Credit::count(count), by_message),
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
    for name in refused_headers() {
        check(&format!("{name}:x"), "unsupported-header");
    }
    check("browser:true", "unsupported-header");
    check("include-seq:at", "unsupported-header");
    check("from-seq:1", "unsupported-header");
    check("browser-end:false", "unsupported-header");
    check("prefetch-count:-1", "header-invalid");
    check("prefetch:", "header-invalid");
    check("activemq.prefetchSize:many", "header-invalid");
    check("prefetch-count:1000001", "prefetch-too-high");
    check("prefetch-count:99999999999999999999", "prefetch-too-high");
    check("credit:1000001", "prefetch-too-high");
    for credit in ["", ",", "1,", ",1", "-1", "1,-1", "1,2,false", "1, 2"] {
        check(&format!("credit:{credit}"), "header-invalid");
    }
    for size in ["", "-2", "1k", "+1"] {
        check(&format!("consumer-window-size:{size}"), "header-invalid");
    }
    // A queue keeps its messages anyway.
    check_all("SUBSCRIBE\nid:0\ndestination:a\npersistent:true\n\n^", "");
    check_all("SEND\ndestination:a\nselector:x\nexclusive:true\n\n^", "");
}

#[test]
fn credit_is_read_in_messages_in_bytes_and_in_both() {
    let check = |header: &str, expect: Credit| {
        let mut pair = Pair::new("1.2");
        pair.send(&format!("SUBSCRIBE\nid:0\ndestination:a\n{header}\n\n^"));
        let Some(Request::Subscribe(sub)) = pair.asked.first() else {
            panic!("{}", pair.read())
        };
        assert_eq!(sub.credit, expect, "{header}");
    };
    let window = |count, bytes| Credit::Window { count, bytes };
    check("mine:1", Credit::count(1_000));
    for name in ["prefetch-count", "prefetch", "activemq.prefetchSize", "credit"] {
        check(&format!("{name}:0"), Credit::Pull);
        check(&format!("{name}:7"), Credit::count(7));
    }
    check("credit:0,0", Credit::Pull);
    check("credit:5,0", Credit::count(5));
    check("credit:5,1000", window(5, 1_000));
    check("credit:0,1000", window(0, 1_000));
    for name in ["consumer-window-size", "consumerWindowSize"] {
        check(&format!("{name}:-1"), Credit::count(1_000_000));
        check(&format!("{name}:0"), Credit::count(1));
        check(&format!("{name}:10240"), window(0, 10_240));
    }
    check("credit:5,1000\nprefetch-count:1", window(5, 1_000));
}

#[test]
fn a_header_without_effect_is_told_once() {
    let mut pair = Pair::new("1.2");
    let told = |pair: &mut Pair| {
        std::iter::from_fn(|| pair.session.poll_notice().map(|told| told.0)).collect::<Vec<_>>()
    };
    pair.send(
        "SEND\ndestination:a\nretain:set\nmine:1\n\n^SEND\ndestination:a\nretain:set\namq-msg-type:text\n\n^",
    );
    assert_eq!(told(&mut pair), ["amq-msg-type", "retain"]);
    pair.send("SEND\ndestination:a\nretain:remove\n\n^");
    pair.send("SUBSCRIBE\nid:0\ndestination:a\nactivemq.dispatchAsync:true\nactivemq.x:1\nactivemq.y:1\nx-mine:1\n\n^");
    assert_eq!(told(&mut pair), ["activemq.*", "activemq.dispatchAsync"]);
    assert_eq!(pair.session.phase(), Phase::Open);
}

#[test]
fn what_is_refused_says_why() {
    for (frame, header) in [
        (
            "SUBSCRIBE\nid:0\ndestination:a\nx-stream-offset:x",
            "x-stream-offset",
        ),
        (
            "SEND\ndestination:a\nAMQ_SCHEDULER_ACTION:REMOVE",
            "AMQ_SCHEDULER_ACTION",
        ),
        ("SUBSCRIBE\nid:0\ndestination:a\nno-local:true", "no-local"),
        ("SUBSCRIBE\nid:0\ndestination:/topic/t\nbrowser:true", "browser"),
        (
            "SUBSCRIBE\nid:0\ndestination:/topic/t\ninclude-seq:n",
            "include-seq",
        ),
        ("SUBSCRIBE\nid:0\ndestination:a\nfrom-seq:7", "from-seq"),
    ] {
        let mut pair = Pair::new("1.2");
        pair.send(&format!("{frame}\n\n^"));
        let out = pair.read();
        assert!(out.contains(&format!("\nheader: {header}\nreason: ")), "{out}");
    }
    check_all("SEND\ndestination:a\nAMQ_SCHEDULED_DELAY:0\n\n^", "");
}

#[test]
fn an_order_to_the_broker_is_no_message() {
    let mut pair = Pair::new("1.2");
    pair.send("SUBSCRIBE\nid:0\ndestination:a\nprefetch-count:0\n\n^");
    pair.asked.clear();
    pair.send("SEND\ndestination:/control/credit\nsubscription:0\ncredit:99999999999\nreceipt:1\n\nbody^");
    assert_eq!(
        pair.asked,
        [Request::Credit {
            sub: SubNo(1),
            count: u32::MAX
        }]
    );
    assert_eq!(pair.read(), "RECEIPT\nreceipt-id:1\n\n^");
    let check = |headers: &str, expect: &str| {
        let mut pair = Pair::new("1.2");
        pair.send("SUBSCRIBE\nid:0\ndestination:a\nprefetch-count:0\n\n^BEGIN\ntransaction:t\n\n^");
        assert_eq!(pair.fails(&format!("SEND\n{headers}\n\n^")), expect, "{headers}");
    };
    let credit = "destination:/control/credit";
    check(&format!("{credit}\ncredit:1"), "header-missing");
    check(&format!("{credit}\nsubscription:0"), "header-missing");
    check(
        &format!("{credit}\nsubscription:1\ncredit:1"),
        "subscription-unknown",
    );
    check(
        &format!("{credit}\nsubscription:a\ncredit:1"),
        "subscription-unknown",
    );
    for count in ["", "0", "-1", "1,2", "x"] {
        check(
            &format!("{credit}\nsubscription:0\ncredit:{count}"),
            "header-invalid",
        );
    }
    check(
        &format!("{credit}\nsubscription:0\ncredit:1\ntransaction:t"),
        "unsupported-header",
    );
    check("destination:/control/\nsubscription:0", "bad-destination");
    check("destination:/control/credits\nsubscription:0", "bad-destination");
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

#[test]
fn what_a_browser_asks_for() {
    let check = |headers: &str, expect: Option<(Option<u64>, bool)>| {
        let mut pair = Pair::new("1.1");
        pair.send(&format!(
            "SUBSCRIBE\nid:0\ndestination:/queue/a\\cb\n{headers}\n^"
        ));
        let Some(Request::Subscribe(sub)) = pair.asked.first() else {
            panic!("{}", pair.read())
        };
        assert_eq!(
            sub.browse.map(|browse| (browse.from, browse.follow)),
            expect,
            "{headers}"
        );
    };
    check("", None);
    check("browser:false\nbrowser-end:true\n", None);
    check("browser:true\n", Some((Some(0), false)));
    check("browser:true\nbrowser:false\n", Some((Some(0), false)));
    check(
        "browser:true\nbrowser-end:false\nfrom-seq:-1\n",
        Some((None, true)),
    );
    check("browser:true\nfrom-seq:12\nfrom-seq:7\n", Some((Some(12), false)));
    check(
        "browser:true\nfrom-seq:99999999999999999999\n",
        Some((Some(u64::MAX), false)),
    );
    for header in [
        "browser:",
        "browser:TRUE",
        "browser-end:0",
        "from-seq:-2",
        "from-seq:",
        "from-seq:last",
        "include-seq:",
        "include-seq:destination",
        "include-seq:dead-letter-time",
        "include-seq:browser",
    ] {
        let mut pair = Pair::new("1.2");
        pair.send(&format!(
            "SUBSCRIBE\nid:0\ndestination:a\nbrowser:true\n{header}\n\n^"
        ));
        // The first of a repeated header counts, but each must be one.
        assert!(pair.read().contains("\ncode:header-invalid\n"), "{header}");
    }
}
