//! The world: who has the next move. Each step is one small thing, chosen by chance: a turn of a connection, bytes that
//! move on, a frame of a client, a step of the committer, a moment of time, an act, a fault.

mod faults;
mod operator;
mod view;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, Heard, Numbers, Wish};
use super::disk::Disk;
use super::history::History;
use super::host::{Failed, Host, READ_MS_MAX, Task};
use super::network::Wire;
use super::oracle::{Conn, Kind, Mode, Oracle, To};
use super::plant::{Plant, take_frames};
use super::rng::Rng;
use super::{Outcome, client};
use crate::base::{Limits, SessionNo};
use crate::broker::Counters;
use crate::client::Decoder;

/// Rounds after which what should have come to rest has not.
const QUIET_ROUND_COUNT_MAX: usize = 20_000;

/// What was done and seen in a run, so that a test can tell that it was worth something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections made.
    pub connection_count: u64,
    /// Messages sent by clients.
    pub sent_count: u64,
    /// Orders for more by pull subscriptions.
    pub asked_count: u64,
    /// Deliveries handed out by the core.
    pub delivered_count: u64,
    /// Deliveries accepted.
    pub accepted_count: u64,
    /// Messages that became dead letters.
    pub dead_lettered_count: u64,
    /// Messages that expired.
    pub expired_count: u64,
    /// Messages not stored because they had been before.
    pub duplicate_count: u64,
    /// Transactions committed and aborted.
    pub committed_count: u64,
    /// See above.
    pub aborted_count: u64,
    /// Index chunks whose facts were moved forward.
    pub compacted_count: u64,
    /// Requests refused.
    pub refused_count: u64,
    /// Body chunks read from the disk.
    pub body_read_count: u64,
    /// Crashes, those in the middle of a start among them.
    pub crash_count: u64,
    /// Clean stops.
    pub stop_count: u64,
    /// Acts of the operator.
    pub act_count: u64,
    /// Looks at a quiet moment.
    pub quiet_count: u64,
    /// Connections cut or half-closed.
    pub cut_count: u64,
}

/// A connection, as the world sees it.
struct Line {
    wire: Rc<RefCell<Wire>>,
    task: Option<Task>,
    session: SessionNo,
    /// Reads along what the broker writes.
    tap: Decoder,
    /// Which client has it, if one still does.
    client: Option<usize>,
}

/// How a run is, beside its seed.
#[derive(Debug)]
struct Profile {
    step_count: usize,
    /// Steps between quiet moments.
    quiet_every: usize,
    /// One step in so many is a fault of that kind; 0 for never.
    crash_of: usize,
    cut_of: usize,
    act_of: usize,
    disk_of: usize,
    /// The longest that nothing happens.
    pause_ms_max: usize,
}

