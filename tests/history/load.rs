//! The load: producers, one of which sends again what was not confirmed, workers that consume, let rest and forward in transactions, one
//! with leases that it does not always keep to, an `auto` consumer and an ordered one, each a thread with connections of its own, until
//! the broker is gone.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::record::{Event, History, Lease, Mode, Time, What, body_of};
use crate::rig::{Client, Frame, Rng};

/// The two queues of the workers and their transactions. The second is a durable subscription to a topic.
const WORK: [&str; 2] = ["/queue/work.0", "/queue/Consumer.load.VirtualTopic.work"];
const DEAD: [&str; 2] = ["/queue/DLQ.work.0", "/queue/DLQ.Consumer.load.VirtualTopic.work"];
/// What is sent here is kept by the second queue, from the RECEIPT of its first SUBSCRIBE on.
const WORK_TOPIC: &str = "/topic/VirtualTopic.work";
/// The queue whose one consumer acknowledges automatically.
pub const AUTO: &str = "/queue/auto";
/// The queue whose one consumer checks the order.
pub const ORDERED: &str = "/queue/ordered";
/// Every queue of the load.
pub const QUEUES: [&str; 6] = [WORK[0], WORK[1], DEAD[0], DEAD[1], AUTO, ORDERED];

/// Messages sent and not yet settled beyond which producers pause, so that a load cannot outgrow its consumers.
const BACKLOG_MAX: u64 = 1_500;
/// How long a client waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that a message is asked to rest.
const REST_MS_MAX: u64 = 400;
/// Confirmations a producer may wait for.
const WINDOW: usize = 48;

#[derive(Debug)]
struct World {
    addr: SocketAddr,
    history: Arc<History>,
    /// The broker is being killed: lost connections are no surprise.
    over: AtomicBool,
    counts: Arc<Counts>,
}

/// Numbers that go on over all loads of a history; `sent` and `settled` begin anew with each, to pace it.
#[derive(Debug, Default)]
struct Counts {
    message: AtomicU64,
    conn: AtomicU32,
    sub: AtomicU32,
    tx: AtomicU32,
    sent: AtomicU64,
    settled: AtomicU64,
    /// The durable subscription is confirmed, for ever.
    bound: AtomicBool,
    /// Part of its deduplication ids, so that those of another history on the same store are others.
    history: u64,
    /// What the repeater has to send again if its connection ends.
    unconfirmed: Mutex<Vec<Unconfirmed>>,
}

/// A message, or those of a transaction, with deduplication ids.
#[derive(Debug, Clone)]
struct Unconfirmed {
    /// The frame whose RECEIPT, or that of a later one of the connection, confirms it.
    conn: u32,
    frame: u64,
    messages: Vec<(u64, &'static str)>,
    in_tx: bool,
}

impl Counts {
    fn unconfirmed(&self) -> MutexGuard<'_, Vec<Unconfirmed>> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running load. Loads of one history follow each other by [`Load::next`].
#[derive(Debug)]
pub struct Load {
    world: Arc<World>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// The first load of a history.
    pub fn start(addr: SocketAddr, history: &Arc<History>, seed: u64) -> Self {
        let counts = Counts {
            history: seed,
            ..Counts::default()
        };
        Self::run(addr, history, Arc::new(counts), seed)
    }

    /// The load after this one, on a broker that was started again.
    pub fn next(self, addr: SocketAddr, seed: u64) -> Self {
        assert!(self.threads.is_empty(), "a load is joined before the next");
        Self::run(addr, &self.world.history, self.world.counts.clone(), seed)
    }

