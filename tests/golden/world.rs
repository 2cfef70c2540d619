//! A world for one scenario: sessions, one broker, one disk, one clock that moves when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast::base::{
    Actions, Destinations, Dialect, Limits, Now, Principal, Rule, Rules, SessionNo, SettingKey, Settings, Who,
};
use steadfast::broker::{Broker, Look};
use steadfast::port::{Act, Event};
use steadfast::session::{Denied, Judged, Phase, Session, SessionConfig};

use crate::script::{Expected, Pattern};
use crate::support::Disk;

/// The headers that the broker adds of its own, frame by frame; no other may appear unasked.
const ALLOWED: [(&str, &[&str]); 4] = [
    ("CONNECTED", &["version", "session", "server", "heart-beat"]),
    (
        "MESSAGE",
        &[
            "message-id",
            "ack",
            "redelivered",
            "delivery-count",
            "dead-letter-origin",
            "dead-letter-reason",
            "dead-letter-failures",
            "dead-letter-time",
            "dead-letter-text",
            "content-length",
        ],
    ),
    (
        "ERROR",
        &[
            "message",
            "code",
            "version",
            "action",
            "destination",
            "content-type",
            "content-length",
        ],
    ),
    ("RECEIPT", &[]),
];

const TICK_MS: u64 = 1_000;
/// How many events a connection driver takes at once; small, so that the loop around it is used.
const EVENTS_AT_ONCE: usize = 7;

/// See the module's text.
pub(crate) struct World {
    pub(crate) limits: Limits,
    /// That of the listener by which connections come in.
    pub(crate) dialect: Dialect,
    /// Who may do what.
    rules: Rules,
    /// For whom clients will act that are not connected.
    users: BTreeMap<u8, Arc<Principal>>,
    /// Logins of connections that come in are judged.
    pub(crate) judged: bool,
    config: Option<Arc<SessionConfig>>,
    broker: Option<Broker>,
    disk: Disk,
    pub(crate) now: Now,
    pub(crate) clients: BTreeMap<u8, Client>,
    next_session: u64,
    next_tick_ms: u64,
    held: bool,
    pub(crate) vars: BTreeMap<String, Vec<u8>>,
}

/// One connection: its session and the bytes on both sides of it.
pub(crate) struct Client {
    pub(crate) session: Session,
    no: SessionNo,
    input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    version: Option<String>,
    stalled: bool,
    gone: bool,
    released: bool,
    /// Its end was expected by the transcript.
    pub(crate) end_seen: bool,
    failed: bool,
}

