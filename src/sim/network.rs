//! The network: one [`Wire`] for each connection, with bytes on their way in both directions. The broker has its end as
//! a [`Socket`], which reads and writes as much at a time as chance will have it; the world moves bytes on, ends the
//! client's side, or cuts the wire.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::rng::Rng;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Wire {
    /// From the client, on their way.
    pub(super) up: VecDeque<u8>,
    /// From the client, at the broker.
    arrived: VecDeque<u8>,
    /// The client writes no more.
    pub(super) up_ended: bool,
    /// From the broker, since the world looked last.
    fresh: Vec<u8>,
    /// From the broker, on their way.
    pub(super) down: VecDeque<u8>,
    /// So many bytes from the broker can be on their way.
    window: usize,
    /// Nothing passes any more.
    cut: bool,
    /// The broker writes no more.
    pub(super) down_ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    rng: Rng,
}

/// The broker's end.
#[derive(Debug)]
pub(super) struct Socket(Rc<RefCell<Wire>>);

impl Wire {
    pub(super) fn new(window: usize, rng: Rng) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            up: VecDeque::new(),
            arrived: VecDeque::new(),
            up_ended: false,
            fresh: Vec::new(),
            down: VecDeque::new(),
            window,
            cut: false,
            down_ended: false,
            reader: None,
            writer: None,
            rng,
        }))
    }

    pub(super) fn socket(wire: &Rc<RefCell<Self>>) -> Socket {
        Socket(Rc::clone(wire))
    }

    /// Lets up to so many bytes of the client arrive. True if anything changed for the broker.
    pub(super) fn carry_up(&mut self, count: usize) -> bool {
        let count = count.min(self.up.len());
        self.arrived.extend(self.up.drain(..count));
        let ended = self.up_ended && self.up.is_empty();
        let moved = (count > 0 || ended) && self.reader.is_some();
        if moved && let Some(reader) = self.reader.take() {
            reader.wake();
        }
        count > 0 || moved
    }

    /// Up to so many bytes of the broker's reach the client.
    pub(super) fn carry_down(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.down.len());
        let bytes = self.down.drain(..count).collect();
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        bytes
    }

    /// What the broker has written since the last look; it is for the world to put it on its way.
    pub(super) fn take_fresh(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fresh)
    }

    /// Both ends are torn apart; what was on its way is lost.
    pub(super) fn cut(&mut self) {
        self.cut = true;
        self.up.clear();
        self.arrived.clear();
        self.down.clear();
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        if wire.cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = wire.arrived.len().min(buffer.remaining());
        if most == 0 {
            if wire.up_ended && wire.up.is_empty() {
                return Poll::Ready(Ok(()));
            }
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = if wire.rng.chance(1, 2) {
            most
        } else {
            1 + wire.rng.below(most)
        };
        let bytes: Vec<u8> = wire.arrived.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        if wire.cut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = wire.window.saturating_sub(wire.down.len() + wire.fresh.len());
        let most = bytes.len().min(room);
        if most == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = if wire.rng.chance(1, 2) {
            most
        } else {
            1 + wire.rng.below(most)
        };
        wire.fresh.extend(bytes.iter().take(count));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().down_ended = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.borrow_mut().down_ended = true;
    }
}