    fn run(addr: SocketAddr, history: &Arc<History>, counts: Arc<Counts>, seed: u64) -> Self {
        counts.sent.store(0, SeqCst);
        counts.settled.store(0, SeqCst);
        let world = Arc::new(World {
            addr,
            history: history.clone(),
            over: AtomicBool::new(false),
            counts,
        });
        // Before anything is in the queue, since a delivery that the history does not know would be one too many.
        if world.counts.message.load(SeqCst) == 0 && world.bind().is_ok() {
            world.counts.bound.store(true, SeqCst);
        }
        let mut rng = Rng::new(seed);
        type Life = fn(&mut Link, &mut Rng) -> io::Result<()>;
        let lives: [Life; 9] = [
            |link, rng| producer(link, rng, false),
            |link, rng| producer(link, rng, true),
            repeater,
            |link, rng| worker(link, rng, 0, false),
            |link, rng| worker(link, rng, 1, false),
            |link, rng| worker(link, rng, 1, true),
            leaser,
            auto_consumer,
            ordered_consumer,
        ];
        let threads = lives.map(|life| {
            let world = world.clone();
            let mut rng = rng.split();
            std::thread::spawn(move || world.live(life, &mut rng))
        });
        Self {
            world,
            threads: threads.into(),
        }
    }

    /// Messages sent in this history so far.
    pub fn sent(&self) -> u64 {
        self.world.counts.message.load(SeqCst)
    }

    /// Messages settled by this load so far, in the eyes of their consumers.
    pub fn settled(&self) -> u64 {
        self.world.counts.settled.load(SeqCst)
    }

    /// Says that the broker is about to be killed.
    pub fn killing(&self) {
        self.world.over.store(true, SeqCst);
        self.world.history.record(Event::Killing);
    }

    /// Waits for all clients of a broker whose process is gone.
    pub fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("a client of the load does not panic");
        }
        self.world.history.record(Event::Down);
    }
}

impl World {
    /// Makes the durable subscription, outside of the history.
    fn bind(&self) -> io::Result<()> {
        let mut client = Client::connect(self.addr)?;
        // One that takes nothing.
        let headers = [("id", "0"), ("destination", WORK[1]), ("ack", "client")];
        client.request("SUBSCRIBE", &headers, b"")?;
        client.request("DISCONNECT", &[], b"")?;
        Ok(())
    }

    /// Where to send what is for a queue.
    fn destination(&self, queue: &'static str) -> &'static str {
        match queue == WORK[1] && self.counts.bound.load(SeqCst) {
            true => WORK_TOPIC,
            false => queue,
        }
    }

    fn live(self: &Arc<Self>, life: fn(&mut Link, &mut Rng) -> io::Result<()>, rng: &mut Rng) {
        while !self.over.load(SeqCst) {
            let Ok(client) = Client::connect(self.addr) else {
                if !self.over.load(SeqCst) {
                    // A connection refused by a living broker is a finding: it is told as a lost one.
                    let conn = self.counts.conn.fetch_add(1, SeqCst);
                    self.history.record(Event::Lost { conn });
                }
                return;
            };
            let mut link = Link {
                conn: self.counts.conn.fetch_add(1, SeqCst),
                world: self.clone(),
                client,
                frame: 0,
                waiting: VecDeque::new(),
                subs: Vec::new(),
                held: Vec::new(),
                last_error: false,
                quiet: false,
                staged: 0,
                has_ids: false,
                lease_ms: None,
            };
            match life(&mut link, rng) {
                Ok(()) => link.close(rng),
                Err(_) => link.lost(),
            }
        }
    }
}

/// A delivery that the client holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    delivery: Time,
    message: u64,
    ack: String,
}

/// What came.
#[derive(Debug)]
enum Came {
    Receipt,
    Delivery(Held),
    Nothing,
}

/// A recorded connection.
#[derive(Debug)]
struct Link {
    world: Arc<World>,
    client: Client,
    conn: u32,
    frame: u64,
    /// Frames whose RECEIPT is due.
    waiting: VecDeque<u64>,
    subs: Vec<(u32, Mode)>,
    /// Deliveries not yet settled or staged, in their order.
    held: Vec<Held>,
    last_error: bool,
    /// Asks for no receipt of what has an effect, only for those of frames without, which prove the ones before.
    quiet: bool,
    /// Messages sent in the open transaction.
    staged: u64,
    /// Its messages have deduplication ids.
    has_ids: bool,
    /// Its subscriptions have leases of this length. All it asks for is confirmed, so that a lost lease is told with its frame.
    lease_ms: Option<u64>,
}

