//! What is fuzzed: each target takes any bytes and panics where the broker does, or does something wrong. The fuzzer runs
//! them by the thousand (`scripts/fuzz`); `tests/fuzz.rs` replays their corpora.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use steadfast::base::{Dialect, Epoch, Limits, MessageId, Now, Seq, SessionNo, SubNo, Tag};
use steadfast::client;
use steadfast::config::{Config, ConfigError, Overrides, keys};
use steadfast::journal::{DecodeError, decode_facts, encode_facts};
use steadfast::port::{AckMode, Applied, Binding, Body, Credit, Delivery, Payload, Request, Requests, Send};
use steadfast::selector::{Selector, SelectorError, SelectorLimits};
use steadfast::session::{CODES, REFUSALS, Session, SessionConfig};
use steadfast::store::frame::{self, Frame, FrameError, Kind};
use steadfast::wire::{Decoded, Decoder, Escapes, FrameLimits, Grammar, Version, escape, store, unescape};

use crate::world::{Ask, Deed, Op, Pick, Style, Which, World};

const NOW: Now = Now {
    wall_ms: 1_700_000_000_000,
    mono_ms: 1_000,
};

/// Takes choices from bytes; what is missing is 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

// ---- decoder ----

/// Both decoders, ours and the client's: how the bytes are cut never changes what comes out, no more is held than the
/// limits allow, and what is stored of a header means what was sent.
pub fn decoder(data: &[u8]) {
    let mut input = Input(data);
    let grammar = input.of(&[
        Grammar::CONNECT,
        Version::V10.grammar(),
        Version::V11.grammar(),
        Version::V12.grammar(),
    ]);
    let limits = input.of(&[
        FrameLimits {
            header_line_bytes_max: 1_000,
            header_block_bytes_max: 2_000,
            header_count_max: 100,
            body_bytes_max: 2_000,
        },
        FrameLimits {
            header_line_bytes_max: 10,
            header_block_bytes_max: 24,
            header_count_max: 3,
            body_bytes_max: 5,
        },
    ]);
    let piece = 1 + usize::from(input.byte());
    let bytes = input.rest();
    let whole = decoded(limits, grammar, bytes, bytes.len().max(1));
    assert_eq!(whole, decoded(limits, grammar, bytes, piece));
    assert_eq!(received(bytes, bytes.len().max(1)), received(bytes, piece));
}

/// What our decoder makes of bytes that come in pieces.
fn decoded(limits: FrameLimits, grammar: Grammar, bytes: &[u8], piece: usize) -> Vec<String> {
    let held_max = limits.header_block_bytes_max + "\r\n".len() + limits.body_bytes_max + "\0".len();
    let mut decoder = Decoder::new(limits, grammar);
    let (mut start, mut end) = (0, 0);
    let mut told = Vec::new();
    loop {
        match decoder.decode(&bytes[start..end]) {
            Ok(Decoded::Frame(frame, len)) => {
                let mut line = format!("{:?} {:?}", frame.command.escape_ascii().to_string(), frame.body);
                for header in frame.headers() {
                    match header {
                        Ok(header) => {
                            assert!(!header.name.is_empty());
                            keeps_its_meaning(grammar.escapes, header.value);
                            let _ = write!(line, " {:?}:{:?}", header.name, header.value);
                        }
                        Err(error) => {
                            let _ = write!(line, " {}", error.code());
                            break;
                        }
                    }
                }
                told.push(line);
                start += len;
            }
            Ok(Decoded::Incomplete(len)) => {
                start += len;
                assert!(end - start <= held_max, "more is held than the limits allow");
                if end == bytes.len() {
                    return told;
                }
                end = bytes.len().min(end + piece);
            }
            Err(error) => {
                told.push(error.code().to_owned());
                return told;
            }
        }
    }
}

/// A value in its stored form, and one that we write, stand for what was sent.
fn keeps_its_meaning(escapes: Escapes, raw: &[u8]) {
    let Ok(text) = unescape(escapes, raw) else {
        return;
    };
    let mut stored = Vec::new();
    store(escapes, raw, &mut stored);
    assert!(!stored.contains(&b'\n'), "a value stays on its line");
    assert_eq!(unescape(Escapes::Four, &stored).as_deref(), Ok(&*text));
    let mut written = Vec::new();
    escape(Escapes::Four, steadfast::wire::Part::Value, &text, &mut written);
    assert_eq!(unescape(Escapes::Four, &written).as_deref(), Ok(&*text));
}

