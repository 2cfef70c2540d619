//! The streams that are not plain TCP, as one type: the driver of a connection is built once for TCP and once for this.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::{Tls, WebSocket};

/// See the module's text.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// What has not come through its gate, and is told so.
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Tls<TcpStream>),
    WebSocket(Box<WebSocket<TcpStream>>),
    SecureWebSocket(Box<WebSocket<Tls<TcpStream>>>),
}

/// A stream that can go from one tokio runtime to another.
pub(crate) trait Rehome {
    /// Makes the runtime around this call that of the stream.
    fn rehome(&mut self) -> io::Result<()>;
}

impl Rehome for TcpStream {
    fn rehome(&mut self) -> io::Result<()> {
        let descriptor = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(descriptor.into())?;
        Ok(())
    }
}

impl Rehome for UnixStream {
    fn rehome(&mut self) -> io::Result<()> {
        let descriptor = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(descriptor.into())?;
        Ok(())
    }
}

/// The same of whichever it is.
macro_rules! each {
    ($carrier:expr, $stream:ident => $what:expr) => {
        match $carrier {
            Carrier::Tcp($stream) => $what,
            Carrier::Unix($stream) => $what,
            Carrier::Tls($stream) => $what,
            Carrier::WebSocket($stream) => $what,
            Carrier::SecureWebSocket($stream) => $what,
        }
    };
}

impl Rehome for Carrier {
    fn rehome(&mut self) -> io::Result<()> {
        each!(self, stream => stream.rehome())
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