impl Link {
    /// Records a frame and writes it; gives its number.
    fn send(&mut self, what: What, receipt: bool, ack: &str) -> io::Result<u64> {
        let effect = matches!(
            what,
            What::Send { .. }
                | What::Resend { .. }
                | What::Ack { .. }
                | What::Nack { .. }
                | What::Commit { .. }
        );
        let receipt = (receipt && !(self.quiet && effect)) || (self.lease_ms.is_some() && effect);
        self.frame += 1;
        let frame = self.frame;
        let (mut headers, mut body, mut in_tx) = (Vec::<(&str, String)>::new(), Vec::new(), None);
        let command = match &what {
            What::Send { message, queue, tx } | What::Resend { message, queue, tx } => {
                headers.push(("destination", self.world.destination(queue).to_owned()));
                headers.push(("number", message.to_string()));
                if self.has_ids {
                    headers.push(("dedup-id", format!("{:x} {message}", self.world.counts.history)));
                }
                let again = matches!(what, What::Resend { .. });
                body = body_of(*message);
                in_tx = *tx;
                // What is never committed is never settled.
                match tx {
                    _ if again => {}
                    Some(_) => self.staged += 1,
                    None => _ = self.world.counts.sent.fetch_add(1, SeqCst),
                }
                "SEND"
            }
            What::Subscribe {
                sub,
                queue,
                mode,
                lease,
            } => {
                headers.push(("id", sub.to_string()));
                headers.push(("destination", (*queue).to_owned()));
                headers.push(("ack", mode.text().to_owned()));
                let prefetch = match lease {
                    None => ["1", "10", "100", "1000"],
                    Some(_) => ["1", "2", "4", "8"],
                };
                headers.push(("prefetch-count", prefetch[*sub as usize % 4].to_owned()));
                if let Some(lease) = lease {
                    let seconds = format!("{}.{:03}", lease.span_ms / 1_000, lease.span_ms % 1_000);
                    headers.push(("ack-timeout", seconds));
                }
                self.subs.push((*sub, *mode));
                "SUBSCRIBE"
            }
            What::Unsubscribe { sub } => {
                headers.push(("id", sub.to_string()));
                "UNSUBSCRIBE"
            }
            What::Ack { tx, .. } | What::Nack { tx, .. } => {
                headers.push(("id", ack.to_owned()));
                in_tx = *tx;
                if let What::Nack {
                    due_ms: Some(due_ms), ..
                } = &what
                {
                    // Named before it is sent: so the rest is no shorter than that.
                    let delay_ms = due_ms.saturating_sub(self.world.history.now_ms()) + 1;
                    headers.push(("delay", delay_ms.to_string()));
                }
                if matches!(what, What::Ack { .. }) {
                    "ACK"
                } else {
                    "NACK"
                }
            }
            What::Begin { tx } | What::Commit { tx } | What::Abort { tx } => {
                in_tx = Some(*tx);
                match what {
                    What::Begin { .. } => "BEGIN",
                    What::Commit { .. } => "COMMIT",
                    _ => "ABORT",
                }
            }
            What::Disconnect => "DISCONNECT",
        };
        if let Some(tx) = in_tx {
            headers.push(("transaction", tx.to_string()));
        }
        if receipt {
            headers.push(("receipt", frame.to_string()));
            self.waiting.push_back(frame);
        }
        self.world.history.record(Event::Sent {
            conn: self.conn,
            frame,
            receipt,
            what,
        });
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.client.send(command, &headers, &body)?;
        Ok(frame)
    }

