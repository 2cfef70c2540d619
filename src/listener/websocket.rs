//! STOMP over WebSocket (RFC 6455): a stream of STOMP bytes over one of messages.
//!
//! Incoming, the bounds of messages mean nothing: their payloads, one after another, are the bytes of STOMP, decoded
//! where they were read. So no message is held, and none is too long; its frames are bounded like any others. Outgoing, a
//! STOMP frame is a message, of text if it is UTF-8, else binary.
//!
//! # Invariants
//! - Nothing is held of what is read but a header, a control frame, and a character that was cut.
//! - Behind our close frame nothing is sent. It is sent last, so that an ERROR or the RECEIPT of a DISCONNECT precedes it.
//!
//! # Not here
//! Extensions: none is agreed on, compression least of all.

mod input;
mod output;
mod upgrade;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::coding::CloseCode;

use super::carrier::Rehome;
use input::Input;
use output::Output;
pub(super) use upgrade::{Rules, answer};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: S,
    input: Input,
    output: Output,
    /// What came behind the request and was not read yet.
    early: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(stream: S, early: Vec<u8>) -> Self {
        Self {
            stream,
            input: Input::default(),
            output: Output::default(),
            early,
        }
    }

    /// Writes what is encoded.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.rest() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.output.wrote(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Answers a ping once there is room for it. What cannot leave now is tried again at the next read, which the socket
    /// wakes.
    fn answer_ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.output.is_empty() {
            match self.input.take_ping() {
                Some(ping) => self.output.put_pong(&ping),
                None => return Ok(()),
            }
        }
        match self.poll_flushed(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Fills the buffer from what came early, or from the stream.
    fn poll_raw(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(self.early.get(..count).unwrap_or_default());
        self.early.drain(..count);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Rehome> Rehome for WebSocket<S> {
    fn rehome(&mut self) -> io::Result<()> {
        self.stream.rehome()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.answer_ping(cx)?;
            // The peer's close frame is the end of what it says.
            if this.input.is_closed() {
                if this.output.is_closed() {
                    // Both have said so. Whether the stream below can say it, too, changes nothing.
                    let _ = Pin::new(&mut this.stream).poll_shutdown(cx);
                }
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(this.poll_raw(cx, buffer))?;
            let fresh = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match this.input.take(fresh) {
                Ok(0) => buffer.set_filled(before),
                Ok(count) => {
                    buffer.set_filled(before + count);
                    return Poll::Ready(Ok(()));
                }
                Err(broken) => {
                    buffer.set_filled(before);
                    this.output.put_close(broken.close_code());
                    // It is told if that goes at once; the connection is given up either way.
                    let _ = this.poll_flushed(cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, broken)));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.output.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = this.output.encode(bytes);
        // What does not leave now leaves with the next write or flush.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flushed(cx)
    }

    /// Sends our close frame. The stream below is closed only if the peer has sent its own: a client answers ours first.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.output.put_close(CloseCode::Normal);
        ready!(this.poll_flushed(cx))?;
        match this.input.is_closed() {
            true => Pin::new(&mut this.stream).poll_shutdown(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
