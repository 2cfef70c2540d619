//! What is shown of a store in memory, whole and damaged.

use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::{Assert, IntoData, str};

use bytes::Bytes;

use super::*;
use crate::base::{ChunkRef, DestinationKind, Limits, Seq, SessionNo, SubNo};
use crate::journal::{Batch, IndexChunk, IndexSize};
use crate::port::{AckMode, Binding, Credit, Payload, Request, Requests, Send, Subscribe, Target, Terms};
use crate::store::{MemoryStore, StoreStats};

/// A store whose body chunks read as the test says.
struct Damaged<F>(MemoryStore, F);

impl<F: Fn(Bytes) -> Result<Bytes, StoreError> + std::marker::Send + Sync> Store for Damaged<F> {
    fn recover(&self, visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        self.0.recover(visit)
    }

    fn index(&self, from: Seq, to: Seq, bytes_min: usize) -> Result<Vec<IndexChunk>, StoreError> {
        self.0.index(from, to, bytes_min)
    }

    fn append(&self, batch: &Batch) -> Result<IndexSize, StoreError> {
        self.0.append(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        (self.1)(self.0.body(place)?)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn stats(&self) -> StoreStats {
        self.0.stats()
    }
}

/// A store in which these messages (queue, further headers, body) were confirmed.
fn stored(messages: &[(&str, &str, &[u8])]) -> MemoryStore {
    let store = MemoryStore::new([0xab; 16]);
    let mut broker = recovered(&store, false).broker;
    broker.handle_open(SessionNo(1));
    for (queue, headers, body) in messages {
        let mut requests = Requests::default();
        let block = format!(
            "destination:/queue/{queue}\n{headers}content-length:{}\n",
            body.len()
        );
        let name = requests.push_bytes(queue.as_bytes());
        let message = [block.as_bytes(), body].concat();
        let payload = Payload::Arena(requests.push_bytes(&message));
        requests.list.push(Request::Send(Send {
            to: Target {
                kind: DestinationKind::Queue,
                name,
            },
            also: Vec::new(),
            payload,
            header_len: u32::try_from(block.len()).unwrap(),
            persistent: true,
            terms: Terms::default(),
            dedup: None,
            tx: None,
        }));
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 0,
        };
        assert_eq!(broker.handle_requests(SessionNo(1), &requests, now).refusal, None);
        commit(&mut broker, &store);
    }
    store
}

fn commit(broker: &mut Broker, store: &MemoryStore) {
    while let Some(batch) = broker.poll_batch() {
        let size = store.append(&batch).unwrap();
        store.flush().unwrap();
        broker.handle_durable(batch.seq, &[size], Now::default());
    }
}

fn recovered(store: &dyn Store, json: bool) -> View<'_> {
    let mut recovery = Recovery::new(Limits::default());
    let recovered = store.recover(&mut |chunk| recovery.visit(chunk)).unwrap();
    View {
        chunk: Box::new(|place| store.body(place)),
        file_bytes: store.stats().file_bytes,
        broker: recovery.finish(&recovered, Now::default()),
        recovered,
        damage: None,
        json,
    }
}

/// Backslashes are what is tested here: none is taken for a slash.
fn same(said: String, expect: impl IntoData) {
    Assert::new()
        .action_env(DEFAULT_ACTION_ENV)
        .normalize_paths(false)
        .eq(said, expect);
}

fn said(tell: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    tell(&mut out);
    String::from_utf8(out).unwrap()
}

const MESSAGES: [(&str, &str, &[u8]); 3] = [
    ("orders", "kind:a\\cb\n", b"first\nsecond\x07"),
    ("a\u{1b}[2J", "", b"x"),
    ("orders", "", &[0xff, 0x00]),
];

