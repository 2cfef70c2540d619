//! The HTTP API of a running broker: every path, odd names, wrong requests, metrics and health.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use steadfast::api;
use steadfast::base::{ChunkRef, Seq};
use steadfast::journal::{Batch, IndexChunk, IndexSize, Recovered};
use steadfast::store::{MemoryStore, Store, StoreError, StoreStats};

use super::client::{Client, Frame, PATIENCE};
use super::http::{Answer, ask, ask_tcp};
use super::server::Server;

mod acts;

/// Names that a path, a terminal or a log could stumble over.
const NAMES: [&str; 9] = [
    "plain",
    "two words",
    "a/b/c",
    "quo\"te's",
    "50%+?&#=",
    "line\nbreak\tand\u{1b}[31m",
    "日本語 🦀",
    "..",
    "back\\slash:colon",
];

impl Server {
    fn socket(&self) -> PathBuf {
        self.started().api.clone().expect("the API listens")
    }

    fn get(&self, target: &str) -> Answer {
        ask(&self.socket(), "GET", target, "").unwrap()
    }

    fn post(&self, target: &str, body: &Value) -> Answer {
        ask(&self.socket(), "POST", target, &body.to_string()).unwrap()
    }

    /// An act on a queue that is done.
    fn act(&self, queue: &str, act: &str, body: &Value) -> api::Acted {
        self.post(&format!("/v1/queues/{}/{act}", api::percent_encode(queue)), body)
            .json()
    }

    fn queue(&self, name: &str) -> api::QueueDetail {
        self.get(&format!("/v1/queues/{}", api::percent_encode(name)))
            .json()
    }

    /// Depth; 0 where there is no such queue.
    fn depth(&self, name: &str) -> u64 {
        let answer = self.get(&format!("/v1/queues/{}", api::percent_encode(name)));
        match answer.status {
            200 => answer.json::<api::QueueDetail>().queue.depth,
            _ => {
                assert_eq!(answer.failure(), (404, "queue-unknown".to_owned()));
                0
            }
        }
    }

    fn messages(&self, queue: &str, query: &str) -> api::Messages {
        self.get(&format!(
            "/v1/queues/{}/messages{query}",
            api::percent_encode(queue)
        ))
        .json()
    }

    fn bodies(&self, queue: &str) -> Vec<String> {
        let messages = self.messages(queue, "?count=1000").messages;
        messages
            .into_iter()
            .map(|message| message.body.expect("a preview was asked for").data)
            .collect()
    }

    /// Asks until the answer is as it should be.
    fn await_answer(&self, target: &str, done: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let answer: Value = serde_json::from_slice(&self.get(target).body).unwrap();
            if done(&answer) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "waiting: {answer}");
            std::thread::yield_now();
        }
    }
}

/// The escapes of STOMP 1.2.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace(':', "\\c")
}

/// Sends a message with a header `n`, and waits for its receipt.
fn send(client: &mut Client, queue: &str, n: &str, body: &[u8]) {
    let mut frame = format!(
        "SEND\ndestination:/queue/{}\nn:{}\nreceipt:r\ncontent-length:{}\n\n",
        escaped(queue),
        escaped(n),
        body.len()
    )
    .into_bytes();
    frame.extend_from_slice(body);
    frame.push(0);
    client.send(frame);
    client.expect_receipt("r");
}

/// Sends the numbers of a range as bodies; `n` is 0 or 1 in turns.
fn fill(server: &Server, queue: &str, numbers: std::ops::Range<u32>) {
    let mut client = server.client();
    for number in numbers {
        send(
            &mut client,
            queue,
            &(number % 2).to_string(),
            number.to_string().as_bytes(),
        );
    }
    client.disconnect();
}

fn subscribe(client: &mut Client, queue: &str, prefetch: u32) {
    let queue = escaped(queue);
    client.send(format!(
        "SUBSCRIBE\nid:1\ndestination:/queue/{queue}\nack:client-individual\nprefetch-count:{prefetch}\nreceipt:s\n\n\0"
    ));
    client.expect_receipt("s");
}