/// A frame as it stands on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) command: Vec<u8>,
    pub(crate) headers: Vec<Vec<u8>>,
    pub(crate) body: Vec<u8>,
    counted: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            limits: Limits::default(),
            dialect: Dialect::default(),
            rules: Rules::default(),
            users: BTreeMap::new(),
            judged: false,
            config: None,
            broker: None,
            disk: Disk::default(),
            now: Now {
                wall_ms: 1_700_000_000_000,
                mono_ms: 5_000,
            },
            clients: BTreeMap::new(),
            next_session: 1,
            next_tick_ms: 6_000,
            held: false,
            vars: BTreeMap::new(),
        }
    }

    fn start(&mut self) {
        let mut broker = self.disk.recover(&self.limits, self.now);
        broker.handle_rules(Arc::new(self.rules.clone()), self.now);
        self.broker = Some(broker);
        self.commit();
        self.config = Some(Arc::new(SessionConfig {
            limits: self.limits.clone(),
            epoch: self.disk.epoch(),
            store: "c0ffee01".to_owned(),
            heart_beat_ms_min: 1_000,
            heart_beat_margin_percent: 200,
            dialect: self.dialect,
        }));
    }

    pub(crate) fn broker(&mut self) -> &mut Broker {
        if self.broker.is_none() {
            self.start();
        }
        self.broker.as_mut().expect("it was just started")
    }

    /// A client connects its socket.
    pub(crate) fn open(&mut self, client: u8) {
        let no = SessionNo(self.next_session);
        self.next_session += 1;
        self.broker().handle_open(no);
        let config = SessionConfig {
            dialect: self.dialect,
            ..SessionConfig::clone(self.config.as_ref().expect("the broker runs"))
        };
        let mut session = Session::new(Arc::new(config), no, self.now);
        if let Some(user) = self.users.get(&client) {
            session = session.acting_for(Arc::clone(user));
        }
        let session = if self.judged { session.judged() } else { session };
        self.clients.insert(
            client,
            Client {
                session,
                no,
                input: Vec::new(),
                output: Vec::new(),
                version: None,
                stalled: false,
                gone: false,
                released: false,
                end_seen: false,
                failed: false,
            },
        );
    }

    pub(crate) fn client(&mut self, client: u8) -> &mut Client {
        let known = self
            .clients
            .get(&client)
            .is_some_and(|client| !client.gone && !client.end_seen);
        if !known {
            self.open(client);
        }
        self.clients.get_mut(&client).expect("it was just opened")
    }

    /// The client writes; each piece is one socket read.
    pub(crate) fn send(&mut self, client: u8, bytes: &[u8], piece: usize) {
        self.client(client);
        for read in bytes.chunks(piece.max(1)) {
            self.client(client).input.extend_from_slice(read);
            self.feed(client);
        }
        self.settle();
    }

    fn feed(&mut self, client: u8) -> bool {
        let mut progress = false;
        let (Some(client), Some(broker)) = (self.clients.get_mut(&client), self.broker.as_mut()) else {
            return false;
        };
        while !client.gone && !client.input.is_empty() && client.session.wants_input() {
            let done = client.session.handle_bytes(&client.input, self.now);
            client.input.drain(..done);
            let asked = client.session.requests().list.len();
            if asked > 0 {
                let applied = broker.handle_requests(client.no, client.session.requests(), self.now);
                assert!(applied.done <= asked, "no more is done than was asked");
                assert_eq!(
                    applied.refusal.is_none(),
                    applied.done == asked,
                    "all is done, or one request is refused"
                );
                client.session.handle_applied(applied, self.now);
            }
            progress |= done > 0 || asked > 0;
            if done == 0 && asked == 0 {
                break;
            }
        }
        progress
    }

    fn commit(&mut self) -> bool {
        let Some(broker) = self.broker.as_mut() else {
            return false;
        };
        let mut progress = false;
        while let Some(batch) = broker.poll_batch() {
            self.disk.append(batch);
            progress = true;
        }
        if !self.held && self.disk.pending_count() > 0 {
            let sizes = self.disk.flush(usize::MAX);
            broker.handle_durable(self.disk.durable_seq(), &sizes, self.now);
            progress = true;
        }
        let looks = broker.poll_looks(self.now);
        if !looks.is_empty() {
            let block = |look: &Look| self.disk.resolve(&look.body, look.header_len).concat();
            let looked = looks
                .into_iter()
                .map(|look| (look.clone(), Some(block(&look).into())));
            broker.handle_looked(&looked.collect::<Vec<_>>(), self.now);
            progress = true;
        }
        progress
    }

    fn pump(&mut self, client: u8) -> bool {
        let (Some(client), Some(broker)) = (self.clients.get_mut(&client), self.broker.as_mut()) else {
            return false;
        };
        if client.gone || client.stalled {
            return false;
        }
        if client.session.phase() != Phase::Open && !client.released {
            client.released = true;
            broker.handle_close(client.no, self.now);
        }
        let mut out = Vec::new();
        client.session.poll_output(self.disk.durable_seq(), &mut out);
        let mut events = Vec::new();
        if !client.released {
            broker.poll_events(client.no, EVENTS_AT_ONCE, &mut events);
        }
        let progress = !events.is_empty();
        let mut written = None;
        for event in events {
            match event {
                Event::Delivery(delivery) => {
                    let pieces = self.disk.resolve(&delivery.body, delivery.len);
                    let pieces: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
                    client.session.handle_delivery(&delivery, &pieces, &mut out);
                    written = Some(delivery.tag);
                }
                Event::Evicted(refusal) => client.session.handle_evicted(refusal, self.now),
            }
        }
        if !out.is_empty() {
            client.session.handle_wrote(self.now);
        }
        if let Some(tag) = written {
            broker.handle_written(client.no, tag, self.now);
        }
        client.output.extend_from_slice(&out);
        progress || !out.is_empty()
    }

    /// Lets everything happen that can happen without time or bytes.
    pub(crate) fn settle(&mut self) {
        let clients: Vec<u8> = self.clients.keys().copied().collect();
        for _ in 0..100_000 {
            let mut progress = self.commit();
            for client in &clients {
                progress |= self.feed(*client);
                progress |= self.pump(*client);
            }
            if !progress {
                return;
            }
        }
        panic!("the machines never come to rest");
    }

    /// Time passes, stopping at every deadline on the way.
    pub(crate) fn advance(&mut self, ms: u64) {
        let target = self.now.mono_ms + ms;
        loop {
            let deadline = self
                .clients
                .values()
                .filter(|client| !client.gone && client.session.phase() != Phase::Ended)
                .filter_map(|client| client.session.poll_timeout())
                .min();
            let now = self.now;
            let due = self.broker().next_due();
            let due_in = due
                .wall_ms
                .saturating_sub(now.wall_ms)
                .min(due.mono_ms.saturating_sub(now.mono_ms));
            let due_at = now.mono_ms.saturating_add(due_in);
            let next = deadline
                .map_or(self.next_tick_ms, |at| at.min(self.next_tick_ms))
                .min(due_at);
            if next > target {
                break;
            }
            self.move_to(next);
            for client in self.clients.values_mut() {
                if client.gone || client.session.phase() == Phase::Ended {
                    continue;
                }
                if client.session.poll_timeout().is_some_and(|at| at <= next) {
                    let mut out = Vec::new();
                    client.session.handle_timeout(self.now, &mut out);
                    if !out.is_empty() {
                        client.session.handle_wrote(self.now);
                        client.output.extend_from_slice(&out);
                    }
                    assert!(
                        client.session.phase() != Phase::Open
                            || client.session.poll_timeout().is_none_or(|at| at > next),
                        "a deadline that was handled is over"
                    );
                }
            }
            if next == due_at {
                let now = self.now;
                self.broker().handle_due(now);
            }
            if next == self.next_tick_ms {
                self.next_tick_ms += TICK_MS;
                let now = self.now;
                self.broker().handle_tick(now);
            }
            self.settle();
        }
        self.move_to(target);
    }

    fn move_to(&mut self, mono_ms: u64) {
        let step = mono_ms.saturating_sub(self.now.mono_ms);
        self.now.mono_ms += step;
        self.now.wall_ms += step;
    }

    /// A login waits to be judged: `NAME:PASSCODE`, with `-` for what is not said.
    pub(crate) fn login(&mut self, client: u8, expected: &str) -> Result<(), String> {
        let login = self.client(client).session.poll_login();
        let login = login.ok_or("no login waits to be judged")?;
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let passcode = login.passcode.as_ref().map(|passcode| passcode.reveal());
        let said = format!("{}:{}", text(login.name.as_deref()), text(passcode));
        match said == expected {
            true => Ok(()),
            false => Err(format!("the login is {said}, expected {expected}")),
        }
    }

    pub(crate) fn accept(&mut self, client: u8, name: &str, for_ms: Option<u64>) {
        let judged = Judged {
            principal: Arc::new(Principal {
                name: Some(name.into()),
                groups: Box::default(),
            }),
            until: for_ms.map(|ms| self.now.mono_ms + ms),
        };
        self.judge(client, Ok(judged));
        let principal = self.client(client).session.principal().name.clone();
        assert_eq!(principal.as_deref(), Some(name));
    }

    pub(crate) fn deny(&mut self, client: u8) {
        self.judge(client, Err(Denied));
    }

    fn judge(&mut self, client: u8, judgement: Result<Judged, Denied>) {
        let now = self.now;
        self.client(client).session.handle_judged(judgement, now);
        self.feed(client);
        self.settle();
    }

    pub(crate) fn revoke(&mut self, client: u8) {
        self.client(client).session.handle_revoked();
        self.settle();
    }

    /// The client's socket dies.
    pub(crate) fn hang_up(&mut self, client: u8) {
        let now = self.now;
        let gone = self.client(client);
        gone.gone = true;
        gone.released = true;
        let no = gone.no;
        self.broker().handle_close(no, now);
        self.settle();
    }

    pub(crate) fn hold(&mut self, held: bool) {
        self.broker();
        self.held = held;
        self.settle();
    }

    pub(crate) fn stall(&mut self, client: u8, stalled: bool) {
        self.client(client).stalled = stalled;
        self.settle();
    }

    pub(crate) fn room(&mut self, room: bool) {
        self.broker().handle_room(room);
    }

    /// A clean stop and a new start.
    pub(crate) fn restart(&mut self) {
        self.broker().handle_stopping();
        let now = self.now;
        let sessions: Vec<SessionNo> = self.clients.values().map(|client| client.no).collect();
        for session in sessions {
            self.broker().handle_close(session, now);
        }
        self.clients.clear();
        self.held = false;
        self.commit();
        self.broker().handle_stop(now);
        self.commit();
        self.start();
    }

    /// The power goes; a new start.
    pub(crate) fn crash(&mut self) {
        self.broker();
        self.clients.clear();
        self.held = false;
        self.disk.crash(0);
        self.start();
    }

    pub(crate) fn depth(&mut self, queue: &str) -> u64 {
        self.broker()
            .queues()
            .find(|view| view.name.as_ref() == queue)
            .map_or(0, |view| view.depth)
    }

    pub(crate) fn counter(&mut self, name: &str) -> Result<u64, String> {
        let counters = self.broker().counters();
        let list = [
            ("enqueued_count", counters.enqueued_count),
            ("delivered_count", counters.delivered_count),
            ("accepted_count", counters.accepted_count),
            ("failed_count", counters.failed_count),
            ("released_count", counters.released_count),
            ("dead_lettered_count", counters.dead_lettered_count),
            ("topic_in_count", counters.topic_in_count),
            ("topic_out_count", counters.topic_out_count),
            ("topic_dropped_count", counters.topic_dropped_count),
            ("late_reply_count", counters.late_reply_count),
            ("lapsed_count", counters.lapsed_count),
            ("expired_count", counters.expired_count),
            ("occurrence_count", counters.occurrence_count),
            ("duplicate_count", counters.duplicate_count),
            ("committed_count", counters.committed_count),
            ("aborted_count", counters.aborted_count),
            ("refused_count", counters.refused_count),
            ("denied_count", counters.denied_count),
        ];
        list.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("no counter is named {name}"))
    }

    pub(crate) fn limit(&mut self, name: &str, value: u64) -> Result<(), String> {
        if self.broker.is_some() {
            return Err("limits come before the first client".to_owned());
        }
        let count = usize::try_from(value).map_err(|e| e.to_string())?;
        let small = u32::try_from(value).map_err(|e| e.to_string())?;
        let limits = &mut self.limits;
        match name {
            "header_line_bytes_max" => limits.header_line_bytes_max = count,
            "header_block_bytes_max" => limits.header_block_bytes_max = count,
            "header_count_max" => limits.header_count_max = count,
            "body_bytes_max" => limits.body_bytes_max = count,
            "login_ms_max" => limits.login_ms_max = value,
            "login_bytes_max" => limits.login_bytes_max = count,
            "subscription_count_max" => limits.subscription_count_max = count,
            "temporary_queue_count_max" => limits.temporary_queue_count_max = count,
            "durable_subscription_count_max" => limits.durable_subscription_count_max = count,
            "fan_out_count_max" => limits.fan_out_count_max = count,
            "selector_bytes_max" => limits.selector_bytes_max = count,
            "selector_depth_max" => limits.selector_depth_max = count,
            "selector_count_max" => limits.selector_count_max = count,
            "group_id_bytes_max" => limits.group_id_bytes_max = count,
            "group_count_max" => limits.group_count_max = count,
            "schedule_count_max" => limits.schedule_count_max = count,
            "schedule_period_ms_min" => limits.schedule_period_ms_min = value,
            "dedup_id_bytes_max" => limits.dedup_id_bytes_max = count,
            "transaction_count_max" => limits.transaction_count_max = count,
            "staged_frame_count_max" => limits.staged_frame_count_max = count,
            "staged_bytes_max" => limits.staged_bytes_max = count,
            "memory_bytes_max" => limits.memory_bytes_max = count,
            "topic_backlog_count_max" => limits.topic_backlog_count_max = count,
            "topic_backlog_bytes_max" => limits.topic_backlog_bytes_max = count,
            "topic_drop_oldest" => limits.topic_drop_oldest = value == 1,
            "reason_bytes_max" => limits.reason_bytes_max = count,
            "deliveries_failed_max" => limits.deliveries_failed_max = small,
            "prefetch_count" => limits.prefetch_count = small,
            "prefetch_count_max" => limits.prefetch_count_max = small,
            "prefetch_bytes_max" => limits.prefetch_bytes_max = count,
            _ => return Err(format!("no limit is named {name}")),
        }
        Ok(())
    }

    /// The configuration was read again.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules.clone();
        let now = self.now;
        self.broker().handle_rules(Arc::new(rules), now);
        self.settle();
    }

    /// One more rule.
    pub(crate) fn rule(&mut self, allows: bool, actions: &str, who: &str, on: &str) -> Result<(), String> {
        let rule = || {
            let who: Option<_> = who.split(',').map(Who::parse).collect();
            let on: Option<_> = on.split(',').map(Destinations::parse).collect();
            Some(Rule {
                allows,
                actions: Actions::parse(actions.split(','))?,
                principals: who?,
                destinations: on?,
                line: self.rules.len() + 1,
            })
        };
        let mut rules = self.rules.clone();
        rules.push(rule().ok_or("a rule is ACTIONS to PRINCIPALS on DESTINATIONS")?);
        self.set_rules(rules);
        Ok(())
    }

    /// For whom a client will act.
    pub(crate) fn user(&mut self, client: u8, names: &[String]) {
        let mut names = names.iter().map(|name| name.as_str().into());
        let user = Principal {
            name: names.next(),
            groups: names.collect(),
        };
        self.users.insert(client, Arc::new(user));
    }

    pub(crate) fn policy(&mut self, pattern: &str, stated: &[(String, String)]) -> Result<(), String> {
        let mut settings = Settings::default();
        for (name, value) in stated {
            let key = SettingKey::named(name).ok_or_else(|| format!("no setting is named {name}"))?;
            let value = key
                .parse(value)
                .ok_or_else(|| format!("{name} takes {}", key.allowed()))?;
            settings.state(key, value);
        }
        let act = Act::StatePolicy {
            pattern: pattern.into(),
            settings: Some(settings),
        };
        let now = self.now;
        let acted = self.broker().handle_act(&act, now);
        self.settle();
        acted.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// Nothing is left that the transcript did not expect.
    pub(crate) fn check_quiet(&self) -> Result<(), String> {
        for (number, client) in &self.clients {
            if !client.output.is_empty() {
                return Err(format!(
                    "client {number} got what was not expected: {}",
                    show(&client.output)
                ));
            }
            if client.session.phase() == Phase::Ended && !client.end_seen && !client.gone {
                return Err(format!(
                    "client {number}: the session ended unexpectedly: {:?}",
                    client.session.end_reason()
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn expect_frame(&mut self, client: u8, expected: &Expected) -> Result<(), String> {
        let target = self.clients.get_mut(&client).ok_or("no such client")?;
        let got = target.output.clone();
        let frame = target
            .take_frame()?
            .ok_or_else(|| format!("expected {}, got {}", show_pattern(&expected.command), show(&got)))?;
        let mut vars = self.vars.clone();
        match_frame(expected, &frame, &mut vars)
            .map_err(|what| format!("{what}\n  got {}", show(&frame.raw())))?;
        self.vars = vars;
        Ok(())
    }
}

impl Client {
    pub(crate) fn take_beats(&mut self) -> usize {
        let count = self.output.iter().take_while(|byte| **byte == b'\n').count();
        self.output.drain(..count);
        count
    }

    /// Takes the next frame out of the output and checks what holds for every frame.
    pub(crate) fn take_frame(&mut self) -> Result<Option<Frame>, String> {
        let Some((frame, length)) = decode(&self.output)? else {
            return Ok(None);
        };
        self.output.drain(..length);
        self.check_frame(&frame)
            .map_err(|what| format!("{what}\n  got {}", show(&frame.raw())))?;
        Ok(Some(frame))
    }

    fn check_frame(&mut self, frame: &Frame) -> Result<(), String> {
        let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let command = String::from_utf8_lossy(&frame.command).into_owned();
        rule(!self.failed, "nothing follows an ERROR")?;
        rule(
            ALLOWED.iter().any(|(known, _)| *known == command),
            "a server sends CONNECTED, MESSAGE, RECEIPT or ERROR",
        )?;
        let names: Vec<&[u8]> = frame.headers.iter().map(|line| name_of(line)).collect();
        rule(names.iter().all(|name| !name.is_empty()), "a header has a name")?;
        let count = |name: &str| names.iter().filter(|known| **known == name.as_bytes()).count();
        let value = |name: &str| {
            frame
                .headers
                .iter()
                .find(|line| name_of(line) == name.as_bytes())
                .map(|line| {
                    String::from_utf8_lossy(line.get(name.len() + 1..).unwrap_or_default()).into_owned()
                })
        };
        match command.as_str() {
            "CONNECTED" => {
                self.version = Some(value("version").unwrap_or_else(|| "1.0".to_owned()));
                rule(frame.body.is_empty(), "CONNECTED has no body")?;
            }
            "RECEIPT" => {
                rule(frame.body.is_empty(), "RECEIPT has no body")?;
                rule(
                    names.first() == Some(&&b"receipt-id"[..]),
                    "RECEIPT has a receipt-id",
                )?;
                let told = names.get(1..).unwrap_or_default();
                let known = [&b"duplicate"[..], b"duplicate-count"];
                rule(
                    told.is_sorted() && told.len() <= 2 && told.iter().all(|name| known.contains(name)),
                    "RECEIPT has a receipt-id, and what was a duplicate",
                )?;
            }
            "ERROR" => {
                self.failed = true;
                rule(count("message") == 1, "ERROR has a short message")?;
                rule(
                    frame.body.is_empty() || (frame.counted && count("content-type") == 1),
                    "an ERROR with a body has content-length and content-type",
                )?;
                rule(
                    value("content-type").is_none_or(|kind| kind.starts_with("text/plain")),
                    "an ERROR's body is text",
                )?;
                rule(self.session.phase() != Phase::Open, "an ERROR ends the session")?;
            }
            _ => {
                for owned in [
                    "message-id",
                    "destination",
                    "redelivered",
                    "delivery-count",
                    "content-length",
                ] {
                    rule(count(owned) == 1, &format!("MESSAGE has one {owned}"))?;
                }
                for owned in ["subscription", "ack"] {
                    rule(count(owned) <= 1, &format!("MESSAGE has at most one {owned}"))?;
                }
                let deliveries: u32 = value("delivery-count")
                    .and_then(|text| text.parse().ok())
                    .ok_or("delivery-count is a number")?;
                rule(deliveries >= 1, "delivery-count is 1 on the first delivery")?;
                let redelivered = value("redelivered").unwrap_or_default();
                rule(
                    redelivered == "true" || (redelivered == "false" && deliveries == 1),
                    "redelivered is true whenever an earlier delivery cannot be excluded",
                )?;
            }
        }
        let escapes: &[u8] = match (command.as_str(), self.version.as_deref()) {
            ("CONNECTED", _) | (_, None | Some("1.0")) => return Ok(()),
            (_, Some("1.1")) => b"nc\\",
            _ => b"nc\\r",
        };
        for line in &frame.headers {
            let escaped = line.get(name_of(line).len() + 1..).unwrap_or_default();
            rule(!escaped.contains(&b':'), "a colon in a value is escaped")?;
            if self.version.as_deref() == Some("1.2") {
                rule(!line.contains(&b'\r'), "a CR is escaped")?;
            }
            let mut bytes = line.iter();
            while let Some(byte) = bytes.next() {
                if *byte == b'\\' {
                    rule(
                        bytes.next().is_some_and(|sign| escapes.contains(sign)),
                        "only the escapes of the version are used",
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn name_of(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// The slow decoder: as the standard's grammar says it, and nothing else.
fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let mut at = 0;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if rest.is_empty() && lines.is_empty() {
                Ok(None)
            } else {
                Err(format!("half a frame: {}", show(bytes)))
            };
        };
        let line = rest.get(..end).unwrap_or_default().to_vec();
        at += end + 1;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(format!("a line end between frames: {}", show(bytes)));
    }
    let command = lines.remove(0);
    for line in &lines {
        if !line.contains(&b':') {
            return Err(format!("a header line without colon: {}", show(line)));
        }
    }
    let length = lines
        .iter()
        .find_map(|line| line.strip_prefix(b"content-length:"))
        .map(|text| {
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse::<usize>().ok())
                .ok_or("content-length is a number")
        })
        .transpose()?;
    let rest = bytes.get(at..).unwrap_or_default();
    let end = match length {
        Some(length) => length,
        None => rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| format!("a frame without NUL: {}", show(bytes)))?,
    };
    if rest.get(end..end + 2) != Some(b"\0\n") {
        return Err(format!("no NUL with a line feed after the body: {}", show(bytes)));
    }
    let frame = Frame {
        command,
        headers: lines,
        body: rest.get(..end).unwrap_or_default().to_vec(),
        counted: length.is_some(),
    };
    Ok(Some((frame, at + end + 2)))
}

fn match_frame(
    expected: &Expected,
    frame: &Frame,
    vars: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), String> {
    if !expected.command.fits(&frame.command, vars) {
        return Err(format!("expected {}", show_pattern(&expected.command)));
    }
    let mut left: Vec<&Vec<u8>> = frame.headers.iter().collect();
    for pattern in &expected.headers {
        // Of a repeated header the first occurrence counts, so it is the one that is expected.
        let name = pattern.name();
        let first = frame.headers.iter().find(|line| Some(name_of(line)) == name);
        let twice = expected
            .headers
            .iter()
            .filter(|other| other.name() == name)
            .count()
            > 1;
        if let Some(first) = first
            && !twice
            && !pattern.fits(first, &mut vars.clone())
        {
            return Err(format!("{} is {}", show_pattern(pattern), show(first)));
        }
        let at = left
            .iter()
            .position(|line| pattern.fits(line, vars))
            .ok_or_else(|| format!("no header {}", show_pattern(pattern)))?;
        left.remove(at);
    }
    for pattern in &expected.optional {
        if let Some(at) = left.iter().position(|line| pattern.fits(line, vars)) {
            left.remove(at);
        }
    }
    for pattern in &expected.absent {
        let name = pattern.fill(vars)?;
        if frame.headers.iter().any(|line| name_of(line) == name) {
            return Err(format!("header {} must not be there", show(&name)));
        }
    }
    let allowed = ALLOWED
        .iter()
        .find(|(command, _)| command.as_bytes() == frame.command)
        .map_or(&[][..], |(_, names)| names);
    for line in left {
        let name = name_of(line);
        // A header that is expected once and stands there twice is not excused by the list.
        let expected_too = expected
            .headers
            .iter()
            .any(|pattern| pattern.name() == Some(name));
        if expected_too || !allowed.iter().any(|known| known.as_bytes() == name) {
            return Err(format!("header {} was not expected", show(line)));
        }
    }
    if !expected.body.fits(&frame.body, vars) {
        return Err(format!("the body is not {}", show_pattern(&expected.body)));
    }
    Ok(())
}

impl Frame {
    fn raw(&self) -> Vec<u8> {
        let mut out = self.command.clone();
        for line in &self.headers {
            out.push(b'\n');
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// Bytes for people.
pub(crate) fn show(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .take(600)
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect();
    format!("\"{text}\"{}", if bytes.len() > 600 { " and more" } else { "" })
}

fn show_pattern(pattern: &Pattern) -> String {
    pattern
        .0
        .iter()
        .map(|piece| match piece {
            crate::script::Piece::Bytes(bytes) => show(bytes),
            crate::script::Piece::Var(name) => format!("<{name}>"),
            crate::script::Piece::Any => "<*>".to_owned(),
        })
        .collect()
}
