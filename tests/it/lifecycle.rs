//! Start and stop.

use std::net::SocketAddr;
use std::sync::Arc;

use steadfast::base::Dialect;
use steadfast::runtime::{Listener, RunError, Running, ServeOptions};
use steadfast::store::MemoryStore;

use super::client::send_frame;
use super::server::Server;

#[test]
fn a_stop_answers_what_is_due_and_says_why() {
    let mut server = Server::start(|_| {});
    let mut client = server.client();
    let mut frames = Vec::new();
    for number in 0..500 {
        frames.extend_from_slice(&send_frame("q", b"body", &number.to_string()));
    }
    client.send(&frames);
    client.expect_receipt("0");
    let stopping = server.begin_stop();
    let mut receipt_count = 1;
    let last = loop {
        let frame = client.frame();
        if frame.command != "RECEIPT" {
            break frame;
        }
        assert_eq!(frame.header("receipt-id"), receipt_count.to_string());
        receipt_count += 1;
    };
    assert_eq!(last.command, "ERROR", "{last:?}");
    client.expect_end();
    drop(client);
    server.wait(stopping);
    server.start_again();
    let message_count = server.started().message_count;
    assert!(
        message_count >= receipt_count,
        "{message_count} of {receipt_count} confirmed are there"
    );
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut server = Server::start(|options| {
        options.shutdown_ms_max = 100;
        options.limits.linger_ms_max = 60_000;
    });
    let mut client = server.client();
    let start = std::time::Instant::now();
    server.stop();
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    client.expect_error();
    client.expect_end();
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start(|_| {});
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let mut options = ServeOptions {
        listen: vec![server.address().into()],
        data_dir: dir.path().to_owned(),
        ..ServeOptions::default()
    };
    options.limits.disk_free_bytes_min = 0;
    let refused = Running::start(Arc::new(MemoryStore::new([0; 16])), &options);
    match refused.map(|_| ()) {
        Err(error @ RunError::Listen { .. }) => {
            assert_eq!(
                error.to_string(),
                format!("cannot listen on {}", server.address())
            );
            assert_eq!(error.exit_code(), 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_addresses_serve_one_broker() {
    let server = Server::start(|options| {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let rabbitmq = Listener {
            dialect: Dialect::RabbitMq,
            ..any.into()
        };
        options.listen = vec![any.into(), rabbitmq];
    });
    let addresses = server.started().listen.clone();
    assert_eq!(addresses.len(), 2);
    let mut first = super::client::Client::connect(addresses[0].address.tcp().unwrap());
    let mut second = super::client::Client::connect(addresses[1].address.tcp().unwrap());
    first.publish("q", "hello", "r");
    first.expect_receipt("r");
    second.subscribe("q", "auto", "");
    second.expect_message("hello");
    // Each has its own dialect.
    first.publish("q", "again", "r2");
    second.expect_message("again");
    second.send("SEND\ndestination:q\nreceipt:x\n\n\0");
    assert_eq!(second.expect_error().header("code"), "bad-destination");
}

#[test]
fn each_start_is_a_new_term() {
    let mut server = Server::start(|_| {});
    let before = server.started().epoch;
    server.restart();
    assert!(server.started().epoch > before);
}

#[test]
fn what_an_ended_session_was_not_sent_is_not_settled() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    // Its queue is known to be watched, so that the next subscription is served within its own call.
    client.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nprefetch-count:1\nack:client\nreceipt:s\n\n\0");
    client.expect_receipt("s");
    for n in 0..20 {
        client.publish("q", &n.to_string(), "p");
        if n > 0 {
            client.expect_receipt("p");
        } else {
            let mut seen = [client.frame().command, client.frame().command];
            seen.sort_unstable();
            assert_eq!(seen, ["MESSAGE", "RECEIPT"]);
        }
    }
    let mut faulty = server.client();
    faulty.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nack:auto\n\n\0NONSENSE\n\n\0");
    faulty.expect_error();
    faulty.expect_end();
    client.disconnect();
    let mut heir = server.client();
    heir.subscribe("q", "auto", "");
    for n in 0..20 {
        heir.expect_message(&n.to_string());
    }
}

#[test]
fn what_waits_is_kept_on_disk_and_comes_neither_early_nor_twice() {
    let mut server = Server::on_disk();
    let mut client = server.client();
    let sent = std::time::Instant::now();
    for (headers, body) in [
        ("x-delay:1500", "late"),
        ("x-delay:1", "while it is down"),
        ("AMQ_SCHEDULED_PERIOD:1000\nAMQ_SCHEDULED_REPEAT:1", "again"),
        ("AMQ_SCHEDULED_CRON:0 0 29 2 *", "in a leap year"),
    ] {
        client.send(format!(
            "SEND\ndestination:/queue/q\nreceipt:{body}\n{headers}\n\n{body}\0"
        ));
        client.expect_receipt(body);
    }
    server.restart();
    let mut client = server.client();
    client.subscribe("q", "auto", "");
    let mut came = Vec::new();
    for _ in 0..4 {
        let message = client.frame();
        // The broker counts in whole milliseconds.
        let after_ms = sent.elapsed().as_millis() + 1;
        let body = message.text().to_owned();
        let not_before_ms = match body.as_str() {
            "late" => 1_500,
            "again" if came.contains(&body) => 2_000,
            "again" => 1_000,
            _ => 1,
        };
        assert!(after_ms >= not_before_ms, "{body} after {after_ms} ms");
        came.push(body);
    }
    came.sort();
    assert_eq!(came, ["again", "again", "late", "while it is down"]);
    client.disconnect();
    server.restart();
    assert_eq!(server.started().message_count, 1, "that of the leap year");
}