#[test]
fn queues_are_a_table() {
    let store = stored(&MESSAGES);
    let text = said(|out| recovered(&store, false).queues(out).unwrap());
    same(
        text,
        str![[r#"
store abababababababababababababababab, epoch 1 (not stopped cleanly), 277 bytes on disk, 3 body slots
QUEUE       DEPTH  BYTES                    OLDEST
a\u{1b}[2J      1     43  2023-11-14T22:13:20.000Z
orders          2    112  2023-11-14T22:13:20.000Z

"#]],
    );
    let text = said(|out| recovered(&store, true).queues(out).unwrap());
    same(
        text,
        str![[r#"
{"kind":"store","uuid":"abababababababababababababababab","epoch":1,"last_seq":3,"clean":false,"file_bytes":277,"slot_count":3}
{"kind":"queue","name":"a\u001b[2J","depth":1,"bytes":43,"oldest_at":"2023-11-14T22:13:20.000Z"}
{"kind":"queue","name":"orders","depth":2,"bytes":112,"oldest_at":"2023-11-14T22:13:20.000Z"}

"#]],
    );
}

#[test]
fn an_empty_store_says_so() {
    let store = stored(&[]);
    let text = said(|out| recovered(&store, false).queues(out).unwrap());
    assert!(text.ends_with("\nno queue holds a message\n"), "{text}");
}

#[test]
fn messages_are_shown_with_their_headers() {
    let store = stored(&MESSAGES);
    let tell = |json, queue: &str, from, count_max, bodies| {
        let view = recovered(&store, json);
        said(|out| view.messages(out, queue, from, count_max, bodies).unwrap())
    };
    same(
        tell(false, "orders", 0, 10, true),
        str![[r#"
1099511627776 message-id:abababab-1-1 accepted 2023-11-14T22:13:20.000Z, 67 bytes (body 13), deliveries 0, failures 0
    destination:/queue/orders
    kind:a\cb
    content-length:13
    | first
    | second\u{7}
1099511627777 message-id:abababab-1-5 accepted 2023-11-14T22:13:20.000Z, 45 bytes (body 2), deliveries 0, failures 0
    destination:/queue/orders
    content-length:2
    hexadecimal ff00

"#]],
    );
    same(
        tell(true, "orders", 0, 10, true),
        str![[r#"
{"kind":"message","queue":"orders","sequence":1099511627776,"message_id":"abababab-1-1","accepted_at":"2023-11-14T22:13:20.000Z","bytes":67,"body_bytes":13,"deliveries":0,"failures":0,"headers":[["destination","/queue/orders"],["kind","a:b"],["content-length","13"]],"body":"first\nsecond\u0007"}
{"kind":"message","queue":"orders","sequence":1099511627777,"message_id":"abababab-1-5","accepted_at":"2023-11-14T22:13:20.000Z","bytes":45,"body_bytes":2,"deliveries":0,"failures":0,"headers":[["destination","/queue/orders"],["content-length","2"]],"body_hex":"ff00"}

"#]],
    );
    same(
        tell(false, "orders", 0, 1, false),
        str![[r#"
1099511627776 message-id:abababab-1-1 accepted 2023-11-14T22:13:20.000Z, 67 bytes (body 13), deliveries 0, failures 0
    destination:/queue/orders
    kind:a\cb
    content-length:13
more: --from 1099511627777

"#]],
    );
    same(
        tell(true, "orders", 0, 1, false),
        str![[r#"
{"kind":"message","queue":"orders","sequence":1099511627776,"message_id":"abababab-1-1","accepted_at":"2023-11-14T22:13:20.000Z","bytes":67,"body_bytes":13,"deliveries":0,"failures":0,"headers":[["destination","/queue/orders"],["kind","a:b"],["content-length","13"]]}

"#]],
    );
    same(
        tell(false, "orders", u64::MAX, 1, false),
        str![[r#"
queue orders holds no message from 18446744073709551615 on

"#]],
    );
    same(
        tell(false, "nothing\n", 0, 1, false),
        str![[r#"
queue nothing\n holds no message from 0 on

"#]],
    );
}

#[test]
fn a_whole_store_passes_the_check() {
    let large = vec![b'x'; 100_000];
    let store = stored(&[MESSAGES[0], MESSAGES[1], ("large", "", &large)]);
    let text = said(|out| assert_eq!(recovered(&store, false).check(out, |_| ()).unwrap(), 0));
    same(
        text,
        str![[r#"
checked 3 messages with 100157 bytes in 3 queues: no fault

"#]],
    );
    let text = said(|out| assert_eq!(recovered(&store, true).check(out, |_| ()).unwrap(), 0));
    same(
        text,
        str![[r#"
{"kind":"check","queues":3,"messages":3,"bytes":100157,"faults":0,"repair_saves":0}

"#]],
    );
}

#[test]
fn looking_appends_nothing() {
    let store = stored(&MESSAGES);
    let before = store.recover(&mut |_| ()).unwrap();
    let view = recovered(&store, false);
    assert_eq!(view.check(&mut io::sink(), |_| ()).unwrap(), 0);
    assert_eq!(store.recover(&mut |_| ()).unwrap(), before);
}

fn check_damage(
    damage: impl Fn(Bytes) -> Result<Bytes, StoreError> + std::marker::Send + Sync,
    expect: &str,
) {
    let store = Damaged(stored(&MESSAGES[1..2]), damage);
    let text = said(|out| assert_eq!(recovered(&store, false).check(out, |_| ()).unwrap(), 1));
    let fault = text.lines().next().unwrap_or_default();
    assert_eq!(
        fault
            .split_once(": ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .map(|(_, what)| what),
        Some(expect)
    );
    let text = said(|out| assert_eq!(recovered(&store, true).check(out, |_| ()).unwrap(), 1));
    assert!(text.starts_with(r#"{"kind":"fault""#), "{text}");
}

#[test]
fn damage_is_named() {
    let what = || StoreError::Damaged {
        what: "slot 0".to_owned(),
    };
    check_damage(|_| Err(what()), "the store is damaged: slot 0");
    check_damage(
        |bytes| Ok(bytes.slice(..bytes.len() - 1)),
        "its chunks hold 42 bytes from its place on, and it has 43",
    );
    let replaced = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |bytes: Bytes| {
            Ok(String::from_utf8_lossy(&bytes)
                .replace(&from, &to)
                .into_bytes()
                .into())
        }
    };
    check_damage(
        replaced("content-length:1", "content-length:2"),
        "its content-length is 2, and its body has 1 bytes",
    );
    check_damage(
        replaced("content-length", "content-langth"),
        "its content-length is missing, and its body has 1 bytes",
    );
    check_damage(
        replaced("destination", "destinatiom"),
        "its header block has no destination",
    );
    check_damage(
        replaced("content-length:", "content-length="),
        "no header: content-length=1\\n",
    );
}

/// A durable subscription is told as what it is.
#[test]
fn a_queue_says_which_topic_it_keeps() {
    let store = stored(&[("orders", "", b"x")]);
    let mut broker = recovered(&store, false).broker;
    broker.handle_open(SessionNo(1));
    let mut requests = Requests::default();
    let topic = requests.push_bytes(b"orders.>");
    let name = requests.push_bytes(b"DSUB.audit");
    requests.list.push(Request::Subscribe(Subscribe {
        ack_timeout_ms: None,
        sub: SubNo(1),
        kind: DestinationKind::Queue,
        name,
        binding: Binding::To(topic),
        ack_mode: AckMode::Auto,
        credit: Credit::count(1),
        filter: None,
        binds_durably: false,
        priority: 0,
        exclusive: false,
        no_local: false,
        browse: None,
        by_message: false,
    }));
    broker.handle_requests(SessionNo(1), &requests, Now::default());
    commit(&mut broker, &store);
    let said = |json: bool| {
        let mut out = Vec::new();
        recovered(&store, json).queues(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let table = said(false);
    let row = table.lines().find(|line| line.starts_with("DSUB.audit")).unwrap();
    assert!(row.contains("/topic/orders.>"), "{table}");
    assert!(table.contains("KEEPS"), "{table}");
    assert!(
        said(true).contains(r#""name":"DSUB.audit","depth":0,"bytes":0,"oldest_at":null,"topic":"orders.>""#)
    );
}
