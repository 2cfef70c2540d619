//! What an operator does: to which messages, in how many steps, beside clients.

use std::time::Instant;

use serde_json::json;

use steadfast::api;

use super::super::client::PATIENCE;
use super::super::http::ask;
use super::super::server::Server;
use super::{fill, subscribe, texts};

#[test]
fn messages_are_chosen_by_header_limit_and_range() {
    let server = Server::on_disk();
    fill(&server, "q", 0..10);
    let dry = server.act("q", "purge", &json!({ "header": ["n:1"], "dry_run": true }));
    assert_eq!((dry.count, dry.dry_run, server.depth("q")), (5, true, 10));
    let limited = server.act("q", "purge", &json!({ "header": ["n:1"], "limit": 2 }));
    assert_eq!((limited.count, limited.next), (2, None));
    assert_eq!(server.bodies("q"), texts([0, 2, 4, 5, 6, 7, 8, 9]));
    let both = json!({ "header": ["n:1", "missing"] });
    assert_eq!(server.act("q", "purge", &both).count, 0);

    let sequences: Vec<u64> = server
        .messages("q", "")
        .messages
        .iter()
        .map(|message| message.sequence)
        .collect();
    let range = json!({ "from": sequences[1], "until": sequences[3], "to": "p" });
    assert_eq!(server.act("q", "move", &range).count, 2);
    assert_eq!(server.bodies("p"), texts([2, 4]));
    let from = json!({ "from": sequences[6] });
    assert_eq!(server.act("q", "purge", &from).count, 2);
    assert_eq!(
        server.act("q", "copy", &json!({ "to": "p", "limit": 1 })).count,
        1
    );
    assert_eq!(server.bodies("p"), texts([2, 4, 0]));
    assert_eq!(server.bodies("q"), texts([0, 5, 6, 7]));
    let dry = server.act("q", "delete", &json!({ "dry_run": true }));
    assert_eq!((dry.count, server.depth("q")), (4, 4));
}

#[test]
fn an_act_of_many_steps_says_where_it_goes_on() {
    let mut server = Server::start(|options| options.limits.admin_act_count_max = 3);
    fill(&server, "q", 0..10);
    for (filter, count) in [(json!([]), 10_u64), (json!(["n:1"]), 5)] {
        let (mut copied, mut step_count) = (0, 0);
        let mut body = json!({ "to": "p", "header": filter });
        loop {
            let acted = server.act("q", "copy", &body);
            // What comes meanwhile is left alone.
            fill(&server, "q", 20..21);
            copied += acted.count;
            step_count += 1;
            let Some(next) = acted.next else { break };
            body["from"] = next.from.into();
            body["until"] = next.until.into();
        }
        assert_eq!((copied, step_count), (count, count.div_ceil(3)), "{filter}");
        let numbers =
            texts((0..10).filter(|number| filter.as_array().unwrap().is_empty() || number % 2 == 1));
        assert_eq!(server.bodies("p"), numbers);
        server.act("p", "purge", &json!({}));
        let added = json!({ "header": ["n:0"], "from": server.messages("q", "").messages[10].sequence });
        while server.depth("q") > 10 {
            server.act("q", "purge", &added);
        }
    }
    server.restart();
    assert_eq!(server.depth("q"), 10);
}

#[test]
fn held_messages_fare_as_documented() {
    let server = Server::start(|options| options.limits.deliveries_failed_max = 1);
    fill(&server, "q", 0..4);
    let mut client = server.client();
    subscribe(&mut client, "q", 2);
    let held = [client.expect_message("0"), client.expect_message("1")];

    let moved = server.act("q", "move", &json!({ "to": "p", "header": ["n"] }));
    assert_eq!((moved.count, moved.held_count), (2, 2));
    let copied = server.act("q", "copy", &json!({ "to": "p" }));
    assert_eq!((copied.count, copied.held_count), (0, 2));
    let refused = server.post("/v1/queues/q/delete", &json!({}));
    assert_eq!(refused.failure(), (409, "queue-in-use".to_owned()));

    // A dead letter goes back to where it came from.
    client.send(format!("NACK\nid:{}\nreceipt:n\n\n\0", held[0].header("ack")));
    client.expect_receipt("n");
    assert_eq!(server.depth("DLQ.q"), 1);
    let dead = server.messages("DLQ.q", "").messages;
    assert_eq!(dead[0].origin.as_deref(), Some("q"));
    assert!(server.queue("DLQ.q").queue.dead_letter);
    fill(&server, "DLQ.q", 7..8);
    assert_eq!(server.act("q", "pause", &json!({})).count, 1);
    let requeued = server.act("DLQ.q", "requeue", &json!({}));
    assert_eq!((requeued.count, requeued.skipped_count), (1, 1));
    assert_eq!((server.depth("q"), server.depth("DLQ.q")), (2, 1));
    assert_eq!(server.act("q", "resume", &json!({})).count, 1);
    let back = client.expect_message("0");

    let purged = server.act("q", "purge", &json!({}));
    assert_eq!((purged.count, purged.held_count), (2, 2));
    // The answers to what is gone have no effect and are no error.
    client.ack(&held[1], "1");
    client.ack(&back, "2");

    fill(&server, "q", 8..9);
    client.expect_message("8");
    let deleted = server.act("q", "delete", &json!({ "force": true }));
    assert_eq!(deleted.count, 1);
    assert_eq!(client.expect_error().header("code"), "queue-deleted");
}