/// See the module's text.
pub(super) struct World {
    rng: Rng,
    profile: Profile,
    limits: Limits,
    history: History,
    oracle: Oracle,
    disk: Arc<Disk>,
    host: Option<Host>,
    lines: BTreeMap<Conn, Line>,
    clients: Vec<Option<Client>>,
    numbers: Numbers,
    next_conn: Conn,
    next_copy: u32,
    room: bool,
    bodies_fail: bool,
    plant: Option<Plant>,
    plant_turns: u64,
    tally: Tally,
    elapsed_ms: u64,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Profile {
            step_count: 2_000 + rng.below(3_000),
            quiet_every: 300 + rng.below(700),
            crash_of: rng.pick(&[0, 300, 1_000, 2_500]),
            cut_of: rng.pick(&[0, 100, 400]),
            act_of: rng.pick(&[0, 60, 250]),
            disk_of: rng.pick(&[0, 400, 1_500]),
            pause_ms_max: rng.pick(&[100, 1_000, 2_500]),
        };
        let limits = limits(&mut rng);
        let numbers = Numbers::new(rng.pick(&[5, 100, 1_000]));
        let client_count = 2 + rng.below(5);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread without IO needs nothing of the system");
        Self {
            oracle: Oracle::new(limits.deliveries_failed_max),
            rng,
            profile,
            limits,
            history: History::default(),
            disk: Arc::new(Disk::new(plant)),
            host: None,
            lines: BTreeMap::new(),
            clients: (0..client_count).map(|_| None).collect(),
            numbers,
            next_conn: 1,
            next_copy: 1,
            room: true,
            bodies_fail: false,
            plant,
            plant_turns: 0,
            tally: Tally::default(),
            elapsed_ms: 0,
            runtime,
        }
    }

    /// Runs to its end, or to the first finding.
    pub(super) fn run(&mut self) {
        let handle = self.runtime.handle().clone();
        let _within = handle.enter();
        self.start();
        for step in 1..=self.profile.step_count {
            self.step();
            if step % self.profile.quiet_every == 0 {
                self.quiet();
            }
            if self.is_over() {
                return;
            }
        }
        self.drain();
    }

    pub(super) fn accuse(&mut self, kind: Kind, text: String) {
        self.oracle.accuse(kind, text);
    }

    pub(super) fn into_outcome(mut self) -> Outcome {
        let handle = self.runtime.handle().clone();
        let _within = handle.enter();
        self.lines.clear();
        self.count_life();
        self.host = None;
        Outcome {
            event_count: self.history.event_count,
            sum: self.history.sum(),
            tally: self.tally,
            found: std::mem::take(&mut self.oracle.found),
            trail: std::mem::take(&mut self.history).into_trail(),
        }
    }

    fn is_over(&self) -> bool {
        !self.oracle.found.is_empty()
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.step_connection(),
            30..52 => self.step_network(),
            52..72 => self.step_client(),
            72..90 => _ = self.step_commit(),
            90..97 => {
                let most = if self.rng.chance(1, 5) {
                    self.profile.pause_ms_max
                } else {
                    10
                };
                let ms = 1 + self.rng.below(most);
                self.pass(ms as u64);
            }
            _ => {}
        }
        self.step_tick();
        if self.rng.chance(1, 3) {
            self.step_due();
        }
        let one_of = |rng: &mut Rng, count: usize| count > 0 && rng.chance(1, count);
        if one_of(&mut self.rng, self.profile.cut_of) {
            self.disturb_network();
        }
        if one_of(&mut self.rng, self.profile.act_of) {
            self.act();
        }
        if one_of(&mut self.rng, self.profile.disk_of) {
            self.disturb_disk();
        }
        if one_of(&mut self.rng, self.profile.crash_of) {
            self.disturb_broker();
        }
    }

    fn host(&mut self) -> &mut Host {
        self.host.as_mut().expect("a broker runs between two steps")
    }

    // ---- connections ----

    fn step_connection(&mut self) {
        let ready = self.ready();
        if !ready.is_empty() {
            let conn = self.rng.pick(&ready);
            self.turn(conn);
        }
    }

    /// Connections that ask for their turn.
    fn ready(&self) -> Vec<Conn> {
        let ready = |line: &Line| line.task.as_ref().is_some_and(Task::is_ready);
        let lines = self.lines.iter().filter(|(_, line)| ready(line));
        lines.map(|(conn, _)| *conn).collect()
    }

    /// One turn of a connection, and what it wrote.
    fn turn(&mut self, conn: Conn) {
        let refused_count = self.refused_count();
        let Some(line) = self.lines.get_mut(&conn) else {
            return;
        };
        let Some(task) = &mut line.task else { return };
        let ended = task.turn();
        let session = line.session;
        if ended {
            line.task = None;
        }
        self.history.note(format!("turn {conn}"));
        let live = !ended && self.host().is_live(session);
        // What the turn has ended elsewhere comes before what it wrote; its own end behind.
        self.look_at_sessions(Some(conn));
        self.read_along(conn, live);
        self.look_at_sessions(None);
        if ended {
            self.history.note(format!("ended {conn}"));
            // An ERROR is waited for no longer than the linger, where the peer does not read.
            if self.refused_count() > refused_count {
                self.oracle.excuse(conn, "unread");
            }
            self.oracle.ended(conn);
            self.forget_line(conn);
        }
    }

    /// Connections that the broker says it has ended by a refusal, or for unread output.
    fn refused_count(&mut self) -> u64 {
        let stats = &self.host().shared.stats;
        stats.refused_count.value() + stats.timed_out_count.value()
    }

    /// What the broker has written on a connection: shown to the oracle, and sent on its way.
    fn read_along(&mut self, conn: Conn, live: bool) {
        let Some(line) = self.lines.get_mut(&conn) else {
            return;
        };
        let fresh = line.wire.borrow_mut().take_fresh();
        if fresh.is_empty() {
            return;
        }
        self.history.pass(&fresh);
        line.tap.push(&fresh);
        let Some(mut frames) = take_frames(&mut line.tap) else {
            let text = format!("connection {conn}: bytes that are no frame");
            return self.oracle.accuse(Kind::WireWrong, text);
        };
        match self.plant {
            None => line.wire.borrow_mut().down.extend(&fresh),
            Some(plant) => {
                plant.bend_down(&mut frames, &mut self.plant_turns);
                line.wire.borrow_mut().down.extend(frames.iter().flatten());
            }
        }
        let mut decoder = Decoder::with_space(4_096);
        for bytes in &frames {
            decoder.push(bytes);
            if let Ok(Some(frame)) = decoder.next_frame() {
                let command = String::from_utf8_lossy(frame.command).into_owned();
                let text = |name| frame.text(name).unwrap_or_default();
                self.history.note(format!(
                    "{conn} < {command} {}{} uid:{} sub:{} {}",
                    text("receipt-id"),
                    text("code"),
                    text("uid"),
                    text("subscription"),
                    if live { "" } else { "(not live)" },
                ));
                self.oracle.written(conn, live, &frame);
            }
        }
    }

    /// Tells the oracle of sessions that the core has ended, but for this one.
    fn look_at_sessions(&mut self, but: Option<Conn>) {
        let Some(host) = &self.host else { return };
        for (conn, line) in &self.lines {
            if Some(*conn) != but && !host.is_live(line.session) {
                self.oracle.died(*conn);
            }
        }
    }

    fn forget_line(&mut self, conn: Conn) {
        let gone = |line: &Line| line.task.is_none() && line.client.is_none();
        if self.lines.get(&conn).is_some_and(gone) {
            self.lines.remove(&conn);
        }
    }

    // ---- the network ----

    fn step_network(&mut self) {
        let conns: Vec<Conn> = self.lines.keys().copied().collect();
        if conns.is_empty() {
            return;
        }
        let conn = self.rng.pick(&conns);
        let count = match self.rng.below(4) {
            0 => 1 + self.rng.below(20),
            1 => 1 + self.rng.below(2_000),
            _ => usize::MAX,
        };
        if self.rng.chance(1, 2) {
            self.carry_up(conn, count);
        } else {
            self.carry_down(conn, count);
        }
    }

    fn carry_up(&mut self, conn: Conn, count: usize) -> bool {
        let Some(line) = self.lines.get(&conn) else {
            return false;
        };
        let moved = line.wire.borrow_mut().carry_up(count);
        if moved {
            self.history.note(format!("up {conn} {count}"));
        }
        moved
    }

    /// Bytes of the broker reach the client, if it reads.
    fn carry_down(&mut self, conn: Conn, count: usize) -> bool {
        let Some(line) = self.lines.get_mut(&conn) else {
            return false;
        };
        let Some(slot) = line.client else {
            // Nobody reads any more.
            line.wire.borrow_mut().down.clear();
            return false;
        };
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
            return false;
        };
        if client.stalled {
            return false;
        }
        let bytes = line.wire.borrow_mut().carry_down(count);
        let ended = {
            let wire = line.wire.borrow();
            wire.down_ended && wire.down.is_empty()
        };
        let heard = client.hear(&bytes);
        if !bytes.is_empty() {
            self.history.note(format!("down {conn} {}", bytes.len()));
        }
        if ended || heard == Heard::Enough {
            self.hang_up(conn);
            return true;
        }
        !bytes.is_empty()
    }

    /// The client closes and forgets its connection.
    fn hang_up(&mut self, conn: Conn) {
        let Some(line) = self.lines.get_mut(&conn) else {
            return;
        };
        line.wire.borrow_mut().up_ended = true;
        if let Some(client) = line.client.take().and_then(|slot| self.clients.get_mut(slot)) {
            *client = None;
        }
        self.history.note(format!("hang up {conn}"));
        self.oracle.leaving(conn);
        self.forget_line(conn);
    }

    // ---- clients ----

    fn step_client(&mut self) {
        let slot = self.rng.below(self.clients.len());
        if self.clients.get(slot).is_some_and(Option::is_none) {
            let version = self.rng.pick(&[10, 11, 12, 12]);
            self.connect(slot, version);
            return;
        }
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let wish = client.wish_any(&mut self.rng, &mut self.numbers);
        let conn = client.conn;
        if let Some(wish) = wish {
            self.send(conn, &wish);
        }
    }

    fn connect(&mut self, slot: usize, version: u8) {
        let conn = self.next_conn;
        self.next_conn += 1;
        let window = self.rng.pick(&[300, 3_000, 30_000, 1_000_000]);
        let wire = Wire::new(window, self.rng.split());
        let (task, session) = self.host().accept(&wire);
        let (client, wish) = Client::connect(conn, version);
        self.lines.insert(
            conn,
            Line {
                wire,
                task: Some(task),
                session,
                tap: Decoder::with_space(4_096),
                client: Some(slot),
            },
        );
        if let Some(place) = self.clients.get_mut(slot) {
            *place = Some(client);
        }
        self.tally.connection_count += 1;
        self.oracle.opened(conn, version);
        self.send(conn, &wish);
    }

    /// A client writes a frame.
    fn send(&mut self, conn: Conn, wish: &Wish) {
        let Some(line) = self.lines.get(&conn) else { return };
        if line.wire.borrow().up_ended {
            return;
        }
        self.tally.sent_count += u64::from(matches!(wish.ask, super::oracle::Ask::Send { .. }));
        self.tally.asked_count += u64::from(matches!(wish.ask, super::oracle::Ask::More { .. }));
        self.history.note(format!(
            "{conn} > {} {:?} receipt:{}",
            wish.frame, wish.ask, wish.receipt
        ));
        self.history.pass(&wish.bytes);
        self.oracle.sent(conn, wish.frame, wish.receipt, &wish.ask);
        let bytes = match self.plant {
            Some(plant) => plant.bend_up(wish.bytes.clone()),
            None => wish.bytes.clone(),
        };
        line.wire.borrow_mut().up.extend(bytes);
    }

    // ---- committer, time ----

    fn step_commit(&mut self) -> bool {
        match self.host().step_commit() {
            Ok(false) => false,
            Ok(true) => {
                let durable = self.host().shared.core.durable();
                self.history.note(format!("commit {durable}"));
                self.oracle.durable(durable.0);
                // What a transaction sent to topics goes out now, and ends who is too slow for it.
                self.look_at_sessions(None);
                true
            }
            Err(Failed) => {
                self.history.note("disk failed".to_owned());
                self.crash();
                true
            }
        }
    }

    fn step_tick(&mut self) -> bool {
        let done = self.host().step_tick();
        if done {
            self.history.note("tick".to_owned());
            self.look_at_sessions(None);
        }
        done
    }

    /// The timer, which may be late.
    fn step_due(&mut self) {
        self.host().step_due();
        self.look_at_sessions(None);
    }

    /// Time passes.
    fn pass(&mut self, ms: u64) {
        self.elapsed_ms += ms;
        self.oracle.passed(self.elapsed_ms);
        self.history.note(format!("time {ms}"));
        self.runtime
            .block_on(tokio::time::advance(Duration::from_millis(ms)));
    }

    // ---- quiet ----

    /// Lets everything happen that can, but for what clients would begin.
    fn settle(&mut self) {
        let mut idle_count = 0;
        for _ in 0..QUIET_ROUND_COUNT_MAX {
            let mut moved = false;
            for conn in self.lines.keys().copied().collect::<Vec<_>>() {
                moved |= self.carry_up(conn, usize::MAX);
                moved |= self.carry_down(conn, usize::MAX);
            }
            for conn in self.ready() {
                self.turn(conn);
                moved = true;
            }
            moved |= self.step_commit();
            moved |= self.host().is_committing();
            if moved {
                idle_count = 0;
                continue;
            }
            // Bodies may be on their way from the disk.
            self.pass(READ_MS_MAX as u64 + 1);
            self.step_due();
            // What a tick moves is there again once it is durable.
            let moved = self.step_tick() | self.step_commit() | !self.ready().is_empty();
            idle_count = if moved { 0 } else { idle_count + 1 };
            if idle_count > 3 {
                return;
            }
        }
        self.accuse(Kind::Stuck, "the broker never comes to rest".to_owned());
    }

    fn quiet(&mut self) {
        self.tally.quiet_count += 1;
        self.fail_bodies(false);
        for client in self.clients.iter_mut().flatten() {
            client.stalled = false;
        }
        self.settle();
        let look = self.look();
        self.history.note("quiet".to_owned());
        self.oracle.quiet(&look);
        self.delete_copies();
    }

    /// The end: every message that is left is delivered and accepted.
    fn drain(&mut self) {
        self.make_room(true);
        self.disk.calm();
        self.profile.crash_of = 0;
        for conn in self.lines.keys().copied().collect::<Vec<_>>() {
            self.cut(conn);
        }
        self.quiet();
        self.resume_all();
        self.connect(0, 12);
        self.pass(client::REST_MS_MAX as u64);
        self.settle();
        let look = self.look();
        for queue in look.iter().filter(|queue| !queue.entries.is_empty()) {
            let to = To::Queue(client::queue(&queue.view.name));
            self.drain_with(|client, numbers| {
                Some(client.wish_subscribe(numbers, to.clone(), Mode::Individual, None, true))
            });
        }
        for _ in 0..100 {
            self.settle();
            let mut acked = false;
            while self.drain_with(|client, _| client.wish_ack()) {
                acked = true;
            }
            if !acked || self.is_over() {
                break;
            }
        }
        if self.is_over() {
            return;
        }
        self.quiet();
        let look = self.look();
        self.oracle.drained(&look);
    }

    fn drain_with(&mut self, wish: impl FnOnce(&mut Client, &mut Numbers) -> Option<Wish>) -> bool {
        let Some(client) = self.clients.first_mut().and_then(Option::as_mut) else {
            return false;
        };
        let conn = client.conn;
        match wish(client, &mut self.numbers) {
            Some(wish) => {
                self.send(conn, &wish);
                true
            }
            None => false,
        }
    }

    /// Adds what this life of the broker has counted.
    fn count_life(&mut self) {
        let Some(host) = &self.host else { return };
        let Counters {
            delivered_count,
            accepted_count,
            dead_lettered_count,
            expired_count,
            duplicate_count,
            committed_count,
            aborted_count,
            compacted_count,
            refused_count,
            ..
        } = host.shared.core.counters();
        let tally = &mut self.tally;
        tally.delivered_count += delivered_count;
        tally.accepted_count += accepted_count;
        tally.dead_lettered_count += dead_lettered_count;
        tally.expired_count += expired_count;
        tally.duplicate_count += duplicate_count;
        tally.committed_count += committed_count;
        tally.aborted_count += aborted_count;
        tally.compacted_count += compacted_count;
        tally.refused_count += refused_count;
        tally.body_read_count += host.shared.stats.body_read_count.value();
    }
}

/// Bounds that are met now and then.
fn limits(rng: &mut Rng) -> Limits {
    Limits {
        commit_bytes_max: rng.pick(&[2_000, 50_000, 2 << 20]),
        unflushed_bytes_max: rng.pick(&[10_000, 200_000, 8 << 20]),
        body_cache_bytes_max: rng.pick(&[1, 40_000, 120_000, 64 << 20]),
        deliveries_failed_max: rng.pick(&[1, 2, 3, 5]),
        memory_bytes_max: rng.pick(&[20_000, 1 << 20, 256 << 20]),
        prefetch_bytes_max: rng.pick(&[1_000, 50_000, 8 << 20]),
        topic_backlog_count_max: rng.pick(&[5, 1_000]),
        compaction_garbage_bytes_min: rng.pick(&[200, 4_000, 16 << 10]),
        compaction_chunk_count_slack: rng.pick(&[4, 100, 65_536]),
        compaction_waste_bytes_min: rng.pick(&[1_000, 100_000, 64 << 20]),
        ..Limits::default()
    }
}
