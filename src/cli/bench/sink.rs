//! A broker that keeps no promise: it answers receipts at once and hands messages on from memory. It shows how fast the
//! load generator is alone, and, told to, breaks deliveries so that the verifier can be seen to find it.
//!
//! One thread. ACK frames count for nothing, a transaction is no more than its frames, prefetch is not kept, a
//! subscription ends with its connection. `/topic/` goes to each subscription present.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::{Decoder, Frame, encode_frame};

/// A connection with so much unsent output is given no more.
const OUT_BYTES_MAX: usize = 256 << 10;

/// What to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Fault {
    /// Deliver nothing for it.
    Lose,
    /// Deliver it twice.
    Double,
    /// Deliver it after the next one of its sender to the same subscription.
    Swap,
    /// Change one bit of its body.
    Alter,
    /// Send no RECEIPT for it, or for its transaction.
    Forget,
    /// Send that RECEIPT twice.
    Repeat,
}

/// A fault at every n-th message.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultPlan {
    pub(super) fault: Fault,
    pub(super) every: u64,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
}

/// Whom a delivery is for: a connection and a raw subscription id.
type Subscription = (usize, Vec<u8>);

#[derive(Debug, Clone)]
struct Stored {
    /// The connection it came from.
    sender: usize,
    /// Head lines and body, ready to follow the broker's own headers.
    bytes: Box<[u8]>,
}

/// What waits to be delivered to one subscription or another. A topic has one for each subscription present.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Stored>,
    subscriptions: Vec<Subscription>,
    turn: usize,
}

/// Why a wait ended.
struct Woken {
    /// Nothing happened.
    idle: bool,
    /// Somebody wants to connect.
    accept: bool,
    /// Connections that can be read.
    readable: Vec<usize>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Sink {
    listener: TcpListener,
    /// A closed connection keeps its place, since subscriptions name places.
    links: Vec<Option<Link>>,
    queues_by_name: HashMap<Vec<u8>, Vec<usize>>,
    queues: Vec<Queue>,
    plan: Option<FaultPlan>,
    confirmed_count: u64,
    delivered_count: u64,
    /// A delivery held back, to follow the next one of its sender.
    held: Option<(Subscription, Stored)>,
}

impl Sink {
    pub(super) fn bind(addr: &str, plan: Option<FaultPlan>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            links: Vec::new(),
            queues_by_name: HashMap::new(),
            queues: Vec::new(),
            plan,
            confirmed_count: 0,
            delivered_count: 0,
            held: None,
        })
    }

    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Woken {
                idle,
                accept,
                readable,
            } = self.wait()?;
            if let Some(((connection, id), message)) = self.held.take_if(|_| idle) {
                // Nothing came that it could follow.
                if let Some(link) = self.links.get_mut(connection).and_then(Option::as_mut) {
                    deliver(&mut link.out, &id, self.delivered_count, &message.bytes);
                }
            }
            for at in readable {
                if self.read(at).is_none() {
                    self.close(at);
                }
            }
            self.dispatch();
            for at in 0..self.links.len() {
                let broken = self
                    .links
                    .get_mut(at)
                    .and_then(Option::as_mut)
                    .is_some_and(|link| !link.write_some());
                if broken {
                    self.close(at);
                }
            }
            if accept {
                while let Ok((stream, _)) = self.listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    self.links.push(Some(Link {
                        stream,
                        decoder: Decoder::new(),
                        out: Vec::new(),
                        written: 0,
                    }));
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, at: usize) {
        if let Some(place) = self.links.get_mut(at) {
            *place = None;
        }
        for queue in &mut self.queues {
            queue.subscriptions.retain(|(connection, _)| *connection != at);
        }
        for (name, places) in &mut self.queues_by_name {
            if is_topic(name) {
                places.retain(|place| {
                    let queue = self.queues.get(*place);
                    queue.is_some_and(|queue| !queue.subscriptions.is_empty())
                });
            }
        }
    }

    /// Waits for something to do.
    fn wait(&self) -> io::Result<Woken> {
        let mut places = Vec::new();
        let mut descriptors = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (at, link) in self.links.iter().enumerate() {
            let Some(link) = link else { continue };
            let flags = if link.written < link.out.len() {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            places.push(at);
            descriptors.push(PollFd::from_borrowed_fd(link.stream.as_fd(), flags));
        }
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let idle = match poll(&mut descriptors, Some(&patience)) {
            Ok(count) => count == 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        let mut ready = descriptors.iter().map(|descriptor| {
            descriptor
                .revents()
                .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        });
        let accept = ready.next().unwrap_or(false);
        Ok(Woken {
            idle,
            accept,
            readable: places
                .into_iter()
                .zip(ready)
                .filter_map(|(at, ready)| ready.then_some(at))
                .collect(),
        })
    }

    /// Reads once and does what the frames ask; `None` if the connection is at its end.
    fn read(&mut self, at: usize) -> Option<()> {
        let link = self.links.get_mut(at)?.as_mut()?;
        match link.stream.read(link.decoder.space()) {
            Ok(count) if count > 0 => link.decoder.filled(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(()),
            _ => return None,
        }
        while let Some(frame) = link.decoder.next_frame().ok()? {
            match frame.command {
                b"CONNECT" | b"STOMP" => {
                    encode_frame(&mut link.out, "CONNECTED", &[("version", "1.2")], None)
                }
                b"SEND" => {
                    let name = frame.header("destination")?;
                    let message = Stored {
                        sender: at,
                        bytes: store(&frame),
                    };
                    if is_topic(name) {
                        for place in self.queues_by_name.get(name).into_iter().flatten() {
                            self.queues.get_mut(*place)?.messages.push_back(message.clone());
                        }
                    } else {
                        let place = queue_of(&mut self.queues_by_name, &mut self.queues, name);
                        self.queues.get_mut(place)?.messages.push_back(message);
                    }
                }
                b"SUBSCRIBE" => {
                    let name = frame.header("destination")?;
                    let place = queue_of(&mut self.queues_by_name, &mut self.queues, name);
                    let subscription = (at, frame.header("id")?.to_vec());
                    self.queues.get_mut(place)?.subscriptions.push(subscription);
                }
                _ => {}
            }
            if let Some(receipt) = frame.header("receipt") {
                let confirms = matches!(frame.command, b"SEND" | b"COMMIT");
                self.confirmed_count += u64::from(confirms);
                let fault = self
                    .plan
                    .filter(|plan| confirms && self.confirmed_count.is_multiple_of(plan.every));
                let count = match fault.map(|plan| plan.fault) {
                    Some(Fault::Forget) => 0,
                    Some(Fault::Repeat) => 2,
                    _ => 1,
                };
                for _ in 0..count {
                    link.out.extend_from_slice(b"RECEIPT\nreceipt-id:");
                    link.out.extend_from_slice(receipt);
                    link.out.extend_from_slice(b"\n\n\0");
                }
            }
        }
        Some(())
    }

    /// Hands messages to subscriptions in turns while there is room.
    fn dispatch(&mut self) {
        for queue in &mut self.queues {
            let mut full_count = 0;
            while full_count < queue.subscriptions.len() && !queue.messages.is_empty() {
                queue.turn = (queue.turn + 1) % queue.subscriptions.len();
                let Some((connection, id)) = queue.subscriptions.get(queue.turn) else {
                    break;
                };
                let Some(link) = self.links.get_mut(*connection).and_then(Option::as_mut) else {
                    break;
                };
                if link.out.len() - link.written >= OUT_BYTES_MAX {
                    full_count += 1;
                    continue;
                }
                full_count = 0;
                self.delivered_count += 1;
                let count = self.delivered_count;
                let fault = self
                    .plan
                    .filter(|plan| count.is_multiple_of(plan.every))
                    .map(|plan| plan.fault);
                let Some(mut message) = queue.messages.pop_front() else {
                    break;
                };
                match fault {
                    Some(Fault::Lose) => continue,
                    Some(Fault::Swap) if self.held.is_none() => {
                        self.held = Some(((*connection, id.clone()), message));
                        continue;
                    }
                    Some(Fault::Double) => deliver(&mut link.out, id, count, &message.bytes),
                    Some(Fault::Alter) => {
                        if let Some(byte) = message.bytes.last_mut() {
                            *byte ^= 1;
                        }
                    }
                    _ => {}
                }
                deliver(&mut link.out, id, count, &message.bytes);
                let follows = |(subscription, held): &mut (Subscription, Stored)| {
                    *subscription == (*connection, id.clone()) && held.sender == message.sender
                };
                if let Some((_, held)) = self.held.take_if(follows) {
                    deliver(&mut link.out, id, count, &held.bytes);
                }
            }
        }
    }
}

impl Link {
    /// Sends what the socket takes; false if it takes no more for ever.
    fn write_some(&mut self) -> bool {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) if count > 0 => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
        }
        self.out.clear();
        self.written = 0;
        true
    }
}