    /// Sends a message of its own.
    fn send_message(&mut self, queue: &'static str, tx: Option<u32>, receipt: bool) -> io::Result<u64> {
        let message = self.world.counts.message.fetch_add(1, SeqCst);
        self.send(What::Send { message, queue, tx }, receipt, "")?;
        Ok(message)
    }

    fn subscribe(&mut self, queue: &'static str, mode: Mode, receipt: bool) -> io::Result<u32> {
        let sub = self.world.counts.sub.fetch_add(1, SeqCst);
        let lease = self.lease_ms.map(|span_ms| Lease {
            span_ms,
            from_ms: self.world.history.now_ms(),
        });
        let what = What::Subscribe {
            sub,
            queue,
            mode,
            lease,
        };
        self.send(what, receipt, "")?;
        Ok(sub)
    }

    /// Reads one frame, if one comes in time, and records it.
    fn take(&mut self, timeout: Duration) -> io::Result<Came> {
        let Some(frame) = self.client.receive(timeout)? else {
            return Ok(Came::Nothing);
        };
        let number = |name: &str| {
            frame
                .header(name)
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| {
                    io::Error::other(format!("no number in the header {name} of {}", frame.command))
                })
        };
        match frame.command.as_str() {
            "RECEIPT" => {
                let frame = number("receipt-id")?;
                self.world.history.record(Event::Receipt {
                    conn: self.conn,
                    frame,
                });
                self.waiting.retain(|due| *due != frame);
                let conn = self.conn;
                let confirmed = |of: &Unconfirmed| of.conn == conn && of.frame <= frame;
                self.world.counts.unconfirmed().retain(|of| !confirmed(of));
                Ok(Came::Receipt)
            }
            "MESSAGE" => {
                let (message, sub) = (number("number")?, number("subscription")? as u32);
                let delivery = self.world.history.record(Event::Delivered {
                    conn: self.conn,
                    sub,
                    message,
                    redelivered: frame.header("redelivered") == Some("true"),
                    count: number("delivery-count")?,
                    message_id: frame.header("message-id").unwrap_or_default().to_owned(),
                    intact: frame.body == body_of(message),
                    at_ms: self.world.history.now_ms(),
                });
                let ack = frame.header("ack").unwrap_or_default().to_owned();
                let held = Held {
                    delivery,
                    message,
                    ack,
                };
                match self.subs.iter().find(|(no, _)| *no == sub) {
                    Some((_, Mode::Auto)) | None => {
                        self.world.counts.settled.fetch_add(1, SeqCst);
                    }
                    Some(_) => self.held.push(held.clone()),
                }
                Ok(Came::Delivery(held))
            }
            _ => Err(self.refused(&frame)),
        }
    }

    fn refused(&mut self, frame: &Frame) -> io::Error {
        self.last_error = true;
        let text = format!("{:?} {}", frame.headers, String::from_utf8_lossy(&frame.body));
        let conn = self.conn;
        let of = frame.header("receipt-id").and_then(|of| of.parse().ok());
        let lost = frame.header("code") == Some("lease-lost") && self.lease_ms.is_some();
        self.world.history.record(match of.filter(|_| lost) {
            Some(frame) => Event::LeaseLost {
                conn,
                frame,
                at_ms: self.world.history.now_ms(),
            },
            None => Event::Refused {
                conn,
                text: text.clone(),
            },
        });
        io::Error::other(text)
    }

    /// Reads on until a frame's receipt came.
    fn wait_for(&mut self, frame: u64) -> io::Result<()> {
        while self.waiting.contains(&frame) {
            if let Came::Nothing = self.take(PATIENCE)? {
                return Err(io::Error::other(format!("no receipt of frame {frame}")));
            }
        }
        Ok(())
    }

    /// Asks for the settlement of a held delivery; in `client` mode of all before it too.
    fn settle(&mut self, at: usize, accept: bool, tx: Option<u32>, receipt: bool) -> io::Result<Vec<Held>> {
        let cumulative = self.subs.last().is_some_and(|(_, mode)| *mode == Mode::Client);
        let from = if cumulative { 0 } else { at };
        let Held { delivery, ack, .. } = self.held[at].clone();
        let settled: Vec<_> = self.held.drain(from..=at).collect();
        if accept {
            self.world.counts.settled.fetch_add(settled.len() as u64, SeqCst);
            self.send(What::Ack { delivery, tx }, receipt, &ack)?;
        } else {
            // One in four, by a rule that needs no dice. A NACK behind the end of its lease asks for nothing.
            let rests = delivery.is_multiple_of(4) && self.lease_ms.is_none();
            let rest_ms = (delivery as u64 * 37) % REST_MS_MAX;
            let due_ms = rests.then(|| self.world.history.now_ms() + rest_ms);
            self.send(What::Nack { delivery, tx, due_ms }, receipt, &ack)?;
        }
        Ok(settled)
    }

    /// A frame that changes nothing, whose RECEIPT proves every frame before it.
    fn fence(&mut self) -> io::Result<()> {
        let tx = self.world.counts.tx.fetch_add(1, SeqCst);
        self.send(What::Begin { tx }, true, "")?;
        self.send(What::Abort { tx }, false, "")?;
        Ok(())
    }

    fn unsubscribe(&mut self, sub: u32) -> io::Result<()> {
        self.held.clear();
        let frame = self.send(What::Unsubscribe { sub }, true, "")?;
        self.wait_for(frame)?;
        self.subs.retain(|(no, _)| *no != sub);
        self.held.clear();
        Ok(())
    }

    /// DISCONNECT with a receipt, or a plain close, or a reset.
    fn close(mut self, rng: &mut Rng) {
        let reset = self.subs.iter().all(|(_, mode)| *mode != Mode::Auto);
        if reset && rng.chance(70) {
            self.world.history.record(Event::Closing { conn: self.conn });
            if rng.chance(50) {
                self.client.reset();
            }
            return;
        }
        match self
            .send(What::Disconnect, true, "")
            .and_then(|frame| self.wait_for(frame))
        {
            Ok(()) => {
                self.world.history.record(Event::Closing { conn: self.conn });
            }
            Err(_) => self.lost(),
        }
    }

    /// The connection failed: reads what is left, and says so.
    fn lost(mut self) {
        while !self.last_error {
            match self.take(PATIENCE) {
                Ok(Came::Nothing) => panic!("connection {} is neither alive nor at its end", self.conn),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if !self.last_error {
            self.world.history.record(Event::Lost { conn: self.conn });
        }
    }
}

fn producer(link: &mut Link, rng: &mut Rng, quiet: bool) -> io::Result<()> {
    let counts = link.world.counts.clone();
    link.quiet = quiet;
    loop {
        let backlog = counts
            .sent
            .load(SeqCst)
            .saturating_sub(counts.settled.load(SeqCst));
        if backlog > BACKLOG_MAX {
            link.take(Duration::from_millis(20))?;
            continue;
        }
        while link.waiting.len() > WINDOW {
            link.take(Duration::from_millis(50))?;
        }
        while let Came::Receipt = link.take(Duration::ZERO)? {}
        if quiet && rng.chance(20) {
            link.fence()?;
        }
        match rng.below(1000) {
            0..800 => {
                let queue = [WORK[0], WORK[1], AUTO, ORDERED][rng.below(4)];
                link.send_message(queue, None, rng.chance(85))?;
            }
            800..995 => {
                let tx = begin(link, rng)?;
                for _ in 0..=rng.below(4) {
                    let queue = [WORK[0], WORK[1], ORDERED][rng.below(3)];
                    link.send_message(queue, Some(tx), rng.chance(10))?;
                    if rng.chance(10) {
                        link.send_message(ORDERED, None, true)?;
                    }
                }
                end(link, rng, tx)?;
            }
            _ => return Ok(()),
        }
    }
}

/// A producer that knows of each message whether it was confirmed, and sends it again if not, on whichever connection. Now
/// and then it does so without need.
fn repeater(link: &mut Link, rng: &mut Rng) -> io::Result<()> {
    let counts = link.world.counts.clone();
    link.has_ids = true;
    let due: Vec<u64> = counts.unconfirmed().iter().map(|of| of.messages[0].0).collect();
    for first in due {
        repeat(link, first, true)?;
    }
    loop {
        let backlog = counts
            .sent
            .load(SeqCst)
            .saturating_sub(counts.settled.load(SeqCst));
        if backlog > BACKLOG_MAX {
            link.take(Duration::from_millis(20))?;
            continue;
        }
        while link.waiting.len() > WINDOW {
            link.take(Duration::from_millis(50))?;
        }
        while let Came::Receipt = link.take(Duration::ZERO)? {}
        let chosen = rng.below(1000);
        let (in_tx, count) = match chosen {
            0..700 => (false, 1),
            700..900 => (true, 1 + rng.below(4)),
            900..980 => {
                let some = counts.unconfirmed().last().map(|of| of.messages[0].0);
                if let Some(first) = some {
                    repeat(link, first, true)?;
                }
                continue;
            }
            _ => return Ok(()),
        };
        let message = |_| {
            let number = counts.message.fetch_add(1, SeqCst);
            (number, [WORK[0], WORK[1]][rng.below(2)])
        };
        let messages: Vec<_> = (0..count).map(message).collect();
        let first = messages[0].0;
        counts.unconfirmed().push(Unconfirmed {
            conn: link.conn,
            frame: u64::MAX,
            messages,
            in_tx,
        });
        repeat(link, first, false)?;
    }
}

/// Sends what begins with a message, and notes the frame that confirms it.
fn repeat(link: &mut Link, first: u64, again: bool) -> io::Result<()> {
    let counts = link.world.counts.clone();
    let (conn, mut at) = (link.conn, u64::MAX);
    let note = |frame: u64| {
        let mut list = counts.unconfirmed();
        let of = list.iter_mut().find(|of| of.messages[0].0 == first);
        of.map(|of| {
            (of.conn, of.frame) = (conn, frame);
            of.clone()
        })
    };
    let Some(Unconfirmed { messages, in_tx, .. }) = note(at) else {
        return Ok(());
    };
    let tx = in_tx.then(|| counts.tx.fetch_add(1, SeqCst));
    if let Some(tx) = tx {
        link.staged = 0;
        link.send(What::Begin { tx }, false, "")?;
    }
    for (message, queue) in messages {
        let what = match again {
            true => What::Resend { message, queue, tx },
            false => What::Send { message, queue, tx },
        };
        at = link.send(what, tx.is_none(), "")?;
    }
    if let Some(tx) = tx {
        counts.sent.fetch_add(link.staged, SeqCst);
        at = link.send(What::Commit { tx }, true, "")?;
    }
    note(at);
    Ok(())
}

fn begin(link: &mut Link, rng: &mut Rng) -> io::Result<u32> {
    link.staged = 0;
    let tx = link.world.counts.tx.fetch_add(1, SeqCst);
    link.send(What::Begin { tx }, rng.chance(10), "")?;
    Ok(tx)
}

/// COMMIT, ABORT, or neither. True where the transaction was aborted.
fn end(link: &mut Link, rng: &mut Rng, tx: u32) -> io::Result<bool> {
    match rng.below(100) {
        0..80 => {
            link.world.counts.sent.fetch_add(link.staged, SeqCst);
            link.send(What::Commit { tx }, rng.chance(85), "").map(|_| false)
        }
        80..97 => link.send(What::Abort { tx }, rng.chance(50), "").map(|_| true),
        _ => Ok(false),
    }
}

/// Whether a worker rejects a message whenever it sees it, until it is a dead letter.
fn poisonous(message: u64) -> bool {
    message.is_multiple_of(24)
}

fn worker(link: &mut Link, rng: &mut Rng, home: usize, quiet: bool) -> io::Result<()> {
    link.quiet = quiet;
    loop {
        let queue = if rng.chance(15) {
            DEAD[rng.below(2)]
        } else {
            WORK[home]
        };
        let mode = if rng.chance(40) {
            Mode::Client
        } else {
            Mode::Individual
        };
        let sub = link.subscribe(queue, mode, rng.chance(50))?;
        let rounds = if queue == WORK[home] { 400 } else { 40 };
        for _ in 0..rng.below(rounds) + 10 {
            if quiet && rng.chance(20) {
                link.fence()?;
            }
            let wait = if link.held.is_empty() { 20 } else { 0 };
            if matches!(link.take(Duration::from_millis(wait))?, Came::Delivery(_)) && rng.chance(50) {
                continue;
            }
            if link.held.is_empty() {
                continue;
            }
            let at = rng.below(link.held.len());
            let poison = link.held.iter().position(|held| poisonous(held.message));
            match (poison, rng.below(100)) {
                (Some(at), 0..60) if queue == WORK[home] => {
                    link.settle(at, false, None, rng.chance(50))?;
                }
                (None, 0..3) if queue == WORK[home] => {
                    link.settle(at, false, None, rng.chance(50))?;
                }
                (None, 3..25) => forward(link, rng)?,
                (None, _) => {
                    link.settle(at, true, None, rng.chance(50))?;
                }
                (Some(_), _) if queue != WORK[home] => {
                    link.settle(at, true, None, rng.chance(50))?;
                }
                (Some(_), _) => {}
            }
        }
        match rng.below(100) {
            0..70 => link.unsubscribe(sub)?,
            _ => return Ok(()),
        }
    }
}

/// A consumer with leases, which now and then works for longer than it has said.
fn leaser(link: &mut Link, rng: &mut Rng) -> io::Result<()> {
    loop {
        let lease_ms = 30 + rng.below(90) as u64;
        link.lease_ms = Some(lease_ms);
        let sub = link.subscribe(WORK[rng.below(2)], Mode::Individual, true)?;
        for _ in 0..rng.below(60) + 10 {
            link.take(Duration::from_millis(10))?;
            if link.held.is_empty() {
                continue;
            }
            let at = rng.below(link.held.len());
            match rng.below(100) {
                0..6 => {
                    let span = Duration::from_millis(lease_ms + rng.below(60) as u64);
                    too_long(link, rng, span)?;
                }
                6..16 => forward(link, rng)?,
                _ => {
                    let accept = !poisonous(link.held[at].message);
                    link.settle(at, accept, None, true)?;
                }
            }
        }
        match rng.below(100) {
            0..90 => link.unsubscribe(sub)?,
            _ => return Ok(()),
        }
    }
}

/// Lets the leases of what is held run out, and answers a part of it all the same.
fn too_long(link: &mut Link, rng: &mut Rng, span: Duration) -> io::Result<()> {
    if let Some(frame) = link.waiting.back().copied() {
        link.wait_for(frame)?;
    }
    let late = link.held.clone();
    let begin = Instant::now();
    while let Some(rest) = span.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
        link.take(rest)?;
    }
    for held in late {
        let Some(at) = link.held.iter().position(|of| *of == held) else {
            continue;
        };
        match rng.below(100) {
            0..10 => _ = link.settle(at, true, None, true)?,
            10..40 => _ = link.settle(at, false, None, true)?,
            _ => _ = link.held.remove(at),
        }
    }
    Ok(())
}

