//! A broker that keeps no promise: it answers receipts at once and hands messages on from memory. It shows how fast the
//! load generator is alone, and, told to, breaks deliveries so that the verifier can be seen to find it.
//!
//! One thread. ACK frames count for nothing, prefetch is not kept, a subscription ends with its connection.

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
    /// Deliver it after the next one.
    Swap,
    /// Change one bit of its body.
    Alter,
    /// Send no RECEIPT for it.
    Forget,
    /// Send its RECEIPT twice.
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

#[derive(Debug, Default)]
struct Queue {
    /// Head lines and body of each message, ready to follow the broker's own headers.
    messages: VecDeque<Box<[u8]>>,
    /// Connection and raw subscription id.
    subscriptions: Vec<(usize, Vec<u8>)>,
    turn: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Sink {
    listener: TcpListener,
    /// A closed connection keeps its place, since subscriptions name places.
    links: Vec<Option<Link>>,
    queue_by_name: HashMap<Vec<u8>, usize>,
    queues: Vec<Queue>,
    plan: Option<FaultPlan>,
    received_count: u64,
    delivered_count: u64,
}

impl Sink {
    pub(super) fn bind(addr: &str, plan: Option<FaultPlan>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            links: Vec::new(),
            queue_by_name: HashMap::new(),
            queues: Vec::new(),
            plan,
            received_count: 0,
            delivered_count: 0,
        })
    }

    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let (accept, readable) = self.wait()?;
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
    }

    /// Waits for something to do: whether to accept, and what can be read.
    fn wait(&self) -> io::Result<(bool, Vec<usize>)> {
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
        match poll(&mut descriptors, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = descriptors.iter().map(|descriptor| {
            descriptor
                .revents()
                .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        });
        let accept = ready.next().unwrap_or(false);
        Ok((
            accept,
            places
                .into_iter()
                .zip(ready)
                .filter_map(|(at, ready)| ready.then_some(at))
                .collect(),
        ))
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
            let mut receipts = 1;
            match frame.command {
                b"CONNECT" | b"STOMP" => {
                    encode_frame(&mut link.out, "CONNECTED", &[("version", "1.2")], None)
                }
                b"SEND" => {
                    self.received_count += 1;
                    let fault = self
                        .plan
                        .filter(|plan| self.received_count.is_multiple_of(plan.every));
                    receipts = match fault.map(|plan| plan.fault) {
                        Some(Fault::Forget) => 0,
                        Some(Fault::Repeat) => 2,
                        _ => 1,
                    };
                    let queue = queue_of(&mut self.queue_by_name, &mut self.queues, &frame)?;
                    queue.messages.push_back(store(&frame));
                }
                b"SUBSCRIBE" => {
                    let id = frame.header("id")?.to_vec();
                    let queue = queue_of(&mut self.queue_by_name, &mut self.queues, &frame)?;
                    queue.subscriptions.push((at, id));
                }
                _ => {}
            }
            if let Some(receipt) = frame.header("receipt") {
                for _ in 0..receipts {
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
                if fault == Some(Fault::Swap) && queue.messages.len() > 1 {
                    queue.messages.swap(0, 1);
                }
                let Some(mut message) = queue.messages.pop_front() else {
                    break;
                };
                match fault {
                    Some(Fault::Lose) => continue,
                    Some(Fault::Double) => deliver(&mut link.out, id, count, &message),
                    Some(Fault::Alter) => {
                        if let Some(byte) = message.last_mut() {
                            *byte ^= 1;
                        }
                    }
                    _ => {}
                }
                deliver(&mut link.out, id, count, &message);
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

/// The queue that a frame names, made at need.
fn queue_of<'a>(
    queue_by_name: &mut HashMap<Vec<u8>, usize>,
    queues: &'a mut Vec<Queue>,
    frame: &Frame<'_>,
) -> Option<&'a mut Queue> {
    let name = frame.header("destination")?;
    let at = match queue_by_name.get(name) {
        Some(at) => *at,
        None => {
            queues.push(Queue::default());
            queue_by_name.insert(name.to_vec(), queues.len() - 1);
            queues.len() - 1
        }
    };
    queues.get_mut(at)
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