/// What the client's decoder makes of bytes that come in pieces.
fn received(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut decoder = client::Decoder::with_space(piece);
    let mut told = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    let headers: Vec<_> = frame.headers().collect();
                    told.push(format!("{:?} {headers:?} {:?}", frame.command, frame.body));
                }
                Ok(None) => break,
                Err(error) => {
                    told.push(error.to_string());
                    return told;
                }
            }
        }
    }
    told
}

// ---- session ----

/// A session in each version, in front of a core that does whatever it is asked: how the bytes are cut never changes
/// what it asks and answers; every answer is a frame; every message it stores is one MESSAGE to a consumer of any
/// version, with the body that was sent.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let login: &[u8] = input.of(&[
        &b""[..],
        b"CONNECT\n\n\0",
        b"CONNECT\naccept-version:1.1\nhost:h\n\n\0",
        b"STOMP\naccept-version:1.2\nhost:h\n\n\0",
    ]);
    let piece = 1 + usize::from(input.byte());
    let bytes = [login, input.rest()].concat();
    let whole = talk(&bytes, bytes.len().max(1));
    assert_eq!(whole, talk(&bytes, piece));
}

fn session_config() -> Arc<SessionConfig> {
    Arc::new(SessionConfig {
        limits: Limits {
            header_line_bytes_max: 512,
            header_block_bytes_max: 1_024,
            header_count_max: 20,
            body_bytes_max: 2_048,
            login_bytes_max: 1_024,
            subscription_count_max: 3,
            transaction_count_max: 2,
            ..Limits::default()
        },
        epoch: Epoch(1),
        store: "c0ffee01".to_owned(),
        heart_beat_ms_min: 100,
        heart_beat_margin_percent: 200,
        dialect: Dialect::default(),
    })
}

/// What a session asks and answers when bytes come in pieces, and how it ends.
fn talk(bytes: &[u8], piece: usize) -> (Vec<String>, Vec<u8>, String) {
    let mut session = Session::new(session_config(), SessionNo(1), NOW);
    let (mut asked, mut out) = (Vec::new(), Vec::new());
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() && session.wants_input() {
        end = bytes.len().min(end + piece);
        loop {
            let done = session.handle_bytes(&bytes[start..end], NOW);
            start += done;
            let requests = session.requests();
            let count = requests.list.len();
            for request in &requests.list {
                asked.push(told(request, requests));
            }
            let applied = Applied {
                done: count,
                gate: Seq(0),
                refusal: None,
                denied: None,
                duplicates: Vec::new(),
            };
            session.handle_applied(applied, NOW);
            if count == 0 && done == 0 || start == end {
                break;
            }
        }
        session.poll_output(Seq(0), &mut out);
    }
    answers_are_frames(&out);
    (asked, out, format!("{:?}", session.end_reason()))
}

/// A request in words that do not depend on where its bytes lie.
fn told(request: &Request, requests: &Requests) -> String {
    match request {
        Request::Send(send) => {
            let bytes = match &send.payload {
                Payload::Arena(span) => requests.bytes(*span),
                Payload::Shared(bytes) => bytes,
            };
            arrives(send, bytes);
            format!(
                "{:?} {bytes:?} {} {} {:?}",
                std::iter::once(&send.to)
                    .chain(&send.also)
                    .map(|to| (to.kind, requests.text(to.name)))
                    .collect::<Vec<_>>(),
                send.header_len,
                send.persistent,
                send.tx
            )
        }
        Request::Subscribe(subscribe) => {
            let name = requests.text(subscribe.name);
            let mut subscribe = subscribe.clone();
            subscribe.name = Default::default();
            let topic = match &mut subscribe.binding {
                Binding::To(topic) => Some(requests.text(std::mem::take(topic))),
                _ => None,
            };
            format!("{subscribe:?} {name:?} {topic:?}")
        }
        Request::Unbind { name } => format!("Unbind {:?}", requests.text(*name)),
        other => format!("{other:?}"),
    }
}

