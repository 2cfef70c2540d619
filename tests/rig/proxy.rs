//! A proxy between client and broker that does one thing wrong: a fault planted from outside, which a test must find.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::client::{Frame, decode, encode};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// RECEIPT of SEND, ACK, NACK and COMMIT is sent before the broker has done anything.
    EarlyReceipt,
    /// Some confirmed ACKs never reach the broker.
    LostSettlement,
    /// Some SENDs of each transaction never reach the broker, and COMMIT goes through.
    SplitTransaction,
    /// Some SENDs of each transaction happen outside of it.
    LeakedTransaction,
    /// The end of a body that is delivered is zeros.
    ZeroedBody,
    /// Of two SENDs of one connection to one queue, one behind the other, the second message is sent first.
    SwappedSends,
    /// A NACK asks for a tenth of its rest.
    ShortRest,
    /// A subscription has a tenth of its lease.
    ShortLease,
}

/// A running proxy. Dropping it ends it; its connections end with their ends.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy before a broker.
    pub fn start(broker: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if seen.load(SeqCst) {
                    break;
                }
                // A broker that is gone closes its clients' connections; so does this.
                if let (Ok(client), Ok(broker)) = (client, TcpStream::connect(broker)) {
                    relay(client, broker, fault);
                }
            }
        });
        Self {
            addr,
            over,
            thread: Some(thread),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Wakes the thread that accepts.
        TcpStream::connect(self.addr).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn relay(client: TcpStream, broker: TcpStream, fault: Fault) {
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let to_client = Arc::new(Mutex::new(client.try_clone().unwrap()));
    let (from_client, from_broker) = (client, broker.try_clone().unwrap());
    let forged = to_client.clone();
    std::thread::spawn(move || {
        let mut to_broker = broker;
        let mut held = None;
        // An end of either side is the end of both; there is nobody to tell.
        frames(from_client, |frame| {
            if let (Some(receipt), true) = (frame.header("receipt"), forges(&frame, fault)) {
                write(&forged, &encode("RECEIPT", &[("receipt-id", receipt)], b""))?;
            }
            let frames = match fault {
                Fault::SwappedSends => swapped(&mut held, frame),
                _ => tampered(frame, fault).into_iter().collect(),
            };
            frames
                .iter()
                .try_for_each(|frame| to_broker.write_all(&bytes_of(frame)))
        })
        .ok();
        to_broker.shutdown(Shutdown::Both).ok();
    });
    std::thread::spawn(move || {
        frames(from_broker, |mut frame| {
            if fault == Fault::ZeroedBody
                && frame.command == "MESSAGE"
                && let Some(end) = frame.body.len().checked_sub(512)
            {
                frame.body[end..].fill(0);
            }
            write(&to_client, &bytes_of(&frame))
        })
        .ok();
        to_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shutdown(Shutdown::Both)
            .ok();
    });
}

fn write(stream: &Mutex<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .write_all(bytes)
}

fn number(frame: &Frame) -> u64 {
    frame
        .header("number")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Whether the proxy answers in the broker's place.
fn forges(frame: &Frame, fault: Fault) -> bool {
    match fault {
        Fault::EarlyReceipt => matches!(frame.command.as_str(), "SEND" | "ACK" | "NACK" | "COMMIT"),
        Fault::LostSettlement | Fault::SplitTransaction => swallows(frame, fault),
        Fault::LeakedTransaction
        | Fault::ZeroedBody
        | Fault::SwappedSends
        | Fault::ShortRest
        | Fault::ShortLease => false,
    }
}

fn swallows(frame: &Frame, fault: Fault) -> bool {
    let in_tx = frame.header("transaction").is_some();
    match fault {
        Fault::LostSettlement => {
            let receipt = frame.header("receipt").and_then(|text| text.parse::<u64>().ok());
            frame.command == "ACK" && !in_tx && receipt.is_some_and(|receipt| receipt % 4 == 0)
        }
        Fault::SplitTransaction => frame.command == "SEND" && in_tx && number(frame).is_multiple_of(2),
        _ => false,
    }
}

/// What the broker gets of a frame, if anything.
fn tampered(mut frame: Frame, fault: Fault) -> Option<Frame> {
    if swallows(&frame, fault) {
        return None;
    }
    if fault == Fault::EarlyReceipt && forges(&frame, fault) {
        frame.headers.retain(|(name, _)| name != "receipt");
    }
    if fault == Fault::LeakedTransaction && frame.command == "SEND" && number(&frame).is_multiple_of(2) {
        frame.headers.retain(|(name, _)| name != "transaction");
    }
    let shortened = match fault {
        Fault::ShortRest if frame.command == "NACK" => "delay",
        Fault::ShortLease if frame.command == "SUBSCRIBE" => "ack-timeout",
        _ => return Some(frame),
    };
    for (_, value) in frame.headers.iter_mut().filter(|(name, _)| name == shortened) {
        let long: f64 = value.parse().expect("the load writes numbers");
        *value = match fault {
            Fault::ShortRest => format!("{:.0}", long / 10.0),
            _ => format!("{:.3}", long / 10.0),
        };
    }
    Some(frame)
}

/// What the broker gets now: a SEND is held until it is seen what comes behind it. The messages of two change places,
/// and their receipts do not.
fn swapped(held: &mut Option<Frame>, mut frame: Frame) -> Vec<Frame> {
    let queue = |frame: &Frame| {
        let plain = frame.command == "SEND" && frame.header("transaction").is_none();
        plain.then(|| frame.header("destination").map(str::to_owned))
    };
    match (held.take(), queue(&frame)) {
        (None, Some(_)) => {
            *held = Some(frame);
            Vec::new()
        }
        (Some(mut first), behind) if behind.is_some() && queue(&first) == behind => {
            std::mem::swap(&mut first.body, &mut frame.body);
            for (name, value) in first.headers.iter_mut().filter(|(name, _)| name == "number") {
                let other = frame.headers.iter_mut().find(|(of, _)| of == name);
                std::mem::swap(value, &mut other.expect("each message has a number").1);
            }
            vec![first, frame]
        }
        (first, Some(_)) => {
            *held = Some(frame);
            first.into_iter().collect()
        }
        (first, None) => first.into_iter().chain([frame]).collect(),
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let headers: Vec<_> = frame
        .headers
        .iter()
        .filter(|(name, _)| name != "content-length")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    encode(&frame.command, &headers, &frame.body)
}

fn frames(mut stream: TcpStream, mut take: impl FnMut(Frame) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..n]);
        let mut done = 0;
        loop {
            while buffer.get(done) == Some(&b'\n') {
                done += 1;
            }
            let Some((frame, len)) = decode(&buffer[done..])? else {
                break;
            };
            done += len;
            take(frame)?;
        }
        buffer.drain(..done);
    }
}