fn is_topic(name: &[u8]) -> bool {
    name.starts_with(b"/topic/")
}

/// The queue of that name, made at need; of a topic always a new one.
fn queue_of(
    queues_by_name: &mut HashMap<Vec<u8>, Vec<usize>>,
    queues: &mut Vec<Queue>,
    name: &[u8],
) -> usize {
    let made = queues_by_name.get(name).and_then(|places| places.first());
    if let Some(place) = made.filter(|_| !is_topic(name)) {
        return *place;
    }
    queues.push(Queue::default());
    let place = queues.len() - 1;
    queues_by_name.entry(name.to_vec()).or_default().push(place);
    place
}

fn store(frame: &Frame<'_>) -> Box<[u8]> {
    let mut message = Vec::with_capacity(frame.body.len() + 64);
    message.extend_from_slice(b"destination:");
    message.extend_from_slice(frame.header("destination").unwrap_or_default());
    message.extend_from_slice(b"\ncontent-length:");
    message.extend_from_slice(itoa::Buffer::new().format(frame.body.len()).as_bytes());
    message.extend_from_slice(b"\n\n");
    message.extend_from_slice(frame.body);
    message.into_boxed_slice()
}

fn deliver(out: &mut Vec<u8>, id: &[u8], number: u64, message: &[u8]) {
    let mut digits = itoa::Buffer::new();
    let number = digits.format(number).as_bytes();
    for part in [
        b"MESSAGE\nsubscription:",
        id,
        b"\nmessage-id:",
        number,
        b"\nack:",
        number,
        b"\n",
        message,
        b"\0",
    ] {
        out.extend_from_slice(part);
    }
}

/// A sink on a thread of this process, stopped when dropped.
#[derive(Debug)]
pub(super) struct SinkThread {
    pub(super) addr: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl SinkThread {
    pub(super) fn start(plan: Option<FaultPlan>) -> io::Result<Self> {
        let sink = Sink::bind("127.0.0.1:0", plan)?;
        let addr = sink.addr()?.to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || sink.run(&told))?;
        Ok(Self {
            addr,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for SinkThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sink that failed has already shown itself as a broken connection.
            let _ = thread.join();
        }
    }
}
