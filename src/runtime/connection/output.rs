//! Bytes on their way to one socket, and which deliveries end where among them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::base::Tag;

/// With this much unwritten nothing is added: memory stays bounded when the peer does not read.
pub(super) const OUTPUT_BYTES_HIGH: usize = 256 * 1024;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// What comes next is appended here.
    pub(super) bytes: Vec<u8>,
    /// Bytes at the beginning of `bytes` that are in the socket.
    at: usize,
    /// Bytes that the stream ever took.
    passed: u64,
    /// Of these, those that a stream with memory of its own has not put into the socket.
    unflushed: bool,
    /// Deliveries with the number of bytes that must have passed for them to be in the socket; ascending.
    marks: VecDeque<(u64, Tag)>,
}

impl Output {
    /// Bytes not yet in the socket.
    pub(super) fn pending(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether something is not in the socket.
    pub(super) fn is_unsent(&self) -> bool {
        self.pending() > 0 || self.unflushed
    }

    /// Whether nothing may be added now.
    pub(super) fn is_high(&self) -> bool {
        self.pending() >= OUTPUT_BYTES_HIGH
    }

    /// The bytes of a delivery, or of what was skipped in its place, end here.
    pub(super) fn mark(&mut self, tag: Tag) {
        self.marks.push_back((self.passed + self.pending() as u64, tag));
    }

    /// Writes as much as the socket takes; the number of bytes it took. Pending only if it took none, or holds some back.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    self.at += n;
                    self.passed += n as u64;
                    self.unflushed = true;
                    count += n;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        // Nothing where the stream is a socket.
        let flushed = Pin::new(stream).poll_flush(cx)?;
        self.unflushed = flushed.is_pending();
        if self.pending() == 0 {
            self.bytes.clear();
            self.at = 0;
        } else if self.at >= OUTPUT_BYTES_HIGH {
            // So that what was written does not pile up before what is pending; each byte moves less than once.
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        match count {
            0 if self.unflushed => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    /// The last delivery whose bytes are all in the socket and that was not given before.
    pub(super) fn poll_written(&mut self) -> Option<Tag> {
        if self.unflushed {
            return None;
        }
        let mut written = None;
        while let Some(&(end, tag)) = self.marks.front()
            && end <= self.passed
        {
            self.marks.pop_front();
            written = Some(tag);
        }
        written
    }

    /// Takes memory to write into, if it has none of its own.
    pub(super) fn borrow(&mut self, spare: &mut Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = std::mem::take(spare);
        }
    }

    /// Gives memory back that is not needed until the next turn.
    pub(super) fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.pending() == 0 {
            self.at = 0;
            self.bytes.clear();
            self.bytes.shrink_to(4 * OUTPUT_BYTES_HIGH);
            let bytes = std::mem::take(&mut self.bytes);
            if spare.capacity() == 0 {
                *spare = bytes;
            }
        }
        if self.marks.is_empty() && self.marks.capacity() > 256 {
            self.marks = VecDeque::new();
        }
    }
}
