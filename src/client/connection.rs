//! One connection over TCP or TLS: opened and logged in blocking, then used either way.
//!
//! Bytes to send gather in [`Connection::out`]; [`Connection::write_some`] hands as many to the socket as it takes.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::base::Secret;

use super::stream::Stream;
use super::{ClientError, Decoder, Frame, Tls, encode_frame, parse_number};

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub addr: String,
    /// Login name, if any.
    pub login: Option<String>,
    /// Passcode, if any.
    pub passcode: Option<Secret>,
    /// Virtual host; the address's host if none.
    pub host: Option<String>,
    /// How long to wait for the connection and for each answer of a blocking call.
    pub timeout: Duration,
    /// The longest silence of the broker to ask for, in milliseconds; 0 for any.
    pub beat_ms: u32,
    /// TLS, if it is to be spoken.
    pub tls: Option<Tls>,
}

impl Target {
    /// An address with nothing else.
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            login: None,
            passcode: None,
            host: None,
            timeout: Duration::from_secs(10),
            beat_ms: 0,
            tls: None,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    beat: Option<Duration>,
}

impl Connection {
    /// Connects and logs in with STOMP 1.2. The socket is blocking; no heart-beats are promised to the broker.
    pub fn open(target: &Target) -> Result<Self, ClientError> {
        let fault = |source| ClientError::Connect {
            addr: target.addr.clone(),
            source,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut stream = None;
        for addr in target.addr.to_socket_addrs().map_err(fault)? {
            match TcpStream::connect_timeout(&addr, target.timeout) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = stream.ok_or_else(|| fault(last))?;
        stream.set_nodelay(true).map_err(fault)?;
        stream.set_read_timeout(Some(target.timeout)).map_err(fault)?;
        stream.set_write_timeout(Some(target.timeout)).map_err(fault)?;
        let dialled = target
            .addr
            .rsplit_once(':')
            .map_or(target.addr.as_str(), |(host, _)| host);
        let stream = match &target.tls {
            None => Stream::Plain(stream),
            Some(tls) => Stream::secure(stream, dialled, tls).map_err(fault)?,
        };
        let mut connection = Self {
            stream,
            decoder: Decoder::new(),
            out: Vec::new(),
            written: 0,
            beat: None,
        };

        let host = target.host.as_deref().unwrap_or(dialled);
        let beat = format!("0,{}", target.beat_ms);
        let mut headers = vec![("accept-version", "1.2"), ("host", host), ("heart-beat", &beat)];
        headers.extend(target.login.as_deref().map(|login| ("login", login)));
        let passcode = target
            .passcode
            .as_ref()
            .map(|passcode| String::from_utf8_lossy(passcode.reveal()));
        headers.extend(passcode.as_deref().map(|passcode| ("passcode", passcode)));
        encode_frame(connection.out(), "CONNECT", &headers, None);
        connection.write_all()?;
        connection.beat = connection.wait_frame(|frame| {
            expect_command(frame, "CONNECTED")?;
            Ok(beat_of(frame, target.beat_ms))
        })?;
        Ok(connection)
    }

    /// How often the broker promised to send at least something, if it did.
    pub fn beat(&self) -> Option<Duration> {
        self.beat
    }

    /// The bytes to send; only append.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Both ends at once, to answer a frame while it is looked at.
    pub fn split(&mut self) -> (&mut Decoder, &mut Vec<u8>) {
        (&mut self.decoder, &mut self.out)
    }

    /// How many bytes wait to be sent; what TLS holds back counts as one.
    pub fn pending_bytes(&self) -> usize {
        self.out.len() - self.written + usize::from(self.stream.holds_back())
    }

    /// From now on reads and writes do not wait.
    pub fn set_nonblocking(&self) -> Result<(), ClientError> {
        self.stream
            .socket()
            .set_nonblocking(true)
            .map_err(ClientError::Read)
    }

    /// Sends what the socket takes; true if nothing is left.
    pub fn write_some(&mut self) -> Result<bool, ClientError> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Write(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        loop {
            match self.stream.flush() {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Write(error)),
            }
        }
    }

    /// Sends everything, waiting as long as the target's timeout.
    pub fn write_all(&mut self) -> Result<(), ClientError> {
        if self.write_some()? {
            Ok(())
        } else {
            Err(ClientError::TimedOut)
        }
    }

    /// Why a write failed: what the broker said before it closed, if it said something.
    pub fn explain(&mut self, error: ClientError) -> ClientError {
        if matches!(error, ClientError::TimedOut) {
            return error;
        }
        loop {
            match self
                .decoder
                .next_frame()
                .map(|frame| frame.map(|frame| refuse_error(&frame)))
            {
                Ok(Some(Err(said))) => return said,
                Ok(Some(Ok(()))) => continue,
                Ok(None) => {}
                Err(_) => return error,
            }
            if !matches!(self.read_some(), Ok(true)) {
                return error;
            }
        }
    }

    /// Ends it in order: once this is done, the broker has taken every frame before.
    pub fn disconnect(mut self) -> Result<(), ClientError> {
        encode_frame(&mut self.out, "DISCONNECT", &[("receipt", "disconnect")], None);
        self.write_all().map_err(|error| self.explain(error))?;
        while !self.wait_frame(|frame| Ok(frame.header("receipt-id") == Some(b"disconnect")))? {}
        Ok(())
    }

    /// One read into the decoder. False if nothing is there: nothing came in time, or (non-blocking) nothing is here.
    pub fn read_some(&mut self) -> Result<bool, ClientError> {
        loop {
            match self.stream.read(self.decoder.space()) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => {
                    self.decoder.filled(count);
                    return self.read_rest();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Read(error)),
            }
        }
    }

