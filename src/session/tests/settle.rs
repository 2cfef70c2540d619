use super::*;

#[test]
fn a_delivery_is_named_as_the_version_says() {
    let id = MessageId::from_parts(Epoch(5), 31).unwrap();
    let settle = |delivery| {
        vec![Request::Settle(Settle {
            why: None,
            delivery,
            outcome: crate::port::Outcome::Accepted,
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
        why: None,
        delivery: DeliveryKey::Tag(Tag(3)),
        outcome: crate::port::Outcome::Failed,
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