/// One transaction over two queues: settles some of what is held and sends other messages on.
fn forward(link: &mut Link, rng: &mut Rng) -> io::Result<()> {
    let tx = begin(link, rng)?;
    let mut staged = Vec::new();
    for n in 0..=rng.below(3) {
        let counts = &link.world.counts;
        let crowded = counts
            .sent
            .load(SeqCst)
            .saturating_sub(counts.settled.load(SeqCst))
            > BACKLOG_MAX / 2;
        if !crowded || n == 0 {
            link.send_message([WORK[0], WORK[1], ORDERED][rng.below(3)], Some(tx), false)?;
        }
        if !link.held.is_empty() {
            let at = rng.below(link.held.len().min(4));
            staged.extend(link.settle(at, rng.chance(95), Some(tx), rng.chance(10))?);
        }
    }
    if end(link, rng, tx)? {
        link.world.counts.settled.fetch_sub(staged.len() as u64, SeqCst);
        link.held.extend(staged);
        link.held.sort_unstable_by_key(|held| held.delivery);
    }
    Ok(())
}

fn auto_consumer(link: &mut Link, rng: &mut Rng) -> io::Result<()> {
    let sub = link.subscribe(AUTO, Mode::Auto, rng.chance(50))?;
    for _ in 0..rng.below(3000) {
        link.take(Duration::from_millis(20))?;
    }
    link.unsubscribe(sub)
}