    /// Behind a read: whoever waits for the socket must not wait for what is no longer there.
    fn read_rest(&mut self) -> Result<bool, ClientError> {
        loop {
            match self.stream.read_more(self.decoder.space()) {
                Ok(0) => return Ok(true),
                Ok(count) => self.decoder.filled(count),
                Err(error) => return Err(ClientError::Read(error)),
            }
        }
    }

    /// Waits for the next frame and hands it to `take`. An ERROR is an error. Blocking sockets only.
    pub fn wait_frame<T>(
        &mut self,
        take: impl FnOnce(&Frame<'_>) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                refuse_error(&frame)?;
                return take(&frame);
            }
            if !self.read_some()? {
                return Err(ClientError::TimedOut);
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket().as_fd()
    }
}

/// What a CONNECTED says of heart-beats, to a client that asked for one every `asked_ms`.
fn beat_of(connected: &Frame<'_>, asked_ms: u32) -> Option<Duration> {
    let offered = connected
        .header("heart-beat")?
        .split(|byte| *byte == b',')
        .next()?;
    match parse_number(offered)? {
        0 => None,
        _ if asked_ms == 0 => None,
        offered_ms => Some(Duration::from_millis(offered_ms.max(asked_ms.into()))),
    }
}

/// Fails if the frame is an ERROR.
pub fn refuse_error(frame: &Frame<'_>) -> Result<(), ClientError> {
    if frame.command != b"ERROR" {
        return Ok(());
    }
    // The first line says what is wrong; brokers add advice and traces.
    let body = String::from_utf8_lossy(frame.body);
    let body: String = body
        .trim()
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .chars()
        .take(200)
        .collect();
    let message = match frame.text("message") {
        Some(message) if body.is_empty() || body == message => message,
        Some(message) => format!("{message} ({body})"),
        None => body,
    };
    Err(ClientError::Refused { message })
}

/// Fails if the frame has another command.
pub fn expect_command(frame: &Frame<'_>, expected: &'static str) -> Result<(), ClientError> {
    if frame.command == expected.as_bytes() {
        return Ok(());
    }
    Err(ClientError::Unexpected {
        command: String::from_utf8_lossy(frame.command).into_owned(),
        expected,
    })
}