/// A consumer of each version gets one frame, and in it the body.
fn arrives(send: &Send, bytes: &[u8]) {
    let (_, body) = bytes.split_at(send.header_len as usize);
    for version in Version::ALL {
        let mut consumer = Session::new(session_config(), SessionNo(2), NOW);
        let login = format!(
            "CONNECT\naccept-version:{}\nhost:h\n\n\0SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\0",
            version.as_str()
        );
        consumer.handle_bytes(login.as_bytes(), NOW);
        let sub = match consumer.requests().list.as_slice() {
            [Request::Subscribe(subscribe)] => subscribe.sub,
            other => panic!("{other:?}"),
        };
        let applied = Applied {
            done: 1,
            gate: Seq(0),
            refusal: None,
            denied: None,
            duplicates: Vec::new(),
        };
        consumer.handle_applied(applied, NOW);
        consumer.poll_output(Seq(0), &mut Vec::new());
        let mut out = Vec::new();
        consumer.handle_delivery(&delivery(sub, send, bytes), &[bytes], &mut out);
        let mut decoder = client::Decoder::new();
        decoder.push(&out);
        let frame = decoder.next_frame().expect("a MESSAGE is a frame");
        let frame = frame.expect("a MESSAGE is whole");
        assert_eq!((frame.command, frame.body), (&b"MESSAGE"[..], body));
        for name in ["destination", "message-id", "subscription", "content-length"] {
            assert!(frame.header(name).is_some(), "{name} is missing");
        }
        let end = decoder.next_frame().expect("nothing is behind a MESSAGE");
        assert!(end.is_none(), "one message is one frame");
    }
}

fn delivery(sub: SubNo, send: &Send, bytes: &[u8]) -> Delivery {
    Delivery {
        tag: Tag(1),
        sub,
        message: MessageId(1),
        body: Body::Memory(bytes::Bytes::new()),
        header_len: send.header_len,
        len: bytes.len() as u32,
        delivery_count: 1,
        redelivered: false,
        death: None,
        sequence: None,
    }
}

/// Whole frames, of the kinds that a session answers with, and nothing behind an ERROR.
fn answers_are_frames(out: &[u8]) {
    let mut decoder = client::Decoder::new();
    decoder.push(out);
    let mut over = false;
    let mut len = 0;
    while let Some(frame) = decoder.next_frame().expect("what is answered is a frame") {
        assert!(!over, "an ERROR is the last");
        match frame.command {
            b"CONNECTED" | b"RECEIPT" => assert!(frame.body.is_empty()),
            b"ERROR" => {
                over = true;
                let code = frame.text("code").expect("an ERROR has its code");
                let mut codes = CODES.iter().flat_map(|table| table.iter());
                let is_known = codes.any(|entry| entry.code == code)
                    || REFUSALS.iter().any(|refusal| refusal.code() == code);
                assert!(is_known, "{code}");
            }
            other => panic!("{}", other.escape_ascii()),
        }
        len += 1;
    }
    assert_eq!(
        out.iter().filter(|byte| **byte == 0).count(),
        len,
        "every frame is whole, and no answer has a body with a NUL"
    );
}

// ---- broker ----

/// Operations on the broker, each checked against the model of the promise.
pub fn broker(data: &[u8]) {
    let mut input = Input(data);
    let garbage = input.of(&[0_u64, 2_000, 16 << 20]);
    let limits = Limits {
        admin_act_count_max: input.of(&[100_000, 2]),
        deliveries_failed_max: input.of(&[1, 2, 3]),
        commit_bytes_max: input.of(&[600, 20_000, 2 << 20]),
        compaction_garbage_bytes_min: garbage,
        compaction_chunk_count_slack: garbage / 500,
        compaction_waste_bytes_min: garbage * 4,
        prefetch_bytes_max: input.of(&[7_000, 8 << 20]),
        ..Limits::default()
    };
    let styles = [(); 3].map(|()| input.of(&[Style::Tag, Style::Message, Style::MessageAlone]));
    let mut world = World::new(limits, &styles);
    for _ in 0..OP_COUNT_MAX {
        if input.0.is_empty() {
            break;
        }
        world.play(&op(&mut input));
    }
    world.play(&Op::Room(true));
    world.play(&Op::Sync);
    world.play(&Op::Crash(0));
    world.drain();
}

/// So that one run stays short.
const OP_COUNT_MAX: usize = 100;