fn ordered_consumer(link: &mut Link, rng: &mut Rng) -> io::Result<()> {
    let sub = link.subscribe(ORDERED, Mode::Client, rng.chance(50))?;
    for _ in 0..rng.below(3000) {
        if let Came::Delivery(_) = link.take(Duration::from_millis(20))? {
            if link.held.len() >= 20 || rng.chance(10) {
                link.settle(rng.below(link.held.len()), true, None, rng.chance(50))?;
            }
        } else if !link.held.is_empty() {
            // With a small prefetch nothing more comes before something is settled.
            link.settle(link.held.len() - 1, true, None, rng.chance(50))?;
        }
    }
    link.unsubscribe(sub)
}

/// Empties every queue of a broker that has no other clients: settles with receipts all that comes before a message of
/// its own, which is the last in each queue. Gives how many other messages came.
pub fn drain(load: &Load, addr: SocketAddr) -> u64 {
    let world = Arc::new(World {
        addr,
        history: load.world.history.clone(),
        over: AtomicBool::new(false),
        counts: load.world.counts.clone(),
    });
    let mut drained = 0;
    for queue in QUEUES {
        let client = Client::connect(addr).expect("the broker takes connections");
        let mut link = Link {
            conn: world.counts.conn.fetch_add(1, SeqCst),
            world: world.clone(),
            client,
            frame: 0,
            waiting: VecDeque::new(),
            subs: Vec::new(),
            held: Vec::new(),
            last_error: false,
            quiet: false,
            staged: 0,
            has_ids: false,
            lease_ms: None,
        };
        let result = drain_queue(&mut link, queue);
        match result {
            Ok(count) => drained += count,
            Err(error) => panic!("draining {queue}: {error}"),
        }
        world.history.record(Event::Closing { conn: link.conn });
    }
    drained
}

fn drain_queue(link: &mut Link, queue: &'static str) -> io::Result<u64> {
    // What rests is in its old place from then on, before the last.
    if WORK.contains(&queue) {
        link.take(Duration::from_millis(REST_MS_MAX))?;
    }
    let last = link.send_message(queue, None, true)?;
    link.subscribe(queue, Mode::Individual, true)?;
    let mut count = 0;
    loop {
        match link.take(PATIENCE)? {
            Came::Delivery(held) => {
                link.settle(0, true, None, true)?;
                if held.message == last {
                    break;
                }
                count += 1;
            }
            Came::Receipt => {}
            Came::Nothing => return Err(io::Error::other(format!("message {last} does not come"))),
        }
    }
    while let Some(frame) = link.waiting.back().copied() {
        link.wait_for(frame)?;
    }
    let frame = link.send(What::Disconnect, true, "")?;
    link.wait_for(frame)?;
    Ok(count)
}
