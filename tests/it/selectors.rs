//! Selectors on what the store holds: headers are read from the disk, while others go on.

use super::server::Server;

const COUNT: usize = 5_000;

/// Messages of every seventh color, some long, settled, moved and recovered in between.
fn fill(server: &Server) {
    let mut producer = server.client();
    for number in 0..COUNT {
        let long = if number % 500 == 0 { 40_000 } else { 20 };
        let receipt = if number + 1 == COUNT { "receipt:last\n" } else { "" };
        let (color, body) = (number % 7, "x".repeat(long));
        producer.send(format!(
            "SEND\ndestination:/queue/a\ncolor:{color}\nn:{number}\n{receipt}\n{body}\0"
        ));
    }
    producer.expect_receipt("last");
    producer.disconnect();
}

#[test]
fn what_was_stored_before_is_selected_after_a_restart() {
    let mut server = Server::on_disk();
    fill(&server);
    server.restart();
    let mut consumer = server.client();
    consumer.subscribe("a", "client-individual", "selector:color = 3 AND n >= 1000\n");
    // Sent meanwhile: it comes behind all that was there.
    let mut producer = server.client();
    producer.send("SEND\ndestination:/queue/a\ncolor:3\nn:1000000\nreceipt:r\n\nlate\0");
    producer.expect_receipt("r");
    let expected = (1_000..COUNT).filter(|number| number % 7 == 3).chain([1_000_000]);
    for number in expected {
        let message = consumer.frame();
        assert_eq!(message.header("n"), number.to_string());
        consumer.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
    }
    assert!(consumer.is_silent());
    // The others are there, in order.
    let mut rest = server.client();
    rest.subscribe("a", "client-individual", "");
    for number in (0..COUNT).filter(|number| number % 7 != 3 || *number < 1_000) {
        let message = rest.frame();
        assert_eq!(message.header("n"), number.to_string());
        rest.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
    }
    assert!(rest.is_silent());
    server.stop();
}

#[test]
fn many_selectors_share_one_queue() {
    let server = Server::on_disk();
    fill(&server);
    let mut consumers: Vec<_> = (0..7)
        .map(|color| {
            let mut consumer = server.client();
            consumer.subscribe("a", "client-individual", &format!("selector:color = '{color}'\n"));
            consumer
        })
        .collect();
    for number in 0..COUNT {
        let consumer = &mut consumers[number % 7];
        let message = consumer.frame();
        assert_eq!(message.header("n"), number.to_string());
        consumer.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
    }
    assert!(consumers.iter_mut().all(super::client::Client::is_silent));
}