const QUEUES: [&str; 3] = ["a", "b", "DLQ.a"];

fn op(input: &mut Input<'_>) -> Op {
    let slot = |input: &mut Input<'_>| input.below(3) as u8;
    match input.below(20) {
        0..8 => {
            let slot = slot(input);
            let count = 1 + input.below(4);
            Op::Requests(slot, (0..count).map(|_| ask(input)).collect())
        }
        8 => Op::Append,
        9..11 => Op::Sync,
        11 => Op::Flush(1 + input.below(3)),
        12 => Op::Stall(slot(input), input.flag()),
        13 => Op::Slow(slot(input), input.flag()),
        14 => Op::Close(slot(input)),
        15 => Op::Tick,
        16 => Op::Relocate,
        17 => match input.below(6) {
            0 => Op::Restart,
            1 => Op::Room(input.flag()),
            _ => Op::Crash(input.below(4)),
        },
        _ => Op::Act(deed(input)),
    }
}

fn ask(input: &mut Input<'_>) -> Ask {
    let destination =
        |input: &mut Input<'_>| input.of(&["/queue/a", "/queue/a", "/queue/b", "/queue/DLQ.a", "/topic/t"]);
    match input.below(16) {
        0..6 => Ask::Send {
            destination: destination(input),
            size: match input.below(8) {
                0..3 => 0,
                3..6 => usize::from(input.byte()),
                6 => 2_000 + 30 * usize::from(input.byte()),
                _ => input.of(&[16_000, 16_320, 17_000, 70_000]),
            },
            persistent: input.below(4) > 0,
            tx: transaction(input),
            shared: input.flag(),
        },
        6..8 => Ask::Subscribe {
            destination: destination(input),
            ack_mode: input.of(&[AckMode::Auto, AckMode::Client, AckMode::ClientIndividual]),
            credit: input.of(&[
                Credit::count(1),
                Credit::count(2),
                Credit::count(1_000),
                Credit::Pull,
                Credit::Window {
                    count: 1,
                    bytes: 3_000,
                },
            ]),
        },
        8..12 => Ask::Settle {
            delivery: pick(input),
            accepted: input.below(3) > 0,
            tx: transaction(input),
        },
        12 if input.below(2) == 0 => Ask::More(pick(input), 1 + u32::from(input.byte()) / 64),
        12 => Ask::Begin,
        13 => Ask::Commit(pick(input)),
        14 => Ask::Abort(pick(input)),
        _ => match input.below(8) {
            0 => Ask::Disconnect,
            _ => Ask::Unsubscribe(pick(input)),
        },
    }
}

fn transaction(input: &mut Input<'_>) -> Option<Pick> {
    (input.below(3) == 0).then(|| pick(input))
}

fn pick(input: &mut Input<'_>) -> Pick {
    match input.byte() {
        byte @ 0..240 => Pick::Right(byte % 8),
        byte @ 240..252 => Pick::Any(byte - 240),
        _ => Pick::Wrong,
    }
}

fn deed(input: &mut Input<'_>) -> Deed {
    let queue = |input: &mut Input<'_>| input.of(&QUEUES);
    let which = |input: &mut Input<'_>| match input.below(3) {
        0 => Which::All,
        1 => Which::From(input.byte()),
        _ => Which::Some(input.byte()),
    };
    match input.below(8) {
        0 => Deed::Purge(queue(input), which(input)),
        1 => Deed::Move(queue(input), queue(input), which(input)),
        2 => Deed::Copy(queue(input), queue(input), which(input)),
        3 => Deed::Requeue(queue(input), which(input)),
        4 => Deed::Delete(queue(input), input.flag()),
        5 => Deed::Disconnect(input.below(3) as u8),
        6 => Deed::Pause(queue(input)),
        _ => Deed::Resume(queue(input)),
    }
}

// ---- journal ----