fn texts(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

#[test]
fn every_path_takes_any_name() {
    let server = Server::on_disk();
    for name in NAMES {
        fill(&server, name, 0..4);
        let detail = server.queue(name);
        assert_eq!((detail.queue.name.as_str(), detail.queue.depth), (name, 4));

        let messages = server.messages(name, "?header=n:1").messages;
        assert_eq!(messages.len(), 2, "{name:?}");
        let destination = ("destination".to_owned(), format!("/queue/{name}"));
        assert!(messages[0].headers.contains(&destination), "{:?}", messages[0]);

        let prefix = api::percent_encode(name);
        let queues: api::Queues = server.get(&format!("/v1/queues?prefix={prefix}")).json();
        assert_eq!(queues.queues.len(), 1, "{name:?}");

        let to = format!("{name} (copy)");
        let copied = server.act(name, "copy", &json!({ "to": to }));
        assert_eq!((copied.count, server.depth(&to)), (4, 4));
        let moved = server.act(&to, "move", &json!({ "to": name, "header": ["n:0"] }));
        assert_eq!((moved.count, server.depth(name)), (2, 6));
        assert_eq!(server.act(name, "pause", &json!({})).count, 1);
        assert!(server.queue(name).queue.paused);
        assert_eq!(server.act(name, "resume", &json!({})).count, 1);
        assert_eq!(server.act(name, "purge", &json!({})).count, 6);
        assert_eq!(server.act(&to, "delete", &json!({})).count, 2);
        assert_eq!((server.depth(name), server.depth(&to)), (0, 0));
    }
}

#[test]
fn a_listing_goes_on_where_its_page_ended() {
    let server = Server::start(|_| {});
    let mut names = Vec::new();
    for number in 0..7 {
        let name = format!("page {number}");
        fill(&server, &name, 0..1);
        names.push(name);
    }
    fill(&server, "other", 0..1);
    fill(&server, "zebra", 0..1);
    let (mut seen, mut from) = (Vec::new(), String::new());
    loop {
        let from_encoded = api::percent_encode(&from);
        let page: api::Queues = server
            .get(&format!("/v1/queues?prefix=page+&count=3&from={from_encoded}"))
            .json();
        assert!(page.queues.len() <= 3);
        seen.extend(page.queues.into_iter().map(|queue| queue.name));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen, names);

    fill(&server, "deep", 0..10);
    for filter in ["", "&header=n"] {
        let (mut seen, mut from) = (Vec::new(), 0);
        loop {
            let page = server.messages("deep", &format!("?count=4&from={from}{filter}"));
            seen.extend(
                page.messages
                    .into_iter()
                    .map(|message| message.body.unwrap().data),
            );
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(seen, texts(0..10));
    }
}

#[test]
fn bodies_are_shown_as_far_as_asked_for() {
    let server = Server::on_disk();
    let mut client = server.client();
    let long = "0123456789abcdef".repeat(20_000);
    send(&mut client, "q", "x:y", b"short");
    send(&mut client, "q", "x", long.as_bytes());
    send(&mut client, "q", "x", &[0xff; 300]);
    send(&mut client, "q", "x", b"");
    send(&mut client, "q", "x", &vec![b'a'; api::BODY_BYTES_MAX + 1]);

    let previews = server.messages("q", "").messages;
    let body = |at: usize| previews[at].body.clone().unwrap();
    assert_eq!((body(0).data.as_str(), body(0).truncated), ("short", false));
    assert_eq!((body(1).data.as_str(), body(1).truncated), (&long[..256], true));
    assert_eq!(
        (body(2).encoding, body(2).truncated),
        (api::BodyEncoding::Base64, true)
    );
    assert_eq!((body(3).data.as_str(), body(3).truncated), ("", false));
    assert_eq!(previews[0].headers[1], ("n".to_owned(), "x:y".to_owned()));
    assert_eq!(previews[1].body_bytes, 320_000);

    let whole = server.messages("q", "?body=whole&count=2").messages;
    assert_eq!(whole[1].body.as_ref().unwrap().data, long);
    let filtered = server.messages("q", "?body=whole&header=n:x:y").messages;
    assert_eq!(filtered.len(), 1);
    assert_eq!(filtered[0].body.as_ref().unwrap().data, "short");
    let last = whole[1].sequence + 3;
    let largest = server.messages("q", &format!("?body=whole&from={last}")).messages;
    let body = largest[0].body.as_ref().unwrap();
    assert_eq!((body.data.len(), body.truncated), (api::BODY_BYTES_MAX, true));
    assert!(
        server
            .messages("q", "?body=none")
            .messages
            .iter()
            .all(|message| message.body.is_none())
    );
}

#[test]
fn a_page_of_large_bodies_ends_early() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    for _ in 0..5 {
        send(&mut client, "q", "0", &vec![b'a'; 3 * 1024 * 1024]);
    }
    let first = server.messages("q", "?body=whole");
    assert_eq!(first.messages.len(), 3, "the third passes 8 MiB");
    let second = server.messages("q", &format!("?body=whole&from={}", first.next.unwrap()));
    assert_eq!((second.messages.len(), second.next), (2, None));
}

#[test]
fn the_credit_of_each_kind_of_subscription_is_seen() {
    let server = Server::start(|_| {});
    fill(&server, "q", 0..3);
    let mut client = server.client();
    client.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nack:client\nprefetch-count:0\n\n\0");
    client.send("SEND\ndestination:/control/credit\nsubscription:1\ncredit:5\nreceipt:c\n\n\0");
    client.expect_receipt("c");
    client.expect_message("0");
    client.expect_message("1");
    client.expect_message("2");
    client.send("SUBSCRIBE\nid:2\ndestination:/queue/r\ncredit:3,4000\nreceipt:s\n\n\0");
    client.expect_receipt("s");
    let seen = |queue: &str| {
        let detail = server.queue(queue);
        let of = &detail.subscriptions[0];
        (of.held_count, of.prefetch_count, of.prefetch_bytes, of.credit)
    };
    assert_eq!(seen("q"), (3, 0, None, Some(2)));
    assert_eq!(seen("r"), (0, 3, Some(4_000), None));
}

#[test]
fn what_clients_hold_and_stage_is_seen() {
    let server = Server::start(|_| {});
    fill(&server, "q", 0..3);
    let mut client = server.client();
    subscribe(&mut client, "q", 2);
    client.expect_message("0");
    client.expect_message("1");
    client.send("SUBSCRIBE\nid:2\ndestination:/topic/t\nreceipt:s\n\n\0");
    client.expect_receipt("s");
    client.send("BEGIN\ntransaction:t\nreceipt:b\n\n\0SEND\ndestination:/queue/z\ntransaction:t\nreceipt:b\n\nstaged\0");
    client.expect_receipt("b");
    client.expect_receipt("b");

    let detail = server.queue("q");
    assert_eq!((detail.queue.ready_count, detail.queue.leased_count), (1, 2));
    let [subscription] = &detail.subscriptions[..] else {
        panic!("{detail:?}");
    };
    assert_eq!((subscription.held_count, subscription.prefetch_count), (2, 2));
    assert_eq!(subscription.ack, "client-individual");
    assert_eq!(subscription.destination, "/queue/q");
    assert!(subscription.oldest_held_ms.is_some());
    let peer = client.stream.local_addr().unwrap().to_string();
    assert_eq!(subscription.peer.as_deref(), Some(peer.as_str()));

    let connections: api::Connections = server.get("/v1/connections").json();
    let [connection] = &connections.connections[..] else {
        panic!("{connections:?}");
    };
    assert_eq!(connection.version.as_deref(), Some("1.2"));
    assert_eq!((connection.subscription_count, connection.held_count), (2, 2));
    assert_eq!(
        (connection.transaction_count, connection.staged_frame_count),
        (1, 1)
    );
    assert!(connection.in_bytes > 0 && connection.out_bytes > 0 && connection.connected_at_ms > Some(0));

    let one: api::ConnectionDetail = server
        .get(&format!("/v1/connections/{}", connection.session))
        .json();
    assert_eq!((one.subscriptions.len(), one.transactions.len()), (2, 1));
    let transactions: api::Transactions = server.get("/v1/transactions").json();
    let [transaction] = &transactions.transactions[..] else {
        panic!("{transactions:?}");
    };
    assert_eq!(
        (transaction.session, transaction.tx),
        (connection.session, one.transactions[0].tx)
    );
    assert_eq!(transaction.staged_frame_count, 1);

    let topics: api::Topics = server.get("/v1/topics").json();
    let topic = api::Topic {
        name: "t".to_owned(),
        subscription_count: 1,
        queue_count: 0,
    };
    assert_eq!((topics.topics, topics.next), (vec![topic], None));

    // The socket of the one that filled the queue may be open a moment longer than its session.
    server.await_answer("/v1/status", |status| status["connection_count"] == 1);
    let status: api::Status = server.get("/v1/status").json();
    assert_eq!((status.connection_count, status.subscription_count), (1, 2));
    assert_eq!((status.queue_count, status.topic_count), (1, 1));
    assert_eq!((status.message_count, status.transaction_count), (3, 1));
    assert_eq!(status.counters.enqueued_count, 3);
    assert_eq!(status.listen, [server.address().to_string()]);
    assert!(status.health.ok && status.staged_bytes > 0);
    let store: api::Store = server.get("/v1/store").json();
    assert_eq!(store.uuid, "07".repeat(16));
    assert!(store.commit.count >= 3 && store.flush.max_ms <= store.commit.max_ms);
    assert!(store.durable_seq > 0 && store.disk_free_bytes > Some(0));
}

#[test]
fn rates_are_measured_when_asked_for() {
    let server = Server::start(|_| {});
    fill(&server, "q", 0..1);
    let rates = |answer: &Value| answer["rates"]["in_per_second"].as_f64();
    let socket = server.socket();
    let asked = std::thread::spawn(move || ask(&socket, "GET", "/v1/queues?rate_ms=1000", "").unwrap());
    fill(&server, "q", 1..100);
    let sent: Value = asked.join().unwrap().json();
    let rate = rates(&sent["queues"][0]).expect("a rate was asked for");
    assert!(rate > 0.0 && rate <= 100.0, "{rate}");
    for target in ["/v1/status?rate_ms=1", "/v1/queues/q?rate_ms=1"] {
        let answer: Value = server.get(target).json();
        let of = answer.get("queue").unwrap_or(&answer);
        assert_eq!(rates(of), Some(0.0), "{target}");
    }
    assert_eq!(rates(&server.get("/v1/status").json()), None);
}

#[test]
fn wrong_requests_are_told_so() {
    let server = Server::start(|options| options.limits.header_line_bytes_max = 1_000);
    fill(&server, "q", 0..1);
    let long = format!(r#"{{"to": "{}"}}"#, "x".repeat(1_000));
    let huge = format!(r#"{{"to": "{}"}}"#, "x".repeat(api::REQUEST_BYTES_MAX));
    let cases = [
        ("GET", "/", "", 404, "path-unknown"),
        ("GET", "/v1", "", 404, "path-unknown"),
        ("GET", "/v2/status", "", 404, "path-unknown"),
        ("GET", "/v1/status/", "", 404, "path-unknown"),
        ("GET", "/v1/queues/q/vanish", "", 404, "path-unknown"),
        ("POST", "/v1/status", "", 405, "method-not-allowed"),
        ("DELETE", "/v1/queues/q", "", 405, "method-not-allowed"),
        ("GET", "/v1/queues/q/purge", "", 405, "method-not-allowed"),
        ("GET", "/v1/queues?cuont=1", "", 400, "bad-request"),
        ("GET", "/v1/queues?count=0", "", 400, "bad-request"),
        ("GET", "/v1/queues?count=1001", "", 400, "bad-request"),
        ("GET", "/v1/queues?count=-1", "", 400, "bad-request"),
        ("GET", "/v1/queues?count=1&count=2", "", 400, "bad-request"),
        ("GET", "/v1/queues?rate_ms=0", "", 400, "bad-request"),
        ("GET", "/v1/queues?rate_ms=10001", "", 400, "bad-request"),
        ("GET", "/v1/queues?prefix=%ff", "", 400, "bad-request"),
        ("GET", "/v1/queues/%zz", "", 400, "bad-request"),
        ("GET", "/v1/queues/%ff", "", 400, "bad-request"),
        ("GET", "/v1/queues/none", "", 404, "queue-unknown"),
        ("GET", "/v1/queues/", "", 404, "queue-unknown"),
        ("GET", "/v1/queues/none/messages", "", 404, "queue-unknown"),
        ("GET", "/v1/queues/q/messages?body=all", "", 400, "bad-request"),
        ("GET", "/v1/queues/q/messages?header=", "", 400, "bad-request"),
        ("GET", "/v1/queues/q/messages?header=:v", "", 400, "bad-request"),
        ("GET", "/v1/connections/none", "", 400, "bad-request"),
        ("GET", "/v1/connections/999", "", 404, "session-unknown"),
        ("GET", "/metrics?x=1", "", 400, "bad-request"),
        ("POST", "/v1/queues/q/purge?dry_run=true", "", 400, "bad-request"),
        ("POST", "/v1/queues/q/purge", "all", 400, "bad-request"),
        ("POST", "/v1/queues/q/purge", "[]x", 400, "bad-request"),
        (
            "POST",
            "/v1/queues/q/purge",
            r#"{"headers": []}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/queues/q/purge",
            r#"{"limit": "1"}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/queues/q/pause",
            r#"{"force": true}"#,
            400,
            "bad-request",
        ),
        ("POST", "/v1/queues/q/move", "", 400, "bad-request"),
        ("POST", "/v1/queues/q/move", r#"{"to": ""}"#, 400, "bad-request"),
        (
            "POST",
            "/v1/queues/q/move",
            r#"{"to": "a\u0000"}"#,
            400,
            "bad-request",
        ),
        ("POST", "/v1/queues/q/move", &long, 400, "bad-request"),
        ("POST", "/v1/queues/q/move", &huge, 413, "request-too-large"),
        ("POST", "/v1/queues/q/move", r#"{"to": "q"}"#, 409, "same-queue"),
        ("POST", "/v1/queues/none/purge", "", 404, "queue-unknown"),
        ("POST", "/v1/queues/none/pause", "", 404, "queue-unknown"),
        (
            "POST",
            "/v1/queues/none/move",
            r#"{"to": "q"}"#,
            404,
            "queue-unknown",
        ),
        (
            "POST",
            "/v1/connections/999/disconnect",
            "",
            404,
            "session-unknown",
        ),
    ];
    for (method, target, body, status, code) in cases {
        let answer = ask(&server.socket(), method, target, body).unwrap();
        assert_eq!(
            answer.failure(),
            (status, code.to_owned()),
            "{method} {target} {body:.80}"
        );
        if status == 405 {
            assert!(answer.head.contains("\r\nallow: "), "{}", answer.head);
        }
    }
    assert_eq!(server.depth("q"), 1, "nothing was done");
}

#[test]
fn one_connection_takes_many_requests() {
    let server = Server::start(|_| {});
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    let request = "HEAD /v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream
        .write_all(format!("{request}{request}{last}").as_bytes())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    assert!(text.ends_with("{\"ok\":true,\"reasons\":[]}\n"), "{text}");
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_broker() {
    let mut server = Server::start(|_| {});
    let socket = server.socket();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // A connection that asks nothing holds up no stop.
    let idle = UnixStream::connect(&socket).unwrap();
    server.stop();
    assert!(!socket.exists());
    drop(idle);
    server.start_again();
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn without_a_socket_messages_are_served() {
    let server = Server::start(|options| fs::write(options.data_dir.join(api::SOCKET_FILE), "mine").unwrap());
    assert_eq!(server.started().api, None);
    fill(&server, "q", 0..1);
}

/// The value of a series.
fn series(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(|value| value.parse().unwrap())
}

#[test]
fn metrics_are_told_in_the_standard_form() {
    let server = Server::start(|options| {
        options.limits.metrics_queue_count_max = 2;
        options.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    });
    fill(&server, "shallow", 0..1);
    fill(&server, "deep \"\\\n", 0..3);
    fill(&server, "a", 0..2);
    let mut client = server.client();
    subscribe(&mut client, "a", 1);
    let first: Frame = client.expect_message("0");
    client.send(format!("ACK\nid:{}\nreceipt:x\n\n\0", first.header("ack")));
    let next = [client.frame().command, client.frame().command];
    assert!(next.contains(&"RECEIPT".to_owned()), "{next:?}");

    let address = server.started().metrics_listen.expect("it was asked for");
    let answer = ask_tcp(address, "GET", "/metrics").unwrap();
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for (name, value) in [
        ("steadfast_ready", 1.0),
        ("steadfast_queues", 3.0),
        ("steadfast_queues_skipped", 1.0),
        ("steadfast_messages", 5.0),
        ("steadfast_subscriptions", 1.0),
        ("steadfast_messages_enqueued_total", 6.0),
        ("steadfast_settlements_total{outcome=\"accepted\"}", 1.0),
        ("steadfast_connections_closed_total{reason=\"disconnect\"}", 3.0),
        ("steadfast_queue_messages{queue=\"deep \\\"\\\\\\n\"}", 3.0),
        ("steadfast_queue_messages{queue=\"a\"}", 1.0),
        ("steadfast_queue_accepted_total{queue=\"a\"}", 1.0),
    ] {
        assert_eq!(series(text, name), Some(value), "{name}:\n{text}");
    }
    assert_eq!(series(text, "steadfast_queue_messages{queue=\"shallow\"}"), None);
    let count = series(text, "steadfast_commit_seconds_count");
    assert!(count > Some(0.0));
    assert_eq!(
        series(text, "steadfast_commit_seconds_bucket{le=\"+Inf\"}"),
        count
    );
    assert!(series(text, "steadfast_end_to_end_seconds_count").is_some());
    // Every metric of the list is there, and has its kind and its help once.
    for metric in steadfast::runtime::METRICS {
        let name = metric.name();
        let family = name.strip_suffix("_total").unwrap_or(&name);
        assert_eq!(
            text.matches(&format!("# TYPE {family} {}\n", metric.kind()))
                .count(),
            1,
            "{name}"
        );
    }
    assert_eq!(ask(&server.socket(), "GET", "/metrics", "").unwrap().status, 200);

    // Nothing else is there over TCP.
    assert_eq!(ask_tcp(address, "GET", "/health/ready").unwrap().status, 200);
    assert_eq!(ask_tcp(address, "GET", "/health/live").unwrap().status, 200);
    for target in ["/v1/status", "/v1/queues", "/v1/queues/a/purge"] {
        for method in ["GET", "POST"] {
            let failure = ask_tcp(address, method, target).unwrap().failure();
            assert_eq!(failure, (404, "path-unknown".to_owned()));
        }
    }
}

#[test]
fn an_operators_acts_are_counted() {
    let server = Server::start(|_| {});
    fill(&server, "q", 0..4);
    server.act("q", "copy", &json!({ "to": "p" }));
    server.act("q", "move", &json!({ "to": "p", "limit": 1 }));
    server.act("q", "purge", &json!({}));
    let answer = server.get("/metrics");
    for (act, count) in [("copy", 4.0), ("move", 1.0), ("purge", 3.0)] {
        let name = format!("steadfast_operator_messages_total{{act=\"{act}\"}}");
        assert_eq!(series(answer.text(), &name), Some(count));
    }
}

/// A store that does one thing only when it is let.
struct Held {
    inner: MemoryStore,
    recover: Mutex<Option<Receiver<()>>>,
    /// Flushes behind the first, which is that of the new term, wait.
    flush: Mutex<(u32, Option<Receiver<()>>)>,
}

impl Held {
    fn new(recover: Option<Receiver<()>>, flush: Option<Receiver<()>>) -> Self {
        Self {
            inner: MemoryStore::new([7; 16]),
            recover: Mutex::new(recover),
            flush: Mutex::new((0, flush)),
        }
    }
}

impl Store for Held {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        if let Some(wait) = self.recover.lock().unwrap().take() {
            wait.recv().unwrap();
        }
        self.inner.recover(visit)
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        self.inner.index(from, to, bytes_min)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        self.inner.append(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let wait = {
            let (count, wait) = &mut *self.flush.lock().unwrap();
            *count += 1;
            if *count > 1 { wait.take() } else { None }
        };
        if let Some(wait) = wait {
            wait.recv().unwrap();
        }
        self.inner.flush()
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        self.inner.body(place)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.inner.tidy()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

#[test]
fn while_it_starts_health_is_told_and_nothing_else() {
    let (go, wait) = sync_channel(0);
    let store = Arc::new(Held::new(Some(wait), None));
    let (tell, told) = sync_channel(1);
    let watcher = std::thread::spawn(move || {
        let socket: PathBuf = told.recv().unwrap();
        let start = Instant::now();
        let ready = loop {
            match ask(&socket, "GET", "/health/ready", "") {
                Ok(answer) => break answer,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
        };
        let reasons: api::Health = serde_json::from_slice(&ready.body).unwrap();
        assert_eq!(
            (ready.status, reasons.reasons[0].code.as_str()),
            (503, "starting")
        );
        assert_eq!(ask(&socket, "GET", "/health/live", "").unwrap().status, 200);
        for target in ["/v1/status", "/metrics", "/v1/queues/a"] {
            let failure = ask(&socket, "GET", target, "").unwrap().failure();
            assert_eq!(failure, (503, "starting".to_owned()));
        }
        go.send(()).unwrap();
    });
    let server = Server::with(
        move |_| Arc::<Held>::clone(&store),
        |options| {
            let data_dir = options.data_dir.canonicalize().unwrap();
            tell.send(data_dir.join(api::SOCKET_FILE)).unwrap();
        },
    );
    watcher.join().unwrap();
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn a_commit_that_hangs_is_not_ready_and_answers_no_act() {
    let (go, wait) = sync_channel(1);
    let store = Arc::new(Held::new(None, Some(wait)));
    let server = Server::with(move |_| Arc::<Held>::clone(&store), |_| {});
    let mut client = server.client();
    client.publish("q", "stuck", "r");
    server.await_answer("/v1/queues", |answer| answer["queues"][0]["depth"] == 1);
    let socket = server.socket();
    let act = std::thread::spawn(move || ask(&socket, "POST", "/v1/queues/q/purge", "").unwrap());
    server.await_answer("/v1/queues", |answer| answer["queues"] == json!([]));

    let answer = server.await_answer("/health/ready", |answer| answer["ok"] == false);
    assert_eq!(answer["reasons"][0]["code"], "commit-hangs");
    assert_eq!(server.get("/health/ready").status, 503);
    assert_eq!(server.get("/health/live").status, 200);
    assert!(!act.is_finished(), "an act is answered when it is durable");
    go.send(()).unwrap();
    client.expect_receipt("r");
    assert_eq!(act.join().unwrap().json::<api::Acted>().count, 1);
    server.await_answer("/health/ready", |answer| answer["ok"] == true);
}

#[test]
fn while_it_stops_it_is_alive_and_not_ready() {
    let (go, wait) = sync_channel(1);
    let store = Arc::new(Held::new(None, Some(wait)));
    let mut server = Server::with(move |_| Arc::<Held>::clone(&store), |_| {});
    let mut client = server.client();
    // The stop waits for the receipt, which waits for the flush.
    client.publish("q", "stuck", "r");
    server.await_answer("/v1/queues", |answer| answer["queues"][0]["depth"] == 1);
    let stopped = server.begin_stop();
    let answer = server.await_answer("/health/ready", |answer| answer["ok"] == false);
    assert_eq!(answer["reasons"][0]["code"], "stopping");
    assert_eq!(server.get("/health/ready").status, 503);
    assert_eq!(server.get("/health/live").status, 200);
    go.send(()).unwrap();
    client.expect_receipt("r");
    server.wait(stopped);
}

#[test]
fn spans_are_never_cut_and_hardly_longer() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    client.subscribe("q", "client-individual", "ack-timeout:0.3\nprefetch-count:1\n");
    let sent = Instant::now();
    client.send("SEND\ndestination:/queue/q\n\nleased\0");
    let first = client.expect_message("leased");
    let again = client.expect_message("leased");
    let lapsed = sent.elapsed().as_secs_f64();
    // What is late by more than the load of the machine explains shows a timer that nobody wakes.
    assert!((0.3..5.0).contains(&lapsed), "{lapsed}");
    assert_eq!(
        (first.header("redelivered"), again.header("redelivered")),
        ("false", "true")
    );
    let text = server.get("/metrics").text().to_owned();
    assert_eq!(
        series(&text, "steadfast_leases_lapsed_total"),
        Some(1.0),
        "{text}"
    );
    let asked = Instant::now();
    client.send(format!("NACK\nid:{}\ndelay:300\n\n\0", again.header("ack")));
    client.expect_message("leased");
    let rested = asked.elapsed().as_secs_f64();
    assert!((0.3..5.0).contains(&rested), "{rested}");
}

#[test]
fn a_temporary_queue_is_shown_as_others_name_it() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    client.send("SUBSCRIBE\nid:0\ndestination:/temp-queue/answers\nreceipt:s\n\n\0");
    client.expect_receipt("s");
    let queues: Value = server.get("/v1/queues").json();
    let name = queues["queues"][0]["name"].as_str().unwrap();
    let (session, rest) = name.strip_prefix("TEMP.").unwrap().split_once('/').unwrap();
    assert_eq!(rest, "answers");
    let destination = &server.queue(name).subscriptions[0].destination;
    assert_eq!(*destination, format!("/reply-queue/{session}/answers"));
}
