use super::*;

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
        death: None,
        sequence: None,
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
        let expect = format!("MESSAGE\n{head}{block}\n\0!^");
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

#[test]
fn a_sequence_is_told_where_it_was_asked_for() {
    let check = |version: &str, header: &str, sequence: Option<u64>, expect: &str| {
        let mut pair = Pair::new(version);
        pair.send(&format!("SUBSCRIBE\nid:0\ndestination:a\n{header}\n^"));
        let (mut delivery, bytes) = delivery("destination:a\ncontent-length:1\n", b"x");
        delivery.sequence = sequence;
        let out = pair.deliver(&delivery, &[&bytes]);
        assert!(
            out.contains(&format!("\ndelivery-count:3{expect}\ndestination:a\n")),
            "{out}"
        );
    };
    for version in ["1.0", "1.1", "1.2"] {
        check(version, "", Some(7), "");
        check(version, "include-seq:at\n", Some(7), "\nat:7");
        check(
            version,
            "include-seq:at\n",
            Some(u64::MAX),
            "\nat:18446744073709551615",
        );
        check(version, "include-seq:at\n", None, "");
    }
    check("1.2", "include-seq:a\\cb\\r\n", Some(7), "\na\\cb\\r:7");
    check("1.1", "include-seq:a\\cb\n", Some(7), "\na\\cb:7");
}