/// The bytes of a store: facts that can be read are written back the same; a frame is read whole or not at all,
/// whatever its payload, and no flipped bit passes.
pub fn journal(data: &[u8]) {
    match decode_facts(data) {
        Ok(facts) => {
            let again = decode_facts(&encode_facts(&facts)).expect("what we write can be read");
            assert_eq!(again, facts);
        }
        Err(DecodeError::UnknownKind { .. } | DecodeError::Malformed { .. }) => {}
    }
    let kinds = [Kind::Index, Kind::Body, Kind::Meta, Kind::Durable];
    for kind in kinds {
        if let Ok(frame) = frame::open(data, kind) {
            assert!(data.ends_with(frame.payload));
        }
    }
    let mut input = Input(data);
    let kind = input.of(&kinds);
    let part = u16::from(input.byte());
    let number = u64::from(input.byte());
    let bit = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let payload = input.rest();
    let mut sealed = Vec::new();
    frame::seal(&mut sealed, kind, part, number, payload);
    let opened = Frame {
        kind: kind as u8,
        part,
        number,
        payload,
    };
    assert_eq!(frame::open(&sealed, kind), Ok(opened));
    let bit = bit % (sealed.len() * 8);
    sealed[bit / 8] ^= 1 << (bit % 8);
    assert!(matches!(frame::open(&sealed, kind), Err(FrameError::Broken(_))));
}

// ---- config ----

/// A configuration file, and variables: taken, or refused by one line; and a refusal never depends on the path.
pub fn config(data: &[u8]) {
    let mut input = Input(data);
    let all: Vec<_> = keys().collect();
    let count = input.below(3);
    let mut variables = Vec::new();
    for _ in 0..count {
        let key = all[input.below(all.len())];
        let len = usize::from(input.byte()).min(input.0.len());
        let (value, rest) = input.0.split_at(len);
        input.0 = rest;
        let value = String::from_utf8_lossy(value).into_owned();
        variables.push((key.variable().into(), value.into()));
    }
    let path = config_path();
    std::fs::write(&path, input.rest()).expect("the folder of temporary files can be written");
    let overrides = Overrides {
        file: Some(path.clone()),
        ..Overrides::default()
    };
    match Config::load(overrides, variables) {
        Ok(config) => {
            let limits = &config.limits;
            assert!(limits.header_line_bytes_max <= limits.header_block_bytes_max);
            assert!(limits.prefetch_count <= limits.prefetch_count_max);
            assert!(limits.body_bytes_max <= limits.receiving_bytes_max);
            assert!(!config.server.listen.is_empty());
        }
        Err(mistakes) => {
            let told = mistakes.to_string();
            assert_eq!(told.lines().count(), mistakes.iter().count(), "{told:?}");
            for line in mistakes.iter().map(ConfigError::line) {
                assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            }
        }
    }
    std::fs::remove_file(&path).expect("it was just written");
}

/// A file of this process.
fn config_path() -> PathBuf {
    std::env::temp_dir().join(format!("steadfast-fuzz-{}.toml", std::process::id()))
}

// ---- selector ----

/// Any text is a selector, or has an error at a place within it. A selector is printed as it is read, and is never true together
/// with its opposite. The values of its headers stand behind it, each after a NUL; `-` is a missing one.
pub fn selector(data: &[u8]) {
    let limits = SelectorLimits {
        selector_bytes_max: 4_096,
        selector_depth_max: 24,
    };
    // What is printed may be longer and deeper.
    let lax = SelectorLimits {
        selector_bytes_max: usize::MAX,
        selector_depth_max: 1_000,
    };
    let data = String::from_utf8_lossy(data);
    let mut parts = data.split('\0');
    let text = parts.next().unwrap_or_default();
    let values: Vec<Option<&str>> = parts.map(|value| (value != "-").then_some(value)).collect();
    let selector = match Selector::parse(text, limits) {
        Ok(selector) => selector,
        Err(SelectorError::TooLong { bytes_max }) => {
            assert!(text.len() > bytes_max);
            return;
        }
        Err(SelectorError::TooDeep { at, .. } | SelectorError::Syntax { at, .. }) => {
            assert!((1..=text.chars().count() + 1).contains(&at));
            return;
        }
    };
    let printed = selector.to_string();
    let again = Selector::parse(&printed, lax).expect("what is printed is a selector");
    assert_eq!(again, selector);
    assert_eq!(again.names(), selector.names());
    let opposite = Selector::parse(&format!("NOT ({printed})"), lax).expect("and has an opposite");
    let value = |index: usize| values.get(index).copied().flatten();
    let selected = selector.matches_at(value);
    assert_eq!(again.matches_at(value), selected);
    assert!(!(selected && opposite.matches_at(value)));
}