#[test]
fn moves_under_load_lose_double_and_reorder_nothing() {
    const COUNT: u32 = 2_000;
    let server = Server::on_disk();
    let mut consumer = server.client();
    subscribe(&mut consumer, "p", 50);
    let mut producer = server.client();
    let sender = std::thread::spawn(move || {
        for number in 0..COUNT {
            let n = (number % 2).to_string();
            producer.send(format!("SEND\ndestination:/queue/q\nn:{n}\n\n{number}\0"));
        }
        producer.disconnect();
    });
    let socket = server.socket();
    let operator = std::thread::spawn(move || {
        let (mut moved, mut round) = (0, 0);
        let start = Instant::now();
        while moved < u64::from(COUNT) {
            // In turns: the whole queue in one go, a few of the oldest, and what is chosen by a header that all have.
            let body = [
                r#"{"to":"p"}"#,
                r#"{"to":"p","limit":7}"#,
                r#"{"to":"p","header":["n"]}"#,
            ][round % 3];
            let answer = ask(&socket, "POST", "/v1/queues/q/move", body).unwrap();
            if answer.status == 200 {
                moved += answer.json::<api::Acted>().count;
            }
            assert!(start.elapsed() < PATIENCE, "{moved} were moved");
            round += 1;
        }
        moved
    });
    for number in 0..COUNT {
        let message = consumer.expect_message(&number.to_string());
        consumer.send(format!("ACK\nid:{}\n\n\0", message.header("ack")));
    }
    sender.join().unwrap();
    assert_eq!(operator.join().unwrap(), u64::from(COUNT), "each was moved once");
    consumer.disconnect();
    assert_eq!((server.depth("q"), server.depth("p")), (0, 0));
}

#[test]
fn a_connection_is_ended() {
    let server = Server::start(|_| {});
    fill(&server, "q", 0..1);
    let mut client = server.client();
    subscribe(&mut client, "q", 1);
    client.expect_message("0");
    let connections: api::Connections = server.get("/v1/connections").json();
    let target = format!(
        "/v1/connections/{}/disconnect",
        connections.connections[0].session
    );
    let dry: api::Acted = server.post(&target, &json!({ "dry_run": true })).json();
    assert_eq!((dry.count, dry.held_count), (1, 1));
    let ended: api::Acted = ask(&server.socket(), "POST", &target, "").unwrap().json();
    assert_eq!(ended.count, 1);
    let error = client.expect_error();
    assert_eq!(error.header("code"), "disconnected-by-operator");
    assert_eq!(server.queue("q").queue.ready_count, 1);
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    server.await_answer("/v1/connections", |answer| answer["connections"] == json!([]));
    let again = server.post(&target, &json!({}));
    assert_eq!(again.failure(), (404, "session-unknown".to_owned()));
}

#[test]
fn what_waits_for_its_time_is_seen_and_cancelled() {
    let mut server = Server::on_disk();
    let mut client = server.client();
    for headers in [
        "x-delay:86400000\nreport:daily",
        "AMQ_SCHEDULED_CRON:0 4 * * MON\nreport:weekly",
        "AMQ_SCHEDULED_PERIOD:3600000\nAMQ_SCHEDULED_REPEAT:3\nreport:weekly",
    ] {
        client.send(format!("SEND\ndestination:/queue/q\nreceipt:1\n{headers}\n\n\0"));
        client.expect_receipt("1");
    }
    let queue = server.queue("q").queue;
    assert_eq!((queue.depth, queue.delayed_count, queue.ready_count), (3, 3, 0));
    let messages = server.messages("q", "").messages;
    assert!(messages.iter().all(|message| message.state == "delayed"));
    let [once, cron, period] = &messages[..] else {
        panic!("{messages:?}")
    };
    // Counted from its frame, which is accepted a moment later, to the end of a millisecond.
    let due_at_ms = once.accepted_at_ms + 86_400_000;
    assert!((due_at_ms - 60_000..=due_at_ms + 1).contains(&once.due_at_ms.unwrap()));
    assert_eq!(once.schedule, None);
    let schedule = cron.schedule.as_ref().unwrap();
    assert_eq!(schedule.cron.as_deref(), Some("0 4 * * MON"));
    let schedule = period.schedule.as_ref().unwrap();
    let last_due_at_ms = Some(period.due_at_ms.unwrap() + 3 * 3_600_000);
    assert_eq!(
        (schedule.period_ms, schedule.last_due_at_ms),
        (Some(3_600_000), last_due_at_ms)
    );

    let weekly = json!({ "header": ["report:weekly"] });
    assert_eq!(server.act("q", "purge", &weekly).count, 2);
    server.restart();
    let left = server.messages("q", "").messages;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].sequence, once.sequence);
    assert_eq!(server.act("q", "purge", &json!({})).count, 1);
    server.restart();
    assert_eq!(server.depth("q"), 0);
}
