//! The way of a message: sent, stored, delivered, settled, and still so after a restart.

use super::server::Server;

fn stays_what_it_was(mut server: Server) {
    let mut producer = server.client();
    for number in 0..100 {
        producer.publish("orders", &format!("order {number}"), &format!("r{number}"));
    }
    for number in 0..100 {
        producer.expect_receipt(&format!("r{number}"));
    }
    producer.disconnect();

    server.restart();
    assert_eq!(
        (server.started().queue_count, server.started().message_count),
        (1, 100)
    );
    let mut consumer = server.client();
    consumer.subscribe("orders", "client-individual", "");
    for number in 0..100 {
        let message = consumer.expect_message(&format!("order {number}"));
        assert_eq!(message.header("destination"), "/queue/orders");
        assert_eq!(message.header("redelivered"), "false");
        if number < 50 {
            consumer.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
        }
    }
    consumer.disconnect();

    server.restart();
    assert_eq!(server.started().message_count, 50);
    let mut consumer = server.client();
    consumer.subscribe("orders", "auto", "");
    for number in 50..100 {
        let message = consumer.expect_message(&format!("order {number}"));
        assert_eq!(message.header("redelivered"), "true");
        assert_eq!(message.header("delivery-count"), "2");
    }
    consumer.disconnect();

    server.restart();
    assert_eq!(server.started().message_count, 0);
    server.stop();
}

#[test]
fn a_restart_changes_nothing_in_memory() {
    stays_what_it_was(Server::start(|_| {}));
}

#[test]
fn a_restart_changes_nothing_on_disk() {
    stays_what_it_was(Server::on_disk());
}

#[test]
fn two_consumers_share_and_what_one_leaves_goes_to_the_other() {
    let server = Server::start(|_| {});
    let mut first = server.client();
    let mut second = server.client();
    first.subscribe("work", "client-individual", "prefetch-count:1\n");
    second.subscribe("work", "client-individual", "prefetch-count:1\n");
    let mut producer = server.client();
    producer.publish("work", "a", "a");
    producer.publish("work", "b", "b");
    producer.expect_receipt("a");
    producer.expect_receipt("b");
    let (of_first, of_second) = (first.frame(), second.frame());
    assert_ne!(of_first.text(), of_second.text());
    second.ack(&of_second, "done");
    // Without a word: the socket is gone, and what it held is released at once.
    drop(first);
    let again = second.expect_message(of_first.text());
    assert_eq!(
        (again.header("redelivered"), again.header("delivery-count")),
        ("true", "2")
    );
    second.ack(&again, "done");
    second.disconnect();
}

#[test]
fn a_body_that_left_the_cache_is_read_from_the_store() {
    let server = Server::start(|options| options.limits.body_cache_bytes_max = 1);
    let mut client = server.client();
    let count = 3_000;
    for number in 0..count {
        client.publish("q", &format!("{number} {}", "x".repeat(200)), "");
    }
    client.subscribe("q", "auto", "");
    for number in 0..count {
        let message = client.frame();
        assert!(message.text().starts_with(&format!("{number} ")), "in order");
    }
    let stats = server.stats();
    assert!(stats.body_read_count > 0, "{stats:?}");
    client.disconnect();
}

#[test]
fn long_messages_that_left_the_cache_are_read_piece_by_piece() {
    let server = Server::start(|options| {
        options.limits.body_cache_bytes_max = 1;
        options.limits.header_line_bytes_max = 64 * 1024;
    });
    let mut producer = server.client();
    let body: String = (0..300_000).map(|number| format!("{number},")).collect();
    // A header block over several chunks, too.
    let wide = "w".repeat(50_000);
    producer.send(format!(
        "SEND\ndestination:/queue/q\nwide:{wide}\ncontent-length:{}\nreceipt:long\n\n{body}\0",
        body.len()
    ));
    producer.expect_receipt("long");
    producer.publish("q", "short", "short");
    producer.expect_receipt("short");
    for redelivered in ["false", "true"] {
        let mut consumer = server.client();
        consumer.subscribe("q", "client-individual", "");
        let message = consumer.frame();
        assert!(message.text() == body, "{} bytes came", message.body.len());
        assert_eq!(
            (message.header("wide"), message.header("redelivered")),
            (wide.as_str(), redelivered)
        );
        consumer.expect_message("short");
        consumer.disconnect();
    }
    assert!(server.stats().body_read_count > 100, "{:?}", server.stats());
}

#[test]
fn a_transaction_is_whole() {
    let mut server = Server::start(|_| {});
    let mut client = server.client();
    client.publish("in", "one", "sent");
    client.expect_receipt("sent");
    client.subscribe("in", "client-individual", "");
    let message = client.expect_message("one");
    client.send("BEGIN\ntransaction:t\n\n\0");
    client.send("SEND\ndestination:/queue/out\ntransaction:t\n\ntwo\0");
    client.send(format!("ACK\nid:{}\ntransaction:t\n\n\0", message.header("ack")));
    client.send("COMMIT\ntransaction:t\nreceipt:committed\n\n\0");
    client.expect_receipt("committed");
    client.disconnect();
    server.restart();
    assert_eq!(
        (server.started().queue_count, server.started().message_count),
        (1, 1)
    );
    let mut client = server.client();
    client.subscribe("out", "auto", "");
    client.expect_message("two");
    client.disconnect();
}

#[test]
fn topics_reach_everyone_present() {
    let server = Server::start(|_| {});
    let mut subscribers: Vec<_> = (0..5).map(|_| server.client()).collect();
    for subscriber in &mut subscribers {
        subscriber.send("SUBSCRIBE\nid:0\ndestination:/topic/news\nreceipt:sub\n\n\0");
        subscriber.expect_receipt("sub");
    }
    let mut producer = server.client();
    let long = "long ".repeat(50_000);
    producer.send("SEND\ndestination:/topic/news\nreceipt:1\n\nshort\0");
    producer.send(format!("SEND\ndestination:/topic/news\nreceipt:2\n\n{long}\0"));
    producer.expect_receipt("1");
    producer.expect_receipt("2");
    for subscriber in &mut subscribers {
        subscriber.expect_message("short");
        subscriber.expect_message(&long);
    }
}

#[test]
fn what_stays_is_moved_out_of_sparse_chunks_and_stays_whole() {
    let mut server = Server::start(|options| {
        options.limits.compaction_waste_bytes_min = 1_024;
        options.limits.body_cache_bytes_max = 1;
    });
    let body = |number: usize| format!("{number:01000}");
    let mut client = server.client();
    for number in 0..400 {
        client.publish("a", &body(number), &format!("r{number}"));
    }
    (0..400).for_each(|number| client.expect_receipt(&format!("r{number}")));
    client.subscribe("a", "client-individual", "");
    for number in 0..400 {
        let message = client.expect_message(&body(number));
        if number % 20 != 0 {
            client.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
        }
    }
    client.disconnect();
    let read_before = server.stats().body_read_count;
    server.await_stats("chunks are looked at", |stats| {
        stats.body_read_count >= read_before + 10
    });
    server.restart();
    let mut client = server.client();
    client.subscribe("a", "auto", "");
    for number in (0..400).step_by(20) {
        client.expect_message(&body(number));
    }
    client.disconnect();
    server.stop();
}
